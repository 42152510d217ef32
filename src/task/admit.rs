//! Slots: may this task have its slot, given the slot's record? A function of its arguments; the caller
//! reads the record, and writes what comes out by compare-and-set.
//!
//! ```text
//!            dropIfRunning            queue                      replace
//! room       Admitted                 Admitted                   Admitted
//! no room    Busy: rejected           Wait, lowest sequence      Replace: cancel the holders that are
//!                                     first                      older, Wait; Superseded by a newer one
//! ```
//!
//! *Room* means: after every live waiter that stands before the task has taken its place, there is still
//! one, so nobody is overtaken. The line is the newest `replace` task, then the `queue` tasks by their
//! sequence in the queue stream. Tasks may disagree about the slot's limit: each is admitted by its own
//! number, and one that needs an emptier slot is not overtaken by one that doesn't.
//!
//! A task has its slot until its chain is finished; whoever runs it again takes over the hold. A hold
//! whose task is gone is void, and whoever wants the slot drops it.

use jiff::{SignedDuration, Timestamp};

use crate::wire::{Admission, SlotHolder, SlotRecord, SlotWaiter, StatusEvent, TaskId, WorkerId};

/// The most tasks that a record has waiting: it is one message, and must stay a small one.
pub const MAX_WAITERS: usize = 500;
/// How long a hold counts though neither its task's message nor a start is there: its worker may be
/// about to write the start.
const UNSTARTED_HOLD: SignedDuration = SignedDuration::from_secs(60);

/// A task that wants a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The task.
    pub task: TaskId,
    /// The worker that has its message.
    pub worker: WorkerId,
    /// The message's sequence in the queue stream.
    pub queue_seq: u64,
    /// What to do when the slot is taken.
    pub admission: Admission,
    /// How many tasks may have the slot at once; at least 1.
    pub limit: u32,
    /// Until when its place in the line is good if it has to wait.
    pub until: Timestamp,
}

/// What is known besides the record.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Holds that are void, by [`is_gone`].
    pub gone: &'a [SlotHolder],
    /// The time.
    pub now: Timestamp,
}

/// Whether a task may have its slot. A record in it is to be written in place of the one it was made
/// from, and the decision holds only if that succeeds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// It has the slot; with None it had it before.
    Admitted(Option<SlotRecord>),
    /// It is to be rejected.
    Busy(TakenBy),
    /// It waits; with None the record says so already.
    Wait(Option<SlotRecord>),
    /// It waits, and these tasks are to be canceled in its favour.
    Replace {
        /// The oldest holders, as many as have to go.
        victims: Vec<TaskId>,
        /// As in `Wait`.
        record: Option<SlotRecord>,
    },
    /// A newer `replace` task has taken its place: it is to be canceled.
    Superseded(TaskId),
    /// As many wait as can, and it isn't before them: it is to come again later.
    Full,
}

/// Who keeps a task from its slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenBy {
    /// A task that has the slot, or is the first that waits for it.
    pub task: TaskId,
    /// Its worker.
    pub worker: WorkerId,
}

/// What is known about a holder, to tell whether it is gone.
#[derive(Debug, Clone, Copy)]
pub struct HolderFacts<'a> {
    /// The last record of its chain, as the leader has it.
    pub last: Option<&'a StatusEvent>,
    /// Whether a message of the task is in the queue, in flight and delayed ones included.
    pub queued: bool,
    /// Whether the worker that started it last is there.
    pub worker_lives: bool,
}

/// Whether a hold is void: its task has ended, or nothing is left that could run it again.
///
/// While the task's message is in the queue it is not: a lost worker's task is delivered again, and
/// takes over its own hold. Without one, somebody has purged it; then a start counts as long as its
/// worker is there.
pub fn is_gone(holder: &SlotHolder, facts: &HolderFacts<'_>, now: Timestamp) -> bool {
    match facts.last {
        Some(StatusEvent::Finished(_)) => true,
        _ if facts.queued => false,
        Some(StatusEvent::Started(_)) => !facts.worker_lives,
        Some(StatusEvent::Retrying(_) | StatusEvent::Requeued(_)) | None => {
            now.duration_since(holder.since) > UNSTARTED_HOLD
        }
    }
}

