//! The slots bucket: records read from the leader, changed by compare-and-set, and heard of at once.

use std::time::Duration;

use super::topology::{kv_key, kv_stream};
use super::{Bus, BusError, Cas, Headers, Subscription};
use crate::task::admit;
use crate::wire::{SlotRecord, TaskId, WorkerId};

/// How long an empty record stays, so that a slot in frequent use is not made anew each time.
const EMPTY_TTL: Duration = Duration::from_secs(60);
/// Tries of a release; each loses only against somebody else's successful change.
const RELEASE_TRIES: usize = 50;

/// A slot's record as the leader has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotEntry {
    /// What the next change must expect.
    pub seq: u64,
    /// The record; an unknown slot is a free one.
    pub record: SlotRecord,
}

/// Reads and changes the records of slots.
#[derive(Clone)]
pub struct Slots {
    bus: Bus,
}

impl Slots {
    /// Uses a connection.
    pub fn new(bus: Bus) -> Self {
        Self { bus }
    }

    /// Reads a slot's record from the leader.
    pub async fn read(&self, slot: &str) -> Result<SlotEntry, BusError> {
        let stream = kv_stream(&self.bus.subjects().slots_bucket());
        let stored = self.bus.read_last(&stream, &self.subject(slot)).await?;
        let seq = stored.as_ref().map_or(0, |stored| stored.seq);
        // The server leaves an empty message in place of a record that ran out.
        let record = match stored.filter(|stored| !stored.payload.is_empty()) {
            Some(stored) => serde_json::from_slice(&stored.payload).map_err(|error| {
                BusError::Broken(format!("cannot read the record of slot {slot:?}: {error}"))
            })?,
            None => SlotRecord::free(slot),
        };
        Ok(SlotEntry { seq, record })
    }

    /// Writes a record if the last one has the sequence `expected`. When the answer is lost it says
    /// so ([`BusError::Unclear`]): read again, every change can be recognised by its task.
    pub async fn write(&self, record: &SlotRecord, expected: u64) -> Result<Cas, BusError> {
        let payload = serde_json::to_vec(record).map_err(|e| BusError::Broken(e.to_string()))?;
        let mut headers = Headers::default();
        if record.is_free() {
            let ttl = format!("{}s", EMPTY_TTL.as_secs());
            headers = headers.with(async_nats::header::NATS_MESSAGE_TTL.as_ref(), ttl);
        }
        self.bus.append_with(self.subject(&record.slot), expected, headers, payload.into()).await
    }

    /// Takes a task out of a slot's record, whether it has the slot or waits for it. Does nothing if
    /// it isn't there, so anybody may do it for a task whose chain is finished, any number of times.
    pub async fn release(&self, slot: &str, task: &TaskId) -> Result<(), BusError> {
        for _ in 0..RELEASE_TRIES {
            let entry = self.read(slot).await?;
            let Some(released) = admit::release(&entry.record, task) else { return Ok(()) };
            if let Cas::Stored(_) = self.write(&released, entry.seq).await? {
                return Ok(());
            }
        }
        Err(BusError::Unclear(Duration::ZERO))
    }

    /// Whether a message of the task is in the queue, be it in flight or delayed, by the leader.
    pub async fn is_queued(&self, task: &TaskId) -> Result<bool, BusError> {
        let subjects = self.bus.subjects();
        let stored =
            self.bus.read_last(&subjects.queue_stream(), &subjects.queue_task(task)).await?;
        Ok(stored.is_some())
    }

    /// Whether the queue holds a message that was stored before this one, by the leader.
    pub async fn is_preceded(&self, queue_seq: u64) -> Result<bool, BusError> {
        let subjects = self.bus.subjects();
        let first = self.bus.first_from(&subjects.queue_stream(), &subjects.queue_all(), 1).await?;
        Ok(first.is_some_and(|seq| seq < queue_seq))
    }

    /// Whether a worker says that it is there.
    pub async fn is_present(&self, worker: &WorkerId) -> Result<bool, BusError> {
        let bucket = self.bus.subjects().workers_bucket();
        let key = kv_key(&bucket, worker.as_str());
        let stored = self.bus.read_last(&kv_stream(&bucket), &key).await?;
        Ok(stored.is_some_and(|stored| !stored.payload.is_empty()))
    }

    fn subject(&self, slot: &str) -> String {
        kv_key(&self.bus.subjects().slots_bucket(), &SlotRecord::key(slot))
    }
}

/// Hears of every change of every slot. One that passes unheard is found by the next look.
pub struct SlotChanges {
    subscription: Subscription,
}

impl SlotChanges {
    /// Subscribes.
    pub async fn listen(bus: &Bus) -> Result<Self, BusError> {
        let subject = kv_key(&bus.subjects().slots_bucket(), ">");
        Ok(Self { subscription: bus.subscribe(subject).await? })
    }

    /// Returns the next record that was sent to be stored: it may have lost against another one, so
    /// it only says that it is time to look. `None` when the connection is closed. Cancel safe.
    pub async fn next(&mut self) -> Option<SlotRecord> {
        loop {
            let message = self.subscription.next().await?;
            // The server's mark of a record that ran out is no record: nobody waits for that slot.
            if let Ok(record) = serde_json::from_slice(&message.payload) {
                return Some(record);
            }
        }
    }
}
