//! Runners' isolation: presets, and each setting over them.

use std::path::PathBuf;

use runlane::config::{CgroupBase, DEFAULT_PRESET};
use runlane::task::{
    CpuMax, Feature, Identity, IsolationPolicy, Landlock, Rlimit, Seccomp, UserIds,
};
use runlane::wire::Preset;

use super::{good, invalid, resolve};

/// The isolation of the one runner with this sandbox.
fn policy(runner: &str) -> IsolationPolicy {
    let config = good(&format!("[worker]\ncapacity = 3\n[[runner]]\nname = 'r'\n{runner}"));
    config.worker.runners[0].isolation.clone()
}

fn preset(preset: Preset) -> IsolationPolicy {
    IsolationPolicy::preset(preset, Some("/w".into()))
}

fn paths(list: &[&str]) -> Vec<PathBuf> {
    list.iter().map(PathBuf::from).collect()
}

#[test]
fn a_preset_without_more_is_the_preset() {
    for (name, wanted) in
        [("none", Preset::None), ("standard", Preset::Standard), ("strict", Preset::Strict)]
    {
        assert_eq!(policy(&format!("isolation = '{name}'")), preset(wanted));
    }
    assert_eq!(policy(""), preset(DEFAULT_PRESET));
}

/// A preset, settings over it, and what they change.
type Case = (&'static str, &'static str, fn(&mut IsolationPolicy));

/// Each case changes what it says and nothing else.
fn check(cases: &[Case]) {
    for (name, settings, change) in cases {
        let mut wanted = policy(&format!("isolation = '{name}'"));
        change(&mut wanted);
        let found = policy(&format!("isolation = '{name}'\n[runner.sandbox]\n{settings}"));
        assert_eq!(found, wanted, "{name}: {settings}");
    }
}

#[test]
fn limits_override_those_of_the_preset() {
    check(&[
        ("none", "best_effort = ['landlock', 'cgroup.io']", |it| {
            it.best_effort = [Feature::Landlock, Feature::CgroupIo].into();
        }),
        ("strict", "best_effort = []", |it| it.best_effort.clear()),
        ("standard", "rlimits = { nofile = 1024, fsize = '1GiB', core = 'unlimited' }", |it| {
            let limits =
                [(Rlimit::Nofile, 1024), (Rlimit::Fsize, 1 << 30), (Rlimit::Core, u64::MAX)];
            it.sandbox.rlimits = limits.into();
        }),
        ("none", "cgroup = { memory_max = '1GiB', cpu_max = '150%' }", |it| {
            it.cgroup = true;
            it.sandbox.cgroup.memory_max = Some(1 << 30);
            it.sandbox.cgroup.cpu_max = Some(CpuMax { quota_us: 150_000, period_us: 100_000 });
        }),
        ("none", "cgroup = { pids_max = 5, cpu_weight = 7, io_max = ['8:0 rbps=1'] }", |it| {
            it.cgroup = true;
            it.sandbox.cgroup.pids_max = Some(5);
            it.sandbox.cgroup.cpu_weight = Some(7);
            it.sandbox.cgroup.io_max = vec!["8:0 rbps=1".to_owned()];
        }),
        ("standard", "cgroup = { leaf = false }", |it| it.cgroup = false),
        ("none", "cgroup = { leaf = true }", |it| it.cgroup = true),
    ]);
}

