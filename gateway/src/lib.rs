#![doc = include_str!("../README.md")]

mod auth;
pub mod backend;
mod caller;
pub mod chat;
pub mod config;
pub mod connection;
mod context;
#[doc(hidden)]
pub mod decoders;
pub mod dev;
mod devices;
pub mod discovery;
mod dispatcher;
mod document;
pub mod events;
mod host;
pub mod identity;
pub mod lifecycle;
mod listeners;
mod live;
mod lockout;
pub mod logs;
mod methods;
mod presence;
pub mod reload;
pub mod runs;
pub mod sessions;
pub mod settings;
pub mod state;
mod store;
pub mod tls;
pub mod transcripts;
pub mod trust;
mod usage;
mod wire;

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use jsonrpsee::Methods;
use openclaw_schema::{
    contract::Contract,
    document::Api,
    events::{EventName, ShutdownEvent},
};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout, timeout_at},
};

pub use dispatcher::SealError;
pub use listeners::Listeners;
pub use live::Reloaded;

use crate::{
    auth::CurrentAuth,
    backend::{Backend, router::Router},
    config::ConfigFile,
    context::{Context, Late, Parts},
    devices::Devices,
    dispatcher::Dispatcher,
    document::ContractDocument,
    events::EventBus,
    identity::GatewayIdentity,
    lifecycle::{Ending, Lifecycle},
    live::{Announcer, Live},
    lockout::Lockout,
    logs::LogReader,
    reload::Reloader,
    runs::{RunLimits, Runs},
    sessions::manage::Sessions,
    settings::Settings,
    state::StateError,
    store::Store,
    tls::{Fingerprints, Tls, TlsError},
    usage::UsageLedger,
    wire::{Shared, guard::Guard},
};

/// Time between two words of the echo back end: long enough to see that they stream.
const ECHO_PAUSE: Duration = Duration::from_millis(5);
/// Time between two looks at the files of the TLS certificate.
const CERTIFICATE_INTERVAL: Duration = Duration::from_secs(3600);

/// How long connections have to close once everything else is done. They bound their own close; this bounds what goes
/// wrong there.
const CLOSING: Duration = Duration::from_secs(3);
/// How long a restart waits for connections to close. Those that take longer do so beside the next gateway.
const CLOSING_AT_RESTART: Duration = Duration::from_millis(100);
/// What clients are told a restart takes, once work in flight is finished: a few milliseconds, and room for a host
/// that is busy.
const RESTART_EXPECTED: Duration = Duration::from_millis(500);

/// A gateway that serves. Dropped without [`Gateway::shutdown`], it stops at once.
pub struct Gateway {
    shared: Arc<Shared>,
    context: Arc<Context>,
    listeners: Listeners,
    addresses: Vec<SocketAddr>,
    /// Those that accept connections.
    accepting: Vec<JoinHandle<()>>,
    tasks: Vec<JoinHandle<()>>,
    live: Arc<Live>,
}

impl Gateway {
    /// Begins with the core contract.
    #[must_use]
    pub fn builder(settings: Settings) -> GatewayBuilder {
        GatewayBuilder {
            settings,
            api: Api::core(),
            methods: Vec::new(),
            backend: None,
            log: None,
            listeners: None,
            lifecycle: Lifecycle::new(),
            reloader: None,
        }
    }

