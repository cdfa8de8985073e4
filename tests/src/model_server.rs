//! A model to test against: a server that speaks both APIs, well, slowly and badly. What it does follows from the id of
//! the model, so that scripts choose it too:
//!
//! | model | what it does |
//! | --- | --- |
//! | `hello` | answers `Hello from the test model.` in five pieces |
//! | `echo` | answers with the messages that it got, as JSON |
//! | `count-<n>-<ms>` | streams `n` pieces, one each `ms` milliseconds; each is the time it is sent, in microseconds |
//! | `thinks`, `thinks-aloud` | answers as `hello`, and thinks before: apart from the text, or in it |
//! | `bytes` | streams text of many languages byte by byte |
//! | `crlf` | ends lines with CR LF, adds comments, and splits data over lines |
//! | `no-usage` | ends without counts, and without the last word |
//! | `fail-midway` | sends a piece, then an error |
//! | `cut-first`, `cut-midway` | ends the connection before the first piece, or after it |
//! | `hang-first`, `hang-midway` | is silent from the start, or after a piece |
//! | `garbage`, `garbage-events` | answers with a page, or with events that are no JSON |
//! | `refuse` | refuses |
//! | `too-long` | says that the context is too long |
//! | `status-<code>` | answers with this status, and a body that quotes the key |
//! | `limited-<n>[-<seconds>]` | `n` times 429 with `Retry-After` (0 unless said otherwise), then as `hello` |
//! | `dated-<n>` | the same, with a date |

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// What `hello` answers.
pub const HELLO: [&str; 5] = ["Hello ", "from ", "the ", "test ", "model."];
/// What `bytes` answers.
pub const MANY_LANGUAGES: &str = "Grüße, 世界, здравствуй, 🎉👩‍🚀!";

/// A model to test against. It ends with this value.
#[derive(Debug)]
pub struct ModelServer {
    address: SocketAddr,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

/// A request that came.
#[derive(Debug, Clone)]
pub struct ModelRequest {
    /// The path, with its query.
    pub path: String,
    /// The headers, in lower case.
    pub headers: HashMap<String, String>,
    /// The body; null where there is none.
    pub body: Value,
}

#[derive(Debug, Default)]
struct Seen {
    requests: Mutex<Vec<ModelRequest>>,
    /// When the last byte of the last whole answer was sent.
    last_byte: Mutex<Option<Instant>>,
    open: Mutex<usize>,
}

impl ModelServer {
    /// Listens on a free port of loopback.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub async fn start() -> Self {
        Self::listen(0).await
    }

    /// Listens on a port of loopback.
    ///
    /// # Panics
    ///
    /// When it is taken.
    pub async fn listen(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).await.expect("the port is free");
        let address = listener.local_addr().expect("it is bound");
        let seen = Arc::new(Seen::default());
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let seen = Arc::clone(&shared);
                connections.spawn(async move {
                    *lock(&seen.open) += 1;
                    // A client that leaves is part of the tests.
                    let _ = serve(stream, &seen).await;
                    *lock(&seen.open) -= 1;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, seen, task }
    }

    /// The base URL of the API of OpenAI.
    #[must_use]
    pub fn openai_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The base URL of the API of Anthropic.
    #[must_use]
    pub fn anthropic_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests that came so far.
    #[must_use]
    pub fn requests(&self) -> Vec<ModelRequest> {
        lock(&self.seen.requests).clone()
    }

    /// When the last byte of the last whole answer was sent.
    #[must_use]
    pub fn last_byte(&self) -> Option<Instant> {
        *lock(&self.seen.last_byte)
    }

    /// How many connections are open.
    #[must_use]
    pub fn open_connections(&self) -> usize {
        *lock(&self.seen.open)
    }

    /// Serves until the process ends.
    pub async fn forever(mut self) {
        // The loop does not end by itself.
        let _ = (&mut self.task).await;
    }
}

impl Drop for ModelServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves one connection, request after request.
async fn serve(mut stream: TcpStream, seen: &Seen) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut buffer).await? {
        let earlier =
            lock(&seen.requests).iter().filter(|other| other.body["model"] == request.body["model"]).count();
        lock(&seen.requests).push(request.clone());
        let api = if request.path.contains("/messages") { Api::Anthropic } else { Api::OpenAi };
        if request.path.split('?').next().is_some_and(|path| path.ends_with("/models")) {
            let list = json!({ "data": [
                { "id": "hello", "object": "model", "max_model_len": 4096 }, { "id": "echo", "object": "model" },
            ] });
            respond(&mut stream, 200, &[], "application/json", &list.to_string()).await?;
            continue;
        }
        let mut answer = Answer { stream: &mut stream, api, line_end: "\n" };
        if !answer.give(&request, earlier).await? {
            return Ok(());
        }
        *lock(&seen.last_byte) = Some(Instant::now());
    }
    Ok(())
}

