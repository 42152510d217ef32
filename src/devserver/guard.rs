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
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::process::{Child, Command};

/// The first argument that makes this program a guard.
const GUARD_ARGUMENT: &str = "__guard";
/// Time for a clean stop before SIGKILL.
const STOP_TIME: Duration = Duration::from_secs(15);

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
        // Until it is waited for, its number is nobody else's.
        let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pidfd = pidfd_open(pid.ok_or(io::ErrorKind::NotFound)?, PidfdFlags::empty())?;
        let mut guard = Command::new(program);
        guard.arg(GUARD_ARGUMENT).stdin(Stdio::piped()).stdout(pidfd);
        // Ctrl-C in the terminal is the starter's matter.
        let guard = guard.stderr(Stdio::null()).process_group(0).spawn()?;
        Ok(Self { _guard: guard })
    }
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
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::process::ExitStatusExt as _;

    use super::*;

    /// Starts a script, which says a line when it is ready, and lets a guard see the end of its starter; returns
    /// the signal that ended it, and its exit code.
    fn guarded(script: &str) -> (Option<i32>, Option<i32>) {
        let mut command = std::process::Command::new("sh");
        let mut child = command.args(["-c", script]).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut String::new()).unwrap();
        let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
        let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let (starter, held) = io::pipe().unwrap();
        drop(held);
        watch(starter.as_fd(), process.as_fd(), Duration::from_millis(300)).unwrap();
        let status = child.wait().unwrap();
        (status.signal(), status.code())
    }

    #[test]
    fn a_process_is_asked_to_end_first_and_killed_when_it_does_not() {
        let polite = "trap 'exit 3' TERM; echo; while :; do sleep 0.01; done";
        assert_eq!(guarded(polite), (None, Some(3)));
        let stubborn = "trap '' TERM; echo; while :; do sleep 0.01; done";
        assert_eq!(guarded(stubborn), (Some(9), None));
    }

    #[test]
    fn a_guard_ends_with_its_process_while_the_starter_lives() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed()).unwrap();
        let process = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let (starter, _held) = io::pipe().unwrap();
        watch(starter.as_fd(), process.as_fd(), STOP_TIME).unwrap();
        assert!(child.wait().unwrap().success());
    }
}
