//! What a task sees of the host's file systems, in a mount namespace of its own.
//!
//! ```text
//! private propagation ─► all read-only ─► /tmp, /var/tmp, /dev/shm empty
//!    ─► the worker's files and other tasks' work hidden ─► writable and read-only paths
//!    ─► /proc of the process id namespace, its switches read-only
//! ```

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::enclosure::Scratch;
use super::sys::{self, MountAttribute};
use crate::task::{Enclosure, Mounts};

/// Parts of /proc by which root changes its host, as container runtimes shut them.
const SWITCHES: [&str; 5] =
    ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs"];

/// A mount that failed, and where.
pub(super) struct MountError {
    pub(super) path: PathBuf,
    pub(super) source: io::Error,
}

/// Arranges the new mount namespace that this process is in.
pub(super) fn arrange(enclosure: &Enclosure, scratch: &Scratch) -> Result<(), MountError> {
    let Enclosure { mounts, namespaces, .. } = enclosure;
    propagate_nothing().map_err(at("/"))?;
    // It may be below what is mounted over next.
    let own = scratch.root().map(|_| open(scratch.path())).transpose();
    let own = own.map_err(at(scratch.path()))?;
    // What the host has made read-only stays so.
    let writable: Vec<&PathBuf> =
        mounts.read_write.iter().filter(|path| !is_read_only(path)).collect();
    if mounts.read_only_root {
        sys::set_mounts(Path::new("/"), MountAttribute::ReadOnly).map_err(at("/"))?;
    }
    for path in private(mounts) {
        empty(&path, 0o1777).map_err(at(&path))?;
    }
    for path in &mounts.hidden {
        hide(path).map_err(at(path))?;
    }
    if let (Some(root), Some(own)) = (scratch.root(), own) {
        show_only(root, scratch.path(), &own).map_err(at(root))?;
    }
    for path in writable {
        again(path, MountAttribute::Writable).map_err(at(path))?;
    }
    for path in &mounts.read_only {
        again(path, MountAttribute::ReadOnly).map_err(at(path))?;
    }
    if namespaces.pid {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        // The worker's would show the host's processes.
        mount(Some("proc"), "/proc", Some("proc"), flags, None::<&str>)
            .map_err(|errno| at("/proc")(errno.into()))?;
    } else if mounts.read_only_root {
        // Each process writes things there that are its own.
        again(Path::new("/proc"), MountAttribute::Writable).map_err(at("/proc"))?;
    }
    let there = |path: &&&str| mounts.read_only_root && Path::new(path).exists();
    for path in SWITCHES.iter().filter(there) {
        again(Path::new(path), MountAttribute::ReadOnly).map_err(at(path))?;
    }
    Ok(())
}

fn at(path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> MountError {
    move |source| MountError { path: path.as_ref().to_owned(), source }
}

/// Whether nothing can be written below a path; one that isn't there is told when it is mounted.
fn is_read_only(path: &Path) -> bool {
    statvfs(path).is_ok_and(|found| found.flags().contains(FsFlags::ST_RDONLY))
}

/// What is mounted here isn't seen by the host, and the other way round.
fn propagate_nothing() -> io::Result<()> {
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    Ok(mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)?)
}

/// The directories that are private, if they are there, and where their links lead.
fn private(mounts: &Mounts) -> BTreeSet<PathBuf> {
    let tmp = ["/tmp", "/var/tmp"].into_iter().filter(|_| mounts.private_tmp);
    let shm = ["/dev/shm"].into_iter().filter(|_| mounts.private_dev_shm);
    tmp.chain(shm).filter_map(|path| std::fs::canonicalize(path).ok()).collect()
}

/// Mounts an empty file system over a directory. Its content is memory of the task's cgroup.
fn empty(path: &Path, mode: u32) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let options = format!("mode={mode:o}");
    Ok(mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options.as_str()))?)
}

/// Puts an empty directory, or /dev/null, over what the task isn't to find.
fn hide(path: &Path) -> io::Result<()> {
    let metadata = match path.metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if metadata.is_dir() {
        return empty(path, 0o711);
    }
    Ok(mount(Some("/dev/null"), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
}

/// Hides what is in a directory, but for one directory in it.
fn show_only(root: &Path, own: &Path, own_file: &File) -> io::Result<()> {
    // If it was below a private /tmp it isn't there any more.
    DirBuilder::new().recursive(true).mode(0o711).create(root)?;
    empty(root, 0o711)?;
    DirBuilder::new().mode(0o700).create(own)?;
    let source = PathBuf::from(format!("/proc/self/fd/{}", own_file.as_raw_fd()));
    mount(Some(&source), own, None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
    sys::set_mounts(own, MountAttribute::Writable)
}

/// Mounts a path on itself, so that it can differ from what is around it.
fn again(path: &Path, attribute: MountAttribute) -> io::Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(path), path, None::<&str>, flags, None::<&str>)?;
    sys::set_mounts(path, attribute)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(path)
}
