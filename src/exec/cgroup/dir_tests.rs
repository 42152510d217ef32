use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Command;

use super::*;

/// A cgroup to try things in. None, and a line that says so: there is no tree that can be written.
#[expect(clippy::print_stderr, reason = "a skip is loud")]
fn tree() -> Option<(Dir, String, PathBuf)> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").expect("/proc is mounted");
    let name = format!("test-{}", uuid::Uuid::now_v7().simple());
    let made = parse::mounts(&mountinfo).first().ok_or(Errno::ENOENT).and_then(|mount| {
        let parent = Dir::open(&mount.point)?;
        parent.make(&name, Mode::from_bits_truncate(0o755))?;
        Ok((parent, name.clone(), mount.point.join(&name)))
    });
    made.map_err(|error| eprintln!("SKIPPED tier 1: cgroups: {}", error.desc())).ok()
}

#[test]
fn without_cgroup_kill_each_process_is_killed_also_in_nested_cgroups_and_nothing_stays_frozen() {
    let Some((parent, name, path)) = tree() else { return };
    let below = path.join("a/b");
    fs::create_dir_all(&below).expect("they can be made");
    let enter = |cgroup: &Path| {
        let child = Command::new("sleep").arg("1000").spawn().expect("sleep can be started");
        fs::write(cgroup.join("cgroup.procs"), child.id().to_string())
            .expect("it can be put there");
        child
    };
    let mut children = [enter(&path), enter(&below)];
    let dir = parent.child(&name).expect("it is there");
    dir.kill_each().expect("they can be killed");
    assert!(dir.wait_empty(Duration::ZERO).expect("it can be asked"));
    for child in &mut children {
        assert_eq!(child.wait().expect("it is a child").signal(), Some(9));
    }
    assert_eq!(dir.read("cgroup.freeze").expect("it can be read"), "0\n");
    dir.kill_each().expect("an empty one too");
    drop(dir);
    parent.remove(&name).expect("it can be removed");
    assert!(!path.exists());
}
