//! Who listens on a port of this machine.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use serde::Serialize;

/// How long this machine may take to accept a connection to itself.
const ACCEPT_LIMIT: Duration = Duration::from_millis(200);

/// A process that listens on a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Listener {
    pub(crate) pid: u32,
    /// The name of the process.
    pub(crate) command: String,
    /// The addresses, with the port; joined by commas.
    pub(crate) address: String,
    /// Whose process it is; absent where the system does not tell.
    pub(crate) user: Option<String>,
    /// The command with its arguments; the values of those that are secret left out.
    pub(crate) command_line: Option<String>,
    /// The parent process.
    pub(crate) ppid: Option<u32>,
}

/// A port of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) port: u16,
    /// Whether somebody listens there.
    pub(crate) is_busy: bool,
    /// Who does. Processes of others are seen only with their rights, so that a busy port may have none.
    pub(crate) listeners: Vec<Listener>,
}

/// Looks at a port.
pub(crate) fn look(port: u16) -> Port {
    let mut addresses: BTreeMap<u32, (String, Vec<SocketAddr>)> = BTreeMap::new();
    // A system that does not tell leaves only the connection to judge by.
    for listener in listeners::get_all().unwrap_or_default() {
        let is_meant = listener.socket.port() == port
            && listener.protocol == listeners::Protocol::TCP
            && listener.state == listeners::SocketState::Listen;
        if is_meant {
            let entry = addresses.entry(listener.process.pid);
            entry.or_insert_with(|| (listener.process.name, Vec::new())).1.push(listener.socket);
        }
    }
    let listeners: Vec<Listener> = addresses
        .into_iter()
        .map(|(pid, (command, mut sockets))| {
            sockets.sort_unstable();
            sockets.dedup();
            let address = sockets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let (user, ppid) = owner(pid);
            Listener { pid, command, address, user, command_line: command_line(pid), ppid }
        })
        .collect();
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let is_busy = !listeners.is_empty() || TcpStream::connect_timeout(&here, ACCEPT_LIMIT).is_ok();
    Port { port, is_busy, listeners }
}

/// The account and the parent of a process.
fn owner(pid: u32) -> (Option<String>, Option<u32>) {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u32>().ok()
    };
    let user = field("Uid:").map(|uid| {
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let name = passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
        });
        name.unwrap_or_else(|| uid.to_string())
    });
    (user, field("PPid:"))
}

fn command_line(pid: u32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut hide_next = false;
    let words: Vec<String> = String::from_utf8_lossy(&bytes)
        .split('\0')
        .filter(|word| !word.is_empty())
        .map(|word| {
            let hide = std::mem::replace(&mut hide_next, matches!(word, "--token" | "--password"));
            match word.split_once('=') {
                _ if hide => "***".to_owned(),
                Some((name @ ("--token" | "--password"), _)) => format!("{name}=***"),
                _ => word.to_owned(),
            }
        })
        .collect();
    (!words.is_empty()).then(|| words.join(" "))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_of_this_process_is_found() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let address = listener.local_addr().expect("it is bound");
        let port = look(address.port());
        assert!(port.is_busy);
        let found = &port.listeners[0];
        assert_eq!((found.pid, found.address.as_str()), (std::process::id(), address.to_string().as_str()));
        assert!(found.user.is_some() && found.ppid.is_some() && found.command_line.is_some());
        drop(listener);
        assert_eq!(
            look(address.port()),
            Port { port: address.port(), is_busy: false, listeners: Vec::new() }
        );
    }
}
