//! Puts all findings together: violations with the tasks' stories, and the numbers of the report.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use runlane::wire::{Stream, TaskId};

use crate::chain;
use crate::load::Followed;
use crate::output;
use crate::overlap::{self, Cause, Excuses, Life, Lives, Window};
use crate::read::{Logs, Sort, TaskLog};
use crate::tasks::TaskPlan;
use crate::timeline::{Event, Timeline};

/// What a run has left.
pub(crate) struct Evidence {
    pub(crate) plans: Vec<TaskPlan>,
    pub(crate) accepted: Vec<TaskId>,
    pub(crate) followed: BTreeMap<TaskId, Followed>,
    pub(crate) logs: Logs,
    pub(crate) lives: Lives,
    pub(crate) timeline: Timeline,
    pub(crate) lease: Duration,
}

/// A broken promise.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    /// None: of no task in particular.
    pub(crate) task: Option<TaskId>,
    pub(crate) problem: String,
}

/// What the checks counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) violations: Vec<Violation>,
    pub(crate) phases: BTreeMap<String, usize>,
    pub(crate) attempts: usize,
    pub(crate) retries: usize,
    pub(crate) worker_losses: usize,
    pub(crate) requeues: usize,
    pub(crate) supervisor_killed: usize,
    pub(crate) incomplete: usize,
    pub(crate) overlaps: Vec<Window>,
    pub(crate) outlived: Vec<Window>,
    pub(crate) late_chunks: usize,
}

impl Tally {
    fn violation(&mut self, task: Option<&TaskId>, problem: impl Into<String>) {
        self.violations.push(Violation { task: task.cloned(), problem: problem.into() });
    }
}

/// Checks everything.
pub(crate) fn check(evidence: &Evidence) -> Tally {
    let mut tally = Tally::default();
    let accepted: BTreeSet<&TaskId> = evidence.accepted.iter().collect();
    let excuses = evidence.timeline.excuses(evidence.lease);
    let counts = evidence.timeline.counts();
    let killed = |what: &str| counts.contains_key(what);
    let supervisors_killed = killed("task-init killed") || killed("spawner killed");
    for plan in &evidence.plans {
        let id = &plan.id;
        let Some(log) = evidence.logs.tasks.get(id) else {
            if accepted.contains(id) {
                tally.violation(Some(id), "it was accepted, and no record of it is there");
            }
            continue;
        };
        // Only a cancel, of a task whose submission did not get through.
        if !accepted.contains(id) && log.status().next().is_none() {
            continue;
        }
        let lives = evidence.lives.of(id.as_str());
        let findings = chain::check(plan, log, lives, supervisors_killed);
        let ends: Vec<_> = chain::ends(log).collect();
        let output = output::check(plan, log, &ends);
        for problem in findings.problems.into_iter().chain(output.problems) {
            tally.violation(Some(id), problem);
        }
        tally.retries += findings.retries;
        tally.worker_losses += findings.losses;
        tally.requeues += findings.requeues;
        tally.supervisor_killed += usize::from(findings.supervisor_killed);
        tally.incomplete += output.incomplete;
        tally.attempts += lives.len();
        tally.late_chunks += late_chunks(log);
        windows(&mut tally, id, log, lives, &excuses);
        for (_, outcome) in log.outcomes() {
            *tally.phases.entry(outcome.phase.to_string()).or_default() += 1;
        }
    }
    the_rest(evidence, &mut tally);
    tally
}

/// Two attempts at once, or one after the outcome: only in the windows that docs/chaos.md states.
fn windows(tally: &mut Tally, id: &TaskId, log: &TaskLog, lives: &[Life], excuses: &Excuses) {
    let overlaps = overlap::overlaps(lives, excuses);
    let outcome = log.outcomes().next().map(|(record, _)| record.time);
    let outlived = outcome.map(|time| overlap::outlived(lives, time, excuses)).unwrap_or_default();
    for window in overlaps.iter().chain(&outlived).filter(|window| window.cause == Cause::None) {
        tally.violation(Some(id), window.what.clone());
    }
    tally.overlaps.extend(overlaps);
    tally.outlived.extend(outlived);
}

