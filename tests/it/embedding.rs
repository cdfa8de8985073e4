//! A contract of an embedding program: declared like the core ones, and then served, documented, validated and guarded
//! like them. `gateway/examples/embedding.rs` shows the same as a program.

use std::time::Duration;

use jsonrpsee::{RpcModule, core::RpcResult, core::async_trait, proc_macros::rpc};
use openclaw_gateway::{Gateway, SealError, StartError};
use openclaw_schema::{
    contract,
    contract::{Contract as _, Examples},
    document::{self, Api},
    types::{Bounded, NoParams},
};
use openclaw_tests::harness::{self, TOKEN, TestGateway};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{contract::assert_valid, contract::validator};

/// Params of `lab.mix`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct MixParams {
    /// What is mixed.
    pub(crate) colours: Vec<Colour>,
    /// How many drops of each. One by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) drops: Option<Bounded<1, 10>>,
}

/// A colour.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Colour {
    /// Like the sky.
    Blue,
    /// Like the sun.
    Yellow,
}

/// Result of `lab.mix`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MixResult {
    /// The colour that comes of it.
    pub(crate) colour: String,
}

/// Params of `lab.rest`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RestParams {
    /// For how long, in milliseconds.
    pub(crate) ms: u64,
}

/// A laboratory.
#[contract(group = "Laboratory")]
#[rpc(server, client, namespace = "lab", namespace_separator = ".")]
pub(crate) trait Lab {
    /// Mixes colours.
    #[method(name = "mix")]
    #[meta(scope = "operator.read", since = "0.1.0", idempotent, examples = mix)]
    fn lab_mix(&self, params: MixParams) -> RpcResult<MixResult>;

    /// Does nothing for a while.
    #[method(name = "rest")]
    #[meta(scope = "operator.write", since = "0.1.0", examples = rest)]
    async fn lab_rest(&self, params: RestParams) -> RpcResult<u64>;

    /// Blows up.
    #[method(name = "explode")]
    #[meta(scope = "operator.admin", since = "0.1.0", examples = explode)]
    fn lab_explode(&self, params: NoParams) -> RpcResult<u64>;

    /// Blows up a moment later.
    #[method(name = "smoulder")]
    #[meta(scope = "operator.admin", since = "0.1.0", examples = explode)]
    async fn lab_smoulder(&self, params: NoParams) -> RpcResult<u64>;
}

fn mix() -> Examples<MixParams, MixResult> {
    Examples::success(
        "green",
        MixParams { colours: vec![Colour::Blue, Colour::Yellow], drops: None },
        MixResult { colour: "green".to_owned() },
    )
    .invalid("a colour that does not exist", json!({ "colours": ["blu"] }))
}

fn rest() -> Examples<RestParams, u64> {
    Examples::success("a millisecond", RestParams { ms: 1 }, 1).invalid("no time at all", json!({}))
}

fn explode() -> Examples<NoParams, u64> {
    Examples::success("it does not", NoParams {}, 0).invalid("a fuse", json!({ "fuse": 1 }))
}

/// The laboratory that the suite serves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bench;

#[async_trait]
impl LabServer for Bench {
    fn lab_mix(&self, params: MixParams) -> RpcResult<MixResult> {
        let drops = params.drops.map_or(1, Bounded::get);
        Ok(MixResult { colour: format!("{:?} x{drops}", params.colours) })
    }

    async fn lab_rest(&self, params: RestParams) -> RpcResult<u64> {
        tokio::time::sleep(Duration::from_millis(params.ms)).await;
        Ok(params.ms)
    }

    fn lab_explode(&self, _: NoParams) -> RpcResult<u64> {
        panic!("the laboratory blew up, as it should in this test")
    }

    async fn lab_smoulder(&self, _: NoParams) -> RpcResult<u64> {
        tokio::task::yield_now().await;
        panic!("the laboratory blew up, as it should in this test")
    }
}

/// A gateway that serves the laboratory too.
pub(crate) async fn laboratory() -> TestGateway {
    TestGateway::start_with(|_| {}, |builder| builder.serve::<LabContract>(Bench.into_rpc())).await
}

fn api() -> Api {
    Api::core().with::<LabContract>()
}

#[test]
fn the_contract_is_clean() {
    assert_eq!(document::lint(&api()), Vec::<String>::new());
}

#[tokio::test]
async fn its_methods_are_in_the_document_beside_the_core_ones() {
    let gateway = laboratory().await;
    let fetched = gateway.http("GET", "/openrpc.json", &[], "").await.json();
    let discovered =
        gateway.call(openclaw_schema::methods::rpc::RpcMethod::RpcDiscover.name(), json!({})).await;
    assert_eq!(fetched, discovered["result"]);
    assert_eq!(fetched, api().document());
    let names: Vec<&str> = fetched["methods"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|method| method["name"].as_str().expect("a name"))
        .collect();
    for method in LabMethod::ALL {
        assert!(names.contains(&method.name()), "{} is not among {names:?}", method.name());
    }
    assert_eq!(names.len(), Api::core().methods().count() + LabMethod::ALL.len());
}

