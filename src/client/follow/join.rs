//! Puts the chunks of one attempt in order, from live messages and stored pages alike. Pure.
//!
//! ```text
//!   push ─► older attempt, or known seq ──────────► dropped
//!        ─► the next seq ─────────────────────────► delivered, with all that waited for it
//!        ─► a later seq (a publish was retried) ──► held, at most HELD_CHUNKS and HELD_BYTES
//!        ─► no room to hold it ───────────────────► refused: read it again later
//!        ─► a later attempt ──────────────────────► this attempt ends, the new one begins
//! ```
//!
//! Chunks are numbered over both streams without gaps, so the order in which the program's output was
//! read is restored also between the streams. A place in a stream that no chunk covers is a [`Gap`], and so is
//! one whose chunk can't be read.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::nats::PublishedChunk;
use crate::wire::{Attempt, OutputTotals, Stream, StreamTotals};

/// Chunks that may wait for an earlier one.
const HELD_CHUNKS: usize = 512;
/// Bytes that may wait for an earlier chunk.
const HELD_BYTES: usize = 8 * 1024 * 1024;

/// A chunk, or the place of one that can't be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) attempt: Attempt,
    pub(super) seq: u64,
    pub(super) part: Joined,
}

impl From<PublishedChunk> for Piece {
    fn from(published: PublishedChunk) -> Self {
        let PublishedChunk { attempt, stream, seq, offset, len, .. } = published;
        let part = match published.data() {
            Ok(data) => Joined::Chunk(OutputChunk { attempt, stream, offset, data }),
            Err(error) => {
                tracing::debug!(seq, %error, "cannot read a chunk of output");
                let reason = GapReason::Unreadable;
                Joined::Gap(Gap { attempt, stream, offset, bytes: len, reason })
            }
        };
        Self { attempt, seq, part }
    }
}

/// Bytes of one output stream, as the program wrote them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputChunk {
    /// The attempt that wrote them.
    pub attempt: Attempt,
    /// Which stream.
    pub stream: Stream,
    /// The place of the first byte in the stream of this attempt.
    pub offset: u64,
    /// The bytes; never empty.
    pub data: Bytes,
}

/// Bytes of a stream that are not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The attempt.
    pub attempt: Attempt,
    /// Which stream.
    pub stream: Stream,
    /// The place of the first missing byte.
    pub offset: u64,
    /// How many bytes are missing.
    pub bytes: u64,
    /// Why.
    pub reason: GapReason,
}

/// Why bytes are not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapReason {
    /// The task's output cap left them out; head and tail are there.
    Omitted,
    /// They are not stored: the output passed its age or size limit, or could not be stored.
    Missing,
    /// They are stored in a form that this version can't read: a newer worker's, or a damaged one.
    Unreadable,
}

/// What the joiner lets out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Joined {
    Chunk(OutputChunk),
    Gap(Gap),
}

impl Joined {
    fn stream(&self) -> Stream {
        match self {
            Self::Chunk(chunk) => chunk.stream,
            Self::Gap(gap) => gap.stream,
        }
    }

    fn offset(&self) -> u64 {
        match self {
            Self::Chunk(chunk) => chunk.offset,
            Self::Gap(gap) => gap.offset,
        }
    }

    /// The program's bytes that it stands for.
    fn len(&self) -> u64 {
        match self {
            Self::Chunk(chunk) => chunk.data.len() as u64,
            Self::Gap(gap) => gap.bytes,
        }
    }

    /// What it holds in memory, in bytes.
    pub(super) fn held(&self) -> usize {
        match self {
            Self::Chunk(chunk) => chunk.data.len(),
            Self::Gap(_) => 0,
        }
    }
}

/// What became of a pushed chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Pushed {
    /// Delivered, held, or known already.
    Taken,
    /// No room: it has to be read again when the hole before it is closed.
    Refused,
}

/// The order of one attempt at a time.
#[derive(Debug, Default)]
pub(super) struct Join {
    attempt: Option<Attempt>,
    next_seq: u64,
    held: BTreeMap<u64, Joined>,
    held_bytes: usize,
    streams: [StreamPlace; 2],
}

#[derive(Debug, Clone, Copy, Default)]
struct StreamPlace {
    /// Where the next byte is expected.
    end: u64,
    /// Bytes delivered.
    delivered: u64,
    /// Bytes held.
    held: u64,
    /// Chunks were given up since this stream's last one: a jump is a loss and no omission.
    skipped: bool,
}

fn index(stream: Stream) -> usize {
    match stream {
        Stream::Stdout => 0,
        Stream::Stderr => 1,
    }
}

impl Join {
    /// The attempt whose chunks are delivered now.
    pub(super) fn attempt(&self) -> Option<Attempt> {
        self.attempt
    }

