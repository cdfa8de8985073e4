//! Conversations as chat clients see them: what was said in a session, and what goes on in it now.

use openclaw_schema::{
    events::ChatContent,
    methods::chat::{
        ChatHistoryParams, ChatHistoryResult, HistoryMessage, InFlightRun, MessageMark, PendingInput,
        PendingInputs, PendingMessage, PendingState,
    },
    types::Bounded,
};
use uuid::Uuid;

use crate::{
    runs::{Current, Runs, Waiting},
    sessions::{
        Session, SessionAddress,
        list::{defaults, row, unused_row},
    },
    transcripts::{Author, Message, Page, Transcripts},
};

/// How many messages are answered when the caller does not say.
const DEFAULT_LIMIT: u64 = 200;
/// The longest text of a message when the caller does not say, in characters: the most that a caller may ask for.
const DEFAULT_MAX_CHARS: usize = 500_000;
/// How many bytes of texts one page holds, about: well below the largest message on the wire, whatever JSON makes of
/// the texts.
const MAX_PAGE_BYTES: usize = 4_194_304;
/// How many waiting messages are shown. The published shape of the protocol allows 20.
const MAX_PENDING: usize = 20;
/// How much of a waiting message is shown, in characters.
const PENDING_CHARS: usize = 2000;

/// What was said in a session, and what goes on in it now.
#[must_use]
pub fn history(
    runs: &Runs,
    transcripts: &Transcripts,
    address: &SessionAddress,
    params: &ChatHistoryParams,
) -> ChatHistoryResult {
    let max_chars = params.max_chars.map_or(DEFAULT_MAX_CHARS, |most| count(most.get()));
    // Looked at before the transcript: a run that ends in between is then in both, never in neither.
    let activity = runs.activity(&address.key, MAX_PENDING, PENDING_CHARS);
    let session_id = activity.session.as_ref().map(|session| session.id);
    let is_meant =
        |id: &Uuid| params.session_id.as_ref().is_none_or(|meant| meant.as_str() == id.to_string());
    let page = session_id.filter(is_meant).map_or_else(Page::default, |id| {
        let (offset, limit) =
            (params.offset.map_or(0, Bounded::get), params.limit.map_or(DEFAULT_LIMIT, Bounded::get));
        transcripts.page(id, count(offset), count(limit), MAX_PAGE_BYTES)
    });
    let is_answered = |current: &Current| {
        session_id
            .and_then(|id| transcripts.last(id))
            .is_some_and(|last| last.entry.author != Author::User && last.entry.run_id == current.run_id)
    };
    let in_flight_run = activity.current.filter(|current| !is_answered(current)).map(|current| InFlightRun {
        run_id: current.run_id,
        text: current.text,
        started_at: Some(current.started_at),
        events: Vec::new(),
    });
    ChatHistoryResult {
        session_key: params.session_key.as_str().to_owned(),
        session_id: session_id.map(|id| id.to_string()),
        pending_inputs: PendingInputs {
            items: activity.waiting.into_iter().map(pending).collect(),
            total: activity.waiting_total as u64,
        },
        next_offset: page.next_offset.map(|offset| offset as u64),
        has_more: page.next_offset.is_some(),
        total_messages: page.total as u64,
        defaults: defaults(runs.default_model(&address.agent_id).as_ref()),
        session_info: activity.session.as_ref().map_or_else(|| unused_row(address), row),
        in_flight_run,
        messages: messages(&page, max_chars),
    }
}

/// The newest messages of a session, oldest first.
#[must_use]
pub fn newest(
    transcripts: &Transcripts,
    session: Option<&Session>,
    limit: Option<u64>,
) -> Vec<HistoryMessage> {
    let limit = count(limit.unwrap_or(DEFAULT_LIMIT));
    let page =
        session.map_or_else(Page::default, |session| transcripts.page(session.id, 0, limit, MAX_PAGE_BYTES));
    messages(&page, DEFAULT_MAX_CHARS)
}

fn messages(page: &Page, max_chars: usize) -> Vec<HistoryMessage> {
    page.messages.iter().map(|message| told(message, max_chars)).collect()
}

/// One message, its text cut to `max_chars`.
fn told(message: &Message, max_chars: usize) -> HistoryMessage {
    let entry = &message.entry;
    let cut = entry.text.char_indices().nth(max_chars).map(|(end, _)| end);
    let text = entry.text[..cut.unwrap_or(entry.text.len())].to_owned();
    let plain = HistoryMessage {
        role: "user".to_owned(),
        content: if text.is_empty() { Vec::new() } else { vec![ChatContent::Text { text }] },
        timestamp: message.at,
        idempotency_key: None,
        provider: None,
        model: None,
        usage: None,
        stop_reason: None,
        error_message: None,
        mark: MessageMark {
            id: message.id.to_string(),
            seq: message.seq,
            run_id: Some(entry.run_id.clone()),
            record_timestamp_ms: Some(message.at),
            truncated: cut.is_some(),
        },
    };
    match &entry.author {
        Author::User => HistoryMessage { idempotency_key: Some(format!("{}:user", entry.run_id)), ..plain },
        Author::Assistant { provider, model, usage, stop_reason, error } => HistoryMessage {
            role: "assistant".to_owned(),
            provider: Some(provider.clone()),
            model: Some(model.clone()),
            usage: *usage,
            stop_reason: Some(stop_reason.clone()),
            error_message: error.clone(),
            ..plain
        },
    }
}

fn pending(waiting: Waiting) -> PendingInput {
    PendingInput {
        id: waiting.run_id.clone(),
        run_id: waiting.run_id,
        message: PendingMessage {
            role: "user".to_owned(),
            content: waiting.message,
            timestamp: waiting.accepted_at,
        },
        accepted_at: waiting.accepted_at,
        state: PendingState::Queued,
    }
}

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
