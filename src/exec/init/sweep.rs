//! Kills and reaps what re-parented to this process.
//!
//! A subreaper is the parent of every orphan below it. So killing children until there are none ends
//! the whole tree, at whatever depth, in whatever session: a process without living ancestors below us
//! is our child. ECHILD from the kernel is the proof.
//!
//! Processes that fork and exit in turns could outrun that: when one is killed, its child is the next.
//! So a sweep that doesn't end soon kills their descendants too, and takes precedence of them all, where
//! it may. It has a limit all the same; a cgroup is the sure answer to those.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, getpgid};

use super::super::process::{ExitStatus, Usage};
use super::descendants;
use super::sys::scheduling::Precedence;
use super::sys::{self, ChildEnd, Children};

/// How long a round waits for the killed to die: the last end wakes it at once, and a new orphan, which no
/// signal announces, is seen after this time.
const ROUND: Duration = Duration::from_millis(5);
/// At least this many times as long as it took to kill them: they need the CPU to die.
const REST: u32 = 4;
const POLL_LEAST: Duration = Duration::from_millis(1);

/// Rounds of an ordinary sweep, and children in one. More of them, and they may be outrunning it.
const ORDINARY_ROUNDS: u32 = 8;
const FEW: usize = 32;

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
        let (mut rounds, mut is_urgent, mut precedence) = (0, false, None);
        while let Left::These(children) = left()? {
            rounds += 1;
            let is_long = rounds >= ORDINARY_ROUNDS || children.len() > FEW;
            if is_long && !is_urgent && self.reach == Reach::Children {
                is_urgent = true;
                precedence = Precedence::take().ok();
            }
            let start = Instant::now();
            for pid in &children {
                sys::kill(*pid, libc::SIGKILL);
                if is_urgent {
                    descendants::kill_below(*pid);
                }
            }
            let alive = match &precedence {
                Some(_) if !children.is_empty() => {
                    self.reap_all(children, ROUND.max(REST * start.elapsed()))?
                }
                Some(_) | None => self.reap_some(&children)?,
            };
            if Instant::now() >= self.deadline {
                // The list may have missed the one that the kernel knows.
                return Ok(alive.max(1));
            }
        }
        Ok(0)
    }

    /// Reaps those of the killed that are dead, or waits for one. Returns how many are alive. Others go on
    /// meanwhile: they are to be looked at soon.
    fn reap_some(&mut self, killed: &[i32]) -> io::Result<u32> {
        let alive = self.reap_dead(killed)?;
        if alive.len() == killed.len() {
            self.wait(ROUND)?;
        }
        Ok(count(&alive))
    }

    /// Reaps those that were killed until all of them are dead, or the time is over. Returns how many are
    /// alive.
    fn reap_all(&mut self, mut killed: Vec<i32>, time: Duration) -> io::Result<u32> {
        let start = Instant::now();
        loop {
            killed = self.reap_dead(&killed)?;
            let left = time.saturating_sub(start.elapsed());
            if left.is_zero() || killed.is_empty() {
                return Ok(count(&killed));
            }
            self.wait(left)?;
        }
    }

    fn reap_dead(&mut self, killed: &[i32]) -> io::Result<Vec<i32>> {
        let mut alive = Vec::new();
        for pid in killed {
            if !self.reap(*pid)? {
                alive.push(*pid);
            }
        }
        Ok(alive)
    }

    /// Waits for an end.
    fn wait(&self, limit: Duration) -> io::Result<()> {
        // A part of a millisecond would be none.
        let limit = PollTimeout::try_from(limit.max(POLL_LEAST)).unwrap_or(PollTimeout::MAX);
        poll(&mut [PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)], limit)?;
        drain(self.signals)
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

fn count(alive: &[i32]) -> u32 {
    u32::try_from(alive.len()).unwrap_or(u32::MAX)
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
pub(super) fn parent(pid: i32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(1).map(str::to_owned)
}
