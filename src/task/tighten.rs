//! A task's wishes over its runner's policy: nothing becomes weaker.
//!
//! ```text
//! runner's policy ─┬─► stricter of both, setting by setting ─► smaller of both, limit by limit ─► policy
//! wished preset ───┘                     the task's own limits ───┘        its wishes are required ─┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use super::isolation::{Feature, Host, IsolationPolicy, Resolved, Unsupported};
use super::sandbox::{
    CgroupLimits, CpuMax, Enclosure, FileRules, Landlock, Mounts, Namespaces, Rlimit, Sandbox,
};
use crate::wire::Preset;

/// What a task asks for beyond its runner's isolation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TaskIsolation {
    /// At least this preset.
    pub preset: Preset,
    /// No network but a loopback interface of its own.
    pub no_network: bool,
    /// Bytes of memory, at least [`super::MIN_MEMORY_BYTES`].
    pub memory_max: Option<u64>,
    /// Processes and threads, at least 1.
    pub pids_max: Option<u64>,
    /// CPU time.
    pub cpu_max: Option<CpuMax>,
    /// Limits of each process.
    pub rlimits: BTreeMap<Rlimit, u64>,
}

impl TaskIsolation {
    /// The features that the wishes name themselves: they are never best effort.
    fn required(&self) -> BTreeSet<Feature> {
        let cgroup = [
            (Feature::CgroupMemory, self.memory_max.is_some()),
            (Feature::CgroupPids, self.pids_max.is_some()),
            (Feature::CgroupCpu, self.cpu_max.is_some()),
        ];
        let any = cgroup.iter().any(|(_, wished)| *wished);
        let all = [(Feature::Cgroup, any), (Feature::NetworkNamespace, self.no_network)];
        let all = all.into_iter().chain(cgroup);
        all.filter(|(_, wished)| *wished).map(|(feature, _)| feature).collect()
    }
}

/// A runner's isolation on the host that it runs on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunnerIsolation {
    policy: IsolationPolicy,
    host: Arc<Host>,
    resolved: Resolved,
}

impl RunnerIsolation {
    /// Fits a policy to a host.
    ///
    /// # Errors
    /// Every required feature that the host lacks.
    pub fn new(policy: IsolationPolicy, host: Arc<Host>) -> Result<Self, Vec<Unsupported>> {
        let resolved = policy.resolve(&host)?;
        Ok(Self { policy, host, resolved })
    }

    /// The preset that the policy started from.
    pub fn preset(&self) -> Preset {
        self.policy.preset
    }

    /// What tasks get that ask for nothing, and what it lacks.
    pub fn resolved(&self) -> &Resolved {
        &self.resolved
    }

    /// What a task with these wishes gets.
    ///
    /// # Errors
    /// Every feature that it asks for and the host lacks.
    pub fn of_task(&self, wishes: Option<&TaskIsolation>) -> Result<Resolved, Vec<Unsupported>> {
        match wishes {
            None => Ok(self.resolved.clone()),
            Some(wishes) => self.policy.tighten(wishes).resolve(&self.host),
        }
    }
}

impl IsolationPolicy {
    /// The policy of a task with wishes: no setting is weaker than in `self`.
    #[must_use]
    pub fn tighten(&self, wishes: &TaskIsolation) -> Self {
        let mut policy = if wishes.preset > self.preset {
            self.with(Self::preset(wishes.preset, self.work_root.clone()))
        } else {
            self.clone()
        };
        let required = wishes.required();
        policy.best_effort.retain(|feature| !required.contains(feature));
        policy.cgroup |= required.contains(&Feature::Cgroup);
        let sandbox = &mut policy.sandbox;
        sandbox.enclosure.namespaces.network |= wishes.no_network;
        sandbox.rlimits = smaller_of_each(&sandbox.rlimits, &wishes.rlimits);
        let CgroupLimits { cpu_max, memory_max, pids_max, .. } = &mut sandbox.cgroup;
        *memory_max = smaller(*memory_max, wishes.memory_max);
        *pids_max = smaller(*pids_max, wishes.pids_max);
        *cpu_max = slower(*cpu_max, wishes.cpu_max);
        policy
    }

    /// The stricter of both in each setting.
    fn with(&self, other: Self) -> Self {
        let (ours, theirs) = (self.required(), other.required());
        let best_effort = self.best_effort.union(&other.best_effort).copied();
        let best_effort = best_effort.filter(|f| !ours.contains(f) && !theirs.contains(f));
        Self {
            preset: self.preset.max(other.preset),
            best_effort: best_effort.collect(),
            cgroup: self.cgroup || other.cgroup,
            sandbox: stricter(&self.sandbox, other.sandbox),
            work_root: self.work_root.clone(),
            private: self.private.clone(),
        }
    }

    fn required(&self) -> BTreeSet<Feature> {
        self.wanted().difference(&self.best_effort).copied().collect()
    }
}

