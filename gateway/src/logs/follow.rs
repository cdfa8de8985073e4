//! Follows the log line by line, across rotations. A follower that falls behind reads on from the file, so it
//! holds no more than one chunk and one line.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::Arc,
    time::Duration,
};

use openclaw_schema::methods::logs::{LogLine, LogsTailParams};
use openclaw_schema::types::Bounded;
use tokio::sync::watch;

use super::{
    LogError, LogReader,
    tail::{open, text_of},
    writer::{FileId, file_id, numbered},
};

/// How often to look for what another process has written.
const POLL: Duration = Duration::from_secs(1);

/// How much is read at once.
const CHUNK_BYTES: usize = 64 << 10;

/// The longest line that is given out. The rest of the log goes on behind a longer one.
const MAX_LINE_BYTES: usize = 1 << 20;

/// Follows the log: see [`LogReader::follow`].
#[derive(Debug)]
pub struct LogFollower {
    reader: LogReader,
    written: Option<watch::Receiver<u64>>,
    /// The file being read, whatever its name is by now. None when there was none yet.
    file: Option<Arc<File>>,
    /// Where in it to read on.
    position: u64,
    /// What was read and not given out.
    buffer: Vec<u8>,
    /// How much of the buffer was given out.
    taken: usize,
    /// Whether what comes up to the next line feed is the rest of a line that is not wanted.
    within_line: bool,
    /// Whether lines were lost since the last one given out.
    reset: bool,
}

/// What a look at the file gives.
enum Look {
    /// These bytes follow.
    Bytes(Vec<u8>),
    /// Nothing yet.
    Nothing,
    /// The file is complete, or there was none; this one comes next.
    Next {
        file: File,
        /// Whether lines may lie between the two.
        lost: bool,
    },
    /// The file was cut: what is in it now is new.
    Cut,
}

impl LogFollower {
    pub(super) async fn new(
        reader: LogReader,
        written: Option<watch::Receiver<u64>>,
        cursor: Option<u64>,
    ) -> Result<Self, LogError> {
        let position = match cursor {
            Some(cursor) => cursor,
            None => {
                // An unfinished line at the end is going to be a new one.
                let limit = Some(Bounded::clamped(1));
                reader.tail(LogsTailParams { limit, ..LogsTailParams::default() }).await?.cursor
            }
        };
        let path: Arc<Path> = reader.path().into();
        let (file, position, within_line, reset) = reader
            .run(move || {
                let Some((file, metadata)) = open(&path)? else {
                    // What comes after the newest file that was moved aside is new; if there is none, all is.
                    let (file, end) = match open(&numbered(&path, 1))? {
                        Some((file, metadata)) => (Some(Arc::new(file)), metadata.len()),
                        None => (None, 0),
                    };
                    return Ok((file, end, false, position > 0));
                };
                // A cursor behind the end is one of an earlier file.
                let reset = position > metadata.len();
                let position = if reset { 0 } else { position };
                let mut before = *b"\n";
                if position > 0 {
                    file.read_exact_at(&mut before, position - 1)
                        .map_err(|source| LogError::Read { path: path.to_path_buf(), source })?;
                }
                Ok((Some(Arc::new(file)), position, before != *b"\n", reset))
            })
            .await?;
        Ok(Self { reader, written, file, position, buffer: Vec::new(), taken: 0, within_line, reset })
    }

    /// The next line, as soon as there is one. `reset` is set when lines in front of it were lost: more files were
    /// rotated away than are kept, the file was removed or cut, or a line was longer than 1 MiB.
    ///
    /// Nothing is lost when the future is dropped.
    ///
    /// # Errors
    ///
    /// As for [`LogReader::tail`]. The next call tries again.
    pub async fn next(&mut self) -> Result<LogLine, LogError> {
        loop {
            if let Some(line) = self.take_line() {
                return Ok(line);
            }
            if let Some(written) = &mut self.written {
                // Marked before the look: what is written after it wakes the wait below.
                written.borrow_and_update();
            }
            let path: Arc<Path> = self.reader.path().into();
            let (file, position) = (self.file.clone(), self.position);
            match self.reader.run(move || look(&path, file.as_deref(), position)).await? {
                Look::Bytes(bytes) => {
                    self.position += bytes.len() as u64;
                    self.buffer.drain(..self.taken);
                    self.taken = 0;
                    self.buffer.extend_from_slice(&bytes);
                }
                Look::Nothing => self.wait().await,
                Look::Next { file, lost } => {
                    self.file = Some(Arc::new(file));
                    self.begin(lost);
                }
                Look::Cut => self.begin(true),
            }
        }
    }

    /// Begins at the start of a file.
    fn begin(&mut self, lost: bool) {
        self.position = 0;
        self.buffer = Vec::new();
        self.taken = 0;
        self.within_line = false;
        self.reset |= lost;
    }

