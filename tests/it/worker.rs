//! A task goes in through NATS, runs, streams, and ends with one outcome.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use async_nats::jetstream::stream::DiscardPolicy;
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;
use runlane::nats::{Headers, presence, topology};
use runlane::wire::{
    Kind, LaneId, LaneRecord, Phase, Selector, StatusEvent, StopReason, Stream, SubmitReply, TaskId,
};
use runlane::worker::{Drain, WorkerSettings};

use crate::support::nats::TestServer;
use crate::support::proc::{MARK, Mark, until};
use crate::support::worker::{Fleet, settings, shell_spec};

fn marked(mark: &Mark, script: &str) -> String {
    format!("export {MARK}={}; {script}", mark.0)
}

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
    fleet.queue_is_empty().await;
}

#[tokio::test]
async fn output_that_is_larger_than_any_buffer_arrives_whole_and_in_order() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let _worker = fleet.worker(&server, "w1", 2).await;
    let id = fleet.shell("big", "seq 1 2000000").await;
    assert_eq!(fleet.outcome(&id).await.phase, Phase::Succeeded);
    let expected: String = (1..=2_000_000).map(|n| format!("{n}\n")).collect();
    assert!(fleet.output(&id, Stream::Stdout).await == expected.as_bytes());
}

#[tokio::test]
async fn a_poisoned_message_is_rejected_with_its_problems_and_harms_nobody() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let _worker = fleet.worker(&server, "w1", 2).await;
    let junk = vec![b'x'; 5_000_000];
    let cases: [(&str, Bytes, &str); 4] = [
        ("not-json", "{\"kind\":".into(), "$"),
        ("junk", junk.into(), "$"),
        ("wrong-type", shell_spec("true", "\"timeout\":\"x\",").into(), "$.timeout"),
        ("other-id", shell_spec("true", "\"id\":\"another\",").into(), "$.id"),
    ];
    for (id, payload, path) in cases {
        let id = fleet.publish(id, payload).await;
        let outcome = fleet.outcome(&id).await;
        assert_eq!((outcome.phase, outcome.attempt), (Phase::Rejected, None), "{id}");
        let error = outcome.error.expect("it says why");
        assert!(error.problems.iter().any(|p| p.path == path), "{id}: {error:?}");
    }
    let stray = format!("{}.queue.default.b\u{e4}d", fleet.bus.subjects().namespace());
    fleet.bus.publish(stray, Headers::default(), "{}".into()).await.expect("queued");
    let id = fleet.shell("healthy", "exit 0").await;
    assert_eq!(fleet.outcome(&id).await.phase, Phase::Succeeded);
    fleet.queue_is_empty().await;
}

#[tokio::test]
async fn a_cancel_ends_a_running_task_and_everything_it_started() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let _worker = fleet.worker(&server, "w1", 2).await;
    let mark = Mark::new();
    let script =
        marked(&mark, "(setsid sleep 600 &) ; trap 'exit 3' TERM; echo up; sleep 600 & wait");
    let id = fleet.shell("sleeper", &script).await;
    until("both sleepers run", || mark.alive().len() >= 2).await;
    let request = r#"{"reason":"enough","by":"a test"}"#;
    let start = Instant::now();
    fleet.cancel(&id, request).await;
    let outcome = fleet.outcome(&id).await;
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    mark.assert_none_alive();
    let cause = outcome.cause.expect("it was stopped");
    assert_eq!((outcome.phase, cause.reason), (Phase::Canceled, StopReason::Canceled));
    assert_eq!((cause.by.as_deref(), cause.message.as_deref()), (Some("a test"), Some("enough")));
    assert_eq!(fleet.output(&id, Stream::Stdout).await, b"up\n");
}

