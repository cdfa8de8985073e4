//! `completion`: the script for a shell, and what the shell is offered.
//!
//! The script asks this program at every completion (clap_complete's dynamic engine), so that it never gets
//! old, and knows the flags of the method that is being typed.

use std::{env, ffi::OsString};

use clap::{Command, builder::PossibleValuesParser};
use clap_complete::{CompletionCandidate, env::Shells};
use openclaw_schema::{
    config::keys::{self, Key},
    document,
    events::EVENTS,
    methods as contract,
};

use crate::{
    args::CompletionArgs,
    argv,
    error::{CliError, Result},
    exit::Exit,
    method::Method,
    output::Printer,
};

/// The variable by which the scripts ask; its value is the shell.
pub(crate) const VARIABLE: &str = "COMPLETE";

/// Writes the script.
pub(crate) fn completion(args: &CompletionArgs, printer: &Printer) -> Result<Exit> {
    let shells = Shells::builtins();
    let shell = shells.completer(&args.shell).expect("clap allows only the names of these shells");
    let mut script = Vec::new();
    shell
        .write_registration(VARIABLE, "openclaw", "openclaw", "openclaw", &mut script)
        .map_err(|error| CliError::usage("the completion script cannot be made").cause(error))?;
    printer.line(String::from_utf8_lossy(&script).trim_end())?;
    Ok(Exit::Ok)
}

/// The names of the shells.
pub(crate) fn shells() -> PossibleValuesParser {
    PossibleValuesParser::new(Shells::builtins().names().collect::<Vec<_>>())
}

/// The tree for what is being completed: with the flags of the method, if one is named.
pub(crate) fn tree() -> Command {
    let words: Vec<OsString> = env::args_os().skip_while(|word| word != "--").skip(1).collect();
    tree_for(words)
}

fn tree_for(words: Vec<OsString>) -> Command {
    let tree = crate::command();
    let scan = argv::scan(words, &tree, |name| contract::find(name).is_some());
    match scan.call.and_then(|call| contract::find(&call.method?)) {
        Some(record) => crate::with_call(tree, |call| Method::of_record(record, &call).add_flags(call)),
        None => tree,
    }
}

/// The methods, for `call`.
pub(crate) fn methods() -> Vec<CompletionCandidate> {
    contract::all().map(|record| candidate(record.name, record.summary)).collect()
}

/// Keys of the configuration, for `config get` and `config explain`.
pub(crate) fn config_keys() -> Vec<CompletionCandidate> {
    let schema = keys::schema();
    let leaves = Key::root(&schema).leaves();
    let named = leaves.iter().filter(|(path, _)| path.iter().all(|part| part != "*" && part != "[]"));
    named.map(|(path, key)| candidate(&keys::joined(path), key.description())).collect()
}

/// Methods, events and types, for `describe`.
pub(crate) fn names() -> Vec<CompletionCandidate> {
    let document = document::document();
    let types = document["components"]["schemas"].as_object().into_iter().flatten();
    let types = types.map(|(name, schema)| {
        let text = schema["description"].as_str().unwrap_or_default();
        candidate(name, text.split("\n\n").next().unwrap_or_default())
    });
    // An event that shares its name with a method is offered once.
    let events = EVENTS.iter().filter(|event| contract::find(event.name).is_none());
    methods()
        .into_iter()
        .chain(events.map(|event| candidate(event.name, event.summary)))
        .chain(types)
        .collect()
}

fn candidate(name: &str, text: &str) -> CompletionCandidate {
    CompletionCandidate::new(name).help(Some(text.replace('\n', " ").into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(line: &str) -> Vec<String> {
        let tree = tree_for(line.split_whitespace().map(OsString::from).collect());
        let gateway = tree.find_subcommand("gateway").expect("there is `gateway`");
        let call = gateway.find_subcommand("call").expect("there is `call`");
        call.get_arguments().filter_map(clap::Arg::get_long).map(str::to_owned).collect()
    }

    #[test]
    fn flags_of_the_method_being_typed_are_offered() {
        assert!(flags("openclaw gateway call logs.tail --si").contains(&"since-ms".to_owned()));
        assert!(!flags("openclaw gateway call").contains(&"since-ms".to_owned()));
    }

    #[test]
    fn every_method_event_and_type_is_offered_once() {
        let mut names: Vec<_> = names().iter().map(|name| name.get_value().to_owned()).collect();
        assert!(
            ["logs.tail", "tick", "LogsTailResult"].iter().all(|name| names.contains(&OsString::from(name)))
        );
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
