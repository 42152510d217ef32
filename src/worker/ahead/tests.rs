use bytes::Bytes;
use jiff::Timestamp;

use super::*;
use crate::nats::AckHandle;

fn fetched(seq: u64) -> Fetched {
    Fetched::now(Delivery {
        id: format!("t{seq}").parse().expect("a valid id"),
        lane: "default".parse().expect("a valid lane"),
        payload: Bytes::new(),
        queue_seq: seq,
        delivered: 1,
        pending: 0,
        published: Timestamp::UNIX_EPOCH,
        received: Timestamp::UNIX_EPOCH,
        handle: AckHandle::new(format!("reply.{seq}")),
    })
}

fn after_short_runs(capacity: usize) -> Ahead {
    let mut ahead = Ahead::new(capacity);
    for _ in 0..50 {
        ahead.ran(SHORT / 4);
    }
    ahead
}

#[test]
fn nothing_is_fetched_ahead_before_runs_were_short() {
    let mut ahead = Ahead::new(4);
    let mut runs = 0;
    while ahead.room(0) == 0 {
        assert_eq!(ahead.room(3), 3);
        assert!(!ahead.has_room());
        ahead.ran(SHORT / 4);
        runs += 1;
    }
    assert!((10..20).contains(&runs), "{runs}");
    assert_eq!((ahead.room(0), ahead.room(3)), (4, 7));
    assert!(ahead.has_room());
}

#[test]
fn one_long_run_among_many_is_passed_over_but_not_several() {
    let mut ahead = after_short_runs(4);
    ahead.ran(Duration::from_secs(3600));
    assert_eq!(ahead.room(0), 4);
    ahead.ran(SHORT);
    ahead.ran(Duration::from_secs(3600));
    assert_eq!(ahead.room(0), 0);
}

#[test]
fn at_most_as_many_wait_as_can_run_and_they_are_asked_for_in_halves() {
    let mut ahead = after_short_runs(4);
    for seq in 1..=4 {
        assert!(ahead.has_room(), "{seq}");
        ahead.push(fetched(seq));
    }
    assert!(!ahead.has_room());
    assert_eq!(ahead.room(0), 0);
    assert_eq!(ahead.pop().map(|one| one.delivery.queue_seq), Some(1));
    assert_eq!(ahead.room(0), 0, "one is missing, of four");
    assert_eq!(ahead.pop().map(|one| one.delivery.queue_seq), Some(2));
    assert_eq!(ahead.room(0), 2);
}

#[test]
fn a_worker_with_one_place_fetches_several_if_half_the_patience_is_enough_for_them() {
    let mut ahead = after_short_runs(1);
    assert_eq!((ahead.room(0), ahead.room(1)), (LEAST, 1));
    for seq in 1..=4 {
        assert!(ahead.has_room(), "{seq}");
        ahead.push(fetched(seq));
    }
    assert!(!ahead.has_room());
    ahead.pop();
    assert_eq!(ahead.room(0), 0, "one is missing, of four");
    ahead.pop();
    assert_eq!(ahead.room(0), 2);
    let mut ahead = Ahead::new(1);
    for _ in 0..50 {
        ahead.ran(SHORT * 3 / 4);
    }
    assert_eq!(ahead.room(0), 1);
}

#[test]
fn an_idle_worker_asks_for_what_it_can_run() {
    assert_eq!(after_short_runs(4).room(4), 4);
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_is_given_up_and_no_more_is_fetched() {
    let mut ahead = after_short_runs(4);
    assert_eq!(ahead.deadline(), None);
    ahead.push(fetched(1));
    tokio::time::advance(PATIENCE / 2).await;
    ahead.push(fetched(2));
    assert_eq!(ahead.deadline(), Some(Instant::now() + PATIENCE / 2), "the oldest counts");
    let given_up: Vec<_> = ahead.give_up().into_iter().map(|one| one.delivery.queue_seq).collect();
    assert_eq!((given_up, ahead.deadline(), ahead.room(0)), (vec![1, 2], None, 0));
}

#[test]
fn a_redelivery_replaces_what_waits() {
    let mut ahead = after_short_runs(4);
    ahead.push(fetched(1));
    assert!(ahead.remove(&fetched(2).delivery).is_none());
    assert!(ahead.remove(&fetched(1).delivery).is_some());
    assert!(ahead.pop().is_none());
}

#[test]
fn what_waited_longer_than_its_lease_is_not_answered() {
    let waited = fetched(1);
    assert!(waited.is_ours(Duration::from_secs(30)));
    assert!(!waited.is_ours(Duration::ZERO));
}
