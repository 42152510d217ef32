//! Ends of tasks that could not be stored, kept on disk until they can.
//!
//! While the server is away a run keeps its end in memory and tries again. The copy here is for a
//! worker that has to go before the server is back: the next one that starts on this host stores it.
//! That is safe at any time, because the record still has to follow the task's own start: if another
//! worker has taken the task since, the copy is refused and dropped.
//!
//! Bounds: [`MAX_ENTRIES`] files of at most a few kilobytes; what doesn't fit stays in memory only.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::time::{Duration, Instant, sleep};

use crate::client::Client;
use crate::nats::{Append, Bus, BusError, StatusLog};
use crate::wire::{Outcome, StatusEvent, TaskId};

/// Ends that are kept at most.
const MAX_ENTRIES: usize = 10_000;
/// Pause between two tries while the server is away.
const RETRY_PAUSE: Duration = Duration::from_secs(2);
/// How long one append is tried.
const PATIENCE: Duration = Duration::from_secs(5);

/// The directory of kept ends; none if there is nowhere to keep them.
#[derive(Debug, Clone)]
pub(super) struct Spool {
    dir: Option<PathBuf>,
}

/// One end.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    id: TaskId,
    expected_seq: u64,
    event: StatusEvent,
}

impl Spool {
    /// Uses a directory; it is made when something is kept.
    pub(super) fn new(dir: Option<PathBuf>) -> Self {
        Self { dir }
    }

    /// Keeps an end that could not be stored because of `unstored`; returns whether it is on disk.
    pub(super) async fn keep(
        &self,
        id: &TaskId,
        expected_seq: u64,
        event: &StatusEvent,
        unstored: &BusError,
    ) -> bool {
        let Some(dir) = self.dir.clone() else {
            tracing::warn!(task = %id, %unstored, "the end of a task is kept in memory until it can be stored");
            return false;
        };
        let entry = Entry { id: id.clone(), expected_seq, event: event.clone() };
        let written = tokio::task::spawn_blocking(move || write(&dir, &entry)).await;
        match written {
            Ok(Ok(())) => {
                tracing::warn!(task = %id, %unstored, "the end of a task is kept on disk until it can be stored");
                true
            }
            Ok(Err(error)) => {
                tracing::warn!(task = %id, %error, "the end of a task is kept in memory only");
                false
            }
            Err(error) => {
                tracing::error!(task = %id, %error, "the end of a task is kept in memory only");
                false
            }
        }
    }

    /// Forgets an end that is settled.
    pub(super) async fn forget(&self, id: &TaskId, expected_seq: u64) {
        let Some(dir) = &self.dir else { return };
        let path = path_of(dir, id, expected_seq);
        // Missing: another worker on this host has settled it.
        if let Err(error) = tokio::fs::remove_file(&path).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "a settled end was not removed");
        }
    }

    /// Stores what an earlier worker on this host left, then returns.
    pub(super) async fn recover(self, bus: Bus) -> Result<(), BusError> {
        let Some(dir) = self.dir.clone() else { return Ok(()) };
        let listed = tokio::task::spawn_blocking(move || read_all(&dir)).await;
        for entry in listed.unwrap_or_default() {
            while let Err(error) = store(&bus, &entry).await {
                if !error.is_passing() {
                    tracing::error!(task = %entry.id, %error, "a kept end can't be stored");
                    break;
                }
                sleep(error.pause(RETRY_PAUSE)).await;
            }
            self.forget(&entry.id, entry.expected_seq).await;
        }
        Ok(())
    }
}

async fn store(bus: &Bus, entry: &Entry) -> Result<(), BusError> {
    let log = StatusLog::new(bus.clone());
    let deadline = Instant::now() + PATIENCE;
    match log.append(&entry.id, &entry.event, entry.expected_seq, deadline).await? {
        Append::Won(_) => {
            tracing::info!(task = %entry.id, "the kept end of a task is stored");
            match outcome(&entry.event) {
                Some(outcome) => Client::new(bus.clone()).settle(outcome.clone()).await.map(|_| ()),
                None => Ok(()),
            }
        }
        Append::Lost(_) => {
            tracing::warn!(task = %entry.id, "a kept end was dropped: the task went on elsewhere");
            Ok(())
        }
    }
}

fn outcome(event: &StatusEvent) -> Option<&Outcome> {
    match event {
        StatusEvent::Finished(finished) => Some(&finished.outcome),
        StatusEvent::Started(_) | StatusEvent::Retrying(_) | StatusEvent::Requeued(_) => None,
    }
}

fn path_of(dir: &Path, id: &TaskId, expected_seq: u64) -> PathBuf {
    dir.join(format!("{id}.{expected_seq}.json"))
}

fn write(dir: &Path, entry: &Entry) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    if std::fs::read_dir(dir)?.count() >= MAX_ENTRIES {
        return Err(std::io::Error::other(format!("{} has {MAX_ENTRIES} ends", dir.display())));
    }
    // Whole or not at all, also when the machine stops here. Readable by us only.
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    serde_json::to_writer(&mut file, entry)?;
    file.flush()?;
    file.as_file().sync_all()?;
    file.persist(path_of(dir, &entry.id, entry.expected_seq))?;
    Ok(())
}

fn read_all(dir: &Path) -> Vec<Entry> {
    let Ok(files) = std::fs::read_dir(dir) else { return Vec::new() };
    let paths = files.flatten().map(|file| file.path());
    paths
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .filter_map(|path| match std::fs::read(&path).map(|text| serde_json::from_slice(&text)) {
            Ok(Ok(entry)) => Some(entry),
            Ok(Err(error)) => {
                tracing::error!(path = %path.display(), %error, "a kept end can't be read");
                None
            }
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "a kept end can't be read");
                None
            }
        })
        .collect()
}
