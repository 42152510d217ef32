//! The `runlane` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    // This program is also its own process launcher, see `runlane::exec`, and the yardstick of its bench.
    runlane::exec::init::maybe_run()
        .or_else(runlane::bench::helper::maybe_run)
        .unwrap_or_else(runlane::cli::main)
}
