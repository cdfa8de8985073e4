//! Methods that misbehave, and a gateway in a process of its own that serves them: what the robustness cases drive.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use jsonrpsee::{
    PendingSubscriptionSink,
    core::{RpcResult, SubscriptionResult, async_trait},
    proc_macros::rpc,
};
use openclaw_gateway::{
    Gateway, backend::echo::EchoBackend, logs::LogSettings, settings::Limits, trust::Network,
};
use openclaw_schema::{
    contract,
    contract::Examples,
    types::{NoParams, SubscriptionId},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::harness;

/// Params of `hazards.wait` and `hazards.burn`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LastParams {
    /// How long it takes, in milliseconds.
    pub ms: u64,
}

/// Params of `hazards.flood` and `hazards.large`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SizeParams {
    /// How many bytes an item or the result has.
    pub bytes: usize,
}

/// What became of the calls of `hazards.wait`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaitCounts {
    /// How many wait now.
    pub running: u64,
    /// The most that waited at once.
    pub most: u64,
    /// How many ended before their time, as nobody waits for them any more.
    pub cancelled: u64,
}

/// Methods that misbehave.
#[contract(group = "Hazards")]
#[rpc(server, namespace = "hazards", namespace_separator = ".")]
pub trait Hazards {
    /// Panics in a handler that is no future.
    #[method(name = "panicNow")]
    #[meta(scope = "operator.read", since = "0.1.0", examples = no_params)]
    fn hazards_panic_now(&self, params: NoParams) -> RpcResult<u64>;

    /// Panics at the first poll.
    #[method(name = "panicAtOnce")]
    #[meta(scope = "operator.read", since = "0.1.0", examples = no_params)]
    async fn hazards_panic_at_once(&self, params: NoParams) -> RpcResult<u64>;

    /// Panics after it has waited.
    #[method(name = "panicLater")]
    #[meta(scope = "operator.read", since = "0.1.0", examples = no_params)]
    async fn hazards_panic_later(&self, params: NoParams) -> RpcResult<u64>;

    /// Panics before it accepts the subscription.
    #[subscription(name = "panicUnaccepted" => "item1", unsubscribe = "unpanicUnaccepted", item = String)]
    #[meta(scope = "operator.read", since = "0.1.0", examples = subscription)]
    async fn hazards_panic_unaccepted(&self, params: NoParams) -> SubscriptionResult;

    /// Accepts the subscription, sends an item, and panics.
    #[subscription(name = "panicAccepted" => "item2", unsubscribe = "unpanicAccepted", item = String)]
    #[meta(scope = "operator.read", since = "0.1.0", examples = subscription)]
    async fn hazards_panic_accepted(&self, params: NoParams) -> SubscriptionResult;

    /// Sends items as fast as they are taken.
    #[subscription(name = "flood" => "item3", unsubscribe = "unflood", item = String)]
    #[meta(scope = "operator.read", since = "0.1.0", examples = flood)]
    async fn hazards_flood(&self, params: SizeParams) -> SubscriptionResult;

    /// Waits.
    #[method(name = "wait")]
    #[meta(scope = "operator.read", since = "0.1.0", examples = last)]
    async fn hazards_wait(&self, params: LastParams) -> RpcResult<u64>;

    /// Says what became of the calls that wait.
    #[method(name = "waitCounts")]
    #[meta(scope = "operator.read", since = "0.1.0", examples = counts)]
    fn hazards_wait_counts(&self, params: NoParams) -> RpcResult<WaitCounts>;

    /// Computes without a pause.
    #[method(name = "burn")]
    #[meta(scope = "operator.read", since = "0.1.0", examples = last)]
    async fn hazards_burn(&self, params: LastParams) -> RpcResult<u64>;

    /// Answers with as many bytes as asked for.
    #[method(name = "large")]
    #[meta(scope = "operator.read", since = "0.1.0", examples = large)]
    async fn hazards_large(&self, params: SizeParams) -> RpcResult<String>;
}

fn no_params() -> Examples<NoParams, u64> {
    Examples::success("nothing", NoParams {}, 0).invalid("a field too many", json!({ "x": 1 }))
}

