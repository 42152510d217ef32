//! Tasks that wait: what the next ones cost with so many behind them.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::super::error::PATIENCE;
use super::super::helper::TRUE;
use super::super::stats::{millis, per_second};
use super::super::throughput::{first_start, tell_all};
use super::super::{BenchError, Curve, Progress, Site};
use super::{PLACES, Reach, server_megabytes, step};
use crate::nats::Subscription;
use crate::wire::{ControlRequest, TaskSpec};

/// Time for tasks that run when the worker is paused.
const PAUSED: Duration = Duration::from_secs(1);

pub(super) async fn measure(
    site: &mut Site,
    reach: Reach,
    progress: Progress<'_>,
) -> Result<Curve, BenchError> {
    let sizes =
        reach.of(&[2_000, 10_000, 100_000, 300_000, 1_000_000], &[300, 1_000, 10_000], &[20, 100]);
    let mut curve = Curve::new("queued", "tasks that wait in one lane");
    site.start_worker(PLACES).await?;
    super::tasks_per_second(site, reach.tasks() / 10).await?;
    let client = site.client().clone();
    let workers = site.worker_names();
    tell_all(&client, &workers, &ControlRequest::Pause {}).await?;
    let mut waiting = 0;
    for &queued in sizes {
        step(progress, &curve, queued);
        let count = queued - waiting;
        let submit = queue(site, count).await?;
        let subjects = client.bus().subjects();
        let mut outcomes = client.bus().subscribe(subjects.outcome_all()).await?;
        let mut starts = client.bus().subscribe(subjects.status_all()).await?;
        let resumed = Instant::now();
        tell_all(&client, &workers, &ControlRequest::Resume {}).await?;
        let begin = first_start(&mut starts).await?;
        drop(starts);
        let tasks = reach.tasks();
        for _ in 0..tasks {
            next(&mut outcomes).await?;
        }
        let rate = per_second(tasks, begin.elapsed());
        tell_all(&client, &workers, &ControlRequest::Pause {}).await?;
        let first = millis(begin - resumed);
        let mut ended = tasks;
        while timeout(PAUSED, outcomes.next()).await.is_ok() {
            ended += 1;
        }
        waiting = queued.saturating_sub(ended);
        curve.add(
            queued,
            &[
                ("tasks", "per second", Some(rate)),
                ("first start after the worker was resumed", "ms", Some(first)),
                ("submissions on top of the last size", "per second", Some(submit)),
                ("server's memory (RSS)", "MB", server_megabytes(site)),
            ],
        );
    }
    Ok(curve)
}

async fn queue(site: &Site, count: usize) -> Result<f64, BenchError> {
    let specs = std::iter::repeat_n(TaskSpec::command(TRUE, []), count);
    let start = Instant::now();
    let mut bulk = site.client().submitter().submit_all(specs);
    while let Some(submission) = bulk.next().await {
        submission?;
    }
    let rate = per_second(count, start.elapsed());
    // What was handed back when it came in excess is there again.
    sleep(Duration::from_millis(100)).await;
    Ok(rate)
}

async fn next(outcomes: &mut Subscription) -> Result<(), BenchError> {
    match timeout(PATIENCE, outcomes.next()).await {
        Ok(Some(_)) => Ok(()),
        Ok(None) | Err(_) => Err(BenchError::Missing { missing: 1, patience: PATIENCE }),
    }
}
