//! `gateway run --tailscale`: the system's `tailscale` makes the gateway known at this machine's name in the tailnet,
//! to the tailnet (`serve`) or to everybody (`funnel`).
//!
//! Tailscale brings what others ask to a port that is for it alone ([`ProxyPort`]). The command that asks it to stays in
//! the foreground: tailscale forgets the request when the command ends, and the command ends with this process. What
//! outlives a SIGKILL all the same is named in a note in the state directory, and undone by the next start.

use std::{
    ffi::OsString,
    io::{self, Read as _},
    net::SocketAddr,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use openclaw_gateway::{
    config::{TailscaleMode, TailscaleSettings, env::SECRETS},
    logs::mask,
    settings::ProxyPort,
    state::{StateDir, write_private},
};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{
    process::Child,
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{
    child::{self, Pipe, Words},
    error::{CliError, Fault},
    exit::Exit,
    output::printable,
    ports::Process,
};

/// The program.
const TAILSCALE: &str = "tailscale";
/// The subsystem that the log names.
const TARGET: &str = "tailscale";
/// How long tailscale may take to answer a question.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long tailscale may be starting: at boot it does so beside the gateway.
const START_LIMIT: Duration = Duration::from_secs(10);
/// How often it is asked meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// How long it may take until others reach the gateway. The first certificate of a machine takes seconds.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// How long its command may take to end after it was asked to.
const END_LIMIT: Duration = Duration::from_secs(2);
/// How long its last words may take to arrive.
const WORDS_LIMIT: Duration = Duration::from_millis(200);
/// The first pause before a command that ended is started again; each is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A command that ran for this long is no longer one that fails again and again.
const STEADY: Duration = Duration::from_secs(60);
/// How much of what tailscale says is shown, in characters.
const MAX_SHOWN_CHARS: usize = 200;

/// The port for tailscale of a gateway on this machine: it has the machine's name in the tailnet.
///
/// Checks on the way that tailscale is installed, logged in and running. One that is starting is waited for.
pub(crate) async fn find_name(mode: TailscaleMode) -> Result<ProxyPort, Box<CliError>> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        let status = ask(&["status", "--json"]).await?;
        let unreadable = || transient("`tailscale status --json` gave an answer that cannot be read");
        let status: Value =
            serde_json::from_str(&status).map_err(|error| Box::new(unreadable().cause(error)))?;
        let state = status["BackendState"].as_str().ok_or_else(|| Box::new(unreadable()))?;
        let told = match state {
            "Running" => return name(&status, mode),
            "NeedsLogin" => ("this machine is not logged in to tailscale", "run `sudo tailscale up`"),
            "NeedsMachineAuth" => (
                "this machine waits until an administrator lets it into the tailnet",
                "approve it at https://login.tailscale.com/admin/machines",
            ),
            "Stopped" => ("tailscale is stopped", "run `sudo tailscale up`"),
            _ if Instant::now() < deadline => {
                sleep(ASK_EVERY).await;
                continue;
            }
            other => {
                let shown = shown(other);
                return Err(transient(format!("tailscale does not run yet: it says that it is {shown:?}"))
                    .hint("`tailscale status` shows what it waits for")
                    .into());
            }
        };
        return Err(refused(told.0).hint(told.1).hint(LEAVE_OUT).into());
    }
}

/// How a start goes on without tailscale.
const LEAVE_OUT: &str = "or start without it: `--tailscale off`";

fn name(status: &Value, mode: TailscaleMode) -> Result<ProxyPort, Box<CliError>> {
    let name = status["Self"]["DNSName"].as_str().unwrap_or_default().trim_end_matches('.');
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    if name.is_empty() || !name.bytes().all(is_name) {
        let message = format!("this machine has no name in its tailnet, and `tailscale {mode}` needs one");
        return Err(refused(message)
            .hint("switch on MagicDNS and HTTPS certificates at https://login.tailscale.com/admin/dns")
            .into());
    }
    Ok(ProxyPort { url: format!("wss://{}", name.to_ascii_lowercase()) })
}

