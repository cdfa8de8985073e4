//! The OpenRPC document, made from records alone: no server runs, nothing is registered.
//!
//! [`Api`] is a set of record tables: the core contract, and what an embedding program adds. Its
//! [`Api::document`] is committed as `schema/openrpc.json`, served by `rpc.discover` and `GET /openrpc.json`,
//! and is all that the SDK generators and the command line's typed flags read.
//!
//! OpenRPC 1.3 asks for JSON Schema draft-07. Its extension members begin with `x-`; they are not allowed on
//! error objects, so the string code and the retry flag stand in the error's `data`.
//!
//! Schemas are kept to few shapes, so that generators stay small:
//!
//! - A closed set of texts is `enum`, with the meaning of each value in `x-enum-descriptions`.
//! - A union of objects is `oneOf`; one property, the tag, is a `const` in every option.
//! - An optional property is absent, not null. The few that travel as null say so: their type includes `null`
//!   and their `default` is null.
//! - A reference with siblings is `allOf` of that one reference, because draft-07 ignores siblings of `$ref`.

use std::collections::BTreeSet;

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
        let mut writer = Writer { generator: generator() };
        let mut records: Vec<_> = self.methods().collect();
        records.sort_by_key(|record| record.name);
        let mut methods: Vec<Value> = records.into_iter().map(|record| writer.method(record)).collect();
        let events: Vec<Value> = self.events().map(|record| writer.event(record)).collect();
        let error_data = writer.schema(TypeRef::of::<ErrorData>());
        // All codes: those of the envelope are no method's own, and still reach every caller.
        let errors: Map<String, Value> =
            ErrorCode::ALL.iter().map(|code| (code.name().to_owned(), error(*code))).collect();
        let mut schemas = writer.generator.take_definitions(true);
        for schema in schemas.values_mut() {
            tidy(schema);
        }
        schemas.sort_keys();
        for method in &mut methods {
            method["params"] = parameters(&method["x-params-schema"], &schemas);
        }
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

    fn method(&mut self, record: &MethodRecord) -> Value {
        let mut method = Map::new();
        method.insert("name".into(), json!(record.name));
        method.insert("summary".into(), json!(record.summary));
        if !record.description.is_empty() {
            method.insert("description".into(), json!(without_code_links(record.description)));
        }
        method.insert("tags".into(), json!([{ "name": record.group }]));
        method.insert("paramStructure".into(), json!("by-name"));
        // Filled in from `x-params-schema` once all types are known; here for its place in the order.
        method.insert("params".into(), json!([]));
        let result = self.schema(record.result);
        method.insert(
            "result".into(),
            json!({ "name": (record.result.name)(), "required": true, "schema": result }),
        );
        if record.deprecated {
            method.insert("deprecated".into(), json!(true));
        }
        let errors = record.all_errors();
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
        method.insert("x-params-schema".into(), self.schema(record.params.ty));
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

/// One content descriptor per property of the params object.
fn parameters(params: &Value, schemas: &Map<String, Value>) -> Value {
    let name = params["$ref"].as_str().and_then(|reference| reference.rsplit('/').next());
    let object = name.and_then(|name| schemas.get(name)).unwrap_or(params);
    let required: BTreeSet<&str> =
        object["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let descriptors: Vec<Value> = object["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, schema)| {
            let mut schema = schema.clone();
            let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
            // Without the description beside it, a reference can stand for itself again.
            if schema.as_object().is_some_and(|schema| schema.len() == 1)
                && let Some([only]) = schema["allOf"].as_array().map(Vec::as_slice)
            {
                schema = only.clone();
            }
            let mut descriptor = json!({ "name": name });
            if let Some(description) = description {
                descriptor["description"] = description;
            }
            descriptor["required"] = json!(required.contains(name.as_str()));
            descriptor["schema"] = schema;
            descriptor
        })
        .collect();
    json!(descriptors)
}

fn error(code: ErrorCode) -> Value {
    json!({
        "code": code.number(),
        "message": code.meaning(),
        "data": { "code": code.name(), "retryable": code.is_retryable() },
    })
}

