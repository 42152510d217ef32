//! How much is measured: flags, and smaller numbers for `--quick`.

use std::time::Duration;

use super::super::exit::{Failure, USAGE};
use super::{BenchArgs, Scenario, selector};
use crate::bench::{LatencyOptions, LimitsOptions, ThroughputOptions};
use crate::wire::Selector;

/// How much is measured.
pub(super) struct Sizes {
    pub(super) rounds: usize,
    quick: bool,
    selector: Option<Selector>,
    tasks: Option<usize>,
    concurrency: Vec<usize>,
}

impl Sizes {
    /// Reads the flags.
    pub(super) fn of(args: &BenchArgs) -> Result<Self, Failure> {
        let (mut tasks, mut places) = (None, Vec::new());
        match &args.scenario {
            Some(Scenario::Throughput { tasks: n, concurrency, .. }) => {
                (tasks, places) = (*n, concurrency.clone());
            }
            Some(Scenario::Latency { tasks: n, .. }) => tasks = *n,
            Some(Scenario::Limits { .. }) | None => {}
        }
        for (flag, value) in
            tasks.iter().map(|n| ("tasks", n)).chain(places.iter().map(|n| ("concurrency", n)))
        {
            if *value == 0 {
                return Err(Failure::new(USAGE, format!("--{flag} is 0; use at least 1")));
            }
        }
        if places.is_empty() {
            places = vec![2, 8];
        }
        let common = &args.common;
        Ok(Self {
            rounds: common.rounds.into(),
            quick: common.quick,
            selector: selector(common.runner.as_deref(), common.against)?,
            tasks,
            concurrency: places,
        })
    }

    fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    fn spawn_time(&self) -> Duration {
        Duration::from_millis(self.pick(1000, 200))
    }

    pub(super) fn limits(&self) -> LimitsOptions {
        LimitsOptions {
            rounds: self.rounds,
            spawn_time: self.spawn_time() * 2,
            samples: self.pick(200, 40),
            pipe_bytes: self.pick(1_000_000_000, 100_000_000),
        }
    }

    pub(super) fn throughput(&self) -> ThroughputOptions {
        ThroughputOptions {
            rounds: self.rounds,
            concurrency: self.concurrency.clone(),
            tasks: self.tasks.unwrap_or(self.pick(3000, 300)),
            spawn_time: self.spawn_time(),
            selector: self.selector.clone(),
        }
    }

    pub(super) fn latency(&self) -> LatencyOptions {
        LatencyOptions {
            rounds: self.rounds,
            tasks: self.tasks.unwrap_or(self.pick(200, 20)),
            selector: self.selector.clone(),
        }
    }
}
