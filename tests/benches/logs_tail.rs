//! `logs.tail` on a log of 1 MB and on one of 1 GB: time of a call over a WebSocket, and memory of the gateway.
//!
//! ```text
//! cargo bench -p openclaw-tests --bench logs_tail
//! ```
//!
//! Needs a little over 1 GB in the directory for temporary files (`TMPDIR`).

#![expect(clippy::print_stdout, reason = "the table is what the bench is for")]

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
    time::{Duration, Instant},
};

use openclaw_client::Client;
use openclaw_schema::{client::LogsClient, methods::logs::LogsTailParams, types::Bounded};
use openclaw_tests::harness::{TOKEN, TestGateway};

const CALLS: usize = 300;
const SIZES: [(&str, u64); 2] = [("1 MB", 1_000_000), ("1 GB", 1_000_000_000)];

fn main() {
    println!("| log | params | p50 | p99 | memory of the process |");
    println!("| --- | --- | ---: | ---: | ---: |");
    for (name, bytes) in SIZES {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
        runtime.block_on(measure(name, bytes));
    }
}

async fn measure(name: &str, bytes: u64) {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let log = directory.path().join("openclaw.log");
    write_log(&log, bytes).expect("the log can be written");
    let gateway = TestGateway::start_with(|settings| settings.log_file = log, |builder| builder).await;
    let client = Client::connect(&gateway.url(), Some(TOKEN.into())).await.expect("the gateway accepts");
    let cases = [
        ("limit 200", LogsTailParams { limit: Some(Bounded::clamped(200)), ..LogsTailParams::default() }),
        ("none", LogsTailParams::default()),
        (
            "sinceMs 60000",
            LogsTailParams { since_ms: Some(Bounded::clamped(60_000)), ..LogsTailParams::default() },
        ),
    ];
    for (case, params) in cases {
        let mut times = Vec::with_capacity(CALLS);
        for _ in 0..CALLS {
            let begun = Instant::now();
            let result = client.logs_tail(params.clone()).await.expect("the log is read");
            times.push(begun.elapsed());
            assert_eq!(result.size, bytes, "the whole log is there");
        }
        times.sort();
        println!(
            "| {name} | {case} | {} | {} | {} |",
            shown(times[CALLS / 2]),
            shown(times[CALLS * 99 / 100]),
            memory()
        );
    }
}

/// Lines as the gateway writes them, until the file has exactly `bytes`.
fn write_log(path: &Path, bytes: u64) -> std::io::Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let line = r#"{"time":"2026-01-01T00:00:00.000Z","level":"INFO","subsystem":"gateway","message":"a line of the usual length, about what a gateway says"}"#;
    let mut left = bytes;
    while left > line.len() as u64 * 2 {
        writeln!(file, "{line}")?;
        left -= line.len() as u64 + 1;
    }
    // The last line makes up the size.
    let padding = usize::try_from(left).unwrap_or_default().saturating_sub(line.len() + 1);
    writeln!(file, "{}{}{}", &line[..line.len() - 2], "x".repeat(padding), &line[line.len() - 2..])?;
    file.flush()
}

fn shown(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.map_or_else(|| "unknown".to_owned(), |line| format!("{} (peak)", line.trim()))
}
