//! OpenClaw frames: handshake, calls, events, devices, and the recorded edge cases.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{Signer as _, SigningKey};
use openclaw_schema::{
    document::{self, params_schema},
    events::EventName,
    methods::{
        self, agent::AgentMethod, connect::ConnectMethod, device::DeviceMethod, gateway::GatewayMethod,
    },
};
use openclaw_tests::harness::{Socket, TOKEN, TestGateway, soon};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// A frame connection, and the challenge it began with.
pub(crate) async fn open(gateway: &TestGateway) -> (Socket, Value) {
    open_with(gateway, &[]).await
}

/// The same with headers on the upgrade.
pub(crate) async fn open_with(gateway: &TestGateway, headers: &[(&'static str, &str)]) -> (Socket, Value) {
    let mut socket = gateway.websocket_with("/any/path", headers).await.expect("the upgrade is accepted");
    let challenge = soon(socket.next_json()).await;
    assert_eq!(challenge["event"], "connect.challenge");
    (socket, challenge["payload"].clone())
}

pub(crate) fn request(id: &str, method: &str, params: &Value) -> String {
    json!({ "type": "req", "id": id, "method": method, "params": params }).to_string()
}

pub(crate) fn connect(params: &Value) -> String {
    request("c", ConnectMethod::Connect.name(), params)
}

/// Params of a command line with the gateway's token.
pub(crate) fn command_line(scopes: &[&str]) -> Value {
    json!({
        "minProtocol": 4, "maxProtocol": 4, "role": "operator", "scopes": scopes, "auth": { "token": TOKEN },
        "client": { "id": "cli", "version": "1", "platform": "linux", "mode": "cli" },
    })
}

/// A connection that is in, and its `hello-ok`.
pub(crate) async fn connected(gateway: &TestGateway, params: &Value) -> (Socket, Value) {
    let (mut socket, _) = open(gateway).await;
    let hello = soon(socket.ask(connect(params))).await;
    assert_eq!(hello["ok"], true, "{hello}");
    (socket, hello["payload"].clone())
}

/// The next response to a request, events left out.
pub(crate) async fn response(socket: &mut Socket, id: &str) -> Value {
    loop {
        let frame = soon(socket.next_json()).await;
        if frame["type"] == "res" {
            assert_eq!(frame["id"], id, "{frame}");
            return frame;
        }
    }
}

/// The next event of that name.
pub(crate) async fn event(socket: &mut Socket, name: &str) -> Value {
    loop {
        let frame = soon(socket.next_json()).await;
        if frame["event"] == name {
            return frame;
        }
    }
}

/// A device with a key of its own.
pub(crate) struct Device {
    key: SigningKey,
}

impl Device {
    pub(crate) fn new(seed: u8) -> Self {
        Self { key: SigningKey::from_bytes(&[seed; 32]) }
    }

    pub(crate) fn id(&self) -> String {
        Sha256::digest(self.key.verifying_key().as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// `params` with the proof that protocol 3 of the signature asks for (wire.md section 5).
    pub(crate) fn sign(&self, params: &Value, challenge: &Value) -> Value {
        let mut params = params.clone();
        let scopes: Vec<&str> =
            params["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let client = &params["client"];
        let token = ["token", "deviceToken", "bootstrapToken"].map(|field| text(&params["auth"][field]));
        let payload = [
            "v3".to_owned(),
            self.id(),
            text(&client["id"]),
            text(&client["mode"]),
            text(&params["role"]),
            scopes.join(","),
            challenge["ts"].to_string(),
            token.into_iter().find(|token| !token.is_empty()).unwrap_or_default(),
            text(&challenge["nonce"]),
            text(&client["platform"]),
            String::new(),
        ]
        .join("|");
        params["device"] = json!({
            "id": self.id(),
            "publicKey": URL_SAFE_NO_PAD.encode(self.key.verifying_key().as_bytes()),
            "signature": URL_SAFE_NO_PAD.encode(self.key.sign(payload.as_bytes()).to_bytes()),
            "signedAt": challenge["ts"],
            "nonce": challenge["nonce"],
        });
        params
    }

    pub(crate) async fn connect(&self, gateway: &TestGateway, params: &Value) -> (Socket, Value) {
        self.connect_with(gateway, params, &[]).await
    }

    /// The same with headers on the upgrade.
    pub(crate) async fn connect_with(
        &self,
        gateway: &TestGateway,
        params: &Value,
        headers: &[(&'static str, &str)],
    ) -> (Socket, Value) {
        let (mut socket, challenge) = open_with(gateway, headers).await;
        let answer = soon(socket.ask(connect(&self.sign(params, &challenge)))).await;
        (socket, answer)
    }
}

#[tokio::test]
async fn a_command_line_connects_and_calls() {
    let gateway = TestGateway::start().await;
    let (mut socket, hello) = connected(&gateway, &command_line(&["operator.read"])).await;
    assert_eq!((&hello["type"], &hello["protocol"]), (&json!("hello-ok"), &json!(4)));
    assert_eq!(hello["auth"], json!({ "method": "token", "role": "operator", "scopes": ["operator.read"] }));
    assert_eq!(hello["policy"]["maxPayload"], 26_214_400);
    let named: Vec<&str> =
        hello["features"]["methods"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert!(methods::all().all(|record| named.contains(&record.name)), "{named:?}");
    let health = soon(socket.ask(request("2:x", GatewayMethod::Health.name(), &json!({})))).await;
    assert_eq!((&health["id"], &health["payload"]["ok"]), (&json!("2:x"), &json!(true)));
    let refused = soon(socket.ask(request("3", AgentMethod::Agent.name(), &json!({})))).await;
    assert_eq!(
        refused["error"],
        json!({
            "code": "FORBIDDEN", "message": "missing scope: operator.write",
            "details": { "code": "MISSING_SCOPE", "missingScope": "operator.write", "requiredScopes": ["operator.write"] },
        })
    );
}

#[tokio::test]
async fn a_run_is_acknowledged_and_then_answered_under_one_id() {
    let gateway = TestGateway::start().await;
    let (mut socket, _) = connected(&gateway, &command_line(&["operator.admin"])).await;
    let params = json!({ "message": "hi", "idempotencyKey": "k1", "sessionKey": "main" });
    socket.send(request("r", AgentMethod::Agent.name(), &params)).await;
    let ack = response(&mut socket, "r").await;
    assert_eq!((&ack["payload"]["status"], &ack["payload"]["runId"]), (&json!("accepted"), &json!("k1")));
    let outcome = response(&mut socket, "r").await;
    assert_eq!((&outcome["ok"], &outcome["payload"]["status"]), (&json!(true), &json!("ok")));
    assert_eq!(outcome["payload"]["result"]["payloads"][0]["text"], "You said: hi");
    // A repeat after the end is answered with the stored outcome, in one frame.
    socket.send(request("again", AgentMethod::Agent.name(), &params)).await;
    assert_eq!(response(&mut socket, "again").await["payload"], outcome["payload"]);
}

#[tokio::test]
async fn events_are_numbered_without_a_hole() {
    let gateway = TestGateway::start().await;
    let (mut socket, _) = connected(&gateway, &command_line(&["operator.admin"])).await;
    let params = json!({ "message": "one two three", "idempotencyKey": "k2" });
    socket.send(request("r", AgentMethod::Agent.name(), &params)).await;
    let (mut seq, mut ended) = (0, false);
    while !ended {
        let frame = soon(socket.next_json()).await;
        if frame["type"] == "event" {
            seq += 1;
            assert_eq!(frame["seq"], seq, "{frame}");
            ended = frame["event"] == "chat" && frame["payload"]["state"] == "final";
        }
    }
}

#[tokio::test]
async fn protocol_three_is_answered_in_its_shapes() {
    let gateway = TestGateway::start().await;
    let mut params = command_line(&["operator.write"]);
    params["minProtocol"] = json!(3);
    params["maxProtocol"] = json!(3);
    let (mut socket, hello) = connected(&gateway, &params).await;
    assert_eq!(hello["protocol"], 3);
    assert!(hello.get("auth").is_none() && hello["server"]["host"].is_string(), "{hello}");
    let run = json!({ "message": "hi", "idempotencyKey": "k3" });
    socket.send(request("r", AgentMethod::Agent.name(), &run)).await;
    let ack = response(&mut socket, "r").await;
    let fields: Vec<&String> = ack["payload"].as_object().expect("an object").keys().collect();
    assert_eq!(fields, ["runId", "status", "acceptedAt"]);
    assert_eq!(response(&mut socket, "r").await["payload"]["status"], "ok");
    let refused = request("p", DeviceMethod::DevicePairList.name(), &json!({}));
    socket.send(refused).await;
    let refused = response(&mut socket, "p").await;
    assert_eq!(
        refused["error"],
        json!({ "code": "INVALID_REQUEST", "message": "missing scope: operator.pairing" })
    );
}

#[tokio::test]
async fn faulty_frames_after_the_handshake_are_answered_and_end_nothing() {
    let gateway = TestGateway::start().await;
    let (mut socket, _) = connected(&gateway, &command_line(&["operator.admin"])).await;
    // What is not JSON is passed over.
    socket.send("{").await;
    for (frame, id, message) in [
        (r#"{"type":"event","event":"x"}"#, json!("invalid"), "must have required property 'id'"),
        ("[1]", json!("invalid"), "must be object"),
        (r#"{"type":"req","id":7,"method":"health"}"#, json!(7), "at /id: must be string"),
        (
            r#"{"type":"req","id":"a","method":"health","foo":1}"#,
            json!("a"),
            "at root: unexpected property 'foo'",
        ),
        (
            r#"{"type":"req","id":"a","method":""}"#,
            json!("a"),
            "at /method: must not have fewer than 1 characters",
        ),
    ] {
        socket.send(frame).await;
        let answer = soon(socket.next_json()).await;
        assert_eq!(answer["id"], id, "{frame}");
        assert_eq!(answer["error"]["message"], format!("invalid request frame: {message}"), "{frame}");
    }
    let again = soon(socket.ask(request("c", ConnectMethod::Connect.name(), &json!({})))).await;
    assert_eq!(again["error"]["message"], "connect is only valid as the first request");
    let unknown = soon(socket.ask(request("u", "no.such", &json!({})))).await;
    assert_eq!(unknown["error"]["code"], "INVALID_REQUEST");
    assert!(
        unknown["error"]["message"].as_str().is_some_and(|text| text.starts_with("unknown method: no.such"))
    );
}

#[tokio::test]
async fn a_stop_is_an_event_and_a_close_that_clients_come_back_from() {
    let gateway = TestGateway::start().await;
    let (mut socket, _) = connected(&gateway, &command_line(&["operator.read"])).await;
    tokio::spawn(gateway.shutdown());
    let stop = event(&mut socket, EventName::Shutdown.name()).await;
    assert_eq!(stop["payload"]["reason"], "gateway stopping");
    let close = soon(socket.closed()).await.expect("a close frame");
    assert_eq!((u16::from(close.code), close.reason.as_str()), (1012, "service restart"));
}

#[tokio::test]
async fn a_device_is_paired_on_its_own_host_and_known_again() {
    let gateway = TestGateway::start().await;
    let device = Device::new(7);
    let (_socket, first) = device.connect(&gateway, &command_line(&["operator.read"])).await;
    let token = first["payload"]["auth"]["deviceToken"].as_str().expect("a device token").to_owned();
    let (_again, second) = device.connect(&gateway, &command_line(&["operator.read"])).await;
    assert_eq!(second["payload"]["auth"]["deviceToken"], token.as_str());
    let mut params = command_line(&["operator.read"]);
    params["auth"] = json!({ "deviceToken": token });
    let (mut socket, known) = device.connect(&gateway, &params).await;
    assert_eq!(known["payload"]["auth"]["method"], "device-token", "{known}");
    let health = soon(socket.ask(request("h", GatewayMethod::Health.name(), &json!({})))).await;
    assert_eq!(health["payload"]["ok"], true);
    let (mut socket, challenge) = open(&gateway).await;
    let mut forged = device.sign(&params, &challenge);
    forged["scopes"] = json!(["operator.admin"]);
    let refused = soon(socket.ask(connect(&forged))).await;
    assert_eq!(refused["error"]["details"]["code"], "DEVICE_AUTH_SIGNATURE_INVALID", "{refused}");
}

#[tokio::test]
async fn a_device_that_must_be_approved_is_and_can_be_removed() {
    let gateway =
        TestGateway::start_with(|settings| settings.auto_approve_local = false, |builder| builder).await;
    let document = document::document();
    let fits = |method: DeviceMethod, answer: &Value| {
        let published = document["methods"].as_array().expect("a list");
        let published =
            published.iter().find(|entry| entry["name"] == method.name()).expect("it is published");
        let mut schema = published["result"]["schema"].clone();
        schema["components"] = document["components"].clone();
        let validator = jsonschema::draft7::new(&schema).expect("the schema is one");
        assert!(validator.is_valid(answer), "{}: {answer:#}", method.name());
        assert!(params_schema(method.record()).is_object());
    };
    let (mut owner, _) = connected(&gateway, &command_line(&["operator.admin"])).await;
    let device = Device::new(9);
    let wanted = command_line(&["operator.read"]);
    let (mut refused, answer) = device.connect(&gateway, &wanted).await;
    assert_eq!(answer["error"]["code"], "NOT_PAIRED", "{answer}");
    let request_id = answer["error"]["details"]["requestId"].clone();
    let close = soon(refused.closed()).await.expect("a close frame");
    assert!(close.reason.as_str().starts_with("pairing required"), "{close:?}");
    let asked = event(&mut owner, EventName::DevicePairRequested.name()).await;
    assert_eq!(asked["payload"]["requestId"], request_id);

    let mut call = async |method: DeviceMethod, params: Value| {
        owner.send(request("d", method.name(), &params)).await;
        let answer = response(&mut owner, "d").await;
        assert_eq!(answer["ok"], true, "{answer}");
        fits(method, &answer["payload"]);
        answer["payload"].clone()
    };
    call(DeviceMethod::DevicePairApprove, json!({ "requestId": request_id })).await;
    let (mut paired, hello) = device.connect(&gateway, &wanted).await;
    assert_eq!(hello["ok"], true, "{hello}");
    let named = json!({ "deviceId": device.id(), "label": "phone" });
    call(DeviceMethod::DevicePairRename, named).await;
    let listed = call(DeviceMethod::DevicePairList, json!({})).await;
    assert_eq!(listed["paired"][0]["deviceId"], device.id().as_str());
    let token = json!({ "deviceId": device.id(), "role": "operator" });
    let rotated = call(DeviceMethod::DeviceTokenRotate, token.clone()).await;
    assert!(rotated.get("token").is_none(), "another device's token is not told: {rotated}");
    let close = soon(paired.closed()).await.expect("a close frame");
    assert_eq!((u16::from(close.code), close.reason.as_str()), (4001, "device removed"));
    call(DeviceMethod::DeviceTokenRevoke, token).await;
    call(DeviceMethod::DevicePairRemove, json!({ "deviceId": device.id() })).await;
    let listed = call(DeviceMethod::DevicePairList, json!({})).await;
    assert_eq!(listed["paired"], json!([]));
}
