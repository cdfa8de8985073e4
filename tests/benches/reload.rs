//! Hot reload under load: the configuration changes, breaks and is mended while 50 sockets make 500 calls a second.
//!
//! ```text
//! cargo bench -p openclaw-tests --bench reload          # 10 rounds
//! cargo bench -p openclaw-tests --bench reload -- 50
//! ```
//!
//! Builds the release binary first and measures that; `OPENCLAW_BENCH_BINARY` names another one. A round is: a broken file,
//! the file mended with another log level, the file with another secret. "In force" is the time from the change of the
//! file until a new connection is refused with the old secret and accepted with the new one. Fails when a call fails, is
//! cut or hangs, or the gateway was restarted.

#![expect(clippy::print_stdout, reason = "the table is what the bench is for")]

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use openclaw_tests::{
    load::{Load, Shape},
    processes::{Gateway, build, millis, quantile},
};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

const SHAPE: Shape = Shape { sockets: 50, calls_per_second: 500, reconnects_per_second: 0 };
/// How long a change may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn main() {
    let rounds = std::env::args().filter_map(|argument| argument.parse().ok()).next().unwrap_or(10);
    let binary = build();
    let home = tempfile::tempdir().expect("a directory can be made");
    let file = home.path().join(".openclaw/openclaw.json");
    fs::create_dir_all(file.parent().expect("it lies in a directory")).expect("a directory can be made");
    write(&file, &config("info", &secret(0)));
    let gateway = Gateway::start_configured(&binary, home.path(), &["--bind", "loopback"]);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    runtime.block_on(async {
        let before = gateway.record();
        let load = Load::start(&gateway.rpc_url(), &secret(0), SHAPE);
        tokio::time::sleep(Duration::from_secs(2)).await;
        let (mut in_force, mut gaps) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let _ = load.take_gap();
            let (old, new) = (secret(round), secret(round + 1));
            write(&file, "{ gateway: { mode: 'local', auth: { token: ");
            tokio::time::sleep(Duration::from_millis(700)).await;
            assert!(is_let_in(&gateway.rpc_url(), &old).await, "a broken file changes nothing");
            write(&file, &config(if round % 2 == 0 { "debug" } else { "info" }, &old));
            tokio::time::sleep(Duration::from_millis(700)).await;
            load.change_token(&new);
            let changed = Instant::now();
            write(&file, &config("info", &new));
            while !is_let_in(&gateway.rpc_url(), &new).await {
                assert!(changed.elapsed() < PATIENCE, "the new secret is not in force");
            }
            in_force.push(millis(changed.elapsed()));
            assert!(!is_let_in(&gateway.rpc_url(), &old).await, "the old secret is still good");
            gaps.push(millis(load.take_gap()));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let counts = load.finish().await;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        println!("| {rounds} rounds under {} calls/s | |", SHAPE.calls_per_second);
        println!("| --- | ---: |");
        println!("| new secret in force, p50 | {:.1} ms |", quantile(&mut in_force, 0.5));
        println!("| new secret in force, longest | {:.1} ms |", quantile(&mut in_force, 1.0));
        println!("| longest time without a result | {:.1} ms |", quantile(&mut gaps, 1.0));
        println!("| calls sent | {} |", count(&counts.sent));
        println!("| answered | {} |", count(&counts.answered));
        println!("| not taken at a close with 4001, sent again | {} |", count(&counts.sent_again));
        println!("| told to retry | {} |", count(&counts.told_to_retry));
        println!("| errors | {} |", count(&counts.failed));
        println!("| cut | {} |", count(&counts.cut));
        println!("| hanging | {} |", count(&counts.hanging));
        println!("| connections made | {} |", count(&counts.connections));
        println!("| connections refused | {} |", count(&counts.refused_connections));
        for (what, counter) in [
            ("calls failed", &counts.failed),
            ("calls were told to retry", &counts.told_to_retry),
            ("calls were cut", &counts.cut),
            ("calls hang", &counts.hanging),
            ("connections were refused", &counts.refused_connections),
        ] {
            assert_eq!(count(counter), 0, "{what}");
        }
        let sent = count(&counts.answered) + count(&counts.sent_again);
        assert_eq!(sent, count(&counts.sent), "every call was answered, or not taken and sent again");
        assert_eq!(gateway.record()["instanceId"], before["instanceId"], "the gateway was restarted");
    });
}

fn secret(number: u32) -> String {
    format!("bench-secret-number-{number}")
}

fn config(level: &str, token: &str) -> String {
    format!(
        "{{ gateway: {{ mode: 'local', auth: {{ token: '{token}' }} }}, logging: {{ level: '{level}' }} }}"
    )
}

/// As an editor writes: a new file in the place of the old one.
fn write(file: &Path, text: &str) {
    let temporary = file.with_extension("new");
    fs::write(&temporary, text).expect("it writes");
    fs::rename(&temporary, file).expect("it moves");
}

/// Whether a new connection with this secret is let in.
async fn is_let_in(url: &str, token: &str) -> bool {
    let mut request = url.into_client_request().expect("the URL is one");
    let bearer = format!("Bearer {token}").parse().expect("a token is a header value");
    request.headers_mut().insert("authorization", bearer);
    tokio_tungstenite::connect_async(request).await.is_ok()
}
