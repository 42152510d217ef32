//! Streams, buckets and the consumers of lanes: made when missing, never changed.
//!
//! A stream that is there with another retention, other subjects or other discard rules would break a
//! promise, so it is an error that names each difference. Sizes, ages, replicas and placement are the
//! operator's own: a difference there is only a note.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use serde::Deserialize;
use serde_json::Value;

use super::{Bus, BusError};
use crate::wire::{Kind, LaneId, LaneRecord, Selector};

/// Time for which a worker holds a task without a renewal, unless configured.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(30);
/// Pulls that may wait at one lane: the server's default of 512 would turn workers away.
const MAX_WAITING_PULLS: i64 = 20_000;
/// Lanes that the queue stream can have; nats-server 2.15 defaults to 1000.
const MAX_LANES: i32 = 10_000;
/// How long a removed or expired key of a bucket leaves a marker, for those who watch.
const KEY_MARKER_TTL: Duration = Duration::from_secs(60);

/// Sizes, ages and replicas, used when something is created.
#[derive(Debug, Clone)]
pub struct TopologySettings {
    /// Copies of each stream: 1, 3 or 5.
    pub replicas: usize,
    /// Keep everything in the server's memory: it is lost when the server ends.
    pub memory: bool,
    /// How long status chains, cancel requests and outcomes are kept.
    pub tasks_max_age: Duration,
    /// How long output is kept.
    pub output_max_age: Duration,
    /// Bytes of output that are kept; the oldest goes first. None: no limit.
    pub output_max_bytes: Option<u64>,
    /// Bytes of waiting tasks; a submission past it is refused. None: no limit.
    pub queue_max_bytes: Option<u64>,
    /// Time for which a worker holds a task without a renewal (the lane consumers' `ack_wait`).
    pub lease: Duration,
}

impl Default for TopologySettings {
    fn default() -> Self {
        Self {
            replicas: 1,
            memory: false,
            tasks_max_age: Duration::from_secs(7 * 24 * 3600),
            output_max_age: Duration::from_secs(3 * 24 * 3600),
            output_max_bytes: None,
            queue_max_bytes: None,
            lease: DEFAULT_LEASE,
        }
    }
}

/// What `ensure` found or did, one entry for each stream and bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ensured {
    /// The stream's name.
    pub name: String,
    /// Whether it was made just now.
    pub created: bool,
    /// Settings that differ from the configuration and were left as they are.
    pub notes: Vec<String>,
}

/// Why the streams can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// A stream is there and would break a promise.
    #[error(
        "stream {name} is there with an incompatible configuration; nothing was changed: {}",
        differences.join("; ")
    )]
    Incompatible {
        /// The stream.
        name: String,
        /// Each difference: setting, what is there, what is needed.
        differences: Vec<String>,
    },
    /// A stream or consumer is missing and could not be made.
    #[error("cannot create {name}")]
    Create {
        /// What.
        name: String,
        /// Why.
        #[source]
        source: BusError,
    },
    /// The server could not be asked.
    #[error("cannot look up {name}")]
    LookUp {
        /// What.
        name: String,
        /// Why.
        #[source]
        source: BusError,
    },
    /// Two different selectors have the same lane id.
    #[error("lane {lane} is there for another selector: {found}")]
    LaneTaken {
        /// The lane.
        lane: LaneId,
        /// Its record, as JSON.
        found: String,
    },
}

/// Makes every stream and bucket that is missing, and the default lane; checks those that are there.
pub async fn ensure(bus: &Bus, settings: &TopologySettings) -> Result<Vec<Ensured>, TopologyError> {
    let mut report = Vec::new();
    for config in streams(bus, settings) {
        report.push(ensure_stream(bus, &config).await?);
    }
    let record = LaneRecord { kind: Kind::Subprocess, selector: Selector::default() };
    ensure_lane(bus, &LaneId::default_lane(), &record, settings.lease).await?;
    Ok(report)
}

/// Makes a lane if it is missing: its record, then its consumer. Both are idempotent, so any number
/// of submitters may do it at once. `lease` is used when the consumer is created.
pub async fn ensure_lane(
    bus: &Bus,
    lane: &LaneId,
    record: &LaneRecord,
    lease: Duration,
) -> Result<(), TopologyError> {
    let name = format!("lane {lane}");
    let payload = serde_json::to_vec(record).expect("a lane record is plain JSON");
    let stream = kv_stream(&bus.subjects().lanes_bucket());
    let key = kv_key(&bus.subjects().lanes_bucket(), lane.as_str());
    let found = bus.read_last(&stream, &key).await;
    let found = found.map_err(|source| TopologyError::LookUp { name: name.clone(), source })?;
    match found.filter(|found| !found.payload.is_empty()) {
        Some(found) => {
            if serde_json::from_slice::<LaneRecord>(&found.payload).ok().as_ref() != Some(record) {
                let found = String::from_utf8_lossy(&found.payload).into_owned();
                return Err(TopologyError::LaneTaken { lane: lane.clone(), found });
            }
        }
        None => {
            let stored = bus.publish(key, Default::default(), payload.into()).await;
            stored.map_err(|source| TopologyError::Create { name: name.clone(), source })?;
        }
    }
    ensure_lane_consumer(bus, lane, lease)
        .await
        .map_err(|source| TopologyError::Create { name, source })
}

