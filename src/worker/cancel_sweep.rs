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
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::client::Client;
use crate::client::cancel::Idle;
use crate::nats::presence::{self, PRESENCE_INTERVAL};
use crate::nats::{Bus, BusError, CancelQueue, StoredCancel};
use crate::wire::{Outcome, Phase, Started, TaskId};

/// Requests that are worked on at once.
const AT_ONCE: usize = 16;
/// How soon a task that still runs is looked at again.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Settles stored cancel requests until the connection is closed.
pub(super) async fn run(bus: Bus) -> Result<(), BusError> {
    let mut queue = CancelQueue::open(&bus).await?;
    let client = Client::new(bus);
    let mut sweeps = JoinSet::new();
    loop {
        let room = sweeps.len() < AT_ONCE;
        // Cancel safe: a request stays in its subscription, a sweep in its set, until taken.
        tokio::select! {
            stored = queue.next(), if room => match stored {
                Some(stored) => drop(sweeps.spawn(sweep(client.clone(), stored))),
                None => return Ok(()),
            },
            Some(_) = sweeps.join_next() => {}
        }
    }
}

async fn sweep(client: Client, stored: StoredCancel) {
    let settled = settle(&client, &stored).await;
    let answered = match settled {
        Ok(true) => stored.handle.ack(client.bus()).await,
        Ok(false) => stored.handle.nak(client.bus(), LOOK_AGAIN).await,
        Err(error) => Err(error),
    };
    if let Err(error) = answered {
        tracing::debug!(task = %stored.id, %error, "a cancel was not settled; it comes again");
    }
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
    // Presence is kept in memory: after a server's restart it takes a moment until all are back.
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
