//! Conversations through a whole gateway: `chat.*`, `sessions.*`, `config.get`, `last-heartbeat`.

use std::{sync::Arc, time::Duration};

use openclaw_gateway::backend::echo::EchoBackend;
use openclaw_tests::harness::{Socket, TOKEN, TestGateway};
use serde_json::{Value, json};

/// A gateway whose echo takes so long between two words.
async fn gateway(pause: Duration) -> TestGateway {
    TestGateway::start_with(|_| {}, |builder| builder.backend(Arc::new(EchoBackend::new(pause)))).await
}

async fn result(gateway: &TestGateway, method: &str, params: Value) -> Value {
    let answer = gateway.call(method, params).await;
    assert!(answer["error"].is_null(), "{method}: {answer}");
    answer["result"].clone()
}

async fn refusal(gateway: &TestGateway, method: &str, params: Value) -> (String, String) {
    let answer = gateway.call(method, params).await;
    let error = &answer["error"];
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("{method}: {answer}")).to_owned();
    (text(&error["data"]["code"]), text(&error["message"]))
}

async fn say(gateway: &TestGateway, session: &str, key: &str, message: &str) {
    let params = json!({ "sessionKey": session, "message": message, "idempotencyKey": key });
    let sent = result(gateway, "chat.send", params).await;
    assert_eq!(sent, json!({ "runId": key, "status": "started" }));
}

async fn end(gateway: &TestGateway, run_id: &str) -> Value {
    result(gateway, "agent.wait", json!({ "runId": run_id, "timeoutMs": 10_000 })).await
}

/// Waits for the first event of a run that `is_wanted`.
async fn event(socket: &mut Socket, is_wanted: impl Fn(&Value) -> bool) -> Value {
    loop {
        let item = socket.next_json().await;
        let payload = &item["params"]["result"]["payload"];
        if is_wanted(payload) {
            return payload.clone();
        }
    }
}

#[tokio::test]
async fn a_message_is_answered_in_chat_events_and_kept() {
    let gateway = gateway(Duration::from_millis(1)).await;
    let mut socket = gateway.websocket().await;
    let subscribe =
        json!({ "jsonrpc": "2.0", "id": 1, "method": "events.subscribe", "params": { "events": ["chat"] } });
    socket.ask(subscribe.to_string()).await;
    say(&gateway, "Main", "k1", "hello there").await;
    let last = event(&mut socket, |payload| payload["state"] != "delta").await;
    assert_eq!((&last["state"], &last["runId"]), (&json!("final"), &json!("k1")));
    assert_eq!(last["message"]["content"][0]["text"], "You said: hello there");

    // Whoever is told of the end finds the answer in the history.
    let history = result(&gateway, "chat.history", json!({ "sessionKey": "Main" })).await;
    assert_eq!(history["sessionKey"], "Main");
    assert_eq!(history["sessionInfo"]["key"], "agent:main:main");
    assert_eq!((&history["totalMessages"], &history["hasMore"]), (&json!(2), &json!(false)));
    let [user, assistant] = history["messages"].as_array().expect("messages").as_slice() else {
        panic!("two messages, not {history}");
    };
    assert_eq!((&user["role"], &user["content"][0]["text"]), (&json!("user"), &json!("hello there")));
    assert_eq!((&user["idempotencyKey"], &user["__openclaw"]["seq"]), (&json!("k1:user"), &json!(1)));
    assert_eq!(assistant["content"], json!([{ "type": "text", "text": "You said: hello there" }]));
    assert_eq!((&assistant["model"], &assistant["stopReason"]), (&json!("echo-1"), &json!("stop")));
    assert_eq!(assistant["__openclaw"]["runId"], "k1");
    assert!(history["inFlightRun"].is_null(), "{history}");
    assert_eq!(
        end(&gateway, "k1").await["final"]["result"]["meta"]["agentMeta"]["sessionId"],
        history["sessionId"]
    );
}

#[tokio::test]
async fn the_same_key_never_says_it_twice_and_agent_has_keys_of_its_own() {
    let gateway = gateway(Duration::from_millis(300)).await;
    let params = json!({ "sessionKey": "main", "message": "hello", "idempotencyKey": "k1" });
    let send = async || result(&gateway, "chat.send", params.clone()).await["status"].clone();
    assert_eq!(send().await, "started");
    assert_eq!(send().await, "in_flight");
    assert_eq!(end(&gateway, "k1").await["status"], "ok");
    assert_eq!(send().await, "ok");
    let agent = result(&gateway, "agent", params).await;
    assert_eq!(agent["status"], "accepted");
    end(&gateway, "k1").await;
    let history = result(&gateway, "chat.history", json!({ "sessionKey": "main" })).await;
    assert_eq!(history["totalMessages"], 4);
}

