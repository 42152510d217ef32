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
//! | `sandbox` | leader, before execve | what each step of the sandbox does |
//! | `sweep` | both | kills and reaps whatever re-parented here |
//! | `sys` | | system calls; the only `unsafe` |

mod child;
mod command;
mod sandbox;
mod spawner;
mod sweep;
mod sys;
mod task;

use std::process::ExitCode;

pub use sandbox::{Denied, denied};

use super::link::ENTRY_ARGUMENT;

/// Runs the spawner if this process was started as one, and returns its exit code at its end.
///
/// To be called first in `main`, before arguments are parsed, a runtime exists or a thread starts.
pub fn maybe_run() -> Option<ExitCode> {
    if std::env::args_os().nth(1)? != ENTRY_ARGUMENT {
        return None;
    }
    // Its worker sees the end of the socket; there is nobody else to tell.
    Some(if spawner::run().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
