//! Who is calling: the state of one connection that its calls share.

use std::{
    collections::HashSet,
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    time::Duration,
};

use openclaw_schema::{Scope, Scopes};

use crate::{
    auth::{AuthMethod, Authenticator, CurrentAuth, Refusal},
    caller::Caller,
    devices::{Credential, Grant, live::DeviceLink},
    events::Audience,
};

/// What carries the calls of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// A WebSocket that speaks JSON-RPC.
    WebSocket,
    /// A WebSocket that speaks OpenClaw frames.
    Frames,
    /// One HTTP request.
    Http,
}

/// How many sessions one connection may ask for the messages of.
const MAX_WATCHED: usize = 256;

/// What a connection asked to be told of, beside what everyone is.
#[derive(Debug, Default)]
struct Watched {
    sessions: bool,
    /// Keys in full.
    messages: HashSet<String>,
}

/// One connection; over HTTP, one request. Reaches handlers declared `with_extensions` as `Arc<Connection>`.
pub struct Connection {
    id: u64,
    remote: SocketAddr,
    caller: Caller,
    transport: Transport,
    /// The caller's own bound on each call.
    call_timeout: Option<Duration>,
    auth: CurrentAuth,
    /// What let the caller in, unless it was the token of a device or a setup code.
    admitted_by: OnceLock<Arc<Authenticator>>,
    authenticated: AtomicBool,
    scopes: AtomicU8,
    /// The paired device behind it.
    device: OnceLock<DeviceLink>,
    /// Set when a wrong credential was shown.
    refused: AtomicBool,
    watched: Mutex<Watched>,
}

impl Connection {
    pub(crate) fn new(
        id: u64,
        remote: SocketAddr,
        caller: Caller,
        transport: Transport,
        call_timeout: Option<Duration>,
        auth: CurrentAuth,
    ) -> Self {
        Self {
            id,
            remote,
            caller,
            transport,
            call_timeout,
            auth,
            admitted_by: OnceLock::new(),
            authenticated: AtomicBool::new(false),
            scopes: AtomicU8::new(Scopes::EMPTY.to_bits()),
            device: OnceLock::new(),
            refused: AtomicBool::new(false),
            watched: Mutex::default(),
        }
    }

    /// A number that no other connection of this process has.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The other end of the connection: the client, or the proxy between.
    #[must_use]
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Who is behind it.
    pub(crate) fn caller(&self) -> Caller {
        self.caller
    }

    /// What carries the calls.
    #[must_use]
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// The caller's own bound on each call, if it named one.
    #[must_use]
    pub fn call_timeout(&self) -> Option<Duration> {
        self.call_timeout
    }

    /// The scopes that the caller holds now.
    #[must_use]
    pub fn scopes(&self) -> Scopes {
        Scopes::from_bits(self.scopes.load(Ordering::Acquire))
    }

    /// Whether the caller has shown a good credential.
    #[must_use]
    pub fn is_authenticated(&self) -> bool {
        self.authenticated.load(Ordering::Acquire)
    }

    /// What a caller that has shown no credential is told; `None` when it has, or when none is asked for.
    pub(crate) fn missing_credential(&self) -> Option<Refusal> {
        if self.is_authenticated() { None } else { self.auth.get().check(None).err() }
    }

    pub(crate) fn auth_method(&self) -> AuthMethod {
        self.auth.get().method()
    }

    /// Which of the two fields of a handshake is its secret; empty ones are none.
    pub(crate) fn secret_of<'a>(&self, token: Option<&'a str>, password: Option<&'a str>) -> Option<&'a str> {
        self.auth.get().secret_of(token, password).filter(|secret| !secret.is_empty())
    }

    /// Checks a credential and grants what it is worth, narrowed to `asked`.
    pub(crate) fn authenticate(
        &self,
        credential: Option<&str>,
        asked: Option<Scopes>,
    ) -> Result<Scopes, Refusal> {
        let authenticator = self.auth.get();
        let granted = authenticator.check(credential)?;
        // A connection is let in once; the first stays.
        let _ = self.admitted_by.set(authenticator);
        let scopes = asked.map_or(granted, |asked| granted.narrowed_to(asked));
        self.scopes.store(scopes.to_bits(), Ordering::Release);
        self.authenticated.store(true, Ordering::Release);
        Ok(scopes)
    }

    /// Lets the caller in with what its handshake was granted: scopes that the gateway does not know count for
    /// nothing. `by` was in force when the handshake began: should it have been replaced meanwhile, the caller has to
    /// come again.
    pub(crate) fn admit(&self, grant: Grant, by: Arc<Authenticator>) {
        if matches!(grant.credential, Credential::Secret(_)) {
            let _ = self.admitted_by.set(by);
        }
        let scopes: Scopes = grant.scopes.iter().filter_map(|name| Scope::from_name(name)).collect();
        if let Some(link) = grant.link {
            // A connection has one handshake; the first stays.
            let _ = self.device.set(link);
        }
        self.scopes.store(scopes.to_bits(), Ordering::Release);
        self.authenticated.store(true, Ordering::Release);
    }

    /// The paired device behind the connection, if it is one's.
    pub(crate) fn device(&self) -> Option<&DeviceLink> {
        self.device.get()
    }

    /// Whether a credential is good. Changes nothing.
    pub(crate) fn check(&self, credential: Option<&str>) -> Result<(), Refusal> {
        self.auth.get().check(credential).map(drop)
    }

    /// Gives up the scopes that are not in `asked`.
    pub(crate) fn narrow(&self, asked: Scopes) -> Scopes {
        let scopes = self.scopes().narrowed_to(asked);
        self.scopes.store(scopes.to_bits(), Ordering::Release);
        scopes
    }

    /// Whether the connection is told of changes of sessions from now on.
    pub(crate) fn watch_sessions(&self, watch: bool) {
        self.watched().sessions = watch;
    }

    /// Lets the connection be told of the messages of a session, given by its key in full. `false` when it is told of too
    /// many already.
    pub(crate) fn watch_messages(&self, key: &str) -> bool {
        let mut watched = self.watched();
        let has_room = watched.messages.len() < MAX_WATCHED || watched.messages.contains(key);
        if has_room {
            watched.messages.insert(key.to_owned());
        }
        has_room
    }

    /// Ends what [`Connection::watch_messages`] began.
    pub(crate) fn unwatch_messages(&self, key: &str) {
        self.watched().messages.remove(key);
    }

    /// Whether an event is for this connection, as far as it must have asked for it.
    pub(crate) fn watches(&self, audience: &Audience) -> bool {
        match audience {
            Audience::Everyone => true,
            Audience::OfSessions => self.watched().sessions,
            Audience::OfSession(key) => self.watched().messages.contains(key),
        }
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses every further call, and asks for the connection to be closed after the answers that are on their way.
    pub(crate) fn refuse(&self) {
        self.refused.store(true, Ordering::Release);
    }

    /// What decides about callers now.
    pub(crate) fn auth(&self) -> &CurrentAuth {
        &self.auth
    }

    /// Whether the caller was let in by a secret that is in force no more.
    pub(crate) fn is_outdated(&self) -> bool {
        self.admitted_by.get().is_some_and(|by| by.is_replaced())
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Acquire)
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("id", &self.id)
            .field("remote", &self.remote)
            .field("transport", &self.transport)
            .field("authenticated", &self.is_authenticated())
            .field("scopes", &self.scopes())
            .finish_non_exhaustive()
    }
}
