//! Taking a task: the start of an attempt as a step of the task's status chain.
//!
//! `append started` (compare-and-set) → *then* read the cancel request from the leader → only then
//! start a process. A canceller writes first and reads the chain after, so at least one of the two
//! sees the other. Where one server stores the records, the first start's compare-and-set looks at the
//! cancel request too, and the read is saved.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use super::lease::Lease;
use super::shared::{STORE_PATIENCE, Shared};
use crate::client::Client;
use crate::client::schedule::expired;
use crate::nats::{Append, BusError, Delivery, Hold as _, StatusEntry, guards};
use crate::task::LossPolicy;
use crate::task::{self, Situation};
use crate::wire::{
    Attempt, CancelRequest, Cause, ErrorDetail, Finished, OnWorkerLost, Outcome, Phase, Started,
    StatusEvent,
};

/// How long the worker that has a task may take to say so.
const HOLDER_PATIENCE: Duration = Duration::from_millis(750);
/// Pause before a read that must succeed is tried again.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// What came of trying to take a task.
pub(super) enum Claim {
    /// It is ours: run it.
    Taken(Taken),
    /// It is ours, but a cancel was stored before it started: end it without a start.
    Canceled(Taken, CancelRequest),
    /// It has ended, before or just now, with the record of this sequence: see that the outcome is published, and
    /// ack.
    Over(Box<Outcome>, u64),
    /// Another message of the same task is being worked on: ack this one and forget it.
    Duplicate,
    /// Another worker took this very message a moment ago, or says that it still deals with it: nothing
    /// may be sent. If that one is dead, the message comes again.
    HeldElsewhere,
    /// Our hold on the message ran out while it was being taken: nothing may be sent.
    TooLate,
}

/// An attempt that is ours by the chain.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    /// The record that says so.
    pub(super) started: Started,
    /// Its sequence: what the next record must expect.
    pub(super) seq: u64,
    /// The delay before this attempt, if it is a retry.
    pub(super) last_delay: Option<Duration>,
    /// The slot that it has until its chain ends.
    pub(super) slot: Option<String>,
}

/// What the worker wants to do with the task once it has it.
pub(super) enum Intent {
    /// Run it with this runner, under this run id.
    Run {
        runner: String,
        slot: Option<String>,
        losses: LossPolicy,
        /// The time after which a task that never started is `expired`.
        start_by: Option<Timestamp>,
    },
    /// End it as rejected.
    Reject(ErrorDetail),
    /// End it as canceled, without a start.
    Cancel(Cause),
    /// End it as expired: it was not started in time.
    Expire,
}

/// Takes a task, or finds out why not. Waits while the server is away, as long as the lease lasts.
pub(super) async fn claim(
    shared: &Shared,
    delivery: &Delivery,
    lease: &Lease,
    intent: &Intent,
) -> Result<Claim, BusError> {
    // The first delivery of a new task is the common case: no record is expected, and if there is one
    // the compare-and-set finds it.
    let mut last = None;
    if delivery.delivered > 1 {
        last = shared.log.last(&delivery.id).await?;
    }
    loop {
        if let Some(StatusEvent::Started(started)) = last.as_ref().map(|last| &last.event)
            && started.queue_seq == delivery.queue_seq
            && (was_just_taken(started) || is_held_by(shared, delivery, started).await)
        {
            return Ok(Claim::HeldElsewhere);
        }
        let deadline = Instant::now() + STORE_PATIENCE.min(lease.left());
        let situation = Situation {
            last: last.as_ref().map(|last| (last.seq, &last.event)),
            queue_seq: delivery.queue_seq,
            // A redelivery of what runs here never comes this far: the loop gives it to its run.
            running: None,
            policy: intent.loss_policy(),
        };
        let (event, expected) = match task::claim(&situation) {
            task::Claim::AlreadyFinished(outcome) => {
                let seq = last.as_ref().map_or(0, |last| last.seq);
                return Ok(Claim::Over(Box::new(outcome.clone()), seq));
            }
            task::Claim::Duplicate | task::Claim::Adopt => return Ok(Claim::Duplicate),
            task::Claim::EndAsLost { expected_seq, attempt, worker_losses } => {
                (lost(shared, delivery, attempt, worker_losses), expected_seq)
            }
            // It was started after all.
            task::Claim::Start { attempt, .. }
                if matches!(intent, Intent::Expire) && attempt != Attempt::FIRST =>
            {
                return Ok(Claim::HeldElsewhere);
            }
            task::Claim::Start { attempt, expected_seq, failures, worker_losses } => {
                let counts = Counts { attempt, failures, worker_losses };
                (first_event(shared, delivery, lease, intent, &counts), expected_seq)
            }
        };
        // The common case takes one round trip: that nobody has canceled is a part of what is compared.
        if expected == 0
            && let StatusEvent::Started(started) = &event
            && let Some(seq) = shared.log.append_first(&delivery.id, &event).await
        {
            let (started, slot) = (started.clone(), intent.slot());
            return Ok(Claim::Taken(Taken { started, seq, last_delay: None, slot }));
        }
        match shared.log.append(&delivery.id, &event, expected, deadline).await? {
            Append::Won(seq) => {
                let delay = last_delay(last);
                return won(shared, delivery, (intent, lease), event, seq, delay).await;
            }
            // Whoever was first has the message by now, unless ours is the newest delivery of it.
            Append::Lost(_) if !lease.is_held() => return Ok(Claim::TooLate),
            Append::Lost(found) => last = found,
        }
    }
}

