//! Pull, spawn, publish output and outcome, ack.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::{self, Message, consumer::pull};
use futures_util::StreamExt;
use tokio::io::AsyncReadExt;
use tokio::process::{ChildStdout, Command};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::{Failure, QUEUE};

const CHUNK: usize = 64 * 1024;
/// Unconfirmed chunks of one task.
const WINDOW: usize = 8;

/// Runs tasks until it is killed, at most `concurrency` at once.
pub(crate) async fn run(url: &str, concurrency: usize) -> Result<(), Failure> {
    let jetstream = jetstream::new(async_nats::connect(url).await?);
    crate::streams(&jetstream).await?;
    let config = pull::Config {
        durable_name: Some("workers".to_owned()),
        ack_wait: Duration::from_secs(30),
        ..pull::Config::default()
    };
    let consumer =
        jetstream.get_stream(QUEUE).await?.get_or_create_consumer("workers", config).await?;
    // A few tasks more than can run are fetched ahead, so that no place waits for the network.
    let mut messages = consumer.stream().max_messages_per_batch(concurrency * 4).messages().await?;
    let places = Arc::new(Semaphore::new(concurrency));
    let mut tasks = JoinSet::new();
    while let Some(message) = messages.next().await {
        let message = message?;
        let place = Arc::clone(&places).acquire_owned().await?;
        let jetstream = jetstream.clone();
        tasks.spawn(async move {
            let done = task(&jetstream, &message).await;
            drop(place);
            done
        });
        while let Some(ended) = tasks.try_join_next() {
            ended??;
        }
    }
    Ok(())
}

async fn task(jetstream: &jetstream::Context, message: &Message) -> Result<(), Failure> {
    let id = message.subject.strip_prefix("queue.").ok_or("not a queue subject")?;
    let command = std::str::from_utf8(&message.payload)?;
    let mut words = command.split('\0');
    let program = words.next().ok_or("an empty task")?;
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let stdout = child.stdout.take().ok_or("stdout is piped")?;
    output(jetstream, format!("output.{id}"), stdout).await?;
    let status = child.wait().await?;
    let outcome = status.code().map_or_else(|| "signal".to_owned(), |code| code.to_string());
    jetstream.publish(format!("outcome.{id}"), outcome.into()).await?.await?;
    message.ack().await
}

/// Stores a task's output: each chunk as it is read, at most `WINDOW` of them unconfirmed.
async fn output(
    jetstream: &jetstream::Context,
    subject: String,
    mut stdout: ChildStdout,
) -> Result<(), Failure> {
    let mut unconfirmed = std::collections::VecDeque::<PublishAckFuture>::new();
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        // A pipe gives what is in it; a full chunk saves messages.
        while chunk.len() < CHUNK
            && (&mut stdout).take((CHUNK - chunk.len()) as u64).read_buf(&mut chunk).await? > 0
        {
        }
        if chunk.is_empty() {
            break;
        }
        if unconfirmed.len() == WINDOW
            && let Some(oldest) = unconfirmed.pop_front()
        {
            oldest.await?;
        }
        unconfirmed.push_back(jetstream.publish(subject.clone(), chunk.into()).await?);
    }
    for chunk in unconfirmed {
        chunk.await?;
    }
    Ok(())
}
