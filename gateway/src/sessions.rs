//! Sessions: how callers name them, which of them were used last, and how their runs stand.
//!
//! The names follow wire.md section 9. What is said in a session is kept in [`crate::transcripts`]; how sessions are
//! listed is the business of [`list`].

pub mod list;

use std::{
    collections::{BTreeMap, HashMap},
    mem,
};

use openclaw_schema::{
    methods::{
        agent::TokenUsage,
        gateway::{RecentSession, SessionsSummary},
        models::ModelInfo,
        sessions::SessionStatus,
    },
    types::TimestampMs,
};
use uuid::Uuid;

use crate::settings::{Agent, Agents};

/// Where a message goes: one session of one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionAddress {
    /// The key in full and in lower case, for example `agent:main:main`.
    pub key: String,
    /// The id of the agent, as the settings write it.
    pub agent_id: String,
    /// Whether the session was made for one run, because the caller named neither session nor agent.
    pub own: bool,
}

/// Why a caller's words name no session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The agent does not exist.
    #[error("no agent `{id}`; `agents.list` lists them")]
    UnknownAgent {
        /// The agent that was asked for.
        id: String,
        /// The parameter that names it, as a JSON pointer: `/agentId` or `/sessionKey`.
        path: &'static str,
    },
    /// The key begins like a full one, but is none. The parameter is `/sessionKey`.
    #[error("`{key}` is not a whole session key; write `agent:<id>:<name>`, or the name alone")]
    Malformed {
        /// The key.
        key: String,
    },
    /// The key and the agent contradict each other. The parameter is `/sessionKey`.
    #[error("session `{key}` belongs to agent `{owner}`, not to `{agent_id}`; leave one of the two out")]
    OtherAgent {
        /// The key.
        key: String,
        /// The agent that the key names.
        owner: String,
        /// The agent that was asked for.
        agent_id: String,
    },
}

/// Finds the session that a call means, and its agent.
///
/// Letters of both names are lowered. A bare name belongs to `agent_id`, or else to the default agent; `global`
/// stays as it is; without a key it is the agent's `main`; without either, a session for `run_id` alone.
///
/// # Errors
///
/// When the agent is not in `agents`, or the key is malformed or contradicts `agent_id`.
pub fn resolve<'a>(
    agents: &'a Agents,
    agent_id: Option<&str>,
    session_key: Option<&str>,
    run_id: &str,
) -> Result<(SessionAddress, &'a Agent), AddressError> {
    let asked = agent_id.map(|id| find_agent(agents, id, "/agentId")).transpose()?;
    let agent = match asked {
        Some(agent) => agent,
        None => find_agent(agents, &agents.default_id, "/agentId")?,
    };
    let key_of = |agent: &Agent, name: &str| format!("agent:{}:{name}", agent.id).to_lowercase();
    let address = |key: String, agent: &'a Agent, own: bool| {
        (SessionAddress { key, agent_id: agent.id.clone(), own }, agent)
    };
    let Some(given) = session_key else {
        return Ok(match asked {
            Some(agent) => address(key_of(agent, "main"), agent, false),
            None => address(key_of(agent, &format!("explicit:{run_id}")), agent, true),
        });
    };
    let key = given.to_lowercase();
    if key == "global" {
        return Ok(address(key, agent, false));
    }
    let Some(rest) = key.strip_prefix("agent:") else {
        return Ok(address(key_of(agent, &key), agent, false));
    };
    let Some((owner, _)) = rest.split_once(':').filter(|(id, name)| !id.is_empty() && !name.is_empty())
    else {
        return Err(AddressError::Malformed { key });
    };
    let owner = find_agent(agents, owner, "/sessionKey")?;
    match asked {
        Some(asked) if asked.id != owner.id => {
            Err(AddressError::OtherAgent { key, owner: owner.id.clone(), agent_id: asked.id.clone() })
        }
        _ => Ok(address(key, owner, false)),
    }
}

fn find_agent<'a>(agents: &'a Agents, id: &str, path: &'static str) -> Result<&'a Agent, AddressError> {
    let lower = id.to_lowercase();
    agents
        .list
        .iter()
        .find(|agent| agent.id.to_lowercase() == lower)
        .ok_or_else(|| AddressError::UnknownAgent { id: id.to_owned(), path })
}

