//! `sessions.*`: the sessions that agents were spoken to in. Shapes follow wire.md section 10.

use jsonrpsee::{core::RpcResult, proc_macros::rpc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::chat::{HistoryMessage, example_messages};
use crate::{
    RpcError, contract,
    contract::Examples,
    types::{Bounded, NoParams, Text, TimestampMs, flag_or_word, nullable, word_of_flag_or_word},
};

flag_or_word! {
    /// Whether a model is to answer faster.
    FastMode, Auto, "auto", "As the gateway sees fit."
}

flag_or_word! {
    /// Which sessions are meant: those put away, the others, or both.
    ArchivedFilter, All, "all", "Both."
}

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
    /// Only the session of this label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Text<1, 512>>,
    /// Whether archived sessions are listed and no others, others alone (the default), or both: `"all"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived: Option<ArchivedFilter>,
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionRow {
    /// The key in full, for example `agent:main:main`.
    pub key: String,
    /// What the session is.
    pub kind: SessionKind,
    /// Differs between sessions, also between two of the same key when the first was deleted. Absent for a session
    /// that nobody has used yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// The name for people: the key without the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// The name that somebody gave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Whether it is put away.
    #[serde(default)]
    pub archived: bool,
    /// Whether somebody pinned it.
    #[serde(default)]
    pub pinned: bool,
    /// Whether somebody marked it as unread.
    #[serde(default)]
    pub unread: bool,
    /// A category that somebody put it into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// An icon that somebody chose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icon: Option<String>,
    /// A colour that somebody chose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub color: Option<String>,
    /// A title made from the first message.
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
    /// What the newest run cost, in US dollars; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimated_cost_usd: Option<f64>,
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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

/// Params of `sessions.preview`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionsPreviewParams {
    /// The sessions: `main`, any names, or full keys.
    pub keys: Vec<Text<1, 512>>,
    /// How many messages of each at most, the newest ones. 12 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Bounded<1, 100>>,
    /// The longest text, in characters; a longer one is cut. 240 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_chars: Option<Bounded<20, 10_000>>,
}

/// Whether a session can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PreviewStatus {
    /// It has messages.
    Ok,
    /// Nothing has been said in it.
    Empty,
    /// There is no such session.
    Missing,
}

/// One message of a preview.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreviewItem {
    /// Who wrote it: `user` or `assistant`.
    pub role: String,
    /// Its text on one line, cut to `maxChars`.
    pub text: String,
}

/// What was said last in one session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionPreview {
    /// The session as the caller wrote it.
    pub key: String,
    /// Whether it can be shown.
    pub status: PreviewStatus,
    /// Its newest messages, oldest first.
    #[serde(default)]
    pub items: Vec<PreviewItem>,
}

/// Result of `sessions.preview`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionsPreviewResult {
    /// When the previews were made.
    #[serde(default)]
    pub ts: TimestampMs,
    /// One for each key, in the order of the keys.
    #[serde(default)]
    pub previews: Vec<SessionPreview>,
}

/// Params of `sessions.describe`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionsDescribeParams {
    /// The session: `main`, any name, or a full key.
    pub key: Text<1, 512>,
    /// The agent; the one that the key names, or the default agent, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<Text<1, 64>>,
    /// Whether the row has `derivedTitle`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_derived_titles: Option<bool>,
    /// Whether the row has `lastMessagePreview`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_last_message: Option<bool>,
}

/// Result of `sessions.describe`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionsDescribeResult {
    /// The session; null when nobody has used it yet.
    #[serde(default)]
    pub session: Option<SessionRow>,
}

/// A session as it is stored: what callers chose for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionEntry {
    /// The id of the session.
    pub session_id: String,
    /// Another one each time the session begins anew.
    pub lifecycle_revision: String,
    /// When anything changed last.
    #[serde(default)]
    pub updated_at: TimestampMs,
    /// When it was used first.
    #[serde(default)]
    pub created_at: TimestampMs,
    /// Its name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Whether it is put away.
    #[serde(default)]
    pub archived: bool,
    /// Whether it is pinned.
    #[serde(default)]
    pub pinned: bool,
    /// Whether it is marked as unread.
    #[serde(default)]
    pub unread: bool,
    /// Its icon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icon: Option<String>,
    /// Its colour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub color: Option<String>,
    /// Its category.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// The model that was chosen for it, as `provider/id` or an id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// How much its models are to think.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinking_level: Option<String>,
    /// Whether its models are to answer faster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fast_mode: Option<FastMode>,
    /// How much a client shows of a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verbose_level: Option<String>,
    /// How much a client shows of the reasoning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_level: Option<String>,
}

