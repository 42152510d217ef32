//! Tables and properties of wishes over policies.

use proptest::prelude::*;

use super::*;
use crate::task::{Identity, Seccomp, UserIds};

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

/// The settings in which `policy` gives a task more than `runner` does.
fn weaker(policy: &IsolationPolicy, runner: &IsolationPolicy) -> Vec<&'static str> {
    let (ours, theirs) = (&policy.sandbox, &runner.sandbox);
    let (inside, outside) = (&ours.enclosure, &theirs.enclosure);
    let (spaces, before) = (inside.namespaces, outside.namespaces);
    let (mounts, shown) = (&inside.mounts, &outside.mounts);
    let lost = |was: bool, is: bool| was && !is;
    let more =
        |was: Option<u64>, is: Option<u64>| was.is_some_and(|was| is.is_none_or(|is| is > was));
    let covered = |paths: &[PathBuf], by: &[PathBuf]| {
        paths.iter().all(|path| by.iter().any(|by| path.starts_with(by)))
    };
    let domain = |wanted: fn(&Landlock) -> bool| {
        lost(
            theirs.landlock.as_ref().is_some_and(wanted),
            ours.landlock.as_ref().is_some_and(wanted),
        )
    };
    let rules = |sandbox: &Sandbox| sandbox.landlock.as_ref().and_then(|it| it.files.clone());
    let reach = match (rules(theirs), rules(ours)) {
        (Some(was), Some(is)) => {
            !covered(&readable(&is), &readable(&was)) || !covered(&is.read_write, &was.read_write)
        }
        (Some(_), None) => true,
        (None, _) => false,
    };
    let capabilities = match (&theirs.capabilities, &ours.capabilities) {
        (Some(was), Some(is)) => !is.is_subset(was),
        (Some(_), None) => true,
        (None, _) => false,
    };
    let slower_was = theirs.cgroup.cpu_max;
    let faster = slower_was
        .is_some_and(|was| ours.cgroup.cpu_max.is_none_or(|is| is.cmp_share(was).is_gt()));
    let limits = theirs.rlimits.iter();
    let required = |policy: &IsolationPolicy| policy.required();
    let found = [
        ("cgroup", lost(runner.cgroup, policy.cgroup)),
        ("pid", lost(before.pid, spaces.pid)),
        ("mount", lost(before.mount, spaces.mount)),
        ("ipc", lost(before.ipc, spaces.ipc)),
        ("uts", lost(before.uts, spaces.uts)),
        ("network", lost(before.network, spaces.network)),
        ("private_tmp", lost(shown.private_tmp, mounts.private_tmp)),
        ("private_dev_shm", lost(shown.private_dev_shm, mounts.private_dev_shm)),
        ("read_only_root", lost(shown.read_only_root, mounts.read_only_root)),
        ("mounts.read_only", !covered(&shown.read_only, &mounts.read_only)),
        (
            "mounts.read_write",
            shown.read_only_root && !covered(&mounts.read_write, &shown.read_write),
        ),
        ("work_dir", lost(outside.work_root.is_some(), inside.work_root.is_some())),
        ("memory_max", more(theirs.cgroup.memory_max, ours.cgroup.memory_max)),
        ("pids_max", more(theirs.cgroup.pids_max, ours.cgroup.pids_max)),
        ("cpu_max", faster),
        ("cpu_weight", theirs.cgroup.cpu_weight != ours.cgroup.cpu_weight),
        ("io_max", theirs.cgroup.io_max != ours.cgroup.io_max),
        (
            "rlimits",
            limits.into_iter().any(|(l, was)| more(Some(*was), ours.rlimits.get(l).copied())),
        ),
        ("umask", theirs.umask & !ours.umask != 0),
        ("nice", theirs.nice != ours.nice),
        ("oom_score_adj", ours.oom_score_adj < theirs.oom_score_adj),
        ("identity", ours.identity != theirs.identity),
        ("capabilities", capabilities),
        ("no_new_privs", lost(theirs.no_new_privs, ours.no_new_privs)),
        ("landlock", lost(theirs.landlock.is_some(), ours.landlock.is_some())),
        ("signal_scope", domain(|it| it.signal_scope)),
        ("abstract_unix_scope", domain(|it| it.abstract_unix_scope)),
        ("files", reach),
        ("seccomp", ours.seccomp < theirs.seccomp),
        ("cwd_roots", ours.cwd_roots != theirs.cwd_roots),
        ("best_effort", !required(runner).is_subset(&required(policy))),
        ("preset", policy.preset < runner.preset),
    ];
    found.into_iter().filter(|(_, weaker)| *weaker).map(|(name, _)| name).collect()
}

#[test]
fn the_comparison_sees_each_setting() {
    let all = everything();
    let none = IsolationPolicy::default();
    let same = ["cpu_weight", "io_max", "nice", "identity", "cwd_roots"];
    assert_eq!(weaker(&none, &all).len(), 31, "{:?}", weaker(&none, &all));
    assert_eq!(weaker(&all, &none), same, "what no task may change at all");
}

