//! Who tasks run as, and with which capabilities.

use std::collections::BTreeSet;
use std::str::FromStr;

use caps::Capability;
use nix::unistd::{Group, User};

use super::raw::{RawId, RawSandbox};
use crate::config::raw::RawInherit;
use crate::config::report::Report;
use crate::task::{Identity, UserIds};

/// Means "leave it as it is" to setresuid(2): no id.
const NO_ID: u32 = u32::MAX;

/// Reads who tasks run as. `capacity` is how many run at once.
pub(super) fn identity(
    raw: &RawSandbox,
    capacity: usize,
    path: &str,
    report: &mut Report,
) -> Option<Identity> {
    let at = |name: &str| format!("{path}.{name}");
    let group = raw.group.as_ref().and_then(|group| gid(group, &at("group"), report));
    let groups = raw.groups.iter().flatten().enumerate();
    let groups: Vec<_> =
        groups.filter_map(|(n, raw)| gid(raw, &format!("{path}.groups[{n}]"), report)).collect();
    let (user, primary) = match (&raw.user, &raw.uid_pool) {
        (None, None) => {
            let given = [("group", raw.group.is_some()), ("groups", raw.groups.is_some())];
            for (name, _) in given.into_iter().filter(|(_, given)| *given) {
                report.add(at(name), "goes with `user` or `uid_pool`; set one of them");
            }
            return None;
        }
        (Some(_), Some(_)) => {
            report.add(at("uid_pool"), "stands beside `user`; keep one of them");
            return None;
        }
        (Some(user), None) => uid(user, &at("user"), report)?,
        (None, Some(range)) => match pool(range, capacity) {
            Ok(pool) => (pool, None),
            Err(why) => {
                report.add(at("uid_pool"), why);
                return None;
            }
        },
    };
    Some(Identity { user, gid: group.or(primary), groups })
}

/// A user and, if it has a name, its primary group.
fn uid(raw: &RawId, path: &str, report: &mut Report) -> Option<(UserIds, Option<u32>)> {
    let name = match raw {
        RawId::Number(NO_ID) => return reserved(path, report),
        RawId::Number(id) => return Some((UserIds::One(*id), None)),
        RawId::Name(name) => name,
    };
    match User::from_name(name) {
        Ok(Some(user)) => Some((UserIds::One(user.uid.as_raw()), Some(user.gid.as_raw()))),
        Ok(None) => {
            let remedy = "make it, or use a number";
            report.add(path, format!("{name:?} is no user of this host; {remedy}"));
            None
        }
        Err(error) => {
            report.add(path, format!("{name:?} can't be looked up: {error}; use a number"));
            None
        }
    }
}

fn gid(raw: &RawId, path: &str, report: &mut Report) -> Option<u32> {
    let name = match raw {
        RawId::Number(NO_ID) => return reserved(path, report),
        RawId::Number(id) => return Some(*id),
        RawId::Name(name) => name,
    };
    match Group::from_name(name) {
        Ok(Some(group)) => Some(group.gid.as_raw()),
        Ok(None) => {
            let remedy = "make it, or use a number";
            report.add(path, format!("{name:?} is no group of this host; {remedy}"));
            None
        }
        Err(error) => {
            report.add(path, format!("{name:?} can't be looked up: {error}; use a number"));
            None
        }
    }
}

fn reserved<T>(path: &str, report: &mut Report) -> Option<T> {
    report.add(
        path,
        format!("{NO_ID} is no id, the kernel takes it for \"no change\"; use another number"),
    );
    None
}

fn pool(range: &str, capacity: usize) -> Result<UserIds, String> {
    let form = || format!("{range:?} is no range; write it like \"20000-20099\"");
    let (first, last) = range.split_once('-').ok_or_else(form)?;
    let number = |text: &str| text.trim().parse::<u32>().map_err(|_| form());
    let (first, last) = (number(first)?, number(last)?);
    if first == 0 {
        return Err("begins with 0, which is root; begin with another number".to_owned());
    }
    if last < first || last == NO_ID {
        return Err(form());
    }
    let count = last - first + 1;
    if (count as usize) < capacity {
        let remedy = "make it larger, or worker.capacity smaller";
        return Err(format!("has {count} users for {capacity} tasks that run at once; {remedy}"));
    }
    Ok(UserIds::Pool { first, count })
}

/// Reads the capabilities that tasks keep at most; `None` is all of the worker's.
pub(super) fn capabilities(
    raw: RawInherit,
    path: &str,
    report: &mut Report,
) -> Option<BTreeSet<String>> {
    let names = match raw {
        RawInherit::Word(word) if word == "all" => return None,
        RawInherit::Word(word) if word == "none" => Vec::new(),
        RawInherit::Word(word) => {
            report.add(
                path,
                format!("{word:?} is unknown; use \"none\", \"all\" or a list of names"),
            );
            Vec::new()
        }
        RawInherit::List(names) => names,
    };
    let mut kept = BTreeSet::new();
    for (index, name) in names.iter().enumerate() {
        match capability(name) {
            Some(capability) => drop(kept.insert(capability.to_string())),
            None => {
                let remedy = "use one of capabilities(7), such as CAP_NET_BIND_SERVICE";
                let message = format!("{name:?} is no capability; {remedy}");
                report.add(format!("{path}[{index}]"), message);
            }
        }
    }
    Some(kept)
}

/// Reads a name in any case, with or without `CAP_`.
fn capability(name: &str) -> Option<Capability> {
    let upper = name.to_ascii_uppercase();
    let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
    Capability::from_str(&full).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_has_a_user_for_each_running_task_and_never_root() {
        for (range, capacity, wanted) in [
            ("20000-20099", 100, Some((20_000, 100))),
            ("5-5", 1, Some((5, 1))),
            ("20000-20099", 101, None),
            ("0-99", 4, None),
            ("20099-20000", 1, None),
            ("4294967290-4294967295", 1, None),
            ("20000", 1, None),
            ("a-b", 1, None),
            ("", 1, None),
        ] {
            let found = pool(range, capacity).ok();
            let wanted = wanted.map(|(first, count)| UserIds::Pool { first, count });
            assert_eq!(found, wanted, "{range} {capacity}");
        }
    }

    #[test]
    fn a_capability_is_known_in_any_case_and_without_its_prefix() {
        for name in ["CAP_NET_BIND_SERVICE", "cap_net_bind_service", "net_bind_service"] {
            assert_eq!(capability(name), Some(Capability::CAP_NET_BIND_SERVICE), "{name}");
        }
        for name in ["", "CAP_", "CAP_FLY", "NET BIND"] {
            assert_eq!(capability(name), None, "{name}");
        }
    }
}
