//! The thread that writes the file: collapses repeats, rotates, and survives a disk that does not take lines.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    mem,
    os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use jiff::Timestamp;
use tokio::sync::watch;

use super::{Rotation, layer::Record, queue::Queue, tail::time_of};

/// How long `{"time":"2026-11-22T09:05:01.461Z"` is: what may differ between equal lines.
const TIME_BYTES: usize = 34;

/// How long to wait before a failed write is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How long stderr is not told again that writing fails: a disk that is full may take a line now and then.
const WARN_INTERVAL: Duration = Duration::from_secs(60);

/// How long repeats are gathered before a line says how many there were: at first, and at most.
const GATHER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How often to look whether the path still leads to the file that is open.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How much of a file is read to find the time of its first line.
const HEAD_BYTES: u64 = 4096;

/// The path of the file that was rotated `number` times; the current one for 0.
pub(super) fn numbered(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    PathBuf::from(name)
}

/// What tells one file from another, whatever its name.
pub(super) type FileId = (u64, u64);

pub(super) fn file_id(metadata: &fs::Metadata) -> FileId {
    (metadata.dev(), metadata.ino())
}

pub(super) fn dropped_message(lines: u64) -> String {
    format!("{lines} lines were dropped: more was logged than could be written")
}

/// Writes the file.
pub(super) struct Writer {
    path: PathBuf,
    rotation: Rotation,
    /// The size of one file that is in force.
    max_bytes: Arc<AtomicU64>,
    /// Tells followers that there is something to read.
    written: watch::Sender<u64>,
    file: Option<OpenFile>,
    /// Whole lines that are not in the file yet.
    out: Vec<u8>,
    repeats: Repeats,
    /// Whether the last write failed. Then lines stay in the queue, whose bound holds.
    failing: bool,
    /// The same, for those who log.
    fails: Arc<AtomicBool>,
    /// When stderr was told last that writing fails, and whether it was told of this failure.
    warned: (Option<Instant>, bool),
    /// Whether the last rotation failed.
    stuck: bool,
}

struct OpenFile {
    file: File,
    id: FileId,
    length: u64,
    /// The time of the first line, in milliseconds since 1970.
    begun: i64,
    looked: Instant,
}

/// The last line, and what came after it and was the same.
struct Repeats {
    /// The last line from `TIME_BYTES` on.
    last: Vec<u8>,
    /// The time part of the last repeat.
    time: Vec<u8>,
    count: u64,
    since: Instant,
    gather: Duration,
}

impl Writer {
    pub(super) fn new(path: PathBuf, rotation: Rotation, written: watch::Sender<u64>) -> Self {
        let repeats =
            Repeats { last: Vec::new(), time: Vec::new(), count: 0, since: Instant::now(), gather: GATHER.0 };
        Self {
            path,
            rotation,
            max_bytes: Arc::new(AtomicU64::new(rotation.max_bytes)),
            written,
            file: None,
            out: Vec::new(),
            repeats,
            failing: false,
            fails: Arc::default(),
            warned: (None, false),
            stuck: false,
        }
    }

