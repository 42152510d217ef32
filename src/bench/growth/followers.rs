//! Live readers of one task, each on a connection of its own; all of them compare each byte.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::output::{Pattern, read};
use super::super::proc::cpu_time;
use super::super::stats::millis;
use super::super::throughput::succeeded;
use super::super::{BenchError, Curve, Progress, Site};
use super::{Reach, server_megabytes, step};
use crate::client::Client;
use crate::wire::{Outcome, TaskId, TaskSpec};

/// How long a reader looks for what is stored before the task comes.
const FIRST_LOOK: Duration = Duration::from_millis(500);

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
        let id = TaskId::generate();
        let readers = listen(&clients, &id, &pattern).await;
        let server = || site.server_pid().and_then(cpu_time);
        let (before, start) = (server(), Instant::now());
        let spec = TaskSpec { id: Some(id), ..pattern.task() };
        site.client().submit(spec).await?;
        joined(readers).await?;
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

/// What a reader has when the task has ended.
type Read = Result<Outcome, BenchError>;

/// Starts the readers of a task that is not there yet, and returns when all of them listen.
async fn listen(clients: &[Client], id: &TaskId, pattern: &Arc<Pattern>) -> JoinSet<Read> {
    let mut readers = JoinSet::new();
    let (listening, mut all_listen) = mpsc::channel::<()>(1);
    for client in clients {
        let (client, id, pattern) = (client.clone(), id.clone(), Arc::clone(pattern));
        let listening = listening.clone();
        readers.spawn(async move {
            let mut follow = client.follow(&id).await?;
            // It has looked at what is stored by then. Cancel safe.
            timeout(FIRST_LOOK, follow.next()).await.ok();
            drop(listening);
            let (_, outcome) = read(follow, &pattern, Instant::now()).await?;
            Ok(outcome)
        });
    }
    drop(listening);
    all_listen.recv().await;
    readers
}

async fn joined(mut readers: JoinSet<Read>) -> Result<(), BenchError> {
    while let Some(read) = readers.join_next().await {
        succeeded(&read.map_err(|_| BenchError::Proc { what: "a reader" })??)?;
    }
    Ok(())
}
