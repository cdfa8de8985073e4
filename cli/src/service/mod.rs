//! The gateway as a service of the machine: what is known of it, and how it is put there, controlled and removed.
//!
//! A [`Manager`] is systemd, launchd or the Windows task scheduler. What it needs written and run is made as data
//! by pure functions, so that it can be shown before it is done and tested on any machine; commands go through one
//! [`Runner`]. This file owns what is known of a service. To add a manager: its file here, its arm in
//! [`manager`].

pub(crate) mod files;
mod host;
mod launchd;
pub(crate) mod plan;
pub(crate) mod ready;
mod runner;
mod schtasks;
mod systemd;

use std::path::{Path, PathBuf};

use openclaw_gateway::{config::Locations, state::RuntimeRecord};
use serde::Serialize;
use serde_json::{Value, json};

use self::plan::{Plan, PlannedFile, Step};
pub(crate) use self::{
    host::{Account, Host, Platform},
    runner::{CommandLine, Ended, Runner, SystemRunner},
};

/// What runs services on a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ManagerKind {
    Systemd,
    Launchd,
    Schtasks,
}

impl ManagerKind {
    /// Its name as people write it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Systemd => "systemd",
            Self::Launchd => "launchd",
            Self::Schtasks => "schtasks",
        }
    }
}

/// Whose service it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scope {
    /// The account's: it starts when the account logs in.
    User,
    /// The machine's: it starts when the machine does.
    System,
}

impl Scope {
    /// Its name as people write it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::System => "system",
        }
    }
}

/// What a service does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "status", rename_all = "lowercase")]
pub(crate) enum Activity {
    /// Its process runs.
    Running {
        /// The process.
        pid: u32,
    },
    /// It was not started, or it was stopped.
    Stopped,
    /// It ended, and is not started again.
    Failed {
        /// The exit code; absent when a signal or the manager ended it.
        exit: Option<i32>,
    },
    /// It ended, and will be started again; or it is starting.
    Restarting,
    /// The manager does not say.
    Unknown,
}

/// Who wrote the definition of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Origin {
    /// `gateway install` of this program.
    This,
    /// `gateway install` of such a program at another path.
    OtherInstallation,
    /// Stock OpenClaw.
    Stock,
    /// Somebody else.
    Unknown,
}

impl Origin {
    /// What it is, for a sentence.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::This => "this installation",
            Self::OtherInstallation => "another installation of this program",
            Self::Stock => "a stock OpenClaw installation",
            Self::Unknown => "somebody else",
        }
    }
}

/// Something that is not as it should be, and the one command that helps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    /// A stable name for scripts, such as `linger-off`.
    pub(crate) code: &'static str,
    /// One sentence, no full stop.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) hint: String,
}

impl Problem {
    pub(crate) fn new(code: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: hint.into() }
    }
}

/// What the manager says of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Detail {
    /// Its word for the state, such as `active`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) state: Option<String>,
    /// Its finer word, such as `running`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sub_state: Option<String>,
    /// How the last process ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_exit_status: Option<i32>,
    /// Why, such as `exit-code`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_exit_reason: Option<String>,
    /// How often it was started again by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) restarts: Option<u32>,
}

/// What a service's definition says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Definition {
    /// The program and its arguments.
    pub(crate) arguments: Vec<String>,
    /// Its variables, in their order.
    pub(crate) environment: Vec<(String, String)>,
}

impl Definition {
    /// The value of an option of the command.
    fn option(&self, name: &str) -> Option<&str> {
        let mut arguments = self.arguments.iter();
        while let Some(argument) = arguments.next() {
            if argument == name {
                return arguments.next().map(String::as_str);
            }
            if let Some(value) = argument.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
                return Some(value);
            }
        }
        None
    }

    /// The value of a variable; the last counts.
    pub(crate) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The port that it names; absent where the configuration says it.
    pub(crate) fn port(&self) -> Option<u16> {
        self.option("--port").or_else(|| self.variable("OPENCLAW_GATEWAY_PORT"))?.parse().ok()
    }
}

