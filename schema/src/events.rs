//! The events that the gateway pushes: names, payloads, scopes, cadence.
//!
//! JSON-RPC clients receive them through one subscription, `events.subscribe`; OpenClaw frame clients as
//! `event` frames (wire.md section 7).
//!
//! To add an event: write its payload type, add a row to [`EVENTS`] and a variant to [`EventName`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    contract::{EventRecord, TypeRef},
    methods::{
        chat::{HistoryMessage, example_messages},
        device::{PendingDevice, SetupCompletion, example_completion, example_pending},
        gateway::{HealthResult, PresenceEntry, example_health, example_presence},
        sessions::{SessionRow, example_row},
    },
    scope::Scope,
    types::TimestampMs,
};

/// The name of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EventName {
    /// The gateway is alive; sent at a fixed interval.
    Tick,
    /// A new health snapshot.
    Health,
    /// The list of connected clients changed.
    Presence,
    /// Progress of a run, in detail.
    Agent,
    /// Progress of a run, as a conversation.
    Chat,
    /// A session changed.
    #[serde(rename = "sessions.changed")]
    SessionsChanged,
    /// Something was said in a session.
    #[serde(rename = "session.message")]
    SessionMessage,
    /// The gateway is about to stop.
    Shutdown,
    /// A device asks to be paired, or to be allowed more.
    #[serde(rename = "device.pair.requested")]
    DevicePairRequested,
    /// Such a request was decided.
    #[serde(rename = "device.pair.resolved")]
    DevicePairResolved,
    /// A setup code has paired a device.
    #[serde(rename = "device.pair.setup.completed")]
    DevicePairSetupCompleted,
}

impl EventName {
    /// Every event, in the order of [`EVENTS`].
    pub const ALL: &'static [Self] = &[
        Self::Tick,
        Self::Health,
        Self::Presence,
        Self::Agent,
        Self::Chat,
        Self::SessionsChanged,
        Self::SessionMessage,
        Self::Shutdown,
        Self::DevicePairRequested,
        Self::DevicePairResolved,
        Self::DevicePairSetupCompleted,
    ];

    /// The record of this event.
    #[must_use]
    pub const fn record(self) -> &'static EventRecord {
        &EVENTS[self as usize]
    }

    /// The name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.record().name
    }
}

