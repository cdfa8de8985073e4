//! `gateway config set` and `unset`: one key of the configuration file, the rest left as it is.

use std::{fs, io::Read as _};

use openclaw_gateway::{
    config::{Edit, EditError, EditOptions, Edited, KeyPath, edit_file},
    state::RuntimeRecord,
};
use serde_json::{Value, json};

use crate::{
    args::{ConfigEditArgs, ConfigSetArgs, ConfigUnsetArgs, GlobalArgs},
    commands::run::misconfigured,
    error::{CliError, Fault, Result},
    exit::Exit,
    output::Printer,
    settings::surroundings,
};

/// Puts a value into the file.
pub(crate) fn set(args: &ConfigSetArgs, global: &GlobalArgs, printer: &Printer) -> Result<Exit> {
    let path = key_path(&args.path)?;
    let text = match (&args.value, &args.value_file) {
        (Some(value), _) => value.clone(),
        (None, Some(file)) => without_line_end(fs::read_to_string(file).map_err(|error| {
            CliError::usage(format!("the value cannot be read from `{}`", file.display())).cause(error)
        })?),
        (None, None) => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map_err(|error| {
                CliError::usage("the value cannot be read from standard input").cause(error)
            })?;
            without_line_end(text)
        }
    };
    let value = if args.string {
        Value::String(text)
    } else if args.strict_json {
        serde_json::from_str(&text).map_err(|error| CliError::usage("the value is not JSON").cause(error))?
    } else {
        loose(text)
    };
    make(&Edit::Set(path, value), &args.path, &args.edit, global, printer)
}

/// Takes a value out of the file.
pub(crate) fn unset(args: &ConfigUnsetArgs, global: &GlobalArgs, printer: &Printer) -> Result<Exit> {
    make(&Edit::Unset(key_path(&args.path)?), &args.path, &args.edit, global, printer)
}

fn key_path(text: &str) -> Result<KeyPath> {
    text.parse().map_err(|error: EditError| refused(&error).into())
}

fn without_line_end(mut text: String) -> String {
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    text
}

/// JSON5, or else the text as it stands: also where a number would not say all of it.
fn loose(text: String) -> Value {
    match json5_value(&text) {
        Some(Value::Null) if text.trim() != "null" => Value::String(text),
        Some(Value::Number(number)) if is_whole(&text) && number.to_string() != text.trim() => {
            Value::String(text)
        }
        Some(value) => value,
        None => Value::String(text),
    }
}

fn json5_value(text: &str) -> Option<Value> {
    if text.trim().is_empty() { None } else { openclaw_gateway::config::parse_value(text) }
}

fn is_whole(text: &str) -> bool {
    text.trim().bytes().all(|byte| byte.is_ascii_digit())
}

fn make(
    edit: &Edit,
    key: &str,
    args: &ConfigEditArgs,
    global: &GlobalArgs,
    printer: &Printer,
) -> Result<Exit> {
    let (env, locations) = surroundings(global).map_err(|error| misconfigured(&error))?;
    let options = EditOptions { dry_run: args.dry_run, rewrite: args.rewrite };
    let edited = edit_file(&locations, &env, edit, options).map_err(|error| refused(&error))?;
    let file = locations.config_file().display().to_string();
    let running = RuntimeRecord::read(locations.state());
    if printer.is_json() {
        printer.json(&json!({
            "ok": true,
            "file": file,
            "key": key,
            "changed": edited.saved.changed,
            "dryRun": args.dry_run,
            "rewritten": edited.rewritten,
            "backup": edited.saved.backup,
            "applied": edited.effect.applied,
            "waitsForRestart": edited.effect.waits_for_restart,
            "runningPid": running.map(|record| record.pid),
            "warnings": edited.warnings,
        }))?;
        return Ok(Exit::Ok);
    }
    let word = match (edit, edited.saved.changed, args.dry_run) {
        (_, false, _) => "no change:",
        (Edit::Set(..), true, false) => "set:",
        (Edit::Set(..), true, true) => "would be set:",
        (Edit::Unset(_), true, false) => "unset:",
        (Edit::Unset(_), true, true) => "would be unset:",
    };
    printer.line(&format!("{word} {key} in {file}"))?;
    for warning in &edited.warnings {
        printer.note(&format!("warning: {warning}"));
    }
    if edited.saved.changed && !args.dry_run {
        tell_effect(&edited, running.as_ref(), global, printer);
    }
    Ok(Exit::Ok)
}

/// What becomes of the change in a gateway that runs.
fn tell_effect(edited: &Edited, running: Option<&RuntimeRecord>, global: &GlobalArgs, printer: &Printer) {
    if edited.rewritten {
        printer.note("the file was written anew as plain JSON, without its comments");
    }
    let Some(record) = running else { return };
    let effect = &edited.effect;
    if !effect.waits_for_restart.is_empty() {
        printer.note(&format!(
            "the gateway that runs (pid {}) needs a restart for it: `{}`",
            record.pid,
            global.command("gateway call gateway.restart.request")
        ));
    } else if !effect.applied.is_empty() {
        printer.note(&format!("the gateway that runs (pid {}) takes it over by itself", record.pid));
    }
}

/// Why nothing was written.
fn refused(error: &EditError) -> CliError {
    let (code, exit) = match error {
        EditError::Config(error) => return misconfigured(error),
        EditError::Path { .. }
        | EditError::NoContainer { .. }
        | EditError::NoPlace { .. }
        | EditError::Hidden => ("USAGE", Exit::Usage),
        EditError::Missing { .. } => ("NOT_FOUND", Exit::Refused),
        EditError::Rewrites { .. } => ("CONFIG_NOT_EDITABLE", Exit::Refused),
        _ => ("CONFIG_NOT_WRITTEN", Exit::Refused),
    };
    let told = CliError::new(Fault::Cli, code, exit, error.to_string()).with_sources(error);
    match error.hint() {
        Some(hint) => told.hint(hint),
        None => told,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_json5_or_else_a_text() {
        for (text, value) in [
            ("19001", json!(19001)),
            ("true", json!(true)),
            ("null", json!(null)),
            ("debug", json!("debug")),
            ("'12'", json!("12")),
            ("{a: [1,],}", json!({ "a": [1] })),
            ("", json!("")),
            ("openai/gpt-6-astra", json!("openai/gpt-6-astra")),
            ("49123456789012345678901", json!("49123456789012345678901")),
            ("007", json!("007")),
            ("Infinity", json!("Infinity")),
            ("{a: ", json!("{a: ")),
        ] {
            assert_eq!(loose(text.to_owned()), value, "{text}");
        }
    }
}
