//! WebSocket: the upgrade, which finds out whether the gateway speaks JSON-RPC or OpenClaw frames, and the transport
//! of both beneath jsonrpsee's client core. `handshake` and `frames` have what is particular to frames.
//!
//! The upgrade is written and read here, not by tungstenite: tungstenite logs the request with its credential,
//! and drops the body of a refusal, which says why. From the upgrade on, tungstenite is the codec.
//!
//! One task drives the socket: the one that receives. The sending side only puts messages into the output
//! buffer and wakes it, so that all calls which are ready at one moment leave in one write.

use std::{
    fmt,
    net::{Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use futures_util::{FutureExt as _, SinkExt as _, StreamExt as _, future::poll_fn};
use jsonrpsee::{
    core::{
        client::{
            Client as RpcClient, ClientBuilder as RpcClientBuilder, ClientT as _, Error as RpcClientError,
            IdKind, ReceivedMessage, Subscription, SubscriptionClientT as _, TransportReceiverT,
            TransportSenderT,
            async_client::{PingConfig, RpcService},
        },
        middleware::{Notification, Request, RpcServiceBuilder, RpcServiceT as _},
        params::BatchRequestBuilder,
    },
    types::{ErrorObjectOwned, Id, ResponseSuccess},
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, Sleep, sleep_until, timeout, timeout_at},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Bytes, Error as CodecError, Message,
        error::ProtocolError,
        handshake::{
            client::{Response, generate_key},
            derive_accept_key,
            machine::TryParse as _,
        },
        http::{HeaderMap, StatusCode},
        protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode},
    },
};
use url::Host;

use crate::{
    by_name::Prepared,
    connection::{Endpoint, GATEWAY_HEADER, Options},
    error::{Error, TimeoutKind, TransportKind},
    frames::{Frames, OutcomeReceiver},
    handshake::{self, Greeting, Hello, Remedy, Setback},
    tls::{Fingerprint, Trust},
};

/// The subprotocol that is offered.
const SUBPROTOCOL: &str = "jsonrpc";
/// The response header in which our gateway names what it speaks on this connection. Stock gateways echo any
/// subprotocol, so that only this header proves anything: without it, frames are spoken.
const DIALECT_HEADER: &str = "openclaw-dialect";
/// What the header says when it is frames.
const FRAMES_DIALECT: &str = "frames";
/// How long the head of the answer to the upgrade may be, and how much of the body of a refusal is read.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// tungstenite allocates this much per connection; its default is 128 KiB.
const READ_BUFFER_BYTES: usize = 16 * 1024;
/// How long a close frame may take to leave. A peer that reads nothing must not hold up a program's end.
const CLOSE_LIMIT: Duration = Duration::from_millis(500);
/// A ping this often, so that a peer that vanished without a word is noticed by those who only listen.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// A connection on which nothing arrived for this long, pongs included, is given up.
const SILENCE_LIMIT: Duration = Duration::from_secs(50);

/// A gateway that speaks frames ticks. One that sent nothing for this many intervals is given up (wire.md section 12).
const SILENT_TICKS: u32 = 2;
/// The close code with which it is told so.
const TICK_TIMEOUT: u16 = 4000;

/// A connection over WebSocket.
pub(crate) struct WebSocket {
    core: RpcClient<RpcService>,
    /// The core's own service, taken out of it: it has no time limit and so needs no timer thread, and hands
    /// out results as they came.
    service: RpcService,
    socket: Arc<Socket>,
    /// The core numbers its own requests, of subscriptions and batches, with texts.
    next_id: AtomicU64,
    server_version: Option<String>,
    /// Over frames alone.
    greeting: Option<Greeting>,
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket").field("connected", &self.core.is_connected()).finish_non_exhaustive()
    }
}

