//! What a gateway holds after a while: 50 sockets, 200 calls a second, 5 of the sockets made anew each second.
//!
//! ```text
//! cargo bench -p openclaw-tests --bench soak             # 10 minutes
//! cargo bench -p openclaw-tests --bench soak -- 180      # 3 minutes
//! ```
//!
//! Builds the release binary first and measures that. Prints resident memory and open descriptors every 10 seconds, and
//! the slope of both from minute 2 on, by least squares.

#![expect(clippy::print_stdout, reason = "the table is what the bench is for")]

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use openclaw_tests::{
    load::{Load, Shape},
    processes::{Gateway, TOKEN, build},
};

const SHAPE: Shape = Shape { sockets: 50, calls_per_second: 200, reconnects_per_second: 5 };
/// Time between two rows.
const EVERY: Duration = Duration::from_secs(10);
/// From when on the slope is taken: by then every buffer has had its use.
const SETTLED: f64 = 120.0;

fn main() {
    let seconds: u64 = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(600);
    let binary = build();
    let home = tempfile::tempdir().expect("a directory can be made");
    let gateway = Gateway::start(&binary, home.path(), &[]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(async {
        let load = Load::start(&gateway.rpc_url(), TOKEN, SHAPE);
        let begun = Instant::now();
        let (mut memory, mut descriptors) = (Vec::new(), Vec::new());
        println!("| seconds | resident | descriptors | calls | connections |");
        println!("| ---: | ---: | ---: | ---: | ---: |");
        while begun.elapsed().as_secs() < seconds {
            tokio::time::sleep(EVERY).await;
            let (second, kib, open) =
                (begun.elapsed().as_secs_f64(), gateway.resident_kib(), gateway.descriptors());
            let (calls, connections) = (&load.counts().answered, &load.counts().connections);
            println!(
                "| {second:.0} | {kib} KiB | {open} | {} | {} |",
                calls.load(Ordering::Relaxed),
                connections.load(Ordering::Relaxed)
            );
            if second >= SETTLED {
                memory.push((second, figure(kib)));
                descriptors.push((second, figure(open)));
            }
        }
        let counts = load.finish().await;
        println!();
        println!("memory from minute 2 on: {:+.0} KiB a minute", 60.0 * slope(&memory));
        println!("descriptors from minute 2 on: {:+.2} a minute", 60.0 * slope(&descriptors));
        for (what, counter) in [
            ("failed", &counts.failed),
            ("cut", &counts.cut),
            ("hanging", &counts.hanging),
            ("refused connections", &counts.refused_connections),
        ] {
            println!("{what}: {}", counter.load(Ordering::Relaxed));
        }
    });
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn figure(value: u64) -> f64 {
    value as f64
}

/// The slope of the line that fits the points best; 0 for fewer than two.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn slope(points: &[(f64, f64)]) -> f64 {
    if points.len() < 2 {
        return 0.0;
    }
    let count = points.len() as f64;
    let mean = |pick: fn(&(f64, f64)) -> f64| points.iter().map(pick).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let over: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let under: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
    over / under
}
