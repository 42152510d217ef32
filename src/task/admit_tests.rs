//! Tables for each admission, and a model: tasks come, wait, end, are lost and come back in any order.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::wire::{Attempt, Finished, LaneId, Outcome, Phase, Requeued, Started, StopReason};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).expect("a time")
}

fn id(seq: u64) -> TaskId {
    format!("t{seq}").parse().expect("a valid id")
}

fn worker() -> WorkerId {
    "w".parse().expect("a valid id")
}

fn task(seq: u64, admission: Admission, limit: u32) -> Candidate {
    Candidate { task: id(seq), worker: worker(), queue_seq: seq, admission, limit, until: at(30) }
}

fn now<'a>() -> Facts<'a> {
    Facts { gone: &[], now: at(0) }
}

/// The record after tasks were looked at one after the other.
fn after(tasks: &[Candidate]) -> SlotRecord {
    tasks.iter().fold(SlotRecord::free("s"), |record, me| match admit(&record, me, &now()) {
        Decision::Admitted(new) | Decision::Wait(new) | Decision::Replace { record: new, .. } => {
            new.unwrap_or(record)
        }
        Decision::Busy(_) | Decision::Superseded(_) | Decision::Full => record,
    })
}

fn holders(record: &SlotRecord) -> Vec<u64> {
    record.holders.iter().map(|holder| holder.queue_seq).collect()
}

fn waiters(record: &SlotRecord) -> Vec<u64> {
    record.waiters.iter().map(|waiter| waiter.queue_seq).collect()
}

use Admission::{DropIfRunning, Queue, Replace};

#[test]
fn a_free_slot_is_given_to_any_task() {
    for admission in [DropIfRunning, Queue, Replace] {
        let record = after(&[task(1, admission, 1)]);
        assert_eq!((holders(&record), waiters(&record)), (vec![1], vec![]));
    }
}

#[test]
fn a_task_that_has_its_slot_is_admitted_again_and_by_its_new_worker() {
    let record = after(&[task(1, Queue, 1)]);
    assert_eq!(admit(&record, &task(1, Queue, 1), &now()), Decision::Admitted(None));
    let elsewhere = Candidate { worker: "x".parse().expect("an id"), ..task(1, Queue, 1) };
    let Decision::Admitted(Some(moved)) = admit(&record, &elsewhere, &now()) else {
        panic!("it has the slot");
    };
    assert_eq!((moved.holders.len(), moved.holders[0].worker.as_str()), (1, "x"));
}

#[test]
fn drop_if_running_names_who_has_the_slot() {
    let record = after(&[task(1, Queue, 1)]);
    let Decision::Busy(by) = admit(&record, &task(2, DropIfRunning, 1), &now()) else {
        panic!("the slot is taken");
    };
    assert_eq!((by.task, by.worker), (id(1), worker()));
}

#[test]
fn drop_if_running_overtakes_nobody_who_waits() {
    let record = after(&[task(1, Queue, 1), task(2, Queue, 1)]);
    let record = release(&record, &id(1)).expect("it has the slot");
    let decision = admit(&record, &task(3, DropIfRunning, 1), &now());
    assert_eq!(decision, Decision::Busy(TakenBy { task: id(2), worker: worker() }));
}

#[test]
fn the_lowest_sequence_is_next_in_whatever_order_they_came() {
    let record =
        after(&[task(1, Queue, 1), task(4, Queue, 1), task(2, Queue, 1), task(3, Queue, 1)]);
    let record = release(&record, &id(1)).expect("it has the slot");
    for (seq, admitted) in [(4, false), (3, false), (2, true)] {
        let decision = admit(&record, &task(seq, Queue, 1), &now());
        assert_eq!(matches!(decision, Decision::Admitted(_)), admitted, "{seq}");
    }
}

#[test]
fn a_place_whose_time_has_passed_is_void() {
    let record = after(&[task(1, Queue, 1), task(2, Queue, 1), task(3, Queue, 1)]);
    let record = release(&record, &id(1)).expect("it has the slot");
    let me = Candidate { until: at(90), ..task(3, Queue, 1) };
    let later = Facts { gone: &[], now: at(60) };
    let Decision::Admitted(Some(record)) = admit(&record, &me, &later) else {
        panic!("task 2 was not heard of any more");
    };
    assert_eq!((holders(&record), waiters(&record)), (vec![3], vec![]));
}

