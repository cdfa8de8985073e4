//! Who is in the way of a gateway that is to start: what listens on its port, and what holds its state directory. Names
//! them, and with `--force` stops them.

use std::{
    fmt,
    io::ErrorKind,
    net::{SocketAddr, TcpListener},
    thread,
    time::{Duration, Instant},
};

use openclaw_gateway::{settings::Settings, state::StateLock};
use rustix::{
    io::Errno,
    process::{Pid, Signal, geteuid, kill_process},
};

use crate::{
    error::{CliError, Fault, Result},
    exit::Exit,
    output::Printer,
    ports::{self, Process},
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
    process: Process,
    /// What it has.
    holds: String,
}

impl fmt::Display for Occupant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Process { pid, user, command_line, .. } = &self.process;
        let user =
            user.map_or_else(|| "user unknown".to_owned(), |user| format!("user {}", ports::user_name(user)));
        let command = command_line.as_deref().map_or_else(|| "(no command line)".to_owned(), cut);
        write!(f, "pid {pid} ({user}), which {}: {command}", self.holds)
    }
}

/// The beginning of a command line that is long.
fn cut(line: &str) -> String {
    match line.char_indices().nth(MAX_COMMAND_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
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
        match found.iter_mut().find(|occupant| occupant.process.pid == pid) {
            Some(occupant) => occupant.holds = format!("{} and {holds}", occupant.holds),
            None => found.push(Occupant { process: Process::of(pid), holds }),
        }
    }
    Ok(found)
}

fn listening(addresses: &[SocketAddr]) -> Result<Vec<Occupant>> {
    let is_wanted = |socket: SocketAddr| {
        addresses.iter().any(|address| {
            let any = address.ip().is_unspecified() || socket.ip().is_unspecified();
            address.port() == socket.port() && (any || address.ip() == socket.ip())
        })
    };
    let occupant = |(process, sockets): (Process, Vec<SocketAddr>)| {
        let sockets: Vec<String> = sockets.iter().map(ToString::to_string).collect();
        Occupant { process, holds: format!("listens on {}", sockets.join(" and ")) }
    };
    Ok(ports::listening(is_wanted)?.into_iter().map(occupant).collect())
}

fn ensure_stoppable(occupant: &Occupant) -> Result<()> {
    let why = if occupant.process.pid == 1 {
        "it is the first process of this system"
    } else if occupant.process.pid == std::process::id() {
        "it is this very process"
    } else if occupant.process.user.is_some_and(|user| user != geteuid().as_raw()) {
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
            printer.note(&format!("pid {} did not end at SIGTERM: SIGKILL", occupant.process.pid));
        }
        let pid = i32::try_from(occupant.process.pid).ok().and_then(Pid::from_raw);
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
                printer.note(&format!(
                    "pid {} ended after {} ms",
                    occupant.process.pid,
                    begun.elapsed().as_millis()
                ));
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
    let pid = i32::try_from(occupant.process.pid).ok().and_then(Pid::from_raw);
    let is_there =
        pid.is_some_and(|pid| matches!(rustix::process::test_kill_process(pid), Ok(()) | Err(Errno::PERM)));
    is_there && Process::of(occupant.process.pid).command_line == occupant.process.command_line
}

fn is_taken(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_err_and(|error| error.kind() == ErrorKind::AddrInUse)
}

fn refused(message: String) -> CliError {
    CliError::new(Fault::Cli, "LISTEN", Exit::Configuration, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_command_line_is_cut() {
        assert_eq!(cut(&"ü".repeat(200)), format!("{}…", "ü".repeat(MAX_COMMAND_CHARS)));
        assert_eq!(cut("short"), "short");
    }

    #[test]
    fn who_listens_is_found_by_port_and_address() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = socket.local_addr().expect("it has an address");
        let found = who_listens(&[address]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].process.pid, std::process::id());
        assert!(ensure_stoppable(&found[0]).is_err(), "it is this very process");
        assert_eq!(who_listens(&[([127, 0, 0, 2], address.port()).into()]), []);
        assert_eq!(who_listens(&[([0, 0, 0, 0], address.port()).into()]).len(), 1);
    }
}
