//! The rules of output: every chunk is what the task prints at its place, and what an outcome calls
//! complete is there without a gap.

use runlane::wire::{Outcome, Stream, StreamTotals};

use crate::read::{Chunk, TaskLog};
use crate::tasks::{Natural, TaskPlan};

/// What the outcomes of a task's attempts say of its output.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) problems: Vec<String>,
    pub(crate) incomplete: usize,
}

/// Checks every chunk of a task, and the totals of each attempt that has an end.
pub(crate) fn check(plan: &TaskPlan, log: &TaskLog, ends: &[&Outcome]) -> Findings {
    let mut findings = Findings::default();
    for chunk in log.chunks.iter().filter(|chunk| !chunk.right) {
        findings.problems.push(format!(
            "chunk {} of attempt {} ({} at {}, {} bytes) is not what the task prints there",
            chunk.number, chunk.attempt, chunk.stream, chunk.offset, chunk.length
        ));
    }
    for end in ends {
        let (Some(attempt), Some(output)) = (end.attempt, &end.output) else { continue };
        for (stream, totals) in [(Stream::Stdout, &output.stdout), (Stream::Stderr, &output.stderr)]
        {
            if !totals.complete {
                findings.incomplete += 1;
                continue;
            }
            let chunks = log.chunks.iter().filter(|c| c.attempt == attempt.0 && c.stream == stream);
            let full = plan.output(attempt.0, stream).len() as u64;
            if let Err(problem) =
                complete(&covered(chunks), totals, ended_by_itself(plan, end), full)
            {
                findings.problems.push(format!("{stream} of attempt {attempt}: {problem}"));
            }
        }
    }
    findings
}

fn ended_by_itself(plan: &TaskPlan, end: &Outcome) -> bool {
    let natural = end.attempt.map(|attempt| plan.shape.natural_end(attempt.0));
    match natural {
        Some(Natural::Exit(code)) => end.cause.is_none() && end.exit_code == Some(code),
        Some(Natural::Timeout) | None => false,
    }
}

/// The places that chunks cover, merged and in order.
fn covered<'a>(chunks: impl Iterator<Item = &'a Chunk>) -> Vec<(u64, u64)> {
    let mut places: Vec<_> =
        chunks.map(|chunk| (chunk.offset, chunk.offset + chunk.length)).collect();
    places.sort_unstable();
    let mut merged: Vec<(u64, u64)> = Vec::new();
    for (from, to) in places {
        match merged.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            Some(_) | None => merged.push((from, to)),
        }
    }
    merged
}

fn complete(
    covered: &[(u64, u64)],
    totals: &StreamTotals,
    by_itself: bool,
    full: u64,
) -> Result<(), String> {
    let StreamTotals { bytes, stored_bytes, .. } = *totals;
    if by_itself && bytes != full {
        return Err(format!("{bytes} bytes were read, the task prints {full}"));
    }
    let expected: Vec<_> = match (totals.omitted_offset, totals.omitted_bytes) {
        (Some(from), Some(length)) => vec![(0, from), (from + length, bytes)],
        _ => vec![(0, bytes)],
    };
    let expected: Vec<_> = expected.into_iter().filter(|(from, to)| from < to).collect();
    let stored: u64 = covered.iter().map(|(from, to)| to - from).sum();
    if covered != expected || stored != stored_bytes {
        return Err(format!(
            "{covered:?} is stored, the outcome says {expected:?} and {stored_bytes} bytes"
        ));
    }
    Ok(())
}
