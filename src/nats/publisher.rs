//! Stores output chunks, confirmed, a bounded number at a time.
//!
//! The bound is the backpressure: when 8 chunks or 1 MiB of a task, or 8 MiB of the worker's, are
//! unconfirmed, no further chunk is taken from the channel, the pump stops reading, and the program
//! blocks on its pipe. A small chunk counts as 64 KiB, so a worker has at most 128 of those under way.
//! What waits here of one task is at most one chunk more than its 1 MiB. A compressed chunk counts with what
//! is left of it.
//!
//! A publish whose answer is lost is tried again with the same headers: a reader tells duplicates by
//! offset. Order on the subject may change then; offsets say the true order.

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep, timeout};

use super::chunk::ChunkMessage;
use super::{Bus, BusError};
use crate::output::chunk::DEFAULT_CHUNK_MAX;
use crate::output::{Chunk, Compressor};
use crate::telemetry::metrics;
use crate::wire::{Attempt, Compression, Stream, TaskId};

/// Unconfirmed chunks of one task.
const TASK_WINDOW: usize = 8;
/// Unconfirmed bytes of one task after which no further chunk is taken.
const TASK_BYTES: usize = 1024 * 1024;
/// Unconfirmed KiB of one worker.
const WORKER_KIB: usize = 8 * 1024;
/// What a chunk counts at least, in KiB: a small one costs the server about as much.
const LEAST_KIB: usize = 64;
/// Pause before a chunk is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);
/// For how long a chunk is tried that the worker's user may not publish. Then it is lost, which the outcome
/// says: its task's program would hang on a full pipe for ever.
const DENIED_PATIENCE: Duration = Duration::from_secs(30);
/// How long a chunk waits for the worker's window before it looks whether it should wait any longer.
const WINDOW_PAUSE: Duration = Duration::from_secs(1);
/// Pause between two lines of the log about output that can't be stored.
const TELL_AGAIN: Duration = Duration::from_secs(10);
/// Bytes of a message that are left for headers when chunks are cut to the server's `max_payload`.
const HEADER_ROOM: usize = 1024;

/// Whether we may still publish for a task.
pub trait Hold: Send + Sync {
    /// Says whether the lease is held at this moment.
    fn is_held(&self) -> bool;
    /// Says whether the lease is gone for good.
    fn is_lost(&self) -> bool;
    /// Says whether the task's end has waited long enough for output that can't be stored. `is_refused`: the
    /// server has answered, so it is not away.
    fn is_too_late(&self, is_refused: bool) -> bool;
}

/// Publishes the output of a worker's tasks.
#[derive(Clone)]
pub struct OutputPublisher {
    bus: Bus,
    window: Arc<Semaphore>,
    /// When the log was last told that output can't be stored. Never held over an await.
    told: Arc<Mutex<Option<Instant>>>,
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
        Self { bus, window: Arc::new(Semaphore::new(WORKER_KIB)), told: Arc::default() }
    }

    /// Returns the largest chunk that the server takes, in bytes, at most [`DEFAULT_CHUNK_MAX`].
    pub fn max_chunk(&self) -> usize {
        self.bus.max_payload().saturating_sub(HEADER_ROOM).clamp(1, DEFAULT_CHUNK_MAX)
    }

    /// Stores chunks until the channel is closed and all are confirmed, or the lease is lost.
    pub async fn run(
        &self,
        id: &TaskId,
        (attempt, compression): (Attempt, Compression),
        hold: &dyn Hold,
        mut chunks: mpsc::Receiver<Chunk>,
    ) -> StoredOutput {
        let mut stored = StoredOutput::default();
        let mut compressor = Compressor::new(compression);
        let trouble = Trouble::default();
        let mut window = FuturesUnordered::new();
        let (mut open, mut bytes) = (true, 0_usize);
        while open || !window.is_empty() {
            let room = open && window.len() < TASK_WINDOW && bytes < TASK_BYTES;
            // Cancel safe: a chunk stays in the channel, a publish in the window, until taken.
            tokio::select! {
                Some(done) = window.next() => {
                    let Done { stream, len, payload_len, is_stored } = done;
                    bytes -= payload_len;
                    tally(stored.of(stream), is_stored.then_some(len as u64));
                }
                chunk = chunks.recv(), if room => match chunk {
                    Some(chunk) => {
                        let message = ChunkMessage::new(attempt, chunk, &mut compressor);
                        bytes += message.payload.len();
                        window.push(self.store(id, (hold, &trouble), message));
                    }
                    None => open = false,
                },
            }
        }
        stored
    }

    /// Whether the log is to hear of trouble: all tasks have the same, again and again.
    fn is_to_be_told(&self) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let is_long_ago = told.is_none_or(|told| told.elapsed() >= TELL_AGAIN);
        if is_long_ago {
            *told = Some(Instant::now());
        }
        is_long_ago
    }

    /// Stores one chunk, if it can be.
    async fn store(
        &self,
        id: &TaskId,
        (hold, trouble): (&dyn Hold, &Trouble),
        message: ChunkMessage,
    ) -> Done {
        let ChunkMessage { stream, len, headers, payload } = message;
        let subject = self.bus.subjects().output(id, stream);
        let (payload_len, share) = (payload.len(), share(payload.len()));
        let done = |is_stored| Done { stream, len, payload_len, is_stored };
        let mut permit = None;
        loop {
            if hold.is_lost() {
                return done(false);
            }
            // A worker that was frozen learns whether it still has the task before it publishes.
            if !hold.is_held() {
                if hold.is_too_late(false) {
                    trouble.lose(id, &"the server is away");
                    return done(false);
                }
                sleep(RETRY_PAUSE).await;
                continue;
            }
            if permit.is_none() {
                // Others may hold all of it for as long as there is no room for their output.
                let asked = timeout(WINDOW_PAUSE, self.window.acquire_many(share)).await;
                permit = asked.ok().map(|permit| permit.expect("the window is never closed"));
                if permit.is_none() && hold.is_too_late(false) {
                    trouble.lose(id, &"that of other tasks can't be stored either");
                    return done(false);
                }
                continue;
            }
            match self.bus.publish(subject.clone(), headers.clone(), payload.clone()).await {
                Ok(_) => {
                    trouble.is_over();
                    return done(true);
                }
                Err(error)
                    if error.is_passing()
                        && !trouble.is_hopeless(&error)
                        && !hold.is_too_late(!matches!(error, BusError::Unclear(_))) =>
                {
                    metrics::runner_error("output");
                    if self.is_to_be_told() {
                        tracing::warn!(task = %id, %error, "output can't be stored; its task waits once its pipe is full");
                    }
                    sleep(error.pause(RETRY_PAUSE)).await;
                }
                Err(error) => {
                    trouble.lose(id, &error);
                    return done(false);
                }
            }
        }
    }
}

