//! The leader's process before it is the task's program.
//!
//! ```text
//! start ─► enclosure ─► priorities ─► give up privileges ─► wait for orders ─► steps ─► go ─► execve
//!         └───────────────── early ──────────────────┘      (control socket) (`child`)
//! ```
//!
//! It runs in task-init's memory until then ([`super::sys::sharing`]), and says what came of it through a
//! pipe that execve closes ([`super::word`]).

use std::cell::{Cell, OnceCell};
use std::io::{self, PipeWriter, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::timerfd::{Expiration, TimerFd, TimerSetTimeFlags};
use nix::unistd::{Pid, getpid, setsid};

use super::super::cgroup::Leaf;
use super::super::link::{
    AGAIN, Bounds, GO, MAX_FRAME, Orders, Preparation, Setup, SetupFailure, Start, encode,
    read_frame,
};
use super::child::{Child, EXEC};
use super::command::{Command, failure};
use super::enclosure::{Scratch, refused};
use super::sandbox::landlock::Domain;
use super::sandbox::{priority, seccomp};
use super::standing::Standing;
use super::task::{QUIET, now_us};
use super::word::Word;
use super::{child, mounts, sys};
use crate::task::{LaunchPlan, Namespaces, Program, Sandbox};

/// A leader's process that is still waiting for its task.
pub(super) struct Leader<'a> {
    pub(super) control: &'a UnixStream,
    pub(super) preparation: &'a Preparation,
    pub(super) scratch: &'a Scratch,
    pub(super) leaf: Option<&'a Leaf>,
    pub(super) init: Pid,
    /// It isn't this task-init's first.
    pub(super) is_another: bool,
    pub(super) standing: &'a Standing,
    /// Wakes task-init some time after this.
    pub(super) alarm: Option<&'a TimerFd>,
    /// What execve needs, and no destructor of this process will free.
    pub(super) kept: &'a OnceCell<(Command, Bounds<'static>)>,
}

/// What came of entering the enclosure.
struct Entered {
    /// This process's id as the worker has it.
    pid: i32,
    domain: Option<Domain>,
}

/// What is to be done, and where the program's output goes.
struct Assignment {
    orders: Orders<'static>,
    stdout: OwnedFd,
    stderr: OwnedFd,
}

