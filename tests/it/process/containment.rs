//! Who tries to escape, and the negative control: without task-init it does.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{SIGKILL, killpg};
use nix::unistd::Pid;
use runlane::exec::{ExitStatus, LaunchError, Process, ProcessError, Stop, set_stop};
use runlane::wire::StopReason;
use tokio::sync::watch;

use super::{Mark, TERM, line, run, sh, spawner, supervised, text};
use crate::support::proc::{MARK, until};

/// Two forks and a session lie between the leader and a sleep that holds standard output. The rest
/// follows when the daemon runs; its shell may be about to end then.
fn daemon_then(rest: &str) -> String {
    let daemon = "setsid -f sh -c 'sleep 1000 >&3 & echo ready'";
    format!("exec 3>&1; echo $({daemon} | head -n1); {rest}")
}

#[tokio::test]
async fn a_background_child_does_not_outlive_its_leader() {
    let mark = Mark::new();
    let run = run(&mark, &sh(&mark, "sleep 1000 & exit 4")).await;
    assert_eq!(run.exit.status, ExitStatus::Exited(4));
    assert_eq!(run.exit.leftovers_killed, 1);
}

#[tokio::test]
async fn a_daemon_that_holds_standard_output_dies_with_its_leaders_exit() {
    let mark = Mark::new();
    let run = run(&mark, &sh(&mark, &daemon_then("exit 0"))).await;
    assert_eq!(run.stdout, "ready\n");
    assert_eq!(run.exit.status, ExitStatus::Exited(0));
    assert!((1..=2).contains(&run.exit.leftovers_killed), "{:?}", run.exit);
}

#[tokio::test]
async fn a_daemon_that_holds_standard_output_dies_with_a_cancel() {
    let mark = Mark::new();
    let plan = sh(&mark, &daemon_then("sleep 1000; :"));
    let mut launched = spawner().launch(&plan).await.expect("sh can be launched");
    assert_eq!(line(&mut launched.stdout).await, "ready");
    let (sender, stop) = watch::channel(None);
    set_stop(&sender, Stop::because(StopReason::Canceled));
    let ended = supervised(&mark, &mut launched, None, Duration::from_secs(5), stop).await;
    assert_eq!(ended.exit, ExitStatus::Signaled(TERM));
    assert!((1..=2).contains(&ended.leftovers_killed), "{ended:?}");
    assert_eq!(text(&mut launched.stdout).await, "");
}

#[tokio::test]
async fn hundreds_of_children_in_sessions_of_their_own_die() {
    let mark = Mark::new();
    let script = "i=0; while [ $i -lt 400 ]; do setsid -f sleep 1000; i=$((i+1)); done";
    let run = run(&mark, &sh(&mark, script)).await;
    assert_eq!(run.exit.status, ExitStatus::Exited(0));
    assert_eq!(run.exit.leftovers_killed, 400);
}

#[tokio::test]
async fn orphans_that_end_while_the_leader_lives_are_reaped_and_are_no_leftovers() {
    let mark = Mark::new();
    let script = "for i in 1 2 3 4 5; do setsid -f true; done; \
                  until [ \"$(grep -c '' /proc/$PPID/task/$PPID/children)\" = 0 ] || \
                  [ \"$(cat /proc/$PPID/task/$PPID/children)\" = \"$$ \" ]; do :; done";
    let run = run(&mark, &sh(&mark, script)).await;
    assert_eq!((run.exit.status, run.exit.leftovers_killed), (ExitStatus::Exited(0), 0));
}

#[tokio::test]
async fn a_task_that_kills_its_own_supervisor_is_swept_by_the_spawner() {
    let mark = Mark::new();
    let script = daemon_then("sleep 0.3; kill -9 $PPID; sleep 1000");
    let spawner = spawner();
    let mut launched = spawner.launch(&sh(&mark, &script)).await.expect("sh can be launched");
    let error = launched.process.wait().await.expect_err("nobody can say how it ended");
    assert!(matches!(error, ProcessError::SupervisorDied), "{error:?}");
    mark.gone().await;
}

#[tokio::test]
async fn one_that_kills_it_at_once_may_have_begun_though_nobody_has_heard_of_its_start() {
    let mark = Mark::new();
    // The spawner is asked for nothing more by then, and ends when nothing is left.
    let launched = spawner().launch(&sh(&mark, "kill -9 $PPID; sleep 1000")).await;
    let error = launched.expect_err("its start is reported later");
    assert!(matches!(error, LaunchError::Interrupted(ProcessError::SupervisorDied)), "{error:?}");
    assert!(!error.has_not_begun());
    mark.gone().await;
}

#[tokio::test]
async fn negative_control_a_process_group_alone_does_not_hold_a_daemon() {
    let mark = Mark::new();
    let mut leader = Command::new("sh")
        .args(["-c", &daemon_then("sleep 1000; :")])
        .env(MARK, &mark.0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("sh can be started");
    let group = Pid::from_raw(leader.id().cast_signed());
    until("leader, its sleep and the daemon run", || {
        mark.alive().len() == 3
            && mark.alive().iter().filter(|pid| in_group(**pid, group)).count() == 2
    })
    .await;
    killpg(group, SIGKILL).expect("the group is there");
    leader.wait().expect("the leader is our child");
    until("only the daemon is left", || mark.alive().len() == 1).await;
    mark.clean_up();
    mark.gone().await;
}

fn in_group(pid: i32, group: Pid) -> bool {
    nix::unistd::getpgid(Some(Pid::from_raw(pid))) == Ok(group)
}
