//! A table of situations, and a model of a task's whole life.

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::wire::{Finished, Outcome, Phase, Requeued, Retrying, Started, StopReason, TaskId};

const POLICY: LossPolicy = LossPolicy { max_worker_losses: 1, on_worker_lost: OnWorkerLost::Rerun };

fn outcome(attempt: u32) -> Outcome {
    let id: TaskId = "t".parse().expect("an id");
    let ended = Outcome::without_run(id, Phase::Failed, Timestamp::UNIX_EPOCH);
    Outcome { attempt: Some(Attempt(attempt)), ..ended }
}

fn started(attempt: u32, queue_seq: u64, failures: u32, worker_losses: u32) -> StatusEvent {
    StatusEvent::Started(Started {
        attempt: Attempt(attempt),
        worker: "w".parse().expect("an id"),
        runner: "r".to_owned(),
        lane: crate::wire::LaneId::default_lane(),
        run_id: "r-none-1".to_owned(),
        token: format!("token-{attempt}"),
        queue_seq,
        lease_ms: 30_000,
        failures,
        worker_losses,
        at: Timestamp::UNIX_EPOCH,
    })
}

fn retrying(attempt: u32, queue_seq: u64, failures: u32, worker_losses: u32) -> StatusEvent {
    StatusEvent::Retrying(Retrying {
        ended: outcome(attempt),
        delay_ms: 1,
        failures,
        worker_losses,
        queue_seq,
        at: Timestamp::UNIX_EPOCH,
    })
}

fn requeued(attempt: u32, queue_seq: u64, failures: u32, worker_losses: u32) -> StatusEvent {
    StatusEvent::Requeued(Requeued {
        attempt: Attempt(attempt),
        worker: "w".parse().expect("an id"),
        reason: StopReason::Draining,
        failures,
        worker_losses,
        queue_seq,
        at: Timestamp::UNIX_EPOCH,
    })
}

fn finished(attempt: u32) -> StatusEvent {
    StatusEvent::Finished(Finished { outcome: outcome(attempt), token: "x".to_owned() })
}

fn decide<'a>(last: &'a StatusEvent, running: Option<&'a str>, policy: LossPolicy) -> Claim<'a> {
    claim(&Situation { last: Some((9, last)), queue_seq: 5, running, policy })
}

#[test]
fn a_task_without_a_record_starts_its_first_attempt() {
    let situation = Situation { last: None, queue_seq: 5, running: None, policy: POLICY };
    assert_eq!(claim(&situation), start(0, Attempt(1), 0, 0));
}

#[test]
fn what_a_worker_may_do_is_a_table() {
    let mine = Some("token-2");
    for (last, running, wanted) in [
        (retrying(2, 5, 1, 1), None, start(9, Attempt(3), 1, 1)),
        (requeued(2, 5, 1, 1), None, start(9, Attempt(3), 1, 1)),
        (retrying(2, 6, 1, 1), None, Claim::Duplicate),
        (requeued(2, 6, 1, 1), None, Claim::Duplicate),
        (started(2, 6, 1, 0), None, Claim::Duplicate),
        (started(2, 6, 1, 0), mine, Claim::Duplicate),
        (started(2, 5, 1, 0), mine, Claim::Adopt),
        (started(2, 5, 1, 0), Some("token-1"), start(9, Attempt(3), 1, 1)),
        (started(2, 5, 1, 0), None, start(9, Attempt(3), 1, 1)),
        (
            started(2, 5, 1, 1),
            None,
            Claim::EndAsLost { expected_seq: 9, attempt: Attempt(2), worker_losses: 2 },
        ),
    ] {
        assert_eq!(decide(&last, running, POLICY), wanted, "{last:?} {running:?}");
    }
}

#[test]
fn a_task_that_must_not_run_twice_ends_with_its_worker() {
    let once = LossPolicy { max_worker_losses: 9, on_worker_lost: OnWorkerLost::Fail };
    let last = started(1, 5, 0, 0);
    let lost = Claim::EndAsLost { expected_seq: 9, attempt: Attempt(1), worker_losses: 1 };
    assert_eq!(decide(&last, None, once), lost);
    // It was given back properly, so it did not run to an unknown point: it may run.
    assert_eq!(decide(&requeued(1, 5, 0, 0), None, once), start(9, Attempt(2), 0, 0));
}

#[test]
fn a_finished_task_has_its_outcome_whoever_asks() {
    let last = finished(3);
    let wanted = outcome(3);
    assert_eq!(decide(&last, None, POLICY), Claim::AlreadyFinished(&wanted));
    assert_eq!(decide(&last, Some("token-3"), POLICY), Claim::AlreadyFinished(&wanted));
}

/// What happens to the task between two deliveries of its message.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Retried,
    GivenBack,
    WorkerLost,
    Ended,
}

fn any_fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        4 => Just(Fate::Retried),
        4 => Just(Fate::GivenBack),
        4 => Just(Fate::WorkerLost),
        1 => Just(Fate::Ended),
    ]
}

proptest! {
    #[test]
    fn attempts_rise_by_one_and_nothing_follows_the_end(
        fates in prop::collection::vec(any_fate(), 1..40),
        max_worker_losses in 0..6_u32,
    ) {
        let policy = LossPolicy { max_worker_losses, on_worker_lost: OnWorkerLost::Rerun };
        let mut chain: Vec<StatusEvent> = Vec::new();
        let (mut starts, mut failed, mut lost) = (0, 0, 0);
        for fate in fates {
            let seq = chain.len() as u64;
            let last = chain.last().map(|event| (seq, event));
            match claim(&Situation { last, queue_seq: 5, running: None, policy }) {
                Claim::Start { attempt, expected_seq, failures, worker_losses } => {
                    prop_assert_eq!((attempt.0, expected_seq), (starts + 1, seq));
                    prop_assert_eq!((failures, worker_losses), (failed, lost));
                    starts += 1;
                    chain.push(started(starts, 5, failed, lost));
                }
                Claim::EndAsLost { attempt, expected_seq, worker_losses } => {
                    prop_assert_eq!((attempt.0, expected_seq), (starts, seq));
                    prop_assert_eq!((worker_losses, lost), (max_worker_losses + 1, worker_losses));
                    chain.push(finished(starts));
                    continue;
                }
                Claim::AlreadyFinished(_) => {
                    prop_assert!(matches!(chain.last(), Some(StatusEvent::Finished(_))));
                    continue;
                }
                other => prop_assert!(false, "{:?}", other),
            }
            match fate {
                Fate::Retried => { failed += 1; chain.push(retrying(starts, 5, failed, lost)); }
                Fate::GivenBack => chain.push(requeued(starts, 5, failed, lost)),
                Fate::WorkerLost => lost += 1,
                Fate::Ended => chain.push(finished(starts)),
            }
        }
        prop_assert!(lost <= max_worker_losses + 1);
    }
}
