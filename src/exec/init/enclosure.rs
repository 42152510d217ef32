//! What is made before a task is known: a user namespace's ids, a cgroup leaf, a place for files.
//!
//! Made by task-init, which also takes it down; the leader enters it. See [`super::leader`].

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, lchown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, getegid, geteuid};

use super::super::cgroup::Leaf;
use super::super::link::SetupFailure;
use super::command::failure;
use super::remove::remove_tree;
use super::spawner::errno;
use crate::task::{Enclosure, Landlock};

/// Below [`Scratch`]: the task's work directory.
const WORK: &str = "work";

/// Below [`Scratch`]: the task's script.
const SCRIPT: &str = "script";

/// The user and group of the spawner.
#[derive(Clone, Copy)]
pub(super) struct Ids {
    uid: Uid,
    gid: Gid,
}

impl Ids {
    pub(super) fn own() -> Self {
        Self { uid: geteuid(), gid: getegid() }
    }

    /// Gives this process, which is in a new user namespace, the same ids as outside of it.
    pub(super) fn map(self) -> Result<(), SetupFailure> {
        let Self { uid, gid } = self;
        // In this order: without privileges a group can be mapped only once groups can't be changed.
        for (file, text) in [
            ("setgroups", "deny".to_owned()),
            ("uid_map", format!("{uid} {uid} 1")),
            ("gid_map", format!("{gid} {gid} 1")),
        ] {
            std::fs::write(format!("/proc/self/{file}"), text).map_err(|error| {
                let errno = errno(&error);
                let reason = errno.desc().to_lowercase();
                let message = format!("cannot write {file} of a new user namespace: {reason}");
                failure("namespaces", errno, message)
            })?;
        }
        Ok(())
    }
}

/// What was made for one task outside of its processes.
pub(super) struct Made {
    pub(super) scratch: Scratch,
    pub(super) leaf: Option<Leaf>,
}

impl Made {
    pub(super) fn make(enclosure: &Enclosure) -> Result<Self, SetupFailure> {
        let scratch = Scratch::new(enclosure)?;
        match enclosure.cgroup.as_deref().map(Leaf::create).transpose() {
            Ok(leaf) => Ok(Self { scratch, leaf }),
            Err(error) => {
                scratch.remove().ok();
                Err(refused("cgroup", &error))
            }
        }
    }

    /// Removes it. What can't be removed is left to the next worker's start.
    pub(super) fn remove(self) {
        self.leaf.map(Leaf::remove).transpose().ok();
        self.scratch.remove().ok();
    }
}

/// A private directory of one task, below the runner's work root or the temporary directory. It is made
/// when it is needed.
pub(super) struct Scratch {
    path: PathBuf,
    root: Option<PathBuf>,
}

impl Scratch {
    /// Chooses a name, and makes the directory if the task gets a work directory.
    pub(super) fn new(enclosure: &Enclosure) -> Result<Self, SetupFailure> {
        let name = format!("runlane-{}", uuid::Uuid::new_v4().simple());
        let root = enclosure.work_root.clone();
        let place = root.clone().unwrap_or_else(std::env::temp_dir);
        let scratch = Self { path: place.join(name), root };
        if scratch.root.is_some() {
            let made = scratch.make().and_then(|()| make(&scratch.path.join(WORK)));
            made.map_err(|error| {
                scratch.remove().ok();
                let errno = errno(&error);
                let reason = errno.desc().to_lowercase();
                failure(
                    "work_dir",
                    errno,
                    format!("cannot make a directory below {place:?}: {reason}"),
                )
            })?;
        }
        Ok(scratch)
    }

    /// One that was made before, to be removed.
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path, root: None }
    }

    /// Makes the directory, if it isn't there.
    pub(super) fn make(&self) -> io::Result<()> {
        match make(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    }

    /// Makes the directory if a domain has to have a rule for it.
    pub(super) fn make_for(&self, domain: &Landlock) -> io::Result<()> {
        if domain.files.is_some() { self.make() } else { Ok(()) }
    }

    /// Gives the directory and what is in it to another user.
    pub(super) fn give_to(&self, uid: Uid, gid: Gid) -> io::Result<()> {
        // The directory last: from then on its content is its new owner's to change.
        for path in [self.path.join(WORK), self.path.join(SCRIPT), self.path.clone()] {
            match lchown(path, Some(uid.as_raw()), Some(gid.as_raw())) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Where the task's script is written.
    pub(super) fn script(&self) -> PathBuf {
        self.path.join(SCRIPT)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that the work directories of all tasks are in, if this task has one.
    pub(super) fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// The task's work directory, if it has one.
    pub(super) fn work_dir(&self) -> Option<PathBuf> {
        self.root.as_ref().map(|_| self.path.join(WORK))
    }

    /// Removes the directory with everything in it, if it is there.
    pub(super) fn remove(&self) -> io::Result<()> {
        remove_tree(&self.path)
    }
}

fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// A failure of a step of the enclosure, without more to say than the system's reason.
pub(super) fn refused(step: &str, error: &io::Error) -> SetupFailure {
    let errno: Errno = errno(error);
    failure(step, errno, errno.desc().to_lowercase())
}
