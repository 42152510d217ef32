//! Tasks that are fetched before there is room for them, so that no place is empty while a pull is on its way.
//!
//! * Only while tasks are short: the last runs here took less than [`SHORT`] on average. A pull costs a
//!   longer one nothing that anybody would notice.
//! * At most as many as can run, or [`LEAST`] if they are very short, each for at most [`PATIENCE`]: then it
//!   is handed back, for any worker at once, and nothing is fetched ahead until runs have been short again.
//! * It isn't taken, so a cancel or another worker may come first. But its spec is read, and its run planned:
//!   where a place is free again, nobody waits for that.
//! * Asked for in halves of that: one pull brings several.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::lease::{BootInstant, Lease};
use super::prepare::Prepared;
use crate::nats::{Delivery, Hold as _};

/// A shorter run gains by being fetched ahead: some ten times what a pull takes.
const SHORT: Duration = Duration::from_millis(20);
/// What a longer run counts as. The average starts there: some fifteen short runs say that tasks are short.
const LONG: Duration = Duration::from_millis(80);
/// How much of the average each run replaces.
const WEIGHT: u32 = 8;
/// How long a task may wait here for a place while another worker might have one.
const PATIENCE: Duration = Duration::from_millis(50);

/// How many wait at a worker with few places, if half the patience is enough for them: a pull for each
/// would be a message for each.
const LEAST: usize = 4;

/// A delivery, and when it came.
pub(super) struct Fetched {
    pub(super) delivery: Delivery,
    /// What is to be done with it, once that is known.
    pub(super) prepared: Option<Box<Prepared>>,
    pub(super) at: BootInstant,
    since: Instant,
}

impl Fetched {
    /// One that comes now.
    pub(super) fn now(delivery: Delivery) -> Self {
        Self { delivery, prepared: None, at: BootInstant::now(), since: Instant::now() }
    }

    /// Whether it may still be answered. After its lease, as when this process was frozen, it may be
    /// another worker's, and a nak would have it delivered once more.
    pub(super) fn is_ours(&self, lease: Duration) -> bool {
        Lease::start(lease, self.at).is_held()
    }
}

/// What waits for a place, oldest first.
pub(super) struct Ahead {
    capacity: usize,
    waiting: VecDeque<Fetched>,
    average: Duration,
}

impl Ahead {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, waiting: VecDeque::new(), average: LONG }
    }

    /// Says how long a run took its place.
    pub(super) fn ran(&mut self, time: Duration) {
        self.average = (self.average * (WEIGHT - 1) + time.min(LONG)) / WEIGHT;
    }

    /// Whether runs are short at present.
    pub(super) fn are_short(&self) -> bool {
        self.average < SHORT
    }

    /// How many tasks to ask for when `free` can run at once.
    pub(super) fn room(&self, free: usize) -> usize {
        // Where nothing runs, there is no place that a pull could come too late for.
        if !self.are_short() || free >= self.capacity {
            return free;
        }
        let most = self.most();
        let missing = free + most.saturating_sub(self.waiting.len());
        if missing < most.div_ceil(2) { 0 } else { missing }
    }

    /// How many may wait.
    fn most(&self) -> usize {
        let average = self.average.as_micros().max(1);
        let soon = (PATIENCE / 2).as_micros() * self.capacity as u128 / average;
        if soon >= LEAST as u128 { self.capacity.max(LEAST) } else { self.capacity }
    }

    /// Whether one more may wait.
    pub(super) fn has_room(&self) -> bool {
        self.are_short() && self.waiting.len() < self.most()
    }

    /// Takes a delivery for which there is no place.
    pub(super) fn push(&mut self, fetched: Fetched) {
        self.waiting.push_back(fetched);
    }

    /// Takes the next one for a place that is free.
    pub(super) fn pop(&mut self) -> Option<Fetched> {
        self.waiting.pop_front()
    }

    /// Takes one out by its message, which was delivered again.
    pub(super) fn remove(&mut self, delivery: &Delivery) -> Option<Fetched> {
        let same = |one: &Fetched| one.delivery.queue_seq == delivery.queue_seq;
        let index = self.waiting.iter().position(same)?;
        self.waiting.remove(index)
    }

    /// When [`Self::give_up`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.front().map(|oldest| oldest.since + PATIENCE)
    }

    /// Returns all that wait, and fetches no more until runs have been short again.
    pub(super) fn give_up(&mut self) -> Vec<Fetched> {
        self.average = LONG;
        self.waiting.drain(..).collect()
    }
}

#[cfg(test)]
mod tests;
