//! What the processes of a task may use and reach, as plain data for the executor.
//!
//! **Everything in a [`Sandbox`] is applied, or the launch fails with the name of the step that could
//! not be.** What a host can't do is taken out before, and only where the policy allows that: see
//! [`super::isolation`].

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What the processes of a task may use and reach. The default changes nothing but the umask (022) and
/// the OOM score (0), which are never the worker's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    /// What is prepared before the task is known.
    pub enclosure: Enclosure,
    /// Limits of the task's cgroup; none of them without [`Enclosure::cgroup`].
    pub cgroup: CgroupLimits,
    /// Limits of each process, soft and hard; lowered to the hard limit that is inherited.
    pub rlimits: BTreeMap<Rlimit, u64>,
    /// Permissions that new files don't get.
    pub umask: u32,
    /// Scheduling priority, -20 (first) to 19 (last). None: the worker's.
    pub nice: Option<i32>,
    /// How soon the kernel takes the task when memory runs out, -1000 (never) to 1000 (first). From 0 on
    /// it is a lower bound: a worker's own higher value stays where it may not be lowered.
    pub oom_score_adj: i32,
    /// Who the task runs as. None: the worker's user and groups.
    pub identity: Option<Identity>,
    /// The capabilities that the task keeps at most, such as `CAP_NET_BIND_SERVICE`, also if it runs as
    /// another user than root. None: all that the worker has, but none for another user than root.
    pub capabilities: Option<BTreeSet<String>>,
    /// Whether set-user-id programs and file capabilities give nothing more.
    pub no_new_privs: bool,
    /// The Landlock domain. None: no domain.
    pub landlock: Option<Landlock>,
    /// The system calls that are denied. None: no filter.
    pub seccomp: Option<Seccomp>,
    /// Directories that the working directory has to be in or below. Empty: any.
    pub cwd_roots: Vec<PathBuf>,
}

impl Default for Sandbox {
    fn default() -> Self {
        Self {
            enclosure: Enclosure::default(),
            cgroup: CgroupLimits::default(),
            rlimits: BTreeMap::new(),
            umask: 0o022,
            nice: None,
            oom_score_adj: 0,
            identity: None,
            capabilities: None,
            no_new_privs: false,
            landlock: None,
            seccomp: None,
            cwd_roots: Vec::new(),
        }
    }
}

/// The part of a sandbox that is the same for every task of a runner and is prepared before a task is
/// known, so that its cost is not paid while a task waits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Enclosure {
    /// The delegated cgroup directory below which the task gets a leaf of its own. None: no leaf.
    pub cgroup: Option<PathBuf>,
    /// New namespaces.
    pub namespaces: Namespaces,
    /// What the mount namespace shows; nothing of it without one.
    pub mounts: Mounts,
    /// The directory below which the task gets a private work directory, removed with everything in it
    /// after the task's end. None: no work directory.
    pub work_root: Option<PathBuf>,
}

/// Which namespaces are new for a task.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Namespaces {
    /// User ids: the same ids inside, and no others. For a worker that isn't root, which may make the
    /// other namespaces only so.
    pub user: bool,
    /// Process ids: nothing outside can be seen or signalled, and its end ends everything in it.
    pub pid: bool,
    /// Mounts.
    pub mount: bool,
    /// System V IPC and POSIX message queues.
    pub ipc: bool,
    /// Host name.
    pub uts: bool,
    /// Network: nothing but a loopback interface of its own.
    pub network: bool,
}

impl Namespaces {
    /// Whether any but the user namespace is new.
    pub fn any(self) -> bool {
        self.pid || self.mount || self.ipc || self.uts || self.network
    }
}

/// What a task's mount namespace shows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Mounts {
    /// An empty /tmp and /var/tmp of its own.
    pub private_tmp: bool,
    /// An empty /dev/shm of its own.
    pub private_dev_shm: bool,
    /// Every file system read-only, except the private ones, the work directory, and `read_write`.
    pub read_only_root: bool,
    /// Paths that are read-only; what doesn't exist is an error.
    pub read_only: Vec<PathBuf>,
    /// Paths that stay writable below read-only ones; what doesn't exist is an error.
    pub read_write: Vec<PathBuf>,
    /// Files and directories that are empty; what doesn't exist is skipped.
    pub hidden: Vec<PathBuf>,
}

/// Limits of a cgroup; what is None or empty is not limited.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CgroupLimits {
    /// CPU time: at most so much in each period.
    pub cpu_max: Option<CpuMax>,
    /// Share of the CPU among cgroups that compete, 1 to 10000; 100 is the kernel's default.
    pub cpu_weight: Option<u32>,
    /// Memory in bytes, page cache included; no swap. Past it the kernel kills the whole task.
    pub memory_max: Option<u64>,
    /// Processes and threads.
    pub pids_max: Option<u64>,
    /// By device, in the kernel's syntax: `8:0 rbps=1048576 wiops=120`.
    pub io_max: Vec<String>,
}

