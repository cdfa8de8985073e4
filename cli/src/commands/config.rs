//! `gateway config`: the configuration, read and checked here, changed in [`edit`]. No gateway is asked.

use openclaw_gateway::config::{
    Explained, Issue, Lost, Report, ServeOptions, Source, Unknown, View, check_config,
};
use openclaw_schema::config::keys::{self, Applies};
use serde_json::{Value, json};

use crate::{
    args::{ConfigCommand, ConfigExplainArgs, ConfigGetArgs, ConfigValidateArgs, GlobalArgs},
    commands::run::{auth_mode, bind_mode, misconfigured},
    error::{CliError, Fault, Result},
    exit::Exit,
    output::{BAD, DIM, GOOD, LITERAL, Printer, WARN, wrapped},
    settings::surroundings,
};

mod edit;

/// How wide the values are in the list of keys. A longer one moves what follows it.
const VALUE_COLUMNS: usize = 24;

/// Does what is asked for.
pub(crate) fn config(command: &ConfigCommand, global: &GlobalArgs, printer: &Printer) -> Result<Exit> {
    match command {
        ConfigCommand::Get(args) => get(args, global, printer),
        ConfigCommand::Set(args) => edit::set(args, global, printer),
        ConfigCommand::Unset(args) => edit::unset(args, global, printer),
        ConfigCommand::Explain(args) => explain(args, global, printer),
        ConfigCommand::Validate(args) => validate(args, global, printer),
        ConfigCommand::Schema(_) => {
            printer.json(&keys::schema())?;
            Ok(Exit::Ok)
        }
    }
}

fn open(global: &GlobalArgs) -> Result<View> {
    let (env, locations) = surroundings(global).map_err(|error| misconfigured(&error))?;
    Ok(View::open(&locations, &env).map_err(|error| misconfigured(&error))?)
}

fn path(given: Option<&str>) -> Result<Vec<String>> {
    keys::parse_path(given.unwrap_or_default()).map_err(|problem| {
        CliError::usage(format!("that is no path to a key: {problem}"))
            .hint("write it like `gateway.auth.mode`, `list[0]` or `entries[\"a.b\"]`")
            .into()
    })
}

fn get(args: &ConfigGetArgs, global: &GlobalArgs, printer: &Printer) -> Result<Exit> {
    let path = path(args.path.as_deref())?;
    let view = open(global)?;
    let key = keys::joined(&path);
    let Some(value) = view.get(&path).map_err(|unknown| unknown_key(unknown, &view))? else {
        let message = format!("{key} is not set in {}", view.path.display());
        return Err(CliError::new(Fault::Cli, "NOT_SET", Exit::Refused, message)
            .hint(format!(
                "`{}` tells what holds instead",
                global.command(&format!("gateway config explain {key}"))
            ))
            .into());
    };
    match value {
        Value::String(text) if !printer.is_json() => printer.line(text)?,
        value => printer.json(value)?,
    }
    Ok(Exit::Ok)
}

fn unknown_key(unknown: Unknown, view: &View) -> CliError {
    let message =
        format!("there is no key {} in {}, and none that is known", unknown.key, view.path.display());
    let error = CliError::new(Fault::Cli, "UNKNOWN_KEY", Exit::Usage, message);
    match unknown.nearest {
        Some(nearest) => error.hint(format!("did you mean `{nearest}`?")).detail("nearest", nearest),
        None => error.hint("`openclaw gateway config explain` lists the keys"),
    }
}