/// What is known of the gateway as a service on this machine.
#[derive(Debug, Clone)]
pub(crate) struct ServiceState {
    pub(crate) manager: ManagerKind,
    pub(crate) scope: Scope,
    /// What the manager calls it: a unit, a label, a task.
    pub(crate) name: String,
    /// The file that defines it, whether it is there or not.
    pub(crate) path: PathBuf,
    /// What that file says; absent when it is not there.
    pub(crate) definition: Option<Definition>,
    /// Whether there is such a service.
    pub(crate) installed: bool,
    /// Whether it starts by itself.
    pub(crate) enabled: bool,
    pub(crate) activity: Activity,
    pub(crate) detail: Detail,
    /// Who wrote the definition; [`Origin::This`] also when there is none.
    pub(crate) origin: Origin,
}

impl ServiceState {
    /// Whether it belongs to another installation: it is reported, and not replaced without `--force`.
    pub(crate) fn is_foreign(&self) -> bool {
        self.origin != Origin::This
    }

    /// The process, if it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        match self.activity {
            Activity::Running { pid } => Some(pid),
            Activity::Stopped | Activity::Failed { .. } | Activity::Restarting | Activity::Unknown => None,
        }
    }

    /// The port that the definition names.
    pub(crate) fn port(&self) -> Option<u16> {
        self.definition.as_ref().and_then(Definition::port)
    }

    /// The program that the definition starts.
    pub(crate) fn program(&self) -> Option<&Path> {
        self.definition.as_ref()?.arguments.first().map(Path::new)
    }

    /// The state directory that the definition names.
    pub(crate) fn state_dir(&self) -> Option<&Path> {
        self.definition.as_ref()?.variable("OPENCLAW_STATE_DIR").map(Path::new)
    }

    /// The configuration file that the definition names.
    pub(crate) fn config_file(&self) -> Option<&Path> {
        self.definition.as_ref()?.variable("OPENCLAW_CONFIG_PATH").map(Path::new)
    }

    /// The state in one word, as `status` shows it.
    pub(crate) fn status(&self) -> &'static str {
        match self.activity {
            Activity::Running { .. } => "running",
            Activity::Stopped => "stopped",
            Activity::Failed { .. } => "failed",
            Activity::Restarting => "restarting",
            Activity::Unknown => "unknown",
        }
    }

    /// Under the recorded names of `service` in the JSON of `gateway status` (cli.md section 4), ours after them.
    /// Values of variables that look like secrets are left out.
    pub(crate) fn json(&self) -> Value {
        let mut runtime = serde_json::to_value(&self.detail).expect("it has string keys only");
        runtime["status"] = json!(self.status());
        if let Some(pid) = self.pid() {
            runtime["pid"] = json!(pid);
        }
        if !self.installed {
            runtime["missingUnit"] = json!(true);
        }
        let command = self.definition.as_ref().map(|definition| {
            let environment: serde_json::Map<String, Value> = definition
                .environment
                .iter()
                .map(|(name, value)| {
                    let shown = if is_secret_name(name) { "(secret)" } else { value };
                    (name.clone(), json!(shown))
                })
                .collect();
            let arguments = without_secrets(&definition.arguments);
            json!({ "programArguments": arguments, "environment": environment, "sourcePath": self.path })
        });
        json!({
            "label": self.name,
            "loaded": self.enabled,
            "loadedText": "enabled",
            "notLoadedText": "disabled",
            "command": command,
            "runtime": runtime,
            "manager": self.manager,
            "scope": self.scope,
            "installed": self.installed,
            "origin": self.origin,
            "port": self.port(),
        })
    }
}

/// `arguments` without the values of options that take a secret, which older units hold.
fn without_secrets(arguments: &[String]) -> Vec<String> {
    let mut hide_next = false;
    arguments
        .iter()
        .map(|argument| {
            let hide = std::mem::take(&mut hide_next);
            match argument.split_once('=') {
                _ if hide => "(secret)".to_owned(),
                Some((name @ ("--token" | "--password"), _)) => format!("{name}=(secret)"),
                _ => {
                    hide_next = matches!(argument.as_str(), "--token" | "--password");
                    argument.clone()
                }
            }
        })
        .collect()
}

