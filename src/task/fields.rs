//! Reads typed fields out of a JSON value. Every function reports what it can't read and goes on.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::path::{Path, quoted};
use super::problems::Problems;

/// A JSON object whose unknown fields have been reported.
#[derive(Clone, Copy)]
pub(super) struct Object<'v, 'p> {
    fields: &'v Map<String, Value>,
    path: &'p Path<'p>,
}

impl<'v, 'p> Object<'v, 'p> {
    /// Takes `value` as an object that may have the fields `known`.
    pub(super) fn read(
        value: &'v Value,
        path: &'p Path<'p>,
        known: &[&str],
        problems: &mut Problems,
    ) -> Option<Self> {
        let fields = map(value, path, problems)?;
        for name in fields.keys().filter(|name| !known.contains(&name.as_str())) {
            problems.add(path.field(name), unknown("field", name, known));
        }
        Some(Self { fields, path })
    }

    /// Reads a field that may be absent or null.
    pub(super) fn optional<T>(
        &self,
        name: &str,
        problems: &mut Problems,
        read: impl FnOnce(&'v Value, &Path<'_>, &mut Problems) -> Option<T>,
    ) -> Option<T> {
        let value = self.fields.get(name).filter(|value| !value.is_null())?;
        read(value, &self.path.field(name), problems)
    }

    /// Reads a field that has a default.
    pub(super) fn or<T>(
        &self,
        name: &str,
        default: T,
        problems: &mut Problems,
        read: impl FnOnce(&'v Value, &Path<'_>, &mut Problems) -> Option<T>,
    ) -> T {
        match self.fields.get(name) {
            Some(value) => read(value, &self.path.field(name), problems).unwrap_or(default),
            None => default,
        }
    }

    /// Reads a field that must be there.
    pub(super) fn required<T>(
        &self,
        name: &str,
        problems: &mut Problems,
        read: impl FnOnce(&'v Value, &Path<'_>, &mut Problems) -> Option<T>,
    ) -> Option<T> {
        if let Some(value) = self.fields.get(name) {
            return read(value, &self.path.field(name), problems);
        }
        problems.add(self.path.field(name), "is missing");
        None
    }
}

pub(super) fn map<'v>(
    value: &'v Value,
    path: &Path<'_>,
    problems: &mut Problems,
) -> Option<&'v Map<String, Value>> {
    value.as_object().or_else(|| wrong(value, path, "an object", problems))
}

pub(super) fn string(value: &Value, path: &Path<'_>, problems: &mut Problems) -> Option<String> {
    let text = value.as_str().or_else(|| wrong(value, path, "a string", problems));
    text.map(str::to_owned)
}

pub(super) fn boolean(value: &Value, path: &Path<'_>, problems: &mut Problems) -> Option<bool> {
    value.as_bool().or_else(|| wrong(value, path, "true or false", problems))
}

pub(super) fn whole(value: &Value, path: &Path<'_>, problems: &mut Problems) -> Option<u64> {
    value.as_u64().or_else(|| wrong(value, path, "a whole number from 0", problems))
}

pub(super) fn small(value: &Value, path: &Path<'_>, problems: &mut Problems) -> Option<u32> {
    let number = value.as_u64().and_then(|number| number.try_into().ok());
    number.or_else(|| wrong(value, path, "a whole number from 0 to 4294967295", problems))
}

pub(super) fn signed(value: &Value, path: &Path<'_>, problems: &mut Problems) -> Option<i32> {
    let number = value.as_i64().and_then(|number| number.try_into().ok());
    number.or_else(|| wrong(value, path, "a whole number", problems))
}

pub(super) fn float(value: &Value, path: &Path<'_>, problems: &mut Problems) -> Option<f64> {
    value.as_f64().or_else(|| wrong(value, path, "a number", problems))
}

