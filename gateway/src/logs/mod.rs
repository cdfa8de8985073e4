//! The log of the gateway: written as JSON lines to one rotating file, read from its end, followed line by line.
//!
//! `layer` turns events into lines, `queue` hands them to a thread, `writer` is that thread for the file,
//! `tail` and `follow` read. Nothing here knows JSON-RPC.

mod follow;
mod layer;
pub(crate) mod mask;
mod queue;
mod tail;
mod writer;

use std::{
    fmt,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tracing_subscriber::{filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _};

use self::layer::Style;
pub use self::{follow::LogFollower, layer::LogLayer, tail::LogReader};
use self::{queue::Queue, writer::Writer};

/// The environment variable that holds the level.
pub const LEVEL_VARIABLE: &str = "OPENCLAW_LOG_LEVEL";

/// The level when nobody names one.
pub const DEFAULT_LEVEL: &str = "info";

/// How many bytes of lines may wait for a thread to write them.
const QUEUE_BYTES: usize = 4 << 20;

/// How long a flush waits. A disk or a terminal that hangs must not hold up the end of the process.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Crates we use that say at `debug` what only their authors want to know. They stay at `info` unless the
/// level names them.
const CHATTY_CRATES: &str = "axum=info,h2=info,hyper=info,jsonrpsee=info,mio=info,rustls=info,tokio=info,\
                             tower=info,tungstenite=info";

/// What is logged, and where to.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// The file. Missing directories are created (0700), and so is the file (0600).
    pub file: PathBuf,
    /// `off`, `error`, `warn`, `info`, `debug` or `trace`, also per target: `info,openclaw_gateway::wire=debug`.
    /// `silent` means `off` and `fatal` means `error`, as in stock configurations.
    pub level: String,
    /// Whether lines for people go to stderr as well.
    pub console: bool,
    /// Whether these are coloured.
    pub colour: bool,
    /// Whether these are for systemd's journal: each begins with its severity, which the journal takes away, and
    /// without the time, which the journal adds. Then they have no colour.
    pub journal: bool,
    /// When a new file is begun.
    pub rotation: Rotation,
}

impl LogSettings {
    /// Settings for `file` as the environment has them: the level from `OPENCLAW_LOG_LEVEL`, colour when stderr
    /// is a terminal and `NO_COLOR` is empty or absent. No console.
    #[must_use]
    pub fn from_environment(file: impl Into<PathBuf>) -> Self {
        let level = std::env::var_os(LEVEL_VARIABLE)
            .map(|level| level.to_string_lossy().trim().to_owned())
            .filter(|level| !level.is_empty());
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            file: file.into(),
            level: level.unwrap_or_else(|| DEFAULT_LEVEL.to_owned()),
            console: false,
            colour: !no_colour && io::stderr().is_terminal(),
            journal: false,
            rotation: Rotation::default(),
        }
    }
}

/// When a new file is begun, and how many are kept: at most `max_bytes` times `files` lie on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// The size of one file in bytes. Only a single line that is longer makes a larger file.
    pub max_bytes: u64,
    /// How many files are kept, the current one included: `openclaw.log`, `openclaw.log.1` and so on.
    pub files: u32,
    /// The age of the first line of a file at which a new file is begun.
    pub max_age: Duration,
}

impl Default for Rotation {
    /// 5 files of 20 MB, each of at most 7 days.
    fn default() -> Self {
        Self { max_bytes: 20_000_000, files: 5, max_age: Duration::from_secs(7 * 24 * 60 * 60) }
    }
}

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogSetupError {
    /// The level is not one.
    #[error(
        "the log level `{level}` is none: use off, error, warn, info, debug or trace, \
         also per target as in `info,openclaw_gateway::wire=debug`"
    )]
    Level {
        /// What was given.
        level: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The thread that writes could not be started.
    #[error("the thread that writes the log could not be started")]
    Thread(#[source] io::Error),
    /// This process has a log already.
    #[error("a log has been set up in this process before")]
    AlreadySetUp(#[source] tracing_subscriber::util::TryInitError),
}

/// Why the log could not be read. Every variant is `UNAVAILABLE` to callers.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// There is something else than a file.
    #[error("the log path {} is not a regular file; set `logging.file` to the path of a file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Reading failed.
    #[error("the log file {} could not be read", path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The running log. Cloning it is cheap; the threads end when the last clone and the layer are gone.
#[derive(Clone)]
pub struct LogHandle {
    shared: Arc<Shared>,
}

struct Shared {
    path: PathBuf,
    file: Arc<Queue>,
    console: Option<Arc<Queue>>,
    /// Changes after each write to the file.
    written: watch::Receiver<u64>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.file.close();
        if let Some(console) = &self.console {
            console.close();
        }
    }
}

impl fmt::Debug for LogHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogHandle").field("path", &self.shared.path).finish_non_exhaustive()
    }
}

