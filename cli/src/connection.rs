//! The one place that talks to a gateway: a runtime of one thread, the bound on the whole command, Ctrl-C, and
//! the errors of the client library turned into ours.

use std::{future::Future, time::Duration};

use openclaw_client::{Client, Error, EventStream, Fingerprint, Refusal, Scope, TransportKind};
use openclaw_schema::{
    ErrorCode, methods,
    methods::{
        agent::AgentMethod,
        events::{EventsMethod, EventsSubscribeParams},
        rpc::RpcMethod,
    },
    problem,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};

use crate::{
    args::{ClientArgs, GlobalArgs},
    error::{CliError, Failure, Fault, Result},
    exit::Exit,
    output::shown_url,
    settings::ClientSettings,
};

/// A connection to the gateway of `settings`.
#[derive(Debug)]
pub(crate) struct Connection<'a> {
    client: Client,
    settings: &'a ClientSettings,
}

impl<'a> Connection<'a> {
    /// Connects, to call `method` with `params`: a gateway that grants only what is asked for is asked for what
    /// that call needs.
    pub(crate) async fn open(settings: &'a ClientSettings, method: &str, params: &RawValue) -> Result<Self> {
        let mut builder = Client::builder(settings.url())
            .call_timeout(settings.call_timeout())
            .asked_scopes([scope_of(method, params)])
            .allow_plaintext(settings.allows_plaintext())
            // The pair by which gateways know the command line.
            .client_kind("cli", "cli")
            .device_identity(settings.identity_dir());
        if let Some(credential) = settings.credential() {
            builder = builder.credential(credential.clone());
        }
        if let Some(fingerprint) = settings.tls_fingerprint() {
            builder = builder.tls_fingerprint(fingerprint);
        }
        if let Some(limit) = settings.connect_timeout() {
            builder = builder.connect_timeout(limit);
        }
        let client = builder.connect().await.map_err(|error| told("", error, settings))?;
        Ok(Self { client, settings })
    }

    /// The client beneath.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// An error of the client, as this command tells it.
    pub(crate) fn failed(&self, method: &str, error: Error) -> Failure {
        told(method, error, self.settings).into()
    }

    /// Calls a method.
    pub(crate) async fn call(&self, method: &str, params: Box<RawValue>) -> Result<Box<RawValue>> {
        let answer = self.client.call(method, params).await;
        answer.map_err(|error| told(method, error, self.settings).into())
    }

    /// Calls a method that answers in two phases, shows its acknowledgement to `on_ack`, and waits for its
    /// outcome by the method `wait`.
    pub(crate) async fn call_final(
        &self,
        method: &str,
        wait: &str,
        params: Box<RawValue>,
        on_ack: impl FnOnce(&RawValue),
    ) -> Result<Box<RawValue>> {
        let answer = self.client.call_final(method, wait, params, on_ack).await;
        answer.map_err(|error| told(method, error, self.settings).into())
    }

    /// The gateway's events that `wanted` chooses.
    pub(crate) async fn events(&self, wanted: EventsSubscribeParams) -> Result<EventStream> {
        let events = self.client.events(wanted).await;
        events.map_err(|error| told(EventsMethod::EventsSubscribe.name(), error, self.settings).into())
    }
}

/// Does `work` on a runtime of one thread, until it is done, its time is up, or Ctrl-C ends it.
pub(crate) fn run<T>(settings: &ClientSettings, work: impl Future<Output = Result<T>>) -> Result<T> {
    run_until(settings, async {
        tokio::select! {
            done = work => done,
            interrupted = interruption() => Err(interrupted),
        }
    })
}

/// Does `work` on a runtime of one thread, until it is done or its time is up. Ctrl-C is left to `work`.
pub(crate) fn run_until<T>(settings: &ClientSettings, work: impl Future<Output = Result<T>>) -> Result<T> {
    block_on(async {
        match settings.whole_timeout() {
            None => work.await,
            Some(limit) => match tokio::time::timeout(limit, work).await {
                Ok(done) => done,
                Err(_) => Err(timed_out(limit, settings).into()),
            },
        }
    })
}

