//! Runs: one message to an agent each, from acceptance to exactly one outcome.
//!
//! The idempotency key of the call is the id of the run; each method that starts runs has keys of its own. A run is
//! accepted, then running, then ended (ok, error, timeout or aborted), never back. It belongs to the gateway, not to its
//! caller: it goes on when the caller leaves. Runs of one session follow each other in the order of their acceptance; over
//! all sessions a bounded number goes on at once. Shapes and events follow wire.md sections 8 and 9.
//!
//! Each step is stored before it is told: the acceptance with the message before the acknowledgement, the start before
//! the back end is asked, the end (outcome, answer in the transcript, session, usage in one transaction) before the last
//! event. What the gateway was killed over is settled at its next start, by [`Runs::recover`]: runs that had not started
//! start, those that had end with an error.
//!
//! Invariant: the lock of `State` and that of one run's progress are never held together, and neither while
//! something is awaited or a back end is called.

mod run;
#[cfg(test)]
mod tests;

use std::{
    any::Any,
    collections::{HashMap, VecDeque},
    convert::Infallible,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use openclaw_schema::{
    events::{EventName, SessionMessageEvent, SessionsChangedEvent},
    methods::{
        agent::{
            AckStatus, AgentAbortResult, AgentAck, AgentOutcome, AgentWaitResult, RunStatus, WaitStatus,
        },
        models::{ModelInfo, ThinkingLevel},
        sessions::FastMode,
    },
    types::TimestampMs,
};
use tokio::{
    sync::watch,
    task::{JoinError, JoinHandle},
};
use tokio_util::sync::CancellationToken;

use self::run::{Acceptance, Ending, Run, Stop};
use crate::{
    backend::{Backend, BackendError, BackendErrorKind, BackendRequest, Meter, TextSink},
    chat,
    events::{Audience, EventBus},
    sessions::{self, AddressError, LastRun, Session, SessionAddress},
    settings::{Agent, Agents},
    store::{self, NewRun, OpenRun, RunStart, SessionCounts, Store, StoreError, StoredRequest, StoredRun},
    transcripts::{self, Author, Entry, Message},
};

/// How long outcomes are kept, and keys remembered, after the end of a run.
pub const KEEP_ENDED: Duration = Duration::from_secs(86_400);

/// How long a session that was made for one run alone is kept after it.
const KEEP_OWN_SESSIONS: Duration = Duration::from_secs(30 * 86_400);

/// Time between two sweeps of what is to be forgotten, and how much goes at once: writers wait for no more than that.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
const SWEEP_STEP: usize = 200;
const SWEEP_PAUSE: Duration = Duration::from_millis(50);

/// How often, and after which pauses, the end of a run is stored again when that fails.
const STORE_AGAIN: [Duration; 4] =
    [Duration::from_millis(50), Duration::from_millis(500), Duration::from_secs(2), Duration::from_secs(5)];

/// Tells the time.
type Clock = Arc<dyn Fn() -> TimestampMs + Send + Sync>;

/// How long [`Runs::wait`] waits when the caller does not say. wire.md section 9: 30 seconds.
pub const DEFAULT_WAIT: Duration = Duration::from_secs(30);

/// The bounds of runs.
#[derive(Debug, Clone)]
pub struct RunLimits {
    /// How many runs go on at once; more wait.
    pub max_running: usize,
    /// How many runs may wait; more are refused.
    pub max_queued: usize,
    /// How many bytes of messages may wait; more are refused.
    pub max_queued_bytes: usize,
    /// How many ended runs are kept at most, within [`KEEP_ENDED`]. The oldest is forgotten first.
    pub max_ended: usize,
    /// How many bytes the outcomes of ended runs may take. The oldest is forgotten first; the newest is kept
    /// whatever its size.
    pub max_ended_bytes: usize,
    /// How long a run may take from its start, unless the caller says otherwise.
    pub default_timeout: Duration,
    /// How long a back end may take to stop after its run has ended, before it is dropped. The run's session
    /// stays busy so long; its outcome is there at once.
    pub stop_grace: Duration,
    /// How often the text of a run that goes on is stored: what a kill of the gateway may take of it.
    pub keep_text_every: Duration,
}

impl Default for RunLimits {
    fn default() -> Self {
        Self {
            max_running: 128,
            max_queued: 4096,
            max_queued_bytes: 67_108_864,
            max_ended: 10_000,
            max_ended_bytes: 268_435_456,
            default_timeout: Duration::from_secs(600),
            stop_grace: Duration::from_secs(2),
            keep_text_every: Duration::from_secs(1),
        }
    }
}

/// Which method a run was started by. Each has idempotency keys of its own: wire.md section 8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// `agent`.
    Agent,
    /// `chat.send`.
    Chat,
}

impl Origin {
    /// The name in the store.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Chat => "chat",
        }
    }

    /// The origin of such a name.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Agent, Self::Chat].into_iter().find(|origin| origin.name() == name)
    }
}

/// What to say to an agent, and how.
#[derive(Debug, Clone)]
pub struct RunRequest {
    /// What is said.
    pub message: String,
    /// Names the run: see [`Runs::start`].
    pub idempotency_key: String,
    /// Whose key that is.
    pub origin: Origin,
    /// The agent; the default agent when absent.
    pub agent_id: Option<String>,
    /// The session, as the caller writes it: see [`sessions::resolve`].
    pub session_key: Option<String>,
    /// The model, as `provider/id` or an id of the catalogue; the agent's model when absent.
    pub model: Option<String>,
    /// How long the run may take from its start; [`RunLimits::default_timeout`] when absent, for ever when zero.
    pub timeout: Option<Duration>,
    /// How much the model is to think; what the session, or else the configuration says when absent.
    pub thinking: Option<ThinkingLevel>,
    /// Whether the model is to answer faster; likewise.
    pub fast_mode: Option<FastMode>,
    /// Added to the system prompt.
    pub extra_system_prompt: Option<String>,
    /// A label for lists of runs.
    pub label: Option<String>,
}

impl RunRequest {
    /// Says `message` to the default agent, in a session of its own.
    #[must_use]
    pub fn new(idempotency_key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            idempotency_key: idempotency_key.into(),
            origin: Origin::Agent,
            agent_id: None,
            session_key: None,
            model: None,
            timeout: None,
            thinking: None,
            fast_mode: None,
            extra_system_prompt: None,
            label: None,
        }
    }
}

