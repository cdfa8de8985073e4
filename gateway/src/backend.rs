//! What answers the messages of runs: the trait that every back end implements, and what passes through it.
//!
//! A back end knows nothing of runs, sessions or events: it receives one request, streams text and returns.
//! Who calls it, and in which order, is the business of [`crate::runs`].
//!
//! [`router`] is the back end of a configured gateway. Requests over HTTP go through `provider` (deadlines, repeats),
//! which knows two APIs, `openai` and `anthropic`, reads their streams with `sse` and tells failures with `failure`;
//! programs through `cli`, which owns a `process` group and reads its `stream_json`. Both count in a `reading`, and
//! show what they see in the `raw` stream. How much a model thinks is worked out in `thinking`; what it thinks aloud is
//! kept out of the answer by `thoughts`.
//!
//! To add an API: a file beside `openai` with a request's body and what an event means, and a variant of
//! [`settings::Api`]. To add a back end of another kind: implement [`Backend`], and hand it to
//! [`crate::GatewayBuilder::backend`].

mod anthropic;
mod cli;
pub mod echo;
mod failure;
mod lines;
mod openai;
mod process;
mod provider;
mod raw;
mod reading;
pub mod router;
pub mod settings;
mod sse;
mod stream_json;
mod thinking;
mod thoughts;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use openclaw_schema::methods::{
    agent::TokenUsage,
    models::{ModelInfo, ModelsView, ThinkingLevel},
    sessions::FastMode,
};
use tokio_util::sync::CancellationToken;

use crate::settings::Agent;

/// The future of one answer.
pub type BackendFuture = Pin<Box<dyn Future<Output = Result<BackendAnswer, BackendError>> + Send>>;

/// The future of [`Backend::refresh`].
pub type RefreshFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Something that answers messages: a model behind HTTP, a child process, an echo.
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// The models it offers at this moment. The one tagged `default` serves requests that name none; without
    /// a tag, the first does.
    fn models(&self) -> Arc<[ModelInfo]>;

    /// The model that a name means: `provider/id`, an id alone, or another name that the back end knows it by.
    fn find(&self, name: &str) -> Option<ModelInfo> {
        let models = self.models();
        // An id may hold slashes itself, so the whole name is compared before the id alone.
        let is_whole_name = |model: &&ModelInfo| {
            name.strip_prefix(&model.provider).and_then(|rest| rest.strip_prefix('/')) == Some(&model.id)
        };
        models.iter().find(is_whole_name).or_else(|| models.iter().find(|model| model.id == name)).cloned()
    }

    /// The models of a view, and whether each can be used now. May look at the disk.
    fn catalogue(&self, view: ModelsView) -> Vec<ModelInfo> {
        // Without more knowledge, all are configured and ready.
        let _ = view;
        self.models().to_vec()
    }

    /// The levels of thinking that a model has, least first; `None` where that is not known.
    fn thinking_levels(&self, model: &ModelInfo) -> Option<Vec<ThinkingLevel>> {
        let _ = model;
        None
    }

    /// Asks the providers anew which models they have, for a few seconds at most.
    fn refresh(&self) -> RefreshFuture {
        Box::pin(std::future::ready(()))
    }

    /// Answers one message. The text goes to `output`, in the order of the calls; what is returned tells how
    /// the answer ended.
    ///
    /// When [`BackendRequest::cancel`] is cancelled the answer is no longer wanted: the future ends as soon as
    /// it can, with any result. One that goes on is dropped a moment later
    /// ([`crate::runs::RunLimits::stop_grace`]), so what must not be left behind belongs in a `Drop`.
    ///
    /// The future runs on a task of its own. A panic in it fails this run and nothing else; code that blocks
    /// belongs on a thread for blocking work.
    fn run(&self, request: BackendRequest, output: TextSink) -> BackendFuture;
}

