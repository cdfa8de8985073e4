//! OpenClaw frames (wire.md), after the handshake: request frames in, response and event frames out.
//!
//! The same dispatcher serves them as JSON-RPC; what differs is the envelope, the second response of two-phase
//! methods, and the words of some errors. Protocol 3 and 4 differ in shapes only (wire.md section 13).

use std::{fmt, sync::Arc};

use futures_util::FutureExt;
use jsonrpsee::{MethodResponse, types::Id};
use openclaw_schema::{
    ErrorCode, ErrorData, RpcError, Scope,
    contract::MethodRecord,
    events::EventName,
    methods::{agent::AckStatus, connect::ConnectMethod, gateway::GatewayMethod},
};
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Value, json, value::RawValue};

use super::{Shared, reply::Reply};
use crate::{
    connection::Connection,
    devices::{attempt::Protocol, record::Role},
    dispatcher::{Answer, Call},
    events::{Event, StateVersions},
};

/// How long one internal call of a wait method may take before it is made again.
const WAIT_MS: u64 = 3_600_000;

/// Whose frame it is, and who serves it.
pub(crate) struct Peer<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) connection: &'a Arc<Connection>,
    pub(crate) protocol: Protocol,
    pub(crate) role: Role,
}

/// A request frame. Closed: wire.md section 2.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    id: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    method: std::borrow::Cow<'a, str>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    traceparent: Option<std::borrow::Cow<'a, str>>,
    #[serde(default, rename = "expectedProfileId")]
    expected_profile_id: Option<serde::de::IgnoredAny>,
}

/// The longest `traceparent` (wire.md section 2).
const MAX_TRACEPARENT: usize = 128;

/// Reads one message as a request. What is none has the answer to it, or nothing when it is not JSON, which is passed
/// over (wire.md section 12).
fn decode(text: &str) -> Result<Request<'_>, Option<String>> {
    match serde_json::from_str::<Request<'_>>(text) {
        Ok(request)
            if request.kind == "req"
                && !request.id.is_empty()
                && !request.method.is_empty()
                && request.traceparent.as_ref().is_none_or(|trace| trace.len() <= MAX_TRACEPARENT) =>
        {
            Ok(request)
        }
        _ => Err(malformed(text)),
    }
}

/// Serves one message of a connection that is past its handshake.
pub(crate) fn receive(text: &str, peer: &Peer<'_>) -> Reply {
    let request = match decode(text) {
        Ok(request) => request,
        Err(answer) => return answer.map_or_else(Reply::nothing, Reply::now),
    };
    let id = json!(request.id).to_string();
    // This gateway knows no user profiles: a request that is bound to one cannot be served as meant.
    if request.expected_profile_id.is_some() {
        let error = RpcError::new(ErrorCode::InvalidRequest, "profile binding is not supported");
        return Reply::now(failed(&id, &error, peer.protocol));
    }
    if let Err(error) = admit(&request.method, peer) {
        return Reply::now(failed(&id, &error, peer.protocol));
    }
    let params = request.params.map(RawValue::get);
    let call = Call { id: Id::Number(0), method: &request.method, params };
    let record = peer.shared.dispatcher.record(&request.method);
    match peer.shared.dispatcher.start(call, peer.connection, None) {
        Answer::Ready(response) => {
            answered(&id, record, response, peer.shared, peer.connection, peer.protocol)
        }
        Answer::Pending(response) => {
            let (shared, connection) = (Arc::clone(peer.shared), Arc::clone(peer.connection));
            let protocol = peer.protocol;
            Reply::later(
                response
                    .map(move |response| answered(&id, record, response, &shared, &connection, protocol))
                    .boxed(),
            )
        }
    }
}

