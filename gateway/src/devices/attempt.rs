//! What a client asks for when it connects.

use openclaw_schema::{
    methods::connect::{ConnectAuth, ConnectParams},
    types::Text,
};

use super::{
    proof::DeviceProof,
    record::{Metadata, Role},
    refusal::Refusal,
};
use crate::caller::Caller;

/// The version of the frame protocol that was negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    V3,
    V4,
}

/// Everything that decides about a handshake.
#[derive(Debug, Clone)]
pub(crate) struct ConnectAttempt {
    pub(crate) client: Metadata,
    pub(crate) role: Role,
    /// As they were sent: the signature covers their order.
    pub(crate) scopes: Vec<String>,
    pub(crate) auth: ConnectAuth,
    pub(crate) proof: Option<DeviceProof>,
    /// The nonce of this connection's challenge.
    pub(crate) nonce: String,
    pub(crate) caller: Caller,
    pub(crate) protocol: Protocol,
}

impl ConnectAttempt {
    /// The attempt of params whose shape and protocol range were checked. Refuses a role that does not exist.
    pub(crate) fn new(
        params: &ConnectParams,
        nonce: &str,
        protocol: Protocol,
        caller: Caller,
    ) -> Result<Self, Refusal> {
        let role = match params.role.as_deref() {
            None => Role::Operator,
            Some(name) => Role::from_name(name).ok_or_else(|| Refusal::plain("invalid role"))?,
        };
        let client = params.client.clone().unwrap_or_default();
        let proof = params.device.clone().map(|device| DeviceProof {
            id: device.id.into_string(),
            public_key: device.public_key.into_string(),
            signature: device.signature.into_string(),
            signed_at: device.signed_at,
            nonce: device.nonce.into_string(),
        });
        Ok(Self {
            client: Metadata {
                client_id: client.id.map(Text::into_string).unwrap_or_default(),
                client_mode: client.mode.map(Text::into_string).unwrap_or_default(),
                platform: client.platform.map(Text::into_string),
                device_family: client.device_family.map(Text::into_string),
                display_name: client.display_name.map(Text::into_string),
            },
            role,
            scopes: params.scopes.clone().unwrap_or_default(),
            auth: params.auth.clone().unwrap_or_default(),
            proof,
            nonce: nonce.to_owned(),
            caller,
            protocol,
        })
    }

    /// The scopes that the role can hold: a node holds none, whatever it asks for.
    pub(super) fn granted_scopes(&self) -> &[String] {
        match self.role {
            Role::Operator => &self.scopes,
            Role::Node => &[],
        }
    }

    /// The token that the signature covers (wire.md section 5).
    pub(super) fn signed_token(&self) -> &str {
        let auth = &self.auth;
        auth.token
            .as_deref()
            .or(auth.device_token.as_deref())
            .or(auth.bootstrap_token.as_deref())
            .unwrap_or_default()
    }

    /// Whether the gateway's secret was sent, be it right or wrong.
    pub(super) fn has_secret(&self) -> bool {
        [&self.auth.token, &self.auth.password].into_iter().flatten().any(|field| !field.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(params: serde_json::Value) -> Result<ConnectAttempt, Refusal> {
        let params = serde_json::from_value(params).expect("the params are well-formed");
        ConnectAttempt::new(&params, "nonce", Protocol::V4, Caller::at([127, 0, 0, 1].into()))
    }

    #[test]
    fn the_params_of_the_stock_command_line_are_understood() {
        // Captured: wire.md section 3.
        let attempt = attempt(serde_json::json!({
            "minProtocol": 4, "maxProtocol": 4,
            "client": {
                "id": "cli", "version": "2026.9.6", "platform": "linux", "deviceFamily": "Linux", "mode": "cli",
                "instanceId": "2ba34717-4d34-44f6-a249-046268eb1951",
            },
            "caps": [], "auth": { "token": "secret" }, "role": "operator", "scopes": ["operator.read"],
        }))
        .expect("the role exists");
        assert_eq!((attempt.role, attempt.signed_token()), (Role::Operator, "secret"));
        assert_eq!(attempt.client.device_family.as_deref(), Some("Linux"));
        assert!(attempt.has_secret() && attempt.proof.is_none());
    }

    #[test]
    fn a_role_that_does_not_exist_is_refused() {
        let refusal = attempt(serde_json::json!({ "role": "king" })).expect_err("there is no king");
        assert_eq!(refusal, Refusal::plain("invalid role"));
        assert_eq!(attempt(serde_json::json!({})).expect("it is good").role, Role::Operator);
    }

    #[test]
    fn a_node_holds_no_scopes_but_signs_them() {
        let params = serde_json::json!({ "role": "node", "scopes": ["operator.admin"] });
        let attempt = attempt(params).expect("the role exists");
        assert!(attempt.granted_scopes().is_empty());
        assert_eq!(attempt.scopes, ["operator.admin"]);
    }
}
