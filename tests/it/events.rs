//! Subscriptions: what they send, to whom, in which order, and how they end.

use std::{fs, io::Write as _, sync::Arc, time::Duration};

use openclaw_gateway::backend::echo::EchoBackend;
use openclaw_schema::{
    document,
    events::{EVENTS, EventName},
    methods::{agent::AgentMethod, events::EventsMethod, gateway::GatewayMethod, logs::LogsMethod},
};
use openclaw_tests::harness::{Socket, TOKEN, TestGateway, soon};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tokio::time::Instant;
use tokio_tungstenite::MaybeTlsStream;

use crate::contract::{assert_valid, validator};

fn request(id: u64, method: &str, params: &Value) -> String {
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string()
}

/// Subscribes and gives the id of the subscription.
async fn subscribe(socket: &mut Socket, params: Value) -> Value {
    let answer = socket.ask(request(1, EventsMethod::EventsSubscribe.name(), &params)).await;
    assert!(answer["result"].is_u64() || answer["result"].is_string(), "{answer}");
    answer["result"].clone()
}

/// The next item of a subscription.
async fn item(socket: &mut Socket, subscription: &Value) -> Value {
    let notification = soon(socket.next_json()).await;
    assert_eq!(notification["method"], "events.event", "{notification}");
    assert_eq!(notification["params"]["subscription"], *subscription, "{notification}");
    assert!(notification.get("id").is_none(), "{notification}");
    notification["params"]["result"].clone()
}

/// Makes the gateway send a `health` event; the answer is left out.
async fn provoke_health(gateway: &TestGateway) {
    let answer = gateway.call(GatewayMethod::Health.name(), json!({ "probe": true })).await;
    assert_eq!(answer["result"]["ok"], true, "{answer}");
}

async fn start_run(gateway: &TestGateway, key: &str) {
    let params = json!({ "message": "one two three", "idempotencyKey": key, "sessionKey": key });
    let answer = gateway.call(AgentMethod::Agent.name(), params).await;
    assert_eq!(answer["result"]["status"], "accepted", "{answer}");
    let waited = json!({ "runId": key, "timeoutMs": 10_000 });
    let ended = gateway.call(AgentMethod::AgentWait.name(), waited).await;
    assert_eq!(ended["result"]["status"], "ok", "{ended}");
}

#[tokio::test]
async fn events_are_filtered_by_name_and_counted_without_a_hole() {
    let gateway = TestGateway::with_limits(|limits| limits.tick_interval = Duration::from_millis(5)).await;
    let mut socket = gateway.websocket().await;
    let subscription = subscribe(&mut socket, json!({ "events": ["health"] })).await;
    for seq in 1..=20 {
        provoke_health(&gateway).await;
        let item = item(&mut socket, &subscription).await;
        assert_eq!(
            (&item["event"], &item["seq"]),
            (&json!("health"), &json!(seq)),
            "ticks are no matter of it"
        );
        assert!(item.get("missed").is_none(), "{item}");
    }
}

#[tokio::test]
async fn ticks_come_at_their_interval_to_whoever_asks() {
    let gateway = TestGateway::with_limits(|limits| limits.tick_interval = Duration::from_millis(30)).await;
    let bearer = format!("Bearer {TOKEN}");
    // A tick asks for no scope.
    let headers = [("authorization", bearer.as_str()), ("openclaw-scopes", "none")];
    let mut socket = gateway.websocket_with("/rpc", &headers).await.expect("the upgrade is accepted");
    let subscription = subscribe(&mut socket, json!({})).await;
    let mut last = 0;
    for seq in 1..=3 {
        let item = item(&mut socket, &subscription).await;
        assert_eq!((&item["event"], &item["seq"]), (&json!("tick"), &json!(seq)));
        let at = item["payload"]["ts"].as_u64().expect("a time");
        assert!(at >= last, "{at} comes after {last}");
        last = at;
    }
}

