//! Workers as systemd's units: what `Delegate=yes` gives to a plain user, and what stays of a worker that
//! is stopped or killed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tokio::process::Command;

use super::programs::{DAEMON, EATER};
use super::site::Site;
use super::tasks::until;
use crate::proc::pids;

const UNITS: &str = "/etc/systemd/system";

const WORKER: &str = "runlane-worker.service";

/// The unit that the project offers.
const WORKER_UNIT: &str = include_str!("../../../deploy/systemd/runlane-worker.service");

/// Where the unit's worker logs.
const LOG: &str = "/root/worker.log";

/// Runs systemctl to its end. Returns whether it succeeded.
async fn systemctl(args: &[&str]) -> bool {
    let output = Command::new("systemctl").args(args).output().await.expect("systemctl runs");
    output.status.success()
}

/// Runs the role `base` as a unit of the plain user. Returns what it said.
async fn probe(name: &str, delegate: &str) -> String {
    let log = PathBuf::from(format!("/root/{name}.log"));
    let program = format!("/bin/{name}");
    let script = format!("#!/bin/sh\nexec vm __helper base auto '{EATER}'\n");
    fs::write(&program, script).expect("it is written");
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("it is ours");
    let unit = format!(
        "[Unit]\nDefaultDependencies=no\n[Service]\nType=oneshot\nUser=runlane\n{delegate}\n\
         OOMPolicy=continue\nEnvironment=PATH=/bin\nExecStart={program}\n\
         StandardOutput=file:{0}\nStandardError=file:{0}\n",
        log.display()
    );
    fs::write(Path::new(UNITS).join(format!("{name}.service")), unit).expect("it is written");
    assert!(systemctl(&["daemon-reload"]).await);
    // It fails where nothing is delegated.
    systemctl(&["start", name]).await;
    fs::read_to_string(&log).expect("it has said something")
}

pub(super) async fn a_delegated_unit_of_a_plain_user_limits_its_tasks() {
    let text = probe("delegated", "Delegate=yes").await;
    for part in ["\"cpu\"", "\"memory\"", "\"pids\"", "missing {}", "signal: 9"] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    assert!(!text.contains("oom_kills: 0"), "{text}");
}

pub(super) async fn a_unit_without_delegation_takes_nothing_over() {
    let text = probe("strange", "").await;
    assert!(text.contains("is not delegated to the worker"), "{text}");
}

/// Starts the worker's unit with a configuration.
async fn start_worker(site: &Site, config: &str) {
    let change = Path::new(UNITS).join(format!("{WORKER}.d"));
    for directory in [Path::new("/etc/runlane"), &change] {
        fs::create_dir_all(directory).expect("root may");
    }
    let url = site.url();
    let text = format!(
        "[Service]\nExecStart=\n\
         ExecStart=/bin/runlane worker --config /etc/runlane/worker.toml\n\
         Environment=PATH=/bin NATS_URL={url}\nStandardError=file:{LOG}\nRestart=no\n"
    );
    let files = [
        (PathBuf::from("/etc/runlane/worker.toml"), config),
        (Path::new(UNITS).join(WORKER), WORKER_UNIT),
        (change.join("vm.conf"), &text),
        (PathBuf::from(LOG), ""),
    ];
    for (path, content) in files {
        fs::write(&path, content).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    assert!(systemctl(&["daemon-reload"]).await);
    assert!(systemctl(&["start", WORKER]).await, "{}", log());
    until("the worker serves", || log().contains("serving a lane") || main_pid().is_none()).await;
    assert!(log().contains("serving a lane"), "{}", log());
}

fn log() -> String {
    fs::read_to_string(LOG).unwrap_or_default()
}

/// Processes of the unit.
fn unit_pids() -> Vec<i32> {
    let within = |pid: &i32| {
        let cgroup = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        cgroup.contains(WORKER)
    };
    pids().into_iter().filter(within).collect()
}

/// The unit's main process: the one that runs `runlane worker`.
fn main_pid() -> Option<i32> {
    let is_worker = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.starts_with(b"/bin/runlane\0worker")
    };
    unit_pids().into_iter().find(is_worker)
}

/// Starts a task with a daemon, and waits until both run.
async fn run_a_daemon(site: &Site) {
    site.submit(DAEMON).await;
    let name = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let sleeps = || unit_pids().iter().filter(|pid| name(pid) == "sleep\n").count();
    until("task and daemon run", || sleeps() >= 3).await;
}

pub(super) async fn stopping_the_workers_unit_leaves_nothing() {
    let site = Site::new().await;
    start_worker(
        &site,
        "[worker]\ndrain_timeout = \"1s\"\n[[runner]]\nname = \"r\"\ngrace = \"1s\"\n",
    )
    .await;
    run_a_daemon(&site).await;
    assert!(systemctl(&["stop", WORKER]).await);
    assert_eq!(unit_pids(), [0; 0], "{}", log());
}

pub(super) async fn a_worker_that_is_killed_in_its_unit_leaves_nothing() {
    let site = Site::new().await;
    start_worker(&site, "").await;
    run_a_daemon(&site).await;
    crate::proc::kill(main_pid().expect("the worker runs"));
    until("nothing of the unit is left", || unit_pids().is_empty()).await;
}

pub(super) async fn the_workers_unit_kills_a_task_for_want_of_memory() {
    let site = Site::new().await;
    let config = "[[runner]]\nname = \"small\"\nisolation = \"standard\"\n\
                  [runner.sandbox.cgroup]\nmemory_max = \"32MiB\"\n";
    start_worker(&site, config).await;
    let outcome = site.outcome(EATER).await;
    assert_eq!(outcome["oomKilled"], Value::Bool(true), "{outcome} {}", log());
    let control = site.outcome("echo fits").await;
    assert_eq!(control["exitCode"], 0, "{control} {}", log());
    assert!(main_pid().is_some(), "the worker has died with its task: {}", log());
    assert!(systemctl(&["stop", WORKER]).await);
    assert_eq!(unit_pids(), [0; 0], "{}", log());
}