#[test]
fn identity_overrides_that_of_the_preset() {
    check(&[
        ("none", "user = 1000", |it| it.sandbox.identity = Some(one(1000, None, &[]))),
        ("none", "user = 'root'\ngroups = ['root', 9]", |it| {
            it.sandbox.identity = Some(one(0, Some(0), &[0, 9]));
        }),
        ("none", "user = 'root'\ngroup = 7", |it| it.sandbox.identity = Some(one(0, Some(7), &[]))),
        ("none", "uid_pool = '20000-20002'", |it| {
            let user = UserIds::Pool { first: 20_000, count: 3 };
            it.sandbox.identity = Some(Identity { user, ..one(0, None, &[]) });
        }),
        // The preset's capabilities are for root.
        ("standard", "user = 1000", |it| {
            it.sandbox.identity = Some(one(1000, None, &[]));
            it.sandbox.capabilities = Some([].into());
        }),
        ("standard", "user = 'root'", |it| it.sandbox.identity = Some(one(0, Some(0), &[]))),
        ("standard", "user = 1000\ncapabilities = ['chown']", |it| {
            it.sandbox.identity = Some(one(1000, None, &[]));
            it.sandbox.capabilities = Some(["CAP_CHOWN".to_owned()].into());
        }),
        ("none", "user = 1\nrlimits = { nproc = 9 }", |it| {
            it.sandbox.identity = Some(one(1, None, &[]));
            it.sandbox.rlimits.insert(Rlimit::Nproc, 9);
        }),
    ]);
}

#[test]
fn privileges_override_those_of_the_preset() {
    check(&[
        ("strict", "umask = '0022'", |it| it.sandbox.umask = 0o022),
        ("none", "nice = -20", |it| it.sandbox.nice = Some(-20)),
        ("standard", "oom_score_adj = 1000", |it| it.sandbox.oom_score_adj = 1000),
        ("standard", "capabilities = 'all'", |it| it.sandbox.capabilities = None),
        ("standard", "capabilities = 'none'", |it| it.sandbox.capabilities = Some([].into())),
        ("none", "capabilities = ['chown']", |it| {
            it.sandbox.capabilities = Some(["CAP_CHOWN".to_owned()].into());
        }),
        ("none", "no_new_privs = true", |it| it.sandbox.no_new_privs = true),
        ("standard", "no_new_privs = false\nseccomp = 'none'\nlandlock = false", |it| {
            it.sandbox.no_new_privs = false;
            (it.sandbox.seccomp, it.sandbox.landlock) = (None, None);
        }),
        ("standard", "no_new_privs = false\ncapabilities = ['sys_admin']", |it| {
            it.sandbox.no_new_privs = false;
            it.sandbox.capabilities = Some(["CAP_SYS_ADMIN".to_owned()].into());
        }),
        ("none", "seccomp = 'strict'", |it| {
            (it.sandbox.seccomp, it.sandbox.no_new_privs) = (Some(Seccomp::Strict), true);
        }),
        ("none", "landlock = true", |it| {
            it.sandbox.landlock = Some(Landlock { signal_scope: true, ..Landlock::default() });
            it.sandbox.no_new_privs = true;
        }),
    ]);
}

#[test]
fn what_is_seen_of_the_host_overrides_the_preset() {
    check(&[
        ("standard", "namespaces = ['pid', 'mount', 'ipc', 'uts']", |it| {
            let namespaces = &mut it.sandbox.enclosure.namespaces;
            (namespaces.pid, namespaces.mount) = (true, true);
            (namespaces.ipc, namespaces.uts) = (true, true);
        }),
        ("none", "network = 'none'", |it| it.sandbox.enclosure.namespaces.network = true),
        ("none", "namespaces = ['mount']\nprivate_tmp = true\nprivate_dev_shm = true", |it| {
            it.sandbox.enclosure.namespaces.mount = true;
            it.sandbox.enclosure.mounts.private_tmp = true;
            it.sandbox.enclosure.mounts.private_dev_shm = true;
        }),
        (
            "none",
            "namespaces = ['mount']\nread_only_root = true\nread_write = ['/srv']\nlandlock = false",
            |it| {
                it.sandbox.enclosure.namespaces.mount = true;
                it.sandbox.enclosure.mounts.read_only_root = true;
                it.sandbox.enclosure.mounts.read_write = paths(&["/srv"]);
            },
        ),
        ("none", "work_dir = true", |it| it.sandbox.enclosure.work_root = Some("/w".into())),
        ("standard", "work_dir = false", |it| it.sandbox.enclosure.work_root = None),
        ("standard", "cwd_roots = ['/srv']", |it| it.sandbox.cwd_roots = paths(&["/srv"])),
    ]);
}