    /// Whether the file cannot be written, as it changes.
    pub(super) fn fails(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.fails)
    }

    /// How large the file grows, in bytes. May be changed: it holds from the next line on.
    pub(super) fn max_bytes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.max_bytes)
    }

    /// Writes until the queue is closed.
    pub(super) fn run(mut self, queue: &Queue) {
        let mut batch = Vec::new();
        self.prune();
        loop {
            let patience = if self.failing { Some(RETRY) } else { self.repeats.due() };
            queue.wait(patience, !self.failing);
            let caught_up = self.write_out();
            let drained = queue.drain(&mut batch, caught_up);
            for line in batch.split_inclusive(|byte| *byte == b'\n') {
                self.repeats.take(line, &mut self.out);
            }
            if drained.dropped > 0 {
                let warning = Record::warning(dropped_message(drained.dropped), "dropped", drained.dropped);
                self.repeats.take(warning.json().as_bytes(), &mut self.out);
            }
            let finish = drained.flush.is_some() || drained.closed;
            if finish || self.repeats.due() == Some(Duration::ZERO) {
                self.repeats.finish(&mut self.out);
            }
            let written = caught_up && self.write_out();
            if let Some(flush) = drained.flush {
                queue.flushed(flush, written && self.sync());
            }
            if drained.closed {
                return;
            }
        }
    }

    /// Writes what waits. Says whether nothing waits any more.
    fn write_out(&mut self) -> bool {
        let out = mem::take(&mut self.out);
        let mut rest = out.as_slice();
        while !rest.is_empty() {
            match self.write_some(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) => {
                    self.failed(&error);
                    self.out = rest.to_vec();
                    return false;
                }
            }
        }
        if !out.is_empty() {
            self.recovered();
            self.written.send_modify(|count| *count = count.wrapping_add(1));
        }
        true
    }

    fn failed(&mut self, error: &io::Error) {
        if mem::replace(&mut self.failing, true) {
            return;
        }
        self.fails.store(true, Ordering::Relaxed);
        let is_news = self.warned.0.is_none_or(|warned| warned.elapsed() >= WARN_INTERVAL);
        if is_news {
            warn(&format!(
                "the log file {} cannot be written ({error}); what belongs there is shown here, and writing is \
                 tried again every second",
                self.path.display()
            ));
            self.warned.0 = Some(Instant::now());
        }
        self.warned.1 = is_news;
    }

    fn recovered(&mut self) {
        if mem::replace(&mut self.failing, false) {
            self.fails.store(false, Ordering::Relaxed);
            if mem::take(&mut self.warned.1) {
                warn(&format!("the log file {} is written again", self.path.display()));
            }
        }
    }

    /// Writes as many of `lines` as the current file takes, at least one. Says how many bytes that were.
    fn write_some(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.rotation.max_bytes = self.max_bytes.load(Ordering::Relaxed);
        let mut file = self.open()?;
        let mut fitting = fitting(lines, self.rotation.max_bytes.saturating_sub(file.length));
        let max_age = i64::try_from(self.rotation.max_age.as_millis()).unwrap_or(i64::MAX);
        let age = Timestamp::now().as_millisecond().saturating_sub(file.begun);
        if file.length > 0 && (fitting == 0 || age >= max_age) {
            file = self.rotate(file)?;
            fitting = self::fitting(lines, self.rotation.max_bytes.saturating_sub(file.length));
        }
        if fitting == 0 {
            fitting = first_line(lines);
        }
        match (&file.file).write_all(&lines[..fitting]) {
            Ok(()) => {
                // No line is longer than the queue, which is far from 2^64 bytes.
                file.length += fitting as u64;
                self.file = Some(file);
                Ok(fitting)
            }
            Err(error) => {
                // Half a line may have been written. If it cannot be taken back, the next open ends the line.
                let _ = file.file.set_len(file.length);
                Err(error)
            }
        }
    }

    /// The file, if the path still leads to it; or else a newly opened one.
    fn open(&mut self) -> io::Result<OpenFile> {
        if let Some(mut file) = self.file.take() {
            if file.looked.elapsed() < LOOK_INTERVAL {
                return Ok(file);
            }
            if let Ok(metadata) = fs::metadata(&self.path)
                && file_id(&metadata) == file.id
            {
                file.length = metadata.len();
                file.looked = Instant::now();
                return Ok(file);
            }
        }
        open(&self.path)
    }

    /// Moves `file` aside, the oldest one out, and begins a new one. If that does not work, `file` is kept.
    fn rotate(&mut self, file: OpenFile) -> io::Result<OpenFile> {
        match self.move_files() {
            Ok(()) => {
                self.stuck = false;
                self.prune();
                // Followers of the old file learn that it is complete.
                self.written.send_modify(|count| *count = count.wrapping_add(1));
                open(&self.path)
            }
            Err(error) => {
                if !mem::replace(&mut self.stuck, true) {
                    warn(&format!(
                        "the log file {} cannot be rotated ({error}); it grows beyond its bound",
                        self.path.display()
                    ));
                }
                Ok(file)
            }
        }
    }

    fn move_files(&self) -> io::Result<()> {
        let oldest = self.rotation.files.saturating_sub(1);
        if oldest == 0 {
            return fs::remove_file(&self.path);
        }
        // A rename replaces what has the new name: the oldest file goes.
        for number in (1..oldest).rev() {
            match fs::rename(numbered(&self.path, number), numbered(&self.path, number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, numbered(&self.path, 1))
    }

    /// Removes what lies beyond the bounds: files that an earlier start with other bounds left, and old ones. What
    /// cannot be removed stays.
    fn prune(&self) {
        let (Some(directory), Some(name)) = (self.path.parent(), self.path.file_name()) else { return };
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        let Ok(entries) = fs::read_dir(directory) else { return };
        let prefix = format!("{}.", name.to_string_lossy());
        let mut complete: Vec<(u32, fs::Metadata, PathBuf)> = entries
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let number = entry.file_name().to_str()?.strip_prefix(&prefix)?.parse().ok()?;
                let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
                Some((number, metadata, entry.path()))
            })
            .collect();
        complete.sort_unstable_by_key(|(number, ..)| *number);
        let mut room =
            self.rotation.max_bytes.saturating_mul(u64::from(self.rotation.files.saturating_sub(1)));
        let now = SystemTime::now();
        for (number, metadata, path) in complete {
            let age = metadata.modified().ok().and_then(|modified| now.duration_since(modified).ok());
            let is_old = age.is_some_and(|age| age > self.rotation.keep);
            // A single line may make a file that is larger than its bound: the newest counts as no larger.
            let bytes =
                if number == 1 { metadata.len().min(self.rotation.max_bytes) } else { metadata.len() };
            let is_beyond = number >= self.rotation.files || bytes > room;
            if is_old || is_beyond {
                let _ = fs::remove_file(path);
            } else {
                room = room.saturating_sub(bytes);
            }
        }
    }

    fn sync(&self) -> bool {
        self.file.as_ref().is_none_or(|file| file.file.sync_data().is_ok())
    }
}

