//! The reply of the submit service.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ids::{LaneId, TaskId};
use super::problem::Problem;

/// A task that is in its queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Submitted {
    /// The task's id; made by the service if the spec had none.
    pub id: TaskId,
    /// The lane it waits in.
    pub lane: LaneId,
    /// Its sequence in the queue stream; 0 if it was known already.
    pub seq: u64,
    /// A task with this id was already queued, running or finished; nothing was queued twice.
    #[serde(default)]
    pub duplicate: bool,
}

/// What `runlane.submit` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum SubmitReply {
    /// The task is queued.
    Accepted(Submitted),
    /// The spec was refused, or could not be stored.
    Refused {
        /// What happened, in a sentence.
        error: String,
        /// Every problem of the spec.
        #[serde(default)]
        problems: Vec<Problem>,
    },
}
