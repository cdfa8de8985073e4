//! The handshake of OpenClaw frames (wire.md section 3): challenge, `connect`, `hello-ok`.
//!
//! The checks are made in the recorded order: frame shape, params, protocol range, role, credential. A refusal has
//! the recorded code, details, close code and reason (wire.md sections 4 and 12).

use std::{ops::RangeInclusive, sync::Arc};

use openclaw_schema::{
    ErrorCode, Scope,
    events::EventName,
    methods::connect::{CLIENT_IDS, CLIENT_MODES, ConnectMethod, ConnectParams},
    problem::ParamProblem,
    types::{Text, TimestampMs},
};
use serde_json::{Value, json};
use tungstenite::protocol::frame::coding::CloseCode;

use super::Shared;
use crate::{
    connection::Connection,
    context::millis,
    devices::{
        IssuedToken, RoleToken,
        attempt::{ConnectAttempt, Protocol},
        record::Role,
        refusal::Refusal,
    },
};

/// What the gateway sends first: a client that signs its `connect` signs this too.
#[derive(Debug)]
pub(crate) struct Challenge {
    nonce: String,
    ts: TimestampMs,
}

impl Challenge {
    pub(crate) fn new() -> Self {
        Self { nonce: uuid::Uuid::new_v4().to_string(), ts: TimestampMs::now() }
    }

    /// The event frame.
    pub(crate) fn event(&self) -> String {
        let payload = json!({ "nonce": self.nonce, "ts": self.ts });
        format!(r#"{{"type":"event","event":"connect.challenge","payload":{payload}}}"#)
    }
}

/// The mode of clients that stock serves on a path of their own (wire.md section 4).
const WORKER_MODE: &str = "worker";

/// How a handshake ended.
pub(crate) enum Outcome {
    /// The client is in.
    Accepted { hello: String, protocol: Protocol, role: Role },
    /// It is not: the response, if there is one, then the close.
    Refused { response: Option<String>, code: CloseCode, reason: String },
}

impl Outcome {
    /// Closed without a word.
    fn closed(code: CloseCode, reason: &str) -> Self {
        Self::Refused { response: None, code, reason: reason.to_owned() }
    }

