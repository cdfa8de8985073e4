//! What callers of [`Runs`] can rely on. Time is tokio's paused clock wherever it matters.

use std::{
    fmt,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
};

use openclaw_schema::{
    events::{AgentEvent, AgentStream, ChatContent, ChatEvent, ChatState, EventName},
    methods::{
        agent::{AgentOutcome, RunStatus, TokenCost, TokenUsage},
        models::ThinkingLevel,
        sessions::{FastMode, SessionStatus},
    },
};
use tokio::{sync::broadcast, time::Instant};

use super::*;
use crate::{
    backend::{BackendAnswer, BackendFuture, TurnAuthor, echo::EchoBackend},
    events::Event,
    transcripts::Author,
};

/// A back end that does what a test tells it to, and counts how often it is asked.
struct Scripted<F> {
    script: F,
    calls: Arc<AtomicUsize>,
}

impl<F> fmt::Debug for Scripted<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Scripted")
    }
}

impl<F, Fut> Backend for Scripted<F>
where
    F: Fn(BackendRequest, TextSink) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<BackendAnswer, BackendError>> + Send + 'static,
{
    fn models(&self) -> Arc<[ModelInfo]> {
        ["small", "vendor/large", "default"]
            .map(|id| ModelInfo {
                id: id.to_owned(),
                name: id.to_owned(),
                provider: "script".to_owned(),
                context_window: None,
                reasoning: false,
                tags: if id == "default" { vec!["default".to_owned()] } else { Vec::new() },
                thinking_levels: Vec::new(),
                thinking_default: None,
                available: Some(true),
            })
            .into()
    }

    fn run(&self, request: BackendRequest, output: TextSink) -> BackendFuture {
        self.calls.fetch_add(1, Ordering::SeqCst);
        Box::pin((self.script)(request, output))
    }
}

struct Bench {
    runs: Runs,
    store: Store,
    events: broadcast::Receiver<Arc<Event>>,
    calls: Arc<AtomicUsize>,
}

fn agents() -> Agents {
    let agent =
        |id: &str| Agent { id: id.to_owned(), name: None, workspace: PathBuf::from("/nowhere"), model: None };
    let large = Agent { model: Some("script/vendor/large".to_owned()), ..agent("large") };
    let lost = Agent { model: Some("script/gone".to_owned()), ..agent("lost") };
    Agents { default_id: "main".to_owned(), list: vec![agent("main"), large, lost] }
}

fn bench_with(backend: Arc<dyn Backend>, calls: Arc<AtomicUsize>, limits: RunLimits) -> Bench {
    bench_on(Store::inline(), backend, calls, limits)
}

/// What runs on a database that is there already.
fn bench_on(store: Store, backend: Arc<dyn Backend>, calls: Arc<AtomicUsize>, limits: RunLimits) -> Bench {
    let bus = EventBus::new();
    let events = bus.subscribe();
    // The clock that tests turn.
    let (begun, base) = (Instant::now(), TimestampMs::now());
    let millis = move || u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let clock = Arc::new(move || TimestampMs(base.0 + millis()));
    let runs = Runs::with_clock(backend, bus, agents(), store.clone(), limits, clock);
    // There is nothing to take up; tests that say otherwise do it themselves.
    runs.inner.recovered.send_replace(true);
    Bench { runs, store, events, calls }
}

fn echo(pause_ms: u64) -> Bench {
    let backend = Arc::new(EchoBackend::new(Duration::from_millis(pause_ms)));
    bench_with(backend, Arc::default(), RunLimits::default())
}

fn scripted<F, Fut>(limits: RunLimits, script: F) -> Bench
where
    F: Fn(BackendRequest, TextSink) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<BackendAnswer, BackendError>> + Send + 'static,
{
    let calls = Arc::<AtomicUsize>::default();
    bench_with(Arc::new(Scripted { script, calls: Arc::clone(&calls) }), calls, limits)
}

/// Answers `done` after a second.
fn slow(limits: RunLimits) -> Bench {
    scripted(limits, |_, output| async move {
        tokio::time::sleep(Duration::from_secs(1)).await;
        output.push("done");
        Ok(stop())
    })
}

/// Says `partly`, then goes on until it is cancelled.
fn endless() -> Bench {
    scripted(RunLimits::default(), |request, output| async move {
        output.push("partly");
        request.cancel.cancelled().await;
        Err(BackendError::new(BackendErrorKind::Unknown, "cancelled"))
    })
}

fn stop() -> BackendAnswer {
    let usage = TokenUsage { input: 1, output: 2, total: 3, ..TokenUsage::default() };
    BackendAnswer { usage, cost_usd: None, model: None, stop_reason: "stop".to_owned() }
}

fn in_session(key: &str, session: &str) -> RunRequest {
    RunRequest { session_key: Some(session.to_owned()), ..RunRequest::new(key, "hello") }
}

fn text_of(outcome: &AgentOutcome) -> Option<&str> {
    outcome.result.as_ref()?.payloads.first()?.text.as_deref()
}

impl Bench {
    async fn outcome(&self, run_id: &str) -> AgentOutcome {
        let hour = Some(Duration::from_secs(3600));
        let result = self.runs.wait(run_id, hour).await.expect("the run exists");
        result.outcome.expect("the run ends within an hour")
    }

    async fn stands(&self, run_id: &str) -> AgentWaitResult {
        self.runs.wait(run_id, Some(Duration::ZERO)).await.expect("the run exists")
    }

    async fn session(&self, key: &str) -> Option<Session> {
        let mut session = self.store.session(key.to_owned()).await.expect("it can be read")?;
        self.runs.enliven(&mut session);
        Some(session)
    }

    /// What was published, each event in one line.
    fn told(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Ok(event) = self.events.try_recv() {
            lines.push(match event.name {
                EventName::Agent => agent_line(&agent_event(&event)),
                EventName::Chat => chat_line(&chat_event(&event)),
                // Of the session, not of the run.
                EventName::SessionsChanged | EventName::SessionMessage => continue,
                other => panic!("a run does not publish {other:?}"),
            });
        }
        lines
    }
}

fn agent_event(event: &Event) -> AgentEvent {
    let parsed: AgentEvent = serde_json::from_str(event.payload.get()).expect("the payload fits its type");
    assert_eq!(event.run_id.as_ref(), Some(&parsed.run_id));
    parsed
}

fn chat_event(event: &Event) -> ChatEvent {
    let parsed: ChatEvent = serde_json::from_str(event.payload.get()).expect("the payload fits its type");
    assert_eq!(event.run_id.as_ref(), Some(&parsed.run_id));
    parsed
}

/// The line of an `agent` event: its number, and its data without times.
fn agent_line(event: &AgentEvent) -> String {
    let mut data = event.data.clone();
    for time in ["startedAt", "endedAt"] {
        if let Some(at) = data.shift_remove(time) {
            assert!(at.is_u64(), "{time} of {data:?}");
        }
    }
    let stream = serde_json::to_value(event.stream).expect("a stream serialises");
    let data = serde_json::to_string(&data).expect("data serialises");
    format!("{} {} {data}", event.seq, stream.as_str().unwrap_or_default())
}

fn chat_line(event: &ChatEvent) -> String {
    let state = serde_json::to_value(event.state).expect("a state serialises");
    let message = event.message.as_ref().map(|message| match &message.content[..] {
        [ChatContent::Text { text }] => text.clone(),
        other => panic!("one part of text, not {other:?}"),
    });
    let parts = [&event.delta_text, &message, &event.stop_reason, &event.error_message];
    let parts: Vec<&str> = parts.into_iter().map(|part| part.as_deref().unwrap_or("-")).collect();
    format!("{} chat {} {}", event.seq, state.as_str().unwrap_or_default(), parts.join(" | "))
}

