//! `gateway run`: how it starts, refuses to start, and stops.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    net::TcpListener,
    path::Path,
    process::{Child, ChildStderr},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;

use crate::process::{Home, Outcome, signal};

/// A running gateway.
pub(crate) struct Server {
    pub(crate) child: Child,
    stderr: BufReader<ChildStderr>,
    /// What it has said so far.
    pub(crate) said: String,
}

impl Server {
    /// Starts a gateway, and waits until it serves: its record is written by then.
    pub(crate) fn start<'a>(home: &Home, args: impl IntoIterator<Item = &'a str>) -> Self {
        Self::of(home.spawn_piped(args))
    }

    /// A gateway that was just started; waits until it serves.
    pub(crate) fn of(mut child: Child) -> Self {
        let stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let mut server = Self { child, stderr, said: String::new() };
        server.says("listening on");
        server
    }

    /// Waits until it says something that it has not been heard to say, and gives what it said meanwhile.
    pub(crate) fn says(&mut self, what: &str) -> &str {
        let heard = self.said.len();
        while !self.said[heard..].contains(what) {
            let read = self.stderr.read_line(&mut self.said).expect("stderr is text");
            assert!(read > 0, "the gateway ended before it said {what:?}: {}", self.said);
        }
        &self.said[heard..]
    }

    /// Sends a signal, and waits for the end.
    pub(crate) fn stop(mut self, with: Signal) -> (Option<i32>, String) {
        signal(&self.child, with);
        self.stderr.read_to_string(&mut self.said).expect("stderr is text");
        (self.child.wait().expect("it ends").code(), std::mem::take(&mut self.said))
    }
}

impl Drop for Server {
    /// A test that fails leaves nothing behind.
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn record(state: &Path) -> Value {
    let text = fs::read(state.join("gateway/runtime.json")).expect("there is a record");
    serde_json::from_slice(&text).expect("the record is JSON")
}

#[test]
fn an_unconfigured_start_is_refused() {
    let home = Home::new();
    let refused = home.run(["gateway"]);
    assert!(refused.refused(78).contains("--allow-unconfigured"), "{refused:?}");
    assert!(!home.path().join(".openclaw").exists(), "nothing was written");
    home.write(".openclaw/openclaw.json", "{ gateway: { mode: 'remote' } }");
    assert!(home.run(["gateway", "run"]).refused(78).contains("\"remote\""));
}

#[test]
fn a_broken_configuration_is_refused_with_its_place() {
    let home = Home::new();
    home.write(".openclaw/openclaw.json", "{\n  gateway: { mode: 'local', port: , },\n}");
    assert!(home.run(["gateway", "run"]).refused(78).contains("openclaw.json:2:"));
    home.write(".openclaw/openclaw.json", "{ gateway: { mode: 'local', prot: 1 } }");
    assert!(home.run(["gateway", "run"]).refused(78).contains("did you mean `port`?"));
}

#[test]
fn listening_beyond_loopback_without_a_secret_is_refused() {
    let home = Home::new();
    let refused = home.run(["gateway", "--allow-unconfigured", "--bind", "lan", "--port", "0"]);
    assert!(refused.refused(78).contains("refusing to listen"), "{refused:?}");
}

#[test]
fn a_port_in_use_is_refused() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let port = taken.local_addr().expect("a listener has an address").port().to_string();
    let refused = Home::new().run(["gateway", "--allow-unconfigured", "--token", "x", "--port", &port]);
    assert_eq!(refused.code, Some(78), "{refused:?}");
    assert!(refused.stderr.contains("error: ") && refused.stderr.contains("hint: "), "{refused:?}");
}

#[test]
fn a_gateway_leaves_a_record_while_it_runs_and_stops_on_sigterm() {
    let home = Home::new();
    let state = home.path().join(".openclaw");
    let args = ["gateway", "run", "--allow-unconfigured", "--token", "hunter2", "--port", "0"];
    let server = Server::start(&home, args);
    let record = record(&state);
    assert_eq!(record["pid"], server.child.id());
    assert!(record["port"].as_u64().is_some_and(|port| port > 0), "{record}");
    let second = home.run(args);
    assert!(second.refused(78).contains("already runs"), "{second:?}");
    let (code, said) = server.stop(Signal::TERM);
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
    assert!(!state.join("gateway/runtime.json").exists(), "the record is gone");
}

