//! TaskSpec as sent: the canonical JSON that the queue carries.
//!
//! Durations are milliseconds, names are camelCase, and every field but `kind` has a default. The
//! types serialise to the canonical form; [`crate::task::decode`] reads it and reports every problem.
//! A spec that the crate `solti-model` 0.0.2 serialises is canonical.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ids::TaskId;
use super::isolation::IsolationSpec;
use super::output::Compression;
use super::policy::{Admission, Backoff, OnWorkerLost, Restart};
use super::selector::Selector;

/// The largest script, in bytes after base64 decoding.
pub const MAX_SCRIPT_BYTES: usize = 2 * 1024 * 1024;

/// What to run, where it may run, and what to do when it ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TaskSpec {
    /// The task's id. Optional in a submit request; in the queue it equals the subject's last token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<TaskId>,
    /// Concurrency slot: tasks with the same slot are admitted by `admission`. None: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub slot: Option<String>,
    /// How many tasks may have the slot at once. Tasks that name different numbers share the slot: each
    /// is admitted by its own. Has no effect without `slot`.
    #[serde(default = "default_slot_limit", skip_serializing_if = "is_default_slot_limit")]
    #[schemars(range(min = 1, max = 1000))]
    pub slot_limit: u32,
    /// What to run.
    pub kind: TaskKind,
    /// Run time limit of one attempt in milliseconds. None: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub timeout: Option<u64>,
    /// Milliseconds after the submission before which the task doesn't start. The submitter turns it
    /// into `notBefore`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay: Option<u64>,
    /// The time before which the task doesn't start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Timestamp>,
    /// The time after which the task doesn't start for the first time any more: it ends as `expired`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_by: Option<Timestamp>,
    /// Milliseconds after its end for which the task's records and output are kept. None: as long as
    /// their streams keep them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60_000))]
    pub ttl: Option<u64>,
    /// The finished task that this one runs again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<TaskId>,
    /// Milliseconds between the polite signal and SIGKILL. None: the runner's setting (5000).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
    /// When to run the task again after it has ended.
    #[serde(default)]
    pub restart: Restart,
    /// How many failed attempts may be followed by another one.
    #[serde(default = "default_max_retries")]
    #[schemars(range(max = 1000))]
    pub max_retries: u32,
    /// How long to wait before a retry.
    #[serde(default)]
    pub backoff: Backoff,
    /// Exit codes after which a task is never retried.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub no_retry_exit_codes: Vec<i32>,
    /// How many workers the task may take down with it (or lose by chance) before it is `lost`. One whose
    /// host can't start the task counts, too; after too many of those it is `failed`.
    #[serde(default = "default_max_worker_losses")]
    #[schemars(range(max = 1000))]
    pub max_worker_losses: u32,
    /// What to do when the worker that runs the task is lost.
    #[serde(default)]
    pub on_worker_lost: OnWorkerLost,
    /// What to do when the slot is taken. Has no effect without `slot`.
    #[serde(default)]
    pub admission: Admission,
    /// Labels that the runner must have. None: any runner of the kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner_selector: Option<Selector>,
    /// Labels of the task itself, for people and programs; `runlane status` shows them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How much of the output is stored, and in which form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputSpec>,
    /// What the task asks for beyond its runner's isolation. None: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolation: Option<IsolationSpec>,
}

fn default_max_retries() -> u32 {
    3
}

fn default_max_worker_losses() -> u32 {
    3
}

fn default_slot_limit() -> u32 {
    1
}

fn is_default_slot_limit(limit: &u32) -> bool {
    *limit == default_slot_limit()
}

impl TaskSpec {
    /// A spec of `kind` with every default.
    pub fn new(kind: TaskKind) -> Self {
        Self {
            id: None,
            slot: None,
            slot_limit: default_slot_limit(),
            kind,
            timeout: None,
            delay: None,
            not_before: None,
            start_by: None,
            ttl: None,
            retry_of: None,
            grace_ms: None,
            restart: Restart::default(),
            max_retries: default_max_retries(),
            backoff: Backoff::default(),
            no_retry_exit_codes: Vec::new(),
            max_worker_losses: default_max_worker_losses(),
            on_worker_lost: OnWorkerLost::default(),
            admission: Admission::default(),
            runner_selector: None,
            labels: BTreeMap::new(),
            output: None,
            isolation: None,
        }
    }

