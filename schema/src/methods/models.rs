//! `models.*`: the model catalogue. Shapes follow wire.md section 10.

use jsonrpsee::{core::RpcResult, proc_macros::rpc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{RpcError, contract, contract::Examples, types::Text};

/// Params of `models.list`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModelsListParams {
    /// The models that this agent may use; those of the default agent when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<Text<1, 64>>,
    /// Which models: `default`, those ready for use, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<ModelsView>,
    /// Only the models of this provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<Text<1, 64>>,
    /// Whether to ask the providers anew which models they have. Takes seconds where one does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<bool>,
    /// Whether to answer from what is known already: what happens without `refresh`, which excludes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepared_only: Option<bool>,
    /// Taken for stock clients; nothing follows from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_provider_capabilities: Option<bool>,
    /// Taken for stock clients; nothing follows from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_details: Option<bool>,
    /// Taken for stock clients: the models are the same in every session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_key: Option<Text<1, 512>>,
}

/// Which models to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ModelsView {
    /// Those ready for use.
    Default,
    /// Those named in the configuration, ready or not.
    Configured,
    /// Those that the configuration declares at a provider, ready or not.
    ProviderConfig,
    /// Every model that the gateway knows of: also what the providers listed at the last `refresh`, and the echo.
    All,
}

/// Result of `models.list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelsListResult {
    /// The models, by provider and id.
    pub models: Vec<ModelInfo>,
}

/// One model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelInfo {
    /// The id, unique within the provider.
    pub id: String,
    /// The name for people.
    #[serde(default)]
    pub name: String,
    /// The provider.
    pub provider: String,
    /// The size of the context window in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_window: Option<u64>,
    /// Whether the model reasons before it answers.
    #[serde(default)]
    pub reasoning: bool,
    /// `default` for the model that is used when none is named, `fallback` for those that follow it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Whether it can be used now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<bool>,
}

/// The model catalogue.
#[contract(group = "Models")]
#[rpc(server, client, namespace = "models", namespace_separator = ".")]
pub trait Models {
    /// Lists the models that agents may use.
    ///
    /// A model of a provider that has no key, or that did not answer the last `refresh`, is not `available`.
    #[method(name = "list")]
    #[meta(scope = "operator.read", since = "0.1.0", idempotent, errors(NotFound), examples = models_list)]
    async fn models_list(&self, params: ModelsListParams) -> RpcResult<ModelsListResult>;
}

fn models_list() -> Examples<ModelsListParams, ModelsListResult> {
    let result = ModelsListResult {
        models: vec![ModelInfo {
            id: "echo-1".to_owned(),
            name: "Echo".to_owned(),
            provider: "echo".to_owned(),
            context_window: Some(8192),
            reasoning: false,
            tags: vec!["default".to_owned()],
            available: Some(true),
        }],
    };
    Examples::success("the models ready for use", ModelsListParams::default(), result)
        .invalid("a view that does not exist", json!({ "view": "al" }))
        .refused(
            "an agent that does not exist",
            json!({ "agentId": "nobody" }),
            RpcError::not_found("/agentId", "no agent `nobody`; `agents.list` lists them"),
        )
}
