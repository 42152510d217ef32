//! User ids that no two running tasks share.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::task::UserIds;

/// How long an id rests whose task's end was not seen: longer than its kill may take.
const REST: Duration = Duration::from_secs(60);

/// The ids of each pool that are free, those first that have been free for longest.
#[derive(Debug, Default, Clone)]
pub(super) struct UidPools(Arc<Mutex<BTreeMap<(u32, u32), Free>>>);

#[derive(Debug, Default)]
struct Free {
    now: VecDeque<u32>,
    later: VecDeque<(Instant, u32)>,
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
            now: (first..first.saturating_add(count)).collect(),
            later: VecDeque::new(),
        });
        while free.later.front().is_some_and(|(at, _)| *at <= Instant::now()) {
            free.now.extend(free.later.pop_front().map(|(_, uid)| uid));
        }
        let uid = free.now.pop_front()?;
        drop(pools);
        Some(UidLease { pools: self.clone(), pool, uid, ended: false })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(u32, u32), Free>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
                free.now.push_back(self.uid);
            } else {
                free.later.push_back((Instant::now() + REST, self.uid));
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
        let ids = UserIds::Pool { first: 100, count: 2 };
        let take = || pools.take(ids);
        let (mut first, second) = (take().expect("two are free"), take().expect("one is free"));
        assert_eq!((first.uid(), second.uid()), (100, 101));
        assert!(take().is_none());
        first.task_is_gone();
        drop(first);
        // Its task may be dying still.
        drop(second);
        let mut again = take().expect("the first one's");
        assert_eq!(again.uid(), 100);
        assert!(take().is_none());
        again.task_is_gone();
        drop(again);
        assert_eq!(take().map(|lease| lease.uid()), Some(100));
    }
}
