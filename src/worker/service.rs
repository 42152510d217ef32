//! The submit service: `runlane.submit` as a NATS micro service, answered by any worker.

use crate::nats::{Bus, BusError};
use crate::wire::WorkerId;

pub(super) async fn run(_bus: Bus, _worker: WorkerId) -> Result<(), BusError> {
    std::future::pending().await
}
