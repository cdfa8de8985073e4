//! Devices: who may connect with what, pairing, and the tokens of devices (wire.md sections 4 to 6).
//!
//! Knows no sockets and no envelopes. The handshake asks [`Devices::authorize`]; methods manage what it keeps.
//! Everything is in memory and in the [`Store`]: a change is stored before it holds.

pub(crate) mod attempt;
pub(crate) mod live;
pub(crate) mod manage;
pub(crate) mod proof;
pub(crate) mod record;
pub(crate) mod refusal;
pub(crate) mod setup;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use openclaw_schema::{
    events::{DevicePairResolvedEvent, EventName, PairingDecision},
    methods::device::{PendingDevice, SetupAccess, SetupCompletion},
    types::TimestampMs,
};
use subtle::ConstantTimeEq as _;
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};
use uuid::Uuid;

use self::{
    attempt::{ConnectAttempt, Protocol},
    live::{DeviceLink, Live},
    manage::ManageError,
    proof::{Signed, normal},
    record::{ApprovedVia, Device, Metadata, PairingReason, PairingRequest, Role, Token, sorted},
    refusal::{Details, Refusal},
    setup::{IssuedCode, Place, SetupCodes, grants},
};
use crate::{
    auth::{AuthMethod, CurrentAuth, SecretCheck},
    caller::Page,
    events::EventBus,
    lockout::{CredentialKind, Lockout},
    state::{StateError, hex, random_bytes},
    store::{DeviceChange, Store, StoreError},
};

/// For how long a request waits for a decision, in milliseconds.
const REQUEST_LIFETIME_MS: u64 = 300_000;
/// How many requests may wait. When there are more, the oldest is forgotten.
const MAX_REQUESTS: usize = 256;
/// After which time of absence a device that was paired silently makes room for another one of its kind, in
/// milliseconds.
const PRUNE_AFTER_MS: u64 = 60_000;

/// These programs serve pages of a browser or act for one: never without a device.
const UI_CLIENTS: &[&str] =
    &["webchat-ui", "openclaw-control-ui", "openclaw-browser-copilot", "openclaw-tui", "webchat"];
/// These programs are pages themselves: a browser says for them where they come from.
const PAGE_CLIENTS: &[&str] = &["webchat-ui", "openclaw-control-ui", "webchat"];
/// The platform of these ends in the version of the system, which changes with every update of it.
const NATIVE_APPS: &[&str] =
    &["openclaw-macos", "openclaw-linux", "openclaw-ios", "openclaw-watchos", "openclaw-android"];

/// By what a caller was recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Credential {
    /// The gateway's secret, or nothing where it asks for nothing.
    Secret(AuthMethod),
    /// The token of the device.
    DeviceToken,
    /// The token of a setup code, which is good for this.
    SetupCode(SetupAccess),
}

impl Credential {
    /// The name on the wire (wire.md section 3, `auth.method`).
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Secret(method) => method.name(),
            Self::DeviceToken => "device-token",
            Self::SetupCode(_) => "bootstrap-token",
        }
    }
}

/// What a connection may do.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) credential: Credential,
    pub(crate) role: Role,
    /// The scopes by name, in the order they were asked for; names that the gateway does not know are kept.
    pub(crate) scopes: Vec<String>,
    /// The device, where there is one; its key is proven.
    pub(crate) device_id: Option<String>,
    /// The token to give to the device.
    pub(crate) device_token: Option<IssuedToken>,
    /// Tokens for other roles of the device, which a setup code grants.
    pub(crate) more_tokens: Vec<RoleToken>,
    /// To be held for as long as the connection is open; absent for callers that are not paired.
    pub(crate) link: Option<DeviceLink>,
}

/// A token on its way to its device.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct IssuedToken {
    pub(crate) value: String,
    pub(crate) issued_at: TimestampMs,
}

/// A token on its way to its device, for a role that its connection does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RoleToken {
    pub(crate) role: Role,
    pub(crate) scopes: Vec<String>,
    pub(crate) token: IssuedToken,
}

