//! A gateway that restarts, reads its configuration again, takes another's place, and whose log is read meanwhile.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _},
    os::unix::net::UnixDatagram,
    process::ChildStdout,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    process::{Home, signal},
    server::{Server, record},
};

/// The state of the profile that these tests use.
const STATE: &str = ".openclaw-dev";

fn dev(home: &Home) -> Server {
    Server::start(home, ["gateway", "--dev", "--port", "0"])
}

fn status(home: &Home) -> Value {
    home.run(["--dev", "gateway", "call", "status", "--json"]).json(0)["lifecycle"].clone()
}

/// The next line of a stream.
fn line(lines: &mut BufReader<ChildStdout>) -> String {
    let mut line = String::new();
    assert!(lines.read_line(&mut line).expect("it is text") > 0, "the stream has ended");
    line
}

#[test]
fn a_signal_restarts_a_gateway_in_its_process_and_on_its_port() {
    let home = Home::new();
    let mut server = dev(&home);
    let before = record(&home.path().join(STATE));
    for (name, with) in [("SIGUSR1", Signal::USR1), ("SIGUSR2", Signal::USR2)] {
        signal(&server.child, with);
        let said = server.says("listening on").to_owned();
        assert!(said.contains(&format!("received {name}; restarting")), "{said}");
        let after = record(&home.path().join(STATE));
        assert_eq!((&after["pid"], &after["port"]), (&before["pid"], &before["port"]));
        assert_ne!(after["instanceId"], before["instanceId"]);
        assert_eq!(status(&home)["lastRestart"]["reason"], name);
    }
    assert_eq!(status(&home)["restarts"], 2);
    assert_eq!(server.stop(Signal::TERM).0, Some(0));
}

#[test]
fn a_caller_with_rights_restarts_a_gateway_and_its_other_callers_are_told() {
    let home = Home::new();
    let mut server = dev(&home);
    let mut follower = home.spawn_piped(["--dev", "gateway", "logs", "--follow", "--limit", "1", "--json"]);
    let mut lines = BufReader::new(follower.stdout.take().expect("stdout is piped"));
    assert!(line(&mut lines).contains("listening on"));
    let args = ["--dev", "gateway", "call", "gateway.restart.request", "--reason", "new words", "--json"];
    let asked = home.run(args).json(0);
    assert_eq!((&asked["ok"], &asked["pid"]), (&true.into(), &server.child.id().into()));
    server.says("listening on");
    // The follower has come back by itself, and has missed nothing.
    let mut seen = String::new();
    while !seen.contains("listening on") {
        seen.push_str(&line(&mut lines));
    }
    assert!(seen.contains("a caller asked for a restart (new words)"), "{seen}");
    signal(&follower, Signal::INT);
    assert_eq!(follower.wait().expect("it ends").code(), Some(130));
    server.stop(Signal::TERM);
}

#[test]
fn a_broken_configuration_keeps_the_gateway_as_it_was() {
    let home = Home::new();
    let mut server = dev(&home);
    let file = home.path().join(STATE).join("openclaw.json");
    let good = fs::read_to_string(&file).expect("it was made");
    let token = ["--dev", "gateway", "health", "--json"];
    for (broken, problem) in [
        ("{ gateway: { mode: 'local', port: , } }", "is not valid JSON5"),
        ("{ gateway: { mode: 'remote' } }", "no gateway starts on this machine"),
        (
            "{ gateway: { mode: 'local', bind: 'custom', customBindHost: '192.0.2.1', auth: { token: '0123456789abcdef' } } }",
            "cannot listen on 192.0.2.1",
        ),
    ] {
        home.write(&format!("{STATE}/openclaw.json"), broken);
        signal(&server.child, Signal::USR1);
        let said = server.says("the gateway goes on as it was").to_owned();
        assert!(said.contains(problem), "{said}");
        fs::write(&file, &good).expect("it is ours");
        let last = status(&home)["lastRestart"].clone();
        assert!(last["problem"].as_str().is_some_and(|told| told.contains(problem)), "{last}");
    }
    assert_eq!(home.run(token).json(0)["ok"], true);
    assert_eq!(status(&home)["restarts"], 0);
    server.stop(Signal::TERM);
}

