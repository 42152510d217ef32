//! Reports for people: one table, aligned or in Markdown.

use super::super::table::Table;
use crate::bench::{CpuMs, Curve, Facts, Report, Spread};

/// A line of a report.
struct Line {
    what: String,
    median: String,
    spread: String,
    ratio: String,
}

/// Facts and an aligned table.
pub(super) fn plain(report: &Report) -> String {
    if !report.growth.is_empty() {
        // A table of a curve is as wide as it has figures; Markdown's is the one that can be read.
        return markdown(report);
    }
    let mut table = Table::new(["FIGURE", "MEDIAN", "MIN - MAX", "RATIO"]);
    for line in lines(report) {
        table.row([line.what, line.median, line.spread, line.ratio]);
    }
    format!("{}\n{}", facts(&report.facts, report.rounds).join("\n"), table.render())
}

/// The same in Markdown, and a table for each curve.
pub(super) fn markdown(report: &Report) -> String {
    let facts: Vec<String> =
        facts(&report.facts, report.rounds).iter().map(|fact| format!("* {fact}\n")).collect();
    if !report.growth.is_empty() {
        let curves: Vec<String> = report.growth.iter().map(curve).collect();
        return facts.concat() + &curves.concat();
    }
    let rows: Vec<String> = lines(report)
        .iter()
        .map(|l| format!("| {} | {} | {} | {} |\n", l.what, l.median, l.spread, l.ratio))
        .collect();
    format!(
        "{}\n| figure | median | min - max | ratio |\n|---|---|---|---|\n{}",
        facts.concat(),
        rows.concat()
    )
}

fn facts(facts: &Facts, rounds: usize) -> Vec<String> {
    let machine = &facts.machine;
    let mut lines = vec![
        format!("runlane {}, {rounds} rounds, {}", facts.runlane_version, facts.date),
        format!("{}, {} cores, Linux {}", machine.cpu_model, machine.cores, machine.kernel),
    ];
    if let Some(version) = &facts.nats_server_version {
        let storage = facts.storage.as_deref().map(|it| format!(", {it} storage"));
        let isolation = facts.isolation.as_deref().map(|it| format!(", isolation {it}"));
        lines.push(format!(
            "nats-server {version} ({}){}{}",
            facts.against,
            storage.unwrap_or_default(),
            isolation.unwrap_or_default()
        ));
    }
    let [one, five, fifteen] = machine.load_average;
    let busy = if machine.busy { ": something else ran here" } else { "" };
    lines.push(format!("load average at the start {one:.2} {five:.2} {fifteen:.2}{busy}"));
    lines
}

fn lines(report: &Report) -> Vec<Line> {
    let mut lines = Vec::new();
    limits(report, &mut lines);
    throughput(report, &mut lines);
    latency(report, &mut lines);
    output(report, &mut lines);
    cancel(report, &mut lines);
    submit(report, &mut lines);
    idle(report, &mut lines);
    lines
}

fn limits(report: &Report, lines: &mut Vec<Line>) {
    let Some(limits) = &report.limits else { return };
    let each = format!("bare spawns, {} at once", limits.spawners);
    lines.push(line(&each, &limits.spawns_per_second, "/s"));
    lines.push(line("  CPU time of each", &limits.spawn_cpu_ms, " ms"));
    lines.push(line("one bare spawn, idle, p50", &limits.idle_spawn_p50_ms, " ms"));
    lines.push(line("  p99", &limits.idle_spawn_p99_ms, " ms"));
    lines.push(line("pipe", &limits.pipe_megabytes_per_second, " MB/s"));
    if let Some(trip) = &limits.nats_round_trip_p50_ms {
        lines.push(line("NATS round trip, p50", trip, " ms"));
    }
    if let Some(trip) = &limits.nats_round_trip_p99_ms {
        lines.push(line("  p99", trip, " ms"));
    }
}

