//! Our results against the stock schema of them: what a running gateway sends is validated against the definitions
//! of npm's `@openclaw/gateway-protocol`, where it has one, and what differs must stand in `stock_schema.txt`.
//!
//! A difference that is new fails, and so does a listed one that is gone: the list only shrinks. A method whose
//! result the schema defines must be called here: see [`CALLS`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    time::Duration,
};

use jsonschema::{ValidationError, Validator, error::ValidationErrorKind};
use openclaw_schema::{
    events::EventName,
    methods::{
        self, agent::AgentMethod, agents::AgentsMethod, device::DeviceMethod, gateway::GatewayMethod,
        lifecycle::LifecycleMethod, logs::LogsMethod, models::ModelsMethod, sessions::SessionsMethod,
    },
};
use openclaw_tests::harness::{Socket, TestGateway, soon};
use serde_json::{Value, json};

use crate::{
    drift::workspace,
    frames::{Device, command_line, connect, open_with, request},
};

/// The calls whose results are checked beside those of the story in the test, with their params as JSON.
const CALLS: &[(&str, &str)] = &[
    (AgentsMethod::AgentsList.name(), "{}"),
    (GatewayMethod::Health.name(), r#"{"probe":true}"#),
    (GatewayMethod::SystemInfo.name(), "{}"),
    (GatewayMethod::SystemPresence.name(), "{}"),
    (LogsMethod::LogsTail.name(), "{}"),
    (ModelsMethod::ModelsList.name(), "{}"),
    (SessionsMethod::SessionsList.name(), "{}"),
    (SessionsMethod::SessionsResolve.name(), r#"{"key":"agent:main:main"}"#),
    (SessionsMethod::SessionsCreate.name(), r#"{"key":"other"}"#),
    (SessionsMethod::SessionsDelete.name(), r#"{"key":"other"}"#),
];

/// Results and payloads whose definition does not have their name: the whole of it, or each of the members at a
/// path. `DeviceMethod::…` and others follow the rule of [`Stock::definition`].
const PLACES: &[(&str, &str, &str)] = &[
    ("connect", "", "HelloOk"),
    ("health", "", "Snapshot/properties/health"),
    ("system-presence", "/*", "PresenceEntry"),
    ("presence", "/presence/*", "PresenceEntry"),
    ("sessions.list", "/sessions/*", "SessionRow"),
];

/// The stock schema, and how far what was seen differs from it.
struct Stock {
    schema: Value,
    validators: BTreeMap<String, Option<Validator>>,
    differences: BTreeSet<String>,
    /// The methods and events whose definition was looked for.
    seen: BTreeSet<String>,
}

impl Stock {
    /// The definition of a method's result, `AgentsListResult` for `agents.list`, or of an event's payload.
    fn definition(name: &str, suffix: &str) -> String {
        let mut definition = String::new();
        for word in name.split(['.', '-']) {
            let (first, rest) = word.split_at(1);
            definition.push_str(&first.to_uppercase());
            definition.push_str(rest);
        }
        definition + suffix
    }

    fn defines(&self, definition: &str) -> bool {
        self.schema["definitions"].get(definition).is_some()
    }

    fn result(&mut self, method: &str, result: &Value) {
        self.place(method, "Result", result);
    }

    fn event(&mut self, frame: &Value) {
        self.check("an event frame", "EventFrame", frame);
        let name = frame["event"].as_str().expect("an event has a name");
        self.place(name, "Event", &frame["payload"]);
    }

    fn place(&mut self, name: &str, suffix: &str, value: &Value) {
        self.seen.insert(name.to_owned());
        let places: Vec<_> = PLACES.iter().filter(|(of, _, _)| *of == name).collect();
        if places.is_empty() {
            return self.check(name, &Self::definition(name, suffix), value);
        }
        for (_, path, definition) in places {
            match path.strip_suffix("/*") {
                None => self.check(name, definition, value),
                Some(list) => {
                    let list = value.pointer(list).and_then(Value::as_array).expect("it is a list");
                    list.iter().for_each(|entry| self.check(&format!("{name} {path}"), definition, entry));
                }
            }
        }
    }

    /// Notes how `value` differs from a definition, if there is such a definition.
    fn check(&mut self, what: &str, definition: &str, value: &Value) {
        let schema = &self.schema;
        let validator = self.validators.entry(definition.to_owned()).or_insert_with(|| {
            let schema = schema.pointer(&format!("/definitions/{definition}"))?;
            Some(jsonschema::draft7::new(schema).expect("the stock schema is a schema"))
        });
        let Some(validator) = validator else { return };
        for error in validator.iter_errors(value) {
            self.differences.extend(described(&error).map(|problem| format!("{what} {problem}")));
        }
    }
}

/// What an error says, without what differs from run to run.
fn described(error: &ValidationError<'_>) -> impl Iterator<Item = String> {
    let path = error.instance_path().to_string();
    let path: Vec<&str> =
        path.split('/').map(|part| if part.parse::<usize>().is_ok() { "*" } else { part }).collect();
    let path = path.join("/");
    let problems = match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            unexpected.iter().map(|name| format!("{path}/{name}: unknown to stock")).collect()
        }
        ValidationErrorKind::Required { property } => {
            vec![format!("{path}/{}: missing", property.as_str().unwrap_or_default())]
        }
        _ => {
            let keyword = error.schema_path().to_string();
            let keyword = keyword.rsplit('/').next().unwrap_or_default().to_owned();
            vec![format!("{path}: not as stock's `{keyword}` says")]
        }
    };
    problems.into_iter()
}

/// The headers of a client elsewhere, by way of a proxy.
const REMOTE: [(&str, &str); 1] = [("x-forwarded-for", "10.1.2.3")];

/// A client that has everything it receives checked.
struct Client {
    socket: Socket,
    calls: u32,
}

impl Client {
    /// The response to a call. Its result is checked; events that come before it are, too.
    async fn call(&mut self, stock: &mut Stock, method: &str, params: &Value) -> Value {
        self.calls += 1;
        let id = self.calls.to_string();
        self.socket.send(request(&id, method, params)).await;
        let answer = self.until(stock, |frame| frame["id"] == id.as_str()).await;
        stock.check("a response frame", "ResponseFrame", &answer);
        if answer["ok"] == true {
            stock.result(method, &answer["payload"]);
        }
        answer
    }

    async fn event(&mut self, stock: &mut Stock, is_it: impl Fn(&Value) -> bool) -> Value {
        self.until(stock, |frame| frame["type"] == "event" && is_it(frame)).await
    }

    async fn until(&mut self, stock: &mut Stock, is_it: impl Fn(&Value) -> bool) -> Value {
        loop {
            let frame = soon(self.socket.next_json()).await;
            if frame["type"] == "event" {
                stock.event(&frame);
            }
            if is_it(&frame) {
                return frame;
            }
        }
    }
}

/// A client that is in.
async fn client(stock: &mut Stock, gateway: &TestGateway, params: &Value) -> Client {
    let (mut socket, challenge) = open_with(gateway, &[]).await;
    let challenge = json!({ "type": "event", "event": "connect.challenge", "payload": challenge });
    stock.check("an event frame", "EventFrame", &challenge);
    let hello = soon(socket.ask(connect(params))).await;
    assert_eq!(hello["ok"], true, "{hello}");
    stock.check("a response frame", "ResponseFrame", &hello);
    stock.result("connect", &hello["payload"]);
    Client { socket, calls: 0 }
}

/// Has a running gateway send everything that the schema defines.
async fn story(stock: &mut Stock) {
    let change = |settings: &mut openclaw_gateway::settings::Settings| {
        settings.trust.proxies = vec!["127.0.0.1".parse().expect("a network")];
        settings.limits.tick_interval = Duration::from_millis(100);
    };
    let gateway = TestGateway::start_with(change, |builder| builder).await;
    fs::create_dir_all(gateway.log_file().parent().expect("a folder")).expect("the folder can be made");
    fs::write(gateway.log_file(), "{\"message\":\"a line\"}\n").expect("the log can be written");
    let mut owner = client(stock, &gateway, &command_line(&["operator.admin"])).await;
    // Someone to be present.
    let mut person = command_line(&["operator.read"]);
    (person["client"]["mode"], person["client"]["displayName"]) = (json!("ui"), json!("Ada"));
    let _person = client(stock, &gateway, &person).await;

    let run = json!({ "message": "one two three", "idempotencyKey": "k1", "sessionKey": "main" });
    let ack = owner.call(stock, AgentMethod::Agent.name(), &run).await;
    assert_eq!(ack["payload"]["status"], "accepted", "{ack}");
    owner.event(stock, |frame| frame["payload"]["state"] == "final").await;
    owner.event(stock, |frame| frame["event"] == EventName::Tick.name()).await;
    for (method, params) in CALLS {
        let params = serde_json::from_str(params).expect("the params are JSON");
        let answer = owner.call(stock, method, &params).await;
        assert_eq!(answer["ok"], true, "{method}: {answer}");
    }
    let suspend = json!({ "requestId": "r1", "drain": true });
    let held = owner.call(stock, LifecycleMethod::GatewaySuspendPrepare.name(), &suspend).await;
    owner.call(stock, LifecycleMethod::GatewaySuspendStatus.name(), &json!({})).await;
    let resume = json!({ "suspensionId": held["payload"]["suspensionId"] });
    let resumed = owner.call(stock, LifecycleMethod::GatewaySuspendResume.name(), &resume).await;
    assert_eq!(resumed["ok"], true, "{held}: {resumed}");
    let refused = owner.call(stock, "no.such.method", &json!({})).await;
    assert_eq!(refused["ok"], false, "{refused}");

    // A device that asks, is approved, and has its token replaced by another and by itself.
    let device = Device::new(1);
    let pairing = command_line(&["operator.pairing"]);
    let (_, asked) = device.connect_with(&gateway, &pairing, &REMOTE).await;
    stock.check("a response frame", "ResponseFrame", &asked);
    let request_id = json!({ "requestId": asked["error"]["details"]["requestId"] });
    owner.event(stock, |frame| frame["event"] == EventName::DevicePairRequested.name()).await;
    owner.call(stock, DeviceMethod::DevicePairApprove.name(), &request_id).await;
    let target = json!({ "deviceId": device.id(), "role": "operator" });
    owner.call(stock, DeviceMethod::DeviceTokenRotate.name(), &target).await;
    let (_, hello) = device.connect_with(&gateway, &pairing, &REMOTE).await;
    stock.result("connect", &hello["payload"]);
    let mut by_token = pairing.clone();
    by_token["auth"] = json!({ "deviceToken": hello["payload"]["auth"]["deviceToken"] });
    let (socket, _) = device.connect_with(&gateway, &by_token, &REMOTE).await;
    let mut own = Client { socket, calls: 0 };
    let rotated = own.call(stock, DeviceMethod::DeviceTokenRotate.name(), &target).await;
    assert!(rotated["payload"]["token"].is_string(), "{rotated}");

    // Another one by a setup code.
    let url = json!({ "publicUrl": "wss://gateway.example.com" });
    let issued = owner.call(stock, DeviceMethod::DevicePairSetupCode.name(), &url).await;
    let setup = json!({ "setupId": issued["payload"]["setupId"] });
    owner.call(stock, DeviceMethod::DevicePairSetupStatus.name(), &setup).await;
    let lan = json!({ "publicUrl": "ws://192.168.0.7:18789" });
    owner.call(stock, DeviceMethod::DevicePairSetupCode.name(), &lan).await;
    let mut node = command_line(&[]);
    (node["role"], node["auth"]) = (json!("node"), json!({ "bootstrapToken": bootstrap_token(&issued) }));
    let (_, hello) = Device::new(2).connect_with(&gateway, &node, &REMOTE).await;
    stock.result("connect", &hello["payload"]);
    owner.event(stock, |frame| frame["event"] == EventName::DevicePairSetupCompleted.name()).await;
    owner.call(stock, DeviceMethod::DevicePairSetupStatus.name(), &setup).await;

    let stopping = tokio::spawn(gateway.shutdown());
    owner.event(stock, |frame| frame["event"] == EventName::Shutdown.name()).await;
    soon(stopping).await.expect("the gateway stops");
}

fn bootstrap_token(issued: &Value) -> Value {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let code = issued["payload"]["setupCode"].as_str().expect("a setup code");
    let content = URL_SAFE_NO_PAD.decode(code).expect("it is base64url");
    serde_json::from_slice::<Value>(&content).expect("it is JSON")["bootstrapToken"].clone()
}

/// The listed differences, without their reasons.
fn listed(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (difference, reason) = line.split_once("  # ").unwrap_or((line, ""));
            assert!(!reason.trim().is_empty(), "a difference has a reason behind two blanks and `#`: {line}");
            difference.trim().to_owned()
        })
        .collect()
}

