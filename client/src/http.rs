//! JSON-RPC over HTTP: one POST per call.

use std::{
    fmt,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use jsonrpsee::types::ErrorObjectOwned;
use reqwest::{StatusCode, header, redirect};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    connection::{Endpoint, GATEWAY_HEADER, Options},
    error::{Error, TimeoutKind, TransportKind},
    tls::{self, Trust},
    websocket::ErrorAnswer,
};

/// A gateway that is called over HTTP. Connections are made as calls need them, and kept for the next.
pub(crate) struct Http {
    client: reqwest::Client,
    trust: Trust,
    url: reqwest::Url,
    shown: String,
    connect_timeout: std::time::Duration,
    max_response_bytes: usize,
    next_id: AtomicU64,
    server_version: OnceLock<String>,
}

impl fmt::Debug for Http {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Http").finish_non_exhaustive()
    }
}

/// A request, or a notification when it has no id.
#[derive(Serialize)]
struct Request<'a> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<&'a RawValue>,
}

impl<'a> Request<'a> {
    fn new(id: Option<u64>, method: &'a str, params: Option<&'a RawValue>) -> Self {
        Self { jsonrpc: "2.0", id, method, params }
    }

    fn text(&self) -> String {
        serde_json::to_string(self).expect("texts, numbers and JSON serialise")
    }
}

#[derive(Deserialize)]
struct Answer {
    id: Option<u64>,
    /// Present also where it is `null`.
    #[serde(default, deserialize_with = "present")]
    result: Option<Box<RawValue>>,
    #[serde(default)]
    error: Option<ErrorObjectOwned>,
}

/// Tells a result that is `null` from none.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    <Box<RawValue> as serde::Deserialize>::deserialize(deserializer).map(Some)
}

impl Http {
    /// Prepares the calls. Nothing is sent.
    pub(crate) fn new(endpoint: &Endpoint, options: &Options) -> Result<Self, Error> {
        let unusable = |cause: &dyn fmt::Display| {
            Error::transport(TransportKind::Unreachable, &endpoint.shown, format!("TLS failed: {cause}"))
        };
        let trust = Trust::new(options.tls_fingerprint);
        let config = if endpoint.tls { trust.config() } else { tls::unused_config() };
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(config.map_err(|cause| unusable(&cause))?)
            .default_headers(options.headers.clone())
            .connect_timeout(options.connect_timeout)
            // A redirect would carry the credential to a place that nobody named.
            .redirect(redirect::Policy::none())
            .tcp_nodelay(true);
        if endpoint.loopback {
            // A proxy cannot reach this host's own loopback.
            builder = builder.no_proxy();
        }
        Ok(Self {
            client: builder.build().map_err(|cause| unusable(&cause))?,
            trust,
            url: endpoint.url.clone(),
            shown: endpoint.shown.clone(),
            connect_timeout: options.connect_timeout,
            max_response_bytes: options.max_response_bytes,
            next_id: AtomicU64::new(1),
            server_version: OnceLock::new(),
        })
    }

    pub(crate) fn server_version(&self) -> Option<&str> {
        self.server_version.get().map(String::as_str)
    }