/// Does `work`, which minds the time by itself, on a runtime of one thread, until it is done or Ctrl-C ends it.
pub(crate) fn until_interrupted<T>(work: impl Future<Output = T>) -> Result<T> {
    block_on(async {
        tokio::select! {
            done = work => Ok(done),
            interrupted = interruption() => Err(interrupted),
        }
    })
}

/// Waits for Ctrl-C. If the system delivers no signals to wait for, Ctrl-C ends the process without a word.
async fn interruption() -> Failure {
    match tokio::signal::ctrl_c().await {
        Ok(()) => CliError::interrupted().into(),
        Err(_) => std::future::pending().await,
    }
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| {
        CliError::new(Fault::Cli, "SYSTEM", Exit::Refused, "the system gives no means to wait").cause(error)
    })?;
    let done = runtime.block_on(work);
    // A look-up of a name that still goes on must not hold the command back.
    runtime.shutdown_background();
    done
}

/// The document of the gateway that `args` mean.
pub(crate) fn discover(args: &ClientArgs, global: &GlobalArgs) -> Result<Value> {
    let settings = ClientSettings::resolve(args, global)?;
    let method = RpcMethod::RpcDiscover.name();
    let answer = run(&settings, async {
        let params = RawValue::from_string("{}".to_owned()).expect("{} is JSON");
        Connection::open(&settings, method, &params).await?.call(method, params).await
    })?;
    read(method, &answer)
}

/// What a call needs. Methods that this program does not know may need anything.
fn scope_of(method: &str, params: &RawValue) -> Scope {
    #[derive(Deserialize)]
    struct Said {
        message: String,
    }
    let Some(record) = methods::find(method) else { return Scope::OperatorAdmin };
    if method == AgentMethod::Agent.name() {
        let said =
            serde_json::from_str::<Said>(params.get()).map(|params| params.message).unwrap_or_default();
        // Commands to an agent, such as `/new`, need more than words do; which ones, the gateway knows.
        if said.starts_with('/') {
            return Scope::OperatorAdmin;
        }
    }
    record.scope
}

/// Params as they are sent.
pub(crate) fn params(params: &impl Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(params).expect("params of the contract serialise")
}

/// Reads the answer of `method` as `T`.
pub(crate) fn read<T: DeserializeOwned>(method: &str, answer: &RawValue) -> Result<T> {
    serde_json::from_str(answer.get()).map_err(|error| unreadable(method, &error))
}

/// What `method` answers is not what it declares.
pub(crate) fn unreadable(method: &str, error: &serde_json::Error) -> Failure {
    let message = format!("the answer to `{method}` does not have the declared shape");
    CliError::new(Fault::Transport, "BAD_PAYLOAD", Exit::Protocol, message).cause(error).into()
}

fn timed_out(limit: Duration, settings: &ClientSettings) -> CliError {
    let message = format!(
        "the gateway at {} did not answer within {} ms",
        shown_url(settings.url()),
        limit.as_millis()
    );
    CliError::new(Fault::Transport, "TIMEOUT", Exit::Timeout, message)
        .cause(settings.origin())
        .hint("`--timeout MS` allows more; 0 sets no bound")
        .detail("kind", "timeout")
        .detail("timeoutMs", u64::try_from(limit.as_millis()).unwrap_or(u64::MAX))
        .about(settings)
}

