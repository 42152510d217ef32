//! Configurations as files: the example, every wrong value, and secrets that stay secret.

use std::collections::BTreeSet;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use runlane::config::{
    Auth, CgroupBase, Config, ConfigErrors, DEFAULT_PRESET, Host, InheritEnv, RawConfig, RawNats,
    RawRunner, SecretSource,
};
use runlane::task::{
    CpuMax, Feature, Identity, IsolationPolicy, Landlock, Rlimit, RunnerIsolation, Seccomp, UserIds,
};
use runlane::wire::{Kind, Preset, Problem};

fn raw(text: &str) -> RawConfig {
    toml::from_str(text).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

fn host() -> Host {
    Host {
        hostname: "h".to_owned(),
        cores: NonZeroUsize::new(3).expect("3 is not 0"),
        work_root: "/w".into(),
    }
}

fn resolve(text: &str) -> Result<Config, Vec<Problem>> {
    Config::resolve(raw(text), &host())
}

fn good(text: &str) -> Config {
    resolve(text).unwrap_or_else(|problems| panic!("{text}\n{problems:?}"))
}

fn example() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/worker.toml");
    fs::read_to_string(path).expect("the example is there")
}

#[test]
fn the_example_shows_the_defaults() {
    assert_eq!(good(&example()), good(""));
}

/// The example with every key that it shows.
fn uncommented() -> String {
    let shown = |line: &str| match line.strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '[') => {
            format!("{rest}\n")
        }
        Some(_) | None => format!("{line}\n"),
    };
    example().lines().map(shown).collect()
}

#[test]
fn the_example_shows_every_key_and_no_other() {
    let table: toml::Table = uncommented().parse().expect("the example is TOML");
    raw(&uncommented());
    let at = |name: &str| table[name].as_table().expect("a table").clone();
    let runner = table["runner"][0].as_table().expect("a table").clone();
    let inner = |table: &toml::Table, name: &str| table[name].as_table().expect("a table").clone();
    keys::<RawConfig>(&table, "x = 1");
    keys::<RawNats>(&at("nats"), "x = 1");
    keys::<runlane::config::RawTls>(&inner(&at("nats"), "tls"), "x = 1");
    keys::<runlane::config::RawWorker>(&at("worker"), "x = 1");
    keys::<RawRunner>(&runner, "x = 1");
    let sandbox = inner(&runner, "sandbox");
    keys::<runlane::config::RawSandbox>(&sandbox, "x = 1");
    keys::<runlane::config::RawRlimits>(&inner(&sandbox, "rlimits"), "x = 1");
    keys::<runlane::config::RawCgroup>(&inner(&sandbox, "cgroup"), "x = 1");
    keys::<runlane::config::RawInterpreters>(&inner(&runner, "interpreters"), "x = 1");
    keys::<runlane::config::RawStreams>(&at("streams"), "x = 1");
    keys::<runlane::config::RawLog>(&at("log"), "x = 1");
}

/// Compares a table's keys with those that serde names when it refuses an unknown one.
fn keys<T: serde::de::DeserializeOwned + std::fmt::Debug>(table: &toml::Table, unknown: &str) {
    let error = toml::from_str::<T>(unknown).expect_err("an unknown key");
    let known: BTreeSet<String> =
        error.message().split('`').skip(3).step_by(2).map(str::to_owned).collect();
    let shown: BTreeSet<String> = table.keys().cloned().collect();
    assert_eq!(shown, known);
}

#[test]
fn without_a_file_there_is_one_runner_without_limits() {
    let config = good("");
    let [runner] = config.worker.runners.as_slice() else { panic!("one runner") };
    assert_eq!((runner.name.as_str(), runner.kind), ("default", Kind::Subprocess));
    assert_eq!((runner.max_timeout, &runner.inherit_env), (None, &InheritEnv::None));
    assert_eq!(config.worker.capacity.get(), 3);
    assert_eq!(config.worker.labels["hostname"], "h");
    assert_eq!(config.nats.servers, ["nats://127.0.0.1:4222"]);
    assert_eq!((config.nats.auth, config.metrics), (Auth::None, None));
    assert_eq!(config.worker.lease, Duration::from_secs(30));
}

#[test]
fn every_wrong_value_is_reported_at_once() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/invalid");
    let read = |name: &str| fs::read_to_string(data.join(name)).expect("the file is there");
    let problems = resolve(&read("worker.toml")).expect_err("everything is wrong");
    let found: BTreeSet<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    let wanted = read("worker.paths");
    assert_eq!(found, wanted.lines().collect());
}

#[test]
fn a_context_brings_its_own_servers() {
    assert!(good("nats = { context = 'prod' }").nats.servers.is_empty());
    let both = good("nats = { context = 'prod', servers = ['h'] }");
    assert_eq!(both.nats.servers, ["nats://h"]);
}

