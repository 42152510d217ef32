//! How many files may be open at once (`RLIMIT_NOFILE`).
//!
//! A worker has five open for each task that runs, and the usual soft limit of 1024 is for programs that
//! use `select(2)`. So a worker takes what the hard limit allows, and its tasks get the soft limit that the
//! worker was started with ([`super::Spawner::with_open_files`]).

use std::io;
use std::num::NonZero;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::spawn::{KEPT_PER_CORE, KINDS};

/// Of a place: both ends of the pipes of its task's output, the socket to its task-init, and that of the task
/// before, whose end is being stored.
const OF_A_PLACE: u64 = 6;
/// Connections, the runtime, the log, probes and scrapes.
const OF_A_WORKER: u64 = 48;
/// Of a kind of sandbox: the pipes of the spare that waits for its next task.
const OF_A_KIND: u64 = 4;

/// The limits of a worker that has raised its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFiles {
    /// The worker's own.
    pub ours: u64,
    /// What its tasks get, unless their runner says otherwise.
    pub of_tasks: u64,
}

impl OpenFiles {
    /// Raises this process's soft limit to the hard one.
    ///
    /// # Errors
    /// The kernel refuses; nothing is known that it would refuse this for.
    pub fn raise() -> io::Result<Self> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        Ok(Self { ours: hard, of_tasks: soft })
    }

    /// How many a worker with so many places has open.
    pub fn needed(capacity: NonZero<usize>) -> u64 {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let spares = (KEPT_PER_CORE * cores) as u64 + OF_A_KIND * KINDS as u64;
        OF_A_WORKER + spares + OF_A_PLACE * capacity.get() as u64
    }
}

/// Sets the soft limit of this process and of all that it starts.
pub(super) fn set_soft(limit: u64) -> io::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    Ok(setrlimit(Resource::RLIMIT_NOFILE, limit.min(hard), hard)?)
}
