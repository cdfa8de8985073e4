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
    process::Stdio,
    time::{Duration, Instant},
};

use openclaw_tests::processes::{Gateway, TOKEN, build, command, megabytes, millis, quantile};
use wait4::Wait4;

const STARTS: usize = 20;

fn main() {
    let calls = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(50);
    let binary = build();
    let home = tempfile::tempdir().expect("a directory can be made");

    let mut starts = Vec::new();
    for _ in 0..STARTS {
        let begun = Instant::now();
        let gateway = Gateway::start(&binary, home.path(), &[]);
        starts.push(millis(begun.elapsed()));
        drop(gateway);
    }
    let gateway = Gateway::start(&binary, home.path(), &[]);
    std::thread::sleep(Duration::from_secs(2));
    let idle_kib = gateway.resident_kib();

    let port = gateway.port().to_string();
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
