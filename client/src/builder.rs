//! How a client is set up: URL, credential, limits, and what it tells gateways about itself.

use std::{path::PathBuf, sync::Arc, time::Duration};

use openclaw_schema::Scope;
use secrecy::SecretString;

use crate::{
    Client, Error, Fingerprint,
    connection::{ClientInfo, Connection, Endpoint, FrameOptions, Options},
    identity::IdentityDir,
    reconnect::{Backoff, Policy},
};

/// How long connecting may take on this host.
const CONNECT_TIMEOUT_LOOPBACK: Duration = Duration::from_secs(2);
/// How long connecting to another host may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call may take: the gateway's own limit.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How large one message of the gateway may be. The gateway bounds its own at 25 MiB.
const MAX_RESPONSE_BYTES: usize = 32 * 1024 * 1024;

/// What is asked of a gateway that grants no more than that. `operator.admin` implies all others; the others are for
/// gateways that grant what they can of the list.
const ALL_SCOPES: [Scope; 5] = [
    Scope::OperatorRead,
    Scope::OperatorWrite,
    Scope::OperatorAdmin,
    Scope::OperatorApprovals,
    Scope::OperatorPairing,
];
/// What OpenClaw calls this platform: Node's names.
const PLATFORM: &str = match std::env::consts::OS.as_bytes() {
    b"macos" => "darwin",
    b"windows" => "win32",
    _ => std::env::consts::OS,
};

/// Sets up a [`Client`]. Made by [`Client::builder`].
#[derive(Debug, Clone)]
#[must_use = "nothing happens before `connect`"]
pub struct ClientBuilder {
    url: String,
    credential: Option<SecretString>,
    connect_timeout: Option<Duration>,
    call_timeout: Option<Duration>,
    scopes: Option<Vec<Scope>>,
    asked_scopes: Option<Vec<Scope>>,
    client: ClientInfo,
    identity: Option<IdentityDir>,
    paired_only: bool,
    max_response_bytes: usize,
    tls_fingerprint: Option<Fingerprint>,
    allow_plaintext: bool,
    reconnect: Option<Backoff>,
    repeats: bool,
}

impl ClientBuilder {
    pub(crate) fn new(url: String) -> Self {
        Self {
            url,
            credential: None,
            connect_timeout: None,
            call_timeout: Some(CALL_TIMEOUT),
            scopes: None,
            asked_scopes: None,
            client: ClientInfo {
                id: "gateway-client".to_owned(),
                mode: "backend".to_owned(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                platform: PLATFORM.to_owned(),
            },
            identity: None,
            paired_only: false,
            max_response_bytes: MAX_RESPONSE_BYTES,
            tls_fingerprint: None,
            allow_plaintext: false,
            reconnect: None,
            repeats: false,
        }
    }

    /// The gateway's token or password. Sent as `Authorization: Bearer`, and over OpenClaw frames in `connect`.
    pub fn credential(mut self, credential: SecretString) -> Self {
        self.credential = Some(credential);
        self
    }

    /// How long connecting may take, TLS, the WebSocket upgrade and the handshake included. A gateway that says
    /// that it is starting is tried again until then. By default 2 seconds to a loopback
    /// address, 5 seconds to any other.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = Some(limit);
        self
    }

    /// How long one call may take; `None` for no limit. 30 seconds by default.
    ///
    /// The gateway is told, so that it gives up as well. A call that waits on purpose, such as `agent.wait`, may
    /// take as much longer as its own `timeoutMs` says.
    pub fn call_timeout(mut self, limit: Option<Duration>) -> Self {
        self.call_timeout = limit;
        self
    }

    /// Narrows the rights of this client to `scopes`. By default it has all that its credential grants.
    pub fn scopes(mut self, scopes: impl IntoIterator<Item = Scope>) -> Self {
        self.scopes = Some(scopes.into_iter().collect());
        self
    }

    /// What to ask of a gateway that speaks OpenClaw frames: it grants no more than it is asked for. By default
    /// what [`ClientBuilder::scopes`] says, or else everything. Over JSON-RPC a credential grants all it can.
    pub fn asked_scopes(mut self, scopes: impl IntoIterator<Item = Scope>) -> Self {
        self.asked_scopes = Some(scopes.into_iter().collect());
        self
    }

    /// What kind of client this program is, to a gateway that speaks OpenClaw frames. Such gateways know a fixed
    /// list of ids and modes, and give rights by them. By default `gateway-client` and `backend`.
    pub fn client_kind(mut self, id: impl Into<String>, mode: impl Into<String>) -> Self {
        self.client.id = id.into();
        self.client.mode = mode.into();
        self
    }

