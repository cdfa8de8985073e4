//! The development profile: makes its configuration and workspace, and moves them out of the way.

use std::{
    io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde_json::json;

use crate::{
    config::Locations,
    state::{StateDir, StateError, StateLock, create_private, create_private_dir, new_token},
};

/// The agent of a new development configuration.
const AGENT: &str = "dev";

/// The files of a new workspace: what the agent is to know. There is no `BOOTSTRAP.md`: a development agent starts
/// to work without a first conversation.
const WORKSPACE_FILES: [(&str, &str); 4] = [
    (
        "AGENTS.md",
        "# How to work here\n\n\
         This workspace belongs to a development gateway. Try things out; nothing here is precious.\n\n\
         - Say what you are about to do before you change files outside of this directory.\n\
         - Keep notes that should outlive a session in this directory.\n",
    ),
    ("IDENTITY.md", "# Who you are\n\n- Name: Dev\n- Role: the agent of a development gateway\n"),
    (
        "SOUL.md",
        "# How you are\n\nBrief, exact and calm. Say so when you do not know, and show the error as it is.\n",
    ),
    (
        "USER.md",
        "# Who you work for\n\nA developer who tests this gateway. Add what you learn about them below.\n",
    ),
];

/// What [`ensure_dev`] found or made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevReport {
    /// The configuration file.
    pub config_file: PathBuf,
    /// The workspace of a new configuration.
    pub workspace: PathBuf,
    /// The files that were missing and are there now.
    pub created: Vec<PathBuf>,
}

/// What [`reset_dev`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResetReport {
    /// The folder that holds what was moved; absent when there was nothing to move.
    pub backup: Option<PathBuf>,
    /// What was moved, as paths relative to the state directory and to the backup.
    pub moved: Vec<PathBuf>,
}

