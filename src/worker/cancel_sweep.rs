//! Sees to it that every stored cancel ends in an outcome, whoever stored it and whoever died since.
//!
//! ```text
//! the task                               then
//! has ended, or is unknown               settled (an unknown one will not start: the start check)
//! waits, or backs off                    ended here as canceled
//! runs on a live worker                  that worker hears of it, now or at its next renewal; look again
//! runs on a worker that is not there     after its lease: ended here as canceled; a worker that was only
//!                                        cut off is refused by the chain, and has stopped its processes
//! ```

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::sleep;

use super::chores::Progress;
use crate::client::Client;
use crate::client::cancel::Idle;
use crate::nats::presence::{self, PRESENCE_INTERVAL};
use crate::nats::status_log::parse_cancel;
use crate::nats::{Bus, BusError, Chore, ChoreSource};
use crate::wire::{CancelRequest, Outcome, Phase, Started, TaskId};

/// How soon a task that still runs is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Which messages this is about.
pub(super) fn source(bus: &Bus) -> ChoreSource {
    let subjects = bus.subjects();
    ChoreSource {
        stream: subjects.tasks_stream(),
        consumer: "cancels",
        filter: subjects.cancel_all(),
    }
}

/// Settles one stored cancel, as far as it can be.
pub(super) async fn sweep(client: &Client, chore: &Chore) -> Result<Progress, BusError> {
    let parsed = client.bus().subjects().parse_task(&chore.subject);
    let Some((id, _)) = parsed else { return Ok(Progress::Settled) };
    let request = parse_cancel(&chore.payload);
    let stored = StoredCancel { id, request, stored_at: chore.stored_at };
    let settled = settle(client, &stored).await?;
    Ok(if settled { Progress::Settled } else { Progress::Again(LOOK_AGAIN) })
}

struct StoredCancel {
    id: TaskId,
    request: CancelRequest,
    stored_at: Timestamp,
}

/// Says whether nothing is left to do.
async fn settle(client: &Client, stored: &StoredCancel) -> Result<bool, BusError> {
    let queued = client.queued(&stored.id).await?;
    if queued.is_none() && client.last_record(&stored.id).await?.is_none() {
        return Ok(true);
    }
    let lane = queued.map(|queued| queued.lane);
    match client.end_if_idle(&stored.id, &stored.request, lane.clone()).await? {
        Idle::Ended(_) => Ok(true),
        Idle::Raced => Ok(false),
        Idle::Running { started, seq } => {
            if !is_gone(client.bus(), stored, &started).await? {
                return Ok(false);
            }
            tracing::warn!(task = %stored.id, worker = %started.worker, "ending a canceled task of a dead worker");
            let ended = Some(Box::new(left_behind(&stored.id, &started)));
            let ended = client.end_after(&stored.id, &stored.request, lane, seq, ended).await?;
            Ok(matches!(ended, Idle::Ended(_)))
        }
    }
}

/// Whether the worker that has the task can't have it any more: its lease is over since the cancel was
/// stored (a live worker would have heard of it at a renewal), and it has been silent twice.
async fn is_gone(bus: &Bus, stored: &StoredCancel, started: &Started) -> Result<bool, BusError> {
    let waited = Timestamp::now().duration_since(stored.stored_at);
    let waited = Duration::try_from(waited).unwrap_or_default();
    if waited < Duration::from_millis(started.lease_ms) {
        return Ok(false);
    }
    if presence::is_there(bus, &started.worker).await? {
        return Ok(false);
    }
    // Records may have expired while the server was away: it takes a moment until all are back.
    sleep(PRESENCE_INTERVAL + Duration::from_secs(1)).await;
    Ok(!presence::is_there(bus, &started.worker).await?)
}

fn left_behind(id: &TaskId, started: &Started) -> Outcome {
    Outcome {
        attempt: Some(started.attempt),
        worker: Some(started.worker.clone()),
        runner: Some(started.runner.clone()),
        lane: Some(started.lane.clone()),
        run_id: Some(started.run_id.clone()),
        started_at: Some(started.at),
        ..Outcome::without_run(id.clone(), Phase::Canceled, Timestamp::now())
    }
}
