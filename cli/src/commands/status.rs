//! `gateway status`: the service and the gateway of this machine side by side, and what to do next.

use std::{net::Ipv4Addr, path::Path, time::Duration};

use openclaw_gateway::config::{BindMode, Config, Source};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    args::{GlobalArgs, StatusArgs},
    commands::probe::{answer_words, fact, sentence},
    connection,
    error::Result,
    exit::Exit,
    output::{BAD, DIM, GOOD, HEADING, Printer, WARN, printable, shown_url, wrapped},
    ports::{self, Port},
    probe::{
        Depth, Kind, Observation, Target, Trouble, TroubleKind, look,
        report::{Seen, advise},
    },
    service::{self, Activity, Inspection, ManagerKind, Origin, Scope, ServiceState},
    settings::ProbeSettings,
};

/// What looking at the gateway may take when `--timeout` is not given. cli.md section 4.
const BUDGET: Duration = Duration::from_secs(10);

/// Shows the gateway of this machine.
pub(crate) fn status(args: &StatusArgs, global: &GlobalArgs, printer: &Printer) -> Result<Exit> {
    let settings = ProbeSettings::resolve(&args.client, global, BUDGET)?;
    let report = connection::until_interrupted(examine(args, global, settings))??;
    let exit = report.exit(args.require_rpc);
    if printer.is_json() {
        printer.json(&report.json(args))?;
    } else {
        printer.line(&report.words(args, printer))?;
    }
    Ok(exit)
}

/// Who chose the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PortSource {
    /// A flag.
    Cli,
    /// The environment or the configuration, or nobody.
    EnvOrConfig,
    /// The definition of the service.
    ServiceArgs,
    /// The record of the gateway that runs.
    Running,
}

impl PortSource {
    /// The name in JSON: stock's where it has one (cli.md section 4).
    const fn name(self) -> &'static str {
        match self {
            Self::Cli => "cli",
            Self::EnvOrConfig => "env/config",
            Self::ServiceArgs => "service args",
            Self::Running => "running gateway",
        }
    }
}

/// Everything that `gateway status` found.
struct Report {
    settings: ProbeSettings,
    inspection: Inspection,
    /// The gateway that was looked at, or would have been.
    port: u16,
    port_source: PortSource,
    url: String,
    /// Absent with `--no-probe`.
    seen: Option<Seen>,
    /// Absent when the gateway is not on this machine, or nobody needs to know.
    listeners: Option<Port>,
    /// The configuration of the service, when it is another than that of this command line.
    service_config: Option<Config>,
    commands: Commands,
}

/// Commands of this profile that hints name.
struct Commands {
    run: String,
    install: String,
    start: String,
    restart: String,
    /// Restarts a gateway that is no service, too.
    ask_restart: String,
}

async fn examine(args: &StatusArgs, global: &GlobalArgs, settings: ProbeSettings) -> Result<Report> {
    let (locations, deep) = (settings.locations.clone(), args.deep);
    let inspected = tokio::task::spawn_blocking(move || service::inspect(&locations, deep));
    // A panic in there is a panic here.
    let inspection = inspected.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));

    let targets = &settings.targets;
    let given = &targets.port;
    let local = &targets.local;
    let service_port =
        inspection.service.as_ref().filter(|service| service.installed).and_then(ServiceState::port);
    let (port, port_source) = match (&local.record, &given.source, service_port) {
        (Some(record), ..) => (record.port, PortSource::Running),
        (None, Source::Flag(_), _) => (given.value, PortSource::Cli),
        (None, Source::Env(_), _) | (None, _, None) => (given.value, PortSource::EnvOrConfig),
        (None, _, Some(port)) => (port, PortSource::ServiceArgs),
    };
    let mut target = match &targets.explicit {
        Some(explicit) => Target::new(Kind::Explicit, explicit, true, &settings)?,
        None => Target::new(Kind::LocalLoopback, local, true, &settings)?,
    };
    if target.kind == Kind::LocalLoopback && port_source == PortSource::ServiceArgs {
        target.url = format!("ws://{}:{port}", Ipv4Addr::LOCALHOST);
        "the definition of the service".clone_into(&mut target.origin);
    }
    let url = shown_url(&target.url).to_owned();
    let is_local = target.kind == Kind::LocalLoopback;
    let seen = if args.no_probe {
        None
    } else {
        let depth = if args.require_rpc { Depth::Read } else { Depth::Connect };
        let facts = look(&target, depth, settings.deadline(Instant::now(), Duration::ZERO)).await;
        Some(Seen { target, tunnel: None, facts, ssh_trouble: None })
    };
    // Looking at all processes takes longer than all else: for people only where it explains something.
    let is_explained = seen.as_ref().is_none_or(|seen| seen.facts.answers());
    let listeners = if is_local && (args.client.json || !is_explained) {
        tokio::task::spawn_blocking(move || ports::look(port)).await.ok()
    } else {
        None
    };
    let service_config = inspection
        .service
        .as_ref()
        .and_then(|service| {
            let named = service.config_file().map(Path::to_owned);
            named.or_else(|| service.state_dir().map(|state| state.join("openclaw.json")))
        })
        .filter(|path| path != settings.locations.config_file())
        .and_then(|path| Config::load(&path).ok());
    Ok(Report {
        commands: Commands {
            run: global.command("gateway run"),
            install: global.command("gateway install"),
            start: global.command("gateway start"),
            restart: global.command("gateway restart"),
            ask_restart: global.command("gateway call gateway.restart.request"),
        },
        settings,
        inspection,
        port,
        port_source,
        url,
        seen,
        listeners,
        service_config,
    })
}

