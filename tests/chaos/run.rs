//! One run from the first server to the report.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use runlane::client::Client;
use runlane::nats::topology::{self, TopologySettings};
use runlane::nats::{Bus, Connected};
use runlane::wire::{Subjects, TaskId};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::args::Options;
use crate::check::{self, Evidence, Violation};
use crate::faults::{self, World};
use crate::fleet::Fleet;
use crate::load::{self, Load, Seen};
use crate::overlap::Lives;
use crate::read;
use crate::report::Report;
use crate::sampler::{self, Sightings};
use crate::schedule;
use crate::servers::Servers;
use crate::tasks;
use crate::timeline::Timeline;

/// Without any outcome for so long after the storm, those that are missing won't come.
const NO_PROGRESS: Duration = Duration::from_secs(60);
/// How long the queue may take to be empty after the last outcome: acks follow outcomes.
const EMPTYING: Duration = Duration::from_secs(60);
/// How long followers may take after the last outcome.
const FOLLOWING: Duration = Duration::from_secs(15);
/// How many tasks' logs are printed.
const STORIES: usize = 4;

type Failure = Box<dyn Error + Send + Sync>;

/// What a run came to.
pub(crate) struct Finding {
    pub(crate) report: Report,
    /// The logs of tasks with violations.
    pub(crate) stories: Vec<String>,
}

/// Runs, and says what came of it.
pub(crate) async fn run_and_say(options: &Options) -> ExitCode {
    println!(
        "chaos: seed {}, {} tasks in {:.0} s, {} server(s), {} workers, lease {:?}",
        options.seed,
        options.tasks,
        options.storm.as_secs_f64(),
        options.servers,
        options.workers,
        options.lease
    );
    let finding = match run(options).await {
        Ok(finding) => finding,
        Err(error) => {
            eprintln!("chaos: seed {}: the run failed: {error}", options.seed);
            return ExitCode::from(3);
        }
    };
    println!("{}", finding.report.text());
    if let Some(file) = &options.json {
        let json = serde_json::to_vec_pretty(&finding.report).expect("a report is plain JSON");
        if let Err(error) = std::fs::write(file, json) {
            eprintln!("chaos: cannot write {}: {error}", file.display());
            return ExitCode::from(3);
        }
    }
    for story in &finding.stories {
        println!("{story}");
    }
    for violation in &finding.report.violations {
        println!("VIOLATION {violation}");
    }
    let count = finding.report.violations.len();
    println!("chaos: seed {}: {count} violations", options.seed);
    if count == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs once.
pub(crate) async fn run(options: &Options) -> Result<Finding, Failure> {
    let home = tempfile::Builder::new().prefix("runlane-chaos-").tempdir()?;
    let finding = run_in(home.path(), options).await?;
    if options.keep || (!finding.report.violations.is_empty() && options.unguarded.is_none()) {
        println!("chaos: the logs are kept in {}", home.keep().display());
    }
    Ok(finding)
}

async fn run_in(home: &Path, options: &Options) -> Result<Finding, Failure> {
    let servers = Servers::start(options.servers, home).await?;
    let version = servers.version.clone();
    let connected = servers.connect("chaos").await?;
    let bus = Bus::over(&connected, Subjects::default());
    set_up(&bus, options).await?;
    let mark = format!("{}-{}", options.seed, std::process::id());
    let side_file = home.join("lives");
    let (sightings, seen) = (Sightings::default(), Seen::default());
    let mut background = JoinSet::new();
    background.spawn(sampler::run(mark.clone(), sightings.clone()));
    let plans = tasks::plan(options.seed, options.tasks, options.storm, options.aim);
    let load = Load {
        client: Client::new(bus.clone()),
        mark: mark.clone(),
        side_file: side_file.clone(),
        seen: seen.clone(),
    };
    let world = Arc::new(World {
        fleet: Fleet::start(options, &servers, home).await?,
        servers,
        timeline: Timeline::default(),
        connected: connected.clone(),
        servers_busy: Arc::default(),
    });
    let mut followers = JoinSet::new();
    let whole_load = async {
        let storm = faults::storm(&world, schedule::plan(options));
        tokio::join!(storm, load.run(&plans, &mut followers));
        world.fleet.heal().await?;
        let calm = Instant::now();
        let violations = quiet(&bus, &connected, &seen.accepted()).await;
        Ok::<_, Failure>((violations, calm.elapsed().as_secs_f64()))
    };
    // Cancel safe: the keeper of the workers holds nothing.
    let (mut violations, quiet_seconds) = tokio::select! {
        done = whole_load => done?,
        kept = world.fleet.keep(&world.timeline) => return Err(format!("a worker can't be started: {kept:?}").into()),
    };
    followers_end(&mut followers, FOLLOWING).await;
    violations.extend(survivors(&mark, "when all tasks had ended"));
    for worker in world.fleet.drain().await {
        violations.push(general(format!("worker {worker} did not end when it was asked to")));
    }
    violations.extend(survivors(&mark, "when all workers had ended"));
    background.shutdown().await;
    let evidence = Evidence {
        accepted: seen.accepted(),
        followed: seen.followed(),
        logs: read::read(&bus, &connected, &plans).await?,
        lives: Lives::new(
            &std::fs::read_to_string(&side_file).unwrap_or_default(),
            sightings.all(),
        ),
        timeline: world.timeline.clone(),
        lease: options.lease,
        plans,
    };
    let not_accepted = seen.not_accepted().len();
    Ok(conclude(options, version, &evidence, violations, not_accepted, quiet_seconds))
}

/// Checks what the run has left, and says what came of it.
fn conclude(
    options: &Options,
    version: String,
    evidence: &Evidence,
    violations: Vec<Violation>,
    not_accepted: usize,
    quiet_seconds: f64,
) -> Finding {
    let mut tally = check::check(evidence);
    tally.violations.extend(violations);
    let report = Report::new(options, version, evidence, &tally, not_accepted, quiet_seconds);
    let mut ids: Vec<_> =
        tally.violations.iter().filter_map(|violation| violation.task.clone()).collect();
    ids.dedup();
    let slowest = report.slowest_recoveries.first().map(|(_, task, _)| task.as_str());
    let asked = match options.story.as_deref() {
        Some("slowest") => slowest,
        asked => asked,
    };
    let asked: Option<TaskId> = asked.and_then(|id| id.parse().ok());
    let wanted = asked.iter().chain(ids.iter().take(STORIES));
    let stories = wanted.map(|id| check::story(evidence, id)).collect();
    Finding { report, stories }
}

/// Makes streams and lanes; a new cluster takes a moment until it can.
async fn set_up(bus: &Bus, options: &Options) -> Result<(), Failure> {
    let settings = TopologySettings {
        replicas: options.servers,
        lease: options.lease,
        ..TopologySettings::default()
    };
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        match topology::ensure(bus, &settings).await {
            Ok(_) => break,
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => sleep(Duration::from_millis(200)).await,
        }
    }
    load::prepare(bus, options.lease).await.map_err(|error| error.to_string().into())
}