/// Why a run was not started. Nothing is remembered of it: the same key may be used again.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StartError {
    /// The agent or the session does not exist.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The model that the call names does not exist. The parameter is `/model`.
    #[error("no model `{model}`; `models.list` lists them")]
    UnknownModel {
        /// The model.
        model: String,
    },
    /// The back end does not offer the model that the settings give the agent.
    #[error(
        "agent `{agent_id}` is set to model `{model}`, which is not available; `models.list` lists those that are"
    )]
    AgentModel {
        /// The agent.
        agent_id: String,
        /// The model.
        model: String,
    },
    /// The back end offers no model at all.
    #[error("no model is available; `models.list` lists those of this gateway")]
    NoModel,
    /// Too much waits already.
    #[error("too many runs wait already; try again when some have ended")]
    Busy,
    /// The gateway is about to stop.
    #[error("the gateway is stopping and starts no more runs; try again when it is back")]
    Draining,
    /// The run could not be stored, so that it would not survive.
    #[error("the run cannot be stored; the gateway's log says more")]
    Store(#[source] Failure),
}

/// The database failed: what the log is told.
#[derive(Debug, Clone, thiserror::Error)]
#[error(transparent)]
pub struct Failure(#[from] StoreError);

/// Why nothing is said about a run.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RunError {
    /// It never was, or is forgotten. The parameter is `/runId`.
    #[error("no run `{run_id}`; outcomes are kept for a day")]
    Unknown {
        /// The run that was asked for.
        run_id: String,
    },
    /// Runs cannot be read.
    #[error("the runs cannot be read; the gateway's log says more")]
    Store(#[source] Failure),
}

/// Runs, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunCounts {
    /// Those that have not ended, the waiting ones included.
    pub active: usize,
    /// Those that wait for their turn.
    pub queued: usize,
    /// Those that have ended since the gateway started.
    pub ended: usize,
    /// Those among them that ended with an error.
    pub failed: usize,
}

/// A run that has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActiveRun {
    /// The run: its idempotency key.
    pub run_id: String,
    /// The session, in full.
    pub session_key: String,
    /// The agent.
    pub agent_id: String,
    /// The label that the caller gave.
    pub label: Option<String>,
    /// When it was accepted.
    pub accepted_at: TimestampMs,
    /// When it started; absent while it waits.
    pub started_at: Option<TimestampMs>,
}

/// What goes on in a session.
#[derive(Debug, Default)]
pub struct SessionActivity {
    /// The run that goes on.
    pub current: Option<Current>,
    /// The first of the runs that wait, in their order.
    pub waiting: Vec<Waiting>,
    /// How many wait.
    pub waiting_total: usize,
}

/// A run that goes on.
#[derive(Debug)]
pub struct Current {
    /// The run.
    pub run_id: String,
    /// Its text so far.
    pub text: String,
    /// When it started.
    pub started_at: TimestampMs,
}

/// A run that waits for its turn.
#[derive(Debug)]
pub struct Waiting {
    /// The run.
    pub run_id: String,
    /// The beginning of what is to be said.
    pub message: String,
    /// When it was accepted.
    pub accepted_at: TimestampMs,
}

/// Which runs of a session [`Runs::abort_in`] ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aborted<'a> {
    /// The one that goes on, or is about to.
    Current,
    /// That and those that wait.
    All,
    /// Those of this id.
    Run(&'a str),
}

/// The runs of a gateway. Cloning it is cheap; the clones are one.
#[derive(Debug, Clone)]
pub struct Runs {
    inner: Arc<Inner>,
}

struct Inner {
    backend: Arc<dyn Backend>,
    events: EventBus,
    agents: Agents,
    store: Store,
    limits: RunLimits,
    clock: Clock,
    state: Mutex<State>,
    /// What `drain` watches; sent under the lock of `state`.
    load: watch::Sender<Load>,
    /// Whether what an earlier life of the gateway left has been settled.
    recovered: watch::Sender<bool>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("backend", &self.backend)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct State {
    runs: Table,
    /// How many of `runs` are active, and those whose last event is yet to come.
    active: usize,
    /// The sessions that are busy.
    lanes: HashMap<String, Lane>,
    /// The runs whose session is theirs already, and that wait for one of `max_running` places.
    ready: VecDeque<Arc<Run>>,
    /// How many places are taken. A run keeps its place until its back end has stopped.
    running: usize,
    /// How many runs are in `lanes` and `ready`, and how many bytes they hold.
    queued: usize,
    queued_bytes: usize,
    ended: usize,
    failed: usize,
    /// How many sessions each agent has.
    sessions: SessionCounts,
    draining: bool,
}

/// The active runs by their ids, apart by their origin.
#[derive(Debug, Default)]
struct Table {
    agent: HashMap<String, Arc<Run>>,
    chat: HashMap<String, Arc<Run>>,
}

impl Table {
    fn of(&self, origin: Origin) -> &HashMap<String, Arc<Run>> {
        match origin {
            Origin::Agent => &self.agent,
            Origin::Chat => &self.chat,
        }
    }

    fn of_mut(&mut self, origin: Origin) -> &mut HashMap<String, Arc<Run>> {
        match origin {
            Origin::Agent => &mut self.agent,
            Origin::Chat => &mut self.chat,
        }
    }

    /// The run of an id; of two, that of `agent`.
    fn find(&self, run_id: &str) -> Option<&Arc<Run>> {
        self.agent.get(run_id).or_else(|| self.chat.get(run_id))
    }

    fn values(&self) -> impl Iterator<Item = &Arc<Run>> {
        self.agent.values().chain(self.chat.values())
    }
}

/// A session that is busy.
#[derive(Debug)]
struct Lane {
    /// The run whose turn it is, up to when its back end has stopped.
    head: Arc<Run>,
    /// Those that wait for theirs.
    waiting: VecDeque<Arc<Run>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Load {
    active: usize,
    running: usize,
}

impl Runs {
    /// No runs yet. `backend` answers, `events` hears of progress, `store` keeps what must not be lost. Nothing starts
    /// before [`Runs::recover`].
    pub(crate) fn new(
        backend: Arc<dyn Backend>,
        events: EventBus,
        agents: Agents,
        store: Store,
        limits: RunLimits,
    ) -> Self {
        Self::with_clock(backend, events, agents, store, limits, Arc::new(TimestampMs::now))
    }

