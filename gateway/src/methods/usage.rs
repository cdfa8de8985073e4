//! `usage.cost`.

use jsonrpsee::core::{RpcResult, async_trait};
use openclaw_schema::{
    ErrorCode, RpcError,
    methods::usage::{UsageCostParams, UsageCostResult, UsageMethod},
    server::UsageServer,
    types::{Text, TimestampMs},
};

use super::{Handlers, invalid, refuse};
use crate::{store, usage::Days};

#[async_trait]
impl UsageServer for Handlers {
    async fn usage_cost(&self, params: UsageCostParams) -> RpcResult<UsageCostResult> {
        let refused = |path: &str, reason: &str| refuse(invalid(UsageMethod::UsageCost.name(), path, reason));
        let now = TimestampMs::now();
        let days = Days::of(&params, now).map_err(|(path, reason)| refused(path, reason))?;
        if params.agent_scope.is_some() && params.agent_id.is_some() {
            return Err(refused("/agentScope", "excludes `agentId`"));
        }
        if let Some(agent_id) = &params.agent_id
            && !self.context.agents.list.iter().any(|agent| agent.id == agent_id.as_str())
        {
            let message = format!("no agent `{agent_id}`; `agents.list` lists them");
            return Err(refuse(RpcError::not_found("/agentId", message)));
        }
        self.context.usage.cost(days, params.agent_id.map(Text::into_string), now).await.map_err(|error| {
            tracing::error!(error = store::chain(&error), "the usage cannot be read");
            refuse(RpcError::new(
                ErrorCode::Unavailable,
                "the usage cannot be read; the gateway's log says more",
            ))
        })
    }
}
