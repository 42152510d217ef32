//! Where a worker keeps what isn't configured: by systemd's variables and the XDG base directories.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where private work directories are made if nobody says where.
///
/// systemd's CACHE_DIRECTORY; for root /var/cache/runlane, because a task that runs as another user has
/// to get there, and can't through root's home; for others their cache directory. Without a home the
/// temporary directory, in a directory of the user's own.
pub(super) fn work_root(
    variable: impl Fn(&str) -> Option<OsString>,
    uid: u32,
    home: Option<PathBuf>,
    temporary: &Path,
) -> PathBuf {
    let path = |name: &str| {
        let value = variable(name).filter(|value| !value.is_empty())?;
        // systemd names several, separated by colons, if the unit does (systemd.exec(5)).
        let value = value.into_string().ok()?;
        let first = value.split(':').next().map(PathBuf::from);
        first.filter(|path| path.is_absolute())
    };
    if let Some(cache) = path("CACHE_DIRECTORY") {
        return cache.join("work");
    }
    if uid == 0 {
        return PathBuf::from("/var/cache/runlane/work");
    }
    let home = path("HOME").or(home.filter(|home| home.is_absolute()));
    let cache = path("XDG_CACHE_HOME").or_else(|| home.map(|home| home.join(".cache")));
    match cache {
        Some(cache) => cache.join("runlane/work"),
        None => temporary.join(format!("runlane-work-{uid}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_directories_are_where_the_tasks_user_can_get() {
        let (root, user) = (0, 1000);
        for (variables, uid, home, wanted) in [
            (&[("CACHE_DIRECTORY", "/c:/d"), ("HOME", "/h")][..], root, None, "/c/work"),
            (&[("CACHE_DIRECTORY", "/c"), ("XDG_CACHE_HOME", "/x")], user, None, "/c/work"),
            (&[("HOME", "/root"), ("XDG_CACHE_HOME", "/x")], root, None, "/var/cache/runlane/work"),
            (&[("XDG_CACHE_HOME", "/x"), ("HOME", "/h")], user, None, "/x/runlane/work"),
            (&[("XDG_CACHE_HOME", "x"), ("HOME", "/h")], user, None, "/h/.cache/runlane/work"),
            (&[("HOME", "/h")], user, Some("/p"), "/h/.cache/runlane/work"),
            (&[("HOME", "")], user, Some("/p"), "/p/.cache/runlane/work"),
            (&[], user, None, "/t/runlane-work-1000"),
        ] {
            let variable = |name: &str| {
                let found = variables.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| OsString::from(value))
            };
            let found = work_root(variable, uid, home.map(PathBuf::from), Path::new("/t"));
            assert_eq!(found, PathBuf::from(wanted), "{variables:?} {uid}");
        }
    }
}
