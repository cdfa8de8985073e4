//! `gateway config get`, `explain`, `validate`, `schema`; files that OpenClaw wrote, includes and `.env`.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    process::Home,
    server::{Server, record},
};

const CONFIG: &str = "{
  gateway: {
    mode: 'local', port: 18999,
    auth: { token: 'hush-hush-hush-hush' },
  },
  channels: { telegram: { botToken: 'hush-hush-bot' } },
}
";

fn private(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
}

/// A home with this configuration, as safe as ours.
fn home(config: &str) -> Home {
    let home = Home::new();
    private(&home.write(".openclaw/openclaw.json", config), 0o600);
    private(&home.path().join(".openclaw"), 0o700);
    home
}

#[test]
fn a_value_is_shown_bare_a_section_as_json_and_a_secret_never() {
    let home = home(CONFIG);
    for (args, said) in [
        (&["gateway", "config", "get", "gateway.port"][..], "18999\n"),
        (&["config", "get", "gateway.mode"], "local\n"),
        (&["config", "--json", "get", "gateway.mode"], "\"local\"\n"),
        (&["config", "get", "channels.telegram.botToken"], "__OPENCLAW_REDACTED__\n"),
    ] {
        assert_eq!(home.run(args.iter().copied()).ok(), said, "{args:?}");
    }
    let all = home.run(["gateway", "config", "get", "--json"]).json(0);
    assert_eq!(all["gateway"]["auth"]["token"], "__OPENCLAW_REDACTED__");
    assert!(!all.to_string().contains("hush"), "{all}");
}

#[test]
fn a_key_that_is_not_set_and_one_that_nobody_knows_are_told_apart() {
    let home = home(CONFIG);
    let unset = home.run(["config", "get", "gateway.bind"]);
    assert!(unset.refused(1).contains("config explain gateway.bind"), "{unset:?}");
    let unknown = home.run(["config", "get", "gateway.prot", "--json"]).json(2);
    assert_eq!(unknown["error"]["code"], "UNKNOWN_KEY");
    assert_eq!(unknown["error"]["nearest"], "gateway.port");
    assert!(home.run(["config", "explain", "gatway"]).refused(2).contains("did you mean `gateway`?"));
    assert!(home.run(["config", "get", "a..b"]).refused(2).contains("empty part"));
}

#[test]
fn each_key_is_explained_with_its_line_and_what_lost() {
    let home =
        home(CONFIG).with("OPENCLAW_GATEWAY_PORT", "18111").with("OPENCLAW_GATEWAY_TOKEN", "hush-env-hush");
    let file = home.path().join(".openclaw/openclaw.json").display().to_string();
    let port = &home.run(["config", "explain", "gateway.port", "--json"]).json(0)["keys"][0];
    assert_eq!((&port["value"], &port["applies"]), (&json!(18111), &json!("restart")));
    assert_eq!(port["source"], json!({ "kind": "env", "text": "env OPENCLAW_GATEWAY_PORT" }));
    let lost = json!({ "kind": "file", "text": format!("gateway.port in {file}"), "file": file, "line": 3 });
    assert_eq!(port["lost"][0], json!({ "value": 18999, "source": lost }));
    let all = home.run(["config", "explain"]);
    assert!(all.ok().contains(&format!("{file}:4")) && !all.stdout.contains("hush"), "{all:?}");
    let alone = home.run(["config", "explain", "gateway.auth.token"]);
    assert!(alone.ok().contains("at once, while a gateway runs"), "{alone:?}");
}

#[test]
fn every_fault_is_told_with_its_line() {
    let home = home("{\n gateway: {mode: 'local', prot: 1,\n bind: 'lann', auth: {token: 5}},\n}");
    let report = home.run(["config", "validate", "--json"]).json(78);
    let told: Vec<_> = report["issues"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|issue| (issue["path"].as_str().expect("a key"), issue["line"].as_u64().expect("a line")))
        .collect();
    assert_eq!(told, [("gateway.prot", 2), ("gateway.bind", 3), ("gateway.auth.token", 3)]);
    assert_eq!((&report["ok"], &report["valid"]), (&json!(false), &json!(false)));
    assert_eq!(report["error"]["exit"], "configuration");
    let words = home.run(["config", "validate"]);
    assert!(words.refused(78).contains("has 3 faults") && words.stderr.contains("line 3: "), "{words:?}");

    let good = home.write("other.json5", "{gateway: {mode: 'local'}}");
    let good = good.to_str().expect("a text");
    assert!(home.run(["config", "validate", "--file", good]).ok().contains("nothing is wrong"));
    assert_eq!(home.run(["config", "validate", "--file", good, "--json"]).json(0)["valid"], true);
    assert!(home.run(["config", "validate", "--file", "nowhere"]).refused(2).contains("there is no file"));
    assert!(!home.path().join(".openclaw/gateway").exists(), "nothing is made");
}

#[test]
fn the_schema_is_the_published_one() {
    let published: Value =
        serde_json::from_str(include_str!("../../../schema/config.schema.json")).expect("it is JSON");
    assert_eq!(Home::new().run(["gateway", "config", "schema"]).json(0), published);
}

#[test]
fn included_files_and_variables_of_a_file_count_at_a_start() {
    let home = home("{gateway: {mode: 'local', auth: {token: '${MY_TOKEN}'}, $include: 'parts/net.json5'}}");
    home.write(".openclaw/parts/net.json5", "{bind: 'loopback', port: 1}");
    private(
        &home.write(".openclaw/.env", "MY_TOKEN='hush-hush-hush-hush'\nOPENCLAW_GATEWAY_PORT=18998\n"),
        0o600,
    );
    let port = &home.run(["config", "explain", "gateway.port", "--json"]).json(0)["keys"][0];
    assert_eq!(port["value"], 18998);
    let server = Server::start(&home, ["gateway", "run", "--port", "0"]);
    let port = record(&home.path().join(".openclaw"))["port"].to_string();
    let healthy = home.run(["gateway", "call", "health", "--json", "--port", &port]).json(0);
    assert_eq!(healthy["ok"], true, "the token of the file lets in");
    let (code, said) = server.stop(Signal::TERM);
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("hush"), "{said}");
}

/// What `openclaw` 2026.9.6 wrote: after a series of `config set`, and of `gateway run --dev --bind loopback`.
#[test]
fn a_configuration_that_stock_wrote_works_unchanged() {
    for (text, key, value) in [
        (include_str!("stock_configs/config-set.json"), "gateway.auth.rateLimit.maxAttempts", "5\n"),
        (include_str!("stock_configs/gateway-run-dev.json"), "agents.entries.dev.identity.name", "C3-PO\n"),
    ] {
        let home = home(text);
        let checked = home.run(["config", "validate"]);
        assert!(checked.ok().contains("nothing is wrong"), "{checked:?}");
        assert_eq!(checked.stderr, "", "OpenClaw's own keys give no warning");
        assert_eq!(home.run(["config", "get", key]).ok(), value);
        let server = Server::start(&home, ["gateway", "run", "--port", "0"]);
        let port = record(&home.path().join(".openclaw"))["port"].to_string();
        assert_eq!(home.run(["gateway", "call", "health", "--json", "--port", &port]).json(0)["ok"], true);
        let (code, said) = server.stop(Signal::TERM);
        assert_eq!(code, Some(0), "{said}");
        assert!(!said.contains("WARN"), "{said}");
        let after = fs::read_to_string(home.path().join(".openclaw/openclaw.json")).expect("it is there");
        assert_eq!(after, text);
    }
}
