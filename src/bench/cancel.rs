//! How long after a cancel call all processes of a task are dead.
//!
//! The processes are found in /proc by the task's id in their environment, and each is watched by a
//! pidfd, which becomes readable when it dies. So this works only where the worker is on this machine.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::error::PATIENCE;
use super::limits::PAUSE;
use super::proc::pids;
use super::stats::{Samples, Spread};
use super::{BenchError, Progress, Site};
use crate::client::{CancelOptions, Canceled, Client, UnknownTask};
use crate::wire::{CancelRequest, Phase, TaskId, TaskSpec};

/// Children that leave the session of their task.
const DAEMONS: usize = 4;
/// Rounds are preceded by so many that don't count.
const WARM_UP: usize = 3;

/// How cancel is measured.
#[derive(Debug, Clone)]
pub struct CancelBenchOptions {
    /// Rounds.
    pub rounds: usize,
    /// Tasks of each kind in each round.
    pub tasks: usize,
}

/// Times from the cancel call to the death of the last process, and to the outcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CancelTimes {
    /// Tasks of each kind in each round.
    pub tasks: usize,
    /// A task of one process: median.
    pub dead_p50_ms: Spread,
    /// The same: 99th percentile.
    pub dead_p99_ms: Spread,
    /// The same, until the call returns with the outcome: median.
    pub outcome_p50_ms: Spread,
    /// A shell with children in sessions of their own: median until the last of all is dead.
    pub daemons_dead_p50_ms: Spread,
    /// The same: 99th percentile.
    pub daemons_dead_p99_ms: Spread,
    /// How many such children there are.
    pub daemons: usize,
}

/// Measures cancel.
///
/// # Errors
/// A task does not start, does not die, or its processes can't be seen.
pub async fn cancel(
    site: &mut Site,
    options: &CancelBenchOptions,
    progress: Progress<'_>,
) -> Result<CancelTimes, BenchError> {
    site.start_worker(2).await?;
    let client = site.client().clone();
    measure_round(&client, WARM_UP).await?;
    let mut rounds = Vec::new();
    for round in 1..=options.rounds {
        progress(&format!("cancel: round {round} of {}", options.rounds));
        rounds.push(measure_round(&client, options.tasks).await?);
        site.settle().await?;
    }
    Ok(CancelTimes {
        tasks: options.tasks,
        dead_p50_ms: Spread::over(&rounds, |round| round.dead.p50()),
        dead_p99_ms: Spread::over(&rounds, |round| round.dead.p99()),
        outcome_p50_ms: Spread::over(&rounds, |round| round.outcome.p50()),
        daemons_dead_p50_ms: Spread::over(&rounds, |round| round.daemons_dead.p50()),
        daemons_dead_p99_ms: Spread::over(&rounds, |round| round.daemons_dead.p99()),
        daemons: DAEMONS,
    })
}

struct Round {
    dead: Samples,
    outcome: Samples,
    daemons_dead: Samples,
}

async fn measure_round(client: &Client, tasks: usize) -> Result<Round, BenchError> {
    let (mut dead, mut outcome, mut daemons_dead) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..tasks {
        let times = one(client, TaskSpec::command("sleep", ["1000".to_owned()]), 1).await?;
        dead.push(times.0);
        outcome.push(times.1);
        daemons_dead.push(one(client, with_daemons(), DAEMONS).await?.0);
    }
    Ok(Round {
        dead: Samples::of_times(&dead),
        outcome: Samples::of_times(&outcome),
        daemons_dead: Samples::of_times(&daemons_dead),
    })
}

/// A shell that waits for children that have left its session, and so its process group.
fn with_daemons() -> TaskSpec {
    let script = format!("for n in $(seq {DAEMONS}); do setsid sleep 1000 & done; wait");
    TaskSpec::command("sh", ["-c".to_owned(), script])
}

/// Starts a task, waits until so many of its processes sleep, cancels it; returns the times to the death
/// of all and to the outcome.
async fn one(
    client: &Client,
    spec: TaskSpec,
    sleepers: usize,
) -> Result<(Duration, Duration), BenchError> {
    let id = client.submit(spec).await?.task.id;
    let processes = timeout(PATIENCE, watched(&id, sleepers)).await;
    let missing = || BenchError::Missing { missing: 1, patience: PATIENCE };
    let processes = processes.map_err(|_| BenchError::Proc { what: "a task's processes" })??;
    // The worker is idle again.
    sleep(PAUSE).await;
    let options = CancelOptions {
        request: CancelRequest::default(),
        wait: PATIENCE,
        unknown: UnknownTask::Refuse,
    };
    let start = Instant::now();
    // A thread of its own sees the deaths at once, whatever this runtime does.
    let dead = spawn_blocking(move || last_death(&processes));
    let canceled = async { (client.cancel(&id, &options).await, start.elapsed()) };
    let (dead, (canceled, returned)) = futures_util::future::join(dead, canceled).await;
    let dead = dead.ok().flatten().ok_or_else(missing)? - start;
    match canceled? {
        Canceled::Ended(outcome) if outcome.phase == Phase::Canceled => Ok((dead, returned)),
        Canceled::Ended(outcome) | Canceled::AlreadyEnded(outcome) => {
            Err(BenchError::Task { id, phase: outcome.phase, why: None })
        }
        Canceled::Requested => Err(missing()),
    }
}

/// Waits until all processes are dead; returns when the last of them was. None: not in time.
fn last_death(processes: &[OwnedFd]) -> Option<Instant> {
    let patience = PollTimeout::try_from(PATIENCE).ok()?;
    for process in processes {
        let died = poll(&mut [PollFd::new(process.as_fd(), PollFlags::POLLIN)], patience);
        if died != Ok(1) {
            return None;
        }
    }
    Some(Instant::now())
}

/// Waits until a task has so many processes that sleep, and opens all that it has.
async fn watched(id: &TaskId, sleepers: usize) -> Result<Vec<OwnedFd>, BenchError> {
    let failed = || BenchError::Proc { what: "a task's processes" };
    let mark = format!("RUNLANE_TASK_ID={id}");
    loop {
        let all: Vec<u32> = pids().filter(|pid| has_variable(*pid, &mark)).collect();
        let sleeping = all.iter().filter(|pid| name(**pid) == "sleep").count();
        if sleeping == sleepers {
            let open = |pid: u32| {
                let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
                pidfd_open(pid, PidfdFlags::empty()).ok()
            };
            return all.into_iter().map(|pid| open(pid).ok_or_else(failed)).collect();
        }
        sleep(Duration::from_millis(2)).await;
    }
}

fn has_variable(pid: u32, variable: &str) -> bool {
    let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    environ.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes())
}

fn name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}
