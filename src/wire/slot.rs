//! A slot's record in the slots bucket: who has the slot, and who waits for it.
//!
//! The key is [`SlotRecord::key`]. Every change is a compare-and-set on the key's subject, so of two
//! workers that want the last place one is refused. An empty record is written with a time to live, so
//! that slots that nobody uses vanish.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::ids::{TaskId, WorkerId};
use super::policy::Admission;

/// Bytes of the hash that stands for a name that is not a token.
const HASH_BYTES: usize = 16;

/// Who has a slot, and who waits for it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlotRecord {
    /// The slot's name.
    pub slot: String,
    /// Tasks that have it.
    #[serde(default)]
    pub holders: Vec<SlotHolder>,
    /// Tasks that wait for it, in no particular order.
    #[serde(default)]
    pub waiters: Vec<SlotWaiter>,
}

/// A task that has a slot: from its admission until its chain is finished, through retries and the
/// loss of workers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlotHolder {
    /// The task.
    pub task: TaskId,
    /// The worker that was the last to take the task with its slot.
    pub worker: WorkerId,
    /// The task's sequence in the queue stream.
    pub queue_seq: u64,
    /// How it was admitted.
    pub admission: Admission,
    /// When that worker took it.
    pub since: Timestamp,
}

/// A task that waits for a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SlotWaiter {
    /// The task.
    pub task: TaskId,
    /// The worker at which it waits.
    pub worker: WorkerId,
    /// The task's sequence in the queue stream: the lower one comes first.
    pub queue_seq: u64,
    /// `queue` or `replace`.
    pub admission: Admission,
    /// How many tasks may have the slot at once, in this task's opinion.
    pub limit: u32,
    /// When its place in the line is void, unless its worker has said before that it still waits.
    pub until: Timestamp,
}

impl SlotRecord {
    /// A slot that nobody has.
    pub fn free(slot: &str) -> Self {
        Self { slot: slot.to_owned(), holders: Vec::new(), waiters: Vec::new() }
    }

    /// Whether nobody has the slot or waits for it.
    pub fn is_free(&self) -> bool {
        self.holders.is_empty() && self.waiters.is_empty()
    }

    /// Returns the key of a slot in the bucket.
    ///
    /// A name of 1 to 126 of the characters `A-Z a-z 0-9 _ -` has the key `n-<name>`. Any other name
    /// has the key `h-<hex>`: the first 16 bytes of the SHA-256 of the name in UTF-8, in lower case.
    pub fn key(slot: &str) -> String {
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if !slot.is_empty() && slot.len() <= 126 && slot.chars().all(plain) {
            return format!("n-{slot}");
        }
        let hash = Sha256::digest(slot.as_bytes());
        let hex: String = hash.iter().take(HASH_BYTES).map(|byte| format!("{byte:02x}")).collect();
        format!("h-{hex}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_name_keeps_its_name_and_any_other_is_hashed() {
        assert_eq!(SlotRecord::key("build_A-1"), "n-build_A-1");
        // printf 'a b' | sha256sum
        assert_eq!(SlotRecord::key("a b"), "h-c8687a08aa5d6ed2044328fa6a697ab8");
    }

    #[test]
    fn a_key_is_one_token_whatever_the_name() {
        let long = "x".repeat(127);
        for name in ["", ".", "a.b", "*", ">", "é", "h-00", &long, &"x".repeat(256)] {
            let key = SlotRecord::key(name);
            assert!(key.parse::<TaskId>().is_ok(), "{name}: {key}");
        }
        assert_ne!(SlotRecord::key("h-00"), SlotRecord::key("00"));
    }
}
