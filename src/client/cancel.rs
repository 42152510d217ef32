//! Ends a task wherever it is.
//!
//! The request is stored first and the chain read after it, from the leader; a worker writes its start
//! first and reads the request after it. So at least one of the two sees the other, and a task that was
//! canceled before its start never starts.
//!
//! ```text
//! chain's last record   then
//! none, retrying,       append finished{canceled}, publish the outcome, purge the queued message
//!   requeued
//! started               its worker acts; wait for the outcome
//! finished              it was too late; here is the outcome
//! ```

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout};

use super::Client;
use crate::nats::{Append, BusError, Headers, StatusEntry};
use crate::wire::{
    CancelRequest, Cause, Finished, LaneId, Outcome, Phase, Started, StatusEvent, StopReason,
    TaskId,
};

/// How often the chain of a running task is read again: its worker may give it back, or die.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How long one append is tried while the server is away.
const APPEND_PATIENCE: Duration = Duration::from_secs(10);
/// Pause after a read that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// How to cancel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CancelOptions {
    /// What is stored: reason, who asks, grace period.
    pub request: CancelRequest,
    /// How long to wait for a running task's end.
    pub wait: Duration,
    /// What to do about a task that nobody has heard of.
    pub unknown: UnknownTask,
}

/// What to do about a task that was neither queued nor run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UnknownTask {
    /// Say that it is unknown, and store nothing.
    #[default]
    Refuse,
    /// End it now as canceled, so that it never starts when it is submitted later.
    EndIt,
}

/// What became of a cancel request.
#[derive(Debug, Clone, PartialEq)]
pub enum Canceled {
    /// The task has ended; usually as canceled, but it may have ended by itself in that moment.
    Ended(Box<Outcome>),
    /// It had ended before.
    AlreadyEnded(Box<Outcome>),
    /// The request is stored, and the task's worker has not ended it in the time given.
    Requested,
}

/// Why a task could not be canceled.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// It is neither queued nor known.
    #[error(
        "task {0} is unknown: it is not queued and has no records; was it submitted in this namespace?"
    )]
    Unknown(TaskId),
    /// The server could not be asked.
    #[error("task {id} could not be canceled")]
    Bus {
        /// The task.
        id: TaskId,
        /// Why.
        #[source]
        source: BusError,
    },
}

impl Client {
    /// Cancels a task, and waits for its end.
    ///
    /// # Errors
    /// The task is unknown, or the server could not be asked. Nothing is stored for an unknown task
    /// unless the options say so.
    pub async fn cancel(
        &self,
        id: &TaskId,
        options: &CancelOptions,
    ) -> Result<Canceled, CancelError> {
        let failed = |source| CancelError::Bus { id: id.clone(), source };
        let options = &CancelOptions { request: options.request.clone().shortened(), ..*options };
        let mut last = self.log().last(id).await.map_err(failed)?;
        let lane;
        if let Some(StatusEntry { event: StatusEvent::Started(started), .. }) = &last {
            // It runs: what is asked further would only delay its end.
            lane = Some(started.lane.clone());
        } else {
            lane = self.queued(id).await.map_err(failed)?.map(|queued| queued.lane);
            if last.is_none() && lane.is_none() {
                // Whatever leaves the queue has a status record before.
                last = self.log().last(id).await.map_err(failed)?;
            }
        }
        match last.map(|last| last.event) {
            Some(StatusEvent::Finished(finished)) => {
                // Whoever finds a finished record without its outcome publishes that.
                self.log().ensure_outcome(&finished.outcome).await.map_err(failed)?;
                return Ok(Canceled::AlreadyEnded(Box::new(finished.outcome)));
            }
            Some(_) => {}
            None if lane.is_some() || options.unknown == UnknownTask::EndIt => {}
            None => return Err(CancelError::Unknown(id.clone())),
        }
        let payload = serde_json::to_vec(&options.request).expect("a request is plain JSON");
        let subject = self.bus().subjects().cancel(id);
        self.bus().publish(subject, Headers::default(), payload.into()).await.map_err(failed)?;
        self.end(id, options, lane).await.map_err(failed)
    }

