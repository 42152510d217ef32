//! Isolation policies: the presets, what a host lacks, and what is then done about it.
//!
//! ```text
//! preset ─► overrides of the runner ─► IsolationPolicy ──resolve(host)──► Sandbox + what is missing
//!                                                               └─ or refused: required, and missing
//! ```
//!
//! A feature that the host lacks is left out only if the policy lists it as best effort; that is then
//! reported in each outcome. What a task may ask for on top is in [`super::tighten`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub use super::feature::Feature;
use super::sandbox::{FileRules, Landlock, Mounts, Namespaces, Sandbox, Seccomp};
pub use crate::wire::Preset;

/// What a host offers, found once when the worker starts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Host {
    /// What it lacks, and why or what would give it.
    pub missing: BTreeMap<Feature, String>,
    /// The delegated cgroup that leaves are made in, if there is one.
    pub cgroup: Option<PathBuf>,
    /// Whether namespaces can be made only inside of a new user namespace.
    pub needs_user_namespace: bool,
}

impl Host {
    /// Why it lacks a feature. None: it has it. Who has no cgroup has none of its controllers, and who
    /// has no Landlock has no scopes of it, whether they are listed or not.
    pub fn lacks(&self, feature: Feature) -> Option<&str> {
        let (whole, found) = match feature {
            Feature::Cgroup
            | Feature::CgroupCpu
            | Feature::CgroupIo
            | Feature::CgroupMemory
            | Feature::CgroupPids => (Feature::Cgroup, self.cgroup.is_some()),
            Feature::LandlockScope => (Feature::Landlock, true),
            Feature::Identity
            | Feature::Landlock
            | Feature::Namespaces
            | Feature::NetworkNamespace
            | Feature::PidNamespace
            | Feature::MountNamespace
            | Feature::Seccomp => (feature, true),
        };
        let known = self.missing.get(&feature).or_else(|| self.missing.get(&whole));
        let none = (!found).then_some("there is no cgroup directory that leaves can be made in");
        known.map(String::as_str).or(none)
    }

    /// Each feature as it stands in the presence record: `yes`, or `no:` and why.
    pub fn features(&self) -> BTreeMap<String, String> {
        let text = |feature| match self.lacks(feature) {
            None => "yes".to_owned(),
            Some(why) => format!("no: {why}"),
        };
        Feature::ALL.map(|feature| (feature.to_string(), text(feature))).into()
    }
}

/// What a runner wants for its tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IsolationPolicy {
    /// The preset that it started from.
    pub preset: Preset,
    /// The sandbox on a host that lacks nothing. [`super::Enclosure::cgroup`] and the user namespace are
    /// filled in by the host.
    pub sandbox: Sandbox,
    /// Whether tasks get a cgroup leaf.
    pub cgroup: bool,
    /// What may be missing.
    pub best_effort: BTreeSet<Feature>,
    /// Where private work directories can be made, also for a task that asks for one by its preset.
    pub work_root: Option<PathBuf>,
    /// Files and directories of the worker that tasks with a mount namespace don't find: what a task
    /// could read that runs as the worker's user.
    pub private: Vec<PathBuf>,
}

impl Default for IsolationPolicy {
    fn default() -> Self {
        Self::preset(Preset::None, None)
    }
}

/// A sandbox for one host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resolved {
    /// What is applied.
    pub sandbox: Sandbox,
    /// What was wanted and is not applied, and why.
    pub missing: BTreeMap<Feature, String>,
}

/// A required feature that the host lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    /// The feature.
    pub feature: Feature,
    /// Why, or what would give it.
    pub why: String,
}

impl Unsupported {
    /// A sentence for each reason, with all the features that are missing for it.
    pub fn sentences(refused: &[Self]) -> Vec<String> {
        let mut by_reason: Vec<(&str, Vec<&str>)> = Vec::new();
        for Self { feature, why } in refused {
            match by_reason.iter_mut().find(|(reason, _)| reason == why) {
                Some((_, features)) => features.push(feature.as_str()),
                None => by_reason.push((why, vec![feature.as_str()])),
            }
        }
        let sentence = |(why, features): (&str, Vec<&str>)| match features.as_slice() {
            [one] => format!("{one} is required and this host lacks it: {why}"),
            several => {
                format!("{} are required and this host lacks them: {why}", several.join(" and "))
            }
        };
        by_reason.into_iter().map(sentence).collect()
    }
}

