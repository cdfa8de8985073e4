//! `gateway.restart.*` and `gateway.suspend.*`: what happens to a running gateway. Names and shapes follow wire.md
//! section 10; stock answers more than ours, so results are read tolerantly.

use jsonrpsee::{core::RpcResult, proc_macros::rpc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    contract,
    contract::Examples,
    types::{Bounded, Text, TimestampMs},
};

/// Params of `gateway.restart.request`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestartRequestParams {
    /// Why, for the log and for `status`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Text<1, 200>>,
    /// How long to wait before the restart begins, in milliseconds. 0 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<Bounded<0, 600_000>>,
}

/// Result of `gateway.restart.request`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestartRequestResult {
    /// Whether the restart will begin.
    pub ok: bool,
    /// The process id of the gateway; the restart keeps it.
    pub pid: u32,
    /// When the restart begins.
    pub restart_at_ms: TimestampMs,
    /// Whether one had been asked for already: there is one restart for both.
    #[serde(default)]
    pub coalesced: bool,
}

/// How restarts and suspensions of a gateway stand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LifecycleStatus {
    /// Whether a suspension is held: then only what reads is answered.
    #[serde(default)]
    pub suspended: bool,
    /// How often the gateway was restarted within its process.
    #[serde(default)]
    pub restarts: u64,
    /// When a restart that was asked for begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_pending_ms: Option<TimestampMs>,
    /// The restart that was tried last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_restart: Option<LastRestart>,
}

/// A restart that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastRestart {
    /// When it was over.
    pub at: TimestampMs,
    /// Why it was tried.
    pub reason: String,
    /// How long it took, in milliseconds, the end of work in flight included.
    pub duration_ms: u64,
    /// Why the gateway runs on with the configuration it had, if it does: the new one is broken, for example.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What becomes of terminals when a gateway is suspended. This gateway has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TerminalPolicy {
    /// Open terminals are work that is waited for.
    Preserve,
    /// They are not.
    Terminate,
}

/// Params of `gateway.suspend.prepare`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SuspendPrepareParams {
    /// Names the operation on the host. The same id renews its suspension.
    pub request_id: Text<1, 128>,
    /// Take no new work although some goes on, and wait for that. False by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<bool>,
    /// Accepted for stock clients, without effect: this gateway has no terminals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal_policy: Option<TerminalPolicy>,
}

/// How a suspension was prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PrepareStatus {
    /// It was not: work goes on.
    Busy,
    /// No new work is taken; some still goes on.
    Draining,
    /// Nothing goes on: the host may be frozen.
    Ready,
}

/// Result of `gateway.suspend.prepare`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SuspendPrepareResult {
    /// How it was prepared.
    pub status: PrepareStatus,
    /// Names the suspension; absent when none is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspension_id: Option<String>,
    /// When it ends by itself; absent when none is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<TimestampMs>,
    /// When to ask again, in milliseconds; absent when there is nothing to wait for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// How much goes on.
    #[serde(default)]
    pub active_count: u64,
    /// The same by kind.
    #[serde(default)]
    pub blockers: Vec<SuspendBlocker>,
}

/// Work that a suspension waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SuspendBlocker {
    /// What it is: `agent-run`, `root-request`.
    pub kind: String,
    /// How many.
    pub count: u64,
    /// The same in words.
    #[serde(default)]
    pub message: String,
}

/// Params of `gateway.suspend.status`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SuspendStatusParams {
    /// The suspension that is meant; by default the one that is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspension_id: Option<Text<1, 128>>,
}

/// How a suspension stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SuspendStatus {
    /// None is held.
    Running,
    /// No new work is taken; some still goes on.
    Draining,
    /// Nothing goes on: the host may be frozen.
    Ready,
}

/// Result of `gateway.suspend.status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SuspendStatusResult {
    /// How it stands.
    pub status: SuspendStatus,
    /// When it ends by itself; absent when none is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_ms: Option<TimestampMs>,
    /// When to ask again, in milliseconds; absent when there is nothing to wait for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// How much goes on; absent unless the gateway waits for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_count: Option<u64>,
    /// The same by kind; absent likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blockers: Vec<SuspendBlocker>,
}

/// Params of `gateway.suspend.resume`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SuspendResumeParams {
    /// The suspension that ends.
    pub suspension_id: Text<1, 128>,
}

