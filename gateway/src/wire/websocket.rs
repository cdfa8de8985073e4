//! One WebSocket: the loop that reads, dispatches and writes.
//!
//! One task owns the socket. While it waits for the peer to take output it reads nothing, so that a peer which
//! does not read cannot make the gateway work or remember. A call that is ready at its first poll costs no task;
//! others are spawned, and cancelled with the connection. Output is written in batches with one flush.

use std::{
    borrow::Cow,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use serde_json::value::RawValue;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{OwnedSemaphorePermit, mpsc},
    task::JoinSet,
    time::{Instant, Sleep, timeout},
};
use tungstenite::{
    Error, Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use super::{
    LINGER, Shared, frames,
    handshake::{self, Challenge, Outcome},
    jsonrpc,
    reply::Reply,
    socket::Socket,
};
use crate::{
    connection::Connection,
    devices::{attempt::Protocol, live::DeviceLink, record::Role},
    dispatcher::Subscriptions,
    logs::traffic,
    presence::Open,
    settings::Limits,
};

/// How many messages are read or items written before the other side has its turn.
const TURN: usize = 64;
/// How many bytes are queued before they are flushed and nothing more is read.
const QUEUED_BYTES: usize = 64 * 1024;
/// How long calls in flight may go on once the peer has shown a wrong credential: longer than its answer takes.
const REFUSED_TIMEOUT: Duration = Duration::from_secs(2);
/// How many messages a JSON-RPC connection may send before it authenticates. It needs one; each further one is answered
/// with more bytes than it takes. A frame connection has one in any case.
const STRANGER_MESSAGES: u16 = 1000;
/// How long a peer has to take the close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a peer has that was closed because it does not read: a program that was paused reads on some time, and
/// is to learn why. Nothing is kept for it but the rest of one message.
const FAREWELL: Duration = Duration::from_secs(20);

/// Why a connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    /// The peer closed it, or is gone.
    Gone,
    /// The gateway stops.
    Stopping,
    /// The peer does not take its output.
    SlowConsumer,
    /// The peer did not authenticate in time.
    NotAuthenticated,
    /// The peer sent much without authenticating.
    Stranger,
    /// The peer showed a wrong credential.
    Refused,
    /// The device behind it is no longer trusted.
    DeviceRemoved,
    /// The secret that let the peer in is in force no more.
    AuthChanged,
    /// The handshake of a frame connection failed, and the peer has been told.
    Handshake(CloseCode, String),
    /// The peer answers no ping.
    NoPong,
    /// The peer sent what is no message.
    Invalid(CloseCode, Cow<'static, str>),
}

impl End {
    /// What the peer is told. Frame clients know the recorded codes and reasons (wire.md section 12).
    fn close_frame(&self, dialect: &Dialect) -> Option<CloseFrame> {
        let frames = dialect.is_frames();
        let (code, reason) = match self {
            Self::Gone => return None,
            Self::NoPong if frames => return None,
            Self::NotAuthenticated if frames => (CloseCode::Normal, "".into()),
            Self::Invalid(CloseCode::Size, _) if frames => (CloseCode::Size, "".into()),
            Self::Handshake(code, reason) => (*code, reason.clone().into()),
            Self::DeviceRemoved => {
                let (code, reason) = DeviceLink::REMOVED;
                (code.into(), reason.into())
            }
            // Stock documents that such clients connect again with the new secret.
            Self::AuthChanged => (4001.into(), "gateway auth changed".into()),
            Self::Stopping => (CloseCode::Restart, "service restart".into()),
            Self::SlowConsumer => (CloseCode::Again, "slow consumer: output was not taken in time".into()),
            Self::NotAuthenticated => (CloseCode::Policy, "no authentication in time".into()),
            Self::Stranger => (CloseCode::Policy, "too many messages before authentication".into()),
            Self::Refused => (CloseCode::Policy, "unauthorized".into()),
            Self::NoPong => (CloseCode::Policy, "no pong in time".into()),
            Self::Invalid(code, reason) => (*code, reason.clone()),
        };
        Some(CloseFrame { code, reason: reason.as_ref().into() })
    }
}

/// What a connection speaks.
pub(super) enum Dialect {
    JsonRpc,
    Frames(Box<Frames>),
    /// Sends back what it receives, and otherwise behaves as the dialect in it.
    #[cfg(feature = "echo")]
    Echo(Box<Self>),
}

impl Dialect {
    fn is_frames(&self) -> bool {
        match self {
            Self::JsonRpc => false,
            Self::Frames(_) => true,
            #[cfg(feature = "echo")]
            Self::Echo(dialect) => dialect.is_frames(),
        }
    }

    /// OpenClaw frames, from the challenge on.
    pub(super) fn frames() -> Self {
        let phase = Phase::Challenged(Challenge::new());
        Self::Frames(Box::new(Frames { phase, seq: 0, events: None }))
    }
}

/// A connection that speaks OpenClaw frames.
pub(super) struct Frames {
    phase: Phase,
    /// The number of the last event: they count from 1 without a hole (wire.md section 7).
    seq: u64,
    /// Events for this connection, without number and last brace.
    events: Option<mpsc::Receiver<String>>,
}

enum Phase {
    /// The client has been challenged and is to send `connect`.
    Challenged(Challenge),
    /// Its `connect` is being decided about: nothing is read meanwhile.
    Deciding(BoxFuture<'static, Outcome>),
    Open(Protocol, Role),
}

/// Serves a WebSocket to its end. `unauthenticated` is the permit that a connection without credential holds
/// until it has one; `open` counts the connection among the open ones, until it is decided that it ends.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    read: Bytes,
    connection: Arc<Connection>,
    shared: Arc<Shared>,
    dialect: Dialect,
    unauthenticated: Option<OwnedSemaphorePermit>,
    open: Open<'_>,
) {
    let limits = shared.limits.load_full();
    let max_message_bytes = if unauthenticated.is_some() {
        limits.max_unauthenticated_payload_bytes
    } else {
        limits.max_payload_bytes
    };
    let socket = Socket::new(stream, &read, &limits, max_message_bytes);
    // The buffer of the HTTP request, 8 KiB even where nothing came behind it.
    drop(read);
    let (stopping, gone) = (shared.stopping.clone(), shared.gone.clone());
    let now = Instant::now();
    let mut session = Session {
        socket,
        connection,
        unauthenticated,
        stranger_messages: 0,
        subscriptions: None,
        items: None,
        calls: None,
        queued_bytes: 0,
        dirty: false,
        blocked: None,
        pinged: None,
        next_ping: now + limits.ping_interval,
        authenticate_by: now + limits.authentication_timeout,
        timer: None,
        refused_at: None,
        draining: false,
        dialect,
        limits,
        shared,
    };
    session.open();
    let id = session.connection.id();
    traffic::opened(&session.connection);
    let mut end = loop {
        let auth = session.connection.auth().get();
        tokio::select! {
            end = std::future::poll_fn(|cx| session.poll(cx)) => break end,
            () = stopping.cancelled() => break End::Stopping,
            // Whether that matters to this peer, the session says.
            () = auth.replaced() => {}
        }
    };
    if end == End::Stopping {
        session.draining = true;
        end = tokio::select! {
            ended = timeout(LINGER, std::future::poll_fn(|cx| session.poll(cx))) => ended.unwrap_or(End::Stopping),
            () = gone.cancelled() => End::Stopping,
        };
    }
    traffic::closed(&session.connection, &end);
    match &end {
        End::Gone | End::Stopping => tracing::debug!(connection = id, reason = ?end, "connection ends"),
        _ => {
            tracing::warn!(connection = id, remote = %session.connection.remote(), reason = ?end, "connection closed")
        }
    }
    let frame = end.close_frame(&session.dialect);
    // A stranger keeps its place to the end: there are no more of them than places.
    let unauthenticated = session.unauthenticated.take();
    // Calls, subscriptions and what waits for them end here, whatever the peer does.
    let mut socket = session.into_socket();
    drop(open);
    let Some(frame) = frame else { return };
    if end == End::SlowConsumer && unauthenticated.is_none() {
        socket.cut_short();
        tokio::select! {
            _ = timeout(FAREWELL, socket.close(frame)) => {}
            () = stopping.cancelled() => {}
        }
    } else {
        let _ = timeout(CLOSE_TIMEOUT, socket.close(frame)).await;
    }
}

/// One connection at work.
struct Session<S> {
    socket: Socket<S>,
    connection: Arc<Connection>,
    shared: Arc<Shared>,
    /// The bounds that were in force when the connection began.
    limits: Arc<Limits>,
    dialect: Dialect,
    /// Held until the connection is authenticated.
    unauthenticated: Option<OwnedSemaphorePermit>,
    /// How many messages it has sent until then.
    stranger_messages: u16,
    /// Where subscriptions send to, made for the first message: most connections have none.
    subscriptions: Option<Subscriptions>,
    items: Option<mpsc::Receiver<Box<RawValue>>>,
    /// Calls whose answer is yet to come, made for the first one.
    calls: Option<JoinSet<Reply>>,
    /// Bytes queued since the last complete flush.
    queued_bytes: usize,
    /// Whether something may be left to flush.
    dirty: bool,
    /// Since when the peer has taken nothing, and how many bytes it had taken then.
    blocked: Option<(Instant, u64)>,
    /// How many bytes the peer had sent when it was pinged last; absent when it need not answer. A pong may be held
    /// up by a long message: any byte is a sign of life.
    pinged: Option<u64>,
    next_ping: Instant,
    authenticate_by: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    /// Since when the peer is turned away: nothing more is read, answers on their way are written.
    refused_at: Option<Instant>,
    /// Whether the gateway stops: nothing more is read, calls in flight are finished.
    draining: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    /// Drops everything but the socket: calls in flight are cancelled, subscriptions end.
    fn into_socket(self) -> Socket<S> {
        self.socket
    }

    /// Begins: a frame client is challenged first.
    fn open(&mut self) {
        if let Dialect::Frames(frames) = &self.dialect
            && let Phase::Challenged(challenge) = &frames.phase
        {
            let event = challenge.event();
            self.dirty = true;
            // Nothing has been written yet: there is room. The first flush sends it.
            let _ = self.socket.queue(&Context::from_waker(Waker::noop()), event);
        }
    }

    /// Works until there is nothing to do, or the connection ends.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        match self.turn(cx) {
            Ok(()) => Poll::Pending,
            Err(end) => Poll::Ready(end),
        }
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        loop {
            if self.dirty && !self.flush(cx)? {
                // The peer takes nothing: no reading, no answers, no items until it does.
                return self.check_time(cx);
            }
            let mut worked = self.end_handshake(cx)?;
            worked |= self.write_answers(cx)?;
            worked |= self.write_items(cx)?;
            if self.draining {
                if !worked && self.calls.as_ref().is_none_or(JoinSet::is_empty) && !self.dirty {
                    return Err(End::Stopping);
                }
            } else if let Some(end) = self.turned_away() {
                self.refused_at.get_or_insert_with(Instant::now);
                if !worked && self.calls.as_ref().is_none_or(JoinSet::is_empty) && !self.dirty {
                    return Err(end);
                }
            } else if self.queued_bytes < QUEUED_BYTES && self.has_room() && !self.is_deciding() {
                worked |= self.read(cx)?;
            }
            if !worked && !self.dirty {
                return self.check_time(cx);
            }
        }
    }

    /// Why nothing more is read from the peer, if that is so: its calls in flight are answered, then it is told.
    fn turned_away(&self) -> Option<End> {
        if self.connection.is_refused() {
            Some(End::Refused)
        } else {
            self.connection.is_outdated().then_some(End::AuthChanged)
        }
    }

    /// Whether everything queued has gone to the peer.
    fn flush(&mut self, cx: &Context<'_>) -> Result<bool, End> {
        match self.socket.poll_flush(cx) {
            Poll::Ready(Ok(())) => {
                self.dirty = false;
                self.queued_bytes = 0;
                self.blocked = None;
                Ok(true)
            }
            Poll::Ready(Err(_)) => Err(End::Gone),
            Poll::Pending => {
                let taken = self.socket.taken_bytes();
                if self.blocked.is_none_or(|(_, before)| before != taken) {
                    self.blocked = Some((Instant::now(), taken));
                }
                Ok(false)
            }
        }
    }

    fn queue(&mut self, cx: &Context<'_>, text: String) -> Result<(), End> {
        self.queued_bytes += text.len();
        self.dirty = true;
        match self.socket.queue(cx, text) {
            Ok(()) => Ok(()),
            Err(Error::WriteBufferFull(_)) => Err(End::SlowConsumer),
            Err(_) => Err(End::Gone),
        }
    }

    /// Writes the answers of calls that have ended meanwhile.
    fn write_answers(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut worked = false;
        while self.queued_bytes < QUEUED_BYTES {
            let Some(calls) = &mut self.calls else { break };
            let Poll::Ready(Some(ended)) = calls.poll_join_next(cx) else { break };
            worked = true;
            // Panics of handlers are contained by the dispatcher.
            if let Ok(reply) = ended {
                self.reply(cx, reply)?;
            }
        }
        Ok(worked)
    }

    fn reply(&mut self, cx: &Context<'_>, reply: Reply) -> Result<(), End> {
        if let Some(text) = reply.now {
            self.queue(cx, text)?;
        }
        if let Some(later) = reply.later {
            self.calls.get_or_insert_default().spawn(later);
        }
        Ok(())
    }

    /// Writes items of subscriptions, and the events of a frame connection.
    fn write_items(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut worked = false;
        while self.queued_bytes < QUEUED_BYTES {
            let Dialect::Frames(frames) = &mut self.dialect else { break };
            let Some(events) = &mut frames.events else { break };
            match events.poll_recv(cx) {
                Poll::Pending => break,
                // The forwarder has ended: the device is gone, or the peer lags behind what is kept for it.
                Poll::Ready(None) => {
                    let is_removed = self.connection.device().is_some_and(DeviceLink::is_removed);
                    return Err(if is_removed { End::DeviceRemoved } else { End::SlowConsumer });
                }
                Poll::Ready(Some(event)) => {
                    frames.seq += 1;
                    let text = format!(r#"{event},"seq":{}}}"#, frames.seq);
                    worked = true;
                    self.queue(cx, text)?;
                }
            }
        }
        while self.queued_bytes < QUEUED_BYTES {
            let Some(items) = &mut self.items else { break };
            let Poll::Ready(Some(item)) = items.poll_recv(cx) else { break };
            worked = true;
            self.queue(cx, String::from(Box::<str>::from(item)))?;
        }
        Ok(worked)
    }

    fn has_room(&self) -> bool {
        self.calls.as_ref().map_or(0, JoinSet::len) < self.limits.max_in_flight
    }

    /// Reads what has arrived, up to a turn of messages.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        for count in 0..TURN {
            let message = match self.socket.poll_read(cx) {
                Poll::Pending => return Ok(count > 0),
                Poll::Ready(Ok(message)) => message,
                Poll::Ready(Err(error)) => return Err(invalid(error)),
            };
            #[cfg(feature = "echo")]
            if let (Dialect::Echo(_), Message::Text(_) | Message::Binary(_)) = (&self.dialect, &message) {
                self.echo(cx, message)?;
                return Ok(true);
            }
            match message {
                Message::Text(text) => self.receive(cx, text.as_str())?,
                // Clients that send their JSON in binary messages are served too (wire.md section 1).
                Message::Binary(bytes) => match std::str::from_utf8(&bytes) {
                    Ok(text) => self.receive(cx, text)?,
                    Err(_) => {
                        return Err(End::Invalid(CloseCode::Invalid, "the message is not UTF-8".into()));
                    }
                },
                // tungstenite has queued the pong.
                Message::Ping(_) => self.dirty = true,
                Message::Close(_) => return Err(self.closed_by_peer(cx)),
                Message::Pong(_) | Message::Frame(_) => {}
            }
            let is_refused = self.turned_away().is_some();
            if self.queued_bytes >= QUEUED_BYTES || !self.has_room() || self.is_deciding() || is_refused {
                return Ok(true);
            }
        }
        Ok(true)
    }

    #[cfg(feature = "echo")]
    fn echo(&mut self, cx: &Context<'_>, message: Message) -> Result<(), End> {
        self.queued_bytes += message.len();
        self.dirty = true;
        self.socket.queue_message(cx, message).map_err(|_| End::Gone)
    }

    /// Sends the answer to the peer's close frame, which tungstenite has queued.
    fn closed_by_peer(&mut self, cx: &Context<'_>) -> End {
        let _ = self.socket.poll_flush(cx);
        End::Gone
    }

    fn receive(&mut self, cx: &mut Context<'_>, text: &str) -> Result<(), End> {
        if self.unauthenticated.is_some() {
            if self.stranger_messages == STRANGER_MESSAGES {
                return Err(End::Stranger);
            }
            self.stranger_messages += 1;
        }
        let reply = match &mut self.dialect {
            Dialect::JsonRpc => self.receive_jsonrpc(text),
            #[cfg(feature = "echo")]
            Dialect::Echo(_) => Reply::nothing(),
            Dialect::Frames(frames) => match &mut frames.phase {
                Phase::Open(protocol, role) => {
                    let (shared, connection) = (&self.shared, &self.connection);
                    frames::receive(
                        text,
                        &frames::Peer { shared, connection, protocol: *protocol, role: *role },
                    )
                }
                phase => {
                    // A challenge is answered once: the one that is put in its place is never seen.
                    if let Phase::Challenged(challenge) = phase {
                        let challenge = std::mem::replace(challenge, Challenge::new());
                        let (shared, connection) = (Arc::clone(&self.shared), Arc::clone(&self.connection));
                        let outcome = handshake::connect(text.to_owned(), challenge, shared, connection);
                        *phase = Phase::Deciding(outcome.boxed());
                    }
                    Reply::nothing()
                }
            },
        };
        self.reply(cx, reply)?;
        self.admit();
        Ok(())
    }

    fn receive_jsonrpc(&mut self, text: &str) -> Reply {
        let limits = &self.limits;
        if self.subscriptions.is_none() {
            let (subscriptions, items) = Subscriptions::new(limits);
            self.subscriptions = Some(subscriptions);
            self.items = Some(items);
        }
        let peer = jsonrpc::Peer {
            dispatcher: &self.shared.dispatcher,
            connection: &self.connection,
            subscriptions: self.subscriptions.as_ref(),
            max_batch: limits.max_batch,
            max_response_bytes: limits.max_payload_bytes,
        };
        jsonrpc::receive(text, &peer)
    }

    fn is_deciding(&self) -> bool {
        matches!(&self.dialect, Dialect::Frames(frames) if matches!(frames.phase, Phase::Deciding(_)))
    }

    /// Goes on when the handshake of a frame connection has been decided about.
    fn end_handshake(&mut self, cx: &mut Context<'_>) -> Result<bool, End> {
        let Dialect::Frames(frames) = &mut self.dialect else { return Ok(false) };
        let Phase::Deciding(outcome) = &mut frames.phase else { return Ok(false) };
        match outcome.as_mut().poll(cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(Outcome::Accepted { hello, protocol, role }) => {
                frames.phase = Phase::Open(protocol, role);
                frames.events = Some(forward_events(&self.shared, &self.connection));
                self.queue(cx, hello)?;
                self.admit();
                Ok(true)
            }
            Poll::Ready(Outcome::Refused { response, code, reason }) => {
                if let Some(response) = response {
                    self.queue(cx, response)?;
                    let _ = self.flush(cx);
                }
                Err(End::Handshake(code, reason))
            }
        }
    }

    /// Lifts the bounds of a connection that has authenticated meanwhile.
    fn admit(&mut self) {
        if self.unauthenticated.is_some() && self.connection.is_authenticated() {
            self.unauthenticated = None;
            self.socket.set_max_message_bytes(self.limits.max_payload_bytes);
        }
    }

    /// Looks at the clock, and asks to be woken when it matters next.
    fn check_time(&mut self, cx: &mut Context<'_>) -> Result<(), End> {
        loop {
            let limits = &self.limits;
            let mut next = self.next_ping;
            if let Some((since, _)) = self.blocked {
                next = next.min(since + limits.send_timeout);
            }
            if self.unauthenticated.is_some() {
                next = next.min(self.authenticate_by);
            }
            if let Some(since) = self.refused_at {
                next = next.min(since + REFUSED_TIMEOUT);
            }
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(next)));
            if timer.deadline() != next {
                timer.as_mut().reset(next);
            }
            // The clock decides, not the timer: a task that has used up its turn finds no timer ready, and a peer that
            // keeps it busy would escape every deadline.
            let now = Instant::now();
            if timer.as_mut().poll(cx).is_pending() && now < next {
                return Ok(());
            }
            if self.blocked.is_some_and(|(since, _)| since + limits.send_timeout <= now) {
                return Err(End::SlowConsumer);
            }
            if self.unauthenticated.is_some() && self.authenticate_by <= now {
                return Err(End::NotAuthenticated);
            }
            // A call that takes its time does not keep the connection of a guesser open.
            if self.refused_at.is_some_and(|since| since + REFUSED_TIMEOUT <= now) {
                return Err(self.turned_away().unwrap_or(End::Refused));
            }
            if self.next_ping <= now {
                self.next_ping = now + limits.ping_interval;
                // A blocked peer is judged by the send timeout alone; of one whose calls are all in flight nothing is
                // read.
                if self.blocked.is_none() && self.has_room() {
                    let received = self.socket.received_bytes();
                    if self.pinged.replace(received) == Some(received) {
                        return Err(End::NoPong);
                    }
                    self.ping(cx)?;
                } else {
                    self.pinged = None;
                }
            }
        }
    }

    fn ping(&mut self, cx: &Context<'_>) -> Result<(), End> {
        self.dirty = true;
        if self.socket.ping(cx).is_err() {
            return Err(End::Gone);
        }
        self.flush(cx).map(drop)
    }
}

