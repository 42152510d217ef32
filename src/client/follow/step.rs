//! The follower's steps: each reads at most one page, or hears one live message.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::time::{Instant, sleep, sleep_until};

use super::join::{Piece, Pushed};
use super::live::LiveMessage;
use super::records::{Record, What};
use super::{Follow, FollowEvent};
use crate::nats::BusError;
use crate::wire::{Attempt, StatusEvent};

/// How often the streams are looked at when nothing is heard: a live message may be lost.
const CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// When a record that was heard is looked for, once more perhaps: it was heard before it was stored, or a replica
/// lags, or nothing has proven it so far.
const RECORD_INTERVAL: Duration = Duration::from_millis(20);
/// How often a chunk that is missing is looked for.
const HOLE_INTERVAL: Duration = Duration::from_millis(250);
/// How long chunks may come after the record that says that they are stored: replicas lag.
const END_PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two looks for those.
const END_PAUSE: Duration = Duration::from_millis(100);
/// Records older than this have no chunks on the way.
const SETTLED: Duration = Duration::from_secs(30);
/// Live chunks after which the position in the stream is moved up.
const ANCHOR_CHUNKS: u32 = 512;
/// Bytes of live chunks after which it is.
const ANCHOR_BYTES: usize = 64 * 1024 * 1024;

impl Follow {
    /// Lets out one record or chunk in the right order, or reads what is needed to know which.
    pub(super) async fn catch_up(&mut self) -> Result<(), BusError> {
        if self.records.needs_read() {
            self.records.read().await?;
            self.reached();
            self.wait.records_read = true;
            self.wait.record_due &= self.records.front().is_none();
            return Ok(());
        }
        if self.history.front().is_none() && self.front_is_whole() {
            self.release_record();
            return Ok(());
        }
        if std::mem::take(&mut self.wait.records_read) && self.records.front().is_some() {
            // What these records say is stored may have been stored after the last read.
            self.history.look_again();
        }
        match self.history.front().map(|piece| piece.attempt) {
            Some(attempt) if self.records.front().is_some_and(|r| r.precedes(attempt)) => {
                self.release_record();
                Ok(())
            }
            Some(attempt) if self.lacks_start(attempt) => {
                self.start_sought = Some(attempt);
                self.records.look_again();
                Ok(())
            }
            Some(_) => self.take_stored().await,
            None if !self.history.is_at_end() => self.read_on().await,
            None if self.records.front().is_some() => self.end_attempt().await,
            None => {
                self.rest();
                Ok(())
            }
        }
    }

    /// Whether the next record has all its chunks before it, whatever else is stored.
    fn front_is_whole(&self) -> bool {
        let Some(record) = self.records.front() else { return false };
        record.starts() == Some(Attempt::FIRST)
            || record.attempt_end().is_some_and(|end| self.join.is_whole(end.attempt, end.totals))
    }

    /// Hears what waits live, and then reads a page if chunks are missing still.
    async fn read_on(&mut self) -> Result<(), BusError> {
        if let Some(live) = &mut self.live {
            if !self.wait.refused
                && let Some(message) = live.waiting()
            {
                self.hear(message);
                return Ok(());
            }
            self.note_losses();
            if self.live_goes_on() {
                self.history.pause();
                return Ok(());
            }
        }
        self.history.read().await?;
        self.wait.refused = false;
        self.wait.to_the_end &= !self.history.was_end();
        self.reached();
        Ok(())
    }

    /// Whether what is missing is sure to come live: a chunk did since the last one that was dropped, and
    /// all before it are there. One that is lost on the way shows as a hole, as silence or at the end.
    fn live_goes_on(&self) -> bool {
        let (Some(live), Some(attempt)) = (&self.live, self.join.attempt()) else { return false };
        self.wait.joined_on == Some((attempt, live.losses()))
            && !self.wait.to_the_end
            && !self.join.has_hole()
            && self.records.front().is_none()
    }

    /// Has the streams looked at if live messages were dropped since the last call.
    fn note_losses(&mut self) {
        let Some(live) = &self.live else { return };
        if live.take_lost_record() {
            self.heard.missed();
            self.records.look_again();
            self.behind = true;
        }
        let losses = live.losses();
        if std::mem::replace(&mut self.wait.losses, losses) != losses {
            self.read_behind_what_was_delivered();
            // A dropped chunk may be stored after the read that follows: the next check reads again.
            self.wait.heard_output = false;
        }
    }

    fn read_behind_what_was_delivered(&mut self) {
        if !self.wait.to_the_end {
            self.history.skip_to(self.join.attempt(), self.join.next_seq());
        }
        self.history.look_again();
        self.behind = true;
    }

