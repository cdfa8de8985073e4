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

#[tokio::test]
async fn a_session_is_made_changed_put_away_and_deleted() {
    let gateway = gateway(Duration::ZERO).await;
    let made = result(&gateway, "sessions.create", json!({ "key": "Lamps", "label": "All lamps" })).await;
    assert_eq!((&made["key"], &made["runStarted"]), (&json!("agent:main:lamps"), &json!(false)));
    assert_eq!(made["resolved"], json!({ "modelProvider": "echo", "model": "echo-1" }));
    let id = made["sessionId"].clone();
    let again = result(&gateway, "sessions.create", json!({ "key": "lamps" })).await;
    assert_eq!((&again["sessionId"], &again["entry"]["label"]), (&id, &json!("All lamps")));

    let patch =
        json!({ "key": "lamps", "category": "home", "pinned": true, "model": "echo-1", "fastMode": "auto" });
    let patched = result(&gateway, "sessions.patch", patch).await;
    let entry = &patched["entry"];
    assert_eq!(
        (&entry["category"], &entry["pinned"], &entry["model"]),
        (&json!("home"), &json!(true), &json!("echo-1"))
    );
    assert_eq!((&entry["fastMode"], &entry["label"]), (&json!("auto"), &json!("All lamps")));
    let cleared = json!({ "key": "lamps", "category": null, "model": null });
    let cleared = result(&gateway, "sessions.patch", cleared).await["entry"].clone();
    assert!(
        cleared["category"].is_null() && cleared["model"].is_null() && cleared["pinned"] == true,
        "{cleared}"
    );

    for (params, words) in [
        (json!({ "key": "other", "label": "All lamps" }), "label already in use: All lamps"),
        (json!({ "key": "lamps", "archived": true }), "asks for `expectedSessionId`"),
        (json!({ "key": "lamps", "archived": true, "expectedSessionId": "x" }), "has changed since"),
        (json!({ "key": "lamps", "model": "huge" }), "no model `huge`"),
        (json!({ "key": "lamps", "permissionMode": "full" }), "unknown field `permissionMode`"),
    ] {
        let (_, message) = refusal(&gateway, "sessions.patch", params.clone()).await;
        assert!(message.contains(words), "{params}: {message}");
    }
    let guarded = json!({ "key": "lamps", "archived": true, "expectedSessionId": "x" });
    let changed = gateway.call("sessions.patch", guarded).await;
    assert_eq!(changed["error"]["data"]["reason"], "session-changed");

    let only_archived = json!({ "key": "lamps", "archivedOnly": true });
    let (_, message) = refusal(&gateway, "sessions.delete", only_archived.clone()).await;
    assert_eq!(message, "session `agent:main:lamps` is not archived");
    let archive = json!({ "key": "lamps", "archived": true, "expectedSessionId": id });
    result(&gateway, "sessions.patch", archive).await;
    for (params, total) in [
        (json!({}), 0),
        (json!({ "archived": false }), 0),
        (json!({ "archived": true }), 1),
        (json!({ "archived": "all" }), 1),
        (json!({ "archived": "all", "label": "All lamps" }), 1),
        (json!({ "archived": "all", "label": "No lamps" }), 0),
    ] {
        let list = result(&gateway, "sessions.list", params.clone()).await;
        assert_eq!(list["totalCount"], total, "{params}");
    }
    let deleted = json!({ "ok": true, "key": "agent:main:lamps", "deleted": true, "archived": [] });
    assert_eq!(result(&gateway, "sessions.delete", only_archived).await, deleted);
    let again = result(&gateway, "sessions.delete", json!({ "key": "lamps" })).await;
    assert_eq!(again["deleted"], false);
    let (_, message) = refusal(&gateway, "sessions.delete", json!({ "key": "main" })).await;
    assert_eq!(message, "Cannot delete the main session (agent:main:main).");
}

#[tokio::test]
async fn a_session_begins_anew_and_readers_find_out() {
    let gateway = gateway(Duration::ZERO).await;
    say(&gateway, "main", "k1", "one").await;
    end(&gateway, "k1").await;
    let first = result(&gateway, "chat.history", json!({ "sessionKey": "main" })).await;
    say(&gateway, "main", "k2", "two").await;
    end(&gateway, "k2").await;
    let cursor = |page: &Value| json!({ "sessionKey": "main", "cursor": page["deltaCursor"] });
    let delta = result(&gateway, "chat.history", cursor(&first)).await;
    let texts = |page: &Value| -> Vec<String> {
        let messages = page["messages"].as_array().expect("messages");
        messages
            .iter()
            .map(|message| message["content"][0]["text"].as_str().unwrap_or("-").to_owned())
            .collect()
    };
    assert_eq!(
        (&delta["kind"], texts(&delta)),
        (&json!("delta"), vec!["two".to_owned(), "You said: two".to_owned()])
    );
    let nothing = result(&gateway, "chat.history", cursor(&delta)).await;
    assert_eq!((texts(&nothing).len(), &nothing["hasMore"]), (0, &json!(false)));
    let mut one = cursor(&first);
    one["limit"] = json!(1);
    let one = result(&gateway, "chat.history", one).await;
    assert_eq!((texts(&one), &one["hasMore"]), (vec!["two".to_owned()], &json!(true)));

    let reset = result(&gateway, "sessions.reset", json!({ "key": "main", "reason": "new" })).await;
    assert_eq!(reset["entry"]["sessionId"], first["sessionId"], "the id stays");
    let anew = result(&gateway, "chat.history", cursor(&delta)).await;
    assert_eq!((&anew["kind"], &anew["totalMessages"]), (&json!("reset"), &json!(0)));
    // The outcomes of its runs are kept all the same.
    assert_eq!(end(&gateway, "k1").await["status"], "ok");
    say(&gateway, "main", "k3", "three").await;
    end(&gateway, "k3").await;
    let history = result(&gateway, "chat.history", json!({ "sessionKey": "main" })).await;
    assert_eq!(history["messages"][0]["__openclaw"]["seq"], 1);

    let leaf = history["messages"][1]["__openclaw"]["id"].clone();
    let send = |key: &str, leaf: &Value| json!({ "sessionKey": "main", "message": "x", "idempotencyKey": key, "expectedLeafEntryId": leaf, "timeoutMs": 0 });
    assert_eq!(refusal(&gateway, "chat.send", send("k4", &json!(null))).await.0, "INVALID_PARAMS");
    result(&gateway, "chat.send", send("k4", &leaf)).await;
    end(&gateway, "k4").await;
    assert_eq!(refusal(&gateway, "chat.send", send("k5", &leaf)).await.0, "INVALID_PARAMS");
    let delivered = json!({ "sessionKey": "main", "message": "x", "idempotencyKey": "k6", "deliver": true });
    assert_eq!(refusal(&gateway, "chat.send", delivered).await.0, "INVALID_PARAMS");
}

