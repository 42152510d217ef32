//! Queues: what waits in each lane, and which workers can take it.

use serde::Serialize;

use super::{Client, bucket};
use crate::nats::BusError;
use crate::nats::topology::lane_info;
use crate::wire::{LaneId, LaneRecord, WorkerId, WorkerPresence, WorkerState};

/// A lane and who serves it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LaneReport {
    /// The lane.
    pub lane: LaneId,
    /// What its tasks ask for.
    #[serde(flatten)]
    pub record: LaneRecord,
    /// Tasks that wait.
    pub waiting: u64,
    /// Tasks that a worker holds, or that wait for their next attempt.
    pub running: u64,
    /// Workers with a runner that can take them, and that take tasks.
    pub workers: Vec<WorkerId>,
    /// Workers that could, but take none now.
    pub unavailable: Vec<UnavailableWorker>,
    /// Each other worker, and what it lacks.
    pub mismatches: Vec<WorkerMismatch>,
}

/// A worker that takes no tasks now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UnavailableWorker {
    /// The worker.
    pub worker: WorkerId,
    /// Why.
    pub state: WorkerState,
}

/// Why a worker can't take the tasks of a lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerMismatch {
    /// The worker.
    pub worker: WorkerId,
    /// For its runner that comes closest: each condition that isn't met, with the label as it is.
    pub lacks: Vec<String>,
}

impl LaneReport {
    /// Whether tasks wait that nobody can take. Those that were handed back, and so were delivered before, count
    /// as running until somebody takes them.
    pub fn is_stuck(&self) -> bool {
        let waits = self.waiting > 0 || (self.running > 0 && self.unavailable.is_empty());
        waits && self.workers.is_empty()
    }

    fn new(lane: LaneId, record: LaneRecord, workers: &[WorkerPresence]) -> Self {
        let mut report = Self {
            lane,
            record,
            waiting: 0,
            running: 0,
            workers: Vec::new(),
            unavailable: Vec::new(),
            mismatches: Vec::new(),
        };
        for presence in workers {
            let worker = presence.worker.clone();
            let state = presence.state;
            match lacks(&report.record, presence) {
                None if state == WorkerState::Ready => report.workers.push(worker),
                None => report.unavailable.push(UnavailableWorker { worker, state }),
                Some(lacks) => report.mismatches.push(WorkerMismatch { worker, lacks }),
            }
        }
        report
    }
}

/// What the closest runner of a worker lacks; `None` if one can take the lane's tasks.
fn lacks(lane: &LaneRecord, worker: &WorkerPresence) -> Option<Vec<String>> {
    let of_kind = worker.runners.iter().filter(|runner| runner.kind == lane.kind);
    let closest =
        of_kind.map(|runner| lane.selector.mismatches(&runner.labels)).min_by_key(Vec::len);
    match closest {
        Some(lacks) if lacks.is_empty() => None,
        Some(lacks) => Some(lacks),
        None => Some(vec![format!("no runner for {} tasks", lane.kind)]),
    }
}

impl Client {
    /// Reports every lane, by name.
    ///
    /// # Errors
    /// The buckets or the lanes' consumers can't be read.
    pub async fn lanes(&self) -> Result<Vec<LaneReport>, BusError> {
        let lanes =
            bucket::read::<LaneRecord>(self.bus(), &self.bus().subjects().lanes_bucket()).await?;
        let workers = self.workers().await?.workers;
        let mut reports = Vec::new();
        for (key, record) in lanes.records {
            let Ok(lane) = key.parse::<LaneId>() else { continue };
            let mut report = LaneReport::new(lane, record, &workers);
            self.count(&mut report).await?;
            reports.push(report);
        }
        Ok(reports)
    }

    /// Reports one lane; `None` if it isn't there.
    ///
    /// # Errors
    /// As [`Client::lanes`].
    pub async fn lane(&self, lane: &LaneId) -> Result<Option<LaneReport>, BusError> {
        let lanes =
            bucket::read::<LaneRecord>(self.bus(), &self.bus().subjects().lanes_bucket()).await?;
        let Some(record) = lanes.records.get(lane.as_str()) else { return Ok(None) };
        let workers = self.workers().await?.workers;
        let mut report = LaneReport::new(lane.clone(), record.clone(), &workers);
        self.count(&mut report).await?;
        Ok(Some(report))
    }

    async fn count(&self, report: &mut LaneReport) -> Result<(), BusError> {
        match lane_info(self.bus(), &report.lane).await {
            Ok(info) => {
                report.waiting = info.num_pending;
                report.running = info.num_ack_pending;
                Ok(())
            }
            // 10014: a lane without a consumer was being made, or is being removed: nothing waits.
            Err(BusError::Refused { code: 10_014, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}
