//! The task-init: makes an enclosure and a leader in it, and does not end before everything of the task
//! has.
//!
//! ```text
//! enclosure ─► start ─► leader waits ─► orders ─► setup ─► execve ─► running ─► leader is a zombie
//!     │          │         (early)                │                    │              │
//!     └──────────┴─ not enclosed                  ├─ step failed       │    KILL to the group ─► sweep
//!                                                 └─ setup failed      │         ─► reap the leader
//!                          byte n: signal n to the group ◄─────────────┤         ─► sweep ─► ended
//!                          end of the socket: KILL to it ◄─────────────┘
//! ```
//!
//! A program that ends within [`QUIET`] has the CPU to itself until then: its start is told with its end.
//!
//! Then it may be asked to prepare for another task: nothing but its own memory is left of the first, and
//! no task ever had that.
//!
//! In a process id namespace it is process 1: whatever is orphaned comes here, one signal reaches
//! everything at once, and its own end takes the rest with it.

use std::cell::OnceCell;
use std::fs::File;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signalfd::SignalFd;
use nix::sys::socket::{MsgFlags, recv};
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
use nix::unistd::{getpid, setsid};

use super::super::cgroup::Leaf;
use super::super::link::{
    AGAIN, Preparation, Report, Setup, SetupFailure, Start, encode, read_frame,
};
use super::super::process::{Exit, ExitStatus, Usage};
use super::aftermath::Aftermath;
use super::enclosure::{Ids, Made, Scratch, refused};
use super::leader::Leader;
use super::spawner::tell;
use super::standing::Standing;
use super::sweep::{self, Reach, Sweep};
use super::sys::sharing::{self, Left, Stack, Watched};
use super::sys::{self, Children};
use super::word;
use crate::task::Namespaces;

/// Bytes for a leader's stack: the deepest there is the reading of its orders' JSON.
const LEADER_STACK: usize = 512 * 1024;

/// How long after its setup a program's start is told, unless it has ended by then, as most short ones have.
pub(super) const QUIET: Duration = Duration::from_millis(5);

/// How long a task runs until task-init takes back its own OOM score, which costs as much as it does to
/// set the tasks': a shorter one leaves it to the next leader.
const OWN_SCORE_AFTER: Duration = Duration::from_millis(20);

/// Runs tasks, one after the other. Returns the process's exit code: 0 when nothing of them is left.
pub(super) fn run(control: UnixStream, namespaces: Namespaces, ids: Ids) -> i32 {
    match start(control, namespaces, ids) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

fn start(control: UnixStream, namespaces: Namespaces, ids: Ids) -> io::Result<()> {
    sys::close_others(&[control.as_fd()])?;
    setsid()?;
    prctl::set_name(c"runlane-init")?;
    prctl::set_child_subreaper(true)?;
    let signals = sweep::child_signals()?;
    if namespaces.user
        && let Err(failure) = ids.map()
    {
        return refuse(&control, failure);
    }
    let Some(preparation) = read_frame::<Preparation>(&control)? else {
        return Ok(());
    };
    let reach = if namespaces.pid { Reach::Namespace } else { Reach::Children };
    let standing = match Standing::of(&preparation) {
        Ok(standing) => standing,
        Err(failure) => return refuse(&control, failure),
    };
    let stack = Stack::new(LEADER_STACK)?;
    // A leader's mount namespace has to be held before it ends: there task-init wakes at its start.
    let is_quiet = !preparation.enclosure.namespaces.mount;
    let alarm = || TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC);
    let alarm = is_quiet.then(alarm).transpose()?;
    let (tasks, scratch) = (0, None);
    let mut init =
        Init { control, signals, alarm, preparation, reach, standing, stack, tasks, scratch };
    // The namespaces that it was born in are one task's.
    let is_reusable = namespaces == Namespaces::default();
    while init.serve()? == Next::Again && is_reusable && init.is_asked_again()? {}
    init.scratch.map(|scratch| scratch.remove()).transpose()?;
    Ok(())
}

fn refuse(control: &UnixStream, failure: SetupFailure) -> io::Result<()> {
    tell(control, &Report::NotEnclosed(failure));
    Ok(())
}

/// What a task-init does after a task.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Another task, if the worker asks for it: nothing is left of this one.
    Again,
    End,
}

/// A task-init between two tasks.
struct Init {
    control: UnixStream,
    signals: SignalFd,
    /// Wakes it [`QUIET`] after a program's start.
    alarm: Option<TimerFd>,
    preparation: Preparation,
    reach: Reach,
    standing: Standing,
    stack: Stack,
    /// How many it has had.
    tasks: u32,
    /// The last one's directory, if it is as good as new.
    scratch: Option<Scratch>,
}

