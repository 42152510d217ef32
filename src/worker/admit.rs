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
//! *Order.* Whenever the slot has room, the `queue` task with the lowest sequence in the queue stream gets
//! it, of those that stand in the line then; nobody in the line is overtaken. A task stands in it as soon
//! as a worker has a waiting place for it. So the order is that of submission as far as the fleet's
//! waiting places reach; beyond, tasks come in as places get free. A task that finds the slot free gives
//! tasks before it that are on their way 100 ms, unless the queue has none. A place whose worker was not
//! heard of for a lease is void (by the workers' clocks, which are to agree to within a lease); its task
//! is delivered again and gets in by its sequence.
//!
//! While a task waits, only its message is ours, by confirmed `+WPI`; if that can't be confirmed in
//! time, the task is dropped without a word, because another worker may have it.

mod checks;
mod places;
mod turns;
mod wakes;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{OwnedMutexGuard, broadcast};
use tokio::time::Instant;

use self::checks::replaced_by;
pub(super) use self::turns::Turns;
use self::wakes::{CATCH_UP, Wake};
use super::lease::Lease;
use super::run::RunInputs;
use super::shared::Shared;
use crate::exec::Stop;
use crate::nats::{BusError, Cas, Hold as _, SlotChanges, SlotEntry};
use crate::task::SlotRequest;
use crate::task::admit::{self, Candidate, Decision, Facts};
use crate::wire::{ErrorDetail, SlotHolder, SlotRecord, TaskId};

