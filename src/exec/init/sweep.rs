//! Kills and reaps what re-parented to this process.
//!
//! A subreaper is the parent of every orphan below it. So killing children until there are none ends
//! the whole tree, at whatever depth, in whatever session: a process without living ancestors below us
//! is our child. ECHILD from the kernel is the proof. Processes that fork faster than we kill could
//! outrun it, so the sweep has a limit; a cgroup is the answer to those.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getpgid};

use super::super::process::{ExitStatus, Usage};
use super::sys::{self, ChildEnd, Children};

/// How long a round waits for the killed to die: an end wakes it at once, and a new orphan, which no
/// signal announces, is seen after this time.
const ROUND_MS: u8 = 5;

/// Who can be killed at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// The children of this process, one by one.
    Children,
    /// Everybody in the process id namespace that this process is the first of. Nothing can outrun that:
    /// the kernel signals all of them before any of them can fork again.
    Namespace,
}

/// What is there to kill.
enum Left {
    Nobody,
    /// Empty if the list missed a child that the kernel knows.
    These(Vec<i32>),
}

/// How long a sweep may take before the worker is told that it can't promise the tree's end. A killed
/// process lives on only in an uninterruptible system call, as on a dead network file system.
pub(super) const LIMIT: Duration = Duration::from_secs(10);

/// The sweep after one leader's end.
pub(super) struct Sweep<'a> {
    signals: &'a SignalFd,
    deadline: Instant,
    reach: Reach,
    /// Killed here; not those that the ladder's SIGKILL took together with the leader.
    pub(super) killed: u32,
    /// What those that were reaped here have used.
    pub(super) usage: Usage,
    /// The group whose members died with the leader.
    died_with_leader: Option<Pid>,
}

impl<'a> Sweep<'a> {
    pub(super) fn new(signals: &'a SignalFd, reach: Reach, died_with_leader: Option<i32>) -> Self {
        let deadline = Instant::now() + LIMIT;
        let died_with_leader = died_with_leader.map(Pid::from_raw);
        Self { signals, deadline, reach, killed: 0, usage: Usage::default(), died_with_leader }
    }

    /// Kills and reaps every child, until the kernel says that there is none. Returns how many were
    /// left at the deadline.
    pub(super) fn all(&mut self) -> io::Result<u32> {
        let reach = self.reach;
        self.until(|| match sys::peek(Children::All) {
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(Left::Nobody),
            Err(error) => Err(error),
            Ok(end) if reach == Reach::Namespace => {
                sys::kill(-1, libc::SIGKILL);
                Ok(Left::These(end.map(|end| end.pid).into_iter().collect()))
            }
            Ok(_) => Ok(Left::These(list()?)),
        })
    }

    fn until(&mut self, left: impl Fn() -> io::Result<Left>) -> io::Result<u32> {
        while let Left::These(children) = left()? {
            let mut alive = 0;
            for pid in &children {
                sys::kill(*pid, libc::SIGKILL);
                alive += u32::from(!self.reap(*pid)?);
            }
            if Instant::now() >= self.deadline {
                // The list may have missed the one that the kernel knows.
                return Ok(alive.max(1));
            }
            if alive as usize == children.len() {
                poll(&mut [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)], ROUND_MS)?;
                drain(self.signals)?;
            }
        }
        Ok(0)
    }

    fn reap(&mut self, pid: i32) -> io::Result<bool> {
        // Before it is reaped: a zombie has its group still.
        let group = self.died_with_leader.and_then(|_| getpgid(Some(Pid::from_raw(pid))).ok());
        let Some(end) = sys::reap(pid)? else {
            return Ok(false);
        };
        self.usage = self.usage.with(end.usage);
        let by_us = end.status == ExitStatus::Signaled(libc::SIGKILL);
        if by_us && (group.is_none() || group != self.died_with_leader) {
            self.killed += 1;
        }
        Ok(true)
    }
}

/// Kills every child that isn't kept, without waiting for it.
pub(super) fn kill_children(keep: impl Fn(i32) -> bool) -> io::Result<()> {
    for pid in list()?.into_iter().filter(|pid| !keep(*pid)) {
        sys::kill(pid, libc::SIGKILL);
    }
    Ok(())
}

/// A child that has ended and isn't reaped. None: there is none, or no child at all.
pub(super) fn ended(children: Children) -> io::Result<Option<ChildEnd>> {
    match sys::peek(children) {
        Err(error) if error.raw_os_error() == Some(libc::ECHILD) => Ok(None),
        other => other,
    }
}

/// Blocks every signal for good, so that neither a terminal nor a service manager ends this process
/// before its task, and makes the ends of children readable.
pub(super) fn child_signals() -> io::Result<SignalFd> {
    SigSet::all().thread_block()?;
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGCHLD);
    Ok(SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?)
}

/// Takes what a signal descriptor holds: it says that children ended, not how many.
pub(super) fn drain(signals: &SignalFd) -> io::Result<()> {
    // A pending signal is there once; a new one makes it readable again.
    signals.read_signal()?;
    Ok(())
}

/// The children of this process, dead ones too. May miss some while others come and go (proc(5)), so
/// an empty list alone is no proof.
fn list() -> io::Result<Vec<i32>> {
    match std::fs::read_to_string("/proc/thread-self/children") {
        Ok(children) => {
            Ok(children.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect())
        }
        // A kernel without CONFIG_PROC_CHILDREN.
        Err(error) if error.kind() == io::ErrorKind::NotFound => scan(),
        Err(error) => Err(error),
    }
}

/// The same from the parents that /proc tells of every process.
fn scan() -> io::Result<Vec<i32>> {
    let own = std::process::id().to_string();
    let pids = std::fs::read_dir("/proc")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(pids.filter(|pid| parent(*pid).as_deref() == Some(own.as_str())).collect())
}

/// The fourth field of /proc/PID/stat; the second is in parentheses and may hold anything.
fn parent(pid: i32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(1).map(str::to_owned)
}
