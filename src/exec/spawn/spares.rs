//! The spares: task-inits that wait for the next tasks, by the kind of their sandbox.

use std::num::NonZero;
use std::sync::{Mutex, PoisonError};

use super::super::link::Preparation;
use super::super::process::TaskProcess;
use crate::task::Sandbox;

/// Spares that wait for the next tasks of a kind of sandbox. Each is two small processes, which share
/// their memory.
const SPARES: usize = 1;

/// Spares that are kept for each core, of those whose tasks have ended, until [`Spares::trim`] finds
/// them unused. While an end is being stored its place has the next task already, and so many short
/// tasks end at about the same time: each spare fewer is ended here and forked again there.
pub(in crate::exec) const KEPT_PER_CORE: usize = 8;

/// Kinds of sandboxes that spares are kept for. A worker has one for each runner; tasks that ask for
/// ever new ones must not collect processes.
pub(in crate::exec) const KINDS: usize = 8;

/// The spares of one kind of sandbox.
#[derive(Debug)]
struct Kind {
    preparation: Preparation,
    spares: Vec<TaskProcess>,
    /// How many of them nobody has taken since the last trim.
    unused: usize,
}

/// The spares of all kinds.
#[derive(Debug)]
pub(super) struct Spares {
    /// How many a kind of sandbox has.
    pub(super) enough: usize,
    /// How many it has at most while tasks end.
    most: usize,
    /// Those that were used last at the end. Never held over an await.
    kinds: Mutex<Vec<Kind>>,
}

impl Default for Spares {
    fn default() -> Self {
        Self::with(SPARES)
    }
}

impl Spares {
    pub(super) fn with(enough: usize) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let most = if enough == 0 { 0 } else { KEPT_PER_CORE * cores };
        Self { enough, most, kinds: Mutex::default() }
    }

    /// Has those get ready that are taken next. Returns how many there are.
    pub(super) fn get_ready(&self, sandbox: &Sandbox) -> usize {
        self.use_kind(sandbox, |spares| {
            // The last one is taken first.
            spares.iter_mut().rev().take(self.enough).for_each(TaskProcess::get_ready);
            spares.len()
        })
    }

    /// Adds a new one, unless another caller was faster.
    pub(super) fn add(&self, process: TaskProcess, sandbox: &Sandbox) {
        self.use_kind(sandbox, |spares| {
            if spares.len() < self.enough {
                spares.push(process);
            }
        });
    }

    /// Adds the process of a task that has ended, if it can have another. Returns whether there is a spare.
    pub(super) fn keep(&self, process: TaskProcess, sandbox: &Sandbox) -> bool {
        self.use_kind(sandbox, |spares| {
            if spares.len() < self.most {
                spares.extend(process.again());
            }
            !spares.is_empty()
        })
    }

    pub(super) fn has(&self, sandbox: &Sandbox) -> bool {
        self.use_kind(sandbox, |spares| !spares.is_empty())
    }

    pub(super) fn take(&self, sandbox: &Sandbox) -> Option<TaskProcess> {
        self.use_kind(sandbox, Vec::pop)
    }

    /// Ends those beyond enough that nobody has taken since the last call.
    pub(super) fn trim(&self) {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        for Kind { spares, unused, .. } in &mut *kinds {
            let beyond = spares.len().saturating_sub(self.enough);
            // The last one is taken first.
            spares.drain(..beyond.min(*unused));
            *unused = spares.len();
        }
    }

    /// Does something with the spares of a sandbox's kind. The kind that was used least lately makes room
    /// for a new one; its spares end.
    fn use_kind<T>(&self, sandbox: &Sandbox, then: impl FnOnce(&mut Vec<TaskProcess>) -> T) -> T {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kinds.iter().position(|kind| kind.preparation.is_of(sandbox));
        let mut kind = match known {
            Some(at) => kinds.remove(at),
            None => Kind { preparation: Preparation::of(sandbox), spares: Vec::new(), unused: 0 },
        };
        let done = then(&mut kind.spares);
        kind.unused = kind.unused.min(kind.spares.len());
        if kinds.len() >= KINDS {
            kinds.remove(0);
        }
        kinds.push(kind);
        done
    }
}
