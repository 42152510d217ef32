//! A preset and what is said beyond it → the policy, with every problem at its key.

use std::path::{Path, PathBuf};

use super::raw::RawSandbox;
use super::{files, identity, limits};
use crate::config::report::Report;
use crate::task::{Feature, IsolationPolicy, Rlimit, Sandbox, Seccomp};
use crate::wire::Preset;

/// The preset of a runner that names none.
pub const DEFAULT_PRESET: Preset = Preset::Standard;

/// What of the rest of the configuration a sandbox depends on.
pub(in crate::config) struct Surroundings<'a> {
    /// Where private work directories are made.
    pub(in crate::config) work_root: &'a Path,
    /// Tasks that run at once.
    pub(in crate::config) capacity: usize,
    /// The runner's own working directory.
    pub(in crate::config) cwd: Option<PathBuf>,
}

/// Resolves the isolation of the runner at `runner`, such as `runner[0]`.
pub(in crate::config) fn resolve(
    name: Option<&str>,
    mut raw: RawSandbox,
    around: &Surroundings<'_>,
    runner: &str,
    report: &mut Report,
) -> IsolationPolicy {
    let path = &format!("{runner}.sandbox");
    let preset = preset(name, &format!("{runner}.isolation"), report);
    let mut policy = IsolationPolicy::preset(preset, Some(around.work_root.to_owned()));
    best_effort(raw.best_effort.take(), &mut policy, path, report);
    let sandbox = &mut policy.sandbox;
    let rlimits =
        limits::rlimits(std::mem::take(&mut raw.rlimits), &format!("{path}.rlimits"), report);
    sandbox.rlimits.extend(rlimits);
    sandbox.identity = identity::identity(&raw, around.capacity, path, report);
    if let (Some(identity), Some(kept)) = (&sandbox.identity, &mut sandbox.capabilities)
        && !identity.is_root()
    {
        // The preset's are for root: with them another user would be root in all but name.
        kept.clear();
    }
    if let Some(names) = raw.capabilities.take() {
        let path = format!("{path}.capabilities");
        sandbox.capabilities = identity::capabilities(names, &path, report);
    }
    numbers(&raw, sandbox, path, report);
    seccomp(raw.seccomp.as_deref(), sandbox, path, report);
    files::namespaces(&raw, &mut sandbox.enclosure.namespaces, path, report);
    files::mounts(&raw, sandbox, path, report);
    files::landlock(&raw, sandbox, path, report);
    privileges(raw.no_new_privs, sandbox, path, report);
    cgroup(&raw, &mut policy, path, report);
    work_dir(&raw, &mut policy, around, path, report);
    if policy.sandbox.rlimits.contains_key(&Rlimit::Nproc) && policy.sandbox.identity.is_none() {
        let why = "counts the processes of the worker's user on the whole host, and none of root's";
        let remedy = "set `user` or `uid_pool`, or use cgroup.pids_max instead";
        report.add(format!("{path}.rlimits.nproc"), format!("{why}; {remedy}"));
    }
    policy
}

fn preset(name: Option<&str>, path: &str, report: &mut Report) -> Preset {
    match name {
        None => DEFAULT_PRESET,
        Some("none") => Preset::None,
        Some("standard") => Preset::Standard,
        Some("strict") => Preset::Strict,
        Some(other) => {
            report.add(path, format!("{other:?} is unknown; use none, standard or strict"));
            DEFAULT_PRESET
        }
    }
}

fn best_effort(
    names: Option<Vec<String>>,
    policy: &mut IsolationPolicy,
    path: &str,
    report: &mut Report,
) {
    let Some(names) = names else { return };
    policy.best_effort.clear();
    for (index, name) in names.iter().enumerate() {
        match Feature::ALL.into_iter().find(|feature| feature.as_str() == name) {
            Some(feature) => drop(policy.best_effort.insert(feature)),
            None => {
                let known = Feature::ALL.map(Feature::as_str).join(", ");
                let message = format!("{name:?} is no feature; known: {known}");
                report.add(format!("{path}.best_effort[{index}]"), message);
            }
        }
    }
}

