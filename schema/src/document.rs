//! The OpenRPC document, made from records alone: no server runs, nothing is registered.
//!
//! [`Api`] is a set of record tables: the core contract, and what an embedding program adds. Its
//! [`Api::document`] is committed as `schema/openrpc.json`, served by `rpc.discover` and `GET /openrpc.json`,
//! and is all that the SDK generators and the command line's typed flags read.
//!
//! OpenRPC 1.3 asks for JSON Schema draft-07. Its extension members begin with `x-`; they are not allowed on
//! error objects, so the string code and the retry flag stand in the error's `data`.

use std::collections::{BTreeMap, BTreeSet};

use schemars::{
    SchemaGenerator,
    generate::SchemaSettings,
    transform::{RecursiveTransform, Transform},
};
use serde_json::{Map, Value, json};

use crate::{
    contract::{Contract, EventRecord, MethodRecord, TypeRef},
    error::{ErrorCode, ErrorData},
    events::EVENTS,
    methods,
};

/// The version of the OpenRPC specification that the document follows.
pub const OPENRPC_VERSION: &str = "1.3.2";

/// The version of the contract.
pub const CONTRACT_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The document of the core contract.
#[must_use]
pub fn document() -> Value {
    Api::core().document()
}

/// A set of methods and events: the core contract, or more.
#[derive(Debug, Clone)]
pub struct Api {
    tables: Vec<&'static [MethodRecord]>,
    events: Vec<&'static [EventRecord]>,
}

impl Api {
    /// The core contract.
    #[must_use]
    pub fn core() -> Self {
        Self { tables: methods::TABLES.to_vec(), events: vec![EVENTS] }
    }

    /// Adds the methods of a contract trait.
    #[must_use]
    pub fn with<C: Contract>(mut self) -> Self {
        self.tables.push(C::METHODS);
        self
    }

    /// Every method.
    pub fn methods(&self) -> impl Iterator<Item = &'static MethodRecord> {
        self.tables.iter().copied().flatten()
    }

    /// The method of that name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&'static MethodRecord> {
        self.methods().find(|record| record.name == name)
    }

    /// Every event.
    pub fn events(&self) -> impl Iterator<Item = &'static EventRecord> {
        self.events.iter().copied().flatten()
    }

    /// The OpenRPC document: the same bytes for the same contract, methods by name.
    #[must_use]
    pub fn document(&self) -> Value {
        let mut writer = Writer { generator: generator(), errors: BTreeMap::new() };
        let mut records: Vec<_> = self.methods().collect();
        records.sort_by_key(|record| record.name);
        let methods: Vec<Value> = records.into_iter().map(|record| writer.method(record)).collect();
        let events: Vec<Value> = self.events().map(|record| writer.event(record)).collect();
        let error_data = writer.schema(TypeRef::of::<ErrorData>());
        let errors: Map<String, Value> = std::mem::take(&mut writer.errors)
            .into_values()
            .map(|code| (code.name().to_owned(), error(code)))
            .collect();
        let mut schemas = writer.generator.take_definitions(true);
        for schema in schemas.values_mut() {
            tidy(schema);
        }
        schemas.sort_keys();
        json!({
            "openrpc": OPENRPC_VERSION,
            "info": {
                "title": "OpenClaw Gateway",
                "version": CONTRACT_VERSION,
                "description": "The RPC surface of the OpenClaw Gateway. Served as JSON-RPC 2.0 over WebSocket and over HTTP POST at `/rpc`; params are always one object, by name.",
                "license": { "name": "MIT" },
            },
            "methods": methods,
            "components": { "schemas": schemas, "errors": errors },
            "x-events": events,
            "x-error-data": error_data,
        })
    }
}

/// The params object of one method, as a schema of its own without references: what typed flags are made of.
#[must_use]
pub fn params_schema(record: &MethodRecord) -> Value {
    let mut settings = SchemaSettings::draft07();
    settings.inline_subschemas = true;
    settings.meta_schema = None;
    let mut generator = settings.into_generator();
    let mut schema = (record.params.ty.schema)(&mut generator).to_value();
    tidy(&mut schema);
    schema
}

/// Writes one document.
struct Writer {
    generator: SchemaGenerator,
    errors: BTreeMap<ErrorCode, ErrorCode>,
}

fn generator() -> SchemaGenerator {
    let mut settings = SchemaSettings::draft07();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    settings.into_generator()
}

