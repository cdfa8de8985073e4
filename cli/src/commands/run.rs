//! `gateway run`: a gateway in the foreground, from its start over its restarts to its stop.

use std::{
    io,
    net::SocketAddr,
    panic,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use openclaw_gateway::{
    Gateway, Listeners, StartError,
    config::{
        self, AuthMode, BindMode, Config, ConfigError, Env, Locations, Note, Resolved, ServeOptions,
        TailscaleMode, TailscaleSettings, resolve_settings,
    },
    dev::{ResetError, ensure_dev, reset_dev},
    lifecycle::Lifecycle,
    logs::{
        self, ConsoleStyle, LogHandle, LogRules, LogSettings, LogSetupError, Rotation,
        traffic::{self, TrafficLog},
    },
    reload::{Cause, ProcessSettings, Refused, Reloader},
    settings::{Auth, Settings},
    state::{RuntimeRecord, StateError, StateLock},
    tls::Fingerprints,
};
use openclaw_schema::types::TimestampMs;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use secrecy::SecretString;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    args::{AuthArg, BindArg, GlobalArgs, RunArgs, TailscaleArg, WsLogArg},
    error::{CliError, Failure, Fault, Result},
    exit::Exit,
    notify::{self, Supervisor},
    output::Printer,
    settings::secret_file,
    tailscale::{self, Exposure, Wish as TailscaleWish},
    takeover,
};

/// The subsystem that the log names.
const TARGET: &str = "gateway";

/// Runs a gateway until it is told to stop.
pub(crate) fn run(args: &RunArgs, global: &GlobalArgs, printer: &Printer) -> Result<Exit> {
    notify::outcome(args.supervised_by.is_none(), run_to_end(args, global, printer), printer)
}

fn run_to_end(args: &RunArgs, global: &GlobalArgs, printer: &Printer) -> Result<Exit> {
    // clap cannot say this: `--dev` may stand anywhere.
    if args.reset && !global.dev {
        return Err(CliError::usage("--reset needs --dev: only the profile `dev` is reset").into());
    }
    let mut phases = Phases::begin();
    keep_out_of_dumps();
    let env = Env::of_process();
    let locations =
        Locations::resolve(&global.location_flags(), &env).map_err(|error| misconfigured(&error))?;
    let source = Arc::new(Source { args: args.clone(), global: global.clone(), env, locations });
    let locations = &source.locations;
    // A wrong flag is told before anything is moved or made.
    source.options()?;
    if args.reset && !reset(args, locations, printer)? {
        printer.note("nothing was changed");
        return Ok(Exit::Interrupted);
    }
    if global.dev {
        let report = ensure_dev(locations).map_err(|error| no_state(&error))?;
        for path in &report.created {
            printer.note(&format!("made: {}", path.display()));
        }
    }
    let resolved = source.resolve().map_err(Failure::Error)?;
    phases.end("configuration");
    if args.force {
        // A gateway that serves is not stopped for one that tailscale would not let start.
        if let Some(wanted) = resolved.tailscale {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(no_threads)?;
            runtime.block_on(tailscale::find_name(wanted.mode)).map_err(Failure::Error)?;
        }
        takeover::make_room(&resolved.settings, printer)?;
        phases.end("make room");
    }
    // Held until the process ends: there is one gateway per state directory.
    let lock = StateLock::acquire(locations.state()).map_err(|error| no_state(&error))?;
    phases.end("state lock");
    let log = log(&resolved, args.supervised_by.is_none(), printer)?;
    traffic::show(match (args.compact, args.ws_log) {
        (true, _) | (_, WsLogArg::Compact) => TrafficLog::Compact,
        (_, WsLogArg::Auto) => TrafficLog::Auto,
        (_, WsLogArg::Full) => TrafficLog::Full,
    });
    phases.end("log");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // One worker could be held up by one handler that computes.
        .worker_threads(thread::available_parallelism().map_or(2, |cores| cores.get().max(2)))
        .enable_all()
        .build()
        .map_err(no_threads)?;
    phases.end("threads");
    let exit = runtime.block_on(serve(&source, resolved, &log, phases));
    runtime.shutdown_background();
    log.flush();
    drop(lock);
    exit
}

