//! JSON-RPC 2.0 envelopes: one table, run over WebSocket and over HTTP, and a property for what no table lists.
//!
//! Over WebSocket each probe is followed by a `health` call on the same socket: its answer shows that the socket is
//! alive, and everything that came before it is the answer to the probe.

use std::{cell::RefCell, collections::BTreeSet};

use openclaw_tests::harness::{HttpAnswer, Socket, TOKEN, TestGateway};
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use tokio_tungstenite::tungstenite::Message;

const PARSE: Outcome = Outcome::Error(-32700);
const REQUEST: Outcome = Outcome::Error(-32600);
const METHOD: Outcome = Outcome::Error(-32601);
const PARAMS: Outcome = Outcome::Error(-32602);
const LIMIT: Outcome = Outcome::Error(-32025);

/// What an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Result,
    Error(i32),
}
use Outcome::Result as Success;

/// What comes back for a probe. Ids are JSON texts, compared as they are written.
#[derive(Debug, Clone)]
enum Expected {
    Silence,
    One(String, Outcome),
    /// In any order.
    Batch(Vec<(String, Outcome)>),
}

struct Probe {
    name: &'static str,
    text: String,
    expected: Expected,
}

fn one(name: &'static str, text: impl Into<String>, id: impl Into<String>, outcome: Outcome) -> Probe {
    Probe { name, text: text.into(), expected: Expected::One(id.into(), outcome) }
}

fn silent(name: &'static str, text: &str) -> Probe {
    Probe { name, text: text.to_owned(), expected: Expected::Silence }
}

fn batch(name: &'static str, text: impl Into<String>, answers: &[(&str, Outcome)]) -> Probe {
    let answers = answers.iter().map(|(id, outcome)| ((*id).to_owned(), *outcome)).collect();
    Probe { name, text: text.into(), expected: Expected::Batch(answers) }
}

/// A request with this id, as written.
fn with_id(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"health"}}"#)
}

/// A request with these params, as written.
fn with_params(params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"health","params":{params}}}"#)
}

fn nested(depth: usize) -> String {
    format!("{}{}", "[".repeat(depth), "]".repeat(depth))
}

