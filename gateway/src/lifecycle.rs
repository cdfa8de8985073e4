//! What happens to a running gateway: restarts that were asked for, and suspensions.
//!
//! A [`Lifecycle`] outlives the gateways that one process runs one after another. It carries wishes from callers to
//! whoever runs the gateway, and remembers how restarts went. It restarts nothing itself.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use openclaw_schema::{
    ErrorCode, RpcError,
    methods::lifecycle::{
        LastRestart, LifecycleStatus, PrepareStatus, RestartRequestResult, SuspendBlocker,
        SuspendPrepareResult, SuspendStatus, SuspendStatusResult,
    },
    types::TimestampMs,
};
use tokio::{sync::Notify, time::Instant};

use crate::context::millis;

/// How long a suspension lasts that nobody renews or ends. wire.md has none; stock documents two minutes.
const LEASE: Duration = Duration::from_secs(120);
/// When a caller is to ask again while a suspension waits for work to end.
const RETRY_AFTER_MS: u64 = 1000;

/// What callers may do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Everything.
    Accepting,
    /// Read, and what ends the suspension.
    Suspended,
}

/// Why a gateway ends its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Ending {
    /// It does not.
    None = 0,
    /// It stops.
    Stop = 1,
    /// It will be back in a moment.
    Restart = 2,
}

/// What is being worked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy {
    /// Runs that have not ended.
    pub runs: u64,
    /// Calls that have not been answered.
    pub calls: u64,
}

/// Restarts and suspensions of the gateways of one process. Cloning it is cheap.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    /// Until when calls that change something are refused, in milliseconds since 1970; 0 while there is no suspension.
    suspended_until: AtomicU64,
    /// An [`Ending`].
    ending: AtomicU8,
    /// A restart was asked for.
    asked: Notify,
    /// Held by the one gateway that is announced.
    announcing: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether somebody carries out restarts.
    restarts: bool,
    pending: Option<Pending>,
    count: u64,
    last: Option<LastRestart>,
    suspension: Option<Suspension>,
}

#[derive(Debug)]
struct Pending {
    due: Instant,
    due_ms: u64,
    reason: String,
}

#[derive(Debug)]
struct Suspension {
    id: String,
    request_id: String,
    expires_ms: u64,
}

/// Nobody carries out restarts: the program that embeds the gateway does not offer it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this gateway is part of a program that does not restart it; restart the program")]
pub struct NoRestarts;

/// Another suspension is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("another suspension is held; it ends in {remaining_ms} ms unless it is renewed")]
pub struct Conflict {
    /// How long it lasts if nobody renews it.
    pub remaining_ms: u64,
}

impl Lifecycle {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that restarts are carried out: by whoever awaits [`Self::restart_due`].
    pub fn offer_restarts(&self) {
        self.state().restarts = true;
    }

    /// Asks for a restart after `delay`. One that was asked for before counts, if it comes sooner.
    ///
    /// # Errors
    ///
    /// When nobody carries out restarts.
    pub fn request_restart(&self, reason: &str, delay: Duration) -> Result<RestartRequestResult, NoRestarts> {
        let mut state = self.state();
        if !state.restarts {
            return Err(NoRestarts);
        }
        let due = Instant::now() + delay;
        let earlier = state.pending.as_ref().is_some_and(|pending| pending.due <= due);
        let coalesced = state.pending.is_some();
        if !earlier {
            let due_ms = TimestampMs::now().0 + millis(delay);
            state.pending = Some(Pending { due, due_ms, reason: reason.to_owned() });
        }
        let restart_at = state.pending.as_ref().map_or(0, |pending| pending.due_ms);
        drop(state);
        self.inner.asked.notify_one();
        Ok(RestartRequestResult {
            ok: true,
            pid: std::process::id(),
            restart_at_ms: TimestampMs(restart_at),
            coalesced,
        })
    }

    /// Waits until a restart is due, and gives its reason. May be cancelled at any time.
    pub async fn restart_due(&self) -> String {
        loop {
            let asked = self.inner.asked.notified();
            let due = {
                let mut state = self.state();
                match state.pending.take_if(|pending| pending.due <= Instant::now()) {
                    Some(pending) => return pending.reason,
                    None => state.pending.as_ref().map(|pending| pending.due),
                }
            };
            match due {
                Some(due) => {
                    let _ = tokio::time::timeout_at(due, asked).await;
                }
                None => asked.await,
            }
        }
    }

    /// Remembers a restart. `problem` says why the gateway runs on as it was, if it does.
    pub fn restarted(&self, reason: &str, took: Duration, problem: Option<String>) {
        let mut state = self.state();
        if problem.is_none() {
            state.count += 1;
        }
        // Whoever asked meanwhile has what they asked for.
        state.pending = None;
        state.last = Some(LastRestart {
            at: TimestampMs::now(),
            reason: reason.to_owned(),
            duration_ms: millis(took),
            problem,
        });
    }