/// Asks tailscale a question that it answers at once.
async fn ask(arguments: &[&str]) -> Result<String, Box<CliError>> {
    let mut command = tokio::process::Command::new(TAILSCALE);
    for name in SECRETS {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let asked = format!("`tailscale {}`", arguments.join(" "));
    match timeout(ANSWER_LIMIT, command.output()).await {
        Ok(Ok(output)) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(Ok(output)) => {
            let said = [output.stderr, output.stdout].map(|text| String::from_utf8_lossy(&text).into_owned());
            Err(explain(&said.concat(), &asked).into())
        }
        Ok(Err(error)) => Err(no_program(&error).into()),
        Err(_) => Err(transient(format!("{asked} did not answer within {} s", ANSWER_LIMIT.as_secs()))
            .hint("restart its daemon: `sudo systemctl restart tailscaled`")
            .hint(LEAVE_OUT)
            .into()),
    }
}

fn no_program(error: &io::Error) -> CliError {
    match error.kind() {
        io::ErrorKind::NotFound => {
            refused("tailscale is not installed: there is no program `tailscale` on the PATH")
                .hint("install it from https://tailscale.com/download")
                .hint(LEAVE_OUT)
        }
        _ => refused("the program `tailscale` cannot be started").cause(error).hint(LEAVE_OUT),
    }
}

/// A reason why tailscale fails.
struct Reason {
    /// What it says then, in lower case.
    marks: &'static [&'static str],
    exit: Exit,
    /// Its own first line follows.
    message: &'static str,
    hint: &'static str,
}

/// Reasons, the more particular first: several may stand in what it says.
const REASONS: &[Reason] = &[
    Reason {
        marks: &["failed to connect to local tailscale", "doesn't appear to be running"],
        // At boot it comes up beside the gateway.
        exit: Exit::Transient,
        message: "the daemon of tailscale does not run",
        hint: "start it: `sudo systemctl start tailscaled`",
    },
    Reason {
        marks: &[
            "access denied",
            "permission denied",
            "operator",
            "require root",
            "as root",
            "not permitted",
        ],
        exit: Exit::Configuration,
        message: "tailscale does not let this user change what it serves",
        hint: "allow it once: `sudo tailscale set --operator=$USER`",
    },
    Reason {
        marks: &[
            "not enabled",
            "not available",
            "not allowed",
            "node attribute",
            "capability",
            "https must be",
        ],
        exit: Exit::Configuration,
        message: "the tailnet does not allow this machine to do that",
        hint: "allow it at https://login.tailscale.com/admin/dns (serve) or in the access rules (funnel)",
    },
    Reason {
        marks: &["already exists", "already in use", "listener already"],
        exit: Exit::Configuration,
        message: "tailscale serves something else at that name already",
        hint: "`tailscale serve status` shows what; `tailscale serve reset` ends it",
    },
];

/// What tailscale says is wrong, in our words and its own. `asked` names the command.
fn explain(said: &str, asked: &str) -> CliError {
    let lower = said.to_ascii_lowercase();
    let reason = REASONS.iter().find(|reason| reason.marks.iter().any(|mark| lower.contains(mark)));
    let first = said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it gave no reason");
    let quoted = format!("tailscale says: {}", shown(first));
    let Some(reason) = reason else {
        let exit = if said.trim().is_empty() { Exit::Transient } else { Exit::Configuration };
        return CliError::new(Fault::Cli, CODE, exit, format!("{asked} failed"))
            .cause(quoted)
            .hint(format!("try it by hand: {asked}"))
            .hint(LEAVE_OUT);
    };
    let told = CliError::new(Fault::Cli, CODE, reason.exit, format!("{asked} failed: {}", reason.message));
    // Where it names a page, that page is the one that helps.
    let link = said.split_whitespace().find(|word| word.starts_with("https://login.tailscale.com/"));
    match link {
        Some(link) => told.cause(quoted).hint(format!("allow it at {}", shown(link))),
        None => told.cause(quoted).hint(reason.hint),
    }
}

