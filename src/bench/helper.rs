//! `runlane __bench …`: small processes of one thread that the machine's limits are measured with.
//!
//! | arguments | does |
//! |---|---|
//! | `spawn-for MS` | after a byte on stdin: runs /bin/true again and again for that time, and tells how often |
//! | `spawn-each` | for each byte on stdin: runs /bin/true once, and tells how long that took |
//! | `copy` | copies stdin to /dev/null through `read` and `write`, and tells how much and in what time |
//!
//! Programs are started by `posix_spawn` (std's `Command` does it so if nothing is to be done in the
//! child), with the helper's own stdin and stdout, so that nothing is opened for them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use serde::{Deserialize, Serialize};

/// The first argument that makes this program a helper.
pub const HELPER_ARGUMENT: &str = "__bench";
/// What is run to measure spawns, bare and as a task.
pub const TRUE: &str = "/bin/true";
/// Bytes that are read and written at once.
const BLOCK: usize = 64 * 1024;

/// What `spawn-for` tells, as a line of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Spawned {
    /// Spawns and waits.
    pub(super) count: u64,
    /// The time for all of them.
    pub(super) nanos: u64,
    /// CPU time of this process and of what it ran.
    pub(super) cpu_micros: u64,
}

/// What `copy` tells, as a line of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Copied {
    /// Bytes to the end.
    pub(super) bytes: u64,
    /// From the first byte to the end.
    pub(super) nanos: u64,
}

/// Runs a helper, if this process was started as one, and returns its exit code at its end.
///
/// To be called in `main` before arguments are parsed, a runtime exists or a thread starts.
pub fn maybe_run() -> Option<ExitCode> {
    let mut args = std::env::args().skip(1);
    if args.next()? != HELPER_ARGUMENT {
        return None;
    }
    let (what, number) = (args.next().unwrap_or_default(), args.next());
    let number = number.and_then(|number| number.parse().ok()).unwrap_or(0);
    let done = match what.as_str() {
        "spawn-for" => spawn_for(Duration::from_millis(number)),
        "spawn-each" => spawn_each(),
        "copy" => copy(),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    Some(if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn spawn_for(time: Duration) -> io::Result<()> {
    let mut command = Command::new(TRUE);
    // The first one loads files.
    spawn(&mut command)?;
    if io::stdin().read(&mut [0])? == 0 {
        return Ok(());
    }
    let (cpu, start) = (cpu_micros()?, Instant::now());
    let mut count = 0;
    while start.elapsed() < time {
        spawn(&mut command)?;
        count += 1;
    }
    let nanos = nanos(start.elapsed());
    tell(&Spawned { count, nanos, cpu_micros: cpu_micros()?.saturating_sub(cpu) })
}

fn spawn_each() -> io::Result<()> {
    let mut command = Command::new(TRUE);
    while io::stdin().read(&mut [0])? > 0 {
        let start = Instant::now();
        spawn(&mut command)?;
        tell(&nanos(start.elapsed()))?;
    }
    Ok(())
}

fn spawn(command: &mut Command) -> io::Result<()> {
    match command.status()?.success() {
        true => Ok(()),
        false => Err(io::Error::other("the program failed")),
    }
}

fn copy() -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    let mut stdin = io::stdin().lock();
    let mut null = File::options().write(true).open("/dev/null")?;
    let mut bytes = 0;
    let mut start = None;
    loop {
        let size = stdin.read(&mut block)?;
        let start = start.get_or_insert_with(Instant::now);
        if size == 0 {
            return tell(&Copied { bytes, nanos: nanos(start.elapsed()) });
        }
        null.write_all(&block[..size])?;
        bytes += size as u64;
    }
}

fn tell(value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    let mut stdout = io::stdout().lock();
    stdout.write_all(&line)?;
    stdout.flush()
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// User and system time of this process and of the children that it has waited for.
fn cpu_micros() -> io::Result<u64> {
    let mut sum = 0;
    for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
        let usage = getrusage(who)?;
        sum += usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    }
    Ok(sum.cast_unsigned())
}
