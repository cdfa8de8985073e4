//! The configuration: which state directory, which file, what it says, and what follows from that together with
//! the flags and the environment.
//!
//! Every value remembers where it came from. Reading is lazy: a client command that needs nothing from the disk
//! reads nothing. The start of a gateway calls [`resolve_settings`], a client command [`resolve_client`].

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::state::StateError;

mod auth;
mod change;
mod client;
mod discovery;
mod dotenv;
mod edit;
pub mod env;
mod explain;
mod file;
mod json5;
mod lines;
mod locations;
mod models;
mod modes;
#[cfg(test)]
mod precedence;
mod reader;
mod redact;
mod save;
mod serve;
mod snapshot;
mod tree;
mod watch;

pub use self::{
    auth::{AuthReport, Candidate, SecretKind, explain_auth},
    client::{ClientFlags, ClientTarget, ProbeTarget, ProbeTargets, resolve_client, resolve_probe},
    discovery::{
        DiscoveryDefaults, announcement, discovery_defaults, name_server, tailnet_addresses,
        wide_area_announcement,
    },
    edit::{Edit, EditError, EditOptions, Edited, KeyPath, edit_file},
    env::Env,
    explain::{Explained, Issue, Lost, Report, Unknown, View, check_config, config_schema},
    file::Config,
    locations::{LocationFlags, Locations},
    save::Saved,
    serve::{LogSettings, Note, Resolved, ServeOptions, TailscaleSettings, resolve_settings},
    snapshot::ConfigFile,
};
pub(crate) use self::{
    change::{Change, ChangeError, Changed},
    snapshot::scrubbed,
    watch::Watcher,
};
pub use openclaw_schema::config::{
    AuthMode, BindMode, ConsoleStyle, GatewayMode, LogLevel, MdnsMode, ReloadMode, RemoteTransport, Source,
    Sourced, SshHostKeyPolicy, TailscaleMode, UnknownName,
};

/// A value written as JSON5, if it is one.
#[must_use]
pub fn parse_value(text: &str) -> Option<serde_json::Value> {
    json5::parse(text, Path::new("")).ok()
}

