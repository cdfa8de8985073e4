//! A method without `#[meta]` says neither who may call it nor since when.

use jsonrpsee::{core::RpcResult, proc_macros::rpc};
use openclaw_schema::{contract, jsonrpsee};

#[contract(group = "Lamps")]
#[rpc(server, client, namespace = "lamps", namespace_separator = ".")]
pub trait Lamps {
    /// Counts the lamps.
    #[method(name = "count")]
    fn count(&self) -> RpcResult<u64>;
}

fn main() {}
