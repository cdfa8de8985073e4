//! The port: one listener for WebSocket upgrades, JSON-RPC over POST, probes and the document.
//!
//! The way of a call: socket → [`websocket`] or [`http`] → [`jsonrpc`] (envelope) → `Dispatcher` → `methods`.

mod frames;
pub(crate) mod guard;
mod handshake;
pub(crate) mod http;
pub(crate) mod jsonrpc;
mod reply;
mod socket;
mod stream;
mod websocket;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{guard::Guard, stream::Stream};
use crate::{
    auth::CurrentAuth, caller::Entrance, context::Context, dispatcher::Dispatcher, settings::LiveLimits,
    tls::Tls,
};

/// Reads a message of a frame connection that is past its handshake.
pub(crate) fn decode_frame(text: &str) -> crate::decoders::Frame {
    frames::decoded(text)
}

/// Reads the first message of a frame connection.
pub(crate) fn decode_connect(text: &str) -> crate::decoders::Connect {
    handshake::decoded(text)
}

/// How long accepting pauses when the system has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection has, once the gateway stops, to write answers that are there. Calls in flight have been
/// waited for by then.
const LINGER: Duration = Duration::from_millis(500);
/// What a caller reads that speaks plain HTTP on a port that speaks TLS.
const PLAIN_ON_TLS: &str = "this port speaks TLS: use wss:// or https://\n";

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) dispatcher: Dispatcher,
    pub(crate) auth: CurrentAuth,
    pub(crate) limits: LiveLimits,
    pub(crate) context: Arc<Context>,
    /// Cancelled when the gateway stops: connections finish their calls and close.
    pub(crate) stopping: CancellationToken,
    /// Cancelled when the gateway is gone: connections close at once, calls in flight or not.
    pub(crate) gone: CancellationToken,
    /// The tasks of the connections.
    pub(crate) tasks: TaskTracker,
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) unauthenticated: Arc<Semaphore>,
    /// Absent where the port is plain.
    pub(crate) tls: Option<Arc<Tls>>,
    pub(crate) guard: ArcSwap<Guard>,
    next_connection: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        dispatcher: Dispatcher,
        auth: CurrentAuth,
        context: Arc<Context>,
        tls: Option<Arc<Tls>>,
        guard: Guard,
    ) -> Self {
        let limits = Arc::clone(&context.limits);
        let bounds = limits.load();
        Self {
            dispatcher,
            auth,
            tls,
            guard: ArcSwap::from_pointee(guard),
            stopping: CancellationToken::new(),
            gone: CancellationToken::new(),
            tasks: TaskTracker::new(),
            connections: Arc::new(Semaphore::new(bounds.max_connections)),
            unauthenticated: Arc::new(Semaphore::new(bounds.max_unauthenticated)),
            next_connection: AtomicU64::new(1),
            limits: Arc::clone(&limits),
            context,
        }
    }

    fn next_connection_id(&self) -> u64 {
        self.next_connection.fetch_add(1, Ordering::Relaxed)
    }
}

/// Accepts connections until the gateway stops.
pub(crate) async fn listen(listener: Arc<TcpListener>, entrance: Entrance, shared: Arc<Shared>) {
    let router = http::router(&shared);
    loop {
        let accepted = tokio::select! {
            biased;
            // Who connects from now on is left to the gateway that comes next, if one does.
            () = shared.stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => accept(stream, remote, entrance, &shared, router.clone()),
            Err(error) => {
                // Out of descriptors, or the peer has gone already: neither ends the gateway.
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn accept(
    stream: TcpStream,
    remote: SocketAddr,
    entrance: Entrance,
    shared: &Arc<Shared>,
    router: axum::Router,
) {
    let Ok(permit) = Arc::clone(&shared.connections).try_acquire_owned() else {
        tracing::warn!(%remote, "refused: {} connections are open, the most there may be", shared.limits.load().max_connections);
        return;
    };
    // Answers are small and waited for.
    let _ = stream.set_nodelay(true);
    let service = http::Service::new(Arc::clone(shared), remote, entrance, router, permit);
    let shared_for_task = Arc::clone(shared);
    let limits = shared.limits.load_full();
    // A proxy speaks TLS with its callers.
    match shared.tls.as_ref().filter(|_| entrance == Entrance::Own) {
        None => {
            let stream = Stream::new(stream, limits.send_timeout);
            shared.tasks.spawn(serve(stream, remote, shared_for_task, service));
        }
        Some(tls) => {
            let acceptor = tls.acceptor();
            shared.tasks.spawn(async move {
                let shared = &shared_for_task;
                let handshake = tokio::time::timeout(limits.header_timeout, encrypt(stream, &acceptor));
                let stream = tokio::select! {
                    done = handshake => match done {
                        Ok(Ok(stream)) => stream,
                        Ok(Err(error)) => return tracing::debug!(%remote, %error, "no TLS connection"),
                        Err(_) => return tracing::debug!(%remote, "a TLS handshake took too long"),
                    },
                    () = shared.stopping.cancelled() => return,
                };
                let stream = Stream::new(stream, limits.send_timeout);
                serve(stream, remote, shared_for_task, service).await;
            });
        }
    }
}

/// Does the handshake of TLS. A caller that speaks plain HTTP is told so in words it understands.
async fn encrypt(mut stream: TcpStream, acceptor: &TlsAcceptor) -> io::Result<TlsStream<TcpStream>> {
    let mut first = [0];
    // A TLS record begins with its type, 22 for a handshake (RFC 8446 section 5.1); an HTTP request with a letter.
    if stream.peek(&mut first).await? == 1 && first[0].is_ascii_alphabetic() {
        let (length, text) = (PLAIN_ON_TLS.len(), PLAIN_ON_TLS);
        let head = "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close";
        stream.write_all(format!("{head}\r\ncontent-length: {length}\r\n\r\n{text}").as_bytes()).await?;
        stream.shutdown().await?;
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the caller speaks plain HTTP"));
    }
    acceptor.accept(stream).await
}

/// Serves one connection until it ends or the gateway stops.
async fn serve<S>(stream: Stream<S>, remote: SocketAddr, shared: Arc<Shared>, service: http::Service)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(shared.limits.load().header_timeout)
        .max_buf_size(64 * 1024);
    let connection =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = shared.stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = tokio::time::timeout(LINGER, connection) => match ended {
                    Ok(result) => result,
                    Err(_) => return tracing::debug!(%remote, "an HTTP connection was cut"),
                },
                () = shared.gone.cancelled() => return,
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%remote, %error, "an HTTP connection ended");
    }
}
