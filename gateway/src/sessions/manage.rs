//! What callers do with sessions: list them, look at them, make, change, reset, compact and delete them.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use openclaw_schema::{
    events::{EventName, SessionsChangedEvent},
    methods::{
        agent::TokenUsage,
        gateway::{RecentSession, SessionsSummary},
        sessions::{
            ArchivedFilter, CompactionResult, PreviewItem, PreviewStatus, SessionPreview, SessionRow,
            SessionsListParams, SessionsListResult, SessionsSort,
        },
    },
    types::{Bounded, TimestampMs},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    Session, SessionAddress,
    list::{GLOBAL, PREVIEW_CHARS, beginning, defaults, display_name, row, unused_row},
};
use crate::{
    backend::{BackendRequest, Meter, TextSink},
    events::{Audience, EventBus},
    runs::{Aborted, Runs},
    store::{ListFilter, SessionChange, Store, StoreError},
    transcripts::{Author, Entry, Message, Page, Past, estimated_tokens, room_for_past},
};

/// How many sessions are listed when the caller does not say. wire.md section 10: 100.
const DEFAULT_LIMIT: u64 = 100;
/// How many messages a preview shows when the caller does not say, and how long they are, in characters.
const PREVIEW_ITEMS: u64 = 12;
const PREVIEW_ITEM_CHARS: u64 = 240;
/// How many of the newest messages a compaction leaves as they are.
const KEPT_MESSAGES: usize = 4;
/// How long a model may take to sum up a session.
const COMPACTION_TIMEOUT: Duration = Duration::from_secs(120);
/// What a model is asked to do with the older messages of a session.
const COMPACTION_PROMPT: &str = "Sum up our conversation so far for your own later use: what was asked, what was decided \
and done, facts and names that matter, what is still open. Write the summary alone.";

/// The sessions of a gateway. Cloning it is cheap; the clones are one.
#[derive(Debug, Clone)]
pub struct Sessions {
    store: Store,
    runs: Runs,
    events: EventBus,
    /// The sessions that are being summed up.
    compacting: Arc<Mutex<HashSet<String>>>,
}

/// Which session a change is meant for; what is absent is not compared.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Its id.
    pub session_id: Option<String>,
    /// Its revision.
    pub revision: Option<String>,
    /// When it changed last.
    pub updated_at: Option<TimestampMs>,
}

impl Expected {
    fn check(&self, session: &Session) -> Result<(), SessionError> {
        let is_other = |expected: &Option<String>, found: Uuid| {
            expected.as_ref().is_some_and(|expected| *expected != found.to_string())
        };
        let changed = is_other(&self.session_id, session.id)
            || is_other(&self.revision, session.revision)
            || self.updated_at.is_some_and(|expected| expected != session.updated_at);
        if changed { Err(SessionError::Changed { key: session.key.clone() }) } else { Ok(()) }
    }

    /// The same once the runs of the session have been ended, which is a change of it.
    fn check_lasting(&self, session: &Session) -> Result<(), SessionError> {
        Self { updated_at: None, ..self.clone() }.check(session)
    }
}

/// Why a session is not changed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SessionError {
    /// It is not the one that the caller means.
    #[error("session `{key}` has changed since; sessions.describe answers it as it is")]
    Changed {
        /// The key in full.
        key: String,
    },
    /// Another session has the label. The parameter is `/label`.
    #[error("label already in use: {label}")]
    LabelTaken {
        /// The label.
        label: String,
    },
    /// It is an agent's main session.
    #[error("Cannot delete the main session ({key}).")]
    Main {
        /// The key in full.
        key: String,
    },
    /// It is not archived, and only an archived one was to be deleted.
    #[error("session `{key}` is not archived")]
    NotArchived {
        /// The key in full.
        key: String,
    },
    /// There is none.
    #[error("no session `{key}`; `sessions.list` lists them")]
    Missing {
        /// The key in full.
        key: String,
    },
    /// It is being summed up already.
    #[error("session `{key}` is being compacted already")]
    Compacting {
        /// The key in full.
        key: String,
    },
    /// The model did not sum it up.
    #[error("the session was not summed up: {reason}")]
    NotCompacted {
        /// Why.
        reason: String,
    },
    /// The database failed.
    #[error("the sessions cannot be read or written; the gateway's log says more")]
    Store(#[source] crate::runs::Failure),
}

