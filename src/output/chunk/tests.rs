use proptest::prelude::*;

use super::*;

fn settings(chunk_max: usize, max_bytes: u64) -> ChunkerSettings {
    ChunkerSettings {
        chunk_max,
        coalesce: Duration::from_millis(5),
        limits: OutputLimits { max_bytes },
    }
}

fn drain(chunker: &mut Chunker) -> Vec<Chunk> {
    std::iter::from_fn(|| chunker.pop()).collect()
}

fn after(start: Instant, ms: u64) -> Instant {
    start + Duration::from_millis(ms)
}

#[test]
fn first_bytes_leave_at_once_and_the_next_ones_wait() {
    let start = Instant::now();
    let mut chunker = Chunker::new(settings(1024, 1 << 20));
    chunker.push(Stream::Stdout, b"a", start);
    assert_eq!(drain(&mut chunker).len(), 1);
    chunker.push(Stream::Stdout, b"b", after(start, 1));
    chunker.push(Stream::Stdout, b"c", after(start, 2));
    assert!(drain(&mut chunker).is_empty());
    assert_eq!(chunker.deadline(), Some(after(start, 5)));
    chunker.tick(after(start, 5));
    let chunks = drain(&mut chunker);
    assert_eq!(chunks.len(), 1);
    assert_eq!((chunks[0].seq, chunks[0].offset, &chunks[0].data[..]), (1, 1, &b"bc"[..]));
    assert_eq!(chunker.deadline(), None);
}

#[test]
fn bytes_after_a_quiet_time_leave_at_once() {
    let start = Instant::now();
    let mut chunker = Chunker::new(settings(1024, 1 << 20));
    chunker.push(Stream::Stdout, b"a", start);
    chunker.push(Stream::Stdout, b"b", after(start, 50));
    assert_eq!(drain(&mut chunker).len(), 2);
}

#[test]
fn a_full_chunk_does_not_wait_and_takes_older_bytes_of_the_other_stream_along() {
    let start = Instant::now();
    let mut chunker = Chunker::new(settings(4, 1 << 20));
    chunker.push(Stream::Stderr, b"e", start);
    chunker.push(Stream::Stdout, b"o", start);
    chunker.push(Stream::Stderr, b"f", after(start, 1));
    chunker.push(Stream::Stdout, b"1234", after(start, 1));
    let chunks = drain(&mut chunker);
    let order: Vec<_> = chunks.iter().map(|c| (c.stream, &c.data[..])).collect();
    assert_eq!(
        order,
        [
            (Stream::Stderr, &b"e"[..]),
            (Stream::Stdout, b"o"),
            (Stream::Stderr, b"f"),
            (Stream::Stdout, b"1234"),
        ]
    );
}

#[test]
fn a_tail_that_joins_the_head_is_not_an_omission() {
    let start = Instant::now();
    let mut chunker = Chunker::new(settings(1 << 20, 10));
    chunker.push(Stream::Stdout, &vec![7; 10 + TAIL_BYTES], start);
    chunker.close(Stream::Stdout, start);
    assert_eq!(chunker.tally(Stream::Stdout).omitted, None);
    chunker.push(Stream::Stderr, &vec![7; 11 + TAIL_BYTES], start);
    chunker.close(Stream::Stderr, start);
    let omitted = Some(Omitted { offset: 10, bytes: 1 });
    assert_eq!(chunker.tally(Stream::Stderr).omitted, omitted);
}

#[test]
fn totals_are_complete_only_if_all_that_was_kept_is_stored_and_the_stream_ended() {
    let mut chunker = Chunker::new(settings(16, 4));
    let start = Instant::now();
    chunker.push(Stream::Stdout, &vec![1; 4 + TAIL_BYTES + 3], start);
    chunker.close(Stream::Stdout, start);
    let tally = chunker.tally(Stream::Stdout);
    let totals = tally.stored(tally.kept_bytes, tally.chunks, true);
    assert!(totals.complete && totals.truncated);
    assert_eq!((totals.omitted_offset, totals.omitted_bytes), (Some(4), Some(3)));
    assert!(!tally.stored(tally.kept_bytes - 1, tally.chunks, true).complete);
    assert!(!tally.stored(tally.kept_bytes, tally.chunks, false).complete);
}

