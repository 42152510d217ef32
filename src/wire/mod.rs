//! What crosses the wire: identifiers, subjects, task specs, lifecycle events, output headers.
//!
//! Requests (task specs, control requests) refuse unknown fields, so that a typo is not ignored; records
//! and answers may gain fields, so that readers of another version understand them.
//!
//! These types are the public API. `schemas/*.json` is generated from them by `runlane schema`, and
//! `docs/protocol.md` explains them to clients in other languages. Nothing here does I/O.

pub mod control;
pub mod ids;
pub mod isolation;
pub mod lane;
pub mod output;
pub mod policy;
pub mod presence;
pub mod problem;
pub mod schema;
pub mod selector;
pub mod slot;
pub mod status;
pub mod subject;
pub mod submit;
pub mod task_spec;

pub use control::{ControlReply, ControlRequest};
pub use ids::{Attempt, InvalidId, LaneId, Namespace, TaskId, WorkerId};
pub use isolation::{IsolationSpec, Network, Preset, RlimitSpec};
pub use lane::LaneRecord;
pub use output::{Compression, Stream, StreamTotals};
pub use policy::{Admission, Backoff, Jitter, OnWorkerLost, Restart};
pub use presence::{RunnerPresence, WorkerPresence, WorkerState};
pub use problem::Problem;
pub use selector::{Operator, Requirement, Selector};
pub use slot::{SlotHolder, SlotRecord, SlotWaiter};
pub use status::{
    CancelRequest, Cause, CpuTime, ErrorDetail, Finished, Outcome, OutputTotals, Phase, Requeued,
    Retrying, Started, StatusEvent, StopReason,
};
pub use subject::{PurgeTimer, Subjects, Timer};
pub use submit::{SubmitReply, Submitted};
pub use task_spec::{
    CommandMode, ContainerSpec, EnvVar, Kind, OutputSpec, Runtime, ScriptMode, SubprocessMode,
    SubprocessSpec, TaskKind, TaskSpec, WasmSpec,
};
