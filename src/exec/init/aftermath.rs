//! `runlane __task-aftermath`: what a task-init becomes whose leader was killed during its setup.
//!
//! The leader ran in task-init's memory, and may have been killed in the middle of a change of its
//! heap. So task-init goes on as a fresh program, in the same process: the parent of whatever is left,
//! with the same socket to the worker.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::getpid;

use super::super::cgroup::Leaf;
use super::super::link::{AFTERMATH_ARGUMENT, Report};
use super::command::failure;
use super::enclosure::{Made, Scratch};
use super::spawner::tell;
use super::sweep::{self, Reach, Sweep};
use super::sys::{self, sharing};

/// The program, ready to be executed.
pub(super) struct Aftermath {
    path: CString,
    args: sharing::Strings,
    env: sharing::Strings,
}

impl Aftermath {
    /// Of a task whose files and cgroup these are.
    pub(super) fn of(made: &Made) -> Option<Self> {
        let leaf = made.leaf.as_ref().map(Leaf::path);
        let paths = [Some(made.scratch.path()), leaf.as_deref()].into_iter().flatten();
        let paths = paths.map(|path| CString::new(path.as_os_str().as_bytes()));
        let names = ["runlane", AFTERMATH_ARGUMENT].map(CString::new);
        let args = names.into_iter().chain(paths).collect::<Result<_, _>>().ok()?;
        let (args, env) = (sharing::Strings::new(args), sharing::Strings::new(Vec::new()));
        Some(Self { path: c"/proc/self/exe".to_owned(), args, env })
    }

    /// Becomes the program. Looks at nothing that the dead leader may have left half done.
    pub(super) fn execute(&self, control: &UnixStream) -> ! {
        sharing::as_stdin(control.as_fd());
        sharing::execute(&self.path, &self.args, &self.env);
        // The spawner kills what is left.
        sharing::leave(1)
    }
}

/// Ends what is left of the task, and tells the worker that nothing was started.
pub(super) fn run(mut args: impl Iterator<Item = OsString>) -> io::Result<()> {
    let control = UnixStream::from(sys::take_stdin()?);
    let signals = sweep::child_signals()?;
    let scratch = args.next().map(PathBuf::from).unwrap_or_default();
    let leaf = args.next().map(PathBuf::from);
    let leaf = leaf.as_deref().and_then(|path: &Path| Leaf::open(path).ok());
    leaf.as_ref().map(Leaf::kill).transpose().ok();
    let reach = if getpid().as_raw() == 1 { Reach::Namespace } else { Reach::Children };
    while Sweep::new(&signals, reach, None).all()? > 0 {}
    // Before the report: who is told that nothing is left finds nothing.
    Made { scratch: Scratch::at(scratch), leaf }.remove();
    let why = "killed before it could start".to_owned();
    tell(&control, &Report::NotEnclosed(failure("setup", Errno::EINTR, why)));
    Ok(())
}