impl Repeats {
    /// Moves a line to `out`, unless it repeats the last one.
    fn take(&mut self, line: &[u8], out: &mut Vec<u8>) {
        let (time, rest) = line.split_at(TIME_BYTES.min(line.len()));
        // Only a line that is none of ours is too short to hold more than a time.
        if !rest.is_empty() && rest == self.last {
            if self.count == 0 {
                self.since = Instant::now();
            }
            self.count += 1;
            self.time.clear();
            self.time.extend_from_slice(time);
            return;
        }
        self.finish(out);
        self.gather = GATHER.0;
        self.last.clear();
        self.last.extend_from_slice(rest);
        out.extend_from_slice(line);
    }

    /// Says in `out` how often the last line was repeated. Further repeats are gathered for longer.
    fn finish(&mut self, out: &mut Vec<u8>) {
        let count = mem::take(&mut self.count);
        if count == 0 {
            return;
        }
        self.gather = (self.gather * 2).min(GATHER.1);
        out.extend_from_slice(&self.time);
        let message = b",\"message\":";
        match self.last.windows(message.len()).position(|window| window == message) {
            // Level and subsystem of the line hold for its repeats. Quotes in values are escaped, so this is
            // the key and no text.
            Some(end) if count > 1 => {
                out.extend_from_slice(&self.last[..end]);
                let rest =
                    format!(",\"message\":\"last line repeated {count} times\",\"repeated\":{count}}}\n");
                out.extend_from_slice(rest.as_bytes());
            }
            // A single repeat says more than a line about it.
            _ => out.extend_from_slice(&self.last),
        }
    }

    /// In how long the repeats are to be told, if there are any.
    fn due(&self) -> Option<Duration> {
        (self.count > 0).then(|| self.gather.saturating_sub(self.since.elapsed()))
    }
}

/// How many bytes of whole lines fit into `room`.
fn fitting(lines: &[u8], room: u64) -> usize {
    let room = usize::try_from(room).unwrap_or(usize::MAX).min(lines.len());
    lines[..room].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
}

fn first_line(lines: &[u8]) -> usize {
    lines.iter().position(|byte| *byte == b'\n').map_or(lines.len(), |end| end + 1)
}

fn open(path: &Path) -> io::Result<OpenFile> {
    if let Some(directory) = path.parent()
        && !directory.as_os_str().is_empty()
    {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    // A pipe that nobody reads would hold up the open itself.
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(io::Error::other("there is something else than a file"));
    }
    let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
    let metadata = file.metadata()?;
    let mut length = metadata.len();
    let mut begun = Timestamp::now().as_millisecond();
    if length > 0 {
        let mut head = Vec::new();
        (&file).take(HEAD_BYTES).read_to_end(&mut head)?;
        begun = time_of(&head[..first_line(&head)]).unwrap_or(begun);
        let mut last = [0];
        file.read_exact_at(&mut last, length - 1)?;
        if last != *b"\n" {
            // Whoever wrote before us was stopped within a line: ours must not become part of it.
            (&file).write_all(b"\n")?;
            length += 1;
        }
    }
    Ok(OpenFile { file, id: file_id(&metadata), length, begun, looked: Instant::now() })
}

