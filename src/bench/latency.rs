//! How long one task takes, the machine being idle: from before its submission to its outcome, and to
//! its first byte of output, as its submitter knows it.
//!
//! Bare spawns are measured in between, one for each task, so that what slows the one slows the other.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

use super::error::PATIENCE;
use super::helper::TRUE;
use super::limits::{PAUSE, SpawnProbe};
use super::stats::{Samples, Spread};
use super::throughput::succeeded;
use super::{BenchError, Progress, Site};
use crate::client::{Client, FollowEvent, Submitter};
use crate::nats::Subscription;
use crate::wire::{Outcome, Selector, TaskId, TaskSpec};

/// Tasks that run before the first round.
const WARM_UP: usize = 10;

/// How latency is measured.
#[derive(Debug, Clone)]
pub struct LatencyOptions {
    /// Rounds.
    pub rounds: usize,
    /// Tasks of each kind in each round.
    pub tasks: usize,
    /// Labels that the tasks ask for.
    pub selector: Option<Selector>,
}

/// How long one task takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    /// Tasks of each kind in each round.
    pub tasks: usize,
    /// A bare spawn and wait of /bin/true: median.
    pub spawn_p50_ms: Spread,
    /// The same: 99th percentile.
    pub spawn_p99_ms: Spread,
    /// From before the submission of /bin/true until its outcome is heard: median.
    pub outcome_p50_ms: Spread,
    /// The same: 99th percentile.
    pub outcome_p99_ms: Spread,
    /// The same: the longest.
    pub outcome_max_ms: Spread,
    /// From before the submission of a task that writes a line until a follower has it: median.
    pub first_byte_p50_ms: Spread,
    /// The same: 99th percentile.
    pub first_byte_p99_ms: Spread,
    /// From the same moment until the follower has the outcome: median.
    pub followed_outcome_p50_ms: Spread,
    /// How many times the median of a bare spawn these are, round by round.
    pub times_spawn: TimesSpawn,
}

/// Ratios to the median of a bare spawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimesSpawn {
    /// Median to the outcome.
    pub outcome_p50: Spread,
    /// 99th percentile to the outcome.
    pub outcome_p99: Spread,
    /// Median to the first byte.
    pub first_byte_p50: Spread,
    /// 99th percentile to the first byte.
    pub first_byte_p99: Spread,
}

/// Samples of one round.
struct Round {
    spawn: Samples,
    outcome: Samples,
    first_byte: Samples,
    followed: Samples,
}

/// Measures tasks one by one.
///
/// # Errors
/// A task fails, or its outcome does not come.
pub async fn latency(
    site: &mut Site,
    options: &LatencyOptions,
    progress: Progress<'_>,
) -> Result<Latency, BenchError> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    site.start_worker(cores).await?;
    let mut lone = Lone::new(site.client(), options.selector.clone()).await?;
    let mut probe = SpawnProbe::start().await?;
    measure_round(&mut lone, &mut probe, WARM_UP).await?;
    let mut rounds = Vec::new();
    for round in 1..=options.rounds {
        progress(&format!("latency: round {round} of {}", options.rounds));
        rounds.push(measure_round(&mut lone, &mut probe, options.tasks).await?);
    }
    site.remember(lone.tasks);
    Ok(summary(options.tasks, &rounds))
}

fn summary(tasks: usize, rounds: &[Round]) -> Latency {
    let over = |value: fn(&Round) -> f64| Spread::over(rounds, value);
    Latency {
        tasks,
        spawn_p50_ms: over(|round| round.spawn.p50()),
        spawn_p99_ms: over(|round| round.spawn.p99()),
        outcome_p50_ms: over(|round| round.outcome.p50()),
        outcome_p99_ms: over(|round| round.outcome.p99()),
        outcome_max_ms: over(|round| round.outcome.max()),
        first_byte_p50_ms: over(|round| round.first_byte.p50()),
        first_byte_p99_ms: over(|round| round.first_byte.p99()),
        followed_outcome_p50_ms: over(|round| round.followed.p50()),
        times_spawn: TimesSpawn {
            outcome_p50: over(|round| round.outcome.p50() / round.spawn.p50()),
            outcome_p99: over(|round| round.outcome.p99() / round.spawn.p50()),
            first_byte_p50: over(|round| round.first_byte.p50() / round.spawn.p50()),
            first_byte_p99: over(|round| round.first_byte.p99() / round.spawn.p50()),
        },
    }
}

