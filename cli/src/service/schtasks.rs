//! The Windows task scheduler: a task that starts at logon, as XML, and what `schtasks` says.

use std::path::{Path, PathBuf};

use super::{
    Activity, CommandLine, Definition, Detail, Host, Manager, ManagerKind, Origin, Problem, Runner, Scope,
    ServiceState,
    plan::{Plan, PlannedFile, Role, Step, xml_escaped, xml_unescaped},
};

/// The author of a task that `gateway install` made.
const AUTHOR: &str = "openclaw gateway install";

/// The task scheduler, for one task.
#[derive(Debug)]
pub(super) struct Schtasks {
    task: String,
    /// The file that the task is made from. The scheduler keeps a copy of its own.
    path: PathBuf,
}

impl Schtasks {
    /// The task of a profile. cli.md section 7.3.
    pub(super) fn new(host: &Host, profile: Option<&str>) -> Self {
        let task = match profile {
            None => "OpenClaw Gateway".to_owned(),
            Some(profile) => format!("OpenClaw Gateway ({profile})"),
        };
        let state = profile.map_or_else(|| ".openclaw".to_owned(), |profile| format!(".openclaw-{profile}"));
        let path = host.home.join(state).join("gateway").join("service").join(format!("{task}.xml"));
        Self { task, path }
    }

    fn schtasks(&self, verb: &str, rest: &[&str]) -> CommandLine {
        CommandLine::new(["schtasks", verb, "/TN", &self.task].into_iter().chain(rest.iter().copied()))
    }
}

impl Manager for Schtasks {
    fn kind(&self) -> ManagerKind {
        ManagerKind::Schtasks
    }

    fn scope(&self) -> Scope {
        Scope::User
    }

