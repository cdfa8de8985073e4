//! What this gateway is and how it is doing: `health`, `status`, `system-presence`, `gateway.identity.get`,
//! `system.info`. Shapes follow wire.md section 10; stock answers more than ours, so results are read tolerantly.

use jsonrpsee::{core::RpcResult, proc_macros::rpc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    contract,
    contract::Examples,
    methods::lifecycle::LifecycleStatus,
    types::{NoParams, Prepared, TimestampMs},
};

/// Params of `health`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HealthParams {
    /// Take a fresh snapshot instead of the current one, which may be up to a minute old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<bool>,
}

/// Result of `health`: a snapshot of how the gateway is doing.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HealthResult {
    /// Whether the gateway works.
    pub ok: bool,
    /// When the snapshot was taken.
    pub ts: TimestampMs,
    /// How long taking it took, in milliseconds.
    #[serde(default)]
    pub duration_ms: u64,
    /// Chat channels by id. This gateway serves none.
    #[serde(default)]
    pub channels: Map<String, Value>,
    /// The ids of the channels, in order of display.
    #[serde(default)]
    pub channel_order: Vec<String>,
    /// The labels of the channels, by id.
    #[serde(default)]
    pub channel_labels: Map<String, Value>,
    /// Seconds between two heartbeats of an agent; 0 when heartbeats are off.
    #[serde(default)]
    pub heartbeat_seconds: u64,
    /// The agent that serves calls that name none.
    #[serde(default)]
    pub default_agent_id: String,
    /// The agents and their sessions.
    #[serde(default)]
    pub agents: Vec<AgentHealth>,
    /// The sessions of the default agent.
    #[serde(default)]
    pub sessions: SessionsSummary,
    /// The state of the gateway's own parts, and what they use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeHealth>,
}

/// One agent in a health snapshot.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentHealth {
    /// The id of the agent.
    pub agent_id: String,
    /// Whether it serves calls that name no agent.
    #[serde(default)]
    pub is_default: bool,
    /// Its sessions.
    #[serde(default)]
    pub sessions: SessionsSummary,
}

/// Sessions, counted.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionsSummary {
    /// How many sessions there are.
    #[serde(default)]
    pub count: u64,
    /// The sessions used last, newest first. Empty for callers without `operator.admin`.
    #[serde(default)]
    pub recent: Vec<RecentSession>,
}

/// One session in a summary.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecentSession {
    /// The session key.
    pub key: String,
    /// When it was used last; absent when that is not known.
    #[serde(default)]
    pub updated_at: Option<TimestampMs>,
    /// Milliseconds since then.
    #[serde(default)]
    pub age: Option<u64>,
}

/// What the gateway process uses.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeHealth {
    /// Milliseconds since the gateway started.
    pub uptime_ms: u64,
    /// Open sockets, this caller's included.
    pub connections: u64,
    /// Sockets that have not authenticated yet.
    pub unauthenticated_connections: u64,
    /// Calls that are being worked on.
    pub calls_in_flight: u64,
    /// Calls served since the start.
    pub calls_total: u64,
    /// Runs that have not ended.
    pub runs_active: u64,
    /// Resident memory in bytes; absent where the system does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

/// Params of `status`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StatusParams {
    /// Accepted for stock clients. This gateway has no channels to summarise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_channel_summary: Option<bool>,
    /// Accepted for stock clients, without effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub include_cli_projection: Option<bool>,
}

/// Result of `status`: what the gateway is busy with.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatusResult {
    /// The version of the gateway.
    #[serde(default)]
    pub runtime_version: Option<String>,
    /// One line per chat channel. This gateway serves none.
    #[serde(default)]
    pub channel_summary: Vec<Value>,
    /// System events that wait for an agent.
    #[serde(default)]
    pub queued_system_events: Vec<String>,
    /// Runs, counted by state.
    #[serde(default)]
    pub tasks: TasksSummary,
    /// Sessions, counted by agent.
    #[serde(default)]
    pub sessions: StatusSessions,
    /// Milliseconds since the gateway started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uptime_ms: Option<u64>,
    /// Clients that are connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected_clients: Option<u64>,
    /// How restarts and suspensions stand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<LifecycleStatus>,
    /// How the configuration stands; absent where the gateway is part of a program that reads none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<ConfigStatus>,
}

