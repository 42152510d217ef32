//! The `runlane` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = runlane::exec::init::maybe_run() {
        return code;
    }
    ExitCode::SUCCESS
}
