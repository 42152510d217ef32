//! What /proc says of processes: CPU times, children, memory.

use std::fs;
use std::time::Duration;

use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::{Pid, SysconfVar, sysconf};

/// CPU time of a process, all its threads, also those that have ended. None: it is gone, or another
/// user's and hidden.
pub(super) fn cpu_time(pid: u32) -> Option<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid).ok()?)).ok()?;
    clock_gettime(clock).ok().map(Duration::from)
}

/// CPU time of the descendants that a process, and they, have waited for. The kernel tells it in ticks
/// of 10 ms.
pub(super) fn reaped_cpu_time(pid: u32) -> Option<Duration> {
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
    fn this_process_uses_cpu_time() {
        let own = std::process::id();
        let before = cpu_time(own).expect("it runs");
        let mut sum = 0u64;
        while cpu_time(own).expect("it runs") - before < Duration::from_millis(5) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(is_alive(own));
        assert!(pids().any(|pid| pid == own));
    }
}
