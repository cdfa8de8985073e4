//! `gateway methods`: what can be called.

use openclaw_schema::methods;
use serde::Serialize;
use serde_json::Value;

use crate::{
    args::{GlobalArgs, MethodsArgs},
    connection,
    error::Result,
    exit::Exit,
    output::{DIM, HEADING, LITERAL, Printer, printable},
};

/// One row, as `--json` shows it.
#[derive(Debug, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: String,
    group: String,
    summary: String,
    scope: String,
    since: String,
    idempotent: bool,
    two_phase: bool,
    subscription: bool,
    deprecated: bool,
}

/// Lists the methods of the contract, or of a gateway.
pub(crate) fn methods(args: &MethodsArgs, global: &GlobalArgs, printer: &Printer) -> Result<Exit> {
    let rows =
        if args.live { of_document(&connection::discover(&args.client, global)?) } else { of_contract() };
    if printer.is_json() {
        printer.json(&rows)?;
    } else {
        printer.line(&table(&rows, printer))?;
    }
    Ok(Exit::Ok)
}

fn of_contract() -> Vec<Row> {
    let rows = methods::all().map(|record| Row {
        name: record.name.to_owned(),
        group: record.group.to_owned(),
        summary: record.summary.to_owned(),
        scope: record.scope.name().to_owned(),
        since: record.since.to_owned(),
        idempotent: record.idempotent,
        two_phase: record.two_phase.is_some(),
        subscription: record.subscription.is_some(),
        deprecated: record.deprecated,
    });
    sorted(rows.collect())
}

fn of_document(document: &Value) -> Vec<Row> {
    let rows = document["methods"].as_array().into_iter().flatten().map(|method| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Row {
            name: text(&method["name"]),
            group: text(&method["tags"][0]["name"]),
            summary: text(&method["summary"]),
            scope: text(&method["x-scope"]),
            since: text(&method["x-since"]),
            idempotent: method["x-idempotent"] == true,
            two_phase: method["x-two-phase"].is_object(),
            subscription: method["x-subscription"].is_object(),
            deprecated: method["deprecated"] == true,
        }
    });
    sorted(rows.collect())
}

fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by(|left, right| (&left.group, &left.name).cmp(&(&right.group, &right.name)));
    rows
}

fn table(rows: &[Row], printer: &Printer) -> String {
    let width = |text: fn(&Row) -> &str| rows.iter().map(|row| text(row).chars().count()).max().unwrap_or(0);
    let (name_width, scope_width) = (width(|row| &row.name), width(|row| &row.scope));
    let mut lines = Vec::new();
    let mut group = None;
    for row in rows {
        if group != Some(&row.group) {
            if group.is_some() {
                lines.push(String::new());
            }
            lines.push(printer.styled(HEADING, &printable(&row.group)));
            group = Some(&row.group);
        }
        let name = format!("{:name_width$}", printable(&row.name));
        let scope = format!("{:scope_width$}", printable(&row.scope));
        let mark = if row.deprecated { " (deprecated)" } else { "" };
        lines.push(format!(
            "  {}  {}  {}{mark}",
            printer.styled(LITERAL, &name),
            printer.styled(DIM, &scope),
            printable(&row.summary)
        ));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contract_and_document_list_the_same() {
        assert_eq!(of_contract(), of_document(&openclaw_schema::document::document()));
    }
}
