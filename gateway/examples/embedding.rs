//! A gateway with a namespace of its own: declared with `#[contract]` like the core ones, and then served, documented
//! by `rpc.discover`, validated, and callable by the command line with typed flags.
//!
//! ```text
//! cargo run -p openclaw-gateway --example embedding -- 18999
//! openclaw gateway call greeter.greet --url ws://127.0.0.1:18999 --token secret --name Ada --times 2
//! ```

use std::{io::Write, path::PathBuf};

use jsonrpsee::{core::RpcResult, proc_macros::rpc};
use openclaw_gateway::{
    Gateway,
    backend::settings::ModelSettings,
    settings::{Agent, Agents, Auth, Limits, Settings},
    state::StateDir,
    trust::Trust,
};
use openclaw_schema::{contract, contract::Examples, types::Bounded};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Params of `greeter.greet`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GreetParams {
    /// Whom to greet.
    pub name: String,
    /// How often. Once by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<Bounded<1, 10>>,
}

/// Result of `greeter.greet`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GreetResult {
    /// The greeting.
    pub text: String,
}

/// Greetings.
#[contract(group = "Greetings")]
#[rpc(server, client, namespace = "greeter", namespace_separator = ".")]
pub trait Greeter {
    /// Greets someone.
    #[method(name = "greet")]
    #[meta(scope = "operator.read", since = "0.1.0", idempotent, examples = greet)]
    fn greeter_greet(&self, params: GreetParams) -> RpcResult<GreetResult>;
}

fn greet() -> Examples<GreetParams, GreetResult> {
    Examples::success(
        "greet Ada",
        GreetParams { name: "Ada".to_owned(), times: None },
        GreetResult { text: "Hello, Ada!".to_owned() },
    )
    .invalid("nobody to greet", json!({}))
}

struct Greetings;

impl GreeterServer for Greetings {
    fn greeter_greet(&self, params: GreetParams) -> RpcResult<GreetResult> {
        let times = params.times.map_or(1, Bounded::get);
        let text = (0..times).map(|_| format!("Hello, {}!", params.name)).collect::<Vec<_>>().join(" ");
        Ok(GreetResult { text })
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port: u16 = std::env::args().nth(1).map_or(Ok(18999), |port| port.parse())?;
    // A directory of its own, so that a gateway of the user's is not disturbed.
    let state =
        StateDir::new(std::env::temp_dir().join(format!("openclaw-embedding-{}", std::process::id())));
    let settings = Settings {
        listen: vec![([127, 0, 0, 1], port).into()],
        auth: Auth::Token("secret".into()),
        config_file: state.config_file(),
        auto_approve_local: true,
        tls: None,
        trust: Trust::default(),
        proxy: None,
        log_file: state.gateway_dir().join("logs").join("openclaw.log"),
        state,
        agents: Agents {
            default_id: "main".to_owned(),
            list: vec![Agent {
                id: "main".to_owned(),
                name: None,
                workspace: PathBuf::from("."),
                model: None,
            }],
        },
        discovery: None,
        models: ModelSettings::default(),
        limits: Limits::default(),
    };
    let gateway = Gateway::builder(settings).serve::<GreeterContract>(Greetings.into_rpc()).start().await?;
    writeln!(std::io::stderr(), "listening on ws://{}", gateway.local_addresses()[0])?;
    tokio::signal::ctrl_c().await?;
    gateway.shutdown("gateway stopping").await;
    Ok(())
}
