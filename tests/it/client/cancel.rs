use std::time::Duration;

use runlane::client::{CancelError, CancelOptions, Canceled, UnknownTask};
use runlane::nats::{Headers, StatusLog};
use runlane::wire::{CancelRequest, LaneId, Outcome, Phase, StopReason, TaskId};
use tokio::task::JoinSet;

use super::hand::{Setup, echo, soon, task};

fn options() -> CancelOptions {
    CancelOptions {
        request: CancelRequest {
            reason: Some("enough".to_owned()),
            by: Some("me".to_owned()),
            grace_ms: None,
            replaced_by: None,
        },
        wait: Duration::from_secs(10),
        unknown: UnknownTask::Refuse,
    }
}

/// Cancels a task beside the test; returns when the request was heard.
async fn cancel_heard(setup: &Setup, id: &TaskId) -> JoinSet<Result<Canceled, CancelError>> {
    let mut requests = setup.bus.subscribe(setup.bus.subjects().cancel_all()).await.expect("heard");
    let (client, of) = (setup.client.clone(), id.clone());
    let mut cancel = JoinSet::new();
    cancel.spawn(async move { client.cancel(&of, &options()).await });
    let request = soon(requests.next()).await.expect("a request");
    assert_eq!(request.subject, setup.bus.subjects().cancel(id));
    cancel
}

async fn ended(cancel: &mut JoinSet<Result<Canceled, CancelError>>) -> Outcome {
    let canceled = soon(cancel.join_next()).await.expect("one").expect("no panic");
    let Canceled::Ended(outcome) = canceled.expect("canceled") else { panic!("not ended") };
    *outcome
}

async fn assert_ended_once(setup: &Setup, id: &TaskId) {
    let log = StatusLog::new(setup.bus.clone());
    let outcome = log.outcome(id).await.expect("read").expect("there is an outcome");
    assert_eq!(outcome.phase, Phase::Canceled);
    let cause = outcome.cause.expect("a cause");
    assert_eq!((cause.reason, cause.message.as_deref()), (StopReason::Canceled, Some("enough")));
    assert_eq!(setup.client.queued(id).await.expect("read"), None, "the message is gone");
}

#[tokio::test]
async fn a_queued_task_ends_without_a_start() {
    let setup = Setup::new().await;
    let id = setup.client.submit(echo("queued")).await.expect("queued").task.id;
    let canceled = soon(setup.client.cancel(&id, &options())).await.expect("canceled");
    let Canceled::Ended(outcome) = canceled else { panic!("{canceled:?}") };
    assert_eq!((outcome.attempt, outcome.lane.is_some()), (None, true));
    assert_ended_once(&setup, &id).await;
    let again = soon(setup.client.cancel(&id, &options())).await.expect("known");
    assert!(matches!(again, Canceled::AlreadyEnded(_)), "{again:?}");
}

#[tokio::test]
async fn a_task_that_waits_for_its_next_attempt_ends_with_what_it_was() {
    let setup = Setup::new().await;
    let id = setup.client.submit(echo("retrying")).await.expect("queued").task.id;
    let mut hand = setup.hand("retrying");
    hand.start().await;
    hand.retry().await;
    let canceled = soon(setup.client.cancel(&id, &options())).await.expect("canceled");
    let Canceled::Ended(outcome) = canceled else { panic!("{canceled:?}") };
    assert_eq!((outcome.exit_code, outcome.output.is_some()), (Some(1), true));
    assert_ended_once(&setup, &id).await;
}

#[tokio::test]
async fn a_first_start_and_a_stored_cancel_exclude_each_other_in_one_step() {
    let setup = Setup::new().await;
    let log = StatusLog::new(setup.bus.clone());
    let first = async |id: &str| {
        let hand = setup.hand(id);
        log.append_first(&hand.id, &hand.started()).await
    };
    assert_eq!(first("unknown").await, None, "the stream may have replicas");
    let mut services = JoinSet::new();
    services.spawn(log.clone().watch_replicas());
    let known = async {
        let mut tries = 0..;
        while first(&format!("known-{}", tries.next().unwrap_or(0))).await.is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon(known).await;
    let request = setup.bus.subjects().cancel(&task("stopped"));
    setup.bus.publish(request, Headers::default(), "{}".into()).await.expect("stored");
    assert_eq!(first("stopped").await, None);
    assert_eq!(log.last(&task("stopped")).await.expect("read"), None, "nothing was stored");
    assert!(first("free").await.is_some());
    assert_eq!(first("free").await, None, "it has started");
}

#[tokio::test]
async fn a_running_task_is_ended_by_its_worker() {
    let setup = Setup::new().await;
    let mut hand = setup.hand("running");
    hand.start().await;
    let mut cancel = cancel_heard(&setup, &hand.id).await;
    let outcome = hand.outcome(Phase::Canceled, 143);
    hand.finish_with(outcome).await;
    let outcome = ended(&mut cancel).await;
    assert_eq!((outcome.phase, outcome.exit_code), (Phase::Canceled, Some(143)));
}

#[tokio::test]
async fn a_running_task_that_is_handed_back_is_ended_and_its_outcome_names_its_lane() {
    let setup = Setup::new().await;
    let mut hand = setup.hand("returned");
    hand.start().await;
    let mut cancel = cancel_heard(&setup, &hand.id).await;
    hand.requeue().await;
    let outcome = ended(&mut cancel).await;
    assert_eq!((outcome.phase, outcome.lane), (Phase::Canceled, Some(LaneId::default_lane())));
}

#[tokio::test]
async fn a_running_task_whose_worker_does_nothing_is_said_to_be_requested() {
    let setup = Setup::new().await;
    let mut hand = setup.hand("deaf");
    hand.start().await;
    let options = CancelOptions { wait: Duration::from_millis(300), ..options() };
    let canceled = soon(setup.client.cancel(&hand.id, &options)).await.expect("stored");
    assert_eq!(canceled, Canceled::Requested);
    let log = StatusLog::new(setup.bus.clone());
    assert_eq!(log.cancel_request(&hand.id).await.expect("read"), Some(options.request));
}

#[tokio::test]
async fn an_unknown_task_is_refused_before_anything_is_stored() {
    let setup = Setup::new().await;
    let id = task("nobody");
    let error = soon(setup.client.cancel(&id, &options())).await.expect_err("unknown");
    assert!(matches!(error, CancelError::Unknown(_)), "{error}");
    assert_eq!(StatusLog::new(setup.bus.clone()).last_seq(&id).await.expect("read"), 0);
}

#[tokio::test]
async fn an_unknown_task_can_be_ended_before_it_is_submitted() {
    let setup = Setup::new().await;
    let id = task("later");
    let options = CancelOptions { unknown: UnknownTask::EndIt, ..options() };
    soon(setup.client.cancel(&id, &options)).await.expect("ended");
    let late = setup.client.submit(echo("later")).await.expect("known");
    assert_eq!((late.task.duplicate, late.phase), (true, Phase::Canceled));
    assert_ended_once(&setup, &id).await;
}