/// How the configuration of a running gateway stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigStatus {
    /// When something of it was taken over last: at the start, or since.
    pub loaded_at: TimestampMs,
    /// How often something was taken over since the start.
    #[serde(default)]
    pub reloads: u64,
    /// The keys that are otherwise in the file than the gateway runs with, and wait for a restart.
    #[serde(default)]
    pub waits_for_restart: Vec<String>,
    /// Why the file is not taken over, if it is not: the gateway runs with what it had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// Runs, counted.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TasksSummary {
    /// All runs that the gateway remembers.
    #[serde(default)]
    pub total: u64,
    /// Runs that have not ended.
    #[serde(default)]
    pub active: u64,
    /// Runs that have ended.
    #[serde(default)]
    pub terminal: u64,
    /// Runs that ended with an error.
    #[serde(default)]
    pub failures: u64,
}

/// Sessions in a `status`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatusSessions {
    /// How many sessions there are.
    #[serde(default)]
    pub count: u64,
    /// What a new session begins with.
    #[serde(default)]
    pub defaults: SessionDefaults,
    /// The sessions used last, newest first. Empty for callers without `operator.admin`.
    #[serde(default)]
    pub recent: Vec<RecentSession>,
    /// The same by agent.
    #[serde(default)]
    pub by_agent: Vec<AgentSessions>,
}

/// What a new session begins with. Both fields are null for callers without `operator.admin`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionDefaults {
    /// The model, as `provider/id`.
    #[serde(default)]
    pub model: Option<String>,
    /// The size of its context window in tokens.
    #[serde(default)]
    pub context_tokens: Option<u64>,
}

/// The sessions of one agent.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentSessions {
    /// The id of the agent.
    pub agent_id: String,
    /// How many sessions it has.
    pub count: u64,
}

/// One client, or the gateway itself, in the presence list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PresenceEntry {
    /// The host name the client gave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The address it connected from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// The id of the client program, for example `cli`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its platform, for example `linux`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// What kind of client it is, for example `cli`, `ui`; the gateway itself is `gateway`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// Why the entry stands here: `self`, `connect`, `disconnect`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its instance, if it named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// The scopes it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Vec<String>>,
    /// The entry in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// When the entry changed last.
    pub ts: TimestampMs,
}

/// Result of `gateway.identity.get`: who this gateway is, whatever its address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GatewayIdentity {
    /// Lower-case hexadecimal SHA-256 of the raw public key.
    pub device_id: String,
    /// The raw Ed25519 public key, base64url without padding.
    pub public_key: String,
}

/// Result of `system.info`: the host that the gateway runs on.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SystemInfo {
    /// The name of the machine for people.
    #[serde(default)]
    pub machine_name: String,
    /// The host name.
    #[serde(default)]
    pub hostname: String,
    /// The operating system, for example `linux`.
    #[serde(default)]
    pub platform: String,
    /// The release of its kernel.
    #[serde(default)]
    pub release: String,
    /// The processor architecture, for example `x86_64`.
    #[serde(default)]
    pub arch: String,
    /// The operating system for people, for example `Debian GNU/Linux 12 (bookworm)`.
    #[serde(default)]
    pub os_label: String,
    /// The port that the gateway listens on.
    #[serde(default)]
    pub port: u16,
    /// The process id of the gateway.
    #[serde(default)]
    pub pid: u32,
    /// Differs at every start of the gateway.
    #[serde(default)]
    pub process_instance_id: String,
    /// Milliseconds since the gateway started.
    #[serde(default)]
    pub uptime_ms: u64,
    /// Processors that the gateway may use.
    #[serde(default)]
    pub cpu_count: u64,
    /// Load averages over 1, 5 and 15 minutes; zeros where the system has none.
    #[serde(default)]
    pub load_average: [f64; 3],
    /// Memory of the host in bytes; 0 when unknown.
    #[serde(default)]
    pub memory_total_bytes: u64,
    /// Memory of the host that is available, in bytes; 0 when unknown.
    #[serde(default)]
    pub memory_free_bytes: u64,
}

