//! Whole processes: how long a gateway takes until it is ready, what it holds idle, and what one call from the shell
//! costs.
//!
//! ```text
//! cargo bench -p openclaw-tests --bench process          # 50 calls, 20 starts
//! cargo bench -p openclaw-tests --bench process -- 200   # 200 calls
//! ```
//!
//! Builds the release binary first and measures that. Memory of a call is the peak that the system counted for the
//! process; wall time is from before its start until after its end.

#![expect(clippy::print_stdout, reason = "the table is what the bench is for")]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use wait4::Wait4;

const STARTS: usize = 20;
const TOKEN: &str = "bench-token";

fn main() {
    let calls = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(50);
    let binary = build();
    let home = tempfile::tempdir().expect("a directory can be made");

    let mut starts = Vec::new();
    for _ in 0..STARTS {
        let begun = Instant::now();
        let gateway = Gateway::start(&binary, home.path());
        starts.push(millis(begun.elapsed()));
        drop(gateway);
    }
    let gateway = Gateway::start(&binary, home.path());
    std::thread::sleep(Duration::from_secs(2));
    let idle_kib = gateway.resident_kib();

    let port = gateway.port.to_string();
    let url = format!("ws://127.0.0.1:{port}");
    let cases: [(&str, &[&str]); 4] = [
        (
            "`gateway call health --url … --token …`",
            &["gateway", "call", "health", "--url", &url, "--token", TOKEN],
        ),
        ("`gateway call health`, found by itself", &["gateway", "call", "health"]),
        ("`gateway health --json`", &["gateway", "health", "--json"]),
        ("`--version`", &["--version"]),
    ];
    println!("| what | p50 | p99 | peak memory |");
    println!("| --- | ---: | ---: | ---: |");
    println!(
        "| `gateway run` until `/readyz` answers 200 ({STARTS} starts) | {:.1} ms | {:.1} ms | |",
        quantile(&mut starts, 0.5),
        quantile(&mut starts, 0.99)
    );
    println!("| the same gateway, idle for two seconds | | | {:.1} MB |", megabytes(idle_kib));
    for (name, arguments) in cases {
        let (mut walls, mut peak_kib) = (Vec::new(), 0);
        for run in 0..=calls {
            let begun = Instant::now();
            let mut child = command(&binary, home.path())
                .args(arguments)
                .stdout(Stdio::null())
                .spawn()
                .expect("the command starts");
            let usage = child.wait4().expect("the command ends");
            assert!(usage.status.success(), "{name} failed");
            // The first run warms the page cache.
            if run > 0 {
                walls.push(millis(begun.elapsed()));
                peak_kib = peak_kib.max(usage.rusage.maxrss / 1024);
            }
        }
        println!(
            "| {name} ({calls} runs) | {:.1} ms | {:.1} ms | {:.1} MB |",
            quantile(&mut walls, 0.5),
            quantile(&mut walls, 0.99),
            megabytes(peak_kib)
        );
    }
}

/// Builds the release binary and gives its path.
fn build() -> PathBuf {
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
fn command(binary: &Path, home: &Path) -> Command {
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
struct Gateway {
    child: Child,
    port: u16,
}

impl Gateway {
    /// Starts one and waits until it is ready.
    fn start(binary: &Path, home: &Path) -> Self {
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

    fn resident_kib(&self) -> u64 {
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

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn megabytes(kib: u64) -> f64 {
    kib as f64 / 1000.0 * 1.024
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures for people"
)]
fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share).round() as usize]
}
