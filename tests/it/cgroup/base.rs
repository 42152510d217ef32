//! Taking over a base, and what dead workers have left in it.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Command, Stdio};

use runlane::exec::cgroup::{Base, CgroupError, CgroupSetting, Leaf};
use runlane::task::Feature;

use super::{Helper, Tree, children, end_of};
use crate::support::proc::{is_alive, until};

/// A user without any rights.
const NOBODY: u32 = 65534;

fn open(directory: &Path) -> Result<Base, CgroupError> {
    Base::open(&CgroupSetting::Directory(directory.to_owned()))
}

/// Marks a cgroup as systemd does for `Delegate=yes`.
pub(super) fn mark_as_delegated(cgroup: &Path) {
    let set = "import os, sys; os.setxattr(sys.argv[1], sys.argv[2], b'1')";
    let mut python = Command::new("python3");
    let done = python.args(["-c", set]).arg(cgroup).arg("user.delegate").status();
    assert!(done.expect("python3 can be started").success());
}

#[tokio::test]
async fn what_a_dead_worker_has_left_is_ended_and_what_a_live_one_has_is_not() {
    let Some(tree) = Tree::new() else { return };
    let what = format!("directory:{}", tree.path().display());
    let [mut dead, mut live] = [(); 2].map(|()| Helper::start(&what));
    let (orphan, stale) = dead.inhabitant();
    let (child, leaf) = live.inhabitant();
    dead.process.kill().expect("it runs");
    dead.process.wait().expect("it is a child");
    assert!(is_alive(orphan), "its worker's death has not ended it");

    let base = open(tree.path()).expect("several workers may have one base");
    assert_eq!(base.stale(), []);
    until("the orphan is gone", || !is_alive(orphan)).await;
    assert!(!stale.parent().expect("a worker's").exists());
    assert!(is_alive(child) && leaf.exists(), "a live worker's leaf is not touched");
    let mut left = children(tree.path());
    left.sort();
    let mut expected = [base.leaves().to_owned(), leaf.parent().expect("a worker's").to_owned()];
    expected.sort();
    assert_eq!(left, expected);
}

#[test]
fn workers_that_start_at_the_same_time_do_not_take_each_other_for_dead() {
    let Some(tree) = Tree::new() else { return };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..100 {
                    open(tree.path()).expect("it can be opened beside others").close();
                }
            });
        }
    });
    assert_eq!(children(tree.path()), [""; 0].map(std::path::PathBuf::from));
}

#[tokio::test]
async fn closing_a_base_ends_its_leaves_and_removes_its_directory() {
    let Some(tree) = Tree::new() else { return };
    let base = open(tree.path()).expect("it can be opened");
    let leaf = Leaf::create(base.leaves()).expect("it can be made");
    let path = base.leaves().join(leaf.name());
    let (mut leader, _) = super::sh(&path, &super::Mark::new(), "echo; exec sleep 1000");
    base.close();
    assert!(!end_of(&mut leader).success());
    assert_eq!(children(tree.path()), [""; 0].map(std::path::PathBuf::from));
}

#[test]
fn a_directory_is_made_if_it_is_missing_and_every_missing_controller_has_its_reason() {
    let Some(tree) = Tree::new() else { return };
    let directory = tree.path().join("made");
    let base = open(&directory).expect("it can be opened");
    assert!(base.leaves().starts_with(&directory));
    // Nothing was enabled in the tree, so that what is below it has no controller on any host.
    assert_eq!(base.controllers().len(), 0);
    let features =
        [Feature::CgroupCpu, Feature::CgroupIo, Feature::CgroupMemory, Feature::CgroupPids];
    assert!(base.missing().keys().copied().eq(features), "{:?}", base.missing());
    base.close();
}

#[test]
fn what_is_no_cgroup_or_the_root_of_all_is_refused() {
    let Some(tree) = Tree::new() else { return };
    let elsewhere = tempfile::tempdir().expect("a directory can be made");
    let refused = open(elsewhere.path()).expect_err("it is no cgroup");
    assert!(matches!(refused, CgroupError::NotCgroup2 { .. }), "{refused}");
    assert_eq!(refused.missing().len(), 5);
    let root = tree.path().parent().expect("a mount");
    if !root.join("cgroup.type").exists() {
        assert_eq!(open(root).expect_err("it is the root"), CgroupError::Root);
    }
    let refused = open(&tree.path().join("missing/child")).expect_err("its parent is missing");
    assert!(refused.to_string().ends_with("no such file or directory"), "{refused}");
}

