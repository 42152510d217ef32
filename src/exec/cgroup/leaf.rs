//! The cgroup of one attempt.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::stat::Mode;

use super::dir::Dir;
use super::parse;
use serde::{Deserialize, Serialize};

use crate::task::CgroupLimits;

/// Bytes past which the kernel says `max` of a memory limit; see page_counter.h.
const MEMORY_UNLIMITED: u64 = i64::MAX.cast_unsigned() - 0xffff;

/// A cgroup of its own for one attempt: killed at most once, then removed, never used again.
///
/// It holds descriptors of its directories, so that mounts made after it don't hide it. Dropping it
/// leaves the cgroup behind.
#[derive(Debug)]
#[must_use = "without `remove` the cgroup stays until another worker cleans up"]
pub struct Leaf {
    base: PathBuf,
    parent: Dir,
    dir: Dir,
    name: String,
}

/// What the processes of a leaf have used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LeafUsage {
    /// CPU time in programs.
    pub cpu_user: Option<Duration>,
    /// CPU time in the kernel.
    pub cpu_system: Option<Duration>,
    /// The most memory at once, in bytes, page cache included. None without the memory controller, and
    /// before Linux 5.19.
    pub memory_peak_bytes: Option<u64>,
    /// Processes that the kernel killed for want of memory, or kills of the whole leaf if these are
    /// more; 0 without the memory controller.
    pub oom_kills: u64,
    /// Forks that failed at the limit of processes; 0 without the pids controller.
    pub pids_max_hits: u64,
}

/// A limit could not be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {}", errno.desc().to_lowercase())]
pub struct LimitError {
    /// The cgroup's file. One that doesn't exist: the controller isn't on.
    pub file: &'static str,
    /// Why. ERANGE also when the kernel made something else of the value.
    pub errno: Errno,
}

impl Leaf {
    /// Makes a leaf below a directory of [`super::Base::leaves`].
    ///
    /// # Errors
    /// The directory doesn't exist, may not be written, or has as many cgroups as it may have.
    pub fn create(base: &Path) -> io::Result<Self> {
        let parent = Dir::open(base)?;
        // Not the process's id: in a process id namespace of its own each is 1.
        let name = format!("task-{}", uuid::Uuid::new_v4().simple());
        parent
            .make(&name, Mode::from_bits_truncate(0o755))
            .map(|dir| Self { base: base.to_owned(), dir, parent, name })
            .map_err(io::Error::from)
    }

    /// Opens a leaf that was made before.
    ///
    /// # Errors
    /// There is none at this path.
    pub fn open(path: &Path) -> io::Result<Self> {
        let (Some(base), Some(name)) = (path.parent(), path.file_name().and_then(OsStr::to_str))
        else {
            return Err(Errno::ENOENT.into());
        };
        let parent = Dir::open(base)?;
        let dir = parent.child(name)?;
        Ok(Self { base: base.to_owned(), dir, parent, name: name.to_owned() })
    }

    /// Where the leaf is.
    pub fn path(&self) -> PathBuf {
        self.base.join(&self.name)
    }

    /// The leaf's name in the directory that it was made in.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Moves the calling process into the leaf, with all its threads. It takes up to some 20 ms: the
    /// kernel waits for a grace period.
    ///
    /// # Errors
    /// EACCES: the process isn't in the delegated part of the tree and isn't root.
    pub fn join(&self) -> io::Result<()> {
        Ok(self.dir.write("cgroup.procs", "0")?)
    }

    /// Sets every limit that is given, and looks at what the kernel made of those that it rounds.
    ///
    /// # Errors
    /// The first file that could not be written. Limits before it are set.
    pub fn limit(&self, limits: &CgroupLimits) -> Result<(), LimitError> {
        let CgroupLimits { cpu_max, cpu_weight, memory_max, pids_max, io_max } = limits;
        if let Some(cpu) = cpu_max {
            self.set("cpu.max", &format!("{} {}", cpu.quota_us, cpu.period_us))?;
        }
        if let Some(weight) = cpu_weight {
            self.set("cpu.weight", &weight.to_string())?;
        }
        if let Some(bytes) = memory_max {
            self.limit_memory(*bytes)?;
        }
        if let Some(processes) = pids_max {
            self.set("pids.max", &processes.to_string())?;
            self.expect("pids.max", |set| set == processes.to_string())?;
        }
        io_max.iter().try_for_each(|device| self.set("io.max", device))
    }

