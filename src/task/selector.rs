//! Label selectors: how they match, their text form, and their canonical form.
//!
//! ```text
//! os=linux,gpu in (a100,h200),!spot,zone!=eu,tier notin (dev,test),disk
//! ```
//!
//! Semantics are those of Kubernetes label selectors. A key or a value with other characters than
//! letters, digits and `_ - . / : @ + * ~ % #` is written as a JSON string: `team="a b"`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::wire::{Operator, Requirement, Selector};

/// Labels of a runner.
pub type Labels = BTreeMap<String, String>;

impl Selector {
    /// Whether there is no condition, so that every runner matches.
    pub fn is_empty(&self) -> bool {
        self.match_labels.is_empty() && self.match_expressions.is_empty()
    }

    /// Whether `labels` meet every condition. `NotIn` also holds where the label is absent.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.conditions().all(|condition| condition.holds(labels))
    }

    /// Names each condition that `labels` don't meet, with the label as it is.
    pub fn mismatches(&self, labels: &Labels) -> Vec<String> {
        let failing = self.conditions().filter(|condition| !condition.holds(labels));
        failing.map(|condition| condition.explain(labels)).collect()
    }

    /// Returns the selector in its one form: values and conditions sorted and without repetition,
    /// `In` with one value as a label. Where a label has to have several values at once, the
    /// smallest stands in `matchLabels` and each other one in an `In`.
    #[must_use]
    pub fn canonical(&self) -> Self {
        let (mut match_labels, mut match_expressions) = (Labels::new(), Vec::new());
        let mut sorted: Vec<Condition<'_>> = self.conditions().map(Condition::sorted).collect();
        sorted.sort_unstable();
        sorted.dedup();
        for condition in sorted {
            match (condition.operator, &*condition.values) {
                // Sorted: the first one of a key has its smallest value.
                (Operator::In, [value]) if !match_labels.contains_key(condition.key) => {
                    match_labels.insert(condition.key.clone(), value.clone());
                }
                _ => match_expressions.push(condition.into_requirement()),
            }
        }
        Self { match_labels, match_expressions }
    }

    fn conditions(&self) -> impl Iterator<Item = Condition<'_>> {
        let equal = |(key, value)| Condition {
            key,
            operator: Operator::In,
            values: Cow::Borrowed(std::slice::from_ref(value)),
        };
        let expressions = self.match_expressions.iter();
        self.match_labels.iter().map(equal).chain(expressions.map(Condition::of))
    }
}

/// One condition, from either half of a selector. The order of conditions is that of a lane's id.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Condition<'a> {
    key: &'a String,
    operator: Operator,
    values: Cow<'a, [String]>,
}

impl<'a> Condition<'a> {
    fn of(requirement: &'a Requirement) -> Self {
        let Requirement { key, operator, values } = requirement;
        Self { key, operator: *operator, values: Cow::Borrowed(values) }
    }

    fn holds(&self, labels: &Labels) -> bool {
        let label = labels.get(self.key);
        match self.operator {
            Operator::In => label.is_some_and(|label| self.values.contains(label)),
            Operator::NotIn => label.is_none_or(|label| !self.values.contains(label)),
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
        }
    }

    fn explain(&self, labels: &Labels) -> String {
        match labels.get(self.key) {
            Some(label) => format!("{self}: the label is {}", Word(label)),
            None => format!("{self}: there is no such label"),
        }
    }

    /// Sorts its values and leaves out repeated ones.
    fn sorted(mut self) -> Self {
        if !self.values.is_sorted_by(|a, b| a < b) {
            let values = self.values.to_mut();
            values.sort_unstable();
            values.dedup();
        }
        self
    }

    fn into_requirement(self) -> Requirement {
        let (key, values) = (self.key.clone(), self.values.into_owned());
        Requirement { key, operator: self.operator, values }
    }
}

impl fmt::Display for Condition<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = Word(self.key);
        match (self.operator, &*self.values) {
            (Operator::In, [value]) => write!(f, "{key}={}", Word(value)),
            (Operator::NotIn, [value]) => write!(f, "{key}!={}", Word(value)),
            (Operator::In, values) => write!(f, "{key} in ({})", Words(values)),
            (Operator::NotIn, values) => write!(f, "{key} notin ({})", Words(values)),
            (Operator::Exists, _) => write!(f, "{key}"),
            (Operator::DoesNotExist, _) => write!(f, "!{key}"),
        }
    }
}

/// Prints the text form, which [`Selector::from_str`] reads; an empty selector is an empty text.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, condition) in self.conditions().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{condition}")?;
        }
        Ok(())
    }
}

/// A key or value, quoted where it has to be.
struct Word<'a>(&'a str);

impl fmt::Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.0.is_empty() && self.0.chars().all(is_bare) {
            return f.write_str(self.0);
        }
        let quoted = serde_json::to_string(self.0).expect("a string can be written as JSON");
        f.write_str(&quoted)
    }
}