/// The records of all events, in the order of [`EventName`].
pub const EVENTS: &[EventRecord] = &[
    EventRecord {
        name: "tick",
        summary: "The gateway is alive.",
        cadence: "Every 30 seconds, at the same moment for every connection.",
        scope: Scope::None,
        since: "0.1.0",
        payload: TypeRef::of::<TickEvent>(),
        example: || json!({ "ts": 1_795_337_963_251_u64 }),
    },
    EventRecord {
        name: "health",
        summary: "A new health snapshot, the result of method `health`.",
        cadence: "Every 60 seconds, and when a call asks for a fresh one.",
        scope: Scope::None,
        since: "0.1.0",
        payload: TypeRef::of::<HealthResult>(),
        example: || serde_json::to_value(example_health()).expect("the example serialises"),
    },
    EventRecord {
        name: "presence",
        summary: "The list of connected clients changed; carries the whole list.",
        cadence: "When a client connects or disconnects.",
        scope: Scope::OperatorRead,
        since: "0.1.0",
        payload: TypeRef::of::<PresenceEvent>(),
        example: || json!({ "presence": [example_presence()] }),
    },
    EventRecord {
        name: "agent",
        summary: "Progress of a run, in detail: its lifecycle and the text as it is written.",
        cadence: "While a run goes on; text is coalesced to windows of about 75 ms.",
        scope: Scope::OperatorRead,
        since: "0.1.0",
        payload: TypeRef::of::<AgentEvent>(),
        example: || {
            json!({
                "runId": "k1", "seq": 3, "stream": "assistant", "ts": 1_795_337_963_300_u64,
                "data": { "text": "You said: hel", "delta": "hel" },
                "sessionKey": "agent:main:main", "agentId": "main",
            })
        },
    },
    EventRecord {
        name: "chat",
        summary: "Progress of a run, as a conversation: deltas, then one final, aborted or error state.",
        cadence: "While a run goes on; text is coalesced to windows of about 75 ms.",
        scope: Scope::OperatorRead,
        since: "0.1.0",
        payload: TypeRef::of::<ChatEvent>(),
        example: || {
            json!({
                "runId": "k1", "sessionKey": "agent:main:main", "agentId": "main", "seq": 3, "state": "delta",
                "deltaText": "hel",
                "message": { "role": "assistant", "content": [{ "type": "text", "text": "You said: hel" }], "timestamp": 1_795_337_963_300_u64 },
            })
        },
    },
    EventRecord {
        name: "sessions.changed",
        summary: "A session changed; a keyless event says that the list as a whole is to be read again.",
        cadence: "When a session is made, changed, used or deleted. Only for connections that called `sessions.subscribe`, or ask `events.subscribe` for it by name.",
        scope: Scope::OperatorRead,
        since: "0.1.0",
        payload: TypeRef::of::<SessionsChangedEvent>(),
        example: || {
            json!({
                "sessionKey": "agent:main:main", "agentId": "main", "reason": "patch",
                "ts": 1_795_337_963_300_u64, "session": example_row(),
            })
        },
    },
    EventRecord {
        name: "session.message",
        summary: "A message was added to the transcript of a session.",
        cadence: "When a message is kept. Only for connections that called `sessions.messages.subscribe` for the session, or ask `events.subscribe` for it by name.",
        scope: Scope::OperatorRead,
        since: "0.1.0",
        payload: TypeRef::of::<SessionMessageEvent>(),
        example: || {
            let message = example_messages().remove(0);
            json!({
                "sessionKey": "agent:main:main", "agentId": "main", "messageId": message.mark.id,
                "messageSeq": 1, "message": message,
            })
        },
    },
    EventRecord {
        name: "shutdown",
        summary: "The gateway is about to stop and closes every connection next.",
        cadence: "Once, when the gateway is told to stop.",
        scope: Scope::None,
        since: "0.1.0",
        payload: TypeRef::of::<ShutdownEvent>(),
        example: || json!({ "reason": "gateway stopping" }),
    },
    EventRecord {
        name: "device.pair.requested",
        summary: "A device asks to be paired, or to be allowed more.",
        cadence: "Once for each request; an attempt that is repeated belongs to the request that is there.",
        scope: Scope::OperatorPairing,
        since: "0.1.0",
        payload: TypeRef::of::<PendingDevice>(),
        example: || serde_json::to_value(example_pending()).expect("the example serialises"),
    },
    EventRecord {
        name: "device.pair.resolved",
        summary: "A device's request was approved or rejected.",
        cadence: "When someone decides it, and when a device on the gateway's own host is paired at once.",
        scope: Scope::OperatorPairing,
        since: "0.1.0",
        payload: TypeRef::of::<DevicePairResolvedEvent>(),
        example: || {
            json!({
                "requestId": "dad7dfad-36c2-4f36-a7a4-2f6e9a3b8f10", "deviceId": example_pending().device_id,
                "decision": "approved", "ts": 1_795_337_963_251_u64,
            })
        },
    },
    EventRecord {
        name: "device.pair.setup.completed",
        summary: "A setup code has paired a device.",
        cadence: "Once for each setup code that is used.",
        scope: Scope::OperatorPairing,
        since: "0.1.0",
        payload: TypeRef::of::<SetupCompletion>(),
        example: || serde_json::to_value(example_completion()).expect("the example serialises"),
    },
];

/// Payload of `tick`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TickEvent {
    /// When the tick was sent.
    pub ts: TimestampMs,
}

/// Payload of `presence`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PresenceEvent {
    /// Every client that the gateway knows of, itself first.
    pub presence: Vec<PresenceEntry>,
}