async fn measure_round(
    lone: &mut Lone,
    probe: &mut SpawnProbe,
    tasks: usize,
) -> Result<Round, BenchError> {
    let (mut spawn, mut outcome) = (Vec::new(), Vec::new());
    let (mut first_byte, mut followed) = (Vec::new(), Vec::new());
    for _ in 0..tasks {
        sleep(PAUSE).await;
        spawn.push(probe.once().await?);
        sleep(PAUSE).await;
        outcome.push(within(lone.until_outcome()).await?);
        sleep(PAUSE).await;
        let (first, last) = within(lone.until_first_byte()).await?;
        first_byte.push(first);
        followed.push(last);
    }
    Ok(Round {
        spawn: Samples::of_times(&spawn),
        outcome: Samples::of_times(&outcome),
        first_byte: Samples::of_times(&first_byte),
        followed: Samples::of_times(&followed),
    })
}

async fn within<T>(task: impl Future<Output = Result<T, BenchError>>) -> Result<T, BenchError> {
    let missing = BenchError::Missing { missing: 1, patience: PATIENCE };
    timeout(PATIENCE, task).await.unwrap_or(Err(missing))
}

/// A submitter that waits for each task.
pub(super) struct Lone {
    submitter: Submitter,
    /// Made before the tasks: who submits one after the other keeps it.
    outcomes: Subscription,
    selector: Option<Selector>,
    /// All that were submitted.
    tasks: Vec<TaskId>,
}

impl Lone {
    pub(super) async fn new(
        client: &Client,
        selector: Option<Selector>,
    ) -> Result<Self, BenchError> {
        let outcomes = client.bus().subscribe(client.bus().subjects().outcome_all()).await?;
        let (submitter, tasks) = (client.submitter(), Vec::new());
        Ok(Self { submitter, outcomes, selector, tasks })
    }

    /// Runs tasks one by one, the machine being idle in between; returns the median in milliseconds.
    pub(super) async fn p50_ms(&mut self, tasks: usize) -> Result<f64, BenchError> {
        let mut times = Vec::with_capacity(tasks);
        for _ in 0..tasks {
            sleep(PAUSE).await;
            times.push(within(self.until_outcome()).await?);
        }
        Ok(Samples::of_times(&times).p50())
    }

    fn task(&self, command: &str, args: &[&str]) -> TaskSpec {
        let mut spec = TaskSpec::command(command, args.iter().map(|arg| (*arg).to_owned()));
        spec.runner_selector = self.selector.clone();
        spec
    }

    async fn until_outcome(&mut self) -> Result<Duration, BenchError> {
        let spec = self.task(TRUE, &[]);
        let start = Instant::now();
        let submission = self.submitter.submit(spec).await?;
        self.heard(&submission.task.id).await?;
        let time = start.elapsed();
        self.tasks.push(submission.task.id);
        Ok(time)
    }

    async fn heard(&mut self, id: &TaskId) -> Result<(), BenchError> {
        while let Some(message) = self.outcomes.next().await {
            if let Ok(outcome) = serde_json::from_slice::<Outcome>(&message.payload)
                && outcome.id == *id
            {
                return succeeded(&outcome);
            }
        }
        Err(BenchError::Missing { missing: 1, patience: Duration::ZERO })
    }

    /// As `runlane run` does it: submit and follow. Returns the times to the first byte and to the
    /// outcome.
    async fn until_first_byte(&mut self) -> Result<(Duration, Duration), BenchError> {
        let spec = self.task("/bin/echo", &["x"]);
        let start = Instant::now();
        let (submission, mut follow) = self.submitter.submit_and_follow(spec).await?;
        self.tasks.push(submission.task.id);
        let mut first = None;
        while let Some(event) = follow.next().await? {
            match event {
                FollowEvent::Chunk(_) => drop(first.get_or_insert_with(|| start.elapsed())),
                FollowEvent::Outcome(outcome) => {
                    succeeded(&outcome)?;
                    let missing = BenchError::Missing { missing: 1, patience: Duration::ZERO };
                    return Ok((first.ok_or(missing)?, start.elapsed()));
                }
                FollowEvent::Gap(_)
                | FollowEvent::Status(_)
                | FollowEvent::Unreachable(_)
                | FollowEvent::Reachable => {}
            }
        }
        Err(BenchError::Missing { missing: 1, patience: Duration::ZERO })
    }
}