impl Init {
    /// Waits until the worker asks for another task. False: it doesn't any more.
    fn is_asked_again(&mut self) -> io::Result<bool> {
        let mut byte = [0];
        loop {
            // Not by the read: that is woken, too, when the worker takes the report out of the socket.
            poll(&mut [pollin(&self.control)], PollTimeout::NONE)?;
            match recv(self.control.as_raw_fd(), &mut byte, MsgFlags::MSG_PEEK) {
                Ok(1) if byte == [AGAIN] => return Ok(true),
                // Signals that were sent before the worker knew of the end are nobody's.
                Ok(1) => self.control.read_exact(&mut byte)?,
                Ok(_) | Err(Errno::ECONNRESET) => return Ok(false),
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Prepares for a task, waits for it, and runs it to its end.
    fn serve(&mut self) -> io::Result<Next> {
        let made = match Made::make(&self.preparation.enclosure, self.scratch.take()) {
            Ok(made) => made,
            Err(failure) => return refuse(&self.control, failure).map(|()| Next::End),
        };
        let (leader, setup, worker, said) = match self.lead(&made) {
            Ok(led) => led,
            Err(error) => {
                made.remove();
                return refuse(&self.control, refused("fork", &error)).map(|()| Next::End);
            }
        };
        let (control, signals) = (&self.control, &self.signals);
        let (untold, killed, usage) = (None, false, Usage::default());
        let reach = self.reach;
        let (standing, scratch) = (&self.standing, &mut self.scratch);
        let mut task = Task {
            leader,
            control,
            signals,
            worker,
            untold,
            killed,
            reach,
            usage,
            made,
            standing,
            scratch,
        };
        if worker == Worker::Gone {
            task.signal(libc::SIGKILL);
        }
        let next = task.run(setup, self.preparation.enclosure.namespaces.mount);
        // Not before the report of an end.
        drop(said);
        next
    }

    /// Makes a leader, and waits until it has left this process's memory. Returns the pipe that it said the
    /// last of this through, too.
    fn lead(&mut self, made: &Made) -> io::Result<(i32, Setup, Worker, PipeReader)> {
        let kept = OnceCell::new();
        let leader = Leader {
            control: &self.control,
            preparation: &self.preparation,
            scratch: &made.scratch,
            leaf: made.leaf.as_ref(),
            init: getpid(),
            is_another: self.tasks > 0,
            standing: &self.standing,
            alarm: self.alarm.as_ref(),
            kept: &kept,
        };
        if self.tasks == 0 {
            leader.rehearse();
            self.rehearse(made);
        }
        self.tasks += 1;
        let aftermath = Aftermath::of(made);
        // What is left of the last task's would wake it beside this one's.
        sweep::drain(&self.signals)?;
        self.alarm.as_ref().map(TimerFd::unset).transpose()?;
        let watched = Watched {
            worker: self.control.as_fd(),
            ends: self.signals.as_fd(),
            alarm: self.alarm.as_ref().map(AsFd::as_fd),
        };
        let left = sharing::run(&mut self.stack, &watched, |pipe| leader.run(pipe));
        let Left { pid, mut said, worker_gone } = left?;
        let Some(setup) = word::last(&mut said) else {
            match aftermath {
                Some(aftermath) => aftermath.execute(&self.control),
                None => sharing::leave(1),
            }
        };
        let worker = if worker_gone { Worker::Gone } else { Worker::Listening };
        Ok((pid, setup, worker, said))
    }

    /// Goes through what is done at the end, while nobody waits: see [`Leader`]'s own rehearsal.
    fn rehearse(&self, made: &Made) {
        let exit = Exit {
            status: ExitStatus::Exited(0),
            usage: Usage::default(),
            leftovers_killed: 0,
            cgroup: made.leaf.as_ref().map(Leaf::usage),
        };
        let start = Some(Start { pid: 0, at_us: now_us() });
        encode(&Report::Ended { start, exit, survivors: 0 }).ok();
        sweep::ended(Children::All).ok();
        sweep::drain(&self.signals).ok();
    }
}

/// Whether the worker holds its end of the control socket.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Worker {
    Listening,
    Gone,
}

/// A task whose leader was started.
struct Task<'a> {
    leader: i32,
    control: &'a UnixStream,
    signals: &'a SignalFd,
    worker: Worker,
    /// Its start, if that is to be reported.
    untold: Option<Start>,
    /// The ladder's SIGKILL was sent to the group.
    killed: bool,
    reach: Reach,
    /// What those that were reaped have used.
    usage: Usage,
    made: Made,
    standing: &'a Standing,
    /// Where its directory goes, if it can be another's.
    scratch: &'a mut Option<Scratch>,
}

impl Task<'_> {
    fn run(mut self, setup: Setup, has_mounts: bool) -> io::Result<Next> {
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

    fn signal(&mut self, number: i32) {
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

fn pollin(descriptor: &impl AsFd) -> PollFd<'_> {
    PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)
}

/// The time, in microseconds since 1970.
pub(super) fn now_us() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}
