//! `config.get`, `config.schema`.

use std::sync::Arc;

use jsonrpsee::core::{RpcResult, async_trait};
use openclaw_schema::{
    methods::config::{ConfigGetResult, ConfigSchemaResult},
    server::ConfigServer,
    types::NoParams,
};

use super::{Handlers, internal};
use crate::config::config_schema;

#[async_trait]
impl ConfigServer for Handlers {
    async fn config_get(&self, _: NoParams) -> RpcResult<ConfigGetResult> {
        let config = Arc::clone(&self.context.config);
        Ok(tokio::task::spawn_blocking(move || config.read()).await.map_err(internal)?)
    }

    async fn config_schema(&self, _: NoParams) -> RpcResult<ConfigSchemaResult> {
        Ok(tokio::task::spawn_blocking(config_schema).await.map_err(internal)?)
    }
}