impl fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedToken").field("issued_at", &self.issued_at).finish_non_exhaustive()
    }
}

/// Tells the time.
type Clock = Arc<dyn Fn() -> TimestampMs + Send + Sync>;

/// The devices of one gateway.
pub(crate) struct Devices {
    store: Store,
    auth: CurrentAuth,
    lockout: Arc<Lockout>,
    events: EventBus,
    /// Whether a device on the gateway's own host that shows the secret is paired without asking.
    auto_approve_local: AtomicBool,
    clock: Clock,
    /// Read from the store when it is needed first.
    registry: Mutex<Option<Registry>>,
    live: Arc<Live>,
}

/// What is stored, by device.
#[derive(Debug, Default)]
struct Registry {
    devices: HashMap<String, Device>,
    /// One for each device at most.
    requests: HashMap<String, PairingRequest>,
    setup_codes: SetupCodes,
}

impl fmt::Debug for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Devices").field("store", &self.store).finish_non_exhaustive()
    }
}

impl Devices {
    /// The devices in `store`, which is not opened before it is needed.
    pub(crate) fn new(
        store: Store,
        auth: CurrentAuth,
        lockout: Arc<Lockout>,
        events: EventBus,
        auto_approve_local: bool,
    ) -> Self {
        Self {
            store,
            auth,
            lockout,
            events,
            auto_approve_local: AtomicBool::new(auto_approve_local),
            clock: Arc::new(TimestampMs::now),
            registry: Mutex::new(None),
            live: Arc::default(),
        }
    }

    /// Says anew whether a device on the gateway's own host that shows the secret is paired without asking.
    pub(crate) fn approve_local(&self, auto_approve_local: bool) {
        self.auto_approve_local.store(auto_approve_local, Ordering::Release);
    }

    /// The count of failed attempts, which other ways in share.
    pub(crate) fn lockout(&self) -> &Arc<Lockout> {
        &self.lockout
    }

    /// Makes a setup code for a device that will find the gateway at `place`.
    pub(crate) async fn issue_setup_code(
        &self,
        place: &Place,
        access: SetupAccess,
    ) -> Result<IssuedCode, ManageError> {
        let now = (self.clock)();
        let (code, issued) = setup::issue(place, access, now)?;
        let mut registry = self.registry().await?;
        let overdue = registry.setup_codes.overdue(now).into_iter().map(DeviceChange::RemoveSetupCode);
        let changes = overdue.chain([DeviceChange::PutSetupCode(code)]).collect();
        self.apply(&mut registry, changes).await?;
        Ok(issued)
    }

    /// The device that a setup code has paired, if it has.
    pub(crate) async fn setup_completion(
        &self,
        setup_id: &str,
    ) -> Result<Option<SetupCompletion>, ManageError> {
        Ok(self.registry().await?.setup_codes.completion(setup_id))
    }

    /// Decides about a handshake, in the order of wire.md section 3: origin, device and signature, credential,
    /// pairing.
    pub(crate) async fn authorize(&self, attempt: &ConnectAttempt) -> Result<Grant, Refusal> {
        check_origin(attempt)?;
        let Some(proof) = &attempt.proof else { return self.authorize_without_device(attempt) };
        let signed = Signed {
            client_id: &attempt.client.client_id,
            client_mode: &attempt.client.client_mode,
            platform: attempt.client.platform.as_deref(),
            device_family: attempt.client.device_family.as_deref(),
            role: attempt.role,
            scopes: &attempt.scopes,
            token: attempt.signed_token(),
        };
        let key = proof.verify(&signed, &attempt.nonce, attempt.protocol, (self.clock)())?;
        let mut registry = self.registry().await.map_err(|error| failed(&error))?;
        let credential = self.recognise(attempt, Some((&*registry, &proof.id)))?;
        self.admit(&mut registry, attempt, &proof.id, key, credential).await
    }