#[test]
fn a_restart_takes_over_the_address_and_the_secret() {
    let home = Home::new();
    let config = |bind: &str, token: &str| {
        format!("{{ gateway: {{ mode: 'local', {bind}, auth: {{ token: '{token}' }} }} }}")
    };
    home.write(".openclaw/openclaw.json", &config("bind: 'loopback'", "first-token-of-all"));
    let mut server = Server::start(&home, ["gateway", "--port", "0"]);
    home.write(
        ".openclaw/openclaw.json",
        &config("bind: 'custom', customBindHost: '127.0.0.2'", "second-token-of-all"),
    );
    signal(&server.child, Signal::USR1);
    assert!(server.says("listening on").contains("ws://127.0.0.2:"));
    let url = format!("ws://127.0.0.2:{}", record(&home.path().join(".openclaw"))["port"]);
    let with = |token: &str| home.run(["gateway", "health", "--url", &url, "--token", token, "--json"]);
    assert_eq!(with("second-token-of-all").json(0)["ok"], true);
    assert_eq!(with("first-token-of-all").code, Some(4));
    let (_, said) = server.stop(Signal::TERM);
    assert!(!said.contains("-token-of-all"), "{said}");
}

#[test]
fn a_run_and_its_outcome_outlast_a_restart() {
    let home = Home::new();
    let mut server = dev(&home);
    let ask = ["--dev", "gateway", "call", "agent", "message=hello", "sessionKey=main", "--json"];
    let asked = home.run(ask).json(0);
    signal(&server.child, Signal::USR1);
    server.says("listening on");
    let run = asked["runId"].as_str().expect("a text");
    let ended = home.run(["--dev", "gateway", "call", "agent.wait", "--run-id", run, "--json"]).json(0);
    assert_eq!(ended["status"], "ok");
    let history = home.run(["--dev", "gateway", "call", "chat.history", "sessionKey=main", "--json"]).json(0);
    assert_eq!(history["messages"].as_array().map(Vec::len), Some(2), "it was answered once: {history}");
    server.stop(Signal::TERM);
}

#[test]
fn a_bad_certificate_is_found_before_the_gateway_ends() {
    let home = Home::new();
    let config = |tls: &str| {
        let text = format!("{{ gateway: {{ mode: 'local', tls: {{ enabled: true {tls} }} }} }}");
        home.write(".openclaw/openclaw.json", &text);
    };
    config("");
    let mut server = Server::start(&home, ["gateway", "--port", "0"]);
    let state = home.path().join(".openclaw");
    let before = record(&state);
    let tls = state.join("gateway/tls");
    home.write(
        "good/gateway-key.pem",
        &fs::read_to_string(tls.join("gateway-key.pem")).expect("it was made"),
    );
    home.write("good/other.pem", "nothing of the kind");
    let other = |name: &str| home.path().join("good").join(name).display().to_string();
    for (certificate, problem) in [
        (other("missing.pem"), "cannot read the certificate"),
        (other("other.pem"), "holds no certificate in PEM"),
    ] {
        config(&format!(", certPath: '{certificate}', keyPath: '{}'", other("gateway-key.pem")));
        signal(&server.child, Signal::USR1);
        let said = server.says("the gateway goes on as it was").to_owned();
        assert!(said.contains(problem), "{said}");
        assert_eq!(record(&state), before);
        assert!(home.run(["gateway", "health"]).ok().contains("OK"));
    }
    // A certificate that is made anew is shown, and pinned by the record.
    fs::remove_dir_all(&tls).expect("it is ours");
    config("");
    signal(&server.child, Signal::USR1);
    assert!(server.says("listening on").contains("wss://127.0.0.1:"));
    let after = record(&state);
    assert_eq!(after["port"], before["port"]);
    assert_ne!(after["tlsFingerprint"], before["tlsFingerprint"]);
    assert!(home.run(["gateway", "health"]).ok().contains("OK"));
    server.stop(Signal::TERM);
}

#[test]
fn a_service_manager_hears_of_a_restart() {
    let manager = tempfile::tempdir().expect("a directory");
    let path = manager.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("it takes a bound");
    let hears = |first: &str| {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).expect("there is a message");
        let message = String::from_utf8_lossy(&bytes[..length]).into_owned();
        assert!(message.starts_with(first), "{message}");
    };
    let home = Home::new().with("NOTIFY_SOCKET", path.display().to_string());
    let server = dev(&home);
    hears("READY=1\nSTATUS=listening on port ");
    for with in [Signal::USR1, Signal::HUP] {
        signal(&server.child, with);
        hears("RELOADING=1\nMONOTONIC_USEC=");
        hears("READY=1\n");
    }
    server.stop(Signal::TERM);
    hears("STOPPING=1\n");
}

#[test]
fn restarts_by_signal_can_be_forbidden() {
    let home = Home::new();
    home.write(".openclaw/openclaw.json", "{ gateway: { mode: 'local' }, commands: { restart: false } }");
    let mut server = Server::start(&home, ["gateway", "--port", "0"]);
    signal(&server.child, Signal::USR1);
    assert!(server.says("SIGUSR1 is ignored").contains("commands.restart"));
    // Whoever may administrate may restart.
    home.run(["gateway", "call", "gateway.restart.request", "--json"]).json(0);
    server.says("listening on");
    server.stop(Signal::TERM);
}

