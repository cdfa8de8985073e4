//! What handlers share: the domains of one gateway.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use openclaw_schema::{
    events::{EventName, TickEvent},
    methods::{
        connect::ConnectPolicy,
        gateway::{AgentHealth, HealthResult, RuntimeHealth, SessionsSummary},
    },
    types::{Prepared, TimestampMs},
};
use serde_json::Map;
use tokio::sync::Semaphore;

use crate::{
    config::ConfigFile,
    devices::Devices,
    dispatcher::CallCounts,
    document::ContractDocument,
    events::EventBus,
    host,
    identity::GatewayIdentity,
    lifecycle::Lifecycle,
    logs::LogReader,
    presence::Connections,
    reload::Reloader,
    runs::Runs,
    sessions::manage::Sessions,
    settings::{Agents, LiveLimits},
    state::StateDir,
    tls::Tls,
    usage::UsageLedger,
};

/// For how long a health snapshot answers calls that do not ask for a fresh one.
const SNAPSHOT_AGE: Duration = Duration::from_secs(1);
/// Time between two `health` events (wire.md section 7).
const HEALTH_EVENT_INTERVAL: Duration = Duration::from_secs(60);

/// The domains of one gateway.
#[derive(Debug)]
pub(crate) struct Context {
    started: Instant,
    /// Differs at every start.
    pub(crate) instance_id: String,
    pub(crate) hostname: String,
    pub(crate) state: StateDir,
    pub(crate) identity: GatewayIdentity,
    pub(crate) agents: Agents,
    pub(crate) runs: Runs,
    pub(crate) sessions: Sessions,
    pub(crate) usage: UsageLedger,
    pub(crate) config: Arc<ConfigFile>,
    pub(crate) document: ContractDocument,
    pub(crate) logs: LogReader,
    pub(crate) devices: Devices,
    pub(crate) events: EventBus,
    pub(crate) lifecycle: Lifecycle,
    /// Absent in a program that reads no configuration file.
    pub(crate) reloader: Option<Reloader>,
    pub(crate) connections: Connections,
    pub(crate) limits: LiveLimits,
    snapshot: Mutex<Option<Snapshot>>,
    late: OnceLock<Late>,
}

/// What a context is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) state: StateDir,
    pub(crate) identity: GatewayIdentity,
    pub(crate) agents: Agents,
    pub(crate) runs: Runs,
    pub(crate) sessions: Sessions,
    pub(crate) usage: UsageLedger,
    pub(crate) config: ConfigFile,
    pub(crate) document: ContractDocument,
    pub(crate) logs: LogReader,
    pub(crate) devices: Devices,
    pub(crate) events: EventBus,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) reloader: Option<Reloader>,
}

/// What is known once the dispatcher is sealed and the port is bound.
#[derive(Debug)]
pub(crate) struct Late {
    pub(crate) calls: Arc<CallCounts>,
    pub(crate) unauthenticated: Arc<Semaphore>,
    pub(crate) port: u16,
    /// Where the gateway listens.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Absent where the port is plain.
    pub(crate) tls: Option<Arc<Tls>>,
    /// Where a proxy on this host makes the gateway known, if one does.
    pub(crate) proxy_url: Option<String>,
}

#[derive(Debug)]
struct Snapshot {
    taken: Instant,
    health: Prepared<HealthResult>,
}

impl Context {
    pub(crate) fn new(parts: Parts, limits: LiveLimits) -> Self {
        let Parts {
            state,
            identity,
            agents,
            runs,
            sessions,
            usage,
            config,
            document,
            logs,
            devices,
            events,
            lifecycle,
            reloader,
        } = parts;
        let hostname = host::hostname();
        Self {
            started: Instant::now(),
            instance_id: uuid::Uuid::now_v7().to_string(),
            connections: Connections::new(&hostname, events.clone()),
            hostname,
            state,
            identity,
            agents,
            runs,
            sessions,
            usage,
            config: Arc::new(config),
            document,
            logs,
            devices,
            events,
            lifecycle,
            reloader,
            limits,
            snapshot: Mutex::new(None),
            late: OnceLock::new(),
        }
    }