#[tokio::test]
async fn a_cancel_whose_reason_fills_a_message_ends_the_task_as_any_other() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let _worker = fleet.worker(&server, "w1", 2).await;
    let runs = fleet.shell("runs", "sleep 600").await;
    let waits = shell_spec("exit 0", r#""notBefore":"2100-01-01T00:00:00Z","#);
    let waits = fleet.publish("waits", waits).await;
    fleet.queue_has(1).await;
    let reason = "r".repeat(fleet.bus.max_payload() - 200);
    for id in [&runs, &waits] {
        let request = format!(r#"{{"reason":"{reason}","by":"me"}}"#);
        let subject = fleet.bus.subjects().cancel(id);
        fleet.bus.publish(subject, Headers::default(), request.into()).await.expect("stored");
        let outcome = fleet.outcome(id).await;
        assert_eq!(outcome.phase, Phase::Canceled, "{id}");
        let cause = outcome.cause.expect("it says why");
        assert_eq!(cause.message.expect("a reason").chars().count(), 1025, "{id}");
        assert_eq!(cause.by.as_deref(), Some("me"));
    }
    fleet.queue_is_empty().await;
}

#[tokio::test]
async fn a_task_whose_cancel_is_stored_never_starts() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let dir = tempfile::tempdir().expect("temp dir");
    let witness = dir.path().join("ran");
    let id: TaskId = "early".parse().expect("a valid id");
    fleet.cancel(&id, "").await;
    let id = fleet.shell(id.as_str(), &format!("touch {}", witness.display())).await;
    let _worker = fleet.worker(&server, "w1", 2).await;
    assert_eq!(fleet.outcome(&id).await.phase, Phase::Canceled);
    assert!(!witness.exists());
    fleet.queue_is_empty().await;
}

#[tokio::test]
async fn a_timeout_ends_the_task_and_says_so() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let _worker = fleet.worker(&server, "w1", 2).await;
    let mark = Mark::new();
    let script = marked(&mark, "trap '' TERM; sleep 600 & while :; do wait; done");
    let id = fleet.publish("slow", shell_spec(&script, "\"timeout\":300,\"graceMs\":200,")).await;
    let outcome = fleet.outcome(&id).await;
    assert_eq!((outcome.phase, outcome.signal), (Phase::Timeout, Some(9)));
    mark.assert_none_alive();
}

#[tokio::test]
async fn a_failure_is_retried_after_a_delay_until_none_is_left() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let _worker = fleet.worker(&server, "w1", 2).await;
    let more = r#""restart":{"type":"onFailure"},"maxRetries":2,
        "backoff":{"jitter":"none","firstMs":100,"maxMs":1000,"factor":2},"#;
    let id = fleet.publish("flaky", shell_spec("echo $RUNLANE_ATTEMPT; exit 9", more)).await;
    let outcome = fleet.outcome(&id).await;
    assert_eq!((outcome.phase, outcome.exit_code), (Phase::Exhausted, Some(9)));
    assert_eq!(outcome.attempt.map(|attempt| attempt.0), Some(3));
    let events = fleet.events(&id).await;
    let starts = events.iter().filter(|event| matches!(event, StatusEvent::Started(_))).count();
    let delays: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            StatusEvent::Retrying(retrying) => Some(retrying.delay_ms),
            _ => None,
        })
        .collect();
    assert_eq!((starts, delays), (3, vec![100, 200]));
    assert!(matches!(events.last(), Some(StatusEvent::Finished(_))));
}

#[tokio::test]
async fn what_cannot_be_started_fails_for_good_and_names_the_step() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let _worker = fleet.worker(&server, "w1", 2).await;
    let spec = r#"{"restart":{"type":"onFailure"},
        "kind":{"subprocess":{"mode":{"command":{"command":"/no/such/program"}}}}}"#;
    let id = fleet.publish("missing", spec).await;
    let outcome = fleet.outcome(&id).await;
    assert_eq!(outcome.phase, Phase::Failed);
    let error = outcome.error.expect("it says why");
    assert_eq!(error.step, "exec");
    assert!(error.message.contains("/no/such/program"), "{}", error.message);
}

