//! The outcomes of many tasks, as they come.
//!
//! Outcomes are heard live and, because a live message may be lost, looked for every two seconds. A
//! finished record counts as well: it decides, the outcome message only repeats it.

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::Client;
use crate::nats::{Bus, BusError, Subscription};
use crate::wire::subject::TaskSubject;
use crate::wire::{Outcome, StatusEvent, TaskId};

/// Tasks of a round that are looked at for a passed `startBy`.
const OVERDUE_CHECKS: usize = 16;
/// Tasks that are looked up in one request: two subjects each, and the server answers at most 1024.
const GROUP: usize = 256;
/// How often those that are missing are looked for.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// Pause before a look-up that failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// With more tasks than this, one subscription hears the outcomes of the whole namespace.
const OWN_SUBSCRIPTIONS: usize = 1;

/// Waits for the outcomes of tasks.
pub struct Waiter {
    bus: Bus,
    live: Subscription,
    missing: BTreeSet<TaskId>,
    ready: VecDeque<Outcome>,
    /// Ids that are still to be looked up in this round.
    round: VecDeque<TaskId>,
    next_round: Instant,
}

impl Client {
    /// Waits for the outcomes of tasks that need not be there yet.
    ///
    /// # Errors
    /// The subscription can't be made.
    pub async fn wait(&self, ids: impl IntoIterator<Item = TaskId>) -> Result<Waiter, BusError> {
        let missing: BTreeSet<TaskId> = ids.into_iter().collect();
        let subjects = self.bus().subjects();
        let subject = match missing.first() {
            Some(only) if missing.len() == OWN_SUBSCRIPTIONS => subjects.outcome(only),
            Some(_) | None => subjects.outcome_all(),
        };
        let live = self.bus().subscribe(subject).await?;
        Ok(Waiter {
            bus: self.bus().clone(),
            live,
            round: missing.iter().cloned().collect(),
            missing,
            ready: VecDeque::new(),
            next_round: Instant::now() + CHECK_INTERVAL,
        })
    }
}

impl Waiter {
    /// Returns the tasks whose outcome was not returned yet.
    pub fn missing(&self) -> impl Iterator<Item = &TaskId> {
        self.missing.iter()
    }

    /// Returns the next outcome; `None` when each task's was returned. While the server is away it
    /// waits. Cancel safe.
    ///
    /// # Errors
    /// The connection is closed, or the server refuses the reads.
    pub async fn next(&mut self) -> Result<Option<Outcome>, BusError> {
        loop {
            if let Some(outcome) = self.ready.pop_front() {
                if self.missing.remove(&outcome.id) {
                    return Ok(Some(outcome));
                }
            } else if self.missing.is_empty() {
                return Ok(None);
            } else if self.round.is_empty() {
                self.listen().await;
            } else {
                self.look_up().await?;
            }
        }
    }

    async fn listen(&mut self) {
        // Cancel safe: a message stays in the subscription until taken.
        tokio::select! {
            message = self.live.next() => match message {
                Some(message) => self.ready.extend(serde_json::from_slice(&message.payload).ok()),
                // Closed for good: the next look-up says so.
                None => self.start_round(),
            },
            () = sleep_until(self.next_round) => self.start_round(),
        }
    }

    fn start_round(&mut self) {
        self.round = self.missing.iter().cloned().collect();
        self.next_round = Instant::now() + CHECK_INTERVAL;
    }

    async fn look_up(&mut self) -> Result<(), BusError> {
        let group: Vec<&TaskId> = self.round.iter().take(GROUP).collect();
        match outcomes(&self.bus, &group).await {
            Ok(found) => {
                let looked_up = group.len();
                let client = Client::new(self.bus.clone());
                let ended = |id: &TaskId| found.iter().any(|outcome| outcome.id == *id);
                for id in group.iter().filter(|id| !ended(id)).take(OVERDUE_CHECKS) {
                    client.expire_overdue(id).await;
                }
                self.ready.extend(found);
                self.round.drain(..looked_up);
                self.next_round = Instant::now() + CHECK_INTERVAL;
                Ok(())
            }
            Err(error) if error.is_passing() && !error.is_denied() => {
                sleep(RETRY_PAUSE).await;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// Reads the outcomes that are stored; a replica may answer.
async fn outcomes(bus: &Bus, ids: &[&TaskId]) -> Result<Vec<Outcome>, BusError> {
    let subjects = bus.subjects();
    let filters: Vec<String> =
        ids.iter().flat_map(|id| [subjects.outcome(id), subjects.status(id)]).collect();
    let page = bus.read_last_of_each(&subjects.tasks_stream(), &filters).await?;
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for stored in page.messages {
        let outcome = match subjects.parse_task(&stored.subject) {
            Some((_, TaskSubject::Outcome)) => serde_json::from_slice(&stored.payload).ok(),
            Some((_, TaskSubject::Status)) => finished(&stored.payload),
            Some((_, TaskSubject::Cancel)) | None => None,
        };
        found.extend(outcome.filter(|outcome: &Outcome| seen.insert(outcome.id.clone())));
    }
    Ok(found)
}

fn finished(payload: &[u8]) -> Option<Outcome> {
    match serde_json::from_slice(payload).ok()? {
        StatusEvent::Finished(finished) => Some(finished.outcome),
        StatusEvent::Started(_) | StatusEvent::Retrying(_) | StatusEvent::Requeued(_) => None,
    }
}
