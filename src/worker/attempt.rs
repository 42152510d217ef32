//! One attempt: start the process, move its output, end it, and say how it went.
//!
//! ```text
//!  launch ─► supervise ───────────────► ended ─┐
//!     └────► pump ─► chunks ─► publisher ──────┴─► AttemptEnd
//! ```
//!
//! All of it goes on side by side in this one future. What the program writes is read before its start is
//! reported, which is some milliseconds later, or together with its end. The supervisor owns the process; the pump reads
//! until both pipes are at their end, or for a bounded time after the last process is dead; the
//! publisher returns when every chunk is confirmed.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::maybe_done;
use jiff::Timestamp;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::sleep;

use super::claim::Taken;
use super::lease::Lease;
use super::places::Ask;
use super::shared::Shared;
use crate::exec::{self, Armed, Ended, Executed, LaunchError, Output, Stop, SuperviseError};
use crate::exec::{TaskProcess, Word};
use crate::nats::{Delivery, StoredOutput};
use crate::output::{Chunk, ChunkerSettings, LineLog, PumpSettings, PumpTotals, pump};
use crate::task::{LaunchPlan, Sandbox};
use crate::telemetry::metrics;
use crate::wire::{OutputTotals, StopReason, Stream, TaskId};

/// Chunks between the pump and the publisher; when they are full the pump stops reading.
const CHUNK_QUEUE: usize = 2;
/// Time for which small writes are put together to one chunk.
const COALESCE: Duration = Duration::from_millis(5);

/// Time for which a started task has the CPU to itself, before processes for the next ones are made.
const SPARES_AFTER: Duration = Duration::from_millis(5);

/// How long a program that may have begun is waited for after a stop has come: until then it is not known
/// whether there is anything to end politely, and to tell of.
const START_TIME: Duration = Duration::from_secs(1);

/// How long a start that is reported later may have been, at most.
const REPORT_TIME: Duration = Duration::from_millis(100);

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
pub(super) struct Attempted<'a> {
    pub(super) end: AttemptEnd,
    /// Its process, if it was launched; for the next task.
    pub(super) process: Option<TaskProcess>,
    /// The news of its start, if that was reported together with its end.
    pub(super) start: Option<StartNews<'a>>,
    /// What its output came from, to be closed when nobody waits any more.
    pub(super) pipes: Option<Pipes>,
}

impl From<AttemptEnd> for Attempted<'_> {
    fn from(end: AttemptEnd) -> Self {
        Self { end, process: None, start: None, pipes: None }
    }
}

/// Runs one attempt to its end.
pub(super) async fn run<'a>(
    shared: &Shared,
    delivery: &'a Delivery,
    taken: &'a Taken,
    (plan, armed): (&LaunchPlan, Option<Armed>),
    lease: &Lease,
    stop: watch::Receiver<Option<Stop>>,
) -> Attempted<'a> {
    let id = &delivery.id;
    let (word, late_stop) = (Word::default(), stop.clone());
    let (outputs_tx, outputs) = mpsc::unbounded_channel();
    let (gone_tx, gone) = oneshot::channel();
    // Pinned here: a future that is handed on by value takes its room twice.
    let stored = store_output(shared, (id, taken), plan, lease, (outputs, gone));
    let mut stored = pin!(maybe_done(stored));
    let mut writers = None;
    let held = &mut writers;
    let hand_over = move |Output { stdout, stderr, writers }| {
        // Those of a try before are closed by that, and so its pump ends.
        *held = Some(writers);
        // An output that nobody waits for belongs to an attempt that was given up.
        outputs_tx.send((stdout, stderr)).ok();
    };
    // Boxed, because it ends long before what goes on beside it: a task that runs doesn't have its room.
    let launch = Box::pin(shared.spawner.launch_armed(armed, plan, &word, hand_over));
    let limit = plan.timeout.map(|timeout| timeout.max(LAUNCH_TIME));
    let launch = unless_stopped(launch, &word, limit, stop.clone());
    let Executed { started_at, mut process, pid } =
        match while_it_runs(launch, stored.as_mut()).await {
            Ok(Ok(executed)) => executed,
            Ok(Err(error)) => {
                shared.tell_start(id, Some(&error));
                return AttemptEnd::NotLaunched(error).into();
            }
            Err(stop) => return AttemptEnd::StoppedBefore(stop).into(),
        };
    shared.tell_start(id, None);
    // Its time began before; a clock that was set in between takes little of it.
    let reported_after = elapsed(started_at, Timestamp::now()).min(REPORT_TIME);
    let news = StartNews { delivery, taken, pid, started_at };
    // What has ended already is settled first.
    let start = process.has_ended().then_some(news);
    let supervised = async {
        let timeout = plan.timeout.map(|timeout| timeout.saturating_sub(reported_after));
        let ended =
            exec::supervise(&mut process, timeout, plan.grace, plan.stop_signal, stop).await;
        let finished_at = Timestamp::now();
        lease.process_is_gone();
        if ended.is_ok() {
            // If the loop is behind, the place is free when the end is stored.
            shared.places.try_send(Ask::Over(id.clone())).ok();
        }
        drop(writers);
        // The pump may have ended first, when it could not read.
        let _pump_is_done = gone_tx.send(());
        (ended, finished_at)
    };
    let (ended, finished_at) = {
        let supervised = pin!(supervised);
        let supervised = while_it_runs(supervised, make_spares(shared, &plan.sandbox));
        let all = pin!(async { tokio::join!(supervised, stored.as_mut()).0 });
        while_it_runs(all, hear_of_a_cancel(late_stop, lease)).await
    };
    let (output, pipes) = stored.take_output().expect("it was waited for");
    let end = match ended {
        Ok(ended) => {
            AttemptEnd::Ended(Box::new(EndedRun { ended, started_at, finished_at, output }))
        }
        Err(error) => AttemptEnd::Broken(error),
    };
    Attempted { end, process: Some(process), start, pipes }
}

