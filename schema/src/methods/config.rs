//! `config.get`: the configuration file, secrets replaced. Shapes follow wire.md section 10.

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
    /// The values that apply: those of the file, and no others. Empty when there are none.
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
