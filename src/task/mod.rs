//! Decisions about a task. No I/O, no clock, no async: each step is a function of its arguments.
//!
//! In the order a message meets them: `decode` and `validate` → `lane` → `route` → `plan` → `admit`;
//! after the run, `retry`; and `claim` decides what a worker may do with a task given its status chain.

pub mod plan;

pub use plan::{LaunchPlan, OutputLimits, Program, Sandbox};
