//! `gateway run`: a gateway in the foreground, from its start to its stop.

use std::{io, thread};

use openclaw_gateway::{
    Gateway, StartError,
    config::{
        AuthMode, BindMode, Config, ConfigError, Env, Locations, LogLevel, Resolved, ServeOptions,
        resolve_settings,
    },
    dev::{ResetError, ensure_dev, reset_dev},
    logs::{self, LogHandle, LogSettings, LogSetupError, Rotation},
    state::{RuntimeRecord, StateError, StateLock},
    tls::Fingerprints,
};
use openclaw_schema::types::TimestampMs;
use secrecy::SecretString;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    args::{AuthArg, BindArg, GlobalArgs, RunArgs},
    error::{CliError, Fault, Result},
    exit::Exit,
    output::Printer,
    settings::secret_file,
};

/// The subsystem that the log names.
const TARGET: &str = "gateway";

/// Runs a gateway until it is told to stop.
pub(crate) fn run(args: &RunArgs, global: &GlobalArgs, printer: &Printer) -> Result<Exit> {
    // clap cannot say this: `--dev` may stand anywhere.
    if args.reset && !global.dev {
        return Err(CliError::usage("--reset needs --dev: only the profile `dev` is reset").into());
    }
    let options = options(args, global)?;
    let env = Env::of_process();
    let locations =
        Locations::resolve(&global.location_flags(), &env).map_err(|error| misconfigured(&error))?;
    if args.reset {
        let report = reset_dev(&locations).map_err(|error| not_reset(&error))?;
        for path in &report.moved {
            printer.note(&format!("moved away: {}", locations.state().root().join(path).display()));
        }
        if let Some(backup) = &report.backup {
            printer.note(&format!("the backup is {}", backup.display()));
        }
    }
    if global.dev {
        let report = ensure_dev(&locations).map_err(|error| no_state(&error))?;
        for path in &report.created {
            printer.note(&format!("made: {}", path.display()));
        }
    }
    let config = Config::load(locations.config_file()).map_err(|error| misconfigured(&error))?;
    let resolved =
        resolve_settings(&locations, &config, &env, &options).map_err(|error| misconfigured(&error))?;
    // Held until the process ends: there is one gateway per state directory.
    let lock = StateLock::acquire(locations.state()).map_err(|error| no_state(&error))?;
    let log = log(&resolved, printer)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // One worker could be held up by one handler that computes.
        .worker_threads(thread::available_parallelism().map_or(2, |cores| cores.get().max(2)))
        .enable_all()
        .build()
        .map_err(|error| transient("the system gives no threads to run on").cause(error))?;
    let exit = runtime.block_on(serve(resolved, &log));
    runtime.shutdown_background();
    log.flush();
    drop(lock);
    exit
}

fn options(args: &RunArgs, global: &GlobalArgs) -> Result<ServeOptions> {
    let secret = |text: &Option<String>, file: &Option<std::path::PathBuf>| match file {
        Some(path) => secret_file(path).map(Some),
        None => Ok(text.clone().map(SecretString::from)),
    };
    Ok(ServeOptions {
        port: args.port,
        bind: args.bind.map(|bind| match bind {
            BindArg::Loopback => BindMode::Loopback,
            BindArg::Lan => BindMode::Lan,
            BindArg::Tailnet => BindMode::Tailnet,
            BindArg::Auto => BindMode::Auto,
            BindArg::Custom => BindMode::Custom,
        }),
        auth: args.auth.map(|auth| match auth {
            AuthArg::None => AuthMode::None,
            AuthArg::Token => AuthMode::Token,
            AuthArg::Password => AuthMode::Password,
        }),
        token: secret(&args.token, &args.token_file)?,
        password: secret(&args.password, &args.password_file)?,
        allow_unconfigured: args.allow_unconfigured,
        log_level: global.log_level,
        verbose: args.verbose,
        raw_stream: args.raw_stream,
        raw_stream_path: args.raw_stream_path.clone(),
        cli_backend_logs: args.claude_cli_logs,
    })
}

