//! What a gateway starts with: flags, environment, file and defaults put together and checked.

use std::{
    ffi::OsStr,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use openclaw_schema::{
    config::{self as schema, AgentEntry, ModelChoice, Port, defaults},
    types::Bounded,
};
use secrecy::SecretString;
use tracing::level_filters::LevelFilter;

use super::{
    AuthMode, BindMode, Config, ConfigError, ConsoleStyle, Env, GatewayMode, Locations, LogLevel, ReloadMode,
    Source, Sourced, TailscaleMode, UnknownName, announcement,
    auth::{self, Purpose},
    env,
    file::{port, substitute, unknown_name},
    models::resolve_models,
    modes,
};
use crate::{
    backend::settings::ModelSettings,
    host,
    logs::{LogFilter, Redactor},
    settings::{Agent, Agents, Auth, Limits, LockoutLimits, Settings},
    tls::TlsSettings,
    trust::Trust,
};

/// The agent of a configuration that names none. Stock's name for it.
const DEFAULT_AGENT: &str = "main";

/// The flags of a gateway's start.
#[derive(Debug, Clone, Default)]
pub struct ServeOptions {
    /// `--port`; 0 asks the system for a free one.
    pub port: Option<u16>,
    /// `--bind`.
    pub bind: Option<BindMode>,
    /// `--auth`.
    pub auth: Option<AuthMode>,
    /// `--token`. Without `--auth` it also means token mode.
    pub token: Option<SecretString>,
    /// `--password`. Without `--auth` it also means password mode.
    pub password: Option<SecretString>,
    /// `--tailscale`.
    pub tailscale: Option<TailscaleMode>,
    /// `--tailscale-reset-on-exit`.
    pub tailscale_reset_on_exit: bool,
    /// `--allow-unconfigured`: start although the configuration does not ask for a gateway on this machine.
    pub allow_unconfigured: bool,
    /// `--log-level`: of the file and the console.
    pub log_level: Option<LogLevel>,
    /// `--verbose`: debug lines on the console; the file's level stays.
    pub verbose: bool,
    /// `--raw-stream`: write every raw model event to a file.
    pub raw_stream: bool,
    /// `--raw-stream-path`: which file.
    pub raw_stream_path: Option<PathBuf>,
    /// `--claude-cli-logs`: show the output of command-line back ends on the console, and of the log errors
    /// alone.
    pub cli_backend_logs: bool,
}

/// What a gateway starts with.
#[derive(Debug)]
pub struct Resolved {
    /// What it runs with.
    pub settings: Settings,
    /// How it logs.
    pub log: LogSettings,
    /// How tailscale is to make it known; absent when it is not to. [`Settings::proxy`] is for whoever asks tailscale:
    /// only that knows the name.
    pub tailscale: Option<TailscaleSettings>,
    /// Whether a signal may restart it.
    pub allows_restart: bool,
    /// What it does when the configuration file changes.
    pub reload: ReloadMode,
    /// Where the values came from, for the log of the start.
    pub notes: Vec<Note>,
    /// What looks odd but is not refused, a sentence each.
    pub warnings: Vec<String>,
}

/// How tailscale makes a gateway known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TailscaleSettings {
    /// To whom; never off.
    pub mode: TailscaleMode,
    /// Whether tailscale is told to forget all it serves when the gateway ends.
    pub reset_on_exit: bool,
}

/// How a gateway logs. The path of the file is in [`Settings`].
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// What goes to the file.
    pub file: LogFilter,
    /// What goes to the console.
    pub console: LogFilter,
    /// How lines on the console look; absent to choose by what the console is.
    pub style: Option<ConsoleStyle>,
    /// What is left out of both.
    pub redactor: Redactor,
    /// How large the file grows before it is rotated, in bytes.
    pub max_file_bytes: u64,
}

/// One value and where it came from. A secret's value is not shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What it is.
    pub name: &'static str,
    /// Its value as text.
    pub value: String,
    /// Where it came from.
    pub source: Source,
}

impl Note {
    pub(super) fn new<T: ToString>(name: &'static str, value: &Sourced<T>) -> Self {
        Self { name, value: value.value.to_string(), source: value.source.clone() }
    }
}

/// Puts flags, environment, file and defaults together, in this order: a flag comes before the environment, that
/// before the file. For the token and the password the file comes before the environment, as in stock.
///
/// In token mode without a token, a token is generated and kept in the state directory, on loopback alone.
///
/// # Errors
///
/// What forbids the start. A value that is not used is not checked either.
pub fn resolve_settings(
    locations: &Locations,
    config: &Config,
    env: &Env,
    options: &ServeOptions,
) -> Result<Resolved, ConfigError> {
    resolve_on(&Host::current(), locations, config, env, options, Purpose::Start)
}

/// What [`resolve_settings`] would warn of, or why it would refuse. Nothing is made.
pub(super) fn rehearse(
    locations: &Locations,
    config: &Config,
    env: &Env,
    options: &ServeOptions,
) -> Result<Vec<String>, ConfigError> {
    Ok(resolve_on(&Host::current(), locations, config, env, options, Purpose::Preview)?.warnings)
}

