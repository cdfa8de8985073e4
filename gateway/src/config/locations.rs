//! Which state directory, configuration file and default port a command means.

use std::path::{Path, PathBuf};

use super::{ConfigError, Env, Source, env};
use crate::state::StateDir;

/// The profile that `--dev` means.
const DEV_PROFILE: &str = "dev";
/// The port of the unnamed profile. cli.md section 1.1.
const DEFAULT_PORT: u16 = 18789;
/// The port of the profile `dev`. cli.md section 1.1.
const DEV_PORT: u16 = 19001;
/// The lowest port of other profiles. cli.md section 1.1.
const PROFILE_PORT_BASE: u32 = 20_000;
/// How many ports other profiles share. cli.md section 1.1.
const PROFILE_PORTS: u32 = 40_000;
/// The longest name of a profile, in bytes: it becomes part of file and service names.
const MAX_PROFILE_BYTES: usize = 64;

/// The flags that say which profile is meant.
#[derive(Debug, Clone, Default)]
pub struct LocationFlags {
    /// `--profile`.
    pub profile: Option<String>,
    /// `--dev`: the profile `dev`, unless `--profile` names another one.
    pub dev: bool,
}

/// Which state directory, configuration file and default port a command means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Locations {
    profile: Option<String>,
    state: StateDir,
    config_file: PathBuf,
    /// Whether both paths are the profile's own, not said by the environment.
    is_profiles_own: bool,
}

impl Locations {
    /// Finds the locations; nothing is read or created. A profile has its state in `~/.openclaw-<profile>`, the
    /// unnamed one (also called `default`) in `~/.openclaw`. `--profile` comes before `--dev`, that before
    /// `OPENCLAW_PROFILE`. Whatever the profile, `OPENCLAW_STATE_DIR` and `OPENCLAW_CONFIG_PATH` replace the paths.
    ///
    /// # Errors
    ///
    /// A profile with an impossible name; no home directory where one is needed.
    pub fn resolve(flags: &LocationFlags, env: &Env) -> Result<Self, ConfigError> {
        let profile = profile(flags, env)?;
        let state_dir = env.os(env::STATE_DIR);
        let root = match (state_dir, &profile) {
            (Some(path), _) => env.expand_home(path)?,
            (None, None) => env.home().ok_or(ConfigError::NoHome)?.join(".openclaw"),
            (None, Some(name)) => env.home().ok_or(ConfigError::NoHome)?.join(format!(".openclaw-{name}")),
        };
        let state = StateDir::new(absolute(&root));
        let config_path = env.os(env::CONFIG_PATH);
        let config_file = match config_path {
            Some(path) => absolute(&env.expand_home(path)?),
            None => state.config_file(),
        };
        Ok(Self {
            profile,
            state,
            config_file,
            is_profiles_own: state_dir.is_none() && config_path.is_none(),
        })
    }

    /// The name of the profile; absent for the unnamed one.
    #[must_use]
    pub fn profile(&self) -> Option<&str> {
        self.profile.as_deref()
    }

    /// The state directory.
    #[must_use]
    pub fn state(&self) -> &StateDir {
        &self.state
    }

    /// The configuration file, whether it is there or not.
    #[must_use]
    pub fn config_file(&self) -> &Path {
        &self.config_file
    }

    /// The port when nobody says another one: 18789, or what belongs to the profile, so that profiles do not meet.
    #[must_use]
    pub fn default_port(&self) -> u16 {
        match self.profile() {
            None => DEFAULT_PORT,
            Some(DEV_PROFILE) => DEV_PORT,
            Some(name) => u16::try_from(PROFILE_PORT_BASE + fnv1a(name) % PROFILE_PORTS)
                .expect("the base and the number of ports add up to less than 65,536"),
        }
    }

    /// Whether this is the profile `dev` in its own directory: what lies there may be thrown away.
    #[must_use]
    pub fn is_dev_profiles_own(&self) -> bool {
        self.profile() == Some(DEV_PROFILE) && self.is_profiles_own
    }
}

fn profile(flags: &LocationFlags, env: &Env) -> Result<Option<String>, ConfigError> {
    let (origin, name) = if let Some(name) = &flags.profile {
        (Source::Flag("--profile"), name.clone())
    } else if flags.dev {
        return Ok(Some(DEV_PROFILE.to_owned()));
    } else if let Some(name) = env.text(env::PROFILE)? {
        (name.source, name.value)
    } else {
        return Ok(None);
    };
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
    if name.is_empty() || name.len() > MAX_PROFILE_BYTES || !name.bytes().all(is_allowed) {
        return Err(ConfigError::Profile { origin, given: name });
    }
    Ok((name != "default").then_some(name))
}

