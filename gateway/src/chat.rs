//! Conversations as chat clients see them: what was said in a session, and what goes on in it now.

use openclaw_schema::{
    events::{ChatContent, ChatEvent, ChatMessage, ChatState, EventName},
    methods::chat::{
        ChatHistoryParams, ChatHistoryResult, HistoryKind, HistoryMessage, InFlightRun, MessageMark,
        PendingInput, PendingInputs, PendingMessage, PendingState,
    },
    types::Bounded,
};

use crate::{
    events::EventBus,
    runs::{Runs, Waiting},
    sessions::{
        Session, SessionAddress,
        list::defaults,
        manage::{SessionError, Sessions},
    },
    transcripts::{Author, Message, Page},
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
///
/// # Errors
///
/// When it cannot be read.
pub async fn history(
    runs: &Runs,
    sessions: &Sessions,
    address: &SessionAddress,
    params: &ChatHistoryParams,
) -> Result<ChatHistoryResult, SessionError> {
    let max_chars = params.max_chars.map_or(DEFAULT_MAX_CHARS, |most| count(most.get()));
    // Looked at before the transcript: a run that ends in between is then in both, never in neither.
    let activity = runs.activity(&address.key, MAX_PENDING, PENDING_CHARS);
    let session = sessions.get(&address.key).await?;
    let limit = count(params.limit.map_or(DEFAULT_LIMIT, Bounded::get));
    let is_meant = |session: &&Session| {
        params.session_id.as_ref().is_none_or(|meant| meant.as_str() == session.id.to_string())
    };
    let mut kind = None;
    let mut page = Page::default();
    let mut has_more = false;
    if let Some(session) = session.as_ref().filter(is_meant) {
        let seen = params.cursor.as_ref().map(|cursor| position(cursor.as_str(), session));
        if let Some(Some(seen)) = seen {
            kind = Some(HistoryKind::Delta);
            // One more than asked for tells whether there are more.
            page.messages =
                sessions.messages_after(session, seen, limit.saturating_add(1), MAX_PAGE_BYTES).await?;
            let newest = sessions.page(session, 0, 1, 0).await?;
            page.total = newest.total;
            page.messages.truncate(limit);
            let last = page.messages.last().map_or(seen, |message| message.seq);
            has_more = last < newest.total as u64;
        } else {
            kind = seen.map(|_| HistoryKind::Reset);
            let offset = if kind.is_some() { 0 } else { count(params.offset.map_or(0, Bounded::get)) };
            page = sessions.page(session, offset, limit, MAX_PAGE_BYTES).await?;
            has_more = page.next_offset.is_some();
        }
    }
    let is_said = |run_id: &str, by_user: bool| {
        page.messages.iter().rev().any(|message| {
            (message.entry.author == Author::User) == by_user && message.entry.run_id == run_id
        })
    };
    let in_flight_run =
        activity.current.filter(|current| !is_said(&current.run_id, false)).map(|current| InFlightRun {
            run_id: current.run_id,
            text: current.text,
            started_at: Some(current.started_at),
            events: Vec::new(),
        });
    // One that starts at this moment is in the transcript already.
    let waiting: Vec<PendingInput> =
        activity.waiting.into_iter().filter(|waiting| !is_said(&waiting.run_id, true)).map(pending).collect();
    let started = waiting.len().abs_diff(activity.waiting_total.min(MAX_PENDING));
    let delta_cursor = session.as_ref().map(|session| {
        let seen = match (kind, page.messages.last()) {
            (Some(HistoryKind::Delta), Some(last)) => last.seq,
            _ => page.total as u64,
        };
        format!("{}:{seen}", session.revision)
    });
    Ok(ChatHistoryResult {
        session_key: params.session_key.as_str().to_owned(),
        session_id: session.as_ref().map(|session| session.id.to_string()),
        kind,
        pending_inputs: PendingInputs {
            items: waiting,
            total: activity.waiting_total.saturating_sub(started) as u64,
        },
        delta_cursor,
        next_offset: page.next_offset.map(|offset| offset as u64),
        has_more,
        total_messages: page.total as u64,
        defaults: defaults(runs.default_model(&address.agent_id).as_ref()),
        session_info: Sessions::row_or_unused(session.as_ref(), address),
        in_flight_run,
        messages: messages(&page, max_chars),
    })
}

/// How far a caller has read, by its cursor; `None` when the session began anew since, or the cursor is none.
fn position(cursor: &str, session: &Session) -> Option<u64> {
    let (revision, seen) = cursor.split_once(':')?;
    (revision == session.revision.to_string()).then(|| seen.parse().ok())?
}

/// Adds a message to a session as if its agent had said it, tells it as the end of a turn, and gives its id.
///
/// # Errors
///
/// When there is no such session, or it cannot be written.
pub async fn inject(
    sessions: &Sessions,
    events: &EventBus,
    address: &SessionAddress,
    text: String,
) -> Result<String, SessionError> {
    let (session, message) = sessions.inject(&address.key, text).await?;
    let event = ChatEvent {
        run_id: message.entry.run_id.clone(),
        session_key: session.key,
        agent_id: Some(session.agent_id),
        seq: 0,
        state: ChatState::Final,
        delta_text: None,
        message: Some(ChatMessage {
            role: "assistant".to_owned(),
            content: vec![ChatContent::Text { text: message.entry.text.clone() }],
            timestamp: message.at,
        }),
        stop_reason: Some("stop".to_owned()),
        error_message: None,
        error_kind: None,
    };
    events.publish(EventName::Chat, &event, Some(&message.entry.run_id));
    events.end_run(&message.entry.run_id);
    Ok(message.id.to_string())
}

/// The newest messages of a session, oldest first.
///
/// # Errors
///
/// When they cannot be read.
pub async fn newest(
    sessions: &Sessions,
    session: Option<&Session>,
    limit: Option<u64>,
) -> Result<Vec<HistoryMessage>, SessionError> {
    let limit = count(limit.unwrap_or(DEFAULT_LIMIT));
    let page = match session {
        Some(session) => sessions.page(session, 0, limit, MAX_PAGE_BYTES).await?,
        None => Page::default(),
    };
    Ok(messages(&page, DEFAULT_MAX_CHARS))
}

fn messages(page: &Page, max_chars: usize) -> Vec<HistoryMessage> {
    page.messages.iter().map(|message| told(message, max_chars)).collect()
}

/// One message, its text cut to `max_chars`.
pub(crate) fn told(message: &Message, max_chars: usize) -> HistoryMessage {
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