/// Text of tailscale's that may be shown.
fn shown(text: &str) -> String {
    let text = printable(&mask(text.to_owned()));
    match text.char_indices().nth(MAX_SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The code of all errors here.
const CODE: &str = "TAILSCALE";

fn refused(message: impl Into<String>) -> CliError {
    CliError::new(Fault::Cli, CODE, Exit::Configuration, message)
}

fn transient(message: impl Into<String>) -> CliError {
    CliError::new(Fault::Cli, CODE, Exit::Transient, message)
}

/// What is asked of tailscale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wish {
    pub(crate) settings: TailscaleSettings,
    /// Where others reach the gateway.
    pub(crate) proxy: ProxyPort,
    /// Where tailscale brings what they ask.
    pub(crate) port: u16,
}

impl Wish {
    /// What is asked of tailscale for a gateway that listens for it at `address`.
    pub(crate) fn new(settings: TailscaleSettings, proxy: &ProxyPort, address: SocketAddr) -> Self {
        Self { settings, proxy: proxy.clone(), port: address.port() }
    }

    /// The words after `tailscale`. cli.md section 2.8.
    fn arguments(&self) -> [String; 4] {
        let mode = self.settings.mode.name().to_owned();
        [mode, "--yes".to_owned(), "--bg=false".to_owned(), self.port.to_string()]
    }

    fn command_line(&self) -> String {
        format!("`tailscale {}`", self.arguments().join(" "))
    }

    /// The name of the page, which tailscale prints once it is served.
    fn page(&self) -> String {
        self.proxy.url.replacen("wss://", "https://", 1)
    }
}

/// What a killed gateway may have left behind, in the state directory.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Note {
    /// The process of the command.
    pid: u32,
    /// Its words.
    arguments: Vec<String>,
    /// Whether tailscale is to forget all it serves.
    reset_on_exit: bool,
}

/// Others reach the gateway through tailscale, as long as this is not dropped.
#[derive(Debug)]
pub(crate) struct Exposure {
    /// Its end ends the command.
    stop: Option<oneshot::Sender<()>>,
    keeper: Option<JoinHandle<()>>,
    undo: Arc<Undo>,
}

impl Exposure {
    /// Asks tailscale, and waits until others reach the gateway.
    pub(crate) async fn open(wish: Wish, state: &StateDir) -> Result<Self, Box<CliError>> {
        let (tell, told) = oneshot::channel();
        let exposure = Self::start(wish, state, Some(tell));
        match told.await {
            Ok(Ok(())) => Ok(exposure),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(transient("what was asked of tailscale came to no end").into()),
        }
    }

    /// Asks tailscale, and goes on asking until others reach the gateway.
    pub(crate) fn insist(wish: Wish, state: &StateDir) -> Self {
        Self::start(wish, state, None)
    }

    fn start(
        wish: Wish,
        state: &StateDir,
        first: Option<oneshot::Sender<Result<(), Box<CliError>>>>,
    ) -> Self {
        let (stop, stopped) = oneshot::channel();
        let undo = Arc::new(Undo { wish, state: state.clone(), is_needed: AtomicBool::new(false) });
        let keeper = tokio::spawn(keep(Arc::clone(&undo), stopped, first));
        Self { stop: Some(stop), keeper: Some(keeper), undo }
    }

    /// What was asked for.
    pub(crate) fn wish(&self) -> &Wish {
        &self.undo.wish
    }

