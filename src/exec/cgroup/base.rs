//! The cgroup that the leaves of a worker's tasks are made in.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::Mode;

use super::super::init::sys;
use super::controllers;
use super::dir::{Dir, errno};
use super::leaf::Leaf;
use super::place::{self, Place};
use super::stale;
use crate::task::Feature;

/// What the name of each worker's directory begins with.
pub(super) const PREFIX: &str = "runlane-";

/// The directory, in a worker's, that the worker moves itself to.
pub(super) const SELF: &str = "self";

/// How often another name is tried when another worker's clean-up was faster than the lock.
const TRIES: usize = 8;

/// Where a worker's cgroups are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CgroupSetting {
    /// In the worker's own cgroup, if that is delegated to it.
    Auto,
    /// In this directory of a cgroup2 file system; its last part is made if it is missing. Several
    /// workers may have the same.
    Directory(PathBuf),
}

/// No cgroup can be made for tasks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CgroupError {
    /// The kernel, or the container, has no version 2.
    #[error("no cgroup2 file system is mounted")]
    NotMounted,
    /// As with a container's default.
    #[error("{} is read-only, as in most containers: it takes a writable cgroup tree", directory.display())]
    ReadOnly {
        /// The directory.
        directory: PathBuf,
    },
    /// The mounted tree belongs to another cgroup namespace, or is a part of the whole.
    #[error("no mounted cgroup2 file system shows the worker's own cgroup {}", cgroup.display())]
    Elsewhere {
        /// As in /proc/self/cgroup.
        cgroup: PathBuf,
    },
    /// The whole host's, or a container's, which is never taken over unasked.
    #[error("the root of the cgroup tree is never taken over: {HELP}")]
    Root,
    /// Somebody else manages it.
    #[error("{} is not delegated to the worker: {HELP}", directory.display())]
    NotDelegated {
        /// The worker's own cgroup.
        directory: PathBuf,
    },
    /// A configured directory is on another file system.
    #[error("{} is not on a cgroup2 file system", directory.display())]
    NotCgroup2 {
        /// The directory.
        directory: PathBuf,
    },
    /// A child of the worker can't be put into a leaf.
    #[error("processes can't be put into {}: {why}", directory.display())]
    Join {
        /// The leaf's.
        directory: PathBuf,
        /// The system's error, or the kind of cgroup that it is.
        why: String,
    },
    /// Anything else.
    #[error("{}: can't {action}: {}", directory.display(), errno.desc().to_lowercase())]
    Failed {
        /// The file or directory.
        directory: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The system's error.
        errno: Errno,
    },
}

/// What an operator can do.
const HELP: &str =
    "set Delegate=yes in the worker's systemd unit, or name a directory as worker.cgroup";

impl CgroupError {
    pub(super) fn failed(directory: &Path, action: &'static str, errno: Errno) -> Self {
        Self::Failed { directory: directory.to_owned(), action, errno }
    }

    /// The features that the host lacks with it, and why.
    pub fn missing(&self) -> BTreeMap<Feature, String> {
        let controllers = controllers::FEATURES.map(|(_, feature)| feature);
        let all = controllers.into_iter().chain([Feature::Cgroup]);
        all.map(|feature| (feature, self.to_string())).collect()
    }
}

/// The directory of a dead worker that could not be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stale {
    /// The directory.
    pub directory: PathBuf,
    /// Why: EBUSY when one of its processes does not end.
    pub errno: Errno,
}

/// A worker's place in the cgroup tree, held until it is closed or dropped, or the process ends.
#[derive(Debug)]
pub struct Base {
    base: Dir,
    leaves: PathBuf,
    name: String,
    controllers: BTreeSet<&'static str>,
    missing: BTreeMap<Feature, String>,
    stale: Vec<Stale>,
    lock: File,
}

impl Base {
    /// Takes over the cgroup of the setting: makes this worker's directory in it, moves the process out
    /// of the way where controllers can be enabled, enables them, reads them back, lets a child join a
    /// leaf as a proof, and ends what dead workers have left. Takes some 50 ms, or up to 5 s for each dead
    /// worker whose processes don't end. To be called once, before the worker starts any process.
    ///
    /// # Errors
    /// No leaf can be made and joined there. A controller that can't be had is no error, but in
    /// [`Self::missing`].
    pub fn open(setting: &CgroupSetting) -> Result<Self, CgroupError> {
        let place = Place::read();
        let (place, directory) = match setting {
            CgroupSetting::Auto => place?.delegated()?,
            // A directory can be named where the worker's own isn't seen.
            CgroupSetting::Directory(path) => {
                let directory = place::configured(path)?;
                (place?, directory)
            }
        };
        let base = Dir::open(&directory)
            .map_err(|error| CgroupError::failed(&directory, "open it", error))?;
        let mut taken = Self::hold(base, &directory)?;
        if let Err(error) = taken.set_up(&place, &directory) {
            taken.close();
            return Err(error);
        }
        Ok(taken)
    }

