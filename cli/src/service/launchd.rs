//! launchd: agents of the account and daemons of the machine, as property lists, and what `launchctl` says.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use super::{
    Activity, CommandLine, Definition, Detail, Host, Manager, ManagerKind, Origin, Problem, Runner, Scope,
    ServiceState,
    plan::{Plan, PlannedFile, Role, Step, xml_escaped, xml_unescaped},
};

/// In a property list that `gateway install` wrote.
const MARK: &str = "<!-- Written by `openclaw gateway install`. -->";
/// Sets the variables of a file and becomes the gateway, so that signals reach the gateway itself. The file is
/// `$0`, the command the rest.
const WITH_SECRETS: &str = r#"set -a; . "$0" && set +a && exec "$@""#;

/// launchd, for one label.
#[derive(Debug)]
pub(super) struct Launchd {
    scope: Scope,
    label: String,
    path: PathBuf,
    /// `gui/501` or `system`.
    domain: String,
}

impl Launchd {
    /// The label of a profile. cli.md section 7.3.
    pub(super) fn new(host: &Host, scope: Scope, profile: Option<&str>) -> Self {
        let label = format!("ai.openclaw.{}", profile.unwrap_or("gateway"));
        let file = format!("{label}.plist");
        let (path, domain) = match scope {
            Scope::User => {
                (host.home.join("Library/LaunchAgents").join(file), format!("gui/{}", host.account.uid))
            }
            Scope::System => (Path::new("/Library/LaunchDaemons").join(file), "system".to_owned()),
        };
        Self { scope, label, path, domain }
    }

    fn target(&self) -> String {
        format!("{}/{}", self.domain, self.label)
    }

    fn launchctl(&self, verb: &str, rest: &[&str]) -> CommandLine {
        CommandLine::new(["launchctl", verb].into_iter().chain(rest.iter().copied()))
    }
}

impl Manager for Launchd {
    fn kind(&self) -> ManagerKind {
        ManagerKind::Launchd
    }

    fn scope(&self) -> Scope {
        self.scope
    }

