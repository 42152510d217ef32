//! Live readers of one task, each on a connection of its own; all of them compare each byte.

use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinSet;

use super::super::output::{Pattern, read};
use super::super::proc::cpu_time;
use super::super::stats::millis;
use super::super::throughput::succeeded;
use super::super::{BenchError, Curve, Progress, Site};
use super::{Reach, server_megabytes, step};
use crate::client::Client;
use crate::wire::TaskId;

#[allow(clippy::cast_precision_loss)]
pub(super) async fn measure(
    site: &mut Site,
    reach: Reach,
    progress: Progress<'_>,
) -> Result<Curve, BenchError> {
    let sizes = reach.of(&[1, 5, 20, 50, 100, 200], &[1, 10, 30], &[1, 3]);
    let bytes = reach.of(&[10_000_000], &[5_000_000], &[200_000])[0];
    let pattern = Arc::new(Pattern::lines(bytes as u64));
    let megabytes = pattern.len() as f64 / 1e6;
    let mut curve = Curve::new("followers", "live readers of one task");
    site.start_worker(2).await?;
    let mut clients = Vec::new();
    for &followers in sizes {
        step(progress, &curve, followers);
        while clients.len() < followers {
            clients.push(site.another_client().await?);
        }
        let server = || site.server_pid().and_then(cpu_time);
        let (before, start) = (server(), Instant::now());
        follow_all(site.client(), &clients, &pattern).await?;
        let time = start.elapsed();
        let cpu = server().zip(before).map(|(after, before)| millis(after - before));
        let all = megabytes * followers as f64;
        curve.add(
            followers,
            &[
                ("to all readers", "MB/s", Some(all / time.as_secs_f64())),
                ("from submission to the last reader's outcome", "ms", Some(millis(time))),
                ("server's CPU time for each reader's MB", "ms", cpu.map(|cpu| cpu / all)),
                ("server's memory (RSS)", "MB", server_megabytes(site)),
            ],
        );
        site.settle().await?;
        site.clear_output().await?;
    }
    Ok(curve)
}

/// Submits one task, when all readers listen, and waits until each has everything.
async fn follow_all(
    submitter: &Client,
    clients: &[Client],
    pattern: &Arc<Pattern>,
) -> Result<(), BenchError> {
    let id = TaskId::generate();
    let mut readers = JoinSet::new();
    for client in clients {
        let (client, id, pattern) = (client.clone(), id.clone(), Arc::clone(pattern));
        readers.spawn(async move { read(&client, &id, &pattern, Instant::now()).await });
    }
    let mut spec = pattern.task();
    spec.id = Some(id);
    submitter.submit(spec).await?;
    while let Some(read) = readers.join_next().await {
        let read = read.map_err(|_| BenchError::Proc { what: "a reader" })?;
        succeeded(&read?.1)?;
    }
    Ok(())
}
