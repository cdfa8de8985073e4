//! Who is connected: open connections, and the presence list that `system-presence` answers.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use openclaw_schema::{
    Scope,
    events::{EventName, PresenceEvent},
    methods::{connect::ConnectClientInfo, gateway::PresenceEntry},
    types::{Text, TimestampMs},
};

use crate::{connection::Connection, events::EventBus};

/// How many clients that have gone stay listed.
const GONE_KEPT: usize = 50;

/// Clients of these modes come and go with every command: they are not listed (wire.md section 7).
const UNLISTED_MODES: &[&str] = &["cli", "backend", "probe"];

/// Open connections and the clients behind them.
#[derive(Debug)]
pub(crate) struct Connections {
    open: AtomicU64,
    clients: Mutex<Clients>,
    events: EventBus,
}

#[derive(Debug)]
struct Clients {
    /// The gateway's own entry.
    own: PresenceEntry,
    connected: HashMap<u64, PresenceEntry>,
    /// Clients that have gone, oldest first.
    gone: Vec<PresenceEntry>,
}

impl Clients {
    fn list(&self) -> Vec<PresenceEntry> {
        let mut connected: Vec<_> = self.connected.iter().collect();
        connected.sort_by_key(|(id, _)| **id);
        let connected = connected.into_iter().map(|(_, entry)| entry);
        std::iter::once(&self.own).chain(connected).chain(self.gone.iter().rev()).cloned().collect()
    }
}

/// Counts a connection for as long as it is open.
#[derive(Debug)]
pub(crate) struct Open<'a> {
    connections: &'a Connections,
    id: u64,
}

impl Connections {
    pub(crate) fn new(hostname: &str, events: EventBus) -> Self {
        let own = PresenceEntry {
            host: Some(hostname.to_owned()),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            platform: Some(std::env::consts::OS.to_owned()),
            mode: Some("gateway".to_owned()),
            reason: Some("self".to_owned()),
            text: Some(format!("Gateway: {hostname}")),
            ts: TimestampMs::now(),
            ..PresenceEntry::default()
        };
        let clients = Clients { own, connected: HashMap::new(), gone: Vec::new() };
        Self { open: AtomicU64::new(0), clients: Mutex::new(clients), events }
    }

    /// Counts a connection.
    pub(crate) fn enter(&self, connection: &Connection) -> Open<'_> {
        self.open.fetch_add(1, Ordering::Relaxed);
        Open { connections: self, id: connection.id() }
    }

    pub(crate) fn open(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// The presence list, the gateway first.
    pub(crate) fn list(&self) -> Vec<PresenceEntry> {
        self.clients().list()
    }

    /// Lists the client that named itself on a connection.
    pub(crate) fn introduce(&self, connection: &Connection, client: &ConnectClientInfo) {
        let mode = client.mode.as_ref().map(Text::as_str);
        if mode.is_some_and(|mode| UNLISTED_MODES.contains(&mode)) {
            return;
        }
        let name = client.display_name.as_ref().map(Text::as_str).or(client.id.as_ref().map(Text::as_str));
        let entry = PresenceEntry {
            ip: Some(connection.caller().ip.to_string()),
            client_id: client.id.as_ref().map(Text::to_string),
            version: client.version.as_ref().map(Text::to_string),
            platform: client.platform.as_ref().map(Text::to_string),
            mode: mode.map(str::to_owned),
            reason: Some("connect".to_owned()),
            instance_id: client.instance_id.as_ref().map(Text::to_string),
            scopes: Some(connection.scopes().iter().map(Scope::name).map(str::to_owned).collect()),
            text: Some(format!("Client: {}", name.unwrap_or("unnamed"))),
            ts: TimestampMs::now(),
            ..PresenceEntry::default()
        };
        self.change(|clients| {
            clients.connected.insert(connection.id(), entry);
            true
        });
    }

    fn leave(&self, id: u64) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.change(|clients| {
            let Some(mut entry) = clients.connected.remove(&id) else { return false };
            entry.reason = Some("disconnect".to_owned());
            entry.ts = TimestampMs::now();
            if clients.gone.len() == GONE_KEPT {
                clients.gone.remove(0);
            }
            clients.gone.push(entry);
            true
        });
    }

    /// Changes the list and, when it did change, tells everyone.
    fn change(&self, change: impl FnOnce(&mut Clients) -> bool) {
        let presence = {
            let mut clients = self.clients();
            if !change(&mut clients) {
                return;
            }
            clients.list()
        };
        self.events.publish(EventName::Presence, &PresenceEvent { presence }, None);
    }

    fn clients(&self) -> std::sync::MutexGuard<'_, Clients> {
        // The list is whole after every change: a panic elsewhere does not spoil it.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.connections.leave(self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{auth::CurrentAuth, caller::Caller, connection::Transport, settings::Auth};

    fn connection(id: u64) -> Connection {
        let auth = CurrentAuth::new(&Auth::None);
        let remote = ([127, 0, 0, 1], 1).into();
        let caller = Caller::at([127, 0, 0, 1].into());
        Connection::new(id, remote, caller, Transport::WebSocket, None, auth)
    }

    fn client(mode: &str) -> ConnectClientInfo {
        ConnectClientInfo { mode: Text::new(mode).ok(), ..ConnectClientInfo::default() }
    }

    #[test]
    fn clients_come_and_go_behind_the_gateway() {
        let connections = Connections::new("studio", EventBus::new());
        let ui = connection(7);
        let open = connections.enter(&ui);
        connections.introduce(&ui, &client("ui"));
        let reasons =
            |list: Vec<PresenceEntry>| list.into_iter().filter_map(|entry| entry.reason).collect::<Vec<_>>();
        assert_eq!(reasons(connections.list()), ["self", "connect"]);
        drop(open);
        assert_eq!(
            (reasons(connections.list()), connections.open()),
            (vec!["self".into(), "disconnect".into()], 0)
        );
    }

    #[test]
    fn commands_are_not_listed() {
        let connections = Connections::new("studio", EventBus::new());
        let cli = connection(8);
        let _open = connections.enter(&cli);
        connections.introduce(&cli, &client("cli"));
        assert_eq!(connections.list().len(), 1);
    }

    #[test]
    fn the_list_of_the_gone_is_bounded() {
        let connections = Connections::new("studio", EventBus::new());
        for id in 0..200 {
            let ui = connection(id);
            let _open = connections.enter(&ui);
            connections.introduce(&ui, &client("ui"));
        }
        assert_eq!(connections.list().len(), 1 + GONE_KEPT);
    }
}
