//! Task + runners → the first runner that can take it, or why none can.

use std::collections::BTreeMap;
use std::fmt;

use super::selector::Labels;
use crate::wire::{Kind, LaneRecord, RunnerPresence, Selector};

/// The label that each runner gets; its value is the runner's name.
pub const RUNNER_NAME_LABEL: &str = "runner-name";

/// The runners of a worker, in the order they are tried.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RouteTable {
    entries: Vec<RunnerEntry>,
}

/// What routing sees of a runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunnerEntry {
    /// Its name; unique in the table.
    pub name: String,
    /// The kind of task it runs.
    pub kind: Kind,
    /// All labels that selectors see.
    pub labels: Labels,
}

/// Two runners have the same name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a runner named {name:?} is already registered")]
pub struct DuplicateRunner {
    /// The name.
    pub name: String,
}

/// No runner can take a task.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// No runner is of the kind.
    #[error("no runner for {kind} tasks")]
    UnsupportedKind {
        /// The kind.
        kind: Kind,
    },
    /// Runners of the kind are there, but each lacks something.
    #[error("no runner matches{}", Reasons(.mismatches))]
    NoRunner {
        /// By runner of the kind, the conditions that fail.
        mismatches: BTreeMap<String, Vec<String>>,
    },
}

struct Reasons<'a>(&'a BTreeMap<String, Vec<String>>);

impl fmt::Display for Reasons<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (runner, failing)) in self.0.iter().enumerate() {
            let sign = if at == 0 { ": " } else { "; " };
            write!(f, "{sign}{runner} ({})", failing.join(", "))?;
        }
        Ok(())
    }
}

impl RouteTable {
    /// An empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a runner after those that are there, with the label [`RUNNER_NAME_LABEL`].
    ///
    /// # Errors
    /// The name is taken.
    pub fn register(
        &mut self,
        name: impl Into<String>,
        kind: Kind,
        mut labels: Labels,
    ) -> Result<(), DuplicateRunner> {
        let name = name.into();
        if self.entries.iter().any(|entry| entry.name == name) {
            return Err(DuplicateRunner { name });
        }
        labels.insert(RUNNER_NAME_LABEL.to_owned(), name.clone());
        self.entries.push(RunnerEntry { name, kind, labels });
        Ok(())
    }

    /// Builds the table of a worker from what it says about itself.
    ///
    /// # Errors
    /// Two runners have the same name.
    pub fn from_presence(runners: &[RunnerPresence]) -> Result<Self, DuplicateRunner> {
        let mut table = Self::new();
        for runner in runners {
            table.register(&runner.name, runner.kind, runner.labels.clone())?;
        }
        Ok(table)
    }

    /// Returns the runners in the order they are tried.
    pub fn entries(&self) -> &[RunnerEntry] {
        &self.entries
    }

    /// Picks the first runner of the kind whose labels match.
    ///
    /// # Errors
    /// [`RouteError`] says for each runner of the kind which conditions fail.
    pub fn pick(&self, kind: Kind, selector: &Selector) -> Result<&RunnerEntry, RouteError> {
        if let Some(entry) = self.first(kind, selector) {
            return Ok(entry);
        }
        let of_kind = || self.entries.iter().filter(|entry| entry.kind == kind);
        if of_kind().next().is_none() {
            return Err(RouteError::UnsupportedKind { kind });
        }
        let why = |entry: &RunnerEntry| (entry.name.clone(), selector.mismatches(&entry.labels));
        Err(RouteError::NoRunner { mismatches: of_kind().map(why).collect() })
    }

    /// Whether a runner can take the tasks of a lane.
    pub fn matches_lane(&self, lane: &LaneRecord) -> bool {
        self.first(lane.kind, &lane.selector).is_some()
    }

    fn first(&self, kind: Kind, selector: &Selector) -> Option<&RunnerEntry> {
        let fits = |entry: &&RunnerEntry| entry.kind == kind && selector.matches(&entry.labels);
        self.entries.iter().find(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Labels {
        let selector: Selector = text.parse().expect("labels written as a selector");
        selector.match_labels
    }

    fn table() -> RouteTable {
        let mut table = RouteTable::new();
        for (name, kind, pairs) in [
            ("plain", Kind::Subprocess, "os=linux"),
            ("gpu", Kind::Subprocess, "os=linux,gpu=h200"),
            ("image", Kind::Container, "os=linux"),
        ] {
            table.register(name, kind, labels(pairs)).expect("names differ");
        }
        table
    }

    fn pick(kind: Kind, selector: &str) -> Result<String, RouteError> {
        let selector = selector.parse().expect("a selector");
        table().pick(kind, &selector).map(|entry| entry.name.clone())
    }

    #[test]
    fn the_first_runner_of_the_kind_that_matches_is_picked() {
        for (kind, selector, name) in [
            (Kind::Subprocess, "", "plain"),
            (Kind::Subprocess, "gpu", "gpu"),
            (Kind::Subprocess, "runner-name=gpu", "gpu"),
            (Kind::Container, "", "image"),
        ] {
            assert_eq!(pick(kind, selector).as_deref(), Ok(name), "{kind} {selector}");
        }
    }

    #[test]
    fn without_a_match_each_runner_of_the_kind_has_its_reason() {
        let error = pick(Kind::Subprocess, "gpu=a100,os=linux").expect_err("nobody has an a100");
        let text = "no runner matches: gpu (gpu=a100: the label is h200); \
                    plain (gpu=a100: there is no such label)";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn a_kind_without_a_runner_is_unsupported() {
        let error = pick(Kind::Wasm, "").expect_err("there is no wasm runner");
        assert_eq!(error, RouteError::UnsupportedKind { kind: Kind::Wasm });
    }

    #[test]
    fn a_name_is_registered_once() {
        let twice = table().register("gpu", Kind::Wasm, Labels::new());
        assert_eq!(twice, Err(DuplicateRunner { name: "gpu".to_owned() }));
    }

    #[test]
    fn a_lane_matches_as_its_tasks_do() {
        let lane = |kind, text: &str| LaneRecord::new(kind, &text.parse().expect("a selector"));
        assert!(table().matches_lane(&lane(Kind::Subprocess, "gpu")));
        assert!(!table().matches_lane(&lane(Kind::Container, "gpu")));
        assert!(!RouteTable::new().matches_lane(&lane(Kind::Subprocess, "")));
    }
}
