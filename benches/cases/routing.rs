//! Selectors, routing, lanes and subjects.

use std::hint::black_box;

use runlane::task::RouteTable;
use runlane::wire::{Kind, LaneId, LaneRecord, Selector, Stream, Subjects, TaskId};

use super::{Case, Run};

pub(super) const CASES: &[Case] = &[
    Case { name: "selector/read text", prepare: read_text },
    Case { name: "route/the only runner", prepare: || pick(1, "") },
    Case {
        name: "route/last of 20 runners",
        prepare: || pick(20, "os=linux,zone in (z19,z99),!spot"),
    },
    Case { name: "route/100 lanes", prepare: lanes },
    Case { name: "lane/id", prepare: lane_id },
    Case { name: "subject/build", prepare: build },
    Case { name: "subject/parse", prepare: parse },
];

const SELECTOR: &str = "os=linux,gpu in (a100,h200),!spot,zone!=eu,tier notin (dev,test)";

fn read_text() -> Run {
    Box::new(|| drop(black_box(black_box(SELECTOR).parse::<Selector>().expect("a selector"))))
}

/// Picks the last one of so many runners.
fn pick(runners: usize, text: &str) -> Run {
    let (table, selector) = (table(runners), selector(text));
    let last = format!("runner-{}", runners - 1);
    Box::new(move || {
        let entry = table.pick(black_box(Kind::Subprocess), black_box(&selector));
        assert_eq!(black_box(entry).expect("the last one matches").name, last);
    })
}

/// What a worker does with the lanes that it hears of: half of them match.
fn lanes() -> Run {
    let table = table(2);
    let text = |n: usize| format!("os=linux,zone in (z{},z{n}x)", n % 4);
    let lanes: Vec<_> =
        (0..100).map(|n| LaneRecord::new(Kind::Subprocess, &selector(&text(n)))).collect();
    Box::new(move || {
        let ours = black_box(&lanes).iter().filter(|lane| table.matches_lane(lane)).count();
        assert_eq!(ours, 50);
    })
}

fn lane_id() -> Run {
    let selector = selector(SELECTOR);
    Box::new(move || drop(black_box(LaneRecord::new(Kind::Subprocess, black_box(&selector)).id())))
}

/// The subjects that one task of a worker needs.
fn build() -> Run {
    let (subjects, id, lane) = (Subjects::default(), task(), LaneId::default_lane());
    Box::new(move || {
        let (subjects, id) = (black_box(&subjects), black_box(&id));
        drop(black_box(subjects.queue(&lane, id)));
        drop(black_box(subjects.status(id)));
        drop(black_box(subjects.cancel(id)));
        drop(black_box(subjects.outcome(id)));
        drop(black_box(subjects.output(id, Stream::Stdout)));
    })
}

fn parse() -> Run {
    let (subjects, id) = (Subjects::default(), task());
    let queue = subjects.queue(&LaneId::default_lane(), &id);
    let (status, output) = (subjects.status(&id), subjects.output(&id, Stream::Stderr));
    Box::new(move || {
        drop(black_box(subjects.parse_queue(black_box(&queue)).expect("it is ours")));
        drop(black_box(subjects.parse_task(black_box(&status)).expect("it is ours")));
        drop(black_box(subjects.parse_output(black_box(&output)).expect("it is ours")));
    })
}

fn table(runners: usize) -> RouteTable {
    let mut table = RouteTable::new();
    for n in 0..runners {
        let labels = selector(&format!("os=linux,arch=x86_64,zone=z{n},gpu=h200")).match_labels;
        table.register(format!("runner-{n}"), Kind::Subprocess, labels).expect("names differ");
    }
    table
}

fn selector(text: &str) -> Selector {
    text.parse().expect("a selector")
}

fn task() -> TaskId {
    super::records::TASK.parse().expect("an id")
}
