#![doc = include_str!("../README.md")]

// `#[contract]` writes paths from the crate's name, which holds inside this crate too.
extern crate self as openclaw_schema;

pub mod config;
pub mod contract;
pub mod discovery;
pub mod document;
pub mod error;
pub mod events;
pub mod methods;
pub mod problem;
pub mod scope;
pub mod types;

pub use error::{ErrorCode, ErrorData, RpcError};
pub use openclaw_schema_macros::contract;
pub use scope::{Scope, Scopes};

pub use jsonrpsee;
pub use schemars;

/// The traits that a server implements, one per namespace.
pub mod server {
    pub use crate::methods::{
        agent::AgentServer, agents::AgentsServer, chat::ChatServer, config::ConfigServer,
        connect::ConnectServer, device::DeviceServer, events::EventsServer, gateway::GatewayServer,
        lifecycle::LifecycleServer, logs::LogsServer, models::ModelsServer, rpc::RpcServer,
        sessions::SessionsServer, usage::UsageServer,
    };
}

/// The typed calls, available on every jsonrpsee client once imported: `use openclaw_schema::client::*`.
pub mod client {
    pub use crate::methods::{
        agent::AgentClient, agents::AgentsClient, chat::ChatClient, config::ConfigClient,
        connect::ConnectClient, device::DeviceClient, events::EventsClient, gateway::GatewayClient,
        lifecycle::LifecycleClient, logs::LogsClient, models::ModelsClient, rpc::RpcClient,
        sessions::SessionsClient, usage::UsageClient,
    };
}
