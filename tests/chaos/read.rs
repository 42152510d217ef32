//! Reads the streams, to the last message, and sorts them by task. Output is compared with what the
//! task is known to print while it passes by, so that it need not be kept.

use std::collections::BTreeMap;

use runlane::nats::{Bus, BusError, Connected, PublishedChunk, Stored};
use runlane::wire::subject::TaskSubject;
use runlane::wire::{Outcome, StatusEvent, Stream, TaskId};

use crate::tasks::TaskPlan;
use crate::timeline::seconds;

/// Everything that the streams say of the run.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    pub(crate) tasks: BTreeMap<TaskId, TaskLog>,
    /// Messages that are left in the queue.
    pub(crate) queued: Vec<String>,
    /// What can't be read, or belongs to no task of ours.
    pub(crate) strange: Vec<String>,
    pub(crate) output_bytes: u64,
    pub(crate) output_chunks: u64,
    pub(crate) compressed_chunks: u64,
}

/// Everything that the streams say of one task, in stream order.
#[derive(Debug, Default)]
pub(crate) struct TaskLog {
    pub(crate) records: Vec<Record>,
    pub(crate) chunks: Vec<Chunk>,
}

#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) seq: u64,
    pub(crate) time: f64,
    pub(crate) kind: Sort,
    pub(crate) text: String,
}

#[derive(Debug)]
pub(crate) enum Sort {
    Status(Box<StatusEvent>),
    Cancel,
    Outcome(Box<Outcome>),
}

/// A chunk, without its bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chunk {
    pub(crate) seq: u64,
    pub(crate) time: f64,
    pub(crate) stream: Stream,
    pub(crate) attempt: u32,
    pub(crate) number: u64,
    pub(crate) offset: u64,
    pub(crate) length: u64,
    /// Its bytes are what the task prints at this place.
    pub(crate) right: bool,
}

impl TaskLog {
    pub(crate) fn status(&self) -> impl Iterator<Item = (&Record, &StatusEvent)> {
        self.records.iter().filter_map(|record| match &record.kind {
            Sort::Status(event) => Some((record, &**event)),
            Sort::Cancel | Sort::Outcome(_) => None,
        })
    }

    pub(crate) fn outcomes(&self) -> impl Iterator<Item = (&Record, &Outcome)> {
        self.records.iter().filter_map(|record| match &record.kind {
            Sort::Outcome(outcome) => Some((record, &**outcome)),
            Sort::Status(_) | Sort::Cancel => None,
        })
    }

    /// The sequence of the first cancel request.
    pub(crate) fn canceled(&self) -> Option<u64> {
        self.records
            .iter()
            .find(|record| matches!(record.kind, Sort::Cancel))
            .map(|record| record.seq)
    }
}

/// Reads everything.
pub(crate) async fn read(
    bus: &Bus,
    connected: &Connected,
    plans: &[TaskPlan],
) -> Result<Logs, BusError> {
    let plans: BTreeMap<&TaskId, &TaskPlan> = plans.iter().map(|plan| (&plan.id, plan)).collect();
    let subjects = bus.subjects().clone();
    let mut logs = Logs::default();
    for stored in all(bus, connected, &subjects.queue_stream(), &subjects.queue_all()).await? {
        logs.queued.push(stored.subject);
    }
    let tasks = format!("{}.task.*.*", subjects.namespace());
    for stored in all(bus, connected, &subjects.tasks_stream(), &tasks).await? {
        let Some((id, what)) = subjects.parse_task(&stored.subject) else {
            logs.strange.push(stored.subject);
            continue;
        };
        match record(&stored, what) {
            Ok(record) => logs.tasks.entry(id).or_default().records.push(record),
            Err(error) => logs.strange.push(format!("{}: {error}", stored.subject)),
        }
    }
    read_output(bus, connected, &plans, &mut logs).await?;
    let strangers = logs.tasks.keys().filter(|id| !plans.contains_key(id)).map(ToString::to_string);
    let strangers: Vec<_> = strangers.collect();
    logs.strange.extend(strangers);
    Ok(logs)
}

