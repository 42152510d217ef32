//! Who tries to escape, without a cgroup: what task-init alone holds.

use std::collections::BTreeSet;
use std::path::PathBuf;

use nix::sys::signal::{SIGKILL, SIGTERM, kill, killpg};
use nix::unistd::Pid;
use runlane::exec::ExitStatus;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use super::group::Group;
use super::others;
use super::programs::{BOMB, DAEMON, HOPPERS, SESSIONS};
use super::tasks::{RUNLANE, cancel_when, run, sh, until};

pub(super) async fn a_setsid_daemon_ends_with_a_cancel() {
    let before = others();
    let ended = cancel_when(&sh(DAEMON), || true).await;
    let left = strangers(&before);
    assert!(ended.leftovers_killed >= 1, "{ended:?}");
    assert_eq!(left, BTreeSet::new());
}

pub(super) async fn four_hundred_setsid_children_end_with_their_leader() {
    let run = run(&sh(SESSIONS)).await;
    assert_eq!((run.exit.status, run.exit.leftovers_killed), (ExitStatus::Exited(0), 400));
}

pub(super) async fn pid_hoppers_end_with_a_cancel() {
    let before = others();
    let ended = cancel_when(&sh(HOPPERS), || true).await;
    let left = strangers(&before);
    assert!(ended.leftovers_killed >= 20, "{ended:?}");
    assert_eq!(left, BTreeSet::new());
}

/// The limit is that of the whole worker, from outside: without any, the worker gets no CPU either.
pub(super) async fn a_fork_bomb_in_a_limited_worker_ends_with_a_cancel() {
    let cage = Group::new("bomb", &[("pids.max", "60")]);
    let before = others();
    let worker = worker(&cage, BOMB).await;
    until("the bomb has hit the limit", || cage.number("pids.events", "max ") > 0).await;
    let pid = worker.id().expect("it runs").cast_signed();
    kill(Pid::from_raw(pid), SIGTERM).expect("it runs");
    let output = worker.wait_with_output().await.expect("the worker ends");
    assert_eq!(strangers(&before), BTreeSet::new(), "{output:?}");
    assert!(output.status.success(), "{output:?}");
    until("the worker's spawner has ended too", || cage.is_empty()).await;
}

pub(super) async fn a_killed_workers_tasks_end() {
    let cage = Group::new("killed", &[]);
    let mut worker = worker(&cage, DAEMON).await;
    worker.kill().await.expect("it runs");
    until("nothing is left", || cage.is_empty()).await;
}

/// Starts a worker in a cgroup, and waits until its task is ready. It cancels it when its own standard
/// input ends.
async fn worker(cage: &Group, script: &str) -> Child {
    let mut command = cage.command("exec /bin/vm __helper worker \"$SCRIPT\"");
    command.env("SCRIPT", script);
    let mut worker = command.spawn().expect("the worker can be started");
    let output = worker.stdout.as_mut().expect("it is piped");
    let said = BufReader::new(output).lines().next_line().await.expect("it is text");
    assert_eq!(said.as_deref(), Some("ready"));
    worker
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

/// The programs that were started since then and go on, but for our own: the spawner and whoever waits
/// for its next task end a moment after its last handle.
fn strangers(before: &BTreeSet<i32>) -> BTreeSet<PathBuf> {
    let own = std::fs::canonicalize(RUNLANE).expect("it is there");
    let program = |pid: &i32| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    let started = others().difference(before).filter_map(program).collect::<BTreeSet<_>>();
    started.into_iter().filter(|program| *program != own).collect()
}
