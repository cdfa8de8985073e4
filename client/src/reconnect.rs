//! Connections that outlive their sockets: when one breaks, another takes its place.
//!
//! One task per client watches the socket of the day. It knows when to try again and how long to wait before, and
//! when not to: see [`PauseReason`] (wire.md section 12, the reactions of the reference client). Calls look here for
//! the socket to go out on, and wait while there is none.

use std::{fmt, pin::pin, sync::Arc, time::Duration};

use jsonrpsee::{core::client::Subscription, types::ErrorObjectOwned};
use openclaw_schema::methods;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use tokio::{
    sync::{Notify, watch},
    task::AbortHandle,
};

use crate::{
    connection::{Endpoint, Options},
    error::{Error, TransportKind},
    frames::OutcomeReceiver,
    handshake::Greeting,
    websocket::WebSocket,
};

/// The wait before the first attempt (wire.md section 12).
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// The longest wait between two attempts (wire.md section 12).
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// How long to wait before each attempt to reconnect: twice as long each time, up to a longest wait. A connection
/// that was made begins anew.
///
/// Of each wait a random half is taken off at most, so that the clients of a gateway that restarts do not all come
/// back at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
}

impl Backoff {
    /// Waits `first` before the first attempt, and never longer than `longest`.
    #[must_use]
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest }
    }

    /// The wait before attempt number `attempt`, of which 1 is the first. `random` is evenly spread.
    fn delay(self, attempt: u32, random: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let whole = self.first.saturating_mul(1 << doublings).min(self.longest);
        whole - (whole / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

impl Default for Backoff {
    /// One second first, thirty at most.
    fn default() -> Self {
        Self::new(FIRST_DELAY, LONGEST_DELAY)
    }
}

/// How a client stands to its gateway. [`Client::state`](crate::Client::state) watches it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ConnectionState {
    /// Calls go out.
    Connected {
        /// The version of the gateway, as far as it told.
        server_version: Option<String>,
    },
    /// The connection broke; calls wait for the next one.
    Reconnecting {
        /// The number of the attempt that comes next; 1 is the first.
        attempt: u32,
        /// How long after this state began it comes.
        after: Duration,
        /// Why the connection broke, or why the attempt before failed.
        cause: Error,
    },
    /// Nothing is tried any more: another attempt would end the same. Calls fail with the cause, until
    /// [`Client::resume`](crate::Client::resume).
    Paused {
        /// What stands in the way.
        reason: PauseReason,
        /// What the gateway said.
        cause: Error,
    },
    /// The client was closed or, if it does not reconnect, its connection has ended.
    Closed,
}

/// Why a client stopped to reconnect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PauseReason {
    /// The gateway takes this credential or this device no longer. To try on makes callers be locked out.
    Unauthorized,
    /// Somebody is to approve this device first. The cause names the request.
    PairingRequired,
    /// Too many wrong credentials came from here: the gateway refuses right ones too, for minutes.
    RateLimited,
    /// The gateway shows a TLS certificate that is not trusted.
    Untrusted,
    /// The other side is no gateway, or speaks other versions of the protocol.
    ProtocolMismatch,
    /// The gateway refuses what this client asks for, and does not say that this will pass.
    Refused,
}

impl PauseReason {
    /// What `error` says about further attempts; nothing if they make sense.
    fn of(error: &Error) -> Option<Self> {
        #[derive(Default, Deserialize)]
        #[serde(default, rename_all = "camelCase")]
        struct Details {
            code: String,
            /// A gateway that expects an approval any moment says `false`.
            pause_reconnect: Option<bool>,
        }
        match error {
            Error::Transport { .. } | Error::Timeout { .. } | Error::BadPayload { .. } => None,
            Error::ProtocolMismatch { .. } => Some(Self::ProtocolMismatch),
            Error::Untrusted { .. } => Some(Self::Untrusted),
            Error::InvalidInput { .. } => Some(Self::Refused),
            Error::RateLimited { .. } => Some(Self::RateLimited),
            Error::Refused(_) => (!error.is_retryable()).then_some(Self::Refused),
            Error::Unauthorized { details, .. } => {
                let details: Details = details
                    .as_deref()
                    .and_then(|details| serde_json::from_str(details.get()).ok())
                    .unwrap_or_default();
                if details.pause_reconnect == Some(false) {
                    return None;
                }
                Some(match details.code.as_str() {
                    "PAIRING_REQUIRED" => Self::PairingRequired,
                    _ => Self::Unauthorized,
                })
            }
        }
    }
}