#[test]
fn a_place_is_written_again_when_half_of_its_time_is_over() {
    let record = after(&[task(1, Queue, 1), task(2, Queue, 1)]);
    for (second, written) in [(1, false), (14, false), (16, true)] {
        let me = Candidate { until: at(second + 30), ..task(2, Queue, 1) };
        let decision = admit(&record, &me, &Facts { gone: &[], now: at(second) });
        assert_eq!(matches!(decision, Decision::Wait(Some(_))), written, "{second}");
    }
}

#[test]
fn a_task_that_needs_an_emptier_slot_is_not_overtaken() {
    let record = after(&[task(1, Queue, 3), task(2, Queue, 1)]);
    let decision = admit(&record, &task(3, Queue, 3), &now());
    assert!(matches!(decision, Decision::Wait(Some(_))), "{decision:?}");
}

#[test]
fn replace_takes_the_oldest_holders_and_only_as_many_as_it_must() {
    let record = after(&[task(1, Queue, 3), task(2, Queue, 3), task(3, Queue, 3)]);
    for (limit, expected) in
        [(3, vec![id(1)]), (2, vec![id(1), id(2)]), (1, vec![id(1), id(2), id(3)])]
    {
        let Decision::Replace { victims, record: Some(record) } =
            admit(&record, &task(9, Replace, limit), &now())
        else {
            panic!("the slot is full");
        };
        assert_eq!((victims, waiters(&record)), (expected, vec![9]));
    }
}

#[test]
fn the_newest_of_those_that_replace_is_first_in_the_line() {
    let record =
        after(&[task(1, Queue, 1), task(2, Queue, 1), task(5, Replace, 1), task(7, Replace, 1)]);
    assert_eq!(admit(&record, &task(5, Replace, 1), &now()), Decision::Superseded(id(7)));
    let record = release(&record, &id(1)).expect("it has the slot");
    assert!(matches!(admit(&record, &task(2, Queue, 1), &now()), Decision::Wait(None)));
    assert!(matches!(admit(&record, &task(7, Replace, 1), &now()), Decision::Admitted(Some(_))));
}

#[test]
fn a_task_replaces_only_what_was_submitted_before_it() {
    let newer = after(&[task(9, Replace, 1)]);
    assert_eq!(admit(&newer, &task(3, Replace, 1), &now()), Decision::Superseded(id(9)));
    let newer = after(&[task(9, Queue, 1)]);
    assert!(matches!(admit(&newer, &task(3, Replace, 1), &now()), Decision::Wait(Some(_))));
}

#[test]
fn a_full_line_keeps_the_lowest_sequences() {
    let mut record = after(&[task(1, Queue, 1)]);
    for seq in 0..MAX_WAITERS as u64 {
        let Decision::Wait(Some(new)) = admit(&record, &task(10 + 2 * seq, Queue, 1), &now())
        else {
            panic!("there is a place");
        };
        record = new;
    }
    assert_eq!(admit(&record, &task(5_000, Queue, 1), &now()), Decision::Full);
    let Decision::Wait(Some(new)) = admit(&record, &task(11, Queue, 1), &now()) else {
        panic!("it stands before others");
    };
    assert_eq!(new.waiters.len(), MAX_WAITERS);
    assert!(waiters(&new).contains(&11));
    assert_eq!(waiters(&record).iter().max(), Some(&(8 + 2 * MAX_WAITERS as u64)));
    assert!(!waiters(&new).contains(&(8 + 2 * MAX_WAITERS as u64)));
    assert!(serde_json::to_vec(&new).expect("JSON").len() < 200_000);
}