    fn limit_memory(&self, bytes: u64) -> Result<(), LimitError> {
        self.set("memory.max", &bytes.to_string())?;
        // Down to whole pages.
        self.expect("memory.max", |set| match set.parse::<u64>() {
            Ok(set) => set <= bytes && bytes - set <= 0xffff,
            Err(_) => set == "max" && bytes >= MEMORY_UNLIMITED,
        })?;
        match self.set("memory.swap.max", "0") {
            // A kernel without swap has no such file, and needs none.
            Err(LimitError { errno: Errno::ENOENT, .. }) if !has_swap() => {}
            done => done?,
        }
        self.set("memory.oom.group", "1")
    }

    fn set(&self, file: &'static str, value: &str) -> Result<(), LimitError> {
        self.dir.write(file, value).map_err(|errno| LimitError { file, errno })
    }

    fn expect(&self, file: &'static str, good: impl Fn(&str) -> bool) -> Result<(), LimitError> {
        let set = self.dir.read(file).map_err(|errno| LimitError { file, errno })?;
        if good(set.trim_end()) { Ok(()) } else { Err(LimitError { file, errno: Errno::ERANGE }) }
    }

    /// Kills every process in the leaf and below, whatever they do. Before Linux 5.14: freezes them,
    /// kills each, and takes up to 5 s for it. Another time does no harm.
    ///
    /// # Errors
    /// The kernel refuses; ETIMEDOUT before 5.14.
    pub fn kill(&self) -> io::Result<()> {
        self.dir.kill()
    }

    /// Waits until the leaf and what is below it has no process but zombies. False: not within the
    /// limit, as when one hangs in the kernel.
    ///
    /// # Errors
    /// `cgroup.events` can't be read.
    pub fn wait_empty(&self, limit: Duration) -> io::Result<bool> {
        self.dir.wait_empty(limit)
    }

    /// Reads what its processes have used until now. What the kernel doesn't count is None or 0.
    pub fn usage(&self) -> LeafUsage {
        let read = |file| self.dir.read(file).unwrap_or_default();
        let cpu = read("cpu.stat");
        let time = |key| parse::value(&cpu, key).map(Duration::from_micros);
        let memory = read("memory.events");
        let kills = |key| parse::value(&memory, key).unwrap_or(0);
        LeafUsage {
            cpu_user: time("user_usec"),
            cpu_system: time("system_usec"),
            memory_peak_bytes: read("memory.peak").trim_end().parse().ok(),
            oom_kills: kills("oom_kill").max(kills("oom_group_kill")),
            pids_max_hits: parse::value(&read("pids.events"), "max").unwrap_or(0),
        }
    }

    /// Removes the leaf. Processes that are still there are killed and waited for, up to 5 s, and
    /// cgroups that the task has made below are removed.
    ///
    /// # Errors
    /// EBUSY: a process doesn't end.
    pub fn remove(self) -> io::Result<()> {
        self.parent.remove(&self.name)
    }

    /// The descriptor of `cgroup.procs`: whoever writes 0 to it joins.
    pub(super) fn entrance(&self) -> Result<std::fs::File, Errno> {
        self.dir.file("cgroup.procs", nix::fcntl::OFlag::O_WRONLY)
    }

    /// `domain`, if processes with limits can be in it.
    pub(super) fn kind(&self) -> Result<String, Errno> {
        Ok(self.dir.read("cgroup.type")?.trim_end().to_owned())
    }
}

/// Whether the host has swap, of which /proc/swaps has a line each after its heading.
fn has_swap() -> bool {
    std::fs::read_to_string("/proc/swaps").is_ok_and(|swaps| swaps.lines().count() > 1)
}
