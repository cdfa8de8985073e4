//! A child process in a group of its own, which does not outlive its owner.

use std::{io, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

/// How long a child may take to end after it was asked to. Less than a back end has to stop.
const TERM_GRACE: Duration = Duration::from_millis(1000);

/// A child and what it started, unless that left the group.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) child: Child,
    pid: Option<Pid>,
}

impl Group {
    /// Starts `command` in a group of its own.
    pub(super) fn spawn(mut command: Command) -> io::Result<Self> {
        let child = command.process_group(0).spawn()?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        Ok(Self { child, pid })
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
    }
}
