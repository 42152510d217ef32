//! The spawner and the task-init: `runlane __task-init`, a program of its own inside `runlane`.
//!
//! Ordinary Rust with one thread, no runtime and little memory, because it forks for each task.
//!
//! | file | who | does |
//! |---|---|---|
//! | `spawner` | one per worker | forks a task-init per request; sweeps after one that died |
//! | `task` | task-init | starts the leader, obeys the control socket, ends the tree, reports |
//! | `command` | task-init | plan → strings for execve, script file |
//! | `child` | leader, before execve | the ordered steps of the setup |
//! | `probe` | `runlane __probe` | tries what this host can do for a sandbox |
//! | `sandbox` | leader, before execve | what each step of the sandbox does |
//! | `sweep` | both | kills and reaps whatever re-parented here |
//! | `sys` | | system calls; the only `unsafe` |

mod child;
mod command;
mod probe;
mod sandbox;
mod spawner;
mod sweep;
mod sys;
mod task;

use std::process::ExitCode;

pub use sandbox::{Denied, denied};
pub(super) use sandbox::{WITH_REFER, WITH_SCOPES};

use super::link::{ENTRY_ARGUMENT, PROBE_ARGUMENT};

/// Runs the spawner, or the host's probe, if this process was started as one, and returns its exit
/// code at its end.
///
/// To be called first in `main`, before arguments are parsed, a runtime exists or a thread starts.
pub fn maybe_run() -> Option<ExitCode> {
    let argument = std::env::args_os().nth(1)?;
    // The worker sees the end of the socket, or of the output; there is nobody else to tell.
    let done = match argument.to_str()? {
        ENTRY_ARGUMENT => spawner::run(),
        PROBE_ARGUMENT => probe::run(),
        _ => return None,
    };
    Some(if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