/// For how long a task must not take over its own hold from another worker, because that one may still
/// have the task: a server that was killed may have forgotten a delivery, and makes another one though
/// the hold on the first is not over. None: it may.
///
/// `lease` is the hold that a worker has on a message; a worker that can't renew it ends its task when
/// nine tenths of it are over.
pub fn not_before(
    holder: &SlotHolder,
    last: Option<&StatusEvent>,
    lease: SignedDuration,
    now: Timestamp,
) -> Option<SignedDuration> {
    let from = match last {
        Some(StatusEvent::Started(started)) => started.at,
        None => holder.since,
        // Its worker has given it back.
        Some(StatusEvent::Retrying(_) | StatusEvent::Requeued(_) | StatusEvent::Finished(_)) => {
            return None;
        }
    };
    let left = lease - lease / 10 - now.duration_since(from);
    left.is_positive().then_some(left)
}

/// Decides whether a task may have its slot.
pub fn admit(record: &SlotRecord, me: &Candidate, facts: &Facts<'_>) -> Decision {
    if let Some(at) = record.holders.iter().position(|holder| holder.task == me.task) {
        return Decision::Admitted(taken_over(record, me, facts, at));
    }
    let cleaned = cleaned(record, me, facts);
    let newest = newest_replace(&cleaned, me);
    if let Some(newer) = newest.filter(|newest| newest.queue_seq > me.queue_seq)
        && me.admission == Admission::Replace
    {
        return Decision::Superseded(newer.task.clone());
    }
    if has_room(&cleaned, me) {
        return Decision::Admitted(Some(with_holder(cleaned, me, facts.now)));
    }
    match me.admission {
        Admission::DropIfRunning => Decision::Busy(taken_by(&cleaned)),
        Admission::Queue => wait(record, cleaned, me, facts),
        Admission::Replace => replace(record, cleaned, me, facts),
    }
}

/// Puts a task in the line though there may be room: it lets tasks that were submitted before it, and
/// are on their way, come first. None: it stands there already, or the line is full.
pub fn line_up(record: &SlotRecord, me: &Candidate, facts: &Facts<'_>) -> Option<SlotRecord> {
    match wait(record, cleaned(record, me, facts), me, facts) {
        Decision::Wait(record) => record,
        _ => None,
    }
}

/// Takes a task out of the record, as a holder and as a waiter; None if it isn't there.
pub fn release(record: &SlotRecord, task: &TaskId) -> Option<SlotRecord> {
    let mut released = record.clone();
    released.holders.retain(|holder| holder.task != *task);
    released.waiters.retain(|waiter| waiter.task != *task);
    (released != *record).then_some(released)
}

/// Changes until when a waiting task's place is good; None if it doesn't wait.
pub fn keep_place(record: &SlotRecord, task: &TaskId, until: Timestamp) -> Option<SlotRecord> {
    let mut changed = record.clone();
    changed.waiters.iter_mut().find(|waiter| waiter.task == *task)?.until = until;
    Some(changed)
}

/// Whether no live waiter stands before the task: it is the one that looks after the holders.
pub fn is_first(record: &SlotRecord, me: &Candidate, now: Timestamp) -> bool {
    let facts = Facts { gone: &[], now };
    let cleaned = cleaned(record, me, &facts);
    line(&cleaned, me).first().is_none_or(|first| first.task == me.task)
}

/// The hold as it is to be: with the worker that has the task now, and not waiting any more.
fn taken_over(
    record: &SlotRecord,
    me: &Candidate,
    facts: &Facts<'_>,
    at: usize,
) -> Option<SlotRecord> {
    let waits = record.waiters.iter().any(|waiter| waiter.task == me.task);
    if !waits && record.holders[at].worker == me.worker {
        return None;
    }
    let mut changed = record.clone();
    changed.waiters.retain(|waiter| waiter.task != me.task);
    changed.holders[at].worker = me.worker.clone();
    changed.holders[at].since = facts.now;
    Some(changed)
}

/// The record without holders that are gone and places that are void; our own is kept.
fn cleaned(record: &SlotRecord, me: &Candidate, facts: &Facts<'_>) -> SlotRecord {
    let mut cleaned = record.clone();
    cleaned.holders.retain(|holder| !facts.gone.contains(holder));
    cleaned.waiters.retain(|waiter| waiter.task == me.task || waiter.until > facts.now);
    cleaned
}

/// The newest of the others that wait to replace.
fn newest_replace<'a>(record: &'a SlotRecord, me: &Candidate) -> Option<&'a SlotWaiter> {
    let others = record.waiters.iter().filter(|waiter| waiter.task != me.task);
    others.filter(|waiter| waiter.admission == Admission::Replace).max_by_key(|w| w.queue_seq)
}

