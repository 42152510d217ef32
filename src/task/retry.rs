//! The end of an attempt + policy → the end of the task, or another attempt after a delay.
//!
//! | the attempt | restart | then |
//! |---|---|---|
//! | succeeded | never, onFailure | `succeeded` |
//! | succeeded | always | again after its interval; the count of failures starts anew |
//! | exit code in `noRetryExitCodes` | any | `failed` |
//! | setup failed for good | any | `failed` |
//! | timeout | never | `timeout` |
//! | exit code, signal, broken supervision | never | `failed` |
//! | passing setup error | any | again after the backoff, counted as a lost worker; then `failed` |
//! | exit code, signal, broken supervision, timeout | onFailure, always | again after the backoff, up to `maxRetries` times; then `exhausted` |
//! | canceled, replaced | any | `canceled` |

use std::time::Duration;

use super::limits::millis;
use super::work::Work;
use crate::wire::{Jitter, Phase, Restart};

/// What follows an attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryPolicy {
    /// When the task runs again.
    pub restart: Restart,
    /// How many failures may be followed by another attempt; after a success the count starts anew.
    pub max_retries: u32,
    /// How long to wait before a retry.
    pub delays: Delays,
    /// Exit codes after which the task is never retried.
    pub no_retry_exit_codes: Vec<i32>,
}

/// How long to wait before a retry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Delays {
    /// How a delay is spread.
    pub jitter: Jitter,
    /// The first delay; more than zero.
    pub first: Duration,
    /// The longest delay; not less than `first`.
    pub max: Duration,
    /// Each delay is the one before times this; at least 1.
    pub factor: f64,
}

/// How an attempt ended, as far as it matters for what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptEnd {
    /// It did what it should; also a non-zero exit code that doesn't count as a failure.
    Succeeded,
    /// It exited with a code that counts as a failure.
    ExitCode(i32),
    /// A signal ended it that nobody here had sent.
    Signal,
    /// It ran into its time limit.
    Timeout,
    /// It could not be started, and never can be: not found, no permission, bad format …
    SetupFailed,
    /// It could not be started now: out of memory, out of process ids … That is its host's matter, most
    /// likely, and nothing of the task has begun.
    SetupFailedForNow,
    /// It was started, and how it ended is not known.
    Broken,
    /// Somebody asked for its end, or a newer task took its slot.
    Canceled,
}

impl AttemptEnd {
    /// The end of an attempt whose process exited with `code`.
    pub fn exit(work: &Work, code: i32) -> Self {
        let fails = match work {
            Work::Process(process) => process.fail_on_non_zero,
            Work::Container(_) | Work::Wasm(_) => true,
        };
        if fails && code != 0 { Self::ExitCode(code) } else { Self::Succeeded }
    }
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Next {
    /// The task ends.
    Finish(Phase),
    /// Another attempt.
    Retry {
        /// Time until its start.
        delay: Duration,
        /// Failures so far, with this one; 0 after a success.
        failures: u32,
        /// Lost workers so far, and those that could not start the task.
        worker_losses: u32,
    },
}

/// What was before the attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct History {
    /// Failures before the attempt.
    pub failures: u32,
    /// Workers that were lost, or could not start the task, before the attempt.
    pub worker_losses: u32,
    /// The delay before the attempt, if it is known; only [`Jitter::Decorrelated`] asks for it.
    pub last_delay: Option<Duration>,
}

/// Decides what follows an attempt. `random` is a number from 0 up to, but not, 1.
pub fn after_attempt(
    policy: &RetryPolicy,
    max_worker_losses: u32,
    end: AttemptEnd,
    history: History,
    random: f64,
) -> Next {
    let never = policy.restart == Restart::Never;
    match end {
        AttemptEnd::Succeeded => after_success(policy.restart, history),
        AttemptEnd::Canceled => Next::Finish(Phase::Canceled),
        AttemptEnd::SetupFailed => Next::Finish(Phase::Failed),
        AttemptEnd::ExitCode(code) if policy.no_retry_exit_codes.contains(&code) => {
            Next::Finish(Phase::Failed)
        }
        AttemptEnd::Timeout if never => Next::Finish(Phase::Timeout),
        AttemptEnd::SetupFailedForNow => elsewhere(policy, max_worker_losses, history, random),
        AttemptEnd::ExitCode(_) | AttemptEnd::Signal | AttemptEnd::Broken if never => {
            Next::Finish(Phase::Failed)
        }
        AttemptEnd::ExitCode(_) | AttemptEnd::Signal | AttemptEnd::Broken | AttemptEnd::Timeout => {
            after_failure(policy, history, random)
        }
    }
}

fn after_success(restart: Restart, history: History) -> Next {
    match restart {
        Restart::Never | Restart::OnFailure => Next::Finish(Phase::Succeeded),
        Restart::Always { interval_ms } => {
            let worker_losses = history.worker_losses;
            Next::Retry { delay: millis(interval_ms.unwrap_or(0)), failures: 0, worker_losses }
        }
    }
}

fn after_failure(policy: &RetryPolicy, history: History, random: f64) -> Next {
    if history.failures >= policy.max_retries {
        return Next::Finish(Phase::Exhausted);
    }
    let (failures, worker_losses) = (history.failures + 1, history.worker_losses);
    let delay = policy.delays.after(failures, history.last_delay, random);
    Next::Retry { delay, failures, worker_losses }
}

/// A worker whose host could not start the task counts as one that was lost, whatever is to be done then:
/// nothing of the task has begun, so it is no failure of it, and it can't run twice.
fn elsewhere(policy: &RetryPolicy, most: u32, history: History, random: f64) -> Next {
    let worker_losses = history.worker_losses.saturating_add(1);
    if worker_losses > most {
        return Next::Finish(Phase::Failed);
    }
    let delay = policy.delays.after(worker_losses, history.last_delay, random);
    Next::Retry { delay, failures: history.failures, worker_losses }
}

impl Delays {
    /// The delay after the `failures`th failure (from 1); never more than `max`.
    fn after(&self, failures: u32, last: Option<Duration>, random: f64) -> Duration {
        // A number of a broken source must not become a panic of `mul_f64`.
        let random = if (0.0..=1.0).contains(&random) { random } else { 0.5 };
        let base = self.base(failures);
        match self.jitter {
            Jitter::None => base,
            Jitter::Full => base.mul_f64(random),
            Jitter::Equal => base / 2 + (base / 2).mul_f64(random),
            Jitter::Decorrelated => {
                let before = || self.base(failures.saturating_sub(1).max(1));
                let last = last.unwrap_or_else(before).clamp(self.first, self.max);
                let spread = last.saturating_mul(3) - self.first;
                (self.first + spread.mul_f64(random)).min(self.max)
            }
        }
    }

    /// The delay without its spread: `first × factor^(failures - 1)`, at most `max`.
    fn base(&self, failures: u32) -> Duration {
        let power = self.factor.powf(f64::from(failures.saturating_sub(1)));
        let grown = Duration::try_from_secs_f64(self.first.as_secs_f64() * power);
        // Too large for a Duration is larger than `max`.
        grown.unwrap_or(self.max).min(self.max)
    }
}

#[cfg(test)]
#[path = "retry_tests.rs"]
mod tests;