/// What an inspection found.
#[derive(Debug, Clone)]
pub(crate) struct Inspection {
    /// The service of the profile: that of the account if it is there, else that of the machine, else the one that
    /// `install` would make. Absent where no service manager answers; then a problem says why.
    pub(crate) service: Option<ServiceState>,
    /// Other gateways that are services here: those of the other scope and, with `deep`, of other profiles.
    pub(crate) others: Vec<ServiceState>,
    /// What is not as it should be.
    pub(crate) problems: Vec<Problem>,
    /// What the gateway that runs in the state directory says of itself.
    pub(crate) record: Option<RuntimeRecord>,
}

impl Inspection {
    /// Whether the gateway that runs in the state directory is not the service's.
    pub(crate) fn unmanaged(&self) -> Option<&RuntimeRecord> {
        let service = self.service.as_ref().and_then(ServiceState::pid);
        self.record.as_ref().filter(|record| Some(record.pid) != service)
    }
}

/// What is known of the gateway as a service on this machine; nothing is changed. `deep` also looks for gateways of
/// other profiles.
pub(crate) fn inspect(locations: &Locations, deep: bool) -> Inspection {
    inspect_on(&Host::current(), &SystemRunner, locations, deep)
}

/// [`inspect`] on a machine that tests make.
pub(crate) fn inspect_on(host: &Host, runner: &dyn Runner, locations: &Locations, deep: bool) -> Inspection {
    let record = RuntimeRecord::read(locations.state());
    let nothing =
        |problem| Inspection { service: None, others: Vec::new(), problems: vec![problem], record: None };
    let user = match manager(host, Scope::User, locations.profile()) {
        Ok(manager) => manager,
        Err(problem) => return Inspection { record, ..nothing(problem) },
    };
    let mut problems = Vec::new();
    let mut look = |manager: &dyn Manager| match manager.state(host, runner) {
        Ok(state) => Some(state),
        Err(problem) => {
            problems.push(problem);
            None
        }
    };
    let of_user = look(user.as_ref());
    // Asking the manager of the machine takes a process: only where it may have such a service.
    let of_system = manager(host, Scope::System, locations.profile())
        .ok()
        .filter(|system| deep || system.path().exists())
        .and_then(|system| look(system.as_ref()));
    let (mut service, other) = match (of_user, of_system) {
        (Some(user), Some(system)) if system.installed && !user.installed => (Some(system), None),
        (Some(user), system) => (Some(user), system.filter(|system| system.installed)),
        (None, system) => (system.filter(|system| system.installed), None),
    };
    if let Some(task) = service.as_mut().filter(|service| service.manager == ManagerKind::Schtasks) {
        task.activity =
            record.as_ref().map_or(Activity::Stopped, |record| Activity::Running { pid: record.pid });
    }
    if let (Some(service), Some(other)) = (&service, &other)
        && service.installed
    {
        problems.push(Problem::new(
            "two-services",
            format!(
                "{} is installed twice, for this account and for the machine: {} and {}",
                service.name,
                service.path.display(),
                other.path.display()
            ),
            "openclaw gateway uninstall --system",
        ));
    }
    let mut others: Vec<ServiceState> = other.into_iter().collect();
    if deep {
        others.extend(user.siblings(host, runner));
    }
    if let Some(service) = service.as_ref().filter(|service| service.installed) {
        problems.extend(user.problems(host, runner, service));
        problems.extend(audit(service, host, locations));
    }
    let inspection = Inspection { service, others, problems, record };
    let orphan = inspection.unmanaged().filter(|_| inspection.service.as_ref().is_some_and(|s| s.installed));
    let orphan = orphan.map(|record| {
        Problem::new(
            "orphan",
            format!(
                "the gateway that runs (pid {}, port {}) was not started by the service",
                record.pid, record.port
            ),
            "openclaw gateway stop",
        )
    });
    Inspection { problems: inspection.problems.iter().cloned().chain(orphan).collect(), ..inspection }
}

