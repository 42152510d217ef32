//! How a worker comes by its cgroups where there are controllers: delegated to a plain user, refused,
//! and after another worker's death. The worker is the suite's own file in the role `base`.

use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Output, Stdio};

use nix::sys::signal::{SIGKILL, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::group::{Group, subgroups};
use super::programs::{CHILDREN, EATER};
use super::site::Start;
use super::tasks::until;

/// The user of the machine that isn't root.
const USER: u32 = 1000;

/// Gives a cgroup to a user as cgroups(7) says.
pub(super) fn delegate(group: &Group, uid: u32) {
    for file in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
        chown(group.0.join(file), Some(uid), Some(uid)).expect("root may");
    }
}

/// A process that opens a base as a worker does, and runs a script in a leaf with 32 MiB and 10
/// processes.
fn base(setting: &str, start: Start<'_>, script: &str) -> Command {
    let mut command = start.command("/bin/vm");
    command.args(["__helper", "base", setting, script]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

async fn said(setting: &str, start: Start<'_>, script: &str) -> String {
    let output = base(setting, start, script).output().await.expect("it can be started");
    let Output { stdout, stderr, .. } = output;
    String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned()
}

#[track_caller]
fn assert_has(text: &str, parts: &[&str]) {
    parts.iter().for_each(|part| assert!(text.contains(part), "no {part:?} in {text}"));
}

pub(super) async fn a_plain_user_has_limits_in_its_delegated_cgroup() {
    let cases: [(&str, &[&str]); 3] = [
        // The whole leaf is killed, and its usage says for what.
        (EATER, &["\"cpu\"", "\"memory\"", "\"pids\"", "missing {}", "signal: 9"]),
        (CHILDREN, &["Resource temporarily unavailable", "oom_kills: 0", "pids_max_hits: 1"]),
        (
            "id -u; echo fits",
            &["1000", "fits", "exit status: 0", "oom_kills: 0", "pids_max_hits: 0"],
        ),
    ];
    for (script, parts) in cases {
        // One for each: once it gives controllers to its children, nobody can be put into it.
        let group = Group::new("delegated", &[]);
        delegate(&group, USER);
        let text = said("auto", Start { uid: USER, cgroup: &group.0 }, script).await;
        assert_has(&text, parts);
        assert_eq!(script == EATER, !text.contains("oom_kills: 0"), "{text}");
    }
}

pub(super) async fn what_is_not_delegated_is_not_taken_over() {
    let group = Group::new("strange", &[]);
    for uid in [0, USER] {
        let text = said("auto", Start { uid, cgroup: &group.0 }, "echo it ran").await;
        assert_has(&text, &["is not delegated to the worker", "Delegate=yes"]);
    }
    assert!(subgroups(&group.0).is_empty());
}

pub(super) async fn the_trees_root_is_not_taken_over() {
    let root = Path::new("/sys/fs/cgroup");
    let before = subgroups(root);
    for setting in ["auto", "/sys/fs/cgroup"] {
        let text = said(setting, Start { uid: 0, cgroup: root }, "echo it ran").await;
        assert_has(&text, &["the root of the cgroup tree is never taken over"]);
    }
    assert_eq!(subgroups(root), before);
}

pub(super) async fn what_a_killed_process_has_left_in_its_base_goes_with_the_next() {
    let group = Group::new("stale", &[]);
    let setting = group.0.display().to_string();
    let hold = "exec 2>&1; sleep 1000 & echo ready; wait";
    let mut first = base(&setting, Start::plain(), hold).spawn().expect("it can be started");
    let mut lines = BufReader::new(first.stdout.as_mut().expect("it is piped")).lines();
    while lines.next_line().await.expect("it is text").expect("it gets ready") != "ready" {}
    let left = subgroups(&group.0);
    let pid = first.id().expect("it runs").cast_signed();
    kill(Pid::from_raw(pid), SIGKILL).expect("it runs");
    first.wait().await.expect("it is our child");
    // The control: nothing else ends them.
    assert!(!group.is_empty() && left.len() == 1, "{left:?}");
    let text = said(&setting, Start::plain(), "echo fits").await;
    assert_has(&text, &["fits", "exit status: 0"]);
    assert!(!left[0].exists(), "{left:?} is left");
    until("the old processes are gone", || group.is_empty()).await;
}
