use std::os::fd::OwnedFd;
use std::process::Stdio;

use tokio::io::{AsyncWriteExt, DuplexStream, Empty, Repeat};
use tokio::net::unix::pipe;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::super::chunk::{DEFAULT_CHUNK_MAX, DEFAULT_COALESCE};
use super::super::pipe::READ_BUFFER;
use super::*;
use crate::task::plan::{OutputLimits, TAIL_BYTES};

impl PipeEnd for DuplexStream {
    fn grow(&self, _: usize) -> bool {
        false
    }
}

impl PipeEnd for Empty {
    fn grow(&self, _: usize) -> bool {
        false
    }
}

impl PipeEnd for Repeat {
    fn grow(&self, _: usize) -> bool {
        false
    }
}

fn settings() -> PumpSettings {
    PumpSettings::new(ChunkerSettings {
        chunk_max: DEFAULT_CHUNK_MAX,
        coalesce: DEFAULT_COALESCE,
        limits: OutputLimits { max_bytes: 64 << 20 },
    })
}

async fn collect(mut chunks: mpsc::Receiver<Chunk>) -> Vec<Chunk> {
    let mut all = Vec::new();
    while let Some(chunk) = chunks.recv().await {
        all.push(chunk);
    }
    all
}

fn joined(chunks: &[Chunk], stream: Stream) -> Vec<u8> {
    let mine = chunks.iter().filter(|chunk| chunk.stream == stream);
    mine.flat_map(|chunk| chunk.data.to_vec()).collect()
}

/// Runs a shell script with both outputs on pipes.
fn shell(script: &str) -> (tokio::process::Child, pipe::Receiver, pipe::Receiver) {
    let (out_tx, out_rx) = pipe::pipe().expect("pipe");
    let (err_tx, err_rx) = pipe::pipe().expect("pipe");
    let stdio = |tx: pipe::Sender| -> OwnedFd { tx.into_blocking_fd().expect("blocking end") };
    let child = tokio::process::Command::new("/bin/sh")
        .args(["-c", script])
        .stdin(Stdio::null())
        .stdout(stdio(out_tx))
        .stderr(stdio(err_tx))
        .kill_on_drop(true)
        .spawn()
        .expect("/bin/sh runs");
    (child, out_rx, err_rx)
}

#[tokio::test]
async fn a_real_programs_output_arrives_whole_and_in_order() {
    let (mut child, out, err) = shell("seq 1 50000; echo oops >&2; printf end");
    let (tx, rx) = mpsc::channel(8);
    let (gone_tx, gone) = oneshot::channel();
    let run = async {
        child.wait().await.expect("child ends");
        drop(gone_tx);
    };
    let (totals, chunks, ()) =
        tokio::join!(pump(out, err, settings(), gone, tx, None), collect(rx), run);
    let mut expected: Vec<u8> = (1..=50_000).flat_map(|n| format!("{n}\n").into_bytes()).collect();
    expected.extend(b"end");
    assert_eq!(joined(&chunks, Stream::Stdout), expected);
    assert_eq!(joined(&chunks, Stream::Stderr), b"oops\n");
    assert!(totals.stdout.eof && totals.stderr.eof);
    assert_eq!(totals.stdout.delivered_bytes, expected.len() as u64);
    assert!(totals.stderr.stored(5, 1).complete);
    assert!(chunks.iter().enumerate().all(|(at, chunk)| chunk.seq == at as u64));
}

/// Has something to read that the runtime doesn't know of.
struct Unannounced(std::sync::Mutex<Vec<&'static [u8]>>);

impl tokio::io::AsyncRead for Unannounced {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Pending
    }
}

impl PipeEnd for Unannounced {
    fn grow(&self, _: usize) -> bool {
        false
    }

    fn read_now(&self, into: &mut Vec<u8>) -> std::io::Result<usize> {
        let data = self.0.lock().expect("no panic").pop().unwrap_or_default();
        into.extend_from_slice(data);
        Ok(data.len())
    }
}

#[tokio::test(start_paused = true)]
async fn after_the_exit_what_is_there_is_read_to_the_end_without_waiting_for_word_of_it() {
    let begun = Instant::now();
    let out = Unannounced(vec![&b"end"[..], b"the "].into());
    let (tx, rx) = mpsc::channel(8);
    let (gone_tx, gone) = oneshot::channel();
    gone_tx.send(()).expect("the pump is there");
    let pumped = pump(out, Unannounced(Vec::new().into()), settings(), gone, tx, None);
    let (totals, chunks) = tokio::join!(pumped, collect(rx));
    assert_eq!(joined(&chunks, Stream::Stdout), b"the end");
    assert!(totals.stdout.eof && totals.stderr.eof);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test]
async fn a_full_sink_blocks_the_program_and_nothing_is_lost() {
    let (mut child, out, err) = shell("head -c 3000000 /dev/zero");
    let (tx, rx) = mpsc::channel(1);
    let (gone_tx, gone) = oneshot::channel();
    let mut tasks = JoinSet::new();
    tasks.spawn(pump(out, err, settings(), gone, tx, None));
    let blocked = timeout(Duration::from_millis(400), child.wait()).await;
    assert!(blocked.is_err(), "the program must wait in its write");
    let (chunks, exited) = tokio::join!(collect(rx), async {
        let status = child.wait().await;
        drop(gone_tx);
        status
    });
    assert!(exited.expect("child ends").success());
    let totals = tasks.join_next().await.expect("one task").expect("no panic");
    assert_eq!(joined(&chunks, Stream::Stdout).len(), 3_000_000);
    assert!(totals.stdout.eof);
}