impl Report {
    fn facts(&self) -> Option<&Observation> {
        self.seen.as_ref().map(|seen| &seen.facts)
    }

    /// How the command ends.
    fn exit(&self, require_rpc: bool) -> Exit {
        match self.facts().filter(|_| require_rpc) {
            None => Exit::Ok,
            Some(facts) => match &facts.trouble {
                Some(trouble) => trouble.exit(),
                None if facts.is_degraded() => Exit::Degraded,
                None => Exit::Ok,
            },
        }
    }

    /// The service, when there is one.
    fn installed(&self) -> Option<&ServiceState> {
        self.inspection.service.as_ref().filter(|service| service.installed)
    }

    /// Whether the service is what is looked at.
    fn is_service_meant(&self) -> bool {
        let is_local = self.seen.as_ref().is_none_or(|seen| seen.target.kind == Kind::LocalLoopback);
        is_local
            && self.installed().is_some_and(|service| {
                self.inspection.unmanaged().is_none() && service.port().is_none_or(|port| port == self.port)
            })
    }

    fn bind(&self) -> BindMode {
        let config = self.service_config.as_ref().unwrap_or(&self.settings.targets.config);
        config.gateway.bind.as_ref().map_or(BindMode::Loopback, |bind| bind.value)
    }

    /// The address that the gateway listens on, so far as it is known.
    fn bind_host(&self) -> String {
        if let Some(record) = &self.settings.targets.local.record
            && let Some(address) = record.addresses.first()
        {
            return address.ip().to_string();
        }
        match self.bind() {
            BindMode::Lan => Ipv4Addr::UNSPECIFIED.to_string(),
            BindMode::Custom => {
                let config = self.service_config.as_ref().unwrap_or(&self.settings.targets.config);
                config.gateway.custom_bind_host.as_ref().map_or_else(String::new, |host| host.value.clone())
            }
            BindMode::Loopback | BindMode::Auto | BindMode::Tailnet => Ipv4Addr::LOCALHOST.to_string(),
        }
    }

    /// Where others reach the gateway through tailscale, if they do.
    fn tailscale_url(&self) -> Option<&str> {
        self.settings.targets.local.record.as_ref()?.tailscale_url.as_deref()
    }

