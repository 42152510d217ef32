//! The task-init: makes an enclosure and a leader in it, and does not end before everything of the task
//! has.
//!
//! ```text
//! enclosure ─► fork ─► leader waits ─► plan ─► setup ─► started ─► running ─► leader is a zombie
//!     │          │         (early)              │                    │              │
//!     └──────────┴─ not enclosed                ├─ step failed       │    KILL to the group ─► sweep
//!                                               └─ setup failed      │         ─► reap the leader
//!                        byte n: signal n to the group ◄─────────────┤         ─► sweep ─► ended
//!                        end of the socket: KILL to it ◄─────────────┘
//! ```
//!
//! In a process id namespace it is process 1: whatever is orphaned comes here, one signal reaches
//! everything at once, and its own end takes the rest with it.

use std::io::{self, PipeReader, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signalfd::SignalFd;
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::{getpid, setsid};

use super::super::cgroup::Leaf;
use super::super::link::{Preparation, Report, Setup, SetupFailure, read_frame};
use super::super::process::{Exit, Usage};
use super::enclosure::{Ids, Scratch, refused};
use super::leader::{Leader, last_word};
use super::spawner::tell;
use super::sweep::{self, Reach, Sweep};
use super::sys::{self, Children};
use crate::task::Namespaces;

/// How long a sweep may take before the worker is told that it can't promise the tree's end. A killed
/// process lives on only in an uninterruptible system call, as on a dead network file system.
const SWEEP_LIMIT: Duration = Duration::from_secs(10);

/// Runs one task. Returns the process's exit code: 0 when nothing of the task is left.
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
    let enclosure = &preparation.enclosure;
    let scratch = match Scratch::new(enclosure) {
        Ok(scratch) => scratch,
        Err(failure) => return refuse(&control, failure),
    };
    let leaf = match enclosure.cgroup.as_deref().map(Leaf::create).transpose() {
        Ok(leaf) => leaf,
        Err(error) => {
            scratch.remove().ok();
            return refuse(&control, refused("cgroup", &error));
        }
    };
    let (pipe, leaders_end) = io::pipe()?;
    let leader = Leader {
        control: &control,
        preparation: &preparation,
        scratch: &scratch,
        leaf: leaf.as_ref(),
        init: getpid(),
    };
    let leader = match sys::fork(|| leader.run(&leaders_end)) {
        Ok(leader) => leader,
        Err(error) => {
            // The failed fork is told; what is left over is an empty directory at most.
            scratch.remove().ok();
            leaf.map(Leaf::remove).transpose().ok();
            return refuse(&control, refused("fork", &error));
        }
    };
    // Its end is to be seen here.
    drop(leaders_end);
    let everyone = if namespaces.pid { Reach::Namespace } else { Reach::Children };
    Task {
        leader,
        control,
        signals,
        worker: Worker::Listening,
        killed: false,
        everyone,
        scratch,
        leaf,
    }
    .run(pipe)
}

fn refuse(control: &UnixStream, failure: SetupFailure) -> io::Result<()> {
    tell(control, &Report::NotEnclosed(failure));
    Ok(())
}

/// Whether the worker holds its end of the control socket.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Worker {
    Listening,
    Gone,
}

/// A task whose leader was forked.
struct Task {
    leader: i32,
    control: UnixStream,
    signals: SignalFd,
    worker: Worker,
    /// The ladder's SIGKILL was sent to the group.
    killed: bool,
    everyone: Reach,
    scratch: Scratch,
    leaf: Option<Leaf>,
}

impl Task {
    fn run(mut self, pipe: PipeReader) -> io::Result<()> {
        let report = match self.setup(pipe)? {
            Setup::Ready { pid } => {
                tell(&self.control, &Report::Started { pid, at_us: now_us() });
                self.until_leader_ends()?;
                return self.end();
            }
            Setup::NotEnclosed(failure) => Report::NotEnclosed(failure),
            Setup::Failed(failure) => Report::SetupFailed(failure),
        };
        self.kill_leaf();
        self.sweep(None).all()?;
        self.leaf.take().map(Leaf::remove).transpose().ok();
        // Before the report: who is told that nothing is left finds nothing.
        self.scratch.remove().ok();
        tell(&self.control, &report);
        Ok(())
    }

