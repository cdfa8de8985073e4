//! The stock client of the frame protocol, from npm, against this gateway.

use std::{io::Write as _, process::Command, time::Duration};

use openclaw_tests::harness::{TOKEN, TestGateway};
use serde_json::{Value, json};

use crate::drift::workspace;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stock_client_connects_calls_pairs_and_receives_events_without_a_gap() {
    let module = workspace().join("target/tools/node_modules/@openclaw/gateway-client/dist/index.mjs");
    if !module.exists() {
        assert!(std::env::var_os("CI").is_none(), "CI installs the stock client: see .ci/run");
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: the stock client is not installed; .ci/run shows the line of npm that does it"
        );
        return;
    }
    let gateway = TestGateway::start_with(
        |settings| {
            settings.limits.tick_interval = Duration::from_millis(100);
            // So that its device is refused first, and approved by somebody.
            settings.auto_approve_local = false;
        },
        |builder| builder,
    )
    .await;
    let mut node = Command::new("node");
    node.arg(workspace().join("tests/interop/sdk.mjs"));
    node.args([&module.display().to_string(), &gateway.url(), TOKEN]);
    let output = tokio::task::spawn_blocking(move || node.output()).await.expect("waiting does not panic");
    let output = output.expect("node runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let seen: Value = serde_json::from_slice(&output.stdout).expect("it prints what it saw");
    for (field, value) in [
        ("protocol", json!(4)),
        ("health", json!(true)),
        ("log", json!(true)),
        ("started", json!("accepted")),
        ("answer", json!("You said: four five")),
        ("waited", json!("ok")),
        ("chat", json!("started")),
        ("history", json!(2)),
        ("unpaired", json!("PAIRING_REQUIRED")),
        ("pending", json!([true])),
        ("stored", json!(true)),
        ("method", json!("device-token")),
        ("read", json!(true)),
        ("gaps", json!([])),
        ("warnings", json!([])),
    ] {
        assert_eq!(seen[field], value, "{field}: {seen}");
    }
    for event in ["tick", "agent", "chat", "device.pair.requested", "device.pair.resolved"] {
        assert!(seen["events"][event].as_u64().is_some_and(|count| count > 0), "no {event}: {seen}");
    }
    assert!(seen["issued"].as_str().is_some_and(|token| token.len() == 43), "{seen}");
    assert!(seen["denied"].as_str().is_some_and(|text| text.contains("operator.pairing")), "{seen}");
    assert!(seen["refused"].as_str().is_some_and(|text| text.contains("unknown method")), "{seen}");
}
