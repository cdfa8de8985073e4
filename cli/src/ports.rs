//! Who listens on the ports of this machine, and what is known of a process. Command lines are shown without secrets.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use listeners::{Protocol, SocketState};
use serde::Serialize;

use crate::{
    error::{CliError, Fault, Result},
    exit::Exit,
};

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
    // A system that does not tell leaves only the connection to judge by.
    let listening = listening(|socket| socket.port() == port).unwrap_or_default();
    let listeners: Vec<Listener> = listening
        .into_iter()
        .map(|(process, sockets)| Listener {
            pid: process.pid,
            command: process.name,
            address: sockets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
            user: process.user.map(user_name),
            command_line: process.command_line,
            ppid: process.parent,
        })
        .collect();
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let is_busy = !listeners.is_empty() || TcpStream::connect_timeout(&here, ACCEPT_LIMIT).is_ok();
    Port { port, is_busy, listeners }
}

/// The processes that listen on the sockets that `is_meant` takes, and on which of them, in order. Processes of others
/// are seen only with their rights.
pub(crate) fn listening(is_meant: impl Fn(SocketAddr) -> bool) -> Result<Vec<(Process, Vec<SocketAddr>)>> {
    let all = listeners::get_all().map_err(|error| {
        CliError::new(Fault::Cli, "LISTEN", Exit::Transient, "the system does not say who listens where")
            .cause(error)
    })?;
    let mut found: BTreeMap<u32, (String, Vec<SocketAddr>)> = BTreeMap::new();
    for listener in all {
        let listens = listener.protocol == Protocol::TCP && listener.state == SocketState::Listen;
        if listens && is_meant(listener.socket) {
            let entry = found.entry(listener.process.pid);
            entry.or_insert_with(|| (listener.process.name, Vec::new())).1.push(listener.socket);
        }
    }
    let known = |(pid, (name, mut sockets)): (u32, (String, Vec<SocketAddr>))| {
        sockets.sort_unstable();
        sockets.dedup();
        (Process { name, ..Process::of(pid) }, sockets)
    };
    Ok(found.into_iter().map(known).collect())
}

/// What is known of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Its name; empty where the system does not tell.
    pub(crate) name: String,
    /// The user it runs as; absent where the system does not tell.
    pub(crate) user: Option<u32>,
    /// The process that started it.
    pub(crate) parent: Option<u32>,
    /// The command with its arguments, secrets hidden. A process that has ended has none, also while its parent has not
    /// taken note of it.
    pub(crate) command_line: Option<String>,
}

impl Process {
    /// Looks at a process, which may be gone.
    pub(crate) fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next().map(str::to_owned)
        };
        Self {
            pid,
            name: field("Name:").unwrap_or_default(),
            user: field("Uid:").and_then(|user| user.parse().ok()),
            parent: field("PPid:").and_then(|parent| parent.parse().ok()),
            command_line: command_line(pid),
        }
    }
}

/// The name of a user, or its number where it has none.
pub(crate) fn user_name(user: u32) -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(user)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| user.to_string())
}

fn command_line(pid: u32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let line = shown(String::from_utf8_lossy(&bytes).split('\0').filter(|word| !word.is_empty()));
    (!line.is_empty()).then_some(line)
}

/// A command line in one line, the values of what is secret left out.
fn shown<'a>(args: impl Iterator<Item = &'a str>) -> String {
    let mut is_secret = false;
    let mut words = Vec::new();
    for arg in args {
        let name = arg.split('=').next().unwrap_or(arg);
        let hides = ["token", "password", "secret", "key"].iter().any(|end| name.ends_with(end));
        words.push(if std::mem::take(&mut is_secret) {
            "***".to_owned()
        } else if hides && name.len() < arg.len() {
            format!("{name}=***")
        } else {
            is_secret = hides && name.starts_with("--");
            arg.to_owned()
        });
    }
    // A script on a command line has lines of its own.
    words.join(" ").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_command_line_is_shown_without_secrets() {
        let show = |line: &str| shown(line.split(' '));
        assert_eq!(show("openclaw gateway --token abc --port 1"), "openclaw gateway --token *** --port 1");
        assert_eq!(show("x --password=abc API_key=abc y"), "x --password=*** API_key=*** y");
        assert_eq!(shown(["sh", "-c", "a\n  b"].into_iter()), "sh -c a b");
    }

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
