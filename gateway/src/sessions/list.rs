//! Sessions as callers see them: one row each.

use openclaw_schema::methods::{
    models::ModelInfo,
    sessions::{ResolvedModel, SessionEntry, SessionKind, SessionModelDefaults, SessionRow, SessionStatus},
};

use super::{Session, SessionAddress};

/// The longest derived title, in characters: what fits on one line of a list.
const TITLE_CHARS: usize = 60;
/// The longest preview of a message, in characters.
pub(super) const PREVIEW_CHARS: usize = 120;
/// The key of the session that belongs to no agent.
pub(super) const GLOBAL: &str = "global";

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
        estimated_cost_usd: usage.and_then(|usage| usage.cost).map(|cost| cost.total),
        context_tokens: last.and_then(|run| run.model.context_window),
        model_provider: last.map(|run| run.model.provider.clone()),
        model: last.map(|run| run.model.id.clone()),
        label: session.label.clone(),
        archived: session.archived,
        pinned: session.settings.pinned,
        unread: session.settings.unread,
        category: session.settings.category.clone(),
        icon: session.settings.icon.clone(),
        color: session.settings.color.clone(),
        ..bare(&session.key, &session.agent_id)
    }
}

/// A session as it is stored.
#[must_use]
pub fn entry(session: &Session) -> SessionEntry {
    let settings = session.settings.clone();
    SessionEntry {
        session_id: session.id.to_string(),
        lifecycle_revision: session.revision.to_string(),
        updated_at: session.updated_at,
        created_at: session.created_at,
        label: session.label.clone(),
        archived: session.archived,
        pinned: settings.pinned,
        unread: settings.unread,
        icon: settings.icon,
        color: settings.color,
        category: settings.category,
        model: settings.model,
        thinking_level: settings.thinking_level,
        fast_mode: settings.fast_mode,
        verbose_level: settings.verbose_level,
        reasoning_level: settings.reasoning_level,
    }
}

/// The model that the runs of a session use.
#[must_use]
pub fn resolved(model: Option<&ModelInfo>) -> ResolvedModel {
    ResolvedModel {
        model_provider: model.map(|model| model.provider.clone()),
        model: model.map(|model| model.id.clone()),
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
        label: None,
        archived: false,
        pinned: false,
        unread: false,
        category: None,
        icon: None,
        color: None,
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
        estimated_cost_usd: None,
        context_tokens: None,
        model_provider: None,
        model: None,
    }
}

/// The title of a session that begins with this message.
#[must_use]
pub(crate) fn title_of(message: &str) -> String {
    beginning(message, TITLE_CHARS)
}

/// The beginning of a message on one line.
pub(super) fn beginning(text: &str, max_chars: usize) -> String {
    let mut line = String::new();
    // Whitespace alone can make the text longer than its line: no more words are looked at than can be shown.
    for word in text.split_whitespace().take(max_chars) {
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
    use openclaw_schema::types::TimestampMs;

    use super::*;
    use crate::sessions::{LastRun, RunEnd};

    #[test]
    fn titles_are_one_short_line() {
        let title = title_of("Fix\n the  LAMP in the hall, please, and tell me when it is done");
        assert_eq!(title, "Fix the LAMP in the hall, please, and tell me when it is don…");
        assert_eq!(title_of(" short "), "short");
    }

    #[test]
    fn a_row_tells_how_the_newest_run_stands() {
        let model = ModelInfo {
            id: "m".to_owned(),
            name: String::new(),
            provider: "p".to_owned(),
            context_window: Some(7),
            reasoning: false,
            tags: Vec::new(),
            thinking_levels: Vec::new(),
            thinking_default: None,
            available: None,
        };
        let address =
            SessionAddress { key: "agent:main:a".to_owned(), agent_id: "main".to_owned(), own: false };
        let mut session = Session::new(&address, TimestampMs(1));
        assert_eq!(row(&session).status, None);
        session.active.push("k".to_owned());
        assert_eq!(row(&session).status, Some(SessionStatus::Queued));
        let run = LastRun { run_id: "k".to_owned(), model, started_at: Some(TimestampMs(5)), end: None };
        session.last_run = Some(run.clone());
        assert_eq!(row(&session).status, Some(SessionStatus::Running));
        let error = Some("it broke".to_owned());
        let end =
            RunEnd { at: TimestampMs(9), status: SessionStatus::Failed, error: error.clone(), usage: None };
        session.last_run = Some(LastRun { end: Some(end), ..run });
        session.active.clear();
        let row = row(&session);
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