/// The model that the runs of a session use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedModel {
    /// The provider; null when the gateway has no model.
    #[serde(default)]
    pub model_provider: Option<String>,
    /// The id; null when the gateway has no model.
    #[serde(default)]
    pub model: Option<String>,
}

/// Params of `sessions.create`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionsCreateParams {
    /// The session: any name, or a full key. One that exists is answered as it is. `dashboard:` and a fresh id when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Text<1, 512>>,
    /// The agent; the one that the key names, or the default agent, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<Text<1, 64>>,
    /// Its name for people. No two sessions have the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Text<1, 512>>,
    /// Its category.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<Text<1, 512>>,
    /// The model of its runs, as `provider/id` or an id of the catalogue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Text<1, 256>>,
    /// How much its models are to think: a level of `models.list`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinking_level: Option<Text<1, 64>>,
    /// Whether its models are to answer faster, at a higher price. A hint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fast_mode: Option<FastMode>,
}

/// Result of `sessions.create`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionsCreateResult {
    /// Always true.
    pub ok: bool,
    /// The id of the session.
    pub session_id: String,
    /// Whether a run was started with it. This method starts none: `chat.send` does.
    #[serde(default)]
    pub run_started: bool,
    /// The key in full.
    pub key: String,
    /// The session as it is stored now.
    pub entry: SessionEntry,
    /// The model that its runs use.
    #[serde(default)]
    pub resolved: ResolvedModel,
}

/// Params of `sessions.patch`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionsPatchParams {
    /// The session: `main`, any name, or a full key. It is made when nobody has used it yet.
    pub key: Text<1, 512>,
    /// The agent; the one that the key names, or the default agent, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<Text<1, 64>>,
    /// The id that the session must have, or the call is refused with reason `session-changed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_session_id: Option<Text<1, 64>>,
    /// The `lifecycleRevision` that the session must have, or the call is refused with reason `session-changed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_lifecycle_revision: Option<Text<1, 64>>,
    /// Its name for people; null takes it away. No two sessions have the same.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = Value::Null))]
    pub label: Option<Option<Text<1, 512>>>,
    /// Its icon, for lists; null takes it away.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = Value::Null))]
    pub icon: Option<Option<Text<1, 64>>>,
    /// Its colour, for lists; null takes it away.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = Value::Null))]
    pub color: Option<Option<Text<1, 64>>>,
    /// Its category, for lists; null takes it away.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = Value::Null))]
    pub category: Option<Option<Text<1, 512>>>,
    /// Whether it is put away. Asks for `expectedSessionId`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived: Option<bool>,
    /// Whether it is pinned, for lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pinned: Option<bool>,
    /// Whether it is marked as unread, for lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<bool>,
    /// The model of its runs, as `provider/id` or an id of the catalogue; null for that of the agent.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = Value::Null))]
    pub model: Option<Option<Text<1, 256>>>,
    /// How much its models are to think: a level of `models.list`; null for the default.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = Value::Null))]
    pub thinking_level: Option<Option<Text<1, 64>>>,
    /// Whether its models are to answer faster, at a higher price; null for the default. A hint.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = Value::Null))]
    pub fast_mode: Option<Option<FastMode>>,
    /// How much clients show of a run; null for the default. Kept for clients. Asks for `operator.admin`.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = Value::Null))]
    pub verbose_level: Option<Option<Text<1, 64>>>,
    /// How much clients show of the reasoning; null for the default. Kept for clients. Asks for `operator.admin`.
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = Value::Null))]
    pub reasoning_level: Option<Option<Text<1, 64>>>,
}

/// Result of `sessions.patch`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionsPatchResult {
    /// Always true.
    pub ok: bool,
    /// Where sessions are stored.
    pub path: String,
    /// The key in full.
    pub key: String,
    /// The session as it is stored now.
    pub entry: SessionEntry,
    /// The model that its runs use.
    #[serde(default)]
    pub resolved: ResolvedModel,
}