    fn with_clock(
        backend: Arc<dyn Backend>,
        events: EventBus,
        agents: Agents,
        store: Store,
        limits: RunLimits,
        clock: Clock,
    ) -> Self {
        let (load, recovered) = (watch::Sender::new(Load::default()), watch::Sender::new(false));
        let state = Mutex::default();
        Self {
            inner: Arc::new(Inner { backend, events, agents, store, limits, clock, state, load, recovered }),
        }
    }

    /// Settles what an earlier life of the gateway left, in the order in which it was accepted: runs that had not started
    /// start now, those that had end with an error. To be called once, and before anything else goes on.
    pub async fn recover(&self) {
        if self.inner.store.exists() {
            match self.inner.store.recover().await {
                Ok((open, counts)) => {
                    let left = open.len();
                    let mut state = self.state();
                    // One may have been made meanwhile.
                    for (agent_id, count) in counts {
                        *state.sessions.entry(agent_id).or_default() += count;
                    }
                    drop(state);
                    for run in open {
                        self.take_up(run);
                    }
                    if left > 0 {
                        tracing::info!(runs = left, "took up the runs that an earlier gateway left");
                    }
                }
                Err(error) => {
                    tracing::error!(
                        error = store::chain(&error),
                        "cannot read the runs of an earlier gateway"
                    );
                }
            }
        }
        self.inner.recovered.send_replace(true);
    }

    /// Takes up a run of an earlier life of the gateway.
    fn take_up(&self, open: OpenRun) {
        let OpenRun { seq, origin, run, transcript, request, text } = open;
        let started_at = run.started_at;
        let stored = request.unwrap_or_default();
        let agents = &self.inner.agents;
        let agent = agents.list.iter().find(|agent| agent.id == run.address.agent_id);
        // What is asked of an agent that is gone is not started, but it has an outcome all the same.
        let gone = agent
            .is_none()
            .then(|| AddressError::UnknownAgent { id: run.address.agent_id.clone(), path: "" });
        let agent = agent.cloned().unwrap_or_else(|| Agent {
            id: run.address.agent_id.clone(),
            name: None,
            workspace: std::path::PathBuf::new(),
            model: None,
        });
        let model = self.choose_model(stored.model.as_deref(), None, &agent);
        let request = RunRequest {
            message: stored.message,
            idempotency_key: run.run_id.clone(),
            origin,
            agent_id: None,
            session_key: None,
            model: stored.model,
            timeout: Some(Duration::from_millis(stored.timeout_ms)),
            thinking: stored.thinking,
            fast_mode: stored.fast_mode,
            extra_system_prompt: stored.extra_system_prompt,
            label: stored.label,
        };
        let failure = gone.map(|error| error.to_string()).or(model.as_ref().err().map(ToString::to_string));
        let model = model.unwrap_or_else(|_| unknown_model());
        let taken = Arc::new(self.make(request, run.address, agent, model, run.accepted_at));
        let _ = taken.seq.set(seq);
        if let Some(transcript) = transcript {
            let _ = taken.transcript.set(transcript);
        }
        taken.acceptance.send_replace(Acceptance::Durable);
        let mut state = self.state();
        state.runs.of_mut(origin).insert(taken.id.clone(), Arc::clone(&taken));
        state.active += 1;
        if started_at.is_none() && failure.is_none() {
            self.enqueue(&mut state, &taken);
            return;
        }
        drop(state);
        let ending = match (started_at, failure) {
            (Some(at), _) => {
                taken.resume(at, text);
                Ending::Interrupted
            }
            (None, Some(message)) => Ending::Failed(BackendError::new(BackendErrorKind::Unknown, message)),
            (None, None) => return,
        };
        self.finish(&taken, ending);
    }

    /// Waits until what an earlier life of the gateway left has been settled.
    async fn recovered(&self) {
        let mut recovered = self.inner.recovered.subscribe();
        // The sender lives in `self`.
        let _ = recovered.wait_for(|recovered| *recovered).await;
    }

    /// Starts a run, or says how the run of this key stands. Waits for nothing but the run's being stored: when this
    /// returns, the death of the gateway does not take it back.
    ///
    /// A key starts one run. While it goes on, and for [`KEEP_ENDED`] after its end, a repeat is told so,
    /// whatever else the repeat asks for.
    ///
    /// # Errors
    ///
    /// When the request names something that does not exist, too much waits, the gateway is stopping, or the run cannot
    /// be stored.
    pub async fn start(&self, request: RunRequest) -> Result<AgentAck, StartError> {
        if !*self.inner.recovered.borrow() {
            self.recovered().await;
        }
        let (origin, run_id) = (request.origin, request.idempotency_key.clone());
        loop {
            let going_on = self.state().runs.of(origin).get(&run_id).cloned();
            let Some(run) = going_on else { break };
            match run.accepted().await {
                Acceptance::Known(stored) => return Ok(known_ack(&stored)),
                // Its place is free by now, or about to be.
                Acceptance::Failed(_) | Acceptance::Pending => tokio::task::yield_now().await,
                Acceptance::Durable => return Ok(run.ack(AckStatus::InFlight)),
            }
        }
        let (run, status) = match self.prepare(request).and_then(|run| self.admit(run)) {
            Ok(admitted) => admitted,
            // A key that was used is answered as such, whatever else is wrong with the call.
            Err(error) => {
                let known = self.inner.store.exists().then(|| self.stored(&run_id, Some(origin)));
                let known = match known {
                    Some(known) => known.await.ok().flatten(),
                    None => None,
                };
                return known.map(|run| known_ack(&run)).ok_or(error);
            }
        };
        match run.accepted().await {
            Acceptance::Known(stored) => Ok(known_ack(&stored)),
            Acceptance::Failed(error) => Err(StartError::Store(error.into())),
            Acceptance::Durable | Acceptance::Pending => Ok(run.ack(status)),
        }
    }