    /// Device-less rules of wire.md section 4.
    fn authorize_without_device(&self, attempt: &ConnectAttempt) -> Result<Grant, Refusal> {
        let (id, mode) = (attempt.client.client_id.as_str(), attempt.client.client_mode.as_str());
        if UI_CLIENTS.contains(&id) || mode == "webchat" {
            return Err(Refusal::no_device_for_ui());
        }
        let is_backend = is_backend(&attempt.client);
        let method = self.auth.get().method();
        if method == AuthMethod::None && !is_backend || method != AuthMethod::None && !attempt.has_secret() {
            return Err(Refusal::no_device());
        }
        let credential = self.recognise(attempt, None)?;
        if attempt.role == Role::Node {
            return Err(Refusal::no_device());
        }
        // Clients of protocol 3 knew no devices, or could do without.
        let trusted = is_backend || (id, mode) == ("cli", "cli") || attempt.protocol == Protocol::V3;
        let scopes = if trusted && attempt.caller.is_local { attempt.scopes.clone() } else { Vec::new() };
        Ok(Grant {
            credential,
            role: attempt.role,
            scopes,
            device_id: None,
            device_token: None,
            more_tokens: Vec::new(),
            link: None,
        })
    }

    /// Looks at the credential. `proven` is what is stored, and the id of the device whose key is proven, if one is.
    fn recognise(
        &self,
        attempt: &ConnectAttempt,
        proven: Option<(&Registry, &str)>,
    ) -> Result<Credential, Refusal> {
        let auth = &attempt.auth;
        let authenticator = self.auth.get();
        let method = authenticator.method();
        let caller = attempt.caller;
        let [token, password, device_token, bootstrap_token] =
            [&auth.token, &auth.password, &auth.device_token, &auth.bootstrap_token]
                .map(|field| field.as_deref().filter(|value| !value.is_empty()));
        let guessed = [
            (token.or(password).is_some(), CredentialKind::Secret),
            (device_token.is_some(), CredentialKind::DeviceToken),
            (bootstrap_token.is_some(), CredentialKind::SetupCode),
        ];
        let guessed = || guessed.into_iter().filter_map(|(sent, kind)| sent.then_some(kind));
        if method != AuthMethod::None
            && let Some(wait) = guessed().filter_map(|kind| self.lockout.retry_after(caller, kind)).max()
        {
            return Err(Refusal::locked_out(wait));
        }
        let secret = authenticator.check_fields(token, password);
        if secret == SecretCheck::Good {
            self.lockout.succeeded(caller, CredentialKind::Secret);
            return Ok(Credential::Secret(method));
        }
        let device = proven.and_then(|(registry, id)| registry.devices.get(id));
        if let Some(known) = device.and_then(|device| device.token(attempt.role))
            && let Some(given) = device_token.or(token)
            && bool::from(given.as_bytes().ct_eq(known.value.as_bytes()))
        {
            guessed().for_each(|kind| self.lockout.succeeded(caller, kind));
            if !covers(&known.scopes, attempt.granted_scopes()) {
                return Err(Refusal::scopes(
                    "device token scope mismatch (re-pair or approve scope upgrade)",
                ));
            }
            return Ok(Credential::DeviceToken);
        }
        if let Some(given) = bootstrap_token
            && let Some((registry, _)) = proven
            && let Some(access) = registry.setup_codes.access(given, (self.clock)())
        {
            self.lockout.succeeded(caller, CredentialKind::SetupCode);
            let granted = grants(access).iter().find(|(role, _)| *role == attempt.role);
            let is_covered = granted.is_some_and(|(_, scopes)| covers(scopes, attempt.granted_scopes()));
            if !is_covered {
                return Err(Refusal::scopes(
                    "setup code scope mismatch (ask the gateway's owner for more access)",
                ));
            }
            return Ok(Credential::SetupCode(access));
        }
        guessed().for_each(|kind| self.lockout.failed(caller, kind));
        let refusal = if device_token.is_some() {
            Refusal::credential(
                "device token mismatch (rotate/reissue device token)",
                "AUTH_DEVICE_TOKEN_MISMATCH",
                "device_token_mismatch",
                false,
                "update_auth_credentials",
            )
        } else if bootstrap_token.is_some() && secret == SecretCheck::Missing {
            Refusal::credential(
                "setup code invalid, expired, revoked, or already used (ask the gateway's owner for a new one)",
                "AUTH_BOOTSTRAP_TOKEN_INVALID",
                "bootstrap_token_invalid",
                false,
                "review_auth_configuration",
            )
        } else {
            wrong_secret(method, secret, attempt.proof.is_some())
        };
        // Who shows nothing guesses nothing.
        Err(if guessed().next().is_some() { refusal.of_guess() } else { refusal })
    }

