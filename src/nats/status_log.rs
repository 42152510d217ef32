//! A task's status chain, its cancel requests and its outcome.
//!
//! `append` settles what a plain compare-and-set leaves open: when the answer is lost, or the race is
//! undecided, it reads the leader and recognises its own record by its token.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::guards;
use super::{Bus, BusError, Cas, Headers};
use crate::wire::{CancelRequest, Outcome, StatusEvent, TaskId};

/// Pause between two tries while the server is away or changes its leader.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A record of a status chain.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusEntry {
    /// Its sequence: what the next record must expect.
    pub seq: u64,
    /// The record.
    pub event: StatusEvent,
}

/// A settled compare-and-set.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant)] // short-lived, one at a time
pub enum Append {
    /// Our record is the last one, with this sequence.
    Won(u64),
    /// Somebody else's record is the last one.
    Lost(Option<StatusEntry>),
}

/// How far a spec is known to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It is stored.
    Confirmed,
    /// It was sent, when the connection was the n-th.
    SentOn(u64),
}

/// Room for a record: most have some 500 bytes.
const RECORD_BYTES: usize = 768;

/// The subject, or filter, whose last message a compare-and-set looks at in place of its own.
const EXPECTED_OF_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";

/// How often the stream's replicas are counted.
const COUNT_INTERVAL: Duration = Duration::from_secs(10);

/// Reads and writes the records of tasks.
#[derive(Clone)]
pub struct StatusLog {
    bus: Bus,
    /// One server stores the stream, and so knows the order of writes to all its subjects.
    is_single: Arc<AtomicBool>,
}

impl StatusLog {
    /// Uses a connection.
    pub fn new(bus: Bus) -> Self {
        Self { bus, is_single: Arc::default() }
    }

    /// Counts the stream's replicas now, and then every ten seconds.
    pub async fn watch_replicas(self) -> Result<(), BusError> {
        loop {
            let single = self.count_replicas().await.is_ok_and(|replicas| replicas == 1);
            self.is_single.store(single, Ordering::Relaxed);
            sleep(COUNT_INTERVAL).await;
        }
    }

    /// Whether one server alone stores the records of tasks, when they were last counted.
    fn is_single(&self) -> bool {
        self.is_single.load(Ordering::Relaxed)
    }

    async fn count_replicas(&self) -> Result<usize, BusError> {
        #[derive(Deserialize)]
        struct Info {
            config: Config,
        }
        #[derive(Deserialize)]
        struct Config {
            num_replicas: usize,
        }
        let stream = self.bus.subjects().tasks_stream();
        let info: Info = self.bus.api(&format!("STREAM.INFO.{stream}"), &json!({})).await?;
        Ok(info.config.num_replicas)
    }

    /// Appends the first record of a task if there is none of any sort, no cancel request either. With
    /// `None` nothing is known: there is one, or several servers store the stream, or none answers.
    ///
    /// Only a single server can compare with other subjects: of three, the one that decides is blind to
    /// what is on its way to a majority.
    pub async fn append_first(&self, id: &TaskId, event: &StatusEvent) -> Option<u64> {
        let guarded = guards::fence() && guards::start_check();
        if !guarded || !self.is_single() {
            return None;
        }
        let subjects = self.bus.subjects();
        let headers = Headers::default().with(EXPECTED_OF_SUBJECT, subjects.task(id));
        let stored =
            self.bus.append_at_once(subjects.status(id), 0, headers, encode(event).ok()?).await;
        match stored {
            Ok(Cas::Stored(seq)) => Some(seq),
            Ok(Cas::Conflict) | Err(_) => None,
        }
    }

    /// Keeps the spec of a task beside its records, so that it can be run again.
    ///
    /// A single server is not asked to confirm it: it stores what one connection sends in order, so the
    /// next confirmed record says that the spec is stored too. Pass what is returned to [`Self::kept`]
    /// after that.
    pub async fn keep_spec(&self, id: &TaskId, spec: &Bytes) -> Result<Kept, BusError> {
        let subject = self.bus.subjects().spec(id);
        if !self.is_single() {
            self.bus.publish(subject, Headers::default(), spec.clone()).await?;
            return Ok(Kept::Confirmed);
        }
        let connections = self.bus.connections();
        self.bus.send_along(subject, spec.clone());
        Ok(Kept::SentOn(connections))
    }

    /// Makes sure of a spec after a record that was sent later is confirmed.
    pub async fn kept(&self, id: &TaskId, spec: &Bytes, kept: Kept) -> Result<(), BusError> {
        let confirmed = kept == Kept::Confirmed || kept == Kept::SentOn(self.bus.connections());
        if confirmed {
            return Ok(());
        }
        let subject = self.bus.subjects().spec(id);
        self.bus.publish(subject, Headers::default(), spec.clone()).await.map(|_| ())
    }

