//! Clients that reconnect: after which ends they do and after which they do not, what becomes of calls, events and
//! runs, in both dialects. The reactions are those that wire.md section 12 recorded of the reference client.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::StreamExt as _;
use openclaw_client::{
    AgentRequest, Backoff, Client, ClientBuilder, ConnectionState, Error, Event, PauseReason, RunEvent,
    TimeoutKind, TransportKind,
};
use openclaw_schema::{
    events::EventName,
    methods::{agent::RunStatus, events::EventsSubscribeParams},
};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

use crate::{
    frames::{challenged, event, hello, ok, refusal, stock, welcome},
    servers::{Peer, Server, gateway, raw},
};

/// How long anything may take that is expected to happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a connection is spoken in.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Dialect {
    JsonRpc,
    Frames,
}

const DIALECTS: [Dialect; 2] = [Dialect::JsonRpc, Dialect::Frames];

/// One connection of a gateway that speaks either.
struct Side {
    dialect: Dialect,
    peer: Peer,
    /// Which connection this is, from 1 on.
    number: usize,
}

impl Side {
    async fn answer(&mut self, request: &Value, result: Value) {
        match self.dialect {
            Dialect::JsonRpc => self.peer.answer(request, result).await,
            Dialect::Frames => self.peer.send(&ok(request, &result)).await,
        }
    }

    /// The next request. Subscriptions are answered here: over frames there are none to answer.
    async fn request(&mut self) -> Option<Value> {
        loop {
            let request = self.peer.request().await?;
            if request["method"] != "events.subscribe" {
                return Some(request);
            }
            self.answer(&request, json!(7)).await;
        }
    }

    async fn event(&mut self, name: &str, seq: u64, payload: &Value) {
        match self.dialect {
            Dialect::JsonRpc => {
                self.peer.item(7, json!({ "event": name, "seq": seq, "payload": payload })).await;
            }
            Dialect::Frames => self.peer.send(&event(name, seq, payload)).await,
        }
    }

    async fn serve(&mut self) {
        while let Some(request) = self.request().await {
            self.answer(&request, json!({ "connection": self.number })).await;
        }
    }
}

/// A gateway whose connections, once they stand, are handled by `serve`.
async fn speaking<F: Future<Output = ()> + Send + 'static>(
    dialect: Dialect,
    serve: impl Fn(Side) -> F + Clone + Send + Sync + 'static,
) -> Server {
    let count = Arc::new(AtomicUsize::new(0));
    let serve = move |mut peer: Peer| {
        let (serve, number) = (serve.clone(), count.fetch_add(1, Ordering::Relaxed) + 1);
        async move {
            if dialect == Dialect::Frames {
                welcome(&mut peer, 4).await;
            }
            serve(Side { dialect, peer, number }).await;
        }
    };
    match dialect {
        Dialect::JsonRpc => gateway(serve).await,
        Dialect::Frames => stock(serve).await,
    }
}

fn quickly(server: &Server) -> ClientBuilder {
    server.builder().reconnect(Backoff::new(Duration::from_millis(5), Duration::from_millis(20)))
}

async fn connected(builder: ClientBuilder) -> Client {
    builder.connect().await.expect("the server accepts")
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("what is expected happens in time")
}

/// Waits for a state.
async fn reaches(
    state: &mut watch::Receiver<ConnectionState>,
    wanted: impl FnMut(&ConnectionState) -> bool,
) -> ConnectionState {
    soon(state.wait_for(wanted)).await.expect("the client lives").clone()
}

/// The number of the connection that answers.
async fn asked(client: &Client) -> Value {
    let answer = soon(client.call("any", raw(&json!({})))).await.expect("the server answers");
    serde_json::from_str::<Value>(answer.get()).expect("it is JSON")["connection"].clone()
}

