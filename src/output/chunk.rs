//! Read bytes → chunks. Pure: bytes and instants come in as arguments, chunks are taken out.
//!
//! * The first bytes after a quiet time leave at once; what follows within [`ChunkerSettings::coalesce`]
//!   is put together, up to [`ChunkerSettings::chunk_max`].
//! * Chunks are numbered over both streams in the order in which their first bytes were read. A
//!   stream's tail past its cap is numbered when it is released, at the stream's end.
//! * Past the cap the head is kept and the last [`TAIL_BYTES`] wait in a ring:
//!
//! ```text
//! 0 ........ max_bytes ........ bytes - TAIL_BYTES ........ bytes
//! |   head, sent   |   omitted          |   tail, sent at end |
//! ```
//!
//! Memory: per stream at most `chunk_max` pending and [`TAIL_BYTES`] of tail; what is ready and not
//! taken yet is at most the last push (or the tails) and two chunks.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::task::plan::{OutputLimits, TAIL_BYTES};
use crate::wire::{Stream, StreamTotals};

/// Default size limit of a chunk, in bytes.
pub const DEFAULT_CHUNK_MAX: usize = 256 * 1024;
/// Default time for which small writes are put together.
pub const DEFAULT_COALESCE: Duration = Duration::from_millis(5);

/// A piece of one output stream, as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The stream it belongs to.
    pub stream: Stream,
    /// Its number in the attempt, over both streams, from 0 without gaps.
    pub seq: u64,
    /// The place of its first byte in its stream.
    pub offset: u64,
    /// The bytes; never empty.
    pub data: Bytes,
}

/// How bytes are put together to chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkerSettings {
    /// Size limit of a chunk in bytes; zero counts as one.
    pub chunk_max: usize,
    /// Time for which small writes are put together. Zero: each read is a chunk.
    pub coalesce: Duration,
    /// Limits of each stream.
    pub limits: OutputLimits,
}

/// The part of a stream that the cap left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Omitted {
    /// Offset of the first byte left out.
    pub offset: u64,
    /// Number of bytes left out; never zero.
    pub bytes: u64,
}

/// What one stream amounts to so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamTally {
    /// Bytes read.
    pub bytes: u64,
    /// Bytes made into chunks.
    pub kept_bytes: u64,
    /// Chunks made.
    pub chunks: u64,
    /// What the cap left out; final once the stream is closed.
    pub omitted: Option<Omitted>,
}

impl StreamTally {
    /// Builds the wire form from what was really stored; `ended` says that the stream was read to its end.
    pub fn stored(&self, stored_bytes: u64, stored_chunks: u64, ended: bool) -> StreamTotals {
        StreamTotals {
            bytes: self.bytes,
            stored_bytes,
            chunks: stored_chunks,
            truncated: self.omitted.is_some(),
            omitted_offset: self.omitted.map(|omitted| omitted.offset),
            omitted_bytes: self.omitted.map(|omitted| omitted.bytes),
            complete: ended && stored_bytes == self.kept_bytes,
        }
    }
}

/// Makes chunks of both streams' bytes.
#[derive(Debug)]
pub struct Chunker {
    settings: ChunkerSettings,
    streams: [StreamState; 2],
    ready: VecDeque<Chunk>,
    next_seq: u64,
    next_ticket: u64,
}

#[derive(Debug, Default)]
struct StreamState {
    tally: StreamTally,
    pending: Vec<u8>,
    /// The last pending bytes filled a chunk, so the next ones get all the room at once.
    fills: bool,
    /// Place of the pending bytes in the order of first reads; without meaning if nothing is pending.
    ticket: u64,
    /// Before this instant small writes wait for more.
    quiet_until: Option<Instant>,
    tail: VecDeque<u8>,
}

impl Chunker {
    /// Starts with two empty streams.
    pub fn new(settings: ChunkerSettings) -> Self {
        let settings = ChunkerSettings { chunk_max: settings.chunk_max.max(1), ..settings };
        Self {
            settings,
            streams: Default::default(),
            ready: VecDeque::new(),
            next_seq: 0,
            next_ticket: 0,
        }
    }

    /// Takes bytes of a stream, read at `now`. Take the ready chunks before the next push.
    pub fn push(&mut self, stream: Stream, data: &[u8], now: Instant) {
        let max_bytes = self.settings.limits.max_bytes;
        let state = &mut self.streams[index(stream)];
        let room = max_bytes.saturating_sub(state.tally.bytes);
        let head = usize::try_from(room).map_or(data.len(), |room| room.min(data.len()));
        let (head, rest) = data.split_at(head);
        state.tally.bytes += data.len() as u64;
        state.keep_tail(rest, max_bytes);
        self.append(stream, head, now);
        self.tick(now);
    }

    /// Releases what has waited long enough at `now`.
    pub fn tick(&mut self, now: Instant) {
        for stream in Stream::ALL {
            if self.streams[index(stream)].due().is_some_and(|due| due <= now) {
                self.flush(stream, now);
            }
        }
        // A stream that has never sent, or has been quiet long enough, doesn't wait.
        for stream in Stream::ALL {
            let state = &self.streams[index(stream)];
            if !state.pending.is_empty() && state.quiet_until.is_none() {
                self.flush(stream, now);
            }
        }
    }

