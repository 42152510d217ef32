//! Getting a task's slot before its start: admitted at once, rejected, or after a wait.
//!
//! ```text
//!            ┌─ Admitted ─► (has a run place?) ─ yes ─► write the hold ─► Admitted
//!  look ─────┤                    └─ no ─► ask for one, up to a second ─► look again, or hand back
//!   ▲        ├─ Wait, Replace ─► (waiting place?) ─ no ─► hand back with a delay
//!   │        │                          └─ yes ─► write our place in the line ─┐
//!   │        └─ Busy, Superseded ─► end the task without a start               │
//!   └──── the slot changed, it is time to look, or to renew the lease ◄────────┘
//! ```
//!
//! A look reads the record from the leader; whatever it leads to is written by compare-and-set, and on a
//! conflict it looks again. A task whose turn it is takes its slot only when it has a run place: a slot
//! never stands empty for want of capacity here while another worker has some. Its place in the line
//! is kept for a few seconds after it was handed back, so it isn't overtaken on the way.
//!
//! While a task waits, only its message is ours, by confirmed `+WPI`; if that can't be confirmed in
//! time, the task is dropped without a word, because another worker may have it.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{broadcast, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::lease::{BootInstant, Lease};
use super::places::Ask;
use super::run::RunInputs;
use super::shared::Shared;
use super::stop::canceled;
use crate::exec::Stop;
use crate::nats::{BusError, Cas, Headers, Hold as _, SlotChanges, SlotEntry};
use crate::task::SlotRequest;
use crate::task::admit::{self, Candidate, Decision, Facts, HolderFacts, TakenBy};
use crate::wire::{
    Admission, CancelRequest, ErrorDetail, SlotHolder, SlotRecord, StatusEvent, StopReason, TaskId,
};

/// How often a waiting task looks at what it knows, and the first in line at the holders.
const LOOK: Duration = Duration::from_secs(1);
/// How often it reads the record though nothing was heard.
const READ: Duration = Duration::from_secs(10);
/// How long a `queue` task that finds its slot free lets tasks that were submitted before it come first:
/// they may have been delivered to another worker a moment ago.
const SETTLE: Duration = Duration::from_millis(100);
/// How long a task whose turn it is waits for a run place.
const PLACE_PATIENCE: Duration = Duration::from_secs(1);
/// How long a handed back task keeps its place in the line.
const KEEP_PLACE: Duration = Duration::from_secs(5);
/// First and longest pause before a task is offered again for want of a waiting place.
const COME_AGAIN: Duration = Duration::from_secs(1);
const COME_AGAIN_MAX: Duration = Duration::from_secs(8);
/// Pauses in milliseconds between looks after a change was heard that the leader doesn't show yet: it is
/// heard as soon as it is sent, and stored a moment later, if at all.
const CATCH_UP: [u64; 7] = [1, 2, 5, 10, 25, 60, 150];

/// What came of asking for a slot.
pub(super) enum Verdict {
    /// The task has it.
    Admitted,
    /// Its slot is taken: end it as rejected.
    Busy(ErrorDetail),
    /// It was canceled, or replaced, while it waited: end it without a start.
    Stopped(Stop),
    /// The chain says that this delivery leads to no start: let `claim` deal with it.
    Settled,
    /// The message was handed back.
    HandedBack(HandBack),
    /// The message may be another worker's by now: nothing may be sent.
    Dropped,
}

/// Why a message was handed back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HandBack {
    /// There is no place for it here.
    NoPlace,
    /// The worker ends.
    Draining,
}

/// Forwards changes of slots to the waiting tasks until the connection is closed.
pub(super) async fn forward(
    mut changes: SlotChanges,
    // Bounded: a task that is too slow loses the oldest, and looks then.
    tell: broadcast::Sender<Arc<SlotRecord>>,
) -> Result<(), BusError> {
    while let Some(record) = changes.next().await {
        // An error means that nobody waits.
        tell.send(Arc::new(record)).ok();
    }
    Ok(())
}

/// Gets a slot for a task.
pub(super) async fn admit(
    shared: &Shared,
    inputs: &RunInputs,
    request: &SlotRequest,
    lease: &Lease,
) -> Result<Verdict, BusError> {
    // Before the first look: a change in between is heard.
    let changes = shared.slot_changes.subscribe();
    let line = Line {
        shared,
        inputs,
        request,
        lease,
        changes,
        received: Instant::now(),
        known: SlotRecord::free(&request.name),
        read_at: Instant::now(),
        place: Place::Run,
        catch_up: CATCH_UP.len(),
        gone: Vec::new(),
    };
    line.stand().await
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Run,
    Waiting,
}

