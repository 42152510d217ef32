//! Many submissions at once: a bounded number in flight, answers in the order of the specs.

use std::future::{Future, ready};
use std::iter::Peekable;
use std::pin::Pin;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesOrdered;

use super::submit::{Parcel, Submission, SubmitError, Submitter, deliver};
use crate::wire::TaskSpec;

/// Submissions whose answers are awaited at once. Memory: that many specs.
const WINDOW: usize = 256;

type Answer = Result<Submission, SubmitError>;

/// Submissions in flight.
pub struct Bulk<I: Iterator<Item = TaskSpec>> {
    submitter: Submitter,
    parcels: Peekable<Parcels<I>>,
    in_flight: FuturesOrdered<Pin<Box<dyn Future<Output = Answer> + Send>>>,
}

struct Parcels<I>(I);

impl<I: Iterator<Item = TaskSpec>> Iterator for Parcels<I> {
    type Item = Parcel;

    fn next(&mut self) -> Option<Parcel> {
        self.0.next().map(Parcel::new)
    }
}

impl Submitter {
    /// Queues many tasks; each lane is looked up once.
    pub fn submit_all<I: IntoIterator<Item = TaskSpec>>(self, specs: I) -> Bulk<I::IntoIter> {
        Bulk {
            submitter: self,
            parcels: Parcels(specs.into_iter()).peekable(),
            in_flight: FuturesOrdered::new(),
        }
    }
}

impl<I: Iterator<Item = TaskSpec>> Bulk<I> {
    /// Returns the answer for the next spec, in their order; `None` after the last. Cancel safe.
    pub async fn next(&mut self) -> Option<Answer> {
        while self.in_flight.len() < WINDOW {
            let Some(parcel) = self.parcels.peek() else { break };
            let lane = self.submitter.ensure_lane(&parcel.lane, &parcel.record).await;
            let Some(parcel) = self.parcels.next() else { break };
            self.in_flight.push_back(match lane {
                Ok(()) => Box::pin(deliver(self.submitter.bus().clone(), parcel)),
                Err(error) => Box::pin(ready(Err(error))),
            });
        }
        self.in_flight.next().await
    }
}
