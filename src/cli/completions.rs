//! `runlane completions`: completion scripts for shells.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::app::Cli;
use super::exit::Failure;
use super::say;

/// Print the completion script of a shell
///
/// For bash: runlane completions bash > ~/.local/share/bash-completion/completions/runlane
#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "runlane", &mut script);
    say::out(&script).map(|()| 0)
}
