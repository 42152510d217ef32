//! One attempt: start the process, move its output, end it, and say how it went.
//!
//! ```text
//!  launch ─► supervise ───────────────► ended ─┐
//!       └──► pump ─► chunks ─► publisher ──────┴─► AttemptEnd
//! ```
//!
//! All three run side by side in this one future. The supervisor owns the process; the pump reads
//! until both pipes are at their end, or for a bounded time after the last process is dead; the
//! publisher returns when every chunk is confirmed.

use std::pin::pin;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;

use super::claim::Taken;
use super::lease::Lease;
use super::places::Ask;
use super::shared::Shared;
use crate::exec::{self, Armed, Ended, LaunchError, Launched, Stop, SuperviseError};
use crate::exec::{TaskProcess, Word};
use crate::nats::{Delivery, StoredOutput};
use crate::output::{Chunk, ChunkerSettings, LineLog, PumpSettings, PumpTotals, pump};
use crate::task::{LaunchPlan, Sandbox};
use crate::telemetry::metrics;
use crate::wire::{OutputTotals, StopReason, Stream};

/// Chunks between the pump and the publisher; when they are full the pump stops reading.
const CHUNK_QUEUE: usize = 2;
/// Time for which small writes are put together to one chunk.
const COALESCE: Duration = Duration::from_millis(5);

/// Time for which a started task has the CPU to itself, before processes for the next ones are made.
const SPARES_AFTER: Duration = Duration::from_millis(5);

/// How long a program that may have begun is waited for after a stop has come: until then it is not known
/// whether there is anything to end politely, and to tell of.
const START_TIME: Duration = Duration::from_secs(1);

/// How long the start of a task with a time limit may take, at least: a busy host is not its matter.
const LAUNCH_TIME: Duration = Duration::from_secs(10);

/// How an attempt went.
pub(super) enum AttemptEnd {
    /// The process could not be started.
    NotLaunched(LaunchError),
    /// A stop, or the time limit, came before the process was started.
    StoppedBefore(Stop),
    /// The process has ended, and nothing of it is left.
    Ended(Box<EndedRun>),
    /// Our own supervision failed: how the processes ended, or whether, is not known.
    Broken(SuperviseError),
}

/// A process that has ended.
pub(super) struct EndedRun {
    pub(super) ended: Ended,
    pub(super) started_at: Timestamp,
    pub(super) finished_at: Timestamp,
    pub(super) output: OutputTotals,
}

/// An attempt that is over.
pub(super) struct Attempted {
    pub(super) end: AttemptEnd,
    /// Its process, if it was launched; for the next task.
    pub(super) process: Option<TaskProcess>,
}

impl From<AttemptEnd> for Attempted {
    fn from(end: AttemptEnd) -> Self {
        Self { end, process: None }
    }
}

/// Runs one attempt to its end.
pub(super) async fn run(
    shared: &Shared,
    delivery: &Delivery,
    taken: &Taken,
    (plan, armed): (&LaunchPlan, Option<Armed>),
    lease: &Lease,
    stop: watch::Receiver<Option<Stop>>,
) -> Attempted {
    let (word, late_stop) = (Word::default(), stop.clone());
    let launch = shared.spawner.launch_armed(armed, plan, &word);
    let limit = plan.timeout.map(|timeout| timeout.max(LAUNCH_TIME));
    let launched = match unless_stopped(launch, &word, limit, stop.clone()).await {
        Ok(Ok(launched)) => launched,
        Ok(Err(error)) => {
            shared.tell_start(&delivery.id, Some(&error));
            return AttemptEnd::NotLaunched(error).into();
        }
        Err(stop) => return AttemptEnd::StoppedBefore(stop).into(),
    };
    let id = &delivery.id;
    shared.tell_start(id, None);
    let Launched { started_at, stdout, stderr, mut process, pid } = launched;
    tell_of_the_start(delivery, taken, pid, started_at);
    let (chunk_tx, chunks) = mpsc::channel::<Chunk>(CHUNK_QUEUE);
    let (gone_tx, gone) = oneshot::channel();
    let settings = PumpSettings::new(ChunkerSettings {
        chunk_max: shared.publisher.max_chunk(),
        coalesce: COALESCE,
        limits: plan.output,
    });
    let lines = shared
        .line_log(&taken.started.runner)
        .map(|log| LineLog::new(id.clone(), taken.started.attempt, log.max_line_bytes));
    let supervised = async {
        let ended =
            exec::supervise(&mut process, plan.timeout, plan.grace, plan.stop_signal, stop).await;
        let finished_at = Timestamp::now();
        lease.process_is_gone();
        if ended.is_ok() {
            // If the loop is behind, the place is free when the end is stored.
            shared.places.try_send(Ask::Over(id.clone())).ok();
        }
        // The pump may have ended first, when both pipes were closed before the exit.
        let _pump_is_done = gone_tx.send(());
        (ended, finished_at)
    };
    let ((ended, finished_at), totals, stored) = {
        // Pinned here: a future that is handed on by value takes its room twice.
        let supervised = pin!(supervised);
        let supervised = while_it_runs(supervised, make_spares(shared, &plan.sandbox));
        let all = pin!(async {
            tokio::join!(
                supervised,
                pump(stdout, stderr, settings, gone, chunk_tx, lines),
                shared.publisher.run(id, (taken.started.attempt, plan.compression), lease, chunks),
            )
        });
        while_it_runs(all, hear_of_a_cancel(late_stop, lease)).await
    };
    let output = output_totals(&totals, stored);
    metrics::output_bytes(Stream::Stdout, output.stdout.stored_bytes);
    metrics::output_bytes(Stream::Stderr, output.stderr.stored_bytes);
    let end = match ended {
        Ok(ended) => {
            AttemptEnd::Ended(Box::new(EndedRun { ended, started_at, finished_at, output }))
        }
        Err(error) => AttemptEnd::Broken(error),
    };
    Attempted { end, process: Some(process) }
}

