//! `schema/METHODS.md`: the method reference, from the model alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use serde_json::{Value, json};

use crate::{
    markdown::{cell, code, header, table},
    model::{Api, Event, Field, Method, Shape, Type, TypeDef},
    output::{Files, RelativePath},
};

/// The reference of `api`.
#[must_use]
pub fn emit(api: &Api) -> Files {
    let page = Page { api, homes: homes(api) };
    Files::from([(RelativePath::new("schema/METHODS.md"), page.render())])
}

/// Params and results are told with the method they belong to; all other types in a section of their own.
/// Each such type with its method.
fn homes(api: &Api) -> BTreeMap<&str, &str> {
    let mut homes = BTreeMap::new();
    for method in &api.methods {
        if !method.params.is_empty() {
            homes.entry(method.params_type.as_str()).or_insert(method.name.as_str());
        }
        if let Type::Named(name) = &method.result
            && api.fields(&method.result).is_some()
        {
            homes.entry(name).or_insert(&method.name);
        }
    }
    homes
}

struct Page<'a> {
    api: &'a Api,
    homes: BTreeMap<&'a str, &'a str>,
}

impl Page<'_> {
    fn render(&self) -> String {
        let api = self.api;
        let mut page = header("the contract in `schema/src/`");
        let _ = write!(
            page,
            "# Method reference\n\nContract of the {}, version {}.\n{}\n\n",
            api.title, api.version, api.description
        );
        page.push_str("Contents: [methods](#methods) · [how calls work](#how-calls-work) · ");
        for group in self.groups() {
            let _ = write!(page, "[{group}](#group-{}) · ", anchor(group));
        }
        page.push_str("[events](#section-events) · [errors](#section-errors) · [scopes](#section-scopes) · [types](#section-types)\n\n");
        page.push_str("## Methods\n\n");
        let rows: Vec<Vec<String>> = api
            .methods
            .iter()
            .map(|method| vec![method_link(&method.name), code(&method.scope), cell(&method.summary)])
            .collect();
        page.push_str(&table(&["Method", "Scope", "Summary"], &rows));
        page.push_str(CALLS);
        for group in self.groups() {
            let _ = write!(page, "{}## {group}\n\n", mark("group", &anchor(group)));
            for method in api.methods.iter().filter(|method| method.group == group) {
                self.method(&mut page, method);
            }
        }
        self.events(&mut page);
        self.errors(&mut page);
        self.scopes(&mut page);
        self.types(&mut page);
        page.truncate(page.trim_end().len());
        page.push('\n');
        page
    }

    /// The headings of namespaces, sorted.
    fn groups(&self) -> BTreeSet<&str> {
        self.api.methods.iter().map(|method| method.group.as_str()).collect()
    }

    fn method(&self, page: &mut String, method: &Method) {
        let _ =
            write!(page, "{}### `{}`\n\n{}\n\n", mark("method", &method.name), method.name, method.summary);
        if method.deprecated {
            page.push_str("**Deprecated.** New callers should use something else.\n\n");
        }
        if !method.description.is_empty() {
            let _ = write!(page, "{}\n\n", method.description);
        }
        let mut facts = vec![
            format!("Scope: {}", self.scope_link(&method.scope)),
            format!("Since: {}", method.since),
            format!("Idempotent: {}", if method.idempotent { "yes, may be retried" } else { "no" }),
        ];
        if method.long_poll {
            facts.push("Long poll: bounded by its own params, not by the gateway's call timeout".to_owned());
        }
        if let Some(two_phase) = &method.two_phase {
            facts.push(format!(
                "[Two-phase](#two-phase-methods): the result is an acknowledgement; the outcome is {}, field `final` of the result of {}",
                self.ty(&two_phase.outcome),
                method_link(&two_phase.wait)
            ));
        }
        if let Some(subscription) = &method.subscription {
            facts.push(format!(
                "[Subscription](#subscriptions): sends notifications `{}`, each with {}; ended by `{}`",
                subscription.notification,
                self.ty(&subscription.item),
                subscription.unsubscribe
            ));
        }
        for fact in facts {
            let _ = writeln!(page, "- {fact}");
        }
        page.push('\n');

        if method.params.is_empty() {
            page.push_str("**Params**: none, `{}`.\n\n");
        } else {
            self.home(page, &method.params_type, &method.name);
            page.push_str("**Params**\n\n");
            page.push_str(&self.fields(&method.params));
        }
        let label = match (&method.two_phase, &method.subscription) {
            (Some(_), _) => "Acknowledgement",
            (None, Some(_)) => "Result (the subscription's id)",
            (None, None) => "Result",
        };
        if let Type::Named(name) = &method.result
            && self.homes.get(name.as_str()) == Some(&method.name.as_str())
        {
            self.home(page, name, &method.name);
            let def = &self.api.types[name];
            let _ = write!(page, "**{label}**: `{name}`\n\n{}\n\n", def.description);
            page.push_str(&self.fields(self.api.fields(&method.result).unwrap_or_default()));
        } else {
            let _ = write!(page, "**{label}**: {}\n\n", self.ty(&method.result));
        }
        let errors: Vec<String> = method.errors.iter().map(|name| error_link(name)).collect();
        let _ = write!(page, "**Errors**: {}\n\n", errors.join(", "));

        for example in &method.examples {
            let request = request(&method.name, &example.params);
            let response = json!({ "jsonrpc": "2.0", "id": 1, "result": example.result });
            exchange(page, "Example", &example.name, &request, &response);
        }
        for example in &method.error_examples {
            let request = request(&method.name, &example.params);
            let response = json!({ "jsonrpc": "2.0", "id": 1, "error": example.error });
            exchange(page, "Refused", &example.name, &request, &response);
        }
    }

    /// The anchor of a type that is told with this method.
    fn home(&self, page: &mut String, ty: &str, method: &str) {
        if self.homes.get(ty) == Some(&method) {
            page.push_str(&mark("type", ty));
        }
    }

    fn events(&self, page: &mut String) {
        page.push_str("<a id=\"section-events\"></a>\n\n## Events and their payloads\n\nA caller receives events after `events.subscribe`. An event that asks for a scope is sent to holders of that scope alone.\n\n");
        let rows: Vec<Vec<String>> = self
            .api
            .events
            .iter()
            .map(|event| {
                let link = format!("[`{0}`](#event-{0})", event.name);
                vec![link, self.scope_link(&event.scope), self.ty(&event.payload), cell(&event.cadence)]
            })
            .collect();
        page.push_str(&table(&["Event", "Scope", "Payload", "When"], &rows));
        for event in &self.api.events {
            self.event(page, event);
        }
    }

    fn event(&self, page: &mut String, event: &Event) {
        let _ = write!(
            page,
            "{}### Event `{}`\n\n{}\n\n- Scope: {}\n- Since: {}\n- When: {}\n- Payload: {}\n\n{}",
            mark("event", &event.name),
            event.name,
            event.summary,
            self.scope_link(&event.scope),
            event.since,
            event.cadence,
            self.ty(&event.payload),
            block(&event.example)
        );
    }

    fn errors(&self, page: &mut String) {
        let _ = write!(
            page,
            "<a id=\"section-errors\"></a>\n\n## Errors\n\nAn error has a number (`code`), one sentence for people (`message`) and details (`data`): {}.\nMatch on `data.code`, not on the text.\nNumbers are never given to another error.\n\n",
            self.ty(&self.api.error_data)
        );
        let rows: Vec<Vec<String>> = self
            .api
            .errors
            .iter()
            .map(|error| {
                vec![
                    format!("<a id=\"error-{0}\"></a>`{0}`", error.name),
                    error.number.to_string(),
                    yes_no(error.retryable),
                    cell(&error.meaning),
                ]
            })
            .collect();
        page.push_str(&table(&["Code", "Number", "Retry may help", "Meaning"], &rows));
    }

    fn scopes(&self, page: &mut String) {
        let Some(TypeDef { description, shape: Shape::Enum(values) }) = self.api.types.get(SCOPE) else {
            return;
        };
        let _ = write!(page, "<a id=\"section-scopes\"></a>\n\n## Scopes\n\n{description}\n\n");
        let rows: Vec<Vec<String>> = values
            .iter()
            .map(|scope| {
                let methods = self.api.methods.iter().filter(|method| method.scope == scope.value);
                let links: Vec<String> = methods.map(|method| method_link(&method.name)).collect();
                vec![
                    format!("<a id=\"scope-{0}\"></a>`{0}`", scope.value),
                    cell(&scope.description),
                    links.join(", "),
                ]
            })
            .collect();
        page.push_str(&table(&["Scope", "Meaning", "Methods"], &rows));
    }

    fn types(&self, page: &mut String) {
        page.push_str("<a id=\"section-types\"></a>\n\n## Types\n\nTypes of params and results are told with their methods.\nResults and events may gain fields and values of enums: receivers must accept ones that they do not know.\nParams are closed.\n\n");
        for (name, def) in &self.api.types {
            let told = self.homes.contains_key(name.as_str());
            // Params of methods that take none, where there is nothing to tell.
            let empty = matches!(&def.shape, Shape::Object { fields, .. } if fields.is_empty());
            if told || empty {
                continue;
            }
            let _ = write!(page, "{}### `{name}`\n\n{}\n\n", mark("type", name), def.description);
            match &def.shape {
                Shape::Object { fields, .. } => page.push_str(&self.fields(fields)),
                Shape::Enum(values) => {
                    let rows: Vec<Vec<String>> = values
                        .iter()
                        .map(|value| vec![code(&json!(value.value).to_string()), cell(&value.description)])
                        .collect();
                    page.push_str(&table(&["Value", "Meaning"], &rows));
                }
                Shape::Union { tag, variants } => {
                    for variant in variants {
                        let _ = write!(
                            page,
                            "With `{tag}` {}: {}\n\n",
                            code(&json!(variant.value).to_string()),
                            variant.description
                        );
                        page.push_str(&self.fields(&variant.fields));
                    }
                }
                Shape::Either(types) => {
                    let types: Vec<String> = types.iter().map(|ty| self.bounded(ty)).collect();
                    let _ = write!(page, "Either {}.\n\n", types.join(" or "));
                }
                Shape::Alias(ty) => {
                    let _ = write!(page, "On the wire: {}.\n\n", self.bounded(ty));
                }
            }
        }
    }

    fn fields(&self, fields: &[Field]) -> String {
        let rows: Vec<Vec<String>> = fields
            .iter()
            .map(|field| {
                let mut ty = self.ty(&field.ty);
                if field.nullable {
                    ty.push_str(" or null");
                }
                let mut description = cell(&field.description);
                // What the description says in its own words is not said again for empty values.
                if let Some(default) = field.default.as_ref().filter(|default| says_something(default)) {
                    let _ = write!(description, " Default: {}.", cell(&code(&default.to_string())));
                }
                vec![code(&field.name), ty, self.bounds(&field.ty), yes_no(field.required), description]
            })
            .collect();
        table(&["Field", "Type", "Bounds", "Required", "Meaning"], &rows)
    }

    fn ty(&self, ty: &Type) -> String {
        match ty {
            Type::Any => "any JSON".to_owned(),
            Type::Boolean => "boolean".to_owned(),
            Type::Integer { .. } => "integer".to_owned(),
            Type::Number => "number".to_owned(),
            Type::Text { .. } => "string".to_owned(),
            Type::List { items, .. } => format!("list of {}", self.ty(items)),
            Type::Map(values) if **values == Type::Any => "object".to_owned(),
            Type::Map(values) => format!("object with values: {}", self.ty(values)),
            Type::Named(name) if name == SCOPE => format!("[`{name}`](#section-scopes)"),
            Type::Named(name) => format!("[`{name}`](#type-{name})"),
        }
    }

    /// The bounds of a value; empty when it has none.
    fn bounds(&self, ty: &Type) -> String {
        match ty {
            Type::Integer { minimum, maximum } => range(*minimum, *maximum, ""),
            Type::Text { min_length, max_length } => range(*min_length, *max_length, " characters"),
            Type::List { min_items, max_items, .. } => range(*min_items, *max_items, " items"),
            Type::Named(name) => match self.api.types.get(name).map(|def| &def.shape) {
                Some(Shape::Alias(ty)) => self.bounds(ty),
                _ => String::new(),
            },
            Type::Any | Type::Boolean | Type::Number | Type::Map(_) => String::new(),
        }
    }

    fn bounded(&self, ty: &Type) -> String {
        let bounds = self.bounds(ty);
        if bounds.is_empty() { self.ty(ty) } else { format!("{}, {bounds}", self.ty(ty)) }
    }

    fn scope_link(&self, scope: &str) -> String {
        if self.api.types.contains_key(SCOPE) { format!("[`{scope}`](#scope-{scope})") } else { code(scope) }
    }
}

