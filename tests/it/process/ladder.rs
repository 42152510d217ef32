//! Time limit, cancel and escalation against real processes.

use std::time::{Duration, Instant};

use runlane::exec::{ExitStatus, Launched, Stop, set_stop};
use runlane::wire::StopReason;
use tokio::sync::watch;

use super::{DEADLINE, KILL, Mark, TERM, line, sh, spawner, supervised, text};

/// Ignores the polite signal, as its child does.
const STUBBORN: &str = "trap '' TERM; echo ready; sleep 1000; sleep 1000";

async fn launch(mark: &Mark, script: &str) -> Launched {
    let mut launched = spawner().launch(&sh(mark, script)).await.expect("sh can be launched");
    assert_eq!(line(&mut launched.stdout).await, "ready");
    launched
}

fn canceled() -> Stop {
    Stop::because(StopReason::Canceled)
}

#[tokio::test]
async fn a_task_past_its_time_limit_is_asked_and_ends() {
    let mark = Mark::new();
    let mut launched = launch(&mark, "echo ready; sleep 1000; sleep 1000").await;
    let (_sender, stop) = watch::channel(None);
    let limit = Some(Duration::from_millis(50));
    let ended = supervised(&mark, &mut launched, limit, DEADLINE, stop).await;
    assert_eq!(ended.exit, ExitStatus::Signaled(TERM));
    assert_eq!(ended.stopped, Some(Stop::because(StopReason::Timeout)));
}

#[tokio::test]
async fn a_task_that_ignores_the_polite_signal_dies_when_its_grace_has_passed() {
    let mark = Mark::new();
    let mut launched = launch(&mark, STUBBORN).await;
    let (sender, stop) = watch::channel(None);
    set_stop(&sender, canceled());
    let start = Instant::now();
    let grace = Duration::from_millis(200);
    let ended = supervised(&mark, &mut launched, None, grace, stop).await;
    assert!(start.elapsed() >= grace);
    assert_eq!(ended.exit, ExitStatus::Signaled(KILL));
    assert_eq!(ended.stopped, Some(canceled()));
    // The sleep died with its leader; it was no leftover.
    assert_eq!(ended.leftovers_killed, 0);
}

#[tokio::test]
async fn a_child_that_ignores_the_polite_signal_dies_when_its_leader_has_obeyed() {
    let mark = Mark::new();
    let mut launched =
        launch(&mark, "(trap '' TERM; echo ready; sleep 1000; sleep 1000) & wait").await;
    let (sender, stop) = watch::channel(None);
    set_stop(&sender, canceled());
    let ended = supervised(&mark, &mut launched, None, DEADLINE, stop).await;
    assert_eq!(ended.exit, ExitStatus::Signaled(TERM));
    // The shell, and its sleep if that was started by then.
    assert!((1..=2).contains(&ended.leftovers_killed), "{}", ended.leftovers_killed);
}

#[tokio::test]
async fn a_leader_that_cleans_up_on_the_polite_signal_has_the_time_to() {
    let mark = Mark::new();
    let mut launched =
        launch(&mark, "trap 'sleep 0.1; echo clean; exit 5' TERM; echo ready; sleep 1000 & wait")
            .await;
    let (sender, stop) = watch::channel(None);
    set_stop(&sender, canceled());
    let ended = supervised(&mark, &mut launched, None, DEADLINE, stop).await;
    assert_eq!(ended.exit, ExitStatus::Exited(5));
    assert_eq!(ended.stopped, Some(canceled()));
    assert_eq!(text(&mut launched.stdout).await, "clean\n");
}

#[tokio::test]
async fn a_second_stop_without_grace_kills_at_once() {
    let mark = Mark::new();
    // It says when it was asked, and goes on.
    let script = "trap 'echo asked' TERM; echo ready; while :; do sleep 1000 & wait; done";
    let mut launched = launch(&mark, script).await;
    let (sender, stop) = watch::channel(None);
    set_stop(&sender, canceled());
    let Launched { stdout, process, .. } = &mut launched;
    let force = async {
        assert_eq!(line(stdout).await, "asked");
        set_stop(&sender, Stop { grace: Some(Duration::ZERO), ..canceled() });
    };
    let hour = Duration::from_secs(3600);
    let end = runlane::exec::supervise(process, None, hour, TERM, stop);
    let both = tokio::time::timeout(DEADLINE, async { tokio::join!(end, force) });
    let (ended, ()) = both.await.expect("it dies long before its hour of grace");
    mark.assert_none_alive();
    assert_eq!(ended.expect("its end is known").exit, ExitStatus::Signaled(KILL));
}
