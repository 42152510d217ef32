//! A task-init's leader that has its plan, and waits for the word to execute it.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::net::unix::pipe;

use super::launch_error::LaunchError;
use super::link::{GO, Report};
use super::process::{ProcessError, TaskProcess};
use super::spawn::Executed;
use crate::task::LaunchPlan;

/// A task whose setup is under way, or done, but for the execution of its program. **Dropping it ends
/// it.**
#[derive(Debug)]
#[must_use = "dropping it ends the task before its start"]
pub struct Armed {
    process: TaskProcess,
    output: Output,
    /// Whether the plan was sent whole. If not, the report, or its absence, says why.
    sent: io::Result<()>,
}

/// The output of a program. The end of each stream comes when the last process that holds its writing end is
/// gone.
#[derive(Debug)]
pub struct Output {
    /// The reading end of standard output.
    pub stdout: pipe::Receiver,
    /// The reading end of standard error.
    pub stderr: pipe::Receiver,
    /// The writing ends, as the program has them. Whoever holds them until the program's end is known is not
    /// woken by that of its output, twice, while the kernel takes the process down.
    pub writers: [PipeWriter; 2],
}

impl Output {
    /// Makes the pipes. Needs a tokio runtime.
    pub(super) fn new() -> io::Result<Self> {
        let ((stdout, their_stdout), (stderr, their_stderr)) = (io::pipe()?, io::pipe()?);
        let writers = [their_stdout, their_stderr];
        Ok(Self { stdout: receiver(stdout)?, stderr: receiver(stderr)?, writers })
    }
}

/// Takes the output of a try to launch a task, before the word to execute its program is given, or is known to
/// have been obeyed. Another try's comes after the first one's has ended, empty.
pub(super) type TakeOutput<'a> = &'a mut (dyn FnMut(Output) + Send);

/// Whether a leader was told to execute the program. From then on that may have begun, though its start
/// is not reported yet.
#[derive(Debug, Default)]
pub struct Word {
    is_given: AtomicBool,
    /// It is not to be given again, to another task-init.
    is_the_last: AtomicBool,
}

impl Word {
    /// Whether it was given.
    pub fn is_given(&self) -> bool {
        self.is_given.load(Ordering::Relaxed)
    }

    /// Forbids another try: a stop has come.
    pub fn not_again(&self) {
        self.is_the_last.store(true, Ordering::Relaxed);
    }

    pub(super) fn may_be_given_again(&self) -> bool {
        !self.is_the_last.load(Ordering::Relaxed)
    }

    pub(crate) fn give(&self) {
        self.is_given.store(true, Ordering::Relaxed);
    }
}

/// Why a plan was not launched by a task-init.
#[derive(Debug)]
pub(super) enum Failure {
    /// It never looked at the plan: a new task-init may do it.
    NotEnclosed(LaunchError),
    Launch(LaunchError),
}

impl Failure {
    pub(super) fn into_error(self) -> LaunchError {
        match self {
            Self::NotEnclosed(error) | Self::Launch(error) => error,
        }
    }
}

/// Gives a task-init its plan, and waits until it has told of the program's execution.
pub(super) async fn start(
    process: TaskProcess,
    plan: &LaunchPlan,
    word: &Word,
    take_output: TakeOutput<'_>,
) -> Result<Executed, Failure> {
    word.give();
    arm(process, plan, Some(GO)).await?.executed(take_output).await
}

/// Gives a task-init its plan, and with it the word to execute it, or not.
pub(super) async fn arm(
    mut process: TaskProcess,
    plan: &LaunchPlan,
    go: Option<u8>,
) -> Result<Armed, Failure> {
    let output = process.take_output().map_or_else(Output::new, Ok);
    let output = output.map_err(|error| Failure::Launch(LaunchError::Pipes(error)))?;
    let [stdout, stderr] = &output.writers;
    let sent = process.send_plan(plan, [stdout.as_fd(), stderr.as_fd()], go).await;
    Ok(Armed { process, output, sent })
}

/// tokio's own way asks first what sort of file it is, and how it was opened.
fn receiver(end: PipeReader) -> io::Result<pipe::Receiver> {
    fcntl(&end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    pipe::Receiver::from_owned_fd_unchecked(end.into())
}

impl Armed {
    /// Gives the word, and waits until task-init has told of the program's execution.
    pub(super) async fn launch(
        mut self,
        word: &Word,
        take_output: TakeOutput<'_>,
    ) -> Result<Executed, Failure> {
        if self.sent.is_ok() {
            word.give();
            self.sent = self.process.go();
        }
        self.executed(take_output).await
    }

    async fn executed(self, take_output: TakeOutput<'_>) -> Result<Executed, Failure> {
        let Self { mut process, output, sent } = self;
        take_output(output);
        let report = process.report().await;
        match report {
            Ok(Report::Started(start)) => Ok(Executed::new(start, process)),
            Ok(Report::Ended { start: Some(start), exit, survivors }) => {
                process.hold_end(exit, survivors);
                Ok(Executed::new(start, process))
            }
            Ok(Report::NotEnclosed(failure)) => Err(Failure::NotEnclosed(failure.into())),
            Ok(Report::SetupFailed(failure)) => Err(Failure::Launch(failure.into())),
            Ok(Report::Ended { start: None, .. }) => {
                let error = sent.err().unwrap_or_else(|| io::ErrorKind::InvalidData.into());
                Err(Failure::Launch(LaunchError::Interrupted(ProcessError::Control(error))))
            }
            Err(error) if sent.is_err() => {
                Err(Failure::NotEnclosed(LaunchError::Interrupted(error)))
            }
            Err(error) => Err(Failure::Launch(LaunchError::Interrupted(error))),
        }
    }
}