#[tokio::test]
async fn what_differs_from_the_stock_schema_is_listed_and_nothing_else() {
    let file = workspace().join("target/tools/node_modules/@openclaw/gateway-protocol/protocol.schema.json");
    let Ok(schema) = fs::read(&file) else {
        assert!(std::env::var_os("CI").is_none(), "CI installs the stock schema: see .ci/run");
        let _ = writeln!(
            std::io::stderr(),
            "SKIPPED: the stock schema is not installed; .ci/run shows the line of npm that does it"
        );
        return;
    };
    let schema = serde_json::from_slice(&schema).expect("the stock schema is JSON");
    let (validators, differences, seen) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
    let mut stock = Stock { schema, validators, differences, seen };
    story(&mut stock).await;

    let defined = |name: &str, suffix: &str| stock.defines(&Stock::definition(name, suffix));
    let methods = methods::all().map(|record| record.name).filter(|name| defined(name, "Result"));
    let events = EventName::ALL.iter().map(|name| name.name()).filter(|name| defined(name, "Event"));
    let missed: Vec<&str> = methods.chain(events).filter(|name| !stock.seen.contains(*name)).collect();
    assert!(missed.is_empty(), "stock defines their shapes, and no call here shows ours: {missed:?}");

    let listed = listed(include_str!("stock_schema.txt"));
    let new: Vec<_> = stock.differences.difference(&listed).collect();
    assert!(new.is_empty(), "not as the stock schema has it, mend it: {new:#?}");
    let gone: Vec<_> = listed.difference(&stock.differences).collect();
    assert!(gone.is_empty(), "mended: take them out of tests/it/stock_schema.txt: {gone:#?}");
}
