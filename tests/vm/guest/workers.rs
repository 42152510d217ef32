//! Workers with a real queue: what outcomes say of limits, and how a worker comes by its cgroup.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal::{SIGKILL, SIGTERM};

use super::bases::delegate;
use super::group::{Group, subgroups};
use super::programs::{DAEMON, EATER};
use super::site::{Site, Start};
use super::tasks::until;

/// The user of the machine that isn't root.
const USER: u32 = 1000;

/// A worker's configuration whose tasks have 32 MiB of memory.
fn limited(cgroup: &str) -> String {
    format!(
        "[worker]\ncgroup = \"{cgroup}\"\nstate_dir = \"/tmp\"\n[[runner]]\nname = \"small\"\n\
         isolation = \"none\"\n[runner.sandbox.cgroup]\nmemory_max = \"32MiB\"\n"
    )
}

pub(super) async fn a_worker_runs_a_task_from_the_queue() {
    let site = Site::new().await;
    let mut worker = site.worker("plain", "", Start::plain()).await;
    worker.assert_serves();
    let outcome = site.outcome(EATER).await;
    assert_eq!((&outcome["phase"], &outcome["oomKilled"]), (&"succeeded".into(), &false.into()));
    worker.end(SIGTERM).await;
}

pub(super) async fn an_outcome_says_that_the_task_was_killed_for_want_of_memory() {
    let site = Site::new().await;
    let base = Group::new("outcome", &[]);
    let mut worker = site.worker("small", &limited(&text(&base)), Start::plain()).await;
    worker.assert_serves();
    let outcome = site.outcome(EATER).await;
    assert_eq!(outcome["oomKilled"], true, "{outcome}");
    assert_eq!(outcome["signal"], 9, "{outcome}");
    assert_eq!(outcome["memoryMaxBytes"], 32 << 20, "{outcome}");
    // A task that is killed without want of memory says so, too.
    let control = site.outcome("kill -9 $$").await;
    assert_eq!((&control["oomKilled"], &control["signal"]), (&false.into(), &9.into()));
    worker.end(SIGTERM).await;
}

pub(super) async fn a_plain_user_limits_tasks_in_its_delegated_cgroup() {
    let site = Site::new().await;
    let group = Group::new("delegated", &[]);
    delegate(&group, USER);
    let start = Start { uid: USER, cgroup: &group.0 };
    let mut worker = site.worker("user", &limited("auto"), start).await;
    worker.assert_serves();
    let outcome = site.outcome(&format!("id -u; {EATER}")).await;
    assert_eq!(outcome["oomKilled"], true, "{outcome}");
    worker.end(SIGTERM).await;
}

pub(super) async fn a_plain_user_without_delegation_is_refused_the_limit() {
    let site = Site::new().await;
    let group = Group::new("strange", &[]);
    let start = Start { uid: USER, cgroup: &group.0 };
    let mut worker = site.worker("user", &limited("auto"), start).await;
    assert!(worker.has_ended(), "it runs without its limit: {}", worker.log());
    assert!(worker.log().contains("not delegated"), "{}", worker.log());
}

pub(super) async fn the_root_of_the_tree_is_not_taken_over() {
    let site = Site::new().await;
    let root = Path::new("/sys/fs/cgroup");
    let before = (subgroups(root), controllers(root));
    let start = Start { uid: 0, cgroup: root };
    for (name, cgroup) in [("auto", "auto"), ("named", "/sys/fs/cgroup")] {
        let mut worker = site.worker(name, &limited(cgroup), start).await;
        assert!(worker.has_ended(), "it runs: {}", worker.log());
        assert!(worker.log().contains("root of the cgroup tree"), "{}", worker.log());
    }
    assert_eq!((subgroups(root), controllers(root)), before);
}

pub(super) async fn what_a_killed_worker_has_left_is_removed_by_the_next() {
    let site = Site::new().await;
    let base = Group::new("stale", &[]);
    let mut first = site.worker("first", &limited(&text(&base)), Start::plain()).await;
    first.assert_serves();
    site.submit(DAEMON).await;
    until("the task runs", || base.population() > 3).await;
    first.end(SIGKILL).await;
    until("nothing of the task lives", || base.is_empty()).await;
    let left = subgroups(&base.0);
    assert!(!left.is_empty(), "nothing was left, so nothing is proven");
    let mut second = site.worker("second", &limited(&text(&base)), Start::plain()).await;
    second.assert_serves();
    for directory in left {
        assert!(!directory.exists(), "{} is left", directory.display());
    }
    second.end(SIGTERM).await;
}

fn text(group: &Group) -> String {
    group.0.display().to_string()
}

fn controllers(directory: &Path) -> String {
    let path: PathBuf = directory.join("cgroup.subtree_control");
    fs::read_to_string(path).expect("it can be read")
}
