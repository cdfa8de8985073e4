//! JSON-RPC over WebSocket: the upgrade, calls, how connections end, subscriptions.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use jsonrpsee::core::{
    client::ClientT as _,
    params::{ArrayParams, BatchRequestBuilder},
};
use openclaw_client::{Client, Error, ErrorCode, Event, Scope, SecretString, TimeoutKind, TransportKind};
use openclaw_schema::{
    client::{AgentClient as _, LogsClient as _},
    events::EventName,
    methods::{agent::AgentAbortParams, events::EventsSubscribeParams, logs::LogsTailParams},
    types::{Bounded, Text},
};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc};
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

use crate::servers::{
    Peer, TOKEN, assert_locked_out, gateway, http_answer, http_server, locked_out, nobody, raw, unauthorized,
};

/// Answers every request with what it was.
async fn echo(mut peer: Peer) {
    while let Some(request) = peer.request().await {
        let seen = json!({ "method": request["method"], "params": request["params"] });
        peer.answer(&request, seen).await;
    }
}

fn tail() -> Value {
    json!({ "file": "/log", "cursor": 2, "size": 2, "lines": ["{}"], "truncated": false, "reset": false })
}

#[tokio::test]
async fn the_upgrade_carries_credential_limit_scopes_and_subprotocol() {
    let server = gateway(echo).await;
    let client = server
        .builder()
        .call_timeout(Some(Duration::from_millis(1500)))
        .scopes([Scope::OperatorRead, Scope::OperatorWrite])
        .connect()
        .await
        .expect("the server accepts");
    let upgrade = server.upgrade();
    assert_eq!(upgrade["authorization"], format!("Bearer {TOKEN}"));
    assert_eq!(upgrade["openclaw-timeout-ms"], "1500");
    assert_eq!(upgrade["openclaw-scopes"], "operator.read,operator.write");
    assert_eq!(upgrade["sec-websocket-protocol"], "jsonrpc");
    assert_eq!(upgrade["host"], server.address.to_string());
    assert_eq!(client.server_version(), Some("0.1.0"));
}

#[tokio::test]
async fn nothing_prints_the_credential() {
    let server = gateway(echo).await;
    let client = server.client().await;
    let printed = format!("{:?} {:?}", server.builder(), client);
    assert!(!printed.contains(TOKEN), "{printed}");
    let unsendable = Client::connect(&server.url(), Some(SecretString::from("hunter2\n"))).await;
    let printed = format!("{:?}", unsendable.expect_err("a header has no line breaks"));
    assert!(printed.contains("InvalidInput") && !printed.contains(TOKEN), "{printed}");
}

#[tokio::test]
async fn typed_calls_and_calls_by_name_send_the_params_object() {
    let (told, mut requests) = mpsc::unbounded_channel();
    let server = gateway(move |mut peer| {
        let told = told.clone();
        async move {
            while let Some(request) = peer.request().await {
                peer.answer(&request, tail()).await;
                told.send(request).expect("the test waits");
            }
        }
    })
    .await;
    let client = server.client().await;

    let params = LogsTailParams { since_ms: Bounded::new(60_000), ..LogsTailParams::default() };
    let result = client.logs_tail(params).await.expect("the server answers");
    assert_eq!(result.lines, ["{}"]);
    let typed = requests.recv().await.expect("a request came");
    assert_eq!((&typed["method"], &typed["params"]), (&json!("logs.tail"), &json!({ "sinceMs": 60_000 })));

    let result = client.call("logs.tail", raw(&json!({ "limit": 1 }))).await.expect("the server answers");
    assert_eq!(serde_json::from_str::<Value>(result.get()).expect("a result is JSON"), tail());
    assert_eq!(requests.recv().await.expect("a request came")["params"], json!({ "limit": 1 }));

    client.call("plugin.unknown", raw(&json!({ "x": [1] }))).await.expect("unknown methods are called");
    assert_eq!(requests.recv().await.expect("a request came")["method"], "plugin.unknown");
}

