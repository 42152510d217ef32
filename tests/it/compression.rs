//! Output that is stored compressed is the same output to its readers.

use bytes::Bytes;
use runlane::client::{Client, Follow, FollowEvent, Gap, GapReason};
use runlane::nats::{Headers, Stored};
use runlane::output::compress::{LEAST_BYTES, LEAST_FACTOR};
use runlane::task::RunnerPolicy;
use runlane::wire::output::{
    HEADER_ATTEMPT, HEADER_COMPRESSION, HEADER_LENGTH, HEADER_OFFSET, HEADER_SEQ,
};
use runlane::wire::{Compression, Outcome, Phase, Stream, TaskId};

use crate::support::nats::TestServer;
use crate::support::worker::{Fleet, settings_with, shell_spec};

const LZ4: &str = r#""output":{"compression":"lz4"},"#;
const NONE: &str = r#""output":{"compression":"none"},"#;

/// Both streams as a reader has them, the gaps, and the end.
#[derive(Default)]
struct Read {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    gaps: Vec<Gap>,
    outcome: Option<Outcome>,
}

async fn read(mut follow: Follow) -> Read {
    let mut read = Read::default();
    while let Some(event) = follow.next().await.expect("following goes on") {
        match event {
            FollowEvent::Chunk(chunk) => match chunk.stream {
                Stream::Stdout => read.stdout.extend_from_slice(&chunk.data),
                Stream::Stderr => read.stderr.extend_from_slice(&chunk.data),
            },
            FollowEvent::Gap(gap) => read.gaps.push(gap),
            FollowEvent::Outcome(outcome) => read.outcome = Some(*outcome),
            FollowEvent::Status(_) | FollowEvent::Unreachable(_) | FollowEvent::Reachable => {}
        }
    }
    read
}

fn is_compressed(chunk: &Stored) -> bool {
    chunk.headers.get(HEADER_COMPRESSION).is_some()
}

#[tokio::test]
async fn live_and_late_readers_get_the_bytes_that_were_written() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let _worker = fleet.worker(&server, "w1", 2).await;
    let dir = tempfile::tempdir().expect("temp dir");
    let copy = dir.path().join("copy").display().to_string();
    // What shrinks, what doesn't, and what shrinks again; small writes before and after.
    let script = format!(
        "echo begin >&2; sleep 0.1; {{ yes 'a line of a log' | head -c 5000000; \
         head -c 3000000 /dev/urandom; yes 'another line' | head -c 20000000; }} | tee {copy}; \
         sleep 0.1; echo end >&2"
    );
    let client = Client::new(fleet.bus.clone());
    let id: TaskId = "bulk".parse().expect("an id");
    let live = client.follow(&id).await.expect("subscribed");
    let (live, outcome) = tokio::join!(read(live), async {
        fleet.publish("bulk", shell_spec(&script, LZ4)).await;
        fleet.outcome(&id).await
    });
    let late = read(client.follow(&id).await.expect("subscribed")).await;
    let stored = read(client.stored(&id)).await;
    let written = std::fs::read(&copy).expect("the task wrote it");
    assert_eq!((outcome.phase, written.len()), (Phase::Succeeded, 28_000_000));
    for read in [live, late, stored] {
        assert!(read.stdout == written, "{} of {} bytes", read.stdout.len(), written.len());
        assert_eq!((&read.stderr[..], &read.gaps[..]), (&b"begin\nend\n"[..], &[][..]));
        assert_eq!(read.outcome.as_ref(), Some(&outcome));
    }
    // Its totals are of what the program wrote.
    let totals = outcome.output.expect("it ran").stdout;
    assert_eq!((totals.bytes, totals.stored_bytes), (28_000_000, 28_000_000));
    assert!(totals.complete);
    let chunks = fleet.chunks(&id, Stream::Stdout).await;
    assert_eq!(totals.chunks, chunks.len() as u64);
    let (small, plain): (Vec<_>, Vec<_>) = chunks.iter().partition(|chunk| is_compressed(chunk));
    for chunk in &small {
        let length = chunk.headers.number(HEADER_LENGTH).expect("a length");
        let length = usize::try_from(length).expect("small");
        assert_eq!(chunk.headers.get(HEADER_COMPRESSION), Some("lz4"));
        assert!(length >= LEAST_BYTES && chunk.payload.len() * LEAST_FACTOR <= length);
    }
    let payload: usize = chunks.iter().map(|chunk| chunk.payload.len()).sum();
    assert!(!plain.is_empty(), "random bytes don't shrink");
    assert!(payload < 8_000_000, "{payload} bytes are stored of 28,000,000");
}