    /// Waits until a run has ended, at most for `timeout`, or [`DEFAULT_WAIT`]. Zero answers at once.
    ///
    /// The result has an `outcome` exactly when the run has ended. May be cancelled at any time.
    ///
    /// # Errors
    ///
    /// When there is no such run, or its outcome is forgotten.
    pub async fn wait(&self, run_id: &str, timeout: Option<Duration>) -> Result<AgentWaitResult, RunError> {
        let run = match self.find(run_id).await? {
            Found::Ended(stored) => return Ok(known_result(*stored)),
            Found::Active(run) => run,
        };
        let waited = tokio::time::timeout(timeout.unwrap_or(DEFAULT_WAIT), run.outcome()).await;
        Ok(waited.map_or_else(
            |_| AgentWaitResult {
                run_id: run_id.to_owned(),
                status: WaitStatus::Timeout,
                started_at: run.started_at(),
                ended_at: None,
                stop_reason: None,
                error: None,
                outcome: None,
            },
            |result| AgentWaitResult::clone(&result),
        ))
    }

    /// Ends a run, be it waiting or under way. When this call ended it, its outcome is there already.
    ///
    /// # Errors
    ///
    /// When there is no such run, or its outcome is forgotten.
    pub async fn abort(&self, run_id: &str) -> Result<AgentAbortResult, RunError> {
        let aborted = match self.find(run_id).await? {
            Found::Ended(_) => false,
            Found::Active(run) => {
                let aborted = self.finish(&run, Ending::Stopped(Stop::Call));
                run.outcome().await;
                aborted
            }
        };
        Ok(AgentAbortResult { run_id: run_id.to_owned(), aborted })
    }

    /// Ends runs of a session, given by its key in full, and tells which, oldest first. Their outcomes are there
    /// already.
    pub async fn abort_in(&self, session_key: &str, which: Aborted<'_>) -> Vec<String> {
        let mut runs: Vec<Arc<Run>> =
            self.state().lane(session_key).filter(|run| !run.is_over()).cloned().collect();
        match which {
            Aborted::Current => runs.truncate(1),
            Aborted::All => {}
            Aborted::Run(run_id) => runs.retain(|run| run.id == run_id),
        }
        // Those that wait go first, or each end would start the next.
        runs.reverse();
        let mut aborted = Vec::new();
        for run in runs {
            if matches!(run.accepted().await, Acceptance::Durable)
                && self.finish(&run, Ending::Stopped(Stop::Call))
            {
                aborted.push(run);
            }
        }
        for run in &aborted {
            run.outcome().await;
        }
        aborted.into_iter().rev().map(|run| run.id.clone()).collect()
    }

    /// What goes on in a session, given by its key in full, with up to `max_waiting` of the runs that wait and
    /// `max_chars` of their messages.
    #[must_use]
    pub fn activity(&self, session_key: &str, max_waiting: usize, max_chars: usize) -> SessionActivity {
        let runs: Vec<Arc<Run>> = self.state().lane(session_key).cloned().collect();
        SessionActivity {
            current: runs.first().and_then(|run| run.current()),
            waiting: runs.iter().filter_map(|run| run.waiting(max_chars)).take(max_waiting).collect(),
            waiting_total: runs.iter().filter(|run| run.is_waiting()).count(),
        }
    }

    /// Adds to a session, as it is stored, what goes on in it.
    pub(crate) fn enliven(&self, session: &mut Session) {
        let runs: Vec<Arc<Run>> = self.state().lane(&session.key).cloned().collect();
        if let Some(current) = runs.first().and_then(|run| run.as_last_run()) {
            session.last_run = Some(current);
        }
        session.active = runs.iter().filter(|run| !run.is_over()).map(|run| run.id.clone()).collect();
    }

    /// The session that a caller's words mean: see [`sessions::resolve`].
    ///
    /// # Errors
    ///
    /// When they name none.
    pub fn address(&self, agent_id: Option<&str>, session_key: &str) -> Result<SessionAddress, AddressError> {
        sessions::resolve(&self.inner.agents, agent_id, Some(session_key), "").map(|(address, _)| address)
    }

    /// The model that serves an agent's runs when neither the caller nor the session names one; `None` when there is
    /// none.
    #[must_use]
    pub fn default_model(&self, agent_id: &str) -> Option<ModelInfo> {
        self.model_of(agent_id, None)
    }

    /// The model that serves a session's runs; `None` when there is none.
    #[must_use]
    pub fn model_of(&self, agent_id: &str, chosen: Option<&str>) -> Option<ModelInfo> {
        let agent = self.inner.agents.list.iter().find(|agent| agent.id == agent_id)?;
        self.choose_model(None, chosen, agent).ok()
    }

    /// The models that the back end offers now.
    #[must_use]
    pub fn models(&self) -> Arc<[ModelInfo]> {
        self.inner.backend.models()
    }

    /// The id of the agent that is spoken to when nobody is named.
    pub(crate) fn default_agent(&self) -> &str {
        &self.inner.agents.default_id
    }

    /// The agent of an id, as the settings write it.
    pub(crate) fn agent(&self, agent_id: &str) -> Option<&Agent> {
        self.inner.agents.list.iter().find(|agent| agent.id == agent_id)
    }

    /// What answers them.
    #[must_use]
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.inner.backend
    }

    /// How many runs there are.
    #[must_use]
    pub fn counts(&self) -> RunCounts {
        let state = self.state();
        RunCounts { active: state.active, queued: state.queued, ended: state.ended, failed: state.failed }
    }

    /// The runs that have not ended, oldest first.
    #[must_use]
    pub fn active(&self) -> Vec<ActiveRun> {
        let runs: Vec<Arc<Run>> = self.state().runs.values().cloned().collect();
        let mut active: Vec<ActiveRun> = runs
            .into_iter()
            .filter(|run| !run.is_over())
            .map(|run| ActiveRun {
                run_id: run.id.clone(),
                session_key: run.address.key.clone(),
                agent_id: run.address.agent_id.clone(),
                label: run.label.clone(),
                accepted_at: run.accepted_at,
                started_at: run.started_at(),
            })
            .collect();
        active.sort_by(|a, b| (a.accepted_at, &a.run_id).cmp(&(b.accepted_at, &b.run_id)));
        active
    }

