//! Keeps guessers waiting: failed authentications by address and kind of credential (wire.md section 4).

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// How many failures within the window lock an address out.
const FAILURES: usize = 10;
/// The window.
const WINDOW: Duration = Duration::from_secs(60);
/// For how long an address is locked out.
const LOCKED: Duration = Duration::from_secs(300);
/// How many addresses are remembered. When there are more, those that failed longest ago are forgotten.
const ADDRESSES: usize = 4096;

/// What was guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum CredentialKind {
    /// The gateway's token or password.
    Secret,
    /// The token of a device.
    DeviceToken,
}

/// Who tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Guesser {
    pub(crate) ip: IpAddr,
    /// Whether a page in a browser is behind the attempt (it sent an `Origin`): any page that the user visits can
    /// reach loopback, so that such an attempt is never exempt.
    pub(crate) from_browser: bool,
}

impl Guesser {
    fn is_exempt(self) -> bool {
        self.ip.to_canonical().is_loopback() && !self.from_browser
    }

    /// Who has one IPv6 address has its whole /64.
    fn network(self) -> IpAddr {
        match self.ip.to_canonical() {
            IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
            ip @ IpAddr::V4(_) => ip,
        }
    }
}

/// The failures of late.
#[derive(Debug, Default)]
pub(crate) struct Lockout {
    entries: Mutex<HashMap<(IpAddr, CredentialKind), Entry>>,
}

#[derive(Debug)]
struct Entry {
    /// The failures within the window, oldest first; no more than [`FAILURES`].
    failures: VecDeque<Instant>,
    locked_until: Option<Instant>,
}

impl Entry {
    fn last(&self) -> Option<Instant> {
        self.failures.back().copied()
    }

    fn is_over(&self, now: Instant) -> bool {
        self.locked_until.is_none_or(|until| until <= now)
            && self.last().is_none_or(|last| last + WINDOW <= now)
    }
}

impl Lockout {
    /// Nobody is locked out.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// How long the guesser has to wait before an attempt is looked at, be it good or bad; `None` when it has not.
    pub(crate) fn retry_after(&self, guesser: Guesser, kind: CredentialKind) -> Option<Duration> {
        if guesser.is_exempt() {
            return None;
        }
        let now = Instant::now();
        let until = self.entries().get(&(guesser.network(), kind))?.locked_until?;
        (until > now).then(|| until - now)
    }

    /// Counts a failed attempt.
    pub(crate) fn failed(&self, guesser: Guesser, kind: CredentialKind) {
        if guesser.is_exempt() {
            return;
        }
        let now = Instant::now();
        let mut entries = self.entries();
        let key = (guesser.network(), kind);
        if entries.len() >= ADDRESSES && !entries.contains_key(&key) {
            make_room(&mut entries, now);
        }
        let entry =
            entries.entry(key).or_insert_with(|| Entry { failures: VecDeque::new(), locked_until: None });
        entry.failures.retain(|failure| *failure + WINDOW > now);
        entry.failures.push_back(now);
        if entry.failures.len() >= FAILURES {
            entry.failures.clear();
            entry.locked_until = Some(now + LOCKED);
            tracing::warn!(address = %guesser.ip, credential = ?kind, "locked out after too many failed attempts");
        }
    }

    /// Forgets the failures: the guesser knew it after all.
    pub(crate) fn succeeded(&self, guesser: Guesser, kind: CredentialKind) {
        self.entries().remove(&(guesser.network(), kind));
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<(IpAddr, CredentialKind), Entry>> {
        // An entry is whole after every change: a panic elsewhere does not spoil it.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets what is over, and if that is nothing, the half that failed longest ago; those locked out go last.
fn make_room(entries: &mut HashMap<(IpAddr, CredentialKind), Entry>, now: Instant) {
    entries.retain(|_, entry| !entry.is_over(now));
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

    fn at(ip: &str) -> Guesser {
        Guesser { ip: ip.parse().expect("an address"), from_browser: false }
    }

    fn fail(lockout: &Lockout, guesser: Guesser, times: usize) {
        for _ in 0..times {
            lockout.failed(guesser, CredentialKind::Secret);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ten_failures_within_a_minute_lock_an_address_out_for_five() {
        let lockout = Lockout::new();
        let (guesser, other) = (at("192.0.2.7"), at("192.0.2.8"));
        fail(&lockout, guesser, 9);
        assert_eq!(lockout.retry_after(guesser, CredentialKind::Secret), None);
        fail(&lockout, guesser, 1);
        assert_eq!(lockout.retry_after(guesser, CredentialKind::Secret), Some(LOCKED));
        assert_eq!(lockout.retry_after(guesser, CredentialKind::DeviceToken), None);
        assert_eq!(lockout.retry_after(other, CredentialKind::Secret), None);
        tokio::time::advance(Duration::from_secs(299)).await;
        assert_eq!(lockout.retry_after(guesser, CredentialKind::Secret), Some(Duration::from_secs(1)));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(lockout.retry_after(guesser, CredentialKind::Secret), None);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_failures_and_successes_do_not_add_up() {
        let lockout = Lockout::new();
        let guesser = at("192.0.2.7");
        fail(&lockout, guesser, 9);
        tokio::time::advance(Duration::from_secs(60)).await;
        fail(&lockout, guesser, 9);
        lockout.succeeded(guesser, CredentialKind::Secret);
        fail(&lockout, guesser, 9);
        assert_eq!(lockout.retry_after(guesser, CredentialKind::Secret), None);
    }

    #[tokio::test(start_paused = true)]
    async fn loopback_is_exempt_unless_a_page_is_behind_it() {
        let lockout = Lockout::new();
        for ip in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            fail(&lockout, at(ip), 50);
            assert_eq!(lockout.retry_after(at(ip), CredentialKind::Secret), None);
        }
        let page = Guesser { from_browser: true, ..at("127.0.0.1") };
        fail(&lockout, page, 10);
        assert_eq!(lockout.retry_after(page, CredentialKind::Secret), Some(LOCKED));
        assert_eq!(lockout.retry_after(at("127.0.0.1"), CredentialKind::Secret), None);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_and_a_network_counts_as_one() {
        let lockout = Lockout::new();
        fail(&lockout, at("2001:db8::1"), 5);
        fail(&lockout, at("2001:db8::2"), 5);
        assert!(lockout.retry_after(at("2001:db8::3"), CredentialKind::Secret).is_some());
        for number in 0..20_000_u32 {
            let ip = std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).into();
            lockout.failed(Guesser { ip, from_browser: false }, CredentialKind::Secret);
        }
        assert!(lockout.entries().len() <= ADDRESSES);
        assert!(lockout.retry_after(at("2001:db8::3"), CredentialKind::Secret).is_some(), "locks are kept");
    }
}