/// Returns the lease of a lane: its consumer's `ack_wait`.
pub async fn lane_lease(bus: &Bus, lane: &LaneId) -> Result<Duration, BusError> {
    Ok(lane_info(bus, lane).await?.lease())
}

/// What the server says of a lane's consumer.
#[derive(Debug, Clone, Deserialize)]
pub struct LaneInfo {
    /// Tasks that wait.
    pub num_pending: u64,
    /// Tasks that a worker holds, or that wait for their next attempt.
    pub num_ack_pending: u64,
    /// Pulls that wait for tasks.
    pub num_waiting: u64,
    config: LaneConfig,
}

#[derive(Debug, Clone, Deserialize)]
struct LaneConfig {
    // Nanoseconds.
    ack_wait: u64,
}

impl LaneInfo {
    /// Time for which a worker holds a task of this lane without a renewal.
    pub fn lease(&self) -> Duration {
        Duration::from_nanos(self.config.ack_wait)
    }
}

/// Asks the server about a lane's consumer.
pub async fn lane_info(bus: &Bus, lane: &LaneId) -> Result<LaneInfo, BusError> {
    let subjects = bus.subjects();
    let what =
        format!("CONSUMER.INFO.{}.{}", subjects.queue_stream(), subjects.lane_consumer(lane));
    bus.api(&what, &serde_json::json!({})).await
}