#[tokio::test]
async fn params_of_several_parts_stay_an_array() {
    let client = gateway(echo).await.client().await;
    let mut two = ArrayParams::new();
    two.insert(json!({ "a": 1 })).expect("JSON serialises");
    two.insert(json!({ "b": 2 })).expect("JSON serialises");
    let seen: Value = client.request("any", two).await.expect("the server answers");
    assert_eq!(seen["params"], json!([{ "a": 1 }, { "b": 2 }]));
}

#[tokio::test]
async fn batches_are_answered_in_the_order_of_their_calls() {
    let server = gateway(|mut peer: Peer| async move {
        let batch = peer.request().await.expect("a batch came");
        let calls = batch.as_array().expect("a batch is an array");
        let error = json!({ "code": -32024, "message": "none", "data": { "code": "NOT_FOUND" } });
        let answers = json!([
            { "jsonrpc": "2.0", "id": calls[1]["id"], "error": error },
            { "jsonrpc": "2.0", "id": calls[0]["id"], "result": calls[0]["params"] },
        ]);
        peer.send(&answers).await;
        peer.hold().await;
    })
    .await;
    let client = server.client().await;
    let mut batch = BatchRequestBuilder::new();
    let mut params = ArrayParams::new();
    params.insert(json!({ "a": 1 })).expect("JSON serialises");
    batch.insert("one", params).expect("JSON serialises");
    batch.insert("two", ArrayParams::new()).expect("JSON serialises");
    let answers = client.batch_request::<Value>(batch).await.expect("the server answers");
    assert_eq!((answers.num_successful_calls(), answers.num_failed_calls()), (1, 1));
    let answers: Vec<_> = answers.into_iter().collect();
    assert_eq!(answers[0].as_ref().expect("the first succeeds"), &json!({ "a": 1 }));
    assert_eq!(answers[1].as_ref().expect_err("the second fails").code(), -32024);
}

#[tokio::test]
async fn wrong_params_are_refused_before_anything_is_sent() {
    let server = gateway(|mut peer: Peer| async move {
        assert_eq!(peer.request().await, None, "something was sent");
    })
    .await;
    let client = server.client().await;
    let error =
        client.call("logs.tail", raw(&json!({ "sinceMS": 1 }))).await.expect_err("the params are wrong");
    assert_eq!(error.code(), Some(ErrorCode::InvalidParams));
    let Error::InvalidInput { method, message, problem } = error else { panic!("{error:?}") };
    assert_eq!(method.as_deref(), Some("logs.tail"));
    assert_eq!(problem.expect("it names the place").nearest.as_deref(), Some("sinceMs"));
    assert!(message.contains("did you mean `sinceMs`?"), "{message}");
    client.close().await;
}

#[tokio::test]
async fn a_refusal_keeps_number_code_message_and_details() {
    let server = gateway(|mut peer: Peer| async move {
        while let Some(request) = peer.request().await {
            let error = json!({
                "code": -32021, "message": "missing scope: operator.write",
                "data": { "code": "FORBIDDEN", "retryable": false, "missingScope": "operator.write" },
            });
            peer.refuse(&request, error).await;
        }
    })
    .await;
    let client = server.client().await;
    let by_name = client.call("agent.abort", raw(&json!({ "runId": "k" }))).await.expect_err("it is refused");
    let params = AgentAbortParams { run_id: Text::new("k").expect("the text is within its bounds") };
    let typed = Error::from(client.agent_abort(params).await.expect_err("it is refused"));
    for error in [by_name, typed] {
        assert_eq!((error.code(), error.is_retryable()), (Some(ErrorCode::Forbidden), false));
        assert_eq!(error.to_string(), "missing scope: operator.write (FORBIDDEN)");
        let Error::Refused(refusal) = error else { panic!("{error:?}") };
        assert_eq!((refusal.number, refusal.code_name.as_str()), (-32021, "FORBIDDEN"));
        assert_eq!(refusal.details().expect("they are declared").missing_scope, Some(Scope::OperatorWrite));
    }
}

#[tokio::test]
async fn a_result_of_another_shape_is_a_bad_payload() {
    let client = gateway(echo).await.client().await;
    let error =
        Error::from(client.logs_tail(LogsTailParams::default()).await.expect_err("the shape is wrong"));
    assert!(matches!(error, Error::BadPayload { .. }), "{error:?}");
    assert!(
        error.to_string().starts_with("the result of `logs.tail` cannot be read: missing field"),
        "{error}"
    );
}

