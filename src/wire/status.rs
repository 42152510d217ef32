//! A task's lifecycle: the records of its compare-and-set chain, its outcome, and cancel requests.
//!
//! ```text
//!            ┌──────────── retrying, requeued ◄───────────┐
//!            ▼                                            │
//! (none) ─► started{1} ─► started{2} (worker lost) ─► … ──┴─► finished{outcome}
//!    └───────────────────────────────────────────────────────────▲  rejected, canceled before a start
//! ```
//!
//! Every record is published with the sequence of the record before it as a condition, so exactly one
//! writer wins each step, and nothing can follow `finished`.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ids::{Attempt, LaneId, TaskId, WorkerId};
use super::output::StreamTotals;
use super::problem::Problem;

/// One record of a task's status chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum StatusEvent {
    /// A worker has the task and is about to start the process.
    Started(Started),
    /// The attempt failed; another one follows after a delay.
    Retrying(Retrying),
    /// The worker gave the task back without an end, because it shuts down.
    Requeued(Requeued),
    /// The task has ended; the last record of the chain.
    Finished(Finished),
}

/// A worker has the task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Started {
    /// Which start this is.
    pub attempt: Attempt,
    /// Who has the task.
    pub worker: WorkerId,
    /// The runner that was picked.
    pub runner: String,
    /// The lane it came from.
    pub lane: LaneId,
    /// Names this run in logs and in the task's environment: `{runner}-{slot or lane}-{queueSeq}-{attempt}`.
    pub run_id: String,
    /// Tells this start from every other one, so that a writer whose reply was lost can recognise
    /// its own record.
    pub token: String,
    /// The task's sequence in the queue stream. A second message of the same task has another one
    /// and is dropped while the first one lives.
    pub queue_seq: u64,
    /// Milliseconds for which the worker holds the task without a renewal.
    pub lease_ms: u64,
    /// Failed attempts before this one.
    #[serde(default)]
    pub failures: u32,
    /// Workers that were lost while they ran the task, and those whose host could not start it.
    #[serde(default)]
    pub worker_losses: u32,
    /// When.
    pub at: Timestamp,
}

/// An attempt failed and another one follows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retrying {
    /// How the attempt ended; its phase is what the outcome's would have been.
    pub ended: Outcome,
    /// Milliseconds until the next start.
    pub delay_ms: u64,
    /// Failed attempts so far.
    pub failures: u32,
    /// Workers that were lost so far, and those whose host could not start the task.
    #[serde(default)]
    pub worker_losses: u32,
    /// The task's sequence in the queue stream.
    pub queue_seq: u64,
    /// When.
    pub at: Timestamp,
}

/// A worker gave the task back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Requeued {
    /// The attempt that was stopped; it counts neither as a failure nor as a lost worker.
    pub attempt: Attempt,
    /// Who gave it back.
    pub worker: WorkerId,
    /// Why.
    pub reason: StopReason,
    /// Failed attempts so far.
    #[serde(default)]
    pub failures: u32,
    /// Workers that were lost so far, and those whose host could not start the task.
    #[serde(default)]
    pub worker_losses: u32,
    /// The task's sequence in the queue stream.
    pub queue_seq: u64,
    /// When.
    pub at: Timestamp,
}

/// The task has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Finished {
    /// How.
    pub outcome: Outcome,
    /// The token of the writer, so that it can recognise its own record.
    pub token: String,
}

/// Where a task is in its life. The last eight are final.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// It waits in the queue, or for its next attempt.
    Pending,
    /// A worker has it.
    Running,
    /// It did what it should.
    Succeeded,
    /// It ended with a failure that is not retried: an exit code, a signal, or a failed setup.
    Failed,
    /// Its last attempt ran into its time limit.
    Timeout,
    /// Somebody asked for its end.
    Canceled,
    /// It failed as often as its retries allow.
    Exhausted,
    /// It was never run: its spec is bad, no runner can take it, or its slot was taken.
    Rejected,
    /// Too many workers were lost while they ran it.
    Lost,
    /// The time to start it passed.
    Expired,
}

