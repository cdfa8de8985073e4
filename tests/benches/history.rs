//! A session of 100,000 messages: what its newest page costs, and what starting a gateway on it does.
//!
//! ```text
//! cargo bench -p openclaw-tests --bench history             # 100,000 messages
//! cargo bench -p openclaw-tests --bench history -- 20000
//! ```
//!
//! Once the release binary is built it takes about half a minute, most of it for the messages, which are written as a
//! caller would. `OPENCLAW_BENCH_BINARY` names a binary that is there.
//!
//! The bars: the newest 50 messages within 10 ms, and a start within its budget of 100 ms.

#![expect(clippy::print_stdout, reason = "the table is what the bench is for")]

use std::time::{Duration, Instant};

use openclaw_tests::processes::{Caller, Gateway, build, megabytes, millis, quantile};
use serde_json::json;

const CALLS: usize = 200;
const STARTS: usize = 20;
/// How many calls are on their way at once while the session is made.
const WINDOW: usize = 200;

fn main() {
    let messages = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(100_000);
    let binary = build();
    let home = tempfile::tempdir().expect("a directory can be made");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");

    let gateway = Gateway::start(&binary, home.path(), &[]);
    let begun = Instant::now();
    runtime.block_on(fill(gateway.port(), messages));
    let filled = begun.elapsed();
    println!("| what | p50 | p99 |");
    println!("| --- | ---: | ---: |");
    let rate = messages as f64 / filled.as_secs_f64();
    println!("| {messages} messages written, {rate:.0} a second, {WINDOW} on their way | | |");
    let middle = messages / 2;
    for (name, params) in [
        ("`chat.history`, the newest 50", json!({ "sessionKey": "main", "limit": 50 })),
        (
            "`chat.history`, 50 from the middle",
            json!({ "sessionKey": "main", "limit": 50, "offset": middle }),
        ),
        ("`sessions.list`", json!({})),
    ] {
        let method = if params == json!({}) { "sessions.list" } else { "chat.history" };
        let mut times = runtime.block_on(async {
            let mut caller = Caller::connect(gateway.port()).await;
            let mut times = Vec::new();
            for _ in 0..CALLS {
                let begun = Instant::now();
                let answer = caller.ask(method, &params).await;
                times.push(millis(begun.elapsed()));
                assert!(answer.contains("\"result\""), "{answer}");
            }
            times
        });
        println!("| {name} | {:.2} ms | {:.2} ms |", quantile(&mut times, 0.5), quantile(&mut times, 0.99));
    }
    println!("| resident memory afterwards | {:.1} MB | |", megabytes(gateway.resident_kib()));
    drop(gateway);

    let mut starts = Vec::new();
    let mut idle_kib = 0;
    for _ in 0..STARTS {
        let begun = Instant::now();
        let gateway = Gateway::start(&binary, home.path(), &[]);
        starts.push(millis(begun.elapsed()));
        std::thread::sleep(Duration::from_millis(100));
        idle_kib = idle_kib.max(gateway.resident_kib());
    }
    println!(
        "| `gateway run` on it until `/readyz` answers 200 | {:.1} ms | {:.1} ms |",
        quantile(&mut starts, 0.5),
        quantile(&mut starts, 0.99)
    );
    println!("| resident memory of that, idle | {:.1} MB | |", megabytes(idle_kib));
}

/// Makes a session of so many messages.
async fn fill(port: u16, messages: usize) {
    let mut caller = Caller::connect(port).await;
    caller.ask("sessions.create", &json!({ "key": "main" })).await;
    let text = "a message of some length, as people write them to an agent. ".repeat(4);
    let (mut sent, mut answered) = (0, 0);
    while answered < messages {
        while sent < messages && sent - answered < WINDOW {
            caller.send("chat.inject", &json!({ "sessionKey": "main", "message": text })).await;
            sent += 1;
        }
        let answer = caller.text().await;
        assert!(answer.contains("messageId"), "{answer}");
        answered += 1;
    }
}
