//! Configuration: flags and environment over one TOML file over defaults.
//!
//! ```text
//! file ─► RawConfig ─┐
//! flags ► RawConfig ─┴─► merged ─► resolve: every problem at once ─► Config
//! ```
//!
//! [`RawConfig`] says only what somebody wrote; [`Config`] is complete and can't be wrong. Secrets are
//! never printed: `Debug` shows that there is one, and where it is from.

mod load;
mod merge;
mod nats;
mod places;
mod raw;
mod report;
mod runner;
mod sandbox;
mod secret;
mod streams;
mod worker;

pub use crate::task::parse_size;
pub use load::{Config, ConfigErrors, DEFAULT_FILTER, Host, LogConfig, LogFormat};
pub use nats::{Auth, ClientCert, NatsConfig, SecretSource, TlsConfig};
pub use raw::{
    RawConfig, RawInherit, RawInterpreters, RawLog, RawMetrics, RawNats, RawRunner, RawRunnerLog,
    RawSize, RawStreams, RawTls, RawWorker,
};
pub use runner::{InheritEnv, LineLog, RunnerConfig};
pub use sandbox::{DEFAULT_PRESET, RawCgroup, RawId, RawLimit, RawRlimits, RawSandbox};
pub use secret::Secret;
pub use streams::{Storage, StreamsConfig};
pub use worker::{CgroupBase, WorkerConfig};