fn explain(args: &ConfigExplainArgs, global: &GlobalArgs, printer: &Printer) -> Result<Exit> {
    let path = path(args.path.as_deref())?;
    let view = open(global)?;
    let options = ServeOptions {
        port: args.port,
        bind: args.bind.map(bind_mode),
        auth: args.auth.map(auth_mode),
        ..ServeOptions::default()
    };
    let found = view.explain(&path, &options).map_err(|unknown| unknown_key(unknown, &view))?;
    if printer.is_json() {
        printer.json(&json!({
            "path": view.path,
            "exists": view.exists,
            "included": view.included,
            "keys": found.iter().map(document).collect::<Vec<_>>(),
        }))?;
        return Ok(Exit::Ok);
    }
    if let [only] = found.as_slice() {
        return alone(only, printer);
    }
    if !view.exists {
        printer
            .note(&format!("there is no configuration at {}: these are the defaults", view.path.display()));
    }
    if found.is_empty() {
        printer.note("nothing is set there");
    }
    let width = found.iter().map(|explained| explained.key.len()).max().unwrap_or(0);
    for explained in &found {
        printer.line(&row(explained, width, printer))?;
        for lost in &explained.lost {
            // Of a list, what somebody gave and lost is told; that there is a default too goes without saying.
            if lost.source != Source::Default {
                let text =
                    format!("{:width$}  not {} ({})", "", text(&lost.value), place(&lost.source, lost.line));
                printer.line(&printer.styled(DIM, &text))?;
            }
        }
        if let Some(problem) = &explained.problem {
            printer.line(&format!("{:width$}  {}", "", printer.styled(BAD, problem)))?;
        }
    }
    Ok(Exit::Ok)
}

/// One key with everything about it.
fn alone(explained: &Explained, printer: &Printer) -> Result<Exit> {
    printer.line(&printer.styled(LITERAL, &explained.key))?;
    printer.line(&wrapped(&explained.description, 2, printer.width()))?;
    let value = explained.value.as_ref().map_or_else(|| "nothing".to_owned(), text);
    printer.line(&format!("  {:<9}{value}", "value"))?;
    printer.line(&format!("  {:<9}{}", "from", place(&explained.source, explained.line)))?;
    if let Some(problem) = &explained.problem {
        printer.line(&format!("  {:<9}{}", "problem", printer.styled(BAD, problem)))?;
    }
    for lost in &explained.lost {
        printer.line(&format!("  {:<9}{} ({})", "not", text(&lost.value), place(&lost.source, lost.line)))?;
    }
    let applies = match explained.applies {
        Some(Applies::Live) => "at once, while a gateway runs",
        Some(Applies::Restart) => "when the gateway starts again",
        None => "never here",
    };
    printer.line(&format!("  {:<9}{applies}", "applies"))?;
    Ok(Exit::Ok)
}

fn row(explained: &Explained, width: usize, printer: &Printer) -> String {
    let value = explained.value.as_ref().map_or_else(|| "-".to_owned(), text);
    let source = place(&explained.source, explained.line);
    let applies = explained.applies.map_or("-", Applies::name);
    let key = format!("{:<width$}", explained.key);
    if explained.source == Source::Default {
        return printer.styled(DIM, &format!("{key}  {value:<VALUE_COLUMNS$}  {applies:<7}  {source}"));
    }
    format!("{}  {value:<VALUE_COLUMNS$}  {applies:<7}  {source}", printer.styled(LITERAL, &key))
}

/// A value in one line.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

/// Who gave a value. The key is said already.
fn place(source: &Source, line: Option<usize>) -> String {
    match (source, line) {
        (Source::File { path, .. }, Some(line)) => format!("{}:{line}", path.display()),
        (Source::File { path, .. }, None) => path.display().to_string(),
        (source, _) => source.to_string(),
    }
}

fn document(explained: &Explained) -> Value {
    let mut document = json!({
        "key": explained.key,
        "value": explained.value,
        "source": source(&explained.source, explained.line),
        "lost": explained.lost.iter().map(lost).collect::<Vec<_>>(),
        "applies": explained.applies.map(Applies::name),
        "description": explained.description,
    });
    if let Some(problem) = &explained.problem {
        document["problem"] = json!(problem);
    }
    document
}

fn lost(lost: &Lost) -> Value {
    json!({ "value": lost.value, "source": source(&lost.source, lost.line) })
}

