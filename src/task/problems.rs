//! Collects the problems of one document.

use std::fmt::Display;

use crate::wire::Problem;

/// How many problems are listed; a junk document must not make an answer that is too large to send.
const LISTED: usize = 100;

/// The problems found so far.
#[derive(Debug, Default)]
pub(super) struct Problems {
    listed: Vec<Problem>,
    omitted: usize,
}

impl Problems {
    pub(super) fn add(&mut self, path: impl Display, message: impl Into<String>) {
        if self.listed.len() < LISTED {
            self.listed.push(Problem::new(path.to_string(), message));
        } else {
            self.omitted += 1;
        }
    }

    pub(super) fn count(&self) -> usize {
        self.listed.len() + self.omitted
    }

    /// Adds the problems of a later step, but those at places where something was wrong before:
    /// there the later step has seen a stand-in, not what was sent.
    pub(super) fn follow(&mut self, later: Self) {
        let known = self.listed.len();
        for problem in later.listed {
            if !self.listed[..known].iter().any(|p| covers(&p.path, &problem.path)) {
                self.add(problem.path, problem.message);
            }
        }
        self.omitted += later.omitted;
    }

    /// Moves each problem to another place.
    pub(super) fn moved(mut self, place: impl Fn(&str) -> String) -> Self {
        for problem in &mut self.listed {
            problem.path = place(&problem.path);
        }
        self
    }

    /// Returns `value` if nothing was wrong.
    pub(super) fn or<T>(self, value: Option<T>) -> Result<T, Vec<Problem>> {
        match value {
            Some(value) if self.listed.is_empty() => Ok(value),
            Some(_) | None => Err(self.into_list()),
        }
    }

    fn into_list(mut self) -> Vec<Problem> {
        if self.omitted > 0 {
            let more = format!("{} more problems are not listed", self.omitted);
            self.listed.push(Problem::new("$", more));
        }
        self.listed
    }
}

/// Whether `place` is `known` or inside it.
fn covers(known: &str, place: &str) -> bool {
    place.strip_prefix(known).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_blamed_once() {
        let mut first = Problems::default();
        first.add("$.kind", "a number");
        let mut later = Problems::default();
        later.add("$.kind.subprocess", "empty");
        later.add("$.kindness", "odd");
        first.follow(later);
        let paths: Vec<_> = first.into_list().into_iter().map(|p| p.path).collect();
        assert_eq!(paths, ["$.kind", "$.kindness"]);
    }

    #[test]
    fn the_list_is_bounded_and_says_so() {
        let mut problems = Problems::default();
        for _ in 0..1_000 {
            problems.add("$.x", "wrong");
        }
        let list = problems.into_list();
        assert_eq!(list.len(), LISTED + 1);
        assert!(list[LISTED].message.contains("900 more"), "{list:?}");
    }
}
