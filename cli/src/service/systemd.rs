//! systemd: units of the account and of the machine, how they are read and written, and what `systemctl` says.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
};

use crate::exit::Exit;

use super::{
    Activity, CommandLine, Definition, Detail, Ended, Host, Manager, ManagerKind, Origin, Problem, Runner,
    Scope, ServiceState,
    plan::{Plan, PlannedFile, Role, Step},
};

/// The first line of a unit that `gateway install` wrote.
pub(super) const HEADER: &str = "# Written by `openclaw gateway install`.";
/// What is asked of a unit, in one call.
const PROPERTIES: &str = "LoadState,UnitFileState,ActiveState,SubState,Result,MainPID,ExecMainCode,ExecMainStatus,\
                          NRestarts,FragmentPath,DropInPaths,NeedDaemonReload";

/// systemd, for one unit.
#[derive(Debug)]
pub(super) struct Systemd {
    scope: Scope,
    unit: String,
    path: PathBuf,
}

impl Systemd {
    /// The unit of a profile. cli.md section 7.2.
    pub(super) fn new(host: &Host, scope: Scope, profile: Option<&str>) -> Self {
        let unit = match profile {
            None => "openclaw-gateway.service".to_owned(),
            Some(profile) => format!("openclaw-gateway-{profile}.service"),
        };
        Self { scope, path: unit_dir(host, scope).join(&unit), unit }
    }

    /// A call of `systemctl`. One that is given a runtime directory reaches the bus of the account also from a
    /// shell that lost the variable, as `su` and cron jobs do.
    pub(super) fn systemctl(&self, host: &Host, arguments: &[&str]) -> CommandLine {
        let user = (self.scope == Scope::User).then_some("--user");
        let words = ["systemctl"].into_iter().chain(user).chain(arguments.iter().copied());
        self.at_runtime_dir(host, CommandLine::new(words))
    }

    /// Shows a command of the account where its manager is.
    fn at_runtime_dir(&self, host: &Host, command: CommandLine) -> CommandLine {
        match &host.runtime_dir {
            Some(runtime) if self.scope == Scope::User => {
                command.with("XDG_RUNTIME_DIR", runtime.display().to_string())
            }
            _ => command,
        }
    }

    fn show(
        &self,
        host: &Host,
        runner: &dyn Runner,
        unit: &str,
    ) -> Result<BTreeMap<String, String>, Problem> {
        let property = format!("--property={PROPERTIES}");
        let ended = runner
            .run(&self.systemctl(host, &["show", unit, &property, "--no-pager"]))
            .map_err(|error| self.no_systemctl(host, &error))?;
        if !ended.ok {
            return Err(self.unanswered(host, runner, &ended));
        }
        Ok(properties(&ended.stdout))
    }

    fn no_systemctl(&self, host: &Host, error: &io::Error) -> Problem {
        if error.kind() == io::ErrorKind::NotFound {
            not_booted(host)
        } else {
            Problem::new("no-systemctl", format!("systemctl does not start: {error}"), "systemctl --version")
        }
    }

    /// Why `systemctl` got no answer.
    fn unanswered(&self, host: &Host, runner: &dyn Runner, ended: &Ended) -> Problem {
        let state = runner.run(&CommandLine::new(["systemctl", "is-system-running"]));
        if state.is_ok_and(|state| matches!(state.stdout.trim(), "offline" | "")) {
            return not_booted(host);
        }
        match self.scope {
            Scope::User if host.is_root() => Problem::new(
                "no-user-bus",
                format!("root has no service manager of its own here: {}", ended.complaint()),
                "openclaw gateway install --system",
            ),
            Scope::User => Problem::new(
                "no-user-bus",
                format!(
                    "the service manager of {} does not run, as there is no login session: {}",
                    host.account.name,
                    ended.complaint()
                ),
                format!("sudo loginctl enable-linger {}", host.account.name),
            ),
            Scope::System => Problem::new(
                "no-answer",
                format!("systemd does not answer: {}", ended.complaint()),
                "systemctl is-system-running",
            ),
        }
    }

