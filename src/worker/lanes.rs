//! Which lanes this worker serves: those that at least one of its runners matches.
//!
//! The lanes bucket is read at the start, on each change, after each reconnect, and now and then, so a
//! change that was missed is late, never lost. Many changes at once are one read, and reads of a large
//! bucket take a small part of the time. A lane that can't be served now is left out, and keeps no other from
//! being served.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _, stream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::runner::Router;
use super::shared::chain;
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
/// After a read, a change waits for this many times as long as it took, but not longer than settling.
const REST: u32 = 4;
/// How many consumers are asked for at once.
const ATTACHING: usize = 16;
/// Pause before lanes are looked at that can't be pulled from: mostly the server has no leader for a moment.
const DOUBT_PAUSE: Duration = Duration::from_secs(2);
/// Pause after a failed read.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long a new lane may take: the others wait for it.
const ATTACH_LIMIT: Duration = Duration::from_secs(2);

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

/// A lane that could not be served, and from when on it is tried again.
#[derive(Debug)]
pub(super) struct Failing {
    until: Instant,
    pause: Duration,
}

impl Default for Failing {
    fn default() -> Self {
        Self { until: Instant::now(), pause: RETRY_PAUSE }
    }
}

impl Failing {
    /// It was tried, or is still to rest.
    fn failed(&mut self) {
        if !self.is_to_rest() {
            self.until = Instant::now() + self.pause;
            self.pause = REFRESH.min(self.pause * 2);
        }
    }

    fn is_to_rest(&self) -> bool {
        Instant::now() < self.until
    }
}

/// Keeps the lanes up to date.
pub(super) struct LaneWatch {
    pub(super) bus: Bus,
    pub(super) router: Arc<Router>,
    pub(super) max_lanes: usize,
    pub(super) link: watch::Receiver<Link>,
    pub(super) lanes: watch::Sender<Lanes>,
    pub(super) names: watch::Sender<BTreeSet<LaneId>>,
    /// Lanes that can't be pulled from: their consumers may be gone.
    pub(super) doubts: mpsc::Receiver<LaneId>,
    /// Lanes that could not be served at the last look.
    pub(super) failing: BTreeMap<LaneId, Failing>,
}

impl LaneWatch {
    /// Runs until nobody listens any more.
    pub(super) async fn run(mut self) -> Result<(), BusError> {
        let mut changes = presence::lane_changes(&self.bus).await?;
        let (mut settling, mut doubted) = (0, BTreeSet::new());
        loop {
            let read_at = Instant::now();
            let pause = match self.refresh(&std::mem::take(&mut doubted)).await {
                Ok(()) if settling > 0 => SETTLING,
                Ok(()) => self.next_try(),
                Err(error) => {
                    tracing::warn!(%error, "cannot read the lanes; trying again");
                    RETRY_PAUSE
                }
            };
            let rested = Instant::now() + (REST * read_at.elapsed()).min(SETTLING);
            // Cancel safe: each arm only says "read them again".
            tokio::select! {
                change = changes.next() => match change {
                    Some(_) => {
                        settling = SETTLING_READS;
                        sleep_until(rested).await;
                        while let Some(Some(_)) = changes.next().now_or_never() {}
                    }
                    None => return Ok(()),
                },
                Ok(()) = self.link.changed() => {}
                Some(lane) = self.doubts.recv() => {
                    sleep(DOUBT_PAUSE).await;
                    let others = std::iter::from_fn(|| self.doubts.try_recv().ok());
                    doubted = others.chain([lane]).collect();
                }
                () = sleep(pause) => settling = settling.saturating_sub(1),
                () = self.names.closed() => return Ok(()),
            }
        }
    }

    /// When to look again: sooner for a lane that could not be served.
    fn next_try(&self) -> Duration {
        let now = Instant::now();
        let rests = self.failing.values().map(|lane| lane.until.saturating_duration_since(now));
        rests.min().unwrap_or(REFRESH).max(RETRY_PAUSE)
    }