/// Why a session begins anew.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ResetReason {
    /// A new conversation.
    New,
    /// The old one is to be forgotten.
    #[default]
    Reset,
}

/// Params of `sessions.reset`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionsResetParams {
    /// The session: `main`, any name, or a full key. It is made when nobody has used it yet.
    pub key: Text<1, 512>,
    /// The agent; the one that the key names, or the default agent, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<Text<1, 64>>,
    /// Why; `reset` by default. It is told in `sessions.changed`, and changes nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<ResetReason>,
    /// The id that the session must have, or the call is refused with reason `session-changed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_session_id: Option<Text<1, 64>>,
    /// The `lifecycleRevision` that the session must have, or the call is refused with reason `session-changed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_lifecycle_revision: Option<Text<1, 64>>,
}

/// Result of `sessions.reset`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionsResetResult {
    /// Always true.
    pub ok: bool,
    /// The key in full.
    pub key: String,
    /// The session as it is stored now.
    pub entry: SessionEntry,
    /// The model that its runs use.
    #[serde(default)]
    pub resolved: ResolvedModel,
}

/// Params of `sessions.delete`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionsDeleteParams {
    /// The session: `main`, any name, or a full key.
    pub key: Text<1, 512>,
    /// The agent; the one that the key names, or the default agent, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<Text<1, 64>>,
    /// Whether its messages are deleted too. They always are: `false` is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_transcript: Option<bool>,
    /// The id that the session must have, or the call is refused with reason `session-changed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_session_id: Option<Text<1, 64>>,
    /// The `lifecycleRevision` that the session must have, or the call is refused with reason `session-changed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_lifecycle_revision: Option<Text<1, 64>>,
    /// When the session must have changed last, or the call is refused with reason `session-changed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_session_updated_at: Option<TimestampMs>,
    /// Whether hooks are told. This gateway has none: no effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emit_lifecycle_hooks: Option<bool>,
    /// Whether only a session that is archived may be deleted. The call then asks for `operator.write` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived_only: Option<bool>,
}

/// Result of `sessions.delete`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionsDeleteResult {
    /// Always true.
    pub ok: bool,
    /// The key in full.
    pub key: String,
    /// Whether there was such a session.
    pub deleted: bool,
    /// Files that hold its messages now. This gateway makes none: always empty.
    #[serde(default)]
    pub archived: Vec<String>,
}

/// Params of `sessions.compact`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionsCompactParams {
    /// The session: `main`, any name, or a full key.
    pub key: Text<1, 512>,
    /// The agent; the one that the key names, or the default agent, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<Text<1, 64>>,
}

/// What became of the older messages of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CompactionResult {
    /// What stands for them when the model is told what was said before.
    pub summary: String,
    /// The id of the first message that the model is still told as it was said; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_kept_entry_id: Option<String>,
    /// How many tokens the model was told before, estimated.
    #[serde(default)]
    pub tokens_before: u64,
}

/// Result of `sessions.compact`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionsCompactResult {
    /// Always true.
    pub ok: bool,
    /// The key in full.
    pub key: String,
    /// Whether there was something to sum up.
    pub compacted: bool,
    /// Why there was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What became of the older messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<CompactionResult>,
}

/// Result of `sessions.subscribe` and `sessions.unsubscribe`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionsSubscribeResult {
    /// Whether the connection receives `sessions.changed` from now on.
    pub subscribed: bool,
}

/// Params of `sessions.messages.subscribe` and `sessions.messages.unsubscribe`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionsMessagesParams {
    /// The session: `main`, any name, or a full key.
    pub key: Text<1, 512>,
    /// The agent; the one that the key names, or the default agent, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<Text<1, 64>>,
}

/// Result of `sessions.messages.subscribe` and `sessions.messages.unsubscribe`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionsMessagesResult {
    /// Whether the connection receives `session.message` of the session from now on.
    pub subscribed: bool,
    /// The key in full.
    pub key: String,
}

/// Sessions.
#[contract(group = "Sessions")]
#[rpc(server, client, namespace = "sessions", namespace_separator = ".")]
pub trait Sessions {
    /// Lists the sessions that agents were spoken to in.
    ///
    /// Sessions are kept until they are deleted; one that was made for a single run, until thirty days after it.
    #[method(name = "list")]
    #[meta(scope = "operator.read", since = "0.1.0", idempotent, errors(NotFound, Unavailable), examples = sessions_list)]
    async fn sessions_list(&self, params: SessionsListParams) -> RpcResult<SessionsListResult>;

