//! What can go wrong with a call, by whose fault it is.
//!
//! Every path ends here: the WebSocket and HTTP transports, jsonrpsee's own errors, and the error objects that
//! the gateway answers. jsonrpsee's traits have an error type of their own; [`Error`] converts to it and back
//! without loss.

use std::{fmt, time::Duration};

use jsonrpsee::{core::client::Error as RpcClientError, types::ErrorObjectOwned};
use openclaw_schema::{ErrorCode, ErrorData, RpcError, problem::ParamProblem};
use serde_json::value::RawValue;

use crate::Fingerprint;

/// Why a call, or the connection beneath it, failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The caller asked for something that cannot be sent, or not over this transport. Nothing was sent.
    #[error("{message}")]
    InvalidInput {
        /// The method whose params are wrong; absent when the fault lies elsewhere, as in the URL.
        method: Option<String>,
        /// What is wrong, in one sentence. For params the same sentence that the gateway would answer.
        message: String,
        /// Where the params are wrong, what is allowed there, and what was probably meant.
        problem: Option<Box<ParamProblem>>,
    },
    /// The gateway cannot be reached, or the connection to it ended.
    #[error("{}", transport_sentence(*kind, url, reason))]
    Transport {
        /// What happened.
        kind: TransportKind,
        /// The gateway, without query and credentials.
        url: String,
        /// The cause in words: of the operating system, of the gateway's close frame, or of its HTTP answer.
        reason: String,
        /// Whether the call was on its way when the connection ended: the gateway may have carried it out.
        sent: bool,
    },
    /// The gateway received the call and answered an error.
    #[error("{} ({})", .0.message, .0.code_name)]
    Refused(Box<Refusal>),
    /// What the gateway sent cannot be read.
    #[error("{what} cannot be read: {reason}")]
    BadPayload {
        /// What was being read.
        what: String,
        /// Why it cannot be read.
        reason: String,
    },
    /// A time limit of this client passed. [`Error::may_have_executed`] says what that means for the call.
    #[error("{what} within {after:?}")]
    Timeout {
        /// What did not happen in time.
        what: TimeoutKind,
        /// The limit.
        after: Duration,
    },
    /// No credential, or a wrong one; or a device that is to be paired first.
    #[error("{message}")]
    Unauthorized {
        /// What the gateway says about it.
        message: String,
        /// Its details as sent, in the handshake of OpenClaw frames: which secret is wrong, or which pairing
        /// request waits for approval.
        details: Option<Box<RawValue>>,
    },
    /// Too many wrong credentials came from this address, and the gateway looks at none for a while, right ones
    /// included.
    #[error("{message}")]
    RateLimited {
        /// What the gateway says about it.
        message: String,
        /// How long that lasts, if the gateway says so.
        retry_after: Option<Duration>,
    },
    /// The gateway shows a TLS certificate that is not trusted. Nothing was sent.
    #[error("the TLS certificate of {url} is not trusted: {reason} (its SHA-256 is {shown})")]
    Untrusted {
        /// The gateway.
        url: String,
        /// The digest of the certificate that it shows.
        shown: Fingerprint,
        /// The digest that it should have, if one was given.
        expected: Option<Fingerprint>,
        /// Why it is not trusted.
        reason: String,
    },
    /// The other side is no gateway, or one that speaks another version of the protocol.
    #[error("{message}")]
    ProtocolMismatch {
        /// What it is instead, and what to do.
        message: String,
    },
}

/// What happened to the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransportKind {
    /// No connection could be made: nobody listens, the name does not resolve, TLS was refused.
    Unreachable,
    /// The connection ended before the answer came.
    Closed {
        /// The code of the close frame (RFC 6455 section 7.4); absent when there was none.
        code: Option<u16>,
    },
    /// The other side answered with an HTTP status that is no answer to the call.
    Rejected {
        /// The HTTP status.
        status: u16,
    },
    /// A subscription ended because its items were read more slowly than they came. The connection goes on.
    Lagged,
}

