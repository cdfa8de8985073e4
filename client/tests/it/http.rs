//! JSON-RPC over HTTP.

use std::time::Duration;

use jsonrpsee::core::{
    client::ClientT as _,
    params::{ArrayParams, BatchRequestBuilder},
};
use openclaw_client::{Client, Error, ErrorCode, Scope, SecretString, TimeoutKind, TransportKind};
use openclaw_schema::{
    client::LogsClient as _, methods::events::EventsSubscribeParams, methods::logs::LogsTailParams,
};
use serde_json::{Value, json};

use crate::servers::{
    TOKEN, assert_locked_out, http_answer, http_server, locked_out, nobody, raw, unauthorized,
};

async fn client(url: String) -> Client {
    Client::connect(&url, Some(SecretString::from(TOKEN))).await.expect("nothing is sent yet")
}

/// Answers a request with what its head and params were.
fn echo(head: &str, body: &str) -> String {
    let request: Value = serde_json::from_str(body).expect("clients send JSON");
    let seen = json!({ "head": head, "params": request["params"] });
    http_answer("200 OK", &json!({ "jsonrpc": "2.0", "id": request["id"], "result": seen }))
}

#[tokio::test]
async fn a_call_is_a_post_to_rpc_with_credential_limit_and_scopes() {
    let address = http_server(echo).await;
    let client = Client::builder(format!("http://{address}"))
        .credential(SecretString::from(TOKEN))
        .call_timeout(Some(Duration::from_millis(1500)))
        .scopes([Scope::OperatorRead])
        .connect()
        .await
        .expect("nothing is sent yet");
    assert_eq!(client.server_version(), None);
    let seen = client.call("any", raw(&json!({ "a": 1 }))).await.expect("the server answers");
    let seen: Value = serde_json::from_str(seen.get()).expect("a result is JSON");
    assert_eq!(seen["params"], json!({ "a": 1 }));
    let head = seen["head"].as_str().expect("the head is a text");
    for line in [
        "POST /rpc HTTP/1.1",
        "authorization: Bearer hunter2",
        "content-type: application/json",
        "openclaw-timeout-ms: 1500",
        "openclaw-scopes: operator.read",
    ] {
        assert!(head.lines().any(|header| header == line), "{line} is not in {head}");
    }
    assert_eq!(client.server_version(), Some("0.1.0"));
    assert!(!format!("{client:?}").contains(TOKEN));
}

#[tokio::test]
async fn typed_calls_and_own_paths_work() {
    let address = http_server(|head, body| {
        assert!(head.starts_with("POST /behind/a/proxy HTTP/1.1"));
        let request: Value = serde_json::from_str(body).expect("clients send JSON");
        assert_eq!(request["params"], json!({}));
        let result = json!({ "file": "/log", "cursor": 0, "size": 0, "lines": [], "truncated": false, "reset": false });
        http_answer("200 OK", &json!({ "jsonrpc": "2.0", "id": request["id"], "result": result }))
    })
    .await;
    let client = client(format!("http://{address}/behind/a/proxy")).await;
    assert_eq!(client.logs_tail(LogsTailParams::default()).await.expect("the server answers").file, "/log");
}

#[tokio::test]
async fn batches_are_answered_in_the_order_of_their_calls() {
    let address = http_server(|_, body| {
        let calls: Value = serde_json::from_str(body).expect("clients send JSON");
        let error = json!({ "code": -32024, "message": "none", "data": { "code": "NOT_FOUND" } });
        let answers = json!([
            { "jsonrpc": "2.0", "id": calls[1]["id"], "error": error },
            { "jsonrpc": "2.0", "id": calls[0]["id"], "result": 1 },
        ]);
        http_answer("200 OK", &answers)
    })
    .await;
    let client = client(format!("http://{address}")).await;
    let mut batch = BatchRequestBuilder::new();
    batch.insert("one", ArrayParams::new()).expect("JSON serialises");
    batch.insert("two", ArrayParams::new()).expect("JSON serialises");
    let answers = client.batch_request::<u64>(batch).await.expect("the server answers");
    let answers: Vec<_> = answers.into_iter().collect();
    assert_eq!(answers[0].as_ref().ok(), Some(&1));
    assert_eq!(answers[1].as_ref().expect_err("the second fails").code(), -32024);
}

