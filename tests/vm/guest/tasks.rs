//! Tasks as the cases launch them: busybox scripts, by way of the real spawner.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use runlane::exec::{
    Ended, Exit, Launched, Process, Spawner, Stop, TaskProcess, set_stop, supervise,
};
use runlane::task::{LaunchPlan, OutputLimits, Program, Sandbox};
use runlane::wire::{Compression, StopReason};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::watch;

/// The program under test.
pub(crate) const RUNLANE: &str = "/bin/runlane";

const TERM: i32 = 15;

/// How long a case waits for what must come.
const PATIENCE: Duration = Duration::from_secs(45);

const GRACE: Duration = Duration::from_secs(1);

pub(crate) fn spawner() -> Spawner {
    Spawner::of_program(Path::new(RUNLANE))
}

/// The plan of a shell script.
pub(crate) fn sh(script: &str) -> LaunchPlan {
    let args = vec!["-c".to_owned(), script.to_owned()];
    LaunchPlan {
        program: Program::Command { command: "sh".to_owned(), args },
        env: vec![("PATH".to_owned(), "/bin".to_owned())],
        cwd: Some(PathBuf::from("/")),
        sandbox: Sandbox::default(),
        missing: std::collections::BTreeMap::new(),
        timeout: None,
        stop_signal: TERM,
        grace: GRACE,
        output: OutputLimits { max_bytes: u64::MAX },
        compression: Compression::None,
    }
}

/// What a task wrote and how it ended.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) exit: Exit,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a plan to its end.
pub(crate) async fn run(plan: &LaunchPlan) -> Run {
    let launched = spawner().launch(plan).await.expect("the plan can be launched");
    let Launched { mut stdout, mut stderr, mut process, .. } = launched;
    let (exit, stdout, stderr) = tokio::join!(process.wait(), text(&mut stdout), text(&mut stderr));
    Run { exit: exit.expect("its end is known"), stdout, stderr }
}

/// Launches a plan, waits until it says that it is ready and for a condition, and cancels it.
pub(crate) async fn cancel_when(plan: &LaunchPlan, condition: impl FnMut() -> bool) -> Ended {
    let mut launched = spawner().launch(plan).await.expect("the plan can be launched");
    assert_eq!(line(&mut launched.stdout).await, "ready");
    until("the task is as it should be", condition).await;
    cancel(&mut launched.process).await
}

/// Cancels a task, and waits for its end.
pub(crate) async fn cancel(process: &mut TaskProcess) -> Ended {
    let (sender, stop) = watch::channel(None);
    set_stop(&sender, Stop::because(StopReason::Canceled));
    supervise(process, None, GRACE, TERM, stop).await.expect("its end is known")
}

/// Reads a pipe's first line.
pub(crate) async fn line(pipe: &mut pipe::Receiver) -> String {
    let mut line = Vec::new();
    while line.last() != Some(&b'\n') {
        line.push(pipe.read_u8().await.expect("the line has an end"));
    }
    String::from_utf8(line).expect("the line is text").trim_end().to_owned()
}

async fn text(pipe: &mut pipe::Receiver) -> String {
    let mut text = String::new();
    pipe.read_to_string(&mut text).await.expect("the pipe has text");
    text
}

/// Waits for a condition. The machine is emulated, and may share its host's processors.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
