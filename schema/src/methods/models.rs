//! `models.*`: the model catalogue. Shapes follow wire.md section 10.

use std::{fmt, str::FromStr};

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
    /// The levels of thinking that it has, least first; absent where that is not known, and every level is passed on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub thinking_levels: Vec<ThinkingOption>,
    /// The level of a run that names none; absent where the model decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinking_default: Option<ThinkingLevel>,
    /// Whether it can be used now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub available: Option<bool>,
}

/// How much a model thinks before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ThinkingLevel {
    /// Not at all, where the model lets that be chosen.
    Off,
    /// As little as it can.
    Minimal,
    /// A little.
    Low,
    /// A good deal.
    Medium,
    /// Much.
    High,
    /// More than much; few models have it.
    Xhigh,
    /// As much as the model sees fit.
    Adaptive,
    /// As much as it can.
    Max,
}

impl ThinkingLevel {
    /// All levels, least first.
    pub const ALL: [Self; 8] = [
        Self::Off,
        Self::Minimal,
        Self::Low,
        Self::Medium,
        Self::High,
        Self::Xhigh,
        Self::Adaptive,
        Self::Max,
    ];

    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Xhigh => "xhigh",
            Self::Adaptive => "adaptive",
            Self::Max => "max",
        }
    }

    /// The level as `models.list` shows it.
    #[must_use]
    pub fn option(self) -> ThinkingOption {
        ThinkingOption { id: self, label: self.name().to_owned() }
    }
}

/// A text that names no [`ThinkingLevel`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownThinkingLevel;

impl fmt::Display for UnknownThinkingLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = ThinkingLevel::ALL.map(ThinkingLevel::name);
        write!(f, "is no level of thinking; there are {}", names.join(", "))
    }
}

impl std::error::Error for UnknownThinkingLevel {}

impl FromStr for ThinkingLevel {
    type Err = UnknownThinkingLevel;

    /// Reads a name in any case, and the other spellings that stock clients send.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = text.trim().to_ascii_lowercase();
        match name.as_str() {
            "none" | "disabled" => Ok(Self::Off),
            "highest" => Ok(Self::High),
            // Stock's word for that and for helpers of the model, which there are none of here.
            "ultra" => Ok(Self::Max),
            "x-high" | "x_high" | "extra-high" | "extra high" | "extra_high" => Ok(Self::Xhigh),
            name => Self::ALL.into_iter().find(|level| level.name() == name).ok_or(UnknownThinkingLevel),
        }
    }
}

/// A level of thinking that a model has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ThinkingOption {
    /// The level.
    pub id: ThinkingLevel,
    /// What people read.
    pub label: String,
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
            thinking_levels: Vec::new(),
            thinking_default: None,
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