    /// Whether a run waits or goes on.
    pub(crate) fn is_active(&self, run_id: &str) -> bool {
        self.state().runs.find(run_id).is_some()
    }

    /// How many sessions there are, of one agent or of all.
    #[must_use]
    pub fn session_count(&self, agent_id: Option<&str>) -> u64 {
        let state = self.state();
        match agent_id {
            Some(id) => state.sessions.get(id).copied().unwrap_or_default(),
            None => state.sessions.values().sum(),
        }
    }

    /// Notes that a session was made, or that one is gone.
    pub(crate) fn count_session(&self, agent_id: &str, is_new: bool) {
        let mut state = self.state();
        let count = state.sessions.entry(agent_id.to_owned()).or_default();
        *count = if is_new { count.saturating_add(1) } else { count.saturating_sub(1) };
    }

    /// Starts no more runs, waits up to `patience` for those accepted, aborts the rest, and gives its number.
    ///
    /// When it returns, every run has its outcome and has published its last event, and the back ends have
    /// stopped or had [`RunLimits::stop_grace`] to.
    pub async fn drain(&self, patience: Duration) -> usize {
        self.state().draining = true;
        let mut load = self.inner.load.subscribe();
        let idle = tokio::time::timeout(patience, load.wait_for(|load| load.active == 0)).await.is_ok();
        let mut aborted = 0;
        if !idle {
            let mut left: Vec<Arc<Run>> = self.state().runs.values().cloned().collect();
            // Those that wait go first, or each end would start the next.
            left.sort_by_key(|run| run.started_at().is_some());
            // One that is being accepted is waited for, a moment long: a gateway that follows in this process would take
            // it up from the store beside this one.
            let accepted = async {
                for run in &left {
                    run.accepted().await;
                }
            };
            let _ = tokio::time::timeout(self.inner.limits.stop_grace, accepted).await;
            for run in left {
                // One that is not accepted by now waits for its store, which the next start of the gateway reads.
                if run.seq.get().is_some() {
                    aborted += usize::from(self.finish(&run, Ending::Stopped(Stop::Shutdown)));
                }
            }
        }
        // A back end gets its grace twice: to stop, and to be dropped.
        let grace = self.inner.limits.stop_grace * 2;
        let stopped = load.wait_for(|load| load.active == 0 && load.running == 0);
        if tokio::time::timeout(grace, stopped).await.is_err() {
            tracing::warn!("a back end does not stop; the gateway goes on without it");
        }
        aborted
    }

    /// Forgets what is kept no more, a little at a time, for as long as it is polled.
    pub(crate) async fn sweep(&self) {
        self.recovered().await;
        loop {
            self.inner.events.sweep();
            // Nothing is opened for it.
            if self.inner.store.exists()
                && let Err(error) = self.sweep_once().await
            {
                tracing::warn!(error = store::chain(&error), "cannot forget what is kept no more");
            }
            tokio::time::sleep(SWEEP_INTERVAL).await;
        }
    }

    async fn sweep_once(&self) -> Result<(), StoreError> {
        let Inner { store, limits, .. } = &*self.inner;
        while store
            .sweep_runs(self.keep_from(KEEP_ENDED), limits.max_ended, limits.max_ended_bytes, SWEEP_STEP)
            .await?
            == SWEEP_STEP
        {
            tokio::time::sleep(SWEEP_PAUSE).await;
        }
        loop {
            let gone = store.sweep_sessions(self.keep_from(KEEP_OWN_SESSIONS), SWEEP_STEP).await?;
            for agent_id in &gone {
                self.count_session(agent_id, false);
            }
            if gone.len() < SWEEP_STEP {
                break;
            }
            tokio::time::sleep(SWEEP_PAUSE).await;
        }
        while store.sweep_messages(SWEEP_STEP).await? > 0 {
            tokio::time::sleep(SWEEP_PAUSE).await;
        }
        Ok(())
    }

    /// The time before which what ended is forgotten.
    fn keep_from(&self, keep: Duration) -> TimestampMs {
        let keep = u64::try_from(keep.as_millis()).unwrap_or(u64::MAX);
        TimestampMs((self.inner.clock)().0.saturating_sub(keep))
    }

    /// Checks a request, and makes a run of it that nobody knows yet.
    fn prepare(&self, request: RunRequest) -> Result<Run, StartError> {
        let (address, agent) = sessions::resolve(
            &self.inner.agents,
            request.agent_id.as_deref(),
            request.session_key.as_deref(),
            &request.idempotency_key,
        )?;
        let model = self.choose_model(request.model.as_deref(), None, agent)?;
        Ok(self.make(request, address, agent.clone(), model, (self.inner.clock)()))
    }

    fn make(
        &self,
        request: RunRequest,
        address: SessionAddress,
        agent: Agent,
        model: ModelInfo,
        accepted_at: TimestampMs,
    ) -> Run {
        let for_backend = BackendRequest {
            run_id: request.idempotency_key,
            session_key: address.key.clone(),
            agent,
            model,
            history: Vec::new(),
            message: request.message,
            extra_system_prompt: request.extra_system_prompt,
            thinking: request.thinking,
            fast_mode: request.fast_mode,
            meter: Meter::default(),
            cancel: CancellationToken::new(),
        };
        let timeout = request.timeout.unwrap_or(self.inner.limits.default_timeout);
        Run::new(run::Parts {
            origin: request.origin,
            address,
            label: request.label,
            timeout: if timeout.is_zero() { Duration::MAX } else { timeout },
            asked_model: request.model,
            accepted_at,
            request: for_backend,
            events: self.inner.events.clone(),
            clock: Arc::clone(&self.inner.clock),
        })
    }

    /// The model that the caller asks for, or that was chosen for the session, or the agent's.
    fn choose_model(
        &self,
        asked: Option<&str>,
        chosen: Option<&str>,
        agent: &Agent,
    ) -> Result<ModelInfo, StartError> {
        let backend = &self.inner.backend;
        let Some(name) = asked.or(chosen).or(agent.model.as_deref()) else {
            let models = backend.models();
            let default = models.iter().find(|model| model.tags.iter().any(|tag| tag == "default"));
            return default.or(models.first()).cloned().ok_or(StartError::NoModel);
        };
        backend.find(name).ok_or_else(|| match asked.or(chosen) {
            Some(model) => StartError::UnknownModel { model: model.to_owned() },
            None => StartError::AgentModel { agent_id: agent.id.clone(), model: name.to_owned() },
        })
    }