/// Reads a list; an element that can't be read becomes a default, so that places stay right.
pub(super) fn list<T: Default>(
    read: impl Fn(&Value, &Path<'_>, &mut Problems) -> Option<T>,
) -> impl FnOnce(&Value, &Path<'_>, &mut Problems) -> Option<Vec<T>> {
    move |value, path, problems| {
        let Some(items) = value.as_array() else {
            return wrong(value, path, "an array", problems);
        };
        let item = |(at, value)| read(value, &path.index(at), problems).unwrap_or_default();
        Some(items.iter().enumerate().map(item).collect())
    }
}

pub(super) fn strings(
    value: &Value,
    path: &Path<'_>,
    problems: &mut Problems,
) -> Option<Vec<String>> {
    list(string)(value, path, problems)
}

pub(super) fn string_map(
    value: &Value,
    path: &Path<'_>,
    problems: &mut Problems,
) -> Option<BTreeMap<String, String>> {
    let fields = map(value, path, problems)?;
    let mut entry = |(name, value): (&String, _)| {
        Some((name.clone(), string(value, &path.field(name), problems)?))
    };
    Some(fields.iter().filter_map(&mut entry).collect())
}

/// Reads one of a closed list of names.
pub(super) fn choice<T: Copy>(
    names: &'static [(&'static str, T)],
) -> impl FnOnce(&Value, &Path<'_>, &mut Problems) -> Option<T> {
    move |value, path, problems| {
        let text = value.as_str().or_else(|| wrong(value, path, "a string", problems))?;
        if let Some((_, choice)) = names.iter().find(|(name, _)| *name == text) {
            return Some(*choice);
        }
        let known: Vec<&str> = names.iter().map(|(name, _)| *name).collect();
        problems.add(path, unknown("value", text, &known));
        None
    }
}

/// Takes an object with one field, which says what the rest is, such as `{"script": …}`.
pub(super) fn variant<'v>(
    value: &'v Value,
    path: &Path<'_>,
    known: &[&'static str],
    problems: &mut Problems,
) -> Option<(&'static str, &'v Value)> {
    let fields = map(value, path, problems)?;
    if fields.len() != 1 {
        let (found, one_of) = (fields.len(), known.join("`, `"));
        problems.add(path, format!("has {found} fields; use exactly one of `{one_of}`"));
        return None;
    }
    let (name, inner) = fields.iter().next().expect("has exactly one field");
    match known.iter().find(|known| *known == name) {
        Some(known) => Some((known, inner)),
        None => {
            problems.add(path, unknown("field", name, known));
            None
        }
    }
}

/// Reports a value of the wrong type.
pub(super) fn wrong<T>(
    value: &Value,
    path: &Path<'_>,
    wanted: &str,
    problems: &mut Problems,
) -> Option<T> {
    problems.add(path, format!("must be {wanted}; found {}", found(value)));
    None
}

fn found(value: &Value) -> String {
    match value {
        Value::Null => "null (leave the field out for its default)".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the string {}", quoted(text)),
        Value::Array(items) => format!("an array of {}", items.len()),
        Value::Object(fields) => format!("an object of {} fields", fields.len()),
    }
}

/// Says that `name` isn't one of `known`, and which one was meant.
pub(super) fn unknown(what: &str, name: &str, known: &[&str]) -> String {
    match nearest(name, known) {
        Some(near) => format!("unknown {what} {}; did you mean `{near}`?", quoted(name)),
        None => format!("unknown {what} {}; known: `{}`", quoted(name), known.join("`, `")),
    }
}

fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let plain = |text: &str| text.replace(['_', '-'], "").to_ascii_lowercase();
    let name = plain(name);
    let near = known.iter().map(|known| (distance(&name, &plain(known)), *known)).min()?;
    let allowed = (name.len() / 3).clamp(1, 2);
    (near.0 <= allowed).then_some(near.1)
}

/// Levenshtein's distance; texts too long to be a typo are far away.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 40 {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let changed = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_suggested_and_a_far_one_is_not() {
        let known = ["maxRetries", "timeout", "slot"];
        for (name, near) in [
            ("max_retries", Some("maxRetries")),
            ("maxretrys", Some("maxRetries")),
            ("timeuot", Some("timeout")),
            ("Slot", Some("slot")),
            ("slats", None),
            ("priority", None),
        ] {
            assert_eq!(nearest(name, &known), near, "{name}");
        }
    }

    #[test]
    fn distance_counts_edits() {
        for (a, b, n) in [("", "", 0), ("abc", "abc", 0), ("abc", "", 3), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(a, b), n, "{a} {b}");
        }
    }
}