/// One session.
#[derive(Debug, Clone)]
pub struct Session {
    /// The key in full.
    pub key: String,
    /// Differs between sessions, also between two of the same key when the first was forgotten.
    pub id: Uuid,
    /// The id of the agent.
    pub agent_id: String,
    /// When it was used first.
    pub created_at: TimestampMs,
    /// When anything changed last.
    pub updated_at: TimestampMs,
    /// When somebody said something last.
    pub last_interaction_at: TimestampMs,
    /// The runs that wait or go on, oldest first.
    pub active: Vec<String>,
    /// The newest run that has started.
    pub last_run: Option<LastRun>,
}

/// The newest run of a session that has started, or was ended before it could.
#[derive(Debug, Clone)]
pub struct LastRun {
    /// The run.
    pub run_id: String,
    /// The model it uses.
    pub model: ModelInfo,
    /// When it started; absent when it was ended before.
    pub started_at: Option<TimestampMs>,
    /// How it ended; absent while it goes on.
    pub end: Option<RunEnd>,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub struct RunEnd {
    /// When.
    pub at: TimestampMs,
    /// In which way.
    pub status: SessionStatus,
    /// What failed.
    pub error: Option<String>,
    /// What it consumed, where known.
    pub usage: Option<TokenUsage>,
}

/// The sessions used last, in memory. Bounded: the one that was used least recently is forgotten first, but none
/// that has a run.
#[derive(Debug)]
pub struct Sessions {
    max: usize,
    by_key: HashMap<String, Used>,
    /// Invariant: holds each key of `by_key` once, under its `turn`. Times can be equal, turns cannot.
    by_turn: BTreeMap<u64, String>,
    turns: u64,
}

#[derive(Debug)]
struct Used {
    turn: u64,
    session: Session,
}

impl Sessions {
    /// No sessions yet; at most `max` are kept, and those that have runs.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, by_key: HashMap::new(), by_turn: BTreeMap::new(), turns: 0 }
    }

    /// Notes that a run was accepted in a session, which begins with it if there is none, and gives its id.
    pub fn accept(&mut self, address: &SessionAddress, run_id: &str) -> Uuid {
        let now = TimestampMs::now();
        if !self.by_key.contains_key(&address.key) {
            let session = Session {
                key: address.key.clone(),
                id: Uuid::now_v7(),
                agent_id: address.agent_id.clone(),
                created_at: now,
                updated_at: now,
                last_interaction_at: now,
                active: Vec::new(),
                last_run: None,
            };
            self.by_key.insert(address.key.clone(), Used { turn: 0, session });
        }
        let id = self.change(&address.key, |session| {
            // Of two agents in the session `global`, the one that was spoken to last.
            session.agent_id.clone_from(&address.agent_id);
            session.last_interaction_at = now;
            session.active.push(run_id.to_owned());
            session.id
        });
        if self.by_key.len() > self.max {
            let idle = self
                .by_turn
                .iter()
                .find(|(_, key)| self.by_key.get(*key).is_some_and(|used| used.session.active.is_empty()));
            if let Some(turn) = idle.map(|(turn, _)| *turn)
                && let Some(key) = self.by_turn.remove(&turn)
            {
                self.by_key.remove(&key);
            }
        }
        id.expect("the session was put there above, and has a run since")
    }

    /// Notes that a run has started, or has ended.
    pub fn note(&mut self, key: &str, run: LastRun) {
        self.change(key, |session| {
            let Some(at) = session.active.iter().position(|active| *active == run.run_id) else {
                // Its end was noted before its start.
                return;
            };
            if run.end.is_some() {
                session.active.remove(at);
            }
            // A run that never started says nothing about one that goes on.
            let is_newest = run.started_at.is_some() || session.active.is_empty();
            if is_newest {
                session.last_run = Some(run);
            }
        });
    }

    /// Changes a session, which is now the one used last.
    fn change<T>(&mut self, key: &str, change: impl FnOnce(&mut Session) -> T) -> Option<T> {
        let used = self.by_key.get_mut(key)?;
        self.turns += 1;
        let key = self.by_turn.remove(&mem::replace(&mut used.turn, self.turns));
        self.by_turn.insert(self.turns, key.unwrap_or_else(|| used.session.key.clone()));
        used.session.updated_at = TimestampMs::now();
        Some(change(&mut used.session))
    }