/// An error of the client library, told to the person who typed the command.
fn told(method: &str, error: Error, settings: &ClientSettings) -> CliError {
    let url = shown_url(settings.url());
    let protocol = |code: &'static str, message: String| {
        CliError::new(Fault::Transport, code, Exit::Protocol, message)
            .detail("kind", "protocol")
            .about(settings)
    };
    match error {
        Error::InvalidInput { problem: Some(problem), .. } => CliError::params(method, *problem),
        Error::InvalidInput { message, .. } => CliError::usage(message).cause(settings.origin()),
        Error::Transport { kind, reason, .. } => unreachable(kind, &reason, settings),
        Error::Refused(refusal) => refused(method, *refusal),
        Error::BadPayload { what, reason } => {
            protocol("BAD_PAYLOAD", format!("{what} cannot be read")).cause(reason)
        }
        Error::Timeout { after, what } => {
            let mut error = timed_out(after, settings);
            error.message = format!("{what} within {} ms ({url})", after.as_millis());
            error
        }
        Error::Unauthorized { message, details } => {
            let mut error =
                CliError::new(Fault::Request, ErrorCode::Unauthorized.name(), Exit::Auth, message)
                    .cause(settings.origin())
                    .cause(settings.credential_origin())
                    .detail("retryable", false);
            let details = details.and_then(|details| serde_json::from_str::<Value>(details.get()).ok());
            // A device that waits for its approval has what it needs; the message names the request.
            if details.as_ref().is_none_or(|details| details.get("requestId").is_none()) {
                error = error.hint(
                    "pass the gateway's own token or password with `--token`, `--token-file` or `--password`",
                );
            }
            if let Some(details) = details {
                error = error.detail("details", details);
            }
            error.about(settings)
        }
        Error::RateLimited { message, retry_after } => {
            let mut error = CliError::new(Fault::Request, ErrorCode::RateLimited.name(), Exit::Auth, message)
                .cause(settings.origin())
                .detail("retryable", true);
            if let Some(after) = retry_after {
                error = error
                    .detail("retryAfterMs", u64::try_from(after.as_millis()).unwrap_or(u64::MAX))
                    .hint(format!("try again in {} s", after.as_millis().div_ceil(1000)));
            }
            error.hint("nobody is locked out on the gateway's own host: go there, or wait").about(settings)
        }
        Error::Untrusted { shown, expected, reason, .. } => untrusted(shown, expected, &reason, settings),
        Error::ProtocolMismatch { message } => {
            protocol("PROTOCOL_MISMATCH", message).cause(settings.origin())
        }
    }
}

fn untrusted(
    shown: Fingerprint,
    expected: Option<Fingerprint>,
    reason: &str,
    settings: &ClientSettings,
) -> CliError {
    let url = shown_url(settings.url());
    let message = format!("the TLS certificate of {url} is not trusted: {reason}");
    let error = CliError::new(Fault::Transport, "TLS_UNTRUSTED", Exit::Auth, message)
        .cause(settings.origin())
        .cause(format!("its SHA-256 is {shown}"))
        .detail("fingerprint", shown.to_string());
    let error = match expected {
        Some(expected) => error
            .cause(format!("expected was {expected}"))
            .detail("expected", expected.to_string())
            .hint(format!(
                "someone may be in between; if the certificate was changed on purpose, give `--tls-fingerprint` the \
                 new one, and take the old one out of {} if it is there",
                settings.trust().path().display()
            )),
        None => error.hint(format!(
            "compare that with what the gateway logs at its start, then trust it with `--tls-fingerprint {shown}`"
        )),
    };
    let mut error = error.about(settings);
    error.untrusted =
        expected.is_none().then(|| (settings.trust().clone(), settings.url().to_owned(), shown));
    error
}

fn unreachable(kind: TransportKind, reason: &str, settings: &ClientSettings) -> CliError {
    let url = shown_url(settings.url());
    let (code, exit, message) = match kind {
        TransportKind::Unreachable => {
            ("UNREACHABLE", Exit::Unreachable, format!("no gateway answers at {url}: {reason}"))
        }
        TransportKind::Closed { .. } | TransportKind::Lagged => {
            let message = format!("the gateway at {url} closed the connection before it answered: {reason}");
            ("CONNECTION_CLOSED", Exit::Unreachable, message)
        }
        // What proxies answer while the gateway is away, and a gateway that has too much to do.
        TransportKind::Rejected { status: status @ (429 | 502 | 503 | 504) } => {
            ("UNREACHABLE", Exit::Unreachable, format!("{url} answered HTTP {status}: {reason}"))
        }
        TransportKind::Rejected { status } => (
            "PROTOCOL_MISMATCH",
            Exit::Protocol,
            format!("{url} is no gateway: it answered HTTP {status}: {reason}"),
        ),
    };
    let error = CliError::new(Fault::Transport, code, exit, message)
        .cause(settings.origin())
        .detail("kind", if exit == Exit::Protocol { "protocol" } else { "closed" })
        .detail("reason", reason)
        .about(settings);
    match kind {
        TransportKind::Unreachable => error.hint(settings.start_hint()),
        TransportKind::Closed { .. } | TransportKind::Rejected { .. } | TransportKind::Lagged => error,
    }
}

