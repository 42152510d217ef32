//! The fault harness: real servers, real workers, a seeded storm of faults, and then the streams alone
//! have to show that every promise was kept. How to run it: docs/chaos.md.
//!
//! ```text
//!  load ──────────► servers ◄── proxies ◄── workers ──► tasks ──► side file (start and end of each run)
//!  (submit, cancel,    ▲           ▲           ▲          ▲  └──► sampler (what lives, from /proc)
//!   follow)            └── faults: the seeded schedule ───┘
//!  then: heal ─► wait until quiet ─► read the streams ─► check ─► report
//! ```

// A program of its own: what it says goes to the terminal.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod args;
mod chain;
mod check;
mod faults;
mod fleet;
mod load;
mod output;
mod overlap;
mod process;
mod prove;
mod proxy;
mod read;
mod report;
mod rng;
mod run;
mod sampler;
mod schedule;
mod servers;
mod tasks;
mod timeline;

use std::process::ExitCode;

use args::Mode;

fn main() -> ExitCode {
    if let Some(code) = process::maybe_run() {
        return code;
    }
    let options = match args::parse(std::env::args().skip(1)) {
        Ok(Mode::Run(options)) => options,
        Ok(Mode::Say(text)) => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("chaos: {problem}\n\n{}", args::HELP);
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be made");
    let work = async {
        // Cancel safe: whatever the run has started ends with it.
        tokio::select! {
            code = start(options) => code,
            _ = tokio::signal::ctrl_c() => {
                eprintln!("chaos: interrupted");
                ExitCode::from(130)
            }
        }
    };
    runtime.block_on(work)
}

async fn start(options: args::Options) -> ExitCode {
    if options.prove { prove::prove(&options).await } else { run::run_and_say(&options).await }
}
