//! The OpenClaw Gateway: serves the contract of `openclaw-schema` over WebSocket and HTTP on one port.

pub mod backend;
pub mod events;
pub mod runs;
pub mod sessions;
pub mod logs;
pub mod settings;
pub mod state;
