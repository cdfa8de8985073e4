//! `config.get`, `config.set`, `config.patch`, `config.apply`: the configuration file, secrets replaced; `config.schema`:
//! what may stand in it. Shapes follow wire.md section 10.

use std::collections::BTreeMap;

use jsonrpsee::{core::RpcResult, proc_macros::rpc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    RpcError, contract,
    contract::Examples,
    methods::lifecycle::RestartRequestResult,
    problem::ParamProblem,
    types::{Bounded, NoParams, Text},
};

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

/// Why `baseHash` is refused, as `data.reason` tells it: whoever sees it reads the configuration again.
pub const CONFIG_CHANGED: &str = "config-changed";

/// A configuration as text: JSON5, an object.
pub type RawConfig = Text<1, 4_194_304>;

/// Params of `config.set`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigSetParams {
    /// The whole configuration. Where it says `__OPENCLAW_REDACTED__`, the secret that is stored there stays.
    pub raw: RawConfig,
    /// `hash` of the `config.get` that it was made from. Required once there is a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_hash: Option<Text<1, 128>>,
}

/// Params of `config.apply`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigApplyParams {
    /// The whole configuration. Where it says `__OPENCLAW_REDACTED__`, the secret that is stored there stays.
    pub raw: RawConfig,
    /// `hash` of the `config.get` that it was made from. Required once there is a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_hash: Option<Text<1, 128>>,
    /// How long to wait before a restart that is needed begins, in milliseconds. 0 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_delay_ms: Option<Bounded<0, 600_000>>,
    /// Why, for the log and for the restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Text<0, 200>>,
    /// The session that asks, for the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_key: Option<Text<0, 512>>,
    /// Accepted for stock clients, without effect: the answer goes to the caller alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_context: Option<Map<String, Value>>,
}

/// Params of `config.patch`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigPatchParams {
    /// What is merged into the configuration: objects key by key, null deletes, anything else takes the place of what
    /// is there. Arrays whose entries all have an `id` are merged by it; others must keep their entries.
    pub raw: RawConfig,
    /// `hash` of the `config.get` that it was made from. Required once there is a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_hash: Option<Text<1, 128>>,
    /// Arrays that may lose entries or go, by their exact paths, such as `agents.entries.main.skills`; `[]` stands for
    /// the entries of an array.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub replace_paths: Vec<Text<1, 1024>>,
    /// Restart after so many milliseconds if something waits for a restart. Without it nothing is restarted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_delay_ms: Option<Bounded<0, 600_000>>,
    /// Why, for the log and for the restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Text<0, 200>>,
    /// The session that asks, for the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_key: Option<Text<0, 512>>,
    /// Accepted for stock clients, without effect: the answer goes to the caller alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery_context: Option<Map<String, Value>>,
}

/// Result of `config.set`, `config.patch` and `config.apply`. No field holds a secret.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigWriteResult {
    /// Whether the file says what was asked for.
    pub ok: bool,
    /// The file.
    #[serde(default)]
    pub path: String,
    /// The values of the file now, `__OPENCLAW_REDACTED__` in the place of each secret.
    #[serde(default)]
    pub config: Map<String, Value>,
    /// Names the content of the file now: `baseHash` of the next change.
    #[serde(default)]
    pub hash: String,
    /// The paths that differ from before; empty when the file was left alone.
    #[serde(default)]
    pub changed_paths: Vec<String>,
    /// The keys that are in force now and were not before.
    #[serde(default)]
    pub applied: Vec<String>,
    /// The keys that are otherwise in the file than the gateway runs with, and wait for a restart.
    #[serde(default)]
    pub waits_for_restart: Vec<String>,
    /// The restart that was asked for; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<RestartRequestResult>,
    /// Why there is no restart although one is needed, if that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_refused: Option<String>,
}

/// The configuration.
#[contract(group = "Configuration")]
#[rpc(server, client, namespace = "config", namespace_separator = ".")]
pub trait Config {
    /// Answers the configuration file as it is now, secrets replaced.
    ///
    /// What of it waits for a restart, `status` tells. A file that is broken is not in force: the gateway runs with what
    /// it had.
    #[method(name = "get")]
    #[meta(scope = "operator.read", since = "0.1.0", idempotent, examples = config_get)]
    async fn config_get(&self, params: NoParams) -> RpcResult<ConfigGetResult>;

    /// Answers the JSON Schema of the configuration file, as far as this gateway reads it.
    ///
    /// It is that of the gateway, whatever the file says.
    #[method(name = "schema")]
    #[meta(scope = "operator.read", since = "0.1.0", idempotent, examples = config_schema)]
    async fn config_schema(&self, params: NoParams) -> RpcResult<ConfigSchemaResult>;

