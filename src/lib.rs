//! runlane runs tasks from a NATS JetStream queue as isolated subprocesses.

pub mod config;
pub mod task;
pub mod wire;
