//! What the server's clock is asked to bring, and what is done when it does.
//!
//! A schedule is a message in a stream of its own; when it is due the server moves it to a `due`
//! subject, from where a worker takes it. So a delay outlives every client and worker.

use bytes::Bytes;
use jiff::Timestamp;

use super::submit::Submitter;
use super::{Client, QueuedTask};
use crate::nats::{Append, Bus, BusError, Headers, StatusEntry};
use crate::task;
use crate::wire::{ErrorDetail, Finished, Outcome, Phase, StatusEvent, TaskId, TaskSpec, Timer};

/// The latest time that a schedule is set for. nats-server counts nanoseconds in 63 bits: what is due after
/// April 2262 it takes for overdue (seen with 2.15.1).
const LATEST: Timestamp = Timestamp::constant(9_214_646_400, 0); // 2262-01-01

/// Stores a schedule; one that is there for the same task and timer is replaced. One that would be later than
/// [`LATEST`] is due then: whoever takes it looks at the task's own times.
pub(crate) async fn schedule(
    bus: &Bus,
    id: &TaskId,
    timer: Timer,
    at: Timestamp,
    payload: Bytes,
) -> Result<u64, BusError> {
    let (subjects, at) = (bus.subjects(), at.min(LATEST));
    let headers = Headers::default()
        .with(Headers::SCHEDULE, format!("@at {at}"))
        .with(Headers::SCHEDULE_TARGET, subjects.due(id, timer));
    bus.publish(subjects.schedule(id, timer), headers, payload).await
}

/// What came of a task whose time to start has passed, as a timer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiry {
    /// Nothing is left to do.
    Settled,
    /// That time is still to come.
    NotYet(Timestamp),
    /// Nothing is known of it: it may be about to be stored, which its timer is before.
    NotThere,
}

impl Client {
    /// Queues a task whose delay is over. A spec that can't be read goes to the default lane, whose
    /// worker rejects it with its problems. False: a message of the task is in the queue, and it may be
    /// the one that was put off and is about to be removed. Try again until it is gone, or was taken.
    pub(crate) async fn promote(&self, id: &TaskId, payload: &Bytes) -> Result<bool, BusError> {
        if self.last_record(id).await?.is_some() {
            return Ok(true);
        }
        let queued = match task::parse(payload, Some(id)) {
            Ok(task) => self.submitter().queue_in(&task.lane_record(), id, payload.clone()).await,
            Err(_) => Submitter::queue_default(self.bus(), id, payload.clone()).await,
        };
        let queued = queued?;
        if queued {
            tracing::info!(task = %id, "a delayed task is queued");
        }
        Ok(queued)
    }

    /// Ends a queued task whose `startBy` has passed; nothing happens to one that was started, or has none: the
    /// timer may be that of an earlier task of this id.
    pub(crate) async fn expire(&self, id: &TaskId) -> Result<Expiry, BusError> {
        let last = self.last_record(id).await?.map(|last| last.event);
        let queued = self.queued(id).await?;
        let (lane, spec) = match (last, queued) {
            // Whoever wrote that may have been cut off before the rest.
            (Some(StatusEvent::Finished(Finished { outcome, .. })), Some(_))
                if outcome.phase == Phase::Expired =>
            {
                return self.settle(outcome).await.map(|_| Expiry::Settled);
            }
            (Some(_), _) => return Ok(Expiry::Settled),
            (None, None) => return Ok(Expiry::NotThere),
            (None, Some(QueuedTask { lane, spec: Some(spec), .. })) => (lane, spec),
            // It is rejected by whoever takes it.
            (None, Some(QueuedTask { spec: None, .. })) => return Ok(Expiry::Settled),
        };
        match spec.start_by {
            Some(start_by) if start_by >= Timestamp::now() => return Ok(Expiry::NotYet(start_by)),
            Some(_) => {}
            None => return Ok(Expiry::Settled),
        }
        let outcome = Outcome { lane: Some(lane), ..expired(id) };
        let event = StatusEvent::Finished(Finished {
            outcome: outcome.clone(),
            token: uuid::Uuid::now_v7().simple().to_string(),
        });
        match self.log().append(id, &event, 0, super::cancel::append_deadline()).await? {
            Append::Won(_) => self.settle(outcome).await.map(|_| Expiry::Settled),
            Append::Lost(_) => Ok(Expiry::Settled),
        }
    }

    /// The same by whoever asks about the task, so that it ends also where no worker is; without the right to,
    /// the next worker will.
    pub(crate) async fn expire_overdue(&self, id: &TaskId) {
        if let Err(error) = self.expire(id).await {
            tracing::debug!(task = %id, %error, "an overdue task was not ended here");
        }
    }

    /// Removes what is kept of a finished task when its `ttl` is over. `finished` is the sequence of the record
    /// that the timer is about; the id may be another task's by now.
    pub(crate) async fn forget_finished(
        &self,
        id: &TaskId,
        finished: Option<u64>,
    ) -> Result<(), BusError> {
        match self.last_record(id).await? {
            Some(StatusEntry { seq, event: StatusEvent::Finished(_) })
                if finished.is_none_or(|finished| finished == seq) =>
            {
                self.forget(id).await
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Removes everything that is kept of a task: its records, its outcome, its spec and its output.
    /// A task that is not finished is left alone by those who call this.
    pub(super) async fn forget(&self, id: &TaskId) -> Result<(), BusError> {
        let subjects = self.bus().subjects();
        let tasks = subjects.tasks_stream();
        self.bus().purge(&subjects.output_stream(), &subjects.output_task(id)).await?;
        self.bus().purge(&tasks, &subjects.spec(id)).await?;
        // The chain last: as long as it is there, nobody takes the id for a new task.
        self.bus().purge(&tasks, &subjects.task(id)).await?;
        Ok(())
    }
}

/// The outcome of a task that was not started in time.
pub(crate) fn expired(id: &TaskId) -> Outcome {
    let mut outcome = Outcome::without_run(id.clone(), Phase::Expired, Timestamp::now());
    outcome.error = Some(ErrorDetail {
        step: "start".into(),
        message: "the task was not started before its startBy time".into(),
        problems: Vec::new(),
    });
    outcome
}

/// Turns a relative delay into a time.
pub(super) fn settle_delay(spec: &mut TaskSpec) {
    let Some(delay) = spec.delay.take() else { return };
    let delay = jiff::SignedDuration::from_millis(i64::try_from(delay).unwrap_or(i64::MAX));
    let until = Timestamp::now().checked_add(delay).unwrap_or(Timestamp::MAX);
    spec.not_before = Some(spec.not_before.map_or(until, |at| at.max(until)));
}
