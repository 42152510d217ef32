//! How the room is shared out among the lanes, and how often their pulls are to be heard of.

use std::time::Duration;

use super::{Intake, Lane};
use crate::wire::LaneId;

/// How often the server says that a waiting pull is still known: every two seconds. From 40 lanes on so
/// seldom that all of them together say it twenty times a second, but at least every ten seconds.
const HEARTBEAT: Duration = Duration::from_secs(2);
const HEARTBEAT_PER_LANE: Duration = Duration::from_millis(50);
const SELDOM_HEARTBEAT: Duration = Duration::from_secs(10);
impl Intake {
    /// Which idle lanes to ask now, and for how many tasks.
    pub(super) fn shares(&mut self, room: usize) -> Vec<(LaneId, usize)> {
        if room == 0 {
            return Vec::new();
        }
        let asked_of_hot: usize = self.lanes.values().filter(|l| l.hot).map(Lane::asked).sum();
        let mut budget = room.saturating_sub(asked_of_hot);
        let cold: Vec<_> = self.lanes.iter().filter(|(_, lane)| !lane.hot).collect();
        let share = room.div_ceil(cold.len().max(1));
        let cold = cold.into_iter().filter(|(_, lane)| lane.is_idle());
        let mut shares: Vec<_> = cold.map(|(id, _)| (id.clone(), share)).collect();
        let hot: Vec<_> = self.lanes.iter().filter(|(_, l)| l.hot && l.is_idle()).collect();
        // The lane after the one that was served last comes first.
        let first = hot.iter().position(|(id, _)| Some(*id) > self.last_hot.as_ref()).unwrap_or(0);
        let share = room.div_ceil(hot.len().max(1));
        let mut last_hot = None;
        for index in 0..hot.len() {
            let batch = share.min(budget);
            if batch == 0 {
                break;
            }
            let (id, _) = hot[(first + index) % hot.len()];
            shares.push((id.clone(), batch));
            budget -= batch;
            last_hot = Some(id.clone());
        }
        self.last_hot = last_hot.or(self.last_hot.take());
        shares
    }
}

pub(super) fn heartbeat(lanes: usize) -> Duration {
    let lanes = u32::try_from(lanes).unwrap_or(u32::MAX);
    HEARTBEAT_PER_LANE.saturating_mul(lanes).clamp(HEARTBEAT, SELDOM_HEARTBEAT)
}

#[cfg(test)]
mod tests {
    use super::super::EXPIRES;
    use super::*;

    #[test]
    fn heartbeats_of_many_lanes_are_seldom_and_the_server_takes_them() {
        let seconds = [0, 1, 40, 100, 256, 100_000].map(|lanes| heartbeat(lanes).as_secs());
        assert_eq!(seconds, [2, 2, 2, 5, 10, 10]);
        // It refuses one that is longer than half of the time that a pull may wait.
        assert!(SELDOM_HEARTBEAT * 2 <= EXPIRES);
    }
}
