//! What was said in sessions: the messages of each, in memory, bounded.
//!
//! The run engine writes, chat clients read. A transcript belongs to the id of a session, not to its key: a session
//! that is forgotten and used again begins with none.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use openclaw_schema::{methods::agent::TokenUsage, types::TimestampMs};
use uuid::Uuid;

/// What a message costs beside its texts, roughly, in bytes.
const MESSAGE_OVERHEAD_BYTES: usize = 256;

/// The bounds of transcripts.
#[derive(Debug, Clone, Copy)]
pub struct TranscriptLimits {
    /// How many sessions have one. That of the session used least recently is dropped first.
    pub max_sessions: usize,
    /// How many messages one holds. The oldest is dropped first.
    pub max_messages: usize,
    /// How many bytes all of them take, about. The oldest messages of the session used least recently are dropped
    /// first; the newest message of all is kept whatever its size.
    pub max_bytes: usize,
}

impl Default for TranscriptLimits {
    fn default() -> Self {
        Self { max_sessions: 10_000, max_messages: 2000, max_bytes: 134_217_728 }
    }
}

/// One message.
#[derive(Debug)]
pub struct Message {
    /// Names it.
    pub id: Uuid,
    /// Its position in the session, counted from 1.
    pub seq: u64,
    /// When it was recorded.
    pub at: TimestampMs,
    /// What was recorded.
    pub entry: Entry,
}

/// What is recorded as a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The run that it belongs to.
    pub run_id: String,
    /// Who wrote it.
    pub author: Author,
    /// The text.
    pub text: String,
}

/// Who wrote a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Author {
    /// A caller.
    User,
    /// An agent.
    Assistant {
        /// The provider of its model.
        provider: String,
        /// The id of its model.
        model: String,
        /// What the answer consumed, where known.
        usage: Option<TokenUsage>,
        /// Why it stopped.
        stop_reason: String,
        /// What failed.
        error: Option<String>,
    },
}

/// Some messages of a session.
#[derive(Debug, Default)]
pub struct Page {
    /// The messages, oldest first.
    pub messages: Vec<Arc<Message>>,
    /// How many messages of the session are kept.
    pub total: usize,
    /// How many of the newest are to be left out to get the messages before these; absent when there are none.
    pub next_offset: Option<usize>,
}

/// The transcripts of a gateway. Cloning it is cheap; the clones are one.
///
/// Its lock is held for no longer than a look-up, and nothing else is locked meanwhile.
#[derive(Debug, Clone)]
pub struct Transcripts {
    limits: TranscriptLimits,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    by_session: HashMap<Uuid, Transcript>,
    /// Invariant: holds each key of `by_session` once, under its `turn`.
    by_turn: BTreeMap<u64, Uuid>,
    turns: u64,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Transcript {
    messages: VecDeque<Arc<Message>>,
    last_seq: u64,
    turn: u64,
}

impl Transcripts {
    /// No messages yet.
    #[must_use]
    pub fn new(limits: TranscriptLimits) -> Self {
        Self { limits, state: Arc::default() }
    }

    /// Adds a message to the end of a session.
    pub fn append(&self, session_id: Uuid, entry: Entry) {
        let mut state = self.state();
        let State { by_session, by_turn, turns, bytes } = &mut *state;
        *turns += 1;
        let transcript = by_session.entry(session_id).or_default();
        by_turn.remove(&mem::replace(&mut transcript.turn, *turns));
        by_turn.insert(*turns, session_id);
        transcript.last_seq += 1;
        *bytes += size(&entry);
        let (seq, at) = (transcript.last_seq, TimestampMs::now());
        transcript.messages.push_back(Arc::new(Message { id: Uuid::now_v7(), seq, at, entry }));
        if transcript.messages.len() > self.limits.max_messages.max(1)
            && let Some(oldest) = transcript.messages.pop_front()
        {
            *bytes -= size(&oldest.entry);
        }
        state.shrink(&self.limits);
    }

    /// Up to `limit` messages of a session, but for the `offset` newest ones; fewer when their texts take more than
    /// `max_bytes`, but at least one.
    #[must_use]
    pub fn page(&self, session_id: Uuid, offset: usize, limit: usize, max_bytes: usize) -> Page {
        let state = self.state();
        let Some(transcript) = state.by_session.get(&session_id) else { return Page::default() };
        let mut bytes = 0;
        let mut messages: Vec<Arc<Message>> = Vec::new();
        for message in transcript.messages.iter().rev().skip(offset).take(limit) {
            bytes += size(&message.entry);
            if bytes > max_bytes && !messages.is_empty() {
                break;
            }
            messages.push(Arc::clone(message));
        }
        messages.reverse();
        let total = transcript.messages.len();
        let seen = offset.saturating_add(messages.len());
        Page { messages, total, next_offset: (seen < total).then_some(seen) }
    }

    /// The first message by a user that is kept of a session.
    #[must_use]
    pub fn first_of_user(&self, session_id: Uuid) -> Option<Arc<Message>> {
        let state = self.state();
        let messages = &state.by_session.get(&session_id)?.messages;
        messages.iter().find(|message| message.entry.author == Author::User).map(Arc::clone)
    }

