//! The decisions before a start: decode and validate → lane → route. None of them has an effect, so
//! nothing has to be undone when one says no.

use std::time::Duration;

use jiff::Timestamp;

use super::claim;
use super::shared::Shared;
use crate::client::schedule::schedule;
use crate::nats::topology::{self, TopologyError};
use crate::nats::{BusError, Delivery, Headers};
use crate::task::{self, LaunchPlan, PlanError, RunIdentity, Task};
use crate::telemetry::metrics;
use crate::wire::{Attempt, ErrorDetail, LaneRecord, Problem, Timer};

/// Pause before a task that no runner here takes is offered again.
const NO_RUNNER_DELAY: Duration = Duration::from_secs(1);

/// What is to be done with a delivery.
#[allow(clippy::large_enum_variant)] // short-lived, one at a time
pub(super) enum Prepared {
    /// Run it.
    Run(Ready),
    /// End it as rejected.
    Reject(ErrorDetail),
    /// Its time to start has not come: let the schedule stream keep it until then.
    Later(Timestamp),
    /// It was published to a lane that it doesn't belong to: move it to its own.
    Elsewhere(LaneRecord),
    /// No runner here takes it, though this worker serves its lane: let another worker have it.
    NotHere,
}

/// A task with its runner.
pub(super) struct Ready {
    pub(super) task: Task,
    pub(super) runner: String,
    /// Its first run, if that was planned ahead.
    pub(super) first: Option<FirstRun>,
}

/// The run that a task's first delivery most likely becomes.
pub(super) struct FirstRun {
    pub(super) run_id: String,
    pub(super) plan: LaunchPlan,
}

/// Decides about a delivery.
pub(super) fn prepare(shared: &Shared, delivery: &Delivery) -> Prepared {
    let task = match task::parse(&delivery.payload, Some(&delivery.id)) {
        Ok(task) => task,
        Err(problems) => return Prepared::Reject(bad_spec(problems)),
    };
    if let Some(not_before) = task.not_before.filter(|at| *at > Timestamp::now()) {
        return Prepared::Later(not_before);
    }
    let record = task.lane_record();
    let is_served =
        shared.lanes.borrow().get(&delivery.lane).is_some_and(|lane| lane.record == record);
    // A lane with a name of its own has its record in the bucket; others are named by what they ask.
    if !is_served && record.id() != delivery.lane {
        return Prepared::Elsewhere(record);
    }
    match shared.router.pick(task.work.kind(), &task.selector) {
        Ok(runner) => {
            let runner = runner.name().to_owned();
            Prepared::Run(Ready { task, runner, first: None })
        }
        Err(error) => {
            // Only a lane that one of our runners matches is pulled from: its record was changed.
            tracing::error!(task = %delivery.id, %error, "a task of a lane we serve has no runner here");
            metrics::runner_error("no_runner");
            Prepared::NotHere
        }
    }
}

/// Decides about a delivery that waits for a place, and plans its run.
pub(super) fn prepare_ahead(shared: &Shared, delivery: &Delivery) -> Prepared {
    let mut prepared = prepare(shared, delivery);
    if let Prepared::Run(ready) = &mut prepared {
        ready.first = ready.plan_first(shared, delivery);
    }
    prepared
}

impl Ready {
    /// Plans the first run. None: it isn't the message's first delivery, or something is wrong with it, which
    /// is said when the task is ours.
    pub(super) fn plan_first(&self, shared: &Shared, delivery: &Delivery) -> Option<FirstRun> {
        if delivery.delivered != 1 {
            return None;
        }
        let slot = self.task.slot.as_ref().map(|slot| slot.name.as_str());
        let run_id = claim::run_id(&self.runner, slot, delivery, Attempt::FIRST);
        let plan = self.plan(shared, delivery, Attempt::FIRST, run_id.clone()).ok()?;
        Some(FirstRun { run_id, plan })
    }

    /// Plans the run.
    pub(super) fn plan(
        &self,
        shared: &Shared,
        delivery: &Delivery,
        attempt: Attempt,
        run_id: String,
    ) -> Result<LaunchPlan, PlanError> {
        let run = RunIdentity {
            task: delivery.id.clone(),
            attempt,
            run_id,
            lane: delivery.lane.clone(),
            worker: shared.worker.clone(),
        };
        let runner = shared.router.runner(&self.runner).expect("the router picked it");
        runner.plan(&self.task, &run)
    }
}

/// Moves a task to the lane it belongs to. Nothing is lost: it is stored there before it is removed
/// here, and if both messages are there for a while, the chain lets only one of them be run.
pub(super) async fn move_to_lane(
    shared: &Shared,
    delivery: &Delivery,
    record: LaneRecord,
) -> Result<(), MoveError> {
    let lane = record.id();
    topology::ensure_lane(&shared.bus, &lane, &record, shared.lease_of(&delivery.lane)).await?;
    let subject = shared.bus.subjects().queue(&lane, &delivery.id);
    match shared.bus.publish(subject, Headers::default(), delivery.payload.clone()).await {
        // 10077 with this text: the task waits there already.
        Err(BusError::Refused { code: 10_077, text }) if text.contains("per subject") => {}
        other => drop(other?),
    }
    tracing::info!(task = %delivery.id, from = %delivery.lane, to = %lane, "moved a task to its lane");
    delivery.handle.ack(&shared.bus);
    Ok(())
}

/// Lets the server's clock bring a task back when it may start. It was published to the queue
/// directly, and would count as held by a worker for all that time.
pub(super) async fn put_off(
    shared: &Shared,
    delivery: &Delivery,
    until: Timestamp,
) -> Result<(), BusError> {
    schedule(&shared.bus, &delivery.id, Timer::Start, until, delivery.payload.clone()).await?;
    delivery.handle.ack(&shared.bus);
    Ok(())
}

/// Lets another worker have a task.
pub(super) async fn leave_to_others(shared: &Shared, delivery: &Delivery) -> Result<(), BusError> {
    delivery.handle.nak(&shared.bus, NO_RUNNER_DELAY).await
}

/// Why a task could not be moved to its lane.
#[derive(Debug, thiserror::Error)]
pub(super) enum MoveError {
    /// The lane could not be made.
    #[error(transparent)]
    Lane(#[from] TopologyError),
    /// The task could not be stored there, or not be removed here.
    #[error(transparent)]
    Store(#[from] BusError),
}

fn bad_spec(problems: Vec<Problem>) -> ErrorDetail {
    let message = match problems.as_slice() {
        [one] => one.to_string(),
        several => format!("the spec has {} problems", several.len()),
    };
    ErrorDetail { step: "validate".into(), message, problems }
}
