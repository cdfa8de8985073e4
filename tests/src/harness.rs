//! Gateways to test against: in process, on a free port of loopback, in a directory of their own.

use std::{net::SocketAddr, path::Path};

use futures_util::{SinkExt, StreamExt};
use openclaw_gateway::{
    Gateway, GatewayBuilder,
    logs::LogReader,
    settings::{Agent, Agents, Auth, Limits, Settings},
    state::StateDir,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Error, Message, client::IntoClientRequest, protocol::CloseFrame},
};

/// The token of every gateway of the suite.
pub const TOKEN: &str = "test-token";

/// Settings of a gateway on a free port of loopback, whose files lie in `directory`.
#[must_use]
pub fn settings(directory: &Path, token: &str) -> Settings {
    let state = StateDir::new(directory.join("state"));
    Settings {
        listen: vec![([127, 0, 0, 1], 0).into()],
        auth: Auth::Token(token.into()),
        auto_approve_local: true,
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
        limits: Limits::default(),
    }
}

/// A gateway in this process. It ends with this value.
#[derive(Debug)]
pub struct TestGateway {
    gateway: Gateway,
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
        let reader = LogReader::new(settings.log_file.clone());
        let builder = build(Gateway::builder(settings).log(reader));
        let gateway = builder.start().await.expect("the gateway starts");
        Self { gateway, directory }
    }

    /// A gateway with other bounds.
    pub async fn with_limits(change: impl FnOnce(&mut Limits)) -> Self {
        Self::start_with(|settings| change(&mut settings.limits), |builder| builder).await
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

    /// Stops it as a signal would.
    pub async fn shutdown(self) {
        self.gateway.shutdown("gateway stopping").await;
    }

    /// Posts a text to `/rpc`: status and body.
    pub async fn post(&self, text: impl Into<String>) -> (u16, String) {
        self.post_with(text, &[("authorization", &format!("Bearer {TOKEN}"))]).await
    }

    /// Posts a text to `/rpc` with these headers and no others.
    ///
    /// # Panics
    ///
    /// When there is no HTTP answer.
    pub async fn post_with(&self, text: impl Into<String>, headers: &[(&str, &str)]) -> (u16, String) {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client can be made");
        let mut request = client.post(format!("http://{}/rpc", self.address())).body(text.into());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.expect("the gateway answers");
        (response.status().as_u16(), response.text().await.expect("the answer is text"))
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
            match self.stream.next().await? {
                Ok(Message::Text(text)) => return Some(text.as_str().to_owned()),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
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
            match self.stream.next().await? {
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