/// How a client reconnects.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Policy {
    pub(crate) backoff: Backoff,
    /// Whether calls that broke off are made again when their method is idempotent.
    pub(crate) repeats: bool,
}

/// What calls go out on.
#[derive(Clone)]
enum Link {
    Up(Arc<WebSocket>),
    /// There will be one.
    Down,
    /// There will be none, unless somebody resumes; why.
    Over(Error),
}

/// A connection that is made anew when it breaks. Ends with this value.
pub(crate) struct Lasting {
    shared: Arc<Shared>,
    supervisor: AbortHandle,
    /// Of the first connection; [`ConnectionState::Connected`] has the current one.
    server_version: Option<String>,
    /// Of the first connection, over OpenClaw frames.
    greeting: Option<Greeting>,
}

struct Shared {
    endpoint: Endpoint,
    options: Options,
    policy: Policy,
    link: watch::Sender<Link>,
    state: watch::Sender<ConnectionState>,
    resume: Notify,
}

impl fmt::Debug for Lasting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lasting").field("state", &*self.shared.state.borrow()).finish_non_exhaustive()
    }
}

impl Lasting {
    /// Connects; from then on the connection is looked after.
    pub(crate) async fn connect(endpoint: Endpoint, options: Options, policy: Policy) -> Result<Self, Error> {
        let socket = Arc::new(WebSocket::connect(&endpoint, &options).await?);
        let server_version = socket.server_version().map(str::to_owned);
        let greeting = socket.greeting().cloned();
        let state = ConnectionState::Connected { server_version: server_version.clone() };
        let shared = Arc::new(Shared {
            endpoint,
            options,
            policy,
            link: watch::Sender::new(Link::Up(Arc::clone(&socket))),
            state: watch::Sender::new(state),
            resume: Notify::new(),
        });
        let supervisor = tokio::spawn(Arc::clone(&shared).supervise(socket)).abort_handle();
        Ok(Self { shared, supervisor, server_version, greeting })
    }

    pub(crate) fn greeting(&self) -> Option<&Greeting> {
        self.greeting.as_ref()
    }

    pub(crate) fn server_version(&self) -> Option<&str> {
        self.server_version.as_deref()
    }

    pub(crate) fn state(&self) -> watch::Receiver<ConnectionState> {
        self.shared.state.subscribe()
    }

    pub(crate) fn resume(&self) {
        self.shared.resume.notify_waiters();
    }

    /// Why there will be no further connection, if so.
    pub(crate) fn ended(&self) -> Option<Error> {
        match &*self.shared.link.borrow() {
            Link::Up(_) | Link::Down => None,
            Link::Over(cause) => Some(cause.clone()),
        }
    }

    /// Whether calls wait for a connection.
    pub(crate) fn is_down(&self) -> bool {
        matches!(&*self.shared.link.borrow(), Link::Down)
    }

    /// The socket to go out on, which is another one than `broken`. Waits for it as long as it takes.
    pub(crate) async fn socket(&self, broken: Option<&Arc<WebSocket>>) -> Result<Arc<WebSocket>, Error> {
        let mut link = self.shared.link.subscribe();
        let usable = |link: &Link| match link {
            Link::Up(socket) => broken.is_none_or(|broken| !Arc::ptr_eq(broken, socket)),
            Link::Down => false,
            Link::Over(_) => true,
        };
        let found = link.wait_for(usable).await.map(|link| link.clone());
        match found.expect("the sender lives as long as this value") {
            Link::Up(socket) => Ok(socket),
            Link::Over(cause) => Err(cause),
            Link::Down => unreachable!("nothing waits for a link that is down"),
        }
    }