#[tokio::test]
async fn a_name_that_fills_every_pipe_fails_as_any_other_and_is_told_in_short() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let _worker = fleet.worker(&server, "w1", 2).await;
    let long = "a".repeat(100_000);
    let program = format!(r#""mode":{{"command":{{"command":"/{long}"}}}}"#);
    let cwd = format!(r#""mode":{{"command":{{"command":"true"}}}},"cwd":"/{long}""#);
    for (id, step, what) in [("program", "exec", program), ("cwd", "chdir", cwd)] {
        let spec = format!(r#"{{"kind":{{"subprocess":{{{what}}}}}}}"#);
        let id = fleet.publish(id, spec).await;
        let error = fleet.outcome(&id).await.error.expect("it says why");
        assert_eq!(error.step, step);
        assert!(error.message.ends_with("file name too long"), "{}", error.message);
        assert!(error.message.len() < 1000, "{}", error.message.len());
    }
}

#[tokio::test]
async fn two_workers_share_a_thousand_tasks_and_each_runs_once() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let dir = tempfile::tempdir().expect("temp dir");
    let _one = fleet.worker(&server, "w1", 4).await;
    let _two = fleet.worker(&server, "w2", 4).await;
    let log = dir.path().join("log");
    let script = format!("echo $RUNLANE_TASK_ID $RUNLANE_WORKER >> {}", log.display());
    let ids: Vec<_> = stream::iter(0..1000)
        .map(|n| {
            let (fleet, script) = (&fleet, &script);
            async move { fleet.shell(&format!("t{n}"), script).await }
        })
        .buffer_unordered(64)
        .collect()
        .await;
    for id in &ids {
        assert_eq!(fleet.outcome(id).await.phase, Phase::Succeeded, "{id}");
        assert_eq!(fleet.events(id).await.len(), 2, "{id}: started, finished");
    }
    let log = std::fs::read_to_string(log).expect("the tasks wrote it");
    let ran: Vec<_> = log.lines().filter_map(|line| line.split_once(' ')).collect();
    let workers: HashSet<_> = ran.iter().map(|(_, worker)| *worker).collect();
    assert_eq!((ran.len(), workers.len()), (1000, 2));
    assert_eq!(ran.iter().map(|(id, _)| *id).collect::<HashSet<_>>().len(), 1000);
    fleet.queue_is_empty().await;
}

#[tokio::test]
async fn a_server_restart_in_the_middle_loses_nothing() {
    let mut server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let _one = fleet.worker(&server, "w1", 4).await;
    let _two = fleet.worker(&server, "w2", 4).await;
    let mut ids = Vec::new();
    for n in 0..40 {
        ids.push(
            fleet.shell(&format!("t{n}"), "for i in 1 2 3 4 5; do echo $i; sleep 0.1; done").await,
        );
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.kill().await;
    server.restart().await;
    for id in &ids {
        let outcome = fleet.patient_outcome(id).await;
        assert_eq!(outcome.phase, Phase::Succeeded, "{id}");
        assert_eq!(fleet.output(id, Stream::Stdout).await, b"1\n2\n3\n4\n5\n", "{id}");
        assert_eq!(fleet.events(id).await.len(), 2, "{id} ran once");
    }
}

#[tokio::test]
async fn a_drained_worker_hands_its_tasks_back_at_once() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let mut first = fleet.worker(&server, "w1", 2).await;
    let id = fleet.shell("moved", "if [ $RUNLANE_ATTEMPT = 1 ]; then echo up; sleep 600; fi").await;
    fleet.first_output(&id).await;
    let _second = fleet.worker(&server, "w2", 2).await;
    first.drain(Drain::Stop);
    let report = first.ended().await.expect("it ends cleanly");
    assert_eq!(report.requeued, 1);
    let outcome = fleet.outcome(&id).await;
    assert_eq!(outcome.phase, Phase::Succeeded);
    assert_eq!(outcome.worker.expect("it ran").as_str(), "w2");
    let events = fleet.events(&id).await;
    assert!(matches!(events[1], StatusEvent::Requeued(_)), "{events:?}");
}

#[tokio::test]
async fn a_task_in_the_wrong_lane_is_moved_to_its_own() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let _worker = fleet.worker(&server, "w1", 2).await;
    let more = r#""runnerSelector":{"matchLabels":{"runner-name":"default"}},"#;
    let id = fleet.publish("astray", shell_spec("exit 0", more)).await;
    let outcome = fleet.outcome(&id).await;
    assert_eq!(outcome.phase, Phase::Succeeded);
    assert_ne!(outcome.lane, Some(LaneId::default_lane()));
    fleet.queue_is_empty().await;
}

