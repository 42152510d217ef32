//! When a worker's host can't start tasks, the worker stays away from them for a while: out of process
//! ids, of memory, of disk space, it would otherwise take task after task from workers that could.
//!
//! ```text
//!                     the third start in a row that failed
//!   well ───────────────────────────────────────────────────────────────► resting ◄──┐
//!     ▲                                                                      │ 1 s … 30 s, doubled
//!     │    as many were started as run at once                               ▼       │
//!     └────────────────────────────────────────────────────────────────── trying ────┘
//!                                                                one at a time   another could not
//! ```

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::wire::TaskId;

/// Starts that fail one after the other until the worker rests: it may have been a moment's lack.
const TOLERATED: u32 = 3;
/// The first rest; each that follows is twice as long.
const FIRST: Duration = Duration::from_secs(1);
/// The longest rest, and the longest trial: a start that hangs must not keep the others away.
const LONGEST: Duration = Duration::from_secs(30);

/// Starts that the loop has not heard of yet; one that finds no room is not counted.
const STARTS: usize = 64;

/// What came of starting a task.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) task: TaskId,
    /// False: it could not be started here and now.
    pub(super) succeeded: bool,
}

/// Makes the way from the runs to the loop.
pub(super) fn starts() -> (mpsc::Sender<Start>, mpsc::Receiver<Start>) {
    mpsc::channel(STARTS)
}

/// Whether tasks are taken, as far as this host can start them.
#[derive(Debug)]
pub(super) struct Rest {
    capacity: usize,
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// So many starts have failed since the last one that didn't.
    Well {
        failed: u32,
    },
    Resting {
        until: Instant,
        length: Duration,
    },
    /// So many starts are still to succeed; the task that is being tried, and since when.
    Trying {
        left: usize,
        trial: Option<(TaskId, Instant)>,
        length: Duration,
    },
}

impl Rest {
    pub(super) fn new(capacity: usize) -> Self {
        Self { capacity, state: State::Well { failed: 0 } }
    }

    /// How many of the free places may be filled now.
    pub(super) fn room(&self, free: usize) -> usize {
        match &self.state {
            State::Well { .. } => free,
            State::Resting { .. } => 0,
            State::Trying { trial: Some((_, since)), .. } if since.elapsed() < LONGEST => 0,
            State::Trying { .. } => free.min(1),
        }
    }

    /// Whether it matters that a start succeeds: else nobody need say so.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.state != State::Well { failed: 0 }
    }

    /// When [`Self::wake`] has something to do.
    pub(super) fn until(&self) -> Option<Instant> {
        match self.state {
            State::Resting { until, .. } => Some(until),
            State::Well { .. } | State::Trying { .. } => None,
        }
    }

    /// The rest is over.
    pub(super) fn wake(&mut self) {
        if let State::Resting { length, .. } = self.state {
            self.state = State::Trying { left: self.capacity, trial: None, length };
        }
    }

    /// A task is about to be started.
    pub(super) fn enters(&mut self, id: &TaskId) {
        if let State::Trying { trial, .. } = &mut self.state {
            *trial = Some((id.clone(), Instant::now()));
        }
    }

    /// A task was started.
    pub(super) fn started(&mut self, id: &TaskId) {
        match &mut self.state {
            State::Well { failed } => *failed = 0,
            // It was taken before.
            State::Resting { .. } => {}
            State::Trying { left, trial, .. } => {
                *left = left.saturating_sub(1);
                trial.take_if(|(trial, _)| trial == id);
                if *left == 0 {
                    self.state = State::Well { failed: 0 };
                }
            }
        }
    }

    /// A task could not be started. Returns for how long none is taken, if that is new.
    pub(super) fn failed(&mut self, id: &TaskId) -> Option<Duration> {
        let length = match &mut self.state {
            State::Well { failed } => {
                *failed += 1;
                if *failed < TOLERATED {
                    return None;
                }
                FIRST
            }
            State::Trying { trial: Some((trial, _)), length, .. } if trial == id => {
                LONGEST.min(*length * 2)
            }
            // It was taken before, or waited for its slot: it is no trial.
            State::Resting { .. } | State::Trying { .. } => return None,
        };
        self.state = State::Resting { until: Instant::now() + length, length };
        Some(length)
    }

    /// A task has gone, started or not, or waits for its slot.
    pub(super) fn leaves(&mut self, id: &TaskId) {
        if let State::Trying { trial, .. } = &mut self.state {
            trial.take_if(|(trial, _)| trial == id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> TaskId {
        text.parse().expect("a valid id")
    }

    fn failing(times: usize, rest: &mut Rest) -> Vec<Option<Duration>> {
        std::iter::repeat_with(|| rest.failed(&id("any"))).take(times).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn starts_that_fail_between_others_are_their_tasks_matter() {
        let mut rest = Rest::new(8);
        assert!(!rest.is_in_doubt());
        for _ in 0..10 {
            assert_eq!(failing(2, &mut rest), [None, None]);
            assert!(rest.is_in_doubt());
            rest.started(&id("good"));
            assert_eq!((rest.room(8), rest.is_in_doubt()), (8, false));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_starts_nothing_gets_one_task_for_each_rest_and_they_grow() {
        let mut rest = Rest::new(8);
        // Those that were under way together count once.
        assert_eq!(failing(5, &mut rest), [None, None, Some(FIRST), None, None]);
        for length in [1, 2, 4, 8, 16, 30, 30] {
            let until = rest.until().expect("it rests");
            assert_eq!(until - Instant::now(), Duration::from_secs(length));
            assert_eq!(rest.room(8), 0);
            tokio::time::advance(Duration::from_secs(length)).await;
            rest.wake();
            assert_eq!((rest.room(8), rest.room(0)), (1, 0));
            rest.enters(&id("trial"));
            assert_eq!(rest.room(7), 0, "one at a time");
            assert_eq!(rest.failed(&id("older")), None);
            assert!(rest.failed(&id("trial")).is_some());
            rest.leaves(&id("trial"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_well_again_when_as_many_were_started_as_run_at_once() {
        let mut rest = Rest::new(3);
        failing(3, &mut rest);
        rest.started(&id("older"));
        assert_eq!(rest.room(3), 0, "what was taken before ends no rest");
        rest.wake();
        for (number, left) in [("1", 1), ("2", 1), ("3", 3)] {
            rest.enters(&id(number));
            rest.started(&id(number));
            assert_eq!(rest.room(3), left, "{number}");
        }
        assert!(!rest.is_in_doubt());
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_that_ends_without_a_start_makes_room_for_another() {
        let mut rest = Rest::new(3);
        failing(3, &mut rest);
        rest.wake();
        rest.enters(&id("canceled"));
        rest.leaves(&id("canceled"));
        assert_eq!(rest.room(3), 1);
        rest.enters(&id("hangs"));
        tokio::time::advance(LONGEST - Duration::from_millis(1)).await;
        assert_eq!(rest.room(2), 0);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(rest.room(2), 1);
    }
}
