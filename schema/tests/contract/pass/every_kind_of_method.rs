//! A plain call, a long poll, a two-phase call and a subscription, and what is recorded of them.

use jsonrpsee::{
    core::{RpcResult, SubscriptionResult},
    proc_macros::rpc,
};
use openclaw_schema::{
    ErrorCode, Scope, contract,
    contract::{Contract, Examples},
    jsonrpsee,
    types::{NoParams, SubscriptionId},
};

#[contract(group = "Lamps")]
#[rpc(server, client, namespace = "lamps", namespace_separator = ".")]
pub trait Lamps {
    /// Counts the lamps,
    /// all of them.
    ///
    /// Broken ones, too.
    #[method(name = "count")]
    #[meta(scope = "operator.read", since = "0.1.0", idempotent, errors(Unavailable), examples = count)]
    fn count(&self) -> RpcResult<u64>;

    /// Replaces every lamp.
    #[method(name = "replace", with_extensions)]
    #[meta(scope = "operator.write", since = "0.2.0", examples = count, outcome = bool, wait = "lamps.await")]
    async fn replace(&self, params: NoParams) -> RpcResult<u64>;

    /// Waits for the replacement.
    #[deprecated]
    #[method(name = "await")]
    #[meta(scope = "none", since = "0.2.0", long_poll, examples = count)]
    async fn wait(&self) -> RpcResult<u64>;

    /// Sends the number of lamps when it changes.
    #[subscription(name = "follow" => "changed", unsubscribe = "unfollow", item = u64)]
    #[meta(scope = "operator.read", since = "0.1.0", examples = follow)]
    async fn follow(&self) -> SubscriptionResult;
}

fn count() -> Examples<NoParams, u64> {
    Examples::success("three lamps", NoParams {}, 3)
}

fn follow() -> Examples<NoParams, SubscriptionId> {
    Examples::success("all lamps", NoParams {}, SubscriptionId::Number(1))
}

fn main() {
    let names: Vec<_> = LampsMethod::ALL.iter().map(|method| method.name()).collect();
    assert_eq!(names, ["lamps.count", "lamps.replace", "lamps.await", "lamps.follow"]);
    assert_eq!(LampsContract::GROUP, "Lamps");

    let count = LampsMethod::Count.record();
    assert_eq!((count.summary, count.description), ("Counts the lamps, all of them.", "Broken ones, too."));
    assert_eq!((count.scope, count.since, count.errors), (Scope::OperatorRead, "0.1.0", &[ErrorCode::Unavailable][..]));
    assert!(count.idempotent && !count.takes_params && !count.deprecated && !count.long_poll);

    let replace = LampsMethod::Replace.record();
    assert_eq!(replace.two_phase.map(|two_phase| two_phase.wait), Some("lamps.await"));
    assert!(replace.takes_params && replace.with_extensions && !replace.idempotent);

    let wait = LampsMethod::Wait.record();
    assert!(wait.deprecated && wait.long_poll && wait.scope == Scope::None);

    let follow = LampsMethod::Follow.record().subscription.expect("a subscription");
    assert_eq!((follow.notification, follow.unsubscribe), ("lamps.changed", "lamps.unfollow"));
}