/// What did not happen in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeoutKind {
    /// The TCP connection was not made.
    Connect,
    /// The connection was made, but TLS or the WebSocket upgrade was not finished.
    Handshake,
    /// The call was not answered.
    Call,
    /// The connection broke, and no other one was made in time. The call was not sent.
    Reconnect,
}

impl fmt::Display for TimeoutKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "the gateway did not accept the connection",
            Self::Handshake => "the gateway did not finish the handshake",
            Self::Call => "the gateway did not answer the call",
            Self::Reconnect => "the connection to the gateway was not restored",
        })
    }
}

/// An error that the gateway answered.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The JSON-RPC error number.
    pub number: i32,
    /// The code, if it is one of this contract version.
    pub code: Option<ErrorCode>,
    /// The string code as sent, for example `FORBIDDEN`; the number as text when none was sent.
    pub code_name: String,
    /// One sentence for people.
    pub message: String,
    /// The details as sent.
    pub data: Option<Box<RawValue>>,
}

impl Refusal {
    /// The details, if they have the shape that this contract version declares.
    #[must_use]
    pub fn details(&self) -> Option<ErrorData> {
        self.data.as_deref().and_then(|data| serde_json::from_str(data.get()).ok())
    }

    fn from_object(error: &ErrorObjectOwned) -> Self {
        let data = error.data().map(ToOwned::to_owned);
        let named = data
            .as_deref()
            .and_then(|data| serde_json::from_str::<NamedCode>(data.get()).ok())
            .map(|d| d.code);
        let code = named
            .as_deref()
            .and_then(ErrorCode::from_name)
            .or_else(|| if named.is_none() { ErrorCode::from_number(error.code()) } else { None });
        let code_name = named
            .or_else(|| code.map(|code| code.name().to_owned()))
            .unwrap_or_else(|| error.code().to_string());
        Self { number: error.code(), code, code_name, message: error.message().to_owned(), data }
    }
}

/// The one field of `data` that every error carries.
#[derive(serde::Deserialize)]
struct NamedCode {
    code: String,
}