/// What a look at the record leads to.
enum Look {
    /// Nothing to do before the next change.
    Wait,
    /// The same, but it waits only for tasks that may be on their way.
    Settle,
    Done(Verdict),
}

/// Why a waiting task wakes.
enum Wake {
    Stopped(Stop),
    Changed(Option<Arc<SlotRecord>>),
    Renew,
    Tick,
}

/// A task that stands in the line of its slot.
struct Line<'a> {
    shared: &'a Shared,
    inputs: &'a RunInputs,
    request: &'a SlotRequest,
    lease: &'a Lease,
    changes: broadcast::Receiver<Arc<SlotRecord>>,
    received: Instant,
    /// The record as it was read or heard last.
    known: SlotRecord,
    read_at: Instant,
    place: Place,
    /// Looks done after the last change; all of them if there is nothing to catch up with.
    catch_up: usize,
    gone: Vec<TaskId>,
}

impl Line<'_> {
    async fn stand(mut self) -> Result<Verdict, BusError> {
        let mut look = self.look().await?;
        if !matches!(look, Look::Done(_)) && let Some(stop) = self.stored_cancel().await? {
            return Ok(Verdict::Stopped(stop));
        }
        let mut renew_at = Instant::now() + self.lease.interval();
        loop {
            if let Look::Done(verdict) = look {
                return Ok(verdict);
            }
            look = match self.wake(renew_at).await {
                Wake::Stopped(stop) => Look::Done(self.stopped(stop).await),
                Wake::Renew => {
                    let look = self.renew().await;
                    // Sooner if it was not renewed, as the time that is left gets shorter.
                    renew_at = Instant::now() + self.lease.interval().min(self.lease.left() / 2);
                    look
                }
                Wake::Tick => self.tick().await,
                Wake::Changed(None) => self.look_if(true).await,
                Wake::Changed(Some(record)) => self.heard(&record).await,
            };
            if !self.lease.is_held() && !matches!(look, Look::Done(_)) {
                look = Look::Done(self.dropped());
            }
        }
    }

    /// Cancel safe: a stop and a change stay where they are until taken.
    async fn wake(&mut self, renew_at: Instant) -> Wake {
        let until = self.next_tick();
        let mut stop = self.inputs.stop_rx.clone();
        tokio::select! {
            Ok(stop) = stop.wait_for(Option::is_some) => match stop.clone() {
                Some(stop) => Wake::Stopped(stop),
                None => Wake::Tick,
            },
            changed = self.changes.recv() => Wake::Changed(changed.ok()),
            () = sleep_until(renew_at) => Wake::Renew,
            () = sleep_until(until) => Wake::Tick,
        }
    }

    fn next_tick(&self) -> Instant {
        let now = Instant::now();
        let look = now + CATCH_UP.get(self.catch_up).map_or(LOOK, |ms| Duration::from_millis(*ms));
        let settled = self.received + SETTLE;
        if settled > now { settled.min(look) } else { look }
    }

    async fn tick(&mut self) -> Look {
        if self.catch_up < CATCH_UP.len() {
            self.catch_up += 1;
            return self.look_if(true).await;
        }
        self.look_if(self.is_time_to_look()).await
    }

    /// A look whose failure is only a delay: the lease bounds for how long.
    async fn look_if(&mut self, wanted: bool) -> Look {
        if !wanted {
            return Look::Wait;
        }
        match self.look().await {
            Ok(look) => look,
            Err(error) => {
                tracing::debug!(task = %self.id(), %error, "a slot was not read; trying again");
                Look::Wait
            }
        }
    }

    async fn heard(&mut self, record: &SlotRecord) -> Look {
        if record.slot != self.request.name {
            return Look::Wait;
        }
        self.known = record.clone();
        if self.stays() {
            return Look::Wait;
        }
        self.catch_up = 0;
        self.look_if(true).await
    }

    /// Whether what is known leaves everything as it is.
    fn stays(&self) -> bool {
        let (me, facts) = (self.me(), Facts { gone: &[], now: Timestamp::now() });
        match admit::admit(&self.known, &me, &facts) {
            Decision::Wait(None) | Decision::Replace { record: None, .. } => true,
            // If our own place is good, only somebody's void one is to be cleared away: that can wait.
            Decision::Wait(Some(new)) | Decision::Replace { record: Some(new), .. } => {
                let mine = |record: &SlotRecord| {
                    record.waiters.iter().find(|waiter| waiter.task == me.task).cloned()
                };
                mine(&new) == mine(&self.known)
            }
            Decision::Admitted(_) | Decision::Busy(_) | Decision::Superseded(_) | Decision::Full => false,
        }
    }

    /// The first in line looks after the holders; the others see to their own place.
    fn is_time_to_look(&self) -> bool {
        let me = self.me();
        !self.stays()
            || self.read_at.elapsed() >= READ
            || admit::is_first(&self.known, &me, Timestamp::now())
    }

    /// Reads the record and does what it leads to.
    async fn look(&mut self) -> Result<Look, BusError> {
        let slots = &self.shared.slots;
        loop {
            let SlotEntry { seq, record } = slots.read(&self.request.name).await?;
            (self.known, self.read_at) = (record.clone(), Instant::now());
            let me = self.me();
            let facts = Facts { gone: &self.gone, now: Timestamp::now() };
            let decision = admit::admit(&record, &me, &facts);
            let (write, look) = match decision {
                Decision::Admitted(_) if self.place == Place::Waiting => match self.run_place().await {
                    Some(verdict) => return Ok(Look::Done(verdict)),
                    None => continue,
                },
                Decision::Admitted(None) => return Ok(Look::Done(Verdict::Admitted)),
                Decision::Admitted(Some(_)) if self.lets_others_come().await? => {
                    (admit::line_up(&record, &me, &facts), Look::Settle)
                }
                Decision::Admitted(hold) => (hold, Look::Done(Verdict::Admitted)),
                // Somebody else's hold decides: it counts only if its task is still there.
                _ if self.find_gone(&record, &me).await? => continue,
                _ if self.is_settled_by_chain().await? => return Ok(Look::Done(Verdict::Settled)),
                Decision::Busy(by) => return Ok(Look::Done(Verdict::Busy(self.busy(&by)))),
                Decision::Superseded(by) => return Ok(Look::Done(Verdict::Stopped(replaced_by(&by)))),
                Decision::Full => return Ok(Look::Done(self.hand_back(HandBack::NoPlace).await)),
                Decision::Wait(place) => (place, Look::Wait),
                Decision::Replace { victims, record } => {
                    self.cancel(&victims).await?;
                    (record, Look::Wait)
                }
            };
            if matches!(look, Look::Wait) && self.place == Place::Run && !self.waiting_place().await {
                return Ok(Look::Done(self.hand_back(HandBack::NoPlace).await));
            }
            let Some(write) = write else { return Ok(look) };
            if !self.lease.is_held() {
                return Ok(Look::Done(self.dropped()));
            }
            if let Cas::Stored(_) = slots.write(&write, seq).await? {
                self.known = write;
                return Ok(look);
            }
            tracing::trace!(task = %self.id(), "a slot's record was changed in the meantime");
        }
    }

    /// Whether a `queue` task that finds its slot free is to wait for tasks on their way.
    async fn lets_others_come(&self) -> Result<bool, BusError> {
        if self.request.admission != Admission::Queue || self.received.elapsed() >= SETTLE {
            return Ok(false);
        }
        self.shared.slots.is_preceded(self.inputs.delivery.queue_seq).await
    }

    /// Adds to `gone`; says whether there was anything to add. The first in line does it for all.
    async fn find_gone(&mut self, record: &SlotRecord, me: &Candidate) -> Result<bool, BusError> {
        if self.place == Place::Waiting && !admit::is_first(record, me, Timestamp::now()) {
            return Ok(false);
        }
        let before = self.gone.len();
        for holder in &record.holders {
            if !self.gone.contains(&holder.task) && self.is_gone(holder).await? {
                let (task, slot) = (self.id(), &self.request.name);
                tracing::info!(%task, holder = %holder.task, slot, "a void hold of a slot is dropped");
                self.gone.push(holder.task.clone());
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
            Some(StatusEvent::Started(started)) if !queued => slots.is_present(&started.worker).await?,
            _ => true,
        };
        let facts = HolderFacts { last: last.as_ref(), queued, worker_lives };
        Ok(admit::is_gone(holder, &facts, Timestamp::now()))
    }

    /// Whether the task has ended, or another message of it is responsible: it waits for nothing.
    async fn is_settled_by_chain(&self) -> Result<bool, BusError> {
        if self.place == Place::Waiting {
            return Ok(false);
        }
        let queue_seq = self.inputs.delivery.queue_seq;
        Ok(match self.shared.log.last(self.id()).await?.map(|last| last.event) {
            Some(StatusEvent::Finished(_)) => true,
            Some(StatusEvent::Started(started)) => started.queue_seq != queue_seq,
            Some(StatusEvent::Retrying(retrying)) => retrying.queue_seq != queue_seq,
            Some(StatusEvent::Requeued(requeued)) => requeued.queue_seq != queue_seq,
            None => false,
        })
    }

    /// Asks for the end of the tasks that are to be replaced, once each.
    async fn cancel(&self, victims: &[TaskId]) -> Result<(), BusError> {
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
            let payload = serde_json::to_vec(&request).map_err(|e| BusError::Broken(e.to_string()))?;
            let subject = self.shared.bus.subjects().cancel(victim);
            self.shared.bus.publish(subject, Headers::default(), payload.into()).await?;
        }
        Ok(())
    }

    /// Gives up the run place for a waiting one, if there is one.
    async fn waiting_place(&mut self) -> bool {
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
    async fn run_place(&mut self) -> Option<Verdict> {
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
        self.step_back().await;
        Some(self.hand_back(HandBack::NoPlace).await)
    }

    async fn stopped(&mut self, stop: Stop) -> Verdict {
        match stop.reason {
            StopReason::Draining => {
                self.step_back().await;
                self.hand_back(HandBack::Draining).await
            }
            StopReason::Timeout
            | StopReason::Canceled
            | StopReason::Replaced
            | StopReason::LeaseLost => Verdict::Stopped(stop),
        }
    }

    /// Keeps our place in the line for whoever takes the task next, but not for long.
    async fn step_back(&self) {
        let until = Timestamp::now() + KEEP_PLACE;
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

    async fn hand_back(&self, why: HandBack) -> Verdict {
        if !self.lease.is_held() {
            return self.dropped();
        }
        let delay = match (why, self.place) {
            // It is its turn, or another worker has room: at once.
            (HandBack::Draining, _) | (HandBack::NoPlace, Place::Waiting) => Duration::ZERO,
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

    /// Takes back a place in the line that was written before it was known that we can't stay.
    async fn leave_line(&self) {
        if !self.known.waiters.iter().any(|waiter| waiter.task == *self.id()) {
            return;
        }
        if let Err(error) = self.shared.slots.release(&self.request.name, self.id()).await {
            tracing::debug!(task = %self.id(), %error, "a place in a slot's line was not taken back");
        }
    }

    fn dropped(&self) -> Verdict {
        tracing::warn!(task = %self.id(), "a waiting task's hold ran out; it is dropped here");
        Verdict::Dropped
    }

    /// Renews the hold on the message, and looks for a cancel that passed unheard.
    async fn renew(&mut self) -> Look {
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

    async fn stored_cancel(&self) -> Result<Option<Stop>, BusError> {
        Ok(self.shared.log.cancel_request(self.id()).await?.map(canceled))
    }

    fn busy(&self, by: &TakenBy) -> ErrorDetail {
        let slot = &self.request.name;
        ErrorDetail {
            step: "admit".into(),
            message: format!("slot {slot:?} is taken by task {} at worker {}", by.task, by.worker),
            problems: Vec::new(),
        }
    }

    fn me(&self) -> Candidate {
        Candidate {
            task: self.id().clone(),
            worker: self.shared.worker.clone(),
            queue_seq: self.inputs.delivery.queue_seq,
            admission: self.request.admission,
            limit: self.request.limit,
            until: Timestamp::now() + self.lease.length(),
        }
    }

    fn id(&self) -> &TaskId {
        &self.inputs.delivery.id
    }
}

fn replaced_by(task: &TaskId) -> Stop {
    Stop {
        message: Some(format!("replaced by {task}")),
        ..Stop::because(StopReason::Replaced)
    }
}
