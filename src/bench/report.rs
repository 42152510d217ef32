//! What is handed out, as it stands in JSON. The names and units are stable; docs/performance.md
//! describes them.

use serde::{Deserialize, Serialize};

use super::{CancelTimes, Curve, Facts, Idle, Latency, Limits, Output, SubmitRate, Throughput};

/// The version of the report's shape. Fields may be added without a new one.
pub const FORMAT: u32 = 1;

/// The figures of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// [`FORMAT`].
    pub format: u32,
    /// Where and when.
    pub facts: Facts,
    /// Rounds of each scenario.
    pub rounds: usize,
    /// The machine without runlane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Tasks per second, by concurrency.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub throughput: Vec<Throughput>,
    /// One task at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Latency>,
    /// Output to one live reader.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,
    /// From a cancel call to the death of all processes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cancel: Option<CancelTimes>,
    /// Many submissions at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub submit: Option<SubmitRate>,
    /// What a worker takes that has nothing to do, or whose tasks do nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle: Option<Idle>,
    /// How costs grow.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub growth: Vec<Curve>,
}

impl Report {
    /// A report without figures.
    pub fn new(facts: Facts, rounds: usize) -> Self {
        Self {
            format: FORMAT,
            facts,
            rounds,
            limits: None,
            throughput: Vec::new(),
            latency: None,
            output: None,
            cancel: None,
            submit: None,
            idle: None,
            growth: Vec::new(),
        }
    }
}
