//! apalis on NATS JetStream: a worker that runs commands, and the client that queues them.
//!
//! ```text
//! peer-apalis worker URL CONCURRENCY     runs tasks; a task is the words of its command
//! peer-apalis client URL                 requests on stdin, answers on stdout, one JSON object a line
//! ```

use std::process::Stdio;
use std::time::Duration;

use apalis::layers::WorkerBuilderExt;
use apalis::prelude::*;
use apalis_nats::{Config, NatsJetStream};
use async_nats::jetstream::consumer::pull;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

type Backend = NatsJetStream<Vec<String>, pull::Config>;

#[tokio::main]
async fn main() -> Result<(), BoxDynError> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["worker", url, concurrency] => worker(url, concurrency.parse()?).await,
        ["client", url] => client(url).await,
        _ => Err("usage: peer-apalis worker URL CONCURRENCY | client URL".into()),
    }
}

/// A durable pull consumer, as in the crate's example; room for what is prefetched.
async fn backend(url: &str) -> Result<Backend, BoxDynError> {
    let config = Config::new("tasks")
        .with_pull_consumer()
        .durable()
        .with_ack_wait(Duration::from_secs(30))
        .with_max_ack_pending(1000);
    Ok(NatsJetStream::new(async_nats::connect(url).await?).with_config(config))
}

async fn worker(url: &str, concurrency: usize) -> Result<(), BoxDynError> {
    let worker = WorkerBuilder::new("peer")
        .backend(backend(url).await?)
        .concurrency(concurrency)
        .build(command);
    Ok(worker.run().await?)
}

async fn command(words: Vec<String>) -> Result<i32, BoxDynError> {
    let (program, arguments) = words.split_first().ok_or("an empty task")?;
    let status = Command::new(program).args(arguments).stdin(Stdio::null()).status().await?;
    Ok(status.code().ok_or("ended by a signal")?)
}

/// Answers requests until stdin ends; the verbs are explained in `peerbench/side.py`.
async fn client(url: &str) -> Result<(), BoxDynError> {
    let mut backend = backend(url).await?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut stdout = tokio::io::stdout();
    while let Some(line) = lines.next_line().await? {
        let request: Value = serde_json::from_str(&line)?;
        match (request["do"].as_str(), request["count"].as_u64()) {
            (Some("enqueue"), Some(count)) => enqueue(&mut backend, count).await?,
            (verb, _) => return Err(format!("unknown verb {verb:?}").into()),
        }
        stdout.write_all(b"null\n").await?;
        stdout.flush().await?;
    }
    Ok(())
}

async fn enqueue(backend: &mut Backend, count: u64) -> Result<(), BoxDynError> {
    for _ in 0..count {
        backend.push(vec!["/bin/true".to_owned()]).await?;
    }
    Ok(())
}
