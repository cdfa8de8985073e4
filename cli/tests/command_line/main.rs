//! The real binary: exit code, stdout and stderr of every command, against nobody, a fake gateway, and files.
//!
//! `process` starts the binary, `fake` is the gateway; `offline` asks no gateway, `client` asks one, `stock`
//! one that speaks OpenClaw frames, `server` runs one, `lifecycle` restarts it and reads its log, `run_options` is the
//! table of what `gateway run` takes, `service` makes one a service, `discovery` finds gateways in a `lan` of its own,
//! `probe` and `ssh` look at several, `config` reads the configuration and `config_edit` changes it, `tailscale` makes a
//! gateway known, `secrets` looks for secrets in all that comes out.

mod client;
mod config;
mod config_edit;
mod discovery;
mod fake;
mod gateway;
mod lan;
mod lifecycle;
mod offline;
mod probe;
mod process;
mod run_options;
mod secrets;
mod server;
mod service;
mod ssh;
mod stock;
mod tailscale;
