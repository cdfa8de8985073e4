//! `gateway install`, `start`, `stop`, `restart`, `uninstall`: what they decide, wait for and say. How a service
//! manager is spoken to is `service`'s.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use openclaw_gateway::{
    config::{Config, Env, GatewayMode, Locations},
    state::{RuntimeRecord, StateDir, is_alive},
};
use rustix::process::{Pid, Signal, kill_process};
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value, json};

use crate::{
    args::{GlobalArgs, InstallArgs, RestartArgs, ServiceArgs, StartArgs, StopArgs, UninstallArgs},
    error::{CliError, Failure, Fault, Result},
    exit::Exit,
    output::{DIM, GOOD, Printer},
    service::{
        Activity, Host, Inspection, Manager, Problem, Runner, Scope, ServiceState, SystemRunner,
        files::{self, FileError, Writing},
        inspect_on, is_secret_name, manager,
        plan::{Plan, PlannedFile, Request, Role, Step, service_dir},
        ready::{self, Listener},
        systemd_version,
    },
};

/// The configuration of a gateway that has none.
const MINIMAL_CONFIG: &str = "{\n  \"gateway\": {\n    \"mode\": \"local\"\n  }\n}\n";
/// How often the effect of a command is looked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// How many log lines a failure shows.
const LOG_LINES: usize = 10;

/// Makes the gateway a service.
pub(crate) fn install(args: &InstallArgs, global: &GlobalArgs, printer: &Printer) -> Result<Exit> {
    let token = match &args.token_file {
        Some(path) => Some(crate::settings::secret_file(path)?.expose_secret().to_owned()),
        None => args.token.clone(),
    };
    told("install", printer, Desk::open(args.service, global), |desk| desk.install(args, token))
}

/// Starts the service.
pub(crate) fn start(args: &StartArgs, global: &GlobalArgs, printer: &Printer) -> Result<Exit> {
    let timeout = Duration::from_millis(args.wait.timeout);
    told("start", printer, Desk::open(args.service, global), |desk| desk.start(timeout))
}

/// Stops the service, or the gateway that no service runs.
pub(crate) fn stop(args: &StopArgs, global: &GlobalArgs, printer: &Printer) -> Result<Exit> {
    let timeout = Duration::from_millis(args.wait.timeout);
    told("stop", printer, Desk::open(args.service, global), |desk| desk.stop(timeout))
}

/// Restarts the service, or the gateway that no service runs.
pub(crate) fn restart(args: &RestartArgs, global: &GlobalArgs, printer: &Printer) -> Result<Exit> {
    let timeout = Duration::from_millis(args.wait.timeout);
    told("restart", printer, Desk::open(args.service, global), |desk| desk.restart(timeout))
}

/// Removes the service.
pub(crate) fn uninstall(args: &UninstallArgs, global: &GlobalArgs, printer: &Printer) -> Result<Exit> {
    let timeout = Duration::from_millis(args.wait.timeout);
    told("uninstall", printer, Desk::open(args.service, global), |desk| desk.uninstall(args.force, timeout))
}

/// What a command has done.
#[derive(Debug, Default)]
struct Report {
    /// `result` in JSON; cli.md section 7.1.
    result: &'static str,
    /// One sentence.
    message: String,
    warnings: Vec<String>,
    hints: Vec<String>,
    /// What was done, or would be, a line each.
    done: Vec<String>,
    /// Further members in JSON.
    members: Map<String, Value>,
    service: Option<ServiceState>,
}

impl Report {
    fn new(result: &'static str, message: impl Into<String>) -> Self {
        Self { result, message: message.into(), ..Self::default() }
    }

    fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Under the recorded names, ours after them.
    fn json(&self, action: &str) -> Value {
        let mut json =
            json!({ "action": action, "ok": true, "result": self.result, "message": self.message });
        add_hints(&mut json, &self.hints);
        if let Some(service) = &self.service {
            json["service"] = service.json();
        }
        if !self.warnings.is_empty() {
            json["warnings"] = json!(self.warnings);
        }
        if self.result != "dry-run" && !self.done.is_empty() {
            json["done"] = json!(self.done);
        }
        for (name, value) in &self.members {
            json[name] = value.clone();
        }
        json
    }
}

fn add_hints(json: &mut Value, hints: &[String]) {
    if !hints.is_empty() {
        json["hints"] = json!(hints);
        json["hintItems"] = hints.iter().map(|hint| json!({ "kind": "next", "text": hint })).collect();
    }
}

