//! `connect`: who the caller is. Shapes follow wire.md section 3.

use std::collections::BTreeMap;

use jsonrpsee::{core::RpcResult, proc_macros::rpc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::gateway::{HealthResult, PresenceEntry};
use crate::{
    RpcError, contract,
    contract::Examples,
    types::{Prepared, Text, TimestampMs},
};

/// The client programs that OpenClaw frames admit (wire.md section 3). JSON-RPC admits any name.
pub const CLIENT_IDS: &[&str] = &[
    "webchat-ui",
    "openclaw-control-ui",
    "openclaw-browser-copilot",
    "openclaw-tui",
    "webchat",
    "cli",
    "gateway-client",
    "openclaw-macos",
    "openclaw-linux",
    "openclaw-ios",
    "openclaw-watchos",
    "openclaw-android",
    "node-host",
    "openclaw-worker",
    "test",
    "fingerprint",
    "openclaw-probe",
];

/// The client modes that OpenClaw frames admit (wire.md section 3). JSON-RPC admits any name.
pub const CLIENT_MODES: &[&str] = &["webchat", "cli", "ui", "backend", "node", "worker", "probe", "test"];

/// Params of `connect`. Over OpenClaw frames `minProtocol`, `maxProtocol` and `client` (with `id`, `version`,
/// `platform` and `mode`) are required; over JSON-RPC a credential is enough, and `role`, `device` and the tokens
/// of devices are refused: there is no challenge to sign.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConnectParams {
    /// The lowest version of the frame protocol that the client speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_protocol: Option<u32>,
    /// The highest version of the frame protocol that the client speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_protocol: Option<u32>,
    /// The client program, for the presence list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<ConnectClientInfo>,
    /// What the client wants to be: `operator` when absent, or `node`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<ConnectAuth>,
    /// The device that the client runs on, with its signature of the challenge.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<ConnectDevice>,
    /// Narrows the rights of this connection to these scopes; all that the credential grants when absent.
    /// Names that the gateway does not know grant nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// What the client can take, for example `tool-events`. Unknown names are passed over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caps: Option<Vec<String>>,
    /// The commands that a node offers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commands: Option<Vec<String>>,
    /// What a node's system allows it, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<BTreeMap<String, bool>>,
    /// The search path of a node's commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_env: Option<String>,
    /// What a node offers to workers. Read by no part of this gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker_runs: Option<Value>,
    /// What a node offers for the control of its screen. Read by no part of this gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub computer_use: Option<Value>,
    /// The language of the client's user, for example `de-AT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub locale: Option<String>,
    /// The client's own description of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
}

/// The client program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConnectClientInfo {
    /// The id of the program, for example `cli`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Text<1, 64>>,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Text<1, 64>>,
    /// Its build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_id: Option<Text<1, 96>>,
    /// Its platform, for example `linux`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Text<1, 256>>,
    /// The family of its device, for example `iPad`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_family: Option<Text<1, 256>>,
    /// The model of its device, for example `iPad16,3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_identifier: Option<Text<1, 256>>,
    /// Its time zone, for example `Europe/Vienna`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<Text<1, 64>>,
    /// What kind of client it is, for example `cli`, `ui`, `backend`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Text<1, 64>>,
    /// Its instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<Text<1, 256>>,
    /// Its name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<Text<1, 256>>,
}

/// A credential. The gateway's secret may be sent as `token` or as `password`.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConnectAuth {
    /// The gateway's token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The gateway's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// The token that the gateway gave to the client's device. It may be sent as `token` too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_token: Option<String>,
    /// The single-use token of a setup code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootstrap_token: Option<String>,
    /// A token of the approval runtime. Read by no part of this gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval_runtime_token: Option<String>,
    /// An identity token of an agent runtime. Read by no part of this gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_runtime_identity_token: Option<String>,
}

impl std::fmt::Debug for ConnectAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ConnectAuth(..)")
    }
}

/// A device and its signature of the challenge (wire.md section 5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConnectDevice {
    /// The SHA-256 of the raw public key, in lower-case hex.
    pub id: Text<1, 256>,
    /// The Ed25519 public key: 32 bytes in base64url or base64, or an SPKI PEM.
    pub public_key: Text<1, 1024>,
    /// The signature, in base64url or base64.
    pub signature: Text<1, 1024>,
    /// When it was signed: `ts` of the challenge.
    pub signed_at: TimestampMs,
    /// The nonce of the challenge.
    pub nonce: Text<1, 256>,
}

/// Result of `connect`: what this connection is and may do. Over OpenClaw frames it is the whole greeting, with
/// `type`, `protocol`, `features` and `snapshot`; over JSON-RPC those have methods of their own.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectResult {
    /// `hello-ok`, over OpenClaw frames.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The version of the frame protocol that is spoken from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u32>,
    /// The gateway.
    pub server: ConnectServerInfo,
    /// What the gateway can do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub features: Option<ConnectFeatures>,
    /// The state of the gateway at this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<ConnectSnapshot>,
    /// Where the surfaces of plugins are served, by plugin; over frames of protocol 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plugin_surface_urls: Option<BTreeMap<String, String>>,
    /// What the connection may do.
    pub auth: ConnectGrant,
    /// The bounds that hold for it.
    pub policy: ConnectPolicy,
}

