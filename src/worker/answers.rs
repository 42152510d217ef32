//! Answers that nobody waits for: the loop that gives them goes on, and joins them before it ends.
//!
//! One that fails is only a delay: what was not handed back or removed is redelivered after its lease,
//! and who asked asks again.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::nats::{AckHandle, Bus, Incoming, Stray};
use crate::telemetry::metrics;
use crate::wire::ControlReply;

/// The answers that are on their way.
pub(super) struct Answers {
    bus: Bus,
    under_way: JoinSet<()>,
}

impl Answers {
    pub(super) fn new(bus: Bus) -> Self {
        Self { bus, under_way: JoinSet::new() }
    }

    /// Does something else on the side.
    pub(super) fn spawn(&mut self, aside: impl Future<Output = ()> + Send + 'static) {
        self.under_way.spawn(aside);
    }

    /// Waits for one that is under way; `None` if there is none. Cancel safe.
    pub(super) async fn join_next(&mut self) -> Option<()> {
        // One that panicked has said so, and is no reason to end.
        self.under_way.join_next().await.map(drop)
    }

    /// Has a task delivered again after a delay.
    pub(super) fn hand_back(&mut self, handle: AckHandle, delay: Duration) {
        let bus = self.bus.clone();
        self.spawn(async move {
            if let Err(error) = handle.nak(&bus, delay).await {
                tracing::debug!(%error, "a task was not handed back; it comes again after its lease");
            }
        });
    }

    /// Takes a message that is no task out of the queue.
    pub(super) fn refuse(&mut self, stray: Stray) {
        tracing::warn!(subject = %stray.subject, "a queue message without a valid task id was removed");
        metrics::runner_error("stray");
        let bus = self.bus.clone();
        self.spawn(async move {
            let reason = "the subject's last token is not a task id (A-Z a-z 0-9 _ -, at most 128)";
            if let Err(error) = stray.handle.term(&bus, reason).await {
                tracing::debug!(%error, "a stray message was not removed; it comes again");
            }
        });
    }

    /// Answers whoever asked, if they want to hear.
    pub(super) fn reply(&mut self, message: &Incoming, reply: &ControlReply) {
        let Some(subject) = message.reply.clone() else { return };
        let payload = serde_json::to_vec(reply).expect("a reply is plain JSON");
        let bus = self.bus.clone();
        self.spawn(async move {
            if let Err(error) = bus.send(subject, payload.into()).await {
                tracing::debug!(%error, "an operator's request was not answered");
            }
        });
    }
}