/// Lets the system write no image of the process when it dies: its memory holds secrets. Whoever needs one raises the
/// limit for the process (`prlimit --core`).
fn keep_out_of_dumps() {
    let limit = getrlimit(Resource::Core);
    // Only more than is allowed is refused.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), ..limit });
}

fn no_threads(error: io::Error) -> CliError {
    transient("the system gives no threads to run on").cause(error)
}

/// Moves the profile `dev` out of the way, unless a person says no. Says whether it did.
fn reset(args: &RunArgs, locations: &Locations, printer: &Printer) -> Result<bool> {
    let state = locations.state().root().display();
    let question = format!("Move configuration, credentials, sessions and workspace in {state} to a backup?");
    // A script has nobody to ask, and named the flag.
    if !args.yes && printer.ask(&question) == Some(false) {
        return Ok(false);
    }
    let report = reset_dev(locations).map_err(|error| not_reset(&error))?;
    for path in &report.moved {
        printer.note(&format!("moved away: {}", locations.state().root().join(path).display()));
    }
    if let Some(backup) = &report.backup {
        printer.note(&format!("the backup is {}", backup.display()));
    }
    Ok(true)
}

/// Where the settings of a gateway come from, at its start and at each of its restarts.
struct Source {
    args: RunArgs,
    global: GlobalArgs,
    env: Env,
    locations: Locations,
}

impl Source {
    fn options(&self) -> Result<ServeOptions> {
        let (args, global) = (&self.args, &self.global);
        Ok(ServeOptions {
            port: args.port,
            bind: args.access.bind.map(bind_mode),
            auth: args.access.auth.map(auth_mode),
            token: secret(args.access.token.as_deref(), args.access.token_file.as_deref())?,
            password: secret(args.access.password.as_deref(), args.access.password_file.as_deref())?,
            tailscale: args.tailscale.map(tailscale_mode),
            tailscale_reset_on_exit: args.tailscale_reset_on_exit,
            allow_unconfigured: args.allow_unconfigured,
            log_level: global.log_level,
            verbose: args.verbose,
            raw_stream: args.raw_stream,
            raw_stream_path: args.raw_stream_path.clone(),
            cli_backend_logs: args.claude_cli_logs,
        })
    }

    /// Reads the configuration as it is now.
    fn resolve(&self) -> std::result::Result<Resolved, Box<CliError>> {
        let config = Config::load(self.locations.config_file()).map_err(|error| misconfigured(&error))?;
        self.resolve_config(&config)
    }

    /// What follows from a configuration.
    fn resolve_config(&self, config: &Config) -> std::result::Result<Resolved, Box<CliError>> {
        let options = self.options().map_err(|failure| match failure {
            Failure::Error(error) => error,
            Failure::Output(error) => Box::new(transient("the output cannot be written").cause(error)),
        })?;
        let env = self.env.with_state_file(self.locations.state()).map_err(|error| misconfigured(&error))?;
        resolve_settings(&self.locations, config, &env, &options)
            .map_err(|error| Box::new(misconfigured(&error)))
    }

    /// Keeps the gateways of this process in step with the configuration file.
    fn reloader(self: &Arc<Self>, resolved: &Resolved, log: &LogHandle) -> Reloader {
        let source = Arc::clone(self);
        let resolve = move |config: &Config| {
            let refused = |error: Box<CliError>| Refused { message: sentence(&error), key: None };
            source.resolve_config(config).map_err(refused)
        };
        let beside = vec![self.locations.state().env_file()];
        Reloader::new(self.locations.config_file(), beside, resolved, Some(log.clone()), resolve)
    }
}

/// A secret of the command line, from a flag or from the file that a flag names.
pub(crate) fn secret(text: Option<&str>, file: Option<&Path>) -> Result<Option<SecretString>> {
    match file {
        Some(path) => secret_file(path).map(Some),
        None => Ok(text.map(SecretString::from)),
    }
}

