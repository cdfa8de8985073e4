//! One run: its text, its events and its outcome. Which run goes when is the business of the parent module.
//!
//! Invariant: what belongs to one run is published under the lock of its `Progress`, so its events leave in
//! the order of their `seq`, and nothing follows the terminal one.

use std::{
    convert::Infallible,
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use openclaw_schema::{
    events::{
        AgentEvent, AgentStream, ChatContent, ChatErrorKind, ChatEvent, ChatMessage, ChatState, EventName,
    },
    methods::{
        agent::{
            AckStatus, AgentAck, AgentMeta, AgentOutcome, AgentPayload, AgentResult, AgentWaitResult,
            ModelMeta, RunStatus, TokenCost, TokenUsage, WaitStatus,
        },
        models::ModelInfo,
        sessions::SessionStatus,
    },
    types::TimestampMs,
};
use serde_json::{Map, Value, json};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Clock, Current, Origin, Waiting};
use crate::{
    backend::{BackendAnswer, BackendError, BackendErrorKind, BackendRequest, Meter},
    events::EventBus,
    sessions::{LastRun, RunEnd, SessionAddress},
    store::{RunEndRecord, StoreError, StoredRun},
    transcripts::{Author, Entry},
};

/// How long text is gathered before it is published. wire.md section 9 records about 75 ms; a piece is to be at its
/// subscriber within 80 ms, also on a busy machine.
const WINDOW: Duration = Duration::from_millis(50);

/// What is told of a run that the gateway did not live to end.
pub(super) const INTERRUPTED: &str =
    "the gateway stopped before the run ended; what it had said by then is kept, ask again under another key";

/// How much text costs one more [`WINDOW`].
///
/// Each event carries the text so far, as the protocol wants it, so with a fixed window the bytes published
/// grow with the square of the answer. Longer windows for longer texts bound them to two events of this size
/// per window, whatever the length of the answer. Most answers are shorter and never notice.
const WINDOW_BYTES: usize = 65_536;

/// Whether a run has been accepted, for good.
#[derive(Debug, Clone)]
pub(super) enum Acceptance {
    /// That is being stored.
    Pending,
    /// It has.
    Durable,
    /// Its key was used before: this is no run.
    Known(Arc<StoredRun>),
    /// It could not be stored: this is no run.
    Failed(StoreError),
}

/// One run, up to its end; what is kept of it afterwards is stored.
pub(super) struct Run {
    pub(super) id: String,
    pub(super) origin: Origin,
    pub(super) address: SessionAddress,
    pub(super) acceptance: watch::Sender<Acceptance>,
    /// Its number in the store, set when it has been accepted.
    pub(super) seq: OnceLock<i64>,
    /// The id of the session, set when the run has been accepted.
    pub(super) session_id: OnceLock<Uuid>,
    /// Where it writes, set when it starts.
    pub(super) transcript: OnceLock<i64>,
    /// The model that the caller named.
    pub(super) asked_model: Option<String>,
    pub(super) label: Option<String>,
    pub(super) accepted_at: TimestampMs,
    pub(super) timeout: Duration,
    /// The size of what it keeps in memory while it waits.
    pub(super) request_bytes: usize,
    /// What it has consumed so far.
    meter: Meter,
    /// Tells the back end, and the task that watches over it, that the run is over.
    pub(super) cancel: CancellationToken,
    /// Set once, after the last event.
    pub(super) ended: watch::Sender<Option<Arc<AgentWaitResult>>>,
    events: EventBus,
    clock: Clock,
    /// Text waits for the end of its window.
    pending: Notify,
    progress: Mutex<Progress>,
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("id", &self.id).field("address", &self.address).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Progress {
    /// What to ask the back end; taken when the run starts.
    request: Option<BackendRequest>,
    model: ModelInfo,
    seq: u64,
    started: Option<(Instant, TimestampMs)>,
    text: String,
    /// How many bytes of `text` have been published, and when.
    told: usize,
    told_at: Option<Instant>,
    over: bool,
}

/// How a run comes to its end.
#[derive(Debug)]
pub(super) enum Ending {
    Answered(Box<BackendAnswer>),
    Failed(BackendError),
    Stopped(Stop),
    /// The gateway died while it went on.
    Interrupted,
}

/// Why a run is ended before its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// A call asked for it.
    Call,
    /// It took longer than its timeout.
    Timeout,
    /// The gateway stops.
    Shutdown,
}

