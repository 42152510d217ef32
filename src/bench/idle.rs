//! What a worker takes that has nothing to do: memory, CPU time; and memory for each task that runs.
//!
//! Memory is *proportional* (PSS): pages that several processes share count in parts, and a memory that
//! two processes use counts once. The worker's program is a copy, so that nothing is shared with the
//! bench itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::proc::{cpu_time, pss_bytes, tree, tree_cpu_time};
use super::stats::{Spread, per_second};
use super::{BenchError, Progress, Site};
use crate::client::{CancelOptions, Client, UnknownTask};
use crate::exec::init::share_memory;
use crate::nats::topology;
use crate::wire::{CancelRequest, Kind, LaneRecord, Selector, TaskId, TaskSpec};

/// How long tasks or lanes may take to be there.
const PATIENCE: Duration = Duration::from_secs(60);
/// The program of the tasks that do nothing.
const SLEEP: &str = "sleep";

/// How an idle worker is measured.
#[derive(Debug, Clone)]
pub struct IdleOptions {
    /// Rounds.
    pub rounds: usize,
    /// Tasks that run at once and do nothing.
    pub tasks: usize,
    /// Lanes of the worker with many.
    pub lanes: usize,
    /// What a worker may do after a change before it counts as idle.
    pub settle: Duration,
    /// How long CPU time is counted in each round.
    pub time: Duration,
}

/// What a worker takes that has nothing to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Idle {
    /// PSS of the worker and all its processes, in 10^6 bytes.
    pub worker_pss_megabytes: Spread,
    /// Of this, the spawner and the supervisors that wait for tasks.
    pub spawner_pss_megabytes: Spread,
    /// Tasks that ran for the next figure.
    pub tasks: usize,
    /// What each running task adds to the worker and its processes, without the task's own process, in
    /// 10^3 bytes.
    pub pss_kilobytes_per_task: Spread,
    /// CPU time of the worker and its spawner with one lane, in percent of one core.
    pub cpu_percent_one_lane: Spread,
    /// Lanes for the next figure.
    pub lanes: usize,
    /// The same with so many lanes.
    pub cpu_percent_many_lanes: Spread,
    /// CPU time of the server meanwhile, in percent of one core. None: it isn't the bench's own.
    pub nats_server_cpu_percent_many_lanes: Option<Spread>,
}

/// Measures a worker that has nothing to do.
///
/// # Errors
/// The workers are not the site's own, tasks don't start, or lanes are not served.
pub async fn idle(
    site: &mut Site,
    options: &IdleOptions,
    progress: Progress<'_>,
) -> Result<Idle, BenchError> {
    site.separate_program()?;
    let mut rounds = Vec::new();
    for round in 1..=options.rounds {
        progress(&format!("idle: memory, round {round} of {}", options.rounds));
        site.start_worker(options.tasks).await?;
        sleep(options.settle).await;
        let empty = Pss::of(site)?;
        let (tasks, _) = start_sleepers(site, options.tasks, options.tasks).await?;
        sleep(options.settle).await;
        let full = Pss::of(site)?;
        cancel_all(site.client(), &tasks).await?;
        rounds.push((empty, full));
    }
    sleep(options.settle).await;
    let one = cpu_rounds(site, options, "one lane", progress).await?;
    add_lanes(site, options.lanes, PATIENCE).await?;
    sleep(options.settle).await;
    let many = cpu_rounds(site, options, "many lanes", progress).await?;
    let server: Option<Vec<f64>> = many.iter().map(|round| round.1).collect();
    Ok(Idle {
        worker_pss_megabytes: Spread::over(&rounds, |(empty, _)| empty.all() / 1e6),
        spawner_pss_megabytes: Spread::over(&rounds, |(empty, _)| empty.supervisors / 1e6),
        tasks: options.tasks,
        pss_kilobytes_per_task: Spread::over(&rounds, |(empty, full)| {
            per_task(empty, full, options)
        }),
        cpu_percent_one_lane: Spread::over(&one, |round| round.0),
        lanes: options.lanes,
        cpu_percent_many_lanes: Spread::over(&many, |round| round.0),
        nats_server_cpu_percent_many_lanes: server.map(Spread::of),
    })
}

#[allow(clippy::cast_precision_loss)]
fn per_task(empty: &Pss, full: &Pss, options: &IdleOptions) -> f64 {
    (full.all() - empty.all()) / 1e3 / options.tasks as f64
}

/// Memory of a worker, and of its processes but the tasks' own.
pub(super) struct Pss {
    worker: f64,
    supervisors: f64,
}

impl Pss {
    /// Adds up what is there now.
    #[allow(clippy::cast_precision_loss)]
    pub(super) fn of(site: &Site) -> Result<Self, BenchError> {
        let failed = || BenchError::Proc { what: "a worker's memory" };
        let mut sums = Self { worker: 0.0, supervisors: 0.0 };
        let workers = site.worker_pids();
        for worker in &workers {
            sums.worker += pss_bytes(*worker).ok_or_else(failed)? as f64;
            let others = tree(*worker).into_iter();
            let others = others.filter(|(pid, name)| pid != worker && name != SLEEP);
            let others: Vec<u32> = others.map(|(pid, _)| pid).collect();
            let memories = distinct_memories(&others).into_iter();
            sums.supervisors += memories.filter_map(pss_bytes).sum::<u64>() as f64;
        }
        if workers.is_empty() { Err(failed()) } else { Ok(sums) }
    }

