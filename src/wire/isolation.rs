//! What a task asks of its isolation. It can only tighten what its runner gives: of two limits the
//! smaller one counts, and a wish that the worker's host can't fulfil ends the task as `rejected`.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How much a task is shut off from its host; docs/isolation.md has each preset's table.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Default,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum Preset {
    /// Nothing but a session of its own and the kill of everything it leaves behind.
    #[default]
    None,
    /// What nearly every program can live with, also for a worker that isn't root.
    Standard,
    /// Namespaces, a read-only file system and no capabilities, for programs that aren't trusted.
    Strict,
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Standard => "standard",
            Self::Strict => "strict",
        })
    }
}

/// What a task asks for beyond its runner's isolation. It never loosens anything.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IsolationSpec {
    /// At least this preset. One that isn't stricter than the runner's changes nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// What of the network it can reach. None: what its runner allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// Bytes of memory of all its processes, page cache included; past it the whole task is killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1_048_576))]
    pub memory_max_bytes: Option<u64>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub pids_max: Option<u64>,
    /// CPU time in percent of one CPU: 150 is one and a half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub cpu_max_percent: Option<u32>,
    /// Limits of each process, soft and hard (`setrlimit(2)`).
    #[serde(default, skip_serializing_if = "RlimitSpec::is_empty")]
    pub rlimits: RlimitSpec,
}

/// What of the network a task can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Network {
    /// Nothing but a loopback interface of its own.
    None,
}

/// Limits of each process, soft and hard (`setrlimit(2)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RlimitSpec {
    /// Bytes of address space. The Go runtime and the JVM reserve much and use little: they don't
    /// start with it; prefer `memoryMaxBytes`.
    #[serde(rename = "as", default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1_048_576))]
    pub address_space: Option<u64>,
    /// Bytes of a core dump.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub core: Option<u64>,
    /// Seconds of CPU time of each process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub cpu: Option<u64>,
    /// Bytes of the largest file that can be written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fsize: Option<u64>,
    /// Bytes of memory that can be locked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memlock: Option<u64>,
    /// One more than the largest file descriptor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16))]
    pub nofile: Option<u64>,
    /// Processes and threads of the user on the whole host; root is exempt. Prefer `pidsMax`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub nproc: Option<u64>,
    /// Bytes of the main thread's stack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 131_072))]
    pub stack: Option<u64>,
}

impl RlimitSpec {
    /// Whether no limit is named.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
