//! `connect`.

use jsonrpsee::{
    Extensions,
    core::{RpcResult, async_trait},
};
use openclaw_schema::{
    ErrorCode, RpcError, Scope, Scopes,
    methods::connect::{ConnectGrant, ConnectParams, ConnectResult, ConnectServerInfo},
    server::ConnectServer,
};

use super::{Handlers, caller, refuse};
use crate::connection::Transport;

#[async_trait]
impl ConnectServer for Handlers {
    async fn connect(&self, extensions: &Extensions, params: ConnectParams) -> RpcResult<ConnectResult> {
        let connection = caller(extensions)?;
        if connection.transport() == Transport::Http {
            let message = "connect is for WebSockets: over HTTP send the header `Authorization: Bearer …`";
            return Err(refuse(RpcError::new(ErrorCode::InvalidRequest, message)));
        }
        // Names that the gateway does not know grant nothing.
        let asked = params
            .scopes
            .map(|names| names.iter().filter_map(|name| Scope::from_name(name)).collect::<Scopes>());
        let credential =
            params.auth.as_ref().and_then(|auth| auth.token.as_deref().or(auth.password.as_deref()));
        let scopes = match (credential, asked) {
            (None, Some(asked)) if connection.is_authenticated() => connection.narrow(asked),
            (None, None) if connection.is_authenticated() => connection.scopes(),
            // A connection that has narrowed its rights does not get them back by its credential alone.
            (Some(_), asked) if connection.is_authenticated() => {
                connection
                    .check(credential)
                    .map_err(|refusal| RpcError::unauthorized(refusal.to_string()))
                    .inspect_err(|_| connection.refuse())?;
                asked.map_or_else(|| connection.scopes(), |asked| connection.narrow(asked))
            }
            (credential, asked) => connection.authenticate(credential, asked).map_err(|refusal| {
                tracing::warn!(remote = %connection.remote(), reason = %refusal, "a caller was refused");
                connection.refuse();
                RpcError::unauthorized(refusal.to_string())
            })?,
        };
        if let Some(client) = &params.client {
            self.context.connections.introduce(connection, client);
        }
        Ok(ConnectResult {
            server: ConnectServerInfo {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                conn_id: connection.id().to_string(),
                build_id: None,
                boot_id: Some(self.context.instance_id.clone()),
                host: None,
            },
            auth: ConnectGrant {
                method: connection.auth_method().name().to_owned(),
                role: "operator".to_owned(),
                scopes: scopes.iter().map(Scope::name).map(str::to_owned).collect(),
                device_token: None,
                issued_at_ms: None,
            },
            policy: self.context.policy,
            kind: None,
            features: None,
            plugin_surface_urls: None,
            protocol: None,
            snapshot: None,
        })
    }
}
