//! `sessions.list`, `sessions.resolve`, `sessions.get`, `sessions.abort`.

use jsonrpsee::core::{RpcResult, async_trait};
use openclaw_schema::{
    RpcError,
    methods::sessions::{
        SessionsAbortParams, SessionsAbortResult, SessionsAbortStatus, SessionsGetParams, SessionsGetResult,
        SessionsListParams, SessionsListResult, SessionsMethod, SessionsResolveParams, SessionsResolveResult,
    },
    server::SessionsServer,
    types::{Bounded, Text},
};

use super::{Handlers, invalid, refuse, unaddressed};
use crate::{
    chat,
    runs::Aborted,
    sessions::{
        Session, SessionAddress,
        list::{display_name, list},
    },
};

#[async_trait]
impl SessionsServer for Handlers {
    fn sessions_list(&self, params: SessionsListParams) -> RpcResult<SessionsListResult> {
        let context = &self.context;
        // Any key will do: only the agent is looked at.
        let agent = params.agent_id.as_ref().map(|id| context.runs.address(Some(id.as_str()), "main"));
        let agent = agent
            .transpose()
            .map_err(|error| refuse(unaddressed(&error, SessionsMethod::SessionsList.name(), "/agentId")))?;
        let agent_id = agent.as_ref().map(|address| address.agent_id.as_str());
        let model = context.runs.default_model(agent_id.unwrap_or(&context.agents.default_id));
        Ok(list(&params, agent_id, context.runs.all_sessions(), &context.transcripts, model.as_ref()))
    }

    fn sessions_resolve(&self, params: SessionsResolveParams) -> RpcResult<SessionsResolveResult> {
        match self.resolve_session(&params) {
            Ok(session) => Ok(SessionsResolveResult {
                ok: true,
                display_name: Some(display_name(&session.key)),
                key: Some(session.key),
                agent_id: Some(session.agent_id),
            }),
            Err(error)
                if params.allow_missing == Some(true)
                    && error.code == openclaw_schema::ErrorCode::NotFound =>
            {
                Ok(SessionsResolveResult::default())
            }
            Err(error) => Err(refuse(error)),
        }
    }

    fn sessions_get(&self, params: SessionsGetParams) -> RpcResult<SessionsGetResult> {
        let method = SessionsMethod::SessionsGet;
        let address = self.session_address(method, params.agent_id.as_ref(), &params.key).map_err(refuse)?;
        let session = self.context.runs.session(&address.key);
        let limit = params.limit.map(Bounded::get);
        Ok(SessionsGetResult { messages: chat::newest(&self.context.transcripts, session.as_ref(), limit) })
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
                runs.abort_in(&address.key, which).into_iter().next()
            }
            // A run that nobody knows is none that goes on.
            (None, Some(run_id)) => {
                runs.abort(run_id).ok().filter(|result| result.aborted).map(|result| result.run_id)
            }
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

    fn resolve_session(&self, params: &SessionsResolveParams) -> Result<Session, RpcError> {
        let method = SessionsMethod::SessionsResolve;
        let runs = &self.context.runs;
        let id = params.session_id.as_ref().map(Text::as_str);
        let has_id = |session: &Session| id.is_none_or(|id| session.id.to_string() == id);
        match (&params.key, id) {
            (Some(key), _) => {
                let address = self.session_address(method, params.agent_id.as_ref(), key)?;
                runs.session(&address.key).filter(has_id).ok_or_else(|| {
                    let message = format!("no session `{}`; `sessions.list` lists them", address.key);
                    RpcError::not_found("/key", message)
                })
            }
            (None, Some(id)) => runs.all_sessions().into_iter().find(has_id).ok_or_else(|| {
                let message = format!("no session has the id `{id}`; `sessions.list` lists them");
                RpcError::not_found("/sessionId", message)
            }),
            (None, None) => Err(invalid(method.name(), "", "key or sessionId required")),
        }
    }
}
