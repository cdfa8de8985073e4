//! `chat.*`: conversations with agents. Shapes follow wire.md sections 8 and 9.

use jsonrpsee::{core::RpcResult, proc_macros::rpc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    agent::TokenUsage,
    sessions::{FastMode, SessionModelDefaults, SessionRow, example_defaults, example_row},
};
use crate::{
    RpcError, contract,
    contract::Examples,
    events::ChatContent,
    types::{Bounded, Text, TimestampMs, nullable},
};

/// Params of `chat.send`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChatSendParams {
    /// The session to speak in: `main`, any name, or a full key such as `agent:main:main`. Letters are lowered.
    pub session_key: Text<1, 512>,
    /// What to say. An empty message is refused: this gateway takes no attachments instead.
    pub message: Text<0, 1_000_000>,
    /// Names the run. The same key never starts a second run by this method; `agent` has keys of its own.
    /// Clients and the command line make one when the caller leaves it out.
    pub idempotency_key: Text<1, 256>,
    /// The agent; the one that the session key names, or the default agent, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<Text<1, 64>>,
    /// The id that the session must have. The call is refused when the session has another one, or none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<Text<1, 64>>,
    /// How much the model is to think before it answers: `off`, `minimal`, `low`, `medium`, `high`, `xhigh`, `adaptive`
    /// or `max`. `models.list` tells which of them a model has; another one is refused. Absent, empty or `default`: what
    /// the session, or else the configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinking: Option<Text<0, 64>>,
    /// Whether the model is to answer faster, at a higher price. A hint that OpenAI's and Anthropic's own endpoints take.
    /// Absent: what the session, or else the configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fast_mode: Option<FastMode>,
    /// What happens when a run goes on in the session already. This gateway knows one way, which is also the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_mode: Option<QueueMode>,
    /// Whether the answer is also delivered to a chat channel. This gateway has none: a call with `true` is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliver: Option<bool>,
    /// Whether a message that begins like a command, such as `/new`, is said as it is. This gateway says every message
    /// as it is: no effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppress_command_interpretation: Option<bool>,
    /// The id of the newest message that the session must have; null for none yet. The call is refused when somebody has
    /// said something since.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = Value::Null))]
    pub expected_leaf_entry_id: Option<Option<Text<1, 64>>>,
    /// Pictures, sounds and files. This gateway takes none yet: a call with any is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachments: Option<Vec<Map<String, Value>>>,
    /// How long the run may take, in milliseconds. 600000 by default; 0 for as long as it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<Bounded<0, 86_400_000>>,
}

/// What happens to a message when a run goes on in its session already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum QueueMode {
    /// It waits, and gets a run of its own.
    Followup,
}

/// How a call of `chat.send` was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChatSendStatus {
    /// A run was started. Its outcome comes in `chat` events.
    Started,
    /// A run of this idempotency key goes on already; nothing was started.
    InFlight,
    /// A run of this idempotency key has ended already, in whatever way; nothing was started.
    Ok,
}

/// Result of `chat.send`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChatSendResult {
    /// The run: the idempotency key.
    pub run_id: String,
    /// How the call was received.
    pub status: ChatSendStatus,
}

/// Params of `chat.abort`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChatAbortParams {
    /// The session: `main`, any name, or a full key.
    pub session_key: Text<1, 512>,
    /// The agent; the one that the session key names, or the default agent, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<Text<1, 64>>,
    /// The run, which must belong to the session; every run of the session when absent, those that wait included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<Text<1, 256>>,
    /// Whether side runs go on. This gateway has none: no effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preserve_side_runs: Option<bool>,
}

/// Result of `chat.abort`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChatAbortResult {
    /// Always true.
    pub ok: bool,
    /// Whether this call ended a run; `false` when there was none.
    pub aborted: bool,
    /// The runs that it ended, oldest first.
    #[serde(default)]
    pub run_ids: Vec<String>,
}