    /// All of it.
    pub(super) fn all(&self) -> f64 {
        self.worker + self.supervisors
    }
}

/// One process for each memory: a leader that waits for its task uses its task-init's, and the kernel
/// tells it of both.
fn distinct_memories(pids: &[u32]) -> Vec<u32> {
    let mut distinct: Vec<u32> = Vec::new();
    for pid in pids {
        if !distinct.iter().any(|other| share_memory(*pid, *other) == Some(true)) {
            distinct.push(*pid);
        }
    }
    distinct
}

/// CPU time in percent of one core: the worker and its spawner, and the server.
async fn cpu_rounds(
    site: &Site,
    options: &IdleOptions,
    what: &str,
    progress: Progress<'_>,
) -> Result<Vec<(f64, Option<f64>)>, BenchError> {
    let mut rounds = Vec::new();
    for round in 1..=options.rounds {
        progress(&format!("idle: CPU time with {what}, round {round} of {}", options.rounds));
        rounds.push(cpu_percent(site, options.time).await?);
    }
    Ok(rounds)
}

/// CPU time of the workers and of the server for some time, in percent of one core.
pub(super) async fn cpu_percent(
    site: &Site,
    time: Duration,
) -> Result<(f64, Option<f64>), BenchError> {
    let now = || {
        let spawners = site.spawner_pids().into_iter();
        let spawners: Duration = spawners.filter_map(tree_cpu_time).sum();
        let workers: Option<Duration> = site.worker_pids().into_iter().map(cpu_time).sum();
        (workers.map(|time| time + spawners), site.server_pid().and_then(cpu_time))
    };
    let (before, start) = (now(), Instant::now());
    sleep(time).await;
    let (after, time) = (now(), start.elapsed());
    let percent = |after: Option<Duration>, before: Option<Duration>| {
        Some(after?.saturating_sub(before?).as_secs_f64() / time.as_secs_f64() * 100.0)
    };
    let worker = percent(after.0, before.0);
    let worker = worker.ok_or(BenchError::Proc { what: "a worker's CPU time" })?;
    Ok((worker, percent(after.1, before.1)))
}

/// Starts `count` tasks that do nothing, and waits until `all` of them run. Returns their ids, and how
/// many started per second.
pub(super) async fn start_sleepers(
    site: &Site,
    count: usize,
    all: usize,
) -> Result<(Vec<TaskId>, f64), BenchError> {
    let start = Instant::now();
    let specs = std::iter::repeat_n(TaskSpec::command(SLEEP, ["100000".to_owned()]), count);
    let mut bulk = site.client().submitter().submit_all(specs);
    let mut ids = Vec::with_capacity(count);
    while let Some(submission) = bulk.next().await {
        ids.push(submission?.task.id);
    }
    while sleepers(site) < all {
        if start.elapsed() > PATIENCE {
            let missing = all.saturating_sub(sleepers(site));
            return Err(BenchError::Missing { missing, patience: PATIENCE });
        }
        // A look at thousands of processes takes CPU time itself.
        sleep(Duration::from_millis(100)).await;
    }
    let rate = per_second(count, start.elapsed());
    Ok((ids, rate))
}

fn sleepers(site: &Site) -> usize {
    let trees = site.worker_pids().into_iter().flat_map(tree);
    trees.filter(|(_, name)| name == SLEEP).count()
}

/// Ends tasks, several at once.
pub(super) async fn cancel_all(client: &Client, ids: &[TaskId]) -> Result<(), BenchError> {
    let request = CancelRequest::default();
    let options = CancelOptions { request, wait: PATIENCE, unknown: UnknownTask::Refuse };
    for some in ids.chunks(32) {
        let calls = some.iter().map(|id| client.cancel(id, &options));
        for canceled in futures_util::future::join_all(calls).await {
            canceled?;
        }
    }
    Ok(())
}

/// What tasks of a lane of their own ask for, one for each number; every worker has it.
pub(super) fn numbered(number: usize) -> Selector {
    format!("runner-name notin (bench-{number})").parse().expect("it is a selector")
}

/// Makes numbered lanes, and waits until the worker serves so many.
pub(super) async fn add_lanes(
    site: &Site,
    lanes: usize,
    patience: Duration,
) -> Result<(), BenchError> {
    let client = site.client();
    for number in 1..lanes {
        let record = LaneRecord::new(Kind::Subprocess, &numbered(number));
        let lease = topology::DEFAULT_LEASE;
        topology::ensure_lane(client.bus(), &record.id(), &record, lease).await?;
    }
    if lanes <= 1 {
        // The default lane is served by all.
        return Ok(());
    }
    let deadline = Instant::now() + patience;
    // A worker tells of others when it next says that it is there.
    loop {
        let workers = client.workers().await?.workers;
        let served = workers.iter().map(|worker| worker.lanes.len()).min().unwrap_or(0);
        if served >= lanes {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(BenchError::Missing { missing: lanes - served, patience });
        }
        sleep(Duration::from_millis(50)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memory_that_is_used_twice_counts_once() {
        let own = std::process::id();
        let parent = std::os::unix::process::parent_id();
        assert_eq!(distinct_memories(&[own, parent, own]), [own, parent]);
    }
}
