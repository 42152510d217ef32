//! What a task in the line must know besides the record: whether holders are still there, whether it is
//! itself still to be started, and whether others may be about to come.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::{LOOK, Line, Look, SETTLE, Verdict};
use crate::exec::Stop;
use crate::nats::{BusError, Headers, StatusEntry};
use crate::task::admit::{self, HolderFacts, TakenBy};
use crate::wire::{
    Admission, CancelRequest, ErrorDetail, SlotHolder, StatusEvent, StopReason, TaskId,
};
use crate::worker::stop::canceled;

/// How soon it is looked at again whether a task has expired, if that could not be seen.
const EXPIRES_AGAIN: Duration = Duration::from_millis(250);

impl Line<'_> {
    /// For how long another worker may still have the task, if its hold says so.
    pub(super) async fn is_held_elsewhere(&self) -> Result<Option<Duration>, BusError> {
        let holder = self.known.holders.iter().find(|holder| holder.task == *self.id());
        let Some(holder) = holder.filter(|holder| holder.worker != self.shared.worker) else {
            return Ok(None);
        };
        let last = self.shared.log.last(self.id()).await?.map(|last| last.event);
        let lease = SignedDuration::try_from(self.lease.length()).unwrap_or(SignedDuration::MAX);
        let pause = admit::not_before(holder, last.as_ref(), lease, Timestamp::now());
        Ok(pause.and_then(|pause| {
            tracing::warn!(task = %self.id(), worker = %holder.worker, "a task came though another worker may have it");
            Duration::try_from(pause).ok()
        }))
    }

    /// Whether a `queue` task that finds its slot free is to wait for tasks on their way.
    pub(super) async fn lets_others_come(&self) -> Result<bool, BusError> {
        if self.request.admission != Admission::Queue || self.received.elapsed() >= SETTLE {
            return Ok(false);
        }
        self.shared.slots.is_preceded(self.inputs.delivery.queue_seq).await
    }

    /// Adds to `gone`; says whether there was anything to add. The first in line does it for all.
    pub(super) async fn find_gone(&mut self) -> Result<bool, BusError> {
        if self.checked && !admit::is_first(&self.known, &self.me(), Timestamp::now()) {
            return Ok(false);
        }
        let before = self.gone.len();
        for holder in self.known.holders.clone() {
            if !self.gone.contains(&holder) && self.is_gone(&holder).await? {
                let (task, slot) = (self.id(), &self.request.name);
                tracing::info!(%task, holder = %holder.task, slot, "a void hold of a slot is dropped");
                self.gone.push(holder);
            }
        }
        Ok(self.gone.len() > before)
    }

    async fn is_gone(&self, holder: &SlotHolder) -> Result<bool, BusError> {
        let slots = &self.shared.slots;
        // The message before the chain: one that is gone because its task has just ended is followed
        // by a chain that says so.
        let queued = slots.is_queued(&holder.task).await?;
        let last = self.shared.log.last(&holder.task).await?.map(|last| last.event);
        let worker_lives = match &last {
            Some(StatusEvent::Started(started)) if !queued => {
                slots.is_present(&started.worker).await?
            }
            _ => true,
        };
        let facts = HolderFacts { last: last.as_ref(), queued, worker_lives };
        Ok(admit::is_gone(holder, &facts, Timestamp::now()))
    }

    /// Whether the task has ended, or another message of it is responsible: it waits for nothing.
    pub(super) async fn is_settled_by_chain(&self) -> Result<bool, BusError> {
        let queue_seq = self.inputs.delivery.queue_seq;
        Ok(match self.shared.log.last(self.id()).await?.map(|last| last.event) {
            Some(StatusEvent::Finished(_)) => true,
            Some(StatusEvent::Started(started)) => started.queue_seq != queue_seq,
            Some(StatusEvent::Retrying(retrying)) => retrying.queue_seq != queue_seq,
            Some(StatusEvent::Requeued(requeued)) => requeued.queue_seq != queue_seq,
            None => false,
        })
    }

    /// Its `startBy` has come. It holds for a first start only.
    pub(super) async fn expired(&mut self) -> Look {
        let again = Instant::now() + EXPIRES_AGAIN;
        let at = self.start_by.map_or(again, super::instant_of);
        if at > Instant::now() {
            // The clocks don't run alike.
            self.expires = Some(at.max(again));
            return Look::Wait;
        }
        let verdict = match self.shared.log.last(self.id()).await {
            Ok(None) => Verdict::Expired,
            // Somebody else has ended it.
            Ok(Some(StatusEntry { event: StatusEvent::Finished(_), .. })) => Verdict::Settled,
            Ok(Some(_)) => {
                self.expires = None;
                return Look::Wait;
            }
            Err(error) => {
                self.expires = error.is_passing().then(|| Instant::now() + error.pause(LOOK));
                return Look::Wait;
            }
        };
        self.leave_line().await;
        Look::Done(verdict)
    }

    /// Asks for the end of the tasks that are to be replaced, once each.
    pub(super) async fn cancel(&self, victims: &[TaskId]) -> Result<(), BusError> {
        for victim in victims {
            if self.shared.log.cancel_request(victim).await?.is_some() {
                continue;
            }
            tracing::info!(task = %self.id(), %victim, slot = %self.request.name, "replacing a task");
            let request = CancelRequest {
                reason: Some(format!("replaced by {}", self.id())),
                replaced_by: Some(self.id().clone()),
                ..CancelRequest::default()
            };
            let payload =
                serde_json::to_vec(&request).map_err(|e| BusError::Broken(e.to_string()))?;
            let subject = self.shared.bus.subjects().cancel(victim);
            self.shared.bus.publish(subject, Headers::default(), payload.into()).await?;
        }
        Ok(())
    }

    pub(super) async fn stored_cancel(&self) -> Result<Option<Stop>, BusError> {
        Ok(self.shared.log.cancel_request(self.id()).await?.map(canceled))
    }

    pub(super) fn busy(&self, by: &TakenBy) -> ErrorDetail {
        let slot = &self.request.name;
        ErrorDetail {
            step: "admit".into(),
            message: format!("slot {slot:?} is taken by task {} at worker {}", by.task, by.worker),
            problems: Vec::new(),
        }
    }
}

/// The end of a task in favour of a newer one.
pub(super) fn replaced_by(task: &TaskId) -> Stop {
    Stop { message: Some(format!("replaced by {task}")), ..Stop::because(StopReason::Replaced) }
}
