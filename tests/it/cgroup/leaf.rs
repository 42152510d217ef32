//! A leaf's life.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{SIGKILL, killpg};
use nix::unistd::Pid;
use runlane::exec::ExitStatus;
use runlane::exec::cgroup::{Leaf, LeafUsage};
use runlane::task::{CgroupLimits, CpuMax};

use super::{Helper, Tree, end_of, path_of, sh};
use crate::support::proc::{DEADLINE, Mark, is_alive, until};

const SHORT: Duration = Duration::from_millis(50);

/// Two forks and a session lie between the leader and a sleep.
const DAEMON: &str = "setsid -f sh -c 'sleep 1000 >/dev/null & echo $!'; wait";

#[test]
fn a_process_joins_its_leaf() {
    let Some(tree) = Tree::new() else { return };
    let mut helper = Helper::start(&format!("join:{}", tree.path().display()));
    let name = helper.said("name ");
    let cgroup = helper.said("cgroup ");
    let end = format!("/{}/{name}", tree.path().file_name().expect("a name").display());
    let own = cgroup.split(' ').find(|line| line.starts_with("0::")).expect("it has a cgroup");
    assert!(own.ends_with(&end), "{own}");
}

#[tokio::test]
async fn a_task_that_leaves_and_removes_its_leaf_keeps_its_end_and_nothing_of_it_stays() {
    let Some(tree) = Tree::new() else { return };
    let mark = Mark::new();
    let root = tempfile::tempdir().expect("there is room");
    // Root may, and a plain user whose the cgroups are.
    let leave = format!(
        "leaf={t}/$(basename $(sed -n s/^0:://p /proc/self/cgroup)); \
         echo $$ > {t}/cgroup.procs && rmdir $leaf && exit 3",
        t = tree.path().display()
    );
    let mut plan = crate::process::sh(&mark, &leave);
    plan.sandbox.enclosure.cgroup = Some(tree.path().to_owned());
    plan.sandbox.enclosure.work_root = Some(root.path().to_owned());
    let run = crate::process::run(&mark, &plan).await;
    assert_eq!(run.exit.status, ExitStatus::Exited(3), "{}", run.stderr);
    until("its work directory is removed", || {
        fs::read_dir(root.path()).expect("it is there").count() == 0
    })
    .await;
}

#[test]
fn a_leaf_is_empty_only_after_its_kill() {
    let Some(tree) = Tree::new() else { return };
    let mark = Mark::new();
    let leaf = Leaf::create(tree.path()).expect("it can be made");
    assert!(leaf.wait_empty(SHORT).expect("it can be asked"), "nobody has joined");
    let (mut leader, _) = sh(&path_of(&tree, &leaf), &mark, "echo; exec sleep 1000");
    let start = Instant::now();
    assert!(!leaf.wait_empty(SHORT).expect("it can be asked"), "it has a process");
    assert!(start.elapsed() >= SHORT);
    for _ in 0..2 {
        leaf.kill().expect("it can be killed, also twice");
    }
    assert!(leaf.wait_empty(DEADLINE).expect("it can be asked"));
    assert_eq!(end_of(&mut leader).signal(), Some(9));
    let path = path_of(&tree, &leaf);
    leaf.remove().expect("it can be removed");
    assert!(!path.exists());
}

#[test]
fn waiting_ends_when_the_last_process_ends_by_itself() {
    let Some(tree) = Tree::new() else { return };
    let leaf = Leaf::create(tree.path()).expect("it can be made");
    let (mut leader, _) = sh(&path_of(&tree, &leaf), &Mark::new(), "echo; exec sleep 0.2");
    let start = Instant::now();
    assert!(leaf.wait_empty(DEADLINE).expect("it can be asked"));
    assert!(start.elapsed() < DEADLINE / 2, "it was told, and has not slept to the end");
    end_of(&mut leader);
    leaf.remove().expect("it can be removed");
}

#[test]
fn an_end_within_milliseconds_of_the_join_is_seen_at_once() {
    let Some(tree) = Tree::new() else { return };
    // The kernel reports a second change of a cgroup only 10 ms after the first.
    let wait = || {
        let leaf = Leaf::create(tree.path()).expect("it can be made");
        let (mut leader, _) = sh(&path_of(&tree, &leaf), &Mark::new(), "echo; exec sleep 1000");
        leaf.kill().expect("it can be killed");
        let start = Instant::now();
        assert!(leaf.wait_empty(DEADLINE).expect("it can be asked"));
        let took = start.elapsed();
        end_of(&mut leader);
        leaf.remove().expect("it can be removed");
        took
    };
    let fastest = (0..20).map(|_| wait()).min().expect("twenty of them");
    assert!(fastest < Duration::from_millis(4), "{fastest:?}");
}

