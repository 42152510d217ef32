//! The end of an attempt as a step of the task's chain: finished, retrying, or requeued.
//!
//! ```text
//! how it ended ─► retry policy ─► finished ─► outcome ─► ack
//!       │              └────────► retrying ─► nak with the delay, kept by the server
//!       └─ draining ────────────► requeued ─► nak
//! ```
//!
//! The record decides and is appended after our own start only: a worker that lost the task is
//! refused, says so in its log, and sends nothing more. Everything after the record can be repeated by
//! whoever finds it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

use super::attempt::{AttemptEnd, StartNews};
use super::claim::{Taken, finished};
use super::judge::{judge, outcome_of, under};
use super::shared::Shared;
use super::stop;
use crate::client::schedule::schedule;
use crate::exec::Stop;
use crate::nats::{AckHandle, Append, BusError};
use crate::task::Task;
use crate::task::{self, History, LaunchPlan, Next, PlanError};
use crate::wire::{
    ErrorDetail, Outcome, Phase, PurgeTimer, Requeued, Retrying, Started, StatusEvent, StopReason,
    TaskId, Timer,
};

/// How long the end of a task is kept in memory while the server is away.
const KEEP_END: Duration = Duration::from_secs(3600);
/// How long a record is tried before it is also kept on disk.
const STORE_SOON: Duration = Duration::from_secs(3);
/// Pause between two tries of what follows the record.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// What the run amounts to for its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settled {
    /// A record says how it goes on.
    Recorded,
    /// The task was handed back because the worker ends.
    Requeued,
}