impl Error {
    /// Whether the same call may succeed later.
    ///
    /// This does not say that a failed call had no effect: see [`Error::may_have_executed`].
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Transport { kind, .. } => match kind {
                TransportKind::Unreachable | TransportKind::Closed { .. } | TransportKind::Lagged => true,
                // Too many requests, and what proxies answer while the gateway is away.
                TransportKind::Rejected { status } => matches!(status, 429 | 502 | 503 | 504),
            },
            Self::Refused(refusal) => match (refusal.details(), refusal.code) {
                (Some(details), _) => details.retryable,
                (None, Some(code)) => code.is_retryable(),
                (None, None) => false,
            },
            Self::Timeout { .. } | Self::RateLimited { .. } => true,
            Self::InvalidInput { .. }
            | Self::BadPayload { .. }
            | Self::Unauthorized { .. }
            | Self::Untrusted { .. }
            | Self::ProtocolMismatch { .. } => false,
        }
    }

    /// Whether the gateway may have carried out the call, wholly or in part.
    ///
    /// If so, a call that is not idempotent is safe to repeat only with the idempotency key of the first attempt.
    #[must_use]
    pub fn may_have_executed(&self) -> bool {
        match self {
            Self::Transport { sent, .. } => *sent,
            Self::Refused(refusal) => match refusal.code {
                Some(ErrorCode::Internal | ErrorCode::DeadlineExceeded) => true,
                Some(_) => false,
                // Who knows what it means.
                None => true,
            },
            Self::Timeout { what, .. } => match what {
                TimeoutKind::Call => true,
                TimeoutKind::Connect | TimeoutKind::Handshake | TimeoutKind::Reconnect => false,
            },
            // The answer came; it is what cannot be read.
            Self::BadPayload { .. } => true,
            Self::InvalidInput { .. }
            | Self::Unauthorized { .. }
            | Self::RateLimited { .. }
            | Self::Untrusted { .. }
            | Self::ProtocolMismatch { .. } => false,
        }
    }

    /// The code of the contract, where there is one.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::InvalidInput { problem, .. } => problem.is_some().then_some(ErrorCode::InvalidParams),
            Self::Refused(refusal) => refusal.code,
            Self::Unauthorized { .. } => Some(ErrorCode::Unauthorized),
            Self::RateLimited { .. } => Some(ErrorCode::RateLimited),
            Self::Transport { .. }
            | Self::BadPayload { .. }
            | Self::Timeout { .. }
            | Self::Untrusted { .. }
            | Self::ProtocolMismatch { .. } => None,
        }
    }

    /// How long the gateway asks to wait before a retry.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.details()?.retry_after_ms.map(Duration::from_millis),
            Self::RateLimited { retry_after, .. } => *retry_after,
            Self::InvalidInput { .. }
            | Self::Transport { .. }
            | Self::BadPayload { .. }
            | Self::Timeout { .. }
            | Self::Unauthorized { .. }
            | Self::Untrusted { .. }
            | Self::ProtocolMismatch { .. } => None,
        }
    }

    /// Input that is wrong for a reason other than its params.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::InvalidInput { method: None, message: message.into(), problem: None }
    }

    /// Params of `method` that its declaration does not allow.
    pub(crate) fn invalid_params(method: &str, problem: ParamProblem) -> Self {
        let message = problem.clone().into_error(method).message;
        Self::InvalidInput { method: Some(method.to_owned()), message, problem: Some(Box::new(problem)) }
    }

    /// A subscription was asked for over HTTP.
    pub(crate) fn no_subscriptions_over_http() -> Self {
        Self::invalid("events and other subscriptions are not available over HTTP; connect with a ws:// URL")
    }

    pub(crate) fn transport(kind: TransportKind, url: &str, reason: impl fmt::Display) -> Self {
        Self::Transport { kind, url: url.to_owned(), reason: reason.to_string(), sent: false }
    }

    /// The same for a call that was on its way.
    pub(crate) fn in_flight(mut self) -> Self {
        if let Self::Transport { kind: TransportKind::Closed { .. }, sent, .. } = &mut self {
            *sent = true;
        }
        self
    }

    pub(crate) fn bad_payload(what: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self::BadPayload { what: what.into(), reason: reason.to_string() }
    }

    /// The result of `method` does not have the declared shape.
    pub(crate) fn bad_result(method: &str, reason: impl fmt::Display) -> Self {
        Self::bad_payload(format!("the result of `{method}`"), reason)
    }

    /// An error object that the gateway answered.
    pub(crate) fn refused(error: &ErrorObjectOwned) -> Self {
        let refusal = Refusal::from_object(error);
        match refusal.code {
            Some(ErrorCode::Unauthorized) => {
                #[derive(serde::Deserialize)]
                struct Details {
                    details: Option<Box<RawValue>>,
                }
                let read = |data: &RawValue| serde_json::from_str::<Details>(data.get()).ok();
                let details = refusal.data.as_deref().and_then(read).and_then(|data| data.details);
                Self::Unauthorized { message: refusal.message, details }
            }
            Some(ErrorCode::RateLimited) => {
                let after = refusal.details().and_then(|details| details.retry_after_ms);
                Self::RateLimited { message: refusal.message, retry_after: after.map(Duration::from_millis) }
            }
            _ => Self::Refused(Box::new(refusal)),
        }
    }

    /// An error of jsonrpsee's client core on a connection to `url`.
    pub(crate) fn from_rpc(error: &RpcClientError, url: &str) -> Self {
        match error {
            RpcClientError::Call(object) => Self::refused(object),
            RpcClientError::Transport(source) => match source.downcast_ref::<Self>() {
                Some(error) => error.clone(),
                None => Self::transport(TransportKind::Closed { code: None }, url, source),
            },
            // The connection has ended; the cause lies within.
            RpcClientError::RestartNeeded(cause) => Self::from_rpc(cause, url),
            RpcClientError::HttpNotImplemented => Self::no_subscriptions_over_http(),
            RpcClientError::EmptyBatchRequest(_) => Self::invalid("a batch must hold at least one call"),
            RpcClientError::RegisterMethod(problem) => Self::invalid(problem.to_string()),
            RpcClientError::ParseError(problem) => Self::bad_payload("the gateway's answer", problem),
            RpcClientError::InvalidRequestId(problem) => {
                Self::bad_payload("the gateway's answer", format!("it belongs to no call: {problem}"))
            }
            RpcClientError::InvalidSubscriptionId => {
                Self::bad_payload("the gateway's answer", "the subscription id is taken already")
            }
            RpcClientError::Custom(problem) => Self::bad_payload("the gateway's answer", problem),
            RpcClientError::RequestTimeout => {
                // Only foreign jsonrpsee clients answer this, with jsonrpsee's default limit.
                Self::Timeout { what: TimeoutKind::Call, after: Duration::from_secs(60) }
            }
            RpcClientError::ServiceDisconnect => {
                Self::transport(TransportKind::Closed { code: None }, url, "the connection has ended")
            }
        }
    }
}

