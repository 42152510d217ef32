//! The wish to end a process, and how two of them become one.

use std::time::Duration;

use tokio::sync::watch;

use crate::wire::StopReason;

/// A wish to end a process. It carries its reason, because the outcome must say why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// Why.
    pub reason: StopReason,
    /// Time between the polite signal and SIGKILL; zero kills at once. None: the task's own.
    pub grace: Option<Duration>,
    /// Who asked, in their own words.
    pub by: Option<String>,
    /// The reason that was given.
    pub message: Option<String>,
}

impl Stop {
    /// A stop with the task's own grace, and nothing but a reason.
    pub fn because(reason: StopReason) -> Self {
        Self { reason, grace: None, by: None, message: None }
    }

    /// The time that this stop gives. A lost lease gives none: another worker may have the task.
    pub(super) fn grace_or(&self, own: Duration) -> Duration {
        match self.reason {
            StopReason::LeaseLost => Duration::ZERO,
            StopReason::Draining
            | StopReason::Timeout
            | StopReason::Canceled
            | StopReason::Replaced => self.grace.unwrap_or(own),
        }
    }

    /// Makes one of a stop and a later one: the first stays unless the later one is stronger, and the
    /// shorter grace is taken in both cases.
    ///
    /// The order, from the weakest, is that of [`StopReason`]: draining, timeout, canceled, replaced,
    /// lease lost. Each forbids something that those before it allow: a drained task is started
    /// again, one that timed out may be retried, a canceled or replaced one ends, and after a lost
    /// lease this worker may not even publish an outcome.
    pub(super) fn merge(&mut self, later: Self) {
        let grace = match (self.grace, later.grace) {
            (Some(first), Some(later)) => Some(first.min(later)),
            (first, later) => first.or(later),
        };
        if later.reason > self.reason {
            *self = later;
        }
        self.grace = grace;
    }
}

/// Asks the [`super::supervise`] at the other end to end its process. Stops that are there already
/// are kept, by the rules of the reasons' order: see [`Stop`]'s reason and grace.
pub fn set_stop(sender: &watch::Sender<Option<Stop>>, stop: Stop) {
    sender.send_if_modified(|current| match current {
        None => {
            *current = Some(stop);
            true
        }
        Some(first) => {
            let before = first.clone();
            first.merge(stop);
            *first != before
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stop(reason: StopReason, grace: Option<u64>, by: &str) -> Stop {
        Stop {
            reason,
            grace: grace.map(Duration::from_secs),
            by: Some(by.to_owned()),
            message: None,
        }
    }

    #[test]
    fn the_first_reason_stays_unless_the_later_is_stronger_and_the_shorter_grace_is_taken() {
        use StopReason::{Canceled, Draining, LeaseLost, Timeout};
        for (first, later, both) in [
            (
                stop(Canceled, Some(5), "a"),
                stop(Canceled, Some(1), "b"),
                stop(Canceled, Some(1), "a"),
            ),
            (
                stop(Canceled, Some(1), "a"),
                stop(Draining, Some(9), "b"),
                stop(Canceled, Some(1), "a"),
            ),
            (
                stop(Draining, Some(1), "a"),
                stop(Canceled, Some(9), "b"),
                stop(Canceled, Some(1), "b"),
            ),
            (stop(Timeout, None, "a"), stop(Canceled, Some(0), "b"), stop(Canceled, Some(0), "b")),
            (
                stop(Canceled, Some(3), "a"),
                stop(LeaseLost, None, "b"),
                stop(LeaseLost, Some(3), "b"),
            ),
            (stop(LeaseLost, None, "a"), stop(Canceled, None, "b"), stop(LeaseLost, None, "a")),
        ] {
            let (sender, receiver) = watch::channel(None);
            set_stop(&sender, first);
            set_stop(&sender, later);
            assert_eq!(*receiver.borrow(), Some(both));
        }
    }

    #[test]
    fn a_stop_that_changes_nothing_wakes_nobody() {
        let (sender, mut receiver) = watch::channel(None);
        set_stop(&sender, stop(StopReason::Canceled, Some(1), "a"));
        receiver.mark_unchanged();
        set_stop(&sender, stop(StopReason::Draining, None, "b"));
        assert!(!receiver.has_changed().expect("the sender lives"));
    }

    #[test]
    fn a_lost_lease_gives_no_time() {
        let lost = stop(StopReason::LeaseLost, Some(9), "a");
        assert_eq!(lost.grace_or(Duration::from_secs(5)), Duration::ZERO);
    }
}
