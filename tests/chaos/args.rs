//! The command line. Flags of cargo's own test runner are accepted and ignored, so that
//! `cargo test -- --nocapture` and a filter by name do what one expects.

use std::path::PathBuf;
use std::time::Duration;

pub(crate) const HELP: &str = "\
Usage: cargo test --test chaos -- [FLAGS]
  --minutes M     length of the storm (default 0.5)
  --seed N        seed of tasks and faults (default: from the clock)
  --tasks N       tasks in all (default 12 a second)
  --servers 1|3   one server, or a cluster with three copies of everything (default 1)
  --workers N     worker processes (default 3)
  --capacity N    tasks that a worker runs at once (default 6)
  --lease-ms N    lease of the tasks (default 3000, with three servers 5000; at least 2000)
  --json FILE     write the report as JSON, too
  --story ID      print all that is known of a task, also without a violation; `slowest`: of the one
                  that took longest to be started again after its worker's death
  --keep          keep the directory with all logs, also without a violation
  --prove[=GUARD] switch each guard off in turn: the harness has to see it (--features chaos-unguarded)";

/// What to do.
#[derive(Debug)]
pub(crate) enum Mode {
    Run(Options),
    Say(String),
}

/// How to run.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) storm: Duration,
    pub(crate) seed: u64,
    pub(crate) tasks: u32,
    pub(crate) servers: usize,
    pub(crate) workers: usize,
    pub(crate) capacity: usize,
    pub(crate) lease: Duration,
    pub(crate) json: Option<PathBuf>,
    pub(crate) story: Option<String>,
    pub(crate) keep: bool,
    pub(crate) prove: bool,
    /// Prove this one only.
    pub(crate) guard: Option<String>,
    pub(crate) aim: Aim,
    /// Guards that are off in the workers.
    pub(crate) unguarded: Option<&'static str>,
}

/// What the storm is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aim {
    /// Everything.
    Everything,
    /// Duplicates, and workers that are frozen while their tasks end.
    Fence,
    /// Cancels that are stored before the task is.
    StartCheck,
    /// Workers that are cut off for longer than a lease.
    Lease,
}

/// Reads the command line.
pub(crate) fn parse(args: impl Iterator<Item = String>) -> Result<Mode, String> {
    let mut args = args.peekable();
    let (mut tasks, mut lease, mut seed) = (None, None, None);
    let mut options = Options {
        storm: Duration::from_secs(30),
        seed: 0,
        tasks: 0,
        servers: 1,
        workers: 3,
        capacity: 6,
        lease: Duration::ZERO,
        json: None,
        story: None,
        keep: false,
        prove: false,
        guard: None,
        aim: Aim::Everything,
        unguarded: None,
    };
    while let Some(arg) = args.next() {
        let (flag, inline) = match arg.split_once('=') {
            Some((flag, value)) => (flag.to_owned(), Some(value.to_owned())),
            None => (arg, None),
        };
        let mut value =
            || inline.clone().or_else(|| args.next()).ok_or(format!("{flag} needs a value"));
        match flag.as_str() {
            "--minutes" => options.storm = minutes(&value()?)?,
            "--seed" => seed = Some(number(&flag, &value()?)?),
            "--tasks" => tasks = Some(number(&flag, &value()?)?),
            "--servers" => options.servers = number(&flag, &value()?)?,
            "--workers" => options.workers = number(&flag, &value()?)?,
            "--capacity" => options.capacity = number(&flag, &value()?)?,
            "--lease-ms" => lease = Some(number(&flag, &value()?)?),
            "--json" => options.json = Some(value()?.into()),
            "--story" => options.story = Some(value()?),
            "--keep" => options.keep = true,
            "--prove" => (options.prove, options.guard) = (true, inline),
            "--help" | "-h" => return Ok(Mode::Say(HELP.to_owned())),
            "--list" => return Ok(Mode::Say("chaos: test".to_owned())),
            "--test-threads" | "--format" | "--color" | "--skip" | "-Z" => drop(value()?),
            "--nocapture" | "--no-capture" | "--exact" | "--quiet" | "-q" | "--show-output"
            | "--include-ignored" => {}
            "--ignored" => return Ok(Mode::Say("chaos: nothing is ignored here".to_owned())),
            flag if flag.starts_with('-') => return Err(format!("{flag} is unknown")),
            filter if "chaos".contains(filter) => {}
            filter => return Ok(Mode::Say(format!("chaos: filtered out by {filter:?}"))),
        }
    }
    if !matches!(options.servers, 1 | 3) || options.workers == 0 || options.capacity == 0 {
        return Err("use 1 or 3 servers, and at least one worker with one place".to_owned());
    }
    let default_lease = if options.servers == 1 { 3000 } else { 5000 };
    options.lease = Duration::from_millis(lease.unwrap_or(default_lease));
    options.tasks = tasks.unwrap_or((options.storm.as_secs_f64() * 12.0) as u32);
    options.seed =
        seed.unwrap_or_else(|| jiff::Timestamp::now().as_millisecond().unsigned_abs() % 1_000_000);
    Ok(Mode::Run(options))
}

fn minutes(text: &str) -> Result<Duration, String> {
    let minutes: f64 = number("--minutes", text)?;
    Duration::try_from_secs_f64(minutes * 60.0).map_err(|error| format!("--minutes: {error}"))
}

fn number<T: std::str::FromStr>(flag: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{flag}: {text:?} is not a number"))
}