/// Why a run's end is not recorded.
#[derive(Debug, thiserror::Error)]
pub(super) enum FinishError {
    /// Somebody else's record follows our start.
    #[error("the task is not ours any more; its result here is dropped")]
    Fenced,
    /// The server could not be reached for too long.
    #[error("the end of the task could not be stored")]
    Store(#[from] BusError),
}

/// Records the end of an attempt and answers the delivery.
pub(super) async fn settle(
    shared: &Shared,
    handle: &AckHandle,
    task: &Task,
    taken: &Taken,
    plan: &LaunchPlan,
    (end, start): (AttemptEnd, Option<StartNews<'_>>),
) -> Result<Settled, FinishError> {
    let (outcome, ended_as) = judge(shared, task, taken, end);
    let outcome = under(plan, outcome);
    if outcome.cause.as_ref().is_some_and(|cause| cause.reason == StopReason::Draining) {
        drop(start);
        requeue(shared, handle, &task.id, taken).await?;
        return Ok(Settled::Requeued);
    }
    let Started { failures, worker_losses, .. } = taken.started;
    let history = History { failures, worker_losses, last_delay: taken.last_delay };
    match task::after_attempt(&task.retry, task.loss.max_worker_losses, ended_as, history, random())
    {
        Next::Finish(phase) => {
            let outcome = Outcome { phase, ..outcome };
            let seq = finish(shared, handle, taken, outcome, start).await?;
            forget_later(shared, task, seq).await;
        }
        Next::Retry { delay, failures, worker_losses } => {
            drop(start);
            let counts = (failures, worker_losses);
            retry(shared, handle, taken, outcome, delay, counts).await?;
        }
    }
    Ok(Settled::Recorded)
}

/// Ends a task that was canceled before its process was started. Returns the sequence of its last record.
pub(super) async fn cancel_unstarted(
    shared: &Shared,
    handle: &AckHandle,
    id: &TaskId,
    taken: &Taken,
    stop: &Stop,
) -> Result<u64, FinishError> {
    let mut outcome = outcome_of(shared, id, taken, Phase::Canceled);
    outcome.cause = Some(stop::cause(stop));
    finish(shared, handle, taken, outcome, None).await
}

/// Ends a task that its runner can't run.
pub(super) async fn reject(
    shared: &Shared,
    handle: &AckHandle,
    id: &TaskId,
    taken: &Taken,
    error: &PlanError,
) -> Result<(), FinishError> {
    let mut outcome = outcome_of(shared, id, taken, Phase::Rejected);
    outcome.error = Some(ErrorDetail {
        step: error.step().to_owned(),
        message: error.to_string(),
        problems: Vec::new(),
    });
    finish(shared, handle, taken, outcome, None).await.map(drop)
}

/// Hands a task back: another worker may start it at once.
pub(super) async fn requeue(
    shared: &Shared,
    handle: &AckHandle,
    id: &TaskId,
    taken: &Taken,
) -> Result<(), FinishError> {
    let event = StatusEvent::Requeued(Requeued {
        attempt: taken.started.attempt,
        worker: shared.worker.clone(),
        reason: StopReason::Draining,
        failures: taken.started.failures,
        worker_losses: taken.started.worker_losses,
        queue_seq: taken.started.queue_seq,
        at: Timestamp::now(),
    });
    append(shared, id, &event, taken.seq, || {}).await?;
    tracing::info!(task = %id, "task handed back");
    handle.nak(&shared.bus, Duration::ZERO).await?;
    Ok(())
}

/// Lets the server's clock end the results of a task that asked for it. `finished` is the sequence of its last
/// record.
pub(super) async fn forget_later(shared: &Shared, task: &Task, finished: u64) {
    let Some(ttl) = task.ttl else { return };
    let ttl = SignedDuration::try_from(ttl).unwrap_or(SignedDuration::MAX);
    let at = Timestamp::now().checked_add(ttl).unwrap_or(Timestamp::MAX);
    let payload = serde_json::to_vec(&PurgeTimer { finished_seq: Some(finished) });
    let payload = payload.expect("a number is plain JSON").into();
    if let Err(error) = schedule(&shared.bus, &task.id, Timer::Purge, at, payload).await {
        tracing::warn!(task = %task.id, %error, "results are kept as long as their streams keep them");
    }
}

/// What follows a finished record, by whoever finds it: the outcome and the slot, then the ack.
pub(super) async fn conclude(
    shared: &Shared,
    handle: &AckHandle,
    outcome: &Outcome,
    slot: Option<&str>,
) -> Result<(), BusError> {
    // The next tasks' records are about to be sent, so nobody waits much longer for this one.
    if *shared.is_crowded.borrow() {
        shared.bus.company().await;
    }
    // Before the ack: while the message is there, a redelivery repairs what was left undone.
    let ((), published) =
        tokio::join!(shared.release(slot, &outcome.id), publish_outcome(shared, outcome));
    published?;
    handle.ack(&shared.bus);
    Ok(())
}

/// The same for a record that was found: its outcome may be there already.
pub(super) async fn conclude_found(
    shared: &Shared,
    handle: &AckHandle,
    outcome: &Outcome,
    slot: Option<&str>,
) -> Result<(), BusError> {
    shared.log.ensure_outcome(outcome).await?;
    shared.release(slot, &outcome.id).await;
    handle.ack(&shared.bus);
    Ok(())
}

async fn publish_outcome(shared: &Shared, outcome: &Outcome) -> Result<(), BusError> {
    let deadline = Instant::now() + KEEP_END;
    loop {
        match shared.log.publish_outcome(outcome).await {
            Ok(()) => return Ok(()),
            Err(error) if error.is_passing() && Instant::now() < deadline => {
                sleep(error.pause(RETRY_PAUSE)).await
            }
            Err(error) => return Err(error),
        }
    }
}

async fn finish(
    shared: &Shared,
    handle: &AckHandle,
    taken: &Taken,
    outcome: Outcome,
    mut start: Option<StartNews<'_>>,
) -> Result<u64, FinishError> {
    // The next task has this one's place by then, and its start comes first.
    shared.bus.after_others().await;
    let record = finished(outcome.clone());
    let seq = append(shared, &outcome.id, &record, taken.seq, || drop(start.take())).await?;
    // Whoever waits for the outcome doesn't wait for the log: that is written when the outcome has left.
    let told = async {
        yield_now().await;
        drop(start);
        shared.count_completed(&outcome);
    };
    let concluded = conclude(shared, handle, &outcome, taken.slot.as_deref());
    let (concluded, ()) = tokio::join!(concluded, told);
    concluded?;
    Ok(seq)
}

async fn retry(
    shared: &Shared,
    handle: &AckHandle,
    taken: &Taken,
    ended: Outcome,
    delay: Duration,
    (failures, worker_losses): (u32, u32),
) -> Result<(), FinishError> {
    let id = ended.id.clone();
    let event = StatusEvent::Retrying(Retrying {
        ended: ended.clone(),
        delay_ms: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
        failures,
        worker_losses,
        queue_seq: taken.started.queue_seq,
        at: Timestamp::now(),
    });
    let seq = append(shared, &id, &event, taken.seq, || {}).await?;
    shared.count_retry(&taken.started.runner);
    let error = ended.error.as_ref().map(|error| error.message.as_str());
    tracing::info!(task = %id, phase = %ended.phase, error, delay = ?delay, "task will be retried");
    // The canceller writes first and reads the chain after; we do the same the other way round.
    if let Some(request) = shared.log.cancel_request(&id).await? {
        let mut outcome = Outcome { phase: Phase::Canceled, ..ended };
        outcome.cause = Some(stop::cause(&stop::canceled(request)));
        let taken = Taken { seq, ..taken.clone() };
        return finish(shared, handle, &taken, outcome, None).await.map(drop);
    }
    handle.nak(&shared.bus, delay).await?;
    Ok(())
}

/// Appends a record, however long that takes; `away` is called if it takes long.
async fn append(
    shared: &Shared,
    id: &TaskId,
    event: &StatusEvent,
    expected: u64,
    away: impl FnOnce(),
) -> Result<u64, FinishError> {
    let soon = shared.log.append(id, event, expected, Instant::now() + STORE_SOON);
    // A try that is given up here may have been stored: the next one recognises its own record.
    let soon = timeout(STORE_SOON, soon).await.unwrap_or(Err(BusError::Unclear(STORE_SOON)));
    let appended = match soon {
        Err(error) if error.is_passing() => {
            away();
            // The server is away: a copy on disk outlives this worker.
            let kept = shared.spool.keep(id, expected, event, &error).await;
            let late = append_late(shared, id, event, expected).await;
            if kept && late.is_ok() {
                shared.spool.forget(id, expected).await;
            }
            late?
        }
        settled => settled?,
    };
    match appended {
        Append::Won(seq) => Ok(seq),
        Append::Lost(_) => Err(FinishError::Fenced),
    }
}

/// Appends a record when the server is back, or lets us.
async fn append_late(
    shared: &Shared,
    id: &TaskId,
    event: &StatusEvent,
    expected: u64,
) -> Result<Append, BusError> {
    let deadline = Instant::now() + KEEP_END;
    loop {
        match shared.log.append(id, event, expected, deadline).await {
            Err(error) if error.is_denied() && Instant::now() < deadline => {
                sleep(error.pause(RETRY_PAUSE)).await;
            }
            settled => return settled,
        }
    }
}

/// A number from 0 up to, but not, 1, for the spread of delays; it needs no more than to differ.
fn random() -> f64 {
    // The first 53 bits: a double's precision, and before the bits that say the UUID's variant.
    let bits = uuid::Uuid::new_v4().as_u128() >> (128 - 53);
    bits as f64 / (1_u64 << 53) as f64
}
