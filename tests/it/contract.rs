//! What is published is what is served: every method's declaration, examples and name.
//!
//! One snapshot per method shows the declaration as published and its examples as they go over the wire, answered by
//! a real gateway.

use std::{collections::BTreeSet, fmt::Write as _, fs, sync::Arc, time::Duration};

use jsonschema::Validator;
use openclaw_gateway::{backend::echo::EchoBackend, settings::Auth};
use openclaw_schema::{
    ErrorCode,
    contract::MethodRecord,
    document, methods,
    methods::{
        agent::AgentMethod, chat::ChatMethod, config::ConfigMethod, connect::ConnectMethod,
        device::DeviceMethod, logs::LogsMethod, rpc::RpcMethod, sessions::SessionsMethod,
    },
};
use openclaw_tests::harness::{FILTERS, Socket, TestGateway, soon};
use serde_json::{Value, json};

use crate::{client, drift::workspace};

/// The token that the example of `connect` shows.
const EXAMPLE_TOKEN: &str = "secret";

/// One example, as it went over the wire.
struct Exchange {
    name: String,
    request: String,
    response: String,
    /// The first item, where the example subscribes.
    item: Option<String>,
}

impl Exchange {
    fn answer(&self) -> Value {
        serde_json::from_str(&self.response).expect("the gateway answers JSON")
    }
}

/// A gateway in the state that the examples of a method speak of.
struct Stage {
    gateway: TestGateway,
    record: &'static MethodRecord,
}

impl Stage {
    async fn set(record: &'static MethodRecord) -> Self {
        let needs_run = [
            AgentMethod::AgentWait.name(),
            AgentMethod::AgentAbort.name(),
            SessionsMethod::SessionsResolve.name(),
            ChatMethod::ChatInject.name(),
        ]
        .contains(&record.name);
        let runs_on = record.name == AgentMethod::AgentAbort.name();
        let gateway = TestGateway::start_with(
            |settings| {
                settings.auth = Auth::Token(EXAMPLE_TOKEN.into());
                settings.limits.tick_interval = Duration::from_millis(20);
            },
            |builder| {
                if runs_on {
                    builder.backend(Arc::new(EchoBackend::new(Duration::from_secs(3600))))
                } else {
                    builder
                }
            },
        )
        .await;
        let stage = Self { gateway, record };
        if needs_run {
            let agent = AgentMethod::Agent.record();
            let params = &(agent.examples)().successes[0].params;
            let mut socket = stage.socket().await;
            let ack = socket.ask(request(agent.name, params)).await;
            assert_eq!(ack["result"]["status"], "accepted", "{ack}");
        }
        stage.log("before");
        stage
    }

    /// Writes a line to the log of the gateway.
    fn log(&self, message: &str) {
        let file = self.gateway.log_file();
        fs::create_dir_all(file.parent().expect("the log lies in a folder")).expect("the folder can be made");
        let time = jiff::Timestamp::now();
        let line =
            format!(r#"{{"time":"{time:.3}","level":"INFO","subsystem":"gateway","message":"{message}"}}"#);
        let mut text = fs::read_to_string(file).unwrap_or_default();
        text.push_str(&line);
        text.push('\n');
        fs::write(file, text).expect("the log can be written");
    }

    async fn socket(&self) -> Socket {
        let bearer = format!("Bearer {EXAMPLE_TOKEN}");
        // The examples of `connect` are those of a connection that has shown nothing yet.
        let headers: &[(&'static str, &str)] = if self.record.name == ConnectMethod::Connect.name() {
            &[]
        } else {
            &[("authorization", &bearer)]
        };
        self.gateway.websocket_with("/rpc", headers).await.expect("the gateway accepts the upgrade")
    }

    async fn exchange(&self, name: &str, params: &Value) -> Exchange {
        let mut socket = self.socket().await;
        let request = request(self.record.name, params);
        socket.send(request.clone()).await;
        let response = socket.next().await.expect("the gateway answers");
        let mut item = None;
        if self.record.subscription.is_some() && response.contains(r#""result""#) {
            if self.record.name == LogsMethod::LogsFollow.name() {
                self.log("after");
            }
            item = Some(soon(socket.next()).await.expect("an item comes"));
        }
        Exchange { name: name.to_owned(), request, response, item }
    }
}

fn request(method: &str, params: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string()
}

/// The method as the document publishes it.
fn published<'a>(document: &'a Value, name: &str) -> &'a Value {
    let methods = document["methods"].as_array().expect("the document lists methods");
    methods.iter().find(|method| method["name"] == name).expect("the document has the method")
}

