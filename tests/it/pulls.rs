//! What a worker asks the queue for: no more than it can run, and a little ahead while tasks are short.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use jiff::Timestamp;
use runlane::client::Client;
use runlane::nats::{Headers, Kept};
use runlane::wire::{
    Kind, LaneId, LaneRecord, Phase, Selector, StatusEvent, Stream, TaskId, TaskSpec,
};
use runlane::worker::{Drain, Readiness};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::nats::TestServer;
use crate::support::worker::{Fleet, settings, shell_spec};

/// Short tasks, enough of them that the next is taken to be short too.
const SHORT: u64 = 20;
const ROUNDS: usize = 8;
const DEADLINE: Duration = Duration::from_secs(10);

/// How often tasks were delivered, of all lanes.
async fn deliveries(server: &TestServer, fleet: &Fleet) -> u64 {
    let jetstream = server.connect().await.jetstream;
    let stream = jetstream.get_stream_no_info(fleet.bus.subjects().queue_stream()).await;
    let stream = stream.expect("a stream's name");
    let lanes: Vec<_> = stream.consumers().try_collect().await.expect("the server answers");
    lanes.iter().map(|lane| lane.delivered.consumer_sequence).sum()
}

/// The labels that tasks of these lanes ask for.
fn labels(lanes: std::ops::Range<usize>) -> BTreeMap<String, String> {
    lanes.map(|n| (format!("lane-{n}"), "yes".to_owned())).collect()
}

/// Submits a task that sleeps, in a lane of its own number.
async fn submit_in(client: &Client, lane: usize, seconds: &str) -> TaskId {
    let mut spec = TaskSpec::command("sleep", [seconds.to_owned()]);
    let match_labels = labels(lane..lane + 1);
    spec.runner_selector = Some(Selector { match_labels, ..Selector::default() });
    client.submitter().submit(spec).await.expect("submitted").task.id
}

#[tokio::test]
async fn tasks_of_a_backlog_are_delivered_once_each() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let mut ids = Vec::new();
    for n in 0..20 {
        ids.push(fleet.shell(&format!("t{n}"), "sleep 0.03").await);
    }
    let _worker = fleet.worker(&server, "w1", 2).await;
    for id in &ids {
        assert_eq!(fleet.outcome(id).await.phase, Phase::Succeeded, "{id}");
    }
    assert_eq!(deliveries(&server, &fleet).await, 20);
}

#[tokio::test]
async fn a_backlog_in_many_lanes_is_delivered_little_more_than_once() {
    const LANES: usize = 40;
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let client = Client::new(fleet.bus.clone());
    let mut ids = Vec::new();
    for n in 0..4 * LANES {
        ids.push(submit_in(&client, n % LANES, "0.02").await);
    }
    let mut settings = settings("w1", 8);
    settings.labels = labels(0..LANES);
    let _worker = fleet.worker_with(&server, settings).await;
    for id in &ids {
        assert_eq!(fleet.outcome(id).await.phase, Phase::Succeeded, "{id}");
    }
    let deliveries = deliveries(&server, &fleet).await;
    // One of each lane comes before the worker can know that there is more in them than it can run.
    assert!(deliveries <= 6 * LANES as u64, "{deliveries}");
}

#[tokio::test]
async fn what_comes_in_excess_is_fetched_again_only_when_there_is_room() {
    const LANES: usize = 60;
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let client = Client::new(fleet.bus.clone());
    let mut settings = settings("w1", 2);
    settings.labels = labels(0..LANES);
    let _worker = fleet.worker_with(&server, settings).await;
    let mut ids = Vec::new();
    for round in 0..2 {
        for n in 0..LANES {
            // The first makes the lane, and the worker has a pull open in each when the second comes.
            ids.push(submit_in(&client, n, if round == 0 { "0" } else { "0.05" }).await);
        }
        for id in ids.drain(..) {
            assert_eq!(fleet.outcome(&id).await.phase, Phase::Succeeded, "{id}");
        }
    }
    let deliveries = deliveries(&server, &fleet).await;
    // Each twice at most: as its lane's pull is open, and when there is room.
    assert!(deliveries <= 2 * 2 * LANES as u64, "{deliveries}");
}

#[tokio::test]
async fn many_changes_of_the_lanes_are_few_reads() {
    const CHANGES: usize = 200;
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let stream = format!("KV_{}", fleet.bus.subjects().lanes_bucket());
    let reads = fleet.bus.subscribe(format!("$JS.API.DIRECT.GET.{stream}")).await;
    let mut reads = reads.expect("subscribed");
    let _worker = fleet.worker(&server, "w1", 1).await;
    let default = LaneRecord { kind: Kind::Subprocess, selector: Selector::default() };
    let record = Bytes::from(serde_json::to_vec(&default).expect("plain JSON"));
    let key = format!("$KV.{}.{}", fleet.bus.subjects().lanes_bucket(), default.id());
    for _ in 0..CHANGES {
        fleet.bus.send(key.clone(), record.clone()).await.expect("sent");
    }
    let mut count = 0;
    // Silence is the end: it reads again a few times, 150 ms apart, and then every 30 s.
    while timeout(Duration::from_secs(1), reads.next()).await.is_ok() {
        count += 1;
    }
    assert!((1..CHANGES / 4).contains(&count), "{count} reads");
}

