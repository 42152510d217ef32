//! runlane runs tasks from a NATS JetStream queue as isolated subprocesses.

pub mod config;
pub mod devserver;
pub mod exec;
pub mod nats;
pub mod output;
pub mod task;
pub mod telemetry;
pub mod wire;
pub mod worker;
