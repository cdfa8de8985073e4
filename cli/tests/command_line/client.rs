//! Commands that ask a gateway.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{
    fake::{Answer, Fake, TOKEN},
    process::{Home, Outcome, signal},
};

fn run(fake: &Fake, args: &[&str]) -> Outcome {
    let args = ["gateway"]
        .iter()
        .chain(args)
        .chain(&["--url", &fake.url, "--token", TOKEN])
        .copied()
        .collect::<Vec<_>>();
    Home::new().run(args)
}

/// Answers every call with its method and params.
fn echo() -> Fake {
    Fake::new(|method, params| Answer::Result(json!({ "method": method, "params": params })))
}

fn healthy(ok: bool) -> Fake {
    Fake::new(move |_, _| {
        Answer::Result(json!({
            "ok": ok, "ts": 1, "news": "from a newer gateway",
            "runtime": { "uptimeMs": 3_661_000, "connections": 2, "unauthenticatedConnections": 0,
                "callsInFlight": 1, "callsTotal": 9, "runsActive": 3 },
        }))
    })
}

#[test]
fn health_says_verdict_round_trip_and_use() {
    let fake = healthy(true);
    let words = run(&fake, &["health"]);
    let lines: Vec<&str> = words.ok().lines().collect();
    assert_eq!(lines[0], "Gateway Health");
    assert!(lines[1].starts_with("OK (") && lines[1].ends_with(" ms)"), "{words:?}");
    assert_eq!(lines[2..], ["Uptime       1h 1m", "Connections  2", "Runs         3 active"]);
    let json = run(&fake, &["--json", "health"]).json(0);
    assert_eq!((&json["ok"], &json["news"]), (&json!(true), &json!("from a newer gateway")));
}

#[test]
fn a_gateway_that_is_not_well_is_degraded() {
    let fake = healthy(false);
    assert_eq!(run(&fake, &["health"]).code, Some(7));
    assert_eq!(run(&fake, &["health", "--json"]).json(7)["ok"], false);
}

