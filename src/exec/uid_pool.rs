//! User ids that no two running tasks share.
//!
//! An id whose last task was seen to end is free at once. Of others nobody knows: it may be of an earlier
//! worker's task that is still dying, or of one whose end this worker didn't wait for. Such an id is given
//! out only if no process on the host has it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::task::UserIds;

/// The ids of each pool that are free, those first that have been free for longest.
#[derive(Debug, Default, Clone)]
pub(super) struct UidPools(Arc<Mutex<BTreeMap<(u32, u32), Free>>>);

#[derive(Debug, Default)]
struct Free {
    known: VecDeque<u32>,
    unknown: VecDeque<u32>,
}

/// An id that is in use until this is dropped.
#[derive(Debug)]
pub(super) struct UidLease {
    pools: UidPools,
    pool: (u32, u32),
    uid: u32,
    /// Nothing of its task is alive.
    ended: bool,
}

impl UidPools {
    /// Takes an id. None: all are in use.
    pub(super) fn take(&self, ids: UserIds) -> Option<UidLease> {
        let UserIds::Pool { first, count } = ids else { return None };
        let pool = (first, count);
        let mut pools = self.lock();
        let free = pools.entry(pool).or_insert_with(|| Free {
            known: VecDeque::new(),
            unknown: (first..first.saturating_add(count)).collect(),
        });
        let uid = free.known.pop_front().or_else(|| free.take_unknown())?;
        drop(pools);
        Some(UidLease { pools: self.clone(), pool, uid, ended: false })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(u32, u32), Free>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Free {
    /// Takes the first id that no process has.
    fn take_unknown(&mut self) -> Option<u32> {
        let used = used();
        let at = self.unknown.iter().position(|uid| !used.contains(uid))?;
        self.unknown.remove(at)
    }
}

/// The users of the processes on this host; a zombie's files are root's or its own, and it harms nobody.
fn used() -> BTreeSet<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let processes = entries.filter(|entry| {
        entry.file_name().to_str().is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit()))
    });
    processes.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.uid()).collect()
}

impl UidLease {
    pub(super) fn uid(&self) -> u32 {
        self.uid
    }

    /// Says that nothing of the task is alive, so that the next one may have its id at once.
    pub(super) fn task_is_gone(&mut self) {
        self.ended = true;
    }
}

impl Drop for UidLease {
    fn drop(&mut self) {
        if let Some(free) = self.pools.lock().get_mut(&self.pool) {
            if self.ended {
                free.known.push_back(self.uid);
            } else {
                free.unknown.push_back(self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_tasks_until_that_task_is_gone() {
        let pools = UidPools::default();
        // Nobody's, one hopes.
        let first = 3_123_456_000;
        let take = || pools.take(UserIds::Pool { first, count: 2 });
        let (mut one, other) = (take().expect("two are free"), take().expect("one is free"));
        assert_eq!((one.uid(), other.uid()), (first, first + 1));
        assert!(take().is_none());
        one.task_is_gone();
        drop(one);
        // Nobody has seen the end of its task, but no process has the id.
        drop(other);
        let ids = [take(), take()].map(|lease| lease.map(|lease| lease.uid()));
        assert_eq!(ids, [Some(first), Some(first + 1)]);
    }

    #[test]
    fn an_id_that_a_process_has_is_not_given_out() {
        let own = nix::unistd::geteuid().as_raw();
        let taken = UidPools::default().take(UserIds::Pool { first: own, count: 1 });
        assert!(taken.is_none());
    }
}
