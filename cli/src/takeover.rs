//! Who is in the way of a gateway that is to start: what listens on its port, and what holds its state directory. Names
//! them, and with `--force` stops them.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
    os::unix::fs::MetadataExt as _,
    thread,
    time::{Duration, Instant},
};

use listeners::{Protocol, SocketState};
use openclaw_gateway::{settings::Settings, state::StateLock};
use rustix::{
    io::Errno,
    process::{Pid, Signal, geteuid, kill_process},
};

use crate::{
    error::{CliError, Fault, Result},
    exit::Exit,
    output::Printer,
};

/// How long a process has to end after SIGTERM. A gateway without work needs a fraction of a second.
const TERM_PATIENCE: Duration = Duration::from_secs(5);
/// How long it has after SIGKILL, which only a process that hangs in the system survives.
const KILL_PATIENCE: Duration = Duration::from_secs(2);
/// How often to look whether it has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// How much of a command line is shown, in characters.
const MAX_COMMAND_CHARS: usize = 120;

/// A process in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Occupant {
    pid: u32,
    /// The user it runs as; absent where the system does not tell.
    user: Option<u32>,
    command: String,
    /// What it has.
    holds: String,
}

impl fmt::Display for Occupant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user =
            self.user.map_or_else(|| "user unknown".to_owned(), |user| format!("user {}", user_name(user)));
        write!(f, "pid {} ({user}), which {}: {}", self.pid, self.holds, self.command)
    }
}

/// Stops every process that is in the way of a gateway with these settings.
pub(crate) fn make_room(settings: &Settings, printer: &Printer) -> Result<()> {
    let found = occupants(settings)?;
    // All are looked at before one is touched.
    for occupant in &found {
        ensure_stoppable(occupant)?;
    }
    for occupant in &found {
        printer.note(&format!("stopping {occupant}"));
        stop(occupant, printer)?;
    }
    for address in settings.listen.iter().filter(|address| address.port() != 0) {
        if is_taken(*address) {
            return Err(refused(format!(
                "{address} is taken by a process that this user cannot see: it belongs to another user"
            ))
            .hint("stop it as that user, or name another port with `--port`")
            .into());
        }
    }
    Ok(())
}

/// What listens on the addresses, as far as this user can see.
pub(crate) fn who_listens(addresses: &[SocketAddr]) -> Vec<Occupant> {
    listening(addresses).unwrap_or_default()
}

fn occupants(settings: &Settings) -> Result<Vec<Occupant>> {
    let mut found = listening(&settings.listen)?;
    if let Some(pid) = StateLock::holder(&settings.state) {
        let holds = format!("holds the state directory {}", settings.state.root().display());
        match found.iter_mut().find(|occupant| occupant.pid == pid) {
            Some(occupant) => occupant.holds = format!("{} and {holds}", occupant.holds),
            None => found.push(Occupant::new(pid, holds)),
        }
    }
    Ok(found)
}

fn listening(addresses: &[SocketAddr]) -> Result<Vec<Occupant>> {
    let all = listeners::get_all().map_err(|error| {
        CliError::new(Fault::Cli, "LISTEN", Exit::Transient, "the system does not say who listens where")
            .cause(error)
    })?;
    let is_wanted = |socket: SocketAddr| {
        addresses.iter().any(|address| {
            let any = address.ip().is_unspecified() || socket.ip().is_unspecified();
            address.port() == socket.port() && (any || address.ip() == socket.ip())
        })
    };
    let mut by_pid: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for listener in all {
        let listens = listener.protocol == Protocol::TCP && listener.state == SocketState::Listen;
        if listens && is_wanted(listener.socket) {
            by_pid.entry(listener.process.pid).or_default().push(listener.socket.to_string());
        }
    }
    let occupant = |(pid, mut sockets): (u32, Vec<String>)| {
        sockets.sort();
        Occupant::new(pid, format!("listens on {}", sockets.join(" and ")))
    };
    Ok(by_pid.into_iter().map(occupant).collect())
}

impl Occupant {
    fn new(pid: u32, holds: String) -> Self {
        Self { pid, user: owner(pid), command: command(pid), holds }
    }
}

