//! The environment: the names of the variables, and the one place that reads them.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt,
    path::PathBuf,
};

use super::{ConfigError, Source, Sourced};

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

/// The environment that a command runs in. A variable that is set to nothing counts as not set.
#[derive(Clone, Default)]
pub struct Env {
    variables: BTreeMap<OsString, OsString>,
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
        Self { variables }
    }

    /// Whether [`ALLOW_PLAINTEXT`] says so.
    #[must_use]
    pub fn allows_plaintext(&self) -> bool {
        self.os(ALLOW_PLAINTEXT).is_some_and(|value| value == "1")
    }

    /// The value of a variable, as the system gives it.
    pub(super) fn os(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// Sets a variable that is not set.
    pub(super) fn set_default(&mut self, name: OsString, value: OsString) {
        if self.variables.get(&name).is_none_or(|value| value.is_empty()) {
            self.variables.insert(name, value);
        }
    }

    /// The value of a variable as text.
    pub(super) fn text(&self, name: &'static str) -> Result<Option<Sourced<String>>, ConfigError> {
        let Some(value) = self.os(name) else { return Ok(None) };
        let source = Source::Env(name);
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
        Self { variables: variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect() }
    }
}

impl fmt::Debug for Env {
    /// The names alone: values may be secrets.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.variables.keys()).finish()
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
