//! `runlane exec`: the worker's executor on this machine, without NATS.

use std::time::Duration;

use clap::Args;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::exit::{
    self, CANCELED, CANNOT_EXECUTE, FAILED, Failure, INVALID, NOT_FOUND, TIMEOUT, USAGE,
};
use super::global::GlobalArgs;
use super::isolation::{self, Fitted};
use super::run::Stops;
use super::task_args::{TaskArgs, list};
use super::{say, specs};
use crate::config::{Config, RawConfig};
use crate::exec::{Ended, ExitStatus, LaunchError, Launched, Spawner, Stop, set_stop, supervise};
use crate::output::chunk::{DEFAULT_CHUNK_MAX, DEFAULT_COALESCE};
use crate::output::{Chunk, ChunkerSettings, PumpSettings, pump};
use crate::task::{LaunchPlan, RunIdentity, RunnerPolicy, canonical, parse, plan};
use crate::wire::{Attempt, LaneId, StopReason, Stream, TaskId, TaskSpec, WorkerId};

/// Chunks between the pipes and our own streams; when they are full the program blocks.
const CHUNKS: usize = 2;

/// Run a task here, by the executor that workers use, without NATS
///
/// One attempt: it shows what a worker would do with the spec, with the same environment, signals and
/// clean-up, by default as under a worker without a configuration. --isolation is the runner's preset
/// here, and the task's. Labels, slots, retries and times of a start have no effect. A reader of the output
/// that goes away, such as `| head`, ends the task.
#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    /// File with one spec (JSON or YAML); - is stdin
    #[arg(value_name = "FILE")]
    file: Option<String>,

    #[command(flatten)]
    task: TaskArgs,

    /// The program and its arguments; no shell is involved
    #[arg(last = true, value_name = "CMD", help_heading = None)]
    command: Vec<String>,
}

pub(super) async fn run(global: &GlobalArgs, args: &ExecArgs) -> Result<u8, Failure> {
    // Its cgroup and work directory are there until the task is gone.
    let (config, fitted) = args.fitted()?;
    let plan = args.plan(&config, &fitted)?;
    let mut stops = Stops::listen()?;
    let launched = match Spawner::of_this_program().launch(&plan).await {
        Ok(launched) => launched,
        Err(error) => return Err(not_launched(&error)),
    };
    let Launched { stdout, stderr, mut process, .. } = launched;
    let (stop, stop_asked) = watch::channel(None);
    let (gone, leader_gone) = oneshot::channel();
    let (sink, chunks) = mpsc::channel(CHUNKS);
    let settings = PumpSettings::new(ChunkerSettings {
        chunk_max: DEFAULT_CHUNK_MAX,
        coalesce: DEFAULT_COALESCE,
        limits: plan.output,
    });
    // Our own stdout may block, so it is written by a thread that may.
    let mut printer = JoinSet::new();
    printer.spawn_blocking(move || print(chunks));
    let supervised = async {
        let ended =
            supervise(&mut process, plan.timeout, plan.grace, plan.stop_signal, stop_asked).await;
        // The pump may have ended first, when both pipes were closed before the exit.
        let _pump_is_done = gone.send(());
        ended
    };
    let work =
        async { tokio::join!(supervised, pump(stdout, stderr, settings, leader_gone, sink, None)) };
    tokio::pin!(work);
    let mut asked = 0;
    let mut unprinted = None;
    let (ended, _) = loop {
        // Cancel safe: the work is only borrowed, and a signal and the printer's end are kept until taken.
        tokio::select! {
            done = &mut work => break done,
            // Without an error both pipes are at their end.
            Some(printed) = printer.join_next() => {
                let printed = printed.map_err(|error| Failure::of(FAILED, &error)).flatten();
                if let Err(failure) = printed {
                    unprinted = Some(failure);
                    set_stop(&stop, Stop::because(StopReason::Canceled));
                }
            }
            () = stops.next() => {
                let grace = (asked > 0).then_some(Duration::ZERO);
                set_stop(&stop, Stop { grace, ..Stop::because(StopReason::Canceled) });
                asked += 1;
            }
        }
    };
    if let Some(failure) = unprinted {
        return Err(failure);
    }
    if let Some(printed) = printer.join_next().await {
        printed.map_err(|error| Failure::of(FAILED, &error))??;
    }
    let ended = ended.map_err(|error| Failure::of(FAILED, &error))?;
    Ok(tell(global, &ended))
}

