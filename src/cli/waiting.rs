//! Why a task waits, in a sentence.

use std::time::Duration;

use jiff::Timestamp;

use super::text;
use crate::client::{Client, LaneReport, TaskReport, UnavailableWorker};
use crate::nats::{BusError, Slots};
use crate::task::Human;
use crate::wire::{Phase, StatusEvent, WorkerState};

/// Why a task is pending. None: it isn't, or it isn't known.
pub(super) async fn why_pending(
    client: &Client,
    report: &TaskReport,
) -> Result<Option<String>, BusError> {
    let (Phase::Pending, Some(queued)) = (report.phase, &report.queued) else { return Ok(None) };
    if let Some(until) = time_of(report).filter(|until| *until > Timestamp::now()) {
        return Ok(Some(until_text(until)));
    }
    let slot = queued.spec.as_ref().and_then(|spec| spec.slot.as_deref());
    if let Some(slot) = slot
        && let Some(why) = why_slot(client, report, slot).await
    {
        return Ok(Some(why));
    }
    Ok(client.lane(&queued.lane).await?.map(|lane| why_waiting(&lane)))
}

/// When it may start: for the first time, or again.
fn time_of(report: &TaskReport) -> Option<Timestamp> {
    match report.records.last().map(|record| &record.event) {
        None => report.queued.as_ref()?.spec.as_ref()?.not_before,
        Some(StatusEvent::Retrying(retrying)) => {
            retrying.at.checked_add(Duration::from_millis(retrying.delay_ms)).ok()
        }
        Some(_) => None,
    }
}

fn until_text(until: Timestamp) -> String {
    let left = Duration::try_from(until.duration_since(Timestamp::now())).unwrap_or_default();
    let left = Human(Duration::from_secs(left.as_secs().max(1)));
    format!("waiting for its time to start: {until:.3} (in {left})")
}

/// Who has the slot that the task waits for. None: it stands in no line, or that can't be read by this user.
async fn why_slot(client: &Client, report: &TaskReport, slot: &str) -> Option<String> {
    let record = Slots::new(client.bus().clone()).read(slot).await.ok()?.record;
    let place = record.waiters.iter().find(|waiter| waiter.task == report.id)?;
    let holders: Vec<String> =
        record.holders.iter().map(|holder| holder.task.to_string()).collect();
    let before = record.waiters.iter().filter(|other| other.queue_seq < place.queue_seq).count();
    let before = if before == 0 { String::new() } else { format!("; {before} task(s) come first") };
    Some(format!("waiting for the slot {slot}: {} has it{before}", text::or_nobody(&holders)))
}

/// Why a lane's tasks wait, in a sentence.
pub(super) fn why_waiting(report: &LaneReport) -> String {
    let not_now: Vec<String> = report.unavailable.iter().map(why_unavailable).collect();
    let not_now = not_now.join(", ");
    if !report.workers.is_empty() {
        let n = report.workers.len();
        let others = if not_now.is_empty() { not_now } else { format!("; {not_now}") };
        return format!(
            "waiting for a free place: {n} worker(s) can take the task, {} task(s) of its lane run or wait for a retry{others}",
            report.running
        );
    }
    if !not_now.is_empty() {
        return format!("waiting: the workers that could take the task take none now: {not_now}");
    }
    if report.mismatches.is_empty() {
        return "waiting: no worker is there; start one with `runlane worker`".to_owned();
    }
    let lacks: String = report
        .mismatches
        .iter()
        .map(|mismatch| format!("\n  {} lacks {}", mismatch.worker, mismatch.lacks.join(" and ")))
        .collect();
    let selector = report.record.selector.to_string();
    let asks = if selector.is_empty() { String::new() } else { format!(" with {selector}") };
    format!("waiting: no worker can take {} tasks{asks}:{lacks}", report.record.kind)
}

fn why_unavailable(UnavailableWorker { worker, state }: &UnavailableWorker) -> String {
    let is = match state {
        WorkerState::Resting => "resting because its host could not start tasks",
        WorkerState::Unknown => "in a state that this version doesn't know",
        WorkerState::Ready | WorkerState::Paused | WorkerState::Draining => state.as_str(),
    };
    format!("{worker} is {is}")
}
