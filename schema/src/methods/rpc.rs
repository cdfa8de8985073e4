//! `rpc.*`: the contract about itself.

use std::borrow::Cow;

use jsonrpsee::{core::RpcResult, proc_macros::rpc};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    contract,
    contract::Examples,
    types::{NoParams, Prepared},
};

/// An OpenRPC document (<https://spec.open-rpc.org>).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OpenRpcDocument(pub Value);

impl JsonSchema for OpenRpcDocument {
    fn schema_name() -> Cow<'static, str> {
        Cow::Borrowed("OpenRpcDocument")
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "An OpenRPC document, see https://spec.open-rpc.org.",
            "required": ["openrpc", "info", "methods"],
            "properties": {
                "openrpc": { "type": "string", "description": "The version of the OpenRPC specification." },
                "info": { "type": "object", "description": "Title and version of the contract." },
                "methods": {
                    "type": "array",
                    "items": { "type": "object" },
                    "description": "The methods.",
                },
            },
        })
    }
}

/// The contract about itself.
#[contract(group = "Discovery")]
#[rpc(server, client, namespace = "rpc", namespace_separator = ".")]
pub trait Rpc {
    /// Answers the contract of this gateway as an OpenRPC document.
    ///
    /// The same document as `GET /openrpc.json`: every method with its params, result, errors, scope and
    /// examples, and every event. Methods that an embedding program added are in it.
    #[method(name = "discover")]
    #[meta(scope = "none", since = "0.1.0", idempotent, examples = rpc_discover)]
    fn rpc_discover(&self, params: NoParams) -> RpcResult<Prepared<OpenRpcDocument>>;
}

fn rpc_discover() -> Examples<NoParams, Prepared<OpenRpcDocument>> {
    let document = OpenRpcDocument(json!({
        "openrpc": "1.3.2",
        "info": { "title": "OpenClaw Gateway", "version": "0.1.0" },
        "methods": [],
    }));
    let document = Prepared::new(&document).expect("the example serialises");
    Examples::success("the document, shortened", NoParams {}, document)
        .invalid("a field that does not exist", json!({ "format": "yaml" }))
}
