//! The loop's end: each step of a drain more urgent than the one before, and what is left to answer.

use std::time::Duration;

use tokio::time::Instant;

use super::super::drain::{Drain, Report};
use super::super::stop::draining;
use super::MainLoop;
use crate::exec::set_stop;
use crate::nats::Pulled;

/// How long tasks may take to end, grace period included, when they are stopped for a drain.
const STOPPING_TIME: Duration = Duration::from_secs(60);
/// How long a worker waits for a server that is away before it ends all the same.
const KILLING_TIME: Duration = Duration::from_secs(5);

impl MainLoop {
    pub(super) fn on_drain_request(&mut self) {
        let request = *self.parts.drain.borrow_and_update();
        self.on_drain(request);
    }

    pub(super) fn on_drain(&mut self, request: Drain) {
        if request <= self.drain {
            return;
        }
        self.drain = request;
        self.parts.closing.send_replace(true);
        self.places.close();
        self.hand_back_waiting();
        tracing::info!(running = self.active.len(), how = ?request, "the worker ends");
        self.announce();
        let (grace, then) = match request {
            Drain::No => return,
            Drain::Wait => {
                self.deadline = Some(Instant::now() + self.parts.drain_timeout);
                // What only waits for its slot can do so elsewhere.
                for (_, active) in self.active.iter().filter(|(id, _)| self.places.is_waiting(id)) {
                    set_stop(&active.stop, draining(None));
                }
                return;
            }
            Drain::Stop => (None, STOPPING_TIME),
            Drain::Kill => (Some(Duration::ZERO), KILLING_TIME),
        };
        self.deadline = Some(Instant::now() + then);
        for active in self.active.values() {
            set_stop(&active.stop, draining(grace));
        }
    }

    pub(super) fn on_deadline(&mut self) {
        match self.drain {
            Drain::No => self.deadline = None,
            Drain::Wait => self.on_drain(Drain::Stop),
            Drain::Stop => self.on_drain(Drain::Kill),
            // A server that stays away: dropping a run kills its processes, and its message is still
            // in the queue.
            Drain::Kill => {
                tracing::error!(running = self.active.len(), "ending without handing tasks back");
                self.deadline = None;
                self.runs.abort_all();
            }
        }
    }

    /// Hands back what came while the last runs ended, waits for all answers, and takes the presence record
    /// away: after those that said how the worker is, or the last of them would bring it back. When that is
    /// answered the server has had every ack before it, too.
    pub(super) async fn leave(mut self) -> Report {
        while let Some(pulled) = self.parts.pulled.recv().await {
            if let Pulled::Task(delivery) = pulled {
                self.answers.hand_back(delivery.handle, Duration::ZERO);
            }
        }
        while self.answers.join_next().await.is_some() {}
        // Without a server the record expires by itself.
        if self.parts.shared.bus.is_connected() {
            let withdraw = self.parts.presence.withdrawal();
            self.answers.spawn(withdraw);
            while self.answers.join_next().await.is_some() {}
        }
        self.report
    }
}
