//! What becomes of a launch when a stop comes.

use std::future::pending;

use tokio::time::Instant;

use super::*;
use crate::exec::set_stop;

type Launch = Result<Result<&'static str, &'static str>, StopReason>;

/// A launch that gives the word (after `word_after`), and takes until `done_after`; a stop comes after 10 ms.
/// Returns how it went, and after which time.
async fn stopped_at_10_ms(
    reason: StopReason,
    word_after: Option<u64>,
    done_after: Option<u64>,
    result: Result<&'static str, &'static str>,
) -> (Launch, Duration) {
    let begun = Instant::now();
    let at = |after: u64| tokio::time::sleep_until(begun + Duration::from_millis(after));
    let word = Word::default();
    let launch = async {
        match word_after {
            Some(after) => at(after).await,
            None => pending().await,
        }
        word.give();
        match done_after {
            Some(after) => at(after).await,
            None => pending().await,
        }
        result
    };
    let (sender, stop) = watch::channel(None);
    let asked = async {
        at(10).await;
        set_stop(&sender, Stop::because(reason));
        at(500).await;
        set_stop(&sender, Stop::because(StopReason::LeaseLost));
    };
    let launched = while_it_runs(unless_stopped(launch, &word, None, stop), asked).await;
    (launched.map_err(|stop| stop.reason), begun.elapsed())
}

const MS: fn(u64) -> Duration = Duration::from_millis;

#[tokio::test(start_paused = true)]
async fn a_stop_before_the_word_ends_the_launch_at_once() {
    let (launched, after) = stopped_at_10_ms(StopReason::Canceled, None, None, Ok("started")).await;
    assert_eq!((launched, after), (Err(StopReason::Canceled), MS(10)));
}

#[tokio::test(start_paused = true)]
async fn a_stop_after_the_word_waits_for_the_start() {
    for reason in [StopReason::Canceled, StopReason::Draining] {
        let (launched, after) = stopped_at_10_ms(reason, Some(9), Some(30), Ok("started")).await;
        assert_eq!((launched, after), (Ok(Ok("started")), MS(30)), "{reason:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_launch_that_fails_after_a_stop_is_a_stopped_one() {
    let (launched, after) =
        stopped_at_10_ms(StopReason::Canceled, Some(9), Some(30), Err("no such file")).await;
    assert_eq!((launched, after), (Err(StopReason::Canceled), MS(30)));
    // One that failed before has failed.
    let (launched, _) =
        stopped_at_10_ms(StopReason::Canceled, Some(5), Some(9), Err("no such file")).await;
    assert_eq!(launched, Ok(Err("no such file")));
}

#[tokio::test(start_paused = true)]
async fn a_start_is_not_waited_for_without_end_and_not_without_a_lease() {
    let (launched, after) =
        stopped_at_10_ms(StopReason::Canceled, Some(9), None, Ok("started")).await;
    assert_eq!((launched, after), (Err(StopReason::Canceled), MS(500)), "the lease is lost then");
    let (launched, after) =
        stopped_at_10_ms(StopReason::LeaseLost, Some(9), None, Ok("started")).await;
    assert_eq!((launched, after), (Err(StopReason::LeaseLost), MS(10)));
}

#[tokio::test(start_paused = true)]
async fn a_program_whose_file_never_comes_is_given_up_after_a_second() {
    let (begun, word) = (Instant::now(), Word::default());
    word.give();
    let (_sender, stop) = watch::channel(Some(Stop::because(StopReason::Canceled)));
    let launched = unless_stopped(pending::<Result<(), ()>>(), &word, None, stop).await;
    assert_eq!(launched.map_err(|stop| stop.reason), Err(StopReason::Canceled));
    assert_eq!(begun.elapsed(), START_TIME);
}

#[tokio::test(start_paused = true)]
async fn a_program_that_does_not_start_within_its_time_has_timed_out() {
    let (_sender, stop) = watch::channel(None);
    let limit = Some(Duration::from_secs(60));
    for (is_given, limit_and) in [(false, Duration::ZERO), (true, START_TIME)] {
        let (begun, word) = (Instant::now(), Word::default());
        if is_given {
            word.give();
        }
        let launch = pending::<Result<(), ()>>();
        let launched = unless_stopped(launch, &word, limit, stop.clone()).await;
        assert_eq!(launched.map_err(|stop| stop.reason), Err(StopReason::Timeout));
        assert_eq!(begun.elapsed(), Duration::from_secs(60) + limit_and);
    }
}
