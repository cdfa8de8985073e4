//! The servers of the benches. Those that `benches/calls.rs` compares serve `health` and one method with large params;
//! that of `benches/sockets.rs` has a back end that streams.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use futures_util::{FutureExt, SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use jsonrpsee::{RpcModule, core::RpcResult, proc_macros::rpc};
use openclaw_gateway::{
    Gateway,
    backend::{Backend, BackendAnswer, BackendFuture, BackendRequest, TextSink, echo::EchoBackend},
};
use openclaw_schema::{
    contract,
    contract::Examples,
    methods::{agent::TokenUsage, models::ModelInfo},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{json, value::RawValue};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::{Message, protocol::WebSocketConfig};

use crate::harness;

/// The method with large params.
pub const PADDED_METHOD: &str = PaddedMethod::BenchPadded.name();

/// What echo and jsonrpsee answer to `health`: as many bytes as this gateway does.
const HEALTH: &str = r#"{"ok":true,"ts":1795351828422,"durationMs":0,"channels":{},"channelOrder":[],"channelLabels":{},"heartbeatSeconds":0,"defaultAgentId":"main","agents":[{"agentId":"main","isDefault":true,"sessions":{"count":0,"recent":[]}}],"sessions":{"count":0,"recent":[]},"runtime":{"uptimeMs":1053,"connections":1,"unauthenticatedConnections":0,"callsInFlight":0,"callsTotal":123456,"runsActive":0,"memoryBytes":12251136}}"#;

/// Params of `bench.padded`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PaddedParams {
    /// Any text.
    pub padding: String,
}

/// A method that does nothing but take its params.
#[contract(group = "Bench")]
#[rpc(server, namespace = "bench", namespace_separator = ".")]
pub trait Padded {
    /// Says how many bytes the padding has.
    #[method(name = "padded")]
    #[meta(scope = "operator.read", since = "0.1.0", idempotent, examples = padded)]
    async fn bench_padded(&self, params: PaddedParams) -> RpcResult<usize>;
}

fn padded() -> Examples<PaddedParams, usize> {
    Examples::success("three bytes", PaddedParams { padding: "xxx".to_owned() }, 3)
        .invalid("no padding", json!({}))
}

struct Handlers;

#[jsonrpsee::core::async_trait]
impl PaddedServer for Handlers {
    async fn bench_padded(&self, params: PaddedParams) -> RpcResult<usize> {
        Ok(params.padding.len())
    }
}

/// Answers every message with a text of [`STREAMED_BYTES`], and adds to it until nobody wants it any more. Each event of
/// such a run carries the whole text.
#[derive(Debug)]
struct Stream(EchoBackend);

/// How long the text of a streaming run is.
pub const STREAMED_BYTES: usize = 16_000;
/// The time between two additions, which is well below what the gateway puts together.
const STREAM_PAUSE: Duration = Duration::from_millis(25);

impl Backend for Stream {
    fn models(&self) -> Arc<[ModelInfo]> {
        self.0.models()
    }

    fn run(&self, request: BackendRequest, output: TextSink) -> BackendFuture {
        Box::pin(async move {
            output.push(&"x".repeat(STREAMED_BYTES));
            let added = async {
                loop {
                    tokio::time::sleep(STREAM_PAUSE).await;
                    output.push("y");
                }
            };
            tokio::select! {
                () = request.cancel.cancelled() => {}
                () = added => {}
            }
            let usage = TokenUsage::default();
            Ok(BackendAnswer { usage, stop_reason: "stop".to_owned(), cost_usd: None, model: None })
        })
    }
}

/// Serves as `echo`, `jsonrpsee`, `gateway` or `stream` until standard input ends. Prints the port first.
///
/// # Panics
///
/// When the server cannot start, or the kind is none of these.
pub fn serve(kind: &str, token: &str) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts");
    runtime.block_on(async {
        match kind {
            "echo" => echo().await,
            "jsonrpsee" => jsonrpsee_server().await,
            "gateway" => gateway(token, EchoBackend::new(Duration::ZERO)).await,
            "stream" => gateway(token, Stream(EchoBackend::new(Duration::ZERO))).await,
            other => panic!("no server `{other}`"),
        }
    });
}

#[expect(clippy::print_stdout, reason = "the bench reads the port")]
fn ready(address: SocketAddr) {
    println!("{}", address.port());
}

async fn parent_gone() {
    let mut end = String::new();
    let _ = tokio::task::spawn_blocking(move || std::io::stdin().read_line(&mut end)).await;
}

async fn gateway(token: &str, backend: impl Backend) {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let settings = harness::settings(directory.path(), token);
    let log = openclaw_gateway::logs::LogSettings {
        console: false,
        ..openclaw_gateway::logs::LogSettings::from_environment(&settings.log_file)
    };
    let log = openclaw_gateway::logs::init(&log).expect("the log starts");
    let gateway = Gateway::builder(settings)
        .log(log.reader())
        .backend(Arc::new(backend))
        .serve::<PaddedContract>(Handlers.into_rpc())
        .start()
        .await
        .expect("the gateway starts");
    ready(gateway.local_addresses()[0]);
    parent_gone().await;
}

async fn jsonrpsee_server() {
    let mut module = RpcModule::new(());
    module
        .register_method("health", |_, (), _| -> RpcResult<Box<RawValue>> {
            Ok(RawValue::from_string(HEALTH.to_owned()).expect("the answer is JSON"))
        })
        .expect("the name is free");
    module
        .register_async_method(PADDED_METHOD, |params, _, _| async move {
            let params: PaddedParams = params.parse()?;
            RpcResult::Ok(params.padding.len())
        })
        .expect("the name is free");
    let server = jsonrpsee_server::Server::builder().build("127.0.0.1:0").await.expect("the server starts");
    ready(server.local_addr().expect("the server has an address"));
    let _handle = server.start(module);
    parent_gone().await;
}

