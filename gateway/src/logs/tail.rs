//! Reads the end of the log: backwards, in chunks, and no further than it must.
//!
//! The rules for cursors and bounds are those of stock gateways (cli.md section 6.1).

use std::{
    fs::{self, File},
    io,
    ops::Range,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;
use openclaw_schema::methods::logs::{LogsTailParams, LogsTailResult};
use serde::Deserialize;
use tokio::sync::{Semaphore, watch};

use super::{LogError, follow::LogFollower, mask::mask};

/// wire.md section 10: `limit` when it is absent.
const DEFAULT_LIMIT: u64 = 500;

/// wire.md section 10: `maxBytes` when it is absent.
const DEFAULT_MAX_BYTES: u64 = 250_000;

/// How much is read at once: some hundred lines.
const CHUNK_BYTES: u64 = 64 << 10;

/// How many reads run at once. Each is short; more would only take threads from others.
const READERS: usize = 4;

/// How often a read begins again because the file was cut meanwhile.
const ATTEMPTS: usize = 3;

/// Reads the log. Cloning it is cheap, and clones share the bound on reads at once.
#[derive(Debug, Clone)]
pub struct LogReader {
    path: Arc<Path>,
    permits: Arc<Semaphore>,
    /// Changes when the writer in this process has written.
    written: Option<watch::Receiver<u64>>,
}

impl LogReader {
    /// Reads the log at `path`, which another process writes. [`super::LogHandle::reader`] reads our own.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path: PathBuf = path.into();
        Self { path: path.into(), permits: Arc::new(Semaphore::new(READERS)), written: None }
    }

    pub(super) fn with_writer(path: PathBuf, written: watch::Receiver<u64>) -> Self {
        Self { written: Some(written), ..Self::new(path) }
    }

    /// The path of the log.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the end of the log. Reads `maxBytes` and a chunk at most, whatever the size of the file.
    ///
    /// # Errors
    ///
    /// There is something else than a file, or it cannot be read. A missing file is an empty log.
    pub async fn tail(&self, params: LogsTailParams) -> Result<LogsTailResult, LogError> {
        let path = Arc::clone(&self.path);
        self.run(move || tail(&path, &Request::new(&params, Timestamp::now()))).await
    }

    /// Follows the log, from `cursor` (of a `tail`, or of a followed line) or from its end as it is now.
    ///
    /// # Errors
    ///
    /// As for [`Self::tail`].
    pub async fn follow(&self, cursor: Option<u64>) -> Result<LogFollower, LogError> {
        LogFollower::new(self.clone(), self.written.clone(), cursor).await
    }

    /// Runs `read` on a thread where it may block.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let task = tokio::task::spawn_blocking(move || {
            // A caller that goes away does not end the read: it counts until it is over.
            let _permit = permit;
            read()
        });
        // The only way to fail is the end of the runtime.
        task.await.unwrap_or_else(|error| Err(self.failed(io::Error::other(error))))
    }

    pub(super) fn failed(&self, source: io::Error) -> LogError {
        LogError::Read { path: self.path.to_path_buf(), source }
    }
}

