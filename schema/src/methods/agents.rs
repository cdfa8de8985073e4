//! `agents.*`: the configured agents. Shapes follow wire.md section 10.

use jsonrpsee::{core::RpcResult, proc_macros::rpc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{contract, contract::Examples, types::NoParams};

/// Result of `agents.list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentsListResult {
    /// The agent that serves calls that name none.
    pub default_id: String,
    /// The name of every agent's main session.
    #[serde(default)]
    pub main_key: String,
    /// How sessions are told apart: `per-sender`.
    #[serde(default)]
    pub scope: String,
    /// The agents, by id.
    pub agents: Vec<AgentInfo>,
}

/// One agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentInfo {
    /// The id.
    pub id: String,
    /// The name for people; absent when none is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The directory that the agent works in, on the gateway's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// The model it uses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<AgentModel>,
}

/// The model of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentModel {
    /// The model tried first, as `provider/id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<String>,
}

/// The configured agents.
#[contract(group = "Agents")]
#[rpc(server, client, namespace = "agents", namespace_separator = ".")]
pub trait Agents {
    /// Lists the agents.
    #[method(name = "list")]
    #[meta(scope = "operator.read", since = "0.1.0", idempotent, examples = agents_list)]
    fn agents_list(&self, params: NoParams) -> RpcResult<AgentsListResult>;
}

fn agents_list() -> Examples<NoParams, AgentsListResult> {
    let result = AgentsListResult {
        default_id: "main".to_owned(),
        main_key: "main".to_owned(),
        scope: "per-sender".to_owned(),
        agents: vec![AgentInfo {
            id: "main".to_owned(),
            name: None,
            workspace: Some("/home/ada/.openclaw/workspace".to_owned()),
            model: Some(AgentModel { primary: Some("echo/echo-1".to_owned()) }),
        }],
    };
    Examples::success("one agent", NoParams {}, result)
        .invalid("a field that does not exist", json!({ "all": true }))
}
