//! What the probe finds.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use runlane::exec::{Probe, probe};
use runlane::task::Feature;

use super::{AS_NOBODY, is_root, launcher};

const RUNLANE: &str = env!("CARGO_BIN_EXE_runlane");

fn found(program: &Path) -> Probe {
    probe(program, None, BTreeMap::new()).expect("the probe runs")
}

#[test]
fn this_host_is_found_to_do_what_the_other_tests_do_on_it() {
    let Probe { host, features } = found(Path::new(RUNLANE));
    for feature in [Feature::Landlock, Feature::Seccomp] {
        assert_eq!(host.missing.get(&feature), None);
    }
    assert!(features["landlock"].starts_with("ABI "), "{features:?}");
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(features["kernel"], release.trim_end());
    if is_root("what the probe finds for root") {
        assert!(!host.missing.contains_key(&Feature::Identity), "{host:?}");
    }
}

#[test]
fn what_was_found_of_cgroups_is_passed_on() {
    let missing = BTreeMap::from([(Feature::CgroupIo, "no io".to_owned())]);
    let probe = probe(Path::new(RUNLANE), Some("/here".into()), missing).unwrap();
    assert_eq!(probe.host.cgroup, Some("/here".into()));
    assert_eq!(probe.host.missing[&Feature::CgroupIo], "no io");
}

/// What is found by a probe that is started by a command.
fn found_by(command: &str) -> Probe {
    let (_directory, path) = launcher(command);
    found(&path)
}

#[test]
fn a_plain_user_can_not_switch_users_and_makes_namespaces_in_one_of_its_own() {
    if !is_root("what the probe finds for a plain user") {
        return;
    }
    let Probe { host, features } = found_by(AS_NOBODY);
    assert!(host.missing[&Feature::Identity].contains("CAP_SETUID"));
    assert!(host.needs_user_namespace || host.missing.contains_key(&Feature::MountNamespace));
    assert_ne!(features["namespaces"], "root");
}

#[test]
fn what_a_container_forbids_is_found_missing() {
    if !is_root("what the probe finds without capabilities") {
        return;
    }
    let probe = found_by("setpriv --bounding-set=-sys_admin,-setuid");
    assert!(probe.host.missing.contains_key(&Feature::Identity), "{probe:?}");
    assert!(probe.host.needs_user_namespace, "{probe:?}");
}

#[test]
fn the_setting_that_forbids_user_namespaces_is_named() {
    // In a user namespace of its own the limit is not the host's.
    let user = "unshare --user --map-user=1000 --map-group=1000 --keep-caps";
    let forbid = "echo 0 >/proc/sys/user/max_user_namespaces";
    let plain = "setpriv --ambient-caps=-all --inh-caps=-all";
    if !is_root("a host that forbids user namespaces") {
        return;
    }
    let Probe { host, .. } =
        found_by(&format!("{user} sh -c '{forbid} && exec {plain} \"$@\"' sh"));
    for feature in [Feature::MountNamespace, Feature::PidNamespace, Feature::NetworkNamespace] {
        let why = &host.missing[&feature];
        assert!(why.starts_with("user.max_user_namespaces is 0"), "{why}");
    }
}