    /// Whether a call that ended with `error` is made again on the next connection.
    fn goes_again(&self, method: &str, error: &Error) -> bool {
        let Error::Transport { kind: TransportKind::Closed { .. }, sent, .. } = error else { return false };
        !sent || (self.shared.policy.repeats && methods::find(method).is_some_and(|record| record.idempotent))
    }

    pub(crate) async fn request(
        &self,
        method: &str,
        params: Option<&RawValue>,
    ) -> Result<Box<RawValue>, Error> {
        let mut socket = self.socket(None).await?;
        loop {
            match socket.request(method, params).await {
                Err(error) if self.goes_again(method, &error) => {}
                answered => return answered,
            }
            socket = self.socket(Some(&socket)).await?;
        }
    }

    pub(crate) async fn start(
        &self,
        method: &str,
        params: &RawValue,
    ) -> Result<(Box<RawValue>, Option<OutcomeReceiver>), Error> {
        let mut socket = self.socket(None).await?;
        loop {
            match socket.start(method, params).await {
                Err(error) if self.goes_again(method, &error) => {}
                answered => return answered,
            }
            socket = self.socket(Some(&socket)).await?;
        }
    }

    pub(crate) async fn notify(&self, method: &str, params: Option<Box<RawValue>>) -> Result<(), Error> {
        let mut socket = self.socket(None).await?;
        loop {
            match socket.notify(method, params.clone()).await {
                Err(error) if self.goes_again(method, &error) => {}
                sent => return sent,
            }
            socket = self.socket(Some(&socket)).await?;
        }
    }

    /// Makes several calls at once. They are made again together, or not at all.
    pub(crate) async fn batch(
        &self,
        calls: Vec<(&str, Option<Box<RawValue>>)>,
    ) -> Result<Vec<Result<Box<RawValue>, ErrorObjectOwned>>, Error> {
        let mut socket = self.socket(None).await?;
        loop {
            match socket.batch(calls.clone()).await {
                Err(error) if calls.iter().all(|(method, _)| self.goes_again(method, &error)) => {}
                answered => return answered,
            }
            socket = self.socket(Some(&socket)).await?;
        }
    }

    /// Subscribes on the connection of the day. The subscription ends with it.
    pub(crate) async fn subscribe<N: DeserializeOwned>(
        &self,
        method: &str,
        params: Option<Box<RawValue>>,
        unsubscribe: &str,
    ) -> Result<(Subscription<N>, Arc<WebSocket>), Error> {
        let mut socket = self.socket(None).await?;
        loop {
            match socket.subscribe(method, params.clone(), unsubscribe).await {
                Ok(subscription) => return Ok((subscription, socket)),
                // What was subscribed to is gone with the connection.
                Err(Error::Transport { kind: TransportKind::Closed { .. }, .. }) => {}
                Err(error) => return Err(error),
            }
            socket = self.socket(Some(&socket)).await?;
        }
    }

    pub(crate) async fn subscribe_to_method<N: DeserializeOwned>(
        &self,
        method: &str,
    ) -> Result<Subscription<N>, Error> {
        self.socket(None).await?.subscribe_to_method(method).await
    }

    /// Ends it: says goodbye, and fails the calls that wait.
    pub(crate) async fn close(&self) {
        self.supervisor.abort();
        let (kind, url) = (TransportKind::Closed { code: None }, &self.shared.endpoint.shown);
        let cause = Error::transport(kind, url, "it was closed by this program");
        let before = self.shared.link.send_replace(Link::Over(cause));
        self.shared.state.send_replace(ConnectionState::Closed);
        if let Link::Up(socket) = before {
            socket.close().await;
        }
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        self.supervisor.abort();
        self.shared.state.send_replace(ConnectionState::Closed);
    }
}

impl Shared {
    /// Makes a new connection whenever one has ended.
    async fn supervise(self: Arc<Self>, mut socket: Arc<WebSocket>) {
        loop {
            let cause = socket.end().await;
            tracing::info!(url = self.endpoint.shown, %cause, "the connection broke");
            socket = Arc::new(self.restore(cause).await);
            let server_version = socket.server_version().map(str::to_owned);
            self.link.send_replace(Link::Up(Arc::clone(&socket)));
            self.state.send_replace(ConnectionState::Connected { server_version });
        }
    }

