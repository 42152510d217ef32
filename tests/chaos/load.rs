//! The load: submitters, cancellers and followers, on connections past the proxies.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use runlane::client::{CancelOptions, Client, FollowEvent, GapReason, UnknownTask};
use runlane::nats::topology::ensure_lane;
use runlane::nats::{Bus, BusError, Headers};
use runlane::wire::{
    CancelRequest, Kind, LaneId, LaneRecord, Outcome, Selector, Stream, SubmitReply, TaskId,
};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::tasks::{Again, CancelPlan, TaskPlan, Way};

/// How long a submission is tried while servers are away.
const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two tries.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Who puts load on the servers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Load {
    pub(crate) client: Client,
    pub(crate) mark: String,
    pub(crate) side_file: PathBuf,
    pub(crate) seen: Seen,
}

/// What the load knows. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    accepted: Vec<TaskId>,
    not_accepted: Vec<String>,
    followed: BTreeMap<TaskId, Followed>,
}

/// What a follower heard of a task's last attempt.
#[derive(Debug, Clone, Default)]
pub(crate) struct Followed {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) gaps: usize,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) attempt: u32,
    pub(crate) ended: bool,
}

impl Seen {
    pub(crate) fn accepted(&self) -> Vec<TaskId> {
        self.lock().accepted.clone()
    }

    pub(crate) fn not_accepted(&self) -> Vec<String> {
        self.lock().not_accepted.clone()
    }

