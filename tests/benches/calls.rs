//! Calls per second and latency: this gateway beside a bare tungstenite JSON echo and jsonrpsee's own server.
//!
//! ```text
//! cargo bench -p openclaw-tests --bench calls            # everything, about two minutes
//! cargo bench -p openclaw-tests --bench calls -- 5       # five rounds instead of three
//! ```
//!
//! Each server runs in a process of its own and answers `health` with the same bytes; the gateway does so with
//! authentication, scopes and its log switched on. Rounds go over the servers in turn, and ratios are formed within a
//! round, so that a machine which is slower for a while is so for all of them. Printed are medians over the rounds.
//!
//! A second table compares a call in OpenClaw frames with the same call in JSON-RPC, on the same server.

#![expect(clippy::print_stdout, reason = "the table is what the bench is for")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{FutureExt, SinkExt, StreamExt};
use http_body_util::{BodyExt, Full};
use openclaw_tests::{
    servers,
    servers::{Process, sockets},
};
use tokio::{net::TcpStream, task::JoinSet};
use tokio_tungstenite::tungstenite::Message;

const SERVERS: [&str; 3] = ["echo", "jsonrpsee", "gateway"];
const TOKEN: &str = "bench-token";
const WARM_UP: Duration = Duration::from_millis(400);
const MEASURED: Duration = Duration::from_millis(1500);

#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    http: bool,
    sockets: usize,
    in_flight: usize,
    /// Bytes of padding in the params; 0 sends none.
    padding: usize,
    /// In OpenClaw frames instead of JSON-RPC.
    frames: bool,
}

impl Load {
    const fn over(name: &'static str, http: bool, sockets: usize, in_flight: usize, padding: usize) -> Self {
        Self { name, http, sockets, in_flight, padding, frames: false }
    }
}

const LOADS: [Load; 6] = [
    Load::over("one socket, sequential", false, 1, 1, 0),
    Load::over("one socket, 64 in flight", false, 1, 64, 0),
    Load::over("64 sockets, one in flight each", false, 64, 1, 0),
    Load::over("HTTP keep-alive, one connection", true, 1, 1, 0),
    Load::over("HTTP keep-alive, 64 connections", true, 64, 1, 0),
    Load::over("64 KiB params, 8 in flight", false, 1, 8, 64 * 1024),
];

#[derive(Clone, Copy)]
struct Figures {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [serve, kind] = &arguments[..]
        && serve == "serve"
    {
        return servers::serve(kind, TOKEN);
    }
    let rounds: usize = arguments.first().and_then(|rounds| rounds.parse().ok()).unwrap_or(3);
    println!("| load | server | calls/s | p50 µs | p99 µs | to echo | to jsonrpsee |");
    println!("| --- | --- | ---: | ---: | ---: | ---: | ---: |");
    for load in LOADS {
        let measured: Vec<[Figures; 3]> =
            (0..rounds).map(|_| SERVERS.map(|kind| measure(kind, load))).collect();
        for (index, kind) in SERVERS.into_iter().enumerate() {
            let column = |pick: fn(&Figures) -> f64| {
                median(measured.iter().map(|round| pick(&round[index])).collect())
            };
            let ratio = |to: usize| {
                median(measured.iter().map(|round| round[index].per_second / round[to].per_second).collect())
            };
            println!(
                "| {} | {kind} | {:.0} | {:.1} | {:.1} | {:.2} | {:.2} |",
                load.name,
                column(|figures| figures.per_second),
                column(|figures| figures.p50_us),
                column(|figures| figures.p99_us),
                ratio(0),
                ratio(1),
            );
        }
    }
    compare_frames(rounds);
}

/// What a call in frames costs over one in JSON-RPC.
fn compare_frames(rounds: usize) {
    println!();
    println!(
        "| load on the gateway | JSON-RPC calls/s | frames calls/s | JSON-RPC p50 µs | frames p50 µs | cost of frames |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    for load in LOADS.into_iter().filter(|load| !load.http) {
        let measured: Vec<[Figures; 2]> = (0..rounds)
            .map(|_| [false, true].map(|frames| measure("gateway", Load { frames, ..load })))
            .collect();
        let column = |index: usize, pick: fn(&Figures) -> f64| {
            median(measured.iter().map(|round| pick(&round[index])).collect())
        };
        let cost =
            median(measured.iter().map(|[rpc, frames]| rpc.per_second / frames.per_second - 1.0).collect());
        println!(
            "| {} | {:.0} | {:.0} | {:.1} | {:.1} | {:+.0} % |",
            load.name,
            column(0, |figures| figures.per_second),
            column(1, |figures| figures.per_second),
            column(0, |figures| figures.p50_us),
            column(1, |figures| figures.p50_us),
            cost * 100.0,
        );
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn measure(kind: &str, load: Load) -> Figures {
    let server = Process::start(kind);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(async {
        let stop = Arc::new(AtomicBool::new(false));
        let warm = Instant::now() + WARM_UP;
        let mut clients = JoinSet::new();
        for _ in 0..load.sockets {
            let stop = Arc::clone(&stop);
            if load.http {
                clients.spawn(http_client(server.port(), load, stop, warm));
            } else {
                clients.spawn(websocket_client(server.port(), load, stop, warm));
            }
        }
        tokio::time::sleep_until((warm + MEASURED).into()).await;
        stop.store(true, Ordering::Relaxed);
        let mut latencies = clients.join_all().await.concat();
        latencies.sort_unstable();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "figures for people"
        )]
        let quantile = |share: f64| {
            latencies.get((latencies.len() as f64 * share) as usize).map_or(0.0, |ns| *ns as f64 / 1000.0)
        };
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let per_second = latencies.len() as f64 / MEASURED.as_secs_f64();
        Figures { per_second, p50_us: quantile(0.5), p99_us: quantile(0.99) }
    })
}

