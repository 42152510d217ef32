//! The newest tasks, by their last record.
//!
//! Streams are read backwards in windows, so the cost depends on how many tasks are shown, not on how
//! many there are; at most about 50,000 messages of each stream are looked at, and the listing says when
//! that was not enough.

use std::collections::HashSet;

use jiff::Timestamp;
use serde::Serialize;

use super::Client;
use super::status::phase_of;
use crate::nats::{Bus, BusError, Stored};
use crate::wire::{Attempt, LaneId, Outcome, Phase, StatusEvent, TaskId, WorkerId};

/// Messages of one stream that are looked at.
const BUDGET: u64 = 50_000;
/// Sequences in the first window; each further one is twice as long.
const FIRST_WINDOW: u64 = 256;
/// Sequences in a window at most. Only ids and times of a window are kept in memory.
const MAX_WINDOW: u64 = 1 << 20;
/// Tasks whose chains are looked up in one request.
const GROUP: usize = 512;

/// Which tasks to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListFilter {
    /// Only those in this phase.
    pub phase: Option<Phase>,
    /// Only those of this lane.
    pub lane: Option<LaneId>,
    /// How many at most.
    pub limit: usize,
}

/// A task in a listing.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// The task.
    pub id: TaskId,
    /// Its phase.
    pub phase: Phase,
    /// Its lane, if its last record says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lane: Option<LaneId>,
    /// Its last attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
    /// The worker of that attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<WorkerId>,
    /// The exit code of that attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended that attempt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// When the phase began.
    pub since: Timestamp,
}

/// Some tasks, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// The tasks.
    pub tasks: Vec<Listed>,
    /// Older records were not looked at, so older tasks may be missing.
    pub gave_up: bool,
}

impl Listed {
    fn waiting(id: TaskId, lane: LaneId, since: Timestamp) -> Self {
        Self { lane: Some(lane), ..Self::bare(id, Phase::Pending, since) }
    }

    fn bare(id: TaskId, phase: Phase, since: Timestamp) -> Self {
        let (lane, attempt, worker, exit_code, signal) = (None, None, None, None, None);
        Self { id, phase, lane, attempt, worker, exit_code, signal, since }
    }

    fn of(id: TaskId, last: StatusEvent, since: Timestamp) -> Self {
        let bare = Self::bare(id, phase_of(&last), since);
        match last {
            StatusEvent::Started(started) => Self {
                lane: Some(started.lane),
                attempt: Some(started.attempt),
                worker: Some(started.worker),
                ..bare
            },
            StatusEvent::Retrying(retrying) => bare.ended(retrying.ended),
            StatusEvent::Requeued(requeued) => {
                Self { attempt: Some(requeued.attempt), worker: Some(requeued.worker), ..bare }
            }
            StatusEvent::Finished(finished) => bare.ended(finished.outcome),
        }
    }

    fn ended(self, outcome: Outcome) -> Self {
        Self {
            lane: outcome.lane,
            attempt: outcome.attempt,
            worker: outcome.worker,
            exit_code: outcome.exit_code,
            signal: outcome.signal,
            ..self
        }
    }
}

impl ListFilter {
    fn takes(&self, task: &Listed) -> bool {
        self.phase.is_none_or(|phase| phase == task.phase)
            && self.lane.as_ref().is_none_or(|lane| task.lane.as_ref() == Some(lane))
    }
}

impl Client {
    /// Lists the newest tasks.
    ///
    /// # Errors
    /// The streams can't be read.
    pub async fn list(&self, filter: &ListFilter) -> Result<Listing, BusError> {
        let mut listing = self.with_records(filter).await?;
        if filter.phase.is_none_or(|phase| phase == Phase::Pending) {
            let waiting = self.without_records(filter).await?;
            listing.gave_up |= waiting.gave_up;
            listing.tasks.extend(waiting.tasks);
            let delayed = self.delayed(filter).await?;
            listing.gave_up |= delayed.gave_up;
            listing.tasks.extend(delayed.tasks);
        }
        listing.tasks.sort_by(|a, b| b.since.cmp(&a.since).then_with(|| b.id.cmp(&a.id)));
        listing.tasks.truncate(filter.limit);
        Ok(listing)
    }

    /// Tasks that have a status chain.
    async fn with_records(&self, filter: &ListFilter) -> Result<Listing, BusError> {
        let subjects = self.bus().subjects();
        let (stream, records) = (subjects.tasks_stream(), subjects.status_all());
        let mut back = Backwards::new(self.bus(), stream, records).await?;
        let mut seen = HashSet::new();
        let mut tasks = Vec::new();
        let read = |stored: Stored| {
            let (id, _) = subjects.parse_task(&stored.subject)?;
            let last = serde_json::from_slice::<StatusEvent>(&stored.payload).ok()?;
            Some(Listed::of(id, last, stored.time))
        };
        while tasks.len() < filter.limit
            && let Some(window) = back.window(read).await?
        {
            for mut task in window.into_iter().rev() {
                if !seen.insert(task.id.clone()) {
                    continue;
                }
                if task.lane.is_none() && !task.phase.is_final() {
                    // A requeued task's record doesn't name its lane; its queue message does.
                    task.lane = self.queued(&task.id).await?.map(|queued| queued.lane);
                }
                if filter.takes(&task) {
                    tasks.push(task);
                }
            }
        }
        tasks.truncate(filter.limit);
        Ok(Listing { tasks, gave_up: back.gave_up })
    }