    /// Gives what the context could not know when it was made. Once only; the first stays.
    pub(crate) fn complete(&self, late: Late) {
        let _ = self.late.set(late);
    }

    /// What is known once the gateway listens; `None` before, when nobody can have called.
    pub(crate) fn late(&self) -> Option<&Late> {
        self.late.get()
    }

    /// What a caller that connects is told of the bounds.
    pub(crate) fn policy(&self) -> ConnectPolicy {
        let limits = self.limits.load();
        ConnectPolicy {
            max_payload: limits.max_payload_bytes as u64,
            max_buffered_bytes: limits.max_buffered_bytes as u64,
            tick_interval_ms: millis(limits.tick_interval),
        }
    }

    pub(crate) fn uptime_ms(&self) -> u64 {
        millis(self.started.elapsed())
    }

    /// The current health snapshot, or a fresh one.
    pub(crate) fn health(&self, fresh: bool) -> Result<Prepared<HealthResult>, serde_json::Error> {
        let mut snapshot = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(snapshot) = &*snapshot
            && !fresh
            && snapshot.taken.elapsed() < SNAPSHOT_AGE
        {
            return Ok(snapshot.health.clone());
        }
        let health = Prepared::new(&self.take_snapshot())?;
        *snapshot = Some(Snapshot { taken: Instant::now(), health: health.clone() });
        Ok(health)
    }

    fn take_snapshot(&self) -> HealthResult {
        let begun = Instant::now();
        let agents = self
            .agents
            .list
            .iter()
            .map(|agent| AgentHealth {
                agent_id: agent.id.clone(),
                is_default: agent.id == self.agents.default_id,
                sessions: self.count_sessions(&agent.id),
            })
            .collect();
        let late = self.late();
        let max_unauthenticated = self.limits.load().max_unauthenticated;
        let unauthenticated = late.map_or(0, |late| {
            // The bound may have changed a moment ago.
            max_unauthenticated.saturating_sub(late.unauthenticated.available_permits())
        });
        let runtime = RuntimeHealth {
            uptime_ms: self.uptime_ms(),
            connections: self.connections.open(),
            unauthenticated_connections: unauthenticated as u64,
            calls_in_flight: late.map_or(0, |late| late.calls.pending()),
            calls_total: late.map_or(0, |late| late.calls.total()),
            runs_active: self.runs.counts().active as u64,
            memory_bytes: host::resident_bytes(),
        };
        HealthResult {
            ok: true,
            ts: TimestampMs::now(),
            channels: Map::new(),
            channel_order: Vec::new(),
            channel_labels: Map::new(),
            heartbeat_seconds: 0,
            default_agent_id: self.agents.default_id.clone(),
            agents,
            sessions: self.count_sessions(&self.agents.default_id),
            runtime: Some(runtime),
            duration_ms: millis(begun.elapsed()),
        }
    }

    fn count_sessions(&self, agent_id: &str) -> SessionsSummary {
        SessionsSummary { count: self.runs.session_count(Some(agent_id)), recent: Vec::new() }
    }

    /// Sends `tick` and `health` events until it is dropped.
    pub(crate) async fn send_clock_events(&self, tick_interval: Duration) {
        let mut tick = tokio::time::interval(tick_interval);
        let mut health = tokio::time::interval(HEALTH_EVENT_INTERVAL);
        tick.tick().await;
        health.tick().await;
        loop {
            tokio::select! {
                _ = tick.tick() => self.events.publish(EventName::Tick, &TickEvent { ts: TimestampMs::now() }, None),
                _ = health.tick() => self.send_health(),
            }
        }
    }

    /// Takes a fresh snapshot and sends it as an event.
    pub(crate) fn send_health(&self) {
        match self.health(true) {
            Ok(health) => self.events.publish(EventName::Health, &health, None),
            Err(error) => tracing::error!(%error, "a health snapshot does not serialise"),
        }
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
