//! A LAN out of network namespaces: hosts on one bridge, and the peers that run on them.
//!
//! Needs root and `ip` of iproute2. Where it cannot be had, tests say so and do nothing; with `CI` set they fail.

use std::{
    env,
    ffi::OsString,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::process::{Outcome, signal};

/// How long something may take that happens by itself.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the gateways want to see.
pub(crate) const TOKEN: &str = "a-token-of-the-lan";
/// Tells LANs of one process apart.
static LANS: AtomicU32 = AtomicU32::new(0);

/// Hosts `0` and up on one bridge; gone when dropped.
pub(crate) struct Lan {
    name: String,
    hosts: usize,
    dir: TempDir,
}

impl Lan {
    /// Makes one; absent, with a loud word, where it cannot be made.
    pub(crate) fn new(hosts: usize) -> Option<Self> {
        let number = LANS.fetch_add(1, Ordering::Relaxed);
        let name = format!("oc{}-{number}", std::process::id());
        let dir = TempDir::new().expect("a directory can be made");
        let lan = Self { name, hosts, dir };
        if let Err(problem) = lan.make() {
            return skipped(&format!("no network namespaces can be made: {problem}"));
        }
        Some(lan)
    }

    fn make(&self) -> Result<(), String> {
        if !rustix::process::geteuid().is_root() {
            return Err("this needs root".to_owned());
        }
        let switch = format!("{}-sw", self.name);
        ip(&["netns", "add", &switch])?;
        // Without a querier, snooping would lose what is sent to groups.
        ip(&["-n", &switch, "link", "add", "br0", "type", "bridge", "mcast_snooping", "0"])?;
        ip(&["-n", &switch, "link", "set", "br0", "up"])?;
        for host in 0..self.hosts {
            let (space, port) = (self.space(host), format!("port{host}"));
            ip(&["netns", "add", &space])?;
            ip(&[
                "link", "add", "eth0", "netns", &space, "type", "veth", "peer", "name", &port, "netns",
                &switch,
            ])?;
            ip(&["-n", &switch, "link", "set", &port, "master", "br0", "up"])?;
            ip(&["-n", &space, "link", "set", "lo", "up"])?;
            ip(&["-n", &space, "link", "set", "eth0", "up"])?;
            fs::create_dir_all(self.home(host)).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// Gives each host its address: `10.77.0.1` for host 0, and so on.
    pub(crate) fn with_v4(self) -> Self {
        for host in 0..self.hosts {
            let address = format!("10.77.0.{}/24", host + 1);
            ip(&["-n", &self.space(host), "addr", "add", &address, "dev", "eth0"])
                .expect("the host takes it");
        }
        self
    }

    fn space(&self, host: usize) -> String {
        format!("{}-{host}", self.name)
    }

    /// The home directory of a host.
    pub(crate) fn home(&self, host: usize) -> PathBuf {
        self.dir.path().join(host.to_string())
    }

    /// A program on a host, with nothing of the environment but its home.
    pub(crate) fn program(&self, host: usize, program: impl Into<OsString>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.space(host)]).arg(program.into());
        command.env_clear().env("HOME", self.home(host)).current_dir(self.home(host)).stdin(Stdio::null());
        command
    }

    /// `openclaw gateway …` on a host.
    pub(crate) fn gateway<'a>(&self, host: usize, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = self.program(host, env!("CARGO_BIN_EXE_openclaw"));
        command.arg("gateway").args(args);
        command
    }

    /// Starts a gateway on a host, announced although this may be a container, and waits until it listens.
    pub(crate) fn serve<'a>(
        &self,
        host: usize,
        name: &str,
        args: impl IntoIterator<Item = &'a str>,
    ) -> Running {
        let log = self.home(host).join("stderr");
        let stderr = fs::File::create(&log).expect("a file can be made");
        let mut command = self.gateway(host, ["run", "--port", "18799", "--token", TOKEN]);
        command.args(args).env("OPENCLAW_DISABLE_BONJOUR", "0").env("OPENCLAW_MDNS_HOSTNAME", name);
        let running = Running::start(command.stdout(Stdio::null()).stderr(stderr));
        wait(&format!("the gateway on host {host} listens"), || {
            fs::read_to_string(&log).is_ok_and(|said| said.contains("listening on"))
        });
        running
    }

    /// What `gateway discover --json` says on a host.
    pub(crate) fn discover<'a>(&self, host: usize, args: impl IntoIterator<Item = &'a str>) -> Value {
        let mut command = self.gateway(host, ["discover", "--json"]);
        Outcome::of(command.args(args).output().expect("the binary starts")).json(0)
    }

    /// The same, asked again until `is_right` or until patience ends.
    pub(crate) fn discover_until(
        &self,
        host: usize,
        args: &[&str],
        is_right: impl Fn(&[Value]) -> bool,
    ) -> Vec<Value> {
        let limit = Instant::now() + PATIENCE;
        loop {
            let found = self.discover(host, args.iter().copied());
            let beacons = found["beacons"].as_array().expect("a list").clone();
            if is_right(&beacons) {
                return beacons;
            }
            assert!(Instant::now() < limit, "it was not found as expected: {found:#}");
        }
    }

    /// Starts Avahi with a bus of its own on a host; absent, with a loud word, where it is not there.
    pub(crate) fn avahi(&self, host: usize) -> Option<Avahi> {
        let (bus, daemon) = (peer("dbus-daemon")?, peer("avahi-daemon")?);
        let dir = self.home(host);
        let write = |name: &str, text: &str| {
            let path = dir.join(name);
            fs::write(&path, text).expect("a file can be written");
            path
        };
        let address = format!("unix:path={}", dir.join("bus").display());
        let policy = write(
            "bus.conf",
            &format!(
                "<busconfig><type>system</type><listen>{address}</listen><auth>EXTERNAL</auth>\
                 <policy context=\"default\"><allow user=\"*\"/><allow own=\"*\"/><allow send_destination=\"*\"/>\
                 <allow receive_sender=\"*\"/></policy></busconfig>"
            ),
        );
        let settings = write("avahi.conf", "[server]\nhost-name=peer\n[publish]\npublish-workstation=no\n");
        // It asks for a user of its own, even where it is told to stay as it is.
        let with_user = |file: &str, line: &str| fs::read_to_string(file).unwrap_or_default() + line;
        let users = write("passwd", &with_user("/etc/passwd", "avahi:x:0:0::/:/bin/false\n"));
        let groups = write("group", &with_user("/etc/group", "avahi:x:0:\n"));
        let libraries = libraries();
        let mut command = self.program(host, bus);
        command.arg(format!("--config-file={}", policy.display())).args(["--nofork", "--nopidfile"]);
        let bus = Running::start(command.env("LD_LIBRARY_PATH", &libraries).stderr(Stdio::null()));
        wait("the bus listens", || dir.join("bus").exists());
        // `ip netns exec` brings a mount namespace of its own, so that nothing of this is seen outside.
        let script = "mount -t tmpfs none /run && mkdir /run/avahi-daemon && mount --bind \"$1\" /etc/passwd \
                      && mount --bind \"$2\" /etc/group && exec \"$3\" -f \"$4\" --no-drop-root --no-chroot \
                      --no-rlimits";
        let mut command = self.program(host, "/bin/sh");
        command.args(["-c", script, "sh"]).args([&users, &groups]).arg(daemon).arg(settings);
        command.env("DBUS_SYSTEM_BUS_ADDRESS", &address).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        let log = dir.join("avahi.log");
        let stderr = fs::File::create(&log).expect("a file can be made");
        let daemon = Running::start(command.env("LD_LIBRARY_PATH", &libraries).stderr(stderr));
        wait("Avahi has started", || {
            fs::read_to_string(&log).is_ok_and(|said| said.contains("startup complete"))
        });
        Some(Avahi { address, _daemon: daemon, _bus: bus })
    }

    /// A command of Avahi's on the host that it runs on.
    pub(crate) fn avahi_command(&self, host: usize, avahi: &Avahi, name: &str) -> Command {
        let mut command = self.program(host, peer(name).expect("it comes with the daemon"));
        command.env("DBUS_SYSTEM_BUS_ADDRESS", &avahi.address).env("LD_LIBRARY_PATH", libraries());
        command
    }

    /// Starts dnsmasq on a host with these lines; absent, with a loud word, where it is not there.
    pub(crate) fn dnsmasq(&self, host: usize, lines: &str) -> Option<Running> {
        let dnsmasq = peer("dnsmasq")?;
        let path = self.home(host).join("dnsmasq.conf");
        fs::write(&path, format!("no-resolv\nno-hosts\nuser=root\nbind-interfaces\n{lines}"))
            .expect("a file can be written");
        let mut command = self.program(host, dnsmasq);
        command.arg("--keep-in-foreground").arg(format!("--conf-file={}", path.display())).arg("--pid-file=");
        Some(Running::start(command.env("LD_LIBRARY_PATH", libraries())))
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for host in 0..self.hosts {
            let _ = ip(&["netns", "del", &self.space(host)]);
        }
        let _ = ip(&["netns", "del", &format!("{}-sw", self.name)]);
    }
}

