//! Tables of wishes over policies.

use super::*;
use crate::task::{Identity, UserIds};

fn host(missing: &[Feature]) -> Host {
    let missing = missing.iter().map(|feature| (*feature, "a test".to_owned())).collect();
    Host { missing, cgroup: Some("/c".into()), needs_user_namespace: false }
}

fn preset(preset: Preset) -> IsolationPolicy {
    IsolationPolicy::preset(preset, Some("/w".into()))
}

fn wish(preset: Preset) -> TaskIsolation {
    TaskIsolation { preset, ..TaskIsolation::default() }
}

fn paths(list: &[&str]) -> Vec<PathBuf> {
    list.iter().map(PathBuf::from).collect()
}

#[test]
fn a_preset_that_is_not_stricter_changes_nothing() {
    for (runner, wished) in [
        (Preset::None, Preset::None),
        (Preset::Standard, Preset::None),
        (Preset::Standard, Preset::Standard),
        (Preset::Strict, Preset::Standard),
        (Preset::Strict, Preset::Strict),
    ] {
        let runner = preset(runner);
        assert_eq!(runner.tighten(&wish(wished)), runner, "{wished}");
    }
}

#[test]
fn a_stricter_preset_over_a_plain_runner_is_that_preset() {
    for (runner, wished) in [
        (Preset::None, Preset::Standard),
        (Preset::None, Preset::Strict),
        (Preset::Standard, Preset::Strict),
    ] {
        assert_eq!(preset(runner).tighten(&wish(wished)), preset(wished), "{runner} {wished}");
    }
}

#[test]
fn of_two_limits_the_smaller_one_counts() {
    let cpu = |percent| CpuMax::of_percent(percent);
    let short = CpuMax { quota_us: 5_000, period_us: 10_000 };
    let mut runner = preset(Preset::None);
    runner.sandbox.cgroup.memory_max = Some(2 << 30);
    runner.sandbox.cgroup.cpu_max = Some(short);
    runner.sandbox.rlimits = [(Rlimit::Nofile, 64), (Rlimit::Core, 9)].into();
    for (percent, wanted) in [(49, cpu(49)), (50, short), (51, short)] {
        let wishes = TaskIsolation {
            memory_max: Some(1 << 30),
            pids_max: Some(5),
            cpu_max: Some(cpu(percent)),
            rlimits: [(Rlimit::Nofile, 128), (Rlimit::Core, 0), (Rlimit::Cpu, 60)].into(),
            ..TaskIsolation::default()
        };
        let sandbox = runner.tighten(&wishes).sandbox;
        assert_eq!(sandbox.cgroup.memory_max, Some(1 << 30));
        assert_eq!(sandbox.cgroup.pids_max, Some(5));
        assert_eq!(sandbox.cgroup.cpu_max, Some(wanted), "{percent}");
        let limits = [(Rlimit::Nofile, 64), (Rlimit::Core, 0), (Rlimit::Cpu, 60)];
        assert_eq!(sandbox.rlimits, limits.into());
    }
    let larger = TaskIsolation { memory_max: Some(3 << 30), ..TaskIsolation::default() };
    assert_eq!(runner.tighten(&larger).sandbox.cgroup.memory_max, Some(2 << 30));
}

#[test]
fn what_a_task_names_itself_is_required() {
    let memory = TaskIsolation { memory_max: Some(1 << 20), ..TaskIsolation::default() };
    let pids = TaskIsolation { pids_max: Some(1), ..TaskIsolation::default() };
    let cpu = TaskIsolation { cpu_max: Some(CpuMax::of_percent(1)), ..TaskIsolation::default() };
    let network = TaskIsolation { no_network: true, ..TaskIsolation::default() };
    for (wishes, feature) in [
        (memory, Feature::CgroupMemory),
        (pids, Feature::CgroupPids),
        (cpu, Feature::CgroupCpu),
        (network, Feature::NetworkNamespace),
    ] {
        let mut policy = preset(Preset::Standard);
        policy.best_effort = Feature::ALL.into();
        for host in [host(&[feature]), host(&Feature::ALL)] {
            let runner = RunnerIsolation::new(policy.clone(), Arc::new(host)).expect("best effort");
            let refused = runner.of_task(Some(&wishes)).expect_err("the wish can't be fulfilled");
            assert!(refused.iter().any(|it| it.feature == feature), "{feature} {refused:?}");
        }
        let fine = RunnerIsolation::new(policy, Arc::new(host(&[]))).expect("nothing is missing");
        assert!(fine.of_task(Some(&wishes)).is_ok());
        assert_eq!(fine.of_task(None).as_ref(), Ok(fine.resolved()));
    }
}

#[test]
fn a_limit_brings_the_cgroup_that_it_needs() {
    let runner = RunnerIsolation::new(preset(Preset::None), Arc::new(host(&[]))).expect("fine");
    assert_eq!(runner.resolved().sandbox.enclosure.cgroup, None);
    let wishes = TaskIsolation { pids_max: Some(9), ..TaskIsolation::default() };
    let resolved = runner.of_task(Some(&wishes)).expect("the host has all");
    assert_eq!(resolved.sandbox.enclosure.cgroup, Some("/c".into()));
    // No cgroup at all is no cgroup limits either, whatever is listed.
    let bare = RunnerIsolation::new(preset(Preset::None), Arc::default()).expect("none needs none");
    assert!(bare.of_task(Some(&wishes)).is_err());
}

#[test]
fn what_a_wished_preset_takes_as_best_effort_may_be_missing() {
    let lacking = Arc::new(host(&[Feature::Cgroup, Feature::Landlock]));
    let runner = RunnerIsolation::new(preset(Preset::None), Arc::clone(&lacking)).expect("none");
    let resolved = runner.of_task(Some(&wish(Preset::Standard))).expect("both are best effort");
    let missing: Vec<_> = resolved.missing.into_keys().collect();
    assert_eq!(missing, [Feature::Cgroup, Feature::Landlock, Feature::LandlockScope]);
    let refused = runner.of_task(Some(&wish(Preset::Strict))).expect_err("strict needs Landlock");
    assert_eq!(refused.iter().map(|it| it.feature).collect::<Vec<_>>(), [Feature::Landlock]);
    // What the runner requires stays required.
    let mut strict = preset(Preset::None);
    strict.cgroup = true;
    let policy = strict.tighten(&wish(Preset::Standard));
    assert!(!policy.best_effort.contains(&Feature::Cgroup));
}

#[test]
fn a_wished_preset_gives_another_user_than_root_no_capability() {
    let with = |uid| {
        let identity = Identity { user: UserIds::One(uid), gid: None, groups: Vec::new() };
        let mut runner = preset(Preset::None);
        runner.sandbox.identity = Some(identity);
        runner.tighten(&wish(Preset::Standard)).sandbox.capabilities
    };
    assert_eq!(with(1000), Some(BTreeSet::new()));
    assert_eq!(with(0), preset(Preset::Standard).sandbox.capabilities);
}

#[test]
fn paths_are_those_of_both() {
    for (ours, theirs, wanted) in [
        (&["/"][..], &["/usr", "/srv/a"][..], &["/srv/a", "/usr"][..]),
        (&["/srv"], &["/srv/a", "/srvx"], &["/srv/a"]),
        (&["/a"], &["/b"], &[]),
        (&["/a", "/a/b"], &["/a/b"], &["/a/b"]),
    ] {
        let (ours, theirs, wanted) = (paths(ours), paths(theirs), paths(wanted));
        assert_eq!(common(&ours, &theirs), wanted);
        assert_eq!(common(&theirs, &ours), wanted);
    }
}