/// Params of `chat.history`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChatHistoryParams {
    /// The session: `main`, any name, or a full key.
    pub session_key: Text<1, 512>,
    /// The agent; the one that the session key names, or the default agent, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<Text<1, 64>>,
    /// The id of the session. When the session has another one by now, there are no messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<Text<1, 64>>,
    /// How many messages at most. 200 by default; fewer are answered when they are very long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Bounded<1, 1000>>,
    /// How many of the newest messages to leave out; 0 by default. `nextOffset` of the result before fits here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<Bounded<0, 4_294_967_295>>,
    /// Answers what was said since, oldest first: `deltaCursor` of an earlier result. Not together with `offset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Text<1, 128>>,
    /// The longest text of a message, in characters (Unicode scalar values); a longer one is cut, and marked so.
    /// 500000 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_chars: Option<Bounded<1, 500_000>>,
}

/// Result of `chat.history`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChatHistoryResult {
    /// The session as the caller wrote it; `sessionInfo.key` has the key in full.
    pub session_key: String,
    /// The id of the session; absent when nobody has used it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// What a call with a `cursor` was answered; absent without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<HistoryKind>,
    /// The messages, oldest first; empty for a session that nobody has used yet.
    #[serde(default)]
    pub messages: Vec<HistoryMessage>,
    /// Messages whose turn has not come yet.
    #[serde(default)]
    pub pending_inputs: PendingInputs,
    /// The `cursor` with which the next call gets what is said from now on; with `hasMore` of a `delta`, the next of what
    /// was said. Absent when nobody has used the session yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delta_cursor: Option<String>,
    /// The `offset` of the messages before these; absent when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_offset: Option<u64>,
    /// Whether there are messages before these; in a `delta`, behind these.
    #[serde(default)]
    pub has_more: bool,
    /// How many messages the session has.
    #[serde(default)]
    pub total_messages: u64,
    /// What sessions use that choose nothing themselves.
    #[serde(default)]
    pub defaults: SessionModelDefaults,
    /// The session.
    pub session_info: SessionRow,
    /// The run that goes on in the session now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_flight_run: Option<InFlightRun>,
}

/// What a call of `chat.history` with a `cursor` was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HistoryKind {
    /// What was said since.
    Delta,
    /// The session began anew since: the newest messages, as without a cursor.
    Reset,
}

/// One message of a conversation, as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HistoryMessage {
    /// Who wrote it: `user` or `assistant`.
    pub role: String,
    /// Its parts, in order; none when the assistant said nothing.
    #[serde(default)]
    pub content: Vec<ChatContent>,
    /// When it was written.
    #[serde(default)]
    pub timestamp: TimestampMs,
    /// The idempotency key of the call that brought it, followed by `:user`. Only of users' messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// The provider of the model that wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The id of the model that wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Tokens that the answer consumed, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<TokenUsage>,
    /// Why the assistant stopped, for example `stop`, `rpc` (aborted by a call), `timeout` or `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<String>,
    /// What failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    /// What the gateway knows about the message.
    #[serde(rename = "__openclaw")]
    pub mark: MessageMark,
}

/// What the gateway knows about a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessageMark {
    /// The id of the message, unique.
    pub id: String,
    /// Its position in the session, counted from 1 without a hole.
    pub seq: u64,
    /// The run that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// When the gateway recorded it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record_timestamp_ms: Option<TimestampMs>,
    /// Whether its text was cut to `maxChars`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// Messages whose turn has not come yet.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PendingInputs {
    /// The first of them, at most 20, in their order.
    #[serde(default)]
    pub items: Vec<PendingInput>,
    /// How many there are.
    #[serde(default)]
    pub total: u64,
}

/// A message whose turn has not come yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PendingInput {
    /// Names it: the id of its run.
    pub id: String,
    /// The run that waits.
    pub run_id: String,
    /// The message.
    pub message: PendingMessage,
    /// When it was accepted.
    pub accepted_at: TimestampMs,
    /// Always `queued` here.
    pub state: PendingState,
}

