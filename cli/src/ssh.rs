//! A tunnel to a gateway that listens on its own loopback alone: the system's `ssh` with a local port-forward.
//!
//! The system's `ssh` brings the user's configuration, agent, jump hosts and known hosts. What is typed never becomes
//! an option of it: targets are read and checked here, and stand after `--`. The child ends with the command, also
//! when the command is killed.

use std::{
    ffi::OsString,
    fmt,
    net::{Ipv4Addr, Ipv6Addr, TcpListener},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use openclaw_gateway::config::SshHostKeyPolicy;
use tokio::{
    net::TcpStream,
    process::Child,
    time::{Instant, sleep, timeout_at},
};

use crate::{
    child::{self, Pipe, Words},
    exit::Exit,
};

/// The program.
const SSH: &str = "ssh";
/// How often the local port is tried while `ssh` connects.
const TRY_EVERY: Duration = Duration::from_millis(15);
/// How long `ssh` may take to end after it was asked to.
const END_LIMIT: Duration = Duration::from_millis(300);
/// How long what `ssh` wrote last may take to arrive. A `ProxyCommand` may keep the pipe open for longer.
const WORDS_LIMIT: Duration = Duration::from_millis(200);
/// The longest name of a user or host: that of a host in DNS.
const MAX_NAME_CHARS: usize = 253;
/// Where `ssh` connects to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SshTarget {
    /// `user@host`, or `host`.
    destination: String,
    host: String,
    /// Absent for that of the user's `ssh` configuration, or 22.
    port: Option<u16>,
}

impl fmt::Display for SshTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) if self.host.contains(':') => {
                let user = self.destination.strip_suffix(&self.host).unwrap_or_default();
                write!(f, "{user}[{}]:{port}", self.host)
            }
            Some(port) => write!(f, "{}:{port}", self.destination),
            None => f.write_str(&self.destination),
        }
    }
}

impl FromStr for SshTarget {
    type Err = String;

    /// Reads `[user@]host[:port]`; an IPv6 address with a port stands in brackets. The error is what is wrong, to
    /// follow the target in a sentence.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with('-') {
            return Err("begins with `-`: it would be an option of ssh".to_owned());
        }
        let (user, place) = match text.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, text),
        };
        if let Some(user) = user {
            check_name("the user", user, |char| matches!(char, '.' | '_' | '-' | '+'))?;
        }
        let (host, port) = if let Some(rest) = place.strip_prefix('[') {
            let (host, port) = rest.split_once(']').ok_or("has a `[` without a `]`")?;
            match port.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if port.is_empty() => (host, None),
                None => return Err("has more than a port after the `]`".to_owned()),
            }
        } else if is_ipv6(place) {
            (place, None)
        } else {
            match place.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            }
        };
        if !is_ipv6(host) {
            check_name("the host", host, |char| matches!(char, '.' | '_' | '-'))?;
        }
        let port = match port.map(|port| port.parse::<u16>()) {
            None => None,
            Some(Ok(port)) if port > 0 => Some(port),
            Some(_) => return Err("has a port that is no whole number from 1 to 65535".to_owned()),
        };
        let destination = match user {
            Some(user) => format!("{user}@{host}"),
            None => host.to_owned(),
        };
        Ok(Self { destination, host: host.to_owned(), port })
    }
}

impl SshTarget {
    /// Where a gateway on a port of that host would be called without a tunnel: the name under which its certificate is
    /// remembered.
    pub(crate) fn url_of_gateway(&self, port: u16) -> String {
        if self.host.contains(':') {
            format!("wss://[{}]:{port}", self.host)
        } else {
            format!("wss://{}:{port}", self.host)
        }
    }

    /// `host` alone, when it can be one: what a URL or a discovered gateway names.
    pub(crate) fn of_host(host: &str, port: Option<u16>) -> Result<Self, String> {
        let host = host.trim_end_matches('.').trim_start_matches('[').trim_end_matches(']');
        let target: Self = if is_ipv6(host) { format!("[{host}]") } else { host.to_owned() }.parse()?;
        Ok(Self { port, ..target })
    }
}