#[tokio::test]
async fn text_that_is_no_answer_is_a_bad_payload_and_ends_the_connection() {
    let server = gateway(|mut peer: Peer| async move {
        peer.request().await;
        peer.send(&json!("hello")).await;
        peer.hold().await;
    })
    .await;
    let client = server.client().await;
    let error = client.call("health", raw(&json!({}))).await.expect_err("the answer is none");
    assert!(matches!(error, Error::BadPayload { .. }), "{error:?}");
    let after = client.call("health", raw(&json!({}))).await.expect_err("the connection has ended");
    assert!(!matches!(after, Error::Timeout { .. }), "{after:?}");
}

#[tokio::test]
async fn a_message_beyond_the_bound_is_a_bad_payload() {
    let server = gateway(|mut peer: Peer| async move {
        let request = peer.request().await.expect("a request came");
        peer.answer(&request, json!("x".repeat(2000))).await;
        peer.hold().await;
    })
    .await;
    let client = server.builder().max_response_bytes(1000).connect().await.expect("the server accepts");
    let error = client.call("any", raw(&json!({}))).await.expect_err("the answer is too large");
    assert!(matches!(error, Error::BadPayload { .. }), "{error:?}");
    assert!(error.to_string().contains("max_response_bytes"), "{error}");
}

#[tokio::test]
async fn nobody_listening_is_unreachable() {
    let address = nobody().await;
    let error = Client::connect(&format!("ws://{address}"), None).await.expect_err("nobody listens");
    let Error::Transport { kind, url, reason, sent: false } = &error else { panic!("{error:?}") };
    assert_eq!((*kind, url.clone()), (TransportKind::Unreachable, format!("ws://{address}")));
    assert!(reason.contains("refused") && error.is_retryable(), "{error}");
}

#[tokio::test]
async fn a_server_that_says_nothing_times_out_in_the_handshake() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a loopback port is free");
    let address = silent.local_addr().expect("the listener is bound");
    let limit = Duration::from_millis(50);
    let builder = Client::builder(format!("ws://{address}")).connect_timeout(limit);
    let error = builder.connect().await.expect_err("nothing is answered");
    let Error::Timeout { what, after } = error else { panic!("{error:?}") };
    assert_eq!((what, after), (TimeoutKind::Handshake, limit));
}

#[tokio::test]
async fn what_is_no_http_at_all_is_a_mismatch() {
    let address = http_server(|_, _| "SSH-2.0-OpenSSH_9.9\r\n\r\n".to_owned()).await;
    let error = Client::connect(&format!("ws://{address}"), None).await.expect_err("it is no gateway");
    assert!(matches!(error, Error::ProtocolMismatch { .. }), "{error:?}");
}

#[tokio::test]
async fn a_wrong_credential_is_unauthorized_with_the_gateways_words() {
    let address = http_server(|_, _| http_answer("401 Unauthorized", &unauthorized())).await;
    let token = Some(SecretString::from(TOKEN));
    let error = Client::connect(&format!("ws://{address}"), token).await.expect_err("the token is wrong");
    assert_eq!(error.code(), Some(ErrorCode::Unauthorized));
    let Error::Unauthorized { message, .. } = error else { panic!("{error:?}") };
    assert_eq!(message, "the token is wrong");
}

#[tokio::test]
async fn who_is_locked_out_learns_for_how_long() {
    let address = http_server(|_, _| http_answer("429 Too Many Requests", &locked_out())).await;
    let token = Some(SecretString::from(TOKEN));
    let error = Client::connect(&format!("ws://{address}"), token).await.expect_err("nobody is let in");
    assert_locked_out(&error);
    // And when a gateway in between says so, which is not about a credential.
    let address =
        http_server(|_, _| "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n".to_owned()).await;
    let error = Client::connect(&format!("ws://{address}"), None).await.expect_err("the proxy is busy");
    assert!(matches!(error, Error::Transport { kind: TransportKind::Rejected { status: 429 }, .. }));
}

