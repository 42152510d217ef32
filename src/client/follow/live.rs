//! The live half of following: four plain subscriptions, drained all the time into a bounded channel.
//!
//! None has a wildcard: with each that has one, made or ended, the server goes through all subjects that
//! were lately published to.
//!
//! A slow reader must not make the client library buffer a task's output: what doesn't fit into
//! [`LIVE_BYTES`] is dropped and counted, and the follower reads it from the stream instead. Each chunk
//! says how many chunks were dropped before it, so that nothing dropped passes for heard.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::FutureExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::join::Piece;
use crate::nats::{Bus, BusError, Incoming, PublishedChunk, Subscription};
use crate::wire::{Stream, Subjects, TaskId};

/// Bytes of chunks that wait for the reader: also those that come while a record is read, whose answer
/// stands behind all output that is on its way to this connection.
const LIVE_BYTES: usize = 16 * 1024 * 1024;
/// What a message counts at least, in bytes: small ones have their own cost.
const LEAST_BYTES: usize = 2 * 1024;

/// Something that happened just now.
#[derive(Debug)]
pub(super) enum LiveMessage {
    /// A chunk, and how many had been dropped before it.
    Output(Piece, u64),
    /// A status record of the task.
    Status(Bytes),
    /// The task's outcome.
    Outcome(Bytes),
}

/// A message, and its share of the room.
type Waiting = (LiveMessage, OwnedSemaphorePermit);

/// The subscriptions of one follower; they end when dropped.
pub(super) struct Live {
    messages: mpsc::Receiver<Waiting>,
    dropped: Arc<Dropped>,
    // Dropped with the follower, which aborts the pumps.
    _pumps: JoinSet<()>,
}

impl Live {
    /// Subscribes to a task's output and records, together with the next request of the connection.
    pub(super) async fn subscribe(bus: &Bus, id: &TaskId) -> Result<Self, BusError> {
        let subjects = bus.subjects().clone();
        let [stdout, stderr] = Stream::ALL.map(|stream| subjects.output(id, stream));
        let output = [bus.subscribe_along(stdout).await?, bus.subscribe_along(stderr).await?];
        let status = bus.subscribe_along(subjects.status(id)).await?;
        let outcome = bus.subscribe_along(subjects.outcome(id)).await?;
        let (feed, messages) = feed();
        let dropped = Arc::clone(&feed.dropped);
        let mut pumps = JoinSet::new();
        let output = Output { subscriptions: output, heads: [None, None], subjects };
        pumps.spawn(pump_output(output, feed.clone()));
        pumps.spawn(pump_records(status, feed.clone(), LiveMessage::Status));
        pumps.spawn(pump_records(outcome, feed, LiveMessage::Outcome));
        Ok(Self { messages, dropped, _pumps: pumps })
    }

    /// Returns the next message; waits for ever when the connection is closed. Cancel safe.
    pub(super) async fn next(&mut self) -> LiveMessage {
        match self.messages.recv().await {
            Some((message, _room)) => message,
            None => std::future::pending().await,
        }
    }

    /// Returns a message that waits, if one does.
    pub(super) fn waiting(&mut self) -> Option<LiveMessage> {
        self.messages.try_recv().ok().map(|(message, _room)| message)
    }

    /// How many chunks were dropped since the subscription.
    pub(super) fn losses(&self) -> u64 {
        self.dropped.chunks.load(Ordering::Acquire)
    }

    /// Whether a record was dropped since the last call.
    pub(super) fn take_lost_record(&self) -> bool {
        self.dropped.record.swap(false, Ordering::AcqRel)
    }
}

/// What found no room.
#[derive(Default)]
struct Dropped {
    chunks: AtomicU64,
    record: AtomicBool,
}

/// The way into the channel.
#[derive(Clone)]
struct Feed {
    sender: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
    dropped: Arc<Dropped>,
}

fn feed() -> (Feed, mpsc::Receiver<Waiting>) {
    let (sender, messages) = mpsc::channel(LIVE_BYTES / LEAST_BYTES);
    let room = Arc::new(Semaphore::new(LIVE_BYTES));
    (Feed { sender, room, dropped: Arc::default() }, messages)
}

