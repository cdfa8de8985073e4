//! The environment: the names of the variables, and the one place that reads them.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Config, ConfigError, Source, Sourced, dotenv, file::read_text};
use crate::state::StateDir;

/// The home directory; the default state directory lies in it.
pub const HOME: &str = "HOME";
/// Replaces [`HOME`] for the default paths.
pub const OPENCLAW_HOME: &str = "OPENCLAW_HOME";
/// The profile, as `--profile` names it.
pub const PROFILE: &str = "OPENCLAW_PROFILE";
/// The state directory, whatever the profile.
pub const STATE_DIR: &str = "OPENCLAW_STATE_DIR";
/// The configuration file, wherever the state directory is.
pub const CONFIG_PATH: &str = "OPENCLAW_CONFIG_PATH";
/// The port that a gateway listens on and that clients on the same machine call.
pub const GATEWAY_PORT: &str = "OPENCLAW_GATEWAY_PORT";
/// The address of the gateway that clients call. With it configured credentials are not used.
pub const GATEWAY_URL: &str = "OPENCLAW_GATEWAY_URL";
/// The token that callers present; the configuration and the flags come before it.
pub const GATEWAY_TOKEN: &str = "OPENCLAW_GATEWAY_TOKEN";
/// The password that callers present; the configuration and the flags come before it.
pub const GATEWAY_PASSWORD: &str = "OPENCLAW_GATEWAY_PASSWORD";
/// The gateway's own secrets: no program that it starts gets them.
pub const SECRETS: [&str; 2] = [GATEWAY_TOKEN, GATEWAY_PASSWORD];
/// Whether a gateway stays unannounced: `1` for yes, `0` to announce it in a container too.
pub const DISABLE_BONJOUR: &str = "OPENCLAW_DISABLE_BONJOUR";
/// The host's name in announcements, instead of the system's.
pub const MDNS_HOSTNAME: &str = "OPENCLAW_MDNS_HOSTNAME";
/// The SSH port in announcements of full mode.
pub const SSH_PORT: &str = "OPENCLAW_SSH_PORT";
/// The host's name in its tailnet, in announcements of full mode.
pub const TAILNET_DNS: &str = "OPENCLAW_TAILNET_DNS";
/// The command line's path in announcements of full mode.
pub const CLI_PATH: &str = "OPENCLAW_CLI_PATH";
/// A domain that `gateway discover` looks in, besides the configured one.
pub const WIDE_AREA_DOMAIN: &str = "OPENCLAW_WIDE_AREA_DOMAIN";
/// The least severe level that is logged, to the file and to the console; also per part of the program, as in
/// `info,wire=debug`.
pub const LOG_LEVEL: &str = "OPENCLAW_LOG_LEVEL";

/// Set to `1`: client commands speak plain `ws` and `http` to other hosts too.
pub const ALLOW_PLAINTEXT: &str = "OPENCLAW_ALLOW_INSECURE_PRIVATE_WS";
/// Whether every raw model event is written to a file: `1`.
pub const RAW_STREAM: &str = "OPENCLAW_RAW_STREAM";
/// That file.
pub const RAW_STREAM_PATH: &str = "OPENCLAW_RAW_STREAM_PATH";

/// Variables that say where state and configuration are. In a file that is found by them they mean nothing.
const LOCATIONS: [&str; 5] = [HOME, OPENCLAW_HOME, PROFILE, STATE_DIR, CONFIG_PATH];

/// The environment that a command runs in. A variable that is set to nothing counts as not set.
///
/// Below the environment of the process lies the file `.env` of the state directory, and below that `env` of the
/// configuration: a variable is taken from the first that has it. Nothing is set for other processes. Unlike stock, no
/// `.env` of the current directory is read: what a command does must not depend on where it is run.
#[derive(Clone, Default)]
pub struct Env {
    variables: BTreeMap<OsString, OsString>,
    /// Those of files.
    below: BTreeMap<OsString, Filed>,
    /// What is wrong with the file, a sentence each.
    problems: Vec<String>,
}

