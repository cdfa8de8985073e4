//! The configuration file: JSON5, shared with stock installs.
//!
//! The schema crate declares what may stand in it (`openclaw_schema::config`). Sections that this gateway does not know
//! are kept and ignored. In its own sections wrong types and values are refused, and so are keys that look misspelt;
//! other unknown keys give a warning, unless they are stock's.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use openclaw_schema::config::{
    AgentEntry, Agents, Commands, Discovery, Gateway, Logging, Models, Secret, Sections, Texts, Variables,
    is_variable,
};
use secrecy::SecretString;
use serde_json::Value;

use super::{
    ConfigError, Env, Source, Sourced, UnknownName, models,
    reader::{self, Fault},
    tree::Tree,
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
    /// The section `models`.
    pub models: Models,
    /// The section `env`.
    pub env: Variables,
    /// The files that it includes.
    pub included: Vec<Arc<Path>>,
    /// What looks odd but is not refused, a sentence each.
    pub warnings: Vec<String>,
}

/// The longest id of an agent, in bytes: it becomes part of paths.
const MAX_AGENT_ID_BYTES: usize = 64;

impl Config {
    /// Reads the file at `path`, and what it includes. A missing or blank file is an empty configuration.
    ///
    /// # Errors
    ///
    /// A file that does not open or is not JSON5; an include that cannot be followed; a value or key that is refused.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let (text, exists) = read_text(path)?;
        Ok(Self { exists, ..Self::parse(&text, path)? })
    }

    /// The files that it consists of, the one at `path` first.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        [&self.path].into_iter().chain(&self.included).map(|file| file.to_path_buf()).collect()
    }

    /// Reads `text`, the content of the file at `path`, and what it includes.
    pub(crate) fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        Self::of_values(&mut Tree::parse(text, path)?).map_err(|fault| fault.error)
    }

    /// Reads the values of `tree`; old forms in it are replaced.
    pub(super) fn of_values(tree: &mut Tree) -> Result<Self, Box<Fault>> {
        let mut warnings = Vec::new();
        old_forms(tree, &mut warnings);
        let Sections { gateway, logging, commands, discovery, agents, models, env } =
            reader::read(tree, &mut warnings)?;
        let config = Self {
            path: Arc::clone(tree.file(tree.main())),
            exists: true,
            gateway,
            logging,
            commands,
            agents,
            discovery,
            models,
            env,
            included: tree.included().cloned().collect(),
            warnings,
        };
        config.checked()
    }

    /// What the types do not say.
    fn checked(mut self) -> Result<Self, Box<Fault>> {
        for (id, entry) in &self.agents.entries {
            ensure_agent_id(id, entry)?;
        }
        models::check(&self.models, &self.agents, &mut self.warnings)?;
        let origins = &self.gateway.control_ui.allowed_origins;
        let origins = listed::<Origin>(origins.as_ref(), &["gateway", "controlUi", "allowedOrigins"])?;
        if let Some(given) = &self.gateway.control_ui.allowed_origins
            && origins.iter().any(Origin::is_any)
        {
            self.warnings.push(format!("{} lets every page on the web call this gateway", given.source));
        }
        listed::<Network>(self.gateway.trusted_proxies.as_ref(), &["gateway", "trustedProxies"])?;
        Ok(self)
    }

    /// The origins of `gateway.controlUi.allowedOrigins`.
    pub(super) fn allowed_origins(&self) -> Vec<Origin> {
        parsed(self.gateway.control_ui.allowed_origins.as_ref())
    }

    /// The networks of `gateway.trustedProxies`.
    pub(super) fn trusted_proxies(&self) -> Vec<Network> {
        parsed(self.gateway.trusted_proxies.as_ref())
    }
}

/// The content of the file at `path`, and whether there is a file.
pub(super) fn read_text(path: &Path) -> Result<(String, bool), ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok((text, true)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((String::new(), false)),
        Err(source) => Err(ConfigError::Read { path: path.to_owned(), source }),
    }
}

/// Replaces what stock has read in the past by what it means now. cli.md sections 2.2 and 11.
fn old_forms(tree: &mut Tree, warnings: &mut Vec<String>) {
    for (path, old, new) in [
        (["gateway", "bind"].as_slice(), "0.0.0.0", "lan"),
        (&["gateway", "reload", "mode"], "hot", "hybrid"),
        (&["gateway", "reload", "mode"], "restart", "hybrid"),
    ] {
        let path: Vec<String> = path.iter().map(|name| (*name).to_owned()).collect();
        if tree.replace(&path, &Value::from(old), Value::from(new)) {
            warnings.push(format!("{} is \"{old}\", which is read as \"{new}\"", tree.source(&path)));
        }
    }
}

fn ensure_agent_id(id: &str, entry: &Sourced<AgentEntry>) -> Result<(), Box<Fault>> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if id.is_empty() || id.len() > MAX_AGENT_ID_BYTES || !id.bytes().all(is_allowed) {
        let path = ["agents", "entries", id];
        let problem = "must have an id of letters, digits, `_` and `-`, at most 64";
        return Err(bad_value(&path, entry.source.clone(), problem));
    }
    Ok(())
}

/// The fault of the value at `path`.
pub(super) fn bad_value(path: &[&str], origin: Source, problem: impl Into<String>) -> Box<Fault> {
    Box::new(Fault {
        path: path.iter().map(|name| (*name).to_owned()).collect(),
        error: ConfigError::BadValue { origin, problem: problem.into(), nearest: None },
    })
}

