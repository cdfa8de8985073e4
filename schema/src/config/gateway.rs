//! The section `gateway`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    AuthMode, BindMode, GatewayMode, Port, ReloadMode, RemoteTransport, Secret, Sourced, SshHostKeyPolicy,
    TailscaleMode, Texts, defaults,
};
use crate::types::Bounded;

/// The longest time that a key takes: a week, in milliseconds.
const WEEK_MS: u64 = 604_800_000;

/// The section `gateway`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Gateway {
    /// Where the gateway of this configuration is. A gateway starts when this is `local`, unless
    /// `--allow-unconfigured` is given; client commands call `remote.url` when it is `remote`.
    pub mode: Option<Sourced<GatewayMode>>,
    /// The port that the gateway listens on, and that client commands on this machine call: 1 to 65535. By default
    /// 18789; 19001 for the profile `dev`; other profiles have one of their own. `--port` and `OPENCLAW_GATEWAY_PORT`
    /// come before it.
    pub port: Option<Sourced<Port>>,
    /// Which addresses the gateway listens on. Beyond loopback it needs authentication. `--bind` comes before it.
    #[schemars(extend("default" = "loopback"))]
    pub bind: Option<Sourced<BindMode>>,
    /// The IP address to listen on when `bind` is `custom`.
    pub custom_bind_host: Option<Sourced<String>>,
    /// What callers must present.
    #[schemars(extend("x-openclaw-reload" = "live"))]
    pub auth: Auth,
    /// TLS on the gateway's port.
    pub tls: Tls,
    /// The gateway on another machine that client commands call.
    #[schemars(extend("x-openclaw-reload" = "live"))]
    pub remote: Remote,
    /// Devices and nodes.
    #[schemars(extend("x-openclaw-reload" = "live"))]
    pub nodes: Nodes,
    /// Pages in a browser.
    pub control_ui: ControlUi,
    /// Proxies that are believed when they name the address of a client in `X-Forwarded-For`: addresses or networks
    /// such as `10.0.0.0/8`. By default none.
    #[schemars(extend("x-openclaw-reload" = "live"))]
    pub trusted_proxies: Option<Sourced<Texts>>,
    /// Publishing the gateway through Tailscale.
    pub tailscale: Tailscale,
    /// What happens when this file changes.
    #[schemars(extend("x-openclaw-reload" = "live"))]
    pub reload: Reload,
    /// Bounds on what callers may take up. OpenClaw has no such keys, and refuses a file that has them.
    #[schemars(extend("x-openclaw-reload" = "live"))]
    pub limits: Limits,
}

/// The section `gateway.auth`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Auth {
    /// How callers are told apart from strangers. By default `password` when there is a password, else `token`.
    /// `--auth` comes before it. `trusted-proxy` is OpenClaw's; a start with it is refused.
    pub mode: Option<Sourced<AuthMode>>,
    /// The token that callers present. Without one a gateway on loopback makes one and keeps it in its state
    /// directory. `--token` comes before it, `OPENCLAW_GATEWAY_TOKEN` after it. Beyond loopback it has at least 16
    /// characters.
    pub token: Option<Sourced<Secret>>,
    /// The password that callers present. `--password` comes before it, `OPENCLAW_GATEWAY_PASSWORD` after it. Beyond
    /// loopback it has at least 8 characters.
    pub password: Option<Sourced<Secret>>,
    /// When an address is locked out that shows wrong credentials.
    pub rate_limit: RateLimit,
}

/// The section `gateway.auth.rateLimit`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RateLimit {
    /// How many failed attempts within the window lock an address out: 1 to 1000.
    #[schemars(extend("default" = defaults::MAX_ATTEMPTS))]
    pub max_attempts: Option<Sourced<Bounded<1, 1000>>>,
    /// The window, in milliseconds: 1 to 604800000, a week.
    #[schemars(extend("default" = defaults::ATTEMPT_WINDOW_MS))]
    pub window_ms: Option<Sourced<Bounded<1, WEEK_MS>>>,
    /// For how long an address is locked out, in milliseconds: 1 to 604800000, a week.
    #[schemars(extend("default" = defaults::LOCKOUT_MS))]
    pub lockout_ms: Option<Sourced<Bounded<1, WEEK_MS>>>,
    /// Whether programs on the gateway's own host are never locked out. Pages in a browser always can be.
    #[schemars(extend("default" = true))]
    pub exempt_loopback: Option<Sourced<bool>>,
}

/// The section `gateway.tls`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Tls {
    /// Whether the port speaks TLS alone.
    #[schemars(extend("default" = false))]
    pub enabled: Option<Sourced<bool>>,
    /// Whether a certificate is made, and renewed, where `certPath` and `keyPath` are not set.
    #[schemars(extend("default" = true))]
    pub auto_generate: Option<Sourced<bool>>,
    /// The file with the certificate chain, PEM. A relative path starts at the directory of this file. Needs
    /// `keyPath`.
    pub cert_path: Option<Sourced<String>>,
    /// The file with the certificate's private key, PEM. Needs `certPath`.
    pub key_path: Option<Sourced<String>>,
}

