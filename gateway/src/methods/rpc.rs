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
        self.context.document.get().map_err(|error| internal(error).into())
    }
}
