//! Programs that the cases need: the suite's own file in other roles.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use runlane::exec::cgroup::{Base, CgroupSetting, Leaf};
use runlane::task::CgroupLimits;
use tokio::signal::unix::{SignalKind, signal};

use super::tasks::{cancel, line, sh, spawner};

/// Runs a role.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    match args {
        [role, script] if role == "worker" => runtime.block_on(worker(script)),
        [role, setting, script] if role == "base" => {
            if let Err(error) = base(setting, script) {
                eprintln!("{error}");
                return ExitCode::FAILURE;
            }
        }
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

/// Opens a base as a worker does, and runs a script in a leaf.
fn base(setting: &str, script: &str) -> Result<(), Box<dyn std::error::Error>> {
    let setting = match setting {
        "auto" => CgroupSetting::Auto,
        path => CgroupSetting::Directory(path.into()),
    };
    let base = Base::open(&setting)?;
    println!("controllers {:?}, missing {:?}", base.controllers(), base.missing());
    let leaf = Leaf::create(base.leaves())?;
    let limits =
        CgroupLimits { memory_max: Some(32 << 20), pids_max: Some(10), ..CgroupLimits::default() };
    leaf.limit(&limits)?;
    let procs = base.leaves().join(leaf.name()).join("cgroup.procs");
    let script = format!("echo $$ >{}; {script}", procs.display());
    let status = Command::new("sh").args(["-c", &script]).status()?;
    println!("{status}, {:?}", leaf.usage());
    leaf.remove()?;
    base.close();
    Ok(())
}