#[derive(Debug, Clone)]
enum Step {
    Push { stderr: bool, len: usize, wait_ms: u64 },
    Tick { wait_ms: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![4 => 0usize..40, 1 => 0usize..200_000];
    prop_oneof![
        4 => (any::<bool>(), len, 0u64..8)
            .prop_map(|(stderr, len, wait_ms)| Step::Push { stderr, len, wait_ms }),
        1 => (0u64..20).prop_map(|wait_ms| Step::Tick { wait_ms }),
    ]
}

/// Byte at a place of a stream: differs between neighbours, streams and blocks of 64 KiB.
fn byte(stream: Stream, at: u64) -> u8 {
    (at.wrapping_mul(31) ^ (at >> 16) ^ (stream as u64 * 85)) as u8
}

fn input(stream: Stream, from: u64, len: usize) -> Vec<u8> {
    (from..from + len as u64).map(|at| byte(stream, at)).collect()
}

/// Checks one stream's chunks against what was written; the model is the formula of the head of the file.
fn check_stream(stream: Stream, written: u64, max_bytes: u64, chunks: &[Chunk]) {
    let mut expected = 0;
    for chunk in chunks.iter().filter(|chunk| chunk.stream == stream) {
        if expected == max_bytes && written > max_bytes + TAIL_BYTES as u64 {
            expected = written - TAIL_BYTES as u64;
        }
        assert_eq!(chunk.offset, expected, "{stream}: gap or overlap");
        assert_eq!(chunk.data, input(stream, chunk.offset, chunk.data.len()));
        expected += chunk.data.len() as u64;
    }
    assert_eq!(expected, written, "{stream}: the end is missing");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn chunks_by_offset_are_the_input_without_the_omitted_middle(
        steps in prop::collection::vec(step(), 0..60),
        chunk_max in prop_oneof![1usize..16, Just(4096usize), Just(65_536usize)],
        max_bytes in prop_oneof![0u64..64, Just(100_000u64), Just(u64::MAX)],
    ) {
        let mut now = Instant::now();
        // A tiny chunk size with large input makes millions of chunks and shows nothing more.
        let scale = if chunk_max < 16 { 100 } else { 1 };
        let mut chunker = Chunker::new(settings(chunk_max, max_bytes));
        let mut written = [0u64; 2];
        let mut chunks = Vec::new();
        for step in steps {
            match step {
                Step::Push { stderr, len, wait_ms } => {
                    let stream = if stderr { Stream::Stderr } else { Stream::Stdout };
                    let len = len.div_ceil(scale);
                    now += Duration::from_millis(wait_ms);
                    let at = written[index(stream)];
                    chunker.push(stream, &input(stream, at, len), now);
                    written[index(stream)] += len as u64;
                    let ready: usize = chunker.ready.iter().map(|chunk| chunk.data.len()).sum();
                    prop_assert!(ready <= len + 2 * chunk_max, "ready is bounded");
                }
                Step::Tick { wait_ms } => {
                    now += Duration::from_millis(wait_ms);
                    chunker.tick(now);
                }
            }
            for state in &chunker.streams {
                prop_assert!(state.pending.len() < chunk_max);
                prop_assert!(state.tail.len() <= TAIL_BYTES);
            }
            chunks.extend(drain(&mut chunker));
        }
        for stream in Stream::ALL {
            chunker.close(stream, now);
            chunks.extend(drain(&mut chunker));
            chunker.close(stream, now);
            prop_assert!(chunker.pop().is_none(), "closing twice adds nothing");
        }
        for (at, chunk) in chunks.iter().enumerate() {
            prop_assert_eq!(chunk.seq, at as u64);
            prop_assert!(!chunk.data.is_empty() && chunk.data.len() <= chunk_max);
        }
        for stream in Stream::ALL {
            let written = written[index(stream)];
            check_stream(stream, written, max_bytes, &chunks);
            let tally = chunker.tally(stream);
            prop_assert_eq!(tally.bytes, written);
            let omitted = tally.omitted.map_or(0, |omitted| omitted.bytes);
            prop_assert_eq!(tally.kept_bytes + omitted, written);
            let mine = chunks.iter().filter(|chunk| chunk.stream == stream);
            prop_assert_eq!(tally.chunks, mine.count() as u64);
        }
    }
}