/// Payload of `sessions.changed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionsChangedEvent {
    /// The session, in full; absent when the list as a whole is to be read again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_key: Option<String>,
    /// The agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// What happened, for example `create`, `patch`, `reset`, `delete`, `compact`, `agent.run.started` or
    /// `agent.input.settled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Which part of a run it was: `start`, `message` or `end`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The run that it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// When it happened.
    pub ts: TimestampMs,
    /// The session as it is now; absent when it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionRow>,
}

/// Payload of `session.message`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionMessageEvent {
    /// The session, in full.
    pub session_key: String,
    /// The agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// The message, as `chat.history` answers it.
    pub message: HistoryMessage,
    /// Its id.
    pub message_id: String,
    /// Its position in the session, counted from 1.
    pub message_seq: u64,
}

/// Payload of `shutdown`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShutdownEvent {
    /// Why the gateway stops.
    pub reason: String,
    /// When it expects to be back, in milliseconds from now; absent when it is not coming back by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_expected_ms: Option<u64>,
}

/// How a device's request was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PairingDecision {
    /// The device is paired, or is allowed what it asked for.
    Approved,
    /// The request is gone, and nothing else changed.
    Rejected,
}

/// Payload of `device.pair.resolved`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DevicePairResolvedEvent {
    /// The request.
    pub request_id: String,
    /// The device that asked.
    pub device_id: String,
    /// How it was decided.
    pub decision: PairingDecision,
    /// When it was decided.
    pub ts: TimestampMs,
}

/// What an `agent` event tells about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentStream {
    /// Start, model, finishing, end and error of the run: `data.phase`.
    Lifecycle,
    /// Text of the answer: `data.text` so far, `data.delta` since the last event.
    Assistant,
    /// What the run consumed: `data.outputTokens`.
    Usage,
}

/// Payload of `agent`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentEvent {
    /// The run: the idempotency key of the call that started it.
    pub run_id: String,
    /// Position within the run, counted from 1. Coalescing leaves forward gaps although nothing is lost.
    pub seq: u64,
    /// What the event tells about.
    pub stream: AgentStream,
    /// When it happened.
    pub ts: TimestampMs,
    /// The details, by stream and phase.
    pub data: Map<String, Value>,
    /// The session of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_key: Option<String>,
    /// The agent that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
}

/// Where a conversation turn stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChatState {
    /// More text: `deltaText`, and `message` so far.
    Delta,
    /// The turn is complete: `message`.
    Final,
    /// The turn was aborted: `message` so far.
    Aborted,
    /// The turn failed: `errorMessage`.
    Error,
}

/// Payload of `chat`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChatEvent {
    /// The run: the idempotency key of the call that started it.
    pub run_id: String,
    /// The session of the run.
    pub session_key: String,
    /// The agent that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// The `seq` of the `agent` event that this one derives from.
    pub seq: u64,
    /// Where the turn stands.
    pub state: ChatState,
    /// Text since the last delta.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta_text: Option<String>,
    /// The answer so far, or as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<ChatMessage>,
    /// Why the turn ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<String>,
    /// What failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    /// What kind of failure it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_kind: Option<ChatErrorKind>,
}

/// The kinds of failure of a conversation turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChatErrorKind {
    /// The model refused to answer.
    Refusal,
    /// The provider did not answer in time.
    Timeout,
    /// The provider wants fewer requests.
    RateLimit,
    /// The message does not fit the model's context window.
    ContextLength,
    /// Anything else.
    Unknown,
}

/// One message of a conversation.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChatMessage {
    /// Who wrote it: `user` or `assistant`.
    pub role: String,
    /// Its parts, in order.
    pub content: Vec<ChatContent>,
    /// When it was written.
    pub timestamp: TimestampMs,
}

/// One part of a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ChatContent {
    /// A text part.
    Text {
        /// The text.
        text: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_stand_in_the_order_of_the_names() {
        let names = EventName::ALL;
        assert_eq!(names.len(), EVENTS.len());
        for name in names {
            assert_eq!(serde_json::to_value(name).expect("a name serialises"), name.name());
        }
    }
}
