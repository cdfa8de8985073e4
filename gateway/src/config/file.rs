//! The configuration file: JSON5, shared with stock installs.
//!
//! Sections that this gateway does not know are kept and ignored. In its own sections wrong types and values are
//! refused, and so are keys that look misspelt; other unknown keys are stock's and give a warning.

use std::{fmt, io, ops::RangeInclusive, path::Path, str::FromStr, sync::Arc};

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value};

use super::{
    AuthMode, BindMode, ConfigError, ConsoleStyle, Env, GatewayMode, LogLevel, Models, RemoteTransport,
    Source, Sourced, SshHostKeyPolicy, TailscaleMode, UnknownName, discovery::Discovery, json5, models,
};
use crate::trust::{Network, Origin};

/// What the configuration file says. Texts are as written there: `${VARIABLE}` is replaced where a value is used,
/// so that a variable that nobody needs may be missing.
#[derive(Debug)]
pub struct Config {
    /// The file.
    pub path: Arc<Path>,
    /// Whether the file is there; without it every section is empty.
    pub exists: bool,
    /// The section `gateway`.
    pub gateway: Gateway,
    /// The section `logging`.
    pub logging: Logging,
    /// The section `commands`.
    pub commands: Commands,
    /// The section `agents`.
    pub agents: Agents,
    /// The section `discovery`.
    pub discovery: Discovery,
    /// The section `models`, and what other sections say of models.
    pub models: Models,
    /// What looks odd but is not refused, a sentence each.
    pub warnings: Vec<String>,
}

/// The section `gateway`.
#[derive(Debug, Default)]
pub struct Gateway {
    /// `mode`.
    pub mode: Option<Sourced<GatewayMode>>,
    /// `port`, from 1.
    pub port: Option<Sourced<u16>>,
    /// `bind`.
    pub bind: Option<Sourced<BindMode>>,
    /// `customBindHost`.
    pub custom_bind_host: Option<Sourced<String>>,
    /// `auth`.
    pub auth: Auth,
    /// `tls`.
    pub tls: Tls,
    /// `tailscale`.
    pub tailscale: Tailscale,
    /// `remote`.
    pub remote: Remote,
    /// `nodes.pairing.autoApproveLocal`: whether a device on this host is paired without asking.
    pub auto_approve_local: Option<Sourced<bool>>,
    /// `controlUi.allowedOrigins`: pages that may call although the gateway does not serve them.
    pub allowed_origins: Option<Sourced<Vec<Origin>>>,
    /// `trustedProxies`: proxies that are believed when they name the address of a client.
    pub trusted_proxies: Option<Sourced<Vec<Network>>>,
}

/// The section `gateway.auth`.
#[derive(Debug, Default)]
pub struct Auth {
    /// `mode`.
    pub mode: Option<Sourced<AuthMode>>,
    /// `token`.
    pub token: Option<Sourced<SecretString>>,
    /// `password`.
    pub password: Option<Sourced<SecretString>>,
}

/// The section `gateway.tls`.
#[derive(Debug, Default)]
pub struct Tls {
    /// `enabled`.
    pub enabled: Option<Sourced<bool>>,
    /// `autoGenerate`.
    pub auto_generate: Option<Sourced<bool>>,
    /// `certPath`.
    pub cert_path: Option<Sourced<String>>,
    /// `keyPath`.
    pub key_path: Option<Sourced<String>>,
}

/// The section `gateway.tailscale`.
#[derive(Debug, Default)]
pub struct Tailscale {
    /// `mode`.
    pub mode: Option<Sourced<TailscaleMode>>,
    /// `resetOnExit`: whether `tailscale serve reset`, or `funnel reset`, follows the gateway's end.
    pub reset_on_exit: Option<Sourced<bool>>,
}

/// The section `gateway.remote`.
#[derive(Debug, Default)]
pub struct Remote {
    /// `url`.
    pub url: Option<Sourced<String>>,
    /// `token`.
    pub token: Option<Sourced<SecretString>>,
    /// `password`.
    pub password: Option<Sourced<SecretString>>,
    /// `transport`: how the gateway is reached.
    pub transport: Option<Sourced<RemoteTransport>>,
    /// `remotePort`, from 1: where the gateway listens on its own machine, for a tunnel to it.
    pub remote_port: Option<Sourced<u16>>,
    /// `tlsFingerprint`: the SHA-256 of the certificate that the gateway shows, in hexadecimal.
    pub tls_fingerprint: Option<Sourced<String>>,
    /// `sshTarget`: `[user@]host[:port]`.
    pub ssh_target: Option<Sourced<String>>,
    /// `sshIdentity`: the file with the private key for it.
    pub ssh_identity: Option<Sourced<String>>,
    /// `sshHostKeyPolicy`.
    pub ssh_host_key_policy: Option<Sourced<SshHostKeyPolicy>>,
}