    /// Calls `method` and waits for its result, without a time limit.
    pub(crate) async fn request(
        &self,
        method: &str,
        params: Option<&RawValue>,
    ) -> Result<Box<RawValue>, Error> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let body = self.post(Request::new(Some(id), method, params).text()).await?;
        let answer: Answer =
            serde_json::from_slice(&body).map_err(|cause| Error::bad_result(method, cause))?;
        match answer {
            Answer { error: Some(error), .. } => Err(Error::refused(&error)),
            Answer { id: Some(answered), result: Some(result), .. } if answered == id => Ok(result),
            Answer { result: None, .. } => Err(Error::bad_result(method, "the answer has no result")),
            Answer { .. } => Err(Error::bad_result(method, "the answer carries another id")),
        }
    }

    pub(crate) async fn notify(&self, method: &str, params: Option<&RawValue>) -> Result<(), Error> {
        self.post(Request::new(None, method, params).text()).await.map(|_| ())
    }

    /// Makes several calls with one POST. The answers come in the order of the calls.
    pub(crate) async fn batch(
        &self,
        calls: &[(&str, Option<Box<RawValue>>)],
    ) -> Result<Vec<Result<Box<RawValue>, ErrorObjectOwned>>, Error> {
        let first = self.next_id.fetch_add(calls.len() as u64, Ordering::Relaxed);
        let requests: Vec<Request<'_>> = (first..)
            .zip(calls)
            .map(|(id, (method, params))| Request::new(Some(id), method, params.as_deref()))
            .collect();
        let body = serde_json::to_string(&requests).expect("texts, numbers and JSON serialise");
        let body = self.post(body).await?;
        // A batch as a whole is refused with a single error.
        if let Ok(answer) = serde_json::from_slice::<ErrorAnswer>(&body) {
            return Err(Error::refused(&answer.error));
        }
        let bad = |reason: &dyn fmt::Display| Error::bad_payload("the answer to a batch", reason);
        let mut answers: Vec<Answer> = serde_json::from_slice(&body).map_err(|cause| bad(&cause))?;
        answers.sort_by_key(|answer| answer.id);
        if !answers.iter().map(|answer| answer.id).eq((first..).take(calls.len()).map(Some)) {
            return Err(bad(&"the ids of the answers are not those of the calls"));
        }
        answers
            .into_iter()
            .map(|answer| match (answer.result, answer.error) {
                (_, Some(error)) => Ok(Err(error)),
                (Some(result), None) => Ok(Ok(result)),
                (None, None) => Err(bad(&"one answer has neither result nor error")),
            })
            .collect()
    }

    async fn post(&self, body: String) -> Result<Vec<u8>, Error> {
        let request =
            self.client.post(self.url.clone()).header(header::CONTENT_TYPE, "application/json").body(body);
        let mut response = request.send().await.map_err(|error| self.explained(&error))?;
        let gateway = response.headers().get(GATEWAY_HEADER).and_then(|version| version.to_str().ok());
        let ours = gateway.is_some();
        if let Some(version) = gateway {
            self.server_version.get_or_init(|| version.to_owned());
        }
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.explained(&error))? {
            if body.len() + chunk.len() > self.max_response_bytes {
                let reason = format!(
                    "it has more than {} bytes; `ClientBuilder::max_response_bytes` sets the bound",
                    self.max_response_bytes
                );
                return Err(Error::bad_payload("the gateway's answer", reason));
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return Ok(body);
        }
        Err(self.rejected(status, &body, ours))
    }

    fn rejected(&self, status: StatusCode, body: &[u8], ours: bool) -> Error {
        if let Ok(answer) = serde_json::from_slice::<ErrorAnswer>(body) {
            return Error::refused(&answer.error);
        }
        if status == StatusCode::UNAUTHORIZED {
            return Error::Unauthorized {
                message: format!("the gateway at {} wants a valid credential", self.shown),
                details: None,
            };
        }
        if !ours && matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) {
            return Error::ProtocolMismatch {
                message: format!(
                    "nothing at {} takes JSON-RPC calls (HTTP {status}): it is a stock gateway, or no gateway",
                    self.shown
                ),
            };
        }
        let reason = status.canonical_reason().unwrap_or("no answer to the call");
        Error::transport(TransportKind::Rejected { status: status.as_u16() }, &self.shown, reason)
    }

    fn explained(&self, error: &reqwest::Error) -> Error {
        if error.is_timeout() {
            // The only limit that is set on this client; calls are bounded above it.
            return Error::Timeout { what: TimeoutKind::Connect, after: self.connect_timeout };
        }
        if let Some(untrusted) = self.trust.error(&self.shown) {
            return untrusted;
        }
        // The innermost cause says what happened; those around it repeat the URL.
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        let kind = if error.is_connect() {
            TransportKind::Unreachable
        } else {
            TransportKind::Closed { code: None }
        };
        Error::transport(kind, &self.shown, cause)
    }
}