    /// Pairing: the auto-approval matrix of wire.md section 6.
    async fn admit(
        &self,
        registry: &mut Registry,
        attempt: &ConnectAttempt,
        device_id: &str,
        public_key: String,
        credential: Credential,
    ) -> Result<Grant, Refusal> {
        if let Credential::SetupCode(access) = credential {
            return self.set_up(registry, attempt, device_id, public_key, access).await;
        }
        let scopes = attempt.granted_scopes();
        let by_secret = matches!(credential, Credential::Secret(_));
        if by_secret && attempt.caller.is_local && is_backend(&attempt.client) {
            return Ok(Grant {
                credential,
                role: attempt.role,
                scopes: scopes.to_vec(),
                device_id: Some(device_id.to_owned()),
                device_token: None,
                more_tokens: Vec::new(),
                link: None,
            });
        }
        let now = (self.clock)();
        let silent = by_secret && attempt.caller.is_local && self.auto_approve_local.load(Ordering::Acquire);
        let mut changes = Vec::new();
        let known = registry.devices.get(device_id);
        let (mut device, approved) = match known {
            None if silent => {
                changes.extend(self.crowded_out(registry, &attempt.client, now).map(DeviceChange::Remove));
                (new_device(device_id, public_key, attempt, ApprovedVia::Silent, now), true)
            }
            None => {
                return Err(self
                    .ask(registry, attempt, device_id, public_key, PairingReason::NotPaired)
                    .await);
            }
            Some(known) => {
                let upgrade = upgrade_needed(known, attempt);
                let silently = silent
                    && match upgrade {
                        None => false,
                        Some(PairingReason::RoleUpgrade) => {
                            attempt.role == Role::Operator && same_client(&known.metadata, &attempt.client)
                        }
                        Some(PairingReason::ScopeUpgrade) => registry.request(device_id, now).is_none(),
                        Some(PairingReason::NotPaired | PairingReason::MetadataUpgrade) => false,
                    };
                if let Some(reason) = upgrade
                    && !silently
                {
                    return Err(self.ask(registry, attempt, device_id, public_key, reason).await);
                }
                (known.clone(), silently)
            }
        };
        let before = device.clone();
        if approved {
            device.allow(attempt.role, scopes, now, attempt.protocol).map_err(|error| failed(&error))?;
            device.approved_at = now;
        }
        device.adopt(&attempt.client);
        let is_new = known.is_none();
        let changed = is_new || device != before;
        device.last_seen_at = now;
        device.remote_ip = Some(attempt.caller.ip.to_string());
        if changed {
            changes.push(DeviceChange::Put(device.clone()));
            self.apply(registry, changes).await.map_err(|error| failed(&error))?;
        } else {
            let seen = DeviceChange::Seen {
                device_id: device_id.to_owned(),
                at: now,
                remote_ip: attempt.caller.ip.to_string(),
            };
            // When it was seen matters to nobody so much that it should be turned away.
            if let Err(error) = self.apply(registry, vec![seen]).await {
                tracing::warn!(%error, cause = ?error, "cannot note that a device was seen");
            }
        }
        if approved {
            tracing::info!(
                device = device_id,
                client = attempt.client.client_id,
                "a local device was paired silently"
            );
            self.resolved(&Uuid::new_v4().to_string(), device_id, PairingDecision::Approved, now);
        }
        let device_token = device.token(attempt.role).map(Token::issued);
        let link = self.live.enter(device_id, attempt.role, credential == Credential::DeviceToken);
        Ok(Grant {
            credential,
            role: attempt.role,
            scopes: scopes.to_vec(),
            device_id: Some(device_id.to_owned()),
            device_token,
            more_tokens: Vec::new(),
            link: Some(link),
        })
    }

