//! How fast a task's output comes to a reader who follows it live, and that it comes byte for byte.
//!
//! Two tasks, one after the other: zeros, from a program that writes as fast as it can, and numbered lines,
//! where every byte depends on its place. Each byte that arrives is compared with what was written
//! there. Then both once more by tasks that ask for compressed output: zeros shrink as much as anything can,
//! such lines too little to be worth it. The pipe's limit is measured before and after each round.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::error::PATIENCE;
use super::limits::pipe_rate;
use super::stats::Spread;
use super::throughput::{Cpu, CpuMs, succeeded};
use super::{BenchError, Progress, Site};
use crate::client::{Follow, FollowEvent};
use crate::wire::{Attempt, Compression, Outcome, OutputSpec, Selector, Stream, TaskSpec};

/// Bytes of one numbered line: ten digits and the line's end.
const LINE: u64 = 11;
/// The number of the first line.
const FIRST_LINE: u64 = 1_000_000_000;
/// What a pipe is measured with: as much as is written, but not less than this.
const PIPE_BYTES: u64 = 50_000_000;

/// Zeros to compare with, which goes by blocks.
const ZEROS: [u8; 4096] = [0; 4096];

/// How output is measured.
#[derive(Debug, Clone)]
pub struct OutputOptions {
    /// Rounds.
    pub rounds: usize,
    /// Bytes that each task writes, rounded down to whole lines for lines. Twice as many are held in
    /// memory.
    pub bytes: u64,
    /// Labels that the tasks ask for.
    pub selector: Option<Selector>,
}

/// Output to one live reader.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Output {
    /// Bytes of one task.
    pub bytes: u64,
    /// Zeros from `head`, in 10^6 bytes per second, from the submission to the follower's outcome.
    pub zeros_megabytes_per_second: Spread,
    /// Numbered lines from `seq`, the same way.
    pub lines_megabytes_per_second: Spread,
    /// A bare pipe in the same minute.
    pub limit_pipe_megabytes_per_second: Spread,
    /// Zeros divided by the limit, round by round.
    pub zeros_of_limit: Spread,
    /// Lines divided by the limit, round by round.
    pub lines_of_limit: Spread,
    /// CPU time for each 10^6 bytes of both.
    pub cpu_ms_per_megabyte: CpuMs,
    /// The same by tasks that ask for compressed output.
    pub compressed: Compressed,
    /// Whether every byte was compared and was right; a report with anything else does not exist.
    pub byte_identical: bool,
}

/// Output of tasks that ask for `lz4`, to one live reader.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Compressed {
    /// Zeros.
    pub zeros_megabytes_per_second: Spread,
    /// Numbered lines.
    pub lines_megabytes_per_second: Spread,
    /// Zeros divided by the limit, round by round.
    pub zeros_of_limit: Spread,
    /// Lines divided by the limit, round by round.
    pub lines_of_limit: Spread,
    /// CPU time for each 10^6 bytes of both.
    pub cpu_ms_per_megabyte: CpuMs,
}

/// Measures output.
///
/// # Errors
/// A task fails, its output does not come, or a byte is wrong or missing.
#[allow(clippy::cast_precision_loss)]
pub async fn output(
    site: &mut Site,
    options: &OutputOptions,
    progress: Progress<'_>,
) -> Result<Output, BenchError> {
    site.start_worker(2).await?;
    let patterns = [Pattern::Zeros(options.bytes), Pattern::lines(options.bytes)];
    let selector = options.selector.as_ref();
    // The first task loads files.
    follow(site, &Pattern::Zeros(1_000_000), (Compression::None, selector)).await?;
    let mut rounds = Vec::new();
    for round in 1..=options.rounds {
        progress(&format!("output: round {round} of {}", options.rounds));
        let before = pipe_rate(options.bytes.max(PIPE_BYTES)).await?;
        let plain = both(site, &patterns, (Compression::None, selector)).await?;
        let compressed = both(site, &patterns, (Compression::Lz4, selector)).await?;
        let after = pipe_rate(options.bytes.max(PIPE_BYTES)).await?;
        rounds.push(Round { plain, compressed, pipe: f64::midpoint(before, after) });
    }
    let cpu = |of: fn(&Round) -> &Both| {
        let cpu: Vec<Cpu> = rounds.iter().map(|round| of(round).cpu).collect();
        CpuMs::of(&cpu, 2.0 * options.bytes as f64 / 1e6)
    };
    let over = |value: fn(&Round) -> f64| Spread::over(&rounds, value);
    Ok(Output {
        bytes: options.bytes,
        zeros_megabytes_per_second: over(|round| round.plain.zeros),
        lines_megabytes_per_second: over(|round| round.plain.lines),
        limit_pipe_megabytes_per_second: over(|round| round.pipe),
        zeros_of_limit: over(|round| round.plain.zeros / round.pipe),
        lines_of_limit: over(|round| round.plain.lines / round.pipe),
        cpu_ms_per_megabyte: cpu(|round| &round.plain),
        compressed: Compressed {
            zeros_megabytes_per_second: over(|round| round.compressed.zeros),
            lines_megabytes_per_second: over(|round| round.compressed.lines),
            zeros_of_limit: over(|round| round.compressed.zeros / round.pipe),
            lines_of_limit: over(|round| round.compressed.lines / round.pipe),
            cpu_ms_per_megabyte: cpu(|round| &round.compressed),
        },
        byte_identical: true,
    })
}

