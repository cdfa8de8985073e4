//! The handshake of OpenClaw frames: the gateway's challenge, our `connect`, its `hello-ok` or its refusal
//! (wire.md sections 3 to 6 and 13).

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use openclaw_schema::{ErrorCode, Scope, methods::connect::ConnectMethod};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use crate::{
    connection::{Endpoint, FrameOptions},
    error::{Error, TransportKind},
    frames::{FrameError, Incoming, request_frame},
    identity::Statement,
};

/// The protocols that this client speaks, lowest and highest.
const PROTOCOLS: (u64, u64) = (3, 4);
/// The id of its frame. Those of calls are numbers, or begin with another letter.
const CONNECT_ID: &str = "connect";
/// What this client is on a gateway.
const ROLE: &str = "operator";
/// How often a gateway ticks when it does not say (wire.md section 1).
const TICK_INTERVAL_MS: u64 = 30_000;
/// How long to wait for a gateway that is starting, when it does not say (wire.md section 4).
const STARTING: Duration = Duration::from_millis(500);

/// What a gateway that speaks OpenClaw frames said when it let this client in (wire.md section 3). Absent is what it
/// left out: gateways of protocol 3 say less.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Greeting {
    /// The protocol: 3 or 4.
    pub protocol: u64,
    /// The version of the gateway.
    pub server_version: Option<String>,
    /// Its build.
    pub build_id: Option<String>,
    /// Differs at every start of the gateway.
    pub boot_id: Option<String>,
    /// The id of this connection.
    pub conn_id: Option<String>,
    /// What this client is there: `operator`.
    pub role: Option<String>,
    /// What it may do, by the gateway's names.
    pub scopes: Option<Vec<String>>,
}

/// What was agreed upon.
#[derive(Debug)]
pub(crate) struct Hello {
    pub(crate) greeting: Greeting,
    /// How often the gateway ticks.
    pub(crate) tick_interval: Duration,
}

/// The gateway did not agree.
#[derive(Debug)]
pub(crate) struct Setback {
    /// Why.
    pub(crate) error: Error,
    /// What may help.
    pub(crate) remedy: Remedy,
}

/// What may help after a setback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// Nothing that this program can do.
    None,
    /// The same again, after this time.
    Later(Duration),
    /// The same with the device identity.
    Device,
}

impl From<Error> for Setback {
    fn from(error: Error) -> Self {
        Self { error, remedy: Remedy::None }
    }
}

#[derive(Deserialize)]
struct Challenge {
    nonce: String,
    ts: u64,
    /// Gateways of protocol 3 have none.
    #[serde(default)]
    capabilities: Option<Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConnectParams<'a> {
    min_protocol: u64,
    max_protocol: u64,
    client: Value,
    caps: [&'a str; 0],
    role: &'a str,
    scopes: &'a [&'a str],
    #[serde(skip_serializing_if = "Option::is_none")]
    auth: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<Value>,
}

