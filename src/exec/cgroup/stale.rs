//! Directories of workers in a base: who holds which, and the end of what dead workers have left.
//!
//! A lock is flock(2) on the directory itself, which the kernel gives up with the process. A name is
//! random and never used again, so that a directory can't be another one than was locked.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::stat::{fstat, fstatat};

use super::base::{PREFIX, Stale};
use super::dir::Dir;

/// Locks a worker's directory. None: another process has the lock, or the directory is gone.
pub(super) fn lock(base: &Dir, name: &str) -> Result<Option<File>, Errno> {
    let file = match base.file(name, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW) {
        Err(Errno::ENOENT) => return Ok(None),
        opened => opened?,
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(std::fs::TryLockError::WouldBlock) => return Ok(None),
        Err(std::fs::TryLockError::Error(error)) => return Err(super::dir::errno(error)),
    }
    // Between its making and this lock, a clean-up may have taken it for a dead worker's.
    match fstatat(base.as_fd(), name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(there) if there.st_ino == fstat(&file)?.st_ino => Ok(Some(file)),
        Ok(_) | Err(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Kills and removes the directories of dead workers. Returns those that could not be removed.
pub(super) fn end(base: &Dir, directory: &Path, own: &str) -> Vec<Stale> {
    let stale = |name: &str, errno| Stale { directory: directory.join(name), errno };
    let names = match base.children() {
        Ok(names) => names,
        Err(errno) => return vec![stale("", errno)],
    };
    let others = names.iter().filter(|name| name.starts_with(PREFIX) && *name != own);
    others
        .filter_map(|name| match lock(base, name) {
            // The lock is held to the end of the removal.
            Ok(Some(_lock)) => base.remove(name).err().map(|e| stale(name, super::dir::errno(e))),
            // A live worker's, or another user's.
            Ok(None) | Err(Errno::EACCES) => None,
            Err(errno) => Some(stale(name, errno)),
        })
        .collect()
}
