//! JSON-RPC 2.0 envelopes, strict, single and in batches: text in, text out.
//!
//! Invariant: whatever has an `id` member is answered exactly once; a notification never is. The id is echoed as
//! it was written, also where it is a number that no integer type holds (JSON-RPC 2.0 section 4 discourages
//! fractions and does not forbid them). Used by the WebSocket loop and by HTTP POST alike.

use std::{borrow::Cow, fmt, sync::Arc};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use jsonrpsee::{
    MethodResponse,
    types::{ErrorObjectOwned, Id},
};
use openclaw_schema::{ErrorCode, RpcError};
use serde::{
    Deserialize,
    de::{self, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    connection::Connection,
    dispatcher::{Answer, Call, Dispatcher, Subscriptions},
};

/// What is to be written for a message.
pub(crate) enum Reply {
    /// Nothing: it held notifications only.
    Nothing,
    /// This text.
    Ready(String),
    /// A text that is yet to come; `None` when there is nothing to write after all. Dropping the future cancels
    /// the calls.
    Pending(BoxFuture<'static, Option<String>>),
}

/// Whose message it is, and who serves it.
pub(crate) struct Peer<'a> {
    pub(crate) dispatcher: &'a Dispatcher,
    pub(crate) connection: &'a Arc<Connection>,
    /// Where subscriptions send to; absent over HTTP.
    pub(crate) subscriptions: Option<&'a Subscriptions>,
    /// How many requests a batch may hold.
    pub(crate) max_batch: usize,
    /// How many bytes the answers of a batch may have together.
    pub(crate) max_response_bytes: usize,
}

/// Serves one message.
pub(crate) fn receive(text: &str, peer: &Peer<'_>) -> Reply {
    // The common case: one well-formed request.
    if let Ok(envelope) = serde_json::from_str::<Envelope<'_>>(text) {
        return single(&envelope, peer);
    }
    if text.trim_ascii_start().starts_with('[') {
        return batch(text, peer);
    }
    Reply::Ready(diagnosis(text))
}

fn single(envelope: &Envelope<'_>, peer: &Peer<'_>) -> Reply {
    let params = envelope.params.map(RawValue::get);
    let Some(raw_id) = envelope.id else {
        return match start(Id::Null, &envelope.method, params, peer, None) {
            Answer::Ready(_) => Reply::Nothing,
            Answer::Pending(call) => Reply::Pending(call.map(|_| None).boxed()),
        };
    };
    let id = match WireId::read(raw_id) {
        Ok(id) => id,
        Err(error) => return Reply::Ready(error_text("null", error)),
    };
    let subscriptions = if id.placeholder { None } else { peer.subscriptions };
    match start(id.id.clone(), &envelope.method, params, peer, subscriptions) {
        Answer::Ready(response) => written(&id, response).map_or(Reply::Nothing, Reply::Ready),
        Answer::Pending(call) => {
            let id = id.into_owned();
            Reply::Pending(call.map(move |response| written(&id, response)).boxed())
        }
    }
}

fn start(
    id: Id<'_>,
    method: &str,
    params: Option<&str>,
    peer: &Peer<'_>,
    subscriptions: Option<&Subscriptions>,
) -> Answer {
    tracing::trace!(connection = peer.connection.id(), method, "request");
    peer.dispatcher.start(Call { id, method, params }, peer.connection, subscriptions)
}

/// The text of a response. `None` for a response that has gone through the subscription's own channel.
fn written(id: &WireId<'_>, response: MethodResponse) -> Option<String> {
    if response.is_subscription() {
        return None;
    }
    let ok = response.is_success();
    let (json, notify, _) = response.into_parts();
    if let Some(notify) = notify {
        notify.notify(ok);
    }
    let json = String::from(Box::<str>::from(json));
    Some(if id.placeholder { with_id(id.raw.get(), &json) } else { json })
}

