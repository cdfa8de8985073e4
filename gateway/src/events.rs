//! The event bus: each event is serialised once, whatever the number of receivers.
//!
//! The newest events of each run are kept for those who come late or fall behind, up to a while after its end.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use openclaw_schema::events::EventName;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::{sync::broadcast, time::Instant};

/// How many events a receiver may lag behind before it misses some.
const BACKLOG: usize = 1024;

/// How many bytes of events are kept of one run. The newest is kept whatever its size.
const KEPT_BYTES: usize = 262_144;
/// How long the events of a run are kept after its end.
const KEEP_ENDED: Duration = Duration::from_secs(60);
/// How many bytes of events of ended runs are kept in all. Those of the run that ended first go first.
const KEPT_ENDED_BYTES: usize = 16_777_216;

/// One event on its way to its receivers.
#[derive(Debug)]
pub struct Event {
    /// Its name.
    pub name: EventName,
    /// Its payload.
    pub payload: Box<RawValue>,
    /// The run it belongs to, for `agent` and `chat`.
    pub run_id: Option<String>,
    /// Its position among the events of its run, counted from 1.
    pub position: Option<u64>,
    /// Tells events of one run id apart, whichever run they are of: later ones have greater numbers.
    pub number: u64,
    /// Who receives it, beside those who ask for it by name.
    pub audience: Audience,
}

/// Who receives an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Audience {
    /// Whoever has the scope.
    Everyone,
    /// Connections that asked for changes of sessions.
    OfSessions,
    /// Connections that asked for the messages of this session.
    OfSession(String),
}

/// What is kept of a run for those who come late.
#[derive(Debug, Default)]
struct Past {
    events: VecDeque<Arc<Event>>,
    bytes: usize,
    /// The position of the newest event.
    last: u64,
    ended: Option<Instant>,
}

#[derive(Debug, Default)]
struct Pasts {
    /// The number of the newest event of all.
    number: u64,
    by_run: HashMap<String, Past>,
    /// The runs that have ended, oldest first.
    ended: VecDeque<String>,
    ended_bytes: usize,
}

impl Pasts {
    /// Forgets the runs that ended too long ago, and the oldest of the others while they take too much.
    fn forget(&mut self) {
        let now = Instant::now();
        let Self { by_run, ended, ended_bytes, .. } = self;
        while let Some(oldest) = ended.front()
            && let is_old = by_run
                .get(oldest)
                .and_then(|past| past.ended)
                .is_none_or(|ended| now.duration_since(ended) >= KEEP_ENDED)
            && (is_old || *ended_bytes > KEPT_ENDED_BYTES)
        {
            let oldest = ended.pop_front().unwrap_or_default();
            *ended_bytes -= by_run.remove(&oldest).map_or(0, |past| past.bytes);
        }
    }
}

