//! When each attempt had processes: what the tasks wrote to the side file, and what the sampler saw.
//! From that: attempts that lived at once, and processes that outlived their task.

use std::collections::{BTreeMap, BTreeSet};

use crate::sampler::{Owner, Seen};

/// What the clocks and the sampler can't tell apart, in seconds.
pub(crate) const NOISE: f64 = 0.1;
/// How long after its wake a frozen worker may take to end the processes of tasks it lost; as
/// docs/chaos.md says.
pub(crate) const AFTER_WAKE: f64 = 1.0;

/// An attempt's processes.
#[derive(Debug, Clone)]
pub(crate) struct Life {
    pub(crate) attempt: u32,
    pub(crate) worker: String,
    pub(crate) start: f64,
    pub(crate) end: f64,
}

/// Two attempts at once, or an attempt after its task's outcome.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    pub(crate) length: f64,
    pub(crate) cause: Cause,
    pub(crate) what: String,
}

/// Why a window was open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The worker of the attempt that should have been gone was frozen.
    Frozen,
    /// A server crashed or was frozen, forgot when a renewal had come, and delivered the task early.
    ServerForgot,
    /// There is no excuse.
    None,
}

/// What the storm did that may open a window.
#[derive(Debug, Default)]
pub(crate) struct Excuses {
    /// Worker, from, to.
    pub(crate) freezes: Vec<(String, f64, f64)>,
    /// When servers were killed or frozen.
    pub(crate) servers: Vec<f64>,
    /// Seconds.
    pub(crate) lease: f64,
}

/// All attempts that had processes, by task.
#[derive(Debug, Default)]
pub(crate) struct Lives {
    pub(crate) by_task: BTreeMap<String, Vec<Life>>,
    /// Attempts that were started twice.
    pub(crate) twice: BTreeSet<String>,
}

impl Lives {
    pub(crate) fn new(side_file: &str, sightings: BTreeMap<Owner, Seen>) -> Self {
        let mut lives: BTreeMap<Owner, Life> = BTreeMap::new();
        let mut started: BTreeMap<(String, u32), usize> = BTreeMap::new();
        for line in side_file.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [what, task, attempt, worker, time] = words[..] else { continue };
            let (Ok(attempt), Ok(time)) = (attempt.parse(), time.parse::<f64>()) else { continue };
            if what == "s" {
                *started.entry((task.to_owned(), attempt)).or_default() += 1;
            }
            widen(&mut lives, task, attempt, worker, time, time);
        }
        for (owner, seen) in sightings {
            widen(&mut lives, &owner.task, owner.attempt, &owner.worker, seen.first, seen.last);
        }
        let mut by_task: BTreeMap<String, Vec<Life>> = BTreeMap::new();
        for (owner, life) in lives {
            by_task.entry(owner.task).or_default().push(life);
        }
        let twice = started.into_iter().filter(|(_, times)| *times > 1).map(|((task, _), _)| task);
        Self { by_task, twice: twice.collect() }
    }

    pub(crate) fn of(&self, task: &str) -> &[Life] {
        self.by_task.get(task).map_or(&[], Vec::as_slice)
    }
}

fn widen(
    lives: &mut BTreeMap<Owner, Life>,
    task: &str,
    attempt: u32,
    worker: &str,
    start: f64,
    end: f64,
) {
    let owner = Owner { task: task.to_owned(), attempt, worker: worker.to_owned() };
    let new = Life { attempt, worker: worker.to_owned(), start, end };
    let life = lives.entry(owner).or_insert(new);
    (life.start, life.end) = (life.start.min(start), life.end.max(end));
}

/// Attempts of one task that lived at once.
pub(crate) fn overlaps(lives: &[Life], excuses: &Excuses) -> Vec<Window> {
    let mut windows = Vec::new();
    for (index, one) in lives.iter().enumerate() {
        for other in &lives[index + 1..] {
            let (from, to) = (one.start.max(other.start), one.end.min(other.end));
            if to - from > NOISE {
                let older = if one.attempt <= other.attempt { one } else { other };
                let what = format!(
                    "attempts {} ({}) and {} ({}) at once for {:.3} s",
                    one.attempt,
                    one.worker,
                    other.attempt,
                    other.worker,
                    to - from
                );
                windows.push(Window {
                    length: to - from,
                    cause: excuses.cause(older, from, to),
                    what,
                });
            }
        }
    }
    windows
}

/// Attempts with processes after the outcome.
pub(crate) fn outlived(lives: &[Life], outcome: f64, excuses: &Excuses) -> Vec<Window> {
    let late = lives.iter().filter(|life| life.end - outcome > NOISE);
    late.map(|life| Window {
        length: life.end - outcome,
        cause: excuses.cause(life, outcome, life.end),
        what: format!(
            "attempt {} ({}) had processes {:.3} s after the outcome",
            life.attempt,
            life.worker,
            life.end - outcome
        ),
    })
    .collect()
}

impl Excuses {
    fn cause(&self, life: &Life, from: f64, to: f64) -> Cause {
        if self.was_frozen(life, from, to) {
            Cause::Frozen
        } else if self.server_forgot(from, to) {
            Cause::ServerForgot
        } else {
            Cause::None
        }
    }

    /// Whether the worker was frozen when the window opened, and woke soon before its end or later.
    fn was_frozen(&self, life: &Life, from: f64, to: f64) -> bool {
        self.freezes.iter().any(|(worker, frozen, thawed)| {
            *worker == life.worker
                && *frozen <= from
                && from <= *thawed + NOISE
                && to <= *thawed + AFTER_WAKE
        })
    }

    /// Whether a server was lost within two leases before, and the window is shorter than a lease,
    /// within which the older attempt's worker renews, or gives up.
    fn server_forgot(&self, from: f64, to: f64) -> bool {
        let recent = |lost: &f64| (from - 2.0 * self.lease..=from).contains(lost);
        to - from <= self.lease && self.servers.iter().any(recent)
    }
}