/// What keeps an attempt's output from being stored.
#[derive(Debug, Default)]
struct Trouble {
    /// Since when it is denied. Never held over an await.
    denied: Mutex<Option<Instant>>,
    lost: AtomicBool,
}

impl Trouble {
    /// Whether it has been denied for so long that the task should not wait for it any more.
    fn is_hopeless(&self, error: &BusError) -> bool {
        let mut denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        // A denial may pass unheard, and is a time-out then: only what is stored ends it.
        error.is_denied() && denied.get_or_insert_with(Instant::now).elapsed() >= DENIED_PATIENCE
    }

    /// A chunk was stored.
    fn is_over(&self) {
        *self.denied.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Tells the log of a loss, once for each attempt.
    fn lose(&self, id: &TaskId, why: &dyn Display) {
        if !self.lost.swap(true, Ordering::Relaxed) {
            tracing::warn!(task = %id, error = %why, "output is lost; the outcome says how much");
        }
    }
}

/// A chunk's share of the worker's window, in KiB.
fn share(bytes: usize) -> u32 {
    let share = bytes.div_ceil(1024).clamp(LEAST_KIB, WORKER_KIB);
    u32::try_from(share).expect("the window is small")
}

/// A chunk that is out of the window.
struct Done {
    stream: Stream,
    /// The program's bytes in it.
    len: usize,
    /// What it takes of the window.
    payload_len: usize,
    is_stored: bool,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nats::Denied;

    #[tokio::test(start_paused = true)]
    async fn a_denial_is_waited_out_for_a_while_and_anything_else_without_end() {
        let denied = BusError::Denied(Denied::Publish("a".into()));
        let away = BusError::Unclear(RETRY_PAUSE);
        let trouble = Trouble::default();
        assert!(!trouble.is_hopeless(&denied));
        sleep(DENIED_PATIENCE - RETRY_PAUSE).await;
        assert!(!trouble.is_hopeless(&denied));
        assert!(!trouble.is_hopeless(&away), "a denial may pass unheard");
        sleep(RETRY_PAUSE).await;
        assert!(trouble.is_hopeless(&denied) && !trouble.is_hopeless(&away));
        // Something was stored: a later denial has all of the time again.
        trouble.is_over();
        assert!(!trouble.is_hopeless(&denied));
    }

    #[test]
    fn the_window_counts_bytes_and_small_chunks_as_more() {
        assert_eq!((share(1), share(64 * 1024), share(64 * 1024 + 1)), (64, 64, 65));
        assert_eq!(share(DEFAULT_CHUNK_MAX), 256);
        // A chunk that is larger than the window waits for all of it, not for ever.
        assert_eq!(usize::try_from(share(usize::MAX - 1024)).expect("small"), WORKER_KIB);
    }
}