    /// Tasks that wait for their first start.
    async fn without_records(&self, filter: &ListFilter) -> Result<Listing, BusError> {
        let subjects = self.bus().subjects();
        let queued = match &filter.lane {
            Some(lane) => subjects.queue_lane(lane),
            None => subjects.queue_all(),
        };
        let mut back = Backwards::new(self.bus(), subjects.queue_stream(), queued).await?;
        let mut tasks = Vec::new();
        let read = |stored: Stored| {
            let (lane, id) = subjects.parse_queue(&stored.subject)?;
            Some(Listed::waiting(id, lane, stored.time))
        };
        while tasks.len() < filter.limit
            && let Some(mut window) = back.window(read).await?
        {
            window.reverse();
            for group in window.chunks(GROUP) {
                if tasks.len() >= filter.limit {
                    break;
                }
                let started = self.started(group).await?;
                tasks.extend(group.iter().filter(|task| !started.contains(&task.id)).cloned());
            }
        }
        tasks.truncate(filter.limit);
        Ok(Listing { tasks, gave_up: back.gave_up })
    }

    /// Tasks that the server keeps until their time to start.
    async fn delayed(&self, filter: &ListFilter) -> Result<Listing, BusError> {
        let subjects = self.bus().subjects();
        let stream = subjects.schedule_stream();
        let mut back = Backwards::new(self.bus(), stream, subjects.schedule_starts()).await?;
        let mut tasks = Vec::new();
        let read = |stored: Stored| {
            let id = subjects.parse_schedule_start(&stored.subject)?;
            let task = crate::task::parse(&stored.payload, Some(&id)).ok()?;
            Some(Listed::waiting(id, task.lane_record().id(), stored.time))
        };
        while tasks.len() < filter.limit
            && let Some(window) = back.window(read).await?
        {
            tasks.extend(window.into_iter().rev().filter(|task| filter.takes(task)));
        }
        tasks.truncate(filter.limit);
        Ok(Listing { tasks, gave_up: back.gave_up })
    }

    /// Those of some tasks that have a status chain.
    async fn started(&self, tasks: &[Listed]) -> Result<HashSet<TaskId>, BusError> {
        let subjects = self.bus().subjects();
        let filters: Vec<String> = tasks.iter().map(|task| subjects.status(&task.id)).collect();
        let page = self.bus().read_last_of_each(&subjects.tasks_stream(), &filters).await?;
        let id = |stored: Stored| Some(subjects.parse_task(&stored.subject)?.0);
        Ok(page.messages.into_iter().filter_map(id).collect())
    }
}

/// Reads a stream's messages backwards, a window at a time.
struct Backwards<'a> {
    bus: &'a Bus,
    stream: String,
    filter: String,
    /// The last sequence of the next window; 0: the start was reached.
    end: u64,
    len: u64,
    looked_at: u64,
    gave_up: bool,
}

impl<'a> Backwards<'a> {
    async fn new(bus: &'a Bus, stream: String, filter: String) -> Result<Self, BusError> {
        let end = bus.read_last(&stream, &filter).await?.map_or(0, |stored| stored.seq);
        Ok(Self { bus, stream, filter, end, len: FIRST_WINDOW, looked_at: 0, gave_up: false })
    }

    /// Reads the next older window, oldest message first; `None` at the start or past the budget.
    async fn window<T>(
        &mut self,
        read: impl Fn(Stored) -> Option<T>,
    ) -> Result<Option<Vec<T>>, BusError> {
        if self.end == 0 {
            return Ok(None);
        }
        if self.looked_at >= BUDGET {
            self.gave_up = true;
            return Ok(None);
        }
        let first = self.end.saturating_sub(self.len - 1).max(1);
        let mut from = first;
        let mut window = Vec::new();
        'pages: loop {
            let page = self.bus.read_page(&self.stream, &self.filter, from).await?;
            for stored in page.messages {
                if stored.seq > self.end {
                    break 'pages;
                }
                from = stored.seq + 1;
                self.looked_at += 1;
                window.extend(read(stored));
            }
            if page.end || from > self.end {
                break;
            }
        }
        self.end = first - 1;
        self.len = (self.len * 2).min(MAX_WINDOW);
        Ok(Some(window))
    }
}
