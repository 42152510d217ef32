//! Where it is measured: a server, a namespace, and a worker; and their end.
//!
//! | place | server | namespace | worker |
//! |---|---|---|---|
//! | private | started here, file storage in a temporary directory | `bench` | started here |
//! | server | the configured one | `bench-…`, removed at the end | started here |
//! | workers | the configured one | the configured one | those that are there |
//!
//! A site is opened step by step and keeps what is there, so that [`Site::close`] ends all of it also
//! after a step that failed or was broken off. Dropping it kills the processes and removes the directory,
//! but leaves the streams on a server that isn't its own.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::namespace::{self, is_there, own_namespace, presets, remove_streams};
use super::worker::{WorkerCommand, WorkerProcess};
use super::{BenchError, Facts, Machine};
use crate::client::Client;
use crate::devserver::{DevServer, DevServerOptions};
use crate::exec::THIS_PROGRAM;
use crate::nats::settings::ServerUrl;
use crate::nats::{Bus, ConnectSettings, connect, topology};
use crate::wire::{Namespace, Subjects, TaskId, WorkerId};

/// How long a worker may take to say that it is there.
const START_TIME: Duration = Duration::from_secs(30);
/// How long the queue may take to be empty after the last outcome.
const SETTLE_TIME: Duration = Duration::from_secs(30);
/// Tasks that are removed at once.
const PURGES: usize = 32;

/// Where it is measured.
#[derive(Debug, Clone)]
pub enum Place {
    /// On a server of its own.
    Private {
        /// The nats-server to start.
        nats_server: PathBuf,
    },
    /// On a server that is there, in a namespace of its own.
    Server(ConnectSettings),
    /// On a server, in a namespace, and by workers that are there.
    Workers(ConnectSettings, Namespace),
}

impl Place {
    /// Its name in reports.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Private { .. } => "private",
            Self::Server(_) => "server",
            Self::Workers(..) => "workers",
        }
    }
}

/// How a site is opened.
#[derive(Debug, Clone)]
pub struct SiteOptions {
    /// Where.
    pub place: Place,
    /// How workers are started.
    pub worker: WorkerCommand,
}

/// A server, a namespace and a worker; see the module's documentation.
pub struct Site {
    options: SiteOptions,
    machine: Machine,
    date: jiff::Timestamp,
    dir: TempDir,
    server: Option<DevServer>,
    connection: Option<Connection>,
    workers: Vec<WorkerProcess>,
    workers_started: usize,
    /// Tasks that stay in a namespace that isn't the site's own.
    guests: Vec<TaskId>,
}

struct Connection {
    settings: ConnectSettings,
    client: Client,
    connected: crate::nats::Connected,
}

impl Site {
    /// Makes a site that has nothing yet but a directory.
    ///
    /// # Errors
    /// There is no directory.
    pub fn new(options: SiteOptions) -> Result<Self, BenchError> {
        let machine = Machine::here();
        let dir = tempfile::Builder::new().prefix("runlane-bench-").tempdir();
        Ok(Self {
            options,
            machine,
            date: jiff::Timestamp::now(),
            dir: dir.map_err(BenchError::Directory)?,
            server: None,
            connection: None,
            workers: Vec::new(),
            workers_started: 0,
            guests: Vec::new(),
        })
    }

    /// Starts the server if it is to be its own, and connects.
    ///
    /// # Errors
    /// The server can't be started or reached.
    pub async fn open(&mut self) -> Result<(), BenchError> {
        let (settings, namespace) = match self.options.place.clone() {
            Place::Private { nats_server } => {
                let mut options = DevServerOptions::new(nats_server, self.dir.path().join("nats"));
                options.guard = Some(THIS_PROGRAM.into());
                let server = DevServer::start(options).await?;
                let servers = vec![ServerUrl::new(server.url())];
                self.server = Some(server);
                (ConnectSettings { servers, ..ConnectSettings::default() }, own_namespace())
            }
            Place::Server(settings) => (settings, own_namespace()),
            Place::Workers(settings, namespace) => (settings, namespace),
        };
        let connected = connect(&settings).await?;
        let bus = Bus::over(&connected, Subjects::new(namespace));
        self.connection = Some(Connection { settings, client: Client::new(bus), connected });
        Ok(())
    }

    /// The client. The site is open.
    pub fn client(&self) -> &Client {
        &self.connection.as_ref().expect("the site was opened").client
    }

    pub(super) fn bus(&self) -> &Bus {
        self.client().bus()
    }

