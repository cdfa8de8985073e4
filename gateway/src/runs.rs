//! Runs: one message to an agent each, from acceptance to exactly one outcome.
//!
//! The idempotency key of the call is the id of the run; each method that starts runs has keys of its own. A run is queued, then running, then ended, never
//! back. It belongs to the gateway, not to its caller: it goes on when the caller leaves. Runs of one session
//! follow each other in the order of their acceptance; over all sessions a bounded number goes on at once.
//! Shapes and events follow wire.md sections 8 and 9.
//!
//! Invariant: the lock of `State` and that of one run's progress are never held together, and neither while
//! something is awaited or a back end is called.

mod run;
#[cfg(test)]
mod tests;

use std::{
    any::Any,
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use openclaw_schema::{
    methods::{
        agent::{AckStatus, AgentAbortResult, AgentAck, AgentWaitResult, WaitStatus},
        gateway::SessionsSummary,
        models::ModelInfo,
    },
    types::TimestampMs,
};
use tokio::{
    sync::watch,
    task::{JoinError, JoinHandle},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use self::run::{Ended, Ending, Run, Stop};
use crate::{
    backend::{Backend, BackendError, BackendErrorKind, BackendRequest, TextSink},
    events::EventBus,
    sessions::{self, AddressError, RunEnd, Session, SessionAddress, Sessions},
    settings::{Agent, Agents},
    transcripts::Transcripts,
};

/// How long outcomes are kept, and keys remembered, after the end of a run.
pub const KEEP_ENDED: Duration = Duration::from_secs(600);

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
    /// How many bytes the ended runs may take, about. The oldest is forgotten first; the newest is kept
    /// whatever its size.
    pub max_ended_bytes: usize,
    /// How many sessions are remembered.
    pub max_sessions: usize,
    /// How long a run may take from its start, unless the caller says otherwise.
    pub default_timeout: Duration,
    /// How long a back end may take to stop after its run has ended, before it is dropped. The run's session
    /// stays busy so long; its outcome is there at once.
    pub stop_grace: Duration,
}

impl Default for RunLimits {
    fn default() -> Self {
        Self {
            max_running: 64,
            max_queued: 4096,
            max_queued_bytes: 67_108_864,
            max_ended: 10_000,
            max_ended_bytes: 67_108_864,
            max_sessions: 10_000,
            default_timeout: Duration::from_secs(600),
            stop_grace: Duration::from_secs(2),
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
    /// How long the run may take from its start; [`RunLimits::default_timeout`] when absent.
    pub timeout: Option<Duration>,
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
            extra_system_prompt: None,
            label: None,
        }
    }
}

/// Why a run was not started. Nothing is remembered of it: the same key may be used again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
}

/// A run that never was, or that is forgotten.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no run `{run_id}`; outcomes are kept for ten minutes")]
pub struct UnknownRun {
    /// The run that was asked for. The parameter is `/runId`.
    pub run_id: String,
}

/// Runs, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RunCounts {
    /// Those that have not ended, the waiting ones included.
    pub active: usize,
    /// Those that wait for their turn.
    pub queued: usize,
    /// Those that have ended and are not forgotten yet.
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
    /// The session; absent when nobody has used it yet.
    pub session: Option<Session>,
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

#[derive(Debug)]
struct Inner {
    backend: Arc<dyn Backend>,
    events: EventBus,
    agents: Agents,
    transcripts: Transcripts,
    limits: RunLimits,
    state: Mutex<State>,
    /// What `drain` watches; sent under the lock of `state`.
    load: watch::Sender<Load>,
}

#[derive(Debug)]
struct State {
    runs: Table,
    /// How many of `runs` are active.
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
    /// The ended runs among `runs`, oldest first.
    ended: VecDeque<Arc<Ended>>,
    ended_bytes: usize,
    failed: usize,
    sessions: Sessions,
    draining: bool,
}

/// The runs by their ids, apart by their origin.
#[derive(Debug, Default)]
struct Table {
    agent: HashMap<String, Entry>,
    chat: HashMap<String, Entry>,
}

