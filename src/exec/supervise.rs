//! One ladder for whoever ends a process: time limit, user, drain, lost lease.
//!
//! ```text
//!                stop or time limit              grace passed
//!   Running ──────── polite signal ──► Stopping ──── KILL ────► Killing ── limit ──► GivenUp
//!      └── KILL, if there is no grace ─────────────────────────────▲
//! ```
//!
//! The machine is [`Phase::step`], a pure function; [`supervise`] feeds it. Each phase is left by the
//! process's end, too. **Tie rule:** a stop or time limit that was acted on before the process's end was
//! seen decides how the task ended; otherwise the exit does. So a process that ends in the same
//! moment as its time limit has ended by itself.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::cgroup::LeafUsage;
use super::process::{Exit, ExitStatus, Process, ProcessError, Signal, Usage};
use super::stop::Stop;
use crate::wire::StopReason;

/// How long SIGKILL may take to show: longer than a task-init's own sweep.
const KILL_LIMIT: Duration = Duration::from_secs(30);

/// A time that never comes, and that every clock can hold.
const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

/// How a supervised process ended. Nothing of it is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// How the leader ended; after a stop also by itself, if it obeyed.
    pub exit: ExitStatus,
    /// The stop that decided. None: it ended by itself.
    pub stopped: Option<Stop>,
    /// What its processes used.
    pub usage: Usage,
    /// Processes that were still there after the leader's end, and were killed.
    pub leftovers_killed: u32,
    /// What its cgroup says, if it had one of its own.
    pub cgroup: Option<LeafUsage>,
}

/// Why a process's end is not known.
#[derive(Debug, thiserror::Error)]
pub enum SuperviseError {
    /// Its end can't be learned, or something of it may be alive.
    #[error("cannot learn how the process ended")]
    Process {
        /// The stop that was acted on, if one was.
        stopped: Option<Stop>,
        /// Why.
        source: ProcessError,
    },
    /// It was sent SIGKILL and is still alive, as in a system call that can't be interrupted.
    #[error("the process is alive {} seconds after SIGKILL", KILL_LIMIT.as_secs())]
    Unkillable {
        /// Why it was killed.
        stopped: Stop,
    },
}

impl SuperviseError {
    /// Whether something of the task may be alive for long: whoever ran it again would run it twice.
    pub fn may_be_alive(&self) -> bool {
        match self {
            Self::Process { source: ProcessError::Survivors { .. }, .. }
            | Self::Unkillable { .. } => true,
            // The leader dies with its supervisor, and the spawner sweeps what is left.
            Self::Process { source: ProcessError::SupervisorDied, .. } => false,
            Self::Process { source: ProcessError::Control(_), .. } => false,
        }
    }
}

/// Waits for the end of a process, and ends it at its time limit or when a stop arrives.
///
/// A second stop with a shorter grace shortens the wait for SIGKILL; one with a stronger reason
/// replaces the first one's. When the senders are gone, no stop can come and the rest still holds.
///
/// # Errors
/// When nobody can say that the whole tree is gone.
pub async fn supervise(
    process: &mut impl Process,
    timeout: Option<Duration>,
    grace: Duration,
    stop_signal: i32,
    mut stop: watch::Receiver<Option<Stop>>,
) -> Result<Ended, SuperviseError> {
    let rules = Rules { grace, stop_signal };
    let deadline = timeout.map(|timeout| after(Instant::now(), timeout));
    let mut phase = Phase::Running { deadline };
    let mut stops_may_come = true;
    // A stop may have come before the process did.
    stop.mark_changed();
    loop {
        let deadline = phase.deadline();
        let event = tokio::select! {
            // The order is the tie rule.
            biased;
            // Cancel safe, says the trait.
            end = process.wait() => return phase.into_ended(end),
            // Cancel safe, says tokio.
            changed = stop.changed(), if stops_may_come => {
                stops_may_come = changed.is_ok();
                stop.borrow_and_update().clone().map(Event::StopRequested)
            }
            // Cancel safe: it is the same instant in the next round.
            () = sleep_until(deadline.unwrap_or_else(|| after(Instant::now(), NEVER))) => {
                Some(Event::DeadlinePassed)
            }
        };
        let Some(event) = event else { continue };
        let (next, signal) = phase.clone().step(event, Instant::now(), rules);
        // A signal that can't be sent found nobody: the stop was not acted on, the exit decides.
        if signal.is_none_or(|signal| process.signal(signal).is_ok()) {
            phase = next;
        } else {
            return phase.into_ended(process.wait().await);
        }
        if let Phase::GivenUp { stop } = phase {
            return Err(SuperviseError::Unkillable { stopped: stop });
        }
    }
}

