//! `rpc.discover`.

use jsonrpsee::core::RpcResult;
use openclaw_schema::{
    methods::rpc::OpenRpcDocument,
    server::RpcServer,
    types::{NoParams, Prepared},
};

use super::{Handlers, internal};

impl RpcServer for Handlers {
    fn rpc_discover(&self, _: NoParams) -> RpcResult<Prepared<OpenRpcDocument>> {
        let late = self.context.late().ok_or_else(|| internal("called before the gateway listens"))?;
        Ok(late.document.clone())
    }
}