fn print(mut chunks: mpsc::Receiver<Chunk>) -> Result<(), Failure> {
    while let Some(chunk) = chunks.blocking_recv() {
        match chunk.stream {
            Stream::Stdout => say::out(&chunk.data)?,
            Stream::Stderr => say::err(&chunk.data)?,
        }
    }
    Ok(())
}

fn not_launched(error: &LaunchError) -> Failure {
    let message = error.to_string();
    let code = match error {
        LaunchError::Setup { step, .. } if exit::is_not_found(step, &message) => NOT_FOUND,
        LaunchError::Setup { .. } => CANNOT_EXECUTE,
        LaunchError::Pipes(_) | LaunchError::Spawner { .. } | LaunchError::Interrupted(_) => FAILED,
    };
    Failure::of(code, error)
}

/// Tells what an exit code alone doesn't, and returns that code.
fn tell(global: &GlobalArgs, ended: &Ended) -> u8 {
    if ended.leftovers_killed > 0 {
        global.note(format!("{} process(es) that it had left were killed", ended.leftovers_killed));
    }
    match (&ended.stopped, ended.exit) {
        (Some(stop), _) if stop.reason == StopReason::Timeout => {
            global.note("the task's time limit passed");
            TIMEOUT
        }
        (Some(_), _) => CANCELED,
        (None, ExitStatus::Exited(code)) => u8::try_from(code).unwrap_or(FAILED),
        (None, ExitStatus::Signaled(signal)) => {
            global.note(format!("the task was ended by signal {signal}"));
            u8::try_from(128 + signal).unwrap_or(FAILED)
        }
    }
}

impl ExecArgs {
    fn plan(&self, config: &Config, fitted: &Fitted) -> Result<LaunchPlan, Failure> {
        let mut runners = config.worker.runners.iter().zip(fitted.runners.clone());
        let policy = runners.next().map(|(runner, isolation)| runner.policy([], isolation));
        let policy: RunnerPolicy = policy.expect("a configuration has a runner");
        let mut spec = self.spec()?;
        (spec.delay, spec.not_before, spec.start_by) = (None, None, None);
        let id = spec.id.get_or_insert_with(TaskId::generate).clone();
        let task = parse(&canonical(&spec), Some(&id)).map_err(|problems| {
            Failure::new(INVALID, format!("the task is invalid{}", list(&problems)))
        })?;
        let worker: WorkerId = "local".parse().expect("a valid worker id");
        let identity = RunIdentity {
            task: id,
            attempt: Attempt::FIRST,
            run_id: format!("exec-{}", task.slot.as_ref().map_or("none", |slot| &slot.name)),
            lane: LaneId::default_lane(),
            worker,
        };
        plan(&task, &policy, &identity).map_err(|error| Failure::of(INVALID, &error))
    }

    /// The isolation of a worker without a configuration.
    fn fitted(&self) -> Result<(Config, Fitted), Failure> {
        let mut raw = RawConfig::default();
        if let Some(preset) = self.task.isolation.isolation {
            raw = raw.with_isolation(preset.preset());
        }
        let config = Config::load(None, raw)?;
        let fitted = isolation::fit(&config, None)?;
        Ok((config, fitted))
    }

    fn spec(&self) -> Result<TaskSpec, Failure> {
        let Some(file) = &self.file else { return self.task.spec(&self.command) };
        if !self.command.is_empty() || self.task.script.is_some() {
            let message = "give either a file or a command (or --script), not both";
            return Err(Failure::new(USAGE, message));
        }
        let entries = specs::read(file)?;
        let [entry] = &entries[..] else {
            let message = format!("{file} has {} specs; `runlane exec` runs one", entries.len());
            return Err(Failure::new(USAGE, message));
        };
        let mut spec = entry.spec.clone().map_err(|problems| {
            let place = &entry.place;
            Failure::new(INVALID, format!("{place}: the spec is invalid{}", list(&problems)))
        })?;
        self.task.apply(&mut spec)?;
        Ok(spec)
    }
}
