//! runlane runs tasks from a NATS JetStream queue as isolated subprocesses, streams their output, and
//! gives each task exactly one outcome.
//!
//! ```text
//!   submitter                NATS JetStream                              worker
//!  ───────────              ────────────────                            ────────
//!  client::submit ──► RUNLANE_QUEUE  queue.<lane>.<id>  ──► nats::intake ─► worker::main_loop
//!                                                                              │ one run per task
//!  client::cancel ──► RUNLANE_TASKS  task.<id>.cancel   ──► nats::cancel ──────┤
//!                                    task.<id>.status   ◄── worker::claim      │ prepare: decode,
//!                                                       ◄── worker::finish     │   validate, route
//!  client::wait   ◄──                task.<id>.outcome  ◄──                    │ claim, plan, run,
//!                                                                              ▼ settle, ack
//!  client::follow ◄── RUNLANE_OUTPUT output.<id>.stdout ◄── nats::publisher ◄─ output::pump ◄─ exec
//! ```
//!
//! A task's life is one chain of records on `task.<id>.status`. Every record names the one before it,
//! so each step has exactly one writer, on one server and on a cluster. Whoever loses a step reads the
//! chain and does what it says.
//!
//! | module | has | may use |
//! |---|---|---|
//! | [`wire`] | what crosses the wire: ids, subjects, specs, records | nothing |
//! | [`task`] | decisions: decode, validate, lane, route, plan, claim, retry | `wire` |
//! | [`exec`] | effects on processes: spawner, task-init, supervision | the launch plan |
//! | [`output`] | pipes → numbered, bounded chunks | `task`, `wire` |
//! | [`nats`] | the only user of the NATS client library | `output`, `wire` |
//! | [`client`] | submit, follow, wait, cancel, look | `nats`, `task` |
//! | [`worker`] | one loop that owns the state, one future per task | all of these |
//! | [`config`] | file, environment and flags → one checked configuration | `task`, `wire` |
//! | [`mod@bench`] | measures all of it, beside the machine's limits | `client`, `devserver` |
//! | [`telemetry`], [`devserver`], [`cli`] | logs and metrics; a nats-server to try; the command line | |
//!
//! A test holds these directions. What is promised to users is in `docs/`, why it is done this way in
//! `docs/decisions.md`.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "runlane starts and ends processes by Linux' own means; it does not build elsewhere"
);

pub mod wire;

pub mod task;

pub mod exec;
pub mod output;

pub mod nats;

pub mod client;
pub mod worker;

pub mod config;
pub mod telemetry;

pub mod bench;
pub mod cli;
pub mod devserver;
