//! Bytes → JSON value. Unlike `serde_json::Value` it reports a key that stands twice in an object:
//! what the second one says would otherwise silently win.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::map::Entry;
use serde_json::{Map, Number, Value};

use super::path::Path;
use super::problems::Problems;

/// Reads one JSON document; `None` if it isn't JSON.
pub(super) fn read(bytes: &[u8], problems: &mut Problems) -> Option<Value> {
    let found = RefCell::new(std::mem::take(problems));
    let node = Node { path: Path::Root, problems: &found };
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = node.deserialize(&mut json).and_then(|value| json.end().map(|()| value));
    *problems = found.into_inner();
    value.map_err(|error| problems.add("$", not_json(&error))).ok()
}

// serde_json's message ends with the place, in its own words.
fn not_json(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    format!("is not JSON: {what} (line {}, column {})", error.line(), error.column())
}

#[derive(Clone, Copy)]
struct Node<'a> {
    path: Path<'a>,
    problems: &'a RefCell<Problems>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let node = Node { path: self.path.index(list.len()), problems: self.problems };
            match seq.next_element_seed(node)? {
                Some(value) => list.push(value),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let node = Node { path: self.path.field(&key), problems: self.problems };
            let value = map.next_value_seed(node)?;
            match object.entry(key) {
                Entry::Vacant(entry) => {
                    entry.insert(value);
                }
                Entry::Occupied(mut entry) => {
                    let message = "stands twice in its object; keep one";
                    self.problems.borrow_mut().add(self.path.field(entry.key()), message);
                    entry.insert(value);
                }
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_of(text: &str) -> Vec<String> {
        let mut problems = Problems::default();
        let value = read(text.as_bytes(), &mut problems);
        match problems.or(value) {
            Ok(_) => Vec::new(),
            Err(list) => list.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn what_is_read_is_what_serde_json_reads() {
        for text in ["null", "[1,-2,0.5,\"é\\n\",true,{\"a\":{\"b\":[]}}]", " {} "] {
            let read = read(text.as_bytes(), &mut Problems::default());
            assert_eq!(read, serde_json::from_str(text).ok(), "{text}");
        }
    }

    #[test]
    fn a_key_that_stands_twice_is_reported_with_its_place() {
        let found = problems_of(r#"{"a":[{"k":1,"k":2}],"b":1}"#);
        assert_eq!(found, ["$.a[0].k: stands twice in its object; keep one"]);
    }

    #[test]
    fn what_is_not_json_is_reported_with_line_and_column() {
        let found = problems_of("{\n  \"a\": nope\n}");
        assert!(found[0].starts_with("$: is not JSON: "), "{found:?}");
        assert!(found[0].ends_with("(line 2, column 9)"), "{found:?}");
        assert_eq!(problems_of("{} x").len(), 1);
        assert_eq!(problems_of(&"[".repeat(100_000)).len(), 1);
        assert_eq!(problems_of("").len(), 1);
    }
}