    /// Ends it, so that nothing is left of it.
    pub(crate) async fn close(mut self) {
        drop(self.stop.take());
        if let Some(keeper) = self.keeper.take() {
            // It ends its command within bounds of its own.
            let _ = keeper.await;
        }
        let undo = Arc::clone(&self.undo);
        // It ends only with the runtime.
        let _ = tokio::task::spawn_blocking(move || undo.undo()).await;
    }
}

impl Drop for Exposure {
    /// On the way out of a start that failed, or of a panic: nothing can be waited for but the reset.
    fn drop(&mut self) {
        drop(self.stop.take());
        self.undo.undo();
    }
}

/// Keeps the command running until `stopped`. The result of the first attempt goes to `first`, and one that fails is then
/// the last.
async fn keep(
    undo: Arc<Undo>,
    mut stopped: oneshot::Receiver<()>,
    mut first: Option<oneshot::Sender<Result<(), Box<CliError>>>>,
) {
    let wish = &undo.wish;
    let mut pause = FIRST_PAUSE;
    // Each is told once; a command that fails again and again fills no log.
    let (mut is_announced, mut is_failure_told) = (false, false);
    loop {
        let begun = Instant::now();
        let opened = tokio::select! {
            biased;
            _ = &mut stopped => return,
            opened = Command::open(&undo) => opened,
        };
        let problem = match (opened, first.take()) {
            (Ok(mut command), waiting) => {
                let (who, page) = (who(wish.settings.mode), wish.page());
                if !std::mem::replace(&mut is_announced, true) {
                    tracing::info!(target: TARGET, "{who} at {page}/ ({})", wish.proxy.url);
                }
                if let Some(waiting) = waiting {
                    // Whoever waits for it may have given up.
                    let _ = waiting.send(Ok(()));
                }
                tokio::select! {
                    biased;
                    _ = &mut stopped => return command.end().await,
                    problem = command.ended(wish) => problem,
                }
            }
            (Err(error), Some(waiting)) => {
                let _ = waiting.send(Err(error));
                return;
            }
            (Err(error), None) => *error,
        };
        if begun.elapsed() >= STEADY {
            (pause, is_failure_told) = (FIRST_PAUSE, false);
        }
        let told = [&[problem.message][..], &problem.causes, &problem.hints].concat().join("; ");
        if std::mem::replace(&mut is_failure_told, true) {
            tracing::debug!(target: TARGET, "{told}");
        } else {
            is_announced = false;
            tracing::warn!(target: TARGET, "{told}; it is tried again until it succeeds");
        }
        tokio::select! {
            _ = &mut stopped => return,
            () = sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
        }
    }
}

fn who(mode: TailscaleMode) -> &'static str {
    match mode {
        TailscaleMode::Funnel => "everybody on the internet reaches this gateway through tailscale funnel",
        TailscaleMode::Serve | TailscaleMode::Off => {
            "the machines of the tailnet reach this gateway through tailscale serve"
        }
    }
}

/// A command that runs, and with it what it asked for.
#[derive(Debug)]
struct Command {
    child: Child,
    words: Words,
}

impl Command {
    /// Starts it, and waits until tailscale says that it serves.
    async fn open(undo: &Undo) -> Result<Self, Box<CliError>> {
        let wish = &undo.wish;
        let arguments = wish.arguments().map(OsString::from);
        let mut command = child::command(TAILSCALE, &arguments);
        // In a group of its own: Ctrl-C is for the gateway, which ends it when its callers have been told.
        command.stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().map_err(|error| Box::new(no_program(&error)))?;
        undo.note(child.id().unwrap_or_default());
        let pipes: [Pipe; 2] = [
            Box::pin(child.stdout.take().expect("stdout is piped")),
            Box::pin(child.stderr.take().expect("stderr is piped")),
        ];
        let mut command = Self { child, words: Words::of(pipes) };
        let (deadline, page) = (Instant::now() + READY_LIMIT, wish.page());
        loop {
            let said = command.words.so_far();
            if said.contains(&page) {
                undo.is_needed.store(true, Ordering::Release);
                return Ok(command);
            }
            // It waits for somebody to open the page that it names.
            if said.contains("not enabled") && said.contains("https://") {
                command.end().await;
                return Err(explain(&said, &wish.command_line()).into());
            }
            tokio::select! {
                _ = command.child.wait() => return Err(command.ended(wish).await.into()),
                () = command.words.more() => {}
                () = sleep(deadline.saturating_duration_since(Instant::now())) => {
                    command.end().await;
                    let (asked, limit) = (wish.command_line(), READY_LIMIT.as_secs());
                    let told = transient(format!("{asked} did not say within {limit} s that it serves {page}"));
                    let said = said.lines().map(str::trim).find(|line| !line.is_empty());
                    let told = match said {
                        Some(line) => told.cause(format!("tailscale says: {}", shown(line))),
                        None => told,
                    };
                    return Err(told.hint(format!("try it by hand: {asked}")).hint(LEAVE_OUT).into());
                }
            }
        }
    }

