//! Processes of the harness's own. Each of them dies with the harness, however that ends: the kernel
//! sends SIGKILL when its parent is gone (`PR_SET_PDEATHSIG`).

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{ExitCode, Stdio};

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getppid};
use tokio::process::{Child, Command};

/// First argument of a process that asks for its death with the harness, and becomes another program.
const BECOME: &str = "__chaos-become";

/// Becomes another program, if this process was started for that.
pub(crate) fn maybe_run() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    if args.next()? != BECOME {
        return None;
    }
    let parent: i32 = args.next()?.to_str()?.parse().ok()?;
    let program = args.next()?;
    if prctl::set_pdeathsig(Signal::SIGKILL).is_err() || getppid().as_raw() != parent {
        return Some(ExitCode::FAILURE);
    }
    let error = std::process::Command::new(&program).args(args).exec();
    eprintln!("cannot run {}: {error}", program.display());
    Some(ExitCode::FAILURE)
}

/// Starts a program whose output goes to a file.
pub(crate) fn spawn_program(program: &Path, args: &[&str], log: &Path) -> io::Result<Child> {
    let mut command = becoming(program)?;
    command.args(args);
    start(command, log)
}

/// Starts a worker with a configuration file.
pub(crate) fn spawn_worker(
    config: &Path,
    unguarded: Option<&str>,
    log: &Path,
) -> io::Result<Child> {
    let mut command = becoming(Path::new(env!("CARGO_BIN_EXE_runlane")))?;
    command.args(["worker", "--config"]).arg(config);
    if let Some(unguarded) = unguarded {
        command.env("RUNLANE_UNGUARDED", unguarded);
    }
    start(command, log)
}

fn becoming(program: &Path) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(BECOME).arg(std::process::id().to_string()).arg(program);
    Ok(command)
}

fn start(mut command: Command, log: &Path) -> io::Result<Child> {
    let log = File::options().create(true).append(true).open(log)?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    // Ctrl-C is the harness's to handle.
    command.process_group(0).kill_on_drop(true).spawn()
}

/// Sends a signal to one process by its id.
pub(crate) fn signal(pid: i32, signal: Signal) -> bool {
    kill(Pid::from_raw(pid), signal).is_ok()
}

/// The id of a child that was not waited for.
pub(crate) fn pid(child: &Child) -> Option<i32> {
    child.id().and_then(|pid| i32::try_from(pid).ok())
}
