//! The kernel's texts, as values. Pure functions.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A mounted cgroup2 tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mount {
    /// The cgroup that the mount point shows, as in /proc/self/cgroup.
    pub(super) root: PathBuf,
    pub(super) point: PathBuf,
    pub(super) read_only: bool,
}

/// The cgroup2 mounts in the text of /proc/self/mountinfo, in its order.
pub(super) fn mounts(mountinfo: &str) -> Vec<Mount> {
    mountinfo.lines().filter_map(mount).collect()
}

/// `id parent dev root point options [tag…] - type source super-options`, says proc(5).
fn mount(line: &str) -> Option<Mount> {
    let (of_mount, of_system) = line.split_once(" - ")?;
    let mut of_system = of_system.split(' ');
    if of_system.next()? != "cgroup2" {
        return None;
    }
    let mut of_mount = of_mount.split(' ').skip(3);
    let (root, point, options) = (of_mount.next()?, of_mount.next()?, of_mount.next()?);
    let read_only = |options: &str| options.split(',').any(|option| option == "ro");
    let super_options = of_system.nth(1).unwrap_or_default();
    Some(Mount {
        root: unescape(root),
        point: unescape(point),
        read_only: read_only(options) || read_only(super_options),
    })
}

/// Space, tab, newline and backslash stand there as `\` and three octal digits.
fn unescape(field: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| byte == b'\\').map(String::from_utf8_lossy);
        let decoded = octal.and_then(|digits| u8::from_str_radix(&digits, 8).ok());
        bytes.push(decoded.unwrap_or(byte));
        rest = if decoded.is_some() { &after[3..] } else { after };
    }
    OsString::from_vec(bytes).into()
}

/// The process's own version 2 cgroup in the text of /proc/self/cgroup.
pub(super) fn own(cgroup: &str) -> Option<PathBuf> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    Some(path.strip_suffix(" (deleted)").unwrap_or(path).into())
}

/// Whether a version 1 hierarchy in the text of /proc/self/cgroup has the controller.
pub(super) fn in_version_1(cgroup: &str, controller: &str) -> bool {
    // The kernel's old name of the io controller.
    let controller = if controller == "io" { "blkio" } else { controller };
    let controllers = cgroup.lines().filter_map(|line| line.split(':').nth(1));
    controllers.flat_map(|list| list.split(',')).any(|name| name == controller)
}

/// Where a mount shows a cgroup. None: not in this mount.
pub(super) fn shown_at(mount: &Mount, cgroup: &Path) -> Option<PathBuf> {
    // `/..` is what the kernel writes for what lies outside of this process's cgroup namespace.
    let outside = |path: &Path| path.starts_with("/..");
    let below = cgroup.strip_prefix(&mount.root).ok()?;
    let shown =
        if below.as_os_str().is_empty() { mount.point.clone() } else { mount.point.join(below) };
    (!outside(&mount.root) && !outside(cgroup)).then_some(shown)
}

/// The value of a key in a flat keyed file such as `cgroup.events`, `cpu.stat` or `memory.events`.
pub(super) fn value(text: &str, key: &str) -> Option<u64> {
    let mut entries = text.lines().filter_map(|line| line.split_once(' '));
    entries.find(|(name, _)| *name == key)?.1.trim().parse().ok()
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
