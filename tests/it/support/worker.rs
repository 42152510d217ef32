//! A namespace on a test server, workers in this process, and their tasks seen by the wire alone.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use runlane::exec::Spawner;
use runlane::nats::topology::{self, TopologySettings};
use runlane::nats::{Bus, Connected, Headers, StatusLog};
use runlane::task::RunnerPolicy;
use runlane::wire::{LaneId, Outcome, Stream, Subjects, TaskId};
use runlane::worker::{Runner, SubprocessRunner, Worker, WorkerSettings};

use super::nats::TestServer;

/// How long a test waits for what must come.
const DEADLINE: Duration = Duration::from_secs(30);

/// A namespace on a server.
pub(crate) struct Fleet {
    pub(crate) connected: Connected,
    pub(crate) bus: Bus,
    pub(crate) log: StatusLog,
    pub(crate) topology: TopologySettings,
}

impl Fleet {
    pub(crate) async fn new(server: &TestServer) -> Self {
        Self::with_lease(server, topology::DEFAULT_LEASE).await
    }

    pub(crate) async fn with_lease(server: &TestServer, lease: Duration) -> Self {
        let connected = server.connect().await;
        let bus = Bus::over(&connected, Subjects::default());
        let topology = TopologySettings { lease, ..TopologySettings::default() };
        topology::ensure(&bus, &topology).await.expect("the streams are made");
        let log = StatusLog::new(bus.clone());
        Self { connected, bus, log, topology }
    }

    /// Starts a worker in this process, with a connection of its own.
    pub(crate) async fn worker(&self, server: &TestServer, name: &str, capacity: usize) -> Worker {
        let connected = server.connect().await;
        let bus = Bus::over(&connected, Subjects::default());
        Worker::start(bus, connected.link.clone(), spawner(), settings(name, capacity))
            .await
            .expect("the worker starts")
    }

    /// Publishes a spec straight to the default lane.
    pub(crate) async fn publish(&self, id: &str, spec: impl Into<Bytes>) -> TaskId {
        let id: TaskId = id.parse().expect("a valid id");
        let subject = self.bus.subjects().queue(&LaneId::default_lane(), &id);
        self.bus.publish(subject, Headers::default(), spec.into()).await.expect("queued");
        id
    }

    /// Publishes a shell command to the default lane.
    pub(crate) async fn shell(&self, id: &str, script: &str) -> TaskId {
        self.publish(id, shell_spec(script, "")).await
    }

    pub(crate) async fn outcome(&self, id: &TaskId) -> Outcome {
        let start = Instant::now();
        loop {
            if let Some(outcome) = self.log.outcome(id).await.expect("the server answers") {
                return outcome;
            }
            assert!(start.elapsed() < DEADLINE, "no outcome of {id}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Everything that is stored of one stream, by offset.
    pub(crate) async fn output(&self, id: &TaskId, stream: Stream) -> Vec<u8> {
        let subjects = self.bus.subjects();
        let mut chunks = BTreeMap::new();
        let mut from = 1;
        loop {
            let page = self
                .bus
                .read_page(&subjects.output_stream(), &subjects.output(id, stream), from)
                .await
                .expect("the server answers");
            for stored in page.messages {
                from = stored.seq + 1;
                let offset = stored.headers.number("Runlane-Offset").expect("an offset");
                chunks.insert(offset, stored.payload);
            }
            if page.end {
                break;
            }
        }
        chunks.into_values().flatten().collect()
    }

    /// Messages that are left in the queue.
    pub(crate) async fn queued(&self) -> usize {
        let subjects = self.bus.subjects();
        let page = self
            .bus
            .read_page(&subjects.queue_stream(), &subjects.queue_all(), 1)
            .await
            .expect("the server answers");
        page.messages.len()
    }
}

pub(crate) fn spawner() -> Spawner {
    Spawner::of_program(Path::new(env!("CARGO_BIN_EXE_runlane")))
}

pub(crate) fn settings(name: &str, capacity: usize) -> WorkerSettings {
    let runner: Box<dyn Runner> = Box::new(SubprocessRunner::new(
        "default".to_owned(),
        BTreeMap::new(),
        RunnerPolicy::default(),
        None,
    ));
    WorkerSettings {
        worker: name.parse().expect("a valid name"),
        capacity: NonZeroUsize::new(capacity).expect("not zero"),
        labels: BTreeMap::new(),
        runners: vec![runner],
        drain_timeout: Duration::from_secs(10),
        max_lanes: 64,
        manage: None,
        submit_service: true,
    }
}

/// A canonical spec of a shell command; `more` is put before `kind`, such as `"timeout":5,`.
pub(crate) fn shell_spec(script: &str, more: &str) -> String {
    let script = serde_json::to_string(script).expect("a string is JSON");
    format!(
        r#"{{{more}"kind":{{"subprocess":{{"mode":{{"command":{{"command":"sh","args":["-c",{script}]}}}}}}}}}}"#
    )
}