    fn name(&self) -> &str {
        &self.label
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn definition(&self, plan: &Plan) -> PlannedFile {
        PlannedFile {
            path: self.path.clone(),
            content: property_list(plan, &self.label),
            mode: 0o644,
            is_secret: false,
            role: Role::Definition,
        }
    }

    fn checks(&self, _host: &Host, staged: &Path) -> Vec<Step> {
        vec![Step::must(CommandLine::new([
            "plutil".to_owned(),
            "-lint".to_owned(),
            staged.display().to_string(),
        ]))]
    }

    /// A loaded agent would start at once; a later login loads it, and so does `start`.
    fn register(&self, _host: &Host) -> Vec<Step> {
        vec![Step::must(self.launchctl("enable", &[&self.target()]))]
    }

    fn unregister(&self, _host: &Host) -> Vec<Step> {
        vec![Step::may(self.launchctl("bootout", &[&self.target()]))]
    }

    fn forget(&self, _host: &Host) -> Vec<Step> {
        Vec::new()
    }

    fn start(&self, _host: &Host) -> Vec<Step> {
        let path = self.path.display().to_string();
        vec![
            Step::must(self.launchctl("enable", &[&self.target()])),
            // One that is loaded already is only started.
            Step::may(self.launchctl("bootstrap", &[&self.domain, &path])),
            Step::must(self.launchctl("kickstart", &[&self.target()])),
        ]
    }

    fn stop(&self, _host: &Host) -> Vec<Step> {
        vec![Step::must(self.launchctl("bootout", &[&self.target()]))]
    }

    fn restart(&self, _host: &Host) -> Vec<Step> {
        let path = self.path.display().to_string();
        vec![
            Step::may(self.launchctl("bootstrap", &[&self.domain, &path])),
            Step::must(self.launchctl("kickstart", &["-k", &self.target()])),
        ]
    }

    fn log_lines(&self, _host: &Host, _count: usize) -> Option<CommandLine> {
        None
    }

    fn state(&self, host: &Host, runner: &dyn Runner) -> Result<ServiceState, Problem> {
        let ended = runner.run(&self.launchctl("print", &[&self.target()])).map_err(|error| {
            Problem::new("no-launchctl", format!("launchctl does not start: {error}"), "openclaw gateway run")
        })?;
        let content = fs::read_to_string(&self.path).ok();
        let printed = if ended.ok { ended.stdout.as_str() } else { "" };
        let field = |name: &str| {
            printed.lines().find_map(|line| {
                line.trim().strip_prefix(name)?.trim_start().strip_prefix('=').map(str::trim)
            })
        };
        let exit =
            field("last exit code").and_then(|code| code.split([':', ' ']).next()?.parse::<i32>().ok());
        let activity = match (field("state"), field("pid").and_then(|pid| pid.parse().ok())) {
            (_, Some(pid)) => Activity::Running { pid },
            (Some(_), None) if exit.is_some_and(|code| code != 0) => Activity::Restarting,
            _ => Activity::Stopped,
        };
        Ok(ServiceState {
            manager: ManagerKind::Launchd,
            scope: self.scope,
            name: self.label.clone(),
            path: self.path.clone(),
            installed: content.is_some(),
            enabled: content.is_some(),
            origin: content.as_deref().map_or(Origin::This, |content| origin(content, host)),
            definition: content.as_deref().map(definition),
            activity,
            detail: Detail {
                state: field("state").map(str::to_owned),
                last_exit_status: exit,
                ..Detail::default()
            },
        })
    }

    fn problems(&self, _host: &Host, _runner: &dyn Runner, _service: &ServiceState) -> Vec<Problem> {
        Vec::new()
    }

    fn siblings(&self, host: &Host, runner: &dyn Runner) -> Vec<ServiceState> {
        let folder = self.path.parent().unwrap_or(&self.path);
        let mut labels: Vec<String> = fs::read_dir(folder)
            .into_iter()
            .flatten()
            .filter_map(|entry| {
                entry.ok()?.file_name().into_string().ok()?.strip_suffix(".plist").map(str::to_owned)
            })
            .filter(|label| label.starts_with("ai.openclaw.") && *label != self.label)
            .collect();
        labels.sort();
        labels
            .into_iter()
            .filter_map(|label| {
                let path = folder.join(format!("{label}.plist"));
                Self { scope: self.scope, label, path, domain: self.domain.clone() }.state(host, runner).ok()
            })
            .collect()
    }
}

/// The property list of a service. A non-zero exit is tried again after a pause; the gateway ends with 0 when its
/// configuration is at fault, as launchd does not tell codes apart.
fn property_list(plan: &Plan, label: &str) -> String {
    let program = plan.program.display().to_string();
    let command = [program].into_iter().chain(plan.arguments.iter().cloned());
    let supervised = ["--supervised-by".to_owned(), "launchd".to_owned()];
    let arguments: Vec<String> = match &plan.secrets {
        None => command.chain(supervised).collect(),
        Some(file) => {
            ["/bin/sh".to_owned(), "-c".to_owned(), WITH_SECRETS.to_owned(), file.display().to_string()]
                .into_iter()
                .chain(command)
                .chain(supervised)
                .collect()
        }
    };
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" \"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n\
         {MARK}\n<plist version=\"1.0\">\n<dict>\n"
    );
    let mut line = |indent: usize, content: &str| {
        writeln!(text, "{:indent$}{content}", "").expect("a String takes everything");
    };
    let string = |value: &str| format!("<string>{}</string>", xml_escaped(value));
    let key = |name: &str| format!("<key>{}</key>", xml_escaped(name));
    line(2, &key("Label"));
    line(2, &string(label));
    line(2, &key("ProgramArguments"));
    line(2, "<array>");
    for argument in &arguments {
        line(4, &string(argument));
    }
    line(2, "</array>");
    line(2, &key("EnvironmentVariables"));
    line(2, "<dict>");
    for (name, value) in &plan.environment {
        line(4, &key(name));
        line(4, &string(value));
    }
    line(2, "</dict>");
    if plan.scope == Scope::System {
        line(2, &key("UserName"));
        line(2, &string(&plan.account.name));
    }
    for (name, value) in [
        ("RunAtLoad", "<true/>".to_owned()),
        ("KeepAlive", "<dict><key>SuccessfulExit</key><false/></dict>".to_owned()),
        ("ThrottleInterval", "<integer>10</integer>".to_owned()),
        ("ExitTimeOut", format!("<integer>{}</integer>", plan.stop_timeout.as_secs())),
        // Octal 077: what the gateway makes is its owner's alone.
        ("Umask", "<integer>63</integer>".to_owned()),
        ("StandardOutPath", string("/dev/null")),
        ("StandardErrorPath", string("/dev/null")),
    ] {
        line(2, &key(name));
        line(2, &value);
    }
    text.push_str("</dict>\n</plist>\n");
    text
}

