//! What was recorded of a stock gateway in wire.md, sections 4 and 12, row by row over real sockets: error code,
//! message, details, close code and reason.
//!
//! `HANDSHAKES` holds the rows of section 4 and the rows of section 12 before authentication, in the order of the
//! tables there; each begins with its section. Rows that need a history have a test of their own:
//!
//! | row | test |
//! | --- | --- |
//! | 4: unknown device token, other device, other role; scopes beyond grant | `a_device_token_…` |
//! | 4: bad or used bootstrap token; 6: bootstrap | `a_setup_code_…` |
//! | 4: more than ten failures | `after_ten_failures_…` |
//! | 4: pairing needed; via a proxy `cli` has no scopes | `who_must_be_approved_…`, `guards::who_comes_through_…` |
//! | 4: server shutting down; 12: SIGTERM | `a_gateway_that_stops_…` |
//! | 4: device-less connects; mode `none` | `without_a_device_…`, `where_nothing_is_asked_for_…` |
//! | 12: nothing for 15 s; missing pongs | `silence_…` |
//! | 12: frame sizes | `sizes_…` |
//! | 12: after authentication | `frames::faulty_frames_…`, `sixty_forbidden_calls_…` |
//! | 12: rotate or revoke of the own token | `a_device_that_replaces_its_own_token_…` |
//!
//! Rows that cannot be had:
//!
//! - Ranges of protocol 3 alone, (3,3) and (1,3), are refused by stock and served here: that is what this gateway is
//!   for. `frames::protocol_three_…` has them.
//! - "Control UI without the matching buildId": this gateway serves no Control UI that could be older or newer.
//! - "Server still starting": this gateway does not listen before it can serve.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::future::join_all;
use openclaw_gateway::{backend::echo::EchoBackend, settings::Auth};
use openclaw_schema::{
    events::EventName,
    methods::{agent::AgentMethod, device::DeviceMethod, gateway::GatewayMethod},
};
use openclaw_tests::harness::{Socket, TOKEN, TestGateway, padded, soon};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::Error;

use crate::frames::{Device, command_line, connect, connected, event, open, open_with, request, response};

/// One handshake that is refused.
struct Row {
    case: &'static str,
    /// What is sent, given the challenge.
    send: fn(&Value) -> String,
    /// `error` of the response, which holds at least this; no response where it is null.
    error: Value,
    close: u16,
    reason: Reason,
}