/// A policy that has something in each setting.
fn everything() -> IsolationPolicy {
    let mut policy = preset(Preset::Strict);
    let sandbox = &mut policy.sandbox;
    sandbox.enclosure.namespaces.network = true;
    sandbox.enclosure.mounts.read_only = paths(&["/srv"]);
    sandbox.cgroup = CgroupLimits {
        cpu_max: Some(CpuMax::of_percent(150)),
        cpu_weight: Some(10),
        memory_max: Some(1 << 30),
        pids_max: Some(100),
        io_max: vec!["8:0 rbps=1".to_owned()],
    };
    sandbox.nice = Some(5);
    sandbox.identity = Some(Identity { user: UserIds::One(7), gid: None, groups: Vec::new() });
    sandbox.cwd_roots = paths(&["/srv"]);
    policy
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

fn any_paths() -> impl Strategy<Value = Vec<PathBuf>> {
    let path = prop::sample::select(vec!["/", "/srv", "/srv/a", "/dev/null", "/tmp", "/tmp/x"]);
    prop::collection::vec(path.prop_map(PathBuf::from), 0..4)
}

fn any_preset() -> impl Strategy<Value = Preset> {
    prop::sample::select(vec![Preset::None, Preset::Standard, Preset::Strict])
}

fn any_rlimits() -> impl Strategy<Value = BTreeMap<Rlimit, u64>> {
    prop::collection::btree_map(prop::sample::select(Rlimit::ALL.to_vec()), 0..9_u64, 0..4)
}

fn any_cpu() -> impl Strategy<Value = Option<CpuMax>> {
    let quota = (1_000..9_000_u64, 1_000..9_000_u64);
    prop::option::of(quota.prop_map(|(quota_us, period_us)| CpuMax { quota_us, period_us }))
}

fn any_domain() -> impl Strategy<Value = Option<Landlock>> {
    let rules = (any_paths(), any_paths());
    let rules = rules.prop_map(|(read_only, read_write)| FileRules { read_only, read_write });
    let domain = (any::<bool>(), any::<bool>(), prop::option::of(rules));
    prop::option::of(domain.prop_map(|(signal_scope, abstract_unix_scope, files)| Landlock {
        signal_scope,
        abstract_unix_scope,
        files,
    }))
}

fn any_enclosure() -> impl Strategy<Value = Enclosure> {
    let bools = prop::array::uniform8(any::<bool>());
    (bools, any_paths(), any_paths(), any::<bool>()).prop_map(
        |(on, read_only, read_write, work)| {
            let [pid, mount, ipc, uts, network, private_tmp, private_dev_shm, read_only_root] = on;
            Enclosure {
                cgroup: None,
                namespaces: Namespaces { user: false, pid, mount, ipc, uts, network },
                mounts: Mounts {
                    private_tmp,
                    private_dev_shm,
                    read_only_root,
                    read_only,
                    read_write,
                },
                work_root: work.then(|| "/w".into()),
            }
        },
    )
}

prop_compose! {
    fn any_policy()(
        preset in any_preset(),
        enclosure in any_enclosure(),
        landlock in any_domain(),
        rlimits in any_rlimits(),
        cpu_max in any_cpu(),
        limits in prop::array::uniform2(prop::option::of(1..9_u64)),
        on in prop::array::uniform3(any::<bool>()),
        seccomp in prop::sample::select(vec![None, Some(Seccomp::Standard), Some(Seccomp::Strict)]),
        capabilities in prop::option::of(prop::collection::btree_set(
            prop::sample::select(vec!["CAP_CHOWN", "CAP_SYS_ADMIN"]).prop_map(str::to_owned), 0..3)),
        umask in 0..0o777_u32,
        oom_score_adj in -1000..1000,
        best_effort in prop::collection::btree_set(prop::sample::select(Feature::ALL.to_vec()), 0..13),
    ) -> IsolationPolicy {
        let [memory_max, pids_max] = limits;
        let [cgroup, no_new_privs, _] = on;
        let limits = CgroupLimits { cpu_max, memory_max, pids_max, ..CgroupLimits::default() };
        let sandbox = Sandbox {
            enclosure, landlock, rlimits, seccomp, capabilities, umask, oom_score_adj, no_new_privs,
            cgroup: limits, ..Sandbox::default()
        };
        IsolationPolicy { preset, sandbox, cgroup, best_effort, work_root: Some("/w".into()) }
    }
}

prop_compose! {
    fn any_wishes()(
        preset in any_preset(),
        no_network in any::<bool>(),
        limits in prop::array::uniform2(prop::option::of(1..9_u64)),
        cpu_max in any_cpu(),
        rlimits in any_rlimits(),
    ) -> TaskIsolation {
        let [memory_max, pids_max] = limits;
        TaskIsolation { preset, no_network, memory_max, pids_max, cpu_max, rlimits }
    }
}

proptest! {
    #[test]
    fn no_wish_makes_anything_weaker(runner in any_policy(), wishes in any_wishes()) {
        let policy = runner.tighten(&wishes);
        prop_assert_eq!(weaker(&policy, &runner), Vec::<&str>::new());
        prop_assert_eq!(policy.tighten(&wishes), policy, "a wish that is fulfilled changes nothing");
    }

    #[test]
    fn every_wish_is_in_the_policy(runner in any_policy(), wishes in any_wishes()) {
        let asked = IsolationPolicy {
            sandbox: Sandbox {
                rlimits: wishes.rlimits.clone(),
                cgroup: CgroupLimits {
                    memory_max: wishes.memory_max,
                    pids_max: wishes.pids_max,
                    cpu_max: wishes.cpu_max,
                    ..CgroupLimits::default()
                },
                ..Sandbox::default()
            },
            ..IsolationPolicy::default()
        };
        let policy = runner.tighten(&wishes);
        let short = weaker(&policy, &asked);
        prop_assert!(!short.iter().any(|it| {
            ["memory_max", "pids_max", "cpu_max", "rlimits"].contains(it)
        }), "{:?}", short);
        if wishes.no_network {
            prop_assert!(policy.sandbox.enclosure.namespaces.network);
        }
        if wishes.preset > runner.preset {
            prop_assert_eq!(weaker(&policy, &preset(wishes.preset)), Vec::<&str>::new());
        }
    }
}
