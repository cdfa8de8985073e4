//! Every fault of a declaration is reported by one build.

use jsonrpsee::{core::RpcResult, proc_macros::rpc};
use openclaw_schema::{contract, contract::Examples, jsonrpsee, types::NoParams};

#[contract(title = "Lamps")]
#[rpc(server, client, namespace = "lamps")]
pub trait Lamps {
    #[method(name = "count")]
    #[meta(since = "0.1.0", examples = count)]
    fn count(&self) -> RpcResult<u64>;

    /// Switches a lamp.
    #[method(name = "switch")]
    #[meta(scope = "operator.write", since = "0.1.0", idempotant, examples = count, wait = "lamps.wait")]
    fn switch(&self, params: NoParams, lamp: u64) -> RpcResult<u64>;

    /// Forgets the lamps.
    #[method(name = "forget")]
    fn forget(&self) -> RpcResult<u64>;
}

fn count() -> Examples<NoParams, u64> {
    Examples::success("three lamps", NoParams {}, 3)
}

fn main() {}
