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

use std::fs::File;
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
use super::super::link::{Preparation, Report, Setup, SetupFailure, encode, read_frame};
use super::super::process::{Exit, ExitStatus, Usage};
use super::enclosure::{Ids, Made, refused};
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
    let (pipe, leaders_end) = io::pipe()?;
    let made = match Made::make(enclosure) {
        Ok(made) => made,
        Err(failure) => return refuse(&control, failure),
    };
    let leader = Leader {
        control: &control,
        preparation: &preparation,
        scratch: &made.scratch,
        leaf: made.leaf.as_ref(),
        init: getpid(),
    };
    let leader = match sys::fork(|| leader.run(&leaders_end)) {
        Ok(leader) => leader,
        Err(error) => {
            made.remove();
            return refuse(&control, refused("fork", &error));
        }
    };
    // Its end is to be seen here.
    drop(leaders_end);
    let has_mounts = enclosure.namespaces.mount;
    let reach = if namespaces.pid { Reach::Namespace } else { Reach::Children };
    let worker = Worker::Listening;
    Task { leader, control, signals, worker, killed: false, reach, has_mounts, made }.run(pipe)
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
    reach: Reach,
    /// The leader has a mount namespace of its own.
    has_mounts: bool,
    made: Made,
}

impl Task {
    fn run(mut self, pipe: PipeReader) -> io::Result<()> {
        self.rehearse();
        let report = match self.setup(pipe)? {
            Setup::Ready { pid } => {
                tell(&self.control, &Report::Started { pid, at_us: now_us() });
                // Held to the end: the last one out of a mount namespace takes it down, which would
                // delay the leader's end by milliseconds.
                let mounts = self.has_mounts.then(|| File::open(format!("/proc/{pid}/ns/mnt")));
                self.until_leader_ends()?;
                let ended = self.end();
                drop(mounts);
                return ended;
            }
            Setup::NotEnclosed(failure) => Report::NotEnclosed(failure),
            Setup::Failed(failure) => Report::SetupFailed(failure),
        };
        self.kill_leaf();
        self.sweep(None).all()?;
        // Before the report: who is told that nothing is left finds nothing.
        self.made.remove();
        tell(&self.control, &report);
        Ok(())
    }

    /// Goes through what is done at the end, while nobody waits: see [`Leader`]'s own rehearsal.
    fn rehearse(&self) {
        let exit = Exit {
            status: ExitStatus::Exited(0),
            usage: usage().unwrap_or_default(),
            leftovers_killed: 0,
            cgroup: self.made.leaf.as_ref().map(Leaf::usage),
        };
        encode(&Report::Ended { exit, survivors: 0 }).ok();
        encode(&Report::Started { pid: 0, at_us: now_us() }).ok();
        let ready = encode(&Setup::Ready { pid: 0 }).unwrap_or_default();
        last_word(&ready);
        sweep::ended(Children::All).ok();
        sweep::drain(&self.signals).ok();
        // The leader is alive, and is spared.
        sweep::kill_children(|_| true).ok();
    }

    fn sweep(&self, died_with_leader: Option<i32>) -> Sweep<'_> {
        Sweep::new(&self.signals, SWEEP_LIMIT, self.reach, died_with_leader)
    }

    /// Waits until execve, or the leader's end, closes the pipe. What comes on the control socket until
    /// then is the leader's, but for its end.
    ///
    /// What is written to the pipe wakes nobody, only its end does: a task-init that woke beside a leader
    /// in the middle of execve would make the kernel move one of them to another CPU.
    fn setup(&mut self, mut pipe: PipeReader) -> io::Result<Setup> {
        loop {
            let closed = |descriptor| PollFd::new(descriptor, PollFlags::empty());
            let mut wait = [closed(pipe.as_fd()), closed(self.control.as_fd())];
            let count = self.listening(wait.len());
            poll(&mut wait[..count], PollTimeout::NONE)?;
            let [pipe_closed, worker_gone] =
                wait.map(|descriptor| descriptor.any().unwrap_or(false));
            if worker_gone {
                self.worker = Worker::Gone;
                self.signal(libc::SIGKILL);
            }
            if pipe_closed {
                let mut said = Vec::new();
                pipe.read_to_end(&mut said)?;
                return Ok(last_word(&said));
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
        self.made.leaf.as_ref().map(Leaf::kill).transpose().ok();
    }

    /// Ends everything that the leader has left behind.
    fn end(self) -> io::Result<()> {
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
        if let Some(leaf) = leaf.filter(|_| was_empty == Some(false)) {
            // Normally nobody is left: whoever isn't our child was killed with the leaf.
            survivors += u32::from(!leaf.wait_empty(SWEEP_LIMIT).unwrap_or(true));
        }
        let cgroup = leaf.map(Leaf::usage);
        let exit = Exit { status: leader.status, usage: usage()?, leftovers_killed, cgroup };
        tell(&self.control, &Report::Ended { exit, survivors });
        // After the report, because nobody waits for it, and a large directory takes long.
        while self.sweep(None).all()? > 0 {}
        self.made.remove();
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
