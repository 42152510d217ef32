//! `runlane run`: submit, follow, exit with the task's code.

use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::exit::{self, BROKEN_PIPE, CANCELED, FAILED, Failure};
use super::global::GlobalArgs;
use super::task_args::TaskArgs;
use super::text;
use super::watch::{Form, Show};
use crate::client::{
    CancelError, CancelOptions, Canceled, Client, Follow, FollowEvent, LaneReport,
    UnavailableWorker, UnknownTask,
};
use crate::wire::{CancelRequest, LaneId, Phase, TaskId, WorkerState};

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
    attend(global, &client, &submission.task.id, &submission.task.lane, follow).await
}

/// Shows a task's output until its end, cancels it on Ctrl-C, and returns its exit code.
pub(super) async fn attend(
    global: &GlobalArgs,
    client: &Client,
    id: &TaskId,
    lane: &LaneId,
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
                explain_wait(global, client, id, lane).await;
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

/// Tells why a task waits, if nobody can take it.
async fn explain_wait(global: &GlobalArgs, client: &Client, id: &TaskId, lane: &LaneId) {
    let pending = client.status(id).await.ok().flatten().is_none_or(|r| r.phase == Phase::Pending);
    if !pending {
        return;
    }
    // If the lane can't be read, the follower tells that NATS doesn't answer.
    if let Ok(Some(report)) = client.lane(lane).await {
        global.note(why_waiting(&report));
    }
}

/// Why a lane's tasks wait, in a sentence.
pub(super) fn why_waiting(report: &LaneReport) -> String {
    let not_now: Vec<String> = report.unavailable.iter().map(why_unavailable).collect();
    let not_now = not_now.join(", ");
    if !report.workers.is_empty() {
        let n = report.workers.len();
        let others = if not_now.is_empty() { not_now } else { format!("; {not_now}") };
        return format!(
            "waiting for a free place: {n} worker(s) can take the task, {} task(s) of its lane run or wait for a retry{others}",
            report.running
        );
    }
    if !not_now.is_empty() {
        return format!("waiting: the workers that could take the task take none now: {not_now}");
    }
    if report.mismatches.is_empty() {
        return "waiting: no worker is there; start one with `runlane worker`".to_owned();
    }
    let lacks: String = report
        .mismatches
        .iter()
        .map(|mismatch| format!("\n  {} lacks {}", mismatch.worker, mismatch.lacks.join(" and ")))
        .collect();
    let selector = report.record.selector.to_string();
    let asks = if selector.is_empty() { String::new() } else { format!(" with {selector}") };
    format!("waiting: no worker can take {} tasks{asks}:{lacks}", report.record.kind)
}

fn why_unavailable(UnavailableWorker { worker, state }: &UnavailableWorker) -> String {
    let is = match state {
        WorkerState::Resting => "resting because its host could not start tasks",
        WorkerState::Unknown => "in a state that this version doesn't know",
        WorkerState::Ready | WorkerState::Paused | WorkerState::Draining => state.as_str(),
    };
    format!("{worker} is {is}")
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
