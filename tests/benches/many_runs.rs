//! A hundred runs that stream at once, and what `health` takes meanwhile.
//!
//! ```text
//! cargo bench -p openclaw-tests --bench many_runs          # 100 runs
//! cargo bench -p openclaw-tests --bench many_runs -- 20
//! ```
//!
//! Once the release binary is built it takes ten seconds. `OPENCLAW_BENCH_BINARY` names a binary that is there.
//!
//! The bar: p99 of `health` stays within 20 ms. Each run has a subscriber of its own, and one more takes all events.

#![expect(clippy::print_stdout, reason = "the table is what the bench is for")]

use std::time::{Duration, Instant};

use openclaw_tests::processes::{Caller, Gateway, build, megabytes, millis, quantile};
use serde_json::json;

fn main() {
    let runs = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(100);
    let binary = build();
    let home = tempfile::tempdir().expect("a directory can be made");
    let gateway = Gateway::start(&binary, home.path(), &[]);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts");
    println!("| `health`, one call after the other | calls | p50 | p99 |");
    println!("| --- | ---: | ---: | ---: |");
    let port = gateway.port();
    let mut idle = runtime.block_on(health(port, Duration::from_secs(2)));
    println!(
        "| idle | {} | {:.2} ms | {:.2} ms |",
        idle.len(),
        quantile(&mut idle, 0.5),
        quantile(&mut idle, 0.99)
    );
    let (mut busy, deltas) = runtime.block_on(async {
        let everything = tokio::spawn(listen(port, None));
        let streams: Vec<_> = (0..runs).map(|run| tokio::spawn(stream(port, run))).collect();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let busy = health(port, Duration::from_secs(5)).await;
        let mut deltas = 0;
        for stream in streams {
            deltas += stream.await.expect("a run comes to its end");
        }
        everything.abort();
        (busy, deltas)
    });
    println!(
        "| {runs} runs stream | {} | {:.2} ms | {:.2} ms |",
        busy.len(),
        quantile(&mut busy, 0.5),
        quantile(&mut busy, 0.99)
    );
    println!(
        "\n{deltas} events received by those who follow one run; {:.1} MB resident",
        megabytes(gateway.resident_kib())
    );
}

/// How long each call takes, for so long.
async fn health(port: u16, span: Duration) -> Vec<f64> {
    let mut caller = Caller::connect(port).await;
    let (begun, mut times) = (Instant::now(), Vec::new());
    while begun.elapsed() < span {
        let call = Instant::now();
        caller.ask("health", &json!({})).await;
        times.push(millis(call.elapsed()));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    times
}

/// Starts a run of about eight seconds (the echo rests for five milliseconds behind each word), and follows it.
async fn stream(port: u16, run: usize) -> usize {
    let run_id = format!("run-{run}");
    let listener = tokio::spawn(listen(port, Some(run_id.clone())));
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut caller = Caller::connect(port).await;
    let message = "word ".repeat(1500);
    let params = json!({ "message": message, "idempotencyKey": run_id, "sessionKey": run_id });
    caller.ask("agent", &params).await;
    let waited = caller.ask("agent.wait", &json!({ "runId": run_id, "timeoutMs": 120_000 })).await;
    assert!(waited.contains("\"status\":\"ok\""), "{run_id} failed");
    tokio::time::timeout(Duration::from_secs(30), listener).await.expect("its end is told").expect("no panic")
}

/// Counts the events of a run up to its end, or all of them for ever.
async fn listen(port: u16, run_id: Option<String>) -> usize {
    let mut caller = Caller::connect(port).await;
    let params = match &run_id {
        Some(run_id) => json!({ "events": ["agent", "chat"], "runId": run_id }),
        None => json!({ "events": ["agent", "chat"] }),
    };
    caller.ask("events.subscribe", &params).await;
    let mut count = 0;
    loop {
        let text = caller.text().await;
        count += 1;
        if run_id.is_some() && text.contains("\"state\":\"final\"") {
            return count;
        }
    }
}