#[tokio::test]
async fn events_of_one_run_are_those_of_no_other() {
    let gateway = TestGateway::start().await;
    let mut socket = gateway.websocket().await;
    let subscription = subscribe(&mut socket, json!({ "runId": "wanted" })).await;
    start_run(&gateway, "other").await;
    start_run(&gateway, "wanted").await;
    // The last event, of a kind that the filter does not touch.
    provoke_health(&gateway).await;
    let (mut names, mut seq) = (Vec::new(), 0);
    loop {
        let item = item(&mut socket, &subscription).await;
        seq += 1;
        assert_eq!(item["seq"], seq, "what is filtered out leaves no hole");
        let name = item["event"].as_str().expect("a name").to_owned();
        if name == EventName::Health.name() {
            break;
        }
        assert_eq!(item["payload"]["runId"], "wanted", "{item}");
        names.push(name);
    }
    assert!(names.iter().any(|name| name == "agent") && names.iter().any(|name| name == "chat"), "{names:?}");
}

#[tokio::test]
async fn an_event_is_sent_to_those_who_may_receive_it_now() {
    let gateway = TestGateway::start().await;
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", bearer.as_str()), ("openclaw-scopes", "operator.pairing")];
    let mut socket = gateway.websocket_with("/rpc", &headers).await.expect("the upgrade is accepted");
    let asked: Vec<&str> = EVENTS.iter().map(|event| event.name).collect();
    let subscription = subscribe(&mut socket, json!({ "events": asked })).await;
    start_run(&gateway, "k1").await;
    provoke_health(&gateway).await;
    let item_of_all = item(&mut socket, &subscription).await;
    assert_eq!(
        (&item_of_all["event"], &item_of_all["seq"]),
        (&json!("health"), &json!(1)),
        "no run before it"
    );

    // Rights given up later count as well.
    let mut socket = gateway.websocket().await;
    let subscription = subscribe(&mut socket, json!({ "events": ["agent", "health"] })).await;
    let narrowed = socket.ask(request(2, "connect", &json!({ "scopes": [] }))).await;
    assert_eq!(narrowed["result"]["auth"]["scopes"], json!([]), "{narrowed}");
    start_run(&gateway, "k2").await;
    provoke_health(&gateway).await;
    assert_eq!(item(&mut socket, &subscription).await["event"], "health");
}

#[tokio::test]
async fn fifty_subscribers_receive_the_same_payload() {
    #[derive(Deserialize)]
    struct Notification<'a> {
        #[serde(borrow)]
        params: Params<'a>,
    }
    #[derive(Deserialize)]
    struct Params<'a> {
        #[serde(borrow)]
        result: Item<'a>,
    }
    #[derive(Deserialize)]
    struct Item<'a> {
        seq: u64,
        #[serde(borrow)]
        payload: &'a RawValue,
    }
    let gateway = TestGateway::start().await;
    let mut sockets = Vec::new();
    for _ in 0..50 {
        let mut socket = gateway.websocket().await;
        subscribe(&mut socket, json!({ "events": ["health"] })).await;
        sockets.push(socket);
    }
    provoke_health(&gateway).await;
    let mut payloads = Vec::new();
    for socket in &mut sockets {
        let text = socket.next().await.expect("the item comes");
        let notification: Notification<'_> = serde_json::from_str(&text).expect("it is a notification");
        assert_eq!(notification.params.result.seq, 1);
        payloads.push(notification.params.result.payload.get().to_owned());
    }
    payloads.dedup();
    assert_eq!(payloads.len(), 1, "{payloads:?}");
}