    /// Finds one session, and says its full key and its agent.
    #[method(name = "resolve")]
    #[meta(scope = "operator.read", since = "0.1.0", idempotent, errors(NotFound, Unavailable), examples = sessions_resolve)]
    async fn sessions_resolve(&self, params: SessionsResolveParams) -> RpcResult<SessionsResolveResult>;

    /// Answers the newest messages of a session.
    ///
    /// `chat.history` answers them page by page, with what goes on now.
    #[method(name = "get")]
    #[meta(scope = "operator.read", since = "0.1.0", idempotent, errors(NotFound, Unavailable), examples = sessions_get)]
    async fn sessions_get(&self, params: SessionsGetParams) -> RpcResult<SessionsGetResult>;

    /// Answers what was said last in some sessions, in short.
    #[method(name = "preview")]
    #[meta(scope = "operator.read", since = "0.1.0", idempotent, errors(NotFound, Unavailable), examples = sessions_preview)]
    async fn sessions_preview(&self, params: SessionsPreviewParams) -> RpcResult<SessionsPreviewResult>;

    /// Answers the row of one session, as `sessions.list` has it.
    #[method(name = "describe")]
    #[meta(scope = "operator.read", since = "0.1.0", idempotent, errors(NotFound, Unavailable), examples = sessions_describe)]
    async fn sessions_describe(&self, params: SessionsDescribeParams) -> RpcResult<SessionsDescribeResult>;

    /// Makes a session.
    #[method(name = "create")]
    #[meta(scope = "operator.write", since = "0.1.0", errors(NotFound, Unavailable), examples = sessions_create)]
    async fn sessions_create(&self, params: SessionsCreateParams) -> RpcResult<SessionsCreateResult>;

    /// Changes what is kept about a session: its name, how lists show it, the model of its runs.
    ///
    /// `verboseLevel` and `reasoningLevel` ask for `operator.admin`. Settings of stock gateways that this one could not
    /// act on, such as those of tools, are refused as unknown.
    #[method(name = "patch", with_extensions)]
    #[meta(scope = "operator.write", since = "0.1.0", idempotent, errors(NotFound, Unavailable), examples = sessions_patch)]
    async fn sessions_patch(&self, params: SessionsPatchParams) -> RpcResult<SessionsPatchResult>;

    /// Lets a session begin anew: its runs are ended and its messages deleted, its id and settings stay.
    #[method(name = "reset")]
    #[meta(scope = "operator.admin", since = "0.1.0", errors(NotFound, Unavailable), examples = sessions_reset)]
    async fn sessions_reset(&self, params: SessionsResetParams) -> RpcResult<SessionsResetResult>;

    /// Deletes a session with its messages; its runs are ended. The main session of an agent stays.
    ///
    /// Asks for `operator.admin`, unless `archivedOnly` is true.
    #[method(name = "delete", with_extensions)]
    #[meta(scope = "operator.write", since = "0.1.0", idempotent, errors(NotFound, Unavailable), examples = sessions_delete)]
    async fn sessions_delete(&self, params: SessionsDeleteParams) -> RpcResult<SessionsDeleteResult>;

    /// Lets the session's model sum up what was said, so that later runs are told the summary instead.
    ///
    /// The messages stay in the history. Takes as long as the model does, two minutes at most.
    #[method(name = "compact")]
    #[meta(scope = "operator.admin", since = "0.1.0", long_poll, errors(NotFound, Unavailable), examples = sessions_compact)]
    async fn sessions_compact(&self, params: SessionsCompactParams) -> RpcResult<SessionsCompactResult>;

    /// Lets this connection receive `sessions.changed` events.
    ///
    /// Over JSON-RPC they come through `events.subscribe`, which may also ask for them by name.
    #[method(name = "subscribe", with_extensions)]
    #[meta(scope = "operator.read", since = "0.1.0", idempotent, examples = sessions_subscribe)]
    async fn sessions_subscribe(&self, params: NoParams) -> RpcResult<SessionsSubscribeResult>;