/// Waits until every accepted task has its outcome and the queue is empty.
async fn quiet(bus: &Bus, connected: &Connected, accepted: &[TaskId]) -> Vec<Violation> {
    let client = Client::new(bus.clone());
    let mut waiter = loop {
        match client.wait(accepted.iter().cloned()).await {
            Ok(waiter) => break waiter,
            Err(_) => sleep(Duration::from_millis(200)).await,
        }
    };
    loop {
        match timeout(NO_PROGRESS, waiter.next()).await {
            Ok(Ok(Some(_))) => {}
            Ok(Ok(None)) => break,
            Ok(Err(_)) => sleep(Duration::from_millis(200)).await,
            Err(_) => {
                let missing = waiter.missing();
                let stuck = |id: &TaskId| Violation {
                    task: Some(id.clone()),
                    problem: format!(
                        "no outcome came for {} s after the storm",
                        NO_PROGRESS.as_secs()
                    ),
                };
                return missing.map(stuck).collect();
            }
        }
    }
    let deadline = Instant::now() + EMPTYING;
    let queue = bus.subjects().queue_stream();
    while Instant::now() < deadline {
        if let Ok(stream) = connected.jetstream.get_stream(&queue).await
            && stream.cached_info().state.messages == 0
        {
            return Vec::new();
        }
        sleep(Duration::from_millis(100)).await;
    }
    vec![general(format!(
        "the queue was not empty {} s after the last outcome",
        EMPTYING.as_secs()
    ))]
}

async fn followers_end(followers: &mut JoinSet<()>, limit: Duration) {
    let all = async { while followers.join_next().await.is_some() {} };
    // Those that don't end are seen by what they heard.
    if timeout(limit, all).await.is_err() {
        followers.abort_all();
    }
}

fn survivors(mark: &str, when: &str) -> Vec<Violation> {
    let survivors = sampler::survivors(mark).into_iter();
    survivors
        .map(|(pid, owner)| Violation {
            task: owner.task.parse().ok(),
            problem: format!(
                "process {pid} of attempt {} ({}) was there {when}",
                owner.attempt, owner.worker
            ),
        })
        .collect()
}

fn general(problem: String) -> Violation {
    Violation { task: None, problem }
}
