//! A comparison of policies, and properties of wishes by it.

use proptest::prelude::*;

use super::*;
use crate::task::{Identity, Seccomp, UserIds};

fn preset(preset: Preset) -> IsolationPolicy {
    IsolationPolicy::preset(preset, Some("/w".into()))
}

fn paths(list: &[&str]) -> Vec<PathBuf> {
    list.iter().map(PathBuf::from).collect()
}

/// The settings in which `policy` gives a task more than `runner` does.
fn weaker(policy: &IsolationPolicy, runner: &IsolationPolicy) -> Vec<&'static str> {
    let (ours, theirs) = (&policy.sandbox, &runner.sandbox);
    let cpu = |policy: &IsolationPolicy| policy.sandbox.cgroup.cpu_max;
    let faster =
        cpu(runner).is_some_and(|was| cpu(policy).is_none_or(|is| is.cmp_share(was).is_gt()));
    let capabilities = match (&theirs.capabilities, &ours.capabilities) {
        (Some(was), Some(is)) => !is.is_subset(was),
        (Some(_), None) => true,
        (None, _) => false,
    };
    let mut limits = theirs.rlimits.iter();
    let settings = [
        ("cgroup", lost(runner.cgroup, policy.cgroup)),
        ("memory_max", more(theirs.cgroup.memory_max, ours.cgroup.memory_max)),
        ("pids_max", more(theirs.cgroup.pids_max, ours.cgroup.pids_max)),
        ("cpu_max", faster),
        ("cpu_weight", theirs.cgroup.cpu_weight != ours.cgroup.cpu_weight),
        ("io_max", theirs.cgroup.io_max != ours.cgroup.io_max),
        ("rlimits", limits.any(|(it, was)| more(Some(*was), ours.rlimits.get(it).copied()))),
        ("umask", theirs.umask & !ours.umask != 0),
        ("nice", theirs.nice != ours.nice),
        ("oom_score_adj", ours.oom_score_adj < theirs.oom_score_adj),
        ("identity", ours.identity != theirs.identity),
        ("capabilities", capabilities),
        ("no_new_privs", lost(theirs.no_new_privs, ours.no_new_privs)),
        ("seccomp", ours.seccomp < theirs.seccomp),
        ("cwd_roots", ours.cwd_roots != theirs.cwd_roots),
        ("best_effort", !runner.required().is_subset(&policy.required())),
        ("preset", policy.preset < runner.preset),
    ];
    let found = settings.into_iter().filter(|(_, weaker)| *weaker).map(|(name, _)| name);
    found.chain(wider(ours, theirs)).chain(looser(ours, theirs)).collect()
}

fn lost(was: bool, is: bool) -> bool {
    was && !is
}

fn more(was: Option<u64>, is: Option<u64>) -> bool {
    was.is_some_and(|was| is.is_none_or(|is| is > was))
}

fn covered(paths: &[PathBuf], by: &[PathBuf]) -> bool {
    paths.iter().all(|path| by.iter().any(|by| path.starts_with(by)))
}

/// The settings of the enclosure in which `ours` shows more than `theirs`.
fn wider(ours: &Sandbox, theirs: &Sandbox) -> Vec<&'static str> {
    let (inside, outside) = (&ours.enclosure, &theirs.enclosure);
    let (spaces, before) = (inside.namespaces, outside.namespaces);
    let (mounts, shown) = (&inside.mounts, &outside.mounts);
    let writable = shown.read_only_root && !covered(&mounts.read_write, &shown.read_write);
    let settings = [
        ("pid", lost(before.pid, spaces.pid)),
        ("mount", lost(before.mount, spaces.mount)),
        ("ipc", lost(before.ipc, spaces.ipc)),
        ("uts", lost(before.uts, spaces.uts)),
        ("network", lost(before.network, spaces.network)),
        ("private_tmp", lost(shown.private_tmp, mounts.private_tmp)),
        ("private_dev_shm", lost(shown.private_dev_shm, mounts.private_dev_shm)),
        ("read_only_root", lost(shown.read_only_root, mounts.read_only_root)),
        ("mounts.read_only", !covered(&shown.read_only, &mounts.read_only)),
        ("mounts.read_write", writable),
        ("work_dir", lost(outside.work_root.is_some(), inside.work_root.is_some())),
    ];
    settings.into_iter().filter(|(_, weaker)| *weaker).map(|(name, _)| name).collect()
}

/// The settings of the Landlock domain in which `ours` lets more through than `theirs`.
fn looser(ours: &Sandbox, theirs: &Sandbox) -> Vec<&'static str> {
    let on = |sandbox: &Sandbox, wanted: fn(&Landlock) -> bool| {
        sandbox.landlock.as_ref().is_some_and(wanted)
    };
    let lost = |wanted: fn(&Landlock) -> bool| lost(on(theirs, wanted), on(ours, wanted));
    let rules = |sandbox: &Sandbox| sandbox.landlock.as_ref().and_then(|it| it.files.clone());
    let reach = match (rules(theirs), rules(ours)) {
        (Some(was), Some(is)) => {
            !covered(&readable(&is), &readable(&was)) || !covered(&is.read_write, &was.read_write)
        }
        (Some(_), None) => true,
        (None, _) => false,
    };
    let settings = [
        ("landlock", lost(|_| true)),
        ("signal_scope", lost(|it| it.signal_scope)),
        ("abstract_unix_scope", lost(|it| it.abstract_unix_scope)),
        ("sys_read_only", lost(|it| it.sys_read_only)),
        ("files", reach),
    ];
    settings.into_iter().filter(|(_, weaker)| *weaker).map(|(name, _)| name).collect()
}

#[test]
fn the_comparison_sees_each_setting() {
    let all = everything();
    let none = IsolationPolicy::default();
    let same = ["cpu_weight", "io_max", "nice", "identity", "cwd_roots"];
    assert_eq!(weaker(&none, &all).len(), 32, "{:?}", weaker(&none, &all));
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
    let rules = (any_paths(), any_paths(), any_paths());
    let rules = rules.prop_map(|(read_only, read_write, optional)| FileRules {
        read_only,
        read_write,
        optional,
    });
    let domain = (any::<[bool; 3]>(), prop::option::of(rules));
    prop::option::of(domain.prop_map(|(on, files)| {
        let [signal_scope, abstract_unix_scope, sys_read_only] = on;
        Landlock { signal_scope, abstract_unix_scope, sys_read_only, files }
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
                    hidden: Vec::new(),
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
        IsolationPolicy { preset, sandbox, cgroup, best_effort, work_root: Some("/w".into()), private: Vec::new() }
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
