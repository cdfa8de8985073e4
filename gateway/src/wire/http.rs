//! HTTP on the gateway's port: JSON-RPC by POST, WebSocket upgrades, probes, the document.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::Arc,
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{
        ALLOW, AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, ORIGIN, RETRY_AFTER,
        SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
        WWW_AUTHENTICATE,
    },
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::upgrade::{OnUpgrade, Parts};
use hyper_util::rt::TokioIo;
use openclaw_schema::{ErrorCode, RpcError, Scope, Scopes};
use serde_json::json;
use tokio::{net::TcpStream, sync::OwnedSemaphorePermit, time::timeout};
use tokio_rustls::server::TlsStream;

use super::{
    Shared,
    guard::Refused,
    jsonrpc::{self, Peer},
    stream::Stream,
    websocket::{self, Dialect},
};
use crate::{
    caller::{Caller, Entrance, Page},
    connection::{Connection, Transport},
    lockout::{self, CredentialKind},
    methods,
    settings::Limits,
};

/// The path of JSON-RPC, over POST and over WebSocket.
const RPC_PATH: &str = "/rpc";
/// The WebSocket subprotocol of JSON-RPC.
const JSONRPC_SUBPROTOCOL: &str = "jsonrpc";
/// What [`DIALECT_HEADER`] says of OpenClaw frames.
const FRAMES_DIALECT: &str = "frames";
/// Says that this gateway answered, and its version. Stock gateways do not send it.
const GATEWAY_HEADER: HeaderName = HeaderName::from_static("openclaw-gateway");
/// Says which dialect an upgraded connection speaks. Stock gateways echo any subprotocol, so that an echo proves
/// nothing.
const DIALECT_HEADER: HeaderName = HeaderName::from_static("openclaw-dialect");
/// The caller's own bound on each call, in milliseconds.
const TIMEOUT_HEADER: HeaderName = HeaderName::from_static("openclaw-timeout-ms");
/// Scopes, separated by commas, that the caller narrows its rights to.
const SCOPES_HEADER: HeaderName = HeaderName::from_static("openclaw-scopes");
const VERSION: HeaderValue = HeaderValue::from_static(env!("CARGO_PKG_VERSION"));

/// Who an HTTP request comes from: the other end of the connection, and who is behind it.
#[derive(Debug, Clone, Copy)]
struct Requester(SocketAddr, Caller);

/// What a request wants, as far as it decides who may make it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// A WebSocket that speaks JSON-RPC.
    JsonRpc,
    /// A WebSocket that speaks OpenClaw frames.
    Frames,
    /// To have something done.
    Post,
    /// To look at what everyone may see.
    Read,
}

impl Wish {
    fn of<B>(request: &http::Request<B>) -> Self {
        match request.method() {
            _ if !is_upgrade(request.headers()) => {
                if matches!(*request.method(), Method::GET | Method::HEAD) { Self::Read } else { Self::Post }
            }
            _ if request.uri().path() == RPC_PATH || offers_jsonrpc(request.headers()) => Self::JsonRpc,
            _ => Self::Frames,
        }
    }
}

/// The service of one TCP connection.
#[derive(Clone)]
pub(crate) struct Service {
    shared: Arc<Shared>,
    remote: SocketAddr,
    entrance: Entrance,
    router: Router,
    /// The connection's place among the open ones; moves on to its WebSocket.
    permit: Arc<OwnedSemaphorePermit>,
}

impl Service {
    pub(crate) fn new(
        shared: Arc<Shared>,
        remote: SocketAddr,
        entrance: Entrance,
        router: Router,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        Self { shared, remote, entrance, router, permit: Arc::new(permit) }
    }
}

impl tower::Service<http::Request<hyper::body::Incoming>> for Service {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<hyper::body::Incoming>) -> Self::Future {
        let mut request = request.map(Body::new);
        let wish = Wish::of(&request);
        let answer =
            look(request.headers(), wish, &self.shared, self.remote, self.entrance).and_then(|requester| {
                match wish {
                    Wish::JsonRpc | Wish::Frames => {
                        upgrade(request, wish == Wish::JsonRpc, &self.shared, requester, &self.permit)
                            .map(Answer::Ready)
                    }
                    Wish::Post | Wish::Read => {
                        request.extensions_mut().insert(requester);
                        Ok(Answer::Routed(self.router.clone(), request))
                    }
                }
            });
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let mut response = match answer {
                Ok(Answer::Ready(response)) => response,
                Ok(Answer::Routed(mut router, request)) => tower::Service::call(&mut router, request).await?,
                Err(refusal) => refusal.told(&shared).await,
            };
            response.headers_mut().insert(GATEWAY_HEADER, VERSION);
            Ok(response)
        })
    }
}

