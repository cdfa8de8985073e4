//! Keeps a running gateway in step with its configuration file: one way for a file that changes, a signal that asks, and
//! a caller that writes.
//!
//! The file is read, checked as at a start, and what needs no restart is taken over. A file that is broken changes
//! nothing. How settings follow from a configuration is known to whoever runs the gateway; what can be taken over,
//! to `live`.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use openclaw_schema::{methods::gateway::ConfigStatus, types::TimestampMs};
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use crate::{
    Reloaded,
    config::{Config, ConfigError, LogSettings, ReloadMode, Resolved, TailscaleSettings, Watcher, scrubbed},
    live::Live,
    logs::{LogHandle, LogRules},
};

/// The subsystem that the log names.
const TARGET: &str = "config";

/// Why a configuration is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What is wrong and what to do, in one line without secrets.
    pub message: String,
    /// The key that it is about, its parts joined by dots; absent for the file as a whole.
    pub key: Option<String>,
}

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl From<&ConfigError> for Refused {
    fn from(error: &ConfigError) -> Self {
        // The lines after the first are an excerpt of the file.
        let text = error.to_string();
        let mut message = text.lines().next().unwrap_or_default().to_owned();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            message.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        if let Some(hint) = error.hint() {
            message.push_str(&format!("; {hint}"));
        }
        Self { message, key: error.key() }
    }
}

/// Why a gateway looks at its configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The file may have changed. With `gateway.reload.mode` `off` nothing is taken over.
    Watched,
    /// Somebody asks for it, with SIGHUP: whatever the mode is.
    Asked,
    /// A caller has written the file. With `gateway.reload.mode` `off` nothing is taken over.
    Written,
}

/// What came of a look at the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The file is as it was, or no gateway runs.
    Unchanged,
    /// It was read, and what could be taken over was.
    Reloaded(Reloaded),
    /// It is refused: all stays as it was.
    Kept(Refused),
}

/// What holds for a process, whichever gateway runs in it.
#[derive(Debug, Clone)]
pub struct ProcessSettings {
    /// How it logs.
    pub log: LogSettings,
    /// Whether a signal may restart the gateway.
    pub allows_restart: bool,
    /// How tailscale is to make the gateway known, if it is.
    pub tailscale: Option<TailscaleSettings>,
    /// What looks odd but is not refused, a sentence each: told once.
    pub warnings: Vec<String>,
}

impl ProcessSettings {
    /// What a configuration says of it.
    #[must_use]
    pub fn of(resolved: &Resolved) -> Self {
        let Resolved { log, allows_restart, tailscale, warnings, .. } = resolved;
        Self {
            log: log.clone(),
            allows_restart: *allows_restart,
            tailscale: *tailscale,
            warnings: warnings.clone(),
        }
    }

    /// What would become of `next` in a process that holds to this. `logs` says whether the process may change what it
    /// logs.
    pub(crate) fn differences(&self, next: &Resolved, logs: bool) -> Reloaded {
        let (old, new) = (&self.log, &next.log);
        let mut reloaded = Reloaded::default();
        let logs_otherwise = old.file != new.file
            || old.console != new.console
            || old.max_file_bytes != new.max_file_bytes
            || !old.redactor.has_patterns_of(&new.redactor);
        if logs_otherwise && logs {
            reloaded.applied.push("logging");
        } else if logs_otherwise {
            reloaded.waits_for_restart.push("logging");
        }
        if old.style != new.style {
            // The lines on the console are made from the beginning of the process on.
            reloaded.waits_for_restart.push("logging.consoleStyle");
        }
        if self.tailscale != next.tailscale {
            reloaded.waits_for_restart.push("gateway.tailscale");
        }
        if self.allows_restart != next.allows_restart {
            reloaded.applied.push("commands.restart");
        }
        reloaded
    }
}

/// How settings follow from a configuration.
type Resolve = dyn Fn(&Config) -> Result<Resolved, Refused> + Send + Sync;

/// Keeps the gateways that one process runs one after another in step with the configuration file. Cloning it is
/// cheap.
#[derive(Clone)]
pub struct Reloader(Arc<Inner>);

struct Inner {
    path: PathBuf,
    beside: Vec<PathBuf>,
    resolve: Box<Resolve>,
    log: Option<LogHandle>,
    state: Mutex<State>,
    /// Asks the watch for a look.
    look: Notify,
}

