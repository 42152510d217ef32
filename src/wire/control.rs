//! What an operator asks one worker, on `runlane.worker.<worker>`, and what it answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::presence::WorkerState;

/// A request to one worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    Pause,
    /// Take tasks again.
    Resume,
}

/// A worker's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ControlReply {
    /// The worker's state after the request.
    pub state: WorkerState,
    /// Tasks that it runs now.
    pub running: u32,
    /// Why the request was not understood or not followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}
