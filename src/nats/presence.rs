//! What workers say about themselves, and the lanes there are: two buckets.
//!
//! A presence record expires unless it is written again, so a worker that died vanishes by itself.
//! It is for people and for autoscalers. Two decisions ask it, each long after a lease is over: whether
//! the worker of a canceled task is dead, and whether a slot's holder whose message is gone is.

use std::collections::BTreeMap;
use std::time::Duration;

use super::topology::{kv_key, kv_stream};
use super::{Bus, BusError, Headers, Subscription};
use crate::wire::{LaneId, LaneRecord, WorkerId, WorkerPresence};

/// How often a worker says that it is there.
pub const PRESENCE_INTERVAL: Duration = Duration::from_secs(5);
/// How long what it said holds.
pub const PRESENCE_TTL: Duration = Duration::from_secs(15);

/// Says that a worker is there.
pub async fn announce(bus: &Bus, presence: &WorkerPresence) -> Result<(), BusError> {
    let key = kv_key(&bus.subjects().workers_bucket(), presence.worker.as_str());
    let payload = serde_json::to_vec(presence).map_err(|e| BusError::Broken(e.to_string()))?;
    let ttl = Headers::default().with(
        async_nats::header::NATS_MESSAGE_TTL.as_ref(),
        format!("{}s", PRESENCE_TTL.as_secs()),
    );
    bus.publish(key, ttl, payload.into()).await.map(|_| ())
}

/// Takes a worker's record away.
pub async fn withdraw(bus: &Bus, worker: &WorkerId) -> Result<(), BusError> {
    let bucket = bus.subjects().workers_bucket();
    let key = kv_key(&bucket, worker.as_str());
    bus.purge(&kv_stream(&bucket), &key).await.map(|_| ())
}

/// Says whether a worker's record is there: it was alive at most [`PRESENCE_TTL`] ago.
pub async fn is_there(bus: &Bus, worker: &WorkerId) -> Result<bool, BusError> {
    let bucket = bus.subjects().workers_bucket();
    let stored = bus.read_last(&kv_stream(&bucket), &kv_key(&bucket, worker.as_str())).await?;
    // The marker of an expired key has no payload.
    Ok(stored.is_some_and(|stored| !stored.payload.is_empty()))
}

/// Reads all lanes and their records.
pub async fn lanes(bus: &Bus) -> Result<BTreeMap<LaneId, LaneRecord>, BusError> {
    let bucket = bus.subjects().lanes_bucket();
    let (stream, filter) = (kv_stream(&bucket), kv_key(&bucket, ">"));
    let mut lanes = BTreeMap::new();
    let mut from = 1;
    loop {
        let page = bus.read_page(&stream, &filter, from).await?;
        for stored in &page.messages {
            from = stored.seq + 1;
            let id = stored.subject.rsplit('.').next().and_then(|key| key.parse::<LaneId>().ok());
            let record = serde_json::from_slice::<LaneRecord>(&stored.payload).ok();
            // A removed lane leaves an empty marker.
            if let (Some(id), Some(record)) = (id, record) {
                lanes.insert(id, record);
            }
        }
        if page.end {
            return Ok(lanes);
        }
    }
}

/// Hears of new and removed lanes: each message means "read them again".
pub async fn lane_changes(bus: &Bus) -> Result<Subscription, BusError> {
    bus.subscribe(kv_key(&bus.subjects().lanes_bucket(), ">")).await
}
