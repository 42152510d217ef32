//! Pulls tasks from the lanes that this worker serves, never more than there is room for.
//!
//! ```text
//!              room, or the lane is new
//!    Idle ────────────────────────────────► Waiting{batch, heard}
//!     ▲  all delivered, 404 dry, 408 expired  │      │ silent for two heartbeats, or reconnected
//!     ├───────────────────────────────────────┘      │ (the server forgot the pull: rebuild it)
//!     │                                              ▼
//!     └───────── pause is over ◄───────────────── Paused{until} ◄── 409, 503, denied
//! ```
//!
//! One pull per lane is open at a time. A lane that had more tasks than there was room for is *hot*: hot
//! lanes share the room in turn, so that none starves another, and their pulls don't wait, so that one
//! that ran dry, because others have served it, gives its share back at once. A lane that ran dry always
//! has a waiting pull, for its share of the room and at least one task, so that its next task starts at
//! once. So each lane may bring one in excess when many get tasks at once. The worker's loop hands it
//! back at once, and the lane is hot by it: it isn't asked again before there is room.
//!
//! Nothing is asked while the server is away: it would wait in the client library, and arrive with all that
//! was asked in vain before.
//!
//! The client library's own pull streams stall or lose messages when they ask for few messages, and
//! after reconnects; see docs/decisions.md.

mod lane;
mod shares;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_nats::StatusCode;
use futures_util::StreamExt as _;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use self::lane::{Lane, Pull, denied};
use self::shares::heartbeat;
use super::delivery::{self, Delivery, Stray};
use super::link::{Link, LinkState};
use super::{Bus, BusError};
use crate::telemetry::metrics;
use crate::wire::LaneId;

/// How long the server keeps a pull open.
const EXPIRES: Duration = Duration::from_secs(30);
/// A pull counts as forgotten after two heartbeats and this much more of silence.
const SLACK: Duration = Duration::from_secs(1);
/// Pause after the server could not serve a pull.
const PAUSE: Duration = Duration::from_millis(250);
/// How long the end waits for a server that does not answer.
const CLOSING_WAIT: Duration = Duration::from_secs(1);
/// How often pulls are looked over.
const LOOK_OVER: Duration = Duration::from_millis(250);

/// What the worker tells its intake.
#[derive(Debug, Clone)]
pub struct IntakeInputs {
    /// Lanes to pull from.
    pub lanes: watch::Receiver<BTreeSet<LaneId>>,
    /// Free places.
    pub room: watch::Receiver<Room>,
    /// The connection: each reconnect makes all open pulls void.
    pub link: watch::Receiver<Link>,
    /// Turns true when the worker ends. Pulls are taken back then, and what the server had sent
    /// already is still passed on, so that it can be handed back at once.
    pub closing: watch::Receiver<bool>,
    /// Told of each lane whose pull the server can't serve: its consumer may be gone.
    pub doubts: mpsc::Sender<LaneId>,
}

/// Free places of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    /// How many tasks it can take.
    pub free: usize,
    /// How many messages of the intake this number accounts for; the others are still on their way.
    pub taken: u64,
    /// Whether a place is empty: then it is asked for at once, and with the next request otherwise.
    pub is_urgent: bool,
}

/// What the intake tells the worker.
#[derive(Debug)]
pub enum Pulled {
    /// A task.
    Task(Delivery),
    /// Something in the queue that is not a task.
    Stray(Stray),
}

/// Whether the pull loop works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PullHealth {
    /// Every lane that should have an open pull was heard of lately.
    pub pulling: bool,
    /// Pulls that were rebuilt because the server had forgotten them.
    pub rebuilt: u64,
}

/// The pull loop of one worker.
pub struct Intake {
    bus: Bus,
    inputs: IntakeInputs,
    inbox: String,
    lanes: BTreeMap<LaneId, Lane>,
    pulls: u64,
    /// Messages passed on to the worker.
    passed: u64,
    reconnects: u64,
    last_hot: Option<LaneId>,
    // Bounded by the worker's capacity: when it is full, the worker is behind, and we stop reading.
    tasks: mpsc::Sender<Pulled>,
    health: watch::Sender<PullHealth>,
}

#[derive(Serialize)]
struct PullRequest {
    batch: usize,
    #[serde(flatten)]
    wait: Option<Wait>,
    no_wait: bool,
}

/// In nanoseconds.
#[derive(Serialize)]
struct Wait {
    expires: u128,
    idle_heartbeat: u128,
}

