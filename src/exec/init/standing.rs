//! What stays the same for all leaders of a task-init, found out or installed once.
//!
//! | what | why once |
//! |---|---|
//! | the system call filter | the kernel compiles it each time, and stops every CPU for that |
//! | the bounding set, and the names of what is kept | thirty calls, 0.04 ms |
//! | a Landlock domain without paths | the same eight system calls each time |
//! | the own OOM score | a file to read |

use std::cell::Cell;

use nix::sys::prctl;

use super::super::link::{Preparation, SetupFailure};
use super::child;
use super::enclosure::refused;
use super::sandbox::capabilities::Kept;
use super::sandbox::landlock::{self, Domain};
use super::sandbox::{StepError, capabilities, priority, seccomp};
use crate::task::Namespaces;

/// What each leader finds.
pub(super) struct Standing {
    /// The leaders' filter is on this process already.
    pub(super) is_filtered: bool,
    /// The capabilities that each leader keeps at most.
    pub(super) kept: Option<Kept>,
    /// The domain, if it doesn't depend on the moment; each leader enters another of it.
    pub(super) domain: Option<Domain>,
    /// This process's OOM score, if it isn't the tasks'. A leader that sets its own sets it for all that
    /// share its memory (proc(5) doesn't say so; fs/proc/base.c does).
    own_oom_score: Option<i32>,
    /// A leader has set it, and the next one inherits it.
    has_tasks_oom_score: Cell<bool>,
}

impl Standing {
    /// Prepares this process for leaders of one kind.
    pub(super) fn of(preparation: &Preparation) -> Result<Self, SetupFailure> {
        // In this order: the filter may deny what the others do.
        let keep = preparation.capabilities.as_ref();
        let kept = keep.map(|keep| capabilities::bound(keep, preparation.no_new_privs)).transpose();
        let kept = kept.map_err(|error| child::failed("bounding", &error))?;
        // In a mount namespace of its own each leader has another root.
        let own_root = preparation.enclosure.namespaces.mount;
        let lasting = preparation.landlock.as_ref();
        let lasting = lasting.filter(|wanted| !own_root && landlock::is_lasting(wanted));
        let domain = lasting.map(|wanted| Domain::make(wanted, None)).transpose();
        let domain = domain.map_err(|error| child::failed("landlock", &error))?;
        let own_oom_score = own_oom_score().filter(|own| *own != preparation.oom_score_adj);
        let is_filtered = filter(preparation)?;
        let has_tasks_oom_score = Cell::new(false);
        Ok(Self { is_filtered, kept, domain, own_oom_score, has_tasks_oom_score })
    }

    /// Gives the leader, which calls this, the tasks' OOM score; and this process too.
    pub(super) fn take_oom_score(&self, tasks: i32) -> Result<(), StepError> {
        if !self.has_tasks_oom_score.get() {
            priority::oom_score_adj(tasks)?;
            self.has_tasks_oom_score.set(true);
        }
        Ok(())
    }

    /// Whether this process has a score that isn't its own.
    pub(super) fn has_foreign_oom_score(&self) -> bool {
        self.own_oom_score.is_some() && self.has_tasks_oom_score.get()
    }

    /// Takes back what a leader has set for this process too.
    pub(super) fn restore_oom_score(&self) {
        if let Some(own) = self.own_oom_score {
            // Where that isn't allowed, this process is taken as soon as its task is.
            priority::oom_score_adj(own).ok();
            self.has_tasks_oom_score.set(false);
        }
    }
}

fn own_oom_score() -> Option<i32> {
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").ok()?;
    own.trim_end().parse().ok()
}

/// Installs the filter that each leader is to have, for all of them at once. Not if the leaders need what
/// it denies, to make namespaces. Returns whether it is installed.
fn filter(preparation: &Preparation) -> Result<bool, SetupFailure> {
    let namespaces = preparation.enclosure.namespaces;
    let Some(profile) = preparation.seccomp else { return Ok(false) };
    if namespaces != Namespaces::default() {
        return Ok(false);
    }
    if preparation.no_new_privs {
        prctl::set_no_new_privs().map_err(|errno| refused("no_new_privs", &errno.into()))?;
    }
    seccomp::apply(profile).map_err(|error| refused("seccomp", &error))?;
    Ok(true)
}