    /// Puts another configuration in the place of the whole file, and takes over what needs no restart.
    ///
    /// What is wrong is refused, and nothing is written. Comments of the file stay, unless `raw` has its own. The old
    /// content is kept as a backup beside the file.
    #[method(name = "set", with_extensions)]
    #[meta(scope = "operator.admin", since = "0.1.0", errors(Unavailable), examples = config_set)]
    async fn config_set(&self, params: ConfigSetParams) -> RpcResult<ConfigWriteResult>;

    /// Merges values into the configuration file, and takes over what needs no restart.
    ///
    /// What is wrong is refused, and nothing is written. Comments and formatting stay. The old content is kept as a
    /// backup beside the file. Nothing is restarted unless `restartDelayMs` is given.
    #[method(name = "patch", with_extensions)]
    #[meta(scope = "operator.admin", since = "0.1.0", errors(Unavailable), examples = config_patch)]
    async fn config_patch(&self, params: ConfigPatchParams) -> RpcResult<ConfigWriteResult>;

    /// Puts another configuration in the place of the whole file, takes over what needs no restart, and restarts the
    /// gateway for the rest.
    ///
    /// As `config.set`. The restart follows the answer; there is none where `commands.restart` is false.
    #[method(name = "apply", with_extensions)]
    #[meta(scope = "operator.admin", since = "0.1.0", errors(Unavailable), examples = config_apply)]
    async fn config_apply(&self, params: ConfigApplyParams) -> RpcResult<ConfigWriteResult>;
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

/// What a first configuration is answered with.
fn written(config: &Value) -> ConfigWriteResult {
    let config = config.as_object().cloned().unwrap_or_default();
    ConfigWriteResult {
        ok: true,
        path: "/home/ada/.openclaw/openclaw.json".to_owned(),
        hash: "5f1c0e2b7d9a4c3b8e6f1a2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69".to_owned(),
        changed_paths: config.keys().cloned().collect(),
        waits_for_restart: config.keys().cloned().collect(),
        config,
        ..ConfigWriteResult::default()
    }
}

fn raw(text: &str) -> RawConfig {
    RawConfig::new(text).expect("it is short enough")
}

fn problem(method: &str, path: &str, reason: &str) -> RpcError {
    let (path, reason) = (path.to_owned(), reason.to_owned());
    ParamProblem { path, reason, allowed: Vec::new(), nearest: None }.into_error(method)
}

/// A `baseHash` that names another content than the file has.
#[must_use]
pub fn stale_base(method: &str) -> RpcError {
    let reason =
        "the configuration has changed since baseHash: read it again with config.get, and send its hash";
    let mut error = problem(method, "/baseHash", reason);
    error.data.reason = Some(CONFIG_CHANGED.to_owned());
    error
}

fn config_set() -> Examples<ConfigSetParams, ConfigWriteResult> {
    let params = ConfigSetParams { raw: raw("{gateway: {mode: \"local\"}}"), base_hash: None };
    let stale = json!({ "raw": "{}", "baseHash": "0123" });
    Examples::success("a first configuration", params, written(&json!({ "gateway": { "mode": "local" } })))
        .refused("a hash of another content", stale, stale_base(ConfigMethod::ConfigSet.name()))
        .invalid("no configuration", json!({}))
}

fn config_patch() -> Examples<ConfigPatchParams, ConfigWriteResult> {
    let params = ConfigPatchParams {
        raw: raw("{logging: {level: \"debug\"}}"),
        base_hash: None,
        replace_paths: Vec::new(),
        restart_delay_ms: None,
        note: Text::new("to find out why").ok(),
        session_key: None,
        delivery_context: None,
    };
    let wrong = json!({ "raw": format!("{{gateway: {{auth: {{token: \"{REDACTED}\"}}}}}}") });
    let nothing = "gateway.auth.token is __OPENCLAW_REDACTED__, and no secret is stored there: give the secret, or leave it out";
    Examples::success("one level", params, written(&json!({ "logging": { "level": "debug" } })))
        .refused(
            "a secret that was never stored",
            wrong,
            problem(ConfigMethod::ConfigPatch.name(), "/raw", nothing),
        )
        .invalid("a field that does not exist", json!({ "raw": "{}", "path": "gateway" }))
}

fn config_apply() -> Examples<ConfigApplyParams, ConfigWriteResult> {
    let params = ConfigApplyParams {
        raw: raw("{gateway: {mode: \"local\"}}"),
        base_hash: None,
        restart_delay_ms: None,
        note: None,
        session_key: None,
        delivery_context: None,
    };
    let stale = json!({ "raw": "{}", "baseHash": "0123" });
    let result = written(&json!({ "gateway": { "mode": "local" } }));
    let result = ConfigWriteResult {
        restart_refused: Some(
            "this gateway is part of a program that takes over no configuration".to_owned(),
        ),
        ..result
    };
    Examples::success("a first configuration", params, result)
        .refused("a hash of another content", stale, stale_base(ConfigMethod::ConfigApply.name()))
        .invalid("a delay that is too long", json!({ "raw": "{}", "restartDelayMs": 600_001 }))
}