impl WebSocket {
    /// Connects: dials, upgrades and, where the gateway speaks frames, shakes hands. A gateway that asks for it is
    /// tried again within the limit.
    pub(crate) async fn connect(endpoint: &Endpoint, options: &Options) -> Result<Self, Error> {
        let deadline = Instant::now() + options.connect_timeout.min(FOREVER);
        let frames = &options.frames;
        // A caller on the same host who knows the secret needs no device.
        let mut with_device =
            frames.identity.is_some() && (frames.credential.is_none() || !endpoint.loopback);
        loop {
            let setback = match Self::attempt(endpoint, options, with_device, deadline).await {
                Ok(connected) => return Ok(connected),
                Err(setback) => setback,
            };
            match setback.remedy {
                Remedy::Device if !with_device => with_device = true,
                Remedy::Later(after) if Instant::now() + after < deadline => {
                    tracing::debug!(url = endpoint.shown, ?after, "the gateway is not ready");
                    tokio::time::sleep(after).await;
                }
                Remedy::None | Remedy::Device | Remedy::Later(_) => return Err(setback.error),
            }
        }
    }

    async fn attempt(
        endpoint: &Endpoint,
        options: &Options,
        with_device: bool,
        deadline: Instant,
    ) -> Result<Self, Setback> {
        let timed_out = |what| Error::Timeout { what, after: options.connect_timeout };
        let tcp = timeout_at(deadline, dial(endpoint))
            .await
            .map_err(|_| timed_out(TimeoutKind::Connect))?
            .map_err(|cause| Error::transport(TransportKind::Unreachable, &endpoint.shown, cause))?;
        let (stream, head, hello) = timeout_at(deadline, async {
            let stream = if endpoint.tls {
                encrypt(tcp, endpoint, options.tls_fingerprint).await?
            } else {
                Box::new(tcp)
            };
            let (mut stream, head) = upgrade(stream, endpoint, options).await?;
            let hello = match dialect(&head, endpoint)? {
                Dialect::JsonRpc => None,
                Dialect::Frames => {
                    Some(handshake::shake(&mut stream, endpoint, &options.frames, with_device).await?)
                }
            };
            Ok::<_, Setback>((stream, head, hello))
        })
        .await
        .map_err(|_| timed_out(TimeoutKind::Handshake))??;
        let greeting = hello.as_ref().map(|hello| hello.greeting.clone());
        let protocol = greeting.as_ref().map(|greeting| greeting.protocol);
        let told = text_of(&head, GATEWAY_HEADER).map(str::to_owned);
        let server_version =
            told.or_else(|| greeting.as_ref().and_then(|greeting| greeting.server_version.clone()));
        tracing::debug!(url = endpoint.shown, server_version, protocol, "connected");

        let socket = Arc::new(Socket::new(stream, hello.as_ref(), endpoint.shown.clone()));
        let taken = Arc::new(OnceLock::new());
        let slot = Arc::clone(&taken);
        let take = move |service: RpcService| {
            // The core is built once; were it built twice, either service would do.
            let _ = slot.set(service.clone());
            service
        };
        let core = RpcClientBuilder::new()
            .id_format(IdKind::String)
            // Limits are kept above.
            .request_timeout(FOREVER)
            .enable_ws_ping(PingConfig::new().ping_interval(PING_INTERVAL).inactive_limit(SILENCE_LIMIT))
            .set_rpc_middleware(RpcServiceBuilder::new().layer_fn(take))
            .build_with_tokio(
                Sender { socket: Arc::clone(&socket), pinged: false },
                Receiver { socket: Arc::clone(&socket) },
            );
        let service = taken.get().expect("the core passes its service through every layer once").clone();
        Ok(Self { core, service, socket, next_id: AtomicU64::new(1), server_version, greeting })
    }

    pub(crate) fn server_version(&self) -> Option<&str> {
        self.server_version.as_deref()
    }

    pub(crate) fn greeting(&self) -> Option<&Greeting> {
        self.greeting.as_ref()
    }

    /// Calls `method` and waits for its result, without a time limit.
    pub(crate) async fn request(
        &self,
        method: &str,
        params: Option<&RawValue>,
    ) -> Result<Box<RawValue>, Error> {
        self.request_as(self.next_id.fetch_add(1, Ordering::Relaxed), method, params).await
    }

