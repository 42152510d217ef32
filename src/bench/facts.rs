//! What has to be known of a machine to read its figures.

use std::fs;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What was measured, where and when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// The version of runlane.
    pub runlane_version: String,
    /// The server's version; none: no server was used.
    pub nats_server_version: Option<String>,
    /// `private`, `server` or `workers`.
    pub against: String,
    /// The preset of the workers' runners; several, if they differ, with commas. None: no worker was there.
    pub isolation: Option<String>,
    /// `file` or `memory`, of the queue stream; none: no server was used.
    pub storage: Option<String>,
    /// Copies of the queue stream.
    pub replicas: Option<u64>,
    /// When it began.
    pub date: Timestamp,
    /// The machine of the bench.
    pub machine: Machine,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// The kernel's release.
    pub kernel: String,
    /// The CPU's model name.
    pub cpu_model: String,
    /// Cores that this process may use.
    pub cores: usize,
    /// All memory in bytes.
    pub memory_bytes: u64,
    /// Mean numbers of runnable processes at the start, over 1, 5 and 15 minutes.
    pub load_average: [f64; 3],
    /// Whether something else ran on it: the first of these is more than a quarter of the cores.
    pub busy: bool,
}

impl Machine {
    /// Looks at this machine now.
    #[allow(clippy::cast_precision_loss)]
    pub fn here() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let load_average = load_average(&read("/proc/loadavg"));
        Self {
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpu_model: value(&read("/proc/cpuinfo"), "model name").unwrap_or_default(),
            cores,
            memory_bytes: kib(&read("/proc/meminfo"), "MemTotal").unwrap_or(0) * 1024,
            load_average,
            busy: load_average[0] > cores as f64 / 4.0,
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The value of a `name : value` line.
fn value(text: &str, name: &str) -> Option<String> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    let mut values = lines.filter(|(key, _)| key.trim() == name);
    values.next().map(|(_, value)| value.trim().to_owned())
}

/// The number of a `Name:   123 kB` line.
pub(super) fn kib(text: &str, name: &str) -> Option<u64> {
    value(text, name)?.strip_suffix("kB")?.trim().parse().ok()
}

fn load_average(text: &str) -> [f64; 3] {
    let mut means = text.split_ascii_whitespace().map(|mean| mean.parse().unwrap_or(0.0));
    std::array::from_fn(|_| means.next().unwrap_or(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::float_cmp)]
    fn lines_of_proc_are_read() {
        assert_eq!(load_average("0.25 1.50 2.00 1/99 4242\n"), [0.25, 1.5, 2.0]);
        assert_eq!(kib("MemTotal:       4031234 kB\nMemFree: 1 kB\n", "MemTotal"), Some(4_031_234));
        let cpuinfo = "processor\t: 0\nmodel name\t: A CPU: fast\nprocessor\t: 1\n";
        assert_eq!(value(cpuinfo, "model name").as_deref(), Some("A CPU: fast"));
    }
}