/// An address, with or without the name of an interface behind `%`.
fn is_ipv6(text: &str) -> bool {
    let (address, zone) = text.split_once('%').unwrap_or((text, "0"));
    let is_zone = |char: char| char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-');
    address.parse::<Ipv6Addr>().is_ok() && !zone.is_empty() && zone.chars().all(is_zone)
}

fn check_name(what: &str, name: &str, is_mark: impl Fn(char) -> bool) -> Result<(), String> {
    if name.is_empty() {
        return Err(format!("lacks {what}"));
    }
    if name.starts_with('-') {
        return Err(format!("has `-` at the beginning of {what}: it would be an option of ssh"));
    }
    if name.len() > MAX_NAME_CHARS {
        return Err(format!("is too long: {what} has more than {MAX_NAME_CHARS} characters"));
    }
    match name.chars().find(|char| !char.is_ascii_alphanumeric() && !is_mark(*char)) {
        None => Ok(()),
        Some(char) => Err(format!("has {char:?} in {what}: letters, digits, `.`, `_` and `-` are allowed")),
    }
}

/// What a tunnel is made with.
#[derive(Debug, Clone)]
pub(crate) struct TunnelSettings {
    pub(crate) target: SshTarget,
    /// The file with the private key; absent for what `ssh` finds by itself.
    pub(crate) identity: Option<PathBuf>,
    pub(crate) host_keys: SshHostKeyPolicy,
    /// Where the gateway listens on its own loopback.
    pub(crate) remote_port: u16,
}

/// Why there is no tunnel, or nothing at its other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SshError {
    /// One sentence, no full stop.
    pub(crate) message: String,
    /// What to do.
    pub(crate) hint: Option<String>,
    /// How the command ends when no gateway answers because of it.
    pub(crate) exit: Exit,
}

impl SshError {
    pub(crate) fn new(exit: Exit, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { message: message.into(), hint: Some(hint.into()), exit }
    }
}

/// A running `ssh` whose local port leads to the gateway. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Tunnel {
    settings: TunnelSettings,
    local_port: u16,
    child: Child,
    words: Words,
}

impl Tunnel {
    /// Starts `ssh`, and waits until its local port takes connections.
    ///
    /// That port is free when `ssh` is told of it. Should another program take it in between, `ssh` ends with an error.
    pub(crate) async fn open(settings: TunnelSettings, deadline: Instant) -> Result<Self, SshError> {
        let local_port = free_port().map_err(|error| {
            let message = format!("this machine has no free port for the tunnel: {error}");
            SshError { message, hint: None, exit: Exit::Refused }
        })?;
        let left = deadline.saturating_duration_since(Instant::now());
        let mut child =
            child::command(SSH, &settings.arguments(local_port, left)).spawn().map_err(|error| {
                let message = format!("ssh cannot be started: {error}");
                SshError { message, hint: None, exit: Exit::Refused }
            })?;
        let stderr: Pipe = Box::pin(child.stderr.take().expect("stderr is piped"));
        let words = Words::of([stderr]);
        let mut tunnel = Self { settings, local_port, child, words };
        let address = (Ipv4Addr::LOCALHOST, local_port);
        let opened = timeout_at(deadline, async {
            loop {
                tokio::select! {
                    ended = tunnel.child.wait() => break Err(ended.ok().and_then(|status| status.code())),
                    connected = TcpStream::connect(address) => match connected {
                        Ok(_) => break Ok(()),
                        Err(_) => sleep(TRY_EVERY).await,
                    },
                }
            }
        })
        .await;
        match opened {
            Ok(Ok(())) => Ok(tunnel),
            Ok(Err(code)) => {
                // What it said last may still be on the way.
                tunnel.words.ended(WORDS_LIMIT).await;
                Err(explain(&tunnel.words.so_far(), code, &tunnel.settings))
            }
            Err(_) => {
                let said = tunnel.words.so_far();
                let settings = tunnel.settings.clone();
                tunnel.close().await;
                let known = explain(&said, None, &settings);
                let message = format!("ssh did not reach {} within {} ms", settings.target, left.as_millis());
                let silent = SshError::new(Exit::Unreachable, message, "`--timeout MS` allows more");
                Err(if is_known(&said) { known } else { silent })
            }
        }
    }