impl Table {
    fn of(&self, origin: Origin) -> &HashMap<String, Entry> {
        match origin {
            Origin::Agent => &self.agent,
            Origin::Chat => &self.chat,
        }
    }

    fn of_mut(&mut self, origin: Origin) -> &mut HashMap<String, Entry> {
        match origin {
            Origin::Agent => &mut self.agent,
            Origin::Chat => &mut self.chat,
        }
    }

    /// The run of an id. Of two, the one that goes on, or else that of `agent`.
    fn find(&self, run_id: &str) -> Option<&Entry> {
        match (self.agent.get(run_id), self.chat.get(run_id)) {
            (None | Some(Entry::Ended(_)), Some(chat @ Entry::Active(_))) => Some(chat),
            (agent, chat) => agent.or(chat),
        }
    }

    fn values(&self) -> impl Iterator<Item = &Entry> {
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

#[derive(Debug)]
enum Entry {
    Active(Arc<Run>),
    Ended(Arc<Ended>),
}

#[derive(Debug, Clone, Copy, Default)]
struct Load {
    active: usize,
    running: usize,
}

impl Runs {
    /// No runs yet. `backend` answers, `events` hears of progress, `transcripts` keeps what was said.
    #[must_use]
    pub fn new(
        backend: Arc<dyn Backend>,
        events: EventBus,
        agents: Agents,
        transcripts: Transcripts,
        limits: RunLimits,
    ) -> Self {
        let state = State {
            runs: Table::default(),
            active: 0,
            lanes: HashMap::new(),
            ready: VecDeque::new(),
            running: 0,
            queued: 0,
            queued_bytes: 0,
            ended: VecDeque::new(),
            ended_bytes: 0,
            failed: 0,
            sessions: Sessions::new(limits.max_sessions),
            draining: false,
        };
        let load = watch::Sender::new(Load::default());
        let state = Mutex::new(state);
        Self { inner: Arc::new(Inner { backend, events, agents, transcripts, limits, state, load }) }
    }

    /// Starts a run, or says how the run of this key stands. Never waits.
    ///
    /// A key starts one run. While it goes on, and for [`KEEP_ENDED`] after its end, a repeat is told so,
    /// whatever else the repeat asks for.
    ///
    /// # Errors
    ///
    /// When the request names something that does not exist, too much waits, or the gateway is stopping.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn start(&self, request: RunRequest) -> Result<AgentAck, StartError> {
        // First a look without the costs of a new run, then, as the lock is let go in between, another.
        let limits = &self.inner.limits;
        if let Some(ack) = self.state().known(request.origin, &request.idempotency_key, limits) {
            return Ok(ack);
        }
        let run = self.prepare(request);
        let mut state = self.state();
        if state.draining {
            return Err(StartError::Draining);
        }
        let run = Arc::new(run?);
        if let Some(ack) = state.known(run.origin, &run.id, limits) {
            return Ok(ack);
        }
        self.admit(&mut state, &run)?;
        drop(state);
        tracing::info!(run = run.id, session = run.address.key, agent = run.address.agent_id, "run accepted");
        Ok(run.ack(AckStatus::Accepted))
    }

    /// Waits until a run has ended, at most for `timeout`, or [`DEFAULT_WAIT`]. Zero answers at once.
    ///
    /// The result has an `outcome` exactly when the run has ended. May be cancelled at any time.
    ///
    /// # Errors
    ///
    /// When there is no such run, or its outcome is forgotten.
    pub async fn wait(&self, run_id: &str, timeout: Option<Duration>) -> Result<AgentWaitResult, UnknownRun> {
        let run = match self.find(run_id)? {
            Found::Ended(ended) => return Ok(ended.result.clone()),
            Found::Active(run) => run,
        };
        let mut ended = run.ended.subscribe();
        let waited =
            tokio::time::timeout(timeout.unwrap_or(DEFAULT_WAIT), ended.wait_for(Option::is_some)).await;
        // The sender lives in `run`, so only the time can have run out.
        if let Ok(Ok(ended)) = waited
            && let Some(ended) = &*ended
        {
            return Ok(ended.result.clone());
        }
        Ok(AgentWaitResult {
            run_id: run_id.to_owned(),
            status: WaitStatus::Timeout,
            started_at: run.started_at(),
            ended_at: None,
            stop_reason: None,
            error: None,
            outcome: None,
        })
    }

    /// Ends a run, be it waiting or under way. When this call ended it, its outcome is there already.
    ///
    /// # Errors
    ///
    /// When there is no such run, or its outcome is forgotten.
    pub fn abort(&self, run_id: &str) -> Result<AgentAbortResult, UnknownRun> {
        let aborted = match self.find(run_id)? {
            Found::Ended(_) => false,
            Found::Active(run) => self.finish(&run, &Ending::Stopped(Stop::Call)),
        };
        Ok(AgentAbortResult { run_id: run_id.to_owned(), aborted })
    }

    /// Ends runs of a session, given by its key in full, and tells which, oldest first. Their outcomes are there
    /// already.
    #[must_use]
    pub fn abort_in(&self, session_key: &str, which: Aborted<'_>) -> Vec<String> {
        let mut runs: Vec<Arc<Run>> = self.state().lane(session_key).cloned().collect();
        match which {
            Aborted::Current => runs.truncate(1),
            Aborted::All => {}
            Aborted::Run(run_id) => runs.retain(|run| run.id == run_id),
        }
        // Those that wait go first, or each end would start the next.
        runs.reverse();
        runs.retain(|run| self.finish(run, &Ending::Stopped(Stop::Call)));
        runs.into_iter().rev().map(|run| run.id.clone()).collect()
    }

    /// What goes on in a session, given by its key in full, with up to `max_waiting` of the runs that wait and
    /// `max_chars` of their messages.
    #[must_use]
    pub fn activity(&self, session_key: &str, max_waiting: usize, max_chars: usize) -> SessionActivity {
        let (session, runs) = {
            let state = self.state();
            (state.sessions.get(session_key).cloned(), state.lane(session_key).cloned().collect::<Vec<_>>())
        };
        SessionActivity {
            session,
            current: runs.first().and_then(|run| run.current()),
            waiting: runs.iter().filter_map(|run| run.waiting(max_chars)).take(max_waiting).collect(),
            waiting_total: runs.iter().filter(|run| run.is_waiting()).count(),
        }
    }

    /// The session of a key in full; `None` when nobody has used it yet.
    #[must_use]
    pub fn session(&self, session_key: &str) -> Option<Session> {
        self.state().sessions.get(session_key).cloned()
    }

    /// Every session, that used last first.
    #[must_use]
    pub fn all_sessions(&self) -> Vec<Session> {
        self.state().sessions.iter().cloned().collect()
    }

    /// The session that a caller's words mean: see [`sessions::resolve`].
    ///
    /// # Errors
    ///
    /// When they name none.
    pub fn address(&self, agent_id: Option<&str>, session_key: &str) -> Result<SessionAddress, AddressError> {
        sessions::resolve(&self.inner.agents, agent_id, Some(session_key), "").map(|(address, _)| address)
    }

    /// The model that serves an agent's runs when the caller names none; `None` when there is none.
    #[must_use]
    pub fn default_model(&self, agent_id: &str) -> Option<ModelInfo> {
        let agent = self.inner.agents.list.iter().find(|agent| agent.id == agent_id)?;
        self.choose_model(None, agent).ok()
    }

    /// The models that the back end offers now.
    #[must_use]
    pub fn models(&self) -> Arc<[ModelInfo]> {
        self.inner.backend.models()
    }

    /// What answers them.
    #[must_use]
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.inner.backend
    }