/// The section `logging`.
#[derive(Debug, Default)]
pub struct Logging {
    /// `level`, of the file.
    pub level: Option<Sourced<LogLevel>>,
    /// `consoleLevel`.
    pub console_level: Option<Sourced<LogLevel>>,
    /// `file`.
    pub file: Option<Sourced<String>>,
    /// `maxFileBytes`, from 1.
    pub max_file_bytes: Option<Sourced<u64>>,
    /// `consoleStyle`.
    pub console_style: Option<Sourced<ConsoleStyle>>,
    /// `redactPatterns`: regular expressions of what is kept out of the log.
    pub redact_patterns: Option<Sourced<Vec<String>>>,
    /// `filters`: levels of parts of the program, in the order of the file. Stock has no such key.
    pub filters: Vec<(String, Sourced<LogLevel>)>,
}

/// The section `commands`.
#[derive(Debug, Default)]
pub struct Commands {
    /// `restart`: whether a signal may restart the gateway.
    pub restart: Option<Sourced<bool>>,
}

/// The section `agents`.
#[derive(Debug, Default)]
pub struct Agents {
    /// `defaults.workspace`.
    pub workspace: Option<Sourced<String>>,
    /// `defaults.model`.
    pub model: Option<Sourced<String>>,
    /// `entries`, in the order of the file.
    pub entries: Vec<AgentEntry>,
}

/// One of `agents.entries`.
#[derive(Debug)]
pub struct AgentEntry {
    /// Its key: letters, digits, `_` and `-`.
    pub id: String,
    /// `default`: whether it serves calls that name no agent.
    pub is_default: bool,
    /// `workspace`.
    pub workspace: Option<Sourced<String>>,
    /// `model`.
    pub model: Option<Sourced<String>>,
    /// `identity.name`.
    pub name: Option<Sourced<String>>,
}

/// The longest id of an agent, in bytes: it becomes part of paths.
const MAX_AGENT_ID_BYTES: usize = 64;

impl Config {
    /// Reads the file at `path`. A missing or blank file is an empty configuration.
    ///
    /// # Errors
    ///
    /// A file that does not open or is not JSON5; a value or key that is refused.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Ok(Self { exists: false, ..Self::parse("", path)? })
            }
            Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
        }
    }

    /// Reads `text`, the content of the file at `path`.
    pub(super) fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let root = json5::parse(text, path)?;
        let path: Arc<Path> = path.into();
        let mut warnings = Vec::new();
        let root = Section::root(&path, &root)?;
        Ok(Self {
            gateway: gateway(&root.section("gateway")?, &mut warnings)?,
            logging: logging(&root.section("logging")?, &mut warnings)?,
            commands: commands(&root.section("commands")?, &mut warnings)?,
            agents: agents(&root.section("agents")?)?,
            discovery: Discovery::read(&root.section("discovery")?, &mut warnings)?,
            models: models::read(&root, &mut warnings)?,
            path: Arc::clone(&path),
            exists: true,
            warnings,
        })
    }
}

// To add a key: read it below, and list it as one of the section's own. Stock's keys of cli.md section 11 are
// listed too, so that they give no warning.

fn gateway(section: &Section<'_>, warnings: &mut Vec<String>) -> Result<Gateway, ConfigError> {
    section.check_keys(
        &[
            "mode",
            "port",
            "bind",
            "customBindHost",
            "auth",
            "remote",
            "nodes",
            "tls",
            "controlUi",
            "trustedProxies",
            "tailscale",
        ],
        &["reload"],
        warnings,
    )?;
    let auth = section.section("auth")?;
    auth.check_keys(&["mode", "token", "password"], &["allowTailscale", "rateLimit"], warnings)?;
    let nodes = section.section("nodes")?;
    nodes.check_keys(&["pairing"], &[], warnings)?;
    let pairing = nodes.section("pairing")?;
    pairing.check_keys(&["autoApproveLocal"], &[], warnings)?;
    let tls = section.section("tls")?;
    tls.check_keys(&["enabled", "autoGenerate", "certPath", "keyPath"], &["caPath"], warnings)?;
    let tailscale = section.section("tailscale")?;
    tailscale.check_keys(&["mode", "resetOnExit"], &[], warnings)?;
    let remote = section.section("remote")?;
    remote.check_keys(
        &[
            "url",
            "token",
            "password",
            "transport",
            "remotePort",
            "tlsFingerprint",
            "sshTarget",
            "sshIdentity",
            "sshHostKeyPolicy",
        ],
        &[],
        warnings,
    )?;
    Ok(Gateway {
        mode: section.name("mode")?,
        port: section.integer("port", 1..=u16::MAX)?,
        bind: bind(section, warnings)?,
        custom_bind_host: section.text("customBindHost")?,
        auth: Auth {
            mode: auth.name("mode")?,
            token: auth.secret("token")?,
            password: auth.secret("password")?,
        },
        tls: Tls {
            enabled: tls.boolean("enabled")?,
            auto_generate: tls.boolean("autoGenerate")?,
            cert_path: tls.text("certPath")?,
            key_path: tls.text("keyPath")?,
        },
        tailscale: Tailscale {
            mode: tailscale.name("mode")?,
            reset_on_exit: tailscale.boolean("resetOnExit")?,
        },
        remote: Remote {
            url: remote.text("url")?,
            token: remote.secret("token")?,
            password: remote.secret("password")?,
            transport: remote.name("transport")?,
            remote_port: remote.integer("remotePort", 1..=u16::MAX)?,
            tls_fingerprint: remote.text("tlsFingerprint")?,
            ssh_target: remote.text("sshTarget")?,
            ssh_identity: remote.text("sshIdentity")?,
            ssh_host_key_policy: remote.name("sshHostKeyPolicy")?,
        },
        auto_approve_local: pairing.boolean("autoApproveLocal")?,
        allowed_origins: allowed_origins(section, warnings)?,
        trusted_proxies: section.list("trustedProxies")?,
    })
}