    /// Where the gateway is reached, when it speaks TLS or does not.
    pub(crate) fn url(&self, tls: bool) -> String {
        let scheme = if tls { "wss" } else { "ws" };
        format!("{scheme}://{}:{}", Ipv4Addr::LOCALHOST, self.local_port)
    }

    pub(crate) fn local_port(&self) -> u16 {
        self.local_port
    }

    /// The process; absent when it has ended.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Why the gateway did not answer through the tunnel, if `ssh` says so within a moment: nothing listens at the other
    /// end, the server forbids tunnels, or the connection is gone.
    pub(crate) async fn trouble(&mut self) -> Option<SshError> {
        // The refusal of the other end closes the connection first, and is told after that.
        let patience = Instant::now() + WORDS_LIMIT;
        loop {
            let ended = self.child.try_wait().ok().flatten();
            let said = self.words.so_far();
            if ended.is_some() || is_known(&said) {
                return Some(explain(&said, ended.and_then(|status| status.code()), &self.settings));
            }
            if Instant::now() >= patience {
                return None;
            }
            sleep(TRY_EVERY).await;
        }
    }

    /// Ends `ssh`, so that nothing is left of it.
    pub(crate) async fn close(mut self) {
        child::end(&mut self.child, END_LIMIT).await;
    }
}

impl TunnelSettings {
    /// The arguments of `ssh`.
    fn arguments(&self, local_port: u16, left: Duration) -> Vec<OsString> {
        let here = Ipv4Addr::LOCALHOST;
        let mut arguments: Vec<OsString> = ["-N", "-T", "-a", "-x", "-L"].map(OsString::from).into();
        arguments.push(format!("{here}:{local_port}:{here}:{}", self.remote_port).into());
        let mut options = vec![
            "ExitOnForwardFailure=yes".to_owned(),
            // Nobody is there to answer a question.
            "BatchMode=yes".to_owned(),
            format!("ConnectTimeout={}", left.as_secs().clamp(1, 30)),
            "ServerAliveInterval=15".to_owned(),
            "ServerAliveCountMax=3".to_owned(),
            // A shared connection would keep the forward after this command.
            "ControlPath=none".to_owned(),
            "PermitLocalCommand=no".to_owned(),
            // What it says explains failures.
            "LogLevel=INFO".to_owned(),
        ];
        if self.host_keys == SshHostKeyPolicy::Strict {
            options.push("StrictHostKeyChecking=yes".to_owned());
        }
        if let Some(identity) = &self.identity {
            arguments.push("-i".into());
            arguments.push(identity.into());
            options.push("IdentitiesOnly=yes".to_owned());
        }
        if let Some(port) = self.target.port {
            arguments.push("-p".into());
            arguments.push(port.to_string().into());
        }
        for option in options {
            arguments.push("-o".into());
            arguments.push(option.into());
        }
        arguments.push("--".into());
        arguments.push(self.target.destination.clone().into());
        arguments
    }
}

/// A port of this machine that is free at this moment.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// What a process says that cannot become `ssh`: [`child::cannot_start`].
const CANNOT_START: &str = "the program ssh cannot be started";

/// Whether `said` holds a reason that [`explain`] knows.
fn is_known(said: &str) -> bool {
    REASONS.iter().any(|reason| said.contains(reason.mark))
}

/// A reason why `ssh` fails.
struct Reason {
    /// What OpenSSH writes then. It writes English whatever the locale.
    mark: &'static str,
    exit: Exit,
    /// `{target}`, `{host}` and `{port}` are replaced.
    message: &'static str,
    hint: &'static str,
}