struct Words<'a>(&'a [String]);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, value) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{}", Word(value))?;
        }
        Ok(())
    }
}

fn is_bare(c: char) -> bool {
    c.is_alphanumeric() || "_-./:@+*~%#".contains(c)
}

/// A text is not a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {wanted} at byte {at}{}; write it like os=linux,gpu in (a,b),!spot", near(found))]
pub struct InvalidSelector {
    /// What should stand there.
    pub wanted: &'static str,
    /// The place, in bytes from 0.
    pub at: usize,
    /// What stands there instead.
    pub found: Option<char>,
}

fn near(found: &Option<char>) -> String {
    found.map_or_else(|| ", found the end".to_owned(), |c| format!(", found {c:?}"))
}

/// Reads the text form.
impl FromStr for Selector {
    type Err = InvalidSelector;

    fn from_str(text: &str) -> Result<Self, InvalidSelector> {
        let mut reader = Reader { text, at: 0 };
        let mut match_expressions = Vec::new();
        let mut match_labels = Labels::new();
        while !reader.at_end() || !match_expressions.is_empty() {
            match_expressions.push(reader.condition()?);
            if !reader.eat(",") {
                break;
            }
        }
        if !reader.at_end() {
            return reader.expected("`,` or the end");
        }
        match_expressions.retain(|condition: &Requirement| {
            let [value] = condition.values.as_slice() else {
                return true;
            };
            let known = match_labels.contains_key(&condition.key);
            let label = condition.operator == Operator::In && !known;
            if label {
                match_labels.insert(condition.key.clone(), value.clone());
            }
            !label
        });
        Ok(Self { match_labels, match_expressions })
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn condition(&mut self) -> Result<Requirement, InvalidSelector> {
        if self.eat("!") {
            return Ok(requirement(self.word("a label")?, Operator::DoesNotExist, Vec::new()));
        }
        let key = self.word("a label")?;
        if self.eat("!=") {
            return Ok(requirement(key, Operator::NotIn, vec![self.value()?]));
        }
        if self.eat("==") || self.eat("=") {
            return Ok(requirement(key, Operator::In, vec![self.value()?]));
        }
        match self.peek() {
            None | Some(',') => Ok(requirement(key, Operator::Exists, Vec::new())),
            Some(_) if self.keyword("in") => Ok(requirement(key, Operator::In, self.values()?)),
            Some(_) if self.keyword("notin") => {
                Ok(requirement(key, Operator::NotIn, self.values()?))
            }
            Some(_) => self.expected("`=`, `!=`, `in (…)`, `notin (…)` or `,`"),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, InvalidSelector> {
        if !self.eat("(") {
            return self.expected("`(`");
        }
        let mut values = vec![self.value()?];
        while self.eat(",") {
            values.push(self.value()?);
        }
        if self.eat(")") { Ok(values) } else { self.expected("`,` or `)`") }
    }

    /// A value may be empty: `a=` asks for a label whose value is empty.
    fn value(&mut self) -> Result<String, InvalidSelector> {
        match self.peek() {
            None | Some(',' | ')') => Ok(String::new()),
            Some(_) => self.word("a value"),
        }
    }

    fn word(&mut self, wanted: &'static str) -> Result<String, InvalidSelector> {
        if self.peek() == Some('"') {
            return self.quoted();
        }
        let rest = self.rest();
        let end = rest.find(|c| !is_bare(c)).unwrap_or(rest.len());
        if end == 0 {
            return self.expected(wanted);
        }
        self.at += end;
        Ok(rest[..end].to_owned())
    }

    fn quoted(&mut self) -> Result<String, InvalidSelector> {
        let mut json = serde_json::Deserializer::from_str(self.rest()).into_iter::<String>();
        let Some(Ok(word)) = json.next() else {
            return self.expected("a JSON string");
        };
        self.at += json.byte_offset();
        Ok(word)
    }

    fn keyword(&mut self, word: &str) -> bool {
        let Some(rest) = self.rest().strip_prefix(word) else {
            return false;
        };
        let whole = !rest.starts_with(is_bare);
        if whole {
            self.at += word.len();
        }
        whole
    }

    fn eat(&mut self, sign: &str) -> bool {
        let there = self.peek().is_some() && self.rest().starts_with(sign);
        if there {
            self.at += sign.len();
        }
        there
    }

    fn peek(&mut self) -> Option<char> {
        let rest = &self.text[self.at..];
        self.at += rest.len() - rest.trim_start().len();
        self.rest().chars().next()
    }

    fn at_end(&mut self) -> bool {
        self.peek().is_none()
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn expected<T>(&mut self, wanted: &'static str) -> Result<T, InvalidSelector> {
        let found = self.peek();
        Err(InvalidSelector { wanted, at: self.at, found })
    }
}

fn requirement(key: String, operator: Operator, values: Vec<String>) -> Requirement {
    Requirement { key, operator, values }
}

#[cfg(test)]
#[path = "selector_tests.rs"]
mod tests;
