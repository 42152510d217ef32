//! Measures how fast runlane is where it runs, each figure beside the limit of the same machine in the
//! same minutes.
//!
//! ```text
//!   Site: a server, a namespace and a worker process        limits: bare spawns, a pipe, a round trip
//!     │                                                        │
//!     └──► throughput, latency, … ◄── in turns, round by round ┘
//!                   │
//!                   ▼
//!                Report: medians over the rounds, with their spread
//! ```
//!
//! Every guarantee is on in what is measured: tasks go through a real nats-server with file storage and
//! a real worker, and each ends with a stored outcome. Nothing here prints; `runlane bench` does.
//!
//! Only for programs whose `main` calls [`helper::maybe_run`] and [`crate::devserver::guard::maybe_run`]: it starts
//! its own executable for the limits, and to guard what it has started.
//!
//! | file | has |
//! |---|---|
//! | `site`, `namespace`, `worker` | where it runs: server, streams, worker processes; all of it ends with the site |
//! | `server_watch` | notices that the server has ended |
//! | `helper` | small processes of this program that the limits are measured with |
//! | `limits` | what the machine can do without runlane |
//! | `throughput`, `latency`, `output`, `cancel`, `submit`, `idle` | the scenarios |
//! | `growth`, `curve` | how costs grow, one file for each thing that does; their pictures |
//! | `proc`, `facts`, `stats` | CPU times and memory from /proc, the machine, medians |
//! | `report` | what is handed out, as it stands in JSON |

mod cancel;
mod curve;
mod error;
mod facts;
mod growth;
pub mod helper;
mod idle;
mod latency;
mod limits;
mod namespace;
mod output;
mod proc;
mod report;
mod server_watch;
mod site;
mod stats;
mod submit;
mod throughput;
mod worker;

pub use cancel::{CancelBenchOptions, CancelTimes, cancel};
pub use curve::{Curve, Series};
pub use error::BenchError;
pub use facts::{Facts, Machine};
pub use growth::{Growing, GrowthOptions, Reach, growth};
pub use idle::{Idle, IdleOptions, idle};
pub use latency::{Latency, LatencyOptions, latency};
pub use limits::{Limits, LimitsOptions, limits};
pub use output::{Output, OutputOptions, output};
pub use report::{FORMAT, Report};
pub use server_watch::ServerWatch;
pub use site::{Place, Site, SiteOptions};
pub use stats::Spread;
pub use submit::{SubmitBenchOptions, SubmitRate, submit};
pub use throughput::{CpuMs, Throughput, ThroughputOptions, throughput};
pub use worker::WorkerCommand;

/// Told what is being measured now, for a person who waits.
pub type Progress<'a> = &'a (dyn Fn(&str) + Sync);
