//! What one answer has told so far, whoever tells it: usage, cost, why it ended.

use openclaw_schema::methods::agent::TokenUsage;

use super::{BackendAnswer, settings::Prices, thoughts::Thoughts};

/// What one answer has told so far.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Reading {
    /// What it consumed, without the sum.
    pub(super) usage: TokenUsage,
    /// What the provider says that it cost, in US dollars.
    pub(super) cost_usd: Option<f64>,
    /// Why it ended, in our word.
    pub(super) stop_reason: Option<String>,
    /// Whether the model refused.
    pub(super) refused: bool,
    /// Whether nothing follows.
    pub(super) finished: bool,
    /// What is told apart from the answer.
    pub(super) thoughts: Thoughts,
}

impl Reading {
    /// The answer, at its prices.
    pub(super) fn answer(self, prices: Option<Prices>) -> BackendAnswer {
        let parts = [self.usage.input, self.usage.output, self.usage.cache_read, self.usage.cache_write];
        let usage = TokenUsage { total: parts.into_iter().fold(0, u64::saturating_add), ..self.usage };
        // Where nothing was counted, prices say nothing.
        let prices = prices.filter(|_| usage.total > 0);
        BackendAnswer {
            cost_usd: self.cost_usd.or_else(|| prices.map(|prices| prices.of(&usage))),
            usage,
            model: None,
            stop_reason: self.stop_reason.unwrap_or_else(|| "stop".to_owned()),
        }
    }
}

impl Prices {
    /// What so many tokens cost, in US dollars.
    #[must_use]
    pub fn of(&self, usage: &TokenUsage) -> f64 {
        // Exact: no answer has 2^52 tokens.
        let cost = |tokens: u64, price: f64| tokens as f64 * price;
        (cost(usage.input, self.input)
            + cost(usage.output, self.output)
            + cost(usage.cache_read, self.cache_read)
            + cost(usage.cache_write, self.cache_write))
            / 1e6
    }
}