/// Why the development profile was not reset.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResetError {
    /// Another profile is meant, or the environment moved its paths: this could be somebody's real state.
    #[error(
        "only the profile `dev` in its own directory is reset, not {}; \
         leave out --profile, OPENCLAW_STATE_DIR and OPENCLAW_CONFIG_PATH", state.display()
    )]
    NotDev {
        /// The state directory that was meant.
        state: PathBuf,
    },
    /// A file or folder could not be moved. What was moved before it lies in the backup.
    #[error("cannot move {} to {}", from.display(), to.display())]
    Move {
        /// What was to be moved.
        from: PathBuf,
        /// Where to.
        to: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The state directory is in use, or cannot be read.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Makes the development configuration with a random token, and its workspace, where they are missing. What is there
/// stays as it is; beside a configuration that is not ours to know, no workspace is made.
///
/// # Errors
///
/// What the file system says.
pub fn ensure_dev(locations: &Locations) -> Result<DevReport, StateError> {
    let config_file = locations.config_file().to_owned();
    let workspace = locations.state().workspace_dir();
    let mut created = Vec::new();
    let is_new = create_private(&config_file, dev_config(locations, &workspace)?.as_bytes())?;
    if is_new {
        created.push(config_file.clone());
    }
    if is_new || is_dev_config(&config_file, &workspace) {
        for (name, text) in WORKSPACE_FILES {
            let path = workspace.join(name);
            if create_private(&path, text.as_bytes())? {
                created.push(path);
            }
        }
    }
    Ok(DevReport { config_file, workspace, created })
}

fn dev_config(locations: &Locations, workspace: &Path) -> Result<String, StateError> {
    let config = json!({
        "gateway": {
            "mode": "local",
            "bind": "loopback",
            "port": locations.default_port(),
            "auth": { "mode": "token", "token": new_token()? },
        },
        "agents": {
            "defaults": { "workspace": workspace, "skipBootstrap": true },
            "entries": { AGENT: { "default": true, "workspace": workspace, "identity": { "name": "Dev" } } },
        },
    });
    Ok(format!("{config:#}\n"))
}

/// Whether the configuration at `path` has the development agent in `workspace`, as [`dev_config`] writes it.
fn is_dev_config(path: &Path, workspace: &Path) -> bool {
    // A configuration that does not load is reported by the start that follows.
    crate::config::Config::load(path).is_ok_and(|config| {
        config.agents.entries.iter().any(|(id, agent)| {
            id == AGENT
                && agent.value.workspace.as_ref().is_some_and(|own| Path::new(&own.value) == workspace)
        })
    })
}

/// Moves the configuration, credentials, sessions, gateway state and workspace of the profile `dev` to a dated folder
/// beside the state directory, such as `~/.openclaw-dev-backup-20261122T090501Z`. Nothing is deleted.
///
/// # Errors
///
/// [`ResetError::NotDev`] for any other profile; a gateway that runs there; what the file system says.
pub fn reset_dev(locations: &Locations) -> Result<ResetReport, ResetError> {
    let state = locations.state();
    if !locations.is_dev_profiles_own() {
        return Err(ResetError::NotDev { state: state.root().to_owned() });
    }
    // A gateway that runs there would lose its files. Without its folder none can run.
    let _lock = if state.gateway_dir().exists() { Some(StateLock::acquire(state)?) } else { None };
    let parts = parts(state)?;
    if parts.is_empty() {
        return Ok(ResetReport { backup: None, moved: Vec::new() });
    }
    let backup = new_backup_dir(state)?;
    let mut moved = Vec::new();
    for part in parts {
        let (from, to) = (state.root().join(&part), backup.join(&part));
        if let Some(parent) = to.parent() {
            create_private_dir(parent)?;
        }
        std::fs::rename(&from, &to).map_err(|source| ResetError::Move { from, to, source })?;
        moved.push(part);
    }
    Ok(ResetReport { backup: Some(backup), moved })
}

/// What a reset moves, as far as it is there, relative to the state directory.
fn parts(state: &StateDir) -> Result<Vec<PathBuf>, StateError> {
    let mut parts: Vec<PathBuf> =
        ["openclaw.json", "gateway", "credentials", "workspace"].map(PathBuf::from).to_vec();
    let agents = state.root().join("agents");
    let unreadable = |source| StateError::Io { action: "read", path: agents.clone(), source };
    match std::fs::read_dir(&agents) {
        Ok(entries) => {
            for entry in entries {
                parts.push(Path::new("agents").join(entry.map_err(unreadable)?.file_name()).join("sessions"));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(unreadable(error)),
    }
    // A link is moved too, wherever it leads.
    parts.retain(|part| state.root().join(part).symlink_metadata().is_ok());
    Ok(parts)
}

/// A new folder beside the state directory, named after it and the time.
fn new_backup_dir(state: &StateDir) -> Result<PathBuf, StateError> {
    let name = state.root().file_name().unwrap_or_default().to_string_lossy();
    let time = Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    let dated = state.root().with_file_name(format!("{name}-backup-{time}"));
    // A second reset within one second gets a number.
    let mut backup = dated.clone();
    let mut number = 1;
    while backup.symlink_metadata().is_ok() {
        number += 1;
        backup = PathBuf::from(format!("{}-{number}", dated.display()));
    }
    create_private_dir(&backup)?;
    Ok(backup)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use secrecy::ExposeSecret as _;

    use super::*;
    use crate::config::{
        ClientFlags, Config, Env, LocationFlags, ServeOptions, env, resolve_client, resolve_settings,
    };

    fn env(home: &Path) -> Env {
        Env::from_iter([(env::HOME, home)])
    }

    fn locations(home: &Path) -> Locations {
        Locations::resolve(&LocationFlags { dev: true, profile: None }, &env(home)).expect("there is a home")
    }

    #[test]
    fn a_new_profile_gets_a_configuration_that_starts_and_a_workspace() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let locations = locations(home.path());
        let report = ensure_dev(&locations).expect("it is made");
        let state = home.path().join(".openclaw-dev");
        let workspace = state.join("workspace");
        let mut created = vec![state.join("openclaw.json")];
        created.extend(["AGENTS.md", "IDENTITY.md", "SOUL.md", "USER.md"].map(|name| workspace.join(name)));
        assert_eq!(
            report,
            DevReport { config_file: state.join("openclaw.json"), workspace: workspace.clone(), created }
        );
        for path in &report.created {
            assert_eq!(path.metadata().expect("it exists").permissions().mode() & 0o777, 0o600);
        }

        let config = Config::load(locations.config_file()).expect("it is good");
        assert_eq!(config.warnings, Vec::<String>::new());
        let env = env(home.path());
        let resolved =
            resolve_settings(&locations, &config, &env, &ServeOptions::default()).expect("it starts");
        assert_eq!(resolved.settings.listen[0].to_string(), "127.0.0.1:19001");
        assert_eq!(resolved.settings.agents.default_id, "dev");
        assert_eq!(resolved.settings.agents.list[0].workspace, workspace);
        let crate::settings::Auth::Token(token) = resolved.settings.auth else { panic!("token mode") };

        let target = resolve_client(&locations, &env, &ClientFlags::default()).expect("it is found");
        assert_eq!(target.url.value, "ws://127.0.0.1:19001");
        let credential = target.credential.expect("it is found").value;
        assert_eq!(credential.expose_secret(), token.expose_secret());
        assert_eq!(token.expose_secret().len(), 48);
    }

    #[test]
    fn what_is_there_stays_as_it_is() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let locations = locations(home.path());
        let report = ensure_dev(&locations).expect("it is made");
        let config = std::fs::read_to_string(&report.config_file).expect("it reads");
        let soul = report.workspace.join("SOUL.md");
        std::fs::write(&soul, "mine").expect("it writes");
        std::fs::remove_file(report.workspace.join("USER.md")).expect("it removes");
        let again = ensure_dev(&locations).expect("it looks");
        assert_eq!(again.created, [report.workspace.join("USER.md")]);
        assert_eq!(std::fs::read_to_string(&report.config_file).expect("it reads"), config);
        assert_eq!(std::fs::read_to_string(&soul).expect("it reads"), "mine");
    }

    #[test]
    fn beside_somebodys_own_configuration_no_workspace_is_made() {
        for text in ["{gateway: {mode: 'local'}}", "not JSON5"] {
            let home = tempfile::tempdir().expect("a temporary directory");
            let locations = locations(home.path());
            std::fs::create_dir_all(locations.state().root()).expect("it creates");
            std::fs::write(locations.config_file(), text).expect("it writes");
            let report = ensure_dev(&locations).expect("it looks");
            assert_eq!(report.created, Vec::<PathBuf>::new());
            assert!(!report.workspace.exists());
            assert_eq!(std::fs::read_to_string(locations.config_file()).expect("it reads"), text);
        }
    }

    #[test]
    fn a_reset_moves_everything_to_a_dated_folder() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let locations = locations(home.path());
        let nothing = ResetReport { backup: None, moved: Vec::new() };
        assert_eq!(reset_dev(&locations).expect("there is nothing"), nothing);

        ensure_dev(&locations).expect("it is made");
        let root = locations.state().root();
        for file in ["gateway/token", "credentials/x", "agents/dev/sessions/s", "agents/dev/keep", "other"] {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("it creates");
            std::fs::write(&path, file).expect("it writes");
        }
        let report = reset_dev(&locations).expect("it moves");
        let backup = report.backup.expect("there is one");
        let name = backup.file_name().expect("it has one").to_string_lossy().into_owned();
        let time = name.strip_prefix(".openclaw-dev-backup-").expect("it is named after the profile");
        assert_eq!((time.len(), time.ends_with('Z')), (16, true), "{time}");
        assert_eq!(backup.metadata().expect("it exists").permissions().mode() & 0o777, 0o700);
        let moved = ["openclaw.json", "gateway", "credentials", "workspace", "agents/dev/sessions"];
        assert_eq!(report.moved, moved.map(PathBuf::from));
        for part in moved {
            assert!(!root.join(part).exists() && backup.join(part).exists(), "{part}");
        }
        assert!(root.join("agents/dev/keep").exists() && root.join("other").exists());

        ensure_dev(&locations).expect("it is made anew");
        let second = reset_dev(&locations).expect("it moves").backup.expect("there is one");
        assert_ne!(second, backup);
    }

    #[test]
    fn no_other_profile_is_ever_reset() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let path = home.path().to_str().expect("a text");
        let elsewhere = format!("{path}/.openclaw");
        for (dev, profile, variable) in [
            (false, None, None),
            (true, Some("work"), None),
            (true, None, Some((env::STATE_DIR, elsewhere.as_str()))),
            (true, None, Some((env::CONFIG_PATH, elsewhere.as_str()))),
        ] {
            let env = [(env::HOME, path)].into_iter().chain(variable).collect();
            let flags = LocationFlags { dev, profile: profile.map(str::to_owned) };
            let locations = Locations::resolve(&flags, &env).expect("there is a home");
            let error = reset_dev(&locations).expect_err("it is refused").to_string();
            assert_eq!(
                error,
                format!(
                    "only the profile `dev` in its own directory is reset, not {}; leave out --profile, \
                     OPENCLAW_STATE_DIR and OPENCLAW_CONFIG_PATH",
                    locations.state().root().display()
                )
            );
        }
    }

    #[test]
    fn a_running_gateway_is_not_pulled_from_under_its_feet() {
        let home = tempfile::tempdir().expect("a temporary directory");
        let locations = locations(home.path());
        ensure_dev(&locations).expect("it is made");
        let _lock = StateLock::acquire(locations.state()).expect("it is free");
        let error = reset_dev(&locations).expect_err("it is refused").to_string();
        assert!(error.starts_with("another gateway already runs"), "{error}");
        assert!(locations.config_file().exists());
    }
}
