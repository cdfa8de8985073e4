//! `logs.*`: the gateway's own log.

use jsonrpsee::{
    core::{RpcResult, SubscriptionResult},
    proc_macros::rpc,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    contract,
    contract::Examples,
    types::{Bounded, SubscriptionId},
};

/// Params of `logs.tail`. Without `cursor`, the end of the log is read.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogsTailParams {
    /// Byte offset to go on from: the `cursor` of an earlier result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<u64>,
    /// Keep at most this many lines, the last ones. 500 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<Bounded<1, 5000>>,
    /// Read at most this many bytes. 250000 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<Bounded<1, 1_000_000>>,
    /// Keep only lines written within this many milliseconds before now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<Bounded<1, { u64::MAX }>>,
}

/// Result of `logs.tail`. Only complete lines are returned; bytes that are not UTF-8 become U+FFFD.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogsTailResult {
    /// The path of the log file on the gateway's host.
    pub file: String,
    /// Byte offset just after the last complete line: pass it as `cursor` to go on from here.
    pub cursor: u64,
    /// The size of the file in bytes.
    pub size: u64,
    /// The lines, oldest first, without their line ends. Each is one JSON object.
    pub lines: Vec<String>,
    /// Whether older lines were left out because of `limit` or `maxBytes`.
    pub truncated: bool,
    /// Whether the given `cursor` could not be gone on from, and the end was read instead: the file was
    /// rotated, or has grown by more than `maxBytes` since.
    pub reset: bool,
    /// How many bytes lie between the given `cursor` and the window that was read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped_bytes: Option<u64>,
}

/// Params of `logs.follow`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogsFollowParams {
    /// Byte offset to begin at: the `cursor` of a `logs.tail` result. The end of the log by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<u64>,
}

/// One line of the log, as `logs.follow` sends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogLine {
    /// The line, without its line end: one JSON object.
    pub line: String,
    /// Byte offset just after the line: pass it as `cursor` to go on from here.
    pub cursor: u64,
    /// Whether lines between the last item and this one were lost, because the file was rotated meanwhile.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub reset: bool,
}

/// The gateway's own log.
#[contract(group = "Logs")]
#[rpc(server, client, namespace = "logs", namespace_separator = ".")]
pub trait Logs {
    /// Reads the end of the gateway's log.
    ///
    /// The cost does not depend on the size of the log. To follow it by polling, pass the `cursor` of one
    /// result to the next call; to be sent new lines, subscribe with `logs.follow`.
    #[method(name = "tail")]
    #[meta(scope = "operator.read", since = "0.1.0", idempotent, errors(Unavailable), examples = logs_tail)]
    async fn logs_tail(&self, params: LogsTailParams) -> RpcResult<LogsTailResult>;

    /// Sends each new line of the gateway's log.
    #[subscription(name = "follow" => "line", unsubscribe = "unfollow", item = LogLine)]
    #[meta(scope = "operator.read", since = "0.1.0", errors(Unavailable), examples = logs_follow)]
    async fn logs_follow(&self, params: LogsFollowParams) -> SubscriptionResult;
}

fn logs_tail() -> Examples<LogsTailParams, LogsTailResult> {
    let line =
        r#"{"time":"2026-11-22T09:05:01.461Z","level":"INFO","subsystem":"gateway","message":"ready"}"#;
    Examples::success(
        "the lines of the last minute",
        LogsTailParams { since_ms: Some(Bounded::clamped(60_000)), ..LogsTailParams::default() },
        LogsTailResult {
            file: "/home/ada/.openclaw/gateway/logs/openclaw.log".to_owned(),
            cursor: 18_204,
            size: 18_204,
            lines: vec![line.to_owned()],
            truncated: false,
            reset: false,
            skipped_bytes: None,
        },
    )
    .invalid("a misspelt field", json!({ "sinceMS": 60_000 }))
    .invalid("a limit out of bounds", json!({ "limit": 0 }))
}

fn logs_follow() -> Examples<LogsFollowParams, SubscriptionId> {
    Examples::success("from the end", LogsFollowParams::default(), SubscriptionId::Number(4_021_882_117))
        .invalid("a cursor that is no offset", json!({ "cursor": -1 }))
}
