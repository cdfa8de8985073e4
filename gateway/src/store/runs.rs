//! What is stored of runs: each from its acceptance to its one outcome.
//!
//! Invariant: a row gets an outcome once. Whatever would be the second one changes nothing.

use std::sync::Arc;

use openclaw_schema::{
    methods::{
        agent::{AgentWaitResult, TokenUsage},
        models::ThinkingLevel,
        sessions::FastMode,
    },
    types::TimestampMs,
};
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use serde::{Deserialize, Serialize};

use super::{
    SessionCounts, Store, StoreError, json, named, sessions, stored, time, to_json, transcripts, usage,
};
use crate::{
    runs::Origin,
    sessions::{LastRun, Session, SessionAddress, list::title_of},
    transcripts::{Entry, Message},
};

/// A run on its way to be accepted.
#[derive(Debug, Clone)]
pub(crate) struct NewRun {
    pub(crate) origin: Origin,
    pub(crate) run_id: String,
    pub(crate) address: SessionAddress,
    pub(crate) accepted_at: TimestampMs,
    pub(crate) request: StoredRequest,
}

/// What a run is asked, as far as it must be known to start it later.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StoredRequest {
    pub(crate) message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<String>,
    /// In milliseconds; zero for none.
    pub(crate) timeout_ms: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) thinking: Option<ThinkingLevel>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fast_mode: Option<FastMode>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) extra_system_prompt: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) label: Option<String>,
}

/// What became of an acceptance.
#[derive(Debug)]
pub(crate) enum Acceptance {
    /// The run is stored under this number.
    New { seq: i64, session: Box<Session>, is_new_session: bool },
    /// The key has been used already, and nothing was changed.
    Known(Box<StoredRun>),
}

/// A run that has been accepted before.
#[derive(Debug, Clone)]
pub(crate) struct StoredRun {
    pub(crate) run_id: String,
    pub(crate) address: SessionAddress,
    pub(crate) accepted_at: TimestampMs,
    pub(crate) started_at: Option<TimestampMs>,
    /// `None` while it has not ended.
    pub(crate) outcome: Option<AgentWaitResult>,
}

/// A run without an outcome, as it is found at a start of the gateway.
#[derive(Debug, Clone)]
pub(crate) struct OpenRun {
    pub(crate) seq: i64,
    pub(crate) origin: Origin,
    pub(crate) run: StoredRun,
    pub(crate) transcript: Option<i64>,
    /// What is asked, when it has not started.
    pub(crate) request: Option<StoredRequest>,
    /// What it has said, as far as that was kept.
    pub(crate) text: String,
}

/// What a run begins with.
#[derive(Debug)]
pub(crate) struct RunStart {
    pub(crate) session: Box<Session>,
    /// The message of the user, now part of the transcript.
    pub(crate) message: Arc<Message>,
}

/// What the end of a run made of its session and what it added there; `None` when the run had ended before.
pub(crate) type Ended = Option<(Option<Box<Session>>, Option<Arc<Message>>)>;

/// How a run ended.
#[derive(Debug, Clone)]
pub(crate) struct RunEndRecord {
    pub(crate) seq: i64,
    pub(crate) at: TimestampMs,
    /// One word for the table.
    pub(crate) status: &'static str,
    pub(crate) outcome: AgentWaitResult,
    /// Where the run has begun to write, and what it adds there.
    pub(crate) transcript: Option<i64>,
    pub(crate) entry: Option<Entry>,
    pub(crate) session_key: String,
    pub(crate) agent_id: String,
    pub(crate) last_run: LastRun,
    /// What it consumed, where known.
    pub(crate) usage: Option<TokenUsage>,
}