/// Result of `gateway.suspend.resume`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SuspendResumeResult {
    /// Whether the gateway takes work.
    pub ok: bool,
    /// How it stands now.
    pub status: SuspendStatus,
    /// Whether this call ended the suspension; false when it had ended before.
    pub resumed: bool,
}

/// What happens to a running gateway.
#[contract(group = "Gateway")]
#[rpc(server, client)]
pub trait Lifecycle {
    /// Restarts the gateway within its process.
    ///
    /// The configuration is read again; a broken one keeps the gateway as it is, and `status` says why. Work in flight
    /// is finished within a bound, subscribers receive `shutdown` with `restartExpectedMs`, connections are closed with
    /// 1012, and the port stays open throughout. Refused with `DENIED` by a gateway within another program, which is
    /// not the gateway's to restart.
    #[method(name = "gateway.restart.request")]
    #[meta(scope = "operator.admin", since = "0.1.0", errors(Denied), examples = restart_request)]
    fn gateway_restart_request(&self, params: RestartRequestParams) -> RpcResult<RestartRequestResult>;

    /// Prepares the gateway for its host to be frozen or copied.
    ///
    /// While the suspension is held, calls that change something are refused with `UNAVAILABLE`; those that read are
    /// answered. It ends with `gateway.suspend.resume`, with a restart, or by itself after two minutes.
    #[method(name = "gateway.suspend.prepare")]
    #[meta(scope = "operator.admin", since = "0.1.0", idempotent, errors(Unavailable), examples = suspend_prepare)]
    fn gateway_suspend_prepare(&self, params: SuspendPrepareParams) -> RpcResult<SuspendPrepareResult>;

    /// Says how a suspension stands.
    #[method(name = "gateway.suspend.status")]
    #[meta(scope = "operator.read", since = "0.1.0", idempotent, errors(Unavailable), examples = suspend_status)]
    fn gateway_suspend_status(&self, params: SuspendStatusParams) -> RpcResult<SuspendStatusResult>;

    /// Ends a suspension. One that has ended already is no error.
    #[method(name = "gateway.suspend.resume")]
    #[meta(scope = "operator.admin", since = "0.1.0", idempotent, errors(Unavailable), examples = suspend_resume)]
    fn gateway_suspend_resume(&self, params: SuspendResumeParams) -> RpcResult<SuspendResumeResult>;
}

fn text<const MAX: usize>(text: &str) -> Text<1, MAX> {
    Text::new(text).expect("an example is within the bounds")
}

fn restart_request() -> Examples<RestartRequestParams, RestartRequestResult> {
    Examples::success(
        "in a minute",
        RestartRequestParams {
            reason: Some(text("new certificate")),
            delay_ms: Some(Bounded::clamped(60_000)),
        },
        RestartRequestResult {
            ok: true,
            pid: 4711,
            restart_at_ms: TimestampMs(1_795_338_023_251),
            coalesced: false,
        },
    )
    .invalid("a delay that is too long", json!({ "delayMs": 86_400_000 }))
}

fn suspend_prepare() -> Examples<SuspendPrepareParams, SuspendPrepareResult> {
    Examples::success(
        "nothing goes on",
        SuspendPrepareParams { request_id: text("snapshot-1"), drain: None, terminal_policy: None },
        SuspendPrepareResult {
            status: PrepareStatus::Ready,
            suspension_id: Some("0d9a3f5c-6b1e-4c61-9a33-0d7c2a1be0b4".to_owned()),
            expires_at_ms: Some(TimestampMs(1_795_338_083_251)),
            retry_after_ms: None,
            active_count: 0,
            blockers: Vec::new(),
        },
    )
    .invalid("an id that is missing", json!({ "drain": true }))
}

fn suspend_status() -> Examples<SuspendStatusParams, SuspendStatusResult> {
    let result = SuspendStatusResult {
        status: SuspendStatus::Running,
        expires_at_ms: None,
        retry_after_ms: None,
        active_count: None,
        blockers: Vec::new(),
    };
    Examples::success("no suspension is held", SuspendStatusParams::default(), result)
        .invalid("a field that does not exist", json!({ "requestId": "snapshot-1" }))
}

fn suspend_resume() -> Examples<SuspendResumeParams, SuspendResumeResult> {
    Examples::success(
        "a suspension that has ended",
        SuspendResumeParams { suspension_id: text("0d9a3f5c-6b1e-4c61-9a33-0d7c2a1be0b4") },
        SuspendResumeResult { ok: true, status: SuspendStatus::Running, resumed: false },
    )
    .invalid("an id that is missing", json!({}))
}
