use proptest::prelude::*;

use super::*;

fn piece(attempt: u32, seq: u64, stream: Stream, offset: u64, data: &[u8]) -> Piece {
    let attempt = Attempt(attempt);
    let data = Bytes::copy_from_slice(data);
    Piece { attempt, seq, part: Joined::Chunk(OutputChunk { attempt, stream, offset, data }) }
}

fn out(attempt: u32, seq: u64, offset: u64, data: &[u8]) -> Piece {
    piece(attempt, seq, Stream::Stdout, offset, data)
}

/// The same place, whose bytes can't be read.
fn shut(Piece { attempt, seq, part }: Piece) -> Piece {
    let (stream, offset, bytes) = (part.stream(), part.offset(), part.len());
    let reason = GapReason::Unreadable;
    Piece { attempt, seq, part: Joined::Gap(Gap { attempt, stream, offset, bytes, reason }) }
}

fn push_all(join: &mut Join, pieces: impl IntoIterator<Item = Piece>) -> VecDeque<Joined> {
    let mut joined = VecDeque::new();
    for piece in pieces {
        assert_eq!(join.push(piece, &mut joined), Pushed::Taken);
    }
    joined
}

fn text(joined: &VecDeque<Joined>) -> String {
    let part = |joined: &Joined| match joined {
        Joined::Chunk(chunk) => String::from_utf8_lossy(&chunk.data).into_owned(),
        Joined::Gap(gap) => format!("[{:?} {}+{}]", gap.reason, gap.offset, gap.bytes),
    };
    joined.iter().map(part).collect()
}

#[test]
fn a_retried_chunk_comes_back_to_its_place() {
    let mut join = Join::default();
    let joined = push_all(&mut join, [out(1, 0, 0, b"a"), out(1, 2, 2, b"c"), out(1, 1, 1, b"b")]);
    assert_eq!(text(&joined), "abc");
}

#[test]
fn a_jump_of_the_offset_without_a_lost_chunk_is_an_omission() {
    let mut join = Join::default();
    let joined = push_all(&mut join, [out(1, 0, 0, b"head"), out(1, 1, 100, b"tail")]);
    assert_eq!(text(&joined), "head[Omitted 4+96]tail");
}

#[test]
fn a_hole_that_is_given_up_is_named_as_missing() {
    let mut join = Join::default();
    let mut joined = push_all(&mut join, [out(1, 0, 0, b"a"), out(1, 2, 5, b"c")]);
    assert_eq!(text(&joined), "a");
    join.skip_hole(&mut joined);
    assert_eq!(text(&joined), "a[Missing 1+4]c");
}

#[test]
fn what_can_not_be_read_is_named_at_once_and_holds_up_nobody() {
    let mut join = Join::default();
    let pieces = [out(1, 0, 0, b"a"), out(1, 2, 3, b"d"), shut(out(1, 1, 1, b"bc"))];
    assert_eq!(text(&push_all(&mut join, pieces)), "a[Unreadable 1+2]d");
    // Nothing more of it will come.
    let stdout = StreamTotals { bytes: 4, stored_bytes: 4, ..StreamTotals::default() };
    let totals = OutputTotals { stdout, ..OutputTotals::default() };
    assert!(join.has_all(Attempt(1), &totals) && !join.has_hole());
}

#[test]
fn the_next_attempt_starts_at_zero_and_a_late_chunk_of_the_last_one_is_dropped() {
    let mut join = Join::default();
    let pieces = [out(1, 0, 0, b"a"), out(1, 2, 2, b"c"), out(2, 0, 0, b"x"), out(1, 1, 1, b"b")];
    assert_eq!(text(&push_all(&mut join, pieces)), "a[Missing 1+1]cx");
}

#[test]
fn totals_say_what_is_missing_at_the_end() {
    let totals = OutputTotals {
        stdout: StreamTotals { bytes: 9, stored_bytes: 9, chunks: 2, ..StreamTotals::default() },
        stderr: StreamTotals::default(),
    };
    let mut join = Join::default();
    let mut joined = push_all(&mut join, [out(1, 0, 0, b"abc")]);
    assert!(!join.has_all(Attempt(1), &totals));
    join.finish(Attempt(1), &totals, &mut joined);
    assert_eq!(text(&joined), "abc[Missing 3+6]");

    let mut nothing_came = VecDeque::new();
    Join::default().finish(Attempt(1), &totals, &mut nothing_came);
    assert_eq!(text(&nothing_came), "[Missing 0+9]");
}

fn complete(bytes: u64, chunks: u64) -> OutputTotals {
    let stream = StreamTotals { complete: true, ..StreamTotals::default() };
    let stdout = StreamTotals { bytes, stored_bytes: bytes, chunks, ..stream.clone() };
    OutputTotals { stdout, stderr: stream }
}

#[test]
fn only_the_first_chunk_of_the_first_attempt_may_begin_live() {
    let one = Some(Attempt::FIRST);
    let mut join = Join::default();
    assert!(join.may_begin(&out(1, 0, 0, b"a"), one));
    assert!(!join.may_begin(&out(1, 1, 1, b"b"), one), "a chunk before it is missing");
    assert!(!join.may_begin(&out(1, 0, 0, b"a"), None), "its start comes first");
    assert!(!join.may_begin(&out(2, 0, 0, b"a"), one), "the first attempt may have chunks");
    assert!(!join.may_begin(&out(2, 0, 0, b"a"), Some(Attempt(2))), "the first attempt may");
    assert!(!join.may_begin(&out(1, 0, 0, b"a"), Some(Attempt(2))), "it is over");
    push_all(&mut join, [out(1, 0, 0, b"a")]);
    assert!(!join.may_begin(&out(1, 0, 0, b"a"), one), "it has begun");
}