fn allowed_origins(
    section: &Section<'_>,
    warnings: &mut Vec<String>,
) -> Result<Option<Sourced<Vec<Origin>>>, ConfigError> {
    let control_ui = section.section("controlUi")?;
    let origins: Option<Sourced<Vec<Origin>>> = control_ui.list("allowedOrigins")?;
    if let Some(any) = origins.as_ref().filter(|origins| origins.value.iter().any(Origin::is_any)) {
        warnings.push(format!("{} lets every page on the web call this gateway", any.source));
    }
    Ok(origins)
}

fn bind(section: &Section<'_>, warnings: &mut Vec<String>) -> Result<Option<Sourced<BindMode>>, ConfigError> {
    if section.get("bind").and_then(Value::as_str) == Some("0.0.0.0") {
        // Stock has read this old form as `lan`. cli.md section 2.2.
        let source = section.source("bind");
        warnings.push(format!("{source} is \"0.0.0.0\", which is read as \"lan\""));
        return Ok(Some(Sourced::new(BindMode::Lan, source)));
    }
    section.name("bind")
}

fn logging(section: &Section<'_>, warnings: &mut Vec<String>) -> Result<Logging, ConfigError> {
    section.check_keys(
        &["level", "consoleLevel", "file", "maxFileBytes", "consoleStyle", "redactPatterns", "filters"],
        &[],
        warnings,
    )?;
    let filters = section.section("filters")?;
    let level = |part: &String| Ok::<_, ConfigError>(filters.name(part)?.map(|level| (part.clone(), level)));
    Ok(Logging {
        console_style: section.name("consoleStyle")?,
        redact_patterns: section.text_list("redactPatterns")?,
        filters: filters.keys().filter_map(|part| level(part).transpose()).collect::<Result<_, _>>()?,
        level: section.name("level")?,
        console_level: section.name("consoleLevel")?,
        file: section.text("file")?,
        max_file_bytes: section.integer("maxFileBytes", 1..=u64::MAX)?,
    })
}

fn commands(section: &Section<'_>, warnings: &mut Vec<String>) -> Result<Commands, ConfigError> {
    section.check_keys(&["restart"], &[], warnings)?;
    Ok(Commands { restart: section.boolean("restart")? })
}

fn agents(section: &Section<'_>) -> Result<Agents, ConfigError> {
    let defaults = section.section("defaults")?;
    let entries = section.section("entries")?;
    let entry = |id: &String| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if id.is_empty() || id.len() > MAX_AGENT_ID_BYTES || !id.bytes().all(is_allowed) {
            return Err(ConfigError::BadValue {
                origin: entries.source(id),
                problem: "must have an id of letters, digits, `_` and `-`, at most 64".to_owned(),
                nearest: None,
            });
        }
        let entry = entries.section(id)?;
        Ok(AgentEntry {
            id: id.clone(),
            is_default: entry.boolean("default")?.is_some_and(|is_default| is_default.value),
            workspace: entry.text("workspace")?,
            model: model(&entry)?,
            name: entry.section("identity")?.text("name")?,
        })
    };
    Ok(Agents {
        workspace: defaults.text("workspace")?,
        model: model(&defaults)?,
        entries: entries.keys().map(entry).collect::<Result<_, _>>()?,
    })
}

