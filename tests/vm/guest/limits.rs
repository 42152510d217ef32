//! A task's cgroup, by way of the executor: its limits hold, it ends whatever is in it, and no leaf
//! stays. Each case has its control: the same program without the limit.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use runlane::exec::{ExitStatus, LaunchError};
use runlane::task::{CgroupLimits, CpuMax, LaunchPlan};

use super::group::{Group, subgroups};
use super::programs::{BOMB, BUSY, CHILDREN, DAEMON, EATER, HOPPERS, SESSIONS};
use super::tasks::{Run, cancel_when, run, sh, spawner, until};

/// The base that the machine's init has made, with every controller.
const BASE: &str = "/sys/fs/cgroup/runlane";

/// Its name, as the processes in it see it.
const NAME: &str = "/runlane/";

const MIB: u64 = 1024 * 1024;

const KILL: i32 = 9;

/// A bomb that goes off in a leaf only: elsewhere it would end the suite.
fn bomb(limits: CgroupLimits) -> LaunchPlan {
    in_leaf(&format!("grep -q {NAME} /proc/self/cgroup && {{ {BOMB}; }}"), limits)
}

/// A script that gets a leaf.
fn in_leaf(script: &str, limits: CgroupLimits) -> LaunchPlan {
    let mut plan = sh(script);
    plan.sandbox.enclosure.cgroup = Some(PathBuf::from(BASE));
    plan.sandbox.cgroup = limits;
    plan
}

fn memory(bytes: u64) -> CgroupLimits {
    CgroupLimits { memory_max: Some(bytes), ..CgroupLimits::default() }
}

fn pids(count: u64) -> CgroupLimits {
    CgroupLimits { pids_max: Some(count), ..CgroupLimits::default() }
}

/// Whoever waits for the next task has ended with the case's spawner.
async fn assert_no_leaf_is_left() {
    until("no leaf is left", || subgroups(Path::new(BASE)).is_empty()).await;
}

/// Kills for want of memory since the boot, counted by the kernel.
fn oom_kills() -> u64 {
    let text = fs::read_to_string("/proc/vmstat").expect("the kernel counts");
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok());
    count.expect("the kernel counts kills")
}

pub(super) async fn a_task_over_memory_max_is_killed_as_a_whole() {
    let before = oom_kills();
    let Run { exit, stdout, .. } = run(&in_leaf(EATER, memory(32 * MIB))).await;
    // Not only its child, whose exit code its shell would say.
    assert_eq!((exit.status, stdout.as_str()), (ExitStatus::Signaled(KILL), ""));
    assert!(oom_kills() >= before + 2, "the kernel has killed both");
    assert_no_leaf_is_left().await;
}

pub(super) async fn control_a_task_below_memory_max_lives() {
    let before = oom_kills();
    for limits in [memory(256 * MIB), CgroupLimits::default()] {
        let Run { exit, stdout, .. } = run(&in_leaf(EATER, limits)).await;
        assert_eq!((exit.status, stdout.as_str()), (ExitStatus::Exited(0), "0\n"));
    }
    assert_eq!(oom_kills(), before);
    assert_no_leaf_is_left().await;
}

pub(super) async fn a_task_over_pids_max_gets_eagain() {
    let limited = run(&in_leaf(CHILDREN, pids(10))).await;
    assert!(limited.stderr.contains("Resource temporarily unavailable"), "{limited:?}");
    assert_ne!(limited.exit.status, ExitStatus::Exited(0));
    let control = run(&in_leaf(CHILDREN, pids(100))).await;
    assert_eq!((control.stdout.as_str(), control.stderr.as_str()), ("all\n", ""));
    assert_no_leaf_is_left().await;
}

pub(super) async fn a_task_at_a_fifth_of_a_cpu_uses_a_fifth() {
    let fifth = CpuMax { quota_us: 20_000, period_us: 100_000 };
    let share = cpu_share(CgroupLimits { cpu_max: Some(fifth), ..CgroupLimits::default() }).await;
    assert!((0.1..0.3).contains(&share), "{share}");
    // Not nearly 1: the machine's own host may be busy.
    let control = cpu_share(CgroupLimits::default()).await;
    assert!(control > 2.0 * share, "{control}, and {share} with the limit");
}

/// The part of a CPU that a busy task gets, by its own report.
async fn cpu_share(limits: CgroupLimits) -> f64 {
    let start = Instant::now();
    let usage = run(&in_leaf(BUSY, limits)).await.exit.usage;
    (usage.user + usage.system).as_secs_f64() / start.elapsed().as_secs_f64()
}

pub(super) async fn every_limit_is_in_the_leafs_files() {
    let script = "cd /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup); \
        cat cpu.max cpu.weight memory.max memory.swap.max memory.oom.group pids.max";
    let limits = CgroupLimits {
        cpu_max: Some(CpuMax { quota_us: 150_000, period_us: 50_000 }),
        cpu_weight: Some(42),
        memory_max: Some(48 * MIB),
        pids_max: Some(17),
        io_max: Vec::new(),
    };
    let run = run(&in_leaf(script, limits)).await;
    // This kernel has no swap's file without swap.
    let lines: Vec<_> = run.stdout.lines().filter(|line| *line != "0").collect();
    assert_eq!(lines, ["150000 50000", "42", "50331648", "1", "17"], "{run:?}");
}

pub(super) async fn a_limit_without_its_controller_refuses_the_task() {
    let bare = Group::new("bare", &[]);
    let mut plan = in_leaf("echo it ran", memory(64 * MIB));
    plan.sandbox.enclosure.cgroup = Some(bare.0.clone());
    let error = spawner().launch(&plan).await.expect_err("the limit can't be set");
    assert!(matches!(error, LaunchError::Setup { .. }), "{error:?}");
    assert!(error.step().starts_with("cgroup"), "{error}");
    assert!(error.to_string().contains("memory"), "{error}");
    // The control: without the limit the same base serves.
    plan.sandbox.cgroup = CgroupLimits::default();
    assert_eq!(run(&plan).await.stdout, "it ran\n");
    until("the leaf is removed", || subgroups(&bare.0).is_empty()).await;
}

pub(super) async fn a_fork_bomb_at_its_limit_ends_with_a_cancel() {
    let (mut looks, mut most) = (0, 0);
    let ended = cancel_when(&bomb(pids(100)), || {
        let now = population();
        most = most.max(now);
        looks += u32::from(now >= 90);
        looks > 50
    })
    .await;
    assert!(matches!(ended.exit, ExitStatus::Signaled(_)), "{ended:?}");
    // Of other leaves in the base there is at most a waiting one.
    assert!(most <= 105, "{most} processes at once");
    assert_no_leaf_is_left().await;
}

pub(super) async fn a_fork_bomb_without_a_limit_ends_with_a_cancel() {
    let plan = bomb(CgroupLimits::default());
    let ended = cancel_when(&plan, || population() > 300).await;
    assert!(matches!(ended.exit, ExitStatus::Signaled(_)), "{ended:?}");
    assert_no_leaf_is_left().await;
}

pub(super) async fn everyone_who_escapes_ends_in_a_leaf() {
    for script in [DAEMON, HOPPERS] {
        cancel_when(&in_leaf(script, CgroupLimits::default()), || true).await;
        assert_no_leaf_is_left().await;
    }
    let run = run(&in_leaf(SESSIONS, CgroupLimits::default())).await;
    assert_eq!(run.exit.status, ExitStatus::Exited(0));
    assert_no_leaf_is_left().await;
}

/// Processes in all leaves.
fn population() -> u64 {
    let count = fs::read_to_string(Path::new(BASE).join("pids.current"));
    count.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}
