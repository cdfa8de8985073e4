//! Gateways in processes of their own, made of the release binary: what benches measure.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest},
};

/// The token of every such gateway.
pub const TOKEN: &str = "bench-token";

/// Builds the release binary and gives its path.
/// # Panics
///
/// When it does not build.
#[must_use]
pub fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--release", "--quiet", "--package", "openclaw-cli"])
        .status()
        .expect("cargo runs");
    assert!(built.success(), "the binary does not build");
    let own = std::env::current_exe().expect("a bench knows its own path");
    let directory = own.ancestors().nth(2).expect("benches lie in target/release/deps");
    directory.join("openclaw")
}

/// A command with a home of its own and nothing else of the caller's environment.
#[must_use]
pub fn command(binary: &Path, home: &Path) -> Command {
    let mut command = Command::new(binary);
    command
        .env_clear()
        .env("HOME", home)
        .env("OPENCLAW_GATEWAY_TOKEN", TOKEN)
        .current_dir(home)
        .stdin(Stdio::null())
        .stderr(Stdio::null());
    command
}

/// A gateway in a process of its own, ended with this value.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    /// Where it listens.
    pub port: u16,
}

impl Gateway {
    /// Starts one and waits until it is ready.
    ///
    /// # Panics
    ///
    /// When it is not ready after ten seconds.
    #[must_use]
    pub fn start(binary: &Path, home: &Path) -> Self {
        let port = free_port();
        let child = command(binary, home)
            .args(["gateway", "run", "--allow-unconfigured", "--bind", "loopback"])
            .args(["--port", &port.to_string(), "--token", TOKEN])
            .stdout(Stdio::null())
            .spawn()
            .expect("the gateway starts");
        let gateway = Self { child, port };
        let limit = Instant::now() + Duration::from_secs(10);
        while !gateway.is_ready() {
            assert!(Instant::now() < limit, "the gateway is not ready after ten seconds");
            std::thread::sleep(Duration::from_micros(500));
        }
        gateway
    }

    fn is_ready(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let request = b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let mut answer = String::new();
        stream.write_all(request).is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.starts_with("HTTP/1.1 200")
    }

    /// Its resident memory.
    #[must_use]
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // As a person would: the record and the lock of the next start must be right.
        if let Ok(pid) = i32::try_from(self.child.id())
            && let Some(pid) = rustix::process::Pid::from_raw(pid)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("the listener has an address").port()
}

/// Milliseconds, with their fractions.
#[must_use]
pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Megabytes, as people count them.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub fn megabytes(kib: u64) -> f64 {
    kib as f64 / 1000.0 * 1.024
}

/// The value that a share of the values does not exceed; they are sorted for it.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people"
)]
pub fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share).round() as usize]
}

/// Connects and asks, one call after the other.
#[derive(Debug)]
pub struct Caller {
    socket: WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>,
    next_id: u64,
}

impl Caller {
    /// Connects to the gateway at a port of loopback.
    ///
    /// # Panics
    ///
    /// When the connection breaks.
    pub async fn connect(port: u16) -> Self {
        let mut request = format!("ws://127.0.0.1:{port}/rpc").into_client_request().expect("the URL is one");
        let bearer = format!("Bearer {TOKEN}").parse().expect("a header");
        request.headers_mut().insert("authorization", bearer);
        let (socket, _) = tokio_tungstenite::connect_async(request).await.expect("the gateway listens");
        Self { socket, next_id: 0 }
    }

    /// Sends a call.
    ///
    /// # Panics
    ///
    /// When the connection breaks.
    pub async fn send(&mut self, method: &str, params: &Value) {
        self.next_id += 1;
        let request = json!({ "jsonrpc": "2.0", "id": self.next_id, "method": method, "params": params });
        self.socket.send(Message::text(request.to_string())).await.expect("the connection is open");
    }

    /// The next text that the gateway sends.
    ///
    /// # Panics
    ///
    /// When the connection breaks.
    pub async fn text(&mut self) -> String {
        loop {
            let message = self.socket.next().await.expect("the connection is open").expect("it is whole");
            if let Message::Text(text) = message {
                return text.as_str().to_owned();
            }
        }
    }

    /// Calls, and gives the next text that the gateway sends.
    ///
    /// # Panics
    ///
    /// When the connection breaks.
    pub async fn ask(&mut self, method: &str, params: &Value) -> String {
        self.send(method, params).await;
        self.text().await
    }
}