    fn note(&self) -> &'static str {
        if self.tailscale_url().is_some() {
            return "programs on this machine reach it, and others through tailscale";
        }
        match self.bind() {
            BindMode::Loopback => "only programs on this machine reach it",
            BindMode::Lan => "every machine of the network reaches it",
            BindMode::Tailnet => "machines of the tailnet reach it",
            BindMode::Auto => {
                "in a container every machine of its network reaches it, else only programs on this machine"
            }
            BindMode::Custom => "machines that reach that address reach it",
        }
    }

    fn log_file(&self) -> String {
        let configured = self.settings.targets.config.logging.file.as_ref().map(|file| file.value.clone());
        configured.unwrap_or_else(|| self.settings.locations.state().log_file().display().to_string())
    }

    /// What to do next, the most helpful first. Each names a command.
    fn hints(&self) -> Vec<String> {
        let mut hints = Vec::new();
        let service = self.installed();
        let trouble = self.facts().and_then(|facts| facts.trouble.as_ref());
        match (service, trouble) {
            // Nothing is known of whether it answers, or it does: the service alone matters.
            (Some(service), None) if self.facts().is_none() => hints.extend(self.about_service(service)),
            (_, None) => {}
            (_, Some(trouble)) if trouble.is_refusal() || self.is_taken() => {}
            (Some(service), Some(_)) if self.is_service_meant() => hints.extend(self.about_service(service)),
            (None, Some(_)) if self.listens_here() => {
                hints.push(format!(
                    "start a gateway with `{}`, or install its service with `{}`",
                    self.commands.run, self.commands.install
                ));
            }
            (Some(_) | None, Some(_)) => {}
        }
        if let (Some(seen), Some(trouble)) = (&self.seen, trouble)
            && hints.is_empty()
            && !self.is_taken()
        {
            hints.extend(
                advise(seen, trouble, &self.settings.advice)
                    .filter(|hint| !hint.contains(&self.settings.advice.status)),
            );
        }
        if self.is_taken() {
            hints.push("stop that program, or name the gateway's port with `--port`".to_owned());
        }
        if let Some(facts) = self.facts().filter(|facts| facts.is_degraded()) {
            hints.push(match facts.is_scope_limited() {
                true => "present a credential that grants operator.read, with `--token` or `--password`"
                    .to_owned(),
                false => "`openclaw gateway call logs.tail` shows what the gateway logged".to_owned(),
            });
        }
        hints
    }

    fn about_service(&self, service: &ServiceState) -> Option<String> {
        let log = match (service.manager, service.scope) {
            (ManagerKind::Systemd, Scope::User) => {
                format!("`journalctl --user -u {} -n 200 --no-pager` shows what it wrote", service.name)
            }
            (ManagerKind::Systemd, Scope::System) => {
                format!("`journalctl -u {} -n 200 --no-pager` shows what it wrote", service.name)
            }
            (ManagerKind::Launchd | ManagerKind::Schtasks, _) => format!("{} is its log", self.log_file()),
        };
        Some(match service.activity {
            Activity::Stopped => format!("`{}` starts the service", self.commands.start),
            Activity::Failed { .. } => {
                format!("the service failed: {log}; `{}` starts it again", self.commands.start)
            }
            Activity::Restarting => format!("the service is starting, or failing again and again: {log}"),
            Activity::Running { .. } if self.facts().is_none() => return None,
            Activity::Running { .. } => format!(
                "the service runs, and its gateway does not answer: it may be starting; {log}; `{}` starts it anew",
                self.commands.restart
            ),
            Activity::Unknown => format!("the service manager does not say what the service does: {log}"),
        })
    }

    fn listens_here(&self) -> bool {
        self.seen.as_ref().is_some_and(|seen| seen.target.kind == Kind::LocalLoopback)
    }

    /// Whether something that is no gateway has the port.
    fn is_taken(&self) -> bool {
        let is_foreign = self.facts().and_then(|facts| facts.trouble.as_ref()).is_some_and(|trouble| {
            matches!(trouble.kind, TroubleKind::Foreign | TroubleKind::Closed | TroubleKind::TimedOut)
        });
        let service = self.inspection.service.as_ref().and_then(ServiceState::pid);
        let is_another =
            |port: &Port| port.is_busy && port.listeners.iter().all(|listener| Some(listener.pid) != service);
        is_foreign && self.listeners.as_ref().is_some_and(is_another)
    }

    /// Ports that do not match, in words.
    fn mismatch(&self) -> Option<String> {
        let service = self.installed()?.port()?;
        let given = &self.settings.targets.port;
        if service == given.value || self.settings.targets.explicit.is_some() {
            return None;
        }
        Some(format!(
            "the service listens on port {service}, and this command line means {} ({})",
            given.value, given.source
        ))
    }

    fn words(&self, args: &StatusArgs, printer: &Printer) -> String {
        let mut lines = vec![printer.styled(HEADING, "Gateway Status"), self.verdict(printer), String::new()];
        lines.extend(self.service_words(printer));
        let cli = &self.settings.targets.config;
        let state = match (&self.settings.targets.config_problem, cli.exists) {
            (Some(_), _) => printer.styled(BAD, " (invalid)"),
            (None, false) => printer.styled(DIM, " (missing)"),
            (None, true) => String::new(),
        };
        lines.push(fact("Config", &format!("{}{state}", self.settings.locations.config_file().display())));
        if let Some(problem) = &self.settings.targets.config_problem {
            lines.push(sentence("", &problem.to_string(), printer));
        }
        if args.deep {
            lines.extend(cli.warnings.iter().map(|warning| sentence("", warning, printer)));
        }
        if let Some(config) = &self.service_config {
            lines.push(fact("", &format!("{} of the service", config.path.display())));
        }
        lines.push(fact("Log", &self.log_file()));
        let bind = format!(
            "bind {} ({}), port {} ({})",
            self.bind(),
            self.bind_host(),
            self.port,
            self.port_source.name()
        );
        lines.push(fact("Listens", &bind));
        if let Some(url) = self.tailscale_url() {
            lines.push(fact("Tailscale", &printable(url)));
        }

        if let Some(seen) = &self.seen {
            lines.push(String::new());
            lines.push(format!("{}  {}", printer.styled(HEADING, "Gateway"), printable(&self.url)));
            match &seen.facts.trouble {
                None => lines.extend(answer_words(&seen.facts, printer)),
                Some(trouble) => lines.extend(self.trouble_words(seen, trouble, printer)),
            }
        }
        let mut notes: Vec<(String, Option<String>)> = Vec::new();
        notes.extend(self.mismatch().map(|mismatch| (mismatch, None)));
        let problems = self.inspection.problems.iter();
        // That there is no manager is said above.
        notes.extend(
            problems
                .filter(|_| self.inspection.service.is_some())
                .map(|problem| (problem.message.clone(), Some(problem.hint.clone()))),
        );
        if let Some(config) = self.facts().and_then(|facts| facts.config_status()) {
            if let Some(problem) = config.problem {
                let message = format!("the gateway runs with the configuration it had: {problem}");
                notes.push((message, None));
            }
            if !config.waits_for_restart.is_empty() {
                let message = format!(
                    "the configuration has changed: {} waits for a restart",
                    config.waits_for_restart.join(", ")
                );
                notes.push((message, Some(format!("`{}` restarts the gateway", self.commands.ask_restart))));
            }
        }
        for (message, hint) in notes {
            lines.push(String::new());
            lines.push(format!("{} {}", printer.styled(WARN, "warning:"), printable(&message)));
            lines.extend(hint.map(|hint| wrapped(&printable(&hint), 2, printer.width())));
        }
        if !self.inspection.others.is_empty() {
            lines.push(String::new());
            lines.push(printer.styled(HEADING, "Other services"));
            for other in &self.inspection.others {
                lines.push(fact(
                    other.scope.name(),
                    &format!("{}, {}, {}", other.name, other.status(), other.path.display()),
                ));
            }
        }
        let hints = self.hints();
        if !hints.is_empty() {
            lines.push(String::new());
            lines.push(printer.styled(HEADING, "Next"));
            lines.extend(hints.iter().map(|hint| wrapped(&printable(hint), 2, printer.width())));
        }
        lines.join("\n")
    }

    fn verdict(&self, printer: &Printer) -> String {
        let Some(facts) = self.facts() else {
            return match self.installed().map(|service| service.activity) {
                Some(Activity::Running { .. }) => printer.styled(GOOD, "RUNNING: the service runs"),
                Some(_) => printer.styled(BAD, "NOT RUNNING: the service does not run"),
                None => printer.styled(WARN, "NO SERVICE: the gateway is no service here"),
            };
        };
        match &facts.trouble {
            None if facts.is_degraded() => {
                printer.styled(WARN, "DEGRADED: the gateway answers, but not in full")
            }
            None => printer.styled(GOOD, "OK: the gateway answers"),
            Some(trouble) if trouble.is_refusal() => {
                printer.styled(BAD, "REFUSED: the gateway is there, and does not take the credential")
            }
            Some(_) => printer.styled(BAD, "UNREACHABLE: the gateway does not answer"),
        }
    }

    fn service_words(&self, printer: &Printer) -> Vec<String> {
        let Some(service) = &self.inspection.service else {
            let why = self
                .inspection
                .problems
                .first()
                .map_or("no service manager answers", |problem| &problem.message);
            return vec![sentence("Service", why, printer)];
        };
        let role = if service.installed && !self.is_service_meant() && self.seen.is_some() {
            printer.styled(DIM, " (not the gateway below)")
        } else {
            String::new()
        };
        if !service.installed {
            let told = format!("{} {}: not installed", service.manager.name(), service.scope.name());
            return vec![fact("Service", &told)];
        }
        let enabled = if service.enabled { "enabled" } else { "disabled" };
        let style = match service.activity {
            Activity::Running { .. } => GOOD,
            Activity::Stopped | Activity::Restarting | Activity::Unknown => WARN,
            Activity::Failed { .. } => BAD,
        };
        let mut state = printer.styled(style, service.status());
        if let Some(pid) = service.pid() {
            state.push_str(&format!(" (pid {pid})"));
        }
        let told = format!(
            "{} {} {}, {enabled}, {state}{role}",
            service.manager.name(),
            service.scope.name(),
            service.name
        );
        let mut lines = vec![fact("Service", &told), fact("File", &service.path.display().to_string())];
        if let Some(program) = service.program() {
            lines.push(fact("Program", &printable(&program.display().to_string())));
        }
        if service.origin != Origin::This {
            lines.push(fact("Made by", service.origin.words()));
        }
        lines
    }

    fn trouble_words(&self, seen: &Seen, trouble: &Trouble, printer: &Printer) -> Vec<String> {
        let verdict = trouble.kind.words();
        let told = format!("{}: {}", printer.styled(BAD, verdict), printable(&trouble.message));
        let mut lines = vec![
            fact("Connect", &told),
            fact("Address", &format!("from {}", printable(&seen.target.origin))),
        ];
        let Some(port) = &self.listeners else { return lines };
        if port.listeners.is_empty() && port.is_busy {
            lines.push(fact("Port", &format!("{} is taken by a process of another account", port.port)));
        }
        for listener in &port.listeners {
            let user = listener.user.as_deref().map_or_else(String::new, |user| format!(" of {user}"));
            let command = listener.command_line.as_deref().unwrap_or(&listener.command);
            let told = format!("{} has pid {}{user}: {}", listener.address, listener.pid, printable(command));
            lines.push(fact("Port", &told));
        }
        if !port.is_busy {
            lines.push(fact("Port", &format!("{} is free: nobody listens there", port.port)));
        }
        lines
    }

    /// The document of `--json`: every field that stock has (cli.md section 4), and ours.
    fn json(&self, args: &StatusArgs) -> Value {
        let targets = &self.settings.targets;
        let config_path = self.settings.locations.config_file();
        let issues: Vec<Value> = targets
            .config_problem
            .iter()
            .map(ToString::to_string)
            .chain(targets.config.warnings.iter().filter(|_| args.deep).cloned())
            .map(|message| json!({ "path": "", "message": message }))
            .collect();
        let is_valid = targets.config_problem.is_none();
        let daemon = match &self.service_config {
            Some(config) => json!({ "path": config.path, "exists": config.exists, "valid": true }),
            None => json!({ "path": config_path, "exists": targets.config.exists, "valid": is_valid }),
        };
        let version = self.facts().and_then(|facts| facts.version.clone());
        let http_url = self.url.replacen("ws", "http", 1);
        let mut hints = Vec::new();
        if self.is_taken() {
            hints.push("the port is taken by a program that is no gateway");
        }
        let port = self.listeners.as_ref().map(|port| {
            json!({
                "port": port.port, "status": if port.is_busy { "busy" } else { "free" },
                "listeners": port.listeners, "hints": hints,
            })
        });
        json!({
            "cli": {
                "version": env!("CARGO_PKG_VERSION"),
                "entrypoint": std::env::current_exe().ok(),
            },
            "logFile": self.log_file(),
            "service": self.service_json(),
            "config": {
                "cli": { "path": config_path, "exists": targets.config.exists, "valid": is_valid, "issues": issues },
                "daemon": daemon,
            },
            "gateway": {
                "bindMode": self.bind().name(),
                "bindHost": self.bind_host(),
                "port": self.port,
                "portSource": self.port_source.name(),
                "probeUrl": self.url,
                "controlUiLinks": { "httpUrl": format!("{http_url}/"), "wsUrl": self.url },
                "probeNote": self.note(),
                "version": version,
                "tailscaleUrl": self.tailscale_url(),
            },
            // A gateway of ours shows no desktop of its host, and has no plugins.
            "hostDesktop": { "enabled": false, "state": "disabled", "port": null },
            "port": port,
            "portCli": { "port": targets.port.value, "source": targets.port.source.to_string() },
            "rpc": self.seen.as_ref().map(|seen| rpc_json(seen, args.require_rpc)),
            "extraServices": self.inspection.others.iter().map(ServiceState::json).collect::<Vec<_>>(),
            "pluginVersionDrift": { "gatewayVersion": version, "drifts": [] },
            "hints": self.hints(),
        })
    }

    fn service_json(&self) -> Value {
        let mut json = match &self.inspection.service {
            Some(service) => service.json(),
            None => {
                let why = self.inspection.problems.first().map(|problem| problem.message.clone());
                json!({
                    "label": "no service manager",
                    "loaded": false,
                    "loadedText": "enabled",
                    "notLoadedText": "disabled",
                    "command": null,
                    "runtime": { "status": "unknown", "detail": why },
                    "installed": false,
                })
            }
        };
        let is_loaded = json["loaded"] == true;
        json["loadState"] = json!({ "status": if is_loaded { "loaded" } else { "not-loaded" } });
        let role = if self.is_service_meant() { "target" } else { "diagnostic-only" };
        json["targetRole"] = role.into();
        let kind = self.installed().map_or("none", |service| service.scope.name());
        json["systemdInstallation"] = json!({ "kind": kind });
        let issues: Vec<Value> = self
            .inspection
            .problems
            .iter()
            .map(|problem| {
                json!({
                    "code": problem.code, "message": problem.message, "detail": problem.hint, "level": "recommended",
                })
            })
            .collect();
        json["configAudit"] = json!({ "ok": issues.is_empty(), "issues": issues });
        json
    }
}

