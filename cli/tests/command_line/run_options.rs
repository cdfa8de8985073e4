//! The table of `gateway run`: every option, what its help says, what it does, which values it refuses, and what it
//! cannot stand beside.
//!
//! A new option needs a row here: a test compares the table with the tree of commands.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::{fs::chown, process::CommandExt as _},
    process::{Child, Stdio},
};

use rustix::process::Signal;

use crate::{
    lifecycle::free_port,
    process::{Home, signal},
    server::{Server, record},
    tailscale::Machine,
};

/// One option of `gateway run`.
struct Row {
    option: &'static str,
    /// Words of its help, or [`HIDDEN`].
    help: &'static str,
    /// Command lines after `gateway run` that are refused, with the exit code and words of the error.
    refused: &'static [(&'static [&'static str], i32, &'static str)],
    /// Shows that it does what it says.
    effect: fn(),
}

/// The help of an option that is for other programs and left out of the help.
const HIDDEN: &str = "";

/// The user without rights, on every system that has one.
const NOBODY: u32 = 65534;

/// A start that needs no configuration and takes any port.
const START: [&str; 5] = ["gateway", "run", "--allow-unconfigured", "--port", "0"];

const TABLE: &[Row] = &[
    Row {
        option: "dev",
        help: "Use the profile `dev`",
        refused: &[],
        effect: || {
            let home = Home::new();
            Server::start(&home, ["gateway", "run", "--dev", "--port", "0"]).stop(Signal::TERM);
            let state = home.path().join(".openclaw-dev");
            assert!(state.join("openclaw.json").exists() && !home.path().join(".openclaw").exists());
            let files = fs::read_dir(state.join("workspace")).expect("there is a workspace");
            let names: Vec<_> = files.flatten().map(|file| file.file_name()).collect();
            assert!(!names.is_empty() && names.iter().all(|name| name != "BOOTSTRAP.md"), "{names:?}");
        },
    },
    Row {
        option: "profile",
        help: "Use a profile",
        refused: &[
            (&["--profile", "a/b"], 78, "flag --profile is not a profile name"),
            (&["--profile", "work"], 78, ".openclaw-work/openclaw.json"),
        ],
        effect: || {
            let home = Home::new();
            start(&home, &["--profile", "work"]).stop(Signal::TERM);
            assert!(home.path().join(".openclaw-work/gateway/logs/openclaw.log").exists());
        },
    },
    Row {
        option: "log-level",
        help: "Log no less severe than this",
        refused: &[(&["--log-level", "loud"], 2, "possible values: silent")],
        effect: || {
            let home = Home::new();
            says(&home, &["--log-level", "debug"], "DEBUG");
            let log = home.path().join(".openclaw/gateway/logs/openclaw.log");
            assert!(fs::read_to_string(log).expect("there is a log").contains("DEBUG"), "the file too");
        },
    },
    Row {
        option: "no-color",
        help: "Write no colour",
        refused: &[],
        effect: || {
            let colour = Home::new().with("CLICOLOR_FORCE", "1");
            says(&colour, &[], "\u{1b}[");
            let server = start(&colour, &["--no-color"]);
            let (_, said) = server.stop(Signal::TERM);
            assert!(!said.contains('\u{1b}'), "{said}");
        },
    },
    Row {
        option: "port",
        help: "Listen on this port",
        refused: &[(&["--port", "65536"], 2, "65536"), (&["--port", "many"], 2, "invalid value 'many'")],
        effect: || {
            let port = free_port();
            let home = Home::new();
            let server = Server::start(&home, ["gateway", "run", "--allow-unconfigured", "--port", &port]);
            assert!(server.said.contains(&format!("ws://127.0.0.1:{port}")), "{}", server.said);
            server.stop(Signal::TERM);
        },
    },
    Row {
        option: "bind",
        help: "Where to listen",
        refused: &[
            (&["--bind", "everywhere"], 2, "possible values: loopback, lan, tailnet, auto, custom"),
            (&["--allow-unconfigured", "--bind", "custom"], 78, "gateway.customBindHost is not set"),
            (&["--allow-unconfigured", "--bind", "lan"], 78, "refusing to listen on 0.0.0.0"),
            (&["--allow-unconfigured", "--bind", "lan", "--token", "short"], 78, "at least 16"),
        ],
        effect: || {
            let home = Home::new();
            home.write(".openclaw/openclaw.json", "{ gateway: { customBindHost: '127.0.0.3' } }");
            says(&home, &["--bind", "custom"], "ws://127.0.0.3:");
        },
    },
    Row {
        option: "auth",
        help: "What callers must present",
        refused: &[
            (&["--auth", "maybe"], 2, "possible values: none, token, password"),
            (&["--allow-unconfigured", "--auth", "password"], 78, "no password is set"),
            (&["--allow-unconfigured", "--auth", "none", "--token", "x"], 78, "has no effect"),
            (&["--allow-unconfigured", "--auth", "none", "--bind", "lan"], 78, "without authentication"),
        ],
        effect: || says(&Home::new(), &["--auth", "none"], "no authentication"),
    },
    Row {
        option: "token",
        help: "The token that callers must present",
        refused: &[
            (&["--token", ""], 2, "a value is required"),
            (&["--allow-unconfigured", "--token", "  "], 78, "flag --token is empty"),
            (&["--allow-unconfigured", "--token", "changeme"], 78, "a placeholder"),
            (&["--token", "x", "--token-file", "y"], 2, "cannot be used with"),
            (&["--allow-unconfigured", "--token", "x", "--password", "y"], 78, "no authentication mode"),
        ],
        effect: || says(&Home::new(), &["--token", "an-own-token"], "token from flag --token"),
    },
    Row {
        option: "token-file",
        help: "Read that token from a file",
        refused: &[(
            &["--allow-unconfigured", "--token-file", "/nowhere"],
            2,
            "cannot be read from `/nowhere`",
        )],
        effect: || {
            let home = Home::new();
            let file = home.write("token", "an-own-token\n");
            let server = start(&home, &["--token-file", file.to_str().expect("a text")]);
            let health = home.run(["gateway", "health", "--token", "an-own-token", "--json"]);
            assert_eq!(health.json(0)["ok"], true);
            server.stop(Signal::TERM);
        },
    },
    Row {
        option: "password",
        help: "The password that callers must present",
        refused: &[
            (&["--password", ""], 2, "a value is required"),
            (&["--password", "x", "--password-file", "y"], 2, "cannot be used with"),
            (&["--allow-unconfigured", "--password", "xxxx"], 78, "a placeholder"),
        ],
        effect: || says(&Home::new(), &["--password", "my old dog"], "password from flag --password"),
    },
    Row {
        option: "password-file",
        help: "Read that password from a file",
        refused: &[(&["--password-file", "/nowhere"], 2, "cannot be read from `/nowhere`")],
        effect: || {
            let home = Home::new();
            let file = home.write("password", "my old dog\n");
            let server = start(&home, &["--password-file", file.to_str().expect("a text")]);
            assert_eq!(home.run(["gateway", "health", "--password", "my old dog", "--json"]).code, Some(0));
            server.stop(Signal::TERM);
        },
    },
    Row {
        option: "tailscale",
        help: "Make the gateway known at this machine's name in its tailnet",
        refused: &[
            (&["--tailscale", "on"], 2, "possible values: off, serve, funnel"),
            (
                &["--allow-unconfigured", "--tailscale", "serve", "--auth", "none"],
                78,
                "authentication is off",
            ),
            (&["--allow-unconfigured", "--tailscale", "serve", "--bind", "lan"], 78, "on loopback alone"),
            (&["--allow-unconfigured", "--tailscale", "funnel"], 78, "needs the authentication mode"),
            (&["--allow-unconfigured", "--tailscale", "serve"], 78, "tailscale is not installed"),
        ],
        effect: || {
            let machine = Machine::new();
            says(&machine.home, &["--tailscale", "serve"], "https://ada.tail1234.ts.net/");
            assert!(machine.asked()[0].starts_with("serve --yes --bg=false "), "{:?}", machine.asked());
            let args = ["--tailscale", "funnel", "--password", "my old dog"];
            says(&machine.home, &args, "everybody on the internet");
            machine.home.write(".openclaw/openclaw.json", "{ gateway: { tailscale: { mode: 'serve' } } }");
            let asked = machine.asked().len();
            start(&machine.home, &["--tailscale", "off"]).stop(Signal::TERM);
            assert_eq!(machine.asked().len(), asked, "the flag beats the file");
        },
    },
    Row {
        option: "tailscale-reset-on-exit",
        help: "let tailscale forget all that it serves",
        refused: &[],
        effect: || {
            let machine = Machine::new();
            let args = ["--tailscale", "serve", "--tailscale-reset-on-exit"];
            start(&machine.home, &args).stop(Signal::TERM);
            assert_eq!(machine.asked().last().map(String::as_str), Some("serve reset"));
        },
    },
    Row {
        option: "allow-unconfigured",
        help: "Start although the configuration is missing",
        refused: &[(&["--port", "0"], 78, "there is no configuration")],
        effect: || {
            let home = Home::new();
            start(&home, &[]).stop(Signal::TERM);
            assert!(!home.path().join(".openclaw/openclaw.json").exists(), "nothing was written");
        },
    },
    Row {
        option: "reset",
        help: "Asks first on a terminal",
        refused: &[(&["--reset"], 2, "--reset needs --dev")],
        effect: || {
            let home = Home::new();
            Server::start(&home, ["gateway", "--dev", "--port", "0"]).stop(Signal::TERM);
            let again = Server::start(&home, ["gateway", "--dev", "--port", "0", "--reset"]);
            assert!(again.said.contains("the backup is "), "{}", again.said);
            again.stop(Signal::TERM);
        },
    },
    Row {
        option: "yes",
        help: "Answer yes",
        refused: &[(&["--yes"], 2, "--reset")],
        effect: || {
            let home = Home::new();
            Server::start(&home, ["gateway", "--dev", "--port", "0", "--reset", "--yes"]).stop(Signal::TERM);
        },
    },
    Row {
        option: "force",
        help: "Stop what listens on the port first",
        refused: &[],
        effect: || {
            let (home, other) = (Home::new(), Home::new());
            let mut first = start(&other, &[]);
            let port = record(&other.path().join(".openclaw"))["port"].to_string();
            let taken = home.run(["gateway", "run", "--allow-unconfigured", "--port", &port]);
            assert!(taken.refused(78).contains(&format!("pid {}", first.child.id())), "{taken:?}");
            let args = ["gateway", "run", "--allow-unconfigured", "--port", &port, "--force"];
            let second = Server::start(&home, args);
            assert_eq!(first.child.wait().expect("it was stopped").code(), Some(0));
            second.stop(Signal::TERM);
        },
    },
    Row {
        option: "verbose",
        help: "Show debug lines on the console",
        refused: &[],
        effect: || {
            let home = Home::new();
            says(&home, &["--verbose"], "DEBUG");
            let log = home.path().join(".openclaw/gateway/logs/openclaw.log");
            let log = fs::read_to_string(log).expect("there is a log");
            assert!(!log.contains("DEBUG"), "the file keeps its level: {log}");
        },
    },
    Row {
        option: "ws-log",
        help: "Which calls the console shows",
        refused: &[(&["--ws-log", "loud"], 2, "possible values: auto, full, compact")],
        effect: || {
            let (auto, _) = traffic(&[]);
            assert!(!auto.contains("res ✓ health") && auto.contains("⇄ res ✗ no.such.method"), "{auto}");
            let (full, log) = traffic(&["--ws-log", "full"]);
            for part in ["← open", "← req health", "→ res ✓ health", "→ res ✗ no.such.method", "→ close"]
            {
                assert!(full.contains(part), "{part}: {full}");
            }
            assert!(!full.contains("hush") && full.contains("\"token\":\"***\""), "{full}");
            assert!(!log.contains("req health"), "the file does not fill with calls: {log}");
        },
    },
    Row {
        option: "compact",
        help: "Short for `--ws-log compact`",
        refused: &[(&["--compact", "--ws-log", "full"], 2, "cannot be used with")],
        effect: || {
            let (compact, _) = traffic(&["--compact"]);
            assert!(compact.contains("⇄ res ✓ health") && !compact.contains("← req"), "{compact}");
        },
    },
    Row {
        option: "raw-stream",
        help: "Write every raw model event to a file",
        refused: &[],
        effect: || {
            let home = with_back_end();
            let server = Server::start(&home, ["gateway", "--port", "0", "--raw-stream"]);
            ask(&home);
            server.stop(Signal::TERM);
            let raw = home.path().join(".openclaw/gateway/logs/raw-stream.jsonl");
            assert!(fs::read_to_string(raw).expect("there is a file").contains("quoth the model"));
        },
    },
    Row {
        option: "raw-stream-path",
        help: "Which file that is",
        refused: &[],
        effect: || {
            let home = with_back_end();
            let path = home.path().join("raw.jsonl");
            let args = ["gateway", "--port", "0", "--raw-stream-path", path.to_str().expect("a text")];
            let server = Server::start(&home, args);
            ask(&home);
            server.stop(Signal::TERM);
            assert!(!path.exists(), "nothing is written without --raw-stream");
            let server = Server::start(&home, args.into_iter().chain(["--raw-stream"]));
            ask(&home);
            server.stop(Signal::TERM);
            assert!(fs::read_to_string(path).expect("there is a file").contains("quoth the model"));
        },
    },
    Row {
        option: "claude-cli-logs",
        help: "Show what command-line back ends",
        refused: &[],
        effect: || {
            let home = with_back_end();
            let child = quiet(&home, &["gateway", "--port", "0", "--verbose", "--claude-cli-logs"]);
            ask(&home);
            home.write(".openclaw/openclaw.json", "{ gateway: { mode: 'nowhere' } }");
            signal(&child, Signal::USR1);
            let said = ended(child, |said| said.contains("ERROR"));
            assert!(said.contains("[mine stderr] a word aside"), "{said}");
            assert!(said.contains("the gateway goes on as it was"), "what fails is told: {said}");
            assert!(!said.contains("listening on") && !said.contains("DEBUG"), "{said}");
        },
    },
    Row {
        option: "supervised-by",
        help: HIDDEN,
        refused: &[(&["--supervised-by", "init"], 2, "possible values: launchd, schtasks")],
        effect: || {
            let home = Home::new();
            let refused = home.run(["gateway", "run", "--port", "0", "--supervised-by", "launchd"]);
            assert!(refused.refused(0).contains("there is no configuration"), "{refused:?}");
            let args: Vec<&str> = START.into_iter().chain(["--supervised-by", "launchd"]).collect();
            assert_eq!(ended(quiet(&home, &args), |_| true), "");
        },
    },
];