#[tokio::test]
async fn unsubscribing_stops_the_items_in_both_spellings() {
    let gateway = TestGateway::start().await;
    for spelling in [|id: &Value| json!({ "subscription": id }), |id: &Value| json!([id])] {
        let mut socket = gateway.websocket().await;
        let ended = subscribe(&mut socket, json!({ "events": ["health"] })).await;
        let kept = subscribe(&mut socket, json!({ "events": ["health"] })).await;
        let unsubscribe = request(2, "events.unsubscribe", &spelling(&ended));
        assert_eq!(
            socket.ask(unsubscribe.clone()).await,
            json!({ "jsonrpc": "2.0", "id": 2, "result": true })
        );
        provoke_health(&gateway).await;
        assert_eq!(item(&mut socket, &kept).await["seq"], 1);
        provoke_health(&gateway).await;
        assert_eq!(item(&mut socket, &kept).await["seq"], 2, "nothing of the other came in between");
        // There is nothing left to end; that is no error.
        assert_eq!(socket.ask(unsubscribe).await["result"], false);
    }
    let mut socket = gateway.websocket().await;
    for params in [
        json!({}),
        json!({ "id": 1 }),
        json!({ "subscription": 1, "more": 2 }),
        json!(7),
        json!([[]]),
        json!([1, 2]),
    ] {
        let answer = socket.ask(request(3, "events.unsubscribe", &params)).await;
        assert_eq!(answer["error"]["data"]["code"], "INVALID_PARAMS", "{params}: {answer}");
    }
}

#[tokio::test]
async fn a_subscription_of_another_connection_cannot_be_ended() {
    let gateway = TestGateway::start().await;
    let mut owner = gateway.websocket().await;
    let mut other = gateway.websocket().await;
    let subscription = subscribe(&mut owner, json!({ "events": ["health"] })).await;
    let unsubscribe = request(2, "events.unsubscribe", &json!({ "subscription": subscription }));
    assert_eq!(other.ask(unsubscribe).await["result"], false);
    provoke_health(&gateway).await;
    assert_eq!(item(&mut owner, &subscription).await["event"], "health");
}

#[tokio::test]
async fn a_connection_has_as_many_subscriptions_as_its_bound() {
    let gateway = TestGateway::with_limits(|limits| limits.max_subscriptions = 2).await;
    let mut socket = gateway.websocket().await;
    let first = subscribe(&mut socket, json!({})).await;
    subscribe(&mut socket, json!({})).await;
    let third = request(1, EventsMethod::EventsSubscribe.name(), &json!({}));
    let refused = socket.ask(third.clone()).await;
    assert_eq!(refused["error"]["data"]["code"], "LIMIT_EXCEEDED", "{refused}");
    let unsubscribe = request(2, "events.unsubscribe", &json!({ "subscription": first }));
    assert_eq!(socket.ask(unsubscribe).await["result"], true);
    // The place is free as soon as the handler has noticed.
    let again = async { while socket.ask(third.clone()).await.get("result").is_none() {} };
    soon(again).await;
}

#[tokio::test]
async fn clients_that_come_and_go_are_told_with_the_whole_list() {
    let gateway = TestGateway::start().await;
    let mut watcher = gateway.websocket().await;
    let subscription = subscribe(&mut watcher, json!({ "events": ["presence"] })).await;
    let mut page = gateway.websocket().await;
    let client = json!({ "id": "page", "displayName": "Ada's page", "mode": "ui", "version": "1.2.3" });
    assert!(page.ask(request(1, "connect", &json!({ "client": client }))).await["result"].is_object());

    let came = item(&mut watcher, &subscription).await;
    let list = came["payload"]["presence"].as_array().expect("a list");
    assert_eq!((list.len(), &list[0]["reason"], &list[0]["mode"]), (2, &json!("self"), &json!("gateway")));
    assert_eq!(
        (&list[1]["clientId"], &list[1]["text"], &list[1]["reason"]),
        (&json!("page"), &json!("Client: Ada's page"), &json!("connect"))
    );
    let presence = gateway.call(GatewayMethod::SystemPresence.name(), json!({})).await;
    assert_eq!(presence["result"], came["payload"]["presence"]);

    drop(page);
    let went = item(&mut watcher, &subscription).await;
    assert_eq!(went["payload"]["presence"][1]["reason"], "disconnect", "{went}");

    // Commands come and go all the time: nobody is told.
    let mut command = gateway.websocket().await;
    let client = json!({ "id": "cli", "mode": "cli" });
    assert!(command.ask(request(1, "connect", &json!({ "client": client }))).await["result"].is_object());
    let mut next = gateway.websocket().await;
    let client = json!({ "id": "next", "mode": "ui" });
    assert!(next.ask(request(1, "connect", &json!({ "client": client }))).await["result"].is_object());
    let told = item(&mut watcher, &subscription).await.to_string();
    assert!(told.contains(r#""next""#) && !told.contains(r#""cli""#), "{told}");
}

#[tokio::test]
async fn a_stop_is_announced_before_the_connection_is_closed() {
    let gateway = TestGateway::start().await;
    let mut socket = gateway.websocket().await;
    let mut bystander = gateway.websocket().await;
    let subscription = subscribe(&mut socket, json!({})).await;
    let stopping = tokio::spawn(gateway.shutdown());
    let announced = item(&mut socket, &subscription).await;
    assert_eq!(
        (&announced["event"], &announced["payload"]["reason"]),
        (&json!("shutdown"), &json!("gateway stopping"))
    );
    for socket in [&mut socket, &mut bystander] {
        let frame = soon(socket.closed()).await.expect("a close frame comes");
        assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1012, "service restart"));
    }
    soon(stopping).await.expect("the gateway stops");
}

