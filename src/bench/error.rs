//! Why something could not be measured.

use std::io;
use std::time::Duration;

use crate::client::{AgainError, CancelError, ControlError, SubmitError};
use crate::devserver::DevServerError;
use crate::nats::topology::TopologyError;
use crate::nats::{BusError, ConnectError};
use crate::wire::{Phase, TaskId};

/// How long an outcome may take: twice the default lease, after which the task of a worker that was
/// lost comes again.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A helper process can't be started, or broke off.
    #[error("the helper process for {what} failed")]
    Helper {
        /// What it should have measured.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// There is no temporary directory.
    #[error("no temporary directory can be made")]
    Directory(#[source] io::Error),
    /// The private server can't be started.
    #[error(transparent)]
    Server(#[from] DevServerError),
    /// The private server ended.
    #[error("nats-server has ended in the middle; its log ends with: {log}")]
    ServerEnded {
        /// The last lines of its log.
        log: String,
    },
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The worker process can't be started.
    #[error("the worker can't be started")]
    Spawn(#[source] io::Error),
    /// The worker ended, or took nothing.
    #[error("the worker {what}; its log ends with: {log}")]
    Worker {
        /// What it did.
        what: String,
        /// The last lines of its log.
        log: String,
    },
    /// A request failed.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// Streams or lanes can't be made.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// A task could not be queued.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// A worker did not pause or go on.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A task could not be canceled.
    #[error(transparent)]
    Cancel(#[from] CancelError),
    /// A finished task could not be removed.
    #[error(transparent)]
    Remove(#[from] AgainError),
    /// Outcomes did not come.
    #[error(
        "{missing} outcomes are missing after {} s without one: `runlane workers` shows who could take the \
         tasks; those of a worker that was lost come again after their lane's lease",
        patience.as_secs()
    )]
    Missing {
        /// How many.
        missing: usize,
        /// How long none came.
        patience: Duration,
    },
    /// A task did not end as it should.
    #[error("task {id} ended as {phase}{}", why.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    Task {
        /// The task.
        id: TaskId,
        /// How it ended.
        phase: Phase,
        /// What its outcome says.
        why: Option<String>,
    },
    /// Output is not what its task wrote.
    #[error(
        "the output that was read is not what was written: byte {offset}, or one after it, {wrong}"
    )]
    Output {
        /// Where the wrong chunk begins.
        offset: u64,
        /// What is wrong.
        wrong: &'static str,
    },
    /// A file in /proc can't be read.
    #[error("{what} can't be read from /proc")]
    Proc {
        /// What was looked for.
        what: &'static str,
    },
}
