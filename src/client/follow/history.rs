//! The stored half of following: a task's chunks in stream order, a page at a time.

use std::collections::VecDeque;

use super::join::Piece;
use crate::nats::{Bus, BusError, PublishedChunk, Stored};
use crate::wire::{Attempt, TaskId};

/// How far from its turn a chunk may be stored: a worker has at most 8 of a task under way.
const OUT_OF_TURN: u64 = 16;

/// Reads a task's stored chunks.
pub(super) struct History {
    bus: Bus,
    filter: String,
    /// Where the next page starts.
    from: u64,
    /// Where the attempt that is delivered starts.
    attempt_from: u64,
    attempt: Option<Attempt>,
    /// The next page starts with this attempt's chunk of this number, or an earlier one.
    number: Option<(Attempt, u64)>,
    /// As it was read: a page of compressed chunks is many times as large without that.
    page: VecDeque<(u64, PublishedChunk)>,
    at_end: bool,
}

impl History {
    pub(super) fn new(bus: Bus, id: &TaskId) -> Self {
        let filter = bus.subjects().output_task(id);
        Self {
            bus,
            filter,
            from: 1,
            attempt_from: 1,
            attempt: None,
            number: None,
            page: VecDeque::new(),
            at_end: false,
        }
    }

    /// The next stored chunk that was read.
    pub(super) fn front(&self) -> Option<&PublishedChunk> {
        self.page.front().map(|(_, chunk)| chunk)
    }

    /// Takes the next chunk and its sequence in the stream.
    pub(super) fn pop(&mut self) -> Option<(u64, Piece)> {
        let (seq, chunk) = self.page.pop_front()?;
        if self.attempt.is_none_or(|attempt| attempt < chunk.attempt) {
            self.attempt = Some(chunk.attempt);
            self.attempt_from = seq;
        }
        Some((seq, chunk.into()))
    }

    /// An attempt is delivered from its first chunk on without being read: whatever is stored of it
    /// comes behind what was read. To be called when nothing that was read waits.
    pub(super) fn begin(&mut self, attempt: Attempt) {
        if self.attempt.is_none_or(|current| current < attempt) {
            self.attempt = Some(attempt);
            self.attempt_from = self.from;
            self.number = Some((attempt, 0));
        }
    }

    /// Whether all that was stored at the last read was taken.
    pub(super) fn is_at_end(&self) -> bool {
        self.at_end && self.page.is_empty()
    }

    /// Whether the last page that was read was the last one then.
    pub(super) fn was_end(&self) -> bool {
        self.at_end
    }

    /// Has the end looked at again.
    pub(super) fn look_again(&mut self) {
        self.at_end = false;
    }

    /// Reads no further for now: what follows was heard live.
    pub(super) fn pause(&mut self) {
        self.at_end = true;
    }

    /// Passes over chunks that were delivered live. Each has a place in the stream of its own, so the
    /// n-th from the position on is at least n places behind it. Where that is wrong, because a chunk was
    /// never stored, a hole remains, and [`Self::rewind_attempt`] finds what was passed over.
    pub(super) fn skip_to(&mut self, attempt: Option<Attempt>, next_seq: u64) {
        let Some((current, number)) = self.number else { return };
        if attempt != Some(current) || !self.page.is_empty() {
            return;
        }
        let ahead = next_seq.saturating_sub(number).saturating_sub(OUT_OF_TURN);
        self.from += ahead;
        self.number = Some((current, number + ahead));
    }

    /// Goes back to a sequence of the stream.
    pub(super) fn rewind(&mut self, seq: u64) {
        self.page.clear();
        self.number = None;
        self.from = seq;
        self.at_end = false;
    }

    /// Goes back to the first chunk of the attempt that is delivered.
    pub(super) fn rewind_attempt(&mut self) {
        self.rewind(self.attempt_from);
    }

    /// Reads one page behind what waits. Cancel safe.
    pub(super) async fn read(&mut self) -> Result<(), BusError> {
        let stream = self.bus.subjects().output_stream();
        let page = self.bus.read_page(&stream, &self.filter, self.from).await?;
        self.at_end = page.end;
        for stored in page.messages {
            self.from = stored.seq + 1;
            let seq = stored.seq;
            let Some(chunk) = self.chunk(stored) else { continue };
            // A chunk that was stored twice doesn't make the number smaller.
            self.number = self.number.max(Some((chunk.attempt, chunk.seq + 1)));
            self.page.push_back((seq, chunk));
        }
        Ok(())
    }

    /// Looks through the stored chunks behind the position for one, and keeps only that.
    pub(super) async fn find(
        &self,
        attempt: Attempt,
        number: u64,
    ) -> Result<Option<Piece>, BusError> {
        let (stream, mut from) = (self.bus.subjects().output_stream(), self.from);
        loop {
            let page = self.bus.read_page(&stream, &self.filter, from).await?;
            for stored in page.messages {
                from = stored.seq + 1;
                let found = self.chunk(stored);
                if let Some(found) = found.filter(|c| c.attempt == attempt && c.seq == number) {
                    return Ok(Some(found.into()));
                }
            }
            if page.end {
                return Ok(None);
            }
        }
    }

    /// Moves the position up to the newest stored chunk, if that is one that was delivered (its number
    /// is below `next_seq`), so that a later repair has little to read again.
    pub(super) async fn catch_up(&mut self, next_seq: u64) -> Result<(), BusError> {
        let stream = self.bus.subjects().output_stream();
        let page = self.bus.read_last_of_each(&stream, std::slice::from_ref(&self.filter)).await?;
        for stored in page.messages {
            let seq = stored.seq;
            let chunk = self.chunk(stored);
            let delivered = chunk.filter(|c| Some(c.attempt) == self.attempt && c.seq < next_seq);
            if let Some(chunk) = delivered
                && seq >= self.from
                && self.page.is_empty()
            {
                self.from = seq + 1;
                self.number = Some((chunk.attempt, next_seq));
            }
        }
        Ok(())
    }

    fn chunk(&self, stored: Stored) -> Option<PublishedChunk> {
        let Stored { subject, headers, payload, .. } = stored;
        PublishedChunk::read(self.bus.subjects(), &subject, &headers, payload)
    }
}