/// One round, in 10^6 bytes per second.
struct Round {
    plain: Both,
    compressed: Both,
    pipe: f64,
}

/// Zeros and lines, one after the other.
struct Both {
    zeros: f64,
    lines: f64,
    cpu: Cpu,
}

async fn both(
    site: &mut Site,
    [zeros, lines]: &[Pattern; 2],
    wishes: (Compression, Option<&Selector>),
) -> Result<Both, BenchError> {
    let cpu = Cpu::now(site);
    let zeros = follow(site, zeros, wishes).await?;
    let lines = follow(site, lines, wishes).await?;
    let cpu = Cpu::now(site).since(&cpu);
    site.settle().await?;
    site.clear_output().await?;
    Ok(Both { zeros, lines, cpu })
}

/// What a task writes.
pub(super) enum Pattern {
    /// So many zero bytes.
    Zeros(u64),
    /// All of these bytes.
    Lines(Vec<u8>),
}

impl Pattern {
    pub(super) fn lines(bytes: u64) -> Self {
        let numbers = FIRST_LINE..FIRST_LINE + bytes / LINE;
        Self::Lines(numbers.flat_map(|number| format!("{number}\n").into_bytes()).collect())
    }

    pub(super) fn len(&self) -> u64 {
        match self {
            Self::Zeros(bytes) => *bytes,
            Self::Lines(lines) => lines.len() as u64,
        }
    }

    pub(super) fn task(&self) -> TaskSpec {
        let (program, args) = match self {
            Self::Zeros(bytes) => {
                ("head", vec!["-c".into(), bytes.to_string(), "/dev/zero".into()])
            }
            Self::Lines(lines) => {
                let last = FIRST_LINE + lines.len() as u64 / LINE - 1;
                ("seq", vec![FIRST_LINE.to_string(), last.to_string()])
            }
        };
        TaskSpec::command(program, args)
    }

    /// Whether the bytes are those that stand at this place.
    fn has(&self, at: u64, bytes: &[u8]) -> bool {
        match self {
            Self::Zeros(_) => bytes.chunks(ZEROS.len()).all(|part| *part == ZEROS[..part.len()]),
            Self::Lines(lines) => {
                let at = usize::try_from(at).unwrap_or(usize::MAX);
                let end = at.saturating_add(bytes.len());
                lines.get(at..end).is_some_and(|expected| expected == bytes)
            }
        }
    }
}

/// Checks a task's output as it comes.
pub(super) struct Check<'a> {
    pattern: &'a Pattern,
    next: u64,
}

impl<'a> Check<'a> {
    pub(super) fn new(pattern: &'a Pattern) -> Self {
        Self { pattern, next: 0 }
    }

    /// Takes what came next.
    pub(super) fn chunk(
        &mut self,
        attempt: Attempt,
        stream: Stream,
        offset: u64,
        data: &[u8],
    ) -> Result<(), BenchError> {
        let end = offset + data.len() as u64;
        let wrong = match () {
            () if attempt != Attempt::FIRST => "is of a second attempt",
            () if stream != Stream::Stdout => "is on standard error",
            () if offset != self.next => "does not follow the byte before",
            () if end > self.pattern.len() => "is past the end",
            () if !self.pattern.has(offset, data) => "is not what was written",
            () => {
                self.next = end;
                return Ok(());
            }
        };
        Err(BenchError::Output { offset, wrong })
    }

    /// At the end: everything came.
    pub(super) fn end(&self) -> Result<(), BenchError> {
        match self.next == self.pattern.len() {
            true => Ok(()),
            false => Err(BenchError::Output { offset: self.next, wrong: "is missing" }),
        }
    }
}

fn spec(pattern: &Pattern, (compression, selector): (Compression, Option<&Selector>)) -> TaskSpec {
    let output = OutputSpec { compression: Some(compression), ..OutputSpec::default() };
    TaskSpec { runner_selector: selector.cloned(), output: Some(output), ..pattern.task() }
}

