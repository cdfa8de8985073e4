//! Programs of the system that this one starts and that are to end with it, also when it is killed. They never get the
//! gateway's own secrets.

use std::{
    ffi::OsString,
    pin::Pin,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use openclaw_gateway::config::env::SECRETS;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, Command},
    sync::Notify,
    task::JoinHandle,
    time::timeout,
};

/// The first argument of a process that is to become another program; see [`become_program`].
const BECOME: &str = "__child";
/// How much of what a program writes is kept.
const MAX_WORDS_BYTES: usize = 16 * 1024;
/// The exit code of a process that could not become another program: that of a shell which does not find one.
const NOT_FOUND: u8 = 127;

/// The process that runs `program` with `arguments`. Nobody is there to answer its questions.
pub(crate) fn command(program: &str, arguments: &[OsString]) -> Command {
    let mut command;
    #[cfg(target_os = "linux")]
    {
        // This program becomes the other one in the child, where it can bind its life to this process.
        command = Command::new("/proc/self/exe");
        command.arg(BECOME).arg(std::process::id().to_string()).arg(program);
    }
    #[cfg(not(target_os = "linux"))]
    {
        command = Command::new(program);
    }
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    for name in SECRETS {
        command.env_remove(name);
    }
    command.kill_on_drop(true);
    command
}

/// Becomes another program, if the arguments of this process say so: [`command`] starts this program again, so that the
/// child asks the kernel for its own end at the end of its parent. `Command` could do that between fork and exec, but
/// only with unsafe code; the request survives exec. Returns only when this process is not to become another program,
/// or cannot.
pub(crate) fn become_program(arguments: &[OsString]) -> Option<u8> {
    if arguments.get(1)? != BECOME {
        return None;
    }
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::process::CommandExt as _;

        use rustix::process::{getppid, set_parent_process_death_signal};

        let parent: Option<i32> = arguments.get(2)?.to_str()?.parse().ok();
        let program = arguments.get(3)?;
        // Only an invalid signal is refused.
        let _ = set_parent_process_death_signal(Some(Signal::TERM));
        if getppid().map(|pid| pid.as_raw_nonzero().get()) != parent {
            // The parent ended before the kernel was asked.
            return Some(NOT_FOUND);
        }
        let error = std::process::Command::new(program).args(&arguments[4..]).exec();
        crate::output::complain(&format!("{}: {error}\n", cannot_start(&program.to_string_lossy())));
    }
    Some(NOT_FOUND)
}

/// What a process says that cannot become `program`.
pub(crate) fn cannot_start(program: &str) -> String {
    format!("the program {program} cannot be started")
}

/// Ends a program, so that nothing is left of it: asks it to, and kills it when that takes longer than `limit`.
pub(crate) async fn end(child: &mut Child, limit: Duration) {
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid
        // It may have ended by itself; then there is nothing to end.
        && kill_process(pid, Signal::TERM).is_ok()
        && timeout(limit, child.wait()).await.is_ok()
    {
        return;
    }
    // Only a process that has ended already cannot be killed.
    let _ = child.kill().await;
}

/// One end of a pipe to a program.
pub(crate) type Pipe = Pin<Box<dyn AsyncRead + Send>>;

/// The beginning of what a program writes. It is read to its end, lest the program wait for a reader.
#[derive(Debug)]
pub(crate) struct Words {
    kept: Arc<(Mutex<Vec<u8>>, Notify)>,
    readers: Vec<JoinHandle<()>>,
}

impl Words {
    /// What comes through these pipes.
    pub(crate) fn of(pipes: impl IntoIterator<Item = Pipe>) -> Self {
        let kept = Arc::new((Mutex::new(Vec::new()), Notify::new()));
        let read = |mut pipe: Pipe| {
            let kept = Arc::clone(&kept);
            tokio::spawn(async move {
                let mut buffer = [0; 1024];
                // A pipe that breaks has ended too.
                while let Ok(count @ 1..) = pipe.read(&mut buffer).await {
                    let mut text = kept.0.lock().unwrap_or_else(PoisonError::into_inner);
                    let room = MAX_WORDS_BYTES.saturating_sub(text.len());
                    text.extend_from_slice(&buffer[..count.min(room)]);
                    drop(text);
                    kept.1.notify_one();
                }
            })
        };
        let readers = pipes.into_iter().map(read).collect();
        Self { kept, readers }
    }

    /// All of it by now.
    pub(crate) fn so_far(&self) -> String {
        let text = self.kept.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Waits until more has come since this was asked last. May be cancelled at any time.
    pub(crate) async fn more(&self) {
        self.kept.1.notified().await;
    }

    /// Waits until the program can write no more, but no longer than `limit`: what it started may keep a pipe open.
    pub(crate) async fn ended(&mut self, limit: Duration) {
        let _ = timeout(limit, async {
            for reader in &mut self.readers {
                let _ = reader.await;
            }
        })
        .await;
    }
}
