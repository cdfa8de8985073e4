//! How a client is set up: URL, credential, limits.

use std::{sync::Arc, time::Duration};

use openclaw_schema::Scope;
use secrecy::SecretString;

use crate::{
    Client, Error,
    connection::{Connection, Endpoint, Options},
};

/// How long connecting may take on this host.
const CONNECT_TIMEOUT_LOOPBACK: Duration = Duration::from_secs(2);
/// How long connecting to another host may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call may take: the gateway's own limit.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How large one message of the gateway may be. The gateway bounds its own at 25 MiB.
const MAX_RESPONSE_BYTES: usize = 32 * 1024 * 1024;

/// Sets up a [`Client`]. Made by [`Client::builder`].
#[derive(Debug, Clone)]
#[must_use = "nothing happens before `connect`"]
pub struct ClientBuilder {
    url: String,
    credential: Option<SecretString>,
    connect_timeout: Option<Duration>,
    call_timeout: Option<Duration>,
    scopes: Option<Vec<Scope>>,
    max_response_bytes: usize,
}

impl ClientBuilder {
    pub(crate) fn new(url: String) -> Self {
        Self {
            url,
            credential: None,
            connect_timeout: None,
            call_timeout: Some(CALL_TIMEOUT),
            scopes: None,
            max_response_bytes: MAX_RESPONSE_BYTES,
        }
    }

    /// The gateway's token or password. Sent as `Authorization: Bearer`.
    pub fn credential(mut self, credential: SecretString) -> Self {
        self.credential = Some(credential);
        self
    }

    /// How long connecting may take, TLS and the WebSocket upgrade included. By default 2 seconds to a loopback
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

    /// How large one message of the gateway may be, in bytes. 32 MiB by default.
    pub fn max_response_bytes(mut self, bytes: usize) -> Self {
        self.max_response_bytes = bytes;
        self
    }

    /// Connects. Over HTTP nothing is sent before the first call.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] for a URL or credential that cannot be used, [`Error::Transport`] and
    /// [`Error::Timeout`] when the gateway cannot be reached, [`Error::Unauthorized`] for a wrong credential,
    /// [`Error::ProtocolMismatch`] when the other side is no gateway of this kind.
    pub async fn connect(self) -> Result<Client, Error> {
        let endpoint = Endpoint::parse(&self.url)?;
        let default = if endpoint.loopback { CONNECT_TIMEOUT_LOOPBACK } else { CONNECT_TIMEOUT };
        let options = Options::new(
            self.credential.as_ref(),
            self.scopes.as_deref(),
            self.connect_timeout.unwrap_or(default),
            self.call_timeout,
            self.max_response_bytes,
        )?;
        let connection = Connection::open(&endpoint, &options).await?;
        Ok(Client { connection: Arc::new(connection) })
    }
}
