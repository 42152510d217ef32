//! What an operator asks one worker, on `runlane.worker.<worker>`, and what it answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ids::TaskId;
use super::presence::WorkerState;

/// A request to one worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "action", rename_all = "camelCase", deny_unknown_fields)]
pub enum ControlRequest {
    /// Take no new tasks, let those that run end, then end the worker.
    #[serde(rename_all = "camelCase")]
    Drain {
        /// Milliseconds for which running tasks may go on; what runs then is stopped and handed back.
        /// None: the worker's drain timeout.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline_ms: Option<u64>,
    },
    /// Take no new tasks until resumed; those that run go on.
    Pause {},
    /// Take tasks again.
    Resume {},
    /// Say whether a task is being dealt with. Workers ask each other before they take over a task
    /// that was delivered again: a server that was killed may forget who holds what.
    #[serde(rename_all = "camelCase")]
    Holds {
        /// The task.
        task: TaskId,
        /// Its message's sequence in the queue stream.
        queue_seq: u64,
    },
}

/// A worker's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ControlReply {
    /// The worker's state after the request.
    pub state: WorkerState,
    /// Tasks that it runs now.
    pub running: u32,
    /// The answer to `holds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holds: Option<bool>,
    /// Why the request was not understood or not followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