    /// What callers are told of it.
    #[must_use]
    pub fn status(&self) -> LifecycleStatus {
        let suspended = self.phase() == Phase::Suspended;
        let state = self.state();
        LifecycleStatus {
            suspended,
            restarts: state.count,
            restart_pending_ms: state.pending.as_ref().map(|pending| TimestampMs(pending.due_ms)),
            last_restart: state.last.clone(),
        }
    }

    /// What callers may do now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.inner.suspended_until.load(Ordering::Acquire) {
            0 => Phase::Accepting,
            until if TimestampMs::now().0 < until => Phase::Suspended,
            _ => Phase::Accepting,
        }
    }

    /// What a gateway holds for as long as it is announced, until it has said goodbye: a goodbye that comes after the
    /// announcement of the next gateway would take that one away.
    pub(crate) fn announcing(&self) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(&self.inner.announcing)
    }

    pub(crate) fn end(&self, ending: Ending) {
        self.inner.ending.store(ending as u8, Ordering::Release);
        if ending == Ending::None {
            // Whoever prepared a suspension meant the gateway that is gone.
            self.state().suspension = None;
            self.inner.suspended_until.store(0, Ordering::Release);
        }
    }

    /// What a caller is told that may not call `method` now; the name is empty where none is known.
    pub(crate) fn refusal(&self, method: &str) -> RpcError {
        // wire.md section 10: what a draining gateway answers, whatever the method.
        let ending = self.inner.ending.load(Ordering::Acquire);
        let (message, reason) = if ending == Ending::Restart as u8 {
            ("the gateway is restarting", "gateway-restarting")
        } else if ending == Ending::Stop as u8 {
            ("the gateway is stopping", "gateway-restarting")
        } else {
            ("the gateway is suspended and takes no new work", "gateway-suspended")
        };
        let mut error = RpcError::new(ErrorCode::Unavailable, message);
        error.data.retry_after_ms = Some(1000);
        error.data.reason = Some(reason.to_owned());
        if !method.is_empty() {
            // A name of any length may have been sent.
            error.data.method = Some(method.chars().take(128).collect());
        }
        error
    }

    /// Takes no new work, so that the host can be frozen. With work going on it does so only if `drain` is set. The
    /// same `request_id` renews its suspension.
    ///
    /// # Errors
    ///
    /// Another suspension is held.
    pub fn suspend(
        &self,
        request_id: &str,
        drain: bool,
        busy: impl FnOnce() -> Busy,
    ) -> Result<SuspendPrepareResult, Conflict> {
        let mut state = self.state();
        let now = TimestampMs::now().0;
        let held = state.suspension.take_if(|held| held.expires_ms > now);
        if let Some(held) = held {
            if held.request_id != request_id {
                let remaining_ms = held.expires_ms - now;
                state.suspension = Some(held);
                return Err(Conflict { remaining_ms });
            }
            state.suspension = Some(held);
        }
        let expires_ms = now + millis(LEASE);
        let was_held = state.suspension.is_some();
        // First nobody may begin, then it is counted: nothing slips in between.
        self.inner.suspended_until.store(expires_ms, Ordering::Release);
        let busy = busy();
        let is_idle = busy.is_idle();
        if !is_idle && !drain && !was_held {
            self.inner.suspended_until.store(0, Ordering::Release);
            return Ok(SuspendPrepareResult {
                status: PrepareStatus::Busy,
                suspension_id: None,
                expires_at_ms: None,
                retry_after_ms: Some(RETRY_AFTER_MS),
                active_count: busy.count(),
                blockers: busy.blockers(),
            });
        }
        let suspension = state.suspension.get_or_insert_with(|| Suspension {
            id: uuid::Uuid::new_v4().to_string(),
            request_id: request_id.to_owned(),
            expires_ms,
        });
        suspension.expires_ms = expires_ms;
        Ok(SuspendPrepareResult {
            status: if is_idle { PrepareStatus::Ready } else { PrepareStatus::Draining },
            suspension_id: Some(suspension.id.clone()),
            expires_at_ms: Some(TimestampMs(expires_ms)),
            retry_after_ms: (!is_idle).then_some(RETRY_AFTER_MS),
            active_count: busy.count(),
            blockers: busy.blockers(),
        })
    }

    /// How the suspension stands.
    ///
    /// # Errors
    ///
    /// `id` is given and another suspension is held.
    pub fn suspension(
        &self,
        id: Option<&str>,
        busy: impl FnOnce() -> Busy,
    ) -> Result<SuspendStatusResult, Conflict> {
        let state = self.state();
        let now = TimestampMs::now().0;
        let Some(held) = state.suspension.as_ref().filter(|held| held.expires_ms > now) else {
            return Ok(SuspendStatusResult {
                status: SuspendStatus::Running,
                expires_at_ms: None,
                retry_after_ms: None,
                active_count: None,
                blockers: Vec::new(),
            });
        };
        if id.is_some_and(|id| id != held.id) {
            return Err(Conflict { remaining_ms: held.expires_ms - now });
        }
        let busy = busy();
        let is_idle = busy.is_idle();
        Ok(SuspendStatusResult {
            status: if is_idle { SuspendStatus::Ready } else { SuspendStatus::Draining },
            expires_at_ms: Some(TimestampMs(held.expires_ms)),
            retry_after_ms: (!is_idle).then_some(RETRY_AFTER_MS),
            active_count: (!is_idle).then(|| busy.count()),
            blockers: busy.blockers(),
        })
    }

    /// Takes new work again. Says whether there was a suspension to end.
    ///
    /// # Errors
    ///
    /// Another suspension is held.
    pub fn resume(&self, id: &str) -> Result<bool, Conflict> {
        let mut state = self.state();
        let now = TimestampMs::now().0;
        match state.suspension.take_if(|held| held.expires_ms <= now || held.id == id) {
            Some(ended) => {
                self.inner.suspended_until.store(0, Ordering::Release);
                Ok(ended.expires_ms > now)
            }
            None => match &state.suspension {
                Some(held) => Err(Conflict { remaining_ms: held.expires_ms - now }),
                None => Ok(false),
            },
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change is complete when the lock is released, even by a panic.
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Busy {
    fn is_idle(self) -> bool {
        self.count() == 0
    }

    fn count(self) -> u64 {
        self.runs + self.calls
    }

    fn blockers(self) -> Vec<SuspendBlocker> {
        [("agent-run", "run", self.runs), ("root-request", "request", self.calls)]
            .into_iter()
            .filter(|(_, _, count)| *count > 0)
            .map(|(kind, noun, count)| SuspendBlocker {
                kind: kind.to_owned(),
                count,
                message: format!("{count} active {noun}{}", if count == 1 { "" } else { "s" }),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Busy = Busy { runs: 0, calls: 0 };
    const AT_WORK: Busy = Busy { runs: 2, calls: 1 };

    #[tokio::test(start_paused = true)]
    async fn restarts_coalesce_and_the_sooner_one_counts() {
        let lifecycle = Lifecycle::new();
        assert_eq!(lifecycle.request_restart("early", Duration::ZERO), Err(NoRestarts));
        lifecycle.offer_restarts();
        let first = lifecycle.request_restart("later", Duration::from_secs(60)).expect("it is offered");
        assert!(!first.coalesced);
        assert!(lifecycle.status().restart_pending_ms.is_some());
        let second = lifecycle.request_restart("sooner", Duration::from_secs(1)).expect("it is offered");
        assert!(second.coalesced && second.restart_at_ms < first.restart_at_ms);
        let third = lifecycle.request_restart("never", Duration::from_secs(30)).expect("it is offered");
        assert_eq!(third.restart_at_ms, second.restart_at_ms);
        assert_eq!(lifecycle.restart_due().await, "sooner");
        lifecycle.restarted("sooner", Duration::from_millis(7), None);
        let status = lifecycle.status();
        assert_eq!((status.restarts, status.restart_pending_ms), (1, None));
        lifecycle.restarted("again", Duration::ZERO, Some("the configuration is broken".to_owned()));
        let status = lifecycle.status();
        assert_eq!(status.restarts, 1);
        assert_eq!(
            status.last_restart.and_then(|last| last.problem).as_deref(),
            Some("the configuration is broken")
        );
    }

    #[test]
    fn a_suspension_waits_for_work_only_if_asked_to() {
        let lifecycle = Lifecycle::new();
        let busy = lifecycle.suspend("a", false, || AT_WORK).expect("none is held");
        assert_eq!((busy.status, busy.active_count, busy.blockers.len()), (PrepareStatus::Busy, 3, 2));
        assert_eq!(lifecycle.phase(), Phase::Accepting);

        let draining = lifecycle.suspend("a", true, || AT_WORK).expect("none is held");
        assert_eq!((draining.status, lifecycle.phase()), (PrepareStatus::Draining, Phase::Suspended));
        let id = draining.suspension_id.expect("it is held");
        let ready = lifecycle.suspension(Some(&id), || IDLE).expect("it is ours");
        assert_eq!(ready.status, SuspendStatus::Ready);
        let renewed = lifecycle.suspend("a", false, || IDLE).expect("it is ours");
        assert_eq!((renewed.status, renewed.suspension_id.as_ref()), (PrepareStatus::Ready, Some(&id)));

        assert!(lifecycle.suspend("b", true, || IDLE).is_err());
        assert!(lifecycle.suspension(Some("other"), || IDLE).is_err());
        assert!(lifecycle.resume("other").is_err());
        assert_eq!((lifecycle.resume(&id), lifecycle.phase()), (Ok(true), Phase::Accepting));
        assert_eq!(lifecycle.resume(&id), Ok(false));
    }

    #[test]
    fn a_restart_ends_a_suspension() {
        let lifecycle = Lifecycle::new();
        lifecycle.suspend("a", false, || IDLE).expect("none is held");
        lifecycle.end(Ending::Restart);
        assert_eq!(lifecycle.refusal("any.method").message, "the gateway is restarting");
        lifecycle.end(Ending::None);
        assert_eq!(lifecycle.phase(), Phase::Accepting);
    }
}