enum Reason {
    Is(&'static str),
    /// The message of the error, as far as a close frame holds it.
    Message,
}

/// `error` with these details; where a code is enough, the message is left open.
fn error(code: &str, message: &str, details: Value) -> Value {
    let mut error = json!({ "code": code });
    if !message.is_empty() {
        error["message"] = json!(message);
    }
    if !details.is_null() {
        error["details"] = details;
    }
    error
}

fn invalid(message: &str) -> Value {
    error("INVALID_REQUEST", message, Value::Null)
}

fn proof(message: &str, code: &str, reason: &str) -> Value {
    error("INVALID_REQUEST", message, json!({ "code": code, "reason": reason }))
}

/// `connect` of a command line, changed.
fn with(change: impl FnOnce(&mut Value)) -> String {
    let mut params = command_line(&["operator.read"]);
    change(&mut params);
    connect(&params)
}

/// `connect` of a device that was signed first and changed then.
fn signed(challenge: &Value, before: impl FnOnce(&mut Value), after: impl FnOnce(&mut Value)) -> String {
    let mut params = command_line(&["operator.read"]);
    before(&mut params);
    let mut params = Device::new(1).sign(&params, challenge);
    after(&mut params);
    connect(&params)
}

/// Whether `actual` has every member of `expected`, with the same value.
fn holds(actual: &Value, expected: &Value) -> bool {
    match expected {
        Value::Object(members) => members.iter().all(|(name, value)| holds(&actual[name], value)),
        other => actual == other,
    }
}

async fn closed(socket: &mut Socket) -> (u16, String) {
    let frame = soon(socket.closed()).await.expect("a close frame comes");
    (frame.code.into(), frame.reason.as_str().to_owned())
}

async fn check(gateway: &TestGateway, rows: Vec<Row>) {
    for Row { case, send, error, close, reason } in rows {
        let (mut socket, challenge) = open(gateway).await;
        socket.send(send(&challenge)).await;
        let mut message = String::new();
        if !error.is_null() {
            let answer = soon(socket.next_json()).await;
            assert_eq!((&answer["type"], &answer["ok"]), (&json!("res"), &json!(false)), "{case}: {answer}");
            assert!(holds(&answer["error"], &error), "{case}: {answer:#} is not {error:#}");
            answer["error"]["message"].as_str().expect("a message").clone_into(&mut message);
        }
        let reason = match reason {
            Reason::Is(reason) => reason.to_owned(),
            Reason::Message => message.chars().take(123).collect(),
        };
        assert_eq!(closed(&mut socket).await, (close, reason), "{case}");
    }
}

fn mismatch(lowest: u32, highest: u32) -> Value {
    error(
        "INVALID_REQUEST",
        "protocol mismatch",
        json!({
            "code": "PROTOCOL_MISMATCH", "clientMinProtocol": lowest, "clientMaxProtocol": highest,
            "expectedProtocol": 4, "minimumProbeProtocol": 3,
        }),
    )
}

#[tokio::test]
async fn a_refused_handshake_has_the_recorded_answer_and_close() {
    let row = |case, send, error, close, reason| Row { case, send, error, close, reason };
    let rows = vec![
        // Section 4.
        row(
            "4: protocol range lacks 4",
            |_| with(|params| (params["minProtocol"], params["maxProtocol"]) = (json!(5), json!(6))),
            mismatch(5, 6),
            1002,
            Reason::Is("protocol mismatch"),
        ),
        row(
            "4: params schema failure",
            |_| with(|params| params["client"]["version"] = json!(7)),
            invalid("invalid connect params: at /client/version: must be string"),
            1008,
            Reason::Message,
        ),
        row(
            "4: role not operator or node",
            |_| with(|params| params["role"] = json!("king")),
            invalid("invalid role"),
            1008,
            Reason::Message,
        ),
        row(
            "4: wrong token, no device",
            |_| with(|params| params["auth"] = json!({ "token": "wrong" })),
            error(
                "INVALID_REQUEST",
                "unauthorized: gateway token mismatch (provide gateway auth token)",
                json!({
                    "code": "AUTH_TOKEN_MISMATCH", "authReason": "token_mismatch", "canRetryWithDeviceToken": false,
                    "recommendedNextStep": "update_auth_credentials",
                }),
            ),
            1008,
            Reason::Message,
        ),
        row(
            "4: wrong token, device present",
            |challenge| signed(challenge, |params| params["auth"] = json!({ "token": "wrong" }), |_| {}),
            error(
                "INVALID_REQUEST",
                "",
                json!({
                    "code": "AUTH_TOKEN_MISMATCH", "authReason": "token_mismatch", "canRetryWithDeviceToken": true,
                    "recommendedNextStep": "retry_with_device_token",
                }),
            ),
            1008,
            Reason::Message,
        ),
        row(
            "4: token bad and password good in token mode",
            |_| with(|params| params["auth"] = json!({ "token": "wrong", "password": TOKEN })),
            error("INVALID_REQUEST", "", json!({ "code": "AUTH_TOKEN_MISMATCH" })),
            1008,
            Reason::Message,
        ),
        row(
            "4: no token, no device",
            |_| with(|params| params["auth"] = json!({})),
            error("NOT_PAIRED", "device identity required", json!({ "code": "DEVICE_IDENTITY_REQUIRED" })),
            1008,
            Reason::Message,
        ),
        row(
            "4: no token, device present",
            |challenge| signed(challenge, |params| params["auth"] = json!({}), |_| {}),
            error(
                "INVALID_REQUEST",
                "",
                json!({
                    "code": "AUTH_TOKEN_MISSING", "authReason": "token_missing",
                    "recommendedNextStep": "update_auth_configuration",
                }),
            ),
            1008,
            Reason::Message,
        ),
        row(
            "4: signature wrong",
            |challenge| signed(challenge, |_| {}, |params| params["scopes"] = json!(["operator.admin"])),
            proof("device signature invalid", "DEVICE_AUTH_SIGNATURE_INVALID", "device-signature"),
            1008,
            Reason::Message,
        ),
        row(
            "4: signedAt too far from now",
            |challenge| {
                signed(
                    challenge,
                    |_| {},
                    |params| {
                        let signed_at = params["device"]["signedAt"].as_u64().expect("a number");
                        params["device"]["signedAt"] = json!(signed_at - 130_000);
                    },
                )
            },
            proof("device signature expired", "DEVICE_AUTH_SIGNATURE_EXPIRED", "device-signature-stale"),
            1008,
            Reason::Message,
        ),
        row(
            "4: nonce blank",
            |challenge| signed(challenge, |_| {}, |params| params["device"]["nonce"] = json!("  ")),
            proof("device nonce required", "DEVICE_AUTH_NONCE_REQUIRED", "device-nonce-missing"),
            1008,
            Reason::Message,
        ),
        row(
            "4: nonce empty fails the schema",
            |challenge| signed(challenge, |_| {}, |params| params["device"]["nonce"] = json!("")),
            invalid("invalid connect params: at /device/nonce: must not have fewer than 1 characters"),
            1008,
            Reason::Message,
        ),
        row(
            "4: nonce is not the challenge's",
            |challenge| signed(challenge, |_| {}, |params| params["device"]["nonce"] = json!("another")),
            proof("device nonce mismatch", "DEVICE_AUTH_NONCE_MISMATCH", "device-nonce-mismatch"),
            1008,
            Reason::Message,
        ),
        row(
            "4: id is not the key's",
            |challenge| signed(challenge, |_| {}, |params| params["device"]["id"] = json!("0000")),
            proof("device identity mismatch", "DEVICE_AUTH_DEVICE_ID_MISMATCH", "device-id-mismatch"),
            1008,
            Reason::Message,
        ),
        row(
            "4: undecodable key",
            |challenge| signed(challenge, |_| {}, |params| params["device"]["publicKey"] = json!("?")),
            proof("device identity mismatch", "DEVICE_AUTH_DEVICE_ID_MISMATCH", "device-id-mismatch"),
            1008,
            Reason::Message,
        ),
        row(
            "4: Control UI without Origin",
            |_| with(|params| params["client"]["id"] = json!("openclaw-control-ui")),
            error(
                "INVALID_REQUEST",
                "",
                json!({ "code": "CONTROL_UI_ORIGIN_NOT_ALLOWED", "reason": "origin missing or invalid" }),
            ),
            1008,
            Reason::Message,
        ),
        row(
            "4: mode webchat without Origin",
            |_| with(|params| params["client"]["mode"] = json!("webchat")),
            error(
                "INVALID_REQUEST",
                "",
                json!({ "code": "CONTROL_UI_ORIGIN_NOT_ALLOWED", "reason": "origin missing or invalid" }),
            ),
            1008,
            Reason::Message,
        ),
        row(
            "4: openclaw-tui without a device",
            |_| with(|params| params["client"]["id"] = json!("openclaw-tui")),
            error("INVALID_REQUEST", "", json!({ "code": "CONTROL_UI_DEVICE_IDENTITY_REQUIRED" })),
            1008,
            Reason::Message,
        ),
        row(
            "4: mode worker",
            |_| with(|params| params["client"]["mode"] = json!("worker")),
            Value::Null,
            1008,
            Reason::Is("invalid-handshake"),
        ),
        // Section 3: the order of the checks.
        row(
            "3: protocol before credential",
            |_| {
                with(|params| {
                    (params["minProtocol"], params["auth"]) = (json!(9), json!({ "token": "wrong" }))
                })
            },
            mismatch(9, 4),
            1002,
            Reason::Is("protocol mismatch"),
        ),
        row(
            "3: role before credential",
            |_| {
                with(|params| (params["role"], params["auth"]) = (json!("king"), json!({ "token": "wrong" })))
            },
            invalid("invalid role"),
            1008,
            Reason::Message,
        ),
        row(
            "3: signature before credential",
            |challenge| signed(challenge, |_| {}, |params| params["auth"] = json!({ "token": "wrong" })),
            proof("device signature invalid", "DEVICE_AUTH_SIGNATURE_INVALID", "device-signature"),
            1008,
            Reason::Message,
        ),
        // Section 12.
        row("12: malformed JSON", |_| "{".to_owned(), Value::Null, 1000, Reason::Is("")),
        row("12: empty text", |_| String::new(), Value::Null, 1000, Reason::Is("")),
        row("12: array", |_| "[1,2]".to_owned(), Value::Null, 1008, Reason::Is("invalid request frame")),
        row("12: text", |_| "\"x\"".to_owned(), Value::Null, 1008, Reason::Is("invalid request frame")),
        row(
            "12: event frame",
            |_| r#"{"type":"event","event":"x"}"#.to_owned(),
            Value::Null,
            1008,
            Reason::Is("invalid request frame"),
        ),
        row(
            "12: req without id",
            |_| r#"{"type":"req","method":"connect"}"#.to_owned(),
            Value::Null,
            1008,
            Reason::Is("invalid request frame"),
        ),
        row(
            "12: req other than connect",
            |_| request("c", GatewayMethod::Health.name(), &json!({})),
            invalid("invalid handshake: first request must be connect"),
            1008,
            Reason::Message,
        ),
        row(
            "12: connect without params",
            |_| r#"{"type":"req","id":"c","method":"connect"}"#.to_owned(),
            invalid("invalid connect params: must be object"),
            1008,
            Reason::Message,
        ),
        row(
            "12: empty params",
            |_| connect(&json!({})),
            invalid("invalid connect params: must have required property 'minProtocol'"),
            1008,
            Reason::Message,
        ),
        row(
            "12: extra property in params",
            |_| with(|params| params["foo"] = json!(1)),
            invalid("invalid connect params: at root: unexpected property 'foo'"),
            1008,
            Reason::Message,
        ),
        row(
            "12: extra property in auth",
            |_| with(|params| params["auth"]["foo"] = json!(1)),
            invalid("invalid connect params: at /auth: unexpected property 'foo'"),
            1008,
            Reason::Message,
        ),
        row(
            "12: extra property in device",
            |challenge| signed(challenge, |_| {}, |params| params["device"]["foo"] = json!(1)),
            invalid("invalid connect params: at /device: unexpected property 'foo'"),
            1008,
            Reason::Message,
        ),
        row(
            "12: unknown client id",
            |_| with(|params| params["client"]["id"] = json!("acme")),
            invalid("invalid connect params: at /client/id: must be equal to one of the allowed values"),
            1008,
            Reason::Message,
        ),
        row(
            "12: unknown client mode",
            |_| with(|params| params["client"]["mode"] = json!("operator")),
            invalid("invalid connect params: at /client/mode: must be equal to one of the allowed values"),
            1008,
            Reason::Message,
        ),
        row(
            "12: minProtocol 0",
            |_| with(|params| params["minProtocol"] = json!(0)),
            invalid("invalid connect params: at /minProtocol: must be >= 1"),
            1008,
            Reason::Message,
        ),
        row(
            "12: lowest above highest",
            |_| with(|params| params["minProtocol"] = json!(5)),
            mismatch(5, 4),
            1002,
            Reason::Is("protocol mismatch"),
        ),
        row(
            "12: protocol 2 alone",
            |_| with(|params| (params["minProtocol"], params["maxProtocol"]) = (json!(2), json!(2))),
            mismatch(2, 2),
            1002,
            Reason::Is("protocol mismatch"),
        ),
        row(
            "12: protocol 5 alone",
            |_| with(|params| (params["minProtocol"], params["maxProtocol"]) = (json!(5), json!(5))),
            mismatch(5, 5),
            1002,
            Reason::Is("protocol mismatch"),
        ),
    ];
    check(&TestGateway::start().await, rows).await;
}

#[tokio::test]
async fn a_gateway_with_a_password_says_so() {
    let change = |settings: &mut openclaw_gateway::settings::Settings| {
        settings.auth = Auth::Password("hunter2".into());
    };
    let gateway = TestGateway::start_with(change, |builder| builder).await;
    let rows = vec![
        Row {
            case: "4: password missing",
            send: |challenge| signed(challenge, |params| params["auth"] = json!({}), |_| {}),
            error: error(
                "INVALID_REQUEST",
                "",
                json!({ "code": "AUTH_PASSWORD_MISSING", "authReason": "password_missing" }),
            ),
            close: 1008,
            reason: Reason::Message,
        },
        Row {
            case: "4: password mismatch; of two fields the password decides",
            send: |_| with(|params| params["auth"] = json!({ "token": "hunter2", "password": "wrong" })),
            error: error(
                "INVALID_REQUEST",
                "",
                json!({ "code": "AUTH_PASSWORD_MISMATCH", "authReason": "password_mismatch" }),
            ),
            close: 1008,
            reason: Reason::Message,
        },
    ];
    check(&gateway, rows).await;
    for auth in [
        json!({ "password": "hunter2" }),
        json!({ "token": "hunter2" }),
        json!({ "token": "wrong", "password": "hunter2" }),
    ] {
        let mut params = command_line(&["operator.read"]);
        params["auth"] = auth;
        let (_, hello) = connected(&gateway, &params).await;
        assert_eq!(hello["auth"]["method"], "password");
    }
}

#[tokio::test]
async fn without_a_device_the_command_line_and_back_ends_keep_their_scopes() {
    let gateway = TestGateway::start().await;
    for (id, mode, keeps) in [
        ("cli", "cli", true),
        ("gateway-client", "backend", true),
        ("cli", "ui", false),
        ("cli", "probe", false),
        ("gateway-client", "cli", false),
        ("gateway-client", "test", false),
        ("openclaw-macos", "ui", false),
        ("test", "test", false),
        ("fingerprint", "cli", false),
        ("openclaw-probe", "probe", false),
        ("node-host", "node", false),
    ] {
        let mut params = command_line(&["operator.read", "no.such.scope"]);
        (params["client"]["id"], params["client"]["mode"]) = (json!(id), json!(mode));
        let (_, hello) = connected(&gateway, &params).await;
        let scopes = if keeps { json!(["operator.read", "no.such.scope"]) } else { json!([]) };
        assert_eq!(hello["auth"]["scopes"], scopes, "{id}/{mode}");
    }
}

#[tokio::test]
async fn where_nothing_is_asked_for_a_back_end_alone_may_do_without_a_device() {
    let gateway = TestGateway::start_with(|settings| settings.auth = Auth::None, |builder| builder).await;
    for auth in [json!({}), json!({ "token": "whatever" })] {
        let (mut socket, _) = open(&gateway).await;
        let mut params = command_line(&["operator.read"]);
        params["auth"] = auth;
        let refused = soon(socket.ask(connect(&params))).await;
        assert_eq!(refused["error"]["details"]["code"], "DEVICE_IDENTITY_REQUIRED", "{refused}");
        (params["client"]["id"], params["client"]["mode"]) = (json!("gateway-client"), json!("backend"));
        let (_, hello) = connected(&gateway, &params).await;
        assert_eq!(hello["auth"]["method"], "none");
    }
}

fn device_token_of(hello: &Value) -> Value {
    let token = hello["payload"]["auth"]["deviceToken"].clone();
    assert!(token.is_string(), "{hello}");
    token
}

#[tokio::test]
async fn a_device_token_is_good_for_its_device_role_and_scopes() {
    let gateway = TestGateway::start().await;
    let (first, second) = (Device::new(1), Device::new(2));
    let (_socket, hello) = first.connect(&gateway, &command_line(&["operator.read"])).await;
    let token = device_token_of(&hello);
    let mut params = command_line(&["operator.read"]);
    params["auth"] = json!({ "deviceToken": token });
    let (_socket, known) = first.connect(&gateway, &params).await;
    assert_eq!(known["payload"]["auth"]["method"], "device-token");
    let mut as_token = params.clone();
    as_token["auth"] = json!({ "token": token });
    let (_socket, known) = first.connect(&gateway, &as_token).await;
    assert_eq!(known["payload"]["auth"]["method"], "device-token");

    let mut unknown = params.clone();
    unknown["auth"] = json!({ "deviceToken": "unknown" });
    let mut node = params.clone();
    node["role"] = json!("node");
    let mut more = params.clone();
    more["scopes"] = json!(["operator.admin"]);
    let of_token = ("AUTH_DEVICE_TOKEN_MISMATCH", "update_auth_credentials");
    let of_scopes = ("AUTH_SCOPE_MISMATCH", "review_auth_configuration");
    for (case, device, params, (code, next)) in [
        ("unknown", &first, &unknown, of_token),
        ("other device", &second, &params, of_token),
        ("other role", &first, &node, of_token),
        ("scopes beyond grant", &first, &more, of_scopes),
    ] {
        let (mut socket, refused) = device.connect(&gateway, params).await;
        let error = &refused["error"];
        assert_eq!(
            (&error["code"], &error["details"]["code"]),
            (&json!("INVALID_REQUEST"), &json!(code)),
            "{case}"
        );
        assert_eq!(error["details"]["recommendedNextStep"], next, "{case}");
        let message = error["message"].as_str().expect("a message");
        assert!(message.starts_with("unauthorized: device token"), "{case}: {message}");
        assert_eq!(closed(&mut socket).await, (1008, message.to_owned()), "{case}");
    }
}

#[tokio::test]
async fn a_device_that_replaces_its_own_token_is_answered_and_then_closed() {
    let gateway = TestGateway::start().await;
    let device = Device::new(1);
    let (_, hello) = device.connect(&gateway, &command_line(&["operator.pairing"])).await;
    let mut params = command_line(&["operator.pairing"]);
    params["auth"] = json!({ "deviceToken": device_token_of(&hello) });
    let target = json!({ "deviceId": device.id(), "role": "operator" });

    let (mut socket, _) = device.connect(&gateway, &params).await;
    socket.send(request("r", DeviceMethod::DeviceTokenRotate.name(), &target)).await;
    let rotated = response(&mut socket, "r").await;
    assert_eq!(rotated["payload"]["tokenDelivery"], "in-band", "{rotated}");
    assert_eq!(closed(&mut socket).await, (4001, "device removed".to_owned()));

    // The old token is none any more, and the shared secret tells the new one.
    params["auth"] = json!({ "token": params["auth"]["deviceToken"] });
    let (_, refused) = device.connect(&gateway, &params).await;
    assert_eq!(refused["error"]["details"]["code"], "AUTH_TOKEN_MISMATCH", "{refused}");
    let (_, again) = device.connect(&gateway, &command_line(&["operator.pairing"])).await;
    assert_eq!(device_token_of(&again), rotated["payload"]["token"]);

    params["auth"] = json!({ "deviceToken": rotated["payload"]["token"] });
    let (mut socket, _) = device.connect(&gateway, &params).await;
    socket.send(request("r", DeviceMethod::DeviceTokenRevoke.name(), &target)).await;
    assert_eq!(response(&mut socket, "r").await["ok"], true);
    assert_eq!(closed(&mut socket).await, (4001, "device removed".to_owned()));
}

/// A gateway to which loopback is a proxy.
async fn behind_a_proxy() -> TestGateway {
    let change = |settings: &mut openclaw_gateway::settings::Settings| {
        settings.trust.proxies = vec!["127.0.0.1".parse().expect("a network")];
    };
    TestGateway::start_with(change, |builder| builder).await
}

/// The headers of a client elsewhere.
const REMOTE: [(&str, &str); 1] = [("x-forwarded-for", "10.1.2.3")];

#[tokio::test]
async fn who_must_be_approved_is_told_the_request_and_asks_once() {
    let gateway = behind_a_proxy().await;
    let device = Device::new(1);
    let scopes = ["operator.read", "operator.write", "operator.admin"];
    let (mut socket, first) = device.connect_with(&gateway, &command_line(&scopes), &REMOTE).await;
    let request_id = first["error"]["details"]["requestId"].as_str().expect("an id").to_owned();
    let expected = json!({
        "code": "NOT_PAIRED", "message": "pairing required: device is not approved yet",
        "details": {
            "code": "PAIRING_REQUIRED", "reason": "not-paired", "requestId": request_id,
            "remediationHint": "Approve this device from the pending pairing requests.",
            "deviceId": device.id(), "requestedRole": "operator", "requestedScopes": scopes,
        },
    });
    assert_eq!(first["error"], expected);
    let reason = format!("pairing required: device is not approved yet (requestId: {request_id})");
    assert_eq!(closed(&mut socket).await, (1008, reason));
    let (_, second) = device.connect_with(&gateway, &command_line(&scopes), &REMOTE).await;
    assert_eq!(second["error"]["details"]["requestId"], request_id.as_str());
}

#[tokio::test]
async fn after_ten_failures_the_right_token_is_refused_too() {
    let gateway = behind_a_proxy().await;
    let mut wrong = command_line(&[]);
    wrong["auth"] = json!({ "token": "wrong" });
    let attempt = async |params: Value| {
        let (mut socket, _) = open_with(&gateway, &REMOTE).await;
        let answer = soon(socket.ask(connect(&params))).await;
        let (code, reason) = closed(&mut socket).await;
        assert_eq!((code, reason.as_str()), (1008, answer["error"]["message"].as_str().expect("a message")));
        answer["error"].clone()
    };
    for error in join_all((0..10).map(|_| attempt(wrong.clone()))).await {
        assert_eq!(error["details"]["code"], "AUTH_TOKEN_MISMATCH", "{error}");
    }
    for params in [wrong.clone(), command_line(&[])] {
        let error = attempt(params).await;
        assert_eq!(error["message"], "unauthorized: too many failed authentication attempts (retry later)");
        let details = json!({ "code": "AUTH_RATE_LIMITED", "recommendedNextStep": "wait_then_retry" });
        assert!(
            holds(&error, &json!({ "code": "INVALID_REQUEST", "details": details, "retryable": true })),
            "{error}"
        );
        assert!((290_000..=300_000).contains(&error["retryAfterMs"].as_u64().expect("a number")), "{error}");
    }
}

#[tokio::test]
async fn a_setup_code_pairs_one_device_from_anywhere_once() {
    let gateway = behind_a_proxy().await;
    let (mut owner, _) = connected(&gateway, &command_line(&["operator.admin"])).await;
    let (mut watcher, _) = connected(&gateway, &command_line(&["operator.pairing"])).await;
    let mut call = async |method: DeviceMethod, params: Value| {
        owner.send(request("s", method.name(), &params)).await;
        response(&mut owner, "s").await
    };
    let refused = call(DeviceMethod::DevicePairSetupCode, json!({})).await;
    assert_eq!(refused["error"]["code"], "INVALID_REQUEST", "nobody else reaches loopback: {refused}");
    let url = "wss://gateway.example.com";
    let issued =
        call(DeviceMethod::DevicePairSetupCode, json!({ "publicUrl": url })).await["payload"].clone();
    assert!(holds(&issued, &json!({ "gatewayUrl": url, "auth": "token", "access": "full" })), "{issued}");
    let content = URL_SAFE_NO_PAD.decode(issued["setupCode"].as_str().expect("a text")).expect("base64url");
    let content: Value = serde_json::from_slice(&content).expect("it is JSON");
    assert_eq!((&content["url"], &content["expiresAtMs"]), (&json!(url), &issued["expiresAtMs"]));
    let status = json!({ "setupId": issued["setupId"] });
    assert_eq!(call(DeviceMethod::DevicePairSetupStatus, status.clone()).await["payload"], json!({}));

    let params = |role: &str, scopes: &[&str], token: &Value| {
        let mut params = command_line(scopes);
        (params["role"], params["auth"]) = (json!(role), json!({ "bootstrapToken": token }));
        params
    };
    let token = &content["bootstrapToken"];
    let node = params("node", &[], token);
    let invalid = json!({
        "code": "AUTH_BOOTSTRAP_TOKEN_INVALID", "authReason": "bootstrap_token_invalid",
        "recommendedNextStep": "review_auth_configuration",
    });
    let device = Device::new(1);
    // Neither a guess nor an attempt without a key uses it up.
    let (_, guess) = device.connect_with(&gateway, &params("node", &[], &json!("guess")), &REMOTE).await;
    assert!(holds(&guess["error"]["details"], &invalid), "{guess}");
    let (mut socket, _) = open_with(&gateway, &REMOTE).await;
    let deviceless = soon(socket.ask(connect(&node))).await;
    assert_eq!(deviceless["error"]["details"]["code"], "DEVICE_IDENTITY_REQUIRED", "{deviceless}");

    let (_socket, hello) = device.connect_with(&gateway, &node, &REMOTE).await;
    let auth = &hello["payload"]["auth"];
    assert!(holds(auth, &json!({ "method": "bootstrap-token", "role": "node", "scopes": [] })), "{hello}");
    let operator = &auth["deviceTokens"][0];
    let scopes =
        ["operator.admin", "operator.approvals", "operator.read", "operator.talk.secrets", "operator.write"];
    assert!(holds(operator, &json!({ "role": "operator", "scopes": scopes })), "{hello}");

    // Used: by another device and by the same one.
    for device in [Device::new(2), Device::new(1)] {
        let (mut socket, used) = device.connect_with(&gateway, &node, &REMOTE).await;
        assert!(holds(&used["error"], &json!({ "code": "INVALID_REQUEST", "details": invalid })), "{used}");
        let message = used["error"]["message"].as_str().expect("a message");
        assert!(
            message.starts_with("unauthorized: setup code invalid, expired, revoked, or already used"),
            "{used}"
        );
        assert_eq!(closed(&mut socket).await.0, 1008);
    }
    let completed = call(DeviceMethod::DevicePairSetupStatus, status).await["payload"]["completion"].clone();
    assert!(holds(&completed, &json!({ "deviceId": device.id(), "access": "full" })), "{completed}");
    let listed = call(DeviceMethod::DevicePairList, json!({})).await;
    assert_eq!(listed["payload"]["paired"][0]["approvedVia"], "bootstrap");

    // Both tokens are good from anywhere, without anyone's approval.
    for (role, scopes, token) in
        [("node", &[][..], &auth["deviceToken"]), ("operator", &["operator.read"], &operator["deviceToken"])]
    {
        let mut params = command_line(scopes);
        (params["role"], params["auth"]) = (json!(role), json!({ "deviceToken": token }));
        let (_, hello) = device.connect_with(&gateway, &params, &REMOTE).await;
        assert_eq!(hello["payload"]["auth"]["method"], "device-token", "{hello}");
    }
    let told = event(&mut watcher, EventName::DevicePairSetupCompleted.name()).await;
    assert_eq!(told["payload"], completed);
}

#[tokio::test]
async fn a_setup_code_grants_no_more_than_it_says() {
    let gateway = behind_a_proxy().await;
    let make = json!({ "publicUrl": "wss://gateway.example.com", "bootstrapProfile": "limited" });
    let issued = gateway.call(DeviceMethod::DevicePairSetupCode.name(), make).await;
    let code = issued["result"]["setupCode"].as_str().expect("a text");
    let content: Value =
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(code).expect("base64url")).expect("it is JSON");
    let device = Device::new(1);
    let mut params = command_line(&["operator.admin"]);
    params["auth"] = json!({ "bootstrapToken": content["bootstrapToken"] });
    let (_, refused) = device.connect_with(&gateway, &params, &REMOTE).await;
    assert_eq!(refused["error"]["details"]["code"], "AUTH_SCOPE_MISMATCH", "{refused}");
    // The code is as good as before: what it grants is had with it.
    params["scopes"] = json!(["operator.read"]);
    let (_, hello) = device.connect_with(&gateway, &params, &REMOTE).await;
    let auth = &hello["payload"]["auth"];
    let expected = json!({ "method": "bootstrap-token", "role": "operator", "scopes": ["operator.read"] });
    assert!(holds(auth, &expected), "{hello}");
    assert_eq!(auth["deviceTokens"][0]["role"], "node");
    params["scopes"] = json!(["operator.admin"]);
    params["auth"] = json!({ "deviceToken": auth["deviceToken"] });
    let (_, refused) = device.connect_with(&gateway, &params, &REMOTE).await;
    assert_eq!(refused["error"]["details"]["code"], "AUTH_SCOPE_MISMATCH", "{refused}");
}

