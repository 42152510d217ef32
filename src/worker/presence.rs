//! The worker's presence record, written every few seconds.

use std::collections::BTreeMap;
use std::future::Future;

use jiff::Timestamp;
use tokio::sync::watch;

use super::lanes::Lanes;
use crate::nats::{Bus, presence};
use crate::task::Host;
use crate::wire::{WorkerPresence, WorkerState};

/// Keeps what the worker says about itself.
pub(super) struct PresenceWriter {
    bus: Bus,
    lanes: watch::Receiver<Lanes>,
    record: WorkerPresence,
}

impl PresenceWriter {
    pub(super) fn new(bus: Bus, lanes: watch::Receiver<Lanes>, record: WorkerPresence) -> Self {
        Self { bus, lanes, record }
    }

    pub(super) fn set_state(&mut self, state: WorkerState) {
        self.record.state = state;
    }

    /// Returns the writing of the record as it is now.
    pub(super) fn announcement(
        &mut self,
        running: usize,
    ) -> impl Future<Output = ()> + Send + 'static {
        self.record.running = u32::try_from(running).unwrap_or(u32::MAX);
        self.record.lanes = self.lanes.borrow().keys().cloned().collect();
        self.record.seen_at = Timestamp::now();
        let (bus, record) = (self.bus.clone(), self.record.clone());
        async move {
            if let Err(error) = presence::announce(&bus, &record).await {
                tracing::debug!(%error, "the presence record was not written; it is tried again");
            }
        }
    }

    /// Returns the removal of the record.
    pub(super) fn withdrawal(&self) -> impl Future<Output = ()> + Send + 'static {
        let (bus, worker) = (self.bus.clone(), self.record.worker.clone());
        async move {
            if let Err(error) = presence::withdraw(&bus, &worker).await {
                tracing::debug!(%error, "the presence record was not removed; it expires by itself");
            }
        }
    }
}

/// Returns what a host offers, by feature, as it stands in a worker's presence record. The kernel's
/// release is that of the host that this runs on.
pub fn features(host: &Host) -> BTreeMap<String, String> {
    let mut features = host.features();
    features.insert("kernel".to_owned(), kernel());
    features
}

fn kernel() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease");
    release.map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned())
}