impl Leader<'_> {
    /// Becomes the task's program, or says what failed and ends.
    pub(super) fn run(&self, pipe: &PipeWriter) -> ! {
        let word = Word(pipe);
        let fail = |setup: &Setup| -> ! {
            word.failing();
            word.failed(setup)
        };
        let Entered { pid, domain } = match self.enter() {
            Ok(entered) => entered,
            Err(failure) => fail(&Setup::NotEnclosed(failure)),
        };
        let assignment = match self.receive() {
            Ok(Some(assignment)) => assignment,
            Ok(None) => word.unwanted(),
            Err(error) => fail(&Setup::Failed(refused("protocol", &error))),
        };
        let command = match self.set_up(assignment, domain) {
            Ok(command) => command,
            Err(failure) => fail(&Setup::Failed(failure)),
        };
        if !self.may_go() {
            word.unwanted();
        }
        word.ready(Start { pid, at_us: now_us() });
        let errno = child::execute(command);
        word.failing();
        word.failed(&Setup::Failed(command.failure(EXEC, errno)))
    }

    /// Enters the enclosure.
    fn enter(&self) -> Result<Entered, SetupFailure> {
        let step = |name: &'static str| move |error: io::Error| refused(name, &error);
        setsid().map_err(|errno| refused("setsid", &errno.into()))?;
        child::die_with(self.init).map_err(step("parent_death"))?;
        if let Some(leaf) = self.leaf {
            leaf.join().map_err(step("cgroup"))?;
        }
        let enclosure = &self.preparation.enclosure;
        let namespaces = enclosure.namespaces;
        // While /proc is the worker's.
        let pid = if namespaces.pid { outer_pid().map_err(step("namespaces"))? } else { getpid() };
        let new = flags(namespaces);
        // Container runtimes deny the call, also one that asks for nothing.
        if !new.is_empty() {
            unshare(new).map_err(|errno| refused("namespaces", &errno.into()))?;
        }
        if namespaces.network {
            sys::loopback_up().map_err(step("namespaces"))?;
        }
        if namespaces.mount {
            mounts::arrange(enclosure, self.scratch).map_err(|error| {
                let why = refused("mounts", &error.source).message;
                let errno = Errno::from_raw(error.source.raw_os_error().unwrap_or(0));
                failure("mounts", errno, format!("{}: {why}", error.path.display()))
            })?;
        }
        self.set_priorities()?;
        let domain = self.domain()?;
        self.give_up_privileges()?;
        Ok(Entered { pid: pid.as_raw(), domain })
    }

    /// Sets what the kernel prefers, and the umask.
    fn set_priorities(&self) -> Result<(), SetupFailure> {
        let Preparation { oom_score_adj, nice, umask, .. } = self.preparation;
        self.standing
            .take_oom_score(*oom_score_adj)
            .map_err(|error| child::failed("oom_score_adj", &error))?;
        if let Some(nice) = nice {
            priority::nice(*nice).map_err(|error| child::failed("nice", &error))?;
        }
        priority::set_umask(*umask).map_err(|error| refused("umask", &error))
    }

    /// Makes the Landlock domain, which is entered last: the cgroup's files aren't in it.
    fn domain(&self) -> Result<Option<Domain>, SetupFailure> {
        let Some(wanted) = &self.preparation.landlock else { return Ok(None) };
        if let Some(domain) = &self.standing.domain {
            return domain.again().map(Some).map_err(|error| child::failed("landlock", &error));
        }
        // If it isn't made yet, a script will be put into it.
        self.scratch.make_for(wanted).map_err(|error| refused("landlock", &error))?;
        let own = wanted.files.as_ref().map(|_| self.scratch.path());
        let domain = Domain::make(wanted, own);
        domain.map(Some).map_err(|error| child::failed("landlock", &error))
    }

    /// Gives up what neither this process nor the task needs. Later steps switch the user and cut the
    /// capabilities, for which these don't stand in the way.
    fn give_up_privileges(&self) -> Result<(), SetupFailure> {
        let Preparation { no_new_privs, seccomp, .. } = self.preparation;
        if *no_new_privs {
            prctl::set_no_new_privs().map_err(|errno| refused("no_new_privs", &errno.into()))?;
        }
        if let Some(profile) = seccomp
            && !self.standing.is_filtered
        {
            seccomp::apply(*profile).map_err(|error| refused("seccomp", &error))?;
        }
        Ok(())
    }

    /// Goes through what is done with a plan, with one that is never executed: in task-init, before there
    /// is a leader. After a fork each page of code and memory costs a fault when it is first used, a few
    /// µs each, and dozens of them would be paid by the task that waits.
    pub(super) fn rehearse(&self) {
        let program = Program::Command { command: "true".to_owned(), args: Vec::new() };
        let plan = LaunchPlan::of(program, Sandbox::default());
        let frame = encode(&Orders::of(&plan)).unwrap_or_default();
        if let Some(Orders { program, env, cwd, .. }) = read_frame(&*frame).ok().flatten() {
            Command::new(program, env, cwd, self.scratch).ok();
        }
    }

    /// Waits for the orders. None: there will be none, the worker has closed its end.
    fn receive(&self) -> io::Result<Option<Assignment>> {
        // In front of another task's orders stands the word that asked for it.
        let mut start = [AGAIN, 0, 0, 0, 0];
        let start = &mut start[usize::from(!self.is_another)..];
        let (mut read, mut descriptors) = (0, Vec::new());
        while read < start.len() {
            let (more, with) = sys::receive(self.control.as_fd(), &mut start[read..])?;
            if more == 0 {
                return Ok(None);
            }
            descriptors.extend(with);
            read += more;
        }
        let length = start.last_chunk().map_or(0, |length| u32::from_le_bytes(*length) as usize);
        if length > MAX_FRAME {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let (mut control, mut frame) = (self.control, vec![0; length]);
        match control.read_exact(&mut frame) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        let orders = serde_json::from_slice(&frame)?;
        let [stdout, stderr] = <[OwnedFd; 2]>::try_from(descriptors)
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        Ok(Some(Assignment { orders, stdout, stderr }))
    }

    /// Waits for the worker's word. False: it has closed its end. Nothing is made or freed here.
    fn may_go(&self) -> bool {
        let (mut control, mut word) = (self.control, [0]);
        matches!(control.read(&mut word), Ok(1)) && word == [GO]
    }

    /// Runs the steps before execve.
    fn set_up(
        &self,
        assignment: Assignment,
        domain: Option<Domain>,
    ) -> Result<&Command, SetupFailure> {
        let Assignment { orders: Orders { program, env, cwd, bounds }, stdout, stderr } =
            assignment;
        let command = Command::new(program, env, cwd, self.scratch)?;
        // Freed by task-init: an execve frees nothing of a memory that goes on.
        let (command, bounds) = self.kept.get_or_init(|| (command, bounds));
        let child = Child {
            command,
            bounds,
            capabilities: self.standing.kept,
            scratch: self.scratch,
            leaf: self.leaf,
            domain: Cell::new(domain),
            stdout: &stdout,
            stderr: &stderr,
            init: self.init,
        };
        child.set_up()?;
        // Not after the word, which follows soon: it costs as much as the rest of the way to execve.
        self.alarm.map(set).transpose().map_err(|errno| refused("alarm", &errno.into()))?;
        Ok(command)
    }
}

fn set(alarm: &TimerFd) -> nix::Result<()> {
    alarm.set(Expiration::OneShot(QUIET.into()), TimerSetTimeFlags::empty())
}

fn flags(namespaces: Namespaces) -> CloneFlags {
    let flags = [
        (namespaces.mount, CloneFlags::CLONE_NEWNS),
        (namespaces.ipc, CloneFlags::CLONE_NEWIPC),
        (namespaces.uts, CloneFlags::CLONE_NEWUTS),
        (namespaces.network, CloneFlags::CLONE_NEWNET),
    ];
    flags.into_iter().filter(|(new, _)| *new).map(|(_, flag)| flag).collect()
}

/// This process's id in the namespace of /proc.
fn outer_pid() -> io::Result<Pid> {
    let name = std::fs::read_link("/proc/self")?;
    let pid = name.to_str().and_then(|name| name.parse().ok());
    pid.map(Pid::from_raw).ok_or_else(|| io::ErrorKind::InvalidData.into())
}