    /// The newest message of a session.
    #[must_use]
    pub fn last(&self, session_id: Uuid) -> Option<Arc<Message>> {
        self.state().by_session.get(&session_id)?.messages.back().map(Arc::clone)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Drops what is too much.
    fn shrink(&mut self, limits: &TranscriptLimits) {
        while self.by_session.len() > limits.max_sessions.max(1)
            && let Some((_, session_id)) = self.by_turn.pop_first()
            && let Some(dropped) = self.by_session.remove(&session_id)
        {
            self.bytes -= dropped.messages.iter().map(|message| size(&message.entry)).sum::<usize>();
        }
        while self.bytes > limits.max_bytes
            && let Some(oldest) = self.by_turn.first_entry()
            && let Some(transcript) = self.by_session.get_mut(oldest.get())
        {
            let is_newest_session = *oldest.key() == self.turns;
            if is_newest_session && transcript.messages.len() == 1 {
                break;
            }
            if let Some(message) = transcript.messages.pop_front() {
                self.bytes -= size(&message.entry);
            }
            if transcript.messages.is_empty() {
                self.by_session.remove(&oldest.remove());
            }
        }
    }
}

/// How many bytes a message takes, about.
fn size(entry: &Entry) -> usize {
    let Entry { run_id, author, text } = entry;
    let author = match author {
        Author::User => 0,
        Author::Assistant { provider, model, stop_reason, error, usage: _ } => {
            provider.len() + model.len() + stop_reason.len() + error.as_ref().map_or(0, String::len)
        }
    };
    run_id.len() + author + text.len() + MESSAGE_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Entry {
        Entry { run_id: "k".to_owned(), author: Author::User, text: text.to_owned() }
    }

    fn transcripts(max_sessions: usize, max_messages: usize, max_bytes: usize) -> Transcripts {
        Transcripts::new(TranscriptLimits { max_sessions, max_messages, max_bytes })
    }

    /// The texts of a page, joined.
    fn texts(page: &Page) -> String {
        page.messages.iter().map(|message| message.entry.text.as_str()).collect::<Vec<_>>().join(" ")
    }

    fn all(transcripts: &Transcripts, session_id: Uuid) -> String {
        texts(&transcripts.page(session_id, 0, 1000, usize::MAX))
    }

    #[test]
    fn pages_go_back_from_the_newest_message() {
        let (transcripts, id) = (transcripts(10, 10, 1_000_000), Uuid::now_v7());
        for text in ["a", "b", "c", "d", "e"] {
            transcripts.append(id, said(text));
        }
        for (offset, limit, shown, next) in [
            (0, 10, "a b c d e", None),
            (0, 2, "d e", Some(2)),
            (2, 2, "b c", Some(4)),
            (4, 2, "a", None),
            (5, 2, "", None),
            (usize::MAX, 2, "", None),
        ] {
            let page = transcripts.page(id, offset, limit, usize::MAX);
            assert_eq!((texts(&page).as_str(), page.next_offset, page.total), (shown, next, 5), "{offset}");
        }
        assert_eq!(transcripts.page(Uuid::now_v7(), 0, 10, usize::MAX).total, 0);
        assert_eq!(transcripts.first_of_user(id).map(|first| first.entry.text.clone()).as_deref(), Some("a"));
        assert_eq!(transcripts.last(id).map(|last| last.seq), Some(5));
    }

    #[test]
    fn a_page_of_long_messages_is_shorter_but_never_empty() {
        let (transcripts, id) = (transcripts(10, 10, 1_000_000), Uuid::now_v7());
        for text in ["a", "b", "c"] {
            transcripts.append(id, said(&text.repeat(1000)));
        }
        let page = transcripts.page(id, 0, 10, 3000);
        assert_eq!((page.messages.len(), page.next_offset), (2, Some(2)));
        assert_eq!(transcripts.page(id, 0, 10, 1).messages.len(), 1);
    }

    #[test]
    fn the_oldest_messages_of_a_session_are_dropped_and_numbers_go_on() {
        let (transcripts, id) = (transcripts(10, 2, 1_000_000), Uuid::now_v7());
        for text in ["a", "b", "c"] {
            transcripts.append(id, said(text));
        }
        assert_eq!(all(&transcripts, id), "b c");
        let numbers: Vec<u64> =
            transcripts.page(id, 0, 9, usize::MAX).messages.iter().map(|kept| kept.seq).collect();
        assert_eq!(numbers, [2, 3]);
    }

    #[test]
    fn the_session_used_least_recently_is_dropped_first() {
        let transcripts = transcripts(2, 10, 1_000_000);
        let [a, b, c] = [Uuid::now_v7(), Uuid::now_v7(), Uuid::now_v7()];
        for (id, text) in [(a, "a"), (b, "b"), (a, "aa"), (c, "c")] {
            transcripts.append(id, said(text));
        }
        assert_eq!([a, b, c].map(|id| all(&transcripts, id)), ["a aa", "", "c"]);
    }

    #[test]
    fn bytes_are_bounded_over_all_sessions_and_the_newest_message_stays() {
        let transcripts = transcripts(10, 10, 3 * (MESSAGE_OVERHEAD_BYTES + 2));
        let [a, b] = [Uuid::now_v7(), Uuid::now_v7()];
        for (id, text) in [(a, "1"), (a, "2"), (b, "3"), (b, "4")] {
            transcripts.append(id, said(text));
        }
        assert_eq!([a, b].map(|id| all(&transcripts, id)), ["2", "3 4"]);
        let huge = "x".repeat(10_000);
        transcripts.append(b, said(&huge));
        assert_eq!([a, b].map(|id| all(&transcripts, id)), ["", &huge]);
        let state = transcripts.state();
        assert_eq!((state.by_session.len(), state.by_turn.len()), (1, 1));
        assert_eq!(state.bytes, size(&said(&huge)));
    }
}
