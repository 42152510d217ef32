//! A task whose leader was started: obeys the worker until it ends, ends whatever it has left, and reports.
//!
//! ```text
//! execve ─► running ─► leader is a zombie ─► KILL to the group ─► reap the leader ─► sweep ─► ended
//!              ├─ byte n: signal n to the group
//!              └─ end of the socket: KILL to it
//! ```

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;

use super::super::super::cgroup::Leaf;
use super::super::super::link::{Report, Setup, Start};
use super::super::super::process::{Exit, Usage};
use super::super::enclosure::{Made, Scratch};
use super::super::spawner::tell;
use super::super::standing::Standing;
use super::super::sweep::{self, Reach, Sweep};
use super::super::sys::{self, Children};

/// How long a task runs until task-init takes back its own OOM score, which costs as much as it does to
/// set the tasks': a shorter one leaves it to the next leader.
const OWN_SCORE_AFTER: Duration = Duration::from_millis(20);

/// What a task-init does after a task.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Another task, if the worker asks for it: nothing is left of this one.
    Again,
    End,
}

/// Whether the worker holds its end of the control socket.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Worker {
    Listening,
    Gone,
}

/// A task whose leader was started.
pub(super) struct Task<'a> {
    pub(super) leader: i32,
    pub(super) control: &'a UnixStream,
    pub(super) signals: &'a SignalFd,
    pub(super) worker: Worker,
    /// Its start, if that is to be reported.
    pub(super) untold: Option<Start>,
    /// The ladder's SIGKILL was sent to the group.
    pub(super) killed: bool,
    pub(super) reach: Reach,
    /// What those that were reaped have used.
    pub(super) usage: Usage,
    pub(super) made: Made,
    pub(super) standing: &'a Standing,
    /// Where its directory goes, if it can be another's.
    pub(super) scratch: &'a mut Option<Scratch>,
}

impl Task<'_> {
    /// Runs it to its end, if it could be set up, and reports.
    pub(super) fn run(mut self, setup: Setup, has_mounts: bool) -> io::Result<Next> {
        let report = match setup {
            Setup::Ready(start) => {
                self.untold = Some(start);
                // Held to the end: the last one out of a mount namespace takes it down, which would
                // delay the leader's end by milliseconds.
                let mounts = has_mounts.then(|| File::open(format!("/proc/{}/ns/mnt", start.pid)));
                self.until_leader_ends()?;
                let next = self.end();
                drop(mounts);
                return next;
            }
            Setup::NotEnclosed(failure) => Some(Report::NotEnclosed(failure)),
            Setup::Failed(failure) => Some(Report::SetupFailed(failure)),
            Setup::Unwanted => None,
        };
        self.kill_leaf();
        self.sweep(None).all()?;
        // Before the report: who is told that nothing is left finds nothing.
        self.made.remove();
        if let Some(report) = report {
            tell(self.control, &report);
        }
        Ok(Next::End)
    }

    fn sweep(&self, died_with_leader: Option<i32>) -> Sweep<'_> {
        Sweep::new(self.signals, self.reach, died_with_leader)
    }

    /// Obeys the worker and reaps orphans until the leader is a zombie.
    fn until_leader_ends(&mut self) -> io::Result<()> {
        let begun = Instant::now();
        loop {
            // Without reaping: a zombie keeps its id, which is the group's, from being another's.
            while let Some(end) = sweep::ended(Children::All)? {
                if end.pid == self.leader {
                    return Ok(());
                }
                sys::reap(end.pid)?;
                self.usage = self.usage.with(end.usage);
            }
            if let Some(start) = self.untold.take() {
                tell(self.control, &Report::Started(start));
            }
            let mut wait = [pollin(self.signals), pollin(self.control)];
            let count = self.listening(wait.len());
            let patience = self.until_own_score(begun);
            poll(&mut wait[..count], patience)?;
            let asked = wait[1].any().unwrap_or(false);
            sweep::drain(self.signals)?;
            if asked {
                self.obey()?;
            }
        }
    }

    /// How long to wait at most, for the sake of this process's OOM score; takes it back in time.
    fn until_own_score(&self, begun: Instant) -> PollTimeout {
        if !self.standing.has_foreign_oom_score() {
            return PollTimeout::NONE;
        }
        let left = OWN_SCORE_AFTER.saturating_sub(begun.elapsed());
        if left.is_zero() {
            self.standing.restore_oom_score();
            return PollTimeout::NONE;
        }
        // Whole milliseconds: what is left over would be waited for by asking again and again.
        PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::ZERO)
    }

    /// The control socket stands last in a list; once it has ended it would be ready for ever.
    fn listening(&self, all: usize) -> usize {
        match self.worker {
            Worker::Listening => all,
            Worker::Gone => all - 1,
        }
    }

    /// Sends what the worker asks for. The end of the socket asks for SIGKILL.
    fn obey(&mut self) -> io::Result<()> {
        let mut numbers = [0; 16];
        let mut control = self.control;
        let length = match control.read(&mut numbers) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            other => other?,
        };
        for number in &numbers[..length] {
            self.signal(i32::from(*number));
        }
        if length == 0 {
            self.worker = Worker::Gone;
            self.signal(libc::SIGKILL);
        }
        Ok(())
    }

    pub(super) fn signal(&mut self, number: i32) {
        self.killed |= number == libc::SIGKILL;
        sys::kill(-self.leader, number);
        // During its setup it may not lead a group yet.
        if number == libc::SIGKILL {
            sys::kill(self.leader, number);
            self.kill_leaf();
        }
    }

    /// Kills everything in the task's cgroup. What that can't reach the sweep does.
    fn kill_leaf(&self) {
        self.made.leaf.as_ref().map(Leaf::kill).transpose().ok();
    }

    /// Ends everything that the leader has left behind.
    fn end(self) -> io::Result<Next> {
        sys::kill(-self.leader, libc::SIGKILL);
        let leaf = self.made.leaf.as_ref();
        // A dead leader doesn't count. Who is there may fork faster than a sweep kills.
        // One that can't be asked any more was removed, by a task that could leave it.
        let was_empty = leaf.map(|leaf| leaf.wait_empty(Duration::ZERO).unwrap_or(true));
        if was_empty == Some(false) {
            self.kill_leaf();
        }
        // From here on nobody signals the group, so its number may go to another.
        let leader = sys::reap(self.leader)?.ok_or(Errno::ECHILD)?;
        let died_with_leader = self.killed.then_some(self.leader);
        let mut sweep = self.sweep(died_with_leader);
        let mut survivors = sweep.all()?;
        let leftovers_killed = sweep.killed;
        let usage = self.usage.with(leader.usage).with(sweep.usage);
        if let Some(leaf) = leaf.filter(|_| was_empty == Some(false)) {
            // Normally nobody is left: whoever isn't our child was killed with the leaf.
            survivors += u32::from(!leaf.wait_empty(sweep::LIMIT).unwrap_or(true));
        }
        let cgroup = leaf.map(Leaf::usage);
        let exit = Exit { status: leader.status, usage, leftovers_killed, cgroup };
        tell(self.control, &Report::Ended { start: self.untold, exit, survivors });
        // After the report, because nobody waits for it, and a large directory takes long.
        while self.sweep(None).all()? > 0 {}
        // Another's user could be that of those that are left.
        if survivors > 0 || self.worker == Worker::Gone {
            self.made.remove();
            return Ok(Next::End);
        }
        *self.scratch = self.made.clear();
        Ok(Next::Again)
    }
}

pub(super) fn pollin(descriptor: &impl AsFd) -> PollFd<'_> {
    PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)
}