#[tokio::test]
async fn another_http_status_is_rejected() {
    let address =
        http_server(|_, _| "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 4\r\n\r\nbusy".to_owned())
            .await;
    let error = Client::connect(&format!("ws://{address}"), None).await.expect_err("the proxy is busy");
    let Error::Transport { kind, .. } = error else { panic!("{error:?}") };
    assert_eq!(kind, TransportKind::Rejected { status: 503 });
    assert!(error.is_retryable());
}

#[tokio::test]
async fn calls_that_wait_fail_at_once_with_the_reason_of_the_close() {
    let server = gateway(|mut peer: Peer| async move {
        for _ in 0..3 {
            peer.request().await;
        }
        peer.close(CloseCode::Restart, "service restart").await;
    })
    .await;
    let client = server.client().await;
    let call = || client.call("health", raw(&json!({})));
    let typed = async { client.logs_tail(LogsTailParams::default()).await.map_err(Error::from) };
    let (first, second, third) = tokio::join!(call(), call(), typed);
    let after = call().await;
    let errors = [
        first.expect_err("closed"),
        second.expect_err("closed"),
        third.expect_err("closed"),
        after.expect_err("closed"),
    ];
    for error in errors {
        assert!(error.is_retryable());
        let Error::Transport { kind, reason, .. } = &error else { panic!("{error:?}") };
        assert_eq!((*kind, reason.as_str()), (TransportKind::Closed { code: Some(1012) }, "service restart"));
        assert!(error.to_string().contains("service restart (code 1012)"), "{error}");
    }
}

#[tokio::test]
async fn a_gateway_that_vanishes_ends_its_calls_at_once() {
    let server = gateway(|mut peer: Peer| async move {
        peer.request().await;
    })
    .await;
    let client = server.client().await;
    let error = client.call("health", raw(&json!({}))).await.expect_err("the gateway is gone");
    let Error::Transport { kind, .. } = error else { panic!("{error:?}") };
    assert_eq!(kind, TransportKind::Closed { code: None });
}

#[tokio::test]
async fn a_call_without_an_answer_times_out_and_the_connection_goes_on() {
    let server = gateway(|mut peer: Peer| async move {
        let forgotten = peer.request().await.expect("a request came");
        while let Some(request) = peer.request().await {
            // The late answer must not disturb the next call.
            peer.answer(&forgotten, json!("late")).await;
            peer.answer(&request, json!("in time")).await;
        }
    })
    .await;
    let limit = Duration::from_millis(500);
    let client = server.builder().call_timeout(Some(limit)).connect().await.expect("the server accepts");
    let error = client.call("health", raw(&json!({}))).await.expect_err("nothing is answered");
    let Error::Timeout { what, after } = error else { panic!("{error:?}") };
    assert_eq!((what, after), (TimeoutKind::Call, limit));
    let result = client.call("health", raw(&json!({}))).await.expect("the connection goes on");
    assert_eq!(result.get(), "\"in time\"");
}

#[tokio::test]
async fn closing_and_dropping_send_a_close_frame() {
    let (told, mut frames) = mpsc::unbounded_channel();
    let server = gateway(move |mut peer| {
        let told = told.clone();
        async move {
            while let Some(Ok(message)) = peer.socket.next().await {
                if let Message::Close(frame) = message {
                    told.send(frame.map(|frame| frame.code)).expect("the test waits");
                }
            }
        }
    })
    .await;
    let client = server.client().await;
    let clone = client.clone();
    client.close().await;
    assert_eq!(frames.recv().await, Some(Some(CloseCode::Normal)));
    let error = clone.call("health", raw(&json!({}))).await.expect_err("it was closed");
    assert!(error.to_string().contains("closed by this program"), "{error}");

    drop(server.client().await);
    assert_eq!(frames.recv().await, Some(Some(CloseCode::Normal)));
}