/// What `standard` leaves a root worker's tasks: Docker's list without raw sockets, device nodes,
/// audit records, and changes of the bounding set.
const STANDARD_CAPABILITIES: [&str; 9] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETUID",
];

/// Devices that programs write to.
const WRITABLE_DEVICES: [&str; 8] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/ptmx",
    "/dev/pts",
];

/// Why there is no other user where namespaces are made inside of a user namespace.
const ONE_USER: &str = "the other namespaces need a user namespace here, in which there is only the worker's own \
                        user; run the worker with CAP_SYS_ADMIN, or go without one of them";

impl IsolationPolicy {
    /// The policy of a preset. `work_root` is where private work directories are made; without one
    /// tasks get none.
    pub fn preset(preset: Preset, work_root: Option<PathBuf>) -> Self {
        let mut sandbox = Sandbox::default();
        let mut best_effort = BTreeSet::new();
        if preset >= Preset::Standard {
            sandbox.enclosure.work_root.clone_from(&work_root);
            sandbox.rlimits.insert(super::sandbox::Rlimit::Core, 0);
            sandbox.oom_score_adj = 200;
            sandbox.capabilities = Some(STANDARD_CAPABILITIES.map(str::to_owned).into());
            sandbox.no_new_privs = true;
            sandbox.landlock =
                Some(Landlock { signal_scope: true, sys_read_only: true, ..Landlock::default() });
            sandbox.seccomp = Some(Seccomp::Standard);
            best_effort.extend([Feature::Cgroup, Feature::Landlock, Feature::LandlockScope]);
        }
        if preset >= Preset::Strict {
            make_strict(&mut sandbox);
            best_effort = BTreeSet::from([Feature::Cgroup, Feature::LandlockScope]);
        }
        let cgroup = preset >= Preset::Standard;
        Self { preset, sandbox, cgroup, best_effort, work_root, private: Vec::new() }
    }

    /// Puts work directories somewhere else; with None there are none.
    pub fn move_work_to(&mut self, root: Option<&Path>) {
        let root = root.map(Path::to_owned);
        self.sandbox.enclosure.work_root =
            self.sandbox.enclosure.work_root.as_ref().and(root.clone());
        self.work_root = root;
    }

    /// Fits the policy to a host.
    ///
    /// # Errors
    /// Every required feature that the host lacks.
    pub fn resolve(&self, host: &Host) -> Result<Resolved, Vec<Unsupported>> {
        let mut sandbox = self.sandbox.clone();
        let (mut missing, mut refused) = (BTreeMap::new(), Vec::new());
        for feature in self.wanted() {
            let Some(why) = host.lacks(feature).map(str::to_owned) else { continue };
            if self.best_effort.contains(&feature) {
                leave_out(&mut sandbox, feature);
                missing.insert(feature, why);
            } else {
                refused.push(Unsupported { feature, why });
            }
        }
        if sandbox.identity.is_some()
            && sandbox.enclosure.namespaces.any()
            && host.needs_user_namespace
        {
            let why = ONE_USER.to_owned();
            if self.best_effort.contains(&Feature::Identity) {
                leave_out(&mut sandbox, Feature::Identity);
                missing.insert(Feature::Identity, why);
            } else {
                refused.push(Unsupported { feature: Feature::Identity, why });
            }
        }
        if !refused.is_empty() {
            return Err(refused);
        }
        if self.cgroup && !missing.contains_key(&Feature::Cgroup) {
            sandbox.enclosure.cgroup.clone_from(&host.cgroup);
        }
        let namespaces = &mut sandbox.enclosure.namespaces;
        namespaces.user = namespaces.any() && host.needs_user_namespace;
        if namespaces.user {
            // Its first process has all capabilities in it; the worker has none.
            sandbox.capabilities = Some(BTreeSet::new());
        }
        if namespaces.mount {
            sandbox.enclosure.mounts.hidden.clone_from(&self.private);
        }
        let as_root = match &sandbox.identity {
            Some(identity) => identity.is_root(),
            None => host.lacks(Feature::Identity).is_none(),
        };
        if let Some(domain) = &mut sandbox.landlock
            && as_root
        {
            // Root writes cgroups' files in other ways too, and makes directories in /.
            domain.sys_read_only &= domain.files.is_some();
        }
        Ok(Resolved { sandbox, missing })
    }

