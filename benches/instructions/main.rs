//! Guards the work per message: instructions and allocations of each case, counted by callgrind.
//!
//! ```text
//! cargo run --profile instructions -p runlane-instructions                 compares with expected.toml
//! cargo run --profile instructions -p runlane-instructions -- --refresh    writes it anew
//! ```
//!
//! Counts don't depend on what else the machine does, so a rise is a change of the code or of the tools.
//! What is counted is the difference of two processes that do it a different number of times.

#![allow(clippy::print_stdout, clippy::print_stderr)]

mod callgrind;
#[path = "../cases/mod.rs"]
mod cases;
mod expected;
mod report;
mod tools;

// The modules that the cases use, compiled without the rest of the library and its dependencies. They
// use only each other, which a test of the layers holds.
#[allow(dead_code, unreachable_pub, unused_imports)]
#[path = "../../src/output/mod.rs"]
pub mod output;
#[allow(dead_code, unreachable_pub, unused_imports)]
#[path = "../../src/task/mod.rs"]
pub mod task;
#[allow(dead_code, unreachable_pub, unused_imports)]
#[path = "../../src/wire/mod.rs"]
pub mod wire;

// The cases name the library.
extern crate self as runlane;

use std::process::ExitCode;

use cases::Run;
use expected::Expected;
use report::Verdict;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => check(),
        ["--refresh"] => refresh(),
        ["--case", name, "--times", times] => counted(name, times),
        _ => Err("usage: instructions [--refresh]".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// What runs under callgrind.
fn counted(name: &str, times: &str) -> Result<(), String> {
    let case = cases::all().find(|case| case.name == name).ok_or("there is no such case")?;
    let times: u32 = times.parse().map_err(|_| "times is no number")?;
    let mut run = (case.prepare)();
    for _ in 0..times {
        counted_section(&mut run);
    }
    Ok(())
}

// Has a name of its own, for `--toggle-collect` when one looks where the instructions go.
#[inline(never)]
fn counted_section(run: &mut Run) {
    run();
}

fn check() -> Result<(), String> {
    let expected = Expected::load()?;
    let now = expected::measure()?;
    let verdict = report::compare(&expected, &now);
    report::print(&verdict);
    match verdict {
        Verdict { failed: 0, .. } => Ok(()),
        Verdict { failed, .. } => Err(format!(
            "{failed} counts rose. Where to look: docs/testing.md. If the rise is meant, or comes from \
             the tools:\n  cargo run --profile instructions -p runlane-instructions -- --refresh"
        )),
    }
}

fn refresh() -> Result<(), String> {
    expected::measure()?.store()
}