/// Whether a start is younger than the lease it has. A redelivery that follows it can't come before that
/// lease is over, so this one was sent earlier: to a worker that was frozen or cut off with it, or by a
/// server that crashed and forgot the start's delivery.
fn was_just_taken(started: &Started) -> bool {
    let age = Timestamp::now().duration_since(started.at);
    // Two machines' clocks are compared. If they differ, a dead worker's task waits up to two more leases,
    // however much they differ: a start that seems far ahead is no recent one.
    age.unsigned_abs() < super::lease::usable(Duration::from_millis(started.lease_ms))
}

/// Later in a task's life the server may be wrong as well, so the worker that started it is asked. One
/// that is dead, cut off, or frozen doesn't answer.
async fn is_held_by(shared: &Shared, delivery: &Delivery, started: &Started) -> bool {
    if started.worker == shared.worker {
        return false;
    }
    let client = Client::new(shared.bus.clone());
    client.holds(&started.worker, &delivery.id, delivery.queue_seq, HOLDER_PATIENCE).await
}

struct Counts {
    attempt: Attempt,
    failures: u32,
    worker_losses: u32,
}

impl Intent {
    fn slot(&self) -> Option<String> {
        match self {
            Self::Run { slot, .. } => slot.clone(),
            Self::Reject(_) | Self::Cancel(_) | Self::Expire => None,
        }
    }

    /// The time after which a task that never started doesn't any more.
    pub(super) fn start_by(&self) -> Option<Timestamp> {
        match self {
            Self::Run { start_by, .. } => *start_by,
            Self::Reject(_) | Self::Cancel(_) | Self::Expire => None,
        }
    }

    fn loss_policy(&self) -> LossPolicy {
        match self {
            Self::Run { losses, .. } => *losses,
            Self::Reject(_) | Self::Cancel(_) | Self::Expire => {
                LossPolicy { max_worker_losses: u32::MAX, on_worker_lost: OnWorkerLost::Rerun }
            }
        }
    }
}

fn last_delay(last: Option<StatusEntry>) -> Option<Duration> {
    match last?.event {
        StatusEvent::Retrying(retrying) => Some(Duration::from_millis(retrying.delay_ms)),
        StatusEvent::Started(_) | StatusEvent::Requeued(_) | StatusEvent::Finished(_) => None,
    }
}

