//! What a worker may do with a delivery, given the last record of the task's chain.
//!
//! ```text
//! last record                       the delivery's message   →
//! none                              any                        start attempt 1
//! finished                          any                        already finished
//! started, retrying, requeued       another one                duplicate: drop it
//! retrying, requeued                the same                   start the next attempt
//! started, that run lives here      the same                   adopt
//! started, no such run here         the same                   its worker is lost: start, or end as lost
//! ```
//!
//! The last line: a message is delivered again only when the hold on it was over, whoever had it,
//! even this very worker before it was restarted.

use super::validate::LossPolicy;
use crate::wire::{Attempt, OnWorkerLost, Outcome, StatusEvent};

/// What a worker knows when a delivery arrives.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    /// The last record of the chain with its sequence in the stream, as the leader has it.
    pub last: Option<(u64, &'a StatusEvent)>,
    /// The delivered message's sequence in the queue stream.
    pub queue_seq: u64,
    /// The token of the task's run in this worker, if there is one.
    pub running: Option<&'a str>,
    /// What the task says about lost workers.
    pub policy: LossPolicy,
}

/// What the worker may do.
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use]
pub enum Claim<'a> {
    /// Append a `started` record, and start if it was accepted. A run of the task that is still in
    /// this worker has lost its hold and has to be gone before.
    Start {
        /// Which start it is.
        attempt: Attempt,
        /// Sequence that the record must be expected after; 0: none.
        expected_seq: u64,
        /// Failures before it.
        failures: u32,
        /// Workers lost before it.
        worker_losses: u32,
    },
    /// The task has ended: see that the outcome is published, then ack.
    AlreadyFinished(&'a Outcome),
    /// The run in this worker goes on with the new delivery.
    Adopt,
    /// Another message of the same task is responsible for it: ack this one and forget it.
    Duplicate,
    /// Append `finished` with the phase `lost`.
    EndAsLost {
        /// Sequence that the record must be expected after.
        expected_seq: u64,
        /// The attempt that was lost.
        attempt: Attempt,
        /// Workers lost, with this one.
        worker_losses: u32,
    },
}

/// Decides what a worker may do with a delivery.
pub fn claim<'a>(situation: &Situation<'a>) -> Claim<'a> {
    let Some((seq, last)) = situation.last else {
        return start(0, Attempt::FIRST, 0, 0);
    };
    let mine = |queue_seq: u64| queue_seq == situation.queue_seq;
    match last {
        StatusEvent::Finished(finished) => Claim::AlreadyFinished(&finished.outcome),
        StatusEvent::Started(started) if !mine(started.queue_seq) => Claim::Duplicate,
        StatusEvent::Retrying(retrying) if !mine(retrying.queue_seq) => Claim::Duplicate,
        StatusEvent::Requeued(requeued) if !mine(requeued.queue_seq) => Claim::Duplicate,
        StatusEvent::Started(started) if situation.running == Some(started.token.as_str()) => {
            Claim::Adopt
        }
        StatusEvent::Started(started) => {
            let losses = started.worker_losses.saturating_add(1);
            lost(situation.policy, seq, started.attempt, started.failures, losses)
        }
        StatusEvent::Retrying(retrying) => {
            // Only a run ends in `retrying`, so it has an attempt; without one it counts as none.
            let attempt = retrying.ended.attempt.map_or(Attempt::FIRST, Attempt::next);
            start(seq, attempt, retrying.failures, retrying.worker_losses)
        }
        StatusEvent::Requeued(requeued) => {
            start(seq, requeued.attempt.next(), requeued.failures, requeued.worker_losses)
        }
    }
}

fn start<'a>(expected_seq: u64, attempt: Attempt, failures: u32, worker_losses: u32) -> Claim<'a> {
    Claim::Start { attempt, expected_seq, failures, worker_losses }
}

fn lost<'a>(
    policy: LossPolicy,
    expected_seq: u64,
    attempt: Attempt,
    failures: u32,
    worker_losses: u32,
) -> Claim<'a> {
    let again = match policy.on_worker_lost {
        OnWorkerLost::Rerun => worker_losses <= policy.max_worker_losses,
        OnWorkerLost::Fail => false,
    };
    if again {
        start(expected_seq, attempt.next(), failures, worker_losses)
    } else {
        Claim::EndAsLost { expected_seq, attempt, worker_losses }
    }
}

#[cfg(test)]
#[path = "claim_tests.rs"]
mod tests;
