//! Messages that nobody waits for: in order, before the next request, and soon without one.

use std::time::{Duration, Instant};

use runlane::nats::{Bus, Headers, Subscription, along};
use runlane::wire::Subjects;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::support::nats::TestServer;

/// Longer than any message waits for company.
const LONG: Duration = Duration::from_millis(200);

async fn bus(server: &TestServer) -> Bus {
    Bus::over(&server.connect().await, Subjects::default())
}

async fn heard(subscription: &mut Subscription) -> Option<String> {
    let message = timeout(LONG, subscription.next()).await.ok()??;
    Some(String::from_utf8_lossy(&message.payload).into_owned())
}

#[tokio::test]
async fn they_go_before_the_next_request_in_their_order_and_once() {
    let server = TestServer::start().await;
    let (ours, theirs) = (bus(&server).await, bus(&server).await);
    let mut all = theirs.subscribe("along.*".to_owned()).await.expect("subscribed");
    for n in 0..3 {
        ours.send_along("along.a".to_owned(), format!("{n}").into()).await;
    }
    assert_eq!(heard(&mut all).await, None, "nothing takes them along");
    // That there is no stream doesn't matter.
    let refused = ours.publish("along.b".to_owned(), Headers::default(), "request".into()).await;
    assert!(refused.is_err());
    for expected in ["0", "1", "2", "request"] {
        assert_eq!(heard(&mut all).await.as_deref(), Some(expected));
    }
    ours.round_trip().await.expect("the server answers");
    assert_eq!(heard(&mut all).await, None);
}

#[tokio::test]
async fn they_go_soon_without_a_request() {
    let server = TestServer::start().await;
    let (ours, theirs) = (bus(&server).await, bus(&server).await);
    let mut all = theirs.subscribe("along.*".to_owned()).await.expect("subscribed");
    let mut service = JoinSet::new();
    service.spawn(along::run(ours.clone()));
    for n in 0..3 {
        ours.send_along("along.a".to_owned(), format!("{n}").into()).await;
        assert_eq!(heard(&mut all).await, Some(n.to_string()));
    }
}

#[tokio::test]
async fn a_request_in_no_hurry_waits_for_another_one_but_not_for_long() {
    let server = TestServer::start().await;
    let ours = bus(&server).await;
    // The shortest of several: other processes may take the CPU.
    let mut shortest = LONG;
    for _ in 0..10 {
        let start = Instant::now();
        ours.company().await;
        shortest = shortest.min(start.elapsed());
    }
    assert!((Duration::from_millis(1)..LONG).contains(&shortest), "{shortest:?}");
    let waiting = ours.clone();
    let company = async move {
        let start = Instant::now();
        for _ in 0..200 {
            waiting.company().await;
        }
        start.elapsed()
    };
    let mut companies = JoinSet::new();
    let abort = companies.spawn(company);
    while !abort.is_finished() {
        ours.round_trip().await.expect("the server answers");
        sleep(Duration::ZERO).await;
    }
    let took = companies.join_next().await.expect("there is one").expect("it doesn't panic");
    assert!(took < 200 * shortest, "200 times in {took:?}, alone {shortest:?} each");
}
