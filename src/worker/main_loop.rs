//! The loop that owns the worker's state: which tasks run here, and whether new ones are taken.
//!
//! ```text
//!   intake ──► tasks ─┐                      ┌─► start: spawn a run, or let it wait for a place
//!   cancels ──────────┼─► one select, one ───┼─► stop: tell a run to end, with the reason
//!   ended runs ───────┤   line per arm       ├─► finish: free the place
//!   slot places ──────┤                      ├─► places: who runs, who only waits for a slot
//!   starts ───────────┤                      ├─► rest: none for a while, if this host starts none
//!   control requests ─┤                      ├─► answer: pause, resume, drain, "do you hold it?"
//!   drain requests ───┘                      └─► drain: no new tasks, then stop those that run
//! ```
//!
//! It never awaits the network or a process: what has to wait runs in `runs` (tasks) or `answers`
//! (that nobody waits for). Both are joined here, so nothing outlives the loop.

mod ending;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, Interval, sleep_until};

use super::ahead::{Ahead, Fetched};
use super::answers::Answers;
use super::drain::{Drain, Report};
use super::places::{Ask, Places};
use super::prepare;
use super::presence::PresenceWriter;
use super::rest::{Rest, Start};
use super::run::{self, RunInputs};
use super::shared::Shared;
use super::stop::canceled;
use crate::exec::{Stop, set_stop};
use crate::nats::{AckHandle, Cancels, Incoming, Pulled, Room, Subscription};
use crate::telemetry::metrics;
use crate::wire::{CancelRequest, ControlReply, ControlRequest, TaskId, WorkerState};

/// How long a delivery that came too late for its run stays away.
const LATE_DELAY: Duration = Duration::from_millis(20);
/// How long a second message of a task that is dealt with here stays away.
const DUPLICATE_DELAY: Duration = Duration::from_secs(1);

/// What the loop needs.
pub(super) struct LoopParts {
    pub(super) shared: Arc<Shared>,
    pub(super) capacity: usize,
    pub(super) drain_timeout: Duration,
    pub(super) room: watch::Sender<Room>,
    pub(super) crowded: watch::Sender<bool>,
    pub(super) closing: watch::Sender<bool>,
    pub(super) pulled: mpsc::Receiver<Pulled>,
    pub(super) cancels: Cancels,
    pub(super) control: Subscription,
    pub(super) asks: mpsc::Receiver<Ask>,
    pub(super) starts: mpsc::Receiver<Start>,
    pub(super) in_doubt: watch::Sender<bool>,
    pub(super) drain: watch::Receiver<Drain>,
    pub(super) presence: PresenceWriter,
    pub(super) presence_tick: Interval,
}

/// A task that runs here.
struct Active {
    queue_seq: u64,
    handle: watch::Sender<AckHandle>,
    used: watch::Receiver<AckHandle>,
    stop: watch::Sender<Option<Stop>>,
    since: Instant,
}

pub(super) struct MainLoop {
    parts: LoopParts,
    active: HashMap<TaskId, Active>,
    places: Places,
    ahead: Ahead,
    rest: Rest,
    runs: JoinSet<run::RunEnd>,
    tasks_of_runs: HashMap<Id, TaskId>,
    answers: Answers,
    pulling: bool,
    /// Messages that the intake passed on.
    taken: u64,
    paused: bool,
    drain: Drain,
    /// When the next, more urgent step of a drain is due.
    deadline: Option<Instant>,
    report: Report,
}

impl MainLoop {
    pub(super) fn new(parts: LoopParts) -> Self {
        metrics::capacity(parts.capacity);
        let (places, ahead) = (Places::new(parts.capacity), Ahead::new(parts.capacity));
        let answers = Answers::new(parts.shared.bus.clone());
        let rest = Rest::new(parts.capacity);
        Self {
            parts,
            active: HashMap::new(),
            places,
            ahead,
            rest,
            runs: JoinSet::new(),
            tasks_of_runs: HashMap::new(),
            answers,
            pulling: true,
            taken: 0,
            paused: false,
            drain: Drain::No,
            deadline: None,
            report: Report::default(),
        }
    }