/// How the command ends when the gateway answers with `code`.
fn exit_of(code: Option<ErrorCode>) -> Exit {
    match code {
        Some(
            ErrorCode::Unauthorized | ErrorCode::Forbidden | ErrorCode::NotPaired | ErrorCode::RateLimited,
        ) => Exit::Auth,
        Some(ErrorCode::DeadlineExceeded) => Exit::Timeout,
        Some(
            ErrorCode::ParseError
            | ErrorCode::InvalidRequest
            | ErrorCode::MethodNotFound
            | ErrorCode::InvalidParams
            | ErrorCode::Internal
            | ErrorCode::Unavailable
            | ErrorCode::NotFound
            | ErrorCode::LimitExceeded
            | ErrorCode::Denied,
        )
        | None => Exit::Refused,
    }
}

fn refused(method: &str, refusal: Refusal) -> CliError {
    let details = refusal.details();
    let data = refusal.data.as_deref().and_then(|data| serde_json::from_str::<Value>(data.get()).ok());
    let mut error = CliError::new(Fault::Request, refusal.code_name, exit_of(refusal.code), refusal.message);
    if let Some(data) = data {
        error = error.detail("details", data);
    }
    let code = refusal.code;
    let retryable =
        details.as_ref().map_or(code.is_some_and(ErrorCode::is_retryable), |details| details.retryable);
    error = error.detail("retryable", retryable);
    if let Some(after) = details.as_ref().and_then(|details| details.retry_after_ms) {
        error = error.detail("retryAfterMs", after);
    }
    let nearest = details.and_then(|details| details.nearest);
    match code {
        Some(ErrorCode::MethodNotFound) => {
            let known =
                || problem::nearest(method, methods::all().map(|record| record.name)).map(str::to_owned);
            if let Some(nearest) = nearest.or_else(known) {
                error = error.hint(format!("did you mean `{nearest}`?"));
            }
            error.hint("`openclaw gateway methods --live` lists what it serves")
        }
        Some(ErrorCode::InvalidParams) => {
            error.hint(format!("`openclaw gateway call {method} --help` lists the fields"))
        }
        Some(ErrorCode::Forbidden) => {
            let scope =
                methods::find(method).map(|record| format!("`{method}` asks for the scope {}", record.scope));
            match scope {
                Some(scope) => error.cause(scope),
                None => error,
            }
        }
        _ => error,
    }
}