    /// Waits until it has ended by itself, and says why.
    async fn ended(&mut self, wish: &Wish) -> CliError {
        // That it cannot be waited for means that it has ended.
        let _ = self.child.wait().await;
        self.words.ended(WORDS_LIMIT).await;
        let said = self.words.so_far();
        // What it said when it served is no reason.
        let said = said.split_once(&wish.page()).map_or(&*said, |(_, after)| after);
        let reasons: Vec<&str> = said.lines().filter(|line| !is_chatter(line)).collect();
        explain(&reasons.join("\n"), &wish.command_line())
    }

    async fn end(&mut self) {
        child::end(&mut self.child, END_LIMIT).await;
    }
}

/// What the command says while all is well.
fn is_chatter(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line == "/" || line.starts_with("|--") || line.starts_with("Press Ctrl")
}

/// What is left to do when the command has ended.
#[derive(Debug)]
struct Undo {
    wish: Wish,
    state: StateDir,
    /// Whether tailscale has served.
    is_needed: AtomicBool,
}

impl Undo {
    /// Leaves a note for the start that follows a SIGKILL.
    fn note(&self, pid: u32) {
        let note = Note {
            pid,
            arguments: self.wish.arguments().to_vec(),
            reset_on_exit: self.wish.settings.reset_on_exit,
        };
        let text = serde_json::to_vec(&note).expect("a note has string keys only");
        if let Err(error) = write_private(&self.state.tailscale_note_file(), &text) {
            tracing::warn!(target: TARGET, %error, "no note was left: what tailscale serves may outlive a SIGKILL");
        }
    }

    /// Undoes what has not been undone yet.
    fn undo(&self) {
        if self.is_needed.swap(false, Ordering::AcqRel) && self.wish.settings.reset_on_exit {
            reset(self.wish.settings.mode.name());
        }
        forget(&self.state);
    }
}

fn forget(state: &StateDir) {
    let removed = std::fs::remove_file(state.tailscale_note_file());
    if let Err(error) = removed
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(target: TARGET, %error, "the note of what was asked of tailscale was not removed");
    }
}

/// Undoes what a gateway that was killed had asked of tailscale. Takes its time: not for a thread that serves.
pub(crate) fn undo_leftovers(state: &StateDir) {
    let Ok(text) = std::fs::read(state.tailscale_note_file()) else { return };
    if let Ok(note) = serde_json::from_slice::<Note>(&text) {
        let words = format!("{TAILSCALE} {}", note.arguments.join(" "));
        let runs = || Process::of(note.pid).command_line.is_some_and(|line| line.ends_with(&words));
        let pid = i32::try_from(note.pid).ok().and_then(Pid::from_raw);
        let signals = [(Signal::TERM, END_LIMIT), (Signal::KILL, END_LIMIT)];
        for (signal, limit) in signals.into_iter().filter(|_| runs()) {
            // It may end by itself in this moment.
            let _ = pid.map(|pid| kill_process(pid, signal));
            wait_until(limit, || !runs());
        }
        if note.reset_on_exit {
            reset(note.arguments.first().map_or("serve", String::as_str));
        }
        tracing::info!(target: TARGET, "what a gateway that was killed had asked of tailscale is undone");
    }
    forget(state);
}

