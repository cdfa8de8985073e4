//! `gateway.restart.request`, `gateway.suspend.prepare`, `gateway.suspend.status`, `gateway.suspend.resume`.

use std::time::Duration;

use jsonrpsee::core::RpcResult;
use openclaw_schema::{
    ErrorCode, RpcError,
    methods::lifecycle::{
        LifecycleMethod, RestartRequestParams, RestartRequestResult, SuspendPrepareParams,
        SuspendPrepareResult, SuspendResumeParams, SuspendResumeResult, SuspendStatus, SuspendStatusParams,
        SuspendStatusResult,
    },
    server::LifecycleServer,
};

use super::{Handlers, refuse};
use crate::lifecycle::{Busy, Conflict};

impl LifecycleServer for Handlers {
    fn gateway_restart_request(&self, params: RestartRequestParams) -> RpcResult<RestartRequestResult> {
        let reason = params
            .reason
            .as_ref()
            .map_or(LifecycleMethod::GatewayRestartRequest.name(), |reason| reason.as_str());
        let delay = Duration::from_millis(params.delay_ms.map_or(0, |delay| delay.get()));
        self.context
            .lifecycle
            .request_restart(reason, delay)
            .map_err(|error| refuse(RpcError::new(ErrorCode::Denied, error.to_string())))
    }

    fn gateway_suspend_prepare(&self, params: SuspendPrepareParams) -> RpcResult<SuspendPrepareResult> {
        let drain = params.drain.unwrap_or(false);
        self.context
            .lifecycle
            .suspend(params.request_id.as_str(), drain, || self.busy())
            .map_err(|conflict| refuse(held(conflict)))
    }

    fn gateway_suspend_status(&self, params: SuspendStatusParams) -> RpcResult<SuspendStatusResult> {
        let id = params.suspension_id.as_ref().map(|id| id.as_str());
        self.context.lifecycle.suspension(id, || self.busy()).map_err(|conflict| refuse(held(conflict)))
    }

    fn gateway_suspend_resume(&self, params: SuspendResumeParams) -> RpcResult<SuspendResumeResult> {
        let resumed = self.context.lifecycle.resume(params.suspension_id.as_str());
        resumed
            .map(|resumed| SuspendResumeResult { ok: true, status: SuspendStatus::Running, resumed })
            .map_err(|conflict| refuse(held(conflict)))
    }
}

impl Handlers {
    /// What goes on beside the call that asks, which is answered at once and not counted.
    fn busy(&self) -> Busy {
        Busy {
            runs: self.context.runs.counts().active as u64,
            calls: self.context.late().map_or(0, |late| late.calls.pending()),
        }
    }
}

/// cli.md section 9: what a second suspension is told.
fn held(conflict: Conflict) -> RpcError {
    let mut error = RpcError::new(ErrorCode::Unavailable, conflict.to_string());
    error.data.reason = Some("gateway-suspension-conflict".to_owned());
    error.data.retry_after_ms = Some(conflict.remaining_ms);
    error
}
