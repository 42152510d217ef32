//! Stores output chunks, confirmed, a bounded number at a time.
//!
//! The bound is the backpressure: when 8 publishes of a task or 64 of the worker are unconfirmed, no
//! further chunk is taken from the channel, the pump stops reading, and the program blocks on its pipe.
//! So a worker has at most 64 chunks (4 MiB at 64 KiB) under way here, whatever its tasks write.
//!
//! A publish whose answer is lost is tried again with the same headers: a reader tells duplicates by
//! offset. Order on the subject may change then; offsets say the true order.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::sleep;

use super::{Bus, Headers};
use crate::output::Chunk;
use crate::wire::output::{HEADER_ATTEMPT, HEADER_OFFSET, HEADER_SEQ};
use crate::wire::{Attempt, Stream, TaskId};

/// Unconfirmed chunks of one task.
const TASK_WINDOW: usize = 8;
/// Unconfirmed chunks of one worker.
const WORKER_WINDOW: usize = 64;
/// Pause before a chunk is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// Bytes of a message that are left for headers when chunks are cut to the server's `max_payload`.
const HEADER_ROOM: usize = 1024;
/// The largest chunk, in bytes.
const MAX_CHUNK: usize = 64 * 1024;

/// Whether we may still publish for a task.
pub trait Hold: Send + Sync {
    /// Says whether the lease is held at this moment.
    fn is_held(&self) -> bool;
    /// Says whether the lease is gone for good.
    fn is_lost(&self) -> bool;
}

/// Publishes the output of a worker's tasks.
#[derive(Clone)]
pub struct OutputPublisher {
    bus: Bus,
    window: Arc<Semaphore>,
}

/// What of one stream is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoredStream {
    /// Bytes.
    pub bytes: u64,
    /// Chunks.
    pub chunks: u64,
    /// A chunk could not be stored.
    pub lost: bool,
}

/// What of an attempt's output is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoredOutput {
    /// Standard output.
    pub stdout: StoredStream,
    /// Standard error.
    pub stderr: StoredStream,
}

impl StoredOutput {
    fn of(&mut self, stream: Stream) -> &mut StoredStream {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

impl OutputPublisher {
    /// Uses a connection.
    pub fn new(bus: Bus) -> Self {
        Self { bus, window: Arc::new(Semaphore::new(WORKER_WINDOW)) }
    }

    /// Returns the largest chunk that the server takes, in bytes, at most 64 KiB.
    pub fn max_chunk(&self) -> usize {
        self.bus.max_payload().saturating_sub(HEADER_ROOM).clamp(1, MAX_CHUNK)
    }

    /// Stores chunks until the channel is closed and all are confirmed, or the lease is lost.
    pub async fn run(
        &self,
        id: &TaskId,
        attempt: Attempt,
        hold: &dyn Hold,
        mut chunks: mpsc::Receiver<Chunk>,
    ) -> StoredOutput {
        let mut stored = StoredOutput::default();
        let mut window = FuturesUnordered::new();
        let mut open = true;
        while open || !window.is_empty() {
            let room = open && window.len() < TASK_WINDOW;
            // Cancel safe: a chunk stays in the channel, a publish in the window, until taken.
            tokio::select! {
                Some((stream, bytes)) = window.next() => tally(stored.of(stream), bytes),
                chunk = chunks.recv(), if room => match chunk {
                    Some(chunk) => window.push(self.store(id, attempt, hold, chunk)),
                    None => open = false,
                },
            }
        }
        stored
    }

    /// Stores one chunk; returns its length, or `None` if it could not be stored.
    async fn store(
        &self,
        id: &TaskId,
        attempt: Attempt,
        hold: &dyn Hold,
        chunk: Chunk,
    ) -> (Stream, Option<u64>) {
        let permit = self.window.acquire().await;
        let _permit = permit.expect("the window is never closed");
        let subject = self.bus.subjects().output(id, chunk.stream);
        let headers = Headers::default()
            .with(HEADER_ATTEMPT, attempt)
            .with(HEADER_SEQ, chunk.seq)
            .with(HEADER_OFFSET, chunk.offset);
        loop {
            if hold.is_lost() {
                return (chunk.stream, None);
            }
            // A worker that was frozen learns whether it still has the task before it publishes.
            if !hold.is_held() {
                sleep(RETRY_PAUSE).await;
                continue;
            }
            match self.bus.publish(subject.clone(), headers.clone(), chunk.data.clone()).await {
                Ok(_) => return (chunk.stream, Some(chunk.data.len() as u64)),
                Err(error) if error.is_passing() => {
                    tracing::debug!(task = %id, %error, "storing output again");
                    sleep(RETRY_PAUSE).await;
                }
                Err(error) => {
                    tracing::warn!(task = %id, %error, bytes = chunk.data.len(), "output is lost");
                    return (chunk.stream, None);
                }
            }
        }
    }
}

fn tally(stored: &mut StoredStream, bytes: Option<u64>) {
    match bytes {
        Some(bytes) => {
            stored.bytes += bytes;
            stored.chunks += 1;
        }
        None => stored.lost = true,
    }
}
