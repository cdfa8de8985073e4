//! `models.list`.

use jsonrpsee::core::{RpcResult, async_trait};
use openclaw_schema::{
    RpcError,
    methods::models::{ModelsListParams, ModelsListResult, ModelsView},
    server::ModelsServer,
    types::Text,
};

use super::{Handlers, invalid, refuse};

#[async_trait]
impl ModelsServer for Handlers {
    async fn models_list(&self, params: ModelsListParams) -> RpcResult<ModelsListResult> {
        if let Some(agent_id) = &params.agent_id
            && !self.context.agents.list.iter().any(|agent| agent.id == agent_id.as_str())
        {
            let message = format!("no agent `{agent_id}`; `agents.list` lists them");
            return Err(refuse(RpcError::not_found("/agentId", message)));
        }
        let backend = self.context.runs.backend();
        if params.refresh == Some(true) {
            if params.prepared_only == Some(true) {
                let method = openclaw_schema::methods::models::ModelsMethod::ModelsList;
                return Err(refuse(invalid(method.name(), "/preparedOnly", "excludes `refresh`")));
            }
            backend.refresh().await;
        }
        let mut models = backend.catalogue(params.view.unwrap_or(ModelsView::Default));
        if let Some(provider) = params.provider.as_ref().map(Text::as_str) {
            models.retain(|model| model.provider == provider);
        }
        models.sort_by(|left, right| (&left.provider, &left.id).cmp(&(&right.provider, &right.id)));
        Ok(ModelsListResult { models })
    }
}