    fn name(&self) -> &str {
        &self.task
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn definition(&self, plan: &Plan) -> PlannedFile {
        PlannedFile {
            path: self.path.clone(),
            content: task_xml(plan),
            mode: 0o600,
            is_secret: false,
            role: Role::Definition,
        }
    }

    fn checks(&self, _host: &Host, _staged: &Path) -> Vec<Step> {
        Vec::new()
    }

    fn register(&self, _host: &Host) -> Vec<Step> {
        vec![Step::must(self.schtasks("/Create", &["/XML", &self.path.display().to_string(), "/F"]))]
    }

    fn unregister(&self, _host: &Host) -> Vec<Step> {
        vec![Step::may(self.schtasks("/End", &[])), Step::must(self.schtasks("/Delete", &["/F"]))]
    }

    fn forget(&self, _host: &Host) -> Vec<Step> {
        Vec::new()
    }

    fn start(&self, _host: &Host) -> Vec<Step> {
        vec![Step::must(self.schtasks("/Run", &[]))]
    }

    fn stop(&self, _host: &Host) -> Vec<Step> {
        vec![Step::must(self.schtasks("/End", &[]))]
    }

    fn restart(&self, _host: &Host) -> Vec<Step> {
        vec![Step::may(self.schtasks("/End", &[])), Step::must(self.schtasks("/Run", &[]))]
    }

    fn log_lines(&self, _host: &Host, _count: usize) -> Option<CommandLine> {
        None
    }

    fn state(&self, host: &Host, runner: &dyn Runner) -> Result<ServiceState, Problem> {
        let ended = runner.run(&self.schtasks("/Query", &["/XML"])).map_err(|error| {
            Problem::new("no-schtasks", format!("schtasks does not start: {error}"), "openclaw gateway run")
        })?;
        let content = ended.ok.then_some(ended.stdout);
        let definition = content.as_deref().map(definition);
        let is_ours = definition
            .as_ref()
            .and_then(|definition| definition.arguments.first())
            .is_some_and(|program| Path::new(program) == host.program);
        let origin = match &content {
            None => Origin::This,
            Some(content) if content.contains(AUTHOR) && is_ours => Origin::This,
            Some(content) if content.contains(AUTHOR) => Origin::OtherInstallation,
            Some(content) if content.contains("gateway.vbs") || content.contains("gateway.cmd") => {
                Origin::Stock
            }
            Some(_) => Origin::Unknown,
        };
        Ok(ServiceState {
            manager: ManagerKind::Schtasks,
            scope: Scope::User,
            name: self.task.clone(),
            path: self.path.clone(),
            installed: content.is_some(),
            enabled: content.is_some(),
            // The scheduler says it in the language of the system; the gateway's own record says it for all.
            activity: Activity::Unknown,
            detail: Detail::default(),
            definition,
            origin,
        })
    }

    fn problems(&self, _host: &Host, _runner: &dyn Runner, _service: &ServiceState) -> Vec<Problem> {
        Vec::new()
    }

    fn siblings(&self, _host: &Host, _runner: &dyn Runner) -> Vec<ServiceState> {
        Vec::new()
    }
}

/// The task: hidden, without a time limit, started again after a failure. The gateway ends with 0 when its
/// configuration is at fault, as the scheduler does not tell codes apart.
fn task_xml(plan: &Plan) -> String {
    let arguments: Vec<String> = plan
        .arguments
        .iter()
        .map(String::as_str)
        .chain(["--supervised-by", "schtasks"])
        .map(windows_quoted)
        .collect();
    let account = xml_escaped(&plan.account.name);
    format!(
        r#"<?xml version="1.0"?>
<Task version="1.2" xmlns="http://schemas.microsoft.com/windows/2004/02/mit/task">
  <RegistrationInfo>
    <Author>{AUTHOR}</Author>
    <Description>OpenClaw Gateway</Description>
  </RegistrationInfo>
  <Triggers>
    <LogonTrigger>
      <Enabled>true</Enabled>
      <UserId>{account}</UserId>
    </LogonTrigger>
  </Triggers>
  <Principals>
    <Principal id="Author">
      <UserId>{account}</UserId>
      <LogonType>InteractiveToken</LogonType>
      <RunLevel>LeastPrivilege</RunLevel>
    </Principal>
  </Principals>
  <Settings>
    <MultipleInstancesPolicy>IgnoreNew</MultipleInstancesPolicy>
    <DisallowStartIfOnBatteries>false</DisallowStartIfOnBatteries>
    <StopIfGoingOnBatteries>false</StopIfGoingOnBatteries>
    <StartWhenAvailable>true</StartWhenAvailable>
    <Hidden>true</Hidden>
    <ExecutionTimeLimit>PT0S</ExecutionTimeLimit>
    <RestartOnFailure>
      <Interval>PT1M</Interval>
      <Count>255</Count>
    </RestartOnFailure>
  </Settings>
  <Actions Context="Author">
    <Exec>
      <Command>{program}</Command>
      <Arguments>{arguments}</Arguments>
    </Exec>
  </Actions>
</Task>
"#,
        program = xml_escaped(&plan.program.display().to_string()),
        arguments = xml_escaped(&arguments.join(" ")),
    )
}

/// A word of a Windows command line.
fn windows_quoted(word: &str) -> String {
    if !word.is_empty() && !word.contains([' ', '\t', '"']) {
        return word.to_owned();
    }
    let mut quoted = String::from("\"");
    let mut backslashes = 0;
    for char in word.chars() {
        match char {
            '\\' => backslashes += 1,
            '"' => {
                // Backslashes before a quote count twice, and the quote takes one of its own.
                quoted.extend(std::iter::repeat_n('\\', backslashes + 1));
                backslashes = 0;
            }
            _ => backslashes = 0,
        }
        quoted.push(char);
    }
    quoted.extend(std::iter::repeat_n('\\', backslashes));
    quoted.push('"');
    quoted
}

/// What a task says of its command. Its words are parted at blanks outside of quotes.
fn definition(xml: &str) -> Definition {
    let inside = |element: &str| {
        let rest = xml.split_once(&format!("<{element}>"))?.1;
        Some(xml_unescaped(rest.split_once(&format!("</{element}>"))?.0))
    };
    let mut arguments: Vec<String> = inside("Command").into_iter().collect();
    let mut is_quoted = false;
    let line = inside("Arguments").unwrap_or_default();
    let words = line.split(|char: char| {
        is_quoted ^= char == '"';
        char == ' ' && !is_quoted
    });
    arguments.extend(words.filter(|word| !word.is_empty()).map(|word| word.trim_matches('"').to_owned()));
    Definition { arguments, environment: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::tests::{ScriptedRunner, host, plan};

    #[test]
    fn a_task_is_hidden_and_has_no_time_limit() {
        insta::assert_snapshot!(task_xml(&plan(Scope::User)));
    }

    /// The elements that the task scheduler's schema allows, and where: <https://learn.microsoft.com/windows/win32/taskschd/task-scheduler-schema>.
    #[test]
    fn every_element_is_one_of_the_schema() {
        const CHILDREN: &[(&str, &[&str])] = &[
            ("Task", &["RegistrationInfo", "Triggers", "Principals", "Settings", "Data", "Actions"]),
            (
                "RegistrationInfo",
                &[
                    "URI",
                    "SecurityDescriptor",
                    "Source",
                    "Date",
                    "Author",
                    "Version",
                    "Description",
                    "Documentation",
                ],
            ),
            ("Triggers", &["BootTrigger", "LogonTrigger", "TimeTrigger", "CalendarTrigger"]),
            (
                "LogonTrigger",
                &[
                    "Enabled",
                    "StartBoundary",
                    "EndBoundary",
                    "Repetition",
                    "ExecutionTimeLimit",
                    "UserId",
                    "Delay",
                ],
            ),
            ("Principals", &["Principal"]),
            ("Principal", &["UserId", "LogonType", "GroupId", "DisplayName", "RunLevel"]),
            (
                "Settings",
                &[
                    "AllowStartOnDemand",
                    "RestartOnFailure",
                    "MultipleInstancesPolicy",
                    "DisallowStartIfOnBatteries",
                    "StopIfGoingOnBatteries",
                    "AllowHardTerminate",
                    "StartWhenAvailable",
                    "NetworkProfileName",
                    "RunOnlyIfNetworkAvailable",
                    "WakeToRun",
                    "Enabled",
                    "Hidden",
                    "DeleteExpiredTaskAfter",
                    "IdleSettings",
                    "NetworkSettings",
                    "ExecutionTimeLimit",
                    "Priority",
                    "RunOnlyIfIdle",
                ],
            ),
            ("RestartOnFailure", &["Interval", "Count"]),
            ("Actions", &["Exec"]),
            ("Exec", &["Command", "Arguments", "WorkingDirectory"]),
        ];
        let mut plan = plan(Scope::User);
        plan.program = r"C:\Program Files\<Open & Claw>\openclaw.exe".into();
        let text = task_xml(&plan);
        let document = roxmltree::Document::parse(&text).expect("it is XML");
        for element in
            document.descendants().filter(|node| node.is_element() && node.parent_element().is_some())
        {
            let parent = element.parent_element().expect("it has one").tag_name().name();
            let allowed = CHILDREN.iter().find(|(name, _)| *name == parent).map(|(_, children)| *children);
            let name = element.tag_name().name();
            assert!(allowed.is_some_and(|allowed| allowed.contains(&name)), "<{name}> in <{parent}>");
        }
        let command = document.descendants().find(|node| {
            node.has_tag_name(("http://schemas.microsoft.com/windows/2004/02/mit/task", "Command"))
        });
        assert_eq!(
            command.and_then(|node| node.text()),
            Some(r"C:\Program Files\<Open & Claw>\openclaw.exe")
        );
    }

    #[test]
    fn words_are_quoted_as_windows_reads_them() {
        for (word, quoted) in [
            ("plain", "plain"),
            ("", "\"\""),
            ("a b", "\"a b\""),
            (r"a b\", r#""a b\\""#),
            (r#"a\"b"#, r#""a\\\"b""#),
        ] {
            assert_eq!(windows_quoted(word), quoted);
        }
    }

    #[test]
    fn a_task_is_read_back() {
        let mut host = host();
        let plan = plan(Scope::User);
        host.program.clone_from(&plan.program);
        let state = Schtasks::new(&host, None)
            .state(&host, &ScriptedRunner::says(&task_xml(&plan)))
            .expect("it answers");
        assert!(state.installed && state.origin == Origin::This);
        assert_eq!(state.port(), Some(18999));
    }
}
