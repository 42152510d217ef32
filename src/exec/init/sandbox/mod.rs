//! The steps of a [`crate::task::Sandbox`] that the leader's process runs before execve.
//!
//! Each is a function for a process with one thread; the caller names it and keeps the order:
//!
//! | step | needs | so it comes before |
//! |---|---|---|
//! | `priority`: OOM score, nice | maybe CAP_SYS_NICE | `identity`, `capabilities` |
//! | `rlimits` | nothing | `identity`: the kernel checks `nproc` at the switch |
//! | `bounding` | CAP_SETPCAP | `identity`, which may take it away |
//! | `identity` | CAP_SETUID, CAP_SETGID | `capabilities` |
//! | `capabilities` | nothing | |
//! | `no_new_privs` | nothing | `landlock`, `seccomp`: both need it or CAP_SYS_ADMIN |
//! | `landlock` | | |
//! | `seccomp` | | nothing: it is last before execve, so that it denies no step |

pub(super) mod capabilities;
mod error;
pub(super) mod identity;
pub(super) mod landlock;
pub(super) mod priority;
pub(super) mod rlimits;
pub(super) mod seccomp;

pub(super) use error::StepError;
pub(in crate::exec) use landlock::{WITH_REFER, WITH_SCOPES};
pub use seccomp::{Denied, denied};
