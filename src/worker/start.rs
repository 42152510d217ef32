//! Starting a worker, and the handle on it.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::admit;
use super::chores::{self, Sort};
use super::drain::{Drain, Report};
use super::lanes::{LaneWatch, Lanes};
use super::main_loop::{LoopParts, MainLoop};
use super::places;
use super::presence::{PresenceWriter, features};
use super::rest;
use super::runner::{Router, Runner};
use super::service;
use super::shared::Shared;
use super::spool::Spool;
use super::suspend;
use crate::exec::Spawner;
use crate::nats::along;
use crate::nats::presence::PRESENCE_INTERVAL;
use crate::nats::topology::{self, TopologyError, TopologySettings};
use crate::nats::{
    Bus, BusError, Cancels, Intake, IntakeInputs, Link, LinkState, OutputPublisher, PullHealth,
    Pulled, Room, SlotChanges, Slots, StatusLog,
};
use crate::task::{DuplicateRunner, Host};
use crate::wire::{SlotRecord, WorkerId, WorkerPresence, WorkerState};

/// Changes of slots that a task which waits for one may be behind with.
const SLOT_CHANGES: usize = 256;

/// Lanes that are looked at together because they can't be pulled from.
const DOUBTED_LANES: usize = 64;

/// How a worker is set up.
pub struct WorkerSettings {
    /// Its name, unique in the namespace.
    pub worker: WorkerId,
    /// Tasks that run at once.
    pub capacity: NonZeroUsize,
    /// Labels that each of its runners has.
    pub labels: BTreeMap<String, String>,
    /// Its runners, in the order they are tried.
    pub runners: Vec<Box<dyn Runner>>,
    /// How long running tasks may go on after a drain was asked for.
    pub drain_timeout: Duration,
    /// Lanes that it serves at most.
    pub max_lanes: usize,
    /// Streams to make if they are missing; None: they must be there.
    pub manage: Option<TopologySettings>,
    /// Where the ends of tasks are kept that could not be stored; None: in memory only.
    pub state_dir: Option<PathBuf>,
    /// Whether it answers `runlane.submit`.
    pub submit_service: bool,
    /// What the host offers; for the presence record.
    pub host: Arc<Host>,
}

