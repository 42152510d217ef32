//! Lanes of one worker: what they cost when nothing happens, and when tasks come in all of them.

use std::time::Duration;

use super::super::helper::TRUE;
use super::super::idle::{Pss, add_lanes, cpu_percent, numbered};
use super::super::latency::Lone;
use super::super::stats::per_second;
use super::super::throughput::backlog;
use super::super::{BenchError, Curve, Progress, Site};
use super::{PLACES, Reach, server_megabytes, step};
use crate::wire::TaskSpec;

/// How long a worker may take to serve all lanes.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) async fn measure(
    site: &mut Site,
    reach: Reach,
    progress: Progress<'_>,
) -> Result<Curve, BenchError> {
    let sizes = reach.of(&[1, 10, 100, 300, 1000], &[1, 10, 100], &[1, 3]);
    let mut curve = Curve::new("lanes", "lanes of one worker");
    site.set_max_lanes(1024)?;
    site.start_worker(PLACES).await?;
    // Not the first in line at any size.
    super::tasks_per_second(site, reach.tasks() / 10).await?;
    for &lanes in sizes {
        step(progress, &curve, lanes);
        add_lanes(site, lanes, PATIENCE).await?;
        let (worker_cpu, server_cpu) = cpu_percent(site, reach.watch()).await?;
        let selector = (lanes > 1).then(|| numbered(lanes - 1));
        let p50 = Lone::new(site.client(), selector).await?.p50_ms(reach.singles()).await?;
        let specs = (0..reach.tasks()).map(|n| spec(n % lanes));
        let (time, _) = backlog(site, specs).await?;
        let rate = per_second(reach.tasks(), time);
        curve.add(
            lanes,
            &[
                ("tasks of all lanes in turns", "per second", Some(rate)),
                ("submit to outcome in the last lane, p50", "ms", Some(p50)),
                ("idle worker's CPU time", "% of a core", Some(worker_cpu)),
                ("idle server's CPU time", "% of a core", server_cpu),
                ("worker's memory (PSS)", "MB", Some(Pss::of(site)?.all() / 1e6)),
                ("server's memory (RSS)", "MB", server_megabytes(site)),
            ],
        );
    }
    Ok(curve)
}

/// A task of a numbered lane; 0 is the default lane.
fn spec(lane: usize) -> TaskSpec {
    let mut spec = TaskSpec::command(TRUE, []);
    spec.runner_selector = (lane > 0).then(|| numbered(lane));
    spec
}