#[tokio::test]
async fn what_was_fetched_ahead_of_a_long_task_is_handed_back_for_another_worker() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let _busy = fleet.worker(&server, "w1", 1).await;
    // On a busy machine runs are not short: then nothing is fetched ahead, and it is tried again.
    for round in 1..=ROUNDS {
        for n in 0..SHORT {
            let id = fleet.publish(&format!("short{round}-{n}"), spec("/bin/true")).await;
            fleet.outcome(&id).await;
        }
        let before = deliveries(&server, &fleet).await;
        let long = fleet.shell(&format!("long{round}"), "echo up; sleep 5").await;
        let after = fleet.publish(&format!("after{round}"), spec("/bin/true")).await;
        fleet.first_output(&long).await;
        let start = Instant::now();
        let mut free = fleet.worker(&server, "w2", 1).await;
        let outcome = fleet.outcome(&after).await;
        assert_eq!(outcome.worker.expect("it ran").as_str(), "w2");
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        free.drain(Drain::Stop);
        free.ended().await.expect("it ends cleanly");
        // Each once, but the last one: to the busy worker first.
        if deliveries(&server, &fleet).await == before + 2 + 1 {
            return;
        }
        fleet.cancel(&long, "").await;
        fleet.outcome(&long).await;
    }
    panic!("nothing was fetched ahead in {ROUNDS} rounds");
}

#[tokio::test]
async fn the_start_of_the_next_short_task_comes_before_the_end_of_the_one_before() {
    const TASKS: usize = 60;
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let records = fleet.bus.subscribe(fleet.bus.subjects().status_all()).await;
    let mut records = records.expect("subscribed");
    let mut worker = fleet.worker(&server, "w1", 1).await;
    // On a busy machine runs are not short: then the next one is fetched first, and it is tried again.
    for round in 1..=ROUNDS {
        for n in 0..TASKS {
            fleet.publish(&format!("t{round}-{n}"), spec("/bin/true")).await;
        }
        let (mut started, mut finished, mut passed) = (0, 0, 0);
        while finished < TASKS {
            let record = timeout(DEADLINE, records.next()).await.expect("the tasks go on");
            let payload = record.expect("the connection is open").payload;
            match serde_json::from_slice(&payload).expect("a record") {
                StatusEvent::Started(_) => started += 1,
                StatusEvent::Finished(_) => {
                    finished += 1;
                    passed += usize::from(started > finished);
                }
                other => panic!("{other:?}"),
            }
        }
        if passed > TASKS / 4 {
            worker.drain(Drain::Stop);
            return worker.ended().await.map(drop).expect("it ends cleanly");
        }
    }
    panic!("an end came first in nearly all of {ROUNDS} rounds");
}

/// What is fetched ahead is judged and planned before its place is free, each for itself.
#[tokio::test]
async fn tasks_of_all_sorts_that_follow_each_other_closely_are_each_run_as_their_own_spec_says() {
    const TASKS: usize = 160;
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let mut tasks = Vec::new();
    let now = Timestamp::now();
    for n in 0..TASKS {
        // Some may start when most of the others have run: where it is looked at, it may be so far or not.
        let not_before = now + Duration::from_millis(4 * n as u64);
        let spec = match n % 8 {
            0 => spec("/no/such/program"),
            2 => shell_spec("true", "\"timeout\":\"x\","),
            4 => shell_spec("exit 7", ""),
            6 => shell_spec(
                "exit 0",
                r#""runnerSelector":{"matchLabels":{"runner-name":"default"}},"#,
            ),
            7 => shell_spec("exit 0", &format!("\"notBefore\":\"{not_before}\",")),
            _ => shell_spec("echo $RUNLANE_TASK_ID $RUNLANE_RUN_ID", ""),
        };
        tasks.push((n % 8, fleet.publish(&format!("t{n}"), spec).await));
    }
    let _worker = fleet.worker(&server, "w1", 1).await;
    let mut runs = BTreeSet::new();
    for (sort, id) in &tasks {
        let outcome = fleet.patient_outcome(id).await;
        let expected = match sort {
            0 => (Phase::Failed, None),
            2 => (Phase::Rejected, None),
            4 => (Phase::Failed, Some(7)),
            _ => (Phase::Succeeded, Some(0)),
        };
        assert_eq!((outcome.phase, outcome.exit_code), expected, "{id}");
        if [1, 3, 5].contains(sort) {
            let said = String::from_utf8(fleet.output(id, Stream::Stdout).await).expect("text");
            let (task, run) = said.trim_end().split_once(' ').expect("two names");
            assert_eq!(task, id.as_str());
            assert!(runs.insert(run.to_owned()), "{run} is another task's run, too");
        }
    }
    fleet.queue_is_empty().await;
}

