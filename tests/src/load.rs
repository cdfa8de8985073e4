//! Callers that keep a gateway busy, and account for every call: for the benches of restarts and of long runs.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    task::JoinHandle,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Error, Message, client::IntoClientRequest, protocol::CloseFrame},
};

/// How long a call may go without answer or close before it counts as hanging.
const HANGS: Duration = Duration::from_secs(10);
/// How long a caller waits before it connects again.
const RECONNECT: Duration = Duration::from_millis(5);

/// What became of the calls.
#[derive(Debug, Default)]
pub struct Counts {
    /// Calls sent.
    pub sent: AtomicU64,
    /// Answered with a result.
    pub answered: AtomicU64,
    /// Answered with an error that says to try again.
    pub told_to_retry: AtomicU64,
    /// Answered with another error.
    pub failed: AtomicU64,
    /// In flight when the connection was closed with 1012, which says to come back.
    pub closed_for_restart: AtomicU64,
    /// In flight when the connection was closed with 4001, which says that the secret is another one. They are sent again
    /// with the new one, and counted again.
    pub sent_again: AtomicU64,
    /// In flight when the connection ended without a word, or with another one.
    pub cut: AtomicU64,
    /// Neither answered nor closed in time.
    pub hanging: AtomicU64,
    /// Connections that were refused by the system.
    pub refused_connections: AtomicU64,
    /// Connections that were turned away with a status that says to try again.
    pub deferred_connections: AtomicU64,
    /// Connections made.
    pub connections: AtomicU64,
}

/// Callers at work.
#[derive(Debug)]
pub struct Load {
    counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    callers: Vec<JoinHandle<()>>,
    /// The time of the last result, and the longest time between two of them.
    gap: Arc<Mutex<(Instant, Duration)>>,
    token: Arc<Mutex<String>>,
}

/// What a load is made of.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// How many sockets are open.
    pub sockets: u32,
    /// How many calls a second they make together.
    pub calls_per_second: u32,
    /// How many of them are closed and opened again a second; 0 for none.
    pub reconnects_per_second: u32,
}

impl Load {
    /// Starts callers. `url` is that of a WebSocket, with path.
    #[must_use]
    pub fn start(url: &str, token: &str, shape: Shape) -> Self {
        let (counts, stop) = (Arc::new(Counts::default()), Arc::new(AtomicBool::new(false)));
        let gap = Arc::new(Mutex::new((Instant::now(), Duration::ZERO)));
        let token = Arc::new(Mutex::new(token.to_owned()));
        let per_socket =
            Duration::from_secs_f64(f64::from(shape.sockets) / f64::from(shape.calls_per_second));
        let life = match shape.reconnects_per_second {
            0 => Duration::MAX,
            reconnects => Duration::from_secs_f64(f64::from(shape.sockets) / f64::from(reconnects)),
        };
        let callers = (0..shape.sockets)
            .map(|number| {
                let caller = Caller {
                    url: url.to_owned(),
                    token: Arc::clone(&token),
                    every: per_socket,
                    life,
                    counts: Arc::clone(&counts),
                    stop: Arc::clone(&stop),
                    gap: Arc::clone(&gap),
                };
                let begin = per_socket.mul_f64(f64::from(number) / f64::from(shape.sockets));
                tokio::spawn(async move {
                    sleep(begin).await;
                    caller.run().await;
                })
            })
            .collect();
        Self { counts, stop, callers, gap, token }
    }

