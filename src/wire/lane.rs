//! A lane's record in the lanes bucket.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::selector::Selector;
use super::task_spec::Kind;

/// What the tasks of a lane ask for. The key in the bucket is the lane's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LaneRecord {
    /// The kind of task.
    pub kind: Kind,
    /// The labels that a runner must have.
    #[serde(default)]
    pub selector: Selector,
}
