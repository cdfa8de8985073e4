//! `gateway describe`: all that is declared about a method, an event or a type.
//!
//! Everything is read from an OpenRPC document, so that this program's contract and a running gateway are
//! described by the same code.

use std::collections::BTreeSet;

use openclaw_schema::{document, problem};
use serde_json::{Map, Value, json};

use crate::{
    args::{DescribeArgs, GlobalArgs, KindArg},
    connection,
    error::{CliError, Result},
    exit::Exit,
    flags,
    method::{self, Method},
    output::{DIM, HEADING, LITERAL, Printer, printable, wrapped},
};

/// Describes one name.
pub(crate) fn describe(args: &DescribeArgs, global: &GlobalArgs, printer: &Printer) -> Result<Exit> {
    let document = if args.live { connection::discover(&args.client, global)? } else { document::document() };
    let subject = Subject::find(&document, &args.name, args.kind).ok_or_else(|| unknown(&document, args))?;
    if printer.is_json() {
        printer.json(&subject.json(&document))?;
    } else {
        printer.line(subject.text(&document, printer).trim_end())?;
    }
    Ok(Exit::Ok)
}

/// What a name stands for.
#[derive(Debug)]
enum Subject<'a> {
    Method { name: &'a str, entry: &'a Value, also_event: bool },
    Event { name: &'a str, entry: &'a Value },
    Type { name: &'a str, schema: &'a Value },
}

impl<'a> Subject<'a> {
    /// What `name` stands for; a method before an event before a type, unless `kind` says which.
    fn find(document: &'a Value, name: &'a str, kind: Option<KindArg>) -> Option<Self> {
        let wanted = |this| kind.is_none_or(|kind| kind == this);
        let event = event(document, name);
        if wanted(KindArg::Method)
            && let Some(entry) = method::entry(document, name)
        {
            return Some(Self::Method { name, entry, also_event: event.is_some() });
        }
        if wanted(KindArg::Event)
            && let Some(entry) = event
        {
            return Some(Self::Event { name, entry });
        }
        let schema = document["components"]["schemas"].get(name).filter(|_| wanted(KindArg::Type))?;
        Some(Self::Type { name, schema })
    }

    /// The declaration, with the schemas and errors that it refers to, so that it stands on its own.
    fn json(&self, document: &Value) -> Value {
        let (kind, name, entry) = match self {
            Self::Method { name, entry, .. } => ("method", name, entry),
            Self::Event { name, entry } => ("event", name, entry),
            Self::Type { name, schema } => ("type", name, schema),
        };
        let mut references = BTreeSet::new();
        collect_references(entry, document, &mut references);
        let mut components = Map::new();
        for section in ["schemas", "errors"] {
            let prefix = format!("#/components/{section}/");
            let members: Map<String, Value> = references
                .iter()
                .filter_map(|reference| reference.strip_prefix(&prefix))
                .map(|member| (member.to_owned(), document["components"][section][member].clone()))
                .collect();
            components.insert(section.to_owned(), Value::Object(members));
        }
        json!({ "kind": kind, "name": name, kind: entry, "components": components })
    }

    fn text(&self, document: &Value, printer: &Printer) -> String {
        let mut page = Page { out: String::new(), document, printer, width: printer.width() };
        match self {
            Self::Method { name, entry, also_event } => page.method(name, entry, *also_event),
            Self::Event { name, entry } => page.event(name, entry),
            Self::Type { name, schema } => page.declaration(name, schema),
        }
        page.out
    }
}

fn event<'a>(document: &'a Value, name: &str) -> Option<&'a Value> {
    document["x-events"].as_array()?.iter().find(|event| event["name"] == name)
}

fn unknown(document: &Value, args: &DescribeArgs) -> CliError {
    let kind = match args.kind {
        Some(KindArg::Method) => "method",
        Some(KindArg::Event) => "event",
        Some(KindArg::Type) => "type",
        None => "method, event or type",
    };
    let events =
        document["x-events"].as_array().into_iter().flatten().filter_map(|event| event["name"].as_str());
    let types =
        document["components"]["schemas"].as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    let names: Vec<&str> = method::names(document).chain(events).chain(types).collect();
    let mut error = CliError::usage(format!("no {kind} is called `{}`", args.name));
    error.code = "NOT_FOUND".into();
    if let Some(nearest) = problem::nearest(&args.name, names) {
        error = error.hint(format!("did you mean `{nearest}`?")).detail("nearest", nearest);
    }
    if args.live { error } else { error.hint("`--live` asks the gateway, which may serve more") }
}

