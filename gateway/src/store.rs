//! The gateway's own database: devices, their tokens, and requests to be paired. All SQL is here.
//!
//! One thread owns the connection and does what it is asked, one job after the other; each job is one transaction.
//! Neither the thread nor the file exists before the first job, so that the start of a gateway pays nothing.

use std::{
    fs::{OpenOptions, Permissions},
    io,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::Duration,
};

use openclaw_schema::types::TimestampMs;
use rusqlite::{Connection, Row, Transaction, params};
use tokio::sync::oneshot;

use crate::{
    devices::record::{ApprovedVia, Device, Metadata, PairingReason, PairingRequest, Role, Token},
    state::create_private_dir,
};

/// The steps from an empty file to the layout of today. `PRAGMA user_version` counts those that were done; a step
/// that was released is never changed.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE devices (
        device_id TEXT PRIMARY KEY,
        public_key TEXT NOT NULL,
        client_id TEXT NOT NULL,
        client_mode TEXT NOT NULL,
        platform TEXT,
        device_family TEXT,
        display_name TEXT,
        label TEXT,
        role TEXT NOT NULL,
        remote_ip TEXT,
        approved_via TEXT NOT NULL,
        created_at_ms INTEGER NOT NULL,
        approved_at_ms INTEGER NOT NULL,
        last_seen_at_ms INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE device_tokens (
        device_id TEXT NOT NULL REFERENCES devices ON DELETE CASCADE,
        role TEXT NOT NULL,
        token TEXT NOT NULL,
        scopes TEXT NOT NULL,
        created_at_ms INTEGER NOT NULL,
        rotated_at_ms INTEGER,
        PRIMARY KEY (device_id, role)
    ) STRICT;
    CREATE TABLE pairing_requests (
        request_id TEXT PRIMARY KEY,
        device_id TEXT NOT NULL UNIQUE,
        public_key TEXT NOT NULL,
        client_id TEXT NOT NULL,
        client_mode TEXT NOT NULL,
        platform TEXT,
        device_family TEXT,
        display_name TEXT,
        role TEXT NOT NULL,
        scopes TEXT NOT NULL,
        reason TEXT NOT NULL,
        remote_ip TEXT NOT NULL,
        is_repair INTEGER NOT NULL,
        created_at_ms INTEGER NOT NULL
    ) STRICT;
"];

/// For how long a job waits for another process that looks into the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// What went wrong with the database. The text is for the log.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum StoreError {
    /// The file cannot be made or opened.
    #[error("cannot open {}", path.display())]
    Open {
        path: PathBuf,
        #[source]
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// SQLite refused, or the file holds what this gateway does not write.
    #[error("the database failed")]
    Sqlite(#[source] Arc<rusqlite::Error>),
    /// The file was written by a later version.
    #[error("{} was written by a later version of the gateway (layout {found}; this one knows {known})", path.display())]
    TooNew { path: PathBuf, found: usize, known: usize },
    /// The thread is gone.
    #[error("the thread of the database has ended")]
    Ended,
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(Arc::new(error))
    }
}

/// A job: it gets the connection, or why there is none, and answers by itself.
type Job = Box<dyn FnOnce(Result<&mut Connection, StoreError>) + Send>;

/// The database. Dropped, the thread does what was asked and ends.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
}

impl Store {
    /// The database at `path`; nothing is opened yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, jobs: Mutex::new(None) }
    }

    /// Every device, and every request that waits.
    pub(crate) async fn load_devices(&self) -> Result<(Vec<Device>, Vec<PairingRequest>), StoreError> {
        self.run(|transaction| Ok((devices(transaction)?, requests(transaction)?))).await
    }

    /// Writes all changes, or none.
    pub(crate) async fn save(&self, changes: Vec<DeviceChange>) -> Result<(), StoreError> {
        self.run(move |transaction| changes.iter().try_for_each(|change| change.apply(transaction))).await
    }

    /// Runs a job in a transaction of its own.
    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let result = connection.and_then(|connection| {
                let transaction = connection.transaction()?;
                let value = job(&transaction)?;
                transaction.commit()?;
                Ok(value)
            });
            // Whoever asked may have gone; the job is done all the same.
            let _ = reply.send(result);
        });
        self.jobs()?.send(job).map_err(|_| StoreError::Ended)?;
        answer.await.map_err(|_| StoreError::Ended)?
    }

    /// The way to the thread, which is started here when there is none.
    fn jobs(&self) -> Result<mpsc::Sender<Job>, StoreError> {
        let mut jobs = self.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(jobs) = &*jobs {
            return Ok(jobs.clone());
        }
        let (sender, receiver) = mpsc::channel();
        let path = self.path.clone();
        std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || work(&path, &receiver))
            .map_err(|source| self.not_open(source))?;
        *jobs = Some(sender.clone());
        Ok(sender)
    }

    fn not_open(&self, source: io::Error) -> StoreError {
        StoreError::Open { path: self.path.clone(), source: Arc::new(source) }
    }
}

