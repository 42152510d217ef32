//! `runlane drain`, `pause` and `resume`: speak to workers.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::exit::Failure;
use super::global::GlobalArgs;
use super::say;
use crate::task::parse_duration;
use crate::wire::{ControlReply, ControlRequest, WorkerId};

/// Let workers finish what they run, take nothing new, and end
///
/// Tasks that still run at the deadline are stopped and handed back: other workers run them again,
/// without counting a failure. The workers' processes end then.
#[derive(Debug, Args)]
pub(super) struct DrainArgs {
    /// The workers
    #[arg(required = true, value_name = "WORKER")]
    workers: Vec<WorkerId>,

    /// How long running tasks may go on, such as 5m [default: the worker's drain timeout]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    deadline: Option<Duration>,

    /// Stop running tasks at once and hand them back; the same as --deadline 0s
    #[arg(long, conflicts_with = "deadline")]
    cancel: bool,
}

/// Let workers take nothing new until they are resumed; what runs goes on
#[derive(Debug, Args)]
pub(super) struct PauseArgs {
    /// The workers
    #[arg(required = true, value_name = "WORKER")]
    workers: Vec<WorkerId>,
}

/// Let paused workers take tasks again
#[derive(Debug, Args)]
pub(super) struct ResumeArgs {
    /// The workers
    #[arg(required = true, value_name = "WORKER")]
    workers: Vec<WorkerId>,
}

#[derive(Serialize)]
struct Line<'a> {
    worker: &'a WorkerId,
    #[serde(flatten)]
    reply: ControlReply,
}

pub(super) async fn drain(global: &GlobalArgs, args: &DrainArgs) -> Result<u8, Failure> {
    let deadline = if args.cancel { Some(Duration::ZERO) } else { args.deadline };
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let request = ControlRequest::Drain { deadline_ms: deadline.map(millis) };
    ask(global, &args.workers, &request).await
}

pub(super) async fn pause(global: &GlobalArgs, args: &PauseArgs) -> Result<u8, Failure> {
    ask(global, &args.workers, &ControlRequest::Pause {}).await
}

pub(super) async fn resume(global: &GlobalArgs, args: &ResumeArgs) -> Result<u8, Failure> {
    ask(global, &args.workers, &ControlRequest::Resume {}).await
}

async fn ask(
    global: &GlobalArgs,
    workers: &[WorkerId],
    request: &ControlRequest,
) -> Result<u8, Failure> {
    let client = global.client().await?;
    let mut code = 0;
    for worker in workers {
        match client.control(worker, request).await {
            Ok(reply) if global.json => say::json(&Line { worker, reply })?,
            Ok(reply) => {
                let state = serde_json::to_value(reply.state).unwrap_or_default();
                let state = state.as_str().unwrap_or("unknown").to_owned();
                say::line(format!("{worker} {state}, running {}", reply.running))?;
            }
            Err(error) => code = say::failure(error.into()),
        }
    }
    Ok(code)
}
