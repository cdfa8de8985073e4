//! Sessions: how callers name them, and which of them were used last.
//!
//! The names follow wire.md section 9. What is said in a session is not kept here.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
};

use openclaw_schema::{
    methods::gateway::{RecentSession, SessionsSummary},
    types::TimestampMs,
};

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

/// The sessions used last, in memory. Bounded: the one that was used least recently is forgotten first.
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
    agent_id: String,
    turn: u64,
    at: TimestampMs,
}

impl Sessions {
    /// No sessions yet; at most `max` are kept.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { max, by_key: HashMap::new(), by_turn: BTreeMap::new(), turns: 0 }
    }

    /// Notes that a session is used now.
    pub fn touch(&mut self, address: &SessionAddress) {
        self.turns += 1;
        let used = Used { agent_id: address.agent_id.clone(), turn: self.turns, at: TimestampMs::now() };
        let key = match self.by_key.get_mut(&address.key) {
            Some(known) => self.by_turn.remove(&mem::replace(known, used).turn),
            None => {
                self.by_key.insert(address.key.clone(), used);
                None
            }
        };
        self.by_turn.insert(self.turns, key.unwrap_or_else(|| address.key.clone()));
        if self.by_key.len() > self.max
            && let Some((_, key)) = self.by_turn.pop_first()
        {
            self.by_key.remove(&key);
        }
    }

    /// How many sessions there are, of one agent or of all, and the `recent` used last, newest first.
    #[must_use]
    pub fn summary(&self, agent_id: Option<&str>, recent: usize) -> SessionsSummary {
        let now = TimestampMs::now();
        let of_agent = |used: &Used| agent_id.is_none_or(|id| used.agent_id == id);
        let count = match agent_id {
            None => self.by_key.len(),
            Some(_) => self.by_key.values().filter(|used| of_agent(used)).count(),
        };
        let recent = self
            .by_turn
            .values()
            .rev()
            .filter_map(|key| self.by_key.get(key).filter(|used| of_agent(used)).map(|used| (key, used.at)))
            .take(recent)
            .map(|(key, at)| RecentSession {
                key: key.clone(),
                updated_at: Some(at),
                age: Some(now.0.saturating_sub(at.0)),
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
            sessions.touch(&address);
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
}
