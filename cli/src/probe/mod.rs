//! Looking at a gateway: one engine behind `gateway probe` and `gateway status`, so that they agree.
//!
//! [`look`] connects as `gateway health` does, calls what tells most, and keeps every fact that it got before the
//! deadline, whatever came after. It leaves no trace: no device identity is made, no pairing asked for. `report` judges
//! the facts of several gateways.

pub(crate) mod report;

use std::path::PathBuf;

use openclaw_client::{Client, Error, ErrorCode, Fingerprint, Scope, SecretString, TransportKind};
use openclaw_schema::methods::{
    config::ConfigMethod,
    connect::{ConnectMethod, ConnectResult},
    gateway::{ConfigStatus, GatewayIdentity, GatewayMethod, HealthResult, PresenceEntry, StatusResult},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, value::RawValue};
use tokio::time::{Instant, timeout_at};

use crate::exit::Exit;

/// Why a gateway is looked at. The order is that in which one is preferred to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// `--url`, or the environment.
    Explicit,
    /// Through a tunnel of `ssh`.
    SshTunnel,
    /// `gateway.remote.url`.
    ConfigRemote,
    /// On this machine.
    LocalLoopback,
}

impl Kind {
    /// `id` and `kind` of a target in JSON (cli.md section 5).
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Explicit => "explicit",
            Self::SshTunnel => "sshTunnel",
            Self::ConfigRemote => "configRemote",
            Self::LocalLoopback => "localLoopback",
        }
    }
}

/// A gateway to look at.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) kind: Kind,
    pub(crate) url: String,
    /// Who chose the address, in words.
    pub(crate) origin: String,
    /// Whether client commands would call it, were it not for others.
    pub(crate) active: bool,
    pub(crate) credential: Option<SecretString>,
    /// Who gave the credential, in words.
    pub(crate) credential_origin: Option<String>,
    /// Why a credential that is configured cannot be used.
    pub(crate) credential_problem: Option<String>,
    /// Where the device identity lies, if there is one.
    pub(crate) identity_dir: PathBuf,
    pub(crate) trust: Trust,
}

/// Which connections are good enough to present a credential on.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Trust {
    /// The one TLS certificate, or key, that is trusted; what the platform trusts when absent.
    pub(crate) fingerprint: Option<Fingerprint>,
    /// Whether a gateway on another host may be spoken to in plain.
    pub(crate) plaintext: bool,
}

/// How much is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Whether it lets this client in, and how it is doing.
    Connect,
    /// What needs the scope `operator.read` too.
    Read,
}

/// Why a gateway does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TroubleKind {
    /// Nobody listens, or the name does not resolve.
    Unreachable,
    /// Somebody accepted the connection, and ended it.
    Closed,
    /// The time was up.
    TimedOut,
    /// What answers is no gateway, or one of another protocol.
    Foreign,
    /// The TLS certificate is not trusted; nothing was presented.
    Untrusted,
    /// A gateway answers, and does not take the credential.
    Rejected,
    /// A gateway answers, and asks for this device to be paired first.
    Unpaired,
    /// The address cannot be used.
    Invalid,
}

impl TroubleKind {
    /// What connecting came to, for people.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Rejected | Self::Unpaired => "refused",
            Self::TimedOut => "timed out",
            Self::Foreign => "no gateway",
            Self::Untrusted => "not trusted",
            Self::Unreachable | Self::Closed | Self::Invalid => "failed",
        }
    }
}

/// Why a gateway does not answer, in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) kind: TroubleKind,
    /// One sentence, no full stop.
    pub(crate) message: String,
    /// The gateway's own code for it, such as `AUTH_TOKEN_MISMATCH`.
    pub(crate) code: Option<String>,
    /// The code and the reason with which the gateway closed the connection.
    pub(crate) close: Option<(u16, String)>,
    /// The certificate that was shown, where none was expected.
    pub(crate) shown: Option<Fingerprint>,
}

