//! `logs.tail`, `logs.follow`.

use jsonrpsee::{
    PendingSubscriptionSink,
    core::{RpcResult, SubscriptionResult, async_trait},
};
use openclaw_schema::{
    ErrorCode, RpcError,
    methods::logs::{LogsFollowParams, LogsTailParams, LogsTailResult},
    server::LogsServer,
};

use super::{Handlers, refuse};
use crate::logs::LogError;

#[async_trait]
impl LogsServer for Handlers {
    async fn logs_tail(&self, params: LogsTailParams) -> RpcResult<LogsTailResult> {
        self.context.logs.tail(params).await.map_err(|error| refuse(unreadable(&error)))
    }

    async fn logs_follow(
        &self,
        pending: PendingSubscriptionSink,
        params: LogsFollowParams,
    ) -> SubscriptionResult {
        let mut lines = match self.context.logs.follow(params.cursor).await {
            Ok(lines) => lines,
            Err(error) => {
                pending.reject(unreadable(&error)).await;
                return Ok(());
            }
        };
        let sink = pending.accept().await?;
        loop {
            let line = tokio::select! {
                line = lines.next() => line,
                () = sink.closed() => return Ok(()),
            };
            let line = line.map_err(|error| unreadable(&error).message)?;
            if sink.send(serde_json::value::to_raw_value(&line)?).await.is_err() {
                return Ok(());
            }
        }
    }
}

fn unreadable(error: &LogError) -> RpcError {
    tracing::warn!(%error, cause = std::error::Error::source(error).map(tracing::field::display), "the log cannot be read");
    RpcError::new(ErrorCode::Unavailable, error.to_string())
}
