//! The tasks: a seeded mix whose behaviour and output follow, byte for byte, from the plan.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use runlane::task::canonical;
use runlane::wire::{
    Backoff, CommandMode, Compression, EnvVar, Jitter, OnWorkerLost, OutputSpec, Phase, Restart,
    Stream, SubprocessMode, SubprocessSpec, TaskId, TaskKind, TaskSpec,
};

use crate::args::Aim;
use crate::rng::Rng;

/// The variable that marks every process of the run's tasks.
pub(crate) const MARK: &str = "CHAOS_MARK";
/// The exit code of an attempt that is to be retried.
const TRY_AGAIN: i32 = 75;

/// What every task runs: `lines pause extra size fails-until code bulk`.
const SCRIPT: &str = r#"
log() { echo "$1 $RUNLANE_TASK_ID $RUNLANE_ATTEMPT $RUNLANE_WORKER $EPOCHREALTIME" >> "$CHAOS_LOG"; }
log s
case $3 in
leftover) setsid sleep 600 & ;;
stubborn) trap '' TERM ;;
esac
i=0
while [ $i -lt $1 ]; do
  echo "$RUNLANE_TASK_ID $RUNLANE_ATTEMPT line $i"
  [ $((i % 3)) = 0 ] && echo "$RUNLANE_TASK_ID $RUNLANE_ATTEMPT error $i" >&2
  i=$((i + 1))
  [ $2 = 0 ] || sleep $2
done
[ $4 = 0 ] || seq $4
[ $7 = 0 ] || yes "$RUNLANE_TASK_ID $RUNLANE_ATTEMPT bulk" | head -c $7
[ $3 != hang ] || sleep 600
log e
[ $RUNLANE_ATTEMPT -ge $5 ] || exit 75
exit $6
"#;

/// One task.
#[derive(Debug, Clone)]
pub(crate) struct TaskPlan {
    pub(crate) id: TaskId,
    pub(crate) shape: Shape,
    pub(crate) due: Duration,
    pub(crate) way: Way,
    /// A second message of the task, this long after the first.
    pub(crate) again: Option<(Duration, Again)>,
    pub(crate) cancel: Option<CancelPlan>,
    /// When a follower joins, counted from the submission.
    pub(crate) follow: Option<Duration>,
}

/// What a task does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    lines: u32,
    pause_ms: u32,
    extra: Extra,
    size: u32,
    /// Bytes that are written in bulk and shrink much; such a task asks for compressed output.
    bulk: u32,
    /// Attempts before this one fail and are to be retried.
    fails_until: u32,
    code: i32,
    retries: Retries,
    once: bool,
    max_losses: u32,
    timeout_ms: Option<u64>,
    max_bytes: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extra {
    None,
    Leftover,
    Stubborn,
    Hang,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retries {
    No,
    Many,
    One,
    NotForThisCode,
}

/// How a task is submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Client,
    Direct,
    Service,
    WrongLane,
}

/// Where a second message of the task goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    Same,
    Second,
    Wrong,
}

/// When and how a task is canceled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CancelPlan {
    /// None: before the submission.
    pub(crate) after: Option<Duration>,
    /// The canceller waits for the outcome; otherwise it stores the request and goes away.
    pub(crate) stays: bool,
    pub(crate) grace_ms: Option<u64>,
}

/// How an attempt that nobody disturbs ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Natural {
    Exit(i32),
    Timeout,
}

