//! What the command line knows about one method, whether from this program's contract or from the document of
//! a running gateway: its typed flags, and the text of `gateway call <method> --help`.

use clap::Command;
use openclaw_schema::{contract::MethodRecord, document};
use serde_json::{Map, Value};

use crate::flags::{Fields, quoted};

/// One method.
#[derive(Debug)]
pub(crate) struct Method {
    name: String,
    pub(crate) fields: Fields,
    /// The method that delivers the outcome, if this one answers in two phases.
    pub(crate) wait: Option<String>,
    /// Whether it waits by design, for as long as its params say.
    pub(crate) long_poll: bool,
    /// Whether it starts a subscription instead of answering once.
    pub(crate) subscription: bool,
}

impl Method {
    /// The method of a record. Cheap: only the schema of its params is made.
    pub(crate) fn of_record(record: &MethodRecord, call: &Command) -> Self {
        let schema = document::params_schema(record);
        Self {
            name: record.name.to_owned(),
            fields: Fields::new(&schema, &schema, |flag| is_taken(call, flag)),
            wait: record.two_phase.map(|two_phase| two_phase.wait.to_owned()),
            long_poll: record.long_poll,
            subscription: record.subscription.is_some(),
        }
    }

    /// The method of that name in an OpenRPC document.
    pub(crate) fn of_document(document: &Value, name: &str, call: &Command) -> Option<Self> {
        let entry = entry(document, name)?;
        Some(Self {
            name: name.to_owned(),
            fields: Fields::new(&entry["x-params-schema"], document, |flag| is_taken(call, flag)),
            wait: entry["x-two-phase"]["wait"].as_str().map(str::to_owned),
            long_poll: entry["x-long-poll"] == true,
            subscription: entry["x-subscription"].is_object(),
        })
    }

    /// Adds the flags to the `call` command.
    pub(crate) fn add_flags(&self, call: Command) -> Command {
        call.args(self.fields.args(&self.name))
    }

    /// A `call` command whose help is that of this method, from its entry in an OpenRPC document. It is good for
    /// showing help and for nothing else.
    pub(crate) fn help(&self, call: &Command, entry: &Value) -> Command {
        let text = |key: &str| entry[key].as_str().unwrap_or_default();
        let mut about = text("summary").to_owned();
        if let Some(description) = entry["description"].as_str() {
            about.push_str("\n\n");
            about.push_str(&unwrapped(description));
        }
        let errors: Vec<&str> = codes(entry).collect();
        let mut after = format!("Scope: {}", text("x-scope"));
        if !errors.is_empty() {
            after.push_str(&format!("\nErrors: {}", errors.join(", ")));
        }
        let examples = self.examples(entry);
        if !examples.is_empty() {
            after.push_str("\n\nExamples:");
            for (name, line) in examples {
                after.push_str(&format!("\n  # {name}\n  {line}"));
            }
        }
        // The method is chosen: its help needs no line about how to name one, and begins with its fields.
        let others = call.get_arguments().filter(|arg| arg.get_id() != "method").cloned();
        Command::new(call.get_name().to_owned())
            .about(text("summary").to_owned())
            .long_about(about)
            .after_help(after)
            .override_usage(format!("openclaw gateway call {} [NAME=VALUE]... [OPTIONS]", self.name))
            .args(self.fields.args(&self.name))
            .args(others)
    }

    /// The examples of an entry: what each shows, and the command line.
    pub(crate) fn examples(&self, entry: &Value) -> Vec<(String, String)> {
        let examples = entry["examples"].as_array().into_iter().flatten();
        examples
            .map(|example| {
                let params: Map<String, Value> = example["params"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|param| Some((param["name"].as_str()?.to_owned(), param["value"].clone())))
                    .collect();
                let typed = self.fields.typed(&params);
                let line = format!("openclaw gateway call {} {typed}", quoted(&self.name));
                (example["name"].as_str().unwrap_or_default().to_owned(), line.trim_end().to_owned())
            })
            .collect()
    }
}

/// The method's entry in an OpenRPC document.
pub(crate) fn entry<'a>(document: &'a Value, name: &str) -> Option<&'a Value> {
    document["methods"].as_array()?.iter().find(|method| method["name"] == name)
}

/// The names of the methods in an OpenRPC document.
pub(crate) fn names(document: &Value) -> impl Iterator<Item = &str> {
    document["methods"].as_array().into_iter().flatten().filter_map(|method| method["name"].as_str())
}

/// The string codes of the errors that an entry names.
pub(crate) fn codes(entry: &Value) -> impl Iterator<Item = &str> {
    let errors = entry["errors"].as_array().into_iter().flatten();
    errors.filter_map(|error| error["$ref"].as_str()?.rsplit('/').next())
}

/// Markdown whose lines may be wrapped anew: single line ends become blanks.
fn unwrapped(text: &str) -> String {
    let paragraphs =
        text.split("\n\n").map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "));
    paragraphs.collect::<Vec<_>>().join("\n\n")
}

/// Whether a flag is an option of the `call` command, or one of every command.
fn is_taken(call: &Command, flag: &str) -> bool {
    // Those of the root and of clap reach `call` only while it parses.
    ["dev", "profile", "no-color", "log-level", "help", "version"].contains(&flag)
        || call.get_arguments().any(|arg| arg.get_long() == Some(flag))
}

#[cfg(test)]
mod tests {
    use openclaw_schema::methods;

    use super::*;

    fn call() -> Command {
        let tree = crate::command();
        let gateway = tree.find_subcommand("gateway").expect("there is `gateway`");
        gateway.find_subcommand("call").expect("there is `call`").clone()
    }

    #[test]
    fn no_flag_of_a_method_hides_an_option() {
        for record in methods::all() {
            // clap asserts that no two arguments share a flag.
            Method::of_record(record, &call()).add_flags(call()).debug_assert();
        }
    }

    #[test]
    fn every_option_of_the_root_counts_as_taken() {
        let tree = crate::command();
        for arg in tree.get_arguments().filter_map(clap::Arg::get_long) {
            assert!(is_taken(&call(), arg), "--{arg} is an option of the root");
        }
    }

    #[test]
    fn record_and_document_tell_the_same() {
        let document = document::document();
        for record in methods::all() {
            let one = Method::of_record(record, &call());
            let other = Method::of_document(&document, record.name, &call()).expect("it is in the document");
            let flags = |method: &Method| {
                method.fields.iter().map(|f| (f.flag.clone(), f.value_name(), f.required)).collect::<Vec<_>>()
            };
            assert_eq!(flags(&one), flags(&other), "{}", record.name);
            assert_eq!(
                (&one.wait, one.long_poll, one.subscription),
                (&other.wait, other.long_poll, other.subscription)
            );
        }
    }
}