/// Reasons, the more particular first: several may stand in what `ssh` wrote.
const REASONS: &[Reason] = &[
    Reason {
        mark: "REMOTE HOST IDENTIFICATION HAS CHANGED",
        exit: Exit::Unreachable,
        message: "the host key of {host} has changed since ssh last saw it: the machine is another one, or somebody \
                  stands in between",
        hint: "if the change is expected, remove the old key with `ssh-keygen -R`, then connect once with `ssh {target}`",
    },
    Reason {
        mark: "Host key verification failed",
        exit: Exit::Unreachable,
        message: "ssh does not know the host key of {host}",
        hint: "connect once with `ssh` and compare the key, or set gateway.remote.sshHostKeyPolicy to \"openssh\"",
    },
    Reason {
        mark: "UNPROTECTED PRIVATE KEY FILE",
        exit: Exit::Auth,
        message: "ssh does not use the private key for {target}: others can read its file",
        hint: "`chmod 600` the file",
    },
    Reason {
        mark: "Permission denied",
        exit: Exit::Auth,
        message: "{target} takes none of the keys that ssh offers",
        hint: "name the right key with `--ssh-identity`; one with a passphrase must be in the agent: `ssh-add`",
    },
    Reason {
        mark: "Too many authentication failures",
        exit: Exit::Auth,
        message: "{target} takes none of the first keys that ssh offers",
        hint: "name the right key with `--ssh-identity`",
    },
    Reason {
        mark: "Could not resolve hostname",
        exit: Exit::Unreachable,
        message: "there is no host {host}: its name does not resolve",
        hint: "check the name of the host",
    },
    Reason {
        mark: "administratively prohibited",
        exit: Exit::Unreachable,
        message: "the ssh server of {host} allows no tunnels",
        hint: "set `AllowTcpForwarding yes` in its sshd_config",
    },
    Reason {
        mark: "open failed: connect failed",
        exit: Exit::Unreachable,
        message: "ssh reaches {host}, but nothing listens there on port {port} of its loopback",
        hint: "start the gateway there, or name its port with `--port` or gateway.remote.remotePort",
    },
    Reason {
        mark: "cannot listen to port",
        exit: Exit::Unreachable,
        message: "another program took the local port of the tunnel",
        hint: "try again",
    },
    Reason {
        mark: "Connection refused",
        exit: Exit::Unreachable,
        message: "no ssh server answers at {target}: connection refused",
        hint: "check the port of the ssh server: `--ssh user@host:port`",
    },
    Reason {
        mark: "timed out",
        exit: Exit::Unreachable,
        message: "no ssh server answers at {target}: the connection timed out",
        hint: "check that {host} is up, and that no firewall stands in between",
    },
    Reason {
        mark: CANNOT_START,
        exit: Exit::Unreachable,
        message: "the program ssh cannot be started",
        hint: "install OpenSSH's client and put it on the PATH",
    },
];

