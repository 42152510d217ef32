//! What the machine can do without runlane: the limits that all figures are ratios to.

use std::io;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::helper::{Copied, HELPER_ARGUMENT, Spawned};
use super::stats::{Samples, Spread, per_second};
use super::{BenchError, Progress};
use crate::exec::THIS_PROGRAM;
use crate::nats::{Bus, BusError};

/// How the limits are measured.
#[derive(Debug, Clone)]
pub struct LimitsOptions {
    /// Rounds.
    pub rounds: usize,
    /// How long spawns are counted in each round.
    pub spawn_time: Duration,
    /// Spawns one by one, and requests, in each round.
    pub samples: usize,
    /// Bytes through the pipe in each round.
    pub pipe_bytes: u64,
}

/// The machine's limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Processes that spawned at once: one for each core.
    pub spawners: usize,
    /// Spawns and waits of /bin/true in all of them, per second.
    pub spawns_per_second: Spread,
    /// CPU time of one of these, of the spawner and of what it ran.
    pub spawn_cpu_ms: Spread,
    /// One spawn and wait, the machine being idle before: median.
    pub idle_spawn_p50_ms: Spread,
    /// The same: 99th percentile.
    pub idle_spawn_p99_ms: Spread,
    /// What `head` writes into a pipe and another process copies out, in 10^6 bytes per second.
    pub pipe_megabytes_per_second: Spread,
    /// A request to the server, which answers it itself: median. None: no server was used.
    pub nats_round_trip_p50_ms: Option<Spread>,
    /// The same: 99th percentile.
    pub nats_round_trip_p99_ms: Option<Spread>,
}

/// Pause before a spawn that is measured alone: a submitter that waits for each task is idle between.
pub(super) const PAUSE: Duration = Duration::from_millis(5);

