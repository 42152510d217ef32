//! One task's way through this worker: prepare → admit → claim → attempt → settle, under a lease.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::admit::{self, HandBack, Verdict};
use super::attempt::{self, Attempted};
use super::claim::{self, Claim, Intent, Taken};
use super::finish::{self, FinishError, Settled};
use super::lease::{BootInstant, Lease};
use super::lease_keeper::LeaseKeeper;
use super::prepare::{self, FirstRun, Prepared, Ready};
use super::shared::Shared;
use super::stop::{self, canceled};
use crate::exec::{Armed, Stop};
use crate::nats::{AckHandle, BusError, Delivery, Hold as _, Kept};
use crate::task::SlotRequest;
use crate::telemetry::metrics;
use crate::wire::{Started, StopReason};

/// Pause before a task that could not be taken for want of a server is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What a run is given.
pub(super) struct RunInputs {
    pub(super) delivery: Delivery,
    /// What is to be done with it, if that is known.
    pub(super) prepared: Option<Box<Prepared>>,
    /// When it came; its lease counts from then.
    pub(super) received: BootInstant,
    /// The newest delivery of the task's message.
    pub(super) handle: watch::Receiver<AckHandle>,
    /// The delivery that was, or is about to be, answered.
    pub(super) used: watch::Sender<AckHandle>,
    pub(super) stop: watch::Sender<Option<Stop>>,
    pub(super) stop_rx: watch::Receiver<Option<Stop>>,
}

impl RunInputs {
    /// The delivery to answer: a redelivery may have come in the meantime. One that comes after this is
    /// answered by the loop.
    fn newest_handle(&self) -> AckHandle {
        let newest = self.handle.borrow().clone();
        self.used.send_replace(newest.clone());
        newest
    }
}

/// What a run amounts to for the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunEnd {
    /// The delivery is dealt with.
    Done,
    /// The task was handed back because the worker ends.
    Requeued,
}

/// Deals with one delivery.
pub(super) async fn run(shared: Arc<Shared>, inputs: RunInputs) -> RunEnd {
    let id = inputs.delivery.id.clone();
    match deal_with(&shared, inputs).await {
        Ok(end) => end,
        Err(FinishError::Fenced) => {
            tracing::warn!(task = %id, "a result was dropped: the task is not ours any more");
            RunEnd::Done
        }
        Err(FinishError::Store(error)) => {
            // Nothing is lost: the message is still in the queue and comes again after its lease.
            metrics::runner_error("store");
            tracing::error!(task = %id, error = %error, "a task's step could not be stored");
            RunEnd::Done
        }
    }
}

async fn deal_with(shared: &Shared, mut inputs: RunInputs) -> Result<RunEnd, FinishError> {
    let prepared = inputs.prepared.take().map(|prepared| *prepared);
    let prepared = prepared.unwrap_or_else(|| prepare::prepare(shared, &inputs.delivery));
    let Some((mut ready, intent)) = decide(shared, &inputs.delivery, prepared).await? else {
        return Ok(RunEnd::Done);
    };
    let lease = Lease::start(shared.lease_of(&inputs.delivery.lane), inputs.received);
    let slot = ready.as_ref().and_then(|ready| ready.task.slot.as_ref());
    let intent = match admission(shared, &inputs, slot, &lease, intent).await {
        Ok(Go::Claim(intent)) => intent,
        Ok(Go::Nowhere(end)) => return Ok(end),
        Err(error) => return give_back(shared, &inputs, &lease, error).await,
    };
    let first = ready.as_mut().and_then(|ready| ready.first.take());
    take(shared, &inputs, (ready.as_ref(), first), &lease, &intent).await
}

/// What the worker wants to do with a delivery; `None` if it was dealt with here.
async fn decide(
    shared: &Shared,
    delivery: &Delivery,
    prepared: Prepared,
) -> Result<Option<(Option<Ready>, Intent)>, FinishError> {
    match prepared {
        Prepared::Run(ready) => {
            let intent = Intent::Run {
                runner: ready.runner.clone(),
                slot: ready.task.slot.as_ref().map(|slot| slot.name.clone()),
                losses: ready.task.loss,
                start_by: ready.task.start_by,
            };
            return Ok(Some((Some(ready), intent)));
        }
        Prepared::Reject(error) => return Ok(Some((None, Intent::Reject(error)))),
        Prepared::Elsewhere(lane) => {
            if let Err(error) = prepare::move_to_lane(shared, delivery, lane).await {
                tracing::warn!(task = %delivery.id, %error, "a task was not moved; trying again");
                delivery.handle.nak(&shared.bus, TRY_AGAIN).await?;
            }
        }
        Prepared::Later(until) => prepare::put_off(shared, delivery, until).await?,
        Prepared::NotHere => prepare::leave_to_others(shared, delivery).await?,
    }
    Ok(None)
}

