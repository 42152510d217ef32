//! Real tasks, run by the real binary's spawner.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use runlane::exec::{Ended, Exit, Launched, Process, Spawner, Stop, supervise};
use runlane::task::{LaunchPlan, OutputLimits, Program, Sandbox};
use runlane::wire::Compression;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::watch;

use crate::support::proc::{DEADLINE, MARK, Mark};

mod containment;
mod enclosure;
mod ladder;
mod launch;
mod lifetime;
mod script;

const TERM: i32 = 15;
const KILL: i32 = 9;

pub(crate) fn spawner() -> Spawner {
    Spawner::of_program(Path::new(env!("CARGO_BIN_EXE_runlane")))
}

/// A plan whose processes carry the mark.
pub(crate) fn plan(mark: &Mark, program: Program) -> LaunchPlan {
    let path = std::env::var("PATH").expect("the tests have a PATH");
    LaunchPlan {
        program,
        env: vec![("PATH".to_owned(), path), (MARK.to_owned(), mark.0.clone())],
        cwd: Some(PathBuf::from("/")),
        sandbox: Sandbox::default(),
        missing: BTreeMap::new(),
        timeout: None,
        stop_signal: TERM,
        grace: Duration::from_secs(5),
        output: OutputLimits { max_bytes: u64::MAX },
        compression: Compression::None,
    }
}

pub(crate) fn command(command: &str, args: &[&str]) -> Program {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    Program::Command { command: command.to_owned(), args }
}

pub(crate) fn sh(mark: &Mark, script: &str) -> LaunchPlan {
    plan(mark, command("sh", &["-c", script]))
}

/// What a task wrote and how it ended.
pub(crate) struct Run {
    pub(crate) exit: Exit,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a plan to its end. At the end nothing with the mark may be alive, without any waiting.
pub(crate) async fn run(mark: &Mark, plan: &LaunchPlan) -> Run {
    run_by(&spawner(), mark, plan).await
}

/// The same by a spawner that is given.
pub(crate) async fn run_by(spawner: &Spawner, mark: &Mark, plan: &LaunchPlan) -> Run {
    let Launched { mut stdout, mut stderr, mut process, .. } =
        spawner.launch(plan).await.expect("the plan can be launched");
    let run = async {
        let end = async {
            let exit = process.wait().await.expect("the task ends");
            mark.assert_none_alive();
            exit
        };
        let (exit, stdout, stderr) = tokio::join!(end, text(&mut stdout), text(&mut stderr));
        Run { exit, stdout, stderr }
    };
    tokio::time::timeout(DEADLINE, run).await.expect("the task ends in time")
}

/// Writes a program. By a process of its own: what this one has open for writing, another test's fork may
/// have still when the program is executed (ETXTBSY).
pub(crate) fn executable(path: &Path, content: &str) {
    let written = std::process::Command::new("sh")
        .args(["-c", "printf %s \"$1\" > \"$0\" && chmod 755 \"$0\""])
        .arg(path)
        .arg(content)
        .status();
    assert!(written.expect("sh is there").success(), "{path:?} is not written");
}

/// Reads a pipe to its end.
async fn text(pipe: &mut pipe::Receiver) -> String {
    let mut text = String::new();
    pipe.read_to_string(&mut text).await.expect("the pipe can be read");
    text
}

/// Reads a pipe's first line.
pub(crate) async fn line(pipe: &mut pipe::Receiver) -> String {
    let mut line = Vec::new();
    let read = async {
        while line.last() != Some(&b'\n') {
            line.push(pipe.read_u8().await.expect("the line has an end"));
        }
    };
    tokio::time::timeout(DEADLINE, read).await.expect("the line comes in time");
    String::from_utf8(line).expect("the line is text").trim_end().to_owned()
}

/// Supervises a launched task to its end, after which nothing of it may be alive.
async fn supervised(
    mark: &Mark,
    launched: &mut Launched,
    timeout: Option<Duration>,
    grace: Duration,
    stop: watch::Receiver<Option<Stop>>,
) -> Ended {
    let ended = supervise(&mut launched.process, timeout, grace, TERM, stop);
    let ended = tokio::time::timeout(DEADLINE, ended).await.expect("the task ends in time");
    mark.assert_none_alive();
    ended.expect("the task's end is known")
}
