//! Keeps callers waiting: a delay after each wrong secret, and a lockout after too many, by address and kind of
//! credential (wire.md section 4).

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use openclaw_schema::{ErrorCode, RpcError};
use tokio::time::Instant;

use crate::{caller::Caller, context::millis, settings::LockoutLimits};

/// How long the answer to a wrong secret is held back. wire.md section 4: about 250 ms.
const DELAY: Duration = Duration::from_millis(250);
/// How many addresses are remembered. When there are more, those that failed longest ago are forgotten.
const ADDRESSES: usize = 4096;

/// What was guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum CredentialKind {
    /// The gateway's token or password.
    Secret,
    /// The token of a device.
    DeviceToken,
    /// The token of a setup code.
    SetupCode,
}

/// What attempts are counted by. Who has one IPv6 address has its whole /64.
fn network(caller: Caller) -> IpAddr {
    match caller.ip {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
        ip @ IpAddr::V4(_) => ip,
    }
}

/// The failures of late.
#[derive(Debug)]
pub(crate) struct Lockout {
    limits: ArcSwap<LockoutLimits>,
    entries: Mutex<HashMap<(IpAddr, CredentialKind), Entry>>,
}

/// What a caller that is locked out is told over JSON-RPC; the words are those of frames (wire.md section 4).
pub(crate) fn told(wait: Duration) -> RpcError {
    let message = "unauthorized: too many failed authentication attempts (retry later)";
    let mut error = RpcError::new(ErrorCode::RateLimited, message);
    error.data.retry_after_ms = Some(millis(wait));
    error
}

#[derive(Debug)]
struct Entry {
    /// The failures within the window, oldest first; no more than lock it out.
    failures: VecDeque<Instant>,
    locked_until: Option<Instant>,
}

impl Entry {
    fn last(&self) -> Option<Instant> {
        self.failures.back().copied()
    }

    fn is_over(&self, window: Duration, now: Instant) -> bool {
        self.locked_until.is_none_or(|until| until <= now)
            && self.last().is_none_or(|last| last + window <= now)
    }
}

impl Lockout {
    /// Nobody is locked out.
    pub(crate) fn new(limits: LockoutLimits) -> Self {
        Self { limits: ArcSwap::from_pointee(limits), entries: Mutex::default() }
    }

    /// Counts by other bounds from now on. Failures that are remembered count on, and who is locked out stays so.
    pub(crate) fn change_limits(&self, limits: LockoutLimits) {
        self.limits.store(limits.into());
    }

    /// Whether failed attempts are held against the caller.
    fn counts(&self, caller: Caller) -> bool {
        caller.may_be_locked_out() || !self.limits.load().exempt_loopback
    }

    /// How long the caller has to wait before an attempt is looked at, be it good or bad; `None` when it has not.
    pub(crate) fn retry_after(&self, caller: Caller, kind: CredentialKind) -> Option<Duration> {
        if !self.counts(caller) {
            return None;
        }
        let now = Instant::now();
        let until = self.entries().get(&(network(caller), kind))?.locked_until?;
        (until > now).then(|| until - now)
    }

    /// Counts a failed attempt. Whoever answers it waits for [`Self::delay`] first.
    pub(crate) fn failed(&self, caller: Caller, kind: CredentialKind) {
        if !self.counts(caller) {
            return;
        }
        let now = Instant::now();
        let LockoutLimits { max_attempts, window, lockout, .. } = **self.limits.load();
        let mut entries = self.entries();
        let key = (network(caller), kind);
        if entries.len() >= ADDRESSES && !entries.contains_key(&key) {
            make_room(&mut entries, window, now);
        }
        let entry =
            entries.entry(key).or_insert_with(|| Entry { failures: VecDeque::new(), locked_until: None });
        entry.failures.retain(|failure| *failure + window > now);
        entry.failures.push_back(now);
        if entry.failures.len() >= max_attempts {
            entry.failures.clear();
            entry.locked_until = Some(now + lockout);
            tracing::warn!(address = %caller.ip, credential = ?kind, "locked out after too many failed attempts");
        }
    }

    /// Forgets the failures: the caller knew it after all. One whose failures are not counted clears nobody's.
    pub(crate) fn succeeded(&self, caller: Caller, kind: CredentialKind) {
        if self.counts(caller) {
            self.entries().remove(&(network(caller), kind));
        }
    }