/// One message to answer.
#[derive(Debug, Clone)]
pub struct BackendRequest {
    /// The run, for logs and for tracing on the provider's side.
    pub run_id: String,
    /// The session that the message belongs to, in full.
    pub session_key: String,
    /// The agent that is spoken to.
    pub agent: Agent,
    /// The model to use, one of [`Backend::models`] when the run was accepted.
    pub model: ModelInfo,
    /// What was said in the session before, oldest first, already cut to the model's window.
    pub history: Vec<Turn>,
    /// What is said.
    pub message: String,
    /// Added to the system prompt.
    pub extra_system_prompt: Option<String>,
    /// How much the model is to think; absent for what is configured, or else for what the model does by itself.
    pub thinking: Option<ThinkingLevel>,
    /// Whether the model is to answer faster, at a higher price; likewise.
    pub fast_mode: Option<FastMode>,
    /// What the answer has consumed so far.
    pub meter: Meter,
    /// Cancelled when the answer is no longer wanted.
    pub cancel: CancellationToken,
}

/// What an answer has consumed so far, as far as the provider tells: what counts when it comes to no end. Cloning it is
/// cheap; the clones are one.
#[derive(Debug, Clone, Default)]
pub struct Meter {
    reading: Arc<Mutex<Option<BackendAnswer>>>,
}

impl Meter {
    /// Notes what has been consumed so far, in place of what was noted before.
    pub fn tell(&self, so_far: BackendAnswer) {
        *self.reading.lock().unwrap_or_else(PoisonError::into_inner) = Some(so_far);
    }

    /// What has been noted last, if it is anything.
    #[must_use]
    pub fn so_far(&self) -> Option<BackendAnswer> {
        let reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        reading.clone().filter(|answer| answer.usage.total > 0)
    }
}

/// Something that was said earlier in a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// Who said it.
    pub author: TurnAuthor,
    /// What was said.
    pub text: String,
}

/// Who said something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnAuthor {
    /// The caller.
    User,
    /// The model.
    Assistant,
}

/// How an answer ended. Its text has gone to the [`TextSink`].
#[derive(Debug, Clone, PartialEq)]
pub struct BackendAnswer {
    /// What the answer consumed.
    pub usage: TokenUsage,
    /// What it cost, in US dollars; absent where the prices of the model are not known.
    pub cost_usd: Option<f64>,
    /// The model that answered, when it is not [`BackendRequest::model`]: a fallback.
    pub model: Option<ModelInfo>,
    /// Why the model stopped, in the provider's word: mostly `stop`.
    pub stop_reason: String,
}

/// Why there is no answer, or no whole one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BackendError {
    /// What kind of failure it is.
    pub kind: BackendErrorKind,
    /// The failure in a sentence. Callers read it: no secrets, no internals.
    pub message: String,
}

impl BackendError {
    /// An error of a kind, with a sentence that callers may read.
    #[must_use]
    pub fn new(kind: BackendErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// The result of an answer that is no longer wanted. Nobody reads it.
fn cancelled() -> BackendError {
    BackendError::new(BackendErrorKind::Unknown, "the answer was cancelled")
}

/// The kinds of failure of a back end. wire.md section 9, `errorKind`, and `auth`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendErrorKind {
    /// The model refused to answer.
    Refusal,
    /// The provider wants fewer requests.
    RateLimit,
    /// The message does not fit the model's context window.
    ContextLength,
    /// The provider did not answer in time.
    Timeout,
    /// The provider did not accept the credential.
    Auth,
    /// Anything else.
    Unknown,
}

impl BackendErrorKind {
    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refusal => "refusal",
            Self::RateLimit => "rate_limit",
            Self::ContextLength => "context_length",
            Self::Timeout => "timeout",
            Self::Auth => "auth",
            Self::Unknown => "unknown",
        }
    }
}

/// Where a back end writes its answer. Cloning it is cheap; text pushed after the run has ended is dropped.
#[derive(Clone)]
pub struct TextSink {
    receive: Arc<dyn Fn(&str) + Send + Sync>,
}

impl TextSink {
    /// A sink that hands each piece of text to `receive`.
    pub fn new(receive: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { receive: Arc::new(receive) }
    }

    /// Adds text to the answer. Never waits; pieces of any size will do, they are put together before they
    /// are sent.
    pub fn push(&self, text: &str) {
        (self.receive)(text);
    }
}

impl fmt::Debug for TextSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextSink").finish_non_exhaustive()
    }
}