/// Takes the task by its chain, and does what the chain says.
async fn take(
    shared: &Shared,
    inputs: &RunInputs,
    (ready, first): (Option<&Ready>, Option<FirstRun>),
    lease: &Lease,
    intent: &Intent,
) -> Result<RunEnd, FinishError> {
    let delivery = &inputs.delivery;
    let slot = ready.and_then(|ready| ready.task.slot.as_ref()).map(|slot| slot.name.as_str());
    let handle = inputs.newest_handle();
    // What is set up beside the claim ends, unexecuted, unless the task is ours.
    let (claimed, early) = tokio::join!(
        claim::claim(shared, delivery, lease, intent),
        Early::begin(shared, delivery, ready, first)
    );
    match claimed {
        Ok(Claim::Taken(taken)) => {
            let ready = ready.expect("only a prepared task is taken for a run");
            return run_taken(shared, inputs, ready, &taken, lease, early).await;
        }
        Ok(Claim::Canceled(taken, request)) => {
            let stop = canceled(request);
            let seq =
                finish::cancel_unstarted(shared, &handle, &delivery.id, &taken, &stop).await?;
            forget_later(shared, ready, seq).await;
        }
        Ok(Claim::Over(outcome, seq)) => {
            finish::conclude_found(shared, &handle, &outcome, slot).await?;
            forget_later(shared, ready, seq).await;
        }
        Ok(Claim::Duplicate) => {
            tracing::warn!(task = %delivery.id, "a second message of the task was dropped");
            handle.ack(&shared.bus);
        }
        Ok(Claim::HeldElsewhere) => {
            tracing::info!(task = %delivery.id, "a task was delivered that another worker has");
        }
        Ok(Claim::TooLate) => return Err(FinishError::Fenced),
        Err(error) => {
            let_go(shared, delivery, slot, lease).await;
            return give_back(shared, inputs, lease, error).await;
        }
    }
    Ok(RunEnd::Done)
}

/// Also the results of a task that never ran end when it asked for it.
async fn forget_later(shared: &Shared, ready: Option<&Ready>, finished: u64) {
    if let Some(ready) = ready {
        finish::forget_later(shared, &ready.task, finished).await;
    }
}

/// Where a delivery goes after its admission.
enum Go {
    Claim(Intent),
    Nowhere(RunEnd),
}

async fn admission(
    shared: &Shared,
    inputs: &RunInputs,
    slot: Option<&SlotRequest>,
    lease: &Lease,
    intent: Intent,
) -> Result<Go, BusError> {
    let Some(slot) = slot else { return Ok(Go::Claim(intent)) };
    let start_by = intent.start_by();
    Ok(match admit::admit(shared, inputs, (slot, start_by), lease).await? {
        Verdict::Admitted | Verdict::Settled => Go::Claim(intent),
        Verdict::Busy(error) => Go::Claim(Intent::Reject(error)),
        Verdict::Expired => Go::Claim(Intent::Expire),
        Verdict::Stopped(stop) => Go::Claim(Intent::Cancel(stop::cause(&stop))),
        Verdict::HandedBack(HandBack::Draining) => Go::Nowhere(RunEnd::Requeued),
        Verdict::HandedBack(HandBack::NoPlace | HandBack::Elsewhere(_)) | Verdict::Dropped => {
            Go::Nowhere(RunEnd::Done)
        }
    })
}

async fn run_taken(
    shared: &Shared,
    inputs: &RunInputs,
    ready: &Ready,
    taken: &Taken,
    lease: &Lease,
    early: Option<Early>,
) -> Result<RunEnd, FinishError> {
    let id = &inputs.delivery.id;
    let keeper =
        LeaseKeeper { shared, id, taken, lease, handle: inputs.handle.clone(), stop: &inputs.stop };
    let work = work(shared, inputs, ready, taken, lease, early);
    tokio::pin!(work);
    // Cancel safe: the keeper holds nothing but the lease's own state; the work is never dropped.
    tokio::select! {
        end = &mut work => return end,
        () = keeper.run() => {}
    }
    // The lease is gone and the run was told so: wait until its processes are gone too.
    work.await
}