/// A home whose model is a command line, which answers and says something aside.
fn with_back_end() -> Home {
    let home = Home::new().with("PATH", "/usr/bin:/bin");
    home.write(
        ".openclaw/openclaw.json",
        "{ gateway: { mode: 'local' }, agents: { defaults: { model: 'mine/any', cliBackends: { mine: {
             command: '/bin/sh', args: ['-c', 'cat >/dev/null; echo a word aside >&2; echo quoth the model'],
             input: 'stdin', output: 'text' } } } } }",
    );
    home
}

fn ask(home: &Home) {
    let answer =
        home.run(["gateway", "call", "agent", "--message", "hi", "--expect-final", "--json"]).json(0);
    assert!(answer.to_string().contains("quoth the model"), "{answer}");
}

/// A gateway that says nothing at its start. Waits until it serves.
pub(crate) fn quiet(home: &Home, args: &[&str]) -> Child {
    let mut child = home.spawn_piped(args.iter().copied());
    while home.run(["gateway", "health"]).code != Some(0) {
        assert!(child.try_wait().expect("it is ours").is_none(), "it ended");
    }
    child
}

/// Reads what a gateway says until it has said enough, stops it, and gives all that it said.
pub(crate) fn ended(mut child: Child, enough: impl Fn(&str) -> bool) -> String {
    let mut stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
    let mut said = String::new();
    while !enough(&said) {
        assert!(stderr.read_line(&mut said).expect("stderr is text") > 0, "it ended: {said}");
    }
    signal(&child, Signal::TERM);
    stderr.read_to_string(&mut said).expect("stderr is text");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    said
}