impl From<StoreError> for SessionError {
    fn from(error: StoreError) -> Self {
        tracing::error!(error = crate::store::chain(&error), "sessions cannot be read or written");
        Self::Store(error.into())
    }
}

impl Sessions {
    /// The sessions in `store`, which `runs` speaks in.
    pub(crate) fn new(store: Store, runs: Runs, events: EventBus) -> Self {
        Self { store, runs, events, compacting: Arc::default() }
    }

    /// Where they are stored.
    pub(crate) fn path(&self) -> String {
        self.store.path().display().to_string()
    }

    /// The session of a key in full, with what goes on in it; `None` when nobody has used it yet.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub async fn get(&self, key: &str) -> Result<Option<Session>, SessionError> {
        if !self.store.exists() {
            return Ok(None);
        }
        let session = self.store.session(key.to_owned()).await?;
        Ok(session.map(|session| self.live(session)))
    }

    /// The session of an id.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub async fn of_id(&self, id: &str) -> Result<Option<Session>, SessionError> {
        if !self.store.exists() {
            return Ok(None);
        }
        let session = self.store.session_of_id(id.to_owned()).await?;
        Ok(session.map(|session| self.live(session)))
    }

    fn live(&self, mut session: Session) -> Session {
        self.runs.enliven(&mut session);
        session
    }

    /// Lists sessions. `agent_id` is the caller's, as the settings write it.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub async fn list(
        &self,
        params: &SessionsListParams,
        agent_id: Option<&str>,
    ) -> Result<SessionsListResult, SessionError> {
        let now = TimestampMs::now();
        let limit = params.limit.map_or(DEFAULT_LIMIT, Bounded::get);
        let offset = params.offset.map_or(0, Bounded::get);
        let search = params.search.as_ref().map(|text| text.as_str().trim().to_lowercase());
        let filter = ListFilter {
            agent_id: agent_id.map(str::to_owned),
            since: params
                .active_minutes
                .map(|minutes| TimestampMs(now.0.saturating_sub(minutes.get().saturating_mul(60_000)))),
            search: search.filter(|text| !text.is_empty()),
            label: params.label.as_ref().map(|label| label.as_str().to_owned()),
            archived: match params.archived {
                None => Some(false),
                Some(ArchivedFilter::Flag(archived)) => Some(archived),
                Some(ArchivedFilter::All(_)) => None,
            },
            without: (params.include_global != Some(true)).then_some(GLOBAL),
            by_interaction: params.sort_by == Some(SessionsSort::LastInteractionAt),
            limit,
            offset,
        };
        let (sessions, total) =
            if self.store.exists() { self.store.list_sessions(filter).await? } else { (Vec::new(), 0) };
        let with_titles = params.include_derived_titles.unwrap_or(false);
        let with_last = params.include_last_message.unwrap_or(false);
        let rows = self.rows(sessions, with_titles, with_last).await?;
        let next_offset = offset + rows.len() as u64;
        let has_more = next_offset < total && !rows.is_empty();
        let default_agent = self.runs.default_agent();
        Ok(SessionsListResult {
            ts: now,
            count: rows.len() as u64,
            total_count: total,
            limit_applied: limit,
            next_offset: has_more.then_some(next_offset),
            has_more,
            defaults: defaults(self.runs.default_model(agent_id.unwrap_or(default_agent)).as_ref()),
            sessions: rows,
        })
    }

    /// The row of one session; `None` when nobody has used it yet.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub async fn describe(
        &self,
        key: &str,
        with_title: bool,
        with_last: bool,
    ) -> Result<Option<SessionRow>, SessionError> {
        let Some(session) = self.get(key).await? else { return Ok(None) };
        Ok(self.rows(vec![session], with_title, with_last).await?.pop())
    }

    async fn rows(
        &self,
        sessions: Vec<Session>,
        with_titles: bool,
        with_last: bool,
    ) -> Result<Vec<SessionRow>, SessionError> {
        let newest = if with_last && !sessions.is_empty() {
            self.store.newest_messages(sessions.iter().map(|session| session.transcript).collect()).await?
        } else {
            vec![None; sessions.len()]
        };
        let rows = sessions.into_iter().zip(newest).map(|(session, newest)| {
            let session = self.live(session);
            SessionRow {
                derived_title: session.title.clone().filter(|_| with_titles),
                last_message_preview: newest.map(|message| beginning(&message.entry.text, PREVIEW_CHARS)),
                ..row(&session)
            }
        });
        Ok(rows.collect())
    }

    /// How many sessions there are, and the `recent` used last, newest first.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub async fn summary(&self, recent: u64) -> Result<SessionsSummary, SessionError> {
        let count = self.runs.session_count(None);
        if recent == 0 || !self.store.exists() {
            return Ok(SessionsSummary { count, recent: Vec::new() });
        }
        let filter = ListFilter { limit: recent, ..ListFilter::default() };
        let (sessions, count) = self.store.list_sessions(filter).await?;
        let now = TimestampMs::now();
        let recent = sessions.into_iter().map(|session| RecentSession {
            key: session.key,
            updated_at: Some(session.updated_at),
            age: Some(now.0.saturating_sub(session.updated_at.0)),
        });
        Ok(SessionsSummary { count, recent: recent.collect() })
    }

    /// What was said last in a session.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub async fn preview(
        &self,
        given: &str,
        key: &str,
        limit: Option<u64>,
        max_chars: Option<u64>,
    ) -> Result<SessionPreview, SessionError> {
        let size =
            |given: Option<u64>, default| usize::try_from(given.unwrap_or(default)).unwrap_or(usize::MAX);
        let (limit, max_chars) = (size(limit, PREVIEW_ITEMS), size(max_chars, PREVIEW_ITEM_CHARS));
        let preview = |status, items| SessionPreview { key: given.to_owned(), status, items };
        let Some(session) = self.get(key).await? else {
            return Ok(preview(PreviewStatus::Missing, Vec::new()));
        };
        let page = self.page(&session, 0, limit, usize::MAX).await?;
        let items: Vec<PreviewItem> = page
            .messages
            .iter()
            .filter(|message| !message.entry.text.trim().is_empty())
            .map(|message| PreviewItem {
                role: match message.entry.author {
                    Author::User => "user".to_owned(),
                    Author::Assistant { .. } => "assistant".to_owned(),
                },
                text: beginning(&message.entry.text, max_chars),
            })
            .collect();
        let status = if items.is_empty() { PreviewStatus::Empty } else { PreviewStatus::Ok };
        Ok(preview(status, items))
    }

    /// Some messages of a session: see [`Page`].
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub async fn page(
        &self,
        session: &Session,
        offset: usize,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Page, SessionError> {
        Ok(self.store.page(session.transcript, offset, limit, max_bytes).await?)
    }

    /// The messages of a session behind number `seq`, oldest first.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub async fn messages_after(
        &self,
        session: &Session,
        seq: u64,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Vec<Arc<Message>>, SessionError> {
        Ok(self.store.messages_after(session.transcript, seq, limit, max_bytes).await?)
    }

    /// Makes a session, if there is none, and changes it.
    ///
    /// # Errors
    ///
    /// When it is another one than expected, its label is taken, or it cannot be written.
    pub async fn change(
        &self,
        address: SessionAddress,
        reason: &str,
        expected: Expected,
        change: impl FnOnce(&mut Session) + Send + 'static,
    ) -> Result<Session, SessionError> {
        let wanted = address.clone();
        let change = move |session: &mut Session| {
            expected.check(session)?;
            change(session);
            Ok::<_, SessionError>(())
        };
        let changed = self.store.change_session(wanted, TimestampMs::now(), true, change).await?;
        self.settle(&address, reason, changed)
    }

    /// Lets a session begin anew; its runs are ended first.
    ///
    /// # Errors
    ///
    /// When it is another one than expected, or cannot be written.
    pub async fn reset(
        &self,
        address: SessionAddress,
        reason: &str,
        expected: Expected,
    ) -> Result<Session, SessionError> {
        self.check(&address.key, &expected).await?;
        self.runs.abort_in(&address.key, Aborted::All).await;
        let now = TimestampMs::now();
        let reset =
            self.store.reset_session(address.clone(), now, move |session| expected.check_lasting(session));
        self.settle(&address, reason, reset.await?)
    }

    /// Deletes a session; its runs are ended first. `false` when there is none.
    ///
    /// # Errors
    ///
    /// When it must stay, is another one than expected, or cannot be written.
    pub async fn delete(
        &self,
        address: &SessionAddress,
        expected: Expected,
        archived_only: bool,
    ) -> Result<bool, SessionError> {
        let key = &address.key;
        if display_name(key) == "main" || key == GLOBAL {
            return Err(SessionError::Main { key: key.clone() });
        }
        let Some(session) = self.get(key).await? else { return Ok(false) };
        expected.check(&session)?;
        if archived_only && !session.archived {
            return Err(SessionError::NotArchived { key: key.clone() });
        }
        self.runs.abort_in(key, Aborted::All).await;
        let check = move |session: &Session| {
            if archived_only && !session.archived {
                return Err(SessionError::NotArchived { key: session.key.clone() });
            }
            expected.check_lasting(session)
        };
        match self.store.delete_session(key.clone(), check).await? {
            SessionChange::Made { session, .. } => {
                self.runs.count_session(&session.agent_id, false);
                let ts = TimestampMs::now();
                let gone = SessionsChangedEvent {
                    session_key: Some(key.clone()),
                    agent_id: Some(session.agent_id),
                    reason: Some("delete".to_owned()),
                    phase: None,
                    run_id: None,
                    ts,
                    session: None,
                };
                self.events.publish_to(Audience::OfSessions, EventName::SessionsChanged, &gone);
                // Recorded: a second one says that the list is to be read again.
                let keyless = SessionsChangedEvent { session_key: None, agent_id: None, ..gone };
                self.events.publish_to(Audience::OfSessions, EventName::SessionsChanged, &keyless);
                Ok(true)
            }
            SessionChange::Missing | SessionChange::LabelTaken(_) => Ok(false),
            SessionChange::Refused(error) => Err(error),
        }
    }

    /// Adds a message to a session as if its agent had said it.
    ///
    /// # Errors
    ///
    /// When there is no such session, or it cannot be written.
    pub async fn inject(&self, key: &str, text: String) -> Result<(Session, Arc<Message>), SessionError> {
        let missing = || SessionError::Missing { key: key.to_owned() };
        if !self.store.exists() {
            return Err(missing());
        }
        let author = Author::Assistant {
            provider: "openclaw".to_owned(),
            model: "gateway-injected".to_owned(),
            usage: Some(TokenUsage::default()),
            stop_reason: "stop".to_owned(),
            error: None,
        };
        let entry = Entry { run_id: format!("inject-{}", Uuid::now_v7()), author, text };
        let injected = self.store.inject(key.to_owned(), TimestampMs::now(), entry).await?;
        let (session, message) = injected.ok_or_else(missing)?;
        self.runs.tell_message(&session, &message);
        self.tell(&session, "message");
        Ok((session, message))
    }

    /// Lets the session's model sum up all but the newest messages. `None`, with the reason, when there is nothing to sum
    /// up.
    ///
    /// # Errors
    ///
    /// When the model fails, the session is being summed up already, or it cannot be read or written.
    pub async fn compact(&self, key: &str) -> Result<Result<CompactionResult, &'static str>, SessionError> {
        let Some(session) = self.get(key).await? else { return Ok(Err("no such session")) };
        let Some(agent) = self.runs.agent(&session.agent_id).cloned() else {
            return Ok(Err("the agent of the session is gone"));
        };
        let Some(model) = self.runs.model_of(&session.agent_id, session.settings.model.as_deref()) else {
            return Err(SessionError::NotCompacted { reason: "no model is available".to_owned() });
        };
        let _turn = Turn::take(&self.compacting, key)?;
        let room = room_for_past(model.context_window, COMPACTION_PROMPT.len());
        let mut past = self.store.past(session.transcript, u64::MAX, room).await?;
        let tokens_before = past.summary.as_deref().map_or(0, estimated_tokens)
            + past.messages.iter().map(|message| estimated_tokens(&message.entry.text)).sum::<usize>();
        if past.messages.len() <= KEPT_MESSAGES {
            return Ok(Err("there is too little to sum up"));
        }
        let kept = past.messages.split_off(past.messages.len() - KEPT_MESSAGES);
        let until = past.messages.last().map_or(0, |message| message.seq);
        let summary = self.sum_up(past, &session, agent, model).await?;
        self.store.summarise(session.transcript, until, summary.clone()).await?;
        self.tell(&session, "compact");
        Ok(Ok(CompactionResult {
            summary,
            first_kept_entry_id: kept.first().map(|message| message.id.to_string()),
            tokens_before: tokens_before as u64,
        }))
    }

    async fn sum_up(
        &self,
        past: Past,
        session: &Session,
        agent: crate::settings::Agent,
        model: openclaw_schema::methods::models::ModelInfo,
    ) -> Result<String, SessionError> {
        let failed = |reason: String| SessionError::NotCompacted { reason };
        let text = Arc::new(Mutex::new(String::new()));
        let sink = {
            let text = Arc::clone(&text);
            TextSink::new(move |piece| text.lock().unwrap_or_else(PoisonError::into_inner).push_str(piece))
        };
        let cancel = CancellationToken::new();
        let request = BackendRequest {
            run_id: format!("compact-{}", Uuid::now_v7()),
            session_key: session.key.clone(),
            agent,
            model,
            history: past.into_turns(),
            message: COMPACTION_PROMPT.to_owned(),
            extra_system_prompt: None,
            thinking: None,
            fast_mode: None,
            meter: Meter::default(),
            cancel: cancel.clone(),
        };
        // A caller that leaves takes the work with it.
        let _cancel = cancel.drop_guard();
        let backend = Arc::clone(self.runs.backend());
        let answer = tokio::time::timeout(COMPACTION_TIMEOUT, backend.run(request, sink)).await;
        answer
            .map_err(|_| failed("the model took too long".to_owned()))?
            .map_err(|error| failed(error.to_string()))?;
        let summary = text.lock().unwrap_or_else(PoisonError::into_inner).trim().to_owned();
        if summary.is_empty() { Err(failed("the model said nothing".to_owned())) } else { Ok(summary) }
    }

    async fn check(&self, key: &str, expected: &Expected) -> Result<(), SessionError> {
        match self.get(key).await? {
            Some(session) => expected.check(&session),
            None => Ok(()),
        }
    }

    fn settle(
        &self,
        address: &SessionAddress,
        reason: &str,
        change: SessionChange<SessionError>,
    ) -> Result<Session, SessionError> {
        match change {
            SessionChange::Made { session, is_new } => {
                if is_new {
                    self.runs.count_session(&session.agent_id, true);
                }
                self.tell(&session, reason);
                Ok(self.live(*session))
            }
            SessionChange::Missing => Err(SessionError::Missing { key: address.key.clone() }),
            SessionChange::Refused(error) => Err(error),
            SessionChange::LabelTaken(label) => Err(SessionError::LabelTaken { label }),
        }
    }

    /// Tells those who asked for changes of sessions.
    fn tell(&self, session: &Session, reason: &str) {
        let session = self.live(session.clone());
        let event = SessionsChangedEvent {
            session_key: Some(session.key.clone()),
            agent_id: Some(session.agent_id.clone()),
            reason: Some(reason.to_owned()),
            phase: None,
            run_id: None,
            ts: TimestampMs::now(),
            session: Some(row(&session)),
        };
        self.events.publish_to(Audience::OfSessions, EventName::SessionsChanged, &event);
    }

    /// The row of a session, used or not.
    #[must_use]
    pub fn row_or_unused(session: Option<&Session>, address: &SessionAddress) -> SessionRow {
        session.map_or_else(|| unused_row(address), row)
    }
}

/// The one compaction of a session.
struct Turn<'a> {
    compacting: &'a Mutex<HashSet<String>>,
    key: &'a str,
}

impl<'a> Turn<'a> {
    fn take(compacting: &'a Mutex<HashSet<String>>, key: &'a str) -> Result<Self, SessionError> {
        let is_first = compacting.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned());
        if is_first {
            Ok(Self { compacting, key })
        } else {
            Err(SessionError::Compacting { key: key.to_owned() })
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.compacting.lock().unwrap_or_else(PoisonError::into_inner).remove(self.key);
    }
}
