//! What is stored of sessions.

use std::collections::HashMap;

use openclaw_schema::types::TimestampMs;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use uuid::Uuid;

use super::{Store, StoreError, json, named, stored, time, to_json, transcripts};
use crate::sessions::{Session, SessionAddress};

/// The columns that [`session`] reads.
const COLUMNS: &str = "key, id, agent_id, revision, transcript, created_at_ms, updated_at_ms,
    last_interaction_at_ms, title, label, archived, settings, last_run";

/// Which sessions are listed; what is absent does not narrow the list.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListFilter {
    pub(crate) agent_id: Option<String>,
    pub(crate) since: Option<TimestampMs>,
    /// In lower case.
    pub(crate) search: Option<String>,
    pub(crate) label: Option<String>,
    pub(crate) archived: Option<bool>,
    /// A key that is left out.
    pub(crate) without: Option<&'static str>,
    /// Whether the time of the last message decides about the order, and not that of the last change.
    pub(crate) by_interaction: bool,
    pub(crate) limit: u64,
    pub(crate) offset: u64,
}

/// What became of a change.
#[derive(Debug)]
pub(crate) enum SessionChange<E> {
    /// It was made; `is_new` says whether the session was made with it.
    Made { session: Box<Session>, is_new: bool },
    /// There is no such session.
    Missing,
    /// The caller's own check refused it.
    Refused(E),
    /// Another session has this label.
    LabelTaken(String),
}

/// How many sessions each agent has.
pub(crate) type SessionCounts = HashMap<String, u64>;

impl Store {
    /// The session of a key in full.
    pub(crate) async fn session(&self, key: String) -> Result<Option<Session>, StoreError> {
        self.read(move |connection| find(connection, &key)).await
    }

    /// The session of an id.
    pub(crate) async fn session_of_id(&self, id: String) -> Result<Option<Session>, StoreError> {
        self.read(move |connection| {
            let sql = format!("SELECT {COLUMNS} FROM sessions WHERE id = ?1");
            connection.prepare_cached(&sql)?.query_row([id], session).optional()
        })
        .await
    }

    /// The sessions that fit, newest first, and how many there are in all.
    pub(crate) async fn list_sessions(&self, filter: ListFilter) -> Result<(Vec<Session>, u64), StoreError> {
        self.read(move |connection| {
            const FITS: &str = "(?1 IS NULL OR agent_id = ?1) AND (?2 IS NULL OR updated_at_ms >= ?2)
                AND (?3 IS NULL OR instr(search, ?3) > 0) AND (?4 IS NULL OR label = ?4)
                AND (?5 IS NULL OR archived = ?5) AND (?6 IS NULL OR key <> ?6)";
            let fits = params![
                filter.agent_id,
                filter.since.map(stored),
                filter.search,
                filter.label,
                filter.archived,
                filter.without,
            ];
            let total: i64 = connection
                .prepare_cached(&format!("SELECT count(*) FROM sessions WHERE {FITS}"))?
                .query_row(fits, |row| row.get(0))?;
            let order = if filter.by_interaction { "last_interaction_at_ms" } else { "updated_at_ms" };
            let sql = format!(
                "SELECT {COLUMNS} FROM sessions WHERE {FITS}
                 ORDER BY {order} DESC, last_interaction_at_ms DESC, rowid DESC LIMIT ?7 OFFSET ?8"
            );
            let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
            let sessions = connection
                .prepare_cached(&sql)?
                .query_map(
                    params![
                        filter.agent_id,
                        filter.since.map(stored),
                        filter.search,
                        filter.label,
                        filter.archived,
                        filter.without,
                        number(filter.limit),
                        number(filter.offset),
                    ],
                    session,
                )?
                .collect::<rusqlite::Result<_>>()?;
            Ok((sessions, total.unsigned_abs()))
        })
        .await
    }

