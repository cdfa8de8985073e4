//! Many sockets: what an idle one costs, and what one that does not read does to the others.
//!
//! ```text
//! cargo bench -p openclaw-tests --bench sockets              # everything, about two minutes
//! cargo bench -p openclaw-tests --bench sockets -- idle      # 9,000 sockets alone
//! cargo bench -p openclaw-tests --bench sockets -- stalled   # a peer that does not read alone
//! ```
//!
//! The gateway runs in a process of its own, whose memory is read before and after. Needs 9,100 file descriptors on
//! either side; the limit is raised as far as the system allows.

#![expect(clippy::print_stdout, reason = "the tables are what the bench is for")]

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use openclaw_schema::methods::{agent::AgentMethod, events::EventsMethod, gateway::GatewayMethod};
use openclaw_tests::servers::{
    self, Process, STREAMED_BYTES,
    sockets::{self, Socket},
};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::MissedTickBehavior};
use tokio_tungstenite::tungstenite::Message;

const TOKEN: &str = "bench-token";
/// How many sockets are idle.
const IDLE: usize = 9_000;
/// How many of them are being opened at once: fewer than the gateway lets wait for authentication.
const OPENING: usize = 32;
/// How many calls are made while they are.
const CALLS: usize = 2_000;
/// How many sockets read what comes.
const HEALTHY: usize = 50;
/// How much each of them is to receive, in bytes per second.
const EVENT_RATE: usize = 5_000_000;
/// Each run makes an `agent` and a `chat` event with its whole text every 75 ms.
const RUNS: usize = EVENT_RATE * 75 / 1000 / (2 * STREAMED_BYTES) + 1;
/// How often the two states, without and with a stalled reader, are compared.
const ROUNDS: usize = 3;
/// For how long the healthy sockets are watched without a stalled one.
const QUIET: Duration = Duration::from_secs(6);
/// After this long a stalled reader counts as never closed.
const NEVER: Duration = Duration::from_secs(30);
/// How often each healthy socket makes a call.
const CALL_EVERY: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Dialect {
    JsonRpc,
    Frames,
}

