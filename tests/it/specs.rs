//! The specs in `tests/data`: `valid/*.json` are accepted, and for each `invalid/*.json` the places of
//! its problems stand in the `.paths` file beside it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use runlane::task;
use runlane::wire::TaskSpec;

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(folder);
    let entries = fs::read_dir(folder).expect("the folder is there");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let found: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "json")).collect();
    assert!(found.len() > 3, "the specs are there");
    found
}

fn parse(bytes: &[u8]) -> Result<task::Task, Vec<runlane::wire::Problem>> {
    let decoded: Option<serde_json::Value> = serde_json::from_slice(bytes).ok();
    let named = decoded.is_some_and(|value| value["id"].is_string());
    let id = "from-subject".parse().expect("an id");
    task::parse(bytes, (!named).then_some(&id))
}

#[test]
fn valid_specs_are_accepted_and_stay_the_same_when_written() {
    for path in files("valid") {
        let bytes = fs::read(&path).expect("a spec");
        parse(&bytes).unwrap_or_else(|problems| panic!("{}: {problems:?}", path.display()));
        let spec = task::decode(&bytes).expect("what is parsed was decoded");
        assert_eq!(task::decode(&task::canonical(&spec)), Ok(spec.clone()), "{}", path.display());
        // serde and the walk by hand agree.
        assert_eq!(
            serde_json::from_slice::<TaskSpec>(&bytes).ok(),
            Some(spec),
            "{}",
            path.display()
        );
    }
}

#[test]
fn every_problem_of_an_invalid_spec_is_reported_at_its_place() {
    for path in files("invalid") {
        let problems = parse(&fs::read(&path).expect("a spec")).expect_err("it is invalid");
        let found: BTreeSet<String> = problems.iter().map(|problem| problem.path.clone()).collect();
        let wanted = fs::read_to_string(path.with_extension("paths")).expect("the places");
        let wanted: BTreeSet<String> = wanted.lines().map(str::to_owned).collect();
        assert_eq!(found, wanted, "{}: {problems:#?}", path.display());
        assert_eq!(problems.len(), found.len(), "{}: twice at one place", path.display());
    }
}
