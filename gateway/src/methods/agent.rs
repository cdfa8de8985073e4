//! `agent`, `agent.wait`, `agent.abort`.

use std::time::Duration;

use jsonrpsee::{
    Extensions,
    core::{RpcResult, async_trait},
};
use openclaw_schema::{
    ErrorCode, RpcError, Scope,
    methods::{
        agent::{
            AgentAbortParams, AgentAbortResult, AgentAck, AgentMethod, AgentParams, AgentWaitParams,
            AgentWaitResult,
        },
        models::{ModelInfo, ThinkingLevel},
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
        let named = params.thinking.as_ref().map(Text::as_str);
        let [agent_id, key, model] =
            [as_text(&params.agent_id), as_text(&params.session_key), as_text(&params.model)];
        let method = AgentMethod::Agent.name();
        let thinking = self.thinking(method, named, agent_id, key, model).await.map_err(refuse)?;
        let request = RunRequest {
            message: params.message.into_string(),
            idempotency_key: params.idempotency_key.into_string(),
            origin: Origin::Agent,
            agent_id: params.agent_id.map(Text::into_string),
            session_key: params.session_key.map(Text::into_string),
            model: params.model.map(Text::into_string),
            timeout: params.timeout.map(|seconds| Duration::from_secs(seconds.get())),
            thinking,
            fast_mode: None,
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

/// A text of params, whatever its bounds.
fn as_text<const MIN: usize, const MAX: usize>(text: &Option<Text<MIN, MAX>>) -> Option<&str> {
    text.as_ref().map(Text::as_str)
}

impl Handlers {
    /// The level of thinking that a call names, where it names one; the model is that of the call, or else of its session.
    pub(super) async fn thinking(
        &self,
        method: &str,
        named: Option<&str>,
        agent_id: Option<&str>,
        session_key: Option<&str>,
        model: Option<&str>,
    ) -> Result<Option<ThinkingLevel>, RpcError> {
        let Some(named) = named.filter(|named| !matches!(*named, "" | "default" | "inherit")) else {
            return Ok(None);
        };
        let context = &self.context;
        let address = session_key.and_then(|key| context.runs.address(agent_id, key).ok());
        let session = match &address {
            // What cannot be read is the business of the run.
            Some(address) if model.is_none() => context.sessions.get(&address.key).await.ok().flatten(),
            _ => None,
        };
        let chosen = model.or(session.as_ref().and_then(|session| session.settings.model.as_deref()));
        let agent_id = address.as_ref().map(|address| address.agent_id.as_str()).or(agent_id);
        let agent_id = agent_id.unwrap_or(&context.agents.default_id);
        let model = context.runs.model_of(agent_id, chosen);
        self.thinking_level(method, "/thinking", named, model.as_ref()).map(Some)
    }

    /// The level of a name, if `model` has it.
    pub(super) fn thinking_level(
        &self,
        method: &str,
        path: &str,
        named: &str,
        model: Option<&ModelInfo>,
    ) -> Result<ThinkingLevel, RpcError> {
        let level: ThinkingLevel =
            named.parse().map_err(|error| invalid(method, path, &format!("`{named}` {error}")))?;
        let levels = model.and_then(|model| self.context.runs.backend().thinking_levels(model));
        match (model, levels) {
            (Some(model), Some(levels)) if !levels.contains(&level) => {
                let name = format!("{}/{}", model.provider, model.id);
                let names = levels.into_iter().map(ThinkingLevel::name).collect::<Vec<_>>().join(", ");
                let mut reason = format!("the model `{name}` has no level `{named}`; it has {names}");
                if names == ThinkingLevel::Off.name() {
                    reason.push_str(" alone, as far as its configuration says");
                }
                Err(invalid(method, path, &reason))
            }
            _ => Ok(level),
        }
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
