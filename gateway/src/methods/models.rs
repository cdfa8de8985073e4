//! `models.list`.

use jsonrpsee::core::RpcResult;
use openclaw_schema::{
    RpcError,
    methods::models::{ModelsListParams, ModelsListResult},
    server::ModelsServer,
    types::Text,
};

use super::{Handlers, refuse};

impl ModelsServer for Handlers {
    fn models_list(&self, params: ModelsListParams) -> RpcResult<ModelsListResult> {
        if let Some(agent_id) = &params.agent_id
            && !self.context.agents.list.iter().any(|agent| agent.id == agent_id.as_str())
        {
            let message = format!("no agent `{agent_id}`; `agents.list` lists them");
            return Err(refuse(RpcError::not_found("/agentId", message)));
        }
        // The catalogue holds nothing that is not ready for use: every view is the same.
        let mut models = self.context.runs.models().to_vec();
        if let Some(provider) = params.provider.as_ref().map(Text::as_str) {
            models.retain(|model| model.provider == provider);
        }
        models.sort_by(|left, right| (&left.provider, &left.id).cmp(&(&right.provider, &right.id)));
        Ok(ModelsListResult { models })
    }
}