    /// Pairs a device by a setup code, for every role that the code grants. The code is used up once that is stored.
    async fn set_up(
        &self,
        registry: &mut Registry,
        attempt: &ConnectAttempt,
        device_id: &str,
        public_key: String,
        access: SetupAccess,
    ) -> Result<Grant, Refusal> {
        let now = (self.clock)();
        let mut device = registry
            .devices
            .get(device_id)
            .cloned()
            .unwrap_or_else(|| new_device(device_id, public_key, attempt, ApprovedVia::Bootstrap, now));
        device.metadata = attempt.client.clone();
        device.approved_via = ApprovedVia::Bootstrap;
        device.approved_at = now;
        device.last_seen_at = now;
        device.remote_ip = Some(attempt.caller.ip.to_string());
        for (role, scopes) in grants(access) {
            let scopes: Vec<String> = scopes.iter().map(|scope| (*scope).to_owned()).collect();
            device.allow(*role, &scopes, now, attempt.protocol).map_err(|error| failed(&error))?;
        }
        let waiting = registry.requests.get(device_id);
        let waiting = waiting.map(|request| DeviceChange::RemoveRequest(request.request_id.clone()));
        let token = attempt.auth.bootstrap_token.as_deref().unwrap_or_default();
        let name = attempt.client.display_name.as_deref();
        let (used, completion) = registry.setup_codes.completed(token, device_id, name, now).unzip();
        let changes = waiting
            .into_iter()
            .chain([DeviceChange::Put(device.clone())])
            .chain(used.map(DeviceChange::PutSetupCode))
            .collect();
        self.apply(registry, changes).await.map_err(|error| failed(&error))?;
        tracing::info!(device = device_id, access = access.name(), "a device was paired by a setup code");
        self.resolved(&Uuid::new_v4().to_string(), device_id, PairingDecision::Approved, now);
        if let Some(completion) = completion {
            self.events.publish(EventName::DevicePairSetupCompleted, &completion, None);
        }
        let granted = |role: &Role| grants(access).iter().any(|(granted, _)| granted == role);
        let more_tokens = device
            .tokens
            .iter()
            .filter(|token| token.role != attempt.role && granted(&token.role))
            .map(|token| RoleToken { role: token.role, scopes: token.scopes.clone(), token: token.issued() })
            .collect();
        Ok(Grant {
            credential: Credential::SetupCode(access),
            role: attempt.role,
            scopes: attempt.granted_scopes().to_vec(),
            device_id: Some(device_id.to_owned()),
            device_token: device.token(attempt.role).map(Token::issued),
            more_tokens,
            link: Some(self.live.enter(device_id, attempt.role, false)),
        })
    }