    async fn refresh(&mut self, doubted: &BTreeSet<LaneId>) -> Result<(), TopologyError> {
        let read = |source| TopologyError::LookUp { name: "the lanes".into(), source };
        let mut ours = presence::lanes(&self.bus).await.map_err(read)?;
        ours.retain(|_, record| self.router.serves(record));
        if ours.len() > self.max_lanes {
            let max_lanes = self.max_lanes;
            tracing::error!(max_lanes, "more lanes match than this worker may serve");
        }
        let known = self.lanes.borrow().clone();
        let lane = async |(id, record)| {
            // A lease never changes while a lane lives.
            let lane = match known.get(&id).filter(|lane| lane.record == record) {
                Some(lane) if !doubted.contains(&id) => lane.clone(),
                // Its next pull says whether it has to be looked at once more.
                Some(lane) => match self.attach(&id, record, Some(lane.lease)).await {
                    Ok(lane) => lane,
                    Err(error) => {
                        tracing::debug!(lane = %id, %error, "a lane can't be looked at now");
                        lane.clone()
                    }
                },
                None if self.failing.get(&id).is_some_and(Failing::is_to_rest) => return Err(id),
                None => match timeout(ATTACH_LIMIT, self.attach(&id, record, None)).await {
                    Ok(Ok(lane)) => lane,
                    Ok(Err(error)) => {
                        let error = chain(&error);
                        tracing::warn!(lane = %id, error, "a lane can't be served now; trying again");
                        return Err(id);
                    }
                    Err(_) => {
                        tracing::warn!(lane = %id, "a lane can't be looked up now; trying again");
                        return Err(id);
                    }
                },
            };
            Ok((id, lane))
        };
        let lanes = stream::iter(ours).take(self.max_lanes).map(lane).buffer_unordered(ATTACHING);
        let lanes: Vec<Result<(LaneId, Lane), LaneId>> = lanes.collect().await;
        let failed: BTreeSet<LaneId> =
            lanes.iter().filter_map(|lane| lane.as_ref().err().cloned()).collect();
        let lanes: Lanes = lanes.into_iter().flatten().collect();
        self.failing.retain(|id, _| failed.contains(id));
        for id in failed {
            self.failing.entry(id).or_default().failed();
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

    /// Looks a lane up; one that was known before has its lease still.
    async fn attach(
        &self,
        id: &LaneId,
        record: LaneRecord,
        known: Option<Duration>,
    ) -> Result<Lane, TopologyError> {
        let lease = match topology::lane_lease(&self.bus, id).await {
            // 10014: no consumer. It is missing if the submitter died between its two steps, or somebody
            // has removed it.
            Err(BusError::Refused { code: 10_014, .. }) => {
                let lease = self.make(id, &record, known).await?;
                if known.is_some() {
                    tracing::warn!(lane = %id, "a lane had no consumer; it is made again");
                }
                lease
            }
            found => found.map_err(|source| look_up(id, source))?,
        };
        if known != Some(lease) {
            tracing::info!(lane = %id, lease_s = lease.as_secs_f64(), "serving a lane");
        }
        Ok(Lane { record, lease })
    }

    async fn make(
        &self,
        id: &LaneId,
        record: &LaneRecord,
        known: Option<Duration>,
    ) -> Result<Duration, TopologyError> {
        let usual = match known {
            Some(lease) => lease,
            None => topology::lane_lease(&self.bus, &LaneId::default_lane())
                .await
                .unwrap_or(topology::DEFAULT_LEASE),
        };
        topology::ensure_lane(&self.bus, id, record, usual).await?;
        topology::lane_lease(&self.bus, id).await.map_err(|source| look_up(id, source))
    }
}

fn look_up(lane: &LaneId, source: BusError) -> TopologyError {
    TopologyError::LookUp { name: format!("lane {lane}"), source }
}
