//! The worker's configuration.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use super::load::Host;
use super::raw::{RawRunner, RawWorker};
use super::report::Report;
use super::runner::{self, RunnerConfig};
use crate::task::{Labels, RUNNER_NAME_LABEL, RouteTable};
use crate::wire::{InvalidId, WorkerId};

const DEFAULT_LEASE: Duration = Duration::from_secs(30);
const DEFAULT_DRAIN: Duration = Duration::from_secs(30);
const DEFAULT_LANES: u32 = 256;
const DAY: Duration = Duration::from_secs(86_400);

/// The worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerConfig {
    /// Its id. None: one is made from the host's name.
    pub name: Option<WorkerId>,
    /// Tasks that run at once.
    pub capacity: NonZeroUsize,
    /// Labels of all its runners, with `os`, `arch` and `hostname`.
    pub labels: Labels,
    /// How long it holds a task without a renewal; 2 s to 1 h.
    pub lease: Duration,
    /// How long a shutdown waits for running tasks.
    pub drain_timeout: Duration,
    /// The most lanes it serves.
    pub max_lanes: NonZeroUsize,
    /// Whether it creates streams and buckets.
    pub manage_streams: bool,
    /// Where it keeps the ends of tasks that could not be stored, absolute. None: in memory only,
    /// unless the program finds a place.
    pub state_dir: Option<PathBuf>,
    /// Its runners, in the order they are tried; at least one.
    pub runners: Vec<RunnerConfig>,
}

impl WorkerConfig {
    /// Registers the runners with all labels that selectors see.
    pub fn route_table(&self) -> RouteTable {
        let mut table = RouteTable::new();
        for runner in &self.runners {
            let mut labels = self.labels.clone();
            labels.extend(runner.labels.clone());
            let registered = table.register(&runner.name, runner.kind, labels);
            registered.expect("a resolved configuration has no two runners of a name");
        }
        table
    }
}

pub(super) fn resolve(
    raw: RawWorker,
    runners: Vec<RawRunner>,
    host: &Host,
    report: &mut Report,
) -> WorkerConfig {
    report.labels("worker.labels", &raw.labels);
    if raw.labels.contains_key(RUNNER_NAME_LABEL) {
        report.add("worker.labels.runner-name", "is set for each runner; remove it");
    }
    let mut labels = host.labels();
    labels.extend(raw.labels);
    let seconds = |from, to| Duration::from_secs(from)..=Duration::from_secs(to);
    let lease = seconds(2, 3600);
    let drain = Duration::ZERO..=DAY;
    WorkerConfig {
        name: raw.name.and_then(|name| worker_id(&name, report)),
        capacity: at_least_one("worker.capacity", raw.capacity, host.cores, report),
        labels,
        lease: report.duration_in("worker.lease", raw.lease.as_deref(), DEFAULT_LEASE, &lease),
        drain_timeout: report.duration_in(
            "worker.drain_timeout",
            raw.drain_timeout.as_deref(),
            DEFAULT_DRAIN,
            &drain,
        ),
        max_lanes: at_least_one("worker.max_lanes", raw.max_lanes, lanes(), report),
        manage_streams: raw.manage_streams.unwrap_or(true),
        state_dir: report.absolute("worker.state_dir", raw.state_dir),
        runners: runner::resolve_all(runners, report),
    }
}

fn lanes() -> NonZeroUsize {
    NonZeroUsize::new(DEFAULT_LANES as usize).expect("the default is not 0")
}

fn worker_id(name: &str, report: &mut Report) -> Option<WorkerId> {
    name.parse().map_err(|error: InvalidId| report.add("worker.name", error)).ok()
}

fn at_least_one(
    path: &str,
    value: Option<u32>,
    default: NonZeroUsize,
    report: &mut Report,
) -> NonZeroUsize {
    let Some(value) = value else { return default };
    NonZeroUsize::new(value as usize).unwrap_or_else(|| {
        report.add(path, "is 0; use at least 1");
        default
    })
}
