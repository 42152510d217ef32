//! What the leader's process does between fork and execve: named steps in a fixed order.
//!
//! The first failing step's name and error go to task-init through a pipe that execve closes. Just
//! before execve the child writes [`READY`], so that the end of the pipe without it means: killed
//! during its setup.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, getppid, setsid};

use super::command::Command;
use super::sandbox::{StepError, capabilities, identity, landlock, priority, rlimits, seccomp};
use super::sys;
use crate::task::Sandbox;

/// Stands in the pipe in a step's place: all of them are done, execve follows.
const READY: u8 = u8::MAX;

/// Bytes of a record in the pipe: a step, or [`READY`], and an error number.
const RECORD: usize = 5;

/// A step of the setup.
type Step = fn(&Child<'_>) -> Result<(), StepError>;

/// The order is a contract of its own: each step needs rights or resources that a later one takes
/// away. Steps of the plan's `Sandbox` go where the comments say.
const STEPS: [(&str, Step); 17] = [
    ("setsid", |_| Ok(setsid().map(drop)?)),
    // cgroup, namespaces and mounts
    ("oom_score_adj", |child| priority::oom_score_adj(child.sandbox().oom_score_adj)),
    ("nice", |child| child.sandbox().nice.map_or(Ok(()), priority::nice)),
    ("umask", |child| Ok(priority::set_umask(child.sandbox().umask)?)),
    ("rlimits", |child| rlimits::apply(&child.sandbox().rlimits)),
    ("bounding", |child| child.bounding()),
    ("identity", |child| child.identity()),
    ("capabilities", |child| {
        child.sandbox().capabilities.as_ref().map_or(Ok(()), capabilities::set)
    }),
    ("no_new_privs", |child| child.no_new_privs()),
    ("landlock", |child| {
        child.sandbox().landlock.as_ref().map_or(Ok(()), |domain| landlock::apply(domain, None))
    }),
    ("parent_death", |child| Ok(die_with(child.init)?)),
    ("signals", |_| Ok(sys::reset_signals()?)),
    ("chdir", |child| Ok(chdir(&child.command.cwd)?)),
    ("stdio", |child| Ok(stdio(child)?)),
    ("descriptors", |_| Ok(sys::close_on_exec()?)),
    ("seccomp", |child| Ok(child.sandbox().seccomp.map_or(Ok(()), seccomp::apply)?)),
    (EXEC, |child| Err(exec(child).into())),
];

/// The last step's name.
pub(super) const EXEC: &str = "exec";

/// What the steps need.
pub(super) struct Child<'a> {
    pub(super) command: &'a Command,
    pub(super) stdout: &'a OwnedFd,
    pub(super) stderr: &'a OwnedFd,
    pub(super) init: Pid,
}

impl Child<'_> {
    fn sandbox(&self) -> &Sandbox {
        &self.command.sandbox
    }

    fn bounding(&self) -> Result<(), StepError> {
        let Some(keep) = &self.sandbox().capabilities else { return Ok(()) };
        capabilities::drop_bounding(keep, self.sandbox().no_new_privs)
    }

    fn identity(&self) -> Result<(), StepError> {
        let Some(identity) = &self.sandbox().identity else { return Ok(()) };
        if let Some(keep) = &self.sandbox().capabilities {
            capabilities::keep_through_switch(keep)?;
        }
        identity::apply(identity)
    }

    fn no_new_privs(&self) -> Result<(), StepError> {
        if self.sandbox().no_new_privs {
            prctl::set_no_new_privs()?;
        }
        Ok(())
    }

    /// Runs the steps. Returns, with an exit code that nobody looks at, only if one failed.
    pub(super) fn run(&self, mut pipe: impl Write) -> i32 {
        for (index, (name, step)) in (0..).zip(STEPS) {
            if name == EXEC {
                // If task-init can't read it, it is dead, and `parent_death` ends this process.
                pipe.write_all(&record(READY, 0)).ok();
            }
            if let Err(error) = step(self) {
                // As above.
                pipe.write_all(&record(index, error.errno as i32)).ok();
                return 1;
            }
        }
        1
    }
}

/// What the pipe said when execve or the child's end had closed it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Setup {
    /// The program runs.
    Done,
    /// This step failed.
    Failed(&'static str, Errno),
    /// The child was killed before it could say anything.
    Died,
}

impl Setup {
    pub(super) fn parse(bytes: &[u8]) -> Self {
        match bytes.rchunks_exact(RECORD).next() {
            None => Self::Died,
            Some([READY, ..]) => Self::Done,
            Some([step, errno @ ..]) => {
                let name = STEPS.get(usize::from(*step)).map_or("setup", |(name, _)| name);
                let errno = errno.try_into().map_or(0, i32::from_le_bytes);
                Self::Failed(name, Errno::from_raw(errno))
            }
            Some([]) => Self::Died,
        }
    }
}

fn record(step: u8, errno: i32) -> [u8; RECORD] {
    let [a, b, c, d] = errno.to_le_bytes();
    [step, a, b, c, d]
}

/// Ends this process with task-init, even if that was killed before the request for it.
fn die_with(init: Pid) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pipe_tells_a_done_setup_from_a_failed_one_and_from_a_death() {
        let ready = record(READY, 0);
        let exec_failed = record(16, Errno::ENOENT as i32);
        assert_eq!(Setup::parse(&[]), Setup::Died);
        assert_eq!(Setup::parse(&ready), Setup::Done);
        assert_eq!(
            Setup::parse(&[ready, exec_failed].concat()),
            Setup::Failed(EXEC, Errno::ENOENT)
        );
        let chdir_failed = record(12, Errno::EACCES as i32);
        assert_eq!(Setup::parse(&chdir_failed), Setup::Failed("chdir", Errno::EACCES));
    }
}
