//! Sessions: how callers name them, which of them were used last, and how their runs stand.
//!
//! The names follow wire.md section 9. Sessions lie in the gateway's database; what callers do with them is in
//! [`manage`], how they are shown in [`list`], what is said in them in [`crate::transcripts`].

pub mod list;
pub mod manage;

use openclaw_schema::{
    methods::{
        agent::TokenUsage,
        models::ModelInfo,
        sessions::{FastMode, SessionStatus},
    },
    types::TimestampMs,
};
use serde::{Deserialize, Serialize};
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
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    /// The key in full.
    pub key: String,
    /// Differs between sessions, also between two of the same key when the first was deleted.
    pub id: Uuid,
    /// The id of the agent.
    pub agent_id: String,
    /// Another one each time the session begins anew.
    pub revision: Uuid,
    /// What was said in it.
    pub(crate) transcript: i64,
    /// When it was used first.
    pub created_at: TimestampMs,
    /// When anything changed last.
    pub updated_at: TimestampMs,
    /// When somebody said something last.
    pub last_interaction_at: TimestampMs,
    /// The beginning of the first message.
    pub title: Option<String>,
    /// The name that somebody gave it. No two sessions have the same.
    pub label: Option<String>,
    /// Whether it is put away.
    pub archived: bool,
    /// What else somebody chose for it.
    pub settings: SessionSettings,
    /// The runs that wait or go on, oldest first.
    pub active: Vec<String>,
    /// The newest run that has started.
    pub last_run: Option<LastRun>,
}

impl Session {
    /// A session that begins now, with no transcript yet.
    #[must_use]
    pub(crate) fn new(address: &SessionAddress, now: TimestampMs) -> Self {
        Self {
            key: address.key.clone(),
            id: Uuid::now_v7(),
            agent_id: address.agent_id.clone(),
            revision: Uuid::now_v7(),
            transcript: 0,
            created_at: now,
            updated_at: now,
            last_interaction_at: now,
            title: None,
            label: None,
            archived: false,
            settings: SessionSettings::default(),
            active: Vec::new(),
            last_run: None,
        }
    }
}

/// What callers choose for a session, by `sessions.patch`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SessionSettings {
    /// The model of its runs, as `provider/id` or an id; the agent's when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// How much models are to think.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thinking_level: Option<String>,
    /// Whether models are to answer faster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fast_mode: Option<FastMode>,
    /// How much a client shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verbose_level: Option<String>,
    /// How much of the reasoning a client shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_level: Option<String>,
    /// For lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icon: Option<String>,
    /// For lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub color: Option<String>,
    /// For lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    /// For lists.
    pub pinned: bool,
    /// For lists.
    pub unread: bool,
}

/// The newest run of a session that has started, or was ended before it could.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
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
}