/// A runner's sandbox, and what a preset adds to it.
fn stricter(runner: &Sandbox, preset: Sandbox) -> Sandbox {
    let capabilities = match (runner.capabilities.clone(), preset.capabilities) {
        (Some(ours), Some(theirs)) => Some(ours.intersection(&theirs).cloned().collect()),
        // The switch of the user leaves none; what a preset keeps would bring them back.
        (None, Some(_)) if runner.identity.as_ref().is_some_and(|who| !who.is_root()) => {
            Some(BTreeSet::new())
        }
        (one, None) | (None, one) => one,
    };
    let landlock = match (runner.landlock.clone(), preset.landlock) {
        (Some(ours), Some(theirs)) => Some(domain(ours, theirs)),
        (one, None) | (None, one) => one,
    };
    Sandbox {
        enclosure: enclosure(&runner.enclosure, preset.enclosure),
        // No preset limits these.
        cgroup: runner.cgroup.clone(),
        rlimits: smaller_of_each(&runner.rlimits, &preset.rlimits),
        umask: runner.umask | preset.umask,
        nice: runner.nice,
        oom_score_adj: runner.oom_score_adj.max(preset.oom_score_adj),
        identity: runner.identity.clone(),
        capabilities,
        no_new_privs: runner.no_new_privs || preset.no_new_privs,
        landlock,
        seccomp: runner.seccomp.max(preset.seccomp),
        cwd_roots: runner.cwd_roots.clone(),
    }
}

fn enclosure(runner: &Enclosure, preset: Enclosure) -> Enclosure {
    let (ours, theirs) = (runner.namespaces, preset.namespaces);
    Enclosure {
        cgroup: runner.cgroup.clone(),
        namespaces: Namespaces {
            user: ours.user || theirs.user,
            pid: ours.pid || theirs.pid,
            mount: ours.mount || theirs.mount,
            ipc: ours.ipc || theirs.ipc,
            uts: ours.uts || theirs.uts,
            network: ours.network || theirs.network,
        },
        mounts: mounts(&runner.mounts, preset.mounts),
        work_root: runner.work_root.clone().or(preset.work_root),
    }
}

fn mounts(runner: &Mounts, preset: Mounts) -> Mounts {
    let read_only: BTreeSet<PathBuf> =
        runner.read_only.iter().cloned().chain(preset.read_only).collect();
    // Exceptions: without a read-only one of its own, the runner's say nothing of the preset's.
    let read_write = match (runner.read_only_root, preset.read_only_root) {
        (true, true) => common(&runner.read_write, &preset.read_write),
        (false, true) => preset.read_write,
        (true | false, false) => runner.read_write.clone(),
    };
    Mounts {
        private_tmp: runner.private_tmp || preset.private_tmp,
        private_dev_shm: runner.private_dev_shm || preset.private_dev_shm,
        read_only_root: runner.read_only_root || preset.read_only_root,
        read_only: read_only.into_iter().collect(),
        read_write,
        // Filled in when the policy is resolved.
        hidden: Vec::new(),
    }
}

fn domain(runner: Landlock, preset: Landlock) -> Landlock {
    let files = match (runner.files, preset.files) {
        (Some(ours), Some(theirs)) => {
            let read_write = common(&ours.read_write, &theirs.read_write);
            let mut optional = common(&writable(&ours), &writable(&theirs));
            optional.retain(|path| !read_write.contains(path));
            let read_only = common(&readable(&ours), &readable(&theirs));
            Some(FileRules { read_only, read_write, optional })
        }
        (one, None) | (None, one) => one,
    };
    Landlock {
        signal_scope: runner.signal_scope || preset.signal_scope,
        abstract_unix_scope: runner.abstract_unix_scope || preset.abstract_unix_scope,
        sys_read_only: runner.sys_read_only || preset.sys_read_only,
        files,
    }
}

fn writable(rules: &FileRules) -> Vec<PathBuf> {
    rules.read_write.iter().chain(&rules.optional).cloned().collect()
}

fn readable(rules: &FileRules) -> Vec<PathBuf> {
    rules.read_only.iter().cloned().chain(writable(rules)).collect()
}

/// The paths that are in or below a path of both lists.
fn common(ours: &[PathBuf], theirs: &[PathBuf]) -> Vec<PathBuf> {
    let below = |paths: &[PathBuf], others: &[PathBuf]| {
        let inside = |path: &&PathBuf| others.iter().any(|other| path.starts_with(other));
        paths.iter().filter(inside).cloned().collect::<Vec<_>>()
    };
    let both: BTreeSet<PathBuf> =
        below(ours, theirs).into_iter().chain(below(theirs, ours)).collect();
    both.into_iter().collect()
}

fn smaller_of_each(
    ours: &BTreeMap<Rlimit, u64>,
    theirs: &BTreeMap<Rlimit, u64>,
) -> BTreeMap<Rlimit, u64> {
    let mut limits = ours.clone();
    for (limit, value) in theirs {
        limits.entry(*limit).and_modify(|ours| *ours = (*ours).min(*value)).or_insert(*value);
    }
    limits
}

fn smaller(ours: Option<u64>, theirs: Option<u64>) -> Option<u64> {
    ours.into_iter().chain(theirs).min()
}

/// The quota that gives less CPU time; the runner's if both give the same.
fn slower(ours: Option<CpuMax>, theirs: Option<CpuMax>) -> Option<CpuMax> {
    ours.into_iter().chain(theirs).min_by(|a, b| a.cmp_share(*b))
}

#[cfg(test)]
#[path = "tighten_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "tighten_properties.rs"]
mod properties;
