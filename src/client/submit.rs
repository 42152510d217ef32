//! Puts tasks in their lanes' queues, once each.
//!
//! A task is known by its id: one that is queued, running or finished is not queued again. The queue
//! stream refuses a second message on the same subject; what was queued before is found by its status
//! chain; and should two submitters race past both, the chain lets only one of the messages run.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use super::Client;
use super::follow::Follow;
use super::schedule::{self, schedule};
use super::status::phase_of;
use crate::nats::topology::{DEFAULT_LEASE, TopologyError, ensure_lane, lane_lease};
use crate::nats::{Bus, BusError, Headers};
use crate::task::canonical;
use crate::wire::{LaneId, LaneRecord, Namespace, Phase, Submitted, TaskId, TaskSpec, Timer};

/// How long a submission is tried while the server is away.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two tries.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// A task that is known to the queue.
#[derive(Debug, Clone, PartialEq)]
pub struct Submission {
    /// Where it is; `duplicate` if it was known before.
    pub task: Submitted,
    /// Its phase: `pending` unless it was known before.
    pub phase: Phase,
}

/// Why a task is not queued.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// The spec doesn't fit into a message.
    #[error(
        "the spec has {size} bytes as JSON, and the server's max_payload is {limit}; raise max_payload in the server's configuration, or make the script smaller"
    )]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The server's limit in bytes.
        limit: usize,
    },
    /// The queue stream is at its limit.
    #[error(
        "the queue is full ({text}); wait until workers catch up, or raise the limit of stream {stream}"
    )]
    Full {
        /// What the server said.
        text: String,
        /// The queue's stream.
        stream: String,
    },
    /// The namespace has no streams.
    #[error(
        "the namespace {0} is not set up on this server; `runlane init` does it, and so does a worker when it starts"
    )]
    NotSetUp(Namespace),
    /// The task's lane can't be made.
    #[error("the task's lane can't be made")]
    Lane(#[source] TopologyError),
    /// The server could not be asked.
    #[error("the task could not be queued")]
    Bus(#[from] BusError),
}

impl SubmitError {
    /// Whether the server is away, or changes its leader: another try is worth the wait.
    fn is_about_now(&self) -> bool {
        match self {
            Self::Bus(error)
            | Self::Lane(
                TopologyError::LookUp { source: error, .. }
                | TopologyError::Create { source: error, .. },
            ) => may_pass(error),
            Self::Lane(TopologyError::Incompatible { .. } | TopologyError::LaneTaken { .. })
            | Self::TooLarge { .. }
            | Self::Full { .. }
            | Self::NotSetUp(_) => false,
        }
    }
}

/// Submits tasks one after the other and remembers which lanes are there.
pub struct Submitter {
    bus: Bus,
    lanes: HashSet<LaneId>,
    lease: Option<Duration>,
}

impl Client {
    /// Returns a submitter; keep it for many tasks.
    pub fn submitter(&self) -> Submitter {
        Submitter { bus: self.bus().clone(), lanes: HashSet::new(), lease: None }
    }

    /// Queues one task. The spec has to be valid: [`crate::task::parse_submission`] checks it.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub async fn submit(&self, spec: TaskSpec) -> Result<Submission, SubmitError> {
        self.submitter().submit(spec).await
    }
}

/// A spec on its way: named, encoded, its lane known.
pub(super) struct Parcel {
    pub(super) id: TaskId,
    pub(super) record: LaneRecord,
    pub(super) lane: LaneId,
    payload: Bytes,
    not_before: Option<Timestamp>,
    start_by: Option<Timestamp>,
    /// The id was made here: nobody else can know it.
    fresh: bool,
}

impl Parcel {
    pub(super) fn new(mut spec: TaskSpec) -> Self {
        schedule::settle_delay(&mut spec);
        let fresh = spec.id.is_none();
        let id = spec.id.get_or_insert_with(TaskId::generate).clone();
        let selector = spec.runner_selector.clone().unwrap_or_default();
        let record = LaneRecord::new(spec.kind.kind(), &selector);
        let lane = record.id();
        let (not_before, start_by) = (spec.not_before, spec.start_by);
        let payload = canonical(&spec).into();
        Self { id, record, lane, payload, not_before, start_by, fresh }
    }

