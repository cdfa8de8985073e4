//! `sessions.*`: the sessions that agents were spoken to in. Shapes follow wire.md section 10.

use jsonrpsee::{core::RpcResult, proc_macros::rpc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::chat::{HistoryMessage, example_messages};
use crate::{
    RpcError, contract,
    contract::Examples,
    types::{Bounded, Text, TimestampMs},
};

/// Params of `sessions.list`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionsListParams {
    /// How many sessions at most. 100 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Bounded<1, 10_000>>,
    /// How many of the first ones to leave out; 0 by default. `nextOffset` of the result before fits here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<Bounded<0, 4_294_967_295>>,
    /// Only sessions that changed within so many minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_minutes: Option<Bounded<1, 4_294_967_295>>,
    /// By which time to sort, newest first. `updatedAt` by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sort_by: Option<SessionsSort>,
    /// Whether the session `global` is listed too. It is not by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_global: Option<bool>,
    /// Whether sessions of unknown kind are listed too. This gateway has none: no effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_unknown: Option<bool>,
    /// Whether only sessions of configured agents are listed. This gateway has no others: no effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configured_agents_only: Option<bool>,
    /// Whether each row has `derivedTitle`, made from the first message that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_derived_titles: Option<bool>,
    /// Whether each row has `lastMessagePreview`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_last_message: Option<bool>,
    /// Only sessions of this agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<Text<1, 64>>,
    /// Only sessions whose key, id or title contains this text; letters of both cases are equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<Text<0, 512>>,
    /// Whether only archived sessions are listed, or only others. This gateway archives none: `true` lists nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived: Option<bool>,
}

/// By which time sessions are sorted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SessionsSort {
    /// When anything changed last.
    #[default]
    UpdatedAt,
    /// When somebody said something last.
    LastInteractionAt,
}

/// Result of `sessions.list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionsListResult {
    /// When the list was made.
    #[serde(default)]
    pub ts: TimestampMs,
    /// How many sessions this result holds.
    #[serde(default)]
    pub count: u64,
    /// How many sessions fit the filters.
    #[serde(default)]
    pub total_count: u64,
    /// The limit that was applied.
    #[serde(default)]
    pub limit_applied: u64,
    /// The `offset` of the next sessions; null when there are none.
    #[serde(default)]
    pub next_offset: Option<u64>,
    /// Whether there are more sessions.
    #[serde(default)]
    pub has_more: bool,
    /// What sessions use that choose nothing themselves.
    #[serde(default)]
    pub defaults: SessionModelDefaults,
    /// The sessions, newest first.
    #[serde(default)]
    pub sessions: Vec<SessionRow>,
}

/// What sessions use that choose nothing themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionModelDefaults {
    /// The provider of the model; null when the gateway has no model.
    #[serde(default)]
    pub model_provider: Option<String>,
    /// The id of the model; null when the gateway has no model.
    #[serde(default)]
    pub model: Option<String>,
    /// The size of its context window in tokens; null when unknown.
    #[serde(default)]
    pub context_tokens: Option<u64>,
}

/// What a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SessionKind {
    /// A conversation with one agent.
    Direct,
    /// The session `global`.
    Global,
}

/// How the newest run of a session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SessionStatus {
    /// It waits for its turn.
    Queued,
    /// It goes on.
    Running,
    /// It ended with an answer.
    Done,
    /// It failed: `lastRunError` says why.
    Failed,
    /// It was aborted.
    Killed,
    /// It took longer than its timeout.
    Timeout,
}