fn origin(content: &str, host: &Host) -> Origin {
    if !content.contains(MARK) {
        return if content.contains("OPENCLAW_SERVICE_MARKER") { Origin::Stock } else { Origin::Unknown };
    }
    let is_ours =
        definition(content).arguments.first().is_some_and(|program| Path::new(program) == host.program);
    if is_ours { Origin::This } else { Origin::OtherInstallation }
}

/// What a property list that is text says of its command and its environment.
fn definition(content: &str) -> Definition {
    let after = |key: &str, end: &str| {
        let rest = content.split_once(&format!("<key>{key}</key>"))?.1;
        rest.split_once(end).map(|(inside, _)| inside.to_owned())
    };
    let texts = |inside: &str, element: &str| -> Vec<String> {
        inside
            .split(&format!("<{element}>"))
            .skip(1)
            .filter_map(|rest| Some(xml_unescaped(rest.split_once(&format!("</{element}>"))?.0)))
            .collect()
    };
    let mut arguments =
        after("ProgramArguments", "</array>").map_or_else(Vec::new, |inside| texts(&inside, "string"));
    if arguments.get(2).is_some_and(|script| script == WITH_SECRETS) {
        arguments.drain(..4.min(arguments.len()));
    }
    let environment = after("EnvironmentVariables", "</dict>").map_or_else(Vec::new, |inside| {
        texts(&inside, "key").into_iter().zip(texts(&inside, "string")).collect()
    });
    Definition { arguments, environment }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::tests::{ScriptedRunner, host, plan};

    #[test]
    fn an_agent_restarts_after_failures_and_holds_no_secret() {
        insta::assert_snapshot!(property_list(&plan(Scope::User), "ai.openclaw.gateway"));
    }

    #[test]
    fn a_daemon_runs_as_the_account() {
        insta::assert_snapshot!(property_list(&plan(Scope::System), "ai.openclaw.gateway"));
    }

    #[test]
    fn a_parser_of_property_lists_finds_what_was_planned() {
        let mut plan = plan(Scope::User);
        plan.environment.push(("ODD".to_owned(), "<&\"'> %h $x".to_owned()));
        let text = property_list(&plan, "ai.openclaw.gateway");
        let value = plist::Value::from_reader_xml(text.as_bytes()).expect("it is a property list");
        let list = value.as_dictionary().expect("a dictionary");
        let strings = |name: &str| -> Vec<&str> {
            let array = list.get(name).and_then(plist::Value::as_array).expect("an array");
            array.iter().filter_map(plist::Value::as_string).collect()
        };
        assert_eq!(strings("ProgramArguments")[..3], ["/bin/sh", "-c", WITH_SECRETS]);
        assert_eq!(strings("ProgramArguments").last(), Some(&"launchd"));
        let environment =
            list.get("EnvironmentVariables").and_then(plist::Value::as_dictionary).expect("there is one");
        assert_eq!(environment.get("ODD").and_then(plist::Value::as_string), Some("<&\"'> %h $x"));
        let kept = list.get("KeepAlive").and_then(plist::Value::as_dictionary).expect("a dictionary");
        assert_eq!(kept.get("SuccessfulExit").and_then(plist::Value::as_boolean), Some(false));
        // What is read back is the gateway's own command.
        let read = definition(&text);
        assert_eq!(read.arguments[0], plan.program.display().to_string());
        assert_eq!(read.port(), Some(18999));
        assert_eq!(read.environment, plan.environment);
        assert_eq!(origin(&text, &host()), Origin::This);
    }

    #[test]
    fn secrets_reach_the_gateway_through_a_shell_that_becomes_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("x.env");
        fs::write(&file, "API_KEY=\"a \\\"b\\\" \\$c \\`d\\` \\\\e\"\n").expect("it writes");
        let output = std::process::Command::new("/bin/sh")
            .args(["-c", WITH_SECRETS])
            .arg(&file)
            .args(["/usr/bin/env", "printenv", "API_KEY"])
            .output()
            .expect("sh runs");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "a \"b\" $c `d` \\e\n");
    }

    #[test]
    fn what_launchctl_prints_is_read() {
        let host = host();
        let launchd = Launchd::new(&host, Scope::User, None);
        let said = "gui/1000/ai.openclaw.gateway = {\n\tstate = running\n\tpid = 42\n\tlast exit code = 78: EX_CONFIG\n}\n";
        let state = launchd.state(&host, &ScriptedRunner::says(said)).expect("it answers");
        assert_eq!(state.activity, Activity::Running { pid: 42 });
        assert_eq!(state.detail.last_exit_status, Some(78));
    }
}
