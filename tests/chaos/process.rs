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

use crate::fleet;

/// First argument of a worker process.
const WORKER: &str = "__chaos-worker";
/// First argument of a process that becomes another program.
const BECOME: &str = "__chaos-become";

/// Runs what this program was started as, if it isn't the harness itself.
pub(crate) fn maybe_run() -> Option<ExitCode> {
    let mut args = std::env::args_os().skip(1);
    let role = args.next()?;
    if role != WORKER && role != BECOME {
        return None;
    }
    let parent: i32 = args.next()?.to_str()?.parse().ok()?;
    let what = args.next()?;
    if prctl::set_pdeathsig(Signal::SIGKILL).is_err() || getppid().as_raw() != parent {
        return Some(ExitCode::FAILURE);
    }
    if role == WORKER {
        return Some(fleet::worker_main(Path::new(&what)));
    }
    let error = std::process::Command::new(&what).args(args).exec();
    eprintln!("cannot run {}: {error}", what.display());
    Some(ExitCode::FAILURE)
}

/// Starts a program whose output goes to a file.
pub(crate) fn spawn_program(program: &Path, args: &[&str], log: &Path) -> io::Result<Child> {
    let mut command = own_command(BECOME)?;
    command.arg(program).args(args);
    start(command, log)
}

/// Starts a worker with a configuration file.
pub(crate) fn spawn_worker(
    config: &Path,
    unguarded: Option<&str>,
    log: &Path,
) -> io::Result<Child> {
    let mut command = own_command(WORKER)?;
    command.arg(config);
    if let Some(unguarded) = unguarded {
        command.env("RUNLANE_UNGUARDED", unguarded);
    }
    start(command, log)
}

fn own_command(role: &str) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(role).arg(std::process::id().to_string());
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
