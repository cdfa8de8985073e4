//! The configuration file, declared once: the sections and keys that this gateway reads.
//!
//! A key is a field here. From that one declaration come the reader of the file (names, types, bounds, the nearest
//! match of a misspelt key), `schema/config.schema.json`, the answer of `config.schema`, and what `openclaw gateway
//! config explain` says. The file is shared with OpenClaw: what it has beside these keys is listed in [`ignored`], and
//! everything else in it belongs to others and is left alone.
//!
//! To add a key: a field with a description that says meaning, unit, default and bounds; the `default` where there is
//! one (`defaults` has the numbers that code needs too); and `x-openclaw-reload` = `"live"` where a change applies
//! without a restart. A field has its parent's mark unless it has one of its own; without any it is `"restart"`.
//! Secrets are marked by their type, [`Secret`].
//!
//! Rules that hold for every key: a text is not empty, except within a list; null is not the same as absent, and
//! refused.

mod agents;
pub mod defaults;
mod discovery;
mod gateway;
pub mod ignored;
pub mod keys;
mod logging;
mod models;
mod names;
mod source;
mod value;

use schemars::JsonSchema;
use serde::Deserialize;

pub use self::{
    agents::{
        AgentDefaults, AgentEntry, Agents, CliBackend, FastAnswers, Identity, ModelChoice, ModelParams,
        NamedModel, Reliability, RuntimeChoice, Silence, Thinking, Watchdog,
    },
    discovery::{Discovery, Interfaces, Mdns, WideArea},
    gateway::{Auth, ControlUi, Gateway, Limits, Nodes, Pairing, RateLimit, Reload, Remote, Tailscale, Tls},
    logging::{Commands, Logging},
    models::{Compat, ModelCost, ModelRow, Models, Provider},
    names::{
        AuthMode, BindMode, CliInputMode, CliOutputMode, ConsoleStyle, GatewayMode, LogLevel, MdnsMode,
        ReloadMode, RemoteTransport, SshHostKeyPolicy, TailscaleMode, UnknownName,
    },
    source::{Source, Sourced},
    value::{Amount, Entries, Port, ProviderKey, Secret, Texts, Variables, is_variable, reading},
};

/// The OpenClaw configuration, as far as this gateway reads it: JSON5, by default `~/.openclaw/openclaw.json`.
///
/// Every key is optional but `gateway.mode`. `{"$include": "other.json5"}` stands for the content of another file, in
/// any object. `${NAME}` in a text stands for an environment variable, `$${NAME}` for `${NAME}` itself.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Sections {
    /// The gateway on this machine, and how clients reach one on another.
    pub gateway: Gateway,
    /// What is logged, and where.
    #[schemars(extend("x-openclaw-reload" = "live"))]
    pub logging: Logging,
    /// What others may ask a gateway to do.
    pub commands: Commands,
    /// How a gateway is found.
    #[schemars(extend("x-openclaw-reload" = "live"))]
    pub discovery: Discovery,
    /// The agents that answer.
    pub agents: Agents,
    /// The providers of models.
    pub models: Models,
    /// Variables for whatever the environment lacks.
    pub env: Variables,
}
