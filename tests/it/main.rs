//! The cross-crate suite: one binary, so that everything links once. `tests/README.md` says how to work with it.

/// Where the test server lies, for [`openclaw_tests::harness::Server`].
const TEST_SERVER: &str = env!("CARGO_BIN_EXE_openclaw-test-server");

/// Who may do what: credentials, scopes, origins, bounds before authentication.
mod auth;
/// Conversations and sessions, and the configuration as callers see it.
mod chat;
/// The Rust client against the real gateway, over both transports.
mod client;
/// What is published is what is served: declarations, examples, names.
mod contract;
/// The decoders of the frame protocol, over the corpus of the fuzz targets and what grows from it.
mod decoding;
/// Generated files are what the sources make.
mod drift;
/// Runs over a gateway that is killed again and again: nothing is lost, nothing done twice.
mod durability;
/// A contract of an embedding program beside the core one.
mod embedding;
/// JSON-RPC 2.0 envelopes, the same table over WebSocket and HTTP.
mod envelopes;
/// Subscriptions: events, presence, runs, the log, shutdown.
mod events;
/// OpenClaw frames: handshake, calls, events, devices, and the recorded edge cases.
mod frames;
/// Browsers, proxies and guessers: who is turned away before anything is served.
mod guards;
/// HTTP around the calls: probes, the document, upgrades, bounds.
mod http;
/// The stock client of the frame protocol, from npm, against this gateway.
mod interop;
/// Back ends against a model server and real processes, alone and behind a gateway.
mod models;
/// What was recorded of a stock gateway, row by row: handshakes and edge cases.
mod recorded;
/// A configuration that changes under a running gateway: by its file, and by callers.
mod reload;
/// Peers that flood, stall, lie or vanish, against a gateway in a process of its own.
mod robustness;
/// The security matrix: every origin, credential, method and scope over every dialect, and what strangers may cost.
mod security;
/// Our results against the stock schema of them.
mod stock_schema;
/// Rules about the sources themselves.
mod tidy;
/// TLS on the port, and what the client trusts.
mod tls;
/// Tokens and costs: told, stored, summed up over a restart.
mod usage;
