//! `gateway call`: one method, by its name.
//!
//! Params come from `--params`, `name=value` and the method's own flags, and are checked against the contract
//! before anything is sent.

use std::{fs, io::Read as _};

use openclaw_schema::{
    methods,
    problem::{self, ParamProblem},
};
use serde_json::{Map, Value, value::RawValue};

use crate::{
    args::{CallArgs, ClientArgs, GlobalArgs},
    connection::{self, Connection},
    error::{CliError, Fault, Result},
    exit::Exit,
    flags::quoted,
    method::Method,
    output::Printer,
    settings::ClientSettings,
    watch::{self, RunCall, RunState, Show},
};

/// The field that the command line fills when the caller leaves it out.
const KEY: &str = "idempotencyKey";

/// Calls one method. `method` is what is known about it, `flags` what its own flags said.
pub(crate) fn call(
    args: &CallArgs,
    global: &GlobalArgs,
    method: Option<&Method>,
    flags: Map<String, Value>,
    printer: &Printer,
) -> Result<Exit> {
    let name = args.method.as_str();
    if method.is_some_and(|method| method.subscription) {
        return Err(CliError::usage(format!("`{name}` starts a subscription: it sends items as they come"))
            .cause("`gateway call` makes one call and reads one answer")
            .hint(format!(
                "`openclaw gateway describe {name}` says what it sends; a client library receives it"
            ))
            .into());
    }
    let source = args.params.as_deref().map(params_text).transpose()?;
    let params = Params::new(name, method, source, &args.pairs, flags)?;
    if let Some(record) = methods::find(name) {
        (record.params.check)(params.json.get()).map_err(|problem| CliError::params(name, problem))?;
    }
    let mut settings = ClientSettings::resolve(&args.client, global)?;
    let wait = method.and_then(|method| method.wait.as_deref());
    if args.stream && wait.is_none() {
        return Err(CliError::usage(format!("`{name}` answers at once: there is nothing to stream"))
            .hint("`--stream` is for methods that answer in two phases, such as `agent`")
            .into());
    }
    let wait = wait.filter(|_| args.client.expect_final || args.stream);
    if wait.is_some() || method.is_some_and(|method| method.long_poll) {
        settings.wait_by_design();
    }
    if let Some(key) = &params.made_key {
        printer.note(&format!("note: {KEY} {key} was made for this call"));
    }
    let Some(wait) = wait else {
        let answer = connection::run(&settings, async {
            Connection::open(&settings, name, &params.json).await?.call(name, params.json).await
        })?;
        show(name, &answer, printer)?;
        return Ok(Exit::Ok);
    };
    let call = RunCall {
        method: name,
        wait,
        params: params.json,
        command: global.command("gateway call"),
        target: target(&args.client),
    };
    let ended = watch::run(&settings, call, Show::fitting(args.stream, printer), printer)?;
    if !args.stream {
        show(name, &ended.outcome, printer)?;
    }
    let exit = outcome_exit(&ended.outcome, printer);
    Ok(if ended.is_interrupted { Exit::Interrupted } else { exit })
}

/// Writes the answer to stdout.
fn show(name: &str, answer: &RawValue, printer: &Printer) -> Result<()> {
    if !printer.is_json() {
        printer.line(&format!("Gateway call: {name}"))?;
    }
    printer.received(answer)
}

/// The options that name the same gateway again, without a secret.
fn target(client: &ClientArgs) -> String {
    match (&client.url, client.port) {
        (Some(url), _) => format!(" --url {}", quoted(url)),
        (None, Some(port)) => format!(" --port {port}"),
        (None, None) => String::new(),
    }
}

/// The text of `--params`, read from where it says.
fn params_text(given: &str) -> Result<String> {
    let unreadable = |from: &str, error: std::io::Error| {
        CliError::usage(format!("the params cannot be read from {from}")).cause(error)
    };
    match given.strip_prefix('@') {
        None => Ok(given.to_owned()),
        Some("-") => {
            let mut text = String::new();
            let read = std::io::stdin().lock().read_to_string(&mut text);
            read.map_err(|error| unreadable("standard input", error))?;
            Ok(text)
        }
        Some(path) => {
            fs::read_to_string(path).map_err(|error| unreadable(&format!("`{path}`"), error).into())
        }
    }
}

