use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use runlane::client::{Follow, FollowEvent, Gap, GapReason};
use runlane::nats::{Cas, Headers};
use runlane::wire::output::{HEADER_COMPRESSION, HEADER_LENGTH};
use runlane::wire::{Attempt, Outcome, StatusEvent, Stream, TaskSpec};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::hand::{Hand, Setup, bus, soon, task};

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
    // The reader does nothing while many more bytes pass by than are held for it.
    let mut wanted = b"first".to_vec();
    for n in 0..350_u32 {
        let data = n.to_le_bytes().repeat(12 * 1024);
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

/// Counts the pages of output that anybody reads.
struct Pages {
    read: Arc<AtomicUsize>,
    _watch: JoinSet<()>,
}

impl Pages {
    async fn watch(setup: &Setup) -> Self {
        let bus = bus(&setup.server).await;
        let asked = bus.subscribe("$JS.API.DIRECT.GET.RUNLANE_OUTPUT".to_owned()).await;
        let mut asked = asked.expect("subscribed");
        bus.round_trip().await.expect("the server answers");
        let read = Arc::new(AtomicUsize::new(0));
        let (mut watch, count) = (JoinSet::new(), Arc::clone(&read));
        watch.spawn(async move {
            while let Some(ask) = asked.next().await {
                // Others only move the position up.
                if memchr::memmem::find(&ask.payload, b"next_by_subj").is_some() {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        Self { read, _watch: watch }
    }

    fn read(&self) -> usize {
        self.read.load(Ordering::Relaxed)
    }
}

/// Writes and reads in turn; returns what was written.
async fn in_turn(hand: &mut Hand, follow: &mut Follow, heard: &mut Heard, count: u32) -> Vec<u8> {
    let mut all = Vec::new();
    for n in 0..count {
        let stream = if n % 3 == 0 { Stream::Stderr } else { Stream::Stdout };
        let wanted = heard.stdout.len() + heard.stderr.len() + 4;
        hand.write(stream, &n.to_le_bytes()).await;
        if stream == Stream::Stdout {
            all.extend_from_slice(&n.to_le_bytes());
        }
        while heard.stdout.len() + heard.stderr.len() < wanted {
            heard.take(soon(follow.next()).await.expect("following goes on").expect("not the end"));
        }
    }
    all
}

#[tokio::test]
async fn a_reader_that_keeps_up_reads_nothing_twice() {
    let setup = Setup::new().await;
    let pages = Pages::watch(&setup).await;
    let mut hand = setup.hand("live");
    let mut follow = setup.client.follow(&hand.id).await.expect("subscribed");
    // It looks at what is stored once, before anything is.
    let idle = timeout(Duration::from_millis(300), follow.next()).await;
    assert!(idle.is_err(), "{idle:?}");
    hand.start().await;
    let mut heard = Heard::default();
    heard.take(soon(follow.next()).await.expect("following goes on").expect("not the end"));
    assert_eq!(heard.steps, ["started 1"]);
    let wanted = in_turn(&mut hand, &mut follow, &mut heard, 300).await;
    hand.finish(0).await;
    while let Some(event) = soon(follow.next()).await.expect("following goes on") {
        heard.take(event);
    }
    assert_eq!((heard.stdout, heard.gaps), (wanted, vec![]));
    assert!(heard.outcome.is_some());
    assert_eq!(pages.read(), 1);
}

/// Submits a task that nobody has heard of, and follows it; returns the hand that runs it.
async fn new_task(setup: &Setup) -> (Hand, Follow) {
    let spec = TaskSpec::command("echo", ["hi".to_owned()]);
    let submitted = setup.client.submitter().submit_and_follow(spec).await;
    let (submission, follow) = submitted.expect("it is queued");
    (setup.hand(submission.task.id.as_str()), follow)
}

#[tokio::test]
async fn a_new_short_task_is_followed_without_a_read() {
    let setup = Setup::new().await;
    let asks = setup.bus.subscribe("$JS.API.DIRECT.GET.>".to_owned()).await;
    let mut asks = asks.expect("subscribed");
    let mut tries = 0;
    // What isn't proven in time, as on a busy host, is read.
    loop {
        let (mut hand, follow) = new_task(&setup).await;
        let mut following = JoinSet::new();
        following.spawn(all(follow));
        hand.start().await;
        if tries % 2 == 0 {
            hand.write(Stream::Stdout, b"out").await;
            hand.write(Stream::Stderr, b"err").await;
        }
        let outcome = hand.finish(0).await;
        let heard = soon(following.join_next()).await.expect("one").expect("no panic");
        let (steps, out, err) = match tries % 2 {
            0 => (&["started 1", "output 1", "finished"][..], &b"out"[..], &b"err"[..]),
            _ => (&["started 1", "finished"][..], &b""[..], &b""[..]),
        };
        assert_eq!((heard.steps, heard.gaps), (owned(steps), vec![]));
        assert_eq!((&heard.stdout[..], &heard.stderr[..]), (out, err));
        assert_eq!(heard.outcome, Some(outcome));
        setup.bus.round_trip().await.expect("the server answers");
        let mut reads = 0;
        while timeout(Duration::from_millis(20), asks.next()).await.is_ok() {
            reads += 1;
        }
        tries += 1;
        if reads == 0 && tries > 1 {
            break;
        }
        assert!(tries < 100, "always read: {reads} times now");
    }
}

#[tokio::test]
async fn a_start_that_was_refused_is_not_taken_for_the_tasks() {
    let setup = Setup::new().await;
    for refused_first in [true, false] {
        let (mut hand, mut follow) = new_task(&setup).await;
        let refuse = async |hand: &Hand| {
            let StatusEvent::Started(mut started) = hand.started() else { panic!("a start") };
            started.worker = "loser".parse().expect("a worker id");
            let record = serde_json::to_vec(&StatusEvent::Started(started)).expect("it is JSON");
            let status = setup.bus.subjects().status(&hand.id);
            let stored = setup.bus.append(status, 99, record.into()).await;
            assert_eq!(stored.expect("the server answers"), Cas::Conflict);
        };
        if refused_first {
            refuse(&hand).await;
            hand.start().await;
        } else {
            hand.start().await;
            refuse(&hand).await;
        }
        hand.write(Stream::Stdout, b"hi").await;
        hand.finish(0).await;
        let mut events = Vec::new();
        while let Some(event) = soon(follow.next()).await.expect("following goes on") {
            events.push(event);
        }
        let workers: Vec<_> = events.iter().filter_map(started_by).collect();
        assert_eq!(workers, ["hand"], "{refused_first}");
        assert!(started_by(&events[0]).is_some(), "{events:?}");
        assert!(matches!(events.last(), Some(FollowEvent::Outcome(_))));
    }
}

fn started_by(event: &FollowEvent) -> Option<String> {
    let FollowEvent::Status(event) = event else { return None };
    let StatusEvent::Started(started) = &**event else { return None };
    Some(started.worker.to_string())
}

#[tokio::test]
async fn a_new_task_that_is_retried_is_heard_in_order_however_slow_it_is() {
    let setup = Setup::new().await;
    for pause in [0, 60] {
        let pause = || tokio::time::sleep(Duration::from_millis(pause));
        let (mut hand, follow) = new_task(&setup).await;
        let mut following = JoinSet::new();
        following.spawn(all(follow));
        hand.start().await;
        pause().await;
        hand.write(Stream::Stdout, b"one").await;
        pause().await;
        hand.retry().await;
        pause().await;
        hand.start().await;
        pause().await;
        hand.write(Stream::Stdout, b"two").await;
        pause().await;
        hand.finish(0).await;
        let heard = soon(following.join_next()).await.expect("one").expect("no panic");
        let steps = ["started 1", "output 1", "retrying", "started 2", "output 2", "finished"];
        assert_eq!((heard.steps, heard.stdout), (owned(&steps), b"onetwo".to_vec()));
        assert!(heard.outcome.is_some());
    }
}

fn owned(steps: &[&str]) -> Vec<String> {
    steps.iter().map(|&step| step.to_owned()).collect()
}

#[tokio::test]
async fn a_reader_that_fell_behind_comes_back_to_live_chunks() {
    let setup = Setup::new().await;
    let pages = Pages::watch(&setup).await;
    let mut hand = setup.hand("stalled");
    let mut follow = setup.client.follow(&hand.id).await.expect("subscribed");
    hand.start().await;
    let mut heard = Heard::default();
    let mut wanted = in_turn(&mut hand, &mut follow, &mut heard, 200).await;
    let before = pages.read();
    // 24 MiB pass by, of which 16 are held for the reader and 8 are to be read: 2 pages, and some.
    for n in 0..96_u32 {
        let data = n.to_le_bytes().repeat(64 * 1024);
        hand.write(Stream::Stdout, &data).await;
        wanted.extend_from_slice(&data);
    }
    while heard.stdout.len() < wanted.len() {
        heard.take(soon(follow.next()).await.expect("following goes on").expect("not the end"));
    }
    assert!((1..=5).contains(&(pages.read() - before)), "{} pages", pages.read() - before);
    wanted.extend(in_turn(&mut hand, &mut follow, &mut heard, 10).await);
    let caught_up = pages.read();
    wanted.extend(in_turn(&mut hand, &mut follow, &mut heard, 200).await);
    hand.finish(0).await;
    while let Some(event) = soon(follow.next()).await.expect("following goes on") {
        heard.take(event);
    }
    assert!(heard.stdout == wanted, "{} of {} bytes", heard.stdout.len(), wanted.len());
    assert_eq!(heard.gaps, []);
    // After a loss the next check, of one each 2 s, reads once more.
    assert!(pages.read() - caught_up <= 1, "{} pages", pages.read() - caught_up);
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
async fn an_attempt_without_output_is_followed_by_one_with() {
    let setup = Setup::new().await;
    let mut hand = setup.hand("silent");
    let mut followers = JoinSet::new();
    followers.spawn(all(setup.client.follow(&hand.id).await.expect("subscribed")));
    hand.start().await;
    hand.retry().await;
    hand.start().await;
    hand.write(Stream::Stdout, b"b").await;
    hand.retry().await;
    hand.start().await;
    hand.write(Stream::Stderr, b"c").await;
    hand.write(Stream::Stdout, b"d").await;
    hand.finish(0).await;
    followers.spawn(all(setup.client.follow(&hand.id).await.expect("subscribed")));
    while let Some(heard) = soon(followers.join_next()).await {
        let heard = heard.expect("no panic");
        let steps = "started 1,retrying,started 2,output 2,retrying,started 3,output 3,finished";
        assert_eq!(heard.steps.join(","), steps);
        assert_eq!((&heard.stdout[..], &heard.stderr[..]), (&b"bd"[..], &b"c"[..]));
        assert_eq!(heard.gaps, []);
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

/// A newer worker's chunk: its place is known, so nobody waits for it.
#[tokio::test]
async fn a_chunk_that_can_not_be_read_holds_up_neither_a_live_nor_a_late_follower() {
    let setup = Setup::new().await;
    let mut hand = setup.hand("newer");
    let mut live = setup.client.follow(&hand.id).await.expect("subscribed");
    let begun = Instant::now();
    hand.start().await;
    hand.write(Stream::Stdout, b"head").await;
    let middle = hand.number(Stream::Stdout, b"packed");
    let headers = Headers::default().with(HEADER_COMPRESSION, "zstd").with(HEADER_LENGTH, 6);
    hand.store_with(&middle, headers).await;
    hand.write(Stream::Stdout, b"tail").await;
    let mut heard = Heard::default();
    while heard.stdout != b"headtail" {
        heard.take(soon(live.next()).await.expect("following goes on").expect("not the end"));
    }
    hand.finish(0).await;
    let late = soon(all(setup.client.follow(&hand.id).await.expect("subscribed"))).await;
    while let Some(event) = soon(live.next()).await.expect("following goes on") {
        heard.take(event);
    }
    assert!(begun.elapsed() < Duration::from_secs(3), "took {:?}", begun.elapsed());
    for heard in [heard, late] {
        let gap = Gap {
            attempt: Attempt::FIRST,
            stream: Stream::Stdout,
            offset: 4,
            bytes: 6,
            reason: GapReason::Unreadable,
        };
        assert_eq!((&heard.stdout[..], &heard.gaps[..]), (&b"headtail"[..], &[gap][..]));
        assert!(heard.outcome.is_some());
    }
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
