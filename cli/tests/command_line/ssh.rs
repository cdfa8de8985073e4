//! `gateway probe --ssh`, through a real `sshd` on loopback with keys of its own.

use std::{
    fs,
    io::Write as _,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    fake::TOKEN,
    gateway::Gateway,
    process::{Home, Outcome, signal},
};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server with a host key and a key that it takes, and a client configuration that knows it. It ends when this is
/// dropped.
struct Sshd {
    dir: TempDir,
    child: Child,
    port: u16,
}

fn command(program: &str, args: &[&str]) -> String {
    let output =
        Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(output.status.success(), "{program}: {output:?}");
    String::from_utf8(output.stdout).expect("a text")
}

fn new_key(path: &Path) -> String {
    let path_text = path.to_str().expect("a text");
    command("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", path_text]);
    fs::read_to_string(path.with_extension("pub")).expect("a public key")
}

impl Sshd {
    /// Starts a server; nothing where there is none to start.
    fn start() -> Option<Self> {
        let program = Path::new("/usr/sbin/sshd");
        if !program.exists() {
            assert!(std::env::var_os("CI").is_none(), "CI lacks sshd: install openssh-server");
            // Written past the capture of the test harness.
            let told = format!("SKIPPED: there is no {}; install openssh-server\n", program.display());
            let _ = std::io::stderr().write_all(told.as_bytes());
            return None;
        }
        // What the start script of the package makes; root alone needs it, and can.
        let _ = fs::create_dir("/run/sshd");
        let dir = TempDir::new().expect("a directory can be made");
        let at = |name: &str| dir.path().join(name);
        let host_key = new_key(&at("host"));
        fs::write(at("authorized"), new_key(&at("key"))).expect("it is written");
        new_key(&at("other"));
        let port = free_port();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\n\
             UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n",
            at("host").display(),
            at("authorized").display()
        );
        fs::write(at("sshd_config"), config).expect("it is written");
        fs::write(at("known"), format!("[127.0.0.1]:{port} {host_key}")).expect("it is written");
        let client = format!(
            "UserKnownHostsFile {}\nGlobalKnownHostsFile /dev/null\nIdentityAgent none\n",
            at("known").display()
        );
        fs::write(at("ssh_config"), client).expect("it is written");
        // The `ssh` of this test: the system's, with that configuration. It notes its process id, which exec keeps.
        let script = format!(
            "#!/bin/sh\necho $$ >> {}\nexec /usr/bin/ssh -F {} \"$@\"\n",
            at("pids").display(),
            at("ssh_config").display()
        );
        fs::create_dir(at("bin")).expect("it is made");
        fs::write(at("bin/ssh"), script).expect("it is written");
        command("chmod", &["755", at("bin/ssh").to_str().expect("a text")]);

