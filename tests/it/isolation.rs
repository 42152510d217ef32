//! What a sandbox does, seen from inside of the task and by trying what it forbids.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use runlane::exec::{ExitStatus, LaunchError, Spawner};
use runlane::task::isolation::{IsolationPolicy, Preset};
use runlane::task::{LaunchPlan, Sandbox};
use tempfile::TempDir;

use crate::process::{Run, command, executable, plan, run, run_by, sh, spawner};
use crate::support::proc::Mark;

mod audit;
mod capabilities;
mod host;
mod identity;
mod inherited;
mod landlock;
mod mounts;
mod programs;
mod seccomp;

/// A user that owns nothing: nobody.
const NOBODY: u32 = 65534;

/// Python's, outside of any user's home.
const PYTHON: &str = "/usr/bin/python3";

/// The sandbox of a preset, without what is made before the task.
fn preset(preset: Preset) -> Sandbox {
    let sandbox = IsolationPolicy::preset(preset, None).sandbox;
    Sandbox { enclosure: Default::default(), ..sandbox }
}

fn shell(sandbox: &Sandbox, script: &str) -> (Mark, LaunchPlan) {
    let mark = Mark::new();
    let plan = LaunchPlan { sandbox: sandbox.clone(), ..sh(&mark, script) };
    (mark, plan)
}

fn program(sandbox: &Sandbox, name: &str, arguments: &[&str]) -> (Mark, LaunchPlan) {
    let mark = Mark::new();
    let plan = LaunchPlan { sandbox: sandbox.clone(), ..plan(&mark, command(name, arguments)) };
    (mark, plan)
}

/// What a shell script prints; it has to succeed.
async fn prints(sandbox: &Sandbox, script: &str) -> String {
    let (mark, plan) = shell(sandbox, script);
    succeeded(run(&mark, &plan).await)
}

/// What a Python script prints; it has to succeed.
async fn python(sandbox: &Sandbox, script: &str, arguments: &[&str]) -> String {
    let arguments = [&["-c", script], arguments].concat();
    let (mark, plan) = program(sandbox, PYTHON, &arguments);
    succeeded(run(&mark, &plan).await)
}

#[track_caller]
fn succeeded(run: Run) -> String {
    assert_eq!(run.exit.status, ExitStatus::Exited(0), "{} {}", run.stdout, run.stderr);
    run.stdout
}

/// The step that failed, and its system error number.
async fn refused(spawner: &Spawner, sandbox: &Sandbox) -> (String, i32) {
    let (mark, plan) = shell(sandbox, "true");
    let error = spawner.launch(&plan).await.expect_err("the launch fails");
    mark.assert_none_alive();
    match error {
        LaunchError::Setup { step, errno, .. } => (step, errno),
        other => panic!("no step failed: {other:?}"),
    }
}

/// A field of /proc/self/status of a task.
async fn status(sandbox: &Sandbox) -> impl Fn(&str) -> String + use<> {
    fields(prints(sandbox, "cat /proc/self/status").await)
}

fn fields(status: String) -> impl Fn(&str) -> String {
    move |name| {
        let prefix = format!("{name}:");
        let line = status.lines().find_map(|line| line.strip_prefix(&prefix));
        line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
    }
}

/// Whether the tests run as root. If not, says so: a skip is never silent.
pub(crate) fn is_root(what: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skipped(1, what, "not root");
    }
    root
}

/// Says on the real standard error that something is not tested: the test harness hides what the print
/// macros of a test that passes have written.
fn skipped(tier: u8, what: &str, why: &str) {
    told(&format!("SKIPPED tier {tier}: {what}: {why}"));
}

/// The same for something that is worth to know.
fn told(what: &str) {
    let line = format!("{what}\n");
    std::io::stderr().write_all(line.as_bytes()).expect("standard error is open");
}

/// What makes `setpriv` nobody, without a capability.
const AS_NOBODY: &str = "setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all";

/// A spawner of a plain user's worker.
fn plain_users_spawner() -> (TempDir, Spawner) {
    spawner_by(AS_NOBODY)
}

/// A spawner that is started by a command such as `setpriv`, to be kept with its launcher's directory.
fn spawner_by(command: &str) -> (TempDir, Spawner) {
    let (directory, path) = launcher(command);
    (directory, Spawner::of_program(&path))
}

/// A program that runs `runlane` by way of a command.
fn launcher(command: &str) -> (TempDir, PathBuf) {
    let (directory, path) = open_directory();
    let path = path.join("launcher");
    let runlane = env!("CARGO_BIN_EXE_runlane");
    let text = format!("#!/bin/sh\nexec {command} {runlane} \"$@\"\n");
    executable(&path, &text);
    (directory, path)
}

/// A directory that everyone may enter.
fn open_directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("there is room");
    let mode = fs::Permissions::from_mode(0o777);
    fs::set_permissions(directory.path(), mode).expect("it is ours");
    let path = fs::canonicalize(directory.path()).expect("it exists");
    (directory, path)
}
