//! `runlane logs`: what a task wrote.

use clap::Args;

use super::exit::{FAILED, Failure};
use super::global::GlobalArgs;
use super::watch::{Form, Show};
use crate::wire::{Attempt, Stream, TaskId};

/// Show a task's output from its first byte
///
/// Without -f this prints what is stored and ends. With -f it follows a task that runs, or that is not
/// even submitted yet, and ends by itself with the task. stdout goes to stdout and stderr to stderr.
#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    /// The task
    #[arg(value_name = "ID")]
    id: TaskId,

    /// Follow the task until its end
    #[arg(long, short = 'f')]
    follow: bool,

    /// Only what it wrote to stdout
    #[arg(long, conflicts_with = "stderr")]
    stdout: bool,

    /// Only what it wrote to stderr
    #[arg(long)]
    stderr: bool,

    /// Only this attempt; without it all of them, one after the other
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    attempt: Option<u32>,
}

pub(super) async fn run(global: &GlobalArgs, args: &LogsArgs) -> Result<u8, Failure> {
    let client = global.client().await?;
    let show = Show {
        form: if global.json { Form::Json } else { Form::Raw },
        stream: match (args.stdout, args.stderr) {
            (true, _) => Some(Stream::Stdout),
            (false, true) => Some(Stream::Stderr),
            (false, false) => None,
        },
        attempt: args.attempt.map(Attempt),
        // How a task ended is not a part of what it wrote.
        quiet: global.quiet || !args.follow,
    };
    let mut follow =
        if args.follow { client.follow(&args.id).await? } else { client.stored(&args.id) };
    if args.follow && client.status(&args.id).await?.is_none() {
        global.note(format!("task {} is not known yet; waiting for it", args.id));
    }
    let mut heard_something = false;
    while let Some(event) = follow.next().await? {
        heard_something = true;
        show.event(&event).await?;
    }
    if !heard_something && client.status(&args.id).await?.is_none() {
        let message = format!("task {} is unknown, and no output of it is stored", args.id);
        return Err(Failure::new(FAILED, message));
    }
    Ok(0)
}
