//! Sessions as callers see them: one row each, filtered, sorted, page by page.

use std::cmp::Reverse;

use openclaw_schema::{
    methods::{
        models::ModelInfo,
        sessions::{
            SessionKind, SessionModelDefaults, SessionRow, SessionStatus, SessionsListParams,
            SessionsListResult, SessionsSort,
        },
    },
    types::{Bounded, TimestampMs},
};

use super::{Session, SessionAddress};
use crate::transcripts::{Message, Transcripts};

/// How many sessions are listed when the caller does not say. wire.md section 10: 100.
const DEFAULT_LIMIT: u64 = 100;
/// The longest derived title, in characters: what fits on one line of a list.
const TITLE_CHARS: usize = 60;
/// The longest preview of a message, in characters.
const PREVIEW_CHARS: usize = 120;
/// The key of the session that belongs to no agent.
const GLOBAL: &str = "global";

/// Lists `sessions`. `agent_id` is the caller's, as the settings write it.
#[must_use]
pub fn list(
    params: &SessionsListParams,
    agent_id: Option<&str>,
    sessions: Vec<Session>,
    transcripts: &Transcripts,
    default_model: Option<&ModelInfo>,
) -> SessionsListResult {
    let now = TimestampMs::now();
    let since = params
        .active_minutes
        .map(|minutes| TimestampMs(now.0.saturating_sub(minutes.get().saturating_mul(60_000))));
    let search = params.search.as_ref().map(|text| text.as_str().trim().to_lowercase());
    let search = search.filter(|text| !text.is_empty());
    let is_wanted = |session: &Session| {
        params.archived != Some(true)
            && (params.include_global == Some(true) || session.key != GLOBAL)
            && agent_id.is_none_or(|id| session.agent_id == id)
            && since.is_none_or(|since| session.updated_at >= since)
            && search.as_deref().is_none_or(|search| is_found(session, search, transcripts))
    };
    let mut wanted: Vec<Session> = sessions.into_iter().filter(is_wanted).collect();
    // Stable, so that of equal times the session used last comes first.
    match params.sort_by.unwrap_or_default() {
        SessionsSort::UpdatedAt => wanted.sort_by_key(|session| Reverse(session.updated_at)),
        SessionsSort::LastInteractionAt => wanted.sort_by_key(|session| Reverse(session.last_interaction_at)),
    }
    let limit = params.limit.map_or(DEFAULT_LIMIT, Bounded::get);
    let offset = params.offset.map_or(0, Bounded::get);
    let total = wanted.len() as u64;
    let rows: Vec<SessionRow> = wanted
        .iter()
        .skip(usize::try_from(offset).unwrap_or(usize::MAX))
        .take(usize::try_from(limit).unwrap_or(usize::MAX))
        .map(|session| SessionRow {
            derived_title: params
                .include_derived_titles
                .unwrap_or(false)
                .then(|| title(session, transcripts))
                .flatten(),
            last_message_preview: params
                .include_last_message
                .unwrap_or(false)
                .then(|| transcripts.last(session.id).map(|message| beginning(&message, PREVIEW_CHARS)))
                .flatten(),
            ..row(session)
        })
        .collect();
    let next_offset = offset + rows.len() as u64;
    let has_more = next_offset < total && !rows.is_empty();
    SessionsListResult {
        ts: now,
        count: rows.len() as u64,
        total_count: total,
        limit_applied: limit,
        next_offset: has_more.then_some(next_offset),
        has_more,
        defaults: defaults(default_model),
        sessions: rows,
    }
}

/// What sessions use that choose nothing themselves.
#[must_use]
pub fn defaults(model: Option<&ModelInfo>) -> SessionModelDefaults {
    SessionModelDefaults {
        model_provider: model.map(|model| model.provider.clone()),
        model: model.map(|model| model.id.clone()),
        context_tokens: model.and_then(|model| model.context_window),
    }
}