/// A model: its name, or an object with the name as `primary`.
fn model(section: &Section<'_>) -> Result<Option<Sourced<String>>, ConfigError> {
    match section.get("model") {
        Some(Value::Object(_)) => section.section("model")?.text("primary"),
        _ => section.text("model"),
    }
}

/// An object of the file, or nothing where it is missing.
pub(super) struct Section<'a> {
    file: &'a Arc<Path>,
    /// Its place in the file, the parts joined by dots; empty for the root.
    key: String,
    map: Option<&'a Map<String, Value>>,
}

impl<'a> Section<'a> {
    fn root(file: &'a Arc<Path>, root: &'a Value) -> Result<Self, ConfigError> {
        let map = root.as_object().ok_or_else(|| ConfigError::BadValue {
            origin: Source::File { path: Arc::clone(file), key: "the root".to_owned() },
            problem: format!("must be an object, not {}", describe(root)),
            nearest: None,
        })?;
        Ok(Self { file, key: String::new(), map: Some(map) })
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.map?.get(name)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &'a String> {
        self.map.into_iter().flat_map(Map::keys)
    }

    fn child(&self, name: &str) -> String {
        if self.key.is_empty() { name.to_owned() } else { format!("{}.{name}", self.key) }
    }

    pub(super) fn source(&self, name: &str) -> Source {
        Source::File { path: Arc::clone(self.file), key: self.child(name) }
    }