#[test]
fn no_secret_is_printed() {
    for text in [
        "nats = { user = 'u', password = 'hunter2' }",
        "nats = { token = 'hunter2' }",
        "nats = { servers = ['nats://u:hunter2@h:4222'] }",
        "nats = { servers = ['nats://hunter2@h'] }",
    ] {
        let config = good(text);
        assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
        assert_ne!(config.nats.auth, Auth::None);
    }
    for text in [
        "nats = { password = 'hunter2' }",
        "nats = { servers = ['x://u:hunter2@h'] }",
        "nats = { servers = ['nats://u:hunter2@'] }",
    ] {
        let problems = resolve(text).expect_err("it is wrong");
        assert!(!format!("{problems:?}").contains("hunter2"), "{problems:?}");
    }
    for text in ["nats = { token = 'hunter2' }", "nats = { servers = ['nats://u:hunter2@h'] }"] {
        let shown = format!("{:?}", raw(text));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn a_login_in_a_url_is_taken_out_of_it() {
    let config = good("nats = { servers = ['nats://a%40b:p%3Aw@h:1,tls://h:2', 'h3'] }");
    assert_eq!(config.nats.servers, ["nats://h:1", "tls://h:2", "nats://h3"]);
    let Auth::UserPassword { user, password: SecretSource::Inline(password) } = config.nats.auth
    else {
        panic!("a user and a password")
    };
    assert_eq!((user.as_str(), password.expose()), ("a@b", "p:w"));
}

#[test]
fn a_file_with_a_mistake_is_refused_with_its_place_but_not_its_text() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("worker.toml");
    let load = |text: &str| {
        fs::write(&path, text).expect("the file can be written");
        Config::load(Some(&path), RawConfig::default())
    };
    for (text, place) in [
        ("[nats]\ntoken = 'hunter2' nonsense\n", ":2:"),
        ("[worker]\ncapcity = 3\n", ":2:1: unknown field `capcity`"),
        ("[worker]\ncapacity = 'many'\n", ":2:12: "),
    ] {
        let error = load(text).expect_err("a mistake").to_string();
        assert!(error.contains(place), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    let flags = RawConfig { namespace: Some("flag".to_owned()), ..RawConfig::default() };
    fs::write(&path, "namespace = 'file'\n[worker]\nlease = '9s'\n").expect("it can be written");
    let config = Config::load(Some(&path), flags).expect("it is good");
    assert_eq!(config.namespace.as_str(), "flag");
    assert_eq!(config.worker.lease, Duration::from_secs(9));
    let absent = Config::load(Some(&folder.path().join("absent")), RawConfig::default());
    assert!(matches!(absent, Err(ConfigErrors::Read { .. })), "{absent:?}");
}

#[test]
fn the_route_table_has_the_labels_that_selectors_see() {
    let config = good(
        "[worker]\nlabels = { zone = 'a', os = 'mine' }\n[[runner]]\nname = 'r'\nlabels = { zone = 'b' }",
    );
    let table = config.worker.route_table();
    let labels = &table.entries()[0].labels;
    for (key, value) in [("os", "mine"), ("hostname", "h"), ("zone", "b"), ("runner-name", "r")] {
        assert_eq!(labels[key], value, "{key}");
    }
    assert!(labels.contains_key("arch"));
}

#[test]
fn a_policy_never_inherits_the_workers_credentials() {
    let vars = || {
        ["LANG", "HOME", "NATS_PASSWORD", "RUNLANE_TOKEN"]
            .map(|name| (name.to_owned(), "x".to_owned()))
    };
    for (inherit, wanted) in
        [("'none'", vec![]), ("'all'", vec!["HOME", "LANG"]), ("['LANG', 'TZ']", vec!["LANG"])]
    {
        let config = good(&format!("[[runner]]\nname = 'r'\ninherit_env = {inherit}"));
        let policy = config.worker.runners[0].policy(vars(), RunnerIsolation::default());
        assert_eq!(policy.inherited.keys().collect::<Vec<_>>(), wanted, "{inherit}");
    }
}

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

#[test]
fn each_setting_overrides_its_preset_and_nothing_else() {
    type Change = fn(&mut IsolationPolicy);
    let cases: &[(&str, &str, Change)] = &[
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
        ("none", "user = 1000", |it| it.sandbox.identity = Some(one(1000, None, &[]))),
        ("none", "user = 'root'\ngroups = ['root', 9]", |it| {
            it.sandbox.identity = Some(one(0, Some(0), &[0, 9]));
        }),
        ("none", "user = 'root'\ngroup = 7", |it| it.sandbox.identity = Some(one(0, Some(7), &[]))),
        ("none", "uid_pool = '20000-20002'", |it| {
            let user = UserIds::Pool { first: 20_000, count: 3 };
            it.sandbox.identity = Some(Identity { user, ..one(0, None, &[]) });
        }),
        ("none", "user = 1\nrlimits = { nproc = 9 }", |it| {
            it.sandbox.identity = Some(one(1, None, &[]));
            it.sandbox.rlimits.insert(Rlimit::Nproc, 9);
        }),
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
    ];
    for (name, settings, change) in cases {
        let wanted = {
            let runner = good(&format!("[[runner]]\nname = 'r'\nisolation = '{name}'"));
            let mut policy = runner.worker.runners[0].isolation.clone();
            change(&mut policy);
            policy
        };
        let found = policy(&format!("isolation = '{name}'\n[runner.sandbox]\n{settings}"));
        assert_eq!(found, wanted, "{name}: {settings}");
    }
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
        (rules.read_only, rules.read_write, mounts.read_write)
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
fn a_private_tmp_must_not_hide_the_work_directories() {
    let with = |root: &str| {
        let worker = format!("worker = {{ work_root = '{root}' }}");
        resolve(&format!("{worker}\n[[runner]]\nname = 'r'\nisolation = 'strict'"))
    };
    assert!(with("/srv/work").is_ok());
    let problems = with("/tmp/work").expect_err("hidden by the private /tmp");
    assert_eq!(problems[0].path, "runner[0].sandbox.private_tmp");
    assert!(problems[0].message.contains("worker.work_root"), "{problems:?}");
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
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/invalid/worker.toml");
    let text = fs::read_to_string(data).expect("the file is there");
    let problems = resolve(&text).expect_err("everything is wrong");
    for problem in problems.iter().filter(|problem| problem.path.contains("sandbox")) {
        let told = [
            "use ", "write ", "set ", "add ", "remove ", "make ", "keep ", "begin ", "start ",
            "known: ", "needs ",
        ];
        assert!(told.iter().any(|word| problem.message.contains(word)), "{problem}");
    }
}
