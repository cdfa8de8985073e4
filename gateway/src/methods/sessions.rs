//! `sessions.*`.

use jsonrpsee::{
    Extensions,
    core::{RpcResult, async_trait},
};
use openclaw_schema::{
    ErrorCode, RpcError, Scope,
    methods::{
        models::ModelInfo,
        sessions::{
            ResetReason, SessionsAbortParams, SessionsAbortResult, SessionsAbortStatus,
            SessionsCompactParams, SessionsCompactResult, SessionsCreateParams, SessionsCreateResult,
            SessionsDeleteParams, SessionsDeleteResult, SessionsDescribeParams, SessionsDescribeResult,
            SessionsGetParams, SessionsGetResult, SessionsListParams, SessionsListResult,
            SessionsMessagesParams, SessionsMessagesResult, SessionsMethod, SessionsPatchParams,
            SessionsPatchResult, SessionsPreviewParams, SessionsPreviewResult, SessionsResetParams,
            SessionsResetResult, SessionsResolveParams, SessionsResolveResult, SessionsSubscribeResult,
        },
    },
    server::SessionsServer,
    types::{Bounded, NoParams, Text, TimestampMs},
};
use uuid::Uuid;

use super::{Handlers, agent::untold, caller, invalid, refuse, require, unaddressed, unchanged};
use crate::{
    chat,
    runs::{Aborted, RunError},
    sessions::{
        Session, SessionAddress,
        list::{display_name, entry, resolved},
        manage::{Expected, SessionError},
    },
};

#[async_trait]
impl SessionsServer for Handlers {
    async fn sessions_list(&self, params: SessionsListParams) -> RpcResult<SessionsListResult> {
        let method = SessionsMethod::SessionsList;
        let context = &self.context;
        // Any key will do: only the agent is looked at.
        let agent = params.agent_id.as_ref().map(|id| context.runs.address(Some(id.as_str()), "main"));
        let agent =
            agent.transpose().map_err(|error| refuse(unaddressed(&error, method.name(), "/agentId")))?;
        let agent_id = agent.as_ref().map(|address| address.agent_id.as_str());
        context.sessions.list(&params, agent_id).await.map_err(failed(method))
    }

    async fn sessions_resolve(&self, params: SessionsResolveParams) -> RpcResult<SessionsResolveResult> {
        match self.resolve_session(&params).await {
            Ok(session) => Ok(SessionsResolveResult {
                ok: true,
                display_name: Some(display_name(&session.key)),
                key: Some(session.key),
                agent_id: Some(session.agent_id),
            }),
            Err(error) if params.allow_missing == Some(true) && error.code == ErrorCode::NotFound => {
                Ok(SessionsResolveResult::default())
            }
            Err(error) => Err(refuse(error)),
        }
    }

    async fn sessions_get(&self, params: SessionsGetParams) -> RpcResult<SessionsGetResult> {
        let method = SessionsMethod::SessionsGet;
        let address = self.session_address(method, params.agent_id.as_ref(), &params.key).map_err(refuse)?;
        let sessions = &self.context.sessions;
        let session = sessions.get(&address.key).await.map_err(failed(method))?;
        let messages = chat::newest(sessions, session.as_ref(), params.limit.map(Bounded::get)).await;
        Ok(SessionsGetResult { messages: messages.map_err(failed(method))? })
    }

    async fn sessions_preview(&self, params: SessionsPreviewParams) -> RpcResult<SessionsPreviewResult> {
        let method = SessionsMethod::SessionsPreview;
        let mut previews = Vec::with_capacity(params.keys.len());
        for key in &params.keys {
            let address = self.session_address(method, None, key).map_err(refuse)?;
            let (limit, max_chars) = (params.limit.map(Bounded::get), params.max_chars.map(Bounded::get));
            let preview = self.context.sessions.preview(key.as_str(), &address.key, limit, max_chars).await;
            previews.push(preview.map_err(failed(method))?);
        }
        Ok(SessionsPreviewResult { ts: TimestampMs::now(), previews })
    }

    async fn sessions_describe(&self, params: SessionsDescribeParams) -> RpcResult<SessionsDescribeResult> {
        let method = SessionsMethod::SessionsDescribe;
        let address = self.session_address(method, params.agent_id.as_ref(), &params.key).map_err(refuse)?;
        let [title, last] =
            [params.include_derived_titles, params.include_last_message].map(|given| given.unwrap_or(false));
        let session = self.context.sessions.describe(&address.key, title, last).await;
        Ok(SessionsDescribeResult { session: session.map_err(failed(method))? })
    }

