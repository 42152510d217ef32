//! What a waiting task wakes for, and whether that is a reason to look.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};

use super::{LOOK, Line, Look, READ, SETTLE};
use crate::exec::Stop;
use crate::task::admit::{self, Decision, Facts};
use crate::wire::SlotRecord;

/// Pauses in milliseconds between looks after a change was heard that the leader doesn't show yet: it is
/// heard as soon as it is sent, and stored a moment later, if at all.
pub(super) const CATCH_UP: [u64; 7] = [1, 2, 5, 10, 25, 60, 150];

/// Why a waiting task wakes.
pub(super) enum Wake {
    Stopped(Stop),
    Changed(Option<Arc<SlotRecord>>),
    Renew,
    Expired,
    Tick,
}

impl Line<'_> {
    /// Cancel safe: a stop and a change stay where they are until taken.
    pub(super) async fn wake(&mut self, renew_at: Instant) -> Wake {
        let (until, expires) = (self.next_tick(), self.expires);
        let mut stop = self.inputs.stop_rx.clone();
        tokio::select! {
            Ok(stop) = stop.wait_for(Option::is_some) => match stop.clone() {
                Some(stop) => Wake::Stopped(stop),
                None => Wake::Tick,
            },
            changed = self.changes.recv() => Wake::Changed(changed.ok()),
            () = sleep_until(renew_at) => Wake::Renew,
            () = sleep_until(expires.unwrap_or(until)), if expires.is_some() => Wake::Expired,
            () = sleep_until(until) => Wake::Tick,
        }
    }

    fn next_tick(&self) -> Instant {
        let now = Instant::now();
        let look = now + CATCH_UP.get(self.catch_up).map_or(LOOK, |ms| Duration::from_millis(*ms));
        let settled = self.received + SETTLE;
        if settled > now { settled.min(look) } else { look }
    }

    pub(super) async fn tick(&mut self) -> Look {
        if self.catch_up < CATCH_UP.len() {
            self.catch_up += 1;
            return self.look_if(true).await;
        }
        self.look_if(self.is_time_to_look()).await
    }

    /// A look whose failure is only a delay: the lease bounds for how long.
    pub(super) async fn look_if(&mut self, wanted: bool) -> Look {
        if !wanted {
            return Look::Wait;
        }
        match self.look().await {
            Ok(look) => look,
            Err(error) => {
                tracing::debug!(task = %self.id(), %error, "a slot was not read; trying again");
                Look::Wait
            }
        }
    }

    pub(super) async fn heard(&mut self, record: &SlotRecord) -> Look {
        if record.slot != self.request.name {
            return Look::Wait;
        }
        self.known = record.clone();
        if self.stays() {
            return Look::Wait;
        }
        self.catch_up = 0;
        self.look_if(true).await
    }

    /// Whether what is known leaves everything as it is.
    pub(super) fn stays(&self) -> bool {
        let (me, facts) = (self.me(), Facts { gone: &[], now: Timestamp::now() });
        match admit::admit(&self.known, &me, &facts) {
            Decision::Wait(None) | Decision::Replace { record: None, .. } => true,
            // If our own place is good, only somebody's void one is to be cleared away: that can wait.
            Decision::Wait(Some(new)) | Decision::Replace { record: Some(new), .. } => {
                let mine = |record: &SlotRecord| {
                    record.waiters.iter().find(|waiter| waiter.task == me.task).cloned()
                };
                mine(&new) == mine(&self.known)
            }
            Decision::Admitted(_)
            | Decision::Busy(_)
            | Decision::Superseded(_)
            | Decision::Full => false,
        }
    }

    /// The first in line looks after the holders; the others see to their own place.
    fn is_time_to_look(&self) -> bool {
        let me = self.me();
        !self.stays()
            || self.read_at.elapsed() >= READ
            || admit::is_first(&self.known, &me, Timestamp::now())
    }
}
