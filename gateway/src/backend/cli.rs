//! A command-line back end: one process per message, such as `claude -p`. The process has a group of its own, which is
//! ended with the answer, however that ends.

use std::{fmt::Write as _, io, path::PathBuf, process::Stdio, time::Duration};

use openclaw_schema::methods::{agent::TokenUsage, models::ThinkingLevel};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::Command,
};

use super::{
    BackendAnswer, BackendError, BackendErrorKind, BackendRequest, TextSink, TurnAuthor, cancelled,
    lines::Lines as LineWriter,
    process::{Group, Notes},
    raw::{RawStream, scrub},
    settings::{CliInput, CliOutput, CliSettings},
    stream_json::Lines,
    thinking::{self, Manner},
};
use crate::config::env::SECRETS;

/// How long a process may take to end after its last word, and its output after its end.
const LEAVE_GRACE: Duration = Duration::from_secs(2);
/// The longest line, and the longest document, that is taken.
const MAX_LINE_BYTES: usize = 16 << 20;
/// How much of the end of its stderr is kept for the error.
const KEPT_STDERR_BYTES: usize = 4096;

/// One command-line back end.
#[derive(Debug)]
pub(super) struct Cli {
    id: String,
    pub(super) settings: CliSettings,
    /// Where its output is shown.
    logs: Option<LineWriter>,
    /// Where its processes are noted.
    notes: Notes,
}

/// How a process ended, as far as its output tells.
struct Output {
    lines: Lines,
    stdout: Pieces,
    stderr: Pieces,
}

impl Cli {
    /// The back end of this id. Nothing is started.
    pub(super) fn new(id: &str, settings: CliSettings, logs: Option<LineWriter>, notes: Notes) -> Self {
        Self { id: id.to_owned(), settings, logs, notes }
    }

    /// Whether its program is there. Looks at the disk.
    pub(super) fn is_there(&self) -> bool {
        let is_file = |path: &std::path::Path| path.is_file();
        if self.settings.problem.is_some() {
            return false;
        }
        if self.settings.command.contains('/') {
            return is_file(self.settings.command.as_ref());
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|directory| is_file(&directory.join(&self.settings.command)))
    }

    /// The secrets that its environment holds.
    pub(super) fn secrets(&self) -> impl Iterator<Item = SecretString> {
        self.settings.env.iter().map(|(_, value)| value.clone())
    }

    /// Answers `request` with the model `model`.
    pub(super) async fn answer(
        &self,
        request: &BackendRequest,
        model: &str,
        manner: Manner,
        output: &TextSink,
        raw: &RawStream,
    ) -> Result<BackendAnswer, BackendError> {
        if let Some(problem) = &self.settings.problem {
            return Err(BackendError::new(BackendErrorKind::Auth, problem));
        }
        let prompt = self.prompt(request);
        let is_argument = self.settings.input == CliInput::Argument
            && prompt.len() <= self.settings.max_prompt_arg_bytes
            && !prompt.contains('\0');
        let directory = working_directory(&request.agent.workspace).await;
        let mut command = self.command(request, model, manner, directory);
        if is_argument {
            command.arg(&prompt);
        }
        let mut group = Group::spawn(command, &self.notes).map_err(|error| self.not_started(&error))?;
        let mut stdin = group.child.stdin.take();
        let feed = async move {
            if let Some(mut stdin) = stdin.take()
                && !is_argument
            {
                // A process that does not read its input has its reasons, and says them itself.
                let _ = stdin.write_all(prompt.as_bytes()).await;
            }
        };
        let mut told =
            Output { lines: Lines::default(), stdout: Pieces::default(), stderr: Pieces::default() };
        let followed = self.follow(&mut group, feed, request, &mut told, output, raw).await;
        if told.lines.reading.usage != TokenUsage::default() {
            request.meter.tell(told.lines.reading.clone().answer(None));
        }
        match followed {
            Ok(Some(status)) => {
                group.clear();
                self.result(status, told, output)
            }
            // It has said its last word and stays: its answer counts.
            Ok(None) => {
                group.stop().await;
                self.result(std::process::ExitStatus::default(), told, output)
            }
            Err(error) => {
                group.stop().await;
                Err(error)
            }
        }
    }

