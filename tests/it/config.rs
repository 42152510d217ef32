//! Configurations as files: the example, every wrong value, and secrets that stay secret.

use std::collections::BTreeSet;
use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;

use runlane::config::{
    Auth, Config, ConfigErrors, Host, InheritEnv, RawConfig, RawNats, RawRunner, SecretSource,
};
use runlane::task::RunnerIsolation;
use runlane::wire::{Kind, Problem};

mod isolation;

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

fn invalid(name: &str) -> String {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/invalid");
    fs::read_to_string(data.join(name)).expect("the file is there")
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
    let problems = resolve(&invalid("worker.toml")).expect_err("everything is wrong");
    let found: BTreeSet<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    let wanted = invalid("worker.paths");
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
