//! What follows an attempt, a lost worker, and a taken slot: the policies of a task spec.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When a task runs again after it has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "camelCase", deny_unknown_fields)]
pub enum Restart {
    /// Never: one attempt.
    #[default]
    Never,
    /// After a failure or a timeout, up to `maxRetries` times.
    OnFailure,
    /// After a success as well, until it is canceled or out of retries.
    #[serde(rename_all = "camelCase")]
    Always {
        /// Milliseconds between a success and the next start. None: at once.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        interval_ms: Option<u64>,
    },
}

/// How long to wait before a retry.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Backoff {
    /// How the delay is spread.
    pub jitter: Jitter,
    /// The first delay in milliseconds.
    #[schemars(range(min = 1))]
    pub first_ms: u64,
    /// The longest delay in milliseconds; not less than `firstMs`.
    #[schemars(range(min = 1))]
    pub max_ms: u64,
    /// Each delay is the one before times this; at least 1.
    #[schemars(range(min = 1.0))]
    pub factor: f64,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { jitter: Jitter::Full, first_ms: 1_000, max_ms: 30_000, factor: 2.0 }
    }
}

/// How a delay is spread, so that tasks that failed together don't retry together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Jitter {
    /// Between 0 and the delay.
    #[default]
    Full,
    /// The delay itself.
    None,
    /// Between half the delay and the delay.
    Equal,
    /// Between the first delay and three times the last one.
    Decorrelated,
}

/// What to do when the worker that runs a task is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum OnWorkerLost {
    /// Run the task again elsewhere: at least once.
    #[default]
    Rerun,
    /// End the task as `lost`: at most once.
    Fail,
}

/// What to do when a task's slot is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Admission {
    /// Reject the new task.
    #[default]
    DropIfRunning,
    /// Cancel the running task, then start the new one.
    Replace,
    /// Wait until the slot is free.
    Queue,
}
