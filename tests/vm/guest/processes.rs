//! Who tries to escape, without a cgroup: what task-init alone holds.

use std::process::Stdio;

use nix::sys::signal::{SIGKILL, killpg};
use nix::unistd::Pid;
use runlane::exec::ExitStatus;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::group::Group;
use super::others;
use super::programs::{BOMB, DAEMON, HOPPERS, SESSIONS};
use super::tasks::{cancel_when_it_says, run, sh};

pub(super) async fn a_setsid_daemon_ends_with_a_cancel() {
    let before = others().len();
    let ended = cancel_when_it_says(&sh(DAEMON), "ready").await;
    assert!(ended.leftovers_killed >= 1, "{ended:?}");
    assert_nothing_but_the_spawner(before);
}

pub(super) async fn four_hundred_setsid_children_end_with_their_leader() {
    let run = run(&sh(SESSIONS)).await;
    assert_eq!((run.exit.status, run.exit.leftovers_killed), (ExitStatus::Exited(0), 400));
}

pub(super) async fn pid_hoppers_end_with_a_cancel() {
    let before = others().len();
    let ended = cancel_when_it_says(&sh(HOPPERS), "ready").await;
    assert!(ended.leftovers_killed >= 20, "{ended:?}");
    assert_nothing_but_the_spawner(before);
}

pub(super) async fn a_fork_bomb_ends_with_a_cancel() {
    let before = others().len();
    cancel_when_it_says(&sh(BOMB), "ready").await;
    assert_nothing_but_the_spawner(before);
}

pub(super) async fn a_killed_workers_tasks_end() {
    let mut worker = Command::new("/bin/vm")
        .args(["helper", "worker", DAEMON])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the worker can be started");
    let output = worker.stdout.take().expect("it is piped");
    let said = BufReader::new(output).lines().next_line().await.expect("it is text");
    assert_eq!(said.as_deref(), Some("ready"));
    worker.kill().await.expect("it runs");
    // The suite sees to it that nothing is left.
}

pub(super) async fn negative_control_a_process_group_does_not_hold_pid_hoppers() {
    let cage = Group::new("hoppers", &[]);
    let mut leader = cage.command(HOPPERS).process_group(0).spawn().expect("sh can be started");
    let output = leader.stdout.take().expect("it is piped");
    BufReader::new(output).lines().next_line().await.expect("it is text").expect("a line");
    let group = leader.id().expect("it runs").cast_signed();
    killpg(Pid::from_raw(group), SIGKILL).expect("the group is there");
    leader.wait().await.expect("it is our child");
    assert!(cage.population() >= 10, "the hoppers should have survived");
}

/// The spawner ends a moment after its last handle.
fn assert_nothing_but_the_spawner(before: usize) {
    let now = others().len();
    assert!(now <= before + 1, "{now} processes, and {before} before");
}
