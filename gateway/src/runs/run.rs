//! One run: its text, its events and its outcome. Which run goes when is the business of the parent module.
//!
//! Invariant: what belongs to one run is published under the lock of its `Progress`, so its events leave in
//! the order of their `seq`, and nothing follows the terminal one.

use std::{
    convert::Infallible,
    mem,
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
            ModelMeta, RunStatus, TokenUsage, WaitStatus,
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

use super::{Current, Origin, Waiting};
use crate::{
    backend::{BackendAnswer, BackendError, BackendErrorKind, BackendRequest},
    events::EventBus,
    sessions::{LastRun, RunEnd, SessionAddress},
    transcripts::{Author, Entry, Transcripts},
};

/// How long text is gathered before it is published. wire.md section 9: about 75 ms.
const WINDOW: Duration = Duration::from_millis(75);

/// How much text costs one more [`WINDOW`].
///
/// Each event carries the text so far, as the protocol wants it, so with a fixed window the bytes published
/// grow with the square of the answer. Longer windows for longer texts bound them to two events of this size
/// per window, whatever the length of the answer. Most answers are shorter and never notice.
const WINDOW_BYTES: usize = 65_536;

/// What an ended run costs beside its texts, roughly, in bytes.
const ENDED_OVERHEAD_BYTES: usize = 1024;

/// One run, up to its end; [`Ended`] is what is kept of it afterwards.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) id: String,
    pub(super) origin: Origin,
    pub(super) address: SessionAddress,
    /// The id of the session, set when the run is admitted.
    pub(super) session_id: OnceLock<Uuid>,
    pub(super) label: Option<String>,
    pub(super) accepted_at: TimestampMs,
    pub(super) timeout: Duration,
    /// The size of what it keeps in memory while it waits.
    pub(super) request_bytes: usize,
    /// Tells the back end, and the task that watches over it, that the run is over.
    pub(super) cancel: CancellationToken,
    /// Set once, after the last event.
    pub(super) ended: watch::Sender<Option<Arc<Ended>>>,
    model: ModelInfo,
    events: EventBus,
    transcripts: Transcripts,
    /// Text waits for the end of its window.
    pending: Notify,
    progress: Mutex<Progress>,
}

#[derive(Debug)]
struct Progress {
    /// What to ask the back end; taken when the run starts.
    request: Option<BackendRequest>,
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
    Answered(BackendAnswer),
    Failed(BackendError),
    Stopped(Stop),
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

/// What is kept of a run after its end.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) origin: Origin,
    pub(super) ack: AgentAck,
    pub(super) result: AgentWaitResult,
    pub(super) failed: bool,
    pub(super) at: Instant,
    /// About how much memory it takes.
    pub(super) bytes: usize,
}

