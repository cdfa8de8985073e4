//! `health`, `status`, `system-presence`, `last-heartbeat`, `gateway.identity.get`, `system.info`.

use jsonrpsee::{
    Extensions,
    core::{RpcResult, async_trait},
};
use openclaw_schema::{
    Scope,
    methods::gateway::{
        AgentSessions, GatewayIdentity, GatewayMethod, HealthParams, HealthResult, Heartbeat, PresenceEntry,
        SessionDefaults, StatusParams, StatusResult, StatusSessions, SystemInfo, TasksSummary,
    },
    server::GatewayServer,
    types::{NoParams, Prepared},
};

use super::{Handlers, caller, internal, refuse, unchanged};
use crate::{host, reload::Reloader, runs::RunCounts};

/// How many sessions `status` names.
const RECENT_SESSIONS: u64 = 10;

#[async_trait]
impl GatewayServer for Handlers {
    fn health(&self, params: HealthParams) -> RpcResult<Prepared<HealthResult>> {
        let fresh = params.probe.unwrap_or(false);
        let health = self.context.health(fresh).map_err(internal)?;
        if fresh {
            self.context.events.publish(openclaw_schema::events::EventName::Health, &health, None);
        }
        Ok(health)
    }

    async fn status(&self, extensions: &Extensions, _: StatusParams) -> RpcResult<StatusResult> {
        let is_admin = caller(extensions)?.scopes().allows(Scope::OperatorAdmin);
        let context = &self.context;
        let sessions = context.sessions.summary(if is_admin { RECENT_SESSIONS } else { 0 }).await;
        let sessions =
            sessions.map_err(|error| refuse(unchanged(&error, GatewayMethod::Status.name(), "")))?;
        let by_agent = context
            .agents
            .list
            .iter()
            .map(|agent| AgentSessions {
                agent_id: agent.id.clone(),
                count: context.runs.session_count(Some(&agent.id)),
            })
            .collect();
        let models = context.runs.models();
        let default_model =
            models.iter().find(|model| model.tags.iter().any(|tag| tag == "default")).cloned();
        let defaults = default_model.filter(|_| is_admin).map_or_else(SessionDefaults::default, |model| {
            SessionDefaults {
                model: Some(format!("{}/{}", model.provider, model.id)),
                context_tokens: model.context_window,
            }
        });
        Ok(StatusResult {
            runtime_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            channel_summary: Vec::new(),
            queued_system_events: Vec::new(),
            tasks: tasks(context.runs.counts()),
            sessions: StatusSessions { count: sessions.count, defaults, recent: sessions.recent, by_agent },
            uptime_ms: Some(context.uptime_ms()),
            connected_clients: Some(context.connections.open()),
            lifecycle: Some(context.lifecycle.status()),
            config: context.reloader.as_ref().map(Reloader::status),
        })
    }

    fn system_presence(&self, _: NoParams) -> RpcResult<Vec<PresenceEntry>> {
        Ok(self.context.connections.list())
    }

    fn last_heartbeat(&self, _: NoParams) -> RpcResult<Option<Heartbeat>> {
        Ok(None)
    }

    fn gateway_identity_get(&self, _: NoParams) -> RpcResult<GatewayIdentity> {
        let identity = &self.context.identity;
        Ok(GatewayIdentity {
            device_id: identity.device_id().to_owned(),
            public_key: identity.public_key().to_owned(),
        })
    }

    fn system_info(&self, _: NoParams) -> RpcResult<SystemInfo> {
        let context = &self.context;
        let (memory_total_bytes, memory_free_bytes) = host::memory();
        Ok(SystemInfo {
            machine_name: context.hostname.clone(),
            hostname: context.hostname.clone(),
            platform: std::env::consts::OS.to_owned(),
            release: host::kernel_release(),
            arch: std::env::consts::ARCH.to_owned(),
            os_label: host::os_label(),
            port: context.late().map_or(0, |late| late.port),
            pid: std::process::id(),
            process_instance_id: context.instance_id.clone(),
            uptime_ms: context.uptime_ms(),
            cpu_count: std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64,
            load_average: host::load_average(),
            memory_total_bytes,
            memory_free_bytes,
        })
    }
}

fn tasks(counts: RunCounts) -> TasksSummary {
    TasksSummary {
        total: (counts.active + counts.ended) as u64,
        active: counts.active as u64,
        terminal: counts.ended as u64,
        failures: counts.failed as u64,
    }
}