/// What is wrong with a definition, whoever manages it.
fn audit(service: &ServiceState, host: &Host, locations: &Locations) -> Vec<Problem> {
    let mut problems = Vec::new();
    let Some(definition) = &service.definition else { return problems };
    if service.is_foreign() {
        problems.push(Problem::new(
            "foreign",
            format!("{} belongs to {}: {}", service.name, service.origin.words(), service.path.display()),
            "openclaw gateway install --force",
        ));
    }
    if let Some(program) = service.program()
        && program.is_absolute()
        && !program.exists()
    {
        problems.push(Problem::new(
            "program-missing",
            format!("the service starts {}, which is not there", program.display()),
            "openclaw gateway install --force",
        ));
    }
    if definition.environment.iter().any(|(name, value)| is_secret_name(name) && !value.is_empty()) {
        problems.push(Problem::new(
            "secret-in-definition",
            format!("{} holds a secret in clear text", service.path.display()),
            "openclaw gateway install --force",
        ));
    }
    for (name, theirs, ours) in [
        ("state directory", service.state_dir(), locations.state().root()),
        ("configuration", service.config_file(), locations.config_file()),
    ] {
        if let Some(theirs) = theirs.filter(|theirs| *theirs != ours) {
            problems.push(Problem::new(
                "environment-differs",
                format!(
                    "the {name} of the service is {}, that of this shell is {}",
                    theirs.display(),
                    ours.display()
                ),
                "unset OPENCLAW_STATE_DIR OPENCLAW_CONFIG_PATH",
            ));
        }
    }
    if let (Some(theirs), Some(ours)) = (service.port(), host.variables.get("OPENCLAW_GATEWAY_PORT"))
        && ours.parse() != Ok(theirs)
    {
        problems.push(Problem::new(
            "environment-differs",
            format!(
                "the service listens on port {theirs}, and OPENCLAW_GATEWAY_PORT of this shell is {ours}"
            ),
            "unset OPENCLAW_GATEWAY_PORT",
        ));
    }
    problems
}

/// A service manager, for one service in one scope.
pub(crate) trait Manager {
    /// Which one it is.
    fn kind(&self) -> ManagerKind;
    /// Whose services these are.
    fn scope(&self) -> Scope;
    /// What it calls the service.
    fn name(&self) -> &str;
    /// The file that defines the service.
    fn path(&self) -> &Path;
    /// The file that makes a service of `plan`.
    fn definition(&self, plan: &Plan) -> PlannedFile;
    /// What would make an installation useless, such as a manager that looks for definitions elsewhere.
    fn preflight(&self, _host: &Host, _runner: &dyn Runner) -> Option<Problem> {
        None
    }
    /// What must accept the definition, which lies in the file `staged`, before it is put in place. A check whose
    /// program the machine lacks is left out.
    fn checks(&self, host: &Host, staged: &Path) -> Vec<Step>;
    /// What makes the manager know a definition that was put in place or changed.
    fn register(&self, host: &Host) -> Vec<Step>;
    /// What makes it stop and forget the service, before the definition is removed.
    fn unregister(&self, host: &Host) -> Vec<Step>;
    /// What makes it see that the definition is gone.
    fn forget(&self, host: &Host) -> Vec<Step>;
    /// What starts the service.
    fn start(&self, host: &Host) -> Vec<Step>;
    /// What stops it.
    fn stop(&self, host: &Host) -> Vec<Step>;
    /// What replaces its process.
    fn restart(&self, host: &Host) -> Vec<Step>;
    /// What prints the last lines that the service wrote, if the manager keeps them.
    fn log_lines(&self, host: &Host, count: usize) -> Option<CommandLine>;
    /// What is known of the service.
    ///
    /// # Errors
    ///
    /// When the manager does not answer.
    fn state(&self, host: &Host, runner: &dyn Runner) -> Result<ServiceState, Problem>;
    /// What troubles a service that is there, beyond its definition.
    fn problems(&self, host: &Host, runner: &dyn Runner, service: &ServiceState) -> Vec<Problem>;
    /// Services of other profiles and of stock installations.
    fn siblings(&self, host: &Host, runner: &dyn Runner) -> Vec<ServiceState>;
}

