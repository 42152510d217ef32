//! What this host can do for a sandbox, found by trying it once.
//!
//! The tries run in a program of their own, see `init::probe`; here their errors become sentences that
//! a person can act on.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::init::{WITH_REFER, WITH_SCOPES};
use super::link::PROBE_ARGUMENT;
use crate::task::{Feature, Host};

/// What the tries have found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Findings {
    pub(super) settings: Settings,
    pub(super) landlock_abi: Result<i32, i32>,
    pub(super) landlock: Result<(), Failure>,
    pub(super) seccomp: Result<(), Failure>,
    pub(super) identity: Result<(), Failure>,
    /// A user namespace.
    pub(super) user: Result<(), Failure>,
    /// The others without a user namespace.
    pub(super) plain: Namespaces,
    /// The others inside of a new user namespace.
    pub(super) within_user: Namespaces,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Namespaces {
    /// With private mounts, a tmpfs, and everything read-only.
    pub(super) mount: Result<(), Failure>,
    /// With a new /proc.
    pub(super) pid: Result<(), Failure>,
    pub(super) ipc_uts: Result<(), Failure>,
    pub(super) network: Result<(), Failure>,
}

/// What could not be done, and the system's error number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    pub(super) what: String,
    pub(super) errno: i32,
}

/// What a host offers, for the resolution of policies and for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// For [`crate::task::IsolationPolicy::resolve`].
    pub host: Host,
    /// A short text by name, for the presence record: `kernel`, `landlock`, `seccomp`, `namespaces`,
    /// `identity`.
    pub features: BTreeMap<String, String>,
}

/// Tries what this host can do; takes 10 to 50 ms and blocks. `program` is as for
/// [`super::Spawner::of_program`]; cgroups are looked for elsewhere, and what was found is passed on.
///
/// # Errors
/// The program can't be run, or isn't one that calls [`super::init::maybe_run`].
pub fn probe(
    program: &Path,
    cgroup: Option<PathBuf>,
    cgroup_missing: BTreeMap<Feature, String>,
) -> io::Result<Probe> {
    let findings = find(program)?;
    let mut host = judge(&findings);
    host.cgroup = cgroup;
    host.missing.extend(cgroup_missing);
    let features = features(&findings, &host);
    Ok(Probe { host, features })
}

fn find(program: &Path) -> io::Result<Findings> {
    let output = Command::new(program)
        .arg(PROBE_ARGUMENT)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?;
    serde_json::from_slice(&output.stdout).map_err(io::Error::from)
}

/// What the host's settings say, for the reasons.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Settings {
    release: String,
    root: bool,
    max_user_namespaces: Option<String>,
    unprivileged_userns_clone: Option<String>,
    apparmor_restricts: Option<String>,
}

impl Settings {
    pub(super) fn read() -> Self {
        let read = |path: &str| {
            let text = std::fs::read_to_string(Path::new("/proc/sys").join(path)).ok();
            text.map(|text| text.trim().to_owned())
        };
        Self {
            release: release(),
            root: nix::unistd::geteuid().is_root(),
            max_user_namespaces: read("user/max_user_namespaces"),
            unprivileged_userns_clone: read("kernel/unprivileged_userns_clone"),
            apparmor_restricts: read("kernel/apparmor_restrict_unprivileged_userns"),
        }
    }

    fn user_namespace(&self, failure: &Failure) -> String {
        let is = |value: &Option<String>, what| value.as_deref() == Some(what);
        if is(&self.max_user_namespaces, "0") {
            "user.max_user_namespaces is 0; raise it, or run the worker with CAP_SYS_ADMIN"
                .to_owned()
        } else if is(&self.unprivileged_userns_clone, "0") {
            "kernel.unprivileged_userns_clone is 0; set it to 1, or run the worker with CAP_SYS_ADMIN"
                .to_owned()
        } else if is(&self.apparmor_restricts, "1") && !self.root {
            "kernel.apparmor_restrict_unprivileged_userns is 1; give runlane an AppArmor profile with \
             `userns,`, or set it to 0"
                .to_owned()
        } else {
            let why = self.because(failure);
            format!("no user namespace: {why}")
        }
    }