async fn read_output(
    bus: &Bus,
    connected: &Connected,
    plans: &BTreeMap<&TaskId, &TaskPlan>,
    logs: &mut Logs,
) -> Result<(), BusError> {
    let subjects = bus.subjects().clone();
    let mut from = 1;
    let stream = subjects.output_stream();
    wait_for_replicas(connected, &stream).await;
    let mut printed = Printed::default();
    loop {
        let page = bus.read_page(&stream, &subjects.output_all(), from).await?;
        for stored in &page.messages {
            from = stored.seq + 1;
            logs.output_bytes += stored.payload.len() as u64;
            logs.output_chunks += 1;
            let known = subjects.parse_output(&stored.subject).and_then(|(id, _)| {
                let (headers, payload) = (&stored.headers, stored.payload.clone());
                let published = PublishedChunk::read(&subjects, &stored.subject, headers, payload)?;
                logs.compressed_chunks += u64::from(published.len > stored.payload.len() as u64);
                let chunk = chunk(stored, &published, plans.get(&id)?, &mut printed)?;
                Some((id, chunk))
            });
            match known {
                Some((id, chunk)) => logs.tasks.entry(id).or_default().chunks.push(chunk),
                None => logs.strange.push(stored.subject.clone()),
            }
        }
        if page.end {
            return Ok(());
        }
    }
}

/// What an attempt prints, for the chunk after this one, which is mostly of the same attempt.
#[derive(Default)]
struct Printed {
    of: Option<(TaskId, u32, Stream)>,
    bytes: Vec<u8>,
}

fn chunk(
    stored: &Stored,
    published: &PublishedChunk,
    plan: &TaskPlan,
    printed: &mut Printed,
) -> Option<Chunk> {
    let PublishedChunk { attempt, stream, seq, offset, .. } = *published;
    let (attempt, data) = (attempt.0, published.data().ok()?);
    let of = Some((plan.id.clone(), attempt, stream));
    if printed.of != of {
        *printed = Printed { of, bytes: plan.output(attempt, stream) };
    }
    let start = usize::try_from(offset).ok()?;
    let expected = printed.bytes.get(start..start + data.len());
    Some(Chunk {
        seq: stored.seq,
        time: seconds(stored.time),
        stream,
        attempt,
        number: seq,
        offset,
        length: data.len() as u64,
        right: expected == Some(&data[..]),
    })
}

fn record(stored: &Stored, what: TaskSubject) -> Result<Record, serde_json::Error> {
    let kind = match what {
        TaskSubject::Status => Sort::Status(serde_json::from_slice(&stored.payload)?),
        TaskSubject::Cancel => Sort::Cancel,
        TaskSubject::Outcome => Sort::Outcome(serde_json::from_slice(&stored.payload)?),
    };
    let text = String::from_utf8_lossy(&stored.payload).into_owned();
    Ok(Record { seq: stored.seq, time: seconds(stored.time), kind, text })
}

async fn all(
    bus: &Bus,
    connected: &Connected,
    stream: &str,
    filter: &str,
) -> Result<Vec<Stored>, BusError> {
    wait_for_replicas(connected, stream).await;
    let mut messages = Vec::new();
    loop {
        let from = messages.last().map_or(1, |last: &Stored| last.seq + 1);
        let page = bus.read_page(stream, filter, from).await?;
        messages.extend(page.messages);
        if page.end {
            return Ok(messages);
        }
    }
}

/// Pages may be answered by a replica: it must have caught up.
async fn wait_for_replicas(connected: &Connected, stream: &str) {
    for _ in 0..100 {
        if let Ok(found) = connected.jetstream.get_stream(stream).await {
            let cluster = found.cached_info().cluster.as_ref();
            let behind = cluster.is_some_and(|cluster| {
                cluster.leader.is_none()
                    || cluster
                        .replicas
                        .iter()
                        .any(|replica| !replica.current || replica.lag.is_some_and(|lag| lag > 0))
            });
            if !behind {
                return;
            }
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}
