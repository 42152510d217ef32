//! Keeps a task's lease while its run lives: renews it, and tells the run when it is gone.
//!
//! A renewal is two steps, because the server's answer to `+WPI` alone proves nothing: it extends the
//! message for whoever holds it. So each renewal also reads from the leader that our start is still the
//! last word of the chain. One read over `task.<id>.*` answers that and brings a cancel request that
//! passed unheard.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::claim::Taken;
use super::lease::{BootInstant, Lease};
use super::shared::Shared;
use super::stop::canceled;
use crate::exec::{Stop, set_stop};
use crate::nats::{AckHandle, BusError};
use crate::telemetry::metrics::{self, Renewal};
use crate::wire::{StatusEvent, StopReason, TaskId};

/// Pause after a renewal that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Keeps the lease of one run.
pub(super) struct LeaseKeeper<'a> {
    pub(super) shared: &'a Shared,
    pub(super) id: &'a TaskId,
    pub(super) taken: &'a Taken,
    pub(super) lease: &'a Lease,
    /// The newest delivery of the task's message; a redelivery to us replaces it.
    pub(super) handle: watch::Receiver<AckHandle>,
    pub(super) stop: &'a watch::Sender<Option<Stop>>,
}

enum Owner {
    Us,
    SomebodyElse,
}

impl LeaseKeeper<'_> {
    /// Renews until the lease is gone, then stops the run and returns. Cancel safe between renewals.
    pub(super) async fn run(mut self) {
        let mut pause = self.lease.interval();
        let mut wakes = self.shared.wakes.clone();
        loop {
            let left = self.lease.left();
            // Without processes a passed deadline is no reason to hurry.
            let no_hurry = left.is_zero() && !self.lease.is_overdue();
            let pause_now = if no_hurry { pause } else { pause.min(left) };
            // Cancel safe: either only says that it is time to look.
            tokio::select! {
                () = sleep(pause_now) => {}
                Ok(()) = wakes.changed() => {}
            }
            // The deadline passed while nobody looked: we were frozen, or the server is away. Even if
            // the chain still says that the task is ours, its next owner may hold the message already.
            if self.lease.is_overdue() {
                return self.lose("it could not be renewed in time");
            }
            match self.renew_in_time().await {
                Ok(Owner::Us) => {
                    metrics::lease_renewal(Renewal::Renewed);
                    pause = self.lease.interval();
                }
                Ok(Owner::SomebodyElse) => {
                    metrics::lease_renewal(Renewal::Fenced);
                    return self.lose("another record follows our start");
                }
                Err(error) => {
                    metrics::lease_renewal(Renewal::Failed);
                    tracing::warn!(task = %self.id, %error, left = ?self.lease.left(), "lease not renewed");
                    pause = error.pause(RETRY_PAUSE);
                }
            }
        }
    }

    fn lose(&self, why: &'static str) {
        tracing::error!(task = %self.id, why, "lease lost; stopping the task here");
        metrics::lease_lost();
        self.lease.lose();
        let stop = Stop {
            reason: StopReason::LeaseLost,
            grace: Some(Duration::ZERO),
            by: None,
            message: Some(why.to_owned()),
        };
        set_stop(self.stop, stop);
    }

    /// A renewal may take until the deadline; without one to keep, as long as a request may take.
    async fn renew_in_time(&mut self) -> Result<Owner, BusError> {
        let left = self.lease.left();
        if left.is_zero() {
            return self.renew().await;
        }
        let renewed = timeout(left, self.renew()).await;
        renewed.unwrap_or(Err(BusError::Unclear(left)))
    }

    async fn renew(&mut self) -> Result<Owner, BusError> {
        let sent = BootInstant::now();
        let handle = self.handle.borrow_and_update().clone();
        handle.in_progress(&self.shared.bus).await?;
        let owner = self.owner().await?;
        if matches!(owner, Owner::Us) {
            self.lease.renew_from(sent);
        }
        Ok(owner)
    }

    async fn owner(&self) -> Result<Owner, BusError> {
        if self.shared.log.last_seq(self.id).await? == self.taken.seq {
            return Ok(Owner::Us);
        }
        if let Some(request) = self.shared.log.cancel_request(self.id).await? {
            set_stop(self.stop, canceled(request));
        }
        Ok(match self.shared.log.last(self.id).await?.map(|last| last.event) {
            Some(StatusEvent::Started(last)) if last.token == self.taken.started.token => Owner::Us,
            // Nothing: the chain was purged; the task is not ours to go on with.
            Some(_) | None => Owner::SomebodyElse,
        })
    }
}
