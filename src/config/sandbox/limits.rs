//! Limits of processes and of cgroups.

use super::raw::{RawCgroup, RawLimit, RawRlimits};
use crate::config::report::Report;
use crate::task::{
    CgroupLimits, CpuMax, MIN_MEMORY_BYTES, Rlimit, least_rlimit, parse_duration, parse_size,
};

/// The kernel's "no limit"; a task's is then the hard limit that the worker has itself.
const UNLIMITED: u64 = u64::MAX;

/// Reads the limits that are named.
pub(super) fn rlimits(raw: RawRlimits, path: &str, report: &mut Report) -> Vec<(Rlimit, u64)> {
    let RawRlimits { r#as, core, cpu, fsize, memlock, nofile, nproc, stack } = raw;
    let named = [
        (Rlimit::As, r#as),
        (Rlimit::Core, core),
        (Rlimit::Cpu, cpu),
        (Rlimit::Fsize, fsize),
        (Rlimit::Memlock, memlock),
        (Rlimit::Nofile, nofile),
        (Rlimit::Nproc, nproc),
        (Rlimit::Stack, stack),
    ];
    let mut limits = Vec::new();
    for (limit, raw) in named {
        let Some(raw) = raw else { continue };
        let path = format!("{path}.{}", limit.as_str());
        match rlimit(limit, &raw) {
            Ok(value) => limits.push((limit, value)),
            Err(why) => report.add(path, why),
        }
    }
    limits
}

fn rlimit(limit: Rlimit, raw: &RawLimit) -> Result<u64, String> {
    let value = match raw {
        RawLimit::Number(number) => *number,
        RawLimit::Text(text) if text == "unlimited" => UNLIMITED,
        RawLimit::Text(text) => match limit {
            Rlimit::As | Rlimit::Core | Rlimit::Fsize | Rlimit::Memlock | Rlimit::Stack => {
                parse_size(text).ok_or_else(|| {
                    format!("{text:?} is not a size; write it like 64KiB, or \"unlimited\"")
                })?
            }
            Rlimit::Cpu => parse_duration(text)
                .map(|time| time.as_secs() + u64::from(time.subsec_nanos() > 0))
                .map_err(|error| error.to_string())?,
            Rlimit::Nofile | Rlimit::Nproc => {
                return Err(format!("{text:?} is not a number; write a number or \"unlimited\""));
            }
        },
    };
    let least = least_rlimit(limit);
    if value < least {
        return Err(format!("is {value}; use at least {least}: below it no program starts"));
    }
    Ok(value)
}

/// Reads the limits of a cgroup.
pub(super) fn cgroup(raw: &RawCgroup, path: &str, report: &mut Report) -> CgroupLimits {
    let at = |name: &str| format!("{path}.{name}");
    let cpu_max = raw.cpu_max.as_deref().and_then(|text| {
        let found = cpu_max(text);
        found.map_err(|why| report.add(at("cpu_max"), why)).ok()
    });
    let weights = 1..=10_000;
    if let Some(weight) = raw.cpu_weight.filter(|weight| !weights.contains(weight)) {
        report.add(at("cpu_weight"), format!("is {weight}; use 1 to 10000, where 100 is usual"));
    }
    let memory_max = report.size(&at("memory_max"), raw.memory_max.as_ref());
    if let Some(bytes) = memory_max.filter(|bytes| *bytes < MIN_MEMORY_BYTES) {
        let why = "below it the kernel kills a program before it has begun";
        report.add(at("memory_max"), format!("is {bytes}; use at least 1MiB: {why}"));
    }
    if raw.pids_max == Some(0) {
        report.add(at("pids_max"), "is 0; use at least 1, or leave it out for no limit");
    }
    let io_max = raw.io_max.clone().unwrap_or_default();
    for (index, line) in io_max.iter().enumerate().filter(|(_, line)| !is_io_limit(line)) {
        let remedy = "write it as the kernel does, like \"8:0 rbps=1048576 wiops=120\"";
        report.add(format!("{path}.io_max[{index}]"), format!("{line:?} is no limit; {remedy}"));
    }
    CgroupLimits {
        cpu_max,
        cpu_weight: raw.cpu_weight.and_then(|weight| weight.try_into().ok()),
        memory_max,
        pids_max: raw.pids_max,
        io_max,
    }
}

/// `150%` of one CPU, or the kernel's `quota period` in microseconds.
fn cpu_max(text: &str) -> Result<CpuMax, String> {
    let form = || format!("{text:?} is no CPU limit; write it like \"150%\" or \"150000 100000\"");
    let number = |text: &str| text.trim().parse::<u64>().map_err(|_| form());
    let limit = match (text.strip_suffix('%'), text.split_once(' ')) {
        (Some(percent), _) => CpuMax::of_percent(number(percent)?.try_into().map_err(|_| form())?),
        (None, Some((quota, period))) => {
            CpuMax { quota_us: number(quota)?, period_us: number(period)? }
        }
        (None, None) => return Err(form()),
    };
    if limit.quota_us < 1_000 {
        return Err(format!("{text:?} is too little for the kernel; use at least 1% or 1000 µs"));
    }
    if !(1_000..=1_000_000).contains(&limit.period_us) {
        return Err(format!("{text:?} has a period out of range; use 1000 to 1000000 µs"));
    }
    Ok(limit)
}

/// Whether it is a line of `io.max`: a device and what is limited.
fn is_io_limit(line: &str) -> bool {
    let mut words = line.split(' ');
    let device = words.next().and_then(|device| device.split_once(':'));
    let number = |text: &str| text.parse::<u32>().is_ok();
    let limit = |word: &str| {
        word.split_once('=').is_some_and(|(name, value)| {
            let known = ["rbps", "wbps", "riops", "wiops"].contains(&name);
            known && (value == "max" || value.parse::<u64>().is_ok())
        })
    };
    let limits: Vec<&str> = words.collect();
    device.is_some_and(|(major, minor)| number(major) && number(minor))
        && !limits.is_empty()
        && limits.into_iter().all(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_limit_is_a_share_or_the_kernels_pair() {
        for (text, wanted) in [
            ("150%", Some((150_000, 100_000))),
            ("1%", Some((1_000, 100_000))),
            ("5000 10000", Some((5_000, 10_000))),
            ("0%", None),
            ("999 1000", None),
            ("5000 999", None),
            ("5000 1000001", None),
            ("1.5", None),
            ("150", None),
            ("-1%", None),
            ("max 100000", None),
            ("99999999999%", None),
        ] {
            let found = cpu_max(text).ok().map(|limit| (limit.quota_us, limit.period_us));
            assert_eq!(found, wanted, "{text}");
        }
    }

    #[test]
    fn each_limit_is_read_in_its_unit() {
        let text = |text: &str| RawLimit::Text(text.to_owned());
        for (limit, raw, wanted) in [
            (Rlimit::Fsize, text("10GiB"), Some(10 << 30)),
            (Rlimit::Core, RawLimit::Number(0), Some(0)),
            (Rlimit::Cpu, text("1h"), Some(3600)),
            (Rlimit::Cpu, text("1500ms"), Some(2)),
            (Rlimit::Cpu, text("0s"), None),
            (Rlimit::Cpu, text("1GiB"), None),
            (Rlimit::Nofile, RawLimit::Number(1024), Some(1024)),
            (Rlimit::Nofile, RawLimit::Number(15), None),
            (Rlimit::Nofile, text("1KiB"), None),
            (Rlimit::Nofile, text("unlimited"), Some(u64::MAX)),
            (Rlimit::Stack, text("64KiB"), None),
            (Rlimit::As, text("1s"), None),
        ] {
            assert_eq!(rlimit(limit, &raw).ok(), wanted, "{limit:?} {raw:?}");
        }
    }

    #[test]
    fn a_line_of_io_max_names_a_device_and_a_limit() {
        for (line, good) in [
            ("8:0 rbps=1048576 wiops=120", true),
            ("259:3 wbps=max", true),
            ("8:0", false),
            ("8 rbps=1", false),
            ("sda rbps=1", false),
            ("8:0 rbps=1MiB", false),
            ("8:0 speed=1", false),
            ("8:0 rbps=1\n9:0 rbps=1", false),
            ("", false),
        ] {
            assert_eq!(is_io_limit(line), good, "{line}");
        }
    }
}
