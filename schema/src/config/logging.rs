//! The sections `logging` and `commands`.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{ConsoleStyle, Entries, LogLevel, Sourced, Texts, defaults};
use crate::types::Bounded;

/// The section `logging`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Logging {
    /// The least severe level that goes to the log file. `--log-level` and `OPENCLAW_LOG_LEVEL` come before it.
    #[schemars(extend("default" = "info"))]
    pub level: Option<Sourced<LogLevel>>,
    /// The least severe level that goes to the console. `--log-level` and `OPENCLAW_LOG_LEVEL` come before it.
    #[schemars(extend("default" = "info"))]
    pub console_level: Option<Sourced<LogLevel>>,
    /// The log file. By default `gateway/logs/openclaw.log` in the state directory. A relative path starts at the
    /// directory of this file.
    #[schemars(extend("x-openclaw-reload" = "restart"))]
    pub file: Option<Sourced<String>>,
    /// How large the log file grows before it is rotated, in bytes: at least 1.
    #[schemars(extend("default" = defaults::MAX_LOG_FILE_BYTES))]
    pub max_file_bytes: Option<Sourced<Bounded<1, { u64::MAX }>>>,
    /// How lines on the console look. By default `pretty` on a terminal, else `compact`.
    #[schemars(extend("x-openclaw-reload" = "restart"))]
    pub console_style: Option<Sourced<ConsoleStyle>>,
    /// Regular expressions of what is kept out of the log, beside what looks like a secret anyway.
    pub redact_patterns: Option<Sourced<Texts>>,
    /// Levels of parts of the program, such as `{"wire": "debug"}`, for the file and the console. OpenClaw has no such
    /// key, and refuses a file that has it.
    pub filters: Entries<LogLevel>,
}

/// The section `commands`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Commands {
    /// Whether SIGUSR1 may restart the gateway.
    #[schemars(extend("default" = true, "x-openclaw-reload" = "live"))]
    pub restart: Option<Sourced<bool>>,
}