fn rpc_json(seen: &Seen, is_read: bool) -> Value {
    let facts = &seen.facts;
    let capability = facts.capability().name();
    let trouble = facts.trouble.as_ref();
    let mut json = json!({
        "ok": facts.answers() && (!is_read || facts.is_full()),
        "kind": if is_read { "read" } else { "connect" },
        "gatewayReached": facts.is_gateway(),
        "timedOut": trouble.is_some_and(|trouble| trouble.kind == TroubleKind::TimedOut),
        "degraded": facts.is_degraded(),
        "capability": capability,
        "auth": { "role": facts.role, "scopes": facts.scopes.as_deref().unwrap_or_default(), "capability": capability },
        "server": { "version": facts.version, "buildId": facts.build_id, "connId": facts.conn_id },
        "connectMs": facts.connect_ms,
        "callMs": facts.call_ms,
        "version": facts.version,
        "url": shown_url(&seen.target.url),
    });
    if let Some(trouble) = trouble {
        json["error"] = trouble.message.clone().into();
        if trouble.is_refusal() {
            json["connectFailure"] = json!({ "kind": "auth-rejected", "detailCode": trouble.code });
        }
    } else if let Some(call) = facts.failed.first() {
        json["error"] = format!("`{}`: {}", call.method, call.message).into();
    }
    json
}

