//! What /proc says of processes: CPU times, children, memory.

use std::fs;
use std::time::Duration;

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::{Pid, SysconfVar, sysconf};

use super::facts::kib;

/// CPU time of a process, all its threads, also those that have ended. None: it is gone, or another
/// user's and hidden.
pub(super) fn cpu_time(pid: u32) -> Option<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid).ok()?)).ok()?;
    clock_gettime(clock).ok().map(Duration::from)
}

/// CPU time of a process, of its descendants, and of those of them that have ended.
pub(super) fn tree_cpu_time(root: u32) -> Option<Duration> {
    let each = |(pid, _)| Some(cpu_time(pid)? + reaped_cpu_time(pid)?);
    // One that ends meanwhile counts with its parent the next time.
    cpu_time(root).map(|_| tree(root).into_iter().filter_map(each).sum())
}

/// CPU time of the descendants that a process, and they, have waited for. The kernel tells it in ticks
/// of 10 ms.
fn reaped_cpu_time(pid: u32) -> Option<Duration> {
    let stat = Stat::of(pid)?;
    let ticks_per_second = sysconf(SysconfVar::CLK_TCK).ok()??;
    let ticks_per_second = u32::try_from(ticks_per_second).ok()?;
    Some(Duration::from_secs(stat.reaped_ticks) / ticks_per_second)
}

/// The children of a process with this name (`comm`), zombies not counted.
pub(super) fn children_named(parent: u32, name: &str) -> Vec<u32> {
    let is_it = |pid: &u32| {
        Stat::of(*pid).is_some_and(|stat| {
            stat.parent == parent && stat.name == name && !matches!(stat.state, 'Z' | 'X')
        })
    };
    pids().filter(is_it).collect()
}

/// Whether a process is there and no zombie.
pub(super) fn is_alive(pid: u32) -> bool {
    Stat::of(pid).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'))
}

/// A process and its descendants, with their names.
pub(super) fn tree(root: u32) -> Vec<(u32, String)> {
    let all: Vec<(u32, Stat)> = pids().filter_map(|pid| Some((pid, Stat::of(pid)?))).collect();
    let mut found = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        found.extend(
            all.iter().find(|(pid, _)| *pid == parent).map(|(_, s)| (parent, s.name.clone())),
        );
        parents.extend(all.iter().filter(|(_, stat)| stat.parent == parent).map(|(pid, _)| *pid));
    }
    found
}

/// Resident memory of a process, what it shares being divided by the number of those that share it.
pub(super) fn pss_bytes(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    kib(&text, "Pss").map(|kib| kib * 1024)
}

/// Resident memory of a process.
pub(super) fn rss_bytes(pid: u32) -> Option<u64> {
    kib(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmRSS").map(|kib| kib * 1024)
}

/// The most resident memory that a process ever had, or since the peak was reset.
pub(super) fn peak_memory_bytes(pid: u32) -> Option<u64> {
    kib(&fs::read_to_string(format!("/proc/{pid}/status")).ok()?, "VmHWM").map(|kib| kib * 1024)
}

/// Begins to look for this process's peak memory anew (proc_pid_clear_refs(5)).
pub(super) fn reset_peak_memory() -> Option<()> {
    fs::write("/proc/self/clear_refs", "5").ok()
}

/// All process ids.
pub(super) fn pids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Some fields of /proc/PID/stat.
struct Stat {
    name: String,
    state: char,
    parent: u32,
    reaped_ticks: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// `pid (name) state ppid …`; the name may have spaces and brackets. Fields are numbered from 1 in
    /// proc_pid_stat(5): cutime is the 16th, cstime the 17th.
    fn parse(text: &str) -> Option<Self> {
        let (before, fields) = text.rsplit_once(')')?;
        let name = before.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            name,
            state: fields.first()?.chars().next()?,
            parent: u32::try_from(number(4)?).ok()?,
            reaped_ticks: number(16)? + number(17)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_also_with_brackets_in_the_name() {
        let line = "7 (a) b) S 3 7 7 0 -1 4194560 1 2 3 4 10 20 300 400 20 0 1 0 99 1 2 3";
        let stat = Stat::parse(line).expect("it is a stat line");
        assert_eq!((stat.name.as_str(), stat.state, stat.parent), ("a) b", 'S', 3));
        assert_eq!(stat.reaped_ticks, 700);
    }

    #[test]
    fn this_process_uses_cpu_time_and_memory() {
        let own = std::process::id();
        let before = cpu_time(own).expect("it runs");
        let mut sum = 0u64;
        while cpu_time(own).expect("it runs") - before < Duration::from_millis(5) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(is_alive(own));
        assert!(tree(own).iter().any(|(pid, _)| *pid == own));
        let (pss, rss) = (pss_bytes(own).expect("it runs"), rss_bytes(own).expect("it runs"));
        assert!(pss > 0 && rss > 0 && peak_memory_bytes(own).expect("it runs") > 0);
    }
}
