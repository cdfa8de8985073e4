//! The handlers: three to ten lines each. Unwrap the params, call the domain, map the error.

mod agent;
mod agents;
mod chat;
mod config;
mod connect;
mod device;
mod events;
mod gateway;
mod lifecycle;
mod logs;
mod models;
mod rpc;
mod sessions;
mod usage;

use std::sync::Arc;

use jsonrpsee::{Extensions, Methods, core::RegisterMethodError, types::ErrorObjectOwned};
use openclaw_schema::{
    ErrorCode, RpcError, Scope,
    problem::ParamProblem,
    server::{
        AgentServer, AgentsServer, ChatServer, ConfigServer, ConnectServer, DeviceServer, EventsServer,
        GatewayServer, LifecycleServer, LogsServer, ModelsServer, RpcServer, SessionsServer, UsageServer,
    },
};

use crate::{
    connection::Connection,
    context::Context,
    sessions::{AddressError, manage::SessionError},
};

/// Implements every trait of the core contract.
#[derive(Debug, Clone)]
struct Handlers {
    context: Arc<Context>,
}

/// The handlers of the core contract.
pub(crate) fn core(context: &Arc<Context>) -> Result<Methods, RegisterMethodError> {
    let handlers = Handlers { context: Arc::clone(context) };
    let mut methods = Methods::new();
    methods.merge(AgentServer::into_rpc(handlers.clone()))?;
    methods.merge(AgentsServer::into_rpc(handlers.clone()))?;
    methods.merge(ChatServer::into_rpc(handlers.clone()))?;
    methods.merge(ConfigServer::into_rpc(handlers.clone()))?;
    methods.merge(ConnectServer::into_rpc(handlers.clone()))?;
    methods.merge(DeviceServer::into_rpc(handlers.clone()))?;
    methods.merge(EventsServer::into_rpc(handlers.clone()))?;
    methods.merge(GatewayServer::into_rpc(handlers.clone()))?;
    methods.merge(LifecycleServer::into_rpc(handlers.clone()))?;
    methods.merge(LogsServer::into_rpc(handlers.clone()))?;
    methods.merge(ModelsServer::into_rpc(handlers.clone()))?;
    methods.merge(RpcServer::into_rpc(handlers.clone()))?;
    methods.merge(SessionsServer::into_rpc(handlers.clone()))?;
    methods.merge(UsageServer::into_rpc(handlers))?;
    Ok(methods)
}

/// The caller of a method declared `with_extensions`.
fn caller(extensions: &Extensions) -> Result<&Arc<Connection>, RpcError> {
    extensions.get::<Arc<Connection>>().ok_or_else(|| internal("a call came without its connection"))
}

/// Refuses a caller that lacks a scope which only some params of the method ask for.
fn require(connection: &Connection, method: &str, scope: Scope) -> Result<(), RpcError> {
    if connection.scopes().allows(scope) { Ok(()) } else { Err(RpcError::forbidden(method, scope)) }
}

/// Params that no type could refuse; `path` is the JSON Pointer of what is at fault.
fn invalid(method: &str, path: &str, reason: &str) -> RpcError {
    let (path, reason) = (path.to_owned(), reason.to_owned());
    ParamProblem { path, reason, allowed: Vec::new(), nearest: None }.into_error(method)
}

/// Words that name no session; `key_path` is the JSON Pointer of the session's key in the params of the method.
fn unaddressed(error: &AddressError, method: &str, key_path: &str) -> RpcError {
    let message = error.to_string();
    match error {
        AddressError::UnknownAgent { path: "/agentId", .. } => RpcError::not_found("/agentId", message),
        AddressError::UnknownAgent { .. } => RpcError::not_found(key_path, message),
        AddressError::Malformed { .. } | AddressError::OtherAgent { .. } => {
            invalid(method, key_path, &message)
        }
    }
}

/// A session that is not changed, or not read; `key_path` is the JSON Pointer of its key in the params of the method.
fn unchanged(error: &SessionError, method: &str, key_path: &str) -> RpcError {
    let message = error.to_string();
    match error {
        SessionError::Changed { .. } => {
            let mut told = invalid(method, key_path, &message);
            // Recorded: clients match on it.
            told.data.reason = Some("session-changed".to_owned());
            told
        }
        SessionError::LabelTaken { .. } => invalid(method, "/label", &message),
        SessionError::Main { .. } | SessionError::NotArchived { .. } => {
            // In the words of stock gateways, without ours around them.
            let mut told = invalid(method, key_path, &message);
            told.message = message;
            told
        }
        SessionError::Missing { .. } => RpcError::not_found(key_path, message),
        SessionError::Compacting { .. } | SessionError::NotCompacted { .. } | SessionError::Store(_) => {
            RpcError::new(ErrorCode::Unavailable, message)
        }
    }
}

/// An error whose cause is for the log alone.
pub(crate) fn internal(cause: impl std::fmt::Display) -> RpcError {
    let correlation_id = uuid::Uuid::now_v7().to_string();
    tracing::error!(correlation_id, %cause, "internal error");
    let mut error = RpcError::new(ErrorCode::Internal, "internal error; the gateway's log has the cause");
    error.data.correlation_id = Some(correlation_id);
    error
}

/// An error on its way to jsonrpsee.
fn refuse(error: RpcError) -> ErrorObjectOwned {
    error.into()
}
