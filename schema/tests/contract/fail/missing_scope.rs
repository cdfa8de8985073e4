//! A method without a scope would be open to all by oversight.

use jsonrpsee::{core::RpcResult, proc_macros::rpc};
use openclaw_schema::{contract, contract::Examples, jsonrpsee, types::NoParams};

#[contract(group = "Lamps")]
#[rpc(server, client, namespace = "lamps", namespace_separator = ".")]
pub trait Lamps {
    /// Counts the lamps.
    #[method(name = "count")]
    #[meta(since = "0.1.0", examples = count)]
    fn count(&self) -> RpcResult<u64>;
}

fn count() -> Examples<NoParams, u64> {
    Examples::success("three lamps", NoParams {}, 3)
}

fn main() {}
