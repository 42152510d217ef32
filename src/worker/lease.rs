//! The lease: for how long this worker may count on holding a task, kept by renewals.
//!
//! ```text
//!            renewed (server answered +WPI, and our start is still the last record)
//!           ┌──────┐
//!           ▼      │        deadline − margin passes without a renewal
//!   Held ───┴──────┴──────────────────────────────────────────────────────► Lost
//!     └────────── somebody else's record follows ours ──────────────────────► Lost
//! ```
//!
//! The time a renewal counts from is when it was *sent*, so our deadline is never later than the
//! server's, and the margin lets us end the processes before another worker can have the task. Time is
//! `CLOCK_BOOTTIME`, which goes on while the machine is suspended: a worker that was frozen sees the
//! deadline behind it as soon as it wakes. Timers don't: see [`super::suspend`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::nats::{Hold, guards};

/// Renewals per lease.
const RENEWALS: u32 = 3;
/// The part of a lease that is kept free for ending the processes.
const MARGIN_DIVISOR: u32 = 10;
const LOST: u64 = 0;
/// How long a task that has ended waits for output that can't be stored, in milliseconds.
const OUTPUT_PATIENCE: u64 = 3_600_000;
/// The same once somebody has asked for its end: who could ask reaches the server, and so do we.
const ASKED_PATIENCE: u64 = 10_000;
/// No moment: it has not come yet.
const NOT_YET: u64 = 0;

/// One task's lease; shared by those who must not act without it.
#[derive(Debug)]
pub(super) struct Lease {
    length: Duration,
    // Milliseconds of CLOCK_BOOTTIME until which we may act; LOST for good.
    deadline: AtomicU64,
    // When no process of the task was left: from then on a passed deadline endangers nobody.
    gone: AtomicU64,
    // When somebody asked for the task's end.
    asked: AtomicU64,
}

impl Lease {
    /// A lease of which `used` has passed already.
    pub(super) fn start(length: Duration, received: BootInstant) -> Self {
        let (gone, asked) = (AtomicU64::new(NOT_YET), AtomicU64::new(NOT_YET));
        let lease = Self { length, deadline: AtomicU64::new(LOST + 1), gone, asked };
        lease.renew_from(received);
        lease
    }

    /// Counts a renewal that was sent at `sent` and confirmed since; a lost lease stays lost.
    pub(super) fn renew_from(&self, sent: BootInstant) {
        let usable = usable(self.length).as_millis();
        let until = sent.0 + u64::try_from(usable).unwrap_or(u64::MAX / 2);
        let renew = |old| (old != LOST).then_some(until.max(old));
        // An error means that the lease is lost, and it stays so.
        let _lost = self.deadline.fetch_update(Ordering::AcqRel, Ordering::Acquire, renew);
    }

    /// Gives the lease up for good.
    pub(super) fn lose(&self) {
        if guards::lease() {
            self.deadline.store(LOST, Ordering::Release);
        }
    }

    /// Time left; zero if the deadline has passed.
    pub(super) fn left(&self) -> Duration {
        let deadline = self.deadline.load(Ordering::Acquire);
        Duration::from_millis(deadline.saturating_sub(BootInstant::now().0))
    }

    /// Says that no process of the task is left. From now on only somebody else's record loses the
    /// lease: what is still to be stored is guarded by the chain.
    pub(super) fn process_is_gone(&self) {
        self.gone.store(BootInstant::now().0, Ordering::Release);
    }

    /// Says that somebody has asked for the task's end.
    pub(super) fn end_is_asked_for(&self) {
        self.asked.store(BootInstant::now().0, Ordering::Release);
    }

    /// Whether the deadline has passed while the task may have processes.
    pub(super) fn is_overdue(&self) -> bool {
        let is_gone = self.gone.load(Ordering::Acquire) != NOT_YET;
        guards::lease() && !is_gone && self.left().is_zero()
    }

    /// Time for which the server lets us hold the task without a renewal.
    pub(super) fn length(&self) -> Duration {
        self.length
    }

    /// Time between two renewals.
    pub(super) fn interval(&self) -> Duration {
        self.length / RENEWALS
    }
}

impl Hold for Lease {
    fn is_held(&self) -> bool {
        !guards::lease() || !self.left().is_zero()
    }

    fn is_lost(&self) -> bool {
        self.deadline.load(Ordering::Acquire) == LOST
    }