/// What is done about a request that is not refused at once.
enum Answer {
    Ready(Response),
    Routed(Router, Request),
}

/// A request that is refused.
struct Refusal {
    response: Response,
    /// Whether a wrong secret was shown: the answer is held back.
    is_guess: bool,
}

impl Refusal {
    fn new(response: Response) -> Box<Self> {
        Box::new(Self { response, is_guess: false })
    }

    fn of_guess(response: Response) -> Box<Self> {
        Box::new(Self { response, is_guess: true })
    }

    /// The response, when it is time for it. Nothing but the socket waits.
    async fn told(self: Box<Self>, shared: &Shared) -> Response {
        if self.is_guess {
            shared.context.devices.lockout().delay().await;
        }
        self.response
    }
}

/// Finds out who makes a request, and turns it away where the guard says so.
fn look(
    headers: &HeaderMap,
    wish: Wish,
    shared: &Shared,
    remote: SocketAddr,
    entrance: Entrance,
) -> Result<Requester, Box<Refusal>> {
    let refuse = |refused: &Refused| {
        tracing::warn!(%remote, reason = %refused, "a request was turned away");
        Refusal::new(turned_away(refused, wish))
    };
    let guard = shared.guard.load();
    let page = guard.page(headers).map_err(|refused| refuse(&refused))?;
    let may_be_foreign = match wish {
        // What is read is public, but no foreign script is to know that a gateway is here.
        Wish::Read => !headers.contains_key(ORIGIN),
        // The handshake refuses it, with an answer that the page can read (wire.md section 4). Pages do not get
        // all places of those who wait for one.
        Wish::Frames => {
            let free = shared.unauthenticated.available_permits();
            headers.contains_key(ORIGIN) && free * 2 > shared.limits.load().max_unauthenticated
        }
        Wish::JsonRpc | Wish::Post => false,
    };
    if page == Page::Foreign && !may_be_foreign {
        return Err(refuse(&Refused::Origin));
    }
    let caller = match wish {
        // Who looks at what everyone may see need not be known.
        Wish::Read => Caller { ip: remote.ip().to_canonical(), is_local: false, page },
        Wish::JsonRpc | Wish::Frames | Wish::Post => {
            guard.caller(headers, remote.ip(), entrance, page).map_err(|refused| refuse(&refused))?
        }
    };
    Ok(Requester(remote, caller))
}

/// How the guard's refusal is told.
fn turned_away(refused: &Refused, wish: Wish) -> Response {
    match (refused, wish) {
        // wire.md section 1.
        (Refused::Proxy | Refused::NoClient, Wish::Frames) => {
            let error = json!({ "type": "proxy_attribution_required", "message": refused.to_string() });
            (StatusCode::FORBIDDEN, Json(json!({ "error": error }))).into_response()
        }
        _ => error_response(StatusCode::FORBIDDEN, RpcError::new(ErrorCode::Forbidden, refused.to_string())),
    }
}

/// The routes that are no upgrade.
pub(crate) fn router(shared: &Arc<Shared>) -> Router {
    let live = probe(get(|| async { uncached(Json(json!({ "ok": true, "status": "live" }))) }));
    Router::new()
        .route(RPC_PATH, post(rpc).fallback(|| async { method_not_allowed("POST") }))
        .route("/openrpc.json", probe(get(document)))
        .route("/health", live.clone())
        .route("/healthz", live)
        .route("/ready", probe(get(ready)))
        .route("/readyz", probe(get(ready)))
        .route("/startupz", probe(get(started)))
        .route("/", probe(get(front)))
        .fallback(|| async { (StatusCode::NOT_FOUND, "Not Found\n") })
        .with_state(Arc::clone(shared))
}

fn probe(route: MethodRouter<Arc<Shared>>) -> MethodRouter<Arc<Shared>> {
    route.fallback(|| async { method_not_allowed("GET, HEAD") })
}

fn method_not_allowed(allowed: &'static str) -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, allowed)], "Method Not Allowed\n").into_response()
}

fn uncached(response: impl IntoResponse) -> Response {
    ([(CACHE_CONTROL, "no-store")], response).into_response()
}

