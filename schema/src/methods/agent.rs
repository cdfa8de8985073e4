//! `agent`, `agent.wait`, `agent.abort`: runs. Shapes follow wire.md section 9.

use jsonrpsee::{core::RpcResult, proc_macros::rpc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    RpcError, contract,
    contract::Examples,
    types::{Bounded, Text, TimestampMs},
};

/// Params of `agent`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentParams {
    /// What to say to the agent.
    pub message: Text<1, 1_000_000>,
    /// Names this run. The same key never starts a second run, also when the gateway is killed in between: a repeat is
    /// told how the first one stands, until a day after its end (at most 10000 outcomes are kept).
    /// Clients and the command line make one when the caller leaves it out.
    pub idempotency_key: Text<1, 256>,
    /// The agent; the default agent when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<Text<1, 64>>,
    /// The session to speak in: `main`, any name, or a full key such as `agent:main:main`. Letters are
    /// lowered. Without it, and without `agentId`, the run gets a session of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_key: Option<Text<1, 512>>,
    /// The model, as `provider/id` or an id of the catalogue; the agent's model when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Text<1, 256>>,
    /// How long the run may take, in seconds. 600 by default; 0 for as long as it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Bounded<0, 86_400>>,
    /// How much the model is to think before it answers: `off`, `minimal`, `low`, `medium`, `high`, `xhigh`, `adaptive`
    /// or `max`. `models.list` tells which of them a model has; another one is refused. Absent, empty or `default`: what
    /// the session, or else the configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinking: Option<Text<0, 64>>,
    /// Whether the answer is also delivered to a chat channel. This gateway has none: a call with `true` is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliver: Option<bool>,
    /// Added to the system prompt of this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra_system_prompt: Option<Text<1, 100_000>>,
    /// A label for lists of runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<Text<1, 512>>,
}

/// How a call of `agent` was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AckStatus {
    /// The run was started.
    Accepted,
    /// A run of this idempotency key goes on already; nothing was started.
    InFlight,
    /// A run of this idempotency key has ended already; nothing was started. `agent.wait` has its outcome.
    Ended,
}

/// Result of `agent`: the acknowledgement. The outcome follows, see [`AgentOutcome`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentAck {
    /// The run: the idempotency key.
    pub run_id: String,
    /// How the call was received.
    pub status: AckStatus,
    /// The session of the run; absent when it has one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_key: Option<String>,
    /// The agent that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<String>,
    /// When the run was accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_at: Option<TimestampMs>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RunStatus {
    /// It ended with an answer.
    Ok,
    /// It failed: `summary` says why.
    Error,
    /// It was aborted, or took longer than its `timeout`.
    Timeout,
}

/// The outcome of a run. Every outcome carries `runId`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentOutcome {
    /// The run: the idempotency key.
    pub run_id: String,
    /// How the run ended.
    pub status: RunStatus,
    /// The end in a few words: `completed`, `aborted`, or what failed.
    #[serde(default)]
    pub summary: String,
    /// The answer; absent when the run failed before there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<AgentResult>,
    /// Why the run stopped, for example `stop`, `rpc` (aborted by a call), `timeout` or `interrupted` (the gateway died
    /// while it went on).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<String>,
}

/// What a run produced.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentResult {
    /// The answer, in parts.
    #[serde(default)]
    pub payloads: Vec<AgentPayload>,
    /// Facts about the run.
    #[serde(default)]
    pub meta: AgentMeta,
}

/// One part of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentPayload {
    /// The text.
    #[serde(default)]
    pub text: Option<String>,
    /// A picture, sound or file; null when there is none.
    #[serde(default)]
    pub media_url: Option<String>,
}

/// Facts about a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentMeta {
    /// How long the run took, in milliseconds.
    #[serde(default)]
    pub duration_ms: u64,
    /// Which model answered, a fallback where one did, and what it consumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_meta: Option<ModelMeta>,
    /// Whether the run was aborted.
    #[serde(default)]
    pub aborted: bool,
    /// Why the run stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<String>,
}

