//! The switch to another user.

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, getgroups, getresgid, getresuid, setgroups, setresgid, setresuid};

use super::StepError;
use crate::task::{Identity, UserIds};

/// Switches user, group and supplementary groups for good: real, effective, saved. The kernel drops
/// every capability, unless [`super::capabilities::keep_through_switch`] came before.
///
/// # Errors
/// The way back is open; or the identity is a pool, of which someone had to take one id before.
pub(in crate::exec::init) fn apply(identity: &Identity) -> Result<(), StepError> {
    let (uid, gid) = ids(identity)?;
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    // The groups first: the user's switch takes the right to.
    setgroups(&groups).map_err(|errno| about(errno, "groups", &groups))?;
    setresgid(gid, gid, gid).map_err(|errno| about(errno, "group", gid))?;
    setresuid(uid, uid, uid).map_err(|errno| about(errno, "user", uid))?;
    verify(uid, gid, groups)
}

/// The user and the group.
///
/// # Errors
/// The identity is a pool, of which someone had to take one id before.
pub(in crate::exec::init) fn ids(identity: &Identity) -> Result<(Uid, Gid), StepError> {
    let UserIds::One(number) = identity.user else {
        return Err(StepError::new(Errno::EINVAL, "no user of the pool was taken"));
    };
    Ok((Uid::from_raw(number), Gid::from_raw(identity.gid.unwrap_or(number))))
}

fn about(errno: Errno, what: &str, value: impl std::fmt::Debug) -> StepError {
    StepError::from(errno).about(format_args!("{what} {value:?}"))
}

/// A security module or a strange user namespace could make calls succeed without effect.
fn verify(uid: Uid, gid: Gid, mut groups: Vec<Gid>) -> Result<(), StepError> {
    let (users, group_ids) = (getresuid()?, getresgid()?);
    let switched = [users.real, users.effective, users.saved] == [uid; 3]
        && [group_ids.real, group_ids.effective, group_ids.saved] == [gid; 3];
    let mut found = getgroups()?;
    found.sort_unstable_by_key(|group| group.as_raw());
    groups.sort_unstable_by_key(|group| group.as_raw());
    if !switched || found != groups {
        return Err(StepError::new(Errno::EPERM, "the switch had no effect"));
    }
    // With kept capabilities too: the switch has emptied the effective set, they are raised later.
    let root = Uid::from_raw(0);
    if !uid.is_root() && setresuid(root, root, root).is_ok() {
        return Err(StepError::new(Errno::EPERM, "the way back to root is open"));
    }
    Ok(())
}