impl Intake {
    /// Makes the loop; nothing is pulled before `run`.
    pub fn new(
        bus: Bus,
        inputs: IntakeInputs,
        tasks: mpsc::Sender<Pulled>,
        health: watch::Sender<PullHealth>,
    ) -> Self {
        let inbox = bus.client().new_inbox();
        let lanes = BTreeMap::new();
        let reconnects = inputs.link.borrow().reconnects;
        Self {
            bus,
            inputs,
            inbox,
            lanes,
            pulls: 0,
            passed: 0,
            reconnects,
            last_hot: None,
            tasks,
            health,
        }
    }

    /// Pulls until the worker closes it, or drops its end of the channel.
    pub async fn run(mut self) -> Result<(), BusError> {
        let subject = format!("{}.*", self.inbox);
        let subscribed = self.bus.client().subscribe(subject).await;
        let mut inbox = subscribed.map_err(|error| BusError::Broken(error.to_string()))?;
        let mut look_over = interval(LOOK_OVER);
        look_over.set_missed_tick_behavior(MissedTickBehavior::Delay);
        self.inputs.lanes.mark_changed();
        loop {
            // Cancel safe: a message stays in the subscription, a change in its watch, until taken.
            tokio::select! {
                message = inbox.next() => match message {
                    Some(message) => self.on_message(message).await,
                    None => return Err(BusError::Broken("the connection is closed".into())),
                },
                Ok(()) = self.inputs.lanes.changed() => self.on_lanes(),
                Ok(()) = self.inputs.room.changed() => {}
                Ok(()) = self.inputs.link.changed() => self.on_link(),
                Ok(()) = self.inputs.closing.changed() => return self.close(inbox).await,
                _ = look_over.tick() => self.look_over(),
                () = self.tasks.closed() => return Ok(()),
            }
            // The library's queue may be full, after a long time without a server.
            let mut closing = self.inputs.closing.clone();
            // Cancel safe: the pulls that were asked for are all that is forgotten, at the end.
            tokio::select! {
                biased;
                pulled = self.pull() => pulled?,
                _ = closing.wait_for(|closing| *closing) => {}
            }
        }
    }

    /// Without a listener the server forgets our pulls; what it sent before it knew still comes.
    async fn close(mut self, mut inbox: async_nats::Subscriber) -> Result<(), BusError> {
        match timeout(CLOSING_WAIT, inbox.drain()).await {
            Ok(drained) => drained.map_err(|error| BusError::Broken(error.to_string()))?,
            // There is no server to send anything.
            Err(_) => return Ok(()),
        }
        while let Ok(Some(message)) = timeout(CLOSING_WAIT, inbox.next()).await {
            self.on_message(message).await;
        }
        Ok(())
    }

    async fn on_message(&mut self, message: async_nats::Message) {
        match message.status {
            Some(status) => self.on_status(&message.subject, status),
            None => self.on_delivery(message).await,
        }
    }

    async fn on_delivery(&mut self, message: async_nats::Message) {
        let Some(read) = delivery::read(&self.bus, message) else { return };
        let has_room = self.room() > 0;
        // What can never be a task is a message of its pull all the same.
        let (lane, pending) = match &read {
            Ok(delivery) => (Some(delivery.lane.clone()), delivery.pending),
            Err(stray) => (stray.lane.clone(), stray.pending),
        };
        if let Some(lane) = lane {
            self.count(&lane, pending, has_room);
        }
        let pulled = read.map_or_else(Pulled::Stray, Pulled::Task);
        self.passed += 1;
        if self.tasks.send(pulled).await.is_err() {
            tracing::debug!("a task came after the worker had ended; it will be redelivered");
        }
    }

    fn count(&mut self, lane: &LaneId, pending: u64, has_room: bool) {
        let Some(lane) = self.lanes.get_mut(lane) else { return };
        lane.hot = pending > 0 || !has_room;
        lane.denied = false;
        if let Pull::Waiting { left, heard, .. } = &mut lane.pull {
            *left = left.saturating_sub(1);
            *heard = Instant::now();
            if *left == 0 {
                lane.pull = Pull::Idle;
            }
        }
    }

