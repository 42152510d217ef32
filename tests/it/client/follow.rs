use std::time::{Duration, Instant};

use runlane::client::{Follow, FollowEvent, Gap, GapReason};
use runlane::wire::{Attempt, Outcome, StatusEvent, Stream};
use tokio::task::JoinSet;

use super::hand::{Setup, bus, soon, task};

/// What a follower heard, in a form that a person can compare.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// Attempts and ends, in order.
    steps: Vec<String>,
    gaps: Vec<Gap>,
    outages: usize,
    outcome: Option<Outcome>,
}

impl Heard {
    fn take(&mut self, event: FollowEvent) {
        match event {
            FollowEvent::Chunk(chunk) => {
                let all = match chunk.stream {
                    Stream::Stdout => &mut self.stdout,
                    Stream::Stderr => &mut self.stderr,
                };
                all.extend_from_slice(&chunk.data);
                let step = format!("output {}", chunk.attempt);
                if self.steps.last() != Some(&step) {
                    self.steps.push(step);
                }
            }
            FollowEvent::Gap(gap) => self.gaps.push(gap),
            FollowEvent::Status(event) => self.steps.push(match *event {
                StatusEvent::Started(started) => format!("started {}", started.attempt),
                StatusEvent::Retrying(_) => "retrying".to_owned(),
                StatusEvent::Requeued(_) => "requeued".to_owned(),
                StatusEvent::Finished(_) => "finished".to_owned(),
            }),
            FollowEvent::Unreachable(_) => self.outages += 1,
            FollowEvent::Reachable => {}
            FollowEvent::Outcome(outcome) => self.outcome = Some(*outcome),
        }
    }
}

async fn all(mut follow: Follow) -> Heard {
    let mut heard = Heard::default();
    while let Some(event) = follow.next().await.expect("following goes on") {
        heard.take(event);
    }
    heard
}

#[tokio::test]
async fn early_late_and_afterwards_followers_hear_the_same() {
    let setup = Setup::new().await;
    let mut hand = setup.hand("a");
    let mut followers = JoinSet::new();
    followers.spawn(all(setup.client.follow(&hand.id).await.expect("subscribed")));
    hand.start().await;
    hand.write(Stream::Stdout, b"one\n").await;
    hand.write(Stream::Stderr, b"two\n").await;
    followers.spawn(all(setup.client.follow(&hand.id).await.expect("subscribed")));
    hand.write(Stream::Stdout, &[0, 255, 10]).await;
    let outcome = hand.finish(7).await;
    followers.spawn(all(setup.client.follow(&hand.id).await.expect("subscribed")));
    followers.spawn(all(setup.client.stored(&hand.id)));
    let wanted = Heard {
        stdout: b"one\n\x00\xff\n".to_vec(),
        stderr: b"two\n".to_vec(),
        steps: ["started 1", "output 1", "finished"].map(str::to_owned).to_vec(),
        outcome: Some(outcome),
        ..Heard::default()
    };
    while let Some(heard) = soon(followers.join_next()).await {
        assert_eq!(heard.expect("no panic"), wanted);
    }
}

#[tokio::test]
async fn a_reader_that_takes_its_time_gets_every_byte() {
    let setup = Setup::new().await;
    let mut hand = setup.hand("slow");
    let mut follow = setup.client.follow(&hand.id).await.expect("subscribed");
    hand.start().await;
    hand.write(Stream::Stdout, b"first").await;
    let mut heard = Heard::default();
    while heard.stdout.is_empty() {
        heard.take(soon(follow.next()).await.expect("following goes on").expect("not the end"));
    }
    // The reader does nothing while many more chunks pass by than are held for it.
    let mut wanted = b"first".to_vec();
    for n in 0..700_u32 {
        let data = n.to_le_bytes().repeat(512);
        hand.write(Stream::Stdout, &data).await;
        wanted.extend_from_slice(&data);
    }
    hand.finish(0).await;
    while let Some(event) = soon(follow.next()).await.expect("following goes on") {
        heard.take(event);
    }
    assert!(heard.stdout == wanted, "{} of {} bytes", heard.stdout.len(), wanted.len());
    assert_eq!(heard.gaps, []);
}

#[tokio::test]
async fn chunks_that_are_stored_out_of_order_or_twice_come_out_right() {
    let setup = Setup::new().await;
    let mut hand = setup.hand("order");
    let mut followers = JoinSet::new();
    followers.spawn(all(setup.client.follow(&hand.id).await.expect("subscribed")));
    hand.start().await;
    let chunks: Vec<_> = (0..6_u8).map(|n| hand.number(Stream::Stdout, &[b'0' + n])).collect();
    for n in [0, 2, 3, 1, 1, 0, 5, 4] {
        hand.store(&chunks[n]).await;
    }
    hand.finish(0).await;
    followers.spawn(all(setup.client.stored(&hand.id)));
    while let Some(heard) = soon(followers.join_next()).await {
        let heard = heard.expect("no panic");
        assert_eq!((&heard.stdout[..], &heard.gaps[..]), (&b"012345"[..], &[][..]));
    }
}