#[tokio::test]
async fn whatever_ends_a_connection_another_one_takes_its_place() {
    for dialect in DIALECTS {
        for code in [None, Some(1000), Some(1001), Some(1012), Some(1013), Some(4001)] {
            let server = speaking(dialect, move |mut side| async move {
                if side.number > 1 {
                    return side.serve().await;
                }
                side.request().await;
                // Without a code: the socket is dropped, which is 1006.
                if let Some(code) = code {
                    side.peer.close(CloseCode::from(code), "that is all").await;
                }
            })
            .await;
            let client = connected(quickly(&server)).await;
            let error = soon(client.call("any", raw(&json!({})))).await.expect_err("the connection ends");
            let Error::Transport { kind, sent, .. } = &error else { panic!("{error:?}") };
            assert_eq!((*kind, *sent), (TransportKind::Closed { code }, true));
            assert!(error.is_retryable() && error.may_have_executed());
            assert_eq!(asked(&client).await, 2, "{dialect:?} {code:?}");
        }
    }
}

#[tokio::test]
async fn the_state_tells_what_happens_and_starts_over_after_a_success() {
    let server = speaking(Dialect::JsonRpc, |mut side| async move {
        side.request().await;
        side.peer.close(CloseCode::Restart, "service restart").await;
    })
    .await;
    let client = connected(server.builder().reconnect(Backoff::new(PATIENCE * 10, PATIENCE * 10))).await;
    let mut state = client.state();
    let ConnectionState::Connected { server_version } = state.borrow().clone() else { panic!("not yet") };
    assert_eq!(server_version.as_deref(), Some("0.1.0"));
    for _ in 0..2 {
        client.call("any", raw(&json!({}))).await.expect_err("the connection ends");
        let waiting =
            reaches(&mut state, |state| matches!(state, ConnectionState::Reconnecting { .. })).await;
        let ConnectionState::Reconnecting { attempt, after, cause } = waiting else { unreachable!() };
        assert_eq!(attempt, 1);
        assert!((PATIENCE * 5..=PATIENCE * 10).contains(&after), "{after:?}");
        assert!(cause.to_string().contains("service restart (code 1012)"), "{cause}");
        // Nobody waits so long.
        client.resume();
        reaches(&mut state, |state| matches!(state, ConnectionState::Connected { .. })).await;
    }
    client.close().await;
    assert!(matches!(*state.borrow(), ConnectionState::Closed));
}

#[tokio::test]
async fn attempts_that_fail_are_counted_and_a_dropped_client_says_that_it_is_closed() {
    let (address, accepted) = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a loopback port is free");
        let address = listener.local_addr().expect("the listener is bound");
        // One connection, then nobody listens.
        let accepted = tokio::spawn(async move { listener.accept().await.expect("a client comes").0 });
        (address, accepted)
    };
    let upgraded = tokio::spawn(async move {
        let stream = accepted.await.expect("it is awaited");
        tokio_tungstenite::accept_async(stream).await.expect("the upgrade is well formed")
    });
    let serving = tokio::spawn(async move {
        let mut peer = Peer { socket: upgraded.await.expect("it is awaited") };
        welcome(&mut peer, 4).await;
    });
    let backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(20));
    let client = connected(Client::builder(format!("ws://{address}")).reconnect(backoff)).await;
    let mut state = client.state();
    let third = |state: &ConnectionState| matches!(state, ConnectionState::Reconnecting { attempt: 3.., .. });
    let ConnectionState::Reconnecting { cause, .. } = reaches(&mut state, third).await else {
        unreachable!()
    };
    assert!(matches!(cause, Error::Transport { kind: TransportKind::Unreachable, .. }), "{cause:?}");
    serving.await.expect("the handshake does not fail");
    drop(client);
    reaches(&mut state, |state| matches!(state, ConnectionState::Closed)).await;
}

#[tokio::test]
async fn calls_wait_for_the_next_connection_within_their_limit() {
    let server = speaking(Dialect::Frames, |mut side| async move {
        if side.number == 1 {
            return side.peer.close(CloseCode::Restart, "service restart").await;
        }
        side.serve().await;
    })
    .await;
    let never = Backoff::new(PATIENCE * 10, PATIENCE * 10);
    let builder = server.builder().reconnect(never).call_timeout(Some(Duration::from_millis(50)));
    let client = connected(builder).await;
    reaches(&mut client.state(), |state| matches!(state, ConnectionState::Reconnecting { .. })).await;
    let error = client.call("any", raw(&json!({}))).await.expect_err("there is no connection");
    let Error::Timeout { what: TimeoutKind::Reconnect, .. } = error else { panic!("{error:?}") };
    assert!(error.is_retryable() && !error.may_have_executed());

    let client = connected(server.builder().reconnect(never)).await;
    assert_eq!(asked(&client).await, 2, "the second connection stands");
}

