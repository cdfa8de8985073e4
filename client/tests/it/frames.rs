//! OpenClaw frames: the handshake of protocols 4 and 3, calls, both responses of two-phase calls, events, how
//! connections end. The fakes say what wire.md recorded of stock gateways.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt as _;
use jsonrpsee::core::{
    client::{ClientT as _, SubscriptionClientT as _},
    params::{ArrayParams, BatchRequestBuilder},
};
use openclaw_client::{
    AgentRequest, Client, Error, ErrorCode, Event, RunEvent, Scope, SecretString, TimeoutKind, TransportKind,
};
use openclaw_schema::{
    client::LogsClient as _,
    events::EventName,
    methods::{
        agent::{AckStatus, RunStatus},
        events::EventsSubscribeParams,
        logs::LogsTailParams,
    },
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

use crate::servers::{Peer, Server, TOKEN, assert_locked_out, raw, server};

const NONCE: &str = "e23ecc68-6e2c-4a19-8c24-65852e98f4e1";

/// A gateway that speaks frames: it echoes the subprotocol, and sends no header of ours.
pub(crate) async fn stock<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(Peer) -> F + Clone + Send + Sync + 'static,
) -> Server {
    server(&[], serve).await
}

/// The first frame of a gateway, and the `connect` that it is answered with.
pub(crate) async fn challenged(peer: &mut Peer, protocol: u64) -> Option<Value> {
    let mut payload = json!({ "nonce": NONCE, "ts": 1_795_339_864_269_u64 });
    if protocol == 4 {
        payload["capabilities"] = json!(["model-catalog-snapshot"]);
    }
    peer.send(&json!({ "type": "event", "event": "connect.challenge", "payload": payload })).await;
    let connect = peer.request().await?;
    assert_eq!((&connect["type"], &connect["method"]), (&json!("req"), &json!("connect")));
    Some(connect)
}

pub(crate) fn hello(protocol: u64) -> Value {
    json!({
        "type": "hello-ok", "protocol": protocol, "server": { "version": "2026.9.6", "connId": "c" },
        "features": { "methods": [], "events": [] },
        "snapshot": { "presence": [], "health": {}, "stateVersion": { "presence": 1, "health": 1 }, "uptimeMs": 1 },
        "auth": { "role": "operator", "scopes": [] },
        "policy": { "maxPayload": 26_214_400, "maxBufferedBytes": 52_428_800, "tickIntervalMs": 30_000 },
    })
}

pub(crate) fn ok(request: &Value, payload: &Value) -> Value {
    json!({ "type": "res", "id": request["id"], "ok": true, "payload": payload })
}

pub(crate) fn refusal(request: &Value, error: &Value) -> Value {
    json!({ "type": "res", "id": request["id"], "ok": false, "error": error })
}

pub(crate) fn event(name: &str, seq: u64, payload: &Value) -> Value {
    json!({ "type": "event", "event": name, "seq": seq, "payload": payload })
}

/// Agrees to the handshake; answers what was asked for.
pub(crate) async fn welcome(peer: &mut Peer, protocol: u64) -> Value {
    let connect = challenged(peer, protocol).await.expect("a client connects");
    peer.send(&ok(&connect, &hello(protocol))).await;
    connect["params"].clone()
}

async fn echo(mut peer: Peer) {
    welcome(&mut peer, 4).await;
    while let Some(request) = peer.request().await {
        let seen = json!({ "method": request["method"], "params": request["params"] });
        peer.send(&ok(&request, &seen)).await;
    }
}

/// A gateway that refuses every handshake with `error` and closes with `code`.
async fn refusing(error: Value, code: u16, reason: &'static str) -> Server {
    stock(move |mut peer| {
        let error = error.clone();
        async move {
            let Some(connect) = challenged(&mut peer, 4).await else { return };
            peer.send(&refusal(&connect, &error)).await;
            peer.close(CloseCode::from(code), reason).await;
        }
    })
    .await
}