#[tokio::test]
async fn a_live_task_that_is_longer_than_its_lease_runs_once() {
    let server = TestServer::start().await;
    let fleet = Fleet::with_lease(&server, Duration::from_secs(2)).await;
    let _one = fleet.worker(&server, "w1", 2).await;
    let _two = fleet.worker(&server, "w2", 2).await;
    let id = fleet.shell("long", "sleep 7; echo done").await;
    assert_eq!(fleet.outcome(&id).await.phase, Phase::Succeeded);
    assert_eq!(fleet.events(&id).await.len(), 2);
    assert_eq!(fleet.output(&id, Stream::Stdout).await, b"done\n");
}

#[tokio::test]
async fn a_short_spec_can_be_submitted_by_a_plain_request_and_problems_come_back() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let _worker = fleet.worker(&server, "w1", 2).await;
    let reply = fleet.submit(r#"{"command":["echo","hi"],"selector":"os notin (plan9)"}"#).await;
    let SubmitReply::Accepted(submitted) = reply else { panic!("{reply:?}") };
    assert_eq!(fleet.outcome(&submitted.id).await.phase, Phase::Succeeded);
    assert_eq!(fleet.output(&submitted.id, Stream::Stdout).await, b"hi\n");
    let reply = fleet.submit(r#"{"command":[],"timeout":"soon","surprise":1}"#).await;
    let SubmitReply::Refused { problems, .. } = reply else { panic!("{reply:?}") };
    let paths: Vec<_> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert!(paths.contains(&"$.timeout") && paths.contains(&"$.surprise"), "{paths:?}");
}

#[tokio::test]
async fn a_stored_cancel_ends_a_queued_task_though_the_canceller_went_away() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    // Nobody serves the task's lane: it would wait for ever.
    let more = r#""runnerSelector":{"matchLabels":{"gpu":"none-has-it"}},"#;
    let spec = shell_spec("exit 0", more);
    let id: TaskId = "waiting".parse().expect("a valid id");
    let lane: LaneId = "some-lane".parse().expect("a valid lane");
    let subject = fleet.bus.subjects().queue(&lane, &id);
    fleet.bus.publish(subject, Headers::default(), spec.into()).await.expect("queued");
    fleet.cancel(&id, r#"{"by":"somebody"}"#).await;
    let _worker = fleet.worker(&server, "w1", 2).await;
    let outcome = fleet.outcome(&id).await;
    assert_eq!((outcome.phase, outcome.attempt), (Phase::Canceled, None));
    fleet.queue_is_empty().await;
}

#[tokio::test]
async fn a_cancel_ends_the_task_of_a_worker_that_died_with_nobody_to_take_over() {
    let server = TestServer::start().await;
    let fleet = Fleet::with_lease(&server, Duration::from_secs(2)).await;
    let worker = fleet.worker(&server, "w1", 2).await;
    let id = fleet.shell("orphan", "echo up; sleep 600").await;
    fleet.first_output(&id).await;
    drop(worker);
    fleet.forget_worker("w1").await;
    fleet.cancel(&id, "").await;
    // A worker that serves no lane of the task: it only settles cancels.
    let mut settings = settings("w2", 1);
    settings.max_lanes = 0;
    let _other = fleet.worker_with(&server, settings).await;
    let outcome = fleet.outcome(&id).await;
    assert_eq!(outcome.phase, Phase::Canceled);
    assert_eq!(outcome.worker.expect("it ran").as_str(), "w1");
}

#[tokio::test]
async fn a_second_message_of_the_same_task_runs_nothing_and_loses_nothing() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let dir = tempfile::tempdir().expect("temp dir");
    let log = dir.path().join("log");
    let spec = shell_spec(&format!("echo ran >> {}; sleep 0.3", log.display()), "");
    let other: LaneId = "elsewhere".parse().expect("a valid lane");
    let record = LaneRecord { kind: Kind::Subprocess, selector: Selector::default() };
    let lease = Duration::from_secs(30);
    topology::ensure_lane(&fleet.bus, &other, &record, lease).await.expect("a named lane");
    let _one = fleet.worker(&server, "w1", 2).await;
    let _two = fleet.worker(&server, "w2", 2).await;
    for n in 0..10 {
        let id = fleet.publish(&format!("twice-{n}"), spec.clone()).await;
        let subject = fleet.bus.subjects().queue(&other, &id);
        let again = fleet.bus.publish(subject, Headers::default(), spec.clone().into()).await;
        again.expect("another lane takes it");
    }
    for n in 0..10 {
        let id: TaskId = format!("twice-{n}").parse().expect("a valid id");
        assert_eq!(fleet.outcome(&id).await.phase, Phase::Succeeded);
        assert_eq!(fleet.events(&id).await.len(), 2, "{id} was started once");
    }
    fleet.queue_is_empty().await;
    assert_eq!(std::fs::read_to_string(log).expect("they ran").lines().count(), 10);
}

