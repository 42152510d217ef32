//! What somebody wrote of a sandbox. What isn't written is as in the preset.

use std::path::PathBuf;

use serde::Deserialize;

use crate::config::raw::{RawInherit, RawSize};

/// Single settings of a runner's isolation; they override its preset.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawSandbox {
    /// Features that may be missing on the host.
    pub best_effort: Option<Vec<String>>,
    /// Limits of each process.
    pub rlimits: RawRlimits,
    /// The task's cgroup and its limits.
    pub cgroup: RawCgroup,
    /// The user that tasks run as.
    pub user: Option<RawId>,
    /// Their group.
    pub group: Option<RawId>,
    /// Their supplementary groups.
    pub groups: Option<Vec<RawId>>,
    /// A range of users, one for each running task.
    pub uid_pool: Option<String>,
    /// Permissions that new files don't get, in octal.
    pub umask: Option<String>,
    /// Scheduling priority.
    pub nice: Option<i64>,
    /// How soon the kernel takes the task when memory runs out.
    pub oom_score_adj: Option<i64>,
    /// The capabilities that tasks keep at most.
    pub capabilities: Option<RawInherit>,
    /// Whether set-user-id programs give nothing more.
    pub no_new_privs: Option<bool>,
    /// The profile of denied system calls.
    pub seccomp: Option<String>,
    /// Whether tasks get a Landlock domain.
    pub landlock: Option<bool>,
    /// Paths that can be read.
    pub read_only: Option<Vec<PathBuf>>,
    /// Paths that can be changed.
    pub read_write: Option<Vec<PathBuf>>,
    /// New namespaces.
    pub namespaces: Option<Vec<String>>,
    /// `host` or `none`.
    pub network: Option<String>,
    /// An own /tmp and /var/tmp.
    pub private_tmp: Option<bool>,
    /// An own /dev/shm.
    pub private_dev_shm: Option<bool>,
    /// A read-only view of all file systems.
    pub read_only_root: Option<bool>,
    /// Whether tasks get a private work directory.
    pub work_dir: Option<bool>,
    /// Where working directories may be.
    pub cwd_roots: Option<Vec<PathBuf>>,
}

/// Limits of each process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawRlimits {
    /// Address space.
    pub r#as: Option<RawLimit>,
    /// Core dumps.
    pub core: Option<RawLimit>,
    /// CPU time.
    pub cpu: Option<RawLimit>,
    /// File size.
    pub fsize: Option<RawLimit>,
    /// Locked memory.
    pub memlock: Option<RawLimit>,
    /// File descriptors.
    pub nofile: Option<RawLimit>,
    /// Processes of the user.
    pub nproc: Option<RawLimit>,
    /// Stack.
    pub stack: Option<RawLimit>,
}

/// The task's cgroup and its limits.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RawCgroup {
    /// Whether tasks get a cgroup at all.
    pub leaf: Option<bool>,
    /// CPU time.
    pub cpu_max: Option<String>,
    /// Share of the CPU.
    pub cpu_weight: Option<u64>,
    /// Memory.
    pub memory_max: Option<RawSize>,
    /// Processes and threads.
    pub pids_max: Option<u64>,
    /// Input and output, by device.
    pub io_max: Option<Vec<String>>,
}

/// A whole number, or a text such as `"1GiB"` or `"unlimited"`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a whole number or a text such as \"1GiB\" or \"unlimited\""
)]
pub enum RawLimit {
    /// In the limit's own unit.
    Number(u64),
    /// With a unit, or `unlimited`.
    Text(String),
}

/// A user or a group, by number or name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected a number or a name")]
pub enum RawId {
    /// The number.
    Number(u32),
    /// The name.
    Name(String),
}