/// What frames ask before the dispatcher does: wire.md sections 3 and 10.
fn admit(method: &str, peer: &Peer<'_>) -> Result<(), RpcError> {
    if peer.role == Role::Node && method != GatewayMethod::Health.name() {
        return Err(RpcError::new(ErrorCode::InvalidRequest, "unauthorized role: node"));
    }
    let is_connect = method == ConnectMethod::Connect.name();
    if is_connect || peer.shared.dispatcher.record(method).is_none() {
        if !peer.connection.scopes().allows(Scope::OperatorAdmin) {
            return Err(RpcError::forbidden(method, Scope::OperatorAdmin));
        }
        let message = "connect is only valid as the first request";
        return if is_connect { Err(RpcError::new(ErrorCode::InvalidRequest, message)) } else { Ok(()) };
    }
    Ok(())
}

/// The response to a call, and for a two-phase method what follows it.
fn answered(
    id: &str,
    record: Option<&'static MethodRecord>,
    response: MethodResponse,
    shared: &Arc<Shared>,
    connection: &Arc<Connection>,
    protocol: Protocol,
) -> Reply {
    let json = String::from(Box::<str>::from(response.into_json()));
    let Some(result) = result_of(&json) else {
        let error = error_of(&json);
        return Reply::now(failed(id, &error, protocol));
    };
    let Some(two_phase) = record.and_then(|record| record.two_phase) else {
        return Reply::now(succeeded(id, result));
    };
    let Ok(ack) = serde_json::from_str::<Ack>(result) else { return Reply::now(succeeded(id, result)) };
    let outcome = || outcome(id.to_owned(), ack.run_id.clone(), two_phase.wait, shared, connection, protocol);
    match ack.status {
        AckStatus::Accepted => {
            let shown = shaped_ack(result, protocol);
            Reply { now: Some(succeeded(id, &shown)), later: Some(outcome()) }
        }
        // The stored outcome, in one frame (wire.md section 8).
        AckStatus::Ended => Reply::later(outcome()),
        AckStatus::InFlight => Reply::now(succeeded(id, result)),
    }
}

/// The acknowledgement of a two-phase method, as far as the envelope needs it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ack {
    run_id: String,
    status: AckStatus,
}

/// Protocol 3 acknowledges with three fields (wire.md section 13).
fn shaped_ack(ack: &str, protocol: Protocol) -> String {
    if protocol == Protocol::V4 {
        return ack.to_owned();
    }
    let mut ack: Value = serde_json::from_str(ack).unwrap_or_default();
    if let Some(ack) = ack.as_object_mut() {
        ack.retain(|field, _| matches!(field.as_str(), "runId" | "status" | "acceptedAt"));
    }
    ack.to_string()
}

/// The second response of a two-phase method: waits by the method's wait method for as long as it takes.
fn outcome(
    id: String,
    run_id: String,
    wait: &'static str,
    shared: &Arc<Shared>,
    connection: &Arc<Connection>,
    protocol: Protocol,
) -> futures_util::future::BoxFuture<'static, Reply> {
    let (shared, connection) = (Arc::clone(shared), Arc::clone(connection));
    async move {
        let params = json!({ "runId": run_id, "timeoutMs": WAIT_MS }).to_string();
        loop {
            let call = Call { id: Id::Number(0), method: wait, params: Some(&params) };
            let response = match shared.dispatcher.start(call, &connection, None) {
                Answer::Ready(response) => response,
                Answer::Pending(response) => response.await,
            };
            let json = String::from(Box::<str>::from(response.into_json()));
            let Some(result) = result_of(&json) else {
                return Reply::now(failed(&id, &error_of(&json), protocol));
            };
            if let Ok(Waited { outcome: Some(outcome) }) = serde_json::from_str::<Waited<'_>>(result) {
                return Reply::now(settled(&id, outcome.get()));
            }
        }
    }
    .boxed()
}

/// The result of a wait method, as far as the envelope needs it.
#[derive(Deserialize)]
struct Waited<'a> {
    #[serde(rename = "final", borrow, default)]
    outcome: Option<&'a RawValue>,
}

