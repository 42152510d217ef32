//! What all runs of a worker share. Nothing here changes after the start, so there is no lock.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, watch};

use super::admit::Turns;
use super::lanes::Lanes;
use super::places::Ask;
use super::rest::Start;
use super::runner::{LineLog, Router};
use super::spool::Spool;
use crate::exec::{LaunchError, Spawner};
use crate::nats::topology::DEFAULT_LEASE;
use crate::nats::{Bus, OutputPublisher, Slots, StatusLog};
use crate::telemetry::metrics;
use crate::wire::{LaneId, Outcome, SlotRecord, TaskId, WorkerId};

/// How long one step of a task's chain waits for a server that is away, as far as the lease lasts.
pub(super) const STORE_PATIENCE: Duration = Duration::from_secs(20);

/// What all runs of a worker share.
pub(super) struct Shared {
    pub(super) worker: WorkerId,
    pub(super) bus: Bus,
    pub(super) log: StatusLog,
    pub(super) slots: Slots,
    /// Changes of slots as they are heard.
    pub(super) slot_changes: broadcast::Sender<Arc<SlotRecord>>,
    /// Whose turn it is to look at a slot.
    pub(super) turns: Turns,
    /// Where runs ask for another sort of place.
    pub(super) places: mpsc::Sender<Ask>,
    /// Where runs say what came of their task's start, if that matters.
    pub(super) starts: mpsc::Sender<Start>,
    pub(super) publisher: OutputPublisher,
    pub(super) spool: Spool,
    pub(super) spawner: Spawner,
    pub(super) router: Arc<Router>,
    pub(super) lanes: watch::Receiver<Lanes>,
    /// Whether short tasks follow each other here, with no place left empty.
    pub(super) is_crowded: watch::Receiver<bool>,
    /// How often the machine woke from a suspend.
    pub(super) wakes: watch::Receiver<u64>,
    /// Whether starts have failed here lately.
    pub(super) is_in_doubt: watch::Receiver<bool>,
}

impl Shared {
    /// The lease of a lane's tasks.
    pub(super) fn lease_of(&self, lane: &LaneId) -> Duration {
        self.lanes.borrow().get(lane).map_or(DEFAULT_LEASE, |lane| lane.lease)
    }

    /// Gives back a task's slot after the end of its chain. A failure is only a delay: whoever wants
    /// the slot sees that the task has ended.
    pub(super) async fn release(&self, slot: Option<&str>, task: &TaskId) {
        let Some(slot) = slot else { return };
        if let Err(error) = self.slots.release(slot, task).await {
            tracing::warn!(%task, slot, %error, "a slot was not given back; the next task that wants it does it");
        }
    }

    /// Says what came of a task's start, unless it failed by the task's own fault.
    pub(super) fn tell_start(&self, task: &TaskId, failed: Option<&LaunchError>) {
        let succeeded = match failed {
            Some(error) if error.is_of_the_host() => {
                metrics::runner_error("start");
                false
            }
            Some(_) => return,
            None if *self.is_in_doubt.borrow() => true,
            None => return,
        };
        self.starts.try_send(Start { task: task.clone(), succeeded }).ok();
    }

    /// How lines of a runner's tasks go to the log, if they do.
    pub(super) fn line_log(&self, runner: &str) -> Option<LineLog> {
        self.router.runner(runner)?.line_log()
    }

    /// Counts and logs an outcome that this worker recorded.
    pub(super) fn count_completed(&self, outcome: &Outcome) {
        let run_time =
            outcome.started_at.map(|started| outcome.finished_at.duration_since(started));
        let run_time = run_time.and_then(|time| Duration::try_from(time).ok());
        metrics::task_completed(outcome.runner.as_deref(), outcome.phase, run_time);
        tracing::info!(
            task = %outcome.id,
            phase = %outcome.phase,
            exit_code = outcome.exit_code,
            signal = outcome.signal,
            error = outcome.error.as_ref().map(|error| error.message.as_str()),
            "task finished"
        );
    }

    /// Counts an attempt that another one follows.
    pub(super) fn count_retry(&self, runner: &str) {
        metrics::retried(runner);
    }
}

/// The error and what caused it, on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
