//! Tasks that run at once in one worker and do nothing: what it takes to keep them.

use std::time::Instant;

use tokio::time::sleep;

use super::super::idle::{Pss, cancel_all, cpu_percent, start_sleepers};
use super::super::latency::Lone;
use super::super::stats::per_second;
use super::super::{BenchError, Curve, Progress, Site};
use super::{Reach, server_megabytes, step};

#[allow(clippy::cast_precision_loss)]
pub(super) async fn measure(
    site: &mut Site,
    reach: Reach,
    progress: Progress<'_>,
) -> Result<Curve, BenchError> {
    let sizes = reach.of(&[10, 100, 500, 1000, 2000], &[10, 100, 200], &[2, 10]);
    let most = sizes.last().copied().unwrap_or(1);
    let mut curve = Curve::new("running", "tasks that run at once in one worker");
    site.separate_program()?;
    site.start_worker(most + 2).await?;
    sleep(reach.watch() / 6).await;
    let empty = Pss::of(site)?;
    super::tasks_per_second(site, reach.tasks() / 10).await?;
    let mut tasks = Vec::new();
    for &running in sizes {
        step(progress, &curve, running);
        let (more, starts) = start_sleepers(site, running - tasks.len(), running).await?;
        tasks.extend(more);
        sleep(reach.watch() / 6).await;
        let (worker_cpu, server_cpu) = cpu_percent(site, reach.watch()).await?;
        let p50 = Lone::new(site.client(), None).await?.p50_ms(reach.singles()).await?;
        let memory = (Pss::of(site)?.all() - empty.all()) / 1e3 / running as f64;
        curve.add(
            running,
            &[
                ("starts on top of the last size", "per second", Some(starts)),
                ("submit to outcome of one more task, p50", "ms", Some(p50)),
                ("worker's CPU time", "% of a core", Some(worker_cpu)),
                ("server's CPU time", "% of a core", server_cpu),
                ("memory for each running task (PSS)", "kB", Some(memory)),
                ("server's memory (RSS)", "MB", server_megabytes(site)),
            ],
        );
    }
    let start = Instant::now();
    cancel_all(site.client(), &tasks).await?;
    progress(&format!(
        "growth: {} tasks canceled, {:.0} per second",
        tasks.len(),
        per_second(tasks.len(), start.elapsed())
    ));
    Ok(curve)
}
