//! How an attempt went: its end as an outcome, for people, and as what the retry policy looks at.
//!
//! Nothing here asks or changes anything.

use std::time::Duration;

use jiff::Timestamp;

use super::attempt::{AttemptEnd, EndedRun};
use super::claim::Taken;
use super::shared::{self, Shared};
use super::stop;
use crate::exec::{self, ExitStatus, LaunchError};
use crate::task::{self, LaunchPlan, Task, Work};
use crate::wire::{CpuTime, ErrorDetail, Outcome, Phase, StopReason, TaskId};

/// How the attempt went, for people (the outcome; its phase is set when no retry follows) and for the
/// retry policy.
pub(super) fn judge(
    shared: &Shared,
    task: &Task,
    taken: &Taken,
    end: AttemptEnd,
) -> (Outcome, task::AttemptEnd) {
    let mut outcome = outcome_of(shared, &task.id, taken, Phase::Failed);
    let ended_as = match end {
        AttemptEnd::NotLaunched(error) => {
            outcome.error = Some(ErrorDetail {
                step: error.step().to_owned(),
                message: shared::chain(&error),
                problems: Vec::new(),
            });
            not_launched(&error)
        }
        AttemptEnd::Broken(error) => {
            outcome.error = Some(ErrorDetail {
                step: "supervise".into(),
                message: shared::chain(&error),
                problems: Vec::new(),
            });
            if error.may_be_alive() {
                task::AttemptEnd::SetupFailed
            } else {
                task::AttemptEnd::Broken
            }
        }
        AttemptEnd::StoppedBefore(stop) => {
            outcome.cause = Some(stop::cause(&stop));
            match stop.reason {
                StopReason::Timeout => task::AttemptEnd::Timeout,
                StopReason::Draining
                | StopReason::Canceled
                | StopReason::Replaced
                | StopReason::LeaseLost => task::AttemptEnd::Canceled,
            }
        }
        AttemptEnd::Ended(run) => judge_exit(task, *run, &mut outcome),
    };
    outcome.phase = phase_of(ended_as);
    (outcome, ended_as)
}

/// What a failed launch counts as.
fn not_launched(error: &LaunchError) -> task::AttemptEnd {
    match (error.is_permanent(), error.has_not_begun()) {
        (true, _) => task::AttemptEnd::SetupFailed,
        (false, true) => task::AttemptEnd::SetupFailedForNow,
        // The program may have done something: this is no host's lack.
        (false, false) => task::AttemptEnd::Broken,
    }
}

fn judge_exit(task: &Task, run: EndedRun, outcome: &mut Outcome) -> task::AttemptEnd {
    let EndedRun { ended, started_at, finished_at, output } = run;
    outcome.started_at = Some(started_at);
    outcome.finished_at = finished_at;
    outcome.output = Some(output);
    outcome.leftovers_killed = ended.leftovers_killed;
    outcome.max_rss_bytes = Some(ended.usage.max_rss_bytes);
    let (user, system) = cpu(&ended);
    outcome.cpu = Some(CpuTime {
        user_us: u64::try_from(user.as_micros()).unwrap_or(u64::MAX),
        system_us: u64::try_from(system.as_micros()).unwrap_or(u64::MAX),
    });
    if let Some(cgroup) = ended.cgroup {
        outcome.oom_killed = cgroup.oom_kills > 0;
        outcome.memory_peak_bytes = cgroup.memory_peak_bytes;
    }
    outcome.cause = ended.stopped.as_ref().map(stop::cause);
    let must_be_zero = match &task.work {
        Work::Process(process) => process.fail_on_non_zero,
        Work::Container(_) | Work::Wasm(_) => true,
    };
    let by_itself = match ended.exit {
        ExitStatus::Exited(code) => {
            outcome.exit_code = Some(code);
            if code == 0 || !must_be_zero {
                task::AttemptEnd::Succeeded
            } else {
                task::AttemptEnd::ExitCode(code)
            }
        }
        ExitStatus::Signaled(signal) => {
            outcome.signal = Some(signal);
            task::AttemptEnd::Signal
        }
    };
    match ended.stopped.map(|stop| stop.reason) {
        Some(StopReason::Timeout) => task::AttemptEnd::Timeout,
        Some(StopReason::Canceled | StopReason::Replaced) => task::AttemptEnd::Canceled,
        Some(StopReason::Draining | StopReason::LeaseLost) | None => by_itself,
    }
}

/// CPU time in programs and in the kernel. A cgroup counts every process, rusage only those that were
/// waited for; but the cgroup's includes the leader's own setup.
fn cpu(ended: &exec::Ended) -> (Duration, Duration) {
    match ended.cgroup.map(|cgroup| (cgroup.cpu_user, cgroup.cpu_system)) {
        Some((Some(user), Some(system))) => (user, system),
        Some(_) | None => (ended.usage.user, ended.usage.system),
    }
}

/// What the phase would be if the task ended with this attempt.
fn phase_of(end: task::AttemptEnd) -> Phase {
    match end {
        task::AttemptEnd::Succeeded => Phase::Succeeded,
        task::AttemptEnd::Timeout => Phase::Timeout,
        task::AttemptEnd::Canceled => Phase::Canceled,
        task::AttemptEnd::ExitCode(_)
        | task::AttemptEnd::Signal
        | task::AttemptEnd::SetupFailed
        | task::AttemptEnd::SetupFailedForNow
        | task::AttemptEnd::Broken => Phase::Failed,
    }
}

pub(super) fn outcome_of(shared: &Shared, id: &TaskId, taken: &Taken, phase: Phase) -> Outcome {
    Outcome {
        attempt: Some(taken.started.attempt),
        worker: Some(shared.worker.clone()),
        runner: Some(taken.started.runner.clone()),
        lane: Some(taken.started.lane.clone()),
        run_id: Some(taken.started.run_id.clone()),
        ..Outcome::without_run(id.clone(), phase, Timestamp::now())
    }
}

/// Adds what the plan says of the limits that the attempt ran under, and of those that it did without.
pub(super) fn under(plan: &LaunchPlan, outcome: Outcome) -> Outcome {
    let sandbox = &plan.sandbox;
    let missing = plan.missing.iter().map(|(feature, why)| (feature.to_string(), why.clone()));
    Outcome {
        memory_max_bytes: sandbox.enclosure.cgroup.as_ref().and(sandbox.cgroup.memory_max),
        isolation_missing: missing.collect(),
        ..outcome
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exec::ProcessError;

    #[test]
    fn a_supervisor_that_died_may_have_begun_the_program_and_is_no_lack_of_the_host() {
        let setup = |step: &str, errno: i32| {
            let (step, message) = (step.to_owned(), String::new());
            not_launched(&LaunchError::Setup { step, errno, message })
        };
        let died = not_launched(&LaunchError::Interrupted(ProcessError::SupervisorDied));
        assert_eq!(died, task::AttemptEnd::Broken);
        assert_eq!(setup("exec", nix::libc::ENOENT), task::AttemptEnd::SetupFailed);
        assert_eq!(setup("fork", nix::libc::EAGAIN), task::AttemptEnd::SetupFailedForNow);
    }
}