/// A program that is ended with this value.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.spawn().expect("the program starts"))
    }

    /// Ends it as a service manager would, and waits for it.
    pub(crate) fn stop(mut self) -> Option<i32> {
        signal(&self.0, Signal::TERM);
        self.0.wait().expect("it ends").code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Avahi on a host.
pub(crate) struct Avahi {
    address: String,
    _daemon: Running,
    _bus: Running,
}

/// Waits until something happened.
pub(crate) fn wait(what: &str, mut has_happened: impl FnMut() -> bool) {
    let limit = Instant::now() + PATIENCE;
    while !has_happened() {
        assert!(Instant::now() < limit, "this did not happen: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn ip(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).output().map_err(|error| format!("`ip`: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("`ip {}`: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

/// Where `tests/discovery/peers.sh` puts the programs that the tests compare with.
fn peers() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in a workspace");
    workspace.join("target/tools/peers")
}

/// A program to compare with: the machine's own, or the one that the script got.
fn peer(name: &str) -> Option<PathBuf> {
    let own = ["/usr/sbin", "/usr/bin"].map(PathBuf::from);
    let got = ["usr/sbin", "usr/bin"].map(|folder| peers().join(folder));
    match own.into_iter().chain(got).map(|folder| folder.join(name)).find(|path| path.is_file()) {
        Some(path) => Some(path),
        None => skipped(&format!("`{name}` is not there: run tests/discovery/peers.sh")),
    }
}

/// The libraries that came with the peers.
fn libraries() -> OsString {
    let mut folders = Vec::new();
    for folder in ["usr/lib", "lib"] {
        let folder = peers().join(folder);
        folders.extend(fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()));
        folders.push(folder);
    }
    env::join_paths(folders.into_iter().filter(|path| path.is_dir())).expect("no path has a colon")
}

/// Says past the capture of the test runner that a test proves nothing here.
fn skipped<T>(why: &str) -> Option<T> {
    assert!(env::var_os("CI").is_none(), "CI must have what this test needs: {why}");
    let thread = thread::current();
    let _ = writeln!(std::io::stderr(), "SKIPPED {}: {why}", thread.name().unwrap_or("?"));
    None
}