/// The line with this task in its place; older `replace` tasks are on their way out.
fn line(record: &SlotRecord, me: &Candidate) -> Vec<SlotWaiter> {
    let others = record.waiters.iter().filter(|waiter| waiter.task != me.task).cloned();
    let mut line: Vec<_> = others.chain([waiter(me)]).collect();
    let newest =
        line.iter().filter(|w| w.admission == Admission::Replace).map(|w| w.queue_seq).max();
    line.retain(|w| w.admission != Admission::Replace || Some(w.queue_seq) == newest);
    line.sort_by_key(|waiter| {
        let class = match waiter.admission {
            Admission::Replace => 0,
            Admission::Queue => 1,
            // Only ourselves: such a task never waits, and overtakes nobody.
            Admission::DropIfRunning => 2,
        };
        (class, waiter.queue_seq)
    });
    line
}

fn has_room(record: &SlotRecord, me: &Candidate) -> bool {
    let line = line(record, me);
    let mine = line.iter().position(|waiter| waiter.task == me.task).expect("the line has it");
    let taken = |before: usize| record.holders.len() + before;
    line[..=mine].iter().enumerate().all(|(before, waiter)| taken(before) < limit(waiter.limit))
}

fn wait(record: &SlotRecord, cleaned: SlotRecord, me: &Candidate, facts: &Facts<'_>) -> Decision {
    let mut changed = cleaned;
    let place = changed.waiters.iter().position(|waiter| waiter.task == me.task);
    match place {
        // Written again when half of its time is over, not each time somebody looks.
        Some(at) if is_fresh(&changed.waiters[at], me, facts.now) => {}
        Some(at) => changed.waiters[at] = waiter(me),
        None => {
            if changed.waiters.len() >= MAX_WAITERS {
                let last = line(&changed, me).pop();
                let Some(last) = last.filter(|last| last.task != me.task) else {
                    return Decision::Full;
                };
                changed.waiters.retain(|waiter| waiter.task != last.task);
            }
            changed.waiters.push(waiter(me));
        }
    }
    Decision::Wait((changed != *record).then_some(changed))
}

fn replace(
    record: &SlotRecord,
    cleaned: SlotRecord,
    me: &Candidate,
    facts: &Facts<'_>,
) -> Decision {
    let too_many = cleaned.holders.len() + 1 - limit(me.limit);
    let mut older: Vec<_> =
        cleaned.holders.iter().filter(|holder| holder.queue_seq < me.queue_seq).collect();
    older.sort_by_key(|holder| holder.queue_seq);
    let newer = cleaned.holders.iter().filter(|holder| holder.queue_seq > me.queue_seq);
    let newer = newer.filter(|holder| holder.admission == Admission::Replace);
    let newest = newer.max_by_key(|holder| holder.queue_seq).map(|holder| holder.task.clone());
    let victims: Vec<_> = older.iter().take(too_many).map(|holder| holder.task.clone()).collect();
    if let Some(newest) = newest.filter(|_| victims.len() < too_many) {
        return Decision::Superseded(newest);
    }
    match wait(record, cleaned, me, facts) {
        Decision::Wait(record) if !victims.is_empty() => Decision::Replace { victims, record },
        other => other,
    }
}

fn is_fresh(place: &SlotWaiter, me: &Candidate, now: Timestamp) -> bool {
    // Whatever worker wrote it: two that have the same message must not write in turn.
    place.until.duration_since(now) > me.until.duration_since(now) / 2
}

fn with_holder(record: SlotRecord, me: &Candidate, now: Timestamp) -> SlotRecord {
    let mut record = record;
    record.waiters.retain(|waiter| waiter.task != me.task);
    record.holders.push(SlotHolder {
        task: me.task.clone(),
        worker: me.worker.clone(),
        queue_seq: me.queue_seq,
        admission: me.admission,
        since: now,
    });
    record
}

fn waiter(me: &Candidate) -> SlotWaiter {
    SlotWaiter {
        task: me.task.clone(),
        worker: me.worker.clone(),
        queue_seq: me.queue_seq,
        admission: me.admission,
        limit: me.limit,
        until: me.until,
    }
}

fn taken_by(record: &SlotRecord) -> TakenBy {
    let holder = record.holders.first().map(|holder| (&holder.task, &holder.worker));
    let first = record.waiters.iter().min_by_key(|waiter| waiter.queue_seq);
    let (task, worker) = holder
        .or_else(|| first.map(|waiter| (&waiter.task, &waiter.worker)))
        .expect("a slot without holders and waiters has room");
    TakenBy { task: task.clone(), worker: worker.clone() }
}

fn limit(limit: u32) -> usize {
    // A record of another version could have a 0, which would block the line for ever.
    usize::try_from(limit.max(1)).unwrap_or(usize::MAX)
}

#[cfg(test)]
#[path = "admit_tests.rs"]
mod tests;