    /// Silent pairings of the same client that have been away: the new one takes their place, or a host that
    /// makes a new key for every start would fill the list.
    fn crowded_out<'a>(
        &'a self,
        registry: &'a Registry,
        client: &'a Metadata,
        now: TimestampMs,
    ) -> impl Iterator<Item = String> + 'a {
        registry
            .devices
            .values()
            .filter(move |device| {
                device.approved_via == ApprovedVia::Silent
                    && device.metadata.client_id == client.client_id
                    && device.metadata.client_mode == client.client_mode
                    && device.metadata.display_name == client.display_name
                    && device.last_seen_at.0 + PRUNE_AFTER_MS < now.0
                    && !self.live.is_connected(&device.device_id)
            })
            .map(|device| device.device_id.clone())
    }

    /// Leaves a request, or finds the one that is there, and refuses.
    async fn ask(
        &self,
        registry: &mut Registry,
        attempt: &ConnectAttempt,
        device_id: &str,
        public_key: String,
        reason: PairingReason,
    ) -> Refusal {
        let now = (self.clock)();
        let asked = sorted(attempt.granted_scopes().iter().cloned());
        let waiting = registry.request(device_id, now).filter(|request| {
            request.role == attempt.role
                && request.reason == reason
                && request.scopes == asked
                && request.metadata == attempt.client
        });
        let request_id = match waiting {
            Some(request) => request.request_id.clone(),
            None => {
                let request = PairingRequest {
                    request_id: Uuid::new_v4().to_string(),
                    device_id: device_id.to_owned(),
                    public_key,
                    metadata: attempt.client.clone(),
                    role: attempt.role,
                    scopes: asked,
                    reason,
                    remote_ip: attempt.caller.ip.to_string(),
                    is_repair: registry.devices.contains_key(device_id),
                    created_at: now,
                };
                let request_id = request.request_id.clone();
                let event = request.listed();
                let mut changes = registry.overdue(now);
                changes.push(DeviceChange::PutRequest(request));
                if let Err(error) = self.apply(registry, changes).await {
                    return failed(&error);
                }
                tracing::info!(
                    device = device_id,
                    request = request_id,
                    reason = reason.name(),
                    "a device asks to be paired"
                );
                self.events.publish::<PendingDevice>(EventName::DevicePairRequested, &event, None);
                request_id
            }
        };
        let approved = registry.devices.get(device_id).filter(|_| reason != PairingReason::NotPaired);
        let details = Details {
            code: "PAIRING_REQUIRED",
            reason: Some(reason.name()),
            request_id: Some(request_id),
            remediation_hint: Some(match reason {
                PairingReason::NotPaired => "Approve this device from the pending pairing requests.",
                PairingReason::RoleUpgrade => "Approve the role from the pending pairing requests.",
                PairingReason::ScopeUpgrade => "Approve the scopes from the pending pairing requests.",
                PairingReason::MetadataUpgrade => {
                    "Approve what changed on this device from the pending pairing requests."
                }
            }),
            device_id: Some(device_id.to_owned()),
            requested_role: Some(attempt.role.name().to_owned()),
            requested_scopes: Some(attempt.granted_scopes().to_vec()),
            approved_roles: approved.map(Device::roles),
            approved_scopes: approved.map(Device::scopes),
            ..Details::default()
        };
        Refusal::pairing(details, reason)
    }

    fn resolved(&self, request_id: &str, device_id: &str, decision: PairingDecision, ts: TimestampMs) {
        let (request_id, device_id) = (request_id.to_owned(), device_id.to_owned());
        let event = DevicePairResolvedEvent { request_id, device_id, decision, ts };
        self.events.publish(EventName::DevicePairResolved, &event, None);
    }

    async fn registry(&self) -> Result<MappedMutexGuard<'_, Registry>, StoreError> {
        let mut registry = self.registry.lock().await;
        if registry.is_none() {
            let (devices, requests, setup_codes) = self.store.load_devices().await?;
            *registry = Some(Registry {
                devices: devices.into_iter().map(|device| (device.device_id.clone(), device)).collect(),
                requests: requests.into_iter().map(|request| (request.device_id.clone(), request)).collect(),
                setup_codes: SetupCodes::new(setup_codes),
            });
        }
        Ok(MutexGuard::map(registry, |registry| registry.get_or_insert_default()))
    }

    /// Stores the changes, then lets them hold.
    async fn apply(&self, registry: &mut Registry, changes: Vec<DeviceChange>) -> Result<(), StoreError> {
        self.store.save(changes.clone()).await?;
        for change in changes {
            registry.apply(change);
        }
        Ok(())
    }
}

