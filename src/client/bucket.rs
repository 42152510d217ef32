//! Reads all records of a key-value bucket.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;

use crate::nats::topology::{kv_key, kv_stream};
use crate::nats::{Bus, BusError};

/// A bucket's records by key, and the keys whose records can't be read: those of another version.
pub(super) struct Bucket<T> {
    pub(super) records: BTreeMap<String, T>,
    pub(super) unreadable: Vec<String>,
}

pub(super) async fn read<T: DeserializeOwned>(
    bus: &Bus,
    bucket: &str,
) -> Result<Bucket<T>, BusError> {
    let (stream, filter) = (kv_stream(bucket), kv_key(bucket, ">"));
    let prefix = kv_key(bucket, "");
    let mut found = Bucket { records: BTreeMap::new(), unreadable: Vec::new() };
    let mut from = 1;
    loop {
        let page = bus.read_page(&stream, &filter, from).await?;
        for stored in page.messages {
            from = stored.seq + 1;
            let key = stored.subject.strip_prefix(&prefix).unwrap_or(&stored.subject).to_owned();
            // A removed or expired key leaves an empty marker.
            if stored.payload.is_empty() {
                found.records.remove(&key);
                continue;
            }
            match serde_json::from_slice(&stored.payload) {
                Ok(record) => drop(found.records.insert(key, record)),
                Err(_) => found.unreadable.push(key),
            }
        }
        if page.end {
            return Ok(found);
        }
    }
}