/// The text of a message whose turn has not come yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PendingMessage {
    /// Who wrote it: `user`.
    pub role: String,
    /// The beginning of its text: 2000 characters at most.
    pub content: String,
    /// When it was accepted.
    pub timestamp: TimestampMs,
}

/// How a message stands whose turn has not come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PendingState {
    /// It waits.
    Queued,
}

/// The run that goes on in a session now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InFlightRun {
    /// The run.
    pub run_id: String,
    /// Its text so far.
    #[serde(default)]
    pub text: String,
    /// When it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<TimestampMs>,
    /// The events of its tools. This gateway runs no tools: always empty.
    #[serde(default)]
    pub events: Vec<Value>,
}

/// Conversations with agents.
#[contract(group = "Chat")]
#[rpc(server, client, namespace = "chat", namespace_separator = ".")]
pub trait Chat {
    /// Says something in a session.
    ///
    /// Answers at once; the outcome comes in `chat` events, and from `agent.wait`. A run goes on when its caller
    /// disconnects.
    #[method(name = "send")]
    #[meta(scope = "operator.write", since = "0.1.0", errors(NotFound, Unavailable), examples = chat_send)]
    async fn chat_send(&self, params: ChatSendParams) -> RpcResult<ChatSendResult>;

    /// Ends the runs of a session, or one of them.
    #[method(name = "abort")]
    #[meta(scope = "operator.write", since = "0.1.0", idempotent, errors(NotFound, Unavailable), examples = chat_abort)]
    async fn chat_abort(&self, params: ChatAbortParams) -> RpcResult<ChatAbortResult>;

    /// Answers what was said in a session, newest page first, and what goes on in it now.
    ///
    /// Messages are kept until their session is reset or deleted.
    #[method(name = "history")]
    #[meta(scope = "operator.read", since = "0.1.0", idempotent, errors(NotFound, Unavailable), examples = chat_history)]
    async fn chat_history(&self, params: ChatHistoryParams) -> RpcResult<ChatHistoryResult>;

    /// Adds a message to a session, as if its agent had said it; no model is asked.
    #[method(name = "inject")]
    #[meta(scope = "operator.admin", since = "0.1.0", errors(NotFound, Unavailable), examples = chat_inject)]
    async fn chat_inject(&self, params: ChatInjectParams) -> RpcResult<ChatInjectResult>;
}

/// Params of `chat.inject`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChatInjectParams {
    /// The session: `main`, any name, or a full key. It must have been used before.
    pub session_key: Text<1, 512>,
    /// The agent; the one that the session key names, or the default agent, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<Text<1, 64>>,
    /// What the agent is to have said.
    pub message: Text<1, 1_000_000>,
    /// Where it comes from: it is put before the message, in brackets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Text<0, 100>>,
}

/// Result of `chat.inject`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChatInjectResult {
    /// Always true.
    pub ok: bool,
    /// The id of the message.
    pub message_id: String,
}

/// The messages of the examples.
pub(crate) fn example_messages() -> Vec<HistoryMessage> {
    let message = |seq: u64, id: &str, at: u64| HistoryMessage {
        role: "user".to_owned(),
        content: vec![ChatContent::Text { text: "hello".to_owned() }],
        timestamp: TimestampMs(at),
        idempotency_key: None,
        provider: None,
        model: None,
        usage: None,
        stop_reason: None,
        error_message: None,
        mark: MessageMark {
            id: id.to_owned(),
            seq,
            run_id: Some("k1".to_owned()),
            record_timestamp_ms: Some(TimestampMs(at)),
            truncated: false,
        },
    };
    let (first, second) = ("0199f3c4-5b7e-7c1e-9f55-000000000001", "0199f3c4-5b7e-7c1e-9f55-000000000002");
    vec![
        HistoryMessage {
            idempotency_key: Some("k1:user".to_owned()),
            ..message(1, first, 1_795_337_997_413)
        },
        HistoryMessage {
            role: "assistant".to_owned(),
            content: vec![ChatContent::Text { text: "You said: hello".to_owned() }],
            provider: Some("echo".to_owned()),
            model: Some("echo-1".to_owned()),
            usage: Some(TokenUsage { input: 1, output: 3, total: 4, ..TokenUsage::default() }),
            stop_reason: Some("stop".to_owned()),
            ..message(2, second, 1_795_337_997_444)
        },
    ]
}

