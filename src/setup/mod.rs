//! From a resolved configuration to running parts: the connection, and the worker with its metrics
//! and signals.

mod connection;
mod daemon;

pub use connection::{Opened, SetupError, connect_settings, open, topology_settings};
pub use daemon::{DaemonError, DaemonOptions, Ended, daemon, worker_settings};
