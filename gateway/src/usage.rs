//! What the runs of some days consumed and cost. The sums are kept by the store, from the end of each run on.

use std::collections::BTreeMap;

use jiff::{Span, civil::Date};
use openclaw_schema::{
    methods::usage::{UsageCostParams, UsageCostResult, UsageOfDay, UsageOfModel, UsageTotals},
    types::{Text, TimestampMs},
};

use crate::store::{self, DayUsage, Store, StoreError};

/// How many days are looked at when nobody says it.
const DEFAULT_DAYS: u64 = 30;

/// The sums of what was consumed.
#[derive(Debug, Clone)]
pub(crate) struct UsageLedger {
    store: Store,
}

/// Some days of UTC, both ends included, as days since 1970-01-01.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Days {
    first: i64,
    last: i64,
}

/// Why params name no days: the JSON Pointer of what is at fault, and what is wrong with it.
pub(crate) type BadDays = (&'static str, &'static str);

impl Days {
    /// The days that `params` name.
    pub(crate) fn of(params: &UsageCostParams, now: TimestampMs) -> Result<Self, BadDays> {
        let day = |text: &Text<10, 10>, path| {
            let date =
                text.as_str().parse::<Date>().map_err(|_| (path, "is no date such as `2026-11-22`"))?;
            // From one date to another is a number of days.
            Ok::<_, BadDays>(i64::from((date - epoch()).get_days()))
        };
        let last = match &params.end_date {
            Some(text) => day(text, "/endDate")?,
            None => store::day_of(now),
        };
        let first = match &params.start_date {
            Some(_) if params.days.is_some() => return Err(("/days", "excludes `startDate`")),
            Some(text) => day(text, "/startDate")?,
            None => {
                let days = params.days.map_or(DEFAULT_DAYS, |days| days.get());
                last.saturating_add(1).saturating_sub_unsigned(days)
            }
        };
        if first > last { Err(("/startDate", "is after the last day")) } else { Ok(Self { first, last }) }
    }

    fn count(self) -> u64 {
        u64::try_from(self.last - self.first + 1).unwrap_or_default()
    }
}

impl UsageLedger {
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }

    /// What was consumed on some days, by one agent or by all.
    pub(crate) async fn cost(
        &self,
        days: Days,
        agent_id: Option<String>,
        now: TimestampMs,
    ) -> Result<UsageCostResult, StoreError> {
        let rows = if self.store.exists() {
            self.store.usage(days.first, days.last, agent_id).await?
        } else {
            Vec::new()
        };
        Ok(summed(days, rows, now))
    }
}

fn summed(days: Days, rows: Vec<DayUsage>, now: TimestampMs) -> UsageCostResult {
    let mut totals = UsageTotals::default();
    let mut daily: BTreeMap<i64, UsageTotals> = BTreeMap::new();
    let mut models: BTreeMap<(String, String), UsageTotals> = BTreeMap::new();
    for DayUsage { day, provider, model, totals: used } in rows {
        add(&mut totals, &used);
        add(daily.entry(day).or_default(), &used);
        add(models.entry((provider, model)).or_default(), &used);
    }
    UsageCostResult {
        updated_at: now,
        days: days.count(),
        start_date: date_of(days.first),
        end_date: date_of(days.last),
        daily: daily
            .into_iter()
            .map(|(day, totals)| UsageOfDay { date: date_of(day), totals: rounded(totals) })
            .collect(),
        models: models
            .into_iter()
            .map(|((provider, model), totals)| UsageOfModel { provider, model, totals: rounded(totals) })
            .collect(),
        totals: rounded(totals),
    }
}

fn add(sum: &mut UsageTotals, used: &UsageTotals) {
    sum.runs += used.runs;
    sum.input += used.input;
    sum.output += used.output;
    sum.cache_read += used.cache_read;
    sum.cache_write += used.cache_write;
    sum.total_tokens += used.total_tokens;
    sum.total_cost += used.total_cost;
    sum.missing_cost_entries += used.missing_cost_entries;
}

/// To a billionth of a dollar: what is beyond is noise of adding up.
fn rounded(totals: UsageTotals) -> UsageTotals {
    UsageTotals { total_cost: (totals.total_cost * 1e9).round() / 1e9, ..totals }
}

fn epoch() -> Date {
    jiff::civil::date(1970, 1, 1)
}

/// A day as `2026-11-22`.
fn date_of(day: i64) -> String {
    let date = Span::new().try_days(day).ok().and_then(|days| epoch().checked_add(days).ok());
    // Every day that is looked at comes from a date or from the clock; a clock beyond all dates is at their end.
    date.unwrap_or(Date::MAX).to_string()
}

#[cfg(test)]
mod tests {
    use openclaw_schema::types::Bounded;
    use serde_json::json;

    use super::*;

    /// 2026-11-22T12:00:00Z.
    const NOW: TimestampMs = TimestampMs(1_795_348_800_000);

    fn days(params: serde_json::Value) -> Result<(String, String, u64), BadDays> {
        let params = serde_json::from_value(params).expect("the params have the right types");
        let days = Days::of(&params, NOW)?;
        Ok((date_of(days.first), date_of(days.last), days.count()))
    }

    #[test]
    fn days_are_counted_back_from_the_last_one() {
        let range = |first: &str, last: &str, count| Ok((first.to_owned(), last.to_owned(), count));
        assert_eq!(days(json!({})), range("2026-10-24", "2026-11-22", 30));
        assert_eq!(days(json!({ "days": 1 })), range("2026-11-22", "2026-11-22", 1));
        assert_eq!(days(json!({ "days": 2, "endDate": "2024-03-01" })), range("2024-02-29", "2024-03-01", 2));
        assert_eq!(days(json!({ "startDate": "2026-11-20" })), range("2026-11-20", "2026-11-22", 3));
        let longest = json!({ "days": Bounded::<1, 3660>::clamped(u64::MAX) });
        assert_eq!(days(longest), range("2016-11-15", "2026-11-22", 3660));
    }

    #[test]
    fn what_names_no_days_is_refused() {
        for (params, path) in [
            (json!({ "startDate": "2026-11-31" }), "/startDate"),
            (json!({ "endDate": "22.11.2026" }), "/endDate"),
            (json!({ "startDate": "2026-11-23" }), "/startDate"),
            (json!({ "startDate": "2026-11-20", "days": 3 }), "/days"),
        ] {
            assert_eq!(days(params.clone()).expect_err("it names no days").0, path, "{params}");
        }
    }

    #[test]
    fn a_sum_of_cents_has_no_noise() {
        let used = |day, cost| DayUsage {
            day,
            provider: "p".to_owned(),
            model: "m".to_owned(),
            totals: UsageTotals { runs: 1, total_cost: cost, ..UsageTotals::default() },
        };
        let result = summed(Days { first: 0, last: 2 }, vec![used(0, 0.1), used(0, 0.2), used(2, 0.0)], NOW);
        assert_eq!((result.totals.total_cost, result.totals.runs), (0.3, 3));
        let dates: Vec<&str> = result.daily.iter().map(|day| day.date.as_str()).collect();
        assert_eq!(dates, ["1970-01-01", "1970-01-03"]);
        assert_eq!(result.models.len(), 1);
    }
}