/// A heartbeat of an agent: a run that the gateway starts by itself, at intervals.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Heartbeat {
    /// When it was.
    pub ts: TimestampMs,
    /// How it went, for example `skipped`.
    pub status: String,
    /// The beginning of what the agent said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<String>,
    /// Why it went so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long it took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
}

/// What this gateway is and how it is doing.
#[contract(group = "Gateway")]
#[rpc(server, client)]
pub trait Gateway {
    /// Says how the gateway is doing.
    ///
    /// Answers the current snapshot, which is at most a minute old; `probe` takes a fresh one. Any
    /// authenticated caller may ask.
    #[method(name = "health")]
    #[meta(scope = "none", since = "0.1.0", idempotent, examples = health)]
    fn health(&self, params: HealthParams) -> RpcResult<Prepared<HealthResult>>;

    /// Says what the gateway is busy with: runs, sessions, clients.
    #[method(name = "status", with_extensions)]
    #[meta(scope = "operator.read", since = "0.1.0", idempotent, errors(Unavailable), examples = status)]
    async fn status(&self, params: StatusParams) -> RpcResult<StatusResult>;

    /// Lists the clients that are or were connected, the gateway itself first.
    #[method(name = "system-presence")]
    #[meta(scope = "operator.read", since = "0.1.0", idempotent, examples = presence)]
    fn system_presence(&self, params: NoParams) -> RpcResult<Vec<PresenceEntry>>;

    /// Answers the last heartbeat of an agent.
    ///
    /// This gateway has no heartbeats: the answer is always null.
    #[method(name = "last-heartbeat")]
    #[meta(scope = "operator.read", since = "0.1.0", idempotent, examples = last_heartbeat)]
    fn last_heartbeat(&self, params: NoParams) -> RpcResult<Option<Heartbeat>>;

    /// Says who this gateway is: the same identity at every address and after every restart.
    #[method(name = "gateway.identity.get")]
    #[meta(scope = "operator.read", since = "0.1.0", idempotent, examples = identity)]
    fn gateway_identity_get(&self, params: NoParams) -> RpcResult<GatewayIdentity>;

    /// Describes the host that the gateway runs on.
    #[method(name = "system.info")]
    #[meta(scope = "operator.read", since = "0.1.0", idempotent, examples = system_info)]
    fn system_info(&self, params: NoParams) -> RpcResult<SystemInfo>;
}

/// The health snapshot of the examples.
pub(crate) fn example_health() -> HealthResult {
    HealthResult {
        ok: true,
        ts: TimestampMs(1_795_337_963_251),
        duration_ms: 0,
        channels: Map::new(),
        channel_order: Vec::new(),
        channel_labels: Map::new(),
        heartbeat_seconds: 0,
        default_agent_id: "main".to_owned(),
        agents: vec![AgentHealth {
            agent_id: "main".to_owned(),
            is_default: true,
            sessions: SessionsSummary { count: 1, recent: Vec::new() },
        }],
        sessions: SessionsSummary { count: 1, recent: Vec::new() },
        runtime: Some(RuntimeHealth {
            uptime_ms: 43_783,
            connections: 1,
            unauthenticated_connections: 0,
            calls_in_flight: 1,
            calls_total: 12,
            runs_active: 0,
            memory_bytes: Some(9_437_184),
        }),
    }
}

