//! `runlane __guard`: ends a process whose starter is gone, so that a `kill -9` of that leaves nothing.
//!
//! ```text
//!   starter ──pipe──► guard ──pidfd──► nats-server
//!
//!   the pipe ends (the starter is dead, however) ─► SIGTERM ─► 15 s ─► SIGKILL
//!   the process ends                             ─► so does the guard
//! ```
//!
//! Not a parent-death signal: that follows the *thread* that started the process. The process is known by a
//! descriptor, never by a number that may come again.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::process::{Child, Command};

/// The first argument that makes this program a guard.
const GUARD_ARGUMENT: &str = "__guard";
/// Time for a clean stop before SIGKILL, whoever asks for it.
pub(super) const STOP_TIME: Duration = Duration::from_secs(15);

/// Watches over a process as long as it is held; dropping it asks that process to end.
#[derive(Debug)]
pub struct Guard {
    /// Its standard input is the pipe.
    _guard: Child,
}

impl Guard {
    /// Has `program`, which is `runlane`, watch over a child that was not waited for yet. `None`, and a warning
    /// in the log: it can't, for example because a sandbox allows no pidfd; then a `kill -9` leaves the child.
    pub fn over(program: &Path, child: &Child) -> Option<Self> {
        Self::start(program, child)
            .inspect_err(|error| tracing::warn!(%error, "a process has no guard; it outlives a kill -9 of this one"))
            .ok()
    }

    fn start(program: &Path, child: &Child) -> io::Result<Self> {
        let mut guard = Command::new(program);
        guard.arg(GUARD_ARGUMENT).stdin(Stdio::piped()).stdout(pidfd_of(child)?);
        // Ctrl-C in the terminal is the starter's matter.
        let guard = guard.stderr(Stdio::null()).process_group(0).spawn()?;
        Ok(Self { _guard: guard })
    }
}

/// A descriptor of a child that was not waited for yet: until then its number is nobody else's.
fn pidfd_of(child: &Child) -> io::Result<OwnedFd> {
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    Ok(pidfd_open(pid.ok_or(io::ErrorKind::NotFound)?, PidfdFlags::empty())?)
}

/// Runs a guard, if this process was started as one, and returns its exit code at its end.
///
/// To be called in `main` before arguments are parsed, a runtime exists or a thread starts.
pub fn maybe_run() -> Option<ExitCode> {
    if std::env::args().nth(1)? != GUARD_ARGUMENT {
        return None;
    }
    nix::sys::prctl::set_name(c"runlane-guard").ok();
    let (stdin, stdout) = (io::stdin(), io::stdout());
    Some(match watch(stdin.as_fd(), stdout.as_fd(), STOP_TIME) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

/// Ends the process of the pidfd once the starter's pipe has ended; returns when that process has.
fn watch(starter: BorrowedFd<'_>, process: BorrowedFd<'_>, stop_time: Duration) -> io::Result<()> {
    let mut ends =
        [PollFd::new(process, PollFlags::POLLIN), PollFd::new(starter, PollFlags::POLLIN)];
    poll(&mut ends, PollTimeout::NONE)?;
    for signal in [Signal::TERM, Signal::KILL] {
        // A process that has ended can be read.
        if ends[0].any().unwrap_or(false) {
            break;
        }
        // It may have ended just now.
        pidfd_send_signal(process, signal).ok();
        poll(&mut ends[..1], PollTimeout::try_from(stop_time).unwrap_or(PollTimeout::MAX))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    use tokio::io::{AsyncBufReadExt as _, BufReader};
    use tokio::time::timeout;

    use super::*;

    /// How long a process that was killed, or that ends by itself, may take to end.
    const SOON: Duration = Duration::from_secs(10);

    /// Starts a shell script, and waits for the line that it says when it is ready.
    async fn shell(script: &str) -> Child {
        let mut command = Command::new("sh");
        let command = command.args(["-c", script]).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("there is a shell");
        let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        stdout.read_line(&mut String::new()).await.expect("the pipe can be read");
        child
    }

    async fn end(mut child: Child) -> ExitStatus {
        let end = timeout(SOON, child.wait()).await.expect("it has ended");
        end.expect("it can be waited for")
    }

    /// How a process ends whose starter is gone.
    async fn orphaned(script: &str) -> ExitStatus {
        let child = shell(script).await;
        let process = pidfd_of(&child).expect("it was not waited for");
        let (starter, held) = io::pipe().expect("a pipe");
        drop(held);
        watch(starter.as_fd(), process.as_fd(), Duration::from_millis(300)).expect("it watches");
        end(child).await
    }

    #[tokio::test]
    async fn a_process_is_asked_to_end_first_and_killed_when_it_does_not() {
        let polite = orphaned("trap 'exit 3' TERM; echo; while :; do sleep 0.01; done").await;
        assert_eq!(polite.code(), Some(3));
        let stubborn = orphaned("trap '' TERM; echo; while :; do sleep 0.01; done").await;
        assert_eq!(stubborn.signal(), Some(9));
    }

    #[tokio::test]
    async fn a_guard_ends_with_its_process_while_the_starter_lives() {
        let child = shell("echo; exit 4").await;
        let process = pidfd_of(&child).expect("it was not waited for");
        let (starter, _held) = io::pipe().expect("a pipe");
        watch(starter.as_fd(), process.as_fd(), STOP_TIME).expect("it watches");
        assert_eq!(end(child).await.code(), Some(4));
    }
}
