//! The methods: one file per namespace, each a trait with its params and result types.
//!
//! Nothing outside this module names a wire method by a string.

pub mod agent;
pub mod agents;
pub mod chat;
pub mod config;
pub mod connect;
pub mod device;
pub mod events;
pub mod gateway;
pub mod lifecycle;
pub mod logs;
pub mod models;
pub mod rpc;
pub mod sessions;
pub mod usage;

use crate::contract::{Contract, MethodRecord};

/// The record tables of every namespace of the core contract.
pub const TABLES: &[&[MethodRecord]] = &[
    agent::AgentContract::METHODS,
    agents::AgentsContract::METHODS,
    chat::ChatContract::METHODS,
    config::ConfigContract::METHODS,
    connect::ConnectContract::METHODS,
    device::DeviceContract::METHODS,
    events::EventsContract::METHODS,
    gateway::GatewayContract::METHODS,
    lifecycle::LifecycleContract::METHODS,
    logs::LogsContract::METHODS,
    models::ModelsContract::METHODS,
    rpc::RpcContract::METHODS,
    sessions::SessionsContract::METHODS,
    usage::UsageContract::METHODS,
];

/// Every method of the core contract.
pub fn all() -> impl Iterator<Item = &'static MethodRecord> {
    TABLES.iter().copied().flatten()
}

/// The core method of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static MethodRecord> {
    all().find(|record| record.name == name)
}