/// One session.
#[must_use]
pub fn row(session: &Session) -> SessionRow {
    let last = session.last_run.as_ref();
    let end = last.and_then(|run| run.end.as_ref());
    let usage = end.and_then(|end| end.usage);
    let status = match (last, end) {
        (Some(_), None) => Some(SessionStatus::Running),
        _ if !session.active.is_empty() => Some(SessionStatus::Queued),
        (_, end) => end.map(|end| end.status),
    };
    let started_at = last.and_then(|run| run.started_at);
    SessionRow {
        session_id: Some(session.id.to_string()),
        updated_at: Some(session.updated_at),
        created_at: Some(session.created_at),
        last_interaction_at: Some(session.last_interaction_at),
        status,
        started_at,
        ended_at: end.map(|end| end.at),
        runtime_ms: end.and_then(|end| Some(end.at.0.saturating_sub(started_at?.0))),
        has_active_run: !session.active.is_empty(),
        active_run_ids: session.active.clone(),
        last_run_id: last.map(|run| run.run_id.clone()),
        last_run_error: end.and_then(|end| end.error.clone()),
        input_tokens: usage.map(|usage| usage.input),
        output_tokens: usage.map(|usage| usage.output),
        total_tokens: usage.map(|usage| usage.total),
        context_tokens: last.and_then(|run| run.model.context_window),
        model_provider: last.map(|run| run.model.provider.clone()),
        model: last.map(|run| run.model.id.clone()),
        ..bare(&session.key, &session.agent_id)
    }
}

/// A session that nobody has used yet.
#[must_use]
pub fn unused_row(address: &SessionAddress) -> SessionRow {
    bare(&address.key, &address.agent_id)
}

/// The name of a session for people: its key without the agent.
#[must_use]
pub fn display_name(key: &str) -> String {
    let name = key.strip_prefix("agent:").and_then(|rest| rest.split_once(':')).map(|(_, name)| name);
    name.unwrap_or(key).to_owned()
}

/// What the names of a session say.
fn bare(key: &str, agent_id: &str) -> SessionRow {
    SessionRow {
        key: key.to_owned(),
        kind: if key == GLOBAL { SessionKind::Global } else { SessionKind::Direct },
        session_id: None,
        agent_id: Some(agent_id.to_owned()),
        display_name: Some(display_name(key)),
        derived_title: None,
        last_message_preview: None,
        updated_at: None,
        created_at: None,
        last_interaction_at: None,
        status: None,
        started_at: None,
        ended_at: None,
        runtime_ms: None,
        has_active_run: false,
        active_run_ids: Vec::new(),
        last_run_id: None,
        last_run_error: None,
        input_tokens: None,
        output_tokens: None,
        total_tokens: None,
        context_tokens: None,
        model_provider: None,
        model: None,
    }
}

/// Whether a session is among those that `search`, in lower case, asks for.
fn is_found(session: &Session, search: &str, transcripts: &Transcripts) -> bool {
    session.key.contains(search)
        || session.id.to_string().contains(search)
        || title(session, transcripts).is_some_and(|title| title.to_lowercase().contains(search))
}

fn title(session: &Session, transcripts: &Transcripts) -> Option<String> {
    transcripts.first_of_user(session.id).map(|message| beginning(&message, TITLE_CHARS))
}

