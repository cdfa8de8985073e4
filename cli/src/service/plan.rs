//! What `gateway install` is going to write and run, as data: nothing here touches the machine. Secrets are in
//! files of their own, which definitions refer to.

use std::{path::PathBuf, time::Duration};

use openclaw_gateway::{config::Locations, settings::Limits};

use super::{Account, CommandLine, Host, Platform, Scope, is_secret_name};

/// How much longer than its drain a gateway may take to stop: connections close, the store is written.
const STOP_SLACK: Duration = Duration::from_secs(35);

/// What was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) scope: Scope,
    /// The port to listen on; absent where the configuration says it.
    pub(crate) port: Option<u16>,
    /// The token, without line ends.
    pub(crate) token: Option<String>,
    /// `--env`, in its order.
    pub(crate) environment: Vec<(String, String)>,
    /// The configuration to make where there is none.
    pub(crate) config: Option<&'static str>,
}

/// A service that is to be: what every manager makes its definition of.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) scope: Scope,
    pub(crate) profile: Option<String>,
    pub(crate) program: PathBuf,
    /// What follows the program.
    pub(crate) arguments: Vec<String>,
    /// Variables that are no secrets.
    pub(crate) environment: Vec<(String, String)>,
    /// The file of the variables that are; absent when there are none.
    pub(crate) secrets: Option<PathBuf>,
    /// Whose service it is, and as whom a service of the machine runs.
    pub(crate) account: Account,
    /// How long it may take to stop.
    pub(crate) stop_timeout: Duration,
    /// The version of systemd; 0 where that is not known.
    pub(crate) systemd: u32,
    /// Files beside the definition.
    pub(crate) files: Vec<PlannedFile>,
}

/// A file that is to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlannedFile {
    pub(crate) path: PathBuf,
    pub(crate) content: String,
    pub(crate) mode: u32,
    /// Whether the content is never shown.
    pub(crate) is_secret: bool,
    pub(crate) role: Role,
}

/// What a file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It defines the service.
    Definition,
    /// The variables that are secrets.
    Secrets,
    /// The token.
    Token,
    /// The configuration of a gateway that has none.
    Config,
}

/// A command of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) command: CommandLine,
    /// Whether it is no matter that it fails.
    pub(crate) may_fail: bool,
}

impl Step {
    /// A command that must succeed.
    pub(crate) fn must(command: CommandLine) -> Self {
        Self { command, may_fail: false }
    }

    /// A command that may find nothing to do.
    pub(crate) fn may(command: CommandLine) -> Self {
        Self { command, may_fail: true }
    }
}

impl Plan {
    /// The plan for `request`. `name` is what the manager calls the service.
    pub(crate) fn new(
        request: &Request,
        host: &Host,
        locations: &Locations,
        name: &str,
        systemd: u32,
    ) -> Self {
        let account = match (request.scope, &host.invoker) {
            (Scope::System, Some(invoker)) => invoker.clone(),
            _ => host.account.clone(),
        };
        let state = locations.state();
        let mut arguments: Vec<String> = Vec::new();
        if let Some(profile) = locations.profile() {
            arguments.extend(["--profile".to_owned(), profile.to_owned()]);
        }
        arguments.extend(["gateway".to_owned(), "run".to_owned()]);
        if let Some(port) = request.port {
            arguments.extend(["--port".to_owned(), port.to_string()]);
        }
        let mut files = Vec::new();
        if let Some(config) = request.config {
            files.push(PlannedFile {
                path: locations.config_file().to_owned(),
                content: config.to_owned(),
                mode: 0o600,
                is_secret: false,
                role: Role::Config,
            });
        }
        if let Some(token) = &request.token {
            let path = state.token_file();
            arguments.extend(["--token-file".to_owned(), path.display().to_string()]);
            files.push(PlannedFile {
                path,
                content: format!("{token}\n"),
                mode: 0o600,
                is_secret: true,
                role: Role::Token,
            });
        }
        let (hidden, shown): (Vec<_>, Vec<_>) =
            request.environment.iter().cloned().partition(|(name, _)| is_secret_name(name));
        let secrets = (!hidden.is_empty()).then(|| service_dir(locations).join(format!("{name}.env")));
        files.extend(secrets.as_ref().map(|path| PlannedFile {
            path: path.clone(),
            content:
                hidden.iter().map(|(name, value)| format!("{name}=\"{}\"\n", shell_escaped(value))).collect(),
            mode: 0o600,
            is_secret: true,
            role: Role::Secrets,
        }));
        Self {
            scope: request.scope,
            profile: locations.profile().map(str::to_owned),
            program: host.program.clone(),
            arguments,
            environment: environment(host, locations, &account, shown),
            secrets,
            account,
            stop_timeout: Limits::default().drain_timeout + STOP_SLACK,
            systemd,
            files,
        }
    }
}

/// The folder of what `install` keeps in the state directory.
pub(crate) fn service_dir(locations: &Locations) -> PathBuf {
    locations.state().gateway_dir().join("service")
}

/// The variables of a service. The same in every shell, so that a second `install` finds nothing to change.
fn environment(
    host: &Host,
    locations: &Locations,
    account: &Account,
    given: Vec<(String, String)>,
) -> Vec<(String, String)> {
    let home = if account.uid == host.account.uid { &host.home } else { &account.home };
    let mut variables = vec![
        ("HOME".to_owned(), home.display().to_string()),
        ("PATH".to_owned(), default_path(host.platform, &home.display().to_string())),
        ("OPENCLAW_STATE_DIR".to_owned(), locations.state().root().display().to_string()),
        ("OPENCLAW_CONFIG_PATH".to_owned(), locations.config_file().display().to_string()),
    ];
    for (name, value) in given {
        match variables.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = value,
            None => variables.push((name, value)),
        }
    }
    variables
}

/// Where a service finds programs. A shell's own list differs from shell to shell.
fn default_path(platform: Platform, home: &str) -> String {
    let homebrew = if platform == Platform::MacOs { "/opt/homebrew/bin:/opt/homebrew/sbin:" } else { "" };
    format!("{home}/.local/bin:{homebrew}/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
}

/// `text` for between double quotes, as shells and systemd's environment files read them.
fn shell_escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        if matches!(char, '"' | '\\' | '`' | '$') {
            escaped.push('\\');
        }
        escaped.push(char);
    }
    escaped
}

/// `text` with the characters that mark up XML replaced.
pub(super) fn xml_escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// [`xml_escaped`] undone.
pub(super) fn xml_unescaped(text: &str) -> String {
    let marks = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&apos;", "'"), ("&amp;", "&")];
    marks.iter().fold(text.to_owned(), |text, (mark, char)| text.replace(mark, char))
}