async fn won(
    shared: &Shared,
    delivery: &Delivery,
    (intent, lease): (&Intent, &Lease),
    event: StatusEvent,
    seq: u64,
    last_delay: Option<Duration>,
) -> Result<Claim, BusError> {
    match event {
        StatusEvent::Started(started) => {
            let taken = Taken { started, seq, last_delay, slot: intent.slot() };
            if !guards::start_check() {
                return Ok(Claim::Taken(taken));
            }
            Ok(match stored_cancel(shared, delivery, lease).await? {
                Some(request) => Claim::Canceled(taken, request),
                None => Claim::Taken(taken),
            })
        }
        StatusEvent::Finished(Finished { outcome, .. }) => {
            shared.count_completed(&outcome);
            Ok(Claim::Over(Box::new(outcome), seq))
        }
        StatusEvent::Retrying(_) | StatusEvent::Requeued(_) => {
            unreachable!("a claim appends only started and finished records")
        }
    }
}

/// Reads whether the task was canceled, as long as its start is ours: given up, that would count as an attempt
/// whose worker was lost, though nothing was started.
async fn stored_cancel(
    shared: &Shared,
    delivery: &Delivery,
    lease: &Lease,
) -> Result<Option<CancelRequest>, BusError> {
    loop {
        match shared.log.cancel_request(&delivery.id).await {
            Err(error) if error.is_passing() && !error.is_denied() && lease.is_held() => {
                tracing::debug!(task = %delivery.id, %error, "is it canceled? asking again");
                sleep(ASK_AGAIN).await;
            }
            read => return read,
        }
    }
}

fn first_event(
    shared: &Shared,
    delivery: &Delivery,
    lease: &Lease,
    intent: &Intent,
    counts: &Counts,
) -> StatusEvent {
    match intent {
        Intent::Reject(error) => {
            let mut outcome = ended_here(shared, delivery, Phase::Rejected);
            outcome.error = Some(error.clone());
            finished(outcome)
        }
        Intent::Run { start_by: Some(start_by), .. }
            if counts.attempt == Attempt::FIRST && Timestamp::now() > *start_by =>
        {
            not_started_in_time(delivery)
        }
        Intent::Expire => not_started_in_time(delivery),
        Intent::Cancel(cause) => {
            let mut outcome = ended_here(shared, delivery, Phase::Canceled);
            outcome.cause = Some(cause.clone());
            finished(outcome)
        }
        Intent::Run { runner, slot, .. } => StatusEvent::Started(Started {
            attempt: counts.attempt,
            worker: shared.worker.clone(),
            runner: runner.clone(),
            lane: delivery.lane.clone(),
            run_id: run_id(runner, slot.as_deref(), delivery, counts.attempt),
            token: token(),
            queue_seq: delivery.queue_seq,
            lease_ms: u64::try_from(lease.length().as_millis()).unwrap_or(u64::MAX),
            failures: counts.failures,
            worker_losses: counts.worker_losses,
            at: Timestamp::now(),
        }),
    }
}

fn not_started_in_time(delivery: &Delivery) -> StatusEvent {
    finished(Outcome { lane: Some(delivery.lane.clone()), ..expired(&delivery.id) })
}

/// The name of an attempt, as it stands in its start.
pub(super) fn run_id(
    runner: &str,
    slot: Option<&str>,
    delivery: &Delivery,
    attempt: Attempt,
) -> String {
    let slot = slot.unwrap_or(delivery.lane.as_str());
    format!("{runner}-{slot}-{}-{attempt}", delivery.queue_seq)
}

fn lost(shared: &Shared, delivery: &Delivery, attempt: Attempt, losses: u32) -> StatusEvent {
    let mut outcome = ended_here(shared, delivery, Phase::Lost);
    outcome.attempt = Some(attempt);
    outcome.error = Some(ErrorDetail {
        step: "worker".into(),
        message: format!("{losses} of the workers that ran the task died or lost contact"),
        problems: Vec::new(),
    });
    finished(outcome)
}

fn ended_here(shared: &Shared, delivery: &Delivery, phase: Phase) -> Outcome {
    Outcome {
        worker: Some(shared.worker.clone()),
        lane: Some(delivery.lane.clone()),
        ..Outcome::without_run(delivery.id.clone(), phase, Timestamp::now())
    }
}

/// Wraps an outcome as the last record of its chain.
pub(super) fn finished(outcome: Outcome) -> StatusEvent {
    StatusEvent::Finished(Finished { outcome, token: token() })
}

fn token() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}
