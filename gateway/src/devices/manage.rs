//! What methods do with devices: list, approve, reject, remove, rename, and their tokens.

use openclaw_schema::{
    events::PairingDecision,
    methods::device::{DevicePairListResult, DeviceTokenInfo, PairedDevice, PendingDevice},
    types::TimestampMs,
};

use super::{
    Devices, Registry,
    attempt::Protocol,
    covers,
    live::DeviceLink,
    new_token,
    record::{ApprovedVia, Device, PairingRequest, Role, sorted},
    satisfies,
};
use crate::{
    state::StateError,
    store::{DeviceChange, StoreError},
};

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManageError {
    /// No such request, or it has expired.
    #[error("unknown requestId")]
    UnknownRequest,
    /// No such device.
    #[error("unknown deviceId")]
    UnknownDevice,
    /// Nobody gives away what they do not hold.
    #[error("missing scope: {0}")]
    MissingScope(String),
    /// No such device, role or scope to rotate.
    #[error("device token rotation denied")]
    RotationDenied,
    /// No such device or role to revoke.
    #[error("device token revocation denied")]
    RevocationDenied,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There was no randomness for a token.
    #[error(transparent)]
    Token(#[from] StateError),
}

/// A token that was replaced.
#[derive(Debug)]
pub(crate) struct Rotated {
    pub(crate) scopes: Vec<String>,
    pub(crate) rotated_at: TimestampMs,
    /// The new token, when the device itself asked by its own token.
    pub(crate) token: Option<String>,
}

impl Devices {
    /// Requests that wait, newest first, and devices, the latest approved first.
    pub(crate) async fn list(&self) -> Result<DevicePairListResult, ManageError> {
        let registry = self.registry().await?;
        let now = (self.clock)();
        let mut pending: Vec<_> = registry
            .requests
            .values()
            .filter(|request| !request.has_expired(now))
            .map(PairingRequest::listed)
            .collect();
        pending.sort_by(|a, b| b.ts.cmp(&a.ts).then_with(|| a.device_id.cmp(&b.device_id)));
        let mut paired: Vec<_> = registry.devices.values().map(|device| self.listed(device)).collect();
        paired.sort_by(|a, b| {
            b.approved_at_ms.cmp(&a.approved_at_ms).then_with(|| a.device_id.cmp(&b.device_id))
        });
        Ok(DevicePairListResult { pending, paired })
    }

    /// Approves a request. `held` are the scopes of whoever approves.
    pub(crate) async fn approve(
        &self,
        request_id: &str,
        held: &[String],
    ) -> Result<PairedDevice, ManageError> {
        let mut registry = self.registry().await?;
        let now = (self.clock)();
        let request = registry.find(request_id, now)?.clone();
        if let Some(missing) = request.scopes.iter().find(|scope| !satisfies(held, scope)) {
            return Err(ManageError::MissingScope(missing.clone()));
        }
        let mut device = registry.devices.get(&request.device_id).cloned().unwrap_or_else(|| Device {
            device_id: request.device_id.clone(),
            public_key: request.public_key.clone(),
            metadata: request.metadata.clone(),
            label: None,
            role: request.role,
            remote_ip: Some(request.remote_ip.clone()),
            approved_via: ApprovedVia::Owner,
            created_at: now,
            approved_at: now,
            last_seen_at: request.created_at,
            tokens: Vec::new(),
        });
        device.metadata = request.metadata;
        device.approved_via = ApprovedVia::Owner;
        device.approved_at = now;
        device.allow(request.role, &request.scopes, now, Protocol::V4)?;
        let changes =
            vec![DeviceChange::RemoveRequest(request.request_id), DeviceChange::Put(device.clone())];
        self.apply(&mut registry, changes).await?;
        tracing::info!(device = device.device_id, request = request_id, "a device was approved");
        self.resolved(request_id, &device.device_id, PairingDecision::Approved, now);
        Ok(self.listed(&device))
    }

    /// Rejects a request; tells the device that had asked.
    pub(crate) async fn reject(&self, request_id: &str) -> Result<String, ManageError> {
        let mut registry = self.registry().await?;
        let now = (self.clock)();
        let device_id = registry.find(request_id, now)?.device_id.clone();
        let changes = vec![DeviceChange::RemoveRequest(request_id.to_owned())];
        self.apply(&mut registry, changes).await?;
        self.resolved(request_id, &device_id, PairingDecision::Rejected, now);
        Ok(device_id)
    }

    /// Removes a device with its tokens and its request, and ends its connections.
    pub(crate) async fn remove(&self, device_id: &str) -> Result<(), ManageError> {
        let mut registry = self.registry().await?;
        if !registry.devices.contains_key(device_id) {
            return Err(ManageError::UnknownDevice);
        }
        let request = registry.requests.get(device_id).map(|request| request.request_id.clone());
        let changes = request
            .map(DeviceChange::RemoveRequest)
            .into_iter()
            .chain([DeviceChange::Remove(device_id.to_owned())])
            .collect();
        self.apply(&mut registry, changes).await?;
        self.live.remove(device_id, None);
        Ok(())
    }

    /// Gives a device a name for people.
    pub(crate) async fn rename(&self, device_id: &str, label: &str) -> Result<(), ManageError> {
        let mut registry = self.registry().await?;
        let mut device = registry.devices.get(device_id).cloned().ok_or(ManageError::UnknownDevice)?;
        device.label = Some(label.to_owned());
        Ok(self.apply(&mut registry, vec![DeviceChange::Put(device)]).await?)
    }

    /// Replaces a token, and ends the connections that it stands for. `scopes` can only narrow it. `caller` is the
    /// device that asks, if one does.
    pub(crate) async fn rotate(
        &self,
        device_id: &str,
        role: &str,
        scopes: Option<Vec<String>>,
        caller: Option<&DeviceLink>,
    ) -> Result<Rotated, ManageError> {
        let mut registry = self.registry().await?;
        let now = (self.clock)();
        let mut device = registry.devices.get(device_id).cloned().ok_or(ManageError::RotationDenied)?;
        let role = Role::from_name(role).ok_or(ManageError::RotationDenied)?;
        let token = device
            .tokens
            .iter_mut()
            .find(|token| token.role == role)
            .filter(|token| scopes.as_ref().is_none_or(|scopes| covers(&token.scopes, scopes)))
            .ok_or(ManageError::RotationDenied)?;
        if let Some(scopes) = scopes {
            token.scopes = sorted(scopes);
        }
        token.value = new_token(Protocol::V4)?;
        token.rotated_at = Some(now);
        let is_own = caller.is_some_and(|caller| caller.device_id() == device_id && caller.is_by_token());
        let rotated = Rotated {
            scopes: token.scopes.clone(),
            rotated_at: now,
            token: is_own.then(|| token.value.clone()),
        };
        self.apply(&mut registry, vec![DeviceChange::Put(device)]).await?;
        self.live.remove(device_id, Some(role));
        Ok(rotated)
    }

    /// Takes a token and its role away, and ends the connections that it stands for. Tells when.
    pub(crate) async fn revoke(&self, device_id: &str, role: &str) -> Result<TimestampMs, ManageError> {
        let mut registry = self.registry().await?;
        let mut device = registry.devices.get(device_id).cloned().ok_or(ManageError::RevocationDenied)?;
        let role = Role::from_name(role)
            .filter(|role| device.token(*role).is_some())
            .ok_or(ManageError::RevocationDenied)?;
        device.tokens.retain(|token| token.role != role);
        self.apply(&mut registry, vec![DeviceChange::Put(device)]).await?;
        self.live.remove(device_id, Some(role));
        Ok((self.clock)())
    }

    fn listed(&self, device: &Device) -> PairedDevice {
        let metadata = &device.metadata;
        PairedDevice {
            device_id: device.device_id.clone(),
            public_key: device.public_key.clone(),
            platform: metadata.platform.clone(),
            device_family: metadata.device_family.clone(),
            client_id: Some(metadata.client_id.clone()),
            client_mode: Some(metadata.client_mode.clone()),
            display_name: metadata.display_name.clone(),
            label: device.label.clone(),
            role: Some(device.role.name().to_owned()),
            roles: device.roles(),
            scopes: device.scopes(),
            remote_ip: device.remote_ip.clone(),
            approved_via: Some(device.approved_via.name().to_owned()),
            created_at_ms: device.created_at,
            approved_at_ms: device.approved_at,
            last_seen_at_ms: Some(device.last_seen_at),
            last_seen_reason: Some("connect".to_owned()),
            connected: self.live.is_connected(&device.device_id),
            tokens: device
                .tokens
                .iter()
                .map(|token| DeviceTokenInfo {
                    role: token.role.name().to_owned(),
                    scopes: token.scopes.clone(),
                    created_at_ms: token.created_at,
                    rotated_at_ms: token.rotated_at,
                })
                .collect(),
        }
    }
}

impl Registry {
    fn find(&self, request_id: &str, now: TimestampMs) -> Result<&PairingRequest, ManageError> {
        self.requests
            .values()
            .find(|request| request.request_id == request_id && !request.has_expired(now))
            .ok_or(ManageError::UnknownRequest)
    }
}

impl PairingRequest {
    /// As the list and the event show it.
    pub(super) fn listed(&self) -> PendingDevice {
        PendingDevice {
            request_id: self.request_id.clone(),
            device_id: self.device_id.clone(),
            public_key: self.public_key.clone(),
            platform: self.metadata.platform.clone(),
            device_family: self.metadata.device_family.clone(),
            client_id: Some(self.metadata.client_id.clone()),
            client_mode: Some(self.metadata.client_mode.clone()),
            display_name: self.metadata.display_name.clone(),
            role: self.role.name().to_owned(),
            roles: vec![self.role.name().to_owned()],
            scopes: self.scopes.clone(),
            remote_ip: Some(self.remote_ip.clone()),
            silent: false,
            is_repair: self.is_repair,
            ts: self.created_at,
        }
    }
}