#[tokio::test]
async fn what_goes_on_is_shown_and_can_be_aborted() {
    let gateway = gateway(Duration::from_secs(60)).await;
    let mut socket = gateway.websocket().await;
    let subscribe =
        json!({ "jsonrpc": "2.0", "id": 1, "method": "events.subscribe", "params": { "events": ["chat"] } });
    socket.ask(subscribe.to_string()).await;
    say(&gateway, "main", "k1", "one").await;
    let delta = event(&mut socket, |payload| payload["state"] == "delta").await;
    say(&gateway, "main", "k2", "two").await;
    say(&gateway, "other", "k3", "three").await;

    let history = result(&gateway, "chat.history", json!({ "sessionKey": "main" })).await;
    assert_eq!(history["inFlightRun"]["runId"], "k1");
    assert_eq!(history["inFlightRun"]["text"], delta["message"]["content"][0]["text"]);
    assert_eq!(history["pendingInputs"]["total"], 1);
    assert_eq!(history["pendingInputs"]["items"][0]["message"]["content"], "two");
    assert_eq!(history["sessionInfo"]["status"], "running");
    assert_eq!(history["sessionInfo"]["activeRunIds"], json!(["k1", "k2"]));
    assert_eq!(history["totalMessages"], 1);

    let abort = |params| result(&gateway, "chat.abort", params);
    let nothing = json!({ "ok": true, "aborted": false, "runIds": [] });
    assert_eq!(abort(json!({ "sessionKey": "nothing" })).await, nothing);
    assert_eq!(abort(json!({ "sessionKey": "main", "runId": "k3" })).await, nothing);
    let aborted = json!({ "ok": true, "aborted": true, "runIds": ["k1", "k2"] });
    assert_eq!(abort(json!({ "sessionKey": "main" })).await, aborted);
    assert_eq!(abort(json!({ "sessionKey": "main" })).await, nothing);
    let history = result(&gateway, "chat.history", json!({ "sessionKey": "main" })).await;
    assert_eq!((&history["totalMessages"], &history["sessionInfo"]["status"]), (&json!(2), &json!("killed")));
    assert_eq!(history["messages"][1]["stopReason"], "rpc");

    let stopped = result(&gateway, "sessions.abort", json!({ "key": "other" })).await;
    assert_eq!(stopped, json!({ "ok": true, "abortedRunId": "k3", "status": "aborted" }));
    let again = result(&gateway, "sessions.abort", json!({ "runId": "k3" })).await;
    assert_eq!(again, json!({ "ok": true, "abortedRunId": null, "status": "no-active-run" }));
}

#[tokio::test]
async fn a_message_that_cannot_be_sent_is_refused_with_its_reason() {
    let gateway = gateway(Duration::ZERO).await;
    let with = |more: Value| {
        let mut params = json!({ "sessionKey": "main", "message": "hello", "idempotencyKey": "k1" });
        for (name, value) in more.as_object().expect("fields") {
            params[name] = value.clone();
        }
        params
    };
    for (more, code, words) in [
        (json!({ "message": "" }), "INVALID_PARAMS", "message or attachment required"),
        (json!({ "message": " \n" }), "INVALID_PARAMS", "message or attachment required"),
        (json!({ "attachments": [{ "type": "image" }] }), "INVALID_PARAMS", "takes no attachments yet"),
        (json!({ "queueMode": "steer" }), "INVALID_PARAMS", "allowed: followup"),
        (json!({ "sessionId": "other" }), "INVALID_PARAMS", "does not have this id"),
        (json!({ "sessionKey": "agent:nobody:main" }), "NOT_FOUND", "no agent `nobody`"),
        (json!({ "agentId": "nobody" }), "NOT_FOUND", "no agent `nobody`"),
        (json!({ "sessionKey": "agent:main" }), "INVALID_PARAMS", "not a whole session key"),
    ] {
        let (given, message) = refusal(&gateway, "chat.send", with(more.clone())).await;
        assert_eq!(given, code, "{more}: {message}");
        assert!(message.contains(words), "{more}: {message}");
    }
    // None of them has used the key, nor the session.
    let list = result(&gateway, "sessions.list", json!({})).await;
    assert_eq!(list["totalCount"], 0);
    say(&gateway, "main", "k1", "hello").await;
}

