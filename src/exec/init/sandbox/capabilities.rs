//! Capabilities: an upper bound over all five sets.
//!
//! What is kept is the list ∩ what the process has. The bounding set is cut to it while CAP_SETPCAP is
//! there; the others after the identity switch. A program that root executes gets inheritable ∪ bounding,
//! which is then what is kept; one that another user executes gets the ambient set, so that is raised.
//!
//! A plain user can't cut the bounding set. With no_new_privs that changes nothing: the set only limits
//! what an execve may *add*, and then none adds anything (`capabilities(7)`, `no_new_privs`). Without,
//! a set-user-id program would get all of it, so the step fails.

use std::collections::BTreeSet;
use std::str::FromStr;

use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::unistd::geteuid;

use super::super::sys;
use super::StepError;

/// What a process of task-init's takes out of its bounding set. Looked up once, by task-init: each leader
/// starts with the same set.
pub(in crate::exec::init) struct Surplus(Vec<u32>);

impl Surplus {
    /// What isn't kept; also what is newer than any name that we know.
    ///
    /// # Errors
    /// A name isn't a capability's.
    pub(in crate::exec::init) fn beside(keep: &BTreeSet<String>) -> Result<Self, StepError> {
        let kept: u64 = kept(keep)?.iter().map(Capability::bitmask).sum();
        // The kernel's own list ends where it doesn't know a number.
        let known =
            (0..u64::BITS).map_while(|number| Some((number, sys::in_bounding_set(number)?)));
        let surplus = known.filter(|(number, is_in)| *is_in && kept & 1 << number == 0);
        Ok(Self(surplus.map(|(number, _)| number).collect()))
    }

    /// Drops it from this process's bounding set.
    ///
    /// # Errors
    /// It can't be dropped, and `no_new_privs` won't make that harmless.
    pub(in crate::exec::init) fn drop_here(&self, no_new_privs: bool) -> Result<(), StepError> {
        for number in &self.0 {
            match sys::drop_from_bounding_set(*number) {
                Err(Errno::EPERM) if no_new_privs => return Ok(()),
                Err(errno) => {
                    let why = "the bounding set can't be cut without CAP_SETPCAP, nor left without \
                               no_new_privs";
                    return Err(StepError::new(errno, why));
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }
}

/// Lets what is kept outlive the identity switch. The flag ends with execve.
pub(in crate::exec::init) fn keep_through_switch(keep: &BTreeSet<String>) -> Result<(), StepError> {
    if !keep.is_empty() {
        prctl::set_keepcaps(true)?;
    }
    Ok(())
}

/// Cuts the permitted, effective, inheritable and ambient sets to what is kept. Where the bounding set
/// could not be cut, it is the permitted set that no_new_privs keeps execve from exceeding.
pub(in crate::exec::init) fn set(keep: &BTreeSet<String>) -> Result<(), StepError> {
    let kept = kept(keep)?;
    // In this order each is within what the kernel allows for the next; the ambient set shrinks with them.
    for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
        caps::set(None, set, &kept).map_err(failed)?;
    }
    if !geteuid().is_root() {
        for capability in &kept {
            caps::raise(None, CapSet::Ambient, *capability).map_err(failed)?;
        }
    }
    Ok(())
}

/// Does what [`set`] does, without a change.
pub(in crate::exec::init) fn rehearse() {
    kept(&BTreeSet::new()).ok();
}

fn kept(keep: &BTreeSet<String>) -> Result<CapsHashSet, StepError> {
    let known = |name: &String| {
        Capability::from_str(name)
            .map_err(|_| StepError::new(Errno::EINVAL, format!("{name} is no capability")))
    };
    let keep = keep.iter().map(known).collect::<Result<CapsHashSet, _>>()?;
    let had = caps::read(None, CapSet::Permitted).map_err(failed)?;
    Ok(keep.intersection(&had).copied().collect())
}

/// The crate keeps the system's error as text only; the number is still the thread's last.
#[expect(clippy::needless_pass_by_value, reason = "a function for map_err")]
fn failed(error: CapsError) -> StepError {
    StepError::new(Errno::last(), error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::CAPABILITIES;

    #[test]
    fn the_names_that_a_configuration_may_have_are_those_that_can_be_kept() {
        let known: BTreeSet<String> = caps::all().iter().map(ToString::to_string).collect();
        assert_eq!(known, CAPABILITIES.map(str::to_owned).into());
    }
}
