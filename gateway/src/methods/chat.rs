//! `chat.send`, `chat.abort`, `chat.history`, `chat.inject`.

use std::time::Duration;

use jsonrpsee::core::{RpcResult, async_trait};
use openclaw_schema::{
    RpcError,
    methods::{
        agent::AckStatus,
        chat::{
            ChatAbortParams, ChatAbortResult, ChatHistoryParams, ChatHistoryResult, ChatInjectParams,
            ChatInjectResult, ChatMethod, ChatSendParams, ChatSendResult, ChatSendStatus,
        },
    },
    server::ChatServer,
    types::Text,
};

use super::{
    Handlers,
    agent::{ensure_not_delivered, not_started},
    invalid, refuse, unaddressed, unchanged,
};
use crate::{
    chat,
    runs::{Aborted, Origin, RunRequest},
    sessions::manage::SessionError,
    transcripts::Page,
};

#[async_trait]
impl ChatServer for Handlers {
    async fn chat_send(&self, params: ChatSendParams) -> RpcResult<ChatSendResult> {
        self.ensure_sendable(&params).await.map_err(refuse)?;
        let named = params.thinking.as_ref().map(Text::as_str);
        let agent_id = params.agent_id.as_ref().map(Text::as_str);
        let method = ChatMethod::ChatSend.name();
        let thinking = self.thinking(method, named, agent_id, Some(params.session_key.as_str()), None).await;
        let request = RunRequest {
            origin: Origin::Chat,
            thinking: thinking.map_err(refuse)?,
            fast_mode: params.fast_mode,
            agent_id: params.agent_id.map(Text::into_string),
            session_key: Some(params.session_key.into_string()),
            timeout: params.timeout_ms.map(|timeout| Duration::from_millis(timeout.get())),
            ..RunRequest::new(params.idempotency_key.into_string(), params.message.into_string())
        };
        let ack = self.context.runs.start(request).await;
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
        let run_ids = runs.abort_in(&address.key, which).await;
        Ok(ChatAbortResult { ok: true, aborted: !run_ids.is_empty(), run_ids })
    }

    async fn chat_history(&self, params: ChatHistoryParams) -> RpcResult<ChatHistoryResult> {
        let context = &self.context;
        let method = ChatMethod::ChatHistory.name();
        if params.cursor.is_some() && params.offset.is_some() {
            return Err(refuse(invalid(method, "/offset", "either `cursor` or `offset`, not both")));
        }
        let agent_id = params.agent_id.as_ref().map(Text::as_str);
        let address = context.runs.address(agent_id, params.session_key.as_str());
        let address = address.map_err(|error| refuse(unaddressed(&error, method, "/sessionKey")))?;
        let history = chat::history(&context.runs, &context.sessions, &address, &params).await;
        history.map_err(|error| refuse(unchanged(&error, method, "/sessionKey")))
    }

    async fn chat_inject(&self, params: ChatInjectParams) -> RpcResult<ChatInjectResult> {
        let method = ChatMethod::ChatInject.name();
        let context = &self.context;
        let address =
            context.runs.address(params.agent_id.as_ref().map(Text::as_str), params.session_key.as_str());
        let address = address.map_err(|error| refuse(unaddressed(&error, method, "/sessionKey")))?;
        let label =
            params.label.as_ref().map(|label| label.as_str().trim()).filter(|label| !label.is_empty());
        let text = match label {
            Some(label) => format!("[{label}]\n\n{}", params.message.as_str()),
            None => params.message.into_string(),
        };
        let injected = chat::inject(&context.sessions, &context.events, &address, text).await;
        let message_id = injected.map_err(|error| refuse(unchanged(&error, method, "/sessionKey")))?;
        Ok(ChatInjectResult { ok: true, message_id })
    }
}

impl Handlers {
    /// Refuses what no type can: a message of nothing, attachments, a session that was replaced.
    async fn ensure_sendable(&self, params: &ChatSendParams) -> Result<(), RpcError> {
        let method = ChatMethod::ChatSend.name();
        if params.attachments.as_ref().is_some_and(|attachments| !attachments.is_empty()) {
            let reason = "this gateway takes no attachments yet; send the message without them";
            return Err(invalid(method, "/attachments", reason));
        }
        if params.message.as_str().trim().is_empty() {
            return Err(invalid(method, "/message", "message or attachment required"));
        }
        ensure_not_delivered(params.deliver, method)?;
        if params.session_id.is_none() && params.expected_leaf_entry_id.is_none() {
            return Ok(());
        }
        let runs = &self.context.runs;
        let address = runs
            .address(params.agent_id.as_ref().map(Text::as_str), params.session_key.as_str())
            .map_err(|error| unaddressed(&error, method, "/sessionKey"))?;
        let sessions = &self.context.sessions;
        let unread = |error: SessionError| unchanged(&error, method, "/sessionKey");
        let session = sessions.get(&address.key).await.map_err(unread)?;
        if let Some(expected) = &params.session_id
            && session.as_ref().is_none_or(|session| session.id.to_string() != expected.as_str())
        {
            let reason = format!(
                "session `{}` does not have this id; chat.history answers the one it has",
                address.key
            );
            return Err(invalid(method, "/sessionId", &reason));
        }
        if let Some(expected) = &params.expected_leaf_entry_id {
            let page = match &session {
                Some(session) => sessions.page(session, 0, 1, usize::MAX).await.map_err(unread)?,
                None => Page::default(),
            };
            let newest = page.messages.last().map(|message| message.id.to_string());
            if newest.as_deref() != expected.as_ref().map(Text::as_str) {
                let reason =
                    format!("something was said in session `{}` since; chat.history answers it", address.key);
                return Err(invalid(method, "/expectedLeafEntryId", &reason));
            }
        }
        Ok(())
    }
}
