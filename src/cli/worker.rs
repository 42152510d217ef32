//! `runlane worker`: the daemon.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::exit::{CONFIG, FAILED, Failure, HANDED_BACK, USAGE};
use super::global::{GlobalArgs, open};
use super::isolation::{self, Fitted};
use super::isolation_args::PresetArg;
use super::run::Stops;
use super::{init, settings};
use crate::config::{Config, LogFormat, RawConfig};
use crate::exec::{OpenFiles, Spawner};
use crate::nats::Bus;
use crate::nats::connect::Connected;
use crate::nats::link::LinkState;
use crate::telemetry::{self, HealthServer, Metrics, logging, metrics};
use crate::wire::WorkerId;
use crate::worker::{Drain, Readiness, Worker, WorkerError, WorkerSettings};

/// How often the readiness probe's answer is brought up to date.
const READINESS_INTERVAL: Duration = Duration::from_millis(500);

/// Run a worker: pull tasks, run them, publish their output and outcomes
///
/// Everything has a default: without a configuration there is one runner, `default`, without limits, and
/// as many tasks run at once as there are cores. The first Ctrl-C or SIGTERM lets running tasks end and
/// takes no new ones; the second stops them and hands them back; the third kills them.
#[derive(Debug, Args)]
pub(super) struct WorkerArgs {
    /// Configuration file; `examples/worker.toml` explains every setting
    #[arg(long, short = 'c', env = "RUNLANE_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// The worker's name, unique in the namespace [default: made from the host's name]
    #[arg(long, env = "RUNLANE_WORKER_NAME", value_name = "NAME")]
    name: Option<String>,

    /// How many tasks run at once [default: the number of cores]
    #[arg(long, env = "RUNLANE_CAPACITY", value_name = "N")]
    capacity: Option<u32>,

    /// Preset of isolation of every runner [default: the file's, else standard]
    #[arg(long, value_enum, env = "RUNLANE_ISOLATION", value_name = "PRESET")]
    isolation: Option<PresetArg>,

    /// Label of every runner of this worker. Can be repeated
    #[arg(
        long,
        short = 'l',
        env = "RUNLANE_LABELS",
        value_name = "NAME=VALUE",
        value_delimiter = ','
    )]
    label: Vec<String>,

    /// Serve /metrics, /healthz and /readyz at this address, such as 127.0.0.1:9464
    #[arg(long, env = "RUNLANE_METRICS", value_name = "ADDR")]
    metrics: Option<String>,
}

pub(super) async fn run(global: &GlobalArgs, args: WorkerArgs) -> Result<u8, Failure> {
    let mut raw = global.overrides();
    raw.worker.name = args.name;
    raw.worker.capacity = args.capacity;
    raw.worker.labels = labels(&args.label)?;
    raw.metrics.listen = args.metrics;
    let config = load(args.config.as_deref(), raw, args.isolation)?;
    start_log(&config)?;
    let isolation = isolation::fit(&config, args.config.as_deref())?;
    let name = name(&config);
    let (connected, bus) = open(&config, &format!("runlane worker {name}")).await?;
    let stops = Stops::listen()?;
    serve(&config, (name, isolation), &connected, bus, stops, || Ok(())).await
}

/// Loads a file, under flags and variables.
fn load(
    file: Option<&Path>,
    overrides: RawConfig,
    preset: Option<PresetArg>,
) -> Result<Config, Failure> {
    let raw = init::merge(file, overrides)?;
    let raw = match preset {
        Some(preset) => raw.with_isolation(preset.preset()),
        None => raw,
    };
    Ok(Config::load(None, raw)?)
}

/// Labels as flags.
pub(super) fn labels(pairs: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let pair = |pair: &String| match pair.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => {
            let message = format!("--label {pair:?} has no value; write it as NAME=VALUE");
            Err(Failure::new(USAGE, message))
        }
    };
    pairs.iter().map(pair).collect()
}

/// Starts the process's log on stderr.
pub(super) fn start_log(config: &Config) -> Result<(), Failure> {
    let format = match config.log.format {
        LogFormat::Text => logging::LogFormat::Text,
        LogFormat::Json => logging::LogFormat::Json,
    };
    logging::init(Some(&config.log.filter), format).map_err(|error| Failure::of(CONFIG, &error))
}

/// The configured name, or one of the host's name and a random end: a worker that starts anew must not
/// be taken for the one before.
pub(super) fn name(config: &Config) -> WorkerId {
    if let Some(name) = &config.worker.name {
        return name.clone();
    }
    let host = config.worker.labels.get("hostname").map_or("worker", |name| name);
    let token = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '-' };
    let host: String = host.chars().take(64).map(token).collect();
    let random = uuid::Uuid::now_v7().simple().to_string();
    let end = &random[random.len() - 6..];
    format!("{host}-{end}").parse().expect("letters, digits, - and _, at most 71 of them")
}

