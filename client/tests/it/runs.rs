//! Two-phase calls and runs.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::StreamExt as _;
use openclaw_client::{AgentRequest, Client, Error, RunEvent, new_idempotency_key};
use openclaw_schema::{
    events::ChatState,
    methods::agent::{AckStatus, RunStatus},
};
use serde_json::{Value, json};

use crate::servers::{Peer, gateway, http_answer, http_server, raw};

fn outcome(run: &Value) -> Value {
    json!({ "runId": run, "status": "ok", "summary": "completed" })
}

/// A run that ends when it is waited for the second time.
async fn echo_agent(mut peer: Peer) {
    let mut waits = 0;
    let mut seq = 0;
    let mut run = json!("");
    while let Some(request) = peer.request().await {
        match request["method"].as_str().expect("a method is a text") {
            "events.subscribe" => {
                assert_eq!(request["params"]["events"], json!(["agent", "chat"]));
                run = request["params"]["runId"].clone();
                peer.answer(&request, json!(7)).await;
            }
            "agent" => {
                assert_eq!(
                    request["params"]["idempotencyKey"], run,
                    "the events were not subscribed to first"
                );
                let mut item = |event: &str, payload: Value| {
                    seq += 1;
                    json!({ "event": event, "seq": seq, "payload": payload })
                };
                let agent = |stream: &str, data: Value| json!({ "runId": run, "seq": 1, "stream": stream, "ts": 1, "data": data });
                let chat = |state: &str| json!({ "runId": run, "sessionKey": "s", "seq": 1, "state": state, "deltaText": "hel" });
                // The first event overtakes the acknowledgement.
                peer.item(7, item("agent", agent("lifecycle", json!({ "phase": "start" })))).await;
                peer.answer(&request, json!({ "runId": run, "status": "accepted" })).await;
                peer.item(7, item("chat", chat("delta"))).await;
                peer.item(7, item("later", json!(1))).await;
                peer.item(7, item("chat", chat("final"))).await;
                peer.item(7, item("agent", agent("lifecycle", json!({ "phase": "end" })))).await;
            }
            "agent.wait" => {
                waits += 1;
                assert_eq!(request["params"]["runId"], run);
                let result = if waits == 1 {
                    json!({ "runId": run, "status": "timeout" })
                } else {
                    json!({ "runId": run, "status": "ok", "final": outcome(&run) })
                };
                peer.answer(&request, result).await;
            }
            "agent.abort" => peer.answer(&request, json!({ "runId": run, "aborted": false })).await,
            _ => peer.answer(&request, json!(true)).await,
        }
    }
}

#[tokio::test]
async fn a_run_has_ack_events_and_outcome() {
    let client = gateway(echo_agent).await.client().await;
    let params = AgentRequest::new("hello").session_key("main").build().expect("the texts are within bounds");
    let key = params.idempotency_key.to_string();
    let mut run = client.run_agent(params).await.expect("the server answers");
    assert_eq!((run.ack().run_id.as_str(), run.ack().status), (key.as_str(), AckStatus::Accepted));
    let mut seen = Vec::new();
    while let Some(event) = run.events().next().await {
        seen.push(match event.expect("the events are sound") {
            RunEvent::Agent(event) => event.data["phase"].as_str().expect("the phase is a text").to_owned(),
            RunEvent::Chat(event) if event.state == ChatState::Delta => "delta".to_owned(),
            RunEvent::Chat(_) => "final".to_owned(),
            RunEvent::Gap => panic!("nothing is lost"),
        });
    }
    assert_eq!(seen, ["start", "delta", "final", "end"]);
    let outcome = run.outcome().await.expect("the server answers");
    assert_eq!((outcome.run_id, outcome.status), (key, RunStatus::Ok));
    assert!(!run.abort().await.expect("the server answers"), "it has ended already");
}

