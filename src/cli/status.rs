//! `runlane status`: all that is known of a task.

use clap::Args;

use super::exit::{FAILED, Failure};
use super::global::GlobalArgs;
use super::table::Table;
use super::{say, text, waiting};
use crate::client::TaskReport;
use crate::task::Human;
use crate::wire::{StatusEvent, StreamTotals, TaskId};

/// Show all that is known of a task: phase, history, outcome
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// The task
    #[arg(value_name = "ID")]
    id: TaskId,
}

pub(super) async fn run(global: &GlobalArgs, args: &StatusArgs) -> Result<u8, Failure> {
    let client = global.client().await?;
    let Some(report) = client.status(&args.id).await? else {
        let message = format!(
            "task {} is unknown: it was never submitted in this namespace, or its records have passed their age limit",
            args.id
        );
        return Err(Failure::new(FAILED, message));
    };
    if global.json {
        say::json(&report)?;
        return Ok(0);
    }
    say::out(render(&report).as_bytes())?;
    if let Some(why) = waiting::why_pending(&client, &report).await? {
        say::line(format!("\n{why}"))?;
    }
    Ok(0)
}

fn render(report: &TaskReport) -> String {
    let mut lines = vec![format!("{}  {}", report.id, report.phase)];
    let mut field = |name: &str, value: String| lines.push(format!("{name:<9} {value}"));
    if let Some(queued) = &report.queued {
        field("lane", queued.lane.to_string());
        field("queued", format!("{:.3} ({} ago)", queued.at, text::ago(queued.at)));
    }
    if !report.labels.is_empty() {
        field("labels", text::labels(&report.labels));
    }
    if let Some(earlier) = &report.retry_of {
        field("retry of", earlier.to_string());
    }
    if let Some(cancel) = &report.cancel {
        let by = cancel.by.as_ref().map(|by| format!(" by {by}")).unwrap_or_default();
        let why = cancel.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        field("cancel", format!("asked{by}{why}"));
    }
    if let Some(outcome) = &report.outcome {
        field("outcome", text::ended(outcome));
        if let Some(ran) = text::run_time(outcome) {
            field("ran", ran);
        }
        if let (Some(cpu), Some(rss)) = (outcome.cpu, outcome.max_rss_bytes) {
            let user = Human(std::time::Duration::from_micros(cpu.user_us));
            let system = Human(std::time::Duration::from_micros(cpu.system_us));
            let peak = indicatif::BinaryBytes(rss);
            field("used", format!("{user} user, {system} system, {peak} at most"));
        }
        if let Some(peak) = outcome.memory_peak_bytes {
            let of = outcome.memory_max_bytes.map(|max| format!(" of {}", text::size(max)));
            let peak = indicatif::BinaryBytes(peak);
            field("memory", format!("{peak} at most{}", of.unwrap_or_default()));
        }
        for (feature, why) in &outcome.isolation_missing {
            field("isolation", format!("without {feature}: {why}"));
        }
        if let Some(output) = &outcome.output {
            field("stdout", totals(&output.stdout));
            field("stderr", totals(&output.stderr));
        }
    }
    if !report.records.is_empty() {
        let mut history = Table::new(["WHEN", "STEP", "ATTEMPT", "WORKER", "WHAT"]);
        for record in &report.records {
            let [step, attempt, worker, what] = row(&record.event);
            history.row([format!("{:.3}", record.stored_at), step, attempt, worker, what]);
        }
        lines.push(format!("\n{}", history.render().trim_end()));
    }
    if report.records_left_out > 0 {
        lines.push(format!("({} older records are not shown)", report.records_left_out));
    }
    lines.join("\n") + "\n"
}

fn totals(totals: &StreamTotals) -> String {
    let mut text = format!("{} bytes", totals.bytes);
    if totals.truncated {
        text.push_str(&format!(", {} kept", totals.stored_bytes));
    }
    if !totals.complete {
        text.push_str(", incomplete");
    }
    text
}

/// Step, attempt, worker, and what else there is to say.
fn row(event: &StatusEvent) -> [String; 4] {
    match event {
        StatusEvent::Started(started) => [
            "started".to_owned(),
            started.attempt.to_string(),
            started.worker.to_string(),
            format!("runner {}", started.runner),
        ],
        StatusEvent::Retrying(retrying) => [
            "retrying".to_owned(),
            text::opt(retrying.ended.attempt),
            text::opt(retrying.ended.worker.as_ref()),
            text::ended(&retrying.ended),
        ],
        StatusEvent::Requeued(requeued) => [
            "requeued".to_owned(),
            requeued.attempt.to_string(),
            requeued.worker.to_string(),
            "handed back by its worker".to_owned(),
        ],
        StatusEvent::Finished(finished) => [
            "finished".to_owned(),
            text::opt(finished.outcome.attempt),
            text::opt(finished.outcome.worker.as_ref()),
            finished.outcome.phase.to_string(),
        ],
    }
}
