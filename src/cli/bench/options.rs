//! How much is measured: flags, and smaller numbers for `--quick`.

use std::time::Duration;

use super::super::exit::{Failure, USAGE};
use super::{BenchArgs, Scenario, selector};
use crate::bench::{
    CancelBenchOptions, Growing, GrowthOptions, IdleOptions, LatencyOptions, LimitsOptions,
    OutputOptions, Reach, SubmitBenchOptions, ThroughputOptions,
};
use crate::wire::Selector;

/// How much is measured.
pub(super) struct Sizes {
    pub(super) rounds: usize,
    quick: bool,
    selector: Option<Selector>,
    flags: Flags,
}

/// What flags of the scenario say.
#[derive(Default)]
struct Flags {
    tasks: Option<usize>,
    concurrency: Vec<usize>,
    megabytes: Option<u64>,
    count: Option<usize>,
    lanes: Option<usize>,
}

impl Sizes {
    /// Reads the flags.
    pub(super) fn of(args: &BenchArgs) -> Result<Self, Failure> {
        let flags = args.scenario.as_ref().map(Flags::of).unwrap_or_default();
        flags.check()?;
        let common = &args.common;
        Ok(Self {
            rounds: common.rounds.into(),
            quick: common.quick,
            selector: selector(common.runner.as_deref(), common.against)?,
            flags,
        })
    }

    fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    fn tasks(&self, full: usize, quick: usize) -> usize {
        self.flags.tasks.unwrap_or(self.pick(full, quick))
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
        let places = &self.flags.concurrency;
        ThroughputOptions {
            rounds: self.rounds,
            concurrency: if places.is_empty() { vec![2, 8] } else { places.clone() },
            tasks: self.tasks(3000, 300),
            spawn_time: self.spawn_time(),
            selector: self.selector.clone(),
        }
    }

    pub(super) fn latency(&self) -> LatencyOptions {
        LatencyOptions {
            rounds: self.rounds,
            tasks: self.tasks(200, 20),
            selector: self.selector.clone(),
        }
    }

    pub(super) fn output(&self) -> OutputOptions {
        OutputOptions {
            rounds: self.rounds,
            bytes: self.flags.megabytes.unwrap_or(self.pick(200, 20)) * 1_000_000,
            selector: self.selector.clone(),
        }
    }

    pub(super) fn cancel(&self) -> CancelBenchOptions {
        CancelBenchOptions { rounds: self.rounds, tasks: self.tasks(50, 10) }
    }

    pub(super) fn submit(&self) -> SubmitBenchOptions {
        let count = self.flags.count.unwrap_or(self.pick(100_000, 10_000));
        SubmitBenchOptions { rounds: self.rounds, count }
    }

    pub(super) fn idle(&self) -> IdleOptions {
        IdleOptions {
            rounds: self.rounds,
            tasks: self.tasks(100, 20),
            lanes: self.flags.lanes.unwrap_or(100),
            settle: Duration::from_millis(self.pick(2000, 300)),
            time: Duration::from_secs(self.pick(10, 1)),
        }
    }

    pub(super) fn growth(&self, of: &[Growing], tiny: bool) -> GrowthOptions {
        let what = match of {
            [] => Growing::ALL.to_vec(),
            some => some.to_vec(),
        };
        let reach = if tiny { Reach::Tiny } else { self.pick(Reach::Full, Reach::Quick) };
        GrowthOptions { what, reach }
    }
}

impl Flags {
    fn of(scenario: &Scenario) -> Self {
        let none = Self::default();
        match scenario {
            Scenario::Limits { .. } | Scenario::Growth { .. } => none,
            Scenario::Throughput { tasks, concurrency, .. } => {
                Self { tasks: *tasks, concurrency: concurrency.clone(), ..none }
            }
            Scenario::Latency { tasks, .. } | Scenario::Cancel { tasks, .. } => {
                Self { tasks: *tasks, ..none }
            }
            Scenario::Output { megabytes, .. } => Self { megabytes: *megabytes, ..none },
            Scenario::Submit { count, .. } => Self { count: *count, ..none },
            Scenario::Idle { tasks, lanes, .. } => Self { tasks: *tasks, lanes: *lanes, ..none },
        }
    }

    fn check(&self) -> Result<(), Failure> {
        let counts = [
            ("tasks", self.tasks == Some(0)),
            ("concurrency", self.concurrency.contains(&0)),
            ("megabytes", self.megabytes == Some(0)),
            ("count", self.count == Some(0)),
            ("lanes", self.lanes == Some(0)),
        ];
        match counts.into_iter().find(|(_, is_zero)| *is_zero) {
            Some((flag, _)) => Err(Failure::new(USAGE, format!("--{flag} is 0; use at least 1"))),
            None => Ok(()),
        }
    }
}
