//! Lines that a thread of their own writes: the raw stream, and the output of command-line back ends. Whoever tells a
//! line never waits for a disk or a terminal; what does not fit the queue is counted, and the count is written.

use std::{
    fmt,
    fs::{DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

/// How many lines may wait.
const QUEUE_LINES: usize = 4096;

/// Where lines go. Cloning it is cheap; the thread ends with the last clone.
#[derive(Clone)]
pub(super) struct Lines {
    sender: SyncSender<String>,
    lost: Arc<AtomicU64>,
}

impl Lines {
    /// Lines at the end of the file at `path`. Missing directories are made (0700), and so is the file (0600).
    pub(super) fn to_file(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        }
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        Self::to(file)
    }

    /// Lines on stderr.
    pub(super) fn to_stderr() -> io::Result<Self> {
        Self::to(io::stderr())
    }

    fn to(target: impl Write + Send + 'static) -> io::Result<Self> {
        let (sender, receiver) = sync_channel(QUEUE_LINES);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        thread::Builder::new().name("model-lines".to_owned()).spawn(move || {
            if let Err(error) = write(target, &receiver, &counted) {
                tracing::warn!(%error, "model events are not written any more");
            }
        })?;
        Ok(Self { sender, lost })
    }

    /// Adds a line.
    pub(super) fn tell(&self, line: String) {
        if self.sender.try_send(line).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn write(mut target: impl Write, lines: &Receiver<String>, lost: &AtomicU64) -> io::Result<()> {
    for mut line in lines {
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            line.insert_str(0, &format!("{{\"event\":\"gap\",\"lost\":{lost}}}\n"));
        }
        line.push('\n');
        // One call, so that a reader never sees half a line of a file.
        target.write_all(line.as_bytes())?;
    }
    Ok(())
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lines").finish_non_exhaustive()
    }
}
