//! What the leader's process does between a plan and execve: named steps in a fixed order.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, chdir, dup2_stderr, dup2_stdout, getppid};

use super::super::cgroup::Leaf;
use super::super::link::{Bounds, SetupFailure};
use super::command::{Command, failure};
use super::enclosure::Scratch;
use super::sandbox::capabilities::Kept;
use super::sandbox::landlock::Domain;
use super::sandbox::{StepError, capabilities, identity, rlimits};
use super::sys;

/// A step of the setup.
type Step = fn(&Child<'_>) -> Result<(), StepError>;

/// The order is a contract of its own: each step needs rights or resources that a later one takes
/// away. What can be done before there is a plan was done before: see [`super::leader`].
const STEPS: [(&str, Step); 11] = [
    ("cgroup", |child| child.limit()),
    ("work_dir", |child| child.own_scratch()),
    ("rlimits", |child| rlimits::apply(&child.bounds.rlimits)),
    ("identity", |child| child.identity()),
    ("capabilities", |child| child.capabilities.map_or(Ok(()), capabilities::set)),
    ("chdir", |child| child.enter_cwd()),
    ("stdio", |child| Ok(stdio(child)?)),
    ("landlock", |child| child.domain.take().map_or(Ok(()), Domain::enter)),
    // A change of the user has cleared it.
    ("parent_death", |child| Ok(die_with(child.init)?)),
    ("signals", |_| Ok(sys::unblock_signals()?)),
    ("descriptors", |_| Ok(sys::close_on_exec()?)),
];

/// What execve's failure is called.
pub(super) const EXEC: &str = "exec";

/// What the steps need.
pub(super) struct Child<'a> {
    pub(super) command: &'a Command,
    pub(super) bounds: &'a Bounds<'static>,
    /// Those that the task keeps at most.
    pub(super) capabilities: Option<Kept>,
    pub(super) scratch: &'a Scratch,
    pub(super) leaf: Option<&'a Leaf>,
    pub(super) domain: Cell<Option<Domain>>,
    pub(super) stdout: &'a OwnedFd,
    pub(super) stderr: &'a OwnedFd,
    pub(super) init: Pid,
}

impl Child<'_> {
    /// Runs the steps.
    pub(super) fn set_up(&self) -> Result<(), SetupFailure> {
        for (name, step) in STEPS {
            step(self).map_err(|error| match error.message.as_str() {
                "" => self.command.failure(name, error.errno),
                _ => failed(name, &error),
            })?;
        }
        Ok(())
    }

    /// Sets the limits of the cgroup that this process is in.
    fn limit(&self) -> Result<(), StepError> {
        let Some(limits) = &self.bounds.cgroup else { return Ok(()) };
        let Some(leaf) = self.leaf else {
            let why = "there is no cgroup to set the limits of";
            return Err(StepError { errno: Errno::EOPNOTSUPP, message: why.to_owned() });
        };
        leaf.limit(limits)
            .map_err(|error| StepError { errno: error.errno, message: error.to_string() })
    }

    /// Gives the task's own directory to the user that it will run as.
    fn own_scratch(&self) -> Result<(), StepError> {
        let Some(identity) = &self.bounds.identity else { return Ok(()) };
        let (uid, gid) = identity::ids(identity)?;
        Ok(self.scratch.give_to(uid, gid)?)
    }

    fn identity(&self) -> Result<(), StepError> {
        let Some(identity) = &self.bounds.identity else { return Ok(()) };
        if let Some(keep) = self.capabilities {
            capabilities::keep_through_switch(keep)?;
        }
        identity::apply(identity)
    }

    /// Enters the working directory, as the task's user, and looks where that is: a link may lead out of
    /// the allowed roots.
    fn enter_cwd(&self) -> Result<(), StepError> {
        chdir(&self.command.cwd)?;
        let roots = &*self.bounds.cwd_roots;
        if roots.is_empty() || self.command.cwd_is_private() {
            return Ok(());
        }
        let real = std::env::current_dir()?;
        let real_root =
            |root: &PathBuf| std::fs::canonicalize(root).unwrap_or_else(|_| root.clone());
        if roots.iter().any(|root| real.starts_with(real_root(root))) {
            return Ok(());
        }
        let roots: Vec<_> = roots.iter().map(|root| root.display().to_string()).collect();
        let why = format!("{} is not below {}", real.display(), roots.join(" or "));
        Err(StepError { errno: Errno::EACCES, message: why })
    }
}

/// A step's failure, as the worker is told.
pub(super) fn failed(step: &str, error: &StepError) -> SetupFailure {
    let message = match error.message.as_str() {
        "" => error.errno.desc().to_lowercase(),
        message => message.to_owned(),
    };
    failure(step, error.errno, message)
}

/// Ends this process with task-init, even if that was killed before the request for it.
pub(super) fn die_with(init: Pid) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid() == init { Ok(()) } else { Err(Errno::ESRCH.into()) }
}

fn stdio(child: &Child<'_>) -> io::Result<()> {
    // Standard input is /dev/null since the spawner's start.
    dup2_stdout(child.stdout)?;
    dup2_stderr(child.stderr)?;
    Ok(())
}

/// Executes the program. Returns only what failed.
///
/// Tries the candidates as execvp(3) does, but runs no shell for a file of unknown format. Makes and
/// frees nothing: see [`super::sys::sharing`].
pub(super) fn execute(command: &Command) -> Errno {
    let mut worst = Errno::ENOENT;
    for path in &command.candidates {
        match sys::sharing::execute(path, &command.args, &command.env) {
            // No search, so no reason to go on.
            error if command.candidates.len() == 1 => return error,
            Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE | Errno::ENODEV | Errno::ETIMEDOUT => {}
            // A later directory may have one that may be run.
            error @ Errno::EACCES => worst = error,
            error => return error,
        }
    }
    worst
}
