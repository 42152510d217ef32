//! Looks into /proc: which processes of tasks live, and since when. Processes are known by the mark in
//! their environment, so that nothing a task starts can hide by leaving its group or its parent.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::tasks::MARK;
use crate::timeline::now;

/// Time between two looks: the precision of the end of what is killed.
pub(crate) const INTERVAL: Duration = Duration::from_millis(40);

/// Whose process it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Owner {
    pub(crate) task: String,
    pub(crate) attempt: u32,
    pub(crate) worker: String,
}

/// When processes of an attempt were seen.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) first: f64,
    pub(crate) last: f64,
}

/// What was seen so far. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sightings(Arc<Mutex<BTreeMap<Owner, Seen>>>);

impl Sightings {
    pub(crate) fn all(&self) -> BTreeMap<Owner, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, owner: &Owner, at: f64) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match seen.get_mut(owner) {
            Some(seen) => seen.last = at,
            None => drop(seen.insert(owner.clone(), Seen { first: at, last: at })),
        }
    }
}

/// Looks until dropped.
pub(crate) async fn run(mark: String, sightings: Sightings) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // By id and start time: an id may come again, and a process may execute another program.
    let mut known: HashMap<(i32, String), Option<Owner>> = HashMap::new();
    loop {
        ticks.tick().await;
        let at = now();
        let mut still = HashMap::new();
        for pid in pids() {
            let Some(stat) = Stat::of(pid).filter(Stat::lives) else { continue };
            let key = (pid, stat.start);
            let owner = known.remove(&key).unwrap_or_else(|| owner(pid, &mark));
            if let Some(owner) = &owner {
                sightings.add(owner, at);
            }
            // A task's process has its mark from execve on: who may execute a task is looked at again.
            if owner.is_some() || !stat.is_ours {
                still.insert(key, owner);
            }
        }
        known = still;
    }
}

/// Every living process with the mark.
pub(crate) fn survivors(mark: &str) -> Vec<(i32, Owner)> {
    let living = pids().into_iter().filter(|pid| Stat::of(*pid).is_some_and(|stat| stat.lives()));
    living.filter_map(|pid| Some((pid, owner(pid, mark)?))).collect()
}

/// The spawners of a worker process.
pub(crate) fn spawners(worker: i32) -> Vec<i32> {
    children(worker, "runlane-spawner")
}

/// The task-inits of a worker process whose spawner lives.
pub(crate) fn task_inits(worker: i32) -> Vec<i32> {
    spawners(worker).into_iter().flat_map(|spawner| children(spawner, "runlane-init")).collect()
}

fn children(parent: i32, name: &str) -> Vec<i32> {
    let is_child = |pid: &i32| {
        Stat::of(*pid)
            .is_some_and(|stat| stat.parent == parent && stat.name == name && stat.lives())
    };
    pids().into_iter().filter(is_child).collect()
}

fn owner(pid: i32, mark: &str) -> Option<Owner> {
    let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let value = |name: &str| {
        environ.split(|byte| *byte == 0).find_map(|entry| {
            let (key, value) = std::str::from_utf8(entry).ok()?.split_once('=')?;
            (key == name).then(|| value.to_owned())
        })
    };
    if value(MARK)? != mark {
        return None;
    }
    Some(Owner {
        task: value("RUNLANE_TASK_ID")?,
        attempt: value("RUNLANE_ATTEMPT")?.parse().ok()?,
        worker: value("RUNLANE_WORKER")?,
    })
}

fn pids() -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("/proc is mounted");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

struct Stat {
    name: String,
    state: String,
    parent: i32,
    start: String,
    /// A task-init, or a child of one that did not execute its program yet.
    is_ours: bool,
}

impl Stat {
    fn of(pid: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (head, rest) = stat.rsplit_once(')')?;
        let name = head.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let is_ours = name.starts_with("runlane");
        Some(Self {
            name,
            state: (*fields.first()?).to_owned(),
            parent: fields.get(1)?.parse().ok()?,
            start: (*fields.get(19)?).to_owned(),
            is_ours,
        })
    }

    fn lives(&self) -> bool {
        self.state != "Z" && self.state != "X"
    }
}