    /// Says when [`Self::tick`] has something to release; none if nothing is pending.
    pub fn deadline(&self) -> Option<Instant> {
        self.streams.iter().filter_map(StreamState::due).min()
    }

    /// Ends a stream: its pending bytes and its tail become ready. Closing twice does nothing more.
    pub fn close(&mut self, stream: Stream, now: Instant) {
        self.flush(stream, now);
        let state = &mut self.streams[index(stream)];
        let tail = std::mem::take(&mut state.tail);
        let mut offset = state.tally.bytes - tail.len() as u64;
        for part in Vec::from(tail).chunks(self.settings.chunk_max) {
            self.emit(stream, offset, Bytes::copy_from_slice(part));
            offset += part.len() as u64;
        }
    }

    /// Takes the next ready chunk.
    pub fn pop(&mut self) -> Option<Chunk> {
        self.ready.pop_front()
    }

    /// Returns what a stream amounts to so far.
    pub fn tally(&self, stream: Stream) -> StreamTally {
        self.streams[index(stream)].tally
    }

    fn append(&mut self, stream: Stream, mut data: &[u8], now: Instant) {
        while !data.is_empty() {
            let chunk_max = self.settings.chunk_max;
            let state = &mut self.streams[index(stream)];
            if state.pending.is_empty() {
                state.ticket = self.next_ticket;
                self.next_ticket += 1;
                if let Some((whole, rest)) = data.split_at_checked(chunk_max) {
                    self.flush_whole(stream, whole, now);
                    data = rest;
                    continue;
                }
                if state.fills {
                    state.pending.reserve_exact(chunk_max);
                }
            }
            let room = chunk_max - state.pending.len();
            let (part, rest) = data.split_at(room.min(data.len()));
            state.pending.extend_from_slice(part);
            data = rest;
            if state.pending.len() == chunk_max {
                self.flush(stream, now);
            }
        }
    }

    /// Makes a chunk of bytes that fill one, without putting them to the stream's pending ones, of which
    /// there are none.
    fn flush_whole(&mut self, stream: Stream, data: &[u8], now: Instant) {
        // Whatever is pending was read before.
        if !self.streams[index(other(stream))].pending.is_empty() {
            self.flush_one(other(stream), now);
        }
        self.send(stream, Bytes::copy_from_slice(data), now);
    }

    /// Makes the stream's pending bytes a chunk, after the other stream's if those were read first.
    fn flush(&mut self, stream: Stream, now: Instant) {
        let other = other(stream);
        let (mine, theirs) = (&self.streams[index(stream)], &self.streams[index(other)]);
        if mine.pending.is_empty() {
            return;
        }
        if !theirs.pending.is_empty() && theirs.ticket < mine.ticket {
            self.flush_one(other, now);
        }
        self.flush_one(stream, now);
    }

    fn flush_one(&mut self, stream: Stream, now: Instant) {
        let state = &mut self.streams[index(stream)];
        state.fills = state.pending.len() == self.settings.chunk_max;
        let data = if state.fills {
            Bytes::from(std::mem::take(&mut state.pending))
        } else {
            // Copied to its exact size: a queued small chunk must not hold a large buffer.
            let data = Bytes::copy_from_slice(&state.pending);
            state.pending.clear();
            data
        };
        self.send(stream, data, now);
    }

    fn send(&mut self, stream: Stream, data: Bytes, now: Instant) {
        let state = &mut self.streams[index(stream)];
        state.quiet_until = Some(now + self.settings.coalesce);
        let offset = state.tally.kept_bytes;
        self.emit(stream, offset, data);
    }

    fn emit(&mut self, stream: Stream, offset: u64, data: Bytes) {
        let tally = &mut self.streams[index(stream)].tally;
        tally.kept_bytes += data.len() as u64;
        tally.chunks += 1;
        let seq = self.next_seq;
        self.next_seq += 1;
        self.ready.push_back(Chunk { stream, seq, offset, data });
    }
}

impl StreamState {
    fn due(&self) -> Option<Instant> {
        self.quiet_until.filter(|_| !self.pending.is_empty())
    }

    fn keep_tail(&mut self, data: &[u8], head_len: u64) {
        if data.is_empty() {
            return;
        }
        let data = &data[data.len().saturating_sub(TAIL_BYTES)..];
        let overflow = (self.tail.len() + data.len()).saturating_sub(TAIL_BYTES);
        self.tail.drain(..overflow);
        self.tail.extend(data);
        let omitted = self.tally.bytes - head_len - self.tail.len() as u64;
        self.tally.omitted = (omitted > 0).then_some(Omitted { offset: head_len, bytes: omitted });
    }
}

fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

fn other(stream: Stream) -> Stream {
    match stream {
        Stream::Stdout => Stream::Stderr,
        Stream::Stderr => Stream::Stdout,
    }
}

#[cfg(test)]
mod tests;