#[test]
fn a_hold_is_void_when_its_task_is_over_and_is_taken_over_when_its_lease_is() {
    let record = after(&[task(1, Queue, 1)]);
    let holder = &record.holders[0];
    let outcome = Outcome::without_run(id(1), Phase::Succeeded, at(0));
    let finished = StatusEvent::Finished(Finished { outcome, token: String::new() });
    let started = StatusEvent::Started(Started {
        attempt: Attempt::FIRST,
        worker: worker(),
        runner: "r".to_owned(),
        lane: LaneId::default_lane(),
        run_id: String::new(),
        token: String::new(),
        queue_seq: 1,
        lease_ms: 1,
        failures: 0,
        worker_losses: 0,
        at: at(0),
    });
    let requeued = StatusEvent::Requeued(Requeued {
        attempt: Attempt::FIRST,
        worker: worker(),
        reason: StopReason::Draining,
        failures: 0,
        worker_losses: 0,
        queue_seq: 1,
        at: at(0),
    });
    let lease = SignedDuration::from_secs(30);
    let wait =
        |last, second| not_before(holder, last, lease, at(second)).map(|left| left.as_secs());
    assert_eq!((wait(Some(&started), 1), wait(Some(&started), 27)), (Some(26), None));
    assert_eq!((wait(None, 1), wait(None, 28)), (Some(26), None));
    assert_eq!((wait(Some(&requeued), 1), wait(Some(&finished), 1)), (None, None));
    // last record, queued, worker lives, seconds since → gone
    let cases = [
        (Some(&finished), true, true, 0, true),
        (Some(&started), true, false, 10_000, false),
        (Some(&started), false, true, 10_000, false),
        (Some(&started), false, false, 0, true),
        (Some(&requeued), true, false, 10_000, false),
        (Some(&requeued), false, false, 0, false),
        (Some(&requeued), false, true, 61, true),
        (None, true, false, 10_000, false),
        (None, false, true, 59, false),
        (None, false, true, 61, true),
    ];
    for (last, queued, worker_lives, seconds, expected) in cases {
        let facts = HolderFacts { last, queued, worker_lives };
        assert_eq!(is_gone(holder, &facts, at(seconds)), expected, "{facts:?} {seconds}");
    }
}

#[derive(Debug, Clone, Copy)]
enum Event {
    /// A task looks at the record: its first look, one of many, or the one after its worker died.
    Look(usize),
    /// A holder ends and gives its slot back.
    End(usize),
    /// A holder's chain is finished, and its worker dies before it gives the slot back.
    EndUnseen(usize),
    /// Time passes; who doesn't look loses its place.
    Pass(i64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..12_usize).prop_map(Event::Look),
        2 => (0..12_usize).prop_map(Event::End),
        1 => (0..12_usize).prop_map(Event::EndUnseen),
        1 => (1..20_i64).prop_map(Event::Pass),
    ]
}

fn kind() -> impl Strategy<Value = (Admission, u32)> {
    (prop_oneof![Just(Queue), Just(Queue), Just(Replace), Just(DropIfRunning)], 1..4_u32)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    New,
    Waits,
    Has,
    Over,
}

/// What is true, whatever the record says.
struct Model {
    kinds: Vec<(Admission, u32)>,
    lives: BTreeMap<u64, Life>,
    record: SlotRecord,
    time: i64,
}

impl Model {
    fn new(kinds: Vec<(Admission, u32)>) -> Self {
        let lives = (0..kinds.len() as u64).map(|seq| (seq, Life::New)).collect();
        Self { kinds, lives, record: SlotRecord::free("s"), time: 0 }
    }

    fn with(&self, life: Life) -> Vec<u64> {
        self.lives.iter().filter(|(_, is)| **is == life).map(|(seq, _)| *seq).collect()
    }

    fn limit(&self, seq: u64) -> usize {
        self.kinds[seq as usize].1 as usize
    }

