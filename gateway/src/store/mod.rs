//! The gateway's own database. All SQL is here, a module for each group of tables.
//!
//! One thread owns the connection that writes. Jobs that wait together are committed together, each within a savepoint
//! of its own: one that fails takes no other with it. A job is answered after its commit. With `synchronous = NORMAL`
//! a commit is in the file system when it is answered: the death of the process, SIGKILL included, loses nothing of it; a
//! power cut may lose the last moments, never the file.
//!
//! A second thread reads, on a connection of its own, so that no read waits for a write. Neither thread nor the file
//! exists before the first job, so that the start of a gateway pays nothing.

mod devices;
mod migrations;
mod runs;
mod sessions;
#[cfg(test)]
mod tests;
mod transcripts;

use std::{
    fs::{OpenOptions, Permissions},
    future::Future,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::Duration,
};

use openclaw_schema::types::TimestampMs;
use rusqlite::{Connection, OpenFlags, Row};
use serde::{Serialize, de::DeserializeOwned};
use tokio::sync::oneshot;

use self::migrations::MIGRATIONS;
use crate::state::create_private_dir;

pub(crate) use self::{
    devices::DeviceChange,
    runs::{Acceptance, Ended, NewRun, OpenRun, RunEndRecord, RunStart, StoredRequest, StoredRun},
    sessions::{ListFilter, SessionChange, SessionCounts},
};

/// How many jobs are committed together at most.
const MAX_GROUP: usize = 512;

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

/// An error with all that caused it, for the log.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

/// A job that writes: it gets the connection within a transaction, or why there is none, and gives what is to be done
/// after the commit.
type WriteJob = Box<dyn FnOnce(Result<&Connection, StoreError>) -> AfterCommit + Send>;
type AfterCommit = Box<dyn FnOnce(Result<(), StoreError>)>;

/// A job that reads: it gets the connection, or why there is none, and answers by itself.
type ReadJob = Box<dyn FnOnce(Result<&Connection, StoreError>) + Send>;

/// The database. Cloning it is cheap; the clones are one. Dropped, the threads do what was asked and end.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    writer: Mutex<Option<mpsc::Sender<WriteJob>>>,
    reader: Mutex<Option<mpsc::Sender<ReadJob>>>,
    /// Instead of threads, so that tests with a clock of their own wait for nothing outside of it.
    #[cfg(test)]
    inline: Option<Mutex<Connection>>,
}

impl Store {
    /// The database at `path`; nothing is opened yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        let inner = Inner {
            path,
            writer: Mutex::new(None),
            reader: Mutex::new(None),
            #[cfg(test)]
            inline: None,
        };
        Self { inner: Arc::new(inner) }
    }

    /// A database in memory that does each job at once, on the thread that asks.
    #[cfg(test)]
    pub(crate) fn inline() -> Self {
        let mut connection = Connection::open_in_memory().expect("memory opens");
        migrate(&mut connection, Path::new(":memory:")).expect("the steps can be done");
        let store = Self::new(PathBuf::new());
        let Ok(mut inner) = Arc::try_unwrap(store.inner) else { unreachable!("it is the only one") };
        inner.inline = Some(Mutex::new(connection));
        Self { inner: Arc::new(inner) }
    }

    /// Where it lies.
    pub(crate) fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Whether there is a database yet.
    pub(crate) fn exists(&self) -> bool {
        #[cfg(test)]
        if self.inner.inline.is_some() {
            return true;
        }
        self.inner.path.exists()
    }

    /// Writes: the job is in the queue when this returns, so that jobs are done in the order of the calls, whoever waits
    /// for which.
    fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> impl Future<Output = Result<T, StoreError>> + Send + 'static {
        let (reply, answer) = oneshot::channel();
        let job: WriteJob = Box::new(move |connection| {
            let done = connection.and_then(|connection| savepoint(connection, job));
            // Whoever asked may have gone; the job is done all the same.
            Box::new(move |committed| drop(reply.send(done.and_then(|value| committed.map(|()| value)))))
        });
        let sent = self.send_write(job);
        async move {
            sent?;
            answer.await.map_err(|_| StoreError::Ended)?
        }
    }

    /// Reads, all of it from one state of the database.
    async fn read<T: Send + 'static>(
        &self,
        job: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job: ReadJob = Box::new(move |connection| {
            let done = connection.and_then(|connection| {
                let transaction = connection.unchecked_transaction()?;
                let value = job(&transaction)?;
                transaction.commit()?;
                Ok(value)
            });
            let _ = reply.send(done);
        });
        self.send_read(job).await?;
        answer.await.map_err(|_| StoreError::Ended)?
    }

    fn send_write(&self, job: WriteJob) -> Result<(), StoreError> {
        #[cfg(test)]
        if let Some(connection) = &self.inner.inline {
            let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            job(Ok(&connection))(Ok(()));
            return Ok(());
        }
        let mut writer = self.inner.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let jobs = match &*writer {
            Some(jobs) => jobs,
            None => {
                let (sender, receiver) = mpsc::channel();
                let path = self.inner.path.clone();
                self.spawn("store", move || work(&path, &receiver))?;
                writer.insert(sender)
            }
        };
        jobs.send(job).map_err(|_| StoreError::Ended)
    }

    async fn send_read(&self, job: ReadJob) -> Result<(), StoreError> {
        #[cfg(test)]
        if let Some(connection) = &self.inner.inline {
            let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            job(Ok(&connection));
            return Ok(());
        }
        if self.reader().is_none() {
            // The writer makes the file and its layout; reading begins afterwards.
            self.write(|_| Ok(())).await?;
            let mut reader = self.inner.reader.lock().unwrap_or_else(PoisonError::into_inner);
            if reader.is_none() {
                let (sender, receiver) = mpsc::channel();
                let path = self.inner.path.clone();
                self.spawn("store-read", move || serve_reads(&path, &receiver))?;
                *reader = Some(sender);
            }
        }
        self.reader().ok_or(StoreError::Ended)?.send(job).map_err(|_| StoreError::Ended)
    }

    fn reader(&self) -> Option<mpsc::Sender<ReadJob>> {
        self.inner.reader.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn spawn(&self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
        let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(work);
        let path = || self.inner.path.clone();
        spawned.map(drop).map_err(|source| StoreError::Open { path: path(), source: Arc::new(source) })
    }
}