/// What `ssh` said, and how it ended, in one sentence.
fn explain(said: &str, code: Option<i32>, settings: &TunnelSettings) -> SshError {
    let filled = |text: &str| {
        text.replace("{target}", &settings.target.to_string())
            .replace("{host}", &settings.target.host)
            .replace("{port}", &settings.remote_port.to_string())
    };
    if let Some(reason) = REASONS.iter().find(|reason| said.contains(reason.mark)) {
        return SshError::new(reason.exit, filled(reason.message), filled(reason.hint));
    }
    // What it said last is why it ended.
    let last = said.lines().map(str::trim).rfind(|line| !line.is_empty());
    let how = match (last, code) {
        (Some(last), _) => last.to_owned(),
        (None, Some(code)) => format!("it ended with exit code {code}"),
        (None, None) => "a signal ended it".to_owned(),
    };
    let message = format!("ssh did not reach {}: {how}", settings.target);
    let hint = filled("`ssh -v {target} true` tells more");
    SshError { message, hint: Some(hint), exit: Exit::Unreachable }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> SshTarget {
        text.parse().unwrap_or_else(|problem| panic!("{text}: {problem}"))
    }

    fn settings(text: &str) -> TunnelSettings {
        let host_keys = SshHostKeyPolicy::Strict;
        TunnelSettings { target: target(text), identity: None, host_keys, remote_port: 18789 }
    }

    #[test]
    fn targets_are_read_and_shown_as_they_are_typed() {
        for (text, destination, host, port) in [
            ("studio", "studio", "studio", None),
            ("ada@studio.local:2222", "ada@studio.local", "studio.local", Some(2222)),
            ("ada@10.0.0.5", "ada@10.0.0.5", "10.0.0.5", None),
            ("fe80::1%eth0", "fe80::1%eth0", "fe80::1%eth0", None),
            ("ada@[::1]:22", "ada@::1", "::1", Some(22)),
            ("a.b_c-d+e@h", "a.b_c-d+e@h", "h", None),
        ] {
            let read = target(text);
            assert_eq!((read.destination.as_str(), read.host.as_str(), read.port), (destination, host, port));
            assert_eq!(read.to_string(), text);
        }
        assert_eq!(
            SshTarget::of_host("studio.local.", Some(2)).expect("a host").to_string(),
            "studio.local:2"
        );
        assert_eq!(SshTarget::of_host("[::1]", None).expect("a host").to_string(), "::1");
    }

    #[test]
    fn what_could_be_an_option_or_a_command_is_refused() {
        for (text, problem) in [
            ("-oProxyCommand=touch /tmp/x", "begins with `-`"),
            ("ada@-oProxyCommand=x", "at the beginning of the host"),
            ("-l@host", "begins with `-`"),
            ("ada@", "lacks the host"),
            ("", "lacks the host"),
            ("@host", "lacks the user"),
            ("ada@host:ssh", "has a port"),
            ("ada@host:0", "has a port"),
            ("ada@host:1:2", "has a port"),
            ("ada@[::1]22", "more than a port"),
            ("ada@[::1", "without a `]`"),
            ("$(id)@host", "'$' in the user"),
            ("ada@ho st", "' ' in the host"),
            ("ada@host\n", "'\\n' in the host"),
            ("ada@höst", "'ö' in the host"),
            ("ada@host;id", "';' in the host"),
            ("fe80::1%$(id)", "has a port"),
            ("x@y@host", "'@' in the user"),
        ] {
            let error = text.parse::<SshTarget>().expect_err(text);
            assert!(error.contains(problem), "{text}: {error}");
        }
        assert!(format!("{}@host", "u".repeat(300)).parse::<SshTarget>().is_err());
        assert!(SshTarget::of_host("-oProxyCommand=x", None).is_err());
    }

    #[test]
    fn the_destination_stands_last_and_behind_two_dashes() {
        let mut settings = settings("ada@studio:2222");
        settings.identity = Some("/keys/id".into());
        let arguments = settings.arguments(40_000, Duration::from_secs(3));
        let text: Vec<_> = arguments.iter().map(|argument| argument.to_str().expect("a text")).collect();
        assert_eq!(
            text.join(" "),
            "-N -T -a -x -L 127.0.0.1:40000:127.0.0.1:18789 -i /keys/id -p 2222 -o ExitOnForwardFailure=yes \
             -o BatchMode=yes -o ConnectTimeout=3 -o ServerAliveInterval=15 -o ServerAliveCountMax=3 \
             -o ControlPath=none -o PermitLocalCommand=no -o LogLevel=INFO -o StrictHostKeyChecking=yes \
             -o IdentitiesOnly=yes -- ada@studio"
        );
        settings.host_keys = SshHostKeyPolicy::Openssh;
        assert!(!settings.arguments(1, Duration::ZERO).iter().any(|one| one == "StrictHostKeyChecking=yes"));
    }

    #[test]
    fn what_ssh_says_becomes_one_sentence_with_the_right_exit() {
        let settings = settings("ada@studio");
        for (said, exit, sentence) in [
            ("ada@studio: Permission denied (publickey).\n", Exit::Auth, "takes none of the keys"),
            (
                "ssh: Could not resolve hostname studio: Name or service not known\n",
                Exit::Unreachable,
                "no host studio",
            ),
            (
                "ssh: connect to host studio port 22: Connection refused\n",
                Exit::Unreachable,
                "no ssh server answers at ada@studio: connection refused",
            ),
            (
                "channel 2: open failed: connect failed: Connection refused\n",
                Exit::Unreachable,
                "nothing listens there on port 18789",
            ),
            (
                "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.\n",
                Exit::Unreachable,
                "the host key of studio has changed",
            ),
            (
                "No ED25519 host key is known for studio and you have requested strict checking.\nHost key \
                 verification failed.\n",
                Exit::Unreachable,
                "does not know the host key of studio",
            ),
            ("Bad configuration option\n\n", Exit::Unreachable, "ada@studio: Bad configuration option"),
            ("", Exit::Unreachable, "exit code 255"),
        ] {
            let error = explain(said, Some(255), &settings);
            assert_eq!(error.exit, exit, "{said}");
            assert!(error.message.contains(sentence), "{}", error.message);
            assert!(
                !error.message.contains(['{', '\n']) && error.hint.is_some_and(|hint| !hint.contains('{'))
            );
        }
    }
}