    /// As [`WebSocket::request`]; over frames also receives the second response, if one comes.
    pub(crate) async fn start(
        &self,
        method: &str,
        params: &RawValue,
    ) -> Result<(Box<RawValue>, Option<OutcomeReceiver>), Error> {
        let number = self.next_id.fetch_add(1, Ordering::Relaxed);
        let outcome = self.socket.lock().frames.as_mut().map(|frames| frames.want_outcome(number));
        Ok((self.request_as(number, method, Some(params)).await?, outcome))
    }

    async fn request_as(
        &self,
        number: u64,
        method: &str,
        params: Option<&RawValue>,
    ) -> Result<Box<RawValue>, Error> {
        let sent = self.is_open();
        let answer = match self.service.call(Request::borrowed(method, params, Id::Number(number))).await {
            Ok(answer) => answer.into_response().into_inner(),
            Err(error) => return Err(self.explain(error, sent).await),
        };
        match ResponseSuccess::try_from(answer) {
            Ok(success) => Ok(success.result),
            Err(refusal) => Err(Error::refused(&refusal)),
        }
    }

    pub(crate) async fn notify(&self, method: &str, params: Option<Box<RawValue>>) -> Result<(), Error> {
        let params = params.map(std::borrow::Cow::Owned);
        let sent = self.is_open();
        match self.service.notification(Notification::new(method.into(), params)).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.explain(error, sent).await),
        }
    }

    /// Makes several calls with one message. The answers come in the order of the calls.
    pub(crate) async fn batch(
        &self,
        calls: Vec<(&str, Option<Box<RawValue>>)>,
    ) -> Result<Vec<Result<Box<RawValue>, ErrorObjectOwned>>, Error> {
        let mut batch = BatchRequestBuilder::new();
        for (method, params) in calls {
            batch.insert(method, Prepared(params)).expect("JSON is JSON already");
        }
        let sent = self.is_open();
        match self.core.batch_request::<Box<RawValue>>(batch).await {
            Ok(answers) => Ok(answers.into_iter().map(|answer| answer.map_err(|e| e.into_owned())).collect()),
            Err(error) => Err(self.explain(error, sent).await),
        }
    }

    pub(crate) async fn subscribe<N: DeserializeOwned>(
        &self,
        method: &str,
        params: Option<Box<RawValue>>,
        unsubscribe: &str,
    ) -> Result<Subscription<N>, Error> {
        let sent = self.is_open();
        let error = match self.core.subscribe(method, Prepared(params), unsubscribe).await {
            Ok(subscription) => return Ok(subscription),
            Err(error) => error,
        };
        Err(self.explain(error, sent).await)
    }

    pub(crate) async fn subscribe_to_method<N: DeserializeOwned>(
        &self,
        method: &str,
    ) -> Result<Subscription<N>, Error> {
        if let Some(frames) = &mut self.socket.lock().frames {
            frames.listen(method);
        }
        let error = match self.core.subscribe_to_method(method).await {
            Ok(subscription) => return Ok(subscription),
            Err(error) => error,
        };
        Err(self.explain(error, false).await)
    }

    /// Whether what is called now has a way out. A call that fails although this was true may have left.
    fn is_open(&self) -> bool {
        self.socket.lost.get().is_none() && self.core.is_connected()
    }

    /// The error as callers see it: why the connection ended, if that is what happened. `sent` is whether it stood
    /// when the call was made.
    async fn explain(&self, error: RpcClientError, sent: bool) -> Error {
        let ended = matches!(error, RpcClientError::ServiceDisconnect | RpcClientError::RestartNeeded(_));
        let error = match (ended, self.socket.lost.get(), error) {
            (true, Some(cause), _) => cause.clone(),
            // The socket was sound: the core itself gave up, over what it read or over silence.
            (_, _, RpcClientError::ServiceDisconnect) => {
                Error::from_rpc(&self.core.on_disconnect().await, &self.socket.url)
            }
            (_, _, other) => Error::from_rpc(&other, &self.socket.url),
        };
        if sent { error.in_flight() } else { error }
    }

    /// Waits for the end of the connection; why it ended.
    pub(crate) async fn end(&self) -> Error {
        let cause = self.core.on_disconnect().await;
        self.socket.lost.get().cloned().unwrap_or_else(|| Error::from_rpc(&cause, &self.socket.url))
    }

    /// Why the connection has ended, if it has.
    pub(crate) fn ended(&self) -> Option<Error> {
        if self.core.is_connected() {
            return None;
        }
        let unknown = || {
            let kind = TransportKind::Closed { code: None };
            Error::transport(kind, &self.socket.url, "the connection was given up")
        };
        Some(self.socket.lost.get().cloned().unwrap_or_else(unknown))
    }

    /// Says goodbye. Calls that wait fail.
    pub(crate) async fn close(&self) {
        self.socket.lose(|| self.socket.closed(None, "it was closed by this program"));
        self.socket.close().await;
    }
}

