//! The real binary: exit code, stdout and stderr of every command, against nobody, a fake gateway, and files.
//!
//! `process` starts the binary, `fake` is the gateway; `offline` asks no gateway, `client` asks one, `stock`
//! one that speaks OpenClaw frames, `server` runs one; `probe` and `ssh` look at several.

mod client;
mod fake;
mod gateway;
mod offline;
mod probe;
mod process;
mod server;
mod ssh;
mod stock;