/// Runs a worker until it has ended after a signal. `tell` says that tasks can be submitted.
pub(super) async fn serve(
    config: &Config,
    (name, isolation): (WorkerId, Fitted),
    connected: &Connected,
    bus: Bus,
    mut stops: Stops,
    tell: impl FnOnce() -> Result<(), Failure>,
) -> Result<u8, Failure> {
    isolation.log(config);
    let spawner = Spawner::of_this_program().with_open_files(open_files(config)?);
    let worker_settings = worker_settings(config, name, &isolation);
    let (ready, readiness) =
        watch::channel(telemetry::Readiness::NotReady(vec!["starting".to_owned()]));
    let health = Health::start(config.metrics, readiness).await?;
    let link = connected.link.clone();
    // The connection was made before anybody counted.
    metrics::nats_connected(link.borrow().state == LinkState::Up);
    let started = Worker::start(bus, link, spawner, worker_settings).await;
    let mut worker = started.map_err(worker_failure)?;
    tell()?;
    let mut urgency = Drain::No;
    let mut tick = interval(READINESS_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let report = loop {
        // Cancel safe: all three keep what isn't taken.
        tokio::select! {
            report = worker.ended() => break report.map_err(worker_failure)?,
            () = stops.next() => {
                urgency = more_urgent(urgency);
                tracing::info!(?urgency, "asked to end");
                worker.drain(urgency);
            }
            _ = tick.tick() => drop(ready.send_replace(probe(&worker))),
        }
    };
    health.stop().await;
    tracing::info!(requeued = report.requeued, "worker ended");
    Ok(if report.requeued == 0 { 0 } else { HANDED_BACK })
}

/// Takes as many open files as this process may have; returns how many its tasks get.
fn open_files(config: &Config) -> Result<u64, Failure> {
    let limits = OpenFiles::raise().map_err(|error| {
        Failure::new(FAILED, format!("cannot raise the limit of open files: {error}"))
    })?;
    let (capacity, limit) = (config.worker.capacity, limits.ours);
    let needed = OpenFiles::needed(capacity);
    if limit < needed {
        let message = format!(
            "a worker with a capacity of {capacity} has up to {needed} files open, and its hard limit is \
             {limit}: raise that (`ulimit -Hn`, LimitNOFILE= of a systemd unit), or lower worker.capacity"
        );
        return Err(Failure::new(CONFIG, message));
    }
    Ok(limits.of_tasks)
}

fn more_urgent(urgency: Drain) -> Drain {
    match urgency {
        Drain::No => Drain::Wait,
        Drain::Wait => Drain::Stop,
        Drain::Stop | Drain::Kill => Drain::Kill,
    }
}

fn probe(worker: &Worker) -> telemetry::Readiness {
    match worker.readiness() {
        Readiness::Ready => telemetry::Readiness::Ready,
        Readiness::NotReady(why) => telemetry::Readiness::NotReady(vec![why.to_owned()]),
    }
}

fn worker_failure(error: WorkerError) -> Failure {
    match error {
        WorkerError::Topology(error) => error.into(),
        WorkerError::Bus(error) => error.into(),
        WorkerError::Runners(_) => Failure::of(CONFIG, &error),
        WorkerError::Panicked(_) => Failure::of(FAILED, &error),
    }
}

fn worker_settings(config: &Config, worker: WorkerId, isolation: &Fitted) -> WorkerSettings {
    let host = isolation.host();
    let runners = config.worker.runners.iter().zip(isolation.runners.clone());
    WorkerSettings {
        worker,
        capacity: config.worker.capacity,
        labels: config.worker.labels.clone(),
        runners: runners.map(|(runner, fitted)| settings::runner(runner, fitted)).collect(),
        drain_timeout: config.worker.drain_timeout,
        max_lanes: config.worker.max_lanes.get(),
        manage: config.worker.manage_streams.then(|| settings::topology(config)),
        state_dir: state_dir(config),
        submit_service: true,
        host,
    }
}

/// Where unstored ends are kept: the configured place, systemd's, or the user's (XDG base directories).
pub(super) fn state_dir(config: &Config) -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let user = || {
        let home = || set("HOME").map(|home| PathBuf::from(home).join(".local/state"));
        set("XDG_STATE_HOME").map(PathBuf::from).or_else(home).map(|dir| dir.join("runlane"))
    };
    let dir = config.worker.state_dir.clone();
    let dir = dir.or_else(|| set("STATE_DIRECTORY").map(PathBuf::from)).or_else(user);
    dir.map(|dir| dir.join(config.namespace.as_str()))
}

/// The port for probes and scrapes, if one is configured.
struct Health {
    server: JoinSet<()>,
    stop: oneshot::Sender<()>,
}

impl Health {
    async fn start(
        listen: Option<SocketAddr>,
        readiness: watch::Receiver<telemetry::Readiness>,
    ) -> Result<Self, Failure> {
        let mut server = JoinSet::new();
        let (stop, stopped) = oneshot::channel::<()>();
        if let Some(addr) = listen {
            let metrics = Metrics::install().map_err(|error| Failure::of(FAILED, &error))?;
            let bound = HealthServer::bind(addr, Some(metrics), readiness).await;
            let bound = bound.map_err(|error| {
                Failure::new(CONFIG, format!("cannot serve metrics at {addr}: {error}"))
            })?;
            tracing::info!(%addr, "metrics and health are served");
            server.spawn(bound.run(async move { drop(stopped.await) }));
        }
        Ok(Self { server, stop })
    }

    async fn stop(mut self) {
        drop(self.stop);
        // A scrape that is being answered gets its answer.
        while self.server.join_next().await.is_some() {}
    }
}