#[test]
fn a_hangup_reads_levels_again_and_names_what_waits() {
    let home = Home::new();
    let with = |level: &str, port: u16| {
        format!("{{ gateway: {{ mode: 'local', port: {port} }}, logging: {{ consoleLevel: '{level}' }} }}")
    };
    home.write(".openclaw/openclaw.json", &with("info", 1));
    let mut server = Server::start(&home, ["gateway", "--port", "0"]);
    home.write(".openclaw/openclaw.json", &with("debug", 1));
    signal(&server.child, Signal::HUP);
    server.says("the configuration was read again");
    home.run(["gateway", "call", "health"]).ok();
    server.says("DEBUG");
    home.write(
        ".openclaw/openclaw.json",
        "{ gateway: { mode: 'local', auth: { token: '0123456789abcdef' } }, logging: { level: 'loud' } }",
    );
    signal(&server.child, Signal::HUP);
    assert!(server.says("stays as it was").contains("logging.level"));
    home.write(
        ".openclaw/openclaw.json",
        "{ gateway: { mode: 'local', auth: { token: '0123456789abcdef' } }, agents: { entries: { other: {} } } }",
    );
    signal(&server.child, Signal::HUP);
    let said = server.says("waits for a restart").to_owned();
    assert!(said.contains("in force now: gateway.auth") && said.contains("a restart: agents"), "{said}");
    home.run(["gateway", "call", "health"]).ok();
    server.stop(Signal::TERM);
}

#[test]
fn a_file_that_changes_is_taken_over_without_being_asked() {
    let home = Home::new();
    let with = |level: &str| {
        format!(
            "{{ gateway: {{ mode: 'local' }}, logging: {{ consoleLevel: '{level}', maxFileBytes: 1000 }} }}"
        )
    };
    home.write(".openclaw/openclaw.json", &with("info"));
    let mut server = Server::start(&home, ["gateway", "--port", "0"]);
    // As an editor does that writes a new file and moves it over the old one.
    let new = home.write(".openclaw/.openclaw.json.swp", &with("debug"));
    fs::rename(new, home.path().join(".openclaw/openclaw.json")).expect("it moves");
    assert!(server.says("in force now: logging").contains("config"));
    home.run(["gateway", "call", "health"]).ok();
    server.says("DEBUG");
    // As one does that cuts the file and writes it again; and it is broken.
    home.write(".openclaw/openclaw.json", "{\n  gateway: { mode: 'local' oops }\n}");
    assert!(server.says("stays as it was").contains("openclaw.json:2:"));
    home.write(".openclaw/openclaw.json", &with("debug"));
    server.says("says what is in force");
    // The command line edits it, and says what becomes of that.
    let set = home.run(["gateway", "config", "set", "commands.restart", "false"]);
    assert!(set.ok().contains("set: commands.restart"), "{set:?}");
    server.says("in force now: commands.restart");
    signal(&server.child, Signal::USR1);
    server.says("SIGUSR1 is ignored");
    let answer = home.run(["gateway", "call", "status", "--json"]).json(0);
    assert_eq!((&answer["config"]["reloads"], &answer["lifecycle"]["restarts"]), (&2.into(), &0.into()));
    assert_eq!(server.stop(Signal::TERM).0, Some(0));
}

#[test]
fn a_suspended_gateway_reads_and_takes_no_work() {
    let home = Home::new();
    let server = dev(&home);
    let call = |args: &[&str]| {
        let args = ["--dev", "gateway", "call", "--json"].iter().chain(args);
        home.run(args.copied().collect::<Vec<_>>())
    };
    let ready = call(&["gateway.suspend.prepare", "--request-id", "snapshot"]).json(0);
    assert_eq!(ready["status"], "ready");
    assert_eq!(call(&["status"]).json(0)["lifecycle"]["suspended"], true);
    let refused = call(&["agent", "--message", "hello"]).json(1)["error"].clone();
    assert_eq!((&refused["code"], &refused["retryable"]), (&"UNAVAILABLE".into(), &true.into()));
    assert_eq!(refused["details"]["reason"], "gateway-suspended");
    let id = ready["suspensionId"].as_str().expect("a text");
    assert_eq!(call(&["gateway.suspend.resume", "--suspension-id", id]).json(0)["resumed"], true);
    call(&["agent", "--message", "hello"]).json(0);
    server.stop(Signal::TERM);
}

#[test]
fn force_takes_the_place_of_a_gateway() {
    let home = Home::new();
    let mut first = dev(&home);
    let refused = home.run(["gateway", "--dev", "--port", "0"]);
    assert!(refused.refused(78).contains("--force"), "{refused:?}");
    let second = Server::start(&home, ["gateway", "--dev", "--port", "0", "--force"]);
    let pid = first.child.id();
    assert!(second.said.contains(&format!("stopping pid {pid} (user ")), "{}", second.said);
    assert!(second.said.contains("holds the state directory"), "{}", second.said);
    assert_eq!(first.child.wait().expect("it has ended").code(), Some(0));
    assert_eq!(second.stop(Signal::TERM).0, Some(0));
}