    fn state_of(
        &self,
        host: &Host,
        runner: &dyn Runner,
        unit: &str,
        path: &Path,
    ) -> Result<ServiceState, Problem> {
        let shown = self.show(host, runner, unit)?;
        let text = |name: &str| shown.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let number = |name: &str| text(name).and_then(|value| value.parse::<i32>().ok());
        let fragment = text("FragmentPath").map_or_else(|| path.to_owned(), PathBuf::from);
        let content = fs::read_to_string(&fragment).ok();
        // CLD_EXITED; a signal has its number in ExecMainStatus instead of an exit code.
        let exit = number("ExecMainStatus").filter(|_| number("ExecMainCode") == Some(1));
        let pid = text("MainPID").and_then(|value| value.parse().ok()).filter(|pid| *pid != 0);
        let activity = match (text("ActiveState"), pid) {
            (Some("active" | "reloading"), Some(pid)) => Activity::Running { pid },
            (Some("activating"), _) => Activity::Restarting,
            (Some("failed"), _) => Activity::Failed { exit },
            (Some("inactive" | "deactivating"), _) => Activity::Stopped,
            _ => Activity::Unknown,
        };
        let installed = content.is_some() || text("LoadState").is_some_and(|state| state != "not-found");
        let origin = content.as_deref().map_or(Origin::This, |content| origin(content, host));
        Ok(ServiceState {
            manager: ManagerKind::Systemd,
            scope: self.scope,
            name: unit.to_owned(),
            path: fragment,
            definition: content.as_deref().map(definition),
            installed,
            enabled: matches!(text("UnitFileState"), Some("enabled" | "enabled-runtime")),
            activity,
            detail: Detail {
                state: text("ActiveState").map(str::to_owned),
                sub_state: text("SubState").map(str::to_owned),
                last_exit_status: exit,
                last_exit_reason: text("Result").map(str::to_owned),
                restarts: text("NRestarts").and_then(|value| value.parse().ok()),
            },
            origin,
        })
    }
}

impl Manager for Systemd {
    fn kind(&self) -> ManagerKind {
        ManagerKind::Systemd
    }

    fn scope(&self) -> Scope {
        self.scope
    }

