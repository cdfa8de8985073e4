//! `gateway install`, `start`, `stop`, `restart`, `uninstall`, with a stand-in `systemctl` that keeps state, starts
//! what the unit says and refuses calls that it does not know. A real systemd is asked by
//! `tests/service/systemd.sh`.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::{
    process::{Home, Outcome, signal},
    server::{Server, record},
};

const TOKEN: &str = "hush-token-0123456789";
const KEY: &str = "hush-key-0123456789";

/// A home directory on a machine with the stand-in. The gateway that it started ends with it.
struct Machine {
    home: Home,
    /// What the stand-in keeps, beside the home directory, which tests compare.
    standin: tempfile::TempDir,
}

impl Machine {
    fn new() -> Self {
        let standin = tempfile::tempdir().expect("a directory can be made");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/command_line/systemctl.sh");
        symlink(script, standin.path().join("systemctl")).expect("a link can be made");
        let path = format!("{}:/usr/bin:/bin", standin.path().display());
        let state = standin.path().join("state").display().to_string();
        let home = Home::new().with("PATH", path).with("STANDIN", state);
        Self { home, standin }
    }

    fn run(&self, line: &str) -> Outcome {
        self.home.run(line.split_whitespace())
    }

    fn unit(&self) -> PathBuf {
        self.home.path().join(".config/systemd/user/openclaw-gateway.service")
    }

    fn calls(&self) -> String {
        fs::read_to_string(self.standin.path().join("state/calls")).unwrap_or_default()
    }

    fn pid(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.standin.path().join("state/pid")).ok()?;
        Pid::from_raw(text.trim().parse().ok()?)
    }

    fn install(&self) -> String {
        format!(
            "gateway install --port {} --token {TOKEN} --env TEST_API_KEY={KEY} --env COLOUR=red",
            free_port()
        )
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}

/// Every file and folder below `root`, with its mode and content.
fn tree(root: &Path) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the folder can be read") {
            let path = entry.expect("the folder can be read").path();
            let mode = path.symlink_metadata().expect("it is there").permissions().mode() & 0o777;
            if path.is_dir() {
                folders.push(path.clone());
                found.insert(path, (mode, Vec::new()));
            } else {
                let content = fs::read(&path).expect("the file can be read");
                found.insert(path, (mode, content));
            }
        }
    }
    found
}

#[test]
fn a_gateway_is_installed_started_restarted_stopped_and_removed() {
    let machine = Machine::new();
    let install = machine.install();
    let installed = machine.run(&format!("{install} --json")).json(0);
    assert_eq!(installed["action"], "install");
    assert_eq!(installed["result"], "installed");
    assert_eq!(installed["service"]["label"], "openclaw-gateway.service");
    assert_eq!(installed["service"]["loaded"], true);
    assert_eq!(machine.run(&format!("{install} --json")).json(0)["result"], "already-installed");

    let started = machine.run("gateway start --json").json(0);
    assert_eq!(started["result"], "started");
    assert_eq!(machine.run("gateway start --json").json(0)["result"], "already-running");
    // The command line finds the port and the token by itself.
    assert_eq!(machine.run("gateway health --json").json(0)["ok"], true);

    let restarted = machine.run("gateway restart --json").json(0);
    assert_eq!(restarted["result"], "restarted");
    assert_ne!(restarted["instanceId"], started["instanceId"]);

    assert_eq!(machine.run("gateway stop --json").json(0)["result"], "stopped");
    assert_eq!(machine.run("gateway stop --json").json(0)["result"], "not-loaded");
    let removed = machine.run("gateway uninstall --json").json(0);
    assert_eq!(removed["result"], "uninstalled");
    assert_eq!(removed["service"]["installed"], false);
    assert!(!machine.home.path().join(".config").exists(), "folders that were made are gone");
}