#[tokio::test]
async fn the_handshake_asks_for_protocols_scopes_and_shows_the_secret_in_both_fields() {
    let (told, mut connects) = mpsc::unbounded_channel();
    let server = stock(move |mut peer| {
        let told = told.clone();
        async move {
            told.send(welcome(&mut peer, 4).await).expect("the test waits");
            peer.hold().await;
        }
    })
    .await;
    let client = server.client().await;
    assert_eq!(client.server_version(), Some("2026.9.6"));
    let params = connects.recv().await.expect("a client connected");
    assert_eq!((&params["minProtocol"], &params["maxProtocol"]), (&json!(3), &json!(4)));
    assert_eq!(params["client"]["id"], "gateway-client");
    assert_eq!(params["client"]["mode"], "backend");
    assert_eq!(params["role"], "operator");
    assert_eq!(params["auth"], json!({ "token": TOKEN, "password": TOKEN }));
    assert_eq!(params["scopes"][2], "operator.admin");
    assert_eq!(params.get("device"), None);

    let builder = server.builder().scopes([Scope::OperatorRead]).asked_scopes([Scope::None]);
    let builder = builder.client_kind("cli", "cli").client_version("1.2.3", "linux");
    let _client = builder.connect().await.expect("the server agrees");
    let params = connects.recv().await.expect("a client connected");
    assert_eq!(params["scopes"], json!([]));
    assert_eq!(
        params["client"],
        json!({ "id": "cli", "mode": "cli", "version": "1.2.3", "platform": "linux" })
    );
}

#[tokio::test]
async fn a_header_that_says_frames_means_frames_and_another_one_is_a_mismatch() {
    let ours = server(&[("openclaw-dialect", "frames"), ("openclaw-gateway", "0.1.0")], echo).await;
    assert_eq!(ours.client().await.server_version(), Some("0.1.0"));
    let other = server(&[("openclaw-dialect", "smoke")], Peer::hold).await;
    let error = other.builder().connect().await.expect_err("it speaks something else");
    assert!(error.to_string().contains("dialect `smoke`"), "{error}");
}

