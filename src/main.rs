//! The `runlane` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    // This program is also its own process launcher; see `runlane::exec`.
    runlane::exec::init::maybe_run().unwrap_or_else(runlane::cli::main)
}
