//! `runlane cancel`: end tasks wherever they are.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::exit::{FAILED, Failure};
use super::global::GlobalArgs;
use super::{say, text};
use crate::client::{CancelOptions, Canceled, UnknownTask};
use crate::task::parse_duration;
use crate::wire::{CancelRequest, Outcome, TaskId};

/// End tasks, whether they run, wait, or are between two attempts
///
/// A running task gets a polite signal, and SIGKILL after its grace period. A task that has not started
/// never starts. The request is stored, so it holds even if the task's worker doesn't answer now.
#[derive(Debug, Args)]
pub(super) struct CancelArgs {
    /// The tasks
    #[arg(required = true, value_name = "ID")]
    ids: Vec<TaskId>,

    /// Why, for the task's outcome
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,

    /// Time between the polite signal and SIGKILL, such as 10s; 0s kills at once [default: the task's]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    grace: Option<Duration>,

    /// How long to wait for the end of a running task
    #[arg(long, value_name = "TIME", value_parser = parse_duration, default_value = "30s")]
    wait: Duration,

    /// Also cancel a task that nobody has heard of, so that it never starts when it is submitted
    #[arg(long)]
    even_if_unknown: bool,
}

/// What became of one request.
#[derive(Serialize)]
#[serde(tag = "result", rename_all = "camelCase")]
enum Line<'a> {
    Ended { id: &'a TaskId, outcome: &'a Outcome },
    AlreadyEnded { id: &'a TaskId, outcome: &'a Outcome },
    Requested { id: &'a TaskId },
}

pub(super) async fn run(global: &GlobalArgs, args: &CancelArgs) -> Result<u8, Failure> {
    let client = global.client().await?;
    let grace = args.grace.map(|grace| u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
    let options = CancelOptions {
        request: CancelRequest {
            reason: args.reason.clone(),
            by: Some(text::me()),
            grace_ms: grace,
            replaced_by: None,
        },
        wait: args.wait,
        unknown: if args.even_if_unknown { UnknownTask::EndIt } else { UnknownTask::Refuse },
    };
    let mut code = 0;
    for id in &args.ids {
        match client.cancel(id, &options).await {
            Ok(canceled) => {
                if canceled == Canceled::Requested {
                    code = FAILED;
                }
                print(global, id, &canceled)?;
            }
            Err(error) => {
                let failure = Failure::from(error);
                code = failure.code;
                say::note(failure.message.unwrap_or_default());
            }
        }
    }
    Ok(code)
}

fn print(global: &GlobalArgs, id: &TaskId, canceled: &Canceled) -> Result<(), Failure> {
    if global.json {
        return say::json(&match canceled {
            Canceled::Ended(outcome) => Line::Ended { id, outcome },
            Canceled::AlreadyEnded(outcome) => Line::AlreadyEnded { id, outcome },
            Canceled::Requested => Line::Requested { id },
        });
    }
    if global.quiet {
        return Ok(());
    }
    say::line(match canceled {
        Canceled::Ended(outcome) => format!("{id}  {}", text::ended(outcome)),
        Canceled::AlreadyEnded(outcome) => {
            format!("{id}  had ended before: {}", text::ended(outcome))
        }
        Canceled::Requested => {
            format!("{id}  the request is stored, but the task's worker has not ended it yet")
        }
    })
}