/// Does `work` and tells how it went.
fn told(
    action: &str,
    printer: &Printer,
    desk: Result<Desk<'_>>,
    work: impl FnOnce(&mut Desk<'_>) -> Result<Report>,
) -> Result<Exit> {
    let outcome = desk.and_then(|mut desk| {
        let mut report = work(&mut desk)?;
        report.done.splice(0..0, desk.done);
        Ok(report)
    });
    let report = match outcome {
        Ok(report) => report,
        Err(Failure::Error(error)) if printer.is_json() => {
            let mut envelope = error.envelope();
            envelope["action"] = json!(action);
            add_hints(&mut envelope, &error.hints);
            printer.json(&envelope)?;
            return Ok(error.exit);
        }
        Err(failure) => return Err(failure),
    };
    if printer.is_json() {
        return printer.json(&report.json(action)).map(|()| Exit::Ok);
    }
    printer.line(&printer.styled(GOOD, &report.message))?;
    for line in &report.done {
        printer.line(&format!("  {}", printer.styled(DIM, line)))?;
    }
    for warning in &report.warnings {
        printer.note(&format!("warning: {warning}"));
    }
    for hint in &report.hints {
        printer.note(&format!("hint: {hint}"));
    }
    Ok(Exit::Ok)
}

/// What the commands work with.
struct Desk<'a> {
    host: Host,
    runner: Box<dyn Runner + 'a>,
    locations: Locations,
    /// `--system`.
    wants_system: bool,
    /// `openclaw`, with the profile.
    command: Box<dyn Fn(&str) -> String + 'a>,
    /// What was changed so far, a line each.
    done: Vec<String>,
    /// How long to wait between two looks.
    interval: Duration,
}

impl<'a> Desk<'a> {
    fn open(args: ServiceArgs, global: &'a GlobalArgs) -> Result<Self> {
        let host = Host::current();
        let mut env = Env::of_process();
        if let Some(invoker) = &host.invoker {
            // Under `sudo`, the gateway that is meant is that of whoever called it.
            let home = std::iter::once(("HOME".into(), invoker.home.clone().into_os_string()));
            env = std::env::vars_os().filter(|(name, _)| name != "HOME").chain(home).collect();
        }
        let locations = Locations::resolve(&global.location_flags(), &env).map_err(|error| {
            CliError::new(Fault::Cli, "CONFIG_INVALID", Exit::Usage, error.to_string())
                .with_sources_and_hint(&error)
        })?;
        Ok(Self {
            host,
            runner: Box::new(SystemRunner),
            locations,
            wants_system: args.system,
            command: Box::new(|rest| global.command(rest)),
            done: Vec::new(),
            interval: LOOK_INTERVAL,
        })
    }

    fn scope(&self) -> Scope {
        if self.wants_system { Scope::System } else { Scope::User }
    }

    /// The words to type for a gateway command in the same scope.
    fn again(&self, verb: &str, scope: Scope) -> String {
        let text = (self.command)(&format!("gateway {verb}"));
        match scope {
            Scope::System if self.host.is_root() => format!("{text} --system"),
            Scope::System => format!("sudo {text} --system"),
            Scope::User => text,
        }
    }

    fn inspect(&self) -> Inspection {
        let mut inspection = inspect_on(&self.host, self.runner.as_ref(), &self.locations, false);
        if self.wants_system
            && inspection.service.as_ref().is_none_or(|service| service.scope != Scope::System)
        {
            // Only the machine's is meant: the trouble of the account's manager is not.
            inspection.problems.clear();
            inspection.service = None;
            match manager(&self.host, Scope::System, self.locations.profile())
                .and_then(|manager| manager.state(&self.host, self.runner.as_ref()))
            {
                Ok(service) => inspection.service = Some(service),
                Err(problem) => inspection.problems.push(problem),
            }
        }
        inspection
    }

    /// The service to control and its manager.
    fn service(&self) -> Result<(ServiceState, Box<dyn Manager>, Inspection)> {
        let mut inspection = self.inspect();
        let Some(service) = inspection.service.take() else {
            let problem = inspection.problems.first().cloned();
            return Err(problem
                .map_or_else(|| failed("there is no service manager"), |problem| refused(&problem))
                .into());
        };
        let manager = manager(&self.host, service.scope, self.locations.profile())
            .map_err(|problem| refused(&problem))?;
        Ok((service, manager, inspection))
    }

    /// The state directory of a service: its definition says it, as it may be another account's.
    fn state_of(&self, service: &ServiceState) -> StateDir {
        service.state_dir().map_or_else(|| self.locations.state().clone(), StateDir::new)
    }

    /// Runs steps and remembers them.
    fn take(&mut self, steps: &[Step], scope: Scope, verb: &str) -> Result<()> {
        for step in steps {
            let ended = self.runner.run(&step.command);
            let (ok, complaint) = match ended {
                Ok(ended) => (ended.ok, ended.complaint()),
                Err(error) => (false, error.to_string()),
            };
            if ok {
                self.done.push(format!("ran {}", step.command));
            } else if !step.may_fail {
                let error = failed(format!("`{}` failed", step.command)).cause(&complaint);
                let denied = ["authentication", "Access denied", "Permission denied", "not permitted"];
                let is_denied = !self.host.is_root() && denied.iter().any(|word| complaint.contains(word));
                return Err((if is_denied && scope == Scope::System {
                    error.hint(self.again(verb, scope))
                } else {
                    error.hint(step.command.to_string())
                })
                .into());
            }
        }
        Ok(())
    }

