//! Changing places, keeping the message while it waits, and leaving the line without a slot.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{HandBack, Line, Look, Place, Verdict};
use crate::exec::Stop;
use crate::nats::{BusError, Hold as _};
use crate::task::admit;
use crate::wire::StopReason;
use crate::worker::lease::BootInstant;
use crate::worker::places::Ask;

/// How long a task whose turn it is waits for a run place.
const PLACE_PATIENCE: Duration = Duration::from_secs(1);
/// How long a handed back task keeps its place in the line.
const KEEP_PLACE: Duration = Duration::from_secs(5);
/// Pause before a task is offered to the others. Without one it may come back to this worker before the
/// run has ended, which would take it for a redelivery of its own.
const HAND_OVER: Duration = Duration::from_millis(100);
/// First and longest pause before a task is offered again for want of a waiting place.
const COME_AGAIN: Duration = Duration::from_secs(1);
const COME_AGAIN_MAX: Duration = Duration::from_secs(8);

impl Line<'_> {
    /// Gives up the run place for a waiting one, if there is one.
    pub(super) async fn waiting_place(&mut self) -> bool {
        let (tx, rx) = oneshot::channel();
        let asked = self.shared.places.send(Ask::Wait(self.id().clone(), tx)).await;
        let granted = asked.is_ok() && rx.await.unwrap_or(false);
        if granted {
            tracing::info!(task = %self.id(), slot = %self.request.name, "task waits for its slot");
            self.place = Place::Waiting;
        }
        granted
    }

    /// Gets a run place; a verdict says that there is none.
    pub(super) async fn run_place(&mut self) -> Option<Verdict> {
        let (tx, mut rx) = oneshot::channel();
        if self.shared.places.send(Ask::Run(self.id().clone(), tx)).await.is_ok() {
            let mut stop = self.inputs.stop_rx.clone();
            // Cancel safe: an answer that came in the same moment is still there below.
            let asked = tokio::select! {
                answer = timeout(PLACE_PATIENCE, &mut rx) => matches!(answer, Ok(Ok(()))),
                _ = stop.wait_for(Option::is_some) => false,
            };
            rx.close();
            if asked || rx.try_recv().is_ok() {
                self.place = Place::Run;
                return None;
            }
            let stop = self.inputs.stop_rx.borrow().clone();
            if let Some(stop) = stop {
                return Some(self.stopped(stop).await);
            }
        }
        self.keep_place_for(KEEP_PLACE).await;
        Some(self.hand_back(HandBack::NoPlace).await)
    }

    pub(super) async fn stopped(&mut self, stop: Stop) -> Verdict {
        match stop.reason {
            StopReason::Draining => {
                self.keep_place_for(KEEP_PLACE).await;
                self.hand_back(HandBack::Draining).await
            }
            StopReason::Timeout
            | StopReason::Canceled
            | StopReason::Replaced
            | StopReason::LeaseLost => Verdict::Stopped(stop),
        }
    }

    /// Keeps our place in the line for whoever takes the task next, but not for long.
    async fn keep_place_for(&self, time: Duration) {
        let until = Timestamp::now() + time;
        let changed = async {
            let entry = self.shared.slots.read(&self.request.name).await?;
            if let Some(record) = admit::keep_place(&entry.record, self.id(), until) {
                self.shared.slots.write(&record, entry.seq).await?;
            }
            Ok::<_, BusError>(())
        };
        // A place that stays as it is runs out a little later.
        if let Err(error) = changed.await {
            tracing::debug!(task = %self.id(), %error, "a place in a slot's line was not changed");
        }
    }

    pub(super) async fn hand_back(&self, why: HandBack) -> Verdict {
        if !self.lease.is_held() {
            return self.dropped();
        }
        let delay = match (why, self.place) {
            // It is its turn, or another worker has room: as soon as this run is sure to have ended.
            (HandBack::Elsewhere(pause), _) => pause,
            (HandBack::Draining, _) | (HandBack::NoPlace, Place::Waiting) => HAND_OVER,
            (HandBack::NoPlace, Place::Run) => {
                self.leave_line().await;
                let doublings = self.inputs.delivery.delivered.clamp(1, 8) - 1;
                (COME_AGAIN * 2_u32.pow(u32::try_from(doublings).unwrap_or(0))).min(COME_AGAIN_MAX)
            }
        };
        let handle = self.inputs.handle.borrow().clone();
        tracing::debug!(task = %self.id(), ?why, ?delay, "a task that wants a slot is handed back");
        if let Err(error) = handle.nak(&self.shared.bus, delay).await {
            tracing::debug!(task = %self.id(), %error, "it comes again after its lease");
        }
        Verdict::HandedBack(why)
    }

    /// Takes back a place in the line that was written before it was known that we can't stay. Only
    /// that: another worker with the same message may have the slot by now.
    pub(super) async fn leave_line(&self) {
        if self.is_listed() {
            self.keep_place_for(Duration::ZERO).await;
        }
    }

    pub(super) fn dropped(&self) -> Verdict {
        tracing::warn!(task = %self.id(), "a waiting task's hold ran out; it is dropped here");
        Verdict::Dropped
    }

    /// Renews the hold on the message, and looks for a cancel that passed unheard.
    pub(super) async fn renew(&mut self) -> Look {
        let sent = BootInstant::now();
        let handle = self.inputs.handle.borrow().clone();
        let left = self.lease.left();
        match timeout(left, handle.in_progress(&self.shared.bus)).await {
            // An answer that comes after the deadline proves nothing.
            Err(_) => return Look::Done(self.dropped()),
            Ok(Ok(())) if self.lease.is_held() => self.lease.renew_from(sent),
            Ok(Ok(())) => return Look::Done(self.dropped()),
            Ok(Err(error)) => {
                tracing::warn!(task = %self.id(), %error, "lease of a waiting task not renewed");
            }
        }
        match self.stored_cancel().await {
            Ok(Some(stop)) => Look::Done(Verdict::Stopped(stop)),
            Ok(None) | Err(_) => self.look_if(!self.stays()).await,
        }
    }
}
