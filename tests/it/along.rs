//! Messages that nobody waits for: in order, before the next request, and soon without one.

use std::pin::{Pin, pin};
use std::task::{Context, Waker};
use std::time::Duration;

use runlane::nats::{Bus, Headers, Subscription, along};
use runlane::wire::Subjects;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::nats::TestServer;

/// Longer than any message waits for company.
const LONG: Duration = Duration::from_millis(200);
/// How long a test waits for what must come.
const DEADLINE: Duration = Duration::from_secs(10);

async fn bus(server: &TestServer) -> Bus {
    Bus::over(&server.connect().await, Subjects::default())
}

fn is_pending(future: Pin<&mut impl Future>) -> bool {
    future.poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

async fn heard(subscription: &mut Subscription) -> String {
    let message = timeout(DEADLINE, subscription.next()).await.expect("it comes in time");
    let payload = message.expect("the connection is open").payload;
    String::from_utf8_lossy(&payload).into_owned()
}

async fn is_silent(subscription: &mut Subscription) -> bool {
    timeout(LONG, subscription.next()).await.is_err()
}

#[tokio::test]
async fn they_go_before_the_next_request_in_their_order_and_once() {
    let server = TestServer::start().await;
    let (ours, theirs) = (bus(&server).await, bus(&server).await);
    let mut all = theirs.subscribe("along.*".to_owned()).await.expect("subscribed");
    for n in 0..3 {
        ours.send_along("along.a".to_owned(), format!("{n}").into());
    }
    assert!(is_silent(&mut all).await, "nothing takes them along");
    // That there is no stream doesn't matter.
    let refused = ours.publish("along.b".to_owned(), Headers::default(), "request".into()).await;
    assert!(refused.is_err());
    for expected in ["0", "1", "2", "request"] {
        assert_eq!(heard(&mut all).await, expected);
    }
    ours.round_trip().await.expect("the server answers");
    assert!(is_silent(&mut all).await);
}

#[tokio::test]
async fn they_go_soon_without_a_request() {
    let server = TestServer::start().await;
    let (ours, theirs) = (bus(&server).await, bus(&server).await);
    let mut all = theirs.subscribe("along.*".to_owned()).await.expect("subscribed");
    let mut service = JoinSet::new();
    service.spawn(along::run(ours.clone()));
    for n in 0..3 {
        ours.send_along("along.a".to_owned(), format!("{n}").into());
        assert_eq!(heard(&mut all).await, n.to_string());
    }
}

#[tokio::test]
async fn a_request_in_no_hurry_waits_for_another_one_but_not_for_long() {
    let server = TestServer::start().await;
    let ours = bus(&server).await;
    timeout(DEADLINE, ours.company()).await.expect("it goes alone");
    let mut service = JoinSet::new();
    service.spawn(along::run(ours.clone()));
    timeout(DEADLINE, ours.company()).await.expect("it goes alone here, too");
    // No time passes from here on.
    tokio::time::pause();
    let (mut company, mut request) = (pin!(ours.company()), pin!(ours.round_trip()));
    assert!(is_pending(company.as_mut()));
    // First it lets others run, then it is sent.
    assert!(is_pending(request.as_mut()));
    assert!(is_pending(company.as_mut()), "nothing is sent yet");
    assert!(is_pending(request.as_mut()));
    assert!(!is_pending(company.as_mut()));
    tokio::time::resume();
    request.await.expect("the server answers");
}

#[tokio::test]
async fn a_request_at_once_lets_nobody_run_before_and_another_one_does() {
    let server = TestServer::start().await;
    let (ours, theirs) = (bus(&server).await, bus(&server).await);
    let mut all = theirs.subscribe("along.*".to_owned()).await.expect("subscribed");
    theirs.round_trip().await.expect("the server answers");
    let mut service = JoinSet::new();
    service.spawn(along::run(ours.clone()));
    // It says that the connection is shared.
    tokio::task::yield_now().await;
    let request = |payload: &'static str| (0, Headers::default(), payload.into());
    let (expected, headers, payload) = request("polled once");
    let mut other = pin!(ours.append_with("along.b".to_owned(), expected, headers, payload));
    assert!(is_pending(other.as_mut()));
    let (expected, headers, payload) = request("at once");
    let mut at_once = pin!(ours.append_at_once("along.a".to_owned(), expected, headers, payload));
    assert!(is_pending(at_once.as_mut()));
    assert_eq!(heard(&mut all).await, "at once");
    assert!(is_silent(&mut all).await, "the other one waits to be polled again");
    assert!(is_pending(other.as_mut()));
    assert_eq!(heard(&mut all).await, "polled once");
}

#[tokio::test]
async fn more_than_the_library_takes_at_once_go_in_their_order_and_before_a_request() {
    const MANY: usize = 5_000;
    let server = TestServer::start().await;
    let (ours, theirs) = (bus(&server).await, bus(&server).await);
    let mut all = theirs.subscribe("along.*".to_owned()).await.expect("subscribed");
    for n in 0..MANY {
        ours.send_along("along.a".to_owned(), format!("{n}").into());
    }
    {
        // Given up when the library's queue is full: what it has not taken stays.
        let mut given_up = pin!(ours.round_trip());
        assert!(is_pending(given_up.as_mut()));
    }
    let refused = ours.publish("along.b".to_owned(), Headers::default(), "request".into()).await;
    assert!(refused.is_err());
    for n in 0..MANY {
        assert_eq!(heard(&mut all).await, n.to_string());
    }
    assert_eq!(heard(&mut all).await, "request");
}

#[tokio::test]
async fn requests_that_are_not_polled_do_not_keep_others_waiting() {
    let server = TestServer::start().await;
    let ours = bus(&server).await;
    // More than what one task may do before it has to let others run (tokio's budget).
    let mut others: Vec<_> = (0..500).map(|_| Box::pin(ours.round_trip())).collect();
    for other in &mut others {
        assert!(is_pending(other.as_mut()));
    }
    let answered = timeout(DEADLINE, ours.round_trip()).await.expect("it does not wait for them");
    answered.expect("the server answers");
    for other in others {
        timeout(DEADLINE, other).await.expect("each comes through").expect("the server answers");
    }
}
