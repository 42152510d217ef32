//! Who takes run capacity here, and who only waits for a slot. The loop owns it; nothing here waits.
//!
//! ```text
//!              wait: while a waiting place is free
//!   Running ──────────────────────────────────────► Waiting
//!      ▲                                               │ run: it is the task's turn
//!      └───────── a run place is free ◄──── Returning ◄┘
//! ```
//!
//! A returning task comes before new ones: no message is pulled for a place that one waits for. A task
//! whose processes have ended takes no run place any more: the next one starts while its end is stored.

use std::collections::{HashSet, VecDeque};

use tokio::sync::{mpsc, oneshot};

use crate::wire::TaskId;

/// Waiting places per run place, and at least.
const WAITING_PER_RUN: usize = 4;
const LEAST_WAITING: usize = 16;
/// Ends that may be stored at once beside those that run, at least: one that waits for company must not keep
/// a place.
const LEAST_OVER: usize = 8;
/// Requests on their way to the loop; a run waits when they are full, which delays only itself.
const ASKS: usize = 64;

/// A run's wish to change its place.
#[derive(Debug)]
pub(super) enum Ask {
    /// It waits for a slot: the answer says whether there is a waiting place for it.
    Wait(TaskId, oneshot::Sender<bool>),
    /// It could have its slot now: the answer comes when it may run. Dropping the other end takes
    /// the wish back.
    Run(TaskId, oneshot::Sender<()>),
    /// Its processes have ended; what follows only records that.
    Over(TaskId),
}

/// Makes the way from the runs to the loop.
pub(super) fn asks() -> (mpsc::Sender<Ask>, mpsc::Receiver<Ask>) {
    mpsc::channel(ASKS)
}

/// The places of one worker.
#[derive(Debug)]
pub(super) struct Places {
    capacity: usize,
    // All tasks here, in both sorts of places; the loop says when one comes and goes.
    here: usize,
    waiting: HashSet<TaskId>,
    // As many as run at most, or a few: while the server is away, ends must not pile up.
    over: HashSet<TaskId>,
    returning: VecDeque<(TaskId, oneshot::Sender<()>)>,
    closing: bool,
}

impl Places {
    pub(super) fn new(capacity: usize) -> Self {
        let (waiting, over, returning) = (HashSet::new(), HashSet::new(), VecDeque::new());
        Self { capacity, here: 0, waiting, over, returning, closing: false }
    }

    /// Tasks that take run capacity.
    pub(super) fn running(&self) -> usize {
        self.here - self.waiting.len() - self.over.len()
    }

    /// Run places that are free and that nobody here waits for.
    pub(super) fn room(&self) -> usize {
        if self.closing {
            return 0;
        }
        self.capacity.saturating_sub(self.running() + self.returning.len())
    }

    /// Whether a task waits for its slot.
    pub(super) fn is_waiting(&self, id: &TaskId) -> bool {
        self.waiting.contains(id)
    }

    /// A task has come, and takes a run place.
    pub(super) fn enter(&mut self) {
        self.here += 1;
    }

    /// A task has gone; no ask of it comes after this.
    pub(super) fn leave(&mut self, id: &TaskId) {
        self.here -= 1;
        self.waiting.remove(id);
        self.over.remove(id);
        self.returning.retain(|(returning, _)| returning != id);
        self.give();
    }

    /// From now on nobody gets a place.
    pub(super) fn close(&mut self) {
        self.closing = true;
        self.returning.clear();
    }

    /// Answers a wish, at once or later.
    pub(super) fn on(&mut self, ask: Ask) {
        match ask {
            Ask::Wait(id, reply) => {
                let most = (self.capacity * WAITING_PER_RUN).max(LEAST_WAITING);
                let granted = !self.closing && self.waiting.len() < most;
                // An error means that the run has ended; then it leaves in a moment.
                if reply.send(granted).is_ok() && granted {
                    self.waiting.insert(id);
                }
            }
            Ask::Run(id, reply) if !self.closing => self.returning.push_back((id, reply)),
            Ask::Over(id) => {
                if self.over.len() < self.capacity.max(LEAST_OVER) {
                    self.over.insert(id);
                }
            }
            // Dropped: the run hears that it gets none.
            Ask::Run(_, _) => {}
        }
        self.give();
    }

    fn give(&mut self) {
        self.returning.retain(|(_, reply)| !reply.is_closed());
        while self.running() < self.capacity {
            let Some((id, reply)) = self.returning.pop_front() else { return };
            if reply.send(()).is_ok() {
                self.waiting.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: usize) -> TaskId {
        format!("t{n}").parse().expect("a valid id")
    }

    fn wait(places: &mut Places, n: usize) -> bool {
        let (tx, mut rx) = oneshot::channel();
        places.on(Ask::Wait(id(n), tx));
        rx.try_recv().expect("the answer comes at once")
    }

    fn run(places: &mut Places, n: usize) -> oneshot::Receiver<()> {
        let (tx, rx) = oneshot::channel();
        places.on(Ask::Run(id(n), tx));
        rx
    }

    #[test]
    fn a_waiting_task_takes_no_run_place_and_gets_one_before_new_tasks_do() {
        let mut places = Places::new(1);
        places.enter();
        assert_eq!(places.room(), 0);
        assert!(wait(&mut places, 1));
        assert_eq!((places.running(), places.room()), (0, 1));
        places.enter();
        let mut granted = run(&mut places, 1);
        assert!(granted.try_recv().is_err(), "the place is taken");
        places.leave(&id(2));
        assert!(granted.try_recv().is_ok());
        assert_eq!((places.running(), places.room(), places.is_waiting(&id(1))), (1, 0, false));
    }

    #[test]
    fn waiting_places_are_bounded() {
        let mut places = Places::new(1);
        for n in 0..LEAST_WAITING {
            places.enter();
            assert!(wait(&mut places, n), "{n}");
        }
        places.enter();
        assert!(!wait(&mut places, LEAST_WAITING));
        assert_eq!((places.running(), places.room()), (1, 0));
    }

    #[test]
    fn a_wish_that_was_taken_back_holds_no_place() {
        let mut places = Places::new(1);
        places.enter();
        assert!(wait(&mut places, 1));
        places.enter();
        drop(run(&mut places, 1));
        places.leave(&id(2));
        assert_eq!((places.room(), places.is_waiting(&id(1))), (1, true));
    }

    #[test]
    fn a_task_that_is_over_makes_room_once_and_a_bounded_number_of_them() {
        let mut places = Places::new(1);
        for n in 0..LEAST_OVER {
            places.enter();
            assert_eq!((places.running(), places.room()), (1, 0), "{n}");
            places.on(Ask::Over(id(n)));
            assert_eq!((places.running(), places.room()), (0, 1), "{n}");
        }
        places.enter();
        places.on(Ask::Over(id(LEAST_OVER)));
        assert_eq!((places.running(), places.room()), (1, 0), "too many ends aren't stored yet");
        places.leave(&id(0));
        assert_eq!((places.running(), places.room()), (1, 0));
        places.leave(&id(LEAST_OVER));
        assert_eq!((places.running(), places.room()), (0, 1));
    }

    #[test]
    fn nobody_gets_a_place_at_a_worker_that_ends() {
        let mut places = Places::new(2);
        places.enter();
        assert!(wait(&mut places, 1));
        places.close();
        assert!(run(&mut places, 1).try_recv().is_err());
        places.enter();
        assert!(!wait(&mut places, 2));
        assert_eq!(places.room(), 0);
    }
}
