//! The live half of following: two plain subscriptions, drained all the time into a bounded channel.
//!
//! A slow reader must not make the client library buffer a task's output: what doesn't fit into
//! [`LIVE_MESSAGES`] is dropped and flagged, and the follower reads it from the stream instead.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::join::{OutputChunk, Piece};
use crate::nats::{Bus, BusError, Headers, Subscription};
use crate::wire::output::{HEADER_ATTEMPT, HEADER_OFFSET, HEADER_SEQ};
use crate::wire::{Attempt, Subjects, TaskId};

/// Chunks that wait for the reader: 8 MiB at a worker's largest chunk of 64 KiB.
const LIVE_MESSAGES: usize = 128;

/// Something that happened just now.
#[derive(Debug)]
pub(super) enum LiveMessage {
    /// A chunk.
    Output(Piece),
    /// A record of the task.
    Record,
}

/// The subscriptions of one follower; they end when dropped.
pub(super) struct Live {
    messages: mpsc::Receiver<LiveMessage>,
    dropped: Arc<AtomicBool>,
    // Dropped with the follower, which aborts the pumps.
    _pumps: JoinSet<()>,
}

impl Live {
    /// Subscribes to a task's output and records.
    pub(super) async fn subscribe(bus: &Bus, id: &TaskId) -> Result<Self, BusError> {
        let subjects = bus.subjects().clone();
        let output = bus.subscribe(subjects.output_task(id)).await?;
        let records = bus.subscribe(subjects.task(id)).await?;
        let (sender, messages) = mpsc::channel(LIVE_MESSAGES);
        let dropped = Arc::new(AtomicBool::new(false));
        let mut pumps = JoinSet::new();
        pumps.spawn(pump_output(output, subjects, sender.clone(), Arc::clone(&dropped)));
        pumps.spawn(pump_records(records, sender, Arc::clone(&dropped)));
        Ok(Self { messages, dropped, _pumps: pumps })
    }

    /// Returns the next message; waits for ever when the connection is closed. Cancel safe.
    pub(super) async fn next(&mut self) -> LiveMessage {
        match self.messages.recv().await {
            Some(message) => message,
            None => std::future::pending().await,
        }
    }

    /// Whether messages were dropped since the last call.
    pub(super) fn take_dropped(&self) -> bool {
        self.dropped.swap(false, Ordering::AcqRel)
    }
}

async fn pump_output(
    mut subscription: Subscription,
    subjects: Subjects,
    sender: mpsc::Sender<LiveMessage>,
    dropped: Arc<AtomicBool>,
) {
    while let Some(message) = subscription.next().await {
        let piece = piece(&subjects, &message.subject, &message.headers, message.payload);
        let Some(piece) = piece else { continue };
        if sender.try_send(LiveMessage::Output(piece)).is_err() {
            dropped.store(true, Ordering::Release);
        }
    }
}

async fn pump_records(
    mut subscription: Subscription,
    sender: mpsc::Sender<LiveMessage>,
    dropped: Arc<AtomicBool>,
) {
    while subscription.next().await.is_some() {
        if sender.try_send(LiveMessage::Record).is_err() {
            dropped.store(true, Ordering::Release);
        }
    }
}

/// Reads what a chunk's headers say. A message without them is no worker's and is passed over.
pub(super) fn piece(
    subjects: &Subjects,
    subject: &str,
    headers: &Headers,
    data: bytes::Bytes,
) -> Option<Piece> {
    let (_, stream) = subjects.parse_output(subject)?;
    let attempt = Attempt(u32::try_from(headers.number(HEADER_ATTEMPT)?).ok()?);
    let seq = headers.number(HEADER_SEQ)?;
    let offset = headers.number(HEADER_OFFSET)?;
    Some(Piece { attempt, seq, chunk: OutputChunk { attempt, stream, offset, data } })
}
