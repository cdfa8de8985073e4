//! The state directory: the paths of what is kept there, private files, and which process owns it now.
//!
//! Which directory that is says `config::Locations`.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// How many random bytes a generated token has; it is written as twice as many hex digits.
const TOKEN_BYTES: usize = 24;

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

    /// The user's configuration file, unless `OPENCLAW_CONFIG_PATH` names another one.
    #[must_use]
    pub fn config_file(&self) -> PathBuf {
        self.root.join("openclaw.json")
    }

    /// The user's variables, for what the environment lacks: `NAME=VALUE` lines.
    #[must_use]
    pub fn env_file(&self) -> PathBuf {
        self.root.join(".env")
    }

    /// The workspace of the default agent, unless the configuration names another one.
    #[must_use]
    pub fn workspace_dir(&self) -> PathBuf {
        self.root.join("workspace")
    }

    /// The folder of what only this gateway uses.
    #[must_use]
    pub fn gateway_dir(&self) -> PathBuf {
        self.root.join("gateway")
    }

    /// The log file, unless `logging.file` names another one.
    #[must_use]
    pub fn log_file(&self) -> PathBuf {
        self.gateway_dir().join("logs").join("openclaw.log")
    }

    /// The file of the raw model events, unless `--raw-stream-path` names another one.
    #[must_use]
    pub fn raw_stream_file(&self) -> PathBuf {
        self.gateway_dir().join("logs").join("raw-stream.jsonl")
    }

    /// The directory where the processes of command-line back ends are noted while they go on.
    #[must_use]
    pub fn processes_dir(&self) -> PathBuf {
        self.gateway_dir().join("processes")
    }

    /// The record of the gateway that runs now: see [`RuntimeRecord`].
    #[must_use]
    pub fn runtime_record_file(&self) -> PathBuf {
        self.gateway_dir().join("runtime.json")
    }

    /// The generated token: see [`ensure_token`].
    #[must_use]
    pub fn token_file(&self) -> PathBuf {
        self.gateway_dir().join("token")
    }

    /// The gateway's identity key: see [`crate::identity`].
    #[must_use]
    pub fn identity_file(&self) -> PathBuf {
        self.gateway_dir().join("identity.json")
    }

    /// What a gateway asked of tailscale, for whoever starts after it was killed.
    #[must_use]
    pub fn tailscale_note_file(&self) -> PathBuf {
        self.gateway_dir().join("tailscale.json")
    }

    /// The gateway's own database.
    #[must_use]
    pub fn database_file(&self) -> PathBuf {
        self.gateway_dir().join("gateway.sqlite")
    }

    /// The file whose lock the running gateway holds: see [`StateLock`].
    #[must_use]
    pub fn lock_file(&self) -> PathBuf {
        self.gateway_dir().join("gateway.lock")
    }
}

/// What went wrong with the state directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was to be done, as a verb.
        action: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A file holds something else than this gateway writes there.
    #[error("{} is damaged: {problem}; move it away and a new one is made at the next start", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with its content.
        problem: String,
    },
    /// Another gateway uses the state directory.
    #[error("another gateway{} already runs in the state directory {}", describe(holder.as_deref()), state.display())]
    Locked {
        /// The state directory.
        state: PathBuf,
        /// What that gateway says of itself; absent while it is still starting.
        holder: Option<Box<RuntimeRecord>>,
    },
    /// The system gave no randomness.
    #[error("the system gave no random bytes")]
    Randomness(#[source] getrandom::Error),
}

impl StateError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}

fn describe(holder: Option<&RuntimeRecord>) -> String {
    holder.map(|record| format!(" (pid {}, port {})", record.pid, record.port)).unwrap_or_default()
}

/// Writes a file that only its owner may read (0600), in one step: readers see the old content or the new, also
/// after a power cut. Parent directories are made with 0700 where they are missing.
///
/// # Errors
///
/// What the file system says. The old content is then still there.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), StateError> {
    let temporary = write_temporary(path, bytes)?;
    if let Err(error) = std::fs::rename(&temporary, path) {
        // What counts is the first error; a left-over temporary file harms nobody.
        let _ = std::fs::remove_file(&temporary);
        return Err(StateError::io("write", path)(error));
    }
    sync_parent(path)
}