#[tokio::test]
async fn many_calls_share_the_socket_and_a_large_one_passes() {
    let client = gateway(echo).await.client().await;
    let large = "x".repeat(1_000_000);
    let calls = (0..500).map(|number| {
        let (client, large) = (&client, &large);
        async move {
            let text = if number == 250 { large.as_str() } else { "" };
            let sent = json!({ "number": number, "text": text });
            let seen = client.call("any", raw(&sent)).await.expect("the server answers");
            assert_eq!(serde_json::from_str::<Value>(seen.get()).expect("a result is JSON")["params"], sent);
        }
    });
    futures_util::future::join_all(calls).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn output_that_the_peer_does_not_take_waits_and_is_not_lost() {
    let full = Arc::new(Notify::new());
    let read = Arc::clone(&full);
    let server = gateway(move |peer| {
        let read = Arc::clone(&read);
        async move {
            read.notified().await;
            echo(peer).await;
        }
    })
    .await;
    let client = server.client().await;
    let text = "x".repeat(100_000);
    // Far more than the buffers of both sockets hold.
    let calls = (0..200).map(|_| client.call("any", raw(&json!({ "text": text }))));
    let calls = futures_util::future::join_all(calls);
    let release = async {
        tokio::task::yield_now().await;
        full.notify_one();
    };
    let (answers, ()) = tokio::join!(calls, release);
    assert!(answers.iter().all(Result::is_ok));
}

#[tokio::test]
async fn events_come_as_a_stream_and_dropping_it_unsubscribes() {
    let (told, mut requests) = mpsc::unbounded_channel();
    let server = gateway(move |mut peer| {
        let told = told.clone();
        async move {
            while let Some(request) = peer.request().await {
                if request["method"] == "events.subscribe" {
                    peer.answer(&request, json!(4_021_882_117_u64)).await;
                    for seq in 1..=2 {
                        let item = json!({ "event": "tick", "seq": seq, "payload": { "ts": 1 } });
                        peer.item(4_021_882_117, item).await;
                    }
                } else {
                    peer.answer(&request, json!(true)).await;
                }
                told.send(request).expect("the test waits");
            }
        }
    })
    .await;
    let client = server.client().await;
    let params =
        EventsSubscribeParams { events: Some(vec![EventName::Tick]), ..EventsSubscribeParams::default() };
    let mut events = client.events(params).await.expect("the server answers");
    for seq in 1..=2 {
        let item = events.next().await.expect("an item comes").expect("it is one");
        let Event::Received(item) = item else { panic!("{item:?}") };
        assert_eq!((item.event.as_str(), item.seq), ("tick", seq));
    }
    let subscribed = requests.recv().await.expect("a request came");
    assert_eq!(subscribed["params"], json!({ "events": ["tick"] }));
    drop(events);
    let unsubscribed = requests.recv().await.expect("a request came");
    assert_eq!(unsubscribed["method"], "events.unsubscribe");
    assert_eq!(unsubscribed["params"], json!([4_021_882_117_u64]));
}

#[tokio::test]
async fn a_stream_keeps_its_connection_and_ends_with_the_reason() {
    let server = gateway(|mut peer: Peer| async move {
        let request = peer.request().await.expect("a request came");
        peer.answer(&request, json!(7)).await;
        peer.item(7, json!({ "event": "shutdown", "seq": 1, "payload": {} })).await;
        peer.close(CloseCode::Restart, "service restart").await;
    })
    .await;
    let client = server.client().await;
    let mut events = client.events(EventsSubscribeParams::default()).await.expect("the server answers");
    drop(client);
    events.next().await.expect("an item comes").expect("it is one");
    let error = events.next().await.expect("the reason comes").expect_err("the connection has ended");
    assert!(error.to_string().contains("service restart"), "{error}");
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_stream_that_is_not_read_ends_as_lagged_while_calls_go_on() {
    let server = gateway(|mut peer: Peer| async move {
        let request = peer.request().await.expect("a request came");
        peer.answer(&request, json!(7)).await;
        for seq in 1..=1100 {
            peer.item(7, json!({ "event": "tick", "seq": seq, "payload": {} })).await;
        }
        while let Some(request) = peer.request().await {
            peer.answer(&request, json!(true)).await;
        }
    })
    .await;
    let client = server.client().await;
    let events = client.events(EventsSubscribeParams::default()).await.expect("the server answers");
    client.call("any", raw(&json!({}))).await.expect("calls go on");
    let items: Vec<_> = events.collect().await;
    let Some(Err(Error::Transport { kind, .. })) = items.last() else { panic!("{:?}", items.last()) };
    assert_eq!(*kind, TransportKind::Lagged);
}