/// The beginning of a message on one line.
fn beginning(message: &Message, max_chars: usize) -> String {
    let mut line = String::new();
    // Whitespace alone can make the text longer than its line: no more words are looked at than can be shown.
    for word in message.entry.text.split_whitespace().take(max_chars) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word.chars().take(max_chars + 1));
        if let Some((end, _)) = line.char_indices().nth(max_chars) {
            line.truncate(end);
            line.push('…');
            break;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{
        sessions::{LastRun, RunEnd, Sessions},
        transcripts::{Author, Entry, TranscriptLimits},
    };

    /// Three sessions, `b` of another agent used last, and `global`.
    fn bench() -> (Sessions, Transcripts) {
        let (mut sessions, transcripts) = (Sessions::new(10), Transcripts::new(TranscriptLimits::default()));
        for (key, agent, text) in [
            ("global", "main", "everywhere"),
            ("agent:main:a", "main", "Fix\n the  LAMP in the hall, please, and tell me when it is done"),
            ("agent:main:explicit:k7", "main", "hello"),
            ("agent:work:b", "Work", "plan"),
        ] {
            let address = SessionAddress { key: key.to_owned(), agent_id: agent.to_owned(), own: false };
            let id = sessions.accept(&address, "k");
            let entry = Entry { run_id: "k".to_owned(), author: Author::User, text: text.to_owned() };
            transcripts.append(id, entry);
        }
        (sessions, transcripts)
    }

    fn listed(params: serde_json::Value, agent_id: Option<&str>) -> SessionsListResult {
        let (sessions, transcripts) = bench();
        let params = serde_json::from_value(params).expect("the params are good");
        list(&params, agent_id, sessions.iter().cloned().collect(), &transcripts, None)
    }

    fn names(result: &SessionsListResult) -> Vec<&str> {
        result.sessions.iter().filter_map(|row| row.display_name.as_deref()).collect()
    }

    #[test]
    fn filters_narrow_the_list() {
        for (params, agent_id, expected) in [
            (json!({}), None, vec!["b", "explicit:k7", "a"]),
            (json!({ "includeGlobal": true }), None, vec!["b", "explicit:k7", "a", "global"]),
            (json!({ "archived": true }), None, vec![]),
            (
                json!({ "archived": false, "sortBy": "lastInteractionAt" }),
                None,
                vec!["b", "explicit:k7", "a"],
            ),
            (json!({}), Some("Work"), vec!["b"]),
            (json!({ "search": "the lamp" }), None, vec!["a"]),
            (json!({ "search": " K7 " }), None, vec!["explicit:k7"]),
            (json!({ "search": "" }), None, vec!["b", "explicit:k7", "a"]),
            (json!({ "search": "nothing" }), None, vec![]),
            (json!({ "activeMinutes": 1 }), None, vec!["b", "explicit:k7", "a"]),
        ] {
            assert_eq!(names(&listed(params.clone(), agent_id)), expected, "{params} {agent_id:?}");
        }
    }

    #[test]
    fn pages_say_how_many_there_are_and_where_to_go_on() {
        for (params, shown, next) in [
            (json!({ "limit": 2 }), vec!["b", "explicit:k7"], Some(2)),
            (json!({ "limit": 2, "offset": 2 }), vec!["a"], None),
            (json!({ "offset": 9 }), vec![], None),
        ] {
            let result = listed(params.clone(), None);
            assert_eq!((names(&result), result.next_offset), (shown, next), "{params}");
            assert_eq!((result.total_count, result.has_more), (3, next.is_some()), "{params}");
            assert_eq!(result.count as usize, result.sessions.len());
        }
    }

    #[test]
    fn titles_and_previews_come_when_asked_for_and_are_short() {
        let plain = listed(json!({ "search": "lamp" }), None);
        assert_eq!(
            (&plain.sessions[0].derived_title, &plain.sessions[0].last_message_preview),
            (&None, &None)
        );
        let params = json!({ "search": "lamp", "includeDerivedTitles": true, "includeLastMessage": true });
        let full = listed(params, None);
        let title = full.sessions[0].derived_title.as_deref().expect("it was asked for");
        assert_eq!(title, "Fix the LAMP in the hall, please, and tell me when it is don…");
        assert!(full.sessions[0].last_message_preview.as_deref().is_some_and(|text| text.ends_with("done")));
    }

    #[test]
    fn a_row_tells_how_the_newest_run_stands() {
        let (mut sessions, _) = bench();
        let model = ModelInfo {
            id: "m".to_owned(),
            name: String::new(),
            provider: "p".to_owned(),
            context_window: Some(7),
            reasoning: false,
            tags: Vec::new(),
            available: None,
        };
        let status = |sessions: &Sessions| row(sessions.get("agent:main:a").expect("it was used")).status;
        assert_eq!(status(&sessions), Some(SessionStatus::Queued));
        let run = LastRun { run_id: "k".to_owned(), model, started_at: Some(TimestampMs(5)), end: None };
        sessions.note("agent:main:a", run.clone());
        assert_eq!(status(&sessions), Some(SessionStatus::Running));
        let error = Some("it broke".to_owned());
        let end =
            RunEnd { at: TimestampMs(9), status: SessionStatus::Failed, error: error.clone(), usage: None };
        sessions.note("agent:main:a", LastRun { end: Some(end), ..run });
        let row = row(sessions.get("agent:main:a").expect("it was used"));
        assert_eq!(
            (row.status, row.runtime_ms, row.last_run_error),
            (Some(SessionStatus::Failed), Some(4), error)
        );
        assert_eq!(
            (row.model.as_deref(), row.context_tokens, row.has_active_run),
            (Some("m"), Some(7), false)
        );
    }
}
