//! `config.get`.

use std::sync::Arc;

use jsonrpsee::core::{RpcResult, async_trait};
use openclaw_schema::{methods::config::ConfigGetResult, server::ConfigServer, types::NoParams};

use super::{Handlers, internal};

#[async_trait]
impl ConfigServer for Handlers {
    async fn config_get(&self, _: NoParams) -> RpcResult<ConfigGetResult> {
        let config = Arc::clone(&self.context.config);
        Ok(tokio::task::spawn_blocking(move || config.read()).await.map_err(internal)?)
    }
}
