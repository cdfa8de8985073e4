//! `agent`, `agent.wait`, `agent.abort`.

use std::time::Duration;

use jsonrpsee::{
    Extensions,
    core::{RpcResult, async_trait},
};
use openclaw_schema::{
    ErrorCode, RpcError, Scope,
    methods::agent::{
        AgentAbortParams, AgentAbortResult, AgentAck, AgentMethod, AgentParams, AgentWaitParams,
        AgentWaitResult,
    },
    server::AgentServer,
    types::Text,
};

use super::{Handlers, caller, invalid, refuse, require, unaddressed};
use crate::runs::{Origin, RunError, RunRequest, StartError};

#[async_trait]
impl AgentServer for Handlers {
    async fn agent(&self, extensions: &Extensions, params: AgentParams) -> RpcResult<AgentAck> {
        let message = params.message.as_str();
        if is_command(message, "/new") || is_command(message, "/reset") {
            require(caller(extensions)?, AgentMethod::Agent.name(), Scope::OperatorAdmin)?;
        }
        ensure_not_delivered(params.deliver, AgentMethod::Agent.name()).map_err(refuse)?;
        let request = RunRequest {
            message: params.message.into_string(),
            idempotency_key: params.idempotency_key.into_string(),
            origin: Origin::Agent,
            agent_id: params.agent_id.map(Text::into_string),
            session_key: params.session_key.map(Text::into_string),
            model: params.model.map(Text::into_string),
            timeout: params.timeout.map(|seconds| Duration::from_secs(seconds.get())),
            extra_system_prompt: params.extra_system_prompt.map(Text::into_string),
            label: params.label.map(Text::into_string),
        };
        self.context
            .runs
            .start(request)
            .await
            .map_err(|error| refuse(not_started(&error, AgentMethod::Agent.name())))
    }

    async fn agent_wait(&self, params: AgentWaitParams) -> RpcResult<AgentWaitResult> {
        let timeout = params.timeout_ms.map(|timeout| Duration::from_millis(timeout.get()));
        self.context.runs.wait(params.run_id.as_str(), timeout).await.map_err(|error| refuse(untold(&error)))
    }

    async fn agent_abort(&self, params: AgentAbortParams) -> RpcResult<AgentAbortResult> {
        self.context.runs.abort(params.run_id.as_str()).await.map_err(|error| refuse(untold(&error)))
    }
}

/// Whether a message is the given command, alone or with arguments.
fn is_command(message: &str, command: &str) -> bool {
    message.strip_prefix(command).is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

pub(super) fn not_started(error: &StartError, method: &str) -> RpcError {
    let message = error.to_string();
    match error {
        StartError::Address(error) => unaddressed(error, method, "/sessionKey"),
        StartError::UnknownModel { .. } => RpcError::not_found("/model", message),
        StartError::AgentModel { .. }
        | StartError::NoModel
        | StartError::Busy
        | StartError::Draining
        | StartError::Store(_) => RpcError::new(ErrorCode::Unavailable, message),
    }
}

/// Why nothing is said about a run.
pub(super) fn untold(error: &RunError) -> RpcError {
    match error {
        RunError::Unknown { .. } => RpcError::not_found("/runId", error.to_string()),
        RunError::Store(_) => RpcError::new(ErrorCode::Unavailable, error.to_string()),
    }
}

/// Refuses to deliver an answer to a chat channel: there is none.
pub(super) fn ensure_not_delivered(deliver: Option<bool>, method: &str) -> Result<(), RpcError> {
    if deliver == Some(true) {
        let reason = "this gateway has no chat channels to deliver an answer to; leave `deliver` out";
        return Err(invalid(method, "/deliver", reason));
    }
    Ok(())
}