// Starting, and what a key means

#[tokio::test(start_paused = true)]
async fn an_answer_is_an_outcome_with_text_usage_and_reason() {
    let bench = echo(10);
    let ack = bench.runs.start(in_session("k1", "main")).await.expect("the run starts");
    assert_eq!((ack.run_id.as_str(), ack.status), ("k1", AckStatus::Accepted));
    assert_eq!(ack.session_key.as_deref(), Some("agent:main:main"));
    assert_eq!(ack.agent_id.as_deref(), Some("main"));
    assert!(ack.accepted_at.is_some());

    let result = bench.runs.wait("k1", None).await.expect("the run exists");
    assert_eq!((result.status, result.stop_reason.as_deref()), (WaitStatus::Ok, Some("stop")));
    assert_eq!(result.error, None);
    let (started, ended) = (result.started_at.expect("it started"), result.ended_at.expect("it ended"));
    let outcome = result.outcome.expect("it ended");
    assert_eq!((outcome.run_id.as_str(), outcome.status), ("k1", RunStatus::Ok));
    assert_eq!((outcome.summary.as_str(), outcome.stop_reason.as_deref()), ("completed", Some("stop")));
    assert_eq!(text_of(&outcome), Some("You said: hello"));
    let meta = outcome.result.expect("an answer").meta;
    assert_eq!(ended.0 - started.0, meta.duration_ms);
    assert!((20..30).contains(&meta.duration_ms), "two pauses of 10 ms, not {}", meta.duration_ms);
    assert!(!meta.aborted);
    let model = meta.agent_meta.expect("a model answered");
    assert_eq!((model.provider.as_str(), model.model.as_str()), ("echo", "echo-1"));
    let cost = Some(TokenCost { total: 0.0 });
    assert_eq!(model.usage, TokenUsage { input: 1, output: 3, total: 4, cost, ..TokenUsage::default() });
}

#[tokio::test(start_paused = true)]
async fn a_run_without_a_session_gets_its_own_and_the_acknowledgement_names_none() {
    let mut bench = echo(0);
    let ack = bench.runs.start(RunRequest::new("k1", "hello")).await.expect("the run starts");
    assert_eq!((ack.session_key, ack.agent_id.as_deref()), (None, Some("main")));
    bench.outcome("k1").await;
    let again = bench.runs.start(RunRequest::new("k1", "hello")).await.expect("the key is known");
    assert_eq!((again.status, again.session_key), (AckStatus::Ended, None));
    let first = bench.events.try_recv().expect("the run told of its start");
    assert_eq!(agent_event(&first).session_key.as_deref(), Some("agent:main:explicit:k1"));
}

