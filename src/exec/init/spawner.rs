//! The spawner: forks a task-init for each request of its worker, and outlives none of them.
//!
//! A request comes before the task that it is for: a task-init and its leader are set up as far as
//! that is possible, and wait. See [`super::task`].
//!
//! It is a subreaper too: if a task kills its own task-init, its orphans come here and are killed. The
//! end of the worker's socket ends it as soon as the last task-init, which has seen the same on its
//! own socket, is reaped.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signalfd::SignalFd;
use nix::unistd::geteuid;

use super::super::link::{Report, VERSION, encode, namespaces_of};
use super::super::open_files;
use super::super::process::ExitStatus;
use super::command::failure;
use super::enclosure::Ids;
use super::sandbox::seccomp;
use super::sweep::{self, Reach, Sweep};
use super::sys::{self, Children};
use super::task;
use crate::task::Namespaces;

/// Serves requests until the worker is gone and every task-init has ended. `open_files`: how many a task
/// may have, as text.
pub(super) fn run(open_files: Option<String>) -> io::Result<()> {
    if let Some(limit) = open_files {
        // Here for all: neither this process nor a task-init has more than a few.
        open_files::set_soft(limit.parse().map_err(io::Error::other)?)?;
    }
    let socket = sys::take_stdin()?;
    sys::close_others(&[socket.as_fd()])?;
    prctl::set_name(c"runlane-spawner")?;
    // Here for all programs: none of them is to find what this process's parent ignored, or std does.
    sys::reset_signals();
    prctl::set_child_subreaper(true)?;
    if geteuid().is_root() {
        // A leader that has given up privileges shares its memory with a task-init that has not: no task
        // of the same user may look into it. For others the files of their own /proc would be root's.
        prctl::set_dumpable(false)?;
    }
    seccomp::prepare();
    let signals = sweep::child_signals()?;
    let mut socket = Some(socket);
    let mut inits = BTreeSet::new();
    while socket.is_some() || !inits.is_empty() {
        let asked = wait(socket.as_ref().map(AsFd::as_fd), &signals)?;
        reap(&mut inits)?;
        if asked && !serve(socket.as_ref().map(AsFd::as_fd), &mut inits)? {
            socket = None;
        }
    }
    // What came here from a task-init that died by something else than its own end, and what that has left.
    while Sweep::new(&signals, Reach::Children, None).all()? > 0 {}
    Ok(())
}

/// Waits for a request or the end of a child. Returns whether the socket has something.
fn wait(socket: Option<BorrowedFd<'_>>, signals: &SignalFd) -> io::Result<bool> {
    let child = PollFd::new(signals.as_fd(), PollFlags::POLLIN);
    let ready = match socket {
        Some(socket) => {
            let mut both = [child, PollFd::new(socket, PollFlags::POLLIN)];
            poll(&mut both, PollTimeout::NONE)?;
            both[1].any().unwrap_or(true)
        }
        None => {
            poll(&mut [child], PollTimeout::NONE)?;
            false
        }
    };
    sweep::drain(signals)?;
    Ok(ready)
}

/// Starts one task-init. Returns false at the end of the socket.
fn serve(socket: Option<BorrowedFd<'_>>, inits: &mut BTreeSet<i32>) -> io::Result<bool> {
    let Some(socket) = socket else { return Ok(false) };
    let mut request = [0; 2];
    let (length, descriptors) = sys::receive(socket, &mut request)?;
    if length == 0 {
        return Ok(false);
    }
    // Without its descriptor there is nobody to answer to; closing what came answers.
    let Ok([control]) = <[OwnedFd; 1]>::try_from(descriptors) else {
        return Ok(true);
    };
    let control = UnixStream::from(control);
    let [version, flags] = request;
    if version != VERSION || length != request.len() {
        refuse(&control, "protocol", Errno::EPROTO);
        return Ok(true);
    }
    let namespaces = namespaces_of(flags);
    // The child takes its own copy out; this process's stays.
    let mut control = Some(control);
    let ids = Ids::own();
    let forked = sys::fork_into(namespaces, || {
        control.take().map_or(1, |control| task::run(control, namespaces, ids))
    });
    match (forked, control) {
        (Ok(pid), _) => drop(inits.insert(pid)),
        (Err(error), Some(control)) if namespaces == Namespaces::default() => {
            refuse(&control, "fork", errno(&error));
        }
        (Err(error), Some(control)) => refuse(&control, "namespaces", errno(&error)),
        (Err(_), None) => {}
    }
    Ok(true)
}

fn refuse(control: &UnixStream, step: &str, errno: Errno) {
    let reason = errno.desc().to_lowercase();
    let message = format!("cannot start the task's supervisor: {reason}");
    tell(control, &Report::NotEnclosed(failure(step, errno, message)));
}

/// Sends a report. A worker that is gone needs none, and for one that lives the buffer has room.
pub(super) fn tell(mut control: &UnixStream, report: &Report) {
    if let Ok(frame) = encode(report) {
        control.write_all(&frame).ok();
    }
}

/// The system's number of an error; 0 for one that isn't the system's.
pub(super) fn errno(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

/// Reaps every child that has ended. If a task-init died by something else than its own end, what it
/// left came here and is killed; what the killed leave follows with their end.
fn reap(inits: &mut BTreeSet<i32>) -> io::Result<()> {
    while let Some(end) = sweep::ended(Children::All)? {
        sys::reap(end.pid)?;
        let known = inits.remove(&end.pid);
        if !known || end.status != ExitStatus::Exited(0) {
            sweep::kill_children(|pid| inits.contains(&pid))?;
        }
    }
    Ok(())
}
