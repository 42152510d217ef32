//! Hears of it when the machine was suspended: timers count the time that it was awake, leases go on.
//!
//! Without this a keeper would sleep out the rest of its pause, up to a third of a lease, beside processes that
//! another worker may have started again by then.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::lease::BootInstant;
use crate::nats::BusError;

/// How often it is looked for.
const LOOK: Duration = Duration::from_secs(1);
/// What differs by less is two clocks that were read one after the other.
const NOTICEABLE: Duration = Duration::from_millis(500);

/// Counts the times that the machine woke, while somebody listens. `asleep` says for how long it was suspended
/// in all.
pub(super) async fn watch(
    wakes: watch::Sender<u64>,
    asleep: impl Fn() -> Duration,
) -> Result<(), BusError> {
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = asleep();
    loop {
        // Cancel safe: a tick stays until taken.
        tokio::select! {
            _ = look.tick() => {}
            () = wakes.closed() => return Ok(()),
        }
        let now = asleep();
        let slept = now.saturating_sub(known);
        known = now;
        if slept >= NOTICEABLE {
            tracing::warn!(?slept, "the machine was suspended; leases are looked at");
            wakes.send_modify(|wakes| *wakes += 1);
        }
    }
}

/// For how long this machine was suspended since it was booted.
pub(super) fn asleep() -> Duration {
    BootInstant::now().since_boot().saturating_sub(BootInstant::awake())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_suspend_is_heard_of_within_a_second_and_once() {
        let slept = AtomicU64::new(7_000);
        let (sender, mut wakes) = watch::channel(0);
        let watching = watch(sender, || Duration::from_millis(slept.load(Ordering::Relaxed)));
        let sleeper = async {
            let mut step = async |more: u64| {
                slept.fetch_add(more, Ordering::Relaxed);
                tokio::time::sleep(LOOK).await;
                *wakes.borrow_and_update()
            };
            assert_eq!(step(0).await, 0, "before the worker's start");
            assert_eq!(step(499).await, 0);
            assert_eq!(step(30_000).await, 1);
            assert_eq!(step(0).await, 1);
            assert_eq!(step(500).await, 2);
        };
        // Both wake at the same moment; the watcher is to look first.
        tokio::select! {
            biased;
            _ = watching => panic!("somebody listens"),
            () = sleeper => {}
        }
    }

    #[test]
    fn the_clocks_are_near_each_other_on_a_machine_that_was_never_suspended() {
        let (first, second) = (asleep(), asleep());
        assert!(second.abs_diff(first) < NOTICEABLE, "{first:?}, {second:?}");
    }
}