/// What a gateway would start with that is given no flags, where the configuration does not say that it is on another
/// machine. Makes nothing. `Err` is what would forbid the start, unless that lies with this moment or this shell: then
/// it is among the notes.
pub(super) fn preview_settings(
    locations: &Locations,
    config: &Config,
    env: &Env,
    notes: &mut Vec<String>,
) -> Result<Option<Resolved>, ConfigError> {
    if config.gateway.mode.as_ref().is_some_and(|mode| mode.value == GatewayMode::Remote) {
        return Ok(None);
    }
    let options = ServeOptions { allow_unconfigured: true, ..ServeOptions::default() };
    match resolve_on(&Host::current(), locations, config, env, &options, Purpose::Preview) {
        Ok(resolved) => Ok(Some(resolved)),
        Err(
            error @ (ConfigError::MissingVariable { .. }
            | ConfigError::NoTailnet { .. }
            | ConfigError::OpenToOthers { .. }
            | ConfigError::NoHome
            | ConfigError::State(_)),
        ) => {
            notes.push(match error.hint() {
                Some(hint) => format!("{error}; {hint}"),
                None => error.to_string(),
            });
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn resolve_on(
    host: &Host,
    locations: &Locations,
    config: &Config,
    env: &Env,
    options: &ServeOptions,
    purpose: Purpose,
) -> Result<Resolved, ConfigError> {
    if !options.allow_unconfigured {
        ensure_local(config)?;
    }
    let env = &env.with_config(config);
    let port = serve_port(locations, config, env, options)?;
    let bind = bind_mode(config, options);
    let hosts = bind_hosts(host, config, env, &bind)?;
    let exposed = hosts.iter().copied().find(|host| !host.is_loopback());
    let exposed = exposed.map(|host| (host, &bind));
    let tailscale = tailscale_mode(config, options);
    if let Some(((address, bind), tailscale)) = exposed.zip(tailscale.as_ref()) {
        return Err(ConfigError::TailscaleBind {
            mode: tailscale.value,
            tailscale: tailscale.source.clone(),
            address,
            bind: bind.value,
            origin: bind.source.clone(),
        });
    }
    let reach = auth::Reach { exposed, tailscale: tailscale.as_ref() };
    let (auth, auth_notes, auth_warning) = auth::resolve(locations, config, env, options, reach, purpose)?;
    let log_file = match &config.logging.file {
        Some(file) => path_of(file, config, env)?,
        None => Sourced::default(locations.state().log_file()),
    };
    let log = log_settings(config, env, options, &auth)?;
    let tls = resolve_tls(locations, config, env)?;
    let mut warnings = config.warnings.clone();
    warnings.extend_from_slice(env.problems());
    warnings.extend(auth_warning);
    warnings.extend(modes::check(locations.state(), config)?);
    let agents = resolve_agents(locations, config, env, &mut warnings)?;
    let mdns = announcement(config, env, &mut warnings)?;
    let models = ModelSettings {
        raw_stream: raw_stream(locations, env, options)?,
        cli_logs: options.cli_backend_logs,
        processes: Some(locations.state().processes_dir()),
        ..resolve_models(config, env, &mut warnings)?
    };

    let mut notes = vec![
        Note {
            name: "config",
            value: config.path.display().to_string(),
            source: match env.os(env::CONFIG_PATH) {
                Some(_) => env.source(env::CONFIG_PATH),
                None => Source::Default,
            },
        },
        Note::new("port", &port),
        Note::new("bind", &bind),
    ];
    notes.extend(auth_notes);
    notes.extend(tailscale.iter().map(|mode| Note::new("tailscale", mode)));
    notes.push(Note {
        name: "announced",
        value: if mdns.value.is_some() { "yes" } else { "no" }.to_owned(),
        source: mdns.source,
    });
    notes.push(Note {
        name: "log file",
        value: log_file.value.display().to_string(),
        source: log_file.source.clone(),
    });
    Ok(Resolved {
        tailscale: tailscale.map(|mode| TailscaleSettings {
            mode: mode.value,
            reset_on_exit: options.tailscale_reset_on_exit
                || config.gateway.tailscale.reset_on_exit.as_ref().is_some_and(|reset| reset.value),
        }),
        settings: Settings {
            listen: hosts.into_iter().map(|host| SocketAddr::new(host, port.value)).collect(),
            auth,
            tls,
            state: locations.state().clone(),
            config_file: config.path.to_path_buf(),
            auto_approve_local: is_on(&config.gateway.nodes.pairing.auto_approve_local),
            trust: Trust { origins: config.allowed_origins(), proxies: config.trusted_proxies() },
            proxy: None,
            log_file: log_file.value,
            agents,
            discovery: mdns.value,
            models,
            limits: Limits {
                lockout: lockout_limits(&config.gateway.auth.rate_limit),
                ..limits(&config.gateway.limits)
            },
        },
        log,
        reload: config.gateway.reload.mode.as_ref().map_or(ReloadMode::Hybrid, |mode| mode.value),
        allows_restart: is_on(&config.commands.restart),
        notes,
        warnings,
    })
}

/// Whether a switch that is on by default is on.
fn is_on(given: &Option<Sourced<bool>>) -> bool {
    given.as_ref().is_none_or(|given| given.value)
}

/// The bounds of the file, and for the others the defaults.
fn limits(given: &schema::Limits) -> Limits {
    let default = Limits::default();
    let of = |number: Option<u64>, default: usize| {
        number.map_or(default, |number| usize::try_from(number).unwrap_or(usize::MAX))
    };
    let time = |ms: Option<u64>, default: Duration| ms.map_or(default, Duration::from_millis);
    let subscriptions = bound(&given.max_subscriptions).and_then(|number| u32::try_from(number).ok());
    Limits {
        max_payload_bytes: of(bound(&given.max_payload_bytes), default.max_payload_bytes),
        max_buffered_bytes: of(bound(&given.max_buffered_bytes), default.max_buffered_bytes),
        max_connections: of(bound(&given.max_connections), default.max_connections),
        max_unauthenticated: of(bound(&given.max_unauthenticated), default.max_unauthenticated),
        max_in_flight: of(bound(&given.max_in_flight), default.max_in_flight),
        max_batch: of(bound(&given.max_batch), default.max_batch),
        max_subscriptions: subscriptions.unwrap_or(default.max_subscriptions),
        authentication_timeout: time(bound(&given.authentication_timeout_ms), default.authentication_timeout),
        send_timeout: time(bound(&given.send_timeout_ms), default.send_timeout),
        call_timeout: time(bound(&given.call_timeout_ms), default.call_timeout),
        drain_timeout: time(bound(&given.drain_timeout_ms), default.drain_timeout),
        ..default
    }
}

/// When callers that guess are kept out.
fn lockout_limits(given: &schema::RateLimit) -> LockoutLimits {
    let default = LockoutLimits::default();
    let time = |ms: Option<u64>, default: Duration| ms.map_or(default, Duration::from_millis);
    LockoutLimits {
        max_attempts: bound(&given.max_attempts)
            .map_or(default.max_attempts, |number| usize::try_from(number).unwrap_or(usize::MAX)),
        window: time(bound(&given.window_ms), default.window),
        lockout: time(bound(&given.lockout_ms), default.lockout),
        exempt_loopback: given
            .exempt_loopback
            .as_ref()
            .map_or(default.exempt_loopback, |exempt| exempt.value),
    }
}

fn bound<const MIN: u64, const MAX: u64>(given: &Option<Sourced<Bounded<MIN, MAX>>>) -> Option<u64> {
    given.as_ref().map(|number| number.value.get())
}

pub(super) fn flag<T>(name: &'static str, value: Option<T>) -> Option<Sourced<T>> {
    value.map(|value| Sourced::new(value, Source::Flag(name)))
}

/// Where a gateway listens.
pub(super) fn bind_mode(config: &Config, options: &ServeOptions) -> Sourced<BindMode> {
    flag("--bind", options.bind)
        .or_else(|| config.gateway.bind.clone())
        .unwrap_or_else(|| Sourced::default(BindMode::Loopback))
}

/// To whom tailscale makes the gateway known, if to anybody.
pub(super) fn tailscale_mode(config: &Config, options: &ServeOptions) -> Option<Sourced<TailscaleMode>> {
    flag("--tailscale", options.tailscale)
        .or_else(|| config.gateway.tailscale.mode.clone())
        .filter(|mode| mode.value != TailscaleMode::Off)
}

/// The first address beyond loopback that a bind mode means on this machine, if it means one.
pub(super) fn exposed_host(config: &Config, env: &Env, bind: &Sourced<BindMode>) -> Option<IpAddr> {
    let hosts = bind_hosts(&Host::current(), config, env, bind).unwrap_or_default();
    hosts.into_iter().find(|host| !host.is_loopback())
}

/// The configuration must say that the gateway is on this machine: a start by mistake on a machine that is a
/// client, or with a lost configuration, is refused.
fn ensure_local(config: &Config) -> Result<(), ConfigError> {
    match &config.gateway.mode {
        Some(mode) if mode.value == GatewayMode::Local => Ok(()),
        Some(mode) => Err(ConfigError::RemoteMode { origin: mode.source.clone() }),
        None if config.exists => Err(ConfigError::NoMode { path: config.path.to_path_buf() }),
        None => Err(ConfigError::NoConfig { path: config.path.to_path_buf() }),
    }
}

fn serve_port(
    locations: &Locations,
    config: &Config,
    env: &Env,
    options: &ServeOptions,
) -> Result<Sourced<u16>, ConfigError> {
    if let Some(port) = flag("--port", options.port) {
        return Ok(port);
    }
    if let Some(text) = env.text(env::GATEWAY_PORT)? {
        return port(text);
    }
    let configured = config.gateway.port.clone().map(|port| port.map(Port::get));
    Ok(configured.unwrap_or_else(|| Sourced::default(locations.default_port())))
}

/// Where the certificate of the port comes from. cli.md section 6 has the files of a generated one.
fn resolve_tls(
    locations: &Locations,
    config: &Config,
    env: &Env,
) -> Result<Option<TlsSettings>, ConfigError> {
    let tls = &config.gateway.tls;
    if tls.enabled.as_ref().is_none_or(|enabled| !enabled.value) {
        return Ok(None);
    }
    let path =
        |path: &Option<Sourced<String>>| path.as_ref().map(|path| path_of(path, config, env)).transpose();
    let directory = locations.state().gateway_dir().join("tls");
    let generates = || tls.auto_generate.as_ref().is_none_or(|generate| generate.value);
    Ok(Some(match (path(&tls.cert_path)?, path(&tls.key_path)?) {
        (Some(certificate), Some(key)) => {
            TlsSettings { certificate: certificate.value, key: key.value, generate: false }
        }
        (None, None) => TlsSettings {
            certificate: directory.join("gateway-cert.pem"),
            key: directory.join("gateway-key.pem"),
            generate: generates(),
        },
        (Some(given), None) => return Err(half_a_pair(given.source, "gateway.tls.keyPath")),
        (None, Some(given)) => return Err(half_a_pair(given.source, "gateway.tls.certPath")),
    }))
}

fn half_a_pair(origin: Source, other: &str) -> ConfigError {
    ConfigError::BadValue {
        origin,
        problem: format!("needs {other} beside it: a certificate and its key belong together"),
        nearest: None,
    }
}

/// What the machine is like, as far as bind modes ask.
#[derive(Debug)]
struct Host {
    /// The addresses of its network interfaces.
    addresses: Vec<IpAddr>,
    is_container: bool,
}

impl Host {
    fn current() -> Self {
        let interfaces = if_addrs::get_if_addrs().unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot list the network interfaces");
            Vec::new()
        });
        Self {
            addresses: interfaces.iter().map(if_addrs::Interface::ip).collect(),
            is_container: host::has_container_mark(),
        }
    }

    fn loopback(&self) -> Vec<IpAddr> {
        let mut hosts = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
        let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
        if self.addresses.contains(&v6) {
            hosts.push(v6);
        }
        hosts
    }
}

/// The hosts that a bind mode listens on; at least one.
fn bind_hosts(
    host: &Host,
    config: &Config,
    env: &Env,
    bind: &Sourced<BindMode>,
) -> Result<Vec<IpAddr>, ConfigError> {
    let everywhere = || vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)];
    match bind.value {
        BindMode::Loopback => Ok(host.loopback()),
        BindMode::Lan => Ok(everywhere()),
        BindMode::Auto if host.is_container => Ok(everywhere()),
        BindMode::Auto => Ok(host.loopback()),
        BindMode::Tailnet => {
            let own = host.addresses.iter().copied().filter(is_tailnet);
            match own.min_by_key(IpAddr::is_ipv6) {
                Some(address) => Ok(vec![address]),
                None => Err(ConfigError::NoTailnet { origin: bind.source.clone() }),
            }
        }
        BindMode::Custom => {
            let Some(custom) = &config.gateway.custom_bind_host else {
                return Err(ConfigError::NoCustomHost { origin: bind.source.clone() });
            };
            let custom = substitute(custom, env)?;
            match custom.value.parse() {
                Ok(host) => Ok(vec![host]),
                Err(_) => Err(ConfigError::BadValue {
                    origin: custom.source,
                    problem: format!("must be an IP address, not {:?}", custom.value),
                    nearest: None,
                }),
            }
        }
    }
}