/// Puts an id in the place of the placeholder 0 in jsonrpsee's own text.
fn with_id(id: &str, json: &str) -> String {
    const HEAD: &str = r#"{"jsonrpc":"2.0","id":0,"#;
    let rest = json.strip_prefix(HEAD).expect("jsonrpsee writes version, id and result in this order");
    format!(r#"{{"jsonrpc":"2.0","id":{id},{rest}"#)
}

fn batch(text: &str, peer: &Peer<'_>) -> Reply {
    let entries = match serde_json::from_str::<Entries<'_>>(text) {
        Ok(entries) => entries.0,
        Err(error) => return Reply::Ready(error_text("null", parse_error(&error))),
    };
    if entries.is_empty() {
        let error = RpcError::new(ErrorCode::InvalidRequest, "a batch must hold at least one request");
        return Reply::Ready(error_text("null", error));
    }
    if entries.len() > peer.max_batch {
        let message = format!("a batch may hold {} requests at most", peer.max_batch);
        return Reply::Ready(error_text("null", RpcError::new(ErrorCode::LimitExceeded, message)));
    }
    let peer = Peer { subscriptions: None, ..*peer };
    let mut answers = Answers::new(peer.max_response_bytes);
    let pending = FuturesUnordered::new();
    for entry in entries {
        let reply = match serde_json::from_str::<Envelope<'_>>(entry.get()) {
            Ok(envelope) => single(&envelope, &peer),
            Err(_) => Reply::Ready(diagnosis(entry.get())),
        };
        match reply {
            Reply::Nothing => {}
            Reply::Ready(answer) => answers.add(&answer),
            Reply::Pending(answer) => pending.push(answer),
        }
    }
    if pending.is_empty() {
        return answers.finish().map_or(Reply::Nothing, Reply::Ready);
    }
    Reply::Pending(
        pending
            .fold(answers, |mut answers, answer| {
                if let Some(answer) = answer {
                    answers.add(&answer);
                }
                std::future::ready(answers)
            })
            .map(Answers::finish)
            .boxed(),
    )
}

/// The answers of a batch, on their way to one text.
struct Answers {
    text: String,
    max_bytes: usize,
}

impl Answers {
    fn new(max_bytes: usize) -> Self {
        Self { text: String::new(), max_bytes }
    }

    /// Adds an answer; one that does not fit any more is replaced by an error with its id.
    fn add(&mut self, answer: &str) {
        self.text.push(if self.text.is_empty() { '[' } else { ',' });
        if self.text.len() + answer.len() <= self.max_bytes {
            self.text.push_str(answer);
            return;
        }
        let id = serde_json::from_str::<AnswerId<'_>>(answer).map_or("null", |answer| answer.id.get());
        let message = format!("the answers of the batch are larger than {} bytes", self.max_bytes);
        self.text.push_str(&error_text(id, RpcError::new(ErrorCode::LimitExceeded, message)));
    }

    fn finish(mut self) -> Option<String> {
        if self.text.is_empty() {
            return None;
        }
        self.text.push(']');
        Some(self.text)
    }
}

/// The id of one of our own answers.
#[derive(Deserialize)]
struct AnswerId<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
}

/// A well-formed request or notification. Members that JSON-RPC does not know are passed over.
struct Envelope<'a> {
    /// The id as written; absent in a notification.
    id: Option<&'a RawValue>,
    method: Cow<'a, str>,
    params: Option<&'a RawValue>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Envelope<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Envelope<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON-RPC request")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut members: M) -> Result<Self::Value, M::Error> {
                let (mut version, mut id, mut method, mut params) = (None, None, None, None);
                while let Some(Key(key)) = members.next_key::<Key<'de>>()? {
                    let twice = match &*key {
                        "jsonrpc" => version.replace(members.next_value::<Version>()?).is_some(),
                        "id" => id.replace(members.next_value()?).is_some(),
                        "method" => method.replace(members.next_value::<Key<'de>>()?).is_some(),
                        "params" => params.replace(members.next_value()?).is_some(),
                        _ => {
                            members.next_value::<IgnoredAny>()?;
                            false
                        }
                    };
                    if twice {
                        return Err(de::Error::custom("duplicate member"));
                    }
                }
                let (Some(Version), Some(Key(method))) = (version, method) else {
                    return Err(de::Error::custom("missing member"));
                };
                Ok(Envelope { id, method, params })
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// A text that borrows from the input where it has no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// `"2.0"`, and nothing else.
struct Version;

impl<'de> Deserialize<'de> for Version {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Key(version) = Key::deserialize(deserializer)?;
        if version == "2.0" { Ok(Self) } else { Err(de::Error::custom("wrong version")) }
    }
}

/// The entries of a batch. Reading stops to keep them after this many: a batch beyond every sensible bound costs no
/// memory for entries that are refused anyway.
struct Entries<'a>(Vec<&'a RawValue>);

const MOST_ENTRIES_KEPT: usize = 10_000;

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Items;
        impl<'de> Visitor<'de> for Items {
            type Value = Entries<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<S: SeqAccess<'de>>(self, mut items: S) -> Result<Self::Value, S::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = items.next_element::<&'de RawValue>()? {
                    if entries.len() <= MOST_ENTRIES_KEPT {
                        entries.push(entry);
                    }
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_seq(Items)
    }
}

