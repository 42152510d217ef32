//! The state of the connection, fed by the client's events and watched by whoever must know.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::Event;
use tokio::sync::watch;

use super::denials::{Denials, Denied};
use crate::telemetry::metrics;

/// Longest wait between two attempts to reconnect.
pub const MAX_DELAY: Duration = Duration::from_secs(4);

/// Pause between two lines of the log about denied requests: what is denied is tried again and again.
const DENIALS_PAUSE: Duration = Duration::from_secs(5);

/// The state of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Whether the connection is up.
    pub state: LinkState,
    /// Connections after the first: whoever has requests open at the server makes them anew when it grows.
    pub reconnects: u64,
}

/// Whether the connection is up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkState {
    /// It is.
    Up,
    /// It isn't; the client tries again for ever.
    Down {
        /// The last error.
        reason: String,
    },
    /// It was closed by us and doesn't come back.
    Closed,
}

/// Makes the watch and the function that feeds it.
pub(super) fn link(denials: Denials) -> (LinkFeed, watch::Receiver<Link>) {
    let (sender, receiver) = watch::channel(Link {
        state: LinkState::Down { reason: "not connected yet".to_owned() },
        reconnects: 0,
    });
    let first = std::sync::atomic::AtomicBool::new(true);
    let feed = LinkFeed { sender, first, denials, told: Mutex::default() };
    (feed, receiver)
}

#[derive(Debug)]
pub(super) struct LinkFeed {
    sender: watch::Sender<Link>,
    first: std::sync::atomic::AtomicBool,
    denials: Denials,
    told: Mutex<Told>,
}

/// What the log was told of denials.
#[derive(Debug, Default)]
struct Told {
    at: Option<Instant>,
    /// Denials since then.
    left_out: u64,
}

impl LinkFeed {
    pub(super) fn take(&self, event: &Event) {
        match event {
            Event::Connected => self.connected(),
            Event::Disconnected => {
                tracing::warn!("disconnected from NATS");
                self.down("the connection was lost".to_owned());
            }
            Event::ClientError(error) => self.explain(error.to_string()),
            Event::ServerError(error) => {
                let text = error.to_string();
                match Denied::parse(&text) {
                    Some(denied) => self.denied(denied),
                    None => tracing::error!(%error, "NATS server reports an error"),
                }
                self.explain(text);
            }
            Event::SlowConsumer(subscription) => {
                tracing::warn!(subscription, "NATS subscription is slow; messages were dropped");
            }
            Event::LameDuckMode => tracing::info!("NATS server is about to stop"),
            Event::Draining => tracing::debug!("NATS connection drains"),
            Event::Closed => {
                metrics::nats_connected(false);
                self.sender.send_modify(|link| link.state = LinkState::Closed);
            }
        }
    }

    /// Only an operator can solve it.
    fn denied(&self, denied: Denied) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.at.is_some_and(|at| at.elapsed() < DENIALS_PAUSE) {
            told.left_out += 1;
        } else {
            let left_out = told.left_out;
            tracing::error!(%denied, left_out, "the NATS server denies this user something");
            *told = Told { at: Some(Instant::now()), left_out: 0 };
        }
        self.denials.add(denied);
    }

    fn connected(&self) {
        metrics::nats_connected(true);
        self.denials.forget();
        let first = self.first.swap(false, std::sync::atomic::Ordering::Relaxed);
        if first {
            tracing::debug!("connected to NATS");
        } else {
            tracing::info!("reconnected to NATS");
            metrics::nats_reconnected();
        }
        self.sender.send_modify(|link| {
            link.state = LinkState::Up;
            link.reconnects += u64::from(!first);
        });
    }

    fn down(&self, reason: String) {
        metrics::nats_connected(false);
        self.sender.send_modify(|link| link.state = LinkState::Down { reason });
    }

    /// Says why the connection is down; an error while it is up changes nothing.
    fn explain(&self, error: String) {
        self.sender.send_if_modified(|link| match &mut link.state {
            LinkState::Down { reason } if *reason != error => {
                // Once for each new reason, not for each attempt.
                tracing::warn!(%error, "can't reconnect to NATS");
                *reason = error;
                true
            }
            LinkState::Down { .. } | LinkState::Up | LinkState::Closed => false,
        });
    }
}

/// The wait before an attempt, counted from 1 over all servers: each server once at once, then a
/// random part (jitter) of a time that doubles up to [`MAX_DELAY`], so that a restarted server is not
/// hit by all workers at the same moment.
pub(super) fn reconnect_delay(servers: usize, attempt: usize) -> Duration {
    let Some(later) = attempt.checked_sub(servers.max(1) + 1) else {
        return Duration::ZERO;
    };
    let doublings = u32::try_from(later.min(8)).expect("at most 8");
    let most = (Duration::from_millis(100) * 2u32.pow(doublings)).min(MAX_DELAY);
    // std's hasher keys are random; that is enough for jitter, and spares a dependency.
    let random = RandomState::new().hash_one(attempt) % 1000;
    most * u32::try_from(500 + random / 2).expect("at most 1000") / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_attempts_are_immediate_and_later_ones_grow_to_the_limit() {
        assert_eq!(reconnect_delay(3, 1), Duration::ZERO);
        assert_eq!(reconnect_delay(3, 3), Duration::ZERO);
        let second = reconnect_delay(3, 4);
        assert!(second >= Duration::from_millis(50) && second <= Duration::from_millis(100));
        for attempt in [20, 1000, usize::MAX] {
            let delay = reconnect_delay(1, attempt);
            assert!(delay >= MAX_DELAY / 2 && delay <= MAX_DELAY, "{delay:?}");
        }
        let delays: std::collections::HashSet<_> =
            (0..50).map(|_| reconnect_delay(1, 20)).collect();
        assert!(delays.len() > 10, "there is jitter");
    }

    #[test]
    fn the_link_counts_reconnects_and_keeps_the_reason() {
        let (feed, link) = link(Denials::default());
        feed.take(&Event::Connected);
        assert_eq!((link.borrow().state.clone(), link.borrow().reconnects), (LinkState::Up, 0));
        feed.take(&Event::Disconnected);
        feed.take(&Event::ServerError(async_nats::ServerError::AuthorizationViolation));
        let down = link.borrow().state.clone();
        assert!(matches!(down, LinkState::Down { reason } if reason.contains("authorization")));
        feed.take(&Event::Connected);
        assert_eq!((link.borrow().state.clone(), link.borrow().reconnects), (LinkState::Up, 1));
    }
}
