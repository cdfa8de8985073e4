//! A provider: models behind one HTTP endpoint. Sends requests, reads their streams, keeps the deadlines, repeats what
//! may be repeated. What the two APIs say is read in `openai` and `anthropic`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use reqwest::{
    Client, Method, RequestBuilder, Response, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
    redirect,
};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::BuilderVerifierExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};
use tokio::{
    sync::OnceCell,
    time::{Instant, timeout, timeout_at},
};

use super::{
    BackendAnswer, BackendError, BackendErrorKind, BackendRequest, TextSink, anthropic, cancelled,
    failure::{Failure, Who},
    openai,
    raw::{RawStream, scrub},
    reading::Reading,
    settings::{Api, ModelRow, ProviderSettings},
    sse::{Decoder, Event},
    thinking::Manner,
};

/// How much of the body of a failure is read, to find out what it is.
const MAX_FAILURE_BYTES: usize = 64 * 1024;
/// How long that may take.
const FAILURE_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest list of models that is read.
const MAX_LIST_BYTES: usize = 8 << 20;
/// How long the list of models may take: somebody waits for it.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection that nobody uses is kept. Each holds buffers.
const POOL_IDLE: Duration = Duration::from_secs(30);

/// One provider.
#[derive(Debug)]
pub(super) struct Provider {
    id: String,
    pub(super) settings: ProviderSettings,
    address: String,
    /// Made when it is needed: reading the roots of TLS takes time and memory.
    client: OnceCell<Client>,
}

/// Text on its way to a caller, and whether any has gone.
#[derive(Debug, Clone)]
pub(super) struct Flow {
    pub(super) output: TextSink,
    flowed: Arc<AtomicBool>,
}

impl Flow {
    /// Text that goes on to `output`.
    pub(super) fn new(output: TextSink) -> Self {
        let flowed = Arc::new(AtomicBool::new(false));
        let noted = Arc::clone(&flowed);
        let output = TextSink::new(move |text| {
            if !text.is_empty() {
                noted.store(true, Ordering::Relaxed);
                output.push(text);
            }
        });
        Self { output, flowed }
    }

    /// Whether a caller has seen text: nothing may be tried again then.
    pub(super) fn has_flowed(&self) -> bool {
        self.flowed.load(Ordering::Relaxed)
    }
}

impl Provider {
    /// The provider of this id. Nothing is sent, and no client is made.
    pub(super) fn new(id: &str, mut settings: ProviderSettings) -> Self {
        let address = match Url::parse(&settings.base_url) {
            Ok(url) => format!("{}{}", url.origin().ascii_serialization(), url.path().trim_end_matches('/')),
            Err(_) => {
                let key = format!("models.providers.{id}.baseUrl");
                let problem = || format!("provider `{id}` has no usable address: {key} is not a URL");
                settings.problem.get_or_insert_with(problem);
                "its address".to_owned()
            }
        };
        Self { id: id.to_owned(), settings, address, client: OnceCell::new() }
    }

    /// The secrets that requests carry.
    pub(super) fn secrets(&self) -> impl Iterator<Item = SecretString> {
        self.settings.key.iter().chain(self.settings.headers.iter().map(|(_, value)| value)).cloned()
    }

    /// Answers `request` with the model of `row`.
    pub(super) async fn answer(
        &self,
        request: &BackendRequest,
        row: &ModelRow,
        params: &Map<String, Value>,
        manner: Manner,
        flow: &Flow,
        raw: &RawStream,
    ) -> Result<BackendAnswer, BackendError> {
        if let Some(problem) = &self.settings.problem {
            return Err(BackendError::new(BackendErrorKind::Auth, problem));
        }
        let body = match self.settings.api {
            Api::OpenAiCompletions => openai::body(&self.settings, row, params, manner, request),
            Api::AnthropicMessages => anthropic::body(&self.settings, row, params, manner, request),
        };
        let body = body.to_string();
        raw.tell("request", &body);
        tokio::select! {
            biased;
            () = request.cancel.cancelled() => {
                raw.tell("cancelled", "");
                Err(cancelled())
            }
            answer = self.attempts(&body, row, request, flow, raw) => answer,
        }
    }

    async fn attempts(
        &self,
        body: &str,
        row: &ModelRow,
        request: &BackendRequest,
        flow: &Flow,
        raw: &RawStream,
    ) -> Result<BackendAnswer, BackendError> {
        let (who, retry) = (self.who(row), self.settings.retry);
        let deadline = Instant::now() + self.settings.deadlines.total;
        let mut pause = retry.pause;
        let mut repeats = 0;
        // The model is named, as it may be a fallback.
        let count = |reading: &Reading| {
            let so_far = reading.clone().answer(row.prices);
            request.meter.tell(BackendAnswer { model: Some(request.model.clone()), ..so_far });
        };
        loop {
            let attempt = timeout_at(deadline, self.attempt(who, body, &count, flow, raw)).await;
            let failure = match attempt {
                Ok(Ok(reading)) => return Ok(reading.answer(row.prices)),
                Ok(Err(failure)) => failure,
                Err(_) => return Err(who.too_slow(self.settings.deadlines.total)),
            };
            raw.tell("failure", &failure.error.message);
            let wait = failure.pause.unwrap_or(pause);
            let is_over = repeats == retry.times || Instant::now() + wait >= deadline;
            if !failure.may_repeat || flow.has_flowed() || is_over || wait > retry.max_pause {
                return Err(failure.error);
            }
            tracing::debug!(
                provider = self.id,
                ?wait,
                reason = failure.error.message,
                "the request is repeated"
            );
            tokio::time::sleep(wait).await;
            repeats += 1;
            pause = pause.saturating_mul(2);
        }
    }

