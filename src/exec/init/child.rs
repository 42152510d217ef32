//! What the leader's process does between a plan and execve: named steps in a fixed order.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, getppid};

use super::super::link::SetupFailure;
use super::command::Command;
use super::enclosure::Scratch;
use super::spawner::errno;
use super::sys;
use crate::task::Sandbox;

/// A step of the setup.
type Step = fn(&Child<'_>) -> io::Result<()>;

/// The order is a contract of its own: each step needs rights or resources that a later one takes
/// away. The session, the cgroup, namespaces and mounts came before: see [`super::leader`].
const STEPS: [(&str, Step); 7] = [
    ("oom_score_adj", |_| reset_oom_score()),
    ("umask", |_| set_umask()),
    // rlimits, bounding set, keepcaps, identity, capabilities, no_new_privs, landlock
    // A change of the user has cleared it.
    ("parent_death", |child| die_with(child.init)),
    ("signals", |_| sys::reset_signals()),
    ("chdir", |child| Ok(chdir(&child.command.cwd)?)),
    ("stdio", |child| stdio(child)),
    ("descriptors", |_| sys::close_on_exec()),
    // seccomp
];

/// What execve's failure is called.
pub(super) const EXEC: &str = "exec";

/// What the steps need.
pub(super) struct Child<'a> {
    pub(super) command: &'a Command,
    #[allow(dead_code)] // the steps that read it follow
    pub(super) sandbox: &'a Sandbox,
    #[allow(dead_code)] // as above
    pub(super) scratch: &'a Scratch,
    pub(super) stdout: &'a OwnedFd,
    pub(super) stderr: &'a OwnedFd,
    pub(super) init: Pid,
}

impl Child<'_> {
    /// Runs the steps, says that it is ready, and executes the program. Returns only what failed.
    pub(super) fn run(&self, ready: impl FnOnce()) -> SetupFailure {
        for (name, step) in STEPS {
            if let Err(error) = step(self) {
                return self.command.failure(name, errno(&error));
            }
        }
        ready();
        self.command.failure(EXEC, exec(self))
    }
}

/// Best effort: a worker that the kernel should spare (a negative value) must not pass that on, and
/// raising is always allowed. Lowering a worker's positive value takes CAP_SYS_RESOURCE.
fn reset_oom_score() -> io::Result<()> {
    // The system's rule above decides; the task runs either way.
    std::fs::write("/proc/self/oom_score_adj", "0").ok();
    Ok(())
}

/// The usual mask, whatever the worker's is.
fn set_umask() -> io::Result<()> {
    umask(Mode::S_IWGRP | Mode::S_IWOTH);
    Ok(())
}

/// Ends this process with task-init, even if that was killed before the request for it.
pub(super) fn die_with(init: Pid) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid() == init { Ok(()) } else { Err(Errno::ESRCH.into()) }
}

fn stdio(child: &Child<'_>) -> io::Result<()> {
    dup2_stdin(File::open("/dev/null")?)?;
    dup2_stdout(child.stdout)?;
    dup2_stderr(child.stderr)?;
    Ok(())
}

/// Tries the candidates as execvp(3) does, but runs no shell for a file of unknown format.
fn exec(child: &Child<'_>) -> Errno {
    let command = child.command;
    let mut worst = Errno::ENOENT;
    for path in &command.candidates {
        let Err(error) = nix::unistd::execve(path, &command.args, &command.env);
        match error {
            // No search, so no reason to go on.
            _ if command.candidates.len() == 1 => return error,
            Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE | Errno::ENODEV | Errno::ETIMEDOUT => {}
            // A later directory may have one that may be run.
            Errno::EACCES => worst = error,
            error => return error,
        }
    }
    worst
}
