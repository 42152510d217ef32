use std::collections::HashSet;

use runlane::client::{Client, SubmitError};
use runlane::nats::Bus;
use runlane::wire::{Namespace, Phase, Selector, Subjects, TaskSpec};

use super::hand::{Setup, echo, soon};

#[tokio::test]
async fn a_task_is_queued_once_in_canonical_form() {
    let setup = Setup::new().await;
    let first = setup.client.submit(echo("a")).await.expect("queued");
    assert!(!first.task.duplicate);
    let again = setup.client.submit(echo("a")).await.expect("known");
    assert!(again.task.duplicate);
    assert_eq!((again.phase, again.task.seq), (Phase::Pending, first.task.seq));
    let queued = setup.client.queued(&first.task.id).await.expect("read").expect("queued");
    assert_eq!(queued.spec, Some(echo("a")));
}

#[tokio::test]
async fn an_id_in_another_lane_is_the_same_task() {
    let setup = Setup::new().await;
    let first = setup.client.submit(echo("a")).await.expect("queued");
    let selector = Some("gpu=h200".parse().expect("a selector"));
    let elsewhere = TaskSpec { runner_selector: selector, ..echo("a") };
    let again = setup.client.submit(elsewhere).await.expect("known");
    assert!(again.task.duplicate);
    assert_eq!(again.task.lane, first.task.lane);
}

#[tokio::test]
async fn a_task_that_has_run_is_not_queued_again() {
    let setup = Setup::new().await;
    let mut hand = setup.hand("done");
    hand.start().await;
    let running = setup.client.submit(echo("done")).await.expect("known");
    assert_eq!((running.task.duplicate, running.phase), (true, Phase::Running));
    hand.finish(3).await;
    let finished = setup.client.submit(echo("done")).await.expect("known");
    assert_eq!((finished.task.duplicate, finished.phase), (true, Phase::Failed));
    assert_eq!(setup.client.queued(&hand.id).await.expect("read"), None);
}

#[tokio::test]
async fn a_spec_that_is_too_large_is_refused_with_both_numbers() {
    let setup = Setup::new().await;
    let huge = TaskSpec::command("echo", ["x".repeat(9 * 1024 * 1024)]);
    let error = setup.client.submit(huge).await.expect_err("too large");
    let SubmitError::TooLarge { size, limit } = error else { panic!("{error}") };
    assert!(size > 9 * 1024 * 1024 && limit == 8 * 1024 * 1024, "{size} {limit}");
}

#[tokio::test]
async fn a_namespace_that_is_not_set_up_is_named() {
    let setup = Setup::new().await;
    let connected = setup.server.connect().await;
    let namespace: Namespace = "elsewhere".parse().expect("a namespace");
    let subjects = Subjects::new(namespace);
    let bus = Bus::over(&connected, subjects);
    let error = Client::new(bus).submit(echo("a")).await.expect_err("no streams");
    assert!(error.to_string().contains("namespace elsewhere is not set up"), "{error}");
}

#[tokio::test]
async fn many_are_answered_in_their_order() {
    let setup = Setup::new().await;
    let selectors: [Selector; 3] =
        ["", "os=linux", "gpu in (a,b)"].map(|text| text.parse().expect("a selector"));
    let spec = |n: usize| TaskSpec {
        runner_selector: Some(selectors[n % 3].clone()),
        // Every tenth one is there twice.
        ..echo(&format!("t{}", n - usize::from(n % 30 == 29) * 3))
    };
    let mut bulk = setup.client.submitter().submit_all((0..1_500).map(spec));
    let mut n = 0;
    let mut duplicates = 0;
    let mut lanes = HashSet::new();
    while let Some(answer) = soon(bulk.next()).await {
        let submission = answer.expect("queued");
        assert_eq!(Some(&submission.task.id), spec(n).id.as_ref());
        duplicates += usize::from(submission.task.duplicate);
        lanes.insert(submission.task.lane);
        n += 1;
    }
    assert_eq!((n, duplicates, lanes.len()), (1_500, 50, 3));
}

#[tokio::test]
async fn many_into_as_many_new_lanes_do_not_block_each_other() {
    let setup = Setup::new().await;
    let spec = |n: usize| TaskSpec {
        runner_selector: Some(format!("n={}", n % 800).parse().expect("a selector")),
        ..echo(&format!("t{n}"))
    };
    let mut bulk = setup.client.submitter().submit_all((0..1_600).map(spec));
    let mut n = 0;
    while let Some(answer) = soon(bulk.next()).await {
        answer.expect("queued");
        n += 1;
    }
    assert_eq!(n, 1_600);
}