#[derive(Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow)]
    method: &'a str,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
}

fn answer(text: &[u8]) -> String {
    let request: Request<'_> = serde_json::from_slice(text).expect("the bench sends requests");
    let result = match request.params {
        Some(params) if request.method != "health" => params.get().len().to_string(),
        _ => HEALTH.to_owned(),
    };
    format!(r#"{{"jsonrpc":"2.0","id":{},"result":{result}}}"#, request.id.get())
}

async fn echo() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("the server starts");
    ready(listener.local_addr().expect("the server has an address"));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::spawn(echo_connection(stream));
        }
    });
    parent_gone().await;
}

async fn echo_connection(stream: TcpStream) {
    let mut begin = [0; 4];
    if stream.peek(&mut begin).await.is_ok() && begin == *b"POST" {
        return echo_http(stream).await;
    }
    let config = WebSocketConfig::default().read_buffer_size(8 * 1024).write_buffer_size(16 * 1024);
    let Ok(mut socket) = tokio_tungstenite::accept_async_with_config(stream, Some(config)).await else {
        return;
    };
    loop {
        let message = match socket.next().now_or_never() {
            Some(message) => message,
            None => {
                if socket.flush().await.is_err() {
                    return;
                }
                socket.next().await
            }
        };
        match message {
            Some(Ok(Message::Text(text))) => {
                if socket.feed(Message::text(answer(text.as_bytes()))).await.is_err() {
                    return;
                }
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => return,
            Some(Ok(_)) => {}
        }
    }
}

async fn echo_http(stream: TcpStream) {
    let service = hyper::service::service_fn(|request: hyper::Request<hyper::body::Incoming>| async move {
        let body = request.into_body().collect().await?.to_bytes();
        let response = hyper::Response::builder()
            .header("content-type", "application/json")
            .body(Full::new(bytes::Bytes::from(answer(&body))))
            .expect("the response is well formed");
        Ok::<_, hyper::Error>(response)
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(hyper_util::rt::TokioIo::new(stream), service)
        .await;
}

/// A server in a process of its own, ended with this value. The process is the bench itself, called with `serve` and the
/// kind.
#[derive(Debug)]
pub struct Process {
    child: Child,
    port: u16,
}

impl Process {
    /// Starts a server of this kind: see [`serve`].
    ///
    /// # Panics
    ///
    /// When it does not start.
    #[must_use]
    pub fn start(kind: &str) -> Self {
        let program = std::env::current_exe().expect("a bench knows its own path");
        let mut child = Command::new(program)
            .args(["serve", kind])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout is piped"))
            .read_line(&mut line)
            .expect("the server says its port");
        Self { child, port: line.trim().parse().expect("the server's first line is its port") }
    }

    /// Where it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How much of its memory is in use, in bytes.
    ///
    /// # Panics
    ///
    /// When the system does not say.
    #[must_use]
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
        let kilobytes = line.trim().trim_end_matches(" kB").parse::<u64>().expect("it is a number");
        kilobytes * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Authenticated sockets on a gateway, without a client library on top.
pub mod sockets {
    use futures_util::{SinkExt, StreamExt};
    use serde_json::{Value, json};
    use tokio::net::TcpStream;
    use tokio_tungstenite::{
        MaybeTlsStream, WebSocketStream,
        tungstenite::{Message, client::IntoClientRequest, protocol::WebSocketConfig},
    };

    /// One of them.
    pub type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

    async fn open(port: u16, path: &str, bearer: Option<&str>) -> Socket {
        let mut request =
            format!("ws://127.0.0.1:{port}{path}").into_client_request().expect("the address is one");
        if let Some(token) = bearer {
            let bearer = format!("Bearer {token}").parse().expect("the token is ASCII");
            request.headers_mut().insert("authorization", bearer);
        }
        let config = WebSocketConfig::default().read_buffer_size(16 * 1024).write_buffer_size(16 * 1024);
        let (socket, _) = tokio_tungstenite::connect_async_with_config(request, Some(config), true)
            .await
            .expect("the server accepts");
        socket
    }

    /// One that speaks JSON-RPC.
    ///
    /// # Panics
    ///
    /// When the gateway does not let it in.
    pub async fn jsonrpc(port: u16, token: &str) -> Socket {
        open(port, "/rpc", Some(token)).await
    }

    /// One that speaks OpenClaw frames.
    ///
    /// # Panics
    ///
    /// When the gateway does not let it in.
    pub async fn frames(port: u16, token: &str) -> Socket {
        let mut socket = open(port, "/", None).await;
        socket.next().await.expect("a challenge comes").expect("and is sound");
        let connect = json!({
            "type": "req", "id": "c", "method": openclaw_schema::methods::connect::ConnectMethod::Connect.name(),
            "params": {
                "minProtocol": 4, "maxProtocol": 4, "auth": { "token": token },
                "scopes": ["operator.read", "operator.write"],
                "client": { "id": "gateway-client", "version": "1", "platform": "linux", "mode": "backend" },
            },
        });
        socket.send(Message::text(connect.to_string())).await.expect("the gateway reads");
        loop {
            let message = socket.next().await.expect("an answer comes").expect("and is sound");
            let answer: Value = serde_json::from_slice(&message.into_data()).expect("and is JSON");
            if answer["type"] == "res" {
                assert_eq!(answer["ok"], true, "{answer}");
                return socket;
            }
        }
    }
}
