//! The real binary: exit code, stdout and stderr of every command, against nobody, a fake gateway, and files.
//!
//! `process` starts the binary, `fake` is the gateway; `offline` asks no gateway, `client` asks one, `stock`
//! one that speaks OpenClaw frames, `server` runs one, `service` makes one a service.

mod client;
mod fake;
mod offline;
mod process;
mod server;
mod service;
mod stock;