/// What a message that cannot be read says about the peer.
fn invalid(error: Error) -> End {
    match error {
        Error::Capacity(tungstenite::error::CapacityError::MessageTooLong { size, max_size }) => {
            End::Invalid(CloseCode::Size, format!("a message of {size} bytes; {max_size} are allowed").into())
        }
        Error::Utf8(_) => End::Invalid(CloseCode::Invalid, "the message is not UTF-8".into()),
        Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => End::Gone,
        Error::Protocol(error) => {
            // A close frame holds 125 bytes, two of them for the code (RFC 6455 section 5.5.1).
            let reason: String = error.to_string().chars().filter(char::is_ascii).take(123).collect();
            End::Invalid(CloseCode::Protocol, reason.into())
        }
        _ => End::Gone,
    }
}

/// How many events may wait for one frame connection.
const WAITING_EVENTS: usize = 256;

/// Passes on the events that a frame connection may receive. Ends when the connection does, or when it lags so far
/// behind that events were lost: then a hole in its numbers is worse than its end.
fn forward_events(shared: &Shared, connection: &Arc<Connection>) -> mpsc::Receiver<String> {
    let mut events = shared.context.events.subscribe();
    let (bus, connection) = (shared.context.events.clone(), Arc::clone(connection));
    let (sender, receiver) = mpsc::channel(WAITING_EVENTS);
    tokio::spawn(async move {
        loop {
            let removed = async {
                match connection.device() {
                    Some(device) => device.removed().await,
                    None => std::future::pending().await,
                }
            };
            let event = tokio::select! {
                event = events.recv() => event,
                () = sender.closed() => return,
                () = removed => return,
            };
            let Ok(event) = event else { return };
            if let Some(text) = frames::event(&event, &connection, bus.versions())
                && sender.send(text).await.is_err()
            {
                return;
            }
        }
    });
    receiver
}
