//! What is stored about devices: the devices themselves, their tokens, requests to be paired, and setup codes.

use openclaw_schema::{
    methods::device::{SetupAccess, SetupCompletion},
    types::TimestampMs,
};
use rusqlite::{Connection, Row, params};

use super::{Store, StoreError, list, named, read, stored, time};
use crate::devices::{
    record::{ApprovedVia, Device, Metadata, PairingReason, PairingRequest, Role, Token},
    setup::Code,
};

impl Store {
    /// Every device, every request that waits, and every setup code, oldest first.
    pub(crate) async fn load_devices(
        &self,
    ) -> Result<(Vec<Device>, Vec<PairingRequest>, Vec<Code>), StoreError> {
        self.write(|connection| Ok((devices(connection)?, requests(connection)?, setup_codes(connection)?)))
            .await
    }

    /// Writes all changes, or none.
    pub(crate) async fn save(&self, changes: Vec<DeviceChange>) -> Result<(), StoreError> {
        self.write(move |connection| changes.iter().try_for_each(|change| change.apply(connection))).await
    }
}

/// One change of what is stored about devices.
#[derive(Debug, Clone)]
pub(crate) enum DeviceChange {
    /// The device is as given, with these tokens and no others.
    Put(Device),
    /// The device was seen.
    Seen { device_id: String, at: TimestampMs, remote_ip: String },
    /// The device is gone, with its tokens.
    Remove(String),
    /// The device asks for this, and for nothing else.
    PutRequest(PairingRequest),
    /// The request is gone.
    RemoveRequest(String),
    /// The setup code is as given.
    PutSetupCode(Code),
    /// The setup code is forgotten.
    RemoveSetupCode(String),
}

impl DeviceChange {
    fn apply(&self, connection: &Connection) -> rusqlite::Result<()> {
        match self {
            Self::Put(device) => put(connection, device),
            Self::Seen { device_id, at, remote_ip } => connection
                .prepare_cached(
                    "UPDATE devices SET last_seen_at_ms = ?2, remote_ip = ?3 WHERE device_id = ?1",
                )?
                .execute(params![device_id, stored(*at), remote_ip])
                .map(drop),
            Self::Remove(device_id) => {
                connection.execute("DELETE FROM devices WHERE device_id = ?1", [device_id]).map(drop)
            }
            Self::PutRequest(request) => put_request(connection, request),
            Self::RemoveRequest(request_id) => connection
                .execute("DELETE FROM pairing_requests WHERE request_id = ?1", [request_id])
                .map(drop),
            Self::PutSetupCode(code) => put_setup_code(connection, code),
            Self::RemoveSetupCode(setup_id) => {
                connection.execute("DELETE FROM setup_codes WHERE setup_id = ?1", [setup_id]).map(drop)
            }
        }
    }
}

fn put(connection: &Connection, device: &Device) -> rusqlite::Result<()> {
    // Replacing the row takes the old tokens with it.
    connection.execute("DELETE FROM devices WHERE device_id = ?1", [&device.device_id])?;
    let metadata = &device.metadata;
    connection.execute(
        "INSERT INTO devices VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        params![
            device.device_id,
            device.public_key,
            metadata.client_id,
            metadata.client_mode,
            metadata.platform,
            metadata.device_family,
            metadata.display_name,
            device.label,
            device.role.name(),
            device.remote_ip,
            device.approved_via.name(),
            stored(device.created_at),
            stored(device.approved_at),
            stored(device.last_seen_at),
        ],
    )?;
    for token in &device.tokens {
        connection.execute(
            "INSERT INTO device_tokens VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                device.device_id,
                token.role.name(),
                token.value,
                list(&token.scopes),
                stored(token.created_at),
                token.rotated_at.map(stored),
            ],
        )?;
    }
    Ok(())
}

fn put_request(connection: &Connection, request: &PairingRequest) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM pairing_requests WHERE device_id = ?1", [&request.device_id])?;
    let metadata = &request.metadata;
    connection.execute(
        "INSERT INTO pairing_requests VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
        params![
            request.request_id,
            request.device_id,
            request.public_key,
            metadata.client_id,
            metadata.client_mode,
            metadata.platform,
            metadata.device_family,
            metadata.display_name,
            request.role.name(),
            list(&request.scopes),
            request.reason.name(),
            request.remote_ip,
            request.is_repair,
            stored(request.created_at),
        ],
    )?;
    Ok(())
}

