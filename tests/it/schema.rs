//! The schema files are those of the types, and they accept what the types write.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use runlane::wire::schema;
use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas")
}

#[test]
fn the_schema_files_are_fresh() {
    let files = schema::render();
    if std::env::var_os("RUNLANE_WRITE_SCHEMAS").is_some() {
        fs::create_dir_all(folder()).expect("the folder can be made");
        for (name, text) in &files {
            fs::write(folder().join(name), text).expect("a schema can be written");
        }
    }
    for (name, text) in &files {
        let stored = fs::read_to_string(folder().join(name)).unwrap_or_default();
        assert!(stored == *text, "schemas/{name} is stale: run `runlane schema --write schemas`");
    }
    let named: BTreeSet<String> = files.into_iter().map(|(name, _)| name).collect();
    let there = fs::read_dir(folder()).expect("the folder is there");
    let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let there: BTreeSet<String> = there.map(|entry| name(entry.expect("an entry"))).collect();
    assert_eq!(there, named, "schemas/ holds the schemas and nothing else");
}

#[test]
fn each_schema_says_what_it_is() {
    for (name, schema) in schema::all() {
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema", "{name}");
        assert!(schema["$id"].as_str().is_some_and(|id| id.starts_with("urn:runlane:")), "{name}");
        assert!(schema["title"].is_string(), "{name}");
    }
}

#[test]
fn every_property_is_described() {
    fn walk(value: &Value, place: &str, missing: &mut Vec<String>) {
        for (name, inner) in value.as_object().into_iter().flatten() {
            let place = format!("{place}/{name}");
            if name == "properties" {
                for (property, schema) in inner.as_object().into_iter().flatten() {
                    let told =
                        ["description", "const", "$ref"].iter().any(|k| schema.get(k).is_some());
                    if !told {
                        missing.push(format!("{place}/{property}"));
                    }
                }
            }
            walk(inner, &place, missing);
        }
    }
    let mut missing = Vec::new();
    for (name, schema) in schema::all() {
        walk(&schema, name, &mut missing);
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn times_are_date_times() {
    let (_, outcome) =
        schema::all().into_iter().find(|(name, _)| *name == "outcome.json").expect("outcome");
    assert_eq!(outcome["properties"]["finishedAt"]["format"], "date-time");
}