impl Registry {
    fn apply(&mut self, change: DeviceChange) {
        match change {
            DeviceChange::Put(device) => {
                self.devices.insert(device.device_id.clone(), device);
            }
            DeviceChange::Seen { device_id, at, remote_ip } => {
                if let Some(device) = self.devices.get_mut(&device_id) {
                    device.last_seen_at = at;
                    device.remote_ip = Some(remote_ip);
                }
            }
            DeviceChange::Remove(device_id) => {
                self.devices.remove(&device_id);
            }
            DeviceChange::PutRequest(request) => {
                self.requests.insert(request.device_id.clone(), request);
            }
            DeviceChange::RemoveRequest(request_id) => {
                self.requests.retain(|_, request| request.request_id != request_id);
            }
            DeviceChange::PutSetupCode(code) => self.setup_codes.put(code),
            DeviceChange::RemoveSetupCode(setup_id) => self.setup_codes.remove(&setup_id),
        }
    }

    /// The request of a device, unless it has expired.
    fn request(&self, device_id: &str, now: TimestampMs) -> Option<&PairingRequest> {
        self.requests.get(device_id).filter(|request| !request.has_expired(now))
    }

    /// Forgets requests that have expired, and the oldest where there are too many.
    fn overdue(&self, now: TimestampMs) -> Vec<DeviceChange> {
        let mut overdue: Vec<&PairingRequest> =
            self.requests.values().filter(|request| request.has_expired(now)).collect();
        if self.requests.len() - overdue.len() >= MAX_REQUESTS {
            overdue.extend(self.requests.values().min_by_key(|request| request.created_at));
        }
        overdue.iter().map(|request| DeviceChange::RemoveRequest(request.request_id.clone())).collect()
    }
}

impl Token {
    fn issued(&self) -> IssuedToken {
        IssuedToken { value: self.value.clone(), issued_at: self.issued_at() }
    }
}

impl PairingRequest {
    fn has_expired(&self, now: TimestampMs) -> bool {
        self.created_at.0 + REQUEST_LIFETIME_MS <= now.0
    }
}

impl Device {
    /// Allows a role and scopes. Who is allowed more gets a new token.
    fn allow(
        &mut self,
        role: Role,
        scopes: &[String],
        now: TimestampMs,
        protocol: Protocol,
    ) -> Result<(), StateError> {
        match self.tokens.iter_mut().find(|token| token.role == role) {
            Some(token) if covers(&token.scopes, scopes) => {}
            Some(token) => {
                token.scopes = sorted(token.scopes.iter().chain(scopes).cloned());
                token.value = new_token(protocol)?;
                token.rotated_at = Some(now);
            }
            None => self.tokens.push(Token {
                role,
                value: new_token(protocol)?,
                scopes: sorted(scopes.iter().cloned()),
                created_at: now,
                rotated_at: None,
            }),
        }
        Ok(())
    }

    /// Learns what the client says of itself for the first time.
    fn adopt(&mut self, client: &Metadata) {
        let known = &mut self.metadata;
        known.device_family = known.device_family.take().or_else(|| client.device_family.clone());
        known.display_name = known.display_name.take().or_else(|| client.display_name.clone());
    }
}

fn new_device(
    device_id: &str,
    public_key: String,
    attempt: &ConnectAttempt,
    approved_via: ApprovedVia,
    now: TimestampMs,
) -> Device {
    Device {
        device_id: device_id.to_owned(),
        public_key,
        metadata: attempt.client.clone(),
        label: None,
        role: attempt.role,
        remote_ip: Some(attempt.caller.ip.to_string()),
        approved_via,
        created_at: now,
        approved_at: now,
        last_seen_at: now,
        tokens: Vec::new(),
    }
}

/// Pages may call when they are the gateway's own or trusted; programs that are pages must say where they come from
/// (wire.md section 4).
fn check_origin(attempt: &ConnectAttempt) -> Result<(), Refusal> {
    let client = &attempt.client;
    let is_page = PAGE_CLIENTS.contains(&client.client_id.as_str()) || client.client_mode == "webchat";
    match attempt.caller.page {
        Page::Foreign => Err(Refusal::origin("origin not allowed")),
        Page::None if is_page => Err(Refusal::origin("origin missing or invalid")),
        Page::None | Page::Own => Ok(()),
    }
}

