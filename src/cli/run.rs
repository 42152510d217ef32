//! `runlane run`: submit, follow, exit with the task's code.

use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::exit::{self, BROKEN_PIPE, CANCELED, FAILED, Failure};
use super::global::GlobalArgs;
use super::task_args::TaskArgs;
use super::watch::{Form, Show};
use super::{text, waiting};
use crate::client::{
    CancelError, CancelOptions, Canceled, Client, Follow, FollowEvent, UnknownTask,
};
use crate::wire::{CancelRequest, TaskId};

/// After this time without a start, somebody should be told why.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a cancel waits for the task's end before it says that nothing happens.
const CANCEL_WAIT: Duration = Duration::from_secs(60);

/// Submit a task, show its output, and exit with its exit code
///
/// The task's stdout goes to stdout and its stderr to stderr, byte for byte. Ctrl-C cancels the task and
/// waits for its end; a second Ctrl-C leaves it. A reader of the output that goes away, such as `| head`,
/// cancels the task too. If this command dies in another way, the task goes on: `runlane logs -f ID`
/// follows it from the start.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    task: TaskArgs,

    /// The program and its arguments; no shell is involved
    #[arg(last = true, value_name = "CMD", help_heading = None)]
    command: Vec<String>,
}

pub(super) async fn run(global: &GlobalArgs, args: &RunArgs) -> Result<u8, Failure> {
    let spec = args.task.spec(&args.command)?;
    let client = global.client().await?;
    let (submission, follow) = client.submitter().submit_and_follow(spec).await?;
    if submission.task.duplicate {
        let (id, phase) = (&submission.task.id, submission.phase);
        global.note(format!("task {id} is known already ({phase}); this is its output"));
    }
    attend(global, &client, &submission.task.id, follow).await
}

/// Shows a task's output until its end, cancels it on Ctrl-C, and returns its exit code.
pub(super) async fn attend(
    global: &GlobalArgs,
    client: &Client,
    id: &TaskId,
    mut follow: Follow,
) -> Result<u8, Failure> {
    let form = if global.json { Form::Json } else { Form::Raw };
    let show = Show { form, stream: None, attempt: None, quiet: global.quiet };
    let mut stops = Stops::listen()?;
    let mut cancels = JoinSet::new();
    let impatient = sleep_until(Instant::now() + PATIENCE);
    tokio::pin!(impatient);
    let mut waits = true;
    loop {
        // Cancel safe: the follower, the signals and the set keep what isn't taken.
        tokio::select! {
            event = follow.next() => {
                let Some(event) = event? else { return Ok(FAILED) };
                waits &= !has_begun(&event);
                if let Err(failure) = show.event(&event).await {
                    return Err(leave(client, id, failure).await);
                }
                if let FollowEvent::Outcome(outcome) = event {
                    return Ok(exit::of_outcome(&outcome));
                }
            }
            () = stops.next() => {
                if !cancels.is_empty() {
                    global.note(format!("left task {id}; it is being canceled"));
                    return Ok(CANCELED);
                }
                global.note(format!("canceling task {id}; press Ctrl-C again to leave it"));
                let (client, id) = (client.clone(), id.clone());
                cancels.spawn(async move { client.cancel(&id, &on_ctrl_c()).await });
            }
            Some(Ok(canceled)) = cancels.join_next() => {
                report_cancel(global, id, canceled)?;
            }
            () = &mut impatient, if waits => {
                waits = false;
                explain_wait(global, client, id).await;
            }
        }
    }
}

fn has_begun(event: &FollowEvent) -> bool {
    match event {
        FollowEvent::Status(_) | FollowEvent::Outcome(_) | FollowEvent::Chunk(_) => true,
        FollowEvent::Gap(_) | FollowEvent::Unreachable(_) | FollowEvent::Reachable => false,
    }
}

fn on_ctrl_c() -> CancelOptions {
    let request = CancelRequest {
        reason: Some("interrupted".to_owned()),
        by: Some(text::me()),
        grace_ms: None,
        replaced_by: None,
    };
    CancelOptions { request, wait: CANCEL_WAIT, unknown: UnknownTask::Refuse }
}

/// The outcome itself comes by the follower.
fn report_cancel(
    global: &GlobalArgs,
    id: &TaskId,
    canceled: Result<Canceled, CancelError>,
) -> Result<(), Failure> {
    match canceled? {
        Canceled::Ended(_) | Canceled::AlreadyEnded(_) => {}
        Canceled::Requested => global.note(format!(
            "the cancel request for {id} is stored, but its worker has not ended it yet; waiting on"
        )),
    }
    Ok(())
}

/// The reader of our output went away: a local program would be ended by SIGPIPE, so the task is.
async fn leave(client: &Client, id: &TaskId, failure: Failure) -> Failure {
    if failure.code == BROKEN_PIPE {
        let reason = Some("nobody reads its output any more".to_owned());
        let options = CancelOptions {
            request: CancelRequest { reason, ..on_ctrl_c().request },
            wait: Duration::ZERO,
            unknown: UnknownTask::Refuse,
        };
        // The outcome says what came of it; there is nobody to tell here.
        drop(client.cancel(id, &options).await);
    }
    failure
}

/// Tells why a task waits.
async fn explain_wait(global: &GlobalArgs, client: &Client, id: &TaskId) {
    // If that can't be read, the follower tells that NATS doesn't answer.
    if let Ok(Some(report)) = client.status(id).await
        && let Ok(Some(why)) = waiting::why_pending(client, &report).await
    {
        global.note(why);
    }
}

/// Ctrl-C and SIGTERM.
pub(super) struct Stops {
    interrupt: Signal,
    terminate: Signal,
}

impl Stops {
    pub(super) fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Failure::new(FAILED, format!("cannot listen for signals: {error}"))
            })
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Returns at the next one. Cancel safe.
    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