    /// The request is stored: ends the task, or waits until its worker does.
    async fn end(
        &self,
        id: &TaskId,
        options: &CancelOptions,
        lane: Option<LaneId>,
    ) -> Result<Canceled, BusError> {
        let deadline = Instant::now() + options.wait;
        let mut waiter = self.wait([id.clone()]).await?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.end_if_idle(id, &options.request, lane.clone()).await {
                Ok(Idle::Ended(outcome)) => return Ok(Canceled::Ended(outcome)),
                Ok(Idle::Raced) => {}
                // Who may not end a waiting task leaves that to the workers, too.
                Ok(Idle::Running { .. }) | Err(BusError::Denied(_)) if left.is_zero() => {
                    return Ok(Canceled::Requested);
                }
                Ok(Idle::Running { .. }) | Err(BusError::Denied(_)) => {
                    match timeout(left.min(CHECK_INTERVAL), waiter.next()).await {
                        Ok(Ok(Some(outcome))) => return Ok(Canceled::Ended(Box::new(outcome))),
                        // It is stored, and this user may not see what becomes of it.
                        Ok(Err(BusError::Denied(_))) => sleep(left.min(CHECK_INTERVAL)).await,
                        Ok(Err(error)) => return Err(error),
                        Ok(Ok(None)) | Err(_) => {}
                    }
                }
                Err(error) if error.is_passing() && !left.is_zero() => sleep(RETRY_PAUSE).await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Ends a task whose cancel is stored, unless a worker has it.
    pub(crate) async fn end_if_idle(
        &self,
        id: &TaskId,
        request: &CancelRequest,
        lane: Option<LaneId>,
    ) -> Result<Idle, BusError> {
        let (expected, ended) = match Standing::of(id, self.log().last(id).await?) {
            Standing::Ended(outcome) => {
                return self.settle(*outcome).await.map(Box::new).map(Idle::Ended);
            }
            Standing::Running { started, seq } => return Ok(Idle::Running { started, seq }),
            Standing::Waiting { expected, ended } => (expected, ended),
        };
        self.end_after(id, request, lane, expected, ended).await
    }

    /// Ends a task that has no live worker, after the record with sequence `expected`.
    pub(crate) async fn end_after(
        &self,
        id: &TaskId,
        request: &CancelRequest,
        lane: Option<LaneId>,
        expected: u64,
        ended: Option<Box<Outcome>>,
    ) -> Result<Idle, BusError> {
        let outcome = canceled(id, request, lane, ended);
        if self.append(outcome.clone(), expected).await? {
            return self.settle(outcome).await.map(Box::new).map(Idle::Ended);
        }
        Ok(Idle::Raced)
    }

    /// Appends the end; `false` if somebody else wrote first.
    async fn append(&self, outcome: Outcome, expected: u64) -> Result<bool, BusError> {
        let id = outcome.id.clone();
        let token = uuid::Uuid::now_v7().to_string();
        let event = StatusEvent::Finished(Finished { outcome, token });
        match self.log().append(&id, &event, expected, append_deadline()).await? {
            Append::Won(_) => Ok(true),
            Append::Lost(_) => Ok(false),
        }
    }

    /// The chain has its end: publishes the outcome and takes the message from the queue.
    pub(crate) async fn settle(&self, outcome: Outcome) -> Result<Outcome, BusError> {
        self.log().ensure_outcome(&outcome).await?;
        let subjects = self.bus().subjects();
        // A worker that holds the message learns from the chain that there is nothing to run, and one that
        // gets it later, too: so it may stay, if removing it is not this user's right.
        for (stream, filter) in [
            (subjects.queue_stream(), subjects.queue_task(&outcome.id)),
            (subjects.schedule_stream(), subjects.schedule_task(&outcome.id)),
        ] {
            match self.bus().purge(&stream, &filter).await {
                Ok(_) | Err(BusError::Denied(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(outcome)
    }
}

/// Until when one append is tried.
pub(super) fn append_deadline() -> Instant {
    Instant::now() + APPEND_PATIENCE
}

/// What came of trying to end a task that nobody runs.
pub(crate) enum Idle {
    /// It has ended.
    Ended(Box<Outcome>),
    /// A worker has it, by this record.
    Running { started: Box<Started>, seq: u64 },
    /// Somebody wrote in that moment: look again.
    Raced,
}

/// What the last record of a chain means for a cancel.
enum Standing {
    /// Nobody runs it: the chain can be ended after this sequence.
    Waiting { expected: u64, ended: Option<Box<Outcome>> },
    /// A worker has it.
    Running { started: Box<Started>, seq: u64 },
    /// It has ended.
    Ended(Box<Outcome>),
}

impl Standing {
    fn of(id: &TaskId, last: Option<StatusEntry>) -> Self {
        let Some(StatusEntry { seq, event }) = last else {
            return Self::Waiting { expected: 0, ended: None };
        };
        match event {
            StatusEvent::Started(started) => Self::Running { started: Box::new(started), seq },
            StatusEvent::Retrying(retrying) => {
                Self::Waiting { expected: seq, ended: Some(Box::new(retrying.ended)) }
            }
            StatusEvent::Requeued(requeued) => {
                let ended = Outcome {
                    attempt: Some(requeued.attempt),
                    worker: Some(requeued.worker),
                    ..Outcome::without_run(id.clone(), Phase::Canceled, requeued.at)
                };
                Self::Waiting { expected: seq, ended: Some(Box::new(ended)) }
            }
            StatusEvent::Finished(finished) => Self::Ended(Box::new(finished.outcome)),
        }
    }
}

/// The outcome of a task that is canceled between attempts: what its last attempt was stays in it.
fn canceled(
    id: &TaskId,
    request: &CancelRequest,
    lane: Option<LaneId>,
    ended: Option<Box<Outcome>>,
) -> Outcome {
    let now = Timestamp::now();
    let never_ran = || Outcome::without_run(id.clone(), Phase::Canceled, now);
    let mut outcome = ended.map_or_else(never_ran, |ended| *ended);
    outcome.phase = Phase::Canceled;
    outcome.finished_at = now;
    outcome.lane = outcome.lane.or(lane);
    outcome.cause = Some(Cause {
        reason: match request.replaced_by {
            Some(_) => StopReason::Replaced,
            None => StopReason::Canceled,
        },
        by: request.by.clone(),
        message: request.reason.clone(),
    });
    outcome
}