impl Feed {
    fn chunk(&self, piece: Piece) {
        let bytes = piece.part.held();
        // Only this pump drops chunks, so the count is exact.
        let losses = self.dropped.chunks.load(Ordering::Acquire);
        if !self.put(LiveMessage::Output(piece, losses), bytes) {
            self.dropped.chunks.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn record(&self, record: LiveMessage, bytes: usize) {
        if !self.put(record, bytes) {
            self.dropped.record.store(true, Ordering::Release);
        }
    }

    /// Puts a message into the channel if there is room.
    fn put(&self, message: LiveMessage, bytes: usize) -> bool {
        let bytes = u32::try_from(bytes.max(LEAST_BYTES)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).try_acquire_many_owned(bytes);
        room.is_ok_and(|room| self.sender.try_send((message, room)).is_ok())
    }
}

/// Both streams of a task, in the order in which the program wrote, as far as what is there shows it.
struct Output {
    subscriptions: [Subscription; 2],
    heads: [Option<Piece>; 2],
    subjects: Subjects,
}

impl Output {
    /// Returns the next chunk; none when the connection is closed.
    async fn next(&mut self) -> Option<Piece> {
        loop {
            for place in 0..self.heads.len() {
                if self.heads[place].is_none()
                    && let Some(message) = self.subscriptions[place].next().now_or_never()
                {
                    self.heads[place] = self.read(message?);
                }
            }
            if let Some(first) = take_first(&mut self.heads) {
                return Some(first);
            }
            // Whichever comes first, the other one may be there by then, and be the earlier one.
            let [stdout, stderr] = &mut self.subscriptions;
            let (place, message) = tokio::select! {
                message = stdout.next() => (0, message),
                message = stderr.next() => (1, message),
            };
            self.heads[place] = self.read(message?);
        }
    }

    fn read(&self, message: Incoming) -> Option<Piece> {
        let chunk = PublishedChunk::read(
            &self.subjects,
            &message.subject,
            &message.headers,
            message.payload,
        )?;
        Some(chunk.into())
    }
}

/// Takes the chunk that was written first.
fn take_first(heads: &mut [Option<Piece>; 2]) -> Option<Piece> {
    let here = heads.iter_mut().filter(|head| head.is_some());
    here.min_by_key(|head| head.as_ref().map(|piece| (piece.attempt, piece.seq)))?.take()
}

async fn pump_output(mut output: Output, feed: Feed) {
    while let Some(piece) = output.next().await {
        feed.chunk(piece);
    }
}

async fn pump_records(mut subscription: Subscription, feed: Feed, of: fn(Bytes) -> LiveMessage) {
    while let Some(message) = subscription.next().await {
        let bytes = message.payload.len();
        feed.record(of(message.payload), bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::super::join::{Joined, OutputChunk};
    use super::*;
    use crate::wire::{Attempt, Stream};

    fn chunk(seq: u64, len: usize) -> Piece {
        let attempt = Attempt::FIRST;
        let data = Bytes::from(vec![0; len]);
        let chunk = OutputChunk { attempt, stream: Stream::Stdout, offset: 0, data };
        Piece { attempt, seq, part: Joined::Chunk(chunk) }
    }

    fn live() -> (Feed, Live) {
        let (feed, messages) = feed();
        let dropped = Arc::clone(&feed.dropped);
        (feed, Live { messages, dropped, _pumps: JoinSet::new() })
    }

    fn taken(live: &mut Live) -> (u64, u64) {
        match live.waiting() {
            Some(LiveMessage::Output(piece, losses)) => (piece.seq, losses),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_waits_is_bounded_by_bytes_and_what_follows_a_loss_says_so() {
        let (feed, mut live) = live();
        for seq in 0..72 {
            feed.chunk(chunk(seq, 256 * 1024));
        }
        assert_eq!(live.losses(), 8, "64 chunks of 256 KiB are 16 MiB");
        let record = || LiveMessage::Status(Bytes::new());
        feed.record(record(), 0);
        assert!(live.take_lost_record() && !live.take_lost_record());
        assert_eq!(taken(&mut live), (0, 0));
        feed.chunk(chunk(72, 1));
        feed.record(record(), 0);
        for seq in 1..64 {
            assert_eq!(taken(&mut live), (seq, 0));
        }
        assert_eq!(taken(&mut live), (72, 8));
        assert!(matches!(live.waiting(), Some(LiveMessage::Status(_))));
        assert!(live.waiting().is_none() && !live.take_lost_record());
    }

    #[test]
    fn of_two_streams_the_chunk_that_was_written_first_comes_first() {
        let next = |attempt| Piece { attempt, ..chunk(0, 1) };
        let mut heads = [Some(next(Attempt(2))), Some(chunk(7, 1))];
        let order = std::iter::from_fn(|| take_first(&mut heads));
        let order: Vec<_> = order.map(|piece| (piece.attempt.0, piece.seq)).collect();
        assert_eq!(order, [(1, 7), (2, 0)]);
        assert_eq!(take_first(&mut [None, Some(chunk(3, 1))]).map(|piece| piece.seq), Some(3));
    }

    #[test]
    fn small_chunks_are_bounded_by_number() {
        let (feed, mut live) = live();
        for seq in 0..10_000 {
            feed.chunk(chunk(seq, 1));
        }
        let wait = std::iter::from_fn(|| live.waiting()).count();
        assert_eq!((wait, live.losses()), (LIVE_BYTES / LEAST_BYTES, 10_000 - wait as u64));
    }
}