#[test]
fn all_forms_of_params_send_the_same() {
    let home = Home::new();
    let file = home.write("params.json", r#"{"sinceMs": 60000}"#);
    let at_file = format!("@{}", file.display());
    let fake = echo();
    let expected = json!({ "method": "logs.tail", "params": { "sinceMs": 60000 } });
    for args in [
        &["call", "logs.tail", "--params", r#"{"sinceMs": 60000}"#][..],
        &["call", "logs.tail", "--since-ms", "60000"],
        &["call", "--since-ms", "60000", "logs.tail"],
        &["call", "logs.tail", "sinceMs=60000"],
        &["call", "logs.tail", "sinceMs:=60000"],
        &["call", "logs.tail", "--params", &at_file],
        &["call", "logs.tail", "--params", r#"{"sinceMs": 1}"#, "sinceMs=2", "--since-ms=60000"],
        &["--timeout", "9000", "call", "logs.tail", "sinceMs=60000"],
    ] {
        let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        assert_eq!(run(&fake, &args).json(0), expected, "{args:?}");
    }
    let args =
        ["gateway", "call", "logs.tail", "--params", "@-", "--json", "--url", &fake.url, "--token", TOKEN];
    assert_eq!(home.run_with_input(args, r#"{"sinceMs": 60000}"#).json(0), expected);
}

#[test]
fn words_are_the_method_and_the_result() {
    let words = run(&echo(), &["call", "status"]);
    assert_eq!(words.ok(), "Gateway call: status\n{\n  \"method\": \"status\",\n  \"params\": {}\n}\n");
    assert_eq!(words.stderr, "");
}

#[test]
fn a_token_may_lie_in_a_file_and_options_may_come_first() {
    let home = Home::new();
    let file = home.write("token", &format!("{TOKEN}\n"));
    let fake = echo();
    let file = file.to_str().expect("the path is text");
    let outcome = home.run(["gateway", "--token-file", file, "--url", &fake.url, "call", "status", "--json"]);
    assert_eq!(outcome.json(0)["method"], "status");
    let password = home.run(["gateway", "call", "status", "--json", "--url", &fake.url, "--password", TOKEN]);
    assert_eq!(password.json(0)["method"], "status");
    let empty = home.write("empty", "\n");
    let empty =
        home.run(["gateway", "health", "--url", &fake.url, "--token-file", empty.to_str().expect("text")]);
    assert!(empty.refused(2).contains("it is empty"), "{empty:?}");
}

#[test]
fn the_environment_names_the_gateway_and_its_token() {
    let fake = echo();
    let home = Home::new().with("OPENCLAW_GATEWAY_URL", &fake.url).with("OPENCLAW_GATEWAY_TOKEN", TOKEN);
    assert_eq!(home.run(["gateway", "call", "status", "--json"]).json(0)["method"], "status");
}

#[test]
fn an_idempotency_key_is_made_sent_and_shown() {
    let fake = Fake::new(|_, params| {
        Answer::Result(json!({ "runId": params["idempotencyKey"], "status": "accepted" }))
    });
    let json = run(&fake, &["call", "agent", "--message", "hello", "--json"]).json(0);
    let key = json["runId"].as_str().expect("the result shows the key").to_owned();
    assert_eq!(fake.calls()[0].1, json!({ "message": "hello", "idempotencyKey": key }));
    let words = run(&fake, &["call", "agent", "message=hello"]);
    let sent = &fake.calls()[1].1["idempotencyKey"];
    assert!(words.stderr.contains(sent.as_str().expect("a key was sent")), "{words:?}");
    let given = run(&fake, &["call", "agent", "message=hello", "--idempotency-key", "k1", "--json"]).json(0);
    assert_eq!(given["runId"], "k1");
}

/// Acknowledges, says once that the run goes on, and then ends it with `status`.
fn runner(status: &'static str) -> Fake {
    let waits = std::sync::atomic::AtomicU32::new(0);
    Fake::new(move |method, params| match method {
        "agent" => Answer::Result(json!({ "runId": params["idempotencyKey"], "status": "accepted" })),
        _ if waits.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0 => {
            Answer::Result(json!({ "runId": params["runId"], "status": "timeout" }))
        }
        _ => Answer::Result(json!({
            "runId": params["runId"], "status": status,
            "final": { "runId": params["runId"], "status": status, "summary": "the end" },
        })),
    })
}

#[test]
fn the_outcome_of_a_run_is_waited_for() {
    let args = ["call", "agent", "--message", "hello", "--idempotency-key", "k1", "--expect-final"];
    let words = run(&runner("ok"), &args);
    assert!(words.ok().contains("\"summary\": \"the end\""), "{words:?}");
    assert!(words.stderr.contains("accepted: run k1"), "{words:?}");
    let json_args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
    assert_eq!(
        run(&runner("ok"), &json_args).json(0),
        json!({ "runId": "k1", "status": "ok", "summary": "the end" })
    );
    assert_eq!(run(&runner("error"), &json_args).json(1)["status"], "error");
    let failed = run(&runner("error"), &args);
    assert_eq!(failed.code, Some(1));
    assert!(failed.stderr.contains("error: the run failed\n  the end"), "{failed:?}");
}

#[test]
fn expecting_a_final_changes_nothing_for_other_methods() {
    let fake = echo();
    assert_eq!(run(&fake, &["call", "status", "--expect-final", "--json"]).json(0)["method"], "status");
    assert_eq!(fake.calls().len(), 1);
}

#[test]
fn a_refusal_exits_with_one_and_keeps_its_details() {
    let fake = Fake::new(|_, _| {
        Answer::Error(json!({ "code": -32022, "message": "draining", "data": {
            "code": "UNAVAILABLE", "retryable": true, "retryAfterMs": 500 } }))
    });
    let words = run(&fake, &["call", "status"]);
    assert!(words.refused(1).starts_with("error: draining"), "{words:?}");
    let json = run(&fake, &["call", "status", "--json"]).json(1);
    assert_eq!(json["error"]["type"], "gateway_request_error");
    assert_eq!((&json["error"]["code"], &json["error"]["exit"]), (&json!("UNAVAILABLE"), &json!("refused")));
    assert_eq!((&json["error"]["retryable"], &json["error"]["retryAfterMs"]), (&json!(true), &json!(500)));
}

#[test]
fn a_wrong_token_exits_with_four() {
    let fake = echo();
    let home = Home::new();
    let args = ["gateway", "call", "status", "--url", &fake.url, "--token", "wrong"];
    let words = home.run(args);
    assert!(words.refused(4).contains("unauthorized"), "{words:?}");
    assert!(
        words.stderr.contains("credential from: flag --token") && !words.stderr.contains("wrong"),
        "{words:?}"
    );
    let json = home.run(args.into_iter().chain(["--json"])).json(4);
    assert_eq!((&json["error"]["code"], &json["error"]["exit"]), (&json!("UNAUTHORIZED"), &json!("auth")));
}

#[test]
fn a_missing_scope_exits_with_four() {
    let fake = Fake::new(|_, _| {
        Answer::Error(json!({ "code": -32021, "message": "missing scope: operator.write", "data": {
            "code": "FORBIDDEN", "missingScope": "operator.write" } }))
    });
    assert!(run(&fake, &["call", "status"]).refused(4).contains("missing scope"));
}

#[test]
fn a_deadline_exits_with_five() {
    let fake = Fake::new(|_, _| Answer::Silence);
    let started = Instant::now();
    let words = run(&fake, &["call", "status", "--timeout", "200"]);
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(words.refused(5).contains("200 ms"), "{words:?}");
    let json = run(&fake, &["call", "status", "--timeout", "200", "--json"]).json(5);
    let error = &json["error"];
    assert_eq!(
        (&error["code"], &error["kind"], &error["timeoutMs"]),
        (&json!("TIMEOUT"), &json!("timeout"), &json!(200))
    );
}

#[test]
fn a_gateway_that_goes_away_exits_with_three() {
    let fake = Fake::new(|_, _| Answer::Close);
    let started = Instant::now();
    assert!(run(&fake, &["call", "status"]).refused(3).contains("closed the connection"));
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(run(&fake, &["call", "status", "--json"]).json(3)["error"]["code"], "CONNECTION_CLOSED");
}

#[test]
fn what_is_no_gateway_exits_with_six() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let url = format!("ws://{}", listener.local_addr().expect("a listener has an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            use std::io::{Read as _, Write as _};
            let mut stream = stream.expect("a connection comes");
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n");
        }
    });
    let json = Home::new().run(["gateway", "health", "--url", &url, "--token", "x", "--json"]).json(6);
    assert_eq!(
        (&json["error"]["code"], &json["error"]["exit"]),
        (&json!("PROTOCOL_MISMATCH"), &json!("protocol"))
    );
}

#[test]
fn ctrl_c_during_a_call_exits_with_130() {
    let fake = Fake::new(|_, _| Answer::Silence);
    let child = Home::new()
        .spawn_piped(["gateway", "call", "status", "--json", "--url", &fake.url, "--token", TOKEN]);
    fake.wait_for_call();
    signal(&child, Signal::INT);
    let outcome = Outcome::of(child.wait_with_output().expect("it ends"));
    assert_eq!(outcome.json(130)["error"]["exit"], "interrupted");
}

/// A gateway with a method of its own.
fn painter() -> Fake {
    Fake::new(|method, params| match method {
        "rpc.discover" => Answer::Result(json!({
            "openrpc": "1.3.2", "info": { "title": "x", "version": "1" },
            "methods": [{
                "name": "paint.mix", "summary": "Mixes a colour.", "params": [], "result": { "name": "r", "schema": {} },
                "x-scope": "operator.write",
                "x-params-schema": { "$ref": "#/components/schemas/MixParams" },
                "examples": [{ "name": "dark red", "params": [{ "name": "colourName", "value": "dark red" }] }],
            }],
            "components": { "schemas": { "MixParams": { "type": "object", "properties": {
                "colourName": { "type": "string", "description": "The colour." },
                "litres": { "type": "integer", "maximum": 5 },
            } } } },
        })),
        "paint.mix" => Answer::Result(params.clone()),
        _ => Answer::Error(
            json!({ "code": -32601, "message": "unknown method", "data": { "code": "METHOD_NOT_FOUND" } }),
        ),
    })
}

#[test]
fn a_method_of_the_gateways_own_has_typed_flags() {
    let fake = painter();
    let json = run(&fake, &["call", "paint.mix", "--colour-name", "red", "--litres", "2", "--json"]).json(0);
    assert_eq!(json, json!({ "colourName": "red", "litres": 2 }));
    let help = run(&fake, &["call", "paint.mix", "--help"]);
    for part in
        ["Mixes a colour", "--colour-name <TEXT>", "The colour.", "[at most 5]", "--colour-name 'dark red'"]
    {
        assert!(help.ok().contains(part), "{part} is missing in {}", help.stdout);
    }
    let rows = run(&fake, &["methods", "--live", "--json"]).json(0);
    assert_eq!(rows[0]["name"], "paint.mix");
    assert!(run(&fake, &["describe", "paint.mix", "--live"]).ok().contains("Scope       operator.write"));
    assert_eq!(run(&fake, &["schema", "--live"]).json(0)["openrpc"], "1.3.2");
}

#[test]
fn a_method_of_the_gateways_own_is_called_without_asking_when_nothing_must_be_known() {
    let fake = painter();
    let sent = run(&fake, &["call", "paint.mix", "--params", r#"{"litres": 1}"#, "colourName=red", "--json"])
        .json(0);
    assert_eq!(sent, json!({ "litres": 1, "colourName": "red" }));
    assert_eq!(fake.calls().iter().map(|(method, _)| method.as_str()).collect::<Vec<_>>(), ["paint.mix"]);
}

#[test]
fn a_method_that_nobody_knows_offers_the_nearest() {
    let fake = painter();
    let by_gateway = run(&fake, &["call", "logs.tial"]);
    assert!(by_gateway.refused(1).contains("did you mean `logs.tail`?"), "{by_gateway:?}");
    let by_document = run(&fake, &["call", "paint.mxi", "--litres", "1", "--json"]).json(2);
    assert_eq!(by_document["error"]["nearest"], "paint.mix");
}

#[test]
fn big_numbers_and_strange_texts_come_through() {
    let text = "\u{9b}31m ünï \u{2028}";
    let fake = Fake::new(move |_, _| Answer::Result(json!({ "n": u64::MAX, "text": text })));
    let json: Value = run(&fake, &["call", "status", "--json"]).json(0);
    assert_eq!(json, json!({ "n": u64::MAX, "text": text }));
}
