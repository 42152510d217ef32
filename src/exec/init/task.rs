//! The task-init: makes an enclosure and a leader in it, and does not end before everything of the task
//! has.
//!
//! ```text
//! enclosure ─► start ─► leader waits ─► orders ─► setup ─► execve ─► running ─► … ([`tree`]) ─► ended ─┐
//!     │ ▲        │         (early)                │                                                    │
//!     │ └────────┼────────────────────────────────┼──────────── asked for another task ◄───────────────┘
//!     └──────────┴─ not enclosed                  ├─ step failed
//!                                                 └─ setup failed
//! ```
//!
//! A program that ends within [`QUIET`] has the CPU to itself until then: its start is told with its end.
//!
//! Then it may be asked to prepare for another task: nothing but its own memory is left of the first, and
//! no task ever had that.
//!
//! In a process id namespace it is process 1: whatever is orphaned comes here, one signal reaches
//! everything at once, and its own end takes the rest with it.

mod tree;

use std::cell::OnceCell;
use std::io::{self, PipeReader, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signalfd::SignalFd;
use nix::sys::socket::{MsgFlags, recv};
use nix::sys::timerfd::{ClockId, TimerFd, TimerFlags};
use nix::unistd::{getpid, setsid};

use self::tree::{Next, Task, Worker, pollin};
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
use super::sweep::{self, Reach};
use super::sys::sharing::{self, Left, Stack, Watched};
use super::sys::{self, Children};
use super::word;
use crate::task::Namespaces;

/// Bytes for a leader's stack: the deepest there is the reading of its orders' JSON.
const LEADER_STACK: usize = 512 * 1024;

/// How long after its setup a program's start is told, unless it has ended by then, as most short ones have.
pub(super) const QUIET: Duration = Duration::from_millis(5);

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

/// A leader that has left this process's memory.
struct Led {
    leader: i32,
    /// What came of its setup.
    setup: Setup,
    worker: Worker,
    /// The pipe that it said that through.
    said: PipeReader,
}

/// A task-init between two tasks.
struct Init {
    control: UnixStream,
    signals: SignalFd,
    /// Wakes it [`QUIET`] after a leader's setup.
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
        let Led { leader, setup, worker, said } = match self.lead(&made) {
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

    /// Makes a leader, and waits until it has left this process's memory.
    fn lead(&mut self, made: &Made) -> io::Result<Led> {
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
        Ok(Led { leader: pid, setup, worker, said })
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

/// The time, in microseconds since 1970.
pub(super) fn now_us() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}
