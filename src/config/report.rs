//! Collects every problem of a configuration while it is resolved.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::raw::RawSize;
use crate::task::{Human, Labels, env_name_problem, is_name, parse_duration, parse_size};
use crate::wire::Problem;

/// The problems found so far.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<Problem>);

impl Report {
    pub(super) fn add(&mut self, path: impl Into<String>, message: impl Display) {
        self.0.push(Problem::new(path, message.to_string()));
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.0
    }

    pub(super) fn duration(&mut self, path: &str, text: Option<&str>) -> Option<Duration> {
        let parsed = parse_duration(text?);
        parsed.map_err(|error| self.add(path, error)).ok()
    }

    pub(super) fn duration_in(
        &mut self,
        path: &str,
        text: Option<&str>,
        default: Duration,
        range: &RangeInclusive<Duration>,
    ) -> Duration {
        let value = self.duration(path, text).unwrap_or(default);
        if !range.contains(&value) {
            let (low, high) = (Human(*range.start()), Human(*range.end()));
            self.add(path, format!("is {}; use {low} to {high}", Human(value)));
        }
        value
    }

    pub(super) fn size(&mut self, path: &str, size: Option<&RawSize>) -> Option<u64> {
        let text = match size? {
            RawSize::Bytes(bytes) => return Some(*bytes),
            RawSize::Text(text) => text,
        };
        let size = parse_size(text);
        if size.is_none() {
            self.add(path, format!("{text:?} is not a size; write it like 512, 64KiB or 10GiB"));
        }
        size
    }

    pub(super) fn labels(&mut self, path: &str, labels: &Labels) {
        for (key, value) in labels {
            if key.is_empty() || !is_name(key) || !is_name(value) {
                let rule = "a label has a name, and at most 256 bytes without control characters";
                self.add(format!("{path}.{key:?}"), rule);
            }
        }
    }

    pub(super) fn env_names<'a>(&mut self, path: &str, names: impl Iterator<Item = &'a String>) {
        for name in names {
            if let Some(why) = env_name_problem(name) {
                self.add(format!("{path}.{name}"), why);
            }
        }
    }

    pub(super) fn absolute(&mut self, path: &str, folder: Option<PathBuf>) -> Option<PathBuf> {
        let folder = folder?;
        if !folder.is_absolute() {
            self.add(path, format!("{folder:?} is not absolute; start it with `/`"));
        }
        Some(folder)
    }
}
