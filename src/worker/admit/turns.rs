//! One task of this worker after the other looks at a slot, in the order in which they ask.
//!
//! Without that, those that come together read the same record, write all at once, and all but one read
//! again: the number of messages grew with the square of theirs, and chance said who stood in the line
//! first. It is a matter of cost and order only, so nobody waits long.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Mutex as Turn, OwnedMutexGuard};
use tokio::time::timeout;

use super::{Line, Look};
use crate::nats::BusError;

/// How long a task waits for its turn: a look takes a few ms, unless the server is away.
const PATIENCE: Duration = Duration::from_millis(250);

/// Whose turn it is, for each slot that is looked at.
#[derive(Debug, Default)]
pub(in crate::worker) struct Turns {
    /// Never held over an await.
    slots: Mutex<HashMap<String, Weak<Turn<()>>>>,
}

impl Turns {
    /// Waits for the turn at a slot; dropping what is returned gives it to the next. None: it took too
    /// long.
    pub(super) async fn at(&self, slot: &str) -> Option<OwnedMutexGuard<()>> {
        let turn = self.turn(slot);
        timeout(PATIENCE, turn.lock_owned()).await.ok()
    }

    fn turn(&self, slot: &str) -> Arc<Turn<()>> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = slots.get(slot).and_then(Weak::upgrade) {
            return turn;
        }
        slots.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::default();
        slots.insert(slot.to_owned(), Arc::downgrade(&turn));
        turn
    }
}

impl Line<'_> {
    /// Looks, and gives the turn to the next.
    pub(super) async fn look(&mut self) -> Result<Look, BusError> {
        let look = self.look_in_turn().await;
        self.turn = None;
        look
    }

    pub(super) async fn take_turn(&mut self) {
        if self.turn.is_none() {
            self.turn = self.shared.turns.at(&self.request.name).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Waker};

    use tokio::time::Instant;

    use super::*;

    fn waits<T>(turn: &mut Pin<Box<impl Future<Output = T>>>) -> bool {
        turn.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    #[tokio::test(start_paused = true)]
    async fn turns_come_in_order_for_each_slot_and_nobody_waits_long() {
        let turns = Turns::default();
        let first = turns.at("a").await;
        let other = turns.at("b").await;
        assert!(first.is_some() && other.is_some());
        let (second, third) = (turns.at("a"), turns.at("a"));
        let (mut second, mut third) = (Box::pin(second), Box::pin(third));
        assert!(waits(&mut second) && waits(&mut third));
        drop(first);
        assert!(waits(&mut third), "it asked later");
        let second = second.await;
        assert!(second.is_some());
        let start = Instant::now();
        assert!(third.await.is_none());
        assert_eq!(start.elapsed(), PATIENCE);
        drop((second, other));
        let kept = turns.at("c").await;
        assert_eq!(turns.slots.lock().expect("nobody panicked").len(), 1, "only what is in use");
        drop(kept);
    }
}
