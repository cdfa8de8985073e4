//! Connections of paired devices, so that they can be closed when the device is no longer trusted.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio_util::sync::{CancellationToken, WaitForCancellationFuture};

use super::record::Role;

/// The open connections, by device.
#[derive(Debug, Default)]
pub(super) struct Live {
    links: Mutex<Links>,
}

#[derive(Debug, Default)]
struct Links {
    next: u64,
    by_device: HashMap<String, Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    role: Role,
    removed: CancellationToken,
}

/// The link of a connection to its device. To be held for as long as the connection is open.
#[derive(Debug)]
pub(crate) struct DeviceLink {
    live: Arc<Live>,
    id: u64,
    device_id: String,
    by_token: bool,
    removed: CancellationToken,
}

impl DeviceLink {
    /// What the connection is closed with when the device is removed (wire.md section 6).
    pub(crate) const REMOVED: (u16, &'static str) = (4001, "device removed");

    pub(crate) fn device_id(&self) -> &str {
        &self.device_id
    }

    /// Whether the device was recognised by its own token.
    pub(crate) fn is_by_token(&self) -> bool {
        self.by_token
    }

    /// Ends when the device, or its token for the role of this connection, is removed or replaced: answer what
    /// is ready, then close with [`Self::REMOVED`].
    pub(crate) fn removed(&self) -> WaitForCancellationFuture<'_> {
        self.removed.cancelled()
    }

    pub(crate) fn is_removed(&self) -> bool {
        self.removed.is_cancelled()
    }
}

impl Drop for DeviceLink {
    fn drop(&mut self) {
        let mut links = self.live.links();
        if let Some(entries) = links.by_device.get_mut(&self.device_id) {
            entries.retain(|entry| entry.id != self.id);
            if entries.is_empty() {
                links.by_device.remove(&self.device_id);
            }
        }
    }
}

impl Live {
    pub(super) fn enter(self: &Arc<Self>, device_id: &str, role: Role, by_token: bool) -> DeviceLink {
        let removed = CancellationToken::new();
        let mut links = self.links();
        links.next += 1;
        let id = links.next;
        let entry = Entry { id, role, removed: removed.clone() };
        links.by_device.entry(device_id.to_owned()).or_default().push(entry);
        DeviceLink { live: Arc::clone(self), id, device_id: device_id.to_owned(), by_token, removed }
    }

    pub(super) fn is_connected(&self, device_id: &str) -> bool {
        self.links().by_device.contains_key(device_id)
    }

    /// Tells the connections of a device that it is gone, or gone in one role.
    pub(super) fn remove(&self, device_id: &str, role: Option<Role>) {
        let links = self.links();
        let entries = links.by_device.get(device_id).into_iter().flatten();
        for entry in entries.filter(|entry| role.is_none_or(|role| role == entry.role)) {
            entry.removed.cancel();
        }
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        // The list is whole after every change: a panic elsewhere does not spoil it.
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
