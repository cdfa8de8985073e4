//! Who may do what: credentials in every place they can be shown, scopes, origins, and the bounds that hold before
//! authentication.

use std::time::Duration;

use openclaw_gateway::settings::Auth;
use openclaw_schema::methods::{self, agent::AgentMethod, connect::ConnectMethod};
use openclaw_tests::harness::{Socket, TOKEN, TestGateway, padded, soon};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Error;

const READ: &str = r#"{"jsonrpc":"2.0","id":1,"method":"agents.list"}"#;

fn request(method: &str, params: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string()
}

fn connect(params: &Value) -> String {
    request(ConnectMethod::Connect.name(), params)
}

fn unauthorized(message: &str, id: &Value) -> Value {
    json!({
        "jsonrpc": "2.0", "id": id,
        "error": { "code": -32020, "message": message, "data": { "code": "UNAUTHORIZED", "retryable": false } },
    })
}

async fn stranger(gateway: &TestGateway) -> Socket {
    gateway.websocket_with("/rpc", &[]).await.expect("an upgrade without a credential is accepted")
}

async fn closed(socket: &mut Socket) -> (u16, String) {
    let frame = soon(socket.closed()).await.expect("a close frame comes");
    (frame.code.into(), frame.reason.as_str().to_owned())
}

async fn with_auth(auth: Auth) -> TestGateway {
    TestGateway::start_with(|settings| settings.auth = auth, |builder| builder).await
}