    /// Takes a run in: gives it its place, and has it stored. The order of the calls is that of the store and of the
    /// session alike.
    fn admit(&self, run: Run) -> Result<(Arc<Run>, AckStatus), StartError> {
        let limits = &self.inner.limits;
        let run = Arc::new(run);
        let mut state = self.state();
        if state.draining {
            return Err(StartError::Draining);
        }
        if let Some(other) = state.runs.of(run.origin).get(&run.id) {
            // Somebody was faster by a moment.
            return Ok((Arc::clone(other), AckStatus::InFlight));
        }
        let is_busy = state.lanes.contains_key(&run.address.key);
        if is_busy || state.running >= limits.max_running {
            let bytes = state.queued_bytes.saturating_add(run.request_bytes);
            if state.queued >= limits.max_queued || bytes > limits.max_queued_bytes {
                return Err(StartError::Busy);
            }
        }
        state.runs.of_mut(run.origin).insert(run.id.clone(), Arc::clone(&run));
        state.active += 1;
        let request = run.request();
        let new = NewRun {
            origin: run.origin,
            run_id: run.id.clone(),
            address: run.address.clone(),
            accepted_at: run.accepted_at,
            request: StoredRequest {
                message: request.as_ref().map(|request| request.message.clone()).unwrap_or_default(),
                model: run.asked_model.clone(),
                timeout_ms: if run.timeout == Duration::MAX {
                    0
                } else {
                    u64::try_from(run.timeout.as_millis()).unwrap_or(0)
                },
                thinking: request.as_ref().and_then(|request| request.thinking),
                fast_mode: request.as_ref().and_then(|request| request.fast_mode),
                extra_system_prompt: request.and_then(|request| request.extra_system_prompt),
                label: run.label.clone(),
            },
        };
        let stored = self.inner.store.accept_run(new, self.keep_from(KEEP_ENDED));
        self.enqueue(&mut state, &run);
        drop(state);
        // A task of its own: the run is accepted, or is not, whoever waits for it.
        tokio::spawn(self.clone().settle_acceptance(Arc::clone(&run), stored));
        Ok((run, AckStatus::Accepted))
    }

    /// Puts a run where it waits for its turn, or starts it.
    fn enqueue(&self, state: &mut State, run: &Arc<Run>) {
        state.queued += 1;
        state.queued_bytes += run.request_bytes;
        match state.lanes.get_mut(&run.address.key) {
            Some(lane) => lane.waiting.push_back(Arc::clone(run)),
            None => {
                let lane = Lane { head: Arc::clone(run), waiting: VecDeque::new() };
                state.lanes.insert(run.address.key.clone(), lane);
                state.ready.push_back(Arc::clone(run));
            }
        }
        self.start_ready(state);
    }

    /// Notes what became of the acceptance of a run.
    async fn settle_acceptance(
        self,
        run: Arc<Run>,
        stored: impl Future<Output = Result<store::Acceptance, StoreError>>,
    ) {
        let refused = match stored.await {
            Ok(store::Acceptance::New { seq, session, is_new_session }) => {
                if is_new_session {
                    self.count_session(&session.agent_id, true);
                }
                // A run is accepted once.
                let _ = run.seq.set(seq);
                let _ = run.session_id.set(session.id);
                tracing::info!(
                    run = run.id,
                    session = run.address.key,
                    agent = run.address.agent_id,
                    "run accepted"
                );
                run.acceptance.send_replace(Acceptance::Durable);
                return;
            }
            Ok(store::Acceptance::Known(stored)) => Acceptance::Known(Arc::from(stored)),
            Err(error) => {
                tracing::error!(run = run.id, error = store::chain(&error), "a run cannot be stored");
                Acceptance::Failed(error)
            }
        };
        let mut state = self.state();
        // One that waits leaves its queue; one that has a place is sent away by `attend`.
        if state.take_from_queue(&run) {
            self.start_ready(&mut state);
        }
        state.runs.of_mut(run.origin).remove(&run.id);
        state.active -= 1;
        self.tell_load(&state);
        drop(state);
        run.acceptance.send_replace(refused);
    }

    /// Starts what may start.
    fn start_ready(&self, state: &mut State) {
        while state.running < self.inner.limits.max_running
            && let Some(run) = state.ready.pop_front()
        {
            state.queued -= 1;
            state.queued_bytes -= run.request_bytes;
            state.running += 1;
            tokio::spawn(self.clone().attend(run));
        }
        self.tell_load(state);
    }

    fn tell_load(&self, state: &State) {
        self.inner.load.send_replace(Load { active: state.active, running: state.running });
    }

    /// Sees a run through: has its start stored, calls the back end, publishes its text, keeps the time.
    async fn attend(self, run: Arc<Run>) {
        if matches!(run.accepted().await, Acceptance::Durable) {
            match self.begin(&run).await {
                Ok(Some(request)) => self.answer(&run, request).await,
                Ok(None) => {}
                Err(failure) => {
                    self.finish(&run, Ending::Failed(failure));
                }
            }
            // The next of the session comes after all that belongs to this one.
            run.outcome().await;
        }
        self.leave(&run);
    }