    fn take_line(&mut self) -> Option<LogLine> {
        loop {
            let rest = &self.buffer[self.taken..];
            let Some(length) = rest.iter().position(|byte| *byte == b'\n') else {
                if rest.len() > MAX_LINE_BYTES {
                    self.reset = true;
                    self.within_line = true;
                }
                if self.within_line {
                    self.buffer.clear();
                    self.taken = 0;
                }
                return None;
            };
            let line = (!self.within_line).then(|| text_of(&rest[..length]));
            self.taken += length + 1;
            self.within_line = false;
            if let Some(line) = line {
                let waiting = self.buffer.len() - self.taken;
                let reset = std::mem::take(&mut self.reset);
                return Some(LogLine { line, cursor: self.position - waiting as u64, reset });
            }
        }
    }

    async fn wait(&mut self) {
        let sleep = tokio::time::sleep(POLL);
        let Some(written) = &mut self.written else {
            return sleep.await;
        };
        let gone = tokio::select! {
            changed = written.changed() => changed.is_err(),
            () = sleep => false,
        };
        if gone {
            // The writer of this process has ended. Others may write.
            self.written = None;
        }
    }
}

/// Looks what follows `position` in `file`, and if nothing does, whether another file has taken its place.
fn look(path: &Path, file: Option<&File>, position: u64) -> Result<Look, LogError> {
    let failed = |source| LogError::Read { path: path.to_owned(), source };
    let Some(file) = file else {
        return first(path);
    };
    if let Some(bytes) = read(file, position).map_err(failed)? {
        return Ok(Look::Bytes(bytes));
    }
    let ours = file.metadata().map_err(failed)?;
    if ours.len() < position {
        return Ok(Look::Cut);
    }
    match fs::metadata(path) {
        Ok(current) if file_id(&current) != file_id(&ours) => {}
        Ok(_) => return Ok(Look::Nothing),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Look::Nothing),
        Err(error) => return Err(failed(error)),
    }
    // Another file has the name. Ours may have got its last lines between the read and this finding.
    if let Some(bytes) = read(file, position).map_err(failed)? {
        return Ok(Look::Bytes(bytes));
    }
    successor(path, file_id(&ours))
}

/// The oldest file: all have come since there was none.
fn first(path: &Path) -> Result<Look, LogError> {
    let oldest = (1..).take_while(|number| numbered(path, *number).exists()).last().unwrap_or(0);
    let opened = open(&numbered(path, oldest))?;
    // A rotation meanwhile has moved all of them by one: look again.
    if numbered(path, oldest + 1).exists() {
        return Ok(Look::Nothing);
    }
    Ok(opened.map_or(Look::Nothing, |(file, _)| Look::Next { file, lost: false }))
}

/// The file that was begun after the file `ours` was moved aside.
fn successor(path: &Path, ours: FileId) -> Result<Look, LogError> {
    let id_of = |number| fs::metadata(numbered(path, number)).ok().map(|metadata| file_id(&metadata));
    let place = (1..).map_while(|number| Some((number, id_of(number)?))).find(|(_, id)| *id == ours);
    let newer = place.map_or(0, |(number, _)| number - 1);
    let Some((file, _)) = open(&numbered(path, newer))? else {
        return Ok(Look::Nothing);
    };
    // A rotation meanwhile has moved all of them by one: look again.
    if place.is_some_and(|(number, _)| id_of(number) != Some(ours)) {
        return Ok(Look::Nothing);
    }
    Ok(Look::Next { file, lost: place.is_none() })
}

