//! Whether a gateway serves: its runtime record, its `/readyz`, and whose process it is.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::Duration,
};

use openclaw_gateway::state::{RuntimeRecord, StateDir, StateError, StateLock};

/// How long one look at a port may take. A gateway on this machine answers within milliseconds.
const LOOK: Duration = Duration::from_secs(1);

/// What answers at a port of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listener {
    /// Nobody.
    Free,
    /// A gateway like this one; whether it is ready.
    Gateway { is_ready: bool },
    /// Something else.
    Other,
}

/// What answers at `port` of loopback.
pub(crate) fn listener(port: u16) -> Listener {
    look(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

fn look(address: SocketAddr) -> Listener {
    let Ok(mut stream) = TcpStream::connect_timeout(&address, LOOK) else { return Listener::Free };
    let ask = |stream: &mut TcpStream| {
        stream.set_read_timeout(Some(LOOK))?;
        stream.set_write_timeout(Some(LOOK))?;
        let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut head = [0; 1024];
        let mut length = 0;
        // The head of the answer is enough; it may come in pieces.
        while length < head.len() && !head[..length].windows(4).any(|window| window == b"\r\n\r\n") {
            match stream.read(&mut head[length..])? {
                0 => break,
                read => length += read,
            }
        }
        std::io::Result::Ok(String::from_utf8_lossy(&head[..length]).to_ascii_lowercase())
    };
    match ask(&mut stream) {
        Ok(head) if head.contains("\r\nopenclaw-gateway:") => {
            Listener::Gateway { is_ready: head.starts_with("http/1.1 200") }
        }
        _ => Listener::Other,
    }
}

/// The gateway of `state`, if it is ready and not the one of `before`. One that speaks TLS is ready when its port
/// takes connections: it writes its record once it serves, and `/readyz` is asked in clear text only.
pub(crate) fn ready(state: &StateDir, before: Option<&str>) -> Option<RuntimeRecord> {
    let record = RuntimeRecord::read(state)?;
    let is_new = before.is_none_or(|instance| instance != record.instance_id);
    let address = record.local_address();
    let answers = || match record.tls_fingerprint {
        Some(_) => TcpStream::connect_timeout(&address, LOOK).is_ok(),
        None => look(address) == Listener::Gateway { is_ready: true },
    };
    (is_new && answers()).then_some(record)
}

/// Whether the process of `record` is the gateway that holds `state`: a record may outlive its gateway, and another
/// process then have its number.
pub(crate) fn is_holder(state: &StateDir, record: &RuntimeRecord) -> bool {
    let is_held = match StateLock::acquire(state) {
        Err(StateError::Locked { holder, .. }) => holder.is_some_and(|holder| *holder == *record),
        Ok(_) | Err(_) => false,
    };
    is_held
        && fs::read_to_string(format!("/proc/{}/comm", record.pid))
            .map_or(true, |name| name.starts_with("openclaw"))
}

/// Whether the process would end, instead of restart, at SIGUSR1: it does not handle the signal. Absent where the
/// system does not say.
pub(crate) fn ends_at_restart_signal(pid: u32) -> Option<bool> {
    /// SIGUSR1 is 10 on Linux, and signal n is bit n-1.
    const USR1: u64 = 1 << 9;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    Some((mask("SigCgt:")? | mask("SigIgn:")?) & USR1 == 0)
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread, time::Instant};

    use super::*;

    #[test]
    fn what_listens_is_told_apart() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\nopenclaw-gateway: 0.1.0\r\n\r\n", Listener::Gateway { is_ready: true }),
            ("HTTP/1.1 503 No\r\nOpenClaw-Gateway: 0.1.0\r\n\r\n", Listener::Gateway { is_ready: false }),
            ("HTTP/1.1 200 OK\r\n\r\n", Listener::Other),
            ("SSH-2.0-x\r\n", Listener::Other),
        ] {
            let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
            let port = server.local_addr().expect("it is bound").port();
            let serving = thread::spawn(move || {
                let (mut peer, _) = server.accept().expect("it is called");
                // All of it: closing a socket with something unread throws away what was written.
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    peer.read_exact(&mut byte).expect("a request comes");
                    request.push(byte[0]);
                }
                peer.write_all(answer.as_bytes()).expect("it is taken");
            });
            assert_eq!(listener(port), expected, "{answer:?}");
            serving.join().expect("it served");
            // A process that another test starts at this moment holds the socket until it begins its own program.
            let closed = Instant::now();
            while listener(port) != Listener::Free {
                assert!(closed.elapsed() < Duration::from_secs(10), "{answer:?}");
                thread::sleep(Duration::from_millis(10));
            }
        }
    }

    #[test]
    fn a_process_that_does_not_handle_the_signal_is_found() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep runs");
        if cfg!(target_os = "linux") {
            assert_eq!(ends_at_restart_signal(child.id()), Some(true));
        }
        child.kill().expect("it is there");
        child.wait().expect("it ends");
    }
}