/// Makes all tasks of a run.
pub(crate) fn plan(seed: u64, count: u32, storm: Duration, aim: Aim) -> Vec<TaskPlan> {
    let mut rng = Rng::new(seed, 1);
    let step = storm.mul_f64(0.95) / count.max(1);
    (0..count)
        .map(|n| {
            let id = format!("t{n}").parse().expect("a valid id");
            let due = step * n + rng.millis(0, 400);
            let shape = shape(&mut rng, aim);
            let percent = |aimed: Aim, percent| if aim == aimed { 60 } else { percent };
            let way = match aim {
                Aim::StartCheck => Way::Direct,
                Aim::Everything | Aim::Fence | Aim::Lease => rng.pick(&[
                    (60, Way::Client),
                    (25, Way::Direct),
                    (10, Way::Service),
                    (5, Way::WrongLane),
                ]),
            };
            let again = rng.percent(percent(Aim::Fence, 8)).then(|| {
                let soon = rng.percent(50);
                let after = if soon { rng.millis(0, 30) } else { rng.millis(0, 5000) };
                (after, rng.pick(&[(2, Again::Same), (5, Again::Second), (2, Again::Wrong)]))
            });
            let cancel = rng.percent(percent(Aim::StartCheck, 13)).then(|| cancel(&mut rng, aim));
            let follow = rng.percent(6).then(|| rng.millis(0, 4000));
            TaskPlan { id, shape, due, way, again, cancel, follow }
        })
        .collect()
}

fn cancel(rng: &mut Rng, aim: Aim) -> CancelPlan {
    let before = aim == Aim::StartCheck || rng.percent(20);
    CancelPlan {
        after: (!before)
            .then(|| if rng.percent(75) { rng.millis(0, 1500) } else { rng.millis(1500, 9000) }),
        stays: !before && rng.percent(50),
        grace_ms: rng.pick(&[(5, None), (2, Some(0)), (3, Some(500))]),
    }
}

fn shape(rng: &mut Rng, aim: Aim) -> Shape {
    let quick = Shape {
        lines: u32::try_from(rng.within(1, 6)).expect("small"),
        pause_ms: 0,
        extra: Extra::None,
        size: 0,
        bulk: 0,
        fails_until: 0,
        code: 0,
        retries: Retries::No,
        once: false,
        // More than the storm takes down, but for some.
        max_losses: if rng.percent(85) { 1000 } else { 3 },
        timeout_ms: None,
        max_bytes: None,
    };
    let some = |rng: &mut Rng, low, high| u32::try_from(rng.within(low, high)).expect("small");
    let slow = Shape { lines: some(rng, 3, 8), pause_ms: some(rng, 50, 300), ..quick };
    let long = Shape { lines: some(rng, 10, 30), pause_ms: 250, ..quick };
    let big = Shape { size: some(rng, 5_000, 60_000), ..quick };
    let bulk = Shape { bulk: some(rng, 100_000, 1_000_000), ..quick };
    match aim {
        Aim::Lease => return Shape { lines: some(rng, 30, 45), ..long },
        Aim::Fence => return rng.pick(&[(1, slow), (1, quick), (1, long)]),
        Aim::StartCheck => return rng.pick(&[(1, slow), (2, quick)]),
        Aim::Everything => {}
    }
    let fails_until = some(rng, 2, 5);
    rng.pick(&[
        (44, quick),
        (18, slow),
        (5, long),
        (4, big),
        (3, bulk),
        (1, Shape { max_bytes: Some(300_000), ..bulk }),
        (1, Shape { max_bytes: Some(20_000), size: 60_000, ..quick }),
        (5, Shape { code: 3, ..quick }),
        (2, Shape { code: 9, retries: Retries::NotForThisCode, ..quick }),
        (7, Shape { fails_until, retries: Retries::Many, ..quick }),
        (2, Shape { fails_until, retries: Retries::Many, ..slow }),
        (2, Shape { fails_until: u32::MAX, retries: Retries::One, ..quick }),
        (4, Shape { extra: Extra::Leftover, ..slow }),
        (2, Shape { extra: Extra::Stubborn, ..long }),
        (2, Shape { extra: Extra::Hang, timeout_ms: Some(400), ..quick }),
        (2, Shape { once: true, ..slow }),
    ])
}