fn request(id: usize, load: Load) -> String {
    let params = match load.padding {
        0 => String::new(),
        // The gateway's `agent.abort` of a run that does not exist: a small handler with a large text to decode.
        bytes => format!(r#","params":{{"padding":"{}"}}"#, "x".repeat(bytes)),
    };
    let method = if load.padding == 0 { "health" } else { servers::PADDED_METHOD };
    if load.frames {
        return format!(r#"{{"type":"req","id":"{id}","method":"{method}"{params}}}"#);
    }
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}"{params}}}"#)
}

/// Keeps calls in flight on one socket; what is ready is written with one flush.
async fn websocket_client(port: u16, load: Load, stop: Arc<AtomicBool>, warm: Instant) -> Vec<u64> {
    let mut socket =
        if load.frames { sockets::frames(port, TOKEN).await } else { sockets::jsonrpc(port, TOKEN).await };
    let mut sent_at = vec![Instant::now(); load.in_flight];
    let texts: Vec<String> = (0..load.in_flight).map(|id| request(id, load)).collect();
    for (id, text) in texts.iter().enumerate() {
        sent_at[id] = Instant::now();
        socket.feed(Message::text(text.clone())).await.expect("the server takes requests");
    }
    socket.flush().await.expect("the server takes requests");
    let (mut open_calls, mut dirty, mut latencies) = (load.in_flight, false, Vec::with_capacity(1 << 20));
    while open_calls > 0 {
        let message = match socket.next().now_or_never() {
            Some(message) => message,
            None => {
                if std::mem::take(&mut dirty) {
                    socket.flush().await.expect("the server takes requests");
                }
                socket.next().await
            }
        };
        let Some(Ok(Message::Text(text))) = message else { panic!("the server ended the connection") };
        let text = text.as_str();
        if load.frames && text.starts_with(r#"{"type":"event""#) {
            continue;
        }
        let succeeded = if load.frames { r#""ok":true"# } else { r#""result""# };
        assert!(text.contains(succeeded), "the call failed: {text}");
        let start = text.find(r#""id":"#).expect("an answer has an id") + 5;
        let id: usize = text[start..]
            .bytes()
            .skip_while(|byte| *byte == b'"')
            .take_while(u8::is_ascii_digit)
            .fold(0, |id, digit| id * 10 + usize::from(digit - b'0'));
        let now = Instant::now();
        if now > warm {
            latencies.push(u64::try_from((now - sent_at[id]).as_nanos()).unwrap_or(u64::MAX));
        }
        if stop.load(Ordering::Relaxed) {
            open_calls -= 1;
            continue;
        }
        sent_at[id] = now;
        socket.feed(Message::text(texts[id].clone())).await.expect("the server takes requests");
        dirty = true;
    }
    latencies
}

async fn http_client(port: u16, load: Load, stop: Arc<AtomicBool>, warm: Instant) -> Vec<u64> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("the server accepts");
    stream.set_nodelay(true).expect("the socket takes options");
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(io).await.expect("the server speaks HTTP");
    tokio::spawn(connection);
    let body = bytes::Bytes::from(request(0, load));
    let mut latencies = Vec::with_capacity(1 << 18);
    while !stop.load(Ordering::Relaxed) {
        let sent_at = Instant::now();
        let request = hyper::Request::post("/rpc")
            .header("host", "localhost")
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {TOKEN}"))
            .body(Full::new(body.clone()))
            .expect("the request is well formed");
        let response = sender.send_request(request).await.expect("the server answers");
        assert_eq!(response.status(), 200);
        response.into_body().collect().await.expect("the answer is whole");
        if sent_at > warm {
            latencies.push(u64::try_from(sent_at.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
    }
    latencies
}
