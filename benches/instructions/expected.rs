//! The counts that are committed, and how they are made.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;

use crate::callgrind::{self, Counts};
use crate::{cases, tools};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/expected.toml");

/// Counts of all cases, and the tools that they were made with.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expected {
    /// Versions, in words.
    pub(crate) made_with: String,
    /// By the case's name.
    pub(crate) case: BTreeMap<String, Counts>,
}

impl Expected {
    /// Reads the committed counts.
    pub(crate) fn load() -> Result<Self, String> {
        let text = std::fs::read_to_string(FILE);
        let text = text.map_err(|error| format!("cannot read {FILE}: {error}"))?;
        toml::from_str(&text).map_err(|error| format!("cannot read {FILE}: {error}"))
    }

    /// Makes these the committed counts.
    pub(crate) fn store(&self) -> Result<(), String> {
        std::fs::write(FILE, self.text()).map_err(|error| format!("cannot write {FILE}: {error}"))
    }

    // A case has a line, so that a difference of two versions reads well.
    fn text(&self) -> String {
        let mut text = "# Counts of one run of each case: instructions in our program and in the C library, allocations.\n\
                        # Made by: cargo run --profile instructions -p runlane-instructions -- --refresh\n\n"
            .to_owned();
        let mut line = |line: String| writeln!(text, "{line}").expect("a string takes all");
        line(format!("made_with = {:?}\n\n[case]", self.made_with));
        // In the order of the cases.
        for case in cases::all() {
            let Counts { ours, libc, allocations } = self.case[case.name];
            let name = case.name;
            line(format!(
                "{name:?} = {{ ours = {ours}, libc = {libc}, allocations = {allocations} }}"
            ));
        }
        text
    }
}

/// Counts all cases on this machine.
pub(crate) fn measure() -> Result<Expected, String> {
    let made_with = tools::versions()?;
    let counted = cases::all().map(|case| Ok((case.name.to_owned(), callgrind::count(case.name)?)));
    Ok(Expected { made_with, case: counted.collect::<Result<_, String>>()? })
}
