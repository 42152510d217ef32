//! The ladder's timing with paused time and a scripted process, and its machine against a model.

use std::future::pending;
use std::io;

use proptest::prelude::*;

use super::super::stop::set_stop;
use super::*;

const TERM: i32 = 15;
const GRACE: Duration = Duration::from_secs(5);

/// A process that ends by itself, or some time after a signal.
#[derive(Default)]
struct Scripted {
    ends_at: Option<Instant>,
    ends_after_term: Option<Duration>,
    ends_after_kill: Option<Duration>,
    unreachable: bool,
    signals: Vec<(Signal, Instant)>,
    status: Option<ExitStatus>,
}

impl Process for Scripted {
    async fn wait(&mut self) -> Result<Exit, ProcessError> {
        match self.ends_at {
            Some(at) => sleep_until(at).await,
            None => pending().await,
        }
        let status = self.status.unwrap_or(ExitStatus::Exited(0));
        Ok(Exit { status, usage: Usage::default(), leftovers_killed: 0, cgroup: None })
    }

    fn signal(&mut self, signal: Signal) -> io::Result<()> {
        if self.unreachable {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.signals.push((signal, Instant::now()));
        let (delay, number) = match signal {
            Signal::Polite(number) => (self.ends_after_term, number),
            Signal::Kill => (self.ends_after_kill, 9),
        };
        if let Some(delay) = delay {
            self.ends_at = Some(Instant::now() + delay);
            self.status = Some(ExitStatus::Signaled(number));
        }
        Ok(())
    }
}

/// Ignores the polite signal and dies of SIGKILL at once.
fn stubborn() -> Scripted {
    Scripted { ends_after_kill: Some(Duration::ZERO), ..Scripted::default() }
}

fn channel() -> (watch::Sender<Option<Stop>>, watch::Receiver<Option<Stop>>) {
    watch::channel(None)
}

fn canceled() -> Stop {
    Stop::because(StopReason::Canceled)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The signals with their times since `start`, in seconds.
fn ladder(process: &Scripted, start: Instant) -> Vec<(Signal, u64)> {
    process.signals.iter().map(|(signal, at)| (*signal, (*at - start).as_secs())).collect()
}

async fn run(
    process: &mut Scripted,
    timeout: Option<Duration>,
    stop: watch::Receiver<Option<Stop>>,
) -> Result<Ended, SuperviseError> {
    supervise(process, timeout, GRACE, TERM, stop).await
}

#[tokio::test(start_paused = true)]
async fn a_process_that_ignores_the_polite_signal_is_killed_when_its_grace_has_passed() {
    let start = Instant::now();
    let mut process = stubborn();
    let (_sender, stop) = channel();
    let ended = run(&mut process, Some(secs(60)), stop).await.unwrap();
    assert_eq!(ladder(&process, start), [(Signal::Polite(TERM), 60), (Signal::Kill, 65)]);
    assert_eq!(ended.stopped.unwrap().reason, StopReason::Timeout);
    assert_eq!(ended.exit, ExitStatus::Signaled(9));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_obeys_is_not_killed() {
    let start = Instant::now();
    let mut process = Scripted { ends_after_term: Some(secs(2)), ..stubborn() };
    let (sender, stop) = channel();
    set_stop(&sender, canceled());
    let ended = run(&mut process, None, stop).await.unwrap();
    assert_eq!(ladder(&process, start), [(Signal::Polite(TERM), 0)]);
    assert_eq!(ended.stopped.unwrap().reason, StopReason::Canceled);
    assert_eq!(ended.exit, ExitStatus::Signaled(TERM));
}

#[tokio::test(start_paused = true)]
async fn without_grace_and_after_a_lost_lease_sigkill_is_the_first_signal() {
    for stop in
        [Stop { grace: Some(Duration::ZERO), ..canceled() }, Stop::because(StopReason::LeaseLost)]
    {
        let start = Instant::now();
        let mut process = stubborn();
        let (sender, receiver) = channel();
        set_stop(&sender, stop.clone());
        let ended = run(&mut process, None, receiver).await.unwrap();
        assert_eq!(ladder(&process, start), [(Signal::Kill, 0)]);
        assert_eq!(ended.stopped, Some(stop));
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_stop_shortens_the_grace_and_a_longer_one_does_not_lengthen_it() {
    for (second, killed_at) in [(secs(0), 1), (secs(1), 2), (secs(99), 5)] {
        let start = Instant::now();
        let mut process = stubborn();
        let (sender, stop) = channel();
        set_stop(&sender, Stop { by: Some("first".to_owned()), ..canceled() });
        let again = async {
            sleep_until(start + secs(1)).await;
            set_stop(
                &sender,
                Stop { grace: Some(second), by: Some("second".to_owned()), ..canceled() },
            );
            pending::<()>().await;
        };
        let ended = tokio::select! {
            ended = run(&mut process, None, stop) => ended.unwrap(),
            () = again => unreachable!("it waits for ever"),
        };
        assert_eq!(ladder(&process, start), [(Signal::Polite(TERM), 0), (Signal::Kill, killed_at)]);
        assert_eq!(ended.stopped.unwrap().by.as_deref(), Some("first"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_time_limit_acted_on_before_the_exit_was_seen_decides() {
    let start = Instant::now();
    let mut process = Scripted { ends_at: Some(start + secs(11)), ..Scripted::default() };
    let (_sender, stop) = channel();
    let ended = run(&mut process, Some(secs(10)), stop).await.unwrap();
    assert_eq!(ended.stopped.unwrap().reason, StopReason::Timeout);
    assert_eq!(ended.exit, ExitStatus::Exited(0));
}

#[tokio::test(start_paused = true)]
async fn an_exit_seen_in_the_moment_of_the_time_limit_or_of_a_stop_decides() {
    let start = Instant::now();
    let mut process = Scripted { ends_at: Some(start + secs(10)), ..Scripted::default() };
    let (_sender, stop) = channel();
    let ended = run(&mut process, Some(secs(10)), stop).await.unwrap();
    assert_eq!((ended.stopped, ended.exit), (None, ExitStatus::Exited(0)));
    assert!(process.signals.is_empty());

    let mut process = Scripted { ends_at: Some(Instant::now()), ..Scripted::default() };
    let (sender, stop) = channel();
    set_stop(&sender, canceled());
    let ended = run(&mut process, None, stop).await.unwrap();
    assert_eq!((ended.stopped, ended.exit), (None, ExitStatus::Exited(0)));
}

#[tokio::test(start_paused = true)]
async fn a_signal_that_reaches_nobody_leaves_the_decision_to_the_exit() {
    let ends_at = Some(Instant::now() + secs(3));
    let mut process = Scripted { ends_at, unreachable: true, ..Scripted::default() };
    let (sender, stop) = channel();
    set_stop(&sender, canceled());
    let ended = run(&mut process, None, stop).await.unwrap();
    assert_eq!((ended.stopped, ended.exit), (None, ExitStatus::Exited(0)));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_survives_sigkill_is_an_error_and_not_an_end() {
    let (sender, stop) = channel();
    set_stop(&sender, canceled());
    let error = run(&mut Scripted::default(), None, stop).await.unwrap_err();
    assert!(error.may_be_alive(), "nobody may run it again");
    assert!(matches!(error, SuperviseError::Unkillable { stopped } if stopped == canceled()));
}

#[tokio::test(start_paused = true)]
async fn the_time_limit_holds_when_nobody_can_stop_the_process_any_more() {
    let start = Instant::now();
    let mut process = stubborn();
    let (sender, stop) = channel();
    drop(sender);
    let ended = run(&mut process, Some(secs(60)), stop).await.unwrap();
    assert_eq!(ladder(&process, start), [(Signal::Polite(TERM), 60), (Signal::Kill, 65)]);
    assert_eq!(ended.stopped.unwrap().reason, StopReason::Timeout);
}

#[tokio::test(start_paused = true)]
async fn durations_that_no_clock_can_hold_mean_never() {
    let ends_at = Some(Instant::now() + secs(3600));
    let mut process = Scripted { ends_at, ..Scripted::default() };
    let (sender, stop) = channel();
    set_stop(&sender, Stop { grace: Some(Duration::MAX), ..canceled() });
    let ended =
        supervise(&mut process, Some(Duration::MAX), Duration::MAX, TERM, stop).await.unwrap();
    assert_eq!(ended.exit, ExitStatus::Exited(0));
}

fn any_reason() -> impl Strategy<Value = StopReason> {
    use StopReason::{Canceled, Draining, LeaseLost, Replaced};
    prop_oneof![Just(Draining), Just(Canceled), Just(Replaced), Just(LeaseLost)]
}

/// A stop with its grace in seconds, or none: the deadline passes.
fn any_event() -> impl Strategy<Value = Option<(StopReason, Option<u64>)>> {
    prop::option::weighted(0.7, (any_reason(), prop::option::of(0_u64..10)))
}

proptest! {
    #[test]
    fn the_ladder_is_climbed_once_and_only_upwards(events in prop::collection::vec((any_event(), 0_u64..4), 1..20)) {
        let rules = Rules { grace: GRACE, stop_signal: TERM };
        let mut now = Instant::now();
        let mut phase = Phase::Running { deadline: None };
        let mut sent = Vec::new();
        let mut strongest = None;
        for (event, wait) in events {
            let event = match (event, phase.deadline()) {
                // As the loop does: nothing is late, and a deadline passes only where there is one.
                (_, Some(deadline)) if deadline <= now + secs(wait) => {
                    now = now.max(deadline);
                    Event::DeadlinePassed
                }
                (Some((reason, grace)), _) => {
                    now += secs(wait);
                    strongest = strongest.max(Some(reason));
                    Event::StopRequested(Stop { grace: grace.map(secs), ..Stop::because(reason) })
                }
                (None, _) => { now += secs(wait); continue }
            };
            let before = phase.clone();
            let (next, signal) = phase.step(event, now, rules);
            sent.extend(signal);
            if let (Phase::Stopping { kill_at: earlier, .. }, Phase::Stopping { kill_at: later, .. }) = (&before, &next) {
                prop_assert!(later <= earlier, "the grace grew");
            }
            let killed = matches!(next, Phase::Killing { .. } | Phase::GivenUp { .. });
            prop_assert_eq!(killed, sent.contains(&Signal::Kill));
            phase = next;
        }
        prop_assert!(matches!(sent[..], [] | [_] | [Signal::Polite(TERM), Signal::Kill]), "{sent:?}");
        if let Phase::Stopping { stop, .. } | Phase::Killing { stop, .. } = phase {
            prop_assert_eq!(Some(stop.reason), strongest);
        }
    }
}