fn text<const MIN: usize, const MAX: usize>(text: &str) -> Text<MIN, MAX> {
    Text::new(text).expect("an example is within its bounds")
}

fn unknown_agent() -> RpcError {
    RpcError::not_found("/sessionKey", "no agent `nobody`; `agents.list` lists them")
}

fn chat_send() -> Examples<ChatSendParams, ChatSendResult> {
    let params = ChatSendParams {
        session_key: text("main"),
        message: text("hello"),
        idempotency_key: text("k1"),
        agent_id: None,
        session_id: None,
        thinking: None,
        fast_mode: None,
        queue_mode: None,
        deliver: None,
        suppress_command_interpretation: None,
        expected_leaf_entry_id: None,
        attachments: None,
        timeout_ms: None,
    };
    let result = ChatSendResult { run_id: "k1".to_owned(), status: ChatSendStatus::Started };
    Examples::success("say hello in the main session", params, result)
        .invalid(
            "a way to queue that this gateway does not know",
            json!({ "sessionKey": "main", "message": "hello", "idempotencyKey": "k1", "queueMode": "steer" }),
        )
        .refused(
            "an agent that does not exist",
            json!({ "sessionKey": "agent:nobody:main", "message": "hello", "idempotencyKey": "k2" }),
            unknown_agent(),
        )
}

fn chat_abort() -> Examples<ChatAbortParams, ChatAbortResult> {
    let params =
        ChatAbortParams { session_key: text("main"), agent_id: None, run_id: None, preserve_side_runs: None };
    let result = ChatAbortResult { ok: true, aborted: true, run_ids: vec!["k1".to_owned()] };
    Examples::success("whatever goes on in the main session", params, result).refused(
        "an agent that does not exist",
        json!({ "sessionKey": "agent:nobody:main" }),
        unknown_agent(),
    )
}

fn chat_history() -> Examples<ChatHistoryParams, ChatHistoryResult> {
    let params = ChatHistoryParams {
        session_key: text("main"),
        agent_id: None,
        session_id: None,
        limit: Some(Bounded::clamped(50)),
        offset: None,
        cursor: None,
        max_chars: None,
    };
    let session_info = example_row();
    let result = ChatHistoryResult {
        session_key: "main".to_owned(),
        session_id: session_info.session_id.clone(),
        kind: None,
        messages: example_messages(),
        pending_inputs: PendingInputs::default(),
        delta_cursor: Some("0199f3c4-5b7e-7c1e-9f55-000000000000:2".to_owned()),
        next_offset: None,
        has_more: false,
        total_messages: 2,
        defaults: example_defaults(),
        session_info,
        in_flight_run: None,
    };
    Examples::success("the newest messages of the main session", params, result)
        .invalid("more messages than one page holds", json!({ "sessionKey": "main", "limit": 1001 }))
        .refused(
            "an agent that does not exist",
            json!({ "sessionKey": "agent:nobody:main" }),
            unknown_agent(),
        )
}

fn chat_inject() -> Examples<ChatInjectParams, ChatInjectResult> {
    let params = ChatInjectParams {
        session_key: text("main"),
        agent_id: None,
        message: text("The lamps are dimmed."),
        label: Some(text("lamps")),
    };
    let result = ChatInjectResult { ok: true, message_id: "0199f3c4-5b7e-7c1e-9f55-000000000003".to_owned() };
    Examples::success("a word from elsewhere in the main session", params, result)
        .invalid("a message of nothing", json!({ "sessionKey": "main", "message": "" }))
        .refused(
            "a session that nobody has used",
            json!({ "sessionKey": "unused", "message": "hello" }),
            RpcError::not_found("/sessionKey", "no session `agent:main:unused`; `sessions.list` lists them"),
        )
}
