//! [`TaskSpec`] → [`Task`]: what the values mean, with every problem at its place.
//!
//! A `Task` can't be wrong: nothing after this step checks a spec again.

use std::time::Duration;

use jiff::Timestamp;

use super::decode::{draft, read};
use super::limits::{NAME_BYTES, is_name, millis};
use super::path::Path;
use super::problems::Problems;
use super::retry::{Delays, RetryPolicy};
use super::tighten::TaskIsolation;
use super::wishes;
use super::work::{self, Work};
use crate::task::Labels;
use crate::wire::{
    Admission, Backoff, LaneRecord, OnWorkerLost, Operator, OutputSpec, Problem, Requirement,
    Selector, TaskId, TaskSpec,
};

/// The most retries, and the most lost workers, that a spec may ask for.
pub const MAX_COUNT: u32 = 1_000;
/// The shortest time for which results are kept, in milliseconds: a late second message of the task
/// must still find its chain.
pub(super) const MIN_TTL_MS: u64 = 60_000;

/// A checked task.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// The slot it needs. None: it is admitted at once.
    pub slot: Option<SlotRequest>,
    /// What to run.
    pub work: Work,
    /// The submitter's wish for a later start, which the schedule stream keeps.
    pub not_before: Option<Timestamp>,
    /// The time after which it doesn't start for the first time any more.
    pub start_by: Option<Timestamp>,
    /// How long its results are kept. None: as long as their streams keep them.
    pub ttl: Option<Duration>,
    /// Run time limit of one attempt. None: no limit.
    pub timeout: Option<Duration>,
    /// Time between the polite signal and SIGKILL. None: the runner's.
    pub grace: Option<Duration>,
    /// What follows an attempt.
    pub retry: RetryPolicy,
    /// What follows the loss of its worker.
    pub loss: LossPolicy,
    /// Labels that the runner must have, in canonical form.
    pub selector: Selector,
    /// The task's own labels.
    pub labels: Labels,
    /// What it asks for concerning its output; the runner's settings count for the rest.
    pub output: OutputSpec,
    /// What it asks for beyond its runner's isolation. None: nothing.
    pub isolation: Option<TaskIsolation>,
}

/// A wish for a concurrency slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotRequest {
    /// The slot's name.
    pub name: String,
    /// What to do when it is taken.
    pub admission: Admission,
    /// How many tasks may have it at once; at least 1.
    pub limit: u32,
}

/// What follows the loss of a task's worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LossPolicy {
    /// How many workers the task may lose and still run again.
    pub max_worker_losses: u32,
    /// Whether it runs again at all.
    pub on_worker_lost: OnWorkerLost,
}

impl Task {
    /// What the tasks of its lane ask for.
    pub fn lane_record(&self) -> LaneRecord {
        // The selector is in canonical form already.
        LaneRecord { kind: self.work.kind(), selector: self.selector.clone() }
    }
}

/// Decodes and checks a queued spec. `subject_id` is the id in the subject that it came on, which
/// stands in for an absent `id`.
///
/// # Errors
/// Every problem of both steps, each with its JSON path; at most 100 are listed.
pub fn parse(bytes: &[u8], subject_id: Option<&TaskId>) -> Result<Task, Vec<Problem>> {
    let mut problems = Problems::default();
    let Some(spec) = read(bytes, &mut problems).and_then(|value| draft(&value, &mut problems))
    else {
        return problems.or(None);
    };
    let mut checks = Problems::default();
    if spec.delay.is_some() {
        let why = "is turned into `notBefore` by whoever submits; publish `notBefore` to the queue";
        checks.add("$.delay", why);
    }
    let id = identify(&spec, subject_id, &mut checks);
    let task = check(spec, id, &mut checks);
    problems.follow(checks);
    problems.or(task)
}

/// Checks a decoded spec that may still be without an id.
pub(super) fn check_spec(spec: TaskSpec, problems: &mut Problems) {
    let id = spec.id.clone().unwrap_or_else(unnamed);
    check(spec, id, problems);
}

// Stands for an id that is missing, so that the other checks go on.
fn unnamed() -> TaskId {
    "unnamed".parse().expect("letters make an id")
}

fn identify(spec: &TaskSpec, subject: Option<&TaskId>, problems: &mut Problems) -> TaskId {
    match (&spec.id, subject) {
        (Some(id), Some(subject)) if id != subject => {
            let why = format!("is {id}, but the subject it was published on says {subject}");
            problems.add("$.id", why);
        }
        (Some(_), _) | (None, Some(_)) => {}
        (None, None) => problems.add("$.id", "is missing"),
    }
    spec.id.as_ref().or(subject).cloned().unwrap_or_else(unnamed)
}