pub(crate) fn bind_mode(bind: BindArg) -> BindMode {
    match bind {
        BindArg::Loopback => BindMode::Loopback,
        BindArg::Lan => BindMode::Lan,
        BindArg::Tailnet => BindMode::Tailnet,
        BindArg::Auto => BindMode::Auto,
        BindArg::Custom => BindMode::Custom,
    }
}

fn tailscale_mode(tailscale: TailscaleArg) -> TailscaleMode {
    match tailscale {
        TailscaleArg::Off => TailscaleMode::Off,
        TailscaleArg::Serve => TailscaleMode::Serve,
        TailscaleArg::Funnel => TailscaleMode::Funnel,
    }
}

pub(crate) fn auth_mode(auth: AuthArg) -> AuthMode {
    match auth {
        AuthArg::None => AuthMode::None,
        AuthArg::Token => AuthMode::Token,
        AuthArg::Password => AuthMode::Password,
    }
}

/// How long each step of the start took, for the log, which is one of the steps.
struct Phases {
    begun: Instant,
    last: Instant,
    done: Vec<(&'static str, Duration)>,
}

impl Phases {
    fn begin() -> Self {
        let now = Instant::now();
        Self { begun: now, last: now, done: Vec::new() }
    }

    fn end(&mut self, phase: &'static str) {
        let now = Instant::now();
        self.done.push((phase, now - self.last));
        self.last = now;
    }

    /// Each step with its milliseconds.
    fn told(&self) -> String {
        let told = |(phase, took): &(_, Duration)| format!("{phase} {:.1}", took.as_secs_f64() * 1000.0);
        self.done.iter().map(told).collect::<Vec<_>>().join(", ")
    }
}

fn log(resolved: &Resolved, has_console: bool, printer: &Printer) -> Result<LogHandle> {
    let watched = printer.colours_stderr();
    let settings = LogSettings {
        file: resolved.settings.log_file.clone(),
        rules: rules(resolved),
        console: has_console,
        style: match resolved.log.style {
            Some(config::ConsoleStyle::Pretty) => ConsoleStyle::Pretty,
            Some(config::ConsoleStyle::Compact) => ConsoleStyle::Compact,
            Some(config::ConsoleStyle::Json) => ConsoleStyle::Json,
            None if io::IsTerminal::is_terminal(&io::stderr()) => ConsoleStyle::Pretty,
            None => ConsoleStyle::Compact,
        },
        colour: watched,
        journal: notify::writes_to_journal(),
        rotation: Rotation { max_bytes: resolved.log.max_file_bytes, ..Rotation::default() },
    };
    logs::init(&settings).map_err(|error| {
        let told = match &error {
            LogSetupError::Thread(_) | LogSetupError::AlreadySetUp(_) => transient(error.to_string()),
        };
        told.with_sources(&error).into()
    })
}

fn rules(resolved: &Resolved) -> LogRules {
    let log = &resolved.log;
    LogRules { file: log.file.clone(), console: log.console.clone(), redactor: log.redactor.clone() }
}

/// What is asked of a running gateway.
enum Wish {
    /// Stop, because of this signal.
    Stop(&'static str),
    /// Read again what needs no restart.
    Reload,
    /// Restart, because of this signal.
    Signalled(&'static str),
    /// Restart, because a caller may ask for it and gave this reason.
    Requested(String),
}

/// The signals that a gateway answers to.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    user1: Signal,
    user2: Signal,
    /// Whether stderr was a terminal at the start.
    has_terminal: bool,
}

impl Signals {
    fn new() -> Result<Self> {
        let receive = |kind| signal(kind).map_err(|error| Failure::from(no_signals(error)));
        Ok(Self {
            interrupt: receive(SignalKind::interrupt())?,
            terminate: receive(SignalKind::terminate())?,
            hangup: receive(SignalKind::hangup())?,
            user1: receive(SignalKind::user_defined1())?,
            user2: receive(SignalKind::user_defined2())?,
            has_terminal: is_terminal(),
        })
    }

