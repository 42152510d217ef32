//! What happened when, in the harness's own words: for the report and for a violation's story.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use crate::overlap::Excuses;

/// Seconds since the epoch: comparable with the servers' and the tasks' clocks, which are this one.
pub(crate) fn now() -> f64 {
    seconds(Timestamp::now())
}

pub(crate) fn seconds(time: Timestamp) -> f64 {
    time.as_nanosecond() as f64 / 1e9
}

/// One thing that the harness did.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) at: f64,
    pub(crate) what: &'static str,
    /// The worker or server.
    pub(crate) whom: String,
}

/// Everything that the harness did. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Timeline(Arc<Mutex<Vec<Event>>>);

impl Timeline {
    pub(crate) fn add(&self, what: &'static str, whom: impl Into<String>) {
        let event = Event { at: now(), what, whom: whom.into() };
        self.lock().push(event);
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.lock().clone()
    }

    /// How often each thing happened.
    pub(crate) fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for event in self.lock().iter() {
            *counts.entry(event.what.to_owned()).or_default() += 1;
        }
        counts
    }

    /// What may have opened a window.
    pub(crate) fn excuses(&self, lease: Duration) -> Excuses {
        let servers =
            ["server killed", "leader killed", "server frozen", "server revived", "server thawed"];
        let events = self.lock();
        let lost = events.iter().filter(|event| servers.contains(&event.what));
        let servers = lost.map(|event| event.at).collect();
        drop(events);
        Excuses { freezes: self.freezes(), servers, lease: lease.as_secs_f64() }
    }

    /// From when to when each worker was frozen.
    fn freezes(&self) -> Vec<(String, f64, f64)> {
        let events = self.lock();
        let frozen = events.iter().enumerate().filter(|(_, event)| event.what == "worker frozen");
        frozen
            .map(|(index, event)| {
                let ends = |later: &&Event| {
                    later.whom == event.whom
                        && matches!(later.what, "worker thawed" | "worker killed")
                };
                let end = events[index..].iter().find(ends).map_or(f64::MAX, |end| end.at);
                (event.whom.clone(), event.at, end)
            })
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Event>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
