//! `usage.*`: tokens and costs. Names follow stock's, as far as they are documented; `runs`, `models` and the dates of
//! the result are ours.

use jsonrpsee::{core::RpcResult, proc_macros::rpc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    RpcError, contract,
    contract::Examples,
    types::{Bounded, Text, TimestampMs},
};

/// Params of `usage.cost`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UsageCostParams {
    /// How many days, the last one included. 30 by default; excludes `startDate`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<Bounded<1, 3660>>,
    /// The first day, as `2026-11-01`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_date: Option<Text<10, 10>>,
    /// The last day, as `2026-11-30`; today when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_date: Option<Text<10, 10>>,
    /// The runs of this agent alone; those of all agents when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<Text<1, 64>>,
    /// Says that the runs of all agents are meant; excludes `agentId`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_scope: Option<UsageAgentScope>,
    /// Taken for stock clients: days are those of UTC, whatever it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<UsageDayMode>,
    /// Taken for stock clients: days are those of UTC, whatever it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<Text<0, 64>>,
    /// Taken for stock clients: days are those of UTC, whatever it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utc_offset: Option<Text<0, 64>>,
}

/// Whose runs are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UsageAgentScope {
    /// Those of every agent.
    All,
}

/// Where a stock gateway lets a day begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UsageDayMode {
    /// With UTC.
    Utc,
    /// Where the gateway is.
    Gateway,
    /// In the time zone that is given beside it.
    Specific,
}

/// Result of `usage.cost`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageCostResult {
    /// When it was added up. Runs that have ended by then are in it.
    pub updated_at: TimestampMs,
    /// How many days it is about.
    pub days: u64,
    /// The first of them, of UTC.
    #[serde(default)]
    pub start_date: String,
    /// The last of them, of UTC.
    #[serde(default)]
    pub end_date: String,
    /// The days on which a run was answered, oldest first.
    pub daily: Vec<UsageOfDay>,
    /// The models that answered, by provider and id.
    #[serde(default)]
    pub models: Vec<UsageOfModel>,
    /// All of it.
    pub totals: UsageTotals,
}

/// What the runs that were answered on one day consumed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageOfDay {
    /// The day of UTC, as `2026-11-22`.
    pub date: String,
    /// What was consumed.
    #[serde(flatten)]
    pub totals: UsageTotals,
}

/// What the runs that one model answered consumed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageOfModel {
    /// The provider of the model.
    pub provider: String,
    /// The id of the model.
    pub model: String,
    /// What was consumed.
    #[serde(flatten)]
    pub totals: UsageTotals,
}

/// What runs consumed, added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UsageTotals {
    /// How many runs were answered.
    #[serde(default)]
    pub runs: u64,
    /// Tokens read.
    pub input: u64,
    /// Tokens written.
    pub output: u64,
    /// Tokens read from the provider's cache, not part of `input`.
    pub cache_read: u64,
    /// Tokens written to the provider's cache, not part of `input`.
    pub cache_write: u64,
    /// All of them.
    pub total_tokens: u64,
    /// What the answers cost whose cost is known, in US dollars.
    pub total_cost: f64,
    /// How many answers are not in `totalCost`, because nobody told a price.
    #[serde(default)]
    pub missing_cost_entries: u64,
}

/// Tokens and costs.
#[contract(group = "Usage")]
#[rpc(server, client, namespace = "usage", namespace_separator = ".")]
pub trait Usage {
    /// Adds up what runs consumed and what that cost, by day and by model.
    ///
    /// A run counts for the model that answered it, on the day of UTC when it ended, as with stock gateways that are told
    /// no time zone. One that failed or was aborted counts with what its provider had told by then; where that is
    /// nothing, it is in no sum. The cost is what the provider told, or else what the configured prices were at that time.
    #[method(name = "cost")]
    #[meta(scope = "operator.read", since = "0.1.0", idempotent, errors(NotFound, Unavailable), examples = usage_cost)]
    async fn usage_cost(&self, params: UsageCostParams) -> RpcResult<UsageCostResult>;
}

fn usage_cost() -> Examples<UsageCostParams, UsageCostResult> {
    let date = |text: &str| Text::new(text).ok();
    let params = UsageCostParams {
        start_date: date("2026-11-16"),
        end_date: date("2026-11-22"),
        ..UsageCostParams::default()
    };
    let totals = UsageTotals {
        runs: 2,
        input: 22,
        output: 10,
        cache_read: 8,
        cache_write: 0,
        total_tokens: 40,
        total_cost: 0.000_063,
        missing_cost_entries: 1,
    };
    let priced = UsageTotals {
        runs: 1,
        input: 11,
        output: 5,
        cache_read: 4,
        total_tokens: 20,
        missing_cost_entries: 0,
        ..totals
    };
    let unpriced = UsageTotals { total_cost: 0.0, missing_cost_entries: 1, ..priced };
    let of_model = |provider: &str, model: &str, totals| UsageOfModel {
        provider: provider.to_owned(),
        model: model.to_owned(),
        totals,
    };
    let result = UsageCostResult {
        updated_at: TimestampMs(1_795_337_997_413),
        days: 7,
        start_date: "2026-11-16".to_owned(),
        end_date: "2026-11-22".to_owned(),
        daily: vec![UsageOfDay { date: "2026-11-22".to_owned(), totals }],
        models: vec![of_model("ollama", "llama3.3", unpriced), of_model("openai", "gpt-5.4", priced)],
        totals,
    };
    Examples::success("a week", params, result).invalid("no day", json!({ "days": 0 })).refused(
        "an agent that does not exist",
        json!({ "agentId": "nobody" }),
        RpcError::not_found("/agentId", "no agent `nobody`; `agents.list` lists them"),
    )
}