    /// Runs until the worker is drained, or its connection is closed.
    pub(super) async fn run(mut self) -> Report {
        while self.drain == Drain::No || !self.active.is_empty() {
            self.fill_places();
            self.tell_room();
            let (deadline, patience) = (self.deadline, self.ahead.deadline());
            let rested = self.rest.until();
            // Cancel safe: a joined run, a message, a change and a tick stay where they are until taken.
            tokio::select! {
                Some(ended) = self.runs.join_next_with_id() => self.finish(ended),
                Some(()) = self.answers.join_next() => {}
                pulled = self.parts.pulled.recv(), if self.pulling => self.on_pulled(pulled),
                Some(ask) = self.parts.asks.recv() => self.on_ask(ask),
                Some(start) = self.parts.starts.recv() => self.on_start(&start),
                Some((id, request)) = self.parts.cancels.next() => self.cancel(&id, request),
                Some(request) = self.parts.control.next() => self.on_control(&request),
                Ok(()) = self.parts.drain.changed() => self.on_drain_request(),
                () = at(deadline), if deadline.is_some() => self.on_deadline(),
                () = at(patience), if patience.is_some() => self.hand_back_waiting(),
                () = at(rested), if rested.is_some() => self.on_rested(),
                _ = self.parts.presence_tick.tick() => {
                    self.announce();
                    self.parts.shared.spawner.trim();
                }
            }
        }
        self.leave().await
    }

    fn fill_places(&mut self) {
        while self.room() > 0
            && let Some(fetched) = self.ahead.pop()
        {
            self.start(fetched);
        }
    }

    /// Whoever has a place may have these.
    fn hand_back_waiting(&mut self) {
        for fetched in self.ahead.give_up() {
            if fetched.is_ours(self.parts.shared.lease_of(&fetched.delivery.lane)) {
                self.answers.hand_back(fetched.delivery.handle, Duration::ZERO);
            }
        }
    }

    /// Places that can be filled now.
    fn room(&self) -> usize {
        self.rest.room(self.places.room())
    }

    fn tell_room(&self) {
        let in_doubt = self.rest.is_in_doubt();
        let free = match self.drain {
            Drain::No if self.paused => 0,
            Drain::No if in_doubt => self.room(),
            Drain::No => self.ahead.room(self.places.room()),
            Drain::Wait | Drain::Stop | Drain::Kill => 0,
        };
        metrics::tasks_running(self.places.running());
        let is_urgent = self.places.room() > 0;
        let room = Room { free, taken: self.taken, is_urgent };
        self.parts.room.send_if_modified(|known| std::mem::replace(known, room) != room);
        let crowded = self.places.room() == 0 && self.ahead.are_short();
        self.parts.crowded.send_if_modified(|known| std::mem::replace(known, crowded) != crowded);
        self.parts
            .in_doubt
            .send_if_modified(|known| std::mem::replace(known, in_doubt) != in_doubt);
    }

    fn on_ask(&mut self, ask: Ask) {
        if let Ask::Wait(id, _) = &ask {
            self.rest.leaves(id);
        }
        self.places.on(ask);
    }

    fn on_start(&mut self, start: &Start) {
        if start.succeeded {
            self.rest.started(&start.task);
        } else if let Some(length) = self.rest.failed(&start.task) {
            tracing::warn!(?length, "this host can't start tasks: none is taken for a while");
            self.hand_back_waiting();
            self.announce();
        }
    }

    fn on_rested(&mut self) {
        self.rest.wake();
        self.announce();
    }

    fn on_pulled(&mut self, pulled: Option<Pulled>) {
        self.taken += u64::from(pulled.is_some());
        match pulled {
            Some(Pulled::Task(delivery)) => {
                // A redelivery of what waits here takes its place.
                self.ahead.remove(&delivery);
                self.start(Fetched::now(delivery));
            }
            Some(Pulled::Stray(stray)) => self.answers.refuse(stray),
            // The intake has ended: because we do, or because the connection is closed for good.
            None => {
                self.pulling = false;
                if self.drain == Drain::No {
                    self.on_drain(Drain::Stop);
                }
            }
        }
    }

    fn start(&mut self, mut fetched: Fetched) {
        let delivery = &fetched.delivery;
        if let Some(active) = self.active.get(&delivery.id) {
            let handle = delivery.handle.clone();
            if active.queue_seq == delivery.queue_seq {
                // A redelivery of what runs here: the run goes on with the newer delivery.
                tracing::warn!(task = %delivery.id, "a task that runs here was delivered again");
                active.handle.send_replace(handle);
            } else {
                // Another message of the same task. Whether it may be dropped is for the chain to say,
                // and the run here may be about to end without having taken the task: it may be moving
                // it to its lane.
                self.answers.hand_back(handle, DUPLICATE_DELAY);
            }
            return;
        }
        let takes = !self.paused && self.drain == Drain::No;
        if takes && self.room() > 0 {
            self.run_task(fetched);
        } else if takes && !self.rest.is_in_doubt() && self.ahead.has_room() {
            let prepared = prepare::prepare_ahead(&self.parts.shared, &fetched.delivery);
            fetched.prepared = Some(Box::new(prepared));
            self.ahead.push(fetched);
        } else {
            // The intake does not ask for it again before there is room; another worker gets it at once.
            self.answers.hand_back(fetched.delivery.handle, Duration::ZERO);
        }
    }