    /// Takes over other settings while it serves, as far as that can be done: what callers must present, whom the
    /// gateway trusts, its bounds, how it is announced, and whether devices of its host are paired without asking.
    ///
    /// Calls in flight are answered. A connection whose caller was let in by a secret that is in force no more reads
    /// nothing from then on; it is closed with 4001 once its calls are answered, after two seconds at most. Devices
    /// with tokens of their own stay. Bounds hold for connections that come after. The rest of the settings waits for
    /// a gateway that is started with them.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub fn reload(&self, settings: &Settings) -> Reloaded {
        self.live.apply(settings)
    }

    /// What it runs with now: the settings of its start, and what [`Gateway::reload`] has taken over since.
    #[must_use]
    pub fn settings(&self) -> Settings {
        self.live.settings()
    }

    /// The addresses it listens on, all with the same port.
    #[must_use]
    pub fn local_addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where a proxy on this host brings what others ask, if the settings have one.
    #[must_use]
    pub fn proxy_address(&self) -> Option<SocketAddr> {
        self.listeners.proxy_address()
    }

    /// What callers can pin; absent when the port does not speak TLS.
    #[must_use]
    pub fn tls_fingerprints(&self) -> Option<Fingerprints> {
        self.shared.tls.as_ref().map(|tls| tls.fingerprints())
    }

    /// Differs at every start.
    #[must_use]
    pub fn instance_id(&self) -> &str {
        &self.context.instance_id
    }

    /// The sockets it listens on. They stay open for as long as a clone is kept, also over the end of the gateway:
    /// whoever connects meanwhile is served by the next gateway that gets them.
    #[must_use]
    pub fn listeners(&self) -> Listeners {
        self.listeners.clone()
    }

    /// Stops: refuses new calls, waits for runs and calls in flight within the drain timeout, tells everyone, and
    /// closes every connection with 1012.
    pub async fn shutdown(mut self, reason: &str) {
        self.end(Ending::Stop, reason).await;
        if timeout(CLOSING, self.shared.tasks.wait()).await.is_err() {
            tracing::warn!("connections did not close in time");
        }
        self.abort_tasks();
    }

    /// Stops in favour of a gateway that comes right after it: like [`Self::shutdown`], but everyone is told when to
    /// come back, and a peer that does not close in time holds nothing up.
    pub async fn shutdown_for_restart(mut self, reason: &str) {
        self.end(Ending::Restart, reason).await;
        if timeout(CLOSING_AT_RESTART, self.shared.tasks.wait()).await.is_ok() {
            return self.abort_tasks();
        }
        tokio::spawn(async move {
            let _ = timeout(CLOSING, self.shared.tasks.wait()).await;
            self.abort_tasks();
        });
    }

    /// Takes no more calls, lets those in flight end, and asks every connection to close.
    async fn end(&mut self, ending: Ending, reason: &str) {
        let drain_timeout = self.shared.limits.load().drain_timeout;
        // Nobody is to find a gateway that refuses calls.
        let withdrawn = self.live.announcer().end();
        let begun = Instant::now();
        self.context.lifecycle.end(ending);
        self.shared.dispatcher.refuse_calls();
        self.context.runs.drain(drain_timeout).await;
        let calls = self.shared.dispatcher.calls();
        if timeout_at(begun + drain_timeout, calls.ended()).await.is_err() {
            tracing::warn!(calls = calls.pending(), "calls that did not end in time are cut");
        }
        let event = ShutdownEvent {
            reason: reason.to_owned(),
            restart_expected_ms: (ending == Ending::Restart).then(|| context::millis(RESTART_EXPECTED)),
        };
        self.context.events.publish(EventName::Shutdown, &event, None);
        self.context.events.delivered(Duration::from_millis(200)).await;
        self.shared.stopping.cancel();
        self.shared.tasks.close();
        // From here on the sockets are held by nobody but those who keep a clone.
        self.listeners = Listeners::none();
        for task in self.accepting.drain(..) {
            let _ = task.await;
        }
        match (withdrawn, ending) {
            // The next gateway is announced once this one has said goodbye, and serves meanwhile.
            (Some(withdrawn), Ending::Restart) => {
                tokio::spawn(withdrawn);
            }
            (Some(withdrawn), _) => withdrawn.await,
            (None, _) => {}
        }
    }

    fn abort_tasks(&mut self) {
        for task in self.accepting.drain(..).chain(self.tasks.drain(..)) {
            task.abort();
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.shared.stopping.cancel();
        self.shared.gone.cancel();
        self.abort_tasks();
    }
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateway").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// Puts a gateway together.
pub struct GatewayBuilder {
    settings: Settings,
    api: Api,
    methods: Vec<Methods>,
    backend: Option<Arc<dyn Backend>>,
    log: Option<LogReader>,
    listeners: Option<Listeners>,
    lifecycle: Lifecycle,
    reloader: Option<Reloader>,
}

impl GatewayBuilder {
    /// Adds the methods of a `#[contract]` trait of your own: its records, and the module that jsonrpsee made of your
    /// implementation (`MyServer::into_rpc`). They are served, documented and validated like the core ones.
    #[must_use]
    pub fn serve<C: Contract>(mut self, module: impl Into<Methods>) -> Self {
        self.api = self.api.with::<C>();
        self.methods.push(module.into());
        self
    }

    /// Answers runs with this back end instead of the one that the settings ask for.
    #[must_use]
    pub fn backend(mut self, backend: Arc<dyn Backend>) -> Self {
        self.backend = Some(backend);
        self
    }

    /// Serves this log, for example that of `LogHandle::reader`, which is told of new lines at once. Without it, the
    /// log file of the settings is read.
    #[must_use]
    pub fn log(mut self, log: LogReader) -> Self {
        self.log = Some(log);
        self
    }

    /// Listens on these sockets, whatever addresses the settings name: those of a gateway before it.
    #[must_use]
    pub fn listeners(mut self, listeners: Listeners) -> Self {
        self.listeners = Some(listeners);
        self
    }

    /// Reports to this lifecycle, and asks it for restarts. Without it, callers cannot restart the gateway.
    #[must_use]
    pub fn lifecycle(mut self, lifecycle: Lifecycle) -> Self {
        self.lifecycle = lifecycle;
        self
    }

    /// Lets callers change the configuration file with `config.set`, `config.patch` and `config.apply`, checked and
    /// taken over by this. Without it these methods write the file, and nothing of it is taken over.
    #[must_use]
    pub fn reloader(mut self, reloader: Reloader) -> Self {
        self.reloader = Some(reloader);
        self
    }

    /// Binds the port and serves.
    ///
    /// # Errors
    ///
    /// When an address cannot be bound, the identity cannot be read, or declared and served methods do not match.
    pub async fn start(self) -> Result<Gateway, StartError> {
        let Self { settings, api, methods: extra, backend, log, listeners, lifecycle, reloader } = self;
        let in_force = settings.clone();
        let limits = Arc::new(ArcSwap::from_pointee(settings.limits));
        let begun = Instant::now();
        let listeners = match listeners {
            Some(listeners) => listeners,
            None => Listeners::bind(&settings.listen).await?,
        };
        let listeners = listeners.with_proxy(settings.proxy.is_some()).await?;
        let addresses = listeners.addresses();
        let bound = Instant::now();

        let hosts: Vec<_> = addresses.iter().map(SocketAddr::ip).collect();
        let tls = settings.tls.map(|tls| Tls::load(tls, &hosts)).transpose()?.map(Arc::new);
        let identity = GatewayIdentity::load_or_create(&settings.state.identity_file())?;
        let events = EventBus::new();
        let backend = backend.unwrap_or_else(|| Arc::new(Router::new(settings.models, ECHO_PAUSE)));
        let store = Store::new(settings.state.database_file());
        let agents = settings.agents.clone();
        let runs = Runs::new(backend, events.clone(), agents, store.clone(), RunLimits::default());
        let sessions = Sessions::new(store.clone(), runs.clone(), events.clone());
        let usage = UsageLedger::new(store.clone());
        let config = ConfigFile::new(settings.config_file, &settings.auth).map_err(StartError::Random)?;
        let logs = log.unwrap_or_else(|| LogReader::new(settings.log_file));
        let auth = CurrentAuth::new(&settings.auth);
        let lockout = limits.load().lockout;
        let devices = Devices::new(
            store,
            auth.clone(),
            Arc::new(Lockout::new(lockout)),
            events.clone(),
            settings.auto_approve_local,
        );
        let parts = Parts {
            state: settings.state,
            identity,
            agents: settings.agents,
            runs: runs.clone(),
            sessions,
            usage,
            config,
            document: ContractDocument::new(api.clone()),
            logs,
            devices,
            events,
            lifecycle: lifecycle.clone(),
            reloader: reloader.clone(),
        };
        let context = Arc::new(Context::new(parts, Arc::clone(&limits)));
        let proxy_url = settings.proxy.map(|proxy| proxy.url);
        let guard = Guard::new(&context.hostname, proxy_url.as_deref(), settings.trust);

        let opened = Instant::now();
        let mut methods = methods::core(&context).map_err(|error| StartError::Register(error.to_string()))?;
        for module in extra {
            methods.merge(module).map_err(|error| StartError::Register(error.to_string()))?;
        }
        let dispatcher = Dispatcher::seal(&methods, &api, &limits, &lifecycle)?;
        let calls = Arc::clone(dispatcher.calls());
        let shared = Arc::new(Shared::new(dispatcher, auth, Arc::clone(&context), tls, guard));
        context.complete(Late {
            calls,
            unauthenticated: Arc::clone(&shared.unauthenticated),
            port: addresses[0].port(),
            addresses: addresses.clone(),
            tls: shared.tls.clone(),
            proxy_url,
        });

        lifecycle.end(Ending::None);
        let accepting = listeners
            .sockets()
            .map(|(listener, entrance)| tokio::spawn(wire::listen(listener, entrance, Arc::clone(&shared))))
            .collect();
        let (clock, tick_interval) = (Arc::clone(&context), limits.load().tick_interval);
        let mut tasks = vec![tokio::spawn(async move { clock.send_clock_events(tick_interval).await })];
        // After the port is bound and served: whoever asks for a run waits until this is done.
        tasks.push(tokio::spawn(async move {
            runs.recover().await;
            runs.sweep().await;
        }));
        if let Some(tls) = &shared.tls {
            tasks.push(tokio::spawn(keep_fresh(Arc::clone(tls))));
        }
        let announcer = Announcer::new(addresses.clone(), shared.tls.clone(), lifecycle.announcing());
        announcer.announce(in_force.discovery.clone());
        let live = Arc::new(Live::new(Arc::clone(&shared), announcer, in_force));
        if let Some(reloader) = &reloader {
            reloader.attach(&live);
        }
        let phases =
            [("bind", begun, bound), ("open state", bound, opened), ("contract", opened, Instant::now())];
        for (phase, from, to) in phases {
            tracing::debug!(phase, "took {:.2} ms", (to - from).as_secs_f64() * 1000.0);
        }
        Ok(Gateway { shared, context, listeners, addresses, accepting, tasks, live })
    }
}

impl fmt::Debug for GatewayBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayBuilder").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// Looks after the TLS certificate.
async fn keep_fresh(tls: Arc<Tls>) {
    loop {
        tokio::time::sleep(CERTIFICATE_INTERVAL).await;
        let tls = Arc::clone(&tls);
        // It ends only with the runtime.
        let _ = tokio::task::spawn_blocking(move || tls.refresh()).await;
    }
}

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An address could not be bound; `AddrInUse` when something else listens there.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The settings name no address.
    #[error("there is no address to listen on")]
    NoAddress,
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The system gives no random numbers.
    #[error("cannot make a key for the hashes of the configuration")]
    Random(#[source] io::Error),
    /// Declared and served methods do not match: a fault of the embedding program.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A method has two handlers: a fault of the embedding program.
    #[error("cannot register the methods: {0}")]
    Register(String),
}
