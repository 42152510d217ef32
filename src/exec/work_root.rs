//! Where private work directories are made, and the removal of those that a killed worker left.
//!
//! ```text
//! <root>/            0711: nobody else can list it, a task's own user can pass
//!   worker-<pid>-<random>/  0711, locked while the worker lives
//!     runlane-<id>/         0700, one per task: see `init::enclosure`
//! ```

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// How often another directory is made if another worker removes it before it is locked.
const TRIES: usize = 8;

/// A worker's own directory for work directories, locked until it is dropped.
#[derive(Debug)]
pub struct WorkRoot {
    path: PathBuf,
    _lock: Flock<File>,
}

/// A work root can't be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {} for work directories: {why}", path.display())]
pub struct WorkRootError {
    /// The directory.
    pub path: PathBuf,
    /// Why, and what to do about it.
    pub why: String,
}

impl WorkRoot {
    /// Makes this process's directory below `root`, which is made too if it is missing, and removes
    /// what dead workers have left there.
    ///
    /// # Errors
    /// The directory can't be made, or somebody else could change it: then its tasks' files weren't
    /// safe there.
    pub fn open(root: &Path) -> Result<Self, WorkRootError> {
        let fail = |why: String| WorkRootError { path: root.to_owned(), why };
        DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(root)
            .map_err(|error| fail(error.to_string()))?;
        let metadata = root.symlink_metadata().map_err(|error| fail(error.to_string()))?;
        let own = nix::unistd::geteuid().as_raw();
        if !metadata.is_dir() || metadata.uid() != own || metadata.mode() & 0o022 != 0 {
            let why = "it has to be a directory of the worker's user that nobody else can write to";
            return Err(fail(why.to_owned()));
        }
        remove_stale(root);
        for _ in 0..TRIES {
            // The process id is for people; in containers it is often 1.
            let random = uuid::Uuid::new_v4().simple().to_string();
            let path = root.join(format!("worker-{}-{}", std::process::id(), &random[..8]));
            match make_and_lock(&path).map_err(|error| fail(error.to_string()))? {
                Some(lock) => return Ok(Self { path, _lock: lock }),
                None => continue,
            }
        }
        Err(fail("other workers remove what is made there".to_owned()))
    }

    /// The directory, for [`crate::task::Enclosure::work_root`].
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for WorkRoot {
    /// Tasks that are still being cleaned up keep it from being removed; the next worker does it.
    fn drop(&mut self) {
        std::fs::remove_dir(&self.path).ok();
    }
}

/// Makes a directory and locks it. None: another worker, which starts at the same time, was faster
/// with its lock and has removed it.
fn make_and_lock(path: &Path) -> io::Result<Option<Flock<File>>> {
    DirBuilder::new().create(path)?;
    // Whatever the umask is.
    std::fs::set_permissions(path, Permissions::from_mode(0o711)).ok();
    let Ok(lock) = lock(path) else { return Ok(None) };
    let is_there = path
        .symlink_metadata()
        .is_ok_and(|found| lock.metadata().is_ok_and(|locked| locked.ino() == found.ino()));
    Ok(is_there.then_some(lock))
}

fn lock(path: &Path) -> io::Result<Flock<File>> {
    let file = File::open(path)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| errno.into())
}

/// Removes the directories that no living worker has locked. What can't be removed stays: it is in
/// nobody's way.
fn remove_stale(root: &Path) {
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("worker-")
            && let Ok(_lock) = lock(&entry.path())
            && let Err(error) = super::init::remove_tree(&entry.path())
        {
            tracing::warn!(path = %entry.path().display(), %error, "cannot remove what a dead worker left");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_worker_left_is_removed_and_a_living_ones_directory_is_not() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let living = root.path().join("worker-1");
        let _lock = make_and_lock(&living).expect("it can be made").expect("it is locked");
        std::fs::create_dir_all(root.path().join("worker-2/runlane-x/work")).expect("it is ours");
        std::fs::create_dir(root.path().join("else")).expect("it is ours");
        let own = WorkRoot::open(root.path()).expect("it is ours");
        assert_eq!(own.path().metadata().expect("it is there").mode() & 0o777, 0o711);
        let mut left: Vec<_> = std::fs::read_dir(root.path())
            .expect("it is there")
            .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
            .collect();
        left.sort();
        let own_name = own.path().file_name().expect("it has one").to_str().expect("text");
        let mut expected = ["else", "worker-1", own_name];
        expected.sort_unstable();
        assert_eq!(left, expected);
        let path = own.path().to_owned();
        drop(own);
        assert!(!path.exists());
    }

    #[test]
    fn a_root_that_others_can_write_to_is_refused() {
        let root = tempfile::tempdir().expect("a temporary directory");
        std::fs::set_permissions(root.path(), Permissions::from_mode(0o777)).expect("it is ours");
        let error = WorkRoot::open(root.path()).expect_err("others could plant links there");
        assert!(error.to_string().contains("nobody else can write"), "{error}");
        let link = root.path().join("link");
        std::os::unix::fs::symlink("/", &link).expect("it is writable");
        WorkRoot::open(&link).expect_err("a link is another's choice");
    }
}
