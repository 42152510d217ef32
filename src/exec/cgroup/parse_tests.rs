use super::*;

const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup ro,nosuid,nodev,noexec - tmpfs tmpfs ro,mode=755
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime shared:9 - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:10 - cgroup2 cgroup2 rw,nsdelegate
42 31 0:39 / /sys/fs/cgroup/blkio rw,relatime shared:11 - cgroup cgroup rw,blkio";
const HYBRID_OWN: &str = "\
12:cpu,cpuacct:/
8:blkio:/
4:memory:/user.slice
1:name=systemd:/system.slice/runlane.service
0::/system.slice/runlane.service";

/// A directory, and whether it is read-only.
type Shown = Option<(&'static str, bool)>;

/// By host: the text of mountinfo, that of /proc/self/cgroup, and where the own cgroup is shown.
const HOSTS: [(&str, &str, &str, Shown); 9] = [
    (
        "version 2 under systemd",
        "29 22 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot",
        "0::/system.slice/runlane.service",
        Some(("/sys/fs/cgroup/system.slice/runlane.service", false)),
    ),
    (
        "a user's service",
        "29 22 0:26 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate",
        "0::/user.slice/user-1000.slice/user@1000.service/app.slice/runlane.service",
        Some((
            "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/app.slice/runlane.service",
            false,
        )),
    ),
    (
        "both versions",
        HYBRID,
        HYBRID_OWN,
        Some(("/sys/fs/cgroup/unified/system.slice/runlane.service", false)),
    ),
    (
        "Docker with a cgroup namespace",
        "1089 1088 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate,memory_recursiveprot",
        "0::/",
        Some(("/sys/fs/cgroup", true)),
    ),
    (
        "Docker in the host's cgroup namespace, the whole tree mounted",
        "1089 1088 0:26 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate",
        "0::/system.slice/docker-0f3c.scope",
        Some(("/sys/fs/cgroup/system.slice/docker-0f3c.scope", true)),
    ),
    (
        "Docker in the host's cgroup namespace, its part mounted",
        "812 811 0:26 /system.slice/docker-0f3c.scope /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime master:4 - cgroup2 cgroup2 rw",
        "0::/system.slice/docker-0f3c.scope",
        Some(("/sys/fs/cgroup", true)),
    ),
    (
        "Kubernetes, a cgroup below the container's",
        "2011 2010 0:26 /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-ab.scope /sys/fs/cgroup rw,nosuid master:9 - cgroup2 cgroup rw",
        "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1.slice/cri-containerd-ab.scope/main",
        Some(("/sys/fs/cgroup/main", false)),
    ),
    (
        "a mount of the outer cgroup namespace",
        "29 22 0:26 /../../.. /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw",
        "0::/",
        None,
    ),
    (
        "a process that was moved out of its cgroup namespace",
        "29 22 0:26 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw",
        "0::/../other",
        None,
    ),
];

#[test]
fn the_own_cgroup_is_found_on_every_kind_of_host() {
    for (host, mountinfo, cgroup, expected) in HOSTS {
        let own = own(cgroup).unwrap_or_else(|| panic!("{host}: it has a cgroup"));
        let [mount] = &mounts(mountinfo)[..] else { panic!("{host}: one mount is of version 2") };
        let shown = shown_at(mount, &own).map(|path| (path, mount.read_only));
        assert_eq!(shown, expected.map(|(path, read_only)| (path.into(), read_only)), "{host}");
    }
}

#[test]
fn a_host_with_version_1_only_has_neither_mount_nor_cgroup() {
    assert_eq!(mounts("42 31 0:39 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio"), []);
    assert_eq!(own("4:memory:/user.slice\n1:name=systemd:/init.scope\n"), None);
}

#[test]
fn a_mount_is_read_only_by_its_own_or_its_file_systems_options() {
    let mount = |own: &str, of_system: &str| {
        mounts(&format!("1 2 0:26 / /cg {own} - cgroup2 none {of_system}"))[0].read_only
    };
    assert!(!mount("rw,relatime", "rw"));
    assert!(mount("ro", "rw"));
    assert!(mount("rw", "nsdelegate,ro"));
    assert!(!mount("rw,nosuid", "rw,errors=ro2"));
}

#[test]
fn odd_characters_of_a_path_are_decoded() {
    let [mount] = &mounts(r"1 2 0:26 /a\134b /mnt/c\040d\011 rw - cgroup2 none rw")[..] else {
        panic!("it is a mount");
    };
    assert_eq!(mount.root, Path::new(r"/a\b"));
    assert_eq!(mount.point, Path::new("/mnt/c d\t"));
    assert_eq!(unescape(r"end\04"), Path::new(r"end\04"), "what is no code stays");
}

#[test]
fn lines_that_are_no_mounts_are_passed_over() {
    for line in ["", "-", " - ", "1 2 3", "1 2 0:26 / - cgroup2", "1 2 0:26 / /cg - cgroup2 x rw"] {
        assert_eq!(mounts(line), [], "{line:?}");
    }
}

#[test]
fn a_removed_cgroup_keeps_its_name() {
    assert_eq!(own("0::/a b:c (deleted)\n"), Some("/a b:c".into()));
}

#[test]
fn version_1_has_the_controllers_of_its_lists() {
    for (controller, expected) in
        [("cpu", true), ("io", true), ("memory", true), ("pids", false), ("systemd", false)]
    {
        assert_eq!(in_version_1(HYBRID_OWN, controller), expected, "{controller}");
    }
    assert!(!in_version_1("0::/cpu", "cpu"));
}

#[test]
fn values_are_found_by_their_whole_key() {
    let events = "populated 1\nfrozen 0\n";
    let cpu = "usage_usec 5400\nuser_usec 4000\nsystem_usec 1400\nnice_usec 0\n";
    let memory = "low 0\nhigh 0\nmax 12\noom 2\noom_kill 3\noom_group_kill 1\nsock_throttled 0\n";
    for (text, key, expected) in [
        (events, "populated", Some(1)),
        (events, "frozen", Some(0)),
        (cpu, "user_usec", Some(4000)),
        (cpu, "system_usec", Some(1400)),
        (cpu, "usec", None),
        (memory, "oom", Some(2)),
        (memory, "oom_kill", Some(3)),
        (memory, "oom_group_kill", Some(1)),
        ("max 7\n", "max", Some(7)),
        ("max max\n", "max", None),
        ("", "max", None),
    ] {
        assert_eq!(value(text, key), expected, "{key}");
    }
}
