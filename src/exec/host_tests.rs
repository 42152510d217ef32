use super::*;

fn failed(what: &str, errno: Errno) -> Result<(), Failure> {
    Err(Failure { what: what.to_owned(), errno: errno as i32 })
}

fn all(tried: &Result<(), Failure>) -> Namespaces {
    let [mount, pid, ipc_uts, network] = [(); 4].map(|()| tried.clone());
    Namespaces { mount, pid, ipc_uts, network }
}

/// Root on a current kernel.
fn capable() -> Findings {
    Findings {
        settings: settings(),
        landlock_abi: Ok(7),
        landlock: Ok(()),
        seccomp: Ok(()),
        identity: Ok(()),
        user: Ok(()),
        plain: all(&Ok(())),
        within_user: all(&Ok(())),
    }
}

/// A plain user there.
fn plain_user() -> Findings {
    let denied = failed("unshare", Errno::EPERM);
    Findings { identity: failed("setgroups", Errno::EPERM), plain: all(&denied), ..capable() }
}

fn settings() -> Settings {
    Settings {
        release: "6.1.0".to_owned(),
        max_user_namespaces: Some("95000".to_owned()),
        ..Settings::default()
    }
}

#[test]
fn root_needs_no_user_namespace_and_lacks_nothing() {
    let host = judge(&Findings { settings: Settings { root: true, ..settings() }, ..capable() });
    assert_eq!(host, Host::default());
}

#[test]
fn a_plain_user_needs_a_user_namespace_and_can_not_switch_users() {
    let host = judge(&plain_user());
    assert!(host.needs_user_namespace);
    assert_eq!(host.missing.keys().copied().collect::<Vec<_>>(), [Feature::Identity]);
}

#[test]
fn without_user_namespaces_the_reason_is_the_setting_that_forbids_them() {
    let denied = failed("unshare", Errno::EPERM);
    let no_user = Findings { user: denied.clone(), within_user: all(&denied), ..plain_user() };
    let text = |value: &str| Some(value.to_owned());
    let cases = [
        (
            Settings { max_user_namespaces: text("0"), ..settings() },
            "user.max_user_namespaces is 0",
        ),
        (
            Settings { unprivileged_userns_clone: text("0"), ..settings() },
            "kernel.unprivileged_userns_clone is 0",
        ),
        (settings(), "a container's profile denies it"),
    ];
    for (settings, expected) in cases {
        let host = judge(&Findings { settings, ..no_user.clone() });
        assert!(!host.needs_user_namespace);
        for feature in [Feature::MountNamespace, Feature::PidNamespace, Feature::NetworkNamespace] {
            assert!(host.missing[&feature].contains(expected), "{:?}", host.missing);
        }
    }
    // Ubuntu: there is a namespace, but no right in it.
    let settings = Settings { apparmor_restricts: text("1"), ..settings() };
    let ubuntu = Findings { settings, user: Ok(()), ..no_user };
    let host = judge(&ubuntu);
    let why = &host.missing[&Feature::MountNamespace];
    assert!(why.contains("apparmor_restrict_unprivileged_userns is 1"), "{why}");
}

#[test]
fn a_container_that_covers_parts_of_proc_lacks_process_id_namespaces_alone() {
    let mut findings = plain_user();
    findings.within_user.pid = failed("proc", Errno::EPERM);
    let host = judge(&findings);
    assert!(host.needs_user_namespace);
    assert!(host.missing[&Feature::PidNamespace].contains("unmasked /proc"));
    assert!(!host.missing.contains_key(&Feature::MountNamespace));
}

#[test]
fn landlock_counts_only_where_it_breaks_no_renames_and_scopes_only_where_they_are() {
    let missing = |abi: Result<i32, Errno>| {
        let abi = abi.map_err(|errno| errno as i32);
        let host = judge(&Findings { landlock_abi: abi, ..capable() });
        let why = |feature| host.missing.get(&feature).cloned().unwrap_or_default();
        (why(Feature::Landlock), why(Feature::LandlockScope))
    };
    assert_eq!(missing(Ok(6)), (String::new(), String::new()));
    assert_eq!(missing(Ok(2)), (String::new(), "needs Linux 6.12, this is 6.1.0".to_owned()));
    assert_eq!(missing(Ok(1)).0, "needs Linux 5.19, this is 6.1.0");
    assert!(missing(Err(Errno::EOPNOTSUPP)).0.contains("lsm="));
    assert!(missing(Err(Errno::ENOSYS)).1.contains("built without"));
}