#[tokio::test]
async fn an_end_that_could_not_be_stored_is_stored_by_the_next_worker_on_the_host() {
    let mut server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let dir = tempfile::tempdir().expect("temp dir");
    let with_state =
        |name: &str| WorkerSettings { state_dir: Some(dir.path().to_owned()), ..settings(name, 2) };
    let first = fleet.worker_with(&server, with_state("w1")).await;
    let id = fleet.shell("kept", "echo up; sleep 1; exit 3").await;
    fleet.first_output(&id).await;
    server.kill().await;
    // Not the file that it is written to first: on a busy disk that stands there for long.
    let is_end =
        |file: &std::fs::DirEntry| file.path().extension().is_some_and(|end| end == "json");
    let kept = || {
        let files = std::fs::read_dir(dir.path());
        files.is_ok_and(|files| files.flatten().filter(is_end).count() == 1)
    };
    until("the end is on disk", kept).await;
    drop(first);
    server.restart().await;
    let _second = fleet.worker_with(&server, with_state("w2")).await;
    let outcome = fleet.patient_outcome(&id).await;
    assert_eq!((outcome.exit_code, outcome.attempt.map(|attempt| attempt.0)), (Some(3), Some(1)));
    assert_eq!(fleet.events(&id).await.len(), 2, "it ran once");
    until("the copy is gone", || !kept()).await;
    fleet.queue_is_empty().await;
}

#[tokio::test]
async fn a_cancel_ends_a_task_whose_output_waits_behind_that_of_others() {
    let server = TestServer::start().await;
    let fleet = Fleet::with_lease(&server, Duration::from_secs(3)).await;
    let jetstream = server.jetstream().await;
    let output = jetstream.get_stream("RUNLANE_OUTPUT").await.expect("the stream is there");
    let _worker = fleet.worker(&server, "w1", 12).await;
    let room_for = async |bytes: i64| {
        let mut config = output.cached_info().config.clone();
        (config.max_bytes, config.discard) = (bytes, DiscardPolicy::New);
        jetstream.update_stream(config).await.expect("it may be changed");
    };
    room_for(1_000).await;
    let started = async |id: &TaskId| {
        while fleet.events(id).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    // What is under way of all tasks is 8 MiB at most, and 1 MiB of each.
    let mut hogs = Vec::new();
    for n in 0..9 {
        hogs.push(fleet.shell(&format!("hog-{n}"), "head -c 4000000 /dev/zero").await);
        started(&hogs[n]).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let late = fleet.shell("late", "head -c 300000 /dev/zero; exit 4").await;
    started(&late).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    fleet.cancel(&late, "").await;
    let outcome = fleet.outcome(&late).await;
    assert_eq!(outcome.exit_code, Some(4));
    assert!(!outcome.output.expect("it ran").stdout.complete);
    room_for(-1).await;
    for hog in &hogs {
        let outcome = fleet.outcome(hog).await;
        assert_eq!(outcome.output.expect("it ran").stdout.stored_bytes, 4_000_000, "{hog}");
    }
}

#[tokio::test]
async fn a_worker_that_has_ended_is_not_in_the_list_any_more() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    for n in 0..15 {
        let name = format!("w{n}");
        let mut worker = fleet.worker(&server, &name, 1).await;
        worker.drain(Drain::Wait);
        worker.ended().await.expect("it ends well");
        // What it sent last has been dealt with when this is answered.
        let id = name.parse().expect("a valid name");
        assert!(!presence::is_there(&fleet.bus, &id).await.expect("it answers"), "{name}");
    }
}