    /// Reads what the process writes up to its end: its status, or nothing when it has finished and stays.
    async fn follow(
        &self,
        group: &mut Group,
        feed: impl Future<Output = ()>,
        request: &BackendRequest,
        told: &mut Output,
        output: &TextSink,
        raw: &RawStream,
    ) -> Result<Option<std::process::ExitStatus>, BackendError> {
        let lost = |error: &io::Error| {
            self.error(BackendErrorKind::Unknown, format!("could not be followed ({})", error.kind()))
        };
        let (mut stdout, mut stderr) = (group.child.stdout.take(), group.child.stderr.take());
        let mut feed = std::pin::pin!(feed);
        let mut is_feeding = true;
        let (mut out, mut err) = (Vec::with_capacity(8192), Vec::with_capacity(1024));
        let mut status = None;
        loop {
            if status.is_some() && stdout.is_none() && stderr.is_none() {
                return Ok(status);
            }
            let has_finished = status.is_some() || told.lines.reading.finished;
            let silence = if has_finished { LEAVE_GRACE } else { self.settings.silence };
            tokio::select! {
                biased;
                () = request.cancel.cancelled() => {
                    raw.tell("cancelled", "");
                    return Err(cancelled());
                }
                read = read_some(&mut stdout, &mut out), if stdout.is_some() => {
                    if read.map_err(|error| lost(&error))? == 0 {
                        stdout = None;
                    }
                    self.take_stdout(&mut out, stdout.is_none(), told, output, raw)?;
                }
                read = read_some(&mut stderr, &mut err), if stderr.is_some() => {
                    if read.map_err(|error| lost(&error))? == 0 {
                        stderr = None;
                    }
                    for line in told.stderr.lines(&err, stderr.is_none()) {
                        self.show("stderr", &line, raw);
                        told.stderr.keep(&line);
                    }
                    err.clear();
                    self.ensure_bounded(&told.stderr)?;
                }
                ended = group.child.wait(), if status.is_none() => {
                    status = Some(ended.map_err(|error| lost(&error))?);
                }
                () = &mut feed, if is_feeding => is_feeding = false,
                // What the process started may hold its output open after its end.
                () = tokio::time::sleep(silence) => {
                    return if has_finished {
                        Ok(status)
                    } else {
                        let silence = silence.as_secs_f64();
                        let message = format!("wrote nothing for {silence} s and was ended");
                        Err(self.error(BackendErrorKind::Timeout, message))
                    };
                }
            }
        }
    }

    /// Takes what came at stdout: text goes on at once, lines and documents when they are whole.
    fn take_stdout(
        &self,
        bytes: &mut Vec<u8>,
        is_end: bool,
        told: &mut Output,
        output: &TextSink,
        raw: &RawStream,
    ) -> Result<(), BackendError> {
        if self.settings.output == CliOutput::Text {
            let text = told.stdout.text(bytes, is_end);
            if !text.is_empty() {
                told.lines.wrote = true;
                self.show("stdout", text.trim_end_matches('\n'), raw);
                output.push(&text);
            }
        } else {
            for line in told.stdout.lines(bytes, is_end) {
                self.show("stdout", &line, raw);
                if self.settings.output == CliOutput::JsonLines {
                    told.lines.take(&line, output);
                } else {
                    told.stdout.kept.push_str(&line);
                    told.stdout.kept.push('\n');
                }
            }
        }
        bytes.clear();
        self.ensure_bounded(&told.stdout)
    }

    fn ensure_bounded(&self, pieces: &Pieces) -> Result<(), BackendError> {
        if pieces.rest.len() + pieces.kept.len() <= MAX_LINE_BYTES {
            return Ok(());
        }
        Err(self.error(BackendErrorKind::Unknown, "wrote a line without an end and was ended"))
    }