#[tokio::test]
async fn a_setup_code_over_an_open_way_grants_less() {
    let gateway = TestGateway::start().await;
    let access = async |params: Value| {
        let answer = gateway.call(DeviceMethod::DevicePairSetupCode.name(), params).await;
        (answer["result"]["access"].clone(), answer["result"]["accessDowngraded"].clone())
    };
    let lan = "ws://192.168.0.7:18789";
    assert_eq!(access(json!({ "publicUrl": lan })).await, (json!("limited"), json!(true)));
    assert_eq!(access(json!({ "publicUrl": "ws://127.0.0.1:1" })).await, (json!("full"), Value::Null));
    for profile in ["limited", "node"] {
        let params = json!({ "publicUrl": lan, "bootstrapProfile": profile });
        assert_eq!(access(params).await, (json!(profile), Value::Null));
    }
    for url in ["ws://gateway.example.com", "gateway.example.com"] {
        let params = json!({ "publicUrl": url });
        let refused = gateway.call(DeviceMethod::DevicePairSetupCode.name(), params).await;
        assert_eq!(refused["error"]["data"]["path"], "/publicUrl", "{refused}");
    }
}

#[tokio::test]
async fn silence_ends_a_connection_without_a_reason() {
    let gateway = TestGateway::with_limits(|limits| {
        limits.authentication_timeout = Duration::from_millis(150);
        limits.ping_interval = Duration::from_millis(100);
    })
    .await;
    // Section 12: nothing for 15 seconds, here 150 ms. The harness answers pings.
    let (mut socket, _) = open(&gateway).await;
    assert_eq!(closed(&mut socket).await, (1000, String::new()));

    // Section 12: missing pongs. The connection is cut, without a close frame.
    let gateway = TestGateway::with_limits(|limits| limits.ping_interval = Duration::from_millis(100)).await;
    let mut stream = tokio::net::TcpStream::connect(gateway.address()).await.expect("the gateway listens");
    let upgrade = "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                   sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(upgrade.as_bytes()).await.expect("the gateway reads");
    let mut received = Vec::new();
    // A reset is a cut as well.
    let _ = soon(stream.read_to_end(&mut received)).await;
    assert!(
        received.ends_with(b"}\x89\0"),
        "one ping, and no close frame: {}",
        String::from_utf8_lossy(&received)
    );
}