fn start(home: &Home, args: &[&str]) -> Server {
    Server::start(home, START.iter().chain(args).copied())
}

/// Starts a gateway, which is to say `what` by the time it serves.
#[track_caller]
fn says(home: &Home, args: &[&str], what: &str) {
    let server = start(home, args);
    let said = server.said.clone();
    server.stop(Signal::TERM);
    assert!(said.contains(what), "{said}");
}

/// What the console and the log say of three calls: a good one, a wrong one, and one with a secret in its params.
fn traffic(args: &[&str]) -> (String, String) {
    let home = Home::new();
    let server = start(&home, args);
    home.run(["gateway", "call", "health"]).ok();
    assert_eq!(home.run(["gateway", "call", "no.such.method"]).code, Some(1));
    home.run(["gateway", "call", "connect", "--params", r#"{"auth":{"token":"hush"}}"#]);
    let (_, said) = server.stop(Signal::TERM);
    let log = home.path().join(".openclaw/gateway/logs/openclaw.log");
    (said, fs::read_to_string(log).expect("there is a log"))
}

/// Every option of `gateway run` that the tree of commands knows, and whether it takes a value.
fn options() -> BTreeMap<String, bool> {
    let mut tree = openclaw_cli::command();
    // Options of every command are passed on to each.
    tree.build();
    let run = tree.find_subcommand("gateway").and_then(|gateway| gateway.find_subcommand("run"));
    run.expect("the tree has `gateway run`")
        .get_arguments()
        .filter_map(|arg| Some((arg.get_long()?.to_owned(), arg.get_action().takes_values())))
        .filter(|(name, _)| !["help", "version"].contains(&name.as_str()))
        .collect()
}

#[test]
fn every_option_has_a_row() {
    let rows: Vec<&str> = TABLE.iter().map(|row| row.option).collect();
    let known: BTreeSet<String> = rows.iter().map(|row| (*row).to_owned()).collect();
    assert_eq!(known, options().into_keys().collect(), "options of `gateway run` and rows of the table");
    assert_eq!(known.len(), rows.len(), "one row for each");
}

#[test]
fn an_option_takes_a_value_or_none() {
    let home = Home::new();
    for (option, takes_value) in options() {
        let (given, words) = match takes_value {
            true => (format!("--{option}"), "a value is required"),
            false => (format!("--{option}=yes"), "unexpected value 'yes'"),
        };
        let refused = home.run(["gateway", "run", &given]);
        assert!(refused.refused(2).contains(words), "{given}: {refused:?}");
    }
}

#[test]
fn every_option_is_explained() {
    let home = Home::new();
    let help = home.run(["gateway", "run", "--help"]);
    let help = help.ok().split_whitespace().collect::<Vec<_>>().join(" ");
    for row in TABLE {
        let is_explained = help.contains(&format!("--{}", row.option)) && help.contains(row.help);
        assert_eq!(is_explained, row.help != HIDDEN, "{}: {help}", row.option);
    }
}

#[test]
fn what_an_option_cannot_be_is_refused_with_a_sentence() {
    for row in TABLE {
        for (args, code, words) in row.refused {
            let home = Home::new();
            let refused = home.run(["gateway", "run"].iter().chain(*args).copied());
            let said = refused.refused(*code);
            let flat = said.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(said.starts_with("error: ") && flat.contains(words), "{args:?}: {said}");
            // A start that is refused is told what to change; a mistake of typing is its own hint.
            assert!(*code != 78 || said.contains("hint: "), "{args:?}: {said}");
        }
    }
}

#[test]
fn every_option_does_what_it_says() {
    // All at once: each waits for processes more than it works.
    std::thread::scope(|scope| {
        let rows: Vec<_> = TABLE.iter().map(|row| (row.option, scope.spawn(row.effect))).collect();
        for (option, effect) in rows {
            assert!(effect.join().is_ok(), "--{option} does not do what it says");
        }
    });
}

#[test]
fn a_gateway_of_another_user_is_left_alone() {
    // Only the administrator can start a process of somebody else's.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let other = Home::new();
    chown(other.path(), Some(NOBODY), Some(NOBODY)).expect("the administrator may");
    let mut command = other.command(START);
    command.uid(NOBODY).gid(NOBODY).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Where nobody may read the build, there is nothing to try.
    let Ok(child) = command.spawn() else { return };
    let mut theirs = Server::of(child);
    let port = record(&other.path().join(".openclaw"))["port"].to_string();
    let home = Home::new();
    let refused = home.run(["gateway", "run", "--allow-unconfigured", "--force", "--port", &port]);
    let said = refused.refused(78);
    assert!(said.contains("belongs to another user") && said.contains("(user nobody)"), "{said}");
    assert!(theirs.child.try_wait().expect("it is ours").is_none(), "it goes on");
    theirs.stop(Signal::TERM);
}