impl LogHandle {
    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Waits until every line logged so far is on disk and on the console, at most five seconds.
    ///
    /// Blocks the thread: meant for the end of the process. Says whether the lines got there.
    pub fn flush(&self) -> bool {
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        let file = self.shared.file.flush(deadline);
        self.shared.console.as_ref().is_none_or(|console| console.flush(deadline)) && file
    }

    /// Reads this log, and is woken at once when a line is written.
    #[must_use]
    pub fn reader(&self) -> LogReader {
        LogReader::with_writer(self.shared.path.clone(), self.shared.written.clone())
    }
}

/// Sets up the log of this process: what `tracing` is told anywhere goes there.
///
/// A file that cannot be written is no error: stderr is told once, and writing is tried again and again.
///
/// # Errors
///
/// The level is not one, a thread could not be started, or there is a log already.
pub fn init(settings: &LogSettings) -> Result<LogHandle, LogSetupError> {
    let levels = levels(&settings.level)?;
    let (layer, handle) = start(settings)?;
    tracing_subscriber::registry()
        .with(levels)
        .with(layer)
        .try_init()
        .map_err(LogSetupError::AlreadySetUp)?;
    Ok(handle)
}

/// Starts the threads and gives the layer, for programs that build their own subscriber. The layer takes every
/// event it is given: `settings.level` is for [`init`].
///
/// # Errors
///
/// A thread could not be started.
pub fn start(settings: &LogSettings) -> Result<(LogLayer, LogHandle), LogSetupError> {
    let (sender, written) = watch::channel(0);
    let file = Arc::new(Queue::new(QUEUE_BYTES));
    let console = settings.console.then(|| Arc::new(Queue::new(QUEUE_BYTES)));
    // The handle comes first: it ends the first thread when the second cannot be started.
    let handle = LogHandle {
        shared: Arc::new(Shared {
            path: settings.file.clone(),
            file: Arc::clone(&file),
            console: console.clone(),
            written,
        }),
    };
    let writer = Writer::new(settings.file.clone(), settings.rotation, sender);
    spawn("log-file", move || writer.run(&file))?;
    if let Some(console) = console {
        spawn("log-console", move || write_console(&console))?;
    }
    Ok((LogLayer::new(handle.clone(), Style::of(settings)), handle))
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), LogSetupError> {
    thread::Builder::new().name(name.to_owned()).spawn(run).map(drop).map_err(LogSetupError::Thread)
}

/// The thread that writes to stderr: a pipe that nobody reads blocks this thread and nobody else.
fn write_console(queue: &Queue) {
    let mut batch = Vec::new();
    loop {
        queue.wait(None, true);
        let drained = queue.drain(&mut batch, true);
        let mut stderr = io::stderr().lock();
        let mut written = stderr.write_all(&batch);
        if drained.dropped > 0 {
            written = written.and(writeln!(stderr, "{}", writer::dropped_message(drained.dropped)));
        }
        if let Some(flush) = drained.flush {
            queue.flushed(flush, written.is_ok());
        }
        if drained.closed {
            return;
        }
    }
}

fn levels(level: &str) -> Result<Targets, LogSetupError> {
    let known = match level.trim() {
        "silent" => "off",
        "fatal" => "error",
        other => other,
    };
    // What is named later wins.
    let directives = match known.to_ascii_lowercase().as_str() {
        "debug" | "trace" => format!("{known},{CHATTY_CRATES}"),
        _ => known.to_owned(),
    };
    directives.parse().map_err(|source| LogSetupError::Level { level: level.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn levels_are_words_or_targets() {
        let debug = levels("debug").expect("a level");
        assert!(debug.would_enable("openclaw_gateway::wire", &Level::DEBUG));
        assert!(!debug.would_enable("hyper::proto", &Level::DEBUG));
        assert!(debug.would_enable("hyper::proto", &Level::INFO));
        let mixed = levels("warn,openclaw_gateway::wire=trace").expect("targets");
        assert!(mixed.would_enable("openclaw_gateway::wire::frames", &Level::TRACE));
        assert!(!mixed.would_enable("openclaw_gateway::agents", &Level::INFO));
        assert!(!levels("silent").expect("a level").would_enable("x", &Level::ERROR));
    }

    #[test]
    fn a_level_that_is_none_is_refused_with_the_choices() {
        let error = levels("info,x=loud").expect_err("not a level");
        assert!(error.to_string().contains("`info,x=loud`"), "{error}");
        assert!(error.to_string().contains("off, error, warn"), "{error}");
    }
}