#[derive(Deserialize)]
struct HelloOk {
    protocol: u64,
    #[serde(default)]
    server: ServerInfo,
    #[serde(default)]
    auth: Option<Granted>,
    #[serde(default)]
    policy: Policy,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ServerInfo {
    version: Option<String>,
    build_id: Option<String>,
    boot_id: Option<String>,
    conn_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Granted {
    #[serde(default)]
    device_token: Option<String>,
    #[serde(default)]
    role: Option<String>,
    #[serde(default)]
    scopes: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Policy {
    #[serde(default)]
    tick_interval_ms: Option<u64>,
}

/// Shakes hands on a fresh connection. `with_device` says whether the device identity is shown.
pub(crate) async fn shake<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut WebSocketStream<S>,
    endpoint: &Endpoint,
    options: &FrameOptions,
    with_device: bool,
) -> Result<Hello, Setback> {
    let url = &endpoint.shown;
    let first = next(stream, url).await?;
    let payload = Incoming::read(&first).and_then(|frame| frame.event_payload("connect.challenge"));
    let challenge: Challenge =
        payload.and_then(|payload| serde_json::from_str(payload.get()).ok()).ok_or_else(|| foreign(url))?;

    let dir = options.identity.as_ref().filter(|_| with_device);
    let device = dir.map(|dir| Ok::<_, Error>((dir, dir.identity()?))).transpose()?;
    let stored = match (&device, &options.credential) {
        (Some((dir, device)), None) => dir.token(device, &endpoint.authority, ROLE),
        _ => None,
    };
    let scopes: Vec<&str> =
        options.scopes.iter().filter(|scope| **scope != Scope::None).map(|scope| scope.name()).collect();
    let token = options.credential.as_ref().or(stored.as_ref());
    let client = &options.client;
    let proof = device.as_ref().map(|(_, device)| {
        let statement = Statement {
            client_id: &client.id,
            client_mode: &client.mode,
            role: ROLE,
            scopes: &scopes,
            signed_at_ms: challenge.ts,
            token: token.map_or("", |token| token.expose_secret()),
            nonce: &challenge.nonce,
            platform: &client.platform,
            device_family: "",
        };
        // Every gateway reads v2. Those of protocol 4 read v3 as well, which proves more.
        let statement = match challenge.capabilities {
            Some(_) => statement.v3(device.device_id()),
            None => statement.v2(device.device_id()),
        };
        json!({
            "id": device.device_id(), "publicKey": device.public_key(), "signature": device.sign(&statement),
            "signedAt": challenge.ts, "nonce": challenge.nonce,
        })
    });
    let params = ConnectParams {
        min_protocol: PROTOCOLS.0,
        max_protocol: PROTOCOLS.1,
        client: json!({
            "id": client.id, "mode": client.mode, "version": client.version, "platform": client.platform,
        }),
        caps: [],
        role: ROLE,
        scopes: &scopes,
        auth: token.map(|token| auth(token, stored.is_none())),
        device: proof,
    };
    let params = serde_json::value::to_raw_value(&params).expect("texts and numbers serialise");
    let request = request_frame(CONNECT_ID, ConnectMethod::Connect.name(), Some(&params));
    let lost = |cause| Error::transport(TransportKind::Closed { code: None }, url, cause);
    stream.send(Message::text(request)).await.map_err(lost)?;

    let answer = loop {
        let message = next(stream, url).await?;
        // Events may come first.
        if let Some(answer) = Incoming::read(&message).and_then(|frame| frame.response_to(CONNECT_ID)) {
            break answer.map(|payload| payload.map(RawValue::get).unwrap_or_default().to_owned());
        }
    };
    let hello = match answer {
        Ok(hello) => serde_json::from_str::<HelloOk>(&hello)
            .map_err(|problem| Error::bad_payload("the gateway's `hello-ok`", problem))?,
        Err(refusal) => {
            if let (Some((dir, device)), true) = (&device, stored.is_some() && is_token_void(&refusal)) {
                dir.forget_token(device, &endpoint.authority, ROLE)?;
            }
            return Err(setback(refusal, endpoint, options.identity.is_some() && !with_device));
        }
    };
    if !(PROTOCOLS.0..=PROTOCOLS.1).contains(&hello.protocol) {
        return Err(mismatch(url, &hello.protocol.to_string()).into());
    }
    let (role, scopes) =
        hello.auth.as_ref().map(|granted| (granted.role.clone(), granted.scopes.clone())).unzip();
    if let (Some((dir, device)), Some(granted)) = (&device, hello.auth)
        && let Some(token) = granted.device_token
    {
        dir.keep_token(device, &endpoint.authority, ROLE, granted.scopes, &SecretString::from(token))?;
    }
    let tick = hello.policy.tick_interval_ms.filter(|tick| *tick > 0).unwrap_or(TICK_INTERVAL_MS);
    Ok(Hello {
        greeting: Greeting {
            protocol: hello.protocol,
            server_version: hello.server.version,
            build_id: hello.server.build_id,
            boot_id: hello.server.boot_id,
            conn_id: hello.server.conn_id,
            role: role.flatten(),
            scopes,
        },
        tick_interval: Duration::from_millis(tick),
    })
}

/// Token and password are two fields, and the gateway reads the one of its mode: a secret that may be either goes
/// into both. A device token is a token.
fn auth(token: &SecretString, either: bool) -> Value {
    let secret = token.expose_secret();
    if either { json!({ "token": secret, "password": secret }) } else { json!({ "token": secret }) }
}

async fn next<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut WebSocketStream<S>,
    url: &str,
) -> Result<Vec<u8>, Error> {
    let closed =
        |code, reason: &dyn std::fmt::Display| Error::transport(TransportKind::Closed { code }, url, reason);
    loop {
        match stream.next().await {
            Some(Ok(Message::Text(text))) => return Ok(text.as_bytes().to_vec()),
            Some(Ok(Message::Binary(bytes))) => return Ok(bytes.to_vec()),
            Some(Ok(Message::Close(Some(frame)))) if !frame.reason.is_empty() => {
                return Err(closed(Some(frame.code.into()), &frame.reason));
            }
            Some(Ok(Message::Close(frame))) => {
                let code = frame.map(|frame| frame.code.into());
                return Err(closed(code, &"no reason given, before the handshake was done"));
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Err(problem)) => return Err(closed(None, &problem)),
            None => return Err(closed(None, &"the gateway is gone")),
        }
    }
}

fn foreign(url: &str) -> Error {
    Error::ProtocolMismatch {
        message: format!(
            "{url} speaks WebSocket, but neither JSON-RPC nor OpenClaw frames: its first message is no challenge"
        ),
    }
}

fn mismatch(url: &str, theirs: &str) -> Error {
    let (lowest, highest) = PROTOCOLS;
    Error::ProtocolMismatch {
        message: format!(
            "the gateway at {url} speaks OpenClaw protocol {theirs}; this client speaks {lowest} to {highest}. \
             Update the older of the two"
        ),
    }
}

/// Whether the gateway no longer takes the token that it once gave.
fn is_token_void(refusal: &FrameError) -> bool {
    match refusal.detail("code") {
        Some(code) => matches!(code, "AUTH_TOKEN_MISMATCH" | "AUTH_DEVICE_TOKEN_MISMATCH"),
        // Protocol 3 gives no details.
        None => refusal.message.starts_with("unauthorized"),
    }
}

/// What a refusal of the handshake means. `has_device` says that there is an identity which was not shown.
fn setback(refusal: FrameError, endpoint: &Endpoint, has_device: bool) -> Setback {
    let url = &endpoint.shown;
    let code = refusal.detail("code").unwrap_or_default().to_owned();
    if code == "PROTOCOL_MISMATCH" || refusal.message == "protocol mismatch" {
        let expected = refusal.details.as_ref().and_then(|details| details["expectedProtocol"].as_u64());
        let theirs = expected.map_or_else(|| "of another version".to_owned(), |version| version.to_string());
        return mismatch(url, &theirs).into();
    }
    if refusal.code == ErrorCode::Unavailable.name() && refusal.retryable == Some(true) {
        let after = refusal.retry_after_ms.map_or(STARTING, Duration::from_millis);
        return Setback { error: Error::refused(&refusal.into_object(None)), remedy: Remedy::Later(after) };
    }
    let needs_device =
        code.ends_with("DEVICE_IDENTITY_REQUIRED") || refusal.message == "device identity required";
    let is_auth = code.starts_with("AUTH_")
        || code.starts_with("DEVICE_AUTH_")
        || code == "PAIRING_REQUIRED"
        || refusal.code == "NOT_PAIRED"
        || needs_device
        || refusal.message.starts_with("unauthorized");
    if !is_auth {
        return Error::refused(&refusal.into_object(None)).into();
    }
    let wait = refusal.retry_after_ms.map(Duration::from_millis);
    // Protocol 3 has no code for it.
    if code == "AUTH_RATE_LIMITED" || wait.is_some() && refusal.message.starts_with("unauthorized") {
        return Error::RateLimited { message: refusal.message, retry_after: wait }.into();
    }
    let mut message = refusal.message.clone();
    if let Some(request) = refusal.detail("requestId") {
        message.push_str(&format!(
            " (request {request}): approve it on the gateway, with `openclaw devices approve {request}` or method \
             `device.pair.approve`, then try again"
        ));
    } else if needs_device {
        message.push_str(": the gateway takes no caller without a token or password, or a paired device");
    }
    let details =
        refusal.details.map(|details| serde_json::value::to_raw_value(&details).expect("JSON serialises"));
    let remedy = if has_device && (needs_device || refusal.code == "NOT_PAIRED") {
        Remedy::Device
    } else {
        Remedy::None
    };
    Setback { error: Error::Unauthorized { message, details }, remedy }
}
