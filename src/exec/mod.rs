//! Effects on processes: starts a task, signals it, and sees to it that nothing of it is left.
//!
//! ```text
//! worker ──1 byte + 3 descriptors──► spawner ──fork──► task-init ──fork──► leader ──► …
//!    │                               (one per worker,   (one per task,      (the plan's program,
//!    │                                exec'ed once)      child subreaper)    own session and group)
//!    └──────────── control socket: plan, signals ─────────┘
//!                  ◄─ started | setup failed | ended
//! ```
//!
//! The worker never runs code between fork and exec: that would copy its page tables and stop its
//! threads for milliseconds. It hands three descriptors to the *spawner*, which forks a *task-init*
//! per task from its few hundred kilobytes. **The control socket is the task's lifetime**: when its
//! worker's end closes, because the handle was dropped or the worker was killed, task-init kills the
//! whole tree.
//!
//! A task ends by one ladder, whoever asks: polite signal to the group → grace → SIGKILL to the group →
//! sweep of every process that re-parented to task-init → the leader is reaped last, so that its group
//! id can't be another's while it is signalled. After a normal exit the ladder starts at the SIGKILL.

mod host;
pub mod init;
mod link;
mod process;
mod spawn;
mod stop;
mod supervise;

pub use host::{Probe, probe};
pub use process::{Exit, ExitStatus, Process, ProcessError, Signal, TaskProcess, Usage};
pub use spawn::{LaunchError, Launched, Spawner};
pub use stop::{Stop, set_stop};
pub use supervise::{Ended, SuperviseError, supervise};