impl Stop {
    const fn reason(self) -> &'static str {
        match self {
            Self::Call => "rpc",
            Self::Timeout => "timeout",
            Self::Shutdown => "shutdown",
        }
    }
}

/// How a run ended, before anybody is told.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) ending: Ending,
    pub(super) result: AgentWaitResult,
    pub(super) last_run: LastRun,
    started_at: Option<TimestampMs>,
    ended_at: TimestampMs,
    text: String,
    /// What it consumed, and what that cost, where it is known.
    usage: Option<TokenUsage>,
}

impl Closed {
    /// Makes a failure of it, whatever it was.
    pub(super) fn fail(&mut self, message: &str) {
        self.ending = Ending::Failed(BackendError::new(BackendErrorKind::Unknown, message));
        self.result.status = WaitStatus::Error;
        self.result.error = Some(message.to_owned());
        self.result.stop_reason = Some("error".to_owned());
        if let Some(outcome) = &mut self.result.outcome {
            outcome.status = RunStatus::Error;
            outcome.summary = message.to_owned();
            outcome.result = None;
            outcome.stop_reason = Some("error".to_owned());
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        matches!(self.ending, Ending::Failed(_) | Ending::Interrupted)
    }
}

/// What a run is made of.
pub(super) struct Parts {
    pub(super) origin: Origin,
    pub(super) address: SessionAddress,
    pub(super) label: Option<String>,
    pub(super) timeout: Duration,
    pub(super) asked_model: Option<String>,
    pub(super) accepted_at: TimestampMs,
    pub(super) request: BackendRequest,
    pub(super) events: EventBus,
    pub(super) clock: Clock,
}

impl Run {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { origin, address, label, timeout, asked_model, accepted_at, request, events, clock } =
            parts;
        Self {
            id: request.run_id.clone(),
            origin,
            address,
            acceptance: watch::Sender::new(Acceptance::Pending),
            seq: OnceLock::new(),
            session_id: OnceLock::new(),
            transcript: OnceLock::new(),
            asked_model,
            label,
            accepted_at,
            timeout,
            request_bytes: request.message.len()
                + request.extra_system_prompt.as_ref().map_or(0, String::len),
            meter: request.meter.clone(),
            cancel: request.cancel.clone(),
            ended: watch::Sender::new(None),
            events,
            clock,
            pending: Notify::new(),
            progress: Mutex::new(Progress {
                model: request.model.clone(),
                request: Some(request),
                seq: 0,
                started: None,
                text: String::new(),
                told: 0,
                told_at: None,
                over: false,
            }),
        }
    }

    /// Waits until it is known whether this is a run.
    pub(super) async fn accepted(&self) -> Acceptance {
        let mut acceptance = self.acceptance.subscribe();
        let known = acceptance.wait_for(|acceptance| !matches!(acceptance, Acceptance::Pending)).await;
        // The sender lives in `self`.
        known.map_or(Acceptance::Failed(StoreError::Ended), |known| known.clone())
    }

    /// Waits for its end, after the last event.
    pub(super) async fn outcome(&self) -> Arc<AgentWaitResult> {
        let mut ended = self.ended.subscribe();
        loop {
            if let Some(result) = &*ended.borrow_and_update() {
                return Arc::clone(result);
            }
            // The sender lives in `self`.
            let _ = ended.changed().await;
        }
    }

    pub(super) fn ack(&self, status: AckStatus) -> AgentAck {
        AgentAck {
            run_id: self.id.clone(),
            status,
            session_key: (!self.address.own).then(|| self.address.key.clone()),
            agent_id: Some(self.address.agent_id.clone()),
            accepted_at: Some(self.accepted_at),
        }
    }

    /// When it started; `None` while it waits for its turn.
    pub(super) fn started_at(&self) -> Option<TimestampMs> {
        self.progress().started.map(|(_, at)| at)
    }

    /// What goes on, if it has started and is not over.
    pub(super) fn current(&self) -> Option<Current> {
        let progress = self.progress();
        let (_, started_at) = progress.started.filter(|_| !progress.over)?;
        Some(Current { run_id: self.id.clone(), text: progress.text.clone(), started_at })
    }