/// Longer than any program runs, and short enough to be added to any point in time.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// A byte stream, encrypted or not.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}
type BoxedStream = Box<dyn Stream>;

async fn dial(endpoint: &Endpoint) -> std::io::Result<TcpStream> {
    let port = endpoint.port;
    let tcp = match &endpoint.host {
        Host::Ipv4(address) => TcpStream::connect((*address, port)).await,
        Host::Ipv6(address) => match &endpoint.zone {
            None => TcpStream::connect((*address, port)).await,
            Some(zone) => TcpStream::connect(on_link(*address, zone, port).await?).await,
        },
        // The resolver would take a thread to say the same (RFC 6761 section 6.3).
        Host::Domain(name) if name == "localhost" => {
            match TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, port)).await {
                Ok(tcp) => Ok(tcp),
                Err(error) => TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.map_err(|_| error),
            }
        }
        Host::Domain(name) => TcpStream::connect((name.as_str(), port)).await,
    }?;
    // A call is one small write that is to leave at once.
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

/// The address of a machine on the link of the network interface `zone`, a name or a number.
async fn on_link(address: Ipv6Addr, zone: &str, port: u16) -> std::io::Result<SocketAddr> {
    // The system's resolver knows the interfaces; no name server is asked.
    let found = tokio::net::lookup_host((format!("{address}%{zone}"), port)).await;
    found
        .ok()
        .and_then(|mut found| found.next())
        .ok_or_else(|| std::io::Error::other(format!("this machine has no network interface `{zone}`")))
}

async fn encrypt(
    tcp: TcpStream,
    endpoint: &Endpoint,
    pin: Option<Fingerprint>,
) -> Result<BoxedStream, Error> {
    let unreachable = |cause: &dyn fmt::Display| {
        Error::transport(TransportKind::Unreachable, &endpoint.shown, format!("TLS failed: {cause}"))
    };
    let name = match &endpoint.host {
        Host::Domain(name) => rustls::pki_types::ServerName::try_from(name.clone())
            .map_err(|_| Error::invalid(format!("`{name}` is no name that a certificate can carry")))?,
        Host::Ipv4(address) => std::net::IpAddr::from(*address).into(),
        Host::Ipv6(address) => std::net::IpAddr::from(*address).into(),
    };
    let trust = Trust::new(pin);
    let mut config = trust.config().map_err(|cause| unreachable(&cause))?;
    // An upgrade is HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let connected = connector.connect(name, tcp).await;
    let stream =
        connected.map_err(|cause| trust.error(&endpoint.shown).unwrap_or_else(|| unreachable(&cause)))?;
    Ok(Box::new(stream))
}

