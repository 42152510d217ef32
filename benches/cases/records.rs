//! The records of a task's chain and its outcome, as they are written and read.

use std::hint::black_box;

use runlane::wire::{
    Attempt, CpuTime, Finished, LaneId, Outcome, OutputTotals, Phase, Started, StatusEvent,
    StreamTotals,
};

use super::{Case, Run};

pub(super) const CASES: &[Case] = &[
    Case { name: "status/write started", prepare: || write(StatusEvent::Started(started())) },
    Case { name: "status/read started", prepare: || read(StatusEvent::Started(started())) },
    Case { name: "status/write finished", prepare: || write(finished()) },
    Case { name: "status/read finished", prepare: || read(finished()) },
    Case { name: "outcome/write", prepare: write_outcome },
    Case { name: "outcome/read", prepare: read_outcome },
];

/// An id as clients make them.
pub(super) const TASK: &str = "018f3c2e-7b1a-7cc3-9a4d-2f6e8b0c1d35";
const WORKER: &str = "host-1-4f6b2c";
const RUN: &str = "subprocess-default-4711-1";
const TOKEN: &str = "5b6f0b0e4f8e4c0e8a6b7a0d9d1c2e3f";
const AT: &str = "2030-01-31T12:00:00.123456789Z";

fn write(event: StatusEvent) -> Run {
    Box::new(move || drop(black_box(serde_json::to_vec(black_box(&event)).expect("it is JSON"))))
}

#[allow(clippy::needless_pass_by_value)] // reads as its counterpart
fn read(event: StatusEvent) -> Run {
    let json = serde_json::to_vec(&event).expect("it is JSON");
    Box::new(move || {
        let event = serde_json::from_slice::<StatusEvent>(black_box(&json));
        drop(black_box(event.expect("it is an event")));
    })
}

fn write_outcome() -> Run {
    let outcome = outcome();
    Box::new(move || drop(black_box(serde_json::to_vec(black_box(&outcome)).expect("it is JSON"))))
}

fn read_outcome() -> Run {
    let json = serde_json::to_vec(&outcome()).expect("it is JSON");
    Box::new(move || {
        let outcome = serde_json::from_slice::<Outcome>(black_box(&json));
        drop(black_box(outcome.expect("it is an outcome")));
    })
}

fn started() -> Started {
    Started {
        attempt: Attempt::FIRST,
        worker: WORKER.parse().expect("an id"),
        runner: "subprocess".to_owned(),
        lane: LaneId::default_lane(),
        run_id: RUN.to_owned(),
        token: TOKEN.to_owned(),
        queue_seq: 4711,
        lease_ms: 30_000,
        failures: 0,
        worker_losses: 0,
        at: AT.parse().expect("a time"),
    }
}

fn finished() -> StatusEvent {
    StatusEvent::Finished(Finished { outcome: outcome(), token: TOKEN.to_owned() })
}

fn outcome() -> Outcome {
    let written = StreamTotals {
        bytes: 1234,
        stored_bytes: 1234,
        chunks: 2,
        complete: true,
        ..StreamTotals::default()
    };
    let silent = StreamTotals { complete: true, ..StreamTotals::default() };
    let at = AT.parse().expect("a time");
    Outcome {
        attempt: Some(Attempt::FIRST),
        exit_code: Some(0),
        started_at: Some(at),
        cpu: Some(CpuTime { user_us: 812, system_us: 433 }),
        max_rss_bytes: Some(1_884_160),
        worker: Some(WORKER.parse().expect("an id")),
        runner: Some("subprocess".to_owned()),
        lane: Some(LaneId::default_lane()),
        run_id: Some(RUN.to_owned()),
        output: Some(OutputTotals { stdout: written, stderr: silent }),
        ..Outcome::without_run(TASK.parse().expect("an id"), Phase::Succeeded, at)
    }
}
