//! What a worker says about itself, in the workers bucket under its id, while it lives.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ids::{LaneId, WorkerId};
use super::isolation::Preset;
use super::task_spec::Kind;

/// A live worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerPresence {
    /// The worker's id.
    pub worker: WorkerId,
    /// The version of runlane it runs.
    pub version: String,
    /// The host's name.
    pub hostname: String,
    /// The worker's process id on that host.
    pub pid: u32,
    /// Whether it takes tasks.
    pub state: WorkerState,
    /// Tasks that can run at once.
    pub capacity: u32,
    /// Tasks that run now.
    pub running: u32,
    /// Labels of the worker; each of its runners has them too.
    pub labels: BTreeMap<String, String>,
    /// Its runners, in the order they are tried.
    pub runners: Vec<RunnerPresence>,
    /// Lanes it pulls from.
    pub lanes: Vec<LaneId>,
    /// What the host offers, by feature: `kernel` is its release; of what isolation can use, such as
    /// `landlock`, it is `yes`, or `no:` and why.
    #[serde(default)]
    pub features: BTreeMap<String, String>,
    /// When the worker started.
    pub started_at: Timestamp,
    /// When this record was written.
    pub seen_at: Timestamp,
}

/// Whether a worker takes tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum WorkerState {
    /// It takes tasks while it has free places.
    Ready,
    /// It takes no new tasks until it is resumed.
    Paused,
    /// It takes none for some seconds: its host could not start the last ones.
    Resting,
    /// It takes no new tasks and ends when those it has have ended.
    Draining,
    /// A state of a newer version, which this one takes for one without new tasks. Never written.
    #[serde(other)]
    #[schemars(skip)]
    Unknown,
}

impl WorkerState {
    /// Its name, as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Paused => "paused",
            Self::Resting => "resting",
            Self::Draining => "draining",
            Self::Unknown => "unknown",
        }
    }
}

/// A runner of a live worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunnerPresence {
    /// Its name in the worker's configuration.
    pub name: String,
    /// The kind of task it runs.
    pub kind: Kind,
    /// All labels that selectors see: the worker's, its own, and `runner-name`.
    pub labels: BTreeMap<String, String>,
    /// The preset of its isolation; single settings of its configuration may differ from it.
    #[serde(default)]
    pub isolation: Preset,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_of_a_newer_version_hides_no_worker() {
        let read = |state: &str| serde_json::from_value::<WorkerState>(state.into());
        assert_eq!(read("dreaming").expect("any name"), WorkerState::Unknown);
        for state in
            [WorkerState::Ready, WorkerState::Paused, WorkerState::Resting, WorkerState::Draining]
        {
            assert_eq!(read(state.as_str()).expect("its name"), state);
            assert_eq!(serde_json::to_value(state).expect("a name"), state.as_str());
        }
    }
}