/// The response that carries an outcome: a failed one has both payload and error (wire.md section 9).
fn settled(id: &str, outcome: &str) -> String {
    #[derive(Deserialize)]
    struct Outcome<'a> {
        #[serde(borrow)]
        status: &'a str,
        #[serde(default)]
        summary: String,
    }
    match serde_json::from_str::<Outcome<'_>>(outcome) {
        Ok(Outcome { status: "error", summary }) => {
            let error = json!({ "code": "UNAVAILABLE", "message": summary });
            format!(r#"{{"type":"res","id":{id},"ok":false,"payload":{outcome},"error":{error}}}"#)
        }
        _ => succeeded(id, outcome),
    }
}

fn succeeded(id: &str, payload: &str) -> String {
    format!(r#"{{"type":"res","id":{id},"ok":true,"payload":{payload}}}"#)
}

/// A response that refuses. `id` is JSON text.
pub(crate) fn failed(id: &str, error: &RpcError, protocol: Protocol) -> String {
    let mut body = json!({ "code": frame_code(error.code, protocol), "message": error.message });
    if let Some(details) = details(error, protocol) {
        body["details"] = details;
    }
    if error.data.retryable {
        body["retryable"] = json!(true);
    }
    if let Some(wait) = error.data.retry_after_ms {
        body["retryAfterMs"] = json!(wait);
    }
    format!(r#"{{"type":"res","id":{id},"ok":false,"error":{body}}}"#)
}

/// The top-level code of the frame protocol: it knows few (wire.md section 2), `details.code` tells more.
fn frame_code(code: ErrorCode, protocol: Protocol) -> &'static str {
    match code {
        ErrorCode::ParseError
        | ErrorCode::InvalidRequest
        | ErrorCode::MethodNotFound
        | ErrorCode::InvalidParams
        | ErrorCode::Unauthorized
        | ErrorCode::NotFound
        | ErrorCode::Denied
        | ErrorCode::RateLimited
        | ErrorCode::LimitExceeded => "INVALID_REQUEST",
        ErrorCode::NotPaired => "NOT_PAIRED",
        // wire.md section 13: protocol 3 has no FORBIDDEN.
        ErrorCode::Forbidden if protocol == Protocol::V3 => "INVALID_REQUEST",
        ErrorCode::Forbidden => "FORBIDDEN",
        ErrorCode::Internal | ErrorCode::Unavailable | ErrorCode::DeadlineExceeded => "UNAVAILABLE",
    }
}

fn details(error: &RpcError, protocol: Protocol) -> Option<Value> {
    match (error.code, error.data.missing_scope) {
        (ErrorCode::Forbidden, _) if protocol == Protocol::V3 => None,
        (ErrorCode::Forbidden, Some(scope)) => {
            Some(json!({ "code": "MISSING_SCOPE", "missingScope": scope, "requiredScopes": [scope] }))
        }
        // The frame protocol has no member of its own for it: only the dispatcher's errors name a method.
        (ErrorCode::InvalidRequest, _) if error.data.method.is_none() => None,
        _ => serde_json::to_value(&error.data).ok(),
    }
}

/// `X` of `{"jsonrpc":"2.0","id":…,"result":X}`.
fn result_of(json: &str) -> Option<&str> {
    json.strip_prefix(r#"{"jsonrpc":"2.0","id":0,"result":"#)?.strip_suffix('}')
}

fn error_of(json: &str) -> RpcError {
    #[derive(Deserialize)]
    struct Refused {
        error: Body,
    }
    #[derive(Deserialize)]
    struct Body {
        code: i32,
        message: String,
        #[serde(default)]
        data: Option<ErrorData>,
    }
    let internal = || RpcError::new(ErrorCode::Internal, "internal error; the gateway's log has the cause");
    let Ok(Refused { error }) = serde_json::from_str(json) else { return internal() };
    let Some(code) = ErrorCode::from_number(error.code) else { return internal() };
    let mut told = RpcError::new(code, error.message);
    if let Some(data) = error.data {
        *told.data = data;
    }
    told
}

/// The members of an object in their order, with what they hold as it was written. Nothing within is looked at: a number
/// or an escape that has no value here must not hide the id.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
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

/// The answer to what is no request frame: `None` for what is not JSON, which is passed over (wire.md section 12).
fn malformed(text: &str) -> Option<String> {
    let value: &RawValue = serde_json::from_str(text).ok()?;
    let members = match serde_json::from_str::<Members<'_>>(text) {
        Ok(Members(members)) => Some(members),
        // A name that is no Unicode text names nothing.
        Err(_) if value.get().starts_with('{') => return None,
        Err(_) => None,
    };
    // Lists and objects, of any depth, name no request; to send them back would be to pass a sender's trouble on.
    let is_id = |id: &str| id != "null" && !id.starts_with(['[', '{']);
    let id = members.iter().flatten().rfind(|(name, _)| name == "id").filter(|(_, id)| is_id(id.get()));
    let message = format!("invalid request frame: {}", frame_fault(members.as_deref()));
    let error = RpcError::new(ErrorCode::InvalidRequest, message);
    Some(failed(id.map_or(r#""invalid""#, |(_, id)| id.get()), &error, Protocol::V4))
}

/// What is wrong with a request frame, in the words of the recorded protocol. `members` is absent for what is no object.
fn frame_fault(members: Option<&[(String, &RawValue)]>) -> String {
    const KNOWN: &[&str] = &["type", "id", "method", "params", "traceparent", "expectedProfileId"];
    let Some(members) = members else { return "must be object".to_owned() };
    let member = |name: &str| members.iter().rfind(|(given, _)| given == name).map(|(_, value)| value.get());
    for required in ["type", "id", "method"] {
        match member(required) {
            None => return format!("must have required property '{required}'"),
            Some(r#""""#) => return format!("at /{required}: must not have fewer than 1 characters"),
            // Nor is it one when its escapes make no text.
            Some(value) if serde_json::from_str::<String>(value).is_err() => {
                return format!("at /{required}: must be string");
            }
            Some(_) => {}
        }
    }
    let kind = member("type").and_then(|kind| serde_json::from_str::<String>(kind).ok());
    if kind.as_deref() != Some("req") {
        return "at /type: must be equal to constant".to_owned();
    }
    for (index, (name, _)) in members.iter().enumerate() {
        if !KNOWN.contains(&name.as_str()) {
            return format!("at root: unexpected property '{name}'");
        }
        if members[..index].iter().any(|(before, _)| before == name) {
            return format!("at root: property '{name}' is there twice");
        }
    }
    let trace = member("traceparent").map(serde_json::from_str::<String>);
    if trace.is_some_and(|trace| trace.is_err()) {
        return "at /traceparent: must be string".to_owned();
    }
    format!("at /traceparent: must not have more than {MAX_TRACEPARENT} characters")
}

/// What [`decode`] makes of a message, with owned parts, for [`crate::decoders`].
pub(super) fn decoded(text: &str) -> crate::decoders::Frame {
    use crate::decoders::Frame;
    match decode(text) {
        Ok(request) => Frame::Request {
            id: request.id.into_owned(),
            method: request.method.into_owned(),
            params: request.params.map(|params| params.get().to_owned()),
        },
        Err(Some(answer)) => Frame::Answered(answer),
        Err(None) => Frame::PassedOver,
    }
}

/// An event frame without its sequence number and its last brace, which the connection adds when it writes it.
/// `None` for an event that the connection's scopes do not allow.
pub(crate) fn event(event: &Event, connection: &Connection, versions: StateVersions) -> Option<String> {
    // Presence is for readers, whatever else is said (wire.md section 7).
    if !connection.scopes().allows(event.name.record().scope) || !connection.watches(&event.audience) {
        return None;
    }
    let (name, payload) = (event.name.name(), event.payload.get());
    let mut text = format!(r#"{{"type":"event","event":"{name}","payload":{payload}"#);
    if matches!(event.name, EventName::Presence | EventName::Health) {
        let StateVersions { presence, health } = versions;
        text.push_str(&format!(r#","stateVersion":{{"presence":{presence},"health":{health}}}"#));
    }
    Some(text)
}
