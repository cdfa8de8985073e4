//! The section `models`: the providers of models, in the shape of OpenClaw.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Amount, Entries, ProviderKey, RuntimeChoice, Secret, Sourced, Texts};
use crate::types::Bounded;

/// A number of tokens, at least 1.
type Tokens = Bounded<1, { u64::MAX }>;

/// The section `models`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Models {
    /// The providers, by the name that stands before the slash in `provider/id`. The common ones need no entry, only
    /// their variable, such as `OPENAI_API_KEY`.
    pub providers: Entries<Provider>,
}

/// One of `models.providers`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Provider {
    /// Where it is, such as `http://127.0.0.1:8000/v1`. Only common providers have a default.
    pub base_url: Option<Sourced<String>>,
    /// What it speaks. This gateway speaks `openai-completions`, `openai-responses`, `anthropic-messages` and
    /// `ollama`; the models of a provider that speaks something else are not available. By default what is usual for
    /// it, else `openai-completions`.
    pub api: Option<Sourced<String>>,
    /// Its key: a text, the name of an environment variable, or a reference to one.
    pub api_key: Option<Sourced<ProviderKey>>,
    /// Whether the key goes into the header `Authorization: Bearer` where the API has a header of its own for it. By
    /// default it does when `auth` is `token`.
    pub auth_header: Option<Sourced<bool>>,
    /// What the key is; `token` stands for `authHeader`.
    pub auth: Option<Sourced<String>>,
    /// Headers that are added to each request.
    pub headers: Entries<Secret>,
    /// How long an answer may take, in seconds: at least 1.
    pub timeout_seconds: Option<Sourced<Bounded<1, { u64::MAX }>>>,
    /// The longest answer of models that say nothing of it, in tokens: at least 1.
    pub max_tokens: Option<Sourced<Tokens>>,
    /// What runs its models.
    pub agent_runtime: RuntimeChoice,
    /// Its models. By default those that it lists itself.
    pub models: Vec<Sourced<ModelRow>>,
}

/// One model of a provider.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ModelRow {
    /// The id that its provider knows it by.
    #[schemars(required)]
    pub id: Option<Sourced<String>>,
    /// Its name for people. By default its id.
    pub name: Option<Sourced<String>>,
    /// How much it can take in, in tokens: at least 1.
    pub context_window: Option<Sourced<Tokens>>,
    /// How much of that is used, in tokens: at least 1. By default all of it.
    pub context_tokens: Option<Sourced<Tokens>>,
    /// The longest answer, in tokens: at least 1.
    pub max_tokens: Option<Sourced<Tokens>>,
    /// Its prices, in dollars per million tokens.
    pub cost: Option<Sourced<ModelCost>>,
    /// Whether it thinks before it answers.
    #[schemars(extend("default" = false))]
    pub reasoning: Option<Sourced<bool>>,
    /// What its provider can.
    pub compat: Compat,
}

/// What a model costs, in dollars per million tokens.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ModelCost {
    /// What it reads.
    #[schemars(extend("default" = 0))]
    pub input: Amount,
    /// What it writes.
    #[schemars(extend("default" = 0))]
    pub output: Amount,
    /// What it reads from its cache.
    #[schemars(extend("default" = 0))]
    pub cache_read: Amount,
    /// What it writes to its cache.
    #[schemars(extend("default" = 0))]
    pub cache_write: Amount,
}

/// What the provider of a model can.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Compat {
    /// Whether an answer in pieces ends with how many tokens it took.
    #[schemars(extend("default" = true))]
    pub supports_usage_in_streaming: Option<Sourced<bool>>,
    /// Whether it takes a word on how much to think. By default it does where the model thinks.
    pub supports_reasoning_effort: Option<Sourced<bool>>,
    /// The words that it takes, such as `low` and `high`. By default all.
    pub supported_reasoning_efforts: Option<Sourced<Texts>>,
}
