//! Commands of the system: what is to be run, and the one place that runs it. Tests put a stand-in here.

use std::{ffi::OsStr, fmt, io, process::Stdio};

use openclaw_gateway::config::env::SECRETS;

/// A command and its arguments, before it runs. Nothing in it is secret: others can read a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommandLine {
    /// The program and its arguments.
    pub(crate) words: Vec<String>,
    /// Variables beside those of this process.
    pub(crate) environment: Vec<(String, String)>,
}

impl CommandLine {
    /// A command of these words, the program first.
    pub(crate) fn new<W: Into<String>>(words: impl IntoIterator<Item = W>) -> Self {
        Self { words: words.into_iter().map(Into::into).collect(), environment: Vec::new() }
    }

    /// Sets a variable for it.
    pub(crate) fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }
}

impl fmt::Display for CommandLine {
    /// As it is typed in a shell.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, word) in self.words.iter().enumerate() {
            let blank = if index > 0 { " " } else { "" };
            write!(formatter, "{blank}{}", crate::flags::quoted(word))?;
        }
        Ok(())
    }
}

/// How a command ended.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ended {
    /// Whether it says that it succeeded.
    pub(crate) ok: bool,
    /// What it wrote to its standard output.
    pub(crate) stdout: String,
    /// What it wrote to its standard error.
    pub(crate) stderr: String,
}

impl Ended {
    /// What it says went wrong: its standard error, or what it wrote else, on one line.
    pub(crate) fn complaint(&self) -> String {
        let said = if self.stderr.trim().is_empty() { &self.stdout } else { &self.stderr };
        said.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// Runs commands.
pub(crate) trait Runner {
    /// Runs `command` to its end.
    ///
    /// # Errors
    ///
    /// When it cannot be started: `NotFound` when the system has no such program.
    fn run(&self, command: &CommandLine) -> io::Result<Ended>;
}

/// Runs commands on this machine. Their messages are in English, because they are read.
#[derive(Debug)]
pub(crate) struct SystemRunner;

impl Runner for SystemRunner {
    fn run(&self, command: &CommandLine) -> io::Result<Ended> {
        let (program, arguments) = command.words.split_first().expect("a command has a program");
        let mut process = std::process::Command::new(OsStr::new(program));
        for name in SECRETS {
            process.env_remove(name);
        }
        let output = process
            .args(arguments)
            .envs(command.environment.iter().map(|(name, value)| (name, value)))
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .output()?;
        Ok(Ended {
            ok: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}