    fn install(&mut self, args: &InstallArgs, token: Option<String>) -> Result<Report> {
        let scope = self.scope();
        let environment = self.variables(&args.env)?;
        if scope == Scope::System && !self.host.is_root() && !args.dry_run {
            return Err(failed("a service of the machine is installed by root")
                .hint(self.again("install", scope))
                .into());
        }
        if scope == Scope::User && self.host.invoker.is_some() {
            return Err(failed("with sudo this would be a service of root's account")
                .hint(format!("{}, without sudo", (self.command)("gateway install")))
                .hint(self.again("install", Scope::System))
                .into());
        }
        let mut warnings = Vec::new();
        if let Some(runtime) = &args.runtime {
            warnings.push(format!(
                "--runtime {runtime} has no effect: the gateway is one program and needs no runtime"
            ));
        }
        let (config, port) = self.configuration(args.port, token.as_deref())?;
        let manager =
            manager(&self.host, scope, self.locations.profile()).map_err(|problem| refused(&problem))?;
        let state = manager.state(&self.host, self.runner.as_ref());
        let current = match (state, args.dry_run) {
            (Ok(state), _) => {
                if let Some(problem) = manager.preflight(&self.host, self.runner.as_ref()) {
                    return Err(refused(&problem).into());
                }
                Some(state)
            }
            (Err(problem), true) => {
                warnings.push(problem.message);
                None
            }
            (Err(problem), false) => return Err(refused(&problem).into()),
        };
        if current.is_some() {
            let inspection = inspect_on(&self.host, self.runner.as_ref(), &self.locations, true);
            let others =
                inspection.others.iter().filter(|other| other.enabled && other.name != manager.name());
            warnings.extend(
                others.map(|other| format!("another gateway is a service here: {}", other.path.display())),
            );
        }
        let request = Request { scope, port, token, environment, config };
        let systemd = systemd_version(manager.as_ref(), self.runner.as_ref());
        let plan = Plan::new(&request, &self.host, &self.locations, manager.name(), systemd);
        let definition = manager.definition(&plan);
        let planned: Vec<&PlannedFile> = plan.files.iter().chain([&definition]).collect();
        warnings.extend(self.cautions(&plan));

        let what = format!("{} {} service {}", manager.kind().name(), scope.name(), manager.name());
        if args.dry_run {
            let steps = manager.register(&self.host);
            return Ok(self.rehearsal(&planned, &steps, &what, warnings));
        }
        let conflicts = conflicts(&planned);
        if conflicts.is_empty()
            && planned.iter().all(|file| file.path.exists())
            && let Some(service) = current.clone().filter(|service| service.enabled)
        {
            let mut report = Report::new("already-installed", format!("The {what} is installed already"));
            report.warnings = warnings;
            report.service = Some(service);
            return Ok(report.hint(self.again("start", scope)));
        }
        if !conflicts.is_empty() && !args.force {
            return Err(self.conflict(current.as_ref(), &conflicts, scope).into());
        }
        let is_foreign = current.as_ref().is_some_and(|service| service.installed && service.is_foreign());
        self.put(&planned, &plan, manager.as_ref(), is_foreign)?;

        let service = manager.state(&self.host, self.runner.as_ref()).map_err(|problem| refused(&problem))?;
        let problems = manager.problems(&self.host, self.runner.as_ref(), &service);
        let mut report = Report::new("installed", format!("Installed the {what}"));
        report.hints.push(match service.activity {
            Activity::Running { .. } => self.again("restart", scope),
            _ => self.again("start", scope),
        });
        for problem in problems {
            warnings.push(problem.message);
            report.hints.push(problem.hint);
        }
        report.warnings = warnings;
        report.service = Some(service);
        Ok(report)
    }

    /// The variables of `--env`, checked.
    fn variables(&self, given: &[String]) -> Result<Vec<(String, String)>> {
        given
            .iter()
            .map(|pair| {
                let (name, value) = pair.split_once('=').ok_or_else(|| {
                    CliError::usage("a variable is given as `--env KEY=VALUE`; one has no `=`")
                })?;
                let is_name = !name.is_empty()
                    && !name.starts_with(|first: char| first.is_ascii_digit())
                    && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
                if !is_name {
                    return Err(
                        CliError::usage(format!("--env: `{name}` is not the name of a variable")).into()
                    );
                }
                if value.contains(char::is_control) {
                    return Err(CliError::usage(format!(
                        "--env: the value of {name} has line ends or control characters"
                    ))
                    .into());
                }
                Ok((name.to_owned(), value.to_owned()))
            })
            .collect()
    }

    /// The configuration to make, and the port to name, after a check that the gateway would start with them.
    fn configuration(
        &self,
        port: Option<u16>,
        token: Option<&str>,
    ) -> Result<(Option<&'static str>, Option<u16>)> {
        let invalid = |message: String| CliError::new(Fault::Cli, "CONFIG_INVALID", Exit::Usage, message);
        let config = Config::load(self.locations.config_file())
            .map_err(|error| invalid(error.to_string()).with_sources_and_hint(&error))?;
        let path = config.path.display();
        match &config.gateway.mode {
            Some(mode) if mode.value == GatewayMode::Local => {}
            Some(mode) => {
                return Err(invalid(format!(
                    "{} is not \"local\": this machine uses a gateway elsewhere",
                    mode.source
                ))
                .hint("set gateway.mode to \"local\"")
                .into());
            }
            None if config.exists => {
                return Err(invalid(format!(
                    "{path} does not set gateway.mode, so the service would not start"
                ))
                .hint("add gateway: { mode: \"local\" } to it")
                .into());
            }
            None => {}
        }
        if let Some(token) = token {
            let configured = config.gateway.auth.token.as_ref();
            if let Some(other) = configured.filter(|other| other.value.expose_secret() != token) {
                return Err(invalid(format!(
                    "{} is another token, and commands on this machine present that",
                    other.source
                ))
                .hint("change it there, or leave --token out")
                .into());
            }
            if config.gateway.auth.token.is_none() && config.gateway.auth.password.is_some() {
                return Err(invalid(format!(
                    "{path} sets a password, and commands on this machine present that"
                ))
                .hint("leave --token out")
                .into());
            }
        }
        let from_shell =
            match self.host.variables.get("OPENCLAW_GATEWAY_PORT").filter(|text| !text.is_empty()) {
                Some(text) if port.is_none() => {
                    Some(text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(|| {
                        CliError::usage(format!("OPENCLAW_GATEWAY_PORT is not a port: `{text}`"))
                    })?)
                }
                _ => None,
            };
        Ok(((!config.exists).then_some(MINIMAL_CONFIG), port.or(from_shell)))
    }