impl Writer {
    fn schema(&mut self, ty: TypeRef) -> Value {
        let mut schema = (ty.schema)(&mut self.generator);
        for transform in self.generator.transforms_mut() {
            transform.transform(&mut schema);
        }
        let mut schema = schema.to_value();
        tidy(&mut schema);
        schema
    }

    /// What a reference points to.
    fn resolved(&self, schema: &Value) -> Value {
        let name = schema["$ref"].as_str().and_then(|reference| reference.rsplit('/').next());
        name.and_then(|name| self.generator.definitions().get(name)).unwrap_or(schema).clone()
    }

    fn method(&mut self, record: &MethodRecord) -> Value {
        let mut method = Map::new();
        method.insert("name".into(), json!(record.name));
        method.insert("summary".into(), json!(record.summary));
        if !record.description.is_empty() {
            method.insert("description".into(), json!(record.description));
        }
        method.insert("tags".into(), json!([{ "name": record.group }]));
        method.insert("paramStructure".into(), json!("by-name"));
        let params = self.schema(record.params.ty);
        method.insert("params".into(), self.parameters(&params));
        let result = self.schema(record.result);
        method.insert(
            "result".into(),
            json!({ "name": (record.result.name)(), "required": true, "schema": result }),
        );
        if record.deprecated {
            method.insert("deprecated".into(), json!(true));
        }
        let errors = record.all_errors();
        self.errors.extend(errors.iter().map(|code| (*code, *code)));
        let errors: Vec<Value> =
            errors.iter().map(|code| json!({ "$ref": format!("#/components/errors/{code}") })).collect();
        method.insert("errors".into(), json!(errors));
        let examples = (record.examples)();
        let successes: Vec<Value> = examples
            .successes
            .iter()
            .map(|example| {
                let named: Vec<Value> = example
                    .params
                    .as_object()
                    .into_iter()
                    .flatten()
                    .map(|(name, value)| json!({ "name": name, "value": value }))
                    .collect();
                json!({ "name": example.name, "params": named, "result": { "name": (record.result.name)(), "value": example.result } })
            })
            .collect();
        method.insert("examples".into(), json!(successes));
        let failures: Vec<Value> = examples
            .failures
            .into_iter()
            .map(|example| {
                json!({
                    "name": example.name,
                    "params": example.params,
                    "error": { "code": example.error.code.number(), "message": example.error.message, "data": example.error.data },
                })
            })
            .collect();
        method.insert("x-error-examples".into(), json!(failures));
        method.insert("x-params-schema".into(), params);
        method.insert("x-scope".into(), json!(record.scope));
        method.insert("x-since".into(), json!(record.since));
        method.insert("x-idempotent".into(), json!(record.idempotent));
        if record.long_poll {
            method.insert("x-long-poll".into(), json!(true));
        }
        if let Some(two_phase) = record.two_phase {
            let outcome = self.schema(two_phase.outcome);
            method.insert("x-two-phase".into(), json!({ "outcome": outcome, "wait": two_phase.wait }));
        }
        if let Some(subscription) = record.subscription {
            let item = self.schema(subscription.item);
            method.insert(
                "x-subscription".into(),
                json!({ "notification": subscription.notification, "unsubscribe": subscription.unsubscribe, "item": item }),
            );
        }
        Value::Object(method)
    }

    /// One content descriptor per property of the params object.
    fn parameters(&self, params: &Value) -> Value {
        let object = self.resolved(params);
        let required: BTreeSet<&str> =
            object["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let descriptors: Vec<Value> = object["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, schema)| {
                let is_required = required.contains(name.as_str());
                let mut schema = schema.clone();
                let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
                if !is_required {
                    strip_null(&mut schema);
                }
                tidy(&mut schema);
                json!({ "name": name, "description": description, "required": is_required, "schema": schema })
            })
            .collect();
        json!(descriptors)
    }

    fn event(&mut self, record: &EventRecord) -> Value {
        let payload = self.schema(record.payload);
        json!({
            "name": record.name,
            "summary": record.summary,
            "cadence": record.cadence,
            "payload": { "name": (record.payload.name)(), "schema": payload },
            "scope": record.scope,
            "since": record.since,
            "example": (record.example)(),
        })
    }
}

fn error(code: ErrorCode) -> Value {
    json!({
        "code": code.number(),
        "message": code.meaning(),
        "data": { "code": code.name(), "retryable": code.is_retryable() },
    })
}

