//! The records of a new task, as they are heard: what a later message proves needn't be read.
//!
//! ```text
//!   started{1} ─► first chunk ─► … ─► finished ─► outcome
//!       ▲             │                  ▲            │
//!       └── proves ───┘                  └── proves ──┘
//! ```
//!
//! A record is heard before it is stored, and may be refused. But a worker executes a program only once its start
//! is stored, and publishes an outcome only once the end is. So where one start alone was heard, since
//! before the task was submitted, the first chunk proves it; and the outcome an end that says the same.
//! Whatever else is heard, in whatever order, is looked for in the stream.

use bytes::Bytes;

use crate::wire::{Attempt, Outcome, StatusEvent};

/// Records that are kept: a start and an end.
const KEPT: usize = 2;

/// The records that were heard of one task.
#[derive(Debug)]
pub(super) struct Heard {
    /// In the order in which they came. None: some may have been missed.
    records: Option<Vec<Bytes>>,
}

impl Heard {
    /// Of a task that nobody has heard of, from now on.
    pub(super) fn of_new() -> Self {
        Self { records: Some(Vec::new()) }
    }

    /// Of one that may have begun.
    pub(super) fn of_known() -> Self {
        Self { records: None }
    }

    /// Takes a status record. Returns whether it can wait for a proof.
    pub(super) fn hear(&mut self, record: Bytes) -> bool {
        match &mut self.records {
            Some(records) if records.len() < KEPT => records.push(record),
            _ => self.missed(),
        }
        self.records.is_some()
    }

    /// Says that a record may have been missed.
    pub(super) fn missed(&mut self) {
        self.records = None;
    }

    /// The start of the first attempt, which a chunk of it has just proven.
    pub(super) fn start(&self) -> Option<StatusEvent> {
        let [start] = self.records.as_deref()? else { return None };
        read(start).filter(is_first_start)
    }

    /// The start and the end of a task that had one attempt, and the outcome that was heard and proves both.
    pub(super) fn whole_life(&self, outcome: &Bytes) -> Option<([StatusEvent; 2], Outcome)> {
        let [start, end] = self.records.as_deref()? else { return None };
        let start = read(start).filter(is_first_start)?;
        let outcome: Outcome = serde_json::from_slice(outcome).ok()?;
        let end = read(end)?;
        let is_same =
            matches!(&end, StatusEvent::Finished(finished) if finished.outcome == outcome);
        (is_same && is_of(&start, &outcome)).then_some(([start, end], outcome))
    }
}

fn read(record: &Bytes) -> Option<StatusEvent> {
    // One of a newer version is left to the reading of the stream, which says so.
    serde_json::from_slice(record).ok()
}

/// Whether an outcome is of this start's run, and not of another worker's.
fn is_of(start: &StatusEvent, outcome: &Outcome) -> bool {
    matches!(start, StatusEvent::Started(started)
        if outcome.worker.as_ref() == Some(&started.worker)
            && outcome.run_id.as_deref() == Some(&started.run_id))
}

fn is_first_start(event: &StatusEvent) -> bool {
    matches!(event, StatusEvent::Started(started) if started.attempt == Attempt::FIRST)
}
