//! Programs that the cases need: the suite's own file in other roles.

use std::process::ExitCode;

use runlane::exec::Process;

use super::tasks::{line, sh, spawner};

/// Runs a role.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be made");
    match args {
        [role, script] if role == "worker" => runtime.block_on(worker(script)),
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}

/// Launches a task, says its first line, and waits for its end.
async fn worker(script: &str) {
    let mut launched = spawner().launch(&sh(script)).await.expect("the plan can be launched");
    println!("{}", line(&mut launched.stdout).await);
    launched.process.wait().await.expect("its end is known");
}