fn warn(message: &str) {
    // Nobody is left to tell when stderr is closed.
    let _ = writeln!(io::stderr(), "openclaw: {message}");
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tempfile::TempDir;
    use tracing::{info, info_span, warn};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::logs::{LogHandle, LogRules, LogSettings, Redactor, start};

    fn settings(path: PathBuf, max_bytes: u64) -> LogSettings {
        let rotation = Rotation { max_bytes, files: 3, ..Rotation::default() };
        let rules = LogRules::both("info".parse().expect("a level"));
        LogSettings { file: path, rules, rotation, ..LogSettings::from_environment("") }
    }

    /// Runs `body` with a log at `log/openclaw.log` of a new directory.
    fn logged(max_bytes: u64, body: impl FnOnce(&LogHandle)) -> (TempDir, PathBuf) {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("log/openclaw.log");
        log_to(&settings(path.clone(), max_bytes), body);
        (directory, path)
    }

    fn log_to(settings: &LogSettings, body: impl FnOnce(&LogHandle)) {
        let (layer, handle) = start(settings).expect("threads");
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || body(&handle));
        handle.flush();
    }

    fn lines(path: &Path) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(path).expect("a log file");
        assert!(text.ends_with('\n'), "{text:?}");
        text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
    }

    fn messages(path: &Path) -> Vec<String> {
        lines(path).iter().map(|line| line["message"].as_str().expect("a message").to_owned()).collect()
    }

    #[test]
    fn events_become_json_lines_with_their_fields_and_those_of_their_spans() {
        let (_directory, path) = logged(u64::MAX, |_| {
            let span = info_span!("call", method = "health", id = 7, late = tracing::field::Empty);
            let _entered = span.enter();
            span.record("late", true);
            warn!(subsystem = "rpc", id = 8, time = "noon", ratio = f64::NAN, "slow\n{}", "call");
        });
        let lines = lines(&path);
        assert_eq!(lines.len(), 1);
        let text = fs::read_to_string(&path).expect("a log file");
        assert!(text.starts_with("{\"time\":\"2") && &text[TIME_BYTES - 2..TIME_BYTES] == "Z\"", "{text}");
        assert!(
            text.ends_with(
                ",\"level\":\"WARN\",\"subsystem\":\"rpc\",\"message\":\"slow\\ncall\",\"id\":8,\
                 \"time_\":\"noon\",\"ratio\":\"NaN\",\"method\":\"health\",\"late\":true}\n"
            ),
            "{text}"
        );
        let mode = |path: &Path| fs::metadata(path).expect("it exists").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().expect("a parent"))), (0o600, 0o700));
    }

    #[test]
    fn files_rotate_by_size_and_the_oldest_goes() {
        let (_directory, path) = logged(450, |_| {
            for number in 0..20 {
                info!(number, "a line");
            }
        });
        let numbers = |path: &Path| -> Vec<u64> {
            assert!(fs::metadata(path).expect("it exists").len() <= 450);
            lines(path).iter().map(|line| line["number"].as_u64().expect("a number")).collect()
        };
        let kept: Vec<u64> =
            [2, 1, 0].into_iter().flat_map(|number| numbers(&numbered(&path, number))).collect();
        assert!(kept.len() < 20 && kept.len() > 6, "{kept:?}");
        assert!(kept.iter().copied().eq(20 - kept.len() as u64..20), "{kept:?}");
        assert!(!numbered(&path, 3).exists());
    }

    #[test]
    fn a_line_longer_than_a_file_gets_a_file_of_its_own() {
        let (_directory, path) = logged(200, |_| {
            info!("before");
            info!("{}", "x".repeat(300));
            info!("after");
        });
        assert_eq!(messages(&numbered(&path, 2)), ["before"]);
        assert_eq!(messages(&numbered(&path, 1)), ["x".repeat(300)]);
        assert_eq!(messages(&path), ["after"]);
    }

    #[test]
    fn a_file_rotates_when_its_first_line_is_old() {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("openclaw.log");
        let old = Timestamp::now() - Duration::from_secs(8 * 24 * 60 * 60);
        File::create(&path)
            .and_then(|mut file| writeln!(file, "{{\"time\":\"{old:.3}\",\"message\":\"old\"}}"))
            .expect("a file");
        log_to(&settings(path.clone(), u64::MAX), |_| info!("new"));
        assert_eq!(
            (messages(&numbered(&path, 1)), messages(&path)),
            (vec!["old".into()], vec!["new".into()])
        );
    }

    #[test]
    fn files_beyond_the_bounds_are_removed_at_the_start() {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("openclaw.log");
        for (number, bytes) in [(1, 90), (2, 130), (3, 10), (7, 10)] {
            let file = File::create(numbered(&path, number)).expect("a file");
            file.set_len(bytes).expect("a length");
        }
        fs::write(directory.path().join("openclaw.log.old"), "kept").expect("a file of somebody else's");
        let rotation = Rotation { max_bytes: 60, files: 4, ..Rotation::default() };
        log_to(&LogSettings { rotation, ..settings(path.clone(), 60) }, |_| ());
        let exists = |number| numbered(&path, number).exists();
        // Three complete files may hold 180 bytes: the newest counts as 60, and the second does not fit.
        assert_eq!([exists(1), exists(2), exists(3), exists(7)], [true, false, true, false]);
        assert!(directory.path().join("openclaw.log.old").exists());

        let old = File::options().write(true).open(numbered(&path, 3)).expect("it is there");
        old.set_modified(SystemTime::now() - Duration::from_secs(40 * 24 * 60 * 60)).expect("a time");
        log_to(&LogSettings { rotation, ..settings(path.clone(), 60) }, |_| ());
        assert_eq!([exists(1), exists(3)], [true, false]);
    }

    #[test]
    fn levels_and_redaction_change_while_it_runs() {
        let (_directory, path) = logged(u64::MAX, |handle| {
            tracing::debug!("unseen");
            info!(password = "hunter22", "key sk-0123456789abcdef0123 of hunter2-and-more");
            let mut rules = LogRules::both("warn,writer=debug".parse().expect("a filter"));
            rules.redactor =
                Redactor::new(["hunter2-and-more".into()], &["ACCT-[0-9]+".to_owned()]).expect("a pattern");
            handle.change_rules(rules);
            info!(target: "elsewhere", "unseen");
            tracing::debug!(account = "ACCT-77", "got hunter2-and-more");
        });
        let lines = lines(&path);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert_eq!(lines[0]["message"], "key sk-*** of hunter2-and-more");
        assert_eq!(lines[0]["password"], "***");
        assert_eq!((&lines[1]["message"], &lines[1]["account"]), (&"got ***".into(), &"***".into()));
    }

    #[test]
    fn repeats_collapse_with_level_and_subsystem() {
        let (_directory, path) = logged(u64::MAX, |_| {
            for message in ["a", "a", "a", "a", "b", "b", "c"] {
                warn!(subsystem = "rpc", "{message}");
            }
        });
        assert_eq!(messages(&path), ["a", "last line repeated 3 times", "b", "b", "c"]);
        let repeated = &lines(&path)[1];
        assert_eq!((&repeated["level"], &repeated["repeated"]), (&"WARN".into(), &3.into()));
        assert_eq!(repeated["subsystem"], "rpc");
    }

    #[test]
    fn an_unfinished_line_of_an_earlier_process_is_ended() {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("openclaw.log");
        File::create(&path).and_then(|mut file| file.write_all(b"{\"ti")).expect("a file");
        log_to(&settings(path.clone(), u64::MAX), |_| info!("next"));
        let text = fs::read_to_string(&path).expect("a log file");
        assert_eq!(text.lines().next(), Some("{\"ti"));
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn writing_recovers_when_the_path_becomes_usable() {
        let directory = TempDir::new().expect("a directory");
        let blocked = directory.path().join("log");
        File::create(&blocked).expect("a file in the place of the directory");
        log_to(&settings(blocked.join("openclaw.log"), u64::MAX), |handle| {
            info!("first");
            assert!(!handle.flush());
            info!("second");
            fs::remove_file(&blocked).expect("it is ours");
            assert!(handle.flush());
            // The flush that found the path usable wrote both.
            assert_eq!(messages(handle.path()), ["first", "second"]);
        });
    }

    #[test]
    fn lines_that_do_not_fit_the_queue_are_counted_in_the_log() {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("openclaw.log");
        let queue = Queue::new(16);
        for line in ["{\"a\":1}\n", "{\"a\":2}\n", "{\"a\":3}\n"] {
            queue.push(line.as_bytes());
        }
        queue.close();
        Writer::new(path.clone(), Rotation::default(), watch::channel(0).0).run(&queue);
        let lines = lines(&path);
        assert_eq!((lines.len(), &lines[2]["dropped"], &lines[2]["level"]), (3, &1.into(), &"WARN".into()));
    }

    #[test]
    fn a_file_that_was_moved_away_is_begun_anew() {
        let directory = TempDir::new().expect("a directory");
        let path = directory.path().join("openclaw.log");
        let mut writer = Writer::new(path.clone(), Rotation::default(), watch::channel(0).0);
        writer.out = b"{\"message\":\"a\"}\n".to_vec();
        assert!(writer.write_out());
        fs::remove_file(&path).expect("it exists");
        let file = writer.file.as_mut().expect("an open file");
        file.looked = file.looked.checked_sub(LOOK_INTERVAL).expect("the machine is up for a second");
        writer.out = b"{\"message\":\"b\"}\n".to_vec();
        assert!(writer.write_out());
        assert_eq!(messages(&path), ["b"]);
    }
}
