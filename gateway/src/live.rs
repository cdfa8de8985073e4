//! What may change while a gateway serves: takes over other settings, and says what waits for a restart.
//!
//! Nothing here reads a file: that is `reload`'s business.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use secrecy::ExposeSecret as _;
use tokio::sync::Semaphore;

use crate::{
    discovery::{Advertiser, TlsHint},
    settings::{Announcement, Auth, Settings},
    tls::Tls,
    wire::{Shared, guard::Guard},
};

/// What became of other settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// What has changed and is in force now, by the keys of the configuration.
    pub applied: Vec<&'static str>,
    /// What is otherwise than the gateway runs with, and waits for a restart.
    pub waits_for_restart: Vec<&'static str>,
}

impl Reloaded {
    /// What would become of `next` in a gateway that runs with `now`.
    #[must_use]
    pub fn between(now: &Settings, next: &Settings) -> Self {
        let mut reloaded = Self::default();
        for part in PARTS.iter().filter(|part| (part.differs)(now, next)) {
            match part.change {
                Some(_) => reloaded.applied.push(part.key),
                None => reloaded.waits_for_restart.push(part.key),
            }
        }
        reloaded
    }
}

/// One part of the settings.
struct Part {
    /// The keys of the configuration.
    key: &'static str,
    differs: fn(&Settings, &Settings) -> bool,
    /// Puts it in force, and notes it in the settings that are. `None` for what only a restart takes over.
    change: Option<fn(&Live, &mut Settings, &Settings)>,
}

// To let another part change while a gateway serves: give it a `change`.
const PARTS: &[Part] = &[
    Part {
        key: "gateway.auth",
        differs: |now, next| secret(&now.auth) != secret(&next.auth),
        change: Some(|live, now, next| {
            // What leaves the gateway must not show the new secret before anybody may present it.
            live.shared.context.config.add_credential(&next.auth);
            live.shared.auth.replace(&next.auth);
            now.auth = next.auth.clone();
        }),
    },
    Part {
        key: "gateway.auth.rateLimit",
        differs: |now, next| now.limits.lockout != next.limits.lockout,
        change: Some(|live, now, next| {
            live.shared.context.devices.lockout().change_limits(next.limits.lockout);
            now.limits.lockout = next.limits.lockout;
            live.shared.limits.store(Arc::new(now.limits.clone()));
        }),
    },
    Part {
        key: "limits",
        differs: |now, next| {
            let mut limits = next.limits.clone();
            (limits.lockout, limits.tick_interval) = (now.limits.lockout, now.limits.tick_interval);
            limits != now.limits
        },
        change: Some(|live, now, next| {
            let mut limits = next.limits.clone();
            (limits.lockout, limits.tick_interval) = (now.limits.lockout, now.limits.tick_interval);
            resize(&live.shared.connections, now.limits.max_connections, limits.max_connections);
            resize(&live.shared.unauthenticated, now.limits.max_unauthenticated, limits.max_unauthenticated);
            now.limits = limits;
            live.shared.limits.store(Arc::new(now.limits.clone()));
        }),
    },
    Part {
        key: "limits.tick_interval",
        differs: |now, next| now.limits.tick_interval != next.limits.tick_interval,
        change: None,
    },
    Part {
        key: "gateway.nodes",
        differs: |now, next| now.auto_approve_local != next.auto_approve_local,
        change: Some(|live, now, next| {
            live.shared.context.devices.approve_local(next.auto_approve_local);
            now.auto_approve_local = next.auto_approve_local;
        }),
    },
    Part {
        key: "gateway.controlUi.allowedOrigins or gateway.trustedProxies",
        differs: |now, next| now.trust != next.trust,
        change: Some(|live, now, next| {
            let proxy_url = now.proxy.as_ref().map(|proxy| proxy.url.as_str());
            let guard = Guard::new(&live.shared.context.hostname, proxy_url, next.trust.clone());
            live.shared.guard.store(Arc::new(guard));
            now.trust = next.trust.clone();
        }),
    },
    Part {
        key: "discovery",
        differs: |now, next| now.discovery != next.discovery,
        change: Some(|live, now, next| {
            live.announcer.announce(next.discovery.clone());
            now.discovery.clone_from(&next.discovery);
        }),
    },
    Part {
        key: "gateway.port or gateway.bind",
        differs: |now, next| now.listen != next.listen,
        change: None,
    },
    Part { key: "gateway.tls", differs: |now, next| now.tls != next.tls, change: None },
    Part { key: "agents", differs: |now, next| now.agents != next.agents, change: None },
    Part {
        key: "models",
        // Secrets do not show themselves.
        differs: |now, next| {
            format!("{:?}", now.models) != format!("{:?}", next.models)
                || model_secrets(now) != model_secrets(next)
        },
        change: None,
    },
    Part { key: "logging.file", differs: |now, next| now.log_file != next.log_file, change: None },
];

fn secret(auth: &Auth) -> (u8, &str) {
    match auth {
        Auth::None => (0, ""),
        Auth::Token(secret) => (1, secret.expose_secret()),
        Auth::Password(secret) => (2, secret.expose_secret()),
    }
}