/// Adds every reference that is reachable from `value`.
fn collect_references(value: &Value, document: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            if let Some(reference) = members.get("$ref").and_then(Value::as_str)
                && found.insert(reference.to_owned())
                && let Some(target) =
                    reference.strip_prefix('#').and_then(|pointer| document.pointer(pointer))
            {
                collect_references(target, document, found);
            }
            members.values().for_each(|member| collect_references(member, document, found));
        }
        Value::Array(items) => items.iter().for_each(|item| collect_references(item, document, found)),
        _ => {}
    }
}

/// A description in the making.
struct Page<'a> {
    out: String,
    document: &'a Value,
    printer: &'a Printer,
    width: usize,
}

impl Page<'_> {
    fn method(&mut self, name: &str, entry: &Value, also_event: bool) {
        self.title(name, entry["summary"].as_str());
        if let Some(description) = entry["description"].as_str() {
            self.line("");
            self.paragraphs(description, 0);
        }
        let yes = |value: &Value| if *value == true { "yes" } else { "no" };
        let mut facts = vec![
            ("Group", entry["tags"][0]["name"].as_str().unwrap_or_default().to_owned()),
            ("Scope", entry["x-scope"].as_str().unwrap_or_default().to_owned()),
            ("Since", entry["x-since"].as_str().unwrap_or_default().to_owned()),
            ("Idempotent", yes(&entry["x-idempotent"]).to_owned()),
        ];
        if entry["deprecated"] == true {
            facts.push(("Deprecated", "yes".to_owned()));
        }
        let two_phase = &entry["x-two-phase"];
        if let Some(wait) = two_phase["wait"].as_str() {
            facts.push((
                "Outcome",
                format!("{}, from `{wait}` or with `--expect-final`", type_text(&two_phase["outcome"])),
            ));
        }
        let subscription = &entry["x-subscription"];
        if let Some(notification) = subscription["notification"].as_str() {
            facts.push(("Sends", format!("{} in `{notification}`", type_text(&subscription["item"]))));
            facts.push(("Ended by", subscription["unsubscribe"].as_str().unwrap_or_default().to_owned()));
        }
        self.facts(&facts);
        let params = &entry["x-params-schema"];
        self.section(&format!("Params: {}", type_text(params)));
        self.fields(params, "none");
        let result = &entry["result"]["schema"];
        self.section(&format!("Result: {}", type_text(result)));
        self.fields(result, "");
        if two_phase.is_object() {
            let outcome = &two_phase["outcome"];
            self.section(&format!("Outcome: {}", type_text(outcome)));
            self.fields(outcome, "");
        }
        if subscription.is_object() {
            let item = &subscription["item"];
            self.section(&format!("Item: {}", type_text(item)));
            self.fields(item, "");
        }
        self.section("Errors");
        for code in method::codes(entry) {
            let error = &self.document["components"]["errors"][code];
            let line = format!("  {} ({})", self.printer.styled(LITERAL, &printable(code)), error["code"]);
            self.line(&line);
            self.paragraphs(error["message"].as_str().unwrap_or_default(), 6);
        }
        // Flags that would be taken in the real command line are shown as they would be there.
        let call = crate::command();
        let call = call.find_subcommand("gateway").and_then(|gateway| gateway.find_subcommand("call"));
        let call = call.expect("the tree has `gateway call`");
        if let Some(method) = Method::of_document(self.document, name, call)
            && !method.subscription
        {
            self.section("Examples");
            for (name, line) in method.examples(entry) {
                self.line(&self.printer.styled(DIM, &printable(&format!("  # {name}"))));
                self.line(&format!("  {}", printable(&line)));
            }
        }
        if also_event {
            self.line("");
            self.paragraphs(
                &format!("There is also an event: `openclaw gateway describe {name} --kind event`."),
                0,
            );
        }
    }

    fn event(&mut self, name: &str, entry: &Value) {
        self.title(name, entry["summary"].as_str());
        self.paragraphs(entry["cadence"].as_str().unwrap_or_default(), 0);
        self.facts(&[
            ("Scope", entry["scope"].as_str().unwrap_or_default().to_owned()),
            ("Since", entry["since"].as_str().unwrap_or_default().to_owned()),
        ]);
        let payload = &entry["payload"]["schema"];
        self.section(&format!("Payload: {}", type_text(payload)));
        self.fields(payload, "none");
        self.section("Example");
        let example = serde_json::to_string_pretty(&entry["example"]).expect("a JSON value serialises");
        for line in example.lines() {
            self.line(&format!("  {}", printable(line)));
        }
    }

    fn declaration(&mut self, name: &str, schema: &Value) {
        self.title(name, None);
        self.paragraphs(schema["description"].as_str().unwrap_or_default(), 0);
        self.line("");
        self.fields(schema, &type_text(&without_description(schema)));
    }

    fn title(&mut self, name: &str, summary: Option<&str>) {
        let title = self.printer.styled(HEADING, &printable(name));
        self.line(&title);
        self.paragraphs(summary.unwrap_or_default(), 0);
    }

    fn section(&mut self, title: &str) {
        let title = self.printer.styled(HEADING, &printable(title));
        self.line("");
        self.line(&title);
    }

    fn facts(&mut self, facts: &[(&str, String)]) {
        self.line("");
        for (name, fact) in facts {
            self.line(&format!("{name:<12}{}", printable(fact)));
        }
    }

    /// The fields of an object or the values of an enumeration; `otherwise` when there are none.
    fn fields(&mut self, schema: &Value, otherwise: &str) {
        let schema = flags::resolved(schema, self.document);
        let required: Vec<&str> =
            schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let mut any = false;
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            any = true;
            let mark = if required.contains(&name.as_str()) { ", required" } else { "" };
            let name = self.printer.styled(LITERAL, &printable(name));
            let kind = self.printer.styled(DIM, &printable(&format!("{}{mark}", type_text(field))));
            self.line(&format!("  {name}  {kind}"));
            self.paragraphs(field["description"].as_str().unwrap_or_default(), 6);
        }
        for value in
            schema["oneOf"].as_array().into_iter().flatten().filter(|value| value["const"].is_string())
        {
            any = true;
            let name = self.printer.styled(LITERAL, &printable(&value["const"].to_string()));
            self.line(&format!("  {name}"));
            self.paragraphs(value["description"].as_str().unwrap_or_default(), 6);
        }
        if !any && !otherwise.is_empty() {
            self.line(&format!("  {}", printable(otherwise)));
        }
    }

    fn paragraphs(&mut self, text: &str, indent: usize) {
        if !text.is_empty() {
            let text = wrapped(&printable(text), indent, self.width);
            self.line(&text);
        }
    }

    fn line(&mut self, text: &str) {
        self.out.push_str(text);
        self.out.push('\n');
    }
}

