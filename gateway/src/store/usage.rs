//! What runs consumed and what that cost, summed up by day, agent and model.

use openclaw_schema::{
    methods::{agent::TokenUsage, models::ModelInfo, usage::UsageTotals},
    types::TimestampMs,
};
use rusqlite::{Connection, params};

use super::{Store, StoreError};

/// How long a day is, in milliseconds.
const DAY_MS: u64 = 86_400_000;

/// More tokens than any answer has. A provider that tells more must not make the sums overflow.
const MAX_TOKENS: u64 = 1 << 40;

/// What the runs of one day consumed with one model.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct DayUsage {
    pub(crate) day: i64,
    pub(crate) provider: String,
    pub(crate) model: String,
    pub(crate) totals: UsageTotals,
}

/// The day of UTC that a moment is in, as days since 1970-01-01.
pub(crate) fn day_of(at: TimestampMs) -> i64 {
    number(at.0 / DAY_MS)
}

impl Store {
    /// What was consumed from the day `first` to the day `last`, by day, provider and model; by one agent or by all.
    pub(crate) async fn usage(
        &self,
        first: i64,
        last: i64,
        agent_id: Option<String>,
    ) -> Result<Vec<DayUsage>, StoreError> {
        self.read(move |connection| {
            connection
                .prepare_cached(
                    "SELECT day, provider, model, sum(runs), sum(runs - priced_runs), sum(input_tokens),
                         sum(output_tokens), sum(cache_read_tokens), sum(cache_write_tokens), sum(total_tokens),
                         sum(cost_usd)
                     FROM usage_daily WHERE day BETWEEN ?1 AND ?2 AND (?3 IS NULL OR agent_id = ?3)
                     GROUP BY day, provider, model ORDER BY day, provider, model",
                )?
                .query_map(params![first, last, agent_id], |row| {
                    let count = |column| row.get(column).map(|count: i64| u64::try_from(count).unwrap_or_default());
                    Ok(DayUsage {
                        day: row.get(0)?,
                        provider: row.get(1)?,
                        model: row.get(2)?,
                        totals: UsageTotals {
                            runs: count(3)?,
                            missing_cost_entries: count(4)?,
                            input: count(5)?,
                            output: count(6)?,
                            cache_read: count(7)?,
                            cache_write: count(8)?,
                            total_tokens: count(9)?,
                            total_cost: row.get(10)?,
                        },
                    })
                })?
                .collect()
        })
        .await
    }
}

/// Adds what one run consumed to the sums of its day.
pub(super) fn add(
    connection: &Connection,
    at: TimestampMs,
    agent_id: &str,
    model: &ModelInfo,
    usage: TokenUsage,
) -> rusqlite::Result<()> {
    let tokens = |count: u64| number(count.min(MAX_TOKENS));
    connection
        .prepare_cached(
            "INSERT INTO usage_daily VALUES (?1, ?2, ?3, ?4, 1, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
             ON CONFLICT (day, agent_id, provider, model) DO UPDATE SET
                 runs = runs + 1, priced_runs = priced_runs + excluded.priced_runs,
                 input_tokens = input_tokens + excluded.input_tokens,
                 output_tokens = output_tokens + excluded.output_tokens,
                 cache_read_tokens = cache_read_tokens + excluded.cache_read_tokens,
                 cache_write_tokens = cache_write_tokens + excluded.cache_write_tokens,
                 total_tokens = total_tokens + excluded.total_tokens, cost_usd = cost_usd + excluded.cost_usd",
        )?
        .execute(params![
            day_of(at),
            agent_id,
            model.provider,
            model.id,
            usage.cost.is_some(),
            tokens(usage.input),
            tokens(usage.output),
            tokens(usage.cache_read),
            tokens(usage.cache_write),
            tokens(usage.total),
            usage.cost.unwrap_or_default().total,
        ])
        .map(drop)
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
