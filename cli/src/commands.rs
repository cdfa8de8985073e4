//! The commands: each takes what was typed and a [`Printer`](crate::output::Printer), and says how it ended.

pub(crate) mod auth;
pub(crate) mod call;
pub(crate) mod completion;
pub(crate) mod config;
pub(crate) mod describe;
pub(crate) mod discover;
pub(crate) mod dns;
pub(crate) mod health;
pub(crate) mod logs;
pub(crate) mod methods;
pub(crate) mod probe;
pub(crate) mod run;
pub(crate) mod schema;
pub(crate) mod service;
pub(crate) mod status;
pub(crate) mod usage_cost;
