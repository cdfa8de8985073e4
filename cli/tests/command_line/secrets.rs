//! No secret comes out: the real gateway and the real commands with recognisable secrets in every place that takes one,
//! and a scanner over all that they write, say and start.
//!
//! A secret of these tests begins with [`CANARY`], so that one that nobody thought of is found too. It may lie where it
//! was put, and in the files that are made to hold secrets, which their owner alone reads: [`KEEPERS`].

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;
use tungstenite::{Message, client::IntoClientRequest as _};

use crate::{
    process::{Home, Outcome, signal},
    run_options::{ended, quiet},
    server::{Server, record},
    tailscale::Machine,
};

/// How every secret of these tests begins.
const CANARY: &str = "c4n4ry";
/// What a pattern of the configuration keeps out of the log, in a message of a caller. What is said is kept: [`SPOKEN`].
const SAID: &str = "message=a private-c4n4ry of a caller";
/// The beginning of the names of files that hold what was said, and no other secret.
const SPOKEN: [&str; 2] = ["gateway.sqlite", "raw-stream.jsonl"];
/// The end of the paths below a home that may hold secrets, beside those that a test wrote itself.
const KEEPERS: [&str; 3] = ["/gateway/token", "/gateway/tls/gateway-key.pem", "/gateway/identity.json"];

/// What is looked for, and where it was found.
#[derive(Default)]
struct Scanner {
    /// Secrets that were made by programs; [`CANARY`] is looked for anyway.
    made: Vec<Vec<u8>>,
    found: BTreeSet<String>,
    /// How many texts and files were looked at.
    looked_at: usize,
}

impl Scanner {
    fn made(&mut self, secret: &str) {
        assert!(secret.len() >= 16, "too short to be told from other text: {secret}");
        self.made.push(secret.as_bytes().to_vec());
    }

    /// Looks at something that has a name.
    fn look(&mut self, name: &str, content: &[u8]) {
        self.looked_at += 1;
        let canary = CANARY.as_bytes().to_vec();
        for secret in std::iter::once(&canary).chain(&self.made) {
            if let Some(at) = content.windows(secret.len()).position(|window| window == &secret[..]) {
                let (from, to) = (at.saturating_sub(60), (at + 60).min(content.len()));
                let around = String::from_utf8_lossy(&content[from..to]).replace('\n', "⏎");
                self.found.insert(format!("{name}: …{around}…"));
            }
        }
    }

    fn look_at_outcome(&mut self, name: &str, outcome: &Outcome) {
        self.look(&format!("stdout of {name}"), outcome.stdout.as_bytes());
        self.look(&format!("stderr of {name}"), outcome.stderr.as_bytes());
    }

    /// Looks at every file below `directory`, but for those that keep secrets. These are their owner's alone.
    fn look_at_files(&mut self, directory: &Path, put: &[PathBuf]) {
        for entry in fs::read_dir(directory).expect("it is a directory").flatten() {
            let path = entry.path();
            let kind = entry.file_type().expect("it has a kind");
            if kind.is_dir() {
                self.look_at_files(&path, put);
            } else if kind.is_file() && !put.contains(&path) {
                let name = path.display().to_string();
                if KEEPERS.iter().any(|keeper| name.ends_with(keeper)) {
                    let mode = entry.metadata().expect("it is there").permissions().mode() & 0o777;
                    assert_eq!(mode, 0o600, "{name}");
                } else {
                    let content = fs::read(&path).expect("it is ours");
                    let file_name = entry.file_name();
                    if SPOKEN.iter().any(|spoken| file_name.to_string_lossy().starts_with(spoken)) {
                        let others = String::from_utf8_lossy(&content).replace("private-c4n4ry", "");
                        self.look(&name, others.as_bytes());
                    } else {
                        self.look(&name, &content);
                    }
                }
            }
        }
    }

    /// Looks at the command line of a process, and of all that it started; at the environment of those too. `is_typed`:
    /// its own command line was given a secret, as its help warns.
    fn look_at_processes(&mut self, pid: u32, is_typed: bool) {
        if !is_typed {
            self.look("the command line of the gateway", command_line(pid).as_bytes());
        }
        for child in children(pid) {
            let line = command_line(child);
            self.look("the command line of a child", line.as_bytes());
            let environment = fs::read(format!("/proc/{child}/environ")).unwrap_or_default();
            // What the configuration gives to this very command.
            let others = String::from_utf8_lossy(&environment).replace("MY_KEY=c4n4ry-back-end", "");
            self.look(&format!("the environment of {line}"), others.as_bytes());
        }
    }