    async fn next(&mut self, lifecycle: &Lifecycle) -> Wish {
        tokio::select! {
            name = stop(&mut self.interrupt, &mut self.terminate) => Wish::Stop(name),
            // The terminal of a gateway was closed: nobody is left to stop it.
            _ = self.hangup.recv() => if self.has_terminal && !is_terminal() {
                Wish::Stop("SIGHUP")
            } else {
                Wish::Reload
            },
            _ = self.user1.recv() => Wish::Signalled("SIGUSR1"),
            _ = self.user2.recv() => Wish::Signalled("SIGUSR2"),
            reason = lifecycle.restart_due() => Wish::Requested(reason),
        }
    }

    /// Waits for a signal that stops the gateway.
    async fn stop(&mut self) -> &'static str {
        stop(&mut self.interrupt, &mut self.terminate).await
    }
}

async fn stop(interrupt: &mut Signal, terminate: &mut Signal) -> &'static str {
    tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    }
}

fn is_terminal() -> bool {
    io::IsTerminal::is_terminal(&io::stderr())
}

/// Serves until a signal asks to stop.
async fn serve(
    source: &Arc<Source>,
    resolved: Resolved,
    log: &LogHandle,
    mut phases: Phases,
) -> Result<Exit> {
    let mut signals = Signals::new()?;
    let lifecycle = Lifecycle::new();
    lifecycle.offer_restarts();
    let supervisor = Supervisor::of_process();
    let reloader = source.reloader(&resolved, log);
    let start = Start { lifecycle: &lifecycle, log, supervisor: &supervisor, reloader: &reloader };
    let mut plan = Plan::of(resolved);
    let state = plan.settings.state.clone();
    // A panic in there is a panic here.
    let undone = tokio::task::spawn_blocking(move || tailscale::undo_leftovers(&state)).await;
    undone.unwrap_or_else(|error| panic::resume_unwind(error.into_panic()));
    tokio::select! {
        found = plan.find_name(None) => found.map_err(Failure::Error)?,
        name = signals.stop() => return Ok(not_begun(name)),
    }
    let running = start.gateway(plan, None).await;
    let mut running = running.map_err(|error| not_started(&error))?;
    if let Some(wish) = running.wish() {
        let opened = tokio::select! {
            opened = Exposure::open(wish, &running.plan.settings.state) => opened,
            name = signals.stop() => return Ok(running.stop(name, &mut signals).await),
        };
        match opened {
            Ok(exposure) => running.exposure = Some(exposure),
            Err(error) => {
                running.stop_quietly().await;
                return Err(Failure::Error(error));
            }
        }
    }
    phases.end("gateway");
    tracing::info!(target: TARGET, "the start in milliseconds: {}", phases.told());
    running.announce(phases.begun.elapsed());
    supervisor.ready(&running.status());
    tokio::select! {
        exit = attend(running, source, &start, &mut signals) => exit,
        // Over restarts and the stop too: a drain may take longer than the watchdog waits.
        () = supervisor.stay_alive() => unreachable!("it goes on for as long as it is polled"),
        () = reloader.clone().watch() => unreachable!("it goes on for as long as it is polled"),
    }
}

/// A signal came before the gateway served anybody.
fn not_begun(name: &str) -> Exit {
    tracing::info!(target: TARGET, "received {name} before the gateway served; stopped");
    Exit::Ok
}