fn log(resolved: &Resolved, printer: &Printer) -> Result<LogHandle> {
    // One level holds for the file and the console: the one that says more.
    let verbosity = |level: LogLevel| LogLevel::NAMES.iter().position(|name| *name == level.name());
    let level = [resolved.log.file_level, resolved.log.console_level]
        .into_iter()
        .max_by_key(|level| verbosity(*level));
    let settings = LogSettings {
        file: resolved.settings.log_file.clone(),
        level: level.unwrap_or(LogLevel::Info).name().to_owned(),
        console: resolved.log.console_level != LogLevel::Silent,
        colour: printer.colours_stderr(),
        rotation: Rotation { max_bytes: resolved.log.max_file_bytes, ..Rotation::default() },
    };
    logs::init(&settings).map_err(|error| {
        let told = match &error {
            LogSetupError::Level { .. } => {
                CliError::new(Fault::Cli, "CONFIG_INVALID", Exit::Configuration, error.to_string())
            }
            LogSetupError::Thread(_) | LogSetupError::AlreadySetUp(_) => transient(error.to_string()),
        };
        told.with_sources(&error).into()
    })
}

/// Serves until a signal asks to stop.
async fn serve(resolved: Resolved, log: &LogHandle) -> Result<Exit> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    for note in &resolved.notes {
        tracing::info!(target: TARGET, value = note.value, source = %note.source, "{}", note.name);
    }
    for warning in &resolved.warnings {
        tracing::warn!(target: TARGET, "{warning}");
    }
    let state = resolved.settings.state.clone();
    let gateway = Gateway::builder(resolved.settings).log(log.reader()).start().await;
    let gateway = gateway.map_err(|error| not_started(&error))?;
    let addresses = gateway.local_addresses().to_vec();
    let fingerprints = gateway.tls_fingerprints();
    let record = RuntimeRecord {
        pid: std::process::id(),
        port: addresses.first().map_or(0, std::net::SocketAddr::port),
        addresses,
        instance_id: gateway.instance_id().to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        dialects: vec!["jsonrpc".to_owned(), "frames".to_owned()],
        started_at_ms: TimestampMs::now().0,
        tls_fingerprint: fingerprints.as_ref().map(|fingerprints| fingerprints.certificate.clone()),
    };
    if let Err(error) = record.write(&state) {
        // The gateway serves all the same; only commands without `--port` may not find it.
        tracing::warn!(target: TARGET, %error, "the runtime record was not written");
    }
    let scheme = if fingerprints.is_some() { "wss" } else { "ws" };
    for address in &record.addresses {
        tracing::info!(target: TARGET, "listening on {scheme}://{address}");
    }
    if let Some(Fingerprints { certificate, public_key }) = &fingerprints {
        tracing::info!(target: TARGET, certificate, public_key, "callers pin the TLS certificate by its SHA-256");
    }
    let name = tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    };
    tracing::info!(target: TARGET, "received {name}; stopping, a second signal ends at once");
    let exit = tokio::select! {
        () = gateway.shutdown("gateway stopping") => Exit::Ok,
        _ = interrupt.recv() => Exit::Interrupted,
        _ = terminate.recv() => Exit::Interrupted,
    };
    if let Err(error) = record.remove(&state) {
        tracing::warn!(target: TARGET, %error, "the runtime record was not removed");
    }
    tracing::info!(target: TARGET, "stopped");
    Ok(exit)
}

fn misconfigured(error: &ConfigError) -> CliError {
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
    CliError::new(Fault::Cli, "STATE", exit, error.to_string()).with_sources(error)
}

fn not_started(error: &StartError) -> CliError {
    match error {
        StartError::State(state) => no_state(state),
        StartError::Bind { source, .. } => {
            let exit = match source.kind() {
                // Waiting does not help: whoever has the port keeps it, and rights and addresses are settings.
                io::ErrorKind::AddrInUse
                | io::ErrorKind::AddrNotAvailable
                | io::ErrorKind::PermissionDenied => Exit::Configuration,
                _ => Exit::Transient,
            };
            let told = CliError::new(Fault::Cli, "LISTEN", exit, error.to_string()).with_sources(error);
            if source.kind() == io::ErrorKind::AddrInUse {
                told.hint("another program listens there: stop it, or name another port with `--port`")
            } else {
                told
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