    /// What the answer of a process that has ended is.
    fn result(
        &self,
        status: std::process::ExitStatus,
        mut told: Output,
        output: &TextSink,
    ) -> Result<BackendAnswer, BackendError> {
        if self.settings.output == CliOutput::Json
            && let Ok(document) = serde_json::from_str(&told.stdout.kept)
        {
            told.lines.document(&document, output);
        }
        let secrets: Vec<_> = self.secrets().collect();
        let last_line =
            told.stderr.kept.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let failure = told.lines.failure.as_deref();
        if failure.is_some() || !status.success() {
            let said = failure.unwrap_or(last_line);
            let how = match status.code() {
                Some(0) => "failed".to_owned(),
                Some(code) => format!("ended with exit code {code}"),
                None => "was ended by a signal".to_owned(),
            };
            let mut message = how;
            if !said.trim().is_empty() {
                let said: String = scrub(said.trim().to_owned(), &secrets).chars().take(300).collect();
                let _ = write!(message, " and said: {said}");
            }
            return Err(self.error(kind_of(failure.unwrap_or(&told.stderr.kept)), message));
        }
        if !told.lines.wrote {
            return Err(self.error(BackendErrorKind::Unknown, "ended without an answer"));
        }
        Ok(told.lines.reading.answer(None))
    }

    fn command(
        &self,
        request: &BackendRequest,
        model: &str,
        manner: Manner,
        directory: Option<PathBuf>,
    ) -> Command {
        let settings = &self.settings;
        let mut command = Command::new(&settings.command);
        command.args(&settings.args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for name in settings.clear_env.iter().map(String::as_str).chain(SECRETS) {
            command.env_remove(name);
        }
        for (name, value) in &settings.env {
            command.env(name, value.expose_secret());
        }
        if let Some(directory) = directory {
            command.current_dir(directory);
        }
        if let Some(level) = manner.thinking {
            command.args(thinking::arguments(settings, level));
            if level == ThinkingLevel::Off {
                command.envs(settings.env_without_thinking.iter().map(|(name, value)| (name, value)));
            }
        }
        if let Some(flag) = &settings.model_arg
            && model != "default"
        {
            command.arg(flag).arg(settings.model_aliases.get(model).map_or(model, String::as_str));
        }
        if let (Some(flag), Some(prompt)) = (&settings.system_prompt_arg, &request.extra_system_prompt) {
            command.arg(flag).arg(prompt.replace('\0', ""));
        }
        command
    }

    /// The message, with what was said before it: the process knows nothing of the session.
    fn prompt(&self, request: &BackendRequest) -> String {
        let mut prompt = String::new();
        if let (None, Some(system)) = (&self.settings.system_prompt_arg, &request.extra_system_prompt) {
            let _ = write!(prompt, "{system}\n\n");
        }
        if !request.history.is_empty() {
            prompt.push_str("What was said in this conversation before:\n\n");
            for turn in &request.history {
                let author = match turn.author {
                    TurnAuthor::User => "User",
                    TurnAuthor::Assistant => "Assistant",
                };
                let _ = write!(prompt, "{author}: {}\n\n", turn.text);
            }
            prompt.push_str("The message to answer now:\n\n");
        }
        prompt + &request.message
    }

    /// Shows a line of the process in the log, in the raw stream, and on the console if that was asked for.
    fn show(&self, stream: &str, line: &str, raw: &RawStream) {
        raw.tell(stream, line);
        if self.logs.is_some() || tracing::enabled!(tracing::Level::DEBUG) {
            let secrets: Vec<_> = self.secrets().collect();
            let line = scrub(line.to_owned(), &secrets);
            tracing::debug!(cli = self.id, stream, line, "output of a command-line back end");
            if let Some(logs) = &self.logs {
                logs.tell(format!("[{} {stream}] {line}", self.id));
            }
        }
    }

    fn not_started(&self, error: &io::Error) -> BackendError {
        let command = &self.settings.command;
        let message = if error.kind() == io::ErrorKind::NotFound {
            format!(
                "cannot start: there is no program `{command}`; install it, or name another in \
                 agents.defaults.cliBackends.{}.command",
                self.id
            )
        } else {
            format!("cannot start `{command}` ({})", error.kind())
        };
        self.error(BackendErrorKind::Unknown, message)
    }

    fn error(&self, kind: BackendErrorKind, message: impl std::fmt::Display) -> BackendError {
        BackendError::new(kind, format!("the command-line back end `{}` {message}", self.id))
    }
}

/// Reads what is there, or waits for something. Loses nothing when it is dropped.
async fn read_some(
    from: &mut Option<impl tokio::io::AsyncRead + Unpin>,
    into: &mut Vec<u8>,
) -> io::Result<usize> {
    match from {
        Some(from) => from.read_buf(into).await,
        None => Ok(0),
    }
}

/// The agent's workspace, made if need be; the gateway's own directory is none of the child's business.
async fn working_directory(workspace: &std::path::Path) -> Option<PathBuf> {
    if workspace.as_os_str().is_empty() {
        return None;
    }
    let made = tokio::fs::create_dir_all(workspace).await;
    if let Err(error) = &made {
        tracing::warn!(%error, workspace = %workspace.display(), "the workspace of an agent cannot be made");
    }
    made.is_ok().then(|| workspace.to_owned())
}

/// The kind of a failure, from the words of a program.
fn kind_of(said: &str) -> BackendErrorKind {
    let said = said.to_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| said.contains(part));
    if has(&["api key", "/login", "log in", "login", "unauthorized", "authentication", "oauth"]) {
        BackendErrorKind::Auth
    } else if has(&["usage limit", "rate limit", "quota", "credit balance", "too many requests"]) {
        BackendErrorKind::RateLimit
    } else if has(&["prompt is too long", "context window", "context length"]) {
        BackendErrorKind::ContextLength
    } else if has(&["timed out", "timeout"]) {
        BackendErrorKind::Timeout
    } else {
        BackendErrorKind::Unknown
    }
}

