//! What a gateway runs with: resolved, validated, ready to use. Where the values come from is the business of
//! `config`; an embedding program may also write them down itself.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use openclaw_schema::{config::defaults, discovery::InterfaceRules};
use secrecy::SecretString;

use crate::{backend::settings::ModelSettings, state::StateDir, tls::TlsSettings, trust::Trust};

/// What a gateway runs with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The addresses to listen on, all with the same port. Port 0 asks the system for a free one.
    pub listen: Vec<SocketAddr>,
    /// What callers must present.
    pub auth: Auth,
    /// Whether a device on the gateway's own host that shows the secret is paired without asking.
    /// wire.md section 6: `gateway.nodes.pairing.autoApproveLocal`, true by default.
    pub auto_approve_local: bool,
    /// How the port speaks TLS; plain when absent.
    pub tls: Option<TlsSettings>,
    /// Whom the gateway trusts beyond its own host.
    pub trust: Trust,
    /// A port of its own for a proxy on this host, such as tailscale's; absent when there is none.
    pub proxy: Option<ProxyPort>,
    /// Where the gateway keeps its state.
    pub state: StateDir,
    /// The configuration file, which `config.get` shows. It need not be there.
    pub config_file: PathBuf,
    /// The log file that `logs.tail` reads.
    pub log_file: PathBuf,
    /// The agents.
    pub agents: Agents,
    /// How the gateway is announced to the networks it is on; absent when it is not.
    pub discovery: Option<Announcement>,
    /// What answers runs.
    pub models: ModelSettings,
    /// The bounds.
    pub limits: Limits,
}

/// A port for a proxy on the gateway's own host that passes on what others ask: a free one of 127.0.0.1, in plain text.
///
/// Whoever comes in there is somebody else, at the address that the proxy names in `X-Forwarded-For`. Being on this
/// host gains nothing there: no device is paired without asking, and failed attempts are held against the address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyPort {
    /// Where callers reach the proxy, such as `wss://gateway.example.com`. Pages may address the gateway by its host,
    /// and setup codes name it.
    pub url: String,
}

/// What callers must present.
#[derive(Debug, Clone)]
pub enum Auth {
    /// Nothing: every caller has every scope.
    None,
    /// This token.
    Token(SecretString),
    /// This password.
    Password(SecretString),
}

/// The agents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agents {
    /// The agent that serves calls that name none. Invariant: an id in `list`.
    pub default_id: String,
    /// All of them.
    pub list: Vec<Agent>,
}

/// One agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Its id.
    pub id: String,
    /// Its name for people.
    pub name: Option<String>,
    /// The directory it works in.
    pub workspace: PathBuf,
    /// The model it uses, as `provider/id`; the back end's default when absent.
    pub model: Option<String>,
}

/// How a gateway is announced to the networks it is on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Announcement {
    /// The host's name, instead of the system's.
    pub host_name: Option<String>,
    /// Hints for SSH; absent in minimal mode.
    pub hints: Option<SshHints>,
    /// The network interfaces that it is announced on.
    pub interfaces: InterfaceRules,
}

/// Hints for those who reach a host with SSH. They tell strangers about the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshHints {
    /// The port of the SSH server.
    pub ssh_port: u16,
    /// Where the command line lies.
    pub cli_path: Option<String>,
    /// The host's name in its tailnet.
    pub tailnet_dns: Option<String>,
}

/// The bounds of a gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The largest message from an authenticated caller, in bytes. wire.md section 1: 25 MiB.
    pub max_payload_bytes: usize,
    /// The largest message before authentication, in bytes. wire.md section 1: 64 KiB.
    pub max_unauthenticated_payload_bytes: usize,
    /// How many bytes may wait to be written to one connection. wire.md section 1: 50 MiB.
    pub max_buffered_bytes: usize,
    /// How long a socket may stay unauthenticated. wire.md section 1: 15 seconds.
    pub authentication_timeout: Duration,
    /// How many sockets may be unauthenticated at once.
    pub max_unauthenticated: usize,
    /// How many sockets may be open at once.
    pub max_connections: usize,
    /// How long the header of an HTTP request may take, silence included.
    pub header_timeout: Duration,
    /// How long the body of an HTTP request may bring nothing new.
    pub body_timeout: Duration,
    /// How many calls one connection may have in flight; more are read when some are answered.
    pub max_in_flight: usize,
    /// How many requests one batch may hold.
    pub max_batch: usize,
    /// How many subscriptions one connection may have.
    pub max_subscriptions: u32,
    /// How many items of its subscriptions may wait for one connection.
    pub subscription_queue: usize,
    /// How long a write may make no progress before the peer counts as a slow consumer. By default eight seconds: with
    /// the time that the system's own buffers take to fill, a peer that stops reading is closed within ten.
    pub send_timeout: Duration,
    /// How long a call may take, unless the method waits by design or the caller asks for less.
    pub call_timeout: Duration,
    /// Time between two pings. wire.md section 1: 25 seconds; no pong by the next one ends the connection.
    pub ping_interval: Duration,
    /// Time between two `tick` events. wire.md section 1: 30 seconds.
    pub tick_interval: Duration,
    /// How long a stopping gateway waits for calls in flight.
    pub drain_timeout: Duration,
    /// When callers that guess are kept out.
    pub lockout: LockoutLimits,
}

/// The bounds in force, which may change while a gateway runs. A connection keeps those that it began with.
pub(crate) type LiveLimits = Arc<ArcSwap<Limits>>;

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_payload_bytes: count(defaults::MAX_PAYLOAD_BYTES),
            max_unauthenticated_payload_bytes: 65_536,
            max_buffered_bytes: count(defaults::MAX_BUFFERED_BYTES),
            authentication_timeout: Duration::from_millis(defaults::AUTHENTICATION_TIMEOUT_MS),
            max_unauthenticated: count(defaults::MAX_UNAUTHENTICATED),
            max_connections: count(defaults::MAX_CONNECTIONS),
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(10),
            max_in_flight: count(defaults::MAX_IN_FLIGHT),
            max_batch: count(defaults::MAX_BATCH),
            max_subscriptions: defaults::MAX_SUBSCRIPTIONS as u32,
            subscription_queue: 256,
            send_timeout: Duration::from_millis(defaults::SEND_TIMEOUT_MS),
            call_timeout: Duration::from_millis(defaults::CALL_TIMEOUT_MS),
            ping_interval: Duration::from_secs(25),
            tick_interval: Duration::from_secs(30),
            drain_timeout: Duration::from_millis(defaults::DRAIN_TIMEOUT_MS),
            lockout: LockoutLimits::default(),
        }
    }
}

/// A default of the configuration as the number of things in memory.
const fn count(default: u64) -> usize {
    default as usize
}

/// When callers that guess are kept out. wire.md section 4; stock's section `gateway.auth.rateLimit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockoutLimits {
    /// How many failed attempts within the window lock an address out; at least 1.
    pub max_attempts: usize,
    /// The window.
    pub window: Duration,
    /// For how long an address is locked out.
    pub lockout: Duration,
    /// Whether programs on the gateway's own host are never locked out. Pages in a browser always may be.
    pub exempt_loopback: bool,
}

impl Default for LockoutLimits {
    fn default() -> Self {
        Self {
            max_attempts: count(defaults::MAX_ATTEMPTS),
            window: Duration::from_millis(defaults::ATTEMPT_WINDOW_MS),
            lockout: Duration::from_millis(defaults::LOCKOUT_MS),
            exempt_loopback: true,
        }
    }
}
