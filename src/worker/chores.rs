//! What workers do besides running tasks: they settle stored cancels and schedules that are due.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::{cancel_sweep, due};
use crate::client::Client;
use crate::nats::{Bus, BusError, Chore, ChoreQueue, ChoreSource, Link};

/// Messages of each sort that are worked on at once.
const AT_ONCE: usize = 16;
/// How soon a message whose step failed comes again. One that can't succeed as things are takes twice as long
/// each time that it comes, up to [`MOST_DOUBLINGS`]: a minute.
const RETRY: Duration = Duration::from_secs(2);
const MOST_DOUBLINGS: u32 = 5;
/// How long a step may take: the message comes to another worker soon after.
const STEP: Duration = Duration::from_secs(12);

/// What came of a message.
pub(super) enum Progress {
    /// Nothing is left to do.
    Settled,
    /// It is to be looked at again after this time.
    Again(Duration),
}

/// The two sorts of chores.
#[derive(Debug, Clone, Copy)]
pub(super) enum Sort {
    /// Stored cancel requests.
    Cancels,
    /// Schedules that are due.
    Due,
}

/// Settles messages of one sort until the connection is closed.
pub(super) async fn run(bus: Bus, link: watch::Receiver<Link>, sort: Sort) -> Result<(), BusError> {
    let source = match sort {
        Sort::Cancels => cancel_sweep::source(&bus),
        Sort::Due => due::source(&bus),
    };
    let mut queue = open(&bus, &link, source).await?;
    let client = Client::new(bus);
    let mut chores = JoinSet::new();
    loop {
        let room = chores.len() < AT_ONCE;
        // Cancel safe: a message stays in its subscription, a chore in its set, until taken.
        tokio::select! {
            chore = queue.next(), if room => match chore {
                Some(chore) => drop(chores.spawn(settle(client.clone(), sort, chore))),
                None => return Ok(()),
            },
            Some(_) = chores.join_next() => {}
        }
    }
}

fn pause_after(error: &BusError, delivered: u32) -> Duration {
    if error.is_passing() { RETRY } else { RETRY * 2_u32.pow(delivered.min(MOST_DOUBLINGS)) }
}

/// Opens the queue; a server that is starting or changing its leader is waited for.
async fn open(
    bus: &Bus,
    link: &watch::Receiver<Link>,
    source: ChoreSource,
) -> Result<ChoreQueue, BusError> {
    loop {
        match ChoreQueue::open(bus, link.clone(), source.clone()).await {
            Err(error) if error.is_passing() => {
                tracing::warn!(%error, consumer = source.consumer, "not open yet; trying again");
                sleep(error.pause(RETRY)).await;
            }
            opened => return opened,
        }
    }
}

async fn settle(client: Client, sort: Sort, chore: Chore) {
    let step = async {
        match sort {
            Sort::Cancels => cancel_sweep::sweep(&client, &chore).await,
            Sort::Due => due::settle(&client, &chore).await,
        }
    };
    // Whatever of it was done, whoever tries again finds it.
    let progress = timeout(STEP, step).await.unwrap_or(Err(BusError::Unclear(STEP)));
    let answered = match progress {
        Ok(Progress::Settled) => {
            chore.handle.ack(client.bus());
            Ok(())
        }
        Ok(Progress::Again(delay)) => chore.handle.nak(client.bus(), delay).await,
        Err(error) => {
            tracing::warn!(subject = %chore.subject, %error, "a step failed; it is tried again");
            chore.handle.nak(client.bus(), pause_after(&error, chore.delivered)).await
        }
    };
    if let Err(error) = answered {
        tracing::debug!(subject = %chore.subject, %error, "not answered; the message comes again");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nats::chores::ACK_WAIT;

    #[test]
    fn what_can_not_succeed_is_tried_ever_more_seldom_and_what_may_soon_again() {
        let never = BusError::TooLarge { size: 2, limit: 1 };
        let pauses = [1, 2, 9, 1000].map(|delivered| pause_after(&never, delivered).as_secs());
        assert_eq!(pauses, [4, 8, 64, 64]);
        assert_eq!(pause_after(&BusError::Unclear(STEP), 1000), RETRY);
        assert!(STEP < ACK_WAIT);
    }
}