fn throughput(report: &Report, lines: &mut Vec<Line>) {
    for measured in &report.throughput {
        let at = match measured.concurrency {
            Some(concurrency) => format!("tasks, concurrency {concurrency}"),
            None => "tasks, by the workers that are there".to_owned(),
        };
        let tasks = line(&at, &measured.tasks_per_second, "/s");
        lines.push(tasks.ratio(&measured.of_limit, " of the limit"));
        lines.push(line(
            "  bare spawns in the same minute",
            &measured.limit_spawns_per_second,
            "/s",
        ));
        let cpu = &measured.cpu_ms_per_task;
        let total = line("  CPU time of each", &cpu.total, " ms");
        let spawn = &measured.limit_spawn_cpu_ms;
        let times = format!("{}× a bare spawn", number(cpu.total.median / spawn.median));
        lines.push(Line { ratio: times, ..total });
        parts(cpu, lines);
    }
}

/// CPU time by process.
fn parts(cpu: &CpuMs, lines: &mut Vec<Line>) {
    for (name, part) in [
        ("    worker", &cpu.worker),
        ("    supervisors and tasks", &cpu.supervisors_and_tasks),
        ("    nats-server", &cpu.nats_server),
        ("    this client", &cpu.client),
    ] {
        lines.extend(part.as_ref().map(|part| line(name, part, " ms")));
    }
}

fn latency(report: &Report, lines: &mut Vec<Line>) {
    let Some(latency) = &report.latency else { return };
    let times = &latency.times_spawn;
    let spawn = " bare spawns";
    lines.push(line("one bare spawn, in between, p50", &latency.spawn_p50_ms, " ms"));
    lines.push(line("  p99", &latency.spawn_p99_ms, " ms"));
    let p50 = line("submit to outcome, p50", &latency.outcome_p50_ms, " ms");
    lines.push(p50.ratio(&times.outcome_p50, spawn));
    let p99 = line("  p99", &latency.outcome_p99_ms, " ms");
    lines.push(p99.ratio(&times.outcome_p99, spawn));
    lines.push(line("  max", &latency.outcome_max_ms, " ms"));
    let p50 = line("submit to first byte, p50", &latency.first_byte_p50_ms, " ms");
    lines.push(p50.ratio(&times.first_byte_p50, spawn));
    let p99 = line("  p99", &latency.first_byte_p99_ms, " ms");
    lines.push(p99.ratio(&times.first_byte_p99, spawn));
    let followed = &latency.followed_outcome_p50_ms;
    lines.push(line("submit to the follower's outcome, p50", followed, " ms"));
}

fn output(report: &Report, lines: &mut Vec<Line>) {
    let Some(output) = &report.output else { return };
    let megabytes = output.bytes / 1_000_000;
    let what = format!("{megabytes} MB of zeros to a live reader, each byte compared");
    let zeros = line(&what, &output.zeros_megabytes_per_second, " MB/s");
    lines.push(zeros.ratio(&output.zeros_of_limit, " of the pipe"));
    let numbered =
        line("  the same of numbered lines", &output.lines_megabytes_per_second, " MB/s");
    lines.push(numbered.ratio(&output.lines_of_limit, " of the pipe"));
    lines.push(line("  CPU time of each MB", &output.cpu_ms_per_megabyte.total, " ms"));
    parts(&output.cpu_ms_per_megabyte, lines);
    let compressed = &output.compressed;
    let zeros =
        line("the same zeros, compressed (lz4)", &compressed.zeros_megabytes_per_second, " MB/s");
    lines.push(zeros.ratio(&compressed.zeros_of_limit, " of the pipe"));
    let numbered = line(
        "  such lines, which shrink too little",
        &compressed.lines_megabytes_per_second,
        " MB/s",
    );
    lines.push(numbered.ratio(&compressed.lines_of_limit, " of the pipe"));
    lines.push(line("  CPU time of each MB", &compressed.cpu_ms_per_megabyte.total, " ms"));
    parts(&compressed.cpu_ms_per_megabyte, lines);
    lines.push(line("  pipe in the same minute", &output.limit_pipe_megabytes_per_second, " MB/s"));
}

