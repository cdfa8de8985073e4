//! The published document: valid OpenRPC, complete, and with examples that hold.
//!
//! `data/` has the meta-schemas; see its NOTICE for their origin.

use std::collections::BTreeSet;

use jsonschema::{Draft, Registry, Validator};
use openclaw_schema::{ErrorCode, contract::MethodRecord, document::document, methods};
use serde_json::{Value, json};

#[test]
fn is_valid_openrpc() {
    let schema_tools = meta_schema(include_str!("data/json-schema-tools.schema.json"));
    let openrpc = meta_schema(include_str!("data/openrpc-1.3.2.schema.json"));
    let registry = Registry::new()
        .draft(Draft::Draft7)
        // Referred to without the slash that its `$id` has.
        .add("https://meta.json-schema.tools", schema_tools)
        .and_then(jsonschema::RegistryBuilder::prepare)
        .expect("the vendored schema is a resource");
    let validator = jsonschema::options()
        .with_draft(Draft::Draft7)
        .with_registry(&registry)
        .offline()
        .build(&openrpc)
        .expect("the vendored meta-schema is a schema");
    assert_valid(&validator, &document(), "document");
    assert!(
        !validator.is_valid(&json!({ "openrpc": "1.3.2", "methods": [] })),
        "the validator checks nothing"
    );
}

#[test]
fn every_reference_resolves() {
    let document = document();
    let mut references = BTreeSet::new();
    collect_references(&document, &mut references);
    assert!(references.len() > 50, "only {} references were found", references.len());
    for reference in references {
        let pointer = reference.strip_prefix('#').expect("references stay within the document");
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
}

#[test]
fn every_component_schema_is_draft_07() {
    let document = document();
    for (name, schema) in document["components"]["schemas"].as_object().expect("an object") {
        let validity = jsonschema::draft7::meta::validate(schema).map_err(|error| error.to_string());
        assert_eq!(validity, Ok(()), "{name}");
    }
}

#[test]
fn every_method_is_told_in_full() {
    let document = document();
    for method in published(&document) {
        let name = text(&method["name"]);
        assert!(!text(&method["summary"]).is_empty(), "{name}: no summary");
        for param in list(&method["params"]) {
            assert!(
                !text(&param["description"]).is_empty(),
                "{name}: param {} has no description",
                param["name"]
            );
            assert!(param["schema"].is_object(), "{name}: param {} has no schema", param["name"]);
        }
        for member in ["/x-params-schema", "/result/schema"] {
            assert!(method.pointer(member).is_some_and(Value::is_object), "{name}: no {member}");
        }
        assert!(!list(&method["errors"]).is_empty(), "{name}: no errors");
        assert!(method["x-scope"].is_string(), "{name}: no scope");
        assert!(method["x-since"].is_string(), "{name}: no since");
        assert!(!list(&method["examples"]).is_empty(), "{name}: no success example");
        assert!(!list(&method["x-error-examples"]).is_empty(), "{name}: no error example");
    }
}

#[test]
fn every_code_of_the_registry_is_published() {
    let document = document();
    let errors = document["components"]["errors"].as_object().expect("an object");
    assert_eq!(errors.len(), ErrorCode::ALL.len());
    for code in ErrorCode::ALL {
        assert_eq!(errors[code.name()]["code"], code.number());
        assert_eq!(errors[code.name()]["data"]["retryable"], code.is_retryable());
    }
}

#[test]
fn every_success_example_fits_its_schemas_and_types() {
    let document = document();
    for method in published(&document) {
        let name = text(&method["name"]);
        let params_schema = validator(&document, &method["x-params-schema"]);
        let result_schema = validator(&document, &method["result"]["schema"]);
        for example in list(&method["examples"]) {
            let case = format!("{name}, `{}`", text(&example["name"]));
            let params: Value = list(&example["params"])
                .iter()
                .map(|param| (text(&param["name"]).to_owned(), param["value"].clone()))
                .collect();
            assert_valid(&params_schema, &params, &format!("{case}: params"));
            assert_valid(&result_schema, &example["result"]["value"], &format!("{case}: result"));
            let check = record(name).params.check;
            assert_eq!(check(&params.to_string()), Ok(()), "{case}: params");
        }
    }
}

#[test]
fn every_error_example_is_refused_for_the_reason_it_names() {
    let document = document();
    let data_schema = validator(&document, &document["x-error-data"]);
    for method in published(&document) {
        let name = text(&method["name"]);
        let params_schema = validator(&document, &method["x-params-schema"]);
        let declared: Vec<&str> = list(&method["errors"]).iter().map(|error| text(&error["$ref"])).collect();
        for example in list(&method["x-error-examples"]) {
            let case = format!("{name}, `{}`", text(&example["name"]));
            let (params, error) = (&example["params"], &example["error"]);
            assert_valid(&data_schema, &error["data"], &format!("{case}: data"));
            let code = ErrorCode::from_name(text(&error["data"]["code"])).expect("a code of the registry");
            assert_eq!(error["code"], code.number(), "{case}");
            assert!(
                declared.contains(&&*format!("#/components/errors/{code}")),
                "{case}: {code} is not declared"
            );
            let check = (record(name).params.check)(&params.to_string());
            // Examples of `invalid` are by their making; with `refused` a handler refuses what fits, for what is there now.
            if code == ErrorCode::InvalidParams && check.is_err() {
                assert!(!params_schema.is_valid(params), "{case}: the params are valid by the schema");
            } else {
                // Refused for another reason, so the params themselves are good.
                assert_eq!(check, Ok(()), "{case}");
                assert_valid(&params_schema, params, &case);
            }
        }
    }
}

#[test]
fn every_event_example_fits_its_payload() {
    let document = document();
    for event in list(&document["x-events"]) {
        let payload = validator(&document, &event["payload"]["schema"]);
        assert_valid(&payload, &event["example"], text(&event["name"]));
    }
}

fn published(document: &Value) -> &[Value] {
    list(&document["methods"])
}

fn record(name: &str) -> &'static MethodRecord {
    methods::find(name).unwrap_or_else(|| panic!("{name} is published and not declared"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// A validator of `schema`, whose references point into the components of `document`.
fn validator(document: &Value, schema: &Value) -> Validator {
    let schema = json!({ "allOf": [schema], "components": document["components"] });
    jsonschema::options()
        .with_draft(Draft::Draft7)
        .offline()
        .build(&schema)
        .unwrap_or_else(|error| panic!("{schema} is no schema: {error}"))
}

fn assert_valid(validator: &Validator, instance: &Value, what: &str) {
    let errors: Vec<String> =
        validator.iter_errors(instance).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert_eq!(errors, Vec::<String>::new(), "{what}");
}

/// Both name each other's host as their dialect, which is draft-07 under another name.
fn meta_schema(text: &str) -> Value {
    let mut schema: Value = serde_json::from_str(text).expect("vendored JSON");
    schema.as_object_mut().expect("an object").remove("$schema");
    schema
}

fn collect_references<'a>(value: &'a Value, references: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                match value {
                    Value::String(reference) if key == "$ref" => {
                        references.insert(reference);
                    }
                    value => collect_references(value, references),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, references)),
        _ => {}
    }
}
