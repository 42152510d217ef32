//! What the command line and Rust programs use: submit, follow, wait, cancel, look.
//!
//! | file | does |
//! |---|---|
//! | `submit`, `bulk` | puts tasks in their lanes' queues, once each |
//! | `follow` | output and records in order, from byte 0, until the outcome |
//! | `wait` | the outcomes of many tasks |
//! | `schedule` | delays, expiry and the end of results, kept by the server's clock |
//! | `cancel` | ends a task wherever it is, or says why not |
//! | `status`, `list` | one task's records; the newest tasks |
//! | `again` | runs a finished task again, or removes it |
//! | `control` | asks one worker to drain, pause or resume |
//! | `workers`, `lanes` | who is there, what waits, and which label each worker lacks |
//!
//! Everything goes through `nats::Bus`; any NATS client can do the same from docs/protocol.md.

pub mod again;
pub mod bulk;
pub mod cancel;
pub mod control;
pub mod follow;
pub mod lanes;
pub mod list;
pub(crate) mod schedule;
pub mod status;
pub mod submit;
pub mod wait;
pub mod workers;

mod bucket;
mod connection;

pub use again::AgainError;
pub use cancel::{CancelError, CancelOptions, Canceled, UnknownTask};
pub use connection::Client;
pub use control::ControlError;
pub use follow::{Follow, FollowEvent, Gap, GapReason, OutputChunk};
pub use lanes::{LaneReport, UnavailableWorker, WorkerMismatch};
pub use list::{ListFilter, Listed, Listing};
pub use status::{QueuedTask, TaskReport};
pub use submit::{Submission, SubmitError, Submitter};
pub use wait::Waiter;
pub use workers::WorkerList;
