//! The configuration file as callers see it: as it is now, without its secrets.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use openclaw_schema::methods::config::{ConfigGetResult, ConfigIssue};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{Config, ConfigError, redact::Secrets, tree::Tree};
use crate::settings::Auth;

/// The configuration file of a running gateway.
pub struct ConfigFile {
    path: PathBuf,
    /// What callers present or have presented, wherever it came from.
    credentials: Mutex<Vec<SecretString>>,
    /// Goes into each hash. The rest of the file is no secret: without a key, its hash would let a caller try passwords.
    hash_key: [u8; 32],
}

impl ConfigFile {
    /// The file at `path`, of a gateway whose callers present what `auth` says.
    ///
    /// # Errors
    ///
    /// When the system gives no random numbers.
    pub fn new(path: PathBuf, auth: &Auth) -> io::Result<Self> {
        let mut hash_key = [0; 32];
        getrandom::fill(&mut hash_key).map_err(io::Error::other)?;
        let file = Self { path, credentials: Mutex::default(), hash_key };
        file.add_credential(auth);
        Ok(file)
    }

    /// Callers present what `auth` says from now on. What they presented before is kept out of answers still.
    pub(crate) fn add_credential(&self, auth: &Auth) {
        if let Auth::Token(secret) | Auth::Password(secret) = auth {
            self.credentials.lock().unwrap_or_else(PoisonError::into_inner).push(secret.clone());
        }
    }

