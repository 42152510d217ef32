//! Worker processes, each behind proxies of its own.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use runlane::config::{Config, RawConfig};
use runlane::exec::Spawner;
use runlane::setup;
use runlane::telemetry::logging;
use tokio::process::Child;
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::args::Options;
use crate::process;
use crate::proxy::{Network, Proxy};
use crate::servers::Servers;

/// How long a worker that was asked to end may take before the run counts that as a violation.
const END_TIME: Duration = Duration::from_secs(40);

/// All workers of a run.
pub(crate) struct Fleet {
    pub(crate) places: Vec<Place>,
}

/// Where one worker at a time runs.
pub(crate) struct Place {
    proxies: Vec<Proxy>,
    dir: PathBuf,
    index: usize,
    capacity: usize,
    lease: Duration,
    replicas: usize,
    unguarded: Option<&'static str>,
    /// Held by the fault that is going on here.
    pub(crate) worker: Arc<Mutex<Running>>,
}

/// The worker process of a place.
#[derive(Default)]
pub(crate) struct Running {
    pub(crate) name: String,
    incarnation: u32,
    child: Option<Child>,
}

impl Fleet {
    /// Starts the workers.
    pub(crate) async fn start(options: &Options, servers: &Servers, dir: &Path) -> io::Result<Self> {
        let mut places = Vec::new();
        for index in 0..options.workers {
            let mut proxies = Vec::new();
            for port in servers.ports() {
                proxies.push(Proxy::start(port).await?);
            }
            let place = Place {
                proxies,
                dir: dir.to_owned(),
                index,
                capacity: options.capacity,
                lease: options.lease,
                replicas: servers.count(),
                unguarded: options.unguarded,
                worker: Arc::default(),
            };
            place.start_worker(&mut *place.worker.lock().await, true)?;
            places.push(place);
        }
        Ok(Self { places })
    }

    /// Makes all networks work and all workers run.
    pub(crate) async fn heal(&self) -> io::Result<()> {
        for place in &self.places {
            place.network(Network::Fine);
            let mut running = place.worker.lock().await;
            running.signal(Signal::SIGCONT);
            if running.has_ended() {
                place.start_worker(&mut running, false)?;
            }
        }
        Ok(())
    }

    /// Asks all workers to end; returns the names of those that don't.
    pub(crate) async fn drain(&self) -> Vec<String> {
        let mut stuck = Vec::new();
        for place in &self.places {
            place.worker.lock().await.signal(Signal::SIGTERM);
        }
        for place in &self.places {
            let mut running = place.worker.lock().await;
            if !running.ended(END_TIME).await {
                stuck.push(running.name.clone());
            }
        }
        stuck
    }
}

impl Place {
    /// What the network between the worker here and all servers does.
    pub(crate) fn network(&self, network: Network) {
        for proxy in &self.proxies {
            proxy.set(network);
        }
    }

    /// Starts a worker, under a new name or the one before.
    pub(crate) fn start_worker(&self, running: &mut Running, renamed: bool) -> io::Result<()> {
        if renamed || running.name.is_empty() {
            running.incarnation += 1;
            running.name = format!("w{}-{}", self.index + 1, running.incarnation);
        }
        let config = self.dir.join(format!("{}.toml", running.name));
        std::fs::write(&config, self.config(&running.name))?;
        let log = self.dir.join(format!("{}.log", running.name));
        running.child = Some(process::spawn_worker(&config, self.unguarded, &log)?);
        Ok(())
    }

    fn config(&self, name: &str) -> String {
        let servers: Vec<_> =
            self.proxies.iter().map(|proxy| format!("\"nats://127.0.0.1:{}\"", proxy.port)).collect();
        format!(
            "[nats]\nservers = [{}]\n[worker]\nname = \"{name}\"\ncapacity = {}\nlease = \"{}ms\"\n\
             drain_timeout = \"500ms\"\n[streams]\nreplicas = {}\n",
            servers.join(", "),
            self.capacity,
            self.lease.as_millis(),
            self.replicas
        )
    }
}

impl Running {
    pub(crate) fn pid(&self) -> Option<i32> {
        self.child.as_ref().and_then(process::pid)
    }

    pub(crate) fn signal(&self, signal: Signal) -> bool {
        self.pid().is_some_and(|pid| process::signal(pid, signal))
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }

    /// Waits for the worker's end; kills it if it takes longer, and says so.
    pub(crate) async fn ended(&mut self, limit: Duration) -> bool {
        let Some(child) = &mut self.child else { return true };
        let ended = timeout(limit, child.wait()).await.is_ok();
        if !ended {
            // Whether it is there or not: it isn't, then.
            child.kill().await.ok();
        }
        ended
    }

    pub(crate) async fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.ended(END_TIME).await;
    }
}

/// The worker process: what `runlane worker --config FILE` does.
pub(crate) fn worker_main(config: &Path) -> ExitCode {
    let run = async {
        let config = Config::load(Some(config), RawConfig::default()).map_err(io::Error::other)?;
        let name = config.worker.name.as_ref().map(ToString::to_string).unwrap_or_default();
        // A server may be down, or the network, at the moment of the start.
        let opened = loop {
            match setup::open(&config, &name).await {
                Ok(opened) => break opened,
                Err(error) => tracing::warn!(%error, "not connected"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        loop {
            let options = setup::DaemonOptions {
                spawner: Spawner::of_this_program(),
                started: Box::new(|name| tracing::info!(worker = %name, "started")),
            };
            match setup::daemon(&config, &opened, options).await {
                Ok(ended) => {
                    tracing::info!(?ended, "ended");
                    return io::Result::Ok(());
                }
                Err(error) => tracing::warn!(?error, "not started"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    if logging::init(Some("info,async_nats=off"), logging::LogFormat::Text).is_err() {
        return ExitCode::FAILURE;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime.map(|runtime| runtime.block_on(run)) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) | Err(error) => {
            tracing::error!(%error, "the worker failed");
            ExitCode::FAILURE
        }
    }
}