    /// Waits for something live, or until it is time to look at the streams.
    pub(super) async fn listen(&mut self) -> Result<(), BusError> {
        let much = self.wait.live_chunks >= ANCHOR_CHUNKS || self.wait.live_bytes >= ANCHOR_BYTES;
        if much && !self.join.has_hole() {
            self.history.catch_up(self.join.next_seq()).await?;
            (self.wait.live_chunks, self.wait.live_bytes) = (0, 0);
        }
        let interval = match (self.wait.record_due, self.join.has_hole()) {
            (true, _) => RECORD_INTERVAL,
            (false, true) => HOLE_INTERVAL,
            (false, false) => CHECK_INTERVAL,
        };
        let check = sleep_until(self.wait.checked + interval);
        let Some(live) = &mut self.live else { return Ok(()) };
        // Cancel safe: a message stays in the channel until taken.
        tokio::select! {
            message = live.next() => self.hear(message),
            () = check => self.check(),
        }
        self.note_losses();
        Ok(())
    }

    fn hear(&mut self, message: LiveMessage) {
        match message {
            LiveMessage::Status(record) => {
                let was_due = std::mem::replace(&mut self.wait.record_due, true);
                self.records.look_again();
                if !self.heard.hear(record) {
                    self.behind = true;
                } else if !was_due {
                    self.wait.checked = Instant::now();
                }
            }
            LiveMessage::Outcome(outcome) => {
                if !self.end_as_heard(&outcome) {
                    self.wait.record_due = true;
                    self.records.look_again();
                    self.behind = true;
                }
            }
            LiveMessage::Output(piece, losses) if self.join.is_current(&piece) => {
                self.take_live(piece, losses);
            }
            LiveMessage::Output(piece, losses) if self.may_begin(&piece) => {
                self.history.begin(piece.attempt);
                self.take_live(piece, losses);
            }
            LiveMessage::Output(piece, _) if self.join.attempt() > Some(piece.attempt) => {}
            LiveMessage::Output(..) => {
                self.wait.to_the_end = true;
                self.history.look_again();
                self.behind = true;
            }
        }
    }

    /// Whether a live chunk may begin its attempt; lets out the start that it proves.
    fn may_begin(&mut self, piece: &Piece) -> bool {
        if self.started.is_none()
            && self.join.is_first(piece)
            && let Some(start) = self.heard.start()
        {
            self.let_out_start(start);
            self.wait.record_due = false;
            self.records.pause();
        }
        self.join.may_begin(piece, self.started)
    }

    fn let_out_start(&mut self, start: StatusEvent) {
        self.started = Some(Attempt::FIRST);
        self.ready.push_back(FollowEvent::Status(Box::new(start)));
    }

    /// Ends with an outcome that was heard, if it proves all that was heard of the task, and its output is
    /// here.
    fn end_as_heard(&mut self, outcome: &Bytes) -> bool {
        let Some(([start, end], outcome)) = self.heard.whole_life(outcome) else { return false };
        let Some(totals) = &outcome.output else { return false };
        if !self.join.is_whole(Attempt::FIRST, totals) {
            return false;
        }
        self.reached();
        if self.started.is_none() {
            self.let_out_start(start);
        }
        self.join.finish(Attempt::FIRST, totals, &mut self.joined);
        self.flush();
        self.ready.push_back(FollowEvent::Status(Box::new(end)));
        self.ready.push_back(FollowEvent::Outcome(Box::new(outcome)));
        self.done = true;
        true
    }

    fn take_live(&mut self, piece: Piece, losses: u64) {
        self.wait.heard_output = true;
        self.wait.live_chunks += 1;
        self.wait.live_bytes += piece.part.held();
        // A chunk that was stored twice may come long after its place: it says nothing of what follows.
        let (attempt, is_new) = (piece.attempt, piece.seq >= self.join.next_seq());
        match self.join.push(piece, &mut self.joined) {
            Pushed::Taken if is_new => self.wait.joined_on = Some((attempt, losses)),
            Pushed::Taken => {}
            Pushed::Refused => {
                self.wait.joined_on = None;
                self.wait.refused = true;
                self.read_behind_what_was_delivered();
            }
        }
        self.note_hole();
        self.flush();
    }

    fn note_hole(&mut self) {
        let hole = self.join.has_hole().then(|| self.join.next_seq());
        if self.wait.hole.map(|(seq, _)| seq) != hole {
            self.wait.hole = hole.map(|seq| (seq, Instant::now()));
        }
    }

