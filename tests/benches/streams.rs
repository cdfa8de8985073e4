//! What this gateway adds to a model's stream: how late a delta reaches a subscriber, how late the final comes, and what
//! a run costs in processor time and memory.
//!
//! ```text
//! cargo bench -p openclaw-tests --bench streams            # about ten seconds
//! cargo bench -p openclaw-tests --bench streams -- 10      # ten rounds instead of three
//! ```
//!
//! The model server streams 100 pieces, one each 20 ms, and writes into each when it was sent; it runs in this process,
//! as does the subscriber, and the gateway in one of its own. Then 50 such runs go on at once, each in a session of its
//! own, and the gateway's processor time and memory are read from the system before and after.

#![expect(clippy::print_stdout, reason = "the table is what the bench is for")]

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::{SinkExt, StreamExt};
use openclaw_gateway::{
    Gateway,
    backend::settings::{Api, ProviderSettings},
};
use openclaw_schema::methods::{agent::AgentMethod, events::EventsMethod};
use openclaw_tests::{harness, model_server::ModelServer};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest},
};

const TOKEN: &str = "bench-token";
const PIECES: usize = 100;
const CONCURRENT: usize = 50;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts");
    match &arguments[..] {
        [serve, url] if serve == "serve" => runtime.block_on(serve_gateway(url)),
        _ => {
            let rounds = arguments.first().and_then(|rounds| rounds.parse().ok()).unwrap_or(3);
            runtime.block_on(measure(rounds));
        }
    }
}

/// A gateway whose provider `m` is at `url`, until the parent is gone.
async fn serve_gateway(url: &str) {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let mut settings = harness::settings(directory.path(), TOKEN);
    let provider = ProviderSettings::new(Api::OpenAiCompletions, url);
    settings.models.providers.insert("m".to_owned(), provider);
    let gateway = Gateway::builder(settings).start().await.expect("the gateway starts");
    println!("{}", gateway.local_addresses()[0].port());
    let mut end = String::new();
    let _ = tokio::task::spawn_blocking(move || std::io::stdin().read_line(&mut end)).await;
}