impl Run {
    pub(super) fn new(
        origin: Origin,
        address: SessionAddress,
        label: Option<String>,
        timeout: Duration,
        request: BackendRequest,
        events: EventBus,
        transcripts: Transcripts,
    ) -> Self {
        Self {
            id: request.run_id.clone(),
            origin,
            address,
            session_id: OnceLock::new(),
            label,
            accepted_at: TimestampMs::now(),
            timeout,
            request_bytes: request.message.len()
                + request.extra_system_prompt.as_ref().map_or(0, String::len),
            cancel: request.cancel.clone(),
            ended: watch::Sender::new(None),
            model: request.model.clone(),
            events,
            transcripts,
            pending: Notify::new(),
            progress: Mutex::new(Progress {
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

    /// What its session remembers of it; `end` once it is over.
    pub(super) fn last_run(&self, end: Option<RunEnd>) -> LastRun {
        LastRun { run_id: self.id.clone(), model: self.model.clone(), started_at: self.started_at(), end }
    }

    /// Starts it, and gives what to ask the back end. `None` when it was ended while it waited.
    pub(super) fn begin(&self) -> Option<BackendRequest> {
        let mut progress = self.progress();
        let request = progress.request.take().filter(|_| !progress.over)?;
        let started_at = TimestampMs::now();
        progress.started = Some((Instant::now(), started_at));
        self.record(Author::User, request.message.clone());
        self.lifecycle(&mut progress, json!({ "phase": "start", "startedAt": started_at }));
        self.lifecycle(
            &mut progress,
            json!({ "phase": "model", "provider": self.model.provider, "model": self.model.id }),
        );
        Some(request)
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

    /// Ends it: publishes what is left, cancels the back end and makes the outcome. `None` when it is over
    /// already, so that of several reasons to end a run the first one holds.
    pub(super) fn finish(&self, ending: &Ending) -> Option<Ended> {
        let mut progress = self.progress();
        if mem::replace(&mut progress.over, true) {
            return None;
        }
        self.cancel.cancel();
        // The message of a run that never started is needed no more.
        progress.request = None;
        self.tell(&mut progress);
        self.record_answer(&progress, ending);
        let (started_at, duration) = match progress.started {
            Some((start, at)) => (Some(at), start.elapsed()),
            None => (None, Duration::ZERO),
        };
        let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        // Counted from the start, so that a clock set anew in between cannot put the end before it.
        let ended_at =
            started_at.map_or_else(TimestampMs::now, |at| TimestampMs(at.0.saturating_add(duration_ms)));
        let text = self.publish_end(&mut progress, ending, started_at, ended_at);
        drop(progress);

        let aborted = matches!(ending, Ending::Stopped(_));
        let (status, wait_status, summary, error) = match ending {
            Ending::Answered(_) => (RunStatus::Ok, WaitStatus::Ok, "completed".to_owned(), None),
            Ending::Failed(failure) => {
                (RunStatus::Error, WaitStatus::Error, failure.message.clone(), Some(failure.message.clone()))
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
        let bytes = text.len() + self.id.len() + ENDED_OVERHEAD_BYTES;
        let has_result = matches!(ending, Ending::Answered(_)) || !text.is_empty();
        let result = has_result.then(|| AgentResult {
            payloads: if text.is_empty() {
                Vec::new()
            } else {
                vec![AgentPayload { text: Some(text), media_url: None }]
            },
            meta: AgentMeta {
                duration_ms,
                agent_meta: ending.usage().map(|usage| ModelMeta {
                    session_id: self.session_id.get().map(Uuid::to_string),
                    provider: self.model.provider.clone(),
                    model: self.model.id.clone(),
                    usage,
                }),
                aborted,
                stop_reason: stop_reason.clone(),
            },
        });
        let outcome = AgentOutcome {
            run_id: self.id.clone(),
            status,
            summary,
            result,
            stop_reason: stop_reason.clone(),
        };
        Some(Ended {
            origin: self.origin,
            ack: self.ack(AckStatus::Ended),
            result: AgentWaitResult {
                run_id: self.id.clone(),
                status: wait_status,
                started_at,
                ended_at: Some(ended_at),
                stop_reason,
                error,
                outcome: Some(outcome),
            },
            failed: status == RunStatus::Error,
            at: Instant::now(),
            bytes,
        })
    }

    /// Publishes the events of the end, in the order of wire.md section 9, and gives the whole text.
    fn publish_end(
        &self,
        progress: &mut Progress,
        ending: &Ending,
        started_at: Option<TimestampMs>,
        ended_at: TimestampMs,
    ) -> String {
        let stop_reason = ending.stop_reason();
        let text = mem::take(&mut progress.text);
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
                self.publish_chat(ChatEvent { stop_reason: Some(stop_reason.to_owned()), ..chat }, text)
            }
            Ending::Failed(failure) => {
                self.lifecycle(
                    progress,
                    json!({
                        "phase": "finishing", "stopReason": stop_reason, "aborted": false, "endedAt": ended_at,
                        "error": failure.message,
                    }),
                );
                self.lifecycle(
                    progress,
                    json!({
                        "phase": "error", "startedAt": started_at, "endedAt": ended_at, "aborted": false,
                        "stopReason": stop_reason, "error": failure.message, "errorKind": failure.kind.name(),
                    }),
                );
                let chat = self.chat(progress.seq, ChatState::Error);
                let chat = ChatEvent {
                    error_message: Some(failure.message.clone()),
                    error_kind: Some(chat_error_kind(failure.kind)),
                    ..chat
                };
                self.publish_chat(chat, text)
            }
            Ending::Stopped(_) => {
                // The conversation hears first, with the number that the end of the run is about to get.
                let chat = self.chat(progress.seq + 1, ChatState::Aborted);
                let text =
                    self.publish_chat(ChatEvent { stop_reason: Some(stop_reason.to_owned()), ..chat }, text);
                let mut data = object(json!({
                    "phase": "end", "status": "cancelled", "endedAt": ended_at, "aborted": true,
                    "stopReason": stop_reason,
                }));
                if let Some(at) = started_at {
                    data.insert("startedAt".to_owned(), json!(at));
                }
                self.publish_agent(progress, AgentStream::Lifecycle, data);
                text
            }
        }
    }

    /// Adds the answer to the transcript, before its last event is published: who reads the transcript on that event
    /// finds it there. Nothing is added for a run that was ended before it said anything.
    fn record_answer(&self, progress: &Progress, ending: &Ending) {
        let is_wordless_stop = matches!(ending, Ending::Stopped(_)) && progress.text.is_empty();
        if progress.started.is_none() || is_wordless_stop {
            return;
        }
        let author = Author::Assistant {
            provider: self.model.provider.clone(),
            model: self.model.id.clone(),
            usage: ending.usage(),
            stop_reason: ending.stop_reason().to_owned(),
            error: match ending {
                Ending::Failed(failure) => Some(failure.message.clone()),
                Ending::Answered(_) | Ending::Stopped(_) => None,
            },
        };
        self.record(author, progress.text.clone());
    }

    fn record(&self, author: Author, text: String) {
        // Set for every run that was admitted, and no other starts.
        if let Some(session_id) = self.session_id.get() {
            self.transcripts.append(*session_id, Entry { run_id: self.id.clone(), author, text });
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
            Self::Stopped(stop) => stop.reason(),
        }
    }

    /// How the run's session stands after it.
    pub(super) fn session_status(&self) -> SessionStatus {
        match self {
            Self::Answered(_) => SessionStatus::Done,
            Self::Failed(_) => SessionStatus::Failed,
            Self::Stopped(Stop::Timeout) => SessionStatus::Timeout,
            Self::Stopped(Stop::Call | Stop::Shutdown) => SessionStatus::Killed,
        }
    }

    /// What was consumed, where that is known.
    pub(super) fn usage(&self) -> Option<TokenUsage> {
        match self {
            Self::Answered(answer) => Some(answer.usage),
            Self::Failed(_) | Self::Stopped(_) => None,
        }
    }
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