#[test]
fn a_killed_gateway_leaves_nothing_that_stops_the_next() {
    let home = Home::new();
    let port = free_port();
    for _ in 0..3 {
        let mut server = Server::start(&home, ["gateway", "--dev", "--port", &port]);
        home.run(["--dev", "gateway", "call", "agent", "--message", "hi", "--expect-final"]).ok();
        server.child.kill().expect("it is there");
        server.child.wait().expect("it ends");
    }
    assert_eq!(Server::start(&home, ["gateway", "--dev", "--port", &port]).stop(Signal::TERM).0, Some(0));
}

pub(crate) fn free_port() -> String {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    socket.local_addr().expect("it has an address").port().to_string()
}

#[test]
fn the_log_is_read_by_level_and_age_for_people_and_programs() {
    let home = Home::new();
    let server = dev(&home);
    let log = home.path().join(STATE).join("gateway/logs/openclaw.log");
    // The start line goes to the console and to the file at once, by two threads.
    while !fs::read_to_string(&log).is_ok_and(|text| text.contains("listening on")) {
        std::thread::yield_now();
    }
    let mut text = fs::read_to_string(&log).expect("there is a log");
    text.push_str("{\"time\":\"2001-01-01T00:00:00.000Z\",\"level\":\"ERROR\",\"subsystem\":\"old\",\"message\":\"long ago\"}\n");
    fs::write(&log, text).expect("it is ours");
    let logs = |args: &[&str]| {
        home.run(["--dev", "gateway", "logs"].iter().chain(args).copied().collect::<Vec<_>>())
    };
    let all = logs(&[]);
    assert!(all.ok().contains("INFO  gateway: listening on"), "{all:?}");
    assert!(!all.stdout.contains('\u{1b}'), "{all:?}");
    let errors = logs(&["--level", "error"]);
    assert_eq!(errors.ok().lines().count(), 1, "{errors:?}");
    assert!(errors.stdout.contains("ERROR old: long ago"), "{errors:?}");
    let json = logs(&["--json", "--limit", "1"]);
    assert_eq!(json.json(0)["message"], "long ago");
    assert!(logs(&["--since", "soon"]).refused(2).contains("such as `10m`"));
    assert_eq!(logs(&["--limit", "5001"]).code, Some(2));
    assert_eq!(logs(&["--limit", "0"]).ok(), "");
    server.stop(Signal::TERM);
    assert!(logs(&[]).refused(3).contains("no gateway answers"));
}

#[test]
fn a_reader_that_has_had_enough_ends_the_log_quietly() {
    let home = Home::new();
    let mut server = dev(&home);
    let mut follower = home.spawn_piped(["--dev", "gateway", "logs", "--follow"]);
    let mut lines = BufReader::new(follower.stdout.take().expect("stdout is piped"));
    line(&mut lines);
    drop(lines);
    signal(&server.child, Signal::HUP);
    server.says("read again");
    assert_eq!(follower.wait().expect("it ends").code(), Some(0));
    let mut said = String::new();
    follower.stderr.take().expect("stderr is piped").read_to_string(&mut said).expect("it is text");
    assert_eq!(said, "");
    server.stop(Signal::TERM);
}

#[test]
fn authentication_is_explained_without_a_secret() {
    let home = Home::new();
    home.write(".openclaw/openclaw.json", "{ gateway: { auth: { token: 'a-token-nobody-guesses' } } }");
    let home = home.with("OPENCLAW_GATEWAY_PASSWORD", "my old dog");
    let explained = home.run(["gateway", "auth", "explain", "--auth", "token"]);
    assert!(explained.ok().contains("sha256 ") && explained.stdout.contains("(a password)"), "{explained:?}");
    let json = home.run(["gateway", "--json", "auth", "explain", "--auth", "token"]).json(0);
    assert_eq!((&json["ok"], &json["mode"]), (&true.into(), &"token".into()));
    assert_eq!(json["candidates"][0]["used"], true);
    assert!(json["candidates"][1]["reason"].as_str().is_some_and(|why| why.contains("the mode is")));
    let refused = home.run(["gateway", "auth", "explain"]);
    assert_eq!(refused.code, Some(78), "both are set: {refused:?}");
    for outcome in [explained, refused] {
        let text = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(!text.contains("nobody-guesses") && !text.contains("old dog"), "{text}");
    }
    assert!(!home.path().join(".openclaw/gateway").exists(), "nothing was made");
}