/// The type whose values are the scopes.
const SCOPE: &str = "Scope";

/// How a call travels: what holds for every method.
const CALLS: &str = r#"<a id="how-calls-work"></a>

## How calls work

Calls are JSON-RPC 2.0, over a WebSocket or as the body of `POST /rpc`.
Both expect the header `Authorization: Bearer <token or password>`; a WebSocket client that cannot set headers calls [`connect`](#method-connect) first.
Params are always one object, by name. Fields that are not listed are refused, and so is an array.
A field that is not required is left out when it has no value; `null` is sent only where the type says so.

<a id="two-phase-methods"></a>

### Two-phase methods

A two-phase method answers at once with an acknowledgement, which carries `runId`.
The outcome comes later: call its wait method with `{"runId": …, "timeoutMs": …}`.
While the run goes on, the result of the wait method has no `final`: call it again.
Once the run has ended, `final` holds the outcome.

<a id="subscriptions"></a>

### Subscriptions

A subscription needs a WebSocket. Its result is an id.
Each item comes as a notification whose method the subscription names: `{"jsonrpc": "2.0", "method": …, "params": {"subscription": id, "result": item}}`.
It ends with the connection, or by a call of the method that the subscription names, with `{"subscription": id}`.
A client that does not read what it is sent is disconnected.

"#;

fn request(method: &str, params: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params })
}

