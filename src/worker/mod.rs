//! The worker: pulls tasks, runs them, and says how they ended.
//!
//! ```text
//! Worker::start ─► services: intake, lane watch, submit service      (one JoinSet, ended at the end)
//!              └─► main loop ─► run (one per task): prepare ─► admit ─► claim ─► attempt ─► finish
//!                                                  └── lease keeper, beside it
//! ```

mod admit;
mod ahead;
mod answers;
mod attempt;
mod cancel_sweep;
mod chores;
mod claim;
mod drain;
mod due;
mod finish;
mod judge;
mod lanes;
mod lease;
mod lease_keeper;
mod main_loop;
mod places;
mod prepare;
mod presence;
mod rest;
mod run;
pub mod runner;
mod service;
mod shared;
mod spool;
mod start;
mod stop;
mod suspend;

pub use drain::{Drain, Report};
pub use presence::features;
pub use runner::{LineLog, Router, Runner, SubprocessRunner};
pub use start::{Readiness, Worker, WorkerError, WorkerSettings};