/// Like [`write_private`], but leaves a file alone that is there already, also one that another process makes at
/// this moment. Tells whether it wrote the file.
///
/// # Errors
///
/// What the file system says.
pub fn create_private(path: &Path, bytes: &[u8]) -> Result<bool, StateError> {
    if path.symlink_metadata().is_ok() {
        return Ok(false);
    }
    let temporary = write_temporary(path, bytes)?;
    // A link refuses to replace, as a rename does not.
    let linked = match std::fs::hard_link(&temporary, path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        // Some file systems have no links. There the check above has to do.
        Err(_) => std::fs::rename(&temporary, path).map(|()| true),
    };
    // After a rename it is gone already.
    let _ = std::fs::remove_file(&temporary);
    let created = linked.map_err(StateError::io("create", path))?;
    sync_parent(path)?;
    Ok(created)
}

/// Makes a directory and its parents, with 0700 where they are missing.
///
/// # Errors
///
/// What the file system says.
pub fn create_private_dir(path: &Path) -> Result<(), StateError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(StateError::io("create the directory", path))
}

/// Writes `bytes` to a new file beside `path`, down to the disk.
fn write_temporary(path: &Path, bytes: &[u8]) -> Result<PathBuf, StateError> {
    create_private_dir(parent(path))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}.tmp", Uuid::new_v4().simple()));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| {
        // What counts is the first error.
        let _ = std::fs::remove_file(&temporary);
        StateError::io("write", path)(error)
    })?;
    Ok(temporary)
}

fn sync_parent(path: &Path) -> Result<(), StateError> {
    let directory = parent(path);
    File::open(directory).and_then(|file| file.sync_all()).map_err(StateError::io("write", directory))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// What a running gateway says of itself to the command line of the same user: a file of mode 0600 in the state
/// directory, written at start and removed at stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuntimeRecord {
    /// The process.
    pub pid: u32,
    /// The port of all its addresses.
    pub port: u16,
    /// Where it listens.
    pub addresses: Vec<SocketAddr>,
    /// The id of this run of the gateway.
    pub instance_id: String,
    /// The version of the gateway.
    pub version: String,
    /// What it speaks, such as `jsonrpc`.
    pub dialects: Vec<String>,
    /// When it started, in milliseconds since 1970.
    pub started_at_ms: u64,
    /// The SHA-256 digest of its certificate, in hex, by which its command line pins it; absent where the port is
    /// plain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_fingerprint: Option<String>,
    /// Where others reach it through tailscale, such as `wss://ada.tail1234.ts.net`; absent where they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tailscale_url: Option<String>,
}

impl RuntimeRecord {
    /// The record of the gateway that runs in `state`. Absent when none runs: a record that a killed gateway left
    /// behind counts for nothing, nor does one that cannot be read.
    #[must_use]
    pub fn read(state: &StateDir) -> Option<Self> {
        let record: Self = serde_json::from_slice(&std::fs::read(state.runtime_record_file()).ok()?).ok()?;
        // After a restart of the machine, the number soon belongs to some other process.
        let is_later =
            start_of(record.pid).is_some_and(|start| start > record.started_at_ms + CLOCK_SLACK_MS);
        (is_alive(record.pid) && !is_later).then_some(record)
    }

