//! What must hold of the gateway's decoders of the frame protocol for every text whatsoever: the body of the fuzz
//! targets in `fuzz/` and of the property tests in `it/decoding.rs`.
//!
//! Each decoder is compared with a slow reading of the same text by serde_json, which keeps all members in their order
//! and knows the rules of wire.md sections 2, 3 and 12 in another form. Depends on nothing else of this crate, so that
//! the fuzz targets include this file alone.

use openclaw_gateway::decoders::{self, Connect, Frame};
use openclaw_schema::methods::connect::{CLIENT_IDS, CLIENT_MODES, ConnectMethod};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

/// The members of a request frame (wire.md section 2).
const FRAME_MEMBERS: [&str; 6] = ["type", "id", "method", "params", "traceparent", "expectedProfileId"];
/// The longest reason of a close frame, in bytes (RFC 6455 section 5.5).
const MAX_REASON_BYTES: usize = 123;

/// The members of an object, in their order, repeated ones included.
struct Members(Vec<(String, Value)>);

impl Members {
    /// The last one of that name, as JavaScript would have it.
    fn last(&self, name: &str) -> Option<&Value> {
        self.0.iter().rfind(|(given, _)| given == name).map(|(_, value)| value)
    }

    fn are_distinct(&self) -> bool {
        self.0
            .iter()
            .enumerate()
            .all(|(index, (name, _))| self.0[..index].iter().all(|(given, _)| given != name))
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// Reads `text` as a message after the handshake.
///
/// # Panics
///
/// When the decoder disagrees with the slow reading.
pub fn frame(text: &str) {
    let decoded = decoders::frame(text);
    let is_json = serde_json::from_str::<&RawValue>(text).is_ok();
    match &decoded {
        Frame::Request { id, method, .. } => {
            assert!(is_json && !id.is_empty() && !method.is_empty(), "{decoded:?}");
        }
        Frame::Answered(answer) => {
            assert!(is_json, "what is no JSON is passed over: {answer}");
            let message = refusal_in(answer);
            assert!(message.starts_with("invalid request frame: "), "{message}");
        }
        Frame::PassedOver => {}
    }
    // Numbers beyond any range, nesting beyond any use and halves of surrogates are JSON, but no value here.
    let Ok(value) = serde_json::from_str::<Value>(text) else {
        if !is_json {
            assert_eq!(decoded, Frame::PassedOver);
        }
        return;
    };
    let members = serde_json::from_str::<Members>(text).ok();
    let is_request = members.as_ref().is_some_and(is_request);
    match decoded {
        Frame::Request { id, method, params } => {
            assert!(is_request, "{text}");
            assert_eq!((&value["id"], &value["method"]), (&Value::from(id), &Value::from(method)));
            let params = params.map(|params| serde_json::from_str::<Value>(&params).expect("they are JSON"));
            assert_eq!(params.unwrap_or_default(), value["params"]);
        }
        Frame::Answered(answer) => {
            assert!(!is_request, "{text}");
            let given = members.as_ref().and_then(|members| members.last("id"));
            let given = given.filter(|id| !id.is_null() && !id.is_array() && !id.is_object());
            assert_eq!(id_of(&answer), given.cloned().unwrap_or_else(|| "invalid".into()), "{text}");
        }
        Frame::PassedOver => panic!("nothing answers {text}"),
    }
}

fn is_request(members: &Members) -> bool {
    let text = |name: &str| members.last(name).and_then(Value::as_str);
    let trace_is_sound = match members.last("traceparent") {
        None | Some(Value::Null) => true,
        Some(trace) => trace.as_str().is_some_and(|trace| trace.len() <= 128),
    };
    members.are_distinct()
        && members.0.iter().all(|(name, _)| FRAME_MEMBERS.contains(&name.as_str()))
        && text("type") == Some("req")
        && text("id").is_some_and(|id| !id.is_empty())
        && text("method").is_some_and(|method| !method.is_empty())
        && trace_is_sound
}

/// Reads `text` as the first message of a connection.
///
/// # Panics
///
/// When the decoder disagrees with the slow reading.
pub fn connect(text: &str) {
    let decoded = decoders::connect(text);
    let frame = serde_json::from_str::<Value>(text);
    let (response, code, reason) = match decoded {
        Connect::Params { id, .. } => {
            let frame = frame.expect("what is accepted is JSON");
            assert_eq!(frame["id"].to_string(), id);
            assert_eq!((frame["type"].as_str(), frame["method"].as_str()), (Some("req"), Some("connect")));
            return assert!(may_connect(&frame["params"]), "{text}");
        }
        Connect::Refused { response, code, reason } => (response, code, reason),
    };
    assert!(reason.len() <= MAX_REASON_BYTES, "{reason}");
    let Ok(frame) = frame else {
        return assert_eq!((response, code, reason.as_str()), (None, 1000, ""));
    };
    let text_at = |name: &str| frame[name].as_str().filter(|text| !text.is_empty());
    let (Some("req"), Some(_), Some(method)) = (text_at("type"), text_at("id"), text_at("method")) else {
        return assert_eq!((response, code, reason.as_str()), (None, 1008, "invalid request frame"));
    };
    let response = response.expect("a request is answered");
    assert_eq!((code, id_of(&response)), (1008, frame["id"].clone()));
    let message = refusal_in(&response);
    assert!(message.starts_with(reason.as_str()) || message.len() > reason.len(), "{message} as {reason}");
    if method == ConnectMethod::Connect.name() {
        assert!(message.starts_with("invalid connect params: "), "{message}");
    } else {
        assert_eq!(message, "invalid handshake: first request must be connect");
    }
}

/// What wire.md section 3 asks of every `connect`, bounds of lengths apart.
fn may_connect(params: &Value) -> bool {
    let client = &params["client"];
    let is_version = |name: &str| params[name].as_u64().is_some_and(|version| version >= 1);
    let is_text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    let is_text_or_absent = |value: &Value| value.is_null() || value.is_string();
    let is_closed = |value: &Value, known: &[&str]| match value {
        Value::Null => true,
        Value::Object(members) => members.keys().all(|name| known.contains(&name.as_str())),
        _ => false,
    };
    let auth = [
        "token",
        "password",
        "deviceToken",
        "bootstrapToken",
        "approvalRuntimeToken",
        "agentRuntimeIdentityToken",
    ];
    let device = ["id", "publicKey", "signature", "signedAt", "nonce"];
    is_version("minProtocol")
        && is_version("maxProtocol")
        && client["id"].as_str().is_some_and(|id| CLIENT_IDS.contains(&id))
        && client["mode"].as_str().is_some_and(|mode| CLIENT_MODES.contains(&mode))
        && is_text(&client["version"])
        && is_text(&client["platform"])
        && is_closed(&params["auth"], &auth)
        && auth.iter().all(|name| is_text_or_absent(&params["auth"][name]))
        && is_closed(&params["device"], &device)
        && (params["device"].is_null() || device.iter().all(|name| !params["device"][name].is_null()))
        && ["role", "pathEnv", "locale", "userAgent"].iter().all(|name| is_text_or_absent(&params[name]))
}

fn id_of(answer: &str) -> Value {
    serde_json::from_str::<Value>(answer).map_or(Value::Null, |answer| answer["id"].clone())
}

/// The message of an answer that refuses.
fn refusal_in(answer: &str) -> String {
    #[derive(Deserialize)]
    struct Answer<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
        ok: bool,
        error: Refusal<'a>,
    }
    #[derive(Deserialize)]
    struct Refusal<'a> {
        code: &'a str,
        message: String,
    }
    let answer: Answer<'_> = serde_json::from_str(answer).expect("an answer is one");
    assert_eq!((answer.kind, answer.ok, answer.error.code), ("res", false, "INVALID_REQUEST"));
    answer.error.message
}