/// What JSON Schema consumers stumble over, put right at every level of a schema.
fn tidy(schema: &mut Value) {
    if let Ok(schema) = <&mut schemars::Schema>::try_from(schema) {
        RecursiveTransform(Tidy).transform(schema);
    }
}

#[derive(Clone)]
struct Tidy;

impl Transform for Tidy {
    fn transform(&mut self, schema: &mut schemars::Schema) {
        let Some(object) = schema.as_object_mut() else { return };
        // Formats of Rust's integers are no formats of JSON Schema.
        if object
            .get("format")
            .and_then(Value::as_str)
            .is_some_and(|format| format.starts_with("uint") || format.starts_with("int"))
        {
            object.remove("format");
        }
        // An optional property is absent, not null.
        let required: BTreeSet<String> = object
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
            for (name, property) in properties.iter_mut() {
                if !required.contains(name) && property.get("default").is_none_or(Value::is_null) {
                    strip_null(property);
                }
            }
        }
        // Draft 7 ignores the siblings of a reference.
        if object.len() > 1
            && let Some(reference) = object.remove("$ref")
        {
            object.insert("allOf".into(), json!([{ "$ref": reference }]));
        }
    }
}

/// Takes `null` out of what schemars makes of `Option<T>`.
fn strip_null(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    if object.get("default").is_some_and(Value::is_null) {
        object.remove("default");
    }
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(options)) = object.get_mut("anyOf") {
        options.retain(|option| option["type"] != "null");
        if let [only] = options.as_slice() {
            let only = only.clone();
            object.remove("anyOf");
            match only {
                Value::Object(only) if only.keys().all(|key| key != "$ref") || object.is_empty() => {
                    object.extend(only)
                }
                only => {
                    object.insert("allOf".into(), json!([only]));
                }
            }
        }
    }
}

/// What the macro cannot see, as sentences; empty when all is well. Asserted by a test over the core contract;
/// embedding programs assert it over theirs.
#[must_use]
pub fn lint(api: &Api) -> Vec<String> {
    let mut findings = Vec::new();
    let mut names = BTreeSet::new();
    for record in api.methods() {
        let name = record.name;
        if !names.insert(name) {
            findings.push(format!("{name}: declared twice"));
        }
        let schema = params_schema(record);
        if schema["type"] != "object" {
            findings.push(format!("{name}: params are no object"));
        }
        if schema["additionalProperties"] != json!(false) {
            findings.push(format!("{name}: params lack #[serde(deny_unknown_fields)]"));
        }
        for field in schema["properties"].as_object().into_iter().flatten().map(|(field, _)| field) {
            if field.contains(['_', '-']) || field.starts_with(char::is_uppercase) {
                findings.push(format!("{name}: field {field} is not camelCase"));
            }
        }
        let examples = (record.examples)();
        if examples.successes.is_empty() || examples.failures.is_empty() {
            findings.push(format!("{name}: needs a success and an error example"));
        }
        if let Some(two_phase) = record.two_phase
            && api.find(two_phase.wait).is_none()
        {
            findings.push(format!("{name}: its wait method {} does not exist", two_phase.wait));
        }
    }
    let document = api.document();
    for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
        undescribed(schema, &format!("#/components/schemas/{name}"), &mut findings);
    }
    findings
}

fn undescribed(schema: &Value, at: &str, findings: &mut Vec<String>) {
    match schema {
        Value::Object(object) => {
            for (name, property) in object.get("properties").and_then(Value::as_object).into_iter().flatten()
            {
                // A tag is described by its value.
                if property.get("description").is_none() && property.get("const").is_none() {
                    findings.push(format!("{at}/properties/{name}: has no description"));
                }
            }
            for (key, value) in object.iter().filter(|(key, _)| *key != "default" && *key != "const") {
                undescribed(value, &format!("{at}/{key}"), findings);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                undescribed(item, &format!("{at}/{index}"), findings);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_core_contract_is_clean() {
        assert_eq!(lint(&Api::core()), Vec::<String>::new());
    }

    #[test]
    fn the_document_is_the_same_every_time() {
        assert_eq!(document().to_string(), document().to_string());
    }

    #[test]
    fn optional_fields_are_absent_and_not_null() {
        assert!(!document()["components"]["schemas"]["LogsTailParams"].to_string().contains("null"));
    }
}