struct State {
    /// The gateway that serves.
    live: Weak<Live>,
    process: ProcessSettings,
    /// The files that the configuration consists of, and those beside it.
    files: Vec<PathBuf>,
    /// Their content when they were looked at last.
    seen: Option<[u8; 32]>,
    status: ConfigStatus,
}

impl Reloader {
    /// For the file at `path`, by which the process was started with `resolved`. `resolve` says what follows from
    /// another configuration, and from the files `beside` it, which are watched too; what it logs may change if `log` is
    /// given.
    #[must_use]
    pub fn new(
        path: &Path,
        beside: Vec<PathBuf>,
        resolved: &Resolved,
        log: Option<LogHandle>,
        resolve: impl Fn(&Config) -> Result<Resolved, Refused> + Send + Sync + 'static,
    ) -> Self {
        let state = State {
            live: Weak::new(),
            process: ProcessSettings::of(resolved),
            files: [path.to_owned()].into_iter().chain(beside.iter().cloned()).collect(),
            seen: None,
            status: ConfigStatus::default(),
        };
        Self(Arc::new(Inner {
            path: path.to_owned(),
            beside,
            resolve: Box::new(resolve),
            log,
            state: Mutex::new(state),
            look: Notify::new(),
        }))
    }

    /// What follows from `text`, should it be the content of the file.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn check(&self, text: &str) -> Result<Resolved, Refused> {
        let config = Config::parse(text, &self.0.path).map_err(|error| Refused::from(&error))?;
        (self.0.resolve)(&config)
    }

    /// Whether the configuration allows signals to restart the gateway: `commands.restart`.
    #[must_use]
    pub fn allows_restart(&self) -> bool {
        self.0.state().process.allows_restart
    }

    /// What callers are told of it.
    #[must_use]
    pub fn status(&self) -> ConfigStatus {
        self.0.state().status.clone()
    }

    /// A gateway serves from now on, in the place of the one before it.
    pub(crate) fn attach(&self, live: &Arc<Live>) {
        let mut state = self.0.state();
        state.live = Arc::downgrade(live);
        // The file may have changed since it was read for this gateway.
        state.seen = None;
        state.status = ConfigStatus { loaded_at: TimestampMs::now(), ..ConfigStatus::default() };
        drop(state);
        self.0.look.notify_one();
    }

    /// What holds for the process, whichever gateway runs in it.
    #[must_use]
    pub fn process(&self) -> ProcessSettings {
        self.0.state().process.clone()
    }

    /// Puts this in force, with the settings of the gateway that comes next. Secrets that were kept out of the log stay
    /// out of it.
    pub fn change_process(&self, process: &ProcessSettings) {
        self.0.change_process(&mut self.0.state(), process);
    }

    /// Looks at the file, and takes over what needs no restart. Blocks.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime, its blocking threads included.
    pub fn reload(&self, cause: Cause) -> Outcome {
        let inner = &*self.0;
        // Held to the end: one look after another.
        let mut state = inner.state();
        let Some(live) = state.live.upgrade() else { return Outcome::Unchanged };
        let seen = Some(fingerprint(&state.files));
        if cause == Cause::Watched && state.seen == seen {
            return Outcome::Unchanged;
        }
        state.seen = seen;
        let read = Config::load(&inner.path).map_err(|error| Refused::from(&error));
        let files = read.as_ref().ok().map(|config| [config.files(), inner.beside.clone()].concat());
        if let Some(files) = files.filter(|files| *files != state.files) {
            // Their content may have changed since it was read: the next look is a look at all of them.
            (state.files, state.seen) = (files, None);
        }
        let resolved = match read.and_then(|config| (inner.resolve)(&config)) {
            Ok(resolved) => resolved,
            Err(mut refused) => {
                // A secret that stands in the place of something else is told as what it should not be.
                refused.message = scrubbed(&inner.path, &refused.message);
                tracing::error!(
                    target: TARGET,
                    "the configuration was not read again, and stays as it was: {refused}"
                );
                state.status.problem = Some(refused.message.clone());
                return Outcome::Kept(refused);
            }
        };
        let was_broken = state.status.problem.take().is_some();
        if state.process.warnings != resolved.warnings {
            for warning in &resolved.warnings {
                tracing::warn!(target: TARGET, "{warning}");
            }
            state.process.warnings.clone_from(&resolved.warnings);
        }
        let is_off = resolved.reload == ReloadMode::Off && cause != Cause::Asked;
        let mut process = state.process.differences(&resolved, inner.log.is_some());
        let reloaded = if is_off {
            let mut reloaded = Reloaded::between(&live.settings(), &resolved.settings);
            reloaded.waits_for_restart.append(&mut reloaded.applied);
            reloaded.waits_for_restart.append(&mut process.applied);
            reloaded.waits_for_restart.append(&mut process.waits_for_restart);
            reloaded
        } else {
            // Tailscale goes on as it does until a restart.
            let tailscale = state.process.tailscale;
            inner
                .change_process(&mut state, &ProcessSettings { tailscale, ..ProcessSettings::of(&resolved) });
            let mut reloaded = live.apply(&resolved.settings);
            reloaded.applied.append(&mut process.applied);
            reloaded.waits_for_restart.append(&mut process.waits_for_restart);
            reloaded
        };
        let waits: Vec<String> = reloaded.waits_for_restart.iter().map(|key| (*key).to_owned()).collect();
        let is_news = !reloaded.applied.is_empty() || waits != state.status.waits_for_restart || was_broken;
        if !reloaded.applied.is_empty() {
            state.status.loaded_at = TimestampMs::now();
            state.status.reloads += 1;
        }
        state.status.waits_for_restart = waits;
        if is_news || cause == Cause::Asked {
            tell(&reloaded, is_off);
        }
        Outcome::Reloaded(reloaded)
    }

    /// Looks at the file whenever it may have changed. Ends when it is dropped.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime.
    pub async fn watch(self) {
        let mut watcher = Watcher::new(self.0.state().files.clone());
        loop {
            tokio::select! {
                () = watcher.changed() => {}
                () = self.0.look.notified() => {}
            }
            let reloader = self.clone();
            // It ends only with the runtime; a panic has told the log.
            let _ = tokio::task::spawn_blocking(move || reloader.reload(Cause::Watched)).await;
            watcher.watch(self.0.state().files.clone());
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // What was taken over before a panic is in force, and noted where it matters for the next look.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change_process(&self, state: &mut State, next: &ProcessSettings) {
        let mut logging = state.process.log.clone();
        if let Some(log) = &self.log {
            let LogSettings { file, console, redactor, .. } = next.log.clone();
            let mut rules = LogRules { file, console, redactor };
            rules.redactor.keep_secrets_of(&log.rules().redactor);
            log.change_rules(rules);
            log.change_max_bytes(next.log.max_file_bytes);
            logging = LogSettings { style: logging.style, ..next.log.clone() };
        }
        state.process = ProcessSettings { log: logging, ..next.clone() };
    }
}