#[tokio::test]
async fn idempotent_calls_are_made_again_when_asked_for_and_others_never() {
    for dialect in DIALECTS {
        let server = speaking(dialect, |mut side| async move {
            if side.number > 1 {
                return side.serve().await;
            }
            side.request().await;
            side.request().await;
            side.peer.close(CloseCode::Restart, "service restart").await;
        })
        .await;
        let client = connected(quickly(&server).repeat_idempotent_calls(true)).await;
        let run = AgentRequest::new("hello").build().expect("the texts are within bounds");
        let run = raw(&serde_json::to_value(run).expect("params serialise"));
        let (health, agent) = tokio::join!(client.call("health", raw(&json!({}))), client.call("agent", run));
        assert_eq!(health.expect("it is made again").get(), r#"{"connection":2}"#, "{dialect:?}");
        let error = agent.expect_err("a run is not started twice");
        assert!(error.may_have_executed(), "{error:?}");
    }
}

/// A gateway of frames that is restarted and then refuses, in its second connection, with `error`.
async fn refusing_once(error: Value, code: u16) -> (Server, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&count);
    let server = stock(move |mut peer: Peer| {
        let (error, number) = (error.clone(), count.fetch_add(1, Ordering::Relaxed) + 1);
        async move {
            match number {
                1 => {
                    welcome(&mut peer, 4).await;
                    peer.close(CloseCode::Restart, "service restart").await;
                }
                2 => {
                    let Some(connect) = challenged(&mut peer, 4).await else { return };
                    peer.send(&refusal(&connect, &error)).await;
                    peer.close(CloseCode::from(code), "no").await;
                }
                _ => {
                    welcome(&mut peer, 4).await;
                    Side { dialect: Dialect::Frames, peer, number }.serve().await;
                }
            }
        }
    })
    .await;
    (server, seen)
}

#[tokio::test]
async fn what_waiting_cannot_mend_pauses_until_somebody_resumes() {
    let unauthorized = |code: &str| json!({ "code": "INVALID_REQUEST", "message": "unauthorized: no", "details": { "code": code } });
    let pairing = json!({
        "code": "NOT_PAIRED", "message": "pairing required: device is not approved yet",
        "details": { "code": "PAIRING_REQUIRED", "reason": "not-paired", "requestId": "r-1" },
    });
    let limited = json!({
        "code": "INVALID_REQUEST", "message": "unauthorized: too many failed authentication attempts (retry later)",
        "details": { "code": "AUTH_RATE_LIMITED" }, "retryable": true, "retryAfterMs": 300_000,
    });
    let mismatch = json!({ "code": "INVALID_REQUEST", "message": "protocol mismatch", "details": { "code": "PROTOCOL_MISMATCH" } });
    for (error, code, expected) in [
        (unauthorized("AUTH_TOKEN_MISMATCH"), 1008, PauseReason::Unauthorized),
        (unauthorized("AUTH_DEVICE_TOKEN_MISMATCH"), 1008, PauseReason::Unauthorized),
        (pairing, 1008, PauseReason::PairingRequired),
        (limited, 1008, PauseReason::RateLimited),
        (mismatch, 1002, PauseReason::ProtocolMismatch),
    ] {
        let (server, attempts) = refusing_once(error, code).await;
        let client = connected(quickly(&server)).await;
        let waiting = tokio::spawn({
            let client = client.clone();
            async move { client.call("any", raw(&json!({}))).await }
        });
        let mut state = client.state();
        let paused = reaches(&mut state, |state| matches!(state, ConnectionState::Paused { .. })).await;
        let ConnectionState::Paused { reason, cause } = paused else { unreachable!() };
        assert_eq!(reason, expected, "{cause:?}");
        let failed = soon(waiting).await.expect("the call does not panic").expect_err("nothing is to come");
        assert!(!failed.is_retryable() || failed.may_have_executed(), "{failed:?}");
        let failed = client.call("any", raw(&json!({}))).await.expect_err("nothing is to come");
        assert_eq!(failed.to_string(), cause.to_string());
        // Longer than the longest wait.
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(attempts.load(Ordering::Relaxed), 2, "{expected:?} is not tried again");
        client.resume();
        reaches(&mut state, |state| matches!(state, ConnectionState::Connected { .. })).await;
        assert_eq!(asked(&client).await, 3);
    }
}