/// What is wrong with the configuration: one sentence that says what and where. [`ConfigError::hint`] says what to
/// change. No text shows a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The name of the profile cannot be part of a path.
    #[error("{origin} is not a profile name: \"{given}\" (letters, digits, `_` and `-` only, at most 64)")]
    Profile {
        /// Who gave it.
        origin: Source,
        /// The name.
        given: String,
    },
    /// There is no home directory to put the state directory in.
    #[error("there is no home directory: neither HOME nor OPENCLAW_HOME is set")]
    NoHome,
    /// The configuration file is there, but does not open.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The configuration file is not JSON5. The sentence is followed by the line, with a caret below the place.
    #[error("{}:{line}:{column} is not valid JSON5: {problem}\n{excerpt}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column, in characters from 1.
        column: usize,
        /// What is wrong there.
        problem: String,
        /// The line and the caret, secrets hidden.
        excerpt: String,
    },
    /// A file that is included does not open.
    #[error("{origin} names {}, which cannot be read", path.display())]
    Include {
        /// Who includes it.
        origin: Source,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that is included lies outside the directory of the configuration.
    #[error("{origin} leads out of {}: {path}", directory.display())]
    IncludeOutside {
        /// Who includes it.
        origin: Source,
        /// The file, as it is written.
        path: String,
        /// The directory.
        directory: PathBuf,
    },
    /// A value has the wrong type or is out of bounds.
    #[error("{origin} {problem}{}", did_you_mean(nearest.as_deref()))]
    BadValue {
        /// Who gave it.
        origin: Source,
        /// What was expected and what was found: `must be …, not …`.
        problem: String,
        /// The allowed value that was probably meant.
        nearest: Option<String>,
    },
    /// A key is misspelt.
    #[error("unknown key {key} in {}; did you mean `{nearest}`?", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key, its parts joined by dots.
        key: String,
        /// The last part as it was probably meant.
        nearest: &'static str,
    },
    /// A value refers to an environment variable that is not set.
    #[error("{origin} refers to the environment variable {variable}, which is not set")]
    MissingVariable {
        /// Who refers to it.
        origin: Source,
        /// The variable.
        variable: String,
    },
    /// There is no configuration file, and a gateway asks for one.
    #[error("there is no configuration at {}; a gateway starts when gateway.mode is \"local\" there", path.display())]
    NoConfig {
        /// Where the file would be.
        path: PathBuf,
    },
    /// The configuration does not say that a gateway is to run on this machine.
    #[error("gateway.mode is missing in {}; a gateway starts when it is \"local\"", path.display())]
    NoMode {
        /// The file.
        path: PathBuf,
    },
    /// The configuration says that the gateway is on another machine.
    #[error("{origin} is \"remote\", so no gateway starts on this machine")]
    RemoteMode {
        /// Where it says so.
        origin: Source,
    },
    /// Stock has this mode of authentication, this gateway does not.
    #[error("{origin} asks for the authentication mode \"{mode}\", which this gateway does not have")]
    UnsupportedAuth {
        /// Who asks.
        origin: Source,
        /// The mode.
        mode: AuthMode,
    },
    /// A secret is empty.
    #[error("{origin} is empty")]
    EmptySecret {
        /// Who gave it.
        origin: Source,
    },
    /// A secret that no caller can show as it is.
    #[error("{origin} begins or ends with blanks, or has control characters")]
    UnusableSecret {
        /// Who gave it.
        origin: Source,
    },
    /// What stands in an example where a secret is to be put.
    #[error("{origin} is a placeholder and no secret")]
    PlaceholderSecret {
        /// Who gave it.
        origin: Source,
    },
    /// Others could reach the gateway, and guess the secret.
    #[error("{origin} has {length} characters; beyond loopback a {kind} has at least {least}")]
    ShortSecret {
        /// Who gave it.
        origin: Source,
        /// What it is: `token` or `password`.
        kind: &'static str,
        /// How many characters it has.
        length: usize,
        /// How many it needs.
        least: usize,
    },
    /// Others could reach the gateway, and the secret is on every list.
    #[error("{origin} is a word that is tried first")]
    CommonSecret {
        /// Who gave it.
        origin: Source,
    },
    /// Others on this machine may change or read what only the gateway's user may.
    #[error("{} {problem} (mode {mode:03o})", path.display())]
    OpenToOthers {
        /// The file or directory.
        path: PathBuf,
        /// What others may do with it.
        problem: &'static str,
        /// Its mode.
        mode: u32,
        /// What `chmod` is to be told.
        chmod: &'static str,
    },
    /// There is a token and a password, and nothing says which one callers must present.
    #[error("both a token ({token}) and a password ({password}) are set, and no authentication mode")]
    AmbiguousAuth {
        /// Where the token came from.
        token: Source,
        /// Where the password came from.
        password: Source,
    },
    /// A secret was given, and callers are to present none.
    #[error("{secret} has no effect: {mode} asks for no authentication")]
    UnusedSecret {
        /// Who gave the secret.
        secret: Source,
        /// Who gave the mode.
        mode: Source,
    },
    /// Password mode without a password.
    #[error("the authentication mode is \"password\" ({mode}), and no password is set")]
    NoPassword {
        /// Who gave the mode.
        mode: Source,
    },
    /// Others could reach the gateway, and nothing would stop them.
    #[error("refusing to listen on {address} (bind {bind}, {origin}) {lack}")]
    Exposed {
        /// The address beyond loopback.
        address: std::net::IpAddr,
        /// The bind mode.
        bind: BindMode,
        /// Who gave the bind mode.
        origin: Source,
        /// What is lacking.
        lack: &'static str,
    },
    /// `custom` without an address.
    #[error("the bind mode is \"custom\" ({origin}), and gateway.customBindHost is not set")]
    NoCustomHost {
        /// Who gave the bind mode.
        origin: Source,
    },
    /// `tailnet` without a tailnet.
    #[error(
        "the bind mode is \"tailnet\" ({origin}), and no network interface has an address in 100.64.0.0/10 or \
         fd7a:115c:a1e0::/48"
    )]
    NoTailnet {
        /// Who gave the bind mode.
        origin: Source,
    },
    /// Tailscale would make a gateway known that is reached without it.
    #[error(
        "tailscale {mode} ({tailscale}) is for a gateway that listens on loopback alone, and this one is to listen on \
         {address} (bind {bind}, {origin})"
    )]
    TailscaleBind {
        /// The mode of tailscale.
        mode: TailscaleMode,
        /// Who gave it.
        tailscale: Source,
        /// The address beyond loopback.
        address: std::net::IpAddr,
        /// The bind mode.
        bind: BindMode,
        /// Who gave the bind mode.
        origin: Source,
    },
    /// Tailscale would let in whoever comes.
    #[error("tailscale serve ({tailscale}) lets other machines in, and authentication is off ({origin})")]
    TailscaleNoAuth {
        /// Who asks for tailscale.
        tailscale: Source,
        /// Who switched authentication off.
        origin: Source,
    },
    /// Funnel makes the gateway known to everybody, as stock allows with a password alone. cli.md section 2.2.
    #[error(
        "tailscale funnel ({tailscale}) lets everybody on the internet in, and needs the authentication mode \
         \"password\", not \"{mode}\" ({origin})"
    )]
    FunnelWithoutPassword {
        /// Who asks for tailscale.
        tailscale: Source,
        /// The mode of authentication.
        mode: AuthMode,
        /// Who gave it.
        origin: Source,
    },
    /// `--url` names a gateway, and `--port` another one.
    #[error("--url and --port exclude each other")]
    UrlAndPort,
    /// `--url` without a credential of its own: configured ones belong to another gateway.
    #[error(
        "--url needs --token or --password: configured credentials and those in the environment are not sent to it"
    )]
    UrlWithoutCredential,
    /// The gateway is said to be on another machine, but not on which.
    #[error("{origin} is \"remote\", and gateway.remote.url is not set")]
    NoRemoteUrl {
        /// Where it says so.
        origin: Source,
    },
    /// Something is wrong with the state directory.
    #[error(transparent)]
    State(#[from] StateError),
}

