//! What is made before a task is known: a user namespace's ids, a cgroup leaf, a place for files.
//!
//! Made by task-init, which also takes it down; the leader enters it. See [`super::leader`].

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, lchown};
use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
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

/// How long ago a directory's last change has to be, so that any later one has another time: file systems
/// that keep parts of a second take it from a clock that ticks every 1 to 10 ms (before Linux 6.13).
const SETTLED_AFTER: SignedDuration = SignedDuration::from_millis(100);

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
    /// Makes it, around the directory of a task before this one, if there is one to be used again.
    pub(super) fn make(
        enclosure: &Enclosure,
        scratch: Option<Scratch>,
    ) -> Result<Self, SetupFailure> {
        let scratch = scratch.map_or_else(|| Scratch::new(enclosure), |old| Ok(old.again()))?;
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

    /// Removes it, but for a directory that nobody has touched.
    pub(super) fn clear(self) -> Option<Scratch> {
        self.leaf.map(Leaf::remove).transpose().ok();
        if self.scratch.is_untouched() {
            return Some(self.scratch);
        }
        self.scratch.remove().ok();
        None
    }
}

/// A private directory of one task, below the runner's work root or the temporary directory. It is made
/// when it is needed.
pub(super) struct Scratch {
    path: PathBuf,
    root: Option<PathBuf>,
    /// The directory and the work directory in it, as they were made.
    made: Option<[Stamp; 2]>,
}

/// What of a directory changes with any change of it or of what is in it.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    mode: u32,
    owner: (u32, u32),
    links: u64,
    /// When the directory or what is in it was changed last, in seconds and nanoseconds since 1970.
    changed: (i64, i64),
    /// Left out when the time alone would tell.
    inside: Option<Inside>,
}

/// What a change may have left in a directory.
#[derive(Debug, PartialEq, Eq)]
struct Inside {
    entries: usize,
    attributes: Vec<u8>,
}

impl Stamp {
    fn of(path: &Path, look_inside: bool) -> io::Result<Self> {
        let found = std::fs::symlink_metadata(path)?;
        Ok(Self {
            device: found.dev(),
            inode: found.ino(),
            mode: found.mode(),
            owner: (found.uid(), found.gid()),
            links: found.nlink(),
            changed: (found.ctime(), found.ctime_nsec()),
            inside: look_inside.then(|| Inside::of(path)).transpose()?,
        })
    }

    /// Whether any change from now on shows in the time.
    fn is_settled(&self) -> bool {
        let (seconds, nanoseconds) = self.changed;
        let age = Timestamp::new(seconds, i32::try_from(nanoseconds).unwrap_or(0))
            .map(|changed| Timestamp::now().duration_since(changed));
        // A file system without parts of a second has 0.
        nanoseconds != 0 && age.is_ok_and(|age| age > SETTLED_AFTER)
    }
}

impl Inside {
    fn of(path: &Path) -> io::Result<Self> {
        let mut attributes = Vec::with_capacity(256);
        match rustix::fs::llistxattr(path, rustix::buffer::spare_capacity(&mut attributes)) {
            // A file system without them.
            Ok(_) | Err(rustix::io::Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Self { entries: std::fs::read_dir(path)?.count(), attributes })
    }
}

impl Scratch {
    /// Chooses a name, and makes the directory if the task gets a work directory.
    pub(super) fn new(enclosure: &Enclosure) -> Result<Self, SetupFailure> {
        let name = format!("runlane-{}", uuid::Uuid::new_v4().simple());
        let root = enclosure.work_root.clone();
        let place = root.clone().unwrap_or_else(std::env::temp_dir);
        let mut scratch = Self { path: place.join(name), root, made: None };
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
            // Without them it is a new one for each task.
            scratch.made = scratch.stamps(true).ok();
        }
        Ok(scratch)
    }

    /// One that was made before, to be removed.
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path, root: None, made: None }
    }

    fn stamps(&self, look_inside: bool) -> io::Result<[Stamp; 2]> {
        let stamp = |path: &Path| Stamp::of(path, look_inside);
        Ok([stamp(&self.path)?, stamp(&self.path.join(WORK))?])
    }

    /// The same for another task: what was looked at inside needn't be again once it is old enough.
    fn again(mut self) -> Self {
        if let Some(made) = &mut self.made
            && made.iter().all(Stamp::is_settled)
        {
            made.iter_mut().for_each(|stamp| stamp.inside = None);
        }
        self
    }

    /// Whether the work directory is as good as a new one.
    fn is_untouched(&self) -> bool {
        self.made.as_ref().is_some_and(|made| {
            let look_inside = made.iter().any(|stamp| stamp.inside.is_some());
            self.stamps(look_inside).is_ok_and(|now| now == *made)
        })
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

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn an_older_directory_is_looked_at_from_outside_and_every_change_shows() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let work_root = Some(root.path().to_owned());
        let enclosure = Enclosure { work_root, ..Enclosure::default() };
        let looks_inside = |scratch: &Scratch| {
            scratch.made.as_ref().expect("it is made").iter().all(|stamp| stamp.inside.is_some())
        };
        let changes: [fn(&Path); 3] = [
            |work| std::fs::write(work.join("x"), "").expect("it is written"),
            |work| std::fs::write(work.with_file_name("x"), "").expect("it is written"),
            |work| {
                std::fs::set_permissions(work, Permissions::from_mode(0o700)).expect("it is set")
            },
        ];
        for change in changes {
            let young = Scratch::new(&enclosure).expect("it can be made").again();
            assert!(looks_inside(&young) && young.is_untouched());
            let (mut older, start) = (young, Instant::now());
            while looks_inside(&older) {
                assert!(start.elapsed() < Duration::from_secs(10), "{:?}", older.made);
                older = older.again();
            }
            assert!(start.elapsed() > Duration::from_millis(50) && older.is_untouched());
            change(&older.work_dir().expect("it has one"));
            assert!(!older.is_untouched());
        }
    }
}