/// One session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionRow {
    /// The key in full, for example `agent:main:main`.
    pub key: String,
    /// What the session is.
    pub kind: SessionKind,
    /// Differs between sessions, also between two of the same key when the first was forgotten. Absent for a session
    /// that nobody has used yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// The name for people: the key without the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// A title made from the first message that is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derived_title: Option<String>,
    /// The beginning of the newest message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_message_preview: Option<String>,
    /// When anything changed last; null for a session that nobody has used yet.
    #[serde(default)]
    pub updated_at: Option<TimestampMs>,
    /// When it was used first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<TimestampMs>,
    /// When somebody said something last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_interaction_at: Option<TimestampMs>,
    /// How the newest run stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<SessionStatus>,
    /// When the newest run started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<TimestampMs>,
    /// When the newest run ended; absent while it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<TimestampMs>,
    /// How long the newest run took, in milliseconds; absent while it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_ms: Option<u64>,
    /// Whether a run waits or goes on.
    #[serde(default)]
    pub has_active_run: bool,
    /// The runs that wait or go on, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub active_run_ids: Vec<String>,
    /// The newest run that has started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run_id: Option<String>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run_error: Option<String>,
    /// Tokens that the newest run read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<u64>,
    /// Tokens that the newest run wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u64>,
    /// Both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_tokens: Option<u64>,
    /// The size of the model's context window in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_tokens: Option<u64>,
    /// The provider of the newest run's model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_provider: Option<String>,
    /// The id of the newest run's model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// Params of `sessions.resolve`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionsResolveParams {
    /// The session: `main`, any name, or a full key. Either this or `sessionId` is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Text<1, 512>>,
    /// The id of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<Text<1, 64>>,
    /// The agent; the one that the key names, or the default agent, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<Text<1, 64>>,
    /// Whether a session that does not exist is answered with `ok: false` instead of an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_missing: Option<bool>,
}

/// Result of `sessions.resolve`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionsResolveResult {
    /// Whether there is such a session.
    pub ok: bool,
    /// The key in full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// The name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
}

/// Params of `sessions.get`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionsGetParams {
    /// The session: `main`, any name, or a full key.
    pub key: Text<1, 512>,
    /// The agent; the one that the key names, or the default agent, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<Text<1, 64>>,
    /// How many messages at most, the newest ones. 200 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Bounded<1, 1000>>,
}

/// Result of `sessions.get`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionsGetResult {
    /// The messages, oldest first; empty for a session that nobody has used yet.
    #[serde(default)]
    pub messages: Vec<HistoryMessage>,
}

/// Params of `sessions.abort`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionsAbortParams {
    /// The session: `main`, any name, or a full key. Either this or `runId` is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Text<1, 512>>,
    /// The run; with `key` it must belong to that session. The session's current run when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<Text<1, 256>>,
    /// The agent; the one that the key names, or the default agent, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<Text<1, 64>>,
    /// Whether the runs that wait in the session `key` are ended too. They are not by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clear_queued: Option<bool>,
}

/// Whether `sessions.abort` ended a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SessionsAbortStatus {
    /// It did.
    Aborted,
    /// There was none.
    NoActiveRun,
}

/// Result of `sessions.abort`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionsAbortResult {
    /// Always true.
    pub ok: bool,
    /// The run that was ended, the oldest one of several; null when there was none.
    #[serde(default)]
    pub aborted_run_id: Option<String>,
    /// Whether a run was ended.
    pub status: SessionsAbortStatus,
}

/// Sessions.
#[contract(group = "Sessions")]
#[rpc(server, client, namespace = "sessions", namespace_separator = ".")]
pub trait Sessions {
    /// Lists the sessions that agents were spoken to in.
    ///
    /// Sessions live as long as the gateway; the least recently used ones are forgotten when there are too many.
    #[method(name = "list")]
    #[meta(scope = "operator.read", since = "0.1.0", idempotent, errors(NotFound), examples = sessions_list)]
    fn sessions_list(&self, params: SessionsListParams) -> RpcResult<SessionsListResult>;

    /// Finds one session, and says its full key and its agent.
    #[method(name = "resolve")]
    #[meta(scope = "operator.read", since = "0.1.0", idempotent, errors(NotFound), examples = sessions_resolve)]
    fn sessions_resolve(&self, params: SessionsResolveParams) -> RpcResult<SessionsResolveResult>;

    /// Answers the newest messages of a session.
    ///
    /// `chat.history` answers them page by page, with what goes on now.
    #[method(name = "get")]
    #[meta(scope = "operator.read", since = "0.1.0", idempotent, errors(NotFound), examples = sessions_get)]
    fn sessions_get(&self, params: SessionsGetParams) -> RpcResult<SessionsGetResult>;