#[tokio::test]
async fn what_is_said_elsewhere_is_injected_previewed_and_summed_up() {
    let gateway = gateway(Duration::ZERO).await;
    for number in 1..=4 {
        say(&gateway, "main", &format!("k{number}"), &format!("message {number}")).await;
        end(&gateway, &format!("k{number}")).await;
    }
    let inject = json!({ "sessionKey": "main", "message": "It is dark.", "label": "lamps" });
    let injected = result(&gateway, "chat.inject", inject).await;
    let preview = json!({ "keys": ["main", "nothing"], "limit": 2, "maxChars": 20 });
    let previews = result(&gateway, "sessions.preview", preview).await["previews"].clone();
    assert_eq!(
        previews,
        json!([
            { "key": "main", "status": "ok", "items": [
                { "role": "assistant", "text": "You said: message 4" },
                { "role": "assistant", "text": "[lamps] It is dark." },
            ] },
            { "key": "nothing", "status": "missing", "items": [] },
        ])
    );
    let described =
        result(&gateway, "sessions.describe", json!({ "key": "main", "includeLastMessage": true })).await;
    assert_eq!(described["session"]["lastMessagePreview"], "[lamps] It is dark.");
    let history = result(&gateway, "chat.history", json!({ "sessionKey": "main", "limit": 1 })).await;
    assert_eq!(history["messages"][0]["__openclaw"]["id"], injected["messageId"]);

    let compacted = result(&gateway, "sessions.compact", json!({ "key": "main" })).await;
    assert_eq!(compacted["compacted"], true, "{compacted}");
    assert!(
        compacted["result"]["summary"].as_str().is_some_and(|text| text.contains("Sum up")),
        "{compacted}"
    );
    let unused = result(&gateway, "sessions.compact", json!({ "key": "unused" })).await;
    assert_eq!((&unused["compacted"], &unused["reason"]), (&json!(false), &json!("no such session")));
    let history = result(&gateway, "chat.history", json!({ "sessionKey": "main" })).await;
    assert_eq!(history["totalMessages"], 9, "the messages stay");
}

#[tokio::test]
async fn those_who_ask_are_told_of_sessions_and_their_messages() {
    let gateway = gateway(Duration::ZERO).await;
    let mut socket = gateway.websocket().await;
    for (id, method, params) in [
        (1, "events.subscribe", json!({})),
        (2, "sessions.subscribe", json!({})),
        (3, "sessions.messages.subscribe", json!({ "key": "main" })),
    ] {
        let answer = socket
            .ask(json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }).to_string())
            .await;
        assert!(answer["error"].is_null(), "{answer}");
    }
    for session in ["other", "main"] {
        say(&gateway, session, session, "hello").await;
        end(&gateway, session).await;
    }
    let (mut changes, mut messages) = (Vec::new(), Vec::new());
    while changes.last() != Some(&"main end".to_owned()) {
        let item = socket.next_json().await["params"]["result"].clone();
        let payload = &item["payload"];
        match item["event"].as_str() {
            Some("sessions.changed") => {
                let name = payload["session"]["displayName"].as_str().unwrap_or("-");
                changes.push(format!("{name} {}", payload["phase"].as_str().unwrap_or("-")));
            }
            Some("session.message") => {
                messages
                    .push(format!("{} {}", payload["messageSeq"], payload["message"]["content"][0]["text"]));
            }
            _ => {}
        }
    }
    assert_eq!(changes, ["other start", "other end", "main start", "main end"]);
    assert_eq!(messages, [r#"1 "hello""#, r#"2 "You said: hello""#]);
    let rights = [("openclaw-scopes", "operator.write")];
    let bearer = format!("Bearer {TOKEN}");
    let headers: Vec<(&str, &str)> = rights.into_iter().chain([("authorization", bearer.as_str())]).collect();
    for (method, params, allowed) in [
        ("sessions.patch", json!({ "key": "main", "label": "x" }), true),
        ("sessions.patch", json!({ "key": "main", "verboseLevel": "on" }), false),
        ("sessions.delete", json!({ "key": "other" }), false),
        ("sessions.reset", json!({ "key": "other" }), false),
        ("chat.inject", json!({ "sessionKey": "other", "message": "x" }), false),
    ] {
        let request = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let (_, body) = gateway.post_with(request.to_string(), &headers).await;
        assert_eq!(!body.contains("missing scope: operator.admin"), allowed, "{method} {params}: {body}");
    }
}