    /// The number of the next chunk.
    pub(super) fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// Whether chunks wait for an earlier one.
    pub(super) fn has_hole(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether a chunk can be taken without ending the attempt that is delivered.
    pub(super) fn is_current(&self, piece: &Piece) -> bool {
        self.attempt == Some(piece.attempt)
    }

    /// Whether nothing of the task's output can come before a chunk.
    pub(super) fn is_first(&self, piece: &Piece) -> bool {
        self.attempt.is_none() && piece.attempt == Attempt::FIRST && piece.seq == 0
    }

    /// Whether a live chunk may begin its attempt: nothing can come before the first chunk of the first
    /// attempt. Before a later attempt's there may be chunks of an earlier one that were not read yet,
    /// so those begin in stream order only. `started` is the last attempt whose start was let out.
    pub(super) fn may_begin(&self, piece: &Piece, started: Option<Attempt>) -> bool {
        self.is_first(piece) && started == Some(Attempt::FIRST)
    }

    /// Takes a chunk. One of a later attempt ends the current one: push those in stream order only, or
    /// if [`Self::may_begin`] says so.
    pub(super) fn push(&mut self, piece: Piece, out: &mut VecDeque<Joined>) -> Pushed {
        match self.attempt {
            Some(attempt) if piece.attempt < attempt => return Pushed::Taken,
            Some(attempt) if piece.attempt == attempt => {}
            Some(_) | None => self.begin(piece.attempt, out),
        }
        if piece.seq < self.next_seq || self.held.contains_key(&piece.seq) {
            return Pushed::Taken;
        }
        if piece.seq == self.next_seq {
            self.deliver(piece.part, out);
            self.release(out);
            return Pushed::Taken;
        }
        let bytes = piece.part.held();
        if self.held.len() >= HELD_CHUNKS || self.held_bytes + bytes > HELD_BYTES {
            return Pushed::Refused;
        }
        self.held_bytes += bytes;
        self.streams[index(piece.part.stream())].held += piece.part.len();
        self.held.insert(piece.seq, piece.part);
        Pushed::Taken
    }

    /// Whether every byte that `totals` says is stored was delivered or is held.
    pub(super) fn has_all(&self, attempt: Attempt, totals: &OutputTotals) -> bool {
        let have = |stream: Stream, totals: &StreamTotals| {
            let place = &self.streams[index(stream)];
            place.delivered + place.held >= totals.stored_bytes
        };
        let nothing = totals.stdout.stored_bytes == 0 && totals.stderr.stored_bytes == 0;
        nothing
            || (self.attempt == Some(attempt)
                && have(Stream::Stdout, &totals.stdout)
                && have(Stream::Stderr, &totals.stderr))
    }

    /// Whether an attempt's end can be let out without reading what is stored: all chunks that its
    /// worker made were stored, so that the sums prove that each was delivered. If one was not stored, or
    /// may not have been, a live chunk that is stored nowhere could make up for one that never came.
    pub(super) fn is_whole(&self, attempt: Attempt, totals: &OutputTotals) -> bool {
        let whole = |stream: Stream, totals: &StreamTotals| {
            let delivered = self.streams[index(stream)].delivered;
            totals.complete && delivered == totals.stored_bytes
        };
        // Nothing was written before the first attempt.
        let is_next = self.attempt.is_none() && attempt == Attempt::FIRST;
        (is_next || self.attempt == Some(attempt))
            && whole(Stream::Stdout, &totals.stdout)
            && whole(Stream::Stderr, &totals.stderr)
    }

    /// Gives up the chunks before the first held one.
    pub(super) fn skip_hole(&mut self, out: &mut VecDeque<Joined>) {
        if let Some((&seq, _)) = self.held.first_key_value() {
            self.next_seq = seq;
            for place in &mut self.streams {
                place.skipped = true;
            }
            self.release(out);
        }
    }

    /// Ends an attempt: lets out what is held, and names what is missing at the end.
    pub(super) fn finish(
        &mut self,
        attempt: Attempt,
        totals: &OutputTotals,
        out: &mut VecDeque<Joined>,
    ) {
        if self.attempt.is_none_or(|current| current < attempt) {
            self.begin(attempt, out);
        }
        if self.attempt != Some(attempt) {
            return;
        }
        self.let_out(out);
        for stream in Stream::ALL {
            let total = match stream {
                Stream::Stdout => totals.stdout.bytes,
                Stream::Stderr => totals.stderr.bytes,
            };
            self.gap(stream, total, GapReason::Missing, out);
        }
    }

    /// Lets out everything that is held, with the gaps between.
    pub(super) fn let_out(&mut self, out: &mut VecDeque<Joined>) {
        while self.has_hole() {
            self.skip_hole(out);
        }
    }

    fn begin(&mut self, attempt: Attempt, out: &mut VecDeque<Joined>) {
        self.let_out(out);
        *self = Self { attempt: Some(attempt), ..Self::default() };
    }

    fn release(&mut self, out: &mut VecDeque<Joined>) {
        while let Some(part) = self.held.remove(&self.next_seq) {
            self.held_bytes -= part.held();
            self.streams[index(part.stream())].held -= part.len();
            self.deliver(part, out);
        }
    }

    fn deliver(&mut self, part: Joined, out: &mut VecDeque<Joined>) {
        self.next_seq += 1;
        let stream = part.stream();
        let skipped = self.streams[index(stream)].skipped;
        let reason = if skipped { GapReason::Missing } else { GapReason::Omitted };
        self.gap(stream, part.offset(), reason, out);
        let place = &mut self.streams[index(stream)];
        place.skipped = false;
        place.end = place.end.max(part.offset().saturating_add(part.len()));
        // Also what can't be read: nothing more of it will come.
        place.delivered = place.delivered.saturating_add(part.len());
        out.push_back(part);
    }

    fn gap(&mut self, stream: Stream, until: u64, reason: GapReason, out: &mut VecDeque<Joined>) {
        let place = &mut self.streams[index(stream)];
        let (Some(attempt), true) = (self.attempt, until > place.end) else { return };
        let (offset, bytes) = (place.end, until - place.end);
        place.end = until;
        out.push_back(Joined::Gap(Gap { attempt, stream, offset, bytes, reason }));
    }
}

#[cfg(test)]
#[path = "join_tests.rs"]
mod tests;
