//! The examples in Python, run against a real worker: what they do is all that docs/protocol.md promises
//! to clients in other languages.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use runlane::task::RunnerPolicy;
use runlane::wire::Compression;
use tokio::process::Command;
use tokio::sync::OnceCell;
use tokio::time::timeout;

use crate::support::nats::TestServer;
use crate::support::worker::{Fleet, settings_with};

/// What the example needs; new versions are tried on purpose, not by chance.
const PACKAGES: [&str; 2] = ["nats-py==2.16.0", "lz4==4.4.5"];
/// How long pip may take on a slow line.
const INSTALL_TIME: Duration = Duration::from_secs(180);
/// How long a client may take.
const CLIENT_TIME: Duration = Duration::from_secs(60);

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

/// Installs the packages once into the target directory, with the machine's own pip.
async fn python_path() -> PathBuf {
    static INSTALLED: OnceCell<PathBuf> = OnceCell::const_new();
    let installed = INSTALLED.get_or_init(|| async {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(PACKAGES.join("+"));
        if dir.join("nats").is_dir() {
            return dir;
        }
        // A name of its own until it is complete: an install that was cut off is never used.
        let work = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("temp dir");
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]);
        pip.arg(work.path().join("new")).args(PACKAGES);
        let output = finished(&mut pip, INSTALL_TIME).await;
        assert!(output.status.success(), "pip can't install {PACKAGES:?}: {output:?}");
        // It fails if somebody else was faster; then theirs is complete.
        std::fs::rename(work.path().join("new"), &dir).ok();
        assert!(dir.join("nats").is_dir(), "{} is complete", dir.display());
        dir
    });
    installed.await.clone()
}

async fn finished(command: &mut Command, limit: Duration) -> Output {
    let command = command.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(limit, command.output()).await.expect("it ends in time");
    output.expect("python3 runs; the tests need it with pip")
}

async fn client(server: &TestServer, settings: &[(&str, &str)], command: &[&str]) -> Output {
    let mut python = Command::new("python3");
    python.arg(example("client.py")).args(command);
    python.env("PYTHONPATH", python_path().await).env("NATS_URL", server.url());
    python.envs(settings.iter().copied());
    finished(&mut python, CLIENT_TIME).await
}

#[tokio::test]
async fn the_python_client_submits_follows_and_exits_with_the_code() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let _worker = fleet.worker(&server, "w1", 2).await;
    let output = client(&server, &[], &["sh", "-c", "echo out; echo err >&2; exit 7"]).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(7), "{stderr}");
    assert_eq!(output.stdout, b"out\n");
    assert!(stderr.starts_with("err\n") && stderr.ends_with(": failed\n"), "{stderr}");
}

#[tokio::test]
async fn the_python_client_submits_by_request_too() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let _worker = fleet.worker(&server, "w1", 2).await;
    let output = client(&server, &[("SUBMIT", "request")], &["echo", "by request"]).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(
        (output.status.code(), &*output.stdout),
        (Some(0), &b"by request\n"[..]),
        "{stderr}"
    );
    // A wrong spec is refused with its problems, and nothing is queued.
    let output = client(&server, &[("SUBMIT", "request")], &[""]).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("\"problems\""), "{stderr}");
    fleet.queue_is_empty().await;
}

#[tokio::test]
async fn the_python_client_gets_every_byte() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let _worker = fleet.worker(&server, "w1", 2).await;
    let dir = tempfile::tempdir().expect("temp dir");
    let copy = dir.path().join("copy");
    let script = format!("head -c 20000000 /dev/urandom | tee {}", copy.display());
    let output = client(&server, &[], &["sh", "-c", &script]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let written = std::fs::read(copy).expect("the task wrote it");
    assert!(output.stdout == written, "{} bytes of {}", output.stdout.len(), written.len());
}

#[tokio::test]
async fn the_python_client_reads_compressed_output() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let policy = RunnerPolicy { output_compression: Compression::Lz4, ..RunnerPolicy::default() };
    let _worker = fleet.worker_with(&server, settings_with("w1", 2, policy)).await;
    let script = "yes 'a line' | head -c 3000000; head -c 1000000 /dev/zero";
    let output = client(&server, &[], &["sh", "-c", script]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = b"a line\n".iter().copied().cycle().take(3_000_000);
    let written: Vec<u8> = lines.chain(std::iter::repeat_n(0, 1_000_000)).collect();
    assert!(output.stdout == written, "{} bytes of {}", output.stdout.len(), written.len());
}

#[tokio::test]
async fn the_python_client_cancels() {
    let server = TestServer::start().await;
    let fleet = Fleet::new(&server).await;
    let _worker = fleet.worker(&server, "w1", 2).await;
    let command = ["sh", "-c", "echo up; sleep 600"];
    let output = client(&server, &[("CANCEL_AFTER", "0.5")], &command).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*output.stdout), (Some(130), &b"up\n"[..]), "{stderr}");
    assert!(stderr.ends_with(": canceled\n"), "{stderr}");
}

#[tokio::test]
async fn lanes_computed_in_python_are_ours() {
    for (selector, kind) in [
        ("", "subprocess"),
        ("", "wasm"),
        ("os=linux", "subprocess"),
        ("gpu in (b,a,b),os in (linux)", "container"),
        ("!spot,gpu,tier notin (dev,test),zone!=eu,a=2,a=1", "subprocess"),
        (r#"team="a \"b\" \\ é",ü=ö,z=1"#, "subprocess"),
    ] {
        let selector: runlane::wire::Selector = selector.parse().expect("a selector");
        let json = serde_json::to_string(&selector).expect("a selector is JSON");
        let mut python = Command::new("python3");
        python.env("PYTHONUTF8", "1").arg(example("lanes.py")).args([&json, kind]);
        let output = finished(&mut python, CLIENT_TIME).await;
        let said = String::from_utf8(output.stdout).expect("UTF-8");
        let kind = serde_json::from_value(kind.into()).expect("a kind");
        let record = runlane::wire::LaneRecord::new(kind, &selector);
        let wanted = serde_json::to_string(&record).expect("a record is JSON");
        assert_eq!(said, format!("{}\n{wanted}\n", record.id()), "{json}");
    }
}
