//! The command line's own binary as a process, for benches: built, started, watched, asked, stopped.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest},
};

/// The token of every gateway that benches start.
pub const TOKEN: &str = "bench-token";

/// The environment variable that names a binary to measure instead of the one that is built.
pub const BINARY_VARIABLE: &str = "OPENCLAW_BENCH_BINARY";

/// Builds the release binary and gives its path, or that of [`BINARY_VARIABLE`]. For benches: their own path tells where
/// it lies.
///
/// # Panics
///
/// When it does not build.
#[must_use]
pub fn build() -> PathBuf {
    if let Some(binary) = std::env::var_os(BINARY_VARIABLE) {
        return PathBuf::from(binary);
    }
    say(&format!(
        "building the release binary, which may take minutes; {BINARY_VARIABLE} names one that is there"
    ));
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

#[expect(clippy::print_stderr, reason = "a bench that says nothing for minutes looks as if it hung")]
fn say(line: &str) {
    eprintln!("{line}");
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
    port: u16,
    home: PathBuf,
}

impl Gateway {
    /// Starts one with further arguments, and waits until it is ready.
    ///
    /// # Panics
    ///
    /// When it does not start.
    #[must_use]
    pub fn start(binary: &Path, home: &Path, args: &[&str]) -> Self {
        let usual = ["--allow-unconfigured", "--bind", "loopback", "--token", TOKEN];
        Self::start_configured(binary, home, &[&usual, args].concat())
    }

    /// Starts one with these arguments and the configuration in its home, and waits until it is ready.
    ///
    /// # Panics
    ///
    /// When it does not start.
    #[must_use]
    pub fn start_configured(binary: &Path, home: &Path, args: &[&str]) -> Self {
        let port = free_port();
        let child = command(binary, home)
            .args(["gateway", "run", "--port", &port.to_string()])
            .args(args)
            .stdout(Stdio::null())
            .spawn()
            .expect("the gateway starts");
        let gateway = Self { child, port, home: home.to_owned() };
        let limit = Instant::now() + Duration::from_secs(10);
        while !gateway.is_ready() {
            assert!(Instant::now() < limit, "the gateway is not ready after ten seconds");
            std::thread::sleep(Duration::from_micros(500));
        }
        gateway
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address of its JSON-RPC WebSocket.
    #[must_use]
    pub fn rpc_url(&self) -> String {
        format!("ws://127.0.0.1:{}/rpc", self.port)
    }

    /// Whether `/readyz` answers 200.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let request = b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        let mut answer = String::new();
        stream.write_all(request).is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.starts_with("HTTP/1.1 200")
    }

    /// What it says of itself in the state directory; null while that is not there.
    #[must_use]
    pub fn record(&self) -> Value {
        let text = std::fs::read(self.home.join(".openclaw/gateway/runtime.json")).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    ///
    /// When it is gone.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a child has an id");
        kill_process(pid, signal).expect("the gateway is there");
    }

    /// How many descriptors it has open.
    #[must_use]
    pub fn descriptors(&self) -> u64 {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).map_or(0, |open| open.count() as u64)
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
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("the listener has an address").port()
}

/// A duration as milliseconds.
#[must_use]
pub fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// KiB as megabytes.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub fn megabytes(kib: u64) -> f64 {
    kib as f64 / 1000.0 * 1.024
}

/// The value below which a share of the values lies. Sorts them.
///
/// # Panics
///
/// Without values.
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
