//! runlane runs tasks from a NATS JetStream queue as isolated subprocesses.

pub mod client;
pub mod nats;
pub mod task;
pub mod wire;