    /// Passes when the answer to a wrong secret may be given. Holds nothing meanwhile.
    pub(crate) async fn delay(&self) {
        tokio::time::sleep(DELAY).await;
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<(IpAddr, CredentialKind), Entry>> {
        // An entry is whole after every change: a panic elsewhere does not spoil it.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets what is over, and if that is nothing, the half that failed longest ago; those locked out go last.
fn make_room(entries: &mut HashMap<(IpAddr, CredentialKind), Entry>, window: Duration, now: Instant) {
    entries.retain(|_, entry| !entry.is_over(window, now));
    if entries.len() < ADDRESSES {
        return;
    }
    let mut by_age: Vec<_> =
        entries.iter().map(|(key, entry)| ((entry.locked_until, entry.last()), *key)).collect();
    by_age.sort_unstable_by_key(|(age, _)| *age);
    for (_, key) in by_age.into_iter().take(ADDRESSES / 2) {
        entries.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::Page;

    fn at(ip: &str) -> Caller {
        Caller::at(ip.parse().expect("an address"))
    }

    fn fail(lockout: &Lockout, caller: Caller, times: usize) {
        for _ in 0..times {
            lockout.failed(caller, CredentialKind::Secret);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ten_failures_within_a_minute_lock_an_address_out_for_five() {
        let lockout = Lockout::new(LockoutLimits::default());
        let (caller, other) = (at("192.0.2.7"), at("192.0.2.8"));
        fail(&lockout, caller, 9);
        assert_eq!(lockout.retry_after(caller, CredentialKind::Secret), None);
        fail(&lockout, caller, 1);
        assert_eq!(lockout.retry_after(caller, CredentialKind::Secret), Some(Duration::from_secs(300)));
        assert_eq!(lockout.retry_after(caller, CredentialKind::DeviceToken), None);
        assert_eq!(lockout.retry_after(other, CredentialKind::Secret), None);
        tokio::time::advance(Duration::from_secs(299)).await;
        assert_eq!(lockout.retry_after(caller, CredentialKind::Secret), Some(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(lockout.retry_after(caller, CredentialKind::Secret), None);
    }

    #[tokio::test(start_paused = true)]
    async fn bounds_may_change_and_what_was_earned_stays() {
        let lockout = Lockout::new(LockoutLimits::default());
        let (caller, other, local) = (at("192.0.2.7"), at("192.0.2.8"), at("127.0.0.1"));
        fail(&lockout, caller, 10);
        fail(&lockout, other, 2);
        lockout.change_limits(LockoutLimits {
            max_attempts: 3,
            lockout: Duration::from_secs(7),
            exempt_loopback: false,
            ..LockoutLimits::default()
        });
        assert_eq!(lockout.retry_after(caller, CredentialKind::Secret), Some(Duration::from_secs(300)));
        fail(&lockout, other, 1);
        assert_eq!(lockout.retry_after(other, CredentialKind::Secret), Some(Duration::from_secs(7)));
        fail(&lockout, local, 3);
        assert!(lockout.retry_after(local, CredentialKind::Secret).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn slow_failures_and_successes_do_not_add_up() {
        let lockout = Lockout::new(LockoutLimits::default());
        let caller = at("192.0.2.7");
        fail(&lockout, caller, 9);
        tokio::time::advance(Duration::from_secs(60)).await;
        fail(&lockout, caller, 9);
        lockout.succeeded(caller, CredentialKind::Secret);
        fail(&lockout, caller, 9);
        assert_eq!(lockout.retry_after(caller, CredentialKind::Secret), None);
    }

    #[tokio::test(start_paused = true)]
    async fn loopback_is_exempt_unless_a_page_is_behind_it() {
        let lockout = Lockout::new(LockoutLimits::default());
        for ip in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            fail(&lockout, at(ip), 50);
            assert_eq!(lockout.retry_after(at(ip), CredentialKind::Secret), None);
        }
        let page = Caller { page: Page::Own, ..at("127.0.0.1") };
        fail(&lockout, page, 9);
        lockout.succeeded(at("127.0.0.1"), CredentialKind::Secret);
        fail(&lockout, page, 1);
        assert_eq!(lockout.retry_after(page, CredentialKind::Secret), Some(Duration::from_secs(300)));
        assert_eq!(lockout.retry_after(at("127.0.0.1"), CredentialKind::Secret), None);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_and_a_network_counts_as_one() {
        let lockout = Lockout::new(LockoutLimits::default());
        fail(&lockout, at("2001:db8::1"), 5);
        fail(&lockout, at("2001:db8::2"), 5);
        assert!(lockout.retry_after(at("2001:db8::3"), CredentialKind::Secret).is_some());
        for number in 0..20_000_u32 {
            let ip = std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).into();
            lockout.failed(Caller::at(ip), CredentialKind::Secret);
        }
        assert!(lockout.entries().len() <= ADDRESSES);
        assert!(lockout.retry_after(at("2001:db8::3"), CredentialKind::Secret).is_some(), "locks are kept");
    }

    #[tokio::test(start_paused = true)]
    async fn the_configuration_may_be_stricter() {
        let limits = LockoutLimits {
            max_attempts: 2,
            window: Duration::from_secs(1),
            lockout: Duration::from_secs(7),
            exempt_loopback: false,
        };
        let (lockout, caller) = (Lockout::new(limits), at("127.0.0.1"));
        fail(&lockout, caller, 1);
        tokio::time::advance(Duration::from_secs(1)).await;
        fail(&lockout, caller, 1);
        assert_eq!(lockout.retry_after(caller, CredentialKind::Secret), None);
        fail(&lockout, caller, 1);
        assert_eq!(lockout.retry_after(caller, CredentialKind::Secret), Some(Duration::from_secs(7)));
    }
}