fn numbers(raw: &RawSandbox, sandbox: &mut Sandbox, path: &str, report: &mut Report) {
    if let Some(text) = &raw.umask {
        let octal = !text.is_empty() && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
        let umask = u32::from_str_radix(text, 8).ok().filter(|umask| octal && *umask <= 0o777);
        match umask {
            Some(umask) => sandbox.umask = umask,
            None => report.add(
                format!("{path}.umask"),
                format!("{text:?} is no umask; write three octal digits, such as \"022\""),
            ),
        }
    }
    let mut within = |name: &str, value: Option<i64>, low: i32, high: i32, what: &str| {
        let value = value?;
        let found = i32::try_from(value).ok().filter(|found| (low..=high).contains(found));
        if found.is_none() {
            report
                .add(format!("{path}.{name}"), format!("is {value}; use {low} to {high} ({what})"));
        }
        found
    };
    let nice = within("nice", raw.nice, -20, 19, "first to last");
    let oom = within("oom_score_adj", raw.oom_score_adj, -1000, 1000, "never to first");
    sandbox.nice = nice.or(sandbox.nice);
    sandbox.oom_score_adj = oom.unwrap_or(sandbox.oom_score_adj);
}

fn seccomp(name: Option<&str>, sandbox: &mut Sandbox, path: &str, report: &mut Report) {
    sandbox.seccomp = match name {
        None => return,
        Some("none") => None,
        Some("standard") => Some(Seccomp::Standard),
        Some("strict") => Some(Seccomp::Strict),
        Some(other) => {
            let message = format!("{other:?} is unknown; use none, standard or strict");
            return report.add(format!("{path}.seccomp"), message);
        }
    };
}

/// A filter or a domain needs `no_new_privs`, or CAP_SYS_ADMIN in the task (seccomp(2),
/// landlock_restrict_self(2)).
fn privileges(wish: Option<bool>, sandbox: &mut Sandbox, path: &str, report: &mut Report) {
    let needs = [
        ("seccomp = \"none\"", sandbox.seccomp.is_some()),
        ("landlock = false", sandbox.landlock.is_some()),
    ];
    let needs: Vec<&str> =
        needs.into_iter().filter(|(_, needs)| *needs).map(|(off, _)| off).collect();
    let kept = sandbox.capabilities.as_ref();
    let admin = kept.is_none_or(|kept| kept.contains("CAP_SYS_ADMIN"));
    match wish {
        None => sandbox.no_new_privs |= !needs.is_empty(),
        Some(wish) => sandbox.no_new_privs = wish,
    }
    if !sandbox.no_new_privs && !needs.is_empty() && !admin {
        let why = "the kernel then takes filters only from tasks with CAP_SYS_ADMIN";
        let remedy = format!("remove it, or set {}", needs.join(" and "));
        report.add(format!("{path}.no_new_privs"), format!("is false; {why}; {remedy}"));
    }
}

fn cgroup(raw: &RawSandbox, policy: &mut IsolationPolicy, path: &str, report: &mut Report) {
    let limits = limits::cgroup(&raw.cgroup, &format!("{path}.cgroup"), report);
    let limited = !limits.controllers().is_empty();
    match raw.cgroup.leaf {
        Some(false) if limited => {
            let message = "is false, but limits are set that need the cgroup; remove one of them";
            report.add(format!("{path}.cgroup.leaf"), message);
        }
        Some(leaf) => policy.cgroup = leaf,
        None => policy.cgroup |= limited,
    }
    policy.sandbox.cgroup = limits;
}

fn work_dir(
    raw: &RawSandbox,
    policy: &mut IsolationPolicy,
    around: &Surroundings<'_>,
    path: &str,
    report: &mut Report,
) {
    let enclosure = &mut policy.sandbox.enclosure;
    if let Some(wish) = raw.work_dir {
        enclosure.work_root = wish.then(|| around.work_root.to_owned());
    }
    let roots: Vec<PathBuf> = raw.cwd_roots.clone().unwrap_or_default();
    files::absolute(raw.cwd_roots.as_deref(), &format!("{path}.cwd_roots"), report);
    let inside = |cwd: &Path| roots.iter().any(|root| cwd.starts_with(root));
    match &around.cwd {
        Some(cwd) if !roots.is_empty() && !inside(cwd) => {
            let message = format!("has not the runner's `cwd` {} in it; add it", cwd.display());
            report.add(format!("{path}.cwd_roots"), message);
        }
        None if !roots.is_empty() && enclosure.work_root.is_none() => {
            let message = "needs the runner's `cwd`, for tasks that name none: / is not in it";
            if !inside(Path::new("/")) {
                report.add(format!("{path}.cwd_roots"), message);
            }
        }
        Some(_) | None => {}
    }
    policy.sandbox.cwd_roots = roots;
}