#[tokio::test(start_paused = true)]
async fn a_key_starts_one_run_and_a_repeat_is_told_how_it_stands() {
    let bench = slow(RunLimits::default());
    let first = bench.runs.start(in_session("k1", "main")).await.expect("the run starts");
    let other = RunRequest { agent_id: Some("nobody".to_owned()), ..RunRequest::new("k1", "something else") };
    let repeat = bench.runs.start(other).await.expect("the key is known");
    assert_eq!(repeat, AgentAck { status: AckStatus::InFlight, ..first.clone() });
    bench.outcome("k1").await;

    tokio::time::sleep(KEEP_ENDED - Duration::from_millis(1)).await;
    let repeat = bench.runs.start(RunRequest::new("k1", "hello")).await.expect("the key is known");
    assert_eq!(repeat, AgentAck { status: AckStatus::Ended, ..first });
    assert!(bench.stands("k1").await.outcome.is_some());
    assert_eq!(bench.calls.load(Ordering::SeqCst), 1);

    tokio::time::sleep(Duration::from_millis(1)).await;
    let unknown = bench.runs.wait("k1", None).await.expect_err("the outcome is forgotten");
    assert_eq!(unknown.to_string(), "no run `k1`; outcomes are kept for a day");
    let anew = bench.runs.start(in_session("k1", "main")).await.expect("the run starts");
    assert_eq!(anew.status, AckStatus::Accepted);
    bench.outcome("k1").await;
    assert_eq!(bench.calls.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_hundred_callers_with_one_key_start_one_run() {
    let bench = scripted(RunLimits::default(), |_, output| async move {
        output.push("once");
        Ok(stop())
    });
    for round in 0..20 {
        let key = format!("k{round}");
        let callers: Vec<_> = (0..100)
            .map(|n| {
                let (runs, key) = (bench.runs.clone(), key.clone());
                tokio::spawn(async move {
                    let ack =
                        runs.start(in_session(&key, &format!("s{n}"))).await.expect("the call is answered");
                    let result = runs.wait(&key, None).await.expect("the run exists");
                    (ack.status, result.outcome.expect("it ended"))
                })
            })
            .collect();
        let mut accepted = 0;
        let mut outcomes = Vec::new();
        for caller in callers {
            let (status, outcome) = caller.await.expect("a caller does not panic");
            accepted += usize::from(status == AckStatus::Accepted);
            outcomes.push(outcome);
        }
        assert_eq!(accepted, 1);
        assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]));
        assert_eq!(bench.calls.load(Ordering::SeqCst), round + 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_goes_on_when_its_caller_leaves() {
    let bench = slow(RunLimits::default());
    let runs = bench.runs.clone();
    let caller = tokio::spawn(async move {
        runs.start(in_session("k1", "main")).await.expect("the run starts");
        runs.wait("k1", None).await
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    caller.abort();
    assert!(caller.await.expect_err("the caller left").is_cancelled());
    assert_eq!(bench.outcome("k1").await.status, RunStatus::Ok);
}

#[tokio::test]
async fn a_request_for_what_does_not_exist_starts_nothing() {
    let bench = slow(RunLimits::default());
    let request = |change: fn(&mut RunRequest)| {
        let mut request = RunRequest::new("k1", "hello");
        change(&mut request);
        request
    };
    for (request, message) in [
        (request(|r| r.agent_id = Some("nobody".to_owned())), "no agent `nobody`; `agents.list` lists them"),
        (
            request(|r| r.session_key = Some("agent:nobody:main".to_owned())),
            "no agent `nobody`; `agents.list` lists them",
        ),
        (request(|r| r.model = Some("huge".to_owned())), "no model `huge`; `models.list` lists them"),
        (
            request(|r| r.agent_id = Some("lost".to_owned())),
            "agent `lost` is set to model `script/gone`, which is not available; `models.list` lists those that are",
        ),
    ] {
        assert_eq!(bench.runs.start(request).await.expect_err("nothing to start").to_string(), message);
        assert_eq!(bench.runs.counts(), RunCounts::default());
        assert!(bench.runs.wait("k1", None).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn the_model_is_the_callers_or_the_agents_or_the_default() {
    let bench = scripted(RunLimits::default(), |request, output| async move {
        output.push(&request.model.id);
        Ok(stop())
    });
    for (n, (agent, model, used)) in [
        (None, None, "default"),
        (Some("large"), None, "vendor/large"),
        (Some("large"), Some("small"), "small"),
        (None, Some("script/small"), "small"),
        (None, Some("vendor/large"), "vendor/large"),
        (None, Some("script/vendor/large"), "vendor/large"),
    ]
    .into_iter()
    .enumerate()
    {
        let request = RunRequest {
            agent_id: agent.map(str::to_owned),
            model: model.map(str::to_owned),
            ..RunRequest::new(format!("k{n}"), "hello")
        };
        let run_id = bench.runs.start(request).await.expect("the run starts").run_id;
        assert_eq!(text_of(&bench.outcome(&run_id).await), Some(used));
    }
}

#[tokio::test(start_paused = true)]
async fn the_back_end_is_told_what_the_caller_asked_for() {
    let bench = scripted(RunLimits::default(), |request, output| async move {
        let system = request.extra_system_prompt.unwrap_or_default();
        output.push(&format!("{} {} {} {system}", request.run_id, request.session_key, request.agent.id));
        Ok(stop())
    });
    let request =
        RunRequest { extra_system_prompt: Some("be brief".to_owned()), ..in_session("k1", "agent:large:X") };
    bench.runs.start(request).await.expect("the run starts");
    assert_eq!(text_of(&bench.outcome("k1").await), Some("k1 agent:large:x large be brief"));
}

// Order and bounds

#[tokio::test(start_paused = true)]
async fn runs_of_one_session_follow_each_other_and_sessions_do_not_wait_for_each_other() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&log);
    let bench = scripted(RunLimits::default(), move |request, _| {
        let log = Arc::clone(&log);
        async move {
            log.lock().expect("no panic").push(format!("{}+", request.run_id));
            tokio::time::sleep(Duration::from_secs(1)).await;
            log.lock().expect("no panic").push(format!("{}-", request.run_id));
            Ok(stop())
        }
    });
    for (key, session) in [("a1", "a"), ("a2", "A"), ("a3", "agent:main:a"), ("b1", "b")] {
        let ack = bench.runs.start(in_session(key, session)).await.expect("the run starts");
        assert_eq!(ack.status, AckStatus::Accepted);
    }
    let counts = bench.runs.counts();
    assert_eq!((counts.active, counts.queued), (4, 2));
    for key in ["a3", "b1"] {
        bench.outcome(key).await;
    }
    let log = kept.lock().expect("no panic").clone();
    assert_eq!(log[..2], ["a1+", "b1+"]);
    let of_a: Vec<_> = log.iter().filter(|line| line.starts_with('a')).collect();
    assert_eq!(of_a, ["a1+", "a1-", "a2+", "a2-", "a3+", "a3-"]);
    assert_eq!(bench.runs.counts(), RunCounts { active: 0, queued: 0, ended: 4, failed: 0 });
}

#[tokio::test(start_paused = true)]
async fn a_bounded_number_runs_at_once_and_a_bounded_number_waits() {
    let (now, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let peak = Arc::clone(&most);
    let limits = RunLimits { max_running: 2, max_queued: 3, ..RunLimits::default() };
    let bench = scripted(limits, move |_, _| {
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_secs(1)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(stop())
        }
    });
    for n in 0..5 {
        bench.runs.start(RunRequest::new(format!("k{n}"), "hello")).await.expect("there is room");
    }
    let refused = bench.runs.start(RunRequest::new("k5", "hello")).await.expect_err("too many wait");
    assert!(matches!(refused, StartError::Busy), "{refused}");
    let repeat = bench.runs.start(RunRequest::new("k4", "hello")).await.expect("the key is known");
    assert_eq!(repeat.status, AckStatus::InFlight);
    for n in 0..5 {
        assert_eq!(bench.outcome(&format!("k{n}")).await.status, RunStatus::Ok);
    }
    assert_eq!(peak.load(Ordering::SeqCst), 2);
    let ack = bench.runs.start(RunRequest::new("k5", "hello")).await.expect("there is room again");
    assert_eq!(ack.status, AckStatus::Accepted);
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_bounded_in_bytes_too() {
    let bench = slow(RunLimits { max_queued_bytes: 10, ..RunLimits::default() });
    bench.runs.start(in_session("k1", "main")).await.expect("a run that starts at once does not wait");
    bench.runs.start(in_session("k2", "main")).await.expect("five bytes may wait");
    bench.runs.start(in_session("k3", "main")).await.expect("ten bytes may wait");
    assert!(matches!(bench.runs.start(in_session("k4", "main")).await, Err(StartError::Busy)));
    bench.outcome("k3").await;
    bench.runs.start(in_session("k4", "main")).await.expect("nothing waits any more");
}

#[tokio::test(start_paused = true)]
async fn the_oldest_outcomes_are_forgotten_first() {
    let by_count = RunLimits { max_ended: 3, ..RunLimits::default() };
    let by_size = RunLimits { max_ended_bytes: 1, ..RunLimits::default() };
    for (limits, kept) in [(by_count, 3), (by_size, 1)] {
        let bench = slow(limits);
        for n in 0..5 {
            let ack = bench.runs.start(RunRequest::new(format!("k{n}"), "hello")).await;
            bench.outcome(&ack.expect("the run starts").run_id).await;
        }
        bench.runs.sweep_once().await.expect("it can be written");
        for n in 0..5 {
            let is_kept = bench.runs.wait(&format!("k{n}"), None).await.is_ok();
            assert_eq!(is_kept, n >= 5 - kept, "k{n} of {kept}");
        }
    }
}

// Waiting

#[tokio::test(start_paused = true)]
async fn waiting_ends_with_the_run_or_with_the_time() {
    let bench = scripted(RunLimits::default(), |_, _| async {
        tokio::time::sleep(Duration::from_secs(40)).await;
        Ok(stop())
    });
    bench.runs.start(in_session("k1", "main")).await.expect("the run starts");
    bench.runs.start(in_session("k2", "main")).await.expect("the run waits");
    let begin = Instant::now();
    assert_eq!(bench.stands("k1").await.status, WaitStatus::Timeout);
    assert_eq!(begin.elapsed(), Duration::ZERO);

    let open = bench.runs.wait("k1", None).await.expect("the run exists");
    assert_eq!(begin.elapsed().as_secs(), 30);
    assert_eq!((open.status, open.ended_at, open.outcome), (WaitStatus::Timeout, None, None));
    assert!(open.started_at.is_some());
    assert_eq!(bench.stands("k2").await.started_at, None);

    let waiters: Vec<_> = (0..50)
        .map(|_| {
            let runs = bench.runs.clone();
            tokio::spawn(async move { runs.wait("k1", None).await })
        })
        .collect();
    tokio::task::yield_now().await;
    waiters[0].abort();
    let mut answered = 0;
    for waiter in waiters {
        if let Ok(result) = waiter.await {
            assert!(result.expect("the run exists").outcome.is_some());
            answered += 1;
        }
    }
    assert_eq!(answered, 49);
    assert_eq!(begin.elapsed().as_secs(), 40);
}

#[tokio::test]
async fn a_run_that_never_was_is_unknown() {
    let bench = echo(0);
    let message = "no run `nothing`; outcomes are kept for a day";
    assert_eq!(bench.runs.wait("nothing", None).await.expect_err("no run").to_string(), message);
    assert_eq!(bench.runs.abort("nothing").await.expect_err("no run").to_string(), message);
}

// Ends

#[tokio::test(start_paused = true)]
async fn an_aborted_run_has_its_outcome_at_once_and_keeps_its_text() {
    let mut bench = endless();
    bench.runs.start(in_session("k1", "main")).await.expect("the run starts");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let first = bench.runs.abort("k1").await.expect("the run exists");
    assert_eq!(first, AgentAbortResult { run_id: "k1".to_owned(), aborted: true });

    let result = bench.stands("k1").await;
    assert_eq!((result.status, result.stop_reason.as_deref()), (WaitStatus::Error, Some("rpc")));
    let outcome = result.outcome.expect("it ended");
    assert_eq!((outcome.status, outcome.summary.as_str()), (RunStatus::Timeout, "aborted"));
    assert_eq!((outcome.stop_reason.as_deref(), text_of(&outcome)), (Some("rpc"), Some("partly")));
    let meta = &outcome.result.as_ref().expect("some text").meta;
    assert!(meta.aborted && meta.agent_meta.is_none());
    assert!(!bench.runs.abort("k1").await.expect("the run exists").aborted);

    assert_eq!(
        bench.told()[2..],
        [
            r#"3 assistant {"text":"partly","delta":"partly"}"#,
            "3 chat delta partly | partly | - | -",
            "4 chat aborted - | partly | rpc | -",
            r#"4 lifecycle {"phase":"end","status":"cancelled","aborted":true,"stopReason":"rpc"}"#,
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_waiting_run_is_aborted_without_ever_starting() {
    let mut bench = slow(RunLimits { max_running: 1, ..RunLimits::default() });
    // k1 runs; k2 and k3 wait for its session, k4 and k5 for a place.
    for (key, session) in [("k1", "a"), ("k2", "a"), ("k3", "a"), ("k4", "b"), ("k5", "b")] {
        bench.runs.start(in_session(key, session)).await.expect("the run is accepted");
    }
    for key in ["k2", "k4"] {
        assert!(bench.runs.abort(key).await.expect("the run exists").aborted);
        let result = bench.stands(key).await;
        assert_eq!((result.status, result.started_at), (WaitStatus::Error, None));
        let outcome = result.outcome.expect("it ended");
        assert_eq!((outcome.status, outcome.result), (RunStatus::Timeout, None));
    }
    // The first two are of k1.
    assert_eq!(
        bench.told()[2..],
        [
            "1 chat aborted - | - | rpc | -",
            r#"1 lifecycle {"phase":"end","status":"cancelled","aborted":true,"stopReason":"rpc"}"#,
        ]
        .repeat(2)
    );
    for key in ["k1", "k3", "k5"] {
        assert_eq!(bench.outcome(key).await.status, RunStatus::Ok);
    }
    assert_eq!(bench.calls.load(Ordering::SeqCst), 3);
    assert_eq!(bench.runs.counts(), RunCounts { active: 0, queued: 0, ended: 5, failed: 0 });
}

#[tokio::test(start_paused = true)]
async fn a_run_ends_at_its_timeout_which_counts_from_its_start() {
    let bench = endless();
    let begin = Instant::now();
    bench.runs.start(in_session("k1", "main")).await.expect("the run starts");
    let short = RunRequest { timeout: Some(Duration::from_secs(5)), ..in_session("k2", "main") };
    bench.runs.start(short).await.expect("the run waits");
    bench.outcome("k1").await;
    assert_eq!(begin.elapsed().as_secs(), 600);
    let outcome = bench.outcome("k2").await;
    assert_eq!(begin.elapsed().as_secs(), 605);

    assert_eq!((outcome.status, outcome.summary.as_str()), (RunStatus::Timeout, "aborted"));
    assert_eq!((outcome.stop_reason.as_deref(), text_of(&outcome)), (Some("timeout"), Some("partly")));
    let result = bench.stands("k2").await;
    assert_eq!(result.status, WaitStatus::Timeout);
    assert_eq!(result.error.as_deref(), Some("the run took longer than its timeout of 5 s"));
    assert!(result.outcome.is_some() && result.ended_at.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_failure_says_what_failed_and_keeps_the_text_so_far() {
    let mut bench = scripted(RunLimits::default(), |request, output| async move {
        if request.message == "hello" {
            output.push("Once upon");
        }
        Err(BackendError::new(BackendErrorKind::RateLimit, "the provider wants fewer requests"))
    });
    bench.runs.start(in_session("k1", "main")).await.expect("the run starts");
    let outcome = bench.outcome("k1").await;
    assert_eq!((outcome.status, outcome.stop_reason.as_deref()), (RunStatus::Error, Some("error")));
    assert_eq!(outcome.summary, "the provider wants fewer requests");
    assert_eq!(text_of(&outcome), Some("Once upon"));
    let result = bench.stands("k1").await;
    assert_eq!(result.status, WaitStatus::Error);
    assert_eq!(result.error.as_deref(), Some("the provider wants fewer requests"));
    assert_eq!(
        bench.told()[4..],
        [
            r#"4 lifecycle {"phase":"finishing","stopReason":"error","aborted":false,"error":"the provider wants fewer requests"}"#,
            r#"5 lifecycle {"phase":"error","aborted":false,"stopReason":"error","error":"the provider wants fewer requests","errorKind":"rate_limit"}"#,
            "5 chat error - | Once upon | - | the provider wants fewer requests",
        ]
    );
    bench.runs.start(RunRequest::new("k2", "nothing")).await.expect("the run starts");
    assert_eq!(bench.outcome("k2").await.result, None);
    assert_eq!(bench.runs.counts().failed, 2);
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_back_end_fails_its_run_and_nothing_else() {
    struct PanicsWhenDropped;
    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            panic!("secret");
        }
    }
    let limits = RunLimits { max_running: 1, ..RunLimits::default() };
    let bench = scripted(limits, |request, output| {
        assert_ne!(request.message, "at once", "secret");
        async move {
            match request.message.as_str() {
                "later" => panic!("secret {}", request.run_id),
                "when dropped" => {
                    let _guard = PanicsWhenDropped;
                    std::future::pending().await
                }
                _ => {
                    output.push("fine");
                    Ok(stop())
                }
            }
        }
    });
    for message in ["at once", "later", "when dropped", "not at all"] {
        let request = RunRequest { timeout: Some(Duration::from_secs(1)), ..in_session(message, "main") };
        bench
            .runs
            .start(RunRequest { message: message.to_owned(), ..request })
            .await
            .expect("it is accepted");
    }
    for key in ["at once", "later"] {
        let outcome = bench.outcome(key).await;
        assert_eq!((outcome.status, outcome.result), (RunStatus::Error, None));
        assert_eq!(outcome.summary, "the agent's back end failed unexpectedly; the gateway's log says more");
    }
    assert_eq!(bench.outcome("when dropped").await.stop_reason.as_deref(), Some("timeout"));
    assert_eq!(text_of(&bench.outcome("not at all").await), Some("fine"));
}

#[tokio::test(start_paused = true)]
async fn a_back_end_that_does_not_stop_delays_its_session_but_not_its_outcome() {
    let mut bench = scripted(RunLimits::default(), |request, output| async move {
        if request.run_id == "stubborn" {
            loop {
                tokio::time::sleep(Duration::from_millis(10)).await;
                output.push("more ");
            }
        }
        Ok(stop())
    });
    bench.runs.start(in_session("stubborn", "main")).await.expect("the run starts");
    bench.runs.start(in_session("next", "main")).await.expect("the run waits");
    tokio::time::sleep(Duration::from_secs(1)).await;
    bench.runs.abort("stubborn").await.expect("the run exists");
    assert!(bench.stands("stubborn").await.outcome.is_some());
    bench.told();

    let aborted_at = Instant::now();
    bench.outcome("next").await;
    assert_eq!(aborted_at.elapsed(), RunLimits::default().stop_grace);
    // Text that came after the end was dropped: all that was told since belongs to the next run.
    assert_eq!(bench.told()[0], r#"1 lifecycle {"phase":"start"}"#);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_run_has_one_outcome_however_starts_ends_and_aborts_fall_together() {
    let limits = RunLimits { max_running: 8, ..RunLimits::default() };
    let bench = scripted(limits, |request, output| async move {
        output.push(&request.run_id);
        tokio::task::yield_now().await;
        if request.run_id.ends_with('7') { panic!("by chance") } else { Ok(stop()) }
    });
    let callers: Vec<_> = (0..1000)
        .map(|n| {
            let runs = bench.runs.clone();
            tokio::spawn(async move {
                let key = format!("k{n}");
                let ack = runs.start(in_session(&key, &format!("s{}", n % 20))).await.expect("there is room");
                assert_eq!(ack.status, AckStatus::Accepted);
                if n % 2 == 0 {
                    tokio::task::yield_now().await;
                    runs.abort(&key).await.expect("the run exists");
                }
                runs.wait(&key, None).await.expect("the run exists").outcome.expect("it ended")
            })
        })
        .collect();
    for (n, caller) in callers.into_iter().enumerate() {
        assert_eq!(caller.await.expect("a caller does not panic").run_id, format!("k{n}"));
    }
    assert_eq!(bench.runs.drain(Duration::from_secs(10)).await, 0);
    let counts = bench.runs.counts();
    assert_eq!((counts.active, counts.queued, counts.ended), (0, 0, 1000));
}

// Stopping

#[tokio::test(start_paused = true)]
async fn draining_lets_runs_end_and_starts_no_more() {
    let bench = slow(RunLimits::default());
    bench.runs.start(in_session("k1", "main")).await.expect("the run starts");
    bench.runs.start(in_session("k2", "main")).await.expect("the run waits");
    let begin = Instant::now();
    let runs = bench.runs.clone();
    let draining = tokio::spawn(async move { runs.drain(Duration::from_secs(60)).await });
    tokio::task::yield_now().await;
    assert!(matches!(bench.runs.start(in_session("k3", "main")).await, Err(StartError::Draining)));
    let repeat = bench.runs.start(in_session("k1", "main")).await.expect("the key is known");
    assert_eq!(repeat.status, AckStatus::InFlight);
    assert_eq!(draining.await.expect("draining does not panic"), 0);
    assert_eq!(begin.elapsed().as_secs(), 2);
    for key in ["k1", "k2"] {
        assert_eq!(bench.stands(key).await.outcome.map(|outcome| outcome.status), Some(RunStatus::Ok));
    }
    assert_eq!(bench.runs.drain(Duration::ZERO).await, 0);
}

#[tokio::test(start_paused = true)]
async fn draining_aborts_what_takes_too_long() {
    let mut bench = endless();
    for (key, session) in [("k1", "a"), ("k2", "a"), ("k3", "b")] {
        bench.runs.start(in_session(key, session)).await.expect("the run is accepted");
    }
    let begin = Instant::now();
    assert_eq!(bench.runs.drain(Duration::from_secs(3)).await, 3);
    assert_eq!(begin.elapsed().as_secs(), 3);
    for key in ["k1", "k2", "k3"] {
        let result = bench.stands(key).await;
        assert_eq!((result.status, result.stop_reason.as_deref()), (WaitStatus::Error, Some("shutdown")));
    }
    assert_eq!(bench.calls.load(Ordering::SeqCst), 2, "the waiting run is not started in passing");
    let ends = bench.told().iter().filter(|line| line.contains("\"phase\":\"end\"")).count();
    assert_eq!(ends, 3);
}

// Events

#[tokio::test(start_paused = true)]
async fn a_plain_turn_publishes_its_events_in_order() {
    let mut bench = echo(100);
    bench.runs.start(in_session("k1", "main")).await.expect("the run starts");
    bench.outcome("k1").await;
    assert_eq!(
        bench.told(),
        [
            r#"1 lifecycle {"phase":"start"}"#,
            r#"2 lifecycle {"phase":"model","provider":"echo","model":"echo-1"}"#,
            r#"3 assistant {"text":"You ","delta":"You "}"#,
            "3 chat delta You  | You  | - | -",
            r#"4 assistant {"text":"You said: ","delta":"said: "}"#,
            "4 chat delta said:  | You said:  | - | -",
            r#"5 assistant {"text":"You said: hello","delta":"hello"}"#,
            "5 chat delta hello | You said: hello | - | -",
            r#"6 usage {"outputTokens":3}"#,
            r#"7 lifecycle {"phase":"finishing","stopReason":"stop","aborted":false}"#,
            r#"8 lifecycle {"phase":"end","aborted":false,"stopReason":"stop"}"#,
            "8 chat final - | You said: hello | stop | -",
        ]
    );
}

/// Pushes `count` pieces, one every `every_ms`.
fn chunks(count: usize, every_ms: u64, piece: &'static str) -> Bench {
    scripted(RunLimits::default(), move |_, output| async move {
        for _ in 0..count {
            output.push(piece);
            tokio::time::sleep(Duration::from_millis(every_ms)).await;
        }
        Ok(stop())
    })
}

fn deltas(bench: &mut Bench) -> Vec<AgentEvent> {
    let mut deltas = Vec::new();
    while let Ok(event) = bench.events.try_recv() {
        if event.name == EventName::Agent {
            let event = agent_event(&event);
            if event.stream == AgentStream::Assistant {
                deltas.push(event);
            }
        } else if event.name == EventName::Chat {
            let chat = chat_event(&event);
            assert!(chat.state != ChatState::Delta || Some(chat.seq) == deltas.last().map(|last| last.seq));
        }
    }
    deltas
}

#[tokio::test(start_paused = true)]
async fn text_is_published_by_windows_and_none_is_lost() {
    // wire.md section 9 counts 28 events for this, with windows of 75 ms.
    let mut bench = chunks(100, 20, "ab ");
    bench.runs.start(in_session("k1", "main")).await.expect("the run starts");
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(deltas(&mut bench).len(), 1, "the first text does not wait");
    bench.outcome("k1").await;
    let deltas = deltas(&mut bench);
    assert!((30..=40).contains(&deltas.len()), "{} events", deltas.len());
    let mut text = "ab ".to_owned();
    for event in &deltas {
        text.push_str(event.data["delta"].as_str().expect("a delta is text"));
        assert_eq!(event.data["text"], text);
    }
    assert_eq!(text, "ab ".repeat(100));
}

#[tokio::test(start_paused = true)]
async fn text_that_waits_is_published_when_its_window_is_over() {
    let mut bench = scripted(RunLimits::default(), |_, output| async move {
        for piece in ["a", "b", "c"] {
            output.push(piece);
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        output.push("d");
        tokio::time::sleep(Duration::from_secs(10)).await;
        Ok(stop())
    });
    bench.runs.start(in_session("k1", "main")).await.expect("the run starts");
    tokio::time::sleep(Duration::from_millis(80)).await;
    let texts: Vec<_> = deltas(&mut bench).into_iter().map(|event| event.data["text"].clone()).collect();
    assert_eq!(texts, ["a", "abc"]);
    tokio::time::sleep(Duration::from_millis(9_930)).await;
    assert_eq!(deltas(&mut bench)[0].data["text"], "abcd", "after a rest, text does not wait");
}

#[tokio::test(start_paused = true)]
async fn long_answers_are_published_in_longer_windows() {
    const PIECE: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    // 1 MiB in 20 seconds: windows of 50 ms alone would publish 400 times 0.5 MiB on average.
    let mut bench = chunks(16_384, 1, PIECE);
    bench.runs.start(in_session("k1", "main")).await.expect("the run starts");
    let outcome = bench.outcome("k1").await;
    assert_eq!(text_of(&outcome).map(str::len), Some(1_048_576));
    let deltas = deltas(&mut bench);
    let last = deltas.last().and_then(|event| event.data["text"].as_str());
    assert_eq!(last.map(str::len), Some(1_048_576));
    let told: usize = deltas.iter().map(|event| event.data["text"].as_str().map_or(0, str::len)).sum();
    let windows = usize::try_from(16_384 / 50).expect("a small number");
    assert!(told < (windows + 20) * 65_536, "{} events, {told} bytes", deltas.len());
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_text_is_complete_too() {
    let mut bench = scripted(RunLimits::default(), |_, output| async move {
        output.push("");
        Ok(stop())
    });
    bench.runs.start(in_session("k1", "main")).await.expect("the run starts");
    let outcome = bench.outcome("k1").await;
    assert_eq!((outcome.status, outcome.result.map(|r| r.payloads.len())), (RunStatus::Ok, Some(0)));
    assert_eq!(bench.told().last().map(String::as_str), Some("5 chat final - | - | stop | -"));
}

// Lists

#[tokio::test(start_paused = true)]
async fn runs_and_sessions_are_listed() {
    let bench = slow(RunLimits::default());
    let labelled = RunRequest { label: Some("nightly".to_owned()), ..in_session("k1", "a") };
    bench.runs.start(labelled).await.expect("the run starts");
    bench.runs.start(in_session("k2", "a")).await.expect("the run waits");
    tokio::task::yield_now().await;
    let active = bench.runs.active();
    assert_eq!(active.iter().map(|run| run.run_id.as_str()).collect::<Vec<_>>(), ["k1", "k2"]);
    assert_eq!(
        (active[0].label.as_deref(), active[0].session_key.as_str()),
        (Some("nightly"), "agent:main:a")
    );
    assert!(active[0].started_at.is_some() && active[1].started_at.is_none());
    bench.runs.start(in_session("k3", "agent:large:b")).await.expect("the run starts");
    assert_eq!(bench.runs.session_count(None), 2);
    assert_eq!(bench.runs.session_count(Some("main")), 1);
    for key in ["k2", "k3"] {
        bench.outcome(key).await;
    }
    assert!(bench.runs.active().is_empty());
    assert_eq!(bench.runs.session_count(None), 2);
}

// What sessions remember

/// What was said in a session, each message in one line.
async fn said(bench: &Bench, session_key: &str) -> Vec<String> {
    let Some(session) = bench.session(session_key).await else { return Vec::new() };
    let page = bench.store.page(session.transcript, 0, 100, usize::MAX).await.expect("it can be read");
    page.messages
        .iter()
        .map(|message| match &message.entry.author {
            Author::User => format!("user {}", message.entry.text),
            Author::Assistant { stop_reason, error, .. } => {
                format!("{stop_reason} {} {}", message.entry.text, error.as_deref().unwrap_or("-"))
            }
        })
        .collect()
}

fn chat(key: &str, session: &str) -> RunRequest {
    RunRequest { origin: Origin::Chat, ..in_session(key, session) }
}

#[tokio::test(start_paused = true)]
async fn each_method_has_keys_of_its_own() {
    let bench = slow(RunLimits::default());
    for request in [chat("k1", "a"), in_session("k1", "b")] {
        assert_eq!(bench.runs.start(request).await.expect("it starts").status, AckStatus::Accepted);
    }
    for request in [chat("k1", "x"), in_session("k1", "x")] {
        assert_eq!(bench.runs.start(request).await.expect("it is known").status, AckStatus::InFlight);
    }
    assert_eq!(bench.runs.counts().active, 2);
    // Both are called `k1`: of two that go on, that of `agent` is meant.
    assert!(bench.runs.abort("k1").await.expect("it exists").aborted);
    assert_eq!(said(&bench, "agent:main:b").await, ["user hello"]);
    assert_eq!(bench.stands("k1").await.status, WaitStatus::Timeout);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(bench.stands("k1").await.status, WaitStatus::Error);
    assert_eq!(bench.calls.load(Ordering::SeqCst), 2);
    for request in [chat("k1", "x"), in_session("k1", "x")] {
        assert_eq!(bench.runs.start(request).await.expect("it is known").status, AckStatus::Ended);
    }
}

#[tokio::test(start_paused = true)]
async fn a_conversation_is_kept_turn_by_turn() {
    let bench = echo(1);
    for (key, message) in [("k1", "one"), ("k2", "two")] {
        let request = RunRequest { message: message.to_owned(), ..chat(key, "main") };
        bench.runs.start(request).await.expect("it is accepted");
    }
    bench.outcome("k2").await;
    let expected = ["user one", "stop You said: one -", "user two", "stop You said: two -"];
    assert_eq!(said(&bench, "agent:main:main").await, expected);
    let session = bench.session("agent:main:main").await.expect("it was used");
    assert!(session.active.is_empty());
    let last = session.last_run.expect("it had runs");
    assert_eq!((last.run_id.as_str(), last.end.map(|end| end.status)), ("k2", Some(SessionStatus::Done)));
}

#[tokio::test(start_paused = true)]
async fn what_was_said_before_an_abort_or_a_failure_is_kept() {
    let bench = endless();
    bench.runs.start(chat("k1", "main")).await.expect("it starts");
    bench.runs.start(chat("k2", "main")).await.expect("it waits");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let activity = bench.runs.activity("agent:main:main", 20, 3);
    assert_eq!(
        activity.current.map(|run| (run.run_id, run.text)),
        Some(("k1".to_owned(), "partly".to_owned()))
    );
    let waiting: Vec<_> = activity.waiting.into_iter().map(|run| (run.run_id, run.message)).collect();
    assert_eq!((waiting, activity.waiting_total), (vec![("k2".to_owned(), "hel".to_owned())], 1));

    assert_eq!(bench.runs.abort_in("agent:main:main", Aborted::All).await, ["k1", "k2"]);
    assert_eq!(said(&bench, "agent:main:main").await, ["user hello", "rpc partly -"]);
    let session = bench.session("agent:main:main").await.expect("it was used");
    assert_eq!(session.last_run.and_then(|run| run.end).map(|end| end.status), Some(SessionStatus::Killed));

    let bench = scripted(RunLimits::default(), |_, output| async move {
        output.push("half");
        Err(BackendError::new(BackendErrorKind::RateLimit, "too many requests"))
    });
    bench.runs.start(chat("k1", "main")).await.expect("it starts");
    bench.outcome("k1").await;
    assert_eq!(said(&bench, "agent:main:main").await, ["user hello", "error half too many requests"]);
}

#[tokio::test(start_paused = true)]
async fn one_session_is_aborted_and_no_other() {
    let bench = endless();
    for (key, session) in [("k1", "a"), ("k2", "a"), ("k3", "a"), ("k4", "b")] {
        bench.runs.start(chat(key, session)).await.expect("it is accepted");
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(bench.runs.abort_in("agent:main:nothing", Aborted::All).await, Vec::<String>::new());
    assert_eq!(bench.runs.abort_in("agent:main:a", Aborted::Run("k4")).await, Vec::<String>::new());
    assert_eq!(bench.runs.abort_in("agent:main:a", Aborted::Run("k2")).await, ["k2"]);
    assert_eq!(bench.runs.abort_in("agent:main:a", Aborted::Current).await, ["k1"]);
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(
        bench.runs.activity("agent:main:a", 20, 9).current.map(|run| run.run_id).as_deref(),
        Some("k3")
    );
    assert_eq!(bench.runs.counts().active, 2);
}

#[tokio::test(start_paused = true)]
async fn a_failed_turn_says_what_kind_of_failure_it_was() {
    let mut bench = scripted(RunLimits::default(), |_, _| async move {
        Err(BackendError::new(BackendErrorKind::RateLimit, "too many requests"))
    });
    bench.runs.start(chat("k1", "main")).await.expect("it starts");
    bench.outcome("k1").await;
    let mut kinds = Vec::new();
    while let Ok(event) = bench.events.try_recv() {
        if event.name == EventName::Chat {
            kinds.push(chat_event(&event).error_kind);
        }
    }
    assert_eq!(kinds, [Some(openclaw_schema::events::ChatErrorKind::RateLimit)]);
}

#[tokio::test]
async fn a_run_that_cannot_be_stored_is_refused_and_its_key_is_free() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    // A folder where the file should be.
    let path = directory.path().join("gateway.sqlite");
    std::fs::create_dir(&path).expect("a folder can be made");
    let backend = Arc::new(EchoBackend::new(Duration::ZERO));
    let bench = bench_on(Store::new(path.clone()), backend, Arc::default(), RunLimits::default());
    for _ in 0..2 {
        let refused = bench.runs.start(in_session("k1", "main")).await.expect_err("there is no database");
        assert!(matches!(refused, StartError::Store(_)), "{refused}");
        assert_eq!(bench.runs.counts(), RunCounts::default());
    }
    std::fs::remove_dir(&path).expect("it is empty");
    bench.runs.start(in_session("k1", "main")).await.expect("it is stored now");
    assert_eq!(text_of(&bench.outcome("k1").await), Some("You said: hello"));
}

// Aborting, wherever the run stands

/// Where a back end stands when its run is aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Connecting,
    FirstToken,
    Midway,
    Answered,
}

#[tokio::test(start_paused = true)]
async fn an_abort_gives_the_recorded_shapes_once_wherever_the_run_stands() {
    for (stage, texts, status) in [
        (Stage::Connecting, vec![], "aborted"),
        (Stage::FirstToken, vec!["one "], "aborted"),
        (Stage::Midway, vec!["one ", "one two "], "aborted"),
        (Stage::Answered, vec!["one ", "one two "], "final"),
    ] {
        let mut bench = scripted(RunLimits::default(), move |request, output| async move {
            if stage == Stage::Connecting {
                request.cancel.cancelled().await;
            }
            output.push("one ");
            if stage == Stage::FirstToken {
                request.cancel.cancelled().await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            output.push("two ");
            if stage == Stage::Midway {
                request.cancel.cancelled().await;
            }
            Ok(stop())
        });
        bench.runs.start(in_session("k1", "main")).await.expect("it starts");
        tokio::time::sleep(Duration::from_secs(1)).await;
        // Two at once: one of them does it, or none.
        let (first, second) = tokio::join!(bench.runs.abort("k1"), bench.runs.abort("k1"));
        let did = [first, second].map(|result| result.expect("the run exists").aborted);
        assert_eq!(did.iter().filter(|did| **did).count(), usize::from(status == "aborted"), "{stage:?}");
        assert!(!bench.runs.abort("k1").await.expect("the run exists").aborted);
        tokio::time::sleep(Duration::from_secs(10)).await;

        let told = bench.told();
        let deltas: Vec<_> = told.iter().filter(|line| line.contains("chat delta")).collect();
        assert_eq!(deltas.len(), texts.len(), "{stage:?}: {told:?}");
        let ends: Vec<_> = told.iter().filter(|line| line.contains(&format!("chat {status}"))).collect();
        let lifecycle_ends = told.iter().filter(|line| line.contains(r#""phase":"end""#)).count();
        assert_eq!((ends.len(), lifecycle_ends), (1, 1), "{stage:?}: {told:?}");
        let text = texts.last().copied();
        assert!(ends[0].contains(&format!("- | {} | ", text.unwrap_or("-"))), "{stage:?}: {ends:?}");
        let result = bench.stands("k1").await;
        let outcome = result.outcome.expect("it ended");
        assert_eq!(text_of(&outcome), text, "{stage:?}");
        let expected = match stage {
            Stage::Answered => (RunStatus::Ok, "completed", "stop"),
            _ => (RunStatus::Timeout, "aborted", "rpc"),
        };
        assert_eq!(
            (outcome.status, outcome.summary.as_str(), outcome.stop_reason.as_deref().unwrap_or("-")),
            expected
        );
        let kept = match (stage, text) {
            (Stage::Answered, Some(text)) => vec!["user hello".to_owned(), format!("stop {text} -")],
            (_, Some(text)) => vec!["user hello".to_owned(), format!("rpc {text} -")],
            (_, None) => vec!["user hello".to_owned()],
        };
        assert_eq!(said(&bench, "agent:main:main").await, kept, "{stage:?}");
    }
}

// What outlives the gateway

/// The same database after the gateway was killed: nothing of the first one goes on.
fn restarted<F, Fut>(bench: &Bench, script: F) -> Bench
where
    F: Fn(BackendRequest, TextSink) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<BackendAnswer, BackendError>> + Send + 'static,
{
    let calls = Arc::<AtomicUsize>::default();
    let backend = Arc::new(Scripted { script, calls: Arc::clone(&calls) });
    bench_on(bench.store.clone(), backend, calls, RunLimits::default())
}

async fn answer_with_message(
    request: BackendRequest,
    output: TextSink,
) -> Result<BackendAnswer, BackendError> {
    output.push(&format!("heard {}", request.message));
    Ok(stop())
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_gateway_left_gets_one_outcome_each() {
    let first = endless();
    for (key, session) in [("k1", "a"), ("k2", "a"), ("k3", "b")] {
        first.runs.start(chat(key, session)).await.expect("it is accepted");
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    // k1 and k3 go on, k2 waits.
    let second = restarted(&first, answer_with_message);
    second.runs.recover().await;
    for key in ["k1", "k3"] {
        let result = second.runs.wait(key, None).await.expect("it exists");
        assert_eq!((result.status, result.stop_reason.as_deref()), (WaitStatus::Error, Some("interrupted")));
        let outcome = result.outcome.expect("it ended");
        assert_eq!((outcome.status, outcome.summary.as_str()), (RunStatus::Error, run::INTERRUPTED));
        let repeat = second.runs.start(chat(key, "a")).await.expect("the key is known");
        assert_eq!(repeat.status, AckStatus::Ended);
    }
    assert_eq!(text_of(&second.outcome("k2").await), Some("heard hello"));
    assert_eq!(
        said(&second, "agent:main:a").await,
        ["user hello", &format!("interrupted  {}", run::INTERRUPTED), "user hello", "stop heard hello -"]
    );
    assert_eq!(second.calls.load(Ordering::SeqCst), 1, "what was under way is not asked again");
    assert_eq!(second.runs.session_count(None), 2);

    // A third life finds nothing to do, and the same outcomes.
    let third = restarted(&second, answer_with_message);
    third.runs.recover().await;
    for key in ["k1", "k2", "k3"] {
        assert_eq!(third.stands(key).await, second.stands(key).await);
    }
    assert_eq!(third.runs.counts(), RunCounts::default());
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_run_had_said_is_kept_but_for_its_last_second() {
    let first = scripted(RunLimits::default(), |request, output| async move {
        for piece in 0..100 {
            output.push(&format!("{piece} "));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        request.cancel.cancelled().await;
        Ok(stop())
    });
    first.runs.start(in_session("k1", "a")).await.expect("it is accepted");
    tokio::time::sleep(Duration::from_millis(2550)).await;
    let mut second = restarted(&first, answer_with_message);
    second.runs.recover().await;
    let outcome = second.outcome("k1").await;
    assert_eq!(outcome.stop_reason.as_deref(), Some("interrupted"));
    let kept: String = (0..20).map(|piece| format!("{piece} ")).collect();
    assert_eq!(text_of(&outcome), Some(kept.as_str()));
    let expected = ["user hello".to_owned(), format!("interrupted {kept} {}", run::INTERRUPTED)];
    assert_eq!(said(&second, "agent:main:a").await, expected);
    assert!(deltas(&mut second).is_empty(), "what was told in another life is not told again");
    // The first gateway, which is only thought to be dead, keeps nothing for a run that has ended.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let left = first.store.recover().await.expect("it can be read").0;
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_provider_counted_is_consumed_whatever_came_of_the_answer() {
    let bench = scripted(RunLimits::default(), |request, output| async move {
        output.push("partly");
        request.meter.tell(stop());
        if request.message == "fail" {
            return Err(BackendError::new(BackendErrorKind::Unknown, "it broke"));
        }
        request.cancel.cancelled().await;
        Ok(stop())
    });
    bench
        .runs
        .start(RunRequest { message: "fail".to_owned(), ..in_session("k1", "a") })
        .await
        .expect("it starts");
    bench.outcome("k1").await;
    bench.runs.start(in_session("k2", "b")).await.expect("it starts");
    tokio::time::sleep(Duration::from_millis(1)).await;
    bench.runs.abort("k2").await.expect("it goes on");
    for key in ["k1", "k2"] {
        let meta = bench.outcome(key).await.result.expect("there is text").meta;
        assert_eq!(meta.agent_meta.map(|meta| meta.usage), Some(stop().usage), "{key}");
    }
    let used = bench.store.usage(0, i64::MAX, None).await.expect("it can be read");
    assert_eq!(
        used.iter().map(|day| (day.totals.runs, day.totals.total_tokens)).collect::<Vec<_>>(),
        [(2, 6)]
    );
}

#[tokio::test(start_paused = true)]
async fn a_run_thinks_as_the_call_says_or_else_its_session() {
    let seen = Arc::<Mutex<Vec<_>>>::default();
    let kept = Arc::clone(&seen);
    let bench = scripted(RunLimits::default(), move |request, _| {
        kept.lock().expect("no panic").push((request.thinking, request.fast_mode));
        async { Ok(stop()) }
    });
    bench.runs.start(in_session("k0", "a")).await.expect("it starts");
    bench.outcome("k0").await;
    let address = bench.runs.address(None, "a").expect("it names a session");
    let change = |session: &mut Session| {
        session.settings.thinking_level = Some("low".to_owned());
        session.settings.fast_mode = Some(FastMode::Flag(true));
        Ok::<_, ()>(())
    };
    bench.store.change_session(address, TimestampMs::now(), false, change).await.expect("it can be changed");
    bench.runs.start(in_session("k1", "a")).await.expect("it starts");
    bench.outcome("k1").await;
    let named = RunRequest { thinking: Some(ThinkingLevel::High), ..in_session("k2", "a") };
    bench
        .runs
        .start(RunRequest { fast_mode: Some(FastMode::Flag(false)), ..named })
        .await
        .expect("it starts");
    bench.outcome("k2").await;
    assert_eq!(
        *seen.lock().expect("no panic"),
        [
            (None, None),
            (Some(ThinkingLevel::Low), Some(FastMode::Flag(true))),
            (Some(ThinkingLevel::High), Some(FastMode::Flag(false))),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_of_an_agent_that_is_gone_has_an_outcome_too() {
    let first = endless();
    first.runs.start(in_session("k1", "agent:large:a")).await.expect("it is accepted");
    first.runs.start(in_session("k2", "agent:large:a")).await.expect("it waits");
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut second = restarted(&first, answer_with_message);
    let Some(inner) = Arc::get_mut(&mut second.runs.inner) else { panic!("nothing goes on yet") };
    inner.agents.list.retain(|agent| agent.id != "large");
    second.runs.recover().await;
    assert_eq!(second.outcome("k1").await.stop_reason.as_deref(), Some("interrupted"));
    let outcome = second.outcome("k2").await;
    assert_eq!(
        (outcome.status, outcome.summary.as_str()),
        (RunStatus::Error, "no agent `large`; `agents.list` lists them")
    );
    assert_eq!(second.calls.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_starts_before_what_was_left_is_settled() {
    let first = endless();
    first.runs.start(chat("k1", "a")).await.expect("it starts");
    first.runs.start(chat("k2", "a")).await.expect("it waits");
    tokio::time::sleep(Duration::from_millis(1)).await;
    let second = restarted(&first, answer_with_message);
    second.runs.inner.recovered.send_replace(false);
    let runs = second.runs.clone();
    let early = tokio::spawn(async move { runs.start(chat("k3", "a")).await });
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(!early.is_finished());
    second.runs.recover().await;
    early.await.expect("it does not panic").expect("it starts");
    second.outcome("k3").await;
    let said = said(&second, "agent:main:a").await;
    assert_eq!(said.iter().filter(|line| line.starts_with("user")).count(), 3, "{said:?}");
    assert_eq!(said.last().map(String::as_str), Some("stop heard hello -"));
}

// What a model is told

#[tokio::test(start_paused = true)]
async fn a_model_is_told_what_was_said_before() {
    let bench = scripted(RunLimits::default(), |request, output| async move {
        let turns = request.history.iter().map(|turn| match turn.author {
            TurnAuthor::User => format!("u:{}", turn.text),
            TurnAuthor::Assistant => format!("a:{}", turn.text),
        });
        output.push(&turns.collect::<Vec<_>>().join("|"));
        Ok(stop())
    });
    let say = |key: &str, message: &str| RunRequest { message: message.to_owned(), ..chat(key, "main") };
    for (key, message, told) in [("k1", "one", None), ("k2", "two", Some("u:one")), ("k3", "three", None)] {
        bench.runs.start(say(key, message)).await.expect("it starts");
        let outcome = bench.outcome(key).await;
        if told.is_some() {
            assert_eq!(text_of(&outcome), told);
        }
    }
    // The first answer had no words: it is no turn.
    assert_eq!(text_of(&bench.outcome("k3").await), Some("u:one\n\ntwo|a:u:one"));
    let other = RunRequest { session_key: Some("other".to_owned()), ..say("k4", "four") };
    bench.runs.start(other).await.expect("it starts");
    assert_eq!(text_of(&bench.outcome("k4").await), None, "another session knows nothing of it");
    // A model without a window of its own has 6144 tokens for what is said, at three bytes each.
    bench.runs.start(say("k5", &"x".repeat(18_432))).await.expect("it starts");
    assert_eq!(text_of(&bench.outcome("k5").await), None);
}
