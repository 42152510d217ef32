//! The spawner and the task-init: `runlane __task-init`, a program of its own inside `runlane`.
//!
//! Ordinary Rust with one thread, no runtime and little memory, because it forks for each task.
//!
//! | file | who | does |
//! |---|---|---|
//! | `spawner` | one per worker | forks a task-init per request; sweeps after one that died |
//! | `task` | task-init | starts the leader; `tree`: obeys the control socket, ends the tree, reports |
//! | `enclosure` | task-init | what is made before a task is known |
//! | `aftermath` | task-init | the same after a leader that was killed during its setup |
//! | `remove` | task-init, worker | removes what a task has filled a directory with |
//! | `sweep` | both | kills and reaps whatever re-parented here |
//! | `descendants` | task-init | kills who is about to re-parent here |
//! | `leader` | leader | enters the enclosure, waits for its orders |
//! | `word` | leader → task-init | what came of the setup |
//! | `mounts` | leader | its file systems |
//! | `command` | leader | orders → strings for execve, script file |
//! | `child` | leader | the ordered steps before execve |
//! | `sandbox` | leader | what each step of the sandbox does |
//! | `probe` | `runlane __probe` | tries what this host can do for a sandbox |
//! | `sys` | | system calls; the only `unsafe`. `sharing`: a leader in task-init's memory. `scheduling`: who gets the CPU |

mod aftermath;
mod child;
mod command;
mod descendants;
mod enclosure;
mod leader;
mod mounts;
mod probe;
mod remove;
mod sandbox;
mod spawner;
mod standing;
mod sweep;
pub(super) mod sys;
mod task;
mod word;

use std::process::ExitCode;

pub(super) use remove::remove_tree;
pub use sandbox::{Denied, denied};
pub(super) use sandbox::{WITH_REFER, WITH_SCOPES};

use super::link::{AFTERMATH_ARGUMENT, ENTRY_ARGUMENT, PROBE_ARGUMENT};

/// Runs the spawner, or the host's probe, if this process was started as one, and returns its exit
/// code at its end.
///
/// To be called first in `main`, before arguments are parsed, a runtime exists or a thread starts.
pub fn maybe_run() -> Option<ExitCode> {
    let argument = std::env::args_os().nth(1)?;
    // The worker sees the end of the socket, or of the output; there is nobody else to tell.
    let done = match argument.to_str()? {
        ENTRY_ARGUMENT => spawner::run(std::env::args().nth(2)),
        AFTERMATH_ARGUMENT => aftermath::run(std::env::args_os().skip(2)),
        PROBE_ARGUMENT => probe::run(),
        _ => return None,
    };
    Some(if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether two processes use the same memory, as a task-init and a leader that waits do; `None` if the
/// kernel doesn't tell.
pub(crate) fn share_memory(one: u32, other: u32) -> Option<bool> {
    sys::share_memory(i32::try_from(one).ok()?, i32::try_from(other).ok()?)
}
