//! What depends on the host's controllers. Each test holds on a host that has them and on one that
//! doesn't; the VM has them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use runlane::exec::cgroup::{Base, CgroupSetting, Leaf};
use runlane::task::{CgroupLimits, CpuMax, Feature};

use super::{Helper, Tree, end_of, sh};
use crate::support::proc::{DEADLINE, Mark, is_alive};

const CONTROLLERS: [(&str, Feature); 4] = [
    ("cpu", Feature::CgroupCpu),
    ("io", Feature::CgroupIo),
    ("memory", Feature::CgroupMemory),
    ("pids", Feature::CgroupPids),
];

/// The controllers that a tree can pass on, printed so that a run says what it has tested.
#[expect(clippy::print_stderr, reason = "a run says what it has tested")]
fn available(tree: &Tree) -> BTreeSet<&'static str> {
    let text = fs::read_to_string(tree.path().join("cgroup.controllers")).expect("a cgroup");
    let there: BTreeSet<&str> = text.split_ascii_whitespace().collect();
    let available = CONTROLLERS.map(|(name, _)| name).into_iter();
    let available = available.filter(|name| there.contains(name)).collect();
    eprintln!("controllers of {}: {available:?}", tree.path().display());
    available
}

fn open(tree: &Tree) -> Base {
    Base::open(&CgroupSetting::Directory(tree.path().to_owned())).expect("it can be opened")
}

fn read(directory: &Path, file: &str) -> String {
    fs::read_to_string(directory.join(file)).expect("it can be read").trim_end().to_owned()
}

#[test]
fn every_controller_is_on_in_the_leaves_or_missing_with_its_reason() {
    let Some(tree) = Tree::new() else { return };
    let available = available(&tree);
    let base = open(&tree);
    assert_eq!(base.controllers(), &available);
    let leaf = Leaf::create(base.leaves()).expect("it can be made");
    let of_leaf = read(&base.leaves().join(leaf.name()), "cgroup.controllers");
    assert_eq!(of_leaf.split_ascii_whitespace().collect::<BTreeSet<_>>(), available);
    let version_1 = fs::read_to_string("/proc/self/cgroup").expect("/proc is mounted");
    for (name, feature) in CONTROLLERS {
        let why = base.missing().get(&feature);
        assert_eq!(why.is_none(), available.contains(name), "{name}: {why:?}");
        let of_version_1 = version_1.lines().any(|line| line.contains(&format!(":{name}:")));
        if let Some(why) = why.filter(|_| of_version_1) {
            assert!(why.contains("version 1"), "{why}");
        }
    }
    leaf.remove().expect("it can be removed");
    base.close();
}

#[test]
fn a_limit_holds_if_its_controller_is_on_and_is_refused_otherwise() {
    let Some(tree) = Tree::new() else { return };
    let base = open(&tree);
    let none = CgroupLimits::default();
    let cpu_max = Some(CpuMax { quota_us: 20_000, period_us: 100_000 });
    // The memory limit is not of whole pages: the kernel rounds down.
    let cases = [
        ("cpu", CgroupLimits { cpu_max, ..none.clone() }, &[("cpu.max", "20000 100000")][..]),
        ("cpu", CgroupLimits { cpu_weight: Some(50), ..none.clone() }, &[("cpu.weight", "50")]),
        (
            "memory",
            CgroupLimits { memory_max: Some((1 << 26) + 1), ..none.clone() },
            &[("memory.max", "67108864"), ("memory.oom.group", "1")],
        ),
        ("pids", CgroupLimits { pids_max: Some(10), ..none.clone() }, &[("pids.max", "10")]),
    ];
    for (controller, limits, expected) in cases {
        let leaf = Leaf::create(base.leaves()).expect("it can be made");
        let path = base.leaves().join(leaf.name());
        if base.controllers().contains(controller) {
            leaf.limit(&limits).expect("the controller is on");
            for (file, value) in expected {
                assert_eq!(read(&path, file), *value, "{file}");
            }
            let swap = path.join("memory.swap.max");
            if controller == "memory" && swap.exists() {
                assert_eq!(read(&path, "memory.swap.max"), "0");
            }
        } else {
            assert_eq!(leaf.limit(&limits).expect_err("no controller").file, expected[0].0);
        }
        leaf.remove().expect("it can be removed");
    }
    base.close();
}

#[test]
fn a_value_that_the_kernel_refuses_is_an_error_of_its_file() {
    let Some(tree) = Tree::new() else { return };
    let base = open(&tree);
    let none = CgroupLimits::default();
    let cpu_max = Some(CpuMax { quota_us: 1, period_us: 1 });
    let cases = [
        ("cpu.max", CgroupLimits { cpu_max, ..none.clone() }),
        ("cpu.weight", CgroupLimits { cpu_weight: Some(0), ..none.clone() }),
        ("pids.max", CgroupLimits { pids_max: Some(1 << 40), ..none.clone() }),
        ("io.max", CgroupLimits { io_max: vec!["nonsense".to_owned()], ..none.clone() }),
    ];
    let leaf = Leaf::create(base.leaves()).expect("it can be made");
    for (file, limits) in cases {
        assert_eq!(leaf.limit(&limits).expect_err("no such value").file, file);
    }
    leaf.remove().expect("it can be removed");
    base.close();
}

