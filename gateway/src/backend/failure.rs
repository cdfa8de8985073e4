//! Failures of providers: which kind one is, what a caller is told of it, and whether the request may be repeated.
//!
//! What a caller is told is made here from a small set of sentences. What the provider said goes to the log at level
//! `debug`, masked, and to the raw stream: it may quote keys or what others said.

use std::{error::Error, time::Duration};

use jiff::Timestamp;
use reqwest::{StatusCode, header::HeaderMap};
use serde_json::Value;

use crate::backend::{BackendError, BackendErrorKind};

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// What the caller is told.
    pub(super) error: BackendError,
    /// Whether another attempt may go better.
    pub(super) may_repeat: bool,
    /// The pause that the provider asks for.
    pub(super) pause: Option<Duration>,
}

impl Failure {
    /// A failure that another attempt would meet again.
    pub(super) fn lasting(kind: BackendErrorKind, message: impl Into<String>) -> Self {
        Self { error: BackendError::new(kind, message), may_repeat: false, pause: None }
    }

    /// A failure that may pass.
    pub(super) fn passing(kind: BackendErrorKind, message: impl Into<String>) -> Self {
        Self { may_repeat: true, ..Self::lasting(kind, message) }
    }
}

/// Who failed, in the words of the sentences.
#[derive(Debug, Clone, Copy)]
pub(super) struct Who<'a> {
    /// The provider's id.
    pub(super) provider: &'a str,
    /// The model's id.
    pub(super) model: &'a str,
    /// Where requests go, without anything secret.
    pub(super) address: &'a str,
    /// What a user would change to give another key.
    pub(super) key_origin: &'a str,
}

