use super::*;

fn host(missing: &[Feature]) -> Host {
    let missing = missing.iter().map(|feature| (*feature, "a test".to_owned())).collect();
    Host { missing, cgroup: Some("/c".into()), needs_user_namespace: false }
}

#[test]
fn a_host_that_lacks_nothing_gets_the_whole_policy() {
    let policy = IsolationPolicy::preset(Preset::Strict, Some("/w".into()));
    let resolved = policy.resolve(&host(&[])).expect("nothing is missing");
    assert!(resolved.missing.is_empty());
    assert_eq!(resolved.sandbox.enclosure.cgroup, Some("/c".into()));
    let mut expected = policy.sandbox.clone();
    expected.enclosure.cgroup = Some("/c".into());
    assert_eq!(resolved.sandbox, expected);
}

#[test]
fn a_required_feature_that_is_missing_is_refused_and_a_best_effort_one_is_reported() {
    let mut policy = IsolationPolicy::preset(Preset::Standard, None);
    let without = host(&[Feature::Landlock, Feature::LandlockScope, Feature::Cgroup]);
    let resolved = policy.resolve(&without).expect("standard takes all three as best effort");
    assert_eq!(resolved.sandbox.landlock, None);
    assert_eq!(resolved.sandbox.enclosure.cgroup, None);
    let missing: Vec<_> = resolved.missing.into_keys().collect();
    assert_eq!(missing, [Feature::Cgroup, Feature::Landlock, Feature::LandlockScope]);

    policy.best_effort.clear();
    let refused = policy.resolve(&without).expect_err("nothing is best effort any more");
    let refused: Vec<_> = refused.iter().map(|refusal| refusal.feature).collect();
    assert_eq!(refused, [Feature::Cgroup, Feature::Landlock, Feature::LandlockScope]);
}

#[test]
fn a_reason_is_told_once_for_all_that_it_keeps_from_being_there() {
    let refused = |feature, why: &str| Unsupported { feature, why: why.to_owned() };
    let refused = [
        refused(Feature::Cgroup, "no tree"),
        refused(Feature::CgroupMemory, "no tree"),
        refused(Feature::Seccomp, "not built in"),
    ];
    assert_eq!(
        Unsupported::sentences(&refused),
        [
            "cgroup and cgroup.memory are required and this host lacks them: no tree",
            "seccomp is required and this host lacks it: not built in",
        ]
    );
}

#[test]
fn what_is_not_wanted_is_not_missed() {
    let everything = host(&Feature::ALL);
    let resolved = IsolationPolicy::default().resolve(&everything).expect("none wants nothing");
    assert_eq!(resolved, Resolved::default());
}

#[test]
fn where_namespaces_need_a_user_namespace_there_is_no_other_user() {
    let mut policy = IsolationPolicy::preset(Preset::Strict, None);
    let user = super::super::UserIds::One(1);
    policy.sandbox.identity = Some(super::super::Identity { user, gid: None, groups: Vec::new() });
    policy.resolve(&host(&[])).expect("root can have both");
    let rootless = Host { needs_user_namespace: true, ..host(&[]) };
    let refused = policy.resolve(&rootless).expect_err("not both here");
    assert_eq!(refused[0].feature, Feature::Identity);
    policy.best_effort.insert(Feature::Identity);
    let resolved = policy.resolve(&rootless).expect("it may be missing");
    assert_eq!((resolved.sandbox.identity, resolved.missing.len()), (None, 1));
    let mut plain = IsolationPolicy::preset(Preset::Standard, None);
    plain.sandbox.identity.clone_from(&policy.sandbox.identity);
    plain.resolve(&rootless).expect("without namespaces there is nothing in the way");
}

#[test]
fn each_wanted_feature_can_be_left_out() {
    let mut policy = IsolationPolicy::preset(Preset::Strict, None);
    policy.sandbox.enclosure.namespaces.network = true;
    policy.sandbox.cgroup.memory_max = Some(1);
    policy.sandbox.cgroup.pids_max = Some(1);
    policy.sandbox.cgroup.cpu_weight = Some(1);
    policy.sandbox.cgroup.io_max = vec!["8:0 rbps=1".to_owned()];
    policy.sandbox.identity = Some(super::super::Identity {
        user: super::super::UserIds::One(1),
        gid: None,
        groups: Vec::new(),
    });
    policy.best_effort = Feature::ALL.into();
    assert_eq!(policy.wanted(), Feature::ALL.into());
    for feature in Feature::ALL {
        let resolved = policy.resolve(&host(&[feature])).expect("all are best effort");
        let mut rest = policy.clone();
        rest.sandbox = resolved.sandbox;
        rest.cgroup &= feature != Feature::Cgroup;
        assert!(!rest.wanted().contains(&feature), "{feature} was not left out");
    }
}

#[test]
fn without_root_namespaces_come_with_a_user_namespace() {
    let plain = Host { needs_user_namespace: true, ..host(&[]) };
    let user = |preset| {
        let policy = IsolationPolicy::preset(preset, None);
        policy.resolve(&plain).expect("nothing is missing").sandbox.enclosure.namespaces.user
    };
    assert!(user(Preset::Strict));
    assert!(!user(Preset::Standard), "a user namespace that nothing needs");
}
