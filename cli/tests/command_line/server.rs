//! `gateway run`: how it starts, refuses to start, and stops.

use std::{
    fs,
    net::TcpListener,
    path::Path,
    process::Child,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;

use crate::process::{Home, Outcome, signal};

/// Waits until the gateway of `state` has written its runtime record.
fn record(child: &mut Child, state: &Path) -> Value {
    let path = state.join("gateway/runtime.json");
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(record) = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok()) {
            return record;
        }
        assert!(child.try_wait().expect("the child is ours").is_none(), "the gateway ended before it served");
        assert!(Instant::now() < deadline, "no record at {}", path.display());
        std::thread::sleep(Duration::from_millis(10));
    }
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
    let mut child = home.spawn_piped(args);
    let record = record(&mut child, &state);
    assert_eq!(record["pid"], child.id());
    assert!(record["port"].as_u64().is_some_and(|port| port > 0), "{record}");
    let second = home.run(args);
    assert!(second.refused(78).contains("already runs"), "{second:?}");
    signal(&child, Signal::TERM);
    let outcome = Outcome::of(child.wait_with_output().expect("it ends"));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(!outcome.stderr.contains("hunter2"), "{outcome:?}");
    assert!(!state.join("gateway/runtime.json").exists(), "the record is gone");
}

#[test]
fn the_dev_profile_is_made_on_the_way_and_reset_on_request() {
    let home = Home::new();
    let state = home.path().join(".openclaw-dev");
    let mut child = home.spawn_piped(["gateway", "--dev", "--port", "0"]);
    record(&mut child, &state);
    signal(&child, Signal::INT);
    let outcome = Outcome::of(child.wait_with_output().expect("it ends"));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert!(state.join("openclaw.json").exists() && !home.path().join(".openclaw").exists());
    let token = fs::read_to_string(state.join("openclaw.json")).expect("there is a configuration");
    let mut child = home.spawn_piped(["--dev", "gateway", "run", "--reset", "--port", "0"]);
    record(&mut child, &state);
    signal(&child, Signal::TERM);
    let outcome = Outcome::of(child.wait_with_output().expect("it ends"));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_ne!(fs::read_to_string(state.join("openclaw.json")).expect("there is a new one"), token);
}