#[tokio::test]
async fn a_gateway_that_is_starting_is_asked_again_when_it_says() {
    let starting = json!({
        "code": "UNAVAILABLE", "message": "gateway starting; retry shortly", "details": { "reason": "startup-sidecars" },
        "retryable": true, "retryAfterMs": 120,
    });
    let (server, _) = refusing_once(starting, 1013).await;
    let builder = server.builder().reconnect(Backoff::new(Duration::from_millis(5), PATIENCE * 10));
    // So short that the connecting itself does not wait for it.
    let client = connected(builder.connect_timeout(Duration::from_millis(100))).await;
    let mut state = client.state();
    let asked_to = Duration::from_millis(120);
    let waiting = reaches(
        &mut state,
        |state| matches!(state, ConnectionState::Reconnecting { after, .. } if *after == asked_to),
    )
    .await;
    let ConnectionState::Reconnecting { attempt, .. } = waiting else { unreachable!() };
    assert!(attempt >= 2);
    assert_eq!(asked(&client).await, 3);
}

#[tokio::test]
async fn events_go_on_after_saying_that_some_are_lost() {
    for dialect in DIALECTS {
        let server = speaking(dialect, |mut side| async move {
            let request = side.request().await.expect("a request comes");
            side.answer(&request, json!(true)).await;
            let number = side.number;
            side.event("tick", 1, &json!({ "ts": number })).await;
            if number == 1 {
                return side.peer.close(CloseCode::Restart, "service restart").await;
            }
            side.serve().await;
        })
        .await;
        let client = connected(quickly(&server)).await;
        let wanted =
            EventsSubscribeParams { events: Some(vec![EventName::Tick]), ..EventsSubscribeParams::default() };
        let mut events = client.events(wanted).await.expect("the server answers");
        client.call("go", raw(&json!({}))).await.expect("the server answers");
        let first = soon(events.next()).await.expect("an item comes").expect("it is one");
        assert!(matches!(&first, Event::Received(item) if item.payload["ts"] == 1), "{first:?}");
        let second = soon(events.next()).await.expect("an item comes").expect("it is one");
        let Event::Reconnected { cause } = second else { panic!("{second:?}") };
        assert!(cause.to_string().contains("code 1012"), "{cause}");
        client.call("go", raw(&json!({}))).await.expect("the server answers");
        let third = soon(events.next()).await.expect("an item comes").expect("it is one");
        assert!(matches!(&third, Event::Received(item) if item.payload["ts"] == 2), "{third:?}");
        client.close().await;
        let last = soon(events.next()).await.expect("the reason comes");
        assert!(last.is_err() && events.next().await.is_none(), "{last:?}");
    }
}

#[tokio::test]
async fn events_end_with_the_cause_when_reconnecting_is_paused() {
    let refused = json!({ "code": "INVALID_REQUEST", "message": "unauthorized: no", "details": { "code": "AUTH_TOKEN_MISMATCH" } });
    let (server, _) = refusing_once(refused, 1008).await;
    let client = connected(quickly(&server)).await;
    let events = client.events(EventsSubscribeParams::default()).await.expect("no call is needed");
    let items: Vec<_> = soon(events.collect()).await;
    assert!(matches!(items.last(), Some(Err(Error::Unauthorized { .. }))), "{items:?}");
}