/// Texts that each stand for something; `path` is theirs.
fn listed<T: std::str::FromStr<Err: std::fmt::Display>>(
    texts: Option<&Sourced<Texts>>,
    path: &[&str],
) -> Result<Vec<T>, Box<Fault>> {
    let read = |(index, text): (usize, &Sourced<String>)| {
        text.value.parse().map_err(|problem| {
            let index = format!("[{index}]");
            let path: Vec<&str> = path.iter().copied().chain([index.as_str()]).collect();
            bad_value(&path, text.source.clone(), format!("{problem}, not {}", quoted(&text.value)))
        })
    };
    texts.into_iter().flat_map(|texts| &texts.value).enumerate().map(read).collect()
}

/// The same, of a configuration that was checked.
fn parsed<T: std::str::FromStr>(texts: Option<&Sourced<Texts>>) -> Vec<T> {
    texts.into_iter().flat_map(|texts| &texts.value).filter_map(|text| text.value.parse().ok()).collect()
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
            problem: format!("must be a whole number from 1 to 65535, not {}", quoted(&text.value)),
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
    secret: &Sourced<Secret>,
    env: &Env,
) -> Result<Sourced<SecretString>, ConfigError> {
    let text = Sourced::new(secret.value.expose_secret().to_owned(), secret.source.clone());
    Ok(substitute(&text, env)?.map(SecretString::from))
}

/// A value in an error's sentence.
pub(super) fn describe(value: &Value) -> String {
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
    use openclaw_schema::config::{ModelChoice, Port};

    use super::*;
    use crate::config::{AuthMode, BindMode, GatewayMode, LogLevel, ReloadMode};

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
        assert_eq!(value(gateway.port.as_ref()).map(Port::get), Some(19001));
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
        assert_eq!(config.logging.max_file_bytes.as_ref().map(|bytes| bytes.value.get()), Some(1000));
        assert_eq!(value(config.commands.restart.as_ref()), Some(false));
        let defaults = &config.agents.defaults;
        assert_eq!(value(defaults.workspace.as_ref()).as_deref(), Some("~/w"));
        let model = |choice: &Option<Sourced<ModelChoice>>| {
            choice.as_ref().and_then(Sourced::<ModelChoice>::primary).map(|model| model.value)
        };
        assert_eq!(model(&defaults.model).as_deref(), Some("echo/echo"));
        let agents: Vec<_> = config.agents.entries.iter().collect();
        let [(b_id, b), (a_id, a)] = agents[..] else { panic!("two agents: {agents:?}") };
        assert_eq!((b_id.as_str(), value(b.value.is_default.as_ref())), ("b", Some(true)));
        assert_eq!(value(b.value.workspace.as_ref()).as_deref(), Some("/b"));
        assert_eq!(model(&b.value.model).as_deref(), Some("echo/b"));
        assert_eq!(value(b.value.identity.name.as_ref()).as_deref(), Some("Bee"));
        assert_eq!((a_id.as_str(), value(a.value.is_default.as_ref())), ("a", None));
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
            parse("{gateway: {canvas: {}, tools: {}}, commands: {native: 'auto', nothing: 1}, bogus: 1}")
                .expect("it is good");
        assert_eq!(
            config.warnings,
            [
                "gateway.canvas in /s/openclaw.json is not known to this gateway and has no effect",
                "commands.nothing in /s/openclaw.json is not known to this gateway and has no effect",
            ]
        );
    }

    #[test]
    fn who_is_trusted_beyond_this_host_is_listed() {
        let config = parse(
            "{gateway: {controlUi: {allowedOrigins: ['https://ui.example.com', '*']}, trustedProxies: ['10.0.0.0/8']}}",
        )
        .expect("it is read");
        assert_eq!((config.allowed_origins().len(), config.trusted_proxies().len()), (2, 1));
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
                "gateway.trustedProxies[0] in /s/openclaw.json must be a text, not 1",
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
        let config = parse("{gateway: {reload: {mode: 'hot'}}}").expect("it is good");
        assert_eq!(value(config.gateway.reload.mode.as_ref()), Some(ReloadMode::Hybrid));
    }

    #[test]
    fn a_value_of_an_included_file_names_that_file() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("openclaw.json");
        std::fs::write(&path, "{gateway: {mode: 'local', $include: 'gateway.json5'}}").expect("it writes");
        let included = directory.path().join("gateway.json5");
        std::fs::write(&included, "{port: 7, bind: 'lan', auth: {tokn: 'x'}}").expect("it writes");
        let key = |key: &str| format!("{key} in {}", included.display());
        assert_eq!(
            Config::load(&path).expect_err("it is refused").to_string(),
            format!("unknown key {}; did you mean `token`?", key("gateway.auth.tokn"))
        );
        std::fs::write(&included, "{port: 7, bind: 'lan'}").expect("it writes");
        let config = Config::load(&path).expect("it is good");
        assert_eq!(config.gateway.port.expect("it is set").source.to_string(), key("gateway.port"));
        assert_eq!(
            config.gateway.mode.expect("it is set").source.to_string(),
            format!("gateway.mode in {}", path.display())
        );
        assert_eq!(config.included.len(), 1);
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