fn tell_of_the_start(delivery: &Delivery, taken: &Taken, pid: i32, started_at: Timestamp) {
    tracing::info!(task = %delivery.id, attempt = %taken.started.attempt, pid, "task started");
    metrics::task_started(
        &taken.started.runner,
        elapsed(delivery.published, started_at),
        elapsed(delivery.received, started_at),
    );
}

/// Tells the lease of a cancel, which may come when the processes are gone, and only their output is left
/// to be stored.
async fn hear_of_a_cancel(mut stop: watch::Receiver<Option<Stop>>, lease: &Lease) {
    let is_cancel =
        |stop: &Stop| matches!(stop.reason, StopReason::Canceled | StopReason::Replaced);
    stopped(&mut stop, is_cancel).await;
    lease.end_is_asked_for();
}

/// Makes processes for the next tasks, once this one had the time to start: it would have to share
/// the CPU with their forks.
async fn make_spares(shared: &Shared, sandbox: &Sandbox) {
    if shared.spawner.has_spare(sandbox) {
        return;
    }
    tokio::time::sleep(SPARES_AFTER).await;
    // Without spares the next launch takes longer, and says why they can't be made.
    shared.spawner.prepare(sandbox).await.ok();
}

/// Does something on the side, for as long as the main thing takes.
async fn while_it_runs<T>(main: impl Future<Output = T>, aside: impl Future<Output = ()>) -> T {
    let (mut main, mut aside) = (std::pin::pin!(main), std::pin::pin!(aside));
    // Cancel safe: whatever of the aside was done counts, and the main thing is only borrowed.
    tokio::select! {
        biased;
        done = &mut main => done,
        () = &mut aside => main.await,
    }
}

/// Waits for a launch, unless a stop or the time limit comes before the word to execute the program. After it
/// the program may have begun: then its start is waited for, and whoever supervises it obeys the stop. A
/// program that starts has the whole of its time.
async fn unless_stopped<T, E>(
    launch: impl Future<Output = Result<T, E>>,
    word: &Word,
    limit: Option<Duration>,
    mut stop: watch::Receiver<Option<Stop>>,
) -> Result<Result<T, E>, Stop> {
    let mut launch = pin!(launch);
    let too_late = async {
        match limit {
            Some(limit) => sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    // Cancel safe: the launch is only borrowed. Dropping it, at a return, kills what it started.
    let asked = tokio::select! {
        launched = &mut launch => return Ok(launched),
        asked = stopped(&mut stop, |_| true) => asked,
        () = too_late => Stop::because(StopReason::Timeout),
    };
    if !word.is_given() {
        return Err(asked);
    }
    word.not_again();
    // Cancel safe, as above.
    tokio::select! {
        launched = launch => launched.map(Ok).map_err(|_| asked),
        _ = stopped(&mut stop, |stop| stop.reason == StopReason::LeaseLost) => Err(asked),
        () = sleep(START_TIME) => Err(asked),
    }
}

/// Returns when such a stop is asked for; never if it can't be asked for any more.
async fn stopped(
    stop: &mut watch::Receiver<Option<Stop>>,
    is_such: impl Fn(&Stop) -> bool,
) -> Stop {
    let such = stop.wait_for(|stop| stop.as_ref().is_some_and(&is_such)).await;
    match such.map(|stop| stop.clone()) {
        Ok(Some(stop)) => stop,
        Ok(None) | Err(_) => std::future::pending().await,
    }
}

fn output_totals(totals: &PumpTotals, stored: StoredOutput) -> OutputTotals {
    OutputTotals {
        stdout: totals.stdout.stored(stored.stdout.bytes, stored.stdout.chunks),
        stderr: totals.stderr.stored(stored.stderr.bytes, stored.stderr.chunks),
    }
}

fn elapsed(from: Timestamp, to: Timestamp) -> Duration {
    // Clocks of two machines may disagree: not less than nothing.
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

#[cfg(test)]
#[path = "attempt_tests.rs"]
mod tests;
