//! Capabilities: an upper bound over all five sets.
//!
//! What is kept is the list ∩ what the process has. task-init cuts the bounding set to it once; its leaders
//! cut the others, each after the identity switch. A program that root executes gets inheritable ∪ bounding,
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

/// Cuts the bounding set of this process, task-init, to what is kept, also by what is newer than any name
/// that we know. Each leader starts with it: thirty calls that it doesn't make.
///
/// What task-init itself executes as root, its aftermath, needs the rest again. So all that it has becomes
/// inheritable before: that comes through an execve by root whatever the bounding set. [`set`] takes it
/// from the leaders.
///
/// Returns what is kept, for [`set`].
///
/// # Errors
/// A name isn't a capability's. The set can't be cut, and `no_new_privs` won't make that harmless.
pub(in crate::exec::init) fn bound(
    keep: &BTreeSet<String>,
    no_new_privs: bool,
) -> Result<Kept, StepError> {
    let keep = named(keep)?;
    let read = |set| caps::read(None, set).map_err(failed);
    // What is beyond the bounding set already doesn't come through an execve, and can't be made to.
    let is_bounded =
        |own: &Capability| sys::capabilities::in_bounding_set(own.index().into()) == Some(true);
    let own = read(CapSet::Permitted)?.into_iter().filter(is_bounded);
    let inheritable = own.chain(read(CapSet::Inheritable)?).collect();
    caps::set(None, CapSet::Inheritable, &inheritable).map_err(failed)?;
    let Kept(kept) = keep.of_permitted()?;
    // The kernel's own list ends where it doesn't know a number.
    let known = (0..u64::BITS)
        .map_while(|number| Some((number, sys::capabilities::in_bounding_set(number)?)));
    for (number, _) in known.filter(|(number, is_in)| *is_in && kept & 1 << number == 0) {
        match sys::capabilities::drop_from_bounding_set(number) {
            Err(Errno::EPERM) if no_new_privs => break,
            Err(errno) => {
                let why = "the bounding set can't be cut without CAP_SETPCAP, nor left without \
                           no_new_privs";
                return Err(StepError::new(errno, why));
            }
            Ok(()) => {}
        }
    }
    Ok(keep)
}

/// Lets what is kept outlive the identity switch. The flag ends with execve.
pub(in crate::exec::init) fn keep_through_switch(keep: Kept) -> Result<(), StepError> {
    if keep != Kept(0) {
        prctl::set_keepcaps(true)?;
    }
    Ok(())
}

/// Cuts the permitted, effective, inheritable and ambient sets to what is kept. Where the bounding set
/// could not be cut, it is the permitted set that no_new_privs keeps execve from exceeding.
pub(in crate::exec::init) fn set(keep: Kept) -> Result<(), StepError> {
    let kept = keep.of_permitted()?;
    // Set by set, as the crate does it, it took each task six calls. The ambient set shrinks with them.
    sys::capabilities::set(kept.0)?;
    if !geteuid().is_root() {
        for capability in kept.each() {
            caps::raise(None, CapSet::Ambient, capability).map_err(failed)?;
        }
    }
    Ok(())
}

/// Capabilities that a task keeps at most, as the kernel has them: a bit for each number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::exec::init) struct Kept(u64);

impl Kept {
    /// Those of them that this process has.
    fn of_permitted(self) -> Result<Self, StepError> {
        let permitted = caps::read(None, CapSet::Permitted).map_err(failed)?;
        Ok(Self(self.0 & mask(&permitted)))
    }

    fn each(self) -> impl Iterator<Item = Capability> {
        caps::all().into_iter().filter(move |capability| self.0 & capability.bitmask() != 0)
    }
}

fn named(keep: &BTreeSet<String>) -> Result<Kept, StepError> {
    let known = |name: &String| {
        Capability::from_str(name)
            .map_err(|_| StepError::new(Errno::EINVAL, format!("{name} is no capability")))
    };
    Ok(Kept(mask(&keep.iter().map(known).collect::<Result<CapsHashSet, _>>()?)))
}

fn mask(set: &CapsHashSet) -> u64 {
    set.iter().map(Capability::bitmask).sum()
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