    /// What is likely to surprise: this shell and the service differ, or the program will not stay.
    fn cautions(&self, plan: &Plan) -> Vec<String> {
        let mut cautions = Vec::new();
        let is_known = |name: &str| {
            plan.environment.iter().any(|(known, _)| known == name)
                || plan
                    .files
                    .iter()
                    .any(|file| file.role == Role::Secrets && file.content.contains(&format!("{name}=")))
        };
        let matters = |name: &str| {
            let upper = name.to_ascii_uppercase();
            matches!(
                upper.as_str(),
                "HTTP_PROXY"
                    | "HTTPS_PROXY"
                    | "ALL_PROXY"
                    | "NO_PROXY"
                    | "SSL_CERT_FILE"
                    | "OPENCLAW_LOG_LEVEL"
            ) || upper.ends_with("_API_KEY")
                || (upper.starts_with("OPENCLAW_GATEWAY_") && is_secret_name(name))
        };
        let missing: Vec<&str> = self
            .host
            .variables
            .iter()
            .filter(|(name, value)| !value.is_empty() && matters(name) && !is_known(name))
            .map(|(name, _)| name.as_str())
            .collect();
        if !missing.is_empty() {
            cautions.push(format!(
                "set in this shell, but not for the service: {}; `--env NAME=VALUE` sets one",
                missing.join(", ")
            ));
        }
        let program = plan.program.display().to_string();
        if program.contains("/target/debug/")
            || program.contains("/target/release/")
            || program.starts_with("/tmp/")
        {
            cautions.push(format!(
                "{program} lies in a folder that is cleaned: copy it to ~/.local/bin, and install from there"
            ));
        }
        if plan.scope == Scope::System && plan.account.uid == 0 {
            cautions.push(
                "the gateway will run as root: with sudo, it runs as the account that calls it".to_owned(),
            );
        }
        if plan.scope == Scope::System && self.host.enforces_selinux && plan.program.starts_with("/home") {
            cautions.push(format!(
                "SELinux lets no service of the machine run {program}: copy it to /usr/local/bin"
            ));
        }
        cautions
    }

    fn rehearsal(
        &self,
        planned: &[&PlannedFile],
        steps: &[Step],
        what: &str,
        warnings: Vec<String>,
    ) -> Report {
        let files: Vec<Value> = planned
            .iter()
            .map(|file| {
                json!({
                    "path": file.path,
                    "mode": format!("{:04o}", file.mode),
                    "content": shown(file),
                    "secret": file.is_secret,
                })
            })
            .collect();
        let mut done = Vec::new();
        for file in planned {
            done.push(format!("would write {} ({:04o}):", file.path.display(), file.mode));
            done.extend(shown(file).lines().map(|line| format!("  {line}")));
        }
        done.extend(steps.iter().map(|step| format!("would run {}", step.command)));
        let commands: Vec<&[String]> = steps.iter().map(|step| step.command.words.as_slice()).collect();
        let mut report = Report::new("dry-run", format!("Would install the {what}"));
        report.done = done;
        report.warnings = warnings;
        report.with("files", files).with("commands", json!(commands))
    }