    async fn sessions_create(&self, params: SessionsCreateParams) -> RpcResult<SessionsCreateResult> {
        let method = SessionsMethod::SessionsCreate;
        let fresh = || Text::new(format!("dashboard:{}", Uuid::now_v7())).map_err(crate::methods::internal);
        let key = params.key.map_or_else(fresh, Ok).map_err(refuse)?;
        let address = self.session_address(method, params.agent_id.as_ref(), &key).map_err(refuse)?;
        let model = params.model.map(Text::into_string);
        self.ensure_model(&address, model.as_deref()).map_err(refuse)?;
        let [label, category] = [params.label, params.category].map(|text| text.map(Text::into_string));
        let thinking = params.thinking_level.as_ref().map(Text::as_str);
        let thinking = self.ensure_thinking(method, &address, thinking, model.as_deref()).map_err(refuse)?;
        let fast_mode = params.fast_mode;
        let change = move |session: &mut Session| {
            keep(&mut session.label, label);
            let settings = &mut session.settings;
            keep(&mut settings.category, category);
            keep(&mut settings.model, model);
            keep(&mut settings.thinking_level, thinking);
            keep(&mut settings.fast_mode, fast_mode);
        };
        let session = self.context.sessions.change(address, "create", Expected::default(), change).await;
        let session = session.map_err(failed(method))?;
        Ok(SessionsCreateResult {
            ok: true,
            session_id: session.id.to_string(),
            run_started: false,
            entry: entry(&session),
            resolved: resolved(self.model_of(&session).as_ref()),
            key: session.key,
        })
    }

    async fn sessions_patch(
        &self,
        extensions: &Extensions,
        params: SessionsPatchParams,
    ) -> RpcResult<SessionsPatchResult> {
        let method = SessionsMethod::SessionsPatch;
        if params.verbose_level.is_some() || params.reasoning_level.is_some() {
            require(caller(extensions)?, method.name(), Scope::OperatorAdmin)?;
        }
        let address = self.session_address(method, params.agent_id.as_ref(), &params.key).map_err(refuse)?;
        if params.archived.is_some() && params.expected_session_id.is_none() {
            let reason =
                "`archived` asks for `expectedSessionId`; sessions.describe answers it as `sessionId`";
            return Err(refuse(invalid(method.name(), "/expectedSessionId", reason)));
        }
        let model = params.model.as_ref().and_then(Option::as_ref).map(Text::as_str);
        self.ensure_model(&address, model).map_err(refuse)?;
        let thinking = match &params.thinking_level {
            None => None,
            Some(None) => Some(None),
            Some(Some(named)) => {
                let stored = self.context.sessions.get(&address.key).await.map_err(failed(method))?;
                let stored = stored.as_ref().and_then(|session| session.settings.model.as_deref());
                // The model that the session has after this call.
                let chosen = if params.model.is_some() { model } else { stored };
                let level = self.ensure_thinking(method, &address, Some(named.as_str()), chosen);
                Some(level.map_err(refuse)?)
            }
        };
        let expected =
            expected(params.expected_session_id.as_ref(), params.expected_lifecycle_revision.as_ref());
        let change = move |session: &mut Session| {
            set(&mut session.label, params.label);
            session.archived = params.archived.unwrap_or(session.archived);
            let settings = &mut session.settings;
            settings.pinned = params.pinned.unwrap_or(settings.pinned);
            settings.unread = params.unread.unwrap_or(settings.unread);
            set(&mut settings.icon, params.icon);
            set(&mut settings.color, params.color);
            set(&mut settings.category, params.category);
            set(&mut settings.model, params.model);
            settings.thinking_level = thinking.unwrap_or(settings.thinking_level.take());
            settings.fast_mode = params.fast_mode.unwrap_or(settings.fast_mode);
            set(&mut settings.verbose_level, params.verbose_level);
            set(&mut settings.reasoning_level, params.reasoning_level);
        };
        let sessions = &self.context.sessions;
        let session = sessions.change(address, "patch", expected, change).await.map_err(failed(method))?;
        Ok(SessionsPatchResult {
            ok: true,
            path: sessions.path(),
            entry: entry(&session),
            resolved: resolved(self.model_of(&session).as_ref()),
            key: session.key,
        })
    }

