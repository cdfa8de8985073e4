//! The port: one listener for WebSocket upgrades, JSON-RPC over POST, probes and the document.
//!
//! The way of a call: socket → [`websocket`] or [`http`] → [`jsonrpc`] (envelope) → `Dispatcher` → `methods`.

pub(crate) mod http;
pub(crate) mod jsonrpc;
mod socket;
mod stream;
mod websocket;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::stream::Stream;
use crate::{auth::Authenticator, context::Context, dispatcher::Dispatcher, settings::Limits};

/// How long accepting pauses when the system has no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection has, once the gateway stops, to write answers that are there. Calls in flight have been
/// waited for by then.
const LINGER: Duration = Duration::from_millis(500);

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) dispatcher: Dispatcher,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) limits: Limits,
    pub(crate) context: Arc<Context>,
    /// The document of `rpc.discover`, as text.
    pub(crate) document: bytes::Bytes,
    /// Cancelled when the gateway stops: connections finish their calls and close.
    pub(crate) stopping: CancellationToken,
    /// Cancelled when the gateway is gone: connections close at once, calls in flight or not.
    pub(crate) gone: CancellationToken,
    /// The tasks of the connections.
    pub(crate) tasks: TaskTracker,
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) unauthenticated: Arc<Semaphore>,
    next_connection: AtomicU64,
}

impl Shared {
    pub(crate) fn new(
        dispatcher: Dispatcher,
        authenticator: Arc<Authenticator>,
        limits: Limits,
        context: Arc<Context>,
        document: bytes::Bytes,
    ) -> Self {
        Self {
            dispatcher,
            authenticator,
            context,
            document,
            stopping: CancellationToken::new(),
            gone: CancellationToken::new(),
            tasks: TaskTracker::new(),
            connections: Arc::new(Semaphore::new(limits.max_connections)),
            unauthenticated: Arc::new(Semaphore::new(limits.max_unauthenticated)),
            next_connection: AtomicU64::new(1),
            limits,
        }
    }

    fn next_connection_id(&self) -> u64 {
        self.next_connection.fetch_add(1, Ordering::Relaxed)
    }
}

/// Accepts connections until the gateway stops.
pub(crate) async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    let router = http::router(&shared);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stopping.cancelled() => return,
        };
        match accepted {
            Ok((stream, remote)) => accept(stream, remote, &shared, router.clone()),
            Err(error) => {
                // Out of descriptors, or the peer has gone already: neither ends the gateway.
                tracing::warn!(%error, "accepting a connection failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn accept(stream: TcpStream, remote: SocketAddr, shared: &Arc<Shared>, router: axum::Router) {
    let Ok(permit) = Arc::clone(&shared.connections).try_acquire_owned() else {
        tracing::warn!(%remote, "refused: {} connections are open, the most there may be", shared.limits.max_connections);
        return;
    };
    // Answers are small and waited for.
    let _ = stream.set_nodelay(true);
    let stream = Stream::new(stream, shared.limits.send_timeout);
    let service = http::Service::new(Arc::clone(shared), remote, router, permit);
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(shared.limits.header_timeout)
        .max_buf_size(64 * 1024);
    let connection =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).with_upgrades();
    let (stopping, gone) = (shared.stopping.clone(), shared.gone.clone());
    shared.tasks.spawn(async move {
        let mut connection = std::pin::pin!(connection);
        let result = tokio::select! {
            result = connection.as_mut() => result,
            () = stopping.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = tokio::time::timeout(LINGER, connection) => match ended {
                        Ok(result) => result,
                        Err(_) => return tracing::debug!(%remote, "an HTTP connection was cut"),
                    },
                    () = gone.cancelled() => return,
                }
            }
        };
        if let Err(error) = result {
            tracing::debug!(%remote, %error, "an HTTP connection ended");
        }
    });
}