#[tokio::test]
async fn who_does_not_ask_gets_every_payload_as_it_was_written() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let _worker = fleet.worker(&server, "w1", 2).await;
    let id = fleet.shell("plain", "head -c 2000000 /dev/zero").await;
    assert_eq!(fleet.outcome(&id).await.phase, Phase::Succeeded);
    assert!(!fleet.chunks(&id, Stream::Stdout).await.iter().any(is_compressed));
    assert!(fleet.output(&id, Stream::Stdout).await == vec![0; 2_000_000]);
    // Small chunks are readable also of who asks.
    let id = fleet.publish("small", shell_spec("head -c 60000 /dev/zero", LZ4)).await;
    assert_eq!(fleet.outcome(&id).await.phase, Phase::Succeeded);
    assert!(fleet.output(&id, Stream::Stdout).await == vec![0; 60_000]);
}

#[tokio::test]
async fn a_runners_compression_is_that_of_tasks_which_do_not_say() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let policy = RunnerPolicy { output_compression: Compression::Lz4, ..RunnerPolicy::default() };
    let _worker = fleet.worker_with(&server, settings_with("w1", 2, policy)).await;
    for (id, wish, expected) in [("silent", "", true), ("against", NONE, false)] {
        let id = fleet.publish(id, shell_spec("head -c 2000000 /dev/zero", wish)).await;
        assert_eq!(fleet.outcome(&id).await.phase, Phase::Succeeded);
        let chunks = fleet.chunks(&id, Stream::Stdout).await;
        assert_eq!(chunks.iter().any(is_compressed), expected, "{id}");
        let client = Client::new(fleet.bus.clone());
        assert!(read(client.stored(&id)).await.stdout == vec![0; 2_000_000]);
    }
}

#[tokio::test]
async fn the_cap_is_of_what_the_program_wrote() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let _worker = fleet.worker(&server, "w1", 2).await;
    let wish = r#""output":{"compression":"lz4","maxBytes":1000000},"#;
    let id = fleet.publish("capped", shell_spec("seq 1000000 1999999", wish)).await;
    let outcome = fleet.outcome(&id).await;
    let totals = outcome.output.expect("it ran").stdout;
    assert_eq!((totals.bytes, totals.stored_bytes), (8_000_000, 1_065_536));
    let read = read(Client::new(fleet.bus.clone()).stored(&id)).await;
    let all: String = (1_000_000..2_000_000).map(|n| format!("{n}\n")).collect();
    assert!(read.stdout[..1_000_000] == all.as_bytes()[..1_000_000]);
    assert!(read.stdout[1_000_000..] == all.as_bytes()[8_000_000 - 65_536..]);
    assert_eq!(read.gaps.len(), 1);
}

/// A newer worker, or a broken one: what can't be read is told, and the rest is there.
#[tokio::test]
async fn a_chunk_that_can_not_be_read_is_a_gap() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let worker = fleet.worker(&server, "w1", 2).await;
    let id = fleet.shell("odd", "printf 12345").await;
    fleet.outcome(&id).await;
    drop(worker);
    // The stored chunk once more, in its place: as if it had been written so.
    let subjects = fleet.bus.subjects();
    let subject = subjects.output(&id, Stream::Stdout);
    use GapReason::{Missing, Unreadable};
    for (compression, length, reason) in
        [("zstd", "5", Unreadable), ("lz4", "many", Missing), ("lz4", "5", Unreadable)]
    {
        fleet.bus.purge(&subjects.output_stream(), &subject).await.expect("purged");
        let headers = Headers::default()
            .with(HEADER_ATTEMPT, 1)
            .with(HEADER_SEQ, 0)
            .with(HEADER_OFFSET, 0)
            .with(HEADER_COMPRESSION, compression)
            .with(HEADER_LENGTH, length);
        let payload = Bytes::from_static(b"\xff\xff");
        fleet.bus.publish(subject.clone(), headers, payload).await.expect("stored");
        let read = read(Client::new(fleet.bus.clone()).stored(&id)).await;
        assert_eq!(read.stdout, b"", "{compression} {length}");
        let gaps: Vec<_> = read.gaps.iter().map(|gap| (gap.bytes, gap.reason)).collect();
        assert_eq!(gaps, [(5, reason)], "{compression} {length}");
        assert!(read.outcome.is_some());
    }
}
