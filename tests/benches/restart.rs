//! A restart under load: SIGUSR1 while 50 sockets make 500 calls a second.
//!
//! ```text
//! cargo bench -p openclaw-tests --bench restart          # 10 restarts
//! cargo bench -p openclaw-tests --bench restart -- 50
//! ```
//!
//! Builds the release binary first and measures that. "Back" is the time from the signal until a new connection is
//! served by the new instance; the port stays open throughout. Fails when the process changed, a call hangs, a call was
//! cut without a word, or a connection was refused.

#![expect(clippy::print_stdout, reason = "the table is what the bench is for")]

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use openclaw_tests::{
    load::{Load, Shape},
    processes::{Gateway, TOKEN, build, millis, quantile},
};
use rustix::process::Signal;

const SHAPE: Shape = Shape { sockets: 50, calls_per_second: 500, reconnects_per_second: 0 };

fn main() {
    let restarts = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(10);
    let binary = build();
    let home = tempfile::tempdir().expect("a directory can be made");
    let gateway = Gateway::start(&binary, home.path(), &[]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(async {
        let load = Load::start(&gateway.rpc_url(), TOKEN, SHAPE);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let (mut backs, mut gaps) = (Vec::new(), Vec::new());
        for _ in 0..restarts {
            let before = gateway.record();
            let _ = load.take_gap();
            let asked = Instant::now();
            gateway.signal(Signal::USR1);
            let mut after = before.clone();
            while after["instanceId"] == before["instanceId"] {
                assert!(asked.elapsed() < Duration::from_secs(20), "the gateway does not come back");
                tokio::time::sleep(Duration::from_millis(1)).await;
                after = gateway.record();
            }
            while !gateway.is_ready() {
                assert!(asked.elapsed() < Duration::from_secs(20), "the gateway does not come back");
            }
            backs.push(millis(asked.elapsed()));
            assert_eq!(after["pid"], before["pid"], "the process changed");
            tokio::time::sleep(Duration::from_secs(1)).await;
            gaps.push(millis(load.take_gap()));
        }
        let counts = load.finish().await;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        println!("| {restarts} restarts under {} calls/s | |", SHAPE.calls_per_second);
        println!("| --- | ---: |");
        println!("| back, p50 | {:.1} ms |", quantile(&mut backs, 0.5));
        println!("| back, longest | {:.1} ms |", quantile(&mut backs, 1.0));
        println!("| longest time without a result | {:.1} ms |", quantile(&mut gaps, 1.0));
        println!("| calls sent | {} |", count(&counts.sent));
        println!("| answered | {} |", count(&counts.answered));
        println!("| told to retry | {} |", count(&counts.told_to_retry));
        println!("| closed with 1012 while in flight | {} |", count(&counts.closed_for_restart));
        println!("| other errors | {} |", count(&counts.failed));
        println!("| cut without a word | {} |", count(&counts.cut));
        println!("| hanging | {} |", count(&counts.hanging));
        println!("| connections made | {} |", count(&counts.connections));
        println!("| connections told to come back (503) | {} |", count(&counts.deferred_connections));
        println!("| connections refused | {} |", count(&counts.refused_connections));
        for (what, counter) in [
            ("calls failed", &counts.failed),
            ("calls were cut", &counts.cut),
            ("calls hang", &counts.hanging),
            ("connections were refused", &counts.refused_connections),
        ] {
            assert_eq!(count(counter), 0, "{what}");
        }
    });
}