    /// A spec that runs a command with every default.
    pub fn command(command: impl Into<String>, args: impl IntoIterator<Item = String>) -> Self {
        let mode = SubprocessMode::Command(CommandMode {
            command: command.into(),
            args: args.into_iter().collect(),
        });
        Self::new(TaskKind::Subprocess(SubprocessSpec::new(mode)))
    }
}

/// What kind of thing a task is, with its details.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum TaskKind {
    /// A process on the worker's host.
    Subprocess(SubprocessSpec),
    /// A container. Accepted and routed; needs a worker with such a runner.
    Container(ContainerSpec),
    /// A WASI module. Accepted and routed; needs a worker with such a runner.
    Wasm(WasmSpec),
}

impl TaskKind {
    /// Returns the kind without its details.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Subprocess(_) => Kind::Subprocess,
            Self::Container(_) => Kind::Container,
            Self::Wasm(_) => Kind::Wasm,
        }
    }
}

/// A kind of task; a runner supports one.
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
pub enum Kind {
    /// A process on the worker's host.
    #[default]
    Subprocess,
    /// A container.
    Container,
    /// A WASI module.
    Wasm,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Subprocess => "subprocess",
            Self::Container => "container",
            Self::Wasm => "wasm",
        })
    }
}

/// A process on the worker's host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SubprocessSpec {
    /// A command, or a script with its interpreter.
    pub mode: SubprocessMode,
    /// Environment variables, in order; a later one replaces an earlier one of the same name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
    /// Working directory, absolute. None: the runner's, or a private one that is removed with the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^/"))]
    pub cwd: Option<String>,
    /// Whether a non-zero exit code makes the attempt fail.
    #[serde(default = "enabled")]
    pub fail_on_non_zero: bool,
}

fn enabled() -> bool {
    true
}

impl SubprocessSpec {
    /// A process with every default.
    pub fn new(mode: SubprocessMode) -> Self {
        Self { mode, env: Vec::new(), cwd: None, fail_on_non_zero: true }
    }
}

/// How a process is started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SubprocessMode {
    /// A program and its arguments, without a shell.
    Command(CommandMode),
    /// The text of a script and its interpreter.
    Script(ScriptMode),
}

/// A program and its arguments, without a shell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CommandMode {
    /// A path, or a name that is looked up in the task's PATH.
    pub command: String,
    /// Its arguments, without the program's name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
}

/// The text of a script and its interpreter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScriptMode {
    /// The interpreter.
    pub runtime: Runtime,
    /// The script: UTF-8 text in standard base64, at most 2 MiB after decoding.
    pub body: String,
    /// Arguments of the script.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
}

/// The interpreter of a script.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Runtime {
    /// `bash`.
    Bash,
    /// `python3`.
    Python,
    /// `node`.
    Node,
    /// Any interpreter.
    #[serde(rename_all = "camelCase")]
    Custom {
        /// A path, or a name that is looked up in the task's PATH.
        command: String,
        /// What stands between the interpreter and the script, such as `-c`: the script's text
        /// follows it as one argument.
        flag: String,
    },
}

/// An environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvVar {
    /// Its name: a letter or `_`, then letters, digits and `_`.
    #[schemars(regex(pattern = "^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub key: String,
    /// Its value; no NUL.
    pub value: String,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ContainerSpec {
    /// The image's reference.
    pub image: String,
    /// Replaces the image's entry point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
    /// Arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Environment variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
}

/// A WASI module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WasmSpec {
    /// The module's path.
    pub module: String,
    /// Arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Environment variables.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<EnvVar>,
}

/// How much of the output is stored, and in which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OutputSpec {
    /// Bytes of each stream that are kept from its start; past it the middle is left out and the
    /// last 64 KiB are kept. None: the runner's setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<u64>,
    /// Whether large chunks that shrink to a third or less are stored compressed. None: the runner's
    /// setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
}
