//! Worker processes, each behind proxies of its own.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::process::Child;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use crate::args::Options;
use crate::process;
use crate::proxy::{Network, Proxy};
use crate::servers::Servers;
use crate::timeline::Timeline;

/// How long a worker that was asked to end may take before the run counts that as a violation.
const END_TIME: Duration = Duration::from_secs(40);

/// How often workers are looked at that ended by themselves.
const KEEP_INTERVAL: Duration = Duration::from_millis(250);

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
    pub(crate) async fn start(
        options: &Options,
        servers: &Servers,
        dir: &Path,
    ) -> io::Result<Self> {
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

    /// Starts workers again that ended by themselves, such as those that found no server; until dropped.
    pub(crate) async fn keep(&self, timeline: &Timeline) -> io::Result<()> {
        loop {
            for place in &self.places {
                if let Some(name) = place.keep()? {
                    timeline.add("worker ended by itself", name);
                }
            }
            sleep(KEEP_INTERVAL).await;
        }
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

    /// Starts a worker that ended by itself again, as a service manager does. Returns its name.
    fn keep(&self) -> io::Result<Option<String>> {
        // Whoever holds it has done something to the worker, and starts it again.
        let Ok(mut running) = self.worker.try_lock() else { return Ok(None) };
        if !running.has_ended() {
            return Ok(None);
        }
        self.start_worker(&mut running, false)?;
        Ok(Some(running.name.clone()))
    }

    fn config(&self, name: &str) -> String {
        let servers: Vec<_> = self
            .proxies
            .iter()
            .map(|proxy| format!("\"nats://127.0.0.1:{}\"", proxy.port))
            .collect();
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
