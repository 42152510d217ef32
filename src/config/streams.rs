//! How streams are created.

use std::time::Duration;

use super::raw::RawStreams;
use super::report::Report;

const DAY: Duration = Duration::from_secs(86_400);

/// How streams are created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamsConfig {
    /// Copies of each stream; 1 to 5.
    pub replicas: usize,
    /// Where they are kept.
    pub storage: Storage,
    /// How long status chains and outcomes are kept.
    pub tasks_max_age: Duration,
    /// How long output is kept.
    pub output_max_age: Duration,
    /// Limit of all output, in bytes. None: no limit but the server's.
    pub output_max_bytes: Option<u64>,
    /// Limit of all waiting tasks, in bytes. None: no limit but the server's.
    pub queue_max_bytes: Option<u64>,
}

/// Where streams are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// On disk.
    File,
    /// In the server's memory: gone when it restarts.
    Memory,
}

pub(super) fn resolve(raw: &RawStreams, report: &mut Report) -> StreamsConfig {
    let replicas = raw.replicas.unwrap_or(1);
    if ![1, 3, 5].contains(&replicas) {
        report.add("streams.replicas", format!("is {replicas}; use 1, 3 or 5"));
    }
    let storage = match raw.storage.as_deref() {
        None | Some("file") => Storage::File,
        Some("memory") => Storage::Memory,
        Some(other) => {
            report.add("streams.storage", format!("{other:?} is unknown; use file or memory"));
            Storage::File
        }
    };
    let range = Duration::from_secs(60)..=3650 * DAY;
    let mut age = |name: &str, text: &Option<String>, default: Duration| {
        report.duration_in(&format!("streams.{name}"), text.as_deref(), default, &range)
    };
    let tasks_max_age = age("tasks_max_age", &raw.tasks_max_age, 7 * DAY);
    let output_max_age = age("output_max_age", &raw.output_max_age, 3 * DAY);
    let output = report.size("streams.output_max_bytes", raw.output_max_bytes.as_ref());
    let queue = report.size("streams.queue_max_bytes", raw.queue_max_bytes.as_ref());
    StreamsConfig {
        replicas: usize::from(replicas),
        storage,
        tasks_max_age,
        output_max_age,
        output_max_bytes: output,
        queue_max_bytes: queue,
    }
}