#[test]
fn uninstall_leaves_the_home_directory_as_before() {
    let machine = Machine::new();
    machine.home.write(".config/mine.conf", "x");
    let before = tree(machine.home.path());
    machine.run(&machine.install()).ok();
    assert_ne!(tree(machine.home.path()), before);
    machine.run("gateway uninstall").ok();
    assert_eq!(tree(machine.home.path()), before);
    let again = machine.run("gateway uninstall --json").json(0);
    assert_eq!(again["result"], "uninstalled");
    assert!(
        again["message"].as_str().is_some_and(|text| text.starts_with("Nothing is installed")),
        "{again}"
    );
}

#[test]
fn an_install_that_fails_leaves_nothing() {
    let machine = Machine::new();
    let before = tree(machine.home.path());
    fs::create_dir_all(machine.standin.path().join("state")).expect("a directory can be made");
    fs::write(machine.standin.path().join("state/refuse"), "").expect("a file can be written");
    let outcome = machine.run(&machine.install());
    assert!(outcome.refused(1).contains("refused as asked"), "{outcome:?}");
    assert_eq!(tree(machine.home.path()), before);
}

#[test]
fn a_dry_run_lists_every_file_and_command_and_changes_nothing() {
    let machine = Machine::new();
    let before = tree(machine.home.path());
    let install = machine.install();
    let shown = machine.run(&format!("{install} --dry-run --json")).json(0);
    assert_eq!(tree(machine.home.path()), before);
    assert_eq!(shown["result"], "dry-run");
    assert_eq!(
        shown["commands"],
        serde_json::json!([
            ["systemctl", "--user", "daemon-reload"],
            ["systemctl", "--user", "enable", "openclaw-gateway.service"],
        ])
    );
    // What is shown is what is then written.
    machine.run(&install).ok();
    let files = shown["files"].as_array().expect("a list");
    assert_eq!(files.len(), 4, "{shown}");
    for file in files {
        let path = Path::new(file["path"].as_str().expect("a path"));
        let mode = path.metadata().expect("it was written").permissions().mode() & 0o777;
        assert_eq!(file["mode"], format!("{mode:04o}"), "{}", path.display());
        if file["secret"] == false {
            assert_eq!(file["content"], fs::read_to_string(path).expect("it is text"));
        } else {
            assert_eq!(mode, 0o600);
        }
    }
}

#[test]
fn no_secret_is_anywhere_but_in_its_own_file() {
    let machine = Machine::new();
    let install = machine.install();
    let mut said = Vec::new();
    for line in [
        format!("{install} --dry-run"),
        format!("{install} --dry-run --json"),
        install.clone(),
        format!("{install} --json"),
        install.replace(KEY, "hush-other"),
        format!("{} --json", install.replace(TOKEN, "hush-other")),
        "gateway start --json".to_owned(),
        "gateway restart".to_owned(),
    ] {
        let outcome = machine.run(&line);
        said.push(format!("{}{}", outcome.stdout, outcome.stderr));
    }
    for text in &said {
        assert!(!text.contains("hush"), "{text}");
    }
    let pid = machine.pid().expect("the gateway runs").as_raw_nonzero();
    let command = fs::read(format!("/proc/{pid}/cmdline")).expect("it can be read");
    assert!(!String::from_utf8_lossy(&command).contains("hush"));
    assert!(!machine.calls().contains("hush"));
    let environment = fs::read(format!("/proc/{pid}/environ")).expect("it can be read");
    let environment = String::from_utf8_lossy(&environment).into_owned();
    assert!(environment.contains(&format!("TEST_API_KEY={KEY}")) && environment.contains("COLOUR=red"));
    let holders: Vec<_> = tree(machine.home.path())
        .into_iter()
        .filter(|(_, (_, content))| String::from_utf8_lossy(content).contains("hush"))
        .map(|(path, (mode, _))| (path.file_name().map(|name| name.to_string_lossy().into_owned()), mode))
        .collect();
    let expected = [("openclaw-gateway.service.env", 0o600), ("token", 0o600)];
    assert_eq!(holders, expected.map(|(name, mode)| (Some(name.to_owned()), mode)));
    machine.run("gateway stop").ok();
}