/// What JSON Schema consumers stumble over, put right at every level of a schema.
pub(crate) fn tidy(schema: &mut Value) {
    if let Ok(schema) = <&mut schemars::Schema>::try_from(schema) {
        RecursiveTransform(Tidy).transform(schema);
    }
}

#[derive(Clone)]
struct Tidy;

impl Transform for Tidy {
    fn transform(&mut self, schema: &mut schemars::Schema) {
        let Some(object) = schema.as_object_mut() else { return };
        // Formats of Rust's numbers are no formats of JSON Schema.
        if object.get("format").and_then(Value::as_str).is_some_and(|format| {
            format.starts_with("uint") || format.starts_with("int") || format == "float" || format == "double"
        }) {
            object.remove("format");
        }
        if let Some(Value::String(description)) = object.get_mut("description") {
            *description = without_code_links(description);
        }
        join_enum(object);
        // An optional property is absent, not null. One that is serialised as null has it as its default.
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
                if !required.contains(name) && property.get("default").is_none() {
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

/// Makes one `enum` of the `oneOf` of constants that schemars writes for an enum with documented variants.
fn join_enum(object: &mut Map<String, Value>) {
    let Some(options) = object.get("oneOf").and_then(Value::as_array) else { return };
    let mut values = Vec::new();
    let mut descriptions = Map::new();
    for option in options {
        let known = ["type", "const", "enum", "description"];
        let Some(option) = option.as_object().filter(|option| {
            option.get("type") == Some(&json!("string"))
                && option.keys().all(|key| known.contains(&key.as_str()))
        }) else {
            return;
        };
        match (option.get("const"), option.get("enum")) {
            (Some(Value::String(value)), None) => {
                values.push(json!(value));
                descriptions.extend(option.get("description").map(|text| (value.clone(), text.clone())));
            }
            (None, Some(Value::Array(undescribed))) => values.extend(undescribed.iter().cloned()),
            _ => return,
        }
    }
    object.remove("oneOf");
    object.insert("type".into(), json!("string"));
    object.insert("enum".into(), json!(values));
    object.insert("x-enum-descriptions".into(), Value::Object(descriptions));
}

/// Links of Rust's documentation lead nowhere outside it: "[`Name`]" becomes "`Name`".
fn without_code_links(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, link)) = rest.split_once("[`") {
        plain.push_str(before);
        match link.split_once("`]") {
            Some((name, after)) if !after.starts_with('(') && !name.contains('`') => {
                plain.push_str(&format!("`{name}`"));
                rest = after;
            }
            _ => {
                plain.push_str("[`");
                rest = link;
            }
        }
    }
    plain + rest
}

/// Takes `null` out of what schemars makes of `Option<T>`.
pub(crate) fn strip_null(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
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
                    // What the field says of itself goes before what its type says.
                    for (key, value) in only {
                        object.entry(key).or_insert(value);
                    }
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
            for value in object.get("enum").and_then(Value::as_array).into_iter().flatten() {
                let described = value.as_str().is_none_or(|value| {
                    object.get("x-enum-descriptions").is_some_and(|texts| texts.get(value).is_some())
                });
                if !described {
                    findings.push(format!("{at}: value {value} has no description"));
                }
            }
            let data = ["default", "const", "enum", "x-enum-descriptions"];
            for (key, value) in object.iter().filter(|(key, _)| !data.contains(&key.as_str())) {
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

    #[test]
    fn fields_that_travel_as_null_say_so() {
        let field = &document()["components"]["schemas"]["AgentPayload"]["properties"]["mediaUrl"];
        assert_eq!((&field["type"], &field["default"]), (&json!(["string", "null"]), &Value::Null));
    }

    #[test]
    fn an_enum_is_one_list_with_the_meaning_of_each_value() {
        let schema = &document()["components"]["schemas"]["ModelsView"];
        assert_eq!(schema["enum"], json!(["default", "configured", "provider-config", "all"]));
        assert_eq!(schema["x-enum-descriptions"]["default"], "Those ready for use.");
    }

    #[test]
    fn links_into_rust_documentation_become_plain_code() {
        assert_eq!(without_code_links("see [`A`], [`b`](c) and [`d"), "see `A`, [`b`](c) and [`d");
    }
}