/// Params, ready to be sent.
#[derive(Debug)]
struct Params {
    json: Box<RawValue>,
    /// The idempotency key, if one was made.
    made_key: Option<String>,
}

impl Params {
    /// Merges what was given: `source` < `pairs` < `flags`. A source to which nothing is added stays as it is,
    /// byte for byte.
    fn new(
        name: &str,
        method: Option<&Method>,
        source: Option<String>,
        pairs: &[String],
        flags: Map<String, Value>,
    ) -> Result<Self> {
        let wrong = |problem: ParamProblem| CliError::params(name, problem);
        let source = source.unwrap_or_else(|| "{}".to_owned());
        let json: Box<RawValue> = serde_json::from_str(&source).map_err(|error| {
            CliError::usage(format!("--params is not JSON: {error}"))
                .hint(r#"in a shell, put it in single quotes: --params '{"limit": 5}'"#)
        })?;
        let Ok(mut merged) = serde_json::from_str::<Map<String, Value>>(json.get()) else {
            return Err(wrong(problem::not_an_object(json.get())).into());
        };
        for pair in pairs {
            let (field, value) = read_pair(pair, method).map_err(|error| match error {
                PairError::Shape(message) => CliError::usage(message),
                PairError::Value(problem) => wrong(problem),
            })?;
            merged.insert(field, value);
        }
        let mut added = !pairs.is_empty() || !flags.is_empty();
        merged.extend(flags);
        let mut made_key = None;
        if method.is_some_and(|method| method.fields.requires(KEY)) && !merged.contains_key(KEY) {
            let key = openclaw_client::new_idempotency_key();
            merged.insert(KEY.to_owned(), Value::String(key.clone()));
            made_key = Some(key);
            added = true;
        }
        let json = if added {
            serde_json::value::to_raw_value(&merged).expect("a JSON object serialises")
        } else {
            json
        };
        Ok(Self { json, made_key })
    }
}

/// Why `name=value` says nothing.
#[derive(Debug, PartialEq, Eq)]
enum PairError {
    Shape(String),
    Value(ParamProblem),
}

/// Reads `name=value` or `name:=JSON`.
fn read_pair(pair: &str, method: Option<&Method>) -> std::result::Result<(String, Value), PairError> {
    let (name, text, is_json) = match pair.split_once('=') {
        Some((name, text)) => match name.strip_suffix(':') {
            Some(name) => (name, text, true),
            None => (name, text, false),
        },
        None => ("", "", false),
    };
    if name.is_empty() {
        return Err(PairError::Shape(format!("`{pair}` is neither `name=value` nor `name:=JSON`")));
    }
    let value = if is_json {
        serde_json::from_str(text)
            .map_err(|error| PairError::Shape(format!("what follows `{name}:=` is not JSON: {error}")))?
    } else if let Some(method) = method {
        method.fields.coerce(name, text).map_err(PairError::Value)?
    } else {
        Value::String(text.to_owned())
    };
    Ok((name.to_owned(), value))
}

/// How the command ends when the run has ended; says why on stderr when the run did not go well.
fn outcome_exit(outcome: &RawValue, printer: &Printer) -> Exit {
    let outcome = RunState::read(outcome);
    let (exit, what) = match outcome.status.as_deref() {
        Some("error") => (Exit::Refused, "the run failed"),
        Some("timeout") => (Exit::Timeout, "the run was aborted or took too long"),
        _ => return Exit::Ok,
    };
    if !printer.is_json() {
        let summary = outcome.summary.filter(|summary| !summary.is_empty());
        let error = CliError::new(Fault::Request, "RUN", exit, what);
        let error = match summary {
            Some(summary) => error.cause(summary),
            None => error,
        };
        // Words on stderr; nothing is left to do if they cannot be written.
        let _ = printer.error(&error);
    }
    exit
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::error::Failure;

    fn method(name: &str) -> Method {
        let tree = crate::command();
        let call = tree.find_subcommand("gateway").and_then(|gateway| gateway.find_subcommand("call"));
        Method::of_record(methods::find(name).expect("the contract has it"), call.expect("there is `call`"))
    }

    fn params(name: &str, source: Option<&str>, pairs: &[&str], flags: &Value) -> Result<Params> {
        let pairs: Vec<String> = pairs.iter().map(|pair| (*pair).to_owned()).collect();
        let flags = flags.as_object().cloned().unwrap_or_default();
        let known = methods::find(name).map(|_| method(name));
        Params::new(name, known.as_ref(), source.map(str::to_owned), &pairs, flags)
    }

    fn refused(name: &str, source: Option<&str>, pairs: &[&str]) -> CliError {
        match params(name, source, pairs, &json!({})) {
            Err(Failure::Error(error)) => *error,
            other => panic!("it was not refused: {other:?}"),
        }
    }

    #[test]
    fn later_kinds_win() {
        let params = params(
            "logs.tail",
            Some(r#"{"limit": 1, "maxBytes": 2, "cursor": 3}"#),
            &["limit=4", "maxBytes:=5"],
            &json!({ "limit": 6 }),
        );
        let merged: Value = serde_json::from_str(params.expect("it merges").json.get()).expect("it is JSON");
        assert_eq!(merged, json!({ "limit": 6, "maxBytes": 5, "cursor": 3 }));
    }

    #[test]
    fn params_alone_are_sent_as_they_were_typed() {
        let text = r#"{"n": 1e400, "big": 123456789012345678901234567890}"#;
        let params = params("not.ours", Some(text), &[], &json!({}));
        assert!(
            params.is_ok_and(|params| params.json.get() == text)
                || serde_json::from_str::<Value>(text).is_err()
        );
        let spaced = r#"{ "limit" : 5 }"#;
        assert_eq!(
            super::tests::params("logs.tail", Some(spaced), &[], &json!({})).expect("fine").json.get(),
            spaced
        );
    }

    #[test]
    fn an_idempotency_key_is_made_when_it_is_required_and_left_out() {
        let made = params("agent", None, &["message=hello"], &json!({})).expect("it merges");
        let key = made.made_key.expect("a key was made");
        assert_eq!(uuid::Uuid::parse_str(&key).expect("it is a UUID").get_version_num(), 7);
        assert!(made.json.get().contains(&key));
        let given =
            params("agent", None, &["message=hello", "idempotencyKey=k1"], &json!({})).expect("it merges");
        assert_eq!(given.made_key, None);
        assert_eq!(params("health", None, &[], &json!({})).expect("it merges").made_key, None);
    }

    #[test]
    fn what_is_no_object_is_refused() {
        assert_eq!(refused("logs.tail", Some("{bad"), &[]).code, "USAGE");
        assert_eq!(refused("logs.tail", Some("{} {}"), &[]).code, "USAGE");
        let array = refused("not.ours", Some("[60000]"), &[]);
        assert_eq!(
            array.message,
            "invalid not.ours params: params must be an object (by name), not an array"
        );
        assert_eq!(array.exit, Exit::Usage);
    }

    #[test]
    fn a_pair_needs_a_name_and_a_value_of_its_type() {
        assert!(refused("logs.tail", None, &["limit"]).message.contains("neither"));
        assert!(refused("logs.tail", None, &["=5"]).message.contains("neither"));
        assert!(refused("logs.tail", None, &["limit:=x"]).message.contains("is not JSON"));
        let error = refused("logs.tail", None, &["limit=x"]);
        assert_eq!(error.message, "invalid logs.tail params at /limit: must be a whole number, not `x`");
        assert_eq!(error.details["details"]["path"], "/limit");
        let free = read_pair("a.b=c=d", None);
        assert_eq!(free, Ok(("a.b".to_owned(), json!("c=d"))));
    }

    #[test]
    fn the_outcome_of_a_run_is_the_exit_of_the_command() {
        let printer = Printer::new(true, true);
        let exit = |json: Value| {
            outcome_exit(&serde_json::value::to_raw_value(&json).expect("it serialises"), &printer)
        };
        assert_eq!(exit(json!({ "runId": "k", "status": "ok" })), Exit::Ok);
        assert_eq!(exit(json!({ "status": "error", "summary": "no" })), Exit::Refused);
        assert_eq!(exit(json!({ "status": "timeout" })), Exit::Timeout);
        assert_eq!(exit(json!(["new shape"])), Exit::Ok);
    }
}
