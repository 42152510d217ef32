//! Runners and the router: who may run a task, and how it becomes a process.
//!
//! A [`Runner`] is the public extension point: it turns a task of its kind into a launch plan. The
//! process itself is always started and ended by [`crate::exec`], so whatever a runner plans, nothing
//! of it survives its task.

use std::collections::BTreeMap;

use crate::task::{self, DuplicateRunner, RouteError, RouteTable};
use crate::task::{LaunchPlan, Sandbox, Task};
use crate::task::{PlanError, RunIdentity, RunnerPolicy};
use crate::wire::{Kind, LaneRecord, Preset, RunnerPresence, Selector};

/// Turns tasks of one kind into launch plans.
pub trait Runner: Send + Sync {
    /// Returns its name, unique within the worker; tasks can ask for it by the label `runner-name`.
    fn name(&self) -> &str;

    /// Returns the kind of task it runs.
    fn kind(&self) -> Kind;

    /// Returns its own labels; the worker's labels and `runner-name` are added.
    fn labels(&self) -> &BTreeMap<String, String>;

    /// Decides how to run a task. Errors are permanent: the task is rejected.
    fn plan(&self, task: &Task, run: &RunIdentity) -> Result<LaunchPlan, PlanError>;

    /// Returns the preset of its isolation, for the presence record.
    fn isolation(&self) -> Preset {
        Preset::None
    }

    /// Returns the sandbox that most of its tasks get, so that processes for the first ones can wait.
    /// None: nothing is prepared.
    fn sandbox(&self) -> Option<&Sandbox> {
        None
    }

    /// Says whether, and how, lines of output go to the worker's log as well.
    fn line_log(&self) -> Option<LineLog> {
        None
    }
}

/// How lines of output go to the worker's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineLog {
    /// Bytes of a line that are logged; the rest of the line is left out and counted.
    pub max_line_bytes: usize,
}

/// Runs subprocess tasks under a policy.
#[derive(Debug, Clone)]
pub struct SubprocessRunner {
    name: String,
    labels: BTreeMap<String, String>,
    policy: RunnerPolicy,
    line_log: Option<LineLog>,
}

impl SubprocessRunner {
    /// Makes a runner.
    pub fn new(
        name: String,
        labels: BTreeMap<String, String>,
        policy: RunnerPolicy,
        line_log: Option<LineLog>,
    ) -> Self {
        Self { name, labels, policy, line_log }
    }
}

impl Runner for SubprocessRunner {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> Kind {
        Kind::Subprocess
    }

    fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    fn plan(&self, task: &Task, run: &RunIdentity) -> Result<LaunchPlan, PlanError> {
        task::plan(task, &self.policy, run)
    }

    fn isolation(&self) -> Preset {
        self.policy.isolation.preset()
    }

    fn sandbox(&self) -> Option<&Sandbox> {
        Some(&self.policy.isolation.resolved().sandbox)
    }

    fn line_log(&self) -> Option<LineLog> {
        self.line_log
    }
}

/// The runners of a worker, in the order they are tried.
pub struct Router {
    table: RouteTable,
    runners: Vec<Box<dyn Runner>>,
}

impl Router {
    /// Registers runners in order; each has the worker's labels, its own, and `runner-name`.
    ///
    /// # Errors
    /// Two runners have the same name.
    pub fn new(
        worker_labels: &BTreeMap<String, String>,
        runners: Vec<Box<dyn Runner>>,
    ) -> Result<Self, DuplicateRunner> {
        let mut table = RouteTable::new();
        for runner in &runners {
            let mut labels = worker_labels.clone();
            labels.extend(runner.labels().clone());
            table.register(runner.name(), runner.kind(), labels)?;
        }
        Ok(Self { table, runners })
    }

    /// Picks the first runner of the kind whose labels match.
    ///
    /// # Errors
    /// No runner is of the kind, or each of them lacks a label; the error says which.
    pub fn pick(&self, kind: Kind, selector: &Selector) -> Result<&dyn Runner, RouteError> {
        let entry = self.table.pick(kind, selector)?;
        Ok(self.runner(&entry.name).expect("the table has only registered runners"))
    }

    /// Returns a runner by its name.
    pub fn runner(&self, name: &str) -> Option<&dyn Runner> {
        self.runners.iter().map(AsRef::as_ref).find(|runner| runner.name() == name)
    }

    /// Returns the runners in the order they are tried.
    pub fn runners(&self) -> impl Iterator<Item = &dyn Runner> {
        self.runners.iter().map(AsRef::as_ref)
    }

    /// Says whether a runner can take the tasks of a lane.
    pub fn serves(&self, lane: &LaneRecord) -> bool {
        self.table.matches_lane(lane)
    }

    /// Describes the runners for the worker's presence record.
    pub fn presence(&self) -> Vec<RunnerPresence> {
        let entries = self.table.entries().iter();
        entries
            .map(|entry| RunnerPresence {
                name: entry.name.clone(),
                kind: entry.kind,
                labels: entry.labels.clone(),
                isolation: self.runner(&entry.name).map_or(Preset::None, Runner::isolation),
            })
            .collect()
    }
}
