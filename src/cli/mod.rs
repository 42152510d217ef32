//! The command line: one file for each verb. Only this module prints.
//!
//! `app` is the whole command; `global` has the flags of every verb and makes the connection; `exit` maps
//! outcomes and errors to exit codes; `task_args`, `more_args` and `specs` make specs of flags and files; `watch`
//! shows a task's output as it comes; `table` and `say` write.

mod app;
mod exit;
mod global;
mod isolation;
mod isolation_args;
mod more_args;
mod say;
mod settings;
mod specs;
mod table;
mod task_args;
mod text;
mod waiting;
mod watch;

mod bench;
mod cancel;
mod check;
mod completions;
mod control;
mod dev;
mod exec;
mod init;
mod lanes;
mod logs;
mod ls;
mod purge;
mod retry;
mod run;
mod schema;
mod status;
mod submit;
mod wait;
mod worker;
mod workers;

pub use app::main;