/// Whether an address is in 100.64.0.0/10 or fd7a:115c:a1e0::/48, where tailscale gives each machine its own.
pub(super) fn is_tailnet(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, second, ..] = v4.octets();
            first == 100 && (64..128).contains(&second)
        }
        IpAddr::V6(v6) => v6.segments()[..3] == [0xfd7a, 0x115c, 0xa1e0],
    }
}

fn log_settings(
    config: &Config,
    env: &Env,
    options: &ServeOptions,
    auth: &Auth,
) -> Result<LogSettings, ConfigError> {
    let logging = &config.logging;
    let both = match (options.log_level, env.text(env::LOG_LEVEL)?) {
        (Some(level), _) => Some(filter(level)),
        (None, Some(text)) => Some(text.value.parse().map_err(|_| bad_levels(text))?),
        (None, None) => None,
    };
    let of_level = |level: &Option<Sourced<LogLevel>>| {
        let level = level.as_ref().map_or(LogLevel::Info, |level| level.value);
        let mut filter = filter(level);
        for (part, level) in &logging.filters {
            filter = filter.with_part(part, level.value.name()).map_err(|_| ConfigError::BadValue {
                origin: level.source.clone(),
                problem: "must name a part of the program, such as `wire` or `gateway::wire`".to_owned(),
                nearest: None,
            })?;
        }
        Ok::<_, ConfigError>(filter)
    };
    let (file, console) = match both {
        Some(both) => (both.clone(), both),
        None => (of_level(&logging.level)?, of_level(&logging.console_level)?),
    };
    let console = if options.cli_backend_logs {
        // The console belongs to the output of command-line back ends; what fails is told all the same.
        console.at_most(LevelFilter::ERROR)
    } else if options.verbose {
        console.at_least(LevelFilter::DEBUG)
    } else {
        console
    };
    let patterns = logging.redact_patterns.as_ref();
    let redactor = Redactor::new(
        match auth {
            Auth::None => None,
            Auth::Token(secret) | Auth::Password(secret) => Some(secret.clone()),
        },
        &patterns.map_or_else(Vec::new, |patterns| patterns.value.to_vec()),
    );
    Ok(LogSettings {
        file,
        console,
        style: logging.console_style.as_ref().map(|style| style.value),
        redactor: redactor.map_err(|bad| ConfigError::BadValue {
            origin: patterns.map_or(Source::Default, |patterns| patterns.source.clone()),
            problem: format!("must be regular expressions: {bad}"),
            nearest: None,
        })?,
        max_file_bytes: bound(&logging.max_file_bytes).unwrap_or(defaults::MAX_LOG_FILE_BYTES),
    })
}