async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<Option<ModelRequest>> {
    let head_end = loop {
        if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&buffer[..head_end]).into_owned();
    let mut lines = head.lines();
    let path = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
    let headers: HashMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let length: usize = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while buffer.len() < head_end + length {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    let body = serde_json::from_slice(&buffer[head_end..head_end + length]).unwrap_or(Value::Null);
    buffer.drain(..head_end + length);
    Ok(Some(ModelRequest { path, headers, body }))
}

async fn respond(
    stream: &mut TcpStream,
    status: u16,
    headers: &[(&str, String)],
    kind: &str,
    body: &str,
) -> std::io::Result<()> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status} Status\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(text.as_bytes()).await
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Api {
    OpenAi,
    Anthropic,
}

struct Answer<'a> {
    stream: &'a mut TcpStream,
    api: Api,
    line_end: &'static str,
}

impl Answer<'_> {
    /// Answers; says whether the connection goes on.
    async fn give(&mut self, request: &ModelRequest, earlier: usize) -> std::io::Result<bool> {
        let model = request.body["model"].as_str().unwrap_or_default().to_owned();
        let parts: Vec<&str> = model.split('-').collect();
        let number = |at: usize| parts.get(at).and_then(|part| part.parse::<u64>().ok());
        match parts[..] {
            ["hello"] => self.whole(&HELLO).await?,
            ["thinks"] => {
                self.begin().await?;
                match self.api {
                    Api::OpenAi => {
                        let delta = json!({ "reasoning_content": "Hm.", "reasoning": "Hm." });
                        self.event("", &json!({ "choices": [{ "index": 0, "delta": delta }] })).await?;
                    }
                    Api::Anthropic => {
                        let delta = json!({ "type": "thinking_delta", "thinking": "Hm." });
                        let event = json!({ "type": "content_block_delta", "index": 0, "delta": delta });
                        self.event("content_block_delta", &event).await?;
                    }
                }
                self.rest(&HELLO).await?;
            }
            ["thinks", "aloud"] => {
                self.whole(&[&["<thi", "nk>Hm.</th", "ink>\n\n"][..], &HELLO].concat()).await?
            }
            ["echo"] => {
                let body = &request.body;
                let said = json!({ "system": body["system"], "messages": body["messages"] }).to_string();
                self.whole(&[&said]).await?;
            }
            ["count", ..] => {
                let (count, pause) = (number(1).unwrap_or(100), number(2).unwrap_or(20));
                self.begin().await?;
                let mut clock = tokio::time::interval(Duration::from_millis(pause.max(1)));
                for _ in 0..count {
                    clock.tick().await;
                    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                    self.piece(&format!("{} ", now.as_micros())).await?;
                }
                self.end("stop", true).await?;
            }
            ["bytes"] => {
                self.begin().await?;
                let mut all = Vec::new();
                self.piece_into(MANY_LANGUAGES, &mut all);
                for byte in all {
                    // A chunk of its own for each byte: characters, lines and events are cut everywhere.
                    self.chunk(&[byte]).await?;
                    tokio::task::yield_now().await;
                }
                self.end("stop", true).await?;
            }
            ["crlf"] => {
                self.line_end = "\r\n";
                self.begin().await?;
                self.chunk(b": a comment\r\n\r\n").await?;
                let mut all = Vec::new();
                self.piece_into("Hello", &mut all);
                let text = String::from_utf8_lossy(&all).replacen("{", "{\r\ndata: ", 1);
                self.chunk(text.as_bytes()).await?;
                self.end("stop", true).await?;
            }
            ["no", "usage"] => {
                self.begin().await?;
                self.piece("Hello").await?;
                self.end("stop", false).await?;
            }
            ["fail", "midway"] => {
                self.begin().await?;
                self.piece("Hello").await?;
                let error = json!({ "type": "error", "error": {
                    "type": "api_error", "message": "it broke, key sk-hush0123456789abcdef" } });
                self.event("error", &error).await?;
                self.last_chunk().await?;
            }
            ["cut", when] => {
                if when == "midway" {
                    self.begin().await?;
                    self.piece("Hello").await?;
                }
                return Ok(false);
            }
            ["hang", when] => {
                if when == "midway" {
                    self.begin().await?;
                    self.piece("Hello").await?;
                }
                // Until the client leaves.
                let mut rest = [0; 16];
                while self.stream.read(&mut rest).await? > 0 {}
                return Ok(false);
            }
            ["garbage"] => {
                respond(self.stream, 200, &[], "text/html", "<html><body>Welcome</body></html>").await?;
            }
            ["garbage", "events"] => {
                self.begin().await?;
                self.chunk(b"data: {not json\n\n").await?;
                self.last_chunk().await?;
            }
            ["refuse"] => {
                self.begin().await?;
                self.end(if self.api == Api::OpenAi { "content_filter" } else { "refusal" }, true).await?;
            }
            ["too", "long"] => {
                let error = json!({ "type": "error", "error": {
                    "type": "invalid_request_error", "code": "context_length_exceeded",
                    "message": "prompt is too long: 9 tokens > 8 maximum" } });
                respond(self.stream, 400, &[], "application/json", &error.to_string()).await?;
            }
            ["status", ..] => {
                let key = request.headers.get("authorization").or(request.headers.get("x-api-key"));
                let error = json!({ "error": { "message": format!("your key {key:?} and your words") } });
                let status = number(1).and_then(|code| u16::try_from(code).ok()).unwrap_or(500);
                respond(self.stream, status, &[], "application/json", &error.to_string()).await?;
            }
            ["limited" | "dated", ..] if (earlier as u64) < number(1).unwrap_or(1) => {
                let after = match parts[0] {
                    "dated" => "Sun, 22 Nov 2020 12:00:00 GMT".to_owned(),
                    _ => number(2).unwrap_or(0).to_string(),
                };
                respond(self.stream, 429, &[("retry-after", after)], "application/json", "{}").await?;
            }
            ["limited" | "dated", ..] => self.whole(&HELLO).await?,
            _ => {
                let error = json!({ "error": { "message": "there is no such model" } });
                respond(self.stream, 404, &[], "application/json", &error.to_string()).await?;
            }
        }
        Ok(true)
    }

    async fn whole(&mut self, pieces: &[&str]) -> std::io::Result<()> {
        self.begin().await?;
        self.rest(pieces).await
    }

    async fn rest(&mut self, pieces: &[&str]) -> std::io::Result<()> {
        for piece in pieces {
            self.piece(piece).await?;
        }
        self.end("stop", true).await
    }

    async fn begin(&mut self) -> std::io::Result<()> {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        self.stream.write_all(head.as_bytes()).await?;
        if self.api == Api::Anthropic {
            let usage = json!({ "input_tokens": 11, "cache_read_input_tokens": 4, "output_tokens": 1 });
            let start =
                json!({ "type": "message_start", "message": { "role": "assistant", "usage": usage } });
            self.event("message_start", &start).await?;
            self.event("ping", &json!({ "type": "ping" })).await?;
            let block =
                json!({ "type": "content_block_start", "content_block": { "type": "text", "text": "" } });
            self.event("content_block_start", &block).await?;
        }
        Ok(())
    }

    async fn piece(&mut self, text: &str) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        self.piece_into(text, &mut bytes);
        self.chunk(&bytes).await
    }

    fn piece_into(&self, text: &str, bytes: &mut Vec<u8>) {
        match self.api {
            Api::OpenAi => {
                let choice = json!({ "index": 0, "delta": { "content": text }, "finish_reason": null });
                self.event_into("", &json!({ "choices": [choice] }), bytes);
            }
            Api::Anthropic => {
                let delta = json!({ "type": "text_delta", "text": text });
                let event = json!({ "type": "content_block_delta", "index": 0, "delta": delta });
                self.event_into("content_block_delta", &event, bytes);
            }
        }
    }

    /// Ends an answer; without `is_proper` as servers do that leave out what they may.
    async fn end(&mut self, reason: &str, is_proper: bool) -> std::io::Result<()> {
        match self.api {
            Api::OpenAi => {
                let choice = json!({ "index": 0, "delta": {}, "finish_reason": reason });
                self.event("", &json!({ "choices": [choice] })).await?;
                if is_proper {
                    let usage = json!({
                        "prompt_tokens": 15, "completion_tokens": 5, "total_tokens": 20,
                        "prompt_tokens_details": { "cached_tokens": 4 },
                    });
                    self.event("", &json!({ "choices": [], "usage": usage })).await?;
                    self.chunk(format!("data: [DONE]{0}{0}", self.line_end).as_bytes()).await?;
                }
            }
            Api::Anthropic => {
                let reason = if reason == "stop" { "end_turn" } else { reason };
                let usage = if is_proper { json!({ "output_tokens": 5 }) } else { json!({}) };
                let delta = json!({ "stop_reason": reason });
                let event = json!({ "type": "message_delta", "delta": delta, "usage": usage });
                self.event("message_delta", &event).await?;
                if is_proper {
                    self.event("message_stop", &json!({ "type": "message_stop" })).await?;
                }
            }
        }
        self.last_chunk().await
    }

    async fn event(&mut self, name: &str, data: &Value) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        self.event_into(name, data, &mut bytes);
        self.chunk(&bytes).await
    }

    fn event_into(&self, name: &str, data: &Value, bytes: &mut Vec<u8>) {
        let end = self.line_end;
        if !name.is_empty() {
            bytes.extend_from_slice(format!("event: {name}{end}").as_bytes());
        }
        bytes.extend_from_slice(format!("data: {data}{end}{end}").as_bytes());
    }

    async fn chunk(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.stream.write_all(&chunk).await
    }

    async fn last_chunk(&mut self) -> std::io::Result<()> {
        self.stream.write_all(b"0\r\n\r\n").await
    }
}
