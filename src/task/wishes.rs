//! A task's wishes for isolation: JSON → [`IsolationSpec`] → [`TaskIsolation`].

use std::collections::BTreeMap;

use serde_json::Value;

use super::fields::{Object, choice, small, whole};
use super::limits::{MIN_MEMORY_BYTES, least_rlimit};
use super::path::Path;
use super::problems::Problems;
use super::sandbox::{CpuMax, Rlimit};
use super::tighten::TaskIsolation;
use crate::wire::{IsolationSpec, Network, Preset, RlimitSpec};

/// The most CPU time that can be asked for, in percent of one CPU.
const MAX_CPU_PERCENT: u32 = 1_000_000;

const PRESETS: &[(&str, Preset)] =
    &[("none", Preset::None), ("standard", Preset::Standard), ("strict", Preset::Strict)];
const NETWORKS: &[(&str, Network)] = &[("none", Network::None)];
const FIELDS: &[&str] =
    &["preset", "network", "memoryMaxBytes", "pidsMax", "cpuMaxPercent", "rlimits"];

/// Decodes the field `isolation` of a spec.
pub(super) fn read(
    value: &Value,
    path: &Path<'_>,
    problems: &mut Problems,
) -> Option<IsolationSpec> {
    let spec = Object::read(value, path, FIELDS, problems)?;
    Some(IsolationSpec {
        preset: spec.optional("preset", problems, choice(PRESETS)),
        network: spec.optional("network", problems, choice(NETWORKS)),
        memory_max_bytes: spec.optional("memoryMaxBytes", problems, whole),
        pids_max: spec.optional("pidsMax", problems, whole),
        cpu_max_percent: spec.optional("cpuMaxPercent", problems, small),
        rlimits: spec.or("rlimits", RlimitSpec::default(), problems, rlimits),
    })
}

fn rlimits(value: &Value, path: &Path<'_>, problems: &mut Problems) -> Option<RlimitSpec> {
    let names = Rlimit::ALL.map(Rlimit::as_str);
    let spec = Object::read(value, path, &names, problems)?;
    let mut limit = |limit: Rlimit| spec.optional(limit.as_str(), problems, whole);
    Some(RlimitSpec {
        address_space: limit(Rlimit::As),
        core: limit(Rlimit::Core),
        cpu: limit(Rlimit::Cpu),
        fsize: limit(Rlimit::Fsize),
        memlock: limit(Rlimit::Memlock),
        nofile: limit(Rlimit::Nofile),
        nproc: limit(Rlimit::Nproc),
        stack: limit(Rlimit::Stack),
    })
}

/// Checks decoded wishes.
pub(super) fn check(spec: &IsolationSpec, problems: &mut Problems) -> TaskIsolation {
    let root = Path::Root;
    let path = root.field("isolation");
    if let Some(bytes) = spec.memory_max_bytes.filter(|bytes| *bytes < MIN_MEMORY_BYTES) {
        let why = "below it the kernel kills a program before it has begun";
        let message = format!("is {bytes}; use at least {MIN_MEMORY_BYTES} (1 MiB): {why}");
        problems.add(path.field("memoryMaxBytes"), message);
    }
    if spec.pids_max == Some(0) {
        problems.add(path.field("pidsMax"), "is 0; use at least 1");
    }
    let percent = 1..=MAX_CPU_PERCENT;
    if let Some(found) = spec.cpu_max_percent.filter(|found| !percent.contains(found)) {
        let message = format!("is {found}; use 1 to {MAX_CPU_PERCENT}, where 100 is one CPU");
        problems.add(path.field("cpuMaxPercent"), message);
    }
    let rlimits = limits(&spec.rlimits);
    for (limit, value) in &rlimits {
        let least = least_rlimit(*limit);
        if *value < least {
            let message = format!("is {value}; use at least {least}: below it no program starts");
            problems.add(path.field("rlimits").field(limit.as_str()), message);
        }
    }
    TaskIsolation {
        preset: spec.preset.unwrap_or_default(),
        no_network: spec.network == Some(Network::None),
        memory_max: spec.memory_max_bytes,
        pids_max: spec.pids_max,
        cpu_max: spec.cpu_max_percent.map(CpuMax::of_percent),
        rlimits,
    }
}

fn limits(spec: &RlimitSpec) -> BTreeMap<Rlimit, u64> {
    let RlimitSpec { address_space, core, cpu, fsize, memlock, nofile, nproc, stack } = *spec;
    let limits = [
        (Rlimit::As, address_space),
        (Rlimit::Core, core),
        (Rlimit::Cpu, cpu),
        (Rlimit::Fsize, fsize),
        (Rlimit::Memlock, memlock),
        (Rlimit::Nofile, nofile),
        (Rlimit::Nproc, nproc),
        (Rlimit::Stack, stack),
    ];
    limits.into_iter().filter_map(|(limit, value)| Some((limit, value?))).collect()
}