/// Does what a gateway is asked for, until it ends.
async fn attend(
    mut running: Running,
    source: &Source,
    start: &Start<'_>,
    signals: &mut Signals,
) -> Result<Exit> {
    let supervisor = start.supervisor;
    loop {
        let (reason, told) = match signals.next(start.lifecycle).await {
            Wish::Stop(name) => {
                supervisor.stopping();
                return Ok(running.stop(name, signals).await);
            }
            Wish::Reload => {
                supervisor.reloading("reading the configuration again");
                let reloader = start.reloader.clone();
                // It has told the log.
                let _ = tokio::task::spawn_blocking(move || reloader.reload(Cause::Asked)).await;
                supervisor.ready(&running.status());
                continue;
            }
            Wish::Signalled(name) if !start.reloader.allows_restart() => {
                tracing::warn!(
                    target: TARGET,
                    "{name} is ignored: `commands.restart` is false in {}", source.locations.config_file().display()
                );
                continue;
            }
            Wish::Signalled(name) => (name.to_owned(), format!("received {name}; restarting")),
            Wish::Requested(reason) => {
                let told = format!("a caller asked for a restart ({reason}); restarting");
                (reason, told)
            }
        };
        tracing::info!(target: TARGET, "{told}");
        supervisor.reloading("restarting");
        running = match restart(running, source, start, signals, &reason).await {
            Next::Running(running) => *running,
            Next::Ended(exit) => return exit,
        };
        supervisor.ready(&running.status());
    }
}

/// What a gateway is started with, again if need be.
#[derive(Clone)]
struct Plan {
    settings: Settings,
    /// Where the settings came from.
    notes: Vec<Note>,
    /// Told at the start.
    warnings: Vec<String>,
    /// How tailscale is to make it known, if it is.
    tailscale: Option<TailscaleSettings>,
}

impl Plan {
    fn of(resolved: Resolved) -> Self {
        let Resolved { settings, notes, warnings, tailscale, .. } = resolved;
        Self { settings, notes, warnings, tailscale }
    }

    /// Finds out by which name tailscale is to make the gateway known, if it is: from one that does, or by asking it.
    async fn find_name(&mut self, known: Option<&Exposure>) -> std::result::Result<(), Box<CliError>> {
        let known = known.map(Exposure::wish);
        self.settings.proxy = match (self.tailscale, known) {
            (None, _) => None,
            (Some(wanted), Some(known)) if wanted.mode == known.settings.mode => Some(known.proxy.clone()),
            (Some(wanted), _) => Some(tailscale::find_name(wanted.mode).await?),
        };
        Ok(())
    }
}

/// What every start in this process shares.
struct Start<'a> {
    lifecycle: &'a Lifecycle,
    log: &'a LogHandle,
    supervisor: &'a Supervisor,
    reloader: &'a Reloader,
}

impl Start<'_> {
    /// Starts a gateway, and leaves the record by which the command line finds it.
    async fn gateway(
        &self,
        plan: Plan,
        listeners: Option<Listeners>,
    ) -> std::result::Result<Running, StartError> {
        for note in &plan.notes {
            tracing::debug!(target: TARGET, value = note.value, source = %note.source, "{}", note.name);
        }
        for warning in &plan.warnings {
            tracing::warn!(target: TARGET, "{warning}");
        }
        let mut builder = Gateway::builder(plan.settings.clone())
            .log(self.log.reader())
            .lifecycle(self.lifecycle.clone())
            .reloader(self.reloader.clone());
        if let Some(listeners) = listeners {
            builder = builder.listeners(listeners);
        }
        let gateway = builder.start().await?;
        let addresses = gateway.local_addresses().to_vec();
        let record = RuntimeRecord {
            pid: std::process::id(),
            port: addresses.first().map_or(0, SocketAddr::port),
            addresses,
            instance_id: gateway.instance_id().to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            dialects: vec!["jsonrpc".to_owned(), "frames".to_owned()],
            started_at_ms: TimestampMs::now().0,
            tls_fingerprint: gateway.tls_fingerprints().map(|fingerprints| fingerprints.certificate),
            tailscale_url: plan.settings.proxy.as_ref().map(|proxy| proxy.url.clone()),
        };
        if let Err(error) = record.write(&plan.settings.state) {
            // The gateway serves all the same; only commands without `--port` may not find it.
            tracing::warn!(target: TARGET, %error, "the runtime record was not written");
        }
        Ok(Running { gateway, record, plan, exposure: None })
    }
}