        let log = fs::File::create(at("log")).expect("it is made");
        let child = Command::new(program)
            .args(["-D", "-e", "-f"])
            .arg(at("sshd_config"))
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("sshd starts");
        let server = Self { dir, child, port };
        wait_until("sshd listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(server)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A home whose `ssh` knows this server, and whose own gateway is not there.
    fn home(&self) -> Home {
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        Home::new().with("PATH", path).with("OPENCLAW_GATEWAY_PORT", "1")
    }

    fn target(&self) -> String {
        format!("{}@127.0.0.1:{}", command("id", &["-un"]).trim(), self.port)
    }

    fn probe(&self, home: &Home, target: &str, key: &str) -> Outcome {
        let key = self.path(key);
        let args = ["gateway", "probe", "--json", "--token", TOKEN, "--timeout", "20000", "--ssh", target];
        home.run(args.into_iter().chain(["--ssh-identity", key.to_str().expect("a text")]))
    }

    /// The processes of `ssh` so far.
    fn pids(&self) -> Vec<u32> {
        let text = fs::read_to_string(self.path("pids")).unwrap_or_default();
        text.lines().map(|line| line.parse().expect("a number")).collect()
    }

    /// Asserts that `ssh` was started, and nothing is left of it.
    #[track_caller]
    fn assert_gone(&self) {
        let pids = self.pids();
        assert!(!pids.is_empty(), "ssh was not started");
        wait_until("ssh is gone", || pids.iter().all(|pid| !is_alive(*pid)));
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("it is bound").port()
}

/// Whether a process runs. One that ended, and whose new parent has not asked for it yet, does not.
fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[track_caller]
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A configuration that names the gateway's port at the other end.
fn configure(home: &Home, remote_port: u16) {
    let config = json!({ "gateway": { "remote": { "remotePort": remote_port } } });
    home.write(".openclaw/openclaw.json", &config.to_string());
}

/// The one warning of a tunnel that failed.
fn tunnel_warning(probe: &Value) -> &str {
    let warnings = probe["warnings"].as_array().expect("a list");
    let found = warnings.iter().find(|warning| warning["code"] == "ssh_tunnel_failed");
    found.and_then(|warning| warning["message"].as_str()).unwrap_or_else(|| panic!("none in {probe:#}"))
}

#[test]
fn a_gateway_that_only_listens_on_its_loopback_is_reached_and_nothing_is_left() {
    let Some(server) = Sshd::start() else { return };
    let far = Home::new();
    let gateway = Gateway::start(&far);
    let home = server.home();
    configure(&home, gateway.port);
    let probe = server.probe(&home, &server.target(), "key").json(0);
    assert_eq!(
        (&probe["primaryTargetId"], &probe["gateways"]),
        (&json!("sshTunnel"), &json!(1)),
        "{probe:#}"
    );
    let found = &probe["targets"][0];
    assert_eq!((&found["kind"], &found["authenticated"]), (&json!("sshTunnel"), &json!(true)));
    assert_eq!(
        (&found["tunnel"]["kind"], &found["tunnel"]["target"], &found["tunnel"]["remotePort"]),
        (&json!("ssh"), &json!(server.target()), &json!(gateway.port))
    );
    assert_eq!(found["url"], format!("ws://127.0.0.1:{}", found["tunnel"]["localPort"]));
    server.assert_gone();

    // The configuration can name all of it, the secret too.
    let config = json!({ "gateway": { "remote": {
        "sshTarget": server.target(), "sshIdentity": server.path("key"), "remotePort": gateway.port, "token": TOKEN,
    } } });
    home.write(".openclaw/openclaw.json", &config.to_string());
    let probe = home.run(["gateway", "probe", "--json", "--timeout", "20000"]).json(0);
    assert_eq!(probe["primaryTargetId"], "sshTunnel");
    // What is configured is not presented to a target that is typed.
    let args = ["gateway", "probe", "--json", "--timeout", "20000", "--ssh", &server.target()];
    let probe = home.run(args).json(4);
    assert_eq!(probe["warnings"][0]["code"], "credential_rejected");
    server.assert_gone();
}

#[test]
fn a_gateway_that_speaks_tls_on_its_loopback_is_reached_and_its_certificate_compared() {
    let Some(server) = Sshd::start() else { return };
    let far = Home::new();
    far.write(".openclaw/openclaw.json", r#"{ "gateway": { "tls": { "enabled": true } } }"#);
    let gateway = Gateway::start(&far);
    let home = server.home();
    configure(&home, gateway.port);
    let probe = server.probe(&home, &server.target(), "key").json(0);
    let found = &probe["targets"][0];
    assert_eq!((&found["kind"], &found["authenticated"]), (&json!("sshTunnel"), &json!(true)), "{probe:#}");
    assert_eq!(found["url"], format!("wss://127.0.0.1:{}", found["tunnel"]["localPort"]));

    // A pin is that of the gateway at the other end, and nothing is presented to another one.
    let record = fs::read(far.path().join(".openclaw/gateway/runtime.json")).expect("the gateway runs");
    let record: Value = serde_json::from_slice(&record).expect("it is JSON");
    let right = record["tlsFingerprint"].as_str().expect("it speaks TLS").to_owned();
    for (pin, exit) in [(right, 0), ("ab".repeat(32), 4)] {
        let config = json!({ "gateway": { "remote": {
            "url": format!("wss://127.0.0.1:{}", gateway.port), "tlsFingerprint": pin, "transport": "ssh",
            "sshTarget": server.target(), "sshIdentity": server.path("key"), "remotePort": gateway.port, "token": TOKEN,
        } } });
        home.write(".openclaw/openclaw.json", &config.to_string());
        let probe = home.run(["gateway", "probe", "--json", "--timeout", "20000"]).json(exit);
        let targets = probe["targets"].as_array().expect("a list");
        let found = targets.iter().find(|target| target["kind"] == "sshTunnel").expect("it was looked at");
        assert_eq!(found["authenticated"], exit == 0, "{probe:#}");
    }
    server.assert_gone();
}

#[test]
fn each_way_to_fail_has_its_sentence_and_its_exit() {
    let Some(server) = Sshd::start() else { return };
    let home = server.home();
    let closed = free_port();
    configure(&home, closed);
    let target = server.target();
    let user = target.split('@').next().expect("a user");
    for (target, key, exit, sentence) in [
        (target.clone(), "other", 4, "takes none of the keys that ssh offers"),
        (format!("{user}@127.0.0.1:{closed}"), "key", 3, "connection refused"),
        (format!("{user}@no-such-host.invalid"), "key", 3, "there is no host no-such-host.invalid"),
        (target.clone(), "key", 3, "nothing listens there on port"),
        (format!("{user}@localhost:{}", server.port), "key", 3, "does not know the host key of localhost"),
    ] {
        let probe = server.probe(&home, &target, key).json(exit);
        assert!(tunnel_warning(&probe).contains(sentence), "{target}: {probe:#}");
    }
    let stranger = new_key(&server.path("stranger"));
    fs::write(server.path("known"), format!("[127.0.0.1]:{} {stranger}", server.port))
        .expect("it is written");
    let probe = server.probe(&home, &target, "key").json(3);
    assert!(tunnel_warning(&probe).contains("has changed"), "{probe:#}");
    server.assert_gone();
}

#[test]
fn a_target_that_could_be_an_option_never_reaches_ssh() {
    let home = Home::new();
    let mark = home.path().join("mark");
    for target in [
        format!("-oProxyCommand=touch {}", mark.display()),
        format!("ada@-oProxyCommand=touch {}", mark.display()),
        format!("ada@host;touch {}", mark.display()),
    ] {
        let error = home.run(["gateway", "probe", "--ssh", &target, "--json"]).json(2);
        assert!(
            error["error"]["message"].as_str().is_some_and(|told| told.contains("is no SSH target")),
            "{error:#}"
        );
        let config = json!({ "gateway": { "remote": { "sshTarget": target } } });
        home.write(".openclaw/openclaw.json", &config.to_string());
        let error = home.run(["gateway", "probe", "--json"]).json(2);
        assert_eq!(error["error"]["code"], "CONFIG_INVALID");
        fs::remove_file(home.path().join(".openclaw/openclaw.json")).expect("it is there");
    }
    assert!(!mark.exists());
    let error =
        home.run(["gateway", "probe", "--ssh", "ada@host", "--ssh-identity", "/no/key", "--json"]).json(2);
    assert!(
        error["error"]["message"].as_str().is_some_and(|told| told.contains("cannot be read")),
        "{error:#}"
    );
}

#[test]
fn ssh_ends_with_the_command_however_that_ends() {
    let Some(server) = Sshd::start() else { return };
    // Takes connections, and never answers: the tunnel stays.
    let silent = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let home = server.home();
    configure(&home, silent.local_addr().expect("it is bound").port());
    let key = server.path("key");
    let target = server.target();
    for (with, code) in [(Signal::KILL, None), (Signal::INT, Some(130)), (Signal::TERM, None)] {
        let args = ["gateway", "probe", "--token", TOKEN, "--timeout", "600000", "--ssh", &target];
        let mut child =
            home.spawn_piped(args.into_iter().chain(["--ssh-identity", key.to_str().expect("a text")]));
        // Two connections: that which finds the tunnel open, and that of the probe.
        let _through =
            [silent.accept().expect("the tunnel opens"), silent.accept().expect("the probe connects")];
        let ssh = *server.pids().last().expect("ssh was started");
        assert!(is_alive(ssh));
        signal(&child, with);
        assert_eq!(child.wait().expect("it ends").code(), code, "{with:?}");
        server.assert_gone();
    }
}