    /// What waits, if it has not started and is not over; at most `max_chars` of its message.
    pub(super) fn waiting(&self, max_chars: usize) -> Option<Waiting> {
        let progress = self.progress();
        let message = progress.request.as_ref()?.message.chars().take(max_chars).collect();
        Some(Waiting { run_id: self.id.clone(), message, accepted_at: self.accepted_at })
    }

    /// Whether it has neither started nor been ended.
    pub(super) fn is_waiting(&self) -> bool {
        self.progress().request.is_some()
    }

    /// What its session remembers of it while it goes on; `None` before its start and after its end.
    pub(super) fn as_last_run(&self) -> Option<LastRun> {
        let progress = self.progress();
        let (_, started_at) = progress.started.filter(|_| !progress.over)?;
        Some(LastRun {
            run_id: self.id.clone(),
            model: progress.model.clone(),
            started_at: Some(started_at),
            end: None,
        })
    }

    pub(super) fn is_over(&self) -> bool {
        self.progress().over
    }

    /// What to ask the back end, as far as it is known. `None` when the run was ended while it waited.
    pub(super) fn request(&self) -> Option<BackendRequest> {
        let progress = self.progress();
        progress.request.clone().filter(|_| !progress.over)
    }

    /// Starts it. `false` when it was ended meanwhile.
    pub(super) fn begin(&self, model: ModelInfo, started_at: TimestampMs) -> bool {
        let mut progress = self.progress();
        progress.request = None;
        if progress.over {
            return false;
        }
        progress.model = model;
        progress.started = Some((Instant::now(), started_at));
        self.lifecycle(&mut progress, json!({ "phase": "start", "startedAt": started_at }));
        let ModelInfo { provider, id, .. } = progress.model.clone();
        self.lifecycle(&mut progress, json!({ "phase": "model", "provider": provider, "model": id }));
        true
    }

    /// Notes that an earlier life of the gateway had started it, and told this text.
    pub(super) fn resume(&self, started_at: TimestampMs, text: String) {
        let mut progress = self.progress();
        progress.request = None;
        progress.told = text.len();
        progress.text = text;
        progress.started = Some((Instant::now(), started_at));
    }

    /// Adds text to the answer. The first is published at once, what follows within its window together.
    pub(super) fn push(&self, text: &str) {
        let mut progress = self.progress();
        if progress.over || text.is_empty() {
            return;
        }
        let is_first_of_window = progress.told == progress.text.len();
        progress.text.push_str(text);
        if progress.window_end().is_none_or(|end| end <= Instant::now()) {
            self.tell(&mut progress);
        } else if is_first_of_window {
            self.pending.notify_one();
        }
    }

