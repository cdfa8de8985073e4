//! The event bus: each event is serialised once, whatever the number of receivers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use openclaw_schema::events::EventName;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::broadcast;

/// How many events a receiver may lag behind before it misses some.
const BACKLOG: usize = 1024;

/// One event on its way to its receivers.
#[derive(Debug)]
pub struct Event {
    /// Its name.
    pub name: EventName,
    /// Its payload.
    pub payload: Box<RawValue>,
    /// The run it belongs to, for `agent` and `chat`.
    pub run_id: Option<String>,
}

/// Sends events to whoever subscribed. Cloning it is cheap.
#[derive(Debug, Clone)]
pub struct EventBus {
    sender: broadcast::Sender<Arc<Event>>,
    changes: Arc<Changes>,
}

/// How often presence and health have changed, whether anybody listened or not.
#[derive(Debug, Default)]
struct Changes {
    presence: AtomicU64,
    health: AtomicU64,
}

/// How often presence and health have changed (wire.md section 2, `stateVersion`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StateVersions {
    /// The presence list.
    pub presence: u64,
    /// The health snapshot.
    pub health: u64,
}

impl EventBus {
    /// A bus without receivers.
    #[must_use]
    pub fn new() -> Self {
        Self { sender: broadcast::Sender::new(BACKLOG), changes: Arc::default() }
    }

    /// Sends an event. Costs nothing but a look when nobody listens.
    pub fn publish<T: Serialize>(&self, name: EventName, payload: &T, run_id: Option<&str>) {
        match name {
            EventName::Presence => self.changes.presence.fetch_add(1, Ordering::Relaxed),
            EventName::Health => self.changes.health.fetch_add(1, Ordering::Relaxed),
            EventName::Tick
            | EventName::Agent
            | EventName::Chat
            | EventName::Shutdown
            | EventName::DevicePairRequested
            | EventName::DevicePairResolved
            | EventName::DevicePairSetupCompleted => 0,
        };
        let receivers = self.sender.receiver_count();
        crate::logs::traffic::event(name.name(), receivers);
        if receivers == 0 {
            return;
        }
        match serde_json::value::to_raw_value(payload) {
            Ok(payload) => {
                let event = Event { name, payload, run_id: run_id.map(str::to_owned) };
                // An error means that the last receiver has just left.
                let _ = self.sender.send(Arc::new(event));
            }
            Err(error) => tracing::error!(event = name.name(), %error, "an event payload does not serialise"),
        }
    }

    /// How often presence and health have changed.
    #[must_use]
    pub fn versions(&self) -> StateVersions {
        StateVersions {
            presence: self.changes.presence.load(Ordering::Relaxed),
            health: self.changes.health.load(Ordering::Relaxed),
        }
    }

    /// Waits until every receiver has taken what was sent, but no longer than `bound`.
    pub async fn delivered(&self, bound: Duration) {
        let taken = async {
            while !self.sender.is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // A receiver passes an event on in the poll that took it.
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        let _ = tokio::time::timeout(bound, taken).await;
    }

    /// Receives the events from now on. A receiver that lags too far behind is told how many it missed.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Event>> {
        self.sender.subscribe()
    }
}

impl Default for EventBus {
    fn default() -> Self {
        Self::new()
    }
}
