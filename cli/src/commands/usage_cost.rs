//! `gateway usage-cost`: what the runs of the last days consumed and cost, as tables or as JSON.

use openclaw_schema::{
    methods::usage::{UsageAgentScope, UsageCostParams, UsageCostResult, UsageMethod, UsageTotals},
    types::{Bounded, Text},
};
use serde_json::value::to_raw_value;

use crate::{
    args::{GlobalArgs, UsageCostArgs},
    connection::{self, Connection},
    error::{CliError, Result},
    exit::Exit,
    output::{DIM, HEADING, Printer, WARN, printable},
    settings::ClientSettings,
};

/// Below this many dollars four decimals say too little.
const SMALL: f64 = 0.01;

/// Asks for the sums and shows them.
pub(crate) fn usage_cost(args: &UsageCostArgs, global: &GlobalArgs, printer: &Printer) -> Result<Exit> {
    let settings = ClientSettings::resolve(&args.client, global)?;
    let agent_id = args.agent.as_deref().map(Text::new).transpose();
    let params = UsageCostParams {
        days: Some(Bounded::clamped(args.days)),
        agent_id: agent_id.map_err(|problem| CliError::usage(format!("--agent: {problem}")))?,
        agent_scope: args.all_agents.then_some(UsageAgentScope::All),
        ..UsageCostParams::default()
    };
    let answer = connection::run(&settings, async {
        let method = UsageMethod::UsageCost.name();
        let params = to_raw_value(&params).expect("the params serialise");
        Connection::open(&settings, method, &params).await?.call(method, params).await
    })?;
    let usage: UsageCostResult = connection::read(UsageMethod::UsageCost.name(), &answer)?;
    if printer.is_json() {
        printer.received(&answer)?;
    } else {
        printer.line(&report(&usage, printer))?;
    }
    Ok(Exit::Ok)
}

fn report(usage: &UsageCostResult, printer: &Printer) -> String {
    let rows =
        || usage.daily.iter().map(|day| &day.totals).chain(usage.models.iter().map(|model| &model.totals));
    let is_small = |totals: &UsageTotals| totals.total_cost > 0.0 && totals.total_cost < SMALL;
    let digits = if rows().any(is_small) { 6 } else { 4 };
    let days = if usage.days == 1 { "1 day".to_owned() } else { format!("{} days", usage.days) };
    let sum = |totals: &UsageTotals| {
        format!("{} · {} tokens", dollars(totals, digits), grouped(totals.total_tokens))
    };
    let mut lines = vec![
        printer.styled(HEADING, &format!("Usage cost ({days})")),
        format!("Total: {}", sum(&usage.totals)),
    ];
    if let Some(latest) = usage.daily.last() {
        lines.push(format!("Latest day: {} · {}", printable(&latest.date), sum(&latest.totals)));
    }
    if let Some(note) = unpriced(usage) {
        lines.push(format!("{} {note}", printer.styled(WARN, "Incomplete:")));
    }
    if usage.daily.is_empty() {
        lines.push("No run was answered in this time.".to_owned());
        return lines.join("\n");
    }
    let names = |totals: Vec<(String, &UsageTotals)>, heading: &str| {
        let mut cells = vec![
            [heading, "INPUT", "OUTPUT", "CACHE READ", "CACHE WRITE", "TOKENS", "COST"].map(str::to_owned),
        ];
        cells.extend(totals.into_iter().map(|(name, totals)| {
            let counts =
                [totals.input, totals.output, totals.cache_read, totals.cache_write, totals.total_tokens];
            let [input, output, read, write, total] = counts.map(grouped);
            [printable(&name), input, output, read, write, total, dollars(totals, digits)]
        }));
        table(&cells, printer)
    };
    lines.push(String::new());
    lines.extend(names(usage.daily.iter().map(|day| (day.date.clone(), &day.totals)).collect(), "DAY"));
    if !usage.models.is_empty() {
        let model = |provider: &str, model: &str| format!("{provider}/{model}");
        let models = usage.models.iter().map(|row| (model(&row.provider, &row.model), &row.totals)).collect();
        lines.push(String::new());
        lines.extend(names(models, "MODEL"));
    }
    lines.join("\n")
}