/// Upgrades the stream (RFC 6455 section 4.1).
async fn upgrade(
    mut stream: BoxedStream,
    endpoint: &Endpoint,
    options: &Options,
) -> Result<(WebSocketStream<BoxedStream>, HeaderMap), Error> {
    let lost = |cause: std::io::Error| {
        Error::transport(TransportKind::Closed { code: None }, &endpoint.shown, cause)
    };
    let key = generate_key();
    let mut request = Vec::with_capacity(512);
    for line in [
        format!("GET {} HTTP/1.1", endpoint.target),
        format!("Host: {}", endpoint.authority),
        "Connection: Upgrade".to_owned(),
        "Upgrade: websocket".to_owned(),
        "Sec-WebSocket-Version: 13".to_owned(),
        format!("Sec-WebSocket-Key: {key}"),
        format!("Sec-WebSocket-Protocol: {SUBPROTOCOL}"),
    ] {
        request.extend_from_slice(line.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    for (name, value) in &options.headers {
        // A `HeaderValue` holds no line breaks.
        request.extend_from_slice(name.as_str().as_bytes());
        request.extend_from_slice(b": ");
        request.extend_from_slice(value.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await.map_err(lost)?;
    stream.flush().await.map_err(lost)?;

    let foreign = |what: String| Error::ProtocolMismatch {
        message: format!("{} does not speak WebSocket: {what}", endpoint.shown),
    };
    let mut received = Vec::with_capacity(1024);
    let (head_length, response) = loop {
        if stream.read_buf(&mut received).await.map_err(lost)? == 0 {
            let reason = "it was closed before the upgrade was answered";
            return Err(Error::transport(TransportKind::Closed { code: None }, &endpoint.shown, reason));
        }
        match Response::try_parse(&received) {
            Ok(Some(head)) => break head,
            Ok(None) if received.len() > MAX_HEAD_BYTES => {
                return Err(foreign(format!("its answer has more than {MAX_HEAD_BYTES} bytes of headers")));
            }
            Ok(None) => {}
            Err(problem) => return Err(foreign(problem.to_string())),
        }
    };
    let rest = received.split_off(head_length);
    let head = response.headers();
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let body = body_of(&mut stream, rest, head).await;
        return Err(upgrade_refused(response.status(), &body, &endpoint.shown));
    }
    if head
        .get("sec-websocket-accept")
        .is_none_or(|accept| accept != derive_accept_key(key.as_bytes()).as_str())
    {
        return Err(foreign("it answered the upgrade with a wrong `Sec-WebSocket-Accept`".to_owned()));
    }
    let mut config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
    config.max_message_size = Some(options.max_response_bytes);
    config.max_frame_size = Some(options.max_response_bytes);
    let head = head.clone();
    let stream = WebSocketStream::from_partially_read(stream, rest, Role::Client, Some(config)).await;
    Ok((stream, head))
}

/// What is spoken on a connection.
enum Dialect {
    JsonRpc,
    Frames,
}

fn dialect(head: &HeaderMap, endpoint: &Endpoint) -> Result<Dialect, Error> {
    match text_of(head, DIALECT_HEADER) {
        Some(SUBPROTOCOL) => Ok(Dialect::JsonRpc),
        Some(FRAMES_DIALECT) | None => Ok(Dialect::Frames),
        Some(other) => Err(Error::ProtocolMismatch {
            message: format!(
                "the gateway at {} answered in dialect `{other}`; this client speaks `{SUBPROTOCOL}` and \
                 `{FRAMES_DIALECT}`",
                endpoint.shown
            ),
        }),
    }
}

fn text_of<'a>(head: &'a HeaderMap, name: &str) -> Option<&'a str> {
    head.get(name).and_then(|value| value.to_str().ok())
}

/// The body of a refusal, as far as it is announced and arrives.
async fn body_of(stream: &mut BoxedStream, mut body: Vec<u8>, head: &HeaderMap) -> Vec<u8> {
    let announced = text_of(head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let length = MAX_HEAD_BYTES.min(announced);
    while body.len() < length {
        // What is there already must do when the stream breaks off.
        if !matches!(stream.read_buf(&mut body).await, Ok(1..)) {
            break;
        }
    }
    body
}

/// A JSON-RPC answer that carries an error.
#[derive(Deserialize)]
pub(crate) struct ErrorAnswer {
    pub(crate) error: ErrorObjectOwned,
}

/// An upgrade was answered with something else than the switch of protocols.
fn upgrade_refused(status: StatusCode, body: &[u8], url: &str) -> Error {
    if let Ok(answer) = serde_json::from_slice::<ErrorAnswer>(body) {
        return Error::refused(&answer.error);
    }
    let said = std::str::from_utf8(body).unwrap_or_default().trim();
    // One line for people; a page or a document says nothing here.
    let is_a_line = (1..=200).contains(&said.len()) && !said.starts_with(['<', '{', '[']);
    let reason = if is_a_line && !said.contains(char::is_control) {
        said
    } else {
        status.canonical_reason().unwrap_or("no upgrade to WebSocket")
    };
    if status == StatusCode::UNAUTHORIZED {
        let message = format!("the gateway at {url} wants a valid credential");
        return Error::Unauthorized { message, details: None };
    }
    Error::transport(TransportKind::Rejected { status: status.as_u16() }, url, reason)
}

/// The socket, shared by the sending and the receiving half.
struct Socket {
    state: Mutex<State>,
    /// Why the connection ended. Set before either half reports it.
    lost: OnceLock<Error>,
    url: String,
}

struct State {
    /// Absent once the connection has ended, so that the descriptor does not outlive it.
    stream: Option<WebSocketStream<BoxedStream>>,
    /// The translation, where the gateway speaks frames.
    frames: Option<Frames>,
    /// Ends a connection on which no frame came for too long.
    watchdog: Option<Watchdog>,
    /// Whether the output buffer holds messages that the receiving task is still to write.
    unflushed: bool,
    closing: bool,
    /// Drives the socket.
    receiver: Option<Waker>,
    /// Waits for room in the output buffer.
    sender: Option<Waker>,
}

/// Notices that a gateway stopped ticking.
struct Watchdog {
    limit: Duration,
    last: Instant,
    /// Set anew only when it is over, so that a frame costs no timer.
    sleep: Pin<Box<Sleep>>,
}

impl Watchdog {
    fn new(tick_interval: Duration) -> Self {
        let limit = tick_interval.saturating_mul(SILENT_TICKS).min(FOREVER);
        let last = Instant::now();
        Self { limit, last, sleep: Box::pin(sleep_until(last + limit)) }
    }

    /// Ready once the limit has passed since the last frame.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.poll_unpin(context));
            let due = self.last + self.limit;
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(due);
        }
    }
}