/// The thread: opens the file at the first job, and tries again at the next one when that fails.
fn work(path: &Path, jobs: &mpsc::Receiver<Job>) {
    let mut connection = None;
    while let Ok(job) = jobs.recv() {
        if connection.is_none() {
            match open(path) {
                Ok(opened) => connection = Some(opened),
                Err(error) => {
                    job(Err(error));
                    continue;
                }
            }
        }
        if let Some(connection) = &mut connection {
            job(Ok(connection));
        }
    }
}

fn open(path: &Path) -> Result<Connection, StoreError> {
    let failed =
        |source: Arc<dyn std::error::Error + Send + Sync>| StoreError::Open { path: path.into(), source };
    if let Some(directory) = path.parent() {
        create_private_dir(directory).map_err(|error| failed(Arc::new(error)))?;
    }
    // SQLite would make the file for everyone to read, and gives its helper files the mode of the file.
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .and_then(|file| file.set_permissions(Permissions::from_mode(0o600)))
        .map_err(|error| failed(Arc::new(error)))?;
    let mut connection = Connection::open(path).map_err(|error| failed(Arc::new(error)))?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // NORMAL: a power cut may lose the last jobs, never the file. Nobody waits for the disk at every connect.
    connection
        .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;")?;
    migrate(&mut connection, path)?;
    Ok(connection)
}

fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    let transaction = connection.transaction()?;
    let done: u32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let done = done as usize;
    if done > MIGRATIONS.len() {
        return Err(StoreError::TooNew { path: path.into(), found: done, known: MIGRATIONS.len() });
    }
    for step in &MIGRATIONS[done..] {
        transaction.execute_batch(step)?;
    }
    if done < MIGRATIONS.len() {
        transaction.pragma_update(None, "user_version", MIGRATIONS.len() as u32)?;
    }
    Ok(transaction.commit()?)
}

/// One change of what is stored about devices.
#[derive(Debug, Clone)]
pub(crate) enum DeviceChange {
    /// The device is as given, with these tokens and no others.
    Put(Device),
    /// The device was seen.
    Seen { device_id: String, at: TimestampMs, remote_ip: String },
    /// The device is gone, with its tokens.
    Remove(String),
    /// The device asks for this, and for nothing else.
    PutRequest(PairingRequest),
    /// The request is gone.
    RemoveRequest(String),
}

impl DeviceChange {
    fn apply(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        match self {
            Self::Put(device) => put(transaction, device),
            Self::Seen { device_id, at, remote_ip } => transaction
                .prepare_cached(
                    "UPDATE devices SET last_seen_at_ms = ?2, remote_ip = ?3 WHERE device_id = ?1",
                )?
                .execute(params![device_id, stored(*at), remote_ip])
                .map(drop),
            Self::Remove(device_id) => {
                transaction.execute("DELETE FROM devices WHERE device_id = ?1", [device_id]).map(drop)
            }
            Self::PutRequest(request) => put_request(transaction, request),
            Self::RemoveRequest(request_id) => transaction
                .execute("DELETE FROM pairing_requests WHERE request_id = ?1", [request_id])
                .map(drop),
        }
    }
}

fn put(transaction: &Transaction<'_>, device: &Device) -> rusqlite::Result<()> {
    // Replacing the row takes the old tokens with it.
    transaction.execute("DELETE FROM devices WHERE device_id = ?1", [&device.device_id])?;
    let metadata = &device.metadata;
    transaction.execute(
        "INSERT INTO devices VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        params![
            device.device_id,
            device.public_key,
            metadata.client_id,
            metadata.client_mode,
            metadata.platform,
            metadata.device_family,
            metadata.display_name,
            device.label,
            device.role.name(),
            device.remote_ip,
            device.approved_via.name(),
            stored(device.created_at),
            stored(device.approved_at),
            stored(device.last_seen_at),
        ],
    )?;
    for token in &device.tokens {
        transaction.execute(
            "INSERT INTO device_tokens VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                device.device_id,
                token.role.name(),
                token.value,
                list(&token.scopes),
                stored(token.created_at),
                token.rotated_at.map(stored),
            ],
        )?;
    }
    Ok(())
}

fn put_request(transaction: &Transaction<'_>, request: &PairingRequest) -> rusqlite::Result<()> {
    transaction.execute("DELETE FROM pairing_requests WHERE device_id = ?1", [&request.device_id])?;
    let metadata = &request.metadata;
    transaction.execute(
        "INSERT INTO pairing_requests VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        params![
            request.request_id,
            request.device_id,
            request.public_key,
            metadata.client_id,
            metadata.client_mode,
            metadata.platform,
            metadata.device_family,
            metadata.display_name,
            request.role.name(),
            list(&request.scopes),
            request.reason.name(),
            request.remote_ip,
            request.is_repair,
            stored(request.created_at),
        ],
    )?;
    Ok(())
}