    /// Answered with an error, then closed with the same words.
    fn refused(id: &str, refusal: &Refusal, protocol: Protocol) -> Self {
        let mut error = json!({ "code": refusal.code, "message": refusal.message });
        // wire.md section 13: protocol 3 has no details.
        if let Some(details) = refusal.details.as_ref().filter(|_| protocol == Protocol::V4) {
            error["details"] = json!(details);
        }
        if let Some(wait) = refusal.retry_after {
            error["retryable"] = json!(true);
            error["retryAfterMs"] = json!(millis(wait));
        }
        Self::Refused {
            response: Some(format!(r#"{{"type":"res","id":{id},"ok":false,"error":{error}}}"#)),
            code: CloseCode::from(Refusal::CLOSE_CODE),
            reason: refusal.close_reason(),
        }
    }

    /// The client's range of protocols holds none of ours. Both ranges are named.
    fn mismatch(id: &str, range: &RangeInclusive<u32>) -> Self {
        let error = json!({
            "code": ErrorCode::InvalidRequest,
            "message": "protocol mismatch",
            "details": {
                "code": "PROTOCOL_MISMATCH",
                "clientMinProtocol": range.start(),
                "clientMaxProtocol": range.end(),
                "expectedProtocol": 4,
                "minimumProtocol": 3,
                "minimumProbeProtocol": 3,
            },
        });
        Self::Refused {
            response: Some(format!(r#"{{"type":"res","id":{id},"ok":false,"error":{error}}}"#)),
            code: CloseCode::Protocol,
            reason: "protocol mismatch".to_owned(),
        }
    }
}

/// Reads the first frame of a connection: its id, as JSON, and its params. A frame that is no sound `connect` has its
/// end in it.
fn decode(text: &str) -> Result<(String, ConnectParams), Outcome> {
    let Ok(frame) = serde_json::from_str::<Value>(text) else {
        return Err(Outcome::closed(CloseCode::Normal, ""));
    };
    let id = &frame["id"];
    let is_request = frame["type"] == "req" && id.as_str().is_some_and(|id| !id.is_empty());
    let Some(method) = frame["method"].as_str().filter(|method| is_request && !method.is_empty()) else {
        return Err(Outcome::closed(CloseCode::Policy, "invalid request frame"));
    };
    let id = id.to_string();
    let plain = |message: String| Outcome::refused(&id, &Refusal::plain(message), Protocol::V4);
    if method != ConnectMethod::Connect.name() {
        return Err(plain("invalid handshake: first request must be connect".to_owned()));
    }
    match params(&frame["params"]) {
        Ok(params) => Ok((id, params)),
        Err(fault) => Err(plain(format!("invalid connect params: {fault}"))),
    }
}

/// What [`decode`] makes of a first frame, for [`crate::decoders`].
pub(super) fn decoded(text: &str) -> crate::decoders::Connect {
    use crate::decoders::Connect;
    match decode(text) {
        Ok((id, params)) => Connect::Params { id, params: Box::new(params) },
        Err(Outcome::Refused { response, code, reason }) => {
            Connect::Refused { response, code: code.into(), reason }
        }
        Err(Outcome::Accepted { .. }) => unreachable!("decoding lets nobody in"),
    }
}

/// Serves the first frame of a connection.
pub(crate) async fn connect(
    text: String,
    challenge: Challenge,
    shared: Arc<Shared>,
    connection: Arc<Connection>,
) -> Outcome {
    let (id, params) = match decode(&text) {
        Ok(decoded) => decoded,
        Err(outcome) => return outcome,
    };
    if given_mode(&params) == Some(WORKER_MODE) {
        return Outcome::closed(CloseCode::Policy, "invalid-handshake");
    }
    let range = params.min_protocol.unwrap_or(0)..=params.max_protocol.unwrap_or(0);
    let protocol = match (range.contains(&4), range.contains(&3)) {
        (true, _) => Protocol::V4,
        (false, true) => Protocol::V3,
        (false, false) => return Outcome::mismatch(&id, &range),
    };
    let authenticator = connection.auth().get();
    let granted = match ConnectAttempt::new(&params, &challenge.nonce, protocol, connection.caller()) {
        Ok(attempt) => shared.context.devices.authorize(&attempt).await,
        Err(refusal) => Err(refusal),
    };
    let grant = match granted {
        Ok(grant) => grant,
        Err(refusal) => {
            tracing::warn!(remote = %connection.caller().ip, reason = refusal.message, "a caller was refused");
            if refusal.is_guess {
                shared.context.devices.lockout().delay().await;
            }
            return Outcome::refused(&id, &refusal, protocol);
        }
    };
    tracing::debug!(connection = connection.id(), device = grant.device_id, "a frame client is in");
    let role = grant.role;
    let auth = Auth {
        method: grant.credential.name(),
        role,
        scopes: grant.scopes.clone(),
        token: grant.device_token.clone(),
        more_tokens: grant.more_tokens.clone(),
    };
    connection.admit(grant, authenticator);
    if let Some(client) = &params.client {
        shared.context.connections.introduce(&connection, client);
    }
    let payload = hello(&auth, protocol, &shared, &connection);
    let hello = format!(r#"{{"type":"res","id":{id},"ok":true,"payload":{payload}}}"#);
    Outcome::Accepted { hello, protocol, role }
}

/// What `hello-ok` says of the caller's rights.
struct Auth {
    method: &'static str,
    role: Role,
    scopes: Vec<String>,
    token: Option<IssuedToken>,
    more_tokens: Vec<RoleToken>,
}

impl Auth {
    fn json(&self) -> Value {
        let mut auth = json!({ "method": self.method, "role": self.role.name(), "scopes": self.scopes });
        if let Some(token) = &self.token {
            auth["deviceToken"] = json!(token.value);
            auth["issuedAtMs"] = json!(token.issued_at);
        }
        if !self.more_tokens.is_empty() {
            let more = self.more_tokens.iter().map(|token| {
                json!({
                    "deviceToken": token.token.value,
                    "role": token.role.name(),
                    "scopes": token.scopes,
                    "issuedAtMs": token.token.issued_at,
                })
            });
            auth["deviceTokens"] = more.collect();
        }
        auth
    }
}

/// The payload of `hello-ok`, in the shape of the negotiated protocol (wire.md sections 3 and 13).
fn hello(auth: &Auth, protocol: Protocol, shared: &Shared, connection: &Connection) -> Value {
    let context = &shared.context;
    let reads = connection.scopes().allows(Scope::OperatorRead);
    let is_admin = connection.scopes().allows(Scope::OperatorAdmin);
    let presence = if reads { json!(context.connections.list()) } else { json!([]) };
    let health = context.health(false).ok().and_then(|health| serde_json::to_value(health).ok());
    let versions = context.events.versions();
    let agent = &context.agents.default_id;
    let mut snapshot = json!({
        "presence": presence,
        "health": health.unwrap_or_else(|| json!({})),
        "stateVersion": { "presence": versions.presence, "health": versions.health },
        "uptimeMs": context.uptime_ms(),
        "sessionDefaults": {
            "defaultAgentId": agent,
            "mainKey": "main",
            "mainSessionKey": format!("agent:{agent}:main"),
            "scope": "per-sender",
        },
    });
    if is_admin || protocol == Protocol::V3 {
        snapshot["configPath"] = json!(context.state.config_file());
        snapshot["stateDir"] = json!(context.state.root());
    }
    let policy = context.policy();
    let methods: Vec<&str> = shared.dispatcher.names();
    let events: Vec<&str> =
        ["connect.challenge"].into_iter().chain(EventName::ALL.iter().map(|name| name.name())).collect();
    let mut hello = json!({
        "type": "hello-ok",
        "protocol": if protocol == Protocol::V4 { 4 } else { 3 },
        "server": { "version": env!("CARGO_PKG_VERSION"), "connId": connection.id().to_string() },
        "features": { "methods": methods, "events": events },
        "snapshot": snapshot,
        "policy": {
            "maxPayload": policy.max_payload,
            "maxBufferedBytes": policy.max_buffered_bytes,
            "tickIntervalMs": policy.tick_interval_ms,
        },
    });
    match protocol {
        Protocol::V4 => {
            hello["server"]["bootId"] = json!(context.instance_id);
            hello["features"]["capabilities"] = json!([]);
            hello["auth"] = auth.json();
        }
        // wire.md section 13: what protocol 3 says of the caller's rights is its device's token.
        Protocol::V3 => {
            hello["server"]["host"] = json!(context.hostname);
            if auth.token.is_some() {
                hello["auth"] = auth.json();
            }
        }
    }
    hello
}

fn given_mode(params: &ConnectParams) -> Option<&str> {
    params.client.as_ref()?.mode.as_ref().map(Text::as_str)
}

/// The params of `connect`, with what the frame protocol asks beyond the contract.
fn params(given: &Value) -> Result<ConnectParams, String> {
    let Some(object) = given.as_object() else { return Err("must be object".to_owned()) };
    for required in ["minProtocol", "maxProtocol", "client"] {
        if !object.contains_key(required) {
            return Err(format!("must have required property '{required}'"));
        }
    }
    let text = given.to_string();
    if let Err(problem) = (ConnectMethod::Connect.record().params.check)(&text) {
        return Err(recorded_words(&problem));
    }
    let params: ConnectParams = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    for (field, value) in [("minProtocol", params.min_protocol), ("maxProtocol", params.max_protocol)] {
        match value {
            Some(1..) => {}
            Some(0) => return Err(format!("at /{field}: must be >= 1")),
            // `null` is as good as nothing in the contract, but not here.
            None => return Err(format!("at /{field}: must be integer")),
        }
    }
    if params.client.is_none() {
        return Err("at /client: must be object".to_owned());
    }
    for required in ["id", "version", "platform", "mode"] {
        if given["client"].get(required).is_none() {
            return Err(format!("at /client: must have required property '{required}'"));
        }
    }
    for (field, known) in [("id", CLIENT_IDS), ("mode", CLIENT_MODES)] {
        if !given["client"][field].as_str().is_some_and(|value| known.contains(&value)) {
            return Err(format!("at /client/{field}: must be equal to one of the allowed values"));
        }
    }
    Ok(params)
}

/// A problem of params in the words of the recorded protocol, which clients are known to match on.
fn recorded_words(problem: &ParamProblem) -> String {
    let ParamProblem { path, reason, .. } = problem;
    let quoted = || reason.split('`').nth(1).unwrap_or_default();
    let at = |what: String| if path.is_empty() { what } else { format!("at {path}: {what}") };
    if reason.starts_with("unknown field") {
        let place = if path.is_empty() { "root" } else { path };
        return format!("at {place}: unexpected property '{}'", quoted());
    }
    if reason.starts_with("missing field") {
        return at(format!("must have required property '{}'", quoted()));
    }
    if reason.starts_with("unknown value") {
        return at("must be equal to one of the allowed values".to_owned());
    }
    if reason.starts_with("must not be empty") {
        return at("must not have fewer than 1 characters".to_owned());
    }
    if reason.starts_with("invalid type") || reason.starts_with("invalid value") {
        let expected = reason.rsplit("expected ").next().unwrap_or_default();
        let kind = match expected {
            text if text.contains("string") => "string",
            text if text.contains("bool") => "boolean",
            text if text.contains("sequence") => "array",
            text if text.starts_with('u') || text.starts_with('i') => "integer",
            _ => "object",
        };
        return at(format!("must be {kind}"));
    }
    at(reason.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(params: &Value) -> String {
        super::params(params).expect_err("the params are wrong")
    }

    fn good() -> Value {
        json!({
            "minProtocol": 3, "maxProtocol": 4,
            "client": { "id": "cli", "version": "1", "platform": "linux", "mode": "cli" },
        })
    }

    #[test]
    fn faults_have_the_recorded_words() {
        let with = |path: &str, value: Value| {
            let mut params = good();
            let (parent, field) = path.rsplit_once('/').expect("a pointer");
            let parent = params.pointer_mut(parent).expect("the parent is there");
            parent[field] = value;
            params
        };
        assert!(super::params(&good()).is_ok());
        assert_eq!(fault(&Value::Null), "must be object");
        assert_eq!(fault(&json!({})), "must have required property 'minProtocol'");
        assert_eq!(fault(&with("/foo", json!(1))), "at root: unexpected property 'foo'");
        assert_eq!(fault(&with("/auth", json!({ "foo": 1 }))), "at /auth: unexpected property 'foo'");
        assert_eq!(
            fault(&with("/client/id", json!("acme"))),
            "at /client/id: must be equal to one of the allowed values"
        );
        assert_eq!(
            fault(&with("/client/mode", json!("operator"))),
            "at /client/mode: must be equal to one of the allowed values"
        );
        assert_eq!(fault(&with("/minProtocol", json!(0))), "at /minProtocol: must be >= 1");
        assert_eq!(fault(&with("/minProtocol", json!("4"))), "at /minProtocol: must be integer");
        assert_eq!(fault(&with("/maxProtocol", Value::Null)), "at /maxProtocol: must be integer");
        assert_eq!(fault(&with("/client", Value::Null)), "at /client: must be object");
    }
}