#[tokio::test]
async fn a_chunk_that_is_stored_long_after_its_place_is_found() {
    let setup = Setup::new().await;
    let mut hand = setup.hand("hole");
    let mut followers = JoinSet::new();
    followers.spawn(all(setup.client.follow(&hand.id).await.expect("subscribed")));
    hand.start().await;
    let chunks: Vec<_> =
        (0..700_u32).map(|n| hand.number(Stream::Stdout, &n.to_le_bytes())).collect();
    hand.store(&chunks[0]).await;
    // More than a follower holds while one is missing.
    for group in chunks[2..].chunks(50) {
        futures_util::future::join_all(group.iter().map(|chunk| hand.store(chunk))).await;
    }
    hand.store(&chunks[1]).await;
    hand.finish(0).await;
    followers.spawn(all(setup.client.stored(&hand.id)));
    let wanted: Vec<u8> = (0..700_u32).flat_map(u32::to_le_bytes).collect();
    while let Some(heard) = soon(followers.join_next()).await {
        let heard = heard.expect("no panic");
        assert_eq!(heard.gaps, []);
        assert!(heard.stdout == wanted, "{} of {} bytes", heard.stdout.len(), wanted.len());
    }
}

#[tokio::test]
async fn a_chunk_that_never_comes_is_given_up_while_the_task_goes_on() {
    let setup = Setup::new().await;
    let mut hand = setup.hand("never");
    let follow = setup.client.follow(&hand.id).await.expect("subscribed");
    let mut follow = follow.with_patience(Duration::from_secs(3));
    hand.start().await;
    hand.write(Stream::Stdout, b"a").await;
    let lost = hand.number(Stream::Stdout, b"lost");
    hand.write(Stream::Stdout, b"b").await;
    drop(lost);
    let mut heard = Heard::default();
    while heard.stdout.len() < 2 {
        heard.take(soon(follow.next()).await.expect("following goes on").expect("not the end"));
    }
    assert_eq!((heard.stdout, heard.gaps.len()), (b"ab".to_vec(), 1));
}

#[tokio::test]
async fn attempts_are_announced_and_each_starts_anew() {
    let setup = Setup::new().await;
    let mut hand = setup.hand("again");
    let mut followers = JoinSet::new();
    followers.spawn(all(setup.client.follow(&hand.id).await.expect("subscribed")));
    hand.start().await;
    hand.write(Stream::Stdout, b"a").await;
    hand.retry().await;
    hand.start().await;
    hand.write(Stream::Stdout, b"b").await;
    hand.finish(0).await;
    followers.spawn(all(setup.client.follow(&hand.id).await.expect("subscribed")));
    while let Some(heard) = soon(followers.join_next()).await {
        let heard = heard.expect("no panic");
        let steps = ["started 1", "output 1", "retrying", "started 2", "output 2", "finished"];
        assert_eq!(heard.steps, steps);
        assert_eq!((&heard.stdout[..], &heard.gaps[..]), (&b"ab"[..], &[][..]));
    }
}

#[tokio::test]
async fn output_that_was_promised_and_is_not_there_is_named() {
    let setup = Setup::new().await;
    let mut hand = setup.hand("lost");
    hand.start().await;
    hand.write(Stream::Stdout, b"head").await;
    let middle = hand.number(Stream::Stdout, b"never stored");
    hand.write(Stream::Stdout, b"tail").await;
    drop(middle);
    hand.finish(0).await;
    let begun = Instant::now();
    let follow = setup.client.follow(&hand.id).await.expect("subscribed");
    let heard = soon(all(follow)).await;
    assert!(begun.elapsed() < Duration::from_secs(10), "the wait is bounded");
    assert_eq!(heard.stdout, b"headtail");
    let gap = Gap {
        attempt: Attempt::FIRST,
        stream: Stream::Stdout,
        offset: 4,
        bytes: 12,
        reason: GapReason::Missing,
    };
    assert_eq!(heard.gaps, [gap]);
    assert!(heard.outcome.is_some());
}

#[tokio::test]
async fn following_survives_a_restart_of_the_server() {
    let mut setup = Setup::new().await;
    let mut hand = setup.hand("restart");
    let other = bus(&setup.server).await;
    let follow = runlane::client::Client::new(other).follow(&hand.id).await.expect("subscribed");
    let mut followers = JoinSet::new();
    followers.spawn(all(follow));
    hand.start().await;
    hand.write(Stream::Stdout, b"before ").await;
    setup.server.restart().await;
    for word in ["after ", "the ", "restart"] {
        hand.write(Stream::Stdout, word.as_bytes()).await;
    }
    hand.finish(0).await;
    let heard = soon(followers.join_next()).await.expect("a follower").expect("no panic");
    assert_eq!(String::from_utf8_lossy(&heard.stdout), "before after the restart");
    assert_eq!(heard.gaps, []);
}

#[tokio::test]
async fn a_server_that_is_away_is_said_once_and_waited_for() {
    let mut setup = Setup::new().await;
    let mut hand = setup.hand("away");
    let mut follow = setup.client.follow(&hand.id).await.expect("subscribed");
    setup.server.kill().await;
    let first = soon(follow.next()).await.expect("it waits").expect("not the end");
    assert!(matches!(first, FollowEvent::Unreachable(_)), "{first:?}");
    setup.server.restart().await;
    hand.start().await;
    hand.finish(0).await;
    let heard = soon(all(follow)).await;
    assert_eq!(
        (heard.outages, heard.steps),
        (0, vec!["started 1".to_owned(), "finished".to_owned()])
    );
}

#[tokio::test]
async fn what_is_stored_ends_at_once_without_an_outcome() {
    let setup = Setup::new().await;
    let mut hand = setup.hand("now");
    hand.start().await;
    hand.write(Stream::Stderr, b"so far").await;
    let heard = soon(all(setup.client.stored(&hand.id))).await;
    assert_eq!((&heard.stderr[..], heard.outcome), (&b"so far"[..], None));
    let nothing = soon(all(setup.client.stored(&task("nobody")))).await;
    assert_eq!(nothing, Heard::default());
}
