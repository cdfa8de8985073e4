//! `config.get`: the configuration file, secrets replaced; `config.schema`: what may stand in it. Shapes follow wire.md section 10.

use std::collections::BTreeMap;

use jsonrpsee::{core::RpcResult, proc_macros::rpc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{contract, contract::Examples, types::NoParams};

/// What stands in the place of a secret. wire.md section 10.
pub const REDACTED: &str = "__OPENCLAW_REDACTED__";

/// Result of `config.get`. No field holds a secret: `__OPENCLAW_REDACTED__` stands in its place.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigGetResult {
    /// The file.
    pub path: String,
    /// Whether it is there.
    #[serde(default)]
    pub exists: bool,
    /// Whether it reads without a fault; `issues` has the fault.
    #[serde(default)]
    pub valid: bool,
    /// The file as text, written anew from its values, so that no comment gives a secret away; null when the file is
    /// not there or is not JSON5.
    #[serde(default)]
    pub raw: Option<String>,
    /// The file as values; null when it is not there or is not JSON5.
    #[serde(default)]
    pub parsed: Option<Value>,
    /// The values that apply: those of the file and of what it includes, and no others. Empty when there are none.
    #[serde(default)]
    pub config: Map<String, Value>,
    /// Names the content of the file: another hash means another content. Differs between two starts of the gateway.
    #[serde(default)]
    pub hash: String,
    /// What is wrong with the file.
    #[serde(default)]
    pub issues: Vec<ConfigIssue>,
    /// What looks odd, but is not refused.
    #[serde(default)]
    pub warnings: Vec<ConfigIssue>,
}

/// Something about the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigIssue {
    /// The key that it is about, its parts joined by dots; empty for the file as a whole.
    #[serde(default)]
    pub path: String,
    /// What it is, in a sentence.
    #[serde(default)]
    pub message: String,
}

/// Result of `config.schema`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigSchemaResult {
    /// The JSON Schema (draft-07) of the configuration file, without references. `x-openclaw-reload` says of each key
    /// whether a change applies `live` or after a `restart`; `x-openclaw-secret` marks secrets, `x-openclaw-ignored`
    /// what only OpenClaw reads.
    pub schema: Map<String, Value>,
    /// What a form shows for a key, by its path: `*` stands for a name that the user chooses, `[]` for each entry of a
    /// list.
    pub ui_hints: BTreeMap<String, ConfigUiHint>,
    /// The version of the gateway.
    pub version: String,
    /// When it was made: RFC 3339, UTC.
    pub generated_at: String,
}

/// What a form shows for a key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigUiHint {
    /// What the key is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Whether its value is a secret. False by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sensitive: Option<bool>,
}

/// The configuration.
#[contract(group = "Configuration")]
#[rpc(server, client, namespace = "config", namespace_separator = ".")]
pub trait Config {
    /// Answers the configuration file as it is now, secrets replaced.
    ///
    /// A running gateway keeps the values that it started with.
    #[method(name = "get")]
    #[meta(scope = "operator.read", since = "0.1.0", idempotent, examples = config_get)]
    async fn config_get(&self, params: NoParams) -> RpcResult<ConfigGetResult>;

    /// Answers the JSON Schema of the configuration file, as far as this gateway reads it.
    ///
    /// It is that of the gateway, whatever the file says.
    #[method(name = "schema")]
    #[meta(scope = "operator.read", since = "0.1.0", idempotent, examples = config_schema)]
    async fn config_schema(&self, params: NoParams) -> RpcResult<ConfigSchemaResult>;
}

fn config_schema() -> Examples<NoParams, ConfigSchemaResult> {
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "OpenClaw configuration",
        "type": "object",
        "properties": { "gateway": { "type": "object" } },
    });
    let hint =
        ConfigUiHint { help: Some("The token that callers present.".to_owned()), sensitive: Some(true) };
    let result = ConfigSchemaResult {
        schema: schema.as_object().cloned().unwrap_or_default(),
        ui_hints: BTreeMap::from([("gateway.auth.token".to_owned(), hint)]),
        version: "0.1.0".to_owned(),
        generated_at: "2026-11-22T09:05:01Z".to_owned(),
    };
    Examples::success("the schema, shortened", NoParams {}, result)
        .invalid("a field that does not exist", json!({ "path": "gateway" }))
}

fn config_get() -> Examples<NoParams, ConfigGetResult> {
    let parsed = json!({ "gateway": { "mode": "local", "auth": { "token": REDACTED } } });
    let result = ConfigGetResult {
        path: "/home/ada/.openclaw/openclaw.json".to_owned(),
        exists: true,
        valid: true,
        raw: Some(format!("{parsed:#}\n")),
        config: parsed.as_object().cloned().unwrap_or_default(),
        parsed: Some(parsed),
        hash: "5f1c0e2b7d9a4c3b8e6f1a2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69".to_owned(),
        issues: Vec::new(),
        warnings: Vec::new(),
    };
    Examples::success("a file with a token", NoParams {}, result)
        .invalid("a field that does not exist", json!({ "reveal": true }))
}