/// The reading ends of a program's output.
pub(super) type Pipes = (pipe::Receiver, pipe::Receiver);

/// Moves a program's output from its pipes into the stream, to the end.
async fn store_output(
    shared: &Shared,
    (id, taken): (&TaskId, &Taken),
    plan: &LaunchPlan,
    lease: &Lease,
    (mut outputs, mut gone): (mpsc::UnboundedReceiver<Pipes>, oneshot::Receiver<()>),
) -> (OutputTotals, Option<Pipes>) {
    let attempt = taken.started.attempt;
    let (chunk_tx, chunks) = mpsc::channel::<Chunk>(CHUNK_QUEUE);
    let settings = PumpSettings::new(ChunkerSettings {
        chunk_max: shared.publisher.max_chunk(),
        coalesce: COALESCE,
        limits: plan.output,
    });
    let line_log = shared.line_log(&taken.started.runner);
    let lines = || {
        let max = line_log.as_ref()?.max_line_bytes;
        Some(LineLog::new(id.clone(), attempt, max))
    };
    let pumped = async move {
        let (mut totals, mut pipes) = (PumpTotals::default(), None);
        // The last one is that of the try that started the program: of one that failed before, there is none.
        while let Some((mut stdout, mut stderr)) = outputs.recv().await {
            let sink = chunk_tx.clone();
            totals = pump(&mut stdout, &mut stderr, settings, &mut gone, sink, lines()).await;
            pipes = Some((stdout, stderr));
        }
        (totals, pipes)
    };
    let stored = shared.publisher.run(id, (attempt, plan.compression), lease, chunks);
    let ((totals, pipes), stored) = tokio::join!(pumped, stored);
    let output = output_totals(&totals, stored);
    metrics::output_bytes(Stream::Stdout, output.stdout.stored_bytes);
    metrics::output_bytes(Stream::Stderr, output.stderr.stored_bytes);
    (output, pipes)
}

/// That a task has started, for the log and the metrics: told when it is dropped, at the latest.
pub(super) struct StartNews<'a> {
    delivery: &'a Delivery,
    taken: &'a Taken,
    pid: i32,
    started_at: Timestamp,
}

impl Drop for StartNews<'_> {
    fn drop(&mut self) {
        let Self { delivery, taken: Taken { started, .. }, pid, started_at } = self;
        tracing::info!(task = %delivery.id, attempt = %started.attempt, pid, "task started");
        metrics::task_started(
            &started.runner,
            elapsed(delivery.published, *started_at),
            elapsed(delivery.received, *started_at),
        );
    }
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
