//! Gateways to test against, each on a free port of loopback and in a directory of its own: in this process, or in one of
//! their own, where memory, log and end can be looked at.

use std::{
    future::Future,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use hyper::HeaderMap;
use hyper_util::rt::TokioIo;
use openclaw_gateway::{
    Gateway, GatewayBuilder,
    backend::settings::ModelSettings,
    lifecycle::Lifecycle,
    logs::LogReader,
    settings::{Agent, Agents, Auth, Limits, Settings},
    state::StateDir,
    trust::Trust,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest,
        protocol::{CloseFrame, Role},
    },
};

/// The token of every gateway of the suite.
pub const TOKEN: &str = "test-token";

/// How long anything may take that is expected to happen, on a machine that is busy with other things. What takes
/// longer hangs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What differs from run to run or from machine to machine in wire texts, and what snapshots show instead: regular
/// expressions over compact JSON.
pub const FILTERS: &[(&str, &str)] = &[
    (
        r#""(ts|acceptedAt|startedAt|endedAt|updatedAt|createdAt|lastInteractionAt|timestamp)":\d+"#,
        r#""$1":"[time]""#,
    ),
    (r#"\\"time\\":\\"[^"\\]*\\""#, r#"\"time\":\"[time]\""#),
    (r#""(durationMs|uptimeMs|age)":\d+"#, r#""$1":"[duration]""#),
    (r#""(memoryBytes|memoryTotalBytes|memoryFreeBytes)":\d+"#, r#""$1":"[bytes]""#),
    (r#""(pid|port|cpuCount)":\d+"#, r#""$1":"[$1]""#),
    (r#""loadAverage":\[[^\]]*\]"#, r#""loadAverage":"[load]""#),
    (r#""(host|hostname|machineName)":"[^"]*""#, r#""$1":"[host]""#),
    (r#""text":"Gateway: [^"]*""#, r#""text":"Gateway: [host]""#),
    (r#""(release|osLabel|arch|platform)":"[^"]*""#, r#""$1":"[$1]""#),
    (r#""(version|runtimeVersion)":"[^"]*""#, r#""$1":"[version]""#),
    (
        r#""(deviceId|publicKey|processInstanceId|correlationId|sessionId|lifecycleRevision|deltaCursor|messageId|hash|configRevisionHash|appliedConfigHash)":"[^"]*""#,
        r#""$1":"[$1]""#,
    ),
    (r#""(restartAtMs|expiresAtMs)":\d+"#, r#""$1":"[time]""#),
    (r#""(suspensionId|setupId|setupCode)":"[^"]*""#, r#""$1":"[$1]""#),
    (r#""(subscription|result)":\d+"#, r#""$1":"[subscription]""#),
    (r#""[^"]*/\.tmp[A-Za-z0-9]+/"#, r#""[directory]/"#),
];

/// Settings of a gateway on a free port of loopback, whose files lie in `directory`.
#[must_use]
pub fn settings(directory: &Path, token: &str) -> Settings {
    let state = StateDir::new(directory.join("state"));
    Settings {
        listen: vec![([127, 0, 0, 1], 0).into()],
        auth: Auth::Token(token.into()),
        config_file: state.config_file(),
        auto_approve_local: true,
        tls: None,
        trust: Trust::default(),
        proxy: None,
        log_file: state.log_file(),
        agents: Agents {
            default_id: "main".to_owned(),
            list: vec![Agent {
                id: "main".to_owned(),
                name: None,
                workspace: directory.join("workspace"),
                model: None,
            }],
        },
        state,
        discovery: None,
        models: ModelSettings::default(),
        limits: Limits::default(),
    }
}

/// A gateway in this process. It ends with this value.
#[derive(Debug)]
pub struct TestGateway {
    gateway: Gateway,
    log_file: PathBuf,
    directory: TempDir,
}

impl TestGateway {
    /// A gateway with default bounds.
    pub async fn start() -> Self {
        Self::start_with(|_| {}, |builder| builder).await
    }

    /// A gateway whose settings or parts are changed first.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub async fn start_with(
        change: impl FnOnce(&mut Settings),
        build: impl FnOnce(GatewayBuilder) -> GatewayBuilder,
    ) -> Self {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let mut settings = settings(directory.path(), TOKEN);
        change(&mut settings);
        let log_file = settings.log_file.clone();
        let reader = LogReader::new(log_file.clone());
        let lifecycle = Lifecycle::new();
        // Those that are asked for are not carried out: tests of the process do that.
        lifecycle.offer_restarts();
        let builder = build(Gateway::builder(settings).log(reader).lifecycle(lifecycle));
        let gateway = builder.start().await.expect("the gateway starts");
        Self { gateway, log_file, directory }
    }

    /// A gateway with other bounds.
    pub async fn with_limits(change: impl FnOnce(&mut Limits)) -> Self {
        Self::start_with(|settings| change(&mut settings.limits), |builder| builder).await
    }

    /// The gateway itself.
    #[must_use]
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.gateway.local_addresses()[0]
    }

    /// Its WebSocket URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("ws://{}", self.address())
    }

    /// Its directory.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The log file that it serves. Nothing writes to it but the test.
    #[must_use]
    pub fn log_file(&self) -> &Path {
        &self.log_file
    }

    /// Stops it as a signal would.
    pub async fn shutdown(self) {
        self.gateway.shutdown("gateway stopping").await;
    }

    /// Posts a text to `/rpc`: status and body.
    pub async fn post(&self, text: impl Into<String>) -> (u16, String) {
        self.post_with(text, &[("authorization", &format!("Bearer {TOKEN}"))]).await
    }

    /// Posts a text to `/rpc` with these headers and no others.
    pub async fn post_with(&self, text: impl Into<String>, headers: &[(&str, &str)]) -> (u16, String) {
        let answer = self.http("POST", "/rpc", headers, text.into()).await;
        (answer.status, answer.text())
    }

    /// Makes an HTTP request; see [`Peer::http`].
    pub async fn http(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> HttpAnswer {
        self.peer().http(method, path, headers, body).await
    }

    /// The way to it, which outlives it.
    #[must_use]
    pub fn peer(&self) -> Peer {
        Peer { address: self.address() }
    }

    /// Calls a method over HTTP and gives the response object.
    ///
    /// # Panics
    ///
    /// When the answer is no JSON.
    pub async fn call(&self, method: &str, params: Value) -> Value {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let (_, body) = self.post(request.to_string()).await;
        serde_json::from_str(&body).expect("the answer is JSON")
    }

    /// An authenticated WebSocket.
    pub async fn websocket(&self) -> Socket {
        let bearer = format!("Bearer {TOKEN}");
        self.websocket_with("/rpc", &[("authorization", &bearer)])
            .await
            .expect("the gateway accepts the upgrade")
    }

    /// A WebSocket at a path, with these headers.
    ///
    /// # Errors
    ///
    /// When the upgrade is refused.
    ///
    /// # Panics
    ///
    /// When a header is malformed.
    pub async fn websocket_with(
        &self,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Socket, Box<Error>> {
        let mut request = format!("{}{path}", self.url()).into_client_request().expect("the URL is one");
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().expect("the header is well formed"));
        }
        let (stream, _) = tokio_tungstenite::connect_async(request).await.map_err(Box::new)?;
        Ok(Socket { stream })
    }
}

/// The way to a gateway.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    address: SocketAddr,
}

impl Peer {
    /// Makes an HTTP request with these headers and no others; `host` is the gateway's unless it is among them.
    ///
    /// # Panics
    ///
    /// When there is no HTTP answer.
    pub async fn http(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> HttpAnswer {
        let stream = TcpStream::connect(self.address).await.expect("the gateway listens");
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .expect("the gateway speaks HTTP");
        let connection = tokio::spawn(connection);
        let mut request = hyper::Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", self.address.to_string());
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).expect("the request is well formed");
        let response = soon(sender.send_request(request)).await.expect("the gateway answers");
        let (parts, body) = response.into_parts();
        let body = soon(body.collect()).await.expect("the answer is whole").to_bytes();
        connection.abort();
        HttpAnswer { status: parts.status.as_u16(), headers: parts.headers, body }
    }
}

/// A gateway with methods that misbehave in a process of its own, killed with this value: see [`crate::hazards::serve`].
#[derive(Debug)]
pub struct Server {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Server {
    /// Starts the test server that lies at `binary`, and waits until it listens.
    ///
    /// # Panics
    ///
    /// When it does not start.
    #[must_use]
    pub fn start(binary: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(binary)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("stdout is piped"))
            .read_line(&mut line)
            .expect("the server says its port");
        let (port, log) = line.trim_end().split_once(' ').expect("the line is port and log");
        Self { port: port.parse().expect("the port is a number"), log: log.into(), child }
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The way to it.
    #[must_use]
    pub fn peer(&self) -> Peer {
        Peer { address: ([127, 0, 0, 1], self.port).into() }
    }

    /// Its resident memory.
    ///
    /// # Panics
    ///
    /// When it is gone.
    #[must_use]
    pub fn resident_kib(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("the server runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says VmRSS");
        line.trim().trim_end_matches(" kB").parse().expect("VmRSS is a number of kB")
    }

    /// A TCP connection.
    ///
    /// # Panics
    ///
    /// When it does not listen.
    pub async fn tcp(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).await.expect("the gateway listens")
    }

    /// A TCP connection behind its upgrade to a WebSocket that speaks JSON-RPC, without any client library on top.
    ///
    /// # Panics
    ///
    /// When the upgrade is refused.
    pub async fn upgraded(&self, token: Option<&str>) -> TcpStream {
        let authorization =
            token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        self.upgraded_at("/rpc", &authorization).await
    }

    /// The same at any path, with these lines of header.
    ///
    /// # Panics
    ///
    /// When the upgrade is refused.
    pub async fn upgraded_at(&self, path: &str, headers: &str) -> TcpStream {
        let mut stream = self.tcp().await;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        );
        stream.write_all(request.as_bytes()).await.expect("the gateway reads");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("the gateway answers the upgrade"));
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        stream
    }

    /// An authenticated WebSocket that speaks JSON-RPC.
    pub async fn socket(&self) -> WebSocketStream<TcpStream> {
        let stream = self.upgraded(Some(TOKEN)).await;
        WebSocketStream::from_raw_socket(stream, Role::Client, None).await
    }

    /// Waits until a line of the log holds all of these texts.
    pub async fn logs(&self, texts: &[&str]) {
        soon(async {
            loop {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                if log.lines().any(|line| texts.iter().all(|text| line.contains(text))) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }

    /// Tells the process to terminate.
    ///
    /// # Panics
    ///
    /// When it is gone.
    pub fn begin_termination(&self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.expect("a child has a process id");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("the child runs");
    }

    /// Waits for the end of the process.
    ///
    /// # Panics
    ///
    /// When the system does not tell.
    pub async fn exited(mut self) -> ExitStatus {
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be waited for") {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Tells the process to terminate, and waits for its end.
    pub async fn terminate(self) -> ExitStatus {
        self.begin_termination();
        self.exited().await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGKILL.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A text with blanks behind it, up to so many bytes: a larger message that says the same.
#[must_use]
pub fn padded(text: &str, bytes: usize) -> String {
    text.to_owned() + &" ".repeat(bytes.saturating_sub(text.len()))
}

/// Waits for what is expected to happen.
///
/// # Panics
///
/// When it does not happen within [`PATIENCE`].
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("what is expected happens in time")
}

/// An HTTP answer.
#[derive(Debug)]
pub struct HttpAnswer {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl HttpAnswer {
    /// The body as text; bytes that are not UTF-8 become U+FFFD.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    ///
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    /// A header; empty when it is absent.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// A WebSocket without any client library on top: what is sent is what is written.
#[derive(Debug)]
pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Socket {
    /// Sends a text.
    ///
    /// # Panics
    ///
    /// When the connection is closed.
    pub async fn send(&mut self, text: impl Into<String>) {
        self.stream.send(Message::text(text.into())).await.expect("the connection is open");
    }

    /// Sends any message.
    ///
    /// # Errors
    ///
    /// When the connection is closed.
    pub async fn send_message(&mut self, message: Message) -> Result<(), Box<Error>> {
        self.stream.send(message).await.map_err(Box::new)
    }

    /// The next text; `None` when the connection has ended.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            match soon(self.stream.next()).await? {
                Ok(Message::Text(text)) => return Some(text.as_str().to_owned()),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The next message of any kind; `None` when the connection has ended.
    pub async fn next_message(&mut self) -> Option<Message> {
        soon(self.stream.next()).await?.ok()
    }

    /// The next text, as JSON.
    ///
    /// # Panics
    ///
    /// When the connection ends, or the text is no JSON.
    pub async fn next_json(&mut self) -> Value {
        let text = self.next().await.expect("the connection is open");
        serde_json::from_str(&text).expect("the gateway sends JSON")
    }

    /// Sends a text and gives the next one back, as JSON.
    pub async fn ask(&mut self, text: impl Into<String>) -> Value {
        self.send(text).await;
        self.next_json().await
    }

    /// How the gateway closes the connection: its close frame, or `None` when there was none.
    pub async fn closed(&mut self) -> Option<CloseFrame> {
        loop {
            match soon(self.stream.next()).await? {
                Ok(Message::Close(frame)) => return frame,
                Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The stream below.
    #[must_use]
    pub fn get_ref(&self) -> &WebSocketStream<MaybeTlsStream<TcpStream>> {
        &self.stream
    }
}
