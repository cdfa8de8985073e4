//! Commands on a gateway that speaks OpenClaw frames, as stock gateways do: rights asked for, and exit codes.

use std::{
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use serde_json::{Value, json};
use tungstenite::{
    Message, WebSocket,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use crate::process::{Home, Outcome};

/// What the fake answers a frame of the client with, after the response's `type` and `id`.
type Answer = dyn Fn(&str, &Value) -> Vec<Value> + Send + Sync;

/// A fake stock gateway. It ends with the test process.
pub(crate) struct Stock {
    pub(crate) port: u16,
    connects: Arc<Mutex<Vec<Value>>>,
}

impl Stock {
    /// Answers every request, `connect` among them, with what `answer` makes of method and params.
    pub(crate) fn new(answer: impl Fn(&str, &Value) -> Vec<Value> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let port = listener.local_addr().expect("a listener has an address").port();
        let (connects, answer): (_, Arc<Answer>) = (Arc::new(Mutex::new(Vec::new())), Arc::new(answer));
        let seen = Arc::clone(&connects);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                thread::spawn(move || serve(stream, &seen, &*answer));
            }
        });
        Self { port, connects }
    }

    /// Refuses every handshake.
    fn refusing(error: Value) -> Self {
        Self::new(move |_, _| vec![json!({ "ok": false, "error": error })])
    }

    fn run(&self, args: &[&str]) -> Outcome {
        let url = format!("ws://127.0.0.1:{}", self.port);
        Home::new().run([&["gateway"], args, &["--url", &url, "--token", "secret"]].concat())
    }

    /// The params of the last `connect`.
    pub(crate) fn connect(&self) -> Value {
        self.connects.lock().expect("no thread panics with the lock").last().expect("one came").clone()
    }
}

fn serve(stream: TcpStream, connects: &Mutex<Vec<Value>>, answer: &Answer) {
    let Ok(mut socket) = tungstenite::accept(stream) else { return };
    let challenge = json!({
        "type": "event", "event": "connect.challenge",
        "payload": { "nonce": "47d67b1e", "ts": 1_795_337_963_058_u64, "capabilities": [] },
    });
    send(&mut socket, &challenge);
    while let Ok(message) = socket.read() {
        let Ok(request) = serde_json::from_str::<Value>(message.to_text().unwrap_or_default()) else {
            continue;
        };
        let method = request["method"].as_str().unwrap_or_default();
        if method == "connect" {
            connects.lock().expect("no thread panics with the lock").push(request["params"].clone());
        }
        for mut response in answer(method, &request["params"]) {
            let refused = method == "connect" && response["ok"] == false;
            response["type"] = json!("res");
            response["id"] = request["id"].clone();
            send(&mut socket, &response);
            if refused {
                let frame = CloseFrame { code: CloseCode::Policy, reason: "refused".into() };
                let _ = socket.close(Some(frame));
            }
        }
    }
}

fn send(socket: &mut WebSocket<TcpStream>, frame: &Value) {
    // A client that has left reads nothing.
    let _ = socket.send(Message::text(frame.to_string()));
}

/// Welcomes everybody and echoes; `agent` ends in `outcome`.
fn welcoming(outcome: Value) -> Stock {
    Stock::new(move |method, params| match method {
        "connect" => vec![json!({ "ok": true, "payload": {
            "type": "hello-ok", "protocol": 4, "server": { "version": "2026.9.6", "connId": "c" },
            "policy": { "tickIntervalMs": 30_000 },
        } })],
        "agent" => {
            let ack =
                json!({ "ok": true, "payload": { "runId": params["idempotencyKey"], "status": "accepted" } });
            vec![ack, outcome.clone()]
        }
        _ => vec![json!({ "ok": true, "payload": { "method": method, "params": params } })],
    })
}

#[test]
fn a_call_asks_for_the_right_that_it_needs_and_for_all_when_nothing_is_known() {
    let stock = welcoming(json!({}));
    for (args, scopes) in [
        (&["call", "health"][..], json!([])),
        (&["call", "logs.tail", "limit=5"], json!(["operator.read"])),
        (&["call", "agent", "message=/new"], json!(["operator.admin"])),
        (&["call", "cron.list", "--params", r#"{"limit":1}"#], json!(["operator.admin"])),
    ] {
        stock.run(args).ok();
        let connect = stock.connect();
        assert_eq!(connect["scopes"], scopes, "{args:?}");
        assert_eq!((&connect["client"]["id"], &connect["client"]["mode"]), (&json!("cli"), &json!("cli")));
        assert_eq!(connect.get("device"), None, "a secret on loopback needs no device");
    }
    let answer = stock.run(&["call", "cron.list", "--params", r#"{"limit":1}"#, "--json"]).json(0);
    assert_eq!(answer, json!({ "method": "cron.list", "params": { "limit": 1 } }));
}

#[test]
fn the_end_of_a_run_is_the_end_of_the_command() {
    let good =
        welcoming(json!({ "ok": true, "payload": { "runId": "k", "status": "ok", "summary": "completed" } }));
    let outcome = good.run(&["call", "agent", "--message", "hi", "--expect-final", "--json"]).json(0);
    assert_eq!(outcome["summary"], "completed");
    let bad = welcoming(json!({
        "ok": false, "payload": { "runId": "k", "status": "error", "summary": "no model" },
        "error": { "code": "UNAVAILABLE", "message": "no model" },
    }));
    let outcome = bad.run(&["call", "agent", "--message", "hi", "--expect-final", "--json"]).json(1);
    assert_eq!((&outcome["status"], &outcome["error"]["code"]), (&json!("error"), &json!("UNAVAILABLE")));
    let words = bad.run(&["call", "agent", "--message", "hi", "--expect-final"]);
    assert!(words.stderr.contains("error: the run failed\n  no model"), "{words:?}");
}

#[test]
fn a_refused_handshake_ends_with_the_exit_of_its_kind() {
    let wrong = Stock::refusing(json!({
        "code": "INVALID_REQUEST", "message": "unauthorized: gateway token mismatch",
        "details": { "code": "AUTH_TOKEN_MISMATCH", "authReason": "token_mismatch" },
    }));
    let error = wrong.run(&["call", "health", "--json"]).json(4);
    assert_eq!(error["error"]["code"], "UNAUTHORIZED");
    assert_eq!(error["error"]["details"]["code"], "AUTH_TOKEN_MISMATCH");
    assert!(wrong.run(&["call", "health"]).stderr.contains("hint: pass the gateway's own token"));

    let pairing = Stock::refusing(json!({
        "code": "NOT_PAIRED", "message": "pairing required: device is not approved yet",
        "details": { "code": "PAIRING_REQUIRED", "reason": "not-paired", "requestId": "dad7dfad" },
    }));
    let words = pairing.run(&["call", "health"]);
    assert_eq!(words.code, Some(4));
    assert!(words.stderr.contains("openclaw devices approve dad7dfad"), "{words:?}");
    assert!(!words.stderr.contains("hint:"), "{words:?}");
    assert!(
        pairing.connect()["device"]["signature"].is_string(),
        "a gateway that asks for a device is shown one"
    );

    let newer = Stock::refusing(json!({
        "code": "INVALID_REQUEST", "message": "protocol mismatch",
        "details": { "code": "PROTOCOL_MISMATCH", "expectedProtocol": 5 },
    }));
    let error = newer.run(&["call", "health", "--json"]).json(6);
    let message = error["error"]["message"].as_str().expect("a message is a text");
    assert!(message.contains("protocol 5; this client speaks 3 to 4"), "{message}");
}
