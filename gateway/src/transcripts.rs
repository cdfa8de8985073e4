//! What was said in sessions: messages, and the context that a run is given of them.
//!
//! Messages lie in the gateway's database and are numbered from 1 without a hole. A transcript belongs to one session
//! until it is reset or deleted.

use std::sync::Arc;

use openclaw_schema::{methods::agent::TokenUsage, types::TimestampMs};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::backend::{Turn, TurnAuthor};

/// What a message costs beside its texts, roughly, in bytes.
const MESSAGE_OVERHEAD_BYTES: usize = 256;

/// How many bytes of UTF-8 count as a token. English has about four in one, other scripts fewer: an estimate on the
/// safe side, as no tokenizer serves every model.
pub const BYTES_PER_TOKEN: usize = 3;

/// The context window of a model that does not say its own, in tokens.
const UNKNOWN_WINDOW: u64 = 8192;

/// How much of the window is left for the answer at most, in tokens. A quarter of it where that is less.
const MAX_RESERVE: u64 = 8192;

/// One message.
#[derive(Debug, Clone)]
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

impl Entry {
    /// How many bytes it takes, about.
    #[must_use]
    pub fn size(&self) -> usize {
        let author = match &self.author {
            Author::User => 0,
            Author::Assistant { provider, model, stop_reason, error, usage: _ } => {
                provider.len() + model.len() + stop_reason.len() + error.as_ref().map_or(0, String::len)
            }
        };
        self.run_id.len() + author + self.text.len() + MESSAGE_OVERHEAD_BYTES
    }
}

/// Who wrote a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "lowercase", rename_all_fields = "camelCase")]
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
        #[serde(default, skip_serializing_if = "Option::is_none")]
        usage: Option<TokenUsage>,
        /// Why it stopped.
        stop_reason: String,
        /// What failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
}

/// Some messages of a session.
#[derive(Debug, Default)]
pub struct Page {
    /// The messages, oldest first.
    pub messages: Vec<Arc<Message>>,
    /// How many messages the session has.
    pub total: usize,
    /// How many of the newest are to be left out to get the messages before these; absent when there are none.
    pub next_offset: Option<usize>,
}

/// What was said before a message, as far as there is room for it.
#[derive(Debug, Default)]
pub struct Past {
    /// What stands for everything older than a point.
    pub summary: Option<String>,
    /// The newest messages behind that point, oldest first.
    pub messages: Vec<Arc<Message>>,
}

impl Past {
    /// The past as a model is told it: authors take turns, the caller has the first word, the summary heads it all.
    #[must_use]
    pub fn into_turns(self) -> Vec<Turn> {
        let mut turns: Vec<Turn> = Vec::new();
        let summary = self.summary.map(|summary| Turn {
            author: TurnAuthor::User,
            text: format!("Summary of the conversation so far:\n\n{summary}"),
        });
        let messages = self.messages.iter().filter(|message| !message.entry.text.trim().is_empty());
        let said = messages.map(|message| Turn {
            author: match message.entry.author {
                Author::User => TurnAuthor::User,
                Author::Assistant { .. } => TurnAuthor::Assistant,
            },
            text: message.entry.text.clone(),
        });
        for turn in summary.into_iter().chain(said) {
            match turns.last_mut() {
                Some(last) if last.author == turn.author => {
                    last.text.push_str("\n\n");
                    last.text.push_str(&turn.text);
                }
                // What an agent answered to a message that is not in the context says nothing.
                None if turn.author == TurnAuthor::Assistant => {}
                _ => turns.push(turn),
            }
        }
        turns
    }
}

/// How many tokens a text has, about.
#[must_use]
pub fn estimated_tokens(text: &str) -> usize {
    text.len().div_ceil(BYTES_PER_TOKEN)
}

/// How many bytes of earlier messages fit into a model's window, beside a prompt of so many bytes and the answer.
#[must_use]
pub fn room_for_past(window: Option<u64>, prompt_bytes: usize) -> usize {
    let window = window.unwrap_or(UNKNOWN_WINDOW);
    let room = window - (window / 4).min(MAX_RESERVE);
    let room = usize::try_from(room).unwrap_or(usize::MAX).saturating_mul(BYTES_PER_TOKEN);
    room.saturating_sub(prompt_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(author: Author, text: &str) -> Arc<Message> {
        let entry = Entry { run_id: "k".to_owned(), author, text: text.to_owned() };
        Arc::new(Message { id: Uuid::now_v7(), seq: 1, at: TimestampMs(1), entry })
    }

    fn assistant(text: &str) -> Arc<Message> {
        let author = Author::Assistant {
            provider: "p".to_owned(),
            model: "m".to_owned(),
            usage: None,
            stop_reason: "stop".to_owned(),
            error: None,
        };
        message(author, text)
    }

    #[test]
    fn a_model_is_told_turns_that_alternate_and_begin_with_the_caller() {
        let user = |text| message(Author::User, text);
        for (summary, messages, expected) in [
            (None, vec![], vec![]),
            (None, vec![user("a"), assistant("b")], vec!["User a", "Assistant b"]),
            (None, vec![assistant("b"), user("c")], vec!["User c"]),
            // An answer that failed before its first word.
            (None, vec![user("a"), assistant(" "), user("c")], vec!["User a\n\nc"]),
            (
                Some("s".to_owned()),
                vec![assistant("b"), user("c")],
                vec!["User Summary of the conversation so far:\n\ns", "Assistant b", "User c"],
            ),
        ] {
            let turns = Past { summary, messages }.into_turns();
            let told: Vec<String> =
                turns.iter().map(|turn| format!("{:?} {}", turn.author, turn.text)).collect();
            assert_eq!(told, expected);
        }
    }

    #[test]
    fn a_window_leaves_room_for_the_prompt_and_the_answer() {
        for (window, prompt, bytes) in [
            (Some(1000), 0, 2250),
            (Some(1000), 250, 2000),
            (Some(1000), 3000, 0),
            (Some(200_000), 0, (200_000 - 8192) * 3),
            (None, 0, (8192 - 2048) * 3),
        ] {
            assert_eq!(room_for_past(window, prompt), bytes, "{window:?} {prompt}");
        }
        assert_eq!(estimated_tokens("Grüße"), 3);
    }
}
