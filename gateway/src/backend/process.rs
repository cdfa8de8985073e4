//! A child process in a group of its own, which does not outlive its owner: neither the run it answers nor, for long, a
//! gateway that was killed.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};

use crate::state::{self, create_private_dir, write_private};

/// How long a child may take to end after it was asked to. Less than a back end has to stop.
const TERM_GRACE: Duration = Duration::from_millis(1000);
/// How often it is looked at meanwhile, where nobody else tells of its end.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A child and what it started, unless that left the group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) child: Child,
    pid: Option<Pid>,
    /// What is noted of it; removed when nothing is left of it.
    note: Option<PathBuf>,
}

impl Group {
    /// Starts `command` in a group of its own, and notes it.
    pub(super) fn spawn(mut command: Command, notes: &Notes) -> io::Result<Self> {
        let child = command.process_group(0).spawn()?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let note = child.id().and_then(|id| notes.add(id));
        Ok(Self { child, pid, note })
    }

    /// Ends the group: asks it to, then kills what is left. The child is reaped.
    pub(super) async fn stop(mut self) {
        self.signal(Signal::TERM);
        // What the child started may ignore the request, so the group is killed either way.
        let _ = tokio::time::timeout(TERM_GRACE, self.child.wait()).await;
        self.signal(Signal::KILL);
        let _ = self.child.wait().await;
        self.pid = None;
    }

    /// Kills what the child, which has ended and was reaped, left behind.
    pub(super) fn clear(mut self) {
        self.signal(Signal::KILL);
        self.pid = None;
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid {
            // An error means that nobody is left.
            let _ = kill_process_group(pid, signal);
        }
    }
}

impl Drop for Group {
    /// Whoever drops it unstopped is itself being dropped, and nothing can be waited for: tokio reaps the child.
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        if let Some(note) = &self.note {
            // One that stays names a process that is gone, which the next start sees.
            let _ = fs::remove_file(note);
        }
    }
}

/// Where processes are noted while they go on, a file each. By default nowhere. Cloning it is cheap.
#[derive(Debug, Clone, Default)]
pub(super) struct Notes {
    directory: Option<PathBuf>,
}

/// A process, told apart from every other one that has or had its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    pid: u32,
    /// When it began, in clock ticks of this boot.
    started_ticks: u64,
    boot_id: String,
}

/// What is noted: a child, and the gateway whose child it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Note {
    child: Identity,
    gateway: Identity,
}

impl Identity {
    /// The process of an id; `None` when there is none, or the system does not tell when it began.
    fn of(pid: u32) -> Option<Self> {
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?.trim().to_owned();
        Some(Self { pid, started_ticks: state::start_ticks(pid)?, boot_id })
    }

    /// Whether that process is there still.
    fn is_there(&self) -> bool {
        Self::of(self.pid).as_ref() == Some(self)
    }
}

impl Notes {
    /// Notes in `directory`. What a gateway that is no more has left there is ended, beside.
    pub(super) fn begin(directory: PathBuf) -> Self {
        let left = leftovers(&directory);
        if !left.is_empty() {
            let ended = thread::Builder::new().name("leftovers".to_owned()).spawn(move || {
                for (path, child) in left {
                    end(&child);
                    let _ = fs::remove_file(path);
                }
            });
            if let Err(error) = ended {
                tracing::warn!(%error, "processes that an earlier gateway left cannot be ended");
            }
        }
        Self { directory: Some(directory) }
    }

    /// Notes a child. Without a note nothing fails: it only outlives a gateway that is killed.
    fn add(&self, pid: u32) -> Option<PathBuf> {
        let directory = self.directory.as_ref()?;
        let note = Note { child: Identity::of(pid)?, gateway: Identity::of(std::process::id())? };
        let path = directory.join(format!("{pid}.json"));
        let text = serde_json::to_vec(&note).expect("numbers serialise");
        let written = create_private_dir(directory).and_then(|()| write_private(&path, &text));
        if let Err(error) = &written {
            tracing::warn!(%error, "a process cannot be noted; it would outlive a gateway that is killed");
        }
        written.is_ok().then_some(path)
    }
}

/// The notes of gateways that are no more. Those whose process is gone as well are removed.
fn leftovers(directory: &Path) -> Vec<(PathBuf, Identity)> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut left = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        let note = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Note>(&text).ok());
        match note {
            // This very process, after a restart within it, still sees to what it started.
            Some(note) if note.gateway.is_there() => {}
            Some(note) if note.child.is_there() => left.push((path, note.child)),
            // A process of another beginning that has the id now is none of ours. One whose leader has ended cannot be told
            // from a stranger's group, and is left alone.
            _ => drop(fs::remove_file(path)),
        }
    }
    left
}

/// Ends the group of a process that an earlier gateway started: as [`Group::stop`] does.
fn end(child: &Identity) {
    let Some(pid) = i32::try_from(child.pid).ok().and_then(Pid::from_raw) else { return };
    tracing::warn!(
        pid = child.pid,
        "a process of a command-line back end has outlived its gateway and is ended"
    );
    let _ = kill_process_group(pid, Signal::TERM);
    let limit = Instant::now() + TERM_GRACE;
    while child.is_there() && Instant::now() < limit {
        thread::sleep(LOOK_EVERY);
    }
    // As long as the group has a process, no other one gets its id; a moment later it is killed whole.
    let _ = kill_process_group(pid, Signal::KILL);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper() -> std::process::Child {
        use std::os::unix::process::CommandExt as _;
        let mut command = std::process::Command::new("sleep");
        command.arg("1000").process_group(0).spawn().expect("sleep starts")
    }

    fn note(directory: &Path, child: Identity, gateway: Identity) -> PathBuf {
        let path = directory.join(format!("{}.json", child.pid));
        let text = serde_json::to_vec(&Note { child, gateway }).expect("numbers serialise");
        write_private(&path, &text).expect("it can be written");
        path
    }

    #[test]
    fn what_a_killed_gateway_left_is_ended_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let own = Identity::of(std::process::id()).expect("the system tells");
        let gone = Identity { started_ticks: own.started_ticks + 1, ..own.clone() };
        let [mut left, mut recycled, mut mine] = [sleeper(), sleeper(), sleeper()];
        let of = |child: &std::process::Child| Identity::of(child.id()).expect("it is there");
        let earlier = Identity { started_ticks: of(&recycled).started_ticks - 1, ..of(&recycled) };
        let left_note = note(directory.path(), of(&left), gone.clone());
        let recycled_note = note(directory.path(), earlier, gone);
        let own_note = note(directory.path(), of(&mine), own);
        Notes::begin(directory.path().to_owned());
        left.wait().expect("it is ended");
        assert!(recycled.try_wait().expect("it is a child").is_none(), "a stranger with a recycled id");
        assert!(mine.try_wait().expect("it is a child").is_none(), "one that this process started");
        assert!(!recycled_note.exists() && own_note.exists());
        while left_note.exists() {
            thread::sleep(LOOK_EVERY);
        }
        for child in [&mut recycled, &mut mine] {
            child.kill().expect("it can be killed");
            child.wait().expect("it is reaped");
        }
    }

    #[tokio::test]
    async fn a_process_is_noted_while_it_goes_on() {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let notes = Notes::begin(directory.path().join("new"));
        let mut command = Command::new("sleep");
        command.arg("1000");
        let group = Group::spawn(command, &notes).expect("sleep starts");
        let count = || fs::read_dir(directory.path().join("new")).expect("it is made").count();
        assert_eq!(count(), 1);
        group.stop().await;
        assert_eq!(count(), 0);
    }
}