    fn submission(&self, seq: u64, duplicate: bool) -> Submission {
        let task = Submitted { id: self.id.clone(), lane: self.lane.clone(), seq, duplicate };
        Submission { task, phase: Phase::Pending }
    }
}

impl Submitter {
    /// Queues a task; makes its lane if it is the first one in it.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub async fn submit(&mut self, spec: TaskSpec) -> Result<Submission, SubmitError> {
        let parcel = Parcel::new(spec);
        self.ensure_lane(&parcel.lane, &parcel.record).await?;
        deliver(self.bus.clone(), parcel).await
    }

    /// Queues a task and follows it from its first moment. The same as [`Self::submit`] and then
    /// [`Client::follow`], but the subscription comes first: of a task whose id is made here nobody has
    /// heard before, so there is nothing to be read.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub async fn submit_and_follow(
        &mut self,
        spec: TaskSpec,
    ) -> Result<(Submission, Follow), SubmitError> {
        let parcel = Parcel::new(spec);
        self.ensure_lane(&parcel.lane, &parcel.record).await?;
        let follow = Follow::subscribe(&self.bus, &parcel.id, parcel.fresh).await?;
        Ok((deliver(self.bus.clone(), parcel).await?, follow))
    }

    pub(super) fn bus(&self) -> &Bus {
        &self.bus
    }

    pub(super) async fn ensure_lane(
        &mut self,
        lane: &LaneId,
        record: &LaneRecord,
    ) -> Result<(), SubmitError> {
        if self.lanes.contains(lane) {
            return Ok(());
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.try_lane(lane, record).await {
                Err(error) if error.is_about_now() && Instant::now() < deadline => {
                    sleep(RETRY_PAUSE).await;
                }
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        self.lanes.insert(lane.clone());
        Ok(())
    }

    async fn try_lane(&mut self, lane: &LaneId, record: &LaneRecord) -> Result<(), SubmitError> {
        let lease = self.default_lease().await?;
        let made = ensure_lane(&self.bus, lane, record, lease).await;
        made.map_err(|error| explain(&self.bus, error))
    }

    /// The default lane's lease, which the operator chose by `runlane init`, holds for new lanes.
    async fn default_lease(&mut self) -> Result<Duration, SubmitError> {
        if let Some(lease) = self.lease {
            return Ok(lease);
        }
        let lease = match lane_lease(&self.bus, &LaneId::default_lane()).await {
            Ok(lease) => lease,
            // 10014: consumer not found; the default lane is made then.
            Err(BusError::Refused { code: 10_014, .. }) => DEFAULT_LEASE,
            Err(error) => return Err(not_set_up(&self.bus, &error).unwrap_or(error.into())),
        };
        self.lease = Some(lease);
        Ok(lease)
    }
}

/// 10059: stream not found.
fn not_set_up(bus: &Bus, error: &BusError) -> Option<SubmitError> {
    matches!(error, BusError::Refused { code: 10_059, .. })
        .then(|| SubmitError::NotSetUp(bus.subjects().namespace().clone()))
}

fn explain(bus: &Bus, error: TopologyError) -> SubmitError {
    match &error {
        TopologyError::LookUp { source, .. } | TopologyError::Create { source, .. } => {
            not_set_up(bus, source).unwrap_or(SubmitError::Lane(error))
        }
        TopologyError::Incompatible { .. } | TopologyError::LaneTaken { .. } => {
            SubmitError::Lane(error)
        }
    }
}

impl Submitter {
    /// Queues a canonical spec in the lane of `record`. False: a message of the task is there already.
    pub(super) async fn queue_in(
        &mut self,
        record: &LaneRecord,
        id: &TaskId,
        payload: Bytes,
    ) -> Result<bool, BusError> {
        let lane = record.id();
        match self.ensure_lane(&lane, record).await {
            Ok(()) => {}
            Err(SubmitError::Bus(error)) => return Err(error),
            Err(other) => return Err(BusError::Broken(other.to_string())),
        }
        put(&self.bus, &lane, id, payload).await
    }

    /// Queues something in the default lane, in the same way.
    pub(super) async fn queue_default(
        bus: &Bus,
        id: &TaskId,
        payload: Bytes,
    ) -> Result<bool, BusError> {
        put(bus, &LaneId::default_lane(), id, payload).await
    }
}

async fn put(bus: &Bus, lane: &LaneId, id: &TaskId, payload: Bytes) -> Result<bool, BusError> {
    match bus.publish(bus.subjects().queue(lane, id), Headers::default(), payload).await {
        Ok(_) => Ok(true),
        Err(BusError::Refused { code: 10_077, text }) if text.contains("per subject") => Ok(false),
        Err(error) => Err(error),
    }
}

pub(super) async fn deliver(bus: Bus, parcel: Parcel) -> Result<Submission, SubmitError> {
    let (size, limit) = (parcel.payload.len(), bus.max_payload());
    if size > limit {
        return Err(SubmitError::TooLarge { size, limit });
    }
    let deadline = Instant::now() + PATIENCE;
    // A try whose answer was lost may be the one that the next try finds in the queue.
    let mut unclear = false;
    loop {
        match try_deliver(&bus, &parcel, unclear).await {
            Err(SubmitError::Bus(error)) if may_pass(&error) && Instant::now() < deadline => {
                unclear |= matches!(error, BusError::Unclear(_));
                sleep(RETRY_PAUSE).await;
            }
            settled => return settled,
        }
    }
}

/// Whether another try is worth the wait.
fn may_pass(error: &BusError) -> bool {
    error.is_passing() && !error.is_denied()
}

async fn try_deliver(bus: &Bus, parcel: &Parcel, unclear: bool) -> Result<Submission, SubmitError> {
    if !parcel.fresh
        && !unclear
        && let Some(known) = known(bus, parcel).await?
    {
        return Ok(known);
    }
    if let Some(start_by) = parcel.start_by {
        // First: a task without its deadline would be worse than a deadline without its task.
        schedule(bus, &parcel.id, Timer::Expire, start_by, Bytes::new()).await?;
    }
    if let Some(not_before) = parcel.not_before.filter(|at| *at > Timestamp::now()) {
        let payload = parcel.payload.clone();
        let seq = schedule(bus, &parcel.id, Timer::Start, not_before, payload).await?;
        return Ok(parcel.submission(seq, false));
    }
    let subject = bus.subjects().queue(&parcel.lane, &parcel.id);
    match bus.publish(subject.clone(), Headers::default(), parcel.payload.clone()).await {
        Ok(seq) => Ok(parcel.submission(seq, false)),
        // 10077: the stream could not store it. One message a subject: it is queued already.
        Err(BusError::Refused { code: 10_077, text }) if text.contains("per subject") => {
            let stored = bus.read_last(&bus.subjects().queue_stream(), &subject).await?;
            // None: it was taken from the queue in this moment, so it was there.
            Ok(parcel.submission(stored.map_or(0, |stored| stored.seq), !unclear))
        }
        Err(BusError::Refused { code: 10_077, text }) => {
            Err(SubmitError::Full { text, stream: bus.subjects().queue_stream() })
        }
        Err(BusError::TooLarge { size, limit }) => Err(SubmitError::TooLarge { size, limit }),
        Err(error) => Err(error.into()),
    }
}

/// Looks a task up by its id, in whatever lane it is.
async fn known(bus: &Bus, parcel: &Parcel) -> Result<Option<Submission>, BusError> {
    let subjects = bus.subjects();
    let log = crate::nats::StatusLog::new(bus.clone());
    let (queue_stream, queue_task) = (subjects.queue_stream(), subjects.queue_task(&parcel.id));
    let (timers, timer) = (subjects.schedule_stream(), subjects.schedule(&parcel.id, Timer::Start));
    let (scheduled, queued, last) = tokio::try_join!(
        bus.read_last(&timers, &timer),
        bus.read_last(&queue_stream, &queue_task),
        log.last(&parcel.id)
    )?;
    if scheduled.is_none() && queued.is_none() && last.is_none() {
        return Ok(None);
    }
    let mut submission = parcel.submission(queued.as_ref().map_or(0, |stored| stored.seq), true);
    let lane = queued.and_then(|stored| subjects.parse_queue(&stored.subject));
    if let Some((lane, _)) = lane {
        submission.task.lane = lane;
    }
    if let Some(last) = last {
        submission.phase = phase_of(&last.event);
    }
    Ok(Some(submission))
}
