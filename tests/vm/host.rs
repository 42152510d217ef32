//! What `cargo test --test vm` does: a machine for each tier, and a judgement of what it says.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use runlane::devserver::{FindOptions, find};

use super::args::{Args, HELP, Mode};
use super::guest::{Case, Tier, cases};
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
        Mode::Run | Mode::Shell => return work(&args),
    }
    ExitCode::SUCCESS
}

fn work(args: &Args) -> ExitCode {
    // One thread: a machine ends with the thread that has started it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime can be made");
    runtime.block_on(async {
        if args.mode == Mode::Shell {
            return shell(args).await.unwrap_or_else(|error| {
                println!("{error}");
                ExitCode::FAILURE
            });
        }
        // Cancel safe: the machine and its image end with the future.
        tokio::select! {
            code = run_all(args) => code,
            _ = tokio::signal::ctrl_c() => ExitCode::from(130),
        }
    })
}

async fn shell(args: &Args) -> io::Result<ExitCode> {
    let tier = if args.systemd { Tier::Systemd } else { Tier::Kernel };
    let needs =
        Needs::find(tier).map_err(|missing| io::Error::other(format!("missing {missing}")))?;
    let directory = tempfile::tempdir()?;
    let image = build(&needs, directory.path()).await?;
    qemu::shell(&needs, &image).await?;
    Ok(ExitCode::SUCCESS)
}

/// How the cases of a tier went.
#[derive(Debug, Default)]
struct Count {
    passed: usize,
    ignored: usize,
    filtered: usize,
    failures: Vec<(String, String)>,
}

impl Count {
    fn plus(mut self, other: Self) -> Self {
        self.failures.extend(other.failures);
        Self {
            passed: self.passed + other.passed,
            ignored: self.ignored + other.ignored,
            filtered: self.filtered + other.filtered,
            failures: self.failures,
        }
    }
}

async fn run_all(args: &Args) -> ExitCode {
    let start = Instant::now();
    // An emulated processor keeps one of the host's busy.
    let (kernel, systemd) =
        tokio::join!(run_tier(args, Tier::Kernel), run_tier(args, Tier::Systemd));
    let Count { passed, ignored, filtered, failures } = kernel.plus(systemd);
    if !failures.is_empty() {
        println!("\nfailures:");
        failures.iter().for_each(|(name, why)| println!("    {name}: {why}"));
    }
    let verdict = if failures.is_empty() { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {} failed; {ignored} ignored; 0 measured; \
         {filtered} filtered out; finished in {:.2}s\n",
        failures.len(),
        start.elapsed().as_secs_f64()
    );
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn run_tier(args: &Args, tier: Tier) -> Count {
    let all: Vec<Case> = cases().into_iter().filter(|case| case.tier == tier).collect();
    let wanted = all.iter().filter(|case| args.wants(case.name));
    let names: Vec<_> = wanted.map(|case| case.name).collect();
    let mut count = Count { filtered: all.len() - names.len(), ..Count::default() };
    let number = tier.number();
    println!("running {} tests of tier {number}", names.len());
    if names.is_empty() {
        return count;
    }
    let ended = match Needs::find(tier) {
        Ok(needs) => boot(args, tier, &needs, &names).await,
        Err(missing) if needs::demanded(tier) => {
            Err(io::Error::other(format!("RUNLANE_TIERS demands it; missing {missing}")))
        }
        Err(missing) => {
            println!("SKIPPED tier {number}: missing {missing}");
            count.ignored = names.len();
            return count;
        }
    };
    let all_failed = |error: io::Error| {
        names.iter().map(|name| ((*name).to_owned(), format!("did not run: {error}"))).collect()
    };
    count.failures = ended.unwrap_or_else(all_failed);
    let is_failed = |name: &&&str| count.failures.iter().any(|(failed, _)| failed == **name);
    count.passed = names.len() - names.iter().filter(is_failed).count();
    count
}

/// Boots a machine for the cases. Returns the failures.
async fn boot(
    args: &Args,
    tier: Tier,
    needs: &Needs,
    names: &[&str],
) -> io::Result<Vec<(String, String)>> {
    let directory = tempfile::tempdir()?;
    let image = build(needs, directory.path()).await?;
    let nonce = uuid::Uuid::new_v4().simple().to_string();
    let (list, seconds) = (numbers(names), LIMIT.as_secs());
    let variables = format!("VM_NONCE={nonce} VM_CASES={list} VM_SECONDS={seconds}");
    let mut machine = Machine::boot(needs, &image, &variables, LIMIT)?;
    let mut judge = Judge::new(tier, &nonce);
    let mut console = Vec::new();
    let hung = loop {
        match machine.next().await {
            Said::Off => break false,
            Said::Hung => break true,
            Said::Line(line) => {
                let heard = judge.hear(&line);
                match &heard {
                    Some(said) => println!("{said}"),
                    None if args.console => println!("console: {line}"),
                    None => {}
                }
                console.extend(heard.is_none().then_some(line));
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

/// The cases by number, because the kernel's command line is short.
fn numbers(names: &[&str]) -> String {
    let number =
        |(number, case): (usize, Case)| names.contains(&case.name).then(|| number.to_string());
    cases().into_iter().enumerate().filter_map(number).collect::<Vec<_>>().join(",")
}

async fn build(needs: &Needs, directory: &std::path::Path) -> io::Result<PathBuf> {
    let found = find(&FindOptions::from_variables(|name| std::env::var_os(name))).await;
    let nats = found.map_err(io::Error::other)?.path;
    let programs = [
        Program { file: PathBuf::from(env!("CARGO_BIN_EXE_runlane")), path: "bin/runlane" },
        Program { file: std::env::current_exe()?, path: "bin/vm" },
        Program { file: nats, path: "bin/nats-server" },
    ];
    image::build(directory, &needs.busybox, &programs, needs.system.as_deref())
}