    async fn restore(&self, mut cause: Error) -> WebSocket {
        let mut attempt = 1;
        loop {
            // Before anybody can know of the wait and end it.
            let mut resumed = pin!(self.resume.notified());
            resumed.as_mut().enable();
            if let Some(reason) = PauseReason::of(&cause) {
                tracing::warn!(url = self.endpoint.shown, ?reason, %cause, "reconnecting is paused");
                self.link.send_replace(Link::Over(cause.clone()));
                self.state.send_replace(ConnectionState::Paused { reason, cause: cause.clone() });
                resumed.await;
                attempt = 1;
                self.link.send_replace(Link::Down);
                self.state.send_replace(ConnectionState::Reconnecting {
                    attempt,
                    after: Duration::ZERO,
                    cause,
                });
            } else {
                let after =
                    cause.retry_after().unwrap_or_else(|| self.policy.backoff.delay(attempt, random()));
                self.link.send_replace(Link::Down);
                self.state.send_replace(ConnectionState::Reconnecting { attempt, after, cause });
                tokio::select! {
                    () = tokio::time::sleep(after) => {}
                    () = resumed => {}
                }
            }
            match WebSocket::connect(&self.endpoint, &self.options).await {
                Ok(socket) => return socket,
                Err(error) => {
                    tracing::debug!(url = self.endpoint.shown, attempt, %error, "no connection yet");
                    cause = error;
                }
            }
            attempt = attempt.saturating_add(1);
        }
    }
}

/// Evenly spread. Without a source of randomness the wait is the whole one.
fn random() -> u32 {
    getrandom::u32().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_lose_half_of_themselves_at_most() {
        let backoff = Backoff::default();
        let seconds = |attempt, random| backoff.delay(attempt, random).as_secs_f64();
        let whole: Vec<f64> = (1..=7).map(|attempt| seconds(attempt, 0)).collect();
        assert_eq!(whole, [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
        assert_eq!((seconds(1, u32::MAX), seconds(6, u32::MAX)), (0.5, 15.0));
        assert!((0.7..0.8).contains(&seconds(1, u32::MAX / 2)));
        assert_eq!(seconds(u32::MAX, 0), 30.0, "no number of attempts is too large");
        let none = Backoff::new(Duration::ZERO, Duration::ZERO);
        assert_eq!(none.delay(3, 7), Duration::ZERO);
    }

    #[test]
    fn what_waiting_cannot_mend_is_not_tried_again() {
        let unauthorized = |details: Option<serde_json::Value>| Error::Unauthorized {
            message: "no".to_owned(),
            details: details.map(|details| serde_json::value::to_raw_value(&details).expect("it serialises")),
        };
        let refused = |retryable: bool| {
            let data = json!({ "code": "UNAVAILABLE", "retryable": retryable });
            Error::refused(&ErrorObjectOwned::owned(-32022, "no", Some(data)))
        };
        let transport = |kind| Error::transport(kind, "", "why");
        for (error, reason) in [
            (unauthorized(None), Some(PauseReason::Unauthorized)),
            (unauthorized(Some(json!({ "code": "AUTH_TOKEN_MISMATCH" }))), Some(PauseReason::Unauthorized)),
            (unauthorized(Some(json!({ "code": "PAIRING_REQUIRED" }))), Some(PauseReason::PairingRequired)),
            (unauthorized(Some(json!({ "code": "PAIRING_REQUIRED", "pauseReconnect": false }))), None),
            (
                Error::RateLimited { message: "wait".to_owned(), retry_after: None },
                Some(PauseReason::RateLimited),
            ),
            (Error::ProtocolMismatch { message: "2".to_owned() }, Some(PauseReason::ProtocolMismatch)),
            (refused(false), Some(PauseReason::Refused)),
            (refused(true), None),
            (transport(TransportKind::Unreachable), None),
            (transport(TransportKind::Closed { code: Some(1012) }), None),
            (transport(TransportKind::Closed { code: None }), None),
            (transport(TransportKind::Rejected { status: 503 }), None),
            (transport(TransportKind::Rejected { status: 404 }), None),
        ] {
            assert_eq!(PauseReason::of(&error), reason, "{error:?}");
        }
    }
}