    /// How many runs there are.
    #[must_use]
    pub fn counts(&self) -> RunCounts {
        let mut state = self.state();
        state.forget_old(&self.inner.limits);
        RunCounts {
            active: state.active,
            queued: state.queued,
            ended: state.ended.len(),
            failed: state.failed,
        }
    }

    /// The runs that have not ended, oldest first.
    #[must_use]
    pub fn active(&self) -> Vec<ActiveRun> {
        let runs: Vec<Arc<Run>> = {
            let state = self.state();
            let active = state.runs.values().filter_map(|entry| match entry {
                Entry::Active(run) => Some(Arc::clone(run)),
                Entry::Ended(_) => None,
            });
            active.collect()
        };
        let mut active: Vec<ActiveRun> = runs
            .into_iter()
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

    /// The sessions that runs were started in, of one agent or of all: their number, and the `recent` used
    /// last, newest first.
    #[must_use]
    pub fn sessions(&self, agent_id: Option<&str>, recent: usize) -> SessionsSummary {
        self.state().sessions.summary(agent_id, recent)
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
            // Those that wait go first, or each end would start the next.
            let mut left = self.active();
            left.sort_by_key(|run| run.started_at.is_some());
            for run in left {
                if let Ok(Found::Active(run)) = self.find(&run.run_id) {
                    aborted += usize::from(self.finish(&run, &Ending::Stopped(Stop::Shutdown)));
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

    /// Checks a request, and makes a run of it that nobody knows yet.
    fn prepare(&self, request: RunRequest) -> Result<Run, StartError> {
        let (address, agent) = sessions::resolve(
            &self.inner.agents,
            request.agent_id.as_deref(),
            request.session_key.as_deref(),
            &request.idempotency_key,
        )?;
        let model = self.choose_model(request.model.as_deref(), agent)?;
        let for_backend = BackendRequest {
            run_id: request.idempotency_key,
            session_key: address.key.clone(),
            agent: agent.clone(),
            model,
            history: Vec::new(),
            message: request.message,
            extra_system_prompt: request.extra_system_prompt,
            cancel: CancellationToken::new(),
        };
        let timeout = request.timeout.unwrap_or(self.inner.limits.default_timeout);
        let (events, transcripts) = (self.inner.events.clone(), self.inner.transcripts.clone());
        Ok(Run::new(request.origin, address, request.label, timeout, for_backend, events, transcripts))
    }

    fn choose_model(&self, asked: Option<&str>, agent: &Agent) -> Result<ModelInfo, StartError> {
        let backend = &self.inner.backend;
        let Some(name) = asked.or(agent.model.as_deref()) else {
            let models = backend.models();
            let default = models.iter().find(|model| model.tags.iter().any(|tag| tag == "default"));
            return default.or(models.first()).cloned().ok_or(StartError::NoModel);
        };
        backend.find(name).ok_or_else(|| match asked {
            Some(model) => StartError::UnknownModel { model: model.to_owned() },
            None => StartError::AgentModel { agent_id: agent.id.clone(), model: name.to_owned() },
        })
    }

    /// Takes a run in: starts it, or puts it where it waits for its turn.
    fn admit(&self, state: &mut State, run: &Arc<Run>) -> Result<(), StartError> {
        let limits = &self.inner.limits;
        let is_busy = state.lanes.contains_key(&run.address.key);
        if is_busy || state.running >= limits.max_running {
            let bytes = state.queued_bytes.saturating_add(run.request_bytes);
            if state.queued >= limits.max_queued || bytes > limits.max_queued_bytes {
                return Err(StartError::Busy);
            }
        }
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
        state.runs.of_mut(run.origin).insert(run.id.clone(), Entry::Active(Arc::clone(run)));
        state.active += 1;
        // A run is admitted once.
        let _ = run.session_id.set(state.sessions.accept(&run.address, &run.id));
        self.start_ready(state);
        Ok(())
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
        self.inner.load.send_replace(Load { active: state.active, running: state.running });
    }

    /// Sees a run through: calls the back end, publishes its text, keeps the time.
    async fn attend(self, run: Arc<Run>) {
        if let Some(request) = run.begin() {
            let started = run.last_run(None);
            self.state().sessions.note(&run.address.key, started);
            let sink = {
                let run = Arc::clone(&run);
                TextSink::new(move |text| run.push(text))
            };
            let backend = Arc::clone(&self.inner.backend);
            // A task of its own contains a panic, also one on being dropped, and code that blocks.
            let mut answer = tokio::spawn(async move { backend.run(request, sink).await });
            let ending = tokio::select! {
                biased;
                answer = &mut answer => Some(match answer {
                    Ok(Ok(answer)) => Ending::Answered(answer),
                    Ok(Err(error)) => Ending::Failed(error),
                    Err(error) => Ending::Failed(died(&run.id, error)),
                }),
                () = run.cancel.cancelled() => None,
                () = tokio::time::sleep(run.timeout) => Some(Ending::Stopped(Stop::Timeout)),
                never = run.tell_by_windows() => match never {},
            };
            if let Some(ending) = ending {
                self.finish(&run, &ending);
            }
            if !answer.is_finished() {
                self.wind_down(&run, answer).await;
            }
        }
        self.leave(&run);
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

    /// Ends a run, if nothing else has yet, and remembers its outcome.
    fn finish(&self, run: &Arc<Run>, ending: &Ending) -> bool {
        let Some(ended) = run.finish(ending) else { return false };
        let ended = Arc::new(ended);
        let last_run = run.last_run(Some(RunEnd {
            at: ended.result.ended_at.unwrap_or_default(),
            status: ending.session_status(),
            error: ended.result.error.clone(),
            usage: ending.usage(),
        }));
        let mut state = self.state();
        if state.take_from_queue(run) {
            self.start_ready(&mut state);
        }
        state.runs.of_mut(run.origin).insert(run.id.clone(), Entry::Ended(Arc::clone(&ended)));
        state.active -= 1;
        state.ended_bytes += ended.bytes;
        state.failed += usize::from(ended.failed);
        state.ended.push_back(Arc::clone(&ended));
        state.forget_old(&self.inner.limits);
        state.sessions.note(&run.address.key, last_run);
        self.inner.load.send_replace(Load { active: state.active, running: state.running });
        drop(state);
        match ending {
            Ending::Answered(_) => tracing::info!(run = run.id, "run completed"),
            Ending::Failed(error) => {
                tracing::warn!(run = run.id, kind = error.kind.name(), %error, "run failed");
            }
            Ending::Stopped(stop) => tracing::info!(run = run.id, ?stop, "run aborted"),
        }
        run.ended.send_replace(Some(ended));
        true
    }

    /// Gives the place and the session of a run to the next.
    fn leave(&self, run: &Run) {
        let mut state = self.state();
        state.running -= 1;
        state.leave_lane(&run.address.key);
        self.start_ready(&mut state);
    }

    fn find(&self, run_id: &str) -> Result<Found, UnknownRun> {
        let mut state = self.state();
        state.forget_old(&self.inner.limits);
        match state.runs.find(run_id) {
            Some(Entry::Active(run)) => Ok(Found::Active(Arc::clone(run))),
            Some(Entry::Ended(ended)) => Ok(Found::Ended(Arc::clone(ended))),
            None => Err(UnknownRun { run_id: run_id.to_owned() }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run that was found, apart from the lock that guards the table.
enum Found {
    Active(Arc<Run>),
    Ended(Arc<Ended>),
}

impl State {
    /// The acknowledgement of a key that is in use.
    fn known(&mut self, origin: Origin, run_id: &str, limits: &RunLimits) -> Option<AgentAck> {
        self.forget_old(limits);
        self.runs.of(origin).get(run_id).map(|entry| match entry {
            Entry::Active(run) => run.ack(AckStatus::InFlight),
            Entry::Ended(ended) => ended.ack.clone(),
        })
    }

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

    /// Forgets ended runs that are too old, too many or too large.
    fn forget_old(&mut self, limits: &RunLimits) {
        let now = Instant::now();
        while let Some(oldest) = self.ended.front() {
            let is_old = now.duration_since(oldest.at) >= KEEP_ENDED;
            let is_too_much = self.ended.len() > limits.max_ended
                || (self.ended_bytes > limits.max_ended_bytes && self.ended.len() > 1);
            if !is_old && !is_too_much {
                break;
            }
            if let Some(oldest) = self.ended.pop_front() {
                self.ended_bytes -= oldest.bytes;
                self.failed -= usize::from(oldest.failed);
                self.runs.of_mut(oldest.origin).remove(&oldest.ack.run_id);
            }
        }
    }
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
