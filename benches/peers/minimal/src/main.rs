//! The reference for what NATS itself costs: a durable worker without runlane's guarantees.
//!
//! Queue, output and outcomes are kept in file storage, the outcome is stored before the message is acked, and output
//! is published in a window of confirmed chunks. There is no start record, no lease renewal, no fencing, no retry, no
//! cancel, no isolation, and a task's descendants are left.
//!
//! ```text
//! peer-minimal worker URL CONCURRENCY     runs tasks; a task is its command, words separated by NUL
//! peer-minimal client URL                 requests on stdin, answers on stdout, one JSON object a line
//! ```

mod client;
mod worker;

use std::error::Error;

use async_nats::jetstream::{self, stream};

/// Any error: this is a benchmark, and all of them end it.
type Failure = Box<dyn Error + Send + Sync>;

const QUEUE: &str = "QUEUE";
const OUTPUT: &str = "OUTPUT";
const OUTCOMES: &str = "OUTCOMES";

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["worker", url, concurrency] => worker::run(url, concurrency.parse()?).await,
        ["client", url] => client::run(url).await,
        _ => Err("usage: peer-minimal worker URL CONCURRENCY | client URL".into()),
    }
}

/// Makes the three streams unless they are there.
async fn streams(jetstream: &jetstream::Context) -> Result<(), Failure> {
    let kept = |name: &str, subject: &str, retention| stream::Config {
        name: name.to_owned(),
        subjects: vec![subject.to_owned()],
        retention,
        ..stream::Config::default()
    };
    let queue = kept(QUEUE, "queue.*", stream::RetentionPolicy::WorkQueue);
    jetstream.get_or_create_stream(queue).await?;
    for (name, subject) in [(OUTPUT, "output.*"), (OUTCOMES, "outcome.*")] {
        jetstream
            .get_or_create_stream(kept(name, subject, stream::RetentionPolicy::Limits))
            .await?;
    }
    Ok(())
}
