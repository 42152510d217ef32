//! A task goes in through NATS, runs, streams, and ends with one outcome.

use runlane::wire::{Phase, Stream};

use crate::support::nats::TestServer;
use crate::support::worker::Fleet;

#[tokio::test]
async fn a_task_runs_streams_and_ends_with_one_outcome() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let _worker = fleet.worker(&server, "w1", 2).await;
    let id = fleet.shell("first", "echo out; echo err >&2; exit 7").await;
    let outcome = fleet.outcome(&id).await;
    assert_eq!((outcome.phase, outcome.exit_code), (Phase::Failed, Some(7)));
    assert_eq!(fleet.output(&id, Stream::Stdout).await, b"out\n");
    assert_eq!(fleet.output(&id, Stream::Stderr).await, b"err\n");
    let output = outcome.output.expect("it ran");
    assert!(output.stdout.complete && output.stderr.complete);
    assert_eq!((output.stdout.bytes, output.stdout.chunks), (4, 1));
}