impl Store {
    /// Accepts a run, unless its key has been used since `keep_from`. Also brings its session into being.
    pub(crate) fn accept_run(
        &self,
        run: NewRun,
        keep_from: TimestampMs,
    ) -> impl Future<Output = Result<Acceptance, StoreError>> + Send + 'static {
        self.write(move |connection| {
            if let Some(known) = find(connection, run.origin, &run.run_id, keep_from)? {
                return Ok(Acceptance::Known(Box::new(known)));
            }
            // One that is forgotten makes room for the next of its name.
            connection
                .prepare_cached("DELETE FROM runs WHERE origin = ?1 AND run_id = ?2")?
                .execute(params![run.origin.name(), run.run_id])?;
            let (mut session, is_new_session) = sessions::ensure(connection, &run.address, run.accepted_at)?;
            // Of two agents in the session `global`, the one that was spoken to last.
            session.agent_id.clone_from(&run.address.agent_id);
            session.last_interaction_at = run.accepted_at;
            session.updated_at = run.accepted_at;
            sessions::save(connection, &session)?;
            connection
                .prepare_cached(
                    "INSERT INTO runs (origin, run_id, session_key, own_session, agent_id, status, accepted_at_ms, request)
                     VALUES (?1, ?2, ?3, ?4, ?5, 'accepted', ?6, ?7)",
                )?
                .execute(params![
                    run.origin.name(),
                    run.run_id,
                    run.address.key,
                    run.address.own,
                    run.address.agent_id,
                    stored(run.accepted_at),
                    to_json(&run.request),
                ])?;
            let seq = connection.last_insert_rowid();
            Ok(Acceptance::New { seq, session: Box::new(session), is_new_session })
        })
    }

    /// Notes that a run starts, and adds its message to the transcript. `None` when it has ended before.
    pub(crate) async fn start_run(
        &self,
        seq: i64,
        address: SessionAddress,
        now: TimestampMs,
        entry: Entry,
        last_run: LastRun,
    ) -> Result<Option<RunStart>, StoreError> {
        self.write(move |connection| {
            let (mut session, _) = sessions::ensure(connection, &address, now)?;
            let started = connection
                .prepare_cached(
                    "UPDATE runs SET status = 'running', started_at_ms = ?2, transcript = ?3, request = NULL
                     WHERE seq = ?1 AND ended_at_ms IS NULL",
                )?
                .execute(params![seq, stored(now), session.transcript])?;
            if started == 0 {
                return Ok(None);
            }
            if session.title.is_none() {
                session.title = Some(title_of(&entry.text));
            }
            let message = transcripts::append(connection, session.transcript, now, entry)?;
            session.updated_at = now;
            session.last_run = Some(last_run);
            sessions::save(connection, &session)?;
            Ok(Some(RunStart { session: Box::new(session), message }))
        })
        .await
    }

    /// Stores how a run ended, with all that follows from it: the answer in the transcript, the session's newest run,
    /// what was consumed. `None`, and nothing is changed, when it has an outcome already.
    pub(crate) fn end_run(
        &self,
        end: RunEndRecord,
    ) -> impl Future<Output = Result<Ended, StoreError>> + Send + 'static {
        self.write(move |connection| {
            let outcome = to_json(&end.outcome);
            let ended = connection
                .prepare_cached(
                    "UPDATE runs SET status = ?2, ended_at_ms = ?3, outcome = ?4, bytes = ?5, request = NULL
                     WHERE seq = ?1 AND ended_at_ms IS NULL",
                )?
                .execute(params![
                    end.seq,
                    end.status,
                    stored(end.at),
                    outcome,
                    i64::try_from(outcome.len()).unwrap_or(i64::MAX)
                ])?;
            if ended == 0 {
                return Ok(None);
            }
            connection.prepare_cached("DELETE FROM run_texts WHERE run = ?1")?.execute([end.seq])?;
            // The transcript of a session that was reset meanwhile is the session's no more, and is swept with all that
            // is in it.
            let message = match (end.transcript, end.entry) {
                (Some(transcript), Some(entry)) => {
                    Some(transcripts::append(connection, transcript, end.at, entry)?)
                }
                _ => None,
            };
            if let Some(consumed) = end.usage {
                usage::add(connection, end.at, &end.agent_id, &end.last_run.model, consumed)?;
            }
            let Some(mut session) = sessions::find(connection, &end.session_key)? else {
                return Ok(Some((None, message)));
            };
            let is_current = end.transcript.is_none_or(|transcript| transcript == session.transcript);
            // A run that never started says nothing about one that goes on.
            let goes_on = session.last_run.as_ref().is_some_and(|last| last.end.is_none());
            if is_current && (end.last_run.started_at.is_some() || !goes_on) {
                session.last_run = Some(end.last_run);
            }
            session.updated_at = end.at;
            sessions::save(connection, &session)?;
            Ok(Some((Some(Box::new(session)), message.filter(|_| is_current))))
        })
    }

    /// Keeps a piece of what a run says, which begins at byte `start` of its text. Nothing is kept of a run that has ended.
    pub(crate) async fn keep_text(&self, seq: i64, start: usize, piece: String) -> Result<(), StoreError> {
        self.write(move |connection| {
            connection
                .prepare_cached(
                    "INSERT OR REPLACE INTO run_texts (run, start, piece)
                     SELECT seq, ?2, ?3 FROM runs WHERE seq = ?1 AND ended_at_ms IS NULL",
                )?
                .execute(params![seq, i64::try_from(start).unwrap_or(i64::MAX), piece])
                .map(drop)
        })
        .await
    }

    /// The run of an id, unless it ended before `keep_from`: that of `agent` before that of `chat`.
    pub(crate) async fn run(
        &self,
        run_id: String,
        origin: Option<Origin>,
        keep_from: TimestampMs,
    ) -> Result<Option<StoredRun>, StoreError> {
        self.read(move |connection| {
            let origins: &[Origin] = match &origin {
                Some(origin) => std::slice::from_ref(origin),
                None => &[Origin::Agent, Origin::Chat],
            };
            for origin in origins {
                if let Some(found) = find(connection, *origin, &run_id, keep_from)? {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        })
        .await
    }

    /// Every run without an outcome, in the order of acceptance, and how many sessions there are.
    pub(crate) async fn recover(&self) -> Result<(Vec<OpenRun>, SessionCounts), StoreError> {
        self.write(|connection| {
            let mut open: Vec<OpenRun> = connection
                .prepare(&format!(
                    "SELECT {COLUMNS}, seq, origin, transcript, request FROM runs WHERE ended_at_ms IS NULL ORDER BY seq"
                ))?
                .query_map([], |row| {
                    let has_request = row.get_ref(11)? != rusqlite::types::ValueRef::Null;
                    Ok(OpenRun {
                        run: stored_run(row)?,
                        seq: row.get(8)?,
                        origin: named(row, 9, Origin::from_name)?,
                        transcript: row.get(10)?,
                        request: if has_request { Some(json(row, 11)?) } else { None },
                        text: String::new(),
                    })
                })?
                .collect::<rusqlite::Result<_>>()?;
            let mut pieces = connection.prepare("SELECT piece FROM run_texts WHERE run = ?1 ORDER BY start")?;
            for run in &mut open {
                run.text =
                    pieces.query_map([run.seq], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<_>>()?;
            }
            Ok((open, sessions::counts(connection)?))
        })
        .await
    }

    /// Forgets up to `limit` runs: those that ended before `before`, and the oldest of those that are more than
    /// `max_runs` or take more than `max_bytes`. Says how many.
    pub(crate) async fn sweep_runs(
        &self,
        before: TimestampMs,
        max_runs: usize,
        max_bytes: usize,
        limit: usize,
    ) -> Result<usize, StoreError> {
        self.write(move |connection| {
            let (count, bytes): (i64, i64) = connection
                .prepare_cached(
                    "SELECT count(*), coalesce(sum(bytes), 0) FROM runs WHERE ended_at_ms IS NOT NULL",
                )?
                .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            let size = |value: i64| usize::try_from(value).unwrap_or_default();
            let (mut count, mut bytes) = (size(count), size(bytes));
            let oldest: Vec<(i64, i64, i64)> = connection
                .prepare_cached(
                    "SELECT seq, ended_at_ms, bytes FROM runs WHERE ended_at_ms IS NOT NULL
                     ORDER BY ended_at_ms, seq LIMIT ?1",
                )?
                .query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
                    Ok((row.get(0)?, row.get(1)?, row.get(2)?))
                })?
                .collect::<rusqlite::Result<_>>()?;
            let mut forgotten = 0;
            for (seq, ended_at, taken) in oldest {
                let is_too_much = count > max_runs || (bytes > max_bytes && count > 1);
                if ended_at >= stored(before) && !is_too_much {
                    break;
                }
                connection.prepare_cached("DELETE FROM runs WHERE seq = ?1")?.execute([seq])?;
                count -= 1;
                bytes = bytes.saturating_sub(size(taken));
                forgotten += 1;
            }
            Ok(forgotten)
        })
        .await
    }
}

/// The columns that [`stored_run`] reads.
const COLUMNS: &str =
    "run_id, session_key, own_session, agent_id, accepted_at_ms, started_at_ms, outcome, ended_at_ms";

fn find(
    connection: &Connection,
    origin: Origin,
    run_id: &str,
    keep_from: TimestampMs,
) -> rusqlite::Result<Option<StoredRun>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM runs WHERE origin = ?1 AND run_id = ?2 AND (ended_at_ms IS NULL OR ended_at_ms > ?3)"
    );
    connection
        .prepare_cached(&sql)?
        .query_row(params![origin.name(), run_id, stored(keep_from)], stored_run)
        .optional()
}

fn stored_run(row: &Row<'_>) -> rusqlite::Result<StoredRun> {
    let has_outcome = row.get_ref(6)? != rusqlite::types::ValueRef::Null;
    Ok(StoredRun {
        run_id: row.get(0)?,
        address: SessionAddress { key: row.get(1)?, own: row.get(2)?, agent_id: row.get(3)? },
        accepted_at: time(row, 4)?,
        started_at: row.get::<_, Option<i64>>(5)?.map(super::read),
        outcome: if has_outcome { Some(json(row, 6)?) } else { None },
    })
}
