//! `agents.list`.

use jsonrpsee::core::RpcResult;
use openclaw_schema::{
    methods::agents::{AgentInfo, AgentModel, AgentsListResult},
    server::AgentsServer,
    types::NoParams,
};

use super::Handlers;

impl AgentsServer for Handlers {
    fn agents_list(&self, _: NoParams) -> RpcResult<AgentsListResult> {
        let agents = &self.context.agents;
        let mut list: Vec<AgentInfo> = agents
            .list
            .iter()
            .map(|agent| AgentInfo {
                id: agent.id.clone(),
                name: agent.name.clone(),
                workspace: Some(agent.workspace.display().to_string()),
                model: agent.model.clone().map(|primary| AgentModel { primary: Some(primary) }),
            })
            .collect();
        list.sort_by(|left, right| left.id.cmp(&right.id));
        Ok(AgentsListResult {
            default_id: agents.default_id.clone(),
            main_key: "main".to_owned(),
            scope: "per-sender".to_owned(),
            agents: list,
        })
    }
}
