//! The task-init: starts one leader, and does not end before everything of the task has.
//!
//! ```text
//! plan ─► fork ─► setup ─► started ─► running ─► leader is a zombie ─► KILL to the group ─► sweep
//!           │       │                    │                                    │
//!           │       └─ step failed       ├─ byte n: signal n to the group     └─► reap the leader
//!           └─ setup failed              └─ end of the socket: KILL to it         ─► sweep ─► ended
//! ```

use std::io::{self, PipeReader, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::signalfd::SignalFd;
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::{getpid, setsid};

use super::super::link::{Report, SetupFailure, read_frame};
use super::super::process::{Exit, Usage};
use super::child::{Child, Setup};
use super::command::{Command, failure};
use super::spawner::{Request, errno, tell};
use super::sweep::{self, Sweep};
use super::sys::{self, Children};

/// How long a sweep may take before the worker is told that it can't promise the tree's end. A killed
/// process lives on only in an uninterruptible system call, as on a dead network file system.
const SWEEP_LIMIT: Duration = Duration::from_secs(10);

/// Runs one task. Returns the process's exit code: 0 when nothing of the task is left.
pub(super) fn run(request: Request) -> i32 {
    match start(request) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}

fn start(request: Request) -> io::Result<()> {
    let Request { control, stdout, stderr } = request;
    sys::close_others(&[control.as_fd(), stdout.as_fd(), stderr.as_fd()])?;
    setsid()?;
    prctl::set_name(c"runlane-init")?;
    prctl::set_child_subreaper(true)?;
    let signals = sweep::child_signals()?;
    let Some(plan) = read_frame(&control)? else {
        return Ok(());
    };
    let command = match Command::new(plan) {
        Ok(command) => command,
        Err(failure) => return refuse(&control, failure),
    };
    let (pipe, childs_end) = io::pipe()?;
    let child = Child { command: &command, stdout: &stdout, stderr: &stderr, init: getpid() };
    let leader = match sys::fork(|| child.run(&childs_end)) {
        Ok(leader) => leader,
        Err(error) => {
            let reason = errno(&error).desc().to_lowercase();
            return refuse(&control, failure("fork", errno(&error), reason));
        }
    };
    // Their ends are to be seen: of the pipe here, of the output by the worker.
    drop((childs_end, stdout, stderr));
    Task { leader, control, signals, worker: Worker::Listening, killed: false }.run(pipe, command)
}

fn refuse(control: &UnixStream, failure: SetupFailure) -> io::Result<()> {
    tell(control, &Report::SetupFailed(failure));
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
}

impl Task {
    fn run(mut self, pipe: PipeReader, command: Command) -> io::Result<()> {
        let failure = match self.setup(pipe)? {
            Setup::Done => {
                tell(&self.control, &Report::Started { pid: self.leader });
                self.until_leader_ends()?;
                return self.end(command);
            }
            Setup::Failed(step, errno) => command.failure(step, errno),
            Setup::Died => {
                failure("setup", Errno::EINTR, "killed before it could start".to_owned())
            }
        };
        Sweep::new(&self.signals, SWEEP_LIMIT, None).all()?;
        drop(command);
        refuse(&self.control, failure)
    }

    /// Waits until execve, or the child's end, closes the pipe.
    fn setup(&mut self, mut pipe: PipeReader) -> io::Result<Setup> {
        let mut said = Vec::new();
        loop {
            let mut wait = [pollin(&pipe), pollin(&self.control)];
            let count = self.listening(wait.len());
            poll(&mut wait[..count], PollTimeout::NONE)?;
            let [pipe_ready, asked] = wait.map(|descriptor| descriptor.any().unwrap_or(false));
            if asked {
                self.obey()?;
            }
            if pipe_ready {
                let mut part = [0; 16];
                match pipe.read(&mut part)? {
                    0 => return Ok(Setup::parse(&said)),
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
        }
    }

    /// Ends everything that the leader has left behind, and reaps the leader last.
    fn end(self, command: Command) -> io::Result<()> {
        sys::kill(-self.leader, libc::SIGKILL);
        let died_with_leader = self.killed.then_some(self.leader);
        let mut sweep = Sweep::new(&self.signals, SWEEP_LIMIT, died_with_leader);
        sweep.all_but(self.leader)?;
        let leader = sys::reap(self.leader)?.ok_or(Errno::ECHILD)?;
        // The proof, and whoever came between the last look and the leader's reaping.
        let survivors = sweep.all()?;
        let exit = Exit { status: leader.status, usage: usage()?, leftovers_killed: sweep.killed };
        drop(command);
        tell(&self.control, &Report::Ended { exit, survivors });
        while Sweep::new(&self.signals, SWEEP_LIMIT, None).all()? > 0 {}
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
