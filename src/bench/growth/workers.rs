//! Workers on this machine, which share its cores and one lane.

use super::super::helper::TRUE;
use super::super::idle::{Pss, cpu_percent};
use super::super::stats::{millis, per_second};
use super::super::throughput::backlog;
use super::super::{BenchError, Curve, Progress, Site};
use super::{Reach, server_megabytes, step};
use crate::wire::TaskSpec;

/// Places of each worker.
const PLACES: usize = 2;

#[allow(clippy::cast_precision_loss)]
pub(super) async fn measure(
    site: &mut Site,
    reach: Reach,
    progress: Progress<'_>,
) -> Result<Curve, BenchError> {
    let sizes = reach.of(&[1, 2, 4, 8], &[1, 2, 4], &[1, 2]);
    let mut curve = Curve::new("workers", "workers on this machine");
    let mut running = 0;
    for &workers in sizes {
        step(progress, &curve, workers);
        while running < workers {
            site.add_worker(PLACES).await?;
            running += 1;
        }
        super::tasks_per_second(site, reach.tasks() / 10).await?;
        let (idle, _) = cpu_percent(site, reach.watch()).await?;
        let specs = std::iter::repeat_n(TaskSpec::command(TRUE, []), reach.tasks());
        let (time, cpu) = backlog(site, specs).await?;
        let per_task = |time: Option<std::time::Duration>| {
            time.map(|time| millis(time) / reach.tasks() as f64)
        };
        curve.add(
            workers,
            &[
                ("tasks of all workers", "per second", Some(per_second(reach.tasks(), time))),
                ("workers' CPU time for each task", "ms", per_task(cpu.worker)),
                ("server's CPU time for each task", "ms", per_task(cpu.server)),
                ("idle workers' CPU time", "% of a core", Some(idle)),
                ("workers' memory (PSS)", "MB", Some(Pss::of(site)?.all() / 1e6)),
                ("server's memory (RSS)", "MB", server_megabytes(site)),
            ],
        );
    }
    Ok(curve)
}
