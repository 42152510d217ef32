//! All that is known of one task.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::Client;
use crate::nats::status_log::parse_cancel;
use crate::nats::{BusError, Stored};
use crate::wire::subject::TaskSubject;
use crate::wire::{CancelRequest, LaneId, Outcome, Phase, StatusEvent, TaskId, TaskSpec};

/// Records that are kept in a report; of a longer chain the newest ones.
const MAX_RECORDS: usize = 256;

/// A task's records.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskReport {
    /// The task.
    pub id: TaskId,
    /// Where it is in its life.
    pub phase: Phase,
    /// Its message in the queue, which stays there until the task has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued: Option<QueuedTask>,
    /// Its labels, for people.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The task that it runs again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_of: Option<TaskId>,
    /// Its status chain, oldest first; at most the newest 256 records.
    pub records: Vec<TimedRecord>,
    /// How many older records were left out.
    pub records_left_out: u64,
    /// The last cancel request, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancel: Option<CancelRequest>,
    /// How it ended, if it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

/// A task's message in the queue.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QueuedTask {
    /// The lane it is in.
    pub lane: LaneId,
    /// When it was queued.
    pub at: Timestamp,
    /// Its sequence in the queue stream.
    pub seq: u64,
    /// What was submitted; none if it can't be read (a worker will reject it).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec: Option<TaskSpec>,
}

impl QueuedTask {
    fn new(lane: LaneId, stored: &Stored) -> Self {
        let spec = serde_json::from_slice(&stored.payload).ok();
        Self { lane, at: stored.time, seq: stored.seq, spec }
    }
}

/// A record of a status chain and when it was stored.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TimedRecord {
    /// When the server stored it.
    pub stored_at: Timestamp,
    /// The record.
    pub event: StatusEvent,
}

/// The phase of a task whose chain ends with a record.
pub fn phase_of(last: &StatusEvent) -> Phase {
    match last {
        StatusEvent::Started(_) => Phase::Running,
        StatusEvent::Retrying(_) | StatusEvent::Requeued(_) => Phase::Pending,
        StatusEvent::Finished(finished) => finished.outcome.phase,
    }
}

impl Client {
    /// Reports a task; `None` if nothing is known of it: it was never submitted, or its records have
    /// passed their age limit.
    ///
    /// # Errors
    /// The streams can't be read.
    pub async fn status(&self, id: &TaskId) -> Result<Option<TaskReport>, BusError> {
        self.expire_overdue(id).await;
        // In this order: a task is never between the queue and its chain.
        let queued = self.queued(id).await?;
        let last = self.log().last(id).await?;
        let mut report = TaskReport {
            id: id.clone(),
            phase: last.as_ref().map_or(Phase::Pending, |last| phase_of(&last.event)),
            labels: BTreeMap::new(),
            retry_of: None,
            queued,
            records: Vec::new(),
            records_left_out: 0,
            cancel: None,
            outcome: None,
        };
        self.read_records(&mut report).await?;
        if let (Some(last), false) = (last, report.phase.is_final() && report.outcome.is_some())
            && let StatusEvent::Finished(finished) = last.event
        {
            report.outcome = Some(finished.outcome);
        }
        if let Some(spec) = self.spec(&report).await? {
            (report.labels, report.retry_of) = (spec.labels, spec.retry_of);
        }
        let known =
            report.queued.is_some() || !report.records.is_empty() || report.cancel.is_some();
        Ok((known || report.outcome.is_some()).then_some(report))
    }

    /// Looks a task up in the queue, in whatever lane.
    ///
    /// # Errors
    /// The stream can't be read.
    pub async fn queued(&self, id: &TaskId) -> Result<Option<QueuedTask>, BusError> {
        let subjects = self.bus().subjects();
        // A delayed task first: it is put into the queue before it is taken from the schedules.
        let (timers, timer) = (subjects.schedule_stream(), subjects.start_timers(id));
        let delayed = self.bus().read_last(&timers, &timer).await?;
        let queue = subjects.queue_stream();
        if let Some(stored) = self.bus().read_last(&queue, &subjects.queue_task(id)).await? {
            let lane = subjects.parse_queue(&stored.subject).map(|(lane, _)| lane);
            return Ok(lane.map(|lane| QueuedTask::new(lane, &stored)));
        }
        Ok(delayed.map(|stored| {
            let task = crate::task::parse(&stored.payload, Some(id)).ok();
            let lane = task.map(|task| task.lane_record().id());
            QueuedTask::new(lane.unwrap_or_else(LaneId::default_lane), &stored)
        }))
    }

    /// What was submitted: as it waits, or as it was kept when it started.
    async fn spec(&self, report: &TaskReport) -> Result<Option<TaskSpec>, BusError> {
        if let Some(queued) = &report.queued {
            return Ok(queued.spec.clone());
        }
        let subjects = self.bus().subjects();
        let (stream, subject) = (subjects.tasks_stream(), subjects.spec(&report.id));
        let kept = self.bus().read_last(&stream, &subject).await?;
        Ok(kept.and_then(|kept| serde_json::from_slice(&kept.payload).ok()))
    }

    async fn read_records(&self, report: &mut TaskReport) -> Result<(), BusError> {
        let subjects = self.bus().subjects();
        let mut from = 1;
        loop {
            let page = self
                .bus()
                .read_page(&subjects.tasks_stream(), &subjects.task(&report.id), from)
                .await?;
            for stored in page.messages {
                from = stored.seq + 1;
                match subjects.parse_task(&stored.subject) {
                    Some((_, TaskSubject::Status)) => {
                        let event = serde_json::from_slice(&stored.payload).ok();
                        report
                            .push(event.map(|event| TimedRecord { stored_at: stored.time, event }));
                    }
                    Some((_, TaskSubject::Cancel)) => {
                        report.cancel = Some(parse_cancel(&stored.payload));
                    }
                    Some((_, TaskSubject::Outcome)) => {
                        report.outcome = serde_json::from_slice(&stored.payload).ok();
                    }
                    None => {}
                }
            }
            if page.end {
                return Ok(());
            }
        }
    }
}

impl TaskReport {
    fn push(&mut self, record: Option<TimedRecord>) {
        self.records.extend(record);
        if self.records.len() > MAX_RECORDS {
            self.records.remove(0);
            self.records_left_out += 1;
        }
    }
}