impl Trouble {
    /// Whether a gateway was there, and refused this client.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self.kind, TroubleKind::Rejected | TroubleKind::Unpaired)
    }

    /// How a command ends for which no gateway answers because of this.
    pub(crate) fn exit(&self) -> Exit {
        let is_auth = self.is_refusal() || self.kind == TroubleKind::Untrusted;
        if is_auth { Exit::Auth } else { Exit::Unreachable }
    }

    fn new(kind: TroubleKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), code: None, close: None, shown: None }
    }

    fn of(error: &Error) -> Self {
        match error {
            Error::Transport { kind: TransportKind::Unreachable, reason, .. } => {
                Self::new(TroubleKind::Unreachable, reason)
            }
            Error::Transport { kind: TransportKind::Closed { code }, reason, .. } => {
                let message = format!("the connection was closed before an answer came: {reason}");
                let close = code.map(|code| (code, reason.clone()));
                Self { close, ..Self::new(TroubleKind::Closed, message) }
            }
            Error::Transport { kind: TransportKind::Rejected { status }, reason, .. } => {
                // What proxies answer while the gateway is away.
                let kind = match status {
                    429 | 502 | 503 | 504 => TroubleKind::Closed,
                    _ => TroubleKind::Foreign,
                };
                Self::new(kind, format!("it answered HTTP {status}: {reason}"))
            }
            Error::Timeout { what, .. } => Self::new(TroubleKind::TimedOut, format!("{what} in time")),
            Error::Unauthorized { message, details } => {
                let details: Value = details
                    .as_ref()
                    .and_then(|details| serde_json::from_str(details.get()).ok())
                    .unwrap_or_default();
                let code = details["code"].as_str().map(str::to_owned);
                let is_unpaired = details.get("requestId").is_some()
                    || matches!(code.as_deref(), Some("PAIRING_REQUIRED" | "DEVICE_IDENTITY_REQUIRED"));
                let kind = if is_unpaired { TroubleKind::Unpaired } else { TroubleKind::Rejected };
                Self { code, ..Self::new(kind, message) }
            }
            Error::RateLimited { message, .. } => {
                let code = Some(ErrorCode::RateLimited.name().to_owned());
                Self { code, ..Self::new(TroubleKind::Rejected, message) }
            }
            Error::Refused(refusal) => {
                let code = Some(refusal.code_name.clone());
                Self { code, ..Self::new(TroubleKind::Closed, &refusal.message) }
            }
            Error::ProtocolMismatch { message } => Self::new(TroubleKind::Foreign, message),
            Error::BadPayload { what, reason } => {
                Self::new(TroubleKind::Foreign, format!("{what} cannot be read: {reason}"))
            }
            Error::InvalidInput { message, .. } => Self::new(TroubleKind::Invalid, message),
            Error::Untrusted { shown, expected, reason, .. } => {
                let unexpected = expected.is_none().then_some(*shown);
                let expected =
                    expected.map_or_else(String::new, |expected| format!(", expected was {expected}"));
                let message = format!("{reason}; the SHA-256 of its certificate is {shown}{expected}");
                Self { shown: unexpected, ..Self::new(TroubleKind::Untrusted, message) }
            }
            Error::Transport { kind: TransportKind::Lagged, reason, .. } => {
                Self::new(TroubleKind::Closed, reason)
            }
        }
    }
}

/// A call that was not answered as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FailedCall {
    pub(crate) method: &'static str,
    /// One sentence, no full stop.
    pub(crate) message: String,
    /// Whether only a scope was missing.
    pub(crate) is_scope: bool,
}

/// What is known of a gateway after [`look`].
#[derive(Debug, Default)]
pub(crate) struct Observation {
    /// Why it does not answer; absent when it does.
    pub(crate) trouble: Option<Trouble>,
    /// How long connecting took, the handshake included, in milliseconds.
    pub(crate) connect_ms: Option<f64>,
    /// How long one call took after that.
    pub(crate) call_ms: Option<f64>,
    pub(crate) version: Option<String>,
    pub(crate) build_id: Option<String>,
    /// Differs at every start of the gateway.
    pub(crate) boot_id: Option<String>,
    pub(crate) conn_id: Option<String>,
    pub(crate) role: Option<String>,
    /// What this client may do, by the gateway's names.
    pub(crate) scopes: Option<Vec<String>>,
    /// The same at every address of the gateway, and after every start.
    pub(crate) identity: Option<String>,
    pub(crate) health: Option<Value>,
    /// The result of method `status`.
    pub(crate) summary: Option<Value>,
    pub(crate) presence: Option<Value>,
    /// The result of method `config.get`.
    pub(crate) config: Option<Value>,
    pub(crate) failed: Vec<FailedCall>,
    /// Whether what needs `operator.read` was called too.
    pub(crate) is_deep: bool,
}