impl Who<'_> {
    /// The failure that an answer with a status of failure means. `body` is its beginning.
    pub(super) fn status(&self, status: StatusCode, headers: &HeaderMap, body: &str) -> Failure {
        let said = serde_json::from_str::<Value>(body).unwrap_or(Value::Null);
        let mut failure = self.said(Some(status), &said);
        failure.pause = pause(headers, Timestamp::now());
        if let Some(pause) = failure.pause
            && failure.error.kind == BackendErrorKind::RateLimit
            && failure.may_repeat
        {
            failure.error.message = format!(
                "provider `{}` wants fewer requests; try again in {} s",
                self.provider,
                seconds(pause)
            );
        }
        failure
    }

    /// The failure that an error object means: in the body of an answer, or in the midst of a stream.
    pub(super) fn said(&self, status: Option<StatusCode>, said: &Value) -> Failure {
        use BackendErrorKind::{Auth, ContextLength, RateLimit, Refusal, Unknown};
        let Self { provider, model, address, key_origin } = self;
        let word = Word::of(said);
        let code = status.map_or(word.number.unwrap_or(0), |status| status.as_u16());
        if word.is_context_length() {
            return Failure::lasting(
                ContextLength,
                format!(
                    "the conversation does not fit the context window of `{provider}/{model}`; begin a new session, \
                     say less, or use a model with a larger window"
                ),
            );
        }
        if word.has(&["insufficient_quota", "billing", "credit balance"]) || code == 402 {
            return Failure::lasting(
                RateLimit,
                format!(
                    "the quota or credit of provider `{provider}` is used up; add to it, or use another model"
                ),
            );
        }
        if word.has(&["content_filter", "content_policy", "moderation"]) {
            return Failure::lasting(
                Refusal,
                format!("provider `{provider}` refused to answer this message"),
            );
        }
        if word.has(&["overloaded"]) || code == 529 {
            return Failure::passing(
                Unknown,
                format!("provider `{provider}` is overloaded; try again later"),
            );
        }
        match code {
            401 | 403 => Failure::lasting(
                Auth,
                format!("provider `{provider}` did not accept the credential; check {key_origin}"),
            ),
            404 => Failure::lasting(
                Unknown,
                format!(
                    "provider `{provider}` does not know the model `{model}`, or nothing answers at {address}; check \
                     the model's id and models.providers.{provider}.baseUrl"
                ),
            ),
            429 => Failure::passing(
                RateLimit,
                format!("provider `{provider}` wants fewer requests; try again later"),
            ),
            _ if word.has(&["rate_limit"]) => Failure::passing(
                RateLimit,
                format!("provider `{provider}` wants fewer requests; try again later"),
            ),
            _ if word.has(&["authentication", "invalid_api_key", "permission"]) => Failure::lasting(
                Auth,
                format!("provider `{provider}` did not accept the credential; check {key_origin}"),
            ),
            408 | 409 | 500..=599 => Failure::passing(
                Unknown,
                format!("provider `{provider}` failed with HTTP {code}; try again later"),
            ),
            300..=499 => Failure::lasting(
                Unknown,
                format!(
                    "provider `{provider}` refused the request with HTTP {code}; the log at level debug shows what it \
                     said"
                ),
            ),
            _ => Failure::passing(
                Unknown,
                format!("provider `{provider}` reported an error; the log at level debug shows what it said"),
            ),
        }
    }

    /// The failure of a request that got no answer, or of an answer that broke off.
    pub(super) fn transport(&self, error: &reqwest::Error) -> Failure {
        let Self { provider, address, .. } = self;
        if error.is_timeout() && error.is_connect() {
            return Failure::passing(
                BackendErrorKind::Timeout,
                format!(
                    "provider `{provider}` at {address} did not take the connection in time; is it running?"
                ),
            );
        }
        if error.is_connect() {
            // The innermost cause: a refused connection, a name that does not resolve, a certificate.
            let mut cause: &dyn Error = error;
            while let Some(source) = cause.source() {
                cause = source;
            }
            return Failure::passing(
                BackendErrorKind::Unknown,
                format!(
                    "provider `{provider}` cannot be reached at {address} ({cause}); is it running, and is \
                     models.providers.{provider}.baseUrl right?"
                ),
            );
        }
        self.broken_off()
    }

    /// The failure of an answer that ended too early.
    pub(super) fn broken_off(&self) -> Failure {
        let message =
            format!("the connection to provider `{}` broke off before the answer was whole", self.provider);
        Failure::passing(BackendErrorKind::Unknown, message)
    }

    /// The failure of an answer that is no answer of a model.
    pub(super) fn garbled(&self, what: &str) -> Failure {
        let Self { provider, address, .. } = self;
        Failure::lasting(
            BackendErrorKind::Unknown,
            format!(
                "provider `{provider}` answered with {what}, which its API does not allow; check that {address} is \
                 the API's address and models.providers.{provider}.api is what it speaks"
            ),
        )
    }

    /// The failure of a provider that was silent for too long. A repeat would wait as long again.
    pub(super) fn silent(&self, idle: Duration) -> Failure {
        let (provider, idle) = (self.provider, seconds(idle));
        Failure::lasting(
            BackendErrorKind::Timeout,
            format!(
                "provider `{provider}` sent nothing for {idle} s; if it is slow, raise \
                 models.providers.{provider}.timeoutSeconds"
            ),
        )
    }

    /// The failure of an answer that takes too long on the whole.
    pub(super) fn too_slow(&self, total: Duration) -> BackendError {
        let (provider, total) = (self.provider, seconds(total));
        BackendError::new(
            BackendErrorKind::Timeout,
            format!(
                "provider `{provider}` did not finish its answer within {total} s; if it is slow, raise \
                 models.providers.{provider}.timeoutSeconds"
            ),
        )
    }

    /// A model that refused.
    pub(super) fn refused(&self) -> Failure {
        let Self { provider, model, .. } = self;
        Failure::lasting(
            BackendErrorKind::Refusal,
            format!("the model `{provider}/{model}` refused to answer this message"),
        )
    }
}

/// The words by which an error object tells what it is.
struct Word {
    /// `type`, `code` and `message`, in lower case.
    text: String,
    /// `code`, where it is a number: OpenRouter puts the status there.
    number: Option<u16>,
}

impl Word {
    fn of(said: &Value) -> Self {
        let error = said.get("error").unwrap_or(said);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_lowercase();
        let words = ["type", "code", "message"].map(|key| error.get(key).map(text).unwrap_or_default());
        let number = error.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
        // Some servers say no more than a text.
        Self { text: format!("{} {}", words.join(" "), text(error)), number }
    }

    fn has(&self, parts: &[&str]) -> bool {
        parts.iter().any(|part| self.text.contains(part))
    }