    /// Reads the last record of a task's chain from the leader.
    pub async fn last(&self, id: &TaskId) -> Result<Option<StatusEntry>, BusError> {
        let subjects = self.bus.subjects();
        let stored = self.bus.read_last(&subjects.tasks_stream(), &subjects.status(id)).await?;
        stored
            .map(|stored| Ok(StatusEntry { seq: stored.seq, event: parse(&stored.payload)? }))
            .transpose()
    }

    /// Appends a record after the one with sequence `expected` (0: none). Tries again until
    /// `deadline` while the server is away; what happened is then still unclear, and the error says so.
    /// What is denied is not tried again.
    pub async fn append(
        &self,
        id: &TaskId,
        event: &StatusEvent,
        expected: u64,
        deadline: Instant,
    ) -> Result<Append, BusError> {
        let payload = encode(event)?;
        loop {
            let subject = self.bus.subjects().status(id);
            if !guards::fence() {
                let stored = self.bus.publish(subject, Headers::default(), payload).await;
                return stored.map(Append::Won);
            }
            let tried = match self.bus.append(subject, expected, payload.clone()).await {
                Ok(Cas::Stored(seq)) => return Ok(Append::Won(seq)),
                Ok(Cas::Conflict) => None,
                Err(error) if error.is_passing() && !error.is_denied() => Some(error),
                Err(error) => return Err(error),
            };
            // Lost or unclear: the leader knows which.
            match self.last(id).await {
                Ok(Some(last)) if last.event == *event => return Ok(Append::Won(last.seq)),
                Ok(last) if last.as_ref().map_or(0, |last| last.seq) != expected => {
                    return Ok(Append::Lost(last));
                }
                Ok(_) => {}
                Err(error) if error.is_denied() => return Err(tried.unwrap_or(error)),
                Err(error) if !error.is_passing() => return Err(error),
                Err(_) => {}
            }
            if Instant::now() >= deadline {
                return Err(tried.unwrap_or(BusError::Unclear(RETRY_PAUSE)));
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    /// Reads the last cancel request of a task from the leader.
    pub async fn cancel_request(&self, id: &TaskId) -> Result<Option<CancelRequest>, BusError> {
        let subjects = self.bus.subjects();
        let stored = self.bus.read_last(&subjects.tasks_stream(), &subjects.cancel(id)).await?;
        Ok(stored.map(|stored| parse_cancel(&stored.payload)))
    }

    /// Returns the sequence of the last record of any sort of a task, from the leader.
    pub async fn last_seq(&self, id: &TaskId) -> Result<u64, BusError> {
        let subjects = self.bus.subjects();
        let stored = self.bus.read_last(&subjects.tasks_stream(), &subjects.task(id)).await?;
        Ok(stored.map_or(0, |stored| stored.seq))
    }

    /// Publishes the outcome of a finished record. Anybody who finds such a record may do it: only
    /// the first one is stored.
    pub async fn publish_outcome(&self, outcome: &Outcome) -> Result<(), BusError> {
        let subject = self.bus.subjects().outcome(&outcome.id);
        let headers = Headers::default();
        self.bus.append_at_once(subject, 0, headers, encode(outcome)?).await.map(|_| ())
    }

    /// Publishes the outcome of a chain that ended before, unless it is there already: the server would
    /// refuse a second one, but whoever is subscribed to the subject would hear it.
    pub async fn ensure_outcome(&self, outcome: &Outcome) -> Result<(), BusError> {
        let subjects = self.bus.subjects();
        let stored =
            self.bus.read_last(&subjects.tasks_stream(), &subjects.outcome(&outcome.id)).await?;
        if stored.is_some() { Ok(()) } else { self.publish_outcome(outcome).await }
    }

    /// Reads a task's outcome from the leader.
    pub async fn outcome(&self, id: &TaskId) -> Result<Option<Outcome>, BusError> {
        let subjects = self.bus.subjects();
        let stored = self.bus.read_last(&subjects.tasks_stream(), &subjects.outcome(id)).await?;
        stored.map(|stored| parse(&stored.payload)).transpose()
    }
}

/// Reads a cancel request. Whatever the payload, it is a wish to end the task: the begin of what can't be read is
/// kept as the reason.
pub fn parse_cancel(payload: &[u8]) -> CancelRequest {
    if payload.is_empty() {
        return CancelRequest::default();
    }
    let request: CancelRequest =
        serde_json::from_slice(payload).unwrap_or_else(|_| CancelRequest {
            reason: Some(String::from_utf8_lossy(&payload[..payload.len().min(256)]).into_owned()),
            ..CancelRequest::default()
        });
    request.shortened()
}

fn encode(value: &impl serde::Serialize) -> Result<Bytes, BusError> {
    let mut bytes = Vec::with_capacity(RECORD_BYTES);
    serde_json::to_writer(&mut bytes, value)
        .map_err(|error| BusError::Broken(error.to_string()))?;
    Ok(bytes.into())
}

fn parse<T: DeserializeOwned>(payload: &[u8]) -> Result<T, BusError> {
    serde_json::from_slice(payload)
        .map_err(|error| BusError::Broken(format!("cannot read a task's record: {error}")))
}
