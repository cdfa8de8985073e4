//! The log of the gateway: written as JSON lines to one rotating file, read from its end, followed line by line.
//!
//! `filter` says which events are logged, `layer` turns them into lines without `redact`ed texts, `queue` hands them
//! to a thread, `writer` is that thread for the file, `tail` and `follow` read. `traffic` tells what callers ask and
//! are answered. Nothing here knows JSON-RPC.

mod filter;
mod follow;
mod layer;
pub(crate) mod mask;
mod queue;
mod redact;
mod tail;
pub mod traffic;
mod writer;

use std::{
    fmt,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::watch;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{layer::SubscriberExt as _, util::SubscriberInitExt as _};

pub use self::{
    filter::{BadFilter, LogFilter},
    follow::LogFollower,
    layer::LogLayer,
    mask::mask,
    redact::{BadPattern, Redactor},
    tail::LogReader,
};
use self::{layer::Style, queue::Queue, writer::Writer};

/// The environment variable that holds the level.
pub const LEVEL_VARIABLE: &str = "OPENCLAW_LOG_LEVEL";

/// How many bytes of lines may wait for a thread to write them.
const QUEUE_BYTES: usize = 4 << 20;

/// How long a flush waits. A disk or a terminal that hangs must not hold up the end of the process.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// What is logged, and where to.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// The file. Missing directories are created (0700), and so is the file (0600).
    pub file: PathBuf,
    /// What goes to the file, to the console, and what is left out of both. The part that may change while the
    /// program runs.
    pub rules: LogRules,
    /// Whether lines for people go to stderr as well.
    pub console: bool,
    /// How these look.
    pub style: ConsoleStyle,
    /// Whether these are coloured.
    pub colour: bool,
    /// Whether these are for systemd's journal: each begins with its severity, which the journal takes away, and
    /// without the time, which the journal adds. Then they have no colour.
    pub journal: bool,
    /// When a new file is begun.
    pub rotation: Rotation,
}

/// What goes to the file and to the console, and what is left out of both.
#[derive(Debug, Clone)]
pub struct LogRules {
    /// What goes to the file.
    pub file: LogFilter,
    /// What goes to the console.
    pub console: LogFilter,
    /// What is left out.
    pub redactor: Redactor,
}

impl LogRules {
    /// The same level for file and console, and nothing left out.
    #[must_use]
    pub fn both(filter: LogFilter) -> Self {
        Self { file: filter.clone(), console: filter, redactor: Redactor::default() }
    }
}

/// How lines on the console look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConsoleStyle {
    /// For a person who watches: the local time of day, and no level where it is `info`.
    Pretty,
    /// For a file or a journal: time and date in UTC, level, part of the program.
    Compact,
    /// For programs: one JSON object a line, as in the file.
    Json,
}

impl LogSettings {
    /// Settings for `file` as the environment has them: the levels from `OPENCLAW_LOG_LEVEL`, or `info` where that
    /// has none; colour when stderr is a terminal and `NO_COLOR` is empty or absent. No console.
    #[must_use]
    pub fn from_environment(file: impl Into<PathBuf>) -> Self {
        let filter = std::env::var_os(LEVEL_VARIABLE)
            .and_then(|level| level.to_string_lossy().parse().ok())
            .unwrap_or_else(|| LogFilter::level(LevelFilter::INFO));
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            file: file.into(),
            rules: LogRules::both(filter),
            console: false,
            style: ConsoleStyle::Compact,
            colour: !no_colour && io::stderr().is_terminal(),
            journal: false,
            rotation: Rotation::default(),
        }
    }
}

/// When a new file is begun, and how many are kept: at most `max_bytes` times `files` lie on the disk, also what an
/// earlier start with other bounds left there. The name of the current file never changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// The size of one file in bytes. Only a single line that is longer makes a larger file.
    pub max_bytes: u64,
    /// How many files are kept, the current one included: `openclaw.log`, `openclaw.log.1` and so on.
    pub files: u32,
    /// The age of the first line of a file at which a new file is begun.
    pub max_age: Duration,
    /// How long a file that is complete is kept.
    pub keep: Duration,
}

impl Default for Rotation {
    /// 5 files of 20 MB, each of at most 7 days, kept for 30 days.
    fn default() -> Self {
        let days = |count: u64| Duration::from_secs(count * 24 * 60 * 60);
        Self { max_bytes: 20_000_000, files: 5, max_age: days(7), keep: days(30) }
    }
}

/// Why the log could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogSetupError {
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
    rules: RwLock<Arc<LogRules>>,
    file: Arc<Queue>,
    /// How large the file grows.
    max_bytes: Arc<AtomicU64>,
    /// Whether the file cannot be written now: then the console shows what belongs there.
    file_fails: Arc<AtomicBool>,
    console: Option<Arc<Queue>>,
    /// Changes after each write to the file.
    written: watch::Receiver<u64>,
}

impl Shared {
    fn rules(&self) -> Arc<LogRules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }
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

    /// Changes what is logged from now on.
    pub fn change_rules(&self, rules: LogRules) {
        *self.shared.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
        // What nobody wanted to know is remembered for each place that logs.
        tracing::callsite::rebuild_interest_cache();
    }

    /// Changes how large the file grows before a new one is begun, in bytes. Holds from the next line on.
    pub fn change_max_bytes(&self, max_bytes: u64) {
        self.shared.max_bytes.store(max_bytes, Ordering::Relaxed);
    }

    /// What is logged now.
    #[must_use]
    pub fn rules(&self) -> Arc<LogRules> {
        self.shared.rules()
    }

    /// Whether the file cannot be written now. What belongs there waits, and is shown on the console meanwhile.
    #[must_use]
    pub fn file_fails(&self) -> bool {
        self.shared.file_fails.load(Ordering::Relaxed)
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
/// A thread could not be started, or there is a log already.
pub fn init(settings: &LogSettings) -> Result<LogHandle, LogSetupError> {
    let (layer, handle) = start(settings)?;
    tracing_subscriber::registry().with(layer).try_init().map_err(LogSetupError::AlreadySetUp)?;
    Ok(handle)
}

/// Starts the threads and gives the layer, for programs that build their own subscriber. What neither file nor
/// console takes is disabled for that subscriber.
///
/// # Errors
///
/// A thread could not be started.
pub fn start(settings: &LogSettings) -> Result<(LogLayer, LogHandle), LogSetupError> {
    let (sender, written) = watch::channel(0);
    let writer = Writer::new(settings.file.clone(), settings.rotation, sender);
    let file = Arc::new(Queue::new(QUEUE_BYTES));
    let console = settings.console.then(|| Arc::new(Queue::new(QUEUE_BYTES)));
    // The handle comes first: it ends the first thread when the second cannot be started.
    let handle = LogHandle {
        shared: Arc::new(Shared {
            path: settings.file.clone(),
            rules: RwLock::new(Arc::new(settings.rules.clone())),
            file: Arc::clone(&file),
            max_bytes: writer.max_bytes(),
            file_fails: writer.fails(),
            console: console.clone(),
            written,
        }),
    };
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