#[tokio::test]
async fn a_gateway_that_stops_ticking_is_left_with_4000_for_another_connection() {
    let (told, mut closes) = mpsc::unbounded_channel();
    let count = Arc::new(AtomicUsize::new(0));
    let server = stock(move |mut peer: Peer| {
        let (told, number) = (told.clone(), count.fetch_add(1, Ordering::Relaxed) + 1);
        async move {
            if number > 1 {
                welcome(&mut peer, 4).await;
                return Side { dialect: Dialect::Frames, peer, number }.serve().await;
            }
            let connect = challenged(&mut peer, 4).await.expect("a client connects");
            let mut hello = hello(4);
            hello["policy"]["tickIntervalMs"] = json!(25);
            peer.send(&ok(&connect, &hello)).await;
            while let Some(Ok(message)) = peer.socket.next().await {
                if let Message::Close(Some(frame)) = message {
                    told.send(u16::from(frame.code)).expect("the test waits");
                }
            }
        }
    })
    .await;
    let client = connected(quickly(&server)).await;
    let mut state = client.state();
    let waiting = reaches(&mut state, |state| matches!(state, ConnectionState::Reconnecting { .. })).await;
    let ConnectionState::Reconnecting { cause, .. } = waiting else { unreachable!() };
    assert!(cause.to_string().contains("code 4000"), "{cause}");
    assert_eq!(soon(closes.recv()).await, Some(4000));
    assert_eq!(asked(&client).await, 2);
}

#[tokio::test]
async fn the_outcome_of_a_run_survives_the_connection_that_started_it() {
    for dialect in DIALECTS {
        let server = speaking(dialect, |mut side| async move {
            let number = side.number;
            while let Some(request) = side.request().await {
                let run_id = request["params"]["idempotencyKey"].clone();
                match request["method"].as_str() {
                    Some("agent") => {
                        side.answer(&request, json!({ "runId": run_id, "status": "accepted" })).await;
                        return side.peer.close(CloseCode::Restart, "service restart").await;
                    }
                    Some("agent.wait") if number > 1 => {
                        let run_id = &request["params"]["runId"];
                        let outcome = json!({ "runId": run_id, "status": "ok", "summary": "completed" });
                        let result =
                            json!({ "runId": run_id, "status": "ok", "endedAt": 1, "final": outcome });
                        side.answer(&request, result).await;
                    }
                    _ => side.answer(&request, json!(true)).await,
                }
            }
        })
        .await;
        let client = connected(quickly(&server)).await;
        let params = AgentRequest::new("hello").build().expect("the texts are within bounds");
        let mut run = client.run_agent(params).await.expect("the run starts");
        let outcome = soon(run.outcome()).await.expect("it is asked for again");
        assert_eq!(outcome.status, RunStatus::Ok, "{dialect:?}");
        let events: Vec<_> = soon(run.events().collect()).await;
        assert!(matches!(events[..], [Ok(RunEvent::Gap)]), "{dialect:?}: {events:?}");
    }
}

#[tokio::test]
async fn closing_ends_the_calls_that_wait() {
    let server = gateway(|peer: Peer| async move { peer.close(CloseCode::Restart, "restart").await }).await;
    let never = Backoff::new(PATIENCE * 10, PATIENCE * 10);
    let client = connected(server.builder().reconnect(never).call_timeout(None)).await;
    reaches(&mut client.state(), |state| matches!(state, ConnectionState::Reconnecting { .. })).await;
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.call("any", raw(&json!({}))).await }
    });
    tokio::task::yield_now().await;
    client.close().await;
    let error = soon(waiting).await.expect("the call does not panic").expect_err("the client is closed");
    assert!(error.to_string().contains("closed by this program") && !error.may_have_executed(), "{error:?}");
}

#[tokio::test]
async fn a_client_that_does_not_reconnect_has_a_state_that_is_final() {
    let server = gateway(|mut peer: Peer| async move {
        peer.request().await;
        peer.close(CloseCode::Restart, "restart").await;
    })
    .await;
    let client = server.client().await;
    assert!(matches!(*client.state().borrow(), ConnectionState::Connected { .. }));
    client.call("any", raw(&json!({}))).await.expect_err("the connection ends");
    let mut state = client.state();
    assert!(matches!(*state.borrow(), ConnectionState::Closed));
    assert!(state.changed().await.is_err(), "it never changes");
}