/// A gateway that runs.
struct Running {
    gateway: Gateway,
    record: RuntimeRecord,
    plan: Plan,
    /// Present when tailscale makes it known.
    exposure: Option<Exposure>,
}

impl Running {
    /// What tailscale is to be asked for, if it is to be asked.
    fn wish(&self) -> Option<TailscaleWish> {
        let (settings, proxy) = self.plan.tailscale.zip(self.plan.settings.proxy.as_ref())?;
        Some(TailscaleWish::new(settings, proxy, self.gateway.proxy_address()?))
    }

    /// Lets tailscale make this gateway known as it did the one before it; where something has changed, anew.
    async fn take_over(&mut self, before: Option<Exposure>) {
        let wish = self.wish();
        match before {
            Some(before) if wish.as_ref() == Some(before.wish()) => self.exposure = Some(before),
            before => {
                if let Some(before) = before {
                    before.close().await;
                }
                self.exposure = wish.map(|wish| Exposure::insist(wish, &self.plan.settings.state));
            }
        }
    }

    /// What a service manager shows of it.
    fn status(&self) -> String {
        format!("listening on port {}", self.record.port)
    }

    /// Says where it listens, how callers authenticate, and which configuration it has: one line.
    fn announce(&self, took: Duration) {
        let fingerprints = self.gateway.tls_fingerprints();
        let scheme = if fingerprints.is_some() { "wss" } else { "ws" };
        let addresses: Vec<String> =
            self.record.addresses.iter().map(|address| format!("{scheme}://{address}")).collect();
        let note = |name: &str| self.plan.notes.iter().find(|note| note.name == name);
        let auth = match &self.plan.settings.auth {
            Auth::None => "no authentication".to_owned(),
            Auth::Token(_) => secret_note("token", note("token")),
            Auth::Password(_) => secret_note("password", note("password")),
        };
        let config = &self.plan.settings.config_file;
        let config = if config.exists() {
            format!("configuration {}", config.display())
        } else {
            format!("no configuration at {}", config.display())
        };
        tracing::info!(
            target: TARGET,
            "listening on {} ({}); {auth}; {config}; ready in {} ms",
            addresses.join(" and "),
            note("bind").map_or("bind", |note| note.value.as_str()),
            took.as_millis()
        );
        if let Some(Fingerprints { certificate, public_key }) = &fingerprints {
            tracing::info!(target: TARGET, certificate, public_key, "callers pin the TLS certificate by its SHA-256");
        }
    }

    /// Stops for good.
    async fn stop(self, name: &str, signals: &mut Signals) -> Exit {
        tracing::info!(target: TARGET, "received {name}; stopping, a second signal ends at once");
        let exit = tokio::select! {
            () = self.gateway.shutdown("gateway stopping") => Exit::Ok,
            _ = signals.stop() => Exit::Interrupted,
        };
        forget(&self.record, &self.plan.settings);
        // After those who came through it have been told.
        close(self.exposure).await;
        tracing::info!(target: TARGET, "stopped");
        exit
    }

    /// Stops a gateway that nobody was told of.
    async fn stop_quietly(self) {
        self.gateway.shutdown("gateway stopping").await;
        forget(&self.record, &self.plan.settings);
    }
}

/// Ends what tailscale does for a gateway that is gone.
async fn close(exposure: Option<Exposure>) {
    if let Some(exposure) = exposure {
        exposure.close().await;
    }
}

/// What came of a restart.
enum Next {
    /// A gateway runs: the new one, or the old one still.
    Running(Box<Running>),
    /// None does.
    Ended(Result<Exit>),
}

