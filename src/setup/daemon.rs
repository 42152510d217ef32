//! The worker as a process: connection, metrics and health, signals, drain.
//!
//! | signal | first | second | third |
//! |---|---|---|---|
//! | SIGTERM, SIGINT | no new tasks; wait for those that run, up to the drain timeout, then stop them and hand them back | stop them now and hand them back | kill them and hand them back |

use std::io;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::interval;

use super::connection::{Opened, topology_settings};
use crate::config::{Config, RunnerConfig};
use crate::exec::Spawner;
use crate::telemetry::{HealthServer, Metrics, MetricsError, health};
use crate::wire::WorkerId;
use crate::worker::{
    Drain, LineLog, Readiness, Report, Runner, SubprocessRunner, Worker, WorkerError,
    WorkerSettings,
};

/// How often readiness is looked at.
const READINESS_INTERVAL: Duration = Duration::from_millis(500);

/// What the worker process is given besides its configuration.
pub struct DaemonOptions {
    /// How its tasks' processes are started.
    pub spawner: Spawner,
    /// Called once, when the worker takes tasks.
    pub started: Box<dyn FnOnce(&WorkerId) + Send>,
}

/// How the worker process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// What it did.
    pub report: Report,
    /// How urgently it was asked to end.
    pub asked: Drain,
}

/// Why the worker process could not be started, or ended.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// The address of metrics and health can't be used.
    #[error("cannot serve metrics on {address}")]
    Metrics {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Metrics can't be recorded.
    #[error(transparent)]
    Recorder(#[from] MetricsError),
    /// Signals can't be heard.
    #[error("cannot listen to signals")]
    Signals(#[source] io::Error),
    /// The worker failed.
    #[error(transparent)]
    Worker(#[from] WorkerError),
}

/// Runs a worker until a signal ends it.
///
/// # Errors
/// See [`DaemonError`].
pub async fn daemon(
    config: &Config,
    opened: &Opened,
    options: DaemonOptions,
) -> Result<Ended, DaemonError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(DaemonError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(DaemonError::Signals)?;
    let (ready_tx, ready) = watch::channel(health::Readiness::NotReady(vec!["starting".into()]));
    let mut services = JoinSet::new();
    serve_health(config, ready, &mut services).await?;
    let settings = worker_settings(config);
    let name = settings.worker.clone();
    let link = opened.connected.link.clone();
    let mut worker =
        Worker::start(opened.bus.clone(), link, options.spawner, settings).await?;
    (options.started)(&name);
    let mut readiness = interval(READINESS_INTERVAL);
    let mut asked = Drain::No;
    let report = loop {
        // Cancel safe: a signal, a tick and the worker's end stay where they are until taken.
        tokio::select! {
            ended = worker.ended() => break ended?,
            () = either(&mut terminate, &mut interrupt) => asked = more_urgent(asked),
            _ = readiness.tick() => {}
        }
        worker.drain(asked);
        ready_tx.send_replace(match worker.readiness() {
            Readiness::Ready => health::Readiness::Ready,
            Readiness::NotReady(why) => health::Readiness::NotReady(vec![why.into()]),
        });
    };
    services.shutdown().await;
    Ok(Ended { report, asked })
}

/// Translates the configuration of the worker. Variables that its runners hand on are read now.
pub fn worker_settings(config: &Config) -> WorkerSettings {
    let worker = &config.worker;
    WorkerSettings {
        worker: worker.name.clone().unwrap_or_else(default_name),
        capacity: worker.capacity,
        labels: worker.labels.clone(),
        runners: worker.runners.iter().map(runner).collect(),
        drain_timeout: worker.drain_timeout,
        max_lanes: worker.max_lanes.get(),
        manage: worker.manage_streams.then(|| topology_settings(config)),
        submit_service: true,
    }
}

fn runner(config: &RunnerConfig) -> Box<dyn Runner> {
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Box::new(SubprocessRunner::new(
        config.name.clone(),
        config.labels.clone(),
        config.policy(environment),
        config.log.map(|log| LineLog { max_line_bytes: log.max_line_bytes }),
    ))
}

/// The host's name and something that tells workers on one host apart.
fn default_name() -> WorkerId {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let host: String = host
        .unwrap_or_default()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' })
        .take(80)
        .collect();
    let unique = uuid::Uuid::new_v4().simple().to_string();
    let host = if host.is_empty() { "worker" } else { &host };
    format!("{host}-{}", &unique[..6]).parse().expect("a host's name made of allowed characters")
}

async fn serve_health(
    config: &Config,
    ready: watch::Receiver<health::Readiness>,
    services: &mut JoinSet<()>,
) -> Result<(), DaemonError> {
    let Some(address) = config.metrics else { return Ok(()) };
    let metrics = Metrics::install()?;
    let server = HealthServer::bind(address, Some(metrics), ready).await;
    let server = server.map_err(|source| DaemonError::Metrics { address, source })?;
    if let Ok(address) = server.local_addr() {
        tracing::info!(%address, "serving /metrics, /healthz and /readyz");
    }
    services.spawn(server.run(std::future::pending()));
    Ok(())
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    // Cancel safe, as a signal's `recv` is.
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn more_urgent(asked: Drain) -> Drain {
    match asked {
        Drain::No => Drain::Wait,
        Drain::Wait => Drain::Stop,
        Drain::Stop | Drain::Kill => Drain::Kill,
    }
}
