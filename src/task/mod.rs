//! Decisions about a task. No I/O, no clock, no async: each step is a function of its arguments.
//!
//! In the order a message meets them: `decode` and `validate` → `lane` → `route` → `plan` → `admit`;
//! after the run, `retry`; and `claim` decides what a worker may do with a task given its status chain.

pub mod admit;
mod capabilities;
mod claim;
mod decode;
mod duration;
mod feature;
mod fields;
pub mod isolation;
mod json;
mod lane;
mod limits;
mod path;
pub mod plan;
mod problems;
mod retry;
mod route;
pub mod sandbox;
mod selector;
mod short;
mod short_isolation;
mod size;
pub mod tighten;
mod validate;
mod wishes;
mod work;

pub use capabilities::{CAPABILITIES, is_capability};
pub use claim::{Claim, Situation, claim};
pub use decode::{MAX_SPEC_BYTES, canonical, decode};
pub use duration::{Human, InvalidDuration, parse_duration};
pub use isolation::{Feature, Host, IsolationPolicy, Resolved, Unsupported};
pub use limits::{
    MIN_MEMORY_BYTES, NAME_BYTES, env_name_problem, is_env_name, is_name, least_rlimit,
};
pub use plan::{
    Interpreters, LaunchPlan, OutputLimits, PlanError, Program, RunIdentity, RunnerPolicy, plan,
};
pub use retry::{AttemptEnd, Delays, History, Next, RetryPolicy, after_attempt};
pub use route::{DuplicateRunner, RUNNER_NAME_LABEL, RouteError, RouteTable, RunnerEntry};
pub use sandbox::{
    CgroupLimits, CpuMax, Enclosure, FileRules, Identity, Landlock, Mounts, Namespaces, Rlimit,
    Sandbox, Seccomp, UserIds,
};
pub use selector::{InvalidSelector, Labels};
pub use short::{expand, parse_submission};
pub use size::parse_size;
pub use tighten::{RunnerIsolation, TaskIsolation};
pub use validate::{LossPolicy, MAX_COUNT, SlotRequest, Task, parse};
pub use work::{ProcessMode, ProcessWork, Work};