    /// The session of a key in full.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Session> {
        self.by_key.get(key).map(|used| &used.session)
    }

    /// Every session, that used last first.
    pub fn iter(&self) -> impl Iterator<Item = &Session> {
        self.by_turn.values().rev().filter_map(|key| self.get(key))
    }

    /// How many sessions there are, of one agent or of all, and the `recent` used last, newest first.
    #[must_use]
    pub fn summary(&self, agent_id: Option<&str>, recent: usize) -> SessionsSummary {
        let now = TimestampMs::now();
        let of_agent = |session: &&Session| agent_id.is_none_or(|id| session.agent_id == id);
        let count = match agent_id {
            None => self.by_key.len(),
            Some(_) => self.by_key.values().map(|used| &used.session).filter(of_agent).count(),
        };
        let recent = self
            .iter()
            .filter(of_agent)
            .take(recent)
            .map(|session| RecentSession {
                key: session.key.clone(),
                updated_at: Some(session.updated_at),
                age: Some(now.0.saturating_sub(session.updated_at.0)),
            })
            .collect();
        SessionsSummary { count: count as u64, recent }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn agents() -> Agents {
        let agent = |id: &str| Agent {
            id: id.to_owned(),
            name: None,
            workspace: PathBuf::from("/nowhere"),
            model: None,
        };
        Agents { default_id: "main".to_owned(), list: vec![agent("main"), agent("Work")] }
    }

    fn key(agent_id: Option<&str>, session_key: Option<&str>) -> Result<SessionAddress, String> {
        resolve(&agents(), agent_id, session_key, "K1").map(|(address, _)| address).map_err(|e| e.to_string())
    }

    #[test]
    fn keys_are_written_out_in_full() {
        for (agent_id, session_key, full, agent, own) in [
            (None, Some("main"), "agent:main:main", "main", false),
            (None, Some("foo"), "agent:main:foo", "main", false),
            (None, Some("Two Words"), "agent:main:two words", "main", false),
            (None, Some("AGENT:MAIN:UP"), "agent:main:up", "main", false),
            (None, Some("agent:main:explicit:k1"), "agent:main:explicit:k1", "main", false),
            (None, Some("agent:work:a:b"), "agent:work:a:b", "Work", false),
            (None, Some("Global"), "global", "main", false),
            (Some("work"), Some("global"), "global", "Work", false),
            (Some("work"), None, "agent:work:main", "Work", false),
            (Some("WORK"), Some("foo"), "agent:work:foo", "Work", false),
            (Some("work"), Some("agent:work:foo"), "agent:work:foo", "Work", false),
            (None, None, "agent:main:explicit:k1", "main", true),
        ] {
            let expected = SessionAddress { key: full.to_owned(), agent_id: agent.to_owned(), own };
            assert_eq!(key(agent_id, session_key), Ok(expected), "{agent_id:?} {session_key:?}");
        }
    }

    #[test]
    fn names_that_lead_nowhere_are_explained() {
        for (agent_id, session_key, message) in [
            (Some("nobody"), None, "no agent `nobody`; `agents.list` lists them"),
            (Some("nobody"), Some("main"), "no agent `nobody`; `agents.list` lists them"),
            (None, Some("agent:nobody:main"), "no agent `nobody`; `agents.list` lists them"),
            (
                None,
                Some("agent:main"),
                "`agent:main` is not a whole session key; write `agent:<id>:<name>`, or the name alone",
            ),
            (
                None,
                Some("agent:main:"),
                "`agent:main:` is not a whole session key; write `agent:<id>:<name>`, or the name alone",
            ),
            (
                Some("main"),
                Some("agent:work:x"),
                "session `agent:work:x` belongs to agent `Work`, not to `main`; leave one of the two out",
            ),
        ] {
            assert_eq!(key(agent_id, session_key), Err(message.to_owned()));
        }
    }

    #[test]
    fn an_unknown_agent_names_the_parameter_at_fault() {
        let path = |agent_id, session_key| match resolve(&agents(), agent_id, session_key, "k1") {
            Err(AddressError::UnknownAgent { path, .. }) => path,
            other => panic!("expected an unknown agent, not {other:?}"),
        };
        assert_eq!(path(Some("nobody"), Some("main")), "/agentId");
        assert_eq!(path(None, Some("agent:nobody:main")), "/sessionKey");
    }

    #[test]
    fn the_sessions_used_last_come_first_and_the_oldest_is_forgotten() {
        let agents = agents();
        let mut sessions = Sessions::new(3);
        let mut touch = |key: &str| {
            let (address, _) = resolve(&agents, None, Some(key), "k1").expect("the agent exists");
            sessions.accept(&address, "k1");
            sessions.note(&address.key, ended("k1"));
        };
        for key in ["a", "b", "agent:work:c", "a", "d"] {
            touch(key);
        }
        let keys = |summary: SessionsSummary| -> Vec<String> {
            summary.recent.into_iter().map(|session| session.key).collect()
        };
        assert_eq!(sessions.summary(None, 10).count, 3);
        assert_eq!(keys(sessions.summary(None, 10)), ["agent:main:d", "agent:main:a", "agent:work:c"]);
        assert_eq!(keys(sessions.summary(None, 1)), ["agent:main:d"]);
        assert_eq!(keys(sessions.summary(Some("Work"), 10)), ["agent:work:c"]);
        assert_eq!(sessions.summary(Some("main"), 0).count, 2);
    }

    fn ended(run_id: &str) -> LastRun {
        let end = RunEnd { at: TimestampMs(7), status: SessionStatus::Done, error: None, usage: None };
        LastRun { started_at: Some(TimestampMs(5)), end: Some(end), ..started(run_id) }
    }

    fn started(run_id: &str) -> LastRun {
        let model = ModelInfo {
            id: "m".to_owned(),
            name: String::new(),
            provider: "p".to_owned(),
            context_window: None,
            reasoning: false,
            tags: Vec::new(),
            available: None,
        };
        LastRun { run_id: run_id.to_owned(), model, started_at: Some(TimestampMs(5)), end: None }
    }

    fn address(key: &str) -> SessionAddress {
        SessionAddress { key: key.to_owned(), agent_id: "main".to_owned(), own: false }
    }

    #[test]
    fn a_session_keeps_its_id_and_knows_its_runs() {
        let mut sessions = Sessions::new(3);
        let id = sessions.accept(&address("a"), "k1");
        assert_eq!(sessions.accept(&address("a"), "k2"), id);
        assert_ne!(sessions.accept(&address("b"), "k3"), id);
        let session = |sessions: &Sessions| sessions.get("a").cloned().expect("it was used");
        assert_eq!(session(&sessions).active, ["k1", "k2"]);
        assert!(session(&sessions).last_run.is_none());

        sessions.note("a", started("k1"));
        // One that waits is ended: the one that goes on stays the newest.
        sessions.note("a", LastRun { started_at: None, ..ended("k2") });
        assert_eq!(session(&sessions).active, ["k1"]);
        assert_eq!(session(&sessions).last_run.map(|run| run.run_id).as_deref(), Some("k1"));
        sessions.note("a", ended("k1"));
        assert!(session(&sessions).active.is_empty());
        assert!(session(&sessions).last_run.is_some_and(|run| run.end.is_some()));
    }

    #[test]
    fn a_session_that_has_a_run_is_not_forgotten() {
        let mut sessions = Sessions::new(2);
        let id = sessions.accept(&address("busy"), "k1");
        for key in ["a", "b", "c"] {
            sessions.accept(&address(key), "k2");
            sessions.note(key, ended("k2"));
        }
        let keys =
            |sessions: &Sessions| sessions.iter().map(|session| session.key.clone()).collect::<Vec<_>>();
        assert_eq!(keys(&sessions), ["c", "busy"]);
        sessions.note("busy", ended("k1"));
        assert_eq!(sessions.get("busy").map(|session| session.id), Some(id));
        for key in ["d", "e"] {
            sessions.accept(&address(key), "k2");
        }
        assert!(sessions.get("busy").is_none());
        assert_ne!(sessions.accept(&address("busy"), "k1"), id);
    }
}
