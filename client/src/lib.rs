#![doc = include_str!("../README.md")]

mod builder;
mod by_name;
mod connection;
#[cfg(feature = "discovery")]
pub mod discovery;
mod error;
mod events;
mod frames;
mod handshake;
mod http;
mod identity;
mod reconnect;
mod tls;
mod two_phase;
mod websocket;

use std::{fmt, sync::Arc, time::Duration};

use openclaw_schema::methods::{self, agent::AgentParams, events::EventsSubscribeParams};
use serde_json::value::RawValue;
use tokio::sync::watch;

use connection::Connection;

pub use builder::ClientBuilder;
pub use error::{Error, Refusal, TimeoutKind, TransportKind};
pub use events::{Event, EventStream, RunEvent, RunEvents};
pub use handshake::Greeting;
pub use openclaw_schema::{ErrorCode, ErrorData, Scope};
pub use reconnect::{Backoff, ConnectionState, PauseReason};
pub use secrecy::SecretString;
pub use tls::Fingerprint;
pub use two_phase::{AgentRequest, AgentRun, new_idempotency_key};

/// One connection to a gateway. Clones are cheap and share it.
///
/// When it has ended, every call fails with [`TransportKind::Closed`], and a new client is to be made; unless it was
/// set up with [`ClientBuilder::reconnect`]. It is closed when the last clone and the last [`EventStream`] are dropped, or with
/// [`Client::close`].
///
/// jsonrpsee's client traits are implemented, so that `use openclaw_schema::client::*` gives every method of the
/// contract as a typed call. Their errors are jsonrpsee's; `?` makes them an [`Error`].
#[derive(Clone)]
pub struct Client {
    connection: Arc<Connection>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("connection", &self.connection).finish()
    }
}

impl Client {
    /// Connects with the default limits. `credential` is the gateway's token or password.
    ///
    /// # Errors
    ///
    /// As [`ClientBuilder::connect`].
    pub async fn connect(url: &str, credential: Option<SecretString>) -> Result<Self, Error> {
        let builder = Self::builder(url);
        match credential {
            Some(credential) => builder.credential(credential),
            None => builder,
        }
        .connect()
        .await
    }

    /// Sets up a client. The scheme of `url` chooses the transport: `ws` and `wss` for WebSocket, `http` and
    /// `https` for one POST per call, to `/rpc` unless the URL has a path.
    pub fn builder(url: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(url.into())
    }

    /// Calls any method by its name. `params` is the params object.
    ///
    /// Params of methods that the contract knows are checked first. Methods that it does not know are called
    /// all the same.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] when the check fails; nothing was sent then. Else as any call.
    pub async fn call(&self, method: &str, params: Box<RawValue>) -> Result<Box<RawValue>, Error> {
        if let Some(record) = methods::find(method) {
            (record.params.check)(params.get()).map_err(|problem| Error::invalid_params(method, problem))?;
        }
        self.connection.call(method, Some(&params)).await
    }

    /// Calls a two-phase method by its name, and waits for the outcome.
    ///
    /// `wait` is the method that delivers the outcome: its name stands in the record of `method`. `on_ack`
    /// receives the acknowledgement as soon as it comes; none comes when the gateway answers the outcome at once.
    /// There is no limit on the whole but the run's own. Over OpenClaw frames the outcome comes by itself, and `wait`
    /// is called only when the run was started by another call.
    ///
    /// The outcome of a run that failed is an outcome too: its `status` is `error`.
    ///
    /// # Errors
    ///
    /// As [`Client::call`]; [`Error::BadPayload`] when the acknowledgement has no `runId`.
    pub async fn call_final(
        &self,
        method: &str,
        wait: &str,
        params: Box<RawValue>,
        on_ack: impl FnOnce(&RawValue),
    ) -> Result<Box<RawValue>, Error> {
        two_phase::call_final(self, method, wait, params, on_ack).await
    }

    /// Starts a run: says something to an agent. [`AgentRequest`] makes the params.
    ///
    /// Over WebSocket the run's events are subscribed to before the call, so that none is missed.
    ///
    /// # Errors
    ///
    /// As any call. When the connection breaks, the run may have started: a repeat with the same idempotency key
    /// is safe.
    pub async fn run_agent(&self, params: AgentParams) -> Result<AgentRun, Error> {
        AgentRun::start(self, params).await
    }

    /// The gateway's events, as they happen.
    ///
    /// Over OpenClaw frames no call is made. There [`Event::Gap`] counts all events that were lost on the way,
    /// whatever `params` choose; gateways of protocol 3 give no means to notice.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] over HTTP, which has no events. Else as any call.
    pub async fn events(&self, params: EventsSubscribeParams) -> Result<EventStream, Error> {
        EventStream::open(self.clone(), &params).await
    }

    /// How this client stands to its gateway, now and from now on.
    ///
    /// Of a client that does not reconnect this is how things stand now: the receiver never changes.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<ConnectionState> {
        self.connection.state()
    }

    /// Tries to reconnect now, instead of waiting for the next attempt, and also when reconnecting is paused: for
    /// when the network is back, or a device was approved. Without effect on a client that is connected, or that
    /// does not reconnect.
    pub fn resume(&self) {
        self.connection.resume();
    }

    /// The version of the gateway that was connected to first; over HTTP known from the first answer on.
    #[must_use]
    pub fn server_version(&self) -> Option<&str> {
        self.connection.server_version()
    }

    /// What the gateway said of itself and of this client's rights when it was connected to first; over OpenClaw frames
    /// alone. Over JSON-RPC the method
    /// `connect` answers the same.
    #[must_use]
    pub fn greeting(&self) -> Option<&Greeting> {
        self.connection.greeting()
    }

    /// Closes the connection, for all clones. Calls that still wait fail.
    ///
    /// Returns when the close frame has left. A program that ends right after dropping its clients may not send
    /// one.
    pub async fn close(self) {
        self.connection.close().await;
    }

    fn url(&self) -> &str {
        self.connection.url()
    }

    async fn start(
        &self,
        method: &str,
        params: &RawValue,
    ) -> Result<(Box<RawValue>, Option<frames::OutcomeReceiver>), Error> {
        if let Some(record) = methods::find(method) {
            (record.params.check)(params.get()).map_err(|problem| Error::invalid_params(method, problem))?;
        }
        self.connection.start(method, params).await
    }

    fn call_timeout(&self) -> Option<Duration> {
        self.connection.call_timeout()
    }

    fn has_subscriptions(&self) -> bool {
        self.connection.has_subscriptions()
    }

    fn reconnects(&self) -> bool {
        self.connection.reconnects()
    }

    fn ended(&self) -> Option<Error> {
        self.connection.ended()
    }
}