/// The HTTP status with which an upgrade is refused, and its body.
async fn refused_upgrade(gateway: &TestGateway, headers: &[(&'static str, &str)]) -> (u16, Value) {
    match gateway.websocket_with("/rpc", headers).await.map_err(|error| *error) {
        Err(Error::Http(response)) => {
            let body = response.body().as_deref().unwrap_or_default();
            (response.status().as_u16(), serde_json::from_slice(body).unwrap_or_default())
        }
        other => panic!("the upgrade was not refused: {other:?}"),
    }
}

#[tokio::test]
async fn a_credential_in_the_header_is_judged_the_same_over_both_transports() {
    let missing = "unauthorized: gateway token missing";
    let mismatch = "unauthorized: gateway token mismatch";
    let malformed = "unauthorized: the Authorization header must be `Bearer <token>`";
    let gateway = TestGateway::start().await;
    for (header, refusal) in [
        (format!("Bearer {TOKEN}"), None),
        (format!("bearer {TOKEN}"), None),
        (format!("BEARER   {TOKEN} "), None),
        ("Bearer wrong".to_owned(), Some(mismatch)),
        (format!("Bearer {TOKEN}x"), Some(mismatch)),
        (format!("Bearer {}", &TOKEN[1..]), Some(mismatch)),
        (format!("Bearer {}", TOKEN.to_uppercase()), Some(mismatch)),
        (format!("Bearer {TOKEN},{TOKEN}"), Some(mismatch)),
        ("Bearer".to_owned(), Some(malformed)),
        ("Bearer ".to_owned(), Some(malformed)),
        (TOKEN.to_owned(), Some(malformed)),
        (format!("Basic {TOKEN}"), Some(malformed)),
        (String::new(), Some(malformed)),
    ] {
        let headers = [("authorization", header.as_str())];
        let answer = gateway.http("POST", "/rpc", &headers, READ).await;
        match refusal {
            None => {
                assert_eq!((answer.status, answer.json()["result"].is_object()), (200, true), "{header}");
                let mut socket =
                    gateway.websocket_with("/rpc", &headers).await.expect("the upgrade is accepted");
                assert!(socket.ask(READ).await["result"].is_object(), "{header}");
            }
            Some(message) => {
                assert_eq!(
                    (answer.status, answer.json()),
                    (401, unauthorized(message, &Value::Null)),
                    "{header}"
                );
                assert_eq!(
                    answer.header("www-authenticate"),
                    "Bearer realm=\"openclaw-gateway\"",
                    "{header}"
                );
                let refused = refused_upgrade(&gateway, &headers).await;
                assert_eq!(refused, (401, unauthorized(message, &Value::Null)), "{header}");
            }
        }
    }
    let without = gateway.http("POST", "/rpc", &[], READ).await;
    assert_eq!((without.status, without.json()), (401, unauthorized(missing, &Value::Null)));
    // A secret in the URL would be in the logs of every proxy.
    let in_url = gateway.http("POST", &format!("/rpc?token={TOKEN}"), &[], READ).await;
    assert_eq!(in_url.status, 401);
}

#[tokio::test]
async fn connect_takes_the_secret_in_either_field_and_closes_on_a_wrong_one() {
    let token = TestGateway::start().await;
    let password = with_auth(Auth::Password("hunter2".into())).await;
    for (gateway, secret, method) in [(&token, TOKEN, "token"), (&password, "hunter2", "password")] {
        for field in ["token", "password"] {
            let mut socket = stranger(gateway).await;
            let answer = socket.ask(connect(&json!({ "auth": { field: secret } }))).await;
            let auth = &answer["result"]["auth"];
            assert_eq!(
                *auth,
                json!({ "method": method, "role": "operator", "scopes": ["operator.admin"] }),
                "{answer}"
            );
            assert!(socket.ask(READ).await["result"].is_object());

            let mut socket = stranger(gateway).await;
            let answer = socket.ask(connect(&json!({ "auth": { field: "wrong" } }))).await;
            assert_eq!(answer, unauthorized(&format!("unauthorized: gateway {method} mismatch"), &json!(1)));
            assert_eq!(closed(&mut socket).await, (1008, "unauthorized".to_owned()));
        }
        for params in [json!({}), json!({ "auth": {} }), json!({ "auth": { "token": "" } })] {
            let mut socket = stranger(gateway).await;
            let answer = socket.ask(connect(&params)).await;
            assert_eq!(answer, unauthorized(&format!("unauthorized: gateway {method} missing"), &json!(1)));
            assert_eq!(closed(&mut socket).await, (1008, "unauthorized".to_owned()));
        }
    }
    let bearer = password.http("POST", "/rpc", &[("authorization", "Bearer hunter2")], READ).await;
    assert_eq!(bearer.status, 200, "the password goes into the header like a token");
}

#[tokio::test]
async fn before_authentication_only_connect_is_served_and_nothing_is_told() {
    let gateway = TestGateway::start().await;
    let mut socket = stranger(&gateway).await;
    let message = "unauthorized: send `Authorization: Bearer …`, or call `connect` first";
    let names =
        methods::all().map(|record| record.name).filter(|name| *name != ConnectMethod::Connect.name());
    for name in names.chain(["events.unsubscribe", "logs.unfollow", "no.such", ""]) {
        // The same for methods that do not exist: a stranger learns no names.
        assert_eq!(socket.ask(request(name, &json!({}))).await, unauthorized(message, &json!(1)), "{name}");
    }
    let batch = format!("[{READ},{READ}]");
    assert_eq!(socket.ask(batch).await[1], unauthorized(message, &json!(1)));
    // Bad params are no guess at the secret: the connection stays.
    let malformed = socket.ask(connect(&json!({ "token": TOKEN }))).await;
    assert_eq!(malformed["error"]["data"]["code"], "INVALID_PARAMS", "{malformed}");
    let granted = socket.ask(connect(&json!({ "auth": { "token": TOKEN } }))).await;
    assert!(granted["result"].is_object(), "{granted}");
    assert!(socket.ask(READ).await["result"].is_object());
}

#[tokio::test]
async fn a_connection_has_one_guess_also_in_a_batch() {
    let gateway = TestGateway::start().await;
    let mut socket = stranger(&gateway).await;
    let (wrong, right) =
        (connect(&json!({ "auth": { "token": "wrong" } })), connect(&json!({ "auth": { "token": TOKEN } })));
    let answers = socket.ask(format!("[{wrong},{right},{READ}]")).await;
    let later = "unauthorized: this connection has shown a wrong credential";
    // The answer to the guess is held back, and comes last.
    assert_eq!(
        answers,
        json!([
            unauthorized(later, &json!(1)),
            unauthorized(later, &json!(1)),
            unauthorized("unauthorized: gateway token mismatch", &json!(1)),
        ])
    );
    assert_eq!(closed(&mut socket).await, (1008, "unauthorized".to_owned()));
}

#[tokio::test]
async fn rights_are_narrowed_and_never_widened_again() {
    let gateway = TestGateway::start().await;
    let mut socket = stranger(&gateway).await;
    let scopes = |answer: &Value| answer["result"]["auth"]["scopes"].clone();
    let first = connect(&json!({ "auth": { "token": TOKEN }, "scopes": ["operator.write", "no.such"] }));
    assert_eq!(scopes(&socket.ask(first).await), json!(["operator.write"]));
    for params in [
        json!({ "scopes": ["operator.admin"], "auth": { "token": TOKEN } }),
        json!({ "scopes": ["operator.admin", "operator.write"] }),
        json!({ "auth": { "token": TOKEN } }),
        json!({}),
    ] {
        let mut socket = stranger(&gateway).await;
        let first = connect(&json!({ "auth": { "token": TOKEN }, "scopes": ["operator.write"] }));
        assert_eq!(scopes(&socket.ask(first).await), json!(["operator.write"]));
        let after = scopes(&socket.ask(connect(&params)).await);
        assert!(after == json!(["operator.write"]) || after == json!([]), "{params} gave {after}");
        let admin = socket
            .ask(request(AgentMethod::Agent.name(), &json!({ "message": "/reset", "idempotencyKey": "k" })))
            .await;
        assert_eq!(admin["error"]["data"]["code"], "FORBIDDEN", "{params}: {admin}");
    }
    // `operator.write` implies `operator.read`: a step down is allowed.
    assert_eq!(
        scopes(&socket.ask(connect(&json!({ "scopes": ["operator.read"] }))).await),
        json!(["operator.read"])
    );
    assert_eq!(scopes(&socket.ask(connect(&json!({ "scopes": ["operator.write"] }))).await), json!([]));
    let refused = socket.ask(READ).await;
    assert_eq!(refused["error"]["data"]["missingScope"], "operator.read", "{refused}");

    // A wrong secret ends a connection that was authenticated by its header as well.
    let mut socket = gateway.websocket().await;
    let answer = socket.ask(connect(&json!({ "auth": { "token": "wrong" } }))).await;
    assert_eq!(answer, unauthorized("unauthorized: gateway token mismatch", &json!(1)));
    assert_eq!(closed(&mut socket).await, (1008, "unauthorized".to_owned()));
}

#[tokio::test]
async fn the_header_of_scopes_narrows_and_unknown_names_grant_nothing() {
    let gateway = TestGateway::start().await;
    let bearer = format!("Bearer {TOKEN}");
    let status = request("status", &json!({}));
    for (scopes, allowed) in [
        ("operator.read", true),
        (" operator.read , operator.pairing ", true),
        ("operator.write", true),
        ("operator.admin", true),
        ("operator.pairing,operator.approvals", false),
        ("none", false),
        ("", false),
        ("operator.reed", false),
        ("OPERATOR.READ", false),
    ] {
        let headers = [("authorization", bearer.as_str()), ("openclaw-scopes", scopes)];
        let answer = gateway.http("POST", "/rpc", &headers, status.clone()).await.json();
        assert_eq!(answer.get("result").is_some(), allowed, "{scopes:?}: {answer}");
    }
}

#[tokio::test]
async fn commands_within_a_message_ask_for_their_own_scope() {
    let gateway = TestGateway::start().await;
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", bearer.as_str()), ("openclaw-scopes", "operator.write")];
    for (number, (message, allowed)) in [
        ("/new", false),
        ("/reset now", false),
        ("/new\nplease", false),
        ("/newer", true),
        ("say /new", true),
    ]
    .into_iter()
    .enumerate()
    {
        let params = json!({ "message": message, "idempotencyKey": format!("k{number}") });
        let text = request(AgentMethod::Agent.name(), &params);
        let answer = gateway.http("POST", "/rpc", &headers, text).await.json();
        if allowed {
            assert_eq!(answer["result"]["status"], "accepted", "{message:?}: {answer}");
        } else {
            assert_eq!(answer["error"]["data"]["missingScope"], "operator.admin", "{message:?}: {answer}");
        }
    }
}

#[tokio::test]
async fn pages_of_other_sites_may_not_call() {
    let gateway = TestGateway::start().await;
    let bearer = format!("Bearer {TOKEN}");
    let own = gateway.address().to_string();
    let port = gateway.address().port();
    for (origin, allowed) in [
        (format!("http://{own}"), true),
        (format!("https://{own}"), true),
        (format!("http://localhost:{port}"), false),
        (format!("http://127.0.0.1:{}", port ^ 1), false),
        (format!("http://{own}.evil.example"), false),
        (format!("http://evil.example/{own}"), false),
        ("http://127.0.0.1".to_owned(), false),
        ("https://evil.example".to_owned(), false),
        ("null".to_owned(), false),
        (String::new(), false),
    ] {
        let headers = [("authorization", bearer.as_str()), ("origin", origin.as_str())];
        let answer = gateway.http("POST", "/rpc", &headers, READ).await;
        let probe = gateway.http("GET", "/openrpc.json", &[("origin", &origin)], "").await;
        if allowed {
            assert_eq!((answer.status, probe.status), (200, 200), "{origin}");
            assert!(gateway.websocket_with("/rpc", &headers).await.is_ok(), "{origin}");
        } else {
            assert_eq!((answer.status, probe.status), (403, 403), "{origin}");
            assert_eq!(answer.json()["error"]["data"]["code"], "FORBIDDEN", "{origin}");
            let (status, body) = refused_upgrade(&gateway, &headers).await;
            assert_eq!((status, &body["error"]["data"]["code"]), (403, &json!("FORBIDDEN")), "{origin}");
        }
        assert_eq!(answer.header("access-control-allow-origin"), "", "{origin}");
    }
}

#[tokio::test]
async fn a_gateway_that_asks_for_nothing_grants_everything_and_still_narrows() {
    let gateway = with_auth(Auth::None).await;
    let status = request("status", &json!({}));
    assert_eq!(gateway.http("POST", "/rpc", &[], status.clone()).await.status, 200);
    let any = gateway.http("POST", "/rpc", &[("authorization", "Bearer whatever")], status.clone()).await;
    assert!(any.json()["result"].is_object(), "a needless credential is no fault");
    let narrowed = gateway.http("POST", "/rpc", &[("openclaw-scopes", "none")], status.clone()).await.json();
    assert_eq!(narrowed["error"]["data"]["missingScope"], "operator.read");
    let mut socket = stranger(&gateway).await;
    assert!(socket.ask(status).await["result"].is_object());
    let answer = socket.ask(connect(&json!({ "scopes": ["operator.read"] }))).await;
    assert_eq!(
        answer["result"]["auth"],
        json!({ "method": "none", "role": "operator", "scopes": ["operator.read"] })
    );
    // Pages of other sites are what it must still be guarded against.
    let foreign = [("origin", "https://evil.example")];
    assert_eq!(refused_upgrade(&gateway, &foreign).await.0, 403);
}

#[tokio::test]
async fn connect_has_no_meaning_over_http() {
    let gateway = TestGateway::start().await;
    let answer = gateway.call(ConnectMethod::Connect.name(), json!({})).await;
    assert_eq!(answer["error"]["data"]["code"], "INVALID_REQUEST", "{answer}");
    assert!(answer["error"]["message"].as_str().is_some_and(|text| text.contains("Authorization: Bearer")));
}

#[tokio::test]
async fn a_message_before_authentication_has_64_kib_and_more_after_it() {
    let gateway = TestGateway::start().await;
    let mut socket = stranger(&gateway).await;
    let answer = socket.ask(padded(READ, 65_536)).await;
    assert_eq!(answer["error"]["data"]["code"], "UNAUTHORIZED", "{answer}");
    let granted = socket.ask(padded(&connect(&json!({ "auth": { "token": TOKEN } })), 65_536)).await;
    assert!(granted["result"].is_object(), "{granted}");
    assert!(socket.ask(padded(READ, 65_537)).await["result"].is_object());
    assert!(socket.ask(padded(READ, 1_000_000)).await["result"].is_object());

    let mut socket = stranger(&gateway).await;
    socket.send(padded(READ, 65_537)).await;
    let (code, reason) = closed(&mut socket).await;
    assert_eq!(code, 1009, "{reason}");
    assert!(reason.contains("65536 are allowed"), "{reason}");
}

#[tokio::test]
async fn a_message_after_authentication_has_its_bound_too() {
    let gateway = TestGateway::with_limits(|limits| limits.max_payload_bytes = 100_000).await;
    let mut socket = gateway.websocket().await;
    assert!(socket.ask(padded(READ, 100_000)).await["result"].is_object());
    socket.send(padded(READ, 100_001)).await;
    let (code, reason) = closed(&mut socket).await;
    assert_eq!((code, reason.contains("100000 are allowed")), (1009, true), "{reason}");
}

#[tokio::test]
async fn who_does_not_authenticate_in_time_is_closed() {
    let gateway =
        TestGateway::with_limits(|limits| limits.authentication_timeout = Duration::from_millis(150)).await;
    let mut silent = stranger(&gateway).await;
    let mut talking = stranger(&gateway).await;
    let mut known = stranger(&gateway).await;
    assert!(known.ask(connect(&json!({ "auth": { "token": TOKEN } }))).await["result"].is_object());
    assert!(talking.ask(READ).await["error"].is_object());
    for socket in [&mut silent, &mut talking] {
        assert_eq!(closed(socket).await, (1008, "no authentication in time".to_owned()));
    }
    assert!(known.ask(READ).await["result"].is_object(), "who did stays");
}

#[tokio::test]
async fn strangers_are_bounded_in_number_and_do_not_keep_others_out() {
    let gateway = TestGateway::with_limits(|limits| limits.max_unauthenticated = 2).await;
    let mut first = stranger(&gateway).await;
    let second = stranger(&gateway).await;
    let (status, body) = refused_upgrade(&gateway, &[]).await;
    assert_eq!((status, &body["error"]["data"]["code"]), (503, &json!("UNAVAILABLE")), "{body}");
    assert_eq!(body["error"]["data"]["retryable"], true);
    let mut known = gateway.websocket().await;
    let health = known.ask(request("health", &json!({ "probe": true }))).await;
    assert_eq!(health["result"]["runtime"]["unauthenticatedConnections"], 2, "{health}");
    // A place is free again once someone has authenticated, and once someone has left.
    assert!(first.ask(connect(&json!({ "auth": { "token": TOKEN } }))).await["result"].is_object());
    let _third = stranger(&gateway).await;
    assert_eq!(refused_upgrade(&gateway, &[]).await.0, 503);
    drop(second);
    let freed = async {
        while gateway.websocket_with("/rpc", &[]).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    soon(freed).await;
}

#[tokio::test]
async fn secrets_are_in_no_answer() {
    let gateway = TestGateway::start().await;
    let secret = "not-the-secret-but-somebodys";
    let mut answers = Vec::new();
    let bearer = format!("Bearer {secret}");
    answers.push(gateway.http("POST", "/rpc", &[("authorization", &bearer)], READ).await.text());
    for params in [
        json!({ "auth": { "token": secret } }),
        json!({ "auth": { "password": secret } }),
        json!({ "auth": { "token": [secret] } }),
    ] {
        let mut socket = stranger(&gateway).await;
        answers.push(socket.ask(connect(&params)).await.to_string());
    }
    for answer in answers {
        assert!(!answer.contains(secret), "{answer}");
    }
}