    fn because(&self, failure: &Failure) -> String {
        let Failure { what, errno } = failure;
        let release = &self.release;
        let errno = Errno::from_raw(*errno);
        let reason = errno.desc().to_lowercase();
        match (what.as_str(), errno) {
            ("mount_setattr", Errno::ENOSYS) => {
                format!("needs Linux 5.12 for read-only mounts, this is {release}")
            }
            ("proc", Errno::EPERM) => {
                "a new /proc can't be mounted, because parts of this one are \
                                       covered, as containers do; allow an unmasked /proc"
                    .to_owned()
            }
            (_, Errno::ENOSPC) => {
                format!(
                    "{what}: the limit of namespaces is reached; see /proc/sys/user/max_*_namespaces"
                )
            }
            (_, Errno::ENOSYS | Errno::EINVAL) => {
                format!("{what}: this kernel, {release}, can't do it: {reason}")
            }
            (_, Errno::EPERM | Errno::EACCES) => {
                format!(
                    "{what}: {reason}; CAP_SYS_ADMIN is missing, or a container's profile denies it"
                )
            }
            _ => format!("{what}: {reason}"),
        }
    }
}

fn release() -> String {
    nix::sys::utsname::uname().map_or_else(
        |_| "unknown".to_owned(),
        |uname| uname.release().to_string_lossy().into_owned(),
    )
}

impl Namespaces {
    fn by_feature(&self) -> [(Feature, &Result<(), Failure>); 4] {
        [
            (Feature::MountNamespace, &self.mount),
            (Feature::PidNamespace, &self.pid),
            (Feature::Namespaces, &self.ipc_uts),
            (Feature::NetworkNamespace, &self.network),
        ]
    }

    fn offered(&self) -> usize {
        self.by_feature().into_iter().filter(|(_, tried)| tried.is_ok()).count()
    }
}

fn judge(findings: &Findings) -> Host {
    let settings = &findings.settings;
    let mut missing = BTreeMap::new();
    let needs_user = findings.within_user.offered() > findings.plain.offered();
    let namespaces = if needs_user { &findings.within_user } else { &findings.plain };
    for (feature, tried) in namespaces.by_feature() {
        let Err(failure) = tried else { continue };
        // As a plain user it is the user namespace that would give all the others.
        let why = match &findings.user {
            Err(user) if !settings.root => settings.user_namespace(user),
            // Ubuntu gives the namespace, and then no right in it.
            Ok(()) if !settings.root && !needs_user => {
                let within = findings.within_user.by_feature();
                let within = within.into_iter().find(|(same, _)| *same == feature);
                let within = within.and_then(|(_, tried)| tried.as_ref().err());
                settings.user_namespace(within.unwrap_or(failure))
            }
            _ => settings.because(failure),
        };
        missing.insert(feature, why);
    }
    landlock(findings, settings, &mut missing);
    if let Err(failure) = &findings.seccomp {
        missing.insert(Feature::Seccomp, settings.because(failure));
    }
    if findings.identity.is_err() {
        let why = "the worker lacks CAP_SETUID or CAP_SETGID; run it as root to switch users";
        missing.insert(Feature::Identity, why.to_owned());
    }
    Host { missing, cgroup: None, needs_user_namespace: needs_user }
}

fn landlock(findings: &Findings, settings: &Settings, missing: &mut BTreeMap<Feature, String>) {
    let release = &settings.release;
    let domain = match (findings.landlock_abi, &findings.landlock) {
        (Err(errno), _) if Errno::from_raw(errno) == Errno::EOPNOTSUPP => {
            Some("not enabled at boot; add landlock to the kernel's lsm= parameter".to_owned())
        }
        (Err(_), _) => Some(format!("this kernel, {release}, was built without it")),
        (Ok(abi), _) if abi < WITH_REFER => Some(format!("needs Linux 5.19, this is {release}")),
        (Ok(_), Err(failure)) => Some(settings.because(failure)),
        (Ok(_), Ok(())) => None,
    };
    let scope = match findings.landlock_abi {
        Ok(abi) if abi < WITH_SCOPES => Some(format!("needs Linux 6.12, this is {release}")),
        _ => domain.clone(),
    };
    let found = [(Feature::Landlock, domain), (Feature::LandlockScope, scope)];
    missing.extend(found.into_iter().filter_map(|(feature, why)| Some((feature, why?))));
}

fn features(findings: &Findings, host: &Host) -> BTreeMap<String, String> {
    let unless = |feature: Feature, text: String| match host.missing.get(&feature) {
        None => text,
        Some(why) => format!("no: {why}"),
    };
    let kind = if host.needs_user_namespace { "user" } else { "root" };
    let abi = findings.landlock_abi.unwrap_or(0);
    let features = [
        ("kernel", findings.settings.release.clone()),
        ("landlock", unless(Feature::Landlock, format!("ABI {abi}"))),
        ("seccomp", unless(Feature::Seccomp, "yes".to_owned())),
        ("namespaces", unless(Feature::MountNamespace, kind.to_owned())),
        ("identity", unless(Feature::Identity, "yes".to_owned())),
    ];
    features.map(|(name, text)| (name.to_owned(), text)).into()
}

#[cfg(test)]
#[path = "host_tests.rs"]
mod tests;