impl TaskPlan {
    /// The spec as it is submitted.
    pub(crate) fn spec(&self, mark: &str, side_file: &Path) -> TaskSpec {
        let shape = &self.shape;
        let extra = match shape.extra {
            Extra::None => "none",
            Extra::Leftover => "leftover",
            Extra::Stubborn => "stubborn",
            Extra::Hang => "hang",
        };
        let pause = match shape.pause_ms {
            0 => "0".to_owned(),
            ms => format!("{}.{:03}", ms / 1000, ms % 1000),
        };
        let (lines, size) = (shape.lines.to_string(), shape.size.to_string());
        let bulk = shape.bulk.to_string();
        let (until, code) = (shape.fails_until.to_string(), shape.code.to_string());
        let args = ["-c", SCRIPT, "chaos", &lines, &pause, extra, &size, &until, &code, &bulk];
        let mode = SubprocessMode::Command(CommandMode {
            command: "bash".to_owned(),
            args: args.map(str::to_owned).to_vec(),
        });
        let variable = |key: &str, value: String| EnvVar { key: key.to_owned(), value };
        let mut process = SubprocessSpec::new(mode);
        process.env = vec![
            variable(MARK, mark.to_owned()),
            variable("CHAOS_LOG", side_file.display().to_string()),
        ];
        let mut spec = TaskSpec::new(TaskKind::Subprocess(process));
        spec.id = Some(self.id.clone());
        spec.timeout = shape.timeout_ms;
        spec.grace_ms = Some(300);
        spec.max_worker_losses = shape.max_losses;
        spec.backoff = Backoff { jitter: Jitter::Full, first_ms: 100, max_ms: 1000, factor: 2.0 };
        spec.output = Some(OutputSpec {
            max_bytes: shape.max_bytes,
            compression: (shape.bulk > 0).then_some(Compression::Lz4),
        });
        if shape.once {
            spec.on_worker_lost = OnWorkerLost::Fail;
        }
        if shape.retries != Retries::No {
            spec.restart = Restart::OnFailure;
            spec.max_retries = if shape.retries == Retries::One { 1 } else { 50 };
        }
        if shape.retries == Retries::NotForThisCode {
            spec.no_retry_exit_codes = vec![shape.code];
        }
        spec
    }

    pub(crate) fn payload(&self, mark: &str, side_file: &Path) -> Vec<u8> {
        canonical(&self.spec(mark, side_file))
    }

    /// All that an attempt writes to a stream if nobody stops it.
    pub(crate) fn output(&self, attempt: u32, stream: Stream) -> Vec<u8> {
        let mut text = String::new();
        for line in 0..self.shape.lines {
            let (word, printed) = match stream {
                Stream::Stdout => ("line", true),
                Stream::Stderr => ("error", line % 3 == 0),
            };
            if printed {
                writeln!(text, "{} {attempt} {word} {line}", self.id).expect("memory takes it");
            }
        }
        if stream == Stream::Stdout {
            for number in 1..=self.shape.size {
                writeln!(text, "{number}").expect("memory takes it");
            }
            let line = format!("{} {attempt} bulk\n", self.id);
            text.extend(line.chars().cycle().take(self.shape.bulk as usize));
        }
        text.into_bytes()
    }
}

impl Shape {
    /// How an attempt ends if nobody disturbs it.
    pub(crate) fn natural_end(&self, attempt: u32) -> Natural {
        match self.extra {
            Extra::Hang => Natural::Timeout,
            Extra::None | Extra::Leftover | Extra::Stubborn if attempt < self.fails_until => {
                Natural::Exit(TRY_AGAIN)
            }
            Extra::None | Extra::Leftover | Extra::Stubborn => Natural::Exit(self.code),
        }
    }

    /// The phase of a task that ends with an undisturbed attempt, after so many failures before it;
    /// `None` if another attempt has to follow.
    pub(crate) fn phase(&self, attempt: u32, failures: u32) -> Option<Phase> {
        match (self.natural_end(attempt), self.retries) {
            (Natural::Timeout, _) => Some(Phase::Timeout),
            (Natural::Exit(0), _) => Some(Phase::Succeeded),
            (Natural::Exit(_), Retries::No | Retries::NotForThisCode) => Some(Phase::Failed),
            (Natural::Exit(_), Retries::One) => (failures >= 1).then_some(Phase::Exhausted),
            (Natural::Exit(_), Retries::Many) => (failures >= 50).then_some(Phase::Exhausted),
        }
    }

    /// Workers that may be lost before the task is.
    pub(crate) fn losses_allowed(&self) -> u32 {
        if self.once { 0 } else { self.max_losses }
    }
}