#[test]
fn a_gateway_of_the_dev_profile_is_found_and_answers() {
    let home = Home::new();
    let server = Server::start(&home, ["gateway", "--dev", "--port", "0"]);
    let health = home.run(["--dev", "gateway", "health"]);
    assert!(health.ok().starts_with("Gateway Health\nOK ("), "{health:?}");
    let lines = home.run(["--dev", "gateway", "call", "logs.tail", "--since-ms", "60000", "--json"]).json(0);
    assert!(lines["lines"].to_string().contains("listening on"), "{lines}");
    let same =
        home.run(["--dev", "gateway", "call", "logs.tail", "--params", r#"{"sinceMs": 60000}"#, "--json"]);
    assert_eq!(same.json(0)["file"], lines["file"]);
    let outcome =
        home.run(["gateway", "--dev", "call", "agent", "--message", "hello", "--expect-final", "--json"]);
    assert_eq!(outcome.json(0)["status"], "ok");
    let own = home.run(["--dev", "gateway", "call", "logs.tial", "--json"]).json(1);
    assert_eq!(own["error"]["code"], "METHOD_NOT_FOUND");
    let wrong = home.run(["--dev", "gateway", "health", "--token", "wrong", "--json"]);
    assert_eq!(wrong.json(4)["error"]["code"], "UNAUTHORIZED");
    let document = home.run(["--dev", "gateway", "schema", "--live"]).json(0);
    assert_eq!(document, openclaw_schema::document::document());
    assert_eq!(server.stop(Signal::INT).0, Some(0));
    assert_eq!(home.run(["--dev", "gateway", "health", "--port", "1"]).code, Some(3));
}

#[test]
fn an_encrypted_gateway_is_found_and_pinned_on_its_own_machine() {
    let home = Home::new();
    home.write(
        ".openclaw/openclaw.json",
        "{ gateway: { mode: 'local', auth: { token: 'a-token' }, tls: { enabled: true } } }",
    );
    let server = Server::start(&home, ["gateway", "--port", "0"]);
    let record = record(&home.path().join(".openclaw"));
    let (port, pin) = (&record["port"], record["tlsFingerprint"].as_str().expect("it speaks TLS"));
    assert!(server.said.contains(&format!("listening on wss://127.0.0.1:{port}")), "{}", server.said);
    assert!(home.run(["gateway", "health"]).ok().contains("OK"));

    let url = format!("wss://127.0.0.1:{port}");
    let told = home.run(["gateway", "health", "--url", &url, "--token", "a-token", "--json"]).json(4);
    assert_eq!(told["error"]["code"], "TLS_UNTRUSTED");
    assert_eq!(told["error"]["fingerprint"], pin);
    let pinned = ["gateway", "health", "--url", &url, "--token", "a-token", "--tls-fingerprint", pin];
    assert!(home.run(pinned).ok().contains("OK"));
    home.write(".openclaw/gateway/trusted-gateways.json", &format!("{{\"{url}\": \"{pin}\"}}"));
    assert!(home.run(["gateway", "health", "--url", &url, "--token", "a-token"]).ok().contains("OK"));
    assert!(home.run(["gateway", "health", "--port", &port.to_string()]).ok().contains("OK"));
    let elsewhere = Home::new();
    let remote = format!("{{ url: '{url}', token: 'a-token', tlsFingerprint: '{pin}' }}");
    elsewhere
        .write(".openclaw/openclaw.json", &format!("{{ gateway: {{ mode: 'remote', remote: {remote} }} }}"));
    assert!(elsewhere.run(["gateway", "health"]).ok().contains("OK"));
    let other = "00".repeat(32);
    let changed = home.run(["gateway", "health", "--tls-fingerprint", &other]);
    assert!(changed.refused(4).contains(pin) && changed.stderr.contains(&other), "{changed:?}");
    server.stop(Signal::TERM);

    let certificate = "{ gateway: { mode: 'local', tls: { enabled: true, certPath: 'missing.pem' } } }";
    home.write(".openclaw/openclaw.json", certificate);
    assert!(home.run(["gateway", "--port", "0"]).refused(78).contains("gateway.tls.keyPath"));
}

#[test]
fn the_dev_profile_is_made_on_the_way_and_reset_on_request() {
    let home = Home::new();
    let state = home.path().join(".openclaw-dev");
    let (code, said) = Server::start(&home, ["gateway", "--dev", "--port", "0"]).stop(Signal::INT);
    assert_eq!(code, Some(0), "{said}");
    assert!(state.join("openclaw.json").exists() && !home.path().join(".openclaw").exists());
    let config = fs::read_to_string(state.join("openclaw.json")).expect("there is a configuration");
    let reset = Server::start(&home, ["--dev", "gateway", "run", "--reset", "--port", "0"]);
    let (code, said) = reset.stop(Signal::TERM);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("the backup is "), "{said}");
    assert_ne!(fs::read_to_string(state.join("openclaw.json")).expect("there is a new one"), config);
}

/// Starts a run of ten seconds, and waits until it is accepted. The echo back end says a word every 5 ms.
fn long_run(home: &Home) -> Child {
    let message = format!("message={}", "word ".repeat(2000));
    let mut child = home.spawn_piped(["--dev", "gateway", "call", "agent", &message, "--expect-final"]);
    let mut said = String::new();
    let mut stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
    while !said.contains("accepted: run ") {
        assert!(stderr.read_line(&mut said).expect("stderr is text") > 0, "the run was not accepted: {said}");
    }
    child.stderr = Some(stderr.into_inner());
    child
}

#[test]
fn a_run_streams_as_lines_that_end_with_the_outcome() {
    let home = Home::new();
    let server = Server::start(&home, ["gateway", "--dev", "--port", "0"]);
    let streamed = home.run(["--dev", "gateway", "call", "agent", "message=hello there", "--stream"]);
    let read = |line| serde_json::from_str::<Value>(line).expect("each line is a document");
    let lines: Vec<Value> = streamed.ok().lines().map(read).collect();
    assert_eq!(streamed.stderr, "");
    let kinds: Vec<&str> = lines.iter().filter_map(|line| line["type"].as_str()).collect();
    assert_eq!((kinds[0], kinds[kinds.len() - 1]), ("ack", "final"), "{kinds:?}");
    assert!(kinds[1..kinds.len() - 1].iter().all(|kind| *kind == "event"), "{kinds:?}");
    let deltas = lines.iter().filter(|line| line["event"] == "agent");
    let text: String = deltas.filter_map(|line| line["payload"]["data"]["delta"].as_str()).collect();
    assert_eq!(text, "You said: hello there");
    assert_eq!(lines[lines.len() - 1]["payload"]["result"]["payloads"][0]["text"], text);

    let at_once = home.run(["--dev", "gateway", "call", "health", "--stream"]).json(2);
    assert!(at_once["error"]["message"].to_string().contains("nothing to stream"), "{at_once}");
    server.stop(Signal::TERM);
}

#[test]
fn what_runs_consumed_is_shown_as_a_table_and_as_json() {
    let home = Home::new();
    let server = Server::start(&home, ["gateway", "--dev", "--port", "0"]);
    let cost = |args: &[&'static str]| {
        home.run(["--dev", "gateway", "usage-cost"].into_iter().chain(args.iter().copied()))
    };
    let unused = cost(&[]);
    assert!(unused.ok().starts_with("Usage cost (30 days)\nTotal: $0.0000 · 0 tokens\n"), "{unused:?}");
    home.run(["--dev", "gateway", "call", "agent", "message=hello there", "--expect-final"]).ok();
    let table = cost(&["--days", "7"]);
    let lines: Vec<&str> = table.ok().lines().collect();
    assert_eq!(lines[..2], ["Usage cost (7 days)", "Total: $0.0000 · 6 tokens"], "{table:?}");
    let echo: Vec<&str> = lines[lines.len() - 1].split_whitespace().collect();
    assert_eq!(echo, ["echo/echo-1", "2", "4", "0", "0", "6", "$0.0000"], "{table:?}");
    let document = cost(&["--agent", "dev", "--json"]).json(0);
    assert_eq!(
        (&document["totals"]["runs"], &document["totals"]["missingCostEntries"]),
        (&1.into(), &0.into())
    );
    let unknown = cost(&["--agent", "nobody"]);
    assert!(unknown.refused(1).contains("nobody"), "{unknown:?}");
    let both = cost(&["--agent", "dev", "--all-agents"]);
    assert!(both.refused(2).contains("--all-agents"), "{both:?}");
    server.stop(Signal::TERM);
}

#[test]
fn a_terminal_shows_the_answer_as_it_is_written_and_the_pipe_gets_the_outcome() {
    let home = Home::new();
    let server = Server::start(&home, ["gateway", "--dev", "--port", "0"]);
    // `script` gives the command a terminal for stderr; its stdout is a file.
    let binary = env!("CARGO_BIN_EXE_openclaw");
    let line = format!("{binary} --dev gateway call agent message='hello there' --expect-final >outcome.txt");
    let mut script = std::process::Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).env_clear().env("HOME", home.path()).env("TERM", "xterm");
    script.env("PATH", "/usr/bin:/bin").env("SHELL", "/bin/sh").current_dir(home.path());
    let seen = Outcome::of(script.stdin(std::process::Stdio::null()).output().expect("`script` is there"));
    assert!(seen.ok().contains("You said: hello there\r\n"), "{seen:?}");
    let outcome = fs::read_to_string(home.path().join("outcome.txt")).expect("stdout is a file");
    assert!(
        outcome.starts_with("Gateway call: agent\n{") && outcome.contains("\"status\": \"ok\""),
        "{outcome}"
    );
    server.stop(Signal::TERM);
}

