//! A namespace on the server: its streams, who works in it, and its end.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::client::Client;
use crate::nats::{Bus, BusError, topology};
use crate::wire::{Namespace, WorkerId};

/// A namespace that nobody else has.
pub(super) fn own_namespace() -> Namespace {
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("bench-{}", &random[..12]).parse().expect("letters, digits and -")
}

/// Whether a worker has said that it is there.
pub(super) async fn is_there(client: &Client, name: &WorkerId) -> bool {
    // The streams are made by the worker: until then there is nothing to read.
    let Ok(list) = client.workers().await else { return false };
    list.workers.iter().any(|worker| worker.worker == *name)
}

/// The presets of the runners that are there, each once.
pub(super) async fn presets(client: &Client) -> Option<String> {
    let workers = client.workers().await.ok()?.workers;
    let runners = workers.iter().flat_map(|worker| &worker.runners);
    let presets: BTreeSet<String> = runners.map(|runner| runner.isolation.to_string()).collect();
    let presets: Vec<String> = presets.into_iter().collect();
    (!presets.is_empty()).then(|| presets.join(", "))
}

/// What the server says of a stream.
#[derive(Debug, Deserialize)]
pub(super) struct StreamInfo {
    pub(super) config: StreamConfig,
    pub(super) state: StreamState,
}

#[derive(Debug, Deserialize)]
pub(super) struct StreamConfig {
    pub(super) storage: String,
    pub(super) num_replicas: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct StreamState {
    pub(super) messages: u64,
}

/// Asks for the stream of tasks that wait or run.
pub(super) async fn queue(bus: &Bus) -> Result<StreamInfo, BusError> {
    let name = bus.subjects().queue_stream();
    bus.api(&format!("STREAM.INFO.{name}"), &serde_json::json!({})).await
}

/// Removes the streams of a namespace.
pub(super) async fn remove_streams(bus: &Bus) -> Result<(), BusError> {
    let subjects = bus.subjects();
    let kv = |bucket: String| topology::kv_stream(&bucket);
    let names = [
        subjects.queue_stream(),
        subjects.tasks_stream(),
        subjects.output_stream(),
        subjects.schedule_stream(),
        kv(subjects.lanes_bucket()),
        kv(subjects.slots_bucket()),
        kv(subjects.workers_bucket()),
    ];
    let mut done = Ok(());
    for name in names {
        let what = format!("STREAM.DELETE.{name}");
        match bus.api::<serde_json::Value>(&what, &serde_json::json!({})).await {
            // 10059: stream not found.
            Ok(_) | Err(BusError::Refused { code: 10_059, .. }) => {}
            Err(error) => done = Err(error),
        }
    }
    done
}