impl CliError {
    /// Says in JSON which gateway was meant.
    fn about(mut self, settings: &ClientSettings) -> Self {
        self.gateway = Some(settings.describe());
        self
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings() -> ClientSettings {
        let args = ClientArgs {
            url: Some("ws://127.0.0.1:1".to_owned()),
            token: Some("secret".to_owned()),
            ..ClientArgs::default()
        };
        ClientSettings::resolve(&args, &GlobalArgs::default()).expect("flags are enough")
    }

    fn refusal(code: Option<ErrorCode>, name: &str, data: &Value) -> Refusal {
        Refusal {
            number: code.map_or(-1, ErrorCode::number),
            code,
            code_name: name.to_owned(),
            message: "no".to_owned(),
            data: Some(serde_json::value::to_raw_value(data).expect("it serialises")),
        }
    }

    #[test]
    fn every_fault_has_its_exit() {
        let settings = settings();
        let transport =
            |kind| Error::Transport { kind, url: String::new(), reason: "why".to_owned(), sent: false };
        let rejected = |status| transport(TransportKind::Rejected { status });
        let refused =
            |code: ErrorCode| Error::Refused(Box::new(refusal(Some(code), code.name(), &json!({}))));
        for (error, exit, code) in [
            (transport(TransportKind::Unreachable), Exit::Unreachable, "UNREACHABLE"),
            (transport(TransportKind::Closed { code: None }), Exit::Unreachable, "CONNECTION_CLOSED"),
            (rejected(503), Exit::Unreachable, "UNREACHABLE"),
            (rejected(404), Exit::Protocol, "PROTOCOL_MISMATCH"),
            (Error::ProtocolMismatch { message: "stock".to_owned() }, Exit::Protocol, "PROTOCOL_MISMATCH"),
            (
                Error::BadPayload { what: "it".to_owned(), reason: "bad".to_owned() },
                Exit::Protocol,
                "BAD_PAYLOAD",
            ),
            (Error::Unauthorized { message: "no".to_owned(), details: None }, Exit::Auth, "UNAUTHORIZED"),
            (Error::RateLimited { message: "no".to_owned(), retry_after: None }, Exit::Auth, "RATE_LIMITED"),
            (refused(ErrorCode::Forbidden), Exit::Auth, "FORBIDDEN"),
            (refused(ErrorCode::DeadlineExceeded), Exit::Timeout, "DEADLINE_EXCEEDED"),
            (refused(ErrorCode::Internal), Exit::Refused, "INTERNAL"),
        ] {
            let told = told("health", error, &settings);
            assert_eq!((told.exit, told.code.as_ref()), (exit, code), "{told:?}");
        }
    }

    #[test]
    fn a_call_asks_for_its_own_scope() {
        let scope = |method: &str, params: &Value| {
            scope_of(method, &serde_json::value::to_raw_value(params).expect("it serialises"))
        };
        assert_eq!(scope("health", &json!({})), Scope::None);
        assert_eq!(scope("logs.tail", &json!({})), Scope::OperatorRead);
        assert_eq!(scope("agent", &json!({ "message": "hello /new" })), Scope::OperatorWrite);
        assert_eq!(scope("agent", &json!({ "message": "/new" })), Scope::OperatorAdmin);
        assert_eq!(scope("only.stock", &json!({})), Scope::OperatorAdmin);
    }

    #[test]
    fn details_of_a_refused_credential_are_kept() {
        let details = serde_json::value::to_raw_value(&json!({ "requestId": "r" })).expect("it serialises");
        let error = Error::Unauthorized { message: "pairing required".to_owned(), details: Some(details) };
        assert_eq!(told("health", error, &settings()).envelope()["error"]["details"]["requestId"], "r");
    }

    #[test]
    fn an_unreachable_gateway_names_address_source_and_remedy() {
        let error = Error::Transport {
            kind: TransportKind::Unreachable,
            url: String::new(),
            reason: "connection refused".to_owned(),
            sent: false,
        };
        let told = told("health", error, &settings());
        assert_eq!(told.message, "no gateway answers at ws://127.0.0.1:1: connection refused");
        assert!(told.causes[0].contains("--url"), "{told:?}");
        assert!(told.hints[0].contains("`openclaw gateway run`"), "{told:?}");
        let envelope = told.envelope();
        assert_eq!(envelope["error"]["type"], "gateway_transport_error");
        assert_eq!(envelope["error"]["kind"], "closed");
        assert_eq!(envelope["gateway"]["url"], "ws://127.0.0.1:1");
        assert!(!envelope.to_string().contains("secret"));
    }

    #[test]
    fn a_refusal_keeps_its_details_and_offers_the_nearest_method() {
        let told =
            refused("logs.tial", refusal(Some(ErrorCode::MethodNotFound), "METHOD_NOT_FOUND", &json!({})));
        assert_eq!(told.hints[0], "did you mean `logs.tail`?");
        let data = json!({ "code": "BUSY", "retryable": true, "retryAfterMs": 5 });
        let envelope = refused("x", refusal(None, "BUSY", &data)).envelope();
        assert_eq!(envelope["error"]["type"], "gateway_request_error");
        assert_eq!(envelope["error"]["code"], "BUSY");
        assert_eq!(envelope["error"]["retryable"], true);
        assert_eq!(envelope["error"]["retryAfterMs"], 5);
        assert_eq!(envelope["error"]["details"]["code"], "BUSY");
    }
}