/// Runs a task and follows it; returns 10^6 bytes per second.
#[allow(clippy::cast_precision_loss)]
async fn follow(
    site: &mut Site,
    pattern: &Pattern,
    (compression, selector): (Compression, Option<&Selector>),
) -> Result<f64, BenchError> {
    let spec = spec(pattern, (compression, selector));
    let start = Instant::now();
    let (submission, follow) = site.client().submitter().submit_and_follow(spec).await?;
    let (time, outcome) = read(follow, pattern, start).await?;
    site.remember([submission.task.id]);
    succeeded(&outcome)?;
    Ok(pattern.len() as f64 / 1e6 / time.as_secs_f64())
}

/// Follows a task to its end and checks each byte; returns the time since `start`.
pub(super) async fn read(
    mut follow: Follow,
    pattern: &Pattern,
    start: Instant,
) -> Result<(Duration, Outcome), BenchError> {
    let mut check = Check::new(pattern);
    let missing = || BenchError::Missing { missing: 1, patience: PATIENCE };
    loop {
        let event = timeout(PATIENCE, follow.next()).await.map_err(|_| missing())??;
        match event.ok_or_else(missing)? {
            FollowEvent::Chunk(chunk) => {
                check.chunk(chunk.attempt, chunk.stream, chunk.offset, &chunk.data)?;
            }
            FollowEvent::Gap(gap) => {
                return Err(BenchError::Output { offset: gap.offset, wrong: "is missing" });
            }
            FollowEvent::Outcome(outcome) => {
                let time = start.elapsed();
                check.end()?;
                return Ok((time, *outcome));
            }
            FollowEvent::Status(_) | FollowEvent::Unreachable(_) | FollowEvent::Reachable => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUT: Stream = Stream::Stdout;
    const ONE: Attempt = Attempt::FIRST;

    fn wrong(result: Result<(), BenchError>) -> (u64, &'static str) {
        match result {
            Err(BenchError::Output { offset, wrong }) => (offset, wrong),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_task_asks_for_the_compression_that_is_measured() {
        for compression in [Compression::None, Compression::Lz4] {
            let spec = spec(&Pattern::Zeros(1), (compression, None));
            assert_eq!(spec.output.and_then(|output| output.compression), Some(compression));
        }
    }

    #[test]
    fn the_bytes_that_were_written_pass() {
        let lines = Pattern::lines(1_000);
        let Pattern::Lines(bytes) = &lines else { panic!("they are lines") };
        assert!(bytes.starts_with(b"1000000000\n1000000001\n") && bytes.len() == 990);
        for (pattern, bytes) in [(&lines, bytes.clone()), (&Pattern::Zeros(990), vec![0; 990])] {
            let mut check = Check::new(pattern);
            check.chunk(ONE, OUT, 0, &bytes[..7]).expect("right");
            check.chunk(ONE, OUT, 7, &bytes[7..8]).expect("right");
            check.chunk(ONE, OUT, 8, &bytes[8..]).expect("right");
            check.end().expect("complete");
        }
    }

    #[test]
    fn a_byte_that_is_changed_moved_missing_or_too_many_is_seen() {
        for pattern in [Pattern::lines(990), Pattern::Zeros(990)] {
            let bytes = match &pattern {
                Pattern::Lines(lines) => lines.clone(),
                Pattern::Zeros(_) => vec![0; 990],
            };
            for at in [0, 1, 500, 989] {
                let mut changed = bytes.clone();
                changed[at] ^= 1;
                let seen = wrong(Check::new(&pattern).chunk(ONE, OUT, 0, &changed));
                assert_eq!(seen, (0, "is not what was written"), "byte {at}");
            }
            let mut check = Check::new(&pattern);
            check.chunk(ONE, OUT, 0, &bytes[..100]).expect("right");
            assert_eq!(wrong(check.end()), (100, "is missing"));
            for (offset, from) in [(200, 200), (0, 0), (99, 99)] {
                let seen = check.chunk(ONE, OUT, offset, &bytes[from..]);
                assert_eq!(wrong(seen).1, "does not follow the byte before");
            }
            let long = [&bytes[100..], &[0]].concat();
            assert_eq!(wrong(check.chunk(ONE, OUT, 100, &long)).1, "is past the end");
            let again = check.chunk(Attempt(2), OUT, 100, &bytes[100..]);
            assert_eq!(wrong(again).1, "is of a second attempt");
            let stderr = check.chunk(ONE, Stream::Stderr, 100, &bytes[100..]);
            assert_eq!(wrong(stderr).1, "is on standard error");
        }
    }

    #[test]
    fn lines_that_changed_places_are_seen() {
        let pattern = Pattern::lines(220);
        let Pattern::Lines(bytes) = &pattern else { panic!("they are lines") };
        let swapped = [&bytes[11..22], &bytes[..11]].concat();
        let seen = Check::new(&pattern).chunk(ONE, OUT, 0, &swapped);
        assert_eq!(wrong(seen).1, "is not what was written");
    }
}