impl ConfigError {
    /// The key of the file that it is about, its parts joined by dots; absent for the file as a whole, and for what
    /// stands elsewhere.
    #[must_use]
    pub fn key(&self) -> Option<String> {
        match self {
            Self::BadValue { origin: Source::File { key, .. }, .. }
            | Self::EmptySecret { origin: Source::File { key, .. } }
            | Self::UnknownKey { key, .. } => Some(key.clone()),
            _ => None,
        }
    }

    /// What to change: the key, the flag or the variable. Absent where the error's sentence says it already.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoHome => {
                "set HOME or OPENCLAW_HOME, or name the state directory with OPENCLAW_STATE_DIR".into()
            }
            Self::UnknownKey { key, nearest, .. } => {
                let parent = key.rsplit_once('.').map(|(parent, _)| format!("{parent}.")).unwrap_or_default();
                format!("rename it to {parent}{nearest}")
            }
            Self::MissingVariable { variable, .. } => {
                format!("set {variable}; a literal `${{` is written as `$${{`")
            }
            Self::IncludeOutside { directory, .. } => {
                format!("put the file into {}", directory.display())
            }
            Self::NoConfig { path } | Self::NoMode { path } => format!(
                "write {{\"gateway\": {{\"mode\": \"local\"}}}} to {}, or pass --allow-unconfigured",
                path.display()
            ),
            Self::RemoteMode { .. } => "set gateway.mode to \"local\", or pass --allow-unconfigured".into(),
            Self::UnsupportedAuth { .. } => {
                "set gateway.auth.mode (or --auth) to \"token\", \"password\" or \"none\"".into()
            }
            Self::UnusableSecret { .. } => "give it without them".into(),
            Self::PlaceholderSecret { .. } | Self::ShortSecret { .. } | Self::CommonSecret { .. } => {
                "make one with `openssl rand -hex 24`".into()
            }
            Self::OpenToOthers { path, chmod, .. } => format!("chmod {chmod} {}", path.display()),
            Self::EmptySecret { .. } => "give a value, or leave it out".into(),
            Self::AmbiguousAuth { .. } => {
                "set gateway.auth.mode (or --auth) to \"token\" or \"password\"".into()
            }
            Self::UnusedSecret { .. } => "leave one of the two out".into(),
            Self::NoPassword { .. } => {
                "set gateway.auth.password or OPENCLAW_GATEWAY_PASSWORD, or pass --password".into()
            }
            Self::Exposed { .. } => "set gateway.auth.token or OPENCLAW_GATEWAY_TOKEN, or pass --token; \
                                     or stay on this machine with --bind loopback"
                .into(),
            Self::NoCustomHost { .. } => "set gateway.customBindHost to the address to listen on".into(),
            Self::NoTailnet { .. } => "start tailscale first, or pass --bind loopback".into(),
            Self::TailscaleBind { .. } => "set gateway.bind to \"loopback\", or pass --bind loopback; \
                                           or leave tailscale out with --tailscale off"
                .into(),
            Self::TailscaleNoAuth { .. } => {
                "set gateway.auth.mode (or --auth) to \"token\" or \"password\"".into()
            }
            Self::FunnelWithoutPassword { .. } => {
                "set gateway.auth.mode to \"password\" and gateway.auth.password \
                                                   (or OPENCLAW_GATEWAY_PASSWORD, or --password-file)"
                    .into()
            }
            Self::UrlAndPort => "use one of them".into(),
            Self::UrlWithoutCredential => "pass --token or --password".into(),
            Self::NoRemoteUrl { .. } => "set gateway.remote.url, or pass --url or --port".into(),
            Self::Profile { .. } => "choose another name, or leave it out".into(),
            Self::Read { .. }
            | Self::Include { .. }
            | Self::Syntax { .. }
            | Self::BadValue { .. }
            | Self::State(_) => return None,
        })
    }
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!("; did you mean `{nearest}`?")).unwrap_or_default()
}
