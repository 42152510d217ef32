//! Finished tasks whose records are kept. Most of them never ran: their records are those of one that
//! did, under other ids, message by message.

use std::time::Instant;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream;

use super::super::helper::TRUE;
use super::super::latency::Lone;
use super::super::stats::millis;
use super::super::{BenchError, Curve, Progress, Site};
use super::{PLACES, Reach, server_megabytes, step, tasks_per_second};
use crate::client::ListFilter;
use crate::nats::{Bus, Headers};
use crate::wire::{TaskId, TaskSpec};

/// Messages that are written at once.
const WINDOW: usize = 512;

pub(super) async fn measure(
    site: &mut Site,
    reach: Reach,
    progress: Progress<'_>,
) -> Result<Curve, BenchError> {
    let sizes = reach.of(&[0, 1_000, 10_000, 100_000, 500_000], &[0, 1_000, 10_000], &[0, 50]);
    let mut curve = Curve::new("finished", "finished tasks that are kept");
    site.start_worker(PLACES).await?;
    tasks_per_second(site, reach.tasks() / 10).await?;
    site.clear().await?;
    let records = records_of_one(site).await?;
    let mut kept = 0;
    for &finished in sizes {
        step(progress, &curve, finished);
        write(site.client().bus(), &records, finished - kept).await?;
        kept = finished;
        let mut lone = Lone::new(site.client(), None).await?;
        let p50 = lone.p50_ms(reach.singles()).await?;
        let rate = tasks_per_second(site, reach.tasks()).await?;
        let start = Instant::now();
        let filter = ListFilter { phase: None, lane: None, limit: 20 };
        site.client().list(&filter).await?;
        curve.add(
            finished,
            &[
                ("tasks", "per second", Some(rate)),
                ("submit to outcome, p50", "ms", Some(p50)),
                ("listing of the newest 20", "ms", Some(millis(start.elapsed()))),
                ("server's memory (RSS)", "MB", server_megabytes(site)),
            ],
        );
    }
    Ok(curve)
}

/// A record of a task: its subject and its payload, in which the task's id stands.
struct Record {
    subject: String,
    payload: String,
}

struct Records {
    id: TaskId,
    records: Vec<Record>,
}

async fn records_of_one(site: &Site) -> Result<Records, BenchError> {
    let client = site.client();
    let id = client.submit(TaskSpec::command(TRUE, [])).await?.task.id;
    let mut waiter = client.wait([id.clone()]).await?;
    waiter.next().await?;
    site.settle().await?;
    let bus = client.bus();
    let subjects = bus.subjects();
    let mut records = Vec::new();
    for filter in [subjects.task(&id), subjects.spec(&id)] {
        let page = bus.read_page(&subjects.tasks_stream(), &filter, 1).await?;
        records.extend(page.messages.into_iter().map(|stored| Record {
            subject: stored.subject,
            payload: String::from_utf8_lossy(&stored.payload).into_owned(),
        }));
    }
    Ok(Records { id, records })
}

async fn write(bus: &Bus, records: &Records, count: usize) -> Result<(), BenchError> {
    let messages = (0..count).flat_map(|_| {
        let id = TaskId::generate();
        let (from, to) = (records.id.as_str(), id.to_string());
        let renamed: Vec<(String, String)> = records
            .records
            .iter()
            .map(|record| (record.subject.replace(from, &to), record.payload.replace(from, &to)))
            .collect();
        renamed
    });
    let publish = |(subject, payload): (String, String)| {
        bus.publish(subject, Headers::default(), Bytes::from(payload))
    };
    let mut stored = stream::iter(messages.map(publish)).buffered(WINDOW);
    while let Some(stored) = stored.next().await {
        stored?;
    }
    Ok(())
}
