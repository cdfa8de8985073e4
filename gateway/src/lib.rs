//! The OpenClaw Gateway: serves the contract of `openclaw-schema` over WebSocket and HTTP on one port.

pub mod config;
pub mod dev;
pub mod events;
pub mod identity;
pub mod settings;
pub mod state;
