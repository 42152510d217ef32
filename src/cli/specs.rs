//! Specs from files: JSON (one, several, or an array), NDJSON, YAML (one or several documents, or lists).
//!
//! A spec that is wrong doesn't hide those after it: each has its place and all its problems.

use std::io::Read as _;

use serde_json::Value;
use serde_json::value::RawValue;

use super::exit::{FAILED, Failure};
use crate::task::parse_submission;
use crate::wire::{Problem, TaskSpec};

/// A spec as it stands in a file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    /// `file:line`, with `[index]` in an array on one line, or `file[index]` in YAML; from 1 and 0.
    pub(super) place: String,
    /// The spec, or every problem of it.
    pub(super) spec: Result<TaskSpec, Vec<Problem>>,
}

/// Reads a file, or stdin for `-`.
pub(super) fn read(name: &str) -> Result<Vec<Entry>, Failure> {
    let mut bytes = Vec::new();
    let (shown, read) = match name {
        "-" => ("stdin", std::io::stdin().lock().read_to_end(&mut bytes)),
        path => (path, std::fs::File::open(path).and_then(|mut f| f.read_to_end(&mut bytes))),
    };
    read.map_err(|error| Failure::new(FAILED, format!("cannot read {shown}: {error}")))?;
    Ok(parse(shown, &bytes))
}

/// Parses a file's content; the format is that of the name's ending, else it is seen from the text.
pub(super) fn parse(name: &str, bytes: &[u8]) -> Vec<Entry> {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return vec![broken(name.to_owned(), "is not UTF-8 text")];
    };
    let ending = name.rsplit_once('.').map(|(_, ending)| ending.to_ascii_lowercase());
    match ending.as_deref() {
        Some("ndjson" | "jsonl") => lines(name, text),
        Some("yaml" | "yml") => yaml(name, text),
        _ if !text.trim_start().starts_with(['{', '[']) => yaml(name, text),
        // A line that is broken must not hide those after it.
        _ if !is_json(text) && has_one_a_line(text) => lines(name, text),
        _ => json(name, text),
    }
}

fn broken(place: String, message: impl Into<String>) -> Entry {
    Entry { place, spec: Err(vec![Problem::new("$", message)]) }
}

/// Whether the text is one or several JSON documents, with nothing broken.
fn is_json(text: &str) -> bool {
    let mut documents = serde_json::Deserializer::from_str(text).into_iter::<&RawValue>();
    documents.all(|document| document.is_ok())
}

/// Whether the first line is a whole document and another line follows.
fn has_one_a_line(text: &str) -> bool {
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let first = lines.next().is_some_and(|line| {
        line.trim_start().starts_with('{') && serde_json::from_str::<&RawValue>(line).is_ok()
    });
    first && lines.next().is_some()
}

fn lines(name: &str, text: &str) -> Vec<Entry> {
    let numbered = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let entry = |(n, line): (usize, &str)| Entry {
        place: format!("{name}:{}", n + 1),
        spec: parse_submission(line.as_bytes()),
    };
    numbered.map(entry).collect()
}

fn json(name: &str, text: &str) -> Vec<Entry> {
    // Each piece lies in the text, behind the one before, so its line is counted from there.
    let (mut at, mut line) = (0, 1);
    let mut entry = |piece: &str| {
        let start = piece.as_ptr().addr() - text.as_ptr().addr();
        line += text.as_bytes()[at..start].iter().filter(|byte| **byte == b'\n').count();
        at = start;
        Entry { place: format!("{name}:{line}"), spec: parse_submission(piece.as_bytes()) }
    };
    let mut entries = Vec::new();
    for document in serde_json::Deserializer::from_str(text).into_iter::<&RawValue>() {
        match document {
            Ok(document) if document.get().starts_with('[') => {
                let items = serde_json::from_str::<Vec<&RawValue>>(document.get());
                let items = items.expect("a document that starts with [ and was read is an array");
                entries.extend(with_indices(items.iter().map(|item| entry(item.get())).collect()));
            }
            Ok(document) => entries.push(entry(document.get())),
            Err(error) => {
                let place = format!("{name}:{}", error.line());
                entries.push(broken(place, format!("is not JSON: {error}")));
            }
        }
    }
    if entries.is_empty() {
        entries.push(broken(name.to_owned(), "has no spec"));
    }
    entries
}