/// Does a job so that its failure leaves nothing behind.
fn savepoint<T>(
    connection: &Connection,
    job: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> Result<T, StoreError> {
    let run = |sql: &str| connection.prepare_cached(sql)?.execute([]).map(drop);
    run("SAVEPOINT job")?;
    match job(connection) {
        Ok(value) => {
            run("RELEASE job")?;
            Ok(value)
        }
        Err(error) => {
            run("ROLLBACK TO job").and_then(|()| run("RELEASE job"))?;
            Err(error.into())
        }
    }
}

/// The thread that writes: opens the file at the first job, and tries again at the next one when that fails.
fn work(path: &Path, jobs: &mpsc::Receiver<WriteJob>) {
    let mut connection = None;
    while let Ok(job) = jobs.recv() {
        if connection.is_none() {
            match open(path) {
                Ok(opened) => connection = Some(opened),
                Err(error) => {
                    job(Err(error.clone()))(Err(error));
                    continue;
                }
            }
        }
        if let Some(connection) = &connection {
            commit_together(connection, job, jobs);
        }
    }
}

/// Does a job and those that wait behind it, in one transaction.
fn commit_together(connection: &Connection, first: WriteJob, jobs: &mpsc::Receiver<WriteJob>) {
    let run =
        |sql: &str| -> Result<(), StoreError> { Ok(connection.prepare_cached(sql)?.execute([]).map(drop)?) };
    if let Err(error) = run("BEGIN IMMEDIATE") {
        first(Err(error.clone()))(Err(error));
        return;
    }
    let mut done = vec![first(Ok(connection))];
    while done.len() < MAX_GROUP
        && let Ok(job) = jobs.try_recv()
    {
        done.push(job(Ok(connection)));
    }
    let committed = run("COMMIT");
    if committed.is_err() {
        // SQLite may have done so by itself.
        let _ = run("ROLLBACK");
    }
    for after_commit in done {
        after_commit(committed.clone());
    }
}

/// The thread that reads.
fn serve_reads(path: &Path, jobs: &mpsc::Receiver<ReadJob>) {
    let mut connection = None;
    while let Ok(job) = jobs.recv() {
        if connection.is_none() {
            match open_to_read(path) {
                Ok(opened) => connection = Some(opened),
                Err(error) => {
                    job(Err(error));
                    continue;
                }
            }
        }
        if let Some(connection) = &connection {
            job(Ok(connection));
        }
    }
}

fn open_to_read(path: &Path) -> Result<Connection, StoreError> {
    let connection = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    Ok(connection)
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

/// A value in a column of JSON text.
fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?;
    serde_json::from_str(text.as_str()?).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error.into())
    })
}

/// The text of such a column.
fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("what is stored serialises")
}
