//! The rules of a task's chain of records, and of its outcome.

use runlane::wire::{Outcome, Phase, Started, StatusEvent, StopReason};

use crate::overlap::Life;
use crate::read::TaskLog;
use crate::tasks::{Natural, TaskPlan};

/// What a chain says.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) problems: Vec<String>,
    pub(crate) retries: usize,
    pub(crate) losses: usize,
    pub(crate) requeues: usize,
    /// The attempt's supervisor was killed by the harness, and the outcome says so.
    pub(crate) supervisor_killed: bool,
}

impl Findings {
    fn must(&mut self, holds: bool, problem: impl FnOnce() -> String) {
        if !holds {
            self.problems.push(problem());
        }
    }
}

/// Checks all that one task's records have to fulfil. `supervisors_killed`: the storm killed
/// task-inits or spawners, so attempts may end by that.
pub(crate) fn check(
    plan: &TaskPlan,
    log: &TaskLog,
    lives: &[Life],
    supervisors_killed: bool,
) -> Findings {
    let mut findings = Findings::default();
    let last_start = walk(log, &mut findings);
    one_outcome(log, &mut findings);
    no_start_after_cancel(log, lives, &mut findings);
    if let Some((_, outcome)) = log.outcomes().next() {
        right_outcome(plan, log, outcome, last_start, supervisors_killed, &mut findings);
    }
    findings
}

/// Each record follows the one before by the rules; returns the last start.
fn walk<'a>(log: &'a TaskLog, findings: &mut Findings) -> Option<&'a Started> {
    let mut last: Option<&StatusEvent> = None;
    let mut start: Option<&Started> = None;
    for (record, event) in log.status() {
        let seq = record.seq;
        findings.must(!matches!(last, Some(StatusEvent::Finished(_))), || {
            format!("record {seq} follows finished")
        });
        match event {
            StatusEvent::Started(started) => {
                let expected = start.map_or(1, |start| start.attempt.0 + 1);
                findings.must(started.attempt.0 == expected, || {
                    format!("record {seq} starts attempt {}, not {expected}", started.attempt)
                });
                let counts = (started.failures, started.worker_losses);
                let expected = counts_after(last);
                findings.must(counts == expected, || {
                    format!("record {seq} counts failures and losses {counts:?}, not {expected:?}")
                });
                findings.losses += usize::from(matches!(last, Some(StatusEvent::Started(_))));
                start = Some(started);
            }
            StatusEvent::Retrying(retrying) => {
                findings.retries += 1;
                let same = start.is_some_and(|start| Some(start.attempt) == retrying.ended.attempt);
                let follows = same && matches!(last, Some(StatusEvent::Started(_)));
                findings.must(follows, || format!("record {seq} retries what was not started"));
            }
            StatusEvent::Requeued(requeued) => {
                findings.requeues += 1;
                let same = start.is_some_and(|start| start.attempt == requeued.attempt);
                let follows = same && matches!(last, Some(StatusEvent::Started(_)));
                findings.must(follows, || format!("record {seq} requeues what was not started"));
            }
            StatusEvent::Finished(finished) => {
                let (ended, started) = (finished.outcome.attempt, start.map(|start| start.attempt));
                findings.must(ended == started, || {
                    format!(
                        "record {seq} finishes attempt {ended:?}, the last start is {started:?}"
                    )
                });
            }
        }
        last = Some(event);
    }
    start
}

fn counts_after(last: Option<&StatusEvent>) -> (u32, u32) {
    match last {
        None | Some(StatusEvent::Finished(_)) => (0, 0),
        Some(StatusEvent::Started(started)) => (started.failures, started.worker_losses + 1),
        Some(StatusEvent::Retrying(retrying)) => (retrying.failures, retrying.worker_losses),
        Some(StatusEvent::Requeued(requeued)) => (requeued.failures, requeued.worker_losses),
    }
}

fn one_outcome(log: &TaskLog, findings: &mut Findings) {
    let outcomes: Vec<_> = log.outcomes().map(|(_, outcome)| outcome).collect();
    let finished = log.status().filter_map(|(_, event)| match event {
        StatusEvent::Finished(finished) => Some(&finished.outcome),
        StatusEvent::Started(_) | StatusEvent::Retrying(_) | StatusEvent::Requeued(_) => None,
    });
    let finished: Vec<_> = finished.collect();
    findings.must(outcomes.len() == 1, || format!("it has {} outcomes", outcomes.len()));
    findings.must(finished.len() == 1, || format!("it has {} finished records", finished.len()));
    findings.must(outcomes.first() == finished.first(), || {
        "its outcome is not that of its finished record".to_owned()
    });
}

/// A start whose record is after a stored cancel has no process, by every sign there is.
fn no_start_after_cancel(log: &TaskLog, lives: &[Life], findings: &mut Findings) {
    let Some(canceled) = log.canceled() else { return };
    for (record, event) in log.status().filter(|(record, _)| record.seq > canceled) {
        let StatusEvent::Started(started) = event else { continue };
        let attempt = started.attempt.0;
        let ran = lives.iter().any(|life| life.attempt == attempt)
            || log.chunks.iter().any(|chunk| chunk.attempt == attempt)
            || ends(log).any(|end| end.attempt == Some(started.attempt) && end.cpu.is_some());
        findings.must(!ran, || {
            format!(
                "attempt {attempt} (record {}) ran after the cancel (record {canceled})",
                record.seq
            )
        });
    }
}

/// How attempts ended, by their records.
pub(crate) fn ends(log: &TaskLog) -> impl Iterator<Item = &Outcome> {
    log.status().filter_map(|(_, event)| match event {
        StatusEvent::Retrying(retrying) => Some(&retrying.ended),
        StatusEvent::Finished(finished) => Some(&finished.outcome),
        StatusEvent::Started(_) | StatusEvent::Requeued(_) => None,
    })
}

/// The outcome is one that the task can have, given what happened to it.
fn right_outcome(
    plan: &TaskPlan,
    log: &TaskLog,
    outcome: &Outcome,
    start: Option<&Started>,
    supervisors_killed: bool,
    findings: &mut Findings,
) {
    let (attempt, failures) = start.map_or((1, 0), |start| (start.attempt.0, start.failures));
    let losses = start.map_or(0, |start| start.worker_losses + 1);
    let stopped = outcome.cause.as_ref().map(|cause| cause.reason);
    let natural = plan.shape.natural_end(attempt);
    let by_supervisor = outcome.error.is_some() && outcome.phase != Phase::Lost;
    let right = match outcome.phase {
        Phase::Canceled => log.canceled().is_some() && stopped == Some(StopReason::Canceled),
        Phase::Lost => losses > plan.shape.losses_allowed(),
        Phase::Timeout => natural == Natural::Timeout && stopped == Some(StopReason::Timeout),
        Phase::Failed | Phase::Exhausted if by_supervisor => {
            findings.supervisor_killed = true;
            supervisors_killed
        }
        Phase::Succeeded | Phase::Failed | Phase::Exhausted => {
            stopped.is_none()
                && outcome.exit_code.map(Natural::Exit) == Some(natural)
                && plan.shape.phase(attempt, failures) == Some(outcome.phase)
        }
        Phase::Pending | Phase::Running | Phase::Rejected | Phase::Expired => false,
    };
    findings.must(right, || {
        format!("its outcome can't be {}: attempt {attempt} ends by {natural:?}", outcome.phase)
    });
}