async fn measure(rounds: usize) {
    let server = ModelServer::start().await;
    let program = std::env::current_exe().expect("this program has a path");
    let mut gateway = Command::new(program)
        .args(["serve", &server.openai_url()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the gateway starts");
    let mut port = String::new();
    let stdout = gateway.stdout.take().expect("it is piped");
    BufReader::new(stdout).read_line(&mut port).expect("it says its port");
    let url = format!("ws://127.0.0.1:{}/rpc", port.trim());

    println!("| 100 pieces at 20 ms | p50 | p99 | worst | bar |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    let (mut deltas, mut finals) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let (late, last) = one_run(&url, &server, &format!("single-{round}")).await;
        deltas.extend(late);
        finals.push(last);
    }
    row("a piece at a subscriber, ms after it was sent", deltas, 80.0);
    row("the final, ms after the last byte", finals, 10.0);

    let before = Usage::of(&gateway);
    let runs = (0..CONCURRENT).map(|index| {
        let url = url.clone();
        async move { waited_run(&url, &format!("many-{index}")).await }
    });
    let running = async {
        tokio::time::sleep(Duration::from_millis(1000)).await;
        Usage::of(&gateway)
    };
    let (_, busy) = futures_util::future::join(futures_util::future::join_all(runs), running).await;
    let after = Usage::of(&gateway);
    println!();
    println!("| {CONCURRENT} runs at once, each 100 pieces at 20 ms | a run |");
    println!("| --- | ---: |");
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    let per_run = |amount: f64| amount / CONCURRENT as f64;
    println!("| processor time, ms | {:.2} |", per_run(after.cpu_ms - before.cpu_ms));
    println!("| memory while it goes on, kB | {:.0} |", per_run(busy.memory_kb - before.memory_kb));
    println!("| memory kept afterwards, kB | {:.0} |", per_run(after.memory_kb - before.memory_kb));
    println!();
    println!("memory of the gateway: {:.0} kB before, {:.0} kB after", before.memory_kb, after.memory_kb);
    drop(gateway.stdin.take());
    gateway.wait().expect("the gateway ends");
}

/// How late each piece and the final of one run are, in milliseconds.
async fn one_run(url: &str, server: &ModelServer, key: &str) -> (Vec<f64>, f64) {
    let mut socket = connect(url).await;
    send(&mut socket, 1, EventsMethod::EventsSubscribe.name(), &json!({})).await;
    send(
        &mut socket,
        2,
        AgentMethod::Agent.name(),
        &json!({ "message": "hi", "idempotencyKey": key, "model": "m/count-100-20" }),
    )
    .await;
    send(&mut socket, 3, AgentMethod::AgentWait.name(), &json!({ "runId": key, "timeoutMs": 30_000 })).await;
    let (mut late, mut last) = (Vec::new(), None);
    loop {
        // Answers and events have queues of their own: the last event may come behind the final.
        if let Some(last) = last
            && late.len() >= PIECES
        {
            return (late, last);
        }
        let told = harness::soon(next(&mut socket)).await;
        if told["id"] == 3 {
            let now = Instant::now();
            assert_eq!(told["result"]["status"], "ok", "{told}");
            let sent = server.last_byte().expect("the server has answered");
            last = Some(now.saturating_duration_since(sent).as_secs_f64() * 1000.0);
        }
        let event = &told["params"]["result"];
        if event["event"] == "agent" && event["payload"]["stream"] == "assistant" {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right");
            let delta = event["payload"]["data"]["delta"].as_str().unwrap_or_default();
            for sent in delta.split_whitespace() {
                let sent = Duration::from_micros(sent.parse().expect("a piece is a time"));
                late.push(now.saturating_sub(sent).as_secs_f64() * 1000.0);
            }
        }
    }
}

/// A run whose outcome alone is waited for.
async fn waited_run(url: &str, key: &str) {
    let mut socket = connect(url).await;
    send(
        &mut socket,
        1,
        AgentMethod::Agent.name(),
        &json!({ "message": "hi", "idempotencyKey": key, "model": "m/count-100-20" }),
    )
    .await;
    send(&mut socket, 2, AgentMethod::AgentWait.name(), &json!({ "runId": key, "timeoutMs": 60_000 })).await;
    loop {
        let told = next(&mut socket).await;
        if told["id"] == 2 {
            assert_eq!(told["result"]["status"], "ok", "{told}");
            return;
        }
    }
}

async fn connect(url: &str) -> Socket {
    let mut request = url.into_client_request().expect("the URL is one");
    let bearer = format!("Bearer {TOKEN}").parse().expect("a header");
    request.headers_mut().insert("authorization", bearer);
    tokio_tungstenite::connect_async(request).await.expect("the gateway listens").0
}

async fn send(socket: &mut Socket, id: u64, method: &str, params: &Value) {
    let text = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string();
    socket.send(Message::text(text)).await.expect("the connection is open");
}

async fn next(socket: &mut Socket) -> Value {
    loop {
        let message = socket.next().await.expect("the connection is open").expect("it does not break");
        if let Message::Text(text) = message {
            return serde_json::from_str(&text).expect("the gateway sends JSON");
        }
    }
}

fn row(name: &str, mut values: Vec<f64>, bar: f64) {
    values.sort_by(f64::total_cmp);
    let at = |share: usize| values[(values.len() - 1) * share / 100];
    println!("| {name} | {:.1} | {:.1} | {:.1} | {bar:.0} |", at(50), at(99), at(100));
}

/// What a process has used.
#[derive(Clone, Copy)]
struct Usage {
    cpu_ms: f64,
    memory_kb: f64,
}

impl Usage {
    fn of(process: &Child) -> Self {
        let read = |name: &str| {
            fs::read_to_string(format!("/proc/{}/{name}", process.id())).expect("the process is there")
        };
        // Fields 14 and 15, counted behind the name, which may hold blanks: proc(5).
        let stat = read("stat");
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: f64 = fields[11..13].iter().map(|ticks| ticks.parse::<f64>().expect("a number")).sum();
        #[expect(clippy::cast_precision_loss, reason = "a hundred ticks a second")]
        let per_second = rustix::param::clock_ticks_per_second() as f64;
        let status = read("status");
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
        let memory_kb = memory.trim().trim_end_matches(" kB").parse().expect("a number");
        Self { cpu_ms: ticks / per_second * 1000.0, memory_kb }
    }
}
