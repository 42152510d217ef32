//! The spawner and the task-init: `runlane __task-init`, a program of its own inside `runlane`.
//!
//! Ordinary Rust with one thread, no runtime and little memory, because it forks for each task.
//!
//! | file | who | does |
//! |---|---|---|
//! | `spawner` | one per worker | forks a task-init per request; sweeps after one that died |
//! | `task` | task-init | forks the leader, obeys the control socket, ends the tree, reports |
//! | `enclosure` | task-init | what is made before a task is known |
//! | `sweep` | both | kills and reaps whatever re-parented here |
//! | `leader` | leader | enters the enclosure, waits for the plan |
//! | `mounts` | leader | its file systems |
//! | `command` | leader | plan → strings for execve, script file |
//! | `child` | leader | the ordered steps before execve |
//! | `sys` | | system calls; the only `unsafe` |

mod child;
mod command;
mod enclosure;
mod leader;
mod mounts;
mod spawner;
mod sweep;
pub(super) mod sys;
mod task;

use std::process::ExitCode;

pub(super) use enclosure::remove_tree;

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