impl CgroupLimits {
    /// The controllers that these limits need, by the kernel's names.
    pub fn controllers(&self) -> BTreeSet<&'static str> {
        let needed = [
            ("cpu", self.cpu_max.is_some() || self.cpu_weight.is_some()),
            ("memory", self.memory_max.is_some()),
            ("pids", self.pids_max.is_some()),
            ("io", !self.io_max.is_empty()),
        ];
        needed.into_iter().filter(|(_, needed)| *needed).map(|(name, _)| name).collect()
    }
}

/// A CPU quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuMax {
    /// Microseconds of CPU time in each period; twice the period is two CPUs.
    pub quota_us: u64,
    /// Microseconds, 1000 to 1000000.
    pub period_us: u64,
}

impl CpuMax {
    /// The kernel's default period.
    pub const PERIOD_US: u64 = 100_000;

    /// A quota of so many percent of one CPU, in the kernel's default period.
    pub fn of_percent(percent: u32) -> Self {
        Self { quota_us: u64::from(percent) * Self::PERIOD_US / 100, period_us: Self::PERIOD_US }
    }

    /// Compares how much CPU time two quotas give in the long run.
    pub fn cmp_share(self, other: Self) -> Ordering {
        let share = |quota: u64, period: u64| u128::from(quota) * u128::from(period);
        share(self.quota_us, other.period_us).cmp(&share(other.quota_us, self.period_us))
    }
}

/// A resource of `setrlimit(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rlimit {
    /// Bytes of address space. Programs that reserve much and use little, such as the Go runtime and
    /// the JVM, don't start with it: a cgroup's memory limit is the better one.
    As,
    /// Bytes of a core dump.
    Core,
    /// Seconds of CPU time of each process.
    Cpu,
    /// Bytes of the largest file that can be written.
    Fsize,
    /// Bytes of memory that can be locked.
    Memlock,
    /// One more than the largest file descriptor.
    Nofile,
    /// Processes and threads of the user on the whole host; root is exempt.
    Nproc,
    /// Bytes of the main thread's stack.
    Stack,
}

impl Rlimit {
    /// Every resource.
    pub const ALL: [Self; 8] = [
        Self::As,
        Self::Core,
        Self::Cpu,
        Self::Fsize,
        Self::Memlock,
        Self::Nofile,
        Self::Nproc,
        Self::Stack,
    ];

    /// The name as in the configuration and in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::As => "as",
            Self::Core => "core",
            Self::Cpu => "cpu",
            Self::Fsize => "fsize",
            Self::Memlock => "memlock",
            Self::Nofile => "nofile",
            Self::Nproc => "nproc",
            Self::Stack => "stack",
        }
    }
}

/// Who a task runs as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The user.
    pub user: UserIds,
    /// The group. None: a group with the user's number.
    pub gid: Option<u32>,
    /// The supplementary groups; the worker's are always dropped.
    pub groups: Vec<u32>,
}

impl Identity {
    /// Whether the task is surely root, for which the presets' capabilities are meant.
    pub fn is_root(&self) -> bool {
        self.user == UserIds::One(0)
    }
}

/// Which user ids tasks get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserIds {
    /// All of them the same.
    One(u32),
    /// Each running task one of its own.
    Pool {
        /// The first id.
        first: u32,
        /// How many.
        count: u32,
    },
}

/// A Landlock domain. Whatever else it holds, the task can't trace, nor read the memory, environment
/// or descriptors of, a process outside of it; from Linux 6.15 on one that keeps CAP_PERFMON or
/// CAP_SYS_ADMIN can read environments.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Landlock {
    /// No signals to processes outside of the domain (Linux 6.12).
    pub signal_scope: bool,
    /// No connections to abstract unix sockets of processes outside of the domain (Linux 6.12).
    pub abstract_unix_scope: bool,
    /// No file in /sys can be opened for writing: limits of cgroups are files there, and belong to the
    /// user that the worker and its tasks may share. New files and directories directly in / can't be
    /// written to either. Of no effect with `files`.
    pub sys_read_only: bool,
    /// What files can be reached. None: all.
    pub files: Option<FileRules>,
}

/// The files that can be reached; all others can't.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct FileRules {
    /// Paths that can be read and executed, with everything below them; what doesn't exist is an error.
    pub read_only: Vec<PathBuf>,
    /// Paths that can be changed too; what doesn't exist is an error. The private work directory is one without being named.
    pub read_write: Vec<PathBuf>,
    /// As `read_write`, but what doesn't exist, or can't be reached, is left out and no error.
    pub optional: Vec<PathBuf>,
}

/// A profile of denied system calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seccomp {
    /// What containers are denied by default: mounts, kernel modules, namespaces, key rings, bpf, …
    Standard,
    /// That, and what programs rarely need: tracing, personalities, raw packets and rare sockets, …
    Strict,
}
