//! The state directory: paths of what is kept there.

use std::path::{Path, PathBuf};

/// The state directory, `~/.openclaw` unless a profile or `OPENCLAW_STATE_DIR` says otherwise.
///
/// It is shared with stock installs; what only this gateway uses lies in its folder `gateway/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir {
    root: PathBuf,
}

impl StateDir {
    /// The state directory at `root`; nothing is created.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The directory itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The folder of what only this gateway uses.
    #[must_use]
    pub fn gateway_dir(&self) -> PathBuf {
        self.root.join("gateway")
    }
}