/// The service manager of a machine.
///
/// # Errors
///
/// When the platform has none that is supported.
pub(crate) fn manager(host: &Host, scope: Scope, profile: Option<&str>) -> Result<Box<dyn Manager>, Problem> {
    match host.platform {
        Platform::Linux => Ok(Box::new(systemd::Systemd::new(host, scope, profile))),
        Platform::MacOs => Ok(Box::new(launchd::Launchd::new(host, scope, profile))),
        Platform::Windows if scope == Scope::User => Ok(Box::new(schtasks::Schtasks::new(host, profile))),
        Platform::Windows => Err(Problem::new(
            "no-system-scope",
            "on Windows the gateway is a task of the account",
            "openclaw gateway install",
        )),
        Platform::Other => Err(Problem::new(
            "no-manager",
            "no service manager of this system is supported",
            "openclaw gateway run",
        )),
    }
}

/// The version of systemd, on which a unit depends; 0 for other managers.
pub(crate) fn systemd_version(manager: &dyn Manager, runner: &dyn Runner) -> u32 {
    match manager.kind() {
        ManagerKind::Systemd => systemd::version(runner),
        ManagerKind::Launchd | ManagerKind::Schtasks => 0,
    }
}

/// Whether a variable of this name is likely to hold a secret.
pub(crate) fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let is_location = ["_FILE", "_PATH", "_DIR", "_URL"].iter().any(|end| name.ends_with(end));
    let words = ["TOKEN", "PASSWORD", "PASSWD", "PASSPHRASE", "SECRET", "CREDENTIAL", "AUTH"];
    let is_key = name == "KEY" || name.ends_with("KEY") || name.contains("_KEY_");
    !is_location && (is_key || words.iter().any(|word| name.contains(word)))
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, io};

    use openclaw_gateway::config::{Env, LocationFlags};

    use super::{plan::Request, *};

    /// Answers every command with the same words, and remembers what was asked.
    #[derive(Debug, Default)]
    pub(super) struct ScriptedRunner {
        answers: Vec<(&'static str, Ended)>,
        pub(super) asked: RefCell<Vec<String>>,
    }

    impl ScriptedRunner {
        pub(super) fn says(text: &str) -> Self {
            Self::default().answers("", true, text, "")
        }

        /// Answers commands that contain `part`. The first that fits counts.
        pub(super) fn answers(mut self, part: &'static str, ok: bool, stdout: &str, stderr: &str) -> Self {
            self.answers.push((part, Ended { ok, stdout: stdout.to_owned(), stderr: stderr.to_owned() }));
            self
        }
    }

    impl Runner for ScriptedRunner {
        fn run(&self, command: &CommandLine) -> io::Result<Ended> {
            let text = command.to_string();
            self.asked.borrow_mut().push(text.clone());
            let found = self.answers.iter().find(|(part, _)| text.contains(part));
            found.map(|(_, ended)| ended.clone()).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
        }
    }

    pub(super) fn host() -> Host {
        let account = Account { name: "ada".to_owned(), uid: 1000, gid: 1000, home: "/home/ada".into() };
        Host {
            platform: Platform::Linux,
            account,
            invoker: None,
            home: "/home/ada".into(),
            config_home: "/home/ada/.config".into(),
            system_units: "/nowhere/system".into(),
            system_records: "/nowhere/records".into(),
            runtime_dir: None,
            is_container: false,
            enforces_selinux: false,
            program: "/opt/open claw/bin/openclaw".into(),
            variables: std::collections::BTreeMap::new(),
        }
    }

    pub(super) fn locations(profile: Option<&str>) -> Locations {
        let flags = LocationFlags { profile: profile.map(str::to_owned), dev: false };
        Locations::resolve(&flags, &Env::from_iter([("HOME", "/home/ada")])).expect("the profile is good")
    }

    pub(super) fn plan(scope: Scope) -> Plan {
        let request = Request {
            scope,
            port: Some(18999),
            token: Some("hush-token".to_owned()),
            environment: vec![
                ("GREETING".to_owned(), "100% \"sure\" $HOME".to_owned()),
                ("OPENAI_API_KEY".to_owned(), "hush-key".to_owned()),
            ],
            config: None,
        };
        Plan::new(&request, &host(), &locations(None), "openclaw-gateway.service", 257)
    }

    #[test]
    fn no_definition_of_any_manager_holds_a_secret() {
        for (platform, scope) in [
            (Platform::Linux, Scope::User),
            (Platform::Linux, Scope::System),
            (Platform::MacOs, Scope::User),
            (Platform::MacOs, Scope::System),
            (Platform::Windows, Scope::User),
        ] {
            let host = Host { platform, ..host() };
            let manager = manager(&host, scope, None).expect("there is one");
            let plan = plan(scope);
            let file = manager.definition(&plan);
            assert!(!file.content.contains("hush"), "{}", file.content);
            let steps =
                [manager.register(&host), manager.start(&host), manager.restart(&host), manager.stop(&host)];
            assert!(!format!("{steps:?}").contains("hush"));
            let secrets: Vec<_> = plan.files.iter().filter(|file| file.content.contains("hush")).collect();
            assert!(secrets.len() == 2 && secrets.iter().all(|file| file.is_secret && file.mode == 0o600));
        }
    }

    #[test]
    fn names_of_secrets_are_told_from_names_of_places() {
        for name in [
            "OPENCLAW_GATEWAY_TOKEN",
            "openai_api_key",
            "AWS_SECRET_ACCESS_KEY",
            "DB_PASSWORD",
            "KEY",
            "AUTH",
        ] {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["PATH", "HOME", "OPENCLAW_STATE_DIR", "TOKEN_FILE", "KEYBOARD", "SSH_AUTH_DIR"] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn json_of_an_older_unit_shows_none_of_its_secrets() {
        let definition = Definition {
            arguments: ["node", "--token", "hush", "--password=hush"].map(str::to_owned).to_vec(),
            environment: vec![("OPENCLAW_GATEWAY_TOKEN".to_owned(), "hush".to_owned())],
        };
        let state = ServiceState {
            manager: ManagerKind::Systemd,
            scope: Scope::User,
            name: "x".to_owned(),
            path: "/x".into(),
            definition: Some(definition),
            installed: true,
            enabled: true,
            activity: Activity::Running { pid: 7 },
            detail: Detail::default(),
            origin: Origin::Stock,
        };
        let json = state.json();
        assert!(!json.to_string().contains("hush"), "{json}");
        assert_eq!(json["runtime"]["pid"], 7);
        let codes: Vec<_> =
            audit(&state, &host(), &locations(None)).iter().map(|problem| problem.code).collect();
        assert_eq!(codes, ["foreign", "secret-in-definition"]);
    }

    #[test]
    fn a_system_without_services_is_told_from_one_without_a_session() {
        let offline = |host: &Host| {
            let runner = ScriptedRunner::default()
                .answers("is-system-running", false, "offline\n", "")
                .answers("show", false, "", "Failed to connect to bus");
            inspect_on(host, &runner, &locations(None), false).problems[0].clone()
        };
        assert_eq!(offline(&host()).code, "no-systemd");
        assert_eq!(offline(&Host { is_container: true, ..host() }).code, "container");
        let no_bus = |host: &Host| {
            let runner = ScriptedRunner::default()
                .answers("is-system-running", true, "running\n", "")
                .answers("show", false, "", "Failed to connect to bus: No medium found");
            inspect_on(host, &runner, &locations(None), false).problems[0].clone()
        };
        assert_eq!(no_bus(&host()).hint, "sudo loginctl enable-linger ada");
        let mut root = host();
        root.account.uid = 0;
        assert_eq!(no_bus(&root).hint, "openclaw gateway install --system");
        // A system without systemctl at all.
        let bare = inspect_on(&host(), &ScriptedRunner::default(), &locations(None), false);
        assert_eq!(bare.problems[0].code, "no-systemd");
        assert!(bare.service.is_none());
    }
}