#[test]
fn a_unit_that_differs_is_shown_and_replaced_only_with_force() {
    let machine = Machine::new();
    machine.run("gateway install --port 18901").ok();
    let outcome = machine.run("gateway install --port 18902 --json").json(1);
    let lines = outcome["error"]["diff"][0]["lines"].as_array().expect("a list");
    let lines: Vec<&str> = lines.iter().filter_map(Value::as_str).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("- ExecStart=") && lines[0].ends_with("--port 18901"), "{lines:?}");
    assert!(lines[1].starts_with("+ ExecStart=") && lines[1].ends_with("--port 18902"), "{lines:?}");
    assert_eq!(outcome["hints"][0], "openclaw gateway install --force");
    machine.run("gateway install --port 18902 --force").ok();
    assert!(fs::read_to_string(machine.unit()).expect("it is there").contains("--port 18902"));
}

#[test]
fn a_unit_of_stock_openclaw_is_reported_and_put_back() {
    let machine = Machine::new();
    let stock = "[Service]\nExecStart=/usr/bin/node /x/dist/index.js gateway\n\
                 Environment=OPENCLAW_GATEWAY_TOKEN=hush-stock\nEnvironment=OPENCLAW_SERVICE_MARKER=openclaw\n";
    machine.home.write(".config/systemd/user/openclaw-gateway.service", stock);
    let before = tree(machine.home.path());
    let outcome = machine.run("gateway install");
    let said = outcome.refused(1);
    assert!(said.contains("belongs to a stock OpenClaw installation") && !said.contains("hush"), "{said}");
    let kept = machine.run("gateway uninstall");
    assert!(kept.refused(1).contains("stock OpenClaw"), "{kept:?}");
    assert_eq!(tree(machine.home.path()), before);
    machine.run("gateway install --force").ok();
    assert!(fs::read_to_string(machine.unit()).expect("it is there").contains("gateway install"));
    machine.run("gateway uninstall").ok();
    assert_eq!(tree(machine.home.path()), before);
}

#[test]
fn a_gateway_that_no_service_runs_is_found_and_stopped() {
    let machine = Machine::new();
    let port = free_port().to_string();
    machine.run(&format!("gateway install --port {port}")).ok();
    let mut orphan = machine.home.spawn_piped(["gateway", "run", "--port", &port]);
    while machine.home.run(["gateway", "health"]).code != Some(0) {
        assert!(orphan.try_wait().expect("it can be asked").is_none(), "the gateway ended");
    }
    let start = machine.run("gateway start");
    assert!(start.refused(1).contains("hint: openclaw gateway stop"), "{start:?}");
    let stopped = machine.run("gateway stop --json").json(0);
    assert_eq!(stopped["pid"], orphan.id());
    assert_eq!(orphan.wait().expect("it ends").code(), Some(0));
}

#[test]
fn what_cannot_be_installed_is_refused_with_what_to_do() {
    let machine = Machine::new();
    let hint = |line: &str, code: i32| {
        let answer = machine.run(&format!("{line} --json")).json(code);
        answer["error"]["message"].as_str().expect("a sentence").to_owned()
    };
    assert!(hint("gateway start", 1).starts_with("the gateway is not installed"));
    assert!(hint("gateway restart", 1).starts_with("the gateway is not installed"));
    assert_eq!(
        hint("gateway install --env BAD", 2),
        "a variable is given as `--env KEY=VALUE`; one has no `=`"
    );
    assert_eq!(hint("gateway install --env 1X=2", 2), "--env: `1X` is not the name of a variable");
    machine
        .home
        .write(".openclaw/openclaw.json", "{ gateway: { mode: 'remote', remote: { url: 'ws://x' } } }");
    assert!(hint("gateway install", 2).contains("this machine uses a gateway elsewhere"));
    machine.home.write(".openclaw/openclaw.json", "{ gateway: {} }");
    assert!(hint("gateway install", 2).contains("does not set gateway.mode"));
    machine.home.write(".openclaw/openclaw.json", "{ gateway: { mode: 'local', auth: { token: 'other' } } }");
    assert!(hint("gateway install --token mine", 2).contains("is another token"));
    let runtime = machine.run("gateway install --runtime node --json").json(0);
    assert!(
        runtime["warnings"][0].as_str().is_some_and(|text| text.contains("needs no runtime")),
        "{runtime}"
    );
}