    fn sweep(&self, died_with_leader: Option<i32>) -> Sweep<'_> {
        Sweep::new(&self.signals, SWEEP_LIMIT, self.everyone, died_with_leader)
    }

    /// Waits until execve, or the leader's end, closes the pipe. What comes on the control socket until
    /// then is the leader's, but for its end.
    fn setup(&mut self, mut pipe: PipeReader) -> io::Result<Setup> {
        let mut said = Vec::new();
        loop {
            let closed = PollFd::new(self.control.as_fd(), PollFlags::empty());
            let mut wait = [pollin(&pipe), closed];
            let count = self.listening(wait.len());
            poll(&mut wait[..count], PollTimeout::NONE)?;
            let [pipe_ready, worker_gone] =
                wait.map(|descriptor| descriptor.any().unwrap_or(false));
            if worker_gone {
                self.worker = Worker::Gone;
                self.signal(libc::SIGKILL);
            }
            if pipe_ready {
                let mut part = [0; 512];
                match pipe.read(&mut part)? {
                    0 => return Ok(last_word(&said)),
                    length => said.extend_from_slice(&part[..length]),
                }
            }
        }
    }

    /// Obeys the worker and reaps orphans until the leader is a zombie.
    fn until_leader_ends(&mut self) -> io::Result<()> {
        loop {
            // Without reaping: a zombie keeps its id, which is the group's, from being another's.
            while let Some(end) = sweep::ended(Children::All)? {
                if end.pid == self.leader {
                    return Ok(());
                }
                sys::reap(end.pid)?;
            }
            let mut wait = [pollin(&self.signals), pollin(&self.control)];
            let count = self.listening(wait.len());
            poll(&mut wait[..count], PollTimeout::NONE)?;
            let asked = wait[1].any().unwrap_or(false);
            sweep::drain(&self.signals)?;
            if asked {
                self.obey()?;
            }
        }
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
        let length = match self.control.read(&mut numbers) {
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
        self.leaf.as_ref().map(Leaf::kill).transpose().ok();
    }

    /// Ends everything that the leader has left behind, and reaps the leader last.
    fn end(mut self) -> io::Result<()> {
        sys::kill(-self.leader, libc::SIGKILL);
        self.kill_leaf();
        let died_with_leader = self.killed.then_some(self.leader);
        let mut sweep = self.sweep(died_with_leader);
        sweep.all_but(self.leader)?;
        let leader = sys::reap(self.leader)?.ok_or(Errno::ECHILD)?;
        // The proof, and whoever came between the last look and the leader's reaping.
        let mut survivors = sweep.all()?;
        let leftovers_killed = sweep.killed;
        let mut cgroup = None;
        if let Some(leaf) = self.leaf.take() {
            // Normally it is empty by now: whoever isn't our child was killed with the leaf.
            survivors += u32::from(!leaf.wait_empty(SWEEP_LIMIT)?);
            cgroup = Some(leaf.usage());
            leaf.remove().ok();
        }
        let exit = Exit { status: leader.status, usage: usage()?, leftovers_killed, cgroup };
        tell(&self.control, &Report::Ended { exit, survivors });
        while self.sweep(None).all()? > 0 {}
        // After the report: it may take long, and nobody waits for it.
        self.scratch.remove().ok();
        Ok(())
    }
}

fn pollin(descriptor: &impl AsFd) -> PollFd<'_> {
    PollFd::new(descriptor.as_fd(), PollFlags::POLLIN)
}

/// What every reaped descendant has used.
fn usage() -> io::Result<Usage> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    Ok(Usage {
        user: duration(usage.user_time()),
        system: duration(usage.system_time()),
        // In KiB, says getrusage(2).
        max_rss_bytes: u64::try_from(usage.max_rss()).unwrap_or(0) * 1024,
    })
}

fn duration(time: TimeVal) -> Duration {
    Duration::from_micros(u64::try_from(time.num_microseconds()).unwrap_or(0))
}

fn now_us() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}
