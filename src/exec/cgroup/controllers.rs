//! Enables controllers for leaves, and reads back which are on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use nix::errno::Errno;

use super::dir::Dir;
use super::place::Place;
use crate::task::Feature;

/// The controllers that limits need, by the kernel's names.
pub(super) const FEATURES: [(&str, Feature); 4] = [
    ("cpu", Feature::CgroupCpu),
    ("io", Feature::CgroupIo),
    ("memory", Feature::CgroupMemory),
    ("pids", Feature::CgroupPids),
];

/// The names of processes that a message has at most.
const NAMED: usize = 5;

const SUBTREE: &str = "cgroup.subtree_control";

/// Which of the controllers a cgroup has and can pass on.
pub(super) fn available(dir: &Dir) -> Result<BTreeSet<&'static str>, Errno> {
    Ok(listed(&dir.read("cgroup.controllers")?))
}

fn listed(text: &str) -> BTreeSet<&'static str> {
    let there: BTreeSet<&str> = text.split_ascii_whitespace().collect();
    FEATURES.map(|(name, _)| name).into_iter().filter(|name| there.contains(name)).collect()
}

/// A cgroup from the base down to the worker's directory, and where it is.
pub(super) type Level<'a> = (&'a Dir, &'a Path);

/// Enables every controller on each level, the upper one first. Returns which are on, and why the others
/// are not. `strangers` are processes in the base that are not this worker's.
pub(super) fn enable(
    levels: [Level<'_>; 2],
    strangers: &[i32],
    place: &Place,
) -> (BTreeSet<&'static str>, BTreeMap<Feature, String>) {
    let (mut on, mut missing) = (BTreeSet::new(), BTreeMap::new());
    for (name, feature) in FEATURES {
        match levels.iter().try_for_each(|level| enable_one(name, *level, strangers, place)) {
            Ok(()) => drop(on.insert(name)),
            Err(why) => drop(missing.insert(feature, why)),
        }
    }
    (on, missing)
}

fn enable_one(
    name: &str,
    (dir, path): Level<'_>,
    strangers: &[i32],
    place: &Place,
) -> Result<(), String> {
    let failed =
        |errno: Errno| format!("{}: {}", path.join(SUBTREE).display(), errno.desc().to_lowercase());
    let is_on = || dir.read(SUBTREE).map(|text| listed(&text).contains(name)).map_err(failed);
    if is_on()? {
        return Ok(());
    }
    if !available(dir).map_err(failed)?.contains(name) {
        return Err(unavailable(name, path, place));
    }
    // The kernel refuses some controllers then. It accepts cpu and pids, and nothing can join the
    // leaves any more.
    if !strangers.is_empty() {
        let named: Vec<String> = strangers.iter().take(NAMED).map(|pid| describe(*pid)).collect();
        return Err(format!(
            "{} has processes that are not this worker's, such as {}, and passes on no controller while it has",
            path.display(),
            named.join(", ")
        ));
    }
    dir.write(SUBTREE, &format!("+{name}")).map_err(failed)?;
    if is_on()? {
        Ok(())
    } else {
        Err(format!("{} does not show it after it was enabled", path.join(SUBTREE).display()))
    }
}

fn unavailable(name: &str, path: &Path, place: &Place) -> String {
    if place.in_version_1(name) {
        return format!(
            "this host has the {name} controller in cgroup version 1; boot it with systemd.unified_cgroup_hierarchy=1"
        );
    }
    let parent = path.parent().unwrap_or(path).join(SUBTREE);
    format!(
        "{} does not have it: {} must pass it on, and the kernel have it",
        path.join("cgroup.controllers").display(),
        parent.display()
    )
}

fn describe(pid: i32) -> String {
    match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) => format!("{pid} ({})", name.trim_end()),
        Err(_) if pid == 0 => "one of another process id namespace".to_owned(),
        Err(_) => pid.to_string(),
    }
}
