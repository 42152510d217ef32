//! Why a task could not be launched, and whether another try could help.

use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

use super::link::SetupFailure;
use super::process::ProcessError;

/// Why a task could not be launched. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// Pipes or sockets could not be made.
    #[error("{}: cannot make pipes", self.step())]
    Pipes(#[source] io::Error),
    /// The spawner could not be started, or reached.
    #[error("{}: cannot reach {}", self.step(), program.display())]
    Spawner {
        /// The spawner's program.
        program: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The spawner or the task-init died before it could say how the launch went. It reports a start some
    /// milliseconds later.
    #[error("{}: ended before the task's start was reported", self.step())]
    Interrupted(#[source] ProcessError),
    /// A step of the task's setup failed.
    #[error("{step}: {message}")]
    Setup {
        /// The step's name: `fork`, `cgroup`, `namespaces`, `script`, `rlimits`, `identity`, `chdir`, `exec`, …
        step: String,
        /// The system's error number.
        errno: i32,
        /// What happened to which path, with the system's reason.
        message: String,
    },
}

impl LaunchError {
    /// The name of the step that failed, for the outcome.
    pub fn step(&self) -> &str {
        match self {
            Self::Pipes(_) => "pipe",
            Self::Spawner { .. } | Self::Interrupted(_) => "spawner",
            Self::Setup { step, .. } => step,
        }
    }

    /// Whether the same plan would fail again here: not found, permission, not a directory, is a
    /// directory, bad executable format, argument list too long, read-only file system, invalid
    /// input, name too long, too many symbolic links. Everything else may pass, and so may any failure
    /// to write a script's file, which is the host's and not the task's.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Pipes(_) | Self::Spawner { .. } | Self::Interrupted(_) => false,
            Self::Setup { step, errno, .. } => {
                step != "script" && is_permanent(Errno::from_raw(*errno))
            }
        }
    }

    /// Whether nothing of the task has run, for sure. A task-init that dies may have seen its program begin.
    pub fn has_not_begun(&self) -> bool {
        !matches!(self, Self::Interrupted(_))
    }

    /// Whether this host lacks something now that the next task needs as well: process ids, memory, open
    /// files, disk space. A program that is being written, a directory that can't be entered, or a user's
    /// own limit is the task's matter.
    pub fn is_of_the_host(&self) -> bool {
        match self {
            Self::Pipes(_) | Self::Spawner { .. } => true,
            Self::Interrupted(_) => false,
            Self::Setup { step, errno, .. } => match step.as_str() {
                "script" => true,
                "rlimits" | "identity" | "chdir" | "exec" => false,
                _ => is_a_lack(Errno::from_raw(*errno)),
            },
        }
    }
}

fn is_a_lack(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::EAGAIN
            | Errno::ENOMEM
            | Errno::EMFILE
            | Errno::ENFILE
            | Errno::ENOSPC
            | Errno::EDQUOT
    )
}

fn is_permanent(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ENOENT
            | Errno::EACCES
            | Errno::EPERM
            | Errno::ENOTDIR
            | Errno::EISDIR
            | Errno::ENOEXEC
            | Errno::E2BIG
            | Errno::EROFS
            | Errno::EINVAL
            | Errno::ENAMETOOLONG
            | Errno::ELOOP
    )
}

impl From<SetupFailure> for LaunchError {
    fn from(SetupFailure { step, errno, message }: SetupFailure) -> Self {
        Self::Setup { step, errno, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(step: &str, errno: Errno) -> LaunchError {
        LaunchError::Setup { step: step.to_owned(), errno: errno as i32, message: String::new() }
    }

    #[test]
    fn errors_of_the_plan_are_permanent_and_those_of_the_host_pass() {
        for errno in [Errno::ENOENT, Errno::EACCES, Errno::ENOTDIR, Errno::EISDIR, Errno::ENOEXEC] {
            assert!(setup("exec", errno).is_permanent(), "{errno}");
        }
        for errno in [Errno::E2BIG, Errno::EROFS, Errno::EINVAL, Errno::ENAMETOOLONG, Errno::ELOOP]
        {
            assert!(setup("chdir", errno).is_permanent(), "{errno}");
        }
        for errno in
            [Errno::EAGAIN, Errno::ENOMEM, Errno::EMFILE, Errno::ENFILE, Errno::EIO, Errno::EINTR]
        {
            assert!(!setup("exec", errno).is_permanent(), "{errno}");
        }
        assert!(!setup("script", Errno::EROFS).is_permanent());
        assert!(setup("fork", Errno::EAGAIN).has_not_begun());
        assert!(!LaunchError::Interrupted(ProcessError::SupervisorDied).has_not_begun());
    }

    #[test]
    fn what_the_next_task_would_meet_as_well_is_the_hosts_matter() {
        for (step, errno) in [
            ("fork", Errno::EAGAIN),
            ("fork", Errno::ENOMEM),
            ("cgroup", Errno::ENOSPC),
            ("script", Errno::EROFS),
        ] {
            assert!(setup(step, errno).is_of_the_host(), "{step} {errno}");
        }
        for (step, errno) in [
            ("exec", Errno::ETXTBSY),
            ("exec", Errno::ENOMEM),
            ("chdir", Errno::ESTALE),
            ("identity", Errno::EAGAIN),
            ("mounts", Errno::ENOENT),
        ] {
            assert!(!setup(step, errno).is_of_the_host(), "{step} {errno}");
        }
    }
}
