//! `chat.send`, `chat.abort`, `chat.history`.

use std::time::Duration;

use jsonrpsee::core::{RpcResult, async_trait};
use openclaw_schema::{
    RpcError,
    methods::{
        agent::AckStatus,
        chat::{
            ChatAbortParams, ChatAbortResult, ChatHistoryParams, ChatHistoryResult, ChatMethod,
            ChatSendParams, ChatSendResult, ChatSendStatus,
        },
    },
    server::ChatServer,
    types::Text,
};

use super::{Handlers, agent::not_started, invalid, refuse, unaddressed};
use crate::{
    chat,
    runs::{Aborted, Origin, RunRequest},
};

#[async_trait]
impl ChatServer for Handlers {
    async fn chat_send(&self, params: ChatSendParams) -> RpcResult<ChatSendResult> {
        self.ensure_sendable(&params).map_err(refuse)?;
        let request = RunRequest {
            origin: Origin::Chat,
            agent_id: params.agent_id.map(Text::into_string),
            session_key: Some(params.session_key.into_string()),
            timeout: params.timeout_ms.map(|timeout| Duration::from_millis(timeout.get())),
            ..RunRequest::new(params.idempotency_key.into_string(), params.message.into_string())
        };
        let ack = self.context.runs.start(request);
        let ack = ack.map_err(|error| refuse(not_started(&error, ChatMethod::ChatSend.name())))?;
        let status = match ack.status {
            AckStatus::Accepted => ChatSendStatus::Started,
            AckStatus::InFlight => ChatSendStatus::InFlight,
            AckStatus::Ended => ChatSendStatus::Ok,
        };
        Ok(ChatSendResult { run_id: ack.run_id, status })
    }

    async fn chat_abort(&self, params: ChatAbortParams) -> RpcResult<ChatAbortResult> {
        let runs = &self.context.runs;
        let agent_id = params.agent_id.as_ref().map(Text::as_str);
        let address = runs.address(agent_id, params.session_key.as_str());
        let address = address
            .map_err(|error| refuse(unaddressed(&error, ChatMethod::ChatAbort.name(), "/sessionKey")))?;
        let which = params.run_id.as_ref().map_or(Aborted::All, |run_id| Aborted::Run(run_id.as_str()));
        let run_ids = runs.abort_in(&address.key, which);
        Ok(ChatAbortResult { ok: true, aborted: !run_ids.is_empty(), run_ids })
    }

    fn chat_history(&self, params: ChatHistoryParams) -> RpcResult<ChatHistoryResult> {
        let context = &self.context;
        let agent_id = params.agent_id.as_ref().map(Text::as_str);
        let address = context.runs.address(agent_id, params.session_key.as_str());
        let address = address
            .map_err(|error| refuse(unaddressed(&error, ChatMethod::ChatHistory.name(), "/sessionKey")))?;
        Ok(chat::history(&context.runs, &context.transcripts, &address, &params))
    }
}

impl Handlers {
    /// Refuses what no type can: a message of nothing, attachments, a session that was replaced.
    fn ensure_sendable(&self, params: &ChatSendParams) -> Result<(), RpcError> {
        let method = ChatMethod::ChatSend.name();
        if params.attachments.as_ref().is_some_and(|attachments| !attachments.is_empty()) {
            let reason = "this gateway takes no attachments yet; send the message without them";
            return Err(invalid(method, "/attachments", reason));
        }
        if params.message.as_str().trim().is_empty() {
            return Err(invalid(method, "/message", "message or attachment required"));
        }
        let Some(expected) = params.session_id.as_ref().map(Text::as_str) else { return Ok(()) };
        let runs = &self.context.runs;
        let address = runs
            .address(params.agent_id.as_ref().map(Text::as_str), params.session_key.as_str())
            .map_err(|error| unaddressed(&error, method, "/sessionKey"))?;
        match runs.session(&address.key) {
            Some(session) if session.id.to_string() == expected => Ok(()),
            Some(_) | None => {
                let reason = format!(
                    "session `{}` does not have this id; chat.history answers the one it has",
                    address.key
                );
                Err(invalid(method, "/sessionId", &reason))
            }
        }
    }
}