/// How often a waiting task looks at what it knows, and the first in line at the holders.
const LOOK: Duration = Duration::from_secs(1);
/// How often it reads the record though nothing was heard.
const READ: Duration = Duration::from_secs(10);
/// How long a `queue` task that finds its slot free lets tasks that were submitted before it come first:
/// they may have been delivered to another worker a moment ago.
const SETTLE: Duration = Duration::from_millis(100);
/// What came of asking for a slot.
pub(super) enum Verdict {
    /// The task has it.
    Admitted,
    /// Its slot is taken: end it as rejected.
    Busy(ErrorDetail),
    /// Its time to start for the first time has passed while it waited.
    Expired,
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
    /// Another worker may have it for as long.
    Elsewhere(Duration),
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

/// When a moment comes, by this process's clock.
fn instant_of(at: Timestamp) -> Instant {
    let left = Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
    let now = Instant::now();
    now.checked_add(left).unwrap_or(now + READ)
}

/// Gets a slot for a task.
pub(super) async fn admit(
    shared: &Shared,
    inputs: &RunInputs,
    (request, start_by): (&SlotRequest, Option<Timestamp>),
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
        start_by,
        expires: start_by.map(instant_of),
        received: Instant::now(),
        known: SlotRecord::free(&request.name),
        read_at: Instant::now(),
        place: Place::Run,
        catch_up: CATCH_UP.len(),
        checked: false,
        gone: Vec::new(),
        turn: None,
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

/// What a decision leads to.
enum Step {
    /// Look again: it was made of something that has changed.
    Again,
    /// Nothing more is to be done.
    Done(Verdict),
    /// Write the record, if there is one; if that succeeds, the rest holds.
    Write(Option<SlotRecord>, Look),
}

/// A task that stands in the line of its slot.
struct Line<'a> {
    shared: &'a Shared,
    inputs: &'a RunInputs,
    request: &'a SlotRequest,
    lease: &'a Lease,
    changes: broadcast::Receiver<Arc<SlotRecord>>,
    /// The time after which it doesn't start for the first time, and when to look at that.
    start_by: Option<Timestamp>,
    expires: Option<Instant>,
    received: Instant,
    /// The record as it was read or heard last.
    known: SlotRecord,
    read_at: Instant,
    place: Place,
    /// Looks done after the last change; all of them if there is nothing to catch up with.
    catch_up: usize,
    /// Whether it was seen that the task itself and the holders are still there.
    checked: bool,
    /// Holds that are void.
    gone: Vec<SlotHolder>,
    /// Held while it looks.
    turn: Option<OwnedMutexGuard<()>>,
}

impl Line<'_> {
    async fn stand(mut self) -> Result<Verdict, BusError> {
        let mut look = self.look().await?;
        if !matches!(look, Look::Done(_))
            && let Some(stop) = self.stored_cancel().await?
        {
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
                Wake::Expired => self.expired().await,
                Wake::Tick => self.tick().await,
                Wake::Changed(None) => self.look_if(true).await,
                Wake::Changed(Some(record)) => self.heard(&record).await,
            };
            if !self.lease.is_held() && !matches!(look, Look::Done(_)) {
                look = Look::Done(self.dropped());
            }
        }
    }

    /// Reads the record and does what it leads to, until that is written or nothing is to be.
    async fn look_in_turn(&mut self) -> Result<Look, BusError> {
        loop {
            self.take_turn().await;
            let SlotEntry { seq, record } = self.shared.slots.read(&self.request.name).await?;
            (self.known, self.read_at) = (record, Instant::now());
            let facts = Facts { gone: &self.gone, now: Timestamp::now() };
            let decision = admit::admit(&self.known, &self.me(), &facts);
            let (write, look) = match self.follow(decision).await? {
                Step::Again => continue,
                Step::Done(verdict) => return Ok(Look::Done(verdict)),
                Step::Write(write, look) => (write, look),
            };
            if matches!(look, Look::Wait) && self.place == Place::Run && !self.waiting_place().await
            {
                return Ok(Look::Done(self.hand_back(HandBack::NoPlace).await));
            }
            let Some(write) = write else { return Ok(look) };
            if !self.lease.is_held() {
                return Ok(Look::Done(self.dropped()));
            }
            if let Cas::Stored(_) = self.shared.slots.write(&write, seq).await? {
                self.known = write;
                if self.checked || !matches!(look, Look::Wait) {
                    return Ok(look);
                }
            }
        }
    }

    async fn follow(&mut self, decision: Decision) -> Result<Step, BusError> {
        match decision {
            Decision::Admitted(hold) => return self.on_room(hold).await,
            // The place in the line first, since others may be about to overtake; the checks after.
            Decision::Wait(Some(place)) if !self.checked && !self.is_listed() => {
                return Ok(Step::Write(Some(place), Look::Wait));
            }
            Decision::Busy(_)
            | Decision::Wait(_)
            | Decision::Replace { .. }
            | Decision::Superseded(_)
            | Decision::Full => {}
        }
        // Somebody else's hold decides: it counts only if its task is still there.
        if self.find_gone().await? {
            return Ok(Step::Again);
        }
        if !self.checked && self.is_settled_by_chain().await? {
            self.leave_line().await;
            return Ok(Step::Done(Verdict::Settled));
        }
        self.checked = true;
        Ok(match decision {
            Decision::Admitted(_) => unreachable!("dealt with above"),
            Decision::Busy(by) => Step::Done(Verdict::Busy(self.busy(&by))),
            Decision::Superseded(by) => Step::Done(Verdict::Stopped(replaced_by(&by))),
            Decision::Full => Step::Done(self.hand_back(HandBack::NoPlace).await),
            Decision::Wait(place) => Step::Write(place, Look::Wait),
            Decision::Replace { victims, record } => {
                self.cancel(&victims).await?;
                Step::Write(record, Look::Wait)
            }
        })
    }

    async fn on_room(&mut self, hold: Option<SlotRecord>) -> Result<Step, BusError> {
        if self.place == Place::Waiting {
            self.turn = None;
            return Ok(self.run_place().await.map_or(Step::Again, Step::Done));
        }
        if hold.is_none() {
            return Ok(Step::Done(Verdict::Admitted));
        }
        if let Some(pause) = self.is_held_elsewhere().await? {
            return Ok(Step::Done(self.hand_back(HandBack::Elsewhere(pause)).await));
        }
        if self.lets_others_come().await? {
            let facts = Facts { gone: &self.gone, now: Timestamp::now() };
            return Ok(Step::Write(admit::line_up(&self.known, &self.me(), &facts), Look::Settle));
        }
        Ok(Step::Write(hold, Look::Done(Verdict::Admitted)))
    }

    fn is_listed(&self) -> bool {
        self.known.waiters.iter().any(|waiter| waiter.task == *self.id())
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