#[test]
fn a_gateway_that_no_service_runs_is_restarted_in_its_process() {
    let machine = Machine::new();
    for home in [&machine.home, &Home::new().with("PATH", "/nowhere")] {
        home.write(".openclaw/openclaw.json", "{ gateway: { mode: 'local' } }");
        let mut server = Server::start(home, ["gateway", "--port", "0"]);
        let before = record(&home.path().join(".openclaw"));
        let restarted = home.run(["gateway", "restart", "--json"]).json(0);
        assert_eq!(restarted["result"], "restarted");
        assert_eq!(restarted["pid"], server.child.id());
        server.says("received SIGUSR1; restarting");
        let after = record(&home.path().join(".openclaw"));
        assert_eq!((&after["pid"], &after["port"]), (&before["pid"], &before["port"]));
        assert_ne!(after["instanceId"], before["instanceId"]);
        assert_eq!(home.run(["gateway", "health", "--json"]).json(0)["ok"], true);

        // One that cannot, or may not, goes on, and that is told.
        let refused = || {
            let refused = home.run(["gateway", "restart", "--timeout", "500", "--json"]).json(5);
            assert!(refused["error"]["message"].to_string().contains("did not restart"), "{refused}");
        };
        home.write(".openclaw/openclaw.json", "{ gateway: { mode: 1 } }");
        refused();
        home.write(".openclaw/openclaw.json", "{ gateway: { mode: 'local' }, commands: { restart: false } }");
        signal(&server.child, Signal::HUP);
        server.says("read again");
        refused();
        assert_eq!(record(&home.path().join(".openclaw")), after);
        server.stop(Signal::TERM);
    }
}

#[test]
fn a_machine_without_systemd_is_told_what_to_do_instead() {
    let home = Home::new().with("PATH", "/nowhere");
    let answer = home.run(["gateway", "install", "--json"]).json(1);
    assert_eq!(answer["action"], "install");
    assert_eq!(answer["error"]["hints"], serde_json::json!(["openclaw gateway run"]));
    assert_eq!(fs::read_dir(home.path()).expect("it can be read").count(), 0);
    // What would be written is shown all the same.
    assert_eq!(home.run(["gateway", "install", "--dry-run", "--json"]).json(0)["result"], "dry-run");
}

#[test]
#[expect(clippy::print_stderr, reason = "whoever runs the tests is told what was not tested")]
fn systemd_finds_no_fault_with_the_units() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "there is no systemd-analyze: install the package systemd");
        eprintln!("SKIPPED: there is no systemd-analyze, so the units were not verified");
        return;
    }
    let home = Home::new().with("PATH", std::env::var("PATH").expect("there is a PATH"));
    for scope in [&["--user"][..], &[]] {
        let mut line =
            vec!["gateway", "install", "--dry-run", "--json", "--env", "X_KEY=1", "--env", "A=b c%d"];
        line.extend(scope.is_empty().then_some("--system"));
        let shown = home.run(line).json(0);
        let files = shown["files"].as_array().expect("a list");
        let unit = files.last().expect("the definition comes last");
        let path = home.write("openclaw-gateway.service", unit["content"].as_str().expect("a text"));
        let verified = Command::new("systemd-analyze")
            .args(scope)
            .args(["verify", "--man=no"])
            .arg(&path)
            .env("XDG_RUNTIME_DIR", home.path())
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        assert!(verified.status.success() && !said.contains("openclaw-gateway"), "{said}");
    }
}