fn check(spec: TaskSpec, id: TaskId, problems: &mut Problems) -> Option<Task> {
    let root = Path::Root;
    if !(1..=MAX_COUNT).contains(&spec.slot_limit) {
        let found = spec.slot_limit;
        problems.add("$.slotLimit", format!("is {found}; use a number from 1 to {MAX_COUNT}"));
    }
    let slot = spec.slot.map(|name| slot(name, spec.admission, spec.slot_limit, problems));
    if spec.timeout == Some(0) {
        problems.add("$.timeout", "is 0; leave it out for no limit");
    }
    for (name, value) in
        [("maxRetries", spec.max_retries), ("maxWorkerLosses", spec.max_worker_losses)]
    {
        if value > MAX_COUNT {
            problems.add(root.field(name), format!("is {value}; the limit is {MAX_COUNT}"));
        }
    }
    if spec.ttl.is_some_and(|ttl| ttl < MIN_TTL_MS) {
        problems.add(
            "$.ttl",
            format!("is less than a minute ({MIN_TTL_MS}): nobody could read the results"),
        );
    }
    exit_codes(&spec.no_retry_exit_codes, problems);
    labels(&spec.labels, &root.field("labels"), problems);
    let selector = spec.runner_selector.unwrap_or_default();
    check_selector(&selector, problems);
    let isolation = spec.isolation.as_ref().map(|spec| wishes::check(spec, problems));
    let delays = delays(&spec.backoff, problems);
    let work = work::check(spec.kind, problems);
    Some(Task {
        id,
        slot,
        not_before: spec.not_before,
        start_by: spec.start_by,
        ttl: spec.ttl.map(millis),
        timeout: spec.timeout.map(millis),
        grace: spec.grace_ms.map(millis),
        retry: RetryPolicy {
            restart: spec.restart,
            max_retries: spec.max_retries,
            delays: delays?,
            no_retry_exit_codes: spec.no_retry_exit_codes,
        },
        loss: LossPolicy {
            max_worker_losses: spec.max_worker_losses,
            on_worker_lost: spec.on_worker_lost,
        },
        selector: selector.canonical(),
        labels: spec.labels,
        output: spec.output.unwrap_or_default(),
        isolation,
        work: work?,
    })
}

fn slot(name: String, admission: Admission, limit: u32, problems: &mut Problems) -> SlotRequest {
    if name.is_empty() {
        problems.add("$.slot", "is empty; leave it out for no slot");
    } else if !is_name(&name) {
        problems.add("$.slot", not_a_name(&name));
    }
    SlotRequest { name, admission, limit }
}

fn exit_codes(codes: &[i32], problems: &mut Problems) {
    let path = Path::Root.field("noRetryExitCodes");
    for (at, code) in codes.iter().enumerate() {
        if !(0..=255).contains(code) {
            problems.add(path.index(at), format!("is {code}; exit codes are 0 to 255"));
        }
    }
}

fn labels(labels: &Labels, path: &Path<'_>, problems: &mut Problems) {
    for (key, value) in labels {
        if key.is_empty() {
            problems.add(path.field(key), "a label's name must not be empty");
        }
        for text in [key, value] {
            if !is_name(text) {
                problems.add(path.field(key), not_a_name(text));
            }
        }
    }
}

fn not_a_name(text: &str) -> String {
    if text.len() > NAME_BYTES {
        format!("has {} bytes; the limit is {NAME_BYTES}", text.len())
    } else {
        "has a control character".to_owned()
    }
}

fn check_selector(selector: &Selector, problems: &mut Problems) {
    let root = Path::Root;
    let path = root.field("runnerSelector");
    labels(&selector.match_labels, &path.field("matchLabels"), problems);
    let list = path.field("matchExpressions");
    for (at, condition) in selector.match_expressions.iter().enumerate() {
        check_condition(condition, &list.index(at), problems);
    }
}

fn check_condition(condition: &Requirement, path: &Path<'_>, problems: &mut Problems) {
    if condition.key.is_empty() {
        problems.add(path.field("key"), "a label's name must not be empty");
    } else if !is_name(&condition.key) {
        problems.add(path.field("key"), not_a_name(&condition.key));
    }
    let values = path.field("values");
    for (at, value) in condition.values.iter().enumerate() {
        if !is_name(value) {
            problems.add(values.index(at), not_a_name(value));
        }
    }
    let operator = condition.operator;
    match (operator, condition.values.is_empty()) {
        (Operator::In | Operator::NotIn, true) => {
            problems.add(values, format!("is empty; {operator:?} needs at least one value"));
        }
        (Operator::Exists | Operator::DoesNotExist, false) => {
            let remedy = "leave it out, or use In or NotIn";
            problems.add(values, format!("has values, but {operator:?} takes none; {remedy}"));
        }
        (Operator::In | Operator::NotIn, false)
        | (Operator::Exists | Operator::DoesNotExist, true) => {}
    }
}

fn delays(backoff: &Backoff, problems: &mut Problems) -> Option<Delays> {
    let before = problems.count();
    if backoff.first_ms == 0 {
        problems.add("$.backoff.firstMs", "is 0; use at least 1");
    }
    if backoff.max_ms < backoff.first_ms {
        let (max, first) = (backoff.max_ms, backoff.first_ms);
        problems.add("$.backoff.maxMs", format!("is {max}, less than firstMs, which is {first}"));
    }
    if !backoff.factor.is_finite() || backoff.factor < 1.0 {
        let factor = backoff.factor;
        problems.add("$.backoff.factor", format!("is {factor}; use a number from 1"));
    }
    (problems.count() == before).then(|| Delays {
        jitter: backoff.jitter,
        first: millis(backoff.first_ms),
        max: millis(backoff.max_ms),
        factor: backoff.factor,
    })
}

#[cfg(test)]
#[path = "validate_tests.rs"]
mod tests;