impl State {
    fn wake_receiver(&mut self) {
        if let Some(waker) = self.receiver.take() {
            waker.wake();
        }
    }

    fn wake_sender(&mut self) {
        if let Some(waker) = self.sender.take() {
            waker.wake();
        }
    }
}

impl Socket {
    fn new(stream: WebSocketStream<BoxedStream>, hello: Option<&Hello>, url: String) -> Self {
        let state = State {
            stream: Some(stream),
            // Since protocol 4 a connection's events are counted for themselves.
            frames: hello.map(|hello| Frames::new(hello.greeting.protocol >= 4)),
            watchdog: hello.map(|hello| Watchdog::new(hello.tick_interval)),
            unflushed: false,
            closing: false,
            receiver: None,
            sender: None,
        };
        Self { state: Mutex::new(state), lost: OnceLock::new(), url }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No invariant spans a panic: at worst the codec reports an error next.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes why the connection ended; the first cause stays.
    fn lose(&self, cause: impl FnOnce() -> Error) -> Error {
        self.lost.get_or_init(cause).clone()
    }

    fn closed(&self, code: Option<u16>, reason: impl fmt::Display) -> Error {
        Error::transport(TransportKind::Closed { code }, &self.url, reason)
    }

    /// For those who come after the end.
    fn over(&self) -> Error {
        self.lost.get().cloned().unwrap_or_else(|| self.closed(None, "it is over"))
    }

    /// What goes onto the wire for a message of the core. An answer that is made here wakes the receiving task.
    fn outgoing(&self, message: String) -> Vec<String> {
        let mut state = self.lock();
        let Some(frames) = &mut state.frames else { return vec![message] };
        let outgoing = frames.send(&message);
        state.wake_receiver();
        outgoing
    }

    fn poll_send(&self, message: &mut Option<Message>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(stream) = state.stream.as_mut().filter(|_| !state.closing) else {
            return Poll::Ready(Err(self.over()));
        };
        // Kept whatever comes: the receiving task takes over the codec's waker when it flushes.
        state.sender = Some(context.waker().clone());
        let outcome = ready!(stream.poll_ready_unpin(context)).and_then(|()| match message.take() {
            Some(message) => stream.start_send_unpin(message),
            None => Ok(()),
        });
        state.sender = None;
        match outcome {
            Ok(()) => {
                state.unflushed = true;
                state.wake_receiver();
                Poll::Ready(Ok(()))
            }
            // Why it ended may still be unread.
            Err(failure) => Poll::Ready(Err(match self.poll_read(stream, context) {
                Poll::Ready(Err(cause)) => cause,
                Poll::Ready(Ok(_)) | Poll::Pending => self.lose(|| self.explained(failure)),
            })),
        }
    }

    fn poll_receive(&self, context: &mut Context<'_>) -> Poll<Result<ReceivedMessage, Error>> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(stream) = state.stream.as_mut().filter(|_| !state.closing) else {
            return Poll::Ready(Err(self.over()));
        };
        state.receiver = Some(context.waker().clone());
        let mut failure = None;
        if state.unflushed {
            match stream.poll_flush_unpin(context) {
                Poll::Ready(Ok(())) => state.unflushed = false,
                Poll::Ready(Err(error)) => failure = Some(error),
                Poll::Pending => {}
            }
        }
        let received =
            match (self.poll_message(stream, &mut state.frames, &mut state.watchdog, context), failure) {
                (Poll::Pending, Some(failure)) => Poll::Ready(Err(self.lose(|| self.explained(failure)))),
                (received, _) => received,
            };
        if let (Poll::Ready(Err(_)), Some(frames)) = (&received, &mut state.frames) {
            frames.end();
        }
        if !state.unflushed || received.is_ready() {
            state.wake_sender();
        }
        received
    }