/// An id, in the form that jsonrpsee takes, or as a placeholder beside its text.
struct WireId<'a> {
    id: Id<'a>,
    raw: Cow<'a, RawValue>,
    /// Whether `id` is 0 in the place of `raw`, which jsonrpsee's type cannot hold.
    placeholder: bool,
}

impl<'a> WireId<'a> {
    fn read(raw: &'a RawValue) -> Result<Self, RpcError> {
        let text = raw.get();
        let id = match text.as_bytes().first() {
            Some(b'0'..=b'9') => text.parse().ok().map(Id::Number),
            Some(b'"') if !text.contains('\\') => Some(Id::Str(Cow::Borrowed(&text[1..text.len() - 1]))),
            Some(b'"' | b'-') => None,
            Some(b'n') => Some(Id::Null),
            _ => {
                let message = "`id` must be a string, a number or null";
                return Err(RpcError::new(ErrorCode::InvalidRequest, message));
            }
        };
        let placeholder = id.is_none();
        Ok(Self { id: id.unwrap_or(Id::Number(0)), raw: Cow::Borrowed(raw), placeholder })
    }

    fn into_owned(self) -> WireId<'static> {
        // Without a placeholder the text is not read again.
        let raw =
            if self.placeholder { Cow::Owned(self.raw.into_owned()) } else { Cow::Borrowed(RawValue::NULL) };
        WireId { id: Id::Null, raw, placeholder: self.placeholder }
    }
}

/// Says what is wrong with a text that is no request, with its id where it has a usable one. Cold.
#[cold]
fn diagnosis(text: &str) -> String {
    let invalid = |message: &str| RpcError::new(ErrorCode::InvalidRequest, message);
    let members = match serde_json::from_str::<Members<'_>>(text) {
        Ok(Members(members)) => members,
        Err(_) => {
            let error = match serde_json::from_str::<&RawValue>(text) {
                // A lone surrogate, written as an escape, is JSON and no text.
                Ok(object) if object.get().starts_with('{') => {
                    invalid("the name of a member must be Unicode text")
                }
                Ok(_) => invalid("a request must be an object"),
                Err(error) => parse_error(&error),
            };
            return error_text("null", error);
        }
    };
    let values = |name: &str| -> Vec<&str> {
        members.iter().filter(|(key, _)| key == name).map(|(_, value)| value.get()).collect()
    };
    // Two ids are none: neither can be told to be the right one.
    let id = match members.iter().filter(|(key, _)| key == "id").map(|(_, id)| *id).collect::<Vec<_>>()[..] {
        [id] if WireId::read(id).is_ok() => id.get(),
        _ => "null",
    };
    if let Some(name) = ["jsonrpc", "id", "method", "params"].into_iter().find(|name| values(name).len() > 1)
    {
        return error_text(id, invalid(&format!("member `{name}` stands there twice")));
    }
    let error = if matches!(values("id")[..], [given] if given != id) {
        invalid("`id` must be a string, a number or null")
    } else if values("jsonrpc") != ["\"2.0\""] {
        invalid("`jsonrpc` must be \"2.0\"")
    } else if values("method").is_empty() {
        invalid("`method` is missing")
    } else if matches!(values("method")[..], [given] if given.starts_with('"')) {
        invalid("`method` must be Unicode text")
    } else {
        invalid("`method` must be a string")
    };
    error_text(id, error)
}

/// The members of an object, as written.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut members: M) -> Result<Self::Value, M::Error> {
                let mut all = Vec::new();
                while let Some(Key(key)) = members.next_key::<Key<'de>>()? {
                    let value = members.next_value::<&'de RawValue>()?;
                    // What JSON-RPC does not know is passed over, however much there is of it.
                    if matches!(&*key, "jsonrpc" | "id" | "method" | "params") && all.len() < 16 {
                        all.push((key, value));
                    }
                }
                Ok(Members(all))
            }
        }
        deserializer.deserialize_map(All)
    }
}

fn parse_error(error: &serde_json::Error) -> RpcError {
    RpcError::new(ErrorCode::ParseError, format!("the text is not JSON: {error}"))
}

/// An error response. `id` is JSON text.
pub(crate) fn error_text(id: &str, error: RpcError) -> String {
    let response = MethodResponse::error(Id::Number(0), ErrorObjectOwned::from(error));
    with_id(id, response.as_json().get())
}