fn without_description(schema: &Value) -> Value {
    let mut schema = schema.clone();
    if let Some(schema) = schema.as_object_mut() {
        schema.remove("description");
    }
    schema
}

/// A schema in words: a name, or what it is.
fn type_text(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        return reference.rsplit('/').next().unwrap_or(reference).to_owned();
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        if let Some(options) = schema[key].as_array() {
            return options.iter().map(type_text).collect::<Vec<_>>().join(" | ");
        }
    }
    if let Some(value) = schema.get("const") {
        return value.to_string();
    }
    if let Some(values) = schema["enum"].as_array() {
        return values.iter().map(Value::to_string).collect::<Vec<_>>().join(" | ");
    }
    let kind = match &schema["type"] {
        Value::String(name) => name.clone(),
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" | "),
        _ => "any JSON".to_owned(),
    };
    if kind == "array" && schema["items"].is_object() {
        return format!("array of {}", type_text(&schema["items"]));
    }
    match flags::bounds(schema) {
        bounds if bounds.is_empty() => kind,
        bounds => format!("{kind}, {bounds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str) -> String {
        let document = document::document();
        let subject = Subject::find(&document, name, None).expect("the contract has the name");
        subject.text(&document, &Printer::new(false, true))
    }

    #[test]
    fn a_method_is_described_in_full() {
        let text = text("logs.tail");
        for part in [
            "Reads the end of the gateway's log.",
            "Scope       operator.read",
            "  limit  integer, 1 to 5000",
            "Params: LogsTailParams",
            "Result: LogsTailResult",
            "  lines  array of string, required",
            "INVALID_PARAMS (-32602)",
            "  openclaw gateway call logs.tail --since-ms 60000",
        ] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
    }

    #[test]
    fn every_name_of_the_document_has_a_text_and_a_json() {
        let document = document::document();
        let types = document["components"]["schemas"].as_object().expect("there are types").keys();
        let events = document["x-events"].as_array().expect("there are events").iter();
        let events = events.filter_map(|event| event["name"].as_str());
        let names = method::names(&document).chain(events).chain(types.map(String::as_str));
        for name in names {
            assert!(text(name).len() > name.len() + 10, "{name} has no text");
            let subject = Subject::find(&document, name, None).expect("the document has the name");
            let json = subject.json(&document);
            let mut references = BTreeSet::new();
            collect_references(&json, &json, &mut references);
            for reference in references {
                assert!(
                    json.pointer(&reference[1..]).is_some_and(|target| !target.is_null()),
                    "{name}: {reference}"
                );
            }
        }
    }

    #[test]
    fn an_event_that_shares_its_name_with_a_method_is_reached_by_kind() {
        let document = document::document();
        assert!(matches!(
            Subject::find(&document, "health", None),
            Some(Subject::Method { also_event: true, .. })
        ));
        let event = Subject::find(&document, "health", Some(KindArg::Event));
        assert!(matches!(event, Some(Subject::Event { .. })));
        assert!(Subject::find(&document, "logs.tail", Some(KindArg::Event)).is_none());
    }
}