impl Dialect {
    fn name(self) -> &'static str {
        match self {
            Self::JsonRpc => "JSON-RPC",
            Self::Frames => "frames",
        }
    }

    async fn open(self, port: u16) -> Socket {
        match self {
            Self::JsonRpc => sockets::jsonrpc(port, TOKEN).await,
            Self::Frames => sockets::frames(port, TOKEN).await,
        }
    }

    fn request(self, id: u64, method: &str, params: &Value) -> Message {
        Message::text(match self {
            Self::JsonRpc => {
                json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string()
            }
            Self::Frames => {
                json!({ "type": "req", "id": id.to_string(), "method": method, "params": params }).to_string()
            }
        })
    }

    /// Whether a message answers a call, and is no event.
    fn is_answer(self, text: &str) -> bool {
        match self {
            // Notifications name their method first.
            Self::JsonRpc => text.starts_with(r#"{"jsonrpc":"2.0","id""#),
            Self::Frames => text.starts_with(r#"{"type":"res""#),
        }
    }

    /// Asks for events, which come unasked over frames.
    async fn listen(self, socket: &mut Socket) {
        if self == Self::JsonRpc {
            let subscribe = EventsMethod::EventsSubscribe.name();
            call(self, socket, 0, subscribe, &json!({})).await;
        }
    }
}

/// Makes a call and waits for its answer. Events are passed over.
async fn call(dialect: Dialect, socket: &mut Socket, id: u64, method: &str, params: &Value) -> Value {
    socket.send(dialect.request(id, method, params)).await.expect("the gateway reads");
    loop {
        let message = socket.next().await.expect("an answer comes").expect("and is sound");
        if let Message::Text(text) = message
            && dialect.is_answer(&text)
        {
            return serde_json::from_str(&text).expect("an answer is JSON");
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [serve, kind] = &arguments[..]
        && serve == "serve"
    {
        return servers::serve(kind, TOKEN);
    }
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where it fails, connecting does, and says so.
    let _ = setrlimit(Resource::Nofile, limit);
    let wanted = |name: &str| arguments.is_empty() || arguments.iter().any(|argument| argument == name);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts");
    if wanted("idle") {
        println!("| {IDLE} idle sockets | opened per second | bytes each | `health` p50 µs | p99 µs |");
        println!("| --- | ---: | ---: | ---: | ---: |");
        for dialect in [Dialect::JsonRpc, Dialect::Frames] {
            runtime.block_on(idle(dialect));
        }
        println!();
    }
    if wanted("stalled") {
        println!(
            "| {HEALTHY} readers | MB/s each | `health` p99 ms | with a stalled one | change | closed after s | told |"
        );
        println!("| --- | ---: | ---: | ---: | ---: | ---: | --- |");
        for dialect in [Dialect::JsonRpc, Dialect::Frames] {
            runtime.block_on(stalled(dialect));
        }
    }
}

async fn idle(dialect: Dialect) {
    let server = Process::start("gateway");
    let port = server.port();
    let mut caller = dialect.open(port).await;
    let health = GatewayMethod::Health.name();
    call(dialect, &mut caller, 0, health, &json!({})).await;
    let before = server.resident_bytes();
    let begun = Instant::now();
    let mut openers = JoinSet::new();
    for opener in 0..OPENING {
        let count = IDLE / OPENING + usize::from(opener < IDLE % OPENING);
        openers.spawn(async move {
            let mut sockets = Vec::with_capacity(count);
            for _ in 0..count {
                sockets.push(dialect.open(port).await);
            }
            sockets
        });
    }
    let sockets: Vec<Socket> = openers.join_all().await.into_iter().flatten().collect();
    let rate = figure(sockets.len()) / begun.elapsed().as_secs_f64();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let each = (server.resident_bytes() - before) / IDLE as u64;
    let mut latencies = Vec::with_capacity(CALLS);
    for id in 0..CALLS {
        let asked = Instant::now();
        call(dialect, &mut caller, id as u64 + 1, health, &json!({})).await;
        latencies.push(asked.elapsed());
    }
    let micros = |share| quantile(&mut latencies.clone(), share).as_secs_f64() * 1e6;
    println!("| {} | {rate:.0} | {each} | {:.0} | {:.0} |", dialect.name(), micros(0.5), micros(0.99));
}

/// What the healthy sockets see, by phase: even ones without a stalled reader, odd ones with.
struct Watch {
    phase: AtomicUsize,
    latencies: Vec<Mutex<Vec<Duration>>>,
    bytes: AtomicU64,
}

async fn stalled(dialect: Dialect) {
    let server = Process::start("stream");
    let port = server.port();
    let watch = Arc::new(Watch {
        phase: AtomicUsize::new(0),
        latencies: (0..=2 * ROUNDS).map(|_| Mutex::default()).collect(),
        bytes: AtomicU64::new(0),
    });
    let mut control = sockets::jsonrpc(port, TOKEN).await;
    for run in 0..RUNS {
        let key = format!("stream-{run}");
        let params = json!({ "message": "go", "idempotencyKey": key, "sessionKey": key });
        let started = call(Dialect::JsonRpc, &mut control, 1, AgentMethod::Agent.name(), &params).await;
        assert_eq!(started["result"]["status"], "accepted", "{started}");
    }
    let mut readers = JoinSet::new();
    for _ in 0..HEALTHY {
        let mut socket = dialect.open(port).await;
        dialect.listen(&mut socket).await;
        readers.spawn(read(dialect, socket, Arc::clone(&watch)));
    }
    // The first phase is thrown away.
    tokio::time::sleep(QUIET / 2).await;
    watch.phase.store(1, Ordering::Relaxed);
    let (mut closed_after, mut told) = (Vec::new(), Vec::new());
    let begun = Instant::now();
    watch.bytes.store(0, Ordering::Relaxed);
    for round in 0..ROUNDS {
        tokio::time::sleep(QUIET).await;
        let open = connections(&mut control).await;
        let mut peer = dialect.open(port).await;
        dialect.listen(&mut peer).await;
        // It reads nothing from here on.
        let stopped = Instant::now();
        watch.phase.store(2 * round + 2, Ordering::Relaxed);
        while connections(&mut control).await > open && stopped.elapsed() < NEVER {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        closed_after.push(stopped.elapsed());
        watch.phase.store((2 * round + 3).min(2 * ROUNDS), Ordering::Relaxed);
        told.push(how_it_was_closed(peer).await);
        assert!(readers.try_join_next().is_none(), "a healthy reader was closed");
    }
    let rate = figure(usize::try_from(watch.bytes.load(Ordering::Relaxed)).unwrap_or(usize::MAX))
        / begun.elapsed().as_secs_f64()
        / figure(HEALTHY)
        / 1e6;
    let p99 = |phase: usize| {
        let mut latencies = watch.latencies[phase].lock().expect("no reader panics with it");
        quantile(&mut latencies, 0.99).as_secs_f64() * 1e3
    };
    let without: Vec<f64> = (0..ROUNDS).map(|round| p99(2 * round + 1)).collect();
    let with: Vec<f64> = (0..ROUNDS).map(|round| p99(2 * round + 2)).collect();
    let change = without.iter().zip(&with).map(|(without, with)| with / without - 1.0).collect();
    closed_after.sort_unstable();
    println!(
        "| {} | {rate:.1} | {:.2} | {:.2} | {:+.0} % | {:.1} | {} |",
        dialect.name(),
        median(without),
        median(with),
        median(change) * 100.0,
        closed_after[ROUNDS - 1].as_secs_f64(),
        told.first().map_or("", String::as_str),
    );
}

/// Reads all that comes, and makes a call now and then.
async fn read(dialect: Dialect, mut socket: Socket, watch: Arc<Watch>) {
    let mut calls = tokio::time::interval(CALL_EVERY);
    calls.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let health = GatewayMethod::Health.name();
    let (mut id, mut asked) = (1, None);
    loop {
        tokio::select! {
            message = socket.next() => {
                let Some(Ok(message)) = message else { return };
                let Message::Text(text) = message else { continue };
                watch.bytes.fetch_add(text.len() as u64, Ordering::Relaxed);
                if dialect.is_answer(&text)
                    && let Some(asked) = asked.take()
                {
                    let phase = watch.phase.load(Ordering::Relaxed);
                    let took = Instant::elapsed(&asked);
                    watch.latencies[phase].lock().expect("no reader panics with it").push(took);
                }
            }
            _ = calls.tick(), if asked.is_none() => {
                id += 1;
                asked = Some(Instant::now());
                if socket.send(dialect.request(id, health, &json!({}))).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// How many connections the gateway has.
async fn connections(control: &mut Socket) -> u64 {
    let params = json!({ "probe": true });
    let health = call(Dialect::JsonRpc, control, 1, GatewayMethod::Health.name(), &params).await;
    health["result"]["runtime"]["connections"].as_u64().expect("a gateway counts its connections")
}

/// Reads what is left on a socket, and how it ended.
async fn how_it_was_closed(mut peer: Socket) -> String {
    let end = async {
        loop {
            match peer.next().await {
                Some(Ok(Message::Close(Some(frame)))) => {
                    return format!("{}: {}", u16::from(frame.code), frame.reason);
                }
                Some(Ok(Message::Close(None))) => return "a close frame without code".to_owned(),
                Some(Ok(_)) => {}
                Some(Err(error)) => return error.to_string(),
                None => return "nothing".to_owned(),
            }
        }
    };
    tokio::time::timeout(NEVER, end).await.unwrap_or_else(|_| "it goes on".to_owned())
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn figure(count: usize) -> f64 {
    count as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list")]
fn quantile(latencies: &mut [Duration], share: f64) -> Duration {
    latencies.sort_unstable();
    latencies.get((figure(latencies.len()) * share) as usize).copied().unwrap_or_default()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