fn subscription() -> Examples<NoParams, SubscriptionId> {
    Examples::success("nothing", NoParams {}, SubscriptionId::Number(1))
        .invalid("a field too many", json!({ "x": 1 }))
}

fn flood() -> Examples<SizeParams, SubscriptionId> {
    Examples::success("small items", SizeParams { bytes: 1 }, SubscriptionId::Number(1))
        .invalid("no size", json!({}))
}

fn last() -> Examples<LastParams, u64> {
    Examples::success("a second", LastParams { ms: 1000 }, 1000).invalid("no time", json!({}))
}

fn counts() -> Examples<NoParams, WaitCounts> {
    Examples::success("nothing yet", NoParams {}, WaitCounts { running: 0, most: 0, cancelled: 0 })
        .invalid("a field too many", json!({ "x": 1 }))
}

fn large() -> Examples<SizeParams, String> {
    Examples::success("one byte", SizeParams { bytes: 1 }, "x".to_owned()).invalid("no size", json!({}))
}

#[derive(Debug, Default)]
struct Counters {
    running: AtomicU64,
    most: AtomicU64,
    cancelled: AtomicU64,
}

/// Counts a wait, and whether it came to its end.
struct Wait {
    counters: Arc<Counters>,
    ended: bool,
}

impl Wait {
    fn begin(counters: &Arc<Counters>) -> Self {
        let running = counters.running.fetch_add(1, Ordering::SeqCst) + 1;
        counters.most.fetch_max(running, Ordering::SeqCst);
        Self { counters: Arc::clone(counters), ended: false }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        self.counters.running.fetch_sub(1, Ordering::SeqCst);
        if !self.ended {
            self.counters.cancelled.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[derive(Debug, Default)]
struct Handlers {
    counters: Arc<Counters>,
}

/// Whether the code after a panic is reached, which the compiler must not know.
fn panics() -> bool {
    std::hint::black_box(true)
}

#[async_trait]
impl HazardsServer for Handlers {
    fn hazards_panic_now(&self, _: NoParams) -> RpcResult<u64> {
        assert!(!panics(), "the hazard panics now");
        Ok(0)
    }

    async fn hazards_panic_at_once(&self, _: NoParams) -> RpcResult<u64> {
        assert!(!panics(), "the hazard panics at once");
        Ok(0)
    }

    async fn hazards_panic_later(&self, _: NoParams) -> RpcResult<u64> {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!panics(), "the hazard panics later");
        Ok(0)
    }

    async fn hazards_panic_unaccepted(
        &self,
        pending: PendingSubscriptionSink,
        _: NoParams,
    ) -> SubscriptionResult {
        tokio::task::yield_now().await;
        assert!(!panics(), "the hazard panics unaccepted");
        drop(pending);
        Ok(())
    }

    async fn hazards_panic_accepted(
        &self,
        pending: PendingSubscriptionSink,
        _: NoParams,
    ) -> SubscriptionResult {
        let sink = pending.accept().await?;
        sink.send(serde_json::value::to_raw_value("the only one")?).await?;
        assert!(!panics(), "the hazard panics accepted");
        Ok(())
    }

    async fn hazards_flood(
        &self,
        pending: PendingSubscriptionSink,
        params: SizeParams,
    ) -> SubscriptionResult {
        let sink = pending.accept().await?;
        let item = serde_json::value::to_raw_value(&"x".repeat(params.bytes))?;
        while sink.send(item.clone()).await.is_ok() {}
        Ok(())
    }

    async fn hazards_wait(&self, params: LastParams) -> RpcResult<u64> {
        let mut wait = Wait::begin(&self.counters);
        tokio::time::sleep(Duration::from_millis(params.ms)).await;
        wait.ended = true;
        Ok(params.ms)
    }

    fn hazards_wait_counts(&self, _: NoParams) -> RpcResult<WaitCounts> {
        Ok(WaitCounts {
            running: self.counters.running.load(Ordering::SeqCst),
            most: self.counters.most.load(Ordering::SeqCst),
            cancelled: self.counters.cancelled.load(Ordering::SeqCst),
        })
    }

    async fn hazards_burn(&self, params: LastParams) -> RpcResult<u64> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(params.ms) {
            std::hint::spin_loop();
        }
        Ok(params.ms)
    }

    async fn hazards_large(&self, params: SizeParams) -> RpcResult<String> {
        Ok("x".repeat(params.bytes))
    }
}

/// Serves until it is told to terminate, or standard input ends. Prints the port and the path of the log first.
///
/// Each argument is `<bound>=<milliseconds or count>`; or `directory=<path>`, which is used again instead of a new one,
/// `port=<port>`, `pause=<milliseconds>` between two words of the echo, `proxy=<network>` that is trusted.
///
/// # Panics
///
/// When the gateway does not start, or an argument names no bound.
pub fn serve(arguments: impl Iterator<Item = String>) {
    let (mut limits, mut place) = (Limits::default(), Place::default());
    for argument in arguments {
        match argument.split_once('=') {
            Some(("directory", path)) => place.directory = Some(path.into()),
            Some(("port", port)) => place.port = port.parse().expect("a port is a number"),
            Some(("proxy", network)) => place.proxies.push(network.parse().expect("a proxy is a network")),
            Some(("pause", pause)) => {
                place.pause = Some(Duration::from_millis(pause.parse().expect("a pause is a number")));
            }
            _ => set(&mut limits, &argument),
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts");
    runtime.block_on(run(limits, place));
    // Standard input is read on a thread that never ends by itself.
    runtime.shutdown_background();
}

fn set(limits: &mut Limits, argument: &str) {
    let (name, value) = argument.split_once('=').expect("an argument is <bound>=<value>");
    let value: usize = value.parse().expect("a bound is a number");
    let time = Duration::from_millis(value as u64);
    match name {
        "send_timeout" => limits.send_timeout = time,
        "header_timeout" => limits.header_timeout = time,
        "body_timeout" => limits.body_timeout = time,
        "authentication_timeout" => limits.authentication_timeout = time,
        "ping_interval" => limits.ping_interval = time,
        "drain_timeout" => limits.drain_timeout = time,
        "call_timeout" => limits.call_timeout = time,
        "max_in_flight" => limits.max_in_flight = value,
        "max_unauthenticated" => limits.max_unauthenticated = value,
        other => panic!("no bound `{other}`"),
    }
}

/// Where a server keeps its state, where it listens, whom it trusts, and how fast its echo is.
#[derive(Debug, Default)]
struct Place {
    directory: Option<PathBuf>,
    port: u16,
    proxies: Vec<Network>,
    pause: Option<Duration>,
}

async fn run(limits: Limits, place: Place) {
    let temporary = tempfile::tempdir().expect("a directory can be made");
    let directory = place.directory.as_deref().unwrap_or(temporary.path());
    let mut settings = harness::settings(directory, harness::TOKEN);
    settings.listen = vec![([127, 0, 0, 1], place.port).into()];
    settings.trust.proxies = place.proxies;
    settings.limits = limits;
    let log = LogSettings { console: false, ..LogSettings::from_environment(&settings.log_file) };
    let log = openclaw_gateway::logs::init(&log).expect("the log starts");
    let mut terminated = signal(SignalKind::terminate()).expect("signals can be received");
    let mut builder = Gateway::builder(settings);
    if let Some(pause) = place.pause {
        builder = builder.backend(Arc::new(EchoBackend::new(pause)));
    }
    let gateway = builder
        .log(log.reader())
        .serve::<HazardsContract>(Handlers::default().into_rpc())
        .start()
        .await
        .expect("the gateway starts");
    ready(gateway.local_addresses()[0].port(), log.path());
    tokio::select! {
        _ = terminated.recv() => gateway.shutdown("gateway stopping").await,
        () = parent_gone() => {}
    }
    log.flush();
}

#[expect(clippy::print_stdout, reason = "the test reads them")]
fn ready(port: u16, log: &std::path::Path) {
    println!("{port} {}", log.display());
}

async fn parent_gone() {
    let mut end = String::new();
    let _ = tokio::task::spawn_blocking(move || std::io::stdin().read_line(&mut end)).await;
}