    /// What callers show from now on when they connect.
    pub fn change_token(&self, token: &str) {
        token.clone_into(&mut self.token.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What became of the calls so far.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The longest time without a result since this was asked last.
    #[must_use]
    pub fn take_gap(&self) -> Duration {
        let mut gap = self.gap.lock().unwrap_or_else(PoisonError::into_inner);
        let longest = gap.1.max(gap.0.elapsed());
        *gap = (Instant::now(), Duration::ZERO);
        longest
    }

    /// Sends nothing more, and waits for what is in flight.
    pub async fn finish(self) -> Arc<Counts> {
        self.stop.store(true, Ordering::Relaxed);
        for caller in self.callers {
            let _ = caller.await;
        }
        self.counts
    }
}

fn call(id: u64) -> Message {
    Message::text(json!({ "jsonrpc": "2.0", "id": id, "method": "health", "params": {} }).to_string())
}

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

struct Caller {
    url: String,
    token: Arc<Mutex<String>>,
    /// Time between two calls.
    every: Duration,
    /// How long a connection is used.
    life: Duration,
    counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    gap: Arc<Mutex<(Instant, Duration)>>,
}

impl Caller {
    async fn run(&self) {
        let mut again = 0;
        while !self.stop.load(Ordering::Relaxed) {
            match self.connect().await {
                Ok(socket) => {
                    self.counts.connections.fetch_add(1, Ordering::Relaxed);
                    again = self.call(socket, again).await;
                }
                Err(Error::Http(response)) if response.status() == 503 => {
                    self.counts.deferred_connections.fetch_add(1, Ordering::Relaxed);
                    sleep(RECONNECT).await;
                }
                Err(_) => {
                    self.counts.refused_connections.fetch_add(1, Ordering::Relaxed);
                    sleep(RECONNECT).await;
                }
            }
        }
    }

    async fn connect(&self) -> Result<Socket, Error> {
        let mut request = self.url.as_str().into_client_request()?;
        let bearer = format!("Bearer {}", self.token.lock().unwrap_or_else(PoisonError::into_inner))
            .parse()
            .expect("a token is a header value");
        request.headers_mut().insert("authorization", bearer);
        match timeout(HANGS, tokio_tungstenite::connect_async(request)).await {
            Ok(connected) => connected.map(|(socket, _)| socket),
            Err(_) => {
                self.counts.hanging.fetch_add(1, Ordering::Relaxed);
                Err(Error::ConnectionClosed)
            }
        }
    }

    /// Calls on one connection to its end, first `again` calls that were not taken by the one before. Says how many are
    /// to be sent again.
    async fn call(&self, mut socket: Socket, again: u64) -> u64 {
        let mut in_flight: HashMap<u64, Instant> = HashMap::new();
        let (mut next, begun) = (0, Instant::now());
        let mut ticks = interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut close = None;
        for _ in 0..again {
            next += 1;
            self.counts.sent.fetch_add(1, Ordering::Relaxed);
            in_flight.insert(next, Instant::now());
            let _ = socket.send(call(next)).await;
        }
        loop {
            let leaving = self.stop.load(Ordering::Relaxed) || begun.elapsed() >= self.life;
            if leaving && in_flight.is_empty() {
                let _ = timeout(Duration::from_secs(1), socket.close(None)).await;
                return 0;
            }
            tokio::select! {
                message = socket.next() => match message {
                    Some(Ok(Message::Text(text))) => self.account(&text, &mut in_flight),
                    Some(Ok(Message::Close(frame))) => close = frame,
                    Some(Ok(_)) => {}
                    Some(Err(_)) | None => break,
                },
                _ = ticks.tick() => {
                    let now = Instant::now();
                    let before = in_flight.len();
                    in_flight.retain(|_, sent| now.duration_since(*sent) < HANGS);
                    self.counts.hanging.fetch_add((before - in_flight.len()) as u64, Ordering::Relaxed);
                    if leaving || close.is_some() {
                        continue;
                    }
                    next += 1;
                    self.counts.sent.fetch_add(1, Ordering::Relaxed);
                    in_flight.insert(next, now);
                    if socket.send(call(next)).await.is_err() && close.is_none() {
                        // The close frame may be there to be read.
                        continue;
                    }
                }
            }
        }
        let lost = in_flight.len() as u64;
        let code = close.map(|CloseFrame { code, .. }| u16::from(code));
        let (counter, again) = match code {
            Some(1012) => (&self.counts.closed_for_restart, 0),
            Some(4001) => (&self.counts.sent_again, lost),
            _ => (&self.counts.cut, 0),
        };
        counter.fetch_add(lost, Ordering::Relaxed);
        sleep(RECONNECT).await;
        again
    }

    fn account(&self, text: &str, in_flight: &mut HashMap<u64, Instant>) {
        let Ok(answer) = serde_json::from_str::<Value>(text) else { return };
        if answer["id"].as_u64().and_then(|id| in_flight.remove(&id)).is_none() {
            return;
        }
        let counter = if answer.get("result").is_some() {
            let mut gap = self.gap.lock().unwrap_or_else(PoisonError::into_inner);
            gap.1 = gap.1.max(gap.0.elapsed());
            gap.0 = Instant::now();
            &self.counts.answered
        } else if answer["error"]["data"]["retryable"] == true {
            &self.counts.told_to_retry
        } else {
            &self.counts.failed
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