fn cancel(report: &Report, lines: &mut Vec<Line>) {
    let Some(cancel) = &report.cancel else { return };
    lines.push(line("cancel to dead, p50", &cancel.dead_p50_ms, " ms"));
    lines.push(line("  p99", &cancel.dead_p99_ms, " ms"));
    lines.push(line("  to its outcome, p50", &cancel.outcome_p50_ms, " ms"));
    let what = format!("  with {} setsid children, p50", cancel.daemons);
    lines.push(line(&what, &cancel.daemons_dead_p50_ms, " ms"));
    lines.push(line("  p99", &cancel.daemons_dead_p99_ms, " ms"));
}

fn submit(report: &Report, lines: &mut Vec<Line>) {
    let Some(submit) = &report.submit else { return };
    let what = format!("submit {} specs, pipelined", submit.count);
    lines.push(line(&what, &submit.specs_per_second, "/s"));
    lines.push(line("  CPU time of each, client", &submit.client_cpu_ms_per_spec, " ms"));
    if let Some(server) = &submit.nats_server_cpu_ms_per_spec {
        lines.push(line("  CPU time of each, nats-server", server, " ms"));
    }
    lines.push(line("  growth of the client", &submit.client_growth_megabytes, " MB"));
    if let Some(server) = &submit.nats_server_megabytes {
        lines.push(line("  nats-server at the end", server, " MB"));
    }
}

fn idle(report: &Report, lines: &mut Vec<Line>) {
    let Some(idle) = &report.idle else { return };
    lines.push(line("idle worker and its processes, PSS", &idle.worker_pss_megabytes, " MB"));
    lines.push(line("  of this, spawner and spares", &idle.spawner_pss_megabytes, " MB"));
    lines.push(line("  for each running task", &idle.pss_kilobytes_per_task, " kB"));
    lines.push(line("idle worker, one lane, CPU", &idle.cpu_percent_one_lane, " %"));
    let what = format!("  with {} lanes", idle.lanes);
    lines.push(line(&what, &idle.cpu_percent_many_lanes, " %"));
    if let Some(server) = &idle.nats_server_cpu_percent_many_lanes {
        lines.push(line("  nats-server meanwhile", server, " %"));
    }
}

/// A row for each figure, a column for each size, and what became of it from the first to the last.
fn curve(curve: &Curve) -> String {
    let sizes: Vec<String> = curve.sizes.iter().map(|size| format!(" {size} |")).collect();
    let rules = "---|".repeat(sizes.len() + 1);
    let mut text = format!("\n| {} |{} last / first |\n|---|{rules}\n", curve.of, sizes.concat());
    for series in &curve.series {
        let unit = if series.unit.is_empty() { "" } else { ", " };
        let show = |value: Option<f64>| value.map_or("-".to_owned(), number);
        let values: Vec<String> =
            series.values.iter().map(|value| format!(" {} |", show(*value))).collect();
        let growth = show(series.growth());
        text +=
            &format!("| {}{unit}{} |{} {growth} |\n", series.name, series.unit, values.concat());
    }
    text
}

fn line(what: &str, figure: &Spread, unit: &str) -> Line {
    Line {
        what: what.to_owned(),
        median: format!("{}{unit}", number(figure.median)),
        spread: format!("{} - {}", number(figure.min), number(figure.max)),
        ratio: String::new(),
    }
}

impl Line {
    fn ratio(self, figure: &Spread, of: &str) -> Self {
        let [median, min, max] = [figure.median, figure.min, figure.max].map(number);
        Self { ratio: format!("{median}{of} ({min} - {max})"), ..self }
    }
}

/// Three digits that count.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        value if value >= 100.0 => 0,
        value if value >= 10.0 => 1,
        value if value >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_count() {
        let texts = [3412.7, 99.96, 12.34, 1.234, 0.1234].map(number);
        assert_eq!(texts, ["3413", "100.0", "12.3", "1.23", "0.123"]);
    }
}