    fn conflict(&self, current: Option<&ServiceState>, conflicts: &[Conflict<'_>], scope: Scope) -> CliError {
        let foreign = current.filter(|service| service.installed && service.is_foreign());
        let message = match foreign {
            Some(service) => format!("{} belongs to {}", service.path.display(), service.origin.words()),
            None => "what is installed differs from what would be".to_owned(),
        };
        let mut error = failed(message);
        for conflict in conflicts {
            error = error.cause(format!("{}:", conflict.file.path.display()));
            for line in &conflict.lines {
                error = error.cause(format!("  {line}"));
            }
        }
        let diff: Vec<Value> = conflicts
            .iter()
            .map(|conflict| json!({ "path": conflict.file.path, "lines": conflict.lines }))
            .collect();
        error.hint(self.again("install --force", scope)).detail("diff", diff)
    }

    /// Writes the files and makes the manager know them; everything is undone when a part fails.
    fn put(
        &mut self,
        planned: &[&PlannedFile],
        plan: &Plan,
        manager: &dyn Manager,
        is_foreign: bool,
    ) -> Result<()> {
        let folder = service_dir(&self.locations);
        let record = record_file(&self.host, &self.locations, manager);
        let owner = (plan.account.uid != self.host.account.uid).then_some(&plan.account);
        let mut writing = Writing::begin(record.clone(), owner);
        let staged = PlannedFile {
            // A check takes the name of the unit from that of the file.
            path: folder.join(planned.last().and_then(|file| file.path.file_name()).unwrap_or_default()),
            ..planned.last().copied().expect("there is a definition").clone()
        };
        let outcome = self.verify(&staged, manager).and_then(|()| {
            for file in planned {
                let keep = file.role == Role::Token || (file.role == Role::Definition && is_foreign);
                writing.put(file, keep).map_err(|error| unwritten(&error))?;
            }
            self.take(&manager.register(&self.host), plan.scope, "install")
        });
        if let Err(error) = outcome {
            writing.undo();
            for step in manager.forget(&self.host) {
                let _ = self.runner.run(&step.command);
            }
            return Err(error);
        }
        let written = planned.iter().map(|file| format!("wrote {} ({:04o})", file.path.display(), file.mode));
        let commands = std::mem::take(&mut self.done);
        self.done = written.chain(commands).collect();
        writing.end().map_err(|error| unwritten(&error))?;
        self.done.push(format!("wrote {} (0600)", record.display()));
        Ok(())
    }

    /// Lets the manager's own tool check the definition before it is put in place.
    fn verify(&self, staged: &PlannedFile, manager: &dyn Manager) -> Result<()> {
        let dir = std::env::temp_dir().join(format!("openclaw-install-{}", uuid::Uuid::new_v4().simple()));
        let mut writing = Writing::begin(dir.join("record"), None);
        let path = dir.join(staged.path.file_name().unwrap_or_default());
        let outcome = writing
            .put(&PlannedFile { path: path.clone(), ..staged.clone() }, false)
            .map_err(|error| Failure::from(unwritten(&error)))
            .and_then(|()| {
                for step in manager.checks(&self.host, &path) {
                    // Without the tool, or where it has trouble of its own, the manager finds out by itself.
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    if let Ok(ended) = self.runner.run(&step.command)
                        && !ended.ok
                        && ended.complaint().contains(&*name)
                    {
                        return Err(failed(format!("`{}` finds fault with the definition", step.command))
                            .cause(ended.complaint())
                            .hint((self.command)("gateway install --dry-run"))
                            .into());
                    }
                }
                Ok(())
            });
        writing.undo();
        outcome
    }

    fn start(&mut self, timeout: Duration) -> Result<Report> {
        let (service, manager, inspection) = self.service()?;
        if !service.installed {
            return Err(self.not_installed(&service).into());
        }
        if let Some(pid) = service.pid() {
            let mut report =
                Report::new("already-running", format!("{} runs already (pid {pid})", service.name));
            report.service = Some(service);
            return Ok(report.with("pid", pid));
        }
        self.ensure_free(&service, &inspection)?;
        self.take(&manager.start(&self.host), service.scope, "start")?;
        let record = self.await_ready(manager.as_ref(), &service, None, timeout)?;
        let mut report = Report::new(
            "started",
            format!(
                "Started {} {} (pid {}, port {})",
                service.scope_words(),
                service.name,
                record.pid,
                record.port
            ),
        );
        report.warnings = inspection.problems.iter().map(told_problem).collect();
        Ok(self.after(report, manager.as_ref(), &record))
    }

    fn stop(&mut self, timeout: Duration) -> Result<Report> {
        let found = self.service();
        let (service, manager, _) = match found {
            Ok(found) => found,
            // Without a manager there may be a gateway all the same.
            Err(error) => {
                return match RuntimeRecord::read(self.locations.state()) {
                    Some(record) => self.stop_process(&record, timeout),
                    None => Err(error),
                };
            }
        };
        let state = self.state_of(&service);
        let is_up =
            service.installed && !matches!(service.activity, Activity::Stopped | Activity::Failed { .. });
        if is_up {
            self.take(&manager.stop(&self.host), service.scope, "stop")?;
            let stopped = self.await_state(manager.as_ref(), timeout, |service| {
                matches!(service.activity, Activity::Stopped | Activity::Failed { .. })
                    || (service.activity == Activity::Unknown && RuntimeRecord::read(&state).is_none())
            });
            let Some(service) = stopped else {
                return Err(late(format!("{} did not stop within {} ms", service.name, timeout.as_millis()))
                    .hint(self.again("stop --timeout 120000", service.scope))
                    .into());
            };
            let mut report =
                Report::new("stopped", format!("Stopped {} {}", service.scope_words(), service.name));
            report.service = Some(service);
            return Ok(report);
        }
        if let Some(record) = RuntimeRecord::read(&state) {
            return self.stop_process(&record, timeout);
        }
        let mut report = Report::new("not-loaded", "No gateway runs: nothing to stop");
        report.service = Some(service);
        Ok(report)
    }

    /// Stops a gateway that no service runs.
    fn stop_process(&mut self, record: &RuntimeRecord, timeout: Duration) -> Result<Report> {
        let state = self.locations.state().clone();
        self.send(&state, record, Signal::TERM)?;
        let end = Instant::now() + timeout;
        while RuntimeRecord::read(&state).is_some_and(|now| now.pid == record.pid) {
            if Instant::now() >= end {
                return Err(late(format!(
                    "the gateway (pid {}) did not stop within {} ms",
                    record.pid,
                    timeout.as_millis()
                ))
                .hint(format!("kill -KILL {}", record.pid))
                .into());
            }
            thread::sleep(self.interval);
        }
        Ok(Report::new(
            "stopped",
            format!("Stopped the gateway that no service runs (pid {}, port {})", record.pid, record.port),
        )
        .with("pid", record.pid))
    }

    fn restart(&mut self, timeout: Duration) -> Result<Report> {
        let (service, manager, inspection) = match self.service() {
            Ok(found) => found,
            Err(error) => {
                return match RuntimeRecord::read(self.locations.state()) {
                    Some(record) => self.restart_process(&record, timeout),
                    None => Err(error),
                };
            }
        };
        let record = RuntimeRecord::read(&self.state_of(&service));
        if let Some(record) = record.as_ref().filter(|record| service.pid() != Some(record.pid))
            && service.pid().is_none()
        {
            return self.restart_process(record, timeout);
        }
        if !service.installed {
            return Err(self.not_installed(&service).into());
        }
        if service.pid().is_none() {
            self.ensure_free(&service, &inspection)?;
        }
        let before = record.map(|record| record.instance_id);
        self.take(&manager.restart(&self.host), service.scope, "restart")?;
        let record = self.await_ready(manager.as_ref(), &service, before.as_deref(), timeout)?;
        let mut report = Report::new(
            "restarted",
            format!(
                "Restarted {} {} (pid {}, port {})",
                service.scope_words(),
                service.name,
                record.pid,
                record.port
            ),
        );
        report.warnings = inspection.problems.iter().map(told_problem).collect();
        Ok(self.after(report, manager.as_ref(), &record))
    }

    /// Asks a gateway that no service runs to restart in its process.
    fn restart_process(&mut self, record: &RuntimeRecord, timeout: Duration) -> Result<Report> {
        let state = self.locations.state().clone();
        let by_hand = format!("stop it with `{}` and start it again", (self.command)("gateway stop"));
        if ready::ends_at_restart_signal(record.pid) == Some(true) {
            return Err(failed(format!(
                "no service runs the gateway (pid {}), and it does not restart in its process: the signal would end it",
                record.pid
            ))
            .hint(by_hand).into());
        }
        self.send(&state, record, Signal::USR1)?;
        let end = Instant::now() + timeout;
        loop {
            if let Some(new) = ready::ready(&state, Some(&record.instance_id)) {
                return Ok(Report::new(
                    "restarted",
                    format!(
                        "Restarted the gateway that no service runs, in its process (pid {}, port {})",
                        new.pid, new.port
                    ),
                )
                .with("pid", new.pid));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(late(format!(
                    "the gateway (pid {}) was sent SIGUSR1 and did not restart within {} ms",
                    record.pid,
                    timeout.as_millis()
                ))
                .cause(
                    "it goes on as it was where its configuration is at fault, or has `commands.restart: false`; its \
                     log says so",
                )
                .hint((self.command)("gateway logs --level warn"))
                .hint(by_hand)
                .into());
            }
            if RuntimeRecord::read(&state).is_none() && !is_alive(record.pid) {
                return Err(failed(format!("the gateway (pid {}) ended instead of restarting", record.pid))
                    .hint((self.command)("gateway run"))
                    .into());
            }
            thread::sleep(self.interval.min(left));
        }
    }

    /// Sends a signal to a gateway, after a look at whose process it is.
    fn send(&mut self, state: &StateDir, record: &RuntimeRecord, signal: Signal) -> Result<()> {
        let pid = i32::try_from(record.pid).ok().and_then(Pid::from_raw);
        let Some(pid) = pid.filter(|_| ready::is_holder(state, record)) else {
            return Err(failed(format!(
                "process {} is not the gateway of {}, and is left alone",
                record.pid,
                state.root().display()
            ))
            .hint(format!("ps -p {}", record.pid))
            .into());
        };
        kill_process(pid, signal).map_err(|error| {
            failed(format!("the gateway (pid {}) cannot be signalled", record.pid))
                .cause(error)
                .hint(format!("sudo {}", (self.command)("gateway stop")))
        })?;
        let name = if signal == Signal::TERM { "SIGTERM" } else { "SIGUSR1" };
        self.done.push(format!("sent {name} to process {}", record.pid));
        Ok(())
    }

    fn uninstall(&mut self, force: bool, timeout: Duration) -> Result<Report> {
        let (service, manager, _) = self.service()?;
        let record = record_file(&self.host, &self.locations, manager.as_ref());
        if !service.installed && !record.exists() {
            let mut report = Report::new(
                "uninstalled",
                format!("Nothing is installed: there is no {}", service.path.display()),
            );
            report.service = Some(service);
            return Ok(report);
        }
        if service.installed && service.is_foreign() && !force {
            return Err(failed(format!("{} belongs to {}", service.path.display(), service.origin.words()))
                .hint(self.again("uninstall --force", service.scope))
                .into());
        }
        if service.scope == Scope::System && !self.host.is_root() {
            return Err(failed("a service of the machine is removed by root")
                .hint(self.again("uninstall", service.scope))
                .into());
        }
        if service.installed {
            self.take(&manager.unregister(&self.host), service.scope, "uninstall")?;
            let state = self.state_of(&service);
            let stopped = self.await_state(manager.as_ref(), timeout, |service| {
                service.pid().is_none()
                    && (service.activity != Activity::Unknown || RuntimeRecord::read(&state).is_none())
            });
            if stopped.is_none() {
                return Err(late(format!("{} did not stop within {} ms", service.name, timeout.as_millis()))
                    .hint(self.again("uninstall", service.scope))
                    .into());
            }
        }
        let (removed, restored) =
            files::remove(&record, manager.path()).map_err(|error| unwritten(&error))?;
        self.done.extend(removed.iter().map(|path| format!("removed {}", path.display())));
        self.done.extend(restored.iter().map(|path| format!("put back {}", path.display())));
        self.take(&manager.forget(&self.host), service.scope, "uninstall")?;
        let root = self.locations.state().root();
        let mut report =
            Report::new("uninstalled", format!("Removed {} {}", service.scope_words(), service.name));
        if root.exists() {
            self.done.push(format!("kept {}", root.display()));
        }
        report.service = manager.state(&self.host, self.runner.as_ref()).ok();
        Ok(report.with("removed", json!(removed)).with("restored", json!(restored)))
    }

    fn not_installed(&self, service: &ServiceState) -> CliError {
        failed(format!("the gateway is not installed as a service: there is no {}", service.path.display()))
            .hint(self.again("install", service.scope))
            .hint((self.command)("gateway run"))
    }

    /// Refuses to start where the port or the state directory is taken: the service would only fail.
    fn ensure_free(&self, service: &ServiceState, inspection: &Inspection) -> Result<()> {
        if let Some(record) =
            RuntimeRecord::read(&self.state_of(service)).or_else(|| inspection.record.clone())
        {
            return Err(failed(format!(
                "a gateway that the service did not start runs already (pid {}, port {})",
                record.pid, record.port
            ))
            .hint((self.command)("gateway stop"))
            .into());
        }
        let Some(port) = service.port() else { return Ok(()) };
        match ready::listener(port) {
            Listener::Free => Ok(()),
            Listener::Gateway { .. } => {
                Err(failed(format!("the gateway of another state directory listens on port {port}"))
                    .hint(format!(
                        "openclaw gateway install --force --port {}",
                        port.checked_add(1).unwrap_or(18790)
                    ))
                    .into())
            }
            Listener::Other => Err(failed(format!("another program listens on port {port}"))
                .hint(format!("ss -ltnp 'sport = :{port}'"))
                .into()),
        }
    }

    /// Waits until the service is as `wanted`.
    fn await_state(
        &self,
        manager: &dyn Manager,
        timeout: Duration,
        wanted: impl Fn(&ServiceState) -> bool,
    ) -> Option<ServiceState> {
        let end = Instant::now() + timeout;
        loop {
            if let Some(state) = manager.state(&self.host, self.runner.as_ref()).ok().filter(&wanted) {
                return Some(state);
            }
            if Instant::now() >= end {
                return None;
            }
            thread::sleep(self.interval);
        }
    }

    /// Waits until the service's gateway is ready, and is another instance than `before`.
    fn await_ready(
        &self,
        manager: &dyn Manager,
        service: &ServiceState,
        before: Option<&str>,
        timeout: Duration,
    ) -> Result<RuntimeRecord> {
        let state = self.state_of(service);
        let end = Instant::now() + timeout;
        loop {
            if let Some(record) = ready::ready(&state, before) {
                return Ok(record);
            }
            let now = manager.state(&self.host, self.runner.as_ref());
            let activity = now.as_ref().map_or(Activity::Unknown, |now| now.activity);
            let is_over = Instant::now() >= end;
            if matches!(activity, Activity::Failed { .. }) || is_over {
                let now = now.unwrap_or_else(|_| service.clone());
                return Err(self.not_ready(manager, &now, is_over.then_some(timeout)).into());
            }
            thread::sleep(self.interval);
        }
    }

    /// Why a service did not come up, with the last words of its log and what to do.
    fn not_ready(&self, manager: &dyn Manager, service: &ServiceState, waited: Option<Duration>) -> CliError {
        let program = service.program().unwrap_or(&self.host.program).to_owned();
        let exit = match service.activity {
            Activity::Failed { exit } => exit,
            _ => service.detail.last_exit_status.filter(|code| *code != 0),
        };
        let run = (self.command)("gateway run");
        // 200 and above are systemd's own: systemd.exec(5).
        let (message, hint) = match exit {
            Some(78) => ("the gateway cannot start with its configuration (exit code 78)".to_owned(), run),
            Some(203) if !program.exists() => {
                (format!("{} is not there", program.display()), self.again("install --force", service.scope))
            }
            Some(203) if self.host.enforces_selinux => (
                format!("{} cannot be executed by the service: SELinux may forbid it", program.display()),
                format!("sudo restorecon -v {}", program.display()),
            ),
            Some(203) => (
                format!("{} cannot be executed by the service", program.display()),
                format!("chmod +x {}", program.display()),
            ),
            Some(216 | 217) => (
                "the account that the service runs as does not exist".to_owned(),
                self.again("install --force", service.scope),
            ),
            Some(code) => (format!("the gateway ended with exit code {code}"), run),
            None => (format!("{} is not ready", service.name), (self.command)("gateway health")),
        };
        let error = match waited {
            Some(waited) => late(format!("{message}, after {} ms", waited.as_millis())),
            None => failed(message),
        };
        let error = self.last_lines(manager, service).into_iter().fold(error, CliError::cause).hint(hint);
        match manager.log_lines(&self.host, 50) {
            Some(command) => error.hint(command.to_string()),
            None => error,
        }
    }

    /// The last lines of the service's log: the manager's, else the gateway's own.
    fn last_lines(&self, manager: &dyn Manager, service: &ServiceState) -> Vec<String> {
        let printed = manager
            .log_lines(&self.host, LOG_LINES)
            .and_then(|command| self.runner.run(&command).ok())
            .filter(|ended| ended.ok && !ended.stdout.trim().is_empty())
            .map(|ended| ended.stdout);
        let text = printed
            .or_else(|| fs::read_to_string(self.state_of(service).log_file()).ok())
            .unwrap_or_default();
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].iter().map(|line| (*line).to_owned()).collect()
    }

