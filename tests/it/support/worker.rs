//! A namespace on a test server, workers in this process, and their tasks seen by the wire alone.

use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use runlane::exec::Spawner;
use runlane::nats::topology::{self, TopologySettings};
use runlane::nats::{Bus, Headers, StatusLog, Stored, presence};
use runlane::task::RunnerPolicy;
use runlane::wire::{LaneId, Outcome, StatusEvent, Stream, Subjects, SubmitReply, TaskId};
use runlane::worker::{Runner, SubprocessRunner, Worker, WorkerSettings};

use super::nats::TestServer;

/// How long a test waits for what must come.
const DEADLINE: Duration = Duration::from_secs(30);

/// A namespace on a server.
pub(crate) struct Fleet {
    pub(crate) bus: Bus,
    pub(crate) log: StatusLog,
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
        Self { bus, log }
    }

    /// Starts a worker in this process, with a connection of its own.
    pub(crate) async fn worker(&self, server: &TestServer, name: &str, capacity: usize) -> Worker {
        self.worker_with(server, settings(name, capacity)).await
    }

    pub(crate) async fn worker_with(
        &self,
        server: &TestServer,
        settings: WorkerSettings,
    ) -> Worker {
        let connected = server.connect().await;
        let bus = Bus::over(&connected, Subjects::default());
        let worker = Worker::start(bus, connected.link.clone(), spawner(), settings).await;
        worker.expect("the worker starts")
    }

    /// Lets a dead worker's presence record expire at once.
    pub(crate) async fn forget_worker(&self, name: &str) {
        let worker = name.parse().expect("a valid name");
        presence::withdraw(&self.bus, &worker).await.expect("the server answers");
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

    /// Like `outcome`, while the server may be away.
    pub(crate) async fn patient_outcome(&self, id: &TaskId) -> Outcome {
        let start = Instant::now();
        while self.log.outcome(id).await.is_err() {
            assert!(start.elapsed() < DEADLINE, "the server stays away");
        }
        self.outcome(id).await
    }

    pub(crate) async fn cancel(&self, id: &TaskId, request: &'static str) {
        let subject = self.bus.subjects().cancel(id);
        self.bus.publish(subject, Headers::default(), request.into()).await.expect("stored");
    }

    /// Asks the submit service, as any NATS client can; waits until a worker offers it.
    pub(crate) async fn submit(&self, spec: &'static str) -> SubmitReply {
        let start = Instant::now();
        loop {
            match self.bus.ask(self.bus.subjects().submit(), spec.into()).await {
                Ok(reply) => return serde_json::from_slice(&reply).expect("a submit reply"),
                Err(error) => assert!(start.elapsed() < DEADLINE, "{error}"),
            }
        }
    }

    /// The records of a task's chain.
    pub(crate) async fn events(&self, id: &TaskId) -> Vec<StatusEvent> {
        let subjects = self.bus.subjects();
        let page = self.bus.read_page(&subjects.tasks_stream(), &subjects.status(id), 1).await;
        let messages = page.expect("the server answers").messages.into_iter();
        messages.map(|m| serde_json::from_slice(&m.payload).expect("a status event")).collect()
    }

    /// Waits until the task has written something.
    pub(crate) async fn first_output(&self, id: &TaskId) {
        let start = Instant::now();
        while self.output(id, Stream::Stdout).await.is_empty() {
            assert!(start.elapsed() < DEADLINE, "no output of {id}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until no message is left in the queue: acks come after the outcome.
    pub(crate) async fn queue_is_empty(&self) {
        self.queue_has(0).await;
    }

    /// Waits until no more than so many messages are left in the queue.
    pub(crate) async fn queue_has(&self, most: usize) {
        let start = Instant::now();
        while self.queued().await > most {
            assert!(start.elapsed() < DEADLINE, "{} messages are left", self.queued().await);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until the workers have seen to every timer that is due.
    pub(crate) async fn nothing_is_due(&self) {
        let (subjects, start) = (self.bus.subjects(), Instant::now());
        let (stream, filter) = (subjects.schedule_stream(), subjects.due_all());
        while !self
            .bus
            .read_page(&stream, &filter, 1)
            .await
            .expect("it answers")
            .messages
            .is_empty()
        {
            assert!(start.elapsed() < DEADLINE, "timers are left");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Everything that is stored of one stream, by offset, as it is stored.
    pub(crate) async fn output(&self, id: &TaskId, stream: Stream) -> Vec<u8> {
        let offset = |chunk: &Stored| chunk.headers.number("Runlane-Offset").expect("an offset");
        let chunks = self.chunks(id, stream).await.into_iter();
        let chunks: BTreeMap<_, _> = chunks.map(|chunk| (offset(&chunk), chunk.payload)).collect();
        chunks.into_values().flatten().collect()
    }

    /// The stored chunks of one stream.
    pub(crate) async fn chunks(&self, id: &TaskId, stream: Stream) -> Vec<Stored> {
        let subjects = self.bus.subjects();
        let (mut all, mut from) = (Vec::new(), 1);
        loop {
            let page = self
                .bus
                .read_page(&subjects.output_stream(), &subjects.output(id, stream), from)
                .await
                .expect("the server answers");
            from = page.messages.last().map_or(from, |last| last.seq + 1);
            all.extend(page.messages);
            if page.end {
                return all;
            }
        }
    }

    /// The most tasks that were started and not finished at once, and the order of starts, by the
    /// chains alone: their order is that of the stream.
    pub(crate) async fn concurrency(&self) -> (usize, Vec<String>) {
        let subjects = self.bus.subjects();
        let page = self.bus.read_page(&subjects.tasks_stream(), &subjects.status_all(), 1).await;
        let page = page.expect("the server answers");
        assert!(page.end, "the test has more tasks than a page");
        let (mut now, mut most, mut starts) = (HashSet::new(), 0, Vec::new());
        for stored in page.messages {
            let (id, _) = subjects.parse_task(&stored.subject).expect("a status subject");
            match serde_json::from_slice(&stored.payload).expect("a status event") {
                StatusEvent::Started(_) => {
                    now.insert(id.to_string());
                    starts.push(id.to_string());
                }
                StatusEvent::Finished(_) => drop(now.remove(id.as_str())),
                StatusEvent::Retrying(_) | StatusEvent::Requeued(_) => {}
            }
            most = most.max(now.len());
        }
        (most, starts)
    }

    async fn queued(&self) -> usize {
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
    settings_with(name, capacity, RunnerPolicy::default())
}

/// The same, with a runner of another policy.
pub(crate) fn settings_with(name: &str, capacity: usize, policy: RunnerPolicy) -> WorkerSettings {
    let runner: Box<dyn Runner> =
        Box::new(SubprocessRunner::new("default".to_owned(), BTreeMap::new(), policy, None));
    WorkerSettings {
        worker: name.parse().expect("a valid name"),
        capacity: NonZeroUsize::new(capacity).expect("not zero"),
        labels: BTreeMap::new(),
        runners: vec![runner],
        drain_timeout: Duration::from_secs(10),
        max_lanes: 64,
        manage: None,
        state_dir: None,
        submit_service: true,
        host: Arc::default(),
    }
}

/// A canonical spec of a shell command; `more` is put before `kind`, such as `"timeout":5,`.
pub(crate) fn shell_spec(script: &str, more: &str) -> String {
    let script = serde_json::to_string(script).expect("a string is JSON");
    format!(
        r#"{{{more}"kind":{{"subprocess":{{"mode":{{"command":{{"command":"sh","args":["-c",{script}]}}}}}}}}}}"#
    )
}