#[test]
fn ctrl_c_leaves_the_run_and_says_how_to_wait_for_it() {
    let home = Home::new();
    let server = Server::start(&home, ["gateway", "--dev", "--port", "0"]);
    let caller = long_run(&home);
    signal(&caller, Signal::INT);
    let outcome = Outcome::of(caller.wait_with_output().expect("it ends"));
    let said = outcome.refused(130);
    let resume = said.split('`').nth(1).expect("the hint names a command");
    let resume = resume.strip_prefix("openclaw ").expect("it is a command of ours");
    assert!(resume.starts_with("--dev gateway call agent.wait runId="), "{said}");
    // The run goes on: its wait is still to be waited for. Not here, though.
    let args: Vec<&str> = resume.split(' ').filter(|arg| !arg.starts_with("timeoutMs")).collect();
    let waited = home.run(args.into_iter().chain(["timeoutMs:=0", "--json"])).json(0);
    assert_eq!(waited["status"], "timeout");
    signal(&server.child, Signal::INT);
    server.stop(Signal::INT);
}

#[test]
fn a_gateway_killed_during_a_call_is_told_at_once() {
    let home = Home::new();
    let mut server = Server::start(&home, ["gateway", "--dev", "--port", "0"]);
    let caller = long_run(&home);
    let killed = Instant::now();
    server.child.kill().expect("the gateway is there");
    server.child.wait().expect("it ends");
    let outcome = Outcome::of(caller.wait_with_output().expect("it ends"));
    assert!(outcome.refused(3).contains("closed the connection"), "{outcome:?}");
    assert!(killed.elapsed() < Duration::from_secs(5), "long before the end of the run");
    // The record that the killed gateway left behind leads nobody astray.
    assert!(!home.run(["--dev", "gateway", "health"]).refused(3).contains("runtime.json"));
    Server::start(&home, ["gateway", "--dev", "--port", "0"]).stop(Signal::TERM);
}

#[test]
fn a_second_signal_ends_a_gateway_at_once() {
    let home = Home::new();
    let mut server = Server::start(&home, ["gateway", "--dev", "--port", "0"]);
    let caller = long_run(&home);
    let told = Instant::now();
    signal(&server.child, Signal::TERM);
    server.says("stopping");
    let (code, said) = server.stop(Signal::INT);
    assert_eq!(code, Some(130), "{said}");
    assert!(told.elapsed() < Duration::from_secs(5), "long before the end of the run");
    assert!(!home.path().join(".openclaw-dev/gateway/runtime.json").exists(), "the record is gone");
    // Its wait was cut off, or came when the gateway took no more calls.
    let code = caller.wait_with_output().expect("it ends").status.code();
    assert!(matches!(code, Some(1 | 3)), "{code:?}");
}