#[cfg(test)]
mod tests {
    use openclaw_gateway::config::{ClientFlags, Env, LocationFlags, Locations, env, resolve_probe};

    use super::*;
    use crate::{
        probe::report::Advice,
        service::{Definition, Detail},
    };

    /// A report about the unit of an account that starts a gateway on `port`.
    fn report(activity: Option<Activity>, port: u16, facts: Option<Observation>) -> Report {
        let home = tempfile::tempdir().expect("a directory can be made");
        let env = Env::from_iter([(env::HOME, home.path())]);
        let locations = Locations::resolve(&LocationFlags::default(), &env).expect("there is a home");
        let targets =
            resolve_probe(&locations, &env, &ClientFlags::default()).expect("there is nothing to refuse");
        let advice = Advice { run: "run".to_owned(), status: "status".to_owned() };
        let identity_dir = home.path().to_owned();
        let settings = ProbeSettings::new(targets, locations, Some(BUDGET), identity_dir, advice);
        let service = activity.map(|activity| ServiceState {
            manager: ManagerKind::Systemd,
            scope: Scope::User,
            name: "openclaw-gateway.service".to_owned(),
            path: "/units/openclaw-gateway.service".into(),
            definition: Some(Definition {
                arguments: ["/bin/openclaw", "gateway", "run", "--port", &port.to_string()]
                    .map(str::to_owned)
                    .into(),
                environment: Vec::new(),
            }),
            installed: true,
            enabled: true,
            activity,
            detail: Detail::default(),
            origin: Origin::This,
        });
        let target = Target::new(Kind::LocalLoopback, &settings.targets.local, true, &settings);
        let target = target.expect("there is nothing to refuse");
        Report {
            url: target.url.clone(),
            seen: facts.map(|facts| Seen { target, tunnel: None, facts, ssh_trouble: None }),
            settings,
            inspection: Inspection { service, others: Vec::new(), problems: Vec::new(), record: None },
            port,
            port_source: PortSource::ServiceArgs,
            listeners: None,
            service_config: None,
            commands: Commands {
                run: "gateway run".to_owned(),
                install: "gateway install".to_owned(),
                start: "gateway start".to_owned(),
                restart: "gateway restart".to_owned(),
                ask_restart: "gateway call gateway.restart.request".to_owned(),
            },
        }
    }