/// A variable of a file.
#[derive(Clone)]
struct Filed {
    value: OsString,
    origin: Origin,
}

#[derive(Clone)]
enum Origin {
    /// The file `.env`.
    EnvFile(Arc<Path>),
    /// The configuration.
    Config(Source),
}

impl Env {
    /// The environment of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let mut variables: BTreeMap<_, _> = std::env::vars_os().collect();
        if !variables.contains_key(OsStr::new(HOME))
            && let Some(home) = std::env::home_dir()
        {
            variables.insert(HOME.into(), home.into());
        }
        Self { variables, ..Self::default() }
    }

    /// Whether [`ALLOW_PLAINTEXT`] says so.
    #[must_use]
    pub fn allows_plaintext(&self) -> bool {
        self.os(ALLOW_PLAINTEXT).is_some_and(|value| value == "1")
    }

    /// This environment, and below it the file `.env` of the state directory, if there is one.
    ///
    /// # Errors
    ///
    /// When the file is there and does not open.
    pub fn with_state_file(&self, state: &StateDir) -> Result<Self, ConfigError> {
        let mut all = self.clone();
        let path: Arc<Path> = state.env_file().into();
        let (text, _) = read_text(&path)?;
        for (line, assignment) in dotenv::assignments(&text) {
            // No value is shown: it may be a secret.
            let mut tell = |problem: &str| {
                all.problems.push(format!("line {line} of {} {problem}; it has no effect", path.display()));
            };
            match assignment {
                None => tell("is not NAME=VALUE"),
                Some((name, _)) if LOCATIONS.contains(&name.as_str()) => {
                    tell(&format!("sets {name}, which must be set before this file is found"));
                }
                Some((name, value)) if !value.is_empty() => {
                    let filed = Filed { value: value.into(), origin: Origin::EnvFile(Arc::clone(&path)) };
                    all.below.insert(name.into(), filed);
                }
                Some(_) => {}
            }
        }
        Ok(all)
    }

    /// This environment, and below it the variables of the configuration.
    pub(super) fn with_config(&self, config: &Config) -> Self {
        let mut all = self.clone();
        for (name, value) in config.env.iter() {
            let secret = value.value.expose_secret();
            // One in `vars` comes before one beside it.
            let is_higher = all.below.get(OsStr::new(name)).is_some_and(|filed| match &filed.origin {
                Origin::EnvFile(_) => true,
                Origin::Config(_) => false,
            });
            if !secret.is_empty() && !is_higher {
                let filed = Filed { value: secret.into(), origin: Origin::Config(value.source.clone()) };
                all.below.insert(name.into(), filed);
            }
        }
        all
    }

    /// What is wrong with the file `.env`, a sentence each.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    /// The value of a variable, as the system gives it.
    pub(super) fn os(&self, name: &str) -> Option<&OsStr> {
        self.found(name).map(|(value, _)| value)
    }

    /// The same, with the file that it is from, if it is from one.
    fn found(&self, name: &str) -> Option<(&OsStr, Option<&Origin>)> {
        let name = OsStr::new(name);
        let own = self.variables.get(name).filter(|value| !value.is_empty());
        match own {
            Some(value) => Some((value, None)),
            None => self.below.get(name).map(|filed| (filed.value.as_os_str(), Some(&filed.origin))),
        }
    }

    /// Where a variable that is set came from.
    pub(super) fn source(&self, name: &'static str) -> Source {
        match self.found(name).and_then(|(_, origin)| origin) {
            Some(Origin::EnvFile(path)) => Source::EnvFile { name, path: Arc::clone(path) },
            Some(Origin::Config(source)) => source.clone(),
            None => Source::Env(name),
        }
    }

    /// The value of a variable as text.
    pub(super) fn text(&self, name: &'static str) -> Result<Option<Sourced<String>>, ConfigError> {
        let Some(value) = self.os(name) else { return Ok(None) };
        let source = self.source(name);
        match value.to_str() {
            Some(text) => Ok(Some(Sourced::new(text.to_owned(), source))),
            None => Err(ConfigError::BadValue {
                origin: source,
                problem: "must be text in UTF-8".to_owned(),
                nearest: None,
            }),
        }
    }

    /// The home directory for default paths.
    pub(super) fn home(&self) -> Option<PathBuf> {
        self.os(OPENCLAW_HOME).or_else(|| self.os(HOME)).map(PathBuf::from)
    }

    /// `path` with a leading `~` replaced by the home directory.
    pub(super) fn expand_home(&self, path: &OsStr) -> Result<PathBuf, ConfigError> {
        let path = PathBuf::from(path);
        match path.strip_prefix("~") {
            Ok(rest) => Ok(self.home().ok_or(ConfigError::NoHome)?.join(rest)),
            Err(_) => Ok(path),
        }
    }
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Env {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        Self {
            variables: variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
            ..Self::default()
        }
    }
}

