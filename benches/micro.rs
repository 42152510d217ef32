//! Times of the work per message, without the network and without processes.
//!
//! `cargo bench --bench micro` compares with the run before; `-- spec` measures only what has this in its
//! name; `-- --save-baseline main`, then `-- --baseline main`, compares two states. Times are of this
//! machine at this moment: the guard in CI counts instructions, see `instructions`.

mod cases;

use std::hint::black_box;

use cases::Run;
use criterion::Criterion;
use runlane::nats::Headers;
use runlane::wire::output::{HEADER_ATTEMPT, HEADER_OFFSET, HEADER_SEQ};
use runlane::wire::{Attempt, Stream, Subjects, TaskId};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for case in cases::all() {
        let mut run = (case.prepare)();
        criterion.bench_function(case.name, |bencher| bencher.iter(&mut run));
    }
    // Not among the cases: it needs the NATS client library, without which the guard is built.
    criterion.bench_function("chunk/subject and headers", |bencher| bencher.iter(message()));
    criterion.final_summary();
}

/// What a chunk's message has besides its bytes.
fn message() -> Run {
    let id: TaskId = "018f3c2e-7b1a-7cc3-9a4d-2f6e8b0c1d35".parse().expect("an id");
    let subjects = Subjects::default();
    Box::new(move || {
        let headers = Headers::default()
            .with(HEADER_ATTEMPT, black_box(Attempt::FIRST))
            .with(HEADER_SEQ, black_box(17))
            .with(HEADER_OFFSET, black_box(1_114_112));
        drop(black_box((subjects.output(black_box(&id), Stream::Stdout), headers)));
    })
}
