//! A running task: waiting for its end and signalling it.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::armed::Output;
use super::cgroup::LeafUsage;
use super::control::Control;
use super::link::{AGAIN, GO, Orders, Report, encode, take_frame};
use super::uid_pool::UidLease;
use crate::task::LaunchPlan;

/// A process that can be waited for and signalled. The one seam between the supervisor's timing, which
/// is tested with paused time, and real processes, which know no paused time.
pub trait Process {
    /// Waits for the end of the process and of everything it started.
    ///
    /// Cancel safe. `Ok` promises that the whole tree is gone.
    fn wait(&mut self) -> impl Future<Output = Result<Exit, ProcessError>> + Send;

    /// Sends a signal to the process group.
    ///
    /// # Errors
    /// When the process can't be reached any more; `wait` then says what became of it.
    fn signal(&mut self, signal: Signal) -> io::Result<()>;
}

/// What is sent to a process group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// A request to end: the plan's stop signal, by number.
    Polite(i32),
    /// SIGKILL, and the sweep of whatever left the group.
    Kill,
}

impl Signal {
    fn number(self) -> i32 {
        match self {
            Self::Polite(number) => number,
            Self::Kill => nix::libc::SIGKILL,
        }
    }
}

/// How a process and its descendants ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// How the leader ended.
    pub status: ExitStatus,
    /// What the whole tree used.
    pub usage: Usage,
    /// Processes that were still there after the leader's end, and were killed.
    pub leftovers_killed: u32,
    /// What its cgroup says, if it had one of its own.
    pub cgroup: Option<LeafUsage>,
}

/// How a leader ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// By itself, with this code, 0 to 255.
    Exited(i32),
    /// By the signal with this number.
    Signaled(i32),
}

/// What a process and its waited-for descendants used. A descendant whose parent ignores SIGCHLD is
/// not in it: the kernel counts nothing for it (`getrusage(2)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time in user mode.
    pub user: Duration,
    /// CPU time in the kernel.
    pub system: Duration,
    /// Largest resident set of one process of the tree, in bytes.
    pub max_rss_bytes: u64,
}

impl Usage {
    /// What both have used.
    #[must_use]
    pub(super) fn with(self, other: Self) -> Self {
        Self {
            user: self.user + other.user,
            system: self.system + other.system,
            max_rss_bytes: self.max_rss_bytes.max(other.max_rss_bytes),
        }
    }
}

/// Why we don't know how a process ended, or whether all of it is gone.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The supervising process died. The leader dies with it, and the spawner sweeps what it left.
    #[error("the task's supervising process died")]
    SupervisorDied,
    /// Processes of the task could not be killed within the sweep's limit; task-init goes on trying.
    #[error("{survivors} processes of the task could not be killed")]
    Survivors {
        /// How many were left.
        survivors: u32,
    },
    /// The control socket failed, or its other end does not speak our protocol.
    #[error("cannot read from the task's supervising process")]
    Control(#[source] io::Error),
}

/// A task that was launched by a [`super::Spawner`]. **Dropping it kills the task.**
#[derive(Debug)]
#[must_use = "dropping a task's process kills it"]
pub struct TaskProcess {
    control: Control,
    received: Vec<u8>,
    /// Of the next task, if it was made before that is known.
    output: Option<Output>,
    /// The user id that is this task's alone, if it has one.
    uid: Option<UidLease>,
    /// Its end, if that was reported together with its start.
    end: Option<(Exit, u32)>,
    /// Its task-init can have another task after this one.
    is_reusable: bool,
    /// The task has ended, and nothing of it is left.
    is_over: bool,
}

impl TaskProcess {
    pub(super) fn new(control: Control, is_reusable: bool) -> Self {
        let (received, output, uid, end, is_over) = (Vec::new(), None, None, None, false);
        Self { control, received, output, uid, end, is_reusable, is_over }
    }

    /// Gives it up for another task, which its task-init is yet to be asked for. None: it can't have one.
    pub(super) fn again(mut self) -> Option<Self> {
        self.uid = None;
        let is_free = self.is_over && self.is_reusable && self.received.is_empty();
        is_free.then_some(self)
    }

    /// Has a task-init whose task is over prepare for another, and makes that one's pipes. What can't be done
    /// the launch does, or says so.
    pub(super) fn get_ready(&mut self) {
        if self.output.is_none() {
            self.output = Output::new().ok();
        }
        if self.is_over {
            self.is_over = self.control.send_byte(AGAIN).is_err();
        }
    }

    /// Whether its end was reported together with its start.
    pub fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    pub(super) fn hold_end(&mut self, exit: Exit, survivors: u32) {
        self.end = Some((exit, survivors));
    }

    pub(super) fn take_output(&mut self) -> Option<Output> {
        self.output.take()
    }

    /// Lets the leader, which has its orders, execute the program.
    pub(super) fn go(&self) -> io::Result<()> {
        self.control.send_byte(GO)
    }

    pub(super) fn hold(&mut self, uid: UidLease) {
        self.uid = Some(uid);
    }

    pub(super) async fn send(&self, value: &impl Serialize) -> io::Result<()> {
        self.control.send_all(&encode(value)?, &[]).await
    }

    /// Hands over what the leader needs of a plan, with the writing ends of its output, and with the word
    /// to execute it at once or without. Asks for the leader, too, if that wasn't done. Not cancel safe: only
    /// a dropped socket undoes a part of it.
    pub(super) async fn send_plan(
        &mut self,
        plan: &LaunchPlan,
        output: [BorrowedFd<'_>; 2],
        go: Option<u8>,
    ) -> io::Result<()> {
        let mut frame = encode(&Orders::of(plan))?;
        frame.extend(go);
        if std::mem::take(&mut self.is_over) {
            frame.insert(0, AGAIN);
        }
        self.control.send_all(&frame, &output).await
    }

    /// Cancel safe: what was read of an unfinished report stays in `self`.
    pub(super) async fn report(&mut self) -> Result<Report, ProcessError> {
        loop {
            if let Some(report) = take_frame(&mut self.received).map_err(ProcessError::Control)? {
                return Ok(report);
            }
            match self.control.receive(&mut self.received).await {
                Ok(0) => return Err(ProcessError::SupervisorDied),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(ProcessError::SupervisorDied);
                }
                Err(error) => return Err(ProcessError::Control(error)),
            }
        }
    }
}

impl Process for TaskProcess {
    async fn wait(&mut self) -> Result<Exit, ProcessError> {
        let (exit, survivors) = match self.end.take() {
            Some(end) => end,
            None => match self.report().await? {
                Report::Ended { exit, survivors, .. } => (exit, survivors),
                report @ (Report::NotEnclosed(_) | Report::Started(_) | Report::SetupFailed(_)) => {
                    let message = format!("unexpected report {report:?}");
                    let error = io::Error::new(io::ErrorKind::InvalidData, message);
                    return Err(ProcessError::Control(error));
                }
            },
        };
        if survivors > 0 {
            return Err(ProcessError::Survivors { survivors });
        }
        self.is_over = true;
        if let Some(uid) = &mut self.uid {
            uid.task_is_gone();
        }
        Ok(exit)
    }

    fn signal(&mut self, signal: Signal) -> io::Result<()> {
        self.control.send_byte(u8::try_from(signal.number()).map_err(io::Error::other)?)
    }
}