    /// Changes a session, which is made first when there is none and `make` says so.
    pub(crate) async fn change_session<E: Send + 'static>(
        &self,
        address: SessionAddress,
        now: TimestampMs,
        make: bool,
        change: impl FnOnce(&mut Session) -> Result<(), E> + Send + 'static,
    ) -> Result<SessionChange<E>, StoreError> {
        self.write(move |connection| {
            let found = find(connection, &address.key)?;
            let is_new = found.is_none();
            // A new session is looked at before it is stored: a change that is refused makes none.
            let mut session = match found {
                Some(session) => session,
                None if make => Session::new(&address, now),
                None => return Ok(SessionChange::Missing),
            };
            if let Err(refused) = change(&mut session) {
                return Ok(SessionChange::Refused(refused));
            }
            if let Some(label) = &session.label
                && connection
                    .prepare_cached("SELECT 1 FROM sessions WHERE label = ?1 AND key <> ?2")?
                    .exists(params![label, session.key])?
            {
                return Ok(SessionChange::LabelTaken(label.clone()));
            }
            session.updated_at = now;
            if is_new {
                insert(connection, &mut session, address.own)?
            } else {
                save(connection, &session)?
            }
            Ok(SessionChange::Made { session: Box::new(session), is_new })
        })
        .await
    }

    /// Lets a session begin anew: the same id, no messages, another revision. It is made when there is none.
    pub(crate) async fn reset_session<E: Send + 'static>(
        &self,
        address: SessionAddress,
        now: TimestampMs,
        check: impl FnOnce(&Session) -> Result<(), E> + Send + 'static,
    ) -> Result<SessionChange<E>, StoreError> {
        self.write(move |connection| {
            let (mut session, is_new) = ensure(connection, &address, now)?;
            if let Err(refused) = check(&session) {
                if is_new {
                    remove(connection, &session)?;
                }
                return Ok(SessionChange::Refused(refused));
            }
            if !is_new {
                transcripts::drop_transcript(connection, session.transcript)?;
                session.transcript = transcripts::begin(connection)?;
                session.revision = Uuid::now_v7();
                session.title = None;
                session.last_run = None;
                session.updated_at = now;
                save(connection, &session)?;
            }
            Ok(SessionChange::Made { session: Box::new(session), is_new })
        })
        .await
    }

    /// Deletes a session, and gives what it was.
    pub(crate) async fn delete_session<E: Send + 'static>(
        &self,
        key: String,
        check: impl FnOnce(&Session) -> Result<(), E> + Send + 'static,
    ) -> Result<SessionChange<E>, StoreError> {
        self.write(move |connection| {
            let Some(session) = find(connection, &key)? else { return Ok(SessionChange::Missing) };
            if let Err(refused) = check(&session) {
                return Ok(SessionChange::Refused(refused));
            }
            remove(connection, &session)?;
            Ok(SessionChange::Made { session: Box::new(session), is_new: false })
        })
        .await
    }

    /// Adds a message that belongs to no run. `None` when there is no such session.
    pub(crate) async fn inject(
        &self,
        key: String,
        now: TimestampMs,
        entry: crate::transcripts::Entry,
    ) -> Result<Option<(Session, std::sync::Arc<crate::transcripts::Message>)>, StoreError> {
        self.write(move |connection| {
            let Some(mut session) = find(connection, &key)? else { return Ok(None) };
            let message = transcripts::append(connection, session.transcript, now, entry)?;
            session.updated_at = now;
            save(connection, &session)?;
            Ok(Some((session, message)))
        })
        .await
    }

    /// Deletes up to `limit` sessions that were made for one run alone and have not changed since `before`, and says
    /// of which agents they were.
    pub(crate) async fn sweep_sessions(
        &self,
        before: TimestampMs,
        limit: usize,
    ) -> Result<Vec<String>, StoreError> {
        self.write(move |connection| {
            let sql = format!(
                "SELECT {COLUMNS} FROM sessions WHERE updated_at_ms < ?1 AND own = 1 AND label IS NULL AND archived = 0
                   AND NOT EXISTS (SELECT 1 FROM runs WHERE session_key = sessions.key AND ended_at_ms IS NULL)
                 ORDER BY updated_at_ms LIMIT ?2"
            );
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let old: Vec<Session> = connection
                .prepare_cached(&sql)?
                .query_map(params![stored(before), limit], session)?
                .collect::<rusqlite::Result<_>>()?;
            old.into_iter().map(|session| remove(connection, &session).map(|()| session.agent_id)).collect()
        })
        .await
    }
}