fn model_secrets(settings: &Settings) -> Vec<&str> {
    let models = &settings.models;
    let of_providers = models
        .providers
        .values()
        .flat_map(|provider| provider.key.iter().chain(provider.headers.iter().map(|(_, secret)| secret)));
    let of_clis = models.clis.values().flat_map(|cli| cli.env.iter().map(|(_, secret)| secret));
    of_providers.chain(of_clis).map(|secret| secret.expose_secret()).collect()
}

/// Gives a semaphore room for `to` permits instead of `from`. Those that are taken beyond that stay until they are
/// given back.
fn resize(semaphore: &Arc<Semaphore>, from: usize, to: usize) {
    let Some(excess) = from.checked_sub(to) else {
        return semaphore.add_permits(to - from);
    };
    let taken = excess - semaphore.forget_permits(excess);
    if let Ok(taken) = u32::try_from(taken)
        && taken > 0
    {
        let semaphore = Arc::clone(semaphore);
        tokio::spawn(async move {
            // It is never closed.
            if let Ok(permits) = semaphore.acquire_many_owned(taken).await {
                permits.forget();
            }
        });
    }
}

/// A gateway that serves, as far as its settings may change.
pub(crate) struct Live {
    shared: Arc<Shared>,
    announcer: Announcer,
    /// What the gateway runs with now.
    settings: Mutex<Settings>,
}

impl Live {
    /// A gateway that runs with `settings`.
    pub(crate) fn new(shared: Arc<Shared>, announcer: Announcer, settings: Settings) -> Self {
        Self { shared, announcer, settings: Mutex::new(settings) }
    }

    /// Takes over what can be taken over.
    pub(crate) fn apply(&self, next: &Settings) -> Reloaded {
        let mut now = self.lock();
        let reloaded = Reloaded::between(&now, next);
        for part in PARTS.iter().filter(|part| reloaded.applied.contains(&part.key)) {
            if let Some(change) = part.change {
                change(self, &mut now, next);
            }
        }
        reloaded
    }

    /// What the gateway runs with now.
    pub(crate) fn settings(&self) -> Settings {
        self.lock().clone()
    }

    pub(crate) fn announcer(&self) -> &Announcer {
        &self.announcer
    }

    fn lock(&self) -> MutexGuard<'_, Settings> {
        // Each part is noted once it is in force.
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Announces a gateway as the settings say, which may change.
pub(crate) struct Announcer {
    addresses: Vec<SocketAddr>,
    /// Absent where the port is plain.
    tls: Option<Arc<Tls>>,
    /// Held by the one gateway of this process that is announced.
    turn: Arc<tokio::sync::Mutex<()>>,
    state: Mutex<AnnouncerState>,
}

#[derive(Default)]
struct AnnouncerState {
    advertiser: Option<Advertiser>,
    has_ended: bool,
}

impl Announcer {
    /// Of a gateway that listens on `addresses`; nothing is announced yet.
    pub(crate) fn new(
        addresses: Vec<SocketAddr>,
        tls: Option<Arc<Tls>>,
        turn: Arc<tokio::sync::Mutex<()>>,
    ) -> Self {
        Self { addresses, tls, turn, state: Mutex::default() }
    }

    /// Announces this instead of what was announced before, once that has said goodbye.
    pub(crate) fn announce(&self, announcement: Option<Announcement>) {
        let mut state = self.lock();
        if state.has_ended {
            return;
        }
        if let Some(before) = state.advertiser.take() {
            tokio::spawn(before.withdraw());
        }
        state.advertiser = announcement.map(|announcement| {
            let tls = self.tls.clone();
            let ask_tls = move || {
                let certificate_sha256 = Some(tls.as_ref()?.fingerprints().certificate);
                Some(TlsHint { certificate_sha256 })
            };
            let turn = Arc::clone(&self.turn);
            Advertiser::start(announcement, self.addresses.clone(), Box::new(ask_tls), turn)
        });
    }

    /// Says goodbye, for good. It is begun by the call; the future ends when it is done.
    pub(crate) fn end(&self) -> Option<impl Future<Output = ()> + use<>> {
        let mut state = self.lock();
        state.has_ended = true;
        state.advertiser.take().map(Advertiser::withdraw)
    }

    fn lock(&self) -> MutexGuard<'_, AnnouncerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_semaphore_shrinks_as_its_permits_come_back() {
        let semaphore = Arc::new(Semaphore::new(4));
        let held: Vec<_> =
            (0..3).map(|_| Arc::clone(&semaphore).try_acquire_owned().expect("there is room")).collect();
        resize(&semaphore, 4, 2);
        assert_eq!(semaphore.available_permits(), 0);
        tokio::task::yield_now().await;
        drop(held);
        tokio::task::yield_now().await;
        assert_eq!(semaphore.available_permits(), 2);
        resize(&semaphore, 2, 5);
        assert_eq!(semaphore.available_permits(), 5);
    }
}
