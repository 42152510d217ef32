//! Looking at and for processes in /proc.

use std::fs;
use std::time::{Duration, Instant};

/// How long a test waits for what must come.
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// The variable that marks every process of one task, at whatever depth.
pub(crate) const MARK: &str = "RUNLANE_TEST_MARK";

/// A mark of its own for each task: its processes inherit it and are found by it.
#[derive(Debug, Clone)]
pub(crate) struct Mark(pub(crate) String);

impl Mark {
    pub(crate) fn new() -> Self {
        Self(uuid::Uuid::now_v7().to_string())
    }

    /// Every process with the mark that isn't a zombie.
    pub(crate) fn alive(&self) -> Vec<i32> {
        let variable = format!("{MARK}={}", self.0);
        let marked = |pid: &i32| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ.split(|byte| *byte == 0).any(|entry| entry == variable.as_bytes())
        };
        pids().into_iter().filter(|pid| is_alive(*pid) && marked(pid)).collect()
    }

    #[track_caller]
    pub(crate) fn assert_none_alive(&self) {
        assert_eq!(self.alive(), [0; 0], "processes of the task are alive");
    }

    /// Waits until no process has the mark. Returns how long it took.
    pub(crate) async fn gone(&self) -> Duration {
        let start = Instant::now();
        until("every process of the task is gone", || self.alive().is_empty()).await;
        start.elapsed()
    }

    /// Kills what a negative control has left, by id.
    pub(crate) fn clean_up(&self) {
        for pid in self.alive() {
            kill(pid);
        }
    }
}

/// Sends SIGKILL to one process.
pub(crate) fn kill(pid: i32) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGKILL).ok();
}

/// Waits for a condition, and fails the test when it does not come.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Whether the process exists and isn't a zombie.
pub(crate) fn is_alive(pid: i32) -> bool {
    stat(pid).is_some_and(|stat| stat[0] != "Z" && stat[0] != "X")
}

/// The process's parent.
pub(crate) fn parent(pid: i32) -> i32 {
    stat(pid).expect("the process is there")[1].parse().expect("a parent is a number")
}

/// The process's group and session.
pub(crate) fn group_and_session(pid: i32) -> (i32, i32) {
    let stat = stat(pid).expect("the process is there");
    (stat[2].parse().expect("a group is a number"), stat[3].parse().expect("a session is a number"))
}

/// The process's children, zombies too.
pub(crate) fn children(pid: i32) -> Vec<i32> {
    let is_child = |child: &i32| stat(*child).is_some_and(|stat| stat[1] == pid.to_string());
    pids().into_iter().filter(is_child).collect()
}

pub(crate) fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

/// The fields of /proc/PID/stat from the third on: state, parent, group, session, …
fn stat(pid: i32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    Some(fields.split_ascii_whitespace().map(str::to_owned).collect())
}