async fn document(State(shared): State<Arc<Shared>>) -> Response {
    match shared.context.document.text() {
        Ok(text) => ([(CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => error_response(StatusCode::INTERNAL_SERVER_ERROR, methods::internal(error)),
    }
}

/// wire.md section 11: 503 while the gateway drains.
async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    let draining = shared.dispatcher.refuses_calls();
    let failing: &[&str] = if draining { &["gateway-draining"] } else { &[] };
    let status = if draining { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    let body = json!({ "ready": !draining, "failing": failing, "uptimeMs": shared.context.uptime_ms() });
    uncached((status, Json(body)))
}

async fn started(State(shared): State<Arc<Shared>>) -> Response {
    let draining = shared.dispatcher.refuses_calls();
    let (status, word) =
        if draining { (StatusCode::SERVICE_UNAVAILABLE, "draining") } else { (StatusCode::OK, "started") };
    let version = env!("CARGO_PKG_VERSION");
    let body = json!({ "ok": !draining, "status": word, "version": version, "uptimeMs": shared.context.uptime_ms() });
    uncached((status, Json(body)))
}

async fn front() -> &'static str {
    concat!(
        "OpenClaw Gateway ",
        env!("CARGO_PKG_VERSION"),
        "\n\nJSON-RPC 2.0: POST /rpc, or a WebSocket at /rpc\nThe contract: GET /openrpc.json\nProbes: GET /healthz, /readyz, /startupz\n"
    )
}

/// JSON-RPC over POST.
async fn rpc(
    State(shared): State<Arc<Shared>>,
    Extension(requester): Extension<Requester>,
    request: Request,
) -> Response {
    let connection = match identify(request.headers(), &shared, requester, Transport::Http) {
        Ok(connection) => Arc::new(connection),
        Err(refusal) => return refusal.told(&shared).await,
    };
    if let Some(refusal) = connection.missing_credential() {
        return unauthorized(&refusal.to_string());
    }
    let limits = shared.limits.load_full();
    let body = match read_body(request.into_body(), &limits).await {
        Ok(body) => body,
        Err(BodyError::TooLarge) => {
            let message = format!("a request may have {} bytes at most", limits.max_payload_bytes);
            return error_response(
                StatusCode::PAYLOAD_TOO_LARGE,
                RpcError::new(ErrorCode::LimitExceeded, message),
            );
        }
        Err(BodyError::Ended) => {
            let error = RpcError::new(ErrorCode::InvalidRequest, "the request body ended early");
            return error_response(StatusCode::BAD_REQUEST, error);
        }
        Err(BodyError::Stalled) => {
            let message =
                format!("nothing of the request body came for {} ms", limits.body_timeout.as_millis());
            let error = RpcError::new(ErrorCode::DeadlineExceeded, message);
            let mut response = error_response(StatusCode::REQUEST_TIMEOUT, error);
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            return response;
        }
    };
    let Ok(text) = std::str::from_utf8(&body) else {
        let error = RpcError::new(ErrorCode::ParseError, "the text is not JSON: it is not UTF-8");
        return json_response(jsonrpc::error_text("null", error));
    };
    let peer = Peer {
        dispatcher: &shared.dispatcher,
        connection: &connection,
        subscriptions: None,
        max_batch: limits.max_batch,
        max_response_bytes: limits.max_payload_bytes,
    };
    let answer = jsonrpc::receive(text, &peer).into_text().await;
    answer.map_or_else(|| StatusCode::NO_CONTENT.into_response(), json_response)
}

/// Why there is no request body.
enum BodyError {
    TooLarge,
    Ended,
    Stalled,
}

/// The whole body, of a sender that keeps sending.
async fn read_body(body: Body, limits: &Limits) -> Result<Bytes, BodyError> {
    let mut body = Limited::new(body, limits.max_payload_bytes);
    let mut read = Bytes::new();
    let mut joined = BytesMut::new();
    while let Some(frame) =
        timeout(limits.body_timeout, body.frame()).await.map_err(|_| BodyError::Stalled)?
    {
        let frame = frame.map_err(|error| {
            if error.is::<LengthLimitError>() { BodyError::TooLarge } else { BodyError::Ended }
        })?;
        let Ok(data) = frame.into_data() else { continue };
        // Most bodies come in one piece, which is not copied.
        if read.is_empty() && joined.is_empty() {
            read = data;
        } else {
            joined.extend_from_slice(&std::mem::take(&mut read));
            joined.extend_from_slice(&data);
        }
    }
    Ok(if joined.is_empty() { read } else { joined.freeze() })
}

fn json_response(text: String) -> Response {
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}

fn error_response(status: StatusCode, error: RpcError) -> Response {
    (status, json_response(jsonrpc::error_text("null", error))).into_response()
}

fn unauthorized(message: &str) -> Response {
    let mut response = error_response(StatusCode::UNAUTHORIZED, RpcError::unauthorized(message));
    response
        .headers_mut()
        .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"openclaw-gateway\""));
    response
}

