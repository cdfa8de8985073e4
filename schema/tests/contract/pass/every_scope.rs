//! The attribute knows every scope of the contract.

use jsonrpsee::{core::RpcResult, proc_macros::rpc};
use openclaw_schema::{
    Scope, contract,
    contract::{Contract, Examples},
    jsonrpsee,
    types::NoParams,
};

#[contract(group = "Lamps")]
#[rpc(server, client, namespace = "lamps", namespace_separator = ".")]
pub trait Lamps {
    /// Asks for nothing.
    #[method(name = "a")]
    #[meta(scope = "none", since = "0.1.0", examples = count)]
    fn a(&self) -> RpcResult<u64>;

    /// Asks for the right to read.
    #[method(name = "b")]
    #[meta(scope = "operator.read", since = "0.1.0", examples = count)]
    fn b(&self) -> RpcResult<u64>;

    /// Asks for the right to write.
    #[method(name = "c")]
    #[meta(scope = "operator.write", since = "0.1.0", examples = count)]
    fn c(&self) -> RpcResult<u64>;

    /// Asks for the right to approve.
    #[method(name = "d")]
    #[meta(scope = "operator.approvals", since = "0.1.0", examples = count)]
    fn d(&self) -> RpcResult<u64>;

    /// Asks for the right to pair.
    #[method(name = "e")]
    #[meta(scope = "operator.pairing", since = "0.1.0", examples = count)]
    fn e(&self) -> RpcResult<u64>;

    /// Asks for all rights.
    #[method(name = "f")]
    #[meta(scope = "operator.admin", since = "0.1.0", examples = count)]
    fn f(&self) -> RpcResult<u64>;
}

fn count() -> Examples<NoParams, u64> {
    Examples::success("three lamps", NoParams {}, 3)
}

fn main() {
    let scopes: Vec<Scope> = LampsContract::METHODS.iter().map(|method| method.scope).collect();
    assert_eq!(scopes, Scope::ALL);
}
