//! What the pages say of isolation is what the program does.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;

use runlane::config::{Config, Host};
use runlane::exec::init::denied;
use runlane::task::{Feature, IsolationPolicy, Rlimit, Seccomp};
use runlane::wire::Preset;

use super::{PAGES, quoted, read, table};

#[test]
fn configurations_on_the_pages_are_valid() {
    let mut found = 0;
    for page in PAGES {
        let text = read(page);
        for block in text.split("```").skip(1).step_by(2) {
            let Some(block) = block.strip_prefix("toml\n") else { continue };
            found += 1;
            let raw = toml::from_str(block).unwrap_or_else(|error| panic!("{page}: {error}"));
            let host =
                Host { hostname: "h".to_owned(), cores: NonZeroUsize::MIN, work_root: "/w".into() };
            Config::resolve(raw, &host).unwrap_or_else(|error| panic!("{page}: {error:?}"));
        }
    }
    assert!(found > 0, "configurations were seen");
}

#[test]
fn the_table_of_presets_is_that_of_the_program() {
    let rows = table("docs/configuration.md", "## Isolation");
    let row = |name: &str| {
        let row = rows.iter().find(|row| quoted(&row[0]).first() == Some(&name));
        row.unwrap_or_else(|| panic!("a row {name}"))[1..].to_vec()
    };
    let texts = |cell: &str| quoted(cell).into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
    let yes = |cell: &str| cell == "yes";
    for (at, preset) in [Preset::None, Preset::Standard, Preset::Strict].into_iter().enumerate() {
        let policy = IsolationPolicy::preset(preset, Some("/w".into()));
        let sandbox = &policy.sandbox;
        let best_effort = policy.best_effort.iter().map(ToString::to_string).collect();
        assert_eq!(texts(&row("best_effort")[at]), best_effort, "{preset}");
        assert_eq!(yes(&row("cgroup.leaf")[at]), policy.cgroup, "{preset}");
        let core = sandbox.rlimits.get(&Rlimit::Core).map(|core| format!("core = {core}"));
        assert_eq!(texts(&row("rlimits")[at]), core.into_iter().collect(), "{preset}");
        assert_eq!(sandbox.rlimits.keys().filter(|limit| **limit != Rlimit::Core).count(), 0);
        assert_eq!(quoted(&row("umask")[at]), [format!("{:03o}", sandbox.umask)], "{preset}");
        assert_eq!(row("oom_score_adj")[at], sandbox.oom_score_adj.to_string(), "{preset}");
        let names = |kept: &BTreeSet<String>| {
            kept.iter().map(|name| name.trim_start_matches("CAP_").to_owned()).collect()
        };
        let kept = sandbox.capabilities.as_ref().map(names);
        match row("capabilities")[at].as_str() {
            "all" => assert_eq!(kept, None, "{preset}"),
            "none" => assert_eq!(kept, Some(BTreeSet::new()), "{preset}"),
            listed => assert_eq!(kept, Some(texts(listed)), "{preset}"),
        }
        assert_eq!(yes(&row("no_new_privs")[at]), sandbox.no_new_privs, "{preset}");
        let seccomp = sandbox.seccomp.map_or("none".to_owned(), |it| format!("{it:?}"));
        assert_eq!(quoted(&row("seccomp")[at]), [seccomp.to_lowercase()], "{preset}");
        assert_eq!(row("landlock")[at].is_empty(), sandbox.landlock.is_none(), "{preset}");
        let space = sandbox.enclosure.namespaces;
        let spaces =
            [("pid", space.pid), ("mount", space.mount), ("ipc", space.ipc), ("uts", space.uts)];
        let spaces = spaces.iter().filter(|(_, new)| *new).map(|(name, _)| (*name).to_owned());
        assert_eq!(texts(&row("namespaces")[at]), spaces.collect(), "{preset}");
        assert_eq!(row("network")[at] == "`none`", space.network, "{preset}");
        let mounts = &sandbox.enclosure.mounts;
        let all = mounts.private_tmp && mounts.private_dev_shm && mounts.read_only_root;
        assert_eq!(yes(&row("private_tmp")[at]), all, "{preset}");
        assert_eq!(yes(&row("work_dir")[at]), sandbox.enclosure.work_root.is_some(), "{preset}");
    }
}

#[test]
fn every_feature_of_a_host_is_documented() {
    let rows = table("docs/configuration.md", "### `[runner.sandbox]`");
    let row = rows.iter().find(|row| row[0] == "`best_effort`").expect("the row");
    let named: BTreeSet<&str> = quoted(&row[1]).into_iter().collect();
    for feature in Feature::ALL {
        assert!(named.contains(feature.as_str()), "{feature}");
    }
}

#[test]
fn the_table_of_a_tasks_isolation_has_every_field() {
    let schema = read("schemas/task-spec.json");
    let schema: serde_json::Value = serde_json::from_str(&schema).expect("JSON");
    let fields = |name: &str| {
        let fields = schema["$defs"][name]["properties"].as_object().expect("it has fields");
        fields.keys().cloned().collect::<BTreeSet<_>>()
    };
    let rows = table("docs/protocol.md", "### Isolation");
    let named: BTreeSet<String> =
        rows.iter().flat_map(|row| quoted(&row[0])).map(str::to_owned).collect();
    assert_eq!(named, fields("IsolationSpec"));
    let row = rows.iter().find(|row| row[0] == "`rlimits`").expect("the row");
    let named: BTreeSet<String> = quoted(&row[1]).into_iter().map(str::to_owned).collect();
    assert_eq!(named, fields("RlimitSpec"));
    assert_eq!(named, Rlimit::ALL.map(|limit| limit.as_str().to_owned()).into());
}

/// The page has the table of x86_64; elsewhere some of the calls are missing.
#[test]
fn the_table_of_denied_system_calls_is_that_of_the_program() {
    let rows = table("docs/isolation.md", "## Denied system calls");
    let documented: Vec<_> = rows
        .iter()
        .flat_map(|row| {
            let rest = row[1..].join(" | ");
            quoted(&row[0]).into_iter().map(move |name| format!("{name} | {rest}"))
        })
        .collect();
    let ours = denied().map(|call| {
        let profile = format!("{:?}", call.profile).to_lowercase();
        format!("{} | `{profile}` | {} | {}", call.name, call.when, call.reason)
    });
    let (ours, named): (BTreeSet<_>, BTreeSet<_>) =
        (ours.collect(), documented.iter().cloned().collect());
    assert_eq!(named.len(), documented.len(), "a call is named twice");
    if !cfg!(target_arch = "x86_64") {
        assert!(ours.is_subset(&named), "{ours:?}");
        return;
    }
    assert_eq!(named, ours);

    let rows = table("docs/isolation.md", "## The presets");
    let row = |start: &str| rows.iter().find(|row| row[0].starts_with(start)).expect("the row");
    let count = |wanted| {
        let calls = denied().filter(|call| call.profile == wanted).map(|call| call.name);
        calls.collect::<BTreeSet<_>>().len()
    };
    let counts = row("denied system calls");
    assert!(counts[2].starts_with(&format!("[{}]", count(Seccomp::Standard))), "{counts:?}");
    assert!(counts[3].contains(&format!("and {} more", count(Seccomp::Strict))), "{counts:?}");
    let kept = IsolationPolicy::preset(Preset::Standard, None).sandbox.capabilities;
    assert_eq!(kept.expect("a list").len(), 9);
    assert!(row("capabilities of a root task")[2].starts_with("nine"));
}