fn filter(level: LogLevel) -> LogFilter {
    level.name().parse().expect("every level is a filter")
}

/// The error for a text that is no filter: it names the level that was probably meant.
fn bad_levels(text: Sourced<String>) -> ConfigError {
    let is_bad = |entry: &&str| entry.parse::<LogFilter>().is_err();
    let entry = text.value.split(',').find(is_bad).unwrap_or(&text.value);
    let given = entry.rsplit('=').next().unwrap_or(entry).trim().to_owned();
    unknown_name(&UnknownName { given, allowed: LogLevel::NAMES }, text.source)
}

/// The file of the raw stream, if it is asked for. A path alone does not ask. cli.md section 2.1.
fn raw_stream(
    locations: &Locations,
    env: &Env,
    options: &ServeOptions,
) -> Result<Option<PathBuf>, ConfigError> {
    let by_variable = env.text(env::RAW_STREAM)?.is_some_and(|text| !matches!(&*text.value, "0" | "false"));
    if !options.raw_stream && !by_variable {
        return Ok(None);
    }
    if let Some(path) = &options.raw_stream_path {
        return Ok(Some(path.clone()));
    }
    match env.os(env::RAW_STREAM_PATH) {
        Some(path) => env.expand_home(path).map(Some),
        None => Ok(Some(locations.state().raw_stream_file())),
    }
}

fn resolve_agents(
    locations: &Locations,
    config: &Config,
    env: &Env,
    warnings: &mut Vec<String>,
) -> Result<Agents, ConfigError> {
    let (entries, shared) = (&config.agents.entries, &config.agents.defaults);
    let is_default =
        |entry: &AgentEntry| entry.is_default.as_ref().is_some_and(|is_default| is_default.value);
    let mut defaults = entries.iter().filter(|(_, entry)| is_default(&entry.value));
    let default_id = defaults
        .next()
        .or_else(|| entries.iter().find(|(id, _)| id == DEFAULT_AGENT))
        .or(entries.first())
        .map_or(DEFAULT_AGENT, |(id, _)| id.as_str());
    if let Some((_, second)) = defaults.next() {
        warnings.push(format!("{} is a default too; `{default_id}` is the first and counts", second.source));
    }
    let agent = |id: &str, entry: Option<&AgentEntry>| {
        let text = |text: Option<&Sourced<String>>| {
            text.map(|text| substitute(text, env)).transpose().map(|text| text.map(|text| text.value))
        };
        let own = entry.and_then(|entry| entry.workspace.as_ref());
        let common = shared.workspace.as_ref().filter(|_| id == default_id);
        let workspace = match own.or(common) {
            Some(workspace) => path_of(workspace, config, env)?.value,
            None if id == default_id => locations.state().workspace_dir(),
            None => locations.state().root().join(format!("workspace-{id}")),
        };
        let model = entry.and_then(|entry| entry.model.as_ref()).or(shared.model.as_ref());
        let model = model.and_then(Sourced::<ModelChoice>::primary);
        Ok::<_, ConfigError>(Agent {
            id: id.to_owned(),
            name: text(entry.and_then(|entry| entry.identity.name.as_ref()))?,
            workspace,
            model: text(model.as_ref())?,
        })
    };
    let list = if entries.is_empty() {
        vec![agent(default_id, None)?]
    } else {
        entries.iter().map(|(id, entry)| agent(id, Some(&entry.value))).collect::<Result<_, _>>()?
    };
    Ok(Agents { default_id: default_id.to_owned(), list })
}