/// Sends events to whoever subscribed. Cloning it is cheap.
#[derive(Debug, Clone)]
pub struct EventBus {
    sender: broadcast::Sender<Arc<Event>>,
    changes: Arc<Changes>,
    pasts: Arc<Mutex<Pasts>>,
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
        Self { sender: broadcast::Sender::new(BACKLOG), changes: Arc::default(), pasts: Arc::default() }
    }

    /// Sends an event to everyone. One that belongs to no run costs nothing but a look when nobody listens.
    pub fn publish<T: Serialize>(&self, name: EventName, payload: &T, run_id: Option<&str>) {
        match run_id {
            Some(run_id) => self.publish_of_run(run_id, name, payload),
            None => self.publish_to(Audience::Everyone, name, payload),
        }
    }

    /// Sends an event. Costs nothing but a look when nobody listens.
    pub fn publish_to<T: Serialize>(&self, audience: Audience, name: EventName, payload: &T) {
        match name {
            EventName::Presence => self.changes.presence.fetch_add(1, Ordering::Relaxed),
            EventName::Health => self.changes.health.fetch_add(1, Ordering::Relaxed),
            EventName::Tick
            | EventName::Agent
            | EventName::Chat
            | EventName::SessionsChanged
            | EventName::SessionMessage
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
        if let Some(payload) = serialised(name, payload) {
            let event = Event { name, payload, run_id: None, position: None, number: 0, audience };
            // An error means that the last receiver has just left.
            let _ = self.sender.send(Arc::new(event));
        }
    }

    /// Sends an event of a run, and keeps it for those who come late. The calls for one run follow each other.
    fn publish_of_run<T: Serialize>(&self, run_id: &str, name: EventName, payload: &T) {
        let Some(payload) = serialised(name, payload) else { return };
        let mut pasts = self.pasts();
        if pasts.by_run.get(run_id).is_some_and(|past| past.ended.is_some()) {
            // Another run of the same id: its events are counted anew.
            pasts.ended.retain(|ended| ended != run_id);
            pasts.ended_bytes -= pasts.by_run.remove(run_id).map_or(0, |past| past.bytes);
        }
        pasts.number += 1;
        let number = pasts.number;
        let past = pasts.by_run.entry(run_id.to_owned()).or_default();
        past.last += 1;
        let event = Arc::new(Event {
            name,
            payload,
            run_id: Some(run_id.to_owned()),
            position: Some(past.last),
            number,
            audience: Audience::Everyone,
        });
        past.bytes += event.payload.get().len();
        past.events.push_back(Arc::clone(&event));
        while past.bytes > KEPT_BYTES
            && past.events.len() > 1
            && let Some(oldest) = past.events.pop_front()
        {
            past.bytes -= oldest.payload.get().len();
        }
        drop(pasts);
        let _ = self.sender.send(event);
    }

    /// Notes that a run publishes nothing more.
    pub fn end_run(&self, run_id: &str) {
        let mut pasts = self.pasts();
        let Pasts { by_run, ended, ended_bytes, .. } = &mut *pasts;
        if let Some(past) = by_run.get_mut(run_id)
            && past.ended.replace(Instant::now()).is_none()
        {
            *ended_bytes += past.bytes;
            ended.push_back(run_id.to_owned());
        }
        pasts.forget();
    }

    /// Forgets what is kept no more of runs that have ended.
    pub(crate) fn sweep(&self) {
        self.pasts().forget();
    }

    /// What is kept of a run behind `position`, oldest first. `None` when nothing is kept of it.
    ///
    /// A position that the run has not reached is one of an earlier life of the gateway: everything is new then.
    #[must_use]
    pub fn past(&self, run_id: &str, position: u64) -> Option<Vec<Arc<Event>>> {
        let pasts = self.pasts();
        let past = pasts.by_run.get(run_id)?;
        let position = if position > past.last { 0 } else { position };
        let is_new = |event: &&Arc<Event>| event.position.is_some_and(|at| at > position);
        Some(past.events.iter().filter(is_new).map(Arc::clone).collect())
    }

    fn pasts(&self) -> MutexGuard<'_, Pasts> {
        self.pasts.lock().unwrap_or_else(PoisonError::into_inner)
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

fn serialised<T: Serialize>(name: EventName, payload: &T) -> Option<Box<RawValue>> {
    serde_json::value::to_raw_value(payload)
        .inspect_err(
            |error| tracing::error!(event = name.name(), %error, "an event payload does not serialise"),
        )
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions(bus: &EventBus, run_id: &str, behind: u64) -> Option<Vec<u64>> {
        let past = bus.past(run_id, behind)?;
        Some(past.iter().filter_map(|event| event.position).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn the_newest_events_of_a_run_are_kept_for_those_who_come_late() {
        let bus = EventBus::new();
        for _ in 0..3 {
            bus.publish_of_run("k1", EventName::Agent, &"x");
        }
        assert_eq!(positions(&bus, "k1", 0), Some(vec![1, 2, 3]));
        assert_eq!(positions(&bus, "k1", 2), Some(vec![3]));
        assert_eq!(positions(&bus, "k1", 3), Some(vec![]));
        assert_eq!(positions(&bus, "k1", 17), Some(vec![1, 2, 3]), "of another life of the gateway");
        assert_eq!(positions(&bus, "k2", 0), None);
        bus.publish_of_run("k1", EventName::Agent, &"x".repeat(KEPT_BYTES - 5));
        assert_eq!(positions(&bus, "k1", 0), Some(vec![3, 4]), "three bytes and two quotes");
        bus.publish_of_run("k1", EventName::Agent, &"x".repeat(KEPT_BYTES * 2));
        assert_eq!(positions(&bus, "k1", 0), Some(vec![5]));
    }

    #[tokio::test(start_paused = true)]
    async fn the_events_of_ended_runs_are_kept_for_a_minute_and_bounded() {
        let bus = EventBus::new();
        for run_id in ["k1", "k2"] {
            bus.publish_of_run(run_id, EventName::Agent, &"x");
        }
        bus.end_run("k1");
        tokio::time::sleep(KEEP_ENDED).await;
        assert!(bus.past("k1", 0).is_some());
        bus.end_run("k2");
        assert!(bus.past("k1", 0).is_none() && bus.past("k2", 0).is_some());
        tokio::time::sleep(KEEP_ENDED).await;
        bus.sweep();
        assert!(bus.past("k2", 0).is_none(), "though no other run has ended");
        for number in 0..=(KEPT_ENDED_BYTES / KEPT_BYTES) {
            let run_id = format!("large{number}");
            bus.publish_of_run(&run_id, EventName::Agent, &"x".repeat(KEPT_BYTES));
            bus.end_run(&run_id);
        }
        assert!(bus.past("large0", 0).is_none() && bus.past("large9", 0).is_some());
        assert!(bus.pasts().ended_bytes <= KEPT_ENDED_BYTES);
    }
}