#[test]
fn a_worker_takes_over_its_own_cgroup_only_when_that_is_marked() {
    let Some(tree) = Tree::new() else { return };
    let refused = Helper::start_in(tree.path(), &[], "auto").said("refused ");
    assert!(refused.contains("is not delegated") && refused.contains("Delegate=yes"), "{refused}");
    assert_eq!(children(tree.path()).len(), 0);
    mark_as_delegated(tree.path());
    let (pid, leaf) = Helper::start_in(tree.path(), &[], "auto").inhabitant();
    assert!(pid > 0 && leaf.starts_with(tree.path()), "{}", leaf.display());
}

#[test]
fn a_worker_in_a_subgroup_of_a_marked_cgroup_takes_over_the_marked_one() {
    let Some(tree) = Tree::new() else { return };
    mark_as_delegated(tree.path());
    let own = tree.path().join("main");
    fs::create_dir(&own).expect("it can be made");
    let (_, leaf) = Helper::start_in(&own, &[], "auto").inhabitant();
    assert_eq!(leaf.ancestors().nth(2), Some(tree.path()));
    // What is a unit's own is delegated to a manager, if at all.
    let unit = tree.path().join("other.service");
    fs::create_dir(&unit).expect("it can be made");
    let refused = Helper::start_in(&unit, &[], "auto").said("refused ");
    assert!(refused.contains("other.service is not delegated"), "{refused}");
}

#[test]
fn a_plain_user_takes_over_what_it_owns() {
    let Some(tree) = Tree::new() else { return };
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let start = || Helper::start_in(tree.path(), &user, "auto");
    let refused = start().said("refused ");
    assert!(refused.contains("is not delegated"), "{refused}");
    chown(tree.path(), Some(NOBODY), Some(NOBODY)).expect("root may");
    // Its files still are root's: cgroups can be made, and no process can be put into them.
    let refused = start().said("refused ");
    assert!(refused.ends_with("permission denied"), "{refused}");
    assert_eq!(children(tree.path()).len(), 0, "nothing stays of the attempt");
    for file in ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
        chown(tree.path().join(file), Some(NOBODY), Some(NOBODY)).expect("root may");
    }
    let mut worker = start();
    let (_, leaf) = worker.inhabitant();
    assert!(leaf.starts_with(tree.path()));
}

#[test]
fn another_user_can_read_a_leaf_but_not_lock_its_workers_directory() {
    let Some(tree) = Tree::new() else { return };
    let base = open(tree.path()).expect("it can be opened");
    let leaf = Leaf::create(base.leaves()).expect("it can be made");
    let as_nobody = |program: &str, path: &Path| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", program]);
        command.arg(path).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().expect("setpriv can be started").success()
    };
    assert!(as_nobody("cat", &base.leaves().join(leaf.name()).join("cgroup.events")));
    assert!(!as_nobody("ls", base.leaves()), "who can open it can lock it");
    base.close();
}

#[test]
fn what_a_container_shows_is_told_apart() {
    let Some(tree) = Tree::new() else { return };
    mark_as_delegated(tree.path());
    let mount = tree.path().parent().expect("a mount").display().to_string();
    let directory = format!("directory:{}/made", tree.path().display());
    let own_tree = format!("umount -l {mount} && mount -t cgroup2 none {mount}");
    let cases = [
        ("-m", format!("mount -o remount,bind,ro {mount}"), "auto", "is read-only"),
        ("-m", format!("mount -o remount,bind,ro {mount}"), &directory, "is read-only"),
        ("-m", format!("umount -l {mount}"), "auto", "no cgroup2 file system is mounted"),
        ("-C", ":".to_owned(), "auto", "file system shows the worker's own cgroup /"),
        ("-Cm", own_tree.clone(), "auto", "the root of the cgroup tree is never taken over"),
    ];
    for (namespaces, script, what, expected) in cases {
        let script = format!("{script} && exec \"$@\"");
        let before = ["unshare", namespaces, "sh", "-c", &script, "sh"];
        let refused = Helper::start_in(tree.path(), &before, what).said("refused ");
        assert!(refused.contains(expected), "{refused}");
    }
    // Named, the root of a container may be taken: it is no other's.
    let script = format!("{own_tree} && exec \"$@\"");
    let before = ["unshare", "-Cm", "sh", "-c", &script, "sh"];
    let mut worker = Helper::start_in(tree.path(), &before, &format!("directory:{mount}"));
    let (_, leaf) = worker.inhabitant();
    assert_eq!(leaf.ancestors().nth(2), Some(Path::new(&mount)));
    assert_eq!(children(tree.path()).len(), 1, "it was made where the container's root is");
}