    /// The next message for the core.
    fn poll_message(
        &self,
        stream: &mut WebSocketStream<BoxedStream>,
        frames: &mut Option<Frames>,
        watchdog: &mut Option<Watchdog>,
        context: &mut Context<'_>,
    ) -> Poll<Result<ReceivedMessage, Error>> {
        let Some(frames) = frames else { return self.poll_read(stream, context) };
        loop {
            if let Some(message) = frames.next() {
                return Poll::Ready(Ok(ReceivedMessage::Bytes(message.into_bytes())));
            }
            match self.poll_read(stream, context) {
                Poll::Ready(Ok(ReceivedMessage::Bytes(message))) => {
                    frames.receive(&message);
                    if let Some(watchdog) = watchdog {
                        watchdog.last = Instant::now();
                    }
                }
                other @ Poll::Ready(_) => return other,
                Poll::Pending => break,
            }
        }
        let Some(watchdog) = watchdog else { return Poll::Pending };
        ready!(watchdog.poll(context));
        let frame = CloseFrame { code: CloseCode::from(TICK_TIMEOUT), reason: "tick timeout".into() };
        // Closing the socket flushes it, as far as the peer still reads.
        let _ = stream.start_send_unpin(Message::Close(Some(frame)));
        let silence = format!("it sent nothing for {:?}, not even a tick", watchdog.limit);
        Poll::Ready(Err(self.lose(|| self.closed(Some(TICK_TIMEOUT), silence))))
    }

