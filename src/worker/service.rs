//! The submit service: `runlane.submit` as a NATS micro service, answered by any worker.
//!
//! The request is a spec, canonical or in a short form; the reply says where the task waits, or names
//! every problem. `nats req runlane.submit '{"command":["echo","hi"]}'` works, and `nats micro ls`
//! lists the workers.

use tokio::task::JoinSet;

use super::shared;
use crate::client::Client;
use crate::nats::service::{Service, ServiceInfo, ServiceRequest};
use crate::nats::{Bus, BusError};
use crate::task;
use crate::wire::{SubmitReply, WorkerId};

/// Requests that are worked on at once; further ones wait in the subscription.
const AT_ONCE: usize = 32;

/// Answers requests until the connection is closed.
pub(super) async fn run(bus: Bus, worker: WorkerId) -> Result<(), BusError> {
    let info = ServiceInfo {
        name: "runlane",
        description: "Takes task specs and queues them",
        subject: bus.subjects().submit(),
        metadata: [("worker".to_owned(), worker.to_string())].into(),
    };
    let mut service = Service::start(&bus, info).await?;
    let client = Client::new(bus);
    let mut answers = JoinSet::new();
    loop {
        let room = answers.len() < AT_ONCE;
        // Cancel safe: a request stays in the subscription, an answer in its set, until taken.
        tokio::select! {
            request = service.next(), if room => match request {
                Some(request) => drop(answers.spawn(answer(client.clone(), request))),
                None => return Ok(()),
            },
            Some(_) = answers.join_next() => {}
        }
    }
}

async fn answer(client: Client, request: ServiceRequest) {
    let reply = match task::parse_submission(request.payload()) {
        Ok(spec) => match client.submit(spec).await {
            Ok(submission) => SubmitReply::Accepted(submission.task),
            Err(error) => {
                SubmitReply::Refused { error: shared::chain(&error), problems: Vec::new() }
            }
        },
        Err(problems) => SubmitReply::Refused { error: "the spec is not valid".into(), problems },
    };
    let payload = serde_json::to_vec(&reply).expect("a reply is plain JSON");
    if let Err(error) = request.reply(payload.into()).await {
        tracing::debug!(%error, "a submission was not answered; asking again is harmless with an id");
    }
}