    /// Writes the record.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn write(&self, state: &StateDir) -> Result<(), StateError> {
        let mut text = serde_json::to_string_pretty(self).expect("a record has string keys only");
        text.push('\n');
        write_private(&state.runtime_record_file(), text.as_bytes())
    }

    /// Removes the record if it is still this one's: another gateway may have started meanwhile. Tells whether
    /// it was.
    ///
    /// # Errors
    ///
    /// What the file system says.
    pub fn remove(&self, state: &StateDir) -> Result<bool, StateError> {
        let path = state.runtime_record_file();
        let found = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<Self>(&bytes).ok(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(StateError::io("read", &path)(error)),
        };
        if found.is_none_or(|found| found.instance_id != self.instance_id) {
            return Ok(false);
        }
        std::fs::remove_file(&path).map_err(StateError::io("remove", &path))?;
        Ok(true)
    }

    /// The URL at which a program on the same machine reaches the gateway.
    #[must_use]
    pub fn local_url(&self) -> String {
        let scheme = if self.tls_fingerprint.is_some() { "wss" } else { "ws" };
        format!("{scheme}://{}", self.local_address())
    }

    /// The address at which a program on the same machine reaches the gateway: loopback where it listens there.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        let local = |address: &SocketAddr| match address.ip() {
            ip if ip.is_loopback() => Some(ip),
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Some(IpAddr::V6(Ipv6Addr::LOCALHOST)),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        };
        let ip = self
            .addresses
            .iter()
            .find_map(local)
            .or_else(|| self.addresses.first().map(SocketAddr::ip))
            .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
        SocketAddr::new(ip, self.port)
    }
}

/// How far the clock may have been set back since a process began: seconds count, hours are another process.
const CLOCK_SLACK_MS: u64 = 60_000;

/// When a process began, in clock ticks since the system did; absent where the system does not tell (proc(5)). Together
/// with the process's id and the boot it names one process for good, as no clock that is set changes it.
pub(crate) fn start_ticks(pid: u32) -> Option<u64> {
    let process = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets and may hold anything; what follows counts from the third field on.
    let (_, fields) = process.rsplit_once(')')?;
    fields.split_whitespace().nth(19)?.parse().ok()
}

/// When a process began, in milliseconds since 1970; absent where the system does not tell (proc(5)).
fn start_of(pid: u32) -> Option<u64> {
    let ticks = start_ticks(pid)?;
    let system = std::fs::read_to_string("/proc/stat").ok()?;
    let boot: u64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(boot * 1000 + ticks * 1000 / rustix::param::clock_ticks_per_second().max(1))
}

/// Whether a process with this id exists, whoever owns it.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).is_some_and(|pid| {
        matches!(rustix::process::test_kill_process(pid), Ok(()) | Err(rustix::io::Errno::PERM))
    })
}

/// The right to run a gateway in a state directory: there is one gateway per state directory. The system takes
/// it back when the process ends, however it ends; dropping it gives it back too.
#[derive(Debug)]
pub struct StateLock {
    /// Invariant: locked for as long as it is open.
    _file: File,
}

impl StateLock {
    /// Takes the lock of `state`, without waiting.
    ///
    /// # Errors
    ///
    /// [`StateError::Locked`] when another gateway holds it, else what the file system says.
    pub fn acquire(state: &StateDir) -> Result<Self, StateError> {
        let path = state.lock_file();
        create_private_dir(parent(&path))?;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(StateError::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {
                // For people and for `StateLock::holder`; the lock itself is what counts.
                let written = file
                    .set_len(0)
                    .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
                if let Err(error) = written {
                    tracing::debug!(%error, "the lock does not name its holder");
                }
                Ok(Self { _file: file })
            }
            Err(TryLockError::WouldBlock) => Err(StateError::Locked {
                state: state.root().to_owned(),
                holder: RuntimeRecord::read(state).map(Box::new),
            }),
            Err(TryLockError::Error(error)) => Err(StateError::io("lock", &path)(error)),
        }
    }

    /// The process that holds the lock of `state`, as it says itself; absent when nobody holds it.
    #[must_use]
    pub fn holder(state: &StateDir) -> Option<u32> {
        let path = state.lock_file();
        let file = File::open(&path).ok()?;
        match file.try_lock_shared() {
            // A process that is gone holds no lock: what the file says is of no account.
            Ok(()) => None,
            Err(_) => std::fs::read_to_string(&path).ok()?.trim().parse().ok(),
        }
    }
}

