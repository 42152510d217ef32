//! Output: the same bytes for who follows early, late and afterwards; memory stays bounded.

use std::fs;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::time::sleep;

use super::{Site, code, ended, err, peak_memory, until_exists};

/// 24 MiB of noise in pieces of odd sizes, with lines on stderr between them. It stops in the middle
/// until a file is there.
const NOISE: &str = r#"
import os, random, sys, time
up, go = sys.argv[1:]
noise = random.Random(7)
total = 24 << 20
sent = 0
while sent < total:
    piece = noise.randbytes(min(noise.randrange(1, 300_000), total - sent))
    if sent < total // 2 <= sent + len(piece):
        sys.stdout.buffer.flush()
        open(up, "w").close()
        while not os.path.exists(go):
            time.sleep(0.02)
    sys.stdout.buffer.write(piece)
    sent += len(piece)
    print("sent", sent, "bytes", file=sys.stderr)
"#;

fn digest(bytes: &[u8]) -> (usize, String) {
    (bytes.len(), format!("{:x?}", Sha256::digest(bytes)))
}

#[tokio::test]
async fn binary_output_is_the_same_for_early_late_and_later_followers() {
    let site = Site::new().await;
    let _worker = site.worker("w", "").await;
    let script = site.write("noise.py", NOISE);
    let (up, go) = (site.path("up"), site.path("go"));
    let (up_arg, go_arg) = (up.display().to_string(), go.display().to_string());
    let args = ["run", "--id", "noise", "--script", &script, "--runtime", "python"];
    let early = site.spawn(&[&args[..], &["--", &up_arg, &go_arg]].concat());
    until_exists(&up).await;
    let late = site.spawn(&["logs", "-f", "noise"]);
    fs::write(&go, "").expect("the file is written");
    let (early, late) = tokio::join!(ended(early), ended(late));
    let after = site.cli(&["logs", "noise"]).await;
    let direct = Command::new("python3").args([&script, &up_arg, &go_arg]).output().await;
    let direct = direct.expect("the script runs without us");
    assert_eq!(direct.stdout.len(), 24 << 20, "{}", err(&direct));
    for (who, output) in [("early", &early), ("late", &late), ("after", &after)] {
        assert_eq!(code(output), 0, "{who}: {}", err(output));
        assert_eq!(digest(&output.stdout), digest(&direct.stdout), "stdout, {who}");
        assert_eq!(digest(&output.stderr), digest(&direct.stderr), "stderr, {who}");
    }
    let only = site.cli(&["logs", "noise", "--stderr"]).await;
    assert_eq!((only.stdout.len(), digest(&only.stderr)), (0, digest(&direct.stderr)));
}

#[tokio::test]
async fn much_output_and_a_slow_reader_need_little_memory() {
    const BYTES: u64 = 192 << 20;
    let site = Site::new().await;
    let worker = site.worker("w", "").await;
    let script = format!("head -c {BYTES} /dev/zero | tr '\\0' x");
    let mut follower = site.spawn(&["run", "--id", "much", "--", "sh", "-c", &script]);
    let pid = follower.id().expect("it runs").try_into().expect("a process id");
    let mut stdout = follower.stdout.take().expect("stdout is a pipe");
    let mut read = stdout.read_u8().await.map(|_| 1).expect("the task writes");
    // The reader sleeps until the worker is through.
    assert_eq!(site.wait("much").await, 0);
    let client = peak_memory(pid);
    let mut buffer = vec![0; 1 << 20];
    loop {
        let n = stdout.read(&mut buffer).await.expect("the pipe can be read");
        assert!(buffer[..n].iter().all(|byte| *byte == b'x'));
        read += n as u64;
        if n == 0 {
            break;
        }
    }
    assert_eq!((read, code(&ended(follower).await)), (BYTES, 0));
    let outcome = &site.status("much").await["outcome"];
    assert_eq!(outcome["output"]["stdout"]["complete"], true);
    assert!(worker.peak_memory() < 64 << 10, "worker: {} KiB", worker.peak_memory());
    // 28 MiB are the program's own file. What sockets hold comes on top of what the follower keeps: more on
    // a busy machine.
    assert!(client < 96 << 10, "follower: {client} KiB");
}

#[tokio::test]
async fn a_reader_that_stops_for_long_keeps_its_connection() {
    const BYTES: usize = 24 << 20;
    // The server leaves a client that takes nothing for so long.
    let site = Site::with_server_config("write_deadline: \"500ms\"").await;
    let _worker = site.worker("w", "").await;
    let script = format!("head -c {BYTES} /dev/zero | tr '\\0' Q");
    for (id, form) in [("raw", &[][..]), ("json", &["--json"])] {
        let args = [&["run", "--id", id], form, &["--", "sh", "-c", &script]].concat();
        let mut follower = site.spawn(&args);
        let mut stdout = follower.stdout.take().expect("stdout is a pipe");
        stdout.read_u8().await.expect("the task writes");
        assert_eq!(site.wait(id).await, 0);
        sleep(Duration::from_secs(2)).await;
        let mut rest = Vec::new();
        stdout.read_to_end(&mut rest).await.expect("the pipe can be read");
        let ended = ended(follower).await;
        assert_eq!((code(&ended), err(&ended)), (0, String::new()), "{id}");
        // One was read before; in JSON that was a bracket.
        let bytes = rest.iter().filter(|byte| **byte == b'Q').count() + usize::from(id == "raw");
        assert_eq!(bytes, BYTES, "{id}");
    }
}