#[tokio::test]
async fn a_spec_whose_connection_was_lost_is_sent_again() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let mut watch = JoinSet::new();
    watch.spawn(fleet.log.clone().watch_replicas());
    let id: TaskId = "t".parse().expect("a valid id");
    let spec = Bytes::from_static(b"{}");
    let stored = async || {
        let subjects = fleet.bus.subjects();
        let last = fleet.bus.read_last(&subjects.tasks_stream(), &subjects.spec(&id)).await;
        last.expect("the server answers").is_some()
    };
    // Until the replicas are counted, each one is confirmed.
    let start = Instant::now();
    let mut sent = Kept::Confirmed;
    while sent == Kept::Confirmed || !stored().await {
        assert!(start.elapsed() < DEADLINE, "the one replica is not counted");
        sent = fleet.log.keep_spec(&id, &spec).await.expect("sent");
    }
    let subjects = fleet.bus.subjects();
    fleet.bus.purge(&subjects.tasks_stream(), &subjects.spec(&id)).await.expect("purged");
    fleet.log.kept(&id, &spec, sent).await.expect("nothing to do");
    assert!(!stored().await, "the connection is the same");
    let Kept::SentOn(connection) = sent else { panic!("one replica: {sent:?}") };
    fleet.log.kept(&id, &spec, Kept::SentOn(connection + 1)).await.expect("sent again");
    assert!(stored().await);
}

fn spec(program: &str) -> String {
    format!(r#"{{"kind":{{"subprocess":{{"mode":{{"command":{{"command":"{program}"}}}}}}}}}}"#)
}

#[tokio::test]
async fn a_lane_that_can_not_be_served_keeps_no_other_from_it() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let subjects = fleet.bus.subjects();
    let selector = Selector { match_labels: labels(0..1), ..Selector::default() };
    let record = LaneRecord { kind: Kind::Subprocess, selector };
    // Somebody's own consumer takes what the lane's would.
    let jetstream = server.jetstream().await;
    let watch = async_nats::jetstream::consumer::pull::Config {
        durable_name: Some("watch".to_owned()),
        filter_subject: format!("runlane.queue.{}.*", record.id()),
        ..Default::default()
    };
    let made = jetstream.create_consumer_on_stream(watch, subjects.queue_stream()).await;
    made.expect("it is made");
    let key = format!("$KV.{}.{}", subjects.lanes_bucket(), record.id());
    let payload = Bytes::from(serde_json::to_vec(&record).expect("plain JSON"));
    fleet.bus.publish(key, Headers::default(), payload).await.expect("stored");
    let mut settings = settings("w1", 2);
    settings.labels = labels(0..1);
    let _worker = fleet.worker_with(&server, settings).await;
    let other = fleet.shell("other", "exit 0").await;
    assert_eq!(fleet.outcome(&other).await.phase, Phase::Succeeded);
    let spec = shell_spec("exit 0", r#""runnerSelector":{"matchLabels":{"lane-0":"yes"}},"#);
    let waits: TaskId = "waits".parse().expect("valid");
    let subject = subjects.queue(&record.id(), &waits);
    fleet.bus.publish(subject, Headers::default(), spec.into()).await.expect("queued");
    jetstream.delete_consumer_from_stream("watch", subjects.queue_stream()).await.expect("gone");
    assert_eq!(fleet.outcome(&waits).await.phase, Phase::Succeeded);
}

#[tokio::test]
async fn what_was_asked_while_the_server_was_away_is_not_asked_again_and_again() {
    let mut server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let worker = fleet.worker(&server, "w1", 4).await;
    fleet.outcome(&fleet.shell("before", "exit 0").await).await;
    server.kill().await;
    // A waiting pull counts as forgotten after five seconds.
    tokio::time::sleep(Duration::from_secs(12)).await;
    server.restart().await;
    while worker.readiness() != Readiness::Ready {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    fleet.patient_outcome(&fleet.shell("after", "exit 0").await).await;
    let jetstream = server.connect().await.jetstream;
    let lane = fleet.bus.subjects().lane_consumer(&LaneId::default_lane());
    let stream = jetstream.get_stream_no_info(fleet.bus.subjects().queue_stream()).await;
    let info = stream.expect("a stream's name").consumer_info(lane).await.expect("it is there");
    assert!(info.num_waiting <= 1, "{} pulls are open", info.num_waiting);
}

#[tokio::test]
async fn messages_that_can_never_be_tasks_hold_nobody_up() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let _worker = fleet.worker(&server, "w1", 2).await;
    fleet.outcome(&fleet.shell("before", "exit 0").await).await;
    for n in 0..20 {
        let subject = format!("runlane.queue.default.user{n}@host");
        fleet.bus.publish(subject, Headers::default(), Bytes::new()).await.expect("stored");
    }
    let begun = Instant::now();
    fleet.outcome(&fleet.shell("after", "exit 0").await).await;
    // A pull whose messages aren't counted is taken for a forgotten one after five seconds.
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    fleet.queue_is_empty().await;
}