#[tokio::test]
async fn a_closed_sink_lets_the_program_run_to_its_end() {
    let (mut child, out, err) = shell("head -c 3000000 /dev/zero");
    let (tx, mut rx) = mpsc::channel(1);
    let (gone_tx, gone) = oneshot::channel();
    let (totals, first, status) = tokio::join!(
        pump(out, err, settings(), gone, tx, None),
        async move { rx.recv().await.expect("one chunk") },
        async {
            let status = child.wait().await;
            drop(gone_tx);
            status
        }
    );
    assert!(status.expect("child ends").success());
    assert_eq!(totals.stdout.tally.bytes, 3_000_000);
    assert!(totals.stdout.delivered_bytes < 3_000_000);
    let taken = first.data.len() as u64;
    assert!(!totals.stdout.stored(taken, 1).complete);
}

#[tokio::test]
async fn the_cap_keeps_head_and_tail_of_a_real_program() {
    let (mut child, out, err) = shell("seq 1 200000");
    let (tx, rx) = mpsc::channel(8);
    let (gone_tx, gone) = oneshot::channel();
    let mut settings = settings();
    settings.chunks.limits.max_bytes = 1000;
    let (totals, chunks, ()) =
        tokio::join!(pump(out, err, settings, gone, tx, None), collect(rx), async {
            child.wait().await.expect("child ends");
            drop(gone_tx);
        });
    let all: Vec<u8> = (1..=200_000).flat_map(|n| format!("{n}\n").into_bytes()).collect();
    let mut expected = all[..1000].to_vec();
    expected.extend(&all[all.len() - TAIL_BYTES..]);
    assert_eq!(joined(&chunks, Stream::Stdout), expected);
    let omitted = totals.stdout.tally.omitted.expect("a middle is left out");
    assert_eq!((omitted.offset, omitted.bytes), (1000, (all.len() - 1000 - TAIL_BYTES) as u64));
}

#[tokio::test(start_paused = true)]
async fn a_pipe_held_by_a_stranger_ends_after_the_idle_time() {
    let (mut held, out) = tokio::io::duplex(1024);
    let (tx, rx) = mpsc::channel(8);
    let (gone_tx, gone) = oneshot::channel();
    held.write_all(b"last words").await.expect("open");
    drop(gone_tx);
    let start = Instant::now();
    let (totals, chunks) =
        tokio::join!(pump(out, tokio::io::empty(), settings(), gone, tx, None), collect(rx));
    assert!(start.elapsed() >= Duration::from_secs(2) && start.elapsed() < Duration::from_secs(3));
    assert_eq!(joined(&chunks, Stream::Stdout), b"last words");
    assert!(!totals.stdout.eof && totals.stderr.eof);
    assert!(!totals.stdout.stored(10, 1).complete && totals.stderr.stored(0, 0).complete);
    held.write_all(b"x").await.expect_err("the pump has let go of the pipe");
}

#[tokio::test(start_paused = true)]
async fn a_stranger_that_writes_without_pause_is_cut_by_bytes() {
    let (tx, rx) = mpsc::channel(8);
    let (gone_tx, gone) = oneshot::channel();
    drop(gone_tx);
    let endless = tokio::io::repeat(b'x');
    let (totals, _) =
        tokio::join!(pump(endless, tokio::io::empty(), settings(), gone, tx, None), collect(rx));
    assert!(!totals.stdout.eof);
    // Each turn sees the exit or takes a buffer, by chance.
    assert!(totals.stdout.tally.bytes <= (1 << 20) + 64 * READ_BUFFER as u64);
}

#[tokio::test(start_paused = true)]
async fn a_stranger_that_trickles_is_cut_by_the_total_wait() {
    let (mut held, out) = tokio::io::duplex(1024);
    let (tx, rx) = mpsc::channel(8);
    let (gone_tx, gone) = oneshot::channel();
    drop(gone_tx);
    let start = Instant::now();
    let trickle = async {
        while held.write_all(b".").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let (totals, _, ()) = tokio::join!(
        pump(out, tokio::io::empty(), settings(), gone, tx, None),
        collect(rx),
        trickle
    );
    assert!(!totals.stdout.eof);
    assert!(start.elapsed() < Duration::from_secs(13), "took {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn waiting_for_the_sink_after_the_exit_is_not_idle_time() {
    let (mut program, out) = tokio::io::duplex(1 << 20);
    let (tx, mut rx) = mpsc::channel::<Chunk>(1);
    let (gone_tx, gone) = oneshot::channel();
    program.write_all(&[1; 600_000]).await.expect("fits");
    drop(program);
    drop(gone_tx);
    let slow = async {
        let mut len = 0;
        while let Some(chunk) = rx.recv().await {
            len += chunk.data.len();
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
        len
    };
    let (totals, len) =
        tokio::join!(pump(out, tokio::io::empty(), settings(), gone, tx, None), slow);
    assert_eq!(len, 600_000);
    assert!(totals.stdout.eof);
}

#[tokio::test]
async fn first_bytes_arrive_while_the_program_still_runs() {
    let (child, out, err) = shell("printf hello; exec sleep 60");
    let (tx, mut rx) = mpsc::channel(8);
    let (_gone_tx, gone) = oneshot::channel();
    let mut tasks = JoinSet::new();
    tasks.spawn(pump(out, err, settings(), gone, tx, None));
    let chunk =
        timeout(Duration::from_secs(5), rx.recv()).await.expect("at once").expect("a chunk");
    assert_eq!(&chunk.data[..], b"hello");
    drop(child);
}