fn transport_sentence(kind: TransportKind, url: &str, reason: &str) -> String {
    let gateway = if url.is_empty() { "the gateway".to_owned() } else { format!("the gateway at {url}") };
    match kind {
        TransportKind::Unreachable => format!("{gateway} cannot be reached: {reason}"),
        TransportKind::Closed { code: Some(code) } => {
            format!("{gateway} closed the connection: {reason} (code {code})")
        }
        TransportKind::Closed { code: None } => format!("the connection to {gateway} ended: {reason}"),
        TransportKind::Rejected { status } => format!("{gateway} answered HTTP {status}: {reason}"),
        TransportKind::Lagged => format!("events of {gateway} were lost: {reason}"),
    }
}

impl From<RpcClientError> for Error {
    fn from(error: RpcClientError) -> Self {
        Self::from_rpc(&error, "")
    }
}

impl From<Error> for RpcClientError {
    /// Error objects stay error objects; the rest travels whole as a transport error.
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(refusal) => {
                Self::Call(ErrorObjectOwned::owned(refusal.number, refusal.message, refusal.data))
            }
            Error::Unauthorized { message, details: None } => {
                Self::Call(RpcError::unauthorized(message).into())
            }
            Error::Unauthorized { message, details: Some(details) } => {
                let error = RpcError::unauthorized(message);
                let data = serde_json::json!({
                    "code": error.data.code, "retryable": error.data.retryable, "details": details,
                });
                Self::Call(ErrorObjectOwned::owned(error.code.number(), error.message, Some(data)))
            }
            Error::RateLimited { message, retry_after } => {
                let mut error = RpcError::new(ErrorCode::RateLimited, message);
                error.data.retry_after_ms =
                    retry_after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
                Self::Call(error.into())
            }
            other @ (Error::InvalidInput { .. }
            | Error::Transport { .. }
            | Error::BadPayload { .. }
            | Error::Timeout { .. }
            | Error::Untrusted { .. }
            | Error::ProtocolMismatch { .. }) => Self::Transport(Box::new(other)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn object(code: i32, data: Option<serde_json::Value>) -> ErrorObjectOwned {
        ErrorObjectOwned::owned(code, "no", data)
    }

    #[test]
    fn a_refusal_is_known_by_its_name_first_and_by_its_number_second() {
        let refusal = |error| Refusal::from_object(&error);
        let named = refusal(object(-32099, Some(serde_json::json!({ "code": "NOT_FOUND" }))));
        assert_eq!((named.code, named.code_name.as_str()), (Some(ErrorCode::NotFound), "NOT_FOUND"));
        let numbered = refusal(object(-32601, None));
        assert_eq!(
            (numbered.code, numbered.code_name.as_str()),
            (Some(ErrorCode::MethodNotFound), "METHOD_NOT_FOUND")
        );
        let newer = refusal(object(-32098, Some(serde_json::json!({ "code": "TOO_WARM" }))));
        assert_eq!((newer.code, newer.code_name.as_str()), (None, "TOO_WARM"));
        let foreign = refusal(object(-1, Some(serde_json::json!("text"))));
        assert_eq!((foreign.code, foreign.code_name.as_str()), (None, "-1"));
    }

    #[test]
    fn retries_follow_what_the_gateway_says() {
        let error = Error::refused(&object(
            -32022,
            Some(serde_json::json!({ "code": "UNAVAILABLE", "retryable": true, "retryAfterMs": 1000 })),
        ));
        assert!(error.is_retryable());
        assert_eq!(error.retry_after(), Some(Duration::from_secs(1)));
        assert_eq!(error.code(), Some(ErrorCode::Unavailable));
        let rejected = |status| Error::transport(TransportKind::Rejected { status }, "", "");
        assert!(rejected(503).is_retryable() && !rejected(404).is_retryable());
    }

    #[test]
    fn only_what_may_have_reached_the_gateway_may_have_been_carried_out() {
        let transport = |kind| Error::transport(kind, "", "");
        let timeout = |what| Error::Timeout { what, after: Duration::from_secs(1) };
        let refused = |name: &str| Error::refused(&object(-32000, Some(serde_json::json!({ "code": name }))));
        for (error, may_have) in [
            (transport(TransportKind::Closed { code: Some(1012) }).in_flight(), true),
            (transport(TransportKind::Closed { code: None }), false),
            (transport(TransportKind::Unreachable).in_flight(), false),
            (timeout(TimeoutKind::Call), true),
            (timeout(TimeoutKind::Reconnect), false),
            (timeout(TimeoutKind::Connect), false),
            (refused("INTERNAL"), true),
            (refused("TOO_WARM"), true),
            (refused("FORBIDDEN"), false),
            (refused("UNAVAILABLE"), false),
            (Error::bad_result("health", "it is a list"), true),
            (Error::invalid("wrong"), false),
        ] {
            assert_eq!(error.may_have_executed(), may_have, "{error:?}");
        }
    }

    #[test]
    fn errors_pass_through_jsonrpsee_without_loss() {
        let closed = Error::transport(TransportKind::Closed { code: Some(1012) }, "ws://host/", "restarting")
            .in_flight();
        let wrapped = RpcClientError::RestartNeeded(Arc::new(closed.clone().into()));
        assert_eq!(Error::from(wrapped).to_string(), closed.to_string());
        for error in [
            closed,
            Error::invalid("wrong"),
            Error::Unauthorized { message: "no token".to_owned(), details: None },
            Error::Unauthorized {
                message: "pair first".to_owned(),
                details: Some(RawValue::from_string(r#"{"requestId":"r"}"#.to_owned()).expect("it is JSON")),
            },
            Error::RateLimited {
                message: "too many".to_owned(),
                retry_after: Some(Duration::from_secs(300)),
            },
            Error::RateLimited { message: "too many".to_owned(), retry_after: None },
            Error::refused(&object(-32024, Some(serde_json::json!({ "code": "NOT_FOUND" })))),
            Error::Timeout { what: TimeoutKind::Call, after: Duration::from_secs(1) },
            Error::bad_result("health", "it is a list"),
        ] {
            let there_and_back = Error::from(RpcClientError::from(error.clone()));
            assert_eq!(format!("{there_and_back:?}"), format!("{error:?}"));
        }
    }
}