    pub(crate) fn followed(&self) -> BTreeMap<TaskId, Followed> {
        self.lock().followed.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lane for second messages of a task: it asks for what the default lane does.
fn second_lane() -> LaneId {
    "second".parse().expect("a valid lane")
}

/// A lane that the workers serve and no task belongs to.
fn wrong_lane() -> LaneId {
    "wrong".parse().expect("a valid lane")
}

/// Makes the lanes that the load needs.
pub(crate) async fn prepare(bus: &Bus, lease: Duration) -> Result<(), Box<dyn std::error::Error>> {
    let any = LaneRecord { kind: Kind::Subprocess, selector: Selector::default() };
    let labels = [("os".to_owned(), std::env::consts::OS.to_owned())].into();
    let selector = Selector { match_labels: labels, match_expressions: Vec::new() };
    let other = LaneRecord { kind: Kind::Subprocess, selector };
    ensure_lane(bus, &second_lane(), &any, lease).await?;
    ensure_lane(bus, &wrong_lane(), &other, lease).await?;
    Ok(())
}

impl Load {
    /// Submits every task at its time, with its cancels and followers; returns when all is done that
    /// doesn't wait for a task's end. Followers go on in `followers`.
    pub(crate) async fn run(&self, plans: &[TaskPlan], followers: &mut JoinSet<()>) {
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for plan in plans {
            sleep_until(start + plan.due).await;
            if let Some(after) = plan.follow {
                followers.spawn(self.clone().follow(plan.id.clone(), after));
            }
            tasks.spawn(self.clone().submit(plan.clone()));
            while tasks.try_join_next().is_some() {}
        }
        while let Some(ended) = tasks.join_next().await {
            ended.expect("the load does not panic");
        }
    }

    async fn submit(self, plan: TaskPlan) {
        if let Some(cancel) = plan.cancel.filter(|cancel| cancel.after.is_none()) {
            self.store_cancel(&plan.id, &cancel).await;
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.try_submit(&plan).await {
                Ok(()) => break self.seen.lock().accepted.push(plan.id.clone()),
                Err(error) if Instant::now() > deadline => {
                    let text = format!("{}: {error}", plan.id);
                    return self.seen.lock().not_accepted.push(text);
                }
                Err(_) => sleep(RETRY_PAUSE).await,
            }
        }
        let again = async {
            if let Some((after, again)) = plan.again {
                sleep(after).await;
                self.submit_again(&plan, again).await;
            }
        };
        let cancel = async {
            if let Some(cancel) = plan.cancel
                && let Some(after) = cancel.after
            {
                sleep(after).await;
                self.cancel(&plan.id, &cancel).await;
            }
        };
        tokio::join!(again, cancel);
    }

    async fn try_submit(&self, plan: &TaskPlan) -> Result<(), String> {
        match plan.way {
            Way::Client => {
                let spec = plan.spec(&self.mark, &self.side_file);
                self.client.submit(spec).await.map(drop).map_err(|error| error.to_string())
            }
            Way::Direct => self.publish(plan, &LaneId::default_lane()).await,
            Way::WrongLane => self.publish(plan, &wrong_lane()).await,
            Way::Service => {
                let bus = self.client.bus();
                let payload = plan.payload(&self.mark, &self.side_file);
                let reply = bus.ask(bus.subjects().submit(), payload.into()).await;
                let reply = reply.map_err(|error| error.to_string())?;
                match serde_json::from_slice(&reply).map_err(|error| error.to_string())? {
                    SubmitReply::Accepted(_) => Ok(()),
                    SubmitReply::Refused { error, .. } => Err(error),
                }
            }
        }
    }

    /// Publishes the task's message as the bulk path does.
    async fn publish(&self, plan: &TaskPlan, lane: &LaneId) -> Result<(), String> {
        let bus = self.client.bus();
        let subject = bus.subjects().queue(lane, &plan.id);
        let payload = plan.payload(&self.mark, &self.side_file);
        match bus.publish(subject, Headers::default(), payload.into()).await {
            Ok(_) => Ok(()),
            // It waits there already.
            Err(BusError::Refused { code: 10_077, text }) if text.contains("per subject") => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    async fn submit_again(&self, plan: &TaskPlan, again: Again) {
        let lane = match again {
            Again::Same => LaneId::default_lane(),
            Again::Second => second_lane(),
            Again::Wrong => wrong_lane(),
        };
        // One try: whether it is stored or not, nothing may come of it.
        self.publish(plan, &lane).await.ok();
    }

    async fn cancel(&self, id: &TaskId, plan: &CancelPlan) {
        if !plan.stays {
            return self.store_cancel(id, plan).await;
        }
        let options = CancelOptions {
            request: request(plan),
            wait: Duration::from_secs(20),
            unknown: UnknownTask::Refuse,
        };
        let deadline = Instant::now() + PATIENCE;
        while self.client.cancel(id, &options).await.is_err() && Instant::now() < deadline {
            sleep(RETRY_PAUSE).await;
        }
    }

    /// Stores a cancel request and goes away.
    async fn store_cancel(&self, id: &TaskId, plan: &CancelPlan) {
        let bus = self.client.bus();
        let payload = serde_json::to_vec(&request(plan)).expect("a request is plain JSON");
        let deadline = Instant::now() + PATIENCE;
        let store =
            || bus.publish(bus.subjects().cancel(id), Headers::default(), payload.clone().into());
        while store().await.is_err() && Instant::now() < deadline {
            sleep(RETRY_PAUSE).await;
        }
    }

    /// Follows a task to its end, with as many attempts as the network takes to let it in.
    async fn follow(self, id: TaskId, after: Duration) {
        sleep(after).await;
        let mut follow = loop {
            match self.client.follow(&id).await {
                Ok(follow) => break follow,
                Err(_) => sleep(RETRY_PAUSE).await,
            }
        };
        self.seen.lock().followed.insert(id.clone(), Followed::default());
        loop {
            let event = timeout(Duration::from_secs(3600), follow.next()).await;
            let mut known = self.seen.lock();
            let followed = known.followed.entry(id.clone()).or_default();
            match event {
                Ok(Ok(Some(event))) => followed.hear(event),
                Ok(Ok(None)) => return followed.ended = true,
                Ok(Err(_)) | Err(_) => return,
            }
        }
    }
}

impl Followed {
    fn hear(&mut self, event: FollowEvent) {
        match event {
            FollowEvent::Chunk(chunk) => {
                if chunk.attempt.0 != self.attempt {
                    self.attempt = chunk.attempt.0;
                    (self.stdout, self.stderr, self.gaps) = (Vec::new(), Vec::new(), 0);
                }
                match chunk.stream {
                    Stream::Stdout => self.stdout.extend_from_slice(&chunk.data),
                    Stream::Stderr => self.stderr.extend_from_slice(&chunk.data),
                }
            }
            FollowEvent::Gap(gap) => {
                // What the cap left out is no loss.
                let lost = gap.reason == GapReason::Missing && gap.attempt.0 >= self.attempt;
                self.gaps += usize::from(lost);
            }
            FollowEvent::Outcome(outcome) => self.outcomes.push(*outcome),
            FollowEvent::Status(_) | FollowEvent::Unreachable(_) | FollowEvent::Reachable => {}
        }
    }
}

fn request(plan: &CancelPlan) -> CancelRequest {
    CancelRequest {
        reason: Some("chaos".to_owned()),
        by: Some("the canceller".to_owned()),
        grace_ms: plan.grace_ms,
        replaced_by: None,
    }
}