/// How many sessions each agent has.
pub(super) fn counts(connection: &Connection) -> rusqlite::Result<SessionCounts> {
    connection
        .prepare_cached("SELECT agent_id, count(*) FROM sessions GROUP BY agent_id")?
        .query_map([], |row| Ok((row.get(0)?, row.get::<_, i64>(1)?.unsigned_abs())))?
        .collect()
}

pub(super) fn find(connection: &Connection, key: &str) -> rusqlite::Result<Option<Session>> {
    let sql = format!("SELECT {COLUMNS} FROM sessions WHERE key = ?1");
    connection.prepare_cached(&sql)?.query_row([key], session).optional()
}

/// The session of an address, and whether it was made for it.
pub(super) fn ensure(
    connection: &Connection,
    address: &SessionAddress,
    now: TimestampMs,
) -> rusqlite::Result<(Session, bool)> {
    if let Some(session) = find(connection, &address.key)? {
        return Ok((session, false));
    }
    let mut session = Session::new(address, now);
    insert(connection, &mut session, address.own)?;
    Ok((session, true))
}

fn insert(connection: &Connection, session: &mut Session, own: bool) -> rusqlite::Result<()> {
    session.transcript = transcripts::begin(connection)?;
    connection
        .prepare_cached(
            "INSERT INTO sessions (key, id, agent_id, revision, transcript, created_at_ms, updated_at_ms,
                 last_interaction_at_ms, title, label, archived, settings, last_run, search, own)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)",
        )?
        .execute(params![
            session.key,
            session.id.to_string(),
            session.agent_id,
            session.revision.to_string(),
            session.transcript,
            stored(session.created_at),
            stored(session.updated_at),
            stored(session.last_interaction_at),
            session.title,
            session.label,
            session.archived,
            to_json(&session.settings),
            session.last_run.as_ref().map(to_json),
            search_text(session),
            own,
        ])
        .map(drop)
}

pub(super) fn save(connection: &Connection, session: &Session) -> rusqlite::Result<()> {
    connection
        .prepare_cached(
            "UPDATE sessions SET agent_id = ?2, revision = ?3, transcript = ?4, updated_at_ms = ?5,
                 last_interaction_at_ms = ?6, title = ?7, label = ?8, archived = ?9, settings = ?10, last_run = ?11,
                 search = ?12
             WHERE key = ?1",
        )?
        .execute(params![
            session.key,
            session.agent_id,
            session.revision.to_string(),
            session.transcript,
            stored(session.updated_at),
            stored(session.last_interaction_at),
            session.title,
            session.label,
            session.archived,
            to_json(&session.settings),
            session.last_run.as_ref().map(to_json),
            search_text(session),
        ])
        .map(drop)
}

fn remove(connection: &Connection, session: &Session) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM sessions WHERE key = ?1")?.execute([&session.key])?;
    transcripts::drop_transcript(connection, session.transcript)
}

fn search_text(session: &Session) -> String {
    let [title, label] = [&session.title, &session.label].map(|text| text.as_deref().unwrap_or_default());
    format!("{}\n{}\n{title}\n{label}", session.key, session.id).to_lowercase()
}

fn session(row: &Row<'_>) -> rusqlite::Result<Session> {
    let has_run = row.get_ref(12)? != rusqlite::types::ValueRef::Null;
    Ok(Session {
        key: row.get(0)?,
        id: named(row, 1, |text| text.parse().ok())?,
        agent_id: row.get(2)?,
        revision: named(row, 3, |text| text.parse().ok())?,
        transcript: row.get(4)?,
        created_at: time(row, 5)?,
        updated_at: time(row, 6)?,
        last_interaction_at: time(row, 7)?,
        title: row.get(8)?,
        label: row.get(9)?,
        archived: row.get(10)?,
        settings: json(row, 11)?,
        last_run: if has_run { Some(json(row, 12)?) } else { None },
        active: Vec::new(),
    })
}