    fn is_too_late(&self, is_refused: bool) -> bool {
        // A lease that is held longer than it lasts was renewed: the server answers, and to this not.
        let lease = u64::try_from(self.length.as_millis()).unwrap_or(OUTPUT_PATIENCE);
        let patience = match (is_refused, self.is_held()) {
            (true, _) => ASKED_PATIENCE,
            (false, true) => ASKED_PATIENCE + lease,
            (false, false) => OUTPUT_PATIENCE,
        };
        let (gone, asked) = (self.gone.load(Ordering::Acquire), self.asked.load(Ordering::Acquire));
        is_too_late(gone, asked, patience, BootInstant::now().0)
    }
}

/// Whether the end of a task has waited for its output long enough.
fn is_too_late(gone: u64, asked: u64, asked_patience: u64, now: u64) -> bool {
    let is_asked_for = asked != NOT_YET && now >= gone.max(asked) + asked_patience;
    gone != NOT_YET && (is_asked_for || now >= gone + OUTPUT_PATIENCE)
}

/// The part of a lease within which its holder acts; in the rest it only ends what it had.
pub(super) fn usable(length: Duration) -> Duration {
    length - length / MARGIN_DIVISOR
}

/// A reading of `CLOCK_BOOTTIME`, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct BootInstant(u64);

impl BootInstant {
    pub(super) fn now() -> Self {
        Self(millis_of(ClockId::CLOCK_BOOTTIME))
    }

    pub(super) fn since_boot(self) -> Duration {
        Duration::from_millis(self.0)
    }

    /// The part of the time since the boot that the machine was awake.
    pub(super) fn awake() -> Duration {
        Duration::from_millis(millis_of(ClockId::CLOCK_MONOTONIC))
    }
}

fn millis_of(clock: ClockId) -> u64 {
    let now = clock_gettime(clock).expect("Linux has this clock");
    now.tv_sec().unsigned_abs() * 1000 + now.tv_nsec().unsigned_abs() / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_before_the_server_s_does() {
        let lease = Lease::start(Duration::from_secs(30), BootInstant::now());
        assert!(lease.is_held());
        assert!(lease.left() <= Duration::from_secs(27), "{:?}", lease.left());
        assert_eq!(lease.interval(), Duration::from_secs(10));
    }

    #[test]
    fn an_end_waits_for_output_and_less_once_it_is_asked_for() {
        let (gone, hour) = (1_000, 3_600_000);
        let is_too_late = |gone, asked, now| is_too_late(gone, asked, ASKED_PATIENCE, now);
        assert!(!is_too_late(NOT_YET, NOT_YET, 2 * hour), "it runs");
        assert!(!is_too_late(NOT_YET, 5, 2 * hour), "it has its grace");
        assert!(
            !is_too_late(gone, NOT_YET, hour + 999) && is_too_late(gone, NOT_YET, hour + 1_000)
        );
        for asked in [500, 1_000, 70_000] {
            let until = asked.max(gone) + 10_000;
            assert!(!is_too_late(gone, asked, until - 1) && is_too_late(gone, asked, until));
        }
        let lease = Lease::start(Duration::from_secs(30), BootInstant::now());
        lease.process_is_gone();
        lease.end_is_asked_for();
        assert!(!lease.is_too_late(true) && !lease.is_overdue());
    }

    #[test]
    fn a_server_that_is_away_costs_no_output_of_a_canceled_task() {
        let now = BootInstant::now().0;
        let canceled = |held_for: u64, seconds_ago: u64| Lease {
            length: Duration::from_secs(4),
            deadline: AtomicU64::new(now + held_for),
            gone: AtomicU64::new(now - seconds_ago * 1_000),
            asked: AtomicU64::new(now - seconds_ago * 1_000),
        };
        let (held, passed) = (60_000, 0);
        assert!(canceled(passed, 11).is_too_late(true) && canceled(held, 11).is_too_late(true));
        assert!(!canceled(held, 11).is_too_late(false) && canceled(held, 15).is_too_late(false));
        assert!(!canceled(passed, 60).is_too_late(false), "nobody answers");
    }

    #[test]
    fn a_lost_lease_is_not_renewed() {
        let lease = Lease::start(Duration::from_secs(30), BootInstant::now());
        lease.lose();
        lease.renew_from(BootInstant::now());
        assert!(lease.is_lost() && !lease.is_held());
    }

    #[test]
    fn a_lease_whose_deadline_passed_is_not_held_but_can_come_back() {
        let long_ago = BootInstant(1);
        let lease = Lease::start(Duration::from_millis(10), long_ago);
        assert!(!lease.is_held() && !lease.is_lost());
        lease.renew_from(BootInstant::now());
        assert!(!lease.is_lost());
    }
}