/// The presence entry of the examples.
pub(crate) fn example_presence() -> PresenceEntry {
    PresenceEntry {
        host: Some("studio".to_owned()),
        mode: Some("gateway".to_owned()),
        reason: Some("self".to_owned()),
        version: Some("0.1.0".to_owned()),
        platform: Some("linux".to_owned()),
        text: Some("Gateway: studio".to_owned()),
        ts: TimestampMs(1_795_337_963_251),
        ..PresenceEntry::default()
    }
}

fn health() -> Examples<HealthParams, Prepared<HealthResult>> {
    let snapshot = Prepared::new(&example_health()).expect("the example serialises");
    Examples::success("the current snapshot", HealthParams::default(), snapshot)
        .invalid("a probe that is no boolean", json!({ "probe": "yes" }))
}

fn status() -> Examples<StatusParams, StatusResult> {
    let result = StatusResult {
        runtime_version: Some("0.1.0".to_owned()),
        channel_summary: Vec::new(),
        queued_system_events: Vec::new(),
        tasks: TasksSummary { total: 3, active: 1, terminal: 2, failures: 0 },
        sessions: StatusSessions {
            count: 1,
            defaults: SessionDefaults { model: Some("echo/echo-1".to_owned()), context_tokens: Some(8192) },
            recent: vec![RecentSession {
                key: "agent:main:main".to_owned(),
                updated_at: Some(TimestampMs(1_795_337_960_000)),
                age: Some(3251),
            }],
            by_agent: vec![AgentSessions { agent_id: "main".to_owned(), count: 1 }],
        },
        uptime_ms: Some(43_783),
        connected_clients: Some(1),
        lifecycle: Some(LifecycleStatus::default()),
        config: Some(ConfigStatus {
            loaded_at: TimestampMs(1_795_337_920_000),
            reloads: 1,
            waits_for_restart: vec!["gateway.port or gateway.bind".to_owned()],
            problem: None,
        }),
    };
    Examples::success("what an administrator sees", StatusParams::default(), result)
        .invalid("a field that does not exist", json!({ "verbose": true }))
}

fn presence() -> Examples<NoParams, Vec<PresenceEntry>> {
    Examples::success("the gateway alone", NoParams {}, vec![example_presence()])
        .invalid("a field that does not exist", json!({ "limit": 5 }))
}

fn last_heartbeat() -> Examples<NoParams, Option<Heartbeat>> {
    Examples::success("a gateway without heartbeats", NoParams {}, None)
        .invalid("a field that does not exist", json!({ "agentId": "main" }))
}

fn identity() -> Examples<NoParams, GatewayIdentity> {
    // The key of the signature test vector, wire.md section 5.
    let identity = GatewayIdentity {
        device_id: "56475aa75463474c0285df5dbf2bcab73da651358839e9b77481b2eab107708c".to_owned(),
        public_key: "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg".to_owned(),
    };
    Examples::success("the identity", NoParams {}, identity)
        .invalid("a field that does not exist", json!({ "full": true }))
}

fn system_info() -> Examples<NoParams, SystemInfo> {
    let info = SystemInfo {
        machine_name: "studio".to_owned(),
        hostname: "studio".to_owned(),
        platform: "linux".to_owned(),
        release: "6.18.44".to_owned(),
        arch: "x86_64".to_owned(),
        os_label: "Debian GNU/Linux 12 (bookworm)".to_owned(),
        port: 18789,
        pid: 4711,
        process_instance_id: "0199f3c4-5b7e-7c1e-9f55-6f1d2a3b4c5d".to_owned(),
        uptime_ms: 43_783,
        cpu_count: 2,
        load_average: [0.5, 0.4, 0.3],
        memory_total_bytes: 25_769_803_776,
        memory_free_bytes: 12_884_901_888,
    };
    Examples::success("the host", NoParams {}, info)
        .invalid("a field that does not exist", json!({ "disks": true }))
}