/// Chunks that were stored after the next attempt's start: allowed, and worth knowing.
fn late_chunks(log: &TaskLog) -> usize {
    let starts: BTreeMap<u32, f64> = log
        .status()
        .filter_map(|(record, event)| match event {
            runlane::wire::StatusEvent::Started(started) => Some((started.attempt.0, record.time)),
            _ => None,
        })
        .collect();
    let is_late = |chunk: &&crate::read::Chunk| {
        starts.get(&(chunk.attempt + 1)).is_some_and(|start| chunk.time > *start)
    };
    log.chunks.iter().filter(is_late).count()
}

/// What is not a matter of one chain.
fn the_rest(evidence: &Evidence, tally: &mut Tally) {
    for subject in &evidence.logs.queued {
        tally.violation(None, format!("{subject} is left in the queue"));
    }
    for strange in &evidence.logs.strange {
        tally.violation(None, format!("{strange} is no task's"));
    }
    for task in &evidence.lives.twice {
        let id = task.parse().ok();
        tally.violation(id.as_ref(), "an attempt of it was started twice");
    }
    let plans: BTreeMap<&TaskId, &TaskPlan> =
        evidence.plans.iter().map(|plan| (&plan.id, plan)).collect();
    for (id, followed) in &evidence.followed {
        let Some((plan, log)) = plans.get(id).zip(evidence.logs.tasks.get(id)) else { continue };
        if let Some(problem) = wrongly_followed(plan, log, followed) {
            tally.violation(Some(id), problem);
        }
    }
}

fn wrongly_followed(plan: &TaskPlan, log: &TaskLog, followed: &Followed) -> Option<String> {
    let (_, outcome) = log.outcomes().next()?;
    if !followed.ended {
        return Some("its follower did not end".to_owned());
    }
    if followed.outcomes != [outcome.clone()] {
        return Some(format!(
            "its follower heard {} outcomes, or another one",
            followed.outcomes.len()
        ));
    }
    let output = outcome.output.as_ref()?;
    let attempt = outcome.attempt?.0;
    for (stream, totals, heard) in [
        (Stream::Stdout, &output.stdout, &followed.stdout),
        (Stream::Stderr, &output.stderr, &followed.stderr),
    ] {
        if !totals.complete || totals.truncated || totals.bytes == 0 {
            continue;
        }
        let printed = plan.output(attempt, stream);
        let expected = printed.get(..usize::try_from(totals.bytes).ok()?)?;
        if heard != expected || followed.gaps > 0 {
            return Some(format!(
                "its follower heard {} bytes of {stream} with {} gaps, not the {} that are stored",
                heard.len(),
                followed.gaps,
                expected.len()
            ));
        }
    }
    None
}

/// The whole log of a task, in the order of time: records, output, processes, and what the harness did
/// meanwhile.
pub(crate) fn story(evidence: &Evidence, id: &TaskId) -> String {
    let mut lines: Vec<(f64, String)> = Vec::new();
    if let Some(log) = evidence.logs.tasks.get(id) {
        for record in &log.records {
            let what = match record.kind {
                Sort::Status(_) => "status",
                Sort::Cancel => "cancel",
                Sort::Outcome(_) => "outcome",
            };
            lines.push((record.time, format!("{what} [{}] {}", record.seq, record.text)));
        }
        for chunk in &log.chunks {
            let text = format!(
                "chunk [{}] attempt {} seq {} {} {}+{}",
                chunk.seq, chunk.attempt, chunk.number, chunk.stream, chunk.offset, chunk.length
            );
            lines.push((chunk.time, text));
        }
    }
    for life in evidence.lives.of(id.as_str()) {
        lines.push((
            life.start,
            format!("first process of attempt {} on {}", life.attempt, life.worker),
        ));
        lines.push((life.end, format!("last sign of attempt {} on {}", life.attempt, life.worker)));
    }
    let first = lines.iter().map(|(at, _)| *at).fold(f64::MAX, f64::min);
    let last = lines.iter().map(|(at, _)| *at).fold(0.0, f64::max);
    let meanwhile = |event: &&Event| event.at > first - 10.0 && event.at < last + 1.0;
    for event in evidence.timeline.events().iter().filter(meanwhile) {
        lines.push((event.at, format!("--- {} {}", event.what, event.whom)));
    }
    lines.sort_by(|one, other| one.0.total_cmp(&other.0));
    let plan = evidence.plans.iter().find(|plan| plan.id == *id);
    let mut story = format!("task {id}: {plan:?}\n");
    for (at, line) in lines {
        writeln!(story, "  {:>8.3}  {line}", at - first).expect("memory takes it");
    }
    story
}