/// The params of a published success example.
fn example_params(example: &Value) -> Value {
    let named = example["params"].as_array().expect("an example lists its params");
    named
        .iter()
        .map(|param| (param["name"].as_str().expect("a param has a name").to_owned(), param["value"].clone()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// A validator of a schema that refers into the document.
pub(crate) fn validator(document: &Value, schema: &Value) -> Validator {
    let root = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "allOf": [schema],
        "components": document["components"],
    });
    jsonschema::draft7::new(&root).expect("a published schema is one")
}

#[track_caller]
pub(crate) fn assert_valid(validator: &Validator, value: &Value, what: &str) {
    let problems: Vec<String> = validator
        .iter_errors(value)
        .map(|problem| format!("at `{}`: {problem}", problem.instance_path()))
        .collect();
    assert!(problems.is_empty(), "{what} does not fit its schema: {problems:?}\n{value:#}");
}

#[tokio::test]
async fn every_method_is_published_and_answered_as_its_snapshot_shows() {
    let document = document::document();
    for record in methods::all() {
        let declaration = published(&document, record.name);
        let mut text = format!("{declaration:#}\n");
        let examples = (record.examples)();
        let stage = Stage::set(record).await;
        let cases = examples
            .successes
            .iter()
            .map(|example| (example.name, &example.params))
            .chain(examples.failures.iter().map(|example| (example.name, &example.params)));
        for (name, params) in cases {
            let mut exchange = stage.exchange(name, params).await;
            if record.name == RpcMethod::RpcDiscover.name() && exchange.answer()["result"] == document {
                // The document has a golden of its own.
                exchange.response = r#"{"jsonrpc":"2.0","id":1,"result":"[schema/openrpc.json]"}"#.to_owned();
            }
            if record.name == ConfigMethod::ConfigSchema.name()
                && exchange.answer()["result"]["schema"] == openclaw_schema::config::keys::schema()
            {
                // The same holds for this one.
                exchange.response =
                    r#"{"jsonrpc":"2.0","id":1,"result":"[schema/config.schema.json, and the hints]"}"#
                        .to_owned();
            }
            write!(text, "\n{}\n--> {}\n<-- {}\n", exchange.name, exchange.request, exchange.response)
                .expect("a text can be written to");
            if let Some(item) = exchange.item {
                writeln!(text, "<-- {item}").expect("a text can be written to");
            }
        }
        let mut settings = insta::Settings::clone_current();
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.set_description(record.summary);
        for (pattern, replacement) in FILTERS {
            settings.add_filter(pattern, *replacement);
        }
        settings.bind(|| insta::assert_snapshot!(record.name, text));
    }
}

#[test]
fn there_is_one_snapshot_per_method() {
    let folder = workspace().join("tests/it/snapshots");
    let files: BTreeSet<String> = fs::read_dir(folder)
        .expect("the folder can be read")
        .map(|entry| entry.expect("the folder can be read").file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".snap"))
        .collect();
    let wanted: BTreeSet<String> = methods::all().map(|record| format!("{}.snap", record.name)).collect();
    assert_eq!(files, wanted, "remove the snapshots of methods that are gone");
}

/// Whether the examples of a method speak of a device that has connected with its key: `frames` calls these with one.
fn needs_device(record: &MethodRecord) -> bool {
    DeviceMethod::ALL
        .iter()
        .any(|method| method.name() == record.name && *method != DeviceMethod::DevicePairList)
}

#[tokio::test]
async fn every_success_example_is_accepted_and_answered_with_the_declared_result() {
    let gateway = TestGateway::start().await;
    let document = gateway.http("GET", "/openrpc.json", &[], "").await.json();
    for record in methods::all() {
        let method = published(&document, record.name);
        let params = validator(&document, &method["x-params-schema"]);
        let result = validator(&document, &method["result"]["schema"]);
        for example in method["examples"].as_array().expect("a list") {
            let what = format!("{}, {}", record.name, example["name"]);
            let given = example_params(example);
            assert_valid(&params, &given, &format!("{what}: params"));
            assert_valid(&result, &example["result"]["value"], &format!("{what}: result of the example"));
            if needs_device(record) {
                continue;
            }
            let stage = Stage::set(record).await;
            let exchange = stage.exchange(&what, &given).await;
            let answer = exchange.answer();
            assert!(answer.get("result").is_some(), "{what}: {answer}");
            assert_valid(&result, &answer["result"], &what);
            if let Some(subscription) = method.get("x-subscription") {
                let item: Value = serde_json::from_str(&exchange.item.expect("an item came")).expect("JSON");
                assert_eq!(item["method"], subscription["notification"], "{what}");
                assert_eq!(item["params"]["subscription"], answer["result"], "{what}");
                assert!(item.get("id").is_none(), "{what}: an item is a notification");
                assert_valid(&validator(&document, &subscription["item"]), &item["params"]["result"], &what);
            }
            if let Some(two_phase) = method.get("x-two-phase") {
                let wait = two_phase["wait"].as_str().expect("a name");
                let waited = json!({ "runId": answer["result"]["runId"], "timeoutMs": 10_000 });
                let answer = stage.socket().await.ask(request(wait, &waited)).await;
                let outcome = validator(&document, &two_phase["outcome"]);
                assert_valid(&outcome, &answer["result"]["final"], &format!("{what}: outcome"));
            }
        }
    }
}