#[tokio::test]
async fn sizes_are_bounded_to_the_byte_before_and_after_authentication() {
    let gateway = TestGateway::start().await;
    let good = connect(&command_line(&["operator.read"]));
    let (mut socket, _) = open(&gateway).await;
    let hello = soon(socket.ask(padded(&good, 65_536))).await;
    assert_eq!(hello["ok"], true, "{hello}");
    let health = request("h", GatewayMethod::Health.name(), &json!({}));
    socket.send(padded(&health, 26_214_400)).await;
    assert_eq!(response(&mut socket, "h").await["ok"], true);
    socket.send(padded(&health, 26_214_401)).await;
    assert_eq!(closed(&mut socket).await, (1009, String::new()));

    let (mut socket, _) = open(&gateway).await;
    socket.send(padded(&good, 65_537)).await;
    assert_eq!(closed(&mut socket).await, (1009, String::new()));
}

#[tokio::test]
async fn sixty_forbidden_calls_in_a_row_are_sixty_answers() {
    let gateway = TestGateway::start().await;
    let (mut socket, _) = connected(&gateway, &command_line(&["operator.read"])).await;
    for _ in 0..60 {
        let list = request("p", DeviceMethod::DevicePairList.name(), &json!({}));
        socket.send(list).await;
        let answer = response(&mut socket, "p").await;
        assert_eq!(answer["error"]["code"], "FORBIDDEN", "{answer}");
        assert!(answer["error"].get("retryAfterMs").is_none(), "{answer}");
    }
    assert_eq!(soon(socket.ask(request("h", GatewayMethod::Health.name(), &json!({})))).await["ok"], true);
}

