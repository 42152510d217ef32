//! That this kernel holds limits at all, written by hand and without runlane: otherwise the cases of
//! runlane's limits would mean nothing. They are those cases' negative controls, too: what the same
//! programs do without the limit, and without the kill of the whole group.

use std::time::{Duration, Instant};

use super::group::Group;
use super::programs::{BOMB, BUSY, CHILDREN, EATER};
use super::tasks::until;

pub(super) async fn the_kernel_kills_what_passes_memory_max() {
    let limits = [("memory.max", "33554432"), ("memory.swap.max", "0")];
    let group = Group::new("memory", &limits[..1]);
    let output = group.run(EATER).await;
    // Without memory.oom.group one process dies, and its shell goes on.
    assert_eq!(group.number("memory.events", "oom_kill "), 1);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "137\n", "{output:?}");
    let control = Group::new("memory-control", &[]).run(EATER).await;
    assert_eq!(String::from_utf8_lossy(&control.stdout), "0\n", "{control:?}");
    let whole = [limits[0], ("memory.oom.group", "1")];
    let output = Group::new("memory-whole", &whole).run(EATER).await;
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{output:?}");
}

pub(super) async fn the_kernel_refuses_forks_past_pids_max() {
    let output = Group::new("pids", &[("pids.max", "10")]).run(CHILDREN).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("Resource temporarily unavailable"), "{output:?}");
    let control = Group::new("pids-control", &[]).run(CHILDREN).await;
    assert_eq!(String::from_utf8_lossy(&control.stdout), "all\n", "{control:?}");
}

pub(super) async fn the_kernel_holds_cpu_max() {
    let limited = cpu_share("cpu", &[("cpu.max", "20000 100000")]).await;
    assert!((0.1..0.3).contains(&limited), "{limited}");
    let control = cpu_share("cpu-control", &[]).await;
    assert!(control > 0.7, "{control}");
}

/// The part of a CPU that a busy loop gets.
async fn cpu_share(name: &str, limits: &[(&str, &str)]) -> f64 {
    let group = Group::new(name, limits);
    let start = Instant::now();
    group.run(BUSY).await;
    let wall = start.elapsed().as_secs_f64();
    let used = group.number("cpu.stat", "usage_usec ");
    Duration::from_micros(used).as_secs_f64() / wall
}

pub(super) async fn cgroup_kill_ends_a_fork_bomb_without_a_limit() {
    let group = Group::new("bomb", &[]);
    let mut leader = group.command(BOMB).spawn().expect("sh can be run");
    until("the bomb is large", || group.population() > 300).await;
    group.kill();
    leader.wait().await.expect("it is our child");
    until("all of it is gone", || group.is_empty()).await;
}