/// The section `gateway.remote`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Remote {
    /// The gateway's address: `wss://…`, or `ws://…` on this machine.
    pub url: Option<Sourced<String>>,
    /// Its token.
    pub token: Option<Sourced<Secret>>,
    /// Its password.
    pub password: Option<Sourced<Secret>>,
    /// How it is reached.
    pub transport: Option<Sourced<RemoteTransport>>,
    /// Where it listens on its own machine, for a tunnel to it: 1 to 65535. By default the port that a gateway here
    /// would have.
    pub remote_port: Option<Sourced<Port>>,
    /// The SHA-256 of the certificate that it shows, in hexadecimal: no other is trusted.
    pub tls_fingerprint: Option<Sourced<String>>,
    /// Where `ssh` goes: `[user@]host[:port]`.
    pub ssh_target: Option<Sourced<String>>,
    /// The file with the private key for it. By default what `ssh` finds by itself.
    pub ssh_identity: Option<Sourced<String>>,
    /// Which host keys `ssh` takes.
    #[schemars(extend("default" = "strict"))]
    pub ssh_host_key_policy: Option<Sourced<SshHostKeyPolicy>>,
}

/// The section `gateway.nodes`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Nodes {
    /// How devices are paired.
    pub pairing: Pairing,
}

/// The section `gateway.nodes.pairing`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Pairing {
    /// Whether a device on the gateway's own host that shows the secret is paired without asking.
    #[schemars(extend("default" = true))]
    pub auto_approve_local: Option<Sourced<bool>>,
}

/// The section `gateway.controlUi`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ControlUi {
    /// Origins of pages that may call although the gateway does not serve them, such as `https://ui.example.com`; `*`
    /// means every page on the web. By default none.
    #[schemars(extend("x-openclaw-reload" = "live"))]
    pub allowed_origins: Option<Sourced<Texts>>,
}

/// The section `gateway.tailscale`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Tailscale {
    /// Whether, and to whom, Tailscale publishes the gateway. `--tailscale` comes before it.
    #[schemars(extend("default" = "off"))]
    pub mode: Option<Sourced<TailscaleMode>>,
    /// Whether that ends when the gateway does. `--tailscale-reset-on-exit` comes before it.
    #[schemars(extend("default" = false))]
    pub reset_on_exit: Option<Sourced<bool>>,
}

/// The section `gateway.reload`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Reload {
    /// What a running gateway does when this file changes.
    #[schemars(extend("default" = "hybrid"))]
    pub mode: Option<Sourced<ReloadMode>>,
}

/// The section `gateway.limits`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Limits {
    /// The largest message from an authenticated caller, in bytes: 65536 to 268435456.
    #[schemars(extend("default" = defaults::MAX_PAYLOAD_BYTES))]
    pub max_payload_bytes: Option<Sourced<Bounded<65_536, 268_435_456>>>,
    /// How much may wait to be written to one connection, in bytes: 65536 to 1073741824. A peer that takes nothing
    /// while more comes is closed.
    #[schemars(extend("default" = defaults::MAX_BUFFERED_BYTES))]
    pub max_buffered_bytes: Option<Sourced<Bounded<65_536, 1_073_741_824>>>,
    /// How many sockets may be open at once: 1 to 1000000.
    #[schemars(extend("default" = defaults::MAX_CONNECTIONS))]
    pub max_connections: Option<Sourced<Bounded<1, 1_000_000>>>,
    /// How many sockets may be unauthenticated at once: 1 to 65536.
    #[schemars(extend("default" = defaults::MAX_UNAUTHENTICATED))]
    pub max_unauthenticated: Option<Sourced<Bounded<1, 65_536>>>,
    /// How many calls one connection may have in flight: 1 to 65536. More are read when some are answered.
    #[schemars(extend("default" = defaults::MAX_IN_FLIGHT))]
    pub max_in_flight: Option<Sourced<Bounded<1, 65_536>>>,
    /// How many requests one batch may hold: 1 to 10000.
    #[schemars(extend("default" = defaults::MAX_BATCH))]
    pub max_batch: Option<Sourced<Bounded<1, 10_000>>>,
    /// How many subscriptions one connection may have: 1 to 10000.
    #[schemars(extend("default" = defaults::MAX_SUBSCRIPTIONS))]
    pub max_subscriptions: Option<Sourced<Bounded<1, 10_000>>>,
    /// How long a socket may stay unauthenticated, in milliseconds: 1000 to 300000.
    #[schemars(extend("default" = defaults::AUTHENTICATION_TIMEOUT_MS))]
    pub authentication_timeout_ms: Option<Sourced<Bounded<1000, 300_000>>>,
    /// How long a write may make no progress before the peer is closed, in milliseconds: 1000 to 300000.
    #[schemars(extend("default" = defaults::SEND_TIMEOUT_MS))]
    pub send_timeout_ms: Option<Sourced<Bounded<1000, 300_000>>>,
    /// How long a call may take, in milliseconds: 1000 to 3600000. Methods that wait by design have their own bound, a
    /// caller may ask for less.
    #[schemars(extend("default" = defaults::CALL_TIMEOUT_MS))]
    pub call_timeout_ms: Option<Sourced<Bounded<1000, 3_600_000>>>,
    /// How long a stopping gateway waits for calls in flight, in milliseconds: 0 to 600000.
    #[schemars(extend("default" = defaults::DRAIN_TIMEOUT_MS))]
    pub drain_timeout_ms: Option<Sourced<Bounded<0, 600_000>>>,
}