    fn poll_read(
        &self,
        stream: &mut WebSocketStream<BoxedStream>,
        context: &mut Context<'_>,
    ) -> Poll<Result<ReceivedMessage, Error>> {
        loop {
            let received = match ready!(stream.poll_next_unpin(context)) {
                Some(Ok(Message::Text(text))) => Ok(ReceivedMessage::Bytes(Bytes::from(text).into())),
                Some(Ok(Message::Binary(bytes))) => Ok(ReceivedMessage::Bytes(bytes.into())),
                Some(Ok(Message::Pong(_))) => Ok(ReceivedMessage::Pong),
                // The codec answers pings by itself, with the next read.
                Some(Ok(Message::Ping(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Close(frame))) => Err(self.lose(|| self.closed_by(frame.as_ref()))),
                Some(Err(error)) => Err(self.lose(|| self.explained(error))),
                None => Err(self.lose(|| self.closed(None, "the gateway is gone"))),
            };
            return Poll::Ready(received);
        }
    }

    fn closed_by(&self, frame: Option<&CloseFrame>) -> Error {
        match frame {
            Some(frame) if frame.reason.is_empty() => self.closed(Some(frame.code.into()), "no reason given"),
            Some(frame) => self.closed(Some(frame.code.into()), &frame.reason),
            None => self.closed(None, "the gateway closed it without a reason"),
        }
    }

    fn explained(&self, error: CodecError) -> Error {
        match error {
            CodecError::Capacity(problem) => Error::bad_payload(
                "a message of the gateway",
                format!("{problem}; `ClientBuilder::max_response_bytes` sets the bound"),
            ),
            CodecError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                self.closed(None, "the gateway is gone, without a goodbye")
            }
            CodecError::Protocol(problem) => Error::bad_payload("a message of the gateway", problem),
            CodecError::Utf8(problem) => Error::bad_payload("a message of the gateway", problem),
            CodecError::Io(problem) => self.closed(None, problem),
            other => self.closed(None, other),
        }
    }

    /// Sends the close frame, if the connection stands, and lets go of the socket.
    async fn close(&self) {
        let flushed = poll_fn(|context| {
            let mut guard = self.lock();
            let state = &mut *guard;
            let Some(stream) = state.stream.as_mut() else { return Poll::Ready(()) };
            if !state.closing {
                state.closing = true;
                let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
                // Fails when the gateway closed first; then its own frame is answered by the flush.
                let _ = stream.start_send_unpin(Message::Close(Some(frame)));
            }
            // A connection that cannot be written to is closed as well.
            stream.poll_flush_unpin(context).map(|_| ())
        });
        // Over the limit the socket is dropped as it is.
        let _ = timeout(CLOSE_LIMIT, flushed).await;
        let mut state = self.lock();
        state.stream = None;
        if let Some(frames) = &mut state.frames {
            frames.end();
        }
        state.wake_receiver();
        state.wake_sender();
    }
}

struct Sender {
    socket: Arc<Socket>,
    pinged: bool,
}

impl TransportSenderT for Sender {
    type Error = Error;

    async fn send(&mut self, message: String) -> Result<(), Error> {
        for message in self.socket.outgoing(message) {
            let mut message = Some(Message::text(message));
            poll_fn(|context| self.socket.poll_send(&mut message, context)).await?;
        }
        Ok(())
    }

    async fn send_ping(&mut self) -> Result<(), Error> {
        // The core's first ping comes with the connection, which has just proved to be alive.
        if !std::mem::replace(&mut self.pinged, true) {
            return Ok(());
        }
        let mut message = Some(Message::Ping(Bytes::new()));
        poll_fn(|context| self.socket.poll_send(&mut message, context)).await
    }

    async fn close(&mut self) -> Result<(), Error> {
        self.socket.close().await;
        Ok(())
    }
}

struct Receiver {
    socket: Arc<Socket>,
}

impl TransportReceiverT for Receiver {
    type Error = Error;

    async fn receive(&mut self) -> Result<ReceivedMessage, Error> {
        poll_fn(|context| self.socket.poll_receive(context)).await
    }
}