#[tokio::test]
async fn its_methods_are_called_validated_and_guarded() {
    let gateway = laboratory().await;
    let document = gateway.http("GET", "/openrpc.json", &[], "").await.json();
    let answer = gateway.call(LabMethod::LabMix.name(), json!({ "colours": ["blue"], "drops": 3 })).await;
    assert_eq!(answer["result"], json!({ "colour": "[Blue] x3" }));
    let schema = validator(&document, &json!({ "$ref": "#/components/schemas/MixResult" }));
    assert_valid(&schema, &answer["result"], "lab.mix");

    for (params, path, nearest) in [
        (json!({ "colours": ["blu"] }), "/colours/0", json!("blue")),
        (json!({ "colors": [] }), "", json!("colours")),
        (json!({ "colours": [], "drops": 11 }), "/drops", Value::Null),
        (json!([["blue"]]), "", Value::Null),
    ] {
        let error = &gateway.call(LabMethod::LabMix.name(), params.clone()).await["error"];
        assert_eq!(
            (&error["code"], &error["data"]["path"]),
            (&json!(-32602), &json!(path)),
            "{params}: {error}"
        );
        assert_eq!(error["data"]["nearest"], nearest, "{params}");
        assert_eq!(error["data"]["method"], "lab.mix", "{params}");
    }

    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", bearer.as_str()), ("openclaw-scopes", "operator.read")];
    let call = |method: LabMethod, params: Value| {
        json!({ "jsonrpc": "2.0", "id": 1, "method": method.name(), "params": params }).to_string()
    };
    let (_, allowed) = gateway.post_with(call(LabMethod::LabMix, json!({ "colours": [] })), &headers).await;
    assert!(allowed.contains(r#""result""#), "{allowed}");
    let (_, refused) = gateway.post_with(call(LabMethod::LabRest, json!({ "ms": 1 })), &headers).await;
    let refused: Value = serde_json::from_str(&refused).expect("JSON");
    assert_eq!(refused["error"]["data"]["missingScope"], "operator.write", "{refused}");
}

#[tokio::test]
async fn a_handler_that_panics_answers_its_caller_and_nothing_else_notices() {
    let gateway = laboratory().await;
    let mut socket = gateway.websocket().await;
    for (id, method) in [(1, LabMethod::LabExplode), (2, LabMethod::LabSmoulder)] {
        let answer =
            socket.ask(json!({ "jsonrpc": "2.0", "id": id, "method": method.name() }).to_string()).await;
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(id), &json!(-32603)), "{answer}");
        assert!(answer["error"]["data"]["correlationId"].is_string(), "{answer}");
        assert!(!answer.to_string().contains("blew up"), "the cause is for the log alone: {answer}");
    }
    assert!(socket.ask(r#"{"jsonrpc":"2.0","id":3,"method":"health"}"#).await["result"]["ok"] == true);
}

#[tokio::test]
async fn declared_and_served_methods_must_match() {
    async fn refusal(
        build: impl FnOnce(openclaw_gateway::GatewayBuilder) -> openclaw_gateway::GatewayBuilder,
    ) -> StartError {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let builder = Gateway::builder(harness::settings(directory.path(), TOKEN));
        build(builder).start().await.expect_err("the gateway does not start")
    }
    let without_handlers = refusal(|builder| builder.serve::<LabContract>(RpcModule::new(()))).await;
    assert!(
        matches!(&without_handlers, StartError::Seal(SealError::Unserved(name)) if name.starts_with("lab.")),
        "{without_handlers:?}"
    );
    assert!(without_handlers.to_string().contains("is declared, but has no handler"), "{without_handlers}");

    let undeclared = refusal(|builder| {
        let mut module = Bench.into_rpc();
        module.register_method("lab.secret", |_, _, _| 1).expect("the name is free");
        builder.serve::<LabContract>(module)
    })
    .await;
    assert!(
        matches!(&undeclared, StartError::Seal(SealError::Undeclared(name)) if name == "lab.secret"),
        "{undeclared:?}"
    );

    let declared_twice = refusal(|builder| {
        builder.serve::<LabContract>(Bench.into_rpc()).serve::<LabContract>(RpcModule::new(()))
    })
    .await;
    assert!(
        matches!(&declared_twice, StartError::Seal(SealError::Twice(name)) if name == LabContract::METHODS[0].name),
        "{declared_twice:?}"
    );

    let served_twice = refusal(|builder| {
        builder.serve::<LabContract>(Bench.into_rpc()).serve::<LabContract>(Bench.into_rpc())
    })
    .await;
    assert!(matches!(served_twice, StartError::Register(_)), "{served_twice:?}");
}