impl Phase {
    /// Whether nothing follows.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Pending | Self::Running)
    }

    /// The phase as it stands in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Canceled => "canceled",
            Self::Exhausted => "exhausted",
            Self::Rejected => "rejected",
            Self::Lost => "lost",
            Self::Expired => "expired",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// How a task, or one attempt of it, ended. Published once to `runlane.task.<id>.outcome`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The task.
    pub id: TaskId,
    /// How it ended.
    pub phase: Phase,
    /// The last attempt; none if it never started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
    /// The exit code, if the process exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The number of the signal that ended the process, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Why and by whom the process was stopped, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// What went wrong on our side: a failed setup step, or why the task was rejected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorDetail>,
    /// The kernel killed a process of the task for want of memory (from the cgroup's `memory.events`).
    #[serde(default)]
    pub oom_killed: bool,
    /// Processes of the task that were still there after its leader had ended, and were killed.
    #[serde(default)]
    pub leftovers_killed: u32,
    /// When the process was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When the task had ended and all its processes were gone.
    pub finished_at: Timestamp,
    /// CPU time of the task's processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<CpuTime>,
    /// Largest resident set of one of the task's processes, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_rss_bytes: Option<u64>,
    /// The most memory that all processes of the task used at once, in bytes, page cache included (the
    /// cgroup's `memory.peak`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_peak_bytes: Option<u64>,
    /// The memory limit that was applied to the task, in bytes (the cgroup's `memory.max`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_max_bytes: Option<u64>,
    /// Isolation that the runner wanted as best effort and the host lacks, by feature, and why.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub isolation_missing: BTreeMap<String, String>,
    /// The worker that ran it; of a task that was lost, the one that found it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerId>,
    /// The runner that ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<String>,
    /// The lane it waited in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lane: Option<LaneId>,
    /// `{runner}-{slot or lane}-{queueSeq}-{attempt}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,
    /// What the last attempt wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputTotals>,
}

impl Outcome {
    /// An outcome of a task that never ran.
    pub fn without_run(id: TaskId, phase: Phase, at: Timestamp) -> Self {
        Self {
            id,
            phase,
            attempt: None,
            exit_code: None,
            signal: None,
            cause: None,
            error: None,
            oom_killed: false,
            leftovers_killed: 0,
            started_at: None,
            finished_at: at,
            cpu: None,
            max_rss_bytes: None,
            memory_peak_bytes: None,
            memory_max_bytes: None,
            isolation_missing: BTreeMap::new(),
            worker: None,
            runner: None,
            lane: None,
            run_id: None,
            output: None,
        }
    }
}

/// Why a process was stopped.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "camelCase")]
pub enum StopReason {
    /// The worker shuts down.
    Draining,
    /// Its time limit passed.
    Timeout,
    /// Somebody asked for its end.
    Canceled,
    /// A newer task took its slot.
    Replaced,
    /// The worker could not keep its hold on the task.
    LeaseLost,
}

/// Why and by whom a process was stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cause {
    /// Why.
    pub reason: StopReason,
    /// Who asked, in their own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The reason that was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What went wrong on our side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ErrorDetail {
    /// The step that failed: `validate`, `plan`, `admit`, `start` (not in time), `worker` (lost), `spawn`, a step of the child's
    /// setup such as `chdir`, `rlimits`, `exec`, or a feature of isolation that the host lacks, such as
    /// `cgroup.memory`.
    pub step: String,
    /// What happened, in a sentence.
    pub message: String,
    /// Every problem of the spec, if that was the cause.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

/// CPU time in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CpuTime {
    /// In user mode.
    pub user_us: u64,
    /// In the kernel.
    pub system_us: u64,
}

/// What an attempt wrote.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutputTotals {
    /// Standard output.
    pub stdout: StreamTotals,
    /// Standard error.
    pub stderr: StreamTotals,
}

/// A wish to end a task. An empty message is one too.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CancelRequest {
    /// Why, for the outcome. 1024 characters of it are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Who asks, for the outcome. 1024 characters of it are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Milliseconds between the polite signal and SIGKILL; 0 kills at once. None: the task's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_ms: Option<u64>,
    /// The task that takes the slot; the outcome's cause is then `replaced`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<TaskId>,
}

impl CancelRequest {
    /// Characters of `reason` and of `by` that are kept: they stand in the outcome, which has to fit into a
    /// message, whatever a stranger writes.
    pub const TEXT_LENGTH: usize = 1024;

    /// Cuts its texts to what is kept of them.
    #[must_use]
    pub fn shortened(mut self) -> Self {
        for text in [&mut self.reason, &mut self.by].into_iter().flatten() {
            if let Some((end, _)) = text.char_indices().nth(Self::TEXT_LENGTH) {
                text.truncate(end);
                text.push('…');
            }
        }
        self
    }
}
