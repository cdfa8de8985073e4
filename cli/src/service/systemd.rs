//! systemd: units of the account and of the machine, how they are read and written, and what `systemctl` says.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Activity, CommandLine, Definition, Detail, Ended, Host, Manager, ManagerKind, Origin, Problem, Runner,
    Scope, ServiceState,
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
        let command = CommandLine::new(words);
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