    fn is_context_length(&self) -> bool {
        // OpenAI and vLLM, llama.cpp, Anthropic, OpenRouter.
        self.has(&[
            "context_length_exceeded",
            "maximum context length",
            "exceed_context_size",
            "exceeds the available context size",
            "prompt is too long",
            "request_too_large",
            "context window",
        ])
    }
}

/// The pause that a provider asks for: `retry-after-ms`, or `Retry-After` in seconds or as a date. RFC 9110 section
/// 10.2.3.
fn pause(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    // Ten days bound what arithmetic has to bear.
    let bounded = |seconds: f64| Duration::from_secs_f64(seconds.clamp(0.0, 864_000.0));
    let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
    if let Some(milliseconds) = text("retry-after-ms").and_then(number) {
        return Some(bounded(milliseconds / 1000.0));
    }
    let text = text("retry-after")?;
    if let Some(seconds) = number(text) {
        return Some(bounded(seconds));
    }
    let at = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    Some(bounded(at.duration_since(now).as_secs_f64()))
}

/// Whole seconds, rounded up; with a tenth where that would say nothing.
fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 1.0 { format!("{seconds:.1}") } else { format!("{:.0}", seconds.ceil()) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const WHO: Who<'_> = Who {
        provider: "acme",
        model: "m-1",
        address: "http://127.0.0.1:9/v1",
        key_origin: "models.providers.acme.apiKey",
    };

    #[test]
    fn the_kind_follows_from_status_and_words() {
        use BackendErrorKind::{Auth, ContextLength, RateLimit, Refusal, Unknown};
        let cases = [
            (401, json!({}), Auth, false),
            (403, json!({}), Auth, false),
            (404, json!({}), Unknown, false),
            (402, json!({}), RateLimit, false),
            (429, json!({}), RateLimit, true),
            (429, json!({ "error": { "code": "insufficient_quota" } }), RateLimit, false),
            (400, json!({ "error": { "code": "context_length_exceeded" } }), ContextLength, false),
            (400, json!({ "error": { "message": "prompt is too long: 9 tokens" } }), ContextLength, false),
            (400, json!({ "error": { "type": "exceed_context_size_error" } }), ContextLength, false),
            (400, json!({ "error": { "code": "content_filter" } }), Refusal, false),
            (400, json!({ "error": "nope" }), Unknown, false),
            (500, json!("text"), Unknown, true),
            (529, json!({ "error": { "type": "overloaded_error" } }), Unknown, true),
        ];
        for (status, body, kind, may_repeat) in cases {
            let status = StatusCode::from_u16(status).expect("a status");
            let failure = WHO.status(status, &HeaderMap::new(), &body.to_string());
            assert_eq!((failure.error.kind, failure.may_repeat), (kind, may_repeat), "{status} {body}");
            assert!(failure.error.message.contains("acme"), "{}", failure.error.message);
        }
    }

    #[test]
    fn what_the_provider_said_is_not_told() {
        let body = json!({ "error": { "message": "bad key sk-hush0123456789abcdef" } }).to_string();
        for status in [400, 401, 404, 429, 500] {
            let status = StatusCode::from_u16(status).expect("a status");
            let message = WHO.status(status, &HeaderMap::new(), &body).error.message;
            assert!(!message.contains("hush"), "{message}");
        }
    }

    #[test]
    fn pauses_are_seconds_milliseconds_or_dates() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().expect("a time");
        let of = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().expect("a header"));
            pause(&headers, now)
        };
        assert_eq!(of("retry-after", "7"), Some(Duration::from_secs(7)));
        assert_eq!(of("retry-after", " 1.5 "), Some(Duration::from_millis(1500)));
        assert_eq!(of("retry-after-ms", "250"), Some(Duration::from_millis(250)));
        assert_eq!(of("retry-after", "Sun, 22 Nov 2026 12:00:09 GMT"), Some(Duration::from_secs(9)));
        assert_eq!(of("retry-after", "Sun, 22 Nov 2026 11:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(of("retry-after", "-3"), Some(Duration::ZERO));
        assert_eq!(of("retry-after", "1e300"), Some(Duration::from_secs(864_000)));
        for nonsense in ["soon", "", "NaN"] {
            assert_eq!(of("retry-after", nonsense), None, "{nonsense}");
        }
    }
}