    fn after(&self, mut report: Report, manager: &dyn Manager, record: &RuntimeRecord) -> Report {
        report.service = manager.state(&self.host, self.runner.as_ref()).ok();
        report
            .with("pid", record.pid)
            .with("port", record.port)
            .with("instanceId", record.instance_id.clone())
    }
}

impl ServiceState {
    /// `the systemd user service`.
    fn scope_words(&self) -> String {
        format!("the {} {} service", self.manager.name(), self.scope.name())
    }
}

/// A file that is there and says something else.
struct Conflict<'a> {
    file: &'a PlannedFile,
    lines: Vec<String>,
}

fn conflicts<'a>(planned: &[&'a PlannedFile]) -> Vec<Conflict<'a>> {
    planned
        .iter()
        .filter(|file| file.role != Role::Config)
        .filter_map(|file| {
            let there =
                fs::read(&file.path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())?;
            let lines = match (there == file.content, file.is_secret) {
                (true, _) => return None,
                (false, true) => vec!["(secret) differs".to_owned()],
                (false, false) => difference(&there, &file.content),
            };
            Some(Conflict { file, lines })
        })
        .collect()
}

/// The lines that `old` and `new` do not share, in their order. Values of variables that look like secrets are left
/// out.
fn difference(old: &str, new: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    // The length of the longest common subsequence of what follows each pair of lines.
    let mut common = vec![vec![0_usize; new.len() + 1]; old.len() + 1];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i][j] = if old[i] == new[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::new();
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == new.len() || (i < old.len() && common[i + 1][j] >= common[i][j + 1]) {
            lines.push(format!("- {}", masked(old[i])));
            i += 1;
        } else {
            lines.push(format!("+ {}", masked(new[j])));
            j += 1;
        }
    }
    lines
}

