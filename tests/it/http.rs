//! HTTP around the calls: probes, the document, the marks of this gateway, faulty upgrades, bounds, draining.

use std::{fs, sync::Arc, time::Duration};

use openclaw_gateway::backend::echo::EchoBackend;
use openclaw_schema::methods::{agent::AgentMethod, rpc::RpcMethod};
use openclaw_tests::harness::{TOKEN, TestGateway, padded, soon};
use serde_json::{Value, json};

use crate::{
    drift::workspace,
    embedding::{Bench, LabContract, LabMethod, LabServer as _},
};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The headers of a faultless upgrade, without a path or a subprotocol that would say what is spoken.
const UPGRADE: [(&str, &str); 4] = [
    ("connection", "Upgrade"),
    ("upgrade", "websocket"),
    ("sec-websocket-version", "13"),
    // The key of RFC 6455 section 1.3, whose answer is given there.
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

#[tokio::test]
async fn probes_say_how_the_gateway_is_without_a_credential() {
    let gateway = TestGateway::start().await;
    for (path, expected) in [
        ("/healthz", json!({ "ok": true, "status": "live" })),
        ("/health", json!({ "ok": true, "status": "live" })),
        ("/readyz", json!({ "ready": true, "failing": [] })),
        ("/ready", json!({ "ready": true, "failing": [] })),
        ("/startupz", json!({ "ok": true, "status": "started", "version": VERSION })),
    ] {
        let answer = gateway.http("GET", path, &[], "").await;
        assert_eq!(answer.status, 200, "{path}");
        let mut body = answer.json();
        if let Some(uptime) = body.as_object_mut().expect("an object").remove("uptimeMs") {
            assert!(uptime.is_u64(), "{path}");
        }
        assert_eq!(body, expected, "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        assert_eq!(answer.header("openclaw-gateway"), VERSION, "{path}");
        let head = gateway.http("HEAD", path, &[], "").await;
        assert_eq!((head.status, head.body.len()), (200, 0), "HEAD {path}");
    }
    let front = gateway.http("GET", "/", &[], "").await;
    assert!(front.status == 200 && front.text().starts_with("OpenClaw Gateway "), "{}", front.text());
}

#[tokio::test]
async fn other_methods_and_paths_are_refused_with_what_is_allowed() {
    let gateway = TestGateway::start().await;
    for (method, path, status, allow) in [
        ("POST", "/healthz", 405, "GET, HEAD"),
        ("DELETE", "/readyz", 405, "GET, HEAD"),
        ("PUT", "/openrpc.json", 405, "GET, HEAD"),
        ("GET", "/rpc", 405, "POST"),
        ("OPTIONS", "/rpc", 405, "POST"),
        ("GET", "/nothing", 404, ""),
        ("POST", "/rpc/", 404, ""),
        ("GET", "/healthz/../rpc", 404, ""),
    ] {
        let answer = gateway.http(method, path, &[], "").await;
        assert_eq!((answer.status, answer.header("allow")), (status, allow), "{method} {path}");
        assert_eq!(answer.header("openclaw-gateway"), VERSION, "{method} {path}");
    }
}

#[tokio::test]
async fn the_document_that_is_served_is_the_one_that_is_committed() {
    let gateway = TestGateway::start().await;
    let answer = gateway.http("GET", "/openrpc.json", &[], "").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    let committed = fs::read_to_string(workspace().join("schema/openrpc.json")).expect("it is committed");
    let committed: Value = serde_json::from_str(&committed).expect("it is JSON");
    assert_eq!(answer.json(), committed);
    let head = gateway.http("HEAD", "/openrpc.json", &[], "").await;
    assert_eq!((head.status, head.header("content-length")), (200, answer.body.len().to_string().as_str()));
}

#[tokio::test]
async fn calls_carry_the_mark_of_this_gateway() {
    let gateway = TestGateway::start().await;
    let bearer = format!("Bearer {TOKEN}");
    let request = r#"{"jsonrpc":"2.0","id":1,"method":"health"}"#;
    let served = gateway.http("POST", "/rpc", &[("authorization", &bearer)], request).await;
    let refused = gateway.http("POST", "/rpc", &[], request).await;
    for (answer, status) in [(served, 200), (refused, 401)] {
        assert_eq!((answer.status, answer.header("openclaw-gateway")), (status, VERSION));
        assert_eq!(answer.header("content-type"), "application/json");
    }
}

#[tokio::test]
async fn an_upgrade_speaks_json_rpc_on_its_path_or_by_its_subprotocol_and_frames_elsewhere() {
    let gateway = TestGateway::start().await;
    for (path, offered, status, chosen) in [
        ("/rpc", None, 101, ""),
        ("/rpc", Some("jsonrpc"), 101, "jsonrpc"),
        ("/", Some("jsonrpc"), 101, "jsonrpc"),
        ("/any/where?x=1", Some("other, jsonrpc"), 101, "jsonrpc"),
        ("/rpc", Some("other"), 101, ""),
        ("/", None, 101, ""),
        ("/rpc2", None, 101, ""),
        ("/", Some("other"), 101, "other"),
    ] {
        let mut headers = UPGRADE.to_vec();
        headers.extend(offered.map(|offered| ("sec-websocket-protocol", offered)));
        let answer = gateway.http("GET", path, &headers, "").await;
        let case = format!("{path} {offered:?}");
        assert_eq!((answer.status, answer.header("sec-websocket-protocol")), (status, chosen), "{case}");
        assert_eq!(answer.header("openclaw-gateway"), VERSION, "{case}");
        let speaks_jsonrpc = path == "/rpc" || chosen == "jsonrpc";
        let dialect = if speaks_jsonrpc { "jsonrpc" } else { "frames" };
        assert_eq!(answer.header("openclaw-dialect"), dialect, "{case}");
        assert_eq!(answer.header("sec-websocket-accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "{case}");
    }
}

#[tokio::test]
async fn a_faulty_upgrade_is_refused_with_its_fault() {
    let gateway = TestGateway::start().await;
    let without = |name: &str| -> Vec<(&str, &str)> {
        UPGRADE.iter().copied().filter(|(header, _)| *header != name).collect()
    };
    let with = |name: &'static str, value: &'static str| -> Vec<(&str, &str)> {
        without(name).into_iter().chain([(name, value)]).collect()
    };
    for (method, headers, status, says) in [
        ("GET", with("sec-websocket-version", "8"), 426, "Sec-WebSocket-Version must be 13"),
        ("GET", without("sec-websocket-version"), 426, "Sec-WebSocket-Version must be 13"),
        ("GET", without("sec-websocket-key"), 400, "Sec-WebSocket-Key is missing"),
        ("POST", UPGRADE.to_vec(), 405, "Method Not Allowed"),
    ] {
        let answer = gateway.http(method, "/rpc", &headers, "").await;
        assert_eq!(answer.status, status, "{says}");
        assert!(answer.text().contains(says), "{}", answer.text());
        let version = if status == 426 { "13" } else { "" };
        assert_eq!(answer.header("sec-websocket-version"), version, "{says}");
    }
}

#[tokio::test]
async fn a_body_beyond_the_bound_is_refused_and_one_at_the_bound_is_served() {
    let gateway = TestGateway::with_limits(|limits| limits.max_payload_bytes = 1000).await;
    let bearer = format!("Bearer {TOKEN}");
    let request = |bytes| padded(r#"{"jsonrpc":"2.0","id":1,"method":"agents.list"}"#, bytes);
    let served = gateway.http("POST", "/rpc", &[("authorization", &bearer)], request(1000)).await;
    assert_eq!((served.status, served.json()["result"]["defaultId"].clone()), (200, json!("main")));
    let refused = gateway.http("POST", "/rpc", &[("authorization", &bearer)], request(1001)).await;
    assert_eq!(refused.status, 413);
    assert_eq!(
        refused.json(),
        json!({
            "jsonrpc": "2.0", "id": null,
            "error": {
                "code": -32025, "message": "a request may have 1000 bytes at most",
                "data": { "code": "LIMIT_EXCEEDED", "retryable": false },
            },
        })
    );
    // Without a credential nothing is read at all.
    let stranger = gateway.http("POST", "/rpc", &[], request(1001)).await;
    assert_eq!(stranger.status, 401);
}

#[tokio::test]
async fn a_result_beyond_the_bound_is_an_error_of_its_call() {
    let gateway = TestGateway::with_limits(|limits| limits.max_payload_bytes = 1000).await;
    let answer = gateway.call(RpcMethod::RpcDiscover.name(), json!({})).await;
    assert_eq!(answer["error"]["data"]["code"], "LIMIT_EXCEEDED", "{answer}");
    assert_eq!(answer["error"]["message"], "the result of rpc.discover is larger than 1000 bytes");
}

#[tokio::test]
async fn a_draining_gateway_finishes_what_it_has_and_refuses_the_rest() {
    let gateway =
        TestGateway::start_with(|_| {}, |builder| builder.serve::<LabContract>(Bench.into_rpc())).await;
    let address = gateway.address();
    // Open before the gateway drains: nobody can connect later.
    let mut busy = gateway.websocket().await;
    let mut idle = gateway.websocket().await;
    let rest =
        json!({ "jsonrpc": "2.0", "id": 1, "method": LabMethod::LabRest.name(), "params": { "ms": 300 } });
    busy.send(rest.to_string()).await;
    // Answered behind it: the call above is in flight.
    let alive = busy.ask(r#"{"jsonrpc":"2.0","id":2,"method":"health"}"#).await;
    assert_eq!(alive["id"], 2);
    let stopping = tokio::spawn(gateway.shutdown());
    assert_eq!(soon(busy.next_json()).await, json!({ "jsonrpc": "2.0", "id": 1, "result": 300 }));
    for socket in [&mut busy, &mut idle] {
        let frame = soon(socket.closed()).await.expect("a close frame comes");
        assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1012, "service restart"));
    }
    soon(stopping).await.expect("the gateway stops");
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn a_gateway_that_waits_for_its_runs_is_not_ready() {
    let gateway = TestGateway::start_with(
        |_| {},
        |builder| builder.backend(Arc::new(EchoBackend::new(Duration::from_millis(400)))),
    )
    .await;
    let params = json!({ "message": "hello", "idempotencyKey": "k1" });
    let ack = gateway.call(AgentMethod::Agent.name(), params).await;
    assert_eq!(ack["result"]["status"], "accepted", "{ack}");
    let peer = gateway.peer();
    let stopping = tokio::spawn(gateway.shutdown());
    let unready = loop {
        let answer = peer.http("GET", "/readyz", &[], "").await;
        if answer.status != 200 {
            break answer;
        }
    };
    let body = unready.json();
    assert_eq!(
        (unready.status, &body["ready"], &body["failing"]),
        (503, &json!(false), &json!(["gateway-draining"]))
    );
    let startup = peer.http("GET", "/startupz", &[], "").await;
    assert_eq!((startup.status, startup.json()["status"].clone()), (503, json!("draining")));
    // It is alive: restarting it would break off the run.
    assert_eq!(peer.http("GET", "/healthz", &[], "").await.status, 200);
    assert_eq!(peer.http("GET", "/rpc", &UPGRADE, "").await.status, 503);
    let bearer = format!("Bearer {TOKEN}");
    let request = r#"{"jsonrpc":"2.0","id":1,"method":"health"}"#;
    let refused = peer.http("POST", "/rpc", &[("authorization", &bearer)], request).await.json();
    assert_eq!(
        refused["error"],
        json!({
            "code": -32022, "message": "the gateway is stopping",
            "data": {
                "code": "UNAVAILABLE", "retryable": true, "retryAfterMs": 1000,
                "method": "health", "reason": "gateway-restarting",
            },
        })
    );
    soon(stopping).await.expect("the gateway stops");
}