    #[track_caller]
    fn finish(self, at_least: usize) {
        assert!(self.looked_at >= at_least, "only {} things were looked at", self.looked_at);
        let found: Vec<String> = self.found.into_iter().collect();
        assert!(found.is_empty(), "secrets came out:\n{}", found.join("\n"));
    }
}

/// The processes that a process has started, and that are there still.
fn children(pid: u32) -> Vec<u32> {
    let all = fs::read_dir("/proc").expect("there is a list").flatten();
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let parent = |child: u32| {
        let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
        status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
    };
    numbers.filter(|child| parent(*child) == Some(pid)).collect()
}

/// As `ps` shows it.
fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// A provider of models that answers with an error which quotes what it was sent.
fn quoting_provider() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let url = format!("http://{}/v1", listener.local_addr().expect("it has an address"));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("it is accepted");
            let mut request = [0; 16 * 1024];
            let count = stream.read(&mut request).unwrap_or_default();
            let quoted = String::from_utf8_lossy(&request[..count]).replace(['"', '\\', '\r', '\n'], " ");
            let body = format!("{{\"error\": {{\"message\": \"bad key in: {quoted}\"}}}}");
            let length = body.len();
            let head = format!(
                "HTTP/1.1 401 Unauthorized\r\ncontent-type: application/json\r\ncontent-length: {length}"
            );
            // Whoever does not read the answer has had enough.
            let _ = stream.write_all(format!("{head}\r\nconnection: close\r\n\r\n{body}").as_bytes());
        }
    });
    url
}

/// A configuration with a secret in every place that takes one.
fn configuration(provider: &str, auth: &str, style: &str) -> String {
    format!(
        "{{
  gateway: {{
    mode: 'local', auth: {auth}, tls: {{ enabled: true }}, tailscale: {{ mode: 'serve' }},
    remote: {{ url: 'wss://127.0.0.1:1', token: 'c4n4ry-remote-token', password: 'c4n4ry-remote-password' }},
  }},
  logging: {{ level: 'trace', consoleLevel: 'trace', consoleStyle: '{style}', redactPatterns: ['private-[0-9a-z]+'] }},
  env: {{ vars: {{ SOME_API_KEY: 'c4n4ry-variable' }} }},
  models: {{ providers: {{ quoting: {{
    baseUrl: '{provider}', apiKey: 'c4n4ry-api-key-0123456789', api: 'openai-completions',
    headers: {{ 'x-tenant-key': 'c4n4ry-header' }}, models: [{{ id: 'any' }}],
  }} }} }},
  agents: {{ defaults: {{ model: 'mine/any', cliBackends: {{ mine: {{
    command: '/bin/sh', args: ['-c', 'cat >/dev/null; echo key is $MY_KEY >&2; sleep 1; echo done'],
    input: 'stdin', output: 'text', env: {{ MY_KEY: 'c4n4ry-back-end' }},
  }} }} }} }},
}}"
    )
}

/// The commands that ask a gateway, well and badly.
fn ask(home: &Home, scanner: &mut Scanner) {
    let calls: &[&[&str]] = &[
        &["gateway", "health", "--json"],
        &["gateway", "status", "--deep", "--json"],
        &["gateway", "status", "--deep"],
        &["gateway", "probe", "--json"],
        &["gateway", "probe"],
        &["gateway", "auth", "explain", "--json"],
        &["gateway", "auth", "explain"],
        &["gateway", "call", "config.get", "--json"],
        &["gateway", "call", "models.list", "--params", "{\"refresh\": true}", "--json"],
        &["gateway", "call", "agent", SAID, "model=quoting/any", "--expect-final"],
        &["gateway", "call", "agent", "message=hello", "--expect-final", "--json"],
        &["gateway", "health", "--token", "c4n4ry-wrong-token"],
        &["gateway", "health", "--password", "c4n4ry-wrong-password", "--json"],
        &["gateway", "call", "connect", "--params", "{\"auth\": {\"token\": \"c4n4ry-in-params\"}}"],
        &["gateway", "call", "health", "--params", "{\"token\": \"c4n4ry-unknown-field\"}"],
        &[
            "gateway",
            "health",
            "--url",
            "ws://user:c4n4ry-in-url@127.0.0.1:1",
            "--token",
            "c4n4ry-for-nobody",
        ],
        &[
            "gateway",
            "health",
            "--url",
            "ws://127.0.0.1:1/?token=c4n4ry-in-query",
            "--token",
            "c4n4ry-for-nobody",
        ],
        &["gateway", "install", "--dry-run", "--env", "OPENAI_API_KEY=c4n4ry-installed"],
        &["gateway", "install", "--dry-run", "--json", "--token", "c4n4ry-installed-token"],
        &["gateway", "logs", "--limit", "5000"],
        &["gateway", "logs", "--limit", "5000", "--json"],
    ];
    for call in calls {
        let outcome = home.run(call.iter().copied());
        let name: Vec<&str> = call.iter().filter(|word| !word.contains(CANARY)).copied().collect();
        scanner.look_at_outcome(&name.join(" "), &outcome);
    }
}

