//! What tasks see and reach of the host: namespaces, mounts, and files.

use std::path::{Path, PathBuf};

use super::raw::RawSandbox;
use crate::config::report::Report;
use crate::task::{FileRules, IsolationPolicy, Landlock, Mounts, Namespaces, Sandbox};
use crate::wire::Preset;

/// Sets the namespaces that are named. The list replaces that of the preset.
pub(super) fn namespaces(
    raw: &RawSandbox,
    namespaces: &mut Namespaces,
    path: &str,
    report: &mut Report,
) {
    if let Some(names) = &raw.namespaces {
        let network = namespaces.network;
        *namespaces = Namespaces { network, ..Namespaces::default() };
        for (index, name) in names.iter().enumerate() {
            let why = match name.as_str() {
                "pid" => {
                    namespaces.pid = true;
                    continue;
                }
                "mount" => {
                    namespaces.mount = true;
                    continue;
                }
                "ipc" => {
                    namespaces.ipc = true;
                    continue;
                }
                "uts" => {
                    namespaces.uts = true;
                    continue;
                }
                "net" | "network" => "is no name here; use the key network = \"none\"".to_owned(),
                "user" => "comes by itself where the others need it; remove it".to_owned(),
                other => format!("{other:?} is unknown; use pid, mount, ipc and uts"),
            };
            report.add(format!("{path}.namespaces[{index}]"), why);
        }
    }
    match raw.network.as_deref() {
        None => {}
        Some("host") => namespaces.network = false,
        Some("none") => namespaces.network = true,
        Some(other) => {
            report.add(
                format!("{path}.network"),
                format!("{other:?} is unknown; use \"host\" or \"none\""),
            );
        }
    }
}

/// Sets what the mount namespace shows.
pub(super) fn mounts(raw: &RawSandbox, sandbox: &mut Sandbox, path: &str, report: &mut Report) {
    let Mounts { private_tmp, private_dev_shm, read_only_root, .. } = &mut sandbox.enclosure.mounts;
    let wishes = [
        ("private_tmp", raw.private_tmp, private_tmp),
        ("private_dev_shm", raw.private_dev_shm, private_dev_shm),
        ("read_only_root", raw.read_only_root, read_only_root),
    ];
    let mut needed = Vec::new();
    for (name, wish, setting) in wishes {
        *setting = wish.unwrap_or(*setting);
        if *setting && !sandbox.enclosure.namespaces.mount {
            needed.push((name, wish));
        }
    }
    for (name, wish) in needed {
        match wish {
            Some(_) => {
                let message = "needs the mount namespace; add \"mount\" to `namespaces`";
                report.add(format!("{path}.{name}"), message);
            }
            None => {
                let message = format!(
                    "is without \"mount\", which `{name}` of the preset needs; add it, or set {name} = false"
                );
                report.add(format!("{path}.namespaces"), message);
            }
        }
    }
    if sandbox.enclosure.mounts.read_only_root {
        let writable = raw.read_write.clone().unwrap_or_default();
        if let Some(index) = writable.iter().position(|path| path == Path::new("/")) {
            let message = "contradicts read_only_root; set that to false";
            report.add(format!("{path}.read_write[{index}]"), message);
        }
        sandbox.enclosure.mounts.read_write = writable;
    }
}

/// Sets the Landlock domain and the files that it lets through.
pub(super) fn landlock(raw: &RawSandbox, sandbox: &mut Sandbox, path: &str, report: &mut Report) {
    let at = |name: &str| format!("{path}.{name}");
    for (name, paths) in [("read_only", &raw.read_only), ("read_write", &raw.read_write)] {
        absolute(paths.as_deref(), &at(name), report);
    }
    let wanted = raw.read_only.is_some() || raw.read_write.is_some();
    match raw.landlock {
        Some(false) => {
            let mounted = sandbox.enclosure.mounts.read_only_root;
            let useless = [
                ("read_only", raw.read_only.is_some()),
                ("read_write", raw.read_write.is_some() && !mounted),
            ];
            for (name, _) in useless.into_iter().filter(|(_, given)| *given) {
                report.add(at(name), "needs Landlock; remove it, or landlock = false");
            }
            sandbox.landlock = None;
            return;
        }
        Some(true) => {
            let all = Landlock { signal_scope: true, ..Landlock::default() };
            sandbox.landlock.get_or_insert(all);
        }
        None if wanted => drop(sandbox.landlock.get_or_insert_default()),
        None => {}
    }
    let mounts = sandbox.enclosure.mounts.clone();
    let Some(domain) = &mut sandbox.landlock else { return };
    if !wanted && domain.files.is_none() {
        return;
    }
    let preset = domain.files.take().map(|files| files.read_only);
    let read_only = raw.read_only.clone().or(preset).unwrap_or_else(|| vec!["/".into()]);
    let read_write = raw.read_write.iter().flatten().cloned().collect();
    domain.files = Some(FileRules { read_only, read_write, optional: always_writable(&mounts) });
}

/// What programs can write to besides their work directory and the paths that are named: as in
/// `strict`, but for directories that are everybody's here.
fn always_writable(mounts: &Mounts) -> Vec<PathBuf> {
    let strict = IsolationPolicy::preset(Preset::Strict, None).sandbox.landlock;
    let files = strict.and_then(|domain| domain.files).expect("`strict` has rules for files");
    let own = |path: &PathBuf| match path.to_str() {
        Some("/tmp" | "/var/tmp") => mounts.private_tmp,
        Some("/dev/shm") => mounts.private_dev_shm,
        Some("/proc") => mounts.read_only_root,
        Some(_) | None => true,
    };
    files.optional.into_iter().filter(own).collect()
}

/// Checks that paths are absolute and plain.
pub(super) fn absolute(paths: Option<&[PathBuf]>, path: &str, report: &mut Report) {
    for (index, folder) in paths.into_iter().flatten().enumerate() {
        let up = folder.components().any(|part| part.as_os_str() == "..");
        if !folder.is_absolute() {
            let message = format!("{folder:?} is not absolute; start it with `/`");
            report.add(format!("{path}[{index}]"), message);
        } else if up {
            report
                .add(format!("{path}[{index}]"), format!("{folder:?} has `..`; write it without"));
        }
    }
}