/// The generated token of `state`, made if there is none: 48 hex digits from the system's randomness, in a file
/// of mode 0600 that the command line of the same user finds by itself.
///
/// # Errors
///
/// What the file system says, or that the file is damaged.
pub fn ensure_token(state: &StateDir) -> Result<SecretString, StateError> {
    if let Some(token) = read_token(state)? {
        return Ok(token);
    }
    let path = state.token_file();
    let token = new_token()?;
    if create_private(&path, format!("{token}\n").as_bytes())? {
        return Ok(token.into());
    }
    // Another process was faster; its token counts.
    read_token(state)?.ok_or_else(|| StateError::io("read", &path)(io::Error::from(io::ErrorKind::NotFound)))
}

/// The generated token of `state`, if one was made.
///
/// # Errors
///
/// What the file system says, or that the file is damaged.
pub fn read_token(state: &StateDir) -> Result<Option<SecretString>, StateError> {
    let path = state.token_file();
    match std::fs::read_to_string(&path) {
        Ok(text) if text.trim().is_empty() => {
            Err(StateError::Damaged { path, problem: "it holds no token".to_owned() })
        }
        Ok(text) => Ok(Some(text.trim().into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StateError::io("read", &path)(error)),
    }
}

/// A new token.
pub(crate) fn new_token() -> Result<String, StateError> {
    Ok(hex(&random_bytes::<TOKEN_BYTES>()?))
}

/// Bytes from the system's randomness.
pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N], StateError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(StateError::Randomness)?;
    Ok(bytes)
}