/// Measures all limits; those of the server only if there is one.
///
/// # Errors
/// A helper fails, or the server does not answer.
pub async fn limits(
    options: &LimitsOptions,
    bus: Option<&Bus>,
    progress: Progress<'_>,
) -> Result<Limits, BenchError> {
    let mut probe = SpawnProbe::start().await?;
    let mut rounds = Vec::new();
    for round in 1..=options.rounds {
        progress(&format!("limits: round {round} of {}", options.rounds));
        let spawns = spawn_rate(options.spawn_time).await?;
        let mut idle = Vec::with_capacity(options.samples);
        for _ in 0..options.samples {
            tokio::time::sleep(PAUSE).await;
            idle.push(probe.once().await?);
        }
        let pipe = pipe_rate(options.pipe_bytes).await?;
        let trips = match bus {
            Some(bus) => Some(Samples::of_times(&round_trips(bus, options.samples).await?)),
            None => None,
        };
        rounds.push((spawns, Samples::of_times(&idle), pipe, trips));
    }
    let trips = |value: fn(&Samples) -> f64| {
        let trips: Option<Vec<f64>> = rounds.iter().map(|r| r.3.as_ref().map(value)).collect();
        trips.map(Spread::of)
    };
    Ok(Limits {
        spawners: cores(),
        spawns_per_second: Spread::over(&rounds, |round| round.0.per_second),
        spawn_cpu_ms: Spread::over(&rounds, |round| round.0.cpu_ms),
        idle_spawn_p50_ms: Spread::over(&rounds, |round| round.1.p50()),
        idle_spawn_p99_ms: Spread::over(&rounds, |round| round.1.p99()),
        pipe_megabytes_per_second: Spread::over(&rounds, |round| round.2),
        nats_round_trip_p50_ms: trips(Samples::p50),
        nats_round_trip_p99_ms: trips(Samples::p99),
    })
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Spawns of all cores together.
#[derive(Debug, Clone, Copy)]
pub(super) struct SpawnRate {
    pub(super) per_second: f64,
    pub(super) cpu_ms: f64,
}

/// Spawns /bin/true in one process for each core for some time.
#[allow(clippy::cast_precision_loss)]
pub(super) async fn spawn_rate(time: Duration) -> Result<SpawnRate, BenchError> {
    let failed = |source| BenchError::Helper { what: "spawns per second", source };
    let millis = time.as_millis().to_string();
    let mut helpers = Vec::new();
    for _ in 0..cores() {
        helpers.push(Helper::start(&["spawn-for", &millis]).map_err(failed)?);
    }
    for helper in &mut helpers {
        helper.go().await.map_err(failed)?;
    }
    let (mut per_second, mut count, mut cpu_micros) = (0.0, 0, 0);
    for mut helper in helpers {
        let spawned: Spawned = helper.told().await.map_err(failed)?;
        let time = Duration::from_nanos(spawned.nanos);
        per_second += self::per_second(usize::try_from(spawned.count).unwrap_or(0), time);
        count += spawned.count;
        cpu_micros += spawned.cpu_micros;
    }
    let cpu_ms = cpu_micros as f64 / 1000.0 / count.max(1) as f64;
    Ok(SpawnRate { per_second, cpu_ms })
}

/// A small process that spawns /bin/true when asked.
pub(super) struct SpawnProbe(Helper);

impl SpawnProbe {
    pub(super) async fn start() -> Result<Self, BenchError> {
        let failed = |source| BenchError::Helper { what: "single spawns", source };
        let mut probe = Self(Helper::start(&["spawn-each"]).map_err(failed)?);
        // The first ones load files.
        for _ in 0..3 {
            probe.once().await?;
        }
        Ok(probe)
    }

    /// One spawn and wait, as the helper sees it.
    pub(super) async fn once(&mut self) -> Result<Duration, BenchError> {
        let failed = |source| BenchError::Helper { what: "single spawns", source };
        self.0.go().await.map_err(failed)?;
        self.0.told().await.map(Duration::from_nanos).map_err(failed)
    }
}

/// Lets `head` write zeros into a pipe, as the task of [`super::output()`] does, and a small process copy
/// them out through `read` and `write`; returns 10^6 bytes per second.
#[allow(clippy::cast_precision_loss)]
pub(super) async fn pipe_rate(bytes: u64) -> Result<f64, BenchError> {
    let failed = |source| BenchError::Helper { what: "the pipe", source };
    let mut writer = Command::new("head");
    writer.args(["-c", &bytes.to_string(), "/dev/zero"]).kill_on_drop(true);
    let mut writer = writer.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let pipe = writer.stdout.take().expect("it is piped");
    let pipe: Stdio = pipe.try_into().map_err(failed)?;
    let mut reader = command(&["copy"]);
    let mut reader = reader.stdin(pipe).stdout(Stdio::piped()).spawn().map_err(failed)?;
    let mut told = String::new();
    let mut output = reader.stdout.take().expect("it is piped");
    output.read_to_string(&mut told).await.map_err(failed)?;
    writer.wait().await.map_err(failed)?;
    reader.wait().await.map_err(failed)?;
    let copied: Copied = serde_json::from_str(&told).map_err(|error| failed(error.into()))?;
    if copied.bytes != bytes {
        return Err(failed(io::Error::other(format!("{} of {bytes} bytes came", copied.bytes))));
    }
    Ok(copied.bytes as f64 / 1000.0 / (copied.nanos.max(1) as f64 / 1e6))
}

/// Asks the server something that it answers by itself: nobody listens on the subject.
pub(super) async fn round_trips(bus: &Bus, samples: usize) -> Result<Vec<Duration>, BenchError> {
    let subject = format!("{}.bench.nobody", bus.subjects().namespace());
    let mut times = Vec::with_capacity(samples);
    for _ in 0..samples {
        let start = Instant::now();
        match bus.ask(subject.clone(), Default::default()).await {
            Ok(_) | Err(BusError::NoStream { .. }) => times.push(start.elapsed()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(times)
}

/// A helper process that is spoken to.
struct Helper {
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
    /// Killed on drop.
    _child: Child,
}

impl Helper {
    fn start(args: &[&str]) -> io::Result<Self> {
        let mut child = command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take().expect("it is piped");
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        Ok(Self { stdin, stdout, _child: child })
    }

    async fn go(&mut self) -> io::Result<()> {
        self.stdin.write_all(b"g").await
    }

    async fn told<T: DeserializeOwned>(&mut self) -> io::Result<T> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).await?;
        if line.is_empty() {
            return Err(io::Error::other("it ended without a result"));
        }
        serde_json::from_str(&line).map_err(io::Error::from)
    }
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(THIS_PROGRAM);
    command.arg(HELPER_ARGUMENT).args(args).stderr(Stdio::null()).kill_on_drop(true);
    command
}
