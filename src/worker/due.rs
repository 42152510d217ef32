//! Schedules that are due: a task's start, the end of its wait for a start, the end of its results.
//!
//! The server keeps the time ([`crate::client::schedule`] stores the schedules), so a delay outlives
//! every worker.

use std::time::Duration;

use super::chores::Progress;
use crate::client::Client;
use crate::nats::{Bus, BusError, Chore, ChoreSource};
use crate::wire::{TaskId, Timer};

/// How soon a task is looked at again whose message is in the queue still.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Which messages this is about.
pub(super) fn source(bus: &Bus) -> ChoreSource {
    let subjects = bus.subjects();
    ChoreSource { stream: subjects.schedule_stream(), consumer: "due", filter: subjects.due_all() }
}

/// Does what was scheduled.
pub(super) async fn settle(client: &Client, chore: &Chore) -> Result<Progress, BusError> {
    let Some((id, timer)) = client.bus().subjects().parse_due(&chore.subject) else {
        return Ok(Progress::Settled);
    };
    match timer {
        Timer::Start if !client.promote(&id, &chore.payload).await? => {
            return Ok(Progress::Again(LOOK_AGAIN));
        }
        Timer::Start => {}
        Timer::Expire => client.expire(&id).await?,
        Timer::Purge => purge(client, &id).await?,
    }
    Ok(Progress::Settled)
}

async fn purge(client: &Client, id: &TaskId) -> Result<(), BusError> {
    tracing::debug!(task = %id, "the results' time is over");
    client.forget(id).await
}