fn devices(connection: &Connection) -> rusqlite::Result<Vec<Device>> {
    let mut devices = connection
        .prepare(
            "SELECT device_id, public_key, client_id, client_mode, platform, device_family, display_name, label,
                    role, remote_ip, approved_via, created_at_ms, approved_at_ms, last_seen_at_ms
             FROM devices",
        )?
        .query_map([], |row| {
            Ok(Device {
                device_id: row.get(0)?,
                public_key: row.get(1)?,
                metadata: metadata(row)?,
                label: row.get(7)?,
                role: named(row, 8, Role::from_name)?,
                remote_ip: row.get(9)?,
                approved_via: named(row, 10, ApprovedVia::from_name)?,
                created_at: time(row, 11)?,
                approved_at: time(row, 12)?,
                last_seen_at: time(row, 13)?,
                tokens: Vec::new(),
            })
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut tokens = connection.prepare(
        "SELECT role, token, scopes, created_at_ms, rotated_at_ms FROM device_tokens
         WHERE device_id = ?1 ORDER BY created_at_ms, role",
    )?;
    for device in &mut devices {
        device.tokens = tokens
            .query_map([&device.device_id], |row| {
                Ok(Token {
                    role: named(row, 0, Role::from_name)?,
                    value: row.get(1)?,
                    scopes: named(row, 2, |text| serde_json::from_str(text).ok())?,
                    created_at: time(row, 3)?,
                    rotated_at: row.get::<_, Option<i64>>(4)?.map(read),
                })
            })?
            .collect::<rusqlite::Result<_>>()?;
    }
    Ok(devices)
}

fn requests(connection: &Connection) -> rusqlite::Result<Vec<PairingRequest>> {
    connection
        .prepare(
            "SELECT device_id, public_key, client_id, client_mode, platform, device_family, display_name,
                    request_id, role, scopes, reason, remote_ip, is_repair, created_at_ms
             FROM pairing_requests",
        )?
        .query_map([], |row| {
            Ok(PairingRequest {
                device_id: row.get(0)?,
                public_key: row.get(1)?,
                metadata: metadata(row)?,
                request_id: row.get(7)?,
                role: named(row, 8, Role::from_name)?,
                scopes: named(row, 9, |text| serde_json::from_str(text).ok())?,
                reason: named(row, 10, PairingReason::from_name)?,
                remote_ip: row.get(11)?,
                is_repair: row.get(12)?,
                created_at: time(row, 13)?,
            })
        })?
        .collect()
}

fn put_setup_code(connection: &Connection, code: &Code) -> rusqlite::Result<()> {
    let completion = code.completion.as_ref();
    connection.execute(
        "INSERT OR REPLACE INTO setup_codes VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            code.setup_id,
            code.digest,
            code.access.name(),
            stored(code.expires_at),
            completion.map(|completion| &completion.device_id),
            completion.and_then(|completion| completion.device_name.as_ref()),
            completion.map(|completion| stored(completion.ts)),
        ],
    )?;
    Ok(())
}

fn setup_codes(connection: &Connection) -> rusqlite::Result<Vec<Code>> {
    connection
        .prepare(
            "SELECT setup_id, digest, access, expires_at_ms, device_id, device_name, completed_at_ms
             FROM setup_codes ORDER BY expires_at_ms",
        )?
        .query_map([], |row| {
            let setup_id: String = row.get(0)?;
            let access = named(row, 2, SetupAccess::from_name)?;
            let completion = match (row.get(4)?, row.get::<_, Option<i64>>(6)?) {
                (Some(device_id), Some(at)) => Some(SetupCompletion {
                    setup_id: setup_id.clone(),
                    device_id,
                    device_name: row.get(5)?,
                    access,
                    ts: read(at),
                }),
                _ => None,
            };
            Ok(Code { setup_id, digest: row.get(1)?, access, expires_at: time(row, 3)?, completion })
        })?
        .collect()
}

/// The metadata, which both queries select as columns 2 to 6.
fn metadata(row: &Row<'_>) -> rusqlite::Result<Metadata> {
    Ok(Metadata {
        client_id: row.get(2)?,
        client_mode: row.get(3)?,
        platform: row.get(4)?,
        device_family: row.get(5)?,
        display_name: row.get(6)?,
    })
}