    /// Ends the current run of a session, or one run.
    #[method(name = "abort")]
    #[meta(scope = "operator.write", since = "0.1.0", idempotent, errors(NotFound), examples = sessions_abort)]
    async fn sessions_abort(&self, params: SessionsAbortParams) -> RpcResult<SessionsAbortResult>;
}

/// The session of the examples.
pub(super) fn example_row() -> SessionRow {
    SessionRow {
        key: "agent:main:main".to_owned(),
        kind: SessionKind::Direct,
        session_id: Some("0199f3c4-5b7e-7c1e-9f55-6f1d2a3b4c5d".to_owned()),
        agent_id: Some("main".to_owned()),
        display_name: Some("main".to_owned()),
        derived_title: None,
        last_message_preview: None,
        updated_at: Some(TimestampMs(1_795_337_997_444)),
        created_at: Some(TimestampMs(1_795_337_997_413)),
        last_interaction_at: Some(TimestampMs(1_795_337_997_413)),
        status: Some(SessionStatus::Done),
        started_at: Some(TimestampMs(1_795_337_997_413)),
        ended_at: Some(TimestampMs(1_795_337_997_444)),
        runtime_ms: Some(31),
        has_active_run: false,
        active_run_ids: Vec::new(),
        last_run_id: Some("k1".to_owned()),
        last_run_error: None,
        input_tokens: Some(1),
        output_tokens: Some(3),
        total_tokens: Some(4),
        context_tokens: Some(8192),
        model_provider: Some("echo".to_owned()),
        model: Some("echo-1".to_owned()),
    }
}

/// The defaults of the examples.
pub(super) fn example_defaults() -> SessionModelDefaults {
    SessionModelDefaults {
        model_provider: Some("echo".to_owned()),
        model: Some("echo-1".to_owned()),
        context_tokens: Some(8192),
    }
}

fn text<const MIN: usize, const MAX: usize>(text: &str) -> Text<MIN, MAX> {
    Text::new(text).expect("an example is within its bounds")
}

fn unknown_agent(path: &str) -> RpcError {
    RpcError::not_found(path, "no agent `nobody`; `agents.list` lists them")
}

fn sessions_list() -> Examples<SessionsListParams, SessionsListResult> {
    let result = SessionsListResult {
        ts: TimestampMs(1_795_338_000_000),
        count: 1,
        total_count: 1,
        limit_applied: 100,
        next_offset: None,
        has_more: false,
        defaults: example_defaults(),
        sessions: vec![example_row()],
    };
    Examples::success("every session", SessionsListParams::default(), result)
        .invalid("a limit of none", json!({ "limit": 0 }))
        .refused("an agent that does not exist", json!({ "agentId": "nobody" }), unknown_agent("/agentId"))
}

fn sessions_resolve() -> Examples<SessionsResolveParams, SessionsResolveResult> {
    let params = SessionsResolveParams { key: Some(text("main")), ..SessionsResolveParams::default() };
    let result = SessionsResolveResult {
        ok: true,
        key: Some("agent:main:main".to_owned()),
        agent_id: Some("main".to_owned()),
        display_name: Some("main".to_owned()),
    };
    Examples::success("the main session", params, result).refused(
        "a session that does not exist",
        json!({ "key": "nothing" }),
        RpcError::not_found("/key", "no session `agent:main:nothing`; `sessions.list` lists them"),
    )
}

fn sessions_get() -> Examples<SessionsGetParams, SessionsGetResult> {
    let params = SessionsGetParams { key: text("main"), agent_id: None, limit: None };
    Examples::success("the main session", params, SessionsGetResult { messages: example_messages() }).refused(
        "an agent that does not exist",
        json!({ "key": "agent:nobody:main" }),
        unknown_agent("/key"),
    )
}

fn sessions_abort() -> Examples<SessionsAbortParams, SessionsAbortResult> {
    let params = SessionsAbortParams { key: Some(text("main")), ..SessionsAbortParams::default() };
    let result = SessionsAbortResult {
        ok: true,
        aborted_run_id: Some("k1".to_owned()),
        status: SessionsAbortStatus::Aborted,
    };
    Examples::success("the current run of the main session", params, result).refused(
        "an agent that does not exist",
        json!({ "key": "agent:nobody:main" }),
        unknown_agent("/key"),
    )
}