/// `bytes` as lower-case hex digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use secrecy::ExposeSecret as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        path.metadata().expect("it exists").permissions().mode() & 0o777
    }

    fn state() -> (tempfile::TempDir, StateDir) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let state = StateDir::new(directory.path().join("home/.openclaw"));
        (directory, state)
    }

    fn record(pid: u32, instance_id: &str) -> RuntimeRecord {
        RuntimeRecord {
            pid,
            port: 18999,
            addresses: vec!["127.0.0.1:18999".parse().expect("an address")],
            instance_id: instance_id.to_owned(),
            version: "0.1.0".to_owned(),
            dialects: vec!["jsonrpc".to_owned()],
            started_at_ms: 4_102_444_800_000,
            tls_fingerprint: None,
            tailscale_url: None,
        }
    }

    /// The id of a process that has ended.
    fn dead_pid() -> u32 {
        let mut child = std::process::Command::new("true").spawn().expect("`true` runs");
        let pid = child.id();
        child.wait().expect("`true` ends");
        pid
    }

    #[test]
    fn a_private_file_is_its_owners_alone_and_is_replaced_whole() {
        let (_directory, state) = state();
        let path = state.token_file();
        write_private(&path, b"a long first content").expect("it writes");
        write_private(&path, b"second").expect("it writes");
        assert_eq!(std::fs::read(&path).expect("it reads"), b"second");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(state.root()), 0o700);
        assert_eq!(mode(&state.gateway_dir()), 0o700);
        let left: Vec<_> = std::fs::read_dir(state.gateway_dir()).expect("it lists").collect();
        assert_eq!(left.len(), 1, "no temporary file is left behind: {left:?}");
    }

    #[test]
    fn creating_leaves_an_existing_file_alone() {
        let (_directory, state) = state();
        let path = state.token_file();
        assert!(create_private(&path, b"first").expect("it writes"));
        assert!(!create_private(&path, b"second").expect("it looks"));
        assert_eq!(std::fs::read(&path).expect("it reads"), b"first");
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn a_write_that_cannot_be_done_names_the_file() {
        let (directory, _) = state();
        let file = directory.path().join("file");
        std::fs::File::create(&file).expect("it creates");
        let error = write_private(&file.join("below"), b"x").expect_err("a file has no children");
        assert_eq!(error.to_string(), format!("cannot create the directory {}", file.display()));
    }

    #[test]
    fn a_token_is_made_once() {
        let (_directory, state) = state();
        assert!(read_token(&state).expect("it looks").is_none());
        let token = ensure_token(&state).expect("it makes one");
        assert_eq!(token.expose_secret().len(), 48);
        assert!(token.expose_secret().bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_eq!(ensure_token(&state).expect("it reads").expose_secret(), token.expose_secret());
        assert_eq!(mode(&state.token_file()), 0o600);
        let (_other_directory, other) = self::state();
        assert_ne!(ensure_token(&other).expect("it makes one").expose_secret(), token.expose_secret());
    }

    #[test]
    fn programs_that_start_at_once_agree_on_the_token() {
        let (_directory, state) = state();
        let tokens: Vec<String> = std::thread::scope(|scope| {
            let make = || ensure_token(&state).expect("it makes or reads one").expose_secret().to_owned();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
            threads.into_iter().map(|thread| thread.join().expect("it ends")).collect()
        });
        assert!(tokens.iter().all(|token| *token == tokens[0]));
    }

    #[test]
    fn an_empty_token_file_is_an_error_that_names_it() {
        let (_directory, state) = state();
        write_private(&state.token_file(), b"\n").expect("it writes");
        assert_eq!(
            ensure_token(&state).expect_err("there is no token").to_string(),
            format!(
                "{} is damaged: it holds no token; move it away and a new one is made at the next start",
                state.token_file().display()
            )
        );
    }

    #[test]
    fn a_record_counts_while_its_process_lives() {
        let (_directory, state) = state();
        assert_eq!(RuntimeRecord::read(&state), None);
        let living = record(std::process::id(), "a");
        living.write(&state).expect("it writes");
        assert_eq!(mode(&state.runtime_record_file()), 0o600);
        assert_eq!(RuntimeRecord::read(&state), Some(living));
        let before_us = RuntimeRecord { started_at_ms: 1, ..record(std::process::id(), "a") };
        before_us.write(&state).expect("it writes");
        assert_eq!(RuntimeRecord::read(&state), None, "the number belonged to another process then");
        record(dead_pid(), "a").write(&state).expect("it writes");
        assert_eq!(RuntimeRecord::read(&state), None);
        write_private(&state.runtime_record_file(), b"{").expect("it writes");
        assert_eq!(RuntimeRecord::read(&state), None);
    }

    #[test]
    fn a_gateway_removes_its_own_record_only() {
        let (_directory, state) = state();
        assert!(!record(1, "a").remove(&state).expect("there is none"));
        record(1, "a").write(&state).expect("it writes");
        assert!(!record(1, "b").remove(&state).expect("it looks"));
        assert!(state.runtime_record_file().exists());
        assert!(record(1, "a").remove(&state).expect("it removes"));
        assert!(!state.runtime_record_file().exists());
    }

    #[test]
    fn the_local_address_is_loopback_where_the_gateway_listens_there() {
        for (addresses, local) in [
            (vec!["127.0.0.1:1", "[::1]:1"], "127.0.0.1:18999"),
            (vec!["0.0.0.0:1"], "127.0.0.1:18999"),
            (vec!["[::]:1"], "[::1]:18999"),
            (vec!["192.168.1.5:1"], "192.168.1.5:18999"),
            (vec!["192.168.1.5:1", "[::1]:1"], "[::1]:18999"),
            (vec![], "127.0.0.1:18999"),
        ] {
            let mut record = record(1, "a");
            record.addresses = addresses.iter().map(|text| text.parse().expect("an address")).collect();
            assert_eq!(record.local_address().to_string(), local, "{addresses:?}");
        }
    }

    #[test]
    fn a_state_directory_has_one_gateway() {
        let (_directory, state) = state();
        assert_eq!(StateLock::holder(&state), None);
        let lock = StateLock::acquire(&state).expect("it is free");
        assert_eq!(StateLock::holder(&state), Some(std::process::id()));
        assert_eq!(mode(&state.lock_file()), 0o600);
        assert_eq!(
            StateLock::acquire(&state).expect_err("it is taken").to_string(),
            format!("another gateway already runs in the state directory {}", state.root().display())
        );
        let pid = std::process::id();
        record(pid, "a").write(&state).expect("it writes");
        assert_eq!(
            StateLock::acquire(&state).expect_err("it is taken").to_string(),
            format!(
                "another gateway (pid {pid}, port 18999) already runs in the state directory {}",
                state.root().display()
            )
        );
        drop(lock);
        assert_eq!(StateLock::holder(&state), None);
        StateLock::acquire(&state).expect("it is free again");
    }
}
