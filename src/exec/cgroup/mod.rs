//! A cgroup (version 2) for each task: its limits, its usage, and the kill that nothing outruns.
//!
//! ```text
//! <base>                              delegated to the worker, or configured
//! ├─ runlane-<pid>-<random>           one per worker, held by flock(2) for as long as it lives
//! │  ├─ self                          the worker and its helpers, if they had to leave <base>
//! │  ├─ task-<pid>                    the leaf of one attempt
//! │  └─ …
//! └─ runlane-…                        another worker's; without a lock its worker is dead, and
//!                                     whoever opens the base next kills and removes it
//! ```
//!
//! Controllers are enabled in `<base>` and in the worker's directory, never above, and what is on is
//! read back. A leaf is new for each attempt, killed at most once and then removed: kernels from 6.12 on
//! may kill at birth whoever is put into one that was killed before, if it is cloned into it. Processes
//! therefore join by `cgroup.procs`.
//!
//! | file | does |
//! |---|---|
//! | `base` | takes the base over once, when the worker starts |
//! | `place` | finds the cgroup that is delegated to the worker |
//! | `controllers` | enables and reads back |
//! | `stale` | ends what dead workers have left |
//! | `leaf` | one attempt's cgroup |
//! | `dir` | files and events of one cgroup directory |
//! | `parse` | the kernel's texts |

mod base;
mod controllers;
mod dir;
mod leaf;
mod parse;
mod place;
mod stale;

pub use base::{Base, CgroupError, CgroupSetting, Stale};
pub use leaf::{Leaf, LeafUsage, LimitError};