fn exchange(page: &mut String, kind: &str, case: &str, request: &Value, response: &Value) {
    let _ = write!(page, "{kind}: {case}\n\n{}{}", block(request), block(response));
}

/// The longest line of JSON that is not spread over several.
const LINE_CHARS: usize = 100;

fn block(value: &Value) -> String {
    let line = value.to_string();
    let text = if line.chars().count() > LINE_CHARS { format!("{value:#}") } else { line };
    format!("```json\n{text}\n```\n\n")
}

fn method_link(name: &str) -> String {
    format!("[`{name}`](#method-{name})")
}

fn error_link(name: &str) -> String {
    format!("[`{name}`](#error-{name})")
}

/// An anchor on a line of its own: headings of code have no anchor one could foresee.
fn mark(kind: &str, name: &str) -> String {
    format!("<a id=\"{kind}-{name}\"></a>\n\n")
}

fn anchor(heading: &str) -> String {
    heading.to_lowercase().replace(' ', "-")
}

fn yes_no(yes: bool) -> String {
    if yes { "yes".to_owned() } else { "no".to_owned() }
}

fn says_something(default: &Value) -> bool {
    match default {
        Value::Null | Value::Object(_) => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_u64() != Some(0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
    }
}

fn range<N: std::fmt::Display + PartialEq>(least: Option<N>, most: Option<N>, unit: &str) -> String {
    match (least, most) {
        (Some(least), Some(most)) if least == most => format!("{least}{unit}"),
        (Some(least), Some(most)) => format!("{least} to {most}{unit}"),
        (Some(least), None) => format!("at least {least}{unit}"),
        (None, Some(most)) => format!("at most {most}{unit}"),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> String {
        let api = Api::read(&openclaw_schema::document::document()).expect("the core contract is understood");
        emit(&api).into_values().next().expect("one page")
    }

    #[test]
    fn every_link_within_the_page_leads_somewhere() {
        let page = page();
        let headings: BTreeSet<String> =
            page.lines().filter_map(|line| line.strip_prefix("## ")).map(anchor).collect();
        let mut links = 0;
        for link in page.split("](#").skip(1).filter_map(|rest| rest.split(')').next()) {
            links += 1;
            let marks = page.matches(&format!("<a id=\"{link}\"></a>")).count();
            assert!(marks == 1 || headings.contains(link), "#{link} has {marks} anchors");
        }
        assert!(links > 200, "only {links} links were found");
    }

    #[test]
    fn every_method_event_error_and_type_is_told_once() {
        let api = Api::read(&openclaw_schema::document::document()).expect("the core contract is understood");
        let page = page();
        let once = |text: &str| assert_eq!(page.matches(text).count(), 1, "{text}");
        api.methods.iter().for_each(|method| once(&format!("\n### `{}`\n", method.name)));
        api.events.iter().for_each(|event| once(&format!("\n### Event `{}`\n", event.name)));
        api.errors.iter().for_each(|error| once(&format!("<a id=\"error-{}\"></a>", error.name)));
        for name in api.types.keys().filter(|name| !["NoParams", "Scope"].contains(&name.as_str())) {
            once(&format!("<a id=\"type-{name}\"></a>"));
        }
    }

    #[test]
    fn a_field_is_told_with_its_bounds_and_default() {
        assert!(page().contains(
            "| `limit` | integer | 1 to 5000 | no | Keep at most this many lines, the last ones. 500 by default. |"
        ));
    }

    #[test]
    fn examples_are_json_rpc_text() {
        let page = page();
        assert!(page.contains(
            "```json\n{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"logs.tail\",\"params\":{\"sinceMs\":60000}}\n```"
        ));
        for text in page.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next()) {
            assert!(serde_json::from_str::<Value>(text).is_ok(), "{text}");
        }
    }
}
