//! Who else on this machine may read or change what the gateway relies on.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use openclaw_schema::config::{Secret, is_variable};

use super::{Config, ConfigError, Sourced};
use crate::state::StateDir;

const WORLD_WRITABLE: u32 = 0o002;
const GROUP_OR_WORLD_WRITABLE: u32 = 0o022;
const GROUP_OR_WORLD_READABLE: u32 = 0o044;
const GROUP_OR_WORLD: u32 = 0o077;

/// Looks at the modes of the state directory, the generated token, the variables and the configuration. What lets others take over
/// is refused; what lets them read is told, one sentence each.
pub(super) fn check(state: &StateDir, config: &Config) -> Result<Vec<String>, ConfigError> {
    let mut warnings = Vec::new();
    if let Some(mode) = mode(state.root()) {
        refuse(state.root(), mode, WORLD_WRITABLE, "may be changed by everybody on this machine", "700")?;
        if mode & GROUP_OR_WORLD != 0 {
            let path = state.root().display();
            warnings
                .push(format!("{path} may be entered by others (mode {mode:03o}); run `chmod 700 {path}`"));
        }
    }
    let token = state.token_file();
    if let Some(mode) = mode(&token) {
        refuse(&token, mode, GROUP_OR_WORLD, "holds the token and may be read by others", "600")?;
    }
    let variables = state.env_file();
    if let Some(mode) = mode(&variables) {
        refuse(&variables, mode, WORLD_WRITABLE, "may be changed by everybody on this machine", "600")?;
        if mode & GROUP_OR_WORLD != 0 {
            let path = variables.display();
            warnings.push(format!("{path} may be read by others (mode {mode:03o}); run `chmod 600 {path}`"));
        }
    }
    for included in &config.included {
        if let Some(mode) = mode(included) {
            refuse(included, mode, WORLD_WRITABLE, "may be changed by everybody on this machine", "600")?;
        }
    }
    if let Some(mode) = mode(&config.path) {
        refuse(&config.path, mode, WORLD_WRITABLE, "may be changed by everybody on this machine", "600")?;
        let path = config.path.display();
        if mode & GROUP_OR_WORLD_READABLE != 0 && has_secret(config) {
            warnings.push(format!(
                "{path} has a secret and may be read by others (mode {mode:03o}); run `chmod 600 {path}`"
            ));
        } else if mode & GROUP_OR_WORLD_WRITABLE != 0 {
            warnings
                .push(format!("{path} may be changed by others (mode {mode:03o}); run `chmod 600 {path}`"));
        }
    }
    Ok(warnings)
}

fn refuse(
    path: &Path,
    mode: u32,
    forbidden: u32,
    problem: &'static str,
    chmod: &'static str,
) -> Result<(), ConfigError> {
    if mode & forbidden == 0 {
        return Ok(());
    }
    Err(ConfigError::OpenToOthers { path: path.to_owned(), problem, mode, chmod })
}

/// The mode of what is there.
fn mode(path: &Path) -> Option<u32> {
    fs::metadata(path).ok().map(|metadata| metadata.mode() & 0o777)
}

/// Whether a secret stands in the file itself, and not only the name of a variable.
fn has_secret(config: &Config) -> bool {
    let (auth, remote) = (&config.gateway.auth, &config.gateway.remote);
    let is_written = |secret: &Option<Sourced<Secret>>| {
        secret.as_ref().is_some_and(|secret| {
            let text = secret.value.expose_secret();
            let name = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
            !name.is_some_and(is_variable)
        })
    };
    [&auth.token, &auth.password, &remote.token, &remote.password].into_iter().any(is_written)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::state::write_private;

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
    }

    #[test]
    fn what_lets_others_in_is_refused_and_what_lets_them_read_is_told() {
        let directory = tempfile::tempdir().expect("a directory");
        let state = StateDir::new(directory.path());
        let file = state.config_file();
        let checked = |text: &str, root: u32, config: u32, token: u32| {
            fs::write(&file, text).expect("it writes");
            write_private(&state.token_file(), b"0123456789abcdef").expect("it writes");
            set_mode(&file, config);
            set_mode(&state.token_file(), token);
            set_mode(state.root(), root);
            let checked = check(&state, &Config::load(&file).expect("a configuration"));
            set_mode(state.root(), 0o700);
            checked.map_err(|error| format!("{error}; {}", error.hint().unwrap_or_default()))
        };
        let secret = "{gateway: {auth: {token: 'abc'}}}";
        let reference = "{gateway: {auth: {token: '${TOKEN}'}}}";
        assert_eq!(checked(secret, 0o700, 0o600, 0o600), Ok(Vec::new()));
        assert_eq!(checked(reference, 0o700, 0o644, 0o600), Ok(Vec::new()));
        for (text, root, config, expected) in [
            (secret, 0o755, 0o600, "chmod 700"),
            (secret, 0o700, 0o640, "chmod 600"),
            (reference, 0o700, 0o660, "may be changed by others"),
        ] {
            let warnings = checked(text, root, config, 0o600).expect("it starts");
            assert!(warnings.len() == 1 && warnings[0].contains(expected), "{warnings:?}");
        }
        for (root, config, token, expected) in [
            (0o777, 0o600, 0o600, "chmod 700"),
            (0o700, 0o666, 0o600, "chmod 600"),
            (0o700, 0o600, 0o644, "chmod 600"),
        ] {
            let refused = checked(reference, root, config, token).expect_err("it is refused");
            assert!(refused.contains(expected), "{refused}");
        }
    }
}