#[tokio::test]
async fn every_event_fits_its_published_schema() {
    let gateway = TestGateway::start_with(
        |settings| settings.limits.tick_interval = Duration::from_millis(20),
        |builder| builder.backend(Arc::new(EchoBackend::new(Duration::from_millis(40)))),
    )
    .await;
    let document = document::document();
    // Pairing needs a device: `frames` and `recorded` show its events.
    let mut waiting: Vec<&str> =
        EVENTS.iter().map(|event| event.name).filter(|name| !name.starts_with("device.pair.")).collect();
    let mut socket = gateway.websocket().await;
    // By name, as those of sessions come to nobody who has not asked for them.
    let subscription = subscribe(&mut socket, json!({ "events": waiting })).await;
    let mut page = gateway.websocket().await;
    page.send(request(1, "connect", &json!({ "client": { "mode": "ui" } }))).await;
    start_run(&gateway, "k1").await;
    provoke_health(&gateway).await;
    let mut gateway = Some(gateway);
    while !waiting.is_empty() {
        if waiting == [EventName::Shutdown.name()]
            && let Some(gateway) = gateway.take()
        {
            tokio::spawn(gateway.shutdown());
        }
        let item = item(&mut socket, &subscription).await;
        let name = item["event"].as_str().expect("a name");
        let published = document["x-events"].as_array().expect("a list");
        let event = published.iter().find(|event| event["name"] == name).expect("the event is published");
        assert_valid(&validator(&document, &event["payload"]["schema"]), &item["payload"], name);
        waiting.retain(|waits| *waits != name);
    }
}

#[tokio::test]
async fn who_comes_late_receives_what_is_kept_of_a_run() {
    let gateway = TestGateway::start_with(
        |_| {},
        |builder| builder.backend(Arc::new(EchoBackend::new(Duration::from_millis(30)))),
    )
    .await;
    let mut early = gateway.websocket().await;
    let whole = subscribe(&mut early, json!({ "events": ["agent", "chat"], "runId": "k1" })).await;
    start_run(&gateway, "k1").await;
    let mut seen = Vec::new();
    while seen.last().is_none_or(|item: &Value| item["payload"]["state"] != "final") {
        seen.push(item(&mut early, &whole).await);
    }
    let positions: Vec<u64> = seen.iter().filter_map(|item| item["position"].as_u64()).collect();
    assert!(positions.iter().copied().eq(1..=seen.len() as u64), "{positions:?}");
    for resume_from in [0, 1, positions.len() as u64 - 1] {
        let mut late = gateway.websocket().await;
        let params = json!({ "events": ["agent", "chat"], "runId": "k1", "resumeFrom": resume_from });
        let rest = subscribe(&mut late, params).await;
        for expected in &seen[usize::try_from(resume_from).expect("a small number")..] {
            let item = item(&mut late, &rest).await;
            assert_eq!((&item["payload"], &item["position"]), (&expected["payload"], &expected["position"]));
            assert!(item.get("missed").is_none(), "{item}");
        }
    }
    // In the midst of a run: what has been, then what comes, each once.
    let params = json!({ "message": "a b c d e f g h", "idempotencyKey": "k2", "sessionKey": "k2" });
    gateway.call(AgentMethod::Agent.name(), params).await;
    let mut first = gateway.websocket().await;
    let wanted = json!({ "events": ["agent", "chat"], "runId": "k2", "resumeFrom": 0 });
    let subscription = subscribe(&mut first, wanted).await;
    let mut expected = 0;
    loop {
        let item = item(&mut first, &subscription).await;
        expected += 1;
        assert_eq!((&item["position"], item.get("missed")), (&json!(expected), None), "{item}");
        if item["payload"]["state"] == "final" {
            break;
        }
    }
    let nothing =
        request(9, EventsMethod::EventsSubscribe.name(), &json!({ "runId": "k9", "resumeFrom": 3 }));
    assert_eq!(first.ask(nothing).await["error"]["data"]["code"], "NOT_FOUND");
}