    fn run_task(&mut self, Fetched { delivery, prepared, at: received, .. }: Fetched) {
        let (stop, stop_rx) = watch::channel(None);
        let (handle, handle_rx) = watch::channel(delivery.handle.clone());
        let (used_tx, used) = watch::channel(delivery.handle.clone());
        let (id, queue_seq, since) = (delivery.id.clone(), delivery.queue_seq, Instant::now());
        let active = Active { queue_seq, handle, used, stop: stop.clone(), since };
        let shared = Arc::clone(&self.parts.shared);
        let inputs = RunInputs {
            delivery,
            prepared,
            received,
            handle: handle_rx,
            used: used_tx,
            stop,
            stop_rx,
        };
        let run = self.runs.spawn(run::run(shared, inputs));
        self.tasks_of_runs.insert(run.id(), id.clone());
        self.rest.enters(&id);
        self.active.insert(id, active);
        self.places.enter();
    }

    fn cancel(&mut self, id: &TaskId, request: CancelRequest) {
        let Some(active) = self.active.get(id) else { return };
        tracing::info!(task = %id, by = request.by.as_deref(), "cancel requested");
        metrics::canceled();
        set_stop(&active.stop, canceled(request));
    }

    fn finish(&mut self, ended: Result<(Id, run::RunEnd), JoinError>) {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let Some(task) = self.tasks_of_runs.remove(&id) else { return };
        // What it asked for before it ended comes first.
        while let Ok(ask) = self.parts.asks.try_recv() {
            self.on_ask(ask);
        }
        while let Ok(start) = self.parts.starts.try_recv() {
            self.on_start(&start);
        }
        if let Some(active) = self.active.remove(&task) {
            self.ahead.ran(active.since.elapsed());
            self.answer_late_delivery(&active);
        }
        self.places.leave(&task);
        self.rest.leaves(&task);
        match ended {
            Ok((_, run::RunEnd::Requeued)) => self.report.requeued += 1,
            Ok((_, run::RunEnd::Done)) => {}
            Err(error) if error.is_cancelled() => {}
            // The place is free again, and the task comes back when its lease is over.
            Err(error) => {
                tracing::error!(%task, %error, "a run panicked; please report this as a bug");
                metrics::runner_error("panic");
            }
        }
    }

    /// A delivery that came after its run had answered another one: the task was handed back and came
    /// to us again before the run was joined.
    fn answer_late_delivery(&mut self, active: &Active) {
        let newest = active.handle.borrow().clone();
        if newest != *active.used.borrow() {
            self.answers.hand_back(newest, LATE_DELAY);
        }
    }

    /// Answers an operator's request after doing what it asks, or another worker's question.
    fn on_control(&mut self, message: &Incoming) {
        let (holds, error) = match serde_json::from_slice(&message.payload) {
            Ok(ControlRequest::Holds { task, queue_seq }) => {
                (Some(self.active.get(&task).is_some_and(|run| run.queue_seq == queue_seq)), None)
            }
            Ok(request) => (None, self.obey(&request).err()),
            Err(error) => (None, Some(format!("the request is not understood: {error}"))),
        };
        let reply = ControlReply {
            state: self.state(),
            running: u32::try_from(self.active.len()).unwrap_or(u32::MAX),
            holds,
            error,
        };
        self.answers.reply(message, &reply);
    }

    fn obey(&mut self, request: &ControlRequest) -> Result<(), String> {
        tracing::info!(?request, "an operator asks");
        match request {
            ControlRequest::Pause {} | ControlRequest::Resume {} if self.drain != Drain::No => {
                return Err("it is draining, which can't be taken back".to_owned());
            }
            ControlRequest::Pause {} => {
                self.paused = true;
                self.hand_back_waiting();
            }
            ControlRequest::Resume {} => self.paused = false,
            ControlRequest::Drain { deadline_ms } => {
                if let Some(deadline) = deadline_ms.map(Duration::from_millis) {
                    self.parts.drain_timeout = deadline;
                }
                self.on_drain(Drain::Wait);
                if self.drain == Drain::Wait {
                    // A second request moves the deadline.
                    self.deadline = Some(Instant::now() + self.parts.drain_timeout);
                }
            }
            ControlRequest::Holds { .. } => {}
        }
        self.announce();
        Ok(())
    }

    fn state(&self) -> WorkerState {
        match self.drain {
            Drain::Wait | Drain::Stop | Drain::Kill => WorkerState::Draining,
            Drain::No if self.paused => WorkerState::Paused,
            Drain::No if self.rest.until().is_some() => WorkerState::Resting,
            Drain::No => WorkerState::Ready,
        }
    }

    fn announce(&mut self) {
        self.parts.presence.set_state(self.state());
        let announce = self.parts.presence.announcement(self.places.running());
        self.answers.spawn(announce);
    }
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
