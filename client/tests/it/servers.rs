//! Servers that say exactly what a test wants: a WebSocket peer, and a hand-written HTTP responder.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{SinkExt as _, StreamExt as _};
use openclaw_client::{Client, ClientBuilder, Error, SecretString};
use openclaw_schema::ErrorCode;
use serde_json::{Value, json, value::RawValue};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
        http::{HeaderMap, HeaderValue},
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

/// The token that every test sends.
pub(crate) const TOKEN: &str = "hunter2";

/// A listener that answers every connection with `serve`.
async fn listen<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(TcpStream) -> F + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port is free");
    let address = listener.local_addr().expect("the listener is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// An address at which nobody listens.
pub(crate) async fn nobody() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port is free");
    listener.local_addr().expect("the listener is bound")
}

/// A WebSocket server.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    upgrades: Arc<Mutex<Vec<HeaderMap>>>,
}

impl Server {
    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    pub(crate) fn builder(&self) -> ClientBuilder {
        Client::builder(self.url()).credential(SecretString::from(TOKEN))
    }

    pub(crate) async fn client(&self) -> Client {
        self.builder().connect().await.expect("the server accepts")
    }

    /// The headers of the last upgrade.
    pub(crate) fn upgrade(&self) -> HeaderMap {
        self.upgrades.lock().expect("no test panics with it").last().expect("a client has connected").clone()
    }
}

/// A gateway whose connections are handled by `serve`.
pub(crate) async fn gateway<F: Future<Output = ()> + Send + 'static>(
    serve: impl Fn(Peer) -> F + Clone + Send + Sync + 'static,
) -> Server {
    server(&[("openclaw-dialect", "jsonrpc"), ("openclaw-gateway", "0.1.0")], serve).await
}

/// A server that echoes the subprotocol, as stock gateways do, and adds `headers` to its answer.
pub(crate) async fn server<F: Future<Output = ()> + Send + 'static>(
    headers: &'static [(&'static str, &'static str)],
    serve: impl Fn(Peer) -> F + Clone + Send + Sync + 'static,
) -> Server {
    let upgrades = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&upgrades);
    let address = listen(move |stream| {
        let (serve, seen) = (serve.clone(), Arc::clone(&seen));
        async move {
            #[expect(clippy::result_large_err, reason = "the signature is tungstenite's")]
            let answer = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
                seen.lock().expect("no test panics with it").push(request.headers().clone());
                if let Some(subprotocol) = request.headers().get("sec-websocket-protocol") {
                    response.headers_mut().insert("sec-websocket-protocol", subprotocol.clone());
                }
                for (name, value) in headers {
                    response.headers_mut().insert(*name, HeaderValue::from_static(value));
                }
                Ok(response)
            };
            let socket = accept_hdr_async(stream, answer).await.expect("the upgrade is well formed");
            serve(Peer { socket }).await;
        }
    })
    .await;
    Server { address, upgrades }
}

/// The gateway's side of one connection.
pub(crate) struct Peer {
    pub(crate) socket: WebSocketStream<TcpStream>,
}

impl Peer {
    /// The next request; nothing once the client has closed.
    pub(crate) async fn request(&mut self) -> Option<Value> {
        loop {
            match self.socket.next().await? {
                Ok(Message::Text(text)) => {
                    return Some(serde_json::from_str(&text).expect("clients send JSON"));
                }
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    pub(crate) async fn send(&mut self, message: &Value) {
        self.socket.send(Message::text(message.to_string())).await.expect("the client reads");
    }

    pub(crate) async fn answer(&mut self, request: &Value, result: Value) {
        self.send(&json!({ "jsonrpc": "2.0", "id": request["id"], "result": result })).await;
    }

    pub(crate) async fn refuse(&mut self, request: &Value, error: Value) {
        self.send(&json!({ "jsonrpc": "2.0", "id": request["id"], "error": error })).await;
    }

    pub(crate) async fn item(&mut self, subscription: u64, item: Value) {
        let params = json!({ "subscription": subscription, "result": item });
        self.send(&json!({ "jsonrpc": "2.0", "method": "events.event", "params": params })).await;
    }

    pub(crate) async fn close(mut self, code: CloseCode, reason: &'static str) {
        let frame = CloseFrame { code, reason: reason.into() };
        self.socket.close(Some(frame)).await.expect("the client reads");
        // Until the client has answered.
        while let Some(Ok(_)) = self.socket.next().await {}
    }

    /// Reads until the client is gone.
    pub(crate) async fn hold(mut self) {
        while self.request().await.is_some() {}
    }
}

/// A server that answers every HTTP request with what `answer` makes of its head and body.
pub(crate) async fn http_server(
    answer: impl Fn(&str, &str) -> String + Clone + Send + Sync + 'static,
) -> SocketAddr {
    listen(move |mut stream| {
        let answer = answer.clone();
        async move {
            let mut received = Vec::new();
            loop {
                let text = String::from_utf8_lossy(&received).into_owned();
                if let Some((head, body)) = text.split_once("\r\n\r\n") {
                    let length = head
                        .lines()
                        .filter_map(|line| line.split_once(": "))
                        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                        .map_or(0, |(_, length)| length.parse().expect("a length is a number"));
                    if body.len() >= length {
                        let answer = answer(head, body);
                        stream.write_all(answer.as_bytes()).await.expect("the client reads");
                        received.clear();
                        continue;
                    }
                }
                if !matches!(stream.read_buf(&mut received).await, Ok(1..)) {
                    return;
                }
            }
        }
    })
    .await
}

/// An HTTP answer with a JSON body, from a gateway of ours.
pub(crate) fn http_answer(status: &str, body: &Value) -> String {
    let body = body.to_string();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nopenclaw-gateway: 0.1.0\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// The body with which a gateway answers a wrong credential.
pub(crate) fn unauthorized() -> Value {
    json!({
        "jsonrpc": "2.0", "id": null,
        "error": { "code": -32020, "message": "the token is wrong", "data": { "code": "UNAUTHORIZED", "retryable": false } },
    })
}

/// What a gateway answers with HTTP 429 to an address that has guessed too often.
pub(crate) fn locked_out() -> Value {
    json!({
        "jsonrpc": "2.0", "id": null,
        "error": {
            "code": -32028, "message": "unauthorized: too many failed authentication attempts (retry later)",
            "data": { "code": "RATE_LIMITED", "retryable": true, "retryAfterMs": 299_500 },
        },
    })
}

/// Fails unless an error says that the caller is locked out, and for how long.
pub(crate) fn assert_locked_out(error: &Error) {
    assert!(matches!(error, Error::RateLimited { .. }), "{error:?}");
    assert_eq!((error.code(), error.is_retryable()), (Some(ErrorCode::RateLimited), true));
    assert_eq!(error.retry_after(), Some(Duration::from_millis(299_500)));
    assert!(error.to_string().contains("too many failed"), "{error}");
}

pub(crate) fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).expect("JSON serialises")
}