    /// Starts a run, and gives what to ask the back end. `None` when it was ended while it waited.
    async fn begin(&self, run: &Arc<Run>) -> Result<Option<BackendRequest>, BackendError> {
        let (Some(mut request), Some(seq)) = (run.request(), run.seq.get()) else { return Ok(None) };
        let Inner { store, clock, .. } = &*self.inner;
        let unstored = |error: StoreError| {
            tracing::error!(
                run = run.id,
                error = store::chain(&error),
                "the start of a run cannot be stored"
            );
            BackendError::new(
                BackendErrorKind::Unknown,
                "the run could not be stored; the gateway's log says more",
            )
        };
        let started_at = clock();
        let entry = Entry { run_id: run.id.clone(), author: Author::User, text: request.message.clone() };
        let last_run = LastRun {
            run_id: run.id.clone(),
            model: request.model.clone(),
            started_at: Some(started_at),
            end: None,
        };
        let started = store.start_run(*seq, run.address.clone(), started_at, entry, last_run).await;
        let Some(RunStart { session, message }) = started.map_err(unstored)? else { return Ok(None) };
        let _ = run.session_id.set(session.id);
        let _ = run.transcript.set(session.transcript);
        if run.asked_model.is_none() && session.settings.model.is_some() {
            let chosen = self.choose_model(None, session.settings.model.as_deref(), &request.agent);
            request.model =
                chosen.map_err(|error| BackendError::new(BackendErrorKind::Unknown, error.to_string()))?;
        }
        // What cannot be read was stored by a version that took anything.
        let chosen = session.settings.thinking_level.as_deref().and_then(|level| level.parse().ok());
        request.thinking = request.thinking.or(chosen);
        request.fast_mode = request.fast_mode.or(session.settings.fast_mode);
        let prompt = request.message.len() + request.extra_system_prompt.as_ref().map_or(0, String::len);
        let room = transcripts::room_for_past(request.model.context_window, prompt);
        let past = store.past(session.transcript, message.seq, room).await.map_err(unstored)?;
        request.history = past.into_turns();
        if !run.begin(request.model.clone(), started_at) {
            return Ok(None);
        }
        self.tell_session(&session, "agent.run.started", "start", &run.id);
        self.tell_message(&session, &message);
        Ok(Some(request))
    }

    /// Has a run answered.
    async fn answer(&self, run: &Arc<Run>, request: BackendRequest) {
        let sink = {
            let run = Arc::clone(run);
            TextSink::new(move |text| run.push(text))
        };
        let backend = Arc::clone(&self.inner.backend);
        // A task of its own contains a panic, also one on being dropped, and code that blocks.
        let mut answer = tokio::spawn(async move { backend.run(request, sink).await });
        let ending = tokio::select! {
            biased;
            answer = &mut answer => Some(match answer {
                Ok(Ok(answer)) => Ending::Answered(Box::new(answer)),
                Ok(Err(error)) => Ending::Failed(error),
                Err(error) => Ending::Failed(died(&run.id, error)),
            }),
            () = run.cancel.cancelled() => None,
            () = tokio::time::sleep(run.timeout) => Some(Ending::Stopped(Stop::Timeout)),
            never = run.tell_by_windows() => match never {},
            never = self.keep_text(run) => match never {},
        };
        if let Some(ending) = ending {
            self.finish(run, ending);
        }
        if !answer.is_finished() {
            self.wind_down(run, answer).await;
        }
    }

    /// Stores the text of a run as it grows, for as long as it is polled: what a gateway that is killed has of it. At most a
    /// row a run and interval, and nothing of a run that is quick.
    async fn keep_text(&self, run: &Run) -> Infallible {
        let mut kept = 0;
        loop {
            tokio::time::sleep(self.inner.limits.keep_text_every).await;
            let (Some(piece), Some(seq)) = (run.text_from(kept), run.seq.get()) else { continue };
            let end = kept + piece.len();
            match self.inner.store.keep_text(*seq, kept, piece).await {
                Ok(()) => kept = end,
                // It is tried again with what has come by then.
                Err(error) => {
                    let error = store::chain(&error);
                    tracing::debug!(run = run.id, error, "the text of a run cannot be stored");
                }
            }
        }
    }

    /// Gives the back end of an ended run time to stop, then drops it.
    async fn wind_down<T>(&self, run: &Run, mut answer: JoinHandle<T>) {
        let grace = self.inner.limits.stop_grace;
        if tokio::time::timeout(grace, &mut answer).await.is_err() {
            tracing::warn!(run = run.id, "the back end of an ended run does not stop and is dropped");
            answer.abort();
            // Over at once, unless its code blocks a thread; that is not waited for.
            let _ = tokio::time::timeout(grace, answer).await;
        }
    }

    /// Ends a run, if nothing else has yet. Its outcome is stored, then told: [`Run::outcome`] waits for that.
    fn finish(&self, run: &Arc<Run>, ending: Ending) -> bool {
        let Some(closed) = run.close(ending) else { return false };
        let mut state = self.state();
        if state.take_from_queue(run) {
            self.start_ready(&mut state);
        }
        drop(state);
        let stored = self.inner.store.end_run(run.end_record(&closed));
        tokio::spawn(self.clone().settle_end(Arc::clone(run), closed, stored));
        true
    }

    /// Sees to it that the end of a run is stored, and tells it.
    async fn settle_end(
        self,
        run: Arc<Run>,
        mut closed: run::Closed,
        stored: impl Future<Output = Result<store::Ended, StoreError>>,
    ) {
        let mut stored = stored.await;
        for pause in STORE_AGAIN {
            let Err(error) = &stored else { break };
            tracing::error!(run = run.id, error = store::chain(error), "the end of a run cannot be stored");
            tokio::time::sleep(pause).await;
            stored = self.inner.store.end_run(run.end_record(&closed)).await;
        }
        if stored.is_err() {
            // What is told now must not differ in kind from what the next start of the gateway makes of it.
            closed.fail("the outcome of the run could not be stored; the gateway's log says more");
        }
        {
            let mut state = self.state();
            state.runs.of_mut(run.origin).remove(&run.id);
            state.ended += 1;
            state.failed += usize::from(closed.has_failed());
        }
        run.tell_end(&closed);
        if let Ok(Some((Some(session), message))) = stored {
            if let Some(message) = message {
                self.tell_message(&session, &message);
            }
            self.tell_session(&session, "agent.input.settled", "end", &run.id);
        }
        match &closed.ending {
            Ending::Answered(_) => tracing::info!(run = run.id, "run completed"),
            Ending::Failed(error) => {
                tracing::warn!(run = run.id, kind = error.kind.name(), %error, "run failed");
            }
            Ending::Interrupted => tracing::warn!(run = run.id, "run was interrupted"),
            Ending::Stopped(stop) => tracing::info!(run = run.id, ?stop, "run aborted"),
        }
        {
            let mut state = self.state();
            state.active -= 1;
            self.tell_load(&state);
        }
        run.ended.send_replace(Some(Arc::new(closed.result)));
    }