#[tokio::test]
async fn every_error_example_is_answered_exactly_as_published() {
    let document = document::document();
    for record in methods::all() {
        let stage = Stage::set(record).await;
        for example in published(&document, record.name)["x-error-examples"].as_array().expect("a list") {
            let what = format!("{}, {}", record.name, example["name"]);
            if needs_device(record) && example["error"]["data"]["code"] == ErrorCode::Denied.name() {
                continue;
            }
            let answer = stage.exchange(&what, &example["params"]).await.answer();
            assert_eq!(answer, json!({ "jsonrpc": "2.0", "id": 1, "error": example["error"] }), "{what}");
            let code = answer["error"]["data"]["code"].as_str().and_then(ErrorCode::from_name);
            let code = code.unwrap_or_else(|| panic!("{what}: the code is not in the registry"));
            assert!(record.all_errors().contains(&code), "{what}: {code} is not declared");
        }
    }
}

#[tokio::test]
async fn served_documented_and_typed_methods_are_the_same() {
    let declared: BTreeSet<&str> = methods::all().map(|record| record.name).collect();
    let gateway = TestGateway::start().await;
    let live = gateway.call(RpcMethod::RpcDiscover.name(), json!({})).await;
    let names = |document: &Value| -> BTreeSet<String> {
        let methods = document["methods"].as_array().expect("the document lists methods");
        methods.iter().map(|method| method["name"].as_str().expect("a name").to_owned()).collect()
    };
    assert!(names(&live["result"]).iter().map(String::as_str).eq(declared.iter().copied()), "the gateway's");
    let committed = fs::read_to_string(workspace().join("schema/openrpc.json")).expect("it is committed");
    let committed: Value = serde_json::from_str(&committed).expect("it is JSON");
    assert_eq!(names(&committed), names(&live["result"]), "schema/openrpc.json");
    assert_eq!(client::typed_methods(), declared, "the typed client");

    let unsubscribes =
        methods::all().filter_map(|record| record.subscription.map(|subscription| subscription.unsubscribe));
    for name in declared.iter().copied().chain(unsubscribes) {
        let answer = gateway.call(name, json!({ "noSuchField": 1 })).await;
        let code = &answer["error"]["data"]["code"];
        assert!(code.is_string() && *code != "METHOD_NOT_FOUND", "{name} is not served: {answer}");
    }
}

#[tokio::test]
async fn the_live_document_tells_every_method_in_full() {
    let gateway = TestGateway::start().await;
    let document = gateway.http("GET", "/openrpc.json", &[], "").await.json();
    let methods = document["methods"].as_array().expect("the document lists methods");
    let resolve = |schema: &Value| -> Value {
        let reference = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
        reference.map_or_else(
            || schema.clone(),
            |pointer| document.pointer(pointer).cloned().expect("a reference leads somewhere"),
        )
    };
    let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.trim().is_empty());
    let counts = |value: &Value| value.as_array().map_or(0, Vec::len);
    let mut gaps = Vec::new();
    for method in methods {
        let mut expect = |complete: bool, what: &str| {
            if !complete {
                gaps.push(format!("{}: {what}", method["name"]));
            }
        };
        expect(is_text(&method["summary"]), "summary");
        let params = resolve(&method["x-params-schema"]);
        expect(params["type"] == "object", "params schema");
        for (field, schema) in params["properties"].as_object().into_iter().flatten() {
            expect(is_text(&schema["description"]), &format!("description of {field}"));
        }
        expect(
            params["properties"].as_object().map_or(0, serde_json::Map::len) == counts(&method["params"]),
            "params listed one by one",
        );
        expect(
            resolve(&method["result"]["schema"]).as_object().is_some_and(|schema| !schema.is_empty()),
            "result",
        );
        expect(counts(&method["errors"]) > 0, "errors");
        for error in method["errors"].as_array().into_iter().flatten() {
            expect(resolve(error)["data"]["code"].is_string(), "error code");
        }
        expect(method["x-scope"].is_string(), "scope");
        expect(is_text(&method["x-since"]), "since");
        expect(counts(&method["examples"]) > 0, "success example");
        expect(counts(&method["x-error-examples"]) > 0, "error example");
    }
    assert_eq!(gaps, Vec::<String>::new());
    assert_eq!(methods.len(), methods::all().count());
}
