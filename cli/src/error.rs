//! What can go wrong in a command, in one shape: the sentence, its causes, what to do, the exit code, and the
//! JSON envelope. Making one from the errors of other crates is done where those crates are called.

use std::{borrow::Cow, fmt::Display, io};

use openclaw_client::Fingerprint;
use openclaw_schema::problem::ParamProblem;
use serde_json::{Map, Value, json};

use crate::{exit::Exit, trust::TrustStore};

/// The result of a command.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// Why a command did not end well.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It is to be reported.
    Error(Box<CliError>),
    /// The output could not be written. A closed pipe is no error: the reader has had enough.
    Output(io::Error),
}

impl From<CliError> for Failure {
    fn from(error: CliError) -> Self {
        Self::Error(Box::new(error))
    }
}

/// Whose fault it is: `error.type` of the JSON envelope (cli.md section 1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// What was typed or configured.
    Cli,
    /// The way to the gateway.
    Transport,
    /// The gateway answered with an error.
    Request,
    /// No credential to send.
    Credentials,
}

impl Fault {
    const fn name(self) -> &'static str {
        match self {
            Self::Cli => "cli_error",
            Self::Transport => "gateway_transport_error",
            Self::Request => "gateway_request_error",
            Self::Credentials => "gateway_credentials_required",
        }
    }
}

/// One error, ready to be shown.
#[derive(Debug)]
pub(crate) struct CliError {
    pub(crate) fault: Fault,
    /// The string code: one of the contract's, or one of the command line's own (`cli/README.md`).
    pub(crate) code: Cow<'static, str>,
    pub(crate) exit: Exit,
    /// One sentence, no full stop.
    pub(crate) message: String,
    /// What lies behind it, outermost first.
    pub(crate) causes: Vec<String>,
    /// What to do about it.
    pub(crate) hints: Vec<String>,
    /// Further members of `error` in JSON.
    pub(crate) details: Map<String, Value>,
    /// Which gateway was meant: `gateway` beside `error` in JSON.
    pub(crate) gateway: Option<Value>,
    /// A TLS certificate that the person may be asked about: where a yes is kept, the address, and its digest.
    pub(crate) untrusted: Option<(TrustStore, String, Fingerprint)>,
}

impl CliError {
    pub(crate) fn new(
        fault: Fault,
        code: impl Into<Cow<'static, str>>,
        exit: Exit,
        message: impl Into<String>,
    ) -> Self {
        Self {
            fault,
            code: code.into(),
            exit,
            message: message.into(),
            causes: Vec::new(),
            hints: Vec::new(),
            details: Map::new(),
            gateway: None,
            untrusted: None,
        }
    }

    /// What was typed cannot be done.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Fault::Cli, "USAGE", Exit::Usage, message)
    }

    /// The params do not fit `method`; found before anything was sent.
    pub(crate) fn params(method: &str, problem: ParamProblem) -> Self {
        let refusal = problem.into_error(method);
        let details = serde_json::to_value(refusal.data).unwrap_or_default();
        Self::new(Fault::Cli, refusal.code.name(), Exit::Usage, refusal.message)
            .hint(format!("`openclaw gateway call {method} --help` lists the fields"))
            .detail("details", details)
    }

    /// The command was ended by Ctrl-C.
    pub(crate) fn interrupted() -> Self {
        Self::new(Fault::Cli, "INTERRUPTED", Exit::Interrupted, "interrupted")
    }

    /// Adds a cause.
    pub(crate) fn cause(mut self, cause: impl Display) -> Self {
        self.causes.push(cause.to_string());
        self
    }

    /// Adds the sources of `error`, outermost first; its own sentence is the message.
    pub(crate) fn with_sources(mut self, error: &dyn std::error::Error) -> Self {
        let mut source = error.source();
        while let Some(cause) = source {
            self.causes.push(cause.to_string());
            source = cause.source();
        }
        self
    }

    /// Adds what to do.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds a member of `error` in JSON.
    pub(crate) fn detail(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.details.insert(name.to_owned(), value.into());
        self
    }

    /// The JSON envelope: `{"ok":false,"error":{…}}`.
    pub(crate) fn envelope(&self) -> Value {
        let mut error = Map::new();
        error.insert("type".to_owned(), json!(self.fault.name()));
        error.insert("message".to_owned(), json!(self.message));
        error.insert("code".to_owned(), json!(self.code));
        error.insert("exit".to_owned(), json!(self.exit.name()));
        error.extend(self.details.clone());
        if !self.causes.is_empty() {
            error.insert("causes".to_owned(), json!(self.causes));
        }
        if !self.hints.is_empty() {
            error.insert("hints".to_owned(), json!(self.hints));
        }
        let mut envelope = Map::new();
        envelope.insert("ok".to_owned(), json!(false));
        envelope.insert("error".to_owned(), Value::Object(error));
        if let Some(gateway) = &self.gateway {
            envelope.insert("gateway".to_owned(), gateway.clone());
        }
        Value::Object(envelope)
    }
}

/// A mistake that clap found, in our shape: its first paragraph is the message, its tips are hints.
impl From<&clap::Error> for CliError {
    fn from(error: &clap::Error) -> Self {
        let text = error.render().to_string();
        let mut paragraphs = text.split("\n\n");
        let message = paragraphs.next().unwrap_or_default().trim_start_matches("error: ");
        let lines = message.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut usage = Self::usage(lines);
        let rest = paragraphs.flat_map(str::lines).map(str::trim);
        usage.hints = rest.filter_map(|line| line.strip_prefix("tip: ")).map(str::to_owned).collect();
        usage
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_envelope_has_stock_members_first_and_ours_after() {
        let error = CliError::usage("no").cause("because").hint("do this").detail("kind", "closed");
        assert_eq!(
            error.envelope().to_string(),
            r#"{"ok":false,"error":{"type":"cli_error","message":"no","code":"USAGE","exit":"usage","kind":"closed","causes":["because"],"hints":["do this"]}}"#
        );
    }

    #[test]
    fn a_clap_error_keeps_its_sentence_and_its_tips() {
        let command = clap::Command::new("x").arg(clap::Arg::new("json").long("json"));
        let error = command.try_get_matches_from(["x", "--jsn"]).expect_err("no such flag");
        let error = CliError::from(&error);
        assert_eq!(error.message, "unexpected argument '--jsn' found");
        assert_eq!(error.hints, ["a similar argument exists: '--json'"]);
    }
}