/// Ends one gateway and starts the next, with the configuration read again. The sockets stay open meanwhile. Whatever
/// can go wrong is tried first, while the old gateway serves.
async fn restart(
    running: Running,
    source: &Source,
    start: &Start<'_>,
    signals: &mut Signals,
    reason: &str,
) -> Next {
    let begun = Instant::now();
    let kept = |running: Running, problem: String| {
        tracing::error!(target: TARGET, "not restarted, the gateway goes on as it was: {problem}");
        start.lifecycle.restarted(reason, begun.elapsed(), Some(problem));
        Next::Running(Box::new(running))
    };
    let fresh = match source.resolve() {
        Ok(fresh) => fresh,
        Err(error) => return kept(running, sentence(&error)),
    };
    if let Some(tls) = &fresh.settings.tls
        && let Err(error) = tls.check(&fresh.settings.listen)
    {
        return kept(running, sentence(&not_started(&error.into())));
    }
    let process = ProcessSettings::of(&fresh);
    let mut plan = Plan::of(fresh);
    if let Err(error) = plan.find_name(running.exposure.as_ref()).await {
        return kept(running, sentence(&error));
    }
    let old = running.gateway.listeners();
    let wanted = plan.settings.listen.clone();
    let listeners = if old.stand_in_the_way_of(&wanted) {
        None
    } else {
        match old.rebind(&wanted).await {
            Ok(listeners) => Some(listeners),
            Err(error) => return kept(running, sentence(&not_started(&error))),
        }
    };
    let process_before = start.reloader.process();
    start.reloader.change_process(&process);
    let Running { gateway, record, plan: before, exposure } = running;
    // With what it has taken over since its start.
    let before = Plan { settings: gateway.settings(), ..before };
    if plan.settings.log_file != before.settings.log_file {
        tracing::warn!(target: TARGET, "`logging.file` changes when the process starts anew");
        plan.settings.log_file.clone_from(&before.settings.log_file);
    }
    let before = Plan { warnings: Vec::new(), ..before };

    if let Some(exit) = end(gateway, start.supervisor, signals).await {
        forget(&record, &before.settings);
        close(exposure).await;
        return Next::Ended(Ok(exit));
    }
    let mut problem = None;
    let started = match listeners {
        Some(listeners) => {
            drop(old);
            start.gateway(plan, Some(listeners.clone())).await.map_err(|error| (error, listeners))
        }
        None => {
            let addresses = old.addresses();
            // Only now nobody stands in the way.
            drop(old);
            match Listeners::bind(&wanted).await {
                Ok(listeners) => {
                    start.gateway(plan, Some(listeners.clone())).await.map_err(|error| (error, listeners))
                }
                Err(error) => match Listeners::bind(&addresses).await {
                    Ok(listeners) => Err((error, listeners)),
                    Err(error) => {
                        forget(&record, &before.settings);
                        close(exposure).await;
                        return Next::Ended(Err(not_started(&error).into()));
                    }
                },
            }
        }
    };
    let started = match started {
        Ok(started) => Ok(started),
        Err((error, listeners)) => {
            let told = sentence(&not_started(&error));
            tracing::error!(target: TARGET, "restarted with the settings it had: {told}");
            problem = Some(told);
            start.reloader.change_process(&process_before);
            start.gateway(before.clone(), Some(listeners)).await
        }
    };
    match started {
        Ok(mut started) => {
            start.lifecycle.restarted(reason, begun.elapsed(), problem);
            started.announce(begun.elapsed());
            started.take_over(exposure).await;
            Next::Running(Box::new(started))
        }
        Err(error) => {
            forget(&record, &before.settings);
            close(exposure).await;
            Next::Ended(Err(not_started(&error).into()))
        }
    }
}

/// Ends a gateway in favour of the next. Says how the process exits if it was told to stop meanwhile.
async fn end(gateway: Gateway, supervisor: &Supervisor, signals: &mut Signals) -> Option<Exit> {
    let mut ending = std::pin::pin!(gateway.shutdown_for_restart("gateway restarting"));
    let mut asked_to_stop = false;
    loop {
        tokio::select! {
            () = &mut ending => break,
            name = signals.stop() => {
                if std::mem::replace(&mut asked_to_stop, true) {
                    return Some(Exit::Interrupted);
                }
                supervisor.stopping();
                tracing::info!(target: TARGET, "received {name}; stopping instead, a second signal ends at once");
            }
        }
    }
    asked_to_stop.then(|| {
        tracing::info!(target: TARGET, "stopped");
        Exit::Ok
    })
}