    fn on_status(&mut self, subject: &str, status: StatusCode) {
        let number = subject.rsplit('.').next().and_then(|text| text.parse::<u64>().ok());
        let is_of_pull =
            |lane: &Lane| matches!(lane.pull, Pull::Waiting { number: n, .. } if Some(n) == number);
        let Some((id, lane)) = self.lanes.iter_mut().find(|(_, lane)| is_of_pull(lane)) else {
            return;
        };
        lane.denied = false;
        match status {
            StatusCode::IDLE_HEARTBEAT => {
                if let Pull::Waiting { heard, .. } = &mut lane.pull {
                    *heard = Instant::now();
                }
            }
            // 404: no messages; 408: expired. Both are ordinary ends of a pull.
            StatusCode::NOT_FOUND | StatusCode::TIMEOUT => {
                lane.hot = false;
                lane.pull = Pull::Idle;
            }
            // 409: consumer gone, leader changed, too many pulls; 503: no leader now.
            _ => {
                lane.pull = Pull::Paused { until: Instant::now() + PAUSE };
                // If there is no room, others are being looked at, and this one's next pull says it again.
                self.inputs.doubts.try_send(id.clone()).ok();
            }
        }
    }

    fn on_lanes(&mut self) {
        let wanted = self.inputs.lanes.borrow_and_update().clone();
        // A pull of a lane that is not wanted any more runs out by itself.
        self.lanes.retain(|lane, _| wanted.contains(lane));
        for lane in wanted {
            self.lanes.entry(lane).or_insert(Lane { pull: Pull::Idle, hot: false, denied: false });
        }
    }

    fn on_link(&mut self) {
        let reconnects = self.inputs.link.borrow_and_update().reconnects;
        if std::mem::replace(&mut self.reconnects, reconnects) == reconnects {
            return;
        }
        for lane in self.lanes.values_mut() {
            lane.pull = Pull::Idle;
        }
    }

    fn is_up(&self) -> bool {
        self.inputs.link.borrow().state == LinkState::Up
    }

    fn look_over(&mut self) {
        if !self.is_up() {
            return;
        }
        let now = Instant::now();
        let mut rebuilt = 0;
        for (id, lane) in &mut self.lanes {
            if let Some(error) = denied(&self.bus, id, &lane.pull) {
                tracing::error!(lane = %id, %error, "this lane's tasks can't be asked for");
                lane.pull = Pull::Paused { until: now + error.pause(PAUSE) };
                lane.denied = true;
            }
            match lane.pull {
                Pull::Waiting { heard, heartbeat, .. }
                    if now.duration_since(heard) > 2 * heartbeat + SLACK =>
                {
                    tracing::warn!(lane = %id, "the server forgot a pull; asking again");
                    metrics::pull_rebuilt();
                    rebuilt += 1;
                    lane.pull = Pull::Idle;
                }
                // What its waiting pull asks for more would have come by now.
                Pull::Waiting { heard, .. } if now.duration_since(heard) >= LOOK_OVER => {
                    lane.hot = false;
                }
                Pull::Paused { until } if now >= until => lane.pull = Pull::Idle,
                Pull::Idle | Pull::Waiting { .. } | Pull::Paused { .. } => {}
            }
        }
        let is_stuck = |lane: &Lane| lane.denied || matches!(lane.pull, Pull::Paused { .. });
        let pulling = rebuilt == 0 && !self.lanes.values().any(is_stuck);
        self.health.send_if_modified(|health| {
            let new = PullHealth { pulling, rebuilt: health.rebuilt + rebuilt };
            std::mem::replace(health, new) != new
        });
    }

    async fn pull(&mut self) -> Result<(), BusError> {
        self.inputs.room.mark_unchanged();
        if !self.is_up() {
            return Ok(());
        }
        let heartbeat = heartbeat(self.lanes.len());
        let is_urgent = self.inputs.room.borrow().is_urgent;
        for (id, batch) in self.shares(self.room()) {
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            self.pulls += 1;
            let inbox = format!("{}.{}", self.inbox, self.pulls);
            let (expires, idle_heartbeat) = (EXPIRES.as_nanos(), heartbeat.as_nanos());
            let wait = (!lane.hot).then_some(Wait { expires, idle_heartbeat });
            let ask = PullRequest { batch, wait, no_wait: lane.hot };
            let subjects = self.bus.subjects();
            let (stream, consumer) = (subjects.queue_stream(), subjects.lane_consumer(&id));
            let denials = self.bus.denials().count();
            self.bus.pull(&stream, &consumer, inbox, &ask, is_urgent).await?;
            let (number, heard) = (self.pulls, Instant::now());
            lane.pull = Pull::Waiting { number, left: batch, heard, heartbeat, denials };
        }
        Ok(())
    }

    /// How many more tasks the worker can take than were passed on to it.
    fn room(&self) -> usize {
        let room = *self.inputs.room.borrow();
        // What the worker has not heard of yet will take a place each.
        let on_the_way = usize::try_from(self.passed - room.taken).unwrap_or(usize::MAX);
        room.free.saturating_sub(on_the_way)
    }
}