/// What a gateway can do, whatever the caller may do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectFeatures {
    /// The methods.
    pub methods: Vec<String>,
    /// The events.
    pub events: Vec<String>,
    /// Abilities that are neither; over frames of protocol 4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Vec<String>>,
}

/// The state of a gateway at the moment of the greeting.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectSnapshot {
    /// Who is connected; empty without scope `operator.read`.
    pub presence: Vec<PresenceEntry>,
    /// The result of method `health`.
    pub health: Prepared<HealthResult>,
    /// The versions of the two.
    pub state_version: StateVersion,
    /// For how long the gateway has run, in milliseconds.
    pub uptime_ms: u64,
    /// The configuration file; for scope `operator.admin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_path: Option<String>,
    /// The state directory; for scope `operator.admin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_dir: Option<String>,
    /// What callers must present: `token`, `password` or `none`; for scope `operator.admin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_mode: Option<String>,
    /// What a session is when a caller names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_defaults: Option<ConnectSessionDefaults>,
}

/// Versions of what the gateway pushes whole: each counts up when its part changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StateVersion {
    /// That of the presence list.
    pub presence: u64,
    /// That of the health snapshot.
    pub health: u64,
}

/// What a session is when a caller names none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectSessionDefaults {
    /// The agent.
    pub default_agent_id: String,
    /// The name of every agent's main session.
    pub main_key: String,
    /// The main session of that agent.
    pub main_session_key: String,
    /// How sessions are told apart: `per-sender`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
}

/// The gateway that answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectServerInfo {
    /// Its version.
    pub version: String,
    /// Its build.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build_id: Option<String>,
    /// Differs at every start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// The name of its host; over frames of protocol 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The id of this connection.
    pub conn_id: String,
}

/// What a connection may do.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectGrant {
    /// How the caller was recognised: `token`, `password`, `none`, `device-token` or `bootstrap-token`.
    pub method: String,
    /// The role: `operator` or `node`.
    pub role: String,
    /// The scopes of the connection.
    pub scopes: Vec<String>,
    /// The token by which the device is recognised from now on, for this role. The device keeps it secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_token: Option<String>,
    /// When that token was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_at_ms: Option<TimestampMs>,
    /// Tokens of the device for its other roles, when a setup code has paired it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_tokens: Option<Vec<ConnectDeviceToken>>,
}

/// A token of a device for a role that this connection does not have. The device keeps it secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectDeviceToken {
    /// The token.
    pub device_token: String,
    /// The role.
    pub role: String,
    /// The scopes of the token, sorted.
    pub scopes: Vec<String>,
    /// When the token was made.
    pub issued_at_ms: TimestampMs,
}

impl std::fmt::Debug for ConnectDeviceToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectDeviceToken")
            .field("role", &self.role)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for ConnectGrant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnectGrant")
            .field("method", &self.method)
            .field("role", &self.role)
            .field("scopes", &self.scopes)
            .finish_non_exhaustive()
    }
}

/// The bounds that hold for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectPolicy {
    /// The largest message that the gateway reads, in bytes.
    pub max_payload: u64,
    /// How many bytes may wait to be written before the connection is closed.
    pub max_buffered_bytes: u64,
    /// Milliseconds between two `tick` events.
    pub tick_interval_ms: u64,
}

/// Who the caller is.
#[contract(group = "Connection")]
#[rpc(server, client)]
pub trait Connect {
    /// Authenticates a WebSocket connection, or narrows the rights of one that is authenticated.
    ///
    /// For clients that cannot set an `Authorization` header, such as a page in a browser: the first call on
    /// the connection. A wrong credential closes it. A connection that is authenticated by its header may call
    /// this once, to name itself and to narrow its scopes. Over HTTP there is no connection to speak of:
    /// send the header.
    #[method(name = "connect", with_extensions)]
    #[meta(scope = "none", since = "0.1.0", errors(NotPaired, RateLimited), examples = connect)]
    async fn connect(&self, params: ConnectParams) -> RpcResult<ConnectResult>;
}

fn connect() -> Examples<ConnectParams, ConnectResult> {
    let params = ConnectParams {
        auth: Some(ConnectAuth { token: Some("secret".to_owned()), ..ConnectAuth::default() }),
        scopes: Some(vec!["operator.read".to_owned()]),
        ..ConnectParams::default()
    };
    let result = ConnectResult {
        kind: None,
        protocol: None,
        server: ConnectServerInfo {
            version: "0.1.0".to_owned(),
            build_id: None,
            boot_id: None,
            host: None,
            conn_id: "17".to_owned(),
        },
        features: None,
        snapshot: None,
        plugin_surface_urls: None,
        auth: ConnectGrant {
            method: "token".to_owned(),
            role: "operator".to_owned(),
            scopes: vec!["operator.read".to_owned()],
            device_token: None,
            issued_at_ms: None,
            device_tokens: None,
        },
        policy: ConnectPolicy {
            max_payload: 26_214_400,
            max_buffered_bytes: 52_428_800,
            tick_interval_ms: 30_000,
        },
    };
    Examples::success("a page that may only read", params, result)
        .invalid("a field that does not exist", json!({ "token": "secret" }))
        .refused(
            "a wrong token",
            json!({ "auth": { "token": "wrong" } }),
            RpcError::unauthorized("unauthorized: gateway token mismatch"),
        )
}
