//! Tasks per second of a backlog, and where their CPU time goes.
//!
//! The worker is paused while tasks are queued, and then goes on: the time is from the first start that
//! is heard to the last outcome. Workers that are not the site's own are not paused: there, tasks run
//! while others are queued. The spawn limit is measured right before and right after each round.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::error::PATIENCE;
use super::helper::TRUE;
use super::limits::spawn_rate;
use super::proc::{cpu_time, tree_cpu_time};
use super::stats::{Spread, millis, per_second};
use super::{BenchError, Progress, Site};
use crate::client::Client;
use crate::nats::Subscription;
use crate::wire::{ControlRequest, Outcome, Phase, Selector, TaskId, TaskSpec, WorkerId};

/// Tasks that run before the first round, for each place.
const WARM_UP: usize = 20;

/// How throughput is measured.
#[derive(Debug, Clone)]
pub struct ThroughputOptions {
    /// Rounds.
    pub rounds: usize,
    /// Numbers of places, each measured.
    pub concurrency: Vec<usize>,
    /// Tasks in each round.
    pub tasks: usize,
    /// How long spawns are counted before and after each round.
    pub spawn_time: Duration,
    /// Labels that the tasks ask for.
    pub selector: Option<Selector>,
}

/// Tasks per second at one concurrency.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Throughput {
    /// Places of the worker; none: of workers that were there.
    pub concurrency: Option<usize>,
    /// Tasks in each round.
    pub tasks: usize,
    /// Tasks of /bin/true from the first start to the last outcome, per second.
    pub tasks_per_second: Spread,
    /// Bare spawns in the same minute, per second.
    pub limit_spawns_per_second: Spread,
    /// The first divided by the second, round by round.
    pub of_limit: Spread,
    /// CPU time of one bare spawn.
    pub limit_spawn_cpu_ms: Spread,
    /// CPU time of one task, with all that belongs to it up to its ack.
    pub cpu_ms_per_task: CpuMs,
}

/// CPU time by process, in milliseconds for each of what the field's name says. None: the process isn't
/// known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CpuMs {
    /// Of all that are known.
    pub total: Spread,
    /// The worker.
    pub worker: Option<Spread>,
    /// The spawner, the task-inits, and the tasks themselves.
    pub supervisors_and_tasks: Option<Spread>,
    /// The server.
    pub nats_server: Option<Spread>,
    /// The submitter, which is this program.
    pub client: Option<Spread>,
}

/// One round.
struct Round {
    tasks_per_second: f64,
    limit: f64,
    limit_cpu_ms: f64,
    cpu: Cpu,
}

/// Measures tasks per second at each concurrency.
///
/// # Errors
/// A task fails, or outcomes don't come.
pub async fn throughput(
    site: &mut Site,
    options: &ThroughputOptions,
    progress: Progress<'_>,
) -> Result<Vec<Throughput>, BenchError> {
    let mut measured = Vec::new();
    for &concurrency in &options.concurrency {
        site.start_worker(concurrency).await?;
        let own = !site.worker_names().is_empty();
        backlog(site, tasks(WARM_UP * concurrency, options)).await?;
        let mut rounds = Vec::new();
        for round in 1..=options.rounds {
            let of = options.rounds;
            progress(&format!("throughput: concurrency {concurrency}, round {round} of {of}"));
            let before = spawn_rate(options.spawn_time).await?;
            let (time, cpu) = backlog(site, tasks(options.tasks, options)).await?;
            let after = spawn_rate(options.spawn_time).await?;
            rounds.push(Round {
                tasks_per_second: per_second(options.tasks, time),
                limit: f64::midpoint(before.per_second, after.per_second),
                limit_cpu_ms: f64::midpoint(before.cpu_ms, after.cpu_ms),
                cpu,
            });
        }
        measured.push(summary(own.then_some(concurrency), options.tasks, &rounds));
        if !own {
            // Their places are what they are.
            break;
        }
    }
    Ok(measured)
}

#[allow(clippy::cast_precision_loss)]
fn summary(concurrency: Option<usize>, tasks: usize, rounds: &[Round]) -> Throughput {
    let cpu: Vec<Cpu> = rounds.iter().map(|round| round.cpu).collect();
    Throughput {
        concurrency,
        tasks,
        tasks_per_second: Spread::over(rounds, |round| round.tasks_per_second),
        limit_spawns_per_second: Spread::over(rounds, |round| round.limit),
        of_limit: Spread::over(rounds, |round| round.tasks_per_second / round.limit),
        limit_spawn_cpu_ms: Spread::over(rounds, |round| round.limit_cpu_ms),
        cpu_ms_per_task: CpuMs::of(&cpu, tasks as f64),
    }
}

impl CpuMs {
    /// Divides the times of each round by the number of what was done in it.
    pub(super) fn of(rounds: &[Cpu], count: f64) -> Self {
        let each = |part: fn(&Cpu) -> Option<Duration>| {
            let parts = rounds.iter().map(|cpu| Some(millis(part(cpu)?) / count));
            parts.collect::<Option<Vec<f64>>>().map(Spread::of)
        };
        Self {
            total: Spread::over(rounds, |cpu| millis(cpu.total()) / count),
            worker: each(|cpu| cpu.worker),
            supervisors_and_tasks: each(|cpu| cpu.supervisors),
            nats_server: each(|cpu| cpu.server),
            client: each(|cpu| cpu.client),
        }
    }
}

