//! Which cgroup is the worker's own, and whether it is delegated to the worker.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::unistd::geteuid;

use super::super::init::sys;
use super::base::{CgroupError, PREFIX, SELF};
use super::parse;

/// What systemd marks a delegated cgroup with: readable by root, and since version 251 by all.
const MARKS: [&std::ffi::CStr; 2] = [c"trusted.delegate", c"user.delegate"];

/// Where this process is.
#[derive(Debug)]
pub(super) struct Place {
    /// Its cgroup, as in /proc/self/cgroup.
    pub(super) cgroup: PathBuf,
    /// The directory of its cgroup.
    pub(super) directory: Result<PathBuf, CgroupError>,
    read_only: bool,
    /// The text of /proc/self/cgroup.
    text: String,
}

impl Place {
    pub(super) fn read() -> Result<Self, CgroupError> {
        let read = |path: &str| {
            let read = fs::read_to_string(path).map_err(super::dir::errno);
            read.map_err(|errno| CgroupError::failed(Path::new(path), "read it", errno))
        };
        let (mountinfo, text) = (read("/proc/self/mountinfo")?, read("/proc/self/cgroup")?);
        let mounts = parse::mounts(&mountinfo);
        let cgroup = parse::own(&text).ok_or(CgroupError::NotMounted)?;
        if mounts.is_empty() {
            return Err(CgroupError::NotMounted);
        }
        let mut shown = mounts.iter().filter_map(|mount| {
            parse::shown_at(mount, &cgroup).map(|directory| (mount.read_only, directory))
        });
        let best = shown.clone().find(|(read_only, _)| !read_only).or_else(|| shown.next());
        let read_only = best.as_ref().is_some_and(|(read_only, _)| *read_only);
        let elsewhere = || CgroupError::Elsewhere { cgroup: cgroup.clone() };
        let directory = best.map(|(_, directory)| directory).ok_or_else(elsewhere);
        Ok(Self { cgroup, directory, read_only, text })
    }

    /// The cgroup that is delegated to this process: its own, the one that systemd's
    /// `DelegateSubgroup=` is in, or the one that an earlier worker of this process id has moved out of.
    pub(super) fn delegated(self) -> Result<(Self, PathBuf), CgroupError> {
        let own = self.directory.clone()?;
        if self.read_only {
            return Err(CgroupError::ReadOnly { directory: own });
        }
        let above = |levels: usize| self.cgroup.ancestors().nth(levels).is_some_and(is_not_root);
        let ancestor = |levels: usize| own.ancestors().nth(levels).map(Path::to_owned);
        if !above(0) {
            return Err(CgroupError::Root);
        }
        let mine = if is_worker_self(&self.cgroup) && above(2) { ancestor(2) } else { None };
        let mine = mine.unwrap_or_else(|| own.clone());
        let is_subgroup = above(1) && !is_unit(&self.cgroup);
        let parent = ancestor(1).filter(|parent| is_subgroup && is_marked(parent));
        let base = match parent {
            _ if is_marked(&mine) => mine,
            Some(parent) => parent,
            None if is_owned(&mine) => mine,
            None => return Err(CgroupError::NotDelegated { directory: mine }),
        };
        Ok((self, base))
    }

    /// Whether the process is in a directory that an earlier worker of it has made in the base.
    pub(super) fn is_in_worker_of(&self, base: &Path) -> bool {
        let own = self.directory.as_ref().ok();
        let below = own.and_then(|own| own.strip_prefix(base).ok());
        below.is_some_and(|below| below.components().count() == 2 && is_worker_self(below))
    }

    /// Whether a version 1 hierarchy has the controller.
    pub(super) fn in_version_1(&self, controller: &str) -> bool {
        parse::in_version_1(&self.text, controller)
    }
}

/// The directory of a setting; made if it is missing, in a directory that is there.
pub(super) fn configured(directory: &Path) -> Result<PathBuf, CgroupError> {
    let failed = |errno| CgroupError::failed(directory, "create it", errno);
    match nix::unistd::mkdir(directory, nix::sys::stat::Mode::from_bits_truncate(0o755)) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(Errno::EROFS) => {
            return Err(CgroupError::ReadOnly { directory: directory.to_owned() });
        }
        Err(error) => return Err(failed(error)),
    }
    let real = fs::canonicalize(directory).map_err(|error| failed(super::dir::errno(error)))?;
    let kind = statfs(&real).map_err(failed)?.filesystem_type();
    if kind != CGROUP2_SUPER_MAGIC {
        return Err(CgroupError::NotCgroup2 { directory: real });
    }
    // The root of the tree alone has no such file; that of a cgroup namespace has it.
    if !real.join("cgroup.type").exists() {
        return Err(CgroupError::Root);
    }
    Ok(real)
}

fn is_not_root(cgroup: &Path) -> bool {
    cgroup.parent().is_some()
}

/// Whether systemd manages the cgroup itself: what is marked above it is then delegated to a manager.
fn is_unit(cgroup: &Path) -> bool {
    let kind = cgroup.extension().and_then(|kind| kind.to_str());
    kind.is_some_and(|kind| matches!(kind, "service" | "scope" | "slice"))
}

/// Whether the path ends as [`super::base`] names the directory that a worker moves itself to.
fn is_worker_self(cgroup: &Path) -> bool {
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let parent = cgroup.parent().and_then(name);
    name(cgroup).is_some_and(|name| name == SELF)
        && parent.is_some_and(|parent| parent.starts_with(PREFIX))
}

fn is_marked(directory: &Path) -> bool {
    MARKS.iter().any(|mark| sys::attribute(directory, mark).is_ok_and(|value| value == b"1"))
}

/// Root owns every cgroup, so that for root it says nothing.
fn is_owned(directory: &Path) -> bool {
    let user = geteuid();
    let owner = fs::metadata(directory).map(|metadata| metadata.uid());
    !user.is_root() && owner.is_ok_and(|owner| owner == user.as_raw())
}
