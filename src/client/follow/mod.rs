//! Follows a task's output and records from byte 0, before, during or after its run, on any machine.
//!
//! ```text
//!   subscribe live ─► behind: read records, then chunks, page by page ─► listening: live chunks
//!                       ▲                                                   │
//!                       └── a record, a hole, dropped messages, silence ────┘
//! ```
//!
//! * Pages are in stream order, so only they may change the attempt; a live chunk is the fast path and
//!   is taken if it belongs to the attempt that is delivered, or begins the task's first one.
//! * Of a new task, a record that what is heard later proves isn't read: a short one is followed without a read.
//! * A record that ends an attempt is let out when every byte it says is stored was delivered, or
//!   after a bounded wait; then gaps say what is missing.
//! * Reading ends where live chunks join on. A follower that keeps up reads no output at all: who reads
//!   what also comes live has the server send it twice.
//! * Nothing is made on the server: no consumer, no stream. Memory is bounded by one page of chunks
//!   (4 MiB), one of records, the held chunks (8 MiB) and the live channel (16 MiB).
//! * While the server is away it waits, and says so once.

mod heard;
mod history;
mod join;
mod live;
mod records;
mod step;

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use self::heard::Heard;
use self::history::History;
use self::join::{Join, Joined};
use self::live::Live;
use self::records::Records;
use super::Client;
use crate::nats::{Bus, BusError};
use crate::wire::{Attempt, Outcome, StatusEvent, TaskId};

pub use self::join::{Gap, GapReason, OutputChunk};

/// Pause before a read that failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// How long a missing chunk is waited for, unless set otherwise. A worker tries a publish whose answer
/// was lost again after 5 s, several times if need be.
pub const DEFAULT_PATIENCE: Duration = Duration::from_secs(20);

/// What a follower hears, in order.
#[derive(Debug, Clone, PartialEq)]
pub enum FollowEvent {
    /// The program wrote something.
    Chunk(OutputChunk),
    /// Bytes between two chunks, or at a stream's end, are not there.
    Gap(Gap),
    /// The task took a step in its life. A start comes before its attempt's chunks, a retry after them.
    Status(Box<StatusEvent>),
    /// The server doesn't answer; the follower goes on trying.
    Unreachable(BusError),
    /// The server answers again; nothing was lost.
    Reachable,
    /// The task has ended; nothing follows.
    Outcome(Box<Outcome>),
}

/// An ordered stream of a task's events; see the module's documentation.
pub struct Follow {
    records: Records,
    history: History,
    /// None: what is stored, and no more.
    live: Option<Live>,
    heard: Heard,
    join: Join,
    joined: VecDeque<Joined>,
    ready: VecDeque<FollowEvent>,
    behind: bool,
    done: bool,
    unreachable: bool,
    /// The last attempt whose start was let out.
    started: Option<Attempt>,
    /// The attempt for whose start the records were read once more.
    start_sought: Option<Attempt>,
    wait: Waits,
}

/// What the follower waits for, and since when.
struct Waits {
    /// How long a missing chunk is waited for. After half of it the attempt is read from its start.
    patience: Duration,
    checked: Instant,
    heard_output: bool,
    /// How many dropped live chunks were taken note of.
    losses: u64,
    /// A live chunk of this attempt was taken after so many had been dropped.
    joined_on: Option<(Attempt, u64)>,
    /// A live chunk found no room: what is stored before it comes first.
    refused: bool,
    /// Something may have been missed that no live chunk shows: only a read to the end tells.
    to_the_end: bool,
    /// A record was heard and not found yet.
    record_due: bool,
    /// Records were read since the chunks were.
    records_read: bool,
    /// The number of the chunk that is missing, and since when.
    hole: Option<(u64, Instant)>,
    end_since: Option<Instant>,
    /// The stored chunks were read again from the attempt's start for the hole before this number.
    rewound_for: Option<(Attempt, u64)>,
    /// Live chunks since the position in the stream was last moved up.
    live_chunks: u32,
    /// Their bytes.
    live_bytes: usize,
}

impl Client {
    /// Follows a task until its outcome. The task need not be there yet.
    ///
    /// # Errors
    /// The subscriptions can't be made.
    pub async fn follow(&self, id: &TaskId) -> Result<Follow, BusError> {
        Follow::subscribe(self.bus(), id, false).await
    }

    /// Reads what is stored of a task, and ends there.
    pub fn stored(&self, id: &TaskId) -> Follow {
        Follow::new(self.bus(), id, None)
    }
}

impl Follow {
    /// Begins to follow a task. `is_new` says that nobody has heard of it yet: nothing is stored of it.
    pub(super) async fn subscribe(bus: &Bus, id: &TaskId, is_new: bool) -> Result<Self, BusError> {
        let live = Live::subscribe(bus, id).await?;
        let mut follow = Self::new(bus, id, Some(live));
        if is_new {
            follow.records.pause();
            follow.history.pause();
            follow.behind = false;
            follow.heard = Heard::of_new();
        }
        Ok(follow)
    }

    fn new(bus: &Bus, id: &TaskId, live: Option<Live>) -> Self {
        Self {
            records: Records::new(bus.clone(), id),
            history: History::new(bus.clone(), id),
            live,
            heard: Heard::of_known(),
            join: Join::default(),
            joined: VecDeque::new(),
            ready: VecDeque::new(),
            behind: true,
            done: false,
            unreachable: false,
            started: None,
            start_sought: None,
            wait: Waits {
                patience: DEFAULT_PATIENCE,
                checked: Instant::now(),
                heard_output: false,
                losses: 0,
                joined_on: None,
                refused: false,
                to_the_end: false,
                record_due: false,
                records_read: false,
                hole: None,
                end_since: None,
                rewound_for: None,
                live_chunks: 0,
                live_bytes: 0,
            },
        }
    }

    /// Sets how long a missing chunk holds up those after it while the task goes on; then a gap is told
    /// and the rest follows.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.wait.patience = patience;
        self
    }

    /// Returns the next event; `None` after the outcome, or after the last stored event. Cancel safe.
    ///
    /// # Errors
    /// The connection is closed, or the server refuses the reads. A server that is away is no error
    /// while following, only when reading what is stored.
    pub async fn next(&mut self) -> Result<Option<FollowEvent>, BusError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            if self.done {
                return Ok(None);
            }
            match self.advance().await {
                Ok(()) => {}
                Err(error) if error.is_passing() && !error.is_denied() && self.live.is_some() => {
                    if !self.unreachable {
                        self.unreachable = true;
                        return Ok(Some(FollowEvent::Unreachable(error)));
                    }
                    sleep(RETRY_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn advance(&mut self) -> Result<(), BusError> {
        if self.behind {
            return self.catch_up().await;
        }
        match self.live {
            Some(_) => self.listen().await,
            None => {
                self.join.let_out(&mut self.joined);
                self.flush();
                self.done = true;
                Ok(())
            }
        }
    }

    /// The server answered.
    fn reached(&mut self) {
        if std::mem::take(&mut self.unreachable) {
            self.ready.push_back(FollowEvent::Reachable);
            // The worker could not store a missing chunk either: it gets its time from now on.
            self.wait.hole = self.wait.hole.map(|(seq, _)| (seq, Instant::now()));
        }
    }

    fn flush(&mut self) {
        let event = |joined| match joined {
            Joined::Chunk(chunk) => FollowEvent::Chunk(chunk),
            Joined::Gap(gap) => FollowEvent::Gap(gap),
        };
        self.ready.extend(self.joined.drain(..).map(event));
    }
}
