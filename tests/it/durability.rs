//! What survives SIGKILL: a history of many runs over connections that break and a gateway that is killed, and a
//! checker that reads it.
//!
//! `OPENCLAW_DURABILITY=1000,20 cargo it durability` is the full size: so many runs, so many kills.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use openclaw_tests::harness::{Server, TOKEN};
use serde_json::{Value, json};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest},
};

use crate::TEST_SERVER;

/// How many clients there are, and over how many sessions they are spread.
const CLIENTS: usize = 50;
const SESSIONS: usize = 25;
/// How long all of it may take before the gateway counts as stuck.
const PATIENCE: Duration = Duration::from_secs(240);

/// A gateway that keeps its state in `directory`, and takes a moment for each word.
fn start(directory: &Path, port: u16) -> Server {
    let (directory, port) = (format!("directory={}", directory.display()), format!("port={port}"));
    Server::start(TEST_SERVER, &[&directory, &port, "pause=10"], &[])
}

/// Numbers that are the same at every run of the test.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A WebSocket that breaks now and then.
struct Wire {
    port: u16,
    socket: Option<WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>>,
    next_id: u64,
}

impl Wire {
    fn new(port: u16) -> Self {
        Self { port, socket: None, next_id: 0 }
    }

    /// Asks; `None` when the connection breaks before the answer.
    async fn ask(&mut self, method: &str, params: &Value) -> Option<Value> {
        let answer = tokio::time::timeout(Duration::from_secs(20), self.try_ask(method, params)).await;
        let answer = answer.ok().flatten();
        if answer.is_none() {
            self.socket = None;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        answer
    }

    async fn try_ask(&mut self, method: &str, params: &Value) -> Option<Value> {
        self.send(method, params).await?;
        loop {
            match self.socket.as_mut()?.next().await?.ok()? {
                Message::Text(text) => {
                    let answer: Value = serde_json::from_str(text.as_str()).expect("the gateway sends JSON");
                    if answer["id"] == self.next_id {
                        return Some(answer);
                    }
                }
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }

    async fn send(&mut self, method: &str, params: &Value) -> Option<()> {
        if self.socket.is_none() {
            let url = format!("ws://127.0.0.1:{}/rpc", self.port);
            let mut request = url.into_client_request().expect("the URL is one");
            let bearer = format!("Bearer {TOKEN}").parse().expect("a header");
            request.headers_mut().insert("authorization", bearer);
            self.socket = Some(tokio_tungstenite::connect_async(request).await.ok()?.0);
        }
        self.next_id += 1;
        let request = json!({ "jsonrpc": "2.0", "id": self.next_id, "method": method, "params": params });
        self.socket.as_mut()?.send(Message::text(request.to_string())).await.ok()
    }

    fn break_off(&mut self) {
        self.socket = None;
    }
}

/// Everything that clients were told.
#[derive(Default)]
struct Observed {
    /// By run: how often it was called accepted.
    accepted: HashMap<String, usize>,
    /// By run: its outcomes, as they were seen.
    outcomes: HashMap<String, Vec<Value>>,
}

fn session_of(client: usize) -> String {
    format!("agent:main:s{}", client % SESSIONS)
}

fn message_of(run_id: &str) -> String {
    format!("the message of run {run_id}")
}

/// Has its share of the runs made, whatever breaks.
async fn client(
    number: usize,
    runs: usize,
    port: u16,
    observed: Arc<Mutex<Observed>>,
    ended: Arc<AtomicUsize>,
) {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ (number as u64 + 1) << 17);
    let mut wire = Wire::new(port);
    for index in 0..runs {
        let run_id = format!("c{number}-{index}");
        let method = if index % 2 == 0 { "agent" } else { "chat.send" };
        let params = json!({
            "message": message_of(&run_id), "idempotencyKey": run_id, "sessionKey": session_of(number),
        });
        // Until it is told that the run is known.
        loop {
            if dice.below(5) == 0 {
                // Asks and leaves: the run may be there or not, and the repeat must find out.
                let _ = wire.send(method, &params).await;
                wire.break_off();
                continue;
            }
            let Some(answer) = wire.ask(method, &params).await else { continue };
            match answer["result"]["status"].as_str() {
                Some("accepted" | "started") => {
                    *observed.lock().expect("no panic").accepted.entry(run_id.clone()).or_default() += 1;
                    break;
                }
                Some("in_flight" | "ended" | "ok") => break,
                _ => panic!("{run_id}: {answer}"),
            }
        }
        if dice.below(4) == 0 {
            wire.break_off();
        }
        // A few runs are left to themselves.
        if dice.below(4) > 0 {
            outcome(&mut wire, &run_id, &observed).await;
        }
        ended.fetch_add(1, Ordering::SeqCst);
    }
}

async fn outcome(wire: &mut Wire, run_id: &str, observed: &Mutex<Observed>) {
    loop {
        let params = json!({ "runId": run_id, "timeoutMs": 10_000 });
        let Some(answer) = wire.ask("agent.wait", &params).await else { continue };
        assert!(answer["error"].is_null(), "{run_id} was acknowledged, and is gone: {answer}");
        if !answer["result"]["final"].is_null() {
            let mut observed = observed.lock().expect("no panic");
            observed.outcomes.entry(run_id.to_owned()).or_default().push(answer["result"].clone());
            return;
        }
    }
}

/// The whole transcript of a session.
async fn transcript(wire: &mut Wire, session: &str) -> Vec<Value> {
    let (mut messages, mut offset) = (Vec::new(), json!(0));
    loop {
        let params = json!({ "sessionKey": session, "limit": 100, "offset": offset });
        let Some(answer) = wire.ask("chat.history", &params).await else { continue };
        let page = &answer["result"];
        let mut older = page["messages"].as_array().unwrap_or_else(|| panic!("{answer}")).clone();
        older.extend(messages);
        messages = older;
        if page["hasMore"] == false {
            return messages;
        }
        offset = page["nextOffset"].clone();
    }
}

/// Reads the history: every run has one outcome, and its turn stands in the transcript once and in order.
fn check(
    run_ids: &[String],
    observed: &Observed,
    transcripts: &BTreeMap<String, Vec<Value>>,
) -> (usize, usize) {
    let mut turns: HashMap<&str, (&Value, &Value)> = HashMap::new();
    for (session, messages) in transcripts {
        for (index, message) in messages.iter().enumerate() {
            assert_eq!(message["__openclaw"]["seq"], index as u64 + 1, "{session}: numbers have a hole");
        }
        for turn in messages.chunks(2) {
            let [user, assistant] = turn else { panic!("{session}: a message without an answer: {turn:?}") };
            let run_id = user["__openclaw"]["runId"].as_str().expect("a message names its run");
            assert_eq!(
                (&user["role"], &assistant["role"]),
                (&json!("user"), &json!("assistant")),
                "{run_id}"
            );
            assert_eq!(assistant["__openclaw"]["runId"], run_id, "{session}: turns are entangled");
            assert_eq!(user["content"][0]["text"], message_of(run_id), "{run_id}");
            assert!(turns.insert(run_id, (user, assistant)).is_none(), "{run_id} is in a transcript twice");
        }
    }
    let (mut completed, mut interrupted) = (0, 0);
    for run_id in run_ids {
        let accepted = observed.accepted.get(run_id).copied().unwrap_or_default();
        assert!(accepted <= 1, "{run_id} was accepted {accepted} times");
        let outcomes = observed.outcomes.get(run_id).unwrap_or_else(|| panic!("{run_id} has no outcome"));
        assert!(
            outcomes.iter().all(|outcome| *outcome == outcomes[0]),
            "{run_id} has two outcomes: {outcomes:?}"
        );
        let (_, answer) = turns.remove(run_id.as_str()).unwrap_or_else(|| panic!("{run_id} left no message"));
        let said = format!("You said: {}", message_of(run_id));
        match outcomes[0]["status"].as_str() {
            Some("ok") => {
                completed += 1;
                assert_eq!(outcomes[0]["final"]["result"]["payloads"][0]["text"], said, "{run_id}");
                assert_eq!(
                    (&answer["content"][0]["text"], &answer["stopReason"]),
                    (&json!(said), &json!("stop"))
                );
            }
            Some("error") => {
                interrupted += 1;
                assert_eq!(outcomes[0]["stopReason"], "interrupted", "{run_id}: {}", outcomes[0]);
                assert_eq!(answer["stopReason"], "interrupted", "{run_id}: {answer}");
                let kept = answer["content"][0]["text"].as_str().unwrap_or_default();
                assert!(said.starts_with(kept), "{run_id}: {kept}");
            }
            other => panic!("{run_id}: {other:?}"),
        }
    }
    assert!(turns.is_empty(), "turns of no run: {:?}", turns.keys());
    (completed, interrupted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_run_is_lost_or_done_twice_however_often_the_gateway_is_killed() {
    let size = std::env::var("OPENCLAW_DURABILITY").unwrap_or_else(|_| "300,6".to_owned());
    let (runs, kills) = size.split_once(',').expect("OPENCLAW_DURABILITY is <runs>,<kills>");
    let (runs, kills): (usize, usize) = (runs.parse().expect("a number"), kills.parse().expect("a number"));
    let directory = tempfile::tempdir().expect("a directory can be made");
    let mut server = start(directory.path(), 0);
    let port = server.port();
    let (observed, ended) = (Arc::<Mutex<Observed>>::default(), Arc::<AtomicUsize>::default());
    let share = runs.div_ceil(CLIENTS);
    let total = share * CLIENTS;
    let begun = Instant::now();
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| tokio::spawn(client(number, share, port, Arc::clone(&observed), Arc::clone(&ended))))
        .collect();
    let all_done = Arc::<AtomicBool>::default();
    let killer = {
        let (path, ended, all_done): (PathBuf, _, _) =
            (directory.path().to_owned(), Arc::clone(&ended), Arc::clone(&all_done));
        tokio::task::spawn_blocking(move || {
            // Spread over the work, not over the time: each kill falls into the midst of it.
            for kill in 1..=kills {
                let due = total * kill / (kills + 1);
                while ended.load(Ordering::SeqCst) < due && !all_done.load(Ordering::SeqCst) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                drop(server);
                server = start(&path, port);
            }
            server
        })
    };
    let work = async {
        for client in clients {
            client.await.expect("a client is told what it may expect");
        }
    };
    tokio::time::timeout(PATIENCE, work).await.expect("every client comes to its end");
    all_done.store(true, Ordering::SeqCst);
    let server = killer.await.expect("the gateway starts again");

    let run_ids: Vec<String> =
        (0..CLIENTS).flat_map(|number| (0..share).map(move |index| format!("c{number}-{index}"))).collect();
    let mut wire = Wire::new(server.port());
    let mut transcripts = BTreeMap::new();
    let reading = async {
        for run_id in &run_ids {
            outcome(&mut wire, run_id, &observed).await;
        }
        for session in (0..SESSIONS).map(session_of) {
            transcripts.insert(session.clone(), transcript(&mut wire, &session).await);
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.expect("everything can be read");
    let (completed, interrupted) = check(&run_ids, &observed.lock().expect("no panic"), &transcripts);
    assert!(
        completed > interrupted,
        "{completed} completed, {interrupted} interrupted: kills leave too little"
    );
    assert!(kills == 0 || interrupted > 0, "no kill has hit a run");
    let seconds = begun.elapsed().as_secs_f64();
    eprintln_summary(&format!(
        "{total} runs over {CLIENTS} connections, {kills} kills, {seconds:.1} s: {completed} completed, {interrupted} interrupted"
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_run_had_said_when_its_gateway_was_killed_is_in_its_session() {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let server = start(directory.path(), 0);
    let port = server.port();
    let mut wire = Wire::new(port);
    // Ten seconds of words.
    let message = (0..1000).map(|word| word.to_string()).collect::<Vec<_>>().join(" ");
    let params = json!({ "message": message, "idempotencyKey": "k1", "sessionKey": "main" });
    wire.ask("agent", &params).await.expect("it is accepted");
    let history = json!({ "sessionKey": "main" });
    let said = format!("You said: {message}");
    let told = loop {
        let answer = wire.ask("chat.history", &history).await.expect("it is answered");
        let text = answer["result"]["inFlightRun"]["text"].as_str().unwrap_or_default();
        // By now it has been stored twice at least.
        if text.split(' ').count() > 250 {
            break text.to_owned();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    drop(server);
    let server = start(directory.path(), port);
    let answer = loop {
        let waited = json!({ "runId": "k1", "timeoutMs": 10_000 });
        let Some(answer) = wire.ask("agent.wait", &waited).await else { continue };
        break answer;
    };
    let outcome = &answer["result"]["final"];
    assert_eq!(answer["result"]["stopReason"], "interrupted", "{answer}");
    let kept = outcome["result"]["payloads"][0]["text"].as_str().expect("there is text");
    assert!(said.starts_with(kept), "{kept}");
    assert!(kept.len() > told.len() / 4, "{} bytes of {} are kept", kept.len(), told.len());
    let messages = transcript(&mut wire, "main").await;
    assert_eq!(messages[1]["content"][0]["text"], kept, "{messages:?}");
    assert_eq!(messages[1]["stopReason"], "interrupted");
    drop(server);
}

#[expect(clippy::print_stderr, reason = "the figures are worth a look")]
fn eprintln_summary(line: &str) {
    eprintln!("{line}");
}