    async fn attempt(
        &self,
        who: Who<'_>,
        body: &str,
        count: &(dyn Fn(&Reading) + Sync),
        flow: &Flow,
        raw: &RawStream,
    ) -> Result<Reading, Failure> {
        let idle = self.settings.deadlines.idle;
        let path = match self.settings.api {
            Api::OpenAiCompletions => openai::PATH,
            Api::AnthropicMessages => anthropic::PATH,
        };
        let request = self
            .request(Method::POST, path)
            .await?
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "text/event-stream")
            .body(body.to_owned());
        let response = match timeout(idle, request.send()).await {
            Ok(sent) => sent.map_err(|error| who.transport(&error))?,
            Err(_) => return Err(who.silent(idle)),
        };
        let status = response.status();
        raw.tell("status", status.as_str());
        if !status.is_success() {
            let headers = response.headers().clone();
            let said = beginning(response).await;
            self.note(status.as_str(), &said, raw);
            return Err(who.status(status, &headers, &said));
        }
        let is_stream = response
            .headers()
            .get(CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .is_some_and(|kind| kind.starts_with("text/event-stream"));
        if !is_stream {
            let said = beginning(response).await;
            self.note("not a stream", &said, raw);
            return Err(match serde_json::from_str::<Value>(&said) {
                Ok(said) if said.get("error").is_some() => who.said(None, &said),
                _ => who.garbled("something else than a stream of events"),
            });
        }
        self.stream(who, response, count, flow, raw).await
    }