    /// Reads it. Blocks.
    #[must_use]
    pub fn read(&self) -> ConfigGetResult {
        let (exists, text) = match std::fs::read_to_string(&self.path) {
            Ok(text) => (true, text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => (false, String::new()),
            Err(source) => {
                let error = ConfigError::Read { path: self.path.clone(), source };
                let issues = vec![issue(&error, &self.secrets(&Value::Null))];
                return ConfigGetResult { exists: true, issues, ..self.told(false, "") };
            }
        };
        let told = ConfigGetResult { exists, ..self.told(exists, &text) };
        // A file that does not parse is not shown: nobody knows where its secrets are.
        let mut tree = match Tree::parse(&text, &self.path) {
            Ok(tree) => tree,
            Err(error) => {
                return ConfigGetResult { issues: vec![issue(&error, &self.secrets(&Value::Null))], ..told };
            }
        };
        let secrets = self.secrets(&tree.value);
        let shown = secrets.redact(&tree.written);
        let applied = secrets.redact(&tree.value);
        let (issues, warnings) = match Config::of_values(&mut tree) {
            Ok(config) => (Vec::new(), config.warnings),
            Err(fault) => (vec![issue(&fault.error, &secrets)], Vec::new()),
        };
        ConfigGetResult {
            valid: issues.is_empty(),
            raw: exists.then(|| format!("{shown:#}\n")),
            config: applied.as_object().cloned().unwrap_or_default(),
            parsed: exists.then_some(shown),
            issues,
            warnings: warnings
                .iter()
                .map(|warning| ConfigIssue { path: String::new(), message: secrets.scrub(warning) })
                .collect(),
            ..told
        }
    }

    fn told(&self, exists: bool, text: &str) -> ConfigGetResult {
        let hash = self.hash(exists, text);
        ConfigGetResult { path: self.path.display().to_string(), hash, ..ConfigGetResult::default() }
    }

    /// Names a content of the file.
    pub(super) fn hash(&self, exists: bool, text: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(self.hash_key);
        hash.update([u8::from(exists)]);
        hash.update(text);
        hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    pub(super) fn secrets(&self, config: &Value) -> Secrets {
        let credentials = self.credentials.lock().unwrap_or_else(PoisonError::into_inner);
        Secrets::of(config, credentials.iter().map(|secret| secret.expose_secret().to_owned()))
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl fmt::Debug for ConfigFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// `text` without the secrets of the file at `path`. Blocks.
pub(crate) fn scrubbed(path: &Path, text: &str) -> String {
    let file = std::fs::read_to_string(path).unwrap_or_default();
    let value = Tree::parse(&file, path).map(|tree| tree.value).unwrap_or_default();
    Secrets::of(&value, []).scrub(text)
}

/// What is wrong with the file.
fn issue(error: &ConfigError, secrets: &Secrets) -> ConfigIssue {
    let path = error.key().unwrap_or_default();
    // The lines after the first are an excerpt of the file.
    let message = error.to_string();
    let message = message.lines().next().unwrap_or_default();
    ConfigIssue { path: secrets.scrub(&path), message: secrets.scrub(message) }
}

#[cfg(test)]
mod tests {
    use openclaw_schema::methods::config::REDACTED;
    use serde_json::json;

    use super::*;

    fn read(text: Option<&str>) -> ConfigGetResult {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let path = directory.path().join("openclaw.json");
        if let Some(text) = text {
            std::fs::write(&path, text).expect("the file can be written");
        }
        let file =
            ConfigFile::new(path, &Auth::Token("running-token".into())).expect("there are random numbers");
        file.read()
    }

    fn all(result: &ConfigGetResult) -> String {
        serde_json::to_string(result).expect("it serialises")
    }

    #[test]
    fn a_file_is_shown_without_its_secrets() {
        let result = read(Some(
            "{\n  // the old one was hush-old\n  gateway: {mode: 'local', auth: {token: 'hush-one'}},\n\
             channels: {telegram: {botToken: 'hush-two'}}, x: 'running-token', y: 'http://h/?a=hush-one'}",
        ));
        assert!(result.exists && result.valid, "{result:?}");
        assert!(!all(&result).contains("hush") && !all(&result).contains("running-token"), "{result:?}");
        assert_eq!(result.config["gateway"], json!({ "mode": "local", "auth": { "token": REDACTED } }));
        assert_eq!(result.parsed.as_ref().and_then(Value::as_object), Some(&result.config));
        let raw: Value = serde_json::from_str(&result.raw.expect("there is a file")).expect("it is JSON");
        assert_eq!(Some(raw), result.parsed);
    }

    #[test]
    fn a_missing_file_is_an_empty_configuration() {
        let result = read(None);
        assert!(!result.exists && result.valid, "{result:?}");
        assert_eq!((&result.raw, &result.parsed, result.config.len()), (&None, &None, 0));
    }

    #[test]
    fn a_broken_file_is_not_shown_at_all() {
        let result = read(Some("{gateway: {auth: {token: 'hush'}} oops: 'hush'"));
        assert!(result.exists && !result.valid, "{result:?}");
        assert!(!all(&result).contains("hush"), "{result:?}");
        assert_eq!((&result.raw, result.issues.len()), (&None, 1));
    }

    #[test]
    fn a_wrong_value_is_an_issue_with_its_key_and_shows_no_secret() {
        let result = read(Some("{gateway: {mode: 'hush-hush', auth: {token: 'hush-hush'}}}"));
        assert!(!result.valid && result.raw.is_some(), "{result:?}");
        assert_eq!(result.issues[0].path, "gateway.mode");
        assert!(!all(&result).contains("hush"), "{result:?}");
    }

    #[test]
    fn the_hash_changes_with_the_content_and_with_nothing_else() {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let path = directory.path().join("openclaw.json");
        let file = ConfigFile::new(path.clone(), &Auth::None).expect("there are random numbers");
        let missing = file.read().hash;
        std::fs::write(&path, "").expect("the file can be written");
        let empty = file.read().hash;
        std::fs::write(&path, "{gateway: {auth: {token: 'a'}}}").expect("the file can be written");
        let full = file.read().hash;
        assert_eq!(full, file.read().hash);
        assert!(missing != empty && empty != full, "{missing} {empty} {full}");
        let other = ConfigFile::new(path, &Auth::None).expect("there are random numbers");
        assert_ne!(other.read().hash, full);
    }
}
