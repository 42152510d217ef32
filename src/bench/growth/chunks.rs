//! Bytes that a program writes at once: what its output then costs on the way to a live reader.

use std::time::{Duration, Instant};

use super::super::output::{Pattern, read};
use super::super::proc::cpu_time;
use super::super::stats::millis;
use super::super::throughput::succeeded;
use super::super::{BenchError, Curve, Progress, Site};
use super::{Reach, step};
use crate::wire::TaskSpec;

#[allow(clippy::cast_precision_loss)]
pub(super) async fn measure(
    site: &mut Site,
    reach: Reach,
    progress: Progress<'_>,
) -> Result<Curve, BenchError> {
    let sizes = reach.of(
        &[64, 256, 1024, 4096, 16_384, 65_536, 1_048_576],
        &[64, 4096, 65_536],
        &[1024, 65_536],
    );
    let bytes = reach.of(&[64 << 20], &[8 << 20], &[1 << 20])[0];
    let mut curve = Curve::new("chunks", "bytes that a program writes at once");
    site.start_worker(2).await?;
    for &size in sizes {
        step(progress, &curve, size);
        // Small writes take their time by themselves.
        let count = (bytes / size).min(200_000);
        let pattern = Pattern::Zeros((count * size) as u64);
        let args = ["if=/dev/zero".into(), format!("bs={size}"), format!("count={count}")];
        let spec = TaskSpec::command("dd", args.into_iter().chain(["status=none".into()]));
        let now = || -> Option<Duration> {
            let workers: Option<Duration> = site.worker_pids().into_iter().map(cpu_time).sum();
            Some(workers? + site.server_pid().and_then(cpu_time)?)
        };
        let (before, start) = (now(), Instant::now());
        let (_, follow) = site.client().submitter().submit_and_follow(spec).await?;
        let (time, outcome) = read(follow, &pattern, start).await?;
        let cpu = now().zip(before).map(|(after, before)| millis(after - before));
        succeeded(&outcome)?;
        let megabytes = pattern.len() as f64 / 1e6;
        let chunks = outcome.output.as_ref().map(|output| output.stdout.chunks as f64);
        curve.add(
            size,
            &[
                ("output to a live reader", "MB/s", Some(megabytes / time.as_secs_f64())),
                ("stored chunks for each MB", "", chunks.map(|chunks| chunks / megabytes)),
                ("CPU time of worker and server for each MB", "ms", cpu.map(|cpu| cpu / megabytes)),
            ],
        );
        site.settle().await?;
        site.clear_output().await?;
    }
    Ok(curve)
}