fn read(file: &File, position: u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = vec![0; CHUNK_BYTES];
    let length = file.read_at(&mut bytes, position)?;
    bytes.truncate(length);
    Ok((length > 0).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use std::{fs::OpenOptions, io::Write as _, path::PathBuf};

    use tempfile::TempDir;
    use tokio::time::timeout;
    use tracing::info;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::logs::{LogSettings, Rotation, start};

    fn place() -> (TempDir, PathBuf) {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("openclaw.log");
        (directory, path)
    }

    fn append(path: &Path, text: &str) {
        let mut file = OpenOptions::new().append(true).create(true).open(path).expect("a file");
        file.write_all(text.as_bytes()).expect("room");
    }

    fn rotate(path: &Path) {
        for number in (0..3).rev().filter(|number| numbered(path, *number).exists()) {
            fs::rename(numbered(path, number), numbered(path, number + 1)).expect("it exists");
        }
    }

    async fn next(follower: &mut LogFollower) -> (String, u64, bool) {
        let line = timeout(Duration::from_secs(20), follower.next()).await.expect("a line in time");
        let LogLine { line, cursor, reset } = line.expect("a readable file");
        (line, cursor, reset)
    }

    fn item(line: &str, cursor: u64, reset: bool) -> (String, u64, bool) {
        (line.to_owned(), cursor, reset)
    }

    #[tokio::test]
    async fn lines_after_the_end_come_once_they_are_complete() {
        let (_directory, path) = place();
        append(&path, "old\npar");
        let mut follower = LogReader::new(&path).follow(None).await.expect("a file");
        append(&path, "tial\nnew\n");
        assert_eq!(next(&mut follower).await, item("partial", 12, false));
        assert_eq!(next(&mut follower).await, item("new", 16, false));
        append(&path, "later\n");
        assert_eq!(next(&mut follower).await, item("later", 22, false));
    }

    #[tokio::test]
    async fn a_cursor_begins_there_and_one_behind_the_end_at_the_start() {
        let (_directory, path) = place();
        append(&path, "one\ntwo\n");
        let reader = LogReader::new(&path);
        let mut follower = reader.follow(Some(4)).await.expect("a file");
        assert_eq!(next(&mut follower).await, item("two", 8, false));
        let mut follower = reader.follow(Some(1)).await.expect("a file");
        assert_eq!(next(&mut follower).await, item("two", 8, false));
        let mut follower = reader.follow(Some(9)).await.expect("a file");
        assert_eq!(next(&mut follower).await, item("one", 4, true));
        assert_eq!(next(&mut follower).await, item("two", 8, false));
    }

    #[tokio::test]
    async fn a_file_that_comes_later_is_read_from_its_start() {
        let (_directory, path) = place();
        let mut follower = LogReader::new(&path).follow(None).await.expect("an empty log");
        append(&path, "one\n");
        assert_eq!(next(&mut follower).await, item("one", 4, false));
    }

    #[tokio::test]
    async fn files_moved_aside_before_are_not_new() {
        let (_directory, path) = place();
        append(&path, "old\n");
        rotate(&path);
        let mut follower = LogReader::new(&path).follow(None).await.expect("an empty log");
        append(&path, "one\n");
        rotate(&path);
        append(&path, "two\n");
        assert_eq!(next(&mut follower).await, item("one", 4, false));
        assert_eq!(next(&mut follower).await, item("two", 4, false));
    }

    #[tokio::test]
    async fn rotations_lose_nothing_while_the_files_are_kept() {
        let (_directory, path) = place();
        append(&path, "one\n");
        let mut follower = LogReader::new(&path).follow(Some(0)).await.expect("a file");
        assert_eq!(next(&mut follower).await, item("one", 4, false));
        append(&path, "two\n");
        rotate(&path);
        append(&path, "three\n");
        rotate(&path);
        append(&path, "four\n");
        assert_eq!(next(&mut follower).await, item("two", 8, false));
        assert_eq!(next(&mut follower).await, item("three", 6, false));
        assert_eq!(next(&mut follower).await, item("four", 5, false));
    }

    #[tokio::test]
    async fn a_file_that_is_gone_is_read_to_its_end_and_the_gap_is_told() {
        let (_directory, path) = place();
        append(&path, "one\n");
        let mut follower = LogReader::new(&path).follow(Some(0)).await.expect("a file");
        fs::remove_file(&path).expect("it exists");
        append(&path, "two\n");
        assert_eq!(next(&mut follower).await, item("one", 4, false));
        assert_eq!(next(&mut follower).await, item("two", 4, true));
    }

    #[tokio::test]
    async fn a_file_that_was_cut_is_read_anew() {
        let (_directory, path) = place();
        append(&path, "one\ntwo\n");
        let mut follower = LogReader::new(&path).follow(None).await.expect("a file");
        File::create(&path).expect("it can be cut");
        append(&path, "x\n");
        assert_eq!(next(&mut follower).await, item("x", 2, true));
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_passed_over() {
        let (_directory, path) = place();
        append(&path, &"x".repeat(MAX_LINE_BYTES + 2 * CHUNK_BYTES));
        append(&path, "\nnext\n");
        let mut follower = LogReader::new(&path).follow(Some(0)).await.expect("a file");
        let (line, _, reset) = next(&mut follower).await;
        assert_eq!((line.as_str(), reset), ("next", true));
    }

    #[tokio::test]
    async fn a_directory_is_refused() {
        let (directory, _) = place();
        let error = LogReader::new(directory.path()).follow(None).await.expect_err("not a file");
        assert!(matches!(error, LogError::NotAFile { .. }), "{error}");
    }

    #[tokio::test]
    async fn the_writer_wakes_its_followers_and_rotates_under_them() {
        let (_directory, path) = place();
        let settings = LogSettings {
            rotation: Rotation { max_bytes: 1_000, files: 4, ..Rotation::default() },
            ..LogSettings::from_environment(path)
        };
        let (layer, handle) = start(&settings).expect("threads");
        let _default = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
        let mut follower = handle.reader().follow(None).await.expect("an empty log");
        for round in 0..20_u64 {
            for number in 0..10 {
                info!(number = round * 10 + number, "a line");
            }
            for number in 0..10 {
                let (line, _, reset) = next(&mut follower).await;
                let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
                assert_eq!((&line["number"], reset), (&(round * 10 + number).into(), false));
            }
        }
        assert!(numbered(handle.path(), 3).exists());
    }
}