/// A line of a definition without the value of a variable or option that looks like a secret.
fn masked(line: &str) -> String {
    let words = line.split_inclusive([' ', '"', '=']);
    let mut hide = false;
    let mut text = String::new();
    for word in words {
        let name = word.trim_end_matches([' ', '"', '=']);
        if hide && !name.is_empty() {
            text.push_str("(secret)");
            text.push_str(&word[name.len()..]);
            hide = false;
            continue;
        }
        text.push_str(word);
        let takes_value = word.ends_with('=') || matches!(name, "--token" | "--password");
        if !name.is_empty() {
            hide = takes_value && is_secret_name(name.trim_start_matches('-'));
        }
    }
    text
}

/// What may be shown of a file.
fn shown(file: &PlannedFile) -> String {
    match file.role {
        Role::Secrets => file
            .content
            .lines()
            .filter_map(|line| Some(format!("{}=(secret)\n", line.split_once('=')?.0)))
            .collect(),
        _ if file.is_secret => "(secret)\n".to_owned(),
        _ => file.content.clone(),
    }
}

/// Where the footprint of `install` is kept. That of a service of the machine says what root is to remove, so that
/// only root may write it.
fn record_file(host: &Host, locations: &Locations, manager: &dyn Manager) -> PathBuf {
    let folder = match manager.scope() {
        Scope::User => service_dir(locations),
        Scope::System => host.system_records.clone(),
    };
    folder.join(format!("{}.json", manager.name()))
}

fn told_problem(problem: &Problem) -> String {
    format!("{}: `{}`", problem.message, problem.hint)
}

fn failed(message: impl Into<String>) -> CliError {
    CliError::new(Fault::Cli, "SERVICE", Exit::Refused, message)
}

fn late(message: impl Into<String>) -> CliError {
    CliError::new(Fault::Cli, "TIMEOUT", Exit::Timeout, message)
}

fn refused(problem: &Problem) -> CliError {
    failed(problem.message.clone()).hint(problem.hint.clone()).detail("problem", problem.code)
}

fn unwritten(error: &FileError) -> CliError {
    let FileError { action, path, source } = error;
    let told = failed(format!("cannot {action} {}", path.display())).cause(source);
    if source.kind() == std::io::ErrorKind::PermissionDenied {
        let folder = path.parent().unwrap_or_else(|| Path::new("."));
        told.hint(format!("ls -ld {}", folder.display()))
    } else {
        told
    }
}