/// Which model answered, and what it consumed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ModelMeta {
    /// The session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// The provider of the model.
    #[serde(default)]
    pub provider: String,
    /// The id of the model.
    #[serde(default)]
    pub model: String,
    /// Tokens consumed.
    #[serde(default)]
    pub usage: TokenUsage,
}

/// Tokens consumed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenUsage {
    /// Tokens read.
    #[serde(default)]
    pub input: u64,
    /// Tokens written.
    #[serde(default)]
    pub output: u64,
    /// Tokens read from the provider's cache, not part of `input`.
    #[serde(default)]
    pub cache_read: u64,
    /// Tokens written to the provider's cache, not part of `input`.
    #[serde(default)]
    pub cache_write: u64,
    /// All of them.
    #[serde(default)]
    pub total: u64,
    /// What they cost; absent where neither the provider nor the configuration tells a price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<TokenCost>,
}

/// What tokens cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenCost {
    /// All of it, in US dollars.
    pub total: f64,
}

/// Params of `agent.wait`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentWaitParams {
    /// The run.
    pub run_id: Text<1, 256>,
    /// How long to wait, in milliseconds. 30000 by default; 0 answers at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<Bounded<0, 86_400_000>>,
}

/// How a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WaitStatus {
    /// It ended with an answer.
    Ok,
    /// It failed, or was aborted.
    Error,
    /// It has not ended within the wait (`final` is absent), or it took longer than its own timeout (`final`
    /// is present).
    Timeout,
}

/// Result of `agent.wait`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentWaitResult {
    /// The run.
    pub run_id: String,
    /// How it stands.
    pub status: WaitStatus,
    /// When it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<TimestampMs>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<TimestampMs>,
    /// Why it stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_reason: Option<String>,
    /// What failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The outcome, as frame clients receive it in the second response; absent while the run goes on.
    #[serde(default, rename = "final", skip_serializing_if = "Option::is_none")]
    pub outcome: Option<AgentOutcome>,
}

/// Params of `agent.abort`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AgentAbortParams {
    /// The run.
    pub run_id: Text<1, 256>,
}

/// Result of `agent.abort`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentAbortResult {
    /// The run.
    pub run_id: String,
    /// Whether this call ended it; `false` when it had ended already.
    pub aborted: bool,
}

/// Runs of agents.
#[contract(group = "Agent runs")]
#[rpc(server, client)]
pub trait Agent {
    /// Starts a run: says something to an agent.
    ///
    /// Answers with an acknowledgement as soon as the run is stored: from then on it gets exactly one outcome, whatever
    /// becomes of the gateway. A run that waits when the gateway dies starts at its next start; one that was under way
    /// ends with an error whose `stopReason` is `interrupted`.
    ///
    /// The outcome comes later: over JSON-RPC from `agent.wait` or the
    /// `agent` and `chat` events, over OpenClaw frames as a second response with the same id. A run goes on
    /// when its caller disconnects.
    ///
    /// Messages that begin with `/new` or `/reset` ask for `operator.admin`.
    #[method(name = "agent", with_extensions)]
    #[meta(scope = "operator.write", since = "0.1.0", errors(NotFound, Unavailable), examples = agent, outcome = AgentOutcome, wait = "agent.wait")]
    async fn agent(&self, params: AgentParams) -> RpcResult<AgentAck>;

    /// Waits until a run has ended, and answers its outcome.
    ///
    /// When the wait is over before the run, `status` is `timeout` and `final` is absent: call again.
    #[method(name = "agent.wait")]
    #[meta(scope = "operator.write", since = "0.1.0", idempotent, long_poll, errors(NotFound, Unavailable), examples = agent_wait)]
    async fn agent_wait(&self, params: AgentWaitParams) -> RpcResult<AgentWaitResult>;