/// The probes of users.md section 4.2 by the names they have there.
fn survey() -> Vec<Probe> {
    vec![
        one("bad JSON", r#"{"jsonrpc":"2.0","id":1,"method":"#, "null", PARSE),
        one("{}", "{}", "null", REQUEST),
        one("[]", "[]", "null", REQUEST),
        batch("[1]", "[1]", &[("null", REQUEST)]),
        silent(
            "all-notification batch",
            r#"[{"jsonrpc":"2.0","method":"health"},{"jsonrpc":"2.0","method":"no.such"}]"#,
        ),
        batch(
            "mixed batch",
            r#"[{"jsonrpc":"2.0","id":1,"method":"health"},{"jsonrpc":"2.0","method":"health"},{"jsonrpc":"2.0","id":"2","method":"no.such"}]"#,
            &[("1", Success), (r#""2""#, METHOD)],
        ),
        one("unknown method", r#"{"jsonrpc":"2.0","id":1,"method":"no.such"}"#, "1", METHOD),
        one("no jsonrpc", r#"{"id":1,"method":"health"}"#, "1", REQUEST),
        one("\"1.0\"", r#"{"jsonrpc":"1.0","id":1,"method":"health"}"#, "1", REQUEST),
        one("method is number", r#"{"jsonrpc":"2.0","id":1,"method":1}"#, "1", REQUEST),
        one("id:null", with_id("null"), "null", Success),
        one("id 1.5", with_id("1.5"), "1.5", Success),
        one("id true", with_id("true"), "null", REQUEST),
        one("id -5", with_id("-5"), "-5", Success),
        one("id > 2^64", with_id("18446744073709551616"), "18446744073709551616", Success),
        one("duplicate id key", r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"health"}"#, "null", REQUEST),
        one("params:\"x\"", with_params(r#""x""#), "1", PARAMS),
        silent("notification", r#"{"jsonrpc":"2.0","method":"health"}"#),
        one(
            "extra member",
            r#"{"jsonrpc":"2.0","id":1,"method":"health","trace":[1,{"a":null}]}"#,
            "1",
            Success,
        ),
    ]
}

fn ids() -> Vec<Probe> {
    let mut probes = Vec::new();
    let long = format!(r#""{}""#, "x".repeat(100_000));
    let digits = "9".repeat(1000);
    for id in [
        "0",
        "9007199254740993",
        "18446744073709551615",
        "-9223372036854775809",
        "1e400",
        "-0",
        "0.1",
        "1E5",
        r#""""#,
        r#""1""#,
        r#""a b""#,
        r#""a\"b\\c\/d\n""#,
        r#""\u0041""#,
        r#""\ud83d\ude00""#,
        r#""\ud800""#,
        r#""ä€😀""#,
        long.as_str(),
        digits.as_str(),
    ] {
        probes.push(one("an id is echoed as written", with_id(id), id, Success));
    }
    for id in ["false", "{}", "[]", "[1]", r#"{"id":1}"#] {
        probes.push(one("an id is a text, a number or null", with_id(id), "null", REQUEST));
    }
    for id in ["01", "+1", ".5", "1.", "0x10", "NaN", "Infinity", "-Infinity", "undefined", "'1'"] {
        probes.push(one("an id is JSON", with_id(id), "null", PARSE));
    }
    probes.push(one("a deep id", with_id(&nested(100_000)), "null", REQUEST));
    probes.push(one(
        "a deep object as id",
        with_id(&format!("{}1{}", r#"{"a":"#.repeat(100_000), "}".repeat(100_000))),
        "null",
        REQUEST,
    ));
    probes
}

fn members() -> Vec<Probe> {
    let long = "m".repeat(100_000);
    let many: String = (0..10_000).map(|number| format!(r#","m{number}":{number}"#)).collect();
    let mut probes = vec![
        one("jsonrpc twice", r#"{"jsonrpc":"2.0","jsonrpc":"2.0","id":1,"method":"health"}"#, "1", REQUEST),
        one("method twice", r#"{"jsonrpc":"2.0","id":1,"method":"health","method":"status"}"#, "1", REQUEST),
        one(
            "params twice",
            r#"{"jsonrpc":"2.0","id":1,"method":"health","params":{},"params":{}}"#,
            "1",
            REQUEST,
        ),
        one("the same id twice", r#"{"jsonrpc":"2.0","id":1,"method":"health","id":1}"#, "null", REQUEST),
        one(
            "id twice, once escaped",
            r#"{"jsonrpc":"2.0","id":1,"\u0069d":2,"method":"health"}"#,
            "null",
            REQUEST,
        ),
        one(
            "a member twice that is none of ours",
            r#"{"jsonrpc":"2.0","id":1,"x":1,"x":2,"method":"health"}"#,
            "1",
            Success,
        ),
        one("jsonrpc is a number", r#"{"jsonrpc":2.0,"id":1,"method":"health"}"#, "1", REQUEST),
        one("jsonrpc is null", r#"{"jsonrpc":null,"id":1,"method":"health"}"#, "1", REQUEST),
        one("no method", r#"{"jsonrpc":"2.0","id":1}"#, "1", REQUEST),
        one("method is null", r#"{"jsonrpc":"2.0","id":1,"method":null}"#, "1", REQUEST),
        one("an empty method", r#"{"jsonrpc":"2.0","id":1,"method":""}"#, "1", METHOD),
        one("a method in other case", r#"{"jsonrpc":"2.0","id":1,"method":"Health"}"#, "1", METHOD),
        one("a method with blanks", r#"{"jsonrpc":"2.0","id":1,"method":" health"}"#, "1", METHOD),
        one("a method with escapes", r#"{"jsonrpc":"2.0","id":1,"method":"he\u0061lth"}"#, "1", Success),
        one("a lone surrogate as method", r#"{"jsonrpc":"2.0","id":1,"method":"\ud800"}"#, "1", REQUEST),
        one("a lone surrogate in params", with_params(r#"{"probe":"\udc00"}"#), "1", PARAMS),
        one("a lone surrogate as field", with_params(r#"{"\ud800":true}"#), "1", PARAMS),
        one(
            "a lone surrogate elsewhere",
            r#"{"jsonrpc":"2.0","id":1,"method":"health","x":"\ud800"}"#,
            "1",
            Success,
        ),
        one(
            "a lone surrogate as member",
            r#"{"\ud800":1,"jsonrpc":"2.0","id":1,"method":"health"}"#,
            "null",
            REQUEST,
        ),
        one("a very long method", format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{long}"}}"#), "1", METHOD),
        one(
            "members in another order",
            r#"{"params":{},"method":"health","id":1,"jsonrpc":"2.0"}"#,
            "1",
            Success,
        ),
        one(
            "blanks everywhere",
            " \t\r\n{ \"jsonrpc\" :\n\"2.0\" , \"id\" : 1 , \"method\" : \"health\" } \r\n",
            "1",
            Success,
        ),
        one("escaped member names", r#"{"\u006asonrpc":"2.0","i\u0064":1,"method":"health"}"#, "1", Success),
        one(
            "ten thousand members more",
            format!(r#"{{"jsonrpc":"2.0","id":1,"method":"health"{many}}}"#),
            "1",
            Success,
        ),
        one("a response", r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, "1", REQUEST),
        silent(
            "a notification with params",
            r#"{"jsonrpc":"2.0","method":"health","params":{"probe":false}}"#,
        ),
        silent("a notification of an unknown method", r#"{"jsonrpc":"2.0","method":"no.such"}"#),
        silent(
            "a notification with invalid params",
            r#"{"jsonrpc":"2.0","method":"health","params":{"prob":1}}"#,
        ),
        silent(
            "a notification with params that are none",
            r#"{"jsonrpc":"2.0","method":"health","params":7}"#,
        ),
        silent("a notification of a subscription", r#"{"jsonrpc":"2.0","method":"events.subscribe"}"#),
        one(
            "a broken notification cannot be told from a request",
            r#"{"jsonrpc":"1.0","method":"health"}"#,
            "null",
            REQUEST,
        ),
    ];
    for params in ["null", "7", "true", "[]", "[{}]", "[null]"] {
        probes.push(one("params are an object", with_params(params), "1", PARAMS));
    }
    probes.push(one("params may be absent", with_id("1"), "1", Success));
    probes.push(one("params may be empty", with_params(" { } "), "1", Success));
    for number in ["NaN", "Infinity", "-Infinity", "01", "1.", "0x1"] {
        probes.push(one(
            "numbers are JSON's",
            with_params(&format!(r#"{{"probe":{number}}}"#)),
            "null",
            PARSE,
        ));
    }
    probes.push(one("a huge number", with_params(r#"{"probe":1e999}"#), "1", PARAMS));
    probes.push(one("deep params", with_params(&nested(100_000)), "1", PARAMS));
    probes.push(one(
        "a deep field",
        with_params(&format!(r#"{{"probe":{}}}"#, nested(100_000))),
        "1",
        PARAMS,
    ));
    probes.push(one(
        "a deep field that does not exist",
        with_params(&format!(r#"{{"x":{}}}"#, nested(100_000))),
        "1",
        PARAMS,
    ));
    probes.push(one(
        "a deep member that is none of ours",
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"health","x":{}}}"#, nested(100_000)),
        "1",
        Success,
    ));
    probes
}

fn texts() -> Vec<Probe> {
    let mut probes = vec![
        one("nothing", "", "null", PARSE),
        one("blanks", " \r\n\t ", "null", PARSE),
        one("a byte order mark", format!("\u{feff}{}", with_id("1")), "null", PARSE),
        one("a NUL", "\0", "null", PARSE),
        one("a NUL behind a request", format!("{}\0", with_id("1")), "null", PARSE),
        one("something behind a request", format!("{} x", with_id("1")), "null", PARSE),
        one("a comma behind a request", format!("{},", with_id("1")), "null", PARSE),
        one("two requests", format!("{}{}", with_id("1"), with_id("2")), "null", PARSE),
        one("two requests on two lines", format!("{}\n{}", with_id("1"), with_id("2")), "null", PARSE),
        one("a comment", format!("// {}", with_id("1")), "null", PARSE),
        one("single quotes", "{'jsonrpc':'2.0','id':1,'method':'health'}", "null", PARSE),
        one("a comma too many", r#"{"jsonrpc":"2.0","id":1,"method":"health",}"#, "null", PARSE),
        one(
            "a control character in a text",
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\nb\"}",
            "null",
            PARSE,
        ),
        one("a text cut off", r#"{"jsonrpc":"2.0","id":1,"method":"heal"#, "null", PARSE),
        one("an unclosed depth bomb", "[".repeat(100_000), "null", PARSE),
        one("an unclosed depth bomb of objects", r#"{"a":"#.repeat(100_000), "null", PARSE),
        batch("a depth bomb", nested(100_000), &[("null", REQUEST)]),
    ];
    for text in ["null", "true", "1", "-1.5e3", r#""health""#] {
        probes.push(one("a value that is no object", text, "null", REQUEST));
    }
    for text in ["NaN", "Infinity", "-Infinity", "nul", "undefined", "]", "}"] {
        probes.push(one("no JSON at all", text, "null", PARSE));
    }
    probes
}

fn batches() -> Vec<Probe> {
    let requests = |count: usize| {
        let requests: Vec<String> = (0..count).map(|id| with_id(&id.to_string())).collect();
        format!("[{}]", requests.join(","))
    };
    let numbers: Vec<String> = (0..100).map(|id: i32| id.to_string()).collect();
    let hundred: Vec<(&str, Outcome)> = numbers.iter().map(|id| (id.as_str(), Success)).collect();
    vec![
        batch("one request", requests(1), &[("0", Success)]),
        batch("as many requests as are allowed", requests(100), &hundred),
        one("one request too many", requests(101), "null", LIMIT),
        one("a hundred thousand entries", format!("[{}1]", "1,".repeat(99_999)), "null", LIMIT),
        one("a million entries", format!("[{}1]", "1,".repeat(999_999)), "null", LIMIT),
        one("a million empty objects", format!("[{}{{}}]", "{},".repeat(999_999)), "null", LIMIT),
        batch("three that are none", "[1,2,3]", &[("null", REQUEST), ("null", REQUEST), ("null", REQUEST)]),
        batch("a batch within a batch", format!("[[{}]]", with_id("1")), &[("null", REQUEST)]),
        batch("null", "[null]", &[("null", REQUEST)]),
        one("an unclosed batch", format!("[{}", with_id("1")), "null", PARSE),
        one("a batch with a comma too many", format!("[{},]", with_id("1")), "null", PARSE),
        one("something behind a batch", format!("[{}] x", with_id("1")), "null", PARSE),
        one("a batch with one entry that is no JSON", format!("[{},{{]", with_id("1")), "null", PARSE),
        batch(
            "the same id twice",
            format!("[{},{}]", with_id("1"), with_id("1")),
            &[("1", Success), ("1", Success)],
        ),
        batch(
            "every kind of entry",
            format!(
                r#"[{},{{"jsonrpc":"2.0","method":"health"}},{{"jsonrpc":"2.0","id":"s","method":"no.such"}},{{"id":2,"method":"health"}},{{"jsonrpc":"2.0","id":3,"method":"health","params":[]}},{{"jsonrpc":"2.0","id":4,"id":5,"method":"health"}},7,{}]"#,
                with_id("-1"),
                with_id("1.5")
            ),
            &[
                ("-1", Success),
                (r#""s""#, METHOD),
                ("2", REQUEST),
                ("3", PARAMS),
                ("null", REQUEST),
                ("null", REQUEST),
                ("1.5", Success),
            ],
        ),
        batch(
            "a batch of calls that wait",
            r#"[{"jsonrpc":"2.0","id":1,"method":"logs.tail"},{"jsonrpc":"2.0","id":2,"method":"health"},{"jsonrpc":"2.0","id":3,"method":"logs.tail","params":{"limit":0}}]"#,
            &[("1", Success), ("2", Success), ("3", PARAMS)],
        ),
        batch(
            "a subscription has no place in a batch",
            r#"[{"jsonrpc":"2.0","id":1,"method":"events.subscribe"}]"#,
            &[("1", REQUEST)],
        ),
    ]
}

fn table() -> Vec<Probe> {
    [survey(), ids(), members(), texts(), batches()].into_iter().flatten().collect()
}

/// A response as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Response<'a> {
    jsonrpc: &'a str,
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    error: Option<ErrorObject>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ErrorObject {
    code: i32,
    message: String,
    data: Value,
}

/// Reads one response, strictly.
fn response(text: &str) -> Result<(String, Outcome), String> {
    let response: Response<'_> = serde_json::from_str(text).map_err(|error| format!("{error}: {text}"))?;
    let outcome = match (response.result, response.error) {
        (Some(_), None) => Outcome::Result,
        (None, Some(error)) => {
            if error.message.is_empty() || error.message.len() > 1000 {
                return Err(format!("a message of {} bytes", error.message.len()));
            }
            let code = error.data["code"].as_str().and_then(openclaw_schema::ErrorCode::from_name);
            if code.map(openclaw_schema::ErrorCode::number) != Some(error.code) {
                return Err(format!("data.code does not belong to the number: {text}"));
            }
            Outcome::Error(error.code)
        }
        _ => return Err(format!("neither a result nor an error, or both: {text}")),
    };
    if response.jsonrpc != "2.0" {
        return Err(format!("not JSON-RPC 2.0: {text}"));
    }
    Ok((response.id.get().to_owned(), outcome))
}

/// Reads what came back for a probe.
fn read(messages: &[String]) -> Result<Expected, String> {
    match messages {
        [] => Ok(Expected::Silence),
        [text] if text.starts_with('[') => {
            let entries: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| error.to_string())?;
            if entries.is_empty() {
                return Err("an empty batch".to_owned());
            }
            entries.iter().map(|entry| response(entry.get())).collect::<Result<_, _>>().map(Expected::Batch)
        }
        [text] => response(text).map(|(id, outcome)| Expected::One(id, outcome)),
        more => Err(format!("{} messages: {more:?}", more.len())),
    }
}

fn check(probe: &Probe, transport: &str, messages: &[String]) -> Option<String> {
    let came = match read(messages) {
        Ok(came) => came,
        Err(problem) => return Some(format!("{transport}, {}: {problem}", probe.name)),
    };
    let fits = match (&probe.expected, &came) {
        (Expected::Silence, Expected::Silence) => true,
        (Expected::One(id, outcome), Expected::One(came_id, came)) => (id, outcome) == (came_id, came),
        (Expected::Batch(answers), Expected::Batch(came)) => {
            let (mut answers, mut came) = (answers.clone(), came.clone());
            answers.sort();
            came.sort();
            answers == came
        }
        _ => false,
    };
    let sent: String = probe.text.chars().take(200).collect();
    (!fits).then(|| {
        format!("{transport}, {}: {sent}\n  expected {:?}\n  came     {came:?}", probe.name, probe.expected)
    })
}

/// Sends a message, then asks for a sign of life; gives what came before it.
async fn provoke(socket: &mut Socket, message: Message, count: usize) -> Vec<String> {
    socket.send_message(message).await.expect("the connection is open");
    let alive = format!(r#""alive-{count}""#);
    socket.send(with_id(&alive)).await;
    let mut messages = Vec::new();
    loop {
        let text = socket.next().await.expect("the connection is open");
        if text.starts_with(&format!(r#"{{"jsonrpc":"2.0","id":{alive},"result""#)) {
            return messages;
        }
        messages.push(text);
    }
}

/// The messages of an HTTP answer.
fn posted(answer: &HttpAnswer) -> Result<Vec<String>, String> {
    match answer.status {
        204 if answer.body.is_empty() => Ok(Vec::new()),
        200 if answer.header("content-type") == "application/json" && !answer.body.is_empty() => {
            Ok(vec![answer.text()])
        }
        status => Err(format!("HTTP {status}, {}: {}", answer.header("content-type"), answer.text())),
    }
}

#[tokio::test]
async fn every_probe_has_its_one_answer_over_websocket() {
    let gateway = TestGateway::start().await;
    let mut socket = gateway.websocket().await;
    let mut findings = Vec::new();
    for (count, probe) in table().iter().enumerate() {
        let mut messages = provoke(&mut socket, Message::text(probe.text.clone()), count).await;
        // Calls that wait may be answered after the sign of life.
        if messages.is_empty() && !matches!(probe.expected, Expected::Silence) {
            messages.push(socket.next().await.expect("the connection is open"));
        }
        findings.extend(check(probe, "WebSocket", &messages));
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[tokio::test]
async fn every_probe_has_its_one_answer_in_a_binary_message() {
    let gateway = TestGateway::start().await;
    let mut socket = gateway.websocket().await;
    let mut findings = Vec::new();
    for (count, probe) in survey().iter().enumerate() {
        let messages = provoke(&mut socket, Message::binary(probe.text.clone().into_bytes()), count).await;
        findings.extend(check(probe, "binary", &messages));
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[tokio::test]
async fn every_probe_has_its_one_answer_over_http() {
    let gateway = TestGateway::start().await;
    let bearer = format!("Bearer {TOKEN}");
    let mut findings = Vec::new();
    for probe in table() {
        let answer = gateway
            .http("POST", "/rpc", &[("authorization", &bearer)], probe.text.clone().into_bytes())
            .await;
        match posted(&answer) {
            Ok(messages) => findings.extend(check(&probe, "HTTP", &messages)),
            Err(problem) => findings.push(format!("HTTP, {}: {problem}", probe.name)),
        }
    }
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

#[tokio::test]
async fn what_is_no_utf8_is_answered_over_http_and_ends_a_websocket() {
    let gateway = TestGateway::start().await;
    let bearer = format!("Bearer {TOKEN}");
    let body = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"\xff\"}";
    let answer = gateway.http("POST", "/rpc", &[("authorization", &bearer)], body.to_vec()).await;
    let messages = posted(&answer).expect("an answer");
    assert_eq!(response(&messages[0]), Ok(("null".to_owned(), PARSE)));
    let mut socket = gateway.websocket().await;
    socket.send_message(Message::binary(body.to_vec())).await.expect("the connection is open");
    let frame = socket.closed().await.expect("a close frame comes");
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1007, "the message is not UTF-8"));
}

/// Values as people and fuzzers write them, not all of them JSON.
fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| format!("{number:e}")),
        "[0-9]{18,40}",
        "\"[ -~]{0,12}\"",
        r#""(\\u[0-9a-f]{4}|[a-z]|\\[nrt"\\/]){0,6}""#,
        r#""\PC{0,8}""#,
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            vec(("[a-z]{1,5}", inner), 0..4).prop_map(|members| {
                let members: Vec<String> =
                    members.into_iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
                format!("{{{}}}", members.join(","))
            }),
        ]
    })
}

/// Objects that look like requests, more or less.
fn request_like() -> impl Strategy<Value = String> {
    let member = prop_oneof![
        4 => Just(r#""jsonrpc":"2.0""#.to_owned()),
        1 => value().prop_map(|value| format!(r#""jsonrpc":{value}"#)),
        // Methods that are answered at once, so that the order of the answers is that of the requests.
        4 => prop_oneof![Just("health"), Just("status"), Just("agents.list"), Just("models.list"), Just("nothing")]
            .prop_map(|method| format!(r#""method":"{method}""#)),
        1 => value().prop_map(|value| format!(r#""method":{value}"#)),
        4 => value().prop_map(|value| format!(r#""id":{value}"#)),
        3 => value().prop_map(|value| format!(r#""params":{value}"#)),
        1 => Just(r#""params":{}"#.to_owned()),
        1 => ("[a-z]{1,6}", value()).prop_map(|(name, value)| format!("\"{name}\":{value}")),
    ];
    let any = vec(member, 0..6).prop_map(|members| format!("{{{}}}", members.join(",")));
    let good = (value(), value()).prop_map(|(id, params)| {
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"health","params":{params}}}"#)
    });
    prop_oneof![any, good]
}

fn message() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => request_like(),
        2 => vec(request_like(), 0..5).prop_map(|entries| format!("[{}]", entries.join(","))),
        1 => value(),
        // Cut somewhere, or with something behind it.
        1 => (request_like(), any::<prop::sample::Index>()).prop_map(|(text, at)| {
            text.chars().take(at.index(text.chars().count() + 1)).collect()
        }),
        1 => (request_like(), "\\PC{1,4}").prop_map(|(text, rest)| text + &rest),
    ]
}

/// How many `id` members an object has; nothing when the text is no object. Two is as many as it counts.
fn id_members(text: &str) -> Option<usize> {
    struct Ids(usize);
    impl<'de> Deserialize<'de> for Ids {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Members;
            impl<'de> serde::de::Visitor<'de> for Members {
                type Value = Ids;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<M: serde::de::MapAccess<'de>>(self, mut members: M) -> Result<Ids, M::Error> {
                    let mut count = 0;
                    while let Some(name) = members.next_key::<String>()? {
                        count += usize::from(name == "id");
                        members.next_value::<serde::de::IgnoredAny>()?;
                    }
                    Ok(Ids(count))
                }
            }
            deserializer.deserialize_map(Members)
        }
    }
    serde_json::from_str::<Ids>(text).ok().map(|ids| ids.0)
}

#[test]
fn whatever_is_sent_has_at_most_one_answer_and_an_id_exactly_one() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let gateway = runtime.block_on(TestGateway::start());
    let socket = RefCell::new(runtime.block_on(gateway.websocket()));
    let count = RefCell::new(0);
    let config = Config { cases: 2000, failure_persistence: None, ..Config::default() };
    let checked = TestRunner::new(config).run(&message(), |text| {
        *count.borrow_mut() += 1;
        let mut socket = socket.borrow_mut();
        let messages = runtime.block_on(provoke(&mut socket, Message::text(text.clone()), *count.borrow()));
        let came = read(&messages).map_err(TestCaseError::fail)?;
        match id_members(&text) {
            Some(0) => {
                let answered_without_id =
                    matches!(&came, Expected::One(id, Outcome::Error(-32600)) if id == "null");
                prop_assert!(matches!(came, Expected::Silence) || answered_without_id, "{came:?}");
            }
            Some(_) => prop_assert!(matches!(came, Expected::One(..)), "{came:?}"),
            None => match came {
                Expected::Batch(answers) => {
                    let entries: Vec<&RawValue> = serde_json::from_str(&text).expect("a batch was answered");
                    let with_id = entries
                        .iter()
                        .filter(|entry| id_members(entry.get()).is_none_or(|ids| ids > 0))
                        .count();
                    prop_assert!((with_id..=entries.len()).contains(&answers.len()), "{answers:?}");
                }
                Expected::One(id, outcome) => {
                    prop_assert!(id == "null" && matches!(outcome, PARSE | REQUEST), "{id} {outcome:?}");
                }
                Expected::Silence => prop_assert!(text.trim_start().starts_with('['), "silence"),
            },
        }
        Ok(())
    });
    if let Err(problem) = checked {
        panic!("{problem}");
    }
}

#[test]
fn the_table_has_no_probe_twice() {
    let table = table();
    let mut seen = BTreeSet::new();
    let twice: Vec<&str> =
        table.iter().filter(|probe| !seen.insert(probe.text.as_str())).map(|probe| probe.name).collect();
    assert_eq!((twice, survey().len()), (Vec::new(), 19));
}

#[tokio::test]
async fn a_fault_is_named_for_what_it_is() {
    let gateway = TestGateway::start().await;
    for (text, message) in [
        ("{}", "`jsonrpc` must be \"2.0\""),
        ("[]", "a batch must hold at least one request"),
        ("7", "a request must be an object"),
        (r#"{"jsonrpc":"2.0","id":1}"#, "`method` is missing"),
        (r#"{"jsonrpc":"2.0","id":1,"method":2}"#, "`method` must be a string"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"\ud800"}"#, "`method` must be Unicode text"),
        (
            r#"{"\ud800":1,"jsonrpc":"2.0","id":1,"method":"health"}"#,
            "the name of a member must be Unicode text",
        ),
        (r#"{"jsonrpc":"2.0","id":1,"id":1,"method":"health"}"#, "member `id` stands there twice"),
        (r#"{"jsonrpc":"2.0","id":[],"method":"health"}"#, "`id` must be a string, a number or null"),
    ] {
        let (_, body) = gateway.post(text).await;
        let answer: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(answer["error"]["message"], message, "{text}");
    }
}
