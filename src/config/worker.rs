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
    /// In which cgroup those of tasks are made.
    pub cgroup: CgroupBase,
    /// Where private work directories are made, absolute.
    pub work_root: PathBuf,
    /// Its runners, in the order they are tried; at least one.
    pub runners: Vec<RunnerConfig>,
}

/// In which cgroup those of tasks are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CgroupBase {
    /// The worker's own, if it is delegated to it.
    Auto,
    /// None: tasks get no cgroups.
    None,
    /// This directory, absolute.
    At(PathBuf),
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
    let capacity = at_least_one("worker.capacity", raw.capacity, host.cores, report);
    let work_root = report.absolute("worker.work_root", raw.work_root);
    let work_root = work_root.unwrap_or_else(|| host.work_root.clone());
    let runners = runner::resolve_all(runners, capacity.get(), &work_root, report);
    WorkerConfig {
        name: raw.name.and_then(|name| worker_id(&name, report)),
        capacity,
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
        cgroup: cgroup(raw.cgroup.as_deref(), report),
        work_root,
        runners,
    }
}

fn cgroup(raw: Option<&str>, report: &mut Report) -> CgroupBase {
    match raw {
        None | Some("auto") => CgroupBase::Auto,
        Some("none") => CgroupBase::None,
        Some(path) if path.starts_with('/') => CgroupBase::At(path.into()),
        Some(other) => {
            let remedy = "use \"auto\", \"none\" or an absolute directory";
            report.add("worker.cgroup", format!("{other:?} is no place for cgroups; {remedy}"));
            CgroupBase::Auto
        }
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
