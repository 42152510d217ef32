//! Programs that the cases need: the suite's own file in other roles.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use tokio::signal::unix::{SignalKind, signal};

use super::tasks::{cancel, line, sh, spawner};

/// Runs a role.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    match args {
        [role, script] if role == "worker" => runtime.block_on(worker(script)),
        [role, uid, cgroup, program, rest @ ..] if role == "start" => {
            eprintln!("{}", start(uid, cgroup, program, rest));
            return ExitCode::FAILURE;
        }
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}

/// Launches a task, says its first line, and cancels it when it gets SIGTERM.
async fn worker(script: &str) {
    // Needs nothing that a limit on the worker could refuse later.
    let mut term = signal(SignalKind::terminate()).expect("signals can be waited for");
    let mut launched = spawner().launch(&sh(script)).await.expect("the plan can be launched");
    println!("{}", line(&mut launched.stdout).await);
    term.recv().await;
    let ended = cancel(&mut launched.process).await;
    println!("{ended:?}");
}

/// Becomes another program, as another user and in another cgroup. Returns only if it can't.
fn start(uid: &str, cgroup: &str, program: &str, args: &[String]) -> std::io::Error {
    let procs = std::path::Path::new(cgroup).join("cgroup.procs");
    if let Err(error) = std::fs::write(procs, "0") {
        return error;
    }
    let id: u32 = uid.parse().expect("a user id is a number");
    Command::new(program).args(args).uid(id).gid(id).exec()
}