fn ensure_stoppable(occupant: &Occupant) -> Result<()> {
    let why = if occupant.pid == 1 {
        "it is the first process of this system"
    } else if occupant.pid == std::process::id() {
        "it is this very process"
    } else if occupant.user.is_some_and(|user| user != geteuid().as_raw()) {
        "it belongs to another user"
    } else {
        return Ok(());
    };
    Err(refused(format!("--force does not stop {occupant}: {why}"))
        .hint("stop it another way, or name another port with `--port`")
        .into())
}

fn stop(occupant: &Occupant, printer: &Printer) -> Result<()> {
    let begun = Instant::now();
    for (signal, patience) in [(Signal::TERM, TERM_PATIENCE), (Signal::KILL, KILL_PATIENCE)] {
        // The number may belong to another process by now.
        if !is_same(occupant) {
            return Ok(());
        }
        if signal == Signal::KILL {
            printer.note(&format!("pid {} did not end at SIGTERM: SIGKILL", occupant.pid));
        }
        let pid = i32::try_from(occupant.pid).ok().and_then(Pid::from_raw);
        match pid.map(|pid| kill_process(pid, signal)) {
            Some(Ok(()) | Err(Errno::SRCH)) => {}
            Some(Err(error)) => {
                return Err(refused(format!("--force cannot stop {occupant}")).cause(error).into());
            }
            None => return Err(refused(format!("--force cannot stop {occupant}")).into()),
        }
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if !is_same(occupant) {
                printer.note(&format!("pid {} ended after {} ms", occupant.pid, begun.elapsed().as_millis()));
                return Ok(());
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }
    Err(CliError::new(
        Fault::Cli,
        "LISTEN",
        Exit::Transient,
        format!("{occupant} does not end, not even at SIGKILL"),
    )
    .into())
}

/// Whether the process is still there, and no other with its number.
fn is_same(occupant: &Occupant) -> bool {
    let pid = i32::try_from(occupant.pid).ok().and_then(Pid::from_raw);
    let is_there =
        pid.is_some_and(|pid| matches!(rustix::process::test_kill_process(pid), Ok(()) | Err(Errno::PERM)));
    // A process that has ended, and whose parent has not taken note of it, has no command line any more.
    is_there && command(occupant.pid) == occupant.command
}

fn is_taken(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
}

fn owner(pid: u32) -> Option<u32> {
    fs::metadata(format!("/proc/{pid}")).ok().map(|metadata| metadata.uid())
}

fn user_name(uid: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| uid.to_string())
}

/// The command line of a process, secrets hidden.
fn command(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    shown(text.split('\0').filter(|arg| !arg.is_empty()))
}

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
    let line = words.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
    let cut: String = line.chars().take(MAX_COMMAND_CHARS).collect();
    match (line.is_empty(), cut.len() < line.len()) {
        (true, _) => "(no command line)".to_owned(),
        (false, true) => format!("{cut}…"),
        (false, false) => line,
    }
}

fn refused(message: String) -> CliError {
    CliError::new(Fault::Cli, "LISTEN", Exit::Configuration, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_is_shown_without_secrets() {
        let show = |line: &str| shown(line.split(' '));
        assert_eq!(show("openclaw gateway --token abc --port 1"), "openclaw gateway --token *** --port 1");
        assert_eq!(show("x --password=abc API_key=abc y"), "x --password=*** API_key=*** y");
        assert_eq!(show(&"x".repeat(200)), format!("{}…", "x".repeat(MAX_COMMAND_CHARS)));
        assert_eq!(shown(std::iter::empty()), "(no command line)");
    }

    #[test]
    fn who_listens_is_found_by_port_and_address() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = socket.local_addr().expect("it has an address");
        let found = who_listens(&[address]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].pid, std::process::id());
        assert!(ensure_stoppable(&found[0]).is_err(), "it is this very process");
        assert_eq!(who_listens(&[([127, 0, 0, 2], address.port()).into()]), []);
        assert_eq!(who_listens(&[([0, 0, 0, 0], address.port()).into()]).len(), 1);
    }
}