/// Removes the record of a gateway that is gone.
fn forget(record: &RuntimeRecord, settings: &Settings) {
    if let Err(error) = record.remove(&settings.state) {
        tracing::warn!(target: TARGET, %error, "the runtime record was not removed");
    }
}

fn secret_note(kind: &str, note: Option<&Note>) -> String {
    match note.map(|note| &note.source) {
        Some(source @ config::Source::Generated { .. }) => format!("{kind} {source}"),
        Some(source) => format!("{kind} from {source}"),
        None => kind.to_owned(),
    }
}

/// An error in one line, for the log.
fn sentence(error: &CliError) -> String {
    let mut text = error.message.clone();
    for part in error.causes.iter().chain(&error.hints) {
        text.push_str("; ");
        text.push_str(part);
    }
    text
}

pub(crate) fn misconfigured(error: &ConfigError) -> CliError {
    match error {
        ConfigError::State(state) => no_state(state),
        _ => CliError::new(Fault::Cli, "CONFIG_INVALID", Exit::Configuration, error.to_string())
            .with_sources_and_hint(error),
    }
}

fn no_state(error: &StateError) -> CliError {
    let exit = match error {
        StateError::Io { source, .. } if may_pass(source) => Exit::Transient,
        StateError::Randomness(_) => Exit::Transient,
        _ => Exit::Configuration,
    };
    let told = CliError::new(Fault::Cli, "STATE", exit, error.to_string()).with_sources(error);
    match error {
        StateError::Locked { .. } => {
            told.hint("stop it, pass `--force`, or use another state directory with `--profile`")
        }
        _ => told,
    }
}

fn not_started(error: &StartError) -> CliError {
    match error {
        StartError::State(state) => no_state(state),
        StartError::Bind { address, source } => {
            let exit = match source.kind() {
                // Waiting does not help: whoever has the port keeps it, and rights and addresses are settings.
                io::ErrorKind::AddrInUse
                | io::ErrorKind::AddrNotAvailable
                | io::ErrorKind::PermissionDenied => Exit::Configuration,
                _ => Exit::Transient,
            };
            let mut told = CliError::new(Fault::Cli, "LISTEN", exit, error.to_string()).with_sources(error);
            match source.kind() {
                io::ErrorKind::AddrInUse => {
                    for occupant in takeover::who_listens(&[*address]) {
                        told = told.cause(occupant);
                    }
                    told.hint("stop what listens there, pass `--force`, or name another port with `--port`")
                }
                io::ErrorKind::PermissionDenied => {
                    told.hint("ports below 1024 are for the administrator: name another with `--port`")
                }
                io::ErrorKind::AddrNotAvailable => told.hint(
                    "this machine does not have the address: change `gateway.customBindHost` or `--bind`",
                ),
                _ => told,
            }
        }
        StartError::Tls(tls) => {
            CliError::new(Fault::Cli, "CONFIG_INVALID", Exit::Configuration, tls.to_string())
                .with_sources(tls)
        }
        // The rest are faults of a program that adds methods of its own, and this one adds none.
        _ => transient(error.to_string()).with_sources(error),
    }
}

fn not_reset(error: &ResetError) -> CliError {
    CliError::new(Fault::Cli, "STATE", Exit::Configuration, error.to_string()).with_sources(error)
}

/// Whether an error of the file system may be gone later, without anybody changing a setting.
fn may_pass(error: &io::Error) -> bool {
    use io::ErrorKind;
    !matches!(
        error.kind(),
        ErrorKind::PermissionDenied
            | ErrorKind::NotFound
            | ErrorKind::NotADirectory
            | ErrorKind::IsADirectory
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::InvalidInput
    )
}

fn transient(message: impl Into<String>) -> CliError {
    CliError::new(Fault::Cli, "UNAVAILABLE", Exit::Transient, message)
}

fn no_signals(error: io::Error) -> CliError {
    transient("the system delivers no signals").cause(error)
}