    /// Ends what `sessions.subscribe` began.
    #[method(name = "unsubscribe", with_extensions)]
    #[meta(scope = "operator.read", since = "0.1.0", idempotent, examples = sessions_unsubscribe)]
    async fn sessions_unsubscribe(&self, params: NoParams) -> RpcResult<SessionsSubscribeResult>;

    /// Lets this connection receive `session.message` events of one session.
    ///
    /// Over JSON-RPC they come through `events.subscribe`, which may also ask for those of all sessions by name.
    #[method(name = "messages.subscribe", with_extensions)]
    #[meta(scope = "operator.read", since = "0.1.0", idempotent, errors(NotFound, LimitExceeded), examples = sessions_messages_subscribe)]
    async fn sessions_messages_subscribe(
        &self,
        params: SessionsMessagesParams,
    ) -> RpcResult<SessionsMessagesResult>;

    /// Ends what `sessions.messages.subscribe` began.
    #[method(name = "messages.unsubscribe", with_extensions)]
    #[meta(scope = "operator.read", since = "0.1.0", idempotent, errors(NotFound), examples = sessions_messages_unsubscribe)]
    async fn sessions_messages_unsubscribe(
        &self,
        params: SessionsMessagesParams,
    ) -> RpcResult<SessionsMessagesResult>;

    /// Ends the current run of a session, or one run.
    #[method(name = "abort")]
    #[meta(scope = "operator.write", since = "0.1.0", idempotent, errors(NotFound, Unavailable), examples = sessions_abort)]
    async fn sessions_abort(&self, params: SessionsAbortParams) -> RpcResult<SessionsAbortResult>;
}