/// What the sums of costs leave out.
fn unpriced(usage: &UsageCostResult) -> Option<String> {
    let missing = |totals: &UsageTotals| totals.missing_cost_entries;
    let answers = match missing(&usage.totals) {
        0 => return None,
        1 => "1 answer has no price".to_owned(),
        count => format!("{} answers have no price", grouped(count)),
    };
    let models = usage.models.iter().filter(|model| missing(&model.totals) > 0);
    let models: Vec<String> =
        models.map(|model| printable(&format!("{}/{}", model.provider, model.model))).collect();
    let of = if models.is_empty() { String::new() } else { format!(" ({})", models.join(", ")) };
    Some(format!("{answers}{of}; `cost` of a model in the gateway's configuration tells it"))
}

/// A cost: `-` where none is known, with `+` where only a part is.
fn dollars(totals: &UsageTotals, digits: usize) -> String {
    let UsageTotals { total_cost, missing_cost_entries, .. } = *totals;
    let is_partial = missing_cost_entries > 0;
    if is_partial && total_cost == 0.0 {
        return "-".to_owned();
    }
    format!("${total_cost:.digits$}{}", if is_partial { "+" } else { "" })
}

/// A number with its digits in groups of three.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Names to the left, numbers to the right.
fn table(rows: &[[String; 7]], printer: &Printer) -> Vec<String> {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let line = |row: &[String; 7]| {
        let cells = row.iter().enumerate().map(|(column, cell)| {
            let width = width(column);
            if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        cells.collect::<Vec<_>>().join("  ")
    };
    let styled = |(index, row)| if index == 0 { printer.styled(DIM, &line(row)) } else { line(row) };
    rows.iter().enumerate().map(styled).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(usage: serde_json::Value) -> String {
        let usage = serde_json::from_value(usage).expect("the example is a result");
        report(&usage, &Printer::new(false, true))
    }

    fn used(mut row: serde_json::Value, input: u64, cost: f64, missing: u64) -> serde_json::Value {
        let totals = json!({ "input": input, "output": 5, "cacheRead": 4, "cacheWrite": 0, "totalTokens": input + 9,
            "totalCost": cost, "missingCostEntries": missing });
        for (name, value) in totals.as_object().into_iter().flatten() {
            row[name] = value.clone();
        }
        row
    }

    #[test]
    fn columns_are_aligned_and_what_has_no_price_is_named() {
        let usage = json!({
            "updatedAt": 1, "days": 30, "startDate": "2026-10-24", "endDate": "2026-11-22",
            "daily": [used(json!({ "date": "2026-11-02" }), 1_200_000, 1.25, 0), used(json!({ "date": "2026-11-22" }), 11, 0.0, 1)],
            "models": [
                used(json!({ "provider": "ollama", "model": "llama3.3" }), 11, 0.0, 1),
                used(json!({ "provider": "openai", "model": "m" }), 1_200_000, 1.25, 0),
            ],
            "totals": used(json!({}), 1_200_011, 1.25, 1),
        });
        assert_eq!(
            shown(usage),
            "\
Usage cost (30 days)
Total: $1.2500+ · 1,200,020 tokens
Latest day: 2026-11-22 · - · 20 tokens
Incomplete: 1 answer has no price (ollama/llama3.3); `cost` of a model in the gateway's configuration tells it

DAY             INPUT  OUTPUT  CACHE READ  CACHE WRITE     TOKENS     COST
2026-11-02  1,200,000       5           4            0  1,200,009  $1.2500
2026-11-22         11       5           4            0         20        -

MODEL                INPUT  OUTPUT  CACHE READ  CACHE WRITE     TOKENS     COST
ollama/llama3.3         11       5           4            0         20        -
openai/m         1,200,000       5           4            0  1,200,009  $1.2500"
        );
    }

    #[test]
    fn nothing_consumed_and_the_answer_of_a_stock_gateway_can_be_shown() {
        let usage = json!({ "updatedAt": 1, "days": 1, "daily": [], "totals": used(json!({}), 0, 0.0, 0) });
        let text = shown(usage);
        assert!(text.starts_with("Usage cost (1 day)\nTotal: $0.0000 · "), "{text}");
        let small = json!({ "updatedAt": 1, "days": 2, "daily": [used(json!({ "date": "2026-11-22" }), 11, 63e-6, 0)],
            "totals": used(json!({}), 11, 63e-6, 0) });
        assert!(shown(small).contains("Latest day: 2026-11-22 · $0.000063 · 20 tokens"));
    }
}