/// Entries of an array, with their indices where the lines alone don't tell them apart.
fn with_indices(mut entries: Vec<Entry>) -> Vec<Entry> {
    if entries.windows(2).any(|two| two[0].place == two[1].place) {
        for (n, entry) in entries.iter_mut().enumerate() {
            entry.place.push_str(&format!("[{n}]"));
        }
    }
    entries
}

fn yaml(name: &str, text: &str) -> Vec<Entry> {
    let documents = match serde_saphyr::from_multiple::<Value>(text) {
        Ok(documents) => documents,
        Err(error) => return vec![broken(name.to_owned(), format!("is not YAML: {error}"))],
    };
    let specs: Vec<Value> = documents
        .into_iter()
        .flat_map(|document| match document {
            Value::Array(items) => items,
            Value::Null => Vec::new(),
            one => vec![one],
        })
        .collect();
    if specs.is_empty() {
        return vec![broken(name.to_owned(), "has no spec")];
    }
    let alone = specs.len() == 1;
    let entry = |(n, spec): (usize, Value)| Entry {
        place: if alone { name.to_owned() } else { format!("{name}[{n}]") },
        spec: parse_submission(spec.to_string().as_bytes()),
    };
    specs.into_iter().enumerate().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The place of each entry, with the number of its problems.
    fn places(name: &str, text: &str) -> Vec<String> {
        let entries = parse(name, text.as_bytes());
        let show = |entry: &Entry| match &entry.spec {
            Ok(_) => entry.place.clone(),
            Err(problems) => format!("{} !{}", entry.place, problems.len()),
        };
        entries.iter().map(show).collect()
    }

    const ECHO: &str = r#"{"command":["echo"]}"#;

    #[test]
    fn each_format_gives_its_specs_with_their_places() {
        for (name, text, wanted) in [
            ("a.json", ECHO.to_owned(), vec!["a.json:1"]),
            ("a.json", format!("\n[\n {ECHO},\n\n {ECHO}]"), vec!["a.json:3", "a.json:5"]),
            ("a.json", format!("{ECHO}\n{{\n\"command\":[\"a\"]}}"), vec!["a.json:1", "a.json:2"]),
            ("a.jsonl", format!("{ECHO}\n\n{ECHO}\n"), vec!["a.jsonl:1", "a.jsonl:3"]),
            ("stdin", format!("{ECHO}\n{ECHO}\n"), vec!["stdin:1", "stdin:2"]),
            ("a.yaml", "command: [echo, hi]\n".to_owned(), vec!["a.yaml"]),
            ("stdin", "script: |\n  echo hi\nruntime: bash\n".to_owned(), vec!["stdin"]),
            ("a.yml", "- command: [a]\n- command: [b]\n".to_owned(), vec!["a.yml[0]", "a.yml[1]"]),
            ("a.yml", "command: [a]\n---\ncommand: [b]\n".to_owned(), vec!["a.yml[0]", "a.yml[1]"]),
        ] {
            assert_eq!(places(name, &text), wanted, "{name}: {text}");
        }
    }

    #[test]
    fn a_bad_spec_does_not_hide_the_others() {
        let text = format!("{ECHO}\nnot json\n{{\"command\":[],\"tiemout\":1}}\n{ECHO}\n");
        for name in ["a.ndjson", "stdin"] {
            let wanted = [":1", ":2 !1", ":3 !2", ":4"].map(|place| format!("{name}{place}"));
            assert_eq!(places(name, &text), wanted);
        }
        assert_eq!(places("a.yml", "- command: []\n- command: [b]\n"), ["a.yml[0] !1", "a.yml[1]"]);
    }

    #[test]
    fn what_is_no_document_is_said() {
        for (name, text) in
            [("a.json", "{\n\"a\": }"), ("a.yaml", "a: [b"), ("a.json", ""), ("a.yml", "")]
        {
            let entries = parse(name, text.as_bytes());
            assert_eq!(entries.len(), 1, "{name} {text}");
            assert!(entries[0].spec.is_err(), "{name} {text}");
        }
        assert!(parse("a.json", &[0xff])[0].spec.is_err());
    }
}
