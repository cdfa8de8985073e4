//! What a gateway and the service manager that started it tell each other: ready, reloading, stopping, alive, and how it
//! ended.
//!
//! systemd names a socket in `NOTIFY_SOCKET` and takes one message a datagram (sd_notify(3)). Without a manager,
//! everything here does nothing.

use std::{
    env,
    ffi::{OsStr, OsString},
    io,
    os::unix::net::{SocketAddr, UnixDatagram},
    time::Duration,
};

use crate::{
    error::{Failure, Result},
    exit::Exit,
    output::Printer,
};

/// The manager that started this process.
#[derive(Debug)]
pub(crate) struct Supervisor {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// How often it wants to hear that the gateway is alive.
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// The manager that the environment names.
    pub(crate) fn of_process() -> Self {
        let watchdog = variable("WATCHDOG_USEC")
            // Meant for another process, if it names one.
            .filter(|_| variable("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string()))
            .and_then(|microseconds| microseconds.parse().ok())
            .filter(|microseconds| *microseconds > 0)
            .map(Duration::from_micros);
        Self::new(env::var_os("NOTIFY_SOCKET"), watchdog)
    }

    fn new(socket: Option<OsString>, watchdog: Option<Duration>) -> Self {
        let open = |name: OsString| io::Result::Ok((UnixDatagram::unbound()?, address(&name)?));
        Self { socket: socket.filter(|name| !name.is_empty()).and_then(|name| open(name).ok()), watchdog }
    }

    /// The gateway serves.
    pub(crate) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// The gateway is busy with itself: it restarts, or reads its configuration again. [`Self::ready`] follows.
    pub(crate) fn reloading(&self, status: &str) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let microseconds = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}\nSTATUS={status}"));
    }

    /// The gateway is stopping.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=waiting for calls and runs in flight");
    }

    /// Tells that the gateway is alive, for as long as this is polled. From the runtime that serves: one that is
    /// stuck falls silent, and the manager starts the gateway again.
    pub(crate) async fn stay_alive(&self) {
        let Some(watchdog) = self.watchdog else { return std::future::pending().await };
        // Half the time that the manager allows, as sd_watchdog_enabled(3) asks for.
        let mut interval = tokio::time::interval(watchdog / 2);
        loop {
            interval.tick().await;
            self.tell("WATCHDOG=1");
        }
    }

    /// A manager that does not listen is its own trouble.
    fn tell(&self, message: &str) {
        if let Some((socket, address)) = &self.socket {
            let _ = socket.send_to_addr(message.as_bytes(), address);
        }
    }
}

/// Whether stderr goes to the journal, which takes a line's severity from its first characters (sd-daemon(3)).
pub(crate) fn writes_to_journal() -> bool {
    let Some(stream) = variable("JOURNAL_STREAM") else { return false };
    // A child that was given another stderr inherits the variable all the same.
    rustix::fs::fstat(io::stderr()).is_ok_and(|stat| stream == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// How a gateway ends under a manager that starts it again after every code but 0: a configuration that is at fault
/// is reported, and ends with 0, since no new start mends it.
pub(crate) fn outcome(is_told_codes_apart: bool, outcome: Result<Exit>, printer: &Printer) -> Result<Exit> {
    match outcome {
        Err(Failure::Error(error)) if !is_told_codes_apart && error.exit == Exit::Configuration => {
            printer.error(&error)?;
            Ok(Exit::Ok)
        }
        outcome => outcome,
    }
}

/// The address of a socket: a path, or after `@` a name that is no file.
#[cfg(target_os = "linux")]
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    use std::os::{linux::net::SocketAddrExt as _, unix::ffi::OsStrExt as _};

    match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest),
        _ => SocketAddr::from_pathname(name),
    }
}

/// The address of a socket: a path.
#[cfg(not(target_os = "linux"))]
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    SocketAddr::from_pathname(name)
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{CliError, Fault};

    fn received(socket: &UnixDatagram) -> String {
        let mut bytes = [0; 256];
        let length = socket.recv(&mut bytes).expect("there is a message");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    #[tokio::test]
    async fn a_manager_hears_when_the_gateway_is_ready_alive_and_stopping() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(10))).expect("it takes a bound");
        let supervisor = Supervisor::new(Some(path.into()), Some(Duration::from_millis(20)));
        supervisor.ready("listening on port 1");
        assert_eq!(received(&socket), "READY=1\nSTATUS=listening on port 1");
        let alive = tokio::time::timeout(Duration::from_millis(100), supervisor.stay_alive()).await;
        assert!(alive.is_err(), "it goes on");
        assert_eq!(received(&socket), "WATCHDOG=1");
        assert_eq!(received(&socket), "WATCHDOG=1");
        while socket.set_nonblocking(true).is_ok() && socket.recv(&mut [0; 64]).is_ok() {}
        socket.set_nonblocking(false).expect("it waits again");
        supervisor.reloading("restarting");
        let reloading = received(&socket);
        assert!(reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{reloading}");
        supervisor.stopping();
        assert!(received(&socket).starts_with("STOPPING=1\n"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_abstract_socket_is_reached() {
        use std::os::linux::net::SocketAddrExt as _;

        let name = format!("openclaw-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let socket = UnixDatagram::bind_addr(&address).expect("a socket");
        Supervisor::new(Some(format!("@{name}").into()), None).ready("x");
        assert_eq!(received(&socket), "READY=1\nSTATUS=x");
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        Supervisor::new(None, None).ready("x");
        Supervisor::new(Some("/nowhere/at/all".into()), None).stopping();
    }

    #[test]
    fn a_bad_configuration_is_not_tried_again_where_codes_are_not_told_apart() {
        let printer = Printer::new(false, true);
        let refused = |exit| Err(CliError::new(Fault::Cli, "X", exit, "no").into());
        assert!(matches!(outcome(false, refused(Exit::Configuration), &printer), Ok(Exit::Ok)));
        assert!(outcome(false, refused(Exit::Transient), &printer).is_err());
        assert!(outcome(true, refused(Exit::Configuration), &printer).is_err());
    }
}