#[tokio::test]
async fn events_of_a_run_end_soon_after_its_conversation() {
    let server = gateway(|mut peer: Peer| async move {
        let subscribe = peer.request().await.expect("a request came");
        peer.answer(&subscribe, json!(7)).await;
        let agent = peer.request().await.expect("a request came");
        peer.answer(&agent, json!({ "runId": "k", "status": "in_flight" })).await;
        let chat = json!({ "runId": "k", "sessionKey": "s", "seq": 1, "state": "aborted" });
        peer.item(7, json!({ "event": "chat", "seq": 1, "payload": chat })).await;
        peer.hold().await;
    })
    .await;
    let params =
        AgentRequest::new("hello").idempotency_key("k").build().expect("the texts are within bounds");
    let mut run = server.client().await.run_agent(params).await.expect("the server answers");
    run.events().next().await.expect("an event comes").expect("it is sound");
    assert!(run.events().next().await.is_none());
}

#[tokio::test]
async fn call_final_hands_out_the_ack_and_polls_over_http_too() {
    let waits = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&waits);
    let address = http_server(move |_, body| {
        let request: Value = serde_json::from_str(body).expect("clients send JSON");
        let answer = |result: Value| json!({ "jsonrpc": "2.0", "id": request["id"], "result": result });
        let late = json!({ "code": -32023, "message": "late", "data": { "code": "DEADLINE_EXCEEDED", "retryable": true } });
        let answer = match (request["method"].as_str(), counted.load(Ordering::Relaxed)) {
            (Some("agent"), _) => answer(json!({ "runId": "k", "status": "accepted" })),
            (Some("agent.wait"), wait) => {
                counted.store(wait + 1, Ordering::Relaxed);
                assert_eq!(request["params"], json!({ "runId": "k", "timeoutMs": 15_000 }));
                match wait {
                    0 => answer(json!({ "runId": "k", "status": "timeout" })),
                    1 => json!({ "jsonrpc": "2.0", "id": request["id"], "error": late }),
                    _ => answer(json!({ "runId": "k", "status": "ok", "final": { "kept": [1, 2] } })),
                }
            }
            other => panic!("{other:?} was called"),
        };
        http_answer("200 OK", &answer)
    })
    .await;
    let client = Client::connect(&format!("http://{address}"), None).await.expect("nothing is sent yet");
    let params = raw(&json!({ "message": "hello", "idempotencyKey": "k" }));
    let mut ack = None;
    let result = client
        .call_final("agent", "agent.wait", params, |raw| ack = Some(raw.get().to_owned()))
        .await
        .expect("the server answers");
    assert_eq!(result.get(), r#"{"kept":[1,2]}"#);
    assert_eq!(ack.as_deref(), Some(r#"{"runId":"k","status":"accepted"}"#));
    assert_eq!(waits.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn a_run_over_http_has_no_events_but_an_outcome() {
    let address = http_server(|_, body| {
        let request: Value = serde_json::from_str(body).expect("clients send JSON");
        let result = if request["method"] == "agent" {
            json!({ "runId": "k", "status": "accepted" })
        } else {
            json!({ "runId": "k", "status": "ok", "final": outcome(&json!("k")) })
        };
        http_answer("200 OK", &json!({ "jsonrpc": "2.0", "id": request["id"], "result": result }))
    })
    .await;
    let client = Client::connect(&format!("http://{address}"), None).await.expect("nothing is sent yet");
    let params = AgentRequest::new("hello").build().expect("the texts are within bounds");
    let mut run = client.run_agent(params).await.expect("the server answers");
    let error = run.events().next().await.expect("it says why").expect_err("there are no events");
    assert!(error.to_string().contains("not available over HTTP"), "{error}");
    assert!(run.events().next().await.is_none());
    assert_eq!(run.outcome().await.expect("the server answers").summary, "completed");
}

#[test]
fn a_request_makes_a_key_and_keeps_the_bounds() {
    let first = AgentRequest::new("hello").build().expect("the texts are within bounds");
    let second = AgentRequest::new("hello").build().expect("the texts are within bounds");
    assert_ne!(first.idempotency_key, second.idempotency_key);
    assert_eq!(new_idempotency_key().len(), 36);
    let error = AgentRequest::new("").build().expect_err("a message has a length");
    assert!(matches!(error, Error::InvalidInput { .. }), "{error:?}");
    assert_eq!(error.to_string(), "invalid agent params at /message: must not be empty");
}