    async fn sessions_reset(&self, params: SessionsResetParams) -> RpcResult<SessionsResetResult> {
        let method = SessionsMethod::SessionsReset;
        let address = self.session_address(method, params.agent_id.as_ref(), &params.key).map_err(refuse)?;
        let expected =
            expected(params.expected_session_id.as_ref(), params.expected_lifecycle_revision.as_ref());
        let reason = match params.reason.unwrap_or_default() {
            ResetReason::New => "new",
            ResetReason::Reset => "reset",
        };
        let session = self.context.sessions.reset(address, reason, expected).await.map_err(failed(method))?;
        Ok(SessionsResetResult {
            ok: true,
            entry: entry(&session),
            resolved: resolved(self.model_of(&session).as_ref()),
            key: session.key,
        })
    }

    async fn sessions_delete(
        &self,
        extensions: &Extensions,
        params: SessionsDeleteParams,
    ) -> RpcResult<SessionsDeleteResult> {
        let method = SessionsMethod::SessionsDelete;
        let archived_only = params.archived_only.unwrap_or(false);
        if !archived_only {
            require(caller(extensions)?, method.name(), Scope::OperatorAdmin)?;
        }
        if params.delete_transcript == Some(false) {
            let reason = "the messages of a session are deleted with it; `archived` puts a session away";
            return Err(refuse(invalid(method.name(), "/deleteTranscript", reason)));
        }
        let address = self.session_address(method, params.agent_id.as_ref(), &params.key).map_err(refuse)?;
        let expected = Expected {
            updated_at: params.expected_session_updated_at,
            ..expected(params.expected_session_id.as_ref(), params.expected_lifecycle_revision.as_ref())
        };
        let deleted = self.context.sessions.delete(&address, expected, archived_only).await;
        let deleted = deleted.map_err(failed(method))?;
        Ok(SessionsDeleteResult { ok: true, key: address.key, deleted, archived: Vec::new() })
    }

    async fn sessions_compact(&self, params: SessionsCompactParams) -> RpcResult<SessionsCompactResult> {
        let method = SessionsMethod::SessionsCompact;
        let address = self.session_address(method, params.agent_id.as_ref(), &params.key).map_err(refuse)?;
        let compacted = self.context.sessions.compact(&address.key).await.map_err(failed(method))?;
        Ok(SessionsCompactResult {
            ok: true,
            key: address.key,
            compacted: compacted.is_ok(),
            reason: compacted.as_ref().err().map(|reason| (*reason).to_owned()),
            result: compacted.ok(),
        })
    }

    async fn sessions_subscribe(
        &self,
        extensions: &Extensions,
        _: NoParams,
    ) -> RpcResult<SessionsSubscribeResult> {
        caller(extensions)?.watch_sessions(true);
        Ok(SessionsSubscribeResult { subscribed: true })
    }

    async fn sessions_unsubscribe(
        &self,
        extensions: &Extensions,
        _: NoParams,
    ) -> RpcResult<SessionsSubscribeResult> {
        caller(extensions)?.watch_sessions(false);
        Ok(SessionsSubscribeResult { subscribed: false })
    }

    async fn sessions_messages_subscribe(
        &self,
        extensions: &Extensions,
        params: SessionsMessagesParams,
    ) -> RpcResult<SessionsMessagesResult> {
        let method = SessionsMethod::SessionsMessagesSubscribe;
        let address = self.session_address(method, params.agent_id.as_ref(), &params.key).map_err(refuse)?;
        if !caller(extensions)?.watch_messages(&address.key) {
            let message = "this connection watches as many sessions as it may; end one first";
            return Err(refuse(RpcError::new(ErrorCode::LimitExceeded, message)));
        }
        Ok(SessionsMessagesResult { subscribed: true, key: address.key })
    }

    async fn sessions_messages_unsubscribe(
        &self,
        extensions: &Extensions,
        params: SessionsMessagesParams,
    ) -> RpcResult<SessionsMessagesResult> {
        let method = SessionsMethod::SessionsMessagesUnsubscribe;
        let address = self.session_address(method, params.agent_id.as_ref(), &params.key).map_err(refuse)?;
        caller(extensions)?.unwatch_messages(&address.key);
        Ok(SessionsMessagesResult { subscribed: false, key: address.key })
    }