fn one(user: u32, gid: Option<u32>, groups: &[u32]) -> Identity {
    Identity { user: UserIds::One(user), gid, groups: groups.to_vec() }
}

#[test]
fn files_that_are_named_come_on_top_of_devices_and_private_directories() {
    let files = |text: &str| {
        let sandbox = policy(text).sandbox;
        let mounts = sandbox.enclosure.mounts;
        let rules = sandbox.landlock.and_then(|domain| domain.files).expect("rules for files");
        let writable = [rules.read_write, rules.optional].concat();
        (rules.read_only, writable, mounts.read_write)
    };
    let (read_only, read_write, _) = files("[runner.sandbox]\nread_write = ['/srv']");
    assert_eq!(read_only, paths(&["/"]), "what isn't named can be read");
    assert!(read_write.contains(&"/srv".into()) && read_write.contains(&"/dev/null".into()));
    for everybodys in ["/tmp", "/var/tmp", "/dev/shm", "/proc"] {
        assert!(!read_write.contains(&everybodys.into()), "{everybodys} of the host");
    }
    let (read_only, read_write, mounts) = files(
        "isolation = 'strict'\n[runner.sandbox]\nread_only = ['/usr']\nread_write = ['/srv']",
    );
    assert_eq!(read_only, paths(&["/usr"]));
    assert!(read_write.contains(&"/srv".into()) && read_write.contains(&"/tmp".into()));
    assert_eq!(mounts, paths(&["/srv"]), "a read-only root leaves them writable");
    let (_, read_write, _) = files("isolation = 'strict'\n[runner.sandbox]\nprivate_tmp = false");
    assert!(!read_write.contains(&"/tmp".into()), "the host's /tmp");
}

#[test]
fn a_pool_of_users_is_as_large_as_the_worker() {
    let with = |pool: &str| {
        resolve(&format!(
            "worker = {{ capacity = 3 }}\n[[runner]]\nname = 'r'\nsandbox = {{ uid_pool = '{pool}' }}"
        ))
    };
    assert!(with("100-102").is_ok());
    let problems = with("100-101").expect_err("3 tasks and 2 users");
    assert_eq!(problems[0].path, "runner[0].sandbox.uid_pool");
    assert!(problems[0].message.contains("2 users for 3 tasks"), "{problems:?}");
}

#[test]
fn two_runners_share_a_pool_of_users_as_a_whole_or_not_at_all() {
    let with = |one: &str, other: &str| {
        let runner = |name: &str, pool: &str| {
            format!("[[runner]]\nname = '{name}'\nsandbox = {{ uid_pool = '{pool}' }}\n")
        };
        resolve(&format!("worker = {{ capacity = 1 }}\n{}{}", runner("a", one), runner("b", other)))
    };
    assert!(with("100-109", "100-109").is_ok());
    assert!(with("100-109", "110-119").is_ok());
    let problems = with("100-109", "109-119").expect_err("109 could be two tasks'");
    assert_eq!(problems[0].path, "runner[1].sandbox.uid_pool");
    assert!(problems[0].message.contains("runner \"a\""), "{problems:?}");
}

#[test]
fn the_place_of_cgroups_is_one_of_three() {
    let base = |text: &str| good(&format!("[worker]\n{text}")).worker.cgroup;
    assert_eq!(base(""), CgroupBase::Auto);
    assert_eq!(base("cgroup = 'auto'"), CgroupBase::Auto);
    assert_eq!(base("cgroup = 'none'"), CgroupBase::None);
    assert_eq!(base("cgroup = '/sys/fs/cgroup/x'"), CgroupBase::At("/sys/fs/cgroup/x".into()));
}

#[test]
fn every_problem_says_what_to_do() {
    let problems = resolve(&invalid("worker.toml")).expect_err("everything is wrong");
    for problem in problems.iter().filter(|problem| problem.path.contains("sandbox")) {
        let told = [
            "use ", "write ", "set ", "add ", "remove ", "make ", "keep ", "begin ", "start ",
            "known: ", "needs ",
        ];
        assert!(told.iter().any(|word| problem.message.contains(word)), "{problem}");
    }
}