    fn live_waiters(&self) -> Vec<SlotWaiter> {
        let live = |waiter: &&SlotWaiter| waiter.until > at(self.time);
        self.record.waiters.iter().filter(live).cloned().collect()
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Look(n) => self.look((n % self.kinds.len()) as u64),
            Event::End(n) | Event::EndUnseen(n) => {
                let has = self.with(Life::Has);
                let Some(seq) = has.get(n % has.len().max(1)).copied() else { return };
                self.lives.insert(seq, Life::Over);
                if matches!(event, Event::End(_)) {
                    self.record = release(&self.record, &id(seq)).expect("it has the slot");
                }
            }
            Event::Pass(seconds) => self.time += seconds,
        }
    }

    fn look(&mut self, seq: u64) {
        if self.lives[&seq] == Life::Over {
            return;
        }
        let (admission, limit) = self.kinds[seq as usize];
        let me = Candidate { until: at(self.time + 30), ..task(seq, admission, limit) };
        let over = |holder: &&SlotHolder| self.lives[&holder.queue_seq] == Life::Over;
        let gone: Vec<_> = self.record.holders.iter().filter(over).cloned().collect();
        let facts = Facts { gone: &gone, now: at(self.time) };
        let (had, before) = (self.lives[&seq] == Life::Has, self.with(Life::Has));
        let (life, record) = match admit(&self.record, &me, &facts) {
            Decision::Admitted(record) => {
                assert_eq!(
                    record.is_none(),
                    had,
                    "only who has the slot is admitted without a change"
                );
                if !had {
                    assert!(before.len() < self.limit(seq), "{before:?} and {seq} are too many");
                    self.nobody_was_overtaken_by(seq);
                }
                (Life::Has, record)
            }
            Decision::Busy(_) => {
                assert_eq!(admission, DropIfRunning);
                (Life::Over, None)
            }
            Decision::Superseded(by) => {
                assert_eq!(admission, Replace);
                let newer = (seq + 1..self.kinds.len() as u64).find(|seq| id(*seq) == by);
                assert!(newer.is_some_and(|newer| self.kinds[newer as usize].0 == Replace));
                (Life::Over, release(&self.record, &id(seq)))
            }
            Decision::Wait(record) => (Life::Waits, record),
            Decision::Replace { victims, record } => {
                assert!(!victims.is_empty());
                assert!(victims.iter().all(|v| before.iter().any(|b| id(*b) == *v && *b < seq)));
                (Life::Waits, record)
            }
            Decision::Full => panic!("a dozen tasks don't fill the line"),
        };
        self.lives.insert(seq, life);
        self.record = record.unwrap_or(self.record.clone());
        assert_eq!(self.record.waiters.iter().any(|w| w.queue_seq == seq), life == Life::Waits);
    }

    fn nobody_was_overtaken_by(&self, seq: u64) {
        // Each earlier one could have gone as well: counted with it, there is still room for this one.
        let live = self.live_waiters();
        let replaces = self.kinds[seq as usize].0 == Replace;
        let newest = live.iter().filter(|w| w.admission == Replace).map(|w| w.queue_seq).max();
        assert!(!replaces || newest.is_none_or(|newest| newest <= seq), "a newer one replaces");
        let earlier = |w: &&SlotWaiter| match (w.admission, self.kinds[seq as usize].0) {
            (Replace, _) => Some(w.queue_seq) == newest && w.queue_seq != seq && !replaces,
            (_, Replace) => false,
            (_, Queue) => w.queue_seq < seq,
            (_, DropIfRunning) => w.queue_seq != seq,
        };
        let before = live.iter().filter(earlier).count();
        assert!(self.with(Life::Has).len() + before < self.limit(seq), "{seq} overtook someone");
    }
}

proptest! {
    #[test]
    fn never_too_many_nobody_lost_nobody_overtaken(
        kinds in prop::collection::vec(kind(), 1..12),
        events in prop::collection::vec(event(), 0..80),
    ) {
        let mut model = Model::new(kinds);
        for event in events {
            model.apply(event);
            // Who has the slot by the chains is in the record, at each moment.
            for seq in model.with(Life::Has) {
                prop_assert!(holders(&model.record).contains(&seq));
            }
        }
        // Then everybody looks and ends in turn: all come to an end.
        for _ in 0..=2 * model.kinds.len() {
            for seq in 0..model.kinds.len() as u64 {
                model.look(seq);
            }
            model.apply(Event::End(0));
        }
        prop_assert!(model.lives.values().all(|life| *life == Life::Over), "{:?}", model.lives);
        let left = model.record.waiters;
        prop_assert!(left.is_empty(), "{left:?}");
    }
}
