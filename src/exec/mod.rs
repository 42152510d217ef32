//! Effects on processes: starts a task, signals it, and sees to it that nothing of it is left.
//!
//! ```text
//! worker ──2 bytes + control socket──► spawner ──fork──► task-init ──clone─► leader ──► …
//!    │                                 (one per worker,   (one per task at    (waits, then becomes the
//!    │                                  exec'ed once)      a time, subreaper)  plan's program)
//!    └────── control socket: enclosure, orders + stdout + stderr, signals ─────┘
//!            ◄─ started | not enclosed | setup failed | ended
//! ```
//!
//! The worker never runs code between fork and exec: that would copy its page tables and stop its
//! threads for milliseconds. It has a *spawner* fork a *task-init* and its leader from a few hundred
//! kilobytes, **before there is a task for them**: what a runner's tasks have in common (cgroup leaf,
//! namespaces, mounts, work directory: the *enclosure*) is made while nobody waits. Then the leader
//! reads its orders, what the plan says beyond that, runs the steps of its setup and becomes the plan's
//! program.
//!
//! **The control socket is the task's lifetime**: when its worker's end closes, because the handle was
//! dropped or the worker was killed, task-init kills the whole tree.
//!
//! A task ends by one ladder, whoever asks: polite signal to the group → grace → SIGKILL to the group and
//! to everything in its cgroup → sweep of every process that re-parented to task-init. The leader stays
//! a zombie until its group was signalled for the last time, so that the group's number can't be
//! another's. After a normal exit the ladder starts at the SIGKILL.

mod armed;
pub mod cgroup;
mod control;
mod host;
pub mod init;
mod launch_error;
mod link;
mod open_files;
mod process;
mod spawn;
mod stop;
mod supervise;
mod uid_pool;
mod work_root;

pub use armed::{Armed, Output, Word};
pub use host::{Probe, probe};
pub use launch_error::LaunchError;
pub use open_files::OpenFiles;
pub use process::{Exit, ExitStatus, Process, ProcessError, Signal, TaskProcess, Usage};
pub use spawn::{Executed, Launched, Spawner, THIS_PROGRAM};
pub use stop::{Stop, set_stop};
pub use supervise::{Ended, SuperviseError, supervise};
pub use work_root::{WorkRoot, WorkRootError};