/// `path` from the root. Only a missing current directory stands in the way; then it is left as it is.
pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The 32-bit FNV-1a hash.
fn fnv1a(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(profile: Option<&str>, dev: bool, env: &[(&str, &str)]) -> Result<Locations, ConfigError> {
        let flags = LocationFlags { profile: profile.map(str::to_owned), dev };
        Locations::resolve(&flags, &env.iter().copied().collect())
    }

    #[test]
    fn a_profile_has_its_own_directory_and_port() {
        for (profile, dev, env, root, port) in [
            (None, false, None, "/h/.openclaw", 18789),
            (Some("default"), false, None, "/h/.openclaw", 18789),
            (None, true, None, "/h/.openclaw-dev", 19001),
            (Some("dev"), false, None, "/h/.openclaw-dev", 19001),
            (None, false, Some("dev"), "/h/.openclaw-dev", 19001),
            (Some("work"), false, None, "/h/.openclaw-work", 41984),
            (Some("work"), true, None, "/h/.openclaw-work", 41984),
            (Some("work"), false, Some("a"), "/h/.openclaw-work", 41984),
            (None, true, Some("a"), "/h/.openclaw-dev", 19001),
            (Some("rescue"), false, None, "/h/.openclaw-rescue", 23532),
            (Some("a"), false, None, "/h/.openclaw-a", 22220),
            (Some("b"), false, None, "/h/.openclaw-b", 35077),
            (Some("ops"), false, None, "/h/.openclaw-ops", 55291),
            (Some("main"), false, None, "/h/.openclaw-main", 23592),
            (Some("Main"), false, None, "/h/.openclaw-Main", 25544),
            (Some("test1"), false, None, "/h/.openclaw-test1", 40284),
        ] {
            let mut variables = vec![("HOME", "/h")];
            variables.extend(env.map(|name| (env::PROFILE, name)));
            let found = resolve(profile, dev, &variables).expect("the profile is good");
            assert_eq!(found.state().root(), Path::new(root), "{profile:?} {dev} {env:?}");
            assert_eq!(found.config_file(), Path::new(root).join("openclaw.json"));
            assert_eq!(found.default_port(), port, "{profile:?} {dev} {env:?}");
        }
    }

    #[test]
    fn the_environment_moves_the_paths_but_not_the_port() {
        let home = (env::HOME, "/h");
        for (variables, root, file) in [
            (vec![home, (env::OPENCLAW_HOME, "/o")], "/o/.openclaw-dev", "/o/.openclaw-dev/openclaw.json"),
            (vec![(env::STATE_DIR, "/s")], "/s", "/s/openclaw.json"),
            (vec![home, (env::STATE_DIR, "~/s")], "/h/s", "/h/s/openclaw.json"),
            (vec![home, (env::CONFIG_PATH, "/c.json5")], "/h/.openclaw-dev", "/c.json5"),
            (vec![(env::STATE_DIR, "/s"), (env::CONFIG_PATH, "/c.json5")], "/s", "/c.json5"),
        ] {
            let found = resolve(None, true, &variables).expect("the paths are good");
            assert_eq!(found.state().root(), Path::new(root), "{variables:?}");
            assert_eq!(found.config_file(), Path::new(file), "{variables:?}");
            assert_eq!(found.default_port(), 19001);
            assert_eq!(found.profile(), Some("dev"));
        }
    }

    #[test]
    fn relative_paths_are_made_absolute() {
        let found = resolve(None, false, &[(env::STATE_DIR, "state")]).expect("the path is good");
        assert!(found.state().root().is_absolute(), "{found:?}");
    }

    #[test]
    fn only_the_dev_profile_in_its_own_place_may_be_thrown_away() {
        let home = (env::HOME, "/h");
        for (dev, variables, may) in [
            (true, vec![home], true),
            (true, vec![home, (env::OPENCLAW_HOME, "/o")], true),
            (false, vec![home], false),
            (true, vec![home, (env::STATE_DIR, "/h/.openclaw")], false),
            (true, vec![home, (env::CONFIG_PATH, "/h/.openclaw/openclaw.json")], false),
        ] {
            let found = resolve(None, dev, &variables).expect("the paths are good");
            assert_eq!(found.is_dev_profiles_own(), may, "{variables:?}");
        }
    }

    #[test]
    fn impossible_profiles_are_refused() {
        let error = |profile: Option<&str>, variables: &[(&str, &str)]| {
            resolve(profile, false, variables).expect_err("it is refused").to_string()
        };
        let rule = "(letters, digits, `_` and `-` only, at most 64)";
        for name in ["", "a/b", "..", "a b", "ä", &"x".repeat(65)] {
            assert_eq!(
                error(Some(name), &[(env::HOME, "/h")]),
                format!("flag --profile is not a profile name: \"{name}\" {rule}")
            );
        }
        assert_eq!(
            error(None, &[(env::HOME, "/h"), (env::PROFILE, "../x")]),
            format!("env OPENCLAW_PROFILE is not a profile name: \"../x\" {rule}")
        );
        assert_eq!(error(None, &[]), "there is no home directory: neither HOME nor OPENCLAW_HOME is set");
    }
}