#[test]
fn an_end_is_whole_when_the_sums_prove_it() {
    let (one, two) = (Attempt::FIRST, Attempt(2));
    let mut join = Join::default();
    assert!(join.is_whole(one, &complete(0, 0)), "there is nothing before the first attempt");
    assert!(!join.is_whole(two, &complete(0, 0)), "the first attempt's chunks may not be read yet");
    assert!(!join.is_whole(one, &OutputTotals::default()), "something may be on its way");
    push_all(&mut join, [out(1, 0, 0, b"a"), out(1, 1, 1, b"b")]);
    assert!(join.is_whole(one, &complete(2, 2)));
    assert!(!join.is_whole(one, &complete(3, 3)), "a byte is missing");
    assert!(!join.is_whole(two, &complete(2, 2)), "it is another attempt's end");
    assert!(!join.is_whole(two, &complete(0, 0)), "the first attempt may have more");
    let mut totals = complete(2, 2);
    totals.stdout.complete = false;
    assert!(
        !join.is_whole(one, &totals),
        "one of the two may not be stored, and another be missing"
    );
    push_all(&mut join, [out(1, 3, 3, b"d")]);
    assert!(!join.is_whole(one, &complete(3, 3)), "what is held is not delivered");
}

#[test]
fn what_is_held_counts_as_there() {
    let totals = OutputTotals {
        stdout: StreamTotals { bytes: 3, stored_bytes: 2, chunks: 2, ..StreamTotals::default() },
        stderr: StreamTotals::default(),
    };
    let mut join = Join::default();
    let mut joined = push_all(&mut join, [out(1, 0, 0, b"a"), out(1, 2, 2, b"c")]);
    assert!(join.has_all(Attempt(1), &totals), "the worker could not store one byte, and says so");
    join.finish(Attempt(1), &totals, &mut joined);
    assert_eq!(text(&joined), "a[Missing 1+1]c");
}

#[test]
fn what_can_wait_is_bounded() {
    let mut join = Join::default();
    let mut joined = VecDeque::new();
    let mut refused = 0;
    for seq in 1..2_000 {
        if join.push(out(1, seq, seq, b"x"), &mut joined) == Pushed::Refused {
            refused += 1;
        }
    }
    assert_eq!(join.held.len(), HELD_CHUNKS);
    assert_eq!(refused, 1_999 - HELD_CHUNKS);
    let big = vec![0; HELD_BYTES];
    let mut join = Join::default();
    assert_eq!(join.push(out(1, 1, 1, &big), &mut joined), Pushed::Taken);
    assert_eq!(join.push(out(1, 2, 1, b"x"), &mut joined), Pushed::Refused);
}

/// Writes of both streams, as a worker numbers them.
fn numbered(writes: &[(bool, Vec<u8>)]) -> Vec<Piece> {
    let mut ends = [0_u64; 2];
    let number = |(seq, (err, data)): (usize, &(bool, Vec<u8>))| {
        let stream = if *err { Stream::Stderr } else { Stream::Stdout };
        let end = &mut ends[index(stream)];
        let piece = piece(1, seq as u64, stream, *end, data);
        *end += data.len() as u64;
        piece
    };
    writes.iter().enumerate().map(number).collect()
}

proptest! {
    /// Whatever the order, and however often each comes, the output is what the program wrote.
    #[test]
    fn any_order_with_repetitions_gives_the_programs_output(
        writes in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 1..9)), 1..60),
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..120),
    ) {
        let pieces = numbered(&writes);
        let mut arriving: Vec<Piece> = order.iter().map(|at| at.get(&pieces).clone()).collect();
        arriving.extend(pieces.iter().rev().cloned());
        let mut join = Join::default();
        let joined = push_all(&mut join, arriving);
        let wanted: VecDeque<Joined> = pieces.into_iter().map(|piece| piece.part).collect();
        prop_assert_eq!(joined, wanted);
        prop_assert!(!join.has_hole());
        prop_assert_eq!(join.held_bytes, 0);
    }

    /// What is lost is named, and only that: delivered bytes and gaps cover each stream exactly.
    #[test]
    fn chunks_and_gaps_cover_each_stream(
        writes in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 1..9)), 1..40),
        lost in prop::collection::vec(any::<bool>(), 40),
        unreadable in prop::collection::vec(any::<bool>(), 40),
    ) {
        let pieces = numbered(&writes);
        let mut totals = OutputTotals::default();
        for piece in &pieces {
            let total = match piece.part.stream() {
                Stream::Stdout => &mut totals.stdout,
                Stream::Stderr => &mut totals.stderr,
            };
            total.bytes += piece.part.len();
        }
        let kept = pieces.into_iter().zip(&lost).filter(|(_, lost)| !**lost).map(|(piece, _)| piece);
        let kept = kept.zip(unreadable).map(|(piece, is)| if is { shut(piece) } else { piece });
        let mut join = Join::default();
        let mut joined = push_all(&mut join, kept);
        join.finish(Attempt(1), &totals, &mut joined);
        let mut ends = [0_u64; 2];
        for joined in &joined {
            let (stream, offset, len) = match joined {
                Joined::Chunk(chunk) => (chunk.stream, chunk.offset, chunk.data.len() as u64),
                Joined::Gap(gap) => (gap.stream, gap.offset, gap.bytes),
            };
            prop_assert_eq!(offset, ends[index(stream)]);
            ends[index(stream)] += len;
        }
        prop_assert_eq!(ends, [totals.stdout.bytes, totals.stderr.bytes]);
    }
}