#[tokio::test]
async fn typed_calls_calls_by_name_batches_and_notifications_work() {
    let server = stock(|mut peer: Peer| async move {
        welcome(&mut peer, 4).await;
        while let Some(request) = peer.request().await {
            let result = if request["method"] == "logs.tail" {
                assert_eq!(request["params"], json!({}));
                json!({ "file": "/log", "cursor": 2, "size": 2, "lines": ["{}"], "truncated": false, "reset": false })
            } else {
                request["params"].clone()
            };
            peer.send(&ok(&request, &result)).await;
        }
    })
    .await;
    let client = server.client().await;
    let tail = client.logs_tail(LogsTailParams::default()).await.expect("the server answers");
    assert_eq!(tail.lines, ["{}"]);
    client.notification("wake", ArrayParams::new()).await.expect("it is sent");
    let sessions =
        client.call("sessions.list", raw(&json!({ "limit": 1 }))).await.expect("the server answers");
    assert_eq!(sessions.get(), r#"{"limit":1}"#);
    let mut batch = BatchRequestBuilder::new();
    for number in 0..3 {
        let mut params = ArrayParams::new();
        params.insert(json!({ "number": number })).expect("it serialises");
        batch.insert("any", params).expect("it serialises");
    }
    let answers = client.batch_request::<Value>(batch).await.expect("the server answers");
    let numbers: Vec<_> =
        answers.into_ok().expect("all succeed").map(|answer| answer["number"].clone()).collect();
    assert_eq!(numbers, [json!(0), json!(1), json!(2)]);
    client.close().await;
}

#[tokio::test]
async fn a_refusal_keeps_code_message_and_details() {
    let server = stock(|mut peer: Peer| async move {
        welcome(&mut peer, 4).await;
        while let Some(request) = peer.request().await {
            let error = json!({
                "code": "FORBIDDEN", "message": "missing scope: operator.write",
                "details": { "code": "MISSING_SCOPE", "missingScope": "operator.write", "requiredScopes": ["operator.write"] },
            });
            peer.send(&refusal(&request, &error)).await;
        }
    })
    .await;
    let client = server.client().await;
    let error = client.call("wake", raw(&json!({}))).await.expect_err("it is refused");
    assert_eq!((error.code(), error.is_retryable()), (Some(ErrorCode::Forbidden), false));
    assert_eq!(error.to_string(), "missing scope: operator.write (FORBIDDEN)");
    let Error::Refused(refusal) = error else { panic!("{error:?}") };
    assert_eq!(refusal.details().expect("they are declared").missing_scope, Some(Scope::OperatorWrite));
    let data: Value = serde_json::from_str(refusal.data.expect("there is data").get()).expect("it is JSON");
    assert_eq!(data["details"]["code"], "MISSING_SCOPE");
}

#[tokio::test]
async fn protocol_3_works_and_its_auth_errors_without_details_are_understood() {
    let server = stock(|mut peer: Peer| async move {
        welcome(&mut peer, 3).await;
        let request = peer.request().await.expect("a request came");
        for seq in [7, 12] {
            peer.send(&event("tick", seq, &json!({ "ts": 1 }))).await;
        }
        peer.send(&ok(&request, &json!({ "ok": true }))).await;
        peer.hold().await;
    })
    .await;
    let client = server.client().await;
    let mut events = client.events(EventsSubscribeParams::default()).await.expect("no call is needed");
    client.call("health", raw(&json!({}))).await.expect("the server answers");
    for seq in 1..=2 {
        let item = events.next().await.expect("an item comes").expect("it is one");
        let Event::Received(item) = item else { panic!("{item:?}") };
        assert_eq!((item.seq, item.missed), (seq, None));
    }

    let message = "unauthorized: gateway token mismatch (provide gateway auth token)";
    let server = refusing(json!({ "code": "INVALID_REQUEST", "message": message }), 1008, message).await;
    let error = server.builder().connect().await.expect_err("the token is wrong");
    assert_eq!((error.code(), error.to_string().as_str()), (Some(ErrorCode::Unauthorized), message));

    let old = json!({ "code": "INVALID_REQUEST", "message": "protocol mismatch", "details": { "expectedProtocol": 2 } });
    let error = refusing(old, 1002, "protocol mismatch").await.builder().connect().await;
    let error = error.expect_err("it is too old");
    assert!(matches!(error, Error::ProtocolMismatch { .. }), "{error:?}");
    assert!(error.to_string().contains("protocol 2; this client speaks 3 to 4"), "{error}");
}

#[tokio::test]
async fn refused_handshakes_say_whose_fault_it_is() {
    let refused = |error: Value| async move {
        refusing(error, 1008, "refused").await.builder().connect().await.expect_err("it is refused")
    };
    for code in ["AUTH_TOKEN_MISMATCH", "AUTH_PASSWORD_MISSING", "DEVICE_AUTH_SIGNATURE_EXPIRED"] {
        let details = json!({ "code": code, "authReason": "x" });
        let error =
            refused(json!({ "code": "INVALID_REQUEST", "message": "no", "details": details.clone() })).await;
        let Error::Unauthorized { message, details: kept } = error else { panic!("{code}: {error:?}") };
        assert_eq!(
            (message.as_str(), kept.expect("they are kept").get()),
            ("no", details.to_string().as_str())
        );
    }
    // Protocol 3 gives no details.
    for details in [json!({ "code": "AUTH_RATE_LIMITED", "authReason": "rate_limited" }), Value::Null] {
        let error = json!({
            "code": "INVALID_REQUEST", "details": details, "retryable": true, "retryAfterMs": 299_500,
            "message": "unauthorized: too many failed authentication attempts (retry later)",
        });
        assert_locked_out(&refused(error).await);
    }
    let pairing = refused(json!({
        "code": "NOT_PAIRED", "message": "pairing required: device is not approved yet",
        "details": { "code": "PAIRING_REQUIRED", "reason": "not-paired", "requestId": "dad7dfad" },
    }))
    .await;
    assert_eq!(pairing.code(), Some(ErrorCode::Unauthorized));
    assert!(pairing.to_string().contains("approve dad7dfad"), "{pairing}");
    let device = refused(json!({
        "code": "NOT_PAIRED", "message": "device identity required", "details": { "code": "DEVICE_IDENTITY_REQUIRED" },
    }))
    .await;
    assert!(device.to_string().contains("paired device"), "{device}");
    let schema =
        refused(json!({ "code": "INVALID_REQUEST", "message": "invalid connect params: at /x: no" })).await;
    assert_eq!(schema.code(), Some(ErrorCode::InvalidRequest));
}

#[tokio::test]
async fn a_close_without_an_answer_keeps_code_and_reason() {
    let server = stock(|mut peer: Peer| async move {
        challenged(&mut peer, 4).await;
        peer.close(CloseCode::Policy, "invalid-handshake").await;
    })
    .await;
    let error = server.builder().connect().await.expect_err("it closes");
    let Error::Transport { kind, reason, .. } = error else { panic!("{error:?}") };
    assert_eq!((kind, reason.as_str()), (TransportKind::Closed { code: Some(1008) }, "invalid-handshake"));
}

#[tokio::test]
async fn a_gateway_that_is_starting_is_tried_again_until_the_limit() {
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&attempts);
    let server = stock(move |mut peer| {
        let attempt = counted.fetch_add(1, Ordering::Relaxed);
        async move {
            if attempt == 2 {
                return echo(peer).await;
            }
            let connect = challenged(&mut peer, 4).await.expect("a client connects");
            let error = json!({
                "code": "UNAVAILABLE", "message": "gateway starting; retry shortly",
                "details": { "reason": "startup-sidecars" }, "retryable": true, "retryAfterMs": 1,
            });
            peer.send(&refusal(&connect, &error)).await;
            peer.close(CloseCode::Again, "gateway starting").await;
        }
    })
    .await;
    server.client().await.call("health", raw(&json!({}))).await.expect("it has started");
    assert_eq!(attempts.load(Ordering::Relaxed), 3);

    let error = json!({ "code": "UNAVAILABLE", "message": "gateway starting", "retryable": true, "retryAfterMs": 60_000 });
    let error = refusing(error, 1013, "gateway starting").await.builder().connect().await;
    let error = error.expect_err("it takes too long");
    assert_eq!((error.code(), error.is_retryable()), (Some(ErrorCode::Unavailable), true));
}

