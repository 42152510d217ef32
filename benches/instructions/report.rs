//! Compares counts, and says what rose and what fell.
//!
//! A rise fails also where the tools are others than those of the committed counts, with more
//! tolerance: a guard that waits for one version of a compiler would soon never guard.

use std::collections::BTreeSet;

use crate::callgrind::Counts;
use crate::expected::Expected;

/// How much each count may rise.
#[derive(Debug, Clone, Copy)]
struct Tolerance {
    /// In percent.
    ours: u64,
    /// In percent.
    libc: u64,
}

/// With the same tools only the code differs.
const SAME_TOOLS: Tolerance = Tolerance { ours: 5, libc: 10 };
/// Another compiler inlines otherwise, another C library copies and allocates otherwise.
const OTHER_TOOLS: Tolerance = Tolerance { ours: 10, libc: 60 };
/// Instructions by which our smallest cases may differ.
const OURS_SLACK: u64 = 40;
/// The same of the C library: how the heap lies decides how long an allocation takes.
const LIBC_SLACK: u64 = 400;

/// What a comparison found.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Lines to print.
    lines: Vec<String>,
    /// How many counts rose too much, are missing, or belong to no case.
    pub(crate) failed: usize,
    /// How many fell so much that the committed ones guard little.
    fell: usize,
    /// Tools then and now, if they differ.
    other_tools: Option<(String, String)>,
}

/// Compares what was counted `now` with what is committed.
pub(crate) fn compare(expected: &Expected, now: &Expected) -> Verdict {
    let mut verdict = Verdict::default();
    let mut tolerance = SAME_TOOLS;
    if expected.made_with != now.made_with {
        tolerance = OTHER_TOOLS;
        verdict.other_tools = Some((expected.made_with.clone(), now.made_with.clone()));
    }
    let names: BTreeSet<&String> = expected.case.keys().chain(now.case.keys()).collect();
    for name in names {
        match (expected.case.get(name), now.case.get(name)) {
            (Some(then), Some(now)) => verdict.case(name, then, now, tolerance),
            (None, _) => verdict.fail(&format!("{name}: has no committed counts")),
            (_, None) => verdict.fail(&format!("{name}: is committed, and there is no such case")),
        }
    }
    verdict
}

impl Verdict {
    fn case(&mut self, name: &str, then: &Counts, now: &Counts, tolerance: Tolerance) {
        let judged = [
            ("ours", then.ours, now.ours, slack(then.ours, tolerance.ours, OURS_SLACK)),
            ("libc", then.libc, now.libc, slack(then.libc, tolerance.libc, LIBC_SLACK)),
            ("allocations", then.allocations, now.allocations, 0),
        ];
        self.lines.push(format!(
            "{name:36}{}",
            judged.map(|(_, then, now, _)| column(then, now)).concat()
        ));
        for (what, then, now, slack) in judged {
            if now > then + slack {
                let allowed = then + slack;
                self.fail(&format!("{what} ROSE from {then} to {now}; {allowed} are allowed"));
            } else if now + slack < then {
                self.fell += 1;
                self.lines.push(format!("    {what} fell"));
            }
        }
    }

    fn fail(&mut self, why: &str) {
        self.failed += 1;
        self.lines.push(format!("    {why}"));
    }
}

fn slack(count: u64, percent: u64, least: u64) -> u64 {
    (count * percent / 100).max(least)
}

fn column(then: u64, now: u64) -> String {
    let change = (now as f64 - then as f64) * 100.0 / then.max(1) as f64;
    format!("{now:>10} {change:>+6.1} %")
}

/// Prints what was found.
pub(crate) fn print(verdict: &Verdict) {
    println!("{:36}{:>19}{:>19}{:>19}", "", "ours", "libc", "allocations");
    for line in &verdict.lines {
        println!("{line}");
    }
    if verdict.fell > 0 {
        println!(
            "NOTE: {} counts fell: refresh the committed ones, so that they guard this.",
            verdict.fell
        );
    }
    if let Some((then, now)) = &verdict.other_tools {
        println!(
            "NOTE: the committed counts are of other tools, so more is tolerated. Refresh them."
        );
        println!("  committed: {then}\n  here:      {now}");
    }
}
