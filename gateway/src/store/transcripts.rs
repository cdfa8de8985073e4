//! What is stored of transcripts: messages, numbered from 1 without a hole, and what stands for the older ones in the
//! context of a run.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, Row, params};
use uuid::Uuid;

use super::{Store, StoreError, json, stored, time, to_json};
use crate::transcripts::{Entry, Message, Page, Past};

/// The columns that [`message`] reads.
const COLUMNS: &str = "uid, seq, at_ms, run_id, author, text";

impl Store {
    /// Up to `limit` messages, but for the `offset` newest ones; fewer when their texts take more than `max_bytes`, but
    /// at least one.
    pub(crate) async fn page(
        &self,
        transcript: i64,
        offset: usize,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Page, StoreError> {
        self.read(move |connection| {
            let total = count(connection, transcript)?;
            let newest = total.saturating_sub(i64::try_from(offset).unwrap_or(i64::MAX));
            let mut messages = newest_first(connection, transcript, newest, limit, max_bytes)?;
            messages.reverse();
            let total = usize::try_from(total).unwrap_or_default();
            let seen = offset.saturating_add(messages.len());
            Ok(Page { messages, total, next_offset: (seen < total).then_some(seen) })
        })
        .await
    }

    /// Up to `limit` messages behind that of number `seq`, oldest first; fewer when their texts take more than
    /// `max_bytes`, but at least one.
    pub(crate) async fn messages_after(
        &self,
        transcript: i64,
        seq: u64,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<Arc<Message>>, StoreError> {
        self.read(move |connection| {
            let sql = format!(
                "SELECT {COLUMNS} FROM messages WHERE transcript = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let seq = i64::try_from(seq).unwrap_or(i64::MAX);
            let rows = statement.query_map(params![transcript, seq, bound(limit)], message)?;
            within(rows, max_bytes)
        })
        .await
    }

    /// The newest message of each transcript that has one.
    pub(crate) async fn newest_messages(
        &self,
        transcripts: Vec<i64>,
    ) -> Result<Vec<Option<Arc<Message>>>, StoreError> {
        self.read(move |connection| {
            transcripts.iter().map(|transcript| last(connection, *transcript)).collect()
        })
        .await
    }

    /// What was said before message `before`: as much of the newest as `max_bytes` hold, and the summary of what is
    /// older where there is one.
    pub(crate) async fn past(
        &self,
        transcript: i64,
        before: u64,
        max_bytes: usize,
    ) -> Result<Past, StoreError> {
        self.read(move |connection| {
            let (summary, until): (Option<String>, i64) = connection
                .prepare_cached("SELECT summary, summary_until FROM transcripts WHERE id = ?1")?
                .query_row([transcript], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?
                .unwrap_or_default();
            let room = max_bytes.saturating_sub(summary.as_ref().map_or(0, String::len));
            let sql = format!(
                "SELECT {COLUMNS} FROM messages WHERE transcript = ?1 AND seq < ?2 AND seq > ?3 ORDER BY seq DESC"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let before = i64::try_from(before).unwrap_or(i64::MAX);
            let mut bytes = 0;
            let mut messages = Vec::new();
            for row in statement.query_map(params![transcript, before, until], message)? {
                let message = row?;
                bytes += message.entry.text.len();
                if bytes > room {
                    break;
                }
                messages.push(Arc::new(message));
            }
            messages.reverse();
            Ok(Past { summary, messages })
        })
        .await
    }

    /// Lets `summary` stand for the messages up to number `until`.
    pub(crate) async fn summarise(
        &self,
        transcript: i64,
        until: u64,
        summary: String,
    ) -> Result<(), StoreError> {
        self.write(move |connection| {
            let until = i64::try_from(until).unwrap_or(i64::MAX);
            connection
                .prepare_cached("UPDATE transcripts SET summary = ?2, summary_until = ?3 WHERE id = ?1")?
                .execute(params![transcript, summary, until])
                .map(drop)
        })
        .await
    }

    /// Deletes up to `limit` messages of transcripts that no session has any more, and says how many it deleted.
    pub(crate) async fn sweep_messages(&self, limit: usize) -> Result<usize, StoreError> {
        self.write(move |connection| {
            let Some(transcript) = connection
                .prepare_cached("SELECT id FROM transcripts WHERE dropped = 1 LIMIT 1")?
                .query_row([], |row| row.get::<_, i64>(0))
                .optional()?
            else {
                return Ok(0);
            };
            let deleted = connection
                .prepare_cached(
                    "DELETE FROM messages WHERE id IN
                     (SELECT id FROM messages WHERE transcript = ?1 ORDER BY seq LIMIT ?2)",
                )?
                .execute(params![transcript, bound(limit)])?;
            if deleted < limit {
                connection.prepare_cached("DELETE FROM transcripts WHERE id = ?1")?.execute([transcript])?;
            }
            Ok(deleted.max(1))
        })
        .await
    }
}

/// A transcript without messages.
pub(super) fn begin(connection: &Connection) -> rusqlite::Result<i64> {
    connection.prepare_cached("INSERT INTO transcripts DEFAULT VALUES")?.execute([])?;
    Ok(connection.last_insert_rowid())
}

/// Marks a transcript as no session's any more.
pub(super) fn drop_transcript(connection: &Connection, transcript: i64) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE transcripts SET dropped = 1 WHERE id = ?1")?
        .execute([transcript])
        .map(drop)
}

/// Adds a message to the end.
pub(super) fn append(
    connection: &Connection,
    transcript: i64,
    at: openclaw_schema::types::TimestampMs,
    entry: Entry,
) -> rusqlite::Result<Arc<Message>> {
    let seq: i64 = connection
        .prepare_cached("UPDATE transcripts SET messages = messages + 1 WHERE id = ?1 RETURNING messages")?
        .query_row([transcript], |row| row.get(0))?;
    let id = Uuid::now_v7();
    connection
        .prepare_cached(
            "INSERT INTO messages (transcript, seq, uid, at_ms, run_id, author, text)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            transcript,
            seq,
            id.to_string(),
            stored(at),
            entry.run_id,
            to_json(&entry.author),
            entry.text
        ])?;
    Ok(Arc::new(Message { id, seq: seq.unsigned_abs(), at, entry }))
}

fn count(connection: &Connection, transcript: i64) -> rusqlite::Result<i64> {
    let count = connection
        .prepare_cached("SELECT messages FROM transcripts WHERE id = ?1")?
        .query_row([transcript], |row| row.get(0))
        .optional()?;
    Ok(count.unwrap_or_default())
}

fn last(connection: &Connection, transcript: i64) -> rusqlite::Result<Option<Arc<Message>>> {
    Ok(newest_first(connection, transcript, i64::MAX, 1, usize::MAX)?.pop())
}

/// Messages from number `newest` backwards.
fn newest_first(
    connection: &Connection,
    transcript: i64,
    newest: i64,
    limit: usize,
    max_bytes: usize,
) -> rusqlite::Result<Vec<Arc<Message>>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM messages WHERE transcript = ?1 AND seq <= ?2 ORDER BY seq DESC LIMIT ?3"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params![transcript, newest, bound(limit)], message)?;
    within(rows, max_bytes)
}

/// As many rows as `max_bytes` hold, but at least one.
fn within(
    rows: impl Iterator<Item = rusqlite::Result<Message>>,
    max_bytes: usize,
) -> rusqlite::Result<Vec<Arc<Message>>> {
    let mut bytes = 0;
    let mut messages = Vec::new();
    for row in rows {
        let message = row?;
        bytes += message.entry.size();
        if bytes > max_bytes && !messages.is_empty() {
            break;
        }
        messages.push(Arc::new(message));
    }
    Ok(messages)
}

fn message(row: &Row<'_>) -> rusqlite::Result<Message> {
    Ok(Message {
        id: super::named(row, 0, |text| text.parse().ok())?,
        seq: row.get::<_, i64>(1)?.unsigned_abs(),
        at: time(row, 2)?,
        entry: Entry { run_id: row.get(3)?, author: json(row, 4)?, text: row.get(5)? },
    })
}

fn bound(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
