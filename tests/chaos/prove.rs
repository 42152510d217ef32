//! Proves that the harness can see: with each guard switched off in the workers, a storm that is aimed
//! at it has to end in the violations that the guard prevents; with all guards on, the same storms end
//! without any.

use std::process::ExitCode;
use std::time::Duration;

use crate::args::{Aim, Options};
use crate::run;

/// A guard, the storm that is aimed at it, and what has to be seen without it.
struct Guard {
    name: &'static str,
    aim: Aim,
    tasks: u32,
    seen: &'static [&'static str],
}

const GUARDS: [Guard; 3] = [
    Guard {
        name: "fence",
        aim: Aim::Fence,
        tasks: 120,
        seen: &["follows finished", "finished records", "not 2", "started twice"],
    },
    Guard {
        name: "start-check",
        aim: Aim::StartCheck,
        tasks: 120,
        seen: &["ran after the cancel"],
    },
    Guard { name: "lease", aim: Aim::Lease, tasks: 60, seen: &["at once"] },
];

/// Runs with each guard on and off.
pub(crate) async fn prove(options: &Options) -> ExitCode {
    if !cfg!(feature = "chaos-unguarded") {
        eprintln!("chaos: --prove needs `--features chaos-unguarded`");
        return ExitCode::from(2);
    }
    let mut proved = true;
    for guard in &GUARDS {
        if options.guard.as_ref().is_some_and(|only| only != guard.name) {
            continue;
        }
        for unguarded in [None, Some(guard.name)] {
            let options = Options {
                aim: guard.aim,
                unguarded,
                tasks: guard.tasks,
                // Room everywhere, so that what is lost at one place is taken at another.
                capacity: 20,
                storm: Duration::from_secs(20),
                ..options.clone()
            };
            proved &= shows(&options, guard).await;
        }
    }
    if proved { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn shows(options: &Options, guard: &Guard) -> bool {
    let state = if options.unguarded.is_some() { "off" } else { "on" };
    let report = match run::run(options).await {
        Ok(finding) => finding.report,
        Err(error) => {
            println!("chaos: {} {state}: the run failed: {error}", guard.name);
            return false;
        }
    };
    let tells = |violation: &&String| guard.seen.iter().any(|seen| violation.contains(seen));
    let seen = report.violations.iter().filter(tells).count();
    let right = match options.unguarded {
        Some(_) => seen > 0,
        None => report.violations.is_empty(),
    };
    println!(
        "chaos: {} {state}: {} violations, {seen} of them its own: {}",
        guard.name,
        report.violations.len(),
        if right { "as it must be" } else { "WRONG" }
    );
    for violation in report.violations.iter().take(if right { 3 } else { 20 }) {
        println!("  {violation}");
    }
    right
}
