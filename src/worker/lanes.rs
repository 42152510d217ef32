//! Which lanes this worker serves: those that at least one of its runners matches.
//!
//! The lanes bucket is read at the start, on each change, after each reconnect, and now and then, so a
//! change that was missed is late, never lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::runner::Router;
use crate::nats::topology::{self, TopologyError};
use crate::nats::{Bus, BusError, Link, presence};
use crate::telemetry::metrics;
use crate::wire::{LaneId, LaneRecord};

/// How often the lanes are read though nothing was heard.
const REFRESH: Duration = Duration::from_secs(30);
/// A change is heard when it is published, which is before it is stored and readable: the lanes are
/// read again a few times after it.
const SETTLING: Duration = Duration::from_millis(150);
const SETTLING_READS: u32 = 4;
/// Pause after a failed read.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// A lane that this worker serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Lane {
    /// What its tasks ask for.
    pub(super) record: LaneRecord,
    /// For how long a delivery is ours without a renewal: the lane consumer's `ack_wait`.
    pub(super) lease: Duration,
}

/// The lanes that this worker serves.
pub(super) type Lanes = BTreeMap<LaneId, Lane>;

/// Keeps the lanes up to date.
pub(super) struct LaneWatch {
    pub(super) bus: Bus,
    pub(super) router: Arc<Router>,
    pub(super) max_lanes: usize,
    pub(super) link: watch::Receiver<Link>,
    pub(super) lanes: watch::Sender<Lanes>,
    pub(super) names: watch::Sender<BTreeSet<LaneId>>,
}

impl LaneWatch {
    /// Runs until nobody listens any more.
    pub(super) async fn run(mut self) -> Result<(), BusError> {
        let mut changes = presence::lane_changes(&self.bus).await?;
        let mut settling = 0;
        loop {
            let pause = match self.refresh().await {
                Ok(()) if settling > 0 => SETTLING,
                Ok(()) => REFRESH,
                Err(error) => {
                    tracing::warn!(%error, "cannot read the lanes; trying again");
                    RETRY_PAUSE
                }
            };
            // Cancel safe: each arm only says "read them again".
            tokio::select! {
                change = changes.next() => match change {
                    Some(_) => settling = SETTLING_READS,
                    None => return Ok(()),
                },
                Ok(()) = self.link.changed() => {}
                () = sleep(pause) => settling = settling.saturating_sub(1),
                () = self.names.closed() => return Ok(()),
            }
        }
    }

    async fn refresh(&mut self) -> Result<(), TopologyError> {
        let read = |source| TopologyError::LookUp { name: "the lanes".into(), source };
        let all = presence::lanes(&self.bus).await.map_err(read)?;
        let known = self.lanes.borrow().clone();
        let mut lanes = Lanes::new();
        for (id, record) in all {
            if !self.router.serves(&record) {
                continue;
            }
            if lanes.len() == self.max_lanes {
                tracing::error!(
                    max_lanes = self.max_lanes,
                    "more lanes match than this worker may serve"
                );
                break;
            }
            // A lease never changes while a lane lives.
            let lane = match known.get(&id).filter(|lane| lane.record == record) {
                Some(lane) => lane.clone(),
                None => self.attach(&id, record).await?,
            };
            lanes.insert(id, lane);
        }
        self.names.send_if_modified(|names| {
            let new: BTreeSet<_> = lanes.keys().cloned().collect();
            *names != new && {
                *names = new;
                true
            }
        });
        metrics::lanes(lanes.len());
        self.lanes.send_replace(lanes);
        Ok(())
    }

    async fn attach(&self, id: &LaneId, record: LaneRecord) -> Result<Lane, TopologyError> {
        // The consumer may be missing if the submitter died between its two steps.
        let default = LaneId::default_lane();
        let usual = topology::lane_lease(&self.bus, &default).await;
        let usual = usual.unwrap_or(topology::DEFAULT_LEASE);
        topology::ensure_lane(&self.bus, id, &record, usual).await?;
        let lease = topology::lane_lease(&self.bus, id).await;
        let lease =
            lease.map_err(|source| TopologyError::LookUp { name: format!("lane {id}"), source })?;
        tracing::info!(lane = %id, lease_s = lease.as_secs_f64(), "serving a lane");
        Ok(Lane { record, lease })
    }
}