/// What the rights of a connection allow, so far as they are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Capability {
    Unknown,
    PairingPending,
    NoOperatorScope,
    ReadOnly,
    WriteCapable,
    AdminCapable,
}

impl Capability {
    /// The name in JSON (cli.md section 5).
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::PairingPending => "pairing_pending",
            Self::NoOperatorScope => "connected_no_operator_scope",
            Self::ReadOnly => "read_only",
            Self::WriteCapable => "write_capable",
            Self::AdminCapable => "admin_capable",
        }
    }

    /// The same for people.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::PairingPending => "none: pairing is pending",
            Self::NoOperatorScope => "connected, no operator scope",
            Self::ReadOnly => "read",
            Self::WriteCapable => "read and write",
            Self::AdminCapable => "everything",
        }
    }
}

impl Observation {
    /// Whether the gateway let this client in.
    pub(crate) fn answers(&self) -> bool {
        self.trouble.is_none()
    }

    /// Whether a gateway is there, were it one that refuses this client.
    pub(crate) fn is_gateway(&self) -> bool {
        self.trouble.as_ref().is_none_or(Trouble::is_refusal)
    }

    /// Whether the gateway answered a call, and says that it is well.
    pub(crate) fn is_well(&self) -> bool {
        self.health.as_ref().is_some_and(|health| health["ok"] == true)
    }

    /// Whether the calls that need `operator.read` were answered. Unknown when none was made.
    pub(crate) fn is_authorised(&self) -> Option<bool> {
        self.is_deep.then(|| self.answers() && self.summary.is_some() && self.presence.is_some())
    }

    /// Whether every call was answered.
    pub(crate) fn is_full(&self) -> bool {
        self.answers() && self.health.is_some() && self.failed.is_empty()
    }

    /// Whether only scopes were missing for that.
    pub(crate) fn is_scope_limited(&self) -> bool {
        !self.failed.is_empty() && self.failed.iter().all(|call| call.is_scope)
    }

    /// Whether it answers, but not as it should.
    pub(crate) fn is_degraded(&self) -> bool {
        self.answers() && !(self.is_full() && self.is_well())
    }

    pub(crate) fn capability(&self) -> Capability {
        match (&self.trouble, &self.scopes) {
            (Some(trouble), _) if trouble.kind == TroubleKind::Unpaired => Capability::PairingPending,
            (Some(_), _) => Capability::Unknown,
            (None, Some(scopes)) => {
                let has = |scope: Scope| scopes.iter().any(|given| given == scope.name());
                if has(Scope::OperatorAdmin) {
                    Capability::AdminCapable
                } else if has(Scope::OperatorWrite) {
                    Capability::WriteCapable
                } else if has(Scope::OperatorRead) {
                    Capability::ReadOnly
                } else {
                    Capability::NoOperatorScope
                }
            }
            // Gateways of protocol 3 do not say; what they answered shows it.
            (None, None) if self.is_authorised() == Some(true) => Capability::ReadOnly,
            (None, None) => Capability::Unknown,
        }
    }

    /// The gateway's own entry in its presence list.
    pub(crate) fn own_entry(&self) -> Option<PresenceEntry> {
        let entries: Vec<PresenceEntry> = serde_json::from_value(self.presence.clone()?).ok()?;
        let is_own = |entry: &PresenceEntry| {
            entry.mode.as_deref() == Some("gateway") || entry.reason.as_deref() == Some("self")
        };
        entries.into_iter().find(is_own)
    }