/// Sends first messages over OpenClaw frames and JSON-RPC that hold secrets: good ones, wrong ones, and broken ones.
/// `port` is that for a proxy, which speaks no TLS.
fn greet(port: u16, scanner: &mut Scanner) {
    let client = r#""client":{"id":"cli","version":"1","platform":"linux","mode":"cli"},"minProtocol":3,"maxProtocol":4"#;
    let auth = r#""auth":{"token":"c4n4ry-wrong","password":"c4n4ry-wrong","deviceToken":"c4n4ry-device"}"#;
    let connect =
        |rest: &str| format!(r#"{{"type":"req","id":"1","method":"connect","params":{{{client},{rest}}}}}"#);
    for (path, text) in [
        ("/", connect(auth)),
        ("/", connect(r#""auth":{"bootstrapToken":"c4n4ry-setup"}"#)),
        ("/", connect(r#""auth":{"tokne":"c4n4ry-misspelt"}"#)),
        ("/", connect(r#""auth":"c4n4ry-not-an-object""#)),
        ("/", connect(r#""auth":{"token":"c4n4ry-cut"#)),
        ("/", "c4n4ry-no-json".to_owned()),
        ("/rpc", format!(r#"{{"jsonrpc":"2.0","id":1,"method":"connect","params":{{{auth}}}}}"#)),
        ("/rpc", r#"{"jsonrpc":"2.0","id":1,"method":"health","params":{"token":"c4n4ry"}}"#.to_owned()),
        (
            "/rpc",
            r#"{"jsonrpc":"2.0","id":1,"method":"connect","params":{"auth":{"token":"c4n4ry"#.to_owned(),
        ),
    ] {
        let mut request =
            format!("ws://127.0.0.1:{port}{path}").into_client_request().expect("it is a request");
        request.headers_mut().insert("x-forwarded-for", "100.64.0.9".parse().expect("a value"));
        let (mut socket, _) = tungstenite::connect(request).expect("it is let in, to say who it is");
        socket.send(Message::text(text.clone())).expect("it is sent");
        while let Ok(answer) = socket.read() {
            scanner.look(&format!("the answer to {}", text.replace(CANARY, "…")), &answer.into_data());
            if path == "/rpc" {
                break;
            }
        }
    }
}

/// Waits until a process has started one whose command line has these words.
fn await_child(pid: u32, words: &str) {
    let patience = Instant::now() + Duration::from_secs(20);
    while !children(pid).iter().any(|child| command_line(*child).contains(words)) {
        assert!(Instant::now() < patience, "no process with {words:?} was started");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Starts a gateway with a secret given in some way, has it asked, restarted and stopped, and looks at all that came of
/// it. `variable` is of the environment of all commands.
fn put(auth: &str, style: &str, args: &[&str], variable: Option<(&'static str, &'static str)>) {
    let mut machine = Machine::new();
    if let Some((name, value)) = variable {
        machine.home = machine.home.with(name, value);
    }
    let home = &machine.home;
    let config = home.write(".openclaw/openclaw.json", &configuration(&quoting_provider(), auth, style));
    fs::set_permissions(&config, fs::Permissions::from_mode(0o600)).expect("it is ours");
    let token_file = home.write("token.txt", "c4n4ry-of-a-file-0123456789\n");
    let mut scanner = Scanner::default();

    let always = ["gateway", "run", "--port", "0", "--verbose", "--ws-log", "full", "--raw-stream"];
    let mut server = Server::start(home, always.iter().chain(args).copied());
    let pid = server.child.id();
    let state = home.path().join(".openclaw");
    let read = |name: &str| fs::read_to_string(state.join(name)).unwrap_or_default();
    scanner.made(read("gateway/tls/gateway-key.pem").lines().nth(1).expect("a key has lines"));
    let identity: Value = serde_json::from_str(&read("gateway/identity.json")).expect("it is JSON");
    scanner.made(identity["privateKey"].as_str().expect("it has a private key"));
    if auth == "{}" {
        scanner.made(read("gateway/token").trim());
    }

    let in_flight = home.spawn_piped(["gateway", "call", "agent", "message=hello", "--expect-final"]);
    await_child(pid, "echo key is");
    scanner.look_at_processes(pid, args.contains(&"--token"));
    scanner.look_at_outcome("a call", &Outcome::of(in_flight.wait_with_output().expect("it ends")));
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("it is ours");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("it is a limit");
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "a dump would hold every secret: {core}");
    let code = home.run(["gateway", "call", "device.pair.setupCode", "--json"]).json(0);
    scanner.made(code["setupCode"].as_str().expect("it is given"));
    ask(home, &mut scanner);
    greet(machine.port(), &mut scanner);
    signal(&server.child, Signal::USR1);
    server.says("listening on");
    scanner.look("the runtime record", record(&state).to_string().as_bytes());
    let (code, said) = server.stop(Signal::TERM);
    assert_eq!(code, Some(0), "{said}");
    scanner.look("the console", said.as_bytes());
    let told = said + &read("gateway/logs/openclaw.log");
    for spoken in ["a *** of a caller", "quoting", "✗ connect", "✓ config.get"] {
        assert!(told.contains(spoken), "nothing tells of {spoken}: this test looks at too little");
    }
    scanner.look_at_files(home.path(), &[config, token_file]);
    scanner.look_at_files(machine.standin(), &[]);
    scanner.finish(50);
}

#[test]
fn a_token_of_the_configuration_stays_there() {
    put("{ token: 'c4n4ry-config-token' }", "pretty", &[], None);
}

#[test]
fn a_password_of_the_configuration_stays_there() {
    put("{ password: 'c4n4ry-config-password' }", "compact", &[], None);
}

#[test]
fn a_token_of_the_environment_stays_there() {
    let variable = Some(("OPENCLAW_GATEWAY_TOKEN", "c4n4ry-of-the-environment"));
    put("{ token: '${OPENCLAW_GATEWAY_TOKEN}' }", "json", &[], variable);
}

#[test]
fn a_token_of_a_file_stays_there() {
    let variable = Some(("OPENCLAW_GATEWAY_TOKEN", "c4n4ry-of-a-file-0123456789"));
    put("{ mode: 'token' }", "compact", &["--token-file", "token.txt"], variable);
}

#[test]
fn a_token_of_the_command_line_goes_no_further() {
    let variable = Some(("OPENCLAW_GATEWAY_TOKEN", "c4n4ry-on-the-command-line"));
    put("{ mode: 'token' }", "json", &["--token", "c4n4ry-on-the-command-line"], variable);
}

#[test]
fn a_generated_token_stays_in_its_file() {
    put("{}", "pretty", &[], None);
}

#[test]
fn what_a_back_end_says_of_its_key_is_masked_on_the_console() {
    let machine = Machine::new();
    let home = &machine.home;
    let auth = "{ token: 'c4n4ry-config-token' }";
    home.write(".openclaw/openclaw.json", &configuration(&quoting_provider(), auth, "compact"));
    let child = quiet(home, &["gateway", "run", "--port", "0", "--claude-cli-logs"]);
    home.run(["gateway", "call", "agent", "message=hello", "--expect-final"]).ok();
    let said = ended(child, |said| said.contains("key is"));
    assert!(said.contains("[mine stderr] key is ***"), "{said}");
    let mut scanner = Scanner::default();
    scanner.look("the console", said.as_bytes());
    scanner.finish(1);
}

#[test]
fn the_scanner_finds_what_it_looks_for() {
    let home = Home::new();
    home.write("a/plain.log", "x c4n4ry-1 y");
    home.write("a/made.log", "0123456789abcdef0123");
    home.write("a/put.json", "c4n4ry-2");
    home.write("a/gateway.sqlite", "private-c4n4ry and c4n4ry-3");
    let mut scanner = Scanner::default();
    scanner.made("0123456789abcdef");
    scanner.look_at_files(home.path(), &[home.path().join("a/put.json")]);
    let found: Vec<&str> = scanner.found.iter().filter_map(|found| found.split(": ").next()).collect();
    let names = ["gateway.sqlite", "made.log", "plain.log"];
    assert_eq!(found, names.map(|name| home.path().join("a").join(name).display().to_string()));
    assert_eq!(scanner.looked_at, 3);
}

#[test]
fn what_is_refused_is_not_quoted() {
    let mut scanner = Scanner::default();
    for config in [
        "{ gateway: { mode: 'local', auth: { token: 'c4n4ry-before', port: , } } }",
        "{ gateway: { mode: 'local', auth: { token: 'c4n4ry-open } } }",
        "{ gateway: { mode: 'local', auth: { token: c4n4ry-bare } } }",
        "{ gateway: { mode: 'local', auth: { tokn: 'c4n4ry-misspelt' } } }",
        "{ gateway: { mode: 'local', auth: { token: ['c4n4ry-in-a-list'] } } }",
        "{ gateway: { mode: 'local', auth: { token: ' c4n4ry-with-blanks ' } } }",
        "{ gateway: { mode: 'local', auth: { token: 'c4n4ry-t', password: 'c4n4ry-p' } } }",
        "{ gateway: { mode: 'local', bind: 'lan', auth: { token: 'c4n4ry-short' } } }",
        "{ gateway: { mode: 'local', auth: { mode: 'no-mode' } }, env: { vars: { KEY: 'c4n4ry' } } , x: }",
        "{ gateway: { mode: 'local', remote: { token: { c4n4ry: 1 } } } }",
        "{ gateway: { mode: 'local' }, models: { providers: { p: { baseUrl: 'no url', apiKey: 'c4n4ry-key' } } } }",
        "{ gateway: { mode: 'local' }, models: { providers: { p: { apiKey: 'c4n4ry-key', headers: 1 } } } }",
        "{ gateway: { mode: 'local' }, models: { providers: { p: { headers: { authorization: ['c4n4ry'] } } } } }",
        "{ gateway: { mode: 'remote', remote: { url: 'ws://c4n4ry:c4n4ry@10.0.0.1', token: 'c4n4ry' } } }",
    ] {
        let home = Home::new();
        home.write(".openclaw/openclaw.json", config);
        // Some are no mistakes of a gateway, but of those who call one.
        for args in [
            &["gateway", "health", "--timeout", "200"][..],
            &["gateway", "health", "--timeout", "200", "--json"],
            &["gateway", "status", "--no-probe", "--deep"],
            &["gateway", "status", "--no-probe", "--deep", "--json"],
            &["gateway", "auth", "explain"],
            &["gateway", "auth", "explain", "--json"],
            &["gateway", "run", "--port", "0", "--tailscale", "serve"],
        ] {
            let outcome = home.run(args.iter().copied());
            scanner
                .look_at_outcome(&format!("{} with {config}", args.join(" ")).replace(CANARY, "…"), &outcome);
        }
    }
    let home = Home::new();
    let secret_file = home.write("broken", "c4n4ry-line-one\nc4n4ry-line-two\n");
    for args in [
        &["gateway", "call", "health", "--params", "{\"token\": \"c4n4ry\" x}"][..],
        &["gateway", "call", "logs.tail", "--params", "{\"token\": \"c4n4ry\"}"],
        &["gateway", "call", "connect", "auth:={\"token\":\"c4n4ry"],
        &["gateway", "run", "--token", "c4n4ry", "--token-file", "x"],
        &["gateway", "run", "--allow-unconfigured", "--token", "c4n4ry", "--password", "c4n4ry-too"],
        &["gateway", "run", "--allow-unconfigured", "--auth", "none", "--password", "c4n4ry"],
        &[
            "gateway",
            "run",
            "--allow-unconfigured",
            "--port",
            "0",
            "--token-file",
            secret_file.to_str().expect("a text"),
        ],
        &["gateway", "health", "--url", "ws://c4n4ry:c4n4ry@127.0.0.1:1"],
        &["gateway", "health", "--url", "ftp://c4n4ry:c4n4ry@127.0.0.1:1", "--token", "c4n4ry"],
        &[
            "gateway",
            "probe",
            "--url",
            "ws://127.0.0.1:1/?token=c4n4ry",
            "--token",
            "c4n4ry",
            "--timeout",
            "300",
        ],
        &["gateway", "status", "--url", "ws://127.0.0.1:1/?token=c4n4ry", "--token", "c4n4ry", "--json"],
        &["gateway", "install", "--dry-run", "--env", "MY_TOKEN", "--token", "c4n4ry"],
    ] {
        let outcome = home.run(args.iter().copied());
        scanner.look_at_outcome(&args.join(" ").replace(CANARY, "…"), &outcome);
    }
    scanner.finish(100);
}
