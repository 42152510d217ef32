//! Output: bytes to chunks, chunks to messages, bytes to logged lines.

use std::hint::black_box;
use std::time::{Duration, Instant};

use runlane::output::chunk::{DEFAULT_CHUNK_MAX, DEFAULT_COALESCE};
use runlane::output::{Chunk, Chunker, ChunkerSettings, Compressor, LineLog, decompress};
use runlane::task::OutputLimits;
use runlane::wire::{Attempt, Compression, Stream, TaskId};

use super::{Case, Run};

pub(super) const CASES: &[Case] = &[
    Case { name: "chunk/one line", prepare: one_line },
    Case { name: "chunk/1 MiB in full reads", prepare: || stream(64 * 1024, 16, u64::MAX) },
    Case { name: "chunk/1 MiB in reads of 4 KiB", prepare: || stream(4 * 1024, 256, u64::MAX) },
    Case { name: "chunk/1 MiB past the cap", prepare: || stream(4 * 1024, 256, 64 * 1024) },
    Case { name: "chunk/1000 lines on both streams", prepare: both_streams },
    Case { name: "compress/256 KiB of a log", prepare: compress },
    Case { name: "decompress/256 KiB of a log", prepare: expand },
    Case { name: "lines/1000 lines", prepare: lines },
];

const LINE: &[u8] =
    b"2030-01-31 12:00:00 INFO compiled 17 of 42 modules in 3.2 seconds, no warnings\n";

/// What a small task writes.
fn one_line() -> Run {
    let now = Instant::now();
    Box::new(move || {
        let mut chunker = chunker(u64::MAX);
        chunker.push(Stream::Stdout, black_box(LINE), now);
        finish(chunker, now);
    })
}

/// A stream in reads of one size, each a microsecond after the one before.
fn stream(read: usize, reads: u32, max_bytes: u64) -> Run {
    let (data, start) = (vec![b'x'; read], Instant::now());
    Box::new(move || {
        let mut chunker = chunker(max_bytes);
        for n in 0..reads {
            let now = start + Duration::from_micros(n.into());
            chunker.push(Stream::Stdout, black_box(&data), now);
            take(&mut chunker);
        }
        finish(chunker, start);
    })
}

/// Lines on both streams in turn, each read alone, a tenth of a millisecond after the one before.
fn both_streams() -> Run {
    let start = Instant::now();
    Box::new(move || {
        let mut chunker = chunker(u64::MAX);
        for n in 0..1000 {
            let now = start + Duration::from_micros(100) * n;
            if black_box(chunker.deadline()).is_some_and(|deadline| deadline <= now) {
                chunker.tick(now);
            }
            chunker.push(Stream::ALL[n as usize % 2], black_box(LINE), now);
            take(&mut chunker);
        }
        finish(chunker, start);
    })
}

fn chunker(max_bytes: u64) -> Chunker {
    Chunker::new(ChunkerSettings {
        chunk_max: DEFAULT_CHUNK_MAX,
        coalesce: DEFAULT_COALESCE,
        limits: OutputLimits { max_bytes },
    })
}

fn take(chunker: &mut Chunker) {
    while let Some(chunk) = chunker.pop() {
        drop::<Chunk>(black_box(chunk));
    }
}

fn finish(mut chunker: Chunker, now: Instant) {
    for stream in Stream::ALL {
        chunker.close(stream, now);
    }
    take(&mut chunker);
    black_box(chunker.tally(Stream::Stdout));
}

/// As much of a log as a chunk holds: lines that differ in a number.
fn log() -> Vec<u8> {
    let lines = (0..).map(|n| [LINE, format!("{n}\n").as_bytes()].concat());
    lines.flatten().take(DEFAULT_CHUNK_MAX).collect()
}

fn compress() -> Run {
    let data = log();
    Box::new(move || {
        let mut compressor = Compressor::new(Compression::Lz4);
        black_box(compressor.compress(black_box(&data)).expect("it shrinks"));
    })
}

fn expand() -> Run {
    let data = log();
    let block = Compressor::new(Compression::Lz4).compress(&data).expect("it shrinks");
    Box::new(move || {
        black_box(decompress(black_box(&block), data.len()).expect("a block"));
    })
}

/// The worker's log of a task's output, when nobody listens to it.
fn lines() -> Run {
    let id: TaskId = super::records::TASK.parse().expect("an id");
    let data = LINE.repeat(1000);
    Box::new(move || {
        let mut log =
            LineLog::new(id.clone(), Attempt::FIRST, runlane::output::lines::DEFAULT_LINE_MAX);
        // Cut where a full pipe cuts it.
        for part in black_box(&data).chunks(64 * 1024) {
            log.push(Stream::Stdout, part);
        }
        log.finish();
    })
}