    /// Whether this is the same gateway as `other`; unknown when they have nothing in common that tells.
    pub(crate) fn is_same_as(&self, other: &Self) -> Option<bool> {
        let both = |left: &Option<String>, right: &Option<String>| Some(left.as_ref()? == right.as_ref()?);
        both(&self.identity, &other.identity).or_else(|| both(&self.boot_id, &other.boot_id))
    }

    fn in_trouble(trouble: Trouble) -> Self {
        Self { trouble: Some(trouble), ..Self::default() }
    }
}

/// Looks at a gateway until `deadline`.
pub(crate) async fn look(target: &Target, depth: Depth, deadline: Instant) -> Observation {
    let started = Instant::now();
    let left = deadline.saturating_duration_since(started);
    let asked = match depth {
        Depth::Connect => Scope::None,
        Depth::Read => Scope::OperatorRead,
    };
    let mut builder = Client::builder(&target.url)
        .connect_timeout(left)
        .call_timeout(Some(left))
        .asked_scopes([asked])
        // As the other commands, so that a gateway gives the same rights.
        .client_kind("cli", "cli")
        .device_identity(&target.identity_dir)
        .paired_only()
        .allow_plaintext(target.trust.plaintext);
    if let Some(fingerprint) = target.trust.fingerprint {
        builder = builder.tls_fingerprint(fingerprint);
    }
    if let Some(credential) = &target.credential {
        builder = builder.credential(credential.clone());
    }
    let client = match timeout_at(deadline, builder.connect()).await {
        Ok(Ok(client)) => client,
        Ok(Err(error)) => return Observation::in_trouble(target.trouble(&error)),
        Err(_) => return Observation::in_trouble(late()),
    };
    let mut seen = Observation {
        connect_ms: Some(milliseconds(started)),
        is_deep: depth == Depth::Read,
        ..Observation::default()
    };
    let caller = Caller { client: &client, deadline };

    let asked = Instant::now();
    let health = caller.call(GatewayMethod::Health.name()).await;
    seen.call_ms = health.is_ok().then(|| milliseconds(asked));
    let over_http = target.url.starts_with("http");
    match health {
        // Over JSON-RPC a caller without a credential is let in so far, and refused at the first call.
        Err(Some(error @ (Error::Unauthorized { .. } | Error::RateLimited { .. }))) => {
            return Observation::in_trouble(target.trouble(&error));
        }
        // Over HTTP nothing is sent before the first call: what it meets is what connecting met.
        Err(error) if over_http && !matches!(error, Some(Error::Refused(_))) => {
            return Observation::in_trouble(error.map_or_else(late, |error| target.trouble(&error)));
        }
        health => seen.keep(GatewayMethod::Health.name(), health, |seen, health| seen.health = Some(health)),
    }
    seen.greet(&caller, over_http).await;
    if depth == Depth::Read {
        seen.read(&caller).await;
    }
    seen.version = client.server_version().map(str::to_owned).or_else(|| seen.version_in_summary());
    // The gateway need not wait for its answer to the close frame.
    let _ = timeout_at(deadline, client.close()).await;
    seen
}

impl Target {
    fn trouble(&self, error: &Error) -> Trouble {
        let mut trouble = Trouble::of(error);
        if trouble.kind == TroubleKind::Rejected && self.credential.is_none() {
            // The gateway's own words are for programs.
            "it asks for a token or password, and none was found".clone_into(&mut trouble.message);
        }
        trouble
    }
}

fn late() -> Trouble {
    Trouble::new(TroubleKind::TimedOut, "the gateway did not answer in time")
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

/// Makes calls without params until a deadline.
struct Caller<'a> {
    client: &'a Client,
    deadline: Instant,
}

/// The error is absent when the time was up.
type Called = Result<Value, Option<Error>>;

impl Caller<'_> {
    async fn call(&self, method: &str) -> Called {
        let params = RawValue::from_string("{}".to_owned()).expect("{} is JSON");
        match timeout_at(self.deadline, self.client.call(method, params)).await {
            Ok(Ok(answer)) => Ok(serde_json::from_str(answer.get()).expect("the client hands out JSON")),
            Ok(Err(error)) => Err(Some(error)),
            Err(_) => Err(None),
        }
    }
}