/// What someone has to approve before a paired device gets what it asks for.
fn upgrade_needed(device: &Device, attempt: &ConnectAttempt) -> Option<PairingReason> {
    if !same_machine(&device.metadata, &attempt.client) {
        return Some(PairingReason::MetadataUpgrade);
    }
    match device.token(attempt.role) {
        None => Some(PairingReason::RoleUpgrade),
        Some(token) if covers(&token.scopes, attempt.granted_scopes()) => None,
        Some(_) => Some(PairingReason::ScopeUpgrade),
    }
}

/// Whether a client says that it runs on the machine that was approved.
fn same_machine(approved: &Metadata, now: &Metadata) -> bool {
    let same = |approved: &Option<String>, now: &Option<String>, by: fn(&str) -> &str| {
        let (Some(approved), Some(now)) = (approved, now) else { return true };
        by(&normal(Some(approved))) == by(&normal(Some(now)))
    };
    let first_word: fn(&str) -> &str = |name| name.split_whitespace().next().unwrap_or_default();
    let is_app = NATIVE_APPS.contains(&now.client_id.as_str());
    same(&approved.platform, &now.platform, if is_app { first_word } else { |name| name })
        && same(&approved.device_family, &now.device_family, |name| name)
}

fn same_client(approved: &Metadata, now: &Metadata) -> bool {
    approved.client_id == now.client_id
        && approved.client_mode == now.client_mode
        && same_machine(approved, now)
}

fn is_backend(client: &Metadata) -> bool {
    client.client_id == "gateway-client" && client.client_mode == "backend"
}

/// Whether `granted` satisfies every scope of `asked`. By name: grants hold names that this gateway does not know.
fn covers(granted: &[impl AsRef<str>], asked: &[String]) -> bool {
    asked.iter().all(|scope| satisfies(granted, scope))
}

fn satisfies(granted: &[impl AsRef<str>], scope: &str) -> bool {
    let has = |name: &str| granted.iter().any(|granted| granted.as_ref() == name);
    has(scope)
        || has("operator.admin")
        || matches!(scope, "operator.read" | "operator.talk") && has("operator.write")
}

fn new_token(protocol: Protocol) -> Result<String, StateError> {
    Ok(match protocol {
        Protocol::V3 => hex(&random_bytes::<16>()?),
        Protocol::V4 => URL_SAFE_NO_PAD.encode(random_bytes::<32>()?),
    })
}

fn wrong_secret(method: AuthMethod, secret: SecretCheck, has_device: bool) -> Refusal {
    let (configure, update) = ("update_auth_configuration", "update_auth_credentials");
    let token_hint = if has_device {
        "provide gateway auth token, or retry with the token of this device"
    } else {
        "provide gateway auth token"
    };
    match (method, secret) {
        (AuthMethod::Password, SecretCheck::Missing) => Refusal::credential(
            "gateway password missing (provide gateway auth password)",
            "AUTH_PASSWORD_MISSING",
            "password_missing",
            false,
            configure,
        ),
        (AuthMethod::Password, _) => Refusal::credential(
            "gateway password mismatch (provide gateway auth password)",
            "AUTH_PASSWORD_MISMATCH",
            "password_mismatch",
            has_device,
            if has_device { "retry_with_device_token" } else { update },
        ),
        (_, SecretCheck::Missing) => Refusal::credential(
            &format!("gateway token missing ({token_hint})"),
            "AUTH_TOKEN_MISSING",
            "token_missing",
            false,
            configure,
        ),
        _ => Refusal::credential(
            &format!("gateway token mismatch ({token_hint})"),
            "AUTH_TOKEN_MISMATCH",
            "token_mismatch",
            has_device,
            if has_device { "retry_with_device_token" } else { update },
        ),
    }
}

/// Puts the cause into the log, and refuses without it.
fn failed(error: &(dyn std::error::Error + 'static)) -> Refusal {
    let cause = error.source().map(ToString::to_string).unwrap_or_default();
    tracing::error!(%error, cause, "a handshake failed for a reason of the gateway's own");
    Refusal::failed()
}