/// A path from the file; a relative one starts at the file's directory, wherever the command is run.
fn path_of(text: &Sourced<String>, config: &Config, env: &Env) -> Result<Sourced<PathBuf>, ConfigError> {
    let text = substitute(text, env)?;
    let path = env.expand_home(OsStr::new(&text.value))?;
    let directory = config.path.parent().unwrap_or(Path::new("/"));
    Ok(Sourced::new(directory.join(path), text.source))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::{config::LocationFlags, state::read_token};

    /// One start on a machine with `::1`, a LAN address and a tailnet address.
    struct Start {
        directory: tempfile::TempDir,
        host: Host,
        variables: Vec<(&'static str, &'static str)>,
        options: ServeOptions,
    }

    impl Start {
        fn new() -> Self {
            let address = |text: &str| text.parse().expect("an address");
            Self {
                directory: tempfile::tempdir().expect("a temporary directory"),
                host: Host {
                    addresses: ["127.0.0.1", "192.168.1.5", "100.128.0.1", "100.101.1.2", "::1"]
                        .map(address)
                        .to_vec(),
                    is_container: false,
                },
                variables: Vec::new(),
                options: ServeOptions::default(),
            }
        }

        fn with(change: impl FnOnce(&mut Self)) -> Self {
            let mut start = Self::new();
            change(&mut start);
            start
        }

        fn env(&self) -> Env {
            let home = (env::HOME, self.directory.path().to_str().expect("a text"));
            self.variables.iter().copied().chain([home]).collect()
        }

        fn locations(&self) -> Locations {
            Locations::resolve(&LocationFlags::default(), &self.env()).expect("there is a home")
        }

        fn config_file(&self) -> PathBuf {
            self.directory.path().join(".openclaw/openclaw.json")
        }

        fn resolve(&self, config: &str) -> Result<Resolved, ConfigError> {
            let path = self.config_file();
            crate::state::create_private_dir(path.parent().expect("it has one")).expect("it creates");
            std::fs::write(&path, config).expect("it writes");
            self.resolve_file()
        }

        fn resolve_file(&self) -> Result<Resolved, ConfigError> {
            let locations = self.locations();
            let config = Config::load(locations.config_file())?;
            resolve_on(&self.host, &locations, &config, &self.env(), &self.options, Purpose::Start)
        }

        /// The text of the error and its hint, with `FILE` for the path of the file.
        fn error(&self, config: &str) -> (String, String) {
            let error = self.resolve(config).expect_err("it is refused");
            let file = self.config_file().display().to_string();
            let hint = error.hint().unwrap_or_default();
            (error.to_string().replace(&file, "FILE"), hint.replace(&file, "FILE"))
        }
    }

    fn listen(resolved: &Resolved) -> Vec<String> {
        resolved.settings.listen.iter().map(SocketAddr::to_string).collect()
    }

    fn auth(resolved: &Resolved) -> (&'static str, &str) {
        match &resolved.settings.auth {
            Auth::None => ("none", ""),
            Auth::Token(token) => ("token", token.expose_secret()),
            Auth::Password(password) => ("password", password.expose_secret()),
        }
    }

    fn source(resolved: &Resolved, name: &str) -> String {
        resolved.notes.iter().find(|note| note.name == name).expect("it is noted").source.to_string()
    }

    #[test]
    fn a_gateway_starts_where_the_configuration_says_so() {
        let start = Start::new();
        let file = "FILE; a gateway starts when";
        let hint = "write {\"gateway\": {\"mode\": \"local\"}} to FILE, or pass --allow-unconfigured";
        let missing = start.resolve_file().expect_err("there is no file");
        let path = start.config_file().display().to_string();
        assert_eq!(
            missing.to_string().replace(&path, "FILE"),
            format!("there is no configuration at {file} gateway.mode is \"local\" there")
        );
        assert_eq!(missing.hint().map(|hint| hint.replace(&path, "FILE")).as_deref(), Some(hint));
        for config in ["", "{}", "{gateway: {}}"] {
            let sentence = format!("gateway.mode is missing in {file} it is \"local\"");
            assert_eq!(start.error(config), (sentence, hint.to_owned()), "{config}");
        }
        assert_eq!(
            start.error("{gateway: {mode: 'remote'}}"),
            (
                "gateway.mode in FILE is \"remote\", so no gateway starts on this machine".to_owned(),
                "set gateway.mode to \"local\", or pass --allow-unconfigured".to_owned()
            )
        );
        start.resolve("{gateway: {mode: 'local'}}").expect("it starts");

        let unconfigured = Start::with(|start| start.options.allow_unconfigured = true);
        unconfigured.resolve_file().expect("it starts");
        assert!(!unconfigured.config_file().exists(), "no configuration is written");
        unconfigured.resolve("{gateway: {mode: 'remote'}}").expect("it starts");
    }

    #[test]
    fn the_port_is_flag_then_environment_then_file_then_default() {
        const WITH_PORT: &str = "{gateway: {mode: 'local', port: 3}}";
        const WITHOUT: &str = "{gateway: {mode: 'local'}}";
        for (flag, variable, config, port, from) in [
            (Some(1), Some("2"), WITH_PORT, 1, "flag --port"),
            (Some(0), Some("2"), WITH_PORT, 0, "flag --port"),
            (None, Some("2"), WITH_PORT, 2, "env OPENCLAW_GATEWAY_PORT"),
            (None, Some(""), WITH_PORT, 3, "gateway.port in FILE"),
            (None, None, WITH_PORT, 3, "gateway.port in FILE"),
            (None, None, WITHOUT, 18789, "default"),
        ] {
            let start = Start::with(|start| {
                start.options.port = flag;
                start.variables.extend(variable.map(|value| (env::GATEWAY_PORT, value)));
            });
            let resolved = start.resolve(config).expect("it starts");
            assert_eq!(listen(&resolved), [format!("127.0.0.1:{port}"), format!("[::1]:{port}")]);
            let file = start.config_file().display().to_string();
            assert_eq!(source(&resolved, "port").replace(&file, "FILE"), from);
        }
        for value in ["abc", "0", "65536", "-1"] {
            let start = Start::with(|start| start.variables.push((env::GATEWAY_PORT, value)));
            assert_eq!(
                start.error(WITHOUT).0,
                format!("env OPENCLAW_GATEWAY_PORT must be a whole number from 1 to 65535, not \"{value}\"")
            );
        }
    }

    #[test]
    fn each_bind_mode_has_its_addresses() {
        for (bind, container, expected) in [
            (None, false, vec!["127.0.0.1:18789", "[::1]:18789"]),
            (None, true, vec!["127.0.0.1:18789", "[::1]:18789"]),
            (Some(BindMode::Loopback), true, vec!["127.0.0.1:18789", "[::1]:18789"]),
            (Some(BindMode::Lan), false, vec!["0.0.0.0:18789"]),
            (Some(BindMode::Auto), false, vec!["127.0.0.1:18789", "[::1]:18789"]),
            (Some(BindMode::Auto), true, vec!["0.0.0.0:18789"]),
            (Some(BindMode::Tailnet), false, vec!["100.101.1.2:18789"]),
            (Some(BindMode::Custom), false, vec!["192.168.1.5:18789"]),
        ] {
            let start = Start::with(|start| {
                start.options.bind = bind;
                start.options.token = Some("0123456789abcdef".into());
                start.host.is_container = container;
            });
            let resolved = start
                .resolve("{gateway: {mode: 'local', customBindHost: '192.168.1.5'}}")
                .expect("it starts");
            assert_eq!(listen(&resolved), expected, "{bind:?} {container}");
        }
        let start = Start::with(|start| start.host.addresses.truncate(1));
        assert_eq!(
            listen(&start.resolve("{gateway: {mode: 'local'}}").expect("it starts")),
            ["127.0.0.1:18789"]
        );
        let flag = Start::with(|start| start.options.bind = Some(BindMode::Loopback));
        let resolved = flag.resolve("{gateway: {mode: 'local', bind: 'lan'}}").expect("it starts");
        assert_eq!(source(&resolved, "bind"), "flag --bind");
    }

    #[test]
    fn a_tailnet_without_ipv4_has_an_address_too() {
        let start = Start::with(|start| {
            let addresses = ["fe80::1", "fd7a:115c:a1e1::1", "fd7a:115c:a1e0::7"];
            start.host.addresses = addresses.map(|text| text.parse().expect("an address")).to_vec();
        });
        let resolved =
            start.resolve("{gateway: {mode: 'local', bind: 'tailnet', auth: {token: '0123456789abcdef'}}}");
        assert_eq!(listen(&resolved.expect("it starts")), ["[fd7a:115c:a1e0::7]:18789"]);
    }

    #[test]
    fn tailscale_is_asked_by_the_flag_then_by_the_file() {
        let file = |tailscale: &str| {
            let auth = "auth: {mode: 'password', password: 'correct horse'}";
            format!("{{gateway: {{mode: 'local', {auth}, tailscale: {{{tailscale}}}}}}}")
        };
        for (flag, reset, config, expected) in [
            (None, false, "", None),
            (None, false, "mode: 'off', resetOnExit: true", None),
            (None, false, "mode: 'serve'", Some((TailscaleMode::Serve, false))),
            (None, false, "mode: 'funnel', resetOnExit: true", Some((TailscaleMode::Funnel, true))),
            (None, true, "mode: 'funnel'", Some((TailscaleMode::Funnel, true))),
            (Some(TailscaleMode::Serve), false, "mode: 'funnel'", Some((TailscaleMode::Serve, false))),
            (Some(TailscaleMode::Off), true, "mode: 'funnel'", None),
        ] {
            let start = Start::with(|start| {
                start.options.tailscale = flag;
                start.options.tailscale_reset_on_exit = reset;
            });
            let found = start.resolve(&file(config)).expect("it starts").tailscale;
            assert_eq!(found.map(|found| (found.mode, found.reset_on_exit)), expected, "{config}");
        }
        let container = Start::with(|start| start.host.is_container = true);
        let (told, hint) =
            container.error(&file("mode: 'serve'").replace("mode: 'local'", "mode: 'local', bind: 'auto'"));
        assert!(told.contains("is to listen on 0.0.0.0") && hint.contains("--bind loopback"), "{told}");
        assert!(Start::new().error(&file("mode: 'on'")).0.contains("gateway.tailscale.mode"));
    }

    #[test]
    fn a_bind_mode_without_its_address_is_refused() {
        let start = Start::with(|start| start.host.addresses.truncate(3));
        for (config, sentence, hint) in [
            (
                "{gateway: {mode: 'local', bind: 'tailnet'}}",
                "the bind mode is \"tailnet\" (gateway.bind in FILE), and no network interface has an address \
                 in 100.64.0.0/10 or fd7a:115c:a1e0::/48",
                "start tailscale first, or pass --bind loopback",
            ),
            (
                "{gateway: {mode: 'local', bind: 'custom'}}",
                "the bind mode is \"custom\" (gateway.bind in FILE), and gateway.customBindHost is not set",
                "set gateway.customBindHost to the address to listen on",
            ),
            (
                "{gateway: {mode: 'local', bind: 'custom', customBindHost: 'here'}}",
                "gateway.customBindHost in FILE must be an IP address, not \"here\"",
                "",
            ),
        ] {
            assert_eq!(start.error(config), (sentence.to_owned(), hint.to_owned()));
        }
    }

    #[test]
    fn nobody_beyond_this_machine_gets_in_without_a_secret() {
        let hint = "set gateway.auth.token or OPENCLAW_GATEWAY_TOKEN, or pass --token; or stay on this machine \
                    with --bind loopback";
        for (config, sentence) in [
            (
                "{gateway: {mode: 'local', bind: 'lan'}}",
                "refusing to listen on 0.0.0.0 (bind lan, gateway.bind in FILE) without a token",
            ),
            (
                "{gateway: {mode: 'local', bind: 'lan', auth: {mode: 'token'}}}",
                "refusing to listen on 0.0.0.0 (bind lan, gateway.bind in FILE) without a token",
            ),
            (
                "{gateway: {mode: 'local', bind: 'auto', auth: {mode: 'none'}}}",
                "refusing to listen on 0.0.0.0 (bind auto, gateway.bind in FILE) without authentication",
            ),
            (
                "{gateway: {mode: 'local', bind: 'tailnet', auth: {mode: 'none', token: 't'}}}",
                "refusing to listen on 100.101.1.2 (bind tailnet, gateway.bind in FILE) without authentication",
            ),
            (
                "{gateway: {mode: 'local', bind: 'custom', customBindHost: '192.168.1.5'}}",
                "refusing to listen on 192.168.1.5 (bind custom, gateway.bind in FILE) without a token",
            ),
        ] {
            let start = Start::with(|start| start.host.is_container = true);
            assert_eq!(start.error(config), (sentence.to_owned(), hint.to_owned()), "{config}");
            assert!(!start.locations().state().token_file().exists(), "no token is made for a refused start");
        }
        for config in [
            "{gateway: {mode: 'local', bind: 'lan', auth: {token: '0123456789abcdef'}}}",
            "{gateway: {mode: 'local', bind: 'lan', auth: {password: 'correct horse'}}}",
            "{gateway: {mode: 'local', bind: 'custom', customBindHost: '127.0.0.2'}}",
            "{gateway: {mode: 'local', bind: 'loopback', auth: {mode: 'none'}}}",
        ] {
            Start::new().resolve(config).expect("it starts");
        }
    }

    #[test]
    fn a_secret_is_flag_then_file_then_environment() {
        const BOTH: &str = "{gateway: {mode: 'local', auth: {mode: 'token', token: 'file'}}}";
        const NEITHER: &str = "{gateway: {mode: 'local'}}";
        for (flag, variable, config, token, from) in [
            (Some("flag"), Some("env"), BOTH, "flag", "flag --token"),
            (None, Some("env"), BOTH, "file", "gateway.auth.token in FILE"),
            (None, Some("env"), NEITHER, "env", "env OPENCLAW_GATEWAY_TOKEN"),
        ] {
            let start = Start::with(|start| {
                start.options.token = flag.map(Into::into);
                start.variables.extend(variable.map(|value| (env::GATEWAY_TOKEN, value)));
            });
            let resolved = start.resolve(config).expect("it starts");
            assert_eq!(auth(&resolved), ("token", token));
            let file = start.config_file().display().to_string();
            assert_eq!(source(&resolved, "token").replace(&file, "FILE"), from);
            assert!(resolved.notes.iter().all(|note| note.value != token), "a note shows the secret");
        }
    }

    #[test]
    fn the_mode_follows_what_is_there() {
        let secret = |text: &str| Some(SecretString::from(text));
        let options = ServeOptions::default;
        for (options, variable, section, expected) in [
            (options(), None, "token: 't'", ("token", "t")),
            (options(), None, "password: 'p'", ("password", "p")),
            (options(), Some((env::GATEWAY_PASSWORD, "p")), "", ("password", "p")),
            (options(), None, "mode: 'password', token: 't', password: 'p'", ("password", "p")),
            (options(), None, "mode: 'token', token: 't', password: 'p'", ("token", "t")),
            (options(), None, "mode: 'token', token: '${T}', password: '${NONE}'", ("token", "from env")),
            (options(), None, "mode: 'none', token: 't'", ("none", "")),
            (ServeOptions { auth: Some(AuthMode::None), ..options() }, None, "mode: 'token'", ("none", "")),
            (ServeOptions { token: secret("f"), ..options() }, None, "password: 'p'", ("token", "f")),
            (ServeOptions { token: secret("f"), ..options() }, None, "mode: 'none'", ("token", "f")),
            (ServeOptions { password: secret("f"), ..options() }, None, "mode: 'token'", ("password", "f")),
            (
                ServeOptions { token: secret("f"), password: secret("g"), ..options() },
                None,
                "mode: 'password'",
                ("password", "g"),
            ),
            (
                ServeOptions { token: secret("f"), auth: Some(AuthMode::Password), ..options() },
                None,
                "password: 'p'",
                ("password", "p"),
            ),
        ] {
            let start = Start::with(|start| {
                start.options = options;
                start.variables.push(("T", "from env"));
                start.variables.extend(variable);
            });
            let resolved = start
                .resolve(&format!("{{gateway: {{mode: 'local', auth: {{{section}}}}}}}"))
                .expect("it starts");
            assert_eq!(auth(&resolved), expected, "{section}");
        }
    }

    #[test]
    fn a_mode_that_does_not_fit_its_secrets_is_refused() {
        let secret = |text: &str| Some(SecretString::from(text));
        let options = ServeOptions::default;
        for (options, section, sentence, hint) in [
            (
                options(),
                "token: 't', password: 'p'",
                "both a token (gateway.auth.token in FILE) and a password (gateway.auth.password in FILE) are \
                 set, and no authentication mode",
                "set gateway.auth.mode (or --auth) to \"token\" or \"password\"",
            ),
            (
                ServeOptions { token: secret("t"), password: secret("p"), ..options() },
                "",
                "both a token (flag --token) and a password (flag --password) are set, and no authentication \
                 mode",
                "set gateway.auth.mode (or --auth) to \"token\" or \"password\"",
            ),
            (
                options(),
                "mode: 'password', token: 't'",
                "the authentication mode is \"password\" (gateway.auth.mode in FILE), and no password is set",
                "set gateway.auth.password or OPENCLAW_GATEWAY_PASSWORD, or pass --password",
            ),
            (
                options(),
                "mode: 'trusted-proxy'",
                "gateway.auth.mode in FILE asks for the authentication mode \"trusted-proxy\", which this \
                 gateway does not have",
                "set gateway.auth.mode (or --auth) to \"token\", \"password\" or \"none\"",
            ),
            (
                ServeOptions { token: secret(""), ..options() },
                "",
                "flag --token is empty",
                "give a value, or leave it out",
            ),
            (
                ServeOptions { password: secret(" "), ..options() },
                "",
                "flag --password is empty",
                "give a value, or leave it out",
            ),
            (options(), "token: ''", "gateway.auth.token in FILE is empty", "give a value, or leave it out"),
            (
                options(),
                "token: '${BLANK}'",
                "gateway.auth.token in FILE is empty",
                "give a value, or leave it out",
            ),
            (
                options(),
                "token: '${MISSING}'",
                "gateway.auth.token in FILE refers to the environment variable MISSING, which is not set",
                "set MISSING; a literal `${` is written as `$${`",
            ),
            (
                ServeOptions { auth: Some(AuthMode::None), token: secret("t"), ..options() },
                "",
                "flag --token has no effect: flag --auth asks for no authentication",
                "leave one of the two out",
            ),
        ] {
            let start = Start::with(|start| {
                start.options = options;
                start.variables.push(("BLANK", " "));
            });
            let config = format!("{{gateway: {{mode: 'local', auth: {{{section}}}}}}}");
            assert_eq!(start.error(&config), (sentence.to_owned(), hint.to_owned()), "{section}");
        }
    }

    #[test]
    fn a_secret_that_can_be_guessed_is_refused() {
        for (config, sentence) in [
            (
                "bind: 'lan', auth: {token: 'abc'}",
                "gateway.auth.token in FILE has 3 characters; beyond loopback a token has at least 16",
            ),
            (
                "bind: 'lan', auth: {password: 'abc'}",
                "gateway.auth.password in FILE has 3 characters; beyond loopback a password has at least 8",
            ),
            (
                "bind: 'lan', auth: {password: 'Password1'}",
                "gateway.auth.password in FILE is a word that is tried first",
            ),
            ("auth: {token: 'changeme'}", "gateway.auth.token in FILE is a placeholder and no secret"),
            ("auth: {token: '<your-token>'}", "gateway.auth.token in FILE is a placeholder and no secret"),
            ("auth: {password: 'xxxxxxxx'}", "gateway.auth.password in FILE is a placeholder and no secret"),
            (
                "auth: {token: ' abc'}",
                "gateway.auth.token in FILE begins or ends with blanks, or has control characters",
            ),
        ] {
            let (told, hint) = Start::new().error(&format!("{{gateway: {{mode: 'local', {config}}}}}"));
            assert_eq!(told, sentence);
            assert!(!hint.is_empty());
        }
        let resolved =
            Start::new().resolve("{gateway: {mode: 'local', auth: {token: 'secret'}}}").expect("it starts");
        assert!(
            resolved.warnings.iter().any(|warning| warning.contains("tried first")),
            "{:?}",
            resolved.warnings
        );
    }

    #[test]
    fn a_pattern_that_is_none_and_a_style_that_is_none_are_refused() {
        let error = |logging: &str| {
            Start::new().error(&format!("{{gateway: {{mode: 'local'}}, logging: {{{logging}}}}}")).0
        };
        assert!(error("redactPatterns: ['a', '(']").starts_with(
            "logging.redactPatterns in FILE must be regular expressions: the pattern \"(\" is no"
        ));
        assert!(error("redactPatterns: 'a'").contains("must be a list of texts"));
        assert!(error("consoleStyle: 'prety'").ends_with("did you mean `pretty`?"));
        assert!(error("filters: {'': 'info'}").contains("must name a part"));
        assert!(error("filters: {wire: 'loud'}").contains("must be one of"));
    }

    #[test]
    fn on_loopback_a_missing_token_is_generated_and_kept() {
        let start = Start::new();
        let resolved = start.resolve("{gateway: {mode: 'local'}}").expect("it starts");
        let file = start.locations().state().token_file();
        let kept = read_token(start.locations().state()).expect("it reads").expect("it is kept");
        assert_eq!(auth(&resolved), ("token", kept.expose_secret()));
        assert_eq!(file.metadata().expect("it exists").permissions().mode() & 0o777, 0o600);
        assert_eq!(source(&resolved, "token"), format!("generated in {}", file.display()));
        let again = start.resolve("{gateway: {mode: 'local'}}").expect("it starts");
        assert_eq!(auth(&again), auth(&resolved));
    }

    #[test]
    fn levels_are_flag_then_environment_then_file() {
        let config = "{gateway: {mode: 'local'}, logging: {level: 'warn', consoleLevel: 'error', maxFileBytes: 5, filters: {wire: 'trace'}}}";
        for (flag, variable, verbose, file, console) in [
            (None, None, false, "warn,wire=trace", "error,wire=trace"),
            (None, None, true, "warn,wire=trace", "debug,wire=trace"),
            (None, Some("fatal"), false, "error", "error"),
            (None, Some("warn,runs=debug"), false, "warn,runs=debug", "warn,runs=debug"),
            (Some(LogLevel::Silent), Some("fatal"), false, "off", "off"),
            (Some(LogLevel::Trace), None, true, "trace", "trace"),
        ] {
            let start = Start::with(|start| {
                start.options.log_level = flag;
                start.options.verbose = verbose;
                start.variables.extend(variable.map(|value| (env::LOG_LEVEL, value)));
            });
            let log = start.resolve(config).expect("it starts").log;
            let said = (log.file.to_string(), log.console.to_string(), log.max_file_bytes);
            assert_eq!(said, (file.to_owned(), console.to_owned(), 5));
        }
        let log = Start::new().resolve("{gateway: {mode: 'local'}}").expect("it starts").log;
        assert_eq!((log.file.to_string(), log.max_file_bytes), ("info".to_owned(), 100_000_000));
        let start = Start::with(|start| start.variables.push((env::LOG_LEVEL, "info,wire=loud")));
        assert_eq!(
            start.error("{gateway: {mode: 'local'}}").0,
            "env OPENCLAW_LOG_LEVEL must be one of \"silent\", \"fatal\", \"error\", \"warn\", \"info\", \
             \"debug\", \"trace\", not \"loud\""
        );
    }

    #[test]
    fn the_log_file_may_be_elsewhere_and_restarts_and_silent_pairing_may_be_forbidden() {
        let start = Start::new();
        let home = start.directory.path();
        let resolved = start.resolve("{gateway: {mode: 'local'}}").expect("it starts");
        assert_eq!(resolved.settings.log_file, home.join(".openclaw/gateway/logs/openclaw.log"));
        assert!(resolved.allows_restart && resolved.settings.auto_approve_local);
        let resolved = start
            .resolve("{gateway: {mode: 'local', nodes: {pairing: {autoApproveLocal: false}}}, logging: {file: '~/my.log'}, commands: {restart: false}}")
            .expect("it starts");
        assert_eq!(resolved.settings.log_file, home.join("my.log"));
        assert!(!resolved.allows_restart && !resolved.settings.auto_approve_local);
    }

    #[test]
    fn agents_have_a_default_and_a_workspace_each() {
        let start = Start::new();
        let state = start.directory.path().join(".openclaw");
        let agents = |section: &str| {
            let config = format!("{{gateway: {{mode: 'local'}}, agents: {{{section}}}}}");
            start.resolve(&config).expect("it starts").settings.agents
        };
        let list = |agents: &Agents| -> Vec<(String, PathBuf)> {
            agents.list.iter().map(|agent| (agent.id.clone(), agent.workspace.clone())).collect()
        };

        let found = agents("");
        assert_eq!(found.default_id, "main");
        assert_eq!(list(&found), [("main".to_owned(), state.join("workspace"))]);

        let found =
            agents("defaults: {workspace: 'w', model: 'echo/echo'}, entries: {a: {}, main: {model: 'm/m'}}");
        assert_eq!(found.default_id, "main");
        assert_eq!(
            list(&found),
            [("a".to_owned(), state.join("workspace-a")), ("main".to_owned(), state.join("w"))]
        );
        let models: Vec<_> = found.list.iter().map(|agent| agent.model.as_deref()).collect();
        assert_eq!(models, [Some("echo/echo"), Some("m/m")]);

        let found =
            agents("entries: {a: {}, b: {default: true, workspace: '/b', identity: {name: 'Bee'}}, c: {}}");
        assert_eq!(found.default_id, "b");
        assert_eq!(found.list[1].name.as_deref(), Some("Bee"));
        assert_eq!(list(&found)[1].1, PathBuf::from("/b"));
        assert_eq!(agents("entries: {x: {}, y: {}}").default_id, "x");

        let config =
            "{gateway: {mode: 'local'}, agents: {entries: {a: {default: true}, b: {default: true}}}}";
        let resolved = start.resolve(config).expect("it starts");
        assert_eq!(resolved.settings.agents.default_id, "a");
        assert_eq!(
            resolved.warnings,
            [format!(
                "agents.entries.b in {} is a default too; `a` is the first and counts",
                start.config_file().display()
            )]
        );
    }

    #[test]
    fn this_machine_has_a_loopback_address() {
        assert!(Host::current().addresses.contains(&IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }
}
