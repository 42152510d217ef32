//! What `cargo test --test vm` does: builds the image, boots it, and judges what it says.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use runlane::devserver::{FindOptions, find};

use super::args::{Args, HELP, Mode};
use super::guest::{Case, cases};
use super::image::{self, Program};
use super::judge::Judge;
use super::needs::{self, Needs};
use super::qemu::{self, Machine, Said};

/// How long a machine may take.
const LIMIT: Duration = Duration::from_secs(600);

/// Lines of the console that are shown when a machine has failed.
const SHOWN: usize = 100;

/// Runs the tests as the command line wants them.
pub(crate) fn run(args: &[String]) -> ExitCode {
    let args = Args::parse(args);
    match args.mode {
        Mode::Help => println!("{HELP}"),
        Mode::List => cases().iter().for_each(|case| println!("{}: test", case.name)),
        Mode::Run | Mode::Shell => return with_needs(&args),
    }
    ExitCode::SUCCESS
}

fn with_needs(args: &Args) -> ExitCode {
    let needs = match Needs::find() {
        Ok(needs) => needs,
        Err(missing) if needs::demanded("2") => {
            println!("tier 2 is demanded by RUNLANE_TIERS and can't run: missing {missing}");
            return ExitCode::FAILURE;
        }
        Err(missing) => {
            println!("SKIPPED tier 2: missing {missing}");
            println!(
                "\ntest result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out"
            );
            return ExitCode::SUCCESS;
        }
    };
    // One thread: the machine ends with the thread that has started it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    runtime.block_on(async {
        // Cancel safe: the machine and the image end with the future.
        tokio::select! {
            code = work(args, &needs) => code.unwrap_or_else(|error| {
                println!("tier 2: {error}");
                ExitCode::FAILURE
            }),
            _ = tokio::signal::ctrl_c(), if args.mode == Mode::Run => ExitCode::from(130),
        }
    })
}

async fn work(args: &Args, needs: &Needs) -> std::io::Result<ExitCode> {
    if args.mode == Mode::Shell {
        let directory = tempfile::tempdir()?;
        let image = image::build(directory.path(), &needs.busybox, &programs().await?)?;
        qemu::shell(needs, &image).await?;
        return Ok(ExitCode::SUCCESS);
    }
    run_cases(args, needs).await
}

async fn run_cases(args: &Args, needs: &Needs) -> std::io::Result<ExitCode> {
    let start = Instant::now();
    let all = cases();
    let (wanted, filtered): (Vec<_>, Vec<_>) = all.iter().partition(|case| args.wants(case.name));
    let (pending, wanted): (Vec<&Case>, Vec<_>) =
        wanted.into_iter().partition(|case| case.pending && !args.pending);
    let names: Vec<_> = wanted.iter().map(|case| case.name).collect();
    println!("\nrunning {} tests in a virtual machine", names.len());
    pending.iter().for_each(|case| println!("test {} ... ignored, pending", case.name));
    let failures = if names.is_empty() { Vec::new() } else { boot(args, needs, &names).await? };
    if !failures.is_empty() {
        println!("\nfailures:");
        failures.iter().for_each(|(name, why)| println!("    {name}: {why}"));
    }
    let verdict = if failures.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {} passed; {} failed; {} ignored; 0 measured; {} filtered out; \
         finished in {:.2}s\n",
        names.len().saturating_sub(failures.len()),
        failures.len(),
        pending.len(),
        filtered.len(),
        start.elapsed().as_secs_f64()
    );
    Ok(if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn programs() -> std::io::Result<Vec<Program>> {
    let found = find(&FindOptions::from_variables(|name| std::env::var_os(name))).await;
    let nats = found.map_err(std::io::Error::other)?.path;
    Ok(vec![
        Program { file: PathBuf::from(env!("CARGO_BIN_EXE_runlane")), path: "bin/runlane" },
        Program { file: std::env::current_exe()?, path: "bin/vm" },
        Program { file: nats, path: "bin/nats-server" },
    ])
}

/// Boots a machine for the cases. Returns the failures.
async fn boot(
    args: &Args,
    needs: &Needs,
    names: &[&str],
) -> std::io::Result<Vec<(String, String)>> {
    let directory = tempfile::tempdir()?;
    let image = image::build(directory.path(), &needs.busybox, &programs().await?)?;
    let nonce = uuid::Uuid::new_v4().simple().to_string();
    // By number, because the kernel's command line is short.
    let wanted =
        |(number, case): (usize, Case)| names.contains(&case.name).then(|| number.to_string());
    let numbers: Vec<_> = cases().into_iter().enumerate().filter_map(wanted).collect();
    let (list, seconds) = (numbers.join(","), LIMIT.as_secs());
    let variables = format!("VM_NONCE={nonce} VM_CASES={list} VM_SECONDS={seconds}");
    let mut machine = Machine::boot(needs, &image, &variables, LIMIT)?;
    let mut judge = Judge::new(&nonce);
    let mut console = Vec::new();
    let hung = loop {
        match machine.next().await {
            Said::Off => break false,
            Said::Hung => break true,
            Said::Line(line) => {
                if args.console {
                    println!("console: {line}");
                }
                if let Some(said) = judge.hear(&line) {
                    println!("{said}");
                }
                console.push(line);
            }
        }
    };
    machine.end().await;
    let mut failures = judge.failures(names);
    if hung {
        failures.push(("the machine".to_owned(), format!("not off after {LIMIT:?}")));
    }
    if !failures.is_empty() && !args.console {
        println!("\nthe end of the machine's console:");
        let skipped = console.len().saturating_sub(SHOWN);
        console.iter().skip(skipped).for_each(|line| println!("    {line}"));
    }
    Ok(failures)
}
