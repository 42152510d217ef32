//! The `runlane` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    // This program is also its own process launcher, see `runlane::exec`, the yardstick of its bench, and the
    // guard of what it starts besides.
    runlane::exec::init::maybe_run()
        .or_else(runlane::bench::helper::maybe_run)
        .or_else(runlane::devserver::guard::maybe_run)
        .unwrap_or_else(runlane::cli::main)
}
