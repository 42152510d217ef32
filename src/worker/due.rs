//! Schedules that are due: a task's start, the end of its wait for a start, the end of its results.
//!
//! The server keeps the time ([`crate::client::schedule`] stores the schedules), so a delay outlives
//! every worker.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use super::chores::Progress;
use crate::client::Client;
use crate::client::schedule::{Expiry, schedule};
use crate::nats::{Bus, BusError, Chore, ChoreSource};
use crate::wire::{PurgeTimer, TaskId, Timer};

/// How soon a task is looked at again whose message is in the queue still.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How often it is looked for a task that is still to be stored.
const LOOKS: u32 = 30;
/// What is due within this time is waited for.
const SOON: Duration = Duration::from_secs(60);

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
        Timer::Expire => match client.expire(&id).await? {
            Expiry::Settled => {}
            Expiry::NotYet(start_by) => return expire_later(client, &id, start_by).await,
            Expiry::NotThere if chore.delivered < LOOKS => return Ok(Progress::Again(LOOK_AGAIN)),
            Expiry::NotThere => {}
        },
        Timer::Purge => {
            tracing::debug!(task = %id, "the results' time is over");
            let PurgeTimer { finished_seq } =
                serde_json::from_slice(&chore.payload).unwrap_or_default();
            client.forget_finished(&id, finished_seq).await?;
        }
    }
    Ok(Progress::Settled)
}

/// Two clocks that don't agree need a moment; a timer that was set too early is set again.
async fn expire_later(
    client: &Client,
    id: &TaskId,
    start_by: Timestamp,
) -> Result<Progress, BusError> {
    let left = start_by.duration_since(Timestamp::now());
    let left = Duration::try_from(left).unwrap_or_default();
    if left < SOON {
        return Ok(Progress::Again(left.max(LOOK_AGAIN)));
    }
    schedule(client.bus(), id, Timer::Expire, start_by, Bytes::new()).await?;
    Ok(Progress::Settled)
}