/// Why a worker could not be started, or ended.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Two runners have the same name.
    #[error(transparent)]
    Runners(#[from] DuplicateRunner),
    /// The streams are not fit.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The server refused what the worker needs.
    #[error("cannot reach the queue")]
    Bus(#[from] BusError),
    /// A part of the worker panicked.
    #[error("a part of the worker panicked; please report this as a bug")]
    Panicked(#[from] JoinError),
}

/// Whether a worker can take tasks, and why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// It pulls from its lanes.
    Ready,
    /// It doesn't.
    NotReady(&'static str),
}

/// A running worker. Dropping it kills its tasks; they are run again elsewhere after their lease.
pub struct Worker {
    drain: watch::Sender<Drain>,
    main: JoinSet<Report>,
    services: JoinSet<Result<(), BusError>>,
    health: watch::Receiver<PullHealth>,
    link: watch::Receiver<Link>,
}

impl Worker {
    /// Starts a worker; it takes tasks when this returns.
    ///
    /// # Errors
    /// The runners' names, or the streams, are not fit.
    pub async fn start(
        bus: Bus,
        link: watch::Receiver<Link>,
        spawner: Spawner,
        mut settings: WorkerSettings,
    ) -> Result<Self, WorkerError> {
        if let Some(manage) = &settings.manage {
            topology::ensure(&bus, manage).await?;
        }
        let router =
            Arc::new(Router::new(&settings.labels, std::mem::take(&mut settings.runners))?);
        prepare_first_tasks(&spawner, &router).await;
        let mut services = JoinSet::new();
        let pulling =
            pull(&mut services, &bus, &link, &router, settings.capacity, settings.max_lanes);
        let lanes = pulling.lanes;
        let spool = Spool::new(settings.state_dir.take());
        let log = StatusLog::new(bus.clone());
        let submissions = settings.submit_service.then_some(&settings.worker);
        spawn_helpers(&mut services, (&bus, &link), &log, &spool, submissions);
        let slot_changes = hear_of_slots(&mut services, &bus).await?;
        let ((places, asks), (starts, starts_rx)) = (places::asks(), rest::starts());
        let [(crowded, is_crowded), (in_doubt, is_in_doubt)] =
            [(); 2].map(|()| watch::channel(false));
        let (drain, drain_rx) = watch::channel(Drain::No);
        let wakes = hear_of_wakes(&mut services);
        let parts = LoopParts {
            capacity: settings.capacity.get(),
            drain_timeout: settings.drain_timeout,
            room: pulling.room,
            crowded,
            closing: pulling.closing,
            pulled: pulling.pulled,
            cancels: Cancels::listen(&bus).await?,
            control: bus.subscribe(bus.subjects().worker_control(&settings.worker)).await?,
            asks,
            starts: starts_rx,
            in_doubt,
            drain: drain_rx,
            presence: presence_writer(&bus, &lanes, &settings, &router),
            presence_tick: presence_tick(),
            shared: Arc::new(Shared {
                worker: settings.worker,
                log,
                slots: Slots::new(bus.clone()),
                slot_changes,
                turns: admit::Turns::default(),
                places,
                starts,
                publisher: OutputPublisher::new(bus.clone()),
                bus: bus.clone(),
                spool,
                spawner,
                router,
                lanes,
                is_crowded,
                wakes,
                is_in_doubt,
            }),
        };
        let mut main = JoinSet::new();
        main.spawn(MainLoop::new(parts).run());
        // Who hears that the worker is there can reach it.
        bus.round_trip().await?;
        Ok(Self { drain, main, services, health: pulling.health, link })
    }

    /// Asks the worker to end; a request that is less urgent than one before has no effect.
    pub fn drain(&self, how: Drain) {
        self.drain.send_if_modified(|known| {
            how > *known && {
                *known = how;
                true
            }
        });
    }

    /// Says whether the worker can take tasks.
    pub fn readiness(&self) -> Readiness {
        if *self.drain.borrow() != Drain::No {
            return Readiness::NotReady("draining");
        }
        if !matches!(self.link.borrow().state, LinkState::Up) {
            return Readiness::NotReady("not connected to NATS");
        }
        if !self.health.borrow().pulling {
            return Readiness::NotReady("not pulling from its lanes");
        }
        Readiness::Ready
    }

    /// Waits until the worker has ended: drained, or its connection closed for good. Cancel safe.
    ///
    /// # Errors
    /// A part of the worker failed or panicked.
    pub async fn ended(&mut self) -> Result<Report, WorkerError> {
        let mut failed = None;
        let report = loop {
            // Cancel safe: an end stays in its set until it is taken.
            tokio::select! {
                Some(report) = self.main.join_next() => break report?,
                Some(service) = self.services.join_next() => {
                    // A worker that has lost a part of itself must not look as if it worked.
                    if let Some(error) = failure(service) {
                        tracing::error!(%error, "a part of the worker failed; the worker ends");
                        self.drain(Drain::Wait);
                        failed = Some(error);
                    }
                }
                else => break Report::default(),
            }
        };
        self.services.abort_all();
        while let Some(service) = self.services.join_next().await {
            failed = failed.or(failure(service));
        }
        failed.map_or(Ok(report), Err)
    }
}

fn failure(service: Result<Result<(), BusError>, JoinError>) -> Option<WorkerError> {
    match service {
        Ok(result) => result.err().map(WorkerError::from),
        Err(error) if error.is_cancelled() => None,
        Err(error) => Some(error.into()),
    }
}

/// The worker's ends of its pull loop.
struct Pulling {
    lanes: watch::Receiver<Lanes>,
    room: watch::Sender<Room>,
    closing: watch::Sender<bool>,
    pulled: mpsc::Receiver<Pulled>,
    health: watch::Receiver<PullHealth>,
}

/// Starts to watch the lanes and to pull from those that a runner matches.
fn pull(
    services: &mut Services,
    bus: &Bus,
    link: &watch::Receiver<Link>,
    router: &Arc<Router>,
    capacity: NonZeroUsize,
    max_lanes: usize,
) -> Pulling {
    let (lanes_tx, lanes) = watch::channel(Lanes::new());
    let (names, lane_names) = watch::channel(BTreeSet::new());
    let (room, room_rx) = watch::channel(Room::default());
    let (closing, closing_rx) = watch::channel(false);
    let (health_tx, health) = watch::channel(PullHealth::default());
    // As many deliveries as can run. More come where they are fetched ahead, or from several lanes at
    // once; then the intake waits for the loop.
    let (pulled_tx, pulled) = mpsc::channel(capacity.get());
    let (doubts_tx, doubts) = mpsc::channel(DOUBTED_LANES);
    let lane_watch = LaneWatch {
        bus: bus.clone(),
        router: Arc::clone(router),
        max_lanes,
        link: link.clone(),
        lanes: lanes_tx,
        names,
        doubts,
        failing: BTreeMap::new(),
    };
    services.spawn(lane_watch.run());
    let inputs = IntakeInputs {
        lanes: lane_names,
        room: room_rx,
        link: link.clone(),
        closing: closing_rx,
        doubts: doubts_tx,
    };
    services.spawn(Intake::new(bus.clone(), inputs, pulled_tx, health_tx).run());
    Pulling { lanes, room, closing, pulled, health }
}

type Services = JoinSet<Result<(), BusError>>;

async fn hear_of_slots(
    services: &mut Services,
    bus: &Bus,
) -> Result<broadcast::Sender<Arc<SlotRecord>>, BusError> {
    let (slot_changes, _) = broadcast::channel(SLOT_CHANGES);
    let heard = SlotChanges::listen(bus).await?;
    services.spawn(admit::forward(heard, slot_changes.clone()));
    Ok(slot_changes)
}

fn hear_of_wakes(services: &mut Services) -> watch::Receiver<u64> {
    let (sender, wakes) = watch::channel(0);
    services.spawn(suspend::watch(sender, suspend::asleep));
    wakes
}

/// What a worker does for all: unstored ends, cancels, schedules, submissions.
fn spawn_helpers(
    services: &mut Services,
    (bus, link): (&Bus, &watch::Receiver<Link>),
    log: &StatusLog,
    spool: &Spool,
    submissions: Option<&WorkerId>,
) {
    services.spawn(along::run(bus.clone()));
    services.spawn(log.clone().watch_replicas());
    services.spawn(spool.clone().recover(bus.clone()));
    services.spawn(chores::run(bus.clone(), link.clone(), Sort::Cancels));
    services.spawn(chores::run(bus.clone(), link.clone(), Sort::Due));
    if let Some(worker) = submissions {
        services.spawn(service::run(bus.clone(), worker.clone()));
    }
}

fn presence_tick() -> Interval {
    let mut tick = interval(PRESENCE_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}

/// Starts the spawner and the processes that the first tasks find waiting.
async fn prepare_first_tasks(spawner: &Spawner, router: &Router) {
    for runner in router.runners() {
        let Some(sandbox) = runner.sandbox() else { continue };
        if let Err(error) = spawner.prepare(sandbox).await {
            let runner = runner.name();
            tracing::warn!(%runner, %error, "nothing can be prepared for tasks; each says what fails");
        }
    }
}

fn presence_writer(
    bus: &Bus,
    lanes: &watch::Receiver<Lanes>,
    settings: &WorkerSettings,
    router: &Router,
) -> PresenceWriter {
    PresenceWriter::new(bus.clone(), lanes.clone(), presence(settings, router))
}

fn presence(settings: &WorkerSettings, router: &Router) -> WorkerPresence {
    let hostname = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let now = Timestamp::now();
    WorkerPresence {
        worker: settings.worker.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        hostname: hostname.unwrap_or_default(),
        pid: std::process::id(),
        state: WorkerState::Ready,
        capacity: u32::try_from(settings.capacity.get()).unwrap_or(u32::MAX),
        running: 0,
        labels: settings.labels.clone(),
        runners: router.presence(),
        lanes: Vec::new(),
        features: features(&settings.host),
        started_at: now,
        seen_at: now,
    }
}