#[tokio::test]
async fn a_history_is_read_back_page_by_page() {
    let gateway = gateway(Duration::ZERO).await;
    for number in 1..=3 {
        say(&gateway, "main", &format!("k{number}"), &format!("message {number}")).await;
    }
    end(&gateway, "k3").await;
    let (mut offset, mut numbers) = (json!(0), Vec::new());
    for _ in 0..3 {
        let params = json!({ "sessionKey": "main", "limit": 4, "offset": offset });
        let page = result(&gateway, "chat.history", params).await;
        assert_eq!(page["totalMessages"], 6);
        let messages = page["messages"].as_array().expect("messages");
        numbers.extend(messages.iter().rev().map(|message| message["__openclaw"]["seq"].as_u64()));
        if page["hasMore"] == false {
            assert!(page["nextOffset"].is_null(), "{page}");
            break;
        }
        offset = page["nextOffset"].clone();
    }
    assert_eq!(numbers, [6, 5, 4, 3, 2, 1].map(Some));

    let cut =
        result(&gateway, "chat.history", json!({ "sessionKey": "main", "limit": 2, "maxChars": 3 })).await;
    assert_eq!(cut["messages"][0]["content"][0]["text"], "mes");
    assert_eq!(cut["messages"][1]["content"][0]["text"], "You");
    assert_eq!(cut["messages"][1]["__openclaw"]["truncated"], true);
    let other = result(&gateway, "chat.history", json!({ "sessionKey": "main", "sessionId": "gone" })).await;
    assert_eq!(other["messages"], json!([]));
    let unused = result(&gateway, "chat.history", json!({ "sessionKey": "unused" })).await;
    assert_eq!((&unused["messages"], &unused["sessionId"]), (&json!([]), &Value::Null));
    assert_eq!(unused["sessionInfo"]["key"], "agent:main:unused");
    let newest = result(&gateway, "sessions.get", json!({ "key": "main", "limit": 1 })).await;
    assert_eq!(newest["messages"][0]["content"][0]["text"], "You said: message 3");
}

#[tokio::test]
async fn sessions_are_listed_and_found() {
    let gateway = gateway(Duration::ZERO).await;
    for (session, key) in [("main", "k1"), ("Lamps", "k2")] {
        say(&gateway, session, key, "dim the lamps").await;
        end(&gateway, key).await;
    }
    let params = json!({ "includeDerivedTitles": true, "includeLastMessage": true, "limit": 1 });
    let list = result(&gateway, "sessions.list", params).await;
    assert_eq!((&list["totalCount"], &list["count"], &list["nextOffset"]), (&json!(2), &json!(1), &json!(1)));
    assert_eq!(list["defaults"]["model"], "echo-1");
    let row = &list["sessions"][0];
    assert_eq!((&row["key"], &row["kind"]), (&json!("agent:main:lamps"), &json!("direct")));
    assert_eq!((&row["status"], &row["hasActiveRun"]), (&json!("done"), &json!(false)));
    assert_eq!((&row["lastRunId"], &row["modelProvider"]), (&json!("k2"), &json!("echo")));
    assert_eq!(row["derivedTitle"], "dim the lamps");
    assert_eq!(row["lastMessagePreview"], "You said: dim the lamps");

    let found = json!({ "ok": true, "key": "agent:main:lamps", "agentId": "main", "displayName": "lamps" });
    assert_eq!(result(&gateway, "sessions.resolve", json!({ "key": "LAMPS" })).await, found);
    assert_eq!(result(&gateway, "sessions.resolve", json!({ "sessionId": row["sessionId"] })).await, found);
    let missing = json!({ "key": "nothing", "allowMissing": true });
    assert_eq!(result(&gateway, "sessions.resolve", missing).await, json!({ "ok": false }));
    for (method, params, code) in [
        ("sessions.resolve", json!({ "key": "nothing" }), "NOT_FOUND"),
        ("sessions.resolve", json!({ "key": "main", "sessionId": row["sessionId"] }), "NOT_FOUND"),
        ("sessions.resolve", json!({}), "INVALID_PARAMS"),
        ("sessions.abort", json!({}), "INVALID_PARAMS"),
        ("sessions.list", json!({ "agentId": "nobody" }), "NOT_FOUND"),
        ("sessions.get", json!({ "key": "agent:nobody:main" }), "NOT_FOUND"),
    ] {
        assert_eq!(refusal(&gateway, method, params.clone()).await.0, code, "{method} {params}");
    }
}

#[tokio::test]
async fn the_configuration_is_shown_without_its_secrets() {
    let gateway = gateway(Duration::ZERO).await;
    let path = gateway.directory().join("state").join("openclaw.json");
    let text = format!(
        "{{\n  // {TOKEN}\n  gateway: {{ mode: 'local', auth: {{ token: '{TOKEN}' }} }},\n  \
         models: {{ providers: {{ a: {{ apiKey: 'sk-hush' }} }} }},\n  note: 'call with {TOKEN}',\n}}"
    );
    std::fs::write(&path, text).expect("the file can be written");
    let config = result(&gateway, "config.get", json!({})).await;
    assert_eq!((&config["exists"], &config["valid"]), (&json!(true), &json!(true)));
    assert_eq!(config["path"], path.display().to_string());
    assert_eq!(config["config"]["gateway"]["auth"]["token"], "__OPENCLAW_REDACTED__");
    let shown = config.to_string();
    assert!(!shown.contains(TOKEN) && !shown.contains("hush"), "{shown}");
    assert_eq!(result(&gateway, "last-heartbeat", json!({})).await, Value::Null);
}