    /// Ends a run.
    #[method(name = "agent.abort")]
    #[meta(scope = "operator.write", since = "0.1.0", idempotent, errors(NotFound, Unavailable), examples = agent_abort)]
    async fn agent_abort(&self, params: AgentAbortParams) -> RpcResult<AgentAbortResult>;
}

fn text<const MIN: usize, const MAX: usize>(text: &str) -> Text<MIN, MAX> {
    Text::new(text).expect("an example is within its bounds")
}

fn agent() -> Examples<AgentParams, AgentAck> {
    let params = AgentParams {
        message: text("hello"),
        idempotency_key: text("0199f3c4-5b7e-7c1e-9f55-6f1d2a3b4c5d"),
        agent_id: None,
        session_key: Some(text("main")),
        model: None,
        timeout: None,
        thinking: None,
        deliver: None,
        extra_system_prompt: None,
        label: None,
    };
    let ack = AgentAck {
        run_id: "0199f3c4-5b7e-7c1e-9f55-6f1d2a3b4c5d".to_owned(),
        status: AckStatus::Accepted,
        session_key: Some("agent:main:main".to_owned()),
        agent_id: Some("main".to_owned()),
        accepted_at: Some(TimestampMs(1_795_337_997_413)),
    };
    Examples::success("say hello in the main session", params, ack)
        .invalid("an empty message", json!({ "message": "", "idempotencyKey": "k1" }))
        .refused(
            "an agent that does not exist",
            json!({ "message": "hello", "idempotencyKey": "k2", "agentId": "nobody" }),
            RpcError::not_found("/agentId", "no agent `nobody`; `agents.list` lists them"),
        )
}

fn agent_wait() -> Examples<AgentWaitParams, AgentWaitResult> {
    let run_id = "0199f3c4-5b7e-7c1e-9f55-6f1d2a3b4c5d";
    let outcome = AgentOutcome {
        run_id: run_id.to_owned(),
        status: RunStatus::Ok,
        summary: "completed".to_owned(),
        result: Some(AgentResult {
            payloads: vec![AgentPayload { text: Some("You said: hello".to_owned()), media_url: None }],
            meta: AgentMeta {
                duration_ms: 31,
                agent_meta: Some(ModelMeta {
                    session_id: None,
                    provider: "echo".to_owned(),
                    model: "echo-1".to_owned(),
                    usage: TokenUsage { input: 1, output: 3, total: 4, ..TokenUsage::default() },
                }),
                aborted: false,
                stop_reason: Some("stop".to_owned()),
            },
        }),
        stop_reason: Some("stop".to_owned()),
    };
    let result = AgentWaitResult {
        run_id: run_id.to_owned(),
        status: WaitStatus::Ok,
        started_at: Some(TimestampMs(1_795_337_997_413)),
        ended_at: Some(TimestampMs(1_795_337_997_444)),
        stop_reason: Some("stop".to_owned()),
        error: None,
        outcome: Some(outcome),
    };
    let params = AgentWaitParams { run_id: text(run_id), timeout_ms: Some(Bounded::clamped(10_000)) };
    Examples::success("a run that ends within ten seconds", params, result).refused(
        "a run that does not exist",
        json!({ "runId": "nothing" }),
        RpcError::not_found("/runId", "no run `nothing`; outcomes are kept for a day"),
    )
}

fn agent_abort() -> Examples<AgentAbortParams, AgentAbortResult> {
    let run_id = "0199f3c4-5b7e-7c1e-9f55-6f1d2a3b4c5d";
    Examples::success(
        "a run that goes on",
        AgentAbortParams { run_id: text(run_id) },
        AgentAbortResult { run_id: run_id.to_owned(), aborted: true },
    )
    .refused(
        "a run that does not exist",
        json!({ "runId": "nothing" }),
        RpcError::not_found("/runId", "no run `nothing`; outcomes are kept for a day"),
    )
}
