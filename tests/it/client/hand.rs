//! A worker played by hand: it publishes what docs/protocol.md says, and nothing else.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use runlane::client::Client;
use runlane::nats::topology::{TopologySettings, ensure};
use runlane::nats::{Append, Bus, Headers, StatusLog};
use runlane::wire::output::{HEADER_ATTEMPT, HEADER_OFFSET, HEADER_SEQ};
use runlane::wire::{
    Attempt, Finished, LaneId, Outcome, OutputTotals, Phase, Requeued, Retrying, Started,
    StatusEvent, StopReason, Stream, StreamTotals, Subjects, TaskId, TaskSpec,
};
use tokio::time::Instant;

use crate::support::nats::TestServer;

/// How long a test waits for what must come.
pub(super) const DEADLINE: Duration = Duration::from_secs(20);

/// A server that is set up, and a client of it.
pub(super) struct Setup {
    pub(super) server: TestServer,
    pub(super) bus: Bus,
    pub(super) client: Client,
}

impl Setup {
    pub(super) async fn new() -> Self {
        let server = TestServer::start().await;
        let bus = bus(&server).await;
        ensure(&bus, &TopologySettings::default()).await.expect("streams are made");
        Self { server, client: Client::new(bus.clone()), bus }
    }

    pub(super) fn hand(&self, id: &str) -> Hand {
        Hand::new(self.bus.clone(), id)
    }
}

/// A connection of its own.
pub(super) async fn bus(server: &TestServer) -> Bus {
    let connected = server.connect().await;
    Bus::over(&connected, Subjects::default())
}

pub(super) fn task(id: &str) -> TaskId {
    id.parse().expect("a task id")
}

pub(super) fn echo(id: &str) -> TaskSpec {
    TaskSpec { id: Some(task(id)), ..TaskSpec::command("echo", ["hi".to_owned()]) }
}

/// Waits, and fails the test if it takes too long.
pub(super) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what).await.expect("it comes in time")
}

/// The worker of one task.
pub(super) struct Hand {
    bus: Bus,
    pub(super) id: TaskId,
    attempt: Attempt,
    last: u64,
    next_seq: u64,
    totals: OutputTotals,
}

impl Hand {
    pub(super) fn new(bus: Bus, id: &str) -> Self {
        let (attempt, totals) = (Attempt::FIRST, OutputTotals::default());
        Self { bus, id: task(id), attempt, last: 0, next_seq: 0, totals }
    }

    async fn append(&mut self, event: &StatusEvent) {
        let log = StatusLog::new(self.bus.clone());
        let deadline = Instant::now() + DEADLINE;
        match log.append(&self.id, event, self.last, deadline).await.expect("NATS answers") {
            Append::Won(seq) => self.last = seq,
            Append::Lost(entry) => panic!("somebody else has the task: {entry:?}"),
        }
    }

    pub(super) async fn start(&mut self) {
        let started = self.started();
        self.append(&started).await;
    }

    /// The record of a start of the next attempt.
    pub(super) fn started(&self) -> StatusEvent {
        StatusEvent::Started(Started {
            attempt: self.attempt,
            worker: "hand".parse().expect("a worker id"),
            runner: "default".to_owned(),
            lane: LaneId::default_lane(),
            run_id: "default-none-1".to_owned(),
            token: format!("{}-{}", self.id, self.attempt),
            queue_seq: 1,
            lease_ms: 30_000,
            failures: 0,
            worker_losses: 0,
            at: Timestamp::now(),
        })
    }

    /// Numbers a chunk, counts it, and stores it.
    pub(super) async fn write(&mut self, stream: Stream, data: &[u8]) {
        let chunk = self.number(stream, data);
        self.store(&chunk).await;
    }

    /// Numbers and counts a chunk without storing it.
    pub(super) fn number(&mut self, stream: Stream, data: &[u8]) -> Numbered {
        let total = match stream {
            Stream::Stdout => &mut self.totals.stdout,
            Stream::Stderr => &mut self.totals.stderr,
        };
        let (seq, offset) = (self.next_seq, total.bytes);
        self.next_seq += 1;
        total.bytes += data.len() as u64;
        total.stored_bytes += data.len() as u64;
        total.chunks += 1;
        let data = Bytes::copy_from_slice(data);
        Numbered { attempt: self.attempt, stream, seq, offset, data }
    }

    pub(super) async fn store(&self, chunk: &Numbered) {
        self.store_with(chunk, Headers::default()).await;
    }

    /// The same, with more headers.
    pub(super) async fn store_with(&self, chunk: &Numbered, headers: Headers) {
        let headers = headers
            .with(HEADER_ATTEMPT, chunk.attempt)
            .with(HEADER_SEQ, chunk.seq)
            .with(HEADER_OFFSET, chunk.offset);
        let subject = self.bus.subjects().output(&self.id, chunk.stream);
        let deadline = Instant::now() + DEADLINE;
        // As the worker does it: a publish that fails for a passing reason is tried again.
        while let Err(error) =
            self.bus.publish(subject.clone(), headers.clone(), chunk.data.clone()).await
        {
            assert!(error.is_passing() && Instant::now() < deadline, "{error}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(super) fn outcome(&self, phase: Phase, exit_code: i32) -> Outcome {
        let complete = |totals: &StreamTotals| StreamTotals { complete: true, ..totals.clone() };
        Outcome {
            attempt: Some(self.attempt),
            exit_code: Some(exit_code),
            lane: Some(LaneId::default_lane()),
            worker: Some("hand".parse().expect("a worker id")),
            run_id: Some("default-none-1".to_owned()),
            output: Some(OutputTotals {
                stdout: complete(&self.totals.stdout),
                stderr: complete(&self.totals.stderr),
            }),
            ..Outcome::without_run(self.id.clone(), phase, Timestamp::now())
        }
    }

    /// Hands the task back, as a worker that ends.
    pub(super) async fn requeue(&mut self) {
        let requeued = StatusEvent::Requeued(Requeued {
            attempt: self.attempt,
            worker: "hand".parse().expect("a worker id"),
            reason: StopReason::Draining,
            failures: 0,
            worker_losses: 0,
            queue_seq: 1,
            at: Timestamp::now(),
        });
        self.append(&requeued).await;
    }

    pub(super) async fn retry(&mut self) {
        let retrying = Retrying {
            ended: self.outcome(Phase::Failed, 1),
            delay_ms: 10,
            failures: self.attempt.0,
            worker_losses: 0,
            queue_seq: 1,
            at: Timestamp::now(),
        };
        self.append(&StatusEvent::Retrying(retrying)).await;
        self.attempt = self.attempt.next();
        self.next_seq = 0;
        self.totals = OutputTotals::default();
    }

    pub(super) async fn finish(&mut self, exit_code: i32) -> Outcome {
        let phase = if exit_code == 0 { Phase::Succeeded } else { Phase::Failed };
        self.finish_with(self.outcome(phase, exit_code)).await
    }

    pub(super) async fn finish_with(&mut self, outcome: Outcome) -> Outcome {
        let token = format!("{}-end", self.id);
        self.append(&StatusEvent::Finished(Finished { outcome: outcome.clone(), token })).await;
        let log = StatusLog::new(self.bus.clone());
        log.publish_outcome(&outcome).await.expect("the outcome is stored");
        outcome
    }
}

/// A chunk with its place.
#[derive(Clone)]
pub(super) struct Numbered {
    attempt: Attempt,
    stream: Stream,
    seq: u64,
    offset: u64,
    data: Bytes,
}
