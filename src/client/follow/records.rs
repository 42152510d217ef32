//! The records of a task in stream order: status events and the outcome.

use std::collections::VecDeque;

use jiff::Timestamp;

use crate::nats::{Bus, BusError};
use crate::wire::subject::TaskSubject;
use crate::wire::{Attempt, Outcome, OutputTotals, StatusEvent, TaskId};

/// A record and when the server stored it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    pub(super) stored_at: Timestamp,
    pub(super) what: What,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum What {
    Status(Box<StatusEvent>),
    Outcome(Box<Outcome>),
}

/// The end of an attempt, as far as its output is concerned.
pub(super) struct AttemptEnd<'a> {
    pub(super) attempt: Attempt,
    pub(super) totals: &'a OutputTotals,
}

impl Record {
    /// Whether chunks of `attempt` come after this record.
    pub(super) fn precedes(&self, attempt: Attempt) -> bool {
        match &self.what {
            What::Status(event) => match &**event {
                StatusEvent::Started(started) => started.attempt <= attempt,
                StatusEvent::Retrying(retrying) => before(retrying.ended.attempt, attempt),
                StatusEvent::Requeued(requeued) => requeued.attempt < attempt,
                StatusEvent::Finished(_) => false,
            },
            What::Outcome(_) => false,
        }
    }

    /// The attempt that this record starts.
    pub(super) fn starts(&self) -> Option<Attempt> {
        match &self.what {
            What::Status(event) => match &**event {
                StatusEvent::Started(started) => Some(started.attempt),
                StatusEvent::Retrying(_) | StatusEvent::Requeued(_) | StatusEvent::Finished(_) => {
                    None
                }
            },
            What::Outcome(_) => None,
        }
    }

    /// What the attempt that this record ends has stored, if it says so.
    pub(super) fn attempt_end(&self) -> Option<AttemptEnd<'_>> {
        let outcome = match &self.what {
            What::Status(event) => match &**event {
                StatusEvent::Retrying(retrying) => &retrying.ended,
                StatusEvent::Finished(finished) => &finished.outcome,
                StatusEvent::Started(_) | StatusEvent::Requeued(_) => return None,
            },
            What::Outcome(outcome) => outcome,
        };
        Some(AttemptEnd { attempt: outcome.attempt?, totals: outcome.output.as_ref()? })
    }

    /// The outcome, if this record says it.
    pub(super) fn outcome(&self) -> Option<&Outcome> {
        match &self.what {
            What::Status(event) => match &**event {
                StatusEvent::Finished(finished) => Some(&finished.outcome),
                StatusEvent::Started(_) | StatusEvent::Retrying(_) | StatusEvent::Requeued(_) => {
                    None
                }
            },
            What::Outcome(outcome) => Some(outcome),
        }
    }
}

fn before(ended: Option<Attempt>, attempt: Attempt) -> bool {
    ended.is_none_or(|ended| ended < attempt)
}

/// Reads a task's records, a page at a time.
pub(super) struct Records {
    bus: Bus,
    filter: String,
    from: u64,
    page: VecDeque<Record>,
    at_end: bool,
}

impl Records {
    pub(super) fn new(bus: Bus, id: &TaskId) -> Self {
        let filter = bus.subjects().task(id);
        Self { bus, filter, from: 1, page: VecDeque::new(), at_end: false }
    }

    pub(super) fn front(&self) -> Option<&Record> {
        self.page.front()
    }

    pub(super) fn pop(&mut self) -> Option<Record> {
        self.page.pop_front()
    }

    /// Whether a page has to be read before anything can be said about the next record.
    pub(super) fn needs_read(&self) -> bool {
        self.page.is_empty() && !self.at_end
    }

    /// Has the end looked at again.
    pub(super) fn look_again(&mut self) {
        self.at_end = false;
    }

    /// Reads no further for now: nothing follows that was not heard live.
    pub(super) fn pause(&mut self) {
        self.at_end = true;
    }

    /// Reads one page and puts it behind what waits. Cancel safe.
    pub(super) async fn read(&mut self) -> Result<(), BusError> {
        let stream = self.bus.subjects().tasks_stream();
        let page = self.bus.read_page(&stream, &self.filter, self.from).await?;
        self.at_end = page.end;
        for stored in page.messages {
            self.from = stored.seq + 1;
            let what = match self.bus.subjects().parse_task(&stored.subject) {
                Some((_, TaskSubject::Status)) => read(&stored.payload).map(What::Status),
                Some((_, TaskSubject::Outcome)) => read(&stored.payload).map(What::Outcome),
                Some((_, TaskSubject::Cancel)) | None => None,
            };
            self.page.extend(what.map(|what| Record { stored_at: stored.time, what }));
        }
        Ok(())
    }
}

fn read<T: serde::de::DeserializeOwned>(payload: &[u8]) -> Option<T> {
    // A record of a newer version is passed over; the outcome's totals still say what is missing.
    serde_json::from_slice(payload)
        .inspect_err(|error| tracing::warn!(%error, "cannot read a task's record"))
        .ok()
}
