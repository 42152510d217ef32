//! Tables and properties of what follows an attempt.

use proptest::prelude::*;

use super::*;

const JITTERS: [Jitter; 4] = [Jitter::None, Jitter::Full, Jitter::Equal, Jitter::Decorrelated];

fn policy(restart: Restart, jitter: Jitter) -> RetryPolicy {
    RetryPolicy {
        restart,
        max_retries: 2,
        delays: Delays {
            jitter,
            first: Duration::from_millis(1_000),
            max: Duration::from_millis(5_000),
            factor: 2.0,
        },
        no_retry_exit_codes: vec![2],
    }
}

fn next(restart: Restart, end: AttemptEnd, failures: u32) -> Next {
    let history = History { failures, worker_losses: 1, last_delay: None };
    after_attempt(&policy(restart, Jitter::None), MAX_LOSSES, end, history, 0.5)
}

const MAX_LOSSES: u32 = 3;

const ALWAYS: Restart = Restart::Always { interval_ms: Some(7) };

#[test]
fn what_follows_an_attempt_is_a_table() {
    use AttemptEnd::{Broken, Canceled, ExitCode, SetupFailed, Signal, Succeeded, Timeout};
    use Restart::{Never, OnFailure};
    for (restart, end, phase) in [
        (Never, Succeeded, Phase::Succeeded),
        (Never, ExitCode(1), Phase::Failed),
        (Never, Signal, Phase::Failed),
        (Never, Timeout, Phase::Timeout),
        (Never, SetupFailed, Phase::Failed),
        (Never, Broken, Phase::Failed),
        (Never, Canceled, Phase::Canceled),
        (OnFailure, Succeeded, Phase::Succeeded),
        (OnFailure, ExitCode(2), Phase::Failed),
        (OnFailure, SetupFailed, Phase::Failed),
        (OnFailure, Canceled, Phase::Canceled),
        (ALWAYS, ExitCode(2), Phase::Failed),
        (ALWAYS, SetupFailed, Phase::Failed),
        (ALWAYS, Canceled, Phase::Canceled),
    ] {
        assert_eq!(next(restart, end, 0), Next::Finish(phase), "{restart:?} {end:?}");
    }
    for restart in [OnFailure, ALWAYS] {
        for end in [ExitCode(1), Signal, Timeout, Broken] {
            let retry = |delay, failures| retry(delay, failures, 1);
            assert_eq!(next(restart, end, 0), retry(1_000, 1), "{restart:?} {end:?}");
            assert_eq!(next(restart, end, 1), retry(2_000, 2), "{restart:?} {end:?}");
            assert_eq!(
                next(restart, end, 2),
                Next::Finish(Phase::Exhausted),
                "{restart:?} {end:?}"
            );
        }
    }
}

fn retry(delay: u64, failures: u32, worker_losses: u32) -> Next {
    Next::Retry { delay: Duration::from_millis(delay), failures, worker_losses }
}

#[test]
fn a_task_that_could_not_be_started_gets_other_workers_but_not_for_ever_and_has_not_failed() {
    for restart in [Restart::Never, Restart::OnFailure, ALWAYS] {
        let policy = policy(restart, Jitter::None);
        let after = |worker_losses| {
            let history = History { failures: 2, worker_losses, last_delay: None };
            after_attempt(&policy, MAX_LOSSES, AttemptEnd::SetupFailedForNow, history, 0.5)
        };
        assert_eq!(after(0), retry(1_000, 2, 1), "{restart:?}");
        assert_eq!(after(2), retry(4_000, 2, 3), "{restart:?}");
        assert_eq!(after(3), Next::Finish(Phase::Failed), "{restart:?}");
        assert_eq!(after(u32::MAX), Next::Finish(Phase::Failed), "{restart:?}");
    }
}

#[test]
fn after_a_success_always_waits_its_interval_and_forgives_failures() {
    assert_eq!(next(ALWAYS, AttemptEnd::Succeeded, 2), retry(7, 0, 1));
    let at_once = Restart::Always { interval_ms: None };
    assert_eq!(next(at_once, AttemptEnd::Succeeded, 0), retry(0, 0, 1));
}

#[test]
fn a_delay_lies_between_its_bounds() {
    for (jitter, failures, low, high) in [
        (Jitter::None, 1, 1_000, 1_000),
        (Jitter::None, 3, 4_000, 4_000),
        (Jitter::None, 4, 5_000, 5_000),
        (Jitter::Full, 3, 0, 4_000),
        (Jitter::Equal, 3, 2_000, 4_000),
        (Jitter::Decorrelated, 1, 1_000, 3_000),
        (Jitter::Decorrelated, 2, 1_000, 3_000),
        (Jitter::Decorrelated, 3, 1_000, 5_000),
    ] {
        let delays = policy(Restart::OnFailure, jitter).delays;
        let millis = |random| delays.after(failures, None, random).as_millis();
        assert_eq!((millis(0.0), millis(1.0)), (low, high), "{jitter:?} {failures}");
    }
}

#[test]
fn decorrelated_grows_from_the_last_delay() {
    let delays = policy(Restart::OnFailure, Jitter::Decorrelated).delays;
    let last = Some(Duration::from_millis(1_500));
    assert_eq!(delays.after(2, last, 1.0), Duration::from_millis(4_500));
}

fn any_delays() -> impl Strategy<Value = Delays> {
    let jitter = prop::sample::select(JITTERS.to_vec());
    (jitter, 1..=u64::MAX, any::<u64>(), 1.0..1e300_f64).prop_map(
        |(jitter, first, more, factor)| {
            let (first, more) = (millis(first), Duration::from_millis(more));
            Delays { jitter, first, max: millis(u64::MAX).min(first.saturating_add(more)), factor }
        },
    )
}

proptest! {
    #[test]
    fn no_delay_is_longer_than_the_longest(
        delays in any_delays(),
        failures: u32,
        last in prop::option::of(any::<u64>().prop_map(millis)),
        random in 0.0..1.0_f64,
    ) {
        let delay = delays.after(failures, last, random);
        prop_assert!(delay <= delays.max, "{:?}", delay);
        if delays.jitter == Jitter::Decorrelated {
            prop_assert!(delay >= delays.first, "{:?}", delay);
        }
    }

    #[test]
    fn a_task_that_always_fails_is_started_as_often_as_its_retries_allow(max_retries in 0..50_u32) {
        let policy = RetryPolicy { max_retries, ..policy(Restart::OnFailure, Jitter::Full) };
        let (mut history, mut attempts) = (History::default(), 1);
        while let Next::Retry { failures, delay, worker_losses } =
            after_attempt(&policy, MAX_LOSSES, AttemptEnd::Signal, history, 0.3)
        {
            history = History { failures, worker_losses, last_delay: Some(delay) };
            attempts += 1;
        }
        prop_assert_eq!(attempts, max_retries + 1);
    }
}