/// Lets tailscale forget all that it serves.
fn reset(mode: &str) {
    let asked = format!("`tailscale {mode} reset`");
    match run_reset(mode) {
        Ok(None) => tracing::info!(target: TARGET, "{asked} is done"),
        Ok(Some(said)) => {
            let first =
                said.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("no answer in time");
            tracing::warn!(target: TARGET, "{asked} failed: {}; run it by hand", shown(first));
        }
        Err(error) => tracing::warn!(target: TARGET, %error, "{asked} cannot be run; run it by hand"),
    }
}

/// What it says went wrong, if something did. Without the runtime, which may be gone.
fn run_reset(mode: &str) -> io::Result<Option<String>> {
    let mut command = std::process::Command::new(TAILSCALE);
    for name in SECRETS {
        command.env_remove(name);
    }
    command.args([mode, "reset"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    let has_ended = wait_until(ANSWER_LIMIT, || matches!(child.try_wait(), Ok(Some(_))));
    if !has_ended {
        child.kill()?;
    }
    if child.wait()?.success() {
        return Ok(None);
    }
    let mut said = String::new();
    if let Some(stderr) = child.stderr.take().filter(|_| has_ended) {
        // Words that are no text are no reason either.
        let _ = stderr.take(4096).read_to_string(&mut said);
    }
    Ok(Some(said))
}

/// Says whether `done` within `limit`.
fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let deadline = std::time::Instant::now() + limit;
    loop {
        if done() {
            return true;
        }
        if std::time::Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tailscale_says_is_explained() {
        for (said, message, hint, exit) in [
            (
                "failed to connect to local tailscaled; it doesn't appear to be running (sudo systemctl start tailscaled ?)",
                "the daemon of tailscale does not run",
                "sudo systemctl start tailscaled",
                Exit::Transient,
            ),
            (
                "sending serve config: Access denied: serve config denied\n\nUse 'sudo tailscale serve 1'.\n",
                "does not let this user",
                "sudo tailscale set --operator=$USER",
                Exit::Configuration,
            ),
            (
                "\nServe is not enabled on your tailnet.\nTo enable, visit:\n\n  https://login.tailscale.com/f/serve?node=n1\n",
                "the tailnet does not allow",
                "allow it at https://login.tailscale.com/f/serve?node=n1",
                Exit::Configuration,
            ),
            (
                "error: foreground listener already exists for port 443",
                "something else",
                "`tailscale serve status`",
                Exit::Configuration,
            ),
            ("error: odd key tskey-auth-abc", "failed", "try it by hand", Exit::Configuration),
            ("", "failed", "try it by hand", Exit::Transient),
        ] {
            let error = explain(said, "`tailscale serve`");
            assert!(error.message.contains(message), "{said}: {}", error.message);
            assert!(error.hints[0].contains(hint), "{said}: {:?}", error.hints);
            assert_eq!(error.exit, exit, "{said}");
            assert!(!error.causes[0].contains("abc"), "{said}: {:?}", error.causes);
        }
    }

    #[test]
    fn the_name_is_that_of_the_tailnet() {
        let named = |name: &str| {
            let status = serde_json::json!({ "Self": { "DNSName": name } });
            super::name(&status, TailscaleMode::Serve).map(|proxy| proxy.url).map_err(|error| error.exit)
        };
        assert_eq!(named("Ada.tail1.ts.net."), Ok("wss://ada.tail1.ts.net".to_owned()));
        for none in ["", ".", "a b", "a/b"] {
            assert_eq!(named(none), Err(Exit::Configuration), "{none}");
        }
    }
}
