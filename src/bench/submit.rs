//! How fast specs are queued when they are sent without waiting for each, and what memory that takes.
//!
//! No worker runs meanwhile: the queue only grows. Each spec is stored before it counts.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::helper::TRUE;
use super::proc::{cpu_time, peak_memory_bytes, reset_peak_memory, rss_bytes};
use super::stats::{Spread, millis, per_second};
use super::{BenchError, Progress, Site};
use crate::wire::TaskSpec;

/// How submission is measured.
#[derive(Debug, Clone)]
pub struct SubmitBenchOptions {
    /// Rounds.
    pub rounds: usize,
    /// Specs in each round.
    pub count: usize,
}

/// Many submissions at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SubmitRate {
    /// Specs in each round.
    pub count: usize,
    /// Specs that were stored, per second.
    pub specs_per_second: Spread,
    /// CPU time of this program for each.
    pub client_cpu_ms_per_spec: Spread,
    /// CPU time of the server for each. None: it isn't the bench's own.
    pub nats_server_cpu_ms_per_spec: Option<Spread>,
    /// How much this program's memory grew at most while it submitted, in 10^6 bytes.
    pub client_growth_megabytes: Spread,
    /// The server's resident memory at the end, in 10^6 bytes. None: it isn't the bench's own.
    pub nats_server_megabytes: Option<Spread>,
}

struct Round {
    per_second: f64,
    client_cpu: Duration,
    server_cpu: Option<Duration>,
    growth: u64,
    server_rss: Option<u64>,
}

/// Measures submission. The site's queue is emptied.
///
/// # Errors
/// A spec is refused, or the server does not answer.
#[allow(clippy::cast_precision_loss)]
pub async fn submit(
    site: &mut Site,
    options: &SubmitBenchOptions,
    progress: Progress<'_>,
) -> Result<SubmitRate, BenchError> {
    site.without_worker().await?;
    queue(site, options.count.min(1000)).await?;
    let mut rounds = Vec::new();
    for round in 1..=options.rounds {
        site.clear().await?;
        progress(&format!("submit: {} specs, round {round} of {}", options.count, options.rounds));
        rounds.push(queue(site, options.count).await?);
    }
    site.clear().await?;
    let count = options.count as f64;
    let server_cpu = |round: &Round| round.server_cpu.map(|time| millis(time) / count);
    let server_rss = |round: &Round| round.server_rss.map(|bytes| bytes as f64 / 1e6);
    let all = |value: &dyn Fn(&Round) -> Option<f64>| {
        rounds.iter().map(value).collect::<Option<Vec<f64>>>().map(Spread::of)
    };
    Ok(SubmitRate {
        count: options.count,
        specs_per_second: Spread::over(&rounds, |round| round.per_second),
        client_cpu_ms_per_spec: Spread::over(&rounds, |round| millis(round.client_cpu) / count),
        nats_server_cpu_ms_per_spec: all(&server_cpu),
        client_growth_megabytes: Spread::over(&rounds, |round| round.growth as f64 / 1e6),
        nats_server_megabytes: all(&server_rss),
    })
}

async fn queue(site: &Site, count: usize) -> Result<Round, BenchError> {
    let own = std::process::id();
    let failed = || BenchError::Proc { what: "this program's memory" };
    let server = site.server_pid();
    let times = || Some((cpu_time(own)?, server.and_then(cpu_time)));
    reset_peak_memory().ok_or_else(failed)?;
    let rss = rss_bytes(own).ok_or_else(failed)?;
    let before = times().ok_or_else(failed)?;
    let start = Instant::now();
    let specs = (0..count).map(|_| TaskSpec::command(TRUE, []));
    let mut bulk = site.client().submitter().submit_all(specs);
    while let Some(submission) = bulk.next().await {
        submission?;
    }
    let time = start.elapsed();
    let after = times().ok_or_else(failed)?;
    let peak = peak_memory_bytes(own).ok_or_else(failed)?;
    Ok(Round {
        per_second: per_second(count, time),
        client_cpu: after.0 - before.0,
        server_cpu: after.1.zip(before.1).map(|(after, before)| after.saturating_sub(before)),
        growth: peak.saturating_sub(rss),
        server_rss: server.and_then(rss_bytes),
    })
}