impl Observation {
    /// What the gateway says of itself and of this client's rights.
    async fn greet(&mut self, caller: &Caller<'_>, over_http: bool) {
        if let Some(greeting) = caller.client.greeting() {
            self.build_id.clone_from(&greeting.build_id);
            self.boot_id.clone_from(&greeting.boot_id);
            self.conn_id.clone_from(&greeting.conn_id);
            self.role.clone_from(&greeting.role);
            self.scopes.clone_from(&greeting.scopes);
        } else if !over_http {
            let method = ConnectMethod::Connect.name();
            let greeting = caller.call(method).await;
            self.keep::<ConnectResult>(method, greeting, |seen, greeting| {
                seen.build_id = greeting.server.build_id;
                seen.boot_id = greeting.server.boot_id;
                seen.conn_id = Some(greeting.server.conn_id);
                seen.role = Some(greeting.auth.role);
                seen.scopes = Some(greeting.auth.scopes);
            });
        }
    }

    /// What needs the scope `operator.read`.
    async fn read(&mut self, caller: &Caller<'_>) {
        let (status, presence) = (GatewayMethod::Status.name(), GatewayMethod::SystemPresence.name());
        let (config, identity) = (ConfigMethod::ConfigGet.name(), GatewayMethod::GatewayIdentityGet.name());
        let answers = tokio::join!(
            caller.call(status),
            caller.call(presence),
            caller.call(config),
            caller.call(identity)
        );
        self.keep(status, answers.0, |seen, answer| seen.summary = Some(answer));
        self.keep(presence, answers.1, |seen, answer| seen.presence = Some(answer));
        // Gateways of protocol 3 show it to administrators alone.
        match answers.2 {
            Err(Some(error)) if is_scope(&error) && self.failed.is_empty() => {}
            answer => self.keep(config, answer, |seen, answer| seen.config = Some(answer)),
        }
        // Older gateways do not have it, and work without.
        let answer = answers.3.ok().and_then(|answer| serde_json::from_value::<GatewayIdentity>(answer).ok());
        self.identity = answer.map(|identity| identity.device_id);
    }

    /// Keeps the answer to a call, or why there is none.
    fn keep<T: DeserializeOwned>(
        &mut self,
        method: &'static str,
        called: Called,
        keep: impl FnOnce(&mut Self, T),
    ) {
        let (message, is_scope) = match called {
            Ok(answer) => match serde_json::from_value(answer) {
                Ok(answer) => return keep(self, answer),
                Err(problem) => (format!("the answer does not have the declared shape: {problem}"), false),
            },
            Err(Some(error)) => (Trouble::of(&error).message, is_scope(&error)),
            Err(None) => (late().message, false),
        };
        self.failed.push(FailedCall { method, message, is_scope });
    }

    fn version_in_summary(&self) -> Option<String> {
        let summary: StatusResult = serde_json::from_value(self.summary.clone()?).ok()?;
        summary.runtime_version
    }

    /// How the gateway stands to its configuration file, if it was asked and tells.
    pub(crate) fn config_status(&self) -> Option<ConfigStatus> {
        serde_json::from_value::<StatusResult>(self.summary.clone()?).ok()?.config
    }

    /// The health snapshot, if it has the declared shape.
    pub(crate) fn health_result(&self) -> Option<HealthResult> {
        serde_json::from_value(self.health.clone()?).ok()
    }
}

/// Whether only a scope is missing.
fn is_scope(error: &Error) -> bool {
    match error {
        // Gateways of protocol 3 have no code for it.
        Error::Refused(refusal) => {
            refusal.code == Some(ErrorCode::Forbidden) || refusal.message.starts_with("missing scope")
        }
        Error::InvalidInput { .. }
        | Error::Transport { .. }
        | Error::BadPayload { .. }
        | Error::Timeout { .. }
        | Error::Unauthorized { .. }
        | Error::RateLimited { .. }
        | Error::Untrusted { .. }
        | Error::ProtocolMismatch { .. } => false,
    }
}