#[tokio::test]
async fn a_daemon_outlives_its_group_but_not_its_leaf() {
    let Some(tree) = Tree::new() else { return };
    let mark = Mark::new();
    let leaf = Leaf::create(tree.path()).expect("it can be made");
    let (mut leader, daemon) = sh(&path_of(&tree, &leaf), &mark, DAEMON);
    let daemon = daemon.parse().expect("a process id");
    killpg(Pid::from_raw(leader.id().cast_signed()), SIGKILL).expect("the leader runs");
    end_of(&mut leader);
    assert!(!leaf.wait_empty(SHORT).expect("it can be asked"));
    assert!(is_alive(daemon), "without the leaf's kill it lives");
    leaf.kill().expect("it can be killed");
    assert!(leaf.wait_empty(DEADLINE).expect("it can be asked"));
    until("the daemon is gone", || !is_alive(daemon)).await;
    leaf.remove().expect("it can be removed");
}

#[tokio::test]
async fn removal_ends_what_is_in_nested_cgroups() {
    let Some(tree) = Tree::new() else { return };
    let mark = Mark::new();
    let leaf = Leaf::create(tree.path()).expect("it can be made");
    let path = path_of(&tree, &leaf);
    fs::create_dir_all(path.join("a/b/c")).expect("they can be made");
    fs::create_dir_all(path.join("a/d")).expect("they can be made");
    let (mut leader, _) = sh(&path.join("a/b/c"), &mark, "echo; exec sleep 1000");
    let refused = fs::remove_dir(&path).expect_err("it isn't empty");
    assert_eq!(refused.raw_os_error(), Some(Errno::EBUSY as i32));
    leaf.remove().expect("it can be removed");
    assert!(!path.exists());
    assert_eq!(end_of(&mut leader).signal(), Some(9));
}

#[test]
fn leaves_of_one_process_have_names_of_their_own_and_dropping_one_leaves_it() {
    let Some(tree) = Tree::new() else { return };
    let [first, second] = [(); 2].map(|()| Leaf::create(tree.path()).expect("it can be made"));
    assert_ne!(first.name(), second.name());
    let path = path_of(&tree, &first);
    drop(first);
    assert!(path.exists());
    second.remove().expect("it can be removed");
}

#[test]
fn a_leaf_that_is_gone_is_removed_without_complaint_and_used_nothing() {
    let Some(tree) = Tree::new() else { return };
    let leaf = Leaf::create(tree.path()).expect("it can be made");
    fs::remove_dir(path_of(&tree, &leaf)).expect("it is empty");
    assert_eq!(leaf.usage(), LeafUsage::default());
    leaf.remove().expect("it is gone");
}

#[test]
fn a_limit_without_its_controller_is_refused_by_the_files_name() {
    let Some(tree) = Tree::new() else { return };
    // Nothing was enabled in the tree, so that the leaf has no controller on any host.
    let leaf = Leaf::create(tree.path()).expect("it can be made");
    let none = CgroupLimits::default();
    let cpu_max = Some(CpuMax { quota_us: 20_000, period_us: 100_000 });
    let cases = [
        ("cpu.max", CgroupLimits { cpu_max, ..none.clone() }),
        ("cpu.weight", CgroupLimits { cpu_weight: Some(50), ..none.clone() }),
        ("memory.max", CgroupLimits { memory_max: Some(1 << 26), ..none.clone() }),
        ("pids.max", CgroupLimits { pids_max: Some(10), ..none.clone() }),
        ("io.max", CgroupLimits { io_max: vec!["8:0 rbps=1".to_owned()], ..none.clone() }),
    ];
    for (file, limits) in cases {
        let refused = leaf.limit(&limits).expect_err("no controller is on");
        assert_eq!((refused.file, refused.errno), (file, Errno::ENOENT));
        assert_eq!(refused.to_string(), format!("{file}: no such file or directory"));
    }
    leaf.limit(&none).expect("no limit takes no controller");
    leaf.remove().expect("it can be removed");
}

#[test]
fn usage_counts_the_cpu_time_of_every_process_of_the_leaf() {
    let Some(tree) = Tree::new() else { return };
    let leaf = Leaf::create(tree.path()).expect("it can be made");
    // In two processes, one after the other. Each says the nanoseconds that the scheduler gave it.
    let burn = "sh -c 'i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done; read ns _ </proc/self/schedstat; echo $ns'";
    let script = format!("echo $({burn}) $({burn})");
    let (mut leader, each) = sh(&path_of(&tree, &leaf), &Mark::new(), &script);
    assert!(end_of(&mut leader).success());
    let each: Vec<u64> = each.split(' ').map(|ns| ns.parse().expect("a number")).collect();
    let [burnt, one] = [each.iter().sum(), each[0]].map(Duration::from_nanos);
    assert!(one > Duration::from_millis(50), "{each:?}");
    let usage = leaf.usage();
    let used = usage.cpu_user.expect("cpu.stat") + usage.cpu_system.expect("cpu.stat");
    let slack = Duration::from_millis(20);
    assert!(used + slack >= burnt && used < burnt + one / 2 + slack, "{usage:?}, {each:?}");
    assert_eq!((usage.oom_kills, usage.pids_max_hits), (0, 0));
    leaf.remove().expect("it can be removed");
}