    /// Reads the stream of an answer to its end.
    async fn stream(
        &self,
        who: Who<'_>,
        mut response: Response,
        count: &(dyn Fn(&Reading) + Sync),
        flow: &Flow,
        raw: &RawStream,
    ) -> Result<Reading, Failure> {
        let idle = self.settings.deadlines.idle;
        let (mut decoder, mut reading) = (Decoder::default(), Reading::default());
        let ended_early = loop {
            let chunk = match timeout(idle, response.chunk()).await {
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) => break who.broken_off(),
                Ok(Err(error)) => break who.transport(&error),
                Err(_) => break who.silent(idle),
            };
            let events = decoder.push(&chunk).map_err(|_| who.garbled("an event without an end"))?;
            for event in events {
                raw.tell("event", &event.data);
                let before = reading.usage;
                self.read(who, &event, &mut reading, flow)?;
                if reading.usage != before {
                    count(&reading);
                }
            }
            if reading.finished {
                break who.broken_off();
            }
        };
        flow.output.push(&reading.thoughts.rest());
        if reading.refused {
            return Err(who.refused());
        }
        // Some servers end without the last word: the reason to stop is enough.
        if reading.finished || reading.stop_reason.is_some() { Ok(reading) } else { Err(ended_early) }
    }

    fn read(&self, who: Who<'_>, event: &Event, reading: &mut Reading, flow: &Flow) -> Result<(), Failure> {
        match self.settings.api {
            Api::OpenAiCompletions => openai::read(who, event, reading, &flow.output),
            Api::AnthropicMessages => anthropic::read(who, event, reading, &flow.output),
        }
    }

    /// Asks the endpoint for its models.
    pub(super) async fn list(&self) -> Result<Vec<ModelRow>, BackendError> {
        if let Some(problem) = &self.settings.problem {
            return Err(BackendError::new(BackendErrorKind::Auth, problem));
        }
        let row = ModelRow { id: "its models".to_owned(), ..ModelRow::default() };
        let who = self.who(&row);
        let asked = async {
            let path = match self.settings.api {
                Api::OpenAiCompletions => openai::MODELS_PATH,
                Api::AnthropicMessages => anthropic::MODELS_PATH,
            };
            let request = self.request(Method::GET, path).await?;
            let response = request.send().await.map_err(|error| who.transport(&error))?;
            let status = response.status();
            if !status.is_success() {
                let headers = response.headers().clone();
                return Err(who.status(status, &headers, &beginning(response).await));
            }
            let body = read_body(response, MAX_LIST_BYTES).await.map_err(|error| who.transport(&error))?;
            let models = serde_json::from_slice(&body).ok().and_then(|answer: Value| openai::models(&answer));
            models.ok_or_else(|| who.garbled("no list of models"))
        };
        match timeout(LIST_TIMEOUT, asked).await {
            Ok(models) => models.map_err(|failure| failure.error),
            Err(_) => Err(who.silent(LIST_TIMEOUT).error),
        }
    }

    fn who<'a>(&'a self, row: &'a ModelRow) -> Who<'a> {
        Who {
            provider: &self.id,
            model: &row.id,
            address: &self.address,
            key_origin: &self.settings.key_origin,
        }
    }

    /// Logs what a provider said of a failure.
    fn note(&self, status: &str, said: &str, raw: &RawStream) {
        raw.tell("body", said);
        if tracing::enabled!(tracing::Level::DEBUG) {
            let secrets: Vec<_> = self.secrets().collect();
            let said = scrub(said.to_owned(), &secrets);
            tracing::debug!(provider = self.id, status, said, "what the provider said");
        }
    }

    async fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, Failure> {
        let client = self.client.get_or_try_init(|| self.make_client()).await?;
        // The Messages API counts its version into the path; people write base URLs with it and without.
        let base = match self.settings.api {
            Api::OpenAiCompletions => self.settings.base_url.as_str(),
            Api::AnthropicMessages => self.settings.base_url.trim_end_matches("/v1"),
        };
        Ok(client.request(method, format!("{base}{path}")))
    }

    async fn make_client(&self) -> Result<Client, Failure> {
        let unusable = |cause: &dyn std::fmt::Display| {
            Failure::lasting(
                BackendErrorKind::Unknown,
                format!("provider `{}` cannot be called: {cause}", self.id),
            )
        };
        let url = Url::parse(&self.settings.base_url).map_err(|cause| unusable(&cause))?;
        let is_tls = url.scheme() == "https";
        // The roots are read from the disk.
        let config = tokio::task::spawn_blocking(move || tls(is_tls)).await;
        let config = config.map_err(|cause| unusable(&cause))?.map_err(|cause| unusable(&cause))?;
        let mut builder = Client::builder()
            .tls_backend_preconfigured(config)
            .default_headers(self.headers().map_err(|cause| unusable(&cause))?)
            .connect_timeout(self.settings.deadlines.connect)
            .pool_idle_timeout(POOL_IDLE)
            // A redirect would carry the key to a place that nobody named.
            .redirect(redirect::Policy::none())
            .user_agent(concat!("openclaw-gateway/", env!("CARGO_PKG_VERSION")))
            .tcp_nodelay(true);
        let is_loopback = match url.host_str() {
            Some("localhost") => true,
            Some(host) => host
                .trim_matches(['[', ']'])
                .parse::<std::net::IpAddr>()
                .is_ok_and(|address| address.is_loopback()),
            None => false,
        };
        if is_loopback {
            // A proxy cannot reach this host's own loopback.
            builder = builder.no_proxy();
        }
        builder.build().map_err(|cause| unusable(&cause))
    }

    fn headers(&self) -> Result<HeaderMap, String> {
        let secret = |name: &str, text: &str| {
            let mut value = HeaderValue::from_str(text).map_err(|_| {
                format!("the value of the header `{name}` holds characters that no header may")
            })?;
            value.set_sensitive(true);
            Ok::<_, String>(value)
        };
        let mut headers = HeaderMap::new();
        if self.settings.api == Api::AnthropicMessages {
            headers.insert("anthropic-version", HeaderValue::from_static(anthropic::VERSION));
        }
        if let Some(key) = &self.settings.key {
            let key = key.expose_secret();
            if self.settings.bearer || self.settings.api == Api::OpenAiCompletions {
                headers.insert(AUTHORIZATION, secret("authorization", &format!("Bearer {key}"))?);
            } else {
                headers.insert("x-api-key", secret("x-api-key", key)?);
            }
        }
        for (name, value) in &self.settings.headers {
            let parsed = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| format!("`{name}` is not the name of a header"))?;
            headers.insert(parsed, secret(name, value.expose_secret())?);
        }
        Ok(headers)
    }
}

/// Trust in what the platform trusts; without TLS in nobody, as a client asks for a configuration all the same.
fn tls(is_tls: bool) -> Result<ClientConfig, rustls::Error> {
    // The provider is named here, so that no process-wide default is needed or set.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = if is_tls {
        builder.with_platform_verifier()?
    } else {
        builder.with_root_certificates(RootCertStore::empty())
    };
    Ok(builder.with_no_client_auth())
}

/// The beginning of a body, as text.
async fn beginning(response: Response) -> String {
    let body = timeout(FAILURE_TIMEOUT, read_body(response, MAX_FAILURE_BYTES)).await;
    let body = body.unwrap_or(Ok(Vec::new())).unwrap_or_default();
    String::from_utf8_lossy(&body).into_owned()
}

/// A body, or its first `max_bytes`.
async fn read_body(mut response: Response, max_bytes: usize) -> Result<Vec<u8>, reqwest::Error> {
    let mut body = Vec::new();
    while body.len() < max_bytes
        && let Some(chunk) = response.chunk().await?
    {
        body.extend_from_slice(&chunk[..chunk.len().min(max_bytes - body.len())]);
    }
    Ok(body)
}