#[tokio::test]
async fn what_is_kept_of_a_run_no_more_is_counted() {
    let gateway = TestGateway::start().await;
    // Each event carries the text so far: half a dozen are more than is kept.
    let message = "x".repeat(100_000);
    let params = json!({ "message": message, "idempotencyKey": "k1", "sessionKey": "k1" });
    gateway.call(AgentMethod::Agent.name(), params).await;
    gateway.call(AgentMethod::AgentWait.name(), json!({ "runId": "k1", "timeoutMs": 10_000 })).await;
    let mut late = gateway.websocket().await;
    let wanted = json!({ "events": ["agent", "chat"], "runId": "k1", "resumeFrom": 0 });
    let subscription = subscribe(&mut late, wanted).await;
    let first = item(&mut late, &subscription).await;
    let position = first["position"].as_u64().expect("a number");
    assert!(position > 1, "{position}");
    assert_eq!(first["missed"], position - 1);
}

#[tokio::test]
async fn new_lines_of_the_log_are_sent_as_they_are_written() {
    let gateway = TestGateway::start().await;
    let file = gateway.log_file();
    fs::create_dir_all(file.parent().expect("the log lies in a folder")).expect("the folder can be made");
    fs::write(file, "{\"message\":\"old\"}\n").expect("the log can be written");
    let mut log = fs::File::options().append(true).open(file).expect("the log can be opened");
    let mut socket = gateway.websocket().await;
    let follow = |cursor: Value| request(1, LogsMethod::LogsFollow.name(), &cursor);
    let from_the_end = socket.ask(follow(json!({}))).await["result"].clone();
    let mut reread = gateway.websocket().await;
    let from_the_start = reread.ask(follow(json!({ "cursor": 0 }))).await["result"].clone();
    // The second line is not complete before its end is written.
    log.write_all(b"{\"message\":\"new\"}\n{\"message\":").expect("the log can be written");
    let line = |subscription: &Value, text: &str, cursor: u64| {
        json!({
            "jsonrpc": "2.0", "method": "logs.line",
            "params": { "subscription": subscription, "result": { "line": text, "cursor": cursor } },
        })
    };
    assert_eq!(soon(reread.next_json()).await, line(&from_the_start, r#"{"message":"old"}"#, 18));
    for (socket, subscription) in [(&mut socket, &from_the_end), (&mut reread, &from_the_start)] {
        assert_eq!(soon(socket.next_json()).await, line(subscription, r#"{"message":"new"}"#, 36));
    }
    log.write_all(b"\"later\"}\n").expect("the log can be written");
    assert_eq!(soon(socket.next_json()).await, line(&from_the_end, r#"{"message":"later"}"#, 56));
    let ended = socket.ask(request(2, "logs.unfollow", &json!({ "subscription": from_the_end }))).await;
    assert_eq!(ended["result"], true, "{ended}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_stops_reading_is_closed_and_no_other_notices() {
    // The keen one may be held up for less than that on a machine that is busy with other things.
    let gateway = TestGateway::with_limits(|limits| limits.send_timeout = Duration::from_secs(3)).await;
    let mut lazy = gateway.websocket().await;
    subscribe(&mut lazy, json!({ "events": ["agent", "chat"] })).await;
    let mut keen = gateway.websocket().await;
    subscribe(&mut keen, json!({ "events": ["agent", "chat"] })).await;
    // Each run sends several times its text: more than the system's buffers hold.
    let message = "x".repeat(900_000);
    for key in ["k1", "k2", "k3"] {
        let params = json!({ "message": message, "idempotencyKey": key });
        let ack = gateway.call(AgentMethod::Agent.name(), params).await;
        assert_eq!(ack["result"]["status"], "accepted", "{ack}");
    }
    let (mut seq, mut ended) = (0, 0);
    while ended < 3 {
        // Looked at as text: to parse megabytes takes a busy machine longer than the send timeout.
        let text = keen.next().await.expect("who reads is not closed");
        seq += 1;
        assert!(text.contains(&format!(r#","seq":{seq},"payload":"#)) && !text.contains(r#","missed":"#));
        ended += u32::from(text.contains(r#""state":"final""#));
    }
    // It is no connection any more before it reads on.
    soon(async {
        loop {
            let health = gateway.call(GatewayMethod::Health.name(), json!({ "probe": true })).await;
            if health["result"]["runtime"]["connections"] == 1 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let frame = soon(lazy.closed()).await.expect("it is told why");
    let reason = "slow consumer: output was not taken in time";
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1013, reason));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_takes_a_large_answer_slowly_receives_all_of_it() {
    let gateway = TestGateway::with_limits(|limits| limits.send_timeout = Duration::from_secs(1)).await;
    let file = gateway.log_file();
    fs::create_dir_all(file.parent().expect("the log lies in a folder")).expect("the folder can be made");
    fs::write(file, format!("{}\n", "x".repeat(999)).repeat(1000)).expect("the log can be written");
    let mut socket = gateway.websocket().await;
    let tail = request(1, LogsMethod::LogsTail.name(), &json!({ "limit": 5000, "maxBytes": 1_000_000 }));
    let calls = vec![tail; 24];
    socket.send(format!("[{}]", calls.join(","))).await;
    // Read below the WebSocket, so that the pace is this test's: longer in all than the send timeout, and never that
    // long without a byte.
    let MaybeTlsStream::Plain(stream) = socket.get_ref().get_ref() else { panic!("loopback needs no TLS") };
    soon(stream.readable()).await.expect("the connection is open");
    let begun = Instant::now();
    let (mut received, mut header, mut buffer) = (0, Vec::new(), vec![0; 256 * 1024]);
    let (mut expected, mut pauses) = (usize::MAX, 0);
    while received < expected {
        soon(stream.readable()).await.expect("the connection is open");
        match stream.try_read(&mut buffer) {
            Ok(0) => panic!("closed after {received} of {expected} bytes and {:?}", begun.elapsed()),
            Ok(count) => {
                header.extend(buffer[..count].iter().take(10_usize.saturating_sub(header.len())));
                received += count;
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => panic!("{error}"),
        }
        // RFC 6455 section 5.2: a text in one frame, its length in eight bytes.
        if let [0x81, 127, length @ ..] = &header[..]
            && let Ok(length) = <[u8; 8]>::try_from(length)
        {
            expected = 10 + usize::try_from(u64::from_be_bytes(length)).expect("64-bit targets hold it");
        }
        if begun.elapsed() < Duration::from_millis(2500) {
            pauses += 1;
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }
    assert!(expected > 20_000_000 && pauses > 20, "{expected} bytes with {pauses} pauses prove nothing");
    let alive = socket.ask(request(2, GatewayMethod::Health.name(), &json!({}))).await;
    assert_eq!(alive["result"]["ok"], true, "{alive}");
}
