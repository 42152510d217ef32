//! The client of the benchmark; its verbs are explained in `peerbench/side.py`.

use std::time::{Duration, Instant};

use async_nats::jetstream;
use futures_util::StreamExt;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::Failure;

/// Publishes that are unconfirmed at once while a backlog is queued.
const WINDOW: usize = 256;
/// As in limit.c.
const PAUSE: Duration = Duration::from_millis(5);

struct Client {
    nats: async_nats::Client,
    jetstream: jetstream::Context,
    submitted: u64,
}

/// Answers requests until stdin ends.
pub(crate) async fn run(url: &str) -> Result<(), Failure> {
    let nats = async_nats::connect(url).await?;
    let jetstream = jetstream::new(nats.clone());
    crate::streams(&jetstream).await?;
    let mut client = Client { nats, jetstream, submitted: 0 };
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut stdout = tokio::io::stdout();
    while let Some(line) = lines.next_line().await? {
        let answer = client.answer(&serde_json::from_str(&line)?).await?;
        stdout.write_all(format!("{answer}\n").as_bytes()).await?;
        stdout.flush().await?;
    }
    Ok(())
}

impl Client {
    async fn answer(&mut self, request: &Value) -> Result<Value, Failure> {
        let number = |name: &str| request[name].as_u64().ok_or("a number is missing");
        match request["do"].as_str() {
            Some("enqueue") => self.enqueue(number("count")?).await,
            Some("latency") => self.latency(number("count")?).await,
            Some("output") => self.output(number("size")?).await,
            verb => Err(format!("unknown verb {verb:?}").into()),
        }
    }

    fn next_id(&mut self) -> u64 {
        self.submitted += 1;
        self.submitted
    }

    async fn enqueue(&mut self, count: u64) -> Result<Value, Failure> {
        let first = self.submitted;
        self.submitted += count;
        let jetstream = &self.jetstream;
        let mut publishes = futures_util::stream::iter(first + 1..=self.submitted)
            .map(|id| async move {
                let ack = jetstream.publish(format!("queue.{id}"), "/bin/true".into()).await;
                ack?.await.map_err(Failure::from)
            })
            .buffer_unordered(WINDOW);
        while let Some(published) = publishes.next().await {
            published?;
        }
        Ok(Value::Null)
    }

    /// The client hears the outcome as a plain subscriber, while it is being stored.
    async fn latency(&mut self, count: u64) -> Result<Value, Failure> {
        let mut outcomes = self.nats.subscribe("outcome.*").await?;
        self.nats.flush().await?;
        let mut times = Vec::new();
        for _ in 0..count {
            tokio::time::sleep(PAUSE).await;
            let id = self.next_id();
            let began = Instant::now();
            let stored = self.jetstream.publish(format!("queue.{id}"), "/bin/true".into()).await?;
            let outcome = outcomes.next().await.ok_or("the connection ended")?;
            times.push(began.elapsed().as_secs_f64());
            stored.await?;
            if outcome.subject.as_str() != format!("outcome.{id}") || &outcome.payload[..] != b"0" {
                return Err(format!("unexpected outcome on {}", outcome.subject).into());
            }
        }
        Ok(json!(times))
    }

    async fn output(&mut self, size: u64) -> Result<Value, Failure> {
        let id = self.next_id();
        let limit = std::env::var("PEERBENCH_LIMIT")?;
        let mut chunks = self.nats.subscribe(format!("output.{id}")).await?;
        self.nats.flush().await?;
        let mut seen = Vec::with_capacity(usize::try_from(size)?);
        let began = Instant::now();
        let command = format!("{limit}\0produce\0{size}");
        self.jetstream.publish(format!("queue.{id}"), command.into()).await?.await?;
        while (seen.len() as u64) < size {
            let chunk = chunks.next().await.ok_or("the connection ended")?;
            seen.extend_from_slice(&chunk.payload);
        }
        let seconds = began.elapsed().as_secs_f64();
        let digest: String =
            Sha256::digest(&seen).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(json!({"seconds": seconds, "sha256": digest}))
    }
}