    /// Reads one value, `expected` in words, with `read`, which gives nothing for a value of another kind.
    fn read<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<Sourced<T>>, ConfigError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match read(value) {
            Some(read) => Ok(Some(Sourced::new(read, self.source(name)))),
            None => Err(ConfigError::BadValue {
                origin: self.source(name),
                problem: format!("must be {expected}, not {}", describe(value)),
                nearest: None,
            }),
        }
    }

    pub(super) fn section(&self, name: &str) -> Result<Self, ConfigError> {
        let map = self.read(name, "an object", Value::as_object)?.map(|map| map.value);
        Ok(Self { file: self.file, key: self.child(name), map })
    }

    /// The objects of an array; none where it is missing.
    pub(super) fn sections(&self, name: &str) -> Result<Vec<Self>, ConfigError> {
        let items = self.read(name, "an array of objects", |value| {
            value.as_array()?.iter().map(Value::as_object).collect::<Option<Vec<_>>>()
        })?;
        let section = |(index, map)| {
            let key = format!("{}.{index}", self.child(name));
            Self { file: self.file, key, map: Some(map) }
        };
        Ok(items.map_or_else(Vec::new, |items| items.value.into_iter().enumerate().map(section).collect()))
    }

    /// The texts of an array, which may be empty.
    pub(super) fn texts(&self, name: &str) -> Result<Option<Vec<Sourced<String>>>, ConfigError> {
        let items = self.read(name, "an array of texts", |value| {
            value.as_array()?.iter().map(Value::as_str).collect::<Option<Vec<_>>>()
        })?;
        let source = |index: usize| self.source(&format!("{name}.{index}"));
        Ok(items.map(|items| {
            let items = items.value.into_iter().enumerate();
            items.map(|(index, text)| Sourced::new(text.to_owned(), source(index))).collect()
        }))
    }

    /// An amount: a number that is not negative.
    pub(super) fn amount(&self, name: &str) -> Result<Option<f64>, ConfigError> {
        let amount =
            self.read(name, "a number, at least 0", |value| value.as_f64().filter(|amount| *amount >= 0.0))?;
        Ok(amount.map(|amount| amount.value))
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<Sourced<String>>, ConfigError> {
        self.read(name, "a text", |value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned))
    }

    /// A list of texts that each stand for something.
    fn list<T: FromStr>(&self, name: &str) -> Result<Option<Sourced<Vec<T>>>, ConfigError>
    where
        T::Err: fmt::Display,
    {
        let Some(list) = self.read(name, "a list", Value::as_array)? else { return Ok(None) };
        let read = |(index, entry): (usize, &Value)| {
            // What is no text is told like a text that stands for nothing.
            entry.as_str().unwrap_or_default().parse().map_err(|problem: T::Err| ConfigError::BadValue {
                origin: self.source(&format!("{name}[{index}]")),
                problem: format!("{problem}, not {}", describe(entry)),
                nearest: None,
            })
        };
        let values = list.value.iter().enumerate().map(read).collect::<Result<_, _>>()?;
        Ok(Some(Sourced::new(values, list.source)))
    }

    /// A list of texts.
    pub(super) fn text_list(&self, name: &str) -> Result<Option<Sourced<Vec<String>>>, ConfigError> {
        self.read(name, "a list of texts", |value| {
            value.as_array()?.iter().map(|text| text.as_str().map(str::to_owned)).collect()
        })
    }

    pub(super) fn boolean(&self, name: &str) -> Result<Option<Sourced<bool>>, ConfigError> {
        self.read(name, "true or false", Value::as_bool)
    }

    pub(super) fn integer<T>(
        &self,
        name: &str,
        range: RangeInclusive<T>,
    ) -> Result<Option<Sourced<T>>, ConfigError>
    where
        T: TryFrom<u64> + PartialOrd + Bounded,
    {
        self.read(name, &T::expected(&range), |value| {
            T::try_from(value.as_u64()?).ok().filter(|number| range.contains(number))
        })
    }

    pub(super) fn name<T: FromStr<Err = UnknownName>>(
        &self,
        name: &str,
    ) -> Result<Option<Sourced<T>>, ConfigError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match text.value.parse() {
            Ok(value) => Ok(Some(Sourced::new(value, text.source))),
            Err(unknown) => Err(unknown_name(&unknown, text.source)),
        }
    }

    /// A secret: a text, or a reference to an environment variable as stock writes it.
    pub(super) fn secret(&self, name: &str) -> Result<Option<Sourced<SecretString>>, ConfigError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let source = self.source(name);
        let text = match value {
            Value::String(text) if text.trim().is_empty() => {
                return Err(ConfigError::EmptySecret { origin: source });
            }
            Value::String(text) => text.clone(),
            Value::Object(reference) => match (reference.get("source"), reference.get("id")) {
                (Some(Value::String(kind)), Some(Value::String(id))) if kind == "env" && is_variable(id) => {
                    format!("${{{id}}}")
                }
                _ => {
                    return Err(ConfigError::BadValue {
                        origin: source,
                        problem: "must be a text or {source: \"env\", id: \"VARIABLE\"}, not another object"
                            .to_owned(),
                        nearest: None,
                    });
                }
            },
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
                return Err(ConfigError::BadValue {
                    origin: source,
                    // The value may be the secret itself, without its quotation marks.
                    problem: "must be a text in quotation marks".to_owned(),
                    nearest: None,
                });
            }
        };
        Ok(Some(Sourced::new(text.into(), source)))
    }

    /// Refuses keys that look like a misspelt one; other unknown keys give a warning.
    pub(super) fn check_keys(
        &self,
        own: &[&'static str],
        stock: &[&'static str],
        warnings: &mut Vec<String>,
    ) -> Result<(), ConfigError> {
        for key in self.keys() {
            let mut known = own.iter().chain(stock).copied();
            if known.clone().any(|known| known == key) {
                continue;
            }
            if let Some(nearest) = known.find(|known| is_misspelt(key, known)) {
                return Err(ConfigError::UnknownKey {
                    path: self.file.to_path_buf(),
                    key: self.child(key),
                    nearest,
                });
            }
            warnings.push(format!("{} is not known to this gateway and has no effect", self.source(key)));
        }
        Ok(())
    }
}

/// Whether `given` is probably `known`, but misspelt. One slip makes a short key, two a longer one: stock has keys
/// of its own, such as `nodes`, which is two away from `mode`.
fn is_misspelt(given: &str, known: &str) -> bool {
    let slips = if known.len() <= 5 { 1 } else { 2 };
    given.eq_ignore_ascii_case(known) || strsim::osa_distance(given, known) <= slips
}

/// Says what numbers are expected.
pub(super) trait Bounded: Sized {
    fn expected(range: &RangeInclusive<Self>) -> String;
}

impl Bounded for u16 {
    fn expected(range: &RangeInclusive<Self>) -> String {
        format!("a whole number from {} to {}", range.start(), range.end())
    }
}

impl Bounded for u64 {
    fn expected(range: &RangeInclusive<Self>) -> String {
        format!("a whole number, at least {}", range.start())
    }
}

/// The error for a value of `origin` that is not in its set.
pub(super) fn unknown_name(unknown: &UnknownName, origin: Source) -> ConfigError {
    ConfigError::BadValue {
        origin,
        problem: format!("must be one of {}, not {}", unknown.listed(), quoted(&unknown.given)),
        nearest: unknown.nearest().map(str::to_owned),
    }
}

/// The port in `text`.
pub(super) fn port(text: Sourced<String>) -> Result<Sourced<u16>, ConfigError> {
    match text.value.parse() {
        Ok(port) if port > 0 => Ok(Sourced::new(port, text.source)),
        _ => Err(ConfigError::BadValue {
            origin: text.source,
            problem: format!("must be {}, not {}", u16::expected(&(1..=u16::MAX)), quoted(&text.value)),
            nearest: None,
        }),
    }
}

/// `text` with each `${VARIABLE}` replaced by the variable's value; `$${` stands for a literal `${`. Names are
/// upper case, as in stock: other text in braces is left alone.
pub(super) fn substitute(text: &Sourced<String>, env: &Env) -> Result<Sourced<String>, ConfigError> {
    let mut result = String::with_capacity(text.value.len());
    let mut rest = text.value.as_str();
    while let Some(at) = rest.find("${") {
        let (before, from) = rest.split_at(at);
        let after = &from[2..];
        let name = after.split_once('}').map(|(name, _)| name).filter(|name| is_variable(name));
        match (before.strip_suffix('$'), name) {
            (Some(before), Some(_)) => {
                result.push_str(before);
                result.push_str("${");
                rest = after;
            }
            (None, Some(name)) => {
                let value = env.os(name).and_then(|value| value.to_str()).ok_or_else(|| {
                    ConfigError::MissingVariable { origin: text.source.clone(), variable: name.to_owned() }
                })?;
                result.push_str(before);
                result.push_str(value);
                rest = &after[name.len() + 1..];
            }
            (_, None) => {
                result.push_str(before);
                result.push_str("${");
                rest = after;
            }
        }
    }
    result.push_str(rest);
    Ok(Sourced::new(result, text.source.clone()))
}

/// Like [`substitute`], for a secret.
pub(super) fn substitute_secret(
    secret: &Sourced<SecretString>,
    env: &Env,
) -> Result<Sourced<SecretString>, ConfigError> {
    let text = Sourced::new(secret.value.expose_secret().to_owned(), secret.source.clone());
    let text = substitute(&text, env)?;
    Ok(Sourced::new(text.value.into(), text.source))
}

/// Whether `name` is the name of an environment variable as stock takes it in `${…}`.
pub(super) fn is_variable(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_uppercase() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

/// A value in an error's sentence.
fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// A text in an error's sentence, cut to a length that a line bears.
fn quoted(text: &str) -> String {
    const MAX_CHARS: usize = 40;
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("/s/openclaw.json"))
    }

    fn error(text: &str) -> String {
        parse(text).expect_err("it is refused").to_string()
    }

    fn value<T: Clone>(sourced: Option<&Sourced<T>>) -> Option<T> {
        sourced.map(|sourced| sourced.value.clone())
    }

    #[test]
    fn a_whole_file_is_read() {
        let config = parse(
            r#"// JSON5: comments, bare keys, trailing commas
            {
              meta: { lastTouchedVersion: "2026.9.6" }, // unknown sections are stock's
              gateway: {
                mode: 'local', port: 0x4A39, bind: "custom", customBindHost: "127.0.0.1",
                auth: { mode: "token", token: "t", password: { source: "env", id: "PW" }, rateLimit: {} },
                remote: { url: "wss://h", token: "rt", password: "rp", sshTarget: "u@h" },
                tls: { enabled: false },
              },
              logging: { level: "debug", consoleLevel: "silent", file: "~/log", maxFileBytes: 1000 },
              commands: { restart: false },
              agents: {
                defaults: { workspace: "~/w", model: { primary: "echo/echo", fallbacks: [] } },
                entries: {
                  b: { default: true, workspace: "/b", model: "echo/b", identity: { name: "Bee", emoji: "x" } },
                  a: {},
                },
              },
            }"#,
        )
        .expect("it is good");
        assert!(config.exists);
        assert_eq!(config.warnings, Vec::<String>::new());
        let gateway = &config.gateway;
        assert_eq!(value(gateway.mode.as_ref()), Some(GatewayMode::Local));
        assert_eq!(value(gateway.port.as_ref()), Some(19001));
        assert_eq!(value(gateway.bind.as_ref()), Some(BindMode::Custom));
        assert_eq!(value(gateway.custom_bind_host.as_ref()).as_deref(), Some("127.0.0.1"));
        assert_eq!(value(gateway.auth.mode.as_ref()), Some(AuthMode::Token));
        assert_eq!(value(gateway.auth.token.as_ref()).expect("it is set").expose_secret(), "t");
        assert_eq!(value(gateway.auth.password.as_ref()).expect("it is set").expose_secret(), "${PW}");
        assert_eq!(value(gateway.remote.url.as_ref()).as_deref(), Some("wss://h"));
        assert_eq!(value(gateway.remote.token.as_ref()).expect("it is set").expose_secret(), "rt");
        assert_eq!(value(gateway.remote.password.as_ref()).expect("it is set").expose_secret(), "rp");
        assert_eq!(value(config.logging.level.as_ref()), Some(LogLevel::Debug));
        assert_eq!(value(config.logging.console_level.as_ref()), Some(LogLevel::Silent));
        assert_eq!(value(config.logging.file.as_ref()).as_deref(), Some("~/log"));
        assert_eq!(value(config.logging.max_file_bytes.as_ref()), Some(1000));
        assert_eq!(value(config.commands.restart.as_ref()), Some(false));
        assert_eq!(value(config.agents.workspace.as_ref()).as_deref(), Some("~/w"));
        assert_eq!(value(config.agents.model.as_ref()).as_deref(), Some("echo/echo"));
        let [b, a] = config.agents.entries.as_slice() else { panic!("two agents: {:?}", config.agents) };
        assert_eq!((b.id.as_str(), b.is_default), ("b", true));
        assert_eq!(value(b.workspace.as_ref()).as_deref(), Some("/b"));
        assert_eq!(value(b.model.as_ref()).as_deref(), Some("echo/b"));
        assert_eq!(value(b.name.as_ref()).as_deref(), Some("Bee"));
        assert_eq!((a.id.as_str(), a.is_default), ("a", false));
        assert_eq!(
            gateway.auth.token.as_ref().expect("it is set").source.to_string(),
            "gateway.auth.token in /s/openclaw.json"
        );
    }

    #[test]
    fn a_missing_or_blank_file_is_an_empty_configuration() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("openclaw.json");
        let config = Config::load(&path).expect("nothing is wrong");
        assert!(!config.exists && config.gateway.mode.is_none());
        std::fs::write(&path, " \n").expect("it writes");
        assert!(Config::load(&path).expect("nothing is wrong").exists);
        std::fs::write(&path, [0xff, 0xfe]).expect("it writes");
        assert_eq!(
            Config::load(&path).expect_err("it is no text").to_string(),
            format!("cannot read the configuration {}", path.display())
        );
    }

    #[test]
    fn wrong_types_and_values_are_refused_with_their_place() {
        let port = "must be a whole number from 1 to 65535";
        let cases: &[(&str, &str)] = &[
            ("[]", "the root in /s/openclaw.json must be an object, not an array"),
            ("{gateway: 1}", "gateway in /s/openclaw.json must be an object, not 1"),
            ("{gateway: {port: '80'}}", &format!("gateway.port in /s/openclaw.json {port}, not \"80\"")),
            ("{gateway: {port: 0}}", &format!("gateway.port in /s/openclaw.json {port}, not 0")),
            ("{gateway: {port: 65536}}", &format!("gateway.port in /s/openclaw.json {port}, not 65536")),
            ("{gateway: {port: -1}}", &format!("gateway.port in /s/openclaw.json {port}, not -1")),
            ("{gateway: {port: null}}", &format!("gateway.port in /s/openclaw.json {port}, not null")),
            (
                "{gateway: {mode: 'lokal'}}",
                "gateway.mode in /s/openclaw.json must be one of \"local\", \"remote\", not \"lokal\"; \
                 did you mean `local`?",
            ),
            (
                "{gateway: {bind: 'lann'}}",
                "gateway.bind in /s/openclaw.json must be one of \"loopback\", \"lan\", \"tailnet\", \"auto\", \
                 \"custom\", not \"lann\"; did you mean `lan`?",
            ),
            ("{gateway: {auth: {mode: 1}}}", "gateway.auth.mode in /s/openclaw.json must be a text, not 1"),
            (
                "{gateway: {auth: {token: 123456}}}",
                "gateway.auth.token in /s/openclaw.json must be a text in quotation marks",
            ),
            (
                "{gateway: {auth: {token: {source: 'exec', id: 'x'}}}}",
                "gateway.auth.token in /s/openclaw.json must be a text or {source: \"env\", id: \"VARIABLE\"}, \
                 not another object",
            ),
            ("{gateway: {auth: {token: ' '}}}", "gateway.auth.token in /s/openclaw.json is empty"),
            ("{gateway: {remote: {password: ''}}}", "gateway.remote.password in /s/openclaw.json is empty"),
            (
                "{gateway: {remote: {url: ''}}}",
                "gateway.remote.url in /s/openclaw.json must be a text, not \"\"",
            ),
            (
                "{logging: {maxFileBytes: 0}}",
                "logging.maxFileBytes in /s/openclaw.json must be a whole number, at least 1, not 0",
            ),
            (
                "{commands: {restart: 'yes'}}",
                "commands.restart in /s/openclaw.json must be true or false, not \"yes\"",
            ),
            (
                "{agents: {entries: {'../x': {}}}}",
                "agents.entries.../x in /s/openclaw.json must have an id of letters, digits, `_` and `-`, \
                 at most 64",
            ),
            (
                "{agents: {entries: {a: {identity: {name: []}}}}}",
                "agents.entries.a.identity.name in /s/openclaw.json must be a text, not an array",
            ),
            (
                "{agents: {defaults: {model: {primary: 1}}}}",
                "agents.defaults.model.primary in /s/openclaw.json must be a text, not 1",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(error(text), *expected, "{text}");
        }
    }

    #[test]
    fn misspelt_keys_are_refused_and_others_give_a_warning() {
        for (text, key, nearest) in [
            ("{gateway: {prot: 1}}", "gateway.prot", "port"),
            ("{gateway: {Port: 1}}", "gateway.Port", "port"),
            ("{gateway: {tailscail: {}}}", "gateway.tailscail", "tailscale"),
            ("{gateway: {auth: {tokn: 'x'}}}", "gateway.auth.tokn", "token"),
            ("{gateway: {remote: {urls: 'x'}}}", "gateway.remote.urls", "url"),
            ("{logging: {levels: 'info'}}", "logging.levels", "level"),
            ("{commands: {restrat: true}}", "commands.restrat", "restart"),
        ] {
            let error = parse(text).expect_err("it is refused");
            assert_eq!(
                error.to_string(),
                format!("unknown key {key} in /s/openclaw.json; did you mean `{nearest}`?")
            );
            let (parent, _) = key.rsplit_once('.').expect("it has a parent");
            assert_eq!(error.hint(), Some(format!("rename it to {parent}.{nearest}")));
        }
        let config =
            parse("{gateway: {canvas: {}}, commands: {native: 'auto'}, bogus: 1}").expect("it is good");
        assert_eq!(
            config.warnings,
            [
                "gateway.canvas in /s/openclaw.json is not known to this gateway and has no effect",
                "commands.native in /s/openclaw.json is not known to this gateway and has no effect",
            ]
        );
    }

    #[test]
    fn who_is_trusted_beyond_this_host_is_listed() {
        let config = parse(
            "{gateway: {controlUi: {allowedOrigins: ['https://ui.example.com', '*']}, trustedProxies: ['10.0.0.0/8']}}",
        )
        .expect("it is read");
        assert_eq!(config.gateway.allowed_origins.expect("they are read").value.len(), 2);
        assert_eq!(config.gateway.trusted_proxies.expect("they are read").value.len(), 1);
        assert_eq!(
            config.warnings,
            [
                "gateway.controlUi.allowedOrigins in /s/openclaw.json lets every page on the web call this gateway"
            ]
        );
        for (text, problem) in [
            (
                "{gateway: {controlUi: {allowedOrigins: ['*', 'ui.example.com']}}}",
                "gateway.controlUi.allowedOrigins[1] in /s/openclaw.json must be an origin such as",
            ),
            (
                "{gateway: {trustedProxies: [1]}}",
                "gateway.trustedProxies[0] in /s/openclaw.json must be an address",
            ),
            ("{gateway: {trustedProxies: ['proxy']}}", "must be an address or a network"),
            ("{gateway: {trustedProxies: '10.0.0.1'}}", "must be a list"),
        ] {
            let error = parse(text).expect_err("it is refused").to_string();
            assert!(error.contains(problem), "{error}");
        }
    }

    #[test]
    fn the_old_form_of_lan_is_understood() {
        let config = parse("{gateway: {bind: '0.0.0.0'}}").expect("it is good");
        assert_eq!(value(config.gateway.bind.as_ref()), Some(BindMode::Lan));
        assert_eq!(
            config.warnings,
            ["gateway.bind in /s/openclaw.json is \"0.0.0.0\", which is read as \"lan\""]
        );
    }

    #[test]
    fn variables_are_substituted() {
        let env = Env::from_iter([("A", "1"), ("B_2", "two"), ("EMPTY", "")]);
        let substitute = |text: &str| {
            substitute(&Sourced::new(text.to_owned(), Source::Flag("--x")), &env)
                .map(|text| text.value)
                .map_err(|error| error.to_string())
        };
        for (text, expected) in [
            ("plain", "plain"),
            ("${A}", "1"),
            ("x${A}-${B_2}y", "x1-twoy"),
            ("$${A}", "${A}"),
            ("$${A}${A}", "${A}1"),
            ("$${a}", "$${a}"),
            ("${a} $A ${} ${", "${a} $A ${} ${"),
            ("${A", "${A"),
        ] {
            assert_eq!(substitute(text).as_deref(), Ok(expected), "{text}");
        }
        for name in ["NONE", "EMPTY"] {
            assert_eq!(
                substitute(&format!("${{{name}}}")),
                Err(format!("flag --x refers to the environment variable {name}, which is not set"))
            );
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let config =
            parse("{gateway: {auth: {token: 'hush'}, remote: {password: 'hush'}}}").expect("it is good");
        assert!(!format!("{config:?}").contains("hush"));
    }
}