/// Opens the log for reading; `None` when there is none.
///
/// # Errors
///
/// There is something else than a file, or it cannot be opened.
pub(super) fn open(path: &Path) -> Result<Option<(File, fs::Metadata)>, LogError> {
    let failed = |source| LogError::Read { path: path.to_owned(), source };
    // Looked at first: to open a pipe would wait for someone to write to it.
    let opened = fs::metadata(path).and_then(|metadata| {
        if !metadata.is_file() {
            return Ok(None);
        }
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        Ok(Some((file, metadata)))
    });
    match opened {
        Ok(Some(opened)) => Ok(Some(opened)),
        Ok(None) => Err(LogError::NotAFile { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// The time of a line, in milliseconds since 1970, if it can be read.
pub(super) fn time_of(line: &[u8]) -> Option<i64> {
    #[derive(Deserialize)]
    struct Line {
        time: String,
    }
    // Our own lines begin with the time; lines of others are JSON objects that have it anywhere.
    let own = line.strip_prefix(b"{\"time\":\"").and_then(|rest| {
        let end = rest.iter().position(|byte| *byte == b'"')?;
        str::from_utf8(&rest[..end]).ok()?.parse::<Timestamp>().ok()
    });
    let time = own.or_else(|| serde_json::from_slice::<Line>(line).ok()?.time.parse().ok());
    time.map(Timestamp::as_millisecond)
}

/// The text of a line as readers get it.
pub(super) fn text_of(line: &[u8]) -> String {
    mask(String::from_utf8_lossy(line).into_owned())
}

/// What to read.
#[derive(Debug)]
struct Request {
    cursor: Option<u64>,
    limit: usize,
    max_bytes: u64,
    /// Lines of before this time are left out; in milliseconds since 1970.
    since: Option<i64>,
    chunk: u64,
}

impl Request {
    fn new(params: &LogsTailParams, now: Timestamp) -> Self {
        let limit = params.limit.map_or(DEFAULT_LIMIT, |limit| limit.get());
        let age = params.since_ms.map(|since| i64::try_from(since.get()).unwrap_or(i64::MAX));
        Self {
            cursor: params.cursor,
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            max_bytes: params.max_bytes.map_or(DEFAULT_MAX_BYTES, |max| max.get()),
            since: age.map(|age| now.as_millisecond().saturating_sub(age)),
            chunk: CHUNK_BYTES,
        }
    }
}

fn tail(path: &Path, request: &Request) -> Result<LogsTailResult, LogError> {
    let mut attempt = 1;
    loop {
        let name = path.display().to_string();
        let Some((file, metadata)) = open(path)? else {
            let reset = request.cursor.is_some_and(|cursor| cursor > 0);
            return Ok(LogsTailResult {
                file: name,
                cursor: 0,
                size: 0,
                lines: Vec::new(),
                truncated: false,
                reset,
                skipped_bytes: None,
            });
        };
        match tail_of(name, &file, metadata.len(), request) {
            // Someone has cut the file since its size was read.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && attempt < ATTEMPTS => attempt += 1,
            result => return result.map_err(|source| LogError::Read { path: path.to_owned(), source }),
        }
    }
}

/// The tail of the first `size` bytes of `file`.
fn tail_of(name: String, file: &File, size: u64, request: &Request) -> io::Result<LogsTailResult> {
    let floor = size.saturating_sub(request.max_bytes);
    let (start, continued) = match request.cursor {
        Some(cursor) if cursor <= size && cursor >= floor => (cursor, true),
        _ => (floor, false),
    };
    let skipped_bytes = match request.cursor {
        Some(cursor) if cursor < floor => Some(floor - cursor),
        _ => None,
    };

    let mut window = Window::new(file, start, size, request.chunk)?;
    let cursor = window.end;
    let mut kept: Vec<Range<u64>> = Vec::new();
    // Lines without a time share the fate of the line before them, which comes later on this way back: how many
    // of those kept wait for it, and whether any wait that the limit has left no room for.
    let mut undecided = 0;
    let mut undecided_beyond = false;
    let mut beyond = false;
    let mut old = false;
    while let Some(line) = window.previous()? {
        let time = request.since.map(|since| (since, time_of(window.bytes(&line))));
        if let Some((since, Some(time))) = time
            && time < since
        {
            kept.truncate(kept.len() - undecided);
            (old, undecided_beyond) = (true, false);
            break;
        }
        let decided = !matches!(time, Some((_, None)));
        if kept.len() < request.limit {
            kept.push(line);
            undecided = if decided { 0 } else { undecided + 1 };
        } else if decided {
            beyond = true;
            break;
        } else {
            undecided_beyond = true;
        }
    }
    // Without a line that says so, no line is known to be old: those still undecided stay.
    let cut = skipped_bytes.is_some() || (!continued && start > 0 && !old);
    Ok(LogsTailResult {
        file: name,
        cursor,
        size,
        lines: kept.iter().rev().map(|line| text_of(window.bytes(line))).collect(),
        truncated: beyond || undecided_beyond || cut,
        reset: request.cursor.is_some() && !continued,
        skipped_bytes,
    })
}

/// A part of a file, given out line by line from its end. What has been read stays in memory.
struct Window<'a> {
    file: &'a File,
    /// Where the part begins.
    start: u64,
    /// Whether a line begins there.
    at_line: bool,
    /// Where the buffer begins. It reaches to the end of the part.
    at: u64,
    buffer: Vec<u8>,
    /// The end of the line to give out next, its line feed included.
    end: u64,
    chunk: u64,
}

impl<'a> Window<'a> {
    fn new(file: &'a File, start: u64, size: u64, chunk: u64) -> io::Result<Self> {
        let mut before = *b"\n";
        if start > 0 && start < size {
            file.read_exact_at(&mut before, start - 1)?;
        }
        let at_line = before == *b"\n";
        let mut window = Self { file, start, at_line, at: size, buffer: Vec::new(), end: start, chunk };
        // What comes after the last line feed is not complete yet.
        window.end = window.line_feed_before(size)?.map_or(start, |position| position + 1);
        Ok(window)
    }

    /// The next line towards the start, without its line feed.
    fn previous(&mut self) -> io::Result<Option<Range<u64>>> {
        if self.end <= self.start {
            return Ok(None);
        }
        let feed = self.end - 1;
        let begin = match self.line_feed_before(feed)? {
            Some(position) => position + 1,
            None if self.at_line => self.start,
            None => {
                self.end = self.start;
                return Ok(None);
            }
        };
        self.end = begin;
        Ok(Some(begin..feed))
    }

    /// The bytes of a line that was given out.
    fn bytes(&self, line: &Range<u64>) -> &[u8] {
        &self.buffer[self.index(line.start)..self.index(line.end)]
    }

    /// The position of the last line feed in front of `position`.
    fn line_feed_before(&mut self, position: u64) -> io::Result<Option<u64>> {
        let mut end = position;
        loop {
            let searched = &self.buffer[..self.index(end)];
            if let Some(index) = searched.iter().rposition(|byte| *byte == b'\n') {
                return Ok(Some(self.at + index as u64));
            }
            end = self.at;
            if !self.read_back()? {
                return Ok(None);
            }
        }
    }

    /// Reads one chunk more, if the part holds more.
    fn read_back(&mut self) -> io::Result<bool> {
        let length = self.chunk.min(self.at - self.start);
        if length == 0 {
            return Ok(false);
        }
        let mut chunk = vec![0; usize::try_from(length).expect("a chunk is small")];
        self.file.read_exact_at(&mut chunk, self.at - length)?;
        chunk.append(&mut self.buffer);
        self.buffer = chunk;
        self.at -= length;
        Ok(true)
    }

    fn index(&self, position: u64) -> usize {
        usize::try_from(position - self.at).expect("the buffer is in memory")
    }
}

#[cfg(test)]
mod tests {
    use openclaw_schema::types::Bounded;
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    const NOW: i64 = 1_795_338_301_000;

    fn timed(age_ms: i64, text: &str) -> String {
        let time = Timestamp::from_millisecond(NOW - age_ms).expect("a time");
        format!("{{\"time\":\"{time:.3}\",\"message\":\"{text}\"}}")
    }

    fn request() -> Request {
        Request { cursor: None, limit: 500, max_bytes: 250_000, since: None, chunk: 8 }
    }

    fn read(content: &[u8], request: &Request) -> LogsTailResult {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("openclaw.log");
        io::Write::write_all(&mut File::create(&path).expect("a file"), content).expect("room");
        let result = tail(&path, request).expect("a readable file");
        assert_eq!(result.file, path.display().to_string());
        assert_eq!(result.size, content.len() as u64);
        result
    }

    /// Checks lines, cursor, truncated, reset and skipped bytes.
    fn check(content: &[u8], request: &Request, lines: &[&str], rest: (u64, bool, bool, Option<u64>)) {
        let result = read(content, request);
        assert_eq!(result.lines, lines, "{request:?}");
        let given = (result.cursor, result.truncated, result.reset, result.skipped_bytes);
        assert_eq!(given, rest, "{request:?}");
    }

    #[test]
    fn only_complete_lines_come_and_the_cursor_is_behind_them() {
        check(b"one\ntwo\nthr", &request(), &["one", "two"], (8, false, false, None));
        check(b"one\n\ntwo\r\n", &request(), &["one", "", "two\r"], (10, false, false, None));
        check(b"thr", &request(), &[], (0, false, false, None));
        check(b"", &request(), &[], (0, false, false, None));
    }

    #[test]
    fn bytes_that_are_no_utf8_are_replaced_and_secrets_masked() {
        check(
            b"a\xffb\n{\"token\":\"x\"}\n",
            &request(),
            &["a\u{fffd}b", "{\"token\":\"***\"}"],
            (18, false, false, None),
        );
    }

    #[test]
    fn limit_keeps_the_last_lines() {
        check(
            b"one\ntwo\nthree\n",
            &Request { limit: 2, ..request() },
            &["two", "three"],
            (14, true, false, None),
        );
        check(b"one\ntwo\n", &Request { limit: 2, ..request() }, &["one", "two"], (8, false, false, None));
        // The rest of a line in front of the cursor is not counted as one that was left out.
        let within = Request { limit: 1, cursor: Some(1), ..request() };
        check(b"one\ntwo\n", &within, &["two"], (8, false, false, None));
        check(b"one\ntwo\nthree\n", &within, &["three"], (14, true, false, None));
    }

    #[test]
    fn max_bytes_cuts_and_drops_the_line_it_cuts_through() {
        check(b"one\ntwo\n", &Request { max_bytes: 6, ..request() }, &["two"], (8, true, false, None));
        check(b"one\ntwo\n", &Request { max_bytes: 4, ..request() }, &["two"], (8, true, false, None));
        check(
            b"one\ntwo\n",
            &Request { max_bytes: 8, ..request() },
            &["one", "two"],
            (8, false, false, None),
        );
    }

    #[test]
    fn a_line_longer_than_max_bytes_is_left_out_and_reading_goes_on_behind_it() {
        let mut content = b"one\n".to_vec();
        content.extend_from_slice(&[b'x'; 100]);
        let bound = Request { max_bytes: 10, ..request() };
        check(&content, &bound, &[], (94, true, false, None));
        content.extend_from_slice(b"\ntwo\n");
        check(&content, &bound, &["two"], (109, true, false, None));
        check(&content, &Request { cursor: Some(104), ..bound }, &["two"], (109, false, false, None));
    }

    #[test]
    fn a_cursor_goes_on_from_where_it_points() {
        let from = |cursor| Request { cursor: Some(cursor), ..request() };
        check(b"one\ntwo\n", &from(4), &["two"], (8, false, false, None));
        check(b"one\ntwo\n", &from(5), &[], (8, false, false, None));
        check(b"one\ntwo\n", &from(8), &[], (8, false, false, None));
        check(b"one\ntwo\nthr", &from(8), &[], (8, false, false, None));
        check(b"one\ntwo\n", &from(0), &["one", "two"], (8, false, false, None));
    }

    #[test]
    fn a_cursor_behind_the_end_reads_the_tail_anew() {
        let behind = Request { cursor: Some(9), ..request() };
        check(b"one\ntwo\n", &behind, &["one", "two"], (8, false, true, None));
        check(b"one\ntwo\n", &Request { max_bytes: 4, ..behind }, &["two"], (8, true, true, None));
    }

    #[test]
    fn a_cursor_too_far_back_says_how_much_was_skipped() {
        let far = Request { cursor: Some(1), max_bytes: 4, ..request() };
        check(b"one\ntwo\n", &far, &["two"], (8, true, true, Some(3)));
    }

    #[test]
    fn a_missing_file_is_an_empty_log() {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("none/openclaw.log");
        for (cursor, reset) in [(None, false), (Some(0), false), (Some(1), true)] {
            let result = tail(&path, &Request { cursor, ..request() }).expect("an empty log");
            assert_eq!((result.lines.len(), result.cursor, result.size, result.reset), (0, 0, 0, reset));
        }
    }

    #[test]
    fn a_directory_is_refused() {
        let directory = TempDir::new().expect("a directory");
        let error = tail(directory.path(), &request()).expect_err("not a file");
        assert!(matches!(&error, LogError::NotAFile { path } if path == directory.path()), "{error}");
    }

    #[test]
    fn since_keeps_what_is_recent() {
        let (old, new, newer) = (timed(5_000, "old"), timed(900, "new"), timed(0, "newer"));
        let content = format!("{old}\n{new}\n{newer}\n");
        let end = content.len() as u64;
        let since = Request { since: Some(NOW - 1_000), ..request() };
        check(content.as_bytes(), &since, &[&new, &newer], (end, false, false, None));
        check(content.as_bytes(), &Request { limit: 1, ..since }, &[&newer], (end, true, false, None));
        let since = Request { since: Some(NOW + 1), ..request() };
        check(content.as_bytes(), &since, &[], (end, false, false, None));
        // The bound on bytes leaves out nothing that would have been wanted.
        let bounded = Request { since: Some(NOW - 1_000), max_bytes: end - 1, ..request() };
        check(content.as_bytes(), &bounded, &[&new, &newer], (end, true, false, None));
        let more = format!("{old}\n{content}");
        let end = more.len() as u64;
        let bounded = Request { max_bytes: end - 1, ..bounded };
        check(more.as_bytes(), &bounded, &[&new, &newer], (end, false, false, None));
    }

    #[test]
    fn lines_without_a_time_follow_the_line_before_them() {
        let (old, new) = (timed(5_000, "old"), timed(0, "new"));
        let content = format!("{old}\n of old\n{new}\n of new\n too\n");
        let end = content.len() as u64;
        let since = Request { since: Some(NOW - 1_000), ..request() };
        check(content.as_bytes(), &since, &[&new, " of new", " too"], (end, false, false, None));
        let limited = Request { limit: 1, since: Some(NOW - 1_000), ..request() };
        check(content.as_bytes(), &limited, &[" too"], (end, true, false, None));
        let content = format!("{old}\n of old\n too\n");
        let end = content.len() as u64;
        check(content.as_bytes(), &limited, &[], (end, false, false, None));
        check(b"no time\n", &since, &["no time"], (8, false, false, None));
    }

    #[test]
    fn the_time_is_found_wherever_a_json_line_has_it() {
        assert_eq!(time_of(timed(0, "x").as_bytes()), Some(NOW));
        assert_eq!(time_of(br#"{"a":1,"time":"1970-01-01T01:00:01+01:00"}"#), Some(1_000));
        for line in [b"time".as_slice(), b"{\"time\":\"soon\"}", b"{\"time\":5}", b"{\"time\":\"\xff\"}"] {
            assert_eq!(time_of(line), None);
        }
    }

    #[test]
    fn no_more_is_read_than_the_lines_need() {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("openclaw.log");
        let content = "0123456789abcde\n".repeat(1_000);
        io::Write::write_all(&mut File::create(&path).expect("a file"), content.as_bytes()).expect("room");
        let file = File::open(&path).expect("a file");
        let mut window = Window::new(&file, 0, 16_000, 64).expect("readable");
        for _ in 0..10 {
            assert!(window.previous().expect("readable").is_some());
        }
        assert!(window.buffer.len() <= 256, "{} bytes for 160", window.buffer.len());
    }

    #[tokio::test]
    async fn params_mean_what_the_contract_says() {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("openclaw.log");
        let old = timed(0, "old");
        let new = format!("{{\"time\":\"{:.3}\"}}", Timestamp::now());
        let content = format!("{old}\n{new}\n");
        io::Write::write_all(&mut File::create(&path).expect("a file"), content.as_bytes()).expect("room");
        let reader = LogReader::new(&path);
        let since_ms = Some(Bounded::clamped(u64::MAX));
        let result = reader.tail(LogsTailParams { since_ms, ..LogsTailParams::default() }).await;
        assert_eq!(result.expect("readable").lines, [old.as_str(), new.as_str()]);
        let limit = Some(Bounded::clamped(1));
        let result = reader.tail(LogsTailParams { limit, ..LogsTailParams::default() }).await;
        assert_eq!(result.expect("readable").lines, [new.as_str()]);
        let max_bytes = Some(Bounded::clamped(1));
        let result = reader.tail(LogsTailParams { max_bytes, ..LogsTailParams::default() }).await;
        assert_eq!(result.expect("readable").lines, Vec::<String>::new());
    }

    /// The complete lines of `content`, each with its offset.
    fn complete_lines(content: &[u8]) -> Vec<(u64, &[u8])> {
        let mut position = 0;
        let mut lines = Vec::new();
        for line in content.split_inclusive(|byte| *byte == b'\n') {
            if let Some(text) = line.strip_suffix(b"\n") {
                lines.push((position, text));
            }
            position += line.len() as u64;
        }
        lines
    }

    fn any_line() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..20),
            "[a-z]{0,5}".prop_map(String::into_bytes),
            (0_i64..10).prop_map(|age| timed(age * 1_000, "x").into_bytes()),
        ]
    }

    fn any_content() -> impl Strategy<Value = Vec<u8>> {
        (prop::collection::vec(any_line(), 0..12), any::<bool>()).prop_map(|(lines, complete)| {
            let mut content = lines.join(&b'\n');
            if complete {
                content.push(b'\n');
            }
            content
        })
    }

    proptest! {
        #[test]
        fn the_result_is_what_reading_everything_gives(
            content in any_content(),
            cursor in prop::option::of(0_u64..400),
            limit in 1_usize..8,
            max_bytes in 1_u64..400,
            since in prop::option::of(0_i64..11),
            chunk in 1_u64..100,
        ) {
            let since = since.map(|age| NOW - age * 1_000);
            let result = read(&content, &Request { cursor, limit, max_bytes, since, chunk });

            let size = content.len() as u64;
            let floor = size.saturating_sub(max_bytes);
            let start = cursor.filter(|cursor| (floor..=size).contains(cursor)).unwrap_or(floor);
            let all = complete_lines(&content);
            let mut wanted: Vec<&[u8]> =
                all.iter().filter(|(position, _)| *position >= start).map(|(_, line)| *line).collect();
            let mut old = false;
            if let Some(since) = since
                && let Some(last_old) =
                    wanted.iter().rposition(|line| time_of(line).is_some_and(|time| time < since))
            {
                old = true;
                let next = wanted[last_old + 1..].iter().position(|line| time_of(line).is_some());
                wanted.drain(..next.map_or(wanted.len(), |next| last_old + 1 + next));
            }
            let left_out = wanted.len().saturating_sub(limit);
            let lines: Vec<String> = wanted[left_out..].iter().map(|line| text_of(line)).collect();
            prop_assert_eq!(&result.lines, &lines);

            let continued = cursor == Some(start);
            let skipped = cursor.and_then(|cursor| floor.checked_sub(cursor)).filter(|skipped| *skipped > 0);
            prop_assert_eq!(result.skipped_bytes, skipped);
            prop_assert_eq!(result.reset, cursor.is_some() && !continued);
            let cut = skipped.is_some() || (!continued && start > 0 && !old);
            prop_assert_eq!(result.truncated, left_out > 0 || cut);

            let last_end = all.last().map_or(0, |(position, line)| position + line.len() as u64 + 1);
            prop_assert_eq!(result.cursor, last_end.max(start));
            prop_assert!(result.cursor <= size);
        }
    }
}