async fn work(
    shared: &Shared,
    inputs: &RunInputs,
    ready: &Ready,
    taken: &Taken,
    lease: &Lease,
    early: Option<Early>,
) -> Result<RunEnd, FinishError> {
    let id = &inputs.delivery.id;
    let handle = || inputs.newest_handle();
    let Started { attempt, run_id, .. } = &taken.started;
    let (plan, armed) = match early.filter(|early| early.run.run_id == *run_id) {
        Some(early) => (early.run.plan, early.armed),
        None => match ready.plan(shared, &inputs.delivery, *attempt, run_id.clone()) {
            Ok(plan) => (plan, None),
            Err(error) => {
                finish::reject(shared, &handle(), id, taken, &error).await?;
                return Ok(RunEnd::Done);
            }
        },
    };
    // A stop that came while the task was being taken: nothing is started.
    let stopped = inputs.stop_rx.borrow().clone();
    match stopped.map(|stop| (stop.reason, stop)) {
        None => {}
        Some((StopReason::Draining, _)) => {
            finish::requeue(shared, &handle(), id, taken).await?;
            return Ok(RunEnd::Requeued);
        }
        Some((_, stop)) => {
            finish::cancel_unstarted(shared, &handle(), id, taken, &stop).await?;
            return Ok(RunEnd::Done);
        }
    }
    if !lease.is_held() {
        return Err(FinishError::Fenced);
    }
    let stop = inputs.stop_rx.clone();
    let attempt = attempt::run(shared, &inputs.delivery, taken, (&plan, armed), lease, stop);
    // Beside the run: nobody waits for the spec before the task has ended.
    let (attempted, kept) = tokio::join!(attempt, keep_spec(shared, &inputs.delivery));
    let Attempted { end, process, start, pipes } = attempted;
    if lease.is_lost() {
        return Err(FinishError::Fenced);
    }
    let settled = finish::settle(shared, &handle(), &ready.task, taken, &plan, (end, start)).await;
    spec_is_kept(shared, &inputs.delivery, kept).await;
    // Now that nobody waits any more.
    drop(pipes);
    let has_spare = process.is_some_and(|process| shared.spawner.keep(process, &plan.sandbox));
    // While no place is free, the next task's claim takes longer than all of its setup.
    if !has_spare || !*shared.is_crowded.borrow() {
        // Without spares the next launch takes longer, and says why.
        shared.spawner.prepare(&plan.sandbox).await.ok();
    }
    match settled? {
        Settled::Recorded => Ok(RunEnd::Done),
        Settled::Requeued => Ok(RunEnd::Requeued),
    }
}

/// A first attempt while the task is being taken.
struct Early {
    run: FirstRun,
    /// Its process, if that is set up meanwhile.
    armed: Option<Armed>,
}

impl Early {
    async fn begin(
        shared: &Shared,
        delivery: &Delivery,
        ready: Option<&Ready>,
        planned: Option<FirstRun>,
    ) -> Option<Self> {
        let run = planned.or_else(|| ready?.plan_first(shared, delivery))?;
        // While no place is free the cores have other work until the claim is answered. The process is set
        // up and told to execute the program by one message then: a switch less, to it and back.
        let is_crowded = *shared.is_crowded.borrow();
        let armed = if is_crowded { None } else { shared.spawner.arm(&run.plan).await };
        Some(Self { run, armed })
    }
}

/// Keeps the spec of a task that was started, so that it can be run again when it has ended.
async fn keep_spec(shared: &Shared, delivery: &Delivery) -> Option<Kept> {
    let kept = shared.log.keep_spec(&delivery.id, &delivery.payload).await;
    said(delivery, kept)
}

/// Makes sure of it, now that the end is stored.
async fn spec_is_kept(shared: &Shared, delivery: &Delivery, kept: Option<Kept>) {
    if let Some(kept) = kept {
        said(delivery, shared.log.kept(&delivery.id, &delivery.payload, kept).await);
    }
}

fn said<T>(delivery: &Delivery, kept: Result<T, BusError>) -> Option<T> {
    kept.inspect_err(|error| {
        tracing::warn!(task = %delivery.id, %error, "the spec is not kept; `runlane retry` will miss it");
    })
    .ok()
}

/// Nothing was started, and a new task has nothing to hold its slot for; one that ran before keeps it
/// until its chain ends.
async fn let_go(shared: &Shared, delivery: &Delivery, slot: Option<&str>, lease: &Lease) {
    if delivery.delivered == 1 && lease.is_held() {
        shared.release(slot, &delivery.id).await;
    }
}

/// The server was away while the task was being taken, so nothing was started.
async fn give_back(
    shared: &Shared,
    inputs: &RunInputs,
    lease: &Lease,
    error: BusError,
) -> Result<RunEnd, FinishError> {
    tracing::warn!(task = %inputs.delivery.id, %error, "a task could not be taken; it is handed back");
    metrics::runner_error("claim");
    if error.is_denied() {
        // In its place: a worker that can take no task must not go through the whole queue at full speed.
        tokio::time::sleep(error.pause(TRY_AGAIN)).await;
    }
    // Somebody else may run it by now, and would lose it by our nak.
    if !lease.is_held() {
        return Ok(RunEnd::Done);
    }
    let handle = inputs.newest_handle();
    handle.nak(&shared.bus, TRY_AGAIN).await?;
    Ok(RunEnd::Done)
}