    /// The version and the platform that such a gateway is told, and shows to others. By default those of this
    /// library, and the name that Node has for this platform. A paired device must not change its platform.
    pub fn client_version(mut self, version: impl Into<String>, platform: impl Into<String>) -> Self {
        self.client.version = version.into();
        self.client.platform = platform.into();
        self
    }

    /// The directory with the device identity of this program, for gateways that speak OpenClaw frames. The key is
    /// made there when it is first needed, and the tokens that gateways give to this device are kept there.
    ///
    /// A device is shown when there is no credential, to gateways on other hosts, and when a gateway asks for one.
    /// By default there is none.
    pub fn device_identity(mut self, directory: impl Into<PathBuf>) -> Self {
        self.identity = Some(IdentityDir::new(directory.into()));
        self
    }

    /// Shows the device only to a gateway that has given it a token, and makes none: connecting then leaves no trace,
    /// such as a request for pairing.
    pub fn paired_only(mut self) -> Self {
        self.paired_only = true;
        self
    }

    /// How large one message of the gateway may be, in bytes. 32 MiB by default.
    pub fn max_response_bytes(mut self, bytes: usize) -> Self {
        self.max_response_bytes = bytes;
        self
    }

    /// Trusts the TLS certificate, or key, of this fingerprint and no other, whoever signed it. By default what the
    /// platform trusts. No effect on plain connections.
    pub fn tls_fingerprint(mut self, fingerprint: Fingerprint) -> Self {
        self.tls_fingerprint = Some(fingerprint);
        self
    }

    /// Speaks `ws` or `http` to other hosts too, where everyone on the way reads the credential and what is said. By
    /// default only to this host, and to addresses of a tailnet, which encrypts by itself.
    pub fn allow_plaintext(mut self, allow: bool) -> Self {
        self.allow_plaintext = allow;
        self
    }

    /// Makes a new connection whenever one breaks, for programs that live long. By default a connection that has
    /// ended stays so.
    ///
    /// Calls made meanwhile wait, within their limit. Calls that were on their way fail, and the error says that the
    /// gateway may have carried them out. [`Client::events`] goes on and says so. [`Client::state`] tells how things
    /// stand; what waiting cannot mend, such as a wrong credential, is not tried again:
    /// [`PauseReason`](crate::PauseReason) lists it. The first connection is made by `connect`, which fails when it
    /// does. Without effect over HTTP.
    pub fn reconnect(mut self, backoff: Backoff) -> Self {
        self.reconnect = Some(backoff);
        self
    }

    /// Makes calls that broke off again on the next connection, when the contract says that their method is
    /// idempotent. By default none is. Without effect on a client that does not reconnect.
    pub fn repeat_idempotent_calls(mut self, repeat: bool) -> Self {
        self.repeats = repeat;
        self
    }

    /// Connects. Over HTTP nothing is sent before the first call.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] for a URL or credential that cannot be used, [`Error::Transport`] and
    /// [`Error::Timeout`] when the gateway cannot be reached, [`Error::Unauthorized`] for a wrong credential,
    /// [`Error::ProtocolMismatch`] when the other side is no gateway, or one of another protocol version.
    pub async fn connect(self) -> Result<Client, Error> {
        let endpoint = Endpoint::parse(&self.url)?;
        if endpoint.is_exposed() && !self.allow_plaintext {
            return Err(Error::invalid(format!(
                "{} is plain, and everyone on the way would read the credential: use {}s://, a tunnel, or allow it",
                endpoint.shown,
                if endpoint.websocket { "ws" } else { "http" },
            )));
        }
        let default = if endpoint.loopback { CONNECT_TIMEOUT_LOOPBACK } else { CONNECT_TIMEOUT };
        let paired_only = self.paired_only;
        let identity =
            self.identity.filter(|identity| !paired_only || identity.is_paired(&endpoint.authority));
        let frames = FrameOptions {
            credential: self.credential,
            client: self.client,
            scopes: self.asked_scopes.or_else(|| self.scopes.clone()).unwrap_or_else(|| ALL_SCOPES.to_vec()),
            identity,
        };
        let options = Options::new(
            frames,
            self.scopes.as_deref(),
            self.connect_timeout.unwrap_or(default),
            self.call_timeout,
            self.max_response_bytes,
            self.tls_fingerprint,
        )?;
        let reconnect = self.reconnect.map(|backoff| Policy { backoff, repeats: self.repeats });
        let connection = Connection::open(endpoint, options, reconnect).await?;
        Ok(Client { connection: Arc::new(connection) })
    }
}