/// The caller as its headers make it known: deadline, scopes, credential. A wrong credential is refused; none leaves
/// the connection unauthenticated, unless the gateway asks for nothing.
fn identify(
    headers: &HeaderMap,
    shared: &Shared,
    Requester(remote, caller): Requester,
    transport: Transport,
) -> Result<Connection, Box<Refusal>> {
    let bad = |message: String| {
        let error = RpcError::new(ErrorCode::InvalidRequest, message);
        Refusal::new(error_response(StatusCode::BAD_REQUEST, error))
    };
    let call_timeout = match headers.get(TIMEOUT_HEADER) {
        None => None,
        Some(value) => match value.to_str().ok().and_then(|value| value.parse().ok()).filter(|ms| *ms > 0) {
            Some(ms) => Some(Duration::from_millis(ms)),
            None => {
                return Err(bad(format!(
                    "header {TIMEOUT_HEADER} must be a positive number of milliseconds"
                )));
            }
        },
    };
    let asked = match headers.get(SCOPES_HEADER) {
        None => None,
        // Names that the gateway does not know grant nothing.
        Some(value) => match value.to_str() {
            Ok(names) => {
                Some(names.split(',').filter_map(|name| Scope::from_name(name.trim())).collect::<Scopes>())
            }
            Err(_) => {
                return Err(bad(format!("header {SCOPES_HEADER} must be scope names separated by commas")));
            }
        },
    };
    let id = shared.next_connection_id();
    let connection = Connection::new(id, remote, caller, transport, call_timeout, shared.auth.clone());
    let credential = match headers.get(AUTHORIZATION) {
        None => None,
        Some(value) => match value.to_str().ok().and_then(bearer) {
            Some(token) => Some(token),
            None => {
                let message = "unauthorized: the Authorization header must be `Bearer <token>`";
                return Err(Refusal::new(unauthorized(message)));
            }
        },
    };
    let lockout = shared.context.devices.lockout();
    if credential.is_some()
        && let Some(wait) = lockout.retry_after(caller, CredentialKind::Secret)
    {
        return Err(Refusal::new(locked_out(wait)));
    }
    match connection.authenticate(credential, asked) {
        Err(refusal) if credential.is_some() => {
            lockout.failed(caller, CredentialKind::Secret);
            tracing::warn!(remote = %caller.ip, reason = %refusal, "a caller was refused");
            Err(Refusal::of_guess(unauthorized(&refusal.to_string())))
        }
        Ok(_) if credential.is_some() => {
            lockout.succeeded(caller, CredentialKind::Secret);
            Ok(connection)
        }
        _ => Ok(connection),
    }
}

/// Too many attempts from this address failed: wire.md section 4.
fn locked_out(wait: Duration) -> Response {
    let mut response = error_response(StatusCode::TOO_MANY_REQUESTS, lockout::told(wait));
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1)));
    response
}

/// The token of `Bearer <token>` (RFC 6750 section 2.1; the scheme in any case).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).and_then(|value| value.to_str().ok()).is_some_and(|value| {
        value.split(',').any(|protocol| protocol.trim().eq_ignore_ascii_case("websocket"))
    })
}

fn offers_jsonrpc(headers: &HeaderMap) -> bool {
    headers
        .get_all(SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|protocol| protocol.trim() == JSONRPC_SUBPROTOCOL)
}