#[tokio::test]
async fn what_speaks_websocket_but_sends_no_challenge_is_no_gateway() {
    let chatty = stock(|mut peer: Peer| async move {
        peer.send(&json!({ "hello": "there" })).await;
        peer.hold().await;
    })
    .await;
    let error = chatty.builder().connect().await.expect_err("it is no gateway");
    assert!(matches!(error, Error::ProtocolMismatch { .. }), "{error:?}");
    let limit = Duration::from_millis(50);
    let error = stock(Peer::hold).await.builder().connect_timeout(limit).connect().await;
    let Err(Error::Timeout { what, .. }) = error else { panic!("{error:?}") };
    assert_eq!(what, TimeoutKind::Handshake);
}

#[tokio::test]
async fn a_device_is_shown_when_the_gateway_asks_and_its_token_is_used_again() {
    let (told, mut connects) = mpsc::unbounded_channel();
    let server = stock(move |mut peer| {
        let told = told.clone();
        async move {
            let Some(connect) = challenged(&mut peer, 4).await else { return };
            let params = connect["params"].clone();
            let known = params["auth"]["token"] == "device-token" && params["auth"].get("password").is_none();
            if params.get("device").is_none() {
                let error = json!({
                    "code": "NOT_PAIRED", "message": "device identity required",
                    "details": { "code": "DEVICE_IDENTITY_REQUIRED" },
                });
                peer.send(&refusal(&connect, &error)).await;
            } else if params["auth"]["token"] == TOKEN || known {
                let mut hello = hello(4);
                hello["auth"]["deviceToken"] = json!("device-token");
                peer.send(&ok(&connect, &hello)).await;
            } else {
                let error = json!({
                    "code": "INVALID_REQUEST", "message": "unauthorized: gateway token missing",
                    "details": { "code": "AUTH_TOKEN_MISSING" },
                });
                peer.send(&refusal(&connect, &error)).await;
            }
            told.send(params).expect("the test waits");
            peer.hold().await;
        }
    })
    .await;
    let home = tempfile::tempdir().expect("there is room");
    let dir = home.path().join("identity");
    let nobody = || Client::builder(server.url()).device_identity(&dir);

    let error = nobody().connect().await.expect_err("nobody is paired yet");
    assert_eq!(error.code(), Some(ErrorCode::Unauthorized));
    let unknown = connects.recv().await.expect("a client connected");
    assert_eq!((unknown.get("auth"), unknown["device"]["nonce"].as_str()), (None, Some(NONCE)));

    nobody().credential(SecretString::from(TOKEN)).connect().await.expect("the secret is right");
    let first = connects.recv().await.expect("a client connected");
    assert_eq!(first.get("device"), None, "a secret on loopback needs no device");
    let second = connects.recv().await.expect("a client connected");
    assert_eq!(second["device"]["id"], unknown["device"]["id"]);

    nobody().connect().await.expect("the device token is used");
    let third = connects.recv().await.expect("a client connected");
    assert_eq!(third["auth"], json!({ "token": "device-token" }));
}