    /// Starts a worker with so many places, if workers are its own, and returns when it has said that it
    /// is there. The workers before end.
    ///
    /// # Errors
    /// The worker ends, or does not come.
    pub(super) async fn start_worker(&mut self, capacity: usize) -> Result<(), BenchError> {
        self.stop_workers().await;
        self.add_worker(capacity).await
    }

    /// Starts one more worker.
    pub(super) async fn add_worker(&mut self, capacity: usize) -> Result<(), BenchError> {
        if let Place::Workers(..) = self.options.place {
            return Ok(());
        }
        self.workers_started += 1;
        let name = format!("bench-{}", self.workers_started).parse().expect("it is a name");
        let command = self.worker_command();
        let worker = WorkerProcess::start(&command, self.dir.path(), name, capacity)?;
        self.workers.push(worker);
        let client = &self.connection.as_ref().expect("the site was opened").client;
        let worker = self.workers.last_mut().expect("one was pushed");
        let deadline = Instant::now() + START_TIME;
        while !is_there(client, &worker.name).await {
            worker.check()?;
            if Instant::now() > deadline {
                return Err(worker.failed(format!("was not ready after {START_TIME:?}")));
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Copies the worker's program, for this site: memory that a worker shares with the program of the
    /// bench, because they are the same file, would count only by half.
    pub(super) fn separate_program(&mut self) -> Result<(), BenchError> {
        let copy = self.dir.path().join("runlane");
        if self.options.worker.program != copy {
            std::fs::copy(&self.options.worker.program, &copy).map_err(BenchError::Spawn)?;
            self.options.worker.program = copy;
        }
        Ok(())
    }

    /// The command with the site's own server and namespace.
    fn worker_command(&self) -> WorkerCommand {
        let mut command = self.options.worker.clone();
        let mut set = |name: &str, value: OsString| command.env.push((name.into(), Some(value)));
        let namespace = self.bus().subjects().namespace().to_string();
        set("RUNLANE_NAMESPACE", namespace.into());
        set("XDG_STATE_HOME", self.dir.path().join("state").into());
        if let Some(server) = &self.server {
            set("RUNLANE_SERVER", server.url().into());
        }
        command
    }

    /// The workers' names; none, if they are not the site's own.
    pub(super) fn worker_names(&self) -> Vec<WorkerId> {
        self.workers.iter().map(|worker| worker.name.clone()).collect()
    }

    /// The workers' processes, in the same way.
    pub(super) fn worker_pids(&self) -> Vec<u32> {
        self.workers.iter().map(|worker| worker.pid).collect()
    }

    /// The processes that fork the workers' task-inits.
    pub(super) fn spawner_pids(&self) -> Vec<u32> {
        self.workers.iter().filter_map(WorkerProcess::spawner).collect()
    }

    /// The server, if it is the site's own.
    pub(super) fn own_server(&self) -> Option<&DevServer> {
        self.server.as_ref()
    }

    /// The server's process; none: it isn't the site's own.
    pub(super) fn server_pid(&self) -> Option<u32> {
        self.own_server().map(DevServer::pid)
    }

    /// An error if a worker has ended.
    pub(super) fn check_workers(&mut self) -> Result<(), BenchError> {
        self.workers.iter_mut().try_for_each(WorkerProcess::check)
    }

    /// Ends the worker, and makes sure that the streams are there.
    pub(super) async fn without_worker(&mut self) -> Result<(), BenchError> {
        self.stop_workers().await;
        if !matches!(self.options.place, Place::Workers(..)) {
            topology::ensure(self.bus(), &topology::TopologySettings::default()).await?;
        }
        Ok(())
    }

    /// Removes all tasks and their output, which are the bench's own. Workers that are there keep theirs.
    pub(super) async fn clear(&self) -> Result<(), BenchError> {
        let subjects = self.bus().subjects();
        self.empty(&[subjects.queue_stream(), subjects.tasks_stream(), subjects.output_stream()])
            .await
    }

    /// Removes all output in the same way.
    pub(super) async fn clear_output(&self) -> Result<(), BenchError> {
        self.empty(&[self.bus().subjects().output_stream()]).await
    }

    async fn empty(&self, streams: &[String]) -> Result<(), BenchError> {
        if matches!(self.options.place, Place::Workers(..)) {
            return Ok(());
        }
        for stream in streams {
            self.bus().purge(stream, ">").await?;
        }
        Ok(())
    }

    /// Waits until nothing of ours waits or runs any more: acks come after outcomes.
    pub(super) async fn settle(&self) -> Result<(), BenchError> {
        let deadline = Instant::now() + SETTLE_TIME;
        loop {
            let missing = self.unsettled().await?;
            if missing == 0 {
                return Ok(());
            }
            if Instant::now() > deadline {
                let missing = usize::try_from(missing).unwrap_or(usize::MAX);
                return Err(BenchError::Missing { missing, patience: SETTLE_TIME });
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// What waits or runs. Where tasks of others may be, nothing is known, and nothing waited for.
    async fn unsettled(&self) -> Result<u64, BenchError> {
        if matches!(self.options.place, Place::Workers(..)) {
            return Ok(0);
        }
        Ok(namespace::queue(self.bus()).await?.state.messages)
    }

    /// Lets workers that are started from now on serve so many lanes, unless the user's configuration
    /// says how many they do.
    pub(super) fn set_max_lanes(&mut self, lanes: usize) -> Result<(), BenchError> {
        let args = &mut self.options.worker.args;
        if !args.iter().any(|arg| arg == "--config") {
            let file = self.dir.path().join("lanes.toml");
            std::fs::write(&file, format!("[worker]\nmax_lanes = {lanes}\n"))
                .map_err(BenchError::Directory)?;
            args.extend(["--config".into(), file.into()]);
        }
        Ok(())
    }

    /// Keeps in mind that these tasks are the bench's own, if there are others in the namespace.
    pub(super) fn remember(&mut self, tasks: impl IntoIterator<Item = TaskId>) {
        if let Place::Workers(..) = self.options.place {
            self.guests.extend(tasks);
        }
    }

    /// Tasks of the bench in a namespace that isn't its own: they are listed there until they are
    /// removed, or as old as the streams let them be.
    pub fn guests(&self) -> usize {
        self.guests.len()
    }

    /// Removes these tasks.
    ///
    /// # Errors
    /// Some of them are left.
    pub async fn remove_guests(&mut self) -> Result<(), BenchError> {
        let client = self.client().clone();
        while !self.guests.is_empty() {
            let some = self.guests.split_off(self.guests.len().saturating_sub(PURGES));
            let purges = futures_util::future::join_all(some.iter().map(|id| client.purge(id)));
            for purged in purges.await {
                purged?;
            }
        }
        Ok(())
    }

    /// A client with a connection of its own.
    pub(super) async fn another_client(&self) -> Result<Client, BenchError> {
        let connection = self.connection.as_ref().expect("the site was opened");
        let connected = connect(&connection.settings).await?;
        Ok(Client::new(Bus::over(&connected, self.bus().subjects().clone())))
    }

    /// What is known of the place.
    pub async fn facts(&self) -> Facts {
        let queue = match &self.connection {
            Some(_) => namespace::queue(self.bus()).await.ok(),
            None => None,
        };
        let version = self.connection.as_ref().map(|c| c.connected.version.to_string());
        let isolation = match &self.connection {
            Some(connection) => presets(&connection.client).await,
            None => None,
        };
        Facts {
            runlane_version: env!("CARGO_PKG_VERSION").to_owned(),
            nats_server_version: version,
            against: self.options.place.name().to_owned(),
            isolation,
            storage: queue.as_ref().map(|queue| queue.config.storage.clone()),
            replicas: queue.as_ref().map(|queue| queue.config.num_replicas),
            date: self.date,
            machine: self.machine.clone(),
        }
    }

    async fn stop_workers(&mut self) {
        // It would look for its server before it ends.
        let is_alone = self.watch_server().has_ended().is_some();
        let end = async |worker: WorkerProcess| match is_alone {
            true => worker.kill().await,
            false => worker.stop().await,
        };
        // At once: each may take its time.
        let ends = std::mem::take(&mut self.workers).into_iter().map(end);
        futures_util::future::join_all(ends).await;
    }

    /// Ends all that it started, and removes its namespace from a server that stays.
    ///
    /// # Errors
    /// Streams are left on the server, or the private server did not end.
    pub async fn close(mut self) -> Result<(), BenchError> {
        self.stop_workers().await;
        let removed = match (&self.connection, &self.options.place) {
            (Some(connection), Place::Server(_)) => remove_streams(connection.client.bus()).await,
            (Some(_), Place::Private { .. } | Place::Workers(..)) | (None, _) => Ok(()),
        };
        if let Some(connection) = self.connection.take() {
            // Else the library complains of a lost connection. Nobody waits for what it still sends.
            drop(connection.connected.client.drain().await);
        }
        if let Some(server) = self.server.take() {
            server.stop().await?;
        }
        Ok(removed?)
    }
}
