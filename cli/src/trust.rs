//! The TLS certificates that the person behind the terminal has trusted, by the address of the gateway: asked at the
//! first use, kept in the state directory, compared from then on.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
};

use openclaw_client::Fingerprint;
use openclaw_gateway::state::{StateDir, write_private};

use crate::{
    error::{CliError, Fault, Result},
    exit::Exit,
    settings::fingerprint,
};

/// The trusted certificates.
#[derive(Debug, Clone)]
pub(crate) struct TrustStore {
    path: PathBuf,
}

impl TrustStore {
    /// Those of a state directory.
    pub(crate) fn new(state: &StateDir) -> Self {
        Self { path: state.gateway_dir().join("trusted-gateways.json") }
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The certificate that was trusted at `url`.
    pub(crate) fn find(&self, url: &str) -> Result<Option<Fingerprint>> {
        let Some(text) = self.read()?.remove(url) else { return Ok(None) };
        fingerprint(&format!("the entry of {url} in {}", self.path.display()), &text).map(Some)
    }

    fn read(&self) -> Result<BTreeMap<String, String>> {
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(self.unusable("read").cause(error).into()),
        };
        serde_json::from_slice(&text).map_err(|error| {
            self.unusable("read")
                .cause(error)
                .hint("move it away, and the certificates are asked for anew")
                .into()
        })
    }

    /// Asks the person whether the certificate is the right one, if there is one to ask, and keeps a yes.
    pub(crate) fn ask(&self, url: &str, shown: Fingerprint) -> Result<bool> {
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Ok(false);
        }
        let question = format!(
            "The TLS certificate of {url} is not signed by anyone that this machine trusts.\n\
             Its SHA-256 is {shown}\n\
             Compare it with what the gateway logs at its start. Trust it from now on? [y/N] "
        );
        let mut answer = String::new();
        let mut stderr = io::stderr().lock();
        let asked = stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush());
        if asked.and_then(|()| io::stdin().lock().read_line(&mut answer)).is_err()
            || !matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
        {
            return Ok(false);
        }
        let mut trusted = self.read()?;
        trusted.insert(url.to_owned(), shown.to_string());
        let text = serde_json::to_string_pretty(&trusted).expect("texts serialise");
        write_private(&self.path, format!("{text}\n").as_bytes())
            .map_err(|error| self.unusable("written").with_sources(&error))?;
        Ok(true)
    }

    fn unusable(&self, what: &str) -> CliError {
        let message = format!("the trusted certificates in {} cannot be {what}", self.path.display());
        CliError::new(Fault::Cli, "STATE", Exit::Refused, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_trusted_is_found_and_a_broken_file_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory can be made");
        let store = TrustStore::new(&StateDir::new(dir.path()));
        assert!(store.find("wss://a:1").expect("no file is no error").is_none());
        let digest = "ab".repeat(32);
        write_private(store.path(), format!(r#"{{"wss://a:1": "{digest}"}}"#).as_bytes()).expect("it writes");
        assert_eq!(store.find("wss://a:1").expect("it reads").map(|found| found.to_string()), Some(digest));
        assert!(store.find("wss://b:1").expect("it reads").is_none());
        write_private(store.path(), b"{").expect("it writes");
        assert!(store.find("wss://a:1").is_err());
    }
}