impl fmt::Debug for Env {
    /// The names alone: values may be secrets.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.variables.keys().chain(self.below.keys())).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_is_not_set() {
        let env = Env::from_iter([(PROFILE, ""), (STATE_DIR, "/s")]);
        assert_eq!(env.os(PROFILE), None);
        assert_eq!(env.os(STATE_DIR), Some(OsStr::new("/s")));
    }

    #[test]
    fn the_process_comes_before_its_file_and_that_before_the_configuration() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = StateDir::new(directory.path());
        let file = state.env_file();
        let written = "OPENCLAW_GATEWAY_TOKEN=file\nB=file\n# no\nhush hush\nHOME=/x\nEMPTY=\n";
        std::fs::write(&file, written).expect("it writes");
        let text =
            "{env: {vars: {OPENCLAW_GATEWAY_TOKEN: 'config', B: 'config', C: 'config', EMPTY: 'config'}}}";
        let config = Config::parse(text, Path::new("/s/openclaw.json")).expect("it reads");
        let process = Env::from_iter([("B", "process"), ("EMPTY", "")]);
        let env = process.with_state_file(&state).expect("it reads").with_config(&config);
        for (name, value) in [("B", "process"), ("C", "config"), ("EMPTY", "config")] {
            assert_eq!(env.os(name), Some(OsStr::new(value)), "{name}");
        }
        let token = env.text(GATEWAY_TOKEN).expect("it is text").expect("it is set");
        let origin = format!("env OPENCLAW_GATEWAY_TOKEN in {}", file.display());
        assert_eq!((token.value.as_str(), token.source.to_string()), ("file", origin));
        let of_config = process.with_config(&config).text(GATEWAY_TOKEN).expect("it is text");
        assert_eq!(
            of_config.expect("it is set").source.to_string(),
            "env.vars.OPENCLAW_GATEWAY_TOKEN in /s/openclaw.json"
        );
        let path = file.display();
        assert_eq!(
            env.problems(),
            [
                format!("line 4 of {path} is not NAME=VALUE; it has no effect"),
                format!(
                    "line 5 of {path} sets HOME, which must be set before this file is found; it has no effect"
                ),
            ]
        );
        assert!(!format!("{env:?}").contains("file"));
    }

    #[test]
    fn a_tilde_is_the_home_directory() {
        let env = Env::from_iter([(HOME, "/home/a")]);
        for (given, path) in [("~", "/home/a"), ("~/x", "/home/a/x"), ("~x/y", "~x/y"), ("/z", "/z")] {
            assert_eq!(env.expand_home(OsStr::new(given)).expect("there is a home"), PathBuf::from(path));
        }
        let env = Env::from_iter([(HOME, "/home/a"), (OPENCLAW_HOME, "/home/b")]);
        assert_eq!(env.home(), Some("/home/b".into()));
        assert!(Env::default().expand_home(OsStr::new("~/x")).is_err());
    }

    #[test]
    fn debug_shows_no_values() {
        let env = Env::from_iter([(GATEWAY_TOKEN, "hush")]);
        assert_eq!(format!("{env:?}"), "{\"OPENCLAW_GATEWAY_TOKEN\"}");
    }
}