fn source(source: &Source, line: Option<usize>) -> Value {
    let (kind, file) = match source {
        Source::Flag(_) => ("flag", None),
        Source::Env(_) => ("env", None),
        Source::EnvFile { path, .. } => ("env", Some(path.display().to_string())),
        Source::File { path, .. } => ("file", Some(path.display().to_string())),
        Source::Generated { path } | Source::Record { path } => {
            ("generated", Some(path.display().to_string()))
        }
        _ => ("default", None),
    };
    let mut told = json!({ "kind": kind, "text": source.to_string() });
    if let Some(file) = file {
        told["file"] = json!(file);
    }
    if let Some(line) = line {
        told["line"] = json!(line);
    }
    told
}

fn validate(args: &ConfigValidateArgs, global: &GlobalArgs, printer: &Printer) -> Result<Exit> {
    let (env, locations) = surroundings(global).map_err(|error| misconfigured(&error))?;
    let path = match &args.file {
        Some(file) => {
            let absolute = std::path::absolute(file).unwrap_or_else(|_| file.clone());
            if !absolute.exists() {
                return Err(CliError::usage(format!("there is no file {}", absolute.display())).into());
            }
            absolute
        }
        None => locations.config_file().to_owned(),
    };
    let report = check_config(&path, &locations, &env);
    let shown = path.display();
    let failure = (!report.issues.is_empty()).then(|| {
        let count = match report.issues.len() {
            1 => "one fault".to_owned(),
            count => format!("{count} faults"),
        };
        let error =
            CliError::new(Fault::Cli, "CONFIG_INVALID", Exit::Configuration, format!("{shown} has {count}"));
        report.issues.iter().fold(error, |error, issue| {
            let error = error.cause(cause(issue));
            issue.hint.iter().fold(error, |error, hint| error.hint(hint.clone()))
        })
    });
    if printer.is_json() {
        let mut document = failure.as_ref().map_or_else(|| json!({ "ok": true }), CliError::envelope);
        document["valid"] = json!(failure.is_none());
        document["path"] = json!(path);
        document["exists"] = json!(report.exists);
        document["included"] = json!(report.included);
        document["issues"] = report.issues.iter().map(issue).collect();
        document["warnings"] = json!(report.warnings);
        printer.json(&document)?;
        return Ok(if failure.is_some() { Exit::Configuration } else { Exit::Ok });
    }
    for warning in &report.warnings {
        printer.note(&format!("{} {warning}", colour(printer, "warning:")));
    }
    match failure {
        Some(error) => Err(error.into()),
        None => {
            printer.line(&sentence(&report, &shown.to_string(), printer))?;
            Ok(Exit::Ok)
        }
    }
}

fn colour(printer: &Printer, word: &str) -> String {
    if printer.colours_stderr() { format!("{WARN}{word}{WARN:#}") } else { word.to_owned() }
}

fn sentence(report: &Report, path: &str, printer: &Printer) -> String {
    let good = printer.styled(GOOD, "nothing is wrong");
    match (report.exists, report.included.len()) {
        (false, _) => format!("there is no configuration at {path}: the defaults hold"),
        (true, 0) => format!("{good} with {path}"),
        (true, 1) => format!("{good} with {path} and the file that it includes"),
        (true, count) => format!("{good} with {path} and the {count} files that it includes"),
    }
}

/// A fault in one line, its place first.
fn cause(issue: &Issue) -> String {
    match issue.line {
        Some(line) => format!("line {line}: {}", issue.message),
        None => issue.message.clone(),
    }
}

fn issue(issue: &Issue) -> Value {
    let mut told = json!({ "path": issue.key, "message": issue.message, "file": issue.file });
    if let Some(line) = issue.line {
        told["line"] = json!(line);
    }
    if let Some(hint) = &issue.hint {
        told["hint"] = json!(hint);
    }
    told
}