/// Bytes of a stream, put together to text or lines.
#[derive(Debug, Default)]
struct Pieces {
    /// What is not a whole character or line yet.
    rest: Vec<u8>,
    /// Text that is kept: of stderr the end, of stdout the document.
    kept: String,
}

impl Pieces {
    /// The text that `bytes` complete; at the end, all of it.
    fn text(&mut self, bytes: &[u8], is_end: bool) -> String {
        self.rest.extend_from_slice(bytes);
        let cut = match std::str::from_utf8(&self.rest) {
            // Only an unfinished character at the end waits; what can never be one is shown as such.
            Err(error) if !is_end && error.error_len().is_none() => error.valid_up_to(),
            Ok(_) | Err(_) => self.rest.len(),
        };
        let text = String::from_utf8_lossy(&self.rest[..cut]).into_owned();
        self.rest.drain(..cut);
        text
    }

    /// The lines that `bytes` complete; at the end, also the last one.
    fn lines(&mut self, bytes: &[u8], is_end: bool) -> Vec<String> {
        self.rest.extend_from_slice(bytes);
        let cut = if is_end {
            self.rest.len()
        } else {
            self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
        };
        let text = String::from_utf8_lossy(&self.rest[..cut]).into_owned();
        self.rest.drain(..cut);
        text.lines().map(str::to_owned).collect()
    }

    /// Adds to the kept end.
    fn keep(&mut self, line: &str) {
        self.kept.push_str(line);
        self.kept.push('\n');
        if self.kept.len() > KEPT_STDERR_BYTES {
            let mut cut = self.kept.len() - KEPT_STDERR_BYTES;
            while !self.kept.is_char_boundary(cut) {
                cut += 1;
            }
            self.kept.drain(..cut);
        }
    }
}