    fn check(&mut self) {
        self.records.look_again();
        if std::mem::take(&mut self.wait.record_due) {
            self.behind = true;
            return;
        }
        self.wait.checked = Instant::now();
        let heard = std::mem::take(&mut self.wait.heard_output);
        if !heard || self.join.has_hole() {
            self.wait.to_the_end = true;
            self.history.look_again();
        }
        self.behind = true;
    }

    /// Whether the start of a chunk's attempt was never let out, and the records may say it by now.
    fn lacks_start(&self, attempt: Attempt) -> bool {
        self.records.front().is_none()
            && self.started < Some(attempt)
            && self.start_sought != Some(attempt)
    }

    async fn take_stored(&mut self) -> Result<(), BusError> {
        let Some((seq, piece)) = self.history.pop() else { return Ok(()) };
        let attempt = piece.attempt;
        let pushed = self.join.push(piece, &mut self.joined);
        self.flush();
        if pushed == Pushed::Taken {
            self.note_hole();
            return Ok(());
        }
        // No room to hold what follows a missing chunk: look for that one alone, then read on here.
        self.history.rewind(seq);
        let found = self.history.find(attempt, self.join.next_seq()).await?;
        match found {
            Some(found) => {
                let pushed = self.join.push(found, &mut self.joined);
                debug_assert_eq!(pushed, Pushed::Taken, "the next chunk is always taken");
            }
            None if self.live.is_none() || self.hole_is_older_than(self.wait.patience) => {
                self.join.skip_hole(&mut self.joined);
            }
            // It may be on its way: listen, and come back.
            None => self.behind = false,
        }
        self.note_hole();
        self.flush();
        Ok(())
    }

    fn hole_is_older_than(&self, limit: Duration) -> bool {
        self.wait.hole.is_some_and(|(_, since)| since.elapsed() >= limit)
    }

    /// All that is stored was read. A hole that stays is looked for from the start, then given up.
    fn rest(&mut self) {
        self.behind = false;
        self.wait.checked = Instant::now();
        if self.live.is_none() || !self.join.has_hole() {
            return;
        }
        if self.hole_is_older_than(self.wait.patience) {
            self.join.skip_hole(&mut self.joined);
            self.note_hole();
            self.flush();
        } else if self.hole_is_older_than(self.wait.patience / 2) && self.rewind_once() {
            self.behind = true;
        }
    }

    /// Goes back to the attempt's start, once for each hole: the position may have been moved up past
    /// a chunk that was stored out of order.
    fn rewind_once(&mut self) -> bool {
        let hole = self.join.attempt().map(|attempt| (attempt, self.join.next_seq()));
        if hole.is_none() || self.wait.rewound_for == hole {
            return false;
        }
        self.wait.rewound_for = hole;
        self.wait.to_the_end = true;
        self.history.rewind_attempt();
        true
    }

    /// All output was read and a record waits: lets it out when nothing is missing before it.
    async fn end_attempt(&mut self) -> Result<(), BusError> {
        let Some(record) = self.records.front() else { return Ok(()) };
        let missing =
            record.attempt_end().is_some_and(|end| !self.join.has_all(end.attempt, end.totals));
        let settled = is_settled(record) || self.live.is_none();
        if !missing {
            self.release_record();
            return Ok(());
        }
        if self.live.is_some() && self.rewind_once() {
            return Ok(());
        }
        let since = *self.wait.end_since.get_or_insert_with(Instant::now);
        if settled || since.elapsed() >= END_PATIENCE {
            self.release_record();
        } else {
            sleep(END_PAUSE).await;
            self.history.look_again();
        }
        Ok(())
    }

    fn release_record(&mut self) {
        let Some(record) = self.records.pop() else { return };
        if record.starts().is_some_and(|attempt| Some(attempt) <= self.started) {
            // It was let out when it was heard.
            return;
        }
        self.wait.end_since = None;
        match record.attempt_end() {
            Some(end) => self.join.finish(end.attempt, end.totals, &mut self.joined),
            None => self.join.let_out(&mut self.joined),
        }
        self.note_hole();
        self.flush();
        self.started = self.started.max(record.starts());
        let outcome = record.outcome().cloned();
        if let What::Status(event) = record.what {
            self.ready.push_back(FollowEvent::Status(event));
        }
        if let Some(outcome) = outcome {
            self.ready.push_back(FollowEvent::Outcome(Box::new(outcome)));
            self.done = true;
        }
    }
}

fn is_settled(record: &Record) -> bool {
    let age = Timestamp::now().duration_since(record.stored_at);
    // A clock that is behind the server's makes the age negative: then it is not settled.
    Duration::try_from(age).is_ok_and(|age| age >= SETTLED)
}