async fn ensure_lane_consumer(bus: &Bus, lane: &LaneId, lease: Duration) -> Result<(), BusError> {
    // 10014: consumer not found. It is looked up first because creating one with another ack_wait
    // would be an error, and the lease of a lane that is there is not ours to change.
    match lane_info(bus, lane).await {
        Err(BusError::Refused { code: 10_014, .. }) => {}
        Err(error) => return Err(error),
        Ok(_) => return Ok(()),
    }
    let subjects = bus.subjects();
    let name = subjects.lane_consumer(lane);
    let config = pull::Config {
        durable_name: Some(name.clone()),
        name: Some(name.clone()),
        filter_subject: subjects.queue_lane(lane),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: lease,
        // A limit would leave a message in the stream that nobody sees; attempts are counted by the
        // status chain. Pending is unbounded because a delayed retry counts as pending.
        max_deliver: -1,
        max_ack_pending: -1,
        max_waiting: MAX_WAITING_PULLS,
        ..pull::Config::default()
    };
    let stream = subjects.queue_stream();
    let ask = serde_json::json!({
        "stream_name": stream,
        "config": async_nats::jetstream::consumer::IntoConsumerConfig::into_consumer_config(config),
        "action": "create",
    });
    let what = format!("CONSUMER.CREATE.{stream}.{name}.{}", subjects.queue_lane(lane));
    match bus.api::<Value>(&what, &ask).await {
        Ok(_) => Ok(()),
        // 10148: somebody made it in the meantime.
        Err(BusError::Refused { code: 10_148, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

async fn ensure_stream(bus: &Bus, config: &Config) -> Result<Ensured, TopologyError> {
    let name = config.name.clone();
    let wanted = serde_json::to_value(config).expect("a stream's configuration is plain JSON");
    let mut created = false;
    let found = match stream_config(bus, &name).await {
        // 10059: stream not found.
        Err(BusError::Refused { code: 10_059, .. }) => {
            created = true;
            create_stream(bus, &name, &wanted).await
        }
        other => other.map_err(|source| TopologyError::LookUp { name: name.clone(), source }),
    }?;
    let differences = differing(&found, &wanted, MUST_AGREE);
    if !differences.is_empty() {
        return Err(TopologyError::Incompatible { name, differences });
    }
    Ok(Ensured { name, created, notes: differing(&found, &wanted, MAY_DIFFER) })
}

async fn create_stream(bus: &Bus, name: &str, wanted: &Value) -> Result<Value, TopologyError> {
    let created = bus.api::<Value>(&format!("STREAM.CREATE.{name}"), wanted).await;
    match created {
        Ok(info) => Ok(info["config"].clone()),
        // 10058: somebody made it in the meantime, with another configuration.
        Err(BusError::Refused { code: 10_058, .. }) => stream_config(bus, name)
            .await
            .map_err(|source| TopologyError::LookUp { name: name.to_owned(), source }),
        Err(source) => Err(TopologyError::Create { name: name.to_owned(), source }),
    }
}

async fn stream_config(bus: &Bus, name: &str) -> Result<Value, BusError> {
    let info: Value = bus.api(&format!("STREAM.INFO.{name}"), &serde_json::json!({})).await?;
    Ok(info["config"].clone())
}

/// Settings on which the protocol's promises stand.
const MUST_AGREE: &[&str] = &[
    "subjects",
    "retention",
    "discard",
    "discard_new_per_subject",
    "max_msgs_per_subject",
    "max_msgs",
    "allow_direct",
    "allow_msg_ttl",
    "allow_msg_schedules",
    "no_ack",
    "sealed",
];

/// Settings that are the operator's own.
const MAY_DIFFER: &[&str] =
    &["num_replicas", "storage", "max_age", "max_bytes", "max_consumers", "max_msg_size"];

fn differing(found: &Value, wanted: &Value, names: &[&str]) -> Vec<String> {
    let neutral = |value: &Value| match value {
        Value::Null | Value::Bool(false) => Value::Null,
        // The server writes an unlimited number as -1, the client library as 0.
        Value::Number(n) if n.as_i64().is_some_and(|n| n <= 0) => Value::Null,
        other => other.clone(),
    };
    names
        .iter()
        .filter(|name| neutral(&found[**name]) != neutral(&wanted[**name]))
        .map(|name| format!("{name} is {}, wanted {}", found[*name], wanted[*name]))
        .collect()
}

fn streams(bus: &Bus, settings: &TopologySettings) -> Vec<Config> {
    let subjects = bus.subjects();
    let storage = if settings.memory { StorageType::Memory } else { StorageType::File };
    let base = Config {
        storage,
        num_replicas: settings.replicas,
        allow_direct: true,
        ..Config::default()
    };
    let bytes = |limit: Option<u64>| limit.map_or(-1, |n| i64::try_from(n).unwrap_or(i64::MAX));
    let bucket = |name: String, storage| bucket(&base, &name, storage);
    vec![
        Config {
            name: subjects.queue_stream(),
            subjects: vec![subjects.queue_all()],
            retention: RetentionPolicy::WorkQueue,
            discard: DiscardPolicy::New,
            max_messages_per_subject: 1,
            discard_new_per_subject: true,
            max_bytes: bytes(settings.queue_max_bytes),
            max_consumers: MAX_LANES,
            ..base.clone()
        },
        Config {
            name: subjects.tasks_stream(),
            subjects: vec![
                subjects.status_all(),
                subjects.cancel_all(),
                subjects.outcome_all(),
                subjects.spec_all(),
            ],
            max_age: settings.tasks_max_age,
            allow_message_ttl: true,
            ..base.clone()
        },
        Config {
            name: subjects.output_stream(),
            subjects: vec![subjects.output_all()],
            max_age: settings.output_max_age,
            max_bytes: bytes(settings.output_max_bytes),
            ..base.clone()
        },
        // A stream with schedules can't discard new messages, so it is not the queue.
        Config {
            name: subjects.schedule_stream(),
            subjects: vec![subjects.schedule_all(), subjects.due_all()],
            retention: RetentionPolicy::WorkQueue,
            allow_message_schedules: true,
            allow_message_ttl: true,
            ..base.clone()
        },
        bucket(subjects.lanes_bucket(), storage),
        bucket(subjects.slots_bucket(), storage),
        // Not in memory: its records need not survive a restart of the server, but the bucket must. A
        // server that isn't in a cluster forgets a memory stream altogether.
        bucket(subjects.workers_bucket(), storage),
    ]
}

/// The stream of a key-value bucket (ADR-8), with keys that can expire.
fn bucket(base: &Config, name: &str, storage: StorageType) -> Config {
    Config {
        name: kv_stream(name),
        subjects: vec![kv_key(name, ">")],
        storage,
        max_messages_per_subject: 1,
        discard: DiscardPolicy::New,
        allow_rollup: true,
        deny_delete: true,
        allow_message_ttl: true,
        subject_delete_marker_ttl: Some(KEY_MARKER_TTL),
        ..base.clone()
    }
}

/// The stream behind a bucket, by the convention of NATS' key-value stores (ADR-8).
pub fn kv_stream(bucket: &str) -> String {
    format!("KV_{bucket}")
}

/// The subject of a bucket's key, by the same convention.
pub fn kv_key(bucket: &str, key: &str) -> String {
    format!("$KV.{bucket}.{key}")
}