    fn nobody() -> Option<Observation> {
        let trouble = Trouble {
            kind: TroubleKind::Unreachable,
            message: "connection refused".to_owned(),
            code: None,
            close: None,
            shown: None,
        };
        Some(Observation { trouble: Some(trouble), ..Observation::default() })
    }

    fn well() -> Option<Observation> {
        Some(Observation { health: Some(json!({ "ok": true, "ts": 1 })), ..Observation::default() })
    }

    #[test]
    fn the_hint_names_the_command_that_helps() {
        let running = Activity::Running { pid: 1 };
        for (activity, facts, verdict, hint) in [
            (Some(running), well(), "OK", ""),
            (Some(running), nobody(), "UNREACHABLE", "`gateway restart` starts it anew"),
            (Some(running), None, "RUNNING", ""),
            (Some(Activity::Stopped), nobody(), "UNREACHABLE", "`gateway start` starts the service"),
            (Some(Activity::Stopped), None, "NOT RUNNING", "`gateway start` starts the service"),
            (
                Some(Activity::Failed { exit: Some(78) }),
                nobody(),
                "UNREACHABLE",
                "journalctl --user -u openclaw-gateway",
            ),
            (Some(Activity::Restarting), nobody(), "UNREACHABLE", "again and again"),
            (Some(Activity::Stopped), well(), "OK", ""),
            (None, nobody(), "UNREACHABLE", "`gateway run`, or install its service with `gateway install`"),
            (None, None, "NO SERVICE", ""),
        ] {
            let report = report(activity, 18789, facts);
            let printer = Printer::new(false, true);
            assert!(
                report.verdict(&printer).starts_with(verdict),
                "{activity:?}: {}",
                report.verdict(&printer)
            );
            let hints = report.hints();
            let hint_is_there =
                if hint.is_empty() { hints.is_empty() } else { hints.iter().any(|told| told.contains(hint)) };
            assert!(hint_is_there, "{activity:?}, {verdict}: {hints:?}");
        }
    }

    #[test]
    fn a_service_on_another_port_than_this_command_line_means_is_told() {
        let other = report(Some(Activity::Running { pid: 1 }), 19999, well());
        let told = other.mismatch().expect("the ports differ");
        assert!(told.contains("19999") && told.contains("18789"), "{told}");
        assert_eq!(report(Some(Activity::Running { pid: 1 }), 18789, well()).mismatch(), None);
    }

    #[test]
    fn the_service_is_the_target_only_when_it_is_what_is_looked_at() {
        let role = |report: &Report| report.service_json()["targetRole"].clone();
        assert_eq!(role(&report(Some(Activity::Stopped), 18789, nobody())), "target");
        let mut other = report(Some(Activity::Stopped), 18789, nobody());
        other.port = 1;
        assert_eq!(role(&other), "diagnostic-only");
        assert_eq!(role(&report(None, 18789, nobody())), "diagnostic-only");
    }
}