#[tokio::test]
async fn a_gateway_that_stops_takes_no_upgrade_and_closes_for_a_restart() {
    let slow = || std::sync::Arc::new(EchoBackend::new(Duration::from_millis(400)));
    let gateway = TestGateway::start_with(|_| {}, |builder| builder.backend(slow())).await;
    let (mut socket, _) = connected(&gateway, &command_line(&["operator.write"])).await;
    let run = json!({ "message": "hello", "idempotencyKey": "k1" });
    socket.send(request("r", AgentMethod::Agent.name(), &run)).await;
    assert_eq!(response(&mut socket, "r").await["payload"]["status"], "accepted");
    let (peer, url) = (gateway.peer(), gateway.url());
    let stopping = tokio::spawn(gateway.shutdown());
    while peer.http("GET", "/readyz", &[], "").await.status == 200 {}
    match tokio_tungstenite::connect_async(&url).await {
        Err(Error::Http(response)) => {
            assert_eq!(response.status(), 503);
            let kind = response.headers()["content-type"].to_str().expect("a text");
            assert!(kind.starts_with("text/plain"), "{kind}");
        }
        other => panic!("the upgrade was not refused: {other:?}"),
    }
    // Section 10: calls are refused, and what runs ends.
    socket.send(request("h", GatewayMethod::Health.name(), &json!({}))).await;
    let refused = response(&mut socket, "h").await["error"].clone();
    let expected = json!({ "code": "UNAVAILABLE", "retryable": true, "retryAfterMs": 1000 });
    assert!(holds(&refused, &expected), "{refused}");
    assert_eq!(response(&mut socket, "r").await["payload"]["status"], "ok");
    event(&mut socket, EventName::Shutdown.name()).await;
    assert_eq!(closed(&mut socket).await, (1012, "service restart".to_owned()));
    soon(stopping).await.expect("the gateway stops");
}