#[tokio::test]
async fn the_second_response_is_the_outcome_and_nothing_is_polled() {
    let server = stock(|mut peer: Peer| async move {
        welcome(&mut peer, 4).await;
        while let Some(request) = peer.request().await {
            assert_eq!(request["method"], "agent");
            let run = &request["params"]["idempotencyKey"];
            peer.send(&ok(&request, &json!({ "runId": run, "status": "accepted", "acceptedAt": 1 }))).await;
            let agent = json!({ "runId": run, "seq": 1, "stream": "lifecycle", "ts": 1, "data": { "phase": "start" } });
            peer.send(&event("agent", 1, &agent)).await;
            let end = json!({ "runId": run, "seq": 2, "stream": "lifecycle", "ts": 1, "data": { "phase": "end" } });
            peer.send(&event("agent", 2, &end)).await;
            peer.send(&ok(&request, &json!({ "runId": run, "status": "ok", "summary": "completed" }))).await;
            // For nobody.
            peer.send(&ok(&request, &json!({ "again": true }))).await;
        }
    })
    .await;
    let client = server.client().await;
    let mut ack = None;
    let params = raw(&json!({ "message": "hi", "idempotencyKey": "k" }));
    let outcome = client
        .call_final("agent", "agent.wait", params, |raw| ack = Some(raw.get().to_owned()))
        .await
        .expect("the server answers");
    assert_eq!(outcome.get(), r#"{"runId":"k","status":"ok","summary":"completed"}"#);
    assert_eq!(ack.as_deref(), Some(r#"{"runId":"k","status":"accepted","acceptedAt":1}"#));

    let params = AgentRequest::new("hi").build().expect("the texts are within bounds");
    let mut run = client.run_agent(params).await.expect("the server answers");
    assert_eq!(run.ack().status, AckStatus::Accepted);
    for phase in ["start", "end"] {
        let Some(Ok(RunEvent::Agent(event))) = run.events().next().await else { panic!("no {phase}") };
        assert_eq!(event.data["phase"], phase);
    }
    for _ in 0..2 {
        let outcome = run.outcome().await.expect("the server answers");
        assert_eq!((outcome.status, outcome.summary.as_str()), (RunStatus::Ok, "completed"));
    }
    // An outcome that nobody waits for, and responses to no call, do no harm.
    let params = raw(&json!({ "message": "hi", "idempotencyKey": "k2" }));
    client.call("agent", params.clone()).await.expect("the server answers");
    client.call("agent", params).await.expect("the connection stands");
}

#[tokio::test]
async fn a_failed_run_has_its_outcome_and_the_error_in_it() {
    let server = stock(|mut peer: Peer| async move {
        welcome(&mut peer, 4).await;
        while let Some(request) = peer.request().await {
            let failed = json!({
                "type": "res", "id": request["id"], "ok": false,
                "payload": { "runId": "k", "status": "error", "summary": "no model" },
                "error": { "code": "UNAVAILABLE", "message": "no model" },
            });
            if request["params"]["message"] == "again" {
                peer.send(&failed).await;
                continue;
            }
            peer.send(&ok(&request, &json!({ "runId": "k", "status": "accepted" }))).await;
            if request["params"]["message"] == "odd" {
                peer.send(&refusal(&request, &json!({ "code": "UNAVAILABLE", "message": "gone" }))).await;
            } else {
                peer.send(&failed).await;
            }
        }
    })
    .await;
    let client = server.client().await;
    let params = |message: &str| raw(&json!({ "message": message, "idempotencyKey": "k" }));
    for (message, acks) in [("hi", 1), ("again", 0)] {
        let mut seen = 0;
        let outcome = client.call_final("agent", "agent.wait", params(message), |_| seen += 1).await;
        let outcome: Value =
            serde_json::from_str(outcome.expect("a failed run has an outcome").get()).expect("JSON");
        assert_eq!(
            (outcome["status"].as_str(), outcome["error"]["code"].as_str()),
            (Some("error"), Some("UNAVAILABLE"))
        );
        assert_eq!(seen, acks, "{message}");
    }
    let error =
        client.call_final("agent", "agent.wait", params("odd"), |_| ()).await.expect_err("no outcome came");
    assert_eq!(error.to_string(), "gone (UNAVAILABLE)");
    let error = client.call("agent", params("again")).await.expect_err("the call alone is refused");
    let Error::Refused(refusal) = error else { panic!("{error:?}") };
    assert!(refusal.data.expect("there is data").get().contains(r#""payload":{"runId":"k""#));
}

#[tokio::test]
async fn a_run_that_was_started_before_is_waited_for_and_one_that_has_ended_is_answered() {
    let server = stock(|mut peer: Peer| async move {
        welcome(&mut peer, 4).await;
        let mut waits = 0;
        while let Some(request) = peer.request().await {
            let payload = match (request["method"].as_str(), request["params"]["message"].as_str()) {
                (Some("agent"), Some("running")) => json!({ "runId": "k", "status": "in_flight" }),
                (Some("agent"), _) => json!({ "runId": "k", "status": "ok", "summary": "completed" }),
                _ => {
                    waits += 1;
                    // Stock gateways say no `final`.
                    if waits == 1 {
                        json!({ "runId": "k", "status": "timeout" })
                    } else {
                        json!({ "runId": "k", "status": "timeout", "endedAt": 5, "timeoutPhase": "provider" })
                    }
                }
            };
            peer.send(&ok(&request, &payload)).await;
        }
    })
    .await;
    let client = server.client().await;
    let params = |message: &str| raw(&json!({ "message": message, "idempotencyKey": "k" }));
    let outcome = client.call_final("agent", "agent.wait", params("running"), |_| ()).await.expect("it ends");
    assert!(outcome.get().contains("endedAt"), "{outcome}");
    let outcome =
        client.call_final("agent", "agent.wait", params("ended"), |_| ()).await.expect("it has ended");
    assert!(outcome.get().contains("completed"), "{outcome}");
    let params =
        AgentRequest::new("ended").idempotency_key("k").build().expect("the texts are within bounds");
    let mut run = client.run_agent(params).await.expect("the server answers");
    assert_eq!((run.ack().status, run.ack().run_id.as_str()), (AckStatus::Ended, "k"));
    assert!(run.events().next().await.is_none());
    assert_eq!(run.outcome().await.expect("it is there").status, RunStatus::Ok);
}

#[tokio::test]
async fn an_outcome_that_never_comes_fails_with_the_reason_of_the_close() {
    let server = stock(|mut peer: Peer| async move {
        welcome(&mut peer, 4).await;
        let request = peer.request().await.expect("a request came");
        peer.send(&ok(&request, &json!({ "runId": "k", "status": "accepted" }))).await;
        peer.close(CloseCode::Restart, "service restart").await;
    })
    .await;
    let client = server.client().await;
    let params = raw(&json!({ "message": "hi", "idempotencyKey": "k" }));
    let error = client.call_final("agent", "agent.wait", params, |_| ()).await.expect_err("it restarts");
    assert!(error.to_string().contains("service restart (code 1012)"), "{error}");
}

#[tokio::test]
async fn events_come_without_a_call_numbered_filtered_and_with_their_gaps() {
    let server = stock(|mut peer: Peer| async move {
        welcome(&mut peer, 4).await;
        let request = peer.request().await.expect("a request came");
        assert_eq!(request["method"], "go", "no subscription goes over the wire");
        peer.send(&event("tick", 1, &json!({ "ts": 1 }))).await;
        peer.send(&event("presence", 2, &json!({ "presence": [] }))).await;
        peer.send(&json!({ "type": "event", "event": "voicewake.changed", "payload": {} })).await;
        peer.send(&event("tick", 5, &json!({ "ts": 2 }))).await;
        peer.send(&event("tick", 5, &json!({ "ts": 2 }))).await;
        peer.send(&ok(&request, &json!(true))).await;
        peer.close(CloseCode::Restart, "service restart").await;
    })
    .await;
    let client = server.client().await;
    let ticks =
        EventsSubscribeParams { events: Some(vec![EventName::Tick]), ..EventsSubscribeParams::default() };
    let ticks = client.events(ticks).await.expect("no call is needed");
    let all = client.events(EventsSubscribeParams::default()).await.expect("no call is needed");
    drop(client.events(EventsSubscribeParams::default()).await.expect("no call is needed"));
    let mut plain = client.subscribe_to_method::<Value>("tick").await.expect("no call is needed");
    client.call("go", raw(&json!({}))).await.expect("the server answers");
    assert_eq!(plain.next().await.expect("one comes").expect("it is JSON"), json!({ "ts": 1 }));
    let seen = |item: Result<Event, Error>| match item {
        Ok(Event::Received(item)) => (item.event, item.seq),
        Ok(Event::Gap { missed }) => ("gap".to_owned(), missed),
        Ok(other) => panic!("{other:?}"),
        Err(error) => (error.to_string(), 0),
    };
    let ticks: Vec<_> = ticks.map(seen).collect().await;
    let tick = |seq| ("tick".to_owned(), seq);
    assert_eq!(ticks[..4], [tick(1), ("gap".to_owned(), 2), tick(2), tick(3)]);
    assert!(ticks[4].0.contains("service restart (code 1012)"), "{ticks:?}");
    assert_eq!(all.count().await, 7, "five events, one gap, and the end");
}

#[tokio::test]
async fn garbage_and_responses_to_nobody_do_no_harm() {
    let server = stock(|mut peer: Peer| async move {
        welcome(&mut peer, 4).await;
        while let Some(request) = peer.request().await {
            for text in
                ["", "{", "[]", "7", r#"{"type":"res"}"#, r#"{"type":"event"}"#, r#"{"type":"odd","id":1}"#]
            {
                futures_util::SinkExt::send(&mut peer.socket, Message::text(text))
                    .await
                    .expect("the client reads");
            }
            peer.send(&json!({ "type": "res", "id": "unknown", "ok": true })).await;
            peer.send(&json!({ "type": "res", "id": 7, "ok": false, "error": { "code": "X" } })).await;
            peer.send(&json!({ "type": "res", "id": "invalid", "ok": false })).await;
            peer.send(&ok(&request, &json!("fine"))).await;
        }
    })
    .await;
    let client = server.client().await;
    for _ in 0..2 {
        let answer = client.call("health", raw(&json!({}))).await.expect("the connection goes on");
        assert_eq!(answer.get(), "\"fine\"");
    }
}

#[tokio::test]
async fn a_gateway_that_stops_ticking_is_given_up_with_4000() {
    let (told, mut closes) = mpsc::unbounded_channel();
    let server = stock(move |mut peer| {
        let told = told.clone();
        async move {
            let connect = challenged(&mut peer, 4).await.expect("a client connects");
            let mut hello = hello(4);
            hello["policy"]["tickIntervalMs"] = json!(25);
            peer.send(&ok(&connect, &hello)).await;
            peer.send(&event("tick", 1, &json!({ "ts": 1 }))).await;
            while let Some(Ok(message)) = peer.socket.next().await {
                if let Message::Close(Some(frame)) = message {
                    told.send((u16::from(frame.code), frame.reason.to_string())).expect("the test waits");
                }
            }
        }
    })
    .await;
    let client = server.builder().call_timeout(None).connect().await.expect("the server agrees");
    let error = client.call("agent.wait", raw(&json!({ "runId": "k" }))).await.expect_err("it is silent");
    let Error::Transport { kind, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*kind, TransportKind::Closed { code: Some(4000) });
    assert!(error.to_string().contains("not even a tick"), "{error}");
    assert_eq!(closes.recv().await, Some((4000, "tick timeout".to_owned())));
}