#[test]
fn usage_tells_the_cause_of_a_death_by_memory_and_of_a_failed_fork() {
    let Some(tree) = Tree::new() else { return };
    let base = open(&tree);
    let on = |name| base.controllers().contains(name);
    let leaf = Leaf::create(base.leaves()).expect("it can be made");
    let path = base.leaves().join(leaf.name());
    let (memory_max, pids_max) = (on("memory").then_some(1 << 25), on("pids").then_some(2));
    leaf.limit(&CgroupLimits { memory_max, pids_max, ..CgroupLimits::default() })
        .expect("the controllers are on");
    // The shell and the subshell are two; there is no third. `tail` keeps its last line: all of it, as
    // much as there is, here no more than 64 MiB.
    let forks = "(sleep 0 & :) 2>/dev/null;";
    let eats = "head -c 67108864 /dev/zero 2>/dev/null | tail >/dev/null";
    let script = if on("pids") { format!("echo; {forks}") } else { "echo".to_owned() };
    let (mut forker, _) = sh(&path, &Mark::new(), &script);
    end_of(&mut forker);
    let hits = leaf.usage().pids_max_hits;
    assert_eq!(hits > 0, on("pids"), "{hits}");
    if on("pids") {
        fs::write(path.join("pids.max"), "max").expect("it can be lifted");
    }
    assert_eq!(leaf.usage().oom_kills, 0);
    assert_eq!(leaf.usage().memory_peak_bytes.is_some(), path.join("memory.peak").exists());
    let (mut eater, _) = sh(&path, &Mark::new(), &format!("echo; {eats}; exit 0"));
    let survived = end_of(&mut eater).success();
    assert_eq!(survived, !on("memory"), "past its limit the whole leaf is killed");
    assert_eq!(leaf.usage().oom_kills > 0, on("memory"), "{:?}", leaf.usage());
    assert!(leaf.wait_empty(DEADLINE).expect("it can be asked"));
    leaf.remove().expect("it can be removed");
    base.close();
}

#[test]
fn a_worker_in_its_base_leaves_it_exactly_if_there_are_controllers_to_enable() {
    let Some(tree) = Tree::new() else { return };
    let available = available(&tree);
    super::base::mark_as_delegated(tree.path());
    let mut worker = Helper::start_in(tree.path(), &[], "auto");
    let on = worker.said("controllers ");
    let own = worker.said("own ");
    let (_, leaf) = worker.inhabitant();
    assert_eq!(on.split_ascii_whitespace().collect::<BTreeSet<_>>(), available);
    let is_within = read(tree.path(), "cgroup.procs") == worker.process.id().to_string();
    assert_eq!(is_within, available.is_empty(), "{own}");
    assert_eq!(own.ends_with("/self"), !available.is_empty(), "{own}");
    let itself = leaf.parent().expect("a worker's").join("self/cgroup.procs");
    assert_eq!(itself.exists(), !available.is_empty());
}

#[test]
fn a_worker_that_replaces_its_program_takes_its_base_again() {
    let Some(tree) = Tree::new() else { return };
    super::base::mark_as_delegated(tree.path());
    let mut worker = Helper::start_in(tree.path(), &[], "again");
    let (_, first) = worker.inhabitant();
    let (_, second) = worker.inhabitant();
    assert_eq!(second.ancestors().nth(2), Some(tree.path()), "{}", second.display());
    assert!(!first.parent().expect("a worker's").exists(), "it was nobody's any more");
    assert_eq!(super::children(tree.path()), [second.parent().expect("a worker's")]);
}

#[test]
fn a_worker_that_has_dropped_its_base_is_not_taken_for_a_dead_one() {
    let Some(tree) = Tree::new() else { return };
    super::base::mark_as_delegated(tree.path());
    let mut worker = Helper::start_in(tree.path(), &[], "dropped");
    worker.said("dropped ");
    open(&tree).close();
    assert!(is_alive(worker.process.id().cast_signed()));
}

#[test]
fn a_strangers_process_in_the_base_keeps_controllers_off_and_is_named() {
    let Some(tree) = Tree::new() else { return };
    let available = available(&tree);
    let (mut stranger, _) = sh(tree.path(), &Mark::new(), "echo; exec sleep 1000");
    let base = open(&tree);
    assert_eq!(base.controllers().len(), 0);
    for (name, feature) in CONTROLLERS.iter().filter(|(name, _)| available.contains(name)) {
        let why = &base.missing()[feature];
        assert!(why.contains(&format!("{} (sleep)", stranger.id())), "{name}: {why}");
    }
    assert_eq!(read(tree.path(), "cgroup.subtree_control"), "");
    stranger.kill().expect("it runs");
    end_of(&mut stranger);
    base.close();
}