/// The session of the examples.
pub(crate) fn example_row() -> SessionRow {
    SessionRow {
        key: "agent:main:main".to_owned(),
        kind: SessionKind::Direct,
        session_id: Some("0199f3c4-5b7e-7c1e-9f55-6f1d2a3b4c5d".to_owned()),
        agent_id: Some("main".to_owned()),
        display_name: Some("main".to_owned()),
        label: None,
        archived: false,
        pinned: false,
        unread: false,
        category: None,
        icon: None,
        color: None,
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
        estimated_cost_usd: Some(0.0),
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

fn example_entry() -> SessionEntry {
    SessionEntry {
        session_id: "0199f3c4-5b7e-7c1e-9f55-6f1d2a3b4c5d".to_owned(),
        lifecycle_revision: "0199f3c4-5b7e-7c1e-9f55-6f1d2a3b4c5e".to_owned(),
        updated_at: TimestampMs(1_795_337_997_444),
        created_at: TimestampMs(1_795_337_997_413),
        label: None,
        archived: false,
        pinned: false,
        unread: false,
        icon: None,
        color: None,
        category: None,
        model: None,
        thinking_level: None,
        fast_mode: None,
        verbose_level: None,
        reasoning_level: None,
    }
}

fn example_resolved() -> ResolvedModel {
    ResolvedModel { model_provider: Some("echo".to_owned()), model: Some("echo-1".to_owned()) }
}

/// A whole params object, of what is written of it.
fn params<T: serde::de::DeserializeOwned>(params: Value) -> T {
    serde_json::from_value(params).expect("the params of an example are valid")
}

fn sessions_preview() -> Examples<SessionsPreviewParams, SessionsPreviewResult> {
    let item = |role: &str, text: &str| PreviewItem { role: role.to_owned(), text: text.to_owned() };
    let preview = SessionPreview {
        key: "main".to_owned(),
        status: PreviewStatus::Ok,
        items: vec![item("user", "hello"), item("assistant", "You said: hello")],
    };
    let result = SessionsPreviewResult { ts: TimestampMs(1_795_338_000_000), previews: vec![preview] };
    Examples::success("the main session", params(json!({ "keys": ["main"] })), result)
        .invalid("texts that are too short", json!({ "keys": ["main"], "maxChars": 3 }))
}

fn sessions_describe() -> Examples<SessionsDescribeParams, SessionsDescribeResult> {
    let result = SessionsDescribeResult { session: Some(example_row()) };
    Examples::success("the main session", params(json!({ "key": "main" })), result).refused(
        "an agent that does not exist",
        json!({ "key": "agent:nobody:main" }),
        unknown_agent("/key"),
    )
}

fn sessions_create() -> Examples<SessionsCreateParams, SessionsCreateResult> {
    let result = SessionsCreateResult {
        ok: true,
        key: "agent:main:lamps".to_owned(),
        session_id: example_entry().session_id,
        entry: SessionEntry { label: Some("All lamps".to_owned()), ..example_entry() },
        run_started: false,
        resolved: example_resolved(),
    };
    Examples::success("a session for lamps", params(json!({ "key": "lamps", "label": "All lamps" })), result)
        .invalid("a name of nothing", json!({ "label": "" }))
        .refused(
            "a model that does not exist",
            json!({ "key": "lamps", "model": "huge" }),
            RpcError::not_found("/model", "no model `huge`; `models.list` lists them"),
        )
}

fn sessions_patch() -> Examples<SessionsPatchParams, SessionsPatchResult> {
    let result = SessionsPatchResult {
        ok: true,
        path: "/home/me/.openclaw/gateway/gateway.sqlite".to_owned(),
        key: "agent:main:main".to_owned(),
        entry: SessionEntry { label: Some("Everything".to_owned()), ..example_entry() },
        resolved: example_resolved(),
    };
    Examples::success("another name", params(json!({ "key": "main", "label": "Everything" })), result)
        .invalid("a name of nothing", json!({ "key": "main", "label": "" }))
}

fn sessions_reset() -> Examples<SessionsResetParams, SessionsResetResult> {
    let result = SessionsResetResult {
        ok: true,
        key: "agent:main:main".to_owned(),
        entry: example_entry(),
        resolved: example_resolved(),
    };
    Examples::success("the main session", params(json!({ "key": "main" })), result)
        .invalid("a reason that does not exist", json!({ "key": "main", "reason": "bored" }))
}

fn sessions_delete() -> Examples<SessionsDeleteParams, SessionsDeleteResult> {
    let result = SessionsDeleteResult {
        ok: true,
        key: "agent:main:lamps".to_owned(),
        deleted: true,
        archived: Vec::new(),
    };
    Examples::success("the session of the lamps", params(json!({ "key": "lamps" })), result)
        .invalid("a time that is none", json!({ "key": "lamps", "expectedSessionUpdatedAt": "now" }))
}

fn sessions_compact() -> Examples<SessionsCompactParams, SessionsCompactResult> {
    let result = SessionsCompactResult {
        ok: true,
        key: "agent:main:main".to_owned(),
        compacted: true,
        reason: None,
        result: Some(CompactionResult {
            summary: "The caller asked for dimmed lamps, and got them.".to_owned(),
            first_kept_entry_id: Some("0199f3c4-5b7e-7c1e-9f55-000000000002".to_owned()),
            tokens_before: 5210,
        }),
    };
    Examples::success("the main session", params(json!({ "key": "main" })), result).refused(
        "an agent that does not exist",
        json!({ "key": "agent:nobody:main" }),
        unknown_agent("/key"),
    )
}

fn sessions_subscribe() -> Examples<NoParams, SessionsSubscribeResult> {
    Examples::success("every session", NoParams {}, SessionsSubscribeResult { subscribed: true })
        .invalid("a field too many", json!({ "key": "main" }))
}

fn sessions_unsubscribe() -> Examples<NoParams, SessionsSubscribeResult> {
    Examples::success("every session", NoParams {}, SessionsSubscribeResult { subscribed: false })
        .invalid("a field too many", json!({ "key": "main" }))
}

fn sessions_messages_subscribe() -> Examples<SessionsMessagesParams, SessionsMessagesResult> {
    let result = SessionsMessagesResult { subscribed: true, key: "agent:main:main".to_owned() };
    Examples::success("the main session", params(json!({ "key": "main" })), result).refused(
        "an agent that does not exist",
        json!({ "key": "agent:nobody:main" }),
        unknown_agent("/key"),
    )
}

fn sessions_messages_unsubscribe() -> Examples<SessionsMessagesParams, SessionsMessagesResult> {
    let result = SessionsMessagesResult { subscribed: false, key: "agent:main:main".to_owned() };
    Examples::success("the main session", params(json!({ "key": "main" })), result).refused(
        "an agent that does not exist",
        json!({ "key": "agent:nobody:main" }),
        unknown_agent("/key"),
    )
}