    /// What has been added to the answer behind its first `start` bytes, if anything has.
    pub(super) fn text_from(&self, start: usize) -> Option<String> {
        self.progress().text.get(start..).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// Publishes the text of each window when it is over, for as long as it is polled.
    pub(super) async fn tell_by_windows(&self) -> Infallible {
        loop {
            self.pending.notified().await;
            let end = self.progress().window_end();
            if let Some(end) = end {
                tokio::time::sleep_until(end).await;
            }
            let mut progress = self.progress();
            if !progress.over {
                self.tell(&mut progress);
            }
        }
    }

    /// Ends it: publishes the text that is left, cancels the back end and makes the outcome, which is to be stored before
    /// it is told. `None` when it is over already, so that of several reasons to end a run the first one holds.
    pub(super) fn close(&self, ending: Ending) -> Option<Closed> {
        let mut progress = self.progress();
        if mem::replace(&mut progress.over, true) {
            return None;
        }
        self.cancel.cancel();
        // The message of a run that never started is needed no more.
        progress.request = None;
        self.tell(&mut progress);
        let text = mem::take(&mut progress.text);
        if let Ending::Answered(answer) = &ending
            && let Some(model) = &answer.model
        {
            progress.model = model.clone();
        }
        // What a provider counted is to be paid for, whatever came of it.
        let spent = match &ending {
            Ending::Answered(_) => None,
            Ending::Failed(_) | Ending::Stopped(_) | Ending::Interrupted => self.meter.so_far(),
        };
        if let Some(model) = spent.as_ref().and_then(|spent| spent.model.clone()) {
            progress.model = model;
        }
        let usage = match &ending {
            Ending::Answered(answer) => Some(usage_of(answer)),
            Ending::Failed(_) | Ending::Stopped(_) | Ending::Interrupted => spent.as_ref().map(usage_of),
        };
        let model = progress.model.clone();
        let started = progress.started;
        drop(progress);

        let now = (self.clock)();
        let (started_at, ended_at) = match started {
            // Of the earlier life nothing but the clock is known.
            Some((_, at)) if matches!(ending, Ending::Interrupted) => (Some(at), now.max(at)),
            // Counted from the start, so that a clock set anew in between cannot put the end before it.
            Some((start, at)) => {
                let millis = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
                (Some(at), TimestampMs(at.0.saturating_add(millis)))
            }
            None => (None, now),
        };
        let duration_ms = started_at.map_or(0, |at| ended_at.0.saturating_sub(at.0));
        let (status, wait_status, summary, error) = match &ending {
            Ending::Answered(_) => (RunStatus::Ok, WaitStatus::Ok, "completed".to_owned(), None),
            Ending::Failed(failure) => {
                (RunStatus::Error, WaitStatus::Error, failure.message.clone(), Some(failure.message.clone()))
            }
            Ending::Interrupted => {
                (RunStatus::Error, WaitStatus::Error, INTERRUPTED.to_owned(), Some(INTERRUPTED.to_owned()))
            }
            Ending::Stopped(Stop::Timeout) => {
                let error = format!("the run took longer than its timeout of {} s", self.timeout.as_secs());
                (RunStatus::Timeout, WaitStatus::Timeout, "aborted".to_owned(), Some(error))
            }
            Ending::Stopped(Stop::Call | Stop::Shutdown) => {
                (RunStatus::Timeout, WaitStatus::Error, "aborted".to_owned(), None)
            }
        };
        let stop_reason = Some(ending.stop_reason().to_owned());
        let has_result = matches!(ending, Ending::Answered(_)) || !text.is_empty();
        let result = has_result.then(|| AgentResult {
            payloads: if text.is_empty() {
                Vec::new()
            } else {
                vec![AgentPayload { text: Some(text.clone()), media_url: None }]
            },
            meta: AgentMeta {
                duration_ms,
                agent_meta: usage.map(|usage| ModelMeta {
                    session_id: self.session_id.get().map(Uuid::to_string),
                    provider: model.provider.clone(),
                    model: model.id.clone(),
                    usage,
                }),
                aborted: matches!(ending, Ending::Stopped(_)),
                stop_reason: stop_reason.clone(),
            },
        });
        let end = RunEnd { at: ended_at, status: ending.session_status(), error: error.clone(), usage };
        let last_run = LastRun { run_id: self.id.clone(), model, started_at, end: Some(end) };
        let outcome = AgentOutcome {
            run_id: self.id.clone(),
            status,
            summary,
            result,
            stop_reason: stop_reason.clone(),
        };
        let result = AgentWaitResult {
            run_id: self.id.clone(),
            status: wait_status,
            started_at,
            ended_at: Some(ended_at),
            stop_reason,
            error,
            outcome: Some(outcome),
        };
        Some(Closed { ending, result, last_run, started_at, ended_at, text, usage })
    }

    /// What is to be stored of its end.
    pub(super) fn end_record(&self, closed: &Closed) -> RunEndRecord {
        let ending = &closed.ending;
        // Nothing is added to the transcript for a run that was ended before it said anything.
        let is_wordless_stop = matches!(ending, Ending::Stopped(_)) && closed.text.is_empty();
        let has_entry = closed.started_at.is_some() && !is_wordless_stop;
        let entry = has_entry.then(|| Entry {
            run_id: self.id.clone(),
            author: Author::Assistant {
                provider: closed.last_run.model.provider.clone(),
                model: closed.last_run.model.id.clone(),
                usage: closed.usage,
                stop_reason: ending.stop_reason().to_owned(),
                error: closed.result.error.clone().filter(|_| !matches!(ending, Ending::Stopped(_))),
            },
            text: closed.text.clone(),
        });
        RunEndRecord {
            // Set for every run that has been accepted, and no other is ended.
            seq: self.seq.get().copied().unwrap_or_default(),
            at: closed.ended_at,
            status: ending.status(),
            outcome: closed.result.clone(),
            transcript: self.transcript.get().copied(),
            entry,
            session_key: self.address.key.clone(),
            agent_id: self.address.agent_id.clone(),
            last_run: closed.last_run.clone(),
            usage: closed.usage,
        }
    }

    /// Publishes the events of its end. The last word that is heard of it, once.
    pub(super) fn tell_end(&self, closed: &Closed) {
        let mut progress = self.progress();
        self.publish_end(&mut progress, closed);
        drop(progress);
        self.events.end_run(&self.id);
    }

    /// Publishes the events of the end, in the order of wire.md section 9.
    fn publish_end(&self, progress: &mut Progress, closed: &Closed) {
        let Closed { ending, started_at, ended_at, .. } = closed;
        let (stop_reason, text) = (ending.stop_reason(), closed.text.clone());
        let failure = match ending {
            Ending::Failed(failure) => {
                Some((failure.message.as_str(), failure.kind.name(), chat_error_kind(failure.kind)))
            }
            Ending::Interrupted => Some((INTERRUPTED, "interrupted", ChatErrorKind::Unknown)),
            Ending::Answered(_) | Ending::Stopped(_) => None,
        };
        match ending {
            Ending::Answered(answer) => {
                let usage = json!({ "outputTokens": answer.usage.output });
                self.publish_agent(progress, AgentStream::Usage, object(usage));
                self.lifecycle(
                    progress,
                    json!({
                        "phase": "finishing", "stopReason": stop_reason, "aborted": false, "endedAt": ended_at,
                    }),
                );
                self.lifecycle(
                    progress,
                    json!({
                        "phase": "end", "startedAt": started_at, "endedAt": ended_at, "aborted": false,
                        "stopReason": stop_reason,
                    }),
                );
                let chat = self.chat(progress.seq, ChatState::Final);
                self.publish_chat(ChatEvent { stop_reason: Some(stop_reason.to_owned()), ..chat }, text);
            }
            Ending::Failed(_) | Ending::Interrupted => {
                let Some((message, kind, chat_kind)) = failure else { return };
                self.lifecycle(
                    progress,
                    json!({
                        "phase": "finishing", "stopReason": stop_reason, "aborted": false, "endedAt": ended_at,
                        "error": message,
                    }),
                );
                self.lifecycle(
                    progress,
                    json!({
                        "phase": "error", "startedAt": started_at, "endedAt": ended_at, "aborted": false,
                        "stopReason": stop_reason, "error": message, "errorKind": kind,
                    }),
                );
                let chat = self.chat(progress.seq, ChatState::Error);
                let chat = ChatEvent {
                    error_message: Some(message.to_owned()),
                    error_kind: Some(chat_kind),
                    ..chat
                };
                self.publish_chat(chat, text);
            }
            Ending::Stopped(_) => {
                // The conversation hears first, with the number that the end of the run is about to get.
                let chat = self.chat(progress.seq + 1, ChatState::Aborted);
                self.publish_chat(ChatEvent { stop_reason: Some(stop_reason.to_owned()), ..chat }, text);
                let mut data = object(json!({
                    "phase": "end", "status": "cancelled", "endedAt": ended_at, "aborted": true,
                    "stopReason": stop_reason,
                }));
                if let Some(at) = started_at {
                    data.insert("startedAt".to_owned(), json!(at));
                }
                self.publish_agent(progress, AgentStream::Lifecycle, data);
            }
        }
    }

    /// Publishes the text that waits, if any does.
    fn tell(&self, progress: &mut Progress) {
        if progress.told == progress.text.len() {
            return;
        }
        let delta = progress.text[progress.told..].to_owned();
        progress.told = progress.text.len();
        progress.told_at = Some(Instant::now());
        // The text moves through both payloads and back: it may be long, and is never copied.
        let text = mem::take(&mut progress.text);
        let mut data = Map::new();
        data.insert("text".to_owned(), Value::String(text));
        data.insert("delta".to_owned(), Value::String(delta.clone()));
        let mut data = self.publish_agent(progress, AgentStream::Assistant, data);
        if let Some(Value::String(text)) = data.remove("text") {
            let chat = self.chat(progress.seq, ChatState::Delta);
            progress.text = self.publish_chat(ChatEvent { delta_text: Some(delta), ..chat }, text);
        }
    }

    fn lifecycle(&self, progress: &mut Progress, data: Value) {
        self.publish_agent(progress, AgentStream::Lifecycle, object(data));
    }

    /// Publishes an `agent` event under the next number, and gives its data back.
    fn publish_agent(
        &self,
        progress: &mut Progress,
        stream: AgentStream,
        data: Map<String, Value>,
    ) -> Map<String, Value> {
        progress.seq += 1;
        let event = AgentEvent {
            run_id: self.id.clone(),
            seq: progress.seq,
            stream,
            ts: TimestampMs::now(),
            data,
            session_key: Some(self.address.key.clone()),
            agent_id: Some(self.address.agent_id.clone()),
        };
        self.events.publish(EventName::Agent, &event, Some(&self.id));
        event.data
    }

    fn chat(&self, seq: u64, state: ChatState) -> ChatEvent {
        ChatEvent {
            run_id: self.id.clone(),
            session_key: self.address.key.clone(),
            agent_id: Some(self.address.agent_id.clone()),
            seq,
            state,
            delta_text: None,
            message: None,
            stop_reason: None,
            error_message: None,
            error_kind: None,
        }
    }

    /// Publishes a `chat` event with the text so far as its message, and gives the text back.
    fn publish_chat(&self, mut event: ChatEvent, text: String) -> String {
        if text.is_empty() {
            self.events.publish(EventName::Chat, &event, Some(&self.id));
            return text;
        }
        event.message = Some(ChatMessage {
            role: "assistant".to_owned(),
            content: vec![ChatContent::Text { text }],
            timestamp: TimestampMs::now(),
        });
        self.events.publish(EventName::Chat, &event, Some(&self.id));
        let content = event.message.map(|message| message.content).unwrap_or_default();
        // One part: collecting moves it.
        content.into_iter().map(|ChatContent::Text { text }| text).collect()
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    /// When the window of the text that was published last is over; `None` before the first text.
    fn window_end(&self) -> Option<Instant> {
        let windows = u32::try_from(1 + self.text.len() / WINDOW_BYTES).unwrap_or(u32::MAX);
        self.told_at.map(|at| at + WINDOW.saturating_mul(windows))
    }
}

impl Ending {
    fn stop_reason(&self) -> &str {
        match self {
            Self::Answered(answer) => &answer.stop_reason,
            Self::Failed(_) => "error",
            Self::Interrupted => "interrupted",
            Self::Stopped(stop) => stop.reason(),
        }
    }

    /// How the run's session stands after it.
    pub(super) fn session_status(&self) -> SessionStatus {
        match self {
            Self::Answered(_) => SessionStatus::Done,
            Self::Failed(_) | Self::Interrupted => SessionStatus::Failed,
            Self::Stopped(Stop::Timeout) => SessionStatus::Timeout,
            Self::Stopped(Stop::Call | Stop::Shutdown) => SessionStatus::Killed,
        }
    }

    /// The last state of the run.
    pub(super) fn status(&self) -> &'static str {
        match self {
            Self::Answered(_) => "ok",
            Self::Failed(_) | Self::Interrupted => "error",
            Self::Stopped(Stop::Timeout) => "timeout",
            Self::Stopped(Stop::Call | Stop::Shutdown) => "aborted",
        }
    }
}

/// What an answer consumed and what that cost, where it is known.
fn usage_of(answer: &BackendAnswer) -> TokenUsage {
    // What is no amount is not known.
    let cost = answer.cost_usd.filter(|cost| cost.is_finite() && *cost >= 0.0);
    TokenUsage { cost: cost.map(|total| TokenCost { total }), ..answer.usage }
}

/// The kind of a failure as `chat` events tell it. wire.md section 9 has none for credentials.
fn chat_error_kind(kind: BackendErrorKind) -> ChatErrorKind {
    match kind {
        BackendErrorKind::Refusal => ChatErrorKind::Refusal,
        BackendErrorKind::RateLimit => ChatErrorKind::RateLimit,
        BackendErrorKind::ContextLength => ChatErrorKind::ContextLength,
        BackendErrorKind::Timeout => ChatErrorKind::Timeout,
        BackendErrorKind::Auth | BackendErrorKind::Unknown => ChatErrorKind::Unknown,
    }
}

fn object(value: Value) -> Map<String, Value> {
    let Value::Object(fields) = value else { unreachable!("every caller writes an object") };
    fields
}