/// What the task says about its end.
#[derive(Debug, Clone, Copy)]
struct Rules {
    grace: Duration,
    stop_signal: i32,
}

/// Where a process is on the ladder.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Running { deadline: Option<Instant> },
    Stopping { stop: Stop, kill_at: Instant },
    Killing { stop: Stop, give_up_at: Instant },
    GivenUp { stop: Stop },
}

/// What moves a process along.
#[derive(Debug, Clone)]
enum Event {
    StopRequested(Stop),
    DeadlinePassed,
}

impl Phase {
    fn step(self, event: Event, now: Instant, rules: Rules) -> (Self, Option<Signal>) {
        match (self, event) {
            (Self::Running { .. }, Event::StopRequested(stop)) => Self::begin(stop, now, rules),
            (Self::Running { .. }, Event::DeadlinePassed) => {
                Self::begin(Stop::because(StopReason::Timeout), now, rules)
            }
            (Self::Stopping { mut stop, kill_at }, Event::StopRequested(later)) => {
                let kill_at = kill_at.min(after(now, later.grace_or(rules.grace)));
                stop.merge(later);
                if kill_at <= now {
                    Self::kill(stop, now)
                } else {
                    (Self::Stopping { stop, kill_at }, None)
                }
            }
            (Self::Stopping { stop, .. }, Event::DeadlinePassed) => Self::kill(stop, now),
            // SIGKILL is sent once.
            (Self::Killing { mut stop, give_up_at }, Event::StopRequested(later)) => {
                stop.merge(later);
                (Self::Killing { stop, give_up_at }, None)
            }
            (Self::Killing { stop, .. }, Event::DeadlinePassed) => (Self::GivenUp { stop }, None),
            (given_up @ Self::GivenUp { .. }, Event::StopRequested(_) | Event::DeadlinePassed) => {
                (given_up, None)
            }
        }
    }

    fn begin(stop: Stop, now: Instant, rules: Rules) -> (Self, Option<Signal>) {
        let grace = stop.grace_or(rules.grace);
        if grace.is_zero() {
            return Self::kill(stop, now);
        }
        let kill_at = after(now, grace);
        (Self::Stopping { stop, kill_at }, Some(Signal::Polite(rules.stop_signal)))
    }

    fn kill(stop: Stop, now: Instant) -> (Self, Option<Signal>) {
        (Self::Killing { stop, give_up_at: after(now, KILL_LIMIT) }, Some(Signal::Kill))
    }

    fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Running { deadline } => *deadline,
            Self::Stopping { kill_at, .. } => Some(*kill_at),
            Self::Killing { give_up_at, .. } => Some(*give_up_at),
            Self::GivenUp { .. } => None,
        }
    }

    fn into_ended(self, end: Result<Exit, ProcessError>) -> Result<Ended, SuperviseError> {
        let stopped = match self {
            Self::Running { .. } => None,
            Self::Stopping { stop, .. } | Self::Killing { stop, .. } | Self::GivenUp { stop } => {
                Some(stop)
            }
        };
        match end {
            Ok(Exit { status, usage, leftovers_killed, cgroup }) => {
                Ok(Ended { exit: status, stopped, usage, leftovers_killed, cgroup })
            }
            Err(source) => Err(SuperviseError::Process { stopped, source }),
        }
    }
}

/// A later instant; [`NEVER`] if the clock can't hold it.
fn after(now: Instant, duration: Duration) -> Instant {
    now + duration.min(NEVER)
}

#[cfg(test)]
#[path = "supervise_tests.rs"]
mod tests;