/// Answers an upgrade and hands the socket to the loop. RFC 6455 section 4.2.
fn upgrade(
    mut request: Request,
    speaks_jsonrpc: bool,
    shared: &Arc<Shared>,
    requester: Requester,
    permit: &Arc<OwnedSemaphorePermit>,
) -> Result<Response, Box<Refusal>> {
    let Requester(remote, caller) = requester;
    let refuse = |status: StatusCode, message: &str| {
        Refusal::new(error_response(status, RpcError::new(ErrorCode::InvalidRequest, message)))
    };
    let headers = request.headers();
    if request.method() != Method::GET {
        return Err(Refusal::new(method_not_allowed("GET")));
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let mut response = refuse(StatusCode::UPGRADE_REQUIRED, "Sec-WebSocket-Version must be 13");
        response.response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        return Err(response);
    }
    let Some(key) = headers.get(SEC_WEBSOCKET_KEY) else {
        return Err(refuse(StatusCode::BAD_REQUEST, "header Sec-WebSocket-Key is missing"));
    };
    let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
    if shared.dispatcher.refuses_calls() {
        let error = shared.context.lifecycle.refusal("");
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        return Err(Refusal::new(if speaks_jsonrpc {
            error_response(unavailable, error)
        } else {
            // wire.md section 4.
            (unavailable, error.message).into_response()
        }));
    }
    let connection = if speaks_jsonrpc {
        identify(headers, shared, requester, Transport::WebSocket)?
    } else {
        // A frame client shows its credential in `connect`, its first frame.
        let id = shared.next_connection_id();
        Connection::new(id, remote, caller, Transport::Frames, None, shared.auth.clone())
    };
    let subprotocol = if speaks_jsonrpc {
        offers_jsonrpc(headers).then(|| HeaderValue::from_static(JSONRPC_SUBPROTOCOL))
    } else {
        // wire.md section 1: whatever a frame client offers is echoed.
        headers.get(SEC_WEBSOCKET_PROTOCOL).and_then(first_protocol)
    };
    #[cfg(feature = "echo")]
    let echoes = request.uri().query() == Some("echo");
    #[cfg(not(feature = "echo"))]
    let echoes = false;
    let unauthenticated = if connection.is_authenticated() || echoes {
        None
    } else {
        let permit = Arc::clone(&shared.unauthenticated).try_acquire_owned().map_err(|_| {
            let error = RpcError::new(ErrorCode::Unavailable, "too many connections wait for authentication");
            Refusal::new(error_response(StatusCode::SERVICE_UNAVAILABLE, error))
        })?;
        Some(permit)
    };
    let Some(upgrading) = request.extensions_mut().remove::<OnUpgrade>() else {
        return Err(refuse(StatusCode::BAD_REQUEST, "this connection cannot be upgraded"));
    };
    let (shared_for_task, permit) = (Arc::clone(shared), Arc::clone(permit));
    shared.tasks.spawn(async move {
        let upgraded = match upgrading.await {
            Ok(upgraded) => upgraded,
            Err(error) => return tracing::debug!(%remote, %error, "an upgrade failed"),
        };
        tracing::debug!(connection = connection.id(), %remote, "WebSocket open");
        let context = Arc::clone(&shared_for_task.context);
        let connection = Arc::new(connection);
        let open = context.connections.enter(&connection);
        let dialect = if speaks_jsonrpc { Dialect::JsonRpc } else { Dialect::frames() };
        #[cfg(feature = "echo")]
        let dialect = if echoes { Dialect::Echo(Box::new(dialect)) } else { dialect };
        // The stream itself, without the layers that brought it here: their bound on writing would end the connection
        // before the loop can say why.
        match upgraded.downcast::<TokioIo<Stream<TcpStream>>>() {
            Ok(Parts { io, read_buf, .. }) => {
                let stream = io.into_inner().into_inner();
                websocket::serve(
                    stream,
                    read_buf,
                    connection,
                    shared_for_task,
                    dialect,
                    unauthenticated,
                    open,
                )
                .await;
            }
            Err(upgraded) => {
                let Ok(parts) = upgraded.downcast::<TokioIo<Stream<TlsStream<TcpStream>>>>() else {
                    unreachable!("the port is plain or speaks TLS")
                };
                let stream = parts.io.into_inner().into_inner();
                // In a box: plain connections, of which there may be thousands, need not have room for it.
                Box::pin(websocket::serve(
                    stream,
                    parts.read_buf,
                    connection,
                    shared_for_task,
                    dialect,
                    unauthenticated,
                    open,
                ))
                .await;
            }
        }
        drop(permit);
    });
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(subprotocol) = subprotocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, subprotocol);
    }
    let dialect = if speaks_jsonrpc { JSONRPC_SUBPROTOCOL } else { FRAMES_DIALECT };
    headers.insert(DIALECT_HEADER, HeaderValue::from_static(dialect));
    Ok(response)
}

/// The first of the subprotocols that a header offers.
fn first_protocol(offered: &HeaderValue) -> Option<HeaderValue> {
    let first = offered.to_str().ok()?.split(',').next()?.trim();
    HeaderValue::from_str(first).ok().filter(|first| !first.is_empty())
}