fn tasks(count: usize, options: &ThroughputOptions) -> impl Iterator<Item = TaskSpec> {
    let mut spec = TaskSpec::command(TRUE, []);
    spec.runner_selector.clone_from(&options.selector);
    std::iter::repeat_n(spec, count)
}

/// Queues tasks and lets them run; returns the time that they took, and the CPU time.
pub(super) async fn backlog(
    site: &mut Site,
    specs: impl Iterator<Item = TaskSpec>,
) -> Result<(Duration, Cpu), BenchError> {
    let workers = site.worker_names();
    let client = site.client().clone();
    let subjects = client.bus().subjects().clone();
    let mut outcomes = client.bus().subscribe(subjects.outcome_all()).await?;
    let mut starts = client.bus().subscribe(subjects.status_all()).await?;
    tell_all(&client, &workers, &ControlRequest::Pause {}).await?;
    let mut bulk = client.submitter().submit_all(specs);
    let mut ids = HashSet::new();
    let mut cpu = Cpu::now(site);
    let mut begin = Instant::now();
    while let Some(submission) = bulk.next().await {
        ids.insert(submission?.task.id);
    }
    if !workers.is_empty() {
        cpu = Cpu::now(site);
        tell_all(&client, &workers, &ControlRequest::Resume {}).await?;
        begin = first_start(&mut starts).await?;
    }
    // Nobody needs the others, and the server shall not send them.
    drop(starts);
    site.remember(ids.iter().cloned());
    let end = all_ended(site, &mut outcomes, ids).await?;
    site.settle().await?;
    Ok((end - begin, Cpu::now(site).since(&cpu)))
}

pub(super) async fn tell_all(
    client: &Client,
    workers: &[WorkerId],
    request: &ControlRequest,
) -> Result<(), BenchError> {
    for worker in workers {
        client.control(worker, request).await?;
    }
    Ok(())
}

pub(super) async fn first_start(starts: &mut Subscription) -> Result<Instant, BenchError> {
    match timeout(PATIENCE, starts.next()).await {
        Ok(Some(_)) => Ok(Instant::now()),
        Ok(None) | Err(_) => Err(BenchError::Missing { missing: 1, patience: PATIENCE }),
    }
}

/// Waits for the outcomes of all these tasks, and checks each.
async fn all_ended(
    site: &mut Site,
    outcomes: &mut Subscription,
    mut ids: HashSet<TaskId>,
) -> Result<Instant, BenchError> {
    while !ids.is_empty() {
        let Ok(Some(message)) = timeout(PATIENCE, outcomes.next()).await else {
            site.check_workers()?;
            return Err(BenchError::Missing { missing: ids.len(), patience: PATIENCE });
        };
        if let Ok(outcome) = serde_json::from_slice::<Outcome>(&message.payload)
            && ids.remove(&outcome.id)
        {
            succeeded(&outcome)?;
        }
    }
    Ok(Instant::now())
}

/// An error unless a task has done what it should.
pub(super) fn succeeded(outcome: &Outcome) -> Result<(), BenchError> {
    if outcome.phase == Phase::Succeeded && outcome.exit_code == Some(0) {
        return Ok(());
    }
    let why = outcome.error.as_ref().map(|error| format!("{}: {}", error.step, error.message));
    Err(BenchError::Task { id: outcome.id.clone(), phase: outcome.phase, why })
}

/// CPU times up to now, or between two times.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cpu {
    pub(super) worker: Option<Duration>,
    pub(super) supervisors: Option<Duration>,
    pub(super) server: Option<Duration>,
    pub(super) client: Option<Duration>,
}

impl Cpu {
    pub(super) fn now(site: &Site) -> Self {
        Self {
            worker: sum(&site.worker_pids(), cpu_time),
            supervisors: sum(&site.spawner_pids(), tree_cpu_time),
            server: site.server_pid().and_then(cpu_time),
            client: cpu_time(std::process::id()),
        }
    }

    pub(super) fn since(&self, before: &Self) -> Self {
        let difference =
            |now: Option<Duration>, before: Option<Duration>| Some(now?.saturating_sub(before?));
        Self {
            worker: difference(self.worker, before.worker),
            supervisors: difference(self.supervisors, before.supervisors),
            server: difference(self.server, before.server),
            client: difference(self.client, before.client),
        }
    }

    pub(super) fn total(&self) -> Duration {
        [self.worker, self.supervisors, self.server, self.client].into_iter().flatten().sum()
    }
}

/// The times of all these processes; none, if there are none.
fn sum(pids: &[u32], time: impl Fn(u32) -> Option<Duration>) -> Option<Duration> {
    (!pids.is_empty()).then(|| pids.iter().map(|pid| time(*pid)).sum())?
}
