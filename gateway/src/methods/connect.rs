//! `connect`.

use jsonrpsee::{
    Extensions,
    core::{RpcResult, async_trait},
};
use openclaw_schema::{
    ErrorCode, RpcError, Scope, Scopes,
    methods::connect::{ConnectGrant, ConnectMethod, ConnectParams, ConnectResult, ConnectServerInfo},
    problem::ParamProblem,
    server::ConnectServer,
};

use super::{Handlers, caller, refuse};
use crate::{
    connection::Transport,
    lockout::{self, CredentialKind},
};

/// Refuses what only a handshake over OpenClaw frames can decide: there is no challenge here that a device signs.
/// Passing over it would leave the caller with other rights than it believes to have.
fn refuse_device(params: &ConnectParams) -> Result<(), RpcError> {
    let auth = params.auth.as_ref();
    let given = [
        ("/device", params.device.is_some()),
        ("/role", params.role.as_deref().is_some_and(|role| role != "operator")),
        ("/auth/deviceToken", auth.is_some_and(|auth| auth.device_token.is_some())),
        ("/auth/bootstrapToken", auth.is_some_and(|auth| auth.bootstrap_token.is_some())),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((path, _)) => {
            let reason = "devices and nodes connect over OpenClaw frames only".to_owned();
            let problem = ParamProblem { path: path.to_owned(), reason, allowed: Vec::new(), nearest: None };
            Err(problem.into_error(ConnectMethod::Connect.name()))
        }
    }
}

#[async_trait]
impl ConnectServer for Handlers {
    async fn connect(&self, extensions: &Extensions, params: ConnectParams) -> RpcResult<ConnectResult> {
        let connection = caller(extensions)?;
        if connection.transport() == Transport::Http {
            let message = "connect is for WebSockets: over HTTP send the header `Authorization: Bearer …`";
            return Err(refuse(RpcError::new(ErrorCode::InvalidRequest, message)));
        }
        refuse_device(&params)?;
        // Names that the gateway does not know grant nothing.
        let asked = params
            .scopes
            .map(|names| names.iter().filter_map(|name| Scope::from_name(name)).collect::<Scopes>());
        let auth = params.auth.unwrap_or_default();
        let secret = connection.secret_of(auth.token.as_deref(), auth.password.as_deref());
        let (lockout, caller) = (self.context.devices.lockout(), connection.caller());
        if secret.is_some()
            && let Some(wait) = lockout.retry_after(caller, CredentialKind::Secret)
        {
            connection.refuse();
            return Err(refuse(lockout::told(wait)));
        }
        let granted = match (secret, asked) {
            (None, Some(asked)) if connection.is_authenticated() => Ok(connection.narrow(asked)),
            (None, None) if connection.is_authenticated() => Ok(connection.scopes()),
            // A connection that has narrowed its rights does not get them back by its credential alone.
            (Some(_), asked) if connection.is_authenticated() => connection
                .check(secret)
                .map(|()| asked.map_or_else(|| connection.scopes(), |asked| connection.narrow(asked))),
            (secret, asked) => connection.authenticate(secret, asked),
        };
        let scopes = match granted {
            Ok(scopes) => scopes,
            Err(refusal) => {
                tracing::warn!(remote = %caller.ip, reason = %refusal, "a caller was refused");
                // At once, so that this connection has no second guess while the first one's answer is held back.
                connection.refuse();
                if secret.is_some() {
                    lockout.failed(caller, CredentialKind::Secret);
                    lockout.delay().await;
                }
                return Err(refuse(RpcError::unauthorized(refusal.to_string())));
            }
        };
        if secret.is_some() {
            lockout.succeeded(caller, CredentialKind::Secret);
        }
        if let Some(client) = &params.client {
            self.context.connections.introduce(connection, client);
        }
        Ok(ConnectResult {
            kind: None,
            protocol: None,
            features: None,
            snapshot: None,
            plugin_surface_urls: None,
            server: ConnectServerInfo {
                build_id: None,
                boot_id: None,
                host: None,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                conn_id: connection.id().to_string(),
            },
            auth: ConnectGrant {
                method: connection.auth_method().name().to_owned(),
                role: "operator".to_owned(),
                scopes: scopes.iter().map(Scope::name).map(str::to_owned).collect(),
                device_token: None,
                issued_at_ms: None,
                device_tokens: None,
            },
            policy: self.context.policy(),
        })
    }
}