#[tokio::test]
async fn each_kind_of_failure_is_told_apart() {
    async fn failure(answer: String) -> Error {
        let address = http_server(move |_, _| answer.clone()).await;
        let client = client(format!("http://{address}")).await;
        client.call("any", raw(&json!({}))).await.expect_err("the call fails")
    }
    let plain = |status: &str| format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nno");

    let error = failure(http_answer("401 Unauthorized", &unauthorized())).await;
    assert!(
        matches!(&error, Error::Unauthorized { message, .. } if message == "the token is wrong"),
        "{error:?}"
    );
    let error = failure(plain("401 Unauthorized")).await;
    assert_eq!(error.code(), Some(ErrorCode::Unauthorized));
    assert_locked_out(&failure(http_answer("429 Too Many Requests", &locked_out())).await);

    let refused = json!({ "jsonrpc": "2.0", "id": 1, "error": { "code": -32022, "message": "draining" } });
    for status in ["200 OK", "503 Service Unavailable"] {
        let error = failure(http_answer(status, &refused)).await;
        assert_eq!((error.code(), error.is_retryable()), (Some(ErrorCode::Unavailable), true));
    }

    let error = failure(plain("502 Bad Gateway")).await;
    assert!(
        matches!(error, Error::Transport { kind: TransportKind::Rejected { status: 502 }, .. }),
        "{error:?}"
    );
    let error = failure(plain("307 Temporary Redirect")).await;
    assert!(
        matches!(error, Error::Transport { kind: TransportKind::Rejected { status: 307 }, .. }),
        "{error:?}"
    );
    let error = failure(plain("404 Not Found")).await;
    assert!(matches!(error, Error::ProtocolMismatch { .. }), "{error:?}");

    for body in [json!("no"), json!({ "id": 1 }), json!({ "id": 99, "result": 1 })] {
        let error = failure(http_answer("200 OK", &body)).await;
        assert!(matches!(error, Error::BadPayload { .. }), "{error:?}");
    }
    let error =
        failure("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_owned() + &"\r\n\r\n".repeat(30)).await;
    assert!(matches!(error, Error::BadPayload { .. }), "{error:?}");
}

#[tokio::test]
async fn nobody_listening_is_unreachable() {
    let client = client(format!("http://{}", nobody().await)).await;
    let error = client.call("any", raw(&json!({}))).await.expect_err("nobody listens");
    let Error::Transport { kind, reason, .. } = error else { panic!("{error:?}") };
    assert_eq!(kind, TransportKind::Unreachable);
    assert!(reason.contains("refused"), "{reason}");
}

#[tokio::test]
async fn a_call_without_an_answer_times_out() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a loopback port is free");
    let address = silent.local_addr().expect("the listener is bound");
    let limit = Duration::from_millis(50);
    let builder = Client::builder(format!("http://{address}")).call_timeout(Some(limit));
    let client = builder.connect().await.expect("nothing is sent yet");
    let error = client.call("any", raw(&json!({}))).await.expect_err("nothing is answered");
    let Error::Timeout { what, after } = error else { panic!("{error:?}") };
    assert_eq!((what, after), (TimeoutKind::Call, limit));
}

#[tokio::test]
async fn an_answer_beyond_the_bound_is_a_bad_payload() {
    let address = http_server(|_, _| http_answer("200 OK", &json!("x".repeat(2000)))).await;
    let builder = Client::builder(format!("http://{address}")).max_response_bytes(1000);
    let client = builder.connect().await.expect("nothing is sent yet");
    let error = client.call("any", raw(&json!({}))).await.expect_err("the answer is too large");
    assert!(matches!(error, Error::BadPayload { .. }), "{error:?}");
}

#[tokio::test]
async fn events_are_not_available() {
    let client = client(format!("http://{}", nobody().await)).await;
    let error = client.events(EventsSubscribeParams::default()).await.expect_err("HTTP has no events");
    assert!(matches!(error, Error::InvalidInput { .. }), "{error:?}");
    assert!(error.to_string().contains("connect with a ws:// URL"), "{error}");
}
