//! Commands that ask no gateway, and mistakes that are found before one is asked.

use std::{io::Read as _, process::Stdio};

use serde_json::{Value, json};

use crate::process::Home;

/// No gateway listens there: a command that got so far would exit with 3.
const NOBODY: [&str; 4] = ["--url", "ws://127.0.0.1:1", "--token", "x"];

fn call<'a>(args: &[&'a str]) -> Vec<&'a str> {
    ["gateway", "call"].iter().chain(args).chain(&NOBODY).copied().collect()
}

#[test]
fn version_is_one_line() {
    let version = Home::new().run(["--version"]);
    assert_eq!(version.ok(), format!("OpenClaw {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn methods_are_listed_in_words_and_as_json() {
    let home = Home::new();
    assert!(home.run(["gateway", "methods"]).ok().contains("logs.tail"));
    let rows = home.run(["gateway", "methods", "--json"]).json(0);
    let names: Vec<&str> =
        rows.as_array().expect("a list").iter().filter_map(|row| row["name"].as_str()).collect();
    let mut contract: Vec<&str> = openclaw_schema::methods::all().map(|record| record.name).collect();
    let mut listed = names.clone();
    listed.sort_unstable();
    contract.sort_unstable();
    assert_eq!(listed, contract);
    assert_eq!(
        home.run(["gateway", "--json", "methods"]).json(0),
        rows,
        "an option before the command counts"
    );
}

#[test]
fn every_method_has_help_and_a_description() {
    let home = Home::new();
    for record in openclaw_schema::methods::all() {
        let help = home.run(["gateway", "call", record.name, "--help"]);
        // A long one takes more than one line.
        let flat = help.ok().split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.starts_with(record.summary.trim_end_matches('.')), "{help:?}");
        assert!(help.stdout.contains(&format!("Scope: {}", record.scope)), "{help:?}");
        let described = home.run(["gateway", "describe", record.name, "--json"]).json(0);
        assert_eq!(described["method"]["summary"], record.summary);
    }
}

#[test]
fn help_of_a_method_lists_its_fields() {
    let help = Home::new().run(["gateway", "call", "logs.tail", "--help"]);
    for part in [
        "Fields of logs.tail:",
        "--since-ms <INTEGER>",
        "[1 to 5000]",
        "Examples:",
        "logs.tail --since-ms 60000",
    ] {
        assert!(help.ok().contains(part), "{part} is missing in {}", help.stdout);
    }
    let help = Home::new().run(["gateway", "call", "agent", "--help"]);
    assert!(help.ok().contains("--param-timeout <INTEGER>"), "{}", help.stdout);
}

#[test]
fn the_schema_is_the_document() {
    let home = Home::new();
    let schema = home.run(["gateway", "schema"]).json(0);
    assert_eq!(schema, openclaw_schema::document::document());
    assert_eq!(home.run(["gateway", "schema", "--json"]).json(0), schema);
}

#[test]
fn an_unknown_name_offers_the_nearest() {
    let home = Home::new();
    let words = home.run(["gateway", "describe", "logs.tial"]);
    assert!(words.refused(2).contains("did you mean `logs.tail`?"), "{words:?}");
    let json = home.run(["gateway", "describe", "logs.tial", "--json"]).json(2);
    assert_eq!(
        (&json["error"]["code"], &json["error"]["nearest"]),
        (&json!("NOT_FOUND"), &json!("logs.tail"))
    );
}

#[test]
fn wrong_params_are_refused_before_anything_is_sent() {
    let home = Home::new();
    for (args, message) in [
        (
            &["logs.tail", "--params", r#"{"sinceMS": 1}"#][..],
            "unknown field `sinceMS`; allowed: cursor, limit, maxBytes, sinceMs; did you mean `sinceMs`?",
        ),
        (&["logs.tail", "--params", "[60000]"], "params must be an object (by name), not an array"),
        (&["not.ours", "--params", "[1]"], "params must be an object (by name), not an array"),
        (&["logs.tail", "--params", "{bad"], "--params is not JSON"),
        (&["logs.tail", "--limit", "0"], "at /limit: must be from 1 to 5000, not 0"),
        (&["logs.tail", "limit=0"], "at /limit: must be from 1 to 5000, not 0"),
        (&["logs.tail", "limit=x"], "at /limit: must be a whole number, not `x`"),
        (&["logs.tail", "limit"], "`limit` is neither `name=value` nor `name:=JSON`"),
        (&["logs.tail", "--limt", "1"], "unexpected argument '--limt' found"),
        (&["models.list", "--view", "al"], "invalid value 'al' for '--view <VALUE>'"),
        (&["agent"], "missing field `message`"),
        (&["logs.follow"], "`logs.follow` starts a subscription"),
        (&["logs.tail", "--params", "@/does/not/exist"], "the params cannot be read from `/does/not/exist`"),
        (&["logs.tail", "--timeout", "soon"], "invalid value 'soon' for '--timeout <MS>'"),
    ] {
        let words = home.run(call(args));
        assert!(words.refused(2).contains(message), "{args:?}: {words:?}");
        assert!(words.stderr.starts_with("error: "), "{words:?}");
        let json = home.run(call(args).into_iter().chain(["--json"])).json(2);
        assert_eq!(json["ok"], false);
        assert_eq!(json["error"]["type"], "cli_error", "{json}");
        assert_eq!(json["error"]["exit"], "usage", "{json}");
        let told = json["error"]["message"].as_str().expect("there is a message");
        assert!(told.contains(message), "{args:?}: {told}");
    }
}

#[test]
fn a_params_error_names_its_parts_in_json() {
    let json = Home::new().run(call(&["logs.tail", "--params", r#"{"sinceMS":1}"#, "--json"])).json(2);
    let details = &json["error"]["details"];
    assert_eq!(json["error"]["code"], "INVALID_PARAMS");
    assert_eq!((&details["path"], &details["nearest"]), (&json!(""), &json!("sinceMs")));
    assert_eq!(details["allowed"], json!(["cursor", "limit", "maxBytes", "sinceMs"]));
}

#[test]
fn mistakes_in_flags_are_usage_errors() {
    let home = Home::new();
    for args in [
        &["gateway", "health", "--url", "ws://x", "--port", "1"][..],
        &["gateway", "health", "--port", "0"],
        &["gateway", "health", "--nope"],
        &["gateway", "--bind", "lan", "health"],
        &["gateway", "frobnicate"],
        &["gateway", "call"],
        &["gateway", "run", "--reset"],
        &["gateway", "run", "--bind", "everywhere"],
        &["--log-level", "debug", "gateway", "health"],
        &["--log-level", "loud", "gateway", "run"],
        &["--profile", "a/b", "gateway", "health"],
        &["completion", "tcl"],
        &[],
    ] {
        let outcome = home.run(args.iter().copied());
        // The server calls a bad profile a configuration error; a client command calls it usage.
        assert!(!outcome.refused(2).is_empty(), "{args:?}");
    }
    let json = home.run(["gateway", "--json", "health", "--nope"]).json(2);
    assert_eq!(json["error"]["code"], "USAGE");
}

#[test]
fn a_url_needs_a_credential_of_its_own() {
    let home = Home::new().with("OPENCLAW_GATEWAY_TOKEN", "from the environment");
    let words = home.run(["gateway", "health", "--url", "ws://127.0.0.1:1"]);
    assert!(words.refused(4).contains("--url needs --token or --password"), "{words:?}");
    let json = home.run(["gateway", "health", "--url", "ws://127.0.0.1:1", "--token", "", "--json"]).json(4);
    assert_eq!(json["error"]["type"], "gateway_credentials_required");
    assert_eq!(json["error"]["exit"], "auth");
}

#[test]
fn nobody_listening_is_unreachable_and_says_what_to_do() {
    let home = Home::new();
    let words = home.run(["--profile", "work", "gateway", "health", "--port", "1"]);
    let text = words.refused(3);
    assert!(text.contains("no gateway answers at ws://127.0.0.1:1"), "{text}");
    assert!(text.contains("address from: flag --port"), "{text}");
    assert!(text.contains("`openclaw --profile work gateway run`"), "{text}");
    let json = home.run(["--dev", "gateway", "call", "status", "--port", "1", "--json"]).json(3);
    let error = &json["error"];
    assert_eq!((&error["type"], &error["code"]), (&json!("gateway_transport_error"), &json!("UNREACHABLE")));
    assert_eq!((&error["exit"], &error["kind"]), (&json!("unreachable"), &json!("closed")));
    assert_eq!(json["gateway"], json!({ "url": "ws://127.0.0.1:1", "urlSource": "flag --port" }));
    assert!(error["hints"].to_string().contains("openclaw --dev gateway run"), "{error}");
}

#[test]
fn a_broken_configuration_is_told_with_its_place() {
    let home = Home::new();
    home.write(".openclaw/openclaw.json", "{\n  gateway: { port: , },\n}");
    let words = home.run(["gateway", "health"]);
    assert!(words.refused(2).contains("openclaw.json:2:"), "{words:?}");
    assert_eq!(home.run(["gateway", "health", "--json"]).json(2)["error"]["code"], "CONFIG_INVALID");
}

#[test]
fn output_has_no_escapes_in_a_pipe() {
    let home = Home::new();
    for args in [
        &["--help"][..],
        &["gateway", "call", "agent", "--help"],
        &["gateway", "describe", "agent"],
        &["gateway", "methods"],
    ] {
        assert!(!home.run(args.iter().copied()).ok().contains('\u{1b}'), "{args:?}");
    }
    assert!(!home.run(["gateway", "health", "--nope"]).stderr.contains('\u{1b}'));
    let forced = Home::new().with("CLICOLOR_FORCE", "1");
    assert!(forced.run(["gateway", "methods"]).ok().contains('\u{1b}'), "the colour is there at all");
    for args in [
        &["gateway", "methods", "--no-color"][..],
        &["--no-color", "--help"],
        &["gateway", "--no-color", "describe", "agent"],
    ] {
        assert!(!forced.run(args.iter().copied()).ok().contains('\u{1b}'), "{args:?}");
    }
    let plain = Home::new().with("CLICOLOR_FORCE", "1").with("NO_COLOR", "1");
    assert!(!plain.run(["gateway", "methods"]).ok().contains('\u{1b}'));
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let home = Home::new();
    let mut child = home
        .command(["gateway", "schema"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(child.stdout.take());
    let mut stderr = String::new();
    child.stderr.take().expect("stderr is piped").read_to_string(&mut stderr).expect("stderr is text");
    assert_eq!((child.wait().expect("it ends").code(), stderr.as_str()), (Some(0), ""));
}

#[test]
fn completion_knows_methods_and_their_flags() {
    let home = Home::new().with("COMPLETE", "fish");
    let offered = |words: &[&str]| {
        let args: Vec<&str> = ["--", "openclaw"].iter().chain(words).copied().collect();
        home.run(args).ok().to_owned()
    };
    assert!(offered(&["gateway", "call", "logs."]).contains("logs.tail\t"));
    assert!(offered(&["gateway", "describe", "LogsT"]).contains("LogsTailResult"));
    let flags = offered(&["gateway", "call", "logs.tail", "--s"]);
    assert!(flags.contains("--since-ms") && !flags.contains("--session-key"), "{flags}");
    let plain = Home::new();
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        assert!(plain.run(["completion", shell]).ok().contains("COMPLETE"), "{shell}");
    }
}

#[test]
fn examples_of_the_contract_are_accepted_as_typed() {
    let home = Home::new();
    for record in openclaw_schema::methods::all().filter(|record| record.subscription.is_none()) {
        for example in (record.examples)().successes {
            let Value::Object(params) = example.params else { panic!("params are an object") };
            let text = Value::Object(params).to_string();
            let outcome = home.run(call(&[record.name, "--params", &text]));
            assert_eq!(outcome.code, Some(3), "it got as far as connecting: {outcome:?}");
        }
    }
}
