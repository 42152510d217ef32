use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use runlane::client::ListFilter;
use runlane::nats::Headers;
use runlane::nats::topology::kv_key;
use runlane::wire::{
    Kind, LaneId, Phase, Preset, RunnerPresence, TaskSpec, WorkerPresence, WorkerState,
};

use super::hand::{Setup, echo, soon, task};

fn filter(phase: Option<Phase>, limit: usize) -> ListFilter {
    ListFilter { phase, lane: None, limit }
}

async fn ids(setup: &Setup, filter: &ListFilter) -> Vec<String> {
    let listing = soon(setup.client.list(filter)).await.expect("listed");
    listing.tasks.iter().map(|task| format!("{} {}", task.id, task.phase)).collect()
}

#[tokio::test]
async fn tasks_are_listed_newest_first_whatever_their_phase() {
    let setup = Setup::new().await;
    setup.client.submit(echo("waits")).await.expect("queued");
    let mut done = setup.hand("done");
    done.start().await;
    let mut runs = setup.hand("runs");
    runs.start().await;
    let mut retries = setup.hand("retries");
    retries.start().await;
    retries.retry().await;
    done.finish(3).await;
    let all = ["done failed", "retries pending", "runs running", "waits pending"];
    assert_eq!(ids(&setup, &filter(None, 10)).await, all);
    assert_eq!(ids(&setup, &filter(None, 2)).await, all[..2]);
    assert_eq!(ids(&setup, &filter(Some(Phase::Running), 10)).await, all[2..3]);
    assert_eq!(ids(&setup, &filter(Some(Phase::Pending), 10)).await, [all[1], all[3]]);
    let nowhere = ListFilter { lane: Some("other".parse().expect("a lane")), ..filter(None, 10) };
    assert_eq!(ids(&setup, &nowhere).await, [""; 0]);
}

#[tokio::test]
async fn a_long_queue_is_read_from_its_new_end() {
    let setup = Setup::new().await;
    let specs = (0..2_000).map(|n| echo(&format!("t{n}")));
    let mut bulk = setup.client.submitter().submit_all(specs);
    while let Some(answer) = soon(bulk.next()).await {
        answer.expect("queued");
    }
    // The newest ones run already: they are listed once.
    for n in 1_990..2_000 {
        setup.hand(&format!("t{n}")).start().await;
    }
    let pending = ids(&setup, &filter(Some(Phase::Pending), 600)).await;
    let number = |task: &String| task.split([' ', 't']).nth(1).and_then(|n| n.parse::<u32>().ok());
    let numbers: BTreeSet<u32> = pending.iter().filter_map(number).collect();
    assert_eq!((pending.len(), numbers.len()), (600, 600));
    // Submissions in flight at once may be stored in another order.
    assert!(numbers.iter().all(|n| (1_390 - 256..1_990).contains(n)), "{numbers:?}");
}

#[tokio::test]
async fn the_outcomes_of_many_tasks_are_waited_for() {
    let setup = Setup::new().await;
    let mut hands: Vec<_> = (0..40).map(|n| setup.hand(&format!("t{n}"))).collect();
    for hand in &mut hands[..20] {
        hand.start().await;
        hand.finish(0).await;
    }
    let ids = hands.iter().map(|hand| hand.id.clone());
    let mut waiter = setup.client.wait(ids).await.expect("subscribed");
    for _ in 0..20 {
        soon(waiter.next()).await.expect("read").expect("an outcome");
    }
    assert_eq!(waiter.missing().count(), 20);
    for hand in &mut hands[20..] {
        hand.start().await;
        hand.finish(4).await;
    }
    let mut codes = BTreeMap::new();
    while let Some(outcome) = soon(waiter.next()).await.expect("read") {
        codes.insert(outcome.id.to_string(), outcome.exit_code);
    }
    assert_eq!(codes.len(), 20);
    assert!(codes.values().all(|code| *code == Some(4)), "{codes:?}");
}

#[tokio::test]
async fn a_tasks_report_has_its_whole_life() {
    let setup = Setup::new().await;
    assert_eq!(setup.client.status(&task("nobody")).await.expect("read"), None);
    setup.client.submit(echo("life")).await.expect("queued");
    let queued = setup.client.status(&task("life")).await.expect("read").expect("known");
    assert_eq!((queued.phase, queued.records.len()), (Phase::Pending, 0));
    let mut hand = setup.hand("life");
    hand.start().await;
    hand.retry().await;
    hand.start().await;
    let outcome = hand.finish(0).await;
    let report = setup.client.status(&hand.id).await.expect("read").expect("known");
    assert_eq!((report.phase, report.records.len()), (Phase::Succeeded, 4));
    assert_eq!(report.outcome, Some(outcome));
}

fn presence(worker: &str, labels: &[(&str, &str)]) -> WorkerPresence {
    let labels: BTreeMap<String, String> =
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let runner = RunnerPresence {
        name: "default".to_owned(),
        kind: Kind::Subprocess,
        labels: labels.clone(),
        isolation: Preset::None,
    };
    WorkerPresence {
        worker: worker.parse().expect("a worker id"),
        version: "0.1.0".to_owned(),
        hostname: "host".to_owned(),
        pid: 1,
        state: WorkerState::Ready,
        capacity: 2,
        running: 0,
        labels,
        runners: vec![runner],
        lanes: Vec::new(),
        features: BTreeMap::new(),
        started_at: Timestamp::now(),
        seen_at: Timestamp::now(),
    }
}

#[tokio::test]
async fn a_lane_that_nobody_serves_says_what_each_worker_lacks() {
    let setup = Setup::new().await;
    for presence in [presence("cpu", &[("os", "linux")]), presence("gpu", &[("gpu", "a100")])] {
        let key = kv_key(&setup.bus.subjects().workers_bucket(), presence.worker.as_str());
        let payload = serde_json::to_vec(&presence).expect("JSON").into();
        setup.bus.publish(key, Headers::default(), payload).await.expect("stored");
    }
    assert_eq!(setup.client.workers().await.expect("read").workers.len(), 2);
    let selector = Some("gpu=h200".parse().expect("a selector"));
    let spec = TaskSpec { runner_selector: selector, ..echo("big") };
    let lane = setup.client.submit(spec).await.expect("queued").task.lane;
    let report = setup.client.lane(&lane).await.expect("read").expect("the lane is there");
    assert!(report.is_stuck());
    let lacks: Vec<String> = report
        .mismatches
        .iter()
        .map(|mismatch| format!("{}: {}", mismatch.worker, mismatch.lacks.join(", ")))
        .collect();
    assert_eq!(lacks.len(), 2);
    assert!(lacks[0].starts_with("cpu: ") && lacks[0].contains("gpu=h200"), "{lacks:?}");
    assert!(lacks[1].contains("a100"), "it says what the label is: {lacks:?}");

    let lanes = setup.client.lanes().await.expect("read");
    let default = lanes.iter().find(|report| report.lane == LaneId::default_lane());
    let default = default.expect("the default lane");
    assert_eq!((default.waiting, default.workers.len(), default.is_stuck()), (0, 2, false));
}