    /// Tells those who asked for changes of sessions.
    fn tell_session(&self, session: &Session, reason: &str, phase: &str, run_id: &str) {
        let mut session = session.clone();
        self.enliven(&mut session);
        let event = SessionsChangedEvent {
            session_key: Some(session.key.clone()),
            agent_id: Some(session.agent_id.clone()),
            reason: Some(reason.to_owned()),
            phase: Some(phase.to_owned()),
            run_id: Some(run_id.to_owned()),
            ts: (self.inner.clock)(),
            session: Some(sessions::list::row(&session)),
        };
        self.inner.events.publish_to(Audience::OfSessions, EventName::SessionsChanged, &event);
    }

    /// Tells those who asked for the messages of the session.
    pub(crate) fn tell_message(&self, session: &Session, message: &Message) {
        let event = SessionMessageEvent {
            session_key: session.key.clone(),
            agent_id: Some(session.agent_id.clone()),
            message_id: message.id.to_string(),
            message_seq: message.seq,
            message: chat::told(message, usize::MAX),
        };
        let audience = Audience::OfSession(session.key.clone());
        self.inner.events.publish_to(audience, EventName::SessionMessage, &event);
    }

    /// Gives the place and the session of a run to the next.
    fn leave(&self, run: &Run) {
        let mut state = self.state();
        state.running -= 1;
        state.leave_lane(&run.address.key);
        self.start_ready(&mut state);
    }

    async fn find(&self, run_id: &str) -> Result<Found, RunError> {
        self.recovered().await;
        let going_on = self.state().runs.find(run_id).cloned();
        if let Some(run) = going_on {
            match run.accepted().await {
                Acceptance::Durable => return Ok(Found::Active(run)),
                Acceptance::Known(stored) => return Ok(Found::Ended(Box::new(StoredRun::clone(&stored)))),
                Acceptance::Failed(_) | Acceptance::Pending => {}
            }
        }
        let unknown = || RunError::Unknown { run_id: run_id.to_owned() };
        if !self.inner.store.exists() {
            return Err(unknown());
        }
        let stored = self.stored(run_id, None).await.map_err(|error| {
            tracing::error!(run = run_id, error = store::chain(&error), "a run cannot be read");
            RunError::Store(error.into())
        })?;
        stored.map(|stored| Found::Ended(Box::new(stored))).ok_or_else(unknown)
    }

    async fn stored(&self, run_id: &str, origin: Option<Origin>) -> Result<Option<StoredRun>, StoreError> {
        self.inner.store.run(run_id.to_owned(), origin, self.keep_from(KEEP_ENDED)).await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run that was found.
enum Found {
    Active(Arc<Run>),
    Ended(Box<StoredRun>),
}

impl State {
    /// Takes a run out of the queues. `false` when it is in none: it has started.
    fn take_from_queue(&mut self, run: &Arc<Run>) -> bool {
        let position = |queue: &VecDeque<Arc<Run>>| queue.iter().position(|queued| Arc::ptr_eq(queued, run));
        if let Some(at) = position(&self.ready) {
            self.ready.remove(at);
            self.leave_lane(&run.address.key);
        } else if let Some(lane) = self.lanes.get_mut(&run.address.key)
            && let Some(at) = position(&lane.waiting)
        {
            lane.waiting.remove(at);
        } else {
            return false;
        }
        self.queued -= 1;
        self.queued_bytes -= run.request_bytes;
        true
    }

    /// Lets the next run of a session be ready, or the session be free.
    fn leave_lane(&mut self, key: &str) {
        let Some(lane) = self.lanes.get_mut(key) else { return };
        match lane.waiting.pop_front() {
            Some(next) => {
                lane.head = Arc::clone(&next);
                self.ready.push_back(next);
            }
            None => {
                self.lanes.remove(key);
            }
        }
    }

    /// The runs of a session that its key in full names, in their order.
    fn lane(&self, key: &str) -> impl Iterator<Item = &Arc<Run>> {
        self.lanes.get(key).into_iter().flat_map(|lane| std::iter::once(&lane.head).chain(&lane.waiting))
    }
}

/// Stands for the model of a run that ends without one.
fn unknown_model() -> ModelInfo {
    ModelInfo {
        id: "unknown".to_owned(),
        name: "unknown".to_owned(),
        provider: "unknown".to_owned(),
        context_window: None,
        reasoning: false,
        tags: Vec::new(),
        thinking_levels: Vec::new(),
        thinking_default: None,
        available: Some(false),
    }
}

/// The acknowledgement of a key that was used before.
fn known_ack(run: &StoredRun) -> AgentAck {
    AgentAck {
        run_id: run.run_id.clone(),
        status: AckStatus::Ended,
        session_key: (!run.address.own).then(|| run.address.key.clone()),
        agent_id: Some(run.address.agent_id.clone()),
        accepted_at: Some(run.accepted_at),
    }
}

/// The result of a run that goes on no more. One whose end could not be stored was interrupted: the next start of the
/// gateway stores as much.
fn known_result(run: StoredRun) -> AgentWaitResult {
    run.outcome.unwrap_or_else(|| AgentWaitResult {
        run_id: run.run_id.clone(),
        status: WaitStatus::Error,
        started_at: run.started_at,
        ended_at: None,
        stop_reason: Some("interrupted".to_owned()),
        error: Some(run::INTERRUPTED.to_owned()),
        outcome: Some(AgentOutcome {
            run_id: run.run_id,
            status: RunStatus::Error,
            summary: run::INTERRUPTED.to_owned(),
            result: None,
            stop_reason: Some("interrupted".to_owned()),
        }),
    })
}

/// Explains the death of a back end's task: the log is told why, the caller is not.
fn died(run_id: &str, error: JoinError) -> BackendError {
    let reason = error.try_into_panic().map_or_else(
        |error| error.to_string(),
        |panic: Box<dyn Any + Send>| {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default()
        },
    );
    tracing::error!(run = run_id, reason, "a back end panicked");
    BackendError::new(
        BackendErrorKind::Unknown,
        "the agent's back end failed unexpectedly; the gateway's log says more",
    )
}