impl fmt::Debug for Reloader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloader").field("path", &self.0.path).finish_non_exhaustive()
    }
}

/// Tells the log what came of a look, in one line.
fn tell(reloaded: &Reloaded, is_off: bool) {
    let (applied, waits) = (reloaded.applied.join(", "), reloaded.waits_for_restart.join(", "));
    match (applied.is_empty(), waits.is_empty()) {
        (true, true) => {
            tracing::info!(target: TARGET, "the configuration was read again, and says what is in force");
        }
        (false, true) => {
            tracing::info!(target: TARGET, "the configuration was read again; in force now: {applied}");
        }
        (true, false) if is_off => tracing::warn!(
            target: TARGET,
            "the configuration has changed; as gateway.reload.mode is \"off\", this waits for a restart: {waits}"
        ),
        (true, false) => tracing::warn!(
            target: TARGET,
            "the configuration was read again; what changed here waits for a restart: {waits}"
        ),
        (false, false) => tracing::warn!(
            target: TARGET,
            "the configuration was read again; in force now: {applied}; what changed here waits for a restart: {waits}"
        ),
    }
}

/// Tells one content of files from another; a file that cannot be read has one of its own.
fn fingerprint(files: &[PathBuf]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for file in files {
        match fs::read(file) {
            Ok(bytes) => {
                hash.update(bytes.len().to_le_bytes());
                hash.update(bytes);
            }
            Err(error) => hash.update(format!("{:?}", error.kind())),
        }
    }
    hash.finalize().into()
}