    async fn sessions_abort(&self, params: SessionsAbortParams) -> RpcResult<SessionsAbortResult> {
        let method = SessionsMethod::SessionsAbort;
        let runs = &self.context.runs;
        let run_id = params.run_id.as_ref().map(Text::as_str);
        let aborted = match (&params.key, run_id) {
            (Some(key), run_id) => {
                let address = self.session_address(method, params.agent_id.as_ref(), key).map_err(refuse)?;
                let all = params.clear_queued.unwrap_or(false);
                let which = match run_id {
                    Some(run_id) => Aborted::Run(run_id),
                    None if all => Aborted::All,
                    None => Aborted::Current,
                };
                runs.abort_in(&address.key, which).await.into_iter().next()
            }
            // A run that nobody knows is none that goes on.
            (None, Some(run_id)) => match runs.abort(run_id).await {
                Ok(result) => result.aborted.then_some(result.run_id),
                Err(RunError::Unknown { .. }) => None,
                Err(error) => return Err(refuse(untold(&error))),
            },
            (None, None) => return Err(refuse(invalid(method.name(), "", "key or runId required"))),
        };
        let status = match aborted {
            Some(_) => SessionsAbortStatus::Aborted,
            None => SessionsAbortStatus::NoActiveRun,
        };
        Ok(SessionsAbortResult { ok: true, aborted_run_id: aborted, status })
    }
}

impl Handlers {
    fn session_address(
        &self,
        method: SessionsMethod,
        agent_id: Option<&Text<1, 64>>,
        key: &Text<1, 512>,
    ) -> Result<SessionAddress, RpcError> {
        let address = self.context.runs.address(agent_id.map(Text::as_str), key.as_str());
        address.map_err(|error| unaddressed(&error, method.name(), "/key"))
    }

    /// Refuses a model that does not exist.
    fn ensure_model(&self, address: &SessionAddress, model: Option<&str>) -> Result<(), RpcError> {
        let Some(name) = model else { return Ok(()) };
        match self.context.runs.model_of(&address.agent_id, Some(name)) {
            Some(_) => Ok(()),
            None => {
                Err(RpcError::not_found("/model", format!("no model `{name}`; `models.list` lists them")))
            }
        }
    }

    /// The level of thinking that is chosen for a session whose model is `chosen`, by its usual name.
    fn ensure_thinking(
        &self,
        method: SessionsMethod,
        address: &SessionAddress,
        named: Option<&str>,
        chosen: Option<&str>,
    ) -> Result<Option<String>, RpcError> {
        let Some(named) = named else { return Ok(None) };
        let model = self.context.runs.model_of(&address.agent_id, chosen);
        let level = self.thinking_level(method.name(), "/thinkingLevel", named, model.as_ref())?;
        Ok(Some(level.name().to_owned()))
    }

    fn model_of(&self, session: &Session) -> Option<ModelInfo> {
        self.context.runs.model_of(&session.agent_id, session.settings.model.as_deref())
    }

    async fn resolve_session(&self, params: &SessionsResolveParams) -> Result<Session, RpcError> {
        let method = SessionsMethod::SessionsResolve;
        let sessions = &self.context.sessions;
        let id = params.session_id.as_ref().map(Text::as_str);
        let unread = |error: SessionError| unchanged(&error, method.name(), "/key");
        match (&params.key, id) {
            (Some(key), _) => {
                let address = self.session_address(method, params.agent_id.as_ref(), key)?;
                let session = sessions.get(&address.key).await.map_err(unread)?;
                let has_id = |session: &Session| id.is_none_or(|id| session.id.to_string() == id);
                session
                    .filter(has_id)
                    .ok_or_else(|| unread(SessionError::Missing { key: address.key.clone() }))
            }
            (None, Some(id)) => sessions.of_id(id).await.map_err(unread)?.ok_or_else(|| {
                let message = format!("no session has the id `{id}`; `sessions.list` lists them");
                RpcError::not_found("/sessionId", message)
            }),
            (None, None) => Err(invalid(method.name(), "", "key or sessionId required")),
        }
    }
}

/// What a method answers when its session is not changed, or not read.
fn failed(method: SessionsMethod) -> impl Fn(SessionError) -> jsonrpsee::types::ErrorObjectOwned {
    move |error| refuse(unchanged(&error, method.name(), "/key"))
}

fn expected(session_id: Option<&Text<1, 64>>, revision: Option<&Text<1, 64>>) -> Expected {
    let [session_id, revision] = [session_id, revision].map(|text| text.map(|text| text.as_str().to_owned()));
    Expected { session_id, revision, updated_at: None }
}

/// Sets what a caller gave.
fn keep<T>(field: &mut Option<T>, given: Option<T>) {
    if given.is_some() {
        *field = given;
    }
}

/// Sets what a caller gave, or takes it away when that was null.
fn set<const MIN: usize, const MAX: usize>(
    field: &mut Option<String>,
    given: Option<Option<Text<MIN, MAX>>>,
) {
    if let Some(given) = given {
        *field = given.map(Text::into_string);
    }
}
