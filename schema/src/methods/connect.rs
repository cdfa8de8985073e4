//! `connect`: who the caller is. Shapes follow wire.md section 3.

use jsonrpsee::{core::RpcResult, proc_macros::rpc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{RpcError, contract, contract::Examples, types::Text};

/// Params of `connect`. Over OpenClaw frames `minProtocol`, `maxProtocol` and `client` are required; over
/// JSON-RPC a credential is enough.
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
    /// The credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<ConnectAuth>,
    /// Narrows the rights of this connection to these scopes; all that the credential grants when absent.
    /// Names that the gateway does not know grant nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
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
    /// Its platform, for example `linux`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Text<1, 64>>,
    /// What kind of client it is, for example `cli`, `ui`, `backend`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<Text<1, 64>>,
    /// Its instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<Text<1, 128>>,
    /// Its name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<Text<1, 128>>,
}

/// A credential. The gateway's secret may be sent in either field.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConnectAuth {
    /// The gateway's token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The gateway's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

impl std::fmt::Debug for ConnectAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ConnectAuth(..)")
    }
}

/// Result of `connect`: what this connection is and may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectResult {
    /// The gateway.
    pub server: ConnectServerInfo,
    /// What the connection may do.
    pub auth: ConnectGrant,
    /// The bounds that hold for it.
    pub policy: ConnectPolicy,
}

/// The gateway that answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectServerInfo {
    /// Its version.
    pub version: String,
    /// The id of this connection.
    pub conn_id: String,
}

/// What a connection may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectGrant {
    /// How the caller was recognised: `token`, `password` or `none`.
    pub method: String,
    /// The role: `operator`.
    pub role: String,
    /// The scopes of the connection.
    pub scopes: Vec<String>,
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
    #[meta(scope = "none", since = "0.1.0", examples = connect)]
    async fn connect(&self, params: ConnectParams) -> RpcResult<ConnectResult>;
}

fn connect() -> Examples<ConnectParams, ConnectResult> {
    let params = ConnectParams {
        auth: Some(ConnectAuth { token: Some("secret".to_owned()), password: None }),
        scopes: Some(vec!["operator.read".to_owned()]),
        ..ConnectParams::default()
    };
    let result = ConnectResult {
        server: ConnectServerInfo { version: "0.1.0".to_owned(), conn_id: "17".to_owned() },
        auth: ConnectGrant {
            method: "token".to_owned(),
            role: "operator".to_owned(),
            scopes: vec!["operator.read".to_owned()],
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