    fn name(&self) -> &str {
        &self.unit
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn definition(&self, plan: &Plan) -> PlannedFile {
        PlannedFile {
            path: self.path.clone(),
            content: unit(plan),
            // Units of the account are nobody else's business; those of the machine are read by tools of others.
            mode: if self.scope == Scope::User { 0o600 } else { 0o644 },
            is_secret: false,
            role: Role::Definition,
        }
    }

    /// The manager of the account has a home directory of its own, which need not be this shell's.
    fn preflight(&self, host: &Host, runner: &dyn Runner) -> Option<Problem> {
        let folder = self.path.parent()?;
        let asked = runner.run(&self.systemctl(host, &["show", "--property=UnitPath", "--value"])).ok()?;
        let is_read = !asked.ok || words(&asked.stdout).iter().any(|known| Path::new(known) == folder);
        (!is_read).then(|| {
            Problem::new(
                "unit-path",
                format!("the service manager of {} does not read {}", host.account.name, folder.display()),
                format!("HOME={} XDG_CONFIG_HOME= openclaw gateway install", host.account.home.display()),
            )
        })
    }

    fn checks(&self, host: &Host, staged: &Path) -> Vec<Step> {
        let user = (self.scope == Scope::User).then(|| "--user".to_owned());
        let words = ["systemd-analyze".to_owned()].into_iter().chain(user).chain([
            "verify".to_owned(),
            "--man=no".to_owned(),
            staged.display().to_string(),
        ]);
        vec![Step::must(self.at_runtime_dir(host, CommandLine::new(words)))]
    }

    fn register(&self, host: &Host) -> Vec<Step> {
        vec![
            Step::must(self.systemctl(host, &["daemon-reload"])),
            Step::must(self.systemctl(host, &["enable", &self.unit])),
        ]
    }

    fn unregister(&self, host: &Host) -> Vec<Step> {
        vec![Step::must(self.systemctl(host, &["disable", "--now", &self.unit]))]
    }

    fn forget(&self, host: &Host) -> Vec<Step> {
        vec![
            Step::must(self.systemctl(host, &["daemon-reload"])),
            Step::may(self.systemctl(host, &["reset-failed", &self.unit])),
        ]
    }

    /// A start that was given up on counts no more once somebody asks for another. Whether it works is seen by
    /// looking at the gateway, which says more than the job.
    fn start(&self, host: &Host) -> Vec<Step> {
        vec![
            Step::may(self.systemctl(host, &["reset-failed", &self.unit])),
            Step::must(self.systemctl(host, &["start", "--no-block", &self.unit])),
        ]
    }

    fn stop(&self, host: &Host) -> Vec<Step> {
        vec![Step::must(self.systemctl(host, &["stop", "--no-block", &self.unit]))]
    }

    fn restart(&self, host: &Host) -> Vec<Step> {
        vec![
            Step::may(self.systemctl(host, &["reset-failed", &self.unit])),
            Step::must(self.systemctl(host, &["restart", "--no-block", &self.unit])),
        ]
    }

    fn log_lines(&self, _host: &Host, count: usize) -> Option<CommandLine> {
        let count = count.to_string();
        let user = (self.scope == Scope::User).then_some("--user");
        let words = ["journalctl"].into_iter().chain(user);
        Some(CommandLine::new(words.chain([
            "-u",
            &self.unit,
            "-n",
            &count,
            "-o",
            "cat",
            "--no-pager",
            "--quiet",
        ])))
    }

    fn state(&self, host: &Host, runner: &dyn Runner) -> Result<ServiceState, Problem> {
        self.state_of(host, runner, &self.unit, &self.path)
    }

    fn problems(&self, host: &Host, runner: &dyn Runner, service: &ServiceState) -> Vec<Problem> {
        let mut problems = Vec::new();
        if service.scope == Scope::User && service.enabled && !host.is_root() {
            let name = host.account.name.as_str();
            let asked = runner.run(&CommandLine::new(["loginctl", "show-user", name, "--property=Linger"]));
            if asked.is_ok_and(|ended| ended.ok && ended.stdout.trim() == "Linger=no") {
                problems.push(Problem::new(
                    "linger-off",
                    format!(
                        "lingering is off for {name}: the gateway stops at logout, and does not start at boot"
                    ),
                    format!("loginctl enable-linger {name}"),
                ));
            }
        }
        problems
    }

    fn siblings(&self, host: &Host, runner: &dyn Runner) -> Vec<ServiceState> {
        let mut found = Vec::new();
        for scope in [Scope::User, Scope::System] {
            let folder = unit_dir(host, scope);
            let mut units: Vec<String> = fs::read_dir(&folder)
                .into_iter()
                .flatten()
                .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
                .filter(|name| name.ends_with(".service") && *name != self.unit)
                .filter(|name| {
                    name.starts_with("openclaw-gateway")
                        || fs::read_to_string(folder.join(name))
                            .is_ok_and(|text| text.contains("OPENCLAW_SERVICE_MARKER="))
                })
                .collect();
            units.sort();
            let manager = Self { scope, unit: String::new(), path: folder.clone() };
            let states = units.iter().map(|unit| manager.state_of(host, runner, unit, &folder.join(unit)));
            found.extend(states.filter_map(Result::ok));
        }
        found
    }
}

fn unit_dir(host: &Host, scope: Scope) -> PathBuf {
    match scope {
        Scope::User => host.config_home.join("systemd/user"),
        Scope::System => host.system_units.clone(),
    }
}

fn not_booted(host: &Host) -> Problem {
    if host.is_container {
        Problem::new(
            "container",
            "this container has no systemd: whatever runs the container restarts what runs in it",
            "openclaw gateway run",
        )
    } else {
        Problem::new("no-systemd", "this system was not started by systemd", "openclaw gateway run")
    }
}

/// The unit of a plan. Version 254 of systemd is the first that lets the pauses between restarts grow.
fn unit(plan: &Plan) -> String {
    let profile = plan.profile.as_ref().map(|profile| format!(" (profile: {profile})")).unwrap_or_default();
    let mut text = format!("{HEADER}\n\n[Unit]\nDescription=OpenClaw Gateway{profile}\n");
    let mut line = |key: &str, value: &str| {
        writeln!(text, "{key}={value}").expect("a String takes everything");
    };
    if plan.scope == Scope::System {
        line("After", "network-online.target");
        line("Wants", "network-online.target");
    }
    // With the pauses below, only a gateway that ends at once each time comes so far.
    line("StartLimitIntervalSec", "600");
    line("StartLimitBurst", "30");
    line("\n[Service]\nType", "notify");
    line("NotifyAccess", "main");
    let command = [plan.program.display().to_string()].into_iter().chain(plan.arguments.iter().cloned());
    let command: Vec<String> = command.map(|word| quoted(&word.replace('$', "$$"))).collect();
    line("ExecStart", &command.join(" "));
    if plan.scope == Scope::System && plan.account.uid != 0 {
        line("User", &plan.account.name);
    }
    for (name, value) in &plan.environment {
        line("Environment", &quoted(&format!("{name}={value}")));
    }
    if let Some(file) = &plan.secrets {
        // The rest of the line is the path, blanks included.
        line("EnvironmentFile", &file.display().to_string().replace('%', "%%"));
    }
    line("Restart", "on-failure");
    line("RestartPreventExitStatus", &Exit::Configuration.code().to_string());
    if plan.systemd >= 254 {
        line("RestartSec", "1");
        line("RestartSteps", "6");
        line("RestartMaxDelaySec", "60");
    } else {
        line("RestartSec", "10");
    }
    line("TimeoutStartSec", "60");
    line("TimeoutStopSec", &plan.stop_timeout.as_secs().to_string());
    line("WatchdogSec", "30");
    line("KillMode", "mixed");
    line("OOMPolicy", "continue");
    line("UMask", "0077");
    let target = if plan.scope == Scope::User { "default.target" } else { "multi-user.target" };
    line("\n[Install]\nWantedBy", target);
    text
}

/// `word` as a line of a unit holds it: one word, taken as it is.
fn quoted(word: &str) -> String {
    let plain = word.replace('%', "%%");
    if !plain.is_empty() && !plain.contains([' ', '\t', '"', '\'', '\\', ';', '#']) {
        return plain;
    }
    format!("\"{}\"", plain.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The version in the first line of `systemctl --version`, 0 when it cannot be told.
pub(super) fn version(runner: &dyn Runner) -> u32 {
    let ended = runner.run(&CommandLine::new(["systemctl", "--version"]));
    ended.ok().and_then(|ended| ended.stdout.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
}

/// The lines `Name=value` of `systemctl show`.
fn properties(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

/// Who wrote a unit.
fn origin(unit: &str, host: &Host) -> Origin {
    let definition = definition(unit);
    if unit.starts_with(HEADER) {
        let is_ours = definition.arguments.first().is_some_and(|program| Path::new(program) == host.program);
        return if is_ours { Origin::This } else { Origin::OtherInstallation };
    }
    let is_stock = definition.variable("OPENCLAW_SERVICE_MARKER").is_some()
        || definition.arguments.iter().any(|argument| argument.ends_with("dist/index.js"));
    if is_stock { Origin::Stock } else { Origin::Unknown }
}

/// What a unit says of its command and its environment. Lines that go on after a backslash are joined.
pub(super) fn definition(unit: &str) -> Definition {
    let mut found = Definition::default();
    let joined = unit.replace("\\\n", " ");
    let mut section = "";
    for line in joined.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        }
        let Some((key, value)) = line.split_once('=').filter(|_| section == "[Service]") else { continue };
        match key.trim() {
            "ExecStart" => {
                let command = value.trim().trim_start_matches(['@', '-', ':', '+', '!']);
                found.arguments = words(command).iter().map(|word| word.replace("$$", "$")).collect();
            }
            "Environment" => {
                let pairs = words(value);
                found.environment.extend(
                    pairs
                        .iter()
                        .filter_map(|pair| pair.split_once('='))
                        .map(|(name, value)| (name.to_owned(), value.to_owned())),
                );
            }
            _ => {}
        }
    }
    found
}

/// The words of a line of a unit: blanks part them, quotes hold them together, a backslash takes what follows.
pub(super) fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars().peekable();
    while let Some(char) = chars.next() {
        match (char, quote) {
            ('\\', _) => word.get_or_insert_default().extend(chars.next()),
            (mark @ ('"' | '\''), None) => {
                quote = Some(mark);
                word.get_or_insert_default();
            }
            (mark, Some(open)) if mark == open => quote = None,
            (blank, None) if blank.is_whitespace() => words.extend(word.take()),
            ('%', _) if chars.peek() == Some(&'%') => {
                chars.next();
                word.get_or_insert_default().push('%');
            }
            (other, _) => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use openclaw_gateway::settings::Limits;

    use super::*;
    use crate::service::tests::{ScriptedRunner, host, plan};

    const RUNNING: &str = "LoadState=loaded\nUnitFileState=enabled\nActiveState=active\nSubState=running\n\
        Result=success\nMainPID=42\nExecMainCode=0\nExecMainStatus=0\nNRestarts=3\nFragmentPath=\n";

    #[test]
    fn a_unit_of_the_account() {
        insta::assert_snapshot!(unit(&plan(Scope::User)));
    }

    #[test]
    fn a_unit_of_the_machine() {
        insta::assert_snapshot!(unit(&plan(Scope::System)));
    }

    #[test]
    fn an_older_systemd_gets_no_setting_that_it_does_not_know() {
        let old = unit(&Plan { systemd: 252, ..plan(Scope::User) });
        assert!(!old.contains("RestartSteps") && old.contains("RestartSec=10\n"), "{old}");
    }

    #[test]
    fn a_gateway_has_time_to_drain() {
        assert!(plan(Scope::User).stop_timeout > Limits::default().drain_timeout);
    }

    #[test]
    fn a_unit_is_read_back_as_it_was_planned() {
        let plan = plan(Scope::User);
        let read = definition(&unit(&plan));
        assert_eq!(read.arguments[0], plan.program.display().to_string());
        assert_eq!(read.arguments[1..], plan.arguments);
        assert_eq!(read.environment, plan.environment);
        assert_eq!(read.port(), Some(18999));
    }

    #[test]
    fn any_word_survives_quoting() {
        for word in
            ["", "plain", "a b", "a\"b", "a\\b", "it's", "100%", "%h", "$HOME", "a;b", "#x", "a\\ b\" %%"]
        {
            assert_eq!(words(&quoted(word)), [word], "{word:?} as {}", quoted(word));
        }
    }

    #[test]
    fn the_writer_of_a_unit_is_known() {
        let own = unit(&plan(Scope::User));
        assert_eq!(origin(&own, &host()), Origin::This);
        let elsewhere = Host { program: "/usr/bin/openclaw".into(), ..host() };
        assert_eq!(origin(&own, &elsewhere), Origin::OtherInstallation);
        let stock = "[Service]\nExecStart=/usr/bin/node /x/dist/index.js gateway --port 19201\n\
                     Environment=OPENCLAW_SERVICE_MARKER=openclaw\n";
        assert_eq!(origin(stock, &host()), Origin::Stock);
        assert_eq!(definition(stock).port(), Some(19201));
        assert_eq!(origin("[Service]\nExecStart=/bin/true\n", &host()), Origin::Unknown);
    }

    #[test]
    fn what_systemctl_shows_is_read() {
        let host = host();
        let systemd = Systemd::new(&host, Scope::User, Some("work"));
        assert_eq!(systemd.path, Path::new("/home/ada/.config/systemd/user/openclaw-gateway-work.service"));
        for (from, to, expected) in [
            ("", "", Activity::Running { pid: 42 }),
            ("=active", "=activating", Activity::Restarting),
            ("=active", "=inactive", Activity::Stopped),
            ("=active", "=failed", Activity::Failed { exit: None }),
        ] {
            let text = RUNNING.replace(from, to);
            let text = if from.is_empty() { RUNNING.to_owned() } else { text };
            let state = systemd.state(&host, &ScriptedRunner::says(&text)).expect("it answers");
            assert_eq!(state.activity, expected);
            assert!(state.enabled && state.installed);
        }
        let failed = RUNNING
            .replace("=active", "=failed")
            .replace("ExecMainCode=0", "ExecMainCode=1")
            .replace("ExecMainStatus=0", "ExecMainStatus=78");
        let state = systemd.state(&host, &ScriptedRunner::says(&failed)).expect("it answers");
        assert_eq!(state.activity, Activity::Failed { exit: Some(78) });
    }

    #[test]
    fn lingering_that_is_off_is_found() {
        let host = host();
        let systemd = Systemd::new(&host, Scope::User, None);
        let runner = ScriptedRunner::default().answers("loginctl", true, "Linger=no\n", "").answers(
            "systemctl",
            true,
            RUNNING,
            "",
        );
        let service = systemd.state(&host, &runner).expect("it answers");
        let problems = systemd.problems(&host, &runner, &service);
        assert_eq!(problems[0].hint, "loginctl enable-linger ada");
    }
}