fn devices(transaction: &Transaction<'_>) -> rusqlite::Result<Vec<Device>> {
    let mut devices = transaction
        .prepare(
            "SELECT device_id, public_key, client_id, client_mode, platform, device_family, display_name, label,
                    role, remote_ip, approved_via, created_at_ms, approved_at_ms, last_seen_at_ms
             FROM devices",
        )?
        .query_map([], |row| {
            Ok(Device {
                device_id: row.get(0)?,
                public_key: row.get(1)?,
                metadata: metadata(row)?,
                label: row.get(7)?,
                role: named(row, 8, Role::from_name)?,
                remote_ip: row.get(9)?,
                approved_via: named(row, 10, ApprovedVia::from_name)?,
                created_at: time(row, 11)?,
                approved_at: time(row, 12)?,
                last_seen_at: time(row, 13)?,
                tokens: Vec::new(),
            })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut tokens = transaction.prepare(
        "SELECT role, token, scopes, created_at_ms, rotated_at_ms FROM device_tokens
         WHERE device_id = ?1 ORDER BY created_at_ms, role",
    )?;
    for device in &mut devices {
        device.tokens = tokens
            .query_map([&device.device_id], |row| {
                Ok(Token {
                    role: named(row, 0, Role::from_name)?,
                    value: row.get(1)?,
                    scopes: named(row, 2, |text| serde_json::from_str(text).ok())?,
                    created_at: time(row, 3)?,
                    rotated_at: row.get::<_, Option<i64>>(4)?.map(read),
                })
            })?
            .collect::<rusqlite::Result<_>>()?;
    }
    Ok(devices)
}

fn requests(transaction: &Transaction<'_>) -> rusqlite::Result<Vec<PairingRequest>> {
    transaction
        .prepare(
            "SELECT device_id, public_key, client_id, client_mode, platform, device_family, display_name,
                    request_id, role, scopes, reason, remote_ip, is_repair, created_at_ms
             FROM pairing_requests",
        )?
        .query_map([], |row| {
            Ok(PairingRequest {
                device_id: row.get(0)?,
                public_key: row.get(1)?,
                metadata: metadata(row)?,
                request_id: row.get(7)?,
                role: named(row, 8, Role::from_name)?,
                scopes: named(row, 9, |text| serde_json::from_str(text).ok())?,
                reason: named(row, 10, PairingReason::from_name)?,
                remote_ip: row.get(11)?,
                is_repair: row.get(12)?,
                created_at: time(row, 13)?,
            })
        })?
        .collect()
}

/// The metadata, which both queries select as columns 2 to 6.
fn metadata(row: &Row<'_>) -> rusqlite::Result<Metadata> {
    Ok(Metadata {
        client_id: row.get(2)?,
        client_mode: row.get(3)?,
        platform: row.get(4)?,
        device_family: row.get(5)?,
        display_name: row.get(6)?,
    })
}

/// A text that stands for something; a text that stands for nothing is a damaged row.
fn named<T>(row: &Row<'_>, column: usize, of: impl FnOnce(&str) -> Option<T>) -> rusqlite::Result<T> {
    let text: String = row.get(column)?;
    of(&text).ok_or_else(|| {
        let problem = format!("`{text}` is no known value");
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, problem.into())
    })
}

fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<TimestampMs> {
    row.get(column).map(read)
}

fn read(millis: i64) -> TimestampMs {
    TimestampMs(u64::try_from(millis).unwrap_or_default())
}

fn stored(time: TimestampMs) -> i64 {
    i64::try_from(time.0).unwrap_or(i64::MAX)
}

fn list(texts: &[String]) -> String {
    serde_json::to_string(texts).expect("texts serialise")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_file_is_private_and_made_at_the_first_job() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("gateway/gateway.sqlite");
        let store = Store::new(path.clone());
        assert!(!path.exists());
        store.load_devices().await.expect("it opens");
        for name in ["gateway.sqlite", "gateway.sqlite-wal", "gateway.sqlite-shm"] {
            let mode = path.with_file_name(name).metadata().expect("it exists").permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{name}");
        }
    }

    #[tokio::test]
    async fn a_file_of_a_later_version_is_left_alone() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("gateway.sqlite");
        Connection::open(&path)
            .expect("it opens")
            .pragma_update(None, "user_version", 99)
            .expect("it writes");
        let error = Store::new(path).load_devices().await.expect_err("it is too new");
        assert!(matches!(error, StoreError::TooNew { found: 99, .. }), "{error}");
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_fails_every_job_and_is_kept() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("gateway.sqlite");
        std::fs::write(&path, "this is a text of some length, and no database").expect("it writes");
        let store = Store::new(path.clone());
        for _ in 0..2 {
            store.load_devices().await.expect_err("it is no database");
        }
        assert!(std::fs::read_to_string(&path).expect("it reads").starts_with("this is a text"));
    }
}