    /// The directory for [`Leaf::create`], and for [`crate::task::Enclosure::cgroup`].
    pub fn leaves(&self) -> &Path {
        &self.leaves
    }

    /// The controllers that leaves have, by the kernel's names.
    pub fn controllers(&self) -> &BTreeSet<&'static str> {
        &self.controllers
    }

    /// The controllers that leaves don't have, and why.
    pub fn missing(&self) -> &BTreeMap<Feature, String> {
        &self.missing
    }

    /// What dead workers have left and could not be removed.
    pub fn stale(&self) -> &[Stale] {
        &self.stale
    }

    /// Ends every process in the worker's leaves and removes them, and the worker's directory unless the
    /// worker itself is in it; then the next worker removes it. It is best effort for the same reason.
    pub fn close(self) {
        let Ok(dir) = self.base.child(&self.name) else { return };
        for name in dir.children().unwrap_or_default() {
            if name != SELF {
                dir.remove(&name).ok();
            }
        }
        self.base.remove_empty(&self.name).ok();
    }

    /// Makes a directory of a name of its own, and locks it.
    fn hold(base: Dir, directory: &Path) -> Result<Self, CgroupError> {
        let failed = |action| move |error| CgroupError::failed(directory, action, error);
        for _ in 0..TRIES {
            let random = uuid::Uuid::new_v4().simple().to_string();
            let name = format!("{PREFIX}{}-{}", std::process::id(), &random[..8]);
            // Tasks of other users may pass through it to read their own limits, as language runtimes
            // do, but not open it: who can open it can lock it.
            base.make_unopened(&name, Mode::from_bits_truncate(0o711))
                .map_err(failed("make a cgroup in it"))?;
            if let Some(lock) = stale::lock(&base, &name).map_err(failed("lock a cgroup in it"))? {
                return Ok(Self {
                    leaves: directory.join(&name),
                    base,
                    name,
                    controllers: BTreeSet::new(),
                    missing: BTreeMap::new(),
                    stale: Vec::new(),
                    lock,
                });
            }
        }
        Err(failed("lock a cgroup in it")(Errno::EWOULDBLOCK))
    }

    fn set_up(&mut self, place: &Place, directory: &Path) -> Result<(), CgroupError> {
        let failed = |action| move |error| CgroupError::failed(directory, action, error);
        let within = self.base.processes().map_err(failed("list its processes"))?;
        let own = std::process::id().cast_signed();
        let strangers: Vec<i32> = within.iter().copied().filter(|pid| *pid != own).collect();
        let wanted = controllers::available(&self.base).map_err(failed("read its controllers"))?;
        let in_the_way = within.contains(&own) && strangers.is_empty() && !wanted.is_empty();
        if in_the_way || place.is_in_worker_of(directory) {
            self.move_self().map_err(failed("move the worker to a cgroup in it"))?;
        }
        self.stale = stale::end(&self.base, directory, &self.name);
        let worker = self.base.child(&self.name).map_err(failed("open a cgroup in it"))?;
        let levels = [(&self.base, directory), (&worker, self.leaves.as_path())];
        (self.controllers, self.missing) = controllers::enable(levels, &strangers, place);
        self.prove()
    }

    /// Moves this process to a leaf of its own in the worker's directory.
    fn move_self(&self) -> Result<(), Errno> {
        let worker = self.base.child(&self.name)?;
        let dir = worker.make(SELF, Mode::from_bits_truncate(0o755))?;
        let lock = self.lock.try_clone().map_err(errno)?;
        let moved = dir.write("cgroup.procs", "0");
        if moved.is_ok() {
            // Whoever gets the lock kills this process with the rest: it is held to the process's end.
            std::mem::forget(lock);
        } else {
            worker.remove_empty(SELF)?;
        }
        moved
    }

    /// Puts a process into a leaf, and removes the leaf.
    fn prove(&self) -> Result<(), CgroupError> {
        let leaf = Leaf::create(&self.leaves).map_err(|error| {
            CgroupError::failed(&self.leaves, "make a leaf in it", errno(error))
        })?;
        let joined = leaf.entrance().map_err(io::Error::from);
        let joined = joined.and_then(|procs| sys::join_in_child(std::os::fd::AsFd::as_fd(&procs)));
        let kind = leaf.kind();
        let directory = self.leaves.join(leaf.name());
        let removed = leaf.remove();
        let why = match (joined, kind) {
            (Err(error), _) => errno(error).desc().to_lowercase(),
            (Ok(()), Err(errno)) => errno.desc().to_lowercase(),
            // As after a controller was enabled where processes are: `domain invalid`, among others.
            (Ok(()), Ok(kind)) if kind != "domain" => format!("it is of the kind '{kind}'"),
            (Ok(()), Ok(_)) => {
                return removed.map_err(|error| {
                    CgroupError::failed(&directory, "remove a leaf", errno(error))
                });
            }
        };
        Err(CgroupError::Join { directory, why })
    }
}