    /// The features that the policy asks for.
    pub fn wanted(&self) -> BTreeSet<Feature> {
        let Sandbox { enclosure, cgroup, landlock, .. } = &self.sandbox;
        let namespaces = enclosure.namespaces;
        let controllers = cgroup.controllers();
        let scoped = |domain: &Landlock| domain.signal_scope || domain.abstract_unix_scope;
        let wanted = [
            (Feature::Cgroup, self.cgroup || !controllers.is_empty()),
            (Feature::CgroupCpu, controllers.contains("cpu")),
            (Feature::CgroupIo, controllers.contains("io")),
            (Feature::CgroupMemory, controllers.contains("memory")),
            (Feature::CgroupPids, controllers.contains("pids")),
            (Feature::Identity, self.sandbox.identity.is_some()),
            (Feature::Landlock, landlock.is_some()),
            (Feature::LandlockScope, landlock.as_ref().is_some_and(scoped)),
            (Feature::Namespaces, namespaces.ipc || namespaces.uts),
            (Feature::NetworkNamespace, namespaces.network),
            (Feature::PidNamespace, namespaces.pid),
            (Feature::MountNamespace, namespaces.mount),
            (Feature::Seccomp, self.sandbox.seccomp.is_some()),
        ];
        wanted.into_iter().filter(|(_, wanted)| *wanted).map(|(feature, _)| feature).collect()
    }
}

fn make_strict(sandbox: &mut Sandbox) {
    let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
    let mut optional = paths(&WRITABLE_DEVICES);
    optional.extend(paths(&["/tmp", "/var/tmp", "/dev/shm", "/proc"]));
    sandbox.umask = 0o077;
    sandbox.capabilities = Some(BTreeSet::new());
    sandbox.seccomp = Some(Seccomp::Strict);
    sandbox.landlock = Some(Landlock {
        signal_scope: true,
        abstract_unix_scope: true,
        sys_read_only: true,
        files: Some(FileRules { read_only: paths(&["/"]), read_write: Vec::new(), optional }),
    });
    sandbox.enclosure.namespaces =
        Namespaces { pid: true, mount: true, ipc: true, uts: true, user: false, network: false };
    sandbox.enclosure.mounts = Mounts {
        private_tmp: true,
        private_dev_shm: true,
        read_only_root: true,
        ..Mounts::default()
    };
}

/// Takes a missing feature out of a sandbox.
fn leave_out(sandbox: &mut Sandbox, feature: Feature) {
    let Sandbox { enclosure, cgroup, landlock, seccomp, identity, .. } = sandbox;
    match feature {
        Feature::Cgroup => *cgroup = Default::default(),
        Feature::CgroupCpu => (cgroup.cpu_max, cgroup.cpu_weight) = (None, None),
        Feature::CgroupIo => cgroup.io_max.clear(),
        Feature::CgroupMemory => cgroup.memory_max = None,
        Feature::CgroupPids => cgroup.pids_max = None,
        Feature::Identity => *identity = None,
        Feature::Landlock => *landlock = None,
        Feature::LandlockScope => {
            if let Some(domain) = landlock {
                domain.signal_scope = false;
                domain.abstract_unix_scope = false;
            }
        }
        Feature::Namespaces => {
            enclosure.namespaces.ipc = false;
            enclosure.namespaces.uts = false;
        }
        Feature::NetworkNamespace => enclosure.namespaces.network = false,
        Feature::PidNamespace => enclosure.namespaces.pid = false,
        Feature::MountNamespace => {
            enclosure.namespaces.mount = false;
            enclosure.mounts = Mounts::default();
        }
        Feature::Seccomp => *seccomp = None,
    }
}

#[cfg(test)]
#[path = "isolation_tests.rs"]
mod tests;
